"""Congestion as a share of the speed that the same place has in light traffic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.sensor import REFERENCE_PERCENTILE

_Real = TypeVar("_Real", bound=np.floating[Any])

LOW_OCCUPANCY = 0.10
"""Traffic below this occupancy is light: 24 vehicles per mile and lane, under the density at capacity."""
MIN_SAMPLES = 288
"""Fewer light samples (one day of 5-minute intervals) give no reference speed."""


class CongestionLevel(StrEnum):
    """How congested a place is, by the mission's words."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    SEVERE = "severe"


@dataclass(frozen=True, slots=True)
class CongestionScheme:
    """How levels are told, for answers. A level reaches from its cut-off (included) up to that of the level before."""

    name: str
    cut_offs: Mapping[CongestionLevel, float]
    method: str


SCHEME = CongestionScheme(
    name="speed ratio, four levels",
    cut_offs=MappingProxyType(
        {
            CongestionLevel.LOW: 0.75,
            CongestionLevel.MEDIUM: 0.50,
            CongestionLevel.HIGH: 0.25,
            CongestionLevel.SEVERE: 0.0,
        }
    ),
    method=(
        f"speed / reference speed; the reference is the {REFERENCE_PERCENTILE}th percentile of speeds at occupancy "
        f"below {LOW_OCCUPANCY:.0%} (at least {MIN_SAMPLES} samples), else the speed limit"
    ),
)
CONGESTED_BELOW = SCHEME.cut_offs[CongestionLevel.LOW]
JAM_BELOW = SCHEME.cut_offs[CongestionLevel.MEDIUM]
"""Traffic under this share of the reference speed, `high` or `severe`, is jammed."""
UNKNOWN = "unknown"
STATES = ("low", "medium", "high", "severe", UNKNOWN)
"""The levels from light to severe, and what is said where no reference speed is known."""
JAM_STATES = ("high", "severe")


def level(ratio: float | None) -> CongestionLevel | None:
    """The level of speed / reference speed; None where the ratio is unknown (None or NaN)."""
    if ratio is None or math.isnan(ratio):
        return None
    return next((name for name, cut_off in SCHEME.cut_offs.items() if ratio >= cut_off), CongestionLevel.SEVERE)


def states(speed: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The place in `STATES` of every speed, against a reference speed that may be unknown (NaN)."""
    ratio = speed / np.where(reference > 0, reference, np.nan)
    passed = np.digitize(ratio, sorted(SCHEME.cut_offs.values())[1:])
    return np.where(np.isnan(ratio), STATES.index(UNKNOWN), len(SCHEME.cut_offs) - 1 - passed).astype(np.int64)


def light_speeds(speed: NDArray[_Real], occupancy: NDArray[_Real]) -> NDArray[_Real]:
    """The speeds in light traffic: at an occupancy below `LOW_OCCUPANCY`, or one that is not reported; else NaN."""
    return np.where(occupancy >= LOW_OCCUPANCY, speed.dtype.type(np.nan), speed)


def reference_speed(light: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The 85th percentile of a sensor's speeds in light traffic, linearly interpolated between ranks.

    Args:
        light: `light_speeds` [time] or [time, sensor].

    Returns:
        [] or [sensor]; NaN where fewer than `MIN_SAMPLES` are known.
    """
    if len(light) < MIN_SAMPLES:
        return np.full(light.shape[1:], np.nan)
    light = np.sort(light, axis=0)
    count = np.isfinite(light).sum(axis=0)
    rank = np.maximum(count - 1, 0) * (REFERENCE_PERCENTILE / 100)
    below, above = (_row(light, edge(rank)).astype(np.float64) for edge in (np.floor, np.ceil))
    return np.where(count >= MIN_SAMPLES, below + (above - below) * (rank % 1), np.nan)


def _row(values: NDArray[np.floating[Any]], index: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
    """values[index[s], s] for every sensor s."""
    return np.take_along_axis(values, index[np.newaxis].astype(np.intp), axis=0)[0]
