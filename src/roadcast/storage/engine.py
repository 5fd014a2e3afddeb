"""Connections: a pool, and two types of session so that a reader cannot write.

`Database.read()` gives a `Reader` in a read-only transaction with the query time-out; `Database.write()` gives a
`Writer` in a transaction that commits when its block ends and rolls back when it raises.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString, Self, cast

import psycopg
import structlog
from sqlalchemy import URL, ExceptionContext, event, text
from sqlalchemy import RowMapping as Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from roadcast.errors import Conflict, Unavailable

log = structlog.get_logger()

PING_TIMEOUT_S = 2.0
WRITE_TIMEOUT_S = 60.0
"""Longest run of a transaction that writes, where nothing else is said."""
BULK_TIMEOUT_S = 600.0
"""As long may one take that loads or computes again a whole history."""
BUSY = (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
"""What a database says that answers, but not now."""
GRACE_S = 5
"""How much longer than the server's own time-out a transaction may take before the server counts as frozen."""

READ_ONLY, NOT_ALLOWED, FULL = "25006", "42501", "53300"
CONNECTION_ENDS = ("08", "57P", "28", "3D")
"""Classes of SQLSTATE with which a server turns a client away, or goes."""
REFUSALS = (READ_ONLY, NOT_ALLOWED, "40", "53", "54", "55", "57", "58")
"""SQLSTATEs, and classes of them, with which it answers and refuses: not because of what was asked."""
REMEDIES = {
    READ_ONLY: "This server is read-only: point DB_HOST at the primary, or let it take writes again "
    "(default_transaction_read_only, space on its disk).",
    NOT_ALLOWED: "Let DB_USER own the database: ALTER DATABASE … OWNER TO …",
    "53100": "Free disk space where PostgreSQL keeps its data.",
    "53200": "Give PostgreSQL more memory, or raise max_locks_per_transaction.",
    FULL: "Lower DB_POOL_SIZE and DB_MAX_OVERFLOW, or raise PostgreSQL's max_connections or the CONNECTION LIMIT "
    "of the database or of DB_USER.",
}
"""What to do about a database that answers and refuses, by SQLSTATE."""
TURNED_AWAY = "See that DB_USER may log in to DB_NAME with DB_PASSWORD: the log has the server's reason."
"""What to do about a database that answers and lets nobody in."""
_FULL = re.compile("too many (connections|clients)|connection slots are reserved")
_NO_ENTRY = re.compile("FATAL: +(?!the database system)(.*)")
"""What a server says to whom it turns away; one that starts or ends does not answer yet, or any more."""
REMEDY = "See that PostgreSQL runs and that DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME are right."
"""What to do about a database that cannot be used."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is, who we are there, and what to do when it is away. The password never shows."""

    host: str
    port: int
    user: str
    password: str
    database: str
    remedy: str = REMEDY

    def url(self, driver: str = "postgresql+psycopg") -> URL:
        """As SQLAlchemy wants it."""
        return URL.create(driver, self.user, self.password, self.host, self.port, self.database)

    def __repr__(self) -> str:
        return f"Address({self.user}@{self.host}:{self.port}/{self.database})"


class Reader:
    """A transaction that reads."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, sql: str, /, **parameters: object) -> Sequence[Row]:
        """All rows of a query."""
        result = await self._connection.execute(text(sql), parameters)
        return result.mappings().all()

    async def row(self, sql: str, /, **parameters: object) -> Row | None:
        """The first row of a query, or None."""
        result = await self._connection.execute(text(sql), parameters)
        return result.mappings().first()

    async def value(self, sql: str, /, **parameters: object) -> Any:
        """The first value of the first row, or None."""
        return (await self._connection.execute(text(sql), parameters)).scalar()

    async def driver(self) -> psycopg.AsyncConnection[Any]:
        """The connection below, for COPY."""
        raw = await self._connection.get_raw_connection()
        driver = raw.driver_connection
        return cast("psycopg.AsyncConnection[Any]", driver)


class Writer(Reader):
    """A transaction that writes."""

    async def run(self, sql: str, /, **parameters: object) -> int:
        """Execute a statement; the number of rows it touched."""
        return (await self._connection.execute(text(sql), parameters)).rowcount

    async def run_each(self, sql: str, parameters: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once for each set of parameters, in one round trip."""
        if parameters:
            await self._connection.execute(text(sql), [dict(each) for each in parameters])


