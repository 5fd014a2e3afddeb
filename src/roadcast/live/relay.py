"""The relay: from the log's live topics to this process's state and its sockets."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import structlog

from roadcast.domain.clock import FeedClock
from roadcast.domain.incident import Alert, Severity
from roadcast.domain.reading import VARIABLES
from roadcast.domain.times import from_ms, to_ms
from roadcast.errors import Unavailable
from roadcast.live.documents import Presenter, alert_document
from roadcast.live.hub import Channel, Hub, Later
from roadcast.live.state import LiveState
from roadcast.services import Board, Status
from roadcast.storage import forecasts, readings, sensors
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.readings import Rows
from roadcast.streaming.log import Log, Record, Subscription
from roadcast.streaming.messages import (
    AlertRaised,
    ForecastIssued,
    IssueComplete,
    ReadingStored,
    TickClosed,
    decode,
)

log = structlog.get_logger()

BATCH = 10_000
ANALYTICS_PERIOD_S = 5.0
"""How old the analytics may be that a new listener begins with."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The live topics."""

    aggregates: str
    predictions: str
    alerts: str


class Relay:
    """Follows the live topics from the end; what was before is read from the store."""

    def __init__(
        self,
        database: Database,
        log: Log,
        topics: Topics,
        state: LiveState,
        hub: Hub,
        clock: FeedClock,
        board: Board,
        presenter: Presenter,
        analytics: Callable[[], Awaitable[Mapping[str, object]]],
    ) -> None:
        self._database = database
        self._log = log
        self._topics = topics
        self._state = state
        self._hub = hub
        self._clock = clock
        self._board = board
        self._presenter = presenter
        self._analytics = analytics
        self._seen = -1
        self._moved = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._analysed_s = -ANALYTICS_PERIOD_S
        self._closed_ms = 0
        self._closed = asyncio.Event()
        self._parts: list[Record] = []
        self._foreseen_ms = 0

    async def run(self) -> None:
        """Follow, for ever."""
        names = (self._topics.aggregates, self._topics.predictions, self._topics.alerts)
        async with self._log.tail(names[0]) as a, self._log.tail(names[1]) as p, self._log.tail(names[2]) as r:
            self._board.report("relay", Status.STARTING, "reading the newest state")
            before = a.next - 1
            await self.reload()
            await self._see(before)  # also those that a life of the relay before this one did not come to
            self._close(to_ms(self._clock.now()))
            self._board.report("relay", Status.OK)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._analyse())
                group.create_task(self._follow(a, self._on_aggregates))
                group.create_task(self._follow(p, self._on_predictions))
                group.create_task(self._follow(r, self._on_alerts))

    async def reload(self) -> None:
        """Read the newest state from the store, in place of what is known. What is heard meanwhile waits its turn."""
        async with self._turn:
            async with self._database.read() as reader:
                known = await sensors.every(reader)
                rows = await readings.latest(reader, self._clock.now() if self._clock.feed.replayed else None)
                issue = await forecasts.newest(reader, self._clock.now())
            self._state.forget()
            self._state.know(known)
            self._state.observe(rows)
            self._foreseen_ms = issue.issued_ms if issue is not None else 0
            if issue is not None:
                self._state.foresee(lambda: issue)

    async def reload_sensors(self) -> None:
        """Read the sensors again."""
        async with self._turn:
            await self._read_sensors()

    async def _read_sensors(self) -> None:
        async with self._database.read() as reader:
            self._state.know(await sensors.every(reader))

    async def caught_up(self, position: int) -> None:
        """Wait until the state holds the aggregates up to `position`."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._seen >= position)

    async def _follow(
        self, subscription: Subscription, on_batch: Callable[[Sequence[Record]], Awaitable[None]]
    ) -> None:
        async for batch in subscription.batches(BATCH):
            async with self._turn:
                await on_batch(batch)

    async def _on_aggregates(self, records: Sequence[Record]) -> None:
        messages = [decode(record.value) for record in records]
        stored = [message for message in messages if isinstance(message, ReadingStored)]
        if stored:
            await self._observe(stored)
        closed = [message for message in messages if isinstance(message, TickClosed)]
        await self._see(records[-1].position)
        if closed:
            self._close(closed[-1].tick_end_ms)

    async def _see(self, position: int) -> None:
        """The state holds the aggregates up to `position`."""
        async with self._moved:
            self._seen = position
            self._moved.notify_all()

    async def _observe(self, stored: Sequence[ReadingStored]) -> None:
        if any(message.sensor_no not in self._state.sensors for message in stored):
            await self._read_sensors()
        rows = _rows(stored)
        self._state.observe(rows)
        self._clock.reach(from_ms(int(rows.since_ms.max())))
        known, now = self._state.sensors, self._clock.now()
        later = Later(len(rows), lambda: self._presenter.readings(rows, known, now))
        self._hub.publish(Channel.TRAFFIC_DATA, now, later)

    def _close(self, at_ms: int) -> None:
        """A window has closed at `at_ms`."""
        self._closed_ms = at_ms
        self._closed.set()

    async def _analyse(self) -> None:
        """Publish analytics at each window's close while someone listens, and now and then for who will.

        Beside the relay, which must not wait for it; windows that close in the meantime are told together.
        """
        while True:
            await self._closed.wait()
            self._closed.clear()
            at_ms = self._closed_ms
            due = time.monotonic() - self._analysed_s >= ANALYTICS_PERIOD_S
            document = await self._computed() if due or self._hub.subscribers(Channel.ANALYTICS) else None
            if document is not None:
                self._analysed_s = time.monotonic()
                self._hub.publish(Channel.ANALYTICS, from_ms(at_ms), document)

    async def _computed(self) -> Mapping[str, object] | None:
        try:
            return await self._analytics()
        except Unavailable as error:
            log.warning("analytics_not_published", reason=error.message)
            return None

    async def _on_predictions(self, records: Sequence[Record]) -> None:
        """Gather an issue's parts until it is complete; they are decoded when someone looks at them."""
        for record in records:
            complete = None if record.key else decode(record.value)
            if isinstance(complete, IssueComplete):
                parts, self._parts = self._parts[-complete.sensors :], []
                self._foresee(complete, cache(partial(_issued, parts)))
            else:
                self._parts.append(record)

    def _foresee(self, complete: IssueComplete, issue: Callable[[], IssuedRows]) -> None:
        """Take in an issue, unless a newer one of the present is served: a feed before may still be catching up."""
        if complete.issued_ms < self._foreseen_ms <= to_ms(self._clock.now()):
            return
        self._foreseen_ms = complete.issued_ms
        self._state.foresee(issue)
        known = self._state.sensors
        later = Later(complete.sensors * complete.horizons, lambda: self._presenter.forecasts(issue(), known))
        self._hub.publish(Channel.PREDICTIONS, from_ms(complete.issued_ms), later)

    async def _on_alerts(self, records: Sequence[Record]) -> None:
        for message in (decode(record.value) for record in records):
            if isinstance(message, AlertRaised):
                alert = Alert(
                    message.alert_id, from_ms(message.at_ms), message.alert, Severity(message.severity),
                    message.message, message.sensor_id, message.incident_id,
                )  # fmt: skip
                self._hub.publish(Channel.ALERTS, alert.at, alert_document(alert))


def _rows(stored: Sequence[ReadingStored]) -> Rows:
    values = [[getattr(message, name) for name in VARIABLES] for message in stored]
    return Rows(
        np.array([message.at_ms for message in stored], np.int64),
        np.array([message.sensor_no for message in stored], np.int32),
        np.array(values, np.float32),  # None becomes NaN
        np.array([message.received_ms for message in stored], np.int64),
    )


def _issued(records: Sequence[Record]) -> IssuedRows:
    """The issue whose parts these are, without the candidates, which are not published."""
    parts = [part for part in map(decode, (record.value for record in records)) if isinstance(part, ForecastIssued)]

    def column(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.array([getattr(part, name) for part in parts], np.float32)

    return IssuedRows(
        parts[0].issued_ms,
        parts[0].model,
        parts[0].version,
        np.array([part.sensor_no for part in parts], np.int32),
        np.array([part.age_ticks for part in parts], np.int32),
        column("speed"),
        column("volume"),
        column("confidence"),
        column("tolerance"),
        column("quantiles"),
        {},
    )
