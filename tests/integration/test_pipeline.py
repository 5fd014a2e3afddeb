"""Ingest, predict and score together, on a real PostgreSQL and the log in memory."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
from integration.databases import connected, conninfo

from roadcast.blobs.file import FileBlobs
from roadcast.domain.clock import FeedClock
from roadcast.domain.reading import ReadingBatch, Source, merge
from roadcast.domain.times import from_ms, to_ms
from roadcast.errors import Conflict
from roadcast.flow.congestion import UNKNOWN
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.scoring import SERVED
from roadcast.pipeline.champion import Throne
from roadcast.pipeline.ingest import Ingest, IngestConfig
from roadcast.pipeline.predict import CATCH_UP_TICKS, EngineConfig, Predict, PredictConfig
from roadcast.pipeline.score import ScoreConfig, Scorer
from roadcast.registry.registry import Registry
from roadcast.services import Board, Status
from roadcast.storage import forecasts, marks, scores
from roadcast.streaming.memory import MemoryLog
from roadcast.streaming.messages import IssueComplete, ReadingStored, TickClosed, decode

INTERVAL = 300_000
START = to_ms(datetime(2026, 3, 2, tzinfo=UTC))
CODES = ("A", "B", "C")


class Pipeline:
    """The three services, running."""

    def __init__(self, database, *, now, pinned_to=None, register=True, idle_s=30.0, models=Path("/nonexistent")):
        self.database = database
        self.registry = Registry(FileBlobs(models), lambda: now)
        self.log = MemoryLog()
        self.clock = FeedClock(lambda: now)
        self.board = Board(self.clock.wall)
        self.throne = Throne(self.registry, 24, INTERVAL // 1000, self.board)
        self.ingest = Ingest(
            database,
            self.log,
            self.clock,
            self.board,
            IngestConfig("a", INTERVAL, "UTC", 300, 86_400, idle_s, 1_000_000, register, pinned_to),
            self._visible,
            self._begun,
        )
        self.predict = Predict(
            database,
            self.log,
            self.clock,
            self.board,
            PredictConfig("a", "p", INTERVAL, 12, "UTC", EngineConfig(24, Tolerance(5, 0.1))),
            self.throne,
            self.ingest.learn_references,
        )
        self.scorer = Scorer(database, self.log, self.board, ScoreConfig("p", INTERVAL, 12, "UTC"))
        self.messages = []

    async def _visible(self, position):
        pass

    async def _begun(self):
        pass

    async def record(self, topic):
        async with self.log.tail(topic) as tail:
            async for batch in tail.batches(1000):
                self.messages += [decode(record.value) for record in batch]

    async def issued(self, at_ms):
        """Wait for the issue of a tick."""
        async with asyncio.timeout(60):
            while not any(isinstance(m, IssueComplete) and m.issued_ms == at_ms for m in self.messages):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def scored(self, at_ms):
        """Wait until everything up to a tick is scored."""
        async with asyncio.timeout(60):
            while True:
                async with self.database.read() as reader:
                    if await reader.value("SELECT max(tick_end) FROM scored_ticks") == from_ms(at_ms):
                        return
                await asyncio.sleep(0.1)


@asynccontextmanager
async def running(address, *, services=("ingest", "predict", "score"), **options):
    async with connected(address) as database:
        pipeline = Pipeline(database, **options)
        loops = {"ingest": pipeline.ingest.run, "predict": pipeline.predict.run, "score": pipeline.scorer.run}
        tasks = [asyncio.create_task(loops[name]()) for name in services]
        tasks += [asyncio.create_task(pipeline.record(topic)) for topic in ("a", "p")]
        await asyncio.sleep(0.2)
        try:
            yield pipeline
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


def tick(i, speeds, codes=CODES):
    """The readings of tick i; None leaves a sensor out."""
    sensor = [s for s, speed in enumerate(speeds) if speed is not None]
    values = np.full((len(sensor), 4), np.nan, np.float32)
    values[:, 0] = [speeds[s] for s in sensor]
    at = np.full(len(sensor), START + i * INTERVAL, np.int64)
    return ReadingBatch(codes, np.array(sensor, np.int32), at, values)


def replayed(i, name="file"):
    return Source(name, replayed=True, through_ms=START + i * INTERVAL)


LATER = from_ms(START) + timedelta(days=30)


def test_every_tick_is_forecast_and_scored(address):
    async def go():
        async with running(address, now=LATER) as pipeline:
            rng = np.random.default_rng(1)
            for i in range(1, 31):
                account = await pipeline.ingest.submit(tick(i, (60 + rng.normal(), 50.0, 40.0)), replayed(i))
                assert (account.received, account.accepted) == (3, 3)
            await pipeline.issued(START + 30 * INTERVAL)
            await pipeline.scored(START + 30 * INTERVAL)
            async with pipeline.database.read() as reader:
                newest = await forecasts.newest(reader)
                times = await forecasts.issue_times(reader, from_ms(0), LATER)
                found = await scores.since(reader, from_ms(START).date())
            return newest, times, found, pipeline.clock.now()

    newest, times, found, now = asyncio.run(go())
    assert now == from_ms(START + 30 * INTERVAL)
    assert [to_ms(at) for at in times] == [START + i * INTERVAL for i in range(1, 31)]
    assert newest.issued_ms == START + 30 * INTERVAL
    assert newest.speed.shape == (3, 12)
    assert newest.speed[1] == pytest.approx(50.0, abs=0.5)
    counts = {s.horizon_minutes: s.measures["n"] for s in found if s.model == SERVED and s.state == UNKNOWN}
    assert counts == {5 * h: 3 * (30 - h) for h in range(1, 13)}
    steady = next(s for s in found if s.model == "last_value" and s.horizon_minutes == 5)
    assert steady.measures["absolute"] > 0


def test_a_replay_gives_the_same_forecasts_to_the_byte(server, address, tmp_path):
    async def once(pause):
        async with running(address, now=LATER) as pipeline:
            rng = np.random.default_rng(2)
            for i in range(1, 320):
                speeds = [v if rng.random() > 0.05 else None for v in (60 + 5 * rng.normal(size=3))]
                await pipeline.ingest.submit(tick(i, speeds), replayed(i))
                if i % 50 == 0:
                    await asyncio.sleep(pause)
            await pipeline.issued(START + 319 * INTERVAL)
            async with pipeline.database.write() as writer:
                rows = await writer.rows("SELECT * FROM forecasts ORDER BY issued_at, sensor_no")
                result = repr([{k: v for k, v in row.items() if k != "model_no"} for row in rows])
                await writer.run(
                    "TRUNCATE readings, ticks, sensor_days, sensors, links, forecasts, scores, sensor_scores, "
                    "scored_ticks, marks, feed, models, calibrations"
                )
            return result

    first, second = asyncio.run(once(0)), asyncio.run(once(0.3))
    assert first == second
    assert len(first) > 100_000


def speeds_of(i):
    rng = np.random.default_rng(i)
    return [v if rng.random() > 0.05 else None for v in 60 + 5 * rng.normal(size=3)]


async def everything_forecast(database):
    """What two runs must have in common, and a database for the next one."""
    async with database.write() as writer:
        rows = await writer.rows(
            """SELECT f.*, m.name, m.version FROM forecasts f JOIN models m USING (model_no)
            ORDER BY issued_at, sensor_no"""
        )
        await writer.run(
            "TRUNCATE readings, ticks, sensor_days, sensors, links, forecasts, scores, scored_ticks, marks, feed, "
            "models, calibrations"
        )
    return [{k: v for k, v in row.items() if k != "model_no"} for row in rows]


def test_a_replay_that_is_interrupted_gives_the_same_forecasts_to_the_byte(server, address):
    """By the end of the whole process, by the death of the forecaster's, and by a change of the store."""

    async def uninterrupted(last):
        async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
            for i in range(1, last + 1):
                await pipeline.ingest.submit(tick(i, speeds_of(i)), replayed(i))
            await pipeline.issued(START + last * INTERVAL)
            return await everything_forecast(pipeline.database)

    async def interrupted(last):
        first = 1
        for until in (100, 420, last):
            async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
                for i in range(first, until + 1):
                    await pipeline.ingest.submit(tick(i, speeds_of(i)), replayed(i))
                    if i in (150, 220, 450):
                        await pipeline.issued(START + i * INTERVAL)
                        pipeline.predict.reload()
                    if i == 180:
                        await pipeline.issued(START + i * INTERVAL)
                        pipeline.predict._forecaster.stop()
                await pipeline.issued(START + until * INTERVAL)
                first = until + 1
        async with connected(address) as database:
            return await everything_forecast(database)

    one, other = asyncio.run(uninterrupted(480)), asyncio.run(interrupted(480))
    assert len(one) == 480 * 3
    assert one[-1]["confidence"] is not None
    assert [repr(row) for row in one] == [repr(row) for row in other]


