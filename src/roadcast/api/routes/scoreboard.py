"""How good the forecasts were, and every forecast beside what came true."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from roadcast.api.accuracy import (
    AccuracyDocument,
    By,
    Errors,
    Filters,
    ModelDocument,
    Span,
    StateName,
    accuracy,
    accuracy_document,
    document,
)
from roadcast.api.answers import answer, next_page
from roadcast.api.context import ApiContext
from roadcast.api.deps import (
    DEFAULT_LIMIT,
    After,
    Context,
    Cursor,
    Days,
    HorizonMinutes,
    Limit,
    OneSensor,
    expect_horizon,
)
from roadcast.api.export import MEDIA_TYPES, Download, Export, Format, encoded, one_of_few
from roadcast.api.fields import Time, invalid
from roadcast.api.past import scores_of_sensor
from roadcast.api.problems import NOT_FOUND, RESPONSES
from roadcast.forecasting.forecaster import NAIVE
from roadcast.forecasting.scoring import SERVED
from roadcast.scoreboard import Score
from roadcast.storage import forecasts, scores
from roadcast.storage.engine import Reader

router = APIRouter(prefix="/api/predictions", tags=["predictions"], responses=RESPONSES)


@router.get("/accuracy", operation_id="get_prediction_accuracy", response_model=AccuracyDocument, responses=NOT_FOUND)
async def accuracy_of(
    request: Request,
    context: Context,
    sensor: OneSensor,
    after: After,
    days: Days = 7,
    horizon_minutes: HorizonMinutes = None,
    model: Annotated[str | None, Query(description="Only this forecaster.", examples=[SERVED])] = None,
    hour: Annotated[int | None, Query(ge=0, le=23, description="Only targets in this hour of the local day.")] = None,
    state: Annotated[
        StateName | None,
        Query(description="Only targets in this state of congestion, or within 30 minutes of the onset of a jam."),
    ] = None,
    by: Annotated[By | None, Query(description="Tell apart by this; sensors come worst first, in pages.")] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Errors of the last days per forecaster and horizon, beside naive forecasts; intervals and confidence checked.

    There is no `as_of`: what has come true since then counts too. By sensor it is of `served`, unless `model` names
    another. With `sensor_id` it reaches back as far as forecasts are kept.
    """
    expect_horizon(context, horizon_minutes)
    by_sensor = by == "sensor"
    if by_sensor:
        _expect_alone(sensor_id=sensor.sensor.sensor_id if sensor else None, hour=hour, state=state)
    elif after is not None:
        raise invalid("cursor", str(after), "expected with by=sensor alone")
    span, filters, following = _span(context, days), Filters(by, state, model), None
    async with context.database.read() as reader:
        await _expect_forecaster(reader, model)
        if by_sensor:
            page = _Page(span, model or SERVED, horizon_minutes, limit, after.first if after else 0)
            found, following = await _sensors(reader, context, page)
        elif sensor is None:
            sums = await scores.since(
                reader,
                span.first,
                span.last,
                horizon_minutes=horizon_minutes,
                state=state,
                hour=hour,
                by_hour=by == "hour",
            )
            found = accuracy(sums, context.units, filters)
        else:
            found = []
    if sensor is not None:
        sums = _only(await scores_of_sensor(context, sensor.number, span.first), horizon_minutes, state, hour)
        found = await asyncio.to_thread(accuracy, sums, context.units, filters)
    return answer(accuracy_document(found, span, context.units), headers=next_page(request, following))


def _expect_alone(**others: object) -> None:
    """Raises InvalidInput where sums by sensor are to be told apart by something else, too."""
    for name, value in others.items():
        if value is not None:
            raise invalid(name, value, "expected none with by=sensor; without that, sensor_id tells one sensor apart")


async def _expect_forecaster(reader: Reader, model: str | None) -> None:
    """Raises InvalidInput where nobody of that name was scored."""
    if model is not None:
        known = sorted({SERVED, *NAIVE, *await scores.forecasters(reader)})
        if model not in known:
            raise invalid("model", model, f"expected one of {', '.join(known)}")


