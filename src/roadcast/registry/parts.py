"""A model's parts as files: arrays as .npy, text as .txt. Nothing in them is ever executed: no pickle."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadcast.errors import FieldError, InvalidInput
from roadcast.registry.manifest import ModelRefused, check_identifier

Value = NDArray[Any] | str
"""An array of numbers, truth values, times or text of fixed length; or text, such as a native LightGBM model."""

_KINDS = "biufcmMSU"
_ARRAY, _TEXT = ".npy", ".txt"


def encode_parts(parts: Mapping[str, Value]) -> dict[str, bytes]:
    """Files by name. A part's name may have folders, as in `net/speed/weights`.

    Raises:
        InvalidInput: a part with an impossible name, or neither text nor an array that can be kept without pickle.
    """
    files: dict[str, bytes] = {}
    for name, value in parts.items():
        for folder in name.split("/"):
            check_identifier("part", folder)
        if isinstance(value, str):
            files[name + _TEXT] = _text_bytes(name, value)
        else:
            files[name + _ARRAY] = _array_bytes(name, value)
    return files


def decode_part(path: str, content: bytes) -> Value:
    """The value of a part's file.

    Raises:
        ModelRefused: the file does not hold what its name says, or holds a pickle.
    """
    try:
        if path.endswith(_TEXT):
            return content.decode()
        if path.endswith(_ARRAY):
            return _array(content)
    except ValueError as error:
        raise ModelRefused(path, f"what cannot be read ({error})", "text or an array without pickle") from error
    raise ModelRefused(path, "a file of another kind", f"{_ARRAY} or {_TEXT}")


def part_name(file: str) -> str:
    """The part that a file holds."""
    return file.removesuffix(_TEXT).removesuffix(_ARRAY)


def _text_bytes(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _unfit(name, f"{text[error.start]!r} at {error.start}", "expected text that UTF-8 can hold") from error


def _array_bytes(name: str, array: NDArray[Any]) -> bytes:
    """Plain arrays only: a subclass, such as a masked array, would lose what it adds."""
    if type(array) is not np.ndarray or array.dtype.kind not in _KINDS:
        found = f"{type(array).__name__} {getattr(array, 'dtype', '')}".strip()
        raise _unfit(name, found, "expected text, or a plain array of numbers, truth values, times or short text")
    file = BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _array(content: bytes) -> NDArray[Any]:
    """`np.load` would also open archives; this opens arrays, and only whole ones."""
    file = BytesIO(content)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("more bytes than the array has")
    return array


def _unfit(name: str, found: str, reason: str) -> InvalidInput:
    return InvalidInput(f"part {name}: {reason}, not {found}", (FieldError(f"parts.{name}", found, reason),))
