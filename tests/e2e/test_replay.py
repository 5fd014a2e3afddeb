"""A real week of Los Angeles: imported into an empty store, and its first day replayed into running systems."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import httpx
import numpy as np
import pytest
from e2e.system import System, eventually, free_port, roadcast

from roadcast.domain.ids import pack

SENSORS, DAY, WEEK = 207, 288, 2016
ZONE = "America/Los_Angeles"


@pytest.fixture
def week(data: Path) -> Path:
    return data / "los_loop.npz"


@pytest.fixture
def day(week: Path, tmp_path: Path) -> Path:
    """The week's first day, as a file of the same format."""
    arrays = dict(np.load(week))
    arrays["speed"] = arrays["speed"][:DAY]
    path = tmp_path / "day.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A CSV with a speed that is none and a time that is none."""
    path = tmp_path / "rows.csv"
    good = [f"S{i % 3},2024-01-15T10:{i // 3:02}:00Z,{50 + i}\n" for i in range(30)]
    good[4] = "S1,2024-01-15T10:01:00Z,-3\n"
    good[7] = "S1,2024-13-15T10:02:00Z,50\n"
    path.write_text("sensor_id,timestamp,speed\n" + "".join(good))
    return path


@pytest.fixture
def replayed(tmp_path: Path) -> Iterator[System]:
    with System(tmp_path, FEED="none", TIMEZONE=ZONE) as system:
        yield system


def account(said: str) -> list[int]:
    """Sent, accepted, duplicate, rejected, as the command tells them in one line."""
    found = re.search(r"(\d+) sent = (\d+) accepted \+ (\d+) duplicate \+ (\d+) rejected", said)
    assert found, said
    return [int(number) for number in found.groups()]


def bad_rows(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("row ")]


def measured(path: Path) -> int:
    """Readings in a file of this source, which writes 0 for missing."""
    return int(np.count_nonzero(np.load(path)["speed"]))


def test_an_imported_week_is_there_when_the_server_starts(week: Path, tmp_path: Path) -> None:
    settings = {
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "PATH": "/usr/bin:/bin",
        "DATA_DIR": str(tmp_path / "var"),
        "TIMEZONE": ZONE,
        "API_PORT": str(free_port()),
    }
    done = roadcast(settings, tmp_path, "import", week)
    assert done.returncode == 0, done.stderr
    known = measured(week)
    assert done.stdout.splitlines()[-1] == (
        f"los_loop.npz: {known} read, {known} accepted, 0 duplicate, 0 rejected; "
        f"{SENSORS * WEEK - known} missing; {SENSORS} sensors"
    )
    with System(tmp_path, TIMEZONE=ZONE) as system:
        assert system.get("/api/traffic/statistics", hours=168)["total_readings"] == known
        assert len(system.get("/api/sensors", limit=1000)) == SENSORS
        newest = system.get("/api/traffic/current", limit=1000)
        assert {reading["timestamp"] for reading in newest} == {"2012-03-08T07:55:00Z"}
        feed = system.get("/health")["feed"]
        assert (feed["mode"], feed["simulated"]) == ("replayed", False)


def test_a_replayed_day_is_accounted_for_and_repeats_its_forecasts(day: Path, tmp_path: Path) -> None:
    said: list[bytes] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with System(tmp_path / name, FEED="none", TIMEZONE=ZONE) as system:
            done = system.command("replay", day, "--speed", "0")
            assert done.returncode == 0, done.stderr
            sent, accepted, duplicate, rejected = account(done.stdout)
            assert [sent, accepted + duplicate + rejected] == [measured(day)] * 2
            assert accepted == measured(day) == system.get("/api/traffic/statistics", hours=24)["total_readings"]
            latest = system.client.get("/api/predictions/latest", params={"limit": 1000})
            assert {forecast["issued_at"] for forecast in latest.json()} == {"2012-03-02T07:55:00Z"}
            said.append(latest.content)
    assert said[0] == said[1]


