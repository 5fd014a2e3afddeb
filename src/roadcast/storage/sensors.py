"""Sensors and links. A sensor's number is inner; its code (`sensor_id`) is what the world sees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime

from roadcast.domain.sensor import Link, Sensor
from roadcast.storage.engine import Reader, Row, Writer

_COLUMNS = [f.name for f in fields(Sensor)]
_TYPES = dict.fromkeys(_COLUMNS, "text") | {
    "lanes": "smallint",
    "speed_limit": "real",
    "reference_speed": "real",
    **dict.fromkeys(("milepost", "latitude", "longitude"), "float8"),
}
_SELECT = f"SELECT sensor_no, {', '.join(_COLUMNS)} FROM sensors"
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('sensors'))"


def _sensor(row: Row) -> Sensor:
    return Sensor(**{name: row[name] for name in _COLUMNS})


async def every(reader: Reader) -> dict[int, Sensor]:
    """All sensors by number, in the order of their numbers."""
    return {row["sensor_no"]: _sensor(row) for row in await reader.rows(f"{_SELECT} ORDER BY sensor_no")}


async def numbers(reader: Reader) -> dict[str, int]:
    """The number of each code."""
    return {row["sensor_id"]: row["sensor_no"] for row in await reader.rows("SELECT sensor_id, sensor_no FROM sensors")}


async def register(writer: Writer, codes: Sequence[str]) -> dict[str, int]:
    """Give numbers to the codes that have none, in the order given; the numbers of all `codes`."""
    await writer.run(_LOCK)
    await writer.run(
        """INSERT INTO sensors (sensor_no, sensor_id)
        SELECT (SELECT coalesce(max(sensor_no), 0) FROM sensors) + row_number() OVER (ORDER BY position), code
        FROM unnest(CAST(:codes AS text[])) WITH ORDINALITY AS new(code, position)
        WHERE NOT EXISTS (SELECT FROM sensors WHERE sensor_id = code)""",
        codes=list(codes),
    )
    known = await numbers(writer)
    return {code: known[code] for code in codes}


async def describe(writer: Writer, sensors: Sequence[Sensor]) -> None:
    """Register `sensors` and store what is known of them; what is None leaves the stored value."""
    await register(writer, [sensor.sensor_id for sensor in sensors])
    arrays = ", ".join(f"CAST(:{name} AS {_TYPES[name]}[])" for name in _COLUMNS)
    sets = ", ".join(f"{name} = coalesce(new.{name}, s.{name})" for name in _COLUMNS)
    await writer.run(
        f"""UPDATE sensors s SET {sets} FROM unnest({arrays}) AS new({", ".join(_COLUMNS)})
        WHERE s.sensor_id = new.sensor_id""",
        **{name: [getattr(sensor, name) for sensor in sensors] for name in _COLUMNS},
    )


async def set_reference_speeds(writer: Writer, speeds: Mapping[int, float], since: datetime | None) -> None:
    """Store reference speeds in mph by sensor number, and from when on they hold; None means always."""
    await writer.run(
        """UPDATE sensors s SET reference_speed = new.speed, referenced_from = :since
        FROM unnest(CAST(:numbers AS integer[]), CAST(:speeds AS real[])) AS new(sensor_no, speed)
        WHERE s.sensor_no = new.sensor_no""",
        numbers=list(speeds),
        speeds=list(speeds.values()),
        since=since,
    )


async def referenced_after(reader: Reader, at: datetime) -> dict[int, datetime]:
    """From when on the reference speeds hold that did not yet at a time, by sensor number."""
    rows = await reader.rows("SELECT sensor_no, referenced_from FROM sensors WHERE referenced_from > :at", at=at)
    return {row["sensor_no"]: row["referenced_from"] for row in rows}


async def connect(writer: Writer, links: Iterable[Link]) -> None:
    """Store links between known sensors; one that is there is replaced."""
    known = await numbers(writer)
    links = list(links)
    await writer.run(
        """INSERT INTO links SELECT * FROM unnest(
          CAST(:a AS integer[]), CAST(:b AS integer[]), CAST(:distance AS float8[]), CAST(:weight AS float8[]))
        ON CONFLICT (from_no, to_no) DO UPDATE SET distance_mi = excluded.distance_mi, weight = excluded.weight""",
        a=[known[link.from_sensor] for link in links],
        b=[known[link.to_sensor] for link in links],
        distance=[link.distance_mi for link in links],
        weight=[link.weight for link in links],
    )


async def links(reader: Reader) -> list[Link]:
    """All links, by their sensors' numbers."""
    rows = await reader.rows(
        """SELECT a.sensor_id AS from_sensor, b.sensor_id AS to_sensor, distance_mi, weight
        FROM links JOIN sensors a ON a.sensor_no = from_no JOIN sensors b ON b.sensor_no = to_no
        ORDER BY from_no, to_no"""
    )
    return [Link(row["from_sensor"], row["to_sensor"], row["distance_mi"], row["weight"]) for row in rows]


async def reporting(reader: Reader, since: datetime, usual_since: date) -> tuple[int, int]:
    """How many sensors have reported since a time, and how many on the local days from one on."""
    row = await reader.row(
        """SELECT (SELECT count(DISTINCT sensor_no) FROM readings WHERE ts > :since AND received_at > :since) AS heard,
          (SELECT count(DISTINCT sensor_no) FROM sensor_days WHERE day >= :usual) AS usual""",
        since=since,
        usual=usual_since,
    )
    return (0, 0) if row is None else (row["heard"], row["usual"])
