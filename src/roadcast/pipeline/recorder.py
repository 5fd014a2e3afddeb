"""Recording: readings and their rollups, in the caller's transaction."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import OCCUPANCY, SPEED, ReadingBatch
from roadcast.domain.sensor import Sensor, free_speeds
from roadcast.domain.times import DAY_MS, EPOCH, HOUR_MS, from_ms, to_ms, utc_offset_ms
from roadcast.flow.congestion import CONGESTED_BELOW, light_speeds, reference_speed
from roadcast.pipeline.past import parts_of
from roadcast.storage import marks, readings, rollups, sensors
from roadcast.storage.engine import BULK_TIMEOUT_S, Database, Reader, Writer
from roadcast.storage.partitions import Partitions
from roadcast.storage.readings import Rows, Written
from roadcast.windows import group, local_day, row_sums, tick_end, tick_grid

REFERENCE_DAYS = 28
"""How far back reference speeds look: four weeks hold every kind of day."""
AT_ONCE = 256
"""Reference speeds that are computed together."""
LEARNT = "references"
"""The fact that changes whenever reference speeds are learnt."""
_SHARE_REFERENCES = "SELECT pg_advisory_xact_lock_shared(hashtext('references'), 0)"
_OWN_REFERENCES = "SELECT pg_advisory_xact_lock(hashtext('references'), 0)"
CHANGE_MS = 3 * HOUR_MS
"""More than any clock change moves the ends of a local day."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one transaction stored: the rows as given, what became of each, and the code of each number."""

    given: Rows
    written: Written
    codes: dict[int, str]


