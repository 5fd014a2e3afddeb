"""Fixtures: a real PostgreSQL, started once, with an empty database for every test that asks for one."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from integration.databases import conninfo

from roadcast.embedded.postgres import running
from roadcast.storage.engine import Address
from roadcast.storage.migrate import migrate

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much load the load test makes."""
    parser.addoption("--users", type=int, default=10, help="users of the load test (default: 10)")
    parser.addoption("--duration", default="15s", help="length of the load test (default: 15s)")


@pytest.fixture(scope="session")
def server() -> Iterator[Address]:
    """A PostgreSQL of our own."""
    folder = Path(tempfile.mkdtemp(prefix="roadcast-tests-"))
    folder.chmod(0o755)
    try:
        with running(folder) as found:
            yield Address(found.host, found.port, found.user, found.password, found.database)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def address(server: Address, request: pytest.FixtureRequest) -> Iterator[Address]:
    """An empty database with our schema."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(conninfo(server), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        fresh = replace(server, database=name)
        migrate(fresh, timeout_s=10)
        yield fresh
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def data() -> Path:
    """The folder of real detector data, beside the repository."""
    if not DATA.is_dir():
        pytest.skip(f"needs the real detector data in {DATA}")
    return DATA


def run(coroutine):
    """Run a test's coroutine."""
    return asyncio.run(coroutine)


MAY_BE_SKIPPED_IN_CI = ("only root becomes another user", "the programs lie in a folder that nobody may not enter")
"""Reasons that say who runs CI and where, and nothing that could be installed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test is a failed one: what it needs is missing where it must be."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MAY_BE_SKIPPED_IN_CI):
            report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped, which CI does not allow: {reason}"
    return report
