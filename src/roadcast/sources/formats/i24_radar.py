"""A morning of I-24 near Nashville as an npz file: radar by mile marker and lane, mph, percent, vehicles in 30 s.

Lanes make one station per mile marker. Its volume is the sum over lanes and its occupancy their mean, both only
where every lane reports; its speed is the mean of the lanes that have one, weighted by their volumes. A lane
that never reports is not of the station. Traffic runs towards Nashville, to lower mile markers: in the data,
jams grow towards the higher ones.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import OCCUPANCY, SPEED, VARIABLES, VOLUME
from roadcast.domain.sensor import Link, Sensor
from roadcast.errors import SourceError
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile
from roadcast.sources.formats.tables import Arrays, Table
from roadcast.sources.formats.units import Meaning

KEYS = frozenset({"milemarker", "speed_raw", "occ_raw", "volume_raw", "unix_time"})


def open_i24_radar(path: Path, arrays: Arrays, options: FormatOptions) -> SourceFile:
    """The file as a source, from its raw arrays."""
    speed, occupancy, volume = (_lanes(path, arrays, name) for name in ("speed_raw", "occ_raw", "volume_raw"))
    reports = np.isfinite(volume).sum(axis=0) > 0
    values = _stations(speed, occupancy, volume, reports)
    mileposts = [round(mile, 1) for mile in arrays["milemarker"].astype(np.float64).tolist()]
    sensors = _sensors(mileposts, reports)
    codes = [sensor.sensor_id for sensor in sensors]
    table = Table(codes, arrays["unix_time"].astype(np.int64) * 1000, utc=True, values=lambda a, b: values[a:b])
    meaning = Meaning(occupancy="percent", zero_is_missing=bool(options.zero_is_missing))

    def read(notes: Notes) -> Iterator[Chunk]:
        notes["lanes joined to stations"] = int(reports.sum())
        if silent := int((~reports).sum()):
            notes["lanes that never report, left out"] = silent
        yield from table.chunks(options, meaning, notes)

    return SourceFile(path, "i24_radar", sensors, _links(sensors), table.interval_s, table.cells, read)


def _lanes(path: Path, arrays: Arrays, name: str) -> NDArray[np.float64]:
    shape = arrays["unix_time"].shape + arrays["milemarker"].shape
    if arrays[name].ndim != 3 or arrays[name].shape[:2] != shape:
        raise SourceError(f"{path}: {name} has shape {arrays[name].shape}: expected {shape} and lanes")
    return arrays[name].astype(np.float64)


def _stations(
    speed: NDArray[np.float64], occupancy: NDArray[np.float64], volume: NDArray[np.float64], reports: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """[t, stations, lanes] each → [t, stations, 4]; `reports`: [stations, lanes]."""
    weight = np.where(np.isnan(speed) | np.isnan(volume), 0, volume)
    weights = weight.sum(axis=2)
    values = np.full((*weights.shape, len(VARIABLES)), np.nan)
    np.divide((weight * np.nan_to_num(speed)).sum(axis=2), weights, out=values[:, :, SPEED], where=weights > 0)
    lanes = np.where(reports.any(axis=1), reports.sum(axis=1), np.nan)
    values[:, :, VOLUME] = np.where(reports, volume, 0).sum(axis=2) * (lanes / lanes)
    values[:, :, OCCUPANCY] = np.where(reports, occupancy, 0).sum(axis=2) / lanes
    return values


def _sensors(mileposts: list[float], reports: NDArray[np.bool_]) -> list[Sensor]:
    return [
        Sensor(f"I24-MM{mile}", f"I-24 W at mile {mile}", "I-24", "W", lanes, mile)
        for mile, lanes in zip(mileposts, reports.sum(axis=1).tolist(), strict=True)
    ]


def _links(sensors: list[Sensor]) -> list[Link]:
    """Each station to the next one downstream."""
    downstream = sorted(sensors, key=lambda sensor: -(sensor.milepost or 0))
    return [
        Link(a.sensor_id, b.sensor_id, distance_mi=round((a.milepost or 0) - (b.milepost or 0), 3))
        for a, b in pairwise(downstream)
    ]
