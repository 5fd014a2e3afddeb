"""Event-time windows, what is summed over them, and when they close.

A tick is one window over the whole network, named by its end. A reading is stamped with the end of its interval,
so the window that ends at E holds the times in (E - interval, E].

Sums are integers (thousandths, occupancies in millionths), so that they do not depend on the order in
which readings arrive, and a correction can be taken out again exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import DENSITY, OCCUPANCY, SPEED, VOLUME
from roadcast.domain.times import DAY_MS, HOUR_MS, utc_offset_ms

SUMS = (
    "readings", "speed_n", "speed_sum", "volume_n", "volume_sum", "density_n", "density_sum",
    "occupancy_n", "occupancy_sum", "weighted_n", "weighted_sum", "weight_sum",
    "compared_n", "compared_sum", "compared_weighted_sum", "reference_sum", "reference_weighted_sum", "congested_n",
)  # fmt: skip
"""The columns of a rollup.

`weighted` sums speed times volume over the readings that have a speed, and a volume above zero to weight it with;
`compared` sums speed, and `reference` the reference speed, over the readings that have both.
"""

_MILLI, _MICRO = 1e3, 1e6


def tick_end(at_ms: NDArray[np.int64], interval_ms: int) -> NDArray[np.int64]:
    """The end of the window that each time falls in."""
    return -(-at_ms // interval_ms) * interval_ms


def local_day(at_ms: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """The local day, in days since 1970, of the interval that ends at each time."""
    return local_hour(at_ms, timezone) // (DAY_MS // HOUR_MS)


def local_hour(at_ms: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """The local hour, in hours of local time since 1970, of the interval that ends at each time."""
    before_ms = at_ms - 1
    return (before_ms + utc_offset_ms(before_ms, timezone)) // HOUR_MS


def row_sums(values: NDArray[np.float32], reference: NDArray[np.float32], congested_below: float) -> NDArray[np.int64]:
    """What each reading adds to a rollup, [n, len(SUMS)].

    values: [n, 4] as in `ReadingBatch`; reference: [n] reference speeds, NaN where unknown; a reading counts as
    congested when its speed is under `congested_below` of its reference speed.
    """
    exact = values.astype(np.float64)
    speed, volume = exact[:, SPEED], exact[:, VOLUME]
    weight = np.where(~np.isnan(speed) & (np.rint(volume * _MILLI) > 0), volume, np.nan)
    known = ~np.isnan(speed) & ~np.isnan(reference)
    compared = np.where(known, speed, np.nan)
    against = np.where(known, reference, np.nan).astype(np.float64)
    columns = [
        np.ones(len(values), np.int64),
        *_count_and_sum(speed, _MILLI),
        *_count_and_sum(volume, _MILLI),
        *_count_and_sum(exact[:, DENSITY], _MILLI),
        *_count_and_sum(exact[:, OCCUPANCY], _MICRO),
        *_count_and_sum(speed * weight, _MILLI),
        _fixed(weight, _MILLI),
        *_count_and_sum(compared, _MILLI),
        _fixed(compared * weight, _MILLI),
        _fixed(against, _MILLI),
        _fixed(against * weight, _MILLI),
        (compared < congested_below * against).astype(np.int64),
    ]
    return np.stack(columns, axis=1)


def _fixed(values: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    return np.rint(np.nan_to_num(values) * scale).astype(np.int64)


def _count_and_sum(values: NDArray[np.float64], scale: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (~np.isnan(values)).astype(np.int64), _fixed(values, scale)


def group(keys: NDArray[np.int64], sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add up the rows of `sums` [n, k] that share a key [n]: the keys, ascending, and their totals."""
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    starts = np.flatnonzero(np.diff(ascending, prepend=ascending[:1] - 1))
    return ascending[starts], np.add.reduceat(sums[order], starts, axis=0) if len(starts) else sums[:0]


