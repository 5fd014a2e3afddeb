"""The server that a data directory's `postmaster.pid` names, and whether it really is one of that directory."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_STATUS_LINE = 7
_PORT_LINE = 3


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server that was running when its file was read."""

    data: Path
    pid: int
    port: int
    ready: bool

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return _works_in(self.pid, self.data)


def find(data: Path) -> Postmaster | None:
    """The server that runs on `data`. A file whose process is gone, or has become another program's, names none."""
    try:
        lines = (data / "postmaster.pid").read_bytes().splitlines()  # as bytes: it holds the path in whatever encoding
        pid, port = int(lines[0]), int(lines[_PORT_LINE])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    ready = len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == b"ready"
    return Postmaster(data, pid, port, ready) if _works_in(pid, data) else None


def forget_reused_pid(data: Path) -> None:
    """Remove a `postmaster.pid` whose number now is another program's: PostgreSQL would refuse to start.

    One whose process is gone stays: PostgreSQL looks there for memory that the children of a dead server still hold.
    """
    path = data / "postmaster.pid"
    try:
        pid = int(path.read_bytes().split(maxsplit=1)[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, IndexError, ProcessLookupError, PermissionError):
        return
    if not _works_in(pid, data):
        path.unlink()


def _works_in(pid: int, data: Path) -> bool:
    """Whether process `pid` works in `data`, as every server does. A zombie works nowhere."""
    if Path("/proc/self/cwd").exists():
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
        except OSError:
            return False
    shown = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return str(data) in shown.stdout
