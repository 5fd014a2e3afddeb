"""Changes: what one process does to the store beside those that run on it, and how they hear of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import LiteralString

from roadcast.errors import Unavailable
from roadcast.storage.engine import Database, Writer

CHANNEL: LiteralString = "roadcast_changed"
PAUSE_S = 1.0
GATHER_S = 0.3
"""What is told within this time is one change."""


async def tell(writer: Writer) -> None:
    """Have every system that runs on this store read it again, once the transaction is committed."""
    await writer.run("SELECT pg_notify(:channel, '')", channel=CHANNEL)


async def tell_all(database: Database) -> None:
    """As `tell`, in a transaction of its own."""
    async with database.write() as writer:
        await tell(writer)


class Follower:
    """Calls `on_change` whenever a change was told, and after a gap in which one may have been."""

    def __init__(self, database: Database, on_change: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._on_change = on_change
        self._has_listened = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                await self._changed.wait()
                await asyncio.sleep(GATHER_S)
                self._changed.clear()
                await self._on_change()

    async def _listen(self) -> None:
        while True:
            with suppress(Unavailable):
                async with aclosing(self._database.listen(CHANNEL)) as told:
                    async for _ in told:
                        if self._has_listened:
                            self._changed.set()
                        self._has_listened = True
            await asyncio.sleep(PAUSE_S)
