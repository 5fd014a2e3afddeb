"""What every client meets at the edges: problems that name what was wrong, and headers that say what holds."""

import asyncio
import gzip
import json
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import pytest
from api_doubles import NOW, client, make_context

from roadcast.api.context import ApiLimits
from roadcast.api.deps import until_for
from roadcast.api.middleware import Failures
from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.units import Units
from roadcast.errors import Conflict

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
NO_ID = UUID(int=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def reading(**changes: object) -> dict[str, object]:
    return {"sensor_id": "A1", "speed": 45.5, "timestamp": "2024-01-15T10:30:00Z"} | changes


@pytest.mark.parametrize(
    ("method", "path", "status", "field", "value"),
    [
        ("GET", "/api/sensors/NOPE", 404, "sensor_id", "NOPE"),
        ("GET", "/api/traffic/sensors/a%2Fb", 404, "sensor_id", "a/b"),
        ("GET", "/api/traffic/current?sensor_id=NOPE", 404, "sensor_id", "NOPE"),
        ("GET", "/api/analytics/trends?sensor_id=NOPE", 404, "sensor_id", "NOPE"),
        ("GET", f"/api/predictions/{NO_ID}", 404, "prediction_id", str(NO_ID)),
        ("GET", f"/api/predictions/{NO_ID}/explanation", 404, "prediction_id", str(NO_ID)),
        ("POST", f"/api/incidents/{NO_ID}/close", 404, "incident_id", str(NO_ID)),
        ("GET", "/api/nothing", 404, "path", "/api/nothing"),
        ("GET", "/docs/static/nothing", 404, "path", "/docs/static/nothing"),
        ("PUT", "/api/traffic/current", 405, "method", "PUT"),
        ("GET", "/ws/real-time", 426, "Upgrade", None),
    ],
)
async def test_a_problem_names_what_was_wrong(method: str, path: str, status: int, field: str, value: object):
    async with client(make_context()) as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    [error] = answer.json()["errors"]
    assert (error["field"], error["value"]) == (field, value)
    assert error["reason"]


async def test_a_conflict_names_what_the_path_names():
    class Closed:
        async def change(self, *_: object) -> None:
            raise Conflict("It is closed already.")

    async with client(make_context(incidents=Closed())) as http:
        answer = await http.post(f"/api/incidents/{NO_ID}/close")
    assert answer.status_code == 409
    assert answer.json()["errors"] == [
        {"field": "incident_id", "value": str(NO_ID), "reason": "It is closed already."},
    ]


async def test_where_nothing_of_the_request_was_wrong_no_field_is_named():
    async with client(make_context()) as http:
        answer = await http.get("/api/traffic/historical?hours=1")
    assert (answer.status_code, answer.json()["errors"]) == (503, [])


@pytest.mark.parametrize("path", ["/api/traffic/readings", "/api/incidents", "/api/predictions/generate"])
async def test_a_body_too_large_is_named(path: str):
    async with client(make_context(limits=ApiLimits(max_body_bytes=100))) as http:
        answer = await http.post(path, content=b" " * 101, headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["errors"] == [
        {"field": "body", "value": "101 bytes", "reason": "expected at most 100 bytes (MAX_BODY_BYTES)"},
    ]


@pytest.mark.parametrize("path", ["/api/traffic/readings", "/api/incidents", "/api/predictions/generate"])
@pytest.mark.parametrize("body", [b"{{{", b'{"type": ', b"\xff\xfe", b"[" * 5_000])
async def test_a_body_that_is_no_json_is_the_same_problem_everywhere(path: str, body: bytes):
    async with client(make_context()) as http:
        answer = await http.post(path, content=body, headers=JSON)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "body"
    assert error["reason"].startswith("expected JSON")
    assert len(answer.text) < 1_000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/vnd.detector+json"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=application/json"}, 415),
        ({"content-type": "application/jsonp"}, 415),
        ({"content-type": ""}, 415),
        ({"origin": "http://elsewhere"}, 415),
        ({"origin": "http://elsewhere", "content-type": "application/json"}, 200),
    ],
)
async def test_only_what_is_declared_as_json_is_read(headers: dict[str, str], status: int):
    """What a page can send without the leave of CORS is of one of the other types, or of none."""
    context = make_context()
    async with client(context) as http:
        answer = await http.post("/api/traffic/readings", content=json.dumps(reading()), headers=headers)
    assert answer.status_code == status
    assert len(context.door.batches) == (status == 200)
    if status == 415:
        assert [error["field"] for error in answer.json()["errors"]] == ["Content-Type"]


