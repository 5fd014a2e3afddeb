"""Scoring: issued forecasts beside what came true, and the sums of their errors by group.

Everything is computed from values rounded to `DECIMALS`, as they are exported, so that whoever computes a sum again
from the exported rows gets the same one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.forecaster import PROBABILITIES
from roadcast.forecasting.metrics import MAPE_FLOOR_MPH

SERVED = "served"
"""The name under which the published forecast is scored, beside every forecaster's own."""
TENTHS = 10
"""Into how many bins the reliability of `confidence` is counted."""
DECIMALS = 4
"""Of every speed that is scored or exported; the readings' own."""
POINT = ("n", "absolute", "square", "error", "relative_n", "relative")
"""What is summed of a forecaster's values.

`relative` sums errors as shares of the speed, over the `relative_n` of `n` whose speed is not nearly zero.
"""
INTERVAL = ("interval_n", "covered_80", "covered_90", "width_80", "width_90", "winkler_80", "winkler_90")
"""What is summed of the intervals of the published forecast."""
RELIABILITY = ("confidence_n", "confidence_sum", "within_n")
"""What is summed per tenth of `confidence`: how many, their confidence, and how many erred within tolerance."""
MEASURES = (*POINT, *INTERVAL)
_EDGES = {0.2: (0.10, 0.90), 0.1: (0.05, 0.95)}
"""The quantiles that an interval lies between, by the share that it promises to miss."""


@dataclass(frozen=True, slots=True)
class Issues:
    """Several issues as rows, one per issue and sensor [n], with arrays over the horizons [n, H]; NaN where unknown.

    model_no: who made the published forecast; quantiles: [n, H, Q]; candidates: of each forecaster its median.
    """

    issued_ms: NDArray[np.int64]
    sensor_no: NDArray[np.int32]
    model_no: NDArray[np.int32]
    speed: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    candidates: Mapping[str, NDArray[np.float32]]

    @property
    def horizons(self) -> int:
        """How many ticks ahead they reach."""
        return self.speed.shape[1]

    def at(self, rows: NDArray[np.bool_]) -> "Issues":
        """Some of the rows [n]."""
        plain = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "candidates"}
        return Issues(**plain, candidates={name: median[rows] for name, median in self.candidates.items()})


@dataclass(frozen=True, slots=True)
class Truth:
    """What came true at the ticks that end at `ends_ms` [T] at the sensors `sensor_no` [S], both ascending.

    speed, reference: [T, S], NaN where unknown, the reference speeds being those of that time.
    """

    ends_ms: NDArray[np.int64]
    sensor_no: NDArray[np.int32]
    speed: NDArray[np.float32]
    reference: NDArray[np.float32]

    def at(self, ticks: NDArray[np.bool_]) -> "Truth":
        """That of some ticks [T]."""
        return Truth(self.ends_ms[ticks], self.sensor_no, self.speed[ticks], self.reference[ticks])

    def where(self, cells: NDArray[np.bool_]) -> "Truth":
        """That of some cells [T, S]; nothing came true elsewhere."""
        return replace(self, speed=np.where(cells, self.speed, np.nan))

    def places(self, ends_ms: NDArray[np.int64], sensor_no: NDArray[np.int32]) -> tuple[NDArray[np.intp], ...]:
        """Which tick and which sensor is meant, each -1 where it is not among these; of any shape."""
        return _place(ends_ms, self.ends_ms), _place(sensor_no, self.sensor_no)


def _place(wanted: NDArray[np.integer], among: NDArray[np.integer]) -> NDArray[np.intp]:
    at = np.minimum(np.searchsorted(among, wanted), max(len(among) - 1, 0))
    return np.where(among[at] == wanted, at, -1) if len(among) else np.full(wanted.shape, -1, np.intp)


class Targets(NamedTuple):
    """Forecasts whose target was measured, one by one [n].

    row, step: which forecast among the issues; tick: which tick of the truth; actual, reference: what came true.
    """

    row: NDArray[np.intp]
    step: NDArray[np.intp]
    tick: NDArray[np.intp]
    actual: NDArray[np.float64]
    reference: NDArray[np.float64]


class Sums(NamedTuple):
    """Sums by group: measures [G, MEASURES], tenths [G, RELIABILITY, TENTHS]; zero where nothing is to be summed."""

    measures: NDArray[np.float64]
    tenths: NDArray[np.float64]


