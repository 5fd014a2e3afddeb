"""Ids that are derived, never stored: UUIDs (version 8) that pack a time, a sensor's number and a horizon.

Layout, from the most significant bit: 48 bits milliseconds since 1970, 4 bits version (8), 12 bits horizon in
minutes (0: a reading), 2 bits variant, 30 bits zero, 32 bits sensor number.
"""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Packed:
    """What an id says: a sensor's number, a time, and for forecasts a horizon."""

    sensor_no: int
    at_ms: int
    horizon_minutes: int = 0


def pack(sensor_no: int, at_ms: int, horizon_minutes: int = 0) -> UUID:
    """The id of a reading (horizon 0) or of a forecast, of a time from 1970 on."""
    return UUID(int=(at_ms & (1 << 48) - 1) << 80 | 8 << 76 | horizon_minutes << 64 | 2 << 62 | sensor_no)


def unpack(uuid: UUID) -> Packed | None:
    """What `pack` packed, or None where it did not make that id."""
    value = uuid.int
    packed = Packed(value & (1 << 32) - 1, value >> 80, value >> 64 & 0xFFF)
    return packed if pack(packed.sensor_no, packed.at_ms, packed.horizon_minutes) == uuid else None
