"""Where the demo begins."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from roadcast.sources.demo import ALREADY_OVER, BEGINS_AT, last_working_morning


@pytest.mark.parametrize(
    ("now", "begins_at"),
    [
        ("2026-11-25T18:59", "2026-11-24T05:00"),  # its evening is not over
        ("2026-11-25T19:00", "2026-11-25T05:00"),
        ("2026-11-28T12:00", "2026-11-27T05:00"),  # a Saturday
        ("2026-11-30T18:00", "2026-11-27T05:00"),  # Monday before its evening is over
    ],
)
def test_it_begins_with_a_working_day_of_which_both_peaks_have_passed(now: str, begins_at: str) -> None:
    begun = last_working_morning(datetime.fromisoformat(now).replace(tzinfo=UTC), ZoneInfo("UTC"))
    assert begun == datetime.fromisoformat(begins_at).replace(tzinfo=UTC)


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Auckland", "Asia/Kathmandu"])
def test_at_every_hour_of_a_year_there_is_a_day_to_watch(zone: str) -> None:
    for hour in range(0, 366 * 24, 5):
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        begun = last_working_morning(now, ZoneInfo(zone))
        local = begun.astimezone(ZoneInfo(zone))
        assert local.time() == BEGINS_AT
        assert local.isoweekday() <= 5
        assert ALREADY_OVER <= now - begun < ALREADY_OVER + timedelta(days=3, hours=1)
