from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from roadcast.domain.times import to_ms
from roadcast.forecasting.calendar import Calendar, calendar
from roadcast.forecasting.history import STATE_TICKS, History, last_observed

NAN = np.nan
INTERVAL_MS = 300_000


def ended(*utc: str) -> np.ndarray:
    return np.array([to_ms(datetime.fromisoformat(at)) for at in utc], np.int64)


def in_zone(*utc: str, zone: str = "America/Los_Angeles") -> Calendar:
    return calendar(ended(*utc), INTERVAL_MS, zone)


def test_a_tick_that_ends_at_midnight_belongs_to_the_day_that_ends() -> None:
    when = in_zone("2012-03-02T08:00Z", "2012-03-02T08:05Z")
    assert when.slot.tolist() == [287, 0]
    assert np.diff(when.day).tolist() == [1]


def test_types_of_days() -> None:
    """2012-03-02 was a Friday."""
    when = in_zone("2012-03-02T20:00Z", "2012-03-03T20:00Z", "2012-03-04T20:00Z", "2012-03-05T20:00Z")
    assert when.day_type.tolist() == [0, 1, 2, 0]


def test_clocks_go_forward_over_the_slots_of_an_hour() -> None:
    """In Los Angeles 2012-03-11 10:00 UTC is where 2:00 becomes 3:00."""
    when = in_zone("2012-03-11T10:00Z", "2012-03-11T10:05Z")
    assert when.slot.tolist() == [1 * 12 + 11, 3 * 12]


def test_clocks_go_back_to_the_slots_of_an_hour() -> None:
    """In Los Angeles 2012-11-04 09:00 UTC is where 2:00 becomes 1:00."""
    when = in_zone("2012-11-04T09:00Z", "2012-11-04T09:05Z")
    assert when.slot.tolist() == [1 * 12 + 11, 1 * 12]


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
def test_calendar_agrees_with_the_clock_on_the_wall_all_year(zone: str) -> None:
    first = int(ended("2012-01-01T00:00Z")[0])
    ends = first + np.arange(0, 366 * 96, 7, dtype=np.int64) * 900_000
    when = calendar(ends, INTERVAL_MS, zone)
    for end, slot, day, kind in zip(ends.tolist(), when.slot, when.day, when.day_type, strict=True):
        wall = datetime.fromtimestamp((end - INTERVAL_MS) / 1000, ZoneInfo(zone))
        assert slot == (wall.hour * 60 + wall.minute) // 5
        assert day == wall.date().toordinal() - datetime(1970, 1, 1).toordinal()
        assert kind == max(wall.weekday() - 4, 0)


def history(values: list[list[float]]) -> History:
    array = np.array(values, np.float32)[:, :, None]
    return History(array, ("speed",), int(ended("2012-03-02T08:00Z")[0]), INTERVAL_MS, "UTC")


def test_until_and_last_keep_times_true() -> None:
    whole = history([[1], [2], [3], [4]])
    early = whole.until(3)
    assert (early.of("speed").ravel().tolist(), early.end_ms) == ([1, 2, 3], whole.end_ms - INTERVAL_MS)
    assert (whole.last(2).of("speed").ravel().tolist(), whole.last(2).end_ms) == ([3, 4], whole.end_ms)
    assert len(whole.last(9)) == 4
    assert whole.until(0).end_ms == whole.end_ms - 4 * INTERVAL_MS


def test_calendar_goes_on_ahead() -> None:
    assert history([[1], [2]]).calendar(ahead=2).slot.tolist() == [94, 95, 96, 97]


def test_refuses_values_that_do_not_fit_the_variables() -> None:
    with pytest.raises(ValueError, match="variables"):
        History(np.zeros((3, 2), np.float32), ("speed",), 0, INTERVAL_MS, "UTC")


def test_last_observed_and_its_age() -> None:
    value, age = last_observed(np.array([[1, 5, NAN], [2, NAN, NAN], [3, NAN, NAN]], np.float32))
    np.testing.assert_array_equal(value, [3, 5, NAN])
    assert age.tolist() == [0, 2, STATE_TICKS]
