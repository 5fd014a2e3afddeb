"""What a forecaster is."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.forecasting.parts import Parts


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of every sensor at every horizon, in the target's unit.

    median: [S, H] float32, at least 0, NaN only where nothing at all is known of a sensor; quantiles: [S, H, Q] where
    a forecaster has its own, at the probabilities of `error_history.PROBABILITIES`.
    """

    median: NDArray[np.float32]
    quantiles: NDArray[np.float32] | None = None


class Fitted(Protocol):
    """A forecaster that has learnt."""

    def forecast(self, state: History) -> Forecast:
        """Forecast the ticks that follow `state`, which it does not change.

        Never fails for missing readings, dead sensors, sensors appended since the fit, or a state without ticks. The
        same state gives the same bytes.
        """
        ...

    def parts(self) -> Parts:
        """All that it has learnt, as named arrays and texts."""
        ...


class Forecaster(Protocol):
    """A way to forecast. Stateless: what it learns is what `fit` returns."""

    @property
    def name(self) -> str:
        """Its name in forecasts and scores."""
        ...

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> Fitted:
        """Learn to forecast the variable `target` 1 to `horizons` ticks ahead, from whatever history there is."""
        ...

    def restore(self, parts: Parts) -> Fitted:
        """What gave these parts, so that it forecasts the same bytes.

        Raises:
            ValueError: a part is missing.
        """
        ...
