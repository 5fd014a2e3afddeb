import asyncio
import re
from uuid import UUID

import pytest
from api_doubles import NOW, TICK, PromptPredictor, client, make_app, make_context
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from roadcast.api.context import ApiLimits
from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.times import to_ms
from roadcast.domain.units import Units
from roadcast.services import Status

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_latest_predictions_are_one_per_sensor_and_horizon():
    async with client(make_context()) as http:
        found = (await http.get("/api/predictions/latest")).json()
        assert [(p["sensor_id"], p["horizon_minutes"]) for p in found] == [
            (sensor, minutes) for sensor in ("SENSOR_001", "SENSOR_002") for minutes in range(5, 65, 5)
        ]
        at_30 = (await http.get("/api/predictions/latest?horizon_minutes=30")).json()
        assert [p["horizon_minutes"] for p in at_30] == [30, 30]
        own = (await http.get("/api/predictions/latest?sensor_id=SENSOR_002")).json()
        assert own == found[12:]


async def test_min_confidence_keeps_what_is_at_least_as_sure():
    async with client(make_context()) as http:
        every = (await http.get("/api/predictions/latest")).json()
        cut = sorted(p["confidence"] for p in every)[10]
        found = (await http.get(f"/api/predictions/latest?min_confidence={cut}")).json()
        assert found == [p for p in every if p["confidence"] >= cut]
        assert len(found) == 14


async def test_pages_of_predictions_join_to_the_whole():
    async with client(make_context()) as http:
        every = (await http.get("/api/predictions/latest")).json()
        seen, url = [], "/api/predictions/latest?limit=7"
        while url:
            answer = await http.get(url)
            seen += answer.json()
            url = answer.links.get("next", {}).get("url")
        assert seen == every


async def test_without_an_issue_there_are_no_predictions():
    context = make_context()
    context.state.foresee(None)
    async with client(context) as http:
        assert (await http.get("/api/predictions/latest")).json() == []
        assert (await http.get("/api/network/state")).json()["forecast"] is None


async def test_a_generated_prediction_can_be_followed():
    context = make_context(predictor=PromptPredictor({to_ms(TICK)}))
    async with client(context) as http:
        answer = await http.post("/api/predictions/generate", json={"sensor_id": "SENSOR_001", "horizon_minutes": 30})
        made = answer.json()
        assert answer.status_code == 202
        assert made["message"] == "Prediction generation initiated"
        assert made["estimated_completion"] == "2024-01-15T10:30:10Z"
        place = answer.headers["location"]
        assert place == f"/api/predictions/{made['prediction_id']}"
        assert (await http.get(place)).json()["status"] == "pending"
        assert (await http.get(f"{place}/explanation")).status_code == 409
        context.predictor.making.clear()
        found = (await http.get(place)).json()
    assert (found["status"], found["detail"]) == ("completed", None)
    assert found["prediction"]["id"] == found["prediction_id"] == made["prediction_id"]
    assert found["prediction"]["horizon_minutes"] == 30


async def test_a_sensor_without_a_forecast_is_unavailable():
    context = make_context()
    context.state.issue.speed[0] = context.state.issue.volume[0] = float("nan")
    async with client(context) as http:
        made = await http.post("/api/predictions/generate", json={"sensor_id": "SENSOR_001", "horizon_minutes": 5})
        found = (await http.get(made.headers["location"])).json()
    assert (found["status"], found["prediction"]) == ("unavailable", None)
    assert found["detail"] == (
        "No forecast of SENSOR_001 was issued at 2024-01-15T10:30:00Z: too little had been reported of it up to then, "
        "or another feed took over. Let it report, and ask for one after 2024-01-15T10:35:00Z."
    )


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"sensor_id": "SENSOR_001", "horizon_minutes": -5}, 422, "horizon_minutes"),
        ({"sensor_id": "SENSOR_001", "horizon_minutes": 0}, 422, "horizon_minutes"),
        ({"sensor_id": "SENSOR_001", "horizon_minutes": 7}, 422, "horizon_minutes"),
        ({"sensor_id": "SENSOR_001", "horizon_minutes": 125}, 422, "horizon_minutes"),
        ({"sensor_id": "SENSOR_001", "horizon_minutes": "30"}, 422, "horizon_minutes"),
        ({"sensor_id": "SENSOR_001"}, 422, "horizon_minutes"),
        ({"horizon_minutes": 30}, 422, "sensor_id"),
        ({"sensor_id": "NOPE", "horizon_minutes": 30}, 404, "sensor_id"),
        ([], 422, "body"),
    ],
)
async def test_what_cannot_be_generated_is_refused_by_name(body: object, status: int, field: str):
    async with client(make_context()) as http:
        answer = await http.post("/api/predictions/generate", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json()["errors"]]


