"""Alone: on one database runs one system, as long as its log cannot be shared."""

import asyncio

from roadcast.services import Board, Status
from roadcast.storage.engine import Database

PATIENCE_S = 5.0
"""How long a process that has just ended may take to be gone from the database."""


class Alone:
    """Takes the database's one place, and takes it again where the connection that holds it is lost."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Take the place.

        Raises:
            Conflict: another system has it.
            Unavailable: the database is away.
        """
        self._holding = asyncio.create_task(self._hold())
        waiting = asyncio.create_task(self._held.wait())
        await asyncio.wait({self._holding, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._holding.done():
            await self._holding

    async def keep(self, board: Board) -> None:
        """Hold it until the connection is lost; called again, take it again."""
        if self._holding is None:
            await self.begin()
        board.report("lock", Status.OK)
        holding, self._holding = self._holding, None
        try:
            if holding is not None:
                await holding
        finally:
            if holding is not None:
                holding.cancel()

    async def _hold(self) -> None:
        self._held.clear()
        await self._database.be_alone(self._held.set, PATIENCE_S)