def tick_grid(
    sensor: NDArray[np.int32],
    at_ms: NDArray[np.int64],
    values: NDArray[np.float32],
    *,
    end_ms: int,
    ticks: int,
    sensors: int,
    interval_ms: int,
) -> NDArray[np.float32]:
    """Readings as [ticks, sensors, 4] on the regular windows that end at `end_ms`; NaN where nothing was measured.

    Several readings of a sensor in one window: volumes add up, speed is their mean as in `Totals`, density and
    occupancy are their means.
    """
    row = ticks - 1 - (end_ms - tick_end(at_ms, interval_ms)) // interval_ms
    inside = (row >= 0) & (row < ticks)
    cell = row[inside] * sensors + sensor[inside]
    exact = values[inside].astype(np.float64)

    def total(column: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(cell, np.nan_to_num(column), ticks * sensors).astype(np.float64)

    counts = [total((~np.isnan(exact[:, v])).astype(np.float64)) for v in range(4)]
    sums = [total(exact[:, v]) for v in range(4)]
    both = ~np.isnan(exact[:, SPEED]) & (exact[:, VOLUME] > 0)
    weight = total(np.where(both, exact[:, VOLUME], 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [sums[v] / counts[v] for v in range(4)]
        weighted = total(exact[:, SPEED] * exact[:, VOLUME]) / weight
    whole = (total(both.astype(np.float64)) == counts[SPEED]) & (weight > 0)
    means[SPEED] = np.where(whole, weighted, means[SPEED])
    means[VOLUME] = np.where(counts[VOLUME] > 0, sums[VOLUME], np.nan)
    return np.stack(means, axis=1).astype(np.float32).reshape(ticks, sensors, 4)


@dataclass(frozen=True, slots=True)
class Totals:
    """A rollup's sums, read as averages; None where nothing was measured."""

    sums: Mapping[str, int]

    def _mean(self, name: str, scale: float = _MILLI) -> float | None:
        n = self.sums[f"{name}_n"]
        return self.sums[f"{name}_sum"] / scale / n if n else None

    @property
    def readings(self) -> int:
        """How many readings."""
        return self.sums["readings"]

    @property
    def weighting(self) -> Literal["volume", "none"]:
        """`volume` where every speed has a volume above zero to weight it with, else `none`.

        A standing queue has speed and volume zero: weighting by volume would leave out the worst jam.
        """
        return "volume" if self.sums["weighted_n"] == self.sums["speed_n"] > 0 else "none"

    @property
    def speed(self) -> float | None:
        """Mean speed in mph, with this weighting."""
        if self.weighting == "volume":
            return self.sums["weighted_sum"] / self.sums["weight_sum"]
        return self._mean("speed")

    @property
    def volume(self) -> float | None:
        """Mean vehicles per reading."""
        return self._mean("volume")

    @property
    def density(self) -> float | None:
        """Mean vehicles per mile."""
        return self._mean("density")

    @property
    def occupancy(self) -> float | None:
        """Mean share of time covered."""
        return self._mean("occupancy", _MICRO)

    @property
    def ratio(self) -> float | None:
        """Mean speed over mean reference speed, both with this weighting, of the readings that have both."""
        kind = "weighted_sum" if self.weighting == "volume" else "sum"
        reference = self.sums[f"reference_{kind}"]
        return self.sums[f"compared_{kind}"] / reference if reference else None

    @property
    def congested_share(self) -> float | None:
        """Share of the readings with a reference speed that are congested."""
        n = self.sums["compared_n"]
        return self.sums["congested_n"] / n if n else None


@dataclass(slots=True)
class Closer:
    """Decides when windows close, from what each sensor has reported.

    A window is due when every active sensor has reported up to its end; when half of them have reported a whole
    interval further, so that neither a silent sensor holds nor a fast one closes the windows of others; when a
    source says that it has sent all up to there; or when nothing has come for `idle_s` since it was over.
    It closes when it is due and over, by the feed's clock: detectors' clocks may be ahead of it.
    A sensor is active while it has reported within `ACTIVE_TICKS` windows.
    """

    interval_ms: int
    idle_s: float
    closed_ms: int | None = None
    _heard_ms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))
    _held: set[int] = field(default_factory=set[int])
    _due_ms: int = 0
    _awaited_ms: int = 0
    _waiting_since_s: float = 0.0

    ACTIVE_TICKS = 3
    LONGEST_GAP = 12
    """After a silence at most so many windows without any reading close one by one."""

    def observe(
        self,
        sensor_no: NDArray[np.int32],
        at_ms: NDArray[np.int64],
        through_ms: int | None,
        clock_ms: int,
        now_s: float,
    ) -> list[int]:
        """Take in readings; the ends of the windows that close with them, ascending.

        `clock_ms` is the feed's time, and `now_s` is monotonic.
        """
        if len(at_ms):
            missing = int(sensor_no.max()) + 1 - len(self._heard_ms)
            if missing > 0:
                self._heard_ms = np.pad(self._heard_ms, (0, missing + len(self._heard_ms)))
            np.maximum.at(self._heard_ms, sensor_no, at_ms)
            if self.closed_ms is None:
                self.closed_ms = int(tick_end(at_ms.min(keepdims=True), self.interval_ms)[0]) - self.interval_ms
            ends = np.unique(tick_end(at_ms, self.interval_ms))
            self._held.update(ends[ends > self.closed_ms].tolist())
            self._await(clock_ms, now_s)
        return self._close(max(self._complete_ms(clock_ms), through_ms or 0), clock_ms)

    def wait(self, clock_ms: int, now_s: float) -> list[int]:
        """The windows that close without a reading: they are over now, or nothing has come for a while."""
        if self._awaited_ms <= (self.closed_ms or 0):
            self._await(clock_ms, now_s)
        silent = now_s - self._waiting_since_s >= self.idle_s
        return self._close(self._awaited_ms if silent else 0, clock_ms)

    def resume(self, closed_ms: int) -> None:
        """Begin after the window that ended at `closed_ms`, and forget what sensors reported."""
        self.closed_ms = closed_ms
        self._heard_ms[:] = 0
        self._held.clear()
        self._due_ms = self._awaited_ms = 0

    def _await(self, clock_ms: int, now_s: float) -> None:
        """Begin to wait for the windows that are over and of which something was heard."""
        self._awaited_ms = self._end_before(min(int(self._heard_ms.max()), clock_ms))
        self._waiting_since_s = now_s

    def _complete_ms(self, clock_ms: int) -> int:
        """The time up to which the windows are complete. Who is active is not told by a detector's fast clock."""
        newest_ms = min(int(self._heard_ms.max()), clock_ms)
        heard = self._heard_ms[self._heard_ms > newest_ms - self.ACTIVE_TICKS * self.interval_ms]
        active = np.sort(heard)
        return max(int(active[0]), int(active[(len(active) - 1) // 2]) - self.interval_ms)

    def _end_before(self, at_ms: int) -> int:
        """The end of the newest window that is over at a time."""
        return at_ms // self.interval_ms * self.interval_ms

    def _close(self, due_ms: int, clock_ms: int) -> list[int]:
        """Close what is due, by now also up to `due_ms`, is over and was not closed yet."""
        self._due_ms = max(self._due_ms, due_ms)
        last = self._end_before(min(self._due_ms, clock_ms))
        if last <= 0 or (self.closed_ms is not None and last <= self.closed_ms):
            return []
        first = last if self.closed_ms is None else self.closed_ms + self.interval_ms
        self.closed_ms = last
        recent = range(max(first, last - self.LONGEST_GAP * self.interval_ms), last + 1, self.interval_ms)
        held = {end for end in self._held if end <= last}
        self._held -= held
        return sorted(held.union(recent))
