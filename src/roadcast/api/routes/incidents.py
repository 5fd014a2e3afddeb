"""Incidents: made, acknowledged, edited and closed, with everything that was done to them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from roadcast.api.answers import answer, next_page
from roadcast.api.context import ApiContext
from roadcast.api.deps import DEFAULT_LIMIT, Context, Limit, OneSensor, bad_cursor, find_sensor
from roadcast.api.fields import Code, Text, Time, Whole, invalid
from roadcast.api.problems import CONFLICT, JSON_BODY, NOT_FOUND, RESPONSES
from roadcast.domain.incident import Incident, IncidentStatus, Severity
from roadcast.domain.times import rfc3339
from roadcast.errors import NotFound
from roadcast.live.documents import IncidentDocument, incident_document
from roadcast.storage import incidents

router = APIRouter(prefix="/api/incidents", tags=["incidents"], responses=RESPONSES)
FURTHEST = timedelta(days=366)
"""How far ahead works can be planned."""
OF_ONE = {**NOT_FOUND, **CONFLICT}
MADE = {**NOT_FOUND, **JSON_BODY}

Value = TypeVar("Value")
Latitude = Annotated[float, Field(strict=True, ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(strict=True, ge=-180, le=180, allow_inf_nan=False)]
Lanes = Annotated[int, Field(strict=True, ge=0, le=20)]


def _without_default(schema: JsonDict) -> None:
    del schema["default"]


ABSENT: Any = Field(None, json_schema_extra=_without_default)
"""The default of what may be left out and cannot be null; `exclude_unset` leaves it out again."""


class Placed(BaseModel):
    """What has a place, as a whole or not at all."""

    model_config = ConfigDict(extra="forbid")

    latitude: Latitude | None = None
    longitude: Longitude | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        place = {"latitude": self.latitude, "longitude": self.longitude}
        if len(self.model_fields_set & set(place)) == 1 or (self.latitude is None) != (self.longitude is None):
            missing = next(name for name, value in place.items() if value is None)
            raise invalid(missing, None, "expected latitude and longitude together")
        return self


class IncidentIn(Placed):
    """A new incident. At a sensor, road, direction and place are the sensor's unless they are given."""

    type: Code = Field(examples=["accident"])
    severity: Severity = Severity.MEDIUM
    description: Text = ""
    sensor_id: Code | None = Field(None, examples=["SENSOR_001"])
    road: Code | None = None
    direction: Code | None = None
    lanes: Lanes | None = Field(None, description="Lanes that it closes.")
    started_at: Time | None = Field(
        None, description="By default now, on the feed's clock; planned works begin at most a year ahead of it."
    )


class IncidentChange(Placed):
    """What is to be changed; what is absent stays as it is."""

    type: Code = ABSENT
    severity: Severity = ABSENT
    description: Text = ABSENT
    lanes: Lanes | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"expected at least one of {', '.join(IncidentChange.model_fields)}")
        return self


class IncidentEventDocument(TypedDict):
    """One thing that was done, and the values that it changed."""

    at: datetime
    action: str
    changes: dict[str, object]


class IncidentHistoryDocument(IncidentDocument):
    """An incident with what was done to it, oldest first."""

    history: list[IncidentEventDocument]


