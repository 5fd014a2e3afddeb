"""The composition root: chooses the adapters, makes every part, and runs them in one process."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import structlog

from roadcast.api.context import ApiContext, ApiLimits, Request
from roadcast.api.deps import analyst
from roadcast.api.routes.system import system_status
from roadcast.domain.clock import DEMO, NO_FEED, Feed, FeedClock
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import rfc3339
from roadcast.errors import Conflict, NotFound, StartError
from roadcast.forecasting.explanation import Explanation
from roadcast.forecasting.forecasters import Added
from roadcast.live.documents import Presenter
from roadcast.live.hub import Channel, Hub
from roadcast.live.relay import Relay, Topics
from roadcast.live.state import LiveState
from roadcast.pipeline import changes
from roadcast.pipeline.alone import Alone
from roadcast.pipeline.champion import Throne
from roadcast.pipeline.detect import Detect
from roadcast.pipeline.housekeeping import Housekeeping, Retention
from roadcast.pipeline.importing import describe_network
from roadcast.pipeline.incidents import Alerts, IncidentDesk
from roadcast.pipeline.ingest import Ingest, IngestConfig
from roadcast.pipeline.predict import EngineConfig, Predict, PredictConfig
from roadcast.pipeline.retraining import Retraining
from roadcast.pipeline.score import ScoreConfig, Scorer
from roadcast.plugins import load as load_plugins
from roadcast.services import Board, Service, Status, run
from roadcast.settings import Mode, Role, Settings
from roadcast.sources.demo import DemoConfig, DemoFeed, DemoPorts, last_working_morning
from roadcast.storage import marks
from roadcast.storage.engine import Address, Database
from roadcast.store import connect, expect_usable, prepare, registry, tolerance, training_config
from roadcast.streaming.memory import MemoryLog

log = structlog.get_logger()

LOG_RECORDS = 20_000
"""Records of a topic that the log in memory keeps for its slowest reader before publishers wait."""
_DEMO_HISTORY = "demo_history"
"""The fact that the demo's history is stored whole."""


def choose_feed(settings: Settings, mode: Mode, stored: Feed | None) -> str:
    """`demo` or `none`: as FEED says, and unset the demo in development where nothing real is stored.

    Raises:
        StartError: simulated and real readings would mix.
    """
    chosen = settings.feed or ("demo" if mode is Mode.DEVELOPMENT and (stored is None or stored.simulated) else "none")
    if chosen == "demo" and stored is not None and not stored.simulated:
        raise StartError(
            f"FEED=demo, but the store holds readings of {stored.name!r}.",
            remedy="Set FEED=none, or use another DATA_DIR or DB_NAME.",
        )
    if chosen == "none" and stored is not None and stored.simulated:
        raise StartError(
            "FEED=none, but the store holds the demo's simulated readings.",
            remedy="Set FEED=demo, or use another DATA_DIR or DB_NAME.",
        )
    return chosen


def _refuse_future(stored: Feed | None, latest: datetime) -> None:
    if stored is not None and stored.reached_at is not None and stored.reached_at > latest:
        raise StartError(
            f"The store's feed has reached {rfc3339(stored.reached_at)}, which this machine's clock has not.",
            remedy="Set the clock right, or use another DATA_DIR or DB_NAME.",
        )


class _OnDemand:
    """The API's way to ask predict for a forecast, and what it is made of."""

    def __init__(self, predict: Predict, clock: FeedClock) -> None:
        self._predict = predict
        self._clock = clock

    async def request(self, far_sensor_no: int | None = None) -> Request:
        """Ask for an issue of the newest readings, or for one sensor's forecast further than it reaches."""
        asked = await self._predict.request(far_sensor_no)
        return Request(asked.issued_ms, self._clock.now() + timedelta(seconds=asked.wait_s))

    def pending(self, issued_ms: int) -> bool:
        """Whether somebody waits for that issue, which is made anew."""
        return self._predict.is_asked(issued_ms)

    def expected(self, issued_ms: int) -> bool:
        """Whether that issue is being made, or has its turn still to come."""
        return self._predict.is_to_come(issued_ms)

    async def explain(self, issued_ms: int, sensor_no: int, step: int) -> Explanation:
        """What a forecast that was issued is made of."""
        return await self._predict.explain(issued_ms, sensor_no, step)


