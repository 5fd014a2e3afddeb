"""The worker: everything behind a listening socket, until a signal comes or a service ends."""

import asyncio
import gc
import os
import resource
import signal
import socket
from contextlib import nullcontext
from types import FrameType

import structlog
import uvicorn
import uvloop

from roadcast import telemetry
from roadcast.api.app import create_app
from roadcast.api.socket import LARGEST_MESSAGE
from roadcast.settings import Mode, Settings
from roadcast.storage.engine import Address
from roadcast.wiring import running

log = structlog.get_logger()

GC_THRESHOLDS = (20_000, 20, 50)
"""Batches of readings and forecasts are many short-lived values, none of them in cycles: look for those less often."""
OPEN_FILES = 65_536
"""Several times the sockets that the API lets in."""
SHUTDOWN_S = 5
"""How long requests may take to finish at the end."""
LAST_HEARING_S = 0.2
"""How long a connection that was just accepted may take to say what it wants."""


class Failure:
    """Ends the process when a service ends, so that whoever supervises it starts it again."""

    def __init__(self) -> None:
        self.happened = False

    def of(self, task: "asyncio.Task[None]") -> None:
        """Called with the task of all services when it is done."""
        if task.cancelled():
            return
        self.happened = True
        error = task.exception()
        log.critical("service_ended", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


def serve(settings: Settings, mode: Mode, address: Address, listener: socket.socket) -> int:
    """Run everything behind a listening socket until a signal comes; the exit code.

    Raises:
        StartError: the database cannot be used.
    """
    problem = telemetry.set_up(settings.log_level, settings.log_format, settings.log_file)
    if problem:
        log.warning("log_file", detail=problem)
    _allow_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, mode, address, listener))


def _allow_open_files() -> None:
    """Every socket is an open file, of which most systems allow 1,024 unless a process asks for what it may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def _serve(settings: Settings, mode: Mode, address: Address, listener: socket.socket) -> int:
    """Start the parts, then the server: an error of theirs at the start is ours to report, and not the server's."""
    failure = Failure()
    gc.freeze()  # what is loaded now stays; collections need not look at it again
    gc.set_threshold(*GC_THRESHOLDS)
    async with running(settings, mode, address, failure.of) as context:
        config = uvicorn.Config(
            create_app(lambda: nullcontext(context)), ws="websockets-sansio", lifespan="on", log_config=None,
            access_log=False, timeout_graceful_shutdown=SHUTDOWN_S, server_header=False,
            ws_per_message_deflate=False, ws_max_size=LARGEST_MESSAGE,
        )  # fmt: skip
        for signum in (signal.SIGTERM, signal.SIGINT):  # the server raises again what ended it; the parts end first
            signal.signal(signum, _hear)
        await _Server(config).serve(sockets=[listener])
    return 1 if failure.happened else 0


def _hear(_signum: int, _frame: FrameType | None) -> None:
    """All is said: the server has ended because of it."""


class _Server(uvicorn.Server):
    """A server that hears out who has just connected: the next worker's are only those who come after."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_HEARING_S)
        await super().shutdown(sockets)
