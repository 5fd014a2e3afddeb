"""Bring the schema up to date at start, once however many processes start together."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from roadcast.errors import StartError
from roadcast.storage.engine import REMEDIES, Address, sqlstate

_LOCK = 0x726F6164  # any number of ours: "road"
OLDEST = 130_000
"""server_version_num of the oldest PostgreSQL that is supported."""


def expect_usable(address: Address, *, timeout_s: float, timezone: str) -> None:
    """Find out whether the database can be used, and change nothing.

    Raises:
        StartError: the server is away, refuses us or is not one we can use.
    """
    with _connected(address, timeout_s) as connection:
        _refuse_unusable(connection, timezone)


def migrate(address: Address, *, timeout_s: float) -> None:
    """Run the migrations that are missing, under an advisory lock.

    Raises:
        StartError: the server is away or refuses us, or the schema is of a newer Roadcast.
    """
    with _connected(address, timeout_s) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _upgrade(connection)


@contextmanager
def _connected(address: Address, timeout_s: float) -> Generator[Connection]:
    # client_encoding: from a database without an encoding the driver would give bytes, not text
    options = {"connect_timeout": max(2, round(timeout_s)), "client_encoding": "utf8"}
    engine = create_engine(address.url(), connect_args=options)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        where = f"{address.database} on {address.host}:{address.port}"
        remedy = REMEDIES.get(sqlstate(error) or "", address.remedy)
        raise StartError(f"The database {where} cannot be used: {_reason(error)}.", remedy=remedy) from error
    finally:
        engine.dispose()


def _refuse_unusable(connection: Connection, timezone: str) -> None:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < OLDEST:
        raise StartError(f"PostgreSQL {version // 10_000} is too old.", remedy=f"Use {OLDEST // 10_000} or newer.")
    encoding = str(connection.execute(text("SHOW server_encoding")).scalar_one())
    if encoding != "UTF8":
        name = connection.engine.url.database
        raise StartError(
            f"The database {name} has the encoding {encoding}, which cannot hold every name.",
            remedy=f"Make it again: CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'",
        )
    zones = "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = :name)"
    if not connection.execute(text(zones), {"name": timezone}).scalar_one():
        raise StartError(
            f"PostgreSQL does not know TIMEZONE={timezone}.",
            remedy="Use another name of it, such as Europe/Kiev for Europe/Kyiv on an older PostgreSQL.",
        )


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except command.util.CommandError as error:
        raise StartError(
            "The database was written by a newer Roadcast.", remedy="Start that, or use another DB_NAME."
        ) from error


def _reason(error: DBAPIError) -> str:
    """What the server or the connection said, without where it was said."""
    line = (str(error.orig).splitlines() or ["it does not answer"])[0]
    return line.rpartition("failed: ")[2].removeprefix("FATAL:").strip()
