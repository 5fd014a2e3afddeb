"""What is known of every forecaster's errors at the last issues, from which a restart goes on."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from roadcast.storage.engine import Reader, Writer


@dataclass(frozen=True, slots=True)
class Known:
    """Named arrays of one forecaster, as they were when it issued."""

    issued_at: datetime
    forecaster: str
    arrays: Mapping[str, NDArray[np.generic]]


async def store(
    writer: Writer, issued_at: datetime, arrays: Mapping[str, Mapping[str, NDArray[np.generic]]], keep_after: datetime
) -> None:
    """Store those of an issue, by forecaster; drop those of later ones, which are of another feed, and of old ones."""
    await writer.run(
        "DELETE FROM calibrations WHERE issued_at >= :at OR issued_at <= :keep_after",
        at=issued_at,
        keep_after=keep_after,
    )
    await writer.run_each(
        "INSERT INTO calibrations (issued_at, forecaster, arrays) VALUES (:at, :forecaster, :arrays)",
        [{"at": issued_at, "forecaster": name, "arrays": _packed(each)} for name, each in arrays.items()],
    )


async def until(reader: Reader, at: datetime) -> Sequence[Known]:
    """Those of the issues until then, in their order."""
    rows = await reader.rows(
        """SELECT issued_at, forecaster, arrays FROM calibrations WHERE issued_at <= :at
        ORDER BY issued_at, forecaster""",
        at=at,
    )
    return [Known(row["issued_at"], row["forecaster"], _unpacked(row["arrays"])) for row in rows]


def _packed(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _unpacked(packed: bytes) -> dict[str, NDArray[np.generic]]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return dict(arrays)
