"""Every request and every message that the mission's document shows, sent as written to the demo."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
import websockets
from e2e.system import PATIENCE_S, SOURCE, System, eventually

Message = dict[str, Any]

READING = {"id", "sensor_id", "speed", "volume", "density", "occupancy", "timestamp"}
STATISTICS = {"avg_speed", "min_speed", "max_speed", "avg_volume", "total_readings", "time_window_hours"}
FORECAST = {
    "id", "sensor_id", "issued_at", "target_time", "horizon_minutes", "predicted_speed", "predicted_volume",
    "confidence", "tolerance", "quantiles", "model_name", "model_version",
}  # fmt: skip
ENVELOPE = {"metric_name", "time_period", "data_points", "summary", "generated_at"}
HOUR = {"timestamp", "avg_speed", "avg_volume", "congestion_level", "reading_count"}
CONGESTION = {"congestion_percentage", "avg_speed_overall", "congested_hours"}
ALERT = {"alert_id", "kind", "severity", "message", "sensor_id", "incident_id"}
STATUS = {"status", "since", "clock", "uptime", "connections", "feed", "parts"}

SUBSCRIPTIONS = ("traffic_data", "predictions", "alerts")
FRAME = {"type", "timestamp", "seq", "epoch", "data"}
WITHIN_S = 45
"""Longer than the heartbeat, for the rarest message."""


def moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    assert at.tzinfo is UTC or at.utcoffset() is not None
    return at


def documented(keys: set[str], items: Iterable[Mapping[str, Any]]) -> bool:
    """Whether there are items, and each has the keys; ours may join them."""
    found = list(items)
    return bool(found) and all(keys <= item.keys() for item in found)


def refused(answer: httpx.Response, status: int, field: str = "") -> None:
    """It is a problem of that status that names the field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    if field:
        assert [error["field"] for error in problem["errors"]] == [field]
        assert problem["errors"][0].keys() == {"field", "value", "reason"}


# Traffic


def test_current_lists_the_newest_reading_of_each_sensor(demo: System) -> None:
    readings = demo.get("/api/traffic/current")
    assert documented(READING, readings)
    codes = [reading["sensor_id"] for reading in readings]
    assert codes == sorted(set(codes))
    assert codes[0] == "SENSOR_001"
    assert all(UUID(reading["id"]) and moment(reading["timestamp"]) for reading in readings)
    assert all(reading["timestamp"].endswith("Z") for reading in readings)


def test_current_filters_and_limits(demo: System) -> None:
    [one] = demo.get("/api/traffic/current", sensor_id="SENSOR_001")
    assert one["sensor_id"] == "SENSOR_001"
    assert len(demo.get("/api/traffic/current", limit=3)) == 3
    assert len(demo.get("/api/traffic/current", limit=1000)) > 3
    refused(demo.client.get("/api/traffic/current?limit=1001"), 422, "limit")
    refused(demo.client.get("/api/traffic/current?limit=0"), 422, "limit")
    refused(demo.client.get("/api/traffic/current?sensor_id=NOPE"), 404)


def test_historical_is_newest_first_and_limits_at_100(demo: System) -> None:
    readings = demo.get("/api/traffic/historical", hours=24, sensor_id="SENSOR_001")
    assert documented(READING, readings)
    assert len(readings) == 100
    times = [moment(reading["timestamp"]) for reading in readings]
    assert times == sorted(times, reverse=True)
    assert {reading["sensor_id"] for reading in readings} == {"SENSOR_001"}
    assert len(demo.get("/api/traffic/historical", hours=168, limit=10_000)) == 10_000


def test_statistics(demo: System) -> None:
    found = demo.get("/api/traffic/statistics", hours=24)
    assert found.keys() >= STATISTICS
    assert found["min_speed"] < found["avg_speed"] < found["max_speed"]
    assert found["time_window_hours"] == 24
    of_one = demo.get("/api/traffic/statistics", hours=24, sensor_id="SENSOR_001")
    assert 200 < of_one["total_readings"] <= 288


@pytest.mark.parametrize("path", ["/api/traffic/historical", "/api/traffic/statistics", "/api/analytics/congestion"])
@pytest.mark.parametrize("asked", ["", "?hours=0", "?hours=169", "?hours=x"])
def test_hours_are_required_from_1_to_168(demo: System, path: str, asked: str) -> None:
    refused(demo.client.get(path + asked), 422, "hours")


# Predictions


def test_latest_predictions(demo: System) -> None:
    forecasts = demo.get("/api/predictions/latest")
    assert documented(FORECAST, forecasts)
    assert len(forecasts) == 100
    assert {len(forecast["quantiles"]) for forecast in forecasts} == {7}
    own = demo.get("/api/predictions/latest", sensor_id="SENSOR_001")
    assert [forecast["horizon_minutes"] for forecast in own] == list(range(5, 65, 5))
    assert {forecast["sensor_id"] for forecast in own} == {"SENSOR_001"}


