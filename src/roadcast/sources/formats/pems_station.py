"""Caltrans PeMS "Station 5-Minute" text of the data clearinghouse: no header, one station and interval a row.

PeMS stamps an interval with its start, on the local clock, so 5 minutes are added. Flow and lanes are of the
whole station, speed is mph, occupancy a fraction. Where nothing of a row was observed, PeMS fills in estimates:
such a row is read as missing, since an estimate must not be scored as if it were true.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import Rejection
from roadcast.domain.sensor import Sensor
from roadcast.errors import SourceError
from roadcast.sources.formats.clock import LocalClock
from roadcast.sources.formats.records import Layout, Records, record_blocks
from roadcast.sources.formats.screening import Block, screen
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile, readable
from roadcast.sources.formats.text import count_rows, data_rows, numbers, open_text
from roadcast.sources.formats.units import Meaning

INTERVAL_S = 300
STATION, FREEWAY, DIRECTION, OBSERVED = 1, 3, 4, 8
WIDTH = 12
"""Columns of the station; those of its lanes follow, five each."""
_STAMP = re.compile(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d")


def is_pems_station(first_row: Sequence[str]) -> bool:
    """Whether a first row begins as PeMS writes it: stamp, station, ..."""
    return len(first_row) >= WIDTH and bool(_STAMP.fullmatch(first_row[0])) and first_row[STATION].isdecimal()


def open_pems_station(path: Path, options: FormatOptions) -> SourceFile:
    """The file as a source, described by the metadata file given or beside it."""
    columns = {"volume": 9, "occupancy": 10, "speed": 11}
    layout = Layout(WIDTH, STATION, 0, columns, lambda text: datetime.strptime(text, "%m/%d/%Y %H:%M:%S"))  # noqa: DTZ007
    meaning = Meaning(zero_is_missing=bool(options.zero_is_missing))

    def read(notes: Notes) -> Iterator[Chunk]:
        for records in record_blocks(_rows(path), layout, LocalClock(options.zone, notes, options.latest_ms)):
            yield screen(_measured(records, notes), meaning, notes)

    return SourceFile(
        path, "pems_station", _sensors(path, options), [], INTERVAL_S, count_rows(path, header=False), read
    )


def _rows(path: Path) -> Iterator[list[str]]:
    return (row[:WIDTH] for row in data_rows(path, ",", header=False))


def _measured(records: Records, notes: Notes) -> Block:
    """The block stamped with the ends of its intervals, and without what PeMS has filled in."""
    observed, _ = numbers(records.fields[OBSERVED])
    block = _with_share_observed(records, observed)
    filled = (observed == 0) & ~np.isnan(block.values).all(axis=1) & ~block.refused
    if count := int(filled.sum()):
        notes["rows that PeMS has filled in (0 % observed), read as missing"] += count
    notes["times moved from the start to the end of their interval"] += int((~block.refused).sum())
    values = np.where(filled[:, np.newaxis], np.nan, block.values)
    return replace(block, at_ms=block.at_ms + 1000 * INTERVAL_S, values=values)


def _with_share_observed(records: Records, observed: NDArray[np.float64]) -> Block:
    """The block, in which rows are refused whose share of observed values, [n] in per cent, cannot be."""
    block = records.block
    bad = ((observed < 0) | (observed > 100)) & ~block.refused
    texts = records.fields[OBSERVED]
    rejections = [
        Rejection(int(block.row[i]), "observed", texts[i], "expected a number from 0 to 100 %")
        for i in np.flatnonzero(bad).tolist()
    ]
    return replace(block, refused=block.refused | bad, rejections=[*block.rejections, *rejections])


def _sensors(path: Path, options: FormatOptions) -> list[Sensor]:
    """The stations of the file's first interval, and those of the metadata."""
    rows = _rows(path)
    first = next(rows)
    stations = [first, *takewhile(lambda row: row[0] == first[0], rows)]
    named = {
        row[STATION]: Sensor(row[STATION], road=f"Fwy {row[FREEWAY]}", direction=row[DIRECTION])
        for row in stations
        if len(row) == WIDTH
    }
    found = sorted(path.parent.glob("*text_meta*.txt")) if options.locations is None else [options.locations]
    for file in found:
        named |= {sensor.sensor_id: sensor for sensor in _metadata(file)}
    return list(named.values())


def _metadata(path: Path) -> Iterator[Sensor]:
    """The stations of a tab-separated metadata file, by the names of its columns."""
    with readable(path), open_text(path) as file:
        names = file.readline().rstrip("\r\n").split("\t")
        missing = [name for name in ("ID", "Fwy", "Dir") if name not in names]
        if missing:
            raise SourceError(f"{path}: first line lacks {', '.join(missing)}: expected PeMS station metadata")
        for line in file:
            if line.strip():
                yield _station(dict(zip(names, line.rstrip("\r\n").split("\t"), strict=False)))


def _station(row: dict[str, str]) -> Sensor:
    lanes = _figure(row, "Lanes")
    return Sensor(
        sensor_id=row["ID"],
        name=row.get("Name") or None,
        road=f"Fwy {row['Fwy']}",
        direction=row["Dir"],
        lanes=None if lanes is None else int(lanes),
        milepost=_figure(row, "Abs_PM"),
        latitude=_figure(row, "Latitude"),
        longitude=_figure(row, "Longitude"),
    )


def _figure(row: dict[str, str], name: str) -> float | None:
    text = row.get(name, "").strip()
    return float(text) if text else None
