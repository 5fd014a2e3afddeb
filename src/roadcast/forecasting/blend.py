"""The blend of two forecasters, by how well each did on days that neither had seen."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.boosting import FittedBoosting, GradientBoosting
from roadcast.forecasting.calibration import in_order
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, Fitted, Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import FittedMlp, GraphMlp
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.parts import Parts, from_parts, to_parts

LEAST_DAYS = 2
"""With less history the net serves alone."""
FITTED_SHARE = 0.8
"""The share of the history from which both learn when they are compared on the rest."""
LEAST_ISSUES, MOST_ISSUES = 20, 100
COMPARED = 50_000
"""Sensors whose forecasts are compared, over all issues, where that leaves as many issues as are needed."""
FOLLOWING = np.array([2 * min(probability, 1 - probability) for probability in PROBABILITIES], np.float32)
"""How far each quantile goes along when the median is drawn to the trees': they know nothing of the tails."""


@dataclass(frozen=True, slots=True)
class Blend:
    """The net, drawn to the trees by weights per horizon. Both learn from all history once the weights are known."""

    name: str = "blend"
    net: GraphMlp = field(default_factory=GraphMlp)
    trees: GradientBoosting = field(default_factory=GradientBoosting)

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedBlend":
        """Under LEAST_DAYS of history it is the net."""
        weights = np.zeros(horizons, np.float32)
        if len(history) * history.interval_ms >= LEAST_DAYS * DAY_MS:
            weights = self._weights(history, graph, target, horizons)
        net = self.net.fit(history, graph, target, horizons)
        return FittedBlend(net, self.trees.fit(history, graph, target, horizons), weights)

    def restore(self, parts: Parts) -> "FittedBlend":
        """What gave these parts."""
        return from_parts(FittedBlend, parts)

    def _weights(self, history: History, graph: Graph, target: str, horizons: int) -> NDArray[np.float32]:
        """Of the trees, by the last part of the history."""
        split = int(len(history) * FITTED_SHARE)
        net = self.net.fit(history.until(split), graph, target, horizons)
        trees = self.trees.fit(history.until(split), graph, target, horizons)
        most = np.clip(COMPARED // max(history.sensors, 1), LEAST_ISSUES, MOST_ISSUES)
        issues = np.unique(np.linspace(split, len(history) - horizons, most).astype(np.int64)).tolist()
        states = [history.until(issue).last(STATE_TICKS) for issue in issues]
        truth = np.stack([history.of(target)[issue : issue + horizons].T for issue in issues])
        return least_squares_weights(_medians(net, states), _medians(trees, states), truth)


@dataclass(frozen=True, slots=True)
class FittedBlend:
    """weights: [H] of the trees' medians; the rest is the net's. Its quantiles follow, the outer ones less."""

    net: FittedMlp
    trees: FittedBoosting
    weights: NDArray[np.float32]

    def forecast(self, state: History) -> Forecast:
        """The last value where nothing is typical yet."""
        quantiles = self.net.quantiles(state)
        drawn = self.weights * (self.trees.forecast(state).median - quantiles[:, :, MEDIAN])
        quantiles = in_order(np.maximum(quantiles + drawn[:, :, None] * FOLLOWING, 0))
        return Forecast(np.ascontiguousarray(quantiles[:, :, MEDIAN]), quantiles)

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)


def least_squares_weights(
    one: NDArray[np.float32], other: NDArray[np.float32], truth: NDArray[np.float32]
) -> NDArray[np.float32]:
    """For each horizon the share [H] in 0 … 1 of the other's forecasts that leaves the least square error.

    All [issues, S, H]. 0 where nothing came true, and where both forecast the same.
    """
    gap, error = other - one, truth - one
    known = ~np.isnan(gap + error)
    gap, error = (np.where(known, part, 0).astype(np.float64) for part in (gap, error))
    square = np.sum(gap * gap, axis=(0, 1))
    share = np.divide(np.sum(gap * error, axis=(0, 1)), square, out=np.zeros_like(square), where=square > 0)
    return np.clip(share, 0, 1).astype(np.float32)


def _medians(fitted: Fitted, states: list[History]) -> NDArray[np.float32]:
    return np.stack([fitted.forecast(state).median for state in states])
