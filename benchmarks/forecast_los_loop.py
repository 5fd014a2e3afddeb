"""Accuracy of the forecasters on the real week of Los-loop, averaged over seeds, and its ratio to the last value's.

    python benchmarks/forecast_los_loop.py los_loop.npz [SEED …]

By the protocol of its published table (Zhao et al. 2019, T-GCN), as `roadcast backtest` follows it: fitted on the
first 80 % of the week; errors in mph over all windows of 12 + 12 ticks inside the rest, all sensors and all steps up to
the horizon. Times are of the processor, on one thread where OMP_NUM_THREADS=1 says so.
"""

import sys
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import Measures, Task, measures
from roadcast.forecasting.forecasters import QUICK, every_forecaster
from roadcast.pipeline.backtesting import Outcome, judge, recording
from roadcast.sources.formats import FormatOptions, open_source

HORIZONS = 12
STEPS = (3, 6, 9, 12)
ZONE = "America/Los_Angeles"


def load(path: Path) -> Task:
    """The week, and what is asked of it."""
    source = open_source(path, FormatOptions(timezone=ZONE, zero_is_missing=False))
    batches = [chunk.batch for chunk in source.chunks()]
    found = recording(batches, source.links, interval_s=source.interval_s, timezone=ZONE, variable="speed")
    return Task(found.history, found.graph, "speed", HORIZONS, int(len(found.history) * 0.8), Tolerance(5.0, 0.1))


def averaged(outcomes: Sequence[Outcome]) -> list[Measures]:
    """The measures up to each step, averaged over the seeds."""
    of_seeds = np.array([[astuple(measures(o.tally, slice(0, step))) for step in STEPS] for o in outcomes])
    means: NDArray[np.float64] = of_seeds.mean(axis=0)
    return [Measures(*row) for row in means.tolist()]


def main() -> None:
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python benchmarks/forecast_los_loop.py PATH/los_loop.npz [SEED …]")
    task = load(Path(sys.argv[1]))
    seeds = [int(seed) for seed in sys.argv[2:]] or [0]
    minutes = task.history.interval_ms // 60_000
    heads = [f"{step * minutes} min" for step in STEPS]
    table = Table(
        "forecaster", *heads, "ratio", "80 %, Winkler", "90 %, Winkler", "ECE", "fit, CPU-s", title="RMSE/MAE, mph"
    )
    naive: float | None = None
    for number, forecaster in enumerate(every_forecaster()):
        chosen = seeds[:1] if forecaster in QUICK else seeds
        outcomes = [judge(every_forecaster(seed)[number], task) for seed in chosen]
        found = averaged(outcomes)
        last = found[-1]
        naive = naive or last.rmse
        table.add_row(
            forecaster.name,
            *(f"{each.rmse:.3f}/{each.mae:.3f}" for each in found),
            f"{last.rmse / naive:.3f}",
            f"{last.coverage_80:.1%}, {last.winkler_80:.2f}",
            f"{last.coverage_90:.1%}, {last.winkler_90:.2f}",
            f"{last.ece:.3f}",
            f"{np.mean([outcome.train_cpu_s for outcome in outcomes]):.1f}",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
