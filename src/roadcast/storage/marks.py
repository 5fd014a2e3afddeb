"""Small facts that outlive a restart: the feed and its clock, how far a loop has come, what the rollups assume."""

from dataclasses import dataclass
from datetime import datetime

from roadcast.storage.engine import Reader, Writer


@dataclass(frozen=True, slots=True)
class FeedState:
    """What feeds the system. The clock of a replayed feed stands at `clock_at`."""

    name: str
    replayed: bool
    simulated: bool
    clock_at: datetime


async def feed(reader: Reader) -> FeedState | None:
    """The feed as last stored."""
    row = await reader.row("SELECT name, replayed, simulated, clock_at FROM feed")
    return FeedState(**row) if row else None


async def set_feed(writer: Writer, state: FeedState) -> None:
    """Store what feeds the system."""
    await writer.run(
        """INSERT INTO feed (name, replayed, simulated, clock_at) VALUES (:name, :replayed, :simulated, :clock_at)
        ON CONFLICT (only_row) DO UPDATE SET name = excluded.name, replayed = excluded.replayed,
          simulated = excluded.simulated, clock_at = excluded.clock_at""",
        name=state.name,
        replayed=state.replayed,
        simulated=state.simulated,
        clock_at=state.clock_at,
    )


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
