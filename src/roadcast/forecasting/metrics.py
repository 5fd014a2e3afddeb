"""Measures of forecasts. Targets that are missing (NaN) and forecasts that were not made (NaN) do not count.

Each takes arrays that broadcast against each other and gives one number, NaN where nothing counts.
"""

import numpy as np
from numpy.typing import NDArray

MAPE_FLOOR_MPH = 1.0
"""Targets under this are left out of percentages, which would otherwise be about them alone."""


def mae(forecast: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Mean absolute error."""
    return _mean(np.abs(target - forecast))


def rmse(forecast: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(_mean((target - forecast) ** 2)))


def bias(forecast: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Mean of forecast − target: positive where too much is forecast."""
    return _mean(forecast - target)


def mape(forecast: NDArray[np.floating], target: NDArray[np.floating], floor: float = MAPE_FLOOR_MPH) -> float:
    """Mean absolute error as a fraction of the target, over targets of at least `floor`."""
    return _mean(np.abs(target - forecast) / np.where(target >= floor, target, np.nan))


def skill(error: float, *naive_errors: float) -> float:
    """1 − error / error of the best naive forecast: 0 is no better than it, 1 perfect."""
    return 1 - error / min(naive_errors)


def coverage(low: NDArray[np.floating], high: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """The share of targets within [low, high]."""
    known = ~np.isnan(target - low + high)
    return _mean(np.where(known, (low <= target) & (target <= high), np.nan))


def width(low: NDArray[np.floating], high: NDArray[np.floating]) -> float:
    """Mean width of intervals."""
    return _mean(high - low)


def winkler(
    low: NDArray[np.floating], high: NDArray[np.floating], target: NDArray[np.floating], outside: float
) -> float:
    """Mean score of intervals that promise to miss a share `outside`: width plus 2/outside of each miss."""
    missed = np.maximum(low - target, 0) + np.maximum(target - high, 0)
    return _mean(high - low + 2 / outside * missed)


def pinball(quantile: NDArray[np.floating], target: NDArray[np.floating], probability: float) -> float:
    """Mean loss of a forecast quantile; half the absolute error at probability 0.5."""
    error = target - quantile
    return _mean(np.maximum(probability * error, (probability - 1) * error))


def calibration_error(probability: NDArray[np.floating], happened: NDArray[np.floating], bins: int = 10) -> float:
    """Expected calibration error: the gap between promised and happened (0 or 1), by bins of the probability."""
    known = ~np.isnan(probability + happened)
    promised, came = probability[known], happened[known]
    which = np.minimum((promised * bins).astype(np.int64), bins - 1)
    gap = np.bincount(which, promised - came, bins)
    return float(np.abs(gap).sum() / len(promised)) if len(promised) else float("nan")


def _mean(values: NDArray[np.floating]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if known.size else float("nan")
