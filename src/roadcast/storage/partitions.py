"""Daily partitions: made ahead of the rows that need them, dropped by retention. A day is a UTC day."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from roadcast.storage.engine import Database, Reader, Writer

Table = Literal["readings", "forecasts"]

MOST_DAYS = 100
"""Days that one transaction writes to at most: a new one takes nine locks, of PostgreSQL's 6,400 by default."""
DROPPED_AT_ONCE = 50
"""Days that one transaction drops at most."""

_LOCK = """
SELECT pg_advisory_xact_lock(hashtext(:table), day - date '1970-01-01') FROM unnest(CAST(:days AS date[])) AS day
"""
_MISSING = """
SELECT day FROM unnest(CAST(:days AS date[])) AS day
WHERE to_regclass(:table || to_char(day, '_YYYYMMDD')) IS NULL ORDER BY day
"""
_MAKE = """
CREATE TABLE {table}_{day:%Y%m%d} PARTITION OF {table}
FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')
"""
_SCANNED_BYTES = 4 << 20
"""The key of a smaller day (of some 60,000 readings) is read through as fast as an index is searched."""
_UNINDEXED = """
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(:table) AND right(c.relname, 8) < to_char(CAST(:day AS date), 'YYYYMMDD')
  AND pg_relation_size(c.oid) > :bytes AND NOT EXISTS (
    SELECT FROM pg_index x JOIN pg_class n ON n.oid = x.indexrelid
    WHERE x.indrelid = c.oid AND x.indisvalid AND n.relname = c.relname || '_sensor')
ORDER BY c.relname DESC
"""


class Partitions:
    """Makes and drops the partitions of a table.

    Whoever writes to a day or drops it locks it first, days in ascending order, and only then touches the table: so
    nobody drops a day under a writer, and they wait for each other without a deadlock.
    """

    def __init__(self, table: Table) -> None:
        self._table: Table = table

    async def lock(self, writer: Writer, days: Iterable[date]) -> list[date]:
        """Lock `days`, whether there or not, until the transaction ends; the days ascending."""
        ascending = sorted(days)
        await writer.run(_LOCK, table=self._table, days=ascending)
        return ascending

    async def ensure(self, writer: Writer, days: Iterable[date]) -> None:
        """Lock `days` until the transaction ends, and make the partitions that they lack."""
        held = await self.lock(writer, days)
        for row in await writer.rows(_MISSING, table=self._table, days=held):
            day = row["day"]
            await writer.run(_MAKE.format(table=self._table, day=day, next=day + timedelta(days=1)))

    async def days(self, reader: Reader) -> set[date]:
        """The days that have a partition."""
        rows = await reader.rows(
            """SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass(:t)""",
            t=self._table,
        )
        return {datetime.strptime(row["relname"][-8:], "%Y%m%d").replace(tzinfo=UTC).date() for row in rows}

    async def drop_before(self, writer: Writer, day: date) -> list[date]:
        """Drop the oldest partitions of days before `day`, `DROPPED_AT_ONCE` at most; which they were."""
        old = sorted(d for d in await self.days(writer) if d < day)[:DROPPED_AT_ONCE]
        for d in await self.lock(writer, old):
            await writer.run(f"DROP TABLE IF EXISTS {self._table}_{d:%Y%m%d}")
        return old

    async def index_before(self, database: Database, day: date) -> int:
        """Give each large day before `day` an index by sensor and time, which holds up nobody; to how many.

        It makes one sensor's past cheap to read. Days that are still written to do without: it would cost a third of
        the speed of COPY.
        """
        async with database.read() as reader:
            found = await reader.rows(_UNINDEXED, table=self._table, day=day, bytes=_SCANNED_BYTES)
        for row in found:
            name = row["name"]
            await database.run_alone(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_sensor")  # one whose making was cut off
            await database.run_alone(f"CREATE INDEX CONCURRENTLY {name}_sensor ON {name} (sensor_no, ts)")
        return len(found)
