"""Files that describe the sensors of another file: where they stand, and how far apart along the road.

Locations are CSV as published with METR-LA (header `index,sensor_id,latitude,longitude`) or with PEMS-BAY
(no header: sensor, latitude, longitude); distances are `from,to,cost` in metres, with or without a header.
Li, Yu, Shahabi and Liu (2018), Diffusion Convolutional Recurrent Neural Network, publish both.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.units import KM_PER_MILE
from roadcast.errors import SourceError
from roadcast.sources.formats.source_file import FormatOptions, Notes, readable
from roadcast.sources.formats.text import data_rows

METRES_PER_MILE = 1000 * KM_PER_MILE


@dataclass(frozen=True, slots=True)
class Network:
    """What the files beside say. places: latitude and longitude by sensor; metres: by pair of sensors."""

    places: dict[str, tuple[float, float]]
    metres: dict[tuple[str, str], float]

    def sensors_of(self, codes: Sequence[str]) -> list[Sensor]:
        """The sensors of a file, with their places where known."""
        return [self._sensor(code) for code in codes]

    def links_of(self, codes: Sequence[str]) -> list[Link]:
        """The links between two sensors of a file."""
        known = set(codes)
        return [
            Link(start, end, distance_mi=metres / METRES_PER_MILE)
            for (start, end), metres in self.metres.items()
            if start != end and start in known and end in known
        ]

    def all_sensors(self) -> list[Sensor]:
        """Every sensor that has a place."""
        return self.sensors_of(list(self.places))

    def all_links(self) -> list[Link]:
        """The links between sensors that have a place."""
        return self.links_of(list(self.places))

    def note_gaps(self, codes: Sequence[str], notes: Notes) -> None:
        """Count the sensors without a place, where others have one."""
        without = sum(code not in self.places for code in codes)
        if self.places and without:
            notes["sensors without a location"] = without

    def _sensor(self, code: str) -> Sensor:
        latitude, longitude = self.places.get(code, (None, None))
        return Sensor(code, latitude=latitude, longitude=longitude)


def network_beside(path: Path, options: FormatOptions) -> Network:
    """What the files named in the options say, else those beside `path` with the names they are published under.

    Raises:
        SourceError: naming the file and line that cannot be read.
    """
    places: dict[str, tuple[float, float]] = {}
    metres: dict[tuple[str, str], float] = {}
    for file in _files(path, options.locations, "graph_sensor_locations*.csv"):
        places.update(_places(file))
    for file in _files(path, options.distances, "distances_*.csv"):
        metres.update(_distances(file))
    return Network(places, metres)


def _files(path: Path, given: Path | None, pattern: str) -> list[Path]:
    return sorted(path.parent.glob(pattern)) if given is None else [given]


def _places(path: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    for code, *figures in _triples(path):
        latitude, longitude = (_number(path, code, figure) for figure in figures)
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            raise SourceError(f"{path}: sensor {code} at {latitude}, {longitude}: expected latitude, longitude")
        yield code, (latitude, longitude)


def _distances(path: Path) -> Iterator[tuple[tuple[str, str], float]]:
    for start, end, cost in _triples(path):
        metres = _number(path, start, cost)
        if metres < 0:
            raise SourceError(f"{path}: {start} to {end} is {metres} m: expected 0 or more")
        yield (start, end), metres


def _triples(path: Path) -> Iterator[list[str]]:
    """The last three cells of each row; a first row that does not end in a number is the header."""
    with readable(path):
        for number, row in enumerate(data_rows(path, ",", header=False)):
            cells = [cell.strip() for cell in row[-3:]]
            if number == 0 and not _is_number(cells[-1]):
                continue
            if len(cells) < 3:
                raise SourceError(f"{path}: row {','.join(row)!r}: expected three columns")
            yield cells


def _number(path: Path, sensor: str, text: str) -> float:
    if not _is_number(text):
        raise SourceError(f"{path}: sensor {sensor}: {text!r}: expected a number")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
