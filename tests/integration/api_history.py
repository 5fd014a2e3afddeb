"""An API on a database that holds nine days of three sensors, and what is known of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
from integration.databases import connected

from roadcast.api.app import create_app
from roadcast.api.context import ApiContext, ApiLimits, Request
from roadcast.blobs.file import FileBlobs
from roadcast.domain.clock import FeedClock, wall_clock
from roadcast.domain.reading import Account, ReadingBatch, Source
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import from_ms, to_ms
from roadcast.domain.units import Units
from roadcast.errors import Unavailable
from roadcast.forecasting.explanation import Explanation
from roadcast.live.hub import Hub
from roadcast.live.state import LiveState
from roadcast.pipeline.incidents import Alerts, IncidentDesk
from roadcast.pipeline.recorder import Recorder
from roadcast.registry.registry import Registry
from roadcast.services import Board, Status
from roadcast.storage import sensors
from roadcast.storage.engine import Address, Database
from roadcast.streaming.memory import MemoryLog

NOW = datetime(2026, 3, 9, 12, 20, tzinfo=UTC)  # a Monday; the zone's clocks changed the day before
ZONE = ZoneInfo("America/Chicago")
TICK_MS = 300_000
TICKS = 9 * 288
NETWORK = [
    Sensor("A", road="I 24", latitude=36.0, longitude=-86.5, reference_speed=60.0),
    Sensor("B", road="I 24", latitude=36.1, longitude=-86.6, reference_speed=65.0),
    Sensor("C"),
]

Rows = list[tuple[datetime, str, float, float]]
"""Time, sensor, speed, volume."""


class NoDoor:
    async def submit(self, batch: ReadingBatch, source: Source) -> Account:
        raise Unavailable("closed")


class NoPredictor:
    async def request(self, far_sensor_no: int | None = None) -> Request:
        raise Unavailable("There are no readings yet.")

    def pending(self, issued_ms: int) -> bool:
        return False

    def expected(self, issued_ms: int) -> bool:
        return False

    async def explain(self, issued_ms: int, sensor_no: int, step: int) -> Explanation:
        raise Unavailable("There is nobody to explain anything.")


def history() -> tuple[ReadingBatch, Rows]:
    """Nine days of three sensors: slow mornings at A, some readings missing at B, C without a reference speed."""
    random = np.random.default_rng(3)
    end_ms = to_ms(NOW) // TICK_MS * TICK_MS
    at = np.repeat(end_ms - TICK_MS * np.arange(TICKS)[::-1], 3)
    sensor = np.tile(np.arange(3, dtype=np.int32), TICKS)
    hour = (at // 3_600_000) % 24
    speed = random.integers(40, 70, at.size).astype(np.float32)
    speed[(sensor == 0) & (hour >= 13) & (hour < 16)] -= 35
    volume = random.integers(0, 200, at.size).astype(np.float32)
    keep = (sensor != 1) | (random.random(at.size) < 0.8)
    at, sensor, speed, volume = at[keep], sensor[keep], speed[keep], volume[keep]
    values = np.stack([speed, volume, np.full_like(speed, np.nan), np.full_like(speed, np.nan)], axis=1)
    rows = [
        (from_ms(ms), "ABC"[who], v, n)
        for ms, who, v, n in zip(at.tolist(), sensor.tolist(), speed.tolist(), volume.tolist(), strict=True)
    ]
    return ReadingBatch(("A", "B", "C"), sensor, at, values), rows


async def load(database: Database, batch: ReadingBatch) -> LiveState:
    recorder = Recorder(TICK_MS, ZONE.key)
    async with database.write() as writer:
        await sensors.describe(writer, NETWORK)
        await sensors.connect(writer, [Link("A", "B", 2.0)])
        await recorder.load(writer)
        await recorder.record(writer, batch, batch.at_ms)
        state = LiveState()
        state.know(await sensors.every(writer))
    return state


def make_context(database: Database, state: LiveState) -> ApiContext:
    clock = FeedClock(wall=lambda: NOW)
    board = Board(clock.wall)
    board.report("ingest", Status.OK)
    return ApiContext(
        database=database,
        state=state,
        hub=Hub(8, "e1"),
        clock=clock,
        board=board,
        door=NoDoor(),
        predictor=NoPredictor(),
        incidents=IncidentDesk(database, clock, Alerts(database, MemoryLog(), "alerts")),
        registry=Registry(FileBlobs(Path("/nonexistent")), wall_clock),
        model_counts=dict,
        units=Units.US,
        timezone=ZONE.key,
        interval_s=300,
        horizon_minutes=60,
        max_future_s=300,
        stale_after_s=900,
        cors_origins=(),
        limits=ApiLimits(),
        started_at=NOW,
    )


@asynccontextmanager
async def client(context: ApiContext) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[ApiContext]:
        yield context

    app = create_app(lifespan)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://roadcast")
    async with app.router.lifespan_context(app), http:
        yield http


Look = Callable[[httpx.AsyncClient, Rows], Coroutine[Any, Any, None]]


def with_history(address: Address, look: Look) -> None:
    async def go() -> None:
        async with connected(address) as database:
            batch, rows = history()
            async with client(make_context(database, await load(database, batch))) as http:
                await look(http, rows)

    asyncio.run(go())


def weighs(rows: Rows) -> bool:
    """Whether every reading has a volume to weight it with."""
    return all(row[3] > 0 for row in rows)


def average(rows: Rows, *, weighted: bool) -> float:
    """Mean speed, by volume or each reading alike."""
    weights = [n if weighted else 1.0 for _, _, _, n in rows]
    return sum(w * row[2] for w, row in zip(weights, rows)) / sum(weights)


def ratio(rows: Rows, reference: dict[str, float | None], *, weighted: bool) -> float:
    """Mean speed over mean reference speed, of the sensors that have one."""
    known = [(n if weighted else 1.0, v, reference[who]) for _, who, v, n in rows if reference[who]]
    return sum(w * v for w, v, _ in known) / sum(w * against for w, _, against in known)


def within(rows: Rows, hours: float, sensor: str | None = None) -> Rows:
    since = NOW - timedelta(hours=hours)
    return [row for row in rows if since < row[0] <= NOW and sensor in (None, row[1])]
