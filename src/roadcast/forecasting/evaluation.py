"""Evaluation: what a forecaster's forecasts are worth on ticks that it did not learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.calibration import Calibration, Strata, stratify
from roadcast.forecasting.error_history import MEDIAN, PROBABILITIES
from roadcast.forecasting.forecaster import Fitted, Forecast, Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History, last_observed
from roadcast.forecasting.metrics import MAPE_FLOOR_MPH

REHEARSED_SHARE = 0.2
"""The last share of what may be learnt from, on which calibration begins and the forecaster to serve is chosen."""
REFERENCE_PERCENTILE = 85
TENTHS = 10
LAPLACE = np.array([np.sign(p - 0.5) * -np.log(2 * min(p, 1 - p)) for p in PROBABILITIES])
"""Quantiles of a Laplace distribution with mean absolute deviation 1, for forecasters that have none of their own."""
FIRST_ERROR = 5.0
"""The mean absolute error, in the target's unit, that such a forecaster is thought to make before it has made any."""


class Tolerance(NamedTuple):
    """A forecast is right when it errs by at most the larger of an absolute tolerance and a share of it."""

    absolute: float
    share: float

    def of(self, median: NDArray[np.float32]) -> NDArray[np.float32]:
        """For each median."""
        return np.maximum(self.absolute, self.share * median).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Task:
    """What is forecast, and which ticks may be learnt from: the first `test_from`."""

    history: History
    graph: Graph
    target: str
    horizons: int
    test_from: int
    tolerance: Tolerance


class Issued(NamedTuple):
    """One issue as it would have been served, with what came true: arrays over sensors S and horizons H.

    known: how many ticks were known; quantiles: [S, H, Q]; confidence, tolerance, truth: [S, H].
    """

    known: int
    quantiles: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]
    truth: NDArray[np.float32]


@dataclass(slots=True)
class Judge:
    """Gives a forecaster's forecasts quantiles and confidence, and learns from what became of earlier ones."""

    task: Task
    reference: NDArray[np.float32]
    calibration: Calibration
    _error: NDArray[np.float64] = field(init=False)
    _pending: list[tuple[int, Forecast, NDArray[np.float32], NDArray[np.float32], Strata]] = field(init=False)

    def __post_init__(self) -> None:
        self._error = np.full(self.task.horizons, FIRST_ERROR)
        self._pending = []

    def issue(self, fitted: Fitted, known: int) -> Issued:
        """The issue after `known` ticks."""
        self._learn(known)
        state = self.task.history.until(known).last(STATE_TICKS)
        forecast = fitted.forecast(state)
        _, age = last_observed(state.of(self.task.target))
        strata = stratify(forecast.median, self.reference, age)
        quantiles = self.calibration.quantiles(self._raw(forecast), strata)
        tolerance = self.task.tolerance.of(quantiles[..., MEDIAN])
        confidence = self.calibration.confidence(quantiles, tolerance)
        self._pending.append((known, forecast, quantiles, tolerance, strata))
        return Issued(known, quantiles, confidence, tolerance, self._truth(known))

    def _raw(self, forecast: Forecast) -> NDArray[np.float32]:
        if forecast.quantiles is not None:
            return forecast.quantiles
        spread = self._error[:, None] * LAPLACE
        return np.maximum(forecast.median[..., None] + spread, 0).astype(np.float32)

    def _learn(self, known: int) -> None:
        """Take in the tick that has become known since the last issue, for every earlier issue that spoke of it."""
        self.calibration.fade()
        observed = self.task.history.of(self.task.target)
        for at, forecast, quantiles, tolerance, strata in self._pending:
            horizon = known - at - 1
            truth = observed[known - 1]
            self.calibration.learn(quantiles[:, horizon], tolerance[:, horizon], strata.at_horizon(horizon), truth)
            errors = np.abs(truth - forecast.median[:, horizon])
            if not np.isnan(errors).all():
                self._error[horizon] += 0.01 * (np.nanmean(errors) - self._error[horizon])
        self._pending = [pending for pending in self._pending if known - pending[0] < self.task.horizons]

    def _truth(self, known: int) -> NDArray[np.float32]:
        """What came true [S, H]; NaN past the end."""
        observed = self.task.history.of(self.task.target)[known : known + self.task.horizons]
        truth = np.full((self.task.horizons, self.task.history.sensors), np.nan, np.float32)
        truth[: len(observed)] = observed
        return truth.T


def reference_of(task: Task, ticks: int) -> NDArray[np.float32]:
    """The values [S] that are seldom exceeded in the first ticks; NaN where nothing is known."""
    seen = task.history.of(task.target)[:ticks]
    reference = np.full(seen.shape[1], np.nan, np.float32)
    heard = ~np.isnan(seen).all(axis=0)
    reference[heard] = np.nanpercentile(seen[:, heard], REFERENCE_PERCENTILE, axis=0)
    return reference


