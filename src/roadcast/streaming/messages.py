"""The messages on the log, as JSON. `v` is the version; readers skip fields that they do not know.

Times are RFC 3339 with `Z`; units are the inner ones (mph, vehicles per mile, fractions).
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
import orjson

VERSION = 1


class ReadingStored(msgspec.Struct, tag="reading", tag_field="kind", omit_defaults=True):
    """A reading that is committed; a later one of the same sensor and time corrects it."""

    sensor_id: str
    sensor_no: int
    at_ms: int
    received_ms: int
    speed: float | None = None
    volume: float | None = None
    density: float | None = None
    occupancy: float | None = None
    v: int = VERSION


class TickClosed(msgspec.Struct, tag="tick", tag_field="kind"):
    """A window over the network has closed; all its readings that were in time are committed."""

    tick_end_ms: int
    readings: int
    source: str
    replayed: bool
    v: int = VERSION


class ForecastIssued(msgspec.Struct, tag="forecast", tag_field="kind"):
    """One sensor's forecasts of one issue: arrays over the horizons, quantiles [horizon][level]; null is unknown."""

    sensor_id: str
    sensor_no: int
    issued_ms: int
    interval_ms: int
    model: str
    version: str
    age_ticks: int
    speed: list[float | None]
    volume: list[float | None]
    confidence: list[float | None]
    tolerance: list[float | None]
    quantiles: list[list[float | None]]
    v: int = VERSION


class IssueComplete(msgspec.Struct, tag="issue", tag_field="kind"):
    """Every sensor's forecasts of an issue are stored and published."""

    issued_ms: int
    sensors: int
    horizons: int
    model: str
    version: str
    on_demand: bool = False
    """Asked for, so that its window may not have closed."""
    v: int = VERSION


class AlertRaised(msgspec.Struct, tag="alert", tag_field="kind"):
    """Something an operator should know now."""

    alert_id: str
    at_ms: int
    alert: str
    severity: Literal["low", "medium", "high", "critical"]
    message: str
    sensor_id: str | None = None
    incident_id: str | None = None
    v: int = VERSION


Message = ReadingStored | TickClosed | ForecastIssued | IssueComplete | AlertRaised
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """A message as bytes."""
    return _encoder.encode(message)


def encode_rows(shared: Mapping[str, object], rows: Iterable[Mapping[str, object]]) -> list[bytes]:
    """Many `ForecastIssued` that share fields, whose arrays are numpy's: a third of the time of `encode`."""
    head = {"kind": "forecast", **shared, "v": VERSION}
    return [orjson.dumps({**head, **row}, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]


def decode(value: bytes) -> Message:
    """The message in bytes.

    Raises:
        ValueError: the bytes are not one of the messages above.
    """
    return _decoder.decode(value)
