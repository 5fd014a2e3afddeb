"""Past forecasts beside what was taken as truth, read part by part, so that any span takes little memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from roadcast.api.context import ApiContext
from roadcast.domain.forecast import LONGEST_MINUTES
from roadcast.domain.times import DAY_MS, EPOCH, HOUR_MS, from_ms, to_ms
from roadcast.forecasting.scoring import Issues
from roadcast.scoreboard import Comparison, Score, as_scores
from roadcast.storage import forecasts, scored_ticks
from roadcast.storage.scored_ticks import Scored
from roadcast.windows import local_hour

PART_ROWS = 20_000
"""Forecasts that are held at a time."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some issues, alike ones together, and the windows that they speak of, as far as these are scored."""

    issues: list[Issues]
    scored: Scored


async def parts(context: ApiContext, since: datetime, before: datetime, sensor_no: int | None) -> AsyncIterator[Part]:
    """The issues from `since` on and before `before`, of the network or one sensor, in successive parts."""
    async with context.database.read() as reader:
        kept = await forecasts.span(reader)
    if kept is None:
        return
    interval_ms = context.interval_s * 1000
    first_ms = -(-max(to_ms(since), to_ms(kept[0])) // interval_ms) * interval_ms
    before_ms = min(to_ms(before), to_ms(kept[1]) + 1)
    step_ms = interval_ms * _part_ticks(context, sensor_no)
    while first_ms < before_ms and (issue_ms := await _next_issue(context, first_ms, before_ms)) is not None:
        start_ms = issue_ms // interval_ms * interval_ms
        first_ms = min(start_ms + step_ms, before_ms)
        yield await _part(context, start_ms, first_ms, sensor_no)


async def _next_issue(context: ApiContext, since_ms: int, before_ms: int) -> int | None:
    """When the first issue in [since, before) was made: years may lie between two feeds."""
    async with context.database.read() as reader:
        found = await reader.value(
            "SELECT min(issued_at) FROM forecasts WHERE issued_at >= :since AND issued_at < :before",
            since=from_ms(since_ms),
            before=from_ms(before_ms),
        )
    return None if found is None else to_ms(found)


def _part_ticks(context: ApiContext, sensor_no: int | None) -> int:
    if sensor_no is not None:
        return DAY_MS // (context.interval_s * 1000)
    steps = context.horizon_minutes * 60 // context.interval_s
    return max(1, PART_ROWS // (steps * max(len(context.state.sensors), 1)))


async def _part(context: ApiContext, start_ms: int, before_ms: int, sensor_no: int | None) -> Part:
    interval_ms = context.interval_s * 1000
    start, before = from_ms(start_ms), from_ms(before_ms)
    until = before + timedelta(minutes=LONGEST_MINUTES)
    async with context.database.read() as reader:
        if sensor_no is None:
            return Part(
                await forecasts.between(reader, start, before), await scored_ticks.between(reader, start, until)
            )
        times = [from_ms(at_ms) for at_ms in range(start_ms, before_ms, interval_ms)]
        return Part(
            await forecasts.of_sensor(reader, sensor_no, times),
            await scored_ticks.of_sensor(reader, sensor_no, start, until),
        )


async def scores_of_sensor(context: ApiContext, sensor_no: int, first: date) -> list[Score]:
    """A sensor's scores by hour and state, of the local days from `first` on, as far as forecasts are kept."""
    midnight = datetime.combine(first, time(), ZoneInfo(context.timezone))
    since = midnight - timedelta(minutes=LONGEST_MINUTES)
    found: list[Score] = []
    async for part in parts(context, since, context.clock.now() + timedelta(days=1), sensor_no):
        found += await asyncio.to_thread(_scores, part, first, context.interval_s * 1000, context.timezone)
    return found


def _scores(part: Part, first: date, interval_ms: int, timezone: str) -> list[Score]:
    truth = part.scored.truth
    days = local_hour(truth.ends_ms, timezone) // (DAY_MS // HOUR_MS)
    wanted = days >= (first - EPOCH.date()).days
    whole, near = truth.at(wanted), truth.where(part.scored.near_onset).at(wanted)
    found: list[Score] = []
    for issues in part.issues:
        found += as_scores(*Comparison.of(issues, whole, interval_ms, timezone).by_state())
        if bool(np.any(part.scored.near_onset)):
            found += as_scores(*Comparison.of(issues, near, interval_ms, timezone).near_onset())
    return found
