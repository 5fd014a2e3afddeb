"""The typical day plus what is left of the present deviation from it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.deviations import fit_decay
from roadcast.forecasting.forecaster import Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History, last_observed
from roadcast.forecasting.last_value import repeated
from roadcast.forecasting.parts import Parts, from_parts, to_parts
from roadcast.forecasting.typical_day import TypicalDay, learn_typical_day


@dataclass(frozen=True, slots=True)
class Profile:
    """Learns typical days and how fast deviations decay."""

    name: str = "profile"

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedProfile":
        """Under about a day of history there is no typical day, and it repeats the last value."""
        del graph
        return fit_profile(history, target, horizons)[0]

    def restore(self, parts: Parts) -> "FittedProfile":
        """What gave these parts."""
        return from_parts(FittedProfile, parts)


@dataclass(frozen=True, slots=True)
class FittedProfile:
    """decay: [STATE_TICKS + horizons] shares of a deviation left after so many ticks."""

    target: str
    horizons: int
    typical: TypicalDay
    decay: NDArray[np.float32]

    def forecast(self, state: History) -> Forecast:
        """The last value where nothing is typical yet."""
        deviations, typical = self.deviations(state)
        latest, age = last_observed(deviations)
        left = self.decay[np.minimum(age[:, None] + np.arange(1, self.horizons + 1), len(self.decay) - 1)]
        return self.around(typical, np.nan_to_num(latest)[:, None] * left, state)

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)

    def deviations(self, state: History) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The state's last deviations [T, S], T at most STATE_TICKS, and what is typical next, [S, H]."""
        state = state.last(STATE_TICKS)
        typical = self.typical.at(state.calendar(self.horizons), state.sensors)
        return state.of(self.target) - typical[: len(state)], typical[len(state) :].T

    def around(self, typical: NDArray[np.float32], deviation: NDArray[np.float32], state: History) -> Forecast:
        """The forecast of a deviation [S, H] from what is typical [S, H], or else the last value."""
        last = repeated(state.last(STATE_TICKS).of(self.target), self.horizons)
        median = np.where(np.isnan(typical), last, np.maximum(typical + deviation, 0))
        return Forecast(np.ascontiguousarray(median, np.float32))


def fit_profile(history: History, target: str, horizons: int) -> tuple[FittedProfile, NDArray[np.float32]]:
    """The fitted profile, and what is typical of each tick of the history [T, S] by the other days."""
    typical, of_others = learn_typical_day(history, target)
    decay = fit_decay(history.of(target) - of_others, STATE_TICKS + horizons - 1)
    return FittedProfile(target, horizons, typical, decay), of_others
