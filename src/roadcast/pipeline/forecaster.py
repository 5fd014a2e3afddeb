"""The forecasters' child process: heavy work that may be slow or die without stalling ingest and API."""

import asyncio
import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import cast

import numpy as np
import structlog
from numpy.typing import NDArray

from roadcast.domain.units import TOLERANCE_SHARE
from roadcast.errors import RoadcastError
from roadcast.forecasting.engine import Engine, Issue
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History

log = structlog.get_logger()

STEP_TIMEOUT_S = 60.0
FIT_TIMEOUT_S = 900.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ForecasterDown(RoadcastError):
    """The child died, failed or took too long; it must be started and fitted again."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How many ticks ahead, and what counts as right."""

    horizons: int
    tolerance_mph: float

    def engine(self) -> Engine:
        """An engine that has learnt nothing yet."""
        return Engine(self.horizons, self.tolerance_mph, TOLERANCE_SHARE)


class ForecasterProcess:
    """Speaks with the child over a pipe, one call at a time. The child ends when this end of the pipe is gone."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self.deaths = 0

    @property
    def running(self) -> bool:
        """Whether there is a child to call; one that died unnoticed is found, and counted, by the next call."""
        return self._process is not None

    def start(self) -> None:
        """Start a child that has learnt nothing; one that still runs is ended."""
        self.stop()
        for name in _THREADS:  # one thread: the same bytes on every machine, and the API keeps its core
            os.environ.setdefault(name, "1")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._config), name="forecaster", daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = cast("Connection", ours)

    def stop(self) -> None:
        """End the child."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    async def fit(self, history: History, graph: Graph, reference_speed: NDArray[np.float32]) -> None:
        """Fit every forecaster.

        Raises:
            ForecasterDown: the child died, failed or took too long, and has been ended.
        """
        await self._call("fit", (history, graph, reference_speed), FIT_TIMEOUT_S)

    async def step(self, state: History) -> Issue:
        """Forecast what follows the state.

        Raises:
            ForecasterDown: the child died, failed or took too long, and has been ended.
        """
        return cast("Issue", await self._call("step", (state,), STEP_TIMEOUT_S))

    async def _call(self, name: str, arguments: tuple[object, ...], timeout_s: float) -> object:
        try:
            return await asyncio.to_thread(self._exchange, name, arguments, timeout_s)
        except ForecasterDown as error:
            self.deaths += 1
            log.error("forecaster_down", reason=error.message)
            self.stop()
            raise

    def _exchange(self, name: str, arguments: tuple[object, ...], timeout_s: float) -> object:
        if self._pipe is None:
            raise ForecasterDown("the forecaster's process is not running")
        try:
            self._pipe.send((name, arguments))
            if not self._pipe.poll(timeout_s):
                raise ForecasterDown(f"the forecaster's process did not {name} within {timeout_s:.0f} s")
            failure, result = cast("tuple[str | None, object]", self._pipe.recv())
        except (EOFError, OSError) as error:
            raise ForecasterDown("the forecaster's process died") from error
        if failure is not None:
            raise ForecasterDown(f"the forecaster could not {name}: {failure}")
        return result


def _serve(pipe: Connection, config: EngineConfig) -> None:
    """The child: answer calls until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = config.engine()
    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (None, getattr(engine, name)(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever a forecaster raises is the parent's to count and report
            answer = (repr(error), None)
        try:
            pipe.send(answer)
        except OSError:
            return
