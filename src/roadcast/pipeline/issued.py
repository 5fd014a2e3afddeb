"""An issue as it is stored and published: the same numbers, rounded to what they mean."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.sensor import Sensor
from roadcast.forecasting.engine import Issue
from roadcast.storage.forecasts import ARRAYS, IssuedRows
from roadcast.streaming.log import Record
from roadcast.streaming.messages import IssueComplete, encode, encode_rows


def issued_rows(issue: Issue, horizons: int) -> IssuedRows:
    """The sensors of which something is known, at the first horizons."""
    known = ~np.all(np.isnan(issue.speed) & np.isnan(issue.volume), axis=1)

    def near(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values[known, :horizons]

    return IssuedRows(
        issued_ms=issue.issued_ms,
        model=issue.model,
        version=issue.model_version,
        sensor_no=(np.flatnonzero(known) + 1).astype(np.int32),
        age_ticks=issue.age_ticks[known].astype(np.int32),
        speed=np.round(near(issue.speed), 2),
        volume=np.round(near(issue.volume), 1),
        confidence=_rounded_down(near(issue.confidence), 4),
        tolerance=np.round(near(issue.tolerance), 2),
        quantiles=np.round(near(issue.quantiles), 2),
        candidates={name: near(median) for name, median in issue.candidates.items()},
    )


def _rounded_down(values: NDArray[np.float32], digits: int) -> NDArray[np.float32]:
    """No more is promised than was counted, and never all."""
    scale = 10.0**digits
    return (np.floor(values.astype(np.float64) * scale) / scale).astype(np.float32)


def issue_records(
    rows: IssuedRows, sensors: Mapping[int, Sensor], interval_ms: int, *, on_demand: bool
) -> list[Record]:
    """One message per sensor, and the one that says that they are all."""
    shared = {"issued_ms": rows.issued_ms, "interval_ms": interval_ms, "model": rows.model, "version": rows.version}
    arrays: dict[str, NDArray[np.float32]] = {name: getattr(rows, name) for name in ARRAYS}
    numbers, ages = rows.sensor_no.tolist(), rows.age_ticks.tolist()
    codes = [sensors[number].sensor_id for number in numbers]
    own = (
        {"sensor_id": code, "sensor_no": number, "age_ticks": age, **{name: a[i] for name, a in arrays.items()}}
        for i, (code, number, age) in enumerate(zip(codes, numbers, ages, strict=True))
    )
    done = IssueComplete(rows.issued_ms, len(numbers), rows.speed.shape[1], rows.model, rows.version, on_demand)
    parts = [Record(code, value) for code, value in zip(codes, encode_rows(shared, own), strict=True)]
    return [*parts, Record("", encode(done))]
