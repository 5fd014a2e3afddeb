"""The engine, on processes whose errors are known and on a real week."""

from copy import deepcopy
from dataclasses import fields, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from roadcast.domain.times import to_ms
from roadcast.forecasting.calibration import Calibration, Tolerance
from roadcast.forecasting.engine import Engine, Issue, Memory, Past
from roadcast.forecasting.evaluation import Task, rehearse
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.metrics import calibration_error, coverage, mae
from roadcast.forecasting.profile import Profile
from roadcast.forecasting.trained import Trained

HORIZONS = 12
DAY = 288
LOS_LOOP = Path(__file__).parents[3] / "shared" / "data" / "los_loop.npz"


def engine() -> Engine:
    return Engine(HORIZONS, Tolerance(5, 0.1))


def noisy_days(days: int, sensors: int = 12, spread: float = 4) -> History:
    """A known typical day plus independent normal noise: no forecaster can err by less than the noise."""
    random = np.random.default_rng(11)
    of_day = np.arange(days * DAY) % DAY / DAY
    speed = (55 + 5 * np.cos(2 * np.pi * of_day))[:, None] + random.normal(0, spread, (days * DAY, sensors))
    values = np.stack([speed, np.full_like(speed, 90)], axis=-1).astype(np.float32)
    return History(values, ("speed", "volume"), to_ms(datetime.fromisoformat("2012-03-05T00:00Z")), 300_000, "UTC")


def references(history: History) -> np.ndarray:
    return np.nanpercentile(history.of("speed"), 85, axis=0).astype(np.float32)


def fitted_until(history: History, ticks: int, graph: Graph | None = None) -> Engine:
    seen = history.until(ticks)
    result = engine()
    result.fit(seen, graph or Graph(), references(seen))
    return result


def states(history: History, first: int, last: int) -> list[History]:
    return [history.until(known).last(STATE_TICKS) for known in range(first, last + 1)]


def truth_of(history: History, first: int, last: int) -> np.ndarray:
    """What came true [issues, S, H]."""
    return np.stack([history.of("speed")[known : known + HORIZONS].T for known in range(first, last + 1)])


def counted(calibration: Calibration) -> np.ndarray:
    """How many errors of each horizon."""
    return calibration.errors[..., 0].sum(axis=(1, 2))


def stacked(issues: list[Issue], name: str) -> np.ndarray:
    return np.stack([getattr(issue, name) for issue in issues])


def same_bytes(one: Issue, other: Issue) -> bool:
    return all(
        np.asarray(getattr(one, field.name)).tobytes() == np.asarray(getattr(other, field.name)).tobytes()
        for field in fields(Issue)
        if field.name not in {"candidates", "calibrations"}
    ) and all(one.candidates[name].tobytes() == other.candidates[name].tobytes() for name in one.candidates)


def test_an_engine_that_knows_nothing_repeats_the_last_value_and_promises_nothing() -> None:
    state = noisy_days(1).last(STATE_TICKS)
    issue = engine().step(state)
    assert (issue.issued_ms, issue.model, issue.model_version) == (state.end_ms, "last_value", "unfitted")
    np.testing.assert_array_equal(issue.speed, np.repeat(state.of("speed")[-1][:, None], HORIZONS, axis=1))
    np.testing.assert_array_equal(issue.volume, np.full((12, HORIZONS), 90))
    assert np.isnan(issue.quantiles).all()
    assert np.isnan(issue.confidence).all()
    assert np.isfinite(issue.tolerance).all()
    assert list(issue.candidates) == ["last_value", "profile", "graph_autoregression"]


def test_an_engine_that_knows_nothing_learns_what_its_errors_are() -> None:
    history = noisy_days(2)
    live = engine()
    *_, issue = (live.step(state) for state in states(history, STATE_TICKS, DAY))
    assert np.isfinite(issue.confidence).all()
    assert np.isfinite(issue.quantiles).all()


def test_an_engine_survives_a_state_without_ticks_and_without_sensors() -> None:
    state = noisy_days(1).until(0)
    assert np.isnan(engine().step(state).speed).all()
    assert engine().step(replace(state, values=state.values[:, :0])).speed.shape == (0, HORIZONS)


