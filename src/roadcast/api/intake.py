"""Readings as clients send them: tolerant of one bad item among good ones, strict about each."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from roadcast.api.fields import invalid, parse_code, parse_time
from roadcast.domain.reading import MOST, VARIABLES, Account, ReadingBatch, Rejection
from roadcast.domain.times import to_ms
from roadcast.domain.units import Units
from roadcast.live.documents import density_unit, speed_unit, unit_factors


@dataclass(frozen=True, slots=True)
class Intake:
    """What a body holds.

    items: as sent; batch: the well-formed ones in the inner units; positions: [n] where in `items` they stood;
    rejections: the others. `single`: the body was one object and no array.
    """

    items: Sequence[object]
    batch: ReadingBatch
    positions: NDArray[np.int64]
    rejections: tuple[Rejection, ...]
    single: bool

    def account(self, stored: Account) -> Account:
        """The account of all items, from that of the batch; each rejection shows the value as it was sent."""
        refused = tuple(self._as_sent(rejection) for rejection in stored.rejections)
        rejections = tuple(sorted((*self.rejections, *refused), key=lambda rejection: rejection.index))
        return replace(
            stored,
            received=len(self.items),
            rejected=stored.rejected + len(self.rejections),
            rejections=rejections,
        )

    def _as_sent(self, rejection: Rejection) -> Rejection:
        index = int(self.positions[rejection.index])
        item = cast("Mapping[str, object]", self.items[index])
        return replace(rejection, index=index, value=item.get(rejection.field))


def read_body(body: bytes, units: Units) -> Intake:
    """Read one reading or an array of them, in the client's units.

    Raises:
        ValueError: it is not JSON.
        InvalidInput: it is neither an object nor an array.
    """
    content = _content(body)
    if not isinstance(content, dict | list):
        raise invalid("body", content, "expected a reading or an array of readings")
    single = isinstance(content, dict)
    items = cast("list[object]", [content] if single else content)
    columns = _Columns(_ranges(units))
    for index, item in enumerate(items):
        columns.add(index, item)
    values = np.array(columns.values, np.float64).reshape(-1, len(VARIABLES)) / unit_factors(units)
    batch = ReadingBatch(
        tuple(columns.codes),
        np.array(columns.sensor, np.int32),
        np.array(columns.at_ms, np.int64),
        values.astype(np.float32),
    )
    return Intake(items, batch, np.array(columns.positions, np.int64), tuple(columns.rejections), single)


def _content(body: bytes) -> object:
    """What JSON says: numbers that no float holds and halves of characters are JSON, too, and rejected item by item."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise error from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Refused(Exception):
    """One field of an item is wrong."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        super().__init__(reason)
        self.field, self.value, self.reason = name, value, reason


@dataclass(slots=True)
class _Columns:
    """The columns of a batch while it is read; codes and times that repeat are looked at once."""

    ranges: Sequence["_Range"]
    codes: dict[str, int] = field(default_factory=dict[str, int])
    sensor: list[int] = field(default_factory=list[int])
    at_ms: list[int] = field(default_factory=list[int])
    values: list[tuple[float, ...]] = field(default_factory=list[tuple[float, ...]])
    positions: list[int] = field(default_factory=list[int])
    rejections: list[Rejection] = field(default_factory=list[Rejection])
    _times: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, index: int, item: object) -> None:
        """Take in one item, or say why not."""
        try:
            if not isinstance(item, dict):
                raise _Refused("item", item, "expected an object")
            reading = cast("dict[str, object]", item)
            code = self._code(reading.get("sensor_id"))
            at_ms = self._time(reading.get("timestamp"))
            values = tuple(allowed.read(reading.get(allowed.name)) for allowed in self.ranges)
        except _Refused as refused:
            self.rejections.append(Rejection(index, refused.field, refused.value, refused.reason))
            return
        self.positions.append(index)
        self.sensor.append(self.codes.setdefault(code, len(self.codes)))
        self.at_ms.append(at_ms)
        self.values.append(values)

    def _code(self, value: object) -> str:
        if isinstance(value, str) and value in self.codes:
            return value
        try:
            return parse_code(value)
        except ValueError as error:
            raise _Refused("sensor_id", value, str(error)) from None

    def _time(self, value: object) -> int:
        if isinstance(value, str) and value in self._times:
            return self._times[value]
        try:
            at_ms = to_ms(parse_time(value))
        except ValueError as error:
            raise _Refused("timestamp", value, str(error)) from None
        self._times[cast("str", value)] = at_ms
        return at_ms


@dataclass(frozen=True, slots=True)
class _Range:
    """What a variable can be, from 0 to `most`, in the client's `unit`."""

    name: str
    most: float
    unit: str

    def read(self, value: object) -> float:
        """A value as a number, NaN where it is missing."""
        if value is None:
            return math.nan
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _Refused(self.name, value, "expected a number or null")
        if not 0 <= value <= self.most:
            raise _Refused(self.name, value, f"expected a number from 0 to {self.most:g}{self.unit}")
        return float(value)


def _ranges(units: Units) -> Sequence[_Range]:
    """The bounds of `MOST` in the client's units, to the tenth below, so that they can be said."""
    most = [math.floor(bound * 10) / 10 for bound in MOST * unit_factors(units)]
    words = (f" {speed_unit(units)}", "", f" {density_unit(units)}", "")
    return [_Range(*range_) for range_ in zip(VARIABLES, most, words, strict=True)]