def test_a_restart_goes_on_though_the_last_sensor_is_silent(server, address):
    """It was there when the forecasters were fitted, and is in none of the windows that are recalled."""

    async def go(last):
        for first, until in last:
            async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
                for i in range(first, until + 1):
                    speeds = speeds_of(i)
                    await pipeline.ingest.submit(tick(i, speeds if i < 300 else [*speeds[:2], None]), replayed(i))
                await pipeline.issued(START + until * INTERVAL)
                board = {part.name: part.status for part in pipeline.board.parts}
        async with connected(address) as database:
            return await everything_forecast(database), board["forecaster"]

    (one, _), (other, status) = asyncio.run(go([(1, 420)])), asyncio.run(go([(1, 410), (411, 420)]))
    assert status is Status.OK
    assert [repr(row) for row in one] == [repr(row) for row in other]


def test_a_child_that_dies_costs_no_forecast_and_is_replaced(address):
    async def go():
        async with running(address, now=LATER) as pipeline:
            for i in range(1, 4):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            await pipeline.issued(START + 3 * INTERVAL)
            pipeline.predict._forecaster._child._process.kill()
            pipeline.predict._forecaster._child._process.join()
            await pipeline.ingest.submit(tick(4, (60.0, 50.0, 40.0)), replayed(4))
            await pipeline.issued(START + 4 * INTERVAL)
            fallen_back = {p.name: p.status for p in pipeline.board.parts}
            await asyncio.sleep(1.1)
            await pipeline.ingest.submit(tick(5, (60.0, 50.0, 40.0)), replayed(5))
            await pipeline.issued(START + 5 * INTERVAL)
            recovered = {p.name: p.status for p in pipeline.board.parts}
            async with pipeline.database.read() as reader:
                times = await forecasts.issue_times(reader, from_ms(0), LATER)
            return fallen_back, recovered, pipeline.predict._forecaster._child.deaths, len(times)

    fallen_back, recovered, deaths, issues = asyncio.run(go())
    assert (fallen_back["forecaster"], fallen_back["predict"]) == (Status.DEGRADED, Status.OK)
    assert (recovered["forecaster"], deaths, issues) == (Status.OK, 1, 5)


