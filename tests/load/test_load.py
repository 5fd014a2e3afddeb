"""Many users at once on the demo: nothing fails, and how long each kind of request took."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.system import PATIENCE_S, System, eventually

HERE = Path(__file__).parent
PERCENTILES = (0.5, 0.95, 0.99)

Entry = dict[str, Any]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with System(tmp_path, DEMO_TICK_S="5") as system:
        assert eventually(lambda: system.get("/api/predictions/latest"), PATIENCE_S)
        yield system


def load(system: System, users: int, duration: str) -> list[Entry]:
    """What locust measured, by route. It runs in a process of its own, whose modules it patches."""
    results = system.folder / "results"
    options = ["--host", str(system.client.base_url), "--users", str(users), "--spawn-rate", str(max(users / 2, 1))]
    options += ["--run-time", duration, "--stop-timeout", "10", "--exit-code-on-error", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "locust", "--locustfile", HERE / "users.py", "--headless", "--only-summary", *options,
         "--json-file", results],
        cwd=system.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(results.with_suffix(".json").read_text())


def percentile_ms(entry: Entry, share: float) -> int:
    """The least time within which this share of the requests was answered; locust counts them by rounded time."""
    times = sorted((round(float(time_ms)), count) for time_ms, count in entry["response_times"].items())
    wanted, passed = share * sum(count for _, count in times), 0
    for time_ms, count in times:
        passed += count
        if passed >= wanted:
            return time_ms
    return 0


def table(entries: list[Entry], users: int, duration: str) -> str:
    heading = f"{'':5}{'route':32}{'requests':>9}{'failed':>8}" + "".join(f"{f'p{p:.0%}'[:-1]:>8}" for p in PERCENTILES)
    lines = [f"Load of {users} users for {duration}, times in ms", heading]
    for entry in sorted(entries, key=lambda entry: entry["name"]):
        times = "".join(f"{percentile_ms(entry, share):8}" for share in PERCENTILES)
        counts = f"{entry['num_requests']:9}{entry['num_failures']:8}"
        lines.append(f"{entry['method']:5}{entry['name']:32}{counts}{times}")
    return "\n".join(lines)


def test_nobody_is_turned_away(system: System, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]) -> None:
    users, duration = pytestconfig.getoption("users"), pytestconfig.getoption("duration")
    entries = load(system, users, duration)
    with capsys.disabled():
        sys.stdout.write(f"\n{table(entries, users, duration)}\n")
    assert {entry["name"] for entry in entries} >= {"/api/traffic/current", "/api/traffic/readings", "/ws/real-time"}
    assert sum(entry["num_requests"] for entry in entries) > users
    assert [entry for entry in entries if entry["num_failures"]] == []
    assert system.get("/health")["status"] == "ok"
