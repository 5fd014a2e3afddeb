"""When a child that ended is started again."""

import time

LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 60.0


class Restarts:
    """Pauses of 1, 2, 4 … 30 s, counted from the end of the child; 1 s again after a minute of life."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        """The pause after its last end."""
        self._started_at = time.monotonic()
        self._due_at = 0.0

    def started(self) -> None:
        """The child was started."""
        self._started_at = time.monotonic()

    def ended(self) -> float:
        """The child ended: the pause until it is due again, in seconds."""
        now = time.monotonic()
        long_life = now - self._started_at > LONG_LIFE_S
        self.pause_s = 1.0 if long_life else min(max(1.0, 2 * self.pause_s), LONGEST_PAUSE_S)
        self._due_at = now + self.pause_s
        return self.pause_s

    @property
    def due(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self._due_at
