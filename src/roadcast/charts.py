"""The field's two pictures, of simulated or real data: the time-space diagram and the fundamental diagram."""
# matplotlib leaves its keyword arguments untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from roadcast.domain.reading import DENSITY, VOLUME
from roadcast.flow.corridor import CorridorDay
from roadcast.flow.fundamental import TriangularDiagram
from roadcast.flow.fundamental import speed as mean_speed
from roadcast.flow.road import LANE, Corridor

COLOURS = "viridis"
"""Told apart by the colour-blind, and in grey: dark is slow."""
FREE_MPH = 70.0

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of time at a place, with what happened: hours, miles."""

    start_h: float
    end_h: float
    mile: float
    label: str


def time_space_diagram(
    path: Path,
    speed: Values,
    hours: Values,
    miles: Values,
    *,
    title: str,
    marks: Sequence[Mark] = (),
    simulated: bool = False,
) -> Path:
    """Speed over time (across) and place (up, in the direction of travel), as a PNG.

    Args:
        path: the file to write.
        speed: [time, place] mph; NaN stays blank.
        hours: [time + 1] edges, in hours.
        miles: [place + 1] edges, in miles travelled.
        title: what is shown.
        marks: drawn at their place while they last.
        simulated: say so in the picture.
    """
    figure, axes = _canvas(title, simulated)
    mesh = axes.pcolormesh(hours, miles, speed.T, cmap=COLOURS, vmin=0, vmax=FREE_MPH, rasterized=True)
    figure.colorbar(mesh, ax=axes, label="speed (mph)", pad=0.015)
    for mark in marks:
        axes.hlines(mark.mile, mark.start_h, mark.end_h, colors="white", linewidth=5)
        axes.hlines(mark.mile, mark.start_h, mark.end_h, colors="crimson", linewidth=3)
        axes.annotate(mark.label, (mark.start_h, mark.mile), (0, 5), textcoords="offset points", fontsize=7)
    axes.set(xlabel="time of day (h)", ylabel="distance in the direction of travel (mi)")
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 3, 6, 10]))
    axes.set_xlim(hours[0], hours[-1])
    return _save(figure, path)


def fundamental_diagram(
    path: Path,
    density: Values,
    flow: Values,
    *,
    title: str,
    diagram: TriangularDiagram | None = None,
    simulated: bool = False,
) -> Path:
    """Flow over density, one point for each reading, as a PNG.

    Args:
        path: the file to write.
        density: veh/mi, of one lane.
        flow: veh/h of one lane, the same shape; points are coloured by flow / density.
        title: what is shown.
        diagram: drawn as a line.
        simulated: say so in the picture.
    """
    figure, axes = _canvas(title, simulated)
    known = np.isfinite(density) & np.isfinite(flow) & (density > 0)
    k, q = density[known], flow[known]
    points = axes.scatter(k, q, c=q / k, s=5, cmap=COLOURS, vmin=0, vmax=FREE_MPH, linewidths=0, alpha=0.7)
    figure.colorbar(points, ax=axes, label="speed (mph)", pad=0.015)
    if diagram is not None:
        corners = [0, float(diagram.critical_density), float(diagram.jam_density)]
        axes.plot(corners, [0, float(diagram.capacity), 0], color="black", linewidth=1, label="triangular diagram")
        axes.legend(loc="upper right", frameon=False)
    axes.set(xlabel="density (veh/mi/lane)", ylabel="flow (veh/h/lane)", xlim=(0, None), ylim=(0, None))
    return _save(figure, path)


def draw_corridor(folder: Path, day: CorridorDay, corridor: Corridor) -> list[Path]:
    """Both pictures of both carriageways of a simulated day, which must hold its cells.

    Raises:
        ValueError: if `day` was simulated without cells.
    """
    if not day.cells:
        raise ValueError(f"the day {day.date} holds no cells: expected simulate_days(…, with_cells=True)")
    folder.mkdir(parents=True, exist_ok=True)
    return [
        draw(folder, day, corridor, number)
        for number in range(len(corridor.carriageways))
        for draw in (_draw_time_space, _draw_fundamental)
    ]


def _draw_time_space(folder: Path, day: CorridorDay, corridor: Corridor, number: int) -> Path:
    road, field = corridor.carriageways[number], day.cells[number]
    marks = [
        Mark(each.start_s / 3600, each.end_s / 3600, (each.cell + 1) * road.cell_mi, each.type.replace("_", " "))
        for each in day.incidents
        if each.direction == road.direction
    ]
    minutes, cells = len(field.density), len(road.lanes)
    return time_space_diagram(
        folder / f"time-space-{road.direction}.png",
        mean_speed(field.flow, field.density),
        np.linspace(0, minutes / 60, minutes + 1),
        np.linspace(0, cells * road.cell_mi, cells + 1),
        title=f"{corridor.road} {road.direction}, {day.date:%A %d %B %Y}",
        marks=marks,
        simulated=True,
    )


def _draw_fundamental(folder: Path, day: CorridorDay, corridor: Corridor, number: int) -> Path:
    road = corridor.carriageways[number]
    columns = [place for place, station in enumerate(corridor.stations) if station.carriageway == number]
    lanes = road.lanes[[corridor.stations[place].cell for place in columns]]
    volume, density = day.values[:, columns, VOLUME], day.values[:, columns, DENSITY]
    intervals_per_hour = len(day.values) / 24
    return fundamental_diagram(
        folder / f"fundamental-{road.direction}.png",
        density / lanes,
        volume * intervals_per_hour / lanes,
        title=f"{corridor.road} {road.direction}, {day.date:%A %d %B %Y}: detector stations",
        diagram=LANE,
        simulated=True,
    )


def _canvas(title: str, simulated: bool) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(11, 5.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{title} (simulated)" if simulated else title, loc="left")
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    """Write the PNG; its title is in its metadata too, where a picture is found by search."""
    figure.savefig(path, format="png", metadata={"Title": figure.axes[0].get_title(loc="left")})
    return path
