"""What one forecast of a whole network costs, features included.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/forecast_cost.py [SENSORS …]

On simulated days along a chain of sensors: cost does not depend on what the readings are. CPU milliseconds, the least
of a few runs.
"""

import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from roadcast.forecasting.blend import FittedBlend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.forecaster import Fitted
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import SPEED, STATE_TICKS, History
from roadcast.forecasting.perceptron import Training

NETWORKS = (207, 10_000, 100_000)
HORIZONS = 12
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


def main() -> None:
    networks = [int(sensors) for sensors in sys.argv[1:]] or NETWORKS
    table = Table("sensors", "graph_mlp", "blend", title="one forecast, CPU-ms")
    for sensors in networks:
        history = simulated(sensors)
        state = history.last(STATE_TICKS)
        net = BRIEFLY_TRAINED.fit(history, chain(sensors), SPEED, HORIZONS)
        cells = [f"{cost_ms(net, state):.1f}"]
        if sensors <= MOST_FOR_TREES:
            trees = GradientBoosting(cases=50_000).fit(history, chain(sensors), SPEED, HORIZONS)
            blend = FittedBlend(net, trees, np.full(HORIZONS, 0.5, np.float32))
            cells.append(f"{cost_ms(blend, state):.1f}")
        table.add_row(f"{sensors:,}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
