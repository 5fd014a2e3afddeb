"""Rollups: sums per tick over the network, and per sensor and local day, kept in the readings' own transaction."""

from collections.abc import Sequence
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, from_ms
from roadcast.storage.engine import Reader, Row, Writer
from roadcast.windows import SUMS, Totals

_COLUMNS = ", ".join(SUMS)
_ADDED = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in SUMS)
_ARRAYS = ", ".join(f"CAST(:{name} AS bigint[])" for name in SUMS)
_SUMMED = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SUMS)


def totals(row: Row) -> Totals:
    """The rollup in a row that has every column of `SUMS`."""
    return Totals({name: int(row[name]) for name in SUMS})


def _arrays(sums: NDArray[np.int64]) -> dict[str, list[int]]:
    return {name: sums[:, i].tolist() for i, name in enumerate(SUMS)}


async def add_ticks(
    writer: Writer, tick_ms: NDArray[np.int64], sums: NDArray[np.int64], extremes: NDArray[np.float32]
) -> None:
    """Add sums [n, len(SUMS)] to the ticks [n], and widen their speeds' extremes [n, 2] (NaN: none)."""
    low, high = ([None if np.isnan(x) else float(x) for x in extremes[:, i]] for i in (0, 1))
    await writer.run(
        f"""INSERT INTO ticks AS t (tick_end, {_COLUMNS}, speed_min, speed_max)
        SELECT * FROM unnest(CAST(:ticks AS timestamptz[]), {_ARRAYS}, CAST(:low AS real[]), CAST(:high AS real[]))
        ON CONFLICT (tick_end) DO UPDATE SET {_ADDED},
          speed_min = least(t.speed_min, excluded.speed_min), speed_max = greatest(t.speed_max, excluded.speed_max)""",
        ticks=[from_ms(at) for at in tick_ms.tolist()],
        low=low,
        high=high,
        **_arrays(sums),
    )


async def recompute_extremes(writer: Writer, tick_ms: NDArray[np.int64], interval_ms: int) -> None:
    """Read the extremes of ticks [n] again from the readings: a correction may have taken one away.

    A day at a time, and between constant bounds, which keep all other partitions out of the plan.
    """
    days = (tick_ms - 1) // DAY_MS
    for day in np.unique(days):
        ticks = tick_ms[days == day]
        await writer.run(
            """UPDATE ticks t SET speed_min = r.low, speed_max = r.high
            FROM unnest(CAST(:ticks AS timestamptz[])) AS k(tick_end), LATERAL (
              SELECT min(speed) AS low, max(speed) AS high FROM readings
              WHERE ts > k.tick_end - make_interval(secs => :seconds) AND ts <= k.tick_end
                AND ts > :after AND ts <= :until) r
            WHERE t.tick_end = k.tick_end""",
            ticks=[from_ms(at) for at in ticks.tolist()],
            seconds=interval_ms / 1000,
            after=from_ms(int(ticks.min()) - interval_ms),
            until=from_ms(int(ticks.max())),
        )


async def add_sensor_days(
    writer: Writer, sensor_no: NDArray[np.int32], day: Sequence[str], sums: NDArray[np.int64]
) -> None:
    """Add sums [n, len(SUMS)] to the local days (ISO dates [n]) of sensors [n]."""
    await writer.run(
        f"""INSERT INTO sensor_days AS t (sensor_no, day, {_COLUMNS})
        SELECT * FROM unnest(CAST(:sensors AS integer[]), CAST(:days AS date[]), {_ARRAYS})
        ON CONFLICT (sensor_no, day) DO UPDATE SET {_ADDED}""",
        sensors=sensor_no.tolist(),
        days=list(day),
        **_arrays(sums),
    )


async def days(reader: Reader) -> list[datetime]:
    """The starts of the UTC days that hold ticks, ascending: decades may lie between two of them."""
    rows = await reader.rows(
        """SELECT DISTINCT date_trunc('day', tick_end - interval '1 microsecond', 'UTC') AS start
        FROM ticks ORDER BY start"""
    )
    return [row["start"] for row in rows]


async def has_speeds(reader: Reader, since: datetime) -> bool:
    """Whether any speed was measured after a time."""
    return bool(
        await reader.value("SELECT EXISTS (SELECT FROM ticks WHERE tick_end > :since AND speed_n > 0)", since=since)
    )


