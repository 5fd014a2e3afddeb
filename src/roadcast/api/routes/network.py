"""The network as a map needs it: where it is, and how it is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from typing_extensions import TypedDict

from roadcast.api.answers import answer
from roadcast.api.context import ApiContext
from roadcast.api.deps import Context, Present
from roadcast.api.problems import AWAY
from roadcast.domain.reading import SPEED, VOLUME
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import from_ms, to_ms
from roadcast.domain.units import KM_PER_MILE, Units
from roadcast.flow.congestion import level
from roadcast.live.documents import (
    SPEED_DECIMALS,
    Number,
    Presenter,
    SpeedUnit,
    encode,
    rounded,
    rounded_number,
    speed_unit,
    whole,
)
from roadcast.storage import sensors

router = APIRouter(prefix="/api/network", tags=["network"])


class Geometry(TypedDict):
    """A GeoJSON geometry: longitude before latitude."""

    type: Literal["Point", "LineString"]
    coordinates: list[float] | list[list[float]]


class Feature(TypedDict):
    """A sensor (`kind` sensor, a point) or a link between two (`kind` link, a line); no geometry where unknown."""

    type: Literal["Feature"]
    id: str
    geometry: Geometry | None
    properties: dict[str, object]


class FeatureCollection(TypedDict):
    """GeoJSON, RFC 7946."""

    type: Literal["FeatureCollection"]
    features: list[Feature]


class ForecastColumns(TypedDict):
    """The newest issue: speeds and levels, one row per horizon, columns as in `sensor_ids`."""

    issued_at: datetime
    horizon_minutes: list[int]
    speed: list[list[float | None]]
    level: list[list[str | None]]


class StateDocument(TypedDict):
    """Every sensor's newest values and forecasts as columns, all in the order of `sensor_ids`.

    `ratio` is speed over reference speed (or speed limit), `level` low, medium, high or severe. Null is missing.
    """

    as_of: datetime
    unit: SpeedUnit
    sensor_ids: list[str]
    timestamp: list[datetime | None]
    speed: list[float | None]
    volume: list[Number]
    ratio: list[float | None]
    level: list[str | None]
    age_s: list[float | None]
    stale: list[bool]
    forecast: ForecastColumns | None


class GeoJsonResponse(JSONResponse):
    """GeoJSON says what it is."""

    media_type = "application/geo+json"

    def render(self, content: object) -> bytes:
        """As JSON."""
        return encode(content)


@router.get(
    "", operation_id="get_network", response_model=FeatureCollection, response_class=GeoJsonResponse, responses=AWAY
)
async def network(context: Context, present: Present) -> Response:
    """Sensors and links as GeoJSON."""
    async with context.database.read() as reader:
        links = await sensors.links(reader)
    known = context.state.sensors
    by_code = {sensor.sensor_id: sensor for sensor in known.values()}
    points = [_sensor_feature(sensor, present) for sensor in known.values()]
    lines = [_link_feature(link, by_code, context.units) for link in links]
    collection: FeatureCollection = {"type": "FeatureCollection", "features": [*points, *lines]}
    return GeoJsonResponse(collection)


def _sensor_feature(sensor: Sensor, present: Presenter) -> Feature:
    place = _place(sensor)
    return {
        "type": "Feature",
        "id": sensor.sensor_id,
        "geometry": {"type": "Point", "coordinates": place} if place else None,
        "properties": {"kind": "sensor", **present.sensor(sensor)},
    }


def _link_feature(link: Link, by_code: Mapping[str, Sensor], units: Units) -> Feature:
    start, end = (_place(by_code[code]) if code in by_code else None for code in (link.from_sensor, link.to_sensor))
    metric = units is Units.METRIC
    return {
        "type": "Feature",
        "id": f"{link.from_sensor}->{link.to_sensor}",
        "geometry": {"type": "LineString", "coordinates": [start, end]} if start and end else None,
        "properties": {
            "kind": "link",
            "from_sensor": link.from_sensor,
            "to_sensor": link.to_sensor,
            "distance": rounded_number(link.distance_mi, 4, KM_PER_MILE if metric else 1.0),
            "distance_unit": "km" if metric else "mi",
            "weight": link.weight,
        },
    }


def _place(sensor: Sensor) -> list[float] | None:
    if sensor.longitude is None or sensor.latitude is None:
        return None
    return [sensor.longitude, sensor.latitude]


@router.get("/state", operation_id="get_network_state", response_model=StateDocument)
async def state(context: Context, present: Present) -> Response:
    """How every sensor is and will be."""
    live, now = context.state, context.clock.now()
    numbers = sorted(live.sensors)
    known = [live.sensors[number] for number in numbers]
    reference = np.array([np.nan if sensor.free_speed is None else sensor.free_speed for sensor in known])
    rows = live.latest()
    rows = rows.take(np.isin(rows.sensor_no, numbers))
    at = np.searchsorted(numbers, rows.sensor_no)
    values = np.full((len(known), 4), np.nan)
    values[at] = rows.values
    seen_ms = np.full(len(known), -1, np.int64)
    seen_ms[at] = rows.ts_ms
    since = np.full(len(known), np.nan)
    since[at] = rows.since_ms
    ratio = values[:, SPEED] / reference
    age = np.maximum(to_ms(now) - since, 0) / 1000
    document: StateDocument = {
        "as_of": now,
        "unit": speed_unit(context.units),
        "sensor_ids": [sensor.sensor_id for sensor in known],
        "timestamp": [from_ms(ms) if ms >= 0 else None for ms in seen_ms.tolist()],
        "speed": rounded(values[:, SPEED], SPEED_DECIMALS, context.units.speed_per_mph),
        "volume": [whole(volume) for volume in rounded(values[:, VOLUME], 3)],
        "ratio": rounded(ratio, 3),
        "level": _levels(ratio),
        "age_s": rounded(age, 3),
        "stale": [not age_s <= context.stale_after_s for age_s in age.tolist()],
        "forecast": _forecast(context, present, numbers, reference),
    }
    return answer(document)


def _levels(ratio: NDArray[np.float64]) -> list[str | None]:
    return [level(value) for value in ratio.tolist()]


def _forecast(
    context: ApiContext, present: Presenter, numbers: Sequence[int], reference: NDArray[np.float64]
) -> ForecastColumns | None:
    issue = context.state.issue
    if issue is None:
        return None
    minutes = present.horizons(issue)
    steps = np.flatnonzero(minutes > 0)
    known = np.isin(issue.sensor_no, numbers)
    speed = np.full((len(steps), len(numbers)), np.nan)
    speed[:, np.searchsorted(numbers, issue.sensor_no[known])] = issue.speed[known][:, steps].T
    factor = context.units.speed_per_mph
    return {
        "issued_at": from_ms(issue.issued_ms),
        "horizon_minutes": minutes[steps].tolist(),
        "speed": [rounded(row, SPEED_DECIMALS, factor) for row in speed],
        "level": [_levels(row / reference) for row in speed],
    }
