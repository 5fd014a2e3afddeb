"""What an alias names, and since when: a history that only grows.

A change takes effect at an event time, so that a replay of that time finds the version that served then.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from roadcast.domain.times import rfc3339
from roadcast.errors import Conflict, InvalidInput
from roadcast.registry.manifest import AwareTime, ModelRefused, check_finite

RESTORE = "Restore the file from a backup; or remove it, and those with higher numbers, to undo these changes."
"""What to do about a change that is damaged or missing."""
Evidence = dict[str, float | str]
"""Why a change was made: what was measured, by name."""


class Alias(StrEnum):
    """Who serves, and who would like to."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"


class Action(StrEnum):
    """What happened to an alias."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """From `effective_at`, an event time, the alias names `version`, or none."""

    action: Action
    version: str | None
    effective_at: AwareTime
    recorded_at: AwareTime
    evidence: Evidence


def named_at(history: Sequence[Change], at: datetime | None) -> str | None:
    """The version in force at an event time, or once every change is; the later recorded one decides."""
    return next((change.version for change in reversed(history) if at is None or change.effective_at <= at), None)


def standing(history: Sequence[Change]) -> list[str]:
    """The versions to go back through, oldest first: promoted and not rolled back. The last one is named now."""
    versions: list[str] = []
    for change in history:
        if change.action is Action.ROLLED_BACK:
            del versions[-1:]
        elif change.version is not None and versions[-1:] != [change.version]:
            versions.append(change.version)
    return versions


def promoted(history: Sequence[Change], version: str, effective_at: datetime) -> str:
    """The version that a promotion leads to.

    Raises:
        Conflict: it would change nothing, because the alias names the version already.
    """
    if history and history[-1].version == version and history[-1].effective_at <= effective_at:
        raise Conflict(f"{version} is named already, since {rfc3339(history[-1].effective_at)}.")
    return version


def rolled_back(history: Sequence[Change], version: str) -> str | None:
    """The version that a rollback of `version` returns to; None where it was the first.

    Raises:
        Conflict: another version is named by now.
    """
    versions = standing(history)
    if versions[-1:] != [version]:
        raise Conflict(f"{version} cannot be rolled back: {(versions or ['nothing'])[-1]} is named now.")
    return versions[-2] if len(versions) > 1 else None


def encode_change(change: Change) -> bytes:
    """As readable JSON.

    Raises:
        InvalidInput: a value that could not be read back.
    """
    check_finite("evidence", change.evidence)
    document = msgspec.json.format(msgspec.json.encode(change), indent=2) + b"\n"
    try:
        msgspec.json.decode(document, type=Change)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"change of an alias: {error}") from error
    return document


def decode_change(file: str, document: bytes) -> Change:
    """The change in a file.

    Raises:
        ModelRefused: there is none in it.
    """
    try:
        return msgspec.json.decode(document, type=Change)
    except msgspec.DecodeError as error:
        raise ModelRefused(file, f"what cannot be read ({error})", "a change of an alias", RESTORE) from error
