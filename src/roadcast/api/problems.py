"""Errors as RFC 9457 problems, each naming the field, the value and what was expected."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from typing_extensions import TypedDict

from roadcast.errors import PROBLEM_MEDIA_TYPE, Conflict, FieldError, InvalidInput, NotFound, RoadcastError, Unavailable
from roadcast.live.documents import encode

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
    """Why a request was not served, as in RFC 9457. `errors` is empty only where nothing of the request was wrong."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ProblemError]


class Refused(HTTPException):
    """A request that is refused for one thing, with a status that no error of the domain has."""

    def __init__(self, status: HTTPStatus, error: FieldError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, f"{error.field}: {error.reason}", headers)
        self.error = error


def not_json(value: object, reason: str) -> Refused:
    """What answers a body that cannot be read."""
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, FieldError("body", value, f"expected JSON: {reason}"))


def not_declared(request: Request) -> Refused:
    """What answers a body that is not declared as JSON."""
    declared = FieldError("Content-Type", request.headers.get("content-type"), "expected application/json")
    return Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, declared)


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
        "errors": list(errors),
    }
    return Response(encode(body), status, headers, PROBLEM_MEDIA_TYPE)


def shown(value: object) -> Any:
    """A value as it can be echoed: text up to `LONGEST_VALUE` characters, and as text, too, what is longer as JSON.

    So are numbers that not every reader of JSON gets right.
    """
    exact = abs(value) < 1 << 53 if isinstance(value, int) else isinstance(value, float) and math.isfinite(value)
    if value is None or exact:
        return value
    if isinstance(value, str):
        return _shortened(value)
    text = _as_json(value)
    if len(text) > LONGEST_VALUE or not isinstance(value, list | dict):
        return _shortened(text)
    if isinstance(value, list):
        return [shown(item) for item in cast("list[object]", value)]
    return {_shortened(str(name)): shown(item) for name, item in cast("dict[object, object]", value).items()}


def _shortened(text: str) -> str:
    text = text.encode(errors="replace").decode()  # JSON can carry halves of characters, which nobody can encode
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def _as_json(value: object) -> str:
    """A value as JSON; of a long one the beginning, and the rest is not looked at."""
    text = ""
    for piece in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
        text += piece
        if len(text) > LONGEST_VALUE:
            break
    return text


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
JSON_BODY: Responses = {
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "The body exceeds MAX_BODY_BYTES."},
    415: {"model": Problem, "description": "The body is encoded, or not declared as JSON."},
}
"""What any route with a body may answer besides."""
CONFLICT: Responses = {409: {"model": Problem, "description": "Its state does not allow it."}}


_STATUS: dict[type[Exception], HTTPStatus] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RoadcastError)  # noqa: S101 - registered for nothing else
    known = (status for kind, status in _STATUS.items() if isinstance(error, kind))
    status = next(known, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    log.info("refused", path=request.url.path, status=int(status), reason=error.message)
    return problem(request, status, str(error), field_errors(_wrong_fields(request, error)), headers)


def _wrong_fields(request: Request, error: RoadcastError) -> Iterable[FieldError]:
    """What an error names; else what is not there, or cannot be done now, is what the path names."""
    if error.errors or not isinstance(error, NotFound | Conflict):
        return error.errors
    return [FieldError(name, value, error.message) for name, value in request.path_params.items()]


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    details = error.errors()
    for detail in details:
        if detail["type"] == "json_invalid":
            return _refused(request, not_json(error.body, detail["ctx"]["error"]))
        if isinstance(detail["input"], bytes):  # FastAPI reads no body that is not declared as JSON
            return _refused(request, not_declared(request))
    errors = [_validation_error(detail) for detail in details[:MOST_ERRORS]]
    named = "; ".join(f"{item['field']}: {item['reason']}" for item in errors)
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, named, errors)


_REASONS = {"missing": "expected, and not given"} | dict.fromkeys(
    ("dict_type", "model_type", "model_attributes_type"), "expected an object with named fields"
)
"""In our words, by pydantic's types of errors."""


def _validation_error(detail: Mapping[str, Any]) -> ProblemError:
    """What pydantic says; a field that is missing has no value."""
    field = ".".join(str(part) for part in detail["loc"][1:]) or str(detail["loc"][0])
    value = None if detail["type"] == "missing" else detail["input"]
    reason = _REASONS.get(detail["type"], str(detail["msg"]).removeprefix("Value error, "))
    return {"field": shown(field), "value": shown(value), "reason": reason}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for nothing else
    return _refused(request, error if isinstance(error, Refused) else _translated(request, error))


def _refused(request: Request, refused: Refused) -> Response:
    return problem(request, refused.status_code, refused.detail, field_errors([refused.error]), refused.headers)


def _translated(request: Request, error: StarletteHTTPException) -> Refused:
    """What the frameworks refuse, with the field that was wrong."""
    match HTTPStatus(error.status_code):
        case HTTPStatus.BAD_REQUEST:  # FastAPI's word for what its parser gave up on
            return not_json(None, "nested too deeply, or not in UTF-8")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = _allowed(request, error)
            reason = f"expected {' or '.join(allowed)}"
            wrong = FieldError("method", request.method, reason)
            return Refused(HTTPStatus.METHOD_NOT_ALLOWED, wrong, {"Allow": ", ".join(allowed)})
        case status:
            wrong = FieldError("path", request.url.path, "expected one of those that /docs lists")
            return Refused(status, wrong, error.headers)


def _allowed(request: Request, error: StarletteHTTPException) -> list[str]:
    """Several routes may share a path; `error` knows the methods of the first alone, the description all."""
    route: str = getattr(request.scope.get("route"), "path_format", "")
    described = {method.upper() for method in request.app.openapi()["paths"].get(route, {})}
    methods = described or set((error.headers or {}).get("Allow", "GET").split(", "))
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem."""
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RoadcastError, _domain_error)
