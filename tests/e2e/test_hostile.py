"""Clients that mean harm, are broken, or come all at once: each is answered, and nobody else notices."""

import asyncio
import contextlib
import json
import random
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import websockets
from e2e.system import System, eventually

READINGS = "/api/traffic/readings"
STAMP = "2024-01-15T10:30:00Z"
ONE = json.dumps({"sensor_id": "A", "timestamp": STAMP, "speed": 50})
Message = dict[str, Any]


@contextlib.contextmanager
def few_open_files() -> Iterator[None]:
    """What is started now may open 256 files, until it asks for more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all that follows; at the end it still answers, and nothing of it has failed."""
    with few_open_files():
        begun = System(tmp_path_factory.mktemp("attacked"), FEED="none")
    with begun as system:
        yield system
        assert system.get("/api/system/status")["status"] in {"ok", "starting"}  # starting: no reading yet
        assert not re.findall(r".*\[(?:error|critical) .*", system.said.read_text())


def reading(sensor_id: str, at: datetime, speed: float | None = 50.0, **more: object) -> Message:
    return {"sensor_id": sensor_id, "timestamp": at.isoformat(), "speed": speed, **more}


def now() -> datetime:
    return datetime.now(UTC)


def at_once(job: Callable[[int], Any], times: int) -> list[Any]:
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(job, range(times)))


def every_page(system: System, path: str) -> list[tuple[str, str]]:
    """Sensor and time of all items, page by page."""
    found, url = [], path
    while url:
        answer = system.client.get(url)
        found += [(item["sensor_id"], item["timestamp"]) for item in answer.json()]
        url = answer.links.get("next", {}).get("url")
    return found


