"""Accuracy of the forecasters on the real week of Los-loop, by the protocol of its published table.

    python benchmarks/forecast_los_loop.py los_loop.npz [SEED …]

Fitted on the first 80 % of the week; RMSE/MAE in mph over all windows of 12 + 12 ticks inside the rest, all sensors
and all steps up to the horizon (Zhao et al. 2019, T-GCN). Each forecaster is printed beside the last value: its median
and, where it has quantiles of its own, their mean and what its intervals are worth before any calibration. The learned
ones are averaged over the seeds. Times are of the processor, on one thread where OMP_NUM_THREADS=1 says so.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from roadcast.domain.times import to_ms
from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.forecaster import PROBABILITIES, Forecast, Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import SPEED, History
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.metrics import coverage, mae, rmse, winkler
from roadcast.forecasting.profile import Profile

HORIZONS = 12
WINDOW = 12
STEPS = (3, 6, 9, 12)
ZONE = "America/Los_Angeles"
MEAN_WEIGHTS = np.array([0.075, 0.1, 0.2, 0.25, 0.2, 0.1, 0.075], np.float32)
"""Of the quantiles: how much probability lies nearest to each."""


NAIVE: tuple[Forecaster, ...] = (LastValue(), Profile(), GraphAutoregression())


@dataclass(frozen=True)
class Score:
    """What forecasts are worth and cost; NaN where a forecaster has no quantiles.

    median, mean: RMSE and MAE up to each of STEPS, of the median and of the mean of the quantiles; intervals: coverage
    and Winkler score of those of 80 % and 90 %; seconds: to fit and to forecast once.
    """

    median: NDArray[np.floating]
    mean: NDArray[np.floating]
    intervals: NDArray[np.floating]
    seconds: NDArray[np.floating]


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
    began = time.process_time()
    fitted = forecaster.fit(history.until(split), graph, SPEED, HORIZONS)
    fit_s = time.process_time() - began
    issues = range(split + WINDOW, len(history) - HORIZONS + 1)
    began = time.process_time()
    forecasts = [fitted.forecast(history.until(known)) for known in issues]
    forecast_s = (time.process_time() - began) / len(issues)
    median = np.stack([forecast.median for forecast in forecasts])
    truth = np.stack([history.of(SPEED)[known : known + HORIZONS].T for known in issues])
    quantiles = np.stack([_quantiles(forecast) for forecast in forecasts])
    return Score(
        _pooled(median, truth),
        _pooled(quantiles @ MEAN_WEIGHTS, truth),
        np.array(
            [_interval(quantiles[..., low], quantiles[..., -1 - low], truth, PROBABILITIES[low]) for low in (1, 0)]
        ),
        np.array([fit_s, forecast_s]),
    )


def _quantiles(forecast: Forecast) -> NDArray[np.float32]:
    if forecast.quantiles is None:
        return np.full((*forecast.median.shape, len(PROBABILITIES)), np.nan, np.float32)
    return forecast.quantiles


def _pooled(forecasts: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.floating]:
    parts = [(forecasts[:, :, :step], truth[:, :, :step]) for step in STEPS]
    return np.array([(rmse(*part), mae(*part)) for part in parts])


def _interval(
    low: NDArray[np.float32], high: NDArray[np.float32], truth: NDArray[np.float32], below: float
) -> tuple[float, float]:
    return coverage(low, high, truth), winkler(low, high, truth, 2 * below)


def averaged(scores: Sequence[Score]) -> Score:
    return Score(*(np.mean([getattr(score, part.name) for score in scores], axis=0) for part in fields(Score)))


def candidates(seeds: Sequence[int]) -> list[list[Forecaster]]:
    """Each with all its seeds."""
    learned = [[kind(seed) for seed in seeds] for kind in (_mlp, _boosting, _blend)]
    return [[forecaster] for forecaster in NAIVE] + learned


def _mlp(seed: int) -> Forecaster:
    return GraphMlp(seed=seed)


def _boosting(seed: int) -> Forecaster:
    return GradientBoosting(seed=seed)


def _blend(seed: int) -> Forecaster:
    return Blend(net=GraphMlp(seed=seed), trees=GradientBoosting(seed=seed))


def main() -> None:
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python benchmarks/forecast_los_loop.py PATH/los_loop.npz [SEED …]")
    history, graph = load(Path(sys.argv[1]))
    steps = [f"{step * history.interval_ms // 60_000} min" for step in STEPS]
    columns = (*steps, "80 %: cover, Winkler", "90 %", "fit, CPU-s", "forecast, ms")
    table = Table("forecaster", *columns, title="RMSE/MAE, mph")
    for forecasters in candidates([int(seed) for seed in sys.argv[2:]] or [0]):
        result = averaged([score(forecaster, history, graph) for forecaster in forecasters])
        intervals = ["" if np.isnan(cost) else f"{100 * inside:.1f} % {cost:.2f}" for inside, cost in result.intervals]
        fit_s, forecast_s = result.seconds
        table.add_row(
            forecasters[0].name, *_cells(result.median), *intervals, f"{fit_s:.1f}", f"{1000 * forecast_s:.2f}"
        )
        if not np.isnan(result.mean).any():
            table.add_row("  mean of quantiles", *_cells(result.mean))
    Console(width=180).print(table)


def _cells(errors: NDArray[np.floating]) -> list[str]:
    return [f"{square:.3f}/{absolute:.3f}" for square, absolute in errors]


if __name__ == "__main__":
    main()
