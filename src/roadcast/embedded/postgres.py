"""PostgreSQL from its wheel as a child: started, found again after its owner was killed, kept alive, stopped.

Whoever uses `EmbeddedPostgres` owns the lock on its DATA_DIR; `running` takes it by itself.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from roadcast.embedded import data_dir as data_dirs
from roadcast.embedded import postmaster
from roadcast.embedded.cluster import DATABASE, USER, Cluster
from roadcast.embedded.postmaster import Postmaster
from roadcast.embedded.restarts import Restarts
from roadcast.errors import StartError

HOST = "127.0.0.1"
START_PATIENCE_S = 15.0
"""How long a server that keeps ending is started again before it has accepted for the first time."""
RECOVERY_PATIENCE_S = 300.0
"""How long a server may take to accept; after an unclean stop it recovers first."""
STOP_PATIENCE_S = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""A stop is first asked for (all is written), then forced (the next start recovers)."""

CONFIGURATION = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_locks_per_transaction": "512",  # the default goes round for some 3,000 days of readings
    "max_wal_size": "1GB",
    "wal_compression": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Where the server is and who we are there."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str


class EmbeddedPostgres:
    """The server of one DATA_DIR."""

    def __init__(self, data_dir: Path) -> None:
        self._cluster = Cluster(data_dir)
        self._process: subprocess.Popen[bytes] | Postmaster | None = None
        self._port = 0
        self._has_accepted = False
        self._end_noted = False
        self._restarts = Restarts()
        self._deadline = 0.0

    @property
    def address(self) -> PostgresAddress:
        """Where it is, once started; the same after every restart."""
        return PostgresAddress(HOST, self._port, USER, self._cluster.password, DATABASE)

    @property
    def pause_s(self) -> float:
        """The pause before it was, or will be, started again; 0: it never ended."""
        return self._restarts.pause_s

    def start(self) -> None:
        """Find the server that an earlier owner left running, or start one; returns before it accepts connections.

        Raises:
            StartError: PostgreSQL cannot run here, or the data directory is not one it can use.
        """
        self._cluster.prepare()
        self._deadline = time.monotonic() + START_PATIENCE_S
        self._find_or_spawn()

    def tend(self) -> bool:
        """Start it again where it has ended; whether it accepts connections. To be called often.

        Raises:
            StartError: it has ended each time before it ever accepted.
        """
        if self.alive():
            self._cluster.bound_log()
            accepts = self._accepts()
            self._has_accepted |= accepts
            return accepts
        if not self._end_noted:
            self._note_end()
        elif self._restarts.due:
            self._find_or_spawn()
        return False

    def wait(self) -> PostgresAddress:
        """Tend it until it accepts connections.

        Raises:
            StartError: it does not.
        """
        deadline = time.monotonic() + RECOVERY_PATIENCE_S
        while not self.tend():
            if time.monotonic() > deadline:
                raise self._cannot_start()
            time.sleep(0.02)
        return self.address

    def alive(self) -> bool:
        """Whether its process lives."""
        match self._process:
            case None:
                return False
            case Postmaster() as found:
                return found.alive
            case child:
                return child.poll() is None

    def stop(self) -> None:
        """End it, gently first."""
        for signum, patience_s in STOP_PATIENCE_S:
            self._send(signum)
            if self._ends_within(patience_s):
                return

    def hasten(self) -> None:
        """End it at once; what was committed is recovered by the next start."""
        self._send(signal.SIGQUIT)

    def _find_or_spawn(self) -> None:
        found = postmaster.find(self._cluster.data)
        if found:
            self._port = found.port
            self._process = found
            _log.info("found PostgreSQL running (pid %d, port %d)", found.pid, found.port)
        else:
            self._process = self._spawn()
        self._end_noted = False
        self._restarts.started()

    def _spawn(self) -> subprocess.Popen[bytes]:
        postmaster.forget_reused_pid(self._cluster.data)
        self._port = self._port if self._has_accepted else _free_port()
        settings = [f"--{name}={value}" for name, value in {**CONFIGURATION, "port": str(self._port)}.items()]
        command = [self._cluster.programs / "postgres", "-D", self._cluster.data, *settings]
        return self._cluster.identity.spawn(command, self._cluster.data, self._cluster.log)

    def _accepts(self) -> bool:
        found = postmaster.find(self._cluster.data)
        return found is not None and found.ready

    def _note_end(self) -> None:
        if not self._has_accepted and time.monotonic() > self._deadline:
            raise self._cannot_start()
        self._end_noted = True
        pause_s = self._restarts.ended()
        _log.warning("PostgreSQL ended (%s); starting it again in %.0f s", self._how(), pause_s)

    def _how(self) -> str:
        code = self._process.returncode if isinstance(self._process, subprocess.Popen) else 0
        return signal.Signals(-code).name if code < 0 else self._cluster.last_words()

    def _cannot_start(self) -> StartError:
        return StartError(
            f"PostgreSQL does not start: {self._cluster.last_words()}.", remedy=f"Its log is {self._cluster.log}."
        )

    def _send(self, signum: signal.Signals) -> None:
        if self._process is not None and self.alive():
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signum)

    def _ends_within(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@contextmanager
def running(data_dir: Path) -> Generator[PostgresAddress]:
    """The address of the server of `data_dir`: of the one that runs, else of one that runs as long as the block.

    Raises:
        StartError: it neither runs nor can be started.
    """
    try:
        lock = data_dirs.own(data_dir)
    except data_dirs.InUse:
        yield _of_owner(data_dir)
        return
    server = EmbeddedPostgres(data_dir)
    try:
        server.start()
        yield server.wait()
    finally:
        server.stop()
        os.close(lock)


def find(data_dir: Path) -> PostgresAddress | None:
    """The address of the server of `data_dir` that accepts connections now, if one does."""
    cluster = Cluster(data_dir)
    found = postmaster.find(cluster.data)
    return PostgresAddress(HOST, found.port, USER, cluster.password, DATABASE) if found and found.ready else None


def _of_owner(data_dir: Path) -> PostgresAddress:
    """The address of the server that the owner of `data_dir` runs or is about to run."""
    deadline = time.monotonic() + START_PATIENCE_S
    while (found := find(data_dir)) is None:
        if time.monotonic() > deadline:
            raise StartError(f"The owner of DATA_DIR={data_dir} runs no database.", remedy="Stop it, or repeat.")
        time.sleep(0.05)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
