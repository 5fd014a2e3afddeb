"""What a forecaster is."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.forecast import QUANTILES
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.forecasting.parts import Parts

NAIVE = ("last_value", "profile")
"""The names of those that every other must beat."""

PROBABILITIES = QUANTILES
"""Of the quantiles that are served."""
MEDIAN = PROBABILITIES.index(0.50)
TRIMEAN = np.array([0, 0, 1, 2, 1, 0, 0], np.float32) / 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of every sensor at every horizon, in the target's unit.

    median: [S, H] float32, at least 0, NaN only where nothing at all is known of a sensor; quantiles: [S, H, Q] where
    a forecaster has its own, at the probabilities of `PROBABILITIES`.
    """

    median: NDArray[np.float32]
    quantiles: NDArray[np.float32] | None = None

    @property
    def point(self) -> NDArray[np.float32]:
        """One value [S, H]: the median, or of quantiles Tukey's trimean.

        (p25 + 2 p50 + p75) / 4 errs less by square than the median does, and hardly more by absolute value.
        """
        return self.median if self.quantiles is None else (self.quantiles @ TRIMEAN).astype(np.float32)


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
