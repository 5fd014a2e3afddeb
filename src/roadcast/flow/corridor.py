"""Simulated days on the demo's corridor.

A day depends on its seed and date alone: the same pair gives the same bits, whichever days are computed with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from roadcast.errors import FieldError, InvalidInput
from roadcast.flow.closures import CorridorIncident, draw_incidents, open_share
from roadcast.flow.demand import MINUTES_PER_DAY, daily_shape, draw_demand
from roadcast.flow.detectors import FAULTY_SENSOR, lose, measure, stick
from roadcast.flow.road import Corridor, Station
from roadcast.flow.transmission import Carriageway, Conditions, Field, transmit

DAYS_AT_ONCE = 56
"""Days computed side by side: the work per day falls, and memory grows by about 4 MB a day."""
PACE_SPREAD = 0.04
PACE_MEMORY = 0.75
"""How much of one minute's deviation is left in the next."""
PACE_LIMITS = (0.6, 1.2)

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CellField:
    """The traffic all along one carriageway, [minute, cell]: veh/mi on all lanes, and veh/h."""

    density: Array
    flow: Array


@dataclass(frozen=True, slots=True)
class CorridorDay:
    """One simulated day.

    values: [interval, station, variable], in the order of `Corridor.stations` and of `VARIABLES`, NaN where
    missing; row i ends (i + 1) intervals after local midnight. cells: of each carriageway, where asked for.
    """

    date: date
    values: Array
    incidents: tuple[CorridorIncident, ...]
    cells: tuple[CellField, ...] = ()


@dataclass(frozen=True, slots=True)
class _Draw:
    """What chance gives one carriageway on one day; `rng` goes on with the detectors."""

    demand: Array
    roughness: Array
    incidents: tuple[CorridorIncident, ...]
    rng: np.random.Generator


def simulate_days(
    corridor: Corridor, seed: int, dates: Sequence[date], interval_s: int = 300, *, with_cells: bool = False
) -> list[CorridorDay]:
    """Simulate each date for 24 hours, from an almost empty road at local midnight.

    Raises:
        InvalidInput: if `interval_s` is not a whole number of minutes that divides an hour.
    """
    if interval_s <= 0 or interval_s % 60 or 3600 % interval_s:
        reason = "expected whole minutes that divide an hour, such as 300"
        raise InvalidInput(f"interval_s={interval_s}: {reason}", (FieldError("interval_s", interval_s, reason),))
    days: list[CorridorDay] = []
    for first in range(0, len(dates), DAYS_AT_ONCE):
        for day, draws, cells in _run(corridor, seed, dates[first : first + DAYS_AT_ONCE]):
            values = _report(corridor, draws, cells, interval_s)
            incidents = sorted((each for draw in draws for each in draw.incidents), key=lambda each: each.start_s)
            days.append(CorridorDay(day, values, tuple(incidents), cells if with_cells else ()))
    return days


def _run(
    corridor: Corridor, seed: int, dates: Sequence[date]
) -> Iterator[tuple[date, tuple[_Draw, ...], tuple[CellField, ...]]]:
    """Run some days side by side; of each day, what chance gave and what came of it on each carriageway."""
    roads = corridor.carriageways
    drawn = [[_draw(corridor, number, seed, day) for day in dates] for number in range(len(roads))]
    fields = [transmit(road, _conditions(road, draws)) for road, draws in zip(roads, drawn, strict=True)]
    for index, day in enumerate(dates):
        yield day, tuple(draws[index] for draws in drawn), tuple(_of_day(field, index) for field in fields)


def _draw(corridor: Corridor, number: int, seed: int, day: date) -> _Draw:
    road = corridor.carriageways[number]
    rng = np.random.default_rng(np.random.SeedSequence([seed, day.toordinal(), number]))
    demand = draw_demand(rng, road.direction, day, corridor.entry_peaks[number])
    incidents = draw_incidents(rng, corridor, number, daily_shape(road.direction, day))
    roughness = rng.standard_normal((MINUTES_PER_DAY, len(road.lanes)), np.float32)
    return _Draw(demand, roughness, incidents, rng)


def _conditions(road: Carriageway, draws: Sequence[_Draw]) -> Conditions:
    return Conditions(
        demand=np.stack([draw.demand for draw in draws], axis=-1),
        open_share=np.stack([open_share(draw.incidents, road.lanes) for draw in draws], axis=-1),
        pace=_pace(np.stack([draw.roughness for draw in draws], axis=-1)),
    )


def _pace(roughness: Array) -> Array:
    """Deviations [minute, cell, day], independent at first, made to fade over minutes: a factor about 1."""
    roughness *= np.sqrt(1 - PACE_MEMORY**2, dtype=np.float32)
    for minute in range(1, len(roughness)):
        roughness[minute] += np.float32(PACE_MEMORY) * roughness[minute - 1]
    return np.clip(1 + np.float32(PACE_SPREAD) * roughness, *PACE_LIMITS)


def _of_day(field: Field, index: int) -> CellField:
    return CellField(field.density[:, :, index].copy(), field.flow[:, :, index].copy())


def _report(corridor: Corridor, draws: Sequence[_Draw], cells: Sequence[CellField], interval_s: int) -> Array:
    """What all stations report of a day, [interval, station, variable]."""
    parts = [
        _report_of(corridor.stations_of(number), road.lanes, draw.rng, field, interval_s)
        for number, (road, draw, field) in enumerate(zip(corridor.carriageways, draws, cells, strict=True))
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _report_of(
    stations: Sequence[Station], lanes: NDArray[np.int64], rng: np.random.Generator, field: CellField, interval_s: int
) -> NDArray[np.float64]:
    watched = [station.cell for station in stations]
    density, flow = (_means(history[:, watched], interval_s // 60) for history in (field.density, field.flow))
    values = measure(rng, density, flow, lanes[watched], interval_s / 3600)
    for place, station in enumerate(stations):
        if station.sensor.sensor_id == FAULTY_SENSOR:
            stick(rng, values[:, place])
    lose(rng, values)
    return values


def _means(minutes: Array, per_interval: int) -> NDArray[np.float64]:
    """Means over intervals of so many minutes, [minute, station] to [interval, station]."""
    return minutes.reshape(-1, per_interval, minutes.shape[1]).mean(axis=1, dtype=np.float64)
