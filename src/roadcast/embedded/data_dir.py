"""The folder of everything that is written, and the lock that gives it one owner at a time."""

import fcntl
import os
import time
from pathlib import Path

from roadcast.errors import StartError

PATIENCE_S = 10.0
"""How long the children of an owner that was killed may take to end."""


class InUse(StartError):
    """Another process owns the folder."""


def own(data_dir: Path) -> int:
    """Make the folder and lock it; a file descriptor that owns it until every process that inherited it has closed it.

    Children that inherit it keep a next owner waiting, so that no two generations work side by side.

    Raises:
        InUse: another process owns it.
        StartError: it cannot be made or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _acquire(lock, data_dir)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except BaseException:
            os.close(lock)
            raise
    except FileExistsError as error:
        what = f"a link to {data_dir.readlink()}, which is not there" if data_dir.is_symlink() else "not a folder"
        raise StartError(
            f"DATA_DIR={data_dir} is {what}.", remedy="Set DATA_DIR to a folder, or to where one can be made."
        ) from error
    except OSError as error:
        raise StartError(
            f"DATA_DIR={data_dir} cannot be written: {error.strerror}.",
            remedy="Set DATA_DIR to a folder that you may write.",
        ) from error
    return lock


def _acquire(lock: int, data_dir: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _try_lock(lock):
        owner = os.pread(lock, 20, 0).decode()
        if _is_alive(owner) or time.monotonic() > deadline:
            raise InUse(
                f"Already running (pid {owner}) on DATA_DIR={data_dir}.",
                remedy="Stop it, or set another DATA_DIR and API_PORT.",
            )
        time.sleep(0.05)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return not _is_zombie(pid)


def _is_zombie(pid: str) -> bool:
    """Whether it was killed and its parent has not looked yet. Told where there is a /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
