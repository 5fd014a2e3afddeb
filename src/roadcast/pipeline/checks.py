"""What a reading must fulfil, whichever way it came."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import MOST, OLDEST_MS, VARIABLES, ReadingBatch, Rejection
from roadcast.domain.times import from_ms, rfc3339

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
    for test in (*_sensors(batch, unknown), *_times(batch, oldest_ms, newest_ms, max_future_s), *_values(batch)):
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
    yield _Test(late, "timestamp", stamps, f"expected at most {max_future_s} s (MAX_FUTURE_S) ahead of {now}")


def _values(batch: ReadingBatch) -> Iterable[_Test]:
    for variable, (name, most) in enumerate(zip(VARIABLES, MOST, strict=True)):
        column = batch.values[:, variable]
        wrong = (column < 0) | (column > most)
        values: list[float] = column.tolist() if np.any(wrong) else []
        yield _Test(wrong, name, values, f"expected a number from 0 to {most:g}{UNIT.get(name, '')}")
    nothing = np.all(np.isnan(batch.values), axis=1)
    expected = "expected at least one of speed, volume, density and occupancy"
    yield _Test(nothing, "speed", [None] * len(batch) if np.any(nothing) else [], expected)
