"""Inner values as the JSON documents that REST and sockets share, with the mission's keys, in the configured units.

What is missing is null, never NaN. Numbers are rounded so that what was stored as float32 reads as it was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isnan
from typing import Literal, TypeAlias
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from typing_extensions import TypedDict

from roadcast.domain.clock import FeedClock
from roadcast.domain.forecast import QUANTILE_NAMES
from roadcast.domain.ids import pack
from roadcast.domain.incident import Alert, Incident, IncidentStatus, Severity
from roadcast.domain.sensor import Sensor
from roadcast.domain.times import from_ms, to_ms
from roadcast.domain.units import Units
from roadcast.services import Board, Status
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.readings import Rows

Number: TypeAlias = int | float | None
SpeedUnit = Literal["mph", "km/h"]

READING_DECIMALS = (4, 3, 4, 6)
"""Of speed, volume, density and occupancy: within the seven digits that float32 keeps."""
SPEED_DECIMALS = 2
VOLUME_DECIMALS = 1
CONFIDENCE_DECIMALS = 4


class ReadingDocument(TypedDict):
    """One reading. `volume` counts vehicles per interval over all lanes, `occupancy` is a fraction."""

    id: UUID | None
    sensor_id: str
    speed: float | None
    volume: Number
    density: float | None
    occupancy: float | None
    timestamp: datetime | None
    age_s: float | None
    stale: bool


class ForecastDocument(TypedDict):
    """One sensor's forecast for one time. `confidence` is how likely its error is within `tolerance`."""

    id: UUID
    sensor_id: str
    issued_at: datetime
    target_time: datetime
    horizon_minutes: int
    predicted_speed: float | None
    predicted_volume: Number
    confidence: float | None
    tolerance: float | None
    quantiles: dict[str, float | None]
    model_name: str
    model_version: str
    unit: SpeedUnit
    data_age_s: float


class SensorDocument(TypedDict):
    """One detector station; speeds in `unit`."""

    sensor_id: str
    name: str | None
    road: str | None
    direction: str | None
    lanes: int | None
    milepost: float | None
    latitude: float | None
    longitude: float | None
    speed_limit: float | None
    reference_speed: float | None
    status: str
    unit: SpeedUnit


class IncidentDocument(TypedDict):
    """Something that disturbs traffic; `lanes` counts those it closes."""

    incident_id: str
    type: str
    severity: Severity
    description: str
    sensor_id: str | None
    road: str | None
    direction: str | None
    latitude: float | None
    longitude: float | None
    lanes: int | None
    started_at: datetime
    ended_at: datetime | None
    status: IncidentStatus
    source: str


class AlertDocument(TypedDict):
    """Something an operator should know now."""

    alert_id: str
    kind: str
    severity: Severity
    message: str
    sensor_id: str | None
    incident_id: str | None


class FeedDocument(TypedDict):
    """What feeds the system; nothing of a simulated feed is real."""

    name: str
    mode: Literal["live", "replayed"]
    simulated: bool


class PartDocument(TypedDict):
    """How one part is, since when, and what to do about it."""

    name: str
    status: Status
    since: datetime
    detail: str
    remedy: str


class StatusDocument(TypedDict):
    """How the system is. `clock` is the feed's time, `uptime` seconds."""

    status: Status
    since: datetime
    clock: datetime
    uptime: float
    connections: int
    feed: FeedDocument
    parts: list[PartDocument]


