"""Local stamps to UTC, over clock changes.

A stamp in an hour that the clocks repeat is read as its first pass, unless the same sensor's row before it in
the file lies in that hour too and is later, or is of the second pass itself; in a file whose stamps lie as far apart
as the clocks go back, the row before may be equal. A stamp in an hour that they skip is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import OLDEST_MS
from roadcast.domain.times import DAY_MS, EPOCH, from_ms, rfc3339, to_ms
from roadcast.sources.formats.source_file import LATEST_MS, Notes

UNREADABLE = -1 << 62
"""In place of a stamp that is no time."""

_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Times:
    """at_ms: [n] UTC; refused: why, by position."""

    at_ms: NDArray[np.int64]
    refused: dict[int, str]


@dataclass(slots=True)
class LocalClock:
    """The clock of the place where a file was written. It reads the rows of one file in their order."""

    zone: ZoneInfo
    notes: Notes
    latest_ms: int = LATEST_MS
    _step_ms: int = DAY_MS
    _before: dict[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])

    def read_texts(self, texts: Sequence[str], sensors: Sequence[str], parse: Callable[[str], datetime]) -> Times:
        """The times of `texts`, row by row with `sensors`; `parse` raises ValueError on what is no time."""
        parsed = {text: _parsed(text, parse) for text in set(texts)}
        at_ms = np.array([parsed[text][0] for text in texts], dtype=np.int64)
        local = np.flatnonzero(~np.array([parsed[text][1] for text in texts], dtype=np.bool_)).tolist()
        times = self.read_local(at_ms[local], [sensors[i] for i in local])
        at_ms[local] = times.at_ms
        return checked(at_ms, {local[i]: reason for i, reason in times.refused.items()}, self.latest_ms)

    def read_local(self, local_ms: NDArray[np.int64], sensors: Sequence[str]) -> Times:
        """The times of stamps that count milliseconds since 1970 on the local clock."""
        stamps, which = np.unique(np.clip(local_ms, -DAY_MS, LATEST_MS), return_inverse=True)
        before, after = self._offsets(stamps, 0)[which], self._offsets(stamps, 1)[which]
        skipped = {i: self._skipped(int(local_ms[i])) for i in np.flatnonzero(before < after).tolist()}
        repeated = before > after
        self._step_ms = int(np.diff(stamps).min(initial=self._step_ms))
        second = self._second_pass(local_ms, repeated, sensors, self._step_ms >= (before - after))
        self._note(len(skipped), "times that a clock change skips, refused")
        self._note(int((repeated & ~second).sum()), "times in an hour that a clock change repeats, read as its first")
        self._note(int(second.sum()), "times in an hour that a clock change repeats, read as its second")
        return checked(local_ms - np.where(second, after, before), skipped, self.latest_ms)

    def _offsets(self, stamps: NDArray[np.int64], fold: int) -> NDArray[np.int64]:
        """Offset from UTC at local stamps, ms; `fold` 0 is as before a clock change near them, 1 as after it."""
        wall = (from_ms(stamp).replace(tzinfo=self.zone, fold=fold) for stamp in stamps.tolist())
        return np.array([(at.utcoffset() or timedelta()) // timedelta(milliseconds=1) for at in wall], dtype=np.int64)

    def _second_pass(
        self,
        local_ms: NDArray[np.int64],
        repeated: NDArray[np.bool_],
        sensors: Sequence[str],
        sparse: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Which stamps are of a second pass; `sparse`: those that lie no closer than the clocks go back there."""
        second = np.zeros(len(local_ms), dtype=np.bool_)
        if not repeated.any():
            self._before.clear()
            return second
        for i, (sensor, stamp, again) in enumerate(zip(sensors, local_ms.tolist(), repeated.tolist(), strict=True)):
            last = self._before.pop(sensor, None)
            if again:
                second[i] = last is not None and (last[1] or stamp < last[0] or (stamp == last[0] and sparse[i]))
                self._before[sensor] = (stamp, bool(second[i]))
        return second

    def _skipped(self, local_ms: int) -> str:
        return f"expected a time that exists: the clock change of {from_ms(local_ms):%Y-%m-%d} in {self.zone} skips it"

    def _note(self, count: int, what: str) -> None:
        if count:
            self.notes[what] += count


def parse_iso(text: str) -> datetime:
    """A stamp of ISO 8601 that names a time of day.

    Raises:
        ValueError: it is none.
    """
    if not _STAMP.match(text):
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _parsed(text: str, parse: Callable[[str], datetime]) -> tuple[int, bool]:
    """Milliseconds since 1970, and whether they are UTC (True) or on the local clock."""
    try:
        at = parse(text.strip())
    except ValueError:
        return UNREADABLE, True
    return (to_ms(at), True) if at.tzinfo else (to_ms(at.replace(tzinfo=EPOCH.tzinfo)), False)


def checked(at_ms: NDArray[np.int64], refused: dict[int, str], latest_ms: int) -> Times:
    """Refuse as well what is no time, or none that a detector can have reported."""
    for i in np.flatnonzero((at_ms < OLDEST_MS) | (at_ms > latest_ms)).tolist():
        bound = "a time from 1990 on" if at_ms[i] < OLDEST_MS else f"at most {rfc3339(from_ms(latest_ms))}"
        refused.setdefault(i, f"expected {'a time such as 2012-03-01T08:05:00Z' if at_ms[i] == UNREADABLE else bound}")
    return Times(at_ms, refused)
