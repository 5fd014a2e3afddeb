"""Graph autoregression: the deviation to come, from a sensor's own deviations and from its neighbours'."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.deviations import fill
from roadcast.forecasting.forecaster import Forecast
from roadcast.forecasting.graph import KINDS, Graph, Neighbourhood
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.parts import Parts, from_parts, to_parts
from roadcast.forecasting.profile import FittedProfile, fit_profile

OWN_LAGS = (0, 1, 2, 3, 4, 5)
NEIGHBOUR_LAGS = (0, 3)
FEATURES = len(OWN_LAGS) + KINDS * len(NEIGHBOUR_LAGS)
MAX_ROWS = 200_000
"""More rows than this do not change the coefficients: ticks are then sampled evenly."""
PRIOR_ROWS = 1_000
"""Ridge: the coefficients are drawn to the decaying deviation as if so many rows had shown it."""


@dataclass(frozen=True, slots=True)
class GraphAutoregression:
    """Linear, one set of coefficients per horizon for all sensors, so that it also serves sensors it never saw."""

    name: str = "graph_autoregression"

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedAutoregression":
        """With little history it comes out as the profile with decaying deviation."""
        profile, typical = fit_profile(history, target, horizons)
        deviations = history.of(target) - typical
        neighbours = graph.neighbourhood(history.sensors)
        filled = fill(deviations, profile.decay, STATE_TICKS)
        stride = max(1, -(-deviations.size // MAX_ROWS))
        ticks = np.arange(max(OWN_LAGS), len(history) - horizons, stride)
        rows = _features(filled, neighbours, ticks)
        coefficients = [_ridge(rows, deviations[ticks + h], profile.decay[h]) for h in range(1, horizons + 1)]
        return FittedAutoregression(profile, neighbours, np.array(coefficients, np.float32).reshape(horizons, FEATURES))

    def restore(self, parts: Parts) -> "FittedAutoregression":
        """What gave these parts."""
        return from_parts(FittedAutoregression, parts)


@dataclass(frozen=True, slots=True)
class FittedAutoregression:
    """coefficients: [H, FEATURES]."""

    profile: FittedProfile
    neighbours: Neighbourhood
    coefficients: NDArray[np.float32]

    def forecast(self, state: History) -> Forecast:
        """The last value where nothing is typical yet."""
        deviations, typical = self.profile.deviations(state)
        missing = np.full((STATE_TICKS - len(deviations), state.sensors), np.nan, np.float32)
        filled = fill(np.vstack([missing, deviations]), self.profile.decay, STATE_TICKS)
        rows = _features(filled, self.neighbours, np.array([STATE_TICKS - 1]))
        return self.profile.around(typical, rows[0] @ self.coefficients.T, state)

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)


def _features(filled: NDArray[np.float32], neighbours: Neighbourhood, ticks: NDArray[np.int64]) -> NDArray[np.float32]:
    """[n, S, FEATURES]: own deviations, then those of each kind of neighbours, at their lags before `ticks` [n]."""
    own = np.stack([filled[ticks - lag] for lag in OWN_LAGS], axis=-1)
    near = [neighbours.means(filled[ticks - lag]) for lag in NEIGHBOUR_LAGS]
    return np.concatenate([own, *near], axis=-1)


def _ridge(rows: NDArray[np.float32], target: NDArray[np.float32], decay: np.float32) -> NDArray[np.floating]:
    """Least squares of `target` [n, S] on `rows` [n, S, FEATURES], drawn to `decay` of the latest own deviation."""
    known = ~np.isnan(target)
    x, y = rows[known], target[known]
    square = (x.T @ x).astype(np.float64)
    mean_square = np.trace(square) / FEATURES / max(len(x), 1)
    ridge = np.eye(FEATURES) * (PRIOR_ROWS * mean_square or 1.0)
    prior = np.zeros(FEATURES)
    prior[0] = decay
    return np.linalg.solve(square + ridge, x.T @ y + ridge @ prior)
