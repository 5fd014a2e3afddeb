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
        self._holding: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Take the place.

        Raises:
            Conflict: another system has it.
            Unavailable: the database is away.
        """
        self._holding = await self._take()

    async def keep(self, board: Board) -> None:
        """Hold it until the connection is lost; called again, take it again."""
        holding, self._holding = self._holding or await self._take(), None
        if not holding.done():
            board.report("lock", Status.OK)
        try:
            await holding
        finally:
            holding.cancel()

    async def _take(self) -> asyncio.Task[None]:
        """What holds the place for as long as it runs."""
        held = asyncio.Event()
        holding = asyncio.create_task(self._database.be_alone(held.set, PATIENCE_S))
        waiting = asyncio.create_task(held.wait())
        try:
            await asyncio.wait({holding, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            holding.cancel()
            raise
        finally:
            waiting.cancel()
        if holding.done():
            await holding
        return holding
