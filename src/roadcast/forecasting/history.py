"""What forecasters see: regular ticks of every sensor."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.calendar import Calendar, calendar

SPEED, VOLUME = "speed", "volume"
TARGETS = (SPEED, VOLUME)
"""The variables that are forecast, which are the first of a reading's."""
STATE_TICKS = 24
"""How many past ticks a state holds, where there are so many. Forecasters look no further back."""


@dataclass(frozen=True, slots=True)
class History:
    """Regular ticks, oldest first, the last one ending at `end_ms`.

    values: [T, S, V] float32 in the inner units, NaN where missing; variables: names of the V columns. Sensors are
    only ever appended, so an index means the same sensor in every history. holidays: local days since 1970.
    """

    values: NDArray[np.float32]
    variables: tuple[str, ...]
    end_ms: int
    interval_ms: int
    timezone: str
    holidays: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.shape[2] != len(self.variables):
            raise ValueError(f"values {self.values.shape}: expected [ticks, sensors, {len(self.variables)} variables]")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sensors(self) -> int:
        """How many sensors there are."""
        return self.values.shape[1]

    def of(self, variable: str) -> NDArray[np.float32]:
        """One variable [T, S]; all missing where this history lacks it."""
        if variable not in self.variables:
            return np.full(self.values.shape[:2], np.nan, np.float32)
        return self.values[:, :, self.variables.index(variable)]

    def until(self, ticks: int) -> "History":
        """Its first `ticks` ticks: what was known then."""
        return replace(self, values=self.values[:ticks], end_ms=self.end_ms - (len(self) - ticks) * self.interval_ms)

    def last(self, ticks: int) -> "History":
        """Its last ticks, at most so many."""
        return replace(self, values=self.values[max(len(self) - ticks, 0) :])

    def calendar(self, ahead: int = 0) -> Calendar:
        """The calendar of its ticks and of the `ahead` ticks that follow."""
        offsets = np.arange(1 - len(self), ahead + 1, dtype=np.int64)
        end_ms = self.end_ms + offsets * self.interval_ms
        return calendar(end_ms, self.interval_ms, self.timezone, self.holidays)


def last_observed(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The last value of each column [T, S] that is not missing, and its age in ticks, 0 in the last row.

    NaN and STATE_TICKS where there is none.
    """
    ticks, sensors = values.shape
    known = np.vstack([np.ones((1, sensors), np.bool_), ~np.isnan(values)])
    age = np.argmax(known[::-1], axis=0)
    padded = np.vstack([np.full((1, sensors), np.nan, np.float32), values])
    return padded[ticks - age, np.arange(sensors)], np.where(age < ticks, age, STATE_TICKS)
