"""The newest state of the network, in memory: sensors, the latest reading of each, and the newest issue."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.sensor import Sensor
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.readings import Rows


@dataclass(slots=True)
class LiveState:
    """Written by the relay alone."""

    sensors: dict[int, Sensor] = field(default_factory=dict[int, Sensor])
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    _issue: Callable[[], IssuedRows] | None = None
    _at_ms: NDArray[np.int64] = field(default_factory=lambda: np.full(64, -1, np.int64))
    _received_ms: NDArray[np.int64] = field(default_factory=lambda: np.full(64, -1, np.int64))
    _values: NDArray[np.float32] = field(default_factory=lambda: np.full((64, 4), np.nan, np.float32))

    def know(self, sensors: dict[int, Sensor]) -> None:
        """Take in the sensors as stored."""
        self.sensors = sensors
        self.numbers = {sensor.sensor_id: number for number, sensor in sensors.items()}
        self._grow(max(sensors, default=0))

    def observe(self, rows: Rows) -> None:
        """Take in readings; an older one than the sensor's newest changes nothing, one of the same time replaces it.

        Which is older is told by `Rows.since_ms`: one from a clock that runs ahead does not hide those that follow.
        """
        if not len(rows):
            return
        self._grow(int(rows.sensor_no.max()))
        since_ms, at_ms = rows.since_ms, rows.ts_ms
        order = np.lexsort((at_ms, since_ms))  # of equal times the one that came last is written last
        number = rows.sensor_no[order]
        held_ms, held_at_ms = np.minimum(self._at_ms, self._received_ms)[number], self._at_ms[number]
        since_ms, at_ms = since_ms[order], at_ms[order]
        newer = (since_ms > held_ms) | ((since_ms == held_ms) & (at_ms >= held_at_ms))
        number, order = number[newer], order[newer]
        self._at_ms[number] = rows.ts_ms[order]
        self._received_ms[number] = rows.received_ms[order]
        self._values[number] = rows.values[order]

    @property
    def issue(self) -> IssuedRows | None:
        """The newest issue."""
        return self._issue() if self._issue else None

    def foresee(self, issue: Callable[[], IssuedRows] | None) -> None:
        """Take in how to get the newest issue, which is asked for only when someone looks at it.

        Another feed's may be of an earlier time.
        """
        self._issue = issue

    def forget(self) -> None:
        """Forget readings and issue, to read them again from the store."""
        self._at_ms[:] = self._received_ms[:] = -1
        self._issue = None

    def latest(self, sensor_no: int | None = None) -> Rows:
        """The newest reading of each sensor that has one, by number, or of one sensor."""
        if sensor_no is None:
            number = np.flatnonzero(self._at_ms >= 0).astype(np.int32)
        else:
            have = sensor_no < len(self._at_ms) and self._at_ms[sensor_no] >= 0
            number = np.array([sensor_no] if have else [], np.int32)
        return Rows(self._at_ms[number], number, self._values[number], self._received_ms[number])

    def _grow(self, number: int) -> None:
        extra = number + 1 - len(self._at_ms)
        if extra > 0:
            extra += len(self._at_ms)
            self._at_ms = np.pad(self._at_ms, (0, extra), constant_values=-1)
            self._received_ms = np.pad(self._received_ms, (0, extra), constant_values=-1)
            self._values = np.pad(self._values, ((0, extra), (0, 0)), constant_values=np.nan)
