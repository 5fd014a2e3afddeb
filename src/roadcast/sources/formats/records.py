"""Text with one reading a row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import VARIABLES, Rejection
from roadcast.domain.sensor import EXPECTED_CODE, is_code
from roadcast.sources.formats.clock import LocalClock, parse_iso
from roadcast.sources.formats.screening import Block
from roadcast.sources.formats.source_file import CHUNK_CELLS
from roadcast.sources.formats.text import numbers, row_blocks, squared


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each row holds what. columns: by variable; parse: reads a stamp, or raises ValueError."""

    width: int
    sensor: int
    stamp: int
    columns: Mapping[str, int]
    parse: Callable[[str], datetime] = parse_iso


@dataclass(frozen=True, slots=True)
class Records:
    """Some rows as columns: each row's texts, and the block that they make."""

    fields: Sequence[tuple[str, ...]]
    block: Block


def record_blocks(rows: Iterator[list[str]], layout: Layout, clock: LocalClock) -> Iterator[Records]:
    """The rows in blocks that do not split a time stamp."""
    rows_before = 0
    for block in row_blocks(rows, CHUNK_CELLS, layout.stamp):
        yield _records(block, layout, clock, rows_before)
        rows_before += len(block)


def _records(rows: list[list[str]], layout: Layout, clock: LocalClock, rows_before: int) -> Records:
    rows, refused = squared(rows, layout.width, rows_before)
    fields = list(zip(*rows, strict=True))
    names = [name.strip() for name in fields[layout.sensor]]
    times = clock.read_texts(fields[layout.stamp], names, layout.parse)
    codes = {name for name in set(names) if is_code(name)}
    unnamed = {i: EXPECTED_CODE for i, name in enumerate(names) if name not in codes}
    for field, texts, reasons in (("sensor_id", names, unnamed), ("timestamp", fields[layout.stamp], times.refused)):
        for i, reason in reasons.items():
            refused.setdefault(i, Rejection(rows_before + 1 + i, field, texts[i], reason))
    return Records(fields, _block(names, times.at_ms, *_values(fields, layout), rows_before, refused))


def _block(
    names: list[str],
    at_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    texts: Mapping[tuple[int, int], str],
    rows_before: int,
    refused: Mapping[int, Rejection],
) -> Block:
    numbered = {name: number for number, name in enumerate(dict.fromkeys(names))}
    refused_rows = np.zeros(len(names), dtype=np.bool_)
    refused_rows[list(refused)] = True
    return Block(
        codes=list(numbered),
        row=np.arange(rows_before + 1, rows_before + len(names) + 1),
        sensor=np.array([numbered[name] for name in names], dtype=np.int32),
        at_ms=at_ms,
        values=values,
        refused=refused_rows,
        rejections=list(refused.values()),
        texts=texts,
    )


def _values(
    fields: Sequence[tuple[str, ...]], layout: Layout
) -> tuple[NDArray[np.float64], dict[tuple[int, int], str]]:
    values = np.full((len(fields[0]), len(VARIABLES)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    for variable, column in layout.columns.items():
        at = VARIABLES.index(variable)
        values[:, at], odd = numbers(fields[column])
        texts |= {(i, at): text for i, text in odd.items()}
    return values, texts
