"""Databases for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from roadcast.storage.engine import Address, Database


def conninfo(address: Address) -> str:
    """As psycopg wants it."""
    return psycopg.conninfo.make_conninfo(
        host=address.host, port=address.port, user=address.user, password=address.password, dbname=address.database
    )


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Database]:
    """A pool that is closed at the end."""
    database = Database.connect(address, pool_size=3, max_overflow=3, timeout_s=5, query_timeout_s=30)
    try:
        yield database
    finally:
        await database.close()
