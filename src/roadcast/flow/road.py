"""The road of the demo: an invented freeway of two carriageways, its detector stations, and where they lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.sensor import Link, Sensor
from roadcast.flow.fundamental import TriangularDiagram
from roadcast.flow.transmission import Carriageway

ROAD = "Demo Freeway 1"
LENGTH_MI = 15.0
CELL_MI = 0.2
CELLS = round(LENGTH_MI / CELL_MI)
SPEED_LIMIT = 65.0
LANE = TriangularDiagram(free_speed=66.8, capacity=2100.0, jam_density=193.0)
"""One lane, at the free speed of an average place; disturbances travel upstream at 13 mph."""
RAMP_LIMIT = 1800.0

START_LATITUDE, START_LONGITUDE = 35.42, -119.52
MILES_PER_DEGREE = 69.05
MEDIAN_MI = 0.02
"""Distance from the road's centre line to the middle of a carriageway."""

CROSS_STREETS = (
    "Alder Ave", "Birch St", "Canal Rd", "Depot St", "Elm Ave", "Foundry Rd", "Granary St", "Harbor Ave",
    "Inlet Rd", "Juniper St", "Kiln Rd", "Larch Ave", "Mill St", "Nursery Rd", "Orchard Ave", "Pumphouse Rd",
    "Quarry St", "Ridge Ave", "Sawmill Rd", "Tannery St", "Union Ave", "Viaduct St", "Willow Rd", "Yarrow Ave",
    "Aqueduct Rd", "Boundary St", "Cooper Ave", "Dairy Rd", "Estuary St", "Ferry Ave",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ramps:
    """An interchange, in miles from where the carriageway begins: the exit, then the entry, with its peak demand."""

    exit_mi: float
    exit_share: float
    entry_mi: float
    entry_peak: float


@dataclass(frozen=True, slots=True)
class Layout:
    """What differs between carriageways. Lanes change at miles from the beginning; demand is that of the peak hour."""

    direction: str
    lanes: tuple[tuple[float, int], ...]
    entry_peak: float
    ramps: tuple[Ramps, ...]


NORTH = Layout(
    "N",
    lanes=((0.0, 4), (4.6, 3), (6.6, 4), (11.0, 3)),
    entry_peak=5550.0,
    ramps=(
        Ramps(1.4, 0.08, 1.8, 620.0),
        Ramps(3.4, 0.10, 3.8, 660.0),
        Ramps(5.2, 0.06, 5.8, 560.0),
        Ramps(7.6, 0.10, 8.0, 760.0),
        Ramps(9.4, 0.08, 9.8, 680.0),
        Ramps(11.6, 0.14, 12.4, 380.0),
        Ramps(13.4, 0.12, 14.0, 360.0),
    ),
)
SOUTH = Layout(
    "S",
    lanes=((0.0, 4), (8.6, 3), (12.8, 4)),
    entry_peak=5250.0,
    ramps=(
        Ramps(1.0, 0.10, 1.4, 720.0),
        Ramps(2.6, 0.08, 3.0, 660.0),
        Ramps(5.0, 0.12, 5.4, 760.0),
        Ramps(7.0, 0.08, 7.4, 620.0),
        Ramps(9.2, 0.14, 9.8, 400.0),
        Ramps(11.2, 0.10, 11.8, 800.0),
        Ramps(13.4, 0.14, 13.8, 460.0),
    ),
)


@dataclass(frozen=True, slots=True)
class Station:
    """A detector station: its sensor, and the carriageway (by number) and cell that it watches."""

    sensor: Sensor
    carriageway: int
    cell: int
    travelled_mi: float


@dataclass(frozen=True, slots=True)
class Corridor:
    """A road with its stations, in the order of the columns of `CorridorDay.values`.

    entry_peaks: for each carriageway [entry], veh/h in the peak hour of a usual weekday.
    """

    road: str
    carriageways: tuple[Carriageway, ...]
    entry_peaks: tuple[NDArray[np.float64], ...]
    stations: tuple[Station, ...]

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """The stations' sensors."""
        return tuple(station.sensor for station in self.stations)

    @property
    def links(self) -> tuple[Link, ...]:
        """From each station to the next one downstream."""
        return tuple(
            Link(a.sensor.sensor_id, b.sensor.sensor_id, round(b.travelled_mi - a.travelled_mi, 3))
            for a, b in pairwise(self.stations)
            if a.carriageway == b.carriageway
        )

    def stations_of(self, carriageway: int) -> tuple[Station, ...]:
        """The stations of one carriageway, downstream."""
        return tuple(station for station in self.stations if station.carriageway == carriageway)

    def nearest(self, carriageway: int, travelled_mi: float) -> Station:
        """The station of a carriageway that lies nearest to a point on it."""
        return min(self.stations_of(carriageway), key=lambda station: abs(station.travelled_mi - travelled_mi))


def demo_corridor() -> Corridor:
    """Demo Freeway 1: northbound is busiest in the morning, southbound in the evening."""
    layouts = (NORTH, SOUTH)
    return Corridor(
        ROAD,
        tuple(_carriageway(layout) for layout in layouts),
        tuple(np.array([layout.entry_peak, *(ramps.entry_peak for ramps in layout.ramps)]) for layout in layouts),
        tuple(_stations(layouts)),
    )


def position(direction: str, travelled_mi: float) -> tuple[float, float]:
    """Latitude and longitude of a point on a carriageway: an S-curve that leads north."""
    right = 1 if direction == "N" else -1
    mile = milepost(direction, travelled_mi)
    along = np.linspace(0, mile, 301)
    heading = 0.45 * np.sin(2 * np.pi * along / 11) + 0.25  # radians east of north
    north, east = (np.trapezoid(part, along) for part in (np.cos(heading), np.sin(heading)))
    north -= right * MEDIAN_MI * np.sin(heading[-1])
    east += right * MEDIAN_MI * np.cos(heading[-1])
    latitude = START_LATITUDE + north / MILES_PER_DEGREE
    longitude = START_LONGITUDE + east / (MILES_PER_DEGREE * np.cos(np.radians(START_LATITUDE)))
    return round(float(latitude), 6), round(float(longitude), 6)


def milepost(direction: str, travelled_mi: float) -> float:
    """Mileposts count northwards on both carriageways."""
    return travelled_mi if direction == "N" else LENGTH_MI - travelled_mi


def cell_at(travelled_mi: float) -> int:
    """The cell that begins at or holds a point."""
    return int((travelled_mi + 1e-9) / CELL_MI)


def _carriageway(layout: Layout) -> Carriageway:
    starts = np.arange(CELLS) * CELL_MI
    lanes = np.array([_lanes_at(layout.lanes, start) for start in starts])
    # Grades and curves: free-flow speed varies by place, near the limit and not equal to it.
    deviation = 1.6 * np.sin(starts * 1.9 + (layout.direction == "S")) + 0.9 * np.cos(starts * 4.7)
    lane = replace(LANE, free_speed=LANE.free_speed + deviation[:, np.newaxis])
    exit_share = np.zeros((CELLS, 1))
    for ramps in layout.ramps:
        exit_share[cell_at(ramps.exit_mi)] = ramps.exit_share
    return Carriageway(
        layout.direction,
        CELL_MI,
        lanes,
        lane.of_lanes(lanes[:, np.newaxis]),
        exit_share,
        entries=np.array([0, *(cell_at(ramps.entry_mi) for ramps in layout.ramps)]),
        entry_limit=np.array([[np.inf], *([RAMP_LIMIT] for _ in layout.ramps)]),
    )


def _lanes_at(changes: tuple[tuple[float, int], ...], mile: float) -> int:
    return [lanes for start, lanes in changes if start <= mile + 1e-9][-1]


def _stations(layouts: Sequence[Layout]) -> list[Station]:
    """The stations in the direction of travel, one carriageway after the other; both have one at each cross street."""
    streets = range(len(CROSS_STREETS))
    places = [
        (carriageway, street)
        for carriageway, layout in enumerate(layouts)
        for street in (streets if layout.direction == "N" else reversed(streets))
    ]
    return [
        _station(number, carriageway, layouts[carriageway], street)
        for number, (carriageway, street) in enumerate(places, start=1)
    ]


def _station(number: int, carriageway: int, layout: Layout, street: int) -> Station:
    # Cross streets are about half a mile apart, not quite regularly.
    mile = round((street + 0.5) * LENGTH_MI / len(CROSS_STREETS) + 0.1 * math.sin(2.4 * street), 2)
    travelled = mile if layout.direction == "N" else LENGTH_MI - mile
    latitude, longitude = position(layout.direction, travelled)
    cell = cell_at(travelled)
    sensor = Sensor(
        sensor_id=f"SENSOR_{number:03d}",
        name=f"{ROAD} {layout.direction} at {CROSS_STREETS[street]}",
        road=ROAD,
        direction=layout.direction,
        lanes=_lanes_at(layout.lanes, cell * CELL_MI),
        milepost=mile,
        latitude=latitude,
        longitude=longitude,
        speed_limit=SPEED_LIMIT,
    )
    return Station(sensor, carriageway, cell, travelled)
