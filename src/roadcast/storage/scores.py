"""Scores: the sums of errors by local day and hour, forecaster, horizon and state of congestion; and by sensor.

What was published is scored under the model that published it, and what each forecaster said under a number of its own
(`forecasts.forecaster_numbers`). Beside the states, which are apart from each other, stands the stratum `onset`.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from roadcast.flow.onsets import ONSET
from roadcast.forecasting.scoring import MEASURES, RELIABILITY, SERVED, TENTHS, Sums
from roadcast.scoreboard import BY_SENSOR, Group, Score, SensorSums
from roadcast.storage.copy import copy_in, copy_out, dates, double_arrays, integer_arrays, integers
from roadcast.storage.engine import Reader, Writer
from roadcast.storage.forecasts import forecaster_numbers

KEY = ("day", "hour", "model_no", "horizon_minutes", "state")

_TYPES = {"day": "date", "hour": "smallint", "model_no": "integer", "horizon_minutes": "integer", "state": "text"}
_COUNTED = ("n", "relative_n", "interval_n", "covered_80", "covered_90", "confidence_n", "within_n")
_COLUMNS = (*KEY, *MEASURES, *RELIABILITY)
_MODEL = f"CASE WHEN m.candidates = '{{}}' THEN m.name ELSE '{SERVED}' END"


def _type(name: str) -> str:
    return _TYPES.get(name) or ("bigint" if name in _COUNTED else "double precision")


async def add(writer: Writer, groups: Sequence[Group], sums: Sums) -> None:
    """Add sums, one row for each group, to what is stored."""
    if not groups:
        return
    numbers = await forecaster_numbers(writer, {group.forecaster for group in groups if group.publisher is None})
    keys = {name: [getattr(group, name) for group in groups] for name in KEY if name != "model_no"}
    keys["model_no"] = [numbers.get(group.forecaster, group.publisher) for group in groups]
    measures = {
        name: (column.astype(np.int64) if name in _COUNTED else column).tolist()
        for name, column in zip(MEASURES, sums.measures.T, strict=True)
    }
    tenths = {name: _literals(sums.tenths[:, i], name in _COUNTED) for i, name in enumerate(RELIABILITY)}
    await writer.run(_ADD, **keys, **measures, **tenths)


def _literals(rows: NDArray[np.float64], counted: bool) -> list[str]:
    """Arrays as PostgreSQL writes them, since `unnest` would take arrays of arrays apart; empty where all is zero."""
    plain: list[list[float]] = (rows.astype(np.int64) if counted else rows).tolist()
    return ["{" + ",".join(map(repr, row)) + "}" if any(row) else "{}" for row in plain]


def _adding() -> str:
    arrays = [f"CAST(:{name} AS {'text' if name in RELIABILITY else _type(name)}[])" for name in _COLUMNS]
    chosen = [f"CAST({name} AS {_type(name)}[])" if name in RELIABILITY else name for name in _COLUMNS]
    sets = [f"{name} = s.{name} + excluded.{name}" for name in MEASURES]
    sets += [
        f"""{name} = coalesce((SELECT array_agg(coalesce(a, 0) + coalesce(b, 0) ORDER BY i)
        FROM unnest(s.{name}, excluded.{name}) WITH ORDINALITY AS both_of(a, b, i)), '{{}}')"""
        for name in RELIABILITY
    ]
    return f"""INSERT INTO scores AS s ({", ".join(_COLUMNS)})
      SELECT {", ".join(chosen)} FROM unnest({", ".join(arrays)}) AS given ({", ".join(_COLUMNS)})
      ON CONFLICT ({", ".join(KEY)}) DO UPDATE SET {", ".join(sets)}"""


_ADD = _adding()


async def add_by_sensor(writer: Writer, added: SensorSums) -> None:
    """Add sums to what is stored.

    Rows are read, added to, and written anew: many times faster than adding arrays in SQL.
    """
    numbers = await forecaster_numbers(writer, set(added.forecaster))
    model_no = np.array([numbers[name] for name in added.forecaster], np.int64)
    horizons: int = added.sums.shape[2]
    whose = {"day": added.day, "models": sorted(numbers.values()), "horizons": horizons}
    arrays = [(name, f"{'int4' if name in _COUNTED else 'float8'}[{horizons}]") for name in BY_SENSOR]
    stored = await copy_out(
        writer,
        f"""SELECT sensor_no, model_no, {", ".join(BY_SENSOR)} FROM sensor_scores
        WHERE day = %(day)s AND model_no = ANY(%(models)s) AND horizons = %(horizons)s""",
        [("sensor_no", "int4"), ("model_no", "int4"), *arrays],
        whose,
    )
    keys, total = _added(stored, model_no << 32 | added.sensor_no, added.sums)
    await writer.run(
        "DELETE FROM sensor_scores WHERE day = :day AND model_no = ANY(:models) AND horizons = :horizons", **whose
    )
    await _copy_by_sensor(writer, added.day, keys, total)


def _added(
    stored: NDArray[np.void], keys: NDArray[np.int64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Keys (model and sensor) and sums of both."""
    before = stored["model_no"].astype(np.int64) << 32 | stored["sensor_no"]
    known, place = np.unique(np.concatenate([before, keys]), return_inverse=True)
    total = np.zeros((len(known), *sums.shape[1:]))
    total[place[: len(stored)]] = np.stack([stored[name] for name in BY_SENSOR], axis=1)
    total[place[len(stored) :]] += sums
    return known, total


