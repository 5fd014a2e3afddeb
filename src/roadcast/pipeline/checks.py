"""What a reading must fulfil, whichever way it came."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import MOST, OLDEST_MS, VARIABLES, ReadingBatch, Rejection
from roadcast.domain.times import DAY_MS, from_ms, rfc3339, to_ms
from roadcast.storage.partitions import MOST_DAYS

UNIT = {"speed": " mph", "density": " veh/mi"}
"""Said with the bounds: who sends other units must know that these are not theirs."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Which rows passed [n], and why the others did not, by row."""

    passed: NDArray[np.bool_]
    rejections: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class _Test:
    """Rows that are wrong [n], and what to say of them."""

    wrong: NDArray[np.bool_]
    field: str
    values: Sequence[object]
    reason: str


def oldest_kept(now: datetime, retention_days: int | None) -> int:
    """The oldest time that is kept where the clock stands at `now`; None: whatever a reading can have."""
    return OLDEST_MS if retention_days is None else max(OLDEST_MS, to_ms(now) - retention_days * DAY_MS)


def check(
    batch: ReadingBatch,
    *,
    newest_ms: int,
    max_future_s: int,
    unknown: frozenset[str] = frozenset(),
    oldest_ms: int = OLDEST_MS,
) -> Checked:
    """Find the readings that cannot be right; of each the first field that is wrong is named.

    newest_ms: the time on the clock; unknown: codes that are not registered and may not be; oldest_ms: the oldest
    time that is kept.
    """
    passed = np.ones(len(batch), np.bool_)
    rejections: list[Rejection] = []
    times = (*_times(batch, oldest_ms, newest_ms, max_future_s), _days(batch))
    for test in (*_sensors(batch, unknown), *times, *_values(batch)):
        wrong = np.flatnonzero(test.wrong & passed).tolist()
        rejections += [Rejection(i, test.field, test.values[i], test.reason) for i in wrong]
        passed &= ~test.wrong
    return Checked(passed, tuple(sorted(rejections, key=lambda rejection: rejection.index)))


def _sensors(batch: ReadingBatch, unknown: frozenset[str]) -> Iterable[_Test]:
    if unknown:
        codes = [batch.codes[i] for i in batch.sensor.tolist()]
        wrong = np.array([code in unknown for code in codes], np.bool_)
        yield _Test(wrong, "sensor_id", codes, "expected a registered sensor (UNKNOWN_SENSORS=reject)")


def _times(batch: ReadingBatch, oldest_ms: int, newest_ms: int, max_future_s: int) -> Iterable[_Test]:
    early, late = batch.at_ms < oldest_ms, batch.at_ms > newest_ms + max_future_s * 1000
    stamps = [rfc3339(from_ms(at)) for at in batch.at_ms.tolist()] if np.any(early | late) else []
    yield _Test(early, "timestamp", stamps, f"expected a time from {rfc3339(from_ms(oldest_ms))} on")
    now = rfc3339(from_ms(newest_ms))
    ahead = f"expected at most {max_future_s} s (MAX_FUTURE_S) ahead of the clock, which is at {now}"
    yield _Test(late, "timestamp", stamps, f"{ahead} (a demo's is behind the present, FEED=none does without)")


def _days(batch: ReadingBatch) -> _Test:
    """A transaction cannot touch any number of days."""
    days, first, which = np.unique(batch.at_ms // DAY_MS, return_index=True, return_inverse=True)
    rank = np.empty(len(days), np.int64)
    rank[np.argsort(first)] = np.arange(len(days))
    late = rank[which] >= MOST_DAYS
    stamps = [rfc3339(from_ms(at)) for at in batch.at_ms.tolist()] if np.any(late) else []
    return _Test(late, "timestamp", stamps, f"expected at most {MOST_DAYS} different days (UTC) together")


def _values(batch: ReadingBatch) -> Iterable[_Test]:
    for variable, (name, most) in enumerate(zip(VARIABLES, MOST, strict=True)):
        column = batch.values[:, variable]
        wrong = (column < 0) | (column > most)
        values: list[float] = column.tolist() if np.any(wrong) else []
        yield _Test(wrong, name, values, f"expected a number from 0 to {most:g}{UNIT.get(name, '')}")
    nothing = np.all(np.isnan(batch.values), axis=1)
    expected = "expected at least one of speed, volume, density and occupancy"
    yield _Test(nothing, "speed", [None] * len(batch) if np.any(nothing) else [], expected)
