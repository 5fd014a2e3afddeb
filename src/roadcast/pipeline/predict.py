"""Predict: a forecast at every tick, from committed readings alone, so that a replay repeats it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import structlog
from numpy.typing import NDArray

from roadcast.child import Child, ChildDown
from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.reading import VARIABLES
from roadcast.domain.sensor import Link, Sensor, free_speeds
from roadcast.domain.times import DAY_MS, from_ms, to_ms
from roadcast.domain.units import TOLERANCE_SHARE
from roadcast.errors import Unavailable
from roadcast.forecasting.engine import LADDER, Engine, Issue
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.last_value import LastValue
from roadcast.services import Board, Status
from roadcast.storage import forecasts, marks, readings, sensors
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.partitions import Partitions
from roadcast.streaming.log import Log, Record
from roadcast.streaming.messages import IssueComplete, ReadingStored, TickClosed, decode, encode, encode_rows
from roadcast.windows import local_day, tick_end, tick_grid

log = structlog.get_logger()

FIT_DAYS = 56
"""How far back a fit looks: eight weeks hold every kind of day several times."""
FIT_CELLS = 40_000_000
"""Ticks times sensors that a fit may hold, about a gigabyte with its workings."""
CATCH_UP_TICKS = 96
"""How many ticks are issued after the fact at a start; more were missed by an outage that nobody forecasts."""
REPLAY_CATCH_UP_TICKS = 2016
"""As many in a replay, which may have run a week ahead of its forecasts."""
_DIGITS = {"speed": 2, "volume": 1, "confidence": 4, "tolerance": 2, "quantiles": 2}
_PAUSES_S = (1, 2, 5, 15, 60, 300)


STEP_TIMEOUT_S = 60.0
FIT_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How many ticks ahead, and what counts as right."""

    horizons: int
    tolerance_mph: float

    def engine(self, *forecasters: Forecaster) -> Engine:
        """An engine that has learnt nothing yet, with these forecasters or all."""
        return Engine(self.horizons, self.tolerance_mph, TOLERANCE_SHARE, forecasters or LADDER)


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """What predict is told by the settings."""

    topic_in: str
    topic_out: str
    interval_ms: int
    timezone: str
    engine: EngineConfig


@dataclass(slots=True)
class _Network:
    """The sensors by index (number - 1), as forecasters see them."""

    sensors: dict[int, Sensor]
    links: list[Link]

    @property
    def size(self) -> int:
        return max(self.sensors, default=0)

    @property
    def reference_speed(self) -> NDArray[np.float32]:
        return free_speeds(self.sensors)

    @property
    def graph(self) -> Graph:
        index = {sensor.sensor_id: number - 1 for number, sensor in self.sensors.items()}
        return Graph(
            np.array([index[link.from_sensor] for link in self.links], np.int64),
            np.array([index[link.to_sensor] for link in self.links], np.int64),
            np.array([link.weight or 1.0 for link in self.links], np.float32),
        )