def exact(values: NDArray[np.floating], factor: float = 1.0) -> NDArray[np.float64]:
    """Values, times a factor, as they are exported: the number whose decimals one reads is the one that is meant."""
    return np.round(values.astype(np.float64) * factor, DECIMALS)


def match(issues: Issues, truth: Truth, interval_ms: int) -> Targets:
    """The forecasts whose target is among the ticks of `truth` and was measured: a missing reading is no truth."""
    issued, which = np.unique(issues.issued_ms, return_inverse=True)
    targets = issued[:, None] + interval_ms * np.arange(1, issues.horizons + 1)
    ticks, sensors = truth.places(targets, issues.sensor_no)
    row, step = np.nonzero((ticks[which] >= 0) & (sensors >= 0)[:, None])
    tick, sensor = ticks[which[row], step], sensors[row]
    actual = exact(truth.speed[tick, sensor])
    reference = exact(truth.reference[tick, sensor])
    measured = ~np.isnan(actual)
    return Targets(row[measured], step[measured], tick[measured], actual[measured], reference[measured])


def candidate_sums(
    median: NDArray[np.float32], targets: Targets, group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """The sums [groups, POINT] of a forecaster's medians [n, H], each target counted in its `group` [n]."""
    return point_sums(exact(median[targets.row, targets.step]), targets.actual, group, groups)


def served_sums(issues: Issues, targets: Targets, group: NDArray[np.int64], groups: int) -> Sums:
    """The sums of what was published, each target counted in its `group` [n]."""
    at = (targets.row, targets.step)
    speed, quantiles = exact(issues.speed[at]), exact(issues.quantiles[at])
    within = np.abs(speed - targets.actual) <= exact(issues.tolerance[at])
    measures = [
        point_sums(speed, targets.actual, group, groups),
        interval_sums(quantiles, targets.actual, group, groups),
    ]
    return Sums(np.concatenate(measures, axis=1), reliability_sums(exact(issues.confidence[at]), within, group, groups))


def point_sums(
    forecast: NDArray[np.float64], actual: NDArray[np.float64], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """The sums [groups, POINT] of forecasts [n] of what came true, which is known [n]."""
    known = ~np.isnan(forecast)
    error = np.where(known, forecast - actual, 0)
    moving = known & (actual >= MAPE_FLOOR_MPH)
    absolute = np.abs(error)
    share = np.where(moving, absolute / np.maximum(actual, MAPE_FLOOR_MPH), 0)
    return _summed([known, absolute, error**2, error, moving, share], group, groups)


def interval_sums(
    quantiles: NDArray[np.float64], actual: NDArray[np.float64], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """The sums [groups, INTERVAL] of quantiles [n, Q], over the targets for which every edge is known."""
    edges = [[quantiles[:, PROBABILITIES.index(p)] for p in pair] for pair in _EDGES.values()]
    known = ~np.isnan(sum(low + high for low, high in edges))
    covered = [known & (low <= actual) & (actual <= high) for low, high in edges]
    widths = [np.where(known, high - low, 0) for low, high in edges]
    missed = [np.maximum(low - actual, 0) + np.maximum(actual - high, 0) for low, high in edges]
    scored = zip(widths, missed, _EDGES, strict=True)
    winkler = [np.where(known, wide + 2 / outside * miss, 0) for wide, miss, outside in scored]
    return _summed([known, *covered, *widths, *winkler], group, groups)


def reliability_sums(
    said: NDArray[np.float64], within: NDArray[np.bool_], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """The sums [groups, RELIABILITY, TENTHS] of confidences [n], and of whether errors were within tolerance."""
    known = ~np.isnan(said)
    tenth = np.minimum((said[known] * TENTHS).astype(np.int64), TENTHS - 1)
    cells = _summed([np.ones(len(tenth)), said[known], within[known]], group[known] * TENTHS + tenth, groups * TENTHS)
    return cells.reshape(groups, TENTHS, len(RELIABILITY)).swapaxes(1, 2)


def _summed(
    columns: list[NDArray[np.float64] | NDArray[np.bool_]], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    return np.stack([np.bincount(group, column, groups).astype(np.float64) for column in columns], axis=1)
