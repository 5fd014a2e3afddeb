"""What every forecaster promises, whatever it is given.

`check(forecaster)` asks for all of it, as our own tests do; each of PROMISES can be asked for alone. A promise that is
not kept is an AssertionError that says which, and what was found.
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import wraps
from io import BytesIO
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, to_ms
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, Fitted, Forecast, Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, TARGETS, VOLUME, History
from roadcast.forecasting.parts import Parts

HORIZONS, SENSORS, INTERVAL_MS = 6, 5, 300_000
ZONE = "America/Los_Angeles"
NOON = "2012-03-09T12:00"
CLOCK_CHANGES = ("2012-03-11T04:00", "2012-03-11T01:50", "2012-11-04T01:30", "2012-11-05T00:00")
CHAIN = Graph(np.arange(SENSORS - 1), np.arange(1, SENSORS), np.ones(SENSORS - 1, np.float32))
STILL = 0.1
"""How far a forecast may be from what has never changed."""

_NAME, _PART = re.compile(r"[a-z][a-z0-9_]{0,62}"), re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")

Promise = Callable[[Forecaster], None]


def check(forecaster: Forecaster) -> None:
    """Ask for every promise.

    Raises:
        AssertionError: one is not kept.
    """
    for promise in PROMISES:
        promise(forecaster)


def history_of(
    days: float, *, end: str = NOON, sensors: int = SENSORS, seed: int = 0, interval_ms: int = INTERVAL_MS
) -> History:
    """Speeds with a daily dip and noise, and volumes, ending at a local time."""
    random = np.random.default_rng(seed)
    end_ms = to_ms(datetime.fromisoformat(end).replace(tzinfo=ZoneInfo(ZONE)))
    ticks = int(days * DAY_MS / interval_ms)
    of_day = (end_ms + np.arange(1 - ticks, 1) * interval_ms) % DAY_MS / DAY_MS
    speed = 60 - 25 * np.cos(2 * np.pi * of_day)[:, None] + random.normal(0, 3, (ticks, sensors))
    volume = random.poisson(80, (ticks, sensors))
    values = np.stack([np.maximum(speed, 0), volume], axis=-1).astype(np.float32)
    return History(values, TARGETS, end_ms, interval_ms, ZONE)


def with_values(history: History, change: Callable[[NDArray[np.float32]], object]) -> History:
    """A history whose values [T, S, V] have been changed."""
    values = history.values.copy()
    change(values)
    return replace(history, values=values)


def _promise(ask: Callable[[Forecaster], None]) -> Promise:
    """Whatever goes wrong is told under the promise's name."""

    @wraps(ask)
    def asked(forecaster: Forecaster) -> None:
        rule = ask.__name__.replace("_", " ")
        try:
            ask(forecaster)
        except AssertionError as error:
            raise AssertionError(f"{rule}: {error}") from error
        except Exception as error:  # whatever a forecaster raises breaks its promise
            raise AssertionError(f"{rule}: raised {error!r}") from error

    return asked


@_promise
def has_a_name(forecaster: Forecaster) -> None:
    """By which it is called in scores, settings and files."""
    name = forecaster.name
    _expect(_NAME.fullmatch(name), f"{name!r}, expected one such as weekly_naive")


@_promise
def forecasts_every_sensor_and_horizon(forecaster: Forecaster) -> None:
    """Of each target."""
    history = history_of(4)
    for target in TARGETS:
        _forecast(forecaster, history, history, target)


@_promise
def changes_nothing_and_repeats_itself(forecaster: Forecaster) -> None:
    """The same history and state give the same bytes, from the same fit and from another."""
    history = with_values(history_of(3), lambda values: values[::7, 1].fill(np.nan))
    kept = history.values.copy()
    history.values.setflags(write=False)
    fitted = forecaster.fit(history, CHAIN, SPEED, HORIZONS)
    first = fitted.forecast(history)
    for again in (fitted.forecast(history), forecaster.fit(history, CHAIN, SPEED, HORIZONS).forecast(history)):
        _expect_same(first, again, "asked again")
    _expect(np.array_equal(history.values, kept, equal_nan=True), "the history was changed")


