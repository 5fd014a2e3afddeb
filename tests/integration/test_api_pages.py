"""Lists that are read page by page while the world goes on."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
import numpy as np
import pytest
from integration.api_history import NETWORK, NOW, TICK_MS, ZONE, Rows, client, history, load, make_context, with_history
from integration.databases import connected

from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import to_ms
from roadcast.pipeline.recorder import Recorder
from roadcast.storage.engine import Database

AHEAD = timedelta(seconds=90)
"""So far the detectors' clocks are ahead of ours."""


async def arrive(database: Database, at: datetime, known: datetime, speed: float) -> None:
    """Every sensor reports a speed for one time."""
    recorder = Recorder(TICK_MS, ZONE.key)
    values = np.full((len(NETWORK), 4), [speed, 10, np.nan, np.nan], np.float32)
    codes = tuple(sensor.sensor_id for sensor in NETWORK)
    batch = ReadingBatch(codes, np.arange(3, dtype=np.int32), np.full(3, to_ms(at), np.int64), values)
    async with database.write() as writer:
        await recorder.load(writer)
        await recorder.record(writer, batch, np.full(3, to_ms(known), np.int64))


@pytest.mark.parametrize("limit", [2, 40])
def test_pages_of_the_past_join_while_readings_arrive_and_change(address, limit: int):
    """The window of the first page is that of all: no gap at its ends, nothing of what came since."""

    async def go() -> None:
        now = NOW
        clock = FeedClock(wall=lambda: now, feed=Feed("detectors"))
        async with connected(address) as database:
            context = replace(make_context(database, await load(database, history()[0])), clock=clock)
            await arrive(database, NOW + AHEAD, NOW, 33)
            async with client(context) as http:
                url = "/api/traffic/historical?hours=2"
                whole = await http.get(f"{url}&limit=1000")
                first = await http.get(f"{url}&limit={limit}")
                seen, page = first.json(), first
                while "next" in page.links:
                    now += timedelta(minutes=5)
                    await arrive(database, now + AHEAD, now, 11)
                    await arrive(database, NOW - timedelta(minutes=100), now, 1 + len(seen) / 1000)
                    page = await http.get(page.links["next"]["url"])
                    assert page.headers["roadcast-as-of"] == first.headers["roadcast-as-of"]
                    seen += page.json()
                fresh = await http.get(f"{url}&limit=1000")
        assert len(whole.json()) < 1000
        assert [item["timestamp"] for item in whole.json()[:3]] == ["2026-03-09T12:21:30Z"] * 3
        assert seen == whole.json()
        assert fresh.json() != whole.json()

    asyncio.run(go())


@pytest.mark.parametrize("path", ["historical?hours=2&limit=1000&", "statistics?hours=2&"])
def test_as_of_now_is_what_is_answered_now(address, path: str):
    async def go() -> None:
        clock = FeedClock(wall=lambda: NOW, feed=Feed("detectors"))
        async with connected(address) as database:
            context = replace(make_context(database, await load(database, history()[0])), clock=clock)
            await arrive(database, NOW + AHEAD, NOW, 33)
            async with client(context) as http:
                plain = await http.get(f"/api/traffic/{path}")
                pinned = await http.get(f"/api/traffic/{path}as_of=2026-03-09T12:20:00Z")
        assert plain.json()
        assert pinned.json() == plain.json()

    asyncio.run(go())


def test_the_history_of_an_incident_has_times_as_every_answer_has(address):
    async def look(http: httpx.AsyncClient, _: Rows) -> None:
        made = (await http.post("/api/incidents", json={"type": "accident", "sensor_id": "A"})).json()
        place = f"/api/incidents/{made['incident_id']}"
        await http.post(f"{place}/acknowledge")
        await http.post(f"{place}/close")
        changes = [event["changes"] for event in (await http.get(place)).json()["history"]]
        assert changes == [
            {"status": "open"},
            {"status": "acknowledged"},
            {"status": "closed", "ended_at": "2026-03-09T12:20:00Z"},
        ]

    with_history(address, look)
