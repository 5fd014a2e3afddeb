"""Random incidents that close lanes of the demo's road: what happened is known."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.incident import Severity
from roadcast.flow.demand import MINUTES_PER_DAY
from roadcast.flow.road import Corridor, milepost, position

INCIDENTS_PER_DAY = 0.7
"""Expected on each carriageway."""
MEDIAN_MINUTES = 35.0
TWO_LANES_SHARE = 0.5
"""Share of crashes that close two lanes; all else closes one."""
EARLIEST_MINUTE = 30
KINDS = {"crash": (0.50, "Crash"), "stalled_vehicle": (0.35, "Stalled vehicle"), "debris": (0.15, "Debris on the road")}
"""Of each type its share of incidents and its name in a description."""

# Share of capacity left with 1, 2 … lanes closed, by the number of lanes: Highway Capacity Manual 2010, Exhibit 10-17.
CAPACITY_LEFT = {2: (0.35, 0.0), 3: (0.49, 0.17, 0.0), 4: (0.58, 0.25, 0.13), 5: (0.65, 0.40, 0.20)}


@dataclass(frozen=True, slots=True)
class CorridorIncident:
    """An incident of a simulated day. Times are seconds after local midnight; it happens in `cell`."""

    type: str
    description: str
    severity: Severity
    direction: str
    sensor_id: str
    milepost: float
    latitude: float
    longitude: float
    lanes_closed: int
    start_s: int
    end_s: int
    cell: int


def draw_incidents(
    rng: np.random.Generator, corridor: Corridor, carriageway: int, shape: NDArray[np.float64]
) -> tuple[CorridorIncident, ...]:
    """One day's incidents on a carriageway, in order of time; more likely while more vehicles pass (`shape`)."""
    chance = np.where(np.arange(len(shape)) < EARLIEST_MINUTE, 0, shape)
    count = rng.poisson(INCIDENTS_PER_DAY)
    minutes = np.sort(rng.choice(len(shape), size=count, p=chance / chance.sum()))
    return tuple(_incident(rng, corridor, carriageway, int(minute)) for minute in minutes)


def open_share(incidents: tuple[CorridorIncident, ...], lanes: NDArray[np.int64]) -> NDArray[np.float32]:
    """[minute, cell] share of capacity that incidents leave."""
    share = np.ones((MINUTES_PER_DAY, len(lanes)), np.float32)
    for incident in incidents:
        left = CAPACITY_LEFT[int(lanes[incident.cell])][incident.lanes_closed - 1]
        during = share[incident.start_s // 60 : incident.end_s // 60, incident.cell]
        np.minimum(during, left, out=during)
    return share


def _incident(rng: np.random.Generator, corridor: Corridor, carriageway: int, minute: int) -> CorridorIncident:
    road = corridor.carriageways[carriageway]
    cell = int(rng.integers(8, len(road.lanes) - 2))
    kind = str(rng.choice(list(KINDS), p=[share for share, _ in KINDS.values()]))
    closed = 2 if kind == "crash" and rng.random() < TWO_LANES_SHARE else 1
    minutes = min(max(rng.lognormal(math.log(MEDIAN_MINUTES), 0.5), 10), 120)
    travelled = (cell + 1) * road.cell_mi
    latitude, longitude = position(road.direction, travelled)
    return CorridorIncident(
        type=kind,
        description=f"{KINDS[kind][1]}, {closed} of {road.lanes[cell]} lanes closed",
        severity=Severity.MEDIUM if closed == 1 else Severity.HIGH,
        direction=road.direction,
        sensor_id=corridor.nearest(carriageway, travelled).sensor.sensor_id,
        milepost=round(milepost(road.direction, travelled), 2),
        latitude=latitude,
        longitude=longitude,
        lanes_closed=closed,
        start_s=minute * 60,
        end_s=min(round(minute + minutes), MINUTES_PER_DAY) * 60,
        cell=cell,
    )
