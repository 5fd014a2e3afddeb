"""A small neural net over a sensor and its neighbours that forecasts quantiles of the deviation to come."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.examples import Examples, sample
from roadcast.forecasting.features import View, learn_view
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.forecasting.parts import Parts, from_parts, to_parts
from roadcast.forecasting.perceptron import Perceptron, Training

RAREST = 0.001
RANGE_ROWS = 50_000
LEAST_SPREAD = 1e-3
"""Features that hardly change are not blown up."""


@dataclass(frozen=True, slots=True)
class GraphMlp:
    """The mean of a few nets, each for all sensors and horizons. The same seed gives the same nets."""

    name: str = "graph_mlp"
    seed: int = 0
    nets: int = 2
    training: Training = field(default_factory=Training)

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedMlp":
        """With too little history to learn from, it forecasts the decaying deviation and how the last value errs."""
        view, scene, deviations = learn_view(history, graph, target, horizons)
        examples = sample(view, scene, deviations, np.random.default_rng(self.seed))
        low, high = _range(examples.rows)
        np.clip(examples.rows, low, high, out=examples.rows)
        mean, spread = _moments(examples.rows)
        np.divide(examples.rows - mean, spread, out=examples.rows)
        start = _unconditional(view, examples)
        nets = (self.training.learn(examples, PROBABILITIES, start, (self.seed, turn)) for turn in range(self.nets))
        return FittedMlp(view, tuple(net.standardised(mean, spread) for net in nets), low, high)

    def restore(self, parts: Parts) -> "FittedMlp":
        """What gave these parts."""
        return from_parts(FittedMlp, parts)


@dataclass(frozen=True, slots=True)
class FittedMlp:
    """nets: each from features [S, F] to quantiles [S, H × Q]; low, high: [F] what the features were at its fit."""

    view: View
    nets: tuple[Perceptron, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def forecast(self, state: History) -> Forecast:
        """The last value where nothing is typical yet."""
        quantiles = self.quantiles(state)
        return Forecast(np.ascontiguousarray(quantiles[:, :, MEDIAN]), quantiles)

    def quantiles(self, state: History) -> NDArray[np.float32]:
        """[S, H, Q], in order."""
        scene, features = self.view.now(state)
        features = np.clip(features, self.low, self.high)
        outputs = self.nets[0](features)
        for net in self.nets[1:]:
            outputs += net(features)
        outputs /= np.float32(len(self.nets))
        quantiles = outputs.reshape(state.sensors, self.view.profile.horizons, len(PROBABILITIES))
        quantiles.sort(axis=-1)
        return self.view.expected(state, scene, quantiles, self.view.last_value_errors)

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)


def _range(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Between which features [F] lie, but for the rarest. What lies beyond is not learnt from and taken for the limit.

    A net that has seen few days would go astray beyond.
    """
    if not len(rows):
        nothing = np.zeros(rows.shape[1], np.float32)
        return nothing, nothing
    some = rows[:: max(1, len(rows) // RANGE_ROWS)]
    limits: NDArray[np.float32] = np.quantile(some, (RAREST, 1 - RAREST), axis=0).astype(np.float32)
    return limits[0], limits[1]


def _moments(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation [F] of the rows; 0 and the least where there are none."""
    count = max(len(rows), 1)
    mean = rows.sum(axis=0, dtype=np.float64) / count
    square = np.square(rows - mean.astype(np.float32)).sum(axis=0, dtype=np.float64) / count
    return mean.astype(np.float32), np.sqrt(np.maximum(square, LEAST_SPREAD**2)).astype(np.float32)


def _unconditional(view: View, examples: Examples) -> NDArray[np.float32]:
    """The quantiles [H, Q] of the targets of all examples; where there are none, of how the last value errs."""
    quantiles = view.last_value_errors / np.float32(view.mean_scale)
    for horizon, targets in enumerate(examples.targets.T):
        known = targets[~np.isnan(targets)]
        if known.size:
            quantiles[horizon] = np.quantile(known, PROBABILITIES)
    return quantiles
