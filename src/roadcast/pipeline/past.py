"""The past that forecasters learn from: read from the database piece by piece, and gathered in a child process.

Whoever reads it holds no more than a piece of it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.child import Child
from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.sensor import Link, Sensor, free_speeds
from roadcast.domain.times import DAY_MS, from_ms, to_ms
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import TARGETS, History
from roadcast.storage import marks, readings, sensors
from roadcast.storage.engine import Database, Reader
from roadcast.windows import tick_grid

FIT_DAYS = 56
"""How far back a fit looks: eight weeks hold every kind of day several times."""
FIT_CELLS = 40_000_000
"""Ticks times sensors that a fit may hold: sixty bytes each with its workings, 2.4 GB in the child's process."""
READ_CELLS = 250_000
"""As many that this process holds at a time, while it reads them."""
PIECE_TIMEOUT_S = 60.0

Pieces = AsyncIterator[tuple[int, NDArray[np.float32]]]
"""The number of a first tick, and ticks [n, sensors, 2] from there on."""


@dataclass(slots=True)
class Network:
    """The sensors by index (number - 1), as forecasters see them."""

    sensors: dict[int, Sensor]
    links: list[Link]

    @classmethod
    async def read(cls, reader: Reader) -> "Network":
        """As it is stored."""
        return cls(await sensors.every(reader), await sensors.links(reader))

    @property
    def size(self) -> int:
        """How many indices there are."""
        return max(self.sensors, default=0)

    @property
    def reference_speed(self) -> NDArray[np.float32]:
        """[S], NaN where unknown."""
        return free_speeds(self.sensors)

    @property
    def graph(self) -> Graph:
        """Between sensors by index."""
        return Graph.of(self.links, {sensor.sensor_id: number - 1 for number, sensor in self.sensors.items()})


@dataclass(frozen=True, slots=True)
class Span:
    """The ticks of a history: how many, up to when, and of how many sensors."""

    ticks: int
    end_ms: int
    sensors: int
    interval_ms: int
    timezone: str
    holidays: tuple[int, ...] = ()

    @classmethod
    async def read(
        cls,
        reader: Reader,
        network: Network,
        end_ms: int,
        interval_ms: int,
        timezone: str,
        days: int = FIT_DAYS,
        holidays: tuple[int, ...] = (),
    ) -> "Span":
        """The last days of what is stored of a network up to a tick, or as many of them as a fit may hold."""
        first = await readings.span(reader)
        most = min(days * DAY_MS // interval_ms, FIT_CELLS // max(network.size, 1))
        ticks = 0 if first is None else max(0, min((end_ms - first[0]) // interval_ms + 1, most))
        return cls(ticks, end_ms, network.size, interval_ms, timezone, holidays)

    def history(self) -> History:
        """A history in which everything is missing yet."""
        values = np.full((self.ticks, self.sensors, len(TARGETS)), np.nan, np.float32)
        return History(values, TARGETS, self.end_ms, self.interval_ms, self.timezone, self.holidays)


async def newest_window(database: Database, wall: datetime, interval_ms: int) -> int | None:
    """The end of the feed's newest window that holds readings and is over, None where there is none."""
    async with database.read() as reader:
        clock = FeedClock(lambda: wall, await marks.feed(reader) or Feed())
        over_ms = to_ms(clock.now()) // interval_ms * interval_ms
        return await readings.newest_tick(reader, from_ms(over_ms))


class Gathering:
    """In the process: the history that is to be learnt from."""

    def __init__(self) -> None:
        self._history = Span(0, 0, 0, 1, "UTC").history()

    def begin(self, span: Span) -> None:
        """Make room for a history."""
        self._history = span.history()

    def take(self, first: int, values: NDArray[np.float32]) -> None:
        """The ticks [n, sensors, 2] of the history from number `first` on."""
        self._history.values[first : first + len(values)] = values

    def gathered(self) -> History:
        """The history from the first tick on that holds anything; it is kept here no longer."""
        known = np.flatnonzero(~np.isnan(self._history.values).all(axis=(1, 2)))
        history = self._history.last(len(self._history) - int(known[0]) if len(known) else 0)
        self._history = history.until(0)
        return history


async def hand_over(child: Child, span: Span, pieces: Pieces, done: Callable[[int], None] = lambda _: None) -> None:
    """Let a child that holds a `Gathering` have a history. `done` hears how many ticks it has.

    Raises:
        ChildDown: the child died, or took too long.
    """
    await child.call("begin", span, timeout_s=PIECE_TIMEOUT_S)
    async for first, values in pieces:
        await child.call("take", first, values, timeout_s=PIECE_TIMEOUT_S)
        done(first + len(values))
    done(span.ticks)


def parts_of(ticks: int, sensors: int, end_ms: int, interval_ms: int) -> Iterator[tuple[int, int, int]]:
    """Parts of a history up to `end_ms`, of READ_CELLS at most: each one's first tick, how many, and its end."""
    step = max(1, READ_CELLS // max(sensors, 1))
    for first in range(0, ticks, step):
        count = min(step, ticks - first)
        yield first, count, end_ms - (ticks - first - count) * interval_ms


async def read_pieces(database: Database, span: Span) -> Pieces:
    """A history, piece by piece; a piece without readings is left out."""
    for first, ticks, end_ms in parts_of(span.ticks, span.sensors, span.end_ms, span.interval_ms):
        async with database.read() as reader:
            rows = await readings.between(reader, end_ms - ticks * span.interval_ms, end_ms)
        if len(rows):
            yield first, await asyncio.to_thread(_grid, rows, end_ms, ticks, span)


def _grid(rows: readings.Rows, end_ms: int, ticks: int, span: Span) -> NDArray[np.float32]:
    """What is learnt from a few ticks, [ticks, sensors, 2]; a sensor that came after the span was measured is not."""
    rows = rows.take(rows.sensor_no <= span.sensors)
    grid = tick_grid(
        rows.sensor_no - 1, rows.ts_ms, rows.values,
        end_ms=end_ms, ticks=ticks, sensors=span.sensors, interval_ms=span.interval_ms,
    )  # fmt: skip
    return np.ascontiguousarray(grid[:, :, : len(TARGETS)])