def rehearse(forecaster: Forecaster, task: Task) -> tuple[Calibration, float]:
    """What is learnt of a forecaster before the test: its calibration, and its root mean square error.

    It is fitted on the first part of what may be learnt from, and forecasts the rest; NaN where that is nothing.
    """
    split = int(task.test_from * (1 - REHEARSED_SHARE))
    fitted = forecaster.fit(task.history.until(split), task.graph, task.target, task.horizons)
    learnt = Task(task.history.until(task.test_from), task.graph, task.target, task.horizons, split, task.tolerance)
    judge = Judge(learnt, reference_of(task, split), Calibration.empty(task.horizons))
    squares, count = 0.0, 0
    for known in range(split, task.test_from):
        issued = judge.issue(fitted, known)
        errors = issued.truth - issued.quantiles[..., MEDIAN]
        squares += float(np.nansum(errors**2, dtype=np.float64))
        count += int((~np.isnan(errors)).sum())
    return judge.calibration, float(np.sqrt(squares / count)) if count else float("nan")


def issues(fitted: Fitted, task: Task, calibration: Calibration, ticks: Sequence[int]) -> Iterator[Issued]:
    """Every issue of the test at successive `ticks`, each known when it was made by what was true before."""
    judge = Judge(task, reference_of(task, task.test_from), calibration)
    for known in ticks:
        yield judge.issue(fitted, known)


@dataclass(slots=True)
class Tally:
    """Sums over issues, by horizon [H, …], so that a long test needs no memory of its forecasts.

    coverage and Winkler: [H, 2] of the 80 % and the 90 % interval; reliability: [H, TENTHS, 3] how many, their
    confidence, and hits; by_sensor: [S, H, 2] how many, and absolute errors; over_time: [(known, covered, count)] of
    the 80 % interval.
    """

    horizons: int
    sensors: int
    count: NDArray[np.float64] = field(init=False)
    sums: NDArray[np.float64] = field(init=False)
    inside: NDArray[np.float64] = field(init=False)
    winkler: NDArray[np.float64] = field(init=False)
    reliability: NDArray[np.float64] = field(init=False)
    by_sensor: NDArray[np.float64] = field(init=False)
    over_time: list[tuple[int, int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.count = np.zeros(self.horizons)
        self.sums = np.zeros((self.horizons, 5))
        self.inside = np.zeros((self.horizons, 2))
        self.winkler = np.zeros((self.horizons, 2))
        self.reliability = np.zeros((self.horizons, TENTHS, 3))
        self.by_sensor = np.zeros((self.sensors, self.horizons, 2))
        self.over_time = []

    def add(self, issued: Issued) -> None:
        """Count one issue."""
        median, truth = issued.quantiles[..., MEDIAN].astype(np.float64), issued.truth.astype(np.float64)
        known = ~np.isnan(median) & ~np.isnan(truth)
        error = np.where(known, median - truth, 0)
        relative = known & (truth >= MAPE_FLOOR_MPH)
        share = np.where(relative, np.abs(error) / np.where(relative, truth, 1), 0)
        self.count += known.sum(axis=0)
        for column, values in enumerate((np.abs(error), error**2, error, relative, share)):
            self.sums[:, column] += values.sum(axis=0)
        self._add_intervals(issued, truth, known)
        self._add_confidence(issued, np.abs(error) <= issued.tolerance, known)
        self.by_sensor += np.stack([known, np.abs(error)], axis=-1)

    def _add_intervals(self, issued: Issued, truth: NDArray[np.float64], known: NDArray[np.bool_]) -> None:
        for column, edge in enumerate((1, 0)):
            low = np.where(known, issued.quantiles[..., edge], 0)
            high = np.where(known, issued.quantiles[..., -1 - edge], 0)
            under, over = np.maximum(low - truth, 0), np.maximum(truth - high, 0)
            within = known & (under + over == 0)
            score = high - low + np.where(known, under + over, 0) / PROBABILITIES[edge]
            self.inside[:, column] += within.sum(axis=0)
            self.winkler[:, column] += np.where(known, score, 0).sum(axis=0)
            if column == 0:
                self.over_time.append((issued.known, int(within.sum()), int(known.sum())))

    def _add_confidence(self, issued: Issued, hit: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
        for horizon in range(self.horizons):
            said = issued.confidence[known[:, horizon], horizon].astype(np.float64)
            tenth = np.minimum((said * TENTHS).astype(np.int64), TENTHS - 1)
            for column, weights in enumerate((np.ones_like(said), said, hit[known[:, horizon], horizon])):
                self.reliability[horizon, :, column] += np.bincount(tenth, weights, TENTHS)


@dataclass(frozen=True, slots=True)
class Measures:
    """What a forecaster's forecasts were worth, in the target's unit; shares where they are shares."""

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


def measures(tally: Tally, horizons: slice) -> Measures:
    """Over some horizons together: one for a step, all up to one for the pooled protocol. NaN where nothing counts."""
    count = tally.count[horizons].sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        absolute, square, error, relative_n, relative = tally.sums[horizons].sum(axis=0)
        inside = tally.inside[horizons].sum(axis=0) / count
        winkler = tally.winkler[horizons].sum(axis=0) / count
        _, said, hits = tally.reliability[horizons].sum(axis=0).T
        return Measures(
            int(count), float(absolute / count), float(np.sqrt(square / count)), float(relative / relative_n),
            float(error / count), *inside.tolist(), *winkler.tolist(), float(np.abs(said - hits).sum() / count),
        )  # fmt: skip
