"""Forecasts that were asked for and reach further than those that are issued: of one sensor, up to the longest horizon.

Who asks leaves a row that has no issue yet; the next issue answers it, also after a restart.
"""

from collections.abc import Iterable
from datetime import date, datetime

from roadcast.domain.times import from_ms
from roadcast.storage.engine import Reader, Writer
from roadcast.storage.forecasts import ARRAYS, IssuedRows, assemble, model_no


async def ask(writer: Writer, at: datetime, sensor_no: int, *, anew: bool) -> None:
    """Ask for a sensor's forecast from the tick that ends then; `anew` though it was made before."""
    what = "UPDATE SET issued_at = NULL" if anew else "NOTHING"
    await writer.run(
        f"INSERT INTO asked (asked_at, sensor_no) VALUES (:at, :sensor_no) ON CONFLICT (asked_at, sensor_no) DO {what}",
        at=at,
        sensor_no=sensor_no,
    )


async def fulfil(writer: Writer, issue: IssuedRows) -> bool:
    """Give everybody who asks for its tick or an earlier one what this issue says; nothing of a sensor not in it.

    Whether somebody asks for a later one.
    """
    issued_at = from_ms(issue.issued_ms)
    waiting = await writer.rows("SELECT asked_at, sensor_no FROM asked WHERE issued_at IS NULL")
    due = {each["sensor_no"] for each in waiting if each["asked_at"] <= issued_at}
    if due:
        await _fulfil(writer, issue, due)
    return any(each["asked_at"] > issued_at for each in waiting)


async def _fulfil(writer: Writer, issue: IssuedRows, due: Iterable[int]) -> None:
    number = await model_no(writer, issue.model, issue.version, [])
    row_of = {sensor_no: row for row, sensor_no in enumerate(issue.sensor_no.tolist())}
    for sensor_no in due:
        row = row_of.get(sensor_no)
        arrays: dict[str, list[float]] = {
            name: [] if row is None else getattr(issue, name)[row].ravel().tolist() for name in ARRAYS
        }
        await writer.run(
            """UPDATE asked SET issued_at = :at, model_no = :model_no, age_ticks = :age, speed = :speed,
              volume = :volume, confidence = :confidence, tolerance = :tolerance, quantiles = :quantiles
            WHERE sensor_no = :sensor_no AND issued_at IS NULL AND asked_at <= :at""",
            at=from_ms(issue.issued_ms),
            model_no=number,
            age=0 if row is None else int(issue.age_ticks[row]),
            sensor_no=sensor_no,
            **arrays,
        )


async def is_waiting(reader: Reader, at: datetime, sensor_no: int) -> bool | None:
    """Whether what was asked for is still to come; None where nobody asked."""
    row = await reader.row(
        "SELECT issued_at IS NULL AS waits FROM asked WHERE asked_at = :at AND sensor_no = :sensor_no",
        at=at,
        sensor_no=sensor_no,
    )
    return None if row is None else row["waits"]


async def found(reader: Reader, at: datetime, sensor_no: int) -> IssuedRows | None:
    """What was asked for, as an issue of one sensor; None where nothing was known of it, or it is still to come."""
    rows = await reader.rows(
        """SELECT a.*, m.name AS model, m.version, m.candidates AS names
        FROM asked a JOIN models m USING (model_no)
        WHERE asked_at = :at AND sensor_no = :sensor_no AND cardinality(speed) > 0""",
        at=at,
        sensor_no=sensor_no,
    )
    return assemble(rows) if rows else None


async def forget_before(writer: Writer, first: date) -> None:
    """Drop what was asked before a day."""
    await writer.run("DELETE FROM asked WHERE asked_at < :first", first=first)
