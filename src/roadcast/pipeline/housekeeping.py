"""Housekeeping: partitions are made ahead of the readings, indexed once closed, dropped when their time is over."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog

from roadcast.domain.clock import FeedClock
from roadcast.errors import Unavailable
from roadcast.services import Board, Status
from roadcast.storage import asked, incidents, readings, scored_ticks, scores
from roadcast.storage.engine import Database, Writer
from roadcast.storage.partitions import DROPPED_AT_ONCE, Partitions

log = structlog.get_logger()

PERIOD_S = 600.0
RETRY_PAUSE_S = 5.0
PATIENCE_S = 5
DAYS_AHEAD = 2
CLOSED_DAYS = 1
"""Days before this many are closed: hardly anything is still written to them."""
ALERT_DAYS = 90
"""How long alerts are kept, on the feed's clock."""
SCORE_DAYS = 366
"""How long scores are kept: a little longer than anybody can ask for."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Days to keep, counted on the feed's clock; None: all."""

    readings: int | None
    forecasts: int


class Housekeeping:
    """Makes, indexes and drops partitions, at the start and every ten minutes."""

    def __init__(
        self,
        database: Database,
        clock: FeedClock,
        board: Board,
        retention: Retention,
        *,
        readings: Partitions,
        forecasts: Partitions,
        recompute: Callable[[date], Awaitable[None]],
    ) -> None:
        self._database = database
        self._clock = clock
        self._board = board
        self._retention = retention
        self._readings = readings
        self._forecasts = forecasts
        self._recompute = recompute

    async def run(self) -> None:
        """Keep house, for ever."""
        while True:
            try:
                await self.keep()
            except Unavailable as error:
                self._board.report("housekeeping", Status.DEGRADED, error.message, error.remedy)
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                self._board.report("housekeeping", Status.OK)
                await asyncio.sleep(PERIOD_S)

    async def keep(self) -> None:
        """Make the partitions of the days ahead, drop those whose time is over, and index those that are closed."""
        now = self._clock.now()
        ahead = {(now + timedelta(days=days)).date() for days in range(DAYS_AHEAD + 1)}
        for partitions in (self._readings, self._forecasts):
            async with self._database.write() as writer:  # one table at a time: others lock both, in either order
                await partitions.ensure(writer, ahead)
        await self._drop(now)
        await self._readings.index_before(self._database, _first(now, CLOSED_DAYS))

    async def _drop(self, now: datetime) -> None:
        dropped = await self._drop_before(_first(now, self._retention.forecasts), self._forecasts)
        if self._retention.readings is not None:
            first = _first(now, self._retention.readings)
            gone = await self._drop_before(first, self._readings)
            async with self._patient() as writer:
                await readings.forget_rest(writer, first)
            if gone:  # of the local day before, some hours may lie in the first that is kept
                await self._recompute(first - timedelta(days=1))
            dropped += gone
        async with self._patient() as writer:
            await incidents.forget_alerts(writer, now - timedelta(days=ALERT_DAYS))
            await scored_ticks.forget_rest(writer)
            await scores.forget_before(writer, _first(now, SCORE_DAYS))
            await asked.forget_before(writer, _first(now, self._retention.forecasts))
        if dropped:
            log.info("retention", days=len(dropped), oldest=str(dropped[0]))

    async def _drop_before(self, first: date, partitions: Partitions) -> list[date]:
        """Drop the days before `first`, some at a time; which they were."""
        dropped: list[date] = []
        while True:
            async with self._patient() as writer:
                some = await partitions.drop_before(writer, first)
            dropped += some
            if len(some) < DROPPED_AT_ONCE:
                return dropped

    @asynccontextmanager
    async def _patient(self) -> AsyncGenerator[Writer]:
        """A transaction that gives up rather than have writers queue behind it while a long reader holds a table."""
        async with self._database.write() as writer:
            await writer.run(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'")
            yield writer


def _first(now: datetime, days: int) -> date:
    """The first UTC day that is kept."""
    return (now - timedelta(days=days)).date()
