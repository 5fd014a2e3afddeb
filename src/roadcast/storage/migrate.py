"""Bring the schema up to date at start, once however many processes start together."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from roadcast.errors import StartError
from roadcast.storage.engine import Address

_LOCK = 0x726F6164  # any number of ours: "road"
OLDEST = 130_000
"""server_version_num of the oldest PostgreSQL that is supported."""


def migrate(address: Address, *, timeout_s: float) -> None:
    """Run the migrations that are missing, under an advisory lock.

    Raises:
        StartError: the server is too old, or the schema is of a newer Roadcast.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(address.url(), connect_args={"connect_timeout": max(2, round(timeout_s))})
    try:
        with engine.begin() as connection:
            version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
            if version < OLDEST:
                raise StartError(f"PostgreSQL {version // 10_000} is too old.", remedy="Use version 13 or newer.")
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except command.util.CommandError as error:
                raise StartError(
                    "The database was written by a newer Roadcast.",
                    remedy="Start that, or use another DB_NAME.",
                ) from error
    finally:
        engine.dispose()