@pytest.mark.parametrize("path", ["/api/traffic/readings", "/api/incidents", "/api/predictions/generate"])
async def test_a_body_that_is_compressed_is_not_mistaken_for_bad_json(path: str):
    async with client(make_context()) as http:
        answer = await http.post(path, content=gzip.compress(b"[]"), headers={**JSON, "Content-Encoding": "gzip"})
        plain = await http.post("/api/traffic/readings", content=b"[]", headers={"Content-Encoding": "identity"})
    assert (answer.status_code, plain.status_code) == (415, 200)
    assert answer.json()["errors"] == [{"field": "Content-Encoding", "value": "gzip", "reason": "expected none"}]


@pytest.mark.parametrize("name", ["demo", "none"])
@pytest.mark.parametrize("more", ["", "&replayed=true"])
async def test_nobody_outside_is_one_of_our_own_feeds(name: str, more: str):
    context = make_context()
    async with client(context) as http:
        answer = await http.post(f"/api/traffic/readings?source={name}{more}", json=reading())
    assert (answer.status_code, context.door.batches) == (422, [])
    [error] = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("source", name)
    assert error["reason"] == "expected another name than demo and none, which are our own feeds'"


@pytest.mark.parametrize(
    ("units", "field", "allowed", "refused", "words"),
    [
        (Units.US, "speed", 200, 200.1, "expected a number from 0 to 200 mph"),
        (Units.US, "density", 10_000, 10_001, "expected a number from 0 to 10000 veh/mi"),
        (Units.METRIC, "speed", 321.8, 322, "expected a number from 0 to 321.8 km/h"),
        (Units.METRIC, "density", 6_213.7, 6_214, "expected a number from 0 to 6213.7 veh/km"),
        (Units.METRIC, "volume", 100_000, 100_001, "expected a number from 0 to 100000"),
        (Units.METRIC, "occupancy", 1, 1.001, "expected a number from 0 to 1"),
    ],
)
async def test_bounds_are_said_in_the_clients_units(
    units: Units, field: str, allowed: float, refused: float, words: str
):
    async with client(make_context(units=units)) as http:
        items = [reading(**{field: value}) for value in (0, allowed, refused)]
        account = (await http.post("/api/traffic/readings", json=items)).json()
    assert account["rejections"] == [{"index": 2, "field": field, "value": refused, "reason": words}]


async def test_a_value_is_echoed_as_it_was_sent_and_a_long_one_as_the_begin_of_its_json():
    async with client(make_context()) as http:
        items = [reading(speed={"mph": [45.5, None, True]}), reading(speed=[["ä"]] * 1_000), [], {}]
        account = (await http.post("/api/traffic/readings", json=items)).json()
        typed = await http.post("/api/incidents", json={"type": {"a": [1, None]}})
    assert account["rejections"][0]["value"] == {"mph": [45.5, None, True]}
    assert account["rejections"][1]["value"] == ('[["ä"], ' + '["ä"], ' * 99)[:200] + "…"
    assert account["rejections"][2]["value"] == []
    assert typed.json()["errors"][0]["value"] == {"a": [1, None]}


async def test_within_an_array_too_what_json_lacks_is_echoed_as_text():
    sent = (
        '[{"speed": [1e999, 99999999999999999999, "\\ud800"], "sensor_id": "A", "timestamp": "2024-01-15T10:30:00Z"}]'
    )
    async with client(make_context()) as http:
        answer = await http.post("/api/traffic/readings", content=sent)
    assert answer.json()["rejections"][0]["value"] == ["Infinity", "99999999999999999999", "?"]


async def test_a_code_that_is_a_number_is_told_to_be_a_string():
    async with client(make_context()) as http:
        answer = await http.post("/api/traffic/readings", json=reading(sensor_id=400_001))
    [error] = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("sensor_id", 400_001)
    assert "expected a string" in error["reason"]


