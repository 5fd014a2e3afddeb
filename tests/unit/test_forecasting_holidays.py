"""A holiday is forecast like a Sunday, and is no working day to learn from."""

from dataclasses import replace

import numpy as np
import pytest

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.calendar import calendar
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import why_no_trees
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import History
from roadcast.forecasting.perceptron import Training
from roadcast.forecasting.profile import Profile
from roadcast.forecasting.typical_day import learn_typical_day

DAY, INTERVAL_MS, HORIZONS = 96, 900_000, 8
FIRST_DAY = 15_411
"""A Monday: 2012-03-12."""
LEARNT, FREE, TEST = 35, 16, 37
"""Days learnt from, and which of them, a Wednesday, was a holiday; the holiday that is forecast is a Wednesday too."""
HOLIDAYS = (FIRST_DAY + FREE, FIRST_DAY + TEST)
NEEDS_TREES = pytest.mark.skipif(bool(why_no_trees()), reason=f"needs lightgbm: {why_no_trees()}")
FORECASTERS = [
    Profile(),
    GraphAutoregression(),
    GraphMlp(training=Training(hidden=(32,), epochs=3)),
    pytest.param(GradientBoosting(cases=50_000, leaves=31), marks=NEEDS_TREES),
]


def jammed_weekdays() -> History:
    """Speeds [38 days]: jams on weekday mornings that are no holidays; some noise."""
    random = np.random.default_rng(0)
    of_day, days = np.arange(DAY) / DAY, np.arange(TEST + 1)
    works = (days % 7 < 5) & ~np.isin(days, (FREE, TEST))
    daily = 62 - 35 * works[:, None] * np.exp(-((of_day - 0.35) ** 2) / 0.005)
    speed = daily.reshape(-1, 1) + random.normal(0, 1, (len(days) * DAY, 4))
    end_ms = (FIRST_DAY + TEST + 1) * DAY_MS
    return History(speed[:, :, None].astype(np.float32), ("speed",), end_ms, INTERVAL_MS, "UTC")


def morning_error(forecaster: Forecaster, history: History) -> float:
    """RMSE of what is forecast on the morning of the holiday, from an hour ahead on."""
    fitted = forecaster.fit(history.until(LEARNT * DAY), Graph(), "speed", HORIZONS)
    issues = range(TEST * DAY + 20, TEST * DAY + 40)
    truth = history.of("speed")
    error = [fitted.forecast(history.until(known)).median - truth[known : known + HORIZONS].T for known in issues]
    return float(np.sqrt(np.square(error)[:, :, 4:].mean()))


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda each: each.name)
def test_the_morning_of_a_holiday_is_forecast_better(forecaster: Forecaster) -> None:
    history = jammed_weekdays()
    unaware, aware = (morning_error(forecaster, replace(history, holidays=days)) for days in ((), HOLIDAYS))
    assert aware < 3
    assert unaware > 2 * aware


def test_a_holiday_is_a_sunday_on_the_local_calendar() -> None:
    """In Los Angeles the day begins at 7:00 UTC of Wednesday, 2012-03-14."""
    ends = np.array([15_413 * DAY_MS + hour * 3_600_000 + INTERVAL_MS for hour in (6, 7, 30, 31)], np.int64)
    zone = "America/Los_Angeles"
    assert calendar(ends, INTERVAL_MS, zone, [15_413]).day_type.tolist() == [0, 2, 2, 0]
    assert calendar(ends, INTERVAL_MS, zone).day_type.tolist() == [0, 0, 0, 0]


def test_a_holiday_tells_what_is_typical_of_sundays_and_not_of_weekdays() -> None:
    days = np.repeat([10, 10, 90, 10, 10, 50, 90], DAY)
    values = np.tile(days, 2)[:, None, None].astype(np.float32)
    history = History(values, ("speed",), (FIRST_DAY + 14) * DAY_MS, INTERVAL_MS, "UTC")
    aware = replace(history, holidays=(FIRST_DAY + 2, FIRST_DAY + 9))
    (mixed, _), (parted, of_others) = learn_typical_day(history, "speed"), learn_typical_day(aware, "speed")
    mean = days.mean()
    np.testing.assert_allclose(
        mixed.values[:, 50, 0], [(8 * 10 + 2 * 90 + mean) / 11, (100 + mean) / 3, (180 + mean) / 3]
    )
    np.testing.assert_allclose(parted.values[:, 50, 0], [(80 + mean) / 9, (100 + mean) / 3, (360 + mean) / 5])
    others = (14 * mean - 90) / 13
    np.testing.assert_allclose(of_others[2 * DAY + 50, 0], (270 + others) / 4, rtol=1e-5)


def test_parts_of_a_history_keep_its_holidays() -> None:
    history = replace(jammed_weekdays(), holidays=HOLIDAYS)
    assert history.until(5).holidays == history.last(5).holidays == HOLIDAYS
    assert set(history.last(DAY).calendar(1).day_type.tolist()) == {2, 0}
