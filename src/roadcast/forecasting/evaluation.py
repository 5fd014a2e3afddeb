"""Evaluation: what a forecaster's forecasts are worth on ticks that it did not learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.sensor import REFERENCE_PERCENTILE
from roadcast.forecasting.calibration import Calibration, Judged, Tolerance
from roadcast.forecasting.forecaster import PROBABILITIES, Fitted, Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.judge import Judge
from roadcast.forecasting.scoring import (
    INTERVAL,
    MEASURES,
    RELIABILITY,
    TENTHS,
    interval_sums,
    point_sums,
    reliability_sums,
)

REHEARSED_SHARE = 0.2
"""The last share of what may be learnt from, on which calibration begins and the forecaster to serve is chosen."""
REHEARSED_ISSUES = 150
GAPS = (2, 8)
"""Lengths in ticks of the gaps put in."""
EVERY_SENSOR = 3
"""A gap is put into each third sensor, by turns, so that neighbours are still heard."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is forecast, and which ticks may be learnt from: the first `test_from`."""

    history: History
    graph: Graph
    target: str
    horizons: int
    test_from: int
    tolerance: Tolerance

    def past(self) -> "Task":
        """What may be learnt from: its ticks, and the sensors up to the last one that was heard in them."""
        history = self.history.until(self.test_from)
        heard = np.flatnonzero(~np.isnan(history.of(self.target)).all(axis=0))
        if not len(heard) or heard[-1] + 1 == history.sensors:
            return replace(self, history=history)
        return replace(self, history=replace(history, values=history.values[:, : heard[-1] + 1].copy()))


class Issued(NamedTuple):
    """One issue as it would have been served, after `known` ticks, with what came true [S, H]; NaN past the end."""

    known: int
    judged: Judged
    truth: NDArray[np.float32]


def reference_of(task: Task, ticks: int) -> NDArray[np.float32]:
    """The values [S] that are seldom exceeded in the first ticks; NaN where nothing is known."""
    seen = task.history.of(task.target)[:ticks]
    reference = np.full(seen.shape[1], np.nan, np.float32)
    heard = ~np.isnan(seen).all(axis=0)
    reference[heard] = np.nanpercentile(seen[:, heard], REFERENCE_PERCENTILE, axis=0)
    return reference


def rehearse(forecaster: Forecaster, task: Task) -> Calibration:
    """What a forecaster's errors are, as far as they can be known before the test; nothing learnt where that is none.

    It is fitted on the first part of what may be learnt from, and forecasts the rest, from some evenly spaced ticks:
    each as it was and with a gap put in, so that forecasts from old readings have errors to be judged by. Ticks without
    any reading are no part of either.
    """
    task = task.past()
    heard = _heard(task, range(task.test_from))
    split = int(heard[int(len(heard) * (1 - REHEARSED_SHARE))]) if len(heard) else task.test_from
    fitted = forecaster.fit(task.history.until(split), task.graph, task.target, task.horizons)
    return learn_errors(forecaster.name, fitted, task, range(split, task.test_from))


