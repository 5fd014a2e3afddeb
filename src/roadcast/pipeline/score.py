"""Score: every issued forecast is compared with what came true, once its target has come."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import SPEED
from roadcast.domain.times import EPOCH, from_ms, to_ms
from roadcast.services import Board, Status
from roadcast.storage import forecasts, marks, readings, scores, sensors
from roadcast.storage.engine import Database, Reader
from roadcast.storage.forecasts import Due
from roadcast.storage.scores import TENTHS, Score
from roadcast.streaming.log import Log
from roadcast.streaming.messages import IssueComplete, decode
from roadcast.windows import local_day, tick_grid

SERVED = "served"
"""The name under which the published forecast is scored, beside every forecaster's own."""
JAM_BELOW = 0.5
"""A target counts as jam when its speed is under this share of the reference speed."""
MAPE_FLOOR_MPH = 5.0
"""Relative errors are divided by at least this, so that a stopped queue does not decide the mean."""
MARK = "score"
_BATCH_TICKS = 24
_SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """What score is told by the settings."""

    topic: str
    interval_ms: int
    horizons: int
    timezone: str


class Scorer:
    """Follows the issues. How far it has come is stored with the sums, so that no target counts twice or never."""

    def __init__(self, database: Database, log: Log, board: Board, config: ScoreConfig) -> None:
        self._database = database
        self._log = log
        self._board = board
        self._config = config

    async def run(self) -> None:
        """Score every target that comes true, for ever."""
        async with self._log.consume(self._config.topic, "score") as subscription:
            self._board.report("score", Status.OK)
            await self._catch_up(None)
            async for batch in subscription.batches(10_000):
                issues = [m.issued_ms for m in map(decode, (r.value for r in batch)) if isinstance(m, IssueComplete)]
                if issues:
                    await asyncio.sleep(_SETTLE_S)  # in a fast replay many ticks are scored in one transaction
                    await self._catch_up(max(issues))
                await subscription.commit(batch[-1].position)

    async def _catch_up(self, newest_ms: int | None) -> None:
        """Score the ticks after the mark, up to the newest issue."""
        async with self._database.read() as reader:
            mark = await marks.mark(reader, MARK)
            newest = from_ms(newest_ms) if newest_ms else await forecasts.newest_time(reader)
            if newest is not None and mark is not None and newest < mark:
                mark = newest - timedelta(milliseconds=self._config.interval_ms)  # a feed that begins earlier
            due = [] if newest is None else await forecasts.issue_times(reader, mark or EPOCH, newest)
        for first in range(0, len(due), _BATCH_TICKS):
            await self._score([to_ms(at) for at in due[first : first + _BATCH_TICKS]])

    async def _score(self, ticks: Sequence[int]) -> None:
        async with self._database.write() as writer:
            found: list[Score] = []
            for tick_ms in ticks:
                found += await self._of_tick(writer, tick_ms)
            await scores.add(writer, sum_by_key(found))
            await marks.set_mark(writer, MARK, from_ms(ticks[-1]))

    async def _of_tick(self, reader: Reader, tick_ms: int) -> list[Score]:
        """The scores of every forecast whose target is this tick."""
        interval_ms = self._config.interval_ms
        due = await forecasts.due(reader, tick_ms, interval_ms, self._config.horizons)
        rows = await readings.between(reader, tick_ms - interval_ms, tick_ms)
        known = await sensors.every(reader)
        size = max(known, default=0)
        grid = tick_grid(
            rows.sensor_no - 1,
            rows.ts_ms,
            rows.values,
            end_ms=tick_ms,
            ticks=1,
            sensors=size,
            interval_ms=interval_ms,
        )
        reference = np.full(size, np.nan, np.float32)
        for number, sensor in known.items():
            reference[number - 1] = np.nan if sensor.free_speed is None else sensor.free_speed
        day = EPOCH.date() + timedelta(days=int(local_day(np.array([tick_ms], np.int64), self._config.timezone)[0]))
        return list(compare(due, grid[0, :, SPEED], reference, day, interval_ms // 60_000))


def compare(
    due: Due, observed: NDArray[np.float32], reference: NDArray[np.float32], day: date, interval_minutes: int
) -> Iterator[Score]:
    """Sums of the errors of forecasts that are due; observed and reference are by sensor number - 1, NaN unknown.

    Only targets that were observed count.
    """
    actual = observed[due.sensor_no - 1].astype(np.float64)
    jam = actual / reference[due.sensor_no - 1] < JAM_BELOW
    for horizon in np.unique(due.horizon).tolist():
        for state in (False, True):
            at = (due.horizon == horizon) & (jam == state)
            served = due.take(at)
            for name, median in {SERVED: due.speed, **due.candidates}.items():
                yield _score(
                    (day, name, horizon * interval_minutes, state),
                    median[at],
                    actual[at],
                    served if name == SERVED else None,
                )


def _score(
    key: tuple[date, str, int, bool], median: NDArray[np.float32], actual: NDArray[np.float64], served: Due | None
) -> Score:
    counted = ~np.isnan(median) & ~np.isnan(actual)
    error = (median - actual)[counted]
    absolute = np.abs(error)
    score = Score(
        *key,
        n=len(error),
        absolute=float(absolute.sum()),
        square=float((error**2).sum()),
        error=float(error.sum()),
        relative_n=len(error),
        relative=float((absolute / np.maximum(actual[counted], MAPE_FLOOR_MPH)).sum()),
    )
    return score if served is None else _with_intervals(score, served, actual)


def _with_intervals(score: Score, served: Due, actual: NDArray[np.float64]) -> Score:
    """Add how wide the 80 % interval was and what it covered, and what came of `confidence`, by its tenths."""
    counted = ~np.isnan(actual) & ~np.isnan(served.low_80) & ~np.isnan(served.high_80)
    low, high, true = served.low_80[counted], served.high_80[counted], actual[counted]
    said = ~np.isnan(actual) & ~np.isnan(served.confidence)
    confidence = served.confidence[said].astype(np.float64)
    within = np.abs(served.speed[said] - actual[said]) <= served.tolerance[said]
    tenth = np.minimum((confidence * TENTHS).astype(np.int64), TENTHS - 1)
    return replace(
        score,
        interval_n=int(counted.sum()),
        covered_80=int(((true >= low) & (true <= high)).sum()),
        width_80=float((high - low).sum()),
        confidence_n=np.bincount(tenth, minlength=TENTHS).tolist(),
        confidence_sum=np.bincount(tenth, confidence, TENTHS).tolist(),
        within_n=np.bincount(tenth[within], minlength=TENTHS).tolist(),
    )


def sum_by_key(found: Sequence[Score]) -> list[Score]:
    """One score for each key, without those that count nothing."""
    totals: dict[tuple[date, str, int, bool], Score] = {}
    for score in found:
        if score.n:
            key = (score.day, score.model, score.horizon_minutes, score.jam)
            totals[key] = totals[key] + score if key in totals else score
    return list(totals.values())
