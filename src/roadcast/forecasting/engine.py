"""The engine: fits every forecaster, judges each by its errors, and serves the one that errs least."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, from_ms
from roadcast.forecasting.calibration import Calibration, Tolerance
from roadcast.forecasting.evaluation import REHEARSED_SHARE, Task, rehearse
from roadcast.forecasting.explanation import Explained, explain
from roadcast.forecasting.forecaster import Fitted, Forecaster
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, VOLUME, History, last_observed
from roadcast.forecasting.judge import Judge
from roadcast.forecasting.profile import FittedProfile, Profile


@dataclass(frozen=True, slots=True)
class Issue:
    """The forecasts of all sensors S at horizons H = 1, 2, … ticks after `issued_ms`. NaN is unknown.

    model: the forecaster that serves; model_version: the end of what it was fitted on, or `unfitted`;
    speed: [S, H] mph; volume: [S, H] vehicles per interval; quantiles: [S, H, Q] mph at `forecaster.PROBABILITIES`;
    tolerance: [S, H] mph; confidence: [S, H] probability that the speed comes true within the tolerance;
    age_ticks: [S] age of the last speed, STATE_TICKS where there is none so young;
    candidates: the speed [S, H] that each forecaster gives, by name, before any correction;
    calibrations: what is known of the errors of each by now, which is all that must be kept to go on after a restart.
    """

    issued_ms: int
    model: str
    model_version: str
    speed: NDArray[np.float32]
    volume: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    confidence: NDArray[np.float32]
    tolerance: NDArray[np.float32]
    age_ticks: NDArray[np.int64]
    candidates: dict[str, NDArray[np.float32]]
    calibrations: Mapping[str, Calibration]


class Memory(NamedTuple):
    """What was known of each forecaster's errors when it issued, by its name."""

    issued_ms: int
    calibrations: Mapping[str, Calibration]


class Past(NamedTuple):
    """The last issues of a process before this one, in their order.

    history: ends with the last of them, and begins STATE_TICKS before the first.
    """

    memories: Sequence[Memory]
    history: History


@dataclass(slots=True)
class _Contender:
    """A forecaster that has learnt, and what is known of its errors of speed."""

    speed: Fitted
    volume: Fitted
    judge: Judge


@dataclass(slots=True)
class Engine:
    """Holds everything that a running forecast needs.

    `step` learns from each new tick and forecasts the next ones.
    """

    horizons: int
    tolerance: Tolerance
    forecasters: Sequence[Forecaster] = QUICK
    _version: str = field(default="unfitted", init=False)
    _contenders: dict[str, _Contender] = field(default_factory=dict[str, _Contender], init=False)

    def fit(
        self, history: History, graph: Graph, reference_speed: NDArray[np.float32], past: Past | None = None
    ) -> None:
        """Fit every forecaster; the first time that there is enough history, also learn what errors to expect.

        past: to go on from.
        """
        enough = len(history) * history.interval_ms * (1 - REHEARSED_SHARE) >= DAY_MS
        task = Task(history, graph, SPEED, self.horizons, len(history), self.tolerance)
        for forecaster in self.forecasters:
            name, before = forecaster.name, self._contenders.get(forecaster.name)
            speed, volume = (forecaster.fit(history, graph, target, self.horizons) for target in (SPEED, VOLUME))
            judge = before.judge if before else self._new_judge(name)
            judge.reference = reference_speed
            self._contenders[name] = _Contender(speed, volume, judge)
            if past is not None:
                self._remember(name, past)
            if enough and not judge.calibration.rehearsals:
                judge.calibration = rehearse(forecaster, task)
        self._version = f"{from_ms(history.end_ms):%Y-%m-%dT%H:%MZ}" if len(history) else "unfitted"

    def calibrations(self) -> dict[str, Calibration]:
        """What is known of every forecaster's errors, by its name."""
        return {name: each.judge.calibration for name, each in self._contenders.items()}

    def step(self, state: History) -> Issue:
        """Learn from the state's last tick what earlier forecasts were worth, and forecast what follows it.

        A tick that was stepped before is forecast again, but not learnt from twice.
        """
        if not self._contenders:
            self.fit(state.until(0), Graph(), np.empty(0, np.float32))
        judged = {name: each.judge.step(each.speed, state) for name, each in self._contenders.items()}
        served = self._served()
        _, age = last_observed(state.last(STATE_TICKS).of(SPEED))
        return Issue(
            issued_ms=state.end_ms,
            model=served,
            model_version=self._version,
            speed=judged[served].point,
            volume=self._contenders[served].volume.forecast(state).point,
            quantiles=judged[served].quantiles,
            confidence=judged[served].confidence,
            tolerance=judged[served].tolerance,
            age_ticks=age,
            candidates={name: each.median for name, each in judged.items()},
            calibrations=deepcopy(self.calibrations()),
        )

    def explain(self, state: History, model: str, sensor: int) -> Explained:
        """What the speeds that `model`, or else the one that serves, forecasts of a sensor are made of."""
        name = model if model in self._contenders else self._served()
        naive = self._contenders.get(Profile().name)
        typical = {} if naive is None else {SPEED: naive.speed, VOLUME: naive.volume}
        profiles = {target: fitted for target, fitted in typical.items() if isinstance(fitted, FittedProfile)}
        return Explained(name, self._version, *explain(self._contenders[name].speed, profiles, state, SPEED, sensor))

    def _new_judge(self, name: str) -> Judge:
        return Judge(name, SPEED, self.tolerance, np.empty(0, np.float32), Calibration.empty(self.horizons))

    def _remember(self, name: str, past: Past) -> None:
        """Take up what was known of a forecaster at each issue, as if these had just been made."""
        each, history = self._contenders[name], past.history
        for issued_ms, calibrations in past.memories:
            ticks = len(history) - (history.end_ms - issued_ms) // history.interval_ms
            calibration = calibrations.get(name)
            if ticks > 0 and calibration is not None and len(calibration.offsets) == self.horizons:
                each.judge.remember(each.speed, history.until(ticks), calibration)

    def _served(self) -> str:
        """The forecaster with the lowest root mean square error over all horizons; the first while errors are few.

        Squares, because a jam that is missed costs more than many small errors in free flow, of which there are most.
        """
        names = list(self._contenders)
        error = [self._contenders[name].judge.calibration.rmse() for name in names]
        return names[0 if np.isnan(error).all() else int(np.nanargmin(error))]
