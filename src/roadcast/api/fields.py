"""Values as clients send them: times, codes and texts, and the error for one that is wrong."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from roadcast.domain.sensor import EXPECTED_CODE, LONGEST_CODE, is_code
from roadcast.errors import FieldError, InvalidInput

LONGEST_TEXT = 2_000
EXPECTED_TIME = "expected an RFC 3339 time with Z or an offset, such as 2024-01-15T10:30:00Z"
FIRST = datetime(1990, 1, 1, tzinfo=UTC)
"""No reading is older."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:)(\d\d)((?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))", re.ASCII)
_LOST_PLUS = re.compile(r":\d\d(?:\.\d+)? \d\d:\d\d", re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[Ee][+-]?\d+)?", re.ASCII)
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""NUL, and halves of characters, which JSON can carry and UTF-8 cannot."""


def parse_time(value: object) -> datetime:
    """An aware UTC datetime; a leap second (:60) is the first of the next day, as it is for Unix.

    Raises:
        ValueError: it is no text, or no time as RFC 3339 writes it.
    """
    if isinstance(value, datetime):
        return value
    text = value if isinstance(value, str) else ""
    found = _TIME.fullmatch(text)
    if found is None:
        hint = "; in a query the + of an offset is written %2B" if _LOST_PLUS.search(text) else ""
        raise ValueError(EXPECTED_TIME + hint)
    minute, second, rest = found.groups()
    leap = second == "60"
    try:
        at = datetime.fromisoformat(f"{minute}{'59' if leap else second}{rest.upper()}").astimezone(UTC)
        at += timedelta(seconds=leap)
    except (ValueError, OverflowError) as error:
        raise ValueError(EXPECTED_TIME) from error
    if leap and (at.hour, at.minute) != (0, 0):
        raise ValueError(EXPECTED_TIME)
    return at


def parse_code(value: object) -> str:
    """A sensor's code, or another short name.

    Raises:
        ValueError: it is no text, or none that can name a sensor.
    """
    if isinstance(value, str) and is_code(value):
        return value
    raise ValueError(EXPECTED_CODE)


def invalid(field: str, value: object, reason: str) -> InvalidInput:
    """The error for one field."""
    return InvalidInput(f"{field}: {reason}", (FieldError(field, value, reason),))


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("expected whole characters other than NUL")
    return text


def _number(value: object) -> object:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError("expected a number in plain digits")
    return value


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
Whole = Annotated[int, BeforeValidator(_number)]
"""A parameter that takes a whole number."""
Share = Annotated[float, BeforeValidator(_number)]
"""A parameter that takes a share."""
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_storable)]
"""A field that takes prose."""
