"""Thousands of days, on a PostgreSQL that has few locks, as any has for the days of some years."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from integration.databases import connected
from integration.test_housekeeping import housekeeping

from roadcast.domain.clock import FeedClock
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import DAY_MS, from_ms, to_ms
from roadcast.embedded import postgres
from roadcast.pipeline.housekeeping import Retention
from roadcast.pipeline.importing import Imported, import_history
from roadcast.pipeline.recorder import Recorder
from roadcast.sources.formats import Chunk
from roadcast.storage import readings, sensors
from roadcast.storage.engine import Address, Database
from roadcast.storage.migrate import migrate
from roadcast.storage.partitions import Partitions

DAYS = 800
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
"""Two locks a day are more than the server has; so are nine for each of a quarter of them."""


@pytest.fixture
def few_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """A server with some 1,500 locks."""
    monkeypatch.setitem(postgres.CONFIGURATION, "max_locks_per_transaction", "24")
    monkeypatch.setitem(postgres.CONFIGURATION, "max_connections", "20")
    folder = Path(tempfile.mkdtemp(prefix="roadcast-tests-"))
    folder.chmod(0o755)
    try:
        with postgres.running(folder) as found:
            address = Address(**asdict(found))
            migrate(address, timeout_s=10)
            yield address
    finally:
        shutil.rmtree(folder)


async def import_days(database: Database) -> Imported:
    """One reading a day, of A or of B, whose last one is of the 100th day."""
    at = to_ms(FIRST) + DAY_MS * np.arange(DAYS, dtype=np.int64)
    values = np.full((DAYS, 4), np.nan, np.float32)
    values[:, 0] = np.arange(DAYS) % 70
    chunk = Chunk(ReadingBatch(("A", "B"), (np.arange(DAYS) < 100).astype(np.int32), at, values), [], 0, 0, DAYS)
    return await import_history(
        database,
        [chunk],
        name="days",
        interval_ms=300_000,
        timezone="UTC",
        newest_ms=to_ms(FIRST) + DAYS * DAY_MS,
        max_future_s=0,
        retention_days=None,
        progress=lambda _rows, _lines: None,
    )


def test_many_days_are_stored_read_summed_again_and_dropped(few_locks):
    async def go() -> None:
        async with connected(few_locks) as database:
            assert (await import_days(database)).account.accepted == DAYS
            async with database.read() as reader:
                newest = await readings.latest(reader)
                past = await readings.latest(reader, FIRST + timedelta(days=50))
            last = [to_ms(FIRST) + day * DAY_MS for day in (DAYS - 1, 99, 50)]
            assert sorted(newest.ts_ms.tolist()) == sorted(last[:2])
            assert past.ts_ms.tolist() == last[2:]

            recorder = Recorder(300_000, "UTC")
            async with database.write() as writer:
                await recorder.refer(writer, await sensors.every(writer), {1: 60.0, 2: 60.0})
                assert await writer.value("SELECT sum(compared_n) FROM sensor_days") == DAYS
            batch = ReadingBatch(("A",), np.zeros(1, np.int32), np.array(last[:1]), np.full((1, 4), 0.5, np.float32))
            async with database.write() as writer:
                await recorder.record(writer, batch, np.array(last[:1]))
            async with database.read() as reader:
                assert (
                    await reader.value("SELECT speed_sum FROM ticks WHERE tick_end = :at", at=from_ms(last[0])) == 500
                )

            now = FIRST + timedelta(days=DAYS)
            await housekeeping(database, FeedClock(lambda: now), Retention(readings=3, forecasts=3)).keep()
            async with database.read() as reader:
                days = await Partitions("readings").days(reader)
                assert (min(days), await reader.value("SELECT count(*) FROM ticks")) == (date(2022, 3, 8), 3)

    asyncio.run(go())
