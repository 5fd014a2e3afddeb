"""Score: every issued forecast is compared with what came true, once its target has come."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Self

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import SPEED
from roadcast.domain.sensor import Sensor, free_speeds
from roadcast.domain.times import EPOCH, from_ms, to_ms
from roadcast.services import Board, Status
from roadcast.storage import forecasts, marks, readings, scores, sensors
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import Issues
from roadcast.storage.readings import Rows
from roadcast.storage.scores import SERVED, TENTHS, Score
from roadcast.streaming.log import Log
from roadcast.streaming.messages import IssueComplete, decode
from roadcast.windows import local_day, tick_grid

JAM_BELOW = 0.5
"""A target counts as jam when its speed is under this share of the reference speed."""
MAPE_FLOOR_MPH = 5.0
"""Relative errors are divided by at least this, so that a stopped queue does not decide the mean."""
MARK = "score"
_BATCH_TICKS = 24
_SETTLE_S = 2.0


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
                complete = (decode(record.value) for record in batch if not record.key)
                issues = [message.issued_ms for message in complete if isinstance(message, IssueComplete)]
                if issues:
                    if len(issues) < _BATCH_TICKS:
                        await asyncio.sleep(_SETTLE_S)  # so that a fast replay's ticks are scored many at a time
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
        for ticks in _batches([to_ms(at) for at in due], _BATCH_TICKS * self._config.interval_ms):
            await self._score(ticks)

    async def _score(self, ticks: Sequence[int]) -> None:
        """Compare what was forecast for these ticks with what they brought."""
        interval_ms, horizons = self._config.interval_ms, self._config.horizons
        first_ms, last_ms = ticks[0], ticks[-1]
        async with self._database.write() as writer:
            issues = await forecasts.between(
                writer, from_ms(first_ms - horizons * interval_ms), from_ms(last_ms), horizons
            )
            rows = await readings.between(writer, first_ms - interval_ms, last_ms)
            known = await sensors.every(writer)
            observed = Observed.of(rows, known, first_ms, last_ms, interval_ms, self._config.timezone)
            await scores.add(writer, list(compare(issues, observed)))
            await marks.set_mark(writer, MARK, from_ms(last_ms))


def _batches(ticks: Sequence[int], span_ms: int) -> Iterator[list[int]]:
    """Ticks that lie within `span_ms` of each other: an outage must not become a long, empty grid."""
    batch: list[int] = []
    for tick_ms in ticks:
        if batch and tick_ms - batch[0] >= span_ms:
            yield batch
            batch = []
        batch.append(tick_ms)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Observed:
    """What came true: speed [T, S] of the ticks that end from `first_ms` on, their local days [T], references [S]."""

    first_ms: int
    interval_ms: int
    speed: NDArray[np.float32]
    day: NDArray[np.int64]
    reference: NDArray[np.float32]

    @classmethod
    def of(
        cls, rows: Rows, known: Mapping[int, Sensor], first_ms: int, last_ms: int, interval_ms: int, timezone: str
    ) -> Self:
        """From the readings of those ticks; sensors are by number - 1."""
        ticks, size = (last_ms - first_ms) // interval_ms + 1, max(known, default=0)
        grid = tick_grid(
            rows.sensor_no - 1, rows.ts_ms, rows.values,
            end_ms=last_ms, ticks=ticks, sensors=size, interval_ms=interval_ms,
        )  # fmt: skip
        ends = first_ms + interval_ms * np.arange(ticks, dtype=np.int64)
        return cls(first_ms, interval_ms, grid[:, :, SPEED], local_day(ends, timezone), free_speeds(known))


def compare(issues: Issues, observed: Observed) -> Iterator[Score]:
    """The sums of the errors of every forecast whose target is among the observed ticks.

    Only targets that were observed count: a missing reading is no truth.
    """
    minutes = observed.interval_ms // 60_000
    for step in range(issues.speed.shape[1]):
        target_ms = issues.issued_ms + (step + 1) * observed.interval_ms
        tick = (target_ms - observed.first_ms) // observed.interval_ms
        due = np.flatnonzero((tick >= 0) & (tick < len(observed.day)))
        tick, sensor = tick[due], issues.sensor_no[due] - 1
        actual = observed.speed[tick, sensor].astype(np.float64)
        jam, day = actual / observed.reference[sensor] < JAM_BELOW, observed.day[tick]
        for key in {(d, j) for d in np.unique(day).tolist() for j in (False, True)}:
            at = np.flatnonzero((day == key[0]) & (jam == key[1]) & ~np.isnan(actual))
            where = (EPOCH.date() + timedelta(days=key[0]), minutes * (step + 1), key[1])
            yield from _scores(issues, due[at], step, actual[at], where)


def _scores(
    issues: Issues, rows: NDArray[np.intp], step: int, actual: NDArray[np.float64], where: tuple[date, int, bool]
) -> Iterator[Score]:
    """The scores of every forecaster, and of what was served, over some rows at one step."""
    day, horizon, jam = where
    for name, median in {SERVED: issues.speed, **issues.candidates}.items():
        score = _score((day, name, horizon, jam), median[rows, step], actual)
        if score.n:
            yield _with_intervals(score, issues, rows, step, actual) if name == SERVED else score


def _score(key: tuple[date, str, int, bool], median: NDArray[np.float32], actual: NDArray[np.float64]) -> Score:
    known = ~np.isnan(median)
    error = (median - actual)[known]
    absolute = np.abs(error)
    return Score(
        *key,
        n=len(error),
        absolute=float(absolute.sum()),
        square=float((error**2).sum()),
        error=float(error.sum()),
        relative_n=len(error),
        relative=float((absolute / np.maximum(actual[known], MAPE_FLOOR_MPH)).sum()),
    )


def _with_intervals(
    score: Score, issues: Issues, rows: NDArray[np.intp], step: int, actual: NDArray[np.float64]
) -> Score:
    """Add how wide the 80 % interval was and what it covered, and what came of `confidence`, by its tenths."""
    low, high = issues.low_80[rows, step], issues.high_80[rows, step]
    said = issues.confidence[rows, step].astype(np.float64)
    within = np.abs(issues.speed[rows, step] - actual) <= issues.tolerance[rows, step]
    known = ~np.isnan(said)
    tenth = np.minimum((said[known] * TENTHS).astype(np.int64), TENTHS - 1)
    return replace(
        score,
        interval_n=int((~np.isnan(high - low)).sum()),
        covered_80=int(((actual >= low) & (actual <= high)).sum()),
        width_80=float(np.nansum(high - low)),
        confidence_n=np.bincount(tenth, minlength=TENTHS).tolist(),
        confidence_sum=np.bincount(tenth, said[known], TENTHS).tolist(),
        within_n=np.bincount(tenth[within[known]], minlength=TENTHS).tolist(),
    )
