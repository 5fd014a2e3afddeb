"""A straight line through measurements, and how sure its slope is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

# scipy ships no types.
from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

CONFIDENCE = 0.95
"""Of the interval of a slope."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The slope of a line, with the interval [low, high] that holds the true one with `CONFIDENCE`."""

    slope: float
    low: float
    high: float


def trend(x: Sequence[float], y: Sequence[float]) -> Trend | None:
    """The slope of y over x by ordinary least squares, with Student's interval.

    The interval assumes independent errors. None for fewer than three points or where x does not vary.
    """
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    free = len(xs) - 2
    centred = xs - xs.mean() if len(xs) else xs
    spread = float(centred @ centred)
    if free < 1 or spread == 0:
        return None
    slope = float(centred @ ys) / spread
    residual = ys - ys.mean() - slope * centred
    error = float(np.sqrt(residual @ residual / free / spread))
    reach = cast("float", stdtrit(free, (1 + CONFIDENCE) / 2)) * error
    return Trend(slope, slope - reach, slope + reach)
