"""Rollups that change after the fact: learnt references, another time zone, a schema of before."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
import pytest
from alembic import command
from alembic.config import Config
from integration.databases import connected, conninfo
from sqlalchemy import create_engine

import roadcast.storage
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.sensor import Sensor
from roadcast.domain.times import from_ms, to_ms
from roadcast.pipeline.recorder import Recorder, learn_references, rebuild_rollups
from roadcast.settings import Settings
from roadcast.storage import readings, sensors
from roadcast.storage.engine import Address, Database
from roadcast.store import prepare

TICK_MS = 300_000
FIRST = to_ms(datetime(2026, 3, 7, 22, tzinfo=UTC))
"""The clocks of Los Angeles change in the night after."""
TICKS = 400
ZONE = "America/Los_Angeles"


def history(seed: int = 0, ticks: int = TICKS) -> ReadingBatch:
    """A and B in every window, C in the first ten; volumes are often zero, speeds sometimes."""
    random = np.random.default_rng(seed)
    at = np.repeat(FIRST + TICK_MS * np.arange(ticks), 3)
    sensor = np.tile(np.arange(3, dtype=np.int32), ticks)
    values = np.full((at.size, 4), np.nan, np.float32)
    values[:, 0] = random.uniform(0, 70, at.size) * (random.random(at.size) < 0.9)
    values[:, 1] = random.integers(0, 3, at.size)
    kept = (sensor < 2) | (at < FIRST + 10 * TICK_MS)
    return ReadingBatch(("A", "B", "C"), sensor[kept], at[kept], values[kept])


async def record(database: Database, recorder: Recorder, batch: ReadingBatch) -> None:
    async with database.write() as writer:
        await recorder.record(writer, batch, batch.at_ms)


async def rollups(database: Database) -> list[list[dict[str, object]]]:
    selects = (
        "SELECT * FROM ticks WHERE readings > 0 ORDER BY tick_end",
        "SELECT * FROM sensor_days WHERE readings > 0 ORDER BY sensor_no, day",
    )
    async with database.read() as reader:
        return [[dict(row) for row in await reader.rows(select)] for select in selects]


async def described(database: Database) -> Recorder:
    async with database.write() as writer:
        await sensors.describe(writer, [Sensor("A"), Sensor("B", speed_limit=55.0), Sensor("C")])
    recorder = Recorder(TICK_MS, ZONE)
    async with database.read() as reader:
        await recorder.load(reader)
    return recorder


def test_what_is_learnt_changes_the_rollups_and_holds_nobody_up(address):
    async def go() -> None:
        async with connected(address) as database:
            recorder = await described(database)
            await record(database, recorder, history())
            before = await rollups(database)
            async with database.write() as writer:
                learnt = await learn_references(writer, recorder, FIRST + TICKS * TICK_MS)
                async with database.read(timeout_s=2) as reader:
                    assert await readings.span(reader) == (FIRST, FIRST + (TICKS - 1) * TICK_MS)
            await record(database, recorder, history(seed=1, ticks=20))
            after = await rollups(database)
            assert sorted(learnt) == [1, 2]
            assert [row["compared_n"] for row in before[1]] != [row["compared_n"] for row in after[1]]
            await rebuild_rollups(database, Recorder(TICK_MS, ZONE))
            assert after == await rollups(database)

    asyncio.run(go())


def test_whoever_records_beside_the_learner_sums_by_what_it_learnt(address):
    async def go() -> None:
        async with connected(address) as database:
            recorder, other = await described(database), Recorder(TICK_MS, ZONE)
            await record(database, recorder, history())
            async with database.read() as reader:
                await other.load(reader)
            async with database.write() as writer:
                await learn_references(writer, recorder, FIRST + TICKS * TICK_MS)
                waits = asyncio.create_task(record(database, other, history(seed=2, ticks=30)))
                await asyncio.sleep(0.2)
                assert not waits.done()
            await waits
            kept = await rollups(database)
            await rebuild_rollups(database, Recorder(TICK_MS, ZONE))
            assert kept == await rollups(database)

    asyncio.run(go())


def test_what_was_learnt_in_vain_is_not_known(address):
    async def go() -> None:
        async with connected(address) as database:
            recorder = await described(database)
            await record(database, recorder, history())
            with pytest.raises(ZeroDivisionError):
                async with database.write() as writer:
                    assert await learn_references(writer, recorder, FIRST + TICKS * TICK_MS)
                    raise ZeroDivisionError
            await record(database, recorder, history(seed=1, ticks=20))
            kept = await rollups(database)
            await rebuild_rollups(database, recorder)
            assert kept == await rollups(database)

    asyncio.run(go())


def settings(**said: object) -> Settings:
    return Settings(_env_file=None, **said)


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns", "Pacific/Kiritimati"])
def test_another_time_zone_sums_the_days_again(address, zone: str):
    async def go() -> None:
        async with connected(address) as database:
            recorder = await described(database)
            await prepare(settings(timezone=ZONE), address, database)
            await record(database, recorder, history())
            await prepare(settings(timezone=zone), address, database)
            found = await rollups(database)
            async with database.write() as writer:
                await writer.run("TRUNCATE readings, reading_revisions, ticks, sensor_days")
            recorder.timezone = zone
            await record(database, recorder, history())
            assert found == await rollups(database)

    asyncio.run(go())


def at_revision(address: Address, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(roadcast.storage.__file__).parent / "migrations"))
    engine = create_engine(address.url())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if revision == "base" else command.upgrade)(config, revision)
    engine.dispose()


def test_a_store_of_before_is_brought_up_to_date(address):
    """One row by hand, as the first schema held it; what its rollups said does not matter."""
    at_revision(address, "base")
    at_revision(address, "0001")
    with psycopg.connect(conninfo(address), autocommit=True) as connection:
        for statement in (
            "INSERT INTO sensors (sensor_no, sensor_id, reference_speed) VALUES (1, 'A', 60), (2, 'B', NULL)",
            """CREATE TABLE readings_20260302 PARTITION OF readings
            FOR VALUES FROM ('2026-03-02 00:00:00+00') TO ('2026-03-03 00:00:00+00')""",
            """INSERT INTO readings (ts, sensor_no, speed, volume, received_at) VALUES
            ('2026-03-02 12:00+00', 1, 30, 10, now()), ('2026-03-02 12:00+00', 2, 50, 30, now()),
            ('2026-03-02 12:05+00', 1, 0, 0, now())""",
            "INSERT INTO ticks VALUES ('2026-03-02 12:00+00', 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7)",
            "INSERT INTO meta VALUES ('timezone', 'UTC'), ('interval_s', '300')",
        ):
            connection.execute(statement)

    async def go() -> None:
        async with connected(address) as database:
            await prepare(settings(timezone="UTC"), address, database)
            ticks, days = await rollups(database)
        names = ("readings", "weighted_n", "weighted_sum", "compared_n", "compared_weighted_sum", "reference_sum")
        assert [[row[name] for name in names] for row in ticks] == [
            [2, 2, 1_800_000, 1, 300_000, 60_000],
            [1, 0, 0, 1, 0, 60_000],
        ]
        assert [[row[name] for name in names] for row in days] == [
            [2, 1, 300_000, 2, 300_000, 120_000],
            [1, 1, 1_500_000, 0, 0, 0],
        ]

    asyncio.run(go())


def test_the_newest_reading_is_not_the_end_of_its_window(address):
    async def go() -> None:
        async with connected(address) as database:
            async with database.read() as reader:
                assert await readings.newest_ms(reader) is None
            batch = history(ticks=3)
            await record(database, Recorder(TICK_MS, ZONE), replace(batch, at_ms=batch.at_ms - 100_000))
            async with database.read() as reader:
                assert await readings.newest_ms(reader) == FIRST + 2 * TICK_MS - 100_000
                assert (await readings.span(reader) or (0, 0))[1] == FIRST + 2 * TICK_MS

    asyncio.run(go())


@pytest.mark.parametrize("as_of_day", [None, 30, 95, 400])
def test_the_newest_of_every_sensor_is_found_however_long_it_is_silent(address, as_of_day: int | None):
    """What a sensor says becomes known weeks later, so that its newest days may still be unknown at a time."""
    random = np.random.default_rng(5)
    day = random.integers(0, 300, 400)
    sensor = random.integers(0, 6, 400).astype(np.int32)
    at = FIRST + day * 86_400_000 + random.integers(0, 288, 400) * TICK_MS
    known = at + random.integers(0, 90, 400) * 86_400_000
    values = np.full((400, 4), np.nan, np.float32)
    values[:, 0] = np.arange(400) % 50
    order = np.argsort(day)
    as_of_ms = None if as_of_day is None else FIRST + as_of_day * 86_400_000

    async def go() -> dict[int, int]:
        async with connected(address) as database:
            recorder = Recorder(TICK_MS, "Pacific/Kiritimati")
            for rows in np.array_split(order, 5):
                batch = ReadingBatch(tuple("ABCDEF"), sensor[rows], at[rows], values[rows])
                async with database.write() as writer:
                    await recorder.record(writer, batch, known[rows])
            async with database.read() as reader:
                found = await readings.latest(reader, None if as_of_ms is None else from_ms(as_of_ms))
        return dict(zip(found.sensor_no.tolist(), found.ts_ms.tolist(), strict=True))

    first_known: dict[tuple[int, int], int] = {}
    for row in order.tolist():  # of a key that comes twice the first is kept as a revision
        key = (int(sensor[row]) + 1, int(at[row]))
        first_known[key] = min(first_known.get(key, known[row]), known[row])
    expected: dict[int, int] = {}
    for (number, ts), since in first_known.items():
        if as_of_ms is None or (ts <= as_of_ms and since <= as_of_ms):
            expected[number] = max(expected.get(number, 0), ts)
    assert expected
    assert asyncio.run(go()) == expected
