"""Readings: the one door in, and the ways to read them."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
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

STEP_DAYS = 32
"""Local days that a search for the newest readings looks into at once."""


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

    @property
    def since_ms(self) -> NDArray[np.int64]:
        """From when on each counts [n]: its time, or its arrival where the sender's clock runs ahead."""
        return np.minimum(self.ts_ms, self.received_ms)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Rows":
        """The rows at `index`."""
        return Rows(self.ts_ms[index], self.sensor_no[index], self.values[index], self.received_ms[index])


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, in order."""
    columns = [(part.ts_ms, part.sensor_no, part.values, part.received_ms) for part in (NOTHING, *parts)]
    ts_ms, sensor_no, values, received_ms = zip(*columns, strict=True)
    return Rows(np.concatenate(ts_ms), np.concatenate(sensor_no), np.concatenate(values), np.concatenate(received_ms))


NOTHING = Rows(np.empty(0, np.int64), np.empty(0, np.int32), np.empty((0, 4), np.float32), np.empty(0, np.int64))


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

    What a correction replaces moves to the revisions. Writers of the same days wait for each other. The rows may
    lie in `MOST_DAYS` UTC days.
    """
    days = np.unique(rows.ts_ms // DAY_MS).tolist()
    await partitions.ensure(writer, [date(1970, 1, 1) + timedelta(days=day) for day in days])
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
    await _store(writer, added, removed)
    await _revise(writer, before.take(replaced), chain.received_ms[replaced])
    return Written(outcome, added, removed)


async def _stored(writer: Writer, rows: Rows) -> Rows:
    """What is stored under the keys of `rows` (and perhaps other keys of the same times and sensors)."""
    return await _copy(
        writer,
        "ts = ANY(%(ts)s) AND sensor_no = ANY(%(sensors)s)",
        ts=[from_ms(at) for at in np.unique(rows.ts_ms).tolist()],
        sensors=np.unique(rows.sensor_no).tolist(),
    )


async def _copy(reader: Reader, where: str, *, source: str = "readings", **parameters: object) -> Rows:
    select = f"SELECT ts, sensor_no, {_SELECT_VALUES}, received_at FROM {source} r WHERE {where} ORDER BY ts, sensor_no"
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
            WHERE r.ts = k.ts AND r.sensor_no = k.no AND r.ts = ANY(CAST(:times AS timestamptz[]))""",
            ts=[from_ms(at) for at in removed.ts_ms.tolist()],
            times=[from_ms(at) for at in np.unique(removed.ts_ms).tolist()],  # name the partitions
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


async def between(
    reader: Reader,
    after_ms: int,
    until_ms: int,
    numbers: Sequence[int] | None = None,
    as_of: datetime | None = None,
) -> Rows:
    """All readings in (after, until], or those of the sensors `numbers`, by time and sensor number.

    As stored, or as known at `as_of`.
    """
    where = "ts > %(after)s AND ts <= %(until)s"
    where += "" if numbers is None else " AND sensor_no = ANY(%(numbers)s)"
    source = "readings" if as_of is None else _AS_OF
    bounds = {"after": from_ms(after_ms), "until": from_ms(until_ms)}
    return await _copy(reader, where, source=source, **bounds, numbers=numbers, as_of=as_of)


@asynccontextmanager
async def passing(reader: Reader) -> AsyncGenerator[None]:
    """Gives back the locks that reading in the block takes: there are too few for thousands of days in a transaction.

    What is written in the block is undone.
    """
    await reader.value("SELECT 1")  # begins the transaction, where nothing has
    driver = await reader.driver()
    async with driver.transaction(force_rollback=True):
        yield


async def span(reader: Reader) -> tuple[int, int] | None:
    """The ends of the first and of the last window that holds readings, or None where there is nothing."""
    row = await reader.row("SELECT min(tick_end) AS first, max(tick_end) AS last FROM ticks")
    return None if row is None or row["first"] is None else (to_ms(row["first"]), to_ms(row["last"]))


async def newest_tick(reader: Reader, until: datetime) -> int | None:
    """The end of the newest window up to a time that holds readings, or None where there is none."""
    end: datetime | None = await reader.value("SELECT max(tick_end) FROM ticks WHERE tick_end <= :until", until=until)
    return None if end is None else to_ms(end)


async def tick_ends(reader: Reader, after: datetime, before: datetime) -> list[int]:
    """The ends of the windows between two times that hold readings, ascending."""
    rows = await reader.rows(
        "SELECT tick_end FROM ticks WHERE tick_end > :after AND tick_end < :before ORDER BY 1",
        after=after,
        before=before,
    )
    return [to_ms(row["tick_end"]) for row in rows]


async def newest_ms(reader: Reader) -> int | None:
    """From when on the newest reading counts (`Rows.since_ms`), or None where there is nothing."""
    ends = await span(reader)
    if ends is None:
        return None
    window = {"after": from_ms(ends[1] - DAY_MS), "until": from_ms(ends[1])}
    within = "ts > %(after)s AND ts <= %(until)s"
    select = f"""WITH newest AS (
        SELECT least(ts, received_at) AS since FROM readings WHERE {within} ORDER BY ts DESC LIMIT 1)
      SELECT greatest(since, (SELECT max(least(ts, received_at)) FROM readings WHERE ts > since AND {within})) AS ts
      FROM newest"""
    found = await copy_out(reader, select, _KEY[:1], window)
    return int(found["ts"][0]) if len(found) else None


async def latest(reader: Reader, as_of: datetime | None = None) -> Rows:
    """The newest reading of every sensor (`Rows.since_ms`), by sensor number: as stored, or as known at `as_of`.

    Local days, from the newest on, say in which partitions to look. Each step looks into `STEP_DAYS` of them and then
    gives its locks back, since PostgreSQL locks every partition that a plan may touch.
    """
    steps: list[Rows] = []
    found: list[int] = []
    until = date.max if as_of is None else as_of.astimezone(UTC).date() + timedelta(days=1)
    while (day := await _newest_day(reader, until, found)) is not None:
        until = day - timedelta(days=STEP_DAYS)
        async with passing(reader):
            steps.append(await _latest_in(reader, until, day, found, as_of))
        found += steps[-1].sensor_no.tolist()
    together = join(steps)
    return together.take(np.argsort(together.sensor_no))


async def _newest_day(reader: Reader, until: date, found: Sequence[int]) -> date | None:
    """The newest local day up to `until` of which a sensor that is not among `found` has readings."""
    day: date | None = await reader.value(
        """SELECT max(newest.day) FROM sensors s, LATERAL (
          SELECT d.day FROM sensor_days d WHERE d.sensor_no = s.sensor_no AND d.day <= :until
          ORDER BY d.day DESC LIMIT 1) newest
        WHERE NOT EXISTS (SELECT FROM unnest(CAST(:found AS integer[])) AS f(no) WHERE f.no = s.sensor_no)""",
        until=until,
        found=found,
    )
    return day


async def _latest_in(reader: Reader, after: date, until: date, found: Sequence[int], as_of: datetime | None) -> Rows:
    """The newest readings in the local days (after, until] of the sensors that are not among `found`.

    A local day lies within a day of UTC around it. The outer bounds, which are constant, keep all other partitions
    out of the plan.
    """
    source = "readings" if as_of is None else _AS_OF
    within = "r.sensor_no = d.sensor_no AND r.ts > d.day - 1 AND r.ts < d.day + 2"
    within += " AND r.ts > %(first)s AND r.ts < %(last)s"
    since = "least(r.ts, r.received_at)"
    select = f"""SELECT l.ts, s.sensor_no, {_SELECT_VALUES}, l.received_at
      FROM sensors s, LATERAL (
        SELECT newest.* FROM sensor_days d, LATERAL (
          SELECT {since} AS since FROM {source} r WHERE {within} ORDER BY r.ts DESC LIMIT 1) last, LATERAL (
          SELECT r.* FROM {source} r WHERE {within} AND r.ts >= last.since
          ORDER BY {since} DESC, r.ts DESC LIMIT 1) newest
        WHERE d.sensor_no = s.sensor_no AND d.day > %(after)s AND d.day <= %(until)s ORDER BY d.day DESC LIMIT 1) l
      WHERE NOT EXISTS (SELECT FROM unnest(%(found)s::integer[]) AS f(no) WHERE f.no = s.sensor_no)"""
    bounds = {"first": _midnight(after), "last": _midnight(until + timedelta(days=2))}
    return await _fetch(
        reader, select, {"after": after, "until": until, "found": list(found), "as_of": as_of, **bounds}
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


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


async def forget_rest(writer: Writer, day: date) -> None:
    """Delete what belongs to the readings of UTC days before `day`, whose partitions are dropped.

    The local day before may hold hours of `day`, and is left.
    """
    firsts = {"reading_revisions.ts": day, "ticks.tick_end": day, "sensor_days.day": day - timedelta(days=1)}
    for column, first in firsts.items():
        table = column.partition(".")[0]
        await writer.run(f"DELETE FROM {table} WHERE {column} < CAST(:first AS date)", first=first)
