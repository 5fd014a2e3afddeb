"""The demo's feed: a simulated corridor, marked as simulated wherever it shows.

It begins at 05:00 of the last working day with eight weeks of history behind it, a tick every few seconds, and
goes on in real time once it has reached the present.
"""

import asyncio
import math
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import numpy as np
import structlog

from roadcast.domain.incident import Incident, IncidentStatus
from roadcast.domain.reading import OCCUPANCY, SPEED, Account, ReadingBatch, Source
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import EPOCH, to_ms
from roadcast.flow.closures import CorridorIncident
from roadcast.flow.congestion import reference_speed
from roadcast.flow.corridor import CorridorDay, simulate_days
from roadcast.flow.road import demo_corridor

log = structlog.get_logger()

NAME = "demo"
HISTORY_DAYS = 56
DAYS_AT_ONCE = 14
"""Days that are simulated together, while those before are stored."""
BEGINS_AT = time(5)
"""Local time at which the newcomer joins: the morning's jam is about to form."""
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
    create_incident: Callable[[Incident], Awaitable[object]]
    close_incident: Callable[[str, datetime], Awaitable[object]]
    loaded: Callable[[], Awaitable[None]]
    progress: Callable[[str], None]


class DemoFeed:
    """Simulates, first the history and then tick by tick."""

    def __init__(self, config: DemoConfig, ports: DemoPorts, wall: Callable[[], datetime]) -> None:
        self._config = config
        self._ports = ports
        self._wall = wall
        self._zone = ZoneInfo(config.timezone)
        self._corridor = demo_corridor()
        self._codes = tuple(sensor.sensor_id for sensor in self._corridor.sensors)

    async def run(self, reached_at: datetime | None) -> None:
        """Feed for ever; `reached_at` is where an earlier run came to, None where there was none."""
        begins_at = last_working_morning(self._wall(), self._zone)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:
            if reached_at is None or reached_at < begins_at:
                await self._load(pool, reached_at, begins_at)
            begins_at = max(begins_at, reached_at or begins_at)
            await self._ports.loaded()
            async for day in self._days(pool, begins_at.astimezone(self._zone).date()):
                await self._play(day, begins_at)

    async def _load(self, pool: ProcessPoolExecutor, reached_at: datetime | None, until: datetime) -> None:
        """Store the history up to `until`, from eight weeks before or from where an earlier run came to."""
        last = until.astimezone(self._zone).date()
        first = last - timedelta(days=HISTORY_DAYS)
        if reached_at is not None:
            first = max(first, reached_at.astimezone(self._zone).date())
        days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
        chunks = [days[i : i + DAYS_AT_ONCE] for i in range(0, len(days), DAYS_AT_ONCE)]
        coming = [self._simulate(pool, chunk) for chunk in chunks]
        for number, future in enumerate(coming):
            self._ports.progress(f"simulating the history, part {number + 1} of {len(chunks)}")
            simulated = await future
            if number == 0:
                await self._ports.describe(self._sensors(simulated), self._corridor.links)
            for batch in self._batches(simulated, reached_at, until):
                await self._ports.submit(batch, _source(to_ms(until), history=True))
            for day in simulated:
                await self._tell_past(day, until)

    def _sensors(self, days: Sequence[CorridorDay]) -> list[Sensor]:
        """The corridor's sensors with the reference speeds that these days show."""
        values = np.concatenate([day.values for day in days])
        speeds = reference_speed(values[:, :, SPEED], values[:, :, OCCUPANCY]).tolist()
        return [
            replace(sensor, reference_speed=None if math.isnan(speed) else speed)
            for sensor, speed in zip(self._corridor.sensors, speeds, strict=True)
        ]

    def _simulate(self, pool: ProcessPoolExecutor, days: Sequence[date]) -> "asyncio.Future[list[CorridorDay]]":
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(
            pool, simulate_days, self._corridor, self._config.seed, days, self._config.interval_s
        )

    async def _days(self, pool: ProcessPoolExecutor, first: date) -> AsyncIterator[CorridorDay]:
        """One day after another, each simulated while the one before plays."""
        coming = self._simulate(pool, [first])
        while True:
            [day] = await coming
            coming = self._simulate(pool, [day.date + timedelta(days=1)])
            yield day

    def _batches(self, days: Sequence[CorridorDay], after: datetime | None, until: datetime) -> Iterator[ReadingBatch]:
        """The readings of some days in (after, until], as one batch."""
        parts = [tick for day in days for tick in self._ticks(day) if (after is None or tick[0] > after)]
        parts = [tick for tick in parts if tick[0] <= until]
        if parts:
            batches = [batch for _, batch in parts]
            yield ReadingBatch(
                self._codes,
                np.concatenate([batch.sensor for batch in batches]),
                np.concatenate([batch.at_ms for batch in batches]),
                np.concatenate([batch.values for batch in batches]),
            )

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
        """A tick of the past comes after the demo's pause, one of the present when it is over."""
        ahead = (at - self._wall()).total_seconds()
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
        """Report the incidents of the history: over, or still open at `until`."""
        for incident in day.incidents:
            known = self._incident(day.date, incident)
            ended_at = self._instant(day.date, incident.end_s)
            if known.started_at <= until:
                await self._ports.create_incident(known)
                if ended_at is not None and ended_at <= until:
                    await self._ports.close_incident(known.incident_id, ended_at)

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
    return Source(NAME, replayed=True, simulated=True, through_ms=through_ms, history=history)


def last_working_morning(now: datetime, zone: ZoneInfo) -> datetime:
    """05:00 local time of the newest Monday to Friday at which it is past 05:00 by an hour at least."""
    day = (now.astimezone(zone) - timedelta(hours=BEGINS_AT.hour + 1)).date()
    while day.isoweekday() > 5:
        day -= timedelta(days=1)
    return datetime.combine(day, BEGINS_AT, zone).astimezone(UTC)
