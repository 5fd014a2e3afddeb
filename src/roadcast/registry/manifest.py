"""What is written down about a version, and how a version proves that it is what was saved.

A version is called by the time at which it was made and by the hash of its manifest; the manifest holds the hash of
every part. So whatever changes later, in a part or in the manifest, is noticed.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from roadcast.errors import FieldError, InvalidInput, RoadcastError

FORMAT = 1
"""Of the manifest. A version of a later one is refused."""
MANIFEST = "manifest.json"
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_VERSION = re.compile(r"\d{8}-\d{6}\.\d{3}-[0-9a-f]{12}")

AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
_Positive = Annotated[int, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


TRAIN_ANEW = "Train anew, or go back to a version before."


class ModelRefused(RoadcastError):
    """A version that is damaged, incomplete, or made for other code."""

    def __init__(self, file: str, found: str, expected: str, remedy: str = TRAIN_ANEW) -> None:
        super().__init__(f"Model file {file}: found {found}, expected {expected}.", remedy=remedy)
        self.file = file
        self.found = found
        self.expected = expected


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was made from and for.

    forecaster: which of ours it is. features: one readable line for each feature that it takes, in order; a model
    serves only code that has the same lines. start, end: event times of the history it was fitted on. metrics: what it
    is worth, by name, measured on targets from judged_start to judged_end that it had not seen.
    """

    forecaster: str
    features: tuple[str, ...]
    targets: tuple[str, ...]
    horizons: _Positive
    interval_s: _Positive
    sensors: _Count
    start: AwareTime
    end: AwareTime
    seed: int
    judged_start: AwareTime
    judged_end: AwareTime
    metrics: dict[str, float]


class Part(msgspec.Struct, frozen=True):
    """How a part's file must be."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "Part":
        """The part with this content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A version's manifest; `parts` by their file's name in the version's folder."""

    format: int = FORMAT
    name: str
    created_at: AwareTime
    code_version: str
    training: Training
    parts: dict[str, Part]


class _AnyFormat(msgspec.Struct):
    format: int


def encode_manifest(manifest: Manifest) -> bytes:
    """As readable JSON.

    Raises:
        InvalidInput: a value that could not be read back.
    """
    check_identifier("name", manifest.name)
    check_finite("metrics", manifest.training.metrics)
    document = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    try:
        msgspec.json.decode(document, type=Manifest)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"manifest: {error}") from error
    return document


def decode_manifest(name: str, version: str, document: bytes) -> Manifest:
    """The manifest of a version.

    Raises:
        ModelRefused: it is not the one that was saved as this version, or its format is newer than this code.
    """
    file = f"{name}/{version}/{MANIFEST}"
    expected = version.rpartition("-")[2]
    if _hash_of(document) != expected:
        raise ModelRefused(file, f"SHA-256 {_hash_of(document)}…", f"{expected}…")
    try:
        found = msgspec.json.decode(document, type=_AnyFormat).format
        if found > FORMAT:
            raise ModelRefused(file, f"format {found}", f"at most {FORMAT}: it was saved by a newer Roadcast")
        manifest = msgspec.json.decode(document, type=Manifest)
    except msgspec.DecodeError as error:
        raise ModelRefused(file, f"what is no manifest ({error})", f"one of format {FORMAT}") from error
    if manifest.name != name:
        raise ModelRefused(file, f"the model {manifest.name}", name)
    return manifest


def check_part(file: str, part: Part, content: bytes) -> None:
    """Refuse a part's file that is not as it was saved.

    Raises:
        ModelRefused: its size or its hash differs.
    """
    found = Part.of(content)
    if found.size != part.size:
        raise ModelRefused(file, f"{found.size} bytes", str(part.size))
    if found.sha256 != part.sha256:
        raise ModelRefused(file, f"SHA-256 {found.sha256}", part.sha256)


def check_features(file: str, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Refuse a model of another feature schema, and say where it begins to differ.

    Raises:
        ModelRefused: it is another one.
    """
    for number, (ours, theirs) in enumerate(zip(expected, found, strict=False), start=1):
        if ours != theirs:
            raise ModelRefused(file, f"feature {number} {theirs!r}", repr(ours))
    if len(found) != len(expected):
        raise ModelRefused(file, f"{len(found)} features", str(len(expected)))


def version_of(created_at: datetime, document: bytes) -> str:
    """What a version is called: when it was made and the hash of its manifest."""
    return f"{stamp(created_at)}-{_hash_of(document)}"


def stamp(at: datetime) -> str:
    """The time in a version's name: UTC, to the millisecond. Sorts by time, as versions do."""
    at = at.astimezone(UTC)
    return f"{at:%Y%m%d-%H%M%S}.{at.microsecond // 1000:03d}"


def is_version(text: str) -> bool:
    """Whether a version can be called so."""
    return _VERSION.fullmatch(text) is not None


def check_identifier(field: str, name: str) -> None:
    """Refuse a name that cannot be a file's.

    Raises:
        InvalidInput: it cannot.
    """
    if _IDENTIFIER.fullmatch(name) is None:
        reason = "expected at most 100 of a-z, 0-9, '_' and '-', a letter or digit first"
        raise InvalidInput(f"{field} {name!r}: {reason}", (FieldError(field, name, reason),))


def check_finite(field: str, values: Mapping[str, object]) -> None:
    """Refuse numbers that JSON has no word for.

    Raises:
        InvalidInput: one is NaN or infinite.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            reason = "expected a finite number"
            raise InvalidInput(f"{field} {name} = {value}: {reason}", (FieldError(f"{field}.{name}", value, reason),))


def _hash_of(document: bytes) -> str:
    return hashlib.sha256(document).hexdigest()[:12]