async def test_sensors_are_listed_filtered_and_found():
    async with client(make_context()) as http:
        every = (await http.get("/api/sensors")).json()
        assert [s["sensor_id"] for s in every] == ["SENSOR_001", "SENSOR_002", "SENSOR_003"]
        assert len((await http.get("/api/sensors?status=active&road=I 24")).json()) == 2
        first = await http.get("/api/sensors?limit=2")
        rest = await http.get(first.links["next"]["url"])
        assert first.json() + rest.json() == every
        assert "next" not in rest.links
        assert (await http.get("/api/sensors/SENSOR_002")).json() == every[1]


async def test_metric_speeds_of_sensors():
    async with client(make_context(units=Units.METRIC)) as http:
        found = (await http.get("/api/sensors/SENSOR_002")).json()
    assert (found["unit"], found["speed_limit"], found["reference_speed"]) == ("km/h", 88.51, 96.56)


async def test_the_networks_state_is_columns_of_one_length():
    async with client(make_context()) as http:
        found = (await http.get("/api/network/state")).json()
    assert found["sensor_ids"] == ["SENSOR_001", "SENSOR_002", "SENSOR_003"]
    assert found["speed"] == [45.5, 0.0, None]
    assert found["ratio"] == [0.7, 0.0, None]
    assert found["level"] == ["medium", "severe", None]
    assert found["stale"] == [False, True, True]
    assert found["forecast"]["horizon_minutes"] == list(range(5, 65, 5))
    assert [row[0] for row in found["forecast"]["speed"]][:1] == [60.0]
    assert {len(row) for row in found["forecast"]["speed"]} == {3}
    assert found["forecast"]["speed"][0][2] is None


