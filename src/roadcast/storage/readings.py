"""Readings: the one door in, and the ways to read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import VARIABLES
from roadcast.domain.times import DAY_MS, from_ms, to_ms
from roadcast.storage.copy import copy_in, copy_out, integers, reals, timestamps
from roadcast.storage.engine import Reader, Writer
from roadcast.storage.partitions import Partitions

_KEY = [("ts", "timestamptz"), ("sensor_no", "int4")]
_VALUES = [(name, "float4") for name in VARIABLES]
_SELECT_VALUES = ", ".join(f"coalesce({name}, 'NaN') AS {name}" for name in VARIABLES)
_LIST = ", ".join(VARIABLES)


class Outcome(IntEnum):
    """What became of a row."""

    FRESH = 0
    CORRECTION = 1
    DUPLICATE = 2


@dataclass(frozen=True, slots=True)
class Rows:
    """Stored readings as columns: ts_ms [n], sensor_no [n], values [n, 4], received_ms [n]."""

    ts_ms: NDArray[np.int64]
    sensor_no: NDArray[np.int32]
    values: NDArray[np.float32]
    received_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts_ms)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Rows":
        """The rows at `index`."""
        return Rows(self.ts_ms[index], self.sensor_no[index], self.values[index], self.received_ms[index])


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did: `outcome` [n] of each row given, the rows now `added`, and those taken away (`removed`)."""

    outcome: NDArray[np.int8]
    added: Rows
    removed: Rows


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where rows [n, 4] hold the same values; missing equals missing."""
    return np.all((a == b) | (np.isnan(a) & np.isnan(b)), axis=1)


async def write(writer: Writer, rows: Rows, partitions: Partitions) -> Written:
    """Store rows in the order given: a new key is fresh, other values correct it, the same values are a duplicate.

    What a correction replaces moves to the revisions. Days are locked in ascending order, so that writers of the
    same days wait for each other and cannot deadlock.
    """
    days = np.unique(rows.ts_ms // DAY_MS)
    await _lock(writer, days)
    stored = await _stored(writer, rows)
    order = np.lexsort((np.arange(len(rows)), rows.sensor_no, rows.ts_ms))
    chain = rows.take(order)
    first = np.ones(len(rows), np.bool_)
    first[1:] = (np.diff(chain.ts_ms) != 0) | (np.diff(chain.sensor_no) != 0)
    before, known = _before(chain, first, stored)
    duplicate = known & _same(chain.values, before.values)
    outcome = np.empty(len(rows), np.int8)
    outcome[order] = np.where(duplicate, Outcome.DUPLICATE, np.where(known, Outcome.CORRECTION, Outcome.FRESH))
    changed = ~duplicate
    last = _last_change(first, changed)
    added = chain.take(last)
    replaced = changed & known
    removed = stored.take(_positions(stored, added)[1])
    await partitions.ensure(writer, {date(1970, 1, 1) + timedelta(days=int(day)) for day in days})
    await _store(writer, added, removed)
    await _revise(writer, before.take(replaced), chain.received_ms[replaced])
    return Written(outcome, added, removed)


async def _lock(writer: Writer, days: NDArray[np.int64]) -> None:
    await writer.run(
        "SELECT pg_advisory_xact_lock(hashtext('readings'), day) FROM unnest(CAST(:days AS integer[])) AS day",
        days=days.tolist(),
    )


async def _stored(writer: Writer, rows: Rows) -> Rows:
    """What is stored under the keys of `rows` (and perhaps other keys of the same times and sensors)."""
    return await _copy(
        writer,
        "ts = ANY(%(ts)s) AND sensor_no = ANY(%(sensors)s)",
        ts=[from_ms(at) for at in np.unique(rows.ts_ms).tolist()],
        sensors=np.unique(rows.sensor_no).tolist(),
    )


async def _copy(reader: Reader, where: str, **parameters: object) -> Rows:
    select = f"SELECT ts, sensor_no, {_SELECT_VALUES}, received_at FROM readings WHERE {where} ORDER BY ts, sensor_no"
    return await _fetch(reader, select, parameters)


async def _fetch(reader: Reader, select: str, parameters: Mapping[str, object]) -> Rows:
    """Run a select of ts, sensor_no, the values and received_at."""
    got = await copy_out(reader, select, [*_KEY, *_VALUES, ("received_at", "timestamptz")], parameters)
    values = np.stack([got[name] for name in VARIABLES], axis=1)
    return Rows(got["ts"], got["sensor_no"], values, got["received_at"])


def _positions(stored: Rows, wanted: Rows) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which keys of `wanted` are in `stored` (sorted by key), and where those are."""

    def key(rows: Rows) -> NDArray[np.void]:
        keys = np.empty(len(rows), dtype=[("ts", ">i8"), ("no", ">i4")])
        keys["ts"], keys["no"] = rows.ts_ms, rows.sensor_no
        return keys.view("V12")  # big-endian bytes sort like the times from 1970 on that they stand for

    have, want = key(stored), key(wanted)
    at = np.searchsorted(have, want)
    found = np.zeros(len(want), np.bool_)
    inside = at < len(have)
    found[inside] = have[at[inside]] == want[inside]
    return found, at[found]


