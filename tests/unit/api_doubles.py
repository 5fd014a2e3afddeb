"""An API on doubles of its ports: a door, a predictor and an incident desk that remember what they were asked."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
from fastapi import FastAPI

from roadcast.api.app import create_app
from roadcast.api.context import ApiContext, ApiLimits, Request
from roadcast.blobs.file import FileBlobs
from roadcast.domain.clock import Feed, FeedClock, wall_clock
from roadcast.domain.incident import Incident
from roadcast.domain.reading import VARIABLES, Account, ReadingBatch, Rejection, Source
from roadcast.domain.sensor import Sensor
from roadcast.domain.times import from_ms, to_ms
from roadcast.domain.units import Units
from roadcast.errors import NotFound, Unavailable
from roadcast.forecasting.explanation import Explanation
from roadcast.live.hub import Hub
from roadcast.live.state import LiveState
from roadcast.registry.registry import Registry
from roadcast.services import Board, Status
from roadcast.storage.engine import Address, Database
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.readings import Rows

NOW = datetime(2024, 1, 15, 10, 32, tzinfo=UTC)
TICK = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
SENSORS = {
    1: Sensor("SENSOR_001", name="First", road="I 24", lanes=4, latitude=36.0, longitude=-86.5, reference_speed=65.0),
    2: Sensor("SENSOR_002", road="I 24", speed_limit=55.0, reference_speed=60.0),
    3: Sensor("SENSOR_003", status="inactive"),
}


@dataclass
class RecordingDoor:
    """Takes everything but negative speeds."""

    batches: list[tuple[ReadingBatch, Source]] = field(default_factory=list)

    async def submit(self, batch: ReadingBatch, source: Source) -> Account:
        self.batches.append((batch, source))
        bad = np.flatnonzero(batch.values[:, 0] < 0).tolist()
        rejections = tuple(Rejection(i, "speed", float(batch.values[i, 0]), "expected 0 or more") for i in bad)
        return Account(len(batch), len(batch) - len(bad), 0, len(bad), 0, rejections)


@dataclass
class PromptPredictor:
    """Has an issue of the newest tick in the making."""

    making: set[int] = field(default_factory=set)
    coming: set[int] = field(default_factory=set)

    async def request(self, far_sensor_no: int | None = None) -> Request:
        return Request(to_ms(TICK), TICK + timedelta(seconds=10))

    def pending(self, issued_ms: int) -> bool:
        return issued_ms in self.making

    def expected(self, issued_ms: int) -> bool:
        return issued_ms in self.coming

    async def explain(self, issued_ms: int, sensor_no: int, step: int) -> Explanation:
        raise Unavailable("It knows no model.", retry_after_s=1)


@dataclass
class NotingDesk:
    """Keeps incidents in a dictionary."""

    incidents: dict[UUID, Incident] = field(default_factory=dict)

    async def create(self, incident: Incident) -> Incident:
        self.incidents[UUID(incident.incident_id)] = incident
        return incident

    async def change(self, incident_id: UUID, action: str, changes: Mapping[str, object]) -> Incident:
        if incident_id not in self.incidents:
            raise NotFound(f"There is no incident {incident_id}.")
        self.incidents[incident_id] = replace(self.incidents[incident_id], **changes)
        return self.incidents[incident_id]


def rows(*readings: tuple[int, datetime, float, float, float, float]) -> Rows:
    at = np.array([to_ms(reading[1]) for reading in readings], np.int64)
    number = np.array([reading[0] for reading in readings], np.int32)
    return Rows(at, number, np.array([reading[2:] for reading in readings], np.float32).reshape(-1, len(VARIABLES)), at)


def issue(numbers: tuple[int, ...] = (1, 2), horizons: int = 12) -> IssuedRows:
    shape = (len(numbers), horizons)
    speed = np.linspace(60, 30, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    spread = np.array([-8, -6, -3, 0, 3, 6, 8], np.float32)
    return IssuedRows(
        to_ms(TICK),
        "graph_autoregression",
        "1",
        np.array(numbers, np.int32),
        np.zeros(shape[0], np.int32),
        speed,
        np.full(shape, 120.5, np.float32),
        np.linspace(0.95, 0.55, speed.size, dtype=np.float32).reshape(shape),
        np.maximum(5, speed * 0.1),
        speed[..., np.newaxis] + spread,
        {"last_value": speed},
    )


def unreachable_database() -> Database:
    address = Address("127.0.0.1", 1, "nobody", "nothing", "nowhere")
    return Database.connect(address, pool_size=1, max_overflow=0, timeout_s=2, query_timeout_s=2)


def make_context(**changes: object) -> ApiContext:
    state = LiveState()
    state.know(SENSORS)
    state.observe(rows((1, TICK, 45.5, 120, 15.2, 0.85), (2, TICK - timedelta(hours=1), 0, np.nan, np.nan, np.nan)))
    newest = issue()
    state.foresee(lambda: newest)
    clock = FeedClock(wall=lambda: NOW, feed=Feed("demo", replayed=True, simulated=True, reached_at=NOW))
    board = Board(clock.wall)
    board.report("ingest", Status.OK)
    context = ApiContext(
        database=unreachable_database(),
        state=state,
        hub=Hub(64, "e1"),
        clock=clock,
        board=board,
        door=RecordingDoor(),
        predictor=PromptPredictor(),
        incidents=NotingDesk(),
        registry=Registry(FileBlobs(Path("/nonexistent")), wall_clock),
        model_counts=dict,
        units=Units.US,
        timezone="America/Chicago",
        interval_s=300,
        horizon_minutes=60,
        max_future_s=300,
        stale_after_s=900,
        cors_origins=("http://localhost:3000",),
        limits=ApiLimits(max_body_bytes=10_000),
        started_at=from_ms(to_ms(NOW) - 60_000),
    )
    return replace(context, **changes)


def make_app(context: ApiContext) -> FastAPI:
    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[ApiContext]:
        yield context
        await context.database.close()

    return create_app(lifespan)


@asynccontextmanager
async def client(context: ApiContext) -> AsyncGenerator[httpx.AsyncClient]:
    app = make_app(context)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://roadcast") as http:
            yield http
