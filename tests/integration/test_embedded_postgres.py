"""PostgreSQL from its wheel: made, found again, started again, refused, stopped. Real servers throughout."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from roadcast.embedded import postmaster
from roadcast.embedded.cluster import LARGEST_LOG_BYTES, Cluster
from roadcast.embedded.data_dir import InUse, own
from roadcast.embedded.postgres import EmbeddedPostgres, PostgresAddress, running
from roadcast.embedded.privileges import NOBODY
from roadcast.errors import StartError

OWNER = """
import sys, time
from pathlib import Path
from roadcast.embedded.data_dir import own
from roadcast.embedded.postgres import EmbeddedPostgres
lock = own(Path(sys.argv[1]))
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
server.wait()
print("accepts", flush=True)
time.sleep(60)
"""


def connect(address: PostgresAddress, password: str | None = None) -> psycopg.Connection:
    return psycopg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=password or address.password,
        dbname=address.database,
        connect_timeout=5,
    )


def setting(address: PostgresAddress, name: str) -> str:
    with connect(address) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return row[0]


def keep(address: PostgresAddress, value: int) -> None:
    with connect(address) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def kept(address: PostgresAddress) -> int:
    with connect(address) as connection:
        row = connection.execute("SELECT value FROM kept").fetchone()
    assert row is not None
    return row[0]


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def server_pid(data_dir: Path) -> int:
    found = postmaster.find(Cluster(data_dir).data)
    assert found is not None
    return found.pid


def killed_owner(data_dir: Path) -> None:
    """Leave a server behind, as an owner does that is killed."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data_dir)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"accepts\n"
        owner.kill()


def test_a_new_one_has_what_the_system_needs(tmp_path: Path) -> None:
    with running(tmp_path) as address:
        assert setting(address, "server_encoding") == "UTF8"
        assert setting(address, "server_version").startswith("18.")
        assert setting(address, "listen_addresses") == "127.0.0.1"
        assert setting(address, "unix_socket_directories") == ""
        assert setting(address, "synchronous_commit") == "on"
        assert setting(address, "data_checksums") == "on"
        assert address.database == "traffic_db"


def test_only_the_password_opens_it_and_it_does_not_show(tmp_path: Path) -> None:
    with running(tmp_path) as address:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(address, password="guessed")
        assert address.password not in repr(address)
        command = Path(f"/proc/{server_pid(tmp_path)}/cmdline").read_text()
        assert address.password not in command
    assert stat.S_IMODE((tmp_path / "postgres" / "password").stat().st_mode) == 0o600


def test_nothing_runs_after_its_stop(tmp_path: Path) -> None:
    with running(tmp_path):
        pid = server_pid(tmp_path)
    assert not Path(f"/proc/{pid}").exists()
    assert postmaster.find(Cluster(tmp_path).data) is None


def test_what_was_written_is_there_at_the_next_start(tmp_path: Path) -> None:
    with running(tmp_path) as address:
        keep(address, 7)
    with running(tmp_path) as address:
        assert kept(address) == 7


def test_while_it_runs_a_second_user_gets_the_same_server_and_leaves_it(tmp_path: Path) -> None:
    with running(tmp_path) as address:
        with running(tmp_path) as same:
            assert same == address
        assert setting(address, "port") == str(address.port)


def test_the_one_a_killed_owner_left_is_found_and_can_be_stopped(tmp_path: Path) -> None:
    killed_owner(tmp_path)
    left = server_pid(tmp_path)
    with running(tmp_path) as address:
        assert server_pid(tmp_path) == left
        keep(address, 1)
    assert not postmaster.Postmaster(Cluster(tmp_path).data, left, 0, ready=False).alive


