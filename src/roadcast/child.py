"""A child process that holds one object and answers calls: heavy work neither stalls nor kills its parent."""

import asyncio
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import cast

import structlog

from roadcast.errors import RoadcastError

log = structlog.get_logger()

PARENT_EVERY_S = 1.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ChildDown(RoadcastError):
    """The child died, failed or took too long, and has been ended."""


class ChildSlow(ChildDown):
    """It took too long."""


class Child:
    """Speaks with the child over a pipe, one call at a time. The child ends when this end of the pipe is gone.

    name: what it is called in the log; make: makes the object whose methods are called, in the child.
    """

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self._name = name
        self._make = make
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._turn = asyncio.Lock()
        self.deaths = 0

    @property
    def running(self) -> bool:
        """Whether there is a child to call; one that died unnoticed is found, and counted, by the next call."""
        return self._process is not None

    def start(self) -> None:
        """Start a child with a new object; one that still runs is ended."""
        self.stop()
        for name in _THREADS:  # one thread: the same bytes on every machine, and the API keeps its core
            os.environ.setdefault(name, "1")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make), name=self._name, daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = cast("Connection", ours)

    def stop(self) -> None:
        """End the child at once; a call that waits for it is told."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    async def call(self, method: str, *arguments: object, timeout_s: float) -> object:
        """Call a method of the child's object.

        Raises:
            ChildDown: the child is not running; or it died, failed or took too long, and has been ended.
        """
        async with self._turn:
            if self._pipe is None:
                raise ChildDown(f"the {self._name}'s process is not running")
            exchange = asyncio.create_task(asyncio.to_thread(_exchange, self._pipe, method, arguments))
            try:
                async with asyncio.timeout(timeout_s):
                    failure, result = await asyncio.shield(exchange)
            except TimeoutError:
                await self._end(exchange)
                raise self._down(f"did not {method} within {timeout_s:.0f} s", ChildSlow) from None
            except (EOFError, OSError) as error:
                self.stop()
                raise self._down("died") from error
            except asyncio.CancelledError:
                await self._end(exchange)  # its answer must not be taken for that of the next call
                raise
            if failure is not None:
                self.stop()
                raise self._down(f"could not {method}: {failure}")
            return result

    async def _end(self, exchange: asyncio.Task[tuple[str | None, object]]) -> None:
        """End the child, which ends the exchange with it: only then is the pipe nobody's, and can be closed."""
        if self._process is not None:
            self._process.kill()
        await asyncio.wait({exchange})
        if not exchange.cancelled():
            exchange.exception()
        self.stop()

    def _down(self, reason: str, kind: type[ChildDown] = ChildDown) -> ChildDown:
        self.deaths += 1
        log.error("child_down", child=self._name, reason=reason)
        return kind(f"the {self._name}'s process {reason}")


def peak_mb() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _exchange(pipe: Connection, method: str, arguments: tuple[object, ...]) -> tuple[str | None, object]:
    pipe.send((method, arguments))
    return cast("tuple[str | None, object]", pipe.recv())


def _end_with(parent: int) -> None:
    """End this process, whatever it is doing, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY_S)
    os._exit(1)


def _serve(pipe: Connection, make: Callable[[], object]) -> None:
    """The child: answer calls until the other end of the pipe is gone, or who holds it."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    held = make()
    while True:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (None, getattr(held, method)(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever the object raises is the parent's to count and report
            answer = (repr(error), None)
        try:
            pipe.send(answer)
        except OSError:
            return
