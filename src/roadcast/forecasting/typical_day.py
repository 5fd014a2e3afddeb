"""Each sensor's typical day."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.calendar import DAY_TYPES, Calendar
from roadcast.forecasting.history import History

SMOOTHING_MS = 900_000
"""Standard deviation of the smoothing over the time of day."""
ALL_DAYS_WEIGHT = 1.0
"""The mean of all days counts as so many days of each type."""
LEAST_WEIGHT = 0.5
"""A time of day is typical from this many smoothed readings on."""


@dataclass(frozen=True, slots=True)
class TypicalDay:
    """values: [day types, slots of a day, S], NaN where too little is known."""

    values: NDArray[np.float32]

    def at(self, when: Calendar, sensors: int) -> NDArray[np.float32]:
        """What is typical [T, sensors]; NaN for sensors that it does not know."""
        typical = np.full((len(when.slot), sensors), np.nan, np.float32)
        known = min(sensors, self.values.shape[2])
        typical[:, :known] = self.values[when.day_type, when.slot, :known]
        return typical


def learn_typical_day(history: History, target: str) -> tuple[TypicalDay, NDArray[np.float32]]:
    """The typical day, and what is typical of each tick [T, S] by all days but its own.

    Leaving the own day out makes the deviations from it those that a forecast will meet; it is NaN where no other day
    tells what is typical.
    """
    observed, when = history.of(target), history.calendar()
    days = _Days.of(observed, when, DAY_MS // history.interval_ms)
    return TypicalDay(days.typical()), days.typical_of_others()[when.day - days.first, when.slot]


@dataclass(frozen=True, slots=True)
class _Days:
    """Days side by side [D, slots, S], smoothed over the time of day: sums of readings and their weights.

    types: [D], of days without ticks 0, which tell nothing.
    """

    first: int
    sums: NDArray[np.float32]
    weights: NDArray[np.float32]
    types: NDArray[np.int64]

    @classmethod
    def of(cls, observed: NDArray[np.float32], when: Calendar, slots: int) -> "_Days":
        first, last = (int(when.day[0]), int(when.day[-1])) if len(when.day) else (0, -1)
        days = np.full((last - first + 1, slots, observed.shape[1]), np.nan, np.float32)
        # In the hour that a clock change repeats, the second pass stands for both.
        days[when.day - first, when.slot] = observed
        known = ~np.isnan(days)
        sums, weights = (_smoothed(part, slots) for part in (np.where(known, days, 0), known.astype(np.float32)))
        types = np.zeros(len(days), np.int64)
        types[when.day - first] = when.day_type
        return cls(first, sums, weights, types)

    def typical(self) -> NDArray[np.float32]:
        return _shrunk(*self._by_type(), self.sums.sum(axis=0), self.weights.sum(axis=0))

    def typical_of_others(self) -> NDArray[np.float32]:
        sums, weights = (by_type[self.types] for by_type in self._by_type())
        return _shrunk(
            sums - self.sums,
            weights - self.weights,
            self.sums.sum(axis=0) - self.sums,
            self.weights.sum(axis=0) - self.weights,
        )

    def _by_type(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        of_type = [self.types == kind for kind in range(DAY_TYPES)]
        return (
            np.stack([self.sums[days].sum(axis=0) for days in of_type]),
            np.stack([self.weights[days].sum(axis=0) for days in of_type]),
        )


def _smoothed(days: NDArray[np.float32], slots: int) -> NDArray[np.float32]:
    """Each day [slots, S] under a Gaussian, along the day, which is a circle."""
    width = SMOOTHING_MS / DAY_MS
    damping = np.exp(-2 * (np.pi * width * np.arange(slots // 2 + 1)) ** 2)
    spectrum = np.fft.rfft(days, axis=1) * damping[:, None].astype(np.float32)
    return np.fft.irfft(spectrum, slots, axis=1).astype(np.float32)


def _shrunk(
    sums: NDArray[np.float32],
    weights: NDArray[np.float32],
    all_sums: NDArray[np.float32],
    all_weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Means of one type's days, drawn to the mean of all days; NaN where all days together know too little."""
    known = all_weights > LEAST_WEIGHT
    overall = np.divide(all_sums, all_weights, out=np.full_like(all_sums, np.nan), where=known)
    return np.divide(sums + ALL_DAYS_WEIGHT * overall, weights + ALL_DAYS_WEIGHT, dtype=np.float32)
