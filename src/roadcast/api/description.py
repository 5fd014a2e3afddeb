"""The API's description: what OpenAPI says beyond what the routes say themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI

from roadcast.api.problems import MEDIA_TYPE

ABOUT = """Real-time traffic prediction: readings in, forecasts that keep their word out.

Times are RFC 3339 in UTC; a reading's `timestamp` is the end of its interval. Null is missing, zero is measured.
`hours` counts back from the feed's clock, which every answer states in `Roadcast-As-Of`; `Roadcast-Feed` says
whether the feed is live, replayed or simulated. Errors are RFC 9457 problems. The live stream is at `/ws/real-time`.
"""

TAGS = [
    {"name": "traffic", "description": "Readings, new, past and summed up."},
    {"name": "predictions", "description": "Forecasts, and how good they were."},
    {"name": "analytics", "description": "Congestion, patterns, trends."},
    {"name": "sensors", "description": "Detector stations."},
    {"name": "incidents", "description": "What disturbs traffic."},
    {"name": "network", "description": "The network as a map."},
    {"name": "system", "description": "How the system is."},
]


def describe(app: FastAPI) -> None:
    """Have OpenAPI title each route with what it says of itself, and call problems `application/problem+json`."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        for operation in _operations(schema):
            operation["summary"] = operation.pop("description", operation["summary"]).rstrip(".")
            for response in operation["responses"].values():
                _say_problem(response.get("content", {}))
        return schema

    app.openapi = openapi


def _operations(schema: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for path in schema["paths"].values():
        yield from path.values()


def _say_problem(content: dict[str, Any]) -> None:
    for media in list(content):
        if content[media]["schema"].get("$ref", "").endswith("/Problem"):
            content[MEDIA_TYPE] = content.pop(media)
