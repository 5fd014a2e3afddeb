"""PostgreSQL's binary COPY to and from numpy columns.

A row on the wire is an int16 count of fields, then for each an int32 length and its bytes, big-endian; a missing
field has length -1 and no bytes. Source: PostgreSQL manual, "COPY", "Binary Format".
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.storage.engine import Reader, Writer

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_EPOCH_2000_MS = 946_684_800_000
_EPOCH_2000 = np.datetime64("2000-01-01", "D")
_OIDS = {"float4": 700, "float8": 701, "int4": 23}
_WIRE = {"timestamptz": ">i8", "int4": ">i4", "int2": ">i2", "float4": ">f4", "float8": ">f8", "date": ">i4"}
_SEND = {
    "timestamptz": "timestamptz_send", "int4": "int4send", "int2": "int2send", "float4": "float4send",
    "float8": "float8send",
}  # fmt: skip
_ARRAY_HEAD = 20
"""Bytes of an array on the wire before its items."""
_BLOCK_ROWS = 4096
"""Rows that the server packs into one value when they are copied out: a driver takes its time for each row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to send: its PostgreSQL type, its values [n], and where they are missing [n]."""

    type: str
    values: NDArray[np.generic]
    missing: NDArray[np.bool_] | None = None


def timestamps(at_ms: NDArray[np.int64]) -> Column:
    """Milliseconds since 1970 as a timestamptz column."""
    return Column("timestamptz", (at_ms - _EPOCH_2000_MS) * 1000)


def dates(days: NDArray[np.datetime64]) -> Column:
    """Days as a date column."""
    return Column("date", (days.astype("M8[D]") - _EPOCH_2000).astype(np.int32))


def integers(values: NDArray[np.integer]) -> Column:
    """An int4 column."""
    return Column("int4", values)


def reals(values: NDArray[np.float32]) -> Column:
    """A float4 column in which NaN is NULL."""
    return Column("float4", values, np.isnan(values))


def real_arrays(values: NDArray[np.float32]) -> Column:
    """A float4[] column from [n, k]; NaN stays NaN."""
    return _arrays("float4", values)


def double_arrays(values: NDArray[np.float64]) -> Column:
    """A float8[] column from [n, k]; NaN stays NaN."""
    return _arrays("float8", values)


def integer_arrays(values: NDArray[np.integer]) -> Column:
    """An int4[] column from [n, k]."""
    return _arrays("int4", values)


def _arrays(kind: str, values: NDArray[np.generic]) -> Column:
    n, k = values.shape
    wire = np.zeros(n, dtype=_array_of(kind, k))
    wire["head"] = (1, 0, _OIDS[kind], k, 1)
    wire["items"]["length"] = np.dtype(_WIRE[kind]).itemsize
    wire["items"]["value"] = values
    return Column(f"{kind}[]", wire)


def reals_sent(sent: bytes) -> NDArray[np.float32]:
    """The numbers of a float4[] without NULL that `array_send` packed: sooner read than thousands of Python's."""
    length = (len(sent) - _ARRAY_HEAD) // 8
    wire = np.frombuffer(sent, _array_of("float4", length)) if length > 0 else None
    return np.empty(0, np.float32) if wire is None else wire["items"]["value"][0].astype(np.float32)


async def copy_in(writer: Writer, table: str, columns: Mapping[str, Column]) -> None:
    """Append rows to `table`. Rows with different fields missing are sent in groups, so their order may change."""
    driver = await writer.driver()
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:  # pyright: ignore[reportArgumentType]
        await copy.write(_SIGNATURE)
        for rows in _encode(list(columns.values())):
            await copy.write(rows)
        await copy.write(_END)


async def copy_out(
    reader: Reader, select: str, dtype: Sequence[tuple[str, str]], parameters: Mapping[str, object] | None = None
) -> NDArray[np.void]:
    """The rows of `select`, which must give no NULL, as a structured array.

    dtype names each field of `select`, in order, with its PostgreSQL type; timestamptz comes as int64 milliseconds
    since 1970; float4[k], float8[k] and int4[k] are arrays of k numbers without NULL.
    """
    driver = await reader.driver()
    async with driver.cursor() as cursor, cursor.copy(_packed(select, dtype), parameters) as copy:  # pyright: ignore[reportArgumentType]
        copy.set_types(["int8", "bytea"])
        blocks = [(int(rows), bytes(block)) async for rows, block in copy.rows()]
    return await asyncio.to_thread(_decode, blocks, dtype)