class Predict:
    """Follows the ticks, keeps the newest state of the network, and issues a forecast for each tick."""

    def __init__(
        self,
        database: Database,
        log: Log,
        clock: FeedClock,
        board: Board,
        config: PredictConfig,
        learn_references: Callable[[int], Awaitable[int]],
    ) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._board = board
        self._config = config
        self._learn_references = learn_references
        self._child = Child("forecaster", config.engine.engine)
        self._fallback = self._new_fallback()
        self.partitions = Partitions("forecasts")
        self._network = _Network({}, [])
        self._window = _Window(config.interval_ms)
        self._fitted_day: int | None = None
        self._retry_at_s = 0.0
        self._failures = 0
        self._feed = clock.feed
        self._issued_ms: int | None = None
        self.issuing_ms: int | None = None
        self._turn = asyncio.Lock()

    def _new_fallback(self) -> Engine:
        """What forecasts while the child is down: the cheapest forecaster, here in this process."""
        return self._config.engine.engine(LastValue())

    async def run(self) -> None:
        """Issue at every tick, for ever."""
        async with self._log.consume(self._config.topic_in, "predict") as subscription:
            self._board.report("predict", Status.STARTING, "reading the history")
            try:
                await self.reload()
                self._board.report("predict", Status.OK)
                async for batch in subscription.batches(10_000):
                    await self._follow(batch)
                    await subscription.commit(batch[-1].position)
            finally:
                self._child.stop()

    async def reload(self) -> None:
        """Begin again from what is stored: fit, and issue for the newest tick and the missed ones before it."""
        async with self._turn:
            self._fitted_day = None
            self._window = _Window(self._config.interval_ms)
            self._feed = self._clock.feed
            newest_ms = await self._newest_tick()
            if newest_ms is not None:
                for at_ms in await self._missed(newest_ms):
                    await self._issue(at_ms)

    async def _missed(self, newest_ms: int) -> Sequence[int]:
        """The newest tick, and before it those that came after the last issue: a crash lost their turn."""
        async with self._database.read() as reader:
            last = await forecasts.newest_time(reader) or await marks.mark(reader, marks.BEGAN)
        feed = self._clock.feed
        most = REPLAY_CATCH_UP_TICKS if feed.replayed and not feed.simulated else CATCH_UP_TICKS
        first_ms = newest_ms - most * self._config.interval_ms
        if last is None or not first_ms <= to_ms(last) < newest_ms:
            return [newest_ms]
        return range(to_ms(last) + self._config.interval_ms, newest_ms + 1, self._config.interval_ms)

    async def request(self) -> int:
        """See to it that the newest tick has its issue; the issue's time.

        Raises:
            Unavailable: there are no readings yet.
        """
        async with self._turn:
            newest_ms = await self._newest_tick()
            if newest_ms is None:
                raise Unavailable("There are no readings yet to forecast from.", retry_after_s=30)
            if self._issued_ms is None or self._window.dirty:
                await self._issue(max(newest_ms, self._issued_ms or 0))
            return self._issued_ms or newest_ms

    async def _newest_tick(self) -> int | None:
        """The end of the newest window that holds readings and is over."""
        async with self._database.read() as reader:
            span = await readings.span(reader)
        over_ms = to_ms(self._clock.now()) // self._config.interval_ms * self._config.interval_ms
        return None if span is None or span[0] > over_ms else min(span[1], over_ms)

    async def _follow(self, batch: Sequence[Record]) -> None:
        for record in batch:
            match message := decode(record.value):
                case ReadingStored(at_ms=at_ms):
                    self._window.touch(at_ms)
                case TickClosed():
                    await self._on_tick(message)
                case _:
                    pass

    async def _on_tick(self, tick: TickClosed) -> None:
        """Issue, unless a reload has issued for that tick already. Another feed may begin earlier."""
        async with self._turn:
            feed = Feed(tick.source, tick.replayed)
            if self._issued_ms is not None and tick.tick_end_ms <= self._issued_ms and feed.follows(self._feed):
                return
            self._feed = feed
            await self._issue(tick.tick_end_ms)

    async def _issue(self, at_ms: int) -> None:
        """Forecast from the state of the network at the tick that ends at `at_ms`; store and publish."""
        self.issuing_ms = at_ms
        try:
            await self._issue_now(at_ms)
        finally:
            self.issuing_ms = None

    async def _issue_now(self, at_ms: int) -> None:
        if self._window.end_ms is not None and at_ms < self._window.end_ms:
            self._fitted_day = None  # another feed, which begins earlier
            self._window = _Window(self._config.interval_ms)
        day = int(local_day(np.array([at_ms], np.int64), self._config.timezone)[0])
        if day != self._fitted_day or (not self._child.running and time.monotonic() >= self._retry_at_s):
            await self._fit(at_ms, day)
        state = await self._state(at_ms)
        if not state.sensors:
            return
        issue = await self._step(state)
        self._issued_ms = at_ms
        rows = self._rows(issue)
        if not len(rows.sensor_no):
            self._board.report("predict", Status.OK, f"nothing is known at {from_ms(at_ms):%Y-%m-%d %H:%M} UTC")
            return
        async with self._database.write() as writer:
            await forecasts.store(writer, rows, self.partitions)
        await self._publish(rows)
        self._board.report("predict", Status.OK, f"issued {from_ms(at_ms):%Y-%m-%d %H:%M} UTC with {issue.model}")

    async def _fit(self, at_ms: int, day: int) -> None:
        """Once a local day: learn from the history up to `at_ms`."""
        await self._learn_references(at_ms)
        history = await self._history(at_ms)
        began = time.monotonic()
        try:
            if not self._child.running or self._fitted_day is None:
                self._child.start()
            learnt_from = (history, self._network.graph, self._network.reference_speed)
            await self._child.call("fit", *learnt_from, timeout_s=FIT_TIMEOUT_S)
        except ChildDown as error:
            self._down(error)
        else:
            self._failures = 0
            self._board.report("forecaster", Status.OK, f"fitted on {len(history)} ticks of {history.sensors} sensors")
            log.info("fitted", ticks=len(history), sensors=history.sensors, seconds=round(time.monotonic() - began, 2))
        self._fitted_day = day

    async def _history(self, at_ms: int) -> History:
        """The readings up to `at_ms`, as many days as a fit looks back."""
        interval_ms = self._config.interval_ms
        async with self._database.read() as reader:
            self._network = _Network(await sensors.every(reader), await sensors.links(reader))
            span = await readings.span(reader)
            most = min(FIT_DAYS * DAY_MS // interval_ms, FIT_CELLS // max(self._network.size, 1))
            ticks = 0 if span is None else min((at_ms - span[0]) // interval_ms + 1, most)
            rows = await readings.between(reader, at_ms - ticks * interval_ms, at_ms)
        grid = await asyncio.to_thread(
            tick_grid,
            rows.sensor_no - 1,
            rows.ts_ms,
            rows.values,
            end_ms=at_ms,
            ticks=ticks,
            sensors=self._network.size,
            interval_ms=interval_ms,
        )
        return History(grid, VARIABLES, at_ms, interval_ms, self._config.timezone)

    async def _state(self, at_ms: int) -> History:
        since_ms = self._window.stale_since(at_ms)
        async with self._database.read() as reader:
            rows = await readings.between(reader, since_ms, at_ms)
        if int(rows.sensor_no.max(initial=0)) > self._network.size:
            async with self._database.read() as reader:
                self._network = _Network(await sensors.every(reader), self._network.links)
        grid = self._window.update(at_ms, since_ms, rows, self._network.size)
        return History(grid, VARIABLES, at_ms, self._config.interval_ms, self._config.timezone)

    async def _step(self, state: History) -> Issue:
        if self._child.running:
            try:
                return cast("Issue", await self._child.call("step", state, timeout_s=STEP_TIMEOUT_S))
            except ChildDown as error:
                self._down(error)
        return self._fallback.step(state)

    def _down(self, error: ChildDown) -> None:
        """Fall back, and try again after a pause that grows."""
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        self._retry_at_s = time.monotonic() + pause_s
        self._fallback = self._new_fallback()
        self._board.report(
            "forecaster",
            Status.DEGRADED,
            f"{error.message}; last value serves; deaths so far: {self._child.deaths}",
            f"Nothing: it is started again in {pause_s} s. The log says why it ended.",
        )

    def _rows(self, issue: Issue) -> IssuedRows:
        known = ~np.all(np.isnan(issue.speed) & np.isnan(issue.volume), axis=1)
        return IssuedRows(
            issued_ms=issue.issued_ms,
            model=issue.model,
            version=issue.model_version,
            sensor_no=(np.flatnonzero(known) + 1).astype(np.int32),
            age_ticks=issue.age_ticks[known].astype(np.int32),
            speed=issue.speed[known],
            volume=issue.volume[known],
            confidence=issue.confidence[known],
            tolerance=issue.tolerance[known],
            quantiles=issue.quantiles[known],
            candidates={name: median[known] for name, median in issue.candidates.items()},
        )

    async def _publish(self, rows: IssuedRows) -> None:
        horizons = rows.speed.shape[1]
        done = IssueComplete(rows.issued_ms, len(rows.sensor_no), horizons, rows.model, rows.version)
        await self._log.publish(self._config.topic_out, [*self._records(rows), Record("", encode(done))])

    def _records(self, rows: IssuedRows) -> list[Record]:
        """One message per sensor, with the numbers rounded to what they mean."""
        shared = {
            "issued_ms": rows.issued_ms,
            "interval_ms": self._config.interval_ms,
            "model": rows.model,
            "version": rows.version,
        }
        arrays: dict[str, NDArray[np.float32]] = {
            name: np.round(getattr(rows, name), digits) for name, digits in _DIGITS.items()
        }
        numbers, ages = rows.sensor_no.tolist(), rows.age_ticks.tolist()
        codes = [self._network.sensors[number].sensor_id for number in numbers]
        own = (
            {"sensor_id": code, "sensor_no": number, "age_ticks": age, **{name: a[i] for name, a in arrays.items()}}
            for i, (code, number, age) in enumerate(zip(codes, numbers, ages, strict=True))
        )
        return [Record(code, value) for code, value in zip(codes, encode_rows(shared, own), strict=True)]


class _Window:
    """The last `STATE_TICKS` ticks as a grid, of which only what has changed is read again."""

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self._grid = np.full((STATE_TICKS, 0, len(VARIABLES)), np.nan, np.float32)
        self._dirty_since_ms: int | None = None
        self.end_ms: int | None = None

    @property
    def dirty(self) -> bool:
        """Whether readings have come that no issue has seen."""
        return self._dirty_since_ms is not None

    def touch(self, at_ms: int) -> None:
        """A reading of this time was stored."""
        start = int(tick_end(np.array([at_ms], np.int64), self._interval_ms)[0]) - self._interval_ms
        self._dirty_since_ms = start if self._dirty_since_ms is None else min(start, self._dirty_since_ms)

    def stale_since(self, end_ms: int) -> int:
        """The time after which readings must be read again, to know the window that ends at `end_ms`."""
        first_ms = end_ms - STATE_TICKS * self._interval_ms
        if self.end_ms is None:
            return first_ms
        dirty_ms = end_ms if self._dirty_since_ms is None else self._dirty_since_ms
        return max(first_ms, min(self.end_ms, dirty_ms))

    def update(self, end_ms: int, since_ms: int, rows: readings.Rows, sensors: int) -> NDArray[np.float32]:
        """Move on to `end_ms` with the readings in (since, end]; the grid [STATE_TICKS, sensors, 4]."""
        ticks = (end_ms - since_ms) // self._interval_ms
        fresh = tick_grid(
            rows.sensor_no - 1,
            rows.ts_ms,
            rows.values,
            end_ms=end_ms,
            ticks=ticks,
            sensors=sensors,
            interval_ms=self._interval_ms,
        )
        moved = 0 if self.end_ms is None else (end_ms - self.end_ms) // self._interval_ms
        grid = np.full((STATE_TICKS, sensors, len(VARIABLES)), np.nan, np.float32)
        kept = self._grid[moved:] if moved < STATE_TICKS else self._grid[:0]
        grid[: len(kept), : kept.shape[1]] = kept
        grid[STATE_TICKS - ticks :] = fresh
        self._grid, self.end_ms = grid, end_ms
        ahead = self._dirty_since_ms is not None and self._dirty_since_ms >= end_ms
        self._dirty_since_ms = self._dirty_since_ms if ahead else None
        return grid.copy()