@dataclass(frozen=True, slots=True)
class System:
    """Every part of one process."""

    settings: Settings
    feed: str
    database: Database
    clock: FeedClock
    board: Board
    log: MemoryLog
    state: LiveState
    hub: Hub
    started_at: datetime
    added: Sequence[Added] = ()

    @property
    def topics(self) -> Topics:
        """The live topics."""
        settings = self.settings
        return Topics(
            settings.kafka_topic_processed_aggregates, settings.kafka_topic_predictions, settings.kafka_topic_alerts
        )

    @property
    def presenter(self) -> Presenter:
        """How values become documents."""
        return Presenter(self.settings.units, self.settings.interval_s, self.settings.stale_after_s)

    @property
    def ingest_config(self) -> IngestConfig:
        """What ingest is told."""
        settings = self.settings
        return IngestConfig(
            topic=self.topics.aggregates,
            interval_ms=self.interval_ms,
            timezone=settings.timezone,
            max_future_s=settings.max_future_s,
            allowed_lateness_s=settings.allowed_lateness_s,
            idle_timeout_s=settings.idle_timeout_s,
            queue_readings=settings.ingest_queue_readings,
            register_unknown=settings.unknown_sensors == "register",
            pinned_to=DEMO if self.feed == "demo" else None,
            retention_days=settings.retention_days,
        )

    @property
    def predict_config(self) -> PredictConfig:
        """What predict is told."""
        engine = EngineConfig(self.settings.reach, tolerance(self.settings))
        return PredictConfig(
            self.topics.aggregates, self.topics.predictions, self.interval_ms, self.settings.horizons,
            self.settings.timezone, engine, self.settings.holidays or (),
        )  # fmt: skip

    @property
    def score_config(self) -> ScoreConfig:
        """What score is told."""
        return ScoreConfig(self.topics.predictions, self.interval_ms, self.settings.horizons, self.settings.timezone)

    @property
    def interval_ms(self) -> int:
        """Length of a window."""
        return self.settings.interval_s * 1000


@asynccontextmanager
async def running(
    settings: Settings, mode: Mode, address: Address, ended: Callable[["asyncio.Task[None]"], None]
) -> AsyncGenerator[ApiContext]:
    """Every part, running; what the API needs of them. `ended` hears when they end.

    Raises:
        StartError, Conflict: the database cannot be used, or another process runs on it.
    """
    database = connect(settings, address)
    await expect_usable(settings, address)
    alone = Alone(database)  # the log in memory cannot be shared
    await alone.begin()  # and before anything of the store is changed
    await prepare(settings, address, database)
    parts = _Parts(await _system(settings, mode, database), alone)
    await parts.relay.reload()  # who is answered from the first moment on is answered from what is stored
    task = asyncio.create_task(run(parts.services(), parts.system.board), name="services")
    task.add_done_callback(ended)
    try:
        yield parts.context
    finally:
        task.remove_done_callback(ended)
        task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup):
            await task
        await database.close()


def _feed_to_come(feed: str, now: datetime, timezone: str) -> Feed:
    """The feed before anything is stored of it; the demo's clock stands where it will begin."""
    if feed != "demo":
        return Feed(NO_FEED)
    return Feed(DEMO, replayed=True, simulated=True, reached_at=last_working_morning(now, ZoneInfo(timezone)))


async def _system(settings: Settings, mode: Mode, database: Database) -> System:
    """What the parts share."""
    async with database.read() as reader:
        stored = await marks.feed(reader)
    feed = choose_feed(settings, mode, stored)
    clock = FeedClock()
    _refuse_future(stored, clock.wall() + timedelta(seconds=settings.max_future_s))
    clock.feed = stored or _feed_to_come(feed, clock.wall(), settings.timezone)
    board = Board(clock.wall)
    board.report("database", Status.OK)
    board.report("log", Status.OK, "in memory")
    for name in ("relay", "ingest", "predict"):
        board.report(name, Status.STARTING)
    if feed == "demo":
        log.warning("simulated_feed", detail="the demo's corridor is simulated: nothing that it reports is real")
    if settings.api_workers > 1:
        log.info("one_worker", detail=f"API_WORKERS={settings.api_workers} is a ceiling: the log in memory runs one")
    hub = Hub(ApiLimits().socket_queue_frames, uuid4().hex[:12])
    memory = MemoryLog(capacity=LOG_RECORDS)
    added = load_plugins(lambda why: log.warning("plugin_refused", detail=why))
    return System(settings, feed, database, clock, board, memory, LiveState(), hub, clock.wall(), added)


