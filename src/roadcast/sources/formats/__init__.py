"""Formats of files with readings, one module each; `open_source` recognises them by their content."""

import csv
from itertools import islice
from pathlib import Path

import numpy as np

from roadcast.errors import SourceError
from roadcast.sources.formats import hdf5, i24_radar, los_loop, pems_lane
from roadcast.sources.formats.csv_long import is_csv_long, open_csv_long
from roadcast.sources.formats.csv_wide import is_csv_wide, open_csv_wide
from roadcast.sources.formats.pems_station import is_pems_station, open_pems_station
from roadcast.sources.formats.source_file import Chunk, FormatOptions, SourceFile, readable
from roadcast.sources.formats.text import delimiter_of, open_text
from roadcast.sources.formats.ticks import ticks

__all__ = ["Chunk", "FormatOptions", "SourceFile", "open_source", "ticks"]

ACCEPTED = (
    "expected npz (los_loop, i24_radar, pems_single_lane), HDF5 written by pandas (METR-LA, PEMS-BAY), "
    "PeMS station 5-minute text, or CSV with columns sensor_id, timestamp, speed, ... or timestamp, SENSOR, SENSOR, ..."
)
ZIP = b"PK\x03\x04"


def open_source(path: Path, options: FormatOptions) -> SourceFile:
    """Recognise a file by its content and make it ready to be read.

    Raises:
        SourceError: in one line, with the file, what was found in it and what is accepted.
    """
    with readable(path):
        with path.open("rb") as file:
            begin = file.read(1024)
        if begin.startswith(hdf5.MAGIC):
            return hdf5.open_hdf5(path, options)
        if begin.startswith(ZIP):
            return _open_npz(path, options)
        return _open_text(path, options)


def _open_npz(path: Path, options: FormatOptions) -> SourceFile:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for form, open_arrays in (
        (los_loop, los_loop.open_los_loop),
        (i24_radar, i24_radar.open_i24_radar),
        (pems_lane, pems_lane.open_pems_lane),
    ):
        if arrays.keys() >= form.KEYS:
            return open_arrays(path, arrays, options)
    raise SourceError(f"{path}: npz with {', '.join(sorted(arrays)) or 'nothing'}: {ACCEPTED}")


def _open_text(path: Path, options: FormatOptions) -> SourceFile:
    with open_text(path) as file:
        line = next((line for line in islice(file, 100) if line.strip()), "")
    if not line:
        raise SourceError(f"{path}: nothing in it: {ACCEPTED}")
    delimiter = delimiter_of(line)
    first = next(csv.reader([line], delimiter=delimiter))
    if is_pems_station(first):
        return open_pems_station(path, options)
    if is_csv_long(first):
        return open_csv_long(path, options, first, delimiter)
    if is_csv_wide(first):
        return open_csv_wide(path, options, first, delimiter)
    raise SourceError(f"{path}: text that begins {line.strip()[:60]!r}: {ACCEPTED}")