def test_after_a_kill_of_everything_it_recovers_what_was_committed(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    keep(server.wait(), 3)
    os.kill(server_pid(tmp_path), signal.SIGKILL)
    assert eventually(lambda: not server.alive())
    with running(tmp_path) as address:
        assert kept(address) == 3


def test_one_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    address = server.wait()
    try:
        keep(address, 5)
        dead = server_pid(tmp_path)
        os.kill(dead, signal.SIGKILL)
        assert eventually(lambda: not server.alive())
        assert server.wait() == address
        assert server_pid(tmp_path) != dead
        assert kept(address) == 5
    finally:
        server.stop()


def test_a_hasty_end_takes_no_time_and_loses_nothing(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    keep(server.wait(), 9)
    server.hasten()
    assert eventually(lambda: not server.alive(), 2.0)
    with running(tmp_path) as address:
        assert kept(address) == 9


def test_a_stale_pid_file_whose_number_is_another_programs_does_not_hinder(tmp_path: Path) -> None:
    with running(tmp_path):
        stale = (tmp_path / "postgres/data/postmaster.pid").read_text().splitlines()
    stale[0] = str(os.getppid())
    (tmp_path / "postgres/data/postmaster.pid").write_text("\n".join(stale))
    with running(tmp_path) as address:
        assert setting(address, "port") == str(address.port)


def test_data_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    version = tmp_path / "postgres/data/PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(StartError, match=r"holds data of PostgreSQL 17; this is PostgreSQL 18.*DATA_DIR"):
        EmbeddedPostgres(tmp_path).start()
    assert version.read_text() == "17\n"


def test_what_an_interrupted_making_left_is_cleared_and_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new-half" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with running(tmp_path) as address:
        assert setting(address, "server_encoding") == "UTF8"
    assert not half.exists()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadcast.embedded.postgres.START_PATIENCE_S", 0.0)
    with running(tmp_path):
        pass
    with (tmp_path / "postgres/data/postgresql.conf").open("a") as file:
        file.write("no_such_setting = on\n")
    server = EmbeddedPostgres(tmp_path)
    server.start()
    with pytest.raises(StartError, match=r"FATAL.*configuration file.*Its log is .*postgres/log"):
        server.wait()


def test_its_log_is_bounded(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    server.wait()
    try:
        log = tmp_path / "postgres" / "log"
        with log.open("a") as file:
            file.write("x" * (LARGEST_LOG_BYTES + 1))
        assert server.tend()
        assert log.stat().st_size < LARGEST_LOG_BYTES
        assert (tmp_path / "postgres" / "log.1").stat().st_size > LARGEST_LOG_BYTES
    finally:
        server.stop()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    lock = own(tmp_path)
    with pytest.raises(InUse, match=rf"Already running \(pid {os.getpid()}\)"):
        own(tmp_path)
    os.close(lock)
    os.close(own(tmp_path))


def test_a_next_owner_waits_for_the_children_of_one_that_was_killed(tmp_path: Path) -> None:
    holder = f"import os, subprocess, sys; from pathlib import Path; from roadcast.embedded.data_dir import own\n\
lock = own(Path({str(tmp_path)!r})); subprocess.Popen(['sleep', '0.7'], pass_fds=[lock]); os.kill(os.getpid(), 9)"
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", holder], check=False).returncode == -signal.SIGKILL
    os.close(own(tmp_path))
    assert time.monotonic() - began > 0.7


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"DATA_DIR=.*file/var cannot be written: Not a directory\. Set DATA_DIR"):
        own(tmp_path / "file" / "var")


def test_a_data_dir_that_is_a_link_to_nowhere_or_a_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StartError, match=r"DATA_DIR=.*link is a link to .*gone, which is not there\. Set DATA_DIR"):
        own(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"DATA_DIR=.*file is not a folder\. Set DATA_DIR"):
        own(tmp_path / "file")


def test_what_is_no_cluster_is_told_as_such_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "postgres"
    place.touch()
    with pytest.raises(StartError, match=r"postgres is not a folder\. Move it away"):
        EmbeddedPostgres(tmp_path).start()
    place.unlink()
    place.symlink_to(tmp_path / "gone")
    with pytest.raises(StartError, match=r"postgres is not a folder\. Move it away"):
        EmbeddedPostgres(tmp_path).start()
    place.unlink()
    place.mkdir()
    with pytest.raises(StartError, match=r"postgres holds no database\. Restore it from a backup; or remove it"):
        EmbeddedPostgres(tmp_path).start()
    assert list(place.iterdir()) == []


@pytest.fixture
def without_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that forbids user namespaces, as most containers do."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    unshare = tmp_path / "bin" / "unshare"
    unshare.parent.mkdir()
    unshare.write_text("#!/bin/sh\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", f"{unshare.parent}:{os.environ['PATH']}")


def others_may_enter(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


@pytest.mark.usefixtures("without_namespaces")
def test_without_user_namespaces_root_becomes_nobody(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    if not others_may_enter(Cluster(tmp_path).programs):
        pytest.skip("the programs lie in a folder that nobody may not enter")
    data_dir = tmp_path / "data"
    with running(data_dir) as address:
        assert Path(f"/proc/{server_pid(data_dir)}").stat().st_uid == NOBODY
        keep(address, 2)
    assert (data_dir / "postgres").stat().st_uid == NOBODY


@pytest.mark.usefixtures("without_namespaces")
def test_where_nobody_may_not_enter_either_root_is_refused_in_a_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(StartError, match=r"refuses to run as root, and the user nobody may not enter.*Run as another"):
        EmbeddedPostgres(tmp_path).start()