def test_promises_hold_where_the_errors_are_known() -> None:
    """Noise of 4 mph around 50 to 60 mph: 80 % and 90 % intervals, and P(|noise| ≤ max(5, 10 %)) of about 0.83."""
    history = noisy_days(12)
    first, last = 11 * DAY, 12 * DAY - HORIZONS
    trained = fitted_until(history, first)
    issues = [trained.step(state) for state in states(history, first, last)]
    truth, quantiles = truth_of(history, first, last), stacked(issues, "quantiles")
    confidence, speed = stacked(issues, "confidence"), stacked(issues, "speed")
    within = (np.abs(truth - speed) <= stacked(issues, "tolerance")).astype(float)
    assert coverage(quantiles[..., 1], quantiles[..., 5], truth) == pytest.approx(0.8, abs=0.02)
    assert coverage(quantiles[..., 0], quantiles[..., 6], truth) == pytest.approx(0.9, abs=0.02)
    assert confidence.mean() == pytest.approx(within.mean(), abs=0.02)
    assert mae(speed, truth) == pytest.approx(4 * np.sqrt(2 / np.pi), rel=0.05)


def test_tolerance_quantiles_and_speed_agree() -> None:
    history = noisy_days(6)
    issue = fitted_until(history, 6 * DAY).step(history.last(STATE_TICKS))
    np.testing.assert_allclose(issue.tolerance, np.maximum(5, 0.1 * issue.speed), rtol=1e-6)
    assert (issue.quantiles[..., 2] <= issue.speed).all()
    assert (issue.speed <= issue.quantiles[..., 4]).all()
    assert (np.diff(issue.quantiles, axis=-1) >= 0).all()
    assert (issue.quantiles >= 0).all()
    assert ((issue.confidence > 0) & (issue.confidence <= 1)).all()


def test_serves_the_forecaster_that_errs_least() -> None:
    """With independent noise the last value errs by √2 of what the profile does; on a walk it is hard to beat."""
    noisy = noisy_days(8)
    assert fitted_until(noisy, 8 * DAY).step(noisy.last(STATE_TICKS)).model != "last_value"
    walk = np.abs(50 + np.random.default_rng(12).normal(0, 1, (8 * DAY, 12)).cumsum(axis=0))
    wandering = replace(noisy, values=np.stack([walk, walk], axis=-1).astype(np.float32))
    assert fitted_until(wandering, 8 * DAY).step(wandering.last(STATE_TICKS)).model == "last_value"


def test_version_is_what_it_was_fitted_through() -> None:
    history = noisy_days(3)
    trained = fitted_until(history, 2 * DAY)
    assert trained.step(history.last(STATE_TICKS)).model_version == "2012-03-04T00:00Z"
    trained.fit(history, Graph(), references(history))
    assert trained.step(history.last(STATE_TICKS)).model_version == "2012-03-05T00:00Z"


def test_a_refit_keeps_what_errors_taught() -> None:
    history = noisy_days(5)
    trained = fitted_until(history, 4 * DAY)
    before = {name: deepcopy(calibration) for name, calibration in trained.calibrations().items()}
    trained.fit(history, Graph(), references(history))
    for name, calibration in trained.calibrations().items():
        np.testing.assert_array_equal(calibration.offsets, before[name].offsets)
        np.testing.assert_array_equal(calibration.errors, before[name].errors)
        assert calibration.errors.any()


def test_learns_each_error_once_and_only_from_what_was_observed() -> None:
    """Two ticks on: errors of horizon 1 (twice) and 2 (once), for each forecaster and the sensors that reported."""
    history = noisy_days(1, sensors=5)
    values = history.values.copy()
    values[-2:, 3] = np.nan
    history = replace(history, values=values)
    live = engine()
    for state in states(history, DAY - 2, DAY):
        live.step(state)
        live.step(state)
    expected = np.zeros(HORIZONS)
    expected[0], expected[1] = 8, 4
    for calibration in live.calibrations().values():
        np.testing.assert_allclose(counted(calibration), expected, rtol=1e-3)


def test_errors_are_those_of_the_horizon_that_came_true() -> None:
    """Speeds that rise by 2 mph per tick: the last value errs by 2 h."""
    rising = np.arange(40, dtype=np.float32)[:, None, None].repeat(40, axis=1) * 2
    history = History(rising, ("speed",), 40 * 300_000, 300_000, "UTC")
    live = engine()
    for state in states(history, 1, 40):
        live.step(state)
    errors = live.calibrations()["last_value"].errors.sum(axis=(1, 2))
    np.testing.assert_allclose(errors[:, 1] / errors[:, 0], 2 * np.arange(1, HORIZONS + 1), atol=0.01)


def test_skipped_ticks_cost_only_their_own_errors() -> None:
    history = noisy_days(1, sensors=4)
    live = engine()
    for known in (DAY - 9, DAY - 4):
        live.step(history.until(known).last(STATE_TICKS))
    assert np.flatnonzero(counted(live.calibrations()["last_value"])).tolist() == [4]


