"""Retraining: every local day and when errors drift a model is trained anew; one that went wrong is taken back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from math import inf
from time import monotonic
from zoneinfo import ZoneInfo

import structlog

from roadcast.child import ChildDown
from roadcast.domain.clock import FeedClock
from roadcast.domain.model import MODEL
from roadcast.errors import Conflict, NotFound, RoadcastError, StoreDown, Unavailable
from roadcast.forecasting.forecaster import NAIVE
from roadcast.forecasting.training import TooLittleHistory, gain_of
from roadcast.pipeline.training import Step, TrainingConfig, train
from roadcast.registry.manifest import ModelRefused, Training
from roadcast.registry.registry import Registry
from roadcast.services import Board, Status
from roadcast.storage import marks, scores
from roadcast.storage.engine import Database

log = structlog.get_logger()

FIRST_LOOK_S = 60.0
"""At a start others come first."""
LOOK_S = 60.0
PUT_OFF_S = 600.0
"""After so long it is tried again whether there is enough to learn from."""
PROBATION = timedelta(days=1)
"""After so long in force, on the feed's clock, a champion must err less than the naive forecasters."""
DRIFTED = 0.5
"""Errors have drifted when the skill against the naive forecasters is under this share of what it was judged at."""
REST = timedelta(hours=6)
"""What drifts is trained anew no sooner than so long after the last training."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The champion in force `since`, and its RMSE beside that of the better naive forecaster, in mph; NaN unknown.

    Both are of the same hours and horizons.
    """

    version: str
    since: datetime
    training: Training
    rmse: float
    naive_rmse: float

    @property
    def skill(self) -> float:
        """1 − RMSE / that of the best naive forecaster."""
        return gain_of(self.rmse, self.naive_rmse)

    def is_worse(self, now: datetime) -> bool:
        """Whether its time of probation is over, and the naive ones err less."""
        return now - self.since >= PROBATION and self.skill < 0

    def has_drifted(self, now: datetime) -> bool:
        """Whether little is left of the skill that it was judged at."""
        judged = self.training.metrics.get("skill", float("nan"))
        return now - self.since >= PROBATION and self.skill < DRIFTED * judged


def standing(version: str, since: datetime, training: Training, errors: Mapping[str, float]) -> Standing:
    """By the RMSE of each forecaster since then, by its name."""
    naive = min((errors[name] for name in NAIVE if name in errors), default=float("nan"))
    return Standing(version, since, training, errors.get(training.forecaster, float("nan")), naive)