@pytest.mark.parametrize("code", ["400001", "I-24 E / MM 53.3", "Straße 7", "北京-1"])
async def test_a_code_can_be_any_name_that_people_see(code: str):
    async with client(make_context()) as http:
        assert (await http.post("/api/traffic/readings", json=reading(sensor_id=code))).status_code == 200


@pytest.mark.parametrize("stamp", ["2024-01-15T10:30:00+02:00", "2024-01-15T10:30:00.25+02:00"])
async def test_a_plus_that_the_query_lost_is_hinted_at(stamp: str):
    async with client(make_context()) as http:
        lost = await http.get(f"/api/traffic/current?as_of={stamp}")
        kept = await http.get("/api/traffic/current", params={"as_of": stamp})
        other = await http.get("/api/traffic/current?as_of=2024-01-15 10:30")
    assert (lost.status_code, lost.json()["errors"][0]["field"]) == (422, "as_of")
    assert "%2B" in lost.json()["errors"][0]["reason"]
    assert kept.status_code == 503  # it is read, and the database is away
    assert "%2B" not in other.text


@pytest.mark.parametrize("path", ["current?", "historical?hours=1&", "statistics?hours=1&"])
async def test_the_time_that_was_asked_for_is_the_one_that_is_stated(path: str):
    async with client(make_context()) as http:
        answer = await http.get(f"/api/traffic/{path}as_of=2024-01-14T12:00:00.5%2B02:00")
    assert answer.headers["roadcast-as-of"] == "2024-01-14T10:00:00.500000Z"


@pytest.mark.parametrize("path", ["current?", "historical?hours=1&", "statistics?hours=1&", "../predictions/latest?"])
@pytest.mark.parametrize("at", ["2024-01-15T10:37:01Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:60Z"])
async def test_nothing_can_be_known_as_of_a_time_to_come(path: str, at: str):
    async with client(make_context()) as http:
        answer = await http.get(f"/api/traffic/{path}as_of={at}")
    assert (answer.status_code, answer.headers["roadcast-as-of"]) == (422, "2024-01-15T10:32:00Z")
    [error] = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("as_of", at)
    assert error["reason"].startswith("expected")


async def test_a_client_may_be_as_far_ahead_of_the_clock_as_a_detector():
    async with client(make_context()) as http:
        answer = await http.get("/api/traffic/current?as_of=2024-01-15T10:37:00Z")
    assert answer.status_code == 503  # it is read, and the database is away


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("trace 7/ü".encode(), False),
        (b"order-66:retry #2", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"tab\there", False),
    ],
)
async def test_a_clients_own_id_is_kept(sent: bytes, kept: bool):
    async with client(make_context()) as http:
        answer = await http.get("/api/sensors", headers={b"x-request-id": sent})
    assert (answer.headers["x-request-id"].encode() == sent) == kept
    assert answer.headers["x-request-id"].isprintable()


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/api/sensors/", 307, "/api/sensors"),
        ("/api/sensors/?limit=3", 307, "/api/sensors?limit=3"),
        ("/api/traffic/current/", 307, "/api/traffic/current"),
        ("/api/traffic/sensors/", 404, None),
        ("/api/traffic/sensors", 404, None),
    ],
)
async def test_a_slash_too_many_names_no_sensor(path: str, status: int, location: str | None):
    async with client(make_context()) as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.headers.get("location", "").removeprefix("http://roadcast")) == (
        status,
        location or "",
    )
    if status == 404:
        assert [error["field"] for error in answer.json()["errors"]] == ["path"]


@pytest.mark.parametrize("number", ["1_0", " 24", "24 ", "+24", "٢٤", "0x18", ""])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("traffic/historical", "hours"),
        ("traffic/current", "limit"),
        ("analytics/trends", "days"),
        ("incidents", "hours"),
        ("predictions/latest", "horizon_minutes"),
        ("predictions/latest", "min_confidence"),
    ],
)
async def test_numbers_are_written_in_plain_digits(path: str, field: str, number: str):
    async with client(make_context()) as http:
        answer = await http.get(f"/api/{path}", params={field: number})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["field"], error["value"]) == (field, number)
    assert error["reason"] == "expected a number in plain digits"


