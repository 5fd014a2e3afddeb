"""The demo's feed: a simulated corridor, marked as simulated wherever it shows.

It begins at 05:00 of the last working day of which both peaks have passed, with eight weeks of history behind it, a
tick every few seconds, and goes on in real time once it has reached the present.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import cast
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import numpy as np
import structlog

from roadcast.child import Child, ChildDown
from roadcast.domain.clock import DEMO
from roadcast.domain.incident import Incident, IncidentStatus
from roadcast.domain.reading import OCCUPANCY, SPEED, Account, ReadingBatch, Source, merge
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import EPOCH, to_ms
from roadcast.flow.closures import CorridorIncident
from roadcast.flow.congestion import light_speeds, reference_speed
from roadcast.flow.corridor import CorridorDay, simulate_days
from roadcast.flow.road import Corridor, demo_corridor

log = structlog.get_logger()

HISTORY_DAYS = 56
DAYS_AT_ONCE = 14
"""Days that are simulated and stored together."""
SIMULATION_TIMEOUT_S = 120.0
RETRY_PAUSE_S = 1.0
BEGINS_AT = time(5)
"""Local time at which the newcomer joins: the morning's jam is about to form."""
ALREADY_OVER = timedelta(hours=14)
"""Of the day that is joined, so that there is a morning and an evening to watch before the demo turns to real time."""
_NAMESPACE = UUID("7f1d8a52-6c0e-4d8e-9f55-2f1f6d5f4e10")


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What the demo is told by the settings."""

    seed: int
    tick_s: float
    interval_s: int
    timezone: str


@dataclass(frozen=True, slots=True)
class DemoPorts:
    """Where the demo sends what it simulates."""

    submit: Callable[[ReadingBatch, Source], Awaitable[Account]]
    describe: Callable[[Sequence[Sensor], Sequence[Link]], Awaitable[None]]
    record_incident: Callable[[Incident], Awaitable[bool]]
    create_incident: Callable[[Incident], Awaitable[object]]
    close_incident: Callable[[str, datetime], Awaitable[object]]
    loaded: Callable[[], Awaitable[None]]
    completed: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Simulator:
    """What the child holds."""

    corridor: Corridor
    seed: int
    interval_s: int

    def days(self, dates: Sequence[date]) -> list[CorridorDay]:
        """Simulate some days."""
        return simulate_days(self.corridor, self.seed, dates, self.interval_s)


class DemoFeed:
    """Simulates, first the history and then tick by tick."""

    def __init__(self, config: DemoConfig, ports: DemoPorts, wall: Callable[[], datetime]) -> None:
        self._config = config
        self._ports = ports
        self._wall = wall
        self._zone = ZoneInfo(config.timezone)
        self._corridor = demo_corridor()
        self._child = Child("simulator", partial(Simulator, self._corridor, config.seed, config.interval_s))
        self._begun = False
        self._codes = tuple(sensor.sensor_id for sensor in self._corridor.sensors)

    async def run(self, reached_at: datetime | None, *, complete: bool) -> None:
        """Feed for ever; `reached_at` is where an earlier run came to, which may have stored its history `complete`.

        The newest days come first, so that forecasts begin at once; the days before are stored beside the feed.
        """
        begins_at = last_working_morning(self._wall(), self._zone)
        begins_at = max(begins_at, reached_at or begins_at)
        after = reached_at if complete else None
        chunks = self._missing(after, begins_at)
        try:
            newest = await self._simulate(chunks[0])
            if not complete:
                await self._ports.describe(self._sensors(newest), self._corridor.links)
            await self._store(newest, after, begins_at)
            await self._ports.loaded()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._store_before(chunks[1:], begins_at))
                group.create_task(self._play_from(newest[-1], begins_at))
        finally:
            self._child.stop()

    def _missing(self, after: datetime | None, until: datetime) -> list[list[date]]:
        """The local days from `after` (None: eight weeks before) to `until`, in chunks from the newest on."""
        last = until.astimezone(self._zone).date()
        first = last - timedelta(days=HISTORY_DAYS)
        if after is not None:
            first = max(first, after.astimezone(self._zone).date())
        days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
        return [days[max(end - DAYS_AT_ONCE, 0) : end] for end in range(len(days), 0, -DAYS_AT_ONCE)]

    async def _store(self, days: Sequence[CorridorDay], after: datetime | None, until: datetime) -> None:
        """Store some days' readings and incidents in (after, until] as history."""
        wanted = [
            batch for day in days for at, batch in self._ticks(day) if (after is None or at > after) and at <= until
        ]
        if wanted:
            await self._ports.submit(merge(wanted), _source(to_ms(until), history=True))
        for day in days:
            await self._tell_past(day, until)

    async def _store_before(self, chunks: Sequence[Sequence[date]], until: datetime) -> None:
        """Store the older history, and have it learnt from."""
        for chunk in chunks:
            await self._store(await self._simulate(chunk), None, until)
        if chunks:
            await self._ports.completed()

    async def _play_from(self, day: CorridorDay, begins_at: datetime) -> None:
        """One day after another."""
        while True:
            await self._play(day, begins_at)
            [day] = await self._simulate([day.date + timedelta(days=1)])

    def _sensors(self, days: Sequence[CorridorDay]) -> list[Sensor]:
        """The corridor's sensors with the reference speeds that these days show."""
        values = np.concatenate([day.values for day in days])
        speeds = reference_speed(light_speeds(values[:, :, SPEED], values[:, :, OCCUPANCY])).tolist()
        return [
            replace(sensor, reference_speed=None if math.isnan(speed) else speed)
            for sensor, speed in zip(self._corridor.sensors, speeds, strict=True)
        ]

    async def _simulate(self, days: Sequence[date]) -> list[CorridorDay]:
        """Simulate in the child; one that died is started again."""
        while True:
            if not self._child.running:
                self._child.start()
            try:
                return cast("list[CorridorDay]", await self._child.call("days", days, timeout_s=SIMULATION_TIMEOUT_S))
            except ChildDown:
                await asyncio.sleep(RETRY_PAUSE_S)

    def _ticks(self, day: CorridorDay) -> Iterator[tuple[datetime, ReadingBatch]]:
        """The ends of a day's ticks and their readings; missing ones are not sent."""
        for i, values in enumerate(day.values):
            at = self._instant(day.date, (i + 1) * self._config.interval_s)
            if at is not None:
                sensor = np.flatnonzero(~np.all(np.isnan(values), axis=1)).astype(np.int32)
                yield at, ReadingBatch(self._codes, sensor, np.full(len(sensor), to_ms(at), np.int64), values[sensor])

    def _instant(self, day: date, seconds: int) -> datetime | None:
        """The instant of a local time of day; None for one that a clock change skips."""
        local = datetime.combine(day, time()) + timedelta(seconds=seconds)
        at = local.replace(tzinfo=self._zone).astimezone(UTC)
        return at if at.astimezone(self._zone).replace(tzinfo=None) == local else None

    async def _play(self, day: CorridorDay, begins_at: datetime) -> None:
        """Send the ticks after `begins_at`, each when it is due."""
        coming = sorted(day.incidents, key=lambda incident: incident.start_s)
        for at, batch in self._ticks(day):
            if at <= begins_at:
                continue
            await self._wait(at)
            await self._ports.submit(batch, _source(to_ms(at)))
            for incident in coming:
                await self._tell(day.date, incident, at)

    async def _wait(self, at: datetime) -> None:
        """The first tick comes at once, one of the past after the demo's pause, one of the present when it is over."""
        ahead = (at - self._wall()).total_seconds()
        first, self._begun = not self._begun, True
        if first and ahead < 0:
            return
        await asyncio.sleep(self._config.tick_s if ahead < -self._config.interval_s else max(ahead, 0.05))

    async def _tell(self, day: date, incident: CorridorIncident, now: datetime) -> None:
        """Report what began or ended in the tick that ends now."""
        before = now - timedelta(seconds=self._config.interval_s)
        known = self._incident(day, incident)
        ended_at = self._instant(day, incident.end_s)
        if before < known.started_at <= now:
            await self._ports.create_incident(known)
        if ended_at is not None and before < ended_at <= now:
            await self._ports.close_incident(known.incident_id, ended_at)

    async def _tell_past(self, day: CorridorDay, until: datetime) -> None:
        """Record the incidents of the history: over, or still open at `until`."""
        for incident in day.incidents:
            known = self._incident(day.date, incident)
            ended_at = self._instant(day.date, incident.end_s)
            if ended_at is not None and ended_at <= until:
                known = replace(known, ended_at=ended_at, status=IncidentStatus.CLOSED)
            is_new = known.started_at > until or await self._ports.record_incident(known)
            if not is_new and known.ended_at is not None:
                await self._ports.close_incident(known.incident_id, known.ended_at)  # a stop came before its end

    def _incident(self, day: date, incident: CorridorIncident) -> Incident:
        started_at = self._instant(day, incident.start_s) or EPOCH
        return Incident(
            incident_id=str(uuid5(_NAMESPACE, f"{self._config.seed} {started_at} {incident.sensor_id}")),
            type=incident.type,
            severity=incident.severity,
            description=incident.description,
            sensor_id=incident.sensor_id,
            road=self._corridor.road,
            direction=incident.direction,
            latitude=incident.latitude,
            longitude=incident.longitude,
            lanes=incident.lanes_closed,
            started_at=started_at,
            ended_at=None,
            status=IncidentStatus.OPEN,
            source="simulated",
        )


def _source(through_ms: int, *, history: bool = False) -> Source:
    return Source(DEMO, replayed=True, simulated=True, through_ms=through_ms, history=history)


def last_working_morning(now: datetime, zone: ZoneInfo) -> datetime:
    """05:00 local time of the newest Monday to Friday of which both peaks have passed."""
    joined = now.astimezone(UTC) - ALREADY_OVER
    day = joined.astimezone(zone).date()
    while day.isoweekday() > 5 or datetime.combine(day, BEGINS_AT, zone) > joined:
        day -= timedelta(days=1)
    return datetime.combine(day, BEGINS_AT, zone).astimezone(UTC)
