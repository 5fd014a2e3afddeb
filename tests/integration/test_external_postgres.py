"""A PostgreSQL that is not ours, by DB_*: Debian's, in a cluster of these tests' own, and a user with few rights."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from e2e.system import PATIENCE_S, System, eventually, free_port, roadcast

# Against this server, too: the fixture `server` below takes the place of the embedded one.
from integration.test_readings_store import *  # noqa: F403

from roadcast.errors import StartError
from roadcast.storage import migrate
from roadcast.storage.engine import Address

PROGRAMS = max(
    Path("/usr/lib/postgresql").glob("[0-9]*/bin"), default=Path("/usr/lib/postgresql"), key=lambda p: p.parent
)
CONFIGURATION = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}


@dataclass
class Cluster:
    """The server, and whoever may do everything there."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        (self.folder / "password").write_text("admin")
        options = (
            "--username=admin",
            f"--pwfile={self.folder / 'password'}",
            "--auth=scram-sha-256",
            "--locale=C.UTF-8",
        )
        command = [PROGRAMS / "initdb", "-D", self.folder / "data", *options]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, **unprivileged())

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in {**CONFIGURATION, "port": self.port}.items()]
        command = [PROGRAMS / "postgres", "-D", self.folder / "data", *settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **unprivileged())
        assert eventually(self.accepts, PATIENCE_S), (self.folder / "log").read_text()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE_S)

    def accepts(self) -> bool:
        try:
            self.run()
        except psycopg.OperationalError:
            return False
        return True

    def run(self, *statements: str) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="admin", password="admin", dbname="postgres", autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement)

    def settings(self, **others: str) -> dict[str, str]:
        """What its user writes into the environment."""
        named = {"DB_HOST": "127.0.0.1", "DB_PORT": str(self.port), "DB_USER": "road", "DB_PASSWORD": "cast"}
        return {**named, "DB_NAME": "traffic_db", "FEED": "none", **others}


def unprivileged() -> dict[str, object]:
    """PostgreSQL does not run as root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Running, empty, and ended whatever becomes of the tests."""
    if not (PROGRAMS / "postgres").exists():
        pytest.skip("needs PostgreSQL from Debian: apt-get install postgresql")
    with TemporaryDirectory(prefix="roadcast-debian-") as folder:  # pytest's own folders are closed to other users
        server = Cluster(Path(folder), free_port())
        server.make()
        try:
            server.start()
            server.run("CREATE USER road PASSWORD 'cast' CREATEDB", "CREATE USER stranger PASSWORD 'cast'")
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Address:
    """For the tests of the store: a user who may make databases, and nothing more."""
    return Address("127.0.0.1", cluster.port, "road", "cast", "postgres")


@pytest.fixture
def external(cluster: Cluster) -> Iterator[Cluster]:
    """With an empty `traffic_db` of its user's."""
    cluster.run("CREATE DATABASE traffic_db OWNER road ENCODING 'UTF8'")
    yield cluster
    cluster.run("DROP DATABASE traffic_db WITH (FORCE)")


def tick(minutes_ago: int) -> list[dict[str, object]]:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    at = now - timedelta(minutes=now.minute % 5 + minutes_ago)
    return [{"sensor_id": f"S{j}", "timestamp": at.isoformat(), "speed": 50.0 + j, "volume": 9} for j in range(5)]


def issued(system: System) -> str:
    return max((forecast["issued_at"] for forecast in system.get("/api/predictions/latest")), default="")


def test_it_stores_forecasts_and_goes_on_after_a_restart(external: Cluster, tmp_path: Path) -> None:
    with System(tmp_path, **external.settings()) as system:
        for minutes_ago in (40, 35):
            assert system.post(tick(minutes_ago))["accepted"] == 5
        assert system.post(tick(40))["duplicate"] == 5
        assert eventually(lambda: issued(system) == tick(35)[0]["timestamp"].replace("+00:00", "Z"), PATIENCE_S)
        assert system.get("/api/traffic/statistics", hours=1)["total_readings"] == 10
        assert system.processes("bin/postgres") == []
        assert sorted(path.name for path in system.data_dir.iterdir()) == ["lock"]
        assert "Context impl" not in (tmp_path / "app.log").read_text()  # alembic's
        before = issued(system)
        system.process.terminate()
        assert system.process.wait(PATIENCE_S) == 0
    with System(tmp_path, **external.settings()) as system:
        assert system.get("/api/traffic/statistics", hours=1)["total_readings"] == 10
        assert issued(system) >= before
        system.post(tick(30))
        assert eventually(lambda: issued(system) > before, PATIENCE_S)


