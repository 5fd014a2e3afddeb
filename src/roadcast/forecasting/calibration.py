"""Calibration: quantiles and confidence that keep their word, corrected by errors as they become known.

Each forecast quantile is shifted by an offset, one for each horizon and stratum, in units of the forecast's own 80 %
width. When targets come true the offset moves by a step toward the share that the quantile promised to hold (quantile
tracking: Gibbs & Candès 2021, Angelopoulos, Candès & Tibshirani 2023), so that the promise is kept over time whatever
changes. Confidence is read from the shifted quantiles, and made honest by what became of earlier confidence.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.error_history import AGE_CUTS, CONGESTION_CUTS, Strata
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES

STEP = 0.03
"""How far an offset moves, in widths, when all of many targets lay on one side."""
MANY = 50.0
"""With fewer targets it moves by their share of so many."""
LEAST_WIDTH = 0.5
"""Widths are taken to be at least this, in the target's unit, so that what never erred can be corrected."""
BINS = 20
"""Of confidence."""
PRIOR = 50.0
"""A bin's own hits are joined by so many that keep its promise."""
FADING = 0.9995
"""What is left of a hit after a tick: half after some five days of five minutes."""

_INNER, _OUTER = 1, -2
"""The quantiles between which the 80 % width lies."""


@dataclass(slots=True)
class Calibration:
    """offsets: [H, ages, levels, Q] in widths; kept: [3, BINS] how often confidence was said, its sum, and hits."""

    offsets: NDArray[np.float64]
    kept: NDArray[np.float64]

    @classmethod
    def empty(cls, horizons: int) -> Self:
        """Nothing learnt: every forecast is believed."""
        offsets = np.zeros((horizons, len(AGE_CUTS) + 1, len(CONGESTION_CUTS) + 1, len(PROBABILITIES)))
        return cls(offsets, np.zeros((3, BINS)))

    def quantiles(self, raw: NDArray[np.float32], strata: Strata) -> NDArray[np.float32]:
        """Quantiles [S, H, Q] that keep their word, from a forecaster's own; ordered, at least 0."""
        shifted = raw + self.offsets[tuple(strata)] * width(raw)[..., None]
        return np.maximum(in_order(shifted), 0).astype(np.float32)

    def confidence(
        self, quantiles: NDArray[np.float32], point: NDArray[np.float32], tolerance: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The probability [S, H] that the target lies within the tolerance [S, H] of the point forecast [S, H]."""
        return self._honest(probability_within(quantiles, point, tolerance))

    def learn(
        self,
        quantiles: NDArray[np.float32],
        point: NDArray[np.float32],
        tolerance: NDArray[np.float32],
        strata: Strata,
        observed: NDArray[np.float32],
    ) -> None:
        """What came of forecasts at one horizon: quantiles [S, Q] and point [S] as issued, and the truth [S]."""
        known = ~np.isnan(observed) & ~np.isnan(quantiles[:, MEDIAN])
        if not known.any():
            return
        issued, truth = quantiles[known], observed[known]
        self._track(issued, truth, Strata(*(part[known] for part in strata)))
        self._count(issued, point[known], tolerance[known], truth)

    def fade(self) -> None:
        """A tick has passed: earlier hits count a little less."""
        self.kept *= FADING

    def _track(self, issued: NDArray[np.float32], truth: NDArray[np.float32], strata: Strata) -> None:
        shape = self.offsets.shape[:-1]
        cells, cell = np.unique(np.ravel_multi_index(strata, shape), return_inverse=True)
        counts = np.bincount(cell)
        below = np.zeros((len(cells), len(PROBABILITIES)))
        np.add.at(below, cell, truth[:, None] <= issued)
        share = below / counts[:, None]
        step = STEP * np.minimum(counts / MANY, 1)[:, None]
        self.offsets.reshape(-1, len(PROBABILITIES))[cells] += step * (np.array(PROBABILITIES) - share)

    def _count(
        self,
        issued: NDArray[np.float32],
        point: NDArray[np.float32],
        tolerance: NDArray[np.float32],
        truth: NDArray[np.float32],
    ) -> None:
        said = probability_within(issued, point, tolerance)
        hit = np.abs(truth - point) <= tolerance
        which = np.clip((said * BINS).astype(np.int64), 0, BINS - 1)
        self.kept += np.stack([np.bincount(which, weights, BINS) for weights in (np.ones_like(said), said, hit)])

    def _honest(self, said: NDArray[np.float32]) -> NDArray[np.float32]:
        """What came of confidence like this, never less for more."""
        centres = (np.arange(BINS) + 0.5) / BINS
        counts, promised, hits = self.kept + PRIOR * np.stack([np.ones(BINS), centres, centres])
        honest = np.interp(said, promised / counts, isotonic(hits / counts, counts))
        return np.where(np.isnan(said), np.nan, honest).astype(np.float32)


def width(quantiles: NDArray[np.float32]) -> NDArray[np.float32]:
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


def isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest values, by weighted squares, that never fall (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (left, a, n), (right, b, m) = pools[-2:]
            pools[-2:] = [((left * a + right * b) / (a + b), a + b, n + m)]
    return np.repeat([value for value, *_ in pools], [n for *_, n in pools])