def _before(chain: Rows, first: NDArray[np.bool_], stored: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """For each row of `chain` (sorted by key) what its key held before it, and whether it held anything."""
    known = ~first
    index = np.maximum(np.arange(len(chain)) - 1, 0)
    values, received = chain.values[index].copy(), chain.received_ms[index].copy()
    found, at = _positions(stored, chain.take(first))
    heads = np.flatnonzero(first)[found]
    known[heads] = True
    values[heads], received[heads] = stored.values[at], stored.received_ms[at]
    return Rows(chain.ts_ms, chain.sensor_no, values, received), known


def _last_change(first: NDArray[np.bool_], changed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Of each key's rows the last that changed it."""
    keys = np.cumsum(first)
    index = np.flatnonzero(changed)
    following = np.append(keys[index][1:], -1)
    return index[keys[index] != following]


async def _store(writer: Writer, added: Rows, removed: Rows) -> None:
    """Put `added` in place of `removed`, whose keys are among those of `added`."""
    if len(removed):
        await writer.run(
            """DELETE FROM readings r USING unnest(CAST(:ts AS timestamptz[]), CAST(:sensors AS integer[])) k(ts, no)
            WHERE r.ts = k.ts AND r.sensor_no = k.no""",
            ts=[from_ms(at) for at in removed.ts_ms.tolist()],
            sensors=removed.sensor_no.tolist(),
        )
    if len(added):
        columns = zip(VARIABLES, added.values.T, strict=True)
        await copy_in(
            writer,
            "readings",
            {
                "ts": timestamps(added.ts_ms),
                "sensor_no": integers(added.sensor_no),
                **{name: reals(column) for name, column in columns},
                "received_at": timestamps(added.received_ms),
            },
        )


async def _revise(writer: Writer, replaced: Rows, replaced_ms: NDArray[np.int64]) -> None:
    if len(replaced):
        columns = zip(VARIABLES, replaced.values.T, strict=True)
        await copy_in(
            writer,
            "reading_revisions",
            {
                "ts": timestamps(replaced.ts_ms),
                "sensor_no": integers(replaced.sensor_no),
                **{name: reals(column) for name, column in columns},
                "received_at": timestamps(replaced.received_ms),
                "replaced_at": timestamps(replaced_ms),
            },
        )


async def between(reader: Reader, after_ms: int, until_ms: int, sensor_no: int | None = None) -> Rows:
    """All readings in (after, until], by time and sensor number."""
    where = "ts > %(after)s AND ts <= %(until)s"
    where += "" if sensor_no is None else " AND sensor_no = %(sensor)s"
    return await _copy(reader, where, after=from_ms(after_ms), until=from_ms(until_ms), sensor=sensor_no)


async def span(reader: Reader) -> tuple[int, int] | None:
    """The first and last time stored, or None where there is nothing."""
    row = await reader.row("SELECT min(tick_end) AS first, max(tick_end) AS last FROM ticks")
    return None if row is None or row["first"] is None else (to_ms(row["first"]), to_ms(row["last"]))


async def latest(reader: Reader, as_of: datetime | None = None) -> Rows:
    """The newest reading of every sensor: as stored, or as known at `as_of`.

    Local days, from the newest on, say in which partitions to look; each lies within those of UTC around it.
    """
    known = "" if as_of is None else "AND r.ts <= %(as_of)s"
    begun = "" if as_of is None else "AND d.day <= (%(as_of)s AT TIME ZONE 'UTC')::date + 1"
    select = f"""SELECT l.ts, s.sensor_no, {_SELECT_VALUES}, l.received_at
      FROM sensors s, LATERAL (
        SELECT newest.* FROM sensor_days d, LATERAL (
          SELECT * FROM {"readings" if as_of is None else _AS_OF} r
          WHERE r.sensor_no = d.sensor_no AND r.ts > d.day - 2 AND r.ts < d.day + 3 {known}
          ORDER BY r.ts DESC LIMIT 1) newest
        WHERE d.sensor_no = s.sensor_no {begun} ORDER BY d.day DESC LIMIT 1) l
      ORDER BY s.sensor_no"""
    return await _fetch(reader, select, {"as_of": as_of})


_AS_OF = f"""(
  SELECT ts, sensor_no, {_LIST}, received_at FROM readings WHERE received_at <= %(as_of)s
  UNION ALL SELECT ts, sensor_no, {_LIST}, received_at FROM reading_revisions
  WHERE received_at <= %(as_of)s AND replaced_at > %(as_of)s)"""


async def page(
    reader: Reader,
    *,
    since: datetime,
    until: datetime,
    limit: int,
    sensor_no: int | None = None,
    before: tuple[datetime, int] | None = None,
    as_of: datetime | None = None,
) -> Rows:
    """Readings in (since, until], newest first and within a time by sensor number.

    `before` is the last key (time, sensor number) of the page before.
    """
    where = ["r.ts > %(since)s", "r.ts <= %(until)s"]
    where += ["r.sensor_no = %(sensor)s"] if sensor_no is not None else []
    where += ["(r.ts < %(ts)s OR (r.ts = %(ts)s AND r.sensor_no > %(no)s))"] if before else []
    source = "readings" if as_of is None else _AS_OF
    select = f"""SELECT ts, sensor_no, {_SELECT_VALUES}, received_at FROM {source} r
      WHERE {" AND ".join(where)} ORDER BY r.ts DESC, r.sensor_no LIMIT %(limit)s"""
    parameters = {
        "since": since,
        "until": until if before is None else min(until, before[0]),
        "limit": limit,
        "sensor": sensor_no,
        "ts": before[0] if before else None,
        "no": before[1] if before else None,
        "as_of": as_of,
    }
    return await _fetch(reader, select, parameters)


async def one(reader: Reader, sensor_no: int, ts: datetime) -> Rows:
    """The reading of one sensor at one time, as zero or one row."""
    return await _copy(reader, "ts = %(ts)s AND sensor_no = %(sensor)s", ts=ts, sensor=sensor_no)


async def forget_rest(writer: Writer, day: date) -> None:
    """Delete what belongs to the readings of UTC days before `day`, whose partitions are dropped."""
    for table, column in (("reading_revisions", "ts"), ("ticks", "tick_end"), ("sensor_days", "day")):
        await writer.run(f"DELETE FROM {table} WHERE {column} < CAST(:day AS date)", day=day)