def _packed(select: str, dtype: Sequence[tuple[str, str]]) -> str:
    """The statement that copies the rows of `select` out in blocks, each with how many rows it holds."""
    names = ", ".join(name for name, _ in dtype)
    row = " || ".join(f"{_SEND.get(kind, 'array_send')}({name})" for name, kind in dtype)
    return f"""COPY (SELECT count(*), string_agg({row}, '' ORDER BY place) FROM (
      SELECT *, row_number() OVER () AS place FROM ({select}) AS chosen ({names})) AS placed
      GROUP BY place / {_BLOCK_ROWS} ORDER BY place / {_BLOCK_ROWS}) TO STDOUT (FORMAT binary)"""


def _encode(columns: Sequence[Column]) -> list[bytes]:
    """One block of bytes for each combination of missing fields."""
    n = len(columns[0].values)
    nullable = [column for column in columns if column.missing is not None]
    pattern = np.zeros(n, np.int64)
    for bit, column in enumerate(nullable):
        pattern |= column.missing.astype(np.int64) << bit if column.missing is not None else 0
    return [
        _encode_alike(columns, pattern == code, {id(c) for bit, c in enumerate(nullable) if code >> bit & 1})
        for code in np.unique(pattern).tolist()
    ]


def _encode_alike(columns: Sequence[Column], rows: NDArray[np.bool_], absent: set[int]) -> bytes:
    """The rows that lack exactly the columns in `absent`."""
    fields: list[tuple[str, object]] = [("count", ">i2")]
    for i, column in enumerate(columns):
        fields.append((f"length{i}", ">i4"))
        if id(column) not in absent:
            fields.append((f"value{i}", _WIRE.get(column.type, column.values.dtype)))
    wire = np.zeros(int(rows.sum()), dtype=fields)
    wire["count"] = len(columns)
    for i, column in enumerate(columns):
        if id(column) in absent:
            wire[f"length{i}"] = -1
        else:
            wire[f"length{i}"] = wire.dtype[f"value{i}"].itemsize
            wire[f"value{i}"] = column.values[rows]
    return wire.tobytes()


def _decode(blocks: Sequence[tuple[int, bytes]], dtype: Sequence[tuple[str, str]]) -> NDArray[np.void]:
    """The rows of all blocks.

    Raises:
        ValueError: there was a NULL among them, for which the server leaves out the row.
    """
    wire = np.frombuffer(b"".join(block for _, block in blocks), [(name, _wire(kind)) for name, kind in dtype])
    if len(wire) != sum(rows for rows, _ in blocks):
        raise ValueError(f"NULL among {[name for name, _ in dtype]}")
    rows = np.empty(len(wire), dtype=[(name, *_native(kind)) for name, kind in dtype])
    for name, kind in dtype:
        values = wire[name]["items"]["value"] if kind.endswith("]") else wire[name]
        rows[name] = values // 1000 + _EPOCH_2000_MS if kind == "timestamptz" else values
    return rows


def _array_of(kind: str, length: int) -> list[tuple[str, object]]:
    """An array of one dimension on the wire: dimensions, has nulls, type, length, lower bound, and the items."""
    return [("head", ">i4", 5), ("items", [("length", ">i4"), ("value", _WIRE[kind])], length)]  # pyright: ignore[reportReturnType]


def _wire(kind: str) -> object:
    return _array_of(*_item(kind)) if kind.endswith("]") else _WIRE[kind]


def _native(kind: str) -> tuple[object, ...]:
    item, *lengths = _item(kind) if kind.endswith("]") else (kind,)
    native = np.dtype(_WIRE[item]).newbyteorder("=")
    return (native, tuple(lengths)) if lengths else (native,)


def _item(kind: str) -> tuple[str, int]:
    """The type of the items, and the length, in a type such as `float4[12]`."""
    item, _, length = kind[:-1].partition("[")
    return item, int(length)