@router.get("", operation_id="list_incidents", response_model=list[IncidentDocument], responses=NOT_FOUND)
async def listed(
    request: Request,
    context: Context,
    sensor: OneSensor,
    status: IncidentStatus | None = None,
    hours: Annotated[Whole | None, Query(ge=1, le=8760, description="Still going on so many hours ago.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Annotated[UUID | None, Query(description="From the `Link` header of the page before.")] = None,
) -> Response:
    """Incidents, newest first."""
    since = None if hours is None else context.clock.now() - timedelta(hours=hours)
    code = sensor.sensor.sensor_id if sensor else None
    async with context.database.read() as reader:
        after = await incidents.get(reader, cursor) if cursor else None
        if cursor and not after:
            raise bad_cursor(str(cursor))
        found = await incidents.search(reader, status=status, sensor_id=code, since=since, after=after, limit=limit + 1)
    following = found[limit - 1].incident_id if len(found) > limit else None
    return answer([incident_document(incident) for incident in found[:limit]], headers=next_page(request, following))


@router.post("", status_code=201, operation_id="create_incident", response_model=IncidentDocument, responses=MADE)
async def create(context: Context, wanted: IncidentIn) -> Response:
    """Report an incident."""
    made = await context.incidents.create(_incident(context, wanted))
    return answer(incident_document(made), status=201, headers={"Location": f"/api/incidents/{made.incident_id}"})


def _incident(context: ApiContext, wanted: IncidentIn) -> Incident:
    place = None if wanted.sensor_id is None else find_sensor(context, wanted.sensor_id).sensor
    return Incident(
        incident_id=str(uuid4()),
        type=wanted.type,
        severity=wanted.severity,
        description=wanted.description,
        sensor_id=wanted.sensor_id,
        road=_first(wanted.road, place and place.road),
        direction=_first(wanted.direction, place and place.direction),
        latitude=_first(wanted.latitude, place and place.latitude),
        longitude=_first(wanted.longitude, place and place.longitude),
        lanes=wanted.lanes,
        started_at=_started_at(context, wanted),
        ended_at=None,
        status=IncidentStatus.OPEN,
        source="api",
    )


def _started_at(context: ApiContext, wanted: IncidentIn) -> datetime:
    now = context.clock.now()
    if wanted.started_at is not None and wanted.started_at > now + FURTHEST:
        reason = f"expected a time at most {FURTHEST.days} days ahead of the feed's clock, which is at {rfc3339(now)}"
        raise invalid("started_at", rfc3339(wanted.started_at), reason)
    return wanted.started_at or now


def _first(given: Value | None, otherwise: Value | None) -> Value | None:
    return otherwise if given is None else given


@router.get("/{incident_id}", operation_id="get_incident", response_model=IncidentHistoryDocument, responses=NOT_FOUND)
async def one(context: Context, incident_id: UUID) -> Response:
    """One incident with its history."""
    async with context.database.read() as reader:
        incident = await incidents.get(reader, incident_id)
        events = await incidents.history(reader, incident_id)
    if incident is None:
        raise NotFound(f"There is no incident {incident_id}.", remedy="/api/incidents lists them.")
    history: list[IncidentEventDocument] = [
        {"at": event.at, "action": event.action, "changes": event.changes} for event in events
    ]
    return answer({**incident_document(incident), "history": history})


@router.post(
    "/{incident_id}/acknowledge",
    operation_id="acknowledge_incident",
    response_model=IncidentDocument,
    responses=OF_ONE,
)
async def acknowledge(context: Context, incident_id: UUID) -> Response:
    """Say that someone looks after it."""
    return await _change(context, incident_id, "acknowledged", {"status": IncidentStatus.ACKNOWLEDGED})


@router.patch(
    "/{incident_id}",
    operation_id="edit_incident",
    response_model=IncidentDocument,
    responses={**OF_ONE, **JSON_BODY},
)
async def edit(context: Context, incident_id: UUID, wanted: IncidentChange) -> Response:
    """Correct what is known of it."""
    return await _change(context, incident_id, "edited", wanted.model_dump(exclude_unset=True))


@router.post("/{incident_id}/close", operation_id="close_incident", response_model=IncidentDocument, responses=OF_ONE)
async def close(context: Context, incident_id: UUID) -> Response:
    """Say that it is over."""
    ended = {"status": IncidentStatus.CLOSED, "ended_at": context.clock.now()}
    return await _change(context, incident_id, "closed", ended)


async def _change(context: ApiContext, incident_id: UUID, action: str, changes: Mapping[str, object]) -> Response:
    return answer(incident_document(await context.incidents.change(incident_id, action, changes)))