def learn_errors(name: str, fitted: Fitted, task: Task, ticks: range) -> Calibration:
    """What errors a forecaster makes in some ticks; it has learnt from those before. Nothing where there are none."""
    judge = Judge(name, task.target, task.tolerance, reference_of(task, ticks.start), Calibration.empty(task.horizons))
    heard = _heard(task, ticks)
    issued = heard[np.linspace(0, len(heard) - 1, min(len(heard), REHEARSED_ISSUES)).astype(np.int64)]
    for turn, known in enumerate(issued.tolist()):
        judge.calibration.fade(len(heard) * task.history.interval_ms // len(issued))
        truth = following(task.history.of(task.target)[known : ticks.stop], task.horizons)
        for state, counts in _with_gaps(task.history.until(known).last(STATE_TICKS), turn):
            judge.calibration.learn(judge.judge(fitted, state), np.where(counts[:, None], truth, np.float32(np.nan)))
    judge.calibration.rehearsals = 1
    return judge.calibration


def _heard(task: Task, ticks: range) -> NDArray[np.int64]:
    """Those of the ticks at which something was observed."""
    observed = ~np.isnan(task.history.of(task.target)[ticks.start : ticks.stop]).all(axis=1)
    return np.flatnonzero(observed) + ticks.start


def following(observed: NDArray[np.float32], horizons: int) -> NDArray[np.float32]:
    """What came true [S, H]; NaN past the end."""
    truth = np.full((horizons, observed.shape[1]), np.nan, np.float32)
    truth[: len(observed)] = observed[:horizons]
    return truth.T


def _with_gaps(state: History, turn: int) -> Iterator[tuple[History, NDArray[np.bool_]]]:
    """The state as it was and with a gap put in, each with the sensors [S] whose errors count."""
    yield state, np.ones(state.sensors, np.bool_)
    hidden = (np.arange(state.sensors) + turn) % EVERY_SENSOR == 0
    values = state.values.copy()
    values[-GAPS[turn % len(GAPS)] :, hidden] = np.nan
    yield replace(state, values=values), hidden


def judge_of(forecaster: Forecaster, task: Task, learnt: Calibration) -> Judge:
    """The judge of a forecaster that was fitted on all that may be learnt from."""
    return Judge(forecaster.name, task.target, task.tolerance, reference_of(task, task.test_from), learnt)


def issues(fitted: Fitted, judge: Judge, task: Task, ticks: Sequence[int]) -> Iterator[Issued]:
    """Every issue of the test at successive `ticks`, each known when it was made by what was true before."""
    for known in ticks:
        judged = judge.step(fitted, task.history.until(known))
        yield Issued(known, judged, following(task.history.of(task.target)[known:], task.horizons))


class ExampleDay(NamedTuple):
    """A day of the test, told by the targets of one sensor from the tick `first` until `stop`, and why this one."""

    name: str
    sensor: int
    first: int
    stop: int


@dataclass(slots=True)
class Tally:
    """Sums over issues, by horizon [H, …], so that a long test needs no memory of its forecasts.

    sums: [H, MEASURES] and tenths: [H, RELIABILITY, TENTHS] are those of `scoring`; congested: [H, INTERVAL] of the
    forecasts that are of congestion, under `congested_under` [S]; by_sensor: [S, H, 2] how many, and absolute errors;
    over_time: [(known, covered, count)] of the 80 % interval, three numbers an issue. Of forecasts themselves it keeps
    only the fans: for each example day the quantiles [ticks, Q] at the longest horizon, NaN where none was issued.
    """

    horizons: int
    sensors: int
    days: Sequence[ExampleDay] = ()
    congested_under: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    sums: NDArray[np.float64] = field(init=False)
    congested: NDArray[np.float64] = field(init=False)
    tenths: NDArray[np.float64] = field(init=False)
    by_sensor: NDArray[np.float64] = field(init=False)
    over_time: list[tuple[int, int, int]] = field(init=False)
    fans: list[NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.horizons, len(MEASURES)))
        self.congested = np.zeros((self.horizons, len(INTERVAL)))
        self.tenths = np.zeros((self.horizons, len(RELIABILITY), TENTHS))
        self.by_sensor = np.zeros((self.sensors, self.horizons, 2))
        self.over_time = []
        self.fans = [np.full((day.stop - day.first, len(PROBABILITIES)), np.nan, np.float32) for day in self.days]

    def add(self, issued: Issued) -> None:
        """Count one issue."""
        point, truth = issued.judged.point.astype(np.float64), issued.truth.astype(np.float64)
        known = ~np.isnan(point) & ~np.isnan(truth)
        error = np.where(known, np.abs(point - truth), 0)
        self._add_sums(issued, known, error <= issued.judged.tolerance)
        self.by_sensor += np.stack([known, error], axis=-1)
        self._keep_fans(issued)

    def _add_sums(self, issued: Issued, known: NDArray[np.bool_], within: NDArray[np.bool_]) -> None:
        judged, truth = issued.judged, issued.truth[known].astype(np.float64)
        group = np.nonzero(known)[1]
        point = point_sums(judged.point[known].astype(np.float64), truth, group, self.horizons)
        interval = interval_sums(judged.quantiles[known].astype(np.float64), truth, group, self.horizons)
        self.sums += np.concatenate([point, interval], axis=1)
        if len(self.congested_under):
            jam = known & (judged.point < self.congested_under[:, None])
            quantiles, came = judged.quantiles[jam].astype(np.float64), issued.truth[jam].astype(np.float64)
            self.congested += interval_sums(quantiles, came, np.nonzero(jam)[1], self.horizons)
        confidence = judged.confidence[known].astype(np.float64)
        self.tenths += reliability_sums(confidence, within[known], group, self.horizons)
        inside = dict(zip(INTERVAL, interval.sum(axis=0), strict=True))
        self.over_time.append((issued.known, int(inside["covered_80"]), int(inside["interval_n"])))

    def _keep_fans(self, issued: Issued) -> None:
        target = issued.known + self.horizons - 1
        for day, fan in zip(self.days, self.fans, strict=True):
            if day.first <= target < day.stop:
                fan[target - day.first] = issued.judged.quantiles[day.sensor, -1]


@dataclass(frozen=True, slots=True)
class Measures:
    """What a forecaster's forecasts were worth, in the target's unit; shares where they are shares.

    coverage_80_congested, coverage_90_congested: of forecasts of congestion, which is what can be promised: of what
    turned out congested the worst surprises are a part.
    """

    count: int
    mae: float
    rmse: float
    mape: float
    bias: float
    coverage_80: float
    coverage_90: float
    winkler_80: float
    winkler_90: float
    ece: float
    coverage_80_congested: float
    coverage_90_congested: float


def measures(tally: Tally, horizons: slice) -> Measures:
    """Over some horizons together: one for a step, all up to one for the pooled protocol. NaN where nothing counts."""
    summed = dict(zip(MEASURES, tally.sums[horizons].sum(axis=0), strict=True))
    jam = dict(zip(INTERVAL, tally.congested[horizons].sum(axis=0), strict=True))
    told, said, within = tally.tenths[horizons].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Measures(
            count=int(summed["n"]),
            mae=float(summed["absolute"] / summed["n"]),
            rmse=float(np.sqrt(summed["square"] / summed["n"])),
            mape=float(summed["relative"] / summed["relative_n"]),
            bias=float(summed["error"] / summed["n"]),
            coverage_80=float(summed["covered_80"] / summed["interval_n"]),
            coverage_90=float(summed["covered_90"] / summed["interval_n"]),
            winkler_80=float(summed["winkler_80"] / summed["interval_n"]),
            winkler_90=float(summed["winkler_90"] / summed["interval_n"]),
            ece=float(np.abs(said - within).sum() / told.sum()),
            coverage_80_congested=float(jam["covered_80"] / jam["interval_n"]),
            coverage_90_congested=float(jam["covered_90"] / jam["interval_n"]),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one forecaster. rehearsed: its RMSE before the test, by which the one to serve is chosen."""

    forecaster: str
    rehearsed: float
    tally: Tally
    train_cpu_s: float
    peak_mb: float
