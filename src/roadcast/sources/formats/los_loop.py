"""One week of METR-LA as an npz file: speeds by time and loop detector, mph.

Times are the file's own stamps, on the local clock. Links carry the Gaussian kernel of road distance as their weight.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import EPOCH, to_ms
from roadcast.errors import SourceError
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile, expect_codes
from roadcast.sources.formats.tables import Arrays, Table, of_variable
from roadcast.sources.formats.units import Meaning

KEYS = frozenset({"speed", "sensor_id", "latitude", "longitude", "adjacency", "start", "interval_s"})


def open_los_loop(path: Path, arrays: Arrays, options: FormatOptions) -> SourceFile:
    """The file as a source."""
    speed = arrays["speed"].astype(np.float64)
    codes = [str(code) for code in arrays["sensor_id"].tolist()]
    expect_codes(path, codes)
    _check_shapes(path, arrays, len(codes))
    interval_s = int(arrays["interval_s"].item())
    stamps = _local_ms(str(arrays["start"].item())) + 1000 * interval_s * np.arange(len(speed))
    table = Table(codes, stamps, utc=False, values=lambda start, stop: of_variable(speed[start:stop], "speed"))
    meaning = Meaning(zero_is_missing=options.zero_is_missing is not False)

    def read(notes: Notes) -> Iterator[Chunk]:
        return table.chunks(options, meaning, notes)

    return SourceFile(path, "los_loop", _sensors(codes, arrays), _links(codes, arrays), interval_s, table.cells, read)


def _local_ms(start: str) -> int:
    return to_ms(datetime.fromisoformat(start).replace(tzinfo=EPOCH.tzinfo))


def _check_shapes(path: Path, arrays: Arrays, sensors: int) -> None:
    expected = {"latitude": (sensors,), "longitude": (sensors,), "adjacency": (sensors, sensors)}
    expected["speed"] = (arrays["speed"].shape[0], sensors)
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise SourceError(f"{path}: {name} has shape {arrays[name].shape}: expected {shape} for {sensors} sensors")


def _sensors(codes: list[str], arrays: Arrays) -> list[Sensor]:
    places = zip(codes, arrays["latitude"].tolist(), arrays["longitude"].tolist(), strict=True)
    return [Sensor(code, latitude=latitude, longitude=longitude) for code, latitude, longitude in places]


def _links(codes: list[str], arrays: Arrays) -> list[Link]:
    weights = arrays["adjacency"].astype(np.float64)
    pairs = np.argwhere(weights > 0).tolist()
    return [Link(codes[i], codes[j], weight=float(weights[i, j])) for i, j in pairs if i != j]
