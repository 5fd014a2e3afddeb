"""What every forecaster promises, whatever it is given."""

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from roadcast.domain.times import to_ms
from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, Forecast, Forecaster
from roadcast.forecasting.forecasters import QUICK, why_no_trees
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.perceptron import Training

MLP = GraphMlp(training=Training(hidden=(16,), epochs=1))
BOOSTING = GradientBoosting(cases=10_000, trees=10, leaves=7)
NEEDS_TREES = pytest.mark.skipif(bool(why_no_trees()), reason=f"needs lightgbm: {why_no_trees()}")
FORECASTERS = (
    *(pytest.param(forecaster, id=forecaster.name) for forecaster in (*QUICK, MLP)),
    *(pytest.param(each, id=each.name, marks=NEEDS_TREES) for each in (BOOSTING, Blend(net=MLP, trees=BOOSTING))),
)
"""The learned ones with settings that are cheap to fit."""
pytestmark = pytest.mark.parametrize("forecaster", FORECASTERS)

HORIZONS = 6
SENSORS = 5
INTERVAL_MS = 300_000
ZONE = "America/Los_Angeles"
CHAIN = Graph(np.arange(SENSORS - 1), np.arange(1, SENSORS), np.ones(SENSORS - 1, np.float32))


def history_of(days: float, *, end: str = "2012-03-09T12:00", sensors: int = SENSORS, seed: int = 0) -> History:
    """Speeds with a daily dip and noise, and volumes, ending at a local time."""
    random = np.random.default_rng(seed)
    end_ms = to_ms(datetime.fromisoformat(end).replace(tzinfo=ZoneInfo(ZONE)))
    ticks = int(days * 288)
    of_day = (end_ms // INTERVAL_MS + np.arange(1 - ticks, 1)) % 288 / 288
    speed = 60 - 25 * np.cos(2 * np.pi * of_day)[:, None] + random.normal(0, 3, (ticks, sensors))
    volume = random.poisson(80, (ticks, sensors))
    values = np.stack([np.maximum(speed, 0), volume], axis=-1).astype(np.float32)
    return History(values, ("speed", "volume"), end_ms, INTERVAL_MS, ZONE)


def with_values(history: History, change: Callable[[np.ndarray], None]) -> History:
    values = history.values.copy()
    change(values)
    return replace(history, values=values)


def forecast(forecaster: Forecaster, history: History, state: History, target: str = "speed") -> np.ndarray:
    return forecaster.fit(history, CHAIN, target, HORIZONS).forecast(state).median


@pytest.mark.parametrize("target", ["speed", "volume"])
def test_median_is_finite_float32_of_sensors_by_horizons(forecaster: Forecaster, target: str) -> None:
    history = history_of(4)
    median = forecast(forecaster, history, history.last(STATE_TICKS), target)
    assert median.shape == (SENSORS, HORIZONS)
    assert median.dtype == np.float32
    assert np.isfinite(median).all()


def test_inputs_stay_as_they_were_and_answers_repeat(forecaster: Forecaster) -> None:
    history = with_values(history_of(3), lambda values: values[::7, 1].fill(np.nan))
    kept = history.values.copy()
    history.values.setflags(write=False)
    state = history.last(STATE_TICKS)
    fitted = forecaster.fit(history, CHAIN, "speed", HORIZONS)
    first, second = fitted.forecast(state).median, fitted.forecast(state).median
    refitted = forecast(forecaster, history, state)
    np.testing.assert_array_equal(history.values, kept)
    assert first.tobytes() == second.tobytes() == refitted.tobytes()


def test_an_older_past_than_the_state_changes_nothing(forecaster: Forecaster) -> None:
    history = history_of(3)
    fitted = forecaster.fit(history, CHAIN, "speed", HORIZONS)
    long, short = fitted.forecast(history).median, fitted.forecast(history.last(STATE_TICKS)).median
    assert long.tobytes() == short.tobytes()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_survives_missing_readings(forecaster: Forecaster, share: float) -> None:
    gaps = np.random.default_rng(1).random((4 * 288, SENSORS)) < share
    history = with_values(history_of(4), lambda values: np.putmask(values, np.dstack([gaps, gaps]), np.nan))
    state = history.last(STATE_TICKS)
    heard = ~np.isnan(state.of("speed")).all(axis=0)
    median = forecast(forecaster, history, state)
    assert np.isfinite(median[heard]).all()
    assert (np.abs(median[heard] - 60) < 60).all()


def test_a_sensor_that_died_is_forecast_from_what_is_known_of_it(forecaster: Forecaster) -> None:
    history = with_values(history_of(4), lambda values: values[-STATE_TICKS:, 2].fill(np.nan))
    median = forecast(forecaster, history, history.last(STATE_TICKS))
    assert np.isfinite(np.delete(median, 2, axis=0)).all()
    assert np.isnan(median[2]).all() == (forecaster.name == "last_value")


def test_a_sensor_that_never_spoke_is_unknown_and_harms_no_other(forecaster: Forecaster) -> None:
    history = with_values(history_of(4), lambda values: values[:, 2].fill(np.nan))
    median = forecast(forecaster, history, history.last(STATE_TICKS))
    assert np.isnan(median[2]).all()
    assert np.isfinite(np.delete(median, 2, axis=0)).all()


def test_sensors_appended_since_the_fit_get_their_last_value(forecaster: Forecaster) -> None:
    history = history_of(4)
    grown = history_of(4, sensors=SENSORS + 2)
    state = replace(grown, values=np.concatenate([history.values, grown.values[:, SENSORS:]], axis=1)).last(STATE_TICKS)
    median = forecast(forecaster, history, state)
    assert median.shape == (SENSORS + 2, HORIZONS)
    np.testing.assert_array_equal(median[SENSORS:], np.repeat(state.of("speed")[-1, SENSORS:, None], HORIZONS, axis=1))
    np.testing.assert_array_equal(median[:SENSORS], forecast(forecaster, history, history.last(STATE_TICKS)))


@pytest.mark.parametrize("days", [0, 1 / 288, 0.02, 0.5, 1, 1.2, 2])
def test_survives_any_length_of_history(forecaster: Forecaster, days: float) -> None:
    history = history_of(days)
    median = forecast(forecaster, history, history.last(STATE_TICKS))
    assert median.shape == (SENSORS, HORIZONS)
    assert np.isfinite(median).all() == (days > 0)


@pytest.mark.parametrize("ticks", [0, 1, 5, STATE_TICKS])
def test_survives_a_short_state(forecaster: Forecaster, ticks: int) -> None:
    history = history_of(4)
    median = forecast(forecaster, history, history.last(ticks))
    assert median.shape == (SENSORS, HORIZONS)
    assert np.isfinite(median).all() == (ticks > 0 or forecaster.name != "last_value")


def test_without_sensors_there_is_nothing_to_forecast(forecaster: Forecaster) -> None:
    history = history_of(2, sensors=0)
    median = forecaster.fit(history, Graph(), "speed", HORIZONS).forecast(history.last(STATE_TICKS)).median
    assert median.shape == (0, HORIZONS)


def test_needs_no_graph(forecaster: Forecaster) -> None:
    history = history_of(4)
    median = forecaster.fit(history, Graph(), "speed", HORIZONS).forecast(history.last(STATE_TICKS)).median
    assert np.isfinite(median).all()


def test_a_variable_that_the_history_lacks_is_unknown(forecaster: Forecaster) -> None:
    history = history_of(2)
    assert np.isnan(forecast(forecaster, history, history.last(STATE_TICKS), "occupancy")).all()


@pytest.mark.parametrize("end", ["2012-03-11T04:00", "2012-03-11T01:50", "2012-11-04T01:30", "2012-11-05T00:00"])
def test_survives_clock_changes(forecaster: Forecaster, end: str) -> None:
    history = history_of(9, end=end)
    median = forecast(forecaster, history, history.last(STATE_TICKS))
    assert np.isfinite(median).all()
    assert (np.abs(median - history.of("speed")[-1].mean()) < 30).all()


def test_never_negative(forecaster: Forecaster) -> None:
    """A queue that stands just before the hour at which it is always slow: 0 − 60 + 5 would be negative."""

    def queue(values: np.ndarray) -> None:
        ticks = len(values)
        slow_after_noon = np.where(np.arange(-ticks, 0) % 288 < 144, 5, 60)
        mood_of_the_day = np.random.default_rng(2).normal(0, 2, (ticks // 288 + 1, 1)).repeat(288, axis=0)[:ticks]
        values[:, :, 0] = slow_after_noon[:, None] + mood_of_the_day
        values[-STATE_TICKS:, :, 0] = 0

    history = with_values(history_of(5), queue)
    assert (forecast(forecaster, history, history.last(STATE_TICKS)) >= 0).all()


def checked(forecast: Forecast) -> np.ndarray:
    """The median, once the quantiles around it are known to be in order."""
    if forecast.quantiles is not None:
        assert forecast.quantiles.shape == (*forecast.median.shape, len(PROBABILITIES))
        assert forecast.quantiles.dtype == np.float32
        np.testing.assert_array_equal(forecast.quantiles[..., MEDIAN], forecast.median)
        known = np.isfinite(forecast.median)
        assert (np.isfinite(forecast.quantiles).all(axis=-1) == known).all()
        assert (np.diff(forecast.quantiles[known], axis=-1) >= 0).all()
        assert (forecast.quantiles[known] >= 0).all()
    return forecast.median


@pytest.mark.parametrize("target", ["speed", "volume"])
@pytest.mark.parametrize("days", [1 / 288, 0.5, 1.2, 3])
def test_quantiles_are_in_order_around_the_median(forecaster: Forecaster, target: str, days: float) -> None:
    history = with_values(history_of(days), lambda values: values[-STATE_TICKS:, 2].fill(np.nan))
    fitted = forecaster.fit(history, CHAIN, target, HORIZONS)
    grown = history_of(1, sensors=SENSORS + 2)
    for state in (history, history.last(0), grown, with_values(grown, lambda values: values.fill(0))):
        checked(fitted.forecast(state))


def test_parts_restore_what_gave_them(forecaster: Forecaster) -> None:
    """Also through a file of arrays that cannot hold objects."""
    history = with_values(history_of(3), lambda values: values[::7, 1].fill(np.nan))
    fitted = forecaster.fit(history, CHAIN, "speed", HORIZONS)
    file = BytesIO()
    np.savez(file, allow_pickle=False, **fitted.parts())
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        read = {name: part if part.dtype.kind != "U" else str(part) for name, part in loaded.items()}
    for parts in (fitted.parts(), read):
        one, other = fitted.forecast(history), forecaster.restore(parts).forecast(history)
        assert one.median.tobytes() == other.median.tobytes()
        assert one.quantiles is other.quantiles is None or one.quantiles.tobytes() == other.quantiles.tobytes()


def test_what_is_fitted_goes_from_process_to_process(forecaster: Forecaster) -> None:
    fitted = forecaster.fit(history_of(3), CHAIN, "speed", HORIZONS)
    state = history_of(1, seed=1)
    arrived = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - as multiprocessing does it
    assert arrived.forecast(state).median.tobytes() == fitted.forecast(state).median.tobytes()


def test_missing_parts_are_named(forecaster: Forecaster) -> None:
    parts = forecaster.fit(history_of(2), CHAIN, "speed", HORIZONS).parts()
    for name in parts:
        with pytest.raises(ValueError, match=re.escape(name)):
            forecaster.restore({other: part for other, part in parts.items() if other != name})


@pytest.mark.parametrize(("minutes", "horizons"), [(1, 1), (15, 24), (60, 2), (60, 24)])
def test_survives_other_intervals_and_horizons(forecaster: Forecaster, minutes: int, horizons: int) -> None:
    history = replace(history_of(3), interval_ms=minutes * 60_000)
    median = checked(forecaster.fit(history, CHAIN, "speed", horizons).forecast(history.last(STATE_TICKS)))
    assert median.shape == (SENSORS, horizons)
    assert np.isfinite(median).all()


def test_survives_a_single_sensor(forecaster: Forecaster) -> None:
    history = history_of(3, sensors=1)
    median = checked(forecaster.fit(history, Graph(), "speed", HORIZONS).forecast(history.last(STATE_TICKS)))
    assert np.isfinite(median).all()


@pytest.mark.parametrize("level", [0, 60])
def test_what_never_changes_is_not_expected_to(forecaster: Forecaster, level: float) -> None:
    history = with_values(history_of(3), lambda values: values.fill(level))
    median = checked(forecaster.fit(history, CHAIN, "speed", HORIZONS).forecast(history.last(STATE_TICKS)))
    np.testing.assert_allclose(median, level, atol=0.1)


def test_survives_a_state_without_the_target(forecaster: Forecaster) -> None:
    fitted = forecaster.fit(history_of(3), CHAIN, "speed", HORIZONS)
    state = replace(history_of(1), variables=("occupancy", "volume"))
    assert checked(fitted.forecast(state)).shape == (SENSORS, HORIZONS)