@dataclass(slots=True)
class Recorder:
    """Gives sensors their numbers, writes readings and keeps both rollups true."""

    interval_ms: int
    timezone: str
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    partitions: Partitions = field(default_factory=lambda: Partitions("readings"))
    _reference: NDArray[np.float32] = field(default_factory=lambda: np.full(1, np.nan, np.float32))
    _learnt: str | None = None

    async def load(self, reader: Reader) -> None:
        """Read what is known of the sensors: at first, after a failure, and when it has changed."""
        self._learnt = await marks.meta(reader, LEARNT)
        known = await sensors.every(reader)
        self.numbers = {sensor.sensor_id: number for number, sensor in known.items()}
        self._reference = _by_number(known)

    async def record(self, writer: Writer, batch: ReadingBatch, received_ms: NDArray[np.int64]) -> Recorded:
        """Store a checked batch, whose rows became known at `received_ms` [n].

        Reference speeds stay as they are until the transaction ends: whoever learns new ones, in whatever process,
        waits, and those learnt since are read first.
        """
        await self._agree(writer)
        if any(code not in self.numbers for code in batch.codes):
            self.numbers |= await sensors.register(writer, batch.codes)
        lookup = np.array([self.numbers[code] for code in batch.codes], np.int32)
        given = Rows(batch.at_ms, lookup[batch.sensor], batch.values, received_ms)
        written = await readings.write(writer, given, self.partitions)
        await self.roll_up(writer, written.added, written.removed)
        return Recorded(given, written, dict(zip(lookup.tolist(), batch.codes, strict=True)))

    async def _agree(self, writer: Writer) -> None:
        await writer.run(_SHARE_REFERENCES)
        if await marks.meta(writer, LEARNT) != self._learnt:
            await self.load(writer)

    async def roll_up(self, writer: Writer, added: Rows, removed: Rows) -> None:
        """Add to the rollups what was added, and take out what was removed."""
        if not len(added):
            return
        changed = readings.join([added, removed])
        sums = np.concatenate([self._sums(added), -self._sums(removed)])
        await self._add_ticks(writer, changed, sums, added)
        await self._add_days(writer, changed, sums)
        if len(removed):
            touched = np.unique(tick_end(removed.ts_ms, self.interval_ms))
            await rollups.recompute_extremes(writer, touched, self.interval_ms)

    async def recompute(self, writer: Writer, day: date) -> None:
        """Compute from the readings again the ticks of a UTC day, and each sensor's sums of the same local day."""
        start_ms = to_ms(datetime.combine(day, time(), UTC))
        local_ms = start_ms - int(utc_offset_ms(np.array([start_ms + DAY_MS // 2]), self.timezone)[0])
        await self._agree(writer)
        first_ms, last_ms = min(start_ms, local_ms - CHANGE_MS), max(start_ms, local_ms + CHANGE_MS) + DAY_MS
        await self.partitions.lock(writer, [day + timedelta(days=days) for days in (-1, 0, 1)])
        rows = await readings.between(writer, first_ms, last_ms)
        sums = self._sums(rows)
        await rollups.forget(writer, day)
        inside = (rows.ts_ms > start_ms) & (rows.ts_ms <= start_ms + DAY_MS)
        await self._add_ticks(writer, rows.take(inside), sums[inside], rows.take(inside))
        inside = local_day(rows.ts_ms, self.timezone) == start_ms // DAY_MS
        await self._add_days(writer, rows.take(inside), sums[inside])

    async def refer(self, writer: Writer, before: Mapping[int, Sensor], speeds: Mapping[int, float]) -> None:
        """Move the rollups from the free speeds of the sensors `before` to their new reference `speeds` in mph.

        Sums are exact, so that what the readings add with the one is taken out, and put in with the other.
        """
        old, new = (_by_number(before) for _ in range(2))
        new[list(speeds)] = list(speeds.values())
        by_day: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for day in await rollups.days(writer):
            async with readings.passing(writer):
                rows = await readings.between(writer, to_ms(day), to_ms(day) + DAY_MS, list(speeds))
            if not len(rows):
                continue
            moved = await asyncio.to_thread(_moved, rows, old, new)
            await self._add_ticks(writer, rows, moved, readings.NOTHING)
            by_day.append(self._by_day(rows, moved))
        for keys, totals in by_day:  # ticks first, as every writer does: or two could wait for each other
            await rollups.add_sensor_days(writer, *_sensor_days(keys), totals)

    async def _add_ticks(self, writer: Writer, rows: Rows, sums: NDArray[np.int64], added: Rows) -> None:
        """Add what `rows` sum to; the speeds of `added` widen the extremes."""
        ticks, totals = group(tick_end(rows.ts_ms, self.interval_ms), sums)
        await rollups.add_ticks(writer, ticks, totals, self._extremes(added, ticks))

    async def _add_days(self, writer: Writer, rows: Rows, sums: NDArray[np.int64]) -> None:
        keys, totals = self._by_day(rows, sums)
        await rollups.add_sensor_days(writer, *_sensor_days(keys), totals)

    def _by_day(self, rows: Rows, sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What `rows` sum to per sensor and local day: keys [n], and totals [n, len(SUMS)]."""
        return group(rows.sensor_no.astype(np.int64) << 32 | local_day(rows.ts_ms, self.timezone), sums)

    def _sums(self, rows: Rows) -> NDArray[np.int64]:
        self._cover(int(rows.sensor_no.max(initial=0)))
        return row_sums(rows.values, self._reference[rows.sensor_no], CONGESTED_BELOW)

    def _cover(self, number: int) -> None:
        """Of sensors up to `number` that are new no reference speed is known."""
        extra = number + 1 - len(self._reference)
        self._reference = np.pad(self._reference, (0, max(extra, 0)), constant_values=np.nan)

    def _extremes(self, rows: Rows, ticks: NDArray[np.int64]) -> NDArray[np.float32]:
        """The least and greatest speed added to each tick [n, 2], NaN where none was."""
        extremes = np.full((len(ticks), 2), (np.inf, -np.inf), np.float32)
        measured = ~np.isnan(rows.values[:, SPEED])
        at = np.searchsorted(ticks, tick_end(rows.ts_ms[measured], self.interval_ms))
        np.minimum.at(extremes[:, 0], at, rows.values[measured, SPEED])
        np.maximum.at(extremes[:, 1], at, rows.values[measured, SPEED])
        return np.where(np.isinf(extremes), np.float32(np.nan), extremes)


def _moved(rows: Rows, old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.int64]:
    """How what each reading adds changes from the `old` free speeds, by number, to the `new` ones."""
    taken, given = (row_sums(rows.values, known[rows.sensor_no], CONGESTED_BELOW) for known in (old, new))
    return given - taken


def _sensor_days(keys: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
    """The sensor numbers and ISO dates of keys."""
    days = [(EPOCH + timedelta(days=day)).date().isoformat() for day in (keys & 0xFFFFFFFF).tolist()]
    return (keys >> 32).astype(np.int32), days


def _by_number(known: Mapping[int, Sensor]) -> NDArray[np.float32]:
    """Free speeds in mph at the index of each sensor's number; NaN where unknown."""
    return np.concatenate([np.full(1, np.nan, np.float32), free_speeds(known)])


async def rebuild_rollups(database: Database, recorder: Recorder) -> None:
    """Compute both rollups again from the readings: the time zone, or what is summed, has changed.

    Each day is a transaction that replaces what was there, so that this may be cut off and begun again.
    """
    async with database.read() as reader:
        await recorder.load(reader)
        stored = await recorder.partitions.days(reader)
    for day in sorted({day + timedelta(days=days) for day in stored for days in (-1, 0, 1)}):
        async with database.write(BULK_TIMEOUT_S) as writer:
            await recorder.recompute(writer, day)


async def learn_references(
    writer: Writer, recorder: Recorder, until_ms: int, *, for_all_times: bool = False
) -> dict[int, float]:
    """Give a reference speed to the sensors that have none and enough readings; in mph by sensor number.

    They hold from `until_ms` on, so that it does not depend on the machine's pace what is judged by them.

    The rollups, which compare speeds with them, follow; nobody records meanwhile. A reference stays once it is known,
    so that what was called congested yesterday is not called otherwise today.
    """
    await writer.run(_OWN_REFERENCES)
    known = await sensors.every(writer)
    lacking = [number for number, sensor in known.items() if sensor.reference_speed is None]
    light = await _light_speeds(writer, lacking, recorder.interval_ms, until_ms)
    speeds = await asyncio.to_thread(_reference_speeds, light)
    learnt = {number: speed for number, speed in zip(lacking, speeds, strict=True) if not np.isnan(speed)}
    if learnt:
        await sensors.set_reference_speeds(writer, learnt, None if for_all_times else from_ms(until_ms))
        await marks.set_meta(writer, LEARNT, uuid4().hex)
        await recorder.refer(writer, known, learnt)
    return learnt


async def _light_speeds(reader: Reader, numbers: Sequence[int], interval_ms: int, until_ms: int) -> NDArray[np.float32]:
    """The speeds in light traffic that sensors have had in the last REFERENCE_DAYS, [ticks, sensors].

    Piece by piece, of which this is all that is kept: these may be all sensors of a state.
    """
    ends = await readings.span(reader)
    if ends is None or not numbers:
        return np.empty((0, len(numbers)), np.float32)
    until_ms = math.ceil(until_ms / interval_ms) * interval_ms
    ticks = max(0, min(until_ms - ends[0] + interval_ms, REFERENCE_DAYS * DAY_MS) // interval_ms)
    light = np.full((ticks, len(numbers)), np.nan, np.float32)
    column = np.zeros(max(numbers) + 1, np.int32)
    column[numbers] = np.arange(len(numbers))
    for first, n, end_ms in parts_of(ticks, len(numbers), until_ms, interval_ms):
        rows = await readings.between(reader, end_ms - n * interval_ms, end_ms, numbers)
        if len(rows):
            light[first : first + n] = await asyncio.to_thread(_light, rows, column, end_ms, n, interval_ms)
    return light


def _light(rows: Rows, column: NDArray[np.int32], end_ms: int, ticks: int, interval_ms: int) -> NDArray[np.float32]:
    sensors = int(column.max()) + 1
    grid = tick_grid(
        column[rows.sensor_no], rows.ts_ms, rows.values,
        end_ms=end_ms, ticks=ticks, sensors=sensors, interval_ms=interval_ms,
    )  # fmt: skip
    return light_speeds(grid[:, :, SPEED], grid[:, :, OCCUPANCY])


def _reference_speeds(light: NDArray[np.float32]) -> list[float]:
    """In mph by column."""
    parts = [reference_speed(light[:, at : at + AT_ONCE]) for at in range(0, light.shape[1], AT_ONCE)]
    return np.concatenate(parts).tolist() if parts else []
