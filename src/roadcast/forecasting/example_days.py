"""Example days: those of a test with the most jam, the median and the least, to look at."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.evaluation import ExampleDay, Task, reference_of
from roadcast.forecasting.history import SPEED

LEAST_SHARE = 0.75
"""A day, or a sensor on it, with less than this share of the test's fullest day is no example: hours differ more."""


def example_days(task: Task, first: int) -> list[ExampleDay]:
    """Up to three days of the test, the most jammed first, each told by its most jammed sensor.

    first: the tick from which on there are forecasts at the longest horizon.
    """
    jam, spans = _jam(task)[first:], _spans(task.history.calendar().day[first:])
    full = LEAST_SHARE * max((stop - start for start, stop in spans), default=0)
    found: list[tuple[float, ExampleDay]] = []
    for start, stop in spans:
        known = (~np.isnan(jam[start:stop])).sum(axis=0)
        if (known >= max(full, 1)).any():
            sums = np.nansum(jam[start:stop], axis=0, dtype=np.float64)
            mean = np.where(known >= full, sums / np.maximum(known, 1), -1)
            day_of = ExampleDay("", int(mean.argmax()), first + start, first + stop)
            found.append((float(sums.sum() / known.sum()), day_of))
    return _most_median_least([day for _, day in sorted(found, key=lambda pair: -pair[0])])


def _most_median_least(days: list[ExampleDay]) -> list[ExampleDay]:
    """Each day once, though it be the most and the least."""
    last = len(days) - 1
    names = {last: "least", last // 2: "median", 0: "most"} if days else {}
    return [days[place]._replace(name=names[place]) for place in sorted(names)]


def _jam(task: Task) -> NDArray[np.float32]:
    """How jammed each tick is [T, S]: speed under the reference as a share of it, or other variables over it."""
    ratio = task.history.of(task.target) / reference_of(task, task.test_from)
    ratio[~np.isfinite(ratio)] = np.nan
    return np.maximum(1 - ratio, 0) if task.target == SPEED else ratio


def _spans(day: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last + 1 of each run of one local day."""
    edges = np.flatnonzero(np.diff(day)) + 1
    bounds = [0, *edges.tolist(), len(day)]
    return list(pairwise(bounds)) if len(day) else []
