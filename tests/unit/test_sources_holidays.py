"""Holidays from what HOLIDAYS says, and what is said of what it cannot say."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from roadcast.errors import SettingsError
from roadcast.settings import load_settings
from roadcast.sources.holidays import holiday_days


def dates(told: str) -> list[date]:
    return [date(1970, 1, 1) + timedelta(days=day) for day in holiday_days(told)]


def test_those_of_a_country_and_of_a_part_of_it() -> None:
    """Epiphany is a holiday in Bavaria; Independence Day of 2026 is a Saturday, and observed on Friday."""
    assert date(2026, 1, 6) in dates("DE-BY")
    assert date(2026, 1, 6) not in dates("DE")
    assert {date(2012, 7, 4), date(2026, 7, 3), date(2026, 11, 26)} <= set(dates("US-CA"))
    assert dates("US-CA")[0] >= date(1990, 1, 1)


def test_dates_in_any_order_each_once() -> None:
    assert dates(" 2026-12-25,2026-01-01 , 2026-12-25") == [date(2026, 1, 1), date(2026, 12, 25)]
    many = [date(2026, 1, 1) + timedelta(days=day) for day in range(300)]
    assert dates(",".join(map(str, many))) == many


def test_a_file_with_a_date_a_line(tmp_path: Path) -> None:
    file = tmp_path / "holidays.txt"
    file.write_text("# ours\n2026-05-01  # Labour Day\n\n2026-12-25\n", encoding="utf-8")
    assert dates(str(file)) == [date(2026, 5, 1), date(2026, 12, 25)]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("XX", "XX is no known country; expected a country or a part of one such as US-CA or DE-BY"),
        ("DE-CA", "DE has no part CA; expected one of BB, BE, BW, BY"),
        ("us-ca", "expected a country or a part of one such as US-CA or DE-BY, dates such as 2026-12-25"),
        ("2026-13-25", "expected a country or a part of one"),
        ("2026-12-25,,", "expected a country or a part of one"),
        ("absent.txt", "expected a country or a part of one"),
        (".", "cannot be read: Is a directory"),
        ("bad.txt", "line 2 is 'Christmas'; expected a date such as 2026-12-25"),
        ("latin.txt", "cannot be read: byte 2 is not UTF-8"),
    ],
)
def test_what_says_nothing_is_refused_with_what_was_expected(
    told: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text("2026-01-01\nChristmas\n", encoding="utf-8")
    Path("latin.txt").write_bytes(b"# \xe9t\xe9\n")
    with pytest.raises(SettingsError) as refused:
        load_settings(holidays=told)
    assert str(refused.value).startswith(f"HOLIDAYS={told!r}: {said}")


def test_the_setting_gives_days(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLIDAYS", "1970-01-02,2026-12-25")
    assert load_settings().holidays == (1, 20_812)
    monkeypatch.setenv("HOLIDAYS", "")
    assert load_settings().holidays is None
