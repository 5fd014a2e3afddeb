"""CSV with one reading a row: `sensor_id`, `timestamp` and any of the variables, in any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from roadcast.domain.reading import VARIABLES
from roadcast.errors import SourceError
from roadcast.sources.formats.clock import LocalClock
from roadcast.sources.formats.records import Layout, record_blocks
from roadcast.sources.formats.screening import screen
from roadcast.sources.formats.sensor_files import network_beside
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile
from roadcast.sources.formats.text import count_rows, data_rows

KEYS = ("sensor_id", "timestamp")


def is_csv_long(header: Sequence[str]) -> bool:
    """Whether a header names both keys."""
    return set(KEYS) <= {name.strip().lower() for name in header}


def open_csv_long(path: Path, options: FormatOptions, header: Sequence[str], delimiter: str) -> SourceFile:
    """The file as a source. Columns that are none of ours are ignored, and named in the conversions."""
    names = [name.strip().lower() for name in header]
    layout = _layout(path, names)
    ignored = [name for name in names if name not in {*KEYS, *VARIABLES}]
    meaning = options.meaning(zero_is_missing=False)

    def read(notes: Notes) -> Iterator[Chunk]:
        if ignored:
            notes[f"columns ignored ({', '.join(ignored)})"] = len(ignored)
        rows = data_rows(path, delimiter, header=True)
        for records in record_blocks(rows, layout, LocalClock(options.zone, notes, options.latest_ms)):
            yield screen(records.block, meaning, notes)

    network = network_beside(path, options)
    sensors, links = network.all_sensors(), network.all_links()
    return SourceFile(path, "csv_long", sensors, links, None, count_rows(path, header=True), read)


def _layout(path: Path, names: list[str]) -> Layout:
    columns = {name: names.index(name) for name in VARIABLES if name in names}
    if not columns:
        raise SourceError(f"{path}: columns {', '.join(names)}: expected one of {', '.join(VARIABLES)} too")
    twice = [name for name in (*KEYS, *VARIABLES) if names.count(name) > 1]
    if twice:
        raise SourceError(f"{path}: column {twice[0]!r} stands there twice: expected it once")
    sensor, stamp = (names.index(key) for key in KEYS)
    return Layout(len(names), sensor, stamp, columns)
