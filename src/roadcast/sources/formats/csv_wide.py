"""CSV of one variable by sensors: the first column holds times, each other one a sensor's values."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from roadcast.domain.reading import VARIABLES, Rejection
from roadcast.errors import SourceError
from roadcast.sources.formats.clock import LocalClock, parse_iso
from roadcast.sources.formats.screening import Block, screen
from roadcast.sources.formats.sensor_files import network_beside
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile, expect_codes
from roadcast.sources.formats.tables import of_variable, rows_per_chunk, table_block
from roadcast.sources.formats.text import count_rows, data_rows, numbers, row_blocks, squared

TIME_COLUMNS = frozenset({"", "timestamp", "time", "datetime", "date"})


def is_csv_wide(header: Sequence[str]) -> bool:
    """Whether a header has a time column first, then sensors and none of the columns of one reading a row."""
    names = [name.strip().lower() for name in header]
    return len(names) > 1 and names[0] in TIME_COLUMNS and not {"sensor_id", *VARIABLES}.intersection(names)


def open_csv_wide(path: Path, options: FormatOptions, header: Sequence[str], delimiter: str) -> SourceFile:
    """The file as a source."""
    codes = [name.strip() for name in header[1:]]
    _check_codes(path, codes)
    meaning = options.meaning(zero_is_missing=False)
    network = network_beside(path, options)

    def read(notes: Notes) -> Iterator[Chunk]:
        network.note_gaps(codes, notes)
        clock, rows_before = LocalClock(options.zone, notes, options.latest_ms), 0
        for rows in row_blocks(data_rows(path, delimiter, header=True), rows_per_chunk(codes), 0):
            yield screen(_block(rows, codes, options.variable, clock, rows_before), meaning, notes)
            rows_before += len(rows)

    cells = count_rows(path, header=True) * len(codes)
    return SourceFile(path, "csv_wide", network.sensors_of(codes), network.links_of(codes), None, cells, read)


def _block(rows: list[list[str]], codes: list[str], variable: str, clock: LocalClock, rows_before: int) -> Block:
    rows, refused = squared(rows, len(codes) + 1, rows_before)
    stamps = [row[0] for row in rows]
    times = clock.read_texts(stamps, [""] * len(rows), parse_iso)
    for i, reason in times.refused.items():
        refused.setdefault(i, Rejection(rows_before + 1 + i, "timestamp", stamps[i], reason))
    cells, odd = numbers([cell for row in rows for cell in row[1:]])
    values = of_variable(cells.reshape(len(rows), len(codes)), variable)
    texts = {(i, VARIABLES.index(variable)): text for i, text in odd.items()}
    return table_block(codes, rows_before, times.at_ms, values, refused, texts=texts)


def _check_codes(path: Path, codes: list[str]) -> None:
    if "" in codes:
        raise SourceError(f"{path}: column {codes.index('') + 2} has no name: expected a sensor's code")
    expect_codes(path, codes)
    if twice := [code for code in codes if codes.count(code) > 1]:
        raise SourceError(f"{path}: sensor {twice[0]!r} heads two columns: expected one")
