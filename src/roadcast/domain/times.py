"""Times: aware datetimes at the edges, int64 milliseconds since 1970 UTC in columns."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
QUARTER_MS, HOUR_MS, DAY_MS = 900_000, 3_600_000, 86_400_000


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime, rounded down."""
    return (at - EPOCH) // _MS


def from_ms(at_ms: int) -> datetime:
    """The UTC datetime of milliseconds since 1970."""
    return EPOCH + int(at_ms) * _MS


def date_of(day: int) -> date:
    """The date of a number of days since 1970."""
    return EPOCH.date() + timedelta(days=day)


def rfc3339(at: datetime) -> str:
    """RFC 3339 in UTC with `Z`; a fraction only where there is one."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def utc_offset_ms(at_ms: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """How far the zone's clocks are ahead of UTC. They change on quarter hours of UTC, so each is looked up once."""
    zone = ZoneInfo(timezone)
    quarters, which = np.unique(at_ms // QUARTER_MS, return_inverse=True)
    offsets = [
        from_ms(quarter * QUARTER_MS).astimezone(zone).utcoffset() or timedelta() for quarter in quarters.tolist()
    ]
    return np.array([offset // _MS for offset in offsets], np.int64)[which]
