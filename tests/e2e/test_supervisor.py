"""The foreground process, asked from outside and killed: what survives, what comes back, what it says."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src" / "roadcast"


class Running:
    """The supervisor with the stand-in worker, running a copy of the code."""

    def __init__(self, folder: Path, port: int, **environment: str) -> None:
        self.data_dir, self.port, self.said = folder / "var", port, folder / f"said-{time.monotonic_ns()}"
        self._environment = environment
        self.code = folder / "code"
        if not self.code.exists():
            shutil.copytree(SOURCE, self.code / "roadcast", ignore=shutil.ignore_patterns("__pycache__"))
        with self.said.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "stand_in.py", "serve"],
                cwd=folder,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def environment(self) -> dict[str, str]:
        own = {"DATA_DIR": str(self.data_dir), "API_HOST": "127.0.0.1", "API_PORT": str(self.port)}
        return {**os.environ, "PYTHONPATH": str(self.code), **own, **self._environment}

    def ask(self, method: str = "GET", path: str = "/health") -> dict[str, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def worker(self) -> int:
        answer = self.ask()
        assert isinstance(answer["pid"], int)
        return answer["pid"]

    def says(self, text: str) -> bool:
        return eventually(lambda: text in self.said.read_text())

    def processes(self) -> list[int]:
        """Everything that lives with this data directory."""
        mark = os.fsencode(self.data_dir)
        return [int(process.name) for process in Path("/proc").glob("[0-9]*") if mark in belongings(process)]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def belongings(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink())
    except OSError:  # gone, or a zombie
        return b""


def eventually(holds: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(**environment: str) -> Running:
        started.append(Running(tmp_path, port, **environment))
        system = started[-1]
        assert eventually(lambda: "is running" in system.said.read_text() or system.process.poll() is not None)
        return system

    yield start
    for one in started:
        one.end()


def test_it_says_where_to_look_and_leaves_nothing_after_sigterm(start: Callable[..., Running]) -> None:
    system = start()
    assert system.ask()["database"] is True
    assert system.says(f"http://localhost:{system.port}/docs")
    assert len(system.processes()) > 2
    system.process.terminate()
    assert system.process.wait(15) == 0
    assert system.processes() == []


def test_ctrl_c_reaches_the_whole_group_and_still_ends_in_order(start: Callable[..., Running]) -> None:
    system = start()
    system.worker()
    os.killpg(system.process.pid, signal.SIGINT)
    assert system.process.wait(15) == 0
    assert system.processes() == []
    assert "database system is shut down" in (system.data_dir / "postgres" / "log").read_text()


def test_a_worker_that_dies_is_started_again_and_no_connection_is_refused(start: Callable[..., Running]) -> None:
    system = start()
    first = system.worker()
    with pytest.raises(http.client.RemoteDisconnected):
        system.ask("POST", "/3")
    assert system.worker() != first
    assert system.says("the worker ended unexpectedly (exit code 3); starting it again in 1 s")


def test_a_worker_that_cannot_be_helped_ends_it_all(start: Callable[..., Running]) -> None:
    system = start()
    with pytest.raises(http.client.RemoteDisconnected):
        system.ask("POST", "/78")
    assert system.process.wait(15) == 1
    assert system.processes() == []


def test_after_the_first_worker_a_cause_may_pass(start: Callable[..., Running]) -> None:
    system = start()
    for path in ("/3", "/78"):
        before = system.worker()
        with pytest.raises(http.client.RemoteDisconnected):
            system.ask("POST", path)
        assert system.worker() != before


def test_while_no_worker_starts_whoever_asks_is_told(start: Callable[..., Running], tmp_path: Path) -> None:
    system = start()
    (tmp_path / "broken").touch()
    with pytest.raises(http.client.RemoteDisconnected):
        system.ask("POST", "/3")
    silent = [socket.create_connection(("127.0.0.1", system.port)) for _ in range(3)]
    problem = system.ask()
    assert problem["status"] == 503
    assert "does not start" in str(problem["detail"])
    (tmp_path / "broken").unlink()
    assert eventually(lambda: system.ask()["status"] == "ok")
    for connection in silent:
        connection.close()


def test_changed_code_restarts_only_the_worker(start: Callable[..., Running]) -> None:
    system = start()
    first = system.worker()
    database = (system.data_dir / "postgres/data/postmaster.pid").read_text()
    (system.code / "roadcast" / "windows.py").touch()
    assert eventually(lambda: system.worker() != first)
    assert (system.data_dir / "postgres/data/postmaster.pid").read_text() == database
    assert system.says("the code has changed")


def test_without_reload_changed_code_changes_nothing(start: Callable[..., Running]) -> None:
    system = start(API_RELOAD="false")
    first = system.worker()
    (system.code / "roadcast" / "windows.py").touch()
    time.sleep(1.5)
    assert system.worker() == first


def test_killed_alone_it_is_followed_by_its_worker_and_its_database_is_found_again(
    start: Callable[..., Running],
) -> None:
    system = start()
    first = system.worker()
    database = (system.data_dir / "postgres/data/postmaster.pid").read_text()
    system.process.kill()
    system.process.wait()
    following = start()
    assert following.worker() != first
    assert following.ask()["database"] is True
    assert following.says("found PostgreSQL running")
    assert (system.data_dir / "postgres/data/postmaster.pid").read_text() == database
    assert first not in following.processes()


def test_after_a_kill_of_everything_it_starts_again(start: Callable[..., Running]) -> None:
    system = start()
    system.worker()
    system.end()
    assert eventually(lambda: not system.processes())
    assert start().ask()["database"] is True


def test_a_database_that_dies_comes_back_where_it_was(start: Callable[..., Running]) -> None:
    system = start()
    worker = system.worker()
    pid = int((system.data_dir / "postgres/data/postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: system.ask()["database"] is False)
    assert eventually(lambda: system.ask()["database"] is True)
    assert system.worker() == worker
    assert system.says("PostgreSQL ended (SIGKILL); starting it again in 1 s")


def test_twice_at_once_is_refused_in_one_line(start: Callable[..., Running]) -> None:
    system = start()
    system.worker()
    second = start()
    assert second.process.wait(15) == 1
    assert second.said.read_text() == (
        f"roadcast: Already running (pid {system.process.pid}) on DATA_DIR={system.data_dir}. "
        "Stop it, or set another DATA_DIR and API_PORT.\n"
    )
    assert system.ask()["status"] == "ok"


def test_a_busy_port_is_refused_in_one_line(start: Callable[..., Running], port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        system = start()
        assert system.process.wait(15) == 1
    assert system.said.read_text() == (
        f"roadcast: API_PORT={port} is in use on 127.0.0.1. "
        f"Stop the program that has it, or set another: API_PORT={port + 1}\n"
    )


def test_an_address_that_is_not_this_machines_is_refused_in_one_line(start: Callable[..., Running]) -> None:
    system = start(API_HOST="192.0.2.1")
    assert system.process.wait(15) == 1
    said = system.said.read_text()
    assert said.startswith("roadcast: Cannot listen on API_HOST=192.0.2.1")
    assert said.count("\n") == 1
