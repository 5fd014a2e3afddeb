"""Units. Inside, speed is mph, density vehicles per mile, volume vehicles per interval, occupancy a fraction.

At the edge `Units` converts: `us` speaks mph and miles, `metric` km/h and kilometres.
"""

from enum import StrEnum

KM_PER_MILE = 1.609344


class Units(StrEnum):
    """The unit system that the API speaks."""

    US = "us"
    METRIC = "metric"

    @property
    def speed_per_mph(self) -> float:
        """How many of this system's speed units make one mph."""
        return KM_PER_MILE if self is Units.METRIC else 1.0

    @property
    def density_per_mile(self) -> float:
        """How many of this system's densities make one vehicle per mile."""
        return 1 / KM_PER_MILE if self is Units.METRIC else 1.0

    @property
    def speed_unit(self) -> str:
        """The name of the speed unit."""
        return "km/h" if self is Units.METRIC else "mph"

    @property
    def density_unit(self) -> str:
        """The name of the density unit."""
        return "veh/km" if self is Units.METRIC else "veh/mi"

    @property
    def tolerance_mph(self) -> float:
        """The absolute part of the tolerance that `confidence` speaks of: 5 mph, or 8 km/h."""
        return 8 / KM_PER_MILE if self is Units.METRIC else 5.0


TOLERANCE_SHARE = 0.10
"""The relative part of the tolerance: a share of what is forecast."""
VOLUME_TOLERANCE_S = 30
DENSITY_TOLERANCE = 5.0
OCCUPANCY_TOLERANCE = 0.02


def absolute_tolerance(variable: str, interval_s: int, units: Units = Units.US) -> float:
    """The absolute part of the tolerance that `confidence` speaks of, in the inner unit of the variable.

    speed: 5 mph or 8 km/h; volume: one vehicle for each 30 s of the interval, 120 an hour; occupancy: two percentage
    points; density: 5 vehicles per mile, which is about what two points of occupancy are.
    """
    known = {
        "speed": units.tolerance_mph,
        "volume": interval_s / VOLUME_TOLERANCE_S,
        "density": DENSITY_TOLERANCE,
        "occupancy": OCCUPANCY_TOLERANCE,
    }
    return known[variable]
