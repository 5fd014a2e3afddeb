"""The engine: fits every forecaster, learns from the errors of each, and serves the one that errs least."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, from_ms
from roadcast.forecasting.backtest import backtest, medians
from roadcast.forecasting.error_history import ErrorHistory, Strata, stratify
from roadcast.forecasting.forecaster import MEDIAN, Fitted, Forecaster
from roadcast.forecasting.forecasters import QUICK
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, VOLUME, History, last_observed

HALF_LIFE_MS = 7 * DAY_MS
"""An error this old counts half."""


@dataclass(frozen=True, slots=True)
class Issue:
    """The forecasts of all sensors S at horizons H = 1, 2, … ticks after `issued_ms`. NaN is unknown.

    model: the forecaster that serves; model_version: the end of what it was fitted on, or `unfitted`;
    speed: [S, H] mph, the median of what is expected; volume: [S, H] vehicles per interval;
    quantiles: [S, H, Q] mph at `error_history.PROBABILITIES`, the middle one being `speed`;
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


@dataclass(frozen=True, slots=True)
class _Fits:
    """Every forecaster, fitted for both targets."""

    version: str
    speed: list[Fitted]
    volume: list[Fitted]
    reference_speed: NDArray[np.float32]

    def references(self, sensors: int) -> NDArray[np.float32]:
        """Reference speeds of so many sensors, NaN for those that came after the fit."""
        padded = np.full(sensors, np.nan, np.float32)
        padded[: len(self.reference_speed)] = self.reference_speed[:sensors]
        return padded


@dataclass(frozen=True, slots=True)
class _Pending:
    """Medians [forecasters, S, H] whose targets are still to come."""

    issued_ms: int
    median: NDArray[np.float32]
    strata: Strata


@dataclass(slots=True)
class Engine:
    """Forecasts tick by tick. The same calls give the same bytes.

    tolerance_mph, tolerance_share: a forecast is right when it errs by at most the larger of the absolute tolerance
    and this share of the forecast speed.
    """

    horizons: int
    tolerance_mph: float
    tolerance_share: float
    forecasters: Sequence[Forecaster] = QUICK
    errors: ErrorHistory = field(init=False)
    _fits: _Fits | None = field(default=None, init=False)
    _rehearsed: bool = field(default=False, init=False)
    _pending: deque[_Pending] = field(init=False)
    _seen_ms: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        self.errors = ErrorHistory.empty(len(self.forecasters), self.horizons)
        self._pending = deque(maxlen=self.horizons)

    def fit(self, history: History, graph: Graph, reference_speed: NDArray[np.float32]) -> None:
        """Fit every forecaster; the first time that there is enough history, also learn what errors to expect."""
        if not self._rehearsed:
            rehearsal = backtest(self.forecasters, history, graph, reference_speed, self.horizons)
            self._rehearsed = rehearsal is not None
            self.errors = rehearsal or self.errors
        self._fits = self._fitted(history, graph, reference_speed)

    def step(self, state: History) -> Issue:
        """Learn from the state's last tick what earlier forecasts were worth, and forecast what follows it.

        A tick that was stepped before is forecast again, but not learnt from twice.
        """
        state = state.last(STATE_TICKS)
        is_new = state.end_ms > self._seen_ms
        if is_new:
            self._learn(state)
        fits = self._fits = self._fits or self._fitted(state.until(0), Graph(), np.empty(0, np.float32))
        _, age = last_observed(state.of(SPEED))
        candidates = medians(fits.speed, state)
        strata = stratify(candidates, fits.references(state.sensors), age)
        if is_new:
            self._seen_ms = state.end_ms
            self._pending.append(_Pending(state.end_ms, candidates, strata))
        served = self._served()
        speed, quantiles, tolerance, confidence = self._judged(served, candidates[served], strata.of_forecaster(served))
        return Issue(
            issued_ms=state.end_ms,
            model=self.forecasters[served].name,
            model_version=fits.version,
            speed=speed,
            volume=fits.volume[served].forecast(state).median,
            quantiles=quantiles,
            confidence=confidence,
            tolerance=tolerance,
            age_ticks=age,
            candidates={forecaster.name: candidates[i] for i, forecaster in enumerate(self.forecasters)},
        )

    def _fitted(self, history: History, graph: Graph, reference_speed: NDArray[np.float32]) -> _Fits:
        speed, volume = (
            [forecaster.fit(history, graph, target, self.horizons) for forecaster in self.forecasters]
            for target in (SPEED, VOLUME)
        )
        version = f"{from_ms(history.end_ms):%Y-%m-%dT%H:%MZ}" if len(history) else "unfitted"
        return _Fits(version, speed, volume, reference_speed)

    def _learn(self, state: History) -> None:
        self.errors.fade(0.5 ** (state.interval_ms / HALF_LIFE_MS))
        forecaster = np.arange(len(self.forecasters))[:, None]
        for issue in self._pending if len(state) else ():
            horizon = (state.end_ms - issue.issued_ms) // state.interval_ms - 1
            if horizon < self.horizons:
                median = issue.median[:, :, horizon]
                observed = state.of(SPEED)[-1, : median.shape[1]]
                self.errors.observe(forecaster, observed - median, issue.strata.at_horizon(horizon))

    def _served(self) -> int:
        """The forecaster with the lowest root mean square error over all horizons; the first while errors are few.

        Squares, because a jam that is missed costs more than many small errors in free flow, of which there are most.
        """
        error = self.errors.rmse().mean(axis=1)
        return 0 if np.isnan(error).all() else int(np.nanargmin(error))

    def _judged(
        self, served: int, median: NDArray[np.float32], strata: Strata
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Speed, quantiles, tolerance and confidence, from a median and from the errors of such medians.

        The served speed is the middle of the quantiles, so that what usually goes wrong in one direction is corrected.
        """
        errors = self.errors.distribution(served)
        quantiles = np.maximum(median[..., None] + errors.quantiles(strata), 0)
        speed = np.where(np.isnan(quantiles[..., MEDIAN]), median, quantiles[..., MEDIAN])
        tolerance = np.maximum(self.tolerance_mph, self.tolerance_share * speed).astype(np.float32)
        confidence = errors.probability(strata, speed - tolerance - median, speed + tolerance - median)
        return speed, quantiles, tolerance, confidence
