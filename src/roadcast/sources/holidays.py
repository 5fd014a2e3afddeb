"""Holidays: those of a country or one of its parts, dates, or a file of them."""

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path

YEARS = range(1990, 2051)
"""From the oldest detector archives on; later holidays are not all decreed yet."""
EXPECTED = (
    "a country or a part of one such as US-CA or DE-BY, dates such as 2026-12-25 with commas between them, or a file "
    "with one date a line"
)
_CODE, _DATES = re.compile(r"[A-Z]{2,3}(-\w+)?"), re.compile(r"[\d\s,-]+")
_EPOCH = date(1970, 1, 1).toordinal()


def holiday_days(told: str) -> tuple[int, ...]:
    """Days since 1970, ascending, from what HOLIDAYS can say.

    Raises:
        ValueError: it says nothing of the kind; what was expected.
    """
    if _CODE.fullmatch(told):
        found = _of_country(*told.split("-", 1))
    elif _DATES.fullmatch(told):
        found = [_date(part.strip(), f"expected {EXPECTED}") for part in told.split(",")]
    else:
        found = _of_file(Path(told))
    return tuple(sorted({day.toordinal() - _EPOCH for day in found}))


def _of_country(country: str, part: str | None = None) -> Iterable[date]:
    """With the weekdays on which holidays of weekends are observed."""
    import holidays  # noqa: PLC0415 - knows every country, and most systems name none

    parts = holidays.list_supported_countries().get(country)
    if parts is None:
        raise ValueError(f"{country} is no known country; expected {EXPECTED}")
    if part is not None and part not in parts:
        raise ValueError(f"{country} has no part {part}; expected one of {', '.join(parts) or 'none'}")
    return holidays.country_holidays(country, subdiv=part, years=YEARS)


def _of_file(path: Path) -> list[date]:
    """Empty lines and what follows a # say nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"expected {EXPECTED}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"byte {error.start} is not UTF-8"
        raise ValueError(f"cannot be read: {reason}") from error
    told = ((number, line.split("#")[0].strip()) for number, line in enumerate(lines, start=1))
    return [
        _date(text, f"line {number} is {text!r}; expected a date such as 2026-12-25") for number, text in told if text
    ]


def _date(text: str, expected: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(expected) from error
