"""The state of the network: its last ticks as a grid, of which only what has changed is read again."""

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.reading import VARIABLES
from roadcast.forecasting.history import STATE_TICKS
from roadcast.storage.readings import Rows
from roadcast.windows import tick_end, tick_grid


class StateWindow:
    """The last `STATE_TICKS` ticks, [STATE_TICKS, sensors, 4].

    Whoever moves it on calls `take`, reads what that says, and gives it to `update`. What is heard in between is for
    the next time. One that could not be updated is forgotten, and a new one reads all.
    """

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self._grid = np.full((STATE_TICKS, 0, len(VARIABLES)), np.nan, np.float32)
        self._end_ms: int | None = None
        self._changed_ms: int | None = None

    def touch(self, at_ms: int) -> None:
        """A reading of this time was stored."""
        before_ms = int(tick_end(np.array([at_ms], np.int64), self._interval_ms)[0]) - self._interval_ms
        self._changed_ms = before_ms if self._changed_ms is None else min(before_ms, self._changed_ms)

    def is_behind(self, end_ms: int) -> bool:
        """Whether readings have come that it does not hold, of ticks up to `end_ms`."""
        if self._end_ms is None or self._end_ms < end_ms:
            return True
        return self._changed_ms is not None and self._changed_ms < end_ms

    def is_past(self, end_ms: int) -> bool:
        """Whether it has come further than `end_ms`: it cannot go back."""
        return self._end_ms is not None and self._end_ms > end_ms

    def take(self, end_ms: int) -> int:
        """The time after which readings must be read again, to move on to the tick that ends at `end_ms`."""
        known = [at_ms for at_ms in (self._end_ms, self._changed_ms) if at_ms is not None]
        self._changed_ms = None
        first_ms = end_ms - STATE_TICKS * self._interval_ms
        return first_ms if self._end_ms is None else max(first_ms, min(known))

    def update(self, end_ms: int, since_ms: int, rows: Rows, sensors: int) -> NDArray[np.float32]:
        """Move on to `end_ms` with the readings in (since, end]; a copy of the grid."""
        ticks = (end_ms - since_ms) // self._interval_ms
        moved = 0 if self._end_ms is None else (end_ms - self._end_ms) // self._interval_ms
        grid = np.full((STATE_TICKS, sensors, len(VARIABLES)), np.nan, np.float32)
        kept = self._grid[moved:] if moved < STATE_TICKS else self._grid[:0]
        grid[: len(kept), : kept.shape[1]] = kept
        grid[STATE_TICKS - ticks :] = tick_grid(
            rows.sensor_no - 1, rows.ts_ms, rows.values,
            end_ms=end_ms, ticks=ticks, sensors=sensors, interval_ms=self._interval_ms,
        )  # fmt: skip
        self._grid, self._end_ms = grid, end_ms
        return grid.copy()