@_promise
def looks_no_further_back_than_a_state(forecaster: Forecaster) -> None:
    """A restart has no more than that."""
    history = history_of(3)
    fitted = forecaster.fit(history, CHAIN, SPEED, HORIZONS)
    _expect_same(fitted.forecast(history), fitted.forecast(history.last(STATE_TICKS)), f"of {STATE_TICKS} ticks alone")


@_promise
def survives_missing_readings(forecaster: Forecaster) -> None:
    """In the history and in the state."""
    for share in (0.1, 0.5, 0.9, 1.0):
        gaps = np.random.default_rng(1).random((4 * 288, SENSORS)) < share
        history = with_values(history_of(4), _hider(gaps))
        _forecast(forecaster, history, history)


@_promise
def survives_dead_sensors(forecaster: Forecaster) -> None:
    """One that has fallen silent, and one that never spoke."""
    for silent in (slice(-STATE_TICKS, None), slice(None)):
        history = with_values(history_of(4), _filler(silent, 2, np.nan))
        _forecast(forecaster, history, history)


@_promise
def survives_new_sensors(forecaster: Forecaster) -> None:
    """Appended since the fit."""
    fitted = forecaster.fit(history_of(4), CHAIN, SPEED, HORIZONS)
    _sound(fitted, history_of(1, sensors=SENSORS + 2))


@_promise
def survives_any_length_of_history(forecaster: Forecaster) -> None:
    """Also none."""
    for days in (0, 1 / 288, 0.02, 0.5, 1, 1.2, 2, 8):
        history = history_of(days)
        _forecast(forecaster, history, history)
        _forecast(forecaster, history, history_of(1, seed=1))


@_promise
def survives_any_length_of_state(forecaster: Forecaster) -> None:
    """Also none."""
    fitted = forecaster.fit(history_of(4), CHAIN, SPEED, HORIZONS)
    for ticks in (0, 1, 5, STATE_TICKS):
        _sound(fitted, history_of(1).last(ticks))


@_promise
def survives_any_number_of_sensors(forecaster: Forecaster) -> None:
    """None and one."""
    for sensors in (0, 1):
        history = history_of(2, sensors=sensors)
        _forecast(forecaster, history, history, graph=Graph())


@_promise
def needs_no_graph(forecaster: Forecaster) -> None:
    """Not every network has one."""
    history = history_of(4)
    _forecast(forecaster, history, history, graph=Graph())


@_promise
def survives_a_missing_variable(forecaster: Forecaster) -> None:
    """A target that the history lacks, and one that the state lacks."""
    history = history_of(2)
    _forecast(forecaster, history, history, "occupancy")
    _forecast(forecaster, history, replace(history, variables=("occupancy", VOLUME)))


@_promise
def survives_clock_changes_and_holidays(forecaster: Forecaster) -> None:
    """On either side of the hour that is left out or repeated."""
    for end in CLOCK_CHANGES:
        usual = history_of(9, end=end)
        today = int(usual.calendar().day[-1])
        history = replace(usual, holidays=(today - 7, today, today + 1))
        fitted = forecaster.fit(history, CHAIN, SPEED, HORIZONS)
        for state in (usual, history):
            _sound(fitted, state)


@_promise
def survives_other_intervals_and_horizons(forecaster: Forecaster) -> None:
    """From one minute to an hour."""
    for minutes, horizons in ((1, 1), (15, 24), (60, 2), (60, 24)):
        history = replace(history_of(3), interval_ms=minutes * 60_000)
        _sound(forecaster.fit(history, CHAIN, SPEED, horizons), history, horizons=horizons)


