"""When the ticks of a replay are due. Pure: the caller brings the clock and does the waiting."""

import math
from dataclasses import dataclass

from roadcast.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Pace:
    """A replay at `speed` seconds of event time per second; 0 and infinity are as fast as possible.

    The tick at `first_at_ms` is due at `started_s`, on a clock that only moves forward. A replay that falls
    behind catches up without waiting.

    Raises:
        InvalidInput: where `speed` is negative or not a number.
    """

    speed: float
    first_at_ms: int
    started_s: float

    def __post_init__(self) -> None:
        if not self.speed >= 0:
            raise InvalidInput(f"speed {self.speed:g}: expected a factor above 0, or 0 for as fast as possible")

    def due_s(self, at_ms: int) -> float:
        """When the tick at `at_ms` is due, on the clock of `started_s`."""
        if self.speed == 0 or math.isinf(self.speed):
            return self.started_s
        return self.started_s + (at_ms - self.first_at_ms) / 1000 / self.speed

    def wait_s(self, at_ms: int, now_s: float) -> float:
        """How long to wait from `now_s` until the tick at `at_ms` is due."""
        return max(0.0, self.due_s(at_ms) - now_s)
