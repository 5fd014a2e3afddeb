"""The network: sensors, and the links between them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REFERENCE_PERCENTILE = 85
"""Of what is measured, which is seldom exceeded, such as the speed of free flow."""
LONGEST_CODE = 64
STEPS = (".", "..")
"""What clients take out of a path before they send it: no address could name such a sensor."""
EXPECTED_CODE = (
    f"expected a string of 1 to {LONGEST_CODE} printable characters without spaces around them, "
    f"other than {' and '.join(STEPS)}"
)


def is_code(text: str) -> bool:
    """Whether it can name a sensor: people and machines can handle it, and what looks the same is the same."""
    return 0 < len(text) <= LONGEST_CODE and text.isprintable() and text == text.strip() and text not in STEPS


@dataclass(frozen=True, slots=True)
class Sensor:
    """A detector station. Speeds in mph, milepost in miles; what is not known is None."""

    sensor_id: str
    name: str | None = None
    road: str | None = None
    direction: str | None = None
    lanes: int | None = None
    milepost: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    speed_limit: float | None = None
    reference_speed: float | None = None
    status: str = "active"

    @property
    def free_speed(self) -> float | None:
        """The speed that congestion is measured against: the reference speed, else the posted limit."""
        return self.speed_limit if self.reference_speed is None else self.reference_speed


def free_speeds(sensors: Mapping[int, Sensor]) -> NDArray[np.float32]:
    """The free speeds of sensors by number, at index number - 1; NaN where unknown."""
    speeds = np.full(max(sensors, default=0), np.nan, np.float32)
    for number, sensor in sensors.items():
        speeds[number - 1] = np.nan if sensor.free_speed is None else sensor.free_speed
    return speeds


@dataclass(frozen=True, slots=True)
class Link:
    """Traffic passes `from_sensor` and then `to_sensor`; `distance_mi` along the road, where known.

    `weight` in (0, 1] says how closely the two are coupled, where a source gives it in place of a distance.
    """

    from_sensor: str
    to_sensor: str
    distance_mi: float | None = None
    weight: float | None = None