def trained_profile(history: History, version: str = "v1") -> tuple[Trained, str]:
    """A profile that goes by another name, and has been rehearsed."""
    task = Task(history, Graph(), "speed", HORIZONS, len(history), Tolerance(5, 0.1))
    fitted = {"speed": Profile().fit(history, Graph(), "speed", HORIZONS)}
    return Trained("graph_mlp", fitted, rehearse(Profile(), task)), version


def test_a_trained_model_competes_and_serves_where_it_errs_least() -> None:
    history = noisy_days(8)
    plain, live = fitted_until(history, 7 * DAY), fitted_until(history, 7 * DAY)
    live.adopt(*trained_profile(history.until(7 * DAY)))
    state = history.until(7 * DAY + 1).last(STATE_TICKS)
    issue, other = live.step(state), plain.step(state)
    assert list(issue.candidates) == ["last_value", "profile", "graph_autoregression", "graph_mlp"]
    np.testing.assert_array_equal(issue.candidates["graph_mlp"], issue.candidates["profile"])
    np.testing.assert_array_equal(issue.volume, other.volume)  # it has not learnt volumes
    assert issue.model in {"profile", "graph_mlp", "graph_autoregression"}
    live._contenders["graph_mlp"].judge.calibration.squares[:, 1] *= 0.5
    assert (live.step(state).model, live.step(state).model_version) == ("graph_mlp", "v1")
    live.adopt(None)
    assert same_bytes(live.step(state), other)


def test_a_forecaster_is_there_again_when_the_champion_of_its_name_goes() -> None:
    history = noisy_days(8)
    plain, live = fitted_until(history, 7 * DAY), fitted_until(history, 7 * DAY)
    model, version = trained_profile(history.until(7 * DAY))
    live.adopt(replace(model, forecaster="graph_autoregression"), version)
    for state in states(history, 7 * DAY + 1, 7 * DAY + 10):
        issue, other = live.step(state), plain.step(state)
        assert list(issue.candidates) == ["last_value", "profile", "graph_autoregression"]
        np.testing.assert_array_equal(issue.candidates["graph_autoregression"], issue.candidates["profile"])
    live.adopt(None)
    assert same_bytes(live.step(state), other)


def test_of_a_trained_model_errors_are_remembered_by_version() -> None:
    history = noisy_days(8)
    live = fitted_until(history, 7 * DAY)
    live.adopt(*trained_profile(history.until(7 * DAY)))
    issues = [live.step(state) for state in states(history, 7 * DAY + 1, 7 * DAY + 40)]
    assert list(issues[-1].calibrations)[-1] == "graph_mlp v1"
    past = Past([Memory(issue.issued_ms, issue.calibrations) for issue in issues[-12:]], history.until(7 * DAY + 40))
    after = history.until(7 * DAY + 41).last(STATE_TICKS)
    expected = live.step(after).calibrations
    for version, known in (("v1", True), ("v2", False)):
        fresh = engine()
        fresh.adopt(*trained_profile(history.until(7 * DAY), version))
        fresh.fit(history.until(7 * DAY), Graph(), references(history.until(7 * DAY)), past)
        found = fresh.step(after).calibrations
        same = found[f"graph_mlp {version}"].offsets.tobytes() == expected["graph_mlp v1"].offsets.tobytes()
        assert same == known
        assert found["profile"].offsets.tobytes() == expected["profile"].offsets.tobytes()


def test_sensors_may_be_appended_between_steps() -> None:
    history = noisy_days(5)
    few = replace(history, values=history.values[:, :8])
    trained = fitted_until(few, 4 * DAY)
    trained.step(few.until(4 * DAY))
    for state in states(history, 4 * DAY + 1, 4 * DAY + 20):
        issue = trained.step(state)
    assert issue.speed.shape == (12, HORIZONS)
    assert np.isfinite(issue.speed).all()
    assert np.isfinite(issue.confidence).all()


def test_knows_the_age_of_the_last_reading() -> None:
    history = noisy_days(6)
    values = history.values.copy()
    values[-3:, 1] = np.nan
    values[-STATE_TICKS:, 2] = np.nan
    silent = replace(history, values=values)
    issue = fitted_until(silent, 6 * DAY).step(silent)
    assert issue.age_ticks[:3].tolist() == [0, 3, STATE_TICKS]


