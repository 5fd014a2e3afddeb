"""A real system, started as its user starts it, asked from outside, and ended whatever becomes of the test."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

SOURCE = Path(__file__).parents[2] / "src"
SERVE = (sys.executable, "-m", "roadcast", "serve", "--config", "development")
PATIENCE_S = 60.0
"""For what takes some seconds on a machine of its own."""


class System:
    """One `roadcast serve` on a DATA_DIR; another one on the same folder goes on where it ended."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.data_dir, self.port = folder, folder / "var", free_port()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.port),
            "API_RELOAD": "false",
            "DATA_DIR": str(self.data_dir),
            "LOG_FILE": str(folder / "app.log"),
            **environment,
        }
        self.said = folder / f"said-{self.port}"
        with self.said.open("w") as output:
            self.process = subprocess.Popen(
                SERVE, cwd=folder, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        # Beyond its keep-alive limit httpcore may close a connection that it has just lent to another thread.
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, limits=limits)

    def __enter__(self) -> Self:
        if not eventually(lambda: self.answers() or self.process.poll() is not None, PATIENCE_S) or not self.answers():
            self.__exit__()
            raise AssertionError(self.said.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()

    @property
    def socket_url(self) -> str:
        """Of the live stream."""
        return f"ws://127.0.0.1:{self.port}/ws/real-time"

    def answers(self) -> bool:
        """Whether a worker serves."""
        try:
            return self.client.get("/health").status_code in {200, 503}
        except httpx.HTTPError:
            return False

    def get(self, path: str, **parameters: object) -> Any:
        """The JSON of a request that succeeds."""
        answer = self.client.get(path, params={name: str(value) for name, value in parameters.items()})
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, readings: object) -> dict[str, Any]:
        """The account of readings that are taken."""
        answer = self.client.post("/api/traffic/readings", json=readings)
        assert answer.is_success, answer.text
        return answer.json()

    def part(self, name: str) -> dict[str, Any]:
        """What the system says of one of its parts."""
        return next(part for part in self.get("/api/system/status")["parts"] if part["name"] == name)

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run another `roadcast` command with the settings of this system."""
        return roadcast(self.environment, self.folder, *arguments)

    def processes(self, name: str = "") -> list[int]:
        """What lives with this DATA_DIR and has `name` in its command line."""
        mark = os.fsencode(self.data_dir)
        found = [process for process in Path("/proc").glob("[0-9]*") if mark in _belongings(process)]
        return [int(process.name) for process in found if name in _command(process)]

    def worker(self) -> int:
        """The process that serves."""
        [pid] = self.processes("roadcast worker")
        return pid

    def kill(self) -> None:
        """End everything at once, as a power cut would."""
        self.process.kill()
        self.process.wait()
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def roadcast(environment: dict[str, str], folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a `roadcast` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "roadcast", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def eventually(holds: Callable[[], object], seconds: float = 15.0) -> bool:
    """Whether it holds before the time is up."""
    deadline = time.monotonic() + seconds
    while not (held := bool(holds())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _belongings(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink())
    except OSError:  # gone, or a zombie
        return b""


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