def test_no_answer_during_a_replay_says_that_every_sensor_is_stale(day: Path, replayed: System) -> None:
    """A request brings an hour at a time: the clock and the readings are seen to move together."""
    found: list[tuple[int, bool]] = []
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(replayed.command, "replay", day, "--speed", "0")
        while not done.done():
            data = replayed.get("/health")["data"]
            current = replayed.get("/api/traffic/current", limit=1000)
            if current and data["sensors"]:
                found.append((data["reporting"], all(reading["stale"] for reading in current)))
        assert done.result().returncode == 0
    assert len(found) > 20
    assert [seen for seen in found if not seen[0] or seen[1]] == []


def test_a_replay_is_known_the_second_time(rows: Path, replayed: System) -> None:
    url = f"http://127.0.0.1:{replayed.port}"
    first, second = (replayed.command("replay", rows, "--speed", "0", "--url", url) for _ in range(2))
    assert account(first.stdout) == [28, 28, 0, 0]
    assert account(second.stdout) == [28, 0, 28, 0]
    for done in (first, second):
        assert "; 2 of the file were not sent" in done.stdout
        assert "no forecast" not in done.stdout
        assert len(bad_rows(done.stderr)) == 2


def test_bad_rows_are_reported_one_line_each_and_counted(rows: Path, replayed: System) -> None:
    done = replayed.command("import", rows)
    assert done.returncode == 0
    assert "30 read, 28 accepted, 0 duplicate, 2 rejected; 0 missing; 3 sensors" in done.stdout
    first, second = bad_rows(done.stderr)
    assert first.startswith("row 5: speed=")
    assert second.startswith("row 8: timestamp='2024-13-15T10:02:00Z': ")


def test_an_import_tells_of_its_own_sensors(rows: Path, replayed: System) -> None:
    replayed.command("import", rows)
    other = rows.with_name("other.csv")
    other.write_text("sensor_id,timestamp,speed\nT1,2024-01-15T10:00Z,50\n\nS1,2024-01-15T11:00Z,50\n")
    assert (
        "2 read, 2 accepted, 0 duplicate, 0 rejected; 0 missing; 2 sensors" in replayed.command("import", other).stdout
    )


def test_strict_stops_at_the_first_bad_row(rows: Path, replayed: System) -> None:
    done = replayed.command("import", rows, "--strict")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("roadcast: ")]
    assert "row 5: speed=" in line
    assert replayed.get("/api/traffic/current") == []


