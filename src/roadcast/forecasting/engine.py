"""The engine: fits every forecaster, judges each by its errors, and serves the one that errs least."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, from_ms
from roadcast.forecasting.calibration import Calibration, Judged, Tolerance
from roadcast.forecasting.evaluation import REHEARSED_SHARE, Task, rehearse
from roadcast.forecasting.explanation import Explained, explain
from roadcast.forecasting.forecaster import Fitted, Forecaster
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, TARGETS, VOLUME, History, last_observed
from roadcast.forecasting.judge import Judge
from roadcast.forecasting.profile import FittedProfile, Profile
from roadcast.forecasting.trained import Trained


@dataclass(frozen=True, slots=True)
class Issue:
    """The forecasts of all sensors S at horizons H = 1, 2, … ticks after `issued_ms`. NaN is unknown.

    model: the forecaster that serves; model_version: of the trained model, else the end of what the forecaster was
    fitted on, or `unfitted`;
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
    """What was known of each forecaster's errors when it issued, under the keys of `Engine.calibrations`."""

    issued_ms: int
    calibrations: Mapping[str, Calibration]


class Past(NamedTuple):
    """The last issues of a process before this one, in their order.

    history: ends with the last of them, and begins STATE_TICKS before the first.
    """

    memories: Sequence[Memory]
    history: History


def calibration_key(forecaster: str, version: str = "") -> str:
    """Under which its errors are known: those of a trained model are of that version alone."""
    return f"{forecaster} {version}" if version else forecaster


def _filled(word: Judged, usual: Judged | None) -> Judged:
    """The word of the one that serves; where it knows nothing of a sensor, that of the usual day."""
    silent = np.isnan(word.point).all(axis=1)
    if usual is None or not silent.any():
        return word
    arrays = ("point", "quantiles", "confidence", "tolerance")
    told = {name: getattr(word, name).copy() for name in arrays}
    for name, values in told.items():
        values[silent] = getattr(usual, name)[silent]
    return word._replace(**told)


@dataclass(slots=True)
class _Contender:
    """A forecaster that has learnt, and what is known of its errors of speed."""

    version: str
    speed: Fitted
    volume: Fitted | None
    judge: Judge


@dataclass(slots=True)
class Engine:
    """Holds everything that a running forecast needs.

    `step` learns from each new tick and forecasts the next ones. Beside the forecasters that it fits itself, a trained
    model can be adopted: the champion.
    """

    horizons: int
    tolerance: Tolerance
    forecasters: Sequence[Forecaster] = QUICK
    _references: NDArray[np.float32] = field(init=False)
    _champion: _Contender | None = field(default=None, init=False)
    _own: dict[str, _Contender] = field(default_factory=dict[str, _Contender], init=False)

    def __post_init__(self) -> None:
        self._references = np.empty(0, np.float32)

    def adopt(self, champion: Trained | None, version: str = "") -> None:
        """Let a trained model compete, in place of the one before and of a forecaster of the same name; or none."""
        self._champion = None
        if champion is not None:
            judge = self._new_judge(champion.forecaster)
            judge.calibration = deepcopy(champion.calibration)
            fitted = champion.fitted
            self._champion = _Contender(version, fitted[SPEED], fitted.get(VOLUME), judge)

    def fit(
        self, history: History, graph: Graph, reference_speed: NDArray[np.float32], past: Past | None = None
    ) -> None:
        """Fit every forecaster; the first time that there is enough history, also learn what errors to expect.

        past: to go on from.
        """
        self._references = reference_speed
        version = f"{from_ms(history.end_ms):%Y-%m-%dT%H:%MZ}" if len(history) else "unfitted"
        enough = len(history) * history.interval_ms * (1 - REHEARSED_SHARE) >= DAY_MS
        task = Task(history, graph, SPEED, self.horizons, len(history), self.tolerance)
        for forecaster in self.forecasters:
            before = self._own.get(forecaster.name)
            speed, volume = (forecaster.fit(history, graph, target, self.horizons) for target in TARGETS)
            judge = before.judge if before else self._new_judge(forecaster.name)
            self._own[forecaster.name] = _Contender(version, speed, volume, judge)
        for each in self._all:
            each.judge.reference = reference_speed
            if past is not None:
                self._remember(each, past)
        for forecaster in self.forecasters if enough else ():
            judge = self._own[forecaster.name].judge
            if not judge.calibration.rehearsals or np.isnan(judge.calibration.rmse()):
                judge.calibration = rehearse(forecaster, task)

    def calibrations(self) -> dict[str, Calibration]:
        """What is known of every forecaster's errors, by its name, and that of its version where it was trained."""
        return {self._key(each): each.judge.calibration for each in self._all}

    def step(self, state: History) -> Issue:
        """Learn from the state's last tick what earlier forecasts were worth, and forecast what follows it.

        A tick that was stepped before is forecast again, but not learnt from twice.
        """
        if not self._own:
            self.fit(state.until(0), Graph(), np.empty(0, np.float32))
        words = {self._key(each): each.judge.step(each.speed, state) for each in self._all}
        judged = {name: words[self._key(each)] for name, each in self._contenders.items()}
        served = self._served()
        word = _filled(judged[served], judged.get(Profile().name))
        _, age = last_observed(state.last(STATE_TICKS).of(SPEED))
        return Issue(
            issued_ms=state.end_ms,
            model=served,
            model_version=self._contenders[served].version,
            speed=word.point,
            volume=self._volume(served).forecast(state).point,
            quantiles=word.quantiles,
            confidence=word.confidence,
            tolerance=word.tolerance,
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
        return Explained(
            name, self._contenders[name].version, *explain(self._contenders[name].speed, profiles, state, SPEED, sensor)
        )

    @property
    def _all(self) -> list[_Contender]:
        """Its own, and the champion."""
        return [*self._own.values(), *([self._champion] if self._champion else [])]

    @property
    def _contenders(self) -> dict[str, _Contender]:
        """Those that compete, by name: a champion in place of the same forecaster fitted here, as the last one."""
        champion = {self._champion.judge.name: self._champion} if self._champion else {}
        return {name: each for name, each in self._own.items() if name not in champion} | champion

    def _new_judge(self, name: str) -> Judge:
        return Judge(name, SPEED, self.tolerance, self._references, Calibration.empty(self.horizons))

    def _key(self, each: _Contender) -> str:
        name = each.judge.name
        return calibration_key(name, each.version if each is self._champion else "")

    def _volume(self, served: str) -> Fitted:
        """Who forecasts volumes: the one that serves, or the last of the others, where it has not learnt them."""
        fitted = (self._contenders[served].volume, *(each.volume for each in reversed(self._contenders.values())))
        return next(volume for volume in fitted if volume is not None)

    def _remember(self, each: _Contender, past: Past) -> None:
        """Take up what was known of a forecaster at each issue, as if these had just been made."""
        key, history = self._key(each), past.history
        for issued_ms, calibrations in past.memories:
            ticks = len(history) - (history.end_ms - issued_ms) // history.interval_ms
            calibration = calibrations.get(key)
            if ticks > 0 and calibration is not None and calibration.fits(self.horizons):
                each.judge.remember(each.speed, history.until(ticks), deepcopy(calibration))

    def _served(self) -> str:
        """The forecaster with the least root mean square error over all horizons; the first while errors are few.

        Squares, because a jam that is missed costs more than many small errors in free flow, of which there are most.
        """
        names = list(self._contenders)
        error = [self._contenders[name].judge.calibration.rmse() for name in names]
        return names[0 if np.isnan(error).all() else int(np.nanargmin(error))]
