import json

import pytest
from api_doubles import make_app, make_context
from pydantic import TypeAdapter

from roadcast.api import examples
from roadcast.api.routes.predictions import GeneratedDocument, PredictionDocument
from roadcast.api.routes.readings import AccountDocument
from roadcast.api.routes.traffic import StatisticsDocument
from roadcast.live.analytics import CongestionDocument
from roadcast.live.documents import ForecastDocument, ReadingDocument


@pytest.fixture(scope="module")
def openapi() -> dict:
    return make_app(make_context()).openapi()


def operations(openapi: dict) -> list[tuple[str, dict]]:
    return [(path, operation) for path, methods in openapi["paths"].items() for operation in methods.values()]


def test_every_route_of_the_contract_is_described(openapi: dict):
    promised = {
        "/api/traffic/current", "/api/traffic/historical", "/api/traffic/statistics", "/api/traffic/readings",
        "/api/traffic/sensors/{sensor_id}", "/api/predictions/latest", "/api/predictions/accuracy",
        "/api/predictions/generate", "/api/predictions/{prediction_id}", "/api/analytics/congestion",
        "/api/analytics/patterns", "/api/analytics/trends", "/api/sensors", "/api/sensors/{sensor_id}",
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


def test_errors_are_described_as_problems(openapi: dict):
    for path, operation in operations(openapi):
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_answers_have_schemas(openapi: dict):
    for path, operation in operations(openapi):
        good = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        for media in good["content"].values():
            assert media["schema"], path


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (ReadingDocument, examples.READING),
        (StatisticsDocument, examples.STATISTICS),
        (ForecastDocument, examples.FORECAST),
        (GeneratedDocument, examples.GENERATED),
        (PredictionDocument, examples.PREDICTION),
        (CongestionDocument, examples.CONGESTION),
        (AccountDocument, examples.ACCOUNT),
    ],
)
def test_examples_are_what_they_are_examples_of(kind: type, example: dict):
    TypeAdapter(kind).validate_json(json.dumps(dict(example)), extra="forbid")
