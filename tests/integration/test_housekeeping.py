"""Partitions are made ahead, and retention drops whole days and what belongs to them."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import numpy as np
from integration.databases import connected

from roadcast.domain.clock import FeedClock
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import to_ms
from roadcast.pipeline.housekeeping import Housekeeping, Retention
from roadcast.pipeline.recorder import Recorder
from roadcast.services import Board
from roadcast.storage import readings
from roadcast.storage.partitions import Partitions

NOW = datetime(2026, 3, 10, 15, tzinfo=UTC)


def housekeeping(database, clock, retention):
    own = {"readings": Partitions("readings"), "forecasts": Partitions("forecasts")}
    return Housekeeping(database, clock, Board(clock.now), retention, **own)


def test_old_days_go_and_new_ones_are_there(address):
    async def go():
        async with connected(address) as database:
            at = np.array([to_ms(NOW - timedelta(days=days)) for days in range(6)], np.int64)
            values = np.full((6, 4), 50, np.float32)
            values[:, 3] = 0.1
            async with database.write() as writer:
                batch = ReadingBatch(("A",), np.zeros(6, np.int32), at, values)
                await Recorder(300_000, "UTC").record(writer, batch, at)
            clock = FeedClock(lambda: NOW)
            await housekeeping(database, clock, Retention(readings=3, forecasts=3)).keep()
            async with database.read() as reader:
                left = await readings.between(reader, 0, to_ms(NOW))
                days = await Partitions("readings").days(reader)
                rolled = await reader.rows("SELECT day FROM sensor_days ORDER BY day")
                ticks = await reader.value("SELECT count(*) FROM ticks")
                return (
                    len(left),
                    days,
                    [row["day"] for row in rolled],
                    ticks,
                    await Partitions("forecasts").days(reader),
                )

    left, days, rolled, ticks, forecasts = asyncio.run(go())
    kept = [date(2026, 3, day) for day in (7, 8, 9, 10)]
    ahead = {date(2026, 3, day) for day in (10, 11, 12)}
    assert (left, ticks) == (4, 4)
    assert rolled == kept
    assert days == {*kept, *ahead}
    assert forecasts == ahead


def test_without_retention_everything_stays(address):
    async def go():
        async with connected(address) as database:
            at = np.array([to_ms(NOW - timedelta(days=2000))], np.int64)
            async with database.write() as writer:
                batch = ReadingBatch(("A",), np.zeros(1, np.int32), at, np.zeros((1, 4), np.float32))
                await Recorder(300_000, "UTC").record(writer, batch, at)
            clock = FeedClock(lambda: NOW)
            await housekeeping(database, clock, Retention(readings=None, forecasts=3)).keep()
            async with database.read() as reader:
                return len(await readings.between(reader, 0, to_ms(NOW)))

    assert asyncio.run(go()) == 1
