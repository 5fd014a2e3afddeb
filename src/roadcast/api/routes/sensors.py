"""Detector stations."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from roadcast.api.answers import answer, next_page
from roadcast.api.deps import DEFAULT_LIMIT, After, Context, Cursor, Limit, NamedSensor, Present
from roadcast.api.problems import INVALID, NOT_FOUND
from roadcast.live.documents import SensorDocument

router = APIRouter(prefix="/api/sensors", tags=["sensors"], responses=INVALID)

SensorStatus = Literal["active", "inactive"]


@router.get("", operation_id="list_sensors", response_model=list[SensorDocument])
async def listed(
    request: Request,
    context: Context,
    present: Present,
    after: After,
    road: Annotated[str | None, Query(description="Only this road.")] = None,
    status: Annotated[SensorStatus | None, Query(description="Only this status.", examples=["active"])] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Every sensor."""
    first = after.first if after else -1
    found = [
        (number, sensor)
        for number, sensor in sorted(context.state.sensors.items())
        if number > first and road in (None, sensor.road) and status in (None, sensor.status)
    ]
    following = Cursor(found[limit - 1][0], 0) if len(found) > limit else None
    documents = [present.sensor(sensor) for _, sensor in found[:limit]]
    return answer(documents, headers=next_page(request, following))


@router.get("/{sensor_id:code}", operation_id="get_sensor", response_model=SensorDocument, responses=NOT_FOUND)
async def one(present: Present, sensor: NamedSensor) -> Response:
    """One sensor."""
    return answer(present.sensor(sensor.sensor))
