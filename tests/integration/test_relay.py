"""The relay on a real PostgreSQL and the log in memory."""

import asyncio
from datetime import UTC, datetime

from integration.databases import connected

from roadcast.domain.clock import FeedClock
from roadcast.domain.units import Units
from roadcast.live.documents import Presenter
from roadcast.live.hub import Hub
from roadcast.live.relay import Relay, Topics
from roadcast.live.state import LiveState
from roadcast.services import Board
from roadcast.streaming.log import Record
from roadcast.streaming.memory import MemoryLog
from roadcast.streaming.messages import TickClosed, encode


async def nothing():
    return {}


def test_who_waits_for_a_relay_that_begins_again_is_let_go(address):
    """What it had not come to is in the store, from which it begins; nobody publishes it again."""

    async def go():
        async with connected(address) as database:
            clock = FeedClock(lambda: datetime(2026, 3, 2, tzinfo=UTC))
            log = MemoryLog()
            relay = Relay(
                database, log, Topics("a", "p", "r"), LiveState(), Hub(10, "e"), clock, Board(clock.wall),
                Presenter(Units.US, 300, 900.0), nothing,
            )  # fmt: skip
            position = await log.publish("a", [Record("", encode(TickClosed(300_000, 0, "x", True)))])
            following = asyncio.create_task(relay.run())
            try:
                async with asyncio.timeout(10):
                    await relay.caught_up(position)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    asyncio.run(go())
