"""What one forecast of a whole network costs, features included.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/forecast_cost.py [SENSORS …]

On simulated days along a chain of sensors: cost does not depend on what the readings are. CPU milliseconds, the least
of a few runs, with each number of horizons. `forecasting/costs.py` says in figures what it finds.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from roadcast.forecasting.blend import FittedBlend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.forecaster import Fitted
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import SPEED, STATE_TICKS, History
from roadcast.forecasting.perceptron import Training

NETWORKS = (207, 10_000, 100_000)
HORIZONS = (12, 24)
DAYS = 2
MOST_FOR_TREES = 10_000
RUNS = 5
BRIEFLY_TRAINED = GraphMlp(training=Training(epochs=0.1))
"""What it has learnt does not change what it costs."""


def simulated(sensors: int) -> History:
    random = np.random.default_rng(0)
    ticks = DAYS * 288
    of_day = np.arange(ticks) % 288 / 288
    typical = (55 + 10 * np.cos(4 * np.pi * of_day)).astype(np.float32)
    speed = typical[:, None] + 4 * random.standard_normal((ticks, sensors), np.float32)
    return History(speed[:, :, None], (SPEED,), 1_331_553_600_000, 300_000, "UTC")


def chain(sensors: int) -> Graph:
    return Graph(np.arange(sensors - 1), np.arange(1, sensors), np.ones(sensors - 1, np.float32))


def cost_ms(fitted: Fitted, state: History) -> float:
    took: list[float] = []
    for _ in range(RUNS):
        began = time.process_time()
        fitted.forecast(state)
        took.append(time.process_time() - began)
    return 1000 * min(took)


def all_fitted(history: History, horizons: int) -> Iterator[Fitted]:
    """Trees only for networks on which they can learn here."""
    links = chain(history.sensors)
    yield from (forecaster.fit(history, links, SPEED, horizons) for forecaster in QUICK)
    net = BRIEFLY_TRAINED.fit(history, links, SPEED, horizons)
    yield net
    if history.sensors <= MOST_FOR_TREES:
        trees = GradientBoosting().fit(history, links, SPEED, horizons)
        yield trees
        yield FittedBlend(net, trees, np.full(horizons, 0.5, np.float32))


def main() -> None:
    networks = [int(sensors) for sensors in sys.argv[1:]] or NETWORKS
    heads = ("sensors", "horizons", *(each.name for each in QUICK), "graph_mlp", "gradient_boosting", "blend")
    table = Table(*heads, title="one forecast, CPU-ms")
    for sensors in networks:
        history = simulated(sensors)
        for horizons in HORIZONS:
            costs = [cost_ms(fitted, history.last(STATE_TICKS)) for fitted in all_fitted(history, horizons)]
            table.add_row(f"{sensors:,}", str(horizons), *(f"{cost:.2f}" for cost in costs))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
