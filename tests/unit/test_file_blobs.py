"""What only files can get wrong: rights, the order of syncing, leftovers, folders in the way."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from roadcast.blobs.file import LEFTOVER_S, PARTIAL, FileBlobs
from roadcast.errors import Conflict, Unavailable


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    blobs.put("a/b", b"1")
    blobs.create("a/c", b"1")
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        "store": 0o700,
        "store/a": 0o700,
        "store/a/b": 0o600,
        "store/a/c": 0o600,
        f"store/{PARTIAL}": 0o700,
    }


@pytest.mark.parametrize("write", [FileBlobs.put, FileBlobs.create])
def test_the_content_is_synced_before_it_is_seen_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[FileBlobs, str, bytes], object]
) -> None:
    synced: list[tuple[int, int, bool]] = []
    target = tmp_path / "a" / "b"

    def fsync(descriptor: int) -> None:
        file = os.fstat(descriptor)
        synced.append((file.st_ino, file.st_size, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write(FileBlobs(tmp_path), "a/b", b"123")
    assert (target.stat().st_ino, 3, False) in synced
    assert (synced[-1][0], synced[-1][2]) == (target.parent.stat().st_ino, True)
    assert (tmp_path.stat().st_ino, False) in [(inode, seen) for inode, _, seen in synced]


def test_leftovers_of_a_crash_are_never_listed_and_removed_when_old(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.put("a", b"1")
    old, young = tmp_path / PARTIAL / "old", tmp_path / PARTIAL / "young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    long_ago = time.time() - LEFTOVER_S - 60
    os.utime(old, (long_ago, long_ago))
    assert blobs.names() == ["a"]
    blobs.put("b", b"2")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.put("a/b", b"1")
    for name in ("a", "a/b/c"):
        with pytest.raises(Conflict, match=f"{tmp_path / name} is a folder, or lies in a file"):
            blobs.put(name, b"2")
    with pytest.raises(Conflict):
        blobs.create("a/b/c", b"2")
    assert not blobs.create("a/b", b"2")
    assert list((tmp_path / PARTIAL).iterdir()) == []
    assert blobs.get("a/b") == b"1"


def test_empty_folders_go_with_their_last_file(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.put("a/b/c/d", b"1")
    blobs.put("a/e", b"1")
    blobs.delete("a/b/c/d")
    assert {path.name for path in tmp_path.iterdir()} == {PARTIAL, "a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"e"}


def test_files_of_others_are_not_ours(tmp_path: Path) -> None:
    for stranger in (".DS_Store", "README.md"):
        (tmp_path / stranger).write_text("")
    assert FileBlobs(tmp_path).names() == []


def test_what_the_system_refuses_is_said_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(Unavailable, match=rf"^{tmp_path}/a cannot be read or written: Too many levels of symbolic"):
        FileBlobs(tmp_path).get("a")


def test_a_file_in_place_of_the_store_is_no_empty_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Conflict, match="is a folder, or lies in a file"):
        FileBlobs(tmp_path / "file").names()


def test_a_full_disk_is_unavailable_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.put("a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        blobs.put("a", b"new")
    assert blobs.get("a") == b"old"
    assert list((tmp_path / PARTIAL).iterdir()) == []
