"""What every forecaster promises, asked of ours; and what ours promise beyond that."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.contract import (
    CHAIN,
    CLOCK_CHANGES,
    HORIZONS,
    PROMISES,
    SENSORS,
    Promise,
    check,
    history_of,
    with_values,
)
from roadcast.forecasting.forecaster import Fitted, Forecast, Forecaster
from roadcast.forecasting.forecasters import QUICK, why_no_trees
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.last_value import FittedLastValue, LastValue
from roadcast.forecasting.parts import Parts
from roadcast.forecasting.perceptron import Training

MLP = GraphMlp(training=Training(hidden=(16,), epochs=1))
BOOSTING = GradientBoosting(cases=10_000, trees=10, leaves=7)
NEEDS_TREES = pytest.mark.skipif(bool(why_no_trees()), reason=f"needs lightgbm: {why_no_trees()}")
FORECASTERS = (
    *(pytest.param(forecaster, id=forecaster.name) for forecaster in (*QUICK, MLP)),
    *(pytest.param(each, id=each.name, marks=NEEDS_TREES) for each in (BOOSTING, Blend(net=MLP, trees=BOOSTING))),
)
"""The learned ones with settings that are cheap to fit."""
ours = pytest.mark.parametrize("forecaster", FORECASTERS)


@ours
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_promise_is_kept(forecaster: Forecaster, promise: Promise) -> None:
    promise(forecaster)


def forecast(forecaster: Forecaster, history: History, state: History, target: str = "speed") -> np.ndarray:
    return forecaster.fit(history, CHAIN, target, HORIZONS).forecast(state).median


@ours
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_with_missing_readings_the_forecast_stays_near(forecaster: Forecaster, share: float) -> None:
    gaps = np.random.default_rng(1).random((4 * 288, SENSORS)) < share
    history = with_values(history_of(4), lambda values: np.putmask(values, np.dstack([gaps, gaps]), np.nan))
    heard = ~np.isnan(history.last(STATE_TICKS).of("speed")).all(axis=0)
    assert (np.abs(forecast(forecaster, history, history)[heard] - 60) < 60).all()


@ours
def test_a_sensor_that_died_is_forecast_from_what_is_known_of_it(forecaster: Forecaster) -> None:
    history = with_values(history_of(4), lambda values: values[-STATE_TICKS:, 2].fill(np.nan))
    assert np.isnan(forecast(forecaster, history, history)[2]).all() == (forecaster.name == "last_value")


@ours
def test_a_sensor_that_never_spoke_is_unknown(forecaster: Forecaster) -> None:
    history = with_values(history_of(4), lambda values: values[:, 2].fill(np.nan))
    assert np.isnan(forecast(forecaster, history, history)[2]).all()


@ours
def test_sensors_appended_since_the_fit_get_their_last_value_and_change_no_other(forecaster: Forecaster) -> None:
    history = history_of(4)
    grown = history_of(4, sensors=SENSORS + 2)
    state = replace(grown, values=np.concatenate([history.values, grown.values[:, SENSORS:]], axis=1)).last(STATE_TICKS)
    median = forecast(forecaster, history, state)
    np.testing.assert_array_equal(median[SENSORS:], np.repeat(state.of("speed")[-1, SENSORS:, None], HORIZONS, axis=1))
    np.testing.assert_array_equal(median[:SENSORS], forecast(forecaster, history, history))


@ours
def test_without_any_reading_only_the_last_value_knows_nothing(forecaster: Forecaster) -> None:
    empty = history_of(4).last(0)
    assert np.isfinite(forecast(forecaster, history_of(4), empty)).all() == (forecaster.name != "last_value")
    assert np.isnan(forecast(forecaster, empty, empty)).all()


@ours
def test_a_variable_that_the_history_lacks_is_unknown(forecaster: Forecaster) -> None:
    history = history_of(2)
    assert np.isnan(forecast(forecaster, history, history, "occupancy")).all()


@ours
@pytest.mark.parametrize("end", CLOCK_CHANGES)
def test_around_clock_changes_the_forecast_stays_near(forecaster: Forecaster, end: str) -> None:
    history = history_of(9, end=end)
    assert (np.abs(forecast(forecaster, history, history) - history.of("speed")[-1].mean()) < 30).all()


@ours
def test_missing_parts_are_named(forecaster: Forecaster) -> None:
    parts = forecaster.fit(history_of(2), CHAIN, "speed", HORIZONS).parts()
    for name in parts:
        with pytest.raises(ValueError, match=re.escape(name)):
            forecaster.restore({other: part for other, part in parts.items() if other != name})


class Unkept(NamedTuple):
    """The last value, but for what it does wrong when it is asked for a forecast, and under which name."""

    wrong: str
    name: str = "unkept"

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> Fitted:
        if self.wrong == "fit" and len(history):
            history.values[0] = 0
        if self.wrong == "graph" and not len(graph.weight):
            raise ZeroDivisionError
        return UnkeptFitted(self.wrong, LastValue().fit(history, graph, target, horizons))

    def restore(self, parts: Parts) -> Fitted:
        kept = {} if self.wrong == "restore" else parts
        target, horizons = str(kept.get("target", "speed")), int(kept.get("horizons", HORIZONS))
        return UnkeptFitted(self.wrong, FittedLastValue(target, horizons))


class UnkeptFitted(NamedTuple):
    wrong: str
    rest: FittedLastValue

    def parts(self) -> Parts:
        parts = self.rest.parts()
        return parts | {"../x": "y"} if self.wrong == "part" else parts

    def forecast(self, state: History) -> Forecast:
        if self.wrong == "empty" and not len(state):
            raise IndexError("no tick")
        median = self.rest.forecast(state).median
        quantiles = {"order": (3, 2, 1, 0, 1, 2, 3), "median": range(7)}.get(self.wrong)
        if quantiles:
            return Forecast(median, np.stack([median + i for i in quantiles], axis=-1))
        return Forecast(WRONG.get(self.wrong, lambda median, _: median)(median, state))


WRONG: dict[str, Callable[[np.ndarray, History], np.ndarray]] = {
    "shape": lambda median, _: median[:, :-1],
    "type": lambda median, _: median.astype(np.float64),
    "unknown": lambda median, state: median + 0 * state.of("speed")[-1:].sum(axis=0)[:, None],
    "sign": lambda median, _: median - 100,
    "chance": lambda median, _: median + np.random.default_rng().random(median.shape, np.float32),
    "back": lambda median, state: median + np.float32(len(state)),
    "drift": lambda median, _: median + np.float32(1),
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("shape", r"keeps its promises on a small network: median is float32 \(5, 5\), expected float32 \(5, 6\)"),
        ("type", r"median is float64 \(5, 6\), expected float32"),
        ("unknown", "survives missing readings: the median of sensor .* is not finite, and the state holds"),
        ("sign", "a median is negative or infinite"),
        ("chance", "it forecasts other bytes"),
        ("order", "quantiles are not in order"),
        ("median", "the quantile p50 is not the median"),
        ("back", "it forecasts other bytes of 24 ticks alone"),
        ("drift", r"expects no change of what never changes: .* after days of 0"),
        ("empty", r"small network: raised IndexError\('no tick'\)"),
        ("fit", "changes nothing and repeats itself: raised ValueError"),
        ("graph", "raised ZeroDivisionError"),
        ("part", r"part '../x', expected a name such as net/weights_0"),
        ("restore", r"refuses parts of which one is missing: restored without 'target', expected a ValueError"),
    ],
)
def test_a_promise_that_is_not_kept_is_named(wrong: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(Unkept(wrong))


@pytest.mark.parametrize("name", ["", "Weekly", "a,b", "a b", "a" * 64])
def test_a_name_that_cannot_be_written_everywhere_is_refused(name: str) -> None:
    with pytest.raises(AssertionError, match=r"has a name: .*, expected one such as weekly_naive"):
        check(Unkept("", name))
