"""Local days and times of day of ticks, also across clock changes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
DAY_TYPES = 3
"""Weekdays, Saturdays, Sundays."""
_QUARTER_MS = 900_000
_TYPE_OF_WEEKDAY = np.array([0, 0, 0, 0, 0, 1, 2])
_THURSDAY = 3


@dataclass(frozen=True, slots=True)
class Calendar:
    """When ticks lie on the local calendar, each array [T].

    day: local days since 1970; slot: intervals since local midnight; day_type: 0 weekday, 1 Saturday, 2 Sunday.
    """

    day: NDArray[np.int64]
    slot: NDArray[np.int64]
    day_type: NDArray[np.int64]


def calendar(end_ms: NDArray[np.int64], interval_ms: int, timezone: str) -> Calendar:
    """The calendar of ticks that end at `end_ms` [T]. A tick belongs to the day and slot in which it begins."""
    start_ms = end_ms - interval_ms
    local_ms = start_ms + _offset_ms(start_ms, timezone)
    day = local_ms // DAY_MS
    return Calendar(day, local_ms % DAY_MS // interval_ms, day_type(day))


def day_type(day: NDArray[np.int64]) -> NDArray[np.int64]:
    """The type of local days since 1970."""
    return _TYPE_OF_WEEKDAY[(day + _THURSDAY) % 7]


def _offset_ms(at_ms: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """What the zone's clocks are ahead of UTC. Clocks change on quarter hours of UTC, so each is looked up once."""
    zone = ZoneInfo(timezone)
    quarters, which = np.unique(at_ms // _QUARTER_MS, return_inverse=True)
    offsets = [_quarter_offset_ms(quarter, zone) for quarter in quarters.tolist()]
    return np.array(offsets, np.int64)[which]


def _quarter_offset_ms(quarter: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, UTC).astimezone(zone).utcoffset()
    return int(offset.total_seconds() * 1000) if offset else 0
