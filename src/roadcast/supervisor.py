"""The foreground process of `roadcast serve`: it owns DATA_DIR, the listening socket, the database and one worker.

The worker serves. It is told where things are in one JSON line on its standard input, and reads the end of that input
when its owner is gone, however it went. The socket outlives the worker, so that no connection is refused while code
is reloaded or a worker that died is started again. Where that fails again and again, the supervisor answers 503.
"""

import errno
import http.client
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Self

import roadcast
from roadcast.embedded.data_dir import own
from roadcast.embedded.postgres import EmbeddedPostgres, PostgresAddress
from roadcast.embedded.restarts import Restarts
from roadcast.errors import PROBLEM_MEDIA_TYPE, StartError
from roadcast.outputs import Aside, write_line
from roadcast.porter import Porter
from roadcast.settings import Mode, Settings

EX_CONFIG = 78
"""A worker that ends with this has said why. Of the first one that ends it all: starting it again would not help.
Later the cause may pass: a database that is away, a mistake in code or .env that is being corrected."""
STOP_PATIENCE_S = 10.0
"""A worker that was asked to end is killed after this."""
ORPHAN_PATIENCE_S = 5.0
"""A worker whose owner is gone ends at last after this: before the next owner gives up waiting for DATA_DIR."""
PULSE_S = 0.25
BACKLOG = 2048
WAITED_OUT_S = 2.0
"""Who asks waits while a part is started again after a pause of at most this long."""
PROGRAM = (sys.executable, "-m", "roadcast")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handover:
    """What a worker is told: how to run, the listening socket's descriptor, and the database (None: by DB_HOST)."""

    mode: Mode
    socket: int
    database: PostgresAddress | None


def supervise(settings: Settings, mode: Mode, *, worker: Sequence[str], health_check: bool = False) -> int:
    """Run the system until it is asked to end; the exit code.

    Raises:
        StartError: the folder, the port or the database cannot be had.
    """
    said = Aside(partial(write_line, sys.stderr.fileno()))  # nobody may read it, and we must go on
    logging.basicConfig(format="roadcast: %(message)s", level=logging.INFO, handlers=[said])
    with ExitStack() as stack:
        lock = own(settings.data_dir)
        stack.callback(os.close, lock)
        listener = stack.enter_context(_listen(settings.api_host, settings.api_port))
        process = _Worker(worker, (lock, listener.fileno()))
        database = None if settings.db_host else EmbeddedPostgres(settings.data_dir)
        code = _Code(Path(roadcast.__file__).parent) if settings.api_reload else None
        supervisor = _Supervisor(process, database, code, mode, listener)
        signals = stack.enter_context(_Signals(supervisor.hasten))
        where = _where_to_look(settings, listener)
        threading.Thread(target=_welcome, args=(listener, where, health_check), name="welcome", daemon=True).start()
        return supervisor.run(signals)


def owner() -> Handover:
    """In the worker: wait for what the supervisor says. From then on this process ends when the supervisor is gone."""
    said = b""
    while not said.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            sys.exit(0)
        said += part
    threading.Thread(target=_end_with_owner, name="owner", daemon=True).start()
    told = json.loads(said)
    database = told["database"]
    return Handover(Mode(told["mode"]), told["socket"], PostgresAddress(**database) if database else None)


def _end_with_owner() -> None:
    while os.read(0, 65536):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_PATIENCE_S)
    os._exit(1)


class _Supervisor:
    """Keeps database and worker alive."""

    def __init__(
        self,
        worker: "_Worker",
        database: EmbeddedPostgres | None,
        code: "_Code | None",
        mode: Mode,
        listener: socket.socket,
    ) -> None:
        self._worker = worker
        self._database = database
        self._code = code
        self._mode = mode
        self._listener = listener
        self._restarts = Restarts()
        self._end_noted = False
        self._porter = Porter(listener)

    def run(self, signals: "_Signals") -> int:
        """Until the end is asked for (0), or the worker cannot be helped (1)."""
        try:
            self._start_worker()
            if self._database is not None:
                self._database.start()
            while not (signals.asked or self._worker.has_refused):
                self._tend()
                signals.wait()
            return int(self._worker.has_refused)
        finally:
            self._stop()

    def hasten(self) -> None:
        """End both at once."""
        self._worker.kill()
        if self._database is not None:
            self._database.hasten()

    def _tend(self) -> None:
        accepts = self._database is None or self._database.tend()
        if self._code is not None and self._code.has_changed():
            _log.info("the code has changed: restarting the worker")
            self._worker.stop()
            self._start_worker()
        elif self._worker.exit_code() is not None:
            self._tend_ended()
        elif accepts and not self._worker.is_told:
            address = None if self._database is None else self._database.address
            self._porter.end()
            self._worker.tell(Handover(self._mode, self._listener.fileno(), address))
        elif not self._worker.is_told and self._database is not None and self._database.pause_s > WAITED_OUT_S:
            self._porter.begin()

    def _tend_ended(self) -> None:
        if self._worker.has_refused:  # it may have ended since the loop looked
            return
        if not self._end_noted:
            self._end_noted = True
            self._worker.kill()
            how, pause_s = _how(self._worker.exit_code()), self._restarts.ended()
            _log.error("the worker ended unexpectedly (%s); starting it again in %.0f s", how, pause_s)
            if pause_s > WAITED_OUT_S:
                self._porter.begin()
        elif self._restarts.due:
            self._start_worker()

    def _start_worker(self) -> None:
        self._porter.end()
        self._worker.start()
        self._restarts.started()
        self._end_noted = False

    def _stop(self) -> None:
        self._porter.end()
        self._worker.stop()
        if self._database is not None:
            self._database.stop()


