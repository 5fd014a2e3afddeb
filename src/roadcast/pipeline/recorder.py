"""Recording: readings and their rollups, in the caller's transaction."""

from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import OCCUPANCY, SPEED, ReadingBatch
from roadcast.domain.sensor import free_speeds
from roadcast.domain.times import DAY_MS, EPOCH, to_ms
from roadcast.flow.congestion import CONGESTED_BELOW, reference_speed
from roadcast.storage import readings, rollups, sensors
from roadcast.storage.engine import Reader, Writer
from roadcast.storage.partitions import Partitions
from roadcast.storage.readings import Rows, Written
from roadcast.windows import group, local_day, row_sums, tick_end, tick_grid

REFERENCE_DAYS = 28
"""How far back reference speeds look: four weeks hold every kind of day."""


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

    async def load(self, reader: Reader) -> None:
        """Read what is known of the sensors: at first, after a failure, and when it has changed."""
        known = await sensors.every(reader)
        self.numbers = {sensor.sensor_id: number for number, sensor in known.items()}
        self._reference = np.concatenate([np.full(1, np.nan, np.float32), free_speeds(known)])  # by number

    async def record(self, writer: Writer, batch: ReadingBatch, received_ms: NDArray[np.int64]) -> Recorded:
        """Store a checked batch, whose rows became known at `received_ms` [n]."""
        if any(code not in self.numbers for code in batch.codes):
            self.numbers |= await sensors.register(writer, batch.codes)
        lookup = np.array([self.numbers[code] for code in batch.codes], np.int32)
        given = Rows(batch.at_ms, lookup[batch.sensor], batch.values, received_ms)
        written = await readings.write(writer, given, self.partitions)
        await self.roll_up(writer, written.added, written.removed)
        return Recorded(given, written, dict(zip(lookup.tolist(), batch.codes, strict=True)))

    async def roll_up(self, writer: Writer, added: Rows, removed: Rows) -> None:
        """Add to the rollups what was added, and take out what was removed."""
        if not len(added):
            return
        extra = int(added.sensor_no.max()) + 1 - len(self._reference)
        self._reference = np.pad(self._reference, (0, max(extra, 0)), constant_values=np.nan)
        ts = np.concatenate([added.ts_ms, removed.ts_ms])
        number = np.concatenate([added.sensor_no, removed.sensor_no]).astype(np.int64)
        sums = np.concatenate([self._sums(added), -self._sums(removed)])
        ticks, totals = group(tick_end(ts, self.interval_ms), sums)
        await rollups.add_ticks(writer, ticks, totals, self._extremes(added, ticks))
        if len(removed):
            touched = np.unique(tick_end(removed.ts_ms, self.interval_ms)).tolist()
            await rollups.recompute_extremes(writer, touched, self.interval_ms)
        keys, totals = group(number << 32 | local_day(ts, self.timezone), sums)
        days = [(EPOCH + timedelta(days=day)).date().isoformat() for day in (keys & 0xFFFFFFFF).tolist()]
        await rollups.add_sensor_days(writer, (keys >> 32).astype(np.int32), days, totals)

    def _sums(self, rows: Rows) -> NDArray[np.int64]:
        return row_sums(rows.values, self._reference[rows.sensor_no], CONGESTED_BELOW)

    def _extremes(self, rows: Rows, ticks: NDArray[np.int64]) -> NDArray[np.float32]:
        """The least and greatest speed added to each tick [n, 2], NaN where none was."""
        extremes = np.full((len(ticks), 2), (np.inf, -np.inf), np.float32)
        measured = ~np.isnan(rows.values[:, SPEED])
        at = np.searchsorted(ticks, tick_end(rows.ts_ms[measured], self.interval_ms))
        np.minimum.at(extremes[:, 0], at, rows.values[measured, SPEED])
        np.maximum.at(extremes[:, 1], at, rows.values[measured, SPEED])
        return np.where(np.isinf(extremes), np.float32(np.nan), extremes)


async def rebuild_rollups(writer: Writer, recorder: Recorder) -> None:
    """Compute both rollups again from the readings: reference speeds or the time zone have changed."""
    await recorder.load(writer)
    days = await rollups.days(writer)
    await rollups.clear(writer)
    nothing = await readings.between(writer, 0, 0)
    for start in map(to_ms, days):
        await recorder.roll_up(writer, await readings.between(writer, start, start + DAY_MS), nothing)


async def learn_references(writer: Writer, recorder: Recorder, until_ms: int) -> int:
    """Give a reference speed to the sensors that have neither one nor a limit and enough readings; to how many.

    The rollups, which count congested readings, are built again. A reference stays once it is known, so that
    what was called congested yesterday is not called otherwise today.
    """
    lacking = [number for number, sensor in (await sensors.every(writer)).items() if sensor.reference_speed is None]
    if not lacking:
        return 0
    rows = await readings.between(writer, until_ms - REFERENCE_DAYS * DAY_MS, until_ms)
    if not len(rows):
        return 0
    ticks = (until_ms - int(rows.ts_ms[0])) // recorder.interval_ms + 1
    grid = tick_grid(
        rows.sensor_no - 1,
        rows.ts_ms,
        rows.values,
        end_ms=until_ms,
        ticks=ticks,
        sensors=max(lacking + rows.sensor_no.tolist()),
        interval_ms=recorder.interval_ms,
    )
    speeds = reference_speed(grid[:, :, SPEED], grid[:, :, OCCUPANCY])
    learnt = {number: float(speeds[number - 1]) for number in lacking if not np.isnan(speeds[number - 1])}
    if learnt:
        await sensors.set_reference_speeds(writer, learnt)
        await rebuild_rollups(writer, recorder)
    return len(learnt)
