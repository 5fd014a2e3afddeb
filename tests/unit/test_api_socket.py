import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from api_doubles import NOW, TICK, make_app, make_context, rows
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from roadcast.api import socket as socket_module
from roadcast.api.context import ApiContext, ApiLimits
from roadcast.api.deps import presenter
from roadcast.api.socket import CLIENT_MESSAGES, LARGEST_MESSAGE, MISSED_HEARTBEATS, MOST_SENSORS, CloseCode
from roadcast.domain.incident import Alert, Severity
from roadcast.live.documents import alert_document
from roadcast.live.hub import FRAME_TYPES, Channel

pytestmark = pytest.mark.anyio

DESCRIBED = yaml.safe_load((Path(__file__).parents[2] / "docs/asyncapi.yaml").read_text())
MESSAGES = DESCRIBED["components"]["messages"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return DESCRIBED["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


TYPES = {
    "string": str, "integer": int, "number": int | float, "boolean": bool, "object": dict, "array": list,
    "null": type(None),
}  # fmt: skip


def hold_to(value: Any, schema: dict[str, Any], place: str = "") -> None:
    """Check a value against the part of JSON Schema that the description uses; unknown keys are not described."""
    schema = resolved(schema)
    if "const" in schema:
        assert value == schema["const"], place
    if "enum" in schema:
        assert value in schema["enum"], place
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(isinstance(value, TYPES[kind]) for kind in kinds), (place, value)
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"]), (place, set(value))
        for key, part in value.items():
            hold_to(part, schema["properties"][key], f"{place}.{key}")
    if isinstance(value, list) and "items" in schema:
        for part in value:
            hold_to(part, schema["items"], f"{place}[]")


class Talk:
    """One connection; every message that it hears is held to the description."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, message: object) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            message = json.loads(await self.socket.recv())
        hold_to(message, MESSAGES[message["type"]]["payload"], message["type"])
        return message

    async def subscribe(self, channel: str, **more: object) -> dict[str, Any]:
        await self.say({"type": "subscribe", "subscription": channel, **more})
        confirmed = await self.hear()
        assert (confirmed["type"], confirmed["subscription"]) == ("subscription_confirmed", channel)
        return confirmed

    async def closed(self) -> int:
        """The close code, after what is still on its way."""
        try:
            while True:
                await self.hear()
        except ConnectionClosed as closing:
            return closing.rcvd.code if closing.rcvd else 1006


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - neither uvicorn nor the hub tells when
            await asyncio.sleep(0.01)


class Server:
    """The app on a port of this machine, on the test's own loop."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/ws/real-time")

    async def get(self, path: str) -> Any:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{self.port}{path}")).json()


@asynccontextmanager
async def serving(context: ApiContext) -> AsyncIterator[Server]:
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(context),
            port=0,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=LARGEST_MESSAGE,
            log_config=None,
            access_log=False,
        )
    )
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield Server(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def talking(context: ApiContext) -> AsyncIterator[tuple[Server, Talk]]:
    async with serving(context) as server, server.connect() as socket:
        talk = Talk(socket)
        assert (await talk.hear())["type"] == "welcome"
        yield server, talk


def limited(**limits: Any) -> ApiContext:
    return make_context(limits=replace(ApiLimits(), **limits))


def publish(context: ApiContext, sensor_no: int = 1) -> None:
    newer = rows((sensor_no, TICK + timedelta(minutes=5), 33, 1, 1, 0))
    context.hub.publish(Channel.TRAFFIC_DATA, NOW, presenter(context).readings(newer, context.state.sensors, NOW))


async def test_welcome_says_what_there_is_and_what_feeds_it():
    async with serving(make_context()) as server, server.connect() as socket:
        welcome = await Talk(socket).hear()
    assert welcome["available_subscriptions"] == ["traffic_data", "predictions", "alerts", "system_status", "analytics"]
    assert welcome["feed"]["simulated"]
    assert welcome["timestamp"] == "2024-01-15T10:32:00Z"


async def test_a_subscription_begins_with_a_snapshot_and_goes_on():
    context = make_context()
    async with talking(context) as (server, talk):
        assert not (await talk.subscribe("traffic_data"))["resumed"]
        snapshot = await talk.hear()
        assert snapshot["data"] == await server.get("/api/traffic/current")
        publish(context)
        update = await talk.hear()
    assert (update["type"], update["seq"], update["epoch"]) == ("traffic_update", snapshot["seq"] + 1, "e1")
    assert [reading["speed"] for reading in update["data"]] == [33.0]


async def test_predictions_and_status_begin_with_what_rest_says():
    async with talking(make_context()) as (server, talk):
        await talk.subscribe("predictions")
        assert (await talk.hear())["data"] == await server.get("/api/predictions/latest")
        await talk.subscribe("system_status")
        assert (await talk.hear())["data"] == await server.get("/api/system/status")


async def test_a_filter_leaves_only_its_sensors():
    context = make_context()
    async with talking(context) as (_, talk):
        assert (await talk.subscribe("traffic_data", sensors=["SENSOR_002"]))["sensors"] == ["SENSOR_002"]
        assert [reading["sensor_id"] for reading in (await talk.hear())["data"]] == ["SENSOR_002"]
        publish(context, sensor_no=1)
        publish(context, sensor_no=2)
        update = await talk.hear()
    assert (update["seq"], [reading["sensor_id"] for reading in update["data"]]) == (2, ["SENSOR_002"])


async def test_who_comes_back_hears_what_was_missed():
    context = make_context()
    async with talking(context) as (server, talk):
        await talk.subscribe("traffic_data")
        await talk.hear()
        publish(context)
        seen = await talk.hear()
        publish(context)
        async with server.connect() as socket:
            again = Talk(socket)
            await again.hear()
            assert (await again.subscribe("traffic_data", resume={"epoch": seen["epoch"], "seq": seen["seq"]}))[
                "resumed"
            ]
            assert (await again.hear())["seq"] == seen["seq"] + 1
            assert not (await again.subscribe("traffic_data", resume={"epoch": "other", "seq": 1}))["resumed"]


async def test_alerts_begin_with_the_newest():
    context = make_context()
    alert = Alert("018d0cab-c440-8000-8000-000000000001", NOW, "stale", Severity.HIGH, "Nothing comes.")
    async with talking(context) as (_, talk):
        await talk.subscribe("alerts")
        context.hub.publish(Channel.ALERTS, NOW, alert_document(alert))
        first = await talk.hear()
        await talk.subscribe("alerts")
        assert await talk.hear() == first
    assert first["data"]["message"] == "Nothing comes."


async def test_unsubscribed_hears_no_more():
    context = make_context()
    async with talking(context) as (_, talk):
        await talk.subscribe("traffic_data")
        await talk.hear()
        await talk.say({"type": "unsubscribe", "subscription": "traffic_data"})
        assert (await talk.hear())["was_subscribed"]
        publish(context)
        await talk.say({"type": "get_status"})
        assert (await talk.hear())["type"] == "system_status"


async def test_status_counts_this_connection():
    async with talking(make_context()) as (_, talk):
        await talk.say({"type": "get_status"})
        assert (await talk.hear())["data"]["connections"] == 1


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "subscribe", "subscription": "nothing"}, "subscription"),
        ({"type": "subscribe", "subscription": ["alerts"]}, "subscription"),
        ({"type": "subscribe"}, "subscription"),
        ({"type": "unsubscribe", "subscription": 5}, "subscription"),
        ({"type": "nothing"}, "type"),
        ({"type": None}, "type"),
        ({}, "type"),
        ("not json", "message"),
        ("", "message"),
        ("[]", "message"),
        ("[" * 5_000, "message"),
        ({"type": "subscribe", "subscription": "alerts", "sensors": "A"}, "sensors"),
        ({"type": "subscribe", "subscription": "alerts", "sensors": [1]}, "sensors"),
        ({"type": "subscribe", "subscription": "alerts", "sensors": ["A"] * (MOST_SENSORS + 1)}, "sensors"),
        ({"type": "subscribe", "subscription": "alerts", "resume": 5}, "resume"),
        ({"type": "subscribe", "subscription": "alerts", "resume": {"epoch": "e1", "seq": True}}, "resume"),
        ({"type": "subscribe", "subscription": "alerts", "resume": {"epoch": "e1", "seq": -1}}, "resume"),
    ],
)
async def test_a_wrong_message_is_told_what_is_wrong(message: object, field: str):
    async with talking(make_context()) as (_, talk):
        await talk.say(message)
        error = await talk.hear()
        assert error["type"] == "error"
        assert [item["field"] for item in error["errors"]] == [field]
        assert "expected" in error["message"]
        await talk.say({"type": "get_status"})
        assert (await talk.hear())["type"] == "system_status"


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("", ""),
        (b"", ""),
        (b"\xffx", "\ufffdx"),
        ("[]", []),
        ({"type": "subscribe", "subscription": ["alerts"]}, ["alerts"]),
        ({"type": "subscribe", "subscription": "alerts", "sensors": {"A": 1}}, {"A": 1}),
    ],
)
async def test_a_wrong_message_is_shown_what_it_said(message: object, value: object):
    async with talking(make_context()) as (_, talk):
        await talk.say(message)
        assert [item["value"] for item in (await talk.hear())["errors"]] == [value]