def test_the_same_calls_give_the_same_bytes() -> None:
    history = noisy_days(5)
    values = history.values.copy()
    values[np.random.default_rng(13).random(values.shape[:2]) < 0.1] = np.nan
    history = replace(history, values=values)
    values.setflags(write=False)
    runs = []
    for _ in range(2):
        trained = fitted_until(history, 4 * DAY)
        runs.append([trained.step(state) for state in states(history, 4 * DAY, 4 * DAY + 30)])
    assert all(same_bytes(one, other) for one, other in zip(*runs, strict=True))


def test_a_rehearsal_needs_a_day_to_fit_on() -> None:
    history = noisy_days(3)
    for ticks, expected in ((int(1.2 * DAY), False), (int(1.3 * DAY), True)):
        seen = fitted_until(history, ticks)
        assert all(calibration.errors.any() == expected for calibration in seen.calibrations().values())


class Week(NamedTuple):
    """Forecasts of the last fifth of a real week: what was forecast, and what came true."""

    issues: list[Issue]
    truth: np.ndarray


@cache
def real_week() -> Week:
    with np.load(LOS_LOOP, allow_pickle=False) as data:
        speed, adjacency = data["speed"], data["adjacency"]
    start = datetime(2012, 3, 1, tzinfo=ZoneInfo("America/Los_Angeles"))
    end_ms = to_ms(start) + len(speed) * 300_000
    history = History(speed[:, :, None], ("speed",), end_ms, 300_000, "America/Los_Angeles")
    upstream, downstream = np.nonzero(adjacency)
    split, last = int(len(speed) * 0.8), len(speed) - HORIZONS
    graph = Graph(upstream, downstream, adjacency[upstream, downstream])
    trained = fitted_until(history, split, graph)
    return Week([trained.step(state) for state in states(history, split, last)], truth_of(history, split, last))


needs_los_loop = pytest.mark.skipif(not LOS_LOOP.exists(), reason=f"{LOS_LOOP} is absent")


@needs_los_loop
def test_real_week_intervals_cover_what_they_promise() -> None:
    week = real_week()
    quantiles = stacked(week.issues, "quantiles")
    assert 0.75 < coverage(quantiles[..., 1], quantiles[..., 5], week.truth) < 0.85
    assert 0.85 < coverage(quantiles[..., 0], quantiles[..., 6], week.truth) < 0.95


@needs_los_loop
def test_real_week_confidence_is_calibrated_and_tells_good_from_bad() -> None:
    week = real_week()
    error = np.abs(week.truth - stacked(week.issues, "speed"))
    within = (error <= stacked(week.issues, "tolerance")).astype(float)
    confidence = stacked(week.issues, "confidence")
    assert calibration_error(confidence, within) < 0.03
    assert calibration_error(confidence[..., -1], within[..., -1]) < 0.03
    assert np.mean((confidence - within) ** 2) < 0.8 * within.mean() * (1 - within.mean())


@needs_los_loop
def test_real_week_each_rung_of_the_ladder_is_better_an_hour_ahead() -> None:
    week = real_week()
    hour_ahead = week.truth[..., -1]
    errors = [
        mae(np.stack([issue.candidates[forecaster.name][:, -1] for issue in week.issues]), hour_ahead)
        for forecaster in QUICK
    ]
    assert errors == sorted(errors, reverse=True)
    assert week.issues[-1].model == "graph_autoregression"
    assert mae(stacked(week.issues, "speed")[..., -1], hour_ahead) < errors[-1]


def test_the_usual_day_speaks_for_a_sensor_of_which_the_one_that_serves_knows_nothing() -> None:
    """A detector that has been dead for hours is forecast whoever serves the network."""
    history = noisy_days(4)
    silent = history.values.copy()
    silent[-2 * STATE_TICKS :, 0] = np.nan
    history = replace(history, values=silent)
    running = Engine(HORIZONS, Tolerance(5, 0.1), (LastValue(), Profile()))
    running.fit(history, Graph(), references(history))
    for name, each in running._contenders.items():
        each.judge.calibration.squares[:] = 1000, 1 if name == LastValue().name else 9000
    issue = running.step(history.last(STATE_TICKS))
    assert issue.model == LastValue().name
    assert np.isnan(issue.candidates[LastValue().name][0]).all()
    assert issue.speed[0] == pytest.approx(issue.candidates[Profile().name][0], abs=2)
    for array in (issue.quantiles, issue.confidence, issue.tolerance):
        assert not np.isnan(array).any()
    np.testing.assert_allclose(issue.speed[1:], issue.candidates[LastValue().name][1:], atol=6)
