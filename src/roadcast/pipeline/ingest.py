"""Ingest: the one door into storage. Batches that wait together are stored in one transaction."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import structlog
from numpy.typing import NDArray

from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.reading import VARIABLES, Account, ReadingBatch, Source, merge
from roadcast.domain.times import DAY_MS, from_ms, rfc3339, to_ms
from roadcast.errors import Conflict, FieldError, InvalidInput, Unavailable
from roadcast.pipeline import changes
from roadcast.pipeline.checks import Checked, check, oldest_kept
from roadcast.pipeline.predict import CATCH_UP_TICKS
from roadcast.pipeline.recorder import Recorded, Recorder, learn_references
from roadcast.services import Board, Status
from roadcast.storage import marks, readings
from roadcast.storage.engine import BULK_TIMEOUT_S, Database
from roadcast.storage.partitions import MOST_DAYS, Partitions
from roadcast.storage.readings import Outcome, Rows
from roadcast.streaming.log import Log, Record
from roadcast.streaming.messages import ReadingStored, TickClosed, encode
from roadcast.windows import Closer

log = structlog.get_logger()

RETRY_PAUSE_S = 0.5
"""How long readings that could not be stored wait until it is tried once more."""
LOOK_S = 1.0
"""How often is looked, while nothing comes, whether the clock has passed the end of a window that is due."""
GROUP_READINGS = 200_000
"""Readings that are stored in one transaction at most, so that memory and locks stay bounded."""


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """What ingest is told by the settings. `pinned_to`: the only feed that may hold the clock, which is simulated."""

    topic: str
    interval_ms: int
    timezone: str
    max_future_s: int
    allowed_lateness_s: int
    idle_timeout_s: float
    queue_readings: int
    register_unknown: bool
    pinned_to: str | None = None
    retention_days: int | None = None

    def may_lead(self, source: Source) -> bool:
        """Whether a source may hold the clock: a name alone makes nobody the simulated feed."""
        return self.pinned_to is None or (source.simulated and source.name == self.pinned_to)


@dataclass(frozen=True, slots=True)
class _Job:
    """A batch that waits, and whoever waits for its account."""

    batch: ReadingBatch
    source: Source
    done: asyncio.Future[Account]


class Ingest:
    """Checks, stores, closes windows and publishes.

    `visible` waits until this process's live state holds a position of the log, so that a reading that was
    answered for is seen by the next request. The relay moves `clock` as it sees the readings of a replay, and it comes
    to what is committed when all are seen: else every sensor would seem as old, until then, as the batch is long.
    `begun` has the state read anew where another feed begins, whose clock decides which readings are still to come.
    """

    def __init__(
        self,
        database: Database,
        log: Log,
        clock: FeedClock,
        board: Board,
        config: IngestConfig,
        visible: Callable[[int], Awaitable[None]],
        begun: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._committed = FeedClock(clock.wall, clock.feed)
        self._board = board
        self._config = config
        self._visible = visible
        self._begun = begun
        self._recorder = Recorder(config.interval_ms, config.timezone)
        self._closer = Closer(config.interval_ms, config.idle_timeout_s)
        self._queue: deque[_Job] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._in_doubt = False

    @property
    def partitions(self) -> Partitions:
        """The partitions of the readings."""
        return self._recorder.partitions

    async def submit(self, batch: ReadingBatch, source: Source) -> Account:
        """Check and store a batch; returns once it is durable and visible.

        Raises:
            Conflict: another feed holds the clock.
            Unavailable: the queue is full or the database is away; nothing of the batch was taken.
        """
        if source.replayed and not self._config.may_lead(source):
            raise Conflict(
                f"The {self._config.pinned_to} feed holds the clock, so {source.name!r} cannot be replayed.",
                remedy="Start with FEED=none to replay a file.",
                errors=(FieldError("source", source.name, "expected readings that are not replayed"),),
            )
        if self._board.is_down("database"):
            raise Unavailable("The database does not answer, so that nothing can be stored.", retry_after_s=5)
        furthest_ms = to_ms(self._clock.wall()) + self._config.max_future_s * 1000
        if source.through_ms is not None and source.through_ms > furthest_ms:
            raise InvalidInput(
                "The feed cannot have sent what is still to come.",
                (FieldError("through", rfc3339(from_ms(source.through_ms)), "expected a time that has passed"),),
            )
        if self._queue and self._waiting + len(batch) > self._config.queue_readings:
            raise Unavailable(f"{self._waiting} readings wait to be stored.", retry_after_s=1)
        job = _Job(batch, source, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._waiting += len(batch)
        self._wake.set()
        return await job.done

    async def reload(self) -> None:
        """Read again what is known of the feed and the sensors.

        Another feed goes on with the newest window that has begun; the same one with what its sensors have reported.
        """
        async with self._turn, self._database.read() as reader:
            feed = await marks.feed(reader) or self._committed.feed
            begins = self._closer.closed_ms is None or not feed.follows(self._committed.feed)
            self._clock.feed = self._committed.feed = feed
            await self._recorder.load(reader)
            span = await readings.span(reader)
            if begins and span is not None:
                newest_ms = min(span[1], to_ms(self._clock.now()))
                self._closer.resume(self._window_before(newest_ms))

    async def learn_references(self, until_ms: int) -> int:
        """Give a reference speed to the sensors that lack one, from readings up to `until_ms`; to how many."""
        async with self._turn, self._database.write(BULK_TIMEOUT_S) as writer:
            return len(await learn_references(writer, self._recorder, until_ms))

    async def recompute(self, day: date) -> None:
        """Compute the sums of a UTC day, and of the same local day, again from the readings."""
        async with self._turn, self._database.write(BULK_TIMEOUT_S) as writer:
            await self._recorder.recompute(writer, day)

    async def run(self) -> None:
        """Store what arrives, for ever."""
        self._closer = Closer(self._config.interval_ms, self._config.idle_timeout_s)
        await self.reload()
        self._board.report("ingest", Status.OK)
        try:
            while True:
                try:
                    async with asyncio.timeout(min(LOOK_S, self._config.idle_timeout_s / 4)):
                        await self._wake.wait()
                except TimeoutError:
                    await self._publish_ticks(self._closer.wait(to_ms(self._clock.now()), time.monotonic()), 0)
                self._wake.clear()
                while jobs := self._take():
                    await self._serve(jobs)
        finally:
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """Nobody will store what still waits: say so at once."""
        while self._queue:
            _answer(self._queue.popleft(), Unavailable("Ingest has ended; it is started again.", retry_after_s=2))
        self._waiting = 0

    def _take(self) -> list[_Job]:
        """Waiting jobs of one source, as many as go into one transaction."""
        jobs: list[_Job] = []
        size, days = 0, set[int]()
        while self._queue and (not jobs or _alike(self._queue[0].source, jobs[0].source)):
            size += len(self._queue[0].batch)
            days.update(np.unique(self._queue[0].batch.at_ms // DAY_MS).tolist())
            if jobs and (size > GROUP_READINGS or len(days) > MOST_DAYS):
                break
            jobs.append(self._queue.popleft())
        self._waiting -= sum(len(job.batch) for job in jobs)
        return jobs

    async def _serve(self, jobs: Sequence[_Job]) -> None:
        """Store the jobs together and answer each; where the database is away, each gets the error."""
        source = jobs[-1].source
        try:
            await self._serve_together(jobs, source)
        finally:
            for job in jobs:
                _answer(job, Unavailable("Storing was cut off; send it again.", retry_after_s=2))

    async def _serve_together(self, jobs: Sequence[_Job], source: Source) -> None:
        try:
            try:
                checked, recorded = await self._record(jobs, source)
            except Unavailable:  # a connection is lost more often than a database
                await asyncio.sleep(RETRY_PAUSE_S)
                checked, recorded = await self._record(jobs, source)
        except Unavailable as error:
            self._board.report("ingest", Status.DEGRADED, error.message, error.remedy)
            for job in jobs:
                _answer(job, error)
            return
        self._board.report("ingest", Status.OK)
        await self._publish(recorded, source)
        fates = np.split(recorded.written.outcome, np.cumsum([result.passed.sum() for result in checked])[:-1])
        for job, result, fate in zip(jobs, checked, fates, strict=True):
            _answer(job, self._account(job, result, fate))

    async def _record(self, jobs: Sequence[_Job], source: Source) -> tuple[list[Checked], Recorded]:
        """Check the jobs and store what passed."""
        try:
            if not self._recorder.numbers:
                await self.reload()
            checked = [self._check(job) for job in jobs]
            batch = merge([job.batch.take(result.passed) for job, result in zip(jobs, checked, strict=True)])
            async with self._turn:
                return checked, await self._store(batch, source)
        except Unavailable:
            self._in_doubt = True
            self._recorder.numbers.clear()  # what was registered in vain must be asked for again
            raise

    def _check(self, job: _Job) -> Checked:
        config = self._config
        unknown: frozenset[str] = frozenset()
        if not config.register_unknown and not job.source.simulated:
            unknown = frozenset(code for code in job.batch.codes if code not in self._recorder.numbers)
        newest = self._clock.wall() if config.may_lead(job.source) else self._committed.now()
        return check(
            job.batch,
            newest_ms=to_ms(newest),
            max_future_s=config.max_future_s,
            unknown=unknown,
            oldest_ms=oldest_kept(newest, None if job.source.replayed else config.retention_days),
        )

    def _account(self, job: _Job, checked: Checked, fates: NDArray[np.int8]) -> Account:
        accepted = fates != Outcome.DUPLICATE
        oldest_ms = to_ms(self._clock.now()) - self._config.allowed_lateness_s * 1000
        late = int((job.batch.at_ms[checked.passed][accepted] < oldest_ms).sum())
        return Account(
            received=len(job.batch),
            accepted=int(accepted.sum()),
            duplicate=int((~accepted).sum()),
            rejected=len(checked.rejections),
            late=0 if job.source.history else late,
            rejections=checked.rejections,
        )

    async def _store(self, batch: ReadingBatch, source: Source) -> Recorded:
        """One transaction: readings, rollups and the feed's clock. Where another feed begins, so do the windows."""
        newest_ms = max(int(batch.at_ms.max(initial=0)), source.through_ms or 0)
        feed = self._feed_after(source, newest_ms)
        begins = not source.history and not feed.follows(self._committed.feed)
        before_ms = self._window_before(int(batch.at_ms.min(initial=newest_ms)))
        received_ms = self._known_since(batch, source, feed)
        async with self._database.write() as writer:
            recorded = await self._recorder.record(writer, batch, received_ms)
            if begins and len(batch):
                await marks.set_mark(writer, marks.BEGAN, from_ms(before_ms))
            if feed != self._committed.feed:
                await marks.set_feed(writer, feed)
            if self._in_doubt:
                await changes.tell(writer)  # what was committed then, if anything, was never published
        self._in_doubt = False
        self._committed.feed = feed
        if begins:
            self._clock.feed = feed
            self._closer.resume(before_ms)
            await self._begun()
        if begins and len(batch):  # said at once: whoever was answered does not read that there is none yet
            self._board.report("feed", Status.OK, self._clock.said)
        return recorded

    def _window_before(self, at_ms: int) -> int:
        """The end of the window before the one that a time falls in."""
        return (at_ms - 1) // self._config.interval_ms * self._config.interval_ms

    def _known_since(self, batch: ReadingBatch, source: Source, feed: Feed) -> NDArray[np.int64]:
        """When each reading became known: now, or in a replay when it was measured, but not before the feed's time."""
        if source.history:
            return batch.at_ms
        if feed.name == source.name and source.replayed:
            follows = feed.follows(self._committed.feed)
            return np.maximum(batch.at_ms, to_ms(self._committed.now())) if follows else batch.at_ms
        return np.full(len(batch), to_ms(FeedClock(self._clock.wall, feed).now()), np.int64)

    def _feed_after(self, source: Source, newest_ms: int) -> Feed:
        """What feeds the system once `source` has sent up to `newest_ms`."""
        if not newest_ms or not self._config.may_lead(source):
            return self._committed.feed
        reached_at = from_ms(newest_ms) if source.replayed else None
        return self._committed.feed.then(Feed(source.name, source.replayed, source.simulated, reached_at))

    async def _publish(self, recorded: Recorded, source: Source) -> None:
        """Publish what is committed and the windows that close with it."""
        given, added = recorded.given, recorded.written.added
        if source.history:
            self._clock.feed = self._committed.feed
            return
        await self._append([Record(m.sensor_id, encode(m)) for m in _messages(added, recorded.codes)])
        self._clock.feed = self._committed.feed
        clock_ms = to_ms(self._clock.now())
        closed = self._closer.observe(given.sensor_no, given.ts_ms, source.through_ms, clock_ms, time.monotonic())
        await self._publish_ticks(closed, len(added))

    async def _publish_ticks(self, ticks: Sequence[int], rows: int) -> None:
        """A live feed's backlog is forecast as far back as a restart would go."""
        feed = self._clock.feed
        wanted = ticks if feed.replayed else ticks[-CATCH_UP_TICKS:]
        messages = [TickClosed(tick, rows, feed.name, feed.replayed) for tick in wanted]
        await self._append([Record("", encode(message)) for message in messages])

    async def _append(self, records: Sequence[Record]) -> None:
        """Publish, however long the log makes us wait: what is committed must become known."""
        while records:
            try:
                position = await self._log.publish(self._config.topic, records)
            except Unavailable as error:
                self._board.report("log", Status.DEGRADED, error.message, error.remedy)
                log.warning("log_waits", reason=error.message)
            else:
                self._board.report("log", Status.OK)
                await self._visible(position)
                return


def _alike(a: Source, b: Source) -> bool:
    return (a.name, a.replayed, a.simulated, a.history) == (b.name, b.replayed, b.simulated, b.history)


def _answer(job: _Job, result: Account | Exception) -> None:
    """Answer whoever still waits: a client that went away has cancelled its future."""
    if job.done.done():
        return
    if isinstance(result, Exception):
        job.done.set_exception(result)
    else:
        job.done.set_result(result)


def _messages(rows: Rows, codes: dict[int, str]) -> list[ReadingStored]:
    columns = (rows.sensor_no.tolist(), rows.ts_ms.tolist(), rows.received_ms.tolist(), rows.values.tolist())
    return [
        ReadingStored(
            codes[number],
            number,
            at,
            known,
            **{name: value for name, value in zip(VARIABLES, values, strict=True) if not math.isnan(value)},
        )
        for number, at, known, values in zip(*columns, strict=True)
    ]
