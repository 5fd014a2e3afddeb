"""Readings: what detectors report, as columns.

Times are int64 milliseconds since 1970 UTC; a reading's time is the end of its interval. Finer times are
rounded down to the millisecond. NaN is missing, zero is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VARIABLES = ("speed", "volume", "density", "occupancy")
"""The columns of `ReadingBatch.values`, in this order."""
SPEED, VOLUME, DENSITY, OCCUPANCY = range(4)
MOST = (200.0, 100_000.0, 10_000.0, 1.0)
"""The most that each variable can be, in the inner units. High occupancy is a jam, and is kept."""
OLDEST_MS = 631_152_000_000
"""1990-01-01: no detector archive is older, and a partition is made for every day that arrives."""


@dataclass(frozen=True, slots=True)
class ReadingBatch:
    """Readings as columns, in the order in which they arrived.

    codes: the sensors' public codes, each once; sensor: [n] int32 index into codes; at_ms: [n] int64;
    values: [n, 4] float32 in the inner units, columns as in `VARIABLES`, NaN where missing.
    """

    codes: Sequence[str]
    sensor: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.at_ms)

    def take(self, rows: NDArray[np.bool_]) -> "ReadingBatch":
        """The rows where `rows` [n] is true, with the codes that occur in them, in order of appearance."""
        used, first, inverse = np.unique(self.sensor[rows], return_index=True, return_inverse=True)
        appearance = np.argsort(first)
        rank = np.empty(len(used), np.int32)
        rank[appearance] = np.arange(len(used))
        order: list[int] = used[appearance].tolist()
        codes = tuple(self.codes[i] for i in order)
        return ReadingBatch(codes, rank[inverse], self.at_ms[rows], self.values[rows])


def merge(batches: Sequence[ReadingBatch]) -> ReadingBatch:
    """One batch of all rows, in order, each code once."""
    codes: dict[str, int] = {}
    sensor: list[NDArray[np.int32]] = []
    for batch in batches:
        lookup = np.array([codes.setdefault(code, len(codes)) for code in batch.codes], np.int32)
        sensor.append(lookup[batch.sensor])
    return ReadingBatch(
        tuple(codes),
        np.concatenate(sensor),
        np.concatenate([batch.at_ms for batch in batches]),
        np.concatenate([batch.values for batch in batches]),
    )


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the reading at `index` of what was sent was refused."""

    index: int
    field: str
    value: object
    reason: str


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the readings that arrived: accepted + duplicate + rejected = received, always."""

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    late: int = 0
    rejections: tuple[Rejection, ...] = field(default=())

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.received + other.received,
            self.accepted + other.accepted,
            self.duplicate + other.duplicate,
            self.rejected + other.rejected,
            self.late + other.late,
            self.rejections + other.rejections,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Who sends a batch.

    `replayed` sources move the feed's clock by event time; `through_ms` says that the source has sent all
    that it has up to then, so that windows up to there can close. `history` is what was known when it was
    measured: it is stored without being published, and closes no window.
    """

    name: str
    replayed: bool = False
    simulated: bool = False
    through_ms: int | None = None
    history: bool = False
