"""Columns as a Parquet file, row group by row group while they come."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, cast

import numpy as np
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet
from starlette.requests import ClientDisconnect
from typing_extensions import Buffer, override

from roadcast.api.context import MOST_EXPORTS
from roadcast.api.export import STALLED_S

ROW_GROUP = 100_000
"""Rows that the writer holds before it writes them."""
_TIME = DataType.timestamp("ms", tz="UTC")
_TYPES = {
    "time": _TIME,
    "text": DataType.utf8(),
    "integer": DataType.int32(),
    "real": DataType.float64(),
    "flag": DataType.bool(),
}
"""By the kinds of `export.COLUMNS`."""

Table = Sequence[Sequence[object]]

_WRITERS = ThreadPoolExecutor(MOST_EXPORTS, thread_name_prefix="parquet")
"""Threads of their own: a writer waits for tables, which are made in those that everybody shares."""


async def written(tables: AsyncIterator[Table], columns: Mapping[str, str]) -> AsyncGenerator[bytes]:
    """The file, piece by piece. It is written in a thread, which waits for tables and for whoever takes the pieces.

    Raises:
        ClientDisconnect: nobody took a piece for STALLED_S; what was taken is not the whole file.
    """
    pipe = _Pipe(asyncio.get_running_loop())
    writing = asyncio.create_task(_write(tables, columns, pipe))
    try:
        while piece := await pipe.pieces.get():
            yield piece
        await writing
        if pipe.failed:
            raise ClientDisconnect
    finally:
        pipe.leave()
        writing.cancel()


class _Pipe(io.RawIOBase):
    """Hands on what is written to it, once there is room; an empty piece is the end.

    Once nobody takes anything any more it takes everything itself: a writer that may not write would panic.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue(maxsize=2)
        self.left = False
        self.failed = False

    def leave(self) -> None:
        """Nobody takes anything any more: whoever waits goes on."""
        self.left = True
        while not self.pieces.empty():
            self.pieces.get_nowait()

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Buffer, /) -> int:
        piece = bytes(data)
        if piece and not self.left:
            self._put(piece)
        return len(piece)

    def _put(self, piece: bytes) -> None:
        putting = asyncio.run_coroutine_threadsafe(self.pieces.put(piece), self.loop)
        try:
            putting.result(timeout=STALLED_S)
        except TimeoutError:
            putting.cancel()
            self.left = self.failed = True


async def _write(tables: AsyncIterator[Table], columns: Mapping[str, str], pipe: _Pipe) -> None:
    schema = Schema([Field(name, _TYPES[kind]) for name, kind in columns.items()])

    def batches() -> Iterator[RecordBatch]:
        while not pipe.left and (table := asyncio.run_coroutine_threadsafe(_next(tables), pipe.loop).result()):
            arrays = [_array(values, kind) for values, kind in zip(table, columns.values(), strict=True)]
            yield RecordBatch.from_arrays(arrays, schema=schema)  # pyright: ignore[reportUnknownMemberType]

    reader, file = RecordBatchReader.from_batches(schema, batches()), cast("IO[bytes]", pipe)
    write = partial(write_parquet, reader, file, compression="zstd(3)", max_row_group_size=ROW_GROUP)
    try:
        await pipe.loop.run_in_executor(_WRITERS, write)
    except asyncio.CancelledError:
        pipe.leave()  # makes room, so that the end does not wait for a reader who has gone
        raise
    finally:
        await pipe.pieces.put(b"")


async def _next(tables: AsyncIterator[Table]) -> Table | None:
    return await anext(tables, None)


def _array(values: Sequence[object], kind: str) -> Array:
    if kind == "time":
        return Array.from_numpy(np.array(values, np.int64)).cast(_TIME)
    return Array(values, type=_TYPES[kind])