class _Worker:
    """The process that serves, in a group of its own: a terminal's Ctrl-C reaches only its owner."""

    def __init__(self, command: Sequence[str], inherited: tuple[int, ...]) -> None:
        self._command = command
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self.is_told = False
        self.is_first = True

    def start(self) -> None:
        """Start it; it loads its code and waits to be told."""
        self.is_first = self._process is None
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, bufsize=0, pass_fds=self._inherited, process_group=0
        )
        self.is_told = False

    def tell(self, handover: Handover) -> None:
        """Tell it where things are."""
        self.is_told = True
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it has just ended, which `exit_code` tells
                self._process.stdin.write(json.dumps(asdict(handover)).encode() + b"\n")

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def has_refused(self) -> bool:
        """Whether the first one has ended and said why."""
        return self.is_first and self.exit_code() == EX_CONFIG

    def stop(self) -> None:
        """End it, and whatever it started."""
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_PATIENCE_S)
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it at once, and whatever it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _how(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


class _Signals:
    """Requests to end: the first sets `asked`, each further one calls `hasten`. A child's end wakes `wait`."""

    def __init__(self, hasten: Callable[[], None]) -> None:
        self.asked = False
        self._hasten = hasten
        self._reader, self._writer = socket.socketpair()

    def __enter__(self) -> Self:
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._wake)
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)  # also where a shell's & had it ignored
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def wait(self) -> None:
        """Until a signal comes, at most a pulse."""
        if select.select([self._reader], [], [], PULSE_S)[0]:
            self._reader.recv(4096)

    def _wake(self, _signum: int, _frame: FrameType | None) -> None:
        """Its coming is all: `wait` returns."""

    def _ask(self, _signum: int, _frame: FrameType | None) -> None:
        if self.asked:
            self._hasten()
        self.asked = True


class _Code:
    """The source files of a folder: looked at, not subscribed to, which works on every file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._known = self._look()

    def has_changed(self) -> bool:
        """Whether they differ from when it last said so and have been still since the last look."""
        before, self._seen = self._seen, self._look()
        if self._seen != before or self._seen == self._known:
            return False
        self._known = self._seen
        return True

    def _look(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for folder, _, names in os.walk(self._folder):
            for name in names:
                if name.endswith(".py"):
                    path = f"{folder}/{name}"
                    with suppress(FileNotFoundError):  # replaced while we look
                        found[path] = Path(path).stat().st_mtime
        return found


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"API_PORT={port} is in use on {host}.",
                remedy=f"Stop the program that has it, or set another: API_PORT={port + 1}",
            ) from error
        raise StartError(
            f"Cannot listen on API_HOST={host}, API_PORT={port}: {error.strerror}.",
            remedy="Set API_HOST to an address of this machine and API_PORT to a port that you may open.",
        ) from error


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """Where a client on this machine finds the socket."""
    host, port = str(listener.getsockname()[0]), int(listener.getsockname()[1])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not bound


def _where_to_look(settings: Settings, listener: socket.socket) -> str:
    host, port = _reachable(listener)
    shown = "localhost" if host in {"127.0.0.1", "::1"} else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    return (
        f"\nRoadcast {roadcast.__version__} is running.\n"
        f"  API    {url}\n"
        f"  Docs   {url}/docs\n"
        f"  Data   {settings.data_dir}\n"
        f"  Stop   Ctrl-C\n"
    )


def _welcome(listener: socket.socket, text: str, health_check: bool) -> None:
    """Say `text` as soon as a worker answers, and not the porter."""
    while (health := _ask_health(*_reachable(listener))) is None:
        time.sleep(1.0)
    if health_check:
        text += f"\nHealth: {health}\n"
    with suppress(OSError):  # whoever read our output is gone; we go on
        write_line(sys.stdout.fileno(), text)


def _ask_health(host: str, port: int) -> str | None:
    """The status that /health tells. The socket listens before a worker is there, so the question may have to wait."""
    connection = http.client.HTTPConnection(host, port, timeout=120)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return (
            None
            if answer.headers["Content-Type"] == PROBLEM_MEDIA_TYPE
            else str(json.loads(answer.read()).get("status"))
        )
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return None
    finally:
        connection.close()
