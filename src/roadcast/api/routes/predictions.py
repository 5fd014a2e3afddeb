"""Forecasts: the newest issue, any other, forecasts on demand, and what one is made of."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from roadcast.api.answers import answer, next_page
from roadcast.api.context import ApiContext
from roadcast.api.deps import (
    DEFAULT_LIMIT,
    HORIZON_BOUNDS,
    After,
    Context,
    Cursor,
    HorizonMinutes,
    IssuedBefore,
    KnownAt,
    Limit,
    OneSensor,
    Present,
    expect_horizon,
    find_sensor,
    is_horizon,
    window_end,
)
from roadcast.api.explanation import ExplanationDocument, explanation_document
from roadcast.api.fields import Code, Share
from roadcast.api.problems import CONFLICT, JSON_BODY, NOT_FOUND, RESPONSES
from roadcast.domain.forecast import LONGEST_MINUTES
from roadcast.domain.ids import Packed, pack, unpack
from roadcast.domain.times import from_ms, rfc3339, to_ms
from roadcast.errors import Conflict, NotFound
from roadcast.live.documents import ForecastDocument, Presenter
from roadcast.storage import asked, forecasts
from roadcast.storage.forecasts import IssuedRows

router = APIRouter(prefix="/api/predictions", tags=["predictions"], responses=RESPONSES)

State = Literal["completed", "pending", "unavailable"]


class GenerateIn(BaseModel):
    """Which forecast is wanted."""

    sensor_id: Code = Field(examples=["SENSOR_001"])
    horizon_minutes: int = Field(
        strict=True, description="A multiple of the interval.", examples=[30], json_schema_extra=HORIZON_BOUNDS
    )


class GeneratedDocument(TypedDict):
    """Where the forecast that was asked for will be: `GET /api/predictions/{prediction_id}`."""

    message: str
    prediction_id: UUID
    estimated_completion: datetime


class PredictionDocument(TypedDict):
    """One forecast: `pending` while it is made.

    `unavailable` where none was made, or it is not kept: its sensor had too little to forecast from, or another feed
    took over before its turn came. `detail` then says when to ask again, and is null otherwise.
    """

    prediction_id: UUID
    status: State
    detail: str | None
    prediction: ForecastDocument | None


@router.get(
    "/latest",
    operation_id="get_latest_predictions",
    response_model=list[ForecastDocument],
    responses=NOT_FOUND,
)
async def latest(
    request: Request,
    context: Context,
    present: Present,
    sensor: OneSensor,
    after: After,
    as_of: KnownAt,
    issued_before: IssuedBefore = None,
    min_confidence: Annotated[Share | None, Query(ge=0, le=1, description="Only forecasts at least as sure.")] = None,
    horizon_minutes: HorizonMinutes = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """The newest issue, by sensor and horizon. `Link` keeps to that issue, by `as_of`."""
    expect_horizon(context, horizon_minutes)
    issue = await _newest(context, as_of, issued_before)
    if issue is None:
        return answer([])
    chosen = present.choose(
        issue,
        sensor_no=sensor.number if sensor else None,
        horizon_minutes=horizon_minutes,
        min_confidence=min_confidence,
        after=(after.first, after.second) if after else None,
    )
    found = present.forecasts(issue, context.state.sensors, chosen[:limit])
    following = None
    if len(chosen) > limit:
        row, step = chosen[limit - 1]
        following = Cursor(int(issue.sensor_no[row]), int(present.horizons(issue)[step]))
    return answer(found, headers=next_page(request, following, as_of=from_ms(issue.issued_ms)))


async def _newest(context: ApiContext, as_of: datetime | None, issued_before: datetime | None) -> IssuedRows | None:
    """The newest issue of those that are not later than `as_of`, and earlier than `issued_before`."""
    issue = context.state.issue
    if issued_before is None and (as_of is None or (issue is not None and as_of == from_ms(issue.issued_ms))):
        return issue
    async with context.database.read() as reader:
        return await forecasts.newest(reader, as_of, issued_before)


@router.post(
    "/generate",
    status_code=202,
    operation_id="generate_prediction",
    response_model=GeneratedDocument,
    responses={**NOT_FOUND, **JSON_BODY},
)
async def generate(context: Context, wanted: GenerateIn) -> Response:
    """Ask for a forecast from the newest readings. It is made in turn; `Location` tells how far it has come.

    Any horizon up to two hours, however far those reach that are issued by themselves.

    `estimated_completion` is by the feed's clock, from what the last one took. Who asks twice for the same window
    gets the same id.
    """
    expect_horizon(context, wanted.horizon_minutes, LONGEST_MINUTES)
    sensor = find_sensor(context, wanted.sensor_id)
    request = await context.predictor.request(sensor.number if _is_far(context, wanted.horizon_minutes) else None)
    prediction_id = pack(sensor.number, request.issued_ms, wanted.horizon_minutes)
    document: GeneratedDocument = {
        "message": "Prediction generation initiated",
        "prediction_id": prediction_id,
        "estimated_completion": request.estimated_at,
    }
    return answer(document, status=202, headers={"Location": f"/api/predictions/{prediction_id}"})


def _is_far(context: ApiContext, minutes: int) -> bool:
    """Whether it is further than issues reach."""
    return minutes > context.horizon_minutes


@router.get("/{prediction_id}", operation_id="get_prediction", response_model=PredictionDocument, responses=NOT_FOUND)
async def prediction(context: Context, present: Present, prediction_id: UUID) -> Response:
    """One forecast of any issue that is kept."""
    return answer(await _find(context, present, prediction_id, _unpacked(context, prediction_id)))


@router.get(
    "/{prediction_id}/explanation",
    operation_id="explain_prediction",
    response_model=ExplanationDocument,
    responses={**NOT_FOUND, **CONFLICT},
)
async def explanation(context: Context, present: Present, prediction_id: UUID) -> Response:
    """What a forecast is made of: parts that add up to it, and the past days that were most like its own.

    By what was known when it was made. 503 while the forecaster is down, or has been busy for ten seconds.
    """
    wanted = _unpacked(context, prediction_id)
    found = await _find(context, present, prediction_id, wanted)
    forecast = found["prediction"]
    if forecast is None:
        raise _nothing_to_explain(prediction_id, found["status"])
    if forecast["predicted_speed"] is None:
        raise Conflict(f"Prediction {prediction_id} tells no speed.", remedy="Only speeds can be explained.")
    step = wanted.horizon_minutes * 60 // context.interval_s
    explained = await context.predictor.explain(to_ms(forecast["issued_at"]), wanted.sensor_no, step)
    return answer(explanation_document(forecast, forecast["predicted_speed"], explained, context.units))


def _nothing_to_explain(prediction_id: UUID, state: State) -> Conflict:
    if state == "pending":
        remedy = f"Wait until /api/predictions/{prediction_id} says that it is completed."
    else:
        remedy = "/api/predictions/latest lists those that there are."
    return Conflict(f"Prediction {prediction_id} is {state}: there is nothing to explain.", remedy=remedy)


async def _find(context: ApiContext, present: Presenter, prediction_id: UUID, wanted: Packed) -> PredictionDocument:
    if _is_far(context, wanted.horizon_minutes):
        return await _far(context, present, prediction_id, wanted)
    if context.predictor.pending(wanted.at_ms):
        return _prediction(prediction_id, "pending")
    issue = await _issue(context, wanted)
    found = _documents(context, present, issue, wanted) if issue else []
    if found:
        return _prediction(prediction_id, "completed", *found)
    if context.predictor.expected(wanted.at_ms):
        return _prediction(prediction_id, "pending")
    if issue is None:
        await _expect_turn(context, wanted)
    return _unavailable(context, prediction_id, wanted)


def _prediction(prediction_id: UUID, state: State, found: ForecastDocument | None = None) -> PredictionDocument:
    return {"prediction_id": prediction_id, "status": state, "detail": None, "prediction": found}


def _unavailable(context: ApiContext, prediction_id: UUID, wanted: Packed) -> PredictionDocument:
    """Why there is no forecast, and after which window there can be one."""
    code, issued_at = context.state.sensors[wanted.sensor_no].sensor_id, from_ms(wanted.at_ms)
    following = max(issued_at + timedelta(seconds=context.interval_s), window_end(context, context.clock.now()))
    detail = (
        f"No forecast of {code} was issued at {rfc3339(issued_at)}: too little had been reported of it up to then, or "
        f"another feed took over. Let it report, and ask for one after {rfc3339(following)}."
    )
    return {"prediction_id": prediction_id, "status": "unavailable", "detail": detail, "prediction": None}


def _documents(context: ApiContext, present: Presenter, issue: IssuedRows, wanted: Packed) -> list[ForecastDocument]:
    """The forecast that is wanted, as zero or one document."""
    chosen = present.choose(issue, sensor_no=wanted.sensor_no, horizon_minutes=wanted.horizon_minutes)
    return present.forecasts(issue, context.state.sensors, chosen)


def _unpacked(context: ApiContext, prediction_id: UUID) -> Packed:
    packed = unpack(prediction_id)
    if packed is None or packed.sensor_no not in context.state.sensors:
        raise _no_prediction(prediction_id)
    if not is_horizon(context, packed.horizon_minutes, LONGEST_MINUTES) or packed.at_ms > _LAST_MS:
        raise _no_prediction(prediction_id)
    return packed


_LAST_MS = 253_402_300_799_000
"""The end of the year 9999."""


def _no_prediction(prediction_id: UUID) -> NotFound:
    return NotFound(f"There is no prediction {prediction_id}.", remedy="/api/predictions/latest lists the newest.")


async def _far(context: ApiContext, present: Presenter, prediction_id: UUID, wanted: Packed) -> PredictionDocument:
    """One that reaches further than issues do, and was asked for."""
    at = from_ms(wanted.at_ms)
    async with context.database.read() as reader:
        waits = await asked.is_waiting(reader, at, wanted.sensor_no)
        issue = await asked.found(reader, at, wanted.sensor_no)
    if waits is None:
        raise _no_prediction(prediction_id)
    if waits:
        return _prediction(prediction_id, "pending")
    found = _documents(context, present, issue, wanted) if issue else []
    return _prediction(prediction_id, "completed", *found) if found else _unavailable(context, prediction_id, wanted)


async def _issue(context: ApiContext, wanted: Packed) -> IssuedRows | None:
    """The issue that holds it; None where there is none with that sensor."""
    issue = context.state.issue
    if issue is not None and issue.issued_ms == wanted.at_ms:
        return issue
    async with context.database.read() as reader:
        return await forecasts.issued(reader, from_ms(wanted.at_ms), wanted.sensor_no)


async def _expect_turn(context: ApiContext, wanted: Packed) -> None:
    """Raises NotFound where there was nothing to forecast from at that time."""
    async with context.database.read() as reader:
        if not await forecasts.could_be_issued(reader, from_ms(wanted.at_ms)):
            raise _no_prediction(pack(wanted.sensor_no, wanted.at_ms, wanted.horizon_minutes))
