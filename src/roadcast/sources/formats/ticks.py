"""A file's readings tick by tick, for replay."""

from collections.abc import Callable, Iterator

import numpy as np

from roadcast.domain.reading import ReadingBatch, merge
from roadcast.sources.formats.source_file import Chunk, SourceFile


def _ignore(_: Chunk) -> None:
    pass


def ticks(source: SourceFile, on_chunk: Callable[[Chunk], None] = _ignore) -> Iterator[tuple[int, ReadingBatch]]:
    """The readings of each time stamp with that stamp, in time order.

    The file is read once through before the first tick, and `on_chunk` hears of every chunk then, so that bad
    rows are known before anything is sent. Where it is not in time order its readings are sorted in memory,
    which `source.conversions` says.
    """
    if _in_time_order(source, on_chunk):
        batches = (chunk.batch for chunk in source.chunks())
    else:
        batches = iter([_sorted(source)])
    for batch in batches:
        yield from _by_time(batch)


def _in_time_order(source: SourceFile, on_chunk: Callable[[Chunk], None]) -> bool:
    """Whether times never go back, and no two chunks share one."""
    ordered, last = True, None
    for chunk in source.chunks():
        on_chunk(chunk)
        at_ms = chunk.batch.at_ms
        if len(at_ms):
            ordered = ordered and (last is None or last < at_ms[0]) and bool((np.diff(at_ms) >= 0).all())
            last = at_ms[-1]
    return ordered


def _sorted(source: SourceFile) -> ReadingBatch:
    """All readings of a file by time; those of one time stay in the file's order."""
    batch = merge([chunk.batch for chunk in source.chunks()])
    order = np.argsort(batch.at_ms, kind="stable")
    source.notes["readings sorted in memory, since the file is not in time order"] = len(order)
    return ReadingBatch(batch.codes, batch.sensor[order], batch.at_ms[order], batch.values[order])


def _by_time(batch: ReadingBatch) -> Iterator[tuple[int, ReadingBatch]]:
    """A batch in time order, cut at each change of time."""
    cuts = (np.flatnonzero(np.diff(batch.at_ms)) + 1).tolist()
    for start, stop in zip([0, *cuts], [*cuts, len(batch)], strict=True):
        if stop > start:
            part = slice(start, stop)
            yield (
                int(batch.at_ms[start]),
                ReadingBatch(batch.codes, batch.sensor[part], batch.at_ms[part], batch.values[part]),
            )
