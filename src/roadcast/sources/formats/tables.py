"""Tables by sensors: successive times down, sensors across."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import VARIABLES, Rejection
from roadcast.domain.times import from_ms
from roadcast.sources.formats.clock import LocalClock, checked
from roadcast.sources.formats.screening import Block, screen
from roadcast.sources.formats.source_file import CHUNK_CELLS, Chunk, FormatOptions, Notes
from roadcast.sources.formats.units import Meaning

Arrays = Mapping[str, NDArray[np.generic]]
"""What an npz file holds, by name."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in memory or in a file that can be read by rows.

    stamps_ms: [t] milliseconds since 1970, in UTC where `utc`, else on the local clock; values: rows from, to
    → [rows, sensors, 4] in the file's units.
    """

    codes: Sequence[str]
    stamps_ms: NDArray[np.int64]
    utc: bool
    values: Callable[[int, int], NDArray[np.float64]]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return len(self.stamps_ms) * len(self.codes)

    @property
    def interval_s(self) -> int | None:
        """The usual step from one time to the next, in seconds."""
        steps, counts = np.unique(np.diff(self.stamps_ms), return_counts=True)
        usual = int(steps[counts.argmax()]) if len(steps) else 0
        return usual // 1000 if usual > 0 and usual % 1000 == 0 else None

    def chunks(self, options: FormatOptions, meaning: Meaning, notes: Notes) -> Iterator[Chunk]:
        """Its readings, several whole rows at a time."""
        clock = LocalClock(options.zone, notes, options.latest_ms)
        for start, stop in self._spans():
            stamps = self.stamps_ms[start:stop]
            times = checked(stamps, {}, options.latest_ms) if self.utc else clock.read_local(stamps, [""] * len(stamps))
            refused = {
                i: Rejection(start + 1 + i, "timestamp", _wall(int(stamps[i])), reason)
                for i, reason in times.refused.items()
            }
            yield screen(table_block(self.codes, start, times.at_ms, self.values(start, stop), refused), meaning, notes)

    def _spans(self) -> Iterator[tuple[int, int]]:
        """First and last row of each chunk; rows of one time stay together."""
        start, size = 0, rows_per_chunk(self.codes)
        while start < len(self.stamps_ms):
            stop = min(start + size, len(self.stamps_ms))
            while stop < len(self.stamps_ms) and self.stamps_ms[stop] == self.stamps_ms[stop - 1]:
                stop += 1
            yield start, stop
            start = stop


def rows_per_chunk(codes: Sequence[str]) -> int:
    """How many rows of a table make a chunk."""
    return max(1, CHUNK_CELLS // max(1, len(codes)))


def of_variable(cells: NDArray[np.float64], variable: str) -> NDArray[np.float64]:
    """Cells of one variable [rows, sensors] as [rows, sensors, 4]."""
    values = np.full((*cells.shape, len(VARIABLES)), np.nan)
    values[:, :, VARIABLES.index(variable)] = cells
    return values


def table_block(
    codes: Sequence[str],
    rows_before: int,
    at_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    refused: Mapping[int, Rejection],
    *,
    texts: Mapping[tuple[int, int], str] | None = None,
) -> Block:
    """Rows of a table, cell by cell. `values`: [rows, sensors, 4]; `refused`: rows, counted from 0 in this block."""
    rows, sensors = len(at_ms), len(codes)
    refused_rows = np.zeros(rows, dtype=np.bool_)
    refused_rows[list(refused)] = True
    return Block(
        codes=codes,
        row=np.repeat(np.arange(rows_before + 1, rows_before + rows + 1), sensors),
        sensor=np.tile(np.arange(sensors, dtype=np.int32), rows),
        at_ms=np.repeat(at_ms, sensors),
        values=values.reshape(rows * sensors, len(VARIABLES)),
        refused=np.repeat(refused_rows, sensors),
        rejections=list(refused.values()),
        texts=texts or {},
    )


def _wall(stamp_ms: int) -> str:
    """A local stamp as it reads on the clock, or its number where that is no time."""
    return f"{from_ms(stamp_ms):%Y-%m-%d %H:%M:%S}" if 0 <= stamp_ms < 1 << 47 else str(stamp_ms)
