"""The judge of one forecaster: gives its forecasts their word, and learns what became of earlier ones."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.calibration import Calibration, Judged, Strata, Tolerance, stratify
from roadcast.forecasting.forecaster import NAIVE, Fitted
from roadcast.forecasting.history import STATE_TICKS, History, last_observed


class _Pending(NamedTuple):
    """An issue whose targets are still to come."""

    end_ms: int
    judged: Judged


@dataclass(slots=True)
class Judge:
    """Follows one forecaster of one variable, tick by tick.

    name: the forecaster's; those that others must beat are taken at their word, and only their intervals corrected.
    reference: [S] values that are seldom exceeded, such as the speed of free flow; NaN where unknown, as it is for
    sensors that came later.
    """

    name: str
    target: str
    tolerance: Tolerance
    reference: NDArray[np.float32]
    calibration: Calibration
    _pending: deque[_Pending] = field(default_factory=deque[_Pending])
    _seen_ms: int = field(default=-1)

    def step(self, fitted: Fitted, state: History) -> Judged:
        """Learn from the state's last tick what earlier forecasts were worth, and judge the forecast that follows it.

        A tick that was stepped before is forecast again, but not learnt from twice.
        """
        state = state.last(STATE_TICKS)
        is_new = state.end_ms > self._seen_ms
        if is_new:
            self._learn(state)
        judged = self.judge(fitted, state)
        if is_new:
            self._seen_ms = state.end_ms
            self._pending.append(_Pending(state.end_ms, judged))
        return judged

    def remember(self, fitted: Fitted, state: History, calibration: Calibration) -> None:
        """Take up what was known after a step from this state, as if it had just been made."""
        self.calibration = calibration
        self._seen_ms = state.end_ms
        self._pending.append(_Pending(state.end_ms, self.judge(fitted, state)))

    def judge(self, fitted: Fitted, state: History) -> Judged:
        """The forecast of what follows a state, with its word."""
        state = state.last(STATE_TICKS)
        forecast = fitted.forecast(state)
        _, age = last_observed(state.of(self.target))
        reference = np.full(state.sensors, np.nan, np.float32)
        reference[: len(self.reference)] = self.reference[: state.sensors]
        strata = stratify(forecast.median, reference, age)
        return self.calibration.judge(forecast, strata, self.tolerance, literal=self.name in NAIVE)

    def _learn(self, state: History) -> None:
        """Take in the state's last tick, for every earlier issue that spoke of it."""
        if self._seen_ms >= 0:
            self.calibration.fade(state.end_ms - self._seen_ms)
        horizons = len(self.calibration.offsets)
        while self._pending and self._pending[0].end_ms + horizons * state.interval_ms < state.end_ms:
            self._pending.popleft()
        if not len(state):
            return
        observed, told = state.of(self.target)[-1], list[Judged]()
        truth = list[NDArray[np.float32]]()
        for end_ms, judged in self._pending:
            horizon = (state.end_ms - end_ms) // state.interval_ms - 1
            told.append(_at_horizon(judged, horizon))
            truth.append(observed[: len(judged.point)])
        if told:
            self.calibration.learn(_joined(told), np.concatenate(truth))


def _at_horizon(judged: Judged, horizon: int) -> Judged:
    strata = Strata(*(part[:, horizon] for part in judged.strata))
    return Judged(strata, *(part[:, horizon] for part in judged[1:]))


def _joined(parts: Sequence[Judged]) -> Judged:
    strata = Strata(*(np.concatenate(column) for column in zip(*(part.strata for part in parts), strict=True)))
    return Judged(strata, *(np.concatenate(column) for column in zip(*(part[1:] for part in parts), strict=True)))
