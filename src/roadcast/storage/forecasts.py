"""Issued forecasts: one row per issue and sensor, arrays over the horizons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.forecast import QUANTILES
from roadcast.domain.times import from_ms, to_ms
from roadcast.forecasting.scoring import Issues
from roadcast.storage.copy import copy_in, copy_out, integers, real_arrays, timestamps
from roadcast.storage.engine import Reader, Row, Writer
from roadcast.storage.partitions import Partitions

ARRAYS = ("speed", "volume", "confidence", "tolerance", "quantiles")
"""What a forecast says, at every horizon."""


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


async def between(
    reader: Reader, since: datetime, before: datetime, numbers: Sequence[int] | None = None
) -> list[Issues]:
    """The issues from `since` on and before `before`, or those of the sensors `numbers`, alike ones together.

    Alike are those of as many horizons for which the same forecasters competed.
    """
    where = "issued_at >= %(since)s AND issued_at < %(before)s"
    where += "" if numbers is None else " AND sensor_no = ANY(%(numbers)s)"
    return await _chosen(reader, where, {"since": since, "before": before, "numbers": numbers})


async def of_sensor(reader: Reader, sensor_no: int, times: Sequence[datetime]) -> list[Issues]:
    """The issues of these times, of one sensor, as `between` gives them; each is looked up by its key."""
    where = "issued_at = ANY(%(times)s) AND sensor_no = %(sensor)s"
    return await _chosen(reader, where, {"times": list(times), "sensor": sensor_no})


async def _chosen(reader: Reader, where: str, parameters: Mapping[str, object]) -> list[Issues]:
    cursor = await (await reader.driver()).execute(
        f"""SELECT m.candidates, f.horizons FROM (
          SELECT DISTINCT model_no, cardinality(speed) AS horizons FROM forecasts WHERE {where}) f
        JOIN models m USING (model_no) GROUP BY 1, 2 ORDER BY 1, 2""",  # pyright: ignore[reportArgumentType]
        parameters,
    )
    kinds = await cursor.fetchall()
    return [await _alike(reader, where, parameters, names, horizons) for names, horizons in kinds]


async def _alike(
    reader: Reader, where: str, parameters: Mapping[str, object], names: Sequence[str], horizons: int
) -> Issues:
    arrays = {"speed": 1, "confidence": 1, "tolerance": 1, "quantiles": len(QUANTILES), "candidates": len(names)}
    rows = await copy_out(
        reader,
        f"""SELECT issued_at, sensor_no, model_no, {", ".join(f"f.{name}" for name in arrays)}
        FROM forecasts f JOIN models m USING (model_no)
        WHERE {where} AND m.candidates = %(names)s AND cardinality(speed) = %(horizons)s""",
        [
            ("issued_at", "timestamptz"),
            ("sensor_no", "int4"),
            ("model_no", "int4"),
            *((name, f"float4[{horizons * times}]") for name, times in arrays.items()),
        ],
        {**parameters, "names": list(names), "horizons": horizons},
    )
    medians = rows["candidates"].reshape(len(rows), len(names), horizons)
    return Issues(
        issued_ms=rows["issued_at"],
        sensor_no=rows["sensor_no"],
        model_no=rows["model_no"],
        **{name: rows[name].reshape(len(rows), horizons) for name in ("speed", "confidence", "tolerance")},
        quantiles=rows["quantiles"].reshape(len(rows), horizons, len(QUANTILES)),
        candidates={name: medians[:, i] for i, name in enumerate(names)},
    )


async def forecaster_numbers(writer: Writer, names: Iterable[str]) -> dict[str, int]:
    """The numbers of forecasters on their own, under which their own values are scored."""
    wanted = sorted(names)
    known = {
        row["name"]: row["model_no"]
        for row in await writer.rows(
            "SELECT name, model_no FROM models WHERE name = ANY(:names) AND version = '' AND candidates = '{}'",
            names=wanted,
        )
    }
    return {name: known.get(name) or await model_no(writer, name, "", []) for name in wanted}


async def publishers(reader: Reader) -> dict[int, tuple[str, str]]:
    """Name and version of every model that has published a forecast, by number."""
    rows = await reader.rows("SELECT model_no, name, version FROM models WHERE candidates <> '{}'")
    return {row["model_no"]: (row["name"], row["version"]) for row in rows}


async def competitors(reader: Reader) -> list[str]:
    """Every forecaster that has competed, by name."""
    rows = await reader.rows("SELECT DISTINCT unnest(candidates) AS name FROM models ORDER BY 1")
    return [row["name"] for row in rows]


async def issue_times(reader: Reader, after: datetime, until: datetime) -> list[datetime]:
    """When forecasts were issued in (after, until], ascending."""
    rows = await reader.rows(
        "SELECT DISTINCT issued_at FROM forecasts WHERE issued_at > :after AND issued_at <= :until ORDER BY 1",
        after=after,
        until=until,
    )
    return [row["issued_at"] for row in rows]
