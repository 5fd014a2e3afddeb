"""Errors as RFC 9457 problems, each naming the field, the value and what was expected."""

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NotRequired

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from typing_extensions import TypedDict

from roadcast.errors import Conflict, FieldError, InvalidInput, NotFound, RoadcastError, Unavailable
from roadcast.live.documents import encode

MEDIA_TYPE = "application/problem+json"
LONGEST_VALUE = 200
"""Characters of a value that are echoed."""
MOST_ERRORS = 100
"""Fields that one problem names."""

log = structlog.get_logger()


class ProblemError(TypedDict):
    """One field that was wrong."""

    field: str
    value: Any
    reason: str


class Problem(TypedDict):
    """Why a request was not served, as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: NotRequired[list[ProblemError]]


def problem(
    request: Request,
    status: int,
    detail: str,
    errors: Sequence[ProblemError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer that says what went wrong."""
    body: Problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    if errors:
        body["errors"] = list(errors)
    return Response(encode(body), status, headers, MEDIA_TYPE)


def shown(value: object) -> Any:
    """A value as it can be echoed: a plain one as it is, text and anything else up to `LONGEST_VALUE` characters."""
    exact = abs(value) < 1 << 53 if isinstance(value, int) else isinstance(value, float) and math.isfinite(value)
    if value is None or exact:
        return value
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text.encode(errors="replace").decode()  # JSON can carry halves of characters, which nobody can encode
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def field_errors(errors: Iterable[FieldError]) -> list[ProblemError]:
    """Field errors as a problem names them."""
    return [{"field": error.field, "value": shown(error.value), "reason": error.reason} for error in errors]


Responses = dict[int | str, dict[str, Any]]
"""What a route may answer, for its description."""

INVALID: Responses = {
    422: {"model": Problem, "description": "Something asked for cannot be; `errors` names the fields."}
}
AWAY: Responses = {
    503: {"model": Problem, "description": "A part is away or busy; `Retry-After` says when to ask again."}
}
RESPONSES: Responses = {**INVALID, **AWAY}
"""What most routes may answer besides; as `responses=` of a router."""
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such thing."}}
BODY: Responses = {
    400: {"model": Problem, "description": "The body is not JSON."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "The body exceeds MAX_BODY_BYTES."},
}
"""What any route with a body may answer besides."""
JSON_BODY: Responses = {**BODY, 415: {"model": Problem, "description": "The body is not declared as JSON."}}
CONFLICT: Responses = {409: {"model": Problem, "description": "Its state does not allow it."}}


_STATUS: dict[type[Exception], HTTPStatus] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RoadcastError)  # noqa: S101 - registered for nothing else
    status = _STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    errors = field_errors(error.errors) if isinstance(error, InvalidInput) else []
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    log.info("refused", path=request.url.path, status=int(status), reason=error.message)
    return problem(request, status, str(error), errors, headers)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return problem(request, HTTPStatus.BAD_REQUEST, "The body is not JSON.")
    if any(isinstance(detail["input"], bytes) for detail in details):
        return problem(
            request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Declare the body as JSON: Content-Type: application/json."
        )
    errors = [_validation_error(detail) for detail in details[:MOST_ERRORS]]
    named = "; ".join(f"{item['field']}: {item['reason']}" for item in errors)
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, named, errors)


def _validation_error(detail: Mapping[str, Any]) -> ProblemError:
    """What pydantic says; a field that is missing has no value."""
    field = ".".join(str(part) for part in detail["loc"][1:]) or str(detail["loc"][0])
    value = None if detail["type"] == "missing" else detail["input"]
    return {"field": shown(field), "value": shown(value), "reason": str(detail["msg"]).removeprefix("Value error, ")}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for nothing else
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _not_allowed(request, error)
    return problem(request, error.status_code, _detail(request, error), headers=error.headers)


def _not_allowed(request: Request, error: StarletteHTTPException) -> Response:
    """Several routes may share a path; `error` knows the methods of the first alone, the description all."""
    route: str = getattr(request.scope.get("route"), "path_format", "")
    described = sorted(method.upper() for method in request.app.openapi()["paths"].get(route, {}))
    allowed = ", ".join(described) or (error.headers or {})["Allow"]
    text = f"{request.method} is not allowed here; allowed: {allowed}."
    return problem(request, HTTPStatus.METHOD_NOT_ALLOWED, text, headers={"Allow": allowed})


def _detail(request: Request, error: StarletteHTTPException) -> str:
    match error.status_code:
        case HTTPStatus.NOT_FOUND if error.detail == HTTPStatus.NOT_FOUND.phrase:
            return f"There is nothing at {shown(request.url.path)}; /docs lists what there is."
        case _:
            return error.detail


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem."""
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RoadcastError, _domain_error)
