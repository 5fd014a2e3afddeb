"""Which windows are in the scores, and what was taken as truth: so that no target counts twice, and all can be checked.

A window is scored when it has closed. Whether a jam began near it is known later, and is scored then, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import from_ms, to_ms
from roadcast.forecasting.scoring import Truth
from roadcast.storage.copy import copy_in, real_arrays, reals_sent, timestamps
from roadcast.storage.engine import Reader, Row, Writer


@dataclass(frozen=True, slots=True)
class Scored:
    """Scored windows: what was taken as truth, and where [T, S] jams began, as far as that is known [T] by now."""

    truth: Truth
    onset_known: NDArray[np.bool_]
    near_onset: NDArray[np.bool_]


async def lock(writer: Writer) -> None:
    """Wait for whoever else scores, until the transaction ends."""
    await writer.run("SELECT pg_advisory_xact_lock(hashtext('scores'))")


async def due(reader: Reader, after: datetime, until: datetime) -> list[datetime]:
    """The windows that hold readings and end in (after, until], of those that were not scored, ascending."""
    rows = await reader.rows(
        """SELECT tick_end FROM ticks t WHERE tick_end > :after AND tick_end <= :until
        AND NOT EXISTS (SELECT FROM scored_ticks s WHERE s.tick_end = t.tick_end) ORDER BY 1""",
        after=after,
        until=until,
    )
    return [row["tick_end"] for row in rows]


async def onset_due(reader: Reader, until: datetime) -> list[datetime]:
    """The scored windows up to `until` that were not scored as near an onset or not, ascending."""
    rows = await reader.rows(
        "SELECT tick_end FROM scored_ticks WHERE near_onset IS NULL AND tick_end <= :until ORDER BY 1", until=until
    )
    return [row["tick_end"] for row in rows]


async def unscored(writer: Writer, ticks: Sequence[datetime]) -> list[datetime]:
    """Those of these windows that are not scored yet, ascending; once locked, they stay so."""
    rows = await writer.rows(
        """SELECT at FROM unnest(CAST(:ticks AS timestamptz[])) AS at
        WHERE NOT EXISTS (SELECT FROM scored_ticks WHERE tick_end = at) ORDER BY 1""",
        ticks=list(ticks),
    )
    return [row["at"] for row in rows]


async def keep(writer: Writer, truth: Truth) -> None:
    """Say that these windows are scored in this transaction, and with which truth."""
    columns = {"speed": real_arrays(truth.speed), "reference": real_arrays(truth.reference)}
    await copy_in(writer, "scored_ticks", {"tick_end": timestamps(truth.ends_ms), **columns})


async def keep_onsets(writer: Writer, ends_ms: NDArray[np.int64], near: NDArray[np.bool_]) -> None:
    """Say which sensors were near an onset [T, S] in the windows that end so [T], and that they are scored so."""
    found = zip(ends_ms.tolist(), near, strict=True)
    await writer.run_each(
        "UPDATE scored_ticks SET near_onset = CAST(:sensors AS integer[]) WHERE tick_end = :at",
        [{"at": from_ms(at_ms), "sensors": (np.flatnonzero(row) + 1).tolist()} for at_ms, row in found],
    )


async def of_times(reader: Reader, ticks: Sequence[datetime]) -> Scored:
    """These windows, as far as they are scored."""
    rows = await reader.rows(
        """SELECT tick_end, array_send(speed) AS speed, array_send(reference) AS reference, near_onset
        FROM scored_ticks WHERE tick_end = ANY(CAST(:ticks AS timestamptz[])) ORDER BY 1""",
        ticks=list(ticks),
    )
    return _scored(rows)


async def between(reader: Reader, after: datetime, until: datetime) -> Scored:
    """The scored windows that end in (after, until]."""
    rows = await reader.rows(
        """SELECT tick_end, array_send(speed) AS speed, array_send(reference) AS reference, near_onset
        FROM scored_ticks WHERE tick_end > :after AND tick_end <= :until ORDER BY 1""",
        after=after,
        until=until,
    )
    return _scored(rows)


async def of_sensor(reader: Reader, sensor_no: int, after: datetime, until: datetime) -> Scored:
    """The scored windows that end in (after, until], at one sensor alone."""
    rows = await reader.rows(
        """SELECT tick_end, array_send(speed[no : no]) AS speed, array_send(reference[no : no]) AS reference,
          CASE WHEN near_onset IS NOT NULL AND no = ANY(near_onset) THEN ARRAY[no]
          WHEN near_onset IS NOT NULL THEN CAST('{}' AS integer[]) END AS near_onset
        FROM scored_ticks, (SELECT CAST(:no AS integer) AS no) AS asked
        WHERE tick_end > :after AND tick_end <= :until ORDER BY 1""",
        no=sensor_no,
        after=after,
        until=until,
    )
    return _scored(rows, sensor_no)


def _scored(rows: Sequence[Row], first_no: int = 1) -> Scored:
    ends = np.array([to_ms(row["tick_end"]) for row in rows], np.int64)
    speed, reference = (_padded([reals_sent(row[name]) for row in rows]) for name in ("speed", "reference"))
    numbers = np.arange(first_no, first_no + speed.shape[1], dtype=np.int32)
    near = np.zeros(speed.shape, np.bool_)
    for tick, row in enumerate(rows):
        near[tick] = np.isin(numbers, row["near_onset"] or [])
    known = np.array([row["near_onset"] is not None for row in rows], np.bool_)
    return Scored(Truth(ends, numbers, speed, reference), known, near)


def _padded(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Sensors come over time: of earlier windows nothing is known of them."""
    grid = np.full((len(rows), max(map(len, rows), default=0)), np.nan, np.float32)
    for place, row in enumerate(rows):
        grid[place, : len(row)] = row
    return grid


async def forget_rest(writer: Writer) -> None:
    """Forget the truth of windows for which no forecast is kept, and the windows whose readings are dropped."""
    await writer.run(
        """UPDATE scored_ticks SET speed = '{}', reference = '{}', near_onset = '{}'
        WHERE tick_end < (SELECT min(issued_at) FROM forecasts) AND speed <> '{}'"""
    )
    await writer.run("DELETE FROM scored_ticks WHERE tick_end < (SELECT min(tick_end) FROM ticks)")