def test_nothing_real_joins_the_demo(rows: Path, demo: System) -> None:
    url = f"http://127.0.0.1:{demo.port}"
    for arguments in (("import", rows), ("replay", rows, "--url", url)):
        done = demo.command(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("roadcast: ")
        assert done.stderr.count("\n") == 1
        assert "FEED=none" in done.stderr


def test_a_worker_killed_during_a_replay_costs_nothing_and_changes_no_forecast(day: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for name, kills in (("left alone", 0), ("killed", 3)):
        (tmp_path / name).mkdir()
        with System(tmp_path / name, FEED="none", TIMEZONE=ZONE) as system:
            killer = threading.Thread(target=end_the_worker, args=(system, kills))
            killer.start()
            done = system.command("replay", day, "--speed", "0")
            killer.join()
            assert done.returncode == 0, done.stderr
            sent, accepted, duplicate, rejected = account(done.stdout)
            assert (accepted + duplicate, rejected) == (sent, 0)
            assert eventually(lambda system=system: issues(system, day) == DAY, seconds=60)
            assert system.get("/api/traffic/statistics", hours=168)["total_readings"] == measured(day)
            said.append(every_forecast(system))
    assert said[0].count("\n") == SENSORS * DAY + 1
    assert said[0] == said[1]


def end_the_worker(system: System, times: int) -> None:
    for _ in range(times):
        assert eventually(lambda: httpx.get(f"{system.client.base_url}/api/predictions/latest").json(), seconds=30)
        time.sleep(1)
        assert eventually(lambda: len(system.processes("roadcast worker")) == 1)
        os.kill(system.worker(), signal.SIGKILL)


def every_forecast(system: System) -> str:
    """Of one horizon, whether its target has come or not; without what is known of that."""
    query = {"from": "2012-03-01T00:00:00Z", "to": "2012-03-03T00:00:00Z", "horizon_minutes": 15, "pending": "true"}
    answer = system.client.get("/api/predictions/export", params=query)
    assert answer.is_success, answer.text
    names = answer.text.split("\n", 1)[0].split(",")
    told = [i for i, name in enumerate(names) if name not in {"actual_speed", "reference_speed", "state", "near_onset"}]
    return "".join(",".join(line.split(",")[i] for i in told) + "\n" for line in answer.text.splitlines())


def issues(system: System, day: Path) -> int:
    """For how many ticks of the file there is a forecast for SENSOR's next window."""
    start = np.datetime64(str(np.load(day)["start"]), "ms").astype(np.int64) + 8 * 3_600_000  # Los Angeles in winter
    made = (pack(1, int(start) + tick * 300_000, 5) for tick in range(DAY))
    return sum(system.client.get(f"/api/predictions/{one}").status_code == HTTPStatus.OK for one in made)


def test_what_the_system_refuses_in_a_replay_is_said_and_strict_stops(tmp_path: Path) -> None:
    file = tmp_path / "unknown.csv"
    file.write_text("sensor_id,timestamp,speed\nS1,2024-01-15T10:00:00Z,50\nS1,2024-01-15T10:05:00Z,51\n")
    with System(tmp_path, FEED="none", UNKNOWN_SENSORS="reject") as system:
        done = system.command("replay", file, "--speed", "0")
        assert done.returncode == 0, done.stderr
        assert account(done.stdout) == [2, 0, 0, 2]
        assert "S1 2024-01-15T10:00:00Z: sensor_id='S1': expected a registered sensor" in done.stderr
        strict = system.command("replay", file, "--speed", "0", "--strict")
        assert strict.returncode == 1
        assert "S1 2024-01-15T10:00:00Z" in strict.stderr.splitlines()[-1]


def test_a_replay_goes_on_beside_a_reading_of_the_future(replayed: System, tmp_path: Path) -> None:
    file = tmp_path / "future.csv"
    file.write_text("sensor_id,timestamp,speed\nS1,2024-01-15T10:00:00Z,50\nS1,2150-01-15T10:00:00Z,51\n")
    done = replayed.command("replay", file, "--speed", "0")
    assert done.returncode == 0, done.stderr
    assert account(done.stdout) == [1, 1, 0, 0]
    assert bad_rows(done.stderr)[0].startswith("row 2: timestamp='2150-01-15T10:00:00Z': expected at most")
    assert replayed.get("/health")["as_of"].startswith("20")


def test_an_imported_day_can_be_replayed_and_is_forecast(day: Path, replayed: System) -> None:
    assert replayed.command("import", day).returncode == 0
    done = replayed.command("replay", day, "--speed", "0")
    sent, accepted, duplicate, _ = account(done.stdout)
    assert (accepted, duplicate) == (0, sent)
    assert eventually(lambda: issues(replayed, day) == DAY, seconds=60)


RECOMPUTE = Path(__file__).parents[2] / "examples" / "recompute_accuracy.py"


def test_whoever_has_the_rows_counts_what_the_scoreboard_says(day: Path, replayed: System) -> None:
    assert replayed.command("replay", day, "--speed", "0").returncode == 0
    assert eventually(lambda: scored(replayed) == measured(day) - SENSORS, seconds=120)
    for options in (["--horizon-minutes", "60"], ["--sensor-id", sensor(day)], ["--state", "unknown", "--hour", "8"]):
        base = str(replayed.client.base_url)
        done = subprocess.run(
            [sys.executable, RECOMPUTE, base, *options], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"\d numbers, 0 differ", done.stdout)


def scored(system: System) -> int:
    """How many targets of the next window are in the scores."""
    models = system.get("/api/predictions/accuracy", horizon_minutes=5)["models"]
    return next((model["count"] for model in models if model["model"] == "served"), 0)


def sensor(day: Path) -> str:
    """One of the file."""
    return str(np.load(day)["sensor_id"][0])


def test_an_import_with_another_time_zone_is_refused_in_one_line(day: Path, replayed: System) -> None:
    settings = {**replayed.environment, "TIMEZONE": "Europe/Berlin"}
    done = roadcast(settings, day.parent, "import", day)
    assert done.returncode == 1
    assert "Set TIMEZONE=America/Los_Angeles" in done.stderr.splitlines()[-1]
