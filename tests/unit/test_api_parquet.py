"""Parquet files that are written while others are, and while nobody reads them."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine

import numpy as np
import pytest
from arro3.io import read_parquet
from starlette.requests import ClientDisconnect

from roadcast.api import parquet
from roadcast.api.parquet import Table, written

COLUMNS = {"horizon_minutes": "integer", "predicted_speed": "real"}
ROWS = 50_000


def a_table() -> Table:
    """That does not compress."""
    return [list(range(ROWS)), np.random.default_rng(5).random(ROWS).tolist()]


async def tables(count: int) -> AsyncIterator[Table]:
    """Made in the threads that everybody shares, as those of an export are."""
    for _ in range(count):
        yield await asyncio.to_thread(a_table)


async def whole() -> int:
    """The rows of a file of four tables."""
    content = b"".join([piece async for piece in written(tables(4), COLUMNS)])
    return read_parquet(content).read_all().num_rows


def within(seconds: float, work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, seconds))


def test_more_files_than_threads_come_to_their_end():
    async def go() -> None:
        count = (os.cpu_count() or 1) + 5
        assert await asyncio.gather(*(whole() for _ in range(count))) == [4 * ROWS] * count

    within(30, go())


def test_a_client_that_leaves_frees_its_thread():
    async def go() -> None:
        for _ in range(5):
            pieces = written(tables(1000), COLUMNS)
            assert [await anext(pieces) for _ in range(2)]
            await pieces.aclose()
        assert await whole() == 4 * ROWS

    within(30, go())


def test_an_end_waits_for_nobody_who_takes_nothing():
    pieces = written(tables(1000), COLUMNS)

    async def go() -> None:
        assert await anext(pieces)
        await asyncio.sleep(0.2)

    ending = threading.Thread(target=lambda: asyncio.run(go()), daemon=True)  # which cancels what is under way
    ending.start()
    ending.join(20)
    assert not ending.is_alive()


def test_a_file_that_nobody_takes_is_cut_and_frees_its_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "STALLED_S", 0.2)

    async def go() -> None:
        stalled = [written(tables(1000), COLUMNS) for _ in range(4)]
        for pieces in stalled:
            assert await anext(pieces)
        assert await whole() == 4 * ROWS
        everyone = threading.Barrier(4)  # which only all four threads together pass: none is held any more
        await asyncio.gather(*(asyncio.wrap_future(parquet._WRITERS.submit(everyone.wait)) for _ in range(4)))
        for pieces in stalled:
            with pytest.raises(ClientDisconnect):
                [piece async for piece in pieces]

    within(30, go())
