"""Daily partitions: made ahead of the rows that need them, dropped by retention. A day is a UTC day."""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

from roadcast.storage.engine import Reader, Writer

Table = Literal["readings", "forecasts"]

_MAKE = """
CREATE TABLE IF NOT EXISTS {table}_{day:%Y%m%d} PARTITION OF {table}
FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')
"""


class Partitions:
    """Makes partitions, remembering those that are known to be committed."""

    def __init__(self, table: Table) -> None:
        self._table: Table = table
        self._known: set[date] = set()

    async def ensure(self, writer: Writer, days: set[date]) -> None:
        """Make the partitions of `days`. Concurrent makers wait for each other."""
        missing = sorted(days - self._known)
        if not missing:
            return
        await writer.run("SELECT pg_advisory_xact_lock(hashtext(:table))", table=f"partitions of {self._table}")
        existing = await self.days(writer)
        for day in missing:
            if day not in existing:
                await writer.run(_MAKE.format(table=self._table, day=day, next=day + timedelta(days=1)))
        self._known |= existing

    async def days(self, reader: Reader) -> set[date]:
        """The days that have a partition."""
        rows = await reader.rows(
            """SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass(:t)""",
            t=self._table,
        )
        return {datetime.strptime(row["relname"][-8:], "%Y%m%d").replace(tzinfo=UTC).date() for row in rows}

    async def drop_before(self, writer: Writer, day: date) -> list[date]:
        """Drop the partitions of days before `day`; which they were."""
        old = sorted(d for d in await self.days(writer) if d < day)
        for d in old:
            await writer.run(f"DROP TABLE {self._table}_{d:%Y%m%d}")
        self._known -= set(old)
        return old
