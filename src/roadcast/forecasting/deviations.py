"""Deviations from the typical day: how they decay, and what stands in for missing ones."""

import numpy as np
from numpy.typing import NDArray


def fit_decay(deviations: NDArray[np.float32], lags: int) -> NDArray[np.float32]:
    """The share of a deviation that is left after 0 … `lags` ticks, by least squares over all ticks and sensors [T, S].

    Where there is no pair of ticks to learn from, the share of the lag before holds on.
    """
    known = (~np.isnan(deviations)).astype(np.float32)
    filled = np.nan_to_num(deviations)
    decay = np.ones(lags + 1, np.float32)
    for lag in range(1, lags + 1):
        early = filled[:-lag]
        square = np.vdot(early * early, known[lag:])
        share = np.vdot(early, filled[lag:]) / square if square > 0 else decay[lag - 1]
        decay[lag] = np.clip(share, 0, 1)
    return decay


def fill(deviations: NDArray[np.float32], decay: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Missing deviations [T, S] replaced by the last one known, decayed; by 0 where it is `reach` ticks old or more."""
    tick = np.arange(len(deviations))[:, None]
    known = np.maximum.accumulate(np.where(np.isnan(deviations), -1, tick), axis=0)
    age = np.minimum(tick - known, reach)
    share = np.where((known >= 0) & (age < reach), decay[np.minimum(age, len(decay) - 1)], 0)
    latest = np.nan_to_num(np.take_along_axis(deviations, np.maximum(known, 0), axis=0))
    return (latest * share).astype(np.float32)
