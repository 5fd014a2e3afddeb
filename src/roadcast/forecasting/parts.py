"""Fitted forecasters as named arrays and texts, and back. Nothing is pickled, so what is restored can run no code."""

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Parts = dict[str, NDArray[Any] | str]
Kind = TypeVar("Kind", bound="DataclassInstance")
_OF_MATRIX = ("data", "indices", "indptr", "shape")


def to_parts(value: "DataclassInstance") -> Parts:
    """The fields of a dataclass under their names; those of what lies within under its name and `/`.

    It may hold arrays, texts, integers, sparse matrices, tuples of one kind, and other such dataclasses.
    """
    return {
        name: part
        for field in fields(value)
        if field.init
        for name, part in _named(field.name, getattr(value, field.name))
    }


def from_parts(kind: type[Kind], parts: Parts) -> Kind:
    """The dataclass `kind` that gave `parts`.

    Raises:
        ValueError: a part is missing.
    """
    return _restored(kind, "", parts)


def _named(name: str, value: object) -> Iterator[tuple[str, NDArray[Any] | str]]:
    match value:
        case np.ndarray() | str():
            yield name, value
        case int():
            yield name, np.array(value)
        case sparse.csr_array():
            yield from ((f"{name}/{part}", np.asarray(getattr(value, part))) for part in _OF_MATRIX)
        case tuple():
            items = cast("tuple[object, ...]", value)
            yield f"{name}/length", np.array(len(items))
            for i, item in enumerate(items):
                yield from _named(f"{name}/{i}", item)
        case _:
            for inner, part in to_parts(cast("DataclassInstance", value)).items():
                yield f"{name}/{inner}", part


def _restored(kind: Any, name: str, parts: Parts) -> Any:
    origin = get_origin(kind) or kind
    if origin is np.ndarray or origin is str:
        return _part(name, parts)
    if origin is int:
        return int(_part(name, parts))
    if origin is sparse.csr_array:
        *matrix, shape = (_part(f"{name}/{part}", parts) for part in _OF_MATRIX)
        return sparse.csr_array(tuple(matrix), shape=tuple(shape.tolist()))
    if origin is tuple:
        length = int(_part(f"{name}/length", parts))
        return tuple(_restored(get_args(kind)[0], f"{name}/{i}", parts) for i in range(length))
    hints, before = get_type_hints(kind), f"{name}/" if name else ""
    return kind(
        **{field.name: _restored(hints[field.name], before + field.name, parts) for field in fields(kind) if field.init}
    )


def _part(name: str, parts: Parts) -> Any:
    if name not in parts:
        raise ValueError(f"part {name!r} is missing: there are {', '.join(sorted(parts))}")
    return parts[name]