async def test_an_incident_at_a_sensor_is_where_the_sensor_is():
    context = make_context()
    async with client(context) as http:
        answer = await http.post("/api/incidents", json={"type": "accident", "sensor_id": "SENSOR_001", "lanes": 2})
        made = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/api/incidents/{made['incident_id']}"
        assert (made["road"], made["latitude"], made["status"], made["severity"]) == ("I 24", 36.0, "open", "medium")
        assert made["started_at"] == "2024-01-15T10:32:00Z"
        place = answer.headers["location"]
        assert (await http.post(f"{place}/acknowledge")).json()["status"] == "acknowledged"
        assert (await http.patch(place, json={"severity": "high"})).json()["severity"] == "high"
        closed = (await http.post(f"{place}/close")).json()
        assert (closed["status"], closed["ended_at"]) == ("closed", "2024-01-15T10:32:00Z")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"type": ""}, 422),
        ({"type": "a\u0000"}, 422),
        ({"type": "a", "severity": "terrible"}, 422),
        ({"type": "a", "latitude": 91}, 422),
        ({"type": "a", "started_at": "yesterday"}, 422),
        ({"type": "a", "started_at": "0001-01-01T00:00:00Z"}, 422),
        ({"type": "a", "description": "\x00"}, 422),
        ({"type": "a", "descriptoin": "a typo"}, 422),
        ({"type": "a", "sensor_id": "NOPE"}, 404),
    ],
)
async def test_what_is_no_incident_is_refused(body: dict, status: int):
    async with client(make_context()) as http:
        answer = await http.post("/api/incidents", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("change", [{}, {"severity": None}, {"status": "closed"}, {"lanes": -1}])
async def test_an_edit_must_change_something_that_can_be_changed(change: dict):
    async with client(make_context()) as http:
        answer = await http.patch("/api/incidents/018d0cab-c440-801e-8000-000000000001", json=change)
    assert answer.status_code == 422


async def test_an_unknown_incident_is_a_404_problem():
    async with client(make_context()) as http:
        answer = await http.post("/api/incidents/018d0cab-c440-801e-8000-000000000001/close")
    assert answer.status_code == 404


async def test_status_says_what_feeds_it():
    async with client(make_context()) as http:
        found = (await http.get("/api/system/status")).json()
    assert found["feed"] == {"name": "demo", "mode": "replayed", "simulated": True}
    assert (found["status"], found["uptime"], found["clock"]) == ("ok", 60.0, "2024-01-15T10:32:00Z")
    assert [part["name"] for part in found["parts"]] == ["ingest"]


async def test_health_is_not_well_without_its_database():
    async with client(make_context()) as http:
        for path in ("/health", "/health/detailed"):
            answer = await http.get(path)
            assert answer.status_code == 503
            assert answer.json()["status"] == "down"
            assert answer.json()["database"]["status"] == "down"
            assert answer.json()["data"] == {"sensors": 3, "reporting": 1, "stale": 1, "newest_age_s": 120.0}


async def test_health_names_the_parts_that_are_not_well():
    context = make_context()
    context.board.report("predict", Status.DEGRADED, "slow", "wait")
    async with client(context) as http:
        assert [part["name"] for part in (await http.get("/health")).json()["parts"]] == ["predict"]


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        (Feed("demo", replayed=True, simulated=True, reached_at=NOW), "simulated"),
        (Feed("week", replayed=True, reached_at=NOW), "replayed"),
        (Feed("kafka"), "live"),
    ],
)
async def test_every_answer_states_the_feed_and_its_clock(feed: Feed, said: str):
    context = make_context(clock=FeedClock(wall=lambda: NOW, feed=feed))
    async with client(context) as http:
        for path in ("/api/traffic/current", "/health", "/api/nothing", "/docs", "/api/traffic/historical"):
            answer = await http.get(path)
            assert answer.headers["roadcast-feed"] == said
            assert answer.headers["roadcast-as-of"] == "2024-01-15T10:32:00Z"
            assert answer.headers["x-request-id"]


async def test_metrics_count_by_route_and_not_by_path():
    async with client(make_context()) as http:
        for path in ("/api/sensors/SENSOR_001", "/api/sensors/SENSOR_002", "/api/x", "/api/y"):
            await http.get(path)
        text = (await http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    counts = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in samples
        if sample.name == "roadcast_http_requests_total"
    }
    assert counts == {("/api/sensors/{sensor_id}", "200"): 2, ("unmatched", "404"): 2}
    assert ("roadcast_part_up", {"part": "ingest"}, 1.0) in [(s.name, s.labels, s.value) for s in samples]


async def test_a_method_that_is_not_allowed_is_a_problem():
    async with client(make_context()) as http:
        answer = await http.put("/api/traffic/current")
    assert (answer.status_code, answer.headers["allow"], answer.json()["status"]) == (405, "GET, HEAD", 405)


async def test_what_nobody_foresaw_is_a_500_that_tells_nothing():
    context = make_context()
    context.state.sensors = None  # pyright: ignore[reportAttributeAccessIssue]
    with capture_logs() as logs:
        async with client(context) as http:
            answer = await http.get("/api/sensors")
    assert [entry["event"] for entry in logs if entry.get("exc_info")] == ["failed"]
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "NoneType" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert answer.headers["roadcast-feed"] == "simulated"


async def test_a_body_that_does_not_come_is_not_waited_for():
    async def endless():
        yield b"["
        await asyncio.Event().wait()

    async with client(make_context(limits=ApiLimits(body_timeout_s=0.1))) as http:
        answer = await http.post("/api/traffic/readings", content=endless())
    assert (answer.status_code, answer.json()["status"]) == (408, 408)
    assert "0.1 s" in answer.json()["detail"]


