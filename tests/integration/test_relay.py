"""The relay on a real PostgreSQL and the log in memory."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
from integration.databases import connected

from roadcast.domain.clock import FeedClock
from roadcast.domain.reading import ReadingBatch, Source
from roadcast.domain.times import to_ms
from roadcast.domain.units import Units
from roadcast.live.documents import Presenter
from roadcast.live.hub import Hub
from roadcast.live.relay import Relay, Topics
from roadcast.live.state import LiveState
from roadcast.pipeline.ingest import Ingest, IngestConfig
from roadcast.services import Board
from roadcast.streaming.log import Record
from roadcast.streaming.memory import MemoryLog
from roadcast.streaming.messages import TickClosed, encode

NOW = datetime(2026, 3, 2, tzinfo=UTC)


async def nothing():
    return {}


class Relayed:
    """A relay, and the ingest that it follows."""

    def __init__(self, database):
        self.now = NOW
        self.clock, self.log, self.state = FeedClock(lambda: self.now), MemoryLog(), LiveState()
        board = Board(self.clock.wall)
        self.relay = Relay(
            database, self.log, Topics("a", "p", "r"), self.state, Hub(10, "e"), self.clock, board,
            Presenter(Units.US, 300, 900.0), nothing,
        )  # fmt: skip
        config = IngestConfig("a", 300_000, "UTC", 300, 86_400, 30.0, 1_000_000, True)
        self.ingest = Ingest(database, self.log, self.clock, board, config, self.relay.caught_up, self.relay.reload)

    async def report(self, at, *codes, replayed=False):
        values = np.full((len(codes), 4), 50, np.float32) * np.float32((1, 1, 1, 0.01))
        batch = ReadingBatch(codes, np.arange(len(codes), dtype=np.int32), np.full(len(codes), to_ms(at)), values)
        account = await self.ingest.submit(batch, Source("week" if replayed else "http", replayed=replayed))
        assert account.accepted == len(codes)

    @property
    def newest(self):
        rows = self.state.latest()
        return {self.state.sensors[n].sensor_id: at for n, at in zip(rows.sensor_no.tolist(), rows.ts_ms.tolist())}


@asynccontextmanager
async def relayed(address, *, ingest=True):
    async with connected(address) as database:
        found = Relayed(database)
        loops = [found.relay.run, *([found.ingest.run] if ingest else [])]
        tasks = [asyncio.create_task(loop()) for loop in loops]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def test_who_waits_for_a_relay_that_begins_again_is_let_go(address):
    """What it had not come to is in the store, from which it begins; nobody publishes it again."""

    async def go():
        async with relayed(address, ingest=False) as found, asyncio.timeout(10):
            await found.relay.caught_up(
                await found.log.publish("a", [Record("", encode(TickClosed(300_000, 0, "x", True)))])
            )

    asyncio.run(go())


def test_what_is_newest_after_a_replay_is_what_a_restart_finds(address):
    """A live feed takes over: the readings that were still to come to the replay have come."""

    async def go():
        async with relayed(address) as found:
            await found.report(NOW, "L1", "L2", "L3")
            await found.report(datetime(2012, 3, 1, tzinfo=UTC), "W1", replayed=True)
            replayed = found.newest
            await found.report(NOW + timedelta(minutes=1), "L1")
            before = found.newest
        async with relayed(address, ingest=False) as found:
            await found.ingest.reload()
            await found.relay.reload()
            return replayed, before, found.newest

    replayed, before, after = asyncio.run(go())
    assert list(replayed) == ["W1"]
    assert before == {
        "L1": to_ms(NOW + timedelta(minutes=1)),
        "L2": to_ms(NOW),
        "L3": to_ms(NOW),
        "W1": to_ms(datetime(2012, 3, 1, tzinfo=UTC)),
    }
    assert after == before


def test_a_clock_that_runs_ahead_does_not_hide_what_follows(address):
    """One stamp of later than its arrival counts from its arrival on, in memory as after a restart."""

    async def go():
        async with relayed(address) as found:
            minute = timedelta(minutes=1)
            await found.report(NOW + 4 * minute, "once", "ever")
            seen = [found.newest]
            for _ in range(2):
                found.now += minute
                await found.report(found.now, "once")
                await found.report(found.now + 4 * minute, "ever")
                seen.append(found.newest)
            await found.relay.reload()
            return seen, found.newest

    seen, after = asyncio.run(go())
    minutes = [{code: (at - to_ms(NOW)) // 60_000 for code, at in newest.items()} for newest in seen]
    assert minutes == [{"once": 4, "ever": 4}, {"once": 1, "ever": 5}, {"once": 2, "ever": 6}]
    assert after == seen[-1]


def test_the_clock_of_a_replay_moves_with_what_is_seen(address):
    """A request of an hour: nobody is answered with the new clock and the old readings."""

    async def go():
        async with relayed(address) as found:
            begin = datetime(2012, 3, 1, tzinfo=UTC)
            await found.report(begin, "W1", "W2", replayed=True)
            seen = []

            async def watch(position):
                seen.append((found.clock.now(), max(found.newest.values())))
                await found.relay.caught_up(position)
                seen.append((found.clock.now(), max(found.newest.values())))

            found.ingest._visible = watch
            await found.report(begin + timedelta(hours=1), "W1", "W2", replayed=True)
            return seen, found.clock.now()

    seen, after = asyncio.run(go())
    assert len(seen) >= 2
    assert {to_ms(now) - newest for now, newest in seen} == {0}
    assert after == datetime(2012, 3, 1, 1, tzinfo=UTC)
