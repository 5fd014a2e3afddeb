"""Predict: a forecast at every tick, from committed readings alone, so that a replay repeats it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from roadcast.domain.clock import NO_FEED, Feed, FeedClock
from roadcast.domain.reading import VARIABLES
from roadcast.domain.times import from_ms, rfc3339, to_ms
from roadcast.errors import Unavailable
from roadcast.forecasting.explanation import Explanation
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.pipeline import explaining, memory
from roadcast.pipeline.champion import Throne
from roadcast.pipeline.forecaster import EngineConfig, ForecasterProcess
from roadcast.pipeline.keeping import Keeper
from roadcast.pipeline.past import Network, Span, read_pieces
from roadcast.pipeline.state_window import StateWindow
from roadcast.services import Board, Status
from roadcast.storage import asked, forecasts, marks, readings, sensors
from roadcast.storage.engine import Database
from roadcast.streaming.log import Log, Subscription
from roadcast.streaming.messages import ReadingStored, TickClosed, decode
from roadcast.windows import local_day

CATCH_UP_TICKS = 96
"""How many ticks are issued after the fact; more were missed by an outage that nobody forecasts."""
REPLAY_CATCH_UP_TICKS = 2016
"""As many in a replay, which may have run a week ahead of its forecasts."""
LAG_TICKS = 12
"""Forecasts of a window that ended more windows ago come too late."""
FIRST_ISSUE_S = 10.0
"""How long an issue is thought to take before there was one."""


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """What predict is told by the settings."""

    topic_in: str
    topic_out: str
    interval_ms: int
    horizons: int
    timezone: str
    engine: EngineConfig
    holidays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """The issue that somebody asked for, and in how many seconds it is expected."""

    issued_ms: int
    wait_s: float


class Predict:
    """Follows the ticks, keeps the newest state of the network, and issues a forecast for each tick.

    A forecast that somebody asks for is made by the same loop. No more is kept of it than its tick: the ticks before
    it are issued with it, and a restart issues for the newest tick in any case.
    """

    def __init__(
        self,
        database: Database,
        log: Log,
        clock: FeedClock,
        board: Board,
        config: PredictConfig,
        throne: Throne,
        learn_references: Callable[[int], Awaitable[int]],
    ) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._board = board
        self._config = config
        self._learn_references = learn_references
        self._forecaster = ForecasterProcess(config.engine, throne, board)
        self._keeper = Keeper(
            database, log, config.topic_out, config.interval_ms, config.horizons, config.engine.horizons
        )
        self.partitions = self._keeper.partitions
        self._network = Network({}, [])
        self._window = StateWindow(config.interval_ms)
        self._fitted_day: int | None = None
        self._feed = clock.feed
        self._issued_ms: int | None = None
        self._issuing_ms: int | None = None
        self._asked_ms: int | None = None
        self._is_stale = False
        self._asked = asyncio.Event()
        self._issue_s = FIRST_ISSUE_S
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Issue at every tick, and when asked, for ever."""
        async with self._log.consume(self._config.topic_in, "predict") as subscription:
            try:
                async with self._turn:
                    await self._begin_again()
                self._board.report("predict", Status.OK)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow(subscription))
                    group.create_task(self._serve())
            finally:
                self._forecaster.stop()
                await self._keeper.drop()

    def reload(self) -> None:
        """Begin again, in turn, from what is stored."""
        self._is_stale = True
        self._asked.set()

    async def _begin_again(self) -> None:
        """Fit on what is stored, and issue for the newest tick and the missed ones before it.

        Whether a live feed's newest window had closed is not known: as on demand, it is scored with the next one.
        """
        self._is_stale = False
        await self._keeper.settle()
        self._issued_ms = None
        self._forget()
        newest_ms = await self._newest_tick()
        if newest_ms is not None:
            self._feed = self._clock.feed
            for at_ms in await self._missed(newest_ms):
                await self._issue(at_ms)
            await self._issue(newest_ms, on_demand=not self._feed.replayed)
            await self._keeper.settle()

    def _forget(self) -> None:
        """A new process of the forecaster begins with what is stored."""
        self._fitted_day = None
        self._forecaster.stop()
        self._window = StateWindow(self._config.interval_ms)

    async def request(self, far_sensor_no: int | None = None) -> Asked:
        """Ask for an issue of the newest readings; it is made in turn.

        far_sensor_no: whose forecast is wanted further than issues reach; it is stored in `storage.asked`.

        Raises:
            Unavailable: there are no readings yet.
        """
        newest_ms = await self._newest_tick()
        if newest_ms is None and self._clock.feed.name != NO_FEED:
            first_ends = from_ms(self._over_ms + self._config.interval_ms)
            raise Unavailable(
                f"No window has closed yet to forecast from: the next one ends at {rfc3339(first_ends)}.",
                retry_after_s=30,
            )
        if newest_ms is None or newest_ms <= self._over_ms - STATE_TICKS * self._config.interval_ms:
            raise Unavailable("There are no readings yet to forecast from.", retry_after_s=30)
        issued_ms = self._issued_by(self._clock.feed)
        at_ms = max(newest_ms, issued_ms or 0)
        is_current = self._is_current(at_ms, self._clock.feed)
        if far_sensor_no is not None:
            async with self._database.write() as writer:
                await asked.ask(writer, from_ms(at_ms), far_sensor_no, anew=not is_current)
            self._keeper.owes = True
        elif is_current:
            return Asked(at_ms, 0.0)
        self._asked_ms = at_ms
        self._asked.set()
        ticks = 1 if issued_ms is None else max(1, (at_ms - issued_ms) // self._config.interval_ms)
        return Asked(at_ms, self._issue_s * min(ticks, CATCH_UP_TICKS))

    async def explain(self, issued_ms: int, sensor_no: int, step: int) -> Explanation:
        """What the forecast that an issue gave of a sensor `step` windows ahead is made of, by what was known then.

        Raises:
            NotFound: the issue is no longer kept.
            Unavailable: the forecaster's process is down or busy.
        """
        config = self._config
        known = await explaining.recall(
            self._database, issued_ms, sensor_no, config.interval_ms, config.timezone, config.holidays
        )
        async with explaining.in_turn(self._turn):
            state = known.state(self._network.size)
            explained = await self._forecaster.explain(state, known.issue.model, sensor_no - 1)
        return await asyncio.to_thread(explaining.explanation, known, explained, step)

    def is_asked(self, at_ms: int) -> bool:
        """Whether somebody waits for a tick's issue, which is made anew."""
        return at_ms == self._asked_ms

    def is_to_come(self, at_ms: int) -> bool:
        """Whether a tick's issue is being made, or its turn is still to come; after a start, also the newest tick's."""
        if at_ms in (self._issuing_ms, self._keeper.kept_ms):
            return True
        issued_ms = self._issued_by(self._clock.feed)
        return (self._over_ms - self._config.interval_ms if issued_ms is None else issued_ms) < at_ms <= self._over_ms

    def _issued_by(self, feed: Feed) -> int | None:
        """The newest issue, if it was of this feed: another may begin earlier."""
        return self._issued_ms if feed.follows(self._feed) else None

    def _is_current(self, at_ms: int, feed: Feed) -> bool:
        """Whether a tick of this feed had its turn, and no readings have come since that an issue would see."""
        issued_ms = self._issued_by(feed)
        return issued_ms is not None and (
            at_ms < issued_ms or (at_ms == issued_ms and not self._window.is_behind(at_ms))
        )

    async def _serve(self) -> None:
        """Begin again when told to; issue what is asked for.

        Unless that was done by now, or a feed that begins earlier has taken over.
        """
        while True:
            self._asked.clear()
            async with self._turn:
                if self._is_stale:
                    await self._begin_again()
                asked_ms = self._asked_ms
                if asked_ms is not None and self._is_due(asked_ms):
                    await self._issue_up_to(asked_ms)
                if self._asked_ms == asked_ms:
                    self._asked_ms = None
            await self._asked.wait()

    def _is_due(self, asked_ms: int) -> bool:
        is_open = self._keeper.owes or not self._is_current(asked_ms, self._clock.feed)
        return is_open and asked_ms <= to_ms(self._clock.now())

    async def _newest_tick(self) -> int | None:
        """The end of the newest window that holds readings and is over."""
        async with self._database.read() as reader:
            return await readings.newest_tick(reader, from_ms(self._over_ms))

    @property
    def _over_ms(self) -> int:
        """The end of the newest window that is over."""
        return to_ms(self._clock.now()) // self._config.interval_ms * self._config.interval_ms

    async def _issue_up_to(self, asked_ms: int) -> None:
        """Issue for a tick that is asked for, and first for those before it whose turn is still to come."""
        self._feed = self._clock.feed
        for at_ms in await self._missed(asked_ms, self._issued_by(self._feed)):
            await self._issue(at_ms)
        await self._issue(asked_ms, on_demand=True)
        await self._keeper.settle()

    async def _missed(self, before_ms: int, issued_ms: int | None = None) -> Sequence[int]:
        """The ticks with readings between an issue and a tick.

        Without `issued_ms` that is the last stored one: a crash or an outage has lost them, and few are made up for.
        """
        async with self._database.read() as reader:
            since_ms = issued_ms
            if since_ms is None:
                last = await forecasts.newest_time(reader) or await marks.mark(reader, marks.BEGAN)
                feed = self._clock.feed
                most = REPLAY_CATCH_UP_TICKS if feed.replayed and not feed.simulated else CATCH_UP_TICKS
                if last is None or to_ms(last) < before_ms - most * self._config.interval_ms:
                    return []
                since_ms = to_ms(last)
            return await readings.tick_ends(reader, from_ms(since_ms), from_ms(before_ms))

    async def _follow(self, subscription: Subscription) -> None:
        async for batch in subscription.batches(10_000):
            for record in batch:
                match message := decode(record.value):
                    case ReadingStored(at_ms=at_ms):
                        self._window.touch(at_ms)
                    case TickClosed():
                        await self._on_tick(message)
                    case _:
                        pass
            async with self._turn:
                await self._keeper.settle()
            await subscription.commit(batch[-1].position)

    async def _on_tick(self, tick: TickClosed) -> None:
        """Issue, unless that was done before it closed, and nothing has come since."""
        async with self._turn:
            feed, at_ms = Feed(tick.source, tick.replayed), tick.tick_end_ms
            if not self._is_current(at_ms, feed):
                self._feed = feed
                await self._issue(at_ms)

    async def _issue(self, at_ms: int, *, on_demand: bool = False) -> None:
        """Forecast from the state of the network at the tick that ends at `at_ms`; store and publish."""
        self._issuing_ms = at_ms
        try:
            await self._issue_now(at_ms, on_demand=on_demand)
        except BaseException:  # whatever it was: what the window was to hold may not be in it
            self._window = StateWindow(self._config.interval_ms)
            raise
        finally:
            self._issuing_ms = None
        self._issued_ms = at_ms

    async def _issue_now(self, at_ms: int, *, on_demand: bool) -> None:
        if self._window.is_past(at_ms):
            self._forget()  # another feed, which begins earlier
        day = self._day(at_ms)
        if day != self._fitted_day or self._forecaster.may_return:
            await self._fit(at_ms)
            self._fitted_day = day
        began = time.monotonic()
        issue = await self._forecaster.step(await self._state(at_ms))
        rows = await self._keeper.keep(issue, self._network.sensors, on_demand=on_demand)
        self._issue_s = time.monotonic() - began
        at = f"{from_ms(at_ms):%Y-%m-%d %H:%M} UTC"
        self._say(at_ms, f"issued {at} with {rows.model}" if rows else f"nothing is known at {at}")

    def _say(self, at_ms: int, said: str) -> None:
        """What was done, and whether a replay is far ahead of it. How old a live feed is, is a part of its own."""
        behind = (to_ms(self._clock.now()) - at_ms) // self._config.interval_ms
        lags = self._clock.feed.replayed and behind > LAG_TICKS
        self._board.report(
            "predict",
            Status.DEGRADED if lags else Status.OK,
            f"{behind} windows behind the feed: {said}" if lags else said,
            "Wait, or let the feed come more slowly." if lags else "",
        )

    async def _fit(self, at_ms: int) -> None:
        """Once a local day: learn from the history up to `at_ms`.

        A process that takes the place of another one learns up to where that one did, and goes on from its issues.
        """
        async with self._database.read() as reader:
            fitted = await marks.mark(reader, marks.FITTED)
        past, until_ms, config = None, at_ms, self._config
        if self._forecaster.is_new:
            await self._keeper.settle()
            async with self._database.read() as reader:
                size = (await Network.read(reader)).size
            past = await memory.recall(
                self._database, at_ms, size, config.interval_ms, config.timezone, config.holidays
            )
            if past is not None and fitted is not None and to_ms(fitted) <= at_ms:
                until_ms = to_ms(fitted) if self._day(to_ms(fitted)) == self._day(at_ms) else at_ms
        await self._learn_references(until_ms)
        async with self._database.read() as reader:
            self._network = await Network.read(reader)
            span = await Span.read(
                reader, self._network, until_ms, config.interval_ms, config.timezone, holidays=config.holidays
            )
        pieces = read_pieces(self._database, span)
        await self._forecaster.fit(span, pieces, self._network.graph, self._network.reference_speed, past, at_ms)
        async with self._database.write() as writer:
            await marks.set_mark(writer, marks.FITTED, from_ms(until_ms))

    def _day(self, at_ms: int) -> int:
        return int(local_day(np.array([at_ms], np.int64), self._config.timezone)[0])

    async def _state(self, at_ms: int) -> History:
        since_ms = self._window.take(at_ms)
        async with self._database.read() as reader:
            rows = await readings.between(reader, since_ms, at_ms)
            if int(rows.sensor_no.max(initial=0)) > self._network.size:
                self._network = Network(await sensors.every(reader), self._network.links)
        grid = self._window.update(at_ms, since_ms, rows, self._network.size)
        config = self._config
        return History(grid, VARIABLES, at_ms, config.interval_ms, config.timezone, config.holidays)
