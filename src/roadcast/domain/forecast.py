"""Forecasts: what is said about the future, by whom, and how surely."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
"""The quantile levels of every forecast, in this order."""

LONGEST_MINUTES = 120
"""The longest horizon that can be asked for."""

QUANTILE_NAMES = tuple(f"p{round(level * 100):02d}" for level in QUANTILES)


@dataclass(frozen=True, slots=True)
class Forecast:
    """One sensor's forecast for one target time. Speeds in mph; what is not known is None.

    `confidence` is the counted share of past forecasts like this whose error was within `tolerance`.
    """

    id: UUID
    sensor_id: str
    issued_at: datetime
    target_time: datetime
    horizon_minutes: int
    speed: float | None
    volume: float | None
    confidence: float | None
    tolerance: float | None
    quantiles: tuple[float | None, ...]
    model_name: str
    model_version: str
    age_ticks: int
