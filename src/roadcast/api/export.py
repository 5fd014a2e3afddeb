"""Forecasts beside what came true, as rows of a file: CSV or Parquet, made part by part."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

import numpy as np
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from roadcast.api.context import MOST_EXPORTS, ApiContext
from roadcast.api.deps import Context
from roadcast.api.past import parts
from roadcast.domain.forecast import QUANTILE_NAMES
from roadcast.domain.times import from_ms, rfc3339
from roadcast.errors import Unavailable
from roadcast.flow.congestion import STATES, states
from roadcast.forecasting.scoring import DECIMALS, Issues, exact
from roadcast.live.documents import CONFIDENCE_DECIMALS, rounded, speed_unit
from roadcast.storage import forecasts
from roadcast.storage.scored_ticks import Scored

Format = Literal["csv", "parquet"]
MEDIA_TYPES: Mapping[Format, str] = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}

PATIENCE_S = 10.0
"""So long the next one waits until one of them has ended."""
STALLED_S = 60.0
"""So long may a client take nothing before it counts as gone."""

CONVERTED_DECIMALS = DECIMALS + 2
"""Of speeds in another unit than the one that errors are counted in: so that means are the same to what is shown."""

Kind = Literal["time", "text", "integer", "real", "flag"]
Values = Sequence[object]
"""Of one column: milliseconds for a time, None where unknown."""
COLUMNS: Mapping[str, Kind] = {
    "issued_at": "time",
    "target_time": "time",
    "sensor_id": "text",
    "horizon_minutes": "integer",
    "model_name": "text",
    "model_version": "text",
    "unit": "text",
    "predicted_speed": "real",
    **dict.fromkeys(QUANTILE_NAMES, "real"),
    "confidence": "real",
    "tolerance": "real",
    "actual_speed": "real",
    "reference_speed": "real",
    "state": "text",
    "near_onset": "flag",
}
"""The columns before those of the forecasters. near_onset is unknown until half an hour after the target."""


@dataclass(frozen=True, slots=True)
class Export:
    """What is wanted: issues of [first, before). names: of all forecasters."""

    first: datetime
    before: datetime
    sensor_no: int | None
    horizon_minutes: int | None
    pending: bool
    names: Sequence[str]

    @property
    def columns(self) -> dict[str, Kind]:
        """Of the file."""
        return {**COLUMNS, **{f"candidate_{name}": "real" for name in self.names}}


async def one_of_few(context: Context) -> AsyncGenerator[None]:
    """Holds one of the exports that may be made at a time, as a dependency does: until its answer is sent.

    Raises:
        Unavailable: none ended within PATIENCE_S.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            await context.exports.acquire()
    except TimeoutError:
        raise Unavailable(
            f"{MOST_EXPORTS} exports are being made.", remedy="Ask again later.", retry_after_s=10
        ) from None
    try:
        yield
    finally:
        context.exports.release()


class Download(StreamingResponse):
    """Sends what a generator yields, and closes it at the end, which comes early where the client takes nothing."""

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def timely(message: Message) -> None:
            try:
                async with asyncio.timeout(STALLED_S):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        async with aclosing(cast("AsyncGenerator[bytes]", self.body_iterator)):
            await super().__call__(scope, receive, timely)


async def encoded(context: ApiContext, wanted: Export, media: Format) -> AsyncGenerator[bytes]:
    """The file, piece by piece."""
    tables = _tables(context, wanted)
    if media == "csv":
        yield _csv([list(wanted.columns)])
        async for table in tables:
            yield await asyncio.to_thread(_csv_rows, table, wanted.columns)
    else:
        from roadcast.api.parquet import written  # noqa: PLC0415 - megabytes that only this needs

        async with aclosing(written(tables, wanted.columns)) as pieces:
            async for piece in pieces:
                yield piece


def _csv_rows(table: Sequence[Values], columns: Mapping[str, Kind]) -> bytes:
    return _csv(
        zip(*(_as_text(column, kind) for column, kind in zip(table, columns.values(), strict=True)), strict=True)
    )


def _csv(rows: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)  # pyright: ignore[reportArgumentType]
    return text.getvalue().encode()


def _as_text(column: Values, kind: Kind) -> Values:
    match kind:
        case "time":
            told = {at: rfc3339(from_ms(at)) for at in set(column) if isinstance(at, int)}
            return [told.get(at) for at in column]  # pyright: ignore[reportArgumentType]
        case "flag":
            return [None if flag is None else str(flag).lower() for flag in column]
        case _:
            return column


