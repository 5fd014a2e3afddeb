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
"""The relative part of the tolerance: a share of the forecast speed."""
