"""Speeds with a day of their own and waves around it, which own lags foretell and a decaying deviation does not."""

import numpy as np

from roadcast.forecasting.history import History

DAY = 288
INTERVAL_MS = 300_000
START_MS = 1_331_510_400_000
"""Midnight (UTC) of a Monday: 2012-03-12."""


def speeds(ticks: int, sensors: int = 3, seed: int = 0) -> np.ndarray:
    """[ticks, sensors] mph: a dip each day, and waves of two hours whose phase wanders."""
    random = np.random.default_rng(seed)
    tick = np.arange(ticks)[:, None]
    phase = random.normal(0, 0.05, (ticks, sensors)).cumsum(axis=0)
    daily = 55 + 8 * np.cos(2 * np.pi * tick / DAY)
    return (daily + 8 * np.sin(2 * np.pi * tick / 24 + phase) + random.normal(0, 0.5, (ticks, sensors))).astype(
        np.float32
    )


def history_of(values: np.ndarray, volumes: np.ndarray | None = None) -> History:
    """Of speeds [ticks, sensors] from START_MS on; without volumes these are missing."""
    volumes = np.full_like(values, np.nan) if volumes is None else volumes
    end_ms = START_MS + len(values) * INTERVAL_MS
    return History(
        np.stack([values, volumes], axis=-1).astype(np.float32), ("speed", "volume"), end_ms, INTERVAL_MS, "UTC"
    )
