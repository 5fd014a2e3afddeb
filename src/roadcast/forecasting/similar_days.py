"""The past days whose hours before this time of day were most like now, and what came after them."""

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import date_of
from roadcast.forecasting.history import History

SPAN_MS = 7_200_000
"""So much of each day is compared, up to the time of day of now."""
MOST_DAYS = 5
LEAST_SHARE = 0.5
"""Of the ticks that are compared, so many must be known of both days."""


@dataclass(frozen=True, slots=True)
class SimilarDay:
    """A past local day: its mean absolute difference from now, and the value that followed, NaN where unknown."""

    day: date
    distance: float
    followed: float


def similar_days(history: History, target: str, step: int) -> list[SimilarDay]:
    """The nearest past days of a history of one sensor, by its last ticks, and what followed them `step` ticks on.

    A day counts where as many of its ticks as LEAST_SHARE says are known together with those of now. Of days that are
    equally near the newer comes first. In the hour that a clock change repeats, the nearer pass stands for both.
    """
    if not len(history):
        return []
    values, when = history.of(target)[:, 0], history.calendar()
    ends = np.flatnonzero((when.slot == when.slot[-1]) & (when.day < when.day[-1]))
    ends = ends[ends + step < len(values)][::-1]
    distance = _distances(values, ends, max(1, SPAN_MS // history.interval_ms))
    nearest = dict[int, SimilarDay]()
    for i in np.argsort(distance, kind="stable")[: np.count_nonzero(~np.isnan(distance))].tolist():
        day, end = int(when.day[ends[i]]), int(ends[i])
        nearest.setdefault(day, SimilarDay(date_of(day), float(distance[i]), float(values[end + step])))
    return list(nearest.values())[:MOST_DAYS]


def _distances(values: NDArray[np.float32], ends: NDArray[np.int64], ticks: int) -> NDArray[np.float64]:
    """Of the `ticks` ticks up to each of `ends` [n] from the last ones; NaN where too few are known of both."""
    padded = np.concatenate([np.full(ticks - 1, np.nan, np.float32), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, ticks)
    gaps = np.abs(windows[ends] - windows[-1])
    known = np.count_nonzero(~np.isnan(gaps), axis=1)
    total = np.nansum(gaps, axis=1, dtype=np.float64)
    return np.divide(total, known, out=np.full(len(ends), np.nan), where=known >= max(1, LEAST_SHARE * ticks))