def _span(context: ApiContext, days: int) -> Span:
    """Up to the clock's own day: a store may hold scores of what is to come to a replay."""
    now, zone = context.clock.now(), ZoneInfo(context.timezone)
    first, last = ((now - timedelta(days=back)).astimezone(zone).date() for back in (days, 0))
    return Span(days, first, last, context.timezone)


def _only(found: Iterable[Score], horizon_minutes: int | None, state: str | None, hour: int | None) -> list[Score]:
    """The scores that are asked for."""
    return [
        score
        for score in found
        if horizon_minutes in (None, score.horizon_minutes)
        and state in (None, score.state)
        and hour in (None, score.hour)
    ]


@dataclass(frozen=True, slots=True)
class _Page:
    """Which page of the sensors is wanted, by the error of which forecaster."""

    days: Span
    model: str
    horizon_minutes: int | None
    limit: int
    offset: int


async def _sensors(reader: Reader, context: ApiContext, page: _Page) -> tuple[list[ModelDocument], Cursor | None]:
    """Sensors and horizons, worst first, and where the next page begins."""
    minutes = context.interval_s // 60
    step = None if page.horizon_minutes is None else page.horizon_minutes // minutes
    first, last = page.days.first, page.days.last
    worst = await scores.worst_sensors(reader, first, last, page.model, step, page.limit + 1, page.offset)
    numbers = sorted({number for number, _ in worst})
    sums = await scores.of_sensors(reader, first, last, sorted({page.model, *NAIVE}), numbers, minutes)
    errors: dict[int, dict[tuple[int, str], Errors]] = {number: {} for number in numbers}
    for score in sums:
        errors[score.sensor_no or 0][score.horizon_minutes, score.model] = Errors([score])
    documents = [
        document(
            (at * minutes, page.model), errors[number], context.units.speed_per_mph, Filters("sensor"),
            context.state.sensors[number].sensor_id,
        )
        for number, at in worst[: page.limit]
        if number in context.state.sensors
    ]  # fmt: skip
    return documents, Cursor(page.offset + page.limit, 0) if len(worst) > page.limit else None


@router.get(
    "/export",
    operation_id="export_predictions",
    response_class=Download,
    dependencies=[Depends(one_of_few)],
    responses={
        **NOT_FOUND,
        200: {
            "content": {
                MEDIA_TYPES["csv"]: {"schema": {"type": "string"}},
                MEDIA_TYPES["parquet"]: {"schema": {"type": "string", "format": "binary"}},
            }
        },
    },
)
async def export(
    context: Context,
    sensor: OneSensor,
    since: Annotated[
        Time | None, Query(alias="from", description="Issued at this time or after; a day before `to` by default.")
    ] = None,
    until: Annotated[Time | None, Query(alias="to", description="Issued before this time; now by default.")] = None,
    horizon_minutes: HorizonMinutes = None,
    pending: Annotated[bool, Query(description="Also forecasts whose target has not come.")] = False,
    media: Annotated[Format, Query(alias="format")] = "csv",
) -> Response:
    """Every issued forecast beside what came true. One row per issue, sensor and horizon whose target was scored.

    `actual_speed` is what was taken as truth when the window was scored: later corrections do not change it. Each
    forecaster's own value stands in a column of its name, `candidate_…`.
    """
    expect_horizon(context, horizon_minutes)
    before = until or context.clock.now() + timedelta(seconds=1)
    first = since or before - timedelta(days=1)
    if first >= before:
        raise invalid("from", first, "expected a time before `to`")
    async with context.database.read() as reader:
        names = await forecasts.competitors(reader)
    wanted = Export(first, before, sensor.number if sensor else None, horizon_minutes, pending, names)
    headers = {"Content-Disposition": f'attachment; filename="{_file_name(first, before, media)}"'}
    return Download(encoded(context, wanted, media), headers=headers, media_type=MEDIA_TYPES[media])


def _file_name(first: datetime, before: datetime, media: Format) -> str:
    return f"predictions_{first:%Y%m%dT%H%MZ}_{before:%Y%m%dT%H%MZ}.{media}"
