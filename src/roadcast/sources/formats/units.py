"""What a file's numbers mean: their units, and whether zero is its code for missing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import MOST, VARIABLES
from roadcast.domain.units import KM_PER_MILE
from roadcast.errors import SourceError

PER_UNIT = {
    "speed": {"mph": 1.0, "km/h": 1 / KM_PER_MILE},
    "volume": {"vehicles": 1.0},
    "density": {"veh/mi": 1.0, "veh/km": KM_PER_MILE},
    "occupancy": {"fraction": 1.0, "percent": 0.01},
}
"""How much of the inner unit, which comes first, one unit of a file makes."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The unit of each variable in a file, and whether it writes zero for missing.

    Raises:
        SourceError: where a unit is unknown.
    """

    speed: str = "mph"
    volume: str = "vehicles"
    density: str = "veh/mi"
    occupancy: str = "fraction"
    zero_is_missing: bool = False

    def __post_init__(self) -> None:
        for variable, unit in zip(VARIABLES, self.units, strict=True):
            if unit not in PER_UNIT[variable]:
                expected = " or ".join(PER_UNIT[variable])
                raise SourceError(f"{variable} unit {unit!r}: expected {expected}")

    @property
    def units(self) -> tuple[str, str, str, str]:
        """The units in the order of `VARIABLES`."""
        return self.speed, self.volume, self.density, self.occupancy

    @property
    def factors(self) -> NDArray[np.float64]:
        """What each variable is multiplied by to reach inner units."""
        return np.array([PER_UNIT[name][unit] for name, unit in zip(VARIABLES, self.units, strict=True)])

    def expected(self, column: int) -> str:
        """The range of variable `column` in the file's own unit, in words."""
        return f"0 to {MOST[column] / self.factors[column]:g} {self.units[column]}"
