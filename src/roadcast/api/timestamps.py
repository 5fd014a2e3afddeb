"""Times as clients send them."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator

EXPECTED = "expected an RFC 3339 time with Z or an offset, such as 2024-01-15T10:30:00Z"


def parse_time(value: object) -> datetime:
    """An aware UTC datetime.

    Raises:
        ValueError: it is no text, no time, or has no offset.
    """
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError(EXPECTED)
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(EXPECTED) from error
    raise ValueError(EXPECTED)


Time = Annotated[datetime, BeforeValidator(parse_time)]
"""A field that takes an RFC 3339 time."""
