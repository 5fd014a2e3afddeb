"""Calibration: quantiles and confidence that keep their word, corrected by errors as they become known.

A forecaster that has no quantiles of its own is given those of a Laplace distribution as wide as its past errors. Each
forecast quantile is then shifted by an offset, one for each horizon and stratum, in units of the forecast's 80 % width.
When targets come true the offset moves by a step toward the share that the quantile promised to hold (quantile
tracking: Gibbs & Candès 2021, Angelopoulos, Candès & Tibshirani 2023), so that the promise is kept over time whatever
changes. Confidence is read from the shifted quantiles, and made honest by what became of earlier confidence.

Strata are how old the last reading was and how congested the forecast is: both decide how wide errors spread.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, TRIMEAN, Forecast

CONGESTION_CUTS = (0.35, 0.50, 0.65, 0.80, 0.88, 0.94, 1.00)
"""Ratios of forecast to reference between levels of congestion."""
AGE_CUTS = (1, 4)
"""Ages in ticks of the last reading at which a stratum begins: fresh, up to three ticks, older."""
LEAST_ERRORS = 30.0
"""A horizon with fewer errors than this promises nothing, unless the forecaster does so itself."""
PRIOR_ERRORS = 30.0
"""The errors of a stratum are joined by so many of its level's at all ages, and these by so many of its horizon's."""
AGREED = 300.0
"""Targets move a quantile as if so many had agreed with it before."""
STEP = 0.03
"""How far an offset moves at least, in widths, when all of many targets lay on one side."""
MANY = 50.0
"""With fewer targets it moves by their share of so many."""
LEAST_WIDTH = 0.5
"""Widths are taken to be at least this, in the target's unit, so that what never erred can be corrected."""
CONFIDENCE_CUTS = (*(i / 20 for i in range(1, 20)), 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
"""Between bins of confidence: fine where a quiet road's forecasts lie, of which one in hundreds or thousands errs."""
BINS = len(CONFIDENCE_CUTS) + 1
PRIOR_HITS = 50.0
"""A bin's own hits are joined by so many that keep its promise."""
LEAST_DOUBT = 1e-5
"""No more is said to be certain."""
HALF_LIFE_MS = 5 * DAY_MS
"""An error or a hit this old counts half."""

_PROBABILITIES = np.array(PROBABILITIES)
_LAPLACE = np.sign(_PROBABILITIES - 0.5) * -np.log(2 * np.minimum(_PROBABILITIES, 1 - _PROBABILITIES))
"""The quantiles of errors whose mean size is 1."""
_PER_SHARE = 1 / (2 * np.log(5) * np.minimum(_PROBABILITIES, 1 - _PROBABILITIES))
"""How many 80 % widths a Laplace distribution's quantile moves for each share of targets that it holds too much."""
_INNER, _OUTER = 1, -2
"""The quantiles between which the 80 % width lies."""


class Tolerance(NamedTuple):
    """A forecast is right when it errs by at most the larger of an absolute tolerance and a share of it."""

    absolute: float
    share: float

    def of(self, point: NDArray[np.float32]) -> NDArray[np.float32]:
        """For each point forecast."""
        return np.maximum(self.absolute, self.share * point).astype(np.float32)


class Strata(NamedTuple):
    """Where forecasts belong, arrays of one shape: their horizon, age of the last reading and level of congestion."""

    horizon: NDArray[np.int64]
    age: NDArray[np.int64]
    level: NDArray[np.int64]

    def at(self, index: NDArray[np.bool_]) -> "Strata":
        """Those of some forecasts."""
        return Strata(*(part[index] for part in self))


def stratify(median: NDArray[np.float32], reference: NDArray[np.float32], age_ticks: NDArray[np.int64]) -> Strata:
    """Strata of medians [S, H] with references [S], such as the speed of free flow, and ages [S].

    A forecast without a reference counts as congested: errors are largest there.
    """
    ratio = median / np.where(reference > 0, reference, np.nan)[:, None]
    level = np.digitize(np.nan_to_num(ratio), CONGESTION_CUTS)
    horizons: int = median.shape[1]
    horizon = np.broadcast_to(np.arange(horizons), level.shape)
    age = np.broadcast_to(np.digitize(age_ticks, AGE_CUTS)[:, None], level.shape)
    return Strata(horizon, age, level)


class Judged(NamedTuple):
    """Forecasts with their word, arrays of one shape; quantiles have one axis more. NaN is unknown.

    median is the forecaster's own; point is what is served; said is what the quantiles say of the probability that the
    target lies within the tolerance, and confidence what became of what was said.
    """

    strata: Strata
    median: NDArray[np.float32]
    point: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    said: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]


