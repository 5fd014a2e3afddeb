"""Keeping issues: each is stored, with what a restart needs and what somebody asked for, and then published."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from roadcast.domain.sensor import Sensor
from roadcast.domain.times import from_ms
from roadcast.forecasting.engine import Issue
from roadcast.pipeline import memory
from roadcast.pipeline.issued import issue_records, issued_rows
from roadcast.storage import asked, forecasts
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.partitions import Partitions
from roadcast.streaming.log import Log


class Keeper:
    """Keeps one issue at a time, in the order in which they come, while the next one is forecast."""

    def __init__(self, database: Database, log: Log, topic: str, interval_ms: int, horizons: int, reach: int) -> None:
        self._database = database
        self._log = log
        self._topic = topic
        self._interval_ms = interval_ms
        self._horizons = horizons
        self._reach = reach
        self._task: asyncio.Task[None] | None = None
        self.partitions = Partitions("forecasts")
        self.owes = True
        """Whether somebody may have asked for more than an issue publishes."""
        self.kept_ms: int | None = None
        """The issue that is being kept."""

    async def keep(self, issue: Issue, sensors: Mapping[int, Sensor], *, on_demand: bool) -> IssuedRows | None:
        """Begin to keep an issue, once the one before is kept; what is published of it, None where it says nothing.

        Raises:
            Unavailable: the one before could not be kept.
        """
        await self.settle()
        rows = issued_rows(issue, self._horizons)
        if not len(rows.sensor_no):
            return None
        self.kept_ms = issue.issued_ms
        self._task = asyncio.create_task(self._keep(issue, rows, sensors, on_demand=on_demand))
        return rows

    async def settle(self) -> None:
        """Wait until everything is kept.

        Raises:
            Unavailable: it could not be.
        """
        task, self._task = self._task, None
        if task is not None:
            await task

    async def drop(self) -> None:
        """Leave what is not kept yet."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # it is of no interest any more why it failed
                await task

    async def _keep(self, issue: Issue, rows: IssuedRows, sensors: Mapping[int, Sensor], *, on_demand: bool) -> None:
        try:
            await self._store(issue, rows)
            records = issue_records(rows, sensors, self._interval_ms, on_demand=on_demand)
            await self._log.publish(self._topic, records)
        finally:
            if self.kept_ms == issue.issued_ms:
                self.kept_ms = None

    async def _store(self, issue: Issue, rows: IssuedRows) -> None:
        issued_at = from_ms(issue.issued_ms)
        owes, self.owes = self.owes, False
        try:
            async with self._database.write() as writer:
                await forecasts.store(writer, rows, self.partitions)
                if issue.calibrations:
                    span = timedelta(milliseconds=self._reach * self._interval_ms)
                    await memory.keep(writer, issued_at, issue.calibrations, issued_at - span)
                waiting = owes and await asked.fulfil(writer, issued_rows(issue, self._reach))
        except BaseException:
            self.owes = owes
            raise
        self.owes = self.owes or waiting
