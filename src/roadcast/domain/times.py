"""Times: aware datetimes at the edges, int64 milliseconds since 1970 UTC in columns."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime, rounded down."""
    return (at - EPOCH) // _MS


def from_ms(at_ms: int) -> datetime:
    """The UTC datetime of milliseconds since 1970."""
    return EPOCH + int(at_ms) * _MS


def rfc3339(at: datetime) -> str:
    """RFC 3339 in UTC with `Z`; a fraction only where there is one."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
