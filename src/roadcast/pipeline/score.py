"""Score: every issued forecast is compared with what came true, once its target has come."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Self

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import SPEED
from roadcast.domain.sensor import Sensor, free_speeds
from roadcast.domain.times import EPOCH, from_ms, to_ms
from roadcast.forecasting.metrics import MAPE_FLOOR_MPH
from roadcast.services import Board, Status
from roadcast.storage import forecasts, readings, scores, sensors
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import Issues
from roadcast.storage.readings import Rows
from roadcast.storage.scores import SERVED, TENTHS, Score
from roadcast.streaming.log import Log
from roadcast.streaming.messages import IssueComplete, decode
from roadcast.windows import local_day, tick_grid

JAM_BELOW = 0.5
"""A target counts as jam when its speed is under this share of the reference speed."""
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
    """Follows the issues. Which windows are scored is stored with the sums, so that no target counts twice or never.

    A window is scored once, when the first issue that comes after it is complete, with the readings that are there.
    """

    def __init__(self, database: Database, log: Log, board: Board, config: ScoreConfig) -> None:
        self._database = database
        self._log = log
        self._board = board
        self._config = config

    async def run(self) -> None:
        """Score every target that comes true, for ever."""
        async with self._log.consume(self._config.topic, "score") as subscription:
            await self._begin()
            self._board.report("score", Status.OK)
            async for batch in subscription.batches(10_000):
                complete = (decode(record.value) for record in batch if not record.key)
                issues = [self._closed_by(message) for message in complete if isinstance(message, IssueComplete)]
                if issues:
                    if len(issues) < _BATCH_TICKS:
                        await asyncio.sleep(_SETTLE_S)  # so that a fast replay's ticks are scored many at a time
                    reach_ms = self._config.horizons * self._config.interval_ms
                    await self._catch_up(from_ms(min(issues) - reach_ms), from_ms(max(issues)))
                await subscription.commit(batch[-1].position)

    def _closed_by(self, issue: IssueComplete) -> int:
        """The newest window that is closed when an issue comes: its own, unless somebody could not wait for that."""
        return issue.issued_ms - self._config.interval_ms * issue.on_demand

    async def _begin(self) -> None:
        """Score what a crash has left, among all issues that are kept."""
        async with self._database.write() as writer:
            await scores.forget_rest(writer)
            kept = await forecasts.span(writer)
        if kept is not None:
            await self._catch_up(*kept)

    async def _catch_up(self, after: datetime, until: datetime) -> None:
        """Score the windows that end in (after, until] and were not scored yet."""
        async with self._database.read() as reader:
            due = await scores.due(reader, after, until)
        for ticks in _batches([to_ms(at) for at in due], _BATCH_TICKS * self._config.interval_ms):
            await self._score(ticks)

    async def _score(self, due: Sequence[int]) -> None:
        """Compare what was forecast for these ticks with what they brought."""
        interval_ms, horizons = self._config.interval_ms, self._config.horizons
        async with self._database.write() as writer:
            ticks = [to_ms(at) for at in await scores.claim(writer, [from_ms(at_ms) for at_ms in due])]
            if not ticks:
                return
            since, before = from_ms(ticks[0] - horizons * interval_ms), from_ms(ticks[-1])
            issues = await forecasts.between(writer, since, before, horizons)
            rows = await readings.between(writer, ticks[0] - interval_ms, ticks[-1])
            known = await sensors.every(writer)
            observed = Observed.of(rows, known, ticks, interval_ms, self._config.timezone)
            await scores.add(writer, await asyncio.to_thread(lambda: list(compare(issues, observed))))


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
    def of(cls, rows: Rows, known: Mapping[int, Sensor], ticks: Sequence[int], interval_ms: int, timezone: str) -> Self:
        """From the readings of these ticks, ascending; those between them are left out. Sensors are by number - 1."""
        ends = np.arange(ticks[0], ticks[-1] + 1, interval_ms, dtype=np.int64)
        speed = tick_grid(
            rows.sensor_no - 1, rows.ts_ms, rows.values,
            end_ms=ticks[-1], ticks=len(ends), sensors=max(known, default=0), interval_ms=interval_ms,
        )[:, :, SPEED]  # fmt: skip
        speed[~np.isin(ends, ticks)] = np.nan
        return cls(ticks[0], interval_ms, speed, local_day(ends, timezone), free_speeds(known))


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
    error, truth = (median - actual)[known], actual[known]
    absolute = np.abs(error)
    moving = truth >= MAPE_FLOOR_MPH
    return Score(
        *key,
        n=len(error),
        absolute=float(absolute.sum()),
        square=float((error**2).sum()),
        error=float(error.sum()),
        relative_n=int(moving.sum()),
        relative=float((absolute[moving] / truth[moving]).sum()),
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