async def _tables(context: ApiContext, wanted: Export) -> AsyncIterator[list[Values]]:
    """The columns of successive rows, alike ones together."""
    async for part in parts(context, wanted.first, wanted.before, wanted.sensor_no):
        async with context.database.read() as reader:  # after the part, which a new model may have issued
            models = await forecasts.publishers(reader)
        for issues in part.issues:
            table = await asyncio.to_thread(_table, context, wanted, models, _known(issues, context), part.scored)
            if table[0]:
                yield table


def _known(issues: Issues, context: ApiContext) -> Issues:
    """A sensor that was registered a moment ago is left out until this process has heard of it."""
    return issues.at(np.isin(issues.sensor_no, list(context.state.sensors)))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Forecasts one by one [n]: which of the issues' rows, which step, when their target is, and what came true.

    Where the target was not scored or not measured, `actual` is NaN; where it was not scored, `reference` is, too.
    """

    row: NDArray[np.intp]
    step: NDArray[np.intp]
    target_ms: NDArray[np.int64]
    actual: NDArray[np.float64]
    reference: NDArray[np.float64]
    near_onset: Values

    @classmethod
    def of(cls, issues: Issues, scored: Scored, interval_ms: int, wanted: Export) -> "_Rows":
        """Those that are wanted, by issue, sensor and horizon."""
        ahead = interval_ms * np.arange(1, issues.horizons + 1)
        targets = issues.issued_ms[:, None] + ahead
        truth = scored.truth
        ticks, sensors = truth.places(targets, issues.sensor_no)
        chosen = (ticks >= 0) | wanted.pending
        if wanted.horizon_minutes is not None:
            chosen &= ahead == wanted.horizon_minutes * 60_000
        row, step = np.nonzero(chosen)
        tick, sensor = ticks[row, step], sensors[row]
        there = (tick >= 0) & (sensor >= 0)
        actual, reference = (
            _looked_up(grid, tick, sensor, there) for grid in (scored.truth.speed, scored.truth.reference)
        )
        return cls(row, step, targets[row, step], actual, reference, _near_onset(scored, tick, sensor))

    def states(self) -> Values:
        """The states of congestion."""
        found: list[int] = states(self.actual, self.reference).tolist()
        unknown: list[bool] = np.isnan(self.actual).tolist()
        return [None if none else STATES[i] for i, none in zip(found, unknown, strict=True)]


def _looked_up(
    grid: NDArray[np.float32], tick: NDArray[np.intp], sensor: NDArray[np.intp], there: NDArray[np.bool_]
) -> NDArray[np.float64]:
    values = np.full(len(tick), np.nan)
    values[there] = exact(grid[tick[there], sensor[there]])
    return values


def _near_onset(scored: Scored, tick: NDArray[np.intp], sensor: NDArray[np.intp]) -> Values:
    """Unknown for what was not scored so yet."""
    if not len(scored.onset_known):
        return [None] * len(tick)
    known = (tick >= 0) & scored.onset_known[tick]
    near = (sensor >= 0) & known
    near[near] = scored.near_onset[tick[near], sensor[near]]
    return [flag if told else None for flag, told in zip(near.tolist(), known.tolist(), strict=True)]


def _table(
    context: ApiContext, wanted: Export, publishers: Mapping[int, tuple[str, str]], issues: Issues, scored: Scored
) -> list[Values]:
    """The columns of these issues' rows. publishers: name and version by number."""
    interval_ms, factor = context.interval_s * 1000, context.units.speed_per_mph
    rows = _Rows.of(issues, scored, interval_ms, wanted)
    at, nothing = (rows.row, rows.step), np.full(len(rows.row), np.nan)
    models = [publishers[number] for number in issues.model_no[rows.row].tolist()]
    candidates = [issues.candidates[name][at] if name in issues.candidates else nothing for name in wanted.names]
    quantiles = issues.quantiles[at]
    told = [issues.speed[at], *quantiles.T, issues.tolerance[at], rows.actual, rows.reference, *candidates]
    decimals = DECIMALS if factor == 1 else CONVERTED_DECIMALS
    speed, *speeds = (rounded(exact(values), decimals, factor) for values in told)
    levels, (tolerance, actual, reference, *others) = speeds[: len(QUANTILE_NAMES)], speeds[len(QUANTILE_NAMES) :]
    return [
        issues.issued_ms[rows.row].tolist(),
        rows.target_ms.tolist(),
        [context.state.sensors[number].sensor_id for number in issues.sensor_no[rows.row].tolist()],
        ((rows.step + 1) * (interval_ms // 60_000)).tolist(),
        [name for name, _ in models],
        [version for _, version in models],
        [speed_unit(context.units)] * len(models),
        speed,
        *levels,
        rounded(issues.confidence[at], CONFIDENCE_DECIMALS),
        tolerance,
        actual,
        reference,
        rows.states(),
        rows.near_onset,
        *others,
    ]