@pytest.mark.parametrize("code", [".", ".."])
async def test_a_code_that_no_address_can_hold_is_refused(code: str):
    async with client(make_context()) as http:
        answer = await http.post("/api/traffic/readings", json=reading(sensor_id=code))
        dotted = await http.post("/api/traffic/readings", json=reading(sensor_id=f"{code}."))
    assert (answer.status_code, answer.json()["errors"][0]["value"]) == (422, code)
    assert "other than . and .." in answer.json()["errors"][0]["reason"]
    assert dotted.status_code == (422 if code == "." else 200)


@pytest.mark.parametrize("minutes", [0, 125, 10**30])
async def test_the_longest_horizon_is_the_one_that_there_is(minutes: int):
    async with client(make_context()) as http:
        asked = {"sensor_id": "SENSOR_001", "horizon_minutes": minutes}
        answers = [
            await http.post("/api/predictions/generate", json=asked),
            await http.get("/api/predictions/latest", params={"horizon_minutes": str(minutes)}),
        ]
    assert [answer.status_code for answer in answers] == [422, 422]
    reasons = [answer.json()["errors"][0]["reason"] for answer in answers]
    assert reasons == [f"expected a multiple of 5 minutes, at most {most}" for most in (120, 60)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"latitude": 36.0}, "longitude"),
        ({"longitude": -86.5}, "latitude"),
        ({"latitude": None, "longitude": -86.5}, "latitude"),
        ({"started_at": "2999-01-01T00:00:00Z"}, "started_at"),
        ({"started_at": "2025-01-16T10:32:01Z"}, "started_at"),
    ],
)
async def test_an_incident_is_at_one_place_and_in_this_time(body: dict, field: str):
    async with client(make_context()) as http:
        answer = await http.post("/api/incidents", json={"type": "works", **body})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert "expected" in answer.json()["errors"][0]["reason"]


async def test_works_can_be_planned_within_a_year():
    async with client(make_context()) as http:
        planned = {"type": "works", "latitude": 0, "longitude": 0.0, "started_at": "2025-01-15T10:32:00Z"}
        answer = await http.post("/api/incidents", json=planned)
    assert (answer.status_code, answer.json()["started_at"]) == (201, "2025-01-15T10:32:00Z")


@pytest.mark.parametrize("change", [{"latitude": 36.0}, {"longitude": None}, {"latitude": None, "longitude": 1.0}])
async def test_a_place_is_edited_as_a_whole(change: dict):
    async with client(make_context()) as http:
        made = await http.post("/api/incidents", json={"type": "works", "sensor_id": "SENSOR_001"})
        answer = await http.patch(made.headers["location"], json=change)
        assert answer.status_code == 422
        moved = await http.patch(made.headers["location"], json={"latitude": None, "longitude": None})
    assert (moved.status_code, moved.json()["latitude"], moved.json()["longitude"]) == (200, None, None)


async def test_a_handshake_is_asked_for():
    async with client(make_context()) as http:
        answer = await http.get("/ws/real-time")
    assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "Upgrade")
    assert "WebSocket" in answer.json()["detail"]


async def test_the_window_of_a_past_time_reaches_as_far_as_it_did_then():
    """A live feed's readings may be ahead of the clock; what was answered then is answered again."""
    live = FeedClock(wall=lambda: NOW, feed=Feed("kafka"))
    at = datetime(2024, 1, 15, 9, 2, tzinfo=UTC)
    context = make_context(clock=live)
    assert until_for(context, None) == until_for(context, NOW)
    assert until_for(context, at) == datetime(2024, 1, 15, 9, 10, tzinfo=UTC)
    assert until_for(make_context(), at) == at + timedelta(minutes=3)


async def test_what_the_end_of_the_process_cuts_off_is_to_be_asked_again():
    sent: list[dict[str, object]] = []

    async def endless(*_: object) -> None:
        await asyncio.Event().wait()

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/api/traffic/readings", "headers": [], "query_string": b""}
    asking = asyncio.create_task(Failures(endless)(scope, endless, send))  # pyright: ignore[reportArgumentType]
    await asyncio.sleep(0)
    asking.cancel()
    await asking
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"2") in cast("list[tuple[bytes, bytes]]", sent[0]["headers"])
    assert json.loads(cast("bytes", sent[1]["body"]))["title"] == "Service Unavailable"
