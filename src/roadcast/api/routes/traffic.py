"""Readings: the newest, the past, and what they come to."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from typing_extensions import TypedDict

from roadcast.api.answers import answer, next_page
from roadcast.api.context import ApiContext
from roadcast.api.deps import (
    DEFAULT_LIMIT,
    MOST_HISTORICAL,
    After,
    Context,
    Cursor,
    Hours,
    KnownAt,
    Limit,
    NamedSensor,
    OneSensor,
    Present,
    now_for,
    until_for,
    window_end,
)
from roadcast.api.fields import Whole
from roadcast.api.problems import NOT_FOUND, RESPONSES
from roadcast.domain.reading import SPEED
from roadcast.domain.times import from_ms, to_ms
from roadcast.live.analytics import Subject, add_up, grouped
from roadcast.live.documents import (
    SPEED_DECIMALS,
    VOLUME_DECIMALS,
    ForecastDocument,
    Number,
    Presenter,
    ReadingDocument,
    SensorDocument,
    SpeedUnit,
    rounded_number,
    speed_unit,
    whole,
)
from roadcast.storage import readings, rollups
from roadcast.storage.readings import Rows
from roadcast.windows import Totals

router = APIRouter(prefix="/api/traffic", tags=["traffic"], responses={**RESPONSES, **NOT_FOUND})

EVERY_ROW = 1 << 31
"""No limit: one sensor has some thousand readings in the longest window, a network as of a past time some million."""


class StatisticsDocument(TypedDict):
    """Speeds in `unit`; null where nothing was measured.

    `weighting` of the average speed is `volume` where every speed has a volume above zero, else `none`.
    """

    avg_speed: float | None
    min_speed: float | None
    max_speed: float | None
    avg_volume: Number
    total_readings: int
    time_window_hours: int
    weighting: Literal["volume", "none"]
    unit: SpeedUnit
    as_of: datetime


class SensorTrafficDocument(ReadingDocument):
    """A sensor's newest reading (nulls where it has none), what is known of it, and its forecasts."""

    sensor: SensorDocument
    forecasts: list[ForecastDocument]


