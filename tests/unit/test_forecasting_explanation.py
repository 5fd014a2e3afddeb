"""What forecasts are made of, against sums that can be done by hand."""

from dataclasses import dataclass, replace
from decimal import Decimal
from math import nan

import numpy as np
import pytest
from contract.test_forecasters import CHAIN, FORECASTERS, HORIZONS, SENSORS, history_of, with_values

from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.engine import Engine
from roadcast.forecasting.explanation import Terms, add_up, explain, told_of_one
from roadcast.forecasting.forecaster import Forecast, Forecaster
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History, last_observed
from roadcast.forecasting.parts import Parts
from roadcast.forecasting.profile import FittedProfile, Profile
from roadcast.forecasting.typical_day import TypicalDay


@dataclass(frozen=True)
class Plugin:
    """Somebody else's: 0.7 of the own last speed, 0.3 of the others' mean; where these are missing, its own alone."""

    horizons: int

    def forecast(self, state: History) -> Forecast:
        latest, _ = last_observed(state.of("speed"))
        others = np.array([mean_of(np.delete(latest, s)) for s in range(state.sensors)])
        point = np.where(np.isnan(others), latest, 0.7 * latest + 0.3 * others)
        return Forecast(np.repeat(point[:, None], self.horizons, axis=1).astype(np.float32))

    def parts(self) -> Parts:
        return {}


def mean_of(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return known.mean() if len(known) else nan


def profiles_of(history: History) -> dict:
    return {target: Profile().fit(history, Graph(), target, HORIZONS) for target in ("speed", "volume")}


def exactly(value: float | None) -> Decimal:
    return Decimal(str(value or 0))


@pytest.mark.parametrize("forecaster", FORECASTERS)
@pytest.mark.parametrize("days", [1 / 288, 3])
def test_parts_add_up_to_what_was_served_whoever_made_it(forecaster: Forecaster, days: float) -> None:
    """Also of a sensor that is silent, and of one that came later."""
    history = with_values(history_of(days), lambda values: values[-STATE_TICKS:, 2].fill(np.nan))
    fitted, profiles = forecaster.fit(history, CHAIN, "speed", HORIZONS), profiles_of(history)
    grown = with_values(history_of(1, sensors=SENSORS + 1, seed=1), lambda values: values[:, 2].fill(np.nan))
    forecast = fitted.forecast(grown)
    for sensor in range(SENSORS + 1):
        terms, median = explain(fitted, profiles, grown, "speed", sensor)
        np.testing.assert_array_equal(median, forecast.median[sensor])
        assert len(terms) == HORIZONS
        for each in terms:
            parts = add_up(each, 41.87, 2)
            assert sum(exactly(part) for part in parts.values()) == Decimal("41.87")
            assert (parts["typical_day"] is None) == (parts["deviation_now"] is None)
            assert (parts["typical_day"] is None) == (days < 1 or sensor == SENSORS)
            assert parts["typical_day"] is None or parts["last_value"] is None
            if forecaster.name in {"last_value", "profile"}:
                assert parts["neighbours"] in {0, None}


LEVELS = 50 + np.arange(SENSORS, dtype=np.float32)
HALVING = 0.5 ** np.arange(STATE_TICKS + HORIZONS, dtype=np.float32)
STEADY = FittedProfile("speed", HORIZONS, TypicalDay(np.broadcast_to(LEVELS, (3, 288, SENSORS))), HALVING)
"""Each sensor is always at its own speed, and half of a deviation is left after a tick."""


def test_the_terms_of_a_forecaster_that_nobody_knows() -> None:
    def now(values: np.ndarray) -> None:
        values[:, :, 0] = LEVELS
        values[-2, :, 0] += 10
        values[-2, 0, 0] = 42
        values[-1] = np.nan

    state = with_values(history_of(1), now)
    terms, median = explain(Plugin(HORIZONS), {"speed": STEADY}, state, "speed", 0)
    left = [-8 / 4, -8 / 8, -8 / 16, -8 / 32, -8 / 64, -8 / 128]
    np.testing.assert_allclose(terms, [Terms(50, each, nan, 0.3 * 10) for each in left], atol=1e-5)
    made = 0.7 * 42 + 0.3 * np.mean([61, 62, 63, 64])
    np.testing.assert_allclose(median, made, atol=1e-5)
    assert add_up(terms[1], made + 0.5, 2)["rest"] == pytest.approx(made + 0.5 - 50 + 1 - 3, abs=0.01)


def test_where_nothing_is_typical_the_last_value_stands_in() -> None:
    state = with_values(history_of(0.5).last(STATE_TICKS), lambda values: values[-3:, 1].fill(np.nan))
    last = float(state.values[-4, 1, 0])
    for profiles in ({}, profiles_of(state.until(0))):
        terms, _ = explain(Plugin(HORIZONS), profiles, state, "speed", 1)
        others = mean_of(np.delete(state.values[-1, :, 0], 1))
        np.testing.assert_allclose(terms[2], Terms(nan, nan, last, 0.3 * (others - last)), atol=1e-3)


def test_other_sensors_tell_nothing_but_what_is_typical() -> None:
    state = history_of(1, seed=5).last(STATE_TICKS)
    alone = told_of_one(state, {"speed": STEADY}, 3)
    np.testing.assert_array_equal(alone.values[:, 3], state.values[:, 3])
    np.testing.assert_allclose(alone.values[:, [0, 1, 2, 4], 0], [[50, 51, 52, 54]] * STATE_TICKS, atol=1e-3)
    assert np.isnan(alone.values[:, [0, 1, 2, 4], 1]).all()
    noise = np.random.default_rng(0).normal(40, 9, state.values.shape).astype(np.float32)
    noise[:, 3] = state.values[:, 3]
    again = told_of_one(replace(state, values=noise), {"speed": STEADY}, 3)
    np.testing.assert_array_equal(again.values, alone.values)


def test_rounded_parts_add_up_to_the_rounded_total() -> None:
    random = np.random.default_rng(4)
    for typical, deviation, neighbours, total in random.normal(0, 40, (500, 4)).tolist():
        served = round(abs(total), 2)
        parts = add_up(Terms(typical, deviation, nan, neighbours), served, 2)
        assert sum(exactly(part) for part in parts.values()) == exactly(served)
        assert parts["last_value"] is None
        assert parts["typical_day"] == pytest.approx(typical, abs=0.00501)
    assert str(add_up(Terms(nan, nan, 60.0, -0.001), 60.0, 2)) == str(
        {"typical_day": None, "deviation_now": None, "last_value": 60.0, "neighbours": 0.0, "rest": 0.0}
    )


def test_the_engine_explains_a_model_that_it_has_and_else_the_one_that_serves() -> None:
    history = history_of(3)
    engine = Engine(HORIZONS, Tolerance(5, 0.1))
    engine.fit(history, CHAIN, np.full(SENSORS, 65, np.float32))
    state = history.last(STATE_TICKS)
    issue = engine.step(state)
    for forecaster in QUICK:
        explained = engine.explain(state, forecaster.name, 1)
        assert (explained.model, explained.version) == (forecaster.name, issue.model_version)
        np.testing.assert_array_equal(explained.median, issue.candidates[forecaster.name][1])
    absent = engine.explain(state, "of last year", 1)
    assert absent.model == issue.model
    np.testing.assert_array_equal(engine.explain(state, issue.model, 1).terms, absent.terms)
