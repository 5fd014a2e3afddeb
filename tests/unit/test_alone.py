"""The database's one place, while the database is away."""

import asyncio
import socket
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from roadcast.errors import Unavailable
from roadcast.pipeline.alone import Alone
from roadcast.services import Board
from roadcast.storage.engine import Address, Database


def database(port: int) -> Database:
    address = Address("127.0.0.1", port, "nobody", "nothing", "nowhere")
    return Database.connect(address, pool_size=1, max_overflow=0, timeout_s=2, query_timeout_s=2)


def test_it_is_not_well_between_two_tries_in_vain():
    async def go() -> Board:
        alone, board = Alone(database(1)), Board(lambda: datetime(2026, 3, 2, tzinfo=UTC))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await alone.keep(board)
        return board

    assert asyncio.run(go()).parts == []


def test_who_gives_up_taking_it_leaves_nothing_behind():
    async def go(port: int) -> set[asyncio.Task[None]]:
        before = asyncio.all_tasks()
        taking = asyncio.create_task(Alone(database(port)).begin())
        await asyncio.sleep(0.2)
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
        await asyncio.sleep(0.1)
        return asyncio.all_tasks() - before

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert asyncio.run(go(silent.getsockname()[1])) == set()