class Retraining:
    """Trains by the feed's clock, at a local time. A replay of the past is not learnt from by itself."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        clock: FeedClock,
        board: Board,
        config: TrainingConfig,
        at: time | None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock
        self._board = board
        self._config = config
        self._at = at
        self._put_off_until_s: float = -inf
        self._put_off: str = ""
        self.counts: dict[str, int] = dict.fromkeys(("trainings", "failures"), 0)
        """What was done since the start."""

    async def run(self) -> None:
        """Look every minute, for ever."""
        self._board.report("training", Status.OK, "nothing to be trained yet")
        await asyncio.sleep(FIRST_LOOK_S)
        while True:
            try:
                await self.look()
            except RoadcastError as error:
                if isinstance(error, Unavailable) and not isinstance(error, StoreDown):
                    raise
                self._failed(error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Take the champion back where it must be, and train where it is time.

        Raises:
            RoadcastError: it cannot be done.
        """
        feed, at = self._clock.feed, self._at
        if at is None or (feed.replayed and not feed.simulated):
            why = "TRAIN_AT=never" if at is None else "a replay of the past is not learnt from by itself"
            self._board.report("training", Status.OK, f"only by hand: {why}")
            return
        champion = await self._standing()
        if champion is not None and champion.is_worse(self._clock.now()) and await self._take_back(champion):
            return
        if monotonic() >= self._put_off_until_s and (why := await self._due(champion, at)):
            await self._train(why)

    async def _standing(self) -> Standing | None:
        """Of the champion in force; None where there is none whose manifest can be read."""
        now = self._clock.now()
        history = await asyncio.to_thread(self._registry.history, MODEL)
        change = next((change for change in reversed(history) if change.effective_at <= now), None)
        if change is None or change.version is None:
            return None
        version = change.version
        try:
            manifest = await asyncio.to_thread(self._registry.manifest, MODEL, version)
        except (ModelRefused, NotFound):
            return None
        begun = change.effective_at.astimezone(ZoneInfo(self._config.timezone))
        async with self._database.read() as reader:
            errors = await scores.rmse_beside(reader, manifest.training.forecaster, NAIVE, (begun.date(), begun.hour))
        return standing(version, change.effective_at, manifest.training, errors)

    async def _due(self, champion: Standing | None, at: time) -> str:
        """Why it is time to train; empty where it is not."""
        now = self._clock.now()
        async with self._database.read() as reader:
            last = await marks.mark(reader, marks.TRAINED)
        if last is None or last > now:
            return "none was trained yet"
        if last < self._scheduled(now, at):
            return "the day's training"
        if champion is not None and champion.has_drifted(now) and now - last >= REST:
            return "errors have drifted"
        return ""

    def _scheduled(self, now: datetime, at: time) -> datetime:
        """When a training was last due."""
        local = now.astimezone(ZoneInfo(self._config.timezone))
        today = datetime.combine(local.date(), at, local.tzinfo)
        return today if today <= local else today - timedelta(days=1)

    async def _train(self, why: str) -> None:
        at = self._clock.now()
        self._board.report("training", Status.OK, f"training: {why}")
        if not self._put_off:
            log.info("training_began", why=why)
        try:
            report = await train(self._database, self._registry, self._config, wall=self._clock.wall, heard=self._hear)
        except TooLittleHistory as error:
            self._board.report("training", Status.OK, error.message)
            if error.message != self._put_off:
                log.info("training_put_off", why=error.message)
            self._put_off, self._put_off_until_s = error.message, monotonic() + PUT_OFF_S
        except RoadcastError:
            await self._is_done(at)
            raise
        else:
            self._put_off = ""
            self.counts["trainings"] += 1
            done = "promoted" if report.serves_from else "not promoted"
            self._board.report("training", Status.OK, f"{report.version} {done}: {report.reason}")
            log.info(
                "training_done", version=report.version, promoted=report.serves_from is not None, why=report.reason,
                seconds=round(report.seconds, 1), cpu_s=round(report.cost.cpu_s, 1), mb=round(report.cost.peak_mb),
            )  # fmt: skip
            if not report.overtaken:  # else it is judged beside who serves now
                await self._is_done(at)

    async def _is_done(self, at: datetime) -> None:
        """Whatever came of it, the next one is tomorrow's."""
        async with self._database.write() as writer:
            await marks.set_mark(writer, marks.TRAINED, at)

    def _hear(self, step: Step) -> None:
        self._board.report("training", Status.OK, f"training: {step.name}, {step.done} of {step.total}")

    async def _take_back(self, champion: Standing) -> bool:
        """Let the version before serve again, or none if it was the first; whether that can be."""
        version, since = champion.version, f"{champion.since:%Y-%m-%d %H:%M} UTC"
        reason = f"RMSE {champion.rmse:.3f} mph since {since}, the naive forecasters' {champion.naive_rmse:.3f}"
        found = {"reason": reason, "rmse": champion.rmse, "naive_rmse": champion.naive_rmse}
        try:
            change = await asyncio.to_thread(self._registry.rollback, MODEL, version, self._clock.now(), found)
        except (Conflict, NotFound, ModelRefused) as error:
            self._board.report(
                "training", Status.OK, f"{version} errs more than the naive ones, which serve: {error.message}"
            )
            return False
        before = change.version or "no version"
        self._board.report("training", Status.OK, f"{version} was rolled back to {before}: {reason}")
        log.warning("rolled_back", version=version, to=before, why=reason)
        return True

    def _failed(self, error: RoadcastError) -> None:
        self.counts["failures"] += 1
        remedy = error.remedy
        if isinstance(error, ChildDown):
            remedy = "Nothing: it is tried again tomorrow. The log says why it ended; it may have lacked memory."
        self._board.report("training", Status.DEGRADED, error.message, remedy)
        log.error("training_failed", why=error.message)
