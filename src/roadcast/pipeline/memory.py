"""What the forecaster's process knew of its errors: kept with each issue, so that a restart goes on from there."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import numpy as np

from roadcast.domain.reading import VARIABLES
from roadcast.domain.times import from_ms, to_ms
from roadcast.forecasting.calibration import Calibration
from roadcast.forecasting.engine import Memory, Past
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.parts import Parts, from_parts, to_parts
from roadcast.storage import calibrations, readings
from roadcast.storage.engine import Database, Writer
from roadcast.windows import tick_grid


async def keep(writer: Writer, issued_at: datetime, known: Mapping[str, Calibration], keep_after: datetime) -> None:
    """Store what is known at an issue; no more is kept than the issues after `keep_after`."""
    arrays = {
        f"{key}/{name}": np.asarray(part)
        for key, calibration in known.items()
        for name, part in to_parts(calibration).items()
    }
    await calibrations.store(writer, issued_at, arrays, keep_after)


async def recall(
    database: Database, until_ms: int, sensors: int, interval_ms: int, timezone: str, holidays: tuple[int, ...] = ()
) -> Past | None:
    """The last issues up to a time, with what was known then; None where nothing is kept.

    sensors: how many there are at least, heard or not.
    """
    async with database.read() as reader:
        known = await calibrations.until(reader, from_ms(until_ms))
        if not known:
            return None
        memories = [Memory(to_ms(each.issued_at), _restored(each.arrays)) for each in known]
        end_ms = memories[-1].issued_ms
        ticks = (end_ms - memories[0].issued_ms) // interval_ms + STATE_TICKS
        rows = await readings.between(reader, end_ms - ticks * interval_ms, end_ms)
    grid = tick_grid(
        rows.sensor_no - 1, rows.ts_ms, rows.values,
        end_ms=end_ms, ticks=ticks, sensors=max(sensors, int(rows.sensor_no.max(initial=0))), interval_ms=interval_ms,
    )  # fmt: skip
    return Past(memories, History(grid, VARIABLES, end_ms, interval_ms, timezone, holidays))


def _restored(arrays: calibrations.Arrays) -> dict[str, Calibration]:
    """By the keys under which they were kept; of another release what this one cannot read is left out."""
    parts: dict[str, Parts] = {}
    for name, array in arrays.items():
        key, _, part = name.rpartition("/")
        parts.setdefault(key, {})[part] = array
    restored: dict[str, Calibration] = {}
    for key, each in parts.items():
        with suppress(ValueError):
            restored[key] = from_parts(Calibration, each)
    return restored
