"""Similar days, against a search through all days by the calendar."""

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from roadcast.domain.times import from_ms, to_ms
from roadcast.forecasting.history import History
from roadcast.forecasting.similar_days import similar_days

ZONE = ZoneInfo("America/Los_Angeles")


def history_of(days: int, end: str, *, gaps: float = 0.0, minutes: int = 5, seed: int = 0) -> History:
    random = np.random.default_rng(seed)
    values = random.normal(50, 10, (days * 1440 // minutes, 1, 1)).astype(np.float32)
    values[random.random(values.shape) < gaps] = np.nan
    end_ms = to_ms(datetime.fromisoformat(end).replace(tzinfo=ZONE))
    return History(values, ("speed",), end_ms, minutes * 60_000, ZONE.key)


def searched(history: History, step: int) -> list:
    """Every tick that begins at the same local time of another day."""
    interval = timedelta(milliseconds=history.interval_ms)
    speed = {
        from_ms(history.end_ms) - i * interval: float(value)
        for i, value in enumerate(history.values[::-1, 0, 0])
        if not np.isnan(value)
    }
    now, ticks = from_ms(history.end_ms), int(timedelta(hours=2) / interval)
    begins = (now - interval).astimezone(ZONE)
    found: dict = {}
    for back in range(1, len(history)):
        end = now - back * interval
        other = (end - interval).astimezone(ZONE)
        if other.time() != begins.time() or other.date() == begins.date():
            continue
        pairs = [(speed.get(now - i * interval), speed.get(end - i * interval)) for i in range(ticks)]
        gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
        if len(gaps) * 2 >= ticks:
            distance = sum(gaps) / len(gaps)
            nearer = found.get(other.date(), (distance + 1,))[0] > distance
            if nearer:
                found[other.date()] = (distance, speed.get(end + step * interval, np.nan))
    return sorted((distance, day, followed) for day, (distance, followed) in found.items())[:5]


@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize(
    ("days", "end"),
    [
        (56, "2012-06-01T17:35"),
        (20, "2012-03-20T02:35"),
        (20, "2012-11-14T01:40"),
        (9, "2012-06-02T00:05"),
        (3, "2012-06-02T00:00"),
    ],
)
def test_the_nearest_days_are_those_of_a_search(days: int, end: str, gaps: float) -> None:
    for step, minutes in ((1, 5), (24, 5), (3, 15)):
        history = history_of(days, end, gaps=gaps, minutes=minutes, seed=days)
        found = similar_days(history, "speed", step)
        expected = searched(history, step)
        assert [day.day for day in found] == [day for _, day, _ in expected]
        np.testing.assert_allclose([day.distance for day in found], [distance for distance, *_ in expected], rtol=1e-5)
        np.testing.assert_allclose([day.followed for day in found], [followed for *_, followed in expected], rtol=1e-5)
        assert len(found) == min(5, days - 1) or gaps


def test_a_day_of_which_less_than_half_is_known_is_not_compared() -> None:
    history = history_of(3, "2012-06-01T12:00")
    values = history.values.copy()
    values[-288 - 24 : -288 - 11] = np.nan
    found = similar_days(replace(history, values=values), "speed", 6)
    assert [each.day.isoformat() for each in found] == ["2012-05-30"]
    values[-288 - 12] = 50
    found = similar_days(replace(history, values=values), "speed", 6)
    assert {each.day.isoformat() for each in found} == {"2012-05-31", "2012-05-30"}


def test_what_followed_may_be_unknown() -> None:
    history = history_of(2, "2012-06-01T12:00")
    values = history.values.copy()
    values[-1 - 288 + 6] = np.nan
    (day,) = similar_days(replace(history, values=values), "speed", 6)
    assert np.isnan(day.followed)


def test_without_a_past_no_day_is_similar() -> None:
    assert similar_days(history_of(0, "2012-06-01T12:00"), "speed", 1) == []
    assert similar_days(history_of(1, "2012-06-01T12:00"), "speed", 1) == []