@router.get(
    "/current",
    operation_id="get_current_traffic",
    response_model=list[ReadingDocument],
)
async def current(
    request: Request,
    context: Context,
    present: Present,
    sensor: OneSensor,
    after: After,
    as_of: KnownAt,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """The newest reading of every active sensor, by sensor."""
    rows = await _newest(context, as_of)
    rows = rows.take(_wanted(context, rows, sensor, after))
    page = rows.take(slice(limit))
    following = Cursor(int(page.sensor_no[-1]), 0) if len(rows) > limit else None
    found = present.readings(page, context.state.sensors, now_for(context, as_of))
    return answer(found, headers=next_page(request, following))


async def _newest(context: ApiContext, as_of: datetime | None) -> Rows:
    if as_of is None:
        return context.state.latest()
    async with context.database.read() as reader:
        return await readings.latest(reader, as_of)


def _wanted(context: ApiContext, rows: Rows, sensor: Subject | None, after: Cursor | None) -> NDArray[np.bool_]:
    if sensor is not None:
        return rows.sensor_no == sensor.number
    sensors = context.state.sensors
    active = [number for number, known in sensors.items() if known.status == "active"]
    return np.isin(rows.sensor_no, active) & (rows.sensor_no > (after.first if after else -1))


@router.get(
    "/historical",
    operation_id="get_historical_traffic",
    response_model=list[ReadingDocument],
)
async def historical(
    request: Request,
    context: Context,
    present: Present,
    hours: Hours,
    sensor: OneSensor,
    after: After,
    as_of: KnownAt,
    limit: Annotated[Whole, Query(ge=1, le=MOST_HISTORICAL)] = DEFAULT_LIMIT,
) -> Response:
    """Readings of the last hours, newest first."""
    now = now_for(context, as_of)
    async with context.database.read() as reader:
        rows = await readings.page(
            reader,
            since=now - timedelta(hours=hours),
            until=until_for(context, as_of),
            limit=limit + 1,
            sensor_no=sensor.number if sensor else None,
            before=(from_ms(after.first), after.second) if after else None,
            as_of=as_of,
        )
    page = rows.take(slice(limit))
    following = Cursor(int(page.ts_ms[-1]), int(page.sensor_no[-1])) if len(rows) > limit else None
    found = present.readings(page, context.state.sensors, now)
    return answer(found, headers=next_page(request, following, as_of=now))


@router.get(
    "/statistics",
    operation_id="get_traffic_statistics",
    response_model=StatisticsDocument,
)
async def statistics(context: Context, hours: Hours, sensor: OneSensor, as_of: KnownAt) -> Response:
    """Averages and extremes over the last hours."""
    now = now_for(context, as_of)
    totals, low, high = await _totals(context, now - timedelta(hours=hours), sensor, as_of)
    factor = context.units.speed_per_mph
    document: StatisticsDocument = {
        "avg_speed": rounded_number(totals.speed, SPEED_DECIMALS, factor),
        "min_speed": rounded_number(_as_summed(low), SPEED_DECIMALS, factor),
        "max_speed": rounded_number(_as_summed(high), SPEED_DECIMALS, factor),
        "avg_volume": whole(rounded_number(totals.volume, VOLUME_DECIMALS)),
        "total_readings": totals.readings,
        "time_window_hours": hours,
        "weighting": totals.weighting,
        "unit": speed_unit(context.units),
        "as_of": now,
    }
    return answer(document)


Summed = tuple[Totals, float | None, float | None]


async def _totals(context: ApiContext, since: datetime, sensor: Subject | None, as_of: datetime | None) -> Summed:
    """The totals of what came after `since`, with the least and greatest speed in mph."""
    until = until_for(context, as_of)
    async with context.database.read() as reader:
        if sensor is None and as_of is None:
            first_end = window_end(context, since)
            begun = await readings.between(reader, to_ms(since), to_ms(first_end))
            return _together(_summed(begun, context), await rollups.over(reader, first_end, until))
        number = sensor.number if sensor else None
        rows = await readings.page(reader, since=since, until=until, limit=EVERY_ROW, sensor_no=number, as_of=as_of)
    return _summed(rows, context)


def _summed(rows: Rows, context: ApiContext) -> Summed:
    """The totals of rows."""
    parts = grouped(rows, np.zeros(len(rows), np.int64), context.state.sensors)
    speed = rows.values[:, SPEED]
    known = speed[~np.isnan(speed)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    return add_up(totals for _, totals in parts), low, high


def _together(*parts: Summed) -> Summed:
    lows = [low for _, low, _ in parts if low is not None]
    highs = [high for _, _, high in parts if high is not None]
    return add_up(totals for totals, _, _ in parts), min(lows, default=None), max(highs, default=None)


def _as_summed(speed: float | None) -> float | None:
    """A speed to the thousandth, as it went into the sums: or an average of equal speeds could lie beside them."""
    return None if speed is None else round(speed, 3)


@router.get(
    "/sensors/{sensor_id:code}",
    operation_id="get_sensor_traffic",
    response_model=SensorTrafficDocument,
)
async def sensor_traffic(context: Context, present: Present, sensor: NamedSensor) -> Response:
    """One sensor's newest reading and forecasts."""
    rows = context.state.latest(sensor.number)
    found = present.readings(rows, context.state.sensors, context.clock.now())
    document: SensorTrafficDocument = {
        **(found[0] if found else _no_reading(sensor)),
        "sensor": present.sensor(sensor.sensor),
        "forecasts": _forecasts(context, present, sensor),
    }
    return answer(document)


def _no_reading(sensor: Subject) -> ReadingDocument:
    return {
        "id": None,
        "sensor_id": sensor.sensor.sensor_id,
        "speed": None,
        "volume": None,
        "density": None,
        "occupancy": None,
        "timestamp": None,
        "age_s": None,
        "stale": True,
    }


def _forecasts(context: ApiContext, present: Presenter, sensor: Subject) -> list[ForecastDocument]:
    issue = context.state.issue
    if issue is None:
        return []
    return present.forecasts(issue, context.state.sensors, present.choose(issue, sensor_no=sensor.number))