def test_it_waits_for_a_server_that_is_restarted(external: Cluster, tmp_path: Path) -> None:
    with System(tmp_path, **external.settings()) as system:
        worker = system.worker()
        system.post(tick(40))
        external.stop()
        try:
            assert eventually(lambda: system.client.get("/health").status_code == 503)
            assert system.client.post("/api/traffic/readings", json=tick(35)).status_code == 503
        finally:
            external.start()
        assert eventually(lambda: system.client.get("/health").status_code == 200, PATIENCE_S)
        assert system.post(tick(35))["accepted"] == 5
        assert system.worker() == worker


TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'traffic_db'"


def remedy(system: System) -> str:
    """Of the database, where it is in trouble."""
    parts = system.client.get("/health").json()["parts"]
    return "".join(part["remedy"] for part in parts if part["name"] == "database")


def test_a_server_that_turns_us_away_is_told_with_its_reason(external: Cluster, tmp_path: Path) -> None:
    with System(tmp_path, **external.settings()) as system:
        system.post(tick(40))
        external.run("ALTER ROLE road NOLOGIN", TERMINATE)
        try:
            assert eventually(lambda: remedy(system).startswith("See that DB_USER may log in"))
            time.sleep(3)
            answer = system.client.get("/api/traffic/statistics", params={"hours": 1})
            assert (answer.status_code, answer.json()["detail"][:34]) == (503, "The database turns Roadcast away. ")
        finally:
            external.run("ALTER ROLE road LOGIN")
        assert eventually(lambda: not remedy(system))
        assert system.post(tick(35))["accepted"] == 5
    told = [line for line in (tmp_path / "app.log").read_text().splitlines() if "database_turns_away" in line]
    assert len(told) == 1
    assert 'role "road" is not permitted to log in' in told[0]


def test_it_reads_on_while_the_server_takes_no_writes(external: Cluster, tmp_path: Path) -> None:
    read_only = "This server is read-only: point DB_HOST at the primary"
    with System(tmp_path, **external.settings()) as system:
        first = system.worker()
        for minutes_ago in (40, 35):
            system.post(tick(minutes_ago))
        external.run("ALTER DATABASE traffic_db SET default_transaction_read_only = on", TERMINATE)
        assert eventually(lambda: remedy(system).startswith(read_only))
        answer = system.client.post("/api/traffic/readings", json=tick(30))
        assert answer.status_code == 503
        assert read_only in answer.json()["detail"]
        assert system.get("/api/traffic/statistics", hours=1)["total_readings"] == 10
        assert system.worker() == first
        assert (tmp_path / "app.log").read_text().count("database_refuses") == 1
        os.kill(first, signal.SIGKILL)  # nor does one need to write that starts now
        assert eventually(system.answers, PATIENCE_S)
        assert system.get("/api/traffic/statistics", hours=1)["total_readings"] == 10
        assert eventually(lambda: remedy(system).startswith(read_only))
        second = system.worker()
        external.run("ALTER DATABASE traffic_db RESET default_transaction_read_only")
        assert eventually(lambda: not remedy(system))
        assert system.post(tick(30))["accepted"] == 5
        assert system.worker() == second != first


def test_it_reads_on_from_a_standby(external: Cluster, tmp_path: Path) -> None:
    """A clean server that is told to recover takes no writes, nor LISTEN, as after a failover."""
    standby = external.folder / "data" / "standby.signal"
    with System(tmp_path, **external.settings()) as system:
        system.post(tick(40))
        external.stop()
        standby.touch()
        external.start()
        try:
            assert eventually(lambda: remedy(system).startswith("This server is read-only"), PATIENCE_S)
            os.kill(system.worker(), signal.SIGKILL)
            assert eventually(system.answers, PATIENCE_S)
            assert system.get("/api/traffic/statistics", hours=1)["total_readings"] == 5
            assert system.client.post("/api/traffic/readings", json=tick(35)).status_code == 503
            worker = system.worker()
        finally:
            external.stop()
            standby.unlink()
            external.start()
        assert eventually(lambda: system.client.get("/health").status_code == 200 and not remedy(system), PATIENCE_S)
        assert system.post(tick(35))["accepted"] == 5
        assert system.worker() == worker