def test_what_is_refused_and_why(address):
    async def go():
        now = from_ms(START + 3 * INTERVAL)
        async with running(address, services=("ingest",), now=now) as pipeline:
            batch = ReadingBatch(
                ("A", "B"),
                np.array([0, 0, 0, 0, 1, 1], np.int32),
                np.array(
                    [START, START, START - 10 * 365 * 86_400_000 * 4, START + 5 * INTERVAL, START, START], np.int64
                ),
                np.array(
                    [[0, 1, 1, 0.5], [0, 1, 1, 0.5], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1.5], [np.nan] * 4],
                    np.float32,
                ),
            )
            account = await pipeline.ingest.submit(batch, Source("http"))
            await asyncio.sleep(0.1)
            return account, [m for m in pipeline.messages if isinstance(m, ReadingStored)]

    account, published = asyncio.run(go())
    assert (account.received, account.accepted, account.duplicate, account.rejected) == (6, 1, 1, 4)
    assert [(r.index, r.field) for r in account.rejections] == [
        (2, "timestamp"),
        (3, "timestamp"),
        (4, "occupancy"),
        (5, "speed"),
    ]
    assert [(m.sensor_id, m.speed) for m in published] == [("A", 0.0)]


def test_a_connection_that_is_lost_costs_no_reading_and_all_is_read_again(address):
    blocked = """SELECT pg_terminate_backend(pid) FROM pg_locks
      WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

    async def go():
        other = await psycopg.AsyncConnection.connect(conninfo(address), autocommit=True)
        async with other, running(address, services=("ingest",), now=LATER) as pipeline, asyncio.timeout(20):
            await other.execute("LISTEN roadcast_changed")
            async with other.transaction():
                await other.execute("LOCK TABLE readings")
                sending = asyncio.create_task(pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), Source("http")))
                while not await (await other.execute(blocked)).fetchall():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            account = await sending
            return account, [notice.channel async for notice in other.notifies(timeout=5, stop_after=1)]

    account, told = asyncio.run(go())
    assert (account.accepted, account.rejected) == (3, 0)
    assert told == ["roadcast_changed"]


def test_unknown_sensors_can_be_refused(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER, register=False) as pipeline:
            return await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), Source("http"))

    account = asyncio.run(go())
    assert (account.accepted, account.rejected) == (0, 3)
    assert {r.field for r in account.rejections} == {"sensor_id"}


def test_another_feed_takes_the_clock_unless_it_is_pinned(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            await pipeline.ingest.submit(tick(5, (60.0,) * 3), replayed(5))
            replay_time = pipeline.clock.now()
            await pipeline.ingest.submit(tick(6, (60.0,) * 3), Source("http"))
            live_time = pipeline.clock.now()
            async with pipeline.database.read() as reader:
                return replay_time, live_time, await marks.feed(reader)

    replay_time, live_time, feed = asyncio.run(go())
    assert (replay_time, live_time) == (from_ms(START + 5 * INTERVAL), LATER)
    assert (feed.name, feed.replayed) == ("http", False)


def test_a_replay_goes_on_after_a_restart_where_history_reaches_further(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            history = Source("file (imported)", replayed=True, history=True)
            await pipeline.ingest.submit(tick(500, (60.0, 50.0, 40.0)), history)
            for i in range(1, 4):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            feed = pipeline.clock.feed
        async with running(address, services=(), now=LATER) as pipeline:
            pipeline.clock.feed = feed
            loop = asyncio.create_task(pipeline.ingest.run())
            await asyncio.sleep(0.1)
            for i in range(3, 6):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            await asyncio.sleep(0.1)
            loop.cancel()
            return [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]

    assert asyncio.run(go()) == [START + i * INTERVAL for i in range(3, 6)]


def test_a_pinned_feed_refuses_replays_and_judges_the_future_by_its_clock(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER, pinned_to="demo") as pipeline:
            await pipeline.ingest.submit(tick(5, (60.0,) * 3), replace(replayed(5, "demo"), simulated=True))
            for name in ("file", "demo"):
                with pytest.raises(Conflict, match="FEED=none"):
                    await pipeline.ingest.submit(tick(6, (60.0,) * 3), replayed(6, name))
            assert (await pipeline.ingest.submit(tick(4, (50.0,) * 3), Source("demo"))).accepted == 3
            account = await pipeline.ingest.submit(tick(10, (60.0,) * 3), Source("http"))
            return account, pipeline.clock

    account, clock = asyncio.run(go())
    assert (account.rejected, account.rejections[0].field) == (3, "timestamp")
    assert (clock.now(), clock.simulated) == (from_ms(START + 5 * INTERVAL), True)


def test_readings_that_wait_together_are_accounted_apart(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            jobs = [pipeline.ingest.submit(tick(1, (float(n % 3), 50.0, None)), Source("http")) for n in range(6)]
            return await asyncio.gather(*jobs)

    accounts = asyncio.run(go())
    assert [(a.received, a.accepted, a.duplicate) for a in accounts] == [(2, 2, 0)] + [(2, 1, 1)] * 5


@pytest.mark.parametrize("says_through", [True, False])
def test_a_request_of_many_windows_has_each_forecast(address, says_through):
    async def go():
        async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
            for first in (1, 25, 49):
                batch = merge([tick(i, (60.0, 50.0, 40.0)) for i in range(first, first + 24)])
                through_ms = START + (first + 23) * INTERVAL if says_through else None
                await pipeline.ingest.submit(batch, Source("file", replayed=True, through_ms=through_ms))
            await pipeline.issued(START + 72 * INTERVAL)
            async with pipeline.database.read() as reader:
                return await forecasts.issue_times(reader, from_ms(0), LATER)

    assert [to_ms(at) for at in asyncio.run(go())] == [START + i * INTERVAL for i in range(1, 73)]


def test_a_live_backlog_is_forecast_as_far_back_as_a_restart_would(address):
    async def go():
        async with running(address, services=("ingest", "predict"), now=from_ms(START + 300 * INTERVAL)) as pipeline:
            await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), Source("http"))
            await pipeline.issued(START + INTERVAL)
            await pipeline.ingest.submit(merge([tick(i, (60.0, 50.0, 40.0)) for i in range(2, 300)]), Source("http"))
            await pipeline.issued(START + 299 * INTERVAL)
            async with pipeline.database.read() as reader:
                return await forecasts.issue_times(reader, from_ms(0), LATER)

    ticks = [1, *range(300 - CATCH_UP_TICKS, 300)]
    assert [to_ms(at) for at in asyncio.run(go())] == [START + i * INTERVAL for i in ticks]


def test_a_gap_in_all_readings_ends_nothing(address):
    async def go():
        async with running(address, now=LATER) as pipeline:
            await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), replayed(1))
            empty = tick(1, (60.0, 50.0, 40.0)).take(np.zeros(3, np.bool_))
            await pipeline.ingest.submit(empty, replayed(600))
            await pipeline.ingest.submit(tick(601, (60.0, 50.0, 40.0)), replayed(601))
            await pipeline.issued(START + 601 * INTERVAL)
            async with pipeline.database.read() as reader:
                return (await forecasts.newest(reader)).speed[:, 0].tolist()

    assert asyncio.run(go()) == pytest.approx([60.0, 50.0, 40.0], abs=1)


def test_ticks_that_were_stored_before_any_forecast_are_caught_up(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            for i in range(1, 31):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            feed = pipeline.clock.feed
        async with running(address, services=(), now=LATER) as pipeline:
            pipeline.clock.feed = feed
            await pipeline.predict._begin_again()
            pipeline.predict._forecaster.stop()
            async with pipeline.database.read() as reader:
                return [to_ms(at) for at in await forecasts.issue_times(reader, from_ms(0), LATER)]

    assert asyncio.run(go()) == [START + i * INTERVAL for i in range(1, 31)]
