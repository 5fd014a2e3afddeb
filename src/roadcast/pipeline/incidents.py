"""Incidents: changed in the store, and told to whoever listens to alerts."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID, uuid4, uuid5

import structlog

from roadcast.domain.clock import FeedClock
from roadcast.domain.incident import Alert, Incident, IncidentStatus, Severity
from roadcast.domain.times import to_ms
from roadcast.errors import Conflict, NotFound, Unavailable
from roadcast.storage import incidents
from roadcast.storage.engine import Database
from roadcast.streaming.log import Log, Record
from roadcast.streaming.messages import AlertRaised, encode

log = structlog.get_logger()

ALERT_TIMEOUT_S = 2.0
"""The next alert must not wait long for a database that takes none."""
CHANGE_TIMEOUT_S = 10.0
"""As long waits whoever reports or changes an incident."""


class Alerts:
    """Publishes alerts and stores them. One that cannot be stored is published all the same."""

    def __init__(self, database: Database, log: Log, topic: str) -> None:
        self._database = database
        self._log = log
        self._topic = topic

    async def tell(self, alert: Alert) -> None:
        """Publish, then store: an alert about the database must not wait for it."""
        message = AlertRaised(
            alert.alert_id, to_ms(alert.at), alert.kind, alert.severity.value, alert.message,
            alert.sensor_id, alert.incident_id,
        )  # fmt: skip
        await self._log.publish(self._topic, [Record(alert.sensor_id or "", encode(message))])
        try:
            async with self._database.write(ALERT_TIMEOUT_S) as writer:
                await incidents.add_alert(writer, alert)
        except Unavailable as error:
            log.warning("alert_not_stored", reason=error.message, alert=alert.message)


class IncidentDesk:
    """Creates and changes incidents; each creation and end is an alert."""

    def __init__(self, database: Database, clock: FeedClock, alerts: Alerts) -> None:
        self._database = database
        self._clock = clock
        self._alerts = alerts

    async def record(self, incident: Incident) -> bool:
        """Store an incident of the past, which alarms nobody; False where its id is known already."""
        async with self._database.write(CHANGE_TIMEOUT_S) as writer:
            return await incidents.create(writer, incident, self._clock.now())

    async def create(self, incident: Incident) -> Incident:
        """Store a new incident; one whose id is known already is left as it is."""
        if await self.record(incident):
            await self._alert(incident, "incident", incident.severity, _told(incident))
        return incident

    async def change(self, incident_id: UUID, action: str, changes: Mapping[str, object]) -> Incident:
        """Set fields; see `roadcast.api.context.IncidentDesk`."""
        async with self._database.write(CHANGE_TIMEOUT_S) as writer:
            before = await incidents.lock(writer, incident_id)
            if before is None:
                raise NotFound(f"There is no incident {incident_id}.")
            if before.status is IncidentStatus.CLOSED or action == before.status.value:
                raise Conflict(f"Incident {incident_id} is {before.status.value} already.")
            if isinstance(ended_at := changes.get("ended_at"), datetime):  # what is still to come may be called off
                changes = {**changes, "ended_at": max(ended_at, before.started_at)}
            after = await incidents.change(writer, incident_id, self._clock.now(), action, changes)
        if after is None:
            raise NotFound(f"There is no incident {incident_id}.")
        if after.status is IncidentStatus.CLOSED:
            await self._alert(after, "incident_closed", Severity.LOW, f"Ended: {_told(after)}")
        return after

    async def _alert(self, incident: Incident, kind: str, severity: Severity, message: str) -> None:
        """Tell; what is stored is stored, also where it cannot be told now."""
        alert_id = str(uuid5(UUID(incident.incident_id), kind))
        alert = Alert(alert_id, self._clock.now(), kind, severity, message, incident.sensor_id, incident.incident_id)
        try:
            await self._alerts.tell(alert)
        except Unavailable as error:
            log.error("alert_dropped", alert=message, reason=error.message)


def _told(incident: Incident) -> str:
    return ": ".join(filter(None, (incident.type, incident.description)))


def new_id() -> str:
    """An id for an incident or alert that nothing derives."""
    return str(uuid4())
