"""The one place where cells become readings, rejections or missing values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import MOST, VARIABLES, ReadingBatch, Rejection
from roadcast.sources.formats.source_file import Chunk, Notes
from roadcast.sources.formats.units import Meaning


@dataclass(frozen=True, slots=True)
class Block:
    """Cells as a file gives them.

    codes: sensors; row: [n] data row numbers; sensor: [n] index into codes; at_ms: [n]; values: [n, 4] in the
    file's units, NaN where missing, infinite where not a number. refused: [n], cells whose row is refused, for
    the reasons in `rejections`. texts: what stood in the cells that are not numbers, by position and variable.
    """

    codes: Sequence[str]
    row: NDArray[np.int64]
    sensor: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    refused: NDArray[np.bool_]
    rejections: list[Rejection]
    texts: Mapping[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])


def screen(block: Block, meaning: Meaning, notes: Notes) -> Chunk:
    """Convert a block to inner units and tell readings from missing and impossible values."""
    raw = _without_codes(block, meaning, notes)
    values = raw * meaning.factors
    present = ~np.isnan(values)
    bad = present & ((values < 0) | (values > np.array(MOST)))
    impossible = bad.any(axis=1) & ~block.refused
    rejected = block.refused | impossible
    keep = ~rejected & present.any(axis=1)
    _note_units(present & keep[:, np.newaxis], meaning, notes)
    rejections = block.rejections + [_rejection(block, bad, meaning, i) for i in np.flatnonzero(impossible).tolist()]
    cells = ReadingBatch(block.codes, block.sensor, block.at_ms, np.where(bad, np.nan, values).astype(np.float32))
    return Chunk(
        batch=cells.take(keep),
        rejections=sorted(rejections, key=lambda rejection: rejection.index),
        rejected=int(rejected.sum()),
        missing=int((~rejected & ~keep).sum()),
        rows=len(keep),
    )


def _without_codes(block: Block, meaning: Meaning, notes: Notes) -> NDArray[np.float64]:
    """The values with the file's code for missing replaced by NaN."""
    if not meaning.zero_is_missing:
        return block.values
    zero = (block.values == 0) & ~block.refused[:, np.newaxis]
    if count := int(zero.sum()):
        notes["zeros read as missing"] += count
    return np.where(zero, np.nan, block.values)


def _note_units(present: NDArray[np.bool_], meaning: Meaning, notes: Notes) -> None:
    inner = Meaning().units
    for column, count in enumerate(present.sum(axis=0).tolist()):
        if count and meaning.units[column] != inner[column]:
            notes[f"{VARIABLES[column]} {meaning.units[column]} → {inner[column]}"] += count


def _rejection(block: Block, bad: NDArray[np.bool_], meaning: Meaning, at: int) -> Rejection:
    """Why the cell at position `at` is refused: its first bad variable."""
    column = int(bad[at].argmax())
    text = block.texts.get((at, column))
    value = float(block.values[at, column]) if text is None else text
    expected = meaning.expected(column) if text is None else "a number"
    sensor = block.codes[block.sensor[at]]
    return Rejection(int(block.row[at]), VARIABLES[column], value, f"expected {expected} (sensor {sensor})")