@dataclass(slots=True)
class Calibration:
    """What is known of a forecaster's errors, which is all its state.

    offsets: [H, ages, levels, Q] in widths; errors: [H, ages, levels, 2] how many of the median, and their sizes;
    squares: [H, 2] how many of the point, and their squares; kept: [3, BINS] how often confidence was said, its sum,
    and hits; rehearsals: whether it began with one.
    """

    offsets: NDArray[np.float64]
    errors: NDArray[np.float64]
    squares: NDArray[np.float64]
    kept: NDArray[np.float64]
    rehearsals: int = 0

    @classmethod
    def empty(cls, horizons: int) -> Self:
        """Nothing learnt: quantiles are believed, and what has none promises nothing."""
        strata = (horizons, len(AGE_CUTS) + 1, len(CONGESTION_CUTS) + 1)
        offsets, errors = np.zeros((*strata, len(PROBABILITIES))), np.zeros((*strata, 2))
        return cls(offsets, errors, np.zeros((horizons, 2)), np.zeros((3, BINS)))

    def fits(self, horizons: int) -> bool:
        """Whether it is of forecasts with so many horizons, and of this release's strata and quantiles."""
        other = Calibration.empty(horizons)
        mine, theirs = ((each.offsets, each.errors, each.squares, each.kept) for each in (self, other))
        return all(one.shape == another.shape for one, another in zip(mine, theirs, strict=True))

    def judge(self, forecast: Forecast, strata: Strata, tolerance: Tolerance, *, literal: bool = False) -> Judged:
        """A forecast [S, H] with what is known of errors like its own; `literal` leaves its point as it is."""
        quantiles = self.quantiles(forecast, strata)
        point = forecast.point if literal else served_point(forecast, quantiles)
        limits = tolerance.of(point)
        said = probability_within(quantiles, point, limits)
        return Judged(strata, forecast.median, point, quantiles, said, self._honest(said), limits)

    def quantiles(self, forecast: Forecast, strata: Strata) -> NDArray[np.float32]:
        """Quantiles [S, H, Q] that keep their word; ordered, at least 0."""
        raw = forecast.quantiles
        if raw is None:
            raw = forecast.median[..., None] + self.mean_errors()[tuple(strata)][..., None] * _LAPLACE
        shifted = raw + self.offsets[tuple(strata)] * width(raw)[..., None]
        return np.maximum(in_order(shifted), 0).astype(np.float32)

    def mean_errors(self) -> NDArray[np.float64]:
        """The mean size [H, ages, levels] of the median's errors; NaN where a horizon has too few."""
        total = self.errors.sum(axis=(1, 2), keepdims=True)
        mean = np.where(total[..., 0] >= LEAST_ERRORS, total[..., 1] / np.maximum(total[..., 0], 1), np.nan)
        for sums in (self.errors.sum(axis=1, keepdims=True), self.errors):
            mean = (sums[..., 1] + PRIOR_ERRORS * mean) / (sums[..., 0] + PRIOR_ERRORS)
        return mean

    def rmse(self) -> float:
        """The root mean square error of the point, over all horizons that have enough errors; NaN where none has."""
        known = self.squares[self.squares[:, 0] >= LEAST_ERRORS]
        return float(np.sqrt(known[:, 1] / known[:, 0]).mean()) if len(known) else float("nan")

    def fade(self, elapsed_ms: int) -> None:
        """Time has passed: what was learnt counts a little less."""
        share = 0.5 ** (elapsed_ms / HALF_LIFE_MS)
        self.errors *= share
        self.squares *= share
        self.kept *= share

    def learn(self, judged: Judged, observed: NDArray[np.float32]) -> None:
        """What came of forecasts of any one shape: the truth, NaN where it is not known."""
        known = ~np.isnan(observed) & ~np.isnan(judged.median)
        if not known.any():
            return
        truth, strata = observed[known], judged.strata.at(known)
        cells, cell = np.unique(np.ravel_multi_index(strata, self.offsets.shape[:-1]), return_inverse=True)
        error, said = truth - judged.point[known], judged.said[known]
        told = ~np.isnan(said)
        self._track(cells, cell[told], judged.quantiles[known][told], truth[told])
        self._count_errors(cells, cell, np.abs(truth - judged.median[known]))
        self._count_squares(strata, error)
        self._count_hits(said[told], (np.abs(error) <= judged.tolerance[known])[told])

    def _track(
        self,
        cells: NDArray[np.int64],
        cell: NDArray[np.int64],
        issued: NDArray[np.float32],
        truth: NDArray[np.float32],
    ) -> None:
        """Move the offsets of some cells by the targets of each: `cell` says whose a target is.

        While there are few, as their quantile would move; never by less than the step that follows every change.
        """
        counts = np.bincount(cell, minlength=len(cells))
        below = [np.bincount(cell, truth <= issued[:, i], len(cells)) for i in range(len(PROBABILITIES))]
        share = np.stack(below, axis=1) / np.maximum(counts, 1)[:, None]
        earlier = self.errors.reshape(-1, 2)[cells, 0]
        first = np.outer(counts / (AGREED + earlier + counts), _PER_SHARE)
        step = np.maximum(first, STEP * np.minimum(counts / MANY, 1)[:, None])
        moved = np.clip(step * (_PROBABILITIES - share), -1, 1)
        self.offsets.reshape(-1, len(PROBABILITIES))[cells] += np.where(counts[:, None] > 0, moved, 0)

    def _count_errors(self, cells: NDArray[np.int64], cell: NDArray[np.int64], size: NDArray[np.float32]) -> None:
        counted = np.stack([np.bincount(cell), np.bincount(cell, size)], axis=1)
        self.errors.reshape(-1, 2)[cells] += counted

    def _count_squares(self, strata: Strata, error: NDArray[np.float32]) -> None:
        """Those of the oldest readings are left out: not every forecaster makes these, and they are the hardest."""
        young = (strata.age < len(AGE_CUTS)) & ~np.isnan(error)
        horizon, square = strata.horizon[young], np.square(error[young], dtype=np.float64)
        bins = len(self.squares)
        self.squares += np.stack([np.bincount(horizon, minlength=bins), np.bincount(horizon, square, bins)], axis=1)

    def _count_hits(self, said: NDArray[np.float32], hit: NDArray[np.bool_]) -> None:
        which = np.digitize(said, CONFIDENCE_CUTS)
        self.kept += np.stack([np.bincount(which, weights, BINS) for weights in (np.ones_like(said), said, hit)])

    def _honest(self, said: NDArray[np.float32]) -> NDArray[np.float32]:
        """What came of confidence like this, never less for more; straight between bins and beyond, in log-odds."""
        centres = np.convolve((0, *CONFIDENCE_CUTS, 1), (0.5, 0.5), "valid")
        counts, promised, hits = self.kept + PRIOR_HITS * np.stack([np.ones(BINS), centres, centres])
        known, became = log_odds(promised / counts), log_odds(isotonic(hits / counts, counts))
        told = log_odds(said)
        return (1 / (1 + np.exp(-told - np.interp(told, known, became - known)))).astype(np.float32)


