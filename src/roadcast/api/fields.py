"""Values as clients send them: times, codes and texts."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

LONGEST_CODE = 64
LONGEST_TEXT = 2_000
EXPECTED_TIME = "expected an RFC 3339 time with Z or an offset, such as 2024-01-15T10:30:00Z"
EXPECTED_CODE = f"expected 1 to {LONGEST_CODE} characters, none of them a control character"
FIRST = datetime(1990, 1, 1, tzinfo=UTC)
"""No reading is older."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:)(\d\d)((?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""NUL, and halves of characters, which JSON can carry and UTF-8 cannot."""


def parse_time(value: object) -> datetime:
    """An aware UTC datetime; a leap second (:60) is the first of the next day, as it is for Unix.

    Raises:
        ValueError: it is no text, or no time as RFC 3339 writes it.
    """
    if isinstance(value, datetime):
        return value
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(EXPECTED_TIME)
    minute, second, rest = found.groups()
    leap = second == "60"
    try:
        at = datetime.fromisoformat(f"{minute}{'59' if leap else second}{rest.upper()}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(EXPECTED_TIME) from error
    if leap and (at.hour, at.minute) != (23, 59):
        raise ValueError(EXPECTED_TIME)
    return at + timedelta(seconds=leap)


def parse_code(value: object) -> str:
    """A name that people and machines can handle.

    Raises:
        ValueError: it is no text, blank, too long, or has control characters.
    """
    if isinstance(value, str) and value.strip() and len(value) <= LONGEST_CODE and not _CONTROL.search(value):
        return value
    raise ValueError(EXPECTED_CODE)


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("expected whole characters other than NUL")
    return text


def _recent(at: datetime) -> datetime:
    if at < FIRST:
        raise ValueError(f"expected a time from {FIRST.year} on")
    return at


Time = Annotated[datetime, BeforeValidator(parse_time), AfterValidator(_recent)]
"""A field that takes an RFC 3339 time from which there can be readings."""
Code = Annotated[
    str,
    BeforeValidator(parse_code),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_CODE}),
]
"""A field that takes a sensor's code or another short name."""
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_storable)]
"""A field that takes prose."""
