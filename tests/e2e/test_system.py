"""The whole system when parts of it are killed, frozen, slow or gone: what was acknowledged stays, and it says so."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from e2e.system import PATIENCE_S, System, eventually

Reading = dict[str, Any]


def batch(number: int, size: int = 100) -> list[Reading]:
    """Readings of 100 sensors at one time of the last 20 hours; another number is another time or other sensors."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    at = (now - timedelta(minutes=5 * (number % 240))).isoformat()
    return [
        {"sensor_id": f"B{number // 240:02}-{j:03}", "timestamp": at, "speed": 40 + j % 20, "volume": 10}
        for j in range(size)
    ]


def total(system: System) -> int:
    return system.get("/api/traffic/statistics", hours=168)["total_readings"]


def pour(system: System, number: int, kill: Callable[[], object]) -> int:
    """Send batch `number` and those after it until a kill in their middle; the first that was not acknowledged."""
    timer = threading.Timer(random.uniform(0.5, 1.5), kill)
    timer.start()
    try:
        while (answer := system.client.post("/api/traffic/readings", json=batch(number))).is_success:
            assert answer.json()["accepted"] == 100
            number += 1
        assert answer.status_code == 503, answer.text  # while its parts are being killed
    except httpx.HTTPError:
        pass  # the connection broke
    timer.join()
    return number


def recount(system: System, sent: int) -> int:
    """After a kill while batch `sent` was under way: all before it are there once, and it can be sent again."""
    assert sent > 0
    assert 100 * sent <= total(system) <= 100 * (sent + 1)
    assert system.post(batch(sent - 1))["duplicate"] == 100
    again = system.post(batch(sent))
    assert again["accepted"] + again["duplicate"] == 100
    assert total(system) == 100 * (sent + 1)
    return sent + 1


def test_whatever_is_killed_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    with System(tmp_path, FEED="none") as system:
        worker = system.worker()
        sent = pour(system, 0, lambda: os.kill(worker, signal.SIGKILL))
        assert eventually(system.answers)
        assert system.worker() != worker
        sent = recount(system, sent)
        sent = pour(system, sent, system.process.kill)  # and not waited for: a zombie owns nothing
        with System(tmp_path, FEED="none") as following:
            sent = recount(following, sent)
            sent = pour(following, sent, following.kill)
    with System(tmp_path, FEED="none") as system:
        sent = recount(system, sent)
        of_one = system.get("/api/traffic/statistics", hours=168, sensor_id="B00-000")["total_readings"]
        assert of_one == min(sent, 240)


def test_sigterm_leaves_nothing(empty: System) -> None:
    empty.post(batch(0))
    assert eventually(lambda: forecasters(empty))
    empty.process.terminate()
    assert empty.process.wait(15) == 0
    assert empty.processes() == []


def forecasters(system: System) -> list[int]:
    return system.processes("spawn_main")


def send_tick(system: System, minutes_ago: int) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    at = now - timedelta(minutes=now.minute % 5 + minutes_ago)
    readings = [{"sensor_id": f"S{j}", "timestamp": at.isoformat(), "speed": 55.0 + j} for j in range(5)]
    parameters = {"source": "file", "replayed": "true", "through": at.isoformat()}
    assert system.client.post("/api/traffic/readings", json=readings, params=parameters).is_success


def newest_issue(system: System) -> str:
    return max((forecast["issued_at"] for forecast in system.get("/api/predictions/latest")), default="")


def test_a_forecaster_that_dies_is_counted_and_replaced(empty: System) -> None:
    send_tick(empty, 40)
    assert eventually(lambda: newest_issue(empty) and empty.part("forecaster")["status"] == "ok")
    [first] = forecasters(empty)
    before = newest_issue(empty)
    os.kill(first, signal.SIGKILL)
    send_tick(empty, 35)
    assert eventually(lambda: newest_issue(empty) > before)
    assert empty.part("forecaster")["status"] == "degraded"
    assert "deaths so far: 1" in empty.part("forecaster")["detail"]
    [named] = [part for part in empty.get("/health")["parts"] if part["name"] == "forecaster"]
    assert named["remedy"]
    time.sleep(1.1)
    send_tick(empty, 30)
    assert eventually(lambda: empty.part("forecaster")["status"] == "ok")
    [second] = forecasters(empty)
    assert second != first


# Sockets


def connections(system: System) -> int:
    return system.get("/api/system/status")["connections"]


async def subscribed(url: str, **options: Any) -> websockets.ClientConnection:
    connection = await websockets.connect(url, max_size=None, **options)
    await connection.send('{"type": "subscribe", "subscription": "traffic_data"}')
    return connection


async def next_update(connection: websockets.ClientConnection, sensor_id: str) -> float:
    """Seconds until the frame with a sensor's reading has come."""
    began = time.monotonic()
    async with asyncio.timeout(10):
        while True:
            message = json.loads(await connection.recv())
            if message["type"] == "traffic_update" and any(r["sensor_id"] == sensor_id for r in message["data"]):
                return time.monotonic() - began


