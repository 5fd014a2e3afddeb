"""Issued forecasts: one row per issue and sensor, arrays over the horizons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.forecast import QUANTILES
from roadcast.domain.times import from_ms, to_ms
from roadcast.storage.copy import copy_in, copy_out, integers, real_arrays, timestamps
from roadcast.storage.engine import Reader, Row, Writer
from roadcast.storage.partitions import Partitions


@dataclass(frozen=True, slots=True)
class IssuedRows:
    """One issue over the network as columns; NaN where unknown.

    sensor_no, age_ticks [S]; speed, volume, confidence, tolerance [S, H]; quantiles [S, H, 7];
    candidates: the medians [S, H] of every forecaster, for scoring beside.
    """

    issued_ms: int
    model: str
    version: str
    sensor_no: NDArray[np.int32]
    age_ticks: NDArray[np.int32]
    speed: NDArray[np.float32]
    volume: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    candidates: Mapping[str, NDArray[np.float32]]


async def store(writer: Writer, issue: IssuedRows, partitions: Partitions) -> None:
    """Store an issue; one of the same time is replaced."""
    issued_at = from_ms(issue.issued_ms)
    n = len(issue.sensor_no)
    await partitions.ensure(writer, {issued_at.date()})
    await writer.run("DELETE FROM forecasts WHERE issued_at = :at", at=issued_at)
    number = await model_no(writer, issue.model, issue.version, list(issue.candidates))
    candidates = np.concatenate(list(issue.candidates.values()), axis=1)
    await copy_in(
        writer,
        "forecasts",
        {
            "issued_at": timestamps(np.full(n, issue.issued_ms, np.int64)),
            "sensor_no": integers(issue.sensor_no),
            "model_no": integers(np.full(n, number, np.int32)),
            "age_ticks": integers(issue.age_ticks),
            "speed": real_arrays(issue.speed),
            "volume": real_arrays(issue.volume),
            "confidence": real_arrays(issue.confidence),
            "tolerance": real_arrays(issue.tolerance),
            "quantiles": real_arrays(issue.quantiles.reshape(n, issue.speed.shape[1] * len(QUANTILES))),
            "candidates": real_arrays(candidates),
        },
    )


async def model_no(writer: Writer, name: str, version: str, candidates: list[str]) -> int:
    """The number of what made an issue; the candidates are the forecasters beside it."""
    key = {"name": name, "version": version, "candidates": candidates}
    await writer.run(
        "INSERT INTO models (name, version, candidates) VALUES (:name, :version, :candidates) ON CONFLICT DO NOTHING",
        **key,
    )
    return int(
        await writer.value(
            "SELECT model_no FROM models WHERE name = :name AND version = :version AND candidates = :candidates", **key
        )
    )


async def newest(reader: Reader, as_of: datetime | None = None, before: datetime | None = None) -> IssuedRows | None:
    """The newest issue, of those not later than `as_of` and earlier than `before`."""
    at = await reader.value(
        """SELECT max(issued_at) FROM forecasts WHERE issued_at <= coalesce(:as_of, CAST('infinity' AS timestamptz))
        AND issued_at < coalesce(:before, CAST('infinity' AS timestamptz))""",
        as_of=as_of,
        before=before,
    )
    return None if at is None else await issued(reader, at)


async def issued(reader: Reader, at: datetime, sensor_no: int | None = None) -> IssuedRows | None:
    """The issue of a time, over the network or of one sensor; None where there is none."""
    rows = await reader.rows(
        f"""SELECT f.*, m.name AS model, m.version, m.candidates AS names
        FROM forecasts f JOIN models m USING (model_no)
        WHERE issued_at = :at {"" if sensor_no is None else "AND sensor_no = :sensor"} ORDER BY sensor_no""",
        at=at,
        **({} if sensor_no is None else {"sensor": sensor_no}),
    )
    return assemble(rows) if rows else None


def assemble(rows: Sequence[Row]) -> IssuedRows:
    """Rows of one issue, by sensor, with the name, version and candidates of its model."""

    def column(name: str) -> NDArray[np.float32]:
        return np.array([row[name] for row in rows], np.float32)

    speed, names = column("speed"), rows[0]["names"]
    candidates = np.split(column("candidates"), len(names), axis=1) if names else []
    return IssuedRows(
        to_ms(rows[0]["issued_at"]),
        rows[0]["model"],
        rows[0]["version"],
        np.array([row["sensor_no"] for row in rows], np.int32),
        np.array([row["age_ticks"] for row in rows], np.int32),
        speed,
        column("volume"),
        column("confidence"),
        column("tolerance"),
        column("quantiles").reshape(len(rows), -1, len(QUANTILES)),
        dict(zip(names, candidates, strict=True)),
    )


async def newest_time(reader: Reader) -> datetime | None:
    """When the newest issue was made."""
    at: datetime | None = await reader.value("SELECT max(issued_at) FROM forecasts")
    return at


async def span(reader: Reader) -> tuple[datetime, datetime] | None:
    """When the oldest and the newest issue that are kept were made; None where there is none."""
    row = await reader.row("SELECT min(issued_at) AS first, max(issued_at) AS last FROM forecasts")
    return None if row is None or row["first"] is None else (row["first"], row["last"])


async def could_be_issued(reader: Reader, at: datetime) -> bool:
    """Whether the window that ended then has readings or an issue."""
    found = await reader.value(
        """SELECT EXISTS (SELECT FROM ticks WHERE tick_end = :at)
        OR EXISTS (SELECT FROM forecasts WHERE issued_at = :at)""",
        at=at,
    )
    return bool(found)


@dataclass(frozen=True, slots=True)
class Issues:
    """Several issues as rows, one per issue and sensor [n], with arrays over the horizons [n, H]; NaN where unknown.

    low_80, high_80: the ends of the 80 % interval; candidates: of each forecaster its median.
    """

    issued_ms: NDArray[np.int64]
    sensor_no: NDArray[np.int32]
    speed: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]
    low_80: NDArray[np.float32]
    high_80: NDArray[np.float32]
    candidates: Mapping[str, NDArray[np.float32]]


async def between(reader: Reader, since: datetime, before: datetime, horizons: int) -> Issues:
    """The issues from `since` on and before `before`, of so many horizons and with the newest set of candidates."""
    names: list[str] = (
        await reader.value(
            """SELECT m.candidates AS names FROM forecasts JOIN models m USING (model_no)
            WHERE issued_at >= :since AND issued_at < :before ORDER BY issued_at DESC LIMIT 1""",
            since=since,
            before=before,
        )
        or []
    )
    arrays = {"speed": 1, "confidence": 1, "tolerance": 1, "quantiles": len(QUANTILES), "candidates": len(names)}
    rows = await copy_out(
        reader,
        f"""SELECT issued_at, sensor_no, {", ".join(f"f.{name}" for name in arrays)}
        FROM forecasts f JOIN models m USING (model_no)
        WHERE issued_at >= %(since)s AND issued_at < %(before)s
          AND m.candidates = %(names)s AND cardinality(speed) = {horizons}""",
        [
            ("issued_at", "timestamptz"),
            ("sensor_no", "int4"),
            *((name, f"float4[{horizons * times}]") for name, times in arrays.items()),
        ],
        {"since": since, "before": before, "names": names},
    )
    quantiles = rows["quantiles"].reshape(len(rows), horizons, len(QUANTILES))
    medians = rows["candidates"].reshape(len(rows), len(names), horizons)
    speed, confidence, tolerance = (
        rows[name].reshape(len(rows), horizons) for name in ("speed", "confidence", "tolerance")
    )
    return Issues(
        issued_ms=rows["issued_at"],
        sensor_no=rows["sensor_no"],
        speed=speed,
        confidence=confidence,
        tolerance=tolerance,
        low_80=quantiles[:, :, QUANTILES.index(0.10)],
        high_80=quantiles[:, :, QUANTILES.index(0.90)],
        candidates={name: medians[:, i] for i, name in enumerate(names)},
    )


async def issue_times(reader: Reader, after: datetime, until: datetime) -> list[datetime]:
    """When forecasts were issued in (after, until], ascending."""
    rows = await reader.rows(
        "SELECT DISTINCT issued_at FROM forecasts WHERE issued_at > :after AND issued_at <= :until ORDER BY 1",
        after=after,
        until=until,
    )
    return [row["issued_at"] for row in rows]
