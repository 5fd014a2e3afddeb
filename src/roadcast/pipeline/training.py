"""Train: judge forecasters on what is stored, save the best as a version, and promote it where it deserves that."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from roadcast.child import Child, peak_mb
from roadcast.domain.clock import wall_clock
from roadcast.domain.model import MODEL
from roadcast.domain.times import from_ms, rfc3339, to_ms
from roadcast.errors import InvalidInput, NotFound
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import learn_errors
from roadcast.forecasting.features import feature_names
from roadcast.forecasting.forecaster import NAIVE, Fitted, Forecaster
from roadcast.forecasting.forecasters import QUICK, Added, candidates
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import TARGETS
from roadcast.forecasting.trained import Trained
from roadcast.forecasting.training import REMEDY, Score, Standing, TooLittleHistory, Verdict, after, hold_out, score
from roadcast.pipeline.champion import Champion, load_version
from roadcast.pipeline.past import FIT_DAYS, Gathering, Network, Span, hand_over, newest_window, read_pieces
from roadcast.registry.aliases import Evidence
from roadcast.registry.manifest import ModelRefused, Training
from roadcast.registry.registry import Model, Registry
from roadcast.storage import rollups
from roadcast.storage.engine import Database

KEPT_VERSIONS = 10
NICE = 10
"""A training gives way to whoever serves."""
STEP_TIMEOUT_S = 14_400.0
"""How long one fit or one judgement may take."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What is trained, and how. names: of candidates, none means all that the network's size allows."""

    interval_ms: int
    timezone: str
    horizons: int
    tolerance: Tolerance
    days: int = FIT_DAYS
    names: Sequence[str] = ()
    seed: int = 0
    promotes: bool = True
    holidays: tuple[int, ...] = ()
    added: Sequence[Added] = ()

    def candidates(self, sensors: int) -> list[Forecaster]:
        """Who is trained for a network of so many sensors.

        Raises:
            InvalidInput: a name that is none of theirs.
        """
        found = candidates(sensors, self.interval_ms // 1000, self.seed, self.added)
        known = {forecaster.name: forecaster for forecaster in found}
        if unknown := [name for name in self.names if name not in known]:
            raise InvalidInput(f"forecaster {unknown[0]}: for {sensors} sensors expected some of {', '.join(known)}")
        return [forecaster for name, forecaster in known.items() if not self.names or name in self.names]


class Step(NamedTuple):
    """What is being done: `done` of `total` is behind it."""

    name: str
    done: int
    total: int


READING = "reading"
"""The first step, counted in ticks; the others are counted in steps."""
Heard = Callable[[Step], None]


class Cost(NamedTuple):
    """What a process has used so far."""

    cpu_s: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a training: the version, from when on it serves, if it does, and why, or why not.

    overtaken: it had deserved the place, which somebody else took meanwhile.
    """

    version: str
    training: Training
    verdict: Verdict
    serves_from: datetime | None
    reason: str
    overtaken: bool
    seconds: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class _Incumbent:
    """Who serves; refused: why it cannot be loaded. Then it cannot serve either, and need not be beaten."""

    version: str | None
    champion: Champion | None
    refused: str = ""

    @property
    def learnt_ms(self) -> int | None:
        """Up to when it has learnt."""
        return to_ms(self.champion.training.end) if self.champion else None


class Plan(NamedTuple):
    """Who is judged, whether the champion is too, and what the winner then learns."""

    names: Sequence[str]
    champion: bool
    targets: Sequence[str]


class Trainer(Gathering):
    """In the process: the history, who learns from it, and how they are judged."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self._config = config
        self._forecasters = dict[str, Forecaster]()
        self._fitted = dict[str, Fitted]()
        self._scores = list[Score]()
        self._learnt = dict[str, Fitted]()
        self._undecided = ""

    def plan(self, graph: Graph, learnt_ms: int | None) -> Plan | TooLittleHistory:
        """Part the history that has come; or why there is nothing to be trained. learnt_ms: the champion's."""
        try:
            task = hold_out(self.gathered(), graph, self._config.horizons, self._config.tolerance)
        except TooLittleHistory as error:
            return error
        naive = [forecaster for forecaster in QUICK if forecaster.name in NAIVE]
        chosen = self._config.candidates(task.history.sensors)
        self._forecasters = {forecaster.name: forecaster for forecaster in (*naive, *chosen)}
        later = None if learnt_ms is None else after(task, learnt_ms)
        if learnt_ms is not None and later is None:
            self._undecided = (
                f"the champion has learnt until {from_ms(learnt_ms):%Y-%m-%d %H:%M} UTC, and less than the day after "
                "that by which to judge it is stored"
            )
        self._task = later or task
        targets = [target for target in TARGETS if not np.isnan(task.history.of(target)).all()]
        return Plan(list(self._forecasters), later is not None, targets)

    def fit(self, name: str) -> None:
        """Let one learn from what was before the test."""
        task = self._task
        history = task.history.until(task.test_from)
        self._fitted[name] = self._forecasters[name].fit(history, task.graph, task.target, task.horizons)

    def judge(self, name: str) -> None:
        """Judge one that has learnt."""
        standing = Standing.NAIVE if name in NAIVE else Standing.CANDIDATE
        self._scores.append(score(standing, name, self._fitted[name], self._task))

    def judge_champion(self, trained: Trained) -> None:
        """Judge the one that serves."""
        fitted = trained.fitted[self._task.target]
        self._scores.append(score(Standing.CHAMPION, trained.forecaster, fitted, self._task))

    def decide(self) -> Verdict:
        """Who was best."""
        task = self._task
        start_ms = task.history.until(task.test_from + 1).end_ms
        return Verdict(self._scores, start_ms, task.history.end_ms, self._undecided)

    def learn(self, target: str) -> None:
        """Let the winner learn a target from everything."""
        task, winner = self._task, self._forecasters[self.decide().winner.forecaster]
        self._learnt[target] = winner.fit(task.history, task.graph, target, task.horizons)

    def model(self) -> Model:
        """The winner, as its version is to be."""
        task, verdict, config = self._task, self.decide(), self._config
        name, history = verdict.winner.forecaster, task.history
        calibration = learn_errors(name, self._fitted[name], task, range(task.test_from, len(history)))
        training = Training(
            forecaster=name,
            features=feature_names(task.horizons),
            targets=tuple(self._learnt),
            horizons=task.horizons,
            interval_s=config.interval_ms // 1000,
            sensors=history.sensors,
            start=from_ms(history.until(1).end_ms),
            end=from_ms(history.end_ms),
            seed=config.seed,
            judged_start=from_ms(verdict.start_ms),
            judged_end=from_ms(verdict.end_ms),
            metrics=verdict.metrics,
        )
        return Model(MODEL, training, Trained(name, self._learnt, calibration).parts())

    def cost(self) -> Cost:
        """Of this process."""
        return Cost(time.process_time(), peak_mb())


async def train(
    database: Database,
    registry: Registry,
    config: TrainingConfig,
    wall: Callable[[], datetime] = wall_clock,
    heard: Heard = lambda _: None,
) -> Report:
    """Train on what is stored; save the best candidate, promote it where it deserves that, and prune the versions.

    A promotion takes effect at the newest window that the feed has come to by then. `heard` hears of each step when it
    begins.

    Raises:
        TooLittleHistory: there is not enough to learn from.
        InvalidInput: a candidate that is none.
        ChildDown: the process died, failed or took too long.
        StoreDown, Conflict: the model store takes nothing.
    """
    began = time.monotonic()
    end_ms = await newest_window(database, wall(), config.interval_ms)
    if end_ms is None:
        raise TooLittleHistory("No readings are stored.", remedy=REMEDY)
    incumbent = await asyncio.to_thread(_incumbent, registry, config)
    child = Child("trainer", partial(_trainer, config))
    child.start()
    try:
        plan = await _plan(child, database, config, end_ms, incumbent, heard)
        await asyncio.to_thread(registry.try_saving, MODEL)  # rather than find out after minutes of training
        model, verdict, cost = await _trained(child, plan, incumbent, heard)
    finally:
        child.stop()
    version = await asyncio.to_thread(registry.save, model)
    heard(Step("saved", 1, 1))
    serves_from, reason = None, " ".join(filter(None, (f"{verdict.reason}.", incumbent.refused)))
    contends = verdict.deserves and config.promotes
    if contends:
        at = from_ms(await newest_window(database, wall(), config.interval_ms) or end_ms)
        found = evidence(verdict, incumbent.version) | {"reason": reason}
        serves_from, reason = await asyncio.to_thread(_promote, registry, version, incumbent, at, found)
    await asyncio.to_thread(registry.prune, MODEL, KEPT_VERSIONS)
    overtaken = contends and serves_from is None
    return Report(version, model.training, verdict, serves_from, reason, overtaken, time.monotonic() - began, cost)


def _trainer(config: TrainingConfig) -> Trainer:
    """What the process holds."""
    os.nice(NICE)
    return Trainer(config)


def _incumbent(registry: Registry, config: TrainingConfig) -> _Incumbent:
    version = registry.named(MODEL)
    try:
        interval_s = config.interval_ms // 1000
        champion = version and load_version(registry, version, config.horizons, interval_s, config.added)
    except (ModelRefused, NotFound) as error:
        return _Incumbent(version, None, error.message)
    return _Incumbent(version, champion or None)


async def _plan(
    child: Child, database: Database, config: TrainingConfig, end_ms: int, incumbent: _Incumbent, heard: Heard
) -> Plan:
    async with database.read() as reader:
        network = await Network.read(reader)
        span = await Span.read(
            reader, network, end_ms, config.interval_ms, config.timezone, config.days, config.holidays
        )
        has_speeds = await rollups.has_speeds(reader, from_ms(end_ms - span.ticks * config.interval_ms))
    if not has_speeds:  # before anything takes long
        raise TooLittleHistory("No speed is stored.", remedy=REMEDY)
    config.candidates(network.size)
    await hand_over(child, span, read_pieces(database, span), lambda ticks: heard(Step(READING, ticks, span.ticks)))
    plan = await child.call("plan", network.graph, incumbent.learnt_ms, timeout_s=STEP_TIMEOUT_S)
    if isinstance(plan, TooLittleHistory):
        raise plan
    return cast("Plan", plan)


async def _trained(child: Child, plan: Plan, incumbent: _Incumbent, heard: Heard) -> tuple[Model, Verdict, Cost]:
    steps = list(_steps(plan, incumbent.champion))
    for done, (name, method, argument) in enumerate(steps):
        heard(Step(name, done, len(steps) + 1))
        await child.call(method, argument, timeout_s=STEP_TIMEOUT_S)
    heard(Step("saving", len(steps), len(steps) + 1))
    model, verdict, cost = [await child.call(name, timeout_s=STEP_TIMEOUT_S) for name in ("model", "decide", "cost")]
    return cast("Model", model), cast("Verdict", verdict), cast("Cost", cost)


def _steps(plan: Plan, champion: Champion | None) -> Iterator[tuple[str, str, object]]:
    """What each is called, the trainer's method, and its argument."""
    for name in plan.names:
        yield f"fitting {name}", "fit", name
        yield f"judging {name}", "judge", name
    if champion is not None and plan.champion:
        yield "judging the champion", "judge_champion", champion.trained
    for target in plan.targets:
        yield f"fitting the best one for {target}", "learn", target


def _promote(
    registry: Registry, version: str, incumbent: _Incumbent, at: datetime, found: Evidence
) -> tuple[datetime | None, str]:
    """Let a version serve, unless somebody else has taken the place meanwhile; from when on, and why."""
    if (now := registry.named(MODEL)) != incumbent.version:
        return None, f"{now} was promoted meanwhile."
    registry.promote(MODEL, version, at, found)
    return at, str(found["reason"])


def evidence(verdict: Verdict, champion: str | None) -> Evidence:
    """What is written down about a promotion that takes the place of a champion."""
    window = {"judged_start": rfc3339(from_ms(verdict.start_ms)), "judged_end": rfc3339(from_ms(verdict.end_ms))}
    return {**verdict.metrics, **window, "naive": verdict.naive.forecaster, "champion": champion or "none"}
