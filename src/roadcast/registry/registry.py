"""The versions of every model, over a store of bytes.

NAME/VERSION/manifest.json            written last: without it there is no version
NAME/VERSION/net/speed/weights.npy    the parts
NAME/champion/000001.json             one file for each change of an alias; the last one holds
NAME/trial                            there for a moment before a training, which may not end in vain
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from roadcast import __version__
from roadcast.blobs.store import Blobs
from roadcast.errors import FieldError, InvalidInput, NotFound, RoadcastError, Unavailable
from roadcast.registry import aliases
from roadcast.registry.aliases import Action, Alias, Change, Evidence
from roadcast.registry.manifest import (
    MANIFEST,
    Manifest,
    ModelRefused,
    Part,
    Training,
    check_features,
    check_part,
    decode_manifest,
    encode_manifest,
    is_version,
    stamp,
    version_of,
)
from roadcast.registry.parts import Value, decode_part, encode_parts, part_name

LEFTOVER_AGE = timedelta(days=1)
"""A version that has had no manifest for so long is what a crash left of it."""
_ATTEMPTS = 100
_TRIAL = "trial"
_CHANGE_FILE = re.compile(r".*/(\d{6})\.json")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What is saved and loaded. A part's name may have folders, such as `net/speed/weights`."""

    name: str
    training: Training
    parts: Mapping[str, Value]


