"""Training's rules: which days are held out, who is judged by what, and who deserves to serve."""

from dataclasses import dataclass, replace
from math import inf, nan

import numpy as np
import pytest
from unit.waves import DAY, INTERVAL_MS, START_MS, history_of, speeds

from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import Task
from roadcast.forecasting.forecaster import Forecast
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.parts import Parts
from roadcast.forecasting.training import (
    MOST_ISSUES,
    Score,
    Standing,
    TooLittleHistory,
    Verdict,
    after,
    hold_out,
    score,
)

TOLERANCE = Tolerance(5.0, 0.1)
HORIZONS = 6


def held(history: History) -> Task:
    return hold_out(history, Graph(), HORIZONS, TOLERANCE)


@pytest.mark.parametrize(("days", "held_out"), [(2, 1), (5, 1), (10, 2), (35, 7), (60, 7)])
def test_a_fifth_is_held_out_at_least_a_day_and_at_most_a_week(days: int, held_out: float) -> None:
    task = held(history_of(np.full((days * DAY, 1), 60.0)))
    assert (len(task.history), task.test_from) == (days * DAY, (days - held_out) * DAY)


def test_what_is_before_the_first_speed_is_no_history() -> None:
    values = speeds(6 * DAY)
    values[: 3 * DAY] = np.nan
    task = held(history_of(values, volumes=np.ones_like(values)))
    assert (len(task.history), task.test_from) == (3 * DAY, 2 * DAY)
    assert task.history.end_ms == START_MS + 6 * DAY * INTERVAL_MS


@pytest.mark.parametrize(
    ("ticks", "silent_from", "said"),
    [
        (0, 0, "No speed is stored."),
        (9 * DAY, 0, "No speed is stored."),
        (2 * DAY - 1, 9999, "1.9 days of speeds are stored: at least 2 are needed"),
        (
            DAY // 2,
            9999,
            "0.5 days of speeds are stored: at least 2 are needed, one to learn from and one to judge by.",
        ),
        (5 * DAY, 4 * DAY, "No speed is stored of the last 1.0 days, by which to judge."),
    ],
)
def test_too_little_history_is_refused_in_a_line(ticks: int, silent_from: int, said: str) -> None:
    values = speeds(ticks)
    values[silent_from:] = np.nan
    with pytest.raises(TooLittleHistory) as refused:
        held(history_of(values))
    assert str(refused.value).startswith(said)
    assert str(refused.value).endswith("Import some history, or wait for readings.")


@pytest.mark.parametrize(
    ("learnt", "first"),
    [
        (3 * DAY, 8 * DAY),
        (8 * DAY, 8 * DAY),
        (8 * DAY + 7, 8 * DAY + 7),
        (9 * DAY, 9 * DAY),
        (9 * DAY + 12, 9 * DAY + 12),
        (9 * DAY + 13, None),
        (99 * DAY, None),
    ],
)
def test_nobody_is_judged_by_what_he_has_learnt(learnt: int, first: int | None) -> None:
    task = held(history_of(speeds(10 * DAY)))
    later = after(task, START_MS + learnt * INTERVAL_MS)
    assert (None if later is None else later.test_from) == first


def test_errors_are_those_of_every_issue_by_hand() -> None:
    """Short enough for each tick to be an issue; a sensor that has been silent for STATE_TICKS counts for nobody."""
    random = np.random.default_rng(5)
    values = speeds(2 * DAY)
    values[random.random(values.shape) < 0.2] = np.nan
    values[DAY + 40 : DAY + 90, 1] = np.nan
    task = replace(held(history_of(values)), horizons=2)
    assert DAY - 2 + 1 <= MOST_ISSUES
    errors = []
    for known in range(DAY, 2 * DAY - 1):
        for sensor in range(3):
            seen = values[known - STATE_TICKS : known, sensor]
            if np.isnan(seen).all():
                continue
            last = seen[~np.isnan(seen)][-1]
            errors += [last - truth for truth in values[known : known + 2, sensor] if not np.isnan(truth)]
    found = score(Standing.NAIVE, "last_value", QUICK[0].fit(task.history, Graph(), "speed", 2), task)
    assert found[:3] == (Standing.NAIVE, "last_value", len(errors))
    assert found.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-5)
    assert found.mae == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)


def test_all_are_judged_by_the_same_targets() -> None:
    random = np.random.default_rng(5)
    values = speeds(3 * DAY)
    values[random.random(values.shape) < 0.3] = np.nan
    values[2 * DAY - 100 : 2 * DAY + 100, 0] = np.nan
    task = held(history_of(values))
    past = task.history.until(task.test_from)
    found = [score(Standing.CANDIDATE, each.name, each.fit(past, Graph(), "speed", HORIZONS), task) for each in QUICK]
    assert len({each.targets for each in found}) == 1
    assert np.isfinite([each.rmse for each in found]).all()