# Bodies and requests


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[" * 100_000, 422),
        (b'{"a":' * 100_000, 422),
        (ONE.replace("50", "NaN").encode(), 422),
        (ONE.replace("50", "-Infinity").encode(), 422),
        (b'{"sensor_id": "\xff"}', 422),
        (ONE.replace("50", "1e400").encode(), 422),
        (ONE.replace("50", "9" * 400).encode(), 422),
        (ONE.replace("A", "\\ud800").encode(), 422),
        (b"17", 422),
        (b"[" + b"[]," * 1_000 + b"[]]", 200),
        (b"\xef\xbb\xbf" + ONE.encode(), 200),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_body_of_any_kind_is_answered(attacked: System, body: bytes, status: int) -> None:
    answer = attacked.client.post(READINGS, content=body)
    assert answer.status_code == status, answer.text
    assert len(answer.content) < 200_000
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("code", ["x" * 64, "😀", "a/b", "a%2Fb", "x?y=1#z", "..%2f", "'; DROP TABLE readings;--", "٣"])
def test_a_sensor_of_any_name_is_found_by_it(attacked: System, code: str) -> None:
    assert attacked.post(reading(code, now()))["accepted"] == 1
    path = code.encode().hex()
    quoted = "".join(f"%{path[i : i + 2]}" for i in range(0, len(path), 2))
    for found in (attacked.get(f"/api/traffic/sensors/{quoted}"), attacked.get(f"/api/sensors/{quoted}")):
        assert found["sensor_id"] == code
    assert [item["sensor_id"] for item in attacked.get("/api/traffic/current", sensor_id=code)] == [code]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /nope HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /api/traffic/current/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"POST /api/traffic/readings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n",
        b"POST /api/traffic/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n[",
        b"POST /api/traffic/readings HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ws/real-time HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda sent: repr(sent[:40]),
)
def test_broken_http_is_the_clients_fault(attacked: System, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", attacked.port), 10) as raw:
        raw.sendall(sent)
        first = raw.recv(1_000)
    assert re.match(rb"HTTP/1.1 [34]\d\d ", first), first


def test_a_client_that_leaves_in_the_middle_is_no_failure(attacked: System) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", attacked.port), 10) as raw:
            raw.sendall(b"POST /api/traffic/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n[")
    assert eventually(lambda: attacked.said.read_text().count("client_left") >= 20)


# Readings


def test_the_same_reading_at_once_is_accepted_once(attacked: System) -> None:
    same = reading("SAME", now())
    accounts = at_once(lambda _: attacked.post(same), 300)
    assert sum(account["accepted"] for account in accounts) == 1
    assert sum(account["duplicate"] for account in accounts) == 299


def test_corrections_at_once_leave_one_value_everywhere(attacked: System) -> None:
    at = now()
    accounts = at_once(lambda i: attacked.post([reading("CORRECTED", at, float(i % 60))] * 3), 100)
    assert {(a["received"], a["accepted"] + a["duplicate"] + a["rejected"]) for a in accounts} == {(3, 3)}
    [current] = attacked.get("/api/traffic/current", sensor_id="CORRECTED")
    [past] = attacked.get("/api/traffic/historical", hours=1, sensor_id="CORRECTED")
    found = attacked.get("/api/traffic/statistics", hours=1, sensor_id="CORRECTED")
    assert current["speed"] == past["speed"] == found["avg_speed"] == found["min_speed"] == found["max_speed"]
    assert found["total_readings"] == 1


def test_what_arrives_is_accounted_for_and_found_again_whatever_it_is(attacked: System) -> None:
    """Good, bad, late and repeated readings every 30 s, from many clients at once."""
    start = now().replace(microsecond=0)

    def batch(number: int) -> list[Message]:
        dice = random.Random(number % 40)  # some clients send the same
        times = [start - timedelta(seconds=30 * dice.randrange(200)) for _ in range(50)]
        items = [reading(f"MIX{dice.randrange(5)}", at, dice.choice([0, 12.5, 80])) for at in times]
        return [*items, reading("MIX0", start, -1), reading("MIX0", start + timedelta(hours=1)), {"sensor_id": "MIX0"}]

    accounts = at_once(lambda i: attacked.post(batch(i)), 60)
    assert {(account["received"], account["rejected"]) for account in accounts} == {(53, 3)}
    assert all(account["accepted"] + account["duplicate"] == 50 for account in accounts)
    keys = {(item["sensor_id"], datetime.fromisoformat(item["timestamp"])) for i in range(40) for item in batch(i)[:50]}
    found = [page for page in every_page(attacked, "/api/traffic/historical?hours=3&limit=77") if page[0][:3] == "MIX"]
    assert sorted((code, datetime.fromisoformat(at)) for code, at in found) == sorted(keys)
    for code in {code for code, _ in keys}:
        counted = attacked.get("/api/traffic/statistics", hours=3, sensor_id=code)["total_readings"]
        assert counted == sum(code == known for known, _ in keys)


@pytest.mark.parametrize("ahead_s", [0, 290])
def test_the_newest_reading_is_in_every_answer_at_once(attacked: System, ahead_s: int) -> None:
    before = attacked.get("/api/traffic/statistics", hours=3)["total_readings"]
    hour = attacked.get("/api/analytics/congestion", hours=3)["data_points"]
    assert attacked.post(reading(f"NEWEST{ahead_s}", now() + timedelta(seconds=ahead_s), 0.0, volume=0))["accepted"]
    assert attacked.get("/api/traffic/statistics", hours=3)["total_readings"] == before + 1
    later = attacked.get("/api/analytics/congestion", hours=3)["data_points"]
    assert sum(p["reading_count"] for p in later) == sum(p["reading_count"] for p in hour) + 1
    [past] = attacked.get("/api/traffic/historical", hours=1, sensor_id=f"NEWEST{ahead_s}")
    [current] = attacked.get("/api/traffic/current", sensor_id=f"NEWEST{ahead_s}")
    assert past["speed"] == current["speed"] == 0


def test_what_comes_decades_late_or_out_of_order_replaces_nothing_newer(attacked: System) -> None:
    at = now()
    attacked.post(reading("LATE", at, 1))
    old = [reading("LATE", at - timedelta(minutes=5), 2), {"sensor_id": "LATE", "timestamp": "1990-01-01T00:00:00Z"}]
    account = attacked.post([old[0], old[1] | {"speed": 3}])
    assert (account["accepted"], account["late"]) == (2, 1)
    [current] = attacked.get("/api/traffic/current", sensor_id="LATE")
    assert current["speed"] == 1


# Sockets


async def hear(connection: websockets.ClientConnection, kind: str) -> Message:
    """The next message of a kind."""
    async with asyncio.timeout(20):
        while (message := json.loads(await connection.recv()))["type"] != kind:
            pass
    return message


async def subscribe(connection: websockets.ClientConnection, **more: object) -> Message:
    await connection.send(json.dumps({"type": "subscribe", "subscription": "traffic_data"} | more))
    return await hear(connection, "subscription_confirmed")


def connect(system: System) -> Any:
    return websockets.connect(system.socket_url, max_size=None, open_timeout=30)


def test_frames_of_any_kind_are_answered_or_end_their_own_connection(attacked: System) -> None:
    async def go() -> None:
        async with connect(attacked) as connection:
            for _ in range(2_000):
                await connection.ping()
            for frame in (
                b"\xff",
                "",
                "[" * 30_000,
                '"x"',
                b'{"type": 5}',
                '{"type": "subscribe", "subscription": []}',
            ):
                await connection.send(frame)
                assert (await hear(connection, "error"))["errors"]
            await connection.send([b'{"type":', b" " * 40_000, b'"get_status"}'])
            assert (await hear(connection, "system_status"))["data"]["connections"] >= 1
        for frame in ("x" * 1_000_000, [b" " * 10_000] * 60):
            async with connect(attacked) as connection:
                with contextlib.suppress(websockets.ConnectionClosed):
                    await connection.send(frame)
                    await hear(connection, "never")
                assert connection.close_code in {1009, 1006}  # 1006: still sending, it was reset before it read why

    asyncio.run(go())


def test_whoever_was_alone_comes_back_without_a_gap(attacked: System) -> None:
    """Also when nobody listened in the meantime; the frames are those that another client saw."""
    at = now()

    async def go() -> None:
        async with connect(attacked) as first:
            await subscribe(first)
            position = await hear(first, "traffic_update")
        for i in range(5):
            await asyncio.to_thread(attacked.post, reading("ALONE", at + timedelta(seconds=i), float(i)))
        async with connect(attacked) as again, connect(attacked) as other:
            resume = {"epoch": position["epoch"], "seq": position["seq"]}
            assert (await subscribe(again, resume=resume, sensors=["ALONE"]))["resumed"]
            assert (await subscribe(other, resume=resume))["resumed"]
            for i in range(5):
                mine, theirs = await hear(again, "traffic_update"), await hear(other, "traffic_update")
                assert mine["seq"] == theirs["seq"] == position["seq"] + 1 + i
                assert mine["data"] == theirs["data"]
                assert [item["speed"] for item in mine["data"]] == [i]

    asyncio.run(go())


def test_hundreds_who_come_at_once_are_all_served_and_nobody_waits(attacked: System) -> None:
    async def one() -> Message:
        async with connect(attacked) as connection:
            await subscribe(connection)
            return await hear(connection, "traffic_update")

    async def go() -> list[Message]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(300)]
        return [task.result() for task in tasks]

    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(asyncio.run, go())
        slowest = 0.0
        while not crowd.done():
            began = time.monotonic()
            attacked.get("/api/system/status")
            slowest = max(slowest, time.monotonic() - began)
    snapshots = crowd.result()
    assert len(snapshots) == 300
    assert len({frame["timestamp"] for frame in snapshots}) < 300
    assert slowest < 2
    assert eventually(lambda: attacked.get("/api/system/status")["connections"] == 0)