@_promise
def is_never_negative(forecaster: Forecaster) -> None:
    """A queue that stands just before the hour at which it is always slow: 0 − 60 + 5 would be negative."""

    def queue(values: NDArray[np.float32]) -> None:
        ticks = len(values)
        slow_after_noon = np.where(np.arange(-ticks, 0) % 288 < 144, 5, 60)
        mood_of_the_day = np.random.default_rng(2).normal(0, 2, (ticks // 288 + 1, 1)).repeat(288, axis=0)[:ticks]
        values[:, :, 0] = slow_after_noon[:, None] + mood_of_the_day
        values[-STATE_TICKS:, :, 0] = 0

    history = with_values(history_of(5), queue)
    _forecast(forecaster, history, history)


@_promise
def keeps_quantiles_in_order(forecaster: Forecaster) -> None:
    """After any history, and of states unlike it. Those who have none are asked for a sound median alone."""
    for target in TARGETS:
        for days in (1 / 288, 0.5, 1.2, 3):
            fitted = forecaster.fit(history_of(days), CHAIN, target, HORIZONS)
            for state in _states():
                _sound(fitted, state, target)


@_promise
def expects_no_change_of_what_never_changes(forecaster: Forecaster) -> None:
    """At a standstill and in free flow."""
    for level in (0, 60):
        history = with_values(history_of(3), _filler(slice(None), slice(None), level))
        median = _forecast(forecaster, history, history)
        _expect((np.abs(median - level) <= STILL).all(), f"{median.ravel()[:3]} after days of {level}")


@_promise
def is_restored_from_its_parts(forecaster: Forecaster) -> None:
    """Also through files of arrays that cannot hold objects, and under names that files can have."""
    history = with_values(history_of(3), lambda values: values[::7, 1].fill(np.nan))
    fitted = forecaster.fit(history, CHAIN, SPEED, HORIZONS)
    _expect_restored(forecaster, fitted, history)


@_promise
def refuses_parts_of_which_one_is_missing(forecaster: Forecaster) -> None:
    """By a ValueError."""
    parts = forecaster.fit(history_of(2), CHAIN, SPEED, HORIZONS).parts()
    for name in parts:
        try:
            forecaster.restore({other: part for other, part in parts.items() if other != name})
        except ValueError:
            continue
        raise AssertionError(f"restored without {name!r}, expected a ValueError")


@_promise
def goes_from_process_to_process(forecaster: Forecaster) -> None:
    """Forecasters are fitted in processes of their own; what they have learnt may be sent."""
    sent: Forecaster = pickle.loads(pickle.dumps(forecaster))  # noqa: S301 - as multiprocessing does it
    fitted, state = sent.fit(history_of(3), CHAIN, SPEED, HORIZONS), history_of(1, seed=1)
    arrived: Fitted = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - as above
    _expect_same(fitted.forecast(state), arrived.forecast(state), "in another process")


@_promise
def keeps_its_promises_on_a_small_network(forecaster: Forecaster) -> None:
    """All at once, after a single fit on two days: what is asked of a plugin whenever it is loaded."""
    history = history_of(2, interval_ms=1_800_000)
    sent: Forecaster = pickle.loads(pickle.dumps(forecaster))  # noqa: S301 - as multiprocessing does it
    fitted = sent.fit(history, CHAIN, SPEED, HORIZONS)
    for state in (*_states(), *(history.last(ticks) for ticks in (0, 1))):
        _sound(fitted, replace(state, interval_ms=history.interval_ms))
    _expect_same(fitted.forecast(history), fitted.forecast(history.last(STATE_TICKS)), f"of {STATE_TICKS} ticks alone")
    _expect_restored(forecaster, fitted, history)
    _forecast(forecaster, history.until(0), history)


PROMISES: Sequence[Promise] = (
    has_a_name,
    keeps_its_promises_on_a_small_network,
    forecasts_every_sensor_and_horizon,
    changes_nothing_and_repeats_itself,
    looks_no_further_back_than_a_state,
    survives_missing_readings,
    survives_dead_sensors,
    survives_new_sensors,
    survives_any_length_of_history,
    survives_any_length_of_state,
    survives_any_number_of_sensors,
    needs_no_graph,
    survives_a_missing_variable,
    survives_clock_changes_and_holidays,
    survives_other_intervals_and_horizons,
    is_never_negative,
    keeps_quantiles_in_order,
    expects_no_change_of_what_never_changes,
    is_restored_from_its_parts,
    refuses_parts_of_which_one_is_missing,
    goes_from_process_to_process,
)
AT_LOAD: Sequence[Promise] = PROMISES[:2]
"""These take milliseconds, but for the fit of who learns slowly."""


def _states() -> Iterator[History]:
    """As usual, with a sensor that is silent, with new sensors, at a standstill, and with nothing at all."""
    yield history_of(1)
    yield with_values(history_of(1), _filler(slice(-STATE_TICKS, None), 2, np.nan))
    grown = history_of(1, sensors=SENSORS + 2)
    yield grown
    yield with_values(grown, _filler(slice(None), slice(None), 0))
    yield with_values(grown, _filler(slice(None), slice(None), np.nan))


def _filler(ticks: slice, sensors: int | slice, level: float) -> Callable[[NDArray[np.float32]], object]:
    return lambda values: values[ticks, sensors].fill(level)


def _hider(gaps: NDArray[np.bool_]) -> Callable[[NDArray[np.float32]], object]:
    return lambda values: np.putmask(values, np.dstack([gaps, gaps]), np.nan)


def _forecast(
    forecaster: Forecaster, history: History, state: History, target: str = SPEED, graph: Graph = CHAIN
) -> NDArray[np.float32]:
    """The median of a sound forecast after a fit."""
    return _sound(forecaster.fit(history, graph, target, HORIZONS), state, target)


def _sound(fitted: Fitted, state: History, target: str = SPEED, horizons: int = HORIZONS) -> NDArray[np.float32]:
    """The median of a forecast, once it is known to be sound."""
    forecast = fitted.forecast(state)
    median, shape = forecast.median, (state.sensors, horizons)
    _expect_array("median", median, shape)
    heard = ~np.isnan(state.last(STATE_TICKS).of(target)).all(axis=0)
    unknown = np.flatnonzero(heard & ~np.isfinite(median).all(axis=1))
    _expect(not len(unknown), f"the median of sensor {unknown[:1]} is not finite, and the state holds its readings")
    _expect(not (median < 0).any() and not np.isinf(median).any(), "a median is negative or infinite")
    if forecast.quantiles is not None:
        _expect_array("quantiles", forecast.quantiles, (*shape, len(PROBABILITIES)))
        _expect_order(median, forecast.quantiles)
    return median


def _expect_order(median: NDArray[np.float32], quantiles: NDArray[np.float32]) -> None:
    _expect(np.array_equal(quantiles[..., MEDIAN], median, equal_nan=True), "the quantile p50 is not the median")
    known = np.isfinite(median)
    _expect((np.isfinite(quantiles).all(axis=-1) == known).all(), "quantiles are not known exactly where medians are")
    _expect((np.diff(quantiles[known], axis=-1) >= 0).all(), "quantiles are not in order")
    _expect((quantiles[known] >= 0).all(), "a quantile is negative")


def _expect_restored(forecaster: Forecaster, fitted: Fitted, state: History) -> None:
    parts = fitted.parts()
    for name in parts:
        _expect(all(map(_PART.fullmatch, name.split("/"))), f"part {name!r}, expected a name such as net/weights_0")
    for kept in (parts, _through_a_file(parts)):
        _expect_same(fitted.forecast(state), forecaster.restore(kept).forecast(state), "restored from its parts")


def _through_a_file(parts: Parts) -> Parts:
    file = BytesIO()
    np.savez(file, allow_pickle=False, **parts)
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        return {name: str(part) if isinstance(parts[name], str) else part for name, part in loaded.items()}


def _expect_same(one: Forecast, other: Forecast, when: str) -> None:
    _expect(_as_bytes(one) == _as_bytes(other), f"it forecasts other bytes {when}")


def _as_bytes(forecast: Forecast) -> tuple[bytes, bytes | None]:
    return forecast.median.tobytes(), None if forecast.quantiles is None else forecast.quantiles.tobytes()


def _expect_array(name: str, found: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    right = found.shape == shape and found.dtype == np.float32
    _expect(right, f"{name} is {found.dtype} {found.shape}, expected float32 {shape}")


def _expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