class _Parts:
    """The services and the API's context, tied together."""

    def __init__(self, system: System, alone: Alone) -> None:
        settings = system.settings
        self.system = system
        self.alone = alone
        self.relay = Relay(
            system.database, system.log, system.topics, system.state, system.hub, system.clock,
            system.board, system.presenter,
            self._analytics,
        )  # fmt: skip
        self.ingest = Ingest(
            system.database, system.log, system.clock, system.board, system.ingest_config,
            self.relay.caught_up, self.relay.reload,
        )  # fmt: skip
        self.registry = registry(settings)
        self.throne = Throne(self.registry, settings.reach, settings.interval_s, system.board, system.added)
        self.predict = Predict(
            system.database, system.log, system.clock, system.board, system.predict_config,
            self.throne,
            self._learn_references,
        )  # fmt: skip
        self.retraining = Retraining(
            system.database, self.registry, system.clock, system.board,
            training_config(settings, system.added), settings.train_at,
        )  # fmt: skip
        self.scorer = Scorer(system.database, system.log, system.board, system.score_config)
        self.alerts = Alerts(system.database, system.log, system.topics.alerts)
        self.desk = IncidentDesk(system.database, system.clock, self.alerts)
        self.detect = Detect(
            system.database,
            system.clock,
            system.board,
            self.alerts,
            settings.timezone,
            settings.stale_after_s,
            self._announce,
        )
        self.housekeeping = Housekeeping(
            system.database,
            system.clock,
            system.board,
            Retention(settings.retention_days, settings.forecast_retention_days),
            readings=self.ingest.partitions,
            recompute=self.ingest.recompute,
            forecasts=self.predict.partitions,
        )
        self.demo_loaded = asyncio.Event()
        self.demo_complete = asyncio.Event()
        self.context = self._context()

    def services(self) -> list[Service]:
        """Every loop of this process, by role."""
        services = [
            Service("relay", Role.API, self.relay.run),
            Service("ingest", Role.INGEST, self.ingest.run),
            Service("predict", Role.PREDICT, self._predict_when_loaded),
            Service("score", Role.SCORE, self.scorer.run),
            Service("training", Role.TRAIN, self._train_when_loaded),
            Service("detect", Role.DETECT, self.detect.run),
            Service("changes", Role.API, changes.Follower(self.system.database, self._on_change).run),
            Service("housekeeping", Role.INGEST, self.housekeeping.run),
            Service("lock", Role.INGEST, partial(self.alone.keep, self.system.board)),
        ]
        if self.system.feed == "demo":
            services.append(Service("demo", Role.INGEST, self._demo))
        else:
            self.demo_loaded.set()
            self.demo_complete.set()
        return [service for service in services if service.role in self.system.settings.roles]

    def _context(self) -> ApiContext:
        system, settings = self.system, self.system.settings
        return ApiContext(
            database=system.database,
            state=system.state,
            hub=system.hub,
            clock=system.clock,
            board=system.board,
            door=self.ingest,
            predictor=_OnDemand(self.predict, system.clock),
            incidents=self.desk,
            registry=self.registry,
            model_counts=lambda: self.retraining.counts | self.throne.counts,
            units=settings.units,
            timezone=settings.timezone,
            interval_s=settings.interval_s,
            horizon_minutes=settings.horizon_minutes,
            max_future_s=settings.max_future_s,
            stale_after_s=settings.stale_after_s,
            cors_origins=tuple(settings.cors_origins),
            limits=ApiLimits(max_body_bytes=settings.max_body_bytes),
            started_at=system.started_at,
        )

    async def _analytics(self) -> Mapping[str, object]:
        """What `analytics_update` carries: the last day's congestion and the last week's patterns."""
        async with self.system.database.read() as reader:
            look = analyst(self.context, reader)
            return {"congestion": await look.congestion(24), "patterns": await look.patterns(7)}

    def _announce(self) -> None:
        """Tell the sockets that the board has changed."""
        self.system.hub.publish(Channel.SYSTEM_STATUS, self.system.clock.now(), system_status(self.context))

    async def _learn_references(self, until_ms: int) -> int:
        learnt = await self.ingest.learn_references(until_ms)
        if learnt:
            await self.relay.reload_sensors()
        return learnt

    async def _reload(self) -> None:
        """Read again what was changed beside us: by an import, or by the demo's history."""
        await self.ingest.reload()
        await self.relay.reload()

    async def _on_change(self) -> None:
        await self._reload()
        self.predict.reload()
        self.system.board.report("changes", Status.OK)

    async def _train_when_loaded(self) -> None:
        await self.demo_complete.wait()
        await self.retraining.run()

    async def _predict_when_loaded(self) -> None:
        await self.demo_loaded.wait()
        await self.predict.run()

    async def _demo(self) -> None:
        settings, system = self.system.settings, self.system
        config = DemoConfig(settings.demo_seed, settings.demo_tick_s, settings.interval_s, settings.timezone)
        ports = DemoPorts(
            submit=self.ingest.submit,
            describe=self._describe,
            record_incident=self.desk.record,
            create_incident=self.desk.create,
            close_incident=self._close_incident,
            loaded=self._demo_is_loaded,
            completed=self._demo_is_complete,
        )
        system.board.report("demo", Status.STARTING, "simulating the newest days")
        async with system.database.read() as reader:
            complete = await marks.meta(reader, _DEMO_HISTORY) is not None
        if complete:
            self.demo_complete.set()
        await DemoFeed(config, ports, system.clock.wall).run(system.clock.feed.reached_at, complete=complete)

    async def _describe(self, known: Sequence[Sensor], links: Sequence[Link]) -> None:
        await describe_network(self.system.database, known, links)
        await self.ingest.reload()

    async def _close_incident(self, incident_id: str, ended_at: datetime) -> None:
        """The demo closes what nobody closed before it."""
        changes = {"status": "closed", "ended_at": ended_at}
        with suppress(NotFound, Conflict):
            await self.desk.change(UUID(incident_id), "closed", changes)

    async def _demo_is_loaded(self) -> None:
        await self._reload()
        self.system.board.report("demo", Status.OK, "simulated corridor")
        self.demo_loaded.set()

    async def _demo_is_complete(self) -> None:
        """The older history is there too: learn from all of it."""
        async with self.system.database.write() as writer:
            await marks.set_meta(writer, _DEMO_HISTORY, "complete")
        self.predict.reload()
        self.demo_complete.set()
