"""Alerts: a feed that goes stale and comes back, parts that fall and recover, incidents."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import numpy as np
import pytest
from databases import connected

from roadcast.domain.clock import FeedClock
from roadcast.domain.incident import Incident, IncidentStatus, Severity
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import to_ms
from roadcast.errors import Conflict, NotFound
from roadcast.pipeline.detect import Detect
from roadcast.pipeline.incidents import Alerts, IncidentDesk
from roadcast.pipeline.recorder import Recorder
from roadcast.services import Board, Status
from roadcast.storage import incidents
from roadcast.streaming.memory import MemoryLog
from roadcast.streaming.messages import decode

START = datetime(2026, 3, 10, 15, tzinfo=UTC)


class Clock:
    """A wall clock that the test moves."""

    now = START


async def report(database, at, codes=("A",), *, received=None, timezone="UTC"):
    values = np.full((len(codes), 4), np.nan, np.float32)
    values[:, 0] = 50
    ms = np.full(len(codes), to_ms(at), np.int64)
    batch = ReadingBatch(codes, np.arange(len(codes), dtype=np.int32), ms, values)
    async with database.write() as writer:
        recorder = Recorder(300_000, timezone)
        await recorder.load(writer)
        await recorder.record(writer, batch, ms if received is None else np.full_like(ms, to_ms(received)))


async def heard(log, minimum):
    """At least so many alerts, as kind and message."""
    found = []
    async with asyncio.timeout(10):
        async for batch in log.batches(100):
            found += [decode(record.value) for record in batch]
            if len(found) >= minimum:
                return [(alert.alert, alert.message, alert.severity) for alert in found]
    raise AssertionError


def test_a_feed_that_goes_stale_and_comes_back_is_said_once_each(address):
    async def go():
        async with connected(address) as database:
            clock, log = FeedClock(lambda: Clock.now), MemoryLog()
            board = Board(clock.wall)
            alerts = Alerts(database, log, "alerts")
            announced = []
            detect = Detect(database, clock, board, alerts, "UTC", 900.0, lambda: announced.append(1))
            async with log.tail("alerts") as tail:
                await report(database, START)
                loop = asyncio.create_task(detect.run())
                await asyncio.sleep(1.3)
                Clock.now = START + timedelta(minutes=16)
                stale = await heard(tail, 1)
                status = {part.name: part.status for part in board.parts}
                await report(database, Clock.now)
                back = await heard(tail, 1)
                board.report("forecaster", Status.DEGRADED, "died")
                board.report("forecaster", Status.DEGRADED, "died again")
                board.report("forecaster", Status.OK)
                parts = await heard(tail, 2)
                await asyncio.sleep(0.5)  # an alert is stored after it is published
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop
            async with database.read() as reader:
                stored = [row["kind"] for row in await reader.rows("SELECT kind FROM alerts")]
                return stale, status, back, parts, stored, announced

    stale, status, back, parts, stored, announced = asyncio.run(go())
    assert stale == [("feed_stale", "feed: no reading since 2026-03-10 15:00:00 UTC", "high")]
    assert status["feed"] is Status.DEGRADED
    assert back == [("feed_back", "feed is back.", "low")]
    assert [kind for kind, *_ in parts] == ["part_down", "part_back"]
    assert sorted(stored) == ["feed_back", "feed_stale", "part_back", "part_down"]
    assert announced


@pytest.mark.parametrize("hours", range(1, 24, 2))
def test_a_feed_of_which_most_sensors_are_silent_is_degraded(address, hours):
    """At every hour of the day: the days of sensors are local."""
    zone, now = "America/Los_Angeles", START + timedelta(hours=hours)

    async def go():
        async with connected(address) as database:
            clock = FeedClock(lambda: now)
            board = Board(clock.wall)
            detect = Detect(database, clock, board, Alerts(database, MemoryLog(), "alerts"), zone, 900.0, lambda: None)
            await report(database, now - timedelta(hours=12), ("A", "B", "C"), timezone=zone)
            await report(database, now - timedelta(minutes=1), timezone=zone)
            await detect._look()
            return board.parts[-1]

    feed = asyncio.run(go())
    assert (feed.status, feed.detail) == (
        Status.DEGRADED,
        "2 of 3 sensors that reported since yesterday are silent for 900 s",
    )


def test_readings_ahead_of_the_clock_do_not_keep_a_feed_that_ended_fresh(address):
    """The detectors' clocks run 5 minutes fast, and the last reading came 16 minutes ago."""

    async def go():
        async with connected(address) as database:
            clock = FeedClock(lambda: START + timedelta(minutes=16))
            board = Board(clock.wall)
            detect = Detect(database, clock, board, Alerts(database, MemoryLog(), "alerts"), "UTC", 900.0, lambda: None)
            for minute in (5, 3, 1):
                sent = START - timedelta(minutes=minute - 1)
                await report(database, sent + timedelta(minutes=5), received=sent)
            await detect._look()
            return board.parts[-1]

    feed = asyncio.run(go())
    assert (feed.status, feed.detail) == (Status.DEGRADED, "no reading since 2026-03-10 15:00:00 UTC")


def incident(**changes):
    given = {
        "incident_id": str(uuid4()), "type": "crash", "severity": Severity.HIGH, "description": "two cars",
        "sensor_id": "A", "road": None, "direction": None, "latitude": None, "longitude": None, "lanes": 1,
        "started_at": START, "ended_at": None, "status": IncidentStatus.OPEN, "source": "operator",
    }  # fmt: skip
    return Incident(**given | changes)


def test_an_incident_is_told_at_its_beginning_and_its_end(address):
    async def go():
        async with connected(address) as database:
            clock, log = FeedClock(lambda: START), MemoryLog()
            desk = IncidentDesk(database, clock, Alerts(database, log, "alerts"))
            made = incident()
            async with log.tail("alerts") as tail:
                await desk.create(made)
                await desk.create(made)
                await desk.change(uuid_of(made), "acknowledged", {"status": "acknowledged"})
                with pytest.raises(Conflict):
                    await desk.change(uuid_of(made), "acknowledged", {"status": "acknowledged"})
                closed = await desk.change(uuid_of(made), "closed", {"status": "closed", "ended_at": START})
                with pytest.raises(Conflict):
                    await desk.change(uuid_of(made), "edited", {"description": "three cars"})
                with pytest.raises(NotFound):
                    await desk.change(uuid_of(incident()), "closed", {"status": "closed"})
                told = await heard(tail, 2)
            async with database.read() as reader:
                history = await incidents.history(reader, uuid_of(made))
            return closed, told, [event.action for event in history]

    closed, told, history = asyncio.run(go())
    assert (closed.status, closed.ended_at) == (IncidentStatus.CLOSED, START)
    assert [kind for kind, *_ in told] == ["incident", "incident_closed"]
    assert history == ["created", "acknowledged", "closed"]


def uuid_of(made):
    from uuid import UUID

    return UUID(made.incident_id)