def test_half_open_handshakes_hold_up_nobody(attacked: System) -> None:
    with contextlib.ExitStack() as half:
        for _ in range(200):
            raw = half.enter_context(socket.create_connection(("127.0.0.1", attacked.port), 10))
            raw.sendall(b"GET /ws/real-time HTTP/1.1\r\nHost: x\r\nUpgr")
        assert attacked.get("/api/system/status")["connections"] == 0


def test_incidents_are_told_and_a_stopping_server_says_so(tmp_path: Path) -> None:
    async def go(system: System) -> list[str]:
        async with connect(system) as connection:
            await connection.send('{"type": "subscribe", "subscription": "alerts"}')
            await hear(connection, "subscription_confirmed")
            made = await asyncio.to_thread(system.client.post, "/api/incidents", json={"type": "debris"})
            first = await hear(connection, "alert")
            await asyncio.to_thread(system.client.post, f"{made.headers['location']}/close")
            second = await hear(connection, "alert")
            assert first["data"]["incident_id"] == second["data"]["incident_id"] == made.json()["incident_id"]
            system.process.send_signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosed):
                await hear(connection, "never")
            assert connection.close_code == 1012
            return [first["data"]["kind"], second["data"]["kind"]]

    with System(tmp_path, FEED="none") as system:
        assert asyncio.run(go(system)) == ["incident", "incident_closed"]
