"""Ingest of a live feed on a real PostgreSQL: when windows close by the wall clock."""

import asyncio

from integration.test_pipeline import INTERVAL, LATER, START, running, tick

from roadcast.domain.reading import Source
from roadcast.domain.times import from_ms
from roadcast.services import Status
from roadcast.streaming.messages import ReadingStored, TickClosed


def test_no_window_closes_before_the_clock_has_passed_it(address):
    """The detectors' clocks run 200 s fast, and their reporter says that it has sent all."""

    async def go():
        async with running(address, now=from_ms(START + 2 * INTERVAL - 200_000)) as pipeline:
            through = Source("http", through_ms=START + 2 * INTERVAL)
            await pipeline.ingest.submit(tick(2, (60.0, 50.0, 40.0)), through)
            await asyncio.sleep(1.2)
            early = list(pipeline.messages)
            pipeline.clock.wall = lambda: from_ms(START + 2 * INTERVAL)
            await pipeline.issued(START + 2 * INTERVAL)
            return early, [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]

    early, closed = asyncio.run(go())
    assert {type(message) for message in early} == {ReadingStored}
    assert closed == [START + 2 * INTERVAL]


def test_what_is_answered_is_no_feed_without_readings(address):
    async def go():
        async with running(address, services=("ingest",), now=from_ms(START + INTERVAL)) as pipeline:
            pipeline.board.report("feed", Status.STARTING, "no reading yet")
            await pipeline.ingest.submit(tick(1, (60.0,) * 3), Source("http"))
            return next(part for part in pipeline.board.parts if part.name == "feed")

    feed = asyncio.run(go())
    assert (feed.status, feed.detail) == (Status.OK, "http, live")


def test_live_senders_take_turns_without_opening_what_is_closed(address):
    async def go():
        async with running(address, services=("ingest",), now=from_ms(START + 10 * INTERVAL)) as pipeline:
            for i in range(1, 9):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, None)), Source("north"))
                await pipeline.ingest.submit(tick(i, (None, None, 40.0)), Source("south"))
                await pipeline.ingest.submit(tick(max(i - 3, 1), (None, None, 41.0)), Source("south"))
            await asyncio.sleep(0.1)
            return [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]

    assert asyncio.run(go()) == [START + i * INTERVAL for i in range(1, 9)]


def test_a_silent_sensor_does_not_hold_a_tick_for_ever(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER, idle_s=0.4) as pipeline:
            for i in (1, 2):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), Source("http"))
            await pipeline.ingest.submit(tick(3, (60.0, 50.0, None)), Source("http"))
            closed_at_once = [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]
            await asyncio.sleep(1)
            return closed_at_once, [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]

    at_once, later = asyncio.run(go())
    assert at_once == [START + INTERVAL, START + 2 * INTERVAL]
    assert later == [*at_once, START + 3 * INTERVAL]


def test_a_change_told_while_a_window_is_open_does_not_close_it(address):
    async def go():
        async with running(address, services=("ingest",), now=from_ms(START + 10 * INTERVAL)) as pipeline:
            await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), Source("http"))
            await pipeline.ingest.submit(tick(2, (60.0, None, None)), Source("http"))
            await pipeline.ingest.reload()
            await asyncio.sleep(0.1)
            before = [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]
            await pipeline.ingest.submit(tick(2, (None, 50.0, 40.0)), Source("http"))
            await asyncio.sleep(0.1)
            return before, [m.tick_end_ms for m in pipeline.messages if isinstance(m, TickClosed)]

    assert asyncio.run(go()) == ([START + INTERVAL], [START + INTERVAL, START + 2 * INTERVAL])
