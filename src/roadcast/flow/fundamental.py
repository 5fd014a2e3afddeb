"""The fundamental relations of traffic flow.

Speeds are mph, flows vehicles per hour, densities vehicles per mile, occupancies fractions. Missing (NaN) in,
missing out; a quotient by zero is missing too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEET_PER_MILE = 5280
EFFECTIVE_LENGTH_FT = 22.0
"""Length of a vehicle and of a detector's field together: the default of MnDOT IRIS and Caltrans PeMS."""

Quantity = float | NDArray[np.floating[Any]]
Result = NDArray[np.float64]


def _ratio(numerator: Quantity, denominator: Quantity) -> Result:
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def flow(volume: Quantity, interval_s: float) -> Result:
    """Vehicles per hour, from the vehicles counted in `interval_s` seconds."""
    return np.asarray(volume, np.float64) * (3600 / interval_s)


def density(flow: Quantity, speed: Quantity) -> Result:
    """Vehicles per mile, from a flow and its space-mean speed; missing at speed 0."""
    return _ratio(flow, speed)


def speed(flow: Quantity, density: Quantity) -> Result:
    """Space-mean speed; missing on an empty road."""
    return _ratio(flow, density)


def density_from_occupancy(occupancy: Quantity, effective_length_ft: float = EFFECTIVE_LENGTH_FT) -> Result:
    """Vehicles per mile of one lane, from that lane's occupancy."""
    return np.asarray(occupancy, np.float64) * (FEET_PER_MILE / effective_length_ft)


def occupancy(density: Quantity, effective_length_ft: float = EFFECTIVE_LENGTH_FT) -> Result:
    """Share of time that a detector is covered, from the density of one lane."""
    return np.asarray(density, np.float64) * (effective_length_ft / FEET_PER_MILE)


@dataclass(frozen=True, slots=True)
class TriangularDiagram:
    """The triangular flow–density relation: free speed up to capacity, then a straight line down to the jam.

    Of one lane, or of many places at once where the fields are arrays.
    """

    free_speed: Quantity
    capacity: Quantity
    jam_density: Quantity

    def of_lanes(self, lanes: Quantity) -> "TriangularDiagram":
        """The diagram of that many lanes side by side."""
        return TriangularDiagram(self.free_speed, self.capacity * lanes, self.jam_density * lanes)

    @property
    def critical_density(self) -> Quantity:
        """Where flow reaches capacity."""
        return self.capacity / self.free_speed

    @property
    def wave_speed(self) -> Quantity:
        """How fast disturbances travel upstream in a queue; positive."""
        return self.capacity / (self.jam_density - self.critical_density)

    def demand(self, density: Quantity) -> Quantity:
        """The most that traffic of this density can send downstream (Daganzo 1994)."""
        return np.minimum(self.free_speed * density, self.capacity)

    def supply(self, density: Quantity) -> Quantity:
        """The most that a place of this density can take in."""
        return np.minimum(self.wave_speed * (self.jam_density - density), self.capacity)

    def flow(self, density: Quantity) -> Quantity:
        """The flow in equilibrium."""
        return np.minimum(self.demand(density), self.supply(density))
