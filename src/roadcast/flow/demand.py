"""How many vehicles want to use the demo's road: by direction, day of the week, day and minute."""

from datetime import date

import numpy as np
from numpy.typing import NDArray

MINUTES_PER_DAY = 1440

# Percent of the peak hour's demand, at each full hour from 0:00 to 23:00.
MORNING_PEAK = (
    10, 7, 5, 6, 14, 42, 80, 100, 95, 74, 60, 57, 58, 59, 61, 64, 67, 66, 55, 41, 33, 28, 22, 15,
)  # fmt: skip
EVENING_PEAK = (
    12, 8, 6, 6, 9, 24, 48, 62, 62, 55, 54, 57, 61, 65, 76, 92, 100, 98, 82, 56, 42, 36, 28, 18,
)  # fmt: skip
SATURDAY = (
    18, 13, 10, 8, 8, 12, 20, 30, 42, 53, 62, 68, 71, 71, 69, 67, 66, 63, 57, 48, 42, 38, 34, 26,
)  # fmt: skip
SUNDAY = (
    20, 14, 11, 8, 7, 9, 13, 20, 30, 42, 53, 60, 64, 65, 65, 66, 66, 62, 54, 45, 38, 31, 24, 16,
)  # fmt: skip
WEEKDAY_FACTOR = (0.98, 1.00, 1.01, 1.01, 1.03, 1.00, 1.00)
"""Monday to Sunday, on top of the shape of the day."""
DAY_SPREAD = 0.02
"""Standard deviation between days of the same kind; of each entry on its own, `ENTRY_SPREAD`."""
ENTRY_SPREAD = 0.04


def daily_shape(direction: str, day: date) -> NDArray[np.float64]:
    """[minute] demand as a share of that of the peak hour."""
    peak = MORNING_PEAK if direction == "N" else EVENING_PEAK
    hourly = {5: SATURDAY, 6: SUNDAY}.get(day.weekday(), peak)
    minutes = np.arange(MINUTES_PER_DAY)
    return np.interp(minutes / 60, np.arange(25), [*hourly, hourly[0]]) / 100 * WEEKDAY_FACTOR[day.weekday()]


def draw_demand(rng: np.random.Generator, direction: str, day: date, peaks: NDArray[np.float64]) -> NDArray[np.float32]:
    """[minute, entry] veh/h: Poisson arrivals around the day's shape, on a day that is busier or calmer than usual."""
    busy = 1 + DAY_SPREAD * rng.standard_normal() + ENTRY_SPREAD * rng.standard_normal(len(peaks))
    expected = daily_shape(direction, day)[:, np.newaxis] * peaks * busy
    return (rng.poisson(expected / 60) * 60).astype(np.float32)
