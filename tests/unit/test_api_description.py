import csv
import io
import json
import re

import pytest
from api_doubles import client, make_app, make_context
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

from roadcast.api import examples
from roadcast.api.export import COLUMNS
from roadcast.api.routes import (
    analytics,
    incidents,
    models,
    network,
    predictions,
    readings,
    scoreboard,
    sensors,
    system,
    traffic,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def openapi() -> dict:
    return make_app(make_context()).openapi()


def operations(openapi: dict) -> list[tuple[str, dict]]:
    return [(path, operation) for path, methods in openapi["paths"].items() for operation in methods.values()]


def test_every_route_of_the_contract_is_described(openapi: dict):
    promised = {
        "/api/traffic/current", "/api/traffic/historical", "/api/traffic/statistics", "/api/traffic/readings",
        "/api/traffic/sensors/{sensor_id}", "/api/predictions/latest", "/api/predictions/accuracy", "/api/models",
        "/api/predictions/export", "/api/predictions/generate", "/api/predictions/{prediction_id}",
        "/api/predictions/{prediction_id}/explanation", "/api/analytics/congestion", "/api/analytics/patterns",
        "/api/analytics/trends", "/api/sensors", "/api/sensors/{sensor_id}",
        "/api/incidents", "/api/incidents/{incident_id}", "/api/incidents/{incident_id}/acknowledge",
        "/api/incidents/{incident_id}/close", "/api/network", "/api/network/state", "/api/system/status",
        "/health", "/health/detailed", "/metrics",
    }  # fmt: skip
    assert set(openapi["paths"]) == promised


def test_operations_have_tags_summaries_and_names_of_their_own(openapi: dict):
    names = [operation["operationId"] for _, operation in operations(openapi)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in openapi["tags"]}
    for path, operation in operations(openapi):
        assert set(operation["tags"]) <= tags, path
        assert " " in operation["summary"], path  # a sentence, not the name of a function
        assert not re.search(r"\.(\s|$)", operation["summary"]), path  # one sentence, without its full stop


def test_errors_are_described_as_problems(openapi: dict):
    for path, operation in operations(openapi):
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_answers_have_schemas(openapi: dict):
    for path, operation in operations(openapi):
        for media in good(operation)["content"].values():
            assert media["schema"], path


def good(operation: dict) -> dict:
    return next(response for status, response in operation["responses"].items() if status.startswith("2"))


MODULES = (analytics, incidents, models, network, predictions, readings, scoreboard, sensors, system, traffic)
ROUTES = [route for module in MODULES for route in module.router.routes if isinstance(route, APIRoute)]


def test_every_answer_and_body_has_an_example(openapi: dict):
    for path, operation in operations(openapi):
        bodies = operation.get("requestBody", {"content": {}})["content"]
        for media in (*good(operation)["content"].values(), *bodies.values()):
            assert media.get("example") or media["schema"]["format"] == "binary", (path, operation["operationId"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation_id)
def test_an_example_is_what_the_route_answers(route: APIRoute):
    example = examples.ANSWERS[route.operation_id]
    if route.operation_id == "export_predictions":
        [row] = csv.DictReader(io.StringIO(example))
        assert list(row)[: len(COLUMNS)] == list(COLUMNS)
    elif route.response_model is None:
        assert list(text_string_to_metric_families(example))
    else:
        TypeAdapter(route.response_model).validate_json(json.dumps(example), extra="forbid")


def test_no_example_is_of_a_route_that_is_not():
    names = {route.operation_id for route in ROUTES}
    assert set(examples.ANSWERS) == names
    assert set(examples.BODIES) <= names


@pytest.mark.anyio
async def test_every_body_that_is_an_example_is_taken():
    context = make_context()
    async with client(context) as http:
        made = await http.post("/api/incidents", json=examples.BODIES["create_incident"])
        assert made.status_code == 201
        edited = await http.patch(made.headers["location"], json=examples.BODIES["edit_incident"])
        assert (edited.status_code, edited.json()["lanes"]) == (200, 2)
        stored = await http.post("/api/traffic/readings", json=examples.BODIES["post_readings"])
        assert stored.json()["accepted"] == 1
        asked = await http.post("/api/predictions/generate", json=examples.BODIES["generate_prediction"])
        assert asked.status_code == 202


def test_the_headers_that_a_client_needs_are_described(openapi: dict):
    described = openapi["components"]["headers"]
    named: dict[str, set[str]] = {}
    for path, operation in operations(openapi):
        for status, response in operation["responses"].items():
            headers = set(response["headers"])
            assert headers <= set(described), path
            assert {"Roadcast-As-Of", "Roadcast-Feed", "X-Request-ID"} <= headers, path
            for name in headers:
                named.setdefault(name, set()).add(f"{operation['operationId']} {status}")
    assert named["Link"] == {
        f"{name} 200"
        for name in (
            "get_current_traffic", "get_historical_traffic", "get_latest_predictions", "get_prediction_accuracy",
            "list_sensors", "list_incidents",
        )
    }  # fmt: skip
    assert named["Location"] == {"create_incident 201", "generate_prediction 202"}
    assert "get_historical_traffic 503" in named["Retry-After"]
    assert "get_health 503" not in named["Retry-After"]


def test_no_body_is_said_to_be_a_bad_request(openapi: dict):
    for path, operation in operations(openapi):
        assert "400" not in operation["responses"], path
        if "requestBody" in operation:
            assert {"408", "413", "415", "422"} <= set(operation["responses"]), path