class Database:
    """The pool."""

    def __init__(self, reading: AsyncEngine, writing: AsyncEngine, address: Address, *, query_timeout_s: float) -> None:
        self._reading = reading
        self._writing = writing
        self._query_timeout_s = query_timeout_s
        self._address = address
        self._pings: set[asyncio.Task[None]] = set()
        self._turned_away = ""
        self.read_only: Unavailable | None = None
        """What a write was told, until `try_writing` finds that the server takes them."""
        event.listen(writing.sync_engine, "handle_error", _renew)

    @classmethod
    def connect(
        cls, address: Address, *, pool_size: int, max_overflow: int, timeout_s: float, query_timeout_s: float
    ) -> Self:
        """A pool for reading and one for writing on `address`; nothing is opened before it is needed.

        What differs between them is said when a connection is made, which saves two round trips a transaction.
        Every plan is made for its parameters: one for any would lock every partition there is.
        """
        pool = {"pool_size": pool_size, "max_overflow": max_overflow, "pool_timeout": timeout_s, "pool_pre_ping": True}

        def engine(options: str) -> AsyncEngine:
            options = f"-c timezone=UTC -c jit=off -c plan_cache_mode=force_custom_plan {options}"
            given = {"connect_timeout": max(2, round(timeout_s)), "options": options}
            return create_async_engine(address.url(), connect_args=given, **pool)

        reading = "-c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read"
        return cls(
            engine(f"{reading} -c statement_timeout={round(query_timeout_s * 1000)}"),
            engine(f"-c statement_timeout={round(WRITE_TIMEOUT_S * 1000)}"),
            address,
            query_timeout_s=query_timeout_s,
        )

    @asynccontextmanager
    async def read(self, timeout_s: float | None = None) -> AsyncGenerator[Reader]:
        """A read-only transaction on one snapshot, within DB_QUERY_TIMEOUT_S or what is said.

        Raises:
            Unavailable: the database is away or the pool is exhausted.
        """
        async with self._transaction(self._reading, timeout_s, self._query_timeout_s) as connection:
            yield Reader(connection)

    @asynccontextmanager
    async def write(self, timeout_s: float | None = None) -> AsyncGenerator[Writer]:
        """A transaction that commits at the end of the block, within WRITE_TIMEOUT_S or what is said.

        Raises:
            Unavailable: the database is away or the pool is exhausted.
        """
        async with self._transaction(self._writing, timeout_s, WRITE_TIMEOUT_S) as connection:
            yield Writer(connection)

    async def try_writing(self) -> None:
        """Find out, where that takes no longer than a ping, whether it takes writes: `read_only` then says."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(PING_TIMEOUT_S), self.write() as writer:
                await writer.run("SELECT FROM meta WHERE false FOR UPDATE")  # refused like a write, and writes nothing
            self.read_only = None

    async def run_alone(self, sql: str) -> None:
        """Execute a statement that PostgreSQL takes outside of transactions only, within WRITE_TIMEOUT_S.

        Raises:
            Unavailable: the database is away or the pool is exhausted.
        """
        with self._refusals():
            async with self._writing.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(sql))

    async def ping(self, timeout_s: float = PING_TIMEOUT_S) -> None:
        """Ask whether it answers, and return in time whatever becomes of the question.

        Raises:
            Unavailable: it is away, or did not answer within `timeout_s`.
        """
        asking = asyncio.create_task(self._ask())
        self._pings.add(asking)
        asking.add_done_callback(self._pings.discard)
        done, _ = await asyncio.wait({asking}, timeout=timeout_s)
        if not done:
            asking.cancel()  # not waited for: a driver whose server is frozen takes ten seconds to give up
            raise Unavailable(f"The database did not answer within {timeout_s:g} s.", remedy=self._address.remedy)
        asking.result()

    async def _ask(self) -> None:
        async with self.read() as reader:
            await reader.value("SELECT 1")
        self._turned_away = ""

    async def listen(self, channel: LiteralString) -> AsyncGenerator[str]:
        """The payloads notified on `channel`, from a connection of its own; first an empty one, once it listens.

        Raises:
            Unavailable: the connection cannot be had, or is lost.
        """
        async with self._session() as driver:
            await driver.execute("LISTEN " + channel)
            yield ""
            async for notice in driver.notifies():
                yield notice.payload

    async def be_alone(self, held: Callable[[], None], patience_s: float) -> None:
        """Be the only process that does this on this database, for as long as a connection of its own lives.

        `held` hears when it is so.

        Raises:
            Conflict: another process has done it for `patience_s`.
            Unavailable: the connection cannot be had, or is lost.
        """
        async with self._session() as driver:
            await _acquire(driver, patience_s)
            held()
            async for _ in driver.notifies():  # there are none: it waits for the end
                pass

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """A connection beside the pools, which commits by itself."""
        where = self._address
        with self._refusals():
            driver = await psycopg.AsyncConnection.connect(
                host=where.host, port=where.port, user=where.user, password=where.password, dbname=where.database,
                connect_timeout=max(2, round(self._query_timeout_s)), autocommit=True,
            )  # fmt: skip
            try:
                yield driver
            finally:
                await driver.close()

    @asynccontextmanager
    async def _transaction(
        self, engine: AsyncEngine, timeout_s: float | None, usual_s: float
    ) -> AsyncGenerator[AsyncConnection]:
        """A transaction within the server's own time-out, or a little longer where the server is frozen."""
        with self._refusals():
            patience = asyncio.timeout((timeout_s or usual_s) + GRACE_S)
            async with patience, engine.connect() as connection, connection.begin():
                try:
                    if timeout_s is not None:
                        await connection.execute(text(f"SET LOCAL statement_timeout = {round(timeout_s * 1000)}"))
                    yield connection
                except asyncio.CancelledError:
                    await connection.invalidate()  # it may be in the middle of a COPY, which cannot be rolled back
                    raise

    @contextmanager
    def _refusals(self) -> Generator[None]:
        """Turn the errors of a connection that cannot be had, or is lost, and of a server that refuses, into ours."""
        try:
            yield
        except PoolTimeout as error:
            raise Unavailable("Every database connection is busy.", remedy="Raise DB_POOL_SIZE.") from error
        except TimeoutError as error:
            raise Unavailable("The database does not answer.", remedy=self._address.remedy) from error
        except (DBAPIError, psycopg.Error) as error:
            ours = self._unavailable(error.orig if isinstance(error, DBAPIError) else error)
            if ours is None:
                raise
            raise ours from error

    def _unavailable(self, cause: BaseException | None) -> Unavailable | None:
        """What becomes of a driver's error; None: it is ours to mend."""
        if isinstance(cause, BUSY):
            return Unavailable(f"The database is busy: {_first_line(cause)}.", remedy="It is tried again.")
        if not isinstance(cause, psycopg.Error):
            return None
        state = sqlstate(cause)
        if state is not None and state.startswith(REFUSALS) and not state.startswith(CONNECTION_ENDS):
            return self._refused(state, cause)
        if isinstance(cause, psycopg.OperationalError) or (state or "").startswith(CONNECTION_ENDS):
            return self._gone(cause)
        return None

    def _gone(self, cause: psycopg.Error) -> Unavailable:
        reason = _NO_ENTRY.search(str(cause))
        if reason is None:
            return Unavailable("The database does not answer.", remedy=self._address.remedy)
        if reason[1] != self._turned_away:  # everyone who tries hears it: it is told once
            self._turned_away = reason[1]
            log.error("database_turns_away", reason=reason[1])
        return Unavailable("The database turns Roadcast away.", remedy=TURNED_AWAY)

    def _refused(self, state: str, cause: psycopg.Error) -> Unavailable:
        what_to_do = REMEDIES.get(state, "The log says why.")
        refused = Unavailable(f"The database refuses (SQLSTATE {state}).", remedy=what_to_do)
        if state != READ_ONLY or self.read_only is None:  # every write meets that one: it is told once
            log.error("database_refuses", sqlstate=state, reason=_first_line(cause), remedy=what_to_do)
        if state == READ_ONLY:
            self.read_only = refused
        return refused

    async def close(self) -> None:
        """Close every connection."""
        await self._reading.dispose()
        await self._writing.dispose()


async def _acquire(driver: psycopg.AsyncConnection[Any], patience_s: float) -> None:
    deadline_s = asyncio.get_running_loop().time() + patience_s
    while True:
        cursor = await driver.execute("SELECT pg_try_advisory_lock(hashtext('roadcast'), 1)")
        row = await cursor.fetchone()
        if row is not None and row[0]:
            return
        if asyncio.get_running_loop().time() > deadline_s:
            raise Conflict("Another Roadcast runs on this database.", remedy="Stop it, or use another DB_NAME.")
        await asyncio.sleep(0.1)


def sqlstate(error: Exception | None) -> str | None:
    """Which error PostgreSQL told. Of a connection that it refused, libpq passes on only the words."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return None
    return cause.sqlstate or (FULL if _FULL.search(str(cause)) else None)


def _renew(context: ExceptionContext) -> None:
    """A session stays read-only for as long as it lives: new ones may not be, or find another server."""
    if sqlstate(context.sqlalchemy_exception) == READ_ONLY:
        context.is_disconnect = True


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