async def test_binary_messages_are_understood():
    async with talking(make_context()) as (_, talk):
        await talk.say(b'{"type": "get_status"}')
        assert (await talk.hear())["type"] == "system_status"


async def test_too_many_wrong_messages_in_a_row_end_it():
    async with talking(limited(max_socket_errors=3)) as (_, talk):
        for _ in range(3):
            await talk.say("wrong")
            assert (await talk.hear())["type"] == "error"
        await talk.say({"type": "pong"})
        for _ in range(4):
            await talk.say("wrong")
        assert await talk.closed() == CloseCode.WRONG_MESSAGES == 1008


async def test_the_largest_filter_can_be_sent():
    codes = [f"{i:064}" for i in range(MOST_SENSORS)]
    async with talking(make_context()) as (_, talk):
        assert (await talk.subscribe("alerts", sensors=codes))["sensors"] == codes


async def test_a_message_too_large_ends_it():
    async with talking(make_context()) as (_, talk):
        await talk.say("x" * (LARGEST_MESSAGE + 1))
        assert await talk.closed() == CloseCode.TOO_LARGE == 1009


async def test_one_connection_too_many_is_turned_away():
    async with talking(limited(max_sockets=1)) as (server, talk):
        async with server.connect() as socket:
            assert await Talk(socket).closed() == CloseCode.TOO_MANY_SOCKETS == 1013
        await talk.say({"type": "get_status"})
        assert (await talk.hear())["data"]["connections"] == 1


