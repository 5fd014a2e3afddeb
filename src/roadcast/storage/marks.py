"""Small facts that outlive a restart: the feed and its clock, how far a loop has come, what the rollups assume."""

from datetime import datetime

from roadcast.domain.clock import Feed
from roadcast.storage.engine import Reader, Writer


async def feed(reader: Reader) -> Feed | None:
    """The feed as last stored."""
    row = await reader.row("SELECT name, replayed, simulated, reached_at FROM feed")
    return Feed(**row) if row else None


async def set_feed(writer: Writer, feed: Feed) -> None:
    """Store what feeds the system."""
    await writer.run(
        """INSERT INTO feed (name, replayed, simulated, reached_at) VALUES (:name, :replayed, :simulated, :reached_at)
        ON CONFLICT (only_row) DO UPDATE SET name = excluded.name, replayed = excluded.replayed,
          simulated = excluded.simulated, reached_at = excluded.reached_at""",
        name=feed.name,
        replayed=feed.replayed,
        simulated=feed.simulated,
        reached_at=feed.reached_at,
    )


BEGAN = "began"
"""The mark of the window before the first one that the feed has sent."""
FITTED = "fitted"
"""The mark of the window that the forecasters in service learnt up to."""
TRAINED = "trained"
"""The mark of the last training of a model, by the feed's clock."""


async def mark(reader: Reader, name: str) -> datetime | None:
    """How far the loop `name` has come."""
    value: datetime | None = await reader.value("SELECT at FROM marks WHERE name = :name", name=name)
    return value


async def set_mark(writer: Writer, name: str, at: datetime) -> None:
    """Say how far the loop `name` has come."""
    await writer.run(
        "INSERT INTO marks (name, at) VALUES (:name, :at) ON CONFLICT (name) DO UPDATE SET at = excluded.at",
        name=name,
        at=at,
    )


async def meta(reader: Reader, key: str) -> str | None:
    """A fact about the stored data."""
    value: str | None = await reader.value("SELECT value FROM meta WHERE key = :key", key=key)
    return value


async def set_meta(writer: Writer, key: str, value: str) -> None:
    """Store a fact about the stored data."""
    await writer.run(
        "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        key=key,
        value=value,
    )
