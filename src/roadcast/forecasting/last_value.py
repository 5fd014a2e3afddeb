"""The last value, repeated: the forecast that every other must beat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.forecaster import Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History, last_observed
from roadcast.forecasting.parts import Parts, from_parts, to_parts


@dataclass(frozen=True, slots=True)
class LastValue:
    """Needs no history."""

    name: str = "last_value"

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedLastValue":
        """There is nothing to learn."""
        del history, graph
        return FittedLastValue(target, horizons)

    def restore(self, parts: Parts) -> "FittedLastValue":
        """What gave these parts."""
        return from_parts(FittedLastValue, parts)


@dataclass(frozen=True, slots=True)
class FittedLastValue:
    """Repeats the last reading within the state."""

    target: str
    horizons: int

    def forecast(self, state: History) -> Forecast:
        """NaN where the state holds no reading of a sensor."""
        return Forecast(repeated(state.last(STATE_TICKS).of(self.target), self.horizons))

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)


def repeated(observed: NDArray[np.float32], horizons: int) -> NDArray[np.float32]:
    """The last observed value of each column [T, S], for every horizon: [S, H]."""
    latest, _ = last_observed(observed)
    return np.repeat(latest[:, None], horizons, axis=1)
