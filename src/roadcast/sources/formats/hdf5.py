"""Tables by sensors in HDF5 as pandas writes them (`DataFrame.to_hdf`), as METR-LA and PEMS-BAY are published.

Both of its layouts are read without pandas. `fixed` keeps times in `axis1`, and values in blocks of columns of one
type. `table` keeps rows of a time and such blocks; attributes list the blocks' columns as pickles, which are
searched for their labels and never run. Times are on the local clock, or UTC where the index has a time zone.
Both data sets write 0 for missing.
"""

import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from roadcast.domain.units import Units
from roadcast.errors import SourceError
from roadcast.sources.formats.sensor_files import network_beside
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile, expect_codes
from roadcast.sources.formats.tables import Table, of_variable

MAGIC = b"\x89HDF\r\n\x1a\n"
LAST_BUILT_IN_FILTER = 255
_LABELS = frozenset({"INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2"}) | frozenset(
    {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
"""The operations of a pickle that carry a column's label."""


def open_hdf5(path: Path, options: FormatOptions) -> SourceFile:
    """The file's one frame as a source, with the sensors' locations and distances from files beside it."""
    table = _table(path, options.variable)
    network = network_beside(path, options)
    meaning = options.meaning(zero_is_missing=True, units=Units.US)

    def read(notes: Notes) -> Iterator[Chunk]:
        network.note_gaps(table.codes, notes)
        yield from table.chunks(options, meaning, notes)

    sensors, links = network.sensors_of(table.codes), network.links_of(table.codes)
    return SourceFile(path, "hdf5", sensors, links, table.interval_s, table.cells, read)


def _table(path: Path, variable: str) -> Table:
    with h5py.File(path) as file:
        key = _frame_key(path, file)
        group: Any = file[key]
        _refuse_unpackable(path, group)
        parts = _Fixed(path, group) if _text(group.attrs["pandas_type"]) == "frame" else _Rows(path, group)
    expect_codes(path, parts.codes)
    return Table(
        parts.codes,
        parts.stamps_ms,
        parts.utc,
        lambda start, stop: of_variable(_cells(path, key, parts.cells, start, stop), variable),
    )


def _frame_key(path: Path, file: h5py.File) -> str:
    """The name of the only frame in a file."""
    frames: list[str] = []

    def visit(name: str, node: Any) -> None:
        if _text(node.attrs.get("pandas_type", "")) in {"frame", "frame_table"}:
            frames.append(name)

    cast("Any", file).visititems(visit)
    if len(frames) != 1:
        found = ", ".join(frames or file) or "nothing"
        raise SourceError(f"{path}: HDF5 with {found}: expected one frame as pandas' DataFrame.to_hdf writes it")
    return frames[0]


def _cells(
    path: Path, key: str, cells: Callable[[Any, int, int], NDArray[np.float64]], start: int, stop: int
) -> NDArray[np.float64]:
    with h5py.File(path) as file:
        return cells(file[key], start, stop)


class _Fixed:
    """The `fixed` layout of a group."""

    def __init__(self, path: Path, group: Any) -> None:
        axis = group["axis1"]
        self.stamps_ms = _stamps_ms(path, axis[:], _text(axis.attrs["kind"]))
        self.utc = "tz" in axis.attrs
        self.codes: list[str] = []
        self._blocks: list[tuple[str, bool]] = []
        for i in range(int(group.attrs["nblocks"])):
            codes, name = _codes(path, group[f"block{i}_items"]), f"block{i}_values"
            self.codes += codes
            self._blocks.append((name, _has_rows_first(path, group[name], (len(self.stamps_ms), len(codes)))))

    def cells(self, group: Any, start: int, stop: int) -> NDArray[np.float64]:
        """[rows, sensors]."""
        values = [
            group[name][start:stop] if rows_first else group[name][:, start:stop].T for name, rows_first in self._blocks
        ]
        return np.column_stack(values).astype(np.float64)


class _Rows:
    """The `table` layout of a group."""

    def __init__(self, path: Path, group: Any) -> None:
        table = group["table"]
        self._fields = [name for name in table.dtype.names if name != "index"]
        self.codes = [code for name in self._fields for code in _labels(table.attrs[f"{name}_kind"])]
        self.stamps_ms = _stamps_ms(path, table.fields("index")[:], _text(table.attrs["index_kind"]))
        self.utc = _has_time_zone(group.attrs["info"])

    def cells(self, group: Any, start: int, stop: int) -> NDArray[np.float64]:
        """[rows, sensors]."""
        rows = group["table"][start:stop]
        return np.column_stack([rows[name] for name in self._fields]).astype(np.float64)


def _refuse_unpackable(path: Path, group: Any) -> None:
    """Refuse compression that needs a plug-in, such as PyTables' blosc."""
    datasets: list[Any] = [node for node in group.values() if isinstance(node, h5py.Dataset)]
    for dataset in datasets:
        filters = dataset.id.get_create_plist()
        for number in range(filters.get_nfilters()):
            code, _, _, name = filters.get_filter(number)
            if code > LAST_BUILT_IN_FILTER:
                raise SourceError(
                    f"{path}: compressed with {_text(name)}: expected no compression, or zlib.",
                    remedy="Write the frame again with complib='zlib'.",
                )


def _has_rows_first(path: Path, block: Any, shape: tuple[int, int]) -> bool:
    """Whether a block lies in its file as rows of columns: its shape tells, and where it is square, `transposed`."""
    if block.shape not in {shape, shape[::-1]}:
        raise SourceError(f"{path}: values of shape {block.shape}: expected {shape[0]} rows of {shape[1]} columns")
    return bool(block.attrs.get("transposed")) if shape[0] == shape[1] else block.shape == shape


def _codes(path: Path, labels: Any) -> list[str]:
    if labels.dtype.kind not in "SUiu":
        raise SourceError(f"{path}: column labels of kind {_text(labels.attrs['kind'])}: expected text or integers")
    return [_text(label) for label in labels[:].tolist()]


def _stamps_ms(path: Path, raw: NDArray[np.int64], kind: str) -> NDArray[np.int64]:
    match = re.fullmatch(r"datetime64(?:\[(s|ms|us|ns)\])?", kind)
    if match is None:
        raise SourceError(f"{path}: rows labelled by {kind}: expected times (datetime64)")
    return raw.astype(f"datetime64[{match[1] or 'ns'}]").astype("datetime64[ms]").astype(np.int64)


def _labels(pickled: bytes) -> list[str]:
    """The labels in a pickled list of text or integers."""
    return [str(argument) for operation, argument, _ in pickletools.genops(pickled) if operation.name in _LABELS]


def _has_time_zone(pickled: bytes) -> bool:
    """Whether a pickled description of an index gives it a time zone."""
    steps = [(step.name, argument) for step, argument, _ in pickletools.genops(pickled) if "PUT" not in step.name]
    zones = [steps[i + 1][0] for i, (_, argument) in enumerate(steps[:-1]) if argument == "tz"]
    return any(zone != "NONE" for zone in zones)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
