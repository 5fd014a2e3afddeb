"""Detect: what is stale or gone, and alerts that say so."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from zoneinfo import ZoneInfo

import structlog

from roadcast.domain.clock import FeedClock
from roadcast.domain.incident import Alert, Severity
from roadcast.domain.times import from_ms
from roadcast.errors import Unavailable
from roadcast.pipeline.incidents import Alerts, new_id
from roadcast.services import Board, Part, Status
from roadcast.storage import readings, sensors
from roadcast.storage.engine import Database, Reader

log = structlog.get_logger()

PERIOD_S = 1.0
MISSES = 2
"""The database is down when it has not answered so many times in a row: one slow second alarms nobody."""
COUNT_PERIOD_S = 30.0
"""How often silent sensors are counted, at least; while they are too many, at every look."""
WRITE_PERIOD_S = 5.0
"""How often the database is asked whether it takes writes; while it takes none, at every look."""
SILENT_SHARE = 0.5
"""A feed is degraded when a larger share of the sensors of the last days is silent."""
STILL_SENDS = "See that the detectors' source still sends."
_QUEUE = 1_000


class Detect:
    """Looks at the database and the feed once a second, and turns every change on the board into an alert."""

    def __init__(
        self,
        database: Database,
        clock: FeedClock,
        board: Board,
        alerts: Alerts,
        timezone: str,
        stale_after_s: float,
        announce: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._board = board
        self._alerts = alerts
        self._zone = ZoneInfo(timezone)
        self._stale_after = timedelta(seconds=stale_after_s)
        self._announce = announce
        self._misses = 0
        self._silent = ""
        self._count_s = min(COUNT_PERIOD_S, stale_after_s / 4)
        self._counted_s = -self._count_s
        self._tried_s = -WRITE_PERIOD_S
        self._changes: asyncio.Queue[tuple[Part | None, Part]] = asyncio.Queue(_QUEUE)
        board.on_change(self._note)

    def _note(self, old: Part | None, new: Part) -> None:
        if self._changes.full():
            log.error("alert_dropped", part=new.name, status=new.status.value)
        else:
            self._changes.put_nowait((old, new))

    async def run(self) -> None:
        """Look, and tell, for ever."""
        while True:
            await self._look()
            while not self._changes.empty():
                self._announce()
                await self._tell(*self._changes.get_nowait())
            await asyncio.sleep(PERIOD_S)

    async def _look(self) -> None:
        try:
            await self._database.ping()
            async with self._database.read() as reader:
                newest_ms = await readings.newest_ms(reader)
                if newest_ms is not None and (self._silent or time.monotonic() - self._counted_s >= self._count_s):
                    self._counted_s = time.monotonic()
                    self._silent = await self._count_silent(reader)
        except Unavailable as error:
            self._misses += 1
            if self._misses >= MISSES:
                self._board.report("database", Status.DOWN, error.message, error.remedy)
            return
        self._misses = 0
        await self._look_at_writing()
        self._look_at_feed(newest_ms)

    async def _look_at_writing(self) -> None:
        """Nobody may be writing just now: it is tried."""
        database = self._database
        if database.read_only or time.monotonic() - self._tried_s >= WRITE_PERIOD_S:
            self._tried_s = time.monotonic()
            await database.try_writing()
        if (refused := database.read_only) is None:
            self._board.report("database", Status.OK)
        else:
            self._board.report("database", Status.DEGRADED, refused.message, refused.remedy)

    async def _count_silent(self, reader: Reader) -> str:
        """What to say where too many sensors of the last days are silent; else nothing."""
        now = self._clock.now()
        yesterday = (now - timedelta(days=1)).astimezone(self._zone).date()
        heard, usual = await sensors.reporting(reader, now - self._stale_after, yesterday)
        if usual - heard <= SILENT_SHARE * usual:
            return ""
        seconds = self._stale_after.total_seconds()
        return f"{usual - heard} of {usual} sensors that reported since yesterday are silent for {seconds:g} s"

    def _look_at_feed(self, newest_ms: int | None) -> None:
        """A live feed is stale when its newest reading is old; a replayed one stands where it stands."""
        if newest_ms is None:
            self._board.report(
                "feed", Status.STARTING, "no reading yet", "Send readings to POST /api/traffic/readings."
            )
        elif not self._clock.feed.replayed and self._clock.now() - from_ms(newest_ms) > self._stale_after:
            self._board.report(
                "feed", Status.DEGRADED, f"no reading since {from_ms(newest_ms):%Y-%m-%d %H:%M:%S} UTC", STILL_SENDS
            )
        elif not self._clock.feed.replayed and self._silent:
            self._board.report("feed", Status.DEGRADED, self._silent, STILL_SENDS)
        else:
            self._board.report("feed", Status.OK, self._clock.said)

    async def _tell(self, old: Part | None, new: Part) -> None:
        worse = (Status.DEGRADED, Status.DOWN)
        was_bad = old is not None and old.status in worse
        if new.status not in worse and not was_bad:
            return
        if new.status in worse:
            severity = Severity.CRITICAL if new.status is Status.DOWN else Severity.HIGH
            kind, message = "feed_stale" if new.name == "feed" else "part_down", f"{new.name}: {new.detail}"
        else:
            severity = Severity.LOW
            kind, message = "feed_back" if new.name == "feed" else "part_back", f"{new.name} is back."
        try:
            await self._alerts.tell(Alert(new_id(), self._clock.now(), kind, severity, message))
        except Unavailable as error:
            log.error("alert_dropped", part=new.name, status=new.status.value, reason=error.message)
