"""What detector stations report of the traffic in their cells: with noise, gaps and one faulty station."""

import numpy as np
from numpy.typing import NDArray

from roadcast.flow import fundamental

DRIVER_SPREAD_MPH = 6.0
"""Standard deviation of speed between drivers: the mean of few vehicles is rough."""
COUNT_ERROR = 0.01
OCCUPANCY_ERROR = 0.03
CALIBRATION_ERROR = 0.012
DROPOUT = 0.004
"""Chance that one interval of one station is missing."""
OUTAGE = 0.03
"""Chance that a station is silent for hours on a day."""
FAULTY_SENSOR = "SENSOR_017"
"""On about one day in three it is stuck for hours: it repeats its last reading."""
FAULT = 1 / 3

Array = NDArray[np.float64]


def measure(rng: np.random.Generator, density: Array, flow: Array, lanes: NDArray[np.int64], hours: float) -> Array:
    """One day of readings, [interval, station, variable], without gaps.

    density, flow: [interval, station] means over intervals of `hours`, on all lanes. Where no vehicle was
    counted there is no speed.
    """
    count, speed_noise, occupancy_noise = rng.standard_normal((3, *flow.shape))
    calibration = 1 + CALIBRATION_ERROR * np.sin(2.3 * np.arange(len(lanes)))  # a station's own, the same every day
    volume = np.rint(flow * hours * (1 + COUNT_ERROR * count))
    counted = np.where(volume > 0, volume, np.nan)
    # Drivers differ less in a queue, where each follows the one ahead.
    mean_speed = fundamental.speed(flow, density)
    spread = np.minimum(DRIVER_SPREAD_MPH, 0.2 * mean_speed) / np.sqrt(counted)
    speed = mean_speed * calibration + spread * np.clip(speed_noise, -3, 3)
    occupied = fundamental.occupancy(density / lanes) * (1 + OCCUPANCY_ERROR * occupancy_noise)
    reported = np.where(volume > 0, fundamental.density(volume / hours, speed), 0)
    return np.stack([speed, volume, reported, np.where(volume > 0, occupied / calibration, 0)], axis=-1)


def lose(rng: np.random.Generator, values: Array) -> None:
    """Remove single intervals and whole hours of stations, in place."""
    intervals = len(values)
    stations: int = values.shape[1]
    gone = rng.random((intervals, stations)) < DROPOUT
    for station in np.flatnonzero(rng.random(stations) < OUTAGE).tolist():
        gone[_hours(rng, intervals), station] = True
    values[gone] = np.nan


def stick(rng: np.random.Generator, values: Array) -> None:
    """On some days let a station, [interval, variable], repeat one reading for hours, in place."""
    if rng.random() < FAULT:
        stuck = _hours(rng, len(values))
        values[stuck] = values[stuck.start]


def _hours(rng: np.random.Generator, intervals: int) -> slice:
    """A stretch of one to six hours of a day of so many intervals."""
    start, length = rng.random() * 18 / 24, rng.uniform(1, 6) / 24
    return slice(int(start * intervals), int((start + length) * intervals))
