"""Accuracy of the forecasters on the real week of Los-loop, by the protocol of its published table.

    python benchmarks/forecast_los_loop.py los_loop.npz

Fitted on the first 80 % of the week; RMSE/MAE in mph over all windows of 12 + 12 ticks inside the rest, all sensors
and all steps up to the horizon (Zhao et al. 2019, T-GCN). Each forecaster is printed beside the last value.
"""

import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from roadcast.domain.times import to_ms
from roadcast.forecasting.engine import LADDER
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, History
from roadcast.forecasting.metrics import mae, rmse

HORIZONS = 12
WINDOW = 12
STEPS = (3, 6, 9, 12)
ZONE = "America/Los_Angeles"


@dataclass(frozen=True)
class Score:
    """RMSE and MAE up to each of STEPS, seconds to fit and to forecast once."""

    errors: list[tuple[float, float]]
    fit_s: float
    forecast_s: float


def load(path: Path) -> tuple[History, Graph]:
    """The week and its links, which have no direction and so go both ways."""
    with np.load(path, allow_pickle=False) as data:
        speed, adjacency = data["speed"], data["adjacency"]
        start_ms = to_ms(datetime.fromisoformat(str(data["start"])).replace(tzinfo=ZoneInfo(ZONE)))
        interval_ms = int(data["interval_s"]) * 1000
    upstream, downstream = np.nonzero(adjacency)
    end_ms = start_ms + len(speed) * interval_ms
    history = History(speed[:, :, None], (SPEED,), end_ms, interval_ms, ZONE)
    return history, Graph(upstream, downstream, adjacency[upstream, downstream])


def score(forecaster: Forecaster, history: History, graph: Graph) -> Score:
    split = int(len(history) * 0.8)
    began = time.perf_counter()
    fitted = forecaster.fit(history.until(split), graph, SPEED, HORIZONS)
    fit_s = time.perf_counter() - began
    issues = range(split + WINDOW, len(history) - HORIZONS + 1)
    began = time.perf_counter()
    forecasts = np.stack([fitted.forecast(history.until(known)).median for known in issues])
    forecast_s = (time.perf_counter() - began) / len(issues)
    truth = np.stack([history.of(SPEED)[known : known + HORIZONS].T for known in issues])
    return Score([_pooled(forecasts[:, :, :step], truth[:, :, :step]) for step in STEPS], fit_s, forecast_s)


def _pooled(forecasts: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[float, float]:
    return rmse(forecasts, truth), mae(forecasts, truth)


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python benchmarks/forecast_los_loop.py PATH/los_loop.npz")
    history, graph = load(Path(sys.argv[1]))
    steps = [f"{step * history.interval_ms // 60_000} min" for step in STEPS]
    table = Table("forecaster", *steps, "fit, s", "forecast, ms", title="RMSE/MAE, mph")
    for forecaster in LADDER:
        result = score(forecaster, history, graph)
        cells = (f"{square:.3f}/{absolute:.3f}" for square, absolute in result.errors)
        table.add_row(forecaster.name, *cells, f"{result.fit_s:.3f}", f"{1000 * result.forecast_s:.3f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
