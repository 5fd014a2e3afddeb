"""Backtest: forecasters learn from the first part of a file, and are judged on the rest. Nothing is stored."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from roadcast.child import Child, peak_mb
from roadcast.domain.reading import OCCUPANCY, VARIABLES, ReadingBatch, merge
from roadcast.domain.sensor import Link
from roadcast.domain.times import DAY_MS
from roadcast.errors import SourceError
from roadcast.flow.congestion import CONGESTED_BELOW
from roadcast.forecasting.evaluation import ExampleDay, Outcome, Tally, Task, issues, judge_of, reference_of, rehearse
from roadcast.forecasting.example_days import example_days
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED, History
from roadcast.windows import tick_end, tick_grid

WINDOW = 12
"""The first issue of a test comes so many ticks after its begin, as in published protocols."""
JUDGE_TIMEOUT_S = 86_400.0
PERCENT = 100
"""Occupancies are judged in percent: errors are counted in steps that would swallow a fraction."""
USUAL_INTERVAL_MS = 300_000
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Recording:
    """A file as regular ticks. Sensors come in the order in which they are first heard."""

    history: History
    graph: Graph
    codes: Sequence[str]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The ticks that hold any reading."""
        return np.flatnonzero(~np.isnan(self.history.values).all(axis=(1, 2)))


def recording(
    batches: Sequence[ReadingBatch],
    links: Sequence[Link],
    *,
    interval_s: int | None,
    timezone: str,
    variable: str,
    holidays: tuple[int, ...] = (),
) -> Recording:
    """The readings of a file on the windows of its own interval; only `variable` is kept.

    Raises:
        SourceError: there is no reading of that variable.
    """
    column = VARIABLES.index(variable)
    known = [batch.take(~np.isnan(batch.values[:, column])) for batch in batches]
    if not any(map(len, known)):
        raise SourceError(f"no {variable} in it: --variable names what is forecast")
    batch = merge(known)
    interval_ms = usual_interval_ms(batch) if interval_s is None else interval_s * 1000
    ends = tick_end(batch.at_ms, interval_ms)
    ticks = int(ends.max() - ends.min()) // interval_ms + 1
    grid = tick_grid(
        batch.sensor, batch.at_ms, batch.values,
        end_ms=int(ends.max()), ticks=ticks, sensors=len(batch.codes), interval_ms=interval_ms,
    )[:, :, [column]] * np.float32(judged_unit(variable))  # fmt: skip
    order = np.argsort(np.isnan(grid[:, :, 0]).argmin(axis=0), kind="stable")
    history = History(grid[:, order], (variable,), int(ends.max()), interval_ms, timezone, holidays)
    codes = np.array(batch.codes)[order].tolist()
    return Recording(history, Graph.of(links, {code: i for i, code in enumerate(codes)}), codes)


def judged_unit(variable: str) -> int:
    """How many of the units in which a variable is judged make one of its inner units."""
    return PERCENT if variable == VARIABLES[OCCUPANCY] else 1


def usual_interval_ms(batch: ReadingBatch) -> int:
    """The most frequent step from one reading of a sensor to its next; five minutes where that divides no day."""
    order = np.lexsort((batch.at_ms, batch.sensor))
    steps = np.diff(batch.at_ms[order])[np.diff(batch.sensor[order]) == 0]
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    usual = int(lengths[counts.argmax()]) if len(lengths) else USUAL_INTERVAL_MS
    return usual if usual % MINUTE_MS == 0 and DAY_MS % usual == 0 else USUAL_INTERVAL_MS


def backtest(
    forecasters: Sequence[Forecaster], task: Task, done: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Judge each forecaster in a process of its own, so that time and memory are its own. `done` hears of each.

    Raises:
        ChildDown: a forecaster failed.
    """
    return asyncio.run(_judged(forecasters, Bench(task, shown_days(task)), done))


async def _judged(forecasters: Sequence[Forecaster], bench: "Bench", done: Callable[[Outcome], None]) -> list[Outcome]:
    child, outcomes = Child("backtest", partial(replace, bench)), list[Outcome]()
    try:
        for forecaster in forecasters:
            child.start()
            outcomes.append(cast("Outcome", await child.call("judge", forecaster, timeout_s=JUDGE_TIMEOUT_S)))
            done(outcomes[-1])
    finally:
        child.stop()
    return outcomes


@dataclass(frozen=True, slots=True)
class Bench:
    """What the process holds: the task, and the days of which forecasts are kept."""

    task: Task
    days: Sequence[ExampleDay]

    def judge(self, forecaster: Forecaster) -> Outcome:
        """Judge one forecaster."""
        return judge(forecaster, self.task, self.days)


def judge(forecaster: Forecaster, task: Task, days: Sequence[ExampleDay] = ()) -> Outcome:
    """Rehearse, learn from all that may be learnt from, and forecast the rest. Of `days` forecasts are kept."""
    learnt = rehearse(forecaster, task)
    rmse = learnt.rmse()
    past = task.past()
    began = time.process_time()
    fitted = forecaster.fit(past.history, task.graph, task.target, task.horizons)
    cpu_s = time.process_time() - began
    peak = peak_mb()
    congested_under = np.empty(0, np.float32)
    if task.target == SPEED:
        congested_under = reference_of(task, task.test_from) * np.float32(CONGESTED_BELOW)
    tally = Tally(task.horizons, task.history.sensors, days, congested_under)
    for issued in issues(fitted, judge_of(forecaster, task, learnt), task, issue_ticks(task)):
        tally.add(issued)
    return Outcome(forecaster.name, rmse, tally, cpu_s, peak)


def shown_days(task: Task) -> list[ExampleDay]:
    """The example days of the part of the test that is forecast at the longest horizon."""
    return example_days(task, issue_ticks(task).start + task.horizons - 1)


def issue_ticks(task: Task) -> range:
    """How many ticks are known at each issue of the test: its inputs and its targets lie wholly in the test."""
    return range(task.test_from + WINDOW, len(task.history) - task.horizons + 1)


def served(outcomes: Sequence[Outcome]) -> str:
    """The forecaster that would serve: the one with the least square error before the test; the first in doubt."""
    errors: NDArray[np.float64] = np.array([outcome.rehearsed for outcome in outcomes])
    return outcomes[0 if np.isnan(errors).all() else int(np.nanargmin(errors))].forecaster