async def _copy_by_sensor(writer: Writer, day: date, keys: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
    n, horizons = len(keys), int(sums.shape[2])
    await copy_in(
        writer,
        "sensor_scores",
        {
            "day": dates(np.repeat(np.array([day], "M8[D]"), n)),
            "sensor_no": integers(keys.astype(np.int32)),
            "model_no": integers((keys >> 32).astype(np.int32)),
            "horizons": integers(np.full(n, horizons, np.int32)),
            "n": integer_arrays(sums[:, 0].astype(np.int32)),
            **{name: double_arrays(sums[:, i]) for i, name in enumerate(BY_SENSOR) if i},
        },
    )


async def since(
    reader: Reader,
    first: date,
    last: date = date.max,
    *,
    horizon_minutes: int | None = None,
    state: str | None = None,
    hour: int | None = None,
    by_hour: bool = False,
) -> list[Score]:
    """The scores of local days by state, and by hour where asked; of one horizon, state, hour."""
    hours = "hour" if by_hour else "NULL::smallint"
    where = "AND horizon_minutes = :horizon " if horizon_minutes is not None else ""
    where += "AND state = :state " if state is not None else ""
    where += "AND hour = :hour " if hour is not None else ""
    measures = ", ".join(f"sum({name}) AS {name}" for name in MEASURES)
    tenths = ", ".join(
        f"ARRAY[{', '.join(f'coalesce(sum({name}[{i}]), 0)' for i in range(1, TENTHS + 1))}] AS {name}"
        for name in RELIABILITY
    )
    rows = await reader.rows(
        f"""SELECT {_MODEL} AS model, horizon_minutes, state, {hours} AS hour, {measures}, {tenths}
        FROM scores JOIN models m USING (model_no) WHERE day BETWEEN :first AND :last {where}
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""",
        first=first,
        last=last,
        horizon=horizon_minutes,
        state=state,
        hour=hour,
    )
    return [
        Score(
            row["model"],
            row["horizon_minutes"],
            {name: float(row[name]) for name in MEASURES},
            {name: [float(n) for n in row[name]] for name in RELIABILITY},
            row["state"],
            row["hour"],
        )
        for row in rows
    ]


async def rmse_beside(reader: Reader, model: str, others: Sequence[str], after: tuple[date, int]) -> dict[str, float]:
    """The RMSE of a forecaster and of others, over the hours and horizons in which it was scored.

    Only local hours after one of a local day count.
    """
    rows = await reader.rows(
        """WITH own AS (
          SELECT s.*, m.name FROM scores s JOIN models m USING (model_no)
          WHERE m.candidates = '{}' AND m.name = ANY(:names) AND state <> :onset AND (day, hour) > (:day, :hour))
        SELECT name, sqrt(sum(square) / sum(n)) AS rmse FROM own o
        WHERE EXISTS (SELECT FROM own c WHERE c.name = :model AND c.day = o.day AND c.hour = o.hour
          AND c.horizon_minutes = o.horizon_minutes)
        GROUP BY name HAVING sum(n) > 0""",
        names=[model, *others],
        onset=ONSET,
        day=after[0],
        hour=after[1],
        model=model,
    )
    return {row["name"]: float(row["rmse"]) for row in rows}


async def worst_sensors(
    reader: Reader, first: date, last: date, model: str, step: int | None, limit: int, offset: int
) -> list[tuple[int, int]]:
    """Sensors and steps (from 1) in the order of a forecaster's mean absolute error on local days, worst first."""
    chosen = _of_sensors("AND (CAST(:step AS integer) IS NULL OR step = :step)")
    rows = await reader.rows(
        f"""SELECT sensor_no, step FROM ({chosen}) AS summed
        ORDER BY absolute / n DESC, sensor_no, step LIMIT :limit OFFSET :offset""",
        first=first,
        last=last,
        models=[model],
        step=step,
        limit=limit,
        offset=offset,
    )
    return [(row["sensor_no"], row["step"]) for row in rows]


async def of_sensors(
    reader: Reader, first: date, last: date, models: Sequence[str], sensors: Sequence[int], step_minutes: int
) -> list[Score]:
    """The scores of these sensors and forecasters on local days, at every horizon."""
    of_these = _of_sensors("AND sensor_no = ANY(:sensors)")
    rows = await reader.rows(of_these, first=first, last=last, models=list(models), sensors=list(sensors))
    return [
        Score(
            row["model"],
            row["step"] * step_minutes,
            {name: float(row[name]) for name in BY_SENSOR},
            sensor_no=row["sensor_no"],
        )
        for row in rows
    ]


def _of_sensors(where: str) -> str:
    sums = ", ".join(f"sum({name}[step]) AS {name}" for name in BY_SENSOR)
    return f"""SELECT {_MODEL} AS model, sensor_no, step, {sums}
      FROM sensor_scores JOIN models m USING (model_no), generate_series(1, horizons) AS step
      WHERE day BETWEEN :first AND :last AND m.candidates = '{{}}' AND m.name = ANY(:models) {where}
      GROUP BY 1, 2, 3 HAVING sum(n[step]) > 0"""


async def forget_before(writer: Writer, day: date) -> None:
    """Forget the scores of local days before `day`."""
    for table in ("scores", "sensor_scores"):
        await writer.run(f"DELETE FROM {table} WHERE day < :day", day=day)


async def forecasters(reader: Reader) -> list[str]:
    """Whoever has been scored, by name."""
    rows = await reader.rows(
        f"SELECT DISTINCT {_MODEL} AS name FROM models m WHERE candidates <> '{{}}' OR version = '' ORDER BY 1"
    )
    return [row["name"] for row in rows]