def test_too_few_connections_are_told_with_the_remedy(external: Cluster, tmp_path: Path) -> None:
    full = "Lower DB_POOL_SIZE and DB_MAX_OVERFLOW"
    with System(tmp_path, **external.settings()) as system:
        external.run("ALTER DATABASE traffic_db CONNECTION LIMIT 1", TERMINATE)
        assert eventually(lambda: remedy(system).startswith(full))
        external.run("ALTER DATABASE traffic_db CONNECTION LIMIT -1")
        assert eventually(lambda: not remedy(system))
    external.run("ALTER DATABASE traffic_db CONNECTION LIMIT 0")
    assert full in refusal(tmp_path, external.settings())


def refusal(folder: Path, environment: dict[str, str]) -> str:
    """The one line of a start that is refused."""
    given = {**os.environ, "API_PORT": "0", "DATA_DIR": str(folder / "var"), "LOG_FILE": str(folder / "log")}
    done = roadcast({**given, **environment}, folder, "serve")
    assert done.returncode == 1
    assert re.fullmatch(r"roadcast: .*\n", done.stderr), done.stderr
    return done.stderr


def test_what_refuses_us_is_told_in_one_line_with_the_remedy(external: Cluster, tmp_path: Path) -> None:
    remedy = "See that PostgreSQL runs and that DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME are right."
    for wrong, said in {
        ("DB_PASSWORD", "wrong"): 'password authentication failed for user "road"',
        ("DB_USER", "nobody"): 'password authentication failed for user "nobody"',
        ("DB_NAME", "no_such"): 'database "no_such" does not exist',
        ("DB_PORT", str(free_port())): "Connection refused",
        ("DB_HOST", "no-such-host.invalid"): "failed to resolve host 'no-such-host.invalid'",
    }.items():
        line = refusal(tmp_path, external.settings(**dict([wrong])))
        assert said in line
        assert line.endswith(f"{remedy}\n")
    line = refusal(tmp_path, external.settings(DB_USER="stranger"))
    assert "permission denied for schema public. Let DB_USER own the database" in line


def test_a_second_system_on_the_database_is_refused(external: Cluster, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    small = {"DB_POOL_SIZE": "1", "DB_MAX_OVERFLOW": "0"}
    with System(tmp_path, **external.settings(**small)) as system:
        said = "roadcast: Another Roadcast runs on this database."
        assert refusal(second, external.settings(TIMEZONE="Asia/Tokyo")).startswith(said)
        external.stop()
        external.start()
        assert eventually(lambda: system.client.get("/health").status_code == 200, PATIENCE_S)
        assert system.post(tick(40))["accepted"] == 5
        assert refusal(second, external.settings(TIMEZONE="Asia/Tokyo")).startswith(said)
    with System(tmp_path, **external.settings()) as system:  # of the same time zone: nothing was changed
        assert "rollups_rebuilt" not in system.said.read_text()


def test_a_host_that_does_not_answer_is_given_up_after_the_time_out(external: Cluster, tmp_path: Path) -> None:
    assert external.process is not None
    external.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert "timeout" in refusal(tmp_path, external.settings(DB_TIMEOUT_S="2"))
        assert time.monotonic() - began < 15
    finally:
        external.process.send_signal(signal.SIGCONT)


def test_a_database_that_cannot_hold_every_name_is_refused(external: Cluster, tmp_path: Path) -> None:
    for encoding in ("SQL_ASCII", "LATIN1"):
        external.run(f"CREATE DATABASE poor OWNER road TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        try:
            line = refusal(tmp_path, external.settings(DB_NAME="poor"))
        finally:
            external.run("DROP DATABASE poor WITH (FORCE)")
        assert f"has the encoding {encoding}" in line
        assert "CREATE DATABASE poor TEMPLATE template0 ENCODING 'UTF8'" in line


def test_a_server_older_than_ours_must_be_is_refused(external: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server older than 13 is at hand; that a newer one is asked for shows the comparison."""
    monkeypatch.setattr(migrate, "OLDEST", 990_000)
    address = Address("127.0.0.1", external.port, "road", "cast", "traffic_db")
    with pytest.raises(StartError, match=r"PostgreSQL 1\d is too old\. Use 99 or newer\."):
        migrate.expect_usable(address, timeout_s=5, timezone="UTC")