async def test_who_answers_no_heartbeat_is_let_go():
    async with talking(limited(heartbeat_s=0.05)) as (_, talk):
        for _ in range(MISSED_HEARTBEATS):
            assert (await talk.hear())["type"] == "ping"
        assert await talk.closed() == CloseCode.NO_HEARTBEAT == 1001


async def test_who_answers_heartbeats_stays():
    async with talking(limited(heartbeat_s=0.05)) as (_, talk):
        for _ in range(MISSED_HEARTBEATS * 3):
            assert (await talk.hear())["type"] == "ping"
            await talk.say({"type": "pong"})


async def test_who_vanishes_is_forgotten():
    context = make_context()
    async with talking(context) as (server, talk):
        await talk.subscribe("traffic_data")
        talk.socket.transport.abort()
        publish(context)
        await until(lambda: context.hub.connections == 0)
        publish(context)
        assert context.hub.subscribers(Channel.TRAFFIC_DATA) == 0
        assert (await server.get("/api/system/status"))["connections"] == 0


async def test_who_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket_module, "SEND_TIMEOUT_S", 0.3)
    context = make_context()
    large = [{"sensor_id": "SENSOR_001", "note": "x" * 1_000_000}]
    async with talking(context) as (server, slow), server.connect() as second:
        quick = Talk(second)
        await quick.hear()
        for talk in (slow, quick):
            await talk.subscribe("analytics")
        slow.socket.transport.pause_reading()
        longest = 0.0
        for _ in range(60):
            context.hub.publish(Channel.ANALYTICS, NOW, {"congestion": {}, "patterns": {"large": large}})
            began = time.perf_counter()
            await quick.hear()
            longest = max(longest, time.perf_counter() - began)
        await until(lambda: context.hub.connections == 1)
        slow.socket.transport.abort()
    assert longest < 1


def test_the_description_names_every_message_and_nothing_else():
    replies = {"welcome", "subscription_confirmed", "unsubscription_confirmed", "ping", "error"}
    assert set(MESSAGES) == set(CLIENT_MESSAGES) | replies | set(FRAME_TYPES.values())
    channel = DESCRIBED["channels"]["realTime"]["messages"]
    assert set(channel) == set(MESSAGES)
    sent = [m["$ref"].rsplit("/", 1)[1] for m in DESCRIBED["operations"]["fromServer"]["messages"]]
    received = [m["$ref"].rsplit("/", 1)[1] for m in DESCRIBED["operations"]["fromClient"]["messages"]]
    assert (set(sent), set(received)) == (replies | set(FRAME_TYPES.values()), set(CLIENT_MESSAGES))
    assert all(payload["payload"]["properties"]["type"] == {"const": name} for name, payload in MESSAGES.items())


def test_the_description_names_channels_limits_and_close_codes():
    schemas, text = DESCRIBED["components"]["schemas"], DESCRIBED["info"]["description"]
    assert schemas["Subscription"]["enum"] == list(Channel)
    assert schemas["Sensors"]["maxItems"] == MOST_SENSORS
    assert all(f"{code.value}:" in text for code in CloseCode)
    assert f"{LARGEST_MESSAGE:,} bytes" in text
