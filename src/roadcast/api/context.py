"""What the API is given: where to read, where to send, and how to present."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import UUID

from roadcast.domain.clock import FeedClock
from roadcast.domain.incident import Incident
from roadcast.domain.reading import Account, ReadingBatch, Source
from roadcast.domain.units import Units
from roadcast.forecasting.explanation import Explanation
from roadcast.live.hub import Hub
from roadcast.live.state import LiveState
from roadcast.registry.registry import Registry
from roadcast.services import Board
from roadcast.storage.engine import Database


class Door(Protocol):
    """The one door into storage."""

    async def submit(self, batch: ReadingBatch, source: Source) -> Account:
        """Check and store a batch; returns once it is durable and the next request sees it.

        The indices of the account's rejections count the batch's rows.

        Raises:
            Conflict: the feed does not take readings of such a source now.
            Unavailable: the queue is full or the database is away; nothing of the batch was taken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A forecast that was asked for: the issue that holds it, and when that is expected, by the feed's clock."""

    issued_ms: int
    estimated_at: datetime


class Predictor(Protocol):
    """Issues forecasts, and explains them."""

    async def request(self, far_sensor_no: int | None = None) -> Request:
        """Ask for an issue of the newest readings, without waiting for it.

        far_sensor_no: whose forecast is wanted further than issues reach.

        Raises:
            Unavailable: there are no readings yet to forecast from.
        """
        ...

    def pending(self, issued_ms: int) -> bool:
        """Whether somebody waits for that issue, which is made anew."""
        ...

    def expected(self, issued_ms: int) -> bool:
        """Whether that issue is being made, or has its turn still to come."""
        ...

    async def explain(self, issued_ms: int, sensor_no: int, step: int) -> Explanation:
        """What the forecast that an issue gave of a sensor `step` windows ahead is made of, by what was known then.

        Raises:
            NotFound: the issue is no longer kept.
            Unavailable: who made it is down or busy.
        """
        ...


class IncidentDesk(Protocol):
    """Changes incidents, and tells whoever listens to alerts."""

    async def create(self, incident: Incident) -> Incident:
        """Store a new incident."""
        ...

    async def change(self, incident_id: UUID, action: str, changes: Mapping[str, object]) -> Incident:
        """Acknowledge, edit or close (`acknowledged`, `edited`, `closed`) by setting the given fields.

        Raises:
            NotFound: there is no such incident.
            Conflict: it is closed already, or is acknowledged already.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """What a client may ask for at most."""

    max_body_bytes: int = 16_000_000
    body_timeout_s: float = 60.0
    max_sockets: int = 10_000
    socket_queue_frames: int = 64
    heartbeat_s: float = 20.0
    max_socket_errors: int = 20


MOST_EXPORTS = 4
"""Files that a process makes at a time."""


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Everything that routes and sockets need, made by wiring."""

    database: Database
    state: LiveState
    hub: Hub
    clock: FeedClock
    board: Board
    door: Door
    predictor: Predictor
    incidents: IncidentDesk
    registry: Registry
    model_counts: Callable[[], Mapping[str, int]]
    units: Units
    timezone: str
    interval_s: int
    horizon_minutes: int
    max_future_s: int
    stale_after_s: float
    cors_origins: tuple[str, ...]
    limits: ApiLimits
    started_at: datetime
    exports: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, MOST_EXPORTS))
