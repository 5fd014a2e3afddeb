"""The API's description: what OpenAPI says beyond what the routes say themselves."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI

from roadcast.api.examples import ANSWERS, BODIES
from roadcast.api.middleware import AS_OF_HEADER, FEED_HEADER
from roadcast.errors import PROBLEM_MEDIA_TYPE

ABOUT = """Real-time traffic prediction: readings in, forecasts that keep their word out.

Times are RFC 3339 in UTC; a reading's `timestamp` is the end of its interval. Null is missing, zero is measured.
`hours` counts back from the feed's clock, which every answer states in `Roadcast-As-Of`; `Roadcast-Feed` says
whether the feed is live, replayed or simulated. Where `as_of` is taken, it takes the clock's place. Errors are RFC 9457
problems. The live stream is at `/ws/real-time`.
"""

TAGS = [
    {"name": "traffic", "description": "Readings, new, past and summed up."},
    {"name": "predictions", "description": "Forecasts, and how good they were."},
    {"name": "models", "description": "Trained models, and how they came to serve."},
    {"name": "analytics", "description": "Congestion, patterns, trends."},
    {"name": "sensors", "description": "Detector stations."},
    {"name": "incidents", "description": "What disturbs traffic."},
    {"name": "network", "description": "The network as a map."},
    {"name": "system", "description": "How the system is."},
]


HEADERS: Mapping[str, Mapping[str, object]] = {
    AS_OF_HEADER: {
        "description": "The feed's clock, or the `as_of` that was asked for: the time for which the answer holds.",
        "schema": {"type": "string", "format": "date-time"},
    },
    FEED_HEADER: {
        "description": "What feeds the system; nothing of a simulated feed is real.",
        "schema": {"type": "string", "enum": ["live", "replayed", "simulated"]},
    },
    "X-Request-ID": {
        "description": "The request's own id, else one made for it: the log tells about the request under it.",
        "schema": {"type": "string"},
    },
    "Link": {
        "description": '`<URL>; rel="next"`, RFC 8288: the next page; absent on the last.',
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The path of what was made, or will be.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer", "minimum": 1}},
}
EVERYWHERE = (AS_OF_HEADER, FEED_HEADER, "X-Request-ID")


def describe(app: FastAPI) -> None:
    """Have OpenAPI say what the routes do not: titles, examples, headers, and that problems are problems."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        schema["components"]["headers"] = HEADERS
        for operation in _operations(schema):
            _title(operation)
            _give_examples(operation)
            for status, response in operation["responses"].items():
                _say_problem(response.get("content", {}))
                response["headers"] = {name: _header(name) for name in _headers(operation, status, response)}
        return schema

    app.openapi = openapi


def _operations(schema: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for path in schema["paths"].values():
        yield from path.values()


def _title(operation: dict[str, Any]) -> None:
    """The first sentence of what a route says of itself is its title."""
    title, *rest = re.split(r"\.\s+", operation.pop("description", operation["summary"]), maxsplit=1)
    operation["summary"] = title.rstrip(".")
    if rest:
        operation["description"] = rest[0]


def _give_examples(operation: Mapping[str, Any]) -> None:
    name = operation["operationId"]
    for status, response in operation["responses"].items():
        if status.startswith("2") and name in ANSWERS:
            _illustrate(response["content"], ANSWERS[name])
    if name in BODIES:
        _illustrate(operation["requestBody"]["content"], BODIES[name])


def _illustrate(content: Mapping[str, Any], value: object) -> None:
    for media in content.values():
        if media["schema"].get("format") != "binary":
            media["example"] = value


def _say_problem(content: dict[str, Any]) -> None:
    for media in list(content):
        if content[media]["schema"].get("$ref", "").endswith("/Problem"):
            content[PROBLEM_MEDIA_TYPE] = content.pop(media)


def _headers(operation: Mapping[str, Any], status: str, response: Mapping[str, Any]) -> Iterable[str]:
    """The headers of an answer: a list has pages, what is made has a place, and a part that is away comes back."""
    yield from EVERYWHERE
    if status == "200" and any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
        yield "Link"
    if status in ("201", "202"):
        yield "Location"
    if status == "503" and PROBLEM_MEDIA_TYPE in response["content"]:
        yield "Retry-After"


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
