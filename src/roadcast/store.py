"""The stores of readings and of models: where they are, and what must be true before anything works on them."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path

import structlog

from roadcast.blobs.file import FileBlobs
from roadcast.domain.clock import wall_clock
from roadcast.domain.units import TOLERANCE_SHARE
from roadcast.embedded.postgres import PostgresAddress
from roadcast.embedded.postgres import running as running_embedded
from roadcast.errors import StartError
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.forecasters import Added
from roadcast.pipeline.recorder import Recorder, rebuild_rollups
from roadcast.pipeline.training import TrainingConfig
from roadcast.registry.registry import Registry
from roadcast.settings import Settings
from roadcast.storage import marks
from roadcast.storage.engine import Address, Database
from roadcast.windows import SUMS

log = structlog.get_logger()

_ASSUMED = ("timezone", "interval_s")
"""Settings that the stored rollups assume; they assume what is summed, too."""


def database_address(settings: Settings) -> Address:
    """Where DB_HOST says that the database is.

    Raises:
        StartError: DB_HOST is unset, and the embedded database's address was not given.
    """
    if settings.db_host is None:
        raise StartError("No database was named.", remedy="Set DB_HOST, or start with: roadcast serve")
    password = settings.db_password.get_secret_value()
    return Address(settings.db_host, settings.db_port, settings.db_user, password, settings.db_name)


def embedded_address(found: PostgresAddress, data_dir: Path) -> Address:
    """The embedded database's address. What the environment tells libpq (PGSSLMODE, …) is meant for other servers."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    log_file = data_dir / "postgres" / "log"
    remedy = f"It is started again by itself. See that the disk has space; why it ended stands in {log_file}."
    return Address(**asdict(found), remedy=remedy)


@contextmanager
def running(settings: Settings) -> Generator[Address]:
    """Where the store is: by DB_HOST, else the embedded one, which runs as long as the block if it did not before."""
    if settings.db_host is not None:
        yield database_address(settings)
        return
    with running_embedded(settings.data_dir) as found:
        yield embedded_address(found, settings.data_dir)


def connect(settings: Settings, address: Address) -> Database:
    """The database, with the pool that the settings ask for."""
    return Database.connect(
        address,
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        timeout_s=settings.db_timeout_s,
        query_timeout_s=settings.db_query_timeout_s,
    )


@asynccontextmanager
async def opened(settings: Settings, address: Address) -> AsyncGenerator[Database]:
    """The database for a command, which may run beside what serves; its schema is up to date.

    Raises:
        StartError: as in `expect_usable` and `prepare`.
    """
    database = connect(settings, address)
    try:
        await expect_usable(settings, address)
        await prepare(settings, address, database, serves=False)
        yield database
    finally:
        await database.close()


async def expect_usable(settings: Settings, address: Address) -> None:
    """Find out whether the database can be used, and change nothing.

    Raises:
        StartError: it cannot.
    """
    from roadcast.storage.migrate import expect_usable as expect  # noqa: PLC0415 - as below

    await asyncio.to_thread(expect, address, timeout_s=settings.db_timeout_s, timezone=settings.timezone)


async def prepare(settings: Settings, address: Address, database: Database, *, serves: bool = True) -> None:
    """Bring the schema and what the rollups assume up to date; only what serves may change the time zone.

    Raises:
        StartError: the database cannot be used, or was written with another INTERVAL_S or TIMEZONE.
    """
    from roadcast.storage.migrate import migrate  # noqa: PLC0415 - a fifth of a second that the start can use better

    await asyncio.to_thread(migrate, address, timeout_s=settings.db_timeout_s)
    assumed = {name: str(getattr(settings, name)) for name in _ASSUMED} | {"sums": " ".join(SUMS)}
    async with database.read() as reader:
        stored = {name: await marks.meta(reader, name) for name in assumed}
    if stored["interval_s"] not in (None, assumed["interval_s"]):
        raise StartError(
            f"INTERVAL_S={assumed['interval_s']}, but the stored windows are of {stored['interval_s']} s.",
            remedy=f"Set INTERVAL_S={stored['interval_s']}, or use another DATA_DIR or DB_NAME.",
        )
    if stored["timezone"] not in (None, assumed["timezone"]) and not serves:
        raise StartError(
            f"TIMEZONE={assumed['timezone']}, but the stored days are those of {stored['timezone']}.",
            remedy=f"Set TIMEZONE={stored['timezone']}, or use another DATA_DIR. A file's own zone is for --timezone.",
        )
    if stored["timezone"] is not None and stored != assumed:
        log.info("rollups_rebuilt", timezone=assumed["timezone"], before=stored["timezone"])
        await rebuild_rollups(database, Recorder(settings.interval_s * 1000, settings.timezone))
    if stored != assumed:  # a server that takes no writes is good enough to answer from
        async with database.write() as writer:
            for name, value in assumed.items():
                await marks.set_meta(writer, name, value)


def tolerance(settings: Settings) -> Tolerance:
    """By how much a forecast of speed may err, and be right."""
    return Tolerance(settings.units.tolerance_mph, TOLERANCE_SHARE)


def training_config(settings: Settings, added: Sequence[Added]) -> TrainingConfig:
    """What training is told, with forecasters of other packages."""
    return TrainingConfig(
        settings.interval_s * 1000, settings.timezone, settings.reach, tolerance(settings),
        holidays=settings.holidays or (), added=added,
    )  # fmt: skip


def registry(settings: Settings) -> Registry:
    """The versions of models, in MODEL_STORE; it is made by the first one that is saved."""
    return Registry(FileBlobs(settings.models_dir), wall_clock)
