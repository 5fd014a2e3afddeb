"""`POST /api/traffic/readings`: one reading or a batch, with an account of what became of each."""

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypedDict

from roadcast.api.answers import answer
from roadcast.api.deps import Context
from roadcast.api.fields import Code, Time, invalid
from roadcast.api.intake import Intake, read_body
from roadcast.api.problems import (
    CONFLICT,
    JSON_BODY,
    LONGEST_VALUE,
    RESPONSES,
    ProblemError,
    not_declared,
    not_json,
    shown,
)
from roadcast.domain.clock import DEMO, NO_FEED
from roadcast.domain.reading import Account, Source
from roadcast.domain.sensor import LONGEST_CODE
from roadcast.domain.times import to_ms
from roadcast.errors import InvalidInput

router = APIRouter(prefix="/api/traffic", tags=["traffic"], responses=RESPONSES)

_JSON = re.compile(r"\s*application/(?:[^\s;]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
LARGE_BODY = 200_000
"""Bytes from which on a body is read in a thread, so that the others' requests go on."""


def _outside(name: str) -> str:
    if name in (DEMO, NO_FEED):
        raise ValueError(f"expected another name than {DEMO} and {NO_FEED}, which are our own feeds'")
    return name


Sender = Annotated[Code, AfterValidator(_outside)]
"""A field that takes the name of whoever sends readings from outside."""


class ReadingIn(BaseModel):
    """One reading. Null or absent is missing, zero is measured; keys that are not known are ignored."""

    sensor_id: str = Field(min_length=1, max_length=LONGEST_CODE, examples=["SENSOR_001"])
    timestamp: str = Field(
        description="End of the interval, RFC 3339 with Z or an offset.",
        examples=["2024-01-15T10:30:00Z"],
        json_schema_extra={"format": "date-time"},
    )
    speed: float | None = Field(None, description="mph, or km/h with UNITS=metric.", examples=[45.5])
    volume: float | None = Field(None, description="Vehicles in the interval, all lanes.", examples=[120])
    density: float | None = Field(None, description="Vehicles per mile or kilometre, all lanes.", examples=[15.2])
    occupancy: float | None = Field(None, description="Share of time covered, 0 to 1.", examples=[0.12])


class RejectionDocument(ProblemError):
    """Why the item at `index` was refused."""

    index: int


class AccountDocument(TypedDict):
    """What became of the readings: accepted + duplicate + rejected = received. `late` ones are among the accepted."""

    received: int
    accepted: int
    duplicate: int
    rejected: int
    late: int
    rejections: list[RejectionDocument]


_ONE = ReadingIn.model_json_schema()
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"oneOf": [_ONE, {"type": "array", "items": _ONE}]}}},
    }
}


@router.post(
    "/readings",
    operation_id="post_readings",
    response_model=AccountDocument,
    openapi_extra=_BODY,
    responses={**CONFLICT, **JSON_BODY},
)
async def post_readings(
    request: Request,
    context: Context,
    source: Annotated[Sender, Query(description="Who sends them.")] = "http",
    replayed: Annotated[bool, Query(description="They are of the past and move the feed's clock.")] = False,
    through: Annotated[Time | None, Query(description="The source has sent all that it has up to then.")] = None,
) -> Response:
    """Store readings; answered once they are durable, and seen by the next request."""
    if not _declared(request):
        raise not_declared(request)
    intake = await _intake(await request.body(), context)
    through_ms = None if through is None else to_ms(through)
    stored = Account()
    if len(intake.batch) or through is not None:
        stored = await context.door.submit(intake.batch, Source(source, replayed=replayed, through_ms=through_ms))
    account = intake.account(stored)
    if intake.single and account.rejections:
        raise _single_rejected(account)
    return answer(_document(account))


def _declared(request: Request) -> bool:
    """Whether the body says that it is JSON; a browser must, or any page could send readings without being asked.

    What an `Origin` comes with was sent by a page, and only what a page declares as JSON needs the leave of CORS.
    """
    declared = request.headers.get("content-type")
    if declared is None:
        return "origin" not in request.headers
    return bool(_JSON.fullmatch(declared))


async def _intake(body: bytes, context: Context) -> Intake:
    try:
        if len(body) > LARGE_BODY:
            return await asyncio.to_thread(read_body, body, context.units)
        return read_body(body, context.units)
    except ValueError as error:
        raise not_json(body[:LONGEST_VALUE].decode(errors="replace"), str(error)) from error


def _single_rejected(account: Account) -> InvalidInput:
    rejection = account.rejections[0]
    return invalid(rejection.field, rejection.value, rejection.reason)


def _document(account: Account) -> AccountDocument:
    return {
        "received": account.received,
        "accepted": account.accepted,
        "duplicate": account.duplicate,
        "rejected": account.rejected,
        "late": account.late,
        "rejections": [
            {
                "index": rejection.index,
                "field": rejection.field,
                "value": shown(rejection.value),
                "reason": rejection.reason,
            }
            for rejection in account.rejections
        ],
    }
