"""Incidents and alerts."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Severity(StrEnum):
    """How grave it is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class IncidentStatus(StrEnum):
    """Where an incident stands; `closed` is final."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that disturbs traffic. `lanes` counts the lanes it closes."""

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


@dataclass(frozen=True, slots=True)
class IncidentEvent:
    """One change of an incident: what was done, when, and the values it changed."""

    at: datetime
    action: str
    changes: dict[str, object]


@dataclass(frozen=True, slots=True)
class Alert:
    """Something an operator should know now."""

    alert_id: str
    at: datetime
    kind: str
    severity: Severity
    message: str
    sensor_id: str | None = None
    incident_id: str | None = None
