"""The engine: fits every forecaster, judges each by its errors, and serves the one that errs least."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, from_ms
from roadcast.forecasting.calibration import Calibration, Tolerance
from roadcast.forecasting.evaluation import REHEARSED_SHARE, Task, rehearse
from roadcast.forecasting.forecaster import Fitted, Forecaster
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, VOLUME, History, last_observed
from roadcast.forecasting.judge import Judge


@dataclass(frozen=True, slots=True)
class Issue:
    """The forecasts of all sensors S at horizons H = 1, 2, … ticks after `issued_ms`. NaN is unknown.

    model: the forecaster that serves; model_version: the end of what it was fitted on, or `unfitted`;
    speed: [S, H] mph; volume: [S, H] vehicles per interval; quantiles: [S, H, Q] mph at `forecaster.PROBABILITIES`;
    tolerance: [S, H] mph; confidence: [S, H] probability that the speed comes true within the tolerance;
    age_ticks: [S] age of the last speed, STATE_TICKS where there is none so young;
    candidates: the speed [S, H] that each forecaster gives, by name, before any correction.
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
    _rehearsed: bool = field(default=False, init=False)

    def fit(self, history: History, graph: Graph, reference_speed: NDArray[np.float32]) -> None:
        """Fit every forecaster; the first time that there is enough history, also learn what errors to expect."""
        enough = len(history) * history.interval_ms * (1 - REHEARSED_SHARE) >= DAY_MS
        task = Task(history, graph, SPEED, self.horizons, len(history), self.tolerance)
        for forecaster in self.forecasters:
            before = self._contenders.get(forecaster.name)
            fitted = _Contender(
                forecaster.fit(history, graph, SPEED, self.horizons),
                forecaster.fit(history, graph, VOLUME, self.horizons),
                before.judge if before else self._new_judge(forecaster.name),
            )
            fitted.judge.reference = reference_speed
            if enough and not self._rehearsed:
                fitted.judge.calibration = rehearse(forecaster, task)
            self._contenders[forecaster.name] = fitted
        self._rehearsed = self._rehearsed or enough
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
        )

    def _new_judge(self, name: str) -> Judge:
        return Judge(name, SPEED, self.tolerance, np.empty(0, np.float32), Calibration.empty(self.horizons))

    def _served(self) -> str:
        """The forecaster with the lowest root mean square error over all horizons; the first while errors are few.

        Squares, because a jam that is missed costs more than many small errors in free flow, of which there are most.
        """
        names = list(self._contenders)
        error = [self._contenders[name].judge.calibration.rmse() for name in names]
        return names[0 if np.isnan(error).all() else int(np.nanargmin(error))]