def test_a_client_that_never_reads_delays_no_other_and_is_let_go(empty: System) -> None:
    async def measure() -> list[float]:
        lazy = await subscribed(empty.socket_url, max_queue=1)
        quick = await subscribed(empty.socket_url)
        for number in (0, 1, 2):  # the first forecast learns, and ingest waits for it when 20,000 records do
            await asyncio.to_thread(empty.post, batch(240 * number))
        assert await asyncio.to_thread(eventually, lambda: empty.get("/api/predictions/latest"), PATIENCE_S)
        waits: list[float] = []
        for number in range(3, 19):  # some ten megabytes, more than the connection's buffers hold
            readings = batch(240 * number, size=3_000)
            waiting = asyncio.create_task(next_update(quick, readings[-1]["sensor_id"]))
            await asyncio.to_thread(empty.post, readings)
            waits.append(await waiting)
        assert await asyncio.to_thread(eventually, lambda: connections(empty) == 1, 20)
        lazy.transport.abort()
        await quick.close()
        return waits

    waits = asyncio.run(measure())
    assert max(waits) < 2


def test_connections_that_are_reset_freeze_nothing(empty: System) -> None:
    async def reset() -> float:
        stays = await subscribed(empty.socket_url)
        for _ in range(20):
            (await subscribed(empty.socket_url)).transport.abort()
        waiting = asyncio.create_task(next_update(stays, "B00-000"))
        await asyncio.to_thread(empty.post, batch(0))
        waited = await waiting
        assert await asyncio.to_thread(eventually, lambda: connections(empty) == 1)
        await stays.close()
        return waited

    assert asyncio.run(reset()) < 2
    assert empty.answers()


def test_the_demo_s_clock_never_goes_back(tmp_path: Path) -> None:
    """Not even while its history is being made: a client that keeps the newest would wait for a day."""
    with System(tmp_path, DEMO_TICK_S="1") as system:
        told: list[datetime] = []
        while len(set(told)) < 3:
            told.append(datetime.fromisoformat(system.client.get("/health").json()["as_of"]))
            time.sleep(0.1)
    assert told == sorted(told)
    assert datetime.now(UTC) - told[-1] > timedelta(hours=12)


# The database


def remedies(system: System) -> dict[str, str]:
    """What health says to do about the parts that are not well."""
    return {part["name"]: part["remedy"] for part in system.client.get("/health").json()["parts"]}


def test_a_frozen_database_is_said_and_recovered_from(empty: System) -> None:
    empty.post(batch(0))
    database = empty.processes("bin/postgres") + empty.processes("postgres: ")
    try:
        for pid in database:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        health = empty.client.get("/health")
        assert time.monotonic() - began < 5
        assert (health.status_code, health.json()["status"]) == (503, "down")
        assert health.json()["database"]["status"] == "down"
        assert eventually(lambda: "See that the disk has space" in remedies(empty).get("database", ""), PATIENCE_S)
        refused = empty.client.post("/api/traffic/readings", json=batch(1))
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) > 0
        assert len(empty.get("/api/traffic/current")) == 100
    finally:
        for pid in database:
            os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: empty.client.get("/health").status_code == 200, PATIENCE_S)
    assert empty.post(batch(1))["accepted"] == 100
    assert total(empty) == 200


def test_a_database_that_dies_comes_back_to_a_system_that_waited(empty: System) -> None:
    empty.post(batch(0))
    worker, [postmaster] = empty.worker(), empty.processes("bin/postgres")
    os.kill(postmaster, signal.SIGKILL)
    assert eventually(lambda: empty.client.get("/health").status_code == 503, 5)
    assert eventually(lambda: empty.client.get("/health").status_code == 200, PATIENCE_S)
    assert empty.post(batch(1))["accepted"] == 100
    assert total(empty) == 200
    assert empty.worker() == worker


# Settings


def test_a_log_file_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log_file = tmp_path / "file" / "app.log"
    with System(tmp_path, FEED="none", LOG_FILE=str(log_file)) as system:
        system.post(batch(0))
        lines = [line for line in system.said.read_text().splitlines() if str(log_file) in line]
        assert len(lines) == 1
        assert "warning" in lines[0]
        assert "standard output" in lines[0]
        assert eventually(lambda: "/api/traffic/readings" in system.said.read_text())


def test_metric_units_go_both_ways(tmp_path: Path) -> None:
    at = batch(0)[0]["timestamp"]
    sent = {"speed": 100.0, "density": 20.0, "volume": 30, "occupancy": 0.1}
    with System(tmp_path, FEED="none", UNITS="metric") as metric:
        metric.post({"sensor_id": "M1", "timestamp": at, **sent})
        [reading] = metric.get("/api/traffic/current")
        assert {name: reading[name] for name in sent} == sent
        statistics = metric.get("/api/traffic/statistics", hours=168)
        assert (statistics["avg_speed"], statistics["min_speed"], statistics["unit"]) == (100.0, 100.0, "km/h")
        refused = metric.client.post("/api/traffic/readings", json={"sensor_id": "M1", "timestamp": at, "speed": 330})
        [error] = refused.json()["errors"]
        assert (refused.status_code, error["field"], error["value"]) == (422, "speed", 330)
    with System(tmp_path, FEED="none") as us:
        [reading] = us.get("/api/traffic/current")
        assert reading["speed"] == pytest.approx(100 / 1.609344, abs=1e-3)
        assert reading["density"] == pytest.approx(20 * 1.609344, abs=1e-3)
