"""The errors that forecasters have made, and what they say of the forecasts to come.

Errors (target − median, mph) are counted in histograms, one for each forecaster, horizon and stratum. Strata are how
old the last reading was and how congested the forecast is: both decide how wide errors spread. Where a stratum has
few errors, its histogram is filled up from the wider ones around it.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.forecaster import PROBABILITIES

CONGESTION_CUTS = (0.35, 0.50, 0.65, 0.80, 0.88, 0.94, 1.00)
"""Ratios of forecast to reference speed between levels of congestion."""
AGE_CUTS = (1, 4)
"""Ages in ticks of the last reading at which a stratum begins: fresh, up to three ticks, older."""
BIN_MPH = 0.5
LARGEST_ERROR_MPH = 80.0
"""Larger errors count in the outermost bins."""
BINS = 2 * int(LARGEST_ERROR_MPH / BIN_MPH) + 1
_EDGES = (np.arange(BINS + 1) - BINS / 2) * BIN_MPH
_CENTRES = _EDGES[:-1] + BIN_MPH / 2
PRIOR_ERRORS = 30.0
"""A stratum's own errors are joined by so many of the wider stratum's."""
LEAST_ERRORS = 30.0
"""A horizon with fewer errors than this promises nothing."""


class Strata(NamedTuple):
    """Where forecasts [forecasters, S, H] belong: their horizon, age of the last reading and level of congestion."""

    horizon: NDArray[np.int64]
    age: NDArray[np.int64]
    level: NDArray[np.int64]

    def of_forecaster(self, index: int) -> "Strata":
        """Those of one forecaster [S, H]."""
        return Strata(*(part[index] for part in self))

    def at_horizon(self, index: int) -> "Strata":
        """Those of one horizon [forecasters, S]."""
        return Strata(*(part[..., index] for part in self))


def stratify(median: NDArray[np.float32], reference_speed: NDArray[np.float32], age_ticks: NDArray[np.int64]) -> Strata:
    """Strata of medians [..., S, H] with reference speeds [S] and ages [S].

    A forecast without a reference speed counts as congested: errors are largest there.
    """
    ratio = median / np.where(reference_speed > 0, reference_speed, np.nan)[:, None]
    level = np.digitize(np.nan_to_num(ratio), CONGESTION_CUTS)
    horizons: int = median.shape[-1]
    horizon = np.broadcast_to(np.arange(horizons), level.shape)
    age = np.broadcast_to(np.digitize(age_ticks, AGE_CUTS)[:, None], level.shape)
    return Strata(horizon, age, level)


@dataclass(slots=True)
class ErrorHistory:
    """Histograms of errors, `counts` [forecasters, H, ages, levels, bins], which are all its state; old errors fade."""

    counts: NDArray[np.float64]

    @classmethod
    def empty(cls, forecasters: int, horizons: int) -> Self:
        """Nothing known yet."""
        return cls(np.zeros((forecasters, horizons, len(AGE_CUTS) + 1, len(CONGESTION_CUTS) + 1, BINS)))

    def fade(self, share: float) -> None:
        """Let all errors so far count only this share of what they did."""
        self.counts *= share

    def observe(self, forecaster: NDArray[np.int64], error: NDArray[np.float32], strata: Strata) -> None:
        """Count errors of any shape, all arguments alike or broadcast; NaN errors are targets not observed."""
        parts = np.broadcast_arrays(forecaster, *strata, _bin(error))
        known = ~np.isnan(error)
        np.add.at(self.counts, tuple(part[known] for part in parts), 1.0)

    def mae(self) -> NDArray[np.float64]:
        """Mean absolute errors [forecasters, H] in mph; NaN under LEAST_ERRORS."""
        return self._mean(np.abs(_CENTRES))

    def rmse(self) -> NDArray[np.float64]:
        """Root mean square errors [forecasters, H] in mph; NaN under LEAST_ERRORS."""
        return np.sqrt(self._mean(np.square(_CENTRES)))

    def _mean(self, loss: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of a loss of each bin. Forecasts from the oldest readings are left out.

        Not every forecaster makes those, and they are the hardest.
        """
        counts = self.counts[:, :, :-1].sum(axis=(2, 3))
        total = counts.sum(axis=-1)
        return np.where(total >= LEAST_ERRORS, counts @ loss / np.maximum(total, 1), np.nan)

    def distribution(self, forecaster: int) -> "ErrorDistribution":
        """What one forecaster's errors say of its next one."""
        own = self.counts[forecaster]
        known = own.sum(axis=(1, 2, 3)) >= LEAST_ERRORS
        counts = own.sum(axis=(1, 2), keepdims=True)
        share, errors = _share(counts, np.full(BINS, 1 / BINS), prior=1e-9), counts.sum(axis=-1)
        for counts in (own.sum(axis=1, keepdims=True), own):
            share = _share(counts, share, PRIOR_ERRORS)
            errors = counts.sum(axis=-1) + np.minimum(errors, PRIOR_ERRORS)
        below = np.concatenate([np.zeros((*share.shape[:-1], 1)), share.cumsum(axis=-1)], axis=-1)
        below[~known] = np.nan
        return ErrorDistribution(below, errors)


@dataclass(frozen=True, slots=True)
class ErrorDistribution:
    """What errors are to be expected.

    below: [H, ages, levels, bins + 1] probability of an error below each edge, NaN where nothing is known;
    errors: [H, ages, levels] how many it was counted from.
    """

    below: NDArray[np.float64]
    errors: NDArray[np.float64]

    def quantiles(self, strata: Strata) -> NDArray[np.float32]:
        """The errors [..., S, H, Q] at PROBABILITIES, ordered."""
        cells, cell = np.unique(np.ravel_multi_index(strata, self.below.shape[:-1]), return_inverse=True)
        below = self.below.reshape(-1, BINS + 1)[cells]
        wanted = np.array(PROBABILITIES)
        edge = np.maximum(np.count_nonzero(below[:, None] <= wanted[:, None], axis=-1) - 1, 0)
        left, right = (np.take_along_axis(below, at, axis=-1) for at in (edge, edge + 1))
        errors = _EDGES[edge] + BIN_MPH * (wanted - left) / (right - left)
        return errors[cell].astype(np.float32)

    def probability(self, strata: Strata, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability [..., S, H] that the error lies between `low` and `high`; NaN where these are.

        A finite count makes nothing certain: half an error more lies within, and half a one outside.
        """
        errors = self.errors[strata]
        within = errors * (self._below(strata, high) - self._below(strata, low))
        return np.where(np.isnan(high - low), np.nan, (within + 0.5) / (errors + 1)).astype(np.float32)

    def _below(self, strata: Strata, error: NDArray[np.float32]) -> NDArray[np.float64]:
        place = np.clip(np.nan_to_num(error) / BIN_MPH + BINS / 2, 0, BINS - 1e-6)
        edge = place.astype(np.int64)
        left, right = self.below[(*strata, edge)], self.below[(*strata, edge + 1)]
        return left + (right - left) * (place - edge)


def _bin(error: NDArray[np.float32]) -> NDArray[np.int64]:
    place = np.rint(np.nan_to_num(error) / BIN_MPH) + BINS // 2
    return np.clip(place, 0, BINS - 1).astype(np.int64)


def _share(counts: NDArray[np.float64], wider: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    return (counts + prior * wider) / (counts.sum(axis=-1, keepdims=True) + prior)
