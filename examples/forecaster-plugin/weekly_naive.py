"""A forecaster for Roadcast: what was measured at the same local time last week."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.calendar import Calendar
from roadcast.forecasting.forecaster import Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.last_value import repeated
from roadcast.forecasting.parts import Parts, from_parts, to_parts


@dataclass(frozen=True, slots=True)
class WeeklyNaive:
    """Remembers the newest reading of each time of the week."""

    name: str = "weekly_naive"

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedWeeklyNaive":
        """Times of the week that it never saw stay unknown."""
        del graph
        per_day = DAY_MS // history.interval_ms
        newest = np.full((7 * per_day, history.sensors), np.nan, np.float32)
        for slot, row in zip(_slots(history.calendar(), per_day), history.of(target), strict=True):
            newest[slot] = np.where(np.isnan(row), newest[slot], row)
        return FittedWeeklyNaive(target, horizons, newest)

    def restore(self, parts: Parts) -> "FittedWeeklyNaive":
        """What gave these parts."""
        return from_parts(FittedWeeklyNaive, parts)


@dataclass(frozen=True, slots=True)
class FittedWeeklyNaive:
    """newest: [slots of a week, S], NaN where unknown."""

    target: str
    horizons: int
    newest: NDArray[np.float32]

    def forecast(self, state: History) -> Forecast:
        """The last value where last week tells nothing."""
        ahead = _slots(state.calendar(self.horizons), len(self.newest) // 7)[len(state) :]
        median = repeated(state.last(STATE_TICKS).of(self.target), self.horizons)
        known = min(state.sensors, self.newest.shape[1])
        week = self.newest[ahead, :known].T
        median[:known] = np.where(np.isnan(week), median[:known], week)
        return Forecast(median)

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)


def _slots(when: Calendar, per_day: int) -> NDArray[np.int64]:
    """The slot of the week of each tick."""
    return when.day % 7 * per_day + when.slot
