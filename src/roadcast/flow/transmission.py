"""The cell transmission model (Daganzo 1994) of one carriageway, for many days side by side.

State is [cell, day]; cells are numbered in the direction of travel. A cell takes traffic in by the density it had
`LAG_STEPS` earlier (Daganzo 1999), which keeps waves that travel upstream sharp.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.flow.fundamental import TriangularDiagram

STEP_S = 10
STEP_H = STEP_S / 3600
STEPS_PER_MINUTE = 60 // STEP_S
LAG_STEPS = 2
WARM_UP_MINUTES = 20
"""The road fills with the traffic of the first minute for this long before the day begins."""
CAPACITY_DROP = 0.12
"""Share of capacity that is lost downstream of a queue."""
FULL_DROP_AT = 1.5
"""The loss sets in at critical density and is whole at this multiple of it, so that a short dense spell heals."""
MERGE_SHARE = 0.25
"""Share of a full cell's intake that the queue on a ramp can claim."""

Array = NDArray[np.float64]
History = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Carriageway:
    """One direction of a road, cut into cells of equal length.

    diagram: of all lanes, its fields columns [cell, 1]; lanes: [cell]; exit_share: [cell, 1] share of a cell's
    outflow that leaves the road; entries: the cells that traffic enters, the upstream end first and then the
    on-ramps; entry_limit: [entry, 1] veh/h.
    """

    direction: str
    cell_mi: float
    lanes: NDArray[np.int64]
    diagram: TriangularDiagram
    exit_share: Array
    entries: NDArray[np.intp]
    entry_limit: Array


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a carriageway meets, minute by minute.

    demand: [minute, entry, day] veh/h that want to enter; open_share: [minute, cell, day] share of capacity left
    at a cell's downstream end; pace: [minute, cell, day], about 1: how briskly drivers follow each other there.
    """

    demand: History
    open_share: History
    pace: History


@dataclass(frozen=True, slots=True)
class Field:
    """Means of each minute, [minute, cell, day]: veh/mi on all lanes, and veh/h out of each cell, exits included."""

    density: History
    flow: History


@dataclass(frozen=True, slots=True)
class Step:
    """The flows of one step, veh/h: out of each cell [cell, day], and in at each entry [entry, day]."""

    outflow: Array
    entering: Array


class Traffic:
    """The vehicles on a carriageway (`density`) and those that wait to enter it (`waiting`). It begins empty."""

    def __init__(self, road: Carriageway, days: int) -> None:
        self.density: Array = np.zeros((len(road.lanes), days))
        self.waiting: Array = np.zeros((len(road.entries), days))
        self._past = deque([self.density] * LAG_STEPS, maxlen=LAG_STEPS)
        self._road = road
        self._capacity = np.asarray(road.diagram.capacity)
        self._loss_per_excess = CAPACITY_DROP / ((FULL_DROP_AT - 1) * np.asarray(road.diagram.critical_density))
        self._staying = 1 - road.exit_share
        self._passage = _passage(road)

    def advance(self, demand: Array, open_share: Array, pace: Array) -> Step:
        """Move traffic on by `STEP_S`, under one minute's conditions."""
        road, diagram = self._road, self._road.diagram
        vigour = self._vigour()
        outflow = np.minimum(diagram.demand(self.density), self._passage * open_share * pace * vigour)
        room = np.maximum(diagram.supply(self._past[0]), 0)
        np.minimum(room[1:], self._capacity[1:] * vigour[:-1], out=room[1:])
        room *= pace

        through = np.zeros_like(room)
        np.multiply(outflow[:-1], self._staying[:-1], out=through[1:])
        entering = self._enter(demand, room[road.entries], through[road.entries])
        room[road.entries] -= entering
        np.minimum(through, room, out=through)

        np.divide(through[1:], self._staying[:-1], out=outflow[:-1])
        change = through - outflow
        change[road.entries] += entering
        self._past.append(self.density)
        self.density = self.density + change * (STEP_H / road.cell_mi)
        return Step(outflow, entering)

    def _vigour(self) -> Array:
        """The share of capacity that traffic leaving each cell can still use."""
        excess = self.density - self._road.diagram.critical_density
        excess *= self._loss_per_excess
        return 1 - np.minimum(np.maximum(excess, 0, out=excess), CAPACITY_DROP, out=excess)

    def _enter(self, demand: Array, room: Array, through: Array) -> Array:
        wanted = np.minimum(demand + self.waiting / STEP_H, self._road.entry_limit)
        entering = np.minimum(wanted, np.maximum(room - through, MERGE_SHARE * room))
        self.waiting = self.waiting + (demand - entering) * STEP_H
        return entering


def _passage(road: Carriageway) -> Array:
    """The capacity of the boundary at each cell's downstream end, for all that leaves the cell."""
    capacity = np.asarray(road.diagram.capacity)
    onward = np.append(capacity[1:] / (1 - road.exit_share[:-1]), [[np.inf]], axis=0)
    return np.minimum(capacity, onward)


def transmit(road: Carriageway, conditions: Conditions) -> Field:
    """Run whole days, each from an almost empty road."""
    minutes, cells, days = conditions.pace.shape
    traffic = Traffic(road, days)
    field = Field(*(np.zeros((minutes, cells, days), np.float32) for _ in range(2)))
    for _ in range(WARM_UP_MINUTES):
        _minute(traffic, conditions, 0)
    for minute in range(minutes):
        field.density[minute], field.flow[minute] = _minute(traffic, conditions, minute)
    return field


def _minute(traffic: Traffic, conditions: Conditions, minute: int) -> tuple[Array, Array]:
    """The mean density and outflow over one minute."""
    demand, open_share, pace = (
        history[minute].astype(np.float64) for history in (conditions.demand, conditions.open_share, conditions.pace)
    )
    density, flow = np.zeros_like(pace), np.zeros_like(pace)
    for _ in range(STEPS_PER_MINUTE):
        density += traffic.density
        flow += traffic.advance(demand, open_share, pace).outflow
    return density / STEPS_PER_MINUTE, flow / STEPS_PER_MINUTE
