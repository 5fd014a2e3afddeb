"""Explaining a forecast: what was known when it was made, and what the forecaster's process says of that."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import VARIABLES
from roadcast.domain.times import DAY_MS, from_ms
from roadcast.errors import NotFound, Unavailable
from roadcast.forecasting.explanation import Explained, Explanation
from roadcast.forecasting.history import SPEED, STATE_TICKS, History
from roadcast.forecasting.similar_days import similar_days
from roadcast.pipeline.past import FIT_DAYS
from roadcast.storage import forecasts, readings
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.readings import Rows
from roadcast.windows import tick_grid

WAIT_S = 10.0
"""How long an explanation waits for the forecaster, which may be learning."""
BUSY_S = 30
"""After how long to ask again then."""
SAME_MPH = 0.005
"""Forecasts that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Known:
    """One sensor's part of an issue, and what was known when that was made.

    network: the readings of the issue's last STATE_TICKS windows; past: the sensor's own, as far back as a fit looks.
    """

    issue: IssuedRows
    network: Rows
    past: History

    def state(self, sensors: int) -> History:
        """Of the network, of which a forecaster knows so many sensors."""
        sensors = max(sensors, int(self.network.sensor_no.max(initial=0)), int(self.issue.sensor_no[0]))
        return replace(self.past, values=_grid(self.network, 1, sensors, STATE_TICKS, self.past))


async def recall(
    database: Database,
    issued_ms: int,
    sensor_no: int,
    interval_ms: int,
    timezone: str,
    holidays: tuple[int, ...] = (),
) -> Known:
    """What was known one window after that of an issue: live readings take their time, and it waits for them.

    Raises:
        NotFound: it is no longer kept.
    """
    known_at, ticks = from_ms(issued_ms + interval_ms), FIT_DAYS * DAY_MS // interval_ms
    async with database.read() as reader:
        issue = await forecasts.issued(reader, from_ms(issued_ms), sensor_no)
        if issue is None:
            raise NotFound(f"The forecasts of {from_ms(issued_ms):%Y-%m-%d %H:%M} UTC are no longer kept.")
        network = await readings.between(reader, issued_ms - STATE_TICKS * interval_ms, issued_ms, as_of=known_at)
        own = await readings.between(reader, issued_ms - ticks * interval_ms, issued_ms, [sensor_no], known_at)
    empty = np.empty((0, 1, len(VARIABLES)), np.float32)
    nothing = History(empty, VARIABLES, issued_ms, interval_ms, timezone, holidays)
    past = await asyncio.to_thread(_grid, own, sensor_no, 1, ticks, nothing)
    return Known(issue, network, replace(nothing, values=past))


def _grid(rows: Rows, first_no: int, sensors: int, ticks: int, when: History) -> NDArray[np.float32]:
    """[ticks, sensors, 4], up to the end of `when`."""
    return tick_grid(
        rows.sensor_no - first_no, rows.ts_ms, rows.values,
        end_ms=when.end_ms, ticks=ticks, sensors=sensors, interval_ms=when.interval_ms,
    )  # fmt: skip


def explanation(known: Known, explained: Explained, step: int) -> Explanation:
    """What the forecast `step` windows ahead is made of, and the days that were most like its own."""
    days = similar_days(known.past, SPEED, step)
    return Explanation(
        explained.model, explained.version, explained.terms[step - 1], _doubt(known.issue, explained), days
    )


def _doubt(issue: IssuedRows, explained: Explained) -> str:
    """Why the terms are not of what was served; empty where the same model gives the same again."""
    if (issue.model, issue.version) != (explained.model, explained.version):
        return (
            f"{issue.model} of {issue.version}, which made it, is no longer loaded: "
            f"{explained.model} of {explained.version} explains it."
        )
    made = issue.candidates[issue.model][0]
    if np.allclose(made, explained.median[: len(made)], rtol=0, atol=SAME_MPH, equal_nan=True):
        return ""
    return "The readings that it was made from have changed since, or are no longer kept."


@asynccontextmanager
async def in_turn(turn: asyncio.Lock) -> AsyncGenerator[None]:
    """Hold the turn, as whoever speaks with the forecaster does.

    Raises:
        Unavailable: it did not come within `WAIT_S`.
    """
    try:
        async with asyncio.timeout(WAIT_S):
            await turn.acquire()
    except TimeoutError:
        raise Unavailable("The forecaster is busy.", retry_after_s=BUSY_S) from None
    try:
        yield
    finally:
        turn.release()
