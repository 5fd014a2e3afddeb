"""The onset of jams: the tick at which traffic that flowed breaks down, and the time around it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadcast.flow.congestion import JAM_BELOW

FREE_MS = 30 * 60_000
"""So long must traffic have been above the jam limit, so that what flickers around it is no new jam."""
AROUND_MS = 30 * 60_000
"""Targets this close to an onset, before or after it, belong to it."""
ONSET = "onset"
"""The name of this stratum in scores."""


def onsets(
    speed: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]], interval_ms: int
) -> NDArray[np.bool_]:
    """Where speeds [T, S] on successive ticks fall under the jam limit of reference speeds [S] after free traffic.

    Reference speeds may also differ from tick to tick [T, S]. Free are the ticks of `FREE_MS` before, if none that was
    measured is under the limit and at least half of them were measured. The first ticks, which lack them, are no
    onsets.
    """
    before = _ticks(FREE_MS, interval_ms)
    jammed, measured = speed < JAM_BELOW * reference, ~np.isnan(speed)
    found = np.zeros(speed.shape, np.bool_)
    if len(speed) > before:
        clear = _preceding(jammed, before) == 0
        seen = 2 * _preceding(measured, before) >= before
        found[before:] = jammed[before:] & clear & seen
    return found


def near_onsets(found: NDArray[np.bool_], interval_ms: int) -> NDArray[np.bool_]:
    """The ticks [T, S] that lie within `AROUND_MS` of an onset [T, S]."""
    around = _ticks(AROUND_MS, interval_ms)
    padded = np.pad(found, ((around + 1, around), (0, 0))).astype(np.int64).cumsum(axis=0)
    return padded[2 * around + 1 :] > padded[: -2 * around - 1]


def reach_ms(interval_ms: int) -> tuple[int, int]:
    """How far before and after a tick one must look to know whether it is near an onset."""
    before, around = (_ticks(span, interval_ms) * interval_ms for span in (FREE_MS, AROUND_MS))
    return before + around, around


def _ticks(span_ms: int, interval_ms: int) -> int:
    return max(1, span_ms // interval_ms)


def _preceding(flags: NDArray[np.bool_], ticks: int) -> NDArray[np.int64]:
    """How many of the `ticks` before each tick from number `ticks` on hold, [T - ticks, S]."""
    total = np.pad(flags, ((1, 0), (0, 0))).astype(np.int64).cumsum(axis=0)
    return total[ticks:-1] - total[: -ticks - 1]
