"""Readings in a real PostgreSQL, held against a model in a dictionary."""

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.databases import connected

from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import from_ms, to_ms
from roadcast.pipeline.recorder import Recorder, rebuild_rollups
from roadcast.storage import readings, rollups, sensors
from roadcast.storage.partitions import Partitions
from roadcast.storage.readings import Outcome, Rows

NOON = to_ms(datetime(2026, 3, 2, 12, tzinfo=UTC))
MINUTE = 60_000


def rows(*items, received=NOON) -> Rows:
    """Rows of (minute, sensor, speed)."""
    values = np.full((len(items), 4), np.nan, np.float32)
    values[:, 0] = [np.nan if speed is None else speed for _, _, speed in items]
    return Rows(
        np.array([NOON + minute * MINUTE for minute, _, _ in items], np.int64),
        np.array([sensor for _, sensor, _ in items], np.int32),
        values,
        np.full(len(items), received, np.int64),
    )


async def stored(database) -> dict[tuple[int, int], float | None]:
    async with database.read() as reader:
        found = await readings.between(reader, NOON - 10_000 * MINUTE, NOON + 10_000 * MINUTE)
    speeds = [None if np.isnan(v) else float(v) for v in found.values[:, 0]]
    return dict(zip(zip(((found.ts_ms - NOON) // MINUTE).tolist(), found.sensor_no.tolist()), speeds))


def test_fresh_repeated_and_corrected_rows(address):
    async def go():
        async with connected(address) as database:
            partitions = Partitions("readings")
            async with database.write() as writer:
                first = await readings.write(writer, rows((0, 1, 50.0), (0, 2, 0.0), (0, 1, 50.0)), partitions)
            async with database.write() as writer:
                again = await readings.write(
                    writer, rows((0, 1, 40.0), (0, 2, 0.0), (0, 1, 30.0), (5, 1, None), received=NOON + 1), partitions
                )
            async with database.read() as reader:
                revisions = await reader.rows(
                    "SELECT sensor_no, speed, received_at, replaced_at FROM reading_revisions ORDER BY speed DESC"
                )
            return first, again, await stored(database), [tuple(r.values()) for r in revisions]

    first, again, found, revisions = asyncio.run(go())
    assert first.outcome.tolist() == [Outcome.FRESH, Outcome.FRESH, Outcome.DUPLICATE]
    assert again.outcome.tolist() == [Outcome.CORRECTION, Outcome.DUPLICATE, Outcome.CORRECTION, Outcome.FRESH]
    assert found == {(0, 1): 30.0, (0, 2): 0.0, (5, 1): None}
    assert revisions == [
        (1, 50.0, from_ms(NOON), from_ms(NOON + 1)),
        (1, 40.0, from_ms(NOON + 1), from_ms(NOON + 1)),
    ]


batches = st.lists(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 4), st.sampled_from([0.0, 31.5, 62.25, None])),
        min_size=1,
        max_size=20,
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture
def emptied(address):
    async def empty():
        async with connected(address) as database, database.write() as writer:
            await writer.run("TRUNCATE readings, reading_revisions, ticks, sensor_days, sensors, links")

    return address, lambda: asyncio.run(empty())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_any_batches_leave_the_last_values_and_true_rollups(emptied, sent):
    address, empty = emptied
    empty()

    async def go():
        model, outcomes, expected = {}, [], []
        async with connected(address) as database:
            recorder = Recorder(5 * MINUTE, "UTC")
            for batch in sent:
                given_rows = rows(*batch)
                async with database.write() as writer:
                    recorded = await recorder.record(
                        writer,
                        ReadingBatch(
                            ("A", "B", "C", "D"), given_rows.sensor_no - 1, given_rows.ts_ms, given_rows.values
                        ),
                        given_rows.received_ms,
                    )
                outcomes += recorded.written.outcome.tolist()
                for minute, sensor, speed in batch:
                    key, before = (minute, sensor), model.get((minute, sensor), "nothing")
                    expected.append(
                        Outcome.FRESH
                        if before == "nothing"
                        else Outcome.DUPLICATE
                        if before == speed
                        else Outcome.CORRECTION
                    )
                    model[key] = speed
            kept = await rollup_rows(database)
            await rebuild_rollups(database, recorder)
            return model, outcomes, expected, await stored(database), kept, await rollup_rows(database)

    model, outcomes, expected, found, kept, rebuilt = asyncio.run(go())
    assert found == model
    assert outcomes == expected
    assert kept == rebuilt
    for row in kept[0]:
        inside = [v for (m, _), v in model.items() if row["tick_end"] == from_ms(NOON - (-m // 5) * 5 * MINUTE)]
        speeds = [v for v in inside if v is not None]
        assert (row["readings"], row["speed_n"], row["speed_sum"]) == (len(inside), len(speeds), sum(speeds) * 1000)
        assert (row["speed_min"], row["speed_max"]) == (min(speeds, default=None), max(speeds, default=None))


async def rollup_rows(database):
    async with database.read() as reader:
        ticks = await reader.rows("SELECT * FROM ticks WHERE readings > 0 ORDER BY tick_end")
        days = await reader.rows("SELECT * FROM sensor_days WHERE readings > 0 ORDER BY sensor_no, day")
    return [dict(row) for row in ticks], [dict(row) for row in days]


def test_a_failed_transaction_leaves_nothing(address):
    async def go():
        async with connected(address) as database:
            partitions = Partitions("readings")
            with pytest.raises(ZeroDivisionError):
                async with database.write() as writer:
                    await readings.write(writer, rows((0, 1, 50.0)), partitions)
                    raise ZeroDivisionError
            before = await stored(database)
            async with database.write() as writer:
                await readings.write(writer, rows((0, 1, 50.0)), partitions)
            return before, await stored(database)

    assert asyncio.run(go()) == ({}, {(0, 1): 50.0})


def test_concurrent_writers_of_the_same_ticks_count_each_reading_once(address):
    async def go():
        async with connected(address) as database:

            async def write():
                async with database.write() as writer:
                    written = await readings.write(
                        writer, rows(*((m, s, 50.0) for m in range(40) for s in (1, 2, 3))), Partitions("readings")
                    )
                return int((written.outcome == Outcome.FRESH).sum())

            return sorted(await asyncio.gather(*(write() for _ in range(4)))), len(await stored(database))

    assert asyncio.run(go()) == ([0, 0, 0, 120], 120)


def test_as_it_was_known_then(address):
    async def go():
        async with connected(address) as database:
            async with database.write() as writer:
                numbers = await sensors.register(writer, ["A"])
            recorder = Recorder(5 * MINUTE, "UTC")
            for speed, received in ((50.0, NOON), (40.0, NOON + 10 * MINUTE)):
                values = np.array([[speed, np.nan, np.nan, np.nan]], np.float32)
                batch = ReadingBatch(("A",), np.zeros(1, np.int32), np.array([NOON], np.int64), values)
                async with database.write() as writer:
                    await recorder.record(writer, batch, np.array([received]))
            found = []
            async with database.read() as reader:
                for as_of in (None, NOON - 1, NOON, NOON + 10 * MINUTE):
                    at = None if as_of is None else from_ms(as_of)
                    latest = await readings.latest(reader, at)
                    page = await readings.page(
                        reader,
                        since=from_ms(NOON - MINUTE),
                        until=from_ms(NOON),
                        limit=9,
                        sensor_no=numbers["A"],
                        as_of=at,
                    )
                    between = await readings.between(reader, NOON - MINUTE, NOON, [numbers["A"]], at)
                    assert latest.values[:, 0].tolist() == page.values[:, 0].tolist() == between.values[:, 0].tolist()
                    found.append(latest.values[:, 0].tolist())
            return found

    assert asyncio.run(go()) == [[40.0], [], [50.0], [40.0]]


def test_pages_follow_each_other_newest_first(address):
    async def go():
        async with connected(address) as database:
            async with database.write() as writer:
                await readings.write(
                    writer, rows(*((m, s, float(m)) for m in (1, 2, 3) for s in (1, 2))), Partitions("readings")
                )
            got, before = [], None
            async with database.read() as reader:
                while True:
                    page = await readings.page(
                        reader, since=from_ms(NOON), until=from_ms(NOON + 5 * MINUTE), limit=4, before=before
                    )
                    got.append(
                        [((t - NOON) // MINUTE, s) for t, s in zip(page.ts_ms.tolist(), page.sensor_no.tolist())]
                    )
                    if len(page) < 4:
                        return got
                    before = (from_ms(int(page.ts_ms[-1])), int(page.sensor_no[-1]))

    assert asyncio.run(go()) == [[(3, 1), (3, 2), (2, 1), (2, 2)], [(1, 1), (1, 2)]]


def test_rollups_by_bucket_and_local_day(address):
    async def go():
        async with connected(address) as database:
            recorder = Recorder(5 * MINUTE, "America/Los_Angeles")
            at = [to_ms(datetime(2026, 3, 2, 8, 0, tzinfo=UTC)), to_ms(datetime(2026, 3, 2, 8, 5, tzinfo=UTC))]
            values = np.array([[60, 10, np.nan, 0.1], [30, 30, np.nan, 0.3]], np.float32)
            async with database.write() as writer:
                await recorder.record(
                    writer, ReadingBatch(("A",), np.zeros(2, np.int32), np.array(at), values), np.array(at)
                )
            since, until = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC)
            async with database.read() as reader:
                hours = await rollups.by_bucket(reader, since, until, 3600)
                days = await rollups.by_day(reader, since, until, "America/Los_Angeles")
                own = await rollups.by_day(reader, since, until, "America/Los_Angeles", sensor_no=1)
                total, low, high = await rollups.over(reader, since, until)
        return hours, days, own, (total.speed, total.weighting, total.volume, low, high)

    hours, days, own, total = asyncio.run(go())
    assert [(start.hour, sums.readings) for start, sums in hours] == [(7, 1), (8, 1)]
    assert [(day, sums.speed) for day, sums in days] == [("2026-03-01", 60.0), ("2026-03-02", 30.0)]
    assert own == days
    assert total == ((60 * 10 + 30 * 30) / 40, "volume", 20.0, 30.0, 60.0)