def served_point(forecast: Forecast, quantiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """One value [S, H] for a forecast and its calibrated quantiles [S, H, Q].

    Tukey's trimean: of the forecaster's own quantiles, within the middle half of the calibrated ones; or of these,
    where it has none, which takes out what usually goes wrong in one direction.
    """
    low, high = quantiles[..., MEDIAN - 1], quantiles[..., MEDIAN + 1]
    own = forecast.quantiles is not None
    point = np.clip(forecast.point, low, high) if own else (quantiles @ TRIMEAN).astype(np.float32)
    return np.where(np.isnan(point), forecast.point, point)


def width(quantiles: NDArray[np.floating]) -> NDArray[np.floating]:
    """The 80 % widths [...] of quantiles [..., Q]."""
    return np.maximum(quantiles[..., _OUTER] - quantiles[..., _INNER], LEAST_WIDTH)


def in_order(quantiles: NDArray[np.floating]) -> NDArray[np.floating]:
    """Those that the median has passed go along with it."""
    below = np.minimum.accumulate(quantiles[..., MEDIAN::-1], axis=-1)[..., ::-1]
    above = np.maximum.accumulate(quantiles[..., MEDIAN:], axis=-1)
    return np.concatenate([below, above[..., 1:]], axis=-1)


def probability_within(
    quantiles: NDArray[np.float32], point: NDArray[np.float32], tolerance: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The probability [...] that the target of quantiles [..., Q] lies within `tolerance` of `point` [...]."""
    return probability_below(quantiles, point + tolerance) - probability_below(quantiles, point - tolerance)


def probability_below(quantiles: NDArray[np.float32], value: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability [...] of a target under `value` [...]: straight between the quantiles, exponential tails."""
    probability = np.zeros(value.shape)
    for left in range(len(PROBABILITIES) - 1):
        low, high = quantiles[..., left], quantiles[..., left + 1]
        share = np.clip((value - low) / np.maximum(high - low, 1e-6), 0, 1)
        probability += share * (PROBABILITIES[left + 1] - PROBABILITIES[left])
    tail = PROBABILITIES[0]
    under = np.minimum(value - quantiles[..., 0], 0) / np.maximum(quantiles[..., 1] - quantiles[..., 0], 1e-6)
    over = np.maximum(value - quantiles[..., -1], 0) / np.maximum(quantiles[..., -1] - quantiles[..., -2], 1e-6)
    probability += tail * np.exp(under * np.log(2)) + tail * (1 - np.exp(-over * np.log(2)))
    return np.where(np.isnan(value), np.nan, probability).astype(np.float32)


def log_odds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logarithm of p / (1 − p), of what is not quite certain; NaN stays."""
    doubtful = np.clip(probability.astype(np.float64), LEAST_DOUBT, 1 - LEAST_DOUBT)
    return np.log(doubtful / (1 - doubtful))


def isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest values, by weighted squares, that never fall (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (left, a, n), (right, b, m) = pools[-2:]
            pools[-2:] = [((left * a + right * b) / (a + b), a + b, n + m)]
    return np.repeat([value for value, *_ in pools], [n for *_, n in pools])
