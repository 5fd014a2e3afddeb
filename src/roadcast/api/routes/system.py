"""How the system is, for people and for machines."""

import time
from datetime import datetime
from typing import cast

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from typing_extensions import TypedDict

from roadcast.api.answers import answer
from roadcast.api.context import ApiContext
from roadcast.api.deps import Context
from roadcast.api.metrics import Metrics
from roadcast.domain.times import to_ms
from roadcast.errors import Unavailable
from roadcast.live.documents import FeedDocument, PartDocument, StatusDocument, feed_document, status_document
from roadcast.services import Status, worst

router = APIRouter(tags=["system"])


class DataDocument(TypedDict):
    """How fresh the readings are, on the feed's clock: sensors are known, and reporting, stale or never heard of."""

    sensors: int
    reporting: int
    stale: int
    newest_age_s: float | None


class DatabaseDocument(TypedDict):
    """Whether the database answers, and how fast."""

    status: Status
    latency_ms: float | None
    detail: str


class HealthDocument(TypedDict):
    """Whether all is well; `parts` are those that are not."""

    status: Status
    as_of: datetime
    feed: FeedDocument
    data: DataDocument
    database: DatabaseDocument
    parts: list[PartDocument]


class DetailedHealthDocument(StatusDocument):
    """The state of everything."""

    as_of: datetime
    data: DataDocument
    database: DatabaseDocument


@router.get("/api/system/status", operation_id="get_system_status", response_model=StatusDocument)
async def status(context: Context) -> Response:
    """The system and its parts."""
    return answer(system_status(context))


def system_status(context: ApiContext) -> StatusDocument:
    """The system and its parts, as REST and sockets say it."""
    return status_document(context.board, context.clock, context.started_at, context.hub.connections)


@router.get(
    "/health",
    operation_id="get_health",
    response_model=HealthDocument,
    responses={503: {"model": HealthDocument, "description": "A part is down; the body says which."}},
)
async def health(context: Context) -> Response:
    """Whether it serves: 200, or 503 when a part is down."""
    database = await _ping(context)
    whole = worst(context.board.status, database["status"])
    document: HealthDocument = {
        "status": whole,
        "as_of": context.clock.now(),
        "feed": feed_document(context.clock),
        "data": _data(context),
        "database": database,
        "parts": [part for part in system_status(context)["parts"] if part["status"] is not Status.OK],
    }
    return answer(document, status=_http_status(whole))


@router.get(
    "/health/detailed",
    operation_id="get_detailed_health",
    response_model=DetailedHealthDocument,
    responses={503: {"model": DetailedHealthDocument, "description": "A part is down."}},
)
async def detailed(context: Context) -> Response:
    """Every part, the database's latency and the readings' freshness."""
    database = await _ping(context)
    known = system_status(context)
    whole = worst(known["status"], database["status"])
    document: DetailedHealthDocument = {
        **known,
        "status": whole,
        "as_of": known["clock"],
        "data": _data(context),
        "database": database,
    }
    return answer(document, status=_http_status(whole))


def _http_status(status: Status) -> int:
    return 503 if status is Status.DOWN else 200


async def _ping(context: ApiContext) -> DatabaseDocument:
    """Ask the database itself: what the board says of it may be some seconds old."""
    began = time.perf_counter()
    try:
        await context.database.ping()
    except Unavailable as error:
        return {"status": Status.DOWN, "latency_ms": None, "detail": str(error)}
    latency_ms = round((time.perf_counter() - began) * 1000, 2)
    if refused := context.database.read_only:
        return {"status": Status.DEGRADED, "latency_ms": latency_ms, "detail": str(refused)}
    return {"status": Status.OK, "latency_ms": latency_ms, "detail": ""}


def _data(context: ApiContext) -> DataDocument:
    rows = context.state.latest()
    age_s = np.maximum(to_ms(context.clock.now()) - rows.since_ms, 0) / 1000
    return {
        "sensors": len(context.state.sensors),
        "reporting": int((age_s <= context.stale_after_s).sum()),
        "stale": int((age_s > context.stale_after_s).sum()),
        "newest_age_s": float(age_s.min()) if len(rows) else None,
    }


@router.get("/metrics", operation_id="get_metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    found = cast("Metrics", request.app.state.metrics)
    return Response(found.exposition(), media_type=CONTENT_TYPE_LATEST)
