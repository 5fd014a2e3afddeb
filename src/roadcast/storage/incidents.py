"""Incidents with their history, and alerts."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from roadcast.domain.incident import Alert, Incident, IncidentEvent, IncidentStatus, Severity
from roadcast.storage.engine import Reader, Row, Writer

_NAMES = [f.name for f in fields(Incident)]
_COLUMNS = ", ".join(_NAMES)


def _incident(row: Row) -> Incident:
    values: dict[str, Any] = {name: row[name] for name in _NAMES}
    values["incident_id"] = str(row["incident_id"])
    values["severity"] = Severity(row["severity"])
    values["status"] = IncidentStatus(row["status"])
    return Incident(**values)


async def create(writer: Writer, incident: Incident, at: datetime) -> bool:
    """Store a new incident with its first event; False where its id is known already."""
    made = await writer.run(
        f"""INSERT INTO incidents ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in _NAMES)})
        ON CONFLICT (incident_id) DO NOTHING""",
        **{name: getattr(incident, name) for name in _NAMES},
    )
    if made:
        await _record(writer, incident.incident_id, at, "created", {"status": incident.status})
    return bool(made)


async def get(reader: Reader, incident_id: UUID) -> Incident | None:
    """One incident."""
    row = await reader.row(f"SELECT {_COLUMNS} FROM incidents WHERE incident_id = :id", id=incident_id)
    return _incident(row) if row else None


async def lock(writer: Writer, incident_id: UUID) -> Incident | None:
    """One incident, held until the transaction ends, so that a change is made to what was read."""
    row = await writer.row(f"SELECT {_COLUMNS} FROM incidents WHERE incident_id = :id FOR UPDATE", id=incident_id)
    return _incident(row) if row else None


async def change(
    writer: Writer, incident_id: UUID, at: datetime, action: str, changes: Mapping[str, object]
) -> Incident | None:
    """Set the given fields and record the event; the incident as it then is, None where there is none."""
    sets = ", ".join(f"{name} = :{name}" for name in changes if name in _NAMES)
    if sets and not await writer.run(f"UPDATE incidents SET {sets} WHERE incident_id = :id", id=incident_id, **changes):
        return None
    await _record(writer, str(incident_id), at, action, changes)
    return await get(writer, incident_id)


async def _record(writer: Writer, incident_id: str, at: datetime, action: str, changes: Mapping[str, object]) -> None:
    await writer.run(
        """INSERT INTO incident_events (incident_id, at, action, changes)
        VALUES (:id, :at, :action, CAST(:changes AS jsonb))""",
        id=incident_id,
        at=at,
        action=action,
        changes=orjson.dumps(changes, option=orjson.OPT_UTC_Z).decode(),
    )


async def search(
    reader: Reader,
    *,
    status: IncidentStatus | None = None,
    sensor_id: str | None = None,
    since: datetime | None = None,
    after: Incident | None = None,
    limit: int = 100,
) -> list[Incident]:
    """Incidents, newest first, that have not ended before `since`, from the one after `after` on."""
    given = {"status": status, "sensor_id": sensor_id, "since": since, "started_at": after and after.started_at}
    tests = {
        "status": "status = :status",
        "sensor_id": "sensor_id = :sensor_id",
        "since": "(ended_at IS NULL OR ended_at >= :since)",
        "started_at": "(started_at < :started_at OR (started_at = :started_at AND incident_id > :after))",
    }
    where = " AND ".join(["true", *(test for name, test in tests.items() if given[name] is not None)])
    rows = await reader.rows(
        f"SELECT {_COLUMNS} FROM incidents WHERE {where} ORDER BY started_at DESC, incident_id LIMIT :limit",
        limit=limit,
        after=after and after.incident_id,
        **{name: value for name, value in given.items() if value is not None},
    )
    return [_incident(row) for row in rows]


async def history(reader: Reader, incident_id: UUID) -> list[IncidentEvent]:
    """What happened to an incident, oldest first."""
    rows = await reader.rows(
        "SELECT at, action, changes FROM incident_events WHERE incident_id = :id ORDER BY event_no", id=incident_id
    )
    return [IncidentEvent(row["at"], row["action"], row["changes"]) for row in rows]


async def add_alert(writer: Writer, alert: Alert) -> None:
    """Store an alert once."""
    await writer.run(
        """INSERT INTO alerts (alert_id, at, kind, severity, message, sensor_id, incident_id)
        VALUES (:alert_id, :at, :kind, :severity, :message, :sensor_id, :incident_id) ON CONFLICT DO NOTHING""",
        **{f.name: getattr(alert, f.name) for f in fields(Alert)},
    )


async def forget_alerts(writer: Writer, before: datetime) -> None:
    """Delete the alerts from before a time."""
    await writer.run("DELETE FROM alerts WHERE at < :before", before=before)
