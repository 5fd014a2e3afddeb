"""The errors of speed that forecasters would have made lately, had they been fitted on what came before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.error_history import ErrorHistory, stratify
from roadcast.forecasting.forecaster import Fitted, Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, STATE_TICKS, History, last_observed

FITTED_SHARE = 0.8
MAX_ISSUES = 150
GAPS = (2, 8)
"""Lengths in ticks of the gaps put in, so that forecasts from old readings have errors to be judged by."""
EVERY_SENSOR = 3
"""A gap is put into each third sensor, by turns, so that neighbours are still heard."""


def backtest(
    forecasters: Sequence[Forecaster],
    history: History,
    graph: Graph,
    reference_speed: NDArray[np.float32],
    horizons: int,
) -> ErrorHistory | None:
    """The errors at evenly spaced ticks of the last fifth; None with less than a day to fit on."""
    split = int(len(history) * FITTED_SHARE)
    if split * history.interval_ms < DAY_MS:
        return None
    fitted = [forecaster.fit(history.until(split), graph, SPEED, horizons) for forecaster in forecasters]
    errors = ErrorHistory.empty(len(forecasters), horizons)
    for known in np.unique(np.linspace(split, len(history) - 1, MAX_ISSUES).astype(np.int64)).tolist():
        truth = _following(history.of(SPEED)[known:], horizons)
        for state, counts in _with_gaps(history.until(known).last(STATE_TICKS), known):
            median = medians(fitted, state)
            _, age = last_observed(state.of(SPEED))
            error = np.where(counts[:, None], truth - median, np.float32(np.nan))
            errors.observe(np.arange(len(fitted))[:, None, None], error, stratify(median, reference_speed, age))
    return errors


def medians(fitted: Sequence[Fitted], state: History) -> NDArray[np.float32]:
    """The medians of every forecaster [forecasters, S, H]."""
    return np.stack([forecaster.forecast(state).median for forecaster in fitted])


def _following(observed: NDArray[np.float32], horizons: int) -> NDArray[np.float32]:
    """What came true [S, H]; NaN past the end."""
    truth = np.full((horizons, observed.shape[1]), np.nan, np.float32)
    truth[: len(observed)] = observed[:horizons]
    return truth.T


def _with_gaps(state: History, turn: int) -> Iterator[tuple[History, NDArray[np.bool_]]]:
    """The state as it was and with a gap put in, each with the sensors [S] whose errors count."""
    yield state, np.ones(state.sensors, np.bool_)
    hidden = (np.arange(state.sensors) + turn) % EVERY_SENSOR == 0
    values = state.values.copy()
    values[-GAPS[turn % len(GAPS)] :, hidden] = np.nan
    yield replace(state, values=values), hidden
