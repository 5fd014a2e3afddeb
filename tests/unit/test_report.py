"""A backtest's report: horizons in words, and legends that cover nothing."""

import numpy as np
import pytest

from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import Task
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.report.findings import Findings
from roadcast.report.pictures import _canvas, _legend


@pytest.mark.parametrize(
    ("interval_s", "steps", "told"),
    [(30, 1, "0.5 min"), (30, 3, "1.5 min"), (30, 120, "60 min"), (300, 3, "15 min"), (20, 1, "0.333333 min")],
)
def test_a_horizon_is_told_in_minutes_though_a_tick_is_shorter(interval_s: int, steps: int, told: str):
    history = History(np.zeros((4, 1, 1), np.float32), ("speed",), 0, interval_s * 1000, "UTC")
    task = Task(history, Graph(), "speed", 1, 2, Tolerance(5, 0.1))
    findings = Findings("file.csv", task, ["A"], [steps], False, [], "last_value")
    assert findings.ahead(steps) == told
    assert findings.minutes(steps) == steps * interval_s / 60


def test_a_legend_lies_above_what_it_explains():
    figure, axes = _canvas()
    for name in ("last_value", "profile", "graph_autoregression", "graph_mlp", "gradient_boosting", "blend"):
        axes.plot([0, 1], [1, 0], label=name)
    _legend(figure, 2)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.y0 >= axes.bbox.y1
    assert legend.y1 <= figure.bbox.y1
    assert legend.x1 <= figure.bbox.x1
    assert axes.bbox.height > figure.bbox.height / 2