async def forget(writer: Writer, day: date) -> None:
    """Take out the ticks of a UTC day and what there is of the same local day, to compute them again."""
    await writer.run(
        "DELETE FROM ticks WHERE tick_end > CAST(:day AS date) AND tick_end <= CAST(:day AS date) + 1", day=day
    )
    await writer.run("DELETE FROM sensor_days WHERE day = :day", day=day)


async def over(reader: Reader, since: datetime, until: datetime) -> tuple[Totals, float | None, float | None]:
    """The network's rollup over (since, until], with the least and greatest speed."""
    row = await reader.row(
        f"""SELECT {_SUMMED}, min(speed_min) AS low, max(speed_max) AS high FROM ticks
        WHERE tick_end > :since AND tick_end <= :until""",
        since=since,
        until=until,
    )
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return totals(row), row["low"], row["high"]


async def by_bucket(reader: Reader, since: datetime, until: datetime, seconds: int) -> list[tuple[datetime, Totals]]:
    """The network's rollups over (since, until] in buckets of whole `seconds`, each with its start."""
    rows = await reader.rows(
        f"""SELECT to_timestamp(ceil(extract(epoch FROM tick_end) / :s) * :s - :s) AS bucket, {_SUMMED}
        FROM ticks WHERE tick_end > :since AND tick_end <= :until GROUP BY 1 ORDER BY 1""",
        since=since,
        until=until,
        s=seconds,
    )
    return [(row["bucket"], totals(row)) for row in rows]


async def by_part(
    reader: Reader, part: str, since: datetime, until: datetime, timezone: str
) -> list[tuple[int, Totals]]:
    """The network's rollups over (since, until] by a part of local time, such as `hour` or `isodow`."""
    rows = await reader.rows(
        f"""SELECT extract({part} FROM (tick_end - interval '1 microsecond') AT TIME ZONE :zone)::integer AS part,
          {_SUMMED} FROM ticks WHERE tick_end > :since AND tick_end <= :until GROUP BY 1 ORDER BY 1""",
        since=since,
        until=until,
        zone=timezone,
    )
    return [(row["part"], totals(row)) for row in rows]


async def by_day(
    reader: Reader, since: datetime, until: datetime, timezone: str, sensor_no: int | None = None
) -> list[tuple[str, Totals]]:
    """Rollups by local date, of the network over (since, until] or of one sensor over those whole days."""
    if sensor_no is None:
        rows = await reader.rows(
            f"""SELECT ((tick_end - interval '1 microsecond') AT TIME ZONE :zone)::date::text AS day, {_SUMMED}
            FROM ticks WHERE tick_end > :since AND tick_end <= :until GROUP BY 1 ORDER BY 1""",
            since=since,
            until=until,
            zone=timezone,
        )
    else:
        rows = await reader.rows(
            f"""SELECT day::text AS day, {_COLUMNS} FROM sensor_days
            WHERE sensor_no = :sensor AND day >= (CAST(:since AS timestamptz) AT TIME ZONE :zone)::date
              AND day <= (CAST(:until AS timestamptz) AT TIME ZONE :zone)::date ORDER BY sensor_days.day""",
            sensor=sensor_no,
            since=since,
            until=until,
            zone=timezone,
        )
    return [(row["day"], totals(row)) for row in rows]


async def windows_by_day(
    reader: Reader, since: datetime, until: datetime, timezone: str, interval_s: int, sensor_no: int | None = None
) -> dict[str, int]:
    """How many windows hold readings, by local date, over (since, until]: the network's, or those of one sensor."""
    if sensor_no is None:
        windows, of_sensor = "SELECT tick_end FROM ticks WHERE tick_end > :since AND tick_end <= :until", {}
    else:
        windows = """SELECT DISTINCT to_timestamp(ceil(extract(epoch FROM ts) / :s) * :s) AS tick_end FROM readings
          WHERE sensor_no = :sensor AND ts > :since AND ts <= :until"""
        of_sensor = {"sensor": sensor_no, "s": interval_s}
    rows = await reader.rows(
        f"""SELECT ((tick_end - interval '1 microsecond') AT TIME ZONE :zone)::date::text AS day, count(*) AS windows
        FROM ({windows}) AS w GROUP BY 1""",
        since=since,
        until=until,
        zone=timezone,
        **of_sensor,
    )
    return {row["day"]: row["windows"] for row in rows}