def test_latest_predictions_above_a_confidence(demo: System) -> None:
    least = sorted(forecast["confidence"] for forecast in demo.get("/api/predictions/latest", limit=1000))
    wanted = least[len(least) // 2]
    above = demo.get("/api/predictions/latest", min_confidence=wanted, limit=1000)
    assert above
    assert all(forecast["confidence"] >= wanted for forecast in above)
    refused(demo.client.get("/api/predictions/latest?min_confidence=1.01"), 422, "min_confidence")
    refused(demo.client.get("/api/predictions/latest?min_confidence=-0.01"), 422, "min_confidence")


def test_a_prediction_is_generated_and_can_be_read(demo: System) -> None:
    wanted = {"sensor_id": "SENSOR_001", "horizon_minutes": 30}
    answer = demo.client.post("/api/predictions/generate", json=wanted)
    assert answer.status_code == 202
    made = answer.json()
    assert made.keys() == {"message", "prediction_id", "estimated_completion"}
    assert made["message"] == "Prediction generation initiated"
    assert moment(made["estimated_completion"])
    place = f"/api/predictions/{UUID(made['prediction_id'])}"
    assert eventually(lambda: demo.get(place)["status"] == "completed", PATIENCE_S)
    state = demo.get(place)
    assert state["prediction"]["sensor_id"] == "SENSOR_001"
    assert state["prediction"]["horizon_minutes"] == 30


def test_a_prediction_that_cannot_be_is_refused(demo: System) -> None:
    def generate(**wanted: object) -> httpx.Response:
        return demo.client.post("/api/predictions/generate", json=wanted)

    refused(generate(sensor_id="NOPE", horizon_minutes=30), 404)
    refused(generate(sensor_id="SENSOR_001", horizon_minutes=-5), 422, "horizon_minutes")
    refused(generate(sensor_id="SENSOR_001", horizon_minutes=31), 422, "horizon_minutes")
    refused(generate(sensor_id="SENSOR_001"), 422, "horizon_minutes")


def test_accuracy_names_what_it_measured(demo: System) -> None:
    assert demo.client.get("/api/predictions/accuracy").status_code == 200


# Analytics


def test_congestion(demo: System) -> None:
    found = demo.get("/api/analytics/congestion", hours=24)
    assert found.keys() == ENVELOPE
    assert (found["metric_name"], found["time_period"]) == ("traffic_congestion", "last_24_hours")
    assert documented(HOUR, found["data_points"])
    assert {point["congestion_level"] for point in found["data_points"]} <= {"low", "medium", "high", "severe"}
    assert found["summary"].keys() >= CONGESTION
    assert moment(found["generated_at"])
    one = demo.get("/api/analytics/congestion", hours=24, sensor_id="SENSOR_001")
    assert one["data_points"][0]["reading_count"] <= 12


def test_patterns(demo: System) -> None:
    found = demo.get("/api/analytics/patterns")
    assert found.keys() == ENVELOPE
    assert found["metric_name"] == "traffic_patterns"
    by_type = {kind: [p for p in found["data_points"] if p["type"] == kind] for kind in ("hourly", "daily")}
    assert [point["hour"] for point in by_type["hourly"]] == list(range(24))
    assert [point["day_of_week"] for point in by_type["daily"]] == list(range(1, 8))
    assert documented({"avg_speed", "avg_volume", "reading_count"}, found["data_points"])


def test_trends(demo: System) -> None:
    found = demo.get("/api/analytics/trends")
    assert found.keys() == ENVELOPE
    assert found["metric_name"] == "traffic_trends"
    assert documented({"date"}, found["data_points"])
    assert found["summary"]["slope_low"] <= found["summary"]["slope_per_day"] <= found["summary"]["slope_high"]


# System


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/health", "/health/detailed", "/metrics"])
def test_what_people_and_machines_look_at(demo: System, path: str) -> None:
    answer = demo.client.get(path)
    assert answer.status_code == 200
    if path in {"/docs", "/redoc"}:
        assert "https://" not in answer.text


def test_the_root_leads_to_the_docs(demo: System) -> None:
    answer = demo.client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


def test_whatever_is_simulated_says_so(demo: System) -> None:
    assert demo.client.get("/api/traffic/current").headers["roadcast-feed"].endswith("simulated")
    for path in ("/health", "/health/detailed", "/api/system/status"):
        assert demo.get(path)["feed"]["simulated"] is True


def test_settings_are_imported_as_the_document_shows() -> None:
    script = "from src.api.config import get_settings\nsettings = get_settings()\nprint(settings.db_name)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SOURCE.parent, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("traffic_db\n", "")


# WebSocket


async def exchange(url: str, sent: Iterable[Message | str], enough: Callable[[list[Message]], bool]) -> list[Message]:
    """Send messages, and collect what comes until it is enough. Pings are answered."""
    heard: list[Message] = []
    async with asyncio.timeout(WITHIN_S), websockets.connect(url, max_size=None) as connection:
        for message in sent:
            await connection.send(message if isinstance(message, str) else json.dumps(message))
        while not enough(heard):
            heard.append(json.loads(await connection.recv()))
            if heard[-1]["type"] == "ping":
                await connection.send('{"type": "pong"}')
    return heard


def kinds(messages: Iterable[Message]) -> set[str]:
    return {message["type"] for message in messages}


def subscribing(verb: str) -> list[Message]:
    return [{"type": verb, "subscription": name} for name in SUBSCRIPTIONS]


def test_a_connection_is_welcomed(demo: System) -> None:
    [welcome] = asyncio.run(exchange(demo.socket_url, (), bool))
    assert welcome["type"] == "welcome"
    assert UUID(welcome["connection_id"])
    assert set(SUBSCRIPTIONS) <= set(welcome["available_subscriptions"])
    assert welcome["feed"]["simulated"] is True


def test_every_message_of_the_server_comes(demo: System) -> None:
    kinds_wanted = {
        "welcome", "subscription_confirmed", "unsubscription_confirmed", "traffic_update", "prediction_update",
        "alert", "system_status", "ping",
    }  # fmt: skip

    async def listen() -> list[Message]:
        """An incident is made meanwhile, which is an alert."""
        sent = [*subscribing("subscribe"), {"type": "get_status"}, {"type": "subscribe", "subscription": "analytics"},
                {"type": "unsubscribe", "subscription": "analytics"}]  # fmt: skip
        listening = asyncio.create_task(exchange(demo.socket_url, sent, lambda heard: kinds_wanted <= kinds(heard)))
        await asyncio.sleep(1)
        incident = {"type": "debris", "severity": "low", "description": "A ladder", "sensor_id": "SENSOR_001"}
        answer = await asyncio.to_thread(demo.client.post, "/api/incidents", json=incident)
        assert answer.status_code == 201, answer.text
        return await listening

    heard = asyncio.run(listen())
    frames = {kind: [message for message in heard if message["type"] == kind] for kind in kinds(heard)}
    confirmed = [message["subscription"] for message in frames["subscription_confirmed"]]
    assert confirmed == [*SUBSCRIPTIONS, "analytics"]
    assert [message["subscription"] for message in frames["unsubscription_confirmed"]] == ["analytics"]
    assert all(moment(message["timestamp"]) for message in heard)
    for kind in ("traffic_update", "prediction_update", "alert", "system_status"):
        assert all(message.keys() == FRAME for message in frames[kind])
    assert documented(READING, (item for message in frames["traffic_update"] for item in message["data"]))
    assert documented(FORECAST, (item for message in frames["prediction_update"] for item in message["data"]))
    assert all(message["data"].keys() == ALERT for message in frames["alert"])
    assert all(message["data"].keys() == STATUS for message in frames["system_status"])


def test_frames_are_numbered_without_a_gap_from_the_snapshot_on(demo: System) -> None:
    def three_updates(heard: list[Message]) -> bool:
        return [message["type"] for message in heard].count("traffic_update") == 3

    heard = asyncio.run(exchange(demo.socket_url, subscribing("subscribe")[:1], three_updates))
    updates = [message for message in heard if message["type"] == "traffic_update"]
    first = updates[0]["seq"]
    assert [message["seq"] for message in updates] == [first, first + 1, first + 2]
    assert len({message["epoch"] for message in updates}) == 1
    assert len({reading["timestamp"] for reading in updates[1]["data"]}) == 1


def test_whoever_unsubscribed_hears_no_more(demo: System) -> None:
    async def regret() -> list[Message]:
        sent = [*subscribing("subscribe"), *subscribing("unsubscribe")]
        async with websockets.connect(demo.socket_url, max_size=None) as connection:
            for message in sent:
                await connection.send(json.dumps(message))
            confirmed = 0
            while confirmed < len(SUBSCRIPTIONS):
                confirmed += json.loads(await connection.recv())["type"] == "unsubscription_confirmed"
            later: list[Message] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):  # two ticks of the demo
                    while True:
                        later.append(json.loads(await connection.recv()))
            return later

    assert kinds(asyncio.run(regret())) <= {"ping"}


def test_only_the_sensors_that_were_asked_for_come(demo: System) -> None:
    wanted = {"type": "subscribe", "subscription": "traffic_data", "sensors": ["SENSOR_002", "SENSOR_003"]}
    heard = asyncio.run(
        exchange(demo.socket_url, [wanted], lambda heard: [m["type"] for m in heard].count("traffic_update") == 2)
    )
    found = {item["sensor_id"] for message in heard if message["type"] == "traffic_update" for item in message["data"]}
    assert found == {"SENSOR_002", "SENSOR_003"}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"type": "subscribe", "subscription": "nothing"}, "subscription"),
        ({"type": "subscribe"}, "subscription"),
        ({"type": "nothing"}, "type"),
        ({"subscription": "alerts"}, "type"),
        ("[]", "message"),
        ("not json", "message"),
    ],
)
def test_a_wrong_message_is_answered_and_the_connection_goes_on(demo: System, wrong: Message | str, field: str) -> None:
    sent = [wrong, {"type": "get_status"}]
    heard = asyncio.run(exchange(demo.socket_url, sent, lambda heard: "system_status" in kinds(heard)))
    [error] = [message for message in heard if message["type"] == "error"]
    assert [named["field"] for named in error["errors"]] == [field]
