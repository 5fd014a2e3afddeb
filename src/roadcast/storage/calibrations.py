"""What is known of forecasters' errors at the last issues, as named arrays, from which a restart goes on."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.storage.engine import Reader, Writer

Arrays = Mapping[str, NDArray[np.generic]]


class Known(NamedTuple):
    """What was known when an issue was made."""

    issued_at: datetime
    arrays: Arrays


async def store(writer: Writer, issued_at: datetime, arrays: Arrays, keep_after: datetime) -> None:
    """Store those of an issue; drop those of later ones, which are of another feed, and of old ones."""
    await writer.run(
        "DELETE FROM calibrations WHERE issued_at >= :at OR issued_at <= :keep_after",
        at=issued_at,
        keep_after=keep_after,
    )
    await writer.run(
        "INSERT INTO calibrations (issued_at, arrays) VALUES (:at, :arrays)", at=issued_at, arrays=_packed(arrays)
    )


async def until(reader: Reader, at: datetime) -> Sequence[Known]:
    """Those of the issues until then, in their order."""
    rows = await reader.rows(
        "SELECT issued_at, arrays FROM calibrations WHERE issued_at <= :at ORDER BY issued_at", at=at
    )
    return [Known(row["issued_at"], _unpacked(row["arrays"])) for row in rows]


def _packed(arrays: Arrays) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _unpacked(packed: bytes) -> dict[str, NDArray[np.generic]]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return dict(arrays)