class Registry:
    """Saves, loads and names versions. `now` gives the times of saving and of recording a change.

    Every method also raises the errors of the store below.
    """

    def __init__(self, blobs: Blobs, now: Callable[[], datetime]) -> None:
        self._blobs = blobs
        self._now = now

    def try_saving(self, name: str) -> None:
        """Find out whether the store takes anything, by the errors that it raises; nothing is left in it."""
        trial = f"{name}/{_TRIAL}"
        self._blobs.put(trial, b"")
        self._blobs.delete(trial)

    def save(self, model: Model) -> str:
        """Keep a model as a new version; what the version is called.

        Raises:
            InvalidInput: a name, a number or a part that cannot be kept.
        """
        files = encode_parts(model.parts)
        manifest = Manifest(
            name=model.name,
            created_at=self._now(),
            code_version=__version__,
            training=model.training,
            parts={file: Part.of(content) for file, content in files.items()},
        )
        document = encode_manifest(manifest)
        version = version_of(manifest.created_at, document)
        written: list[str] = []
        try:
            for file, content in {**files, MANIFEST: document}.items():
                written.append(file)
                self._blobs.put(f"{model.name}/{version}/{file}", content)
        except RoadcastError:
            with suppress(RoadcastError):  # a full disk is not to be kept full by what is of no use
                self._remove(model.name, version, written)
            raise
        return version

    def load(self, name: str, version: str, features: tuple[str, ...]) -> Model:
        """A version, for code with these features (`Training.features`), every byte of it verified.

        Raises:
            NotFound: there is no such version.
            ModelRefused: it is damaged, incomplete, of other features, or was saved by a newer Roadcast.
        """
        manifest = self.manifest(name, version)
        check_features(f"{name}/{version}/{MANIFEST}", manifest.training.features, features)
        return Model(name, manifest.training, self._parts(manifest, version))

    def manifest(self, name: str, version: str) -> Manifest:
        """What is known about a version.

        Raises:
            NotFound: there is no such version.
            ModelRefused: the manifest is damaged, or was saved by a newer Roadcast.
        """
        missing = NotFound(f"The model {name} has no version {version}.")
        if not is_version(version):
            raise missing
        try:
            document = self._blobs.get(f"{name}/{version}/{MANIFEST}")
        except NotFound:
            raise missing from None
        return decode_manifest(name, version, document)

    def verify(self, name: str, version: str) -> Manifest:
        """What is known about a version of which every byte is as it was saved.

        Raises:
            NotFound: there is no such version.
            ModelRefused: it is damaged, incomplete, or was saved by a newer Roadcast.
        """
        manifest = self.manifest(name, version)
        self._parts(manifest, version)
        return manifest

    def names(self) -> list[str]:
        """The models that have a version."""
        return sorted({path.split("/")[0] for path in self._blobs.names() if path.endswith(f"/{MANIFEST}")})

    def versions(self, name: str) -> list[str]:
        """A model's versions, the oldest first."""
        return _whole(self._folders(name))

    def named(self, name: str, alias: Alias = Alias.CHAMPION, at: datetime | None = None) -> str | None:
        """The version that an alias names: at an event time, or as last recorded; None where it names none."""
        return aliases.named_at(self.history(name, alias), at)

    def history(self, name: str, alias: Alias = Alias.CHAMPION) -> list[Change]:
        """Every change of an alias, in the order in which they were recorded.

        Raises:
            ModelRefused: one is damaged or missing.
        """
        found = map(_CHANGE_FILE.fullmatch, self._blobs.names(f"{name}/{alias}"))
        last = max((int(match[1]) for match in found if match), default=0)
        return [self._change(_change_file(name, alias, number)) for number in range(1, last + 1)]

    def promote(
        self, name: str, version: str, effective_at: datetime, evidence: Evidence, alias: Alias = Alias.CHAMPION
    ) -> Change:
        """Let an alias name a version from an event time on.

        Raises:
            NotFound, ModelRefused: the version could not be loaded.
            Conflict: the alias names it already.
        """
        return self._record(
            name,
            alias,
            Action.PROMOTED,
            lambda history: aliases.promoted(history, version, effective_at),
            effective_at,
            evidence,
        )

    def rollback(
        self, name: str, version: str, effective_at: datetime, evidence: Evidence, alias: Alias = Alias.CHAMPION
    ) -> Change:
        """Take a promotion back: from an event time on, the alias names what it named before `version`, if anything.

        Raises:
            NotFound, ModelRefused: the version before could not be loaded.
            Conflict: the alias names another version by now.
        """
        return self._record(
            name,
            alias,
            Action.ROLLED_BACK,
            lambda history: aliases.rolled_back(history, version),
            effective_at,
            evidence,
        )

    def prune(self, name: str, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions and those that an alias names or could be rolled back to.

        Also removes what crashes left. What was removed, the oldest first.
        """
        if keep < 1:
            reason = "expected at least 1"
            raise InvalidInput(f"keep = {keep}: {reason}", (FieldError("keep", keep, reason),))
        folders = self._folders(name)
        kept = _whole(folders)[-keep:]
        removed: list[str] = []
        for version, files in folders.items():
            if version not in kept and self._may_go(name, version, files):
                self._remove(name, version, files)
                removed.append(version)
        return removed

    def _parts(self, manifest: Manifest, version: str) -> dict[str, Value]:
        return {
            part_name(file): self._part(f"{manifest.name}/{version}/{file}", part)
            for file, part in manifest.parts.items()
        }

    def _part(self, path: str, part: Part) -> Value:
        try:
            content = self._blobs.get(path)
        except NotFound:
            raise ModelRefused(path, "no such file", f"{part.size} bytes") from None
        check_part(path, part, content)
        return decode_part(path, content)

    def _change(self, file: str) -> Change:
        try:
            return aliases.decode_change(file, self._blobs.get(file))
        except NotFound:
            expected = "a change of the alias, since there are later ones"
            raise ModelRefused(file, "no such file", expected, aliases.RESTORE) from None

    def _record(
        self,
        name: str,
        alias: Alias,
        action: Action,
        choose: Callable[[Sequence[Change]], str | None],
        effective_at: datetime,
        evidence: Evidence,
    ) -> Change:
        """Choose by the history and add to it; where another was faster, again by the history that now is."""
        for _ in range(_ATTEMPTS):
            history = self.history(name, alias)
            version = choose(history)
            if version is not None:
                self.verify(name, version)
            change = Change(
                action=action,
                version=version,
                effective_at=effective_at,
                recorded_at=self._now(),
                evidence=evidence,
            )
            if self._blobs.create(_change_file(name, alias, len(history) + 1), aliases.encode_change(change)):
                return change
        raise Unavailable(f"The alias {alias} of {name} is changed by others all the time.")

    def _folders(self, name: str) -> dict[str, list[str]]:
        """The files of every version, whether whole or not, the oldest first."""
        folders: dict[str, list[str]] = {}
        for path in self._blobs.names(name):
            version, _, file = path.removeprefix(f"{name}/").partition("/")
            if is_version(version):
                folders.setdefault(version, []).append(file)
        return folders

    def _may_go(self, name: str, version: str, files: list[str]) -> bool:
        """Whether no alias needs it and nobody is still writing it."""
        if MANIFEST not in files:
            return version < stamp(self._now() - LEFTOVER_AGE)
        return all(version not in aliases.standing(self.history(name, alias))[-2:] for alias in Alias)

    def _remove(self, name: str, version: str, files: list[str]) -> None:
        """The manifest first, so that what is not whole is no version."""
        for file in sorted(files, key=MANIFEST.__ne__):
            self._blobs.delete(f"{name}/{version}/{file}")


def _whole(folders: Mapping[str, Sequence[str]]) -> list[str]:
    return [version for version, files in folders.items() if MANIFEST in files]


def _change_file(name: str, alias: Alias, number: int) -> str:
    return f"{name}/{alias}/{number:06d}.json"
