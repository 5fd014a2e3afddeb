"""Text files of separated values, plain or gzipped: rows, and what their cells say."""

import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import Rejection
from roadcast.errors import SourceError

GZIP = b"\x1f\x8b"
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""How text writes a missing value, in small letters."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*", re.ASCII)
_PLAIN = frozenset("0123456789.-")
"""What most numbers are written with: where nothing else occurs, they are read at once."""


def open_text(path: Path) -> TextIO:
    """The file as text, unpacked where it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def delimiter_of(line: str) -> str:
    """What separates the values of a line: comma, semicolon or tab."""
    return max(",;\t", key=line.count)


def data_rows(path: Path, delimiter: str, *, header: bool) -> Iterator[list[str]]:
    """The file's rows, blank lines and the header left out; numbers with a point, which some separate by a comma."""
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            rows = islice((row for row in reader if row), 1 if header else 0, None)
            yield from rows if delimiter == "," else map(_with_points, rows)
        except csv.Error as error:
            raise SourceError(f"{path}: line {reader.line_num}: {error}.", remedy="Look for a stray quote.") from error


def _with_points(row: list[str]) -> list[str]:
    if not any("," in cell for cell in row):
        return row
    return [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in row]


def count_rows(path: Path, *, header: bool) -> int:
    """How many data rows there are, where no cell holds a line's end."""
    with open_text(path) as file:
        return max(0, sum(1 for line in file if line.strip("\r\n")) - header)


def row_blocks(rows: Iterator[list[str]], size: int, stamp: int) -> Iterator[list[list[str]]]:
    """Blocks of about `size` rows, each ending where the text in column `stamp` changes."""
    held: list[list[str]] = []
    while len(fresh := list(islice(rows, size))) == size:
        held += fresh
        if cut := _last_change(held, stamp):
            yield held[:cut]
            held = held[cut:]
    held += fresh
    if held:
        yield held


def _last_change(rows: list[list[str]], stamp: int) -> int:
    """Where the rows begin that share the last row's stamp."""
    last = rows[-1][stamp : stamp + 1]
    return next((i + 1 for i in range(len(rows) - 1, -1, -1) if rows[i][stamp : stamp + 1] != last), 0)


def squared(rows: list[list[str]], width: int, rows_before: int) -> tuple[list[list[str]], dict[int, Rejection]]:
    """All rows as wide as they should be, and by position those that were not."""
    ragged = {
        i: Rejection(rows_before + 1 + i, "row", f"{len(row)} columns", f"expected {width} columns")
        for i, row in enumerate(rows)
        if len(row) != width
    }
    if not ragged:
        return rows, ragged
    return [(row + [""] * width)[:width] if i in ragged else row for i, row in enumerate(rows)], ragged


def numbers(texts: Sequence[str]) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Numbers, NaN where missing; infinity where the text, given by position, is no finite number."""
    read = float if all(texts) and _PLAIN.issuperset("".join(texts)) else _number
    try:
        values = np.array([read(text) for text in texts], dtype=np.float64)
    except ValueError:
        values = np.array([_number(text) for text in texts], dtype=np.float64)
    return values, {i: texts[i] for i in np.flatnonzero(np.isinf(values)).tolist()}


def _number(text: str) -> float:
    """Python would take more for a number, such as 1_0."""
    bare = text.strip()
    if bare.lower() in MISSING:
        return float("nan")
    return float(bare) if _NUMBER.fullmatch(bare) else float("inf")