def encode(value: object) -> bytes:
    """A document as JSON; times are UTC with `Z`."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def rounded(values: NDArray[np.floating], decimals: int, factor: float = 1.0) -> list[float | None]:
    """Values [n] times `factor` as JSON numbers."""
    numbers = np.round(values.astype(np.float64) * factor, decimals)
    missing = np.isnan(numbers).any()
    return [None if isnan(number) else number for number in numbers.tolist()] if missing else numbers.tolist()


def whole(number: float | None) -> Number:
    """A number without its fraction where that is nothing."""
    return int(number) if number is not None and number.is_integer() else number


def rounded_number(value: float | None, decimals: int, factor: float = 1.0) -> float | None:
    """One value as a JSON number, zero without a sign."""
    return None if value is None or isnan(value) else round(float(value) * factor, decimals) + 0.0


def speed_unit(units: Units) -> SpeedUnit:
    """The unit of every speed of an answer."""
    return "km/h" if units is Units.METRIC else "mph"


def density_unit(units: Units) -> str:
    """The unit of every density of an answer."""
    return "veh/km" if units is Units.METRIC else "veh/mi"


def unit_factors(units: Units) -> NDArray[np.float64]:
    """What turns the inner values of a reading into the configured units, [4]."""
    return np.array([units.speed_per_mph, 1.0, units.density_per_mile, 1.0])


@dataclass(frozen=True, slots=True)
class Presenter:
    """Makes documents: in which units, of intervals of which length, and from which age on a reading is stale.

    What belongs to a sensor that is not among `sensors` is left out: it was registered a moment ago, and this process
    hears of it in the next.
    """

    units: Units
    interval_s: int
    stale_after_s: float

    def readings(self, rows: Rows, sensors: Mapping[int, Sensor], now: datetime) -> list[ReadingDocument]:
        """One document per row; ages are counted from `now`."""
        values = rows.values.astype(np.float64) * unit_factors(self.units)
        speed, volume, density, occupancy = map(rounded, values.T, READING_DECIMALS)
        age = np.maximum(to_ms(now) - rows.since_ms, 0) / 1000
        times = {at: from_ms(at) for at in set(rows.ts_ms.tolist())}
        columns = zip(
            rows.sensor_no.tolist(), rows.ts_ms.tolist(), speed, volume, density, occupancy, age.tolist(), strict=True
        )
        return [
            {
                "id": pack(number, at),
                "sensor_id": sensors[number].sensor_id,
                "speed": v,
                "volume": whole(n),
                "density": k,
                "occupancy": occ,
                "timestamp": times[at],
                "age_s": age_s,
                "stale": age_s > self.stale_after_s,
            }
            for number, at, v, n, k, occ, age_s in columns
            if number in sensors
        ]

    def horizons(self, issue: IssuedRows) -> NDArray[np.int64]:
        """The horizon of each step in minutes [H]; -1 for those between whole minutes, which are not shown."""
        seconds = self.interval_s * np.arange(1, issue.speed.shape[1] + 1, dtype=np.int64)
        return np.where(seconds % 60 == 0, seconds // 60, -1)

    def choose(
        self,
        issue: IssuedRows,
        *,
        sensor_no: int | None = None,
        horizon_minutes: int | None = None,
        min_confidence: float | None = None,
        after: tuple[int, int] | None = None,
    ) -> NDArray[np.intp]:
        """Which forecasts are asked for, as pairs [n, 2] of sensor and step, by sensor number and horizon.

        after: sensor number and horizon of the last one that is known already.
        """
        horizon = self.horizons(issue)
        wanted = ~(np.isnan(issue.speed) & np.isnan(issue.volume)) & (horizon > 0)
        if sensor_no is not None:
            wanted &= (issue.sensor_no == sensor_no)[:, np.newaxis]
        if horizon_minutes is not None:
            wanted &= horizon == horizon_minutes
        if min_confidence is not None:
            wanted &= np.round(issue.confidence.astype(np.float64), CONFIDENCE_DECIMALS) >= min_confidence
        if after is not None:
            number = issue.sensor_no[:, np.newaxis]
            wanted &= (number > after[0]) | ((number == after[0]) & (horizon > after[1]))
        return np.argwhere(wanted)

    def forecasts(
        self, issue: IssuedRows, sensors: Mapping[int, Sensor], chosen: NDArray[np.intp] | None = None
    ) -> list[ForecastDocument]:
        """One document per forecast: those `chosen`, else every one with a speed or a volume."""
        s, h = (self.choose(issue) if chosen is None else chosen).T
        factor = self.units.speed_per_mph
        minutes = self.horizons(issue)[h].tolist()
        targets = {minute: from_ms(issue.issued_ms + minute * 60_000) for minute in set(minutes)}
        levels = [rounded(column, SPEED_DECIMALS, factor) for column in issue.quantiles[s, h].T]
        columns = zip(
            issue.sensor_no[s].tolist(),
            minutes,
            rounded(issue.speed[s, h], SPEED_DECIMALS, factor),
            rounded(issue.volume[s, h], VOLUME_DECIMALS),
            rounded(issue.confidence[s, h], CONFIDENCE_DECIMALS),
            rounded(issue.tolerance[s, h], SPEED_DECIMALS, factor),
            zip(*levels, strict=True),
            (issue.age_ticks[s] * float(self.interval_s)).tolist(),
            strict=True,
        )
        issued_at, unit = from_ms(issue.issued_ms), speed_unit(self.units)
        return [
            {
                "id": pack(number, issue.issued_ms, minute),
                "sensor_id": sensors[number].sensor_id,
                "issued_at": issued_at,
                "target_time": targets[minute],
                "horizon_minutes": minute,
                "predicted_speed": speed,
                "predicted_volume": whole(volume),
                "confidence": confidence,
                "tolerance": tolerance,
                "quantiles": dict(zip(QUANTILE_NAMES, quantiles, strict=True)),
                "model_name": issue.model,
                "model_version": issue.version,
                "unit": unit,
                "data_age_s": age_s,
            }
            for number, minute, speed, volume, confidence, tolerance, quantiles, age_s in columns
            if number in sensors
        ]

    def sensor(self, sensor: Sensor) -> SensorDocument:
        """One sensor."""
        factor = self.units.speed_per_mph
        return {
            "sensor_id": sensor.sensor_id,
            "name": sensor.name,
            "road": sensor.road,
            "direction": sensor.direction,
            "lanes": sensor.lanes,
            "milepost": sensor.milepost,
            "latitude": sensor.latitude,
            "longitude": sensor.longitude,
            "speed_limit": rounded_number(sensor.speed_limit, SPEED_DECIMALS, factor),
            "reference_speed": rounded_number(sensor.reference_speed, SPEED_DECIMALS, factor),
            "status": sensor.status,
            "unit": speed_unit(self.units),
        }


def incident_document(incident: Incident) -> IncidentDocument:
    """One incident."""
    return {
        "incident_id": incident.incident_id,
        "type": incident.type,
        "severity": incident.severity,
        "description": incident.description,
        "sensor_id": incident.sensor_id,
        "road": incident.road,
        "direction": incident.direction,
        "latitude": incident.latitude,
        "longitude": incident.longitude,
        "lanes": incident.lanes,
        "started_at": incident.started_at,
        "ended_at": incident.ended_at,
        "status": incident.status,
        "source": incident.source,
    }


def alert_document(alert: Alert) -> AlertDocument:
    """One alert; its time is that of the frame that carries it."""
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "severity": alert.severity,
        "message": alert.message,
        "sensor_id": alert.sensor_id,
        "incident_id": alert.incident_id,
    }


def feed_document(clock: FeedClock) -> FeedDocument:
    """What feeds the system."""
    return {
        "name": clock.name,
        "mode": "replayed" if clock.feed.replayed else "live",
        "simulated": clock.simulated,
    }


def status_document(board: Board, clock: FeedClock, started_at: datetime, connections: int) -> StatusDocument:
    """How the system is."""
    parts = board.parts
    return {
        "status": board.status,
        "since": _since(board, started_at),
        "clock": clock.now(),
        "uptime": round((clock.wall() - started_at).total_seconds(), 1),
        "connections": connections,
        "feed": feed_document(clock),
        "parts": [
            {
                "name": part.name,
                "status": part.status,
                "since": part.since,
                "detail": part.detail,
                "remedy": part.remedy,
            }
            for part in parts
        ],
    }


def _since(board: Board, started_at: datetime) -> datetime:
    """All is well since the last part recovered; it is as bad as it is since the first part became so."""
    since = [part.since for part in board.parts if part.status is board.status]
    return (max if board.status is Status.OK else min)(since, default=started_at)
