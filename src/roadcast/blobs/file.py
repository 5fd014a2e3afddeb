"""Blobs as files below one folder, for the eyes of their owner only.

A file is written beside the others under a name that is no blob's, synced, and only then moved to its place. What a
crash leaves behind is never listed, and the first write after `LEFTOVER_S` removes it.
"""

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from roadcast.blobs.store import check_name, is_name
from roadcast.errors import Conflict, NotFound, StoreDown

PARTIAL = ".partial"
LEFTOVER_S = 3600.0
"""No write takes this long: a partial file of this age has lost its writer."""


class FileBlobs:
    """The files below `root`, which the first write makes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, content: bytes) -> None:
        """Replace the file."""
        self._write(name, content, _replace)

    def create(self, name: str, content: bytes) -> bool:
        """Make the file, unless it is there."""
        return self._write(name, content, _link)

    def get(self, name: str) -> bytes:
        """Read the file."""
        path = self._path(name)
        with self._failing_as_ours(name):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(f"There is no {name} in {self._root}.") from None

    def exists(self, name: str) -> bool:
        """Whether it is a file."""
        with self._failing_as_ours(name):
            return self._path(name).is_file()

    def names(self, folder: str = "") -> list[str]:
        """Walk the folder; files that others put there under names that are none are not ours."""
        top = self._path(folder) if folder else self._root
        with self._failing_as_ours(folder):
            if self._root.exists() and not self._root.is_dir():
                raise NotADirectoryError
            paths = [
                (Path(parent) / file).relative_to(self._root).as_posix()
                for parent, _, files in os.walk(top, onerror=_raise_unless_gone)
                for file in files
            ]
        return sorted(filter(is_name, paths))

    def delete(self, name: str) -> None:
        """Remove the file, and the folders that are empty without it."""
        path = self._path(name)
        with self._failing_as_ours(name):
            if path.is_file():
                path.unlink(missing_ok=True)
                _sync(path.parent)
                _remove_empty(path.parent, self._root)

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._root / name

    def _write(self, name: str, content: bytes, place: Callable[[Path, Path], bool]) -> bool:
        target = self._path(name)
        partial = self._root / PARTIAL / uuid4().hex
        with self._failing_as_ours(name):
            _make(partial.parent)
            _sweep(partial.parent)
            try:
                _write_synced(partial, content)
                return _placed(partial, target, place)
            finally:
                partial.unlink(missing_ok=True)

    @contextmanager
    def _failing_as_ours(self, name: str) -> Generator[None]:
        try:
            yield
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise Conflict(f"{self._root / name} is a folder, or lies in a file.") from error
        except OSError as error:
            raise StoreDown(
                f"{self._root / name} cannot be read or written: {error.strerror}.",
                remedy="See to the disk and to who owns the folder.",
            ) from error


def _replace(partial: Path, target: Path) -> bool:
    partial.replace(target)
    return True


def _link(partial: Path, target: Path) -> bool:
    """A link, unlike a rename, fails where something is."""
    try:
        target.hardlink_to(partial)
    except FileExistsError:
        return False
    return True


def _placed(partial: Path, target: Path, place: Callable[[Path, Path], bool], attempts: int = 10) -> bool:
    """Move a partial file to its place; again where a `delete` has removed the empty folder in between."""
    try:
        _make(target.parent)
        placed = place(partial, target)
    except FileNotFoundError:
        if attempts == 1:
            raise
        return _placed(partial, target, place, attempts - 1)
    _sync(target.parent)
    return placed


def _write_synced(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make what was added to or removed from a folder outlive a power cut; one that is gone has nothing to lose."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(partials: Path) -> None:
    for leftover in partials.iterdir():
        with suppress(FileNotFoundError):  # another writer was faster
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()


def _remove_empty(folder: Path, root: Path) -> None:
    with suppress(OSError):  # it is not empty, or gone already
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