async def test_a_value_is_echoed_within_bounds():
    async with client(make_context()) as http:
        long = await http.get("/api/traffic/historical", params={"hours": "9" * 5_000})
        half = await http.post(
            "/api/incidents",
            content=b'{"type": "a", "severity": "\\ud800"}',
            headers={"content-type": "application/json"},
        )
        halves = [
            await http.post("/api/incidents", content=body, headers={"content-type": "application/json"})
            for body in (b'{"type": "\\ud800"}', b'{"type": "a", "description": "\\ud800"}', b'{"\\ud800": 1}')
        ]
        deep = await http.post("/api/traffic/readings", json=[[[[[["x" * 9_000]]]]]])
        many = await http.post("/api/incidents", json={"type": "a"} | {str(key): 1 for key in range(600)})
    assert len(many.json()["errors"]) == 100
    assert len(long.text) < 1_000
    assert [answer.status_code for answer in (half, *halves)] == [422] * 4
    assert len(deep.text) < 1_000


@pytest.mark.parametrize("minutes", [7, 90])
async def test_a_horizon_that_there_cannot_be_is_refused(minutes: int):
    async with client(make_context()) as http:
        answer = await http.get(f"/api/predictions/latest?horizon_minutes={minutes}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["horizon_minutes"]


@pytest.mark.parametrize("path", ["/api/incidents", "/api/predictions/generate"])
async def test_a_body_that_is_not_declared_as_json_is_told_how(path: str):
    async with client(make_context()) as http:
        answer = await http.post(path, content=b'{"type": "a"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json()["errors"] == [
        {"field": "Content-Type", "value": "text/plain", "reason": "expected application/json"}
    ]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/incidents", "GET, HEAD, POST"),
        (f"/api/incidents/{UUID(int=1)}", "GET, HEAD, PATCH"),
        ("/docs", "GET, HEAD"),
        ("/docs/static/favicon.png", "GET, HEAD"),
        ("/api/predictions/generate", "POST"),
    ],
)
async def test_every_method_of_a_path_is_allowed(path: str, allowed: str):
    async with client(make_context()) as http:
        answer = await http.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_what_cannot_be_null_is_named():
    async with client(make_context()) as http:
        answer = await http.patch(f"/api/incidents/{UUID(int=1)}", json={"type": None, "severity": None, "lanes": None})
    assert [error["field"] for error in answer.json()["errors"]] == ["type", "severity"]


@pytest.mark.parametrize("field", ["lanes", "latitude"])
@pytest.mark.parametrize("value", [True, "1"])
async def test_numbers_of_an_incident_are_numbers(field: str, value: object):
    async with client(make_context()) as http:
        answer = await http.post("/api/incidents", json={"type": "a", field: value})
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_head_is_answered_as_its_get():
    async with client(make_context()) as http:
        for path in ("/health", "/api/sensors", "/docs", "/nope"):
            asked, got = await http.head(path), await http.get(path)
            assert asked.status_code == got.status_code
            assert asked.headers["content-type"] == got.headers["content-type"]


async def test_browsers_of_allowed_sites_may_ask_and_see_the_headers():
    async with client(make_context()) as http:
        answer = await http.get("/api/sensors", headers={"origin": "http://localhost:3000"})
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "Roadcast-As-Of" in answer.headers["access-control-expose-headers"]
        other = await http.get("/api/sensors", headers={"origin": "http://elsewhere"})
        assert "access-control-allow-origin" not in other.headers
        asked = await http.options(
            "/api/incidents",
            headers={"origin": "http://localhost:3000", "access-control-request-method": "POST"},
        )
        assert asked.status_code == 200


async def test_the_description_pages_load_nothing_from_outside():
    async with client(make_context()) as http:
        assert (await http.get("/")).headers["location"] == "/docs"
        for path, script in (("/docs", "swagger-ui-bundle.js"), ("/redoc", "redoc.standalone.js")):
            page = await http.get(path)
            assert all(
                place.startswith("/") for place in re.findall(r'(?:src|href|url)[=:]\s*["\']([^"\']+)', page.text)
            )
            assert "default-src 'self'" in page.headers["content-security-policy"]
            assert f"/docs/static/{script}" in page.text
            assert (await http.get(f"/docs/static/{script}")).status_code == 200


def test_two_apps_in_one_process_do_not_share_metrics():
    assert make_app(make_context()).routes
    assert make_app(make_context()).routes
