"""Score: every issued forecast is compared with what came true, once its target has come."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import SPEED
from roadcast.domain.sensor import Sensor, free_speeds
from roadcast.domain.times import from_ms, to_ms
from roadcast.flow.onsets import near_onsets, onsets, reach_ms
from roadcast.forecasting.scoring import Issues, Truth
from roadcast.scoreboard import Comparison
from roadcast.services import Board, Status
from roadcast.storage import forecasts, marks, readings, scored_ticks, scores, sensors
from roadcast.storage.engine import Database, Writer
from roadcast.streaming.log import Log
from roadcast.streaming.messages import IssueComplete, decode
from roadcast.windows import tick_grid

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
    Whether its targets were near the onset of a jam is known half an hour later, and summed up then, once.
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
        """Score what a crash has left, among all issues that are kept.

        Whether a live feed's newest window had closed is not known: it is scored with the next one.
        """
        async with self._database.read() as reader:
            kept, feed = await forecasts.span(reader), await marks.feed(reader)
        if kept is not None:
            after, until = kept
            is_live = feed is not None and not feed.replayed
            await self._catch_up(after, until - timedelta(milliseconds=self._config.interval_ms) * is_live)

    async def _catch_up(self, after: datetime, until: datetime) -> None:
        """Score the windows that end in (after, until] and were not scored yet, and the onsets known by then."""
        async with self._database.read() as reader:
            due = await scored_ticks.due(reader, after, until)
        for ticks in self._batches(due):
            await self._score(ticks)
        _, ahead_ms = reach_ms(self._config.interval_ms)
        async with self._database.read() as reader:
            due = await scored_ticks.onset_due(reader, until - timedelta(milliseconds=ahead_ms))
        for ticks in self._batches(due):
            await self._score_onsets(ticks)

    def _batches(self, due: Sequence[datetime]) -> Iterator[list[datetime]]:
        return batches(due, timedelta(milliseconds=_BATCH_TICKS * self._config.interval_ms))

    async def _score(self, due: Sequence[datetime]) -> None:
        """Compare what was forecast for these ticks with what they brought."""
        async with self._database.write() as writer:
            await scored_ticks.lock(writer)
            ticks = await scored_ticks.unscored(writer, due)
            if not ticks:
                return
            speed, reference = await self._observed(writer, to_ms(ticks[0]), to_ms(ticks[-1]))
            ends = np.array([to_ms(at) for at in ticks], np.int64)
            numbers = np.arange(1, reference.shape[1] + 1, dtype=np.int32)
            at = (ends - ends[0]) // self._config.interval_ms
            truth = Truth(ends, numbers, speed[at], reference[at])
            await scored_ticks.keep(writer, truth)
            for issues in await self._issues(writer, ends):
                compared = await self._compared(issues, truth)
                await scores.add(writer, *await asyncio.to_thread(compared.by_state))
                for sums in await asyncio.to_thread(list, compared.by_sensor()):
                    await scores.add_by_sensor(writer, sums)

    async def _score_onsets(self, due: Sequence[datetime]) -> None:
        """Sum up apart what was forecast for these ticks near the onset of a jam."""
        async with self._database.write() as writer:
            await scored_ticks.lock(writer)
            scored = await scored_ticks.of_times(writer, due)
            if scored.onset_known.all():
                return
            truth = scored.truth.at(~scored.onset_known)
            near = await self._near_onset(writer, truth.ends_ms)
            await scored_ticks.keep_onsets(writer, truth.ends_ms, near)
            if near.any():
                numbers = (np.flatnonzero(near.any(axis=0)) + 1).tolist()
                truth = truth.where(near[:, : len(truth.sensor_no)])  # sensors that came since are no part of it
                for issues in await self._issues(writer, truth.ends_ms, numbers):
                    compared = await self._compared(issues, truth)
                    await scores.add(writer, *await asyncio.to_thread(compared.near_onset))

    async def _observed(
        self, writer: Writer, first_ms: int, last_ms: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The speeds of the successive ticks from one to another, and the reference speeds of these times, [T, S]."""
        interval_ms = self._config.interval_ms
        rows = await readings.between(writer, first_ms - interval_ms, last_ms)
        known, since = await sensors.every(writer), await sensors.referenced_after(writer, from_ms(first_ms))
        ticks = (last_ms - first_ms) // interval_ms + 1
        grid = tick_grid(
            rows.sensor_no - 1, rows.ts_ms, rows.values,
            end_ms=last_ms, ticks=ticks, sensors=max(known, default=0),
            interval_ms=interval_ms,
        )  # fmt: skip
        ends = first_ms + interval_ms * np.arange(ticks)
        return grid[:, :, SPEED], references_at(ends, known, since)

    async def _near_onset(self, writer: Writer, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which sensors were near an onset at these ticks, [T, S]."""
        interval_ms = self._config.interval_ms
        behind_ms, ahead_ms = reach_ms(interval_ms)
        first_ms = int(ends[0]) - behind_ms
        speed, reference = await self._observed(writer, first_ms, int(ends[-1]) + ahead_ms)
        near = near_onsets(onsets(speed, reference, interval_ms), interval_ms)
        return near[(ends - first_ms) // interval_ms]

    async def _issues(
        self, writer: Writer, ends: NDArray[np.int64], numbers: Sequence[int] | None = None
    ) -> list[Issues]:
        """The issues that speak of these ticks."""
        since_ms = int(ends[0]) - self._config.horizons * self._config.interval_ms
        return await forecasts.between(writer, from_ms(since_ms), from_ms(int(ends[-1])), numbers)

    async def _compared(self, issues: Issues, truth: Truth) -> Comparison:
        return await asyncio.to_thread(Comparison.of, issues, truth, self._config.interval_ms, self._config.timezone)


def batches(ticks: Sequence[datetime], span: timedelta) -> Iterator[list[datetime]]:
    """Ticks that lie within `span` of each other: an outage must not become a long, empty grid."""
    batch: list[datetime] = []
    for tick in ticks:
        if batch and tick - batch[0] >= span:
            yield batch
            batch = []
        batch.append(tick)
    if batch:
        yield batch


def references_at(
    ends_ms: NDArray[np.int64], known: Mapping[int, Sensor], since: Mapping[int, datetime]
) -> NDArray[np.float32]:
    """The free speeds [T, S] that held at some ticks; `since` tells of which sensors the reference came later."""
    held = np.tile(free_speeds(known), (len(ends_ms), 1))
    before = free_speeds({number: replace(known[number], reference_speed=None) for number in since})
    for number, begun in since.items():
        held[ends_ms < to_ms(begun), number - 1] = before[number - 1]
    return held
