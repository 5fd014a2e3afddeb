"""Local days and times of day of ticks, also across clock changes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, utc_offset_ms

DAY_TYPES = 3
"""Weekdays, Saturdays, Sundays. Traffic of a holiday is like that of a Sunday."""
_SUNDAY = 2
_TYPE_OF_WEEKDAY = np.array([0, 0, 0, 0, 0, 1, 2])
_THURSDAY = 3


@dataclass(frozen=True, slots=True)
class Calendar:
    """When ticks lie on the local calendar, each array [T].

    day: local days since 1970; slot: intervals since local midnight; day_type: 0 weekday, 1 Saturday, 2 Sunday or
    holiday.
    """

    day: NDArray[np.int64]
    slot: NDArray[np.int64]
    day_type: NDArray[np.int64]


def calendar(end_ms: NDArray[np.int64], interval_ms: int, timezone: str, holidays: Sequence[int] = ()) -> Calendar:
    """The calendar of ticks that end at `end_ms` [T]. A tick belongs to the day and slot in which it begins.

    holidays: local days since 1970.
    """
    start_ms = end_ms - interval_ms
    local_ms = start_ms + utc_offset_ms(start_ms, timezone)
    day = local_ms // DAY_MS
    return Calendar(day, local_ms % DAY_MS // interval_ms, _day_type(day, holidays))


def _day_type(day: NDArray[np.int64], holidays: Sequence[int]) -> NDArray[np.int64]:
    return np.where(np.isin(day, holidays), _SUNDAY, _TYPE_OF_WEEKDAY[(day + _THURSDAY) % 7])
