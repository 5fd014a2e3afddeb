"""Issued forecasts: one row per issue and sensor, arrays over the horizons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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
    model_no = await _model_no(writer, issue.model, issue.version, list(issue.candidates))
    candidates = np.concatenate(list(issue.candidates.values()), axis=1)
    await copy_in(
        writer,
        "forecasts",
        {
            "issued_at": timestamps(np.full(n, issue.issued_ms, np.int64)),
            "sensor_no": integers(issue.sensor_no),
            "model_no": integers(np.full(n, model_no, np.int32)),
            "age_ticks": integers(issue.age_ticks),
            "speed": real_arrays(issue.speed),
            "volume": real_arrays(issue.volume),
            "confidence": real_arrays(issue.confidence),
            "tolerance": real_arrays(issue.tolerance),
            "quantiles": real_arrays(issue.quantiles.reshape(n, -1)),
            "candidates": real_arrays(candidates),
        },
    )


async def _model_no(writer: Writer, name: str, version: str, candidates: list[str]) -> int:
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


async def newest(reader: Reader, as_of: datetime | None = None) -> IssuedRows | None:
    """The newest issue, or the newest known at `as_of`."""
    where = "" if as_of is None else "WHERE issued_at <= :as_of"
    at = await reader.value(f"SELECT max(issued_at) FROM forecasts {where}", **({"as_of": as_of} if as_of else {}))
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
    return _assemble(to_ms(at), rows) if rows else None


def _assemble(issued_ms: int, rows: Sequence[Row]) -> IssuedRows:
    def column(name: str) -> NDArray[np.float32]:
        return np.array([row[name] for row in rows], np.float32)

    speed, names = column("speed"), rows[0]["names"]
    candidates = np.split(column("candidates"), len(names), axis=1)
    return IssuedRows(
        issued_ms,
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


@dataclass(frozen=True, slots=True)
class Due:
    """Forecasts for one target time as columns [n]; horizon counts intervals from 1; NaN where unknown."""

    sensor_no: NDArray[np.int32]
    horizon: NDArray[np.int32]
    speed: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]
    low_80: NDArray[np.float32]
    high_80: NDArray[np.float32]
    candidates: Mapping[str, NDArray[np.float32]]

    def take(self, rows: NDArray[np.bool_]) -> "Due":
        """The forecasts where `rows` [n] is true."""
        candidates = {name: values[rows] for name, values in self.candidates.items()}
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "candidates"}
        return Due(candidates=candidates, **columns)


async def due(reader: Reader, target_ms: int, interval_ms: int, horizons: int) -> Due:
    """The forecasts of earlier issues for one target time, of the newest set of candidates."""
    times = {"target": from_ms(target_ms), "first": from_ms(target_ms - horizons * interval_ms)}
    names: list[str] = (
        await reader.value(
            """SELECT m.candidates AS names FROM forecasts JOIN models m USING (model_no)
        WHERE issued_at >= :first AND issued_at < :target ORDER BY issued_at DESC LIMIT 1""",
            **times,
        )
        or []
    )
    levels = len(QUANTILES)
    low, high = QUANTILES.index(0.10), QUANTILES.index(0.90)
    picks = {
        "speed": "speed[h]",
        "confidence": "confidence[h]",
        "tolerance": "tolerance[h]",
        "low_80": f"quantiles[(h - 1) * {levels} + {low + 1}]",
        "high_80": f"quantiles[(h - 1) * {levels} + {high + 1}]",
        **{f"candidate_{i}": f"forecasts.candidates[{i} * cardinality(speed) + h]" for i in range(len(names))},
    }
    columns = ", ".join(f"coalesce({pick}, 'NaN') AS {name}" for name, pick in picks.items())
    rows = await copy_out(
        reader,
        f"""SELECT sensor_no, h, {columns} FROM forecasts JOIN models m USING (model_no), LATERAL (
          SELECT (extract(epoch FROM %(target)s - issued_at) * 1000 / {interval_ms})::integer AS h) horizon
        WHERE issued_at >= %(first)s AND issued_at < %(target)s AND m.candidates = %(names)s""",
        [("sensor_no", "int4"), ("h", "int4"), *((name, "float4") for name in picks)],
        {**times, "names": names},
    )
    candidates = {name: rows[f"candidate_{i}"] for i, name in enumerate(names)}
    plain = {name: rows[name] for name in ("sensor_no", "speed", "confidence", "tolerance", "low_80", "high_80")}
    return Due(horizon=rows["h"], candidates=candidates, **plain)


async def issue_times(reader: Reader, after: datetime, until: datetime) -> list[datetime]:
    """When forecasts were issued in (after, until], ascending."""
    rows = await reader.rows(
        "SELECT DISTINCT issued_at FROM forecasts WHERE issued_at > :after AND issued_at <= :until ORDER BY 1",
        after=after,
        until=until,
    )
    return [row["issued_at"] for row in rows]
