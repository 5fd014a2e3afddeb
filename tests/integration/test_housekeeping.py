"""Partitions are made ahead, and retention drops whole days and what belongs to them."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from integration.databases import connected
from integration.test_api_database import an_issue

from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import DAY_MS, from_ms, rfc3339, to_ms
from roadcast.forecasting.scoring import MEASURES, TENTHS, Sums, Truth
from roadcast.pipeline.checks import check
from roadcast.pipeline.housekeeping import Housekeeping, Retention
from roadcast.pipeline.importing import import_history
from roadcast.pipeline.recorder import Recorder, rebuild_rollups
from roadcast.scoreboard import Group
from roadcast.services import Board
from roadcast.sources.formats import Chunk
from roadcast.storage import forecasts, marks, readings, scored_ticks, scores
from roadcast.storage.partitions import MOST_DAYS, Partitions

NOW = datetime(2026, 3, 10, 15, tzinfo=UTC)


def housekeeping(database, clock, retention, zone="UTC"):
    async def recompute(day):
        async with database.write() as writer:
            await Recorder(300_000, zone).recompute(writer, day)

    own = {"readings": Partitions("readings"), "forecasts": Partitions("forecasts"), "recompute": recompute}
    return Housekeeping(database, clock, Board(clock.now), retention, **own)


def test_the_local_day_of_which_some_hours_are_kept_is_what_its_readings_say(address):
    zone = "America/Los_Angeles"

    async def go():
        async with connected(address) as database:
            hours = np.arange(7 * 24)
            at = np.array([to_ms(NOW) - int(hour) * 3_600_000 for hour in hours], np.int64)
            values = np.full((len(at), 4), np.nan, np.float32)
            values[:, 0] = 50 + hours % 5
            recorder = Recorder(300_000, zone)
            async with database.write() as writer:
                await recorder.record(writer, ReadingBatch(("A",), np.zeros(len(at), np.int32), at, values), at)
            await housekeeping(database, FeedClock(lambda: NOW), Retention(3, 30), zone).keep()
            select = "SELECT * FROM sensor_days ORDER BY day"
            async with database.read() as reader:
                kept = [dict(row) for row in await reader.rows(select)]
            await rebuild_rollups(database, recorder)
            async with database.read() as reader:
                return kept, [dict(row) for row in await reader.rows(select)]

    kept, rebuilt = asyncio.run(go())
    assert kept == rebuilt
    assert (kept[0]["day"], kept[0]["readings"]) == (date(2026, 3, 6), 9)


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

    left, days, rolled, ticks, foreseen = asyncio.run(go())
    kept = [date(2026, 3, day) for day in (7, 8, 9, 10)]
    ahead = {date(2026, 3, day) for day in (10, 11, 12)}
    assert (left, ticks) == (4, 4)
    assert rolled == kept
    assert days == {*kept, *ahead}
    assert foreseen == ahead


def test_scores_are_kept_a_year_and_truth_as_long_as_forecasts(address):
    days = (2, 10, 365, 367)

    async def go():
        async with connected(address) as database:
            ends = np.array(sorted(to_ms(NOW - timedelta(days=day)) for day in days), np.int64)
            speed = np.full((len(days), 1), 50, np.float32)
            async with database.write() as writer:
                batch = ReadingBatch(
                    ("A",), np.zeros(len(days), np.int32), ends, np.full((len(days), 4), 0.5, np.float32)
                )
                await Recorder(300_000, "UTC").record(writer, batch, ends)
                await scored_ticks.keep(writer, Truth(ends, np.array([1], np.int32), speed, speed))
                await forecasts.store(writer, an_issue(NOW - timedelta(days=9), 40), Partitions("forecasts"))
                for day in days:
                    group = Group((NOW - timedelta(days=day)).date(), 8, "last_value", None, 5, "low")
                    await scores.add(writer, [group], Sums(np.ones((1, len(MEASURES))), np.zeros((1, 3, TENTHS))))
            await housekeeping(database, FeedClock(lambda: NOW), Retention(readings=None, forecasts=9)).keep()
            async with database.read() as reader:
                [score] = await scores.since(reader, date(2020, 1, 1))
                found = await scored_ticks.of_times(reader, [from_ms(int(end)) for end in ends])
                return score.measures["n"], found.truth.speed[:, 0].tolist(), found.onset_known.tolist()

    kept, speeds, known = asyncio.run(go())
    assert kept == 3
    assert np.isnan(speeds).tolist() == [True, True, True, False]
    assert known == [True, True, True, False]


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


def test_a_writer_whose_day_was_dropped_makes_it_again(address):
    async def go():
        async with connected(address) as database:
            at = np.array([to_ms(NOW - timedelta(days=20))], np.int64)
            batch = ReadingBatch(("A",), np.zeros(1, np.int32), at, np.full((1, 4), 0.5, np.float32))
            recorder = Recorder(300_000, "UTC")
            left = []
            for _ in range(2):
                async with database.write() as writer:
                    await recorder.record(writer, batch, at)
                await housekeeping(database, FeedClock(lambda: NOW), Retention(readings=3, forecasts=3)).keep()
                async with database.read() as reader:
                    left.append(len(await readings.between(reader, 0, to_ms(NOW))))
            return left

    assert asyncio.run(go()) == [0, 0]


def test_a_day_is_not_dropped_under_its_writer(address):
    async def go():
        async with connected(address) as database:
            at = np.array([to_ms(NOW - timedelta(days=20))], np.int64)
            batch = ReadingBatch(("A",), np.zeros(1, np.int32), at, np.full((1, 4), 0.5, np.float32))
            async with database.write() as writer:
                await Partitions("readings").ensure(writer, [from_ms(int(at[0])).date()])
            async with database.write() as writer:
                await Partitions("readings").ensure(writer, [from_ms(int(at[0])).date()])
                keeper = housekeeping(database, FeedClock(lambda: NOW), Retention(readings=3, forecasts=3))
                keeping = asyncio.create_task(keeper.keep())
                await asyncio.sleep(0.5)
                assert not keeping.done()
                await readings.write(writer, stored(batch), Partitions("readings"))
            await keeping
            async with database.read() as reader:
                return await Partitions("readings").days(reader)

    def stored(batch):
        return readings.Rows(batch.at_ms, batch.sensor + 1, batch.values, batch.at_ms)

    assert min(asyncio.run(go())) == date(2026, 3, 10)


async def imported(database, at, *, retention_days):
    values = np.full((len(at), 4), 0.5, np.float32)
    lines = []
    done = await import_history(
        database,
        [Chunk(ReadingBatch(("A",), np.zeros(len(at), np.int32), at, values), [], 0, 0, len(at))],
        name="file",
        interval_ms=300_000,
        timezone="UTC",
        newest_ms=to_ms(NOW),
        max_future_s=0,
        retention_days=retention_days,
        progress=lambda _rows, found: lines.extend(found),
    )
    return done.account, lines


@pytest.mark.parametrize(("feed", "accepted"), [(None, 2), (Feed("sensors"), 1), (Feed("week", replayed=True), 1)])
def test_what_retention_would_drop_is_refused_by_import(address, feed, accepted):
    async def go():
        async with connected(address) as database:
            if feed is not None:
                async with database.write() as writer:
                    await marks.set_feed(writer, replace(feed, reached_at=NOW if feed.replayed else None))
            at = np.array([to_ms(NOW - timedelta(days=days)) for days in (31, 29)], np.int64)
            return await imported(database, at, retention_days=30)

    account, lines = asyncio.run(go())
    assert (account.received, account.accepted, account.rejected) == (2, accepted, 2 - accepted)
    assert [line.rpartition(": ")[2] for line in lines] == ["expected a time from 2026-02-08T15:00:00Z on"] * (
        2 - accepted
    )


def test_a_request_has_so_many_days_and_no_more():
    at = to_ms(NOW) - DAY_MS * np.arange(MOST_DAYS + 2, dtype=np.int64)
    batch = ReadingBatch(("A",), np.zeros(len(at), np.int32), at, np.full((len(at), 4), 0.5, np.float32))
    checked = check(batch, newest_ms=to_ms(NOW), max_future_s=0)
    assert [(r.index, r.field, r.value) for r in checked.rejections] == [
        (MOST_DAYS + days, "timestamp", rfc3339(from_ms(int(at[MOST_DAYS + days])))) for days in (0, 1)
    ]


async def indexed(database):
    async with database.read() as reader:
        rows = await reader.rows("SELECT tablename, indexdef FROM pg_indexes WHERE indexname LIKE 'readings%sensor'")
    return {row["tablename"]: row["indexdef"].partition(" USING ")[2] for row in rows}


def test_large_days_that_are_closed_have_an_index_by_sensor(address):
    """Yesterday is still written to, and of a small day the key is read through."""
    size = 70_000

    async def go():
        async with connected(address) as database:
            recorder = Recorder(300_000, "UTC")
            for days, rows in ((1, size), (2, size), (3, 10), (4, size)):
                at = to_ms(NOW.replace(hour=0) - timedelta(days=days)) + 1 + 1000 * np.arange(rows, dtype=np.int64)
                batch = ReadingBatch(("A",), np.zeros(rows, np.int32), at, np.full((rows, 4), 0.5, np.float32))
                async with database.write() as writer:
                    await recorder.record(writer, batch, at)
            house = housekeeping(database, FeedClock(lambda: NOW), Retention(readings=None, forecasts=3))
            await house.keep()
            first = await indexed(database)
            async with database.write() as writer:  # as where its making was cut off
                await writer.run(
                    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'readings_20260306_sensor'::regclass"
                )
            await house.keep()
            async with database.read() as reader:
                valid = await reader.value(
                    "SELECT indisvalid FROM pg_index WHERE indexrelid = 'readings_20260306_sensor'::regclass"
                )
            return first, valid

    first, valid = asyncio.run(go())
    assert first == {f"readings_202603{day}": "btree (sensor_no, ts)" for day in ("06", "08")}
    assert valid