@dataclass
class Silent:
    """Forecasts nothing of one sensor, and all others perfectly."""

    history: History

    def forecast(self, state: History) -> Forecast:
        known = (state.end_ms - START_MS) // INTERVAL_MS
        median = self.history.of("speed")[known : known + HORIZONS].T.copy()
        median[0] = np.nan
        return Forecast(median)

    def parts(self) -> Parts:
        return {}


def test_who_leaves_a_target_without_a_forecast_does_not_win() -> None:
    task = held(history_of(speeds(2 * DAY)))
    silent = score(Standing.CANDIDATE, "silent", Silent(task.history), task)
    assert np.isnan(silent.rmse)
    bad = Score(Standing.CANDIDATE, "bad", silent.targets, 30.0, 20.0)
    naive = Score(Standing.NAIVE, "profile", silent.targets, 10.0, 8.0)
    verdict = Verdict([naive, silent, bad], 0, 1)
    assert verdict.winner is bad
    alone = Verdict([naive, silent], 0, 1)
    assert (alone.deserves, alone.reason) == (False, "no candidate could be judged")
    assert set(alone.metrics) == {"targets", "profile_rmse"}


def verdict_of(winner: float, naive: float, champion: float | None, undecided: str = "") -> Verdict:
    scores = [
        Score(Standing.NAIVE, "last_value", 9, naive + 1, 1.0),
        Score(Standing.NAIVE, "profile", 9, naive, 1.0),
        Score(Standing.CANDIDATE, "worse", 9, winner + 1, 1.0),
        Score(Standing.CANDIDATE, "blend", 9, winner, 1.0),
    ]
    if champion is not None:
        scores.append(Score(Standing.CHAMPION, "blend", 9, champion, 1.0))
    return Verdict(scores, 0, 1, undecided)


@pytest.mark.parametrize(
    ("winner", "naive", "champion", "deserves", "reason"),
    [
        (9.8, 10.0, None, True, "RMSE 9.800 mph, 2.0% below profile's 10.000"),
        (9.95, 10.0, None, False, "RMSE 9.950 mph, 0.5% below profile's 10.000; at least 1% below is asked"),
        (10.5, 10.0, None, False, "RMSE 10.500 mph, 5.0% above profile's 10.000; at least 1% below is asked"),
        (9.0, 10.0, 9.5, True, "RMSE 9.000 mph, 10.0% below profile's 10.000 and 5.3% below the champion's 9.500"),
        (9.0, 10.0, 9.05, False, "0.6% below the champion's 9.050; at least 1% below is asked"),
        (9.0, 8.0, 9.5, False, "12.5% above profile's 8.000"),
        (9.0, 10.0, nan, True, "below the champion's nan"),
        (0.0, 0.0, None, False, "0.0% below profile's 0.000; at least 1% below is asked"),
        (0.1, 0.0, None, False, "above profile's 0.000"),
    ],
)
def test_who_serves_beats_the_naive_ones_and_the_champion_by_a_margin(
    winner: float, naive: float, champion: float | None, deserves: bool, reason: str
) -> None:
    verdict = verdict_of(winner, naive, champion)
    assert (verdict.winner.forecaster, verdict.naive.forecaster) == ("blend", "profile")
    assert verdict.deserves is deserves
    assert reason in verdict.reason
    assert all(abs(value) < inf for value in verdict.metrics.values())


def test_nobody_takes_the_place_of_a_champion_that_could_not_be_judged() -> None:
    verdict = verdict_of(1.0, 10.0, None, "too few days")
    assert (verdict.deserves, verdict.reason) == (False, "too few days")


def test_metrics_tell_everyones_error() -> None:
    assert verdict_of(9.0, 10.0, 9.5).metrics == {
        "targets": 9.0, "rmse": 9.0, "mae": 1.0, "skill": pytest.approx(0.1), "last_value_rmse": 11.0,
        "profile_rmse": 10.0, "worse_rmse": 10.0, "blend_rmse": 9.0, "champion_rmse": 9.5,
    }  # fmt: skip


def test_waves_are_what_an_autoregression_is_better_at() -> None:
    """What other tests build on."""
    task = held(history_of(speeds(4 * DAY)))
    past = task.history.until(task.test_from)
    errors = [
        score(Standing.CANDIDATE, each.name, each.fit(past, Graph(), "speed", HORIZONS), task).rmse
        for each in (*QUICK[:2], GraphAutoregression())
    ]
    assert errors[2] < 0.9 * min(errors[:2])
