"""Training: forecasters are judged on days that none of them has learnt from, before one is trained on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isfinite, isnan, nan
from typing import NamedTuple

import numpy as np

from roadcast.domain.times import DAY_MS
from roadcast.errors import RoadcastError
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import Task, following
from roadcast.forecasting.forecaster import Fitted
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, History, last_observed

LEAST_DAYS = 2
"""With less history there is nothing to be learnt that would hold on another day."""
HELD_OUT_SHARE = 0.2
LEAST_DAYS_HELD_OUT, MOST_DAYS_HELD_OUT = 1, 7
"""A whole day, because jams come at hours of their own; a week holds every kind of day."""
LEEWAY_DAYS = 1 / 24
"""Yesterday's training may have been a little later in the day, or the day an hour shorter."""
MARGIN = 0.01
"""By this share of its RMSE another must be beaten: forecasters that are equally good differ by as much by chance."""
LEAST_ISSUES, MOST_ISSUES = 100, 500
MOST_JUDGED = 1_000_000
"""Issues times sensors, where that leaves as many issues as are needed."""


class TooLittleHistory(RoadcastError):
    """There is not enough history to learn from and to judge by."""


REMEDY = "Import some history, or wait for readings."


class Standing(StrEnum):
    """As what somebody is judged."""

    NAIVE = "naive"
    CANDIDATE = "candidate"
    CHAMPION = "champion"


class Score(NamedTuple):
    """The errors of speed of one forecaster, in mph, over all targets; NaN where it left one without a forecast."""

    standing: Standing
    forecaster: str
    targets: int
    rmse: float
    mae: float


def hold_out(history: History, graph: Graph, horizons: int, tolerance: Tolerance) -> Task:
    """The last part of a history as the test; of the ticks before the first speed nothing is kept.

    Raises:
        TooLittleHistory: less than LEAST_DAYS, or nothing to judge by.
    """
    heard = np.flatnonzero(~np.isnan(history.of(SPEED)).all(axis=1))
    if not len(heard):
        raise TooLittleHistory("No speed is stored.", remedy=REMEDY)
    history = history.last(len(history) - int(heard[0]))
    days = _days(history, len(history))
    if days < LEAST_DAYS:
        stored = f"{np.floor(days * 10) / 10:.1f} days of speeds are stored"
        needed = f"at least {LEAST_DAYS} are needed, one to learn from and one to judge by"
        raise TooLittleHistory(f"{stored}: {needed}.", remedy=REMEDY)
    held_out = float(np.clip(days * HELD_OUT_SHARE, LEAST_DAYS_HELD_OUT, MOST_DAYS_HELD_OUT))
    first = len(history) - int(held_out * DAY_MS / history.interval_ms)
    if np.isnan(history.of(SPEED)[first:]).all():
        raise TooLittleHistory(f"No speed is stored of the last {held_out:.1f} days, by which to judge.", remedy=REMEDY)
    return Task(history, graph, SPEED, horizons, first, tolerance)


def after(task: Task, learnt_ms: int) -> Task | None:
    """The test for one who has learnt up to a time; None where less than LEAST_DAYS_HELD_OUT is left of it."""
    history = task.history
    known = len(history) - (history.end_ms - learnt_ms) // history.interval_ms
    first = max(task.test_from, known)
    enough = _days(history, len(history) - first) >= LEAST_DAYS_HELD_OUT - LEEWAY_DAYS
    return replace(task, test_from=first) if enough else None


def score(standing: Standing, forecaster: str, fitted: Fitted, task: Task) -> Score:
    """Before any calibration, by the targets of all sensors that are heard in the state: the same for everyone."""
    sums = np.zeros(3)
    for known in _issues(task):
        state = task.history.until(known).last(STATE_TICKS)
        truth = following(task.history.of(task.target)[known:], task.horizons)
        _, age = last_observed(state.of(task.target))
        counts = ~np.isnan(truth) & (age < STATE_TICKS)[:, None]
        error = (fitted.forecast(state).point - truth)[counts].astype(np.float64)
        sums += len(error), np.square(error).sum(), np.abs(error).sum()
    targets, squares, sizes = sums.tolist()
    rmse, mae = (float(np.sqrt(squares / targets)), sizes / targets) if targets else (nan, nan)
    return Score(standing, forecaster, int(targets), rmse, mae)


def _issues(task: Task) -> list[int]:
    """How many ticks are known at each issue: evenly spaced, and all their targets in the test."""
    most = int(np.clip(MOST_JUDGED // max(task.history.sensors, 1), LEAST_ISSUES, MOST_ISSUES))
    last = len(task.history) - task.horizons
    return np.unique(np.linspace(task.test_from, last, most).astype(np.int64)).tolist()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a test found, of targets from `start_ms` to `end_ms`.

    undecided: why the champion was not in it, and then nobody takes its place.
    """

    scores: Sequence[Score]
    start_ms: int
    end_ms: int
    undecided: str = ""

    @property
    def winner(self) -> Score:
        """The candidate with the least RMSE."""
        return self._best(Standing.CANDIDATE)

    @property
    def naive(self) -> Score:
        """The best of those that every other must beat."""
        return self._best(Standing.NAIVE)

    @property
    def champion(self) -> Score | None:
        """Who served so far."""
        return next((score for score in self.scores if score.standing is Standing.CHAMPION), None)

    @property
    def deserves(self) -> bool:
        """Whether the winner should serve: it beats the champion and the naive ones, each by MARGIN."""
        return not self.undecided and all(gain(self.winner, other) >= MARGIN for other in self._others)

    @property
    def reason(self) -> str:
        """Why it does, or does not."""
        if self.undecided:
            return self.undecided
        if isnan(self.winner.rmse):
            return "no candidate could be judged"
        compared = " and ".join(_compared(self.winner, other) for other in self._others)
        asked = "" if self.deserves else f"; at least {MARGIN:.0%} below is asked"
        return f"RMSE {self.winner.rmse:.3f} mph, {compared}{asked}"

    @property
    def metrics(self) -> dict[str, float]:
        """By name: the winner's errors, how many targets, skill against the best naive one, and everyone's RMSE."""
        winner = self.winner
        found = {"targets": float(winner.targets), "rmse": winner.rmse, "mae": winner.mae}
        found["skill"] = gain(winner, self.naive)
        for score in self.scores:
            champion = score.standing is Standing.CHAMPION
            found["champion_rmse" if champion else f"{score.forecaster}_rmse"] = score.rmse
        return {name: value for name, value in found.items() if isfinite(value)}

    @property
    def _others(self) -> list[Score]:
        return [self.naive, *([self.champion] if self.champion else [])]

    def _best(self, standing: Standing) -> Score:
        found = [score for score in self.scores if score.standing is standing]
        return min(found, key=lambda score: inf if isnan(score.rmse) else score.rmse)


def gain(score: Score, other: Score) -> float:
    """By which share of the other's RMSE it errs less."""
    return gain_of(score.rmse, other.rmse)


def gain_of(rmse: float, other: float) -> float:
    """By which share of `other` a RMSE is less; NaN where there is none, and 0 where neither errs."""
    if isnan(other) and not isnan(rmse):
        return 1.0
    if other == 0:
        return 0.0 if rmse == 0 else -inf
    return 1 - rmse / other


def _compared(score: Score, other: Score) -> str:
    name = "the champion" if other.standing is Standing.CHAMPION else other.forecaster
    share = gain(score, other)
    return f"{abs(share):.1%} {'below' if share >= 0 else 'above'} {name}'s {other.rmse:.3f}"


def _days(history: History, ticks: int) -> float:
    return ticks * history.interval_ms / DAY_MS
