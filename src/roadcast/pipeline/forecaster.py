"""The forecaster's process, which learns from a history that comes piece by piece, and what serves without it."""

import math
import time
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import structlog
from numpy.typing import NDArray

from roadcast.child import Child, ChildDown, ChildSlow
from roadcast.domain.times import from_ms
from roadcast.errors import Unavailable
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.engine import Engine, Issue, Past
from roadcast.forecasting.explanation import Explained
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.trained import Trained
from roadcast.pipeline.champion import Throne
from roadcast.pipeline.past import Gathering, Pieces, Span, hand_over
from roadcast.services import Board, Status

log = structlog.get_logger()

STEP_TIMEOUT_S = 60.0
EXPLAIN_TIMEOUT_S = 60.0
EXPLAIN_AGAIN_S = 60
"""After so long it may be asked again what could not be explained: the model may be another by then."""
FIT_TIMEOUT_S = 900.0
DOUBTED_AFTER = 2
"""So many failures in a row are blamed on the promoted model, where there is one."""
_PAUSES_S = (1, 2, 5, 15, 60, 300)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How many ticks ahead it can look, and what counts as right."""

    horizons: int
    tolerance: Tolerance

    def engine(self, *forecasters: Forecaster) -> Engine:
        """An engine that has learnt nothing yet, with these forecasters or all."""
        return Engine(self.horizons, self.tolerance, forecasters or QUICK)

    def learner(self) -> "Learner":
        """What the process holds."""
        return Learner(self.engine())


class Learner(Gathering):
    """In the process: the engine, and the history that it is to be fitted on."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def adopt(self, champion: Trained | None, version: str) -> None:
        """Let the engine take a trained model, or none."""
        self._engine.adopt(champion, version)

    def fit(self, graph: Graph, reference_speed: NDArray[np.float32], past: Past | None) -> int:
        """Fit on the history; on how many ticks."""
        history = self.gathered()
        self._engine.fit(history, graph, reference_speed, past)
        return len(history)

    def step(self, state: History) -> Issue:
        """The engine's next step."""
        return self._engine.step(state)

    def explain(self, state: History, model: str, sensor: int) -> Explained | str:
        """What the engine says of a forecast, or why it cannot: the forecasts go on."""
        try:
            return self._engine.explain(state, model, sensor)
        except Exception as error:  # noqa: BLE001 - an installed package's may raise anything
            return repr(error)


class ForecasterProcess:
    """Fits and steps in a child process; while that is down, the cheapest forecaster serves here."""

    def __init__(self, config: EngineConfig, throne: Throne, board: Board) -> None:
        self._config = config
        self._throne = throne
        self._adopted: str | None = None
        self._board = board
        self._child = Child("forecaster", config.learner)
        self._fallback = config.engine(LastValue())
        self._retry_at_s = 0.0
        self._failures = 0
        self._doubts = 0
        self._fitted = ""

    @property
    def is_new(self) -> bool:
        """Whether there is no process, so that the next fit starts one, which knows nothing."""
        return not self._child.running

    @property
    def may_return(self) -> bool:
        """Whether it is down and the time has come to try again."""
        return not self._child.running and time.monotonic() >= self._retry_at_s

    def stop(self) -> None:
        """End the process."""
        self._child.stop()

    async def fit(
        self,
        span: Span,
        pieces: Pieces,
        graph: Graph,
        reference_speed: NDArray[np.float32],
        past: Past | None,
        at_ms: int,
    ) -> None:
        """Fit on the pieces of a history, to forecast from a tick; a new process goes on from `past`."""
        began = time.monotonic()
        try:
            if not self._child.running:
                self._child.start()
                self._adopted = None
            await self._adopt(at_ms)
            await hand_over(self._child, span, pieces)
            ticks = await self._child.call("fit", graph, reference_speed, past, timeout_s=FIT_TIMEOUT_S)
        except ChildDown as error:
            self._doubt(error)
            self._down(error)
        else:
            self._fitted = f"fitted on {ticks} ticks of {span.sensors} sensors"
            if not self._failures:
                self._board.report("forecaster", Status.OK, self._fitted)
            log.info("fitted", ticks=ticks, sensors=span.sensors, seconds=round(time.monotonic() - began, 2))

    async def step(self, state: History) -> Issue:
        """The next step of the engine, or of the fallback, which leaves nothing behind to go on from."""
        if self._child.running:
            try:
                await self._adopt(state.end_ms)
                issue = cast("Issue", await self._child.call("step", state, timeout_s=STEP_TIMEOUT_S))
            except ChildDown as error:
                self._doubt(error)
                self._down(error)
            else:
                if self._failures:  # one that can only be fitted is not well
                    self._board.report("forecaster", Status.OK, self._fitted)
                self._failures = self._doubts = 0
                return issue
        return replace(self._fallback.step(state), calibrations={})

    async def _adopt(self, at_ms: int) -> None:
        """Let the process take the model that is in force at a tick, if it has another one.

        Raises:
            ChildDown: it could not.
        """
        champion = await self._throne.at(from_ms(at_ms))
        version = champion.version if champion else None
        if version != self._adopted:
            trained = champion.trained if champion else None
            await self._child.call("adopt", trained, version or "", timeout_s=STEP_TIMEOUT_S)
            self._adopted = version
            log.info("champion", version=version or "none", forecaster=trained.forecaster if trained else "none")

    async def explain(self, state: History, model: str, sensor: int) -> Explained:
        """What a model's forecasts of a sensor are made of.

        Raises:
            Unavailable: the process is down, or the forecaster cannot say.
        """
        if self._child.running:
            try:
                answer = await self._child.call("explain", state, model, sensor, timeout_s=EXPLAIN_TIMEOUT_S)
            except ChildDown as error:
                self._down(error)
            else:
                if isinstance(answer, str):
                    log.error("explanation_failed", model=model, reason=answer)
                    raise Unavailable(
                        "The forecaster cannot explain it; the log says why.", retry_after_s=EXPLAIN_AGAIN_S
                    )
                return cast("Explained", answer)
        pause_s = max(1, math.ceil(self._retry_at_s - time.monotonic()))
        raise Unavailable("The forecaster's process is not there to explain anything.", retry_after_s=pause_s)

    def _doubt(self, error: ChildDown) -> None:
        """A promoted model is left out that fails again and again, or makes everyone wait: a fit steps it, too."""
        self._doubts += 1
        if self._adopted is not None and (self._doubts >= DOUBTED_AFTER or isinstance(error, ChildSlow)):
            self._throne.distrust()

    def _down(self, error: ChildDown) -> None:
        """Fall back, and try again after a pause that grows."""
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        self._retry_at_s = time.monotonic() + pause_s
        self._fallback = self._config.engine(LastValue())
        self._board.report(
            "forecaster",
            Status.DEGRADED,
            f"{error.message}; last value serves; deaths so far: {self._child.deaths}",
            f"Nothing: it is started again in {pause_s} s. The log says why it ended.",
        )
