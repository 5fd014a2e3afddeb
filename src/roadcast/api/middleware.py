"""What every request passes through, as plain ASGI: measuring, failures, the feed's clock, CORS, the body's limit."""

import asyncio
import time
from datetime import datetime
from http import HTTPStatus

import structlog
from asgi_correlation_id import correlation_id
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadcast.api.deps import AS_OF, context_in
from roadcast.api.metrics import Metrics
from roadcast.api.problems import Refused, problem
from roadcast.domain.clock import FeedClock
from roadcast.domain.times import rfc3339
from roadcast.errors import FieldError

AS_OF_HEADER = "Roadcast-As-Of"
FEED_HEADER = "Roadcast-Feed"
LONGEST_REQUEST_ID = 128
IDENTITY = "identity"
"""The encoding that is none."""
QUIET = frozenset({"/health", "/metrics"})
"""Routes that machines ask every few seconds."""

log = structlog.get_logger()


class Measured:
    """Counts each request by its route's template and writes one line of it to the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = int(message.get("status", status))
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._report(scope, status, time.perf_counter() - began)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        route: str = getattr(scope.get("route"), "path_format", "unmatched")
        self._metrics.observe(scope["method"], route, status, seconds)
        write = log.debug if route in QUIET else log.info
        write(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(seconds * 1000, 1),
        )


class Failures:
    """Answers what nobody foresaw with a 500 that tells nothing of it, and writes its stack trace to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            log.info("client_left", path=scope["path"])
        except asyncio.CancelledError:
            if scope["type"] != "http" or started:
                raise
            log.warning("cut_off", path=scope["path"])  # it took longer than an end of the process waits
            ending = problem(
                Request(scope),
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server ends or starts again, and what was asked is not done. Ask again.",
                headers={"Retry-After": "2"},
            )
            await ending(scope, receive, send)
        except Exception:  # the last line of defence: whatever it was, it is logged, and the client gets an answer
            if scope["type"] != "http" or started:
                raise
            log.exception("failed", path=scope["path"])
            text = f"The server failed; its log says why under request {correlation_id.get()}."
            await problem(Request(scope), HTTPStatus.INTERNAL_SERVER_ERROR, text)(scope, receive, send)


class Heads:
    """Has HEAD answered as GET is; the server, which keeps the method, leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class FeedStated:
    """States on every answer the feed, and its clock or the past time for which the answer was asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        clock = context_in(scope).clock

        async def stating(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                as_of: datetime | None = scope.get("state", {}).get(AS_OF)
                headers[AS_OF_HEADER] = rfc3339(as_of or clock.now())
                headers[FEED_HEADER] = feed_kind(clock)
            await send(message)

        return await self._app(scope, receive, stating)


def is_request_id(text: str) -> bool:
    """Whether a client's own id can go into the log and back into a header."""
    return len(text) <= LONGEST_REQUEST_ID and text.isascii() and text.isprintable()


def feed_kind(clock: FeedClock) -> str:
    """`simulated`, `replayed` or `live`."""
    return "simulated" if clock.simulated else clock.mode


class Cors:
    """Starlette's CORS, for the origins that the context allows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._cors: CORSMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        self._cors = self._cors or CORSMiddleware(
            self._app,
            allow_origins=context_in(scope).cors_origins,
            allow_methods=("GET", "POST", "PATCH"),
            allow_headers=("*",),
            expose_headers=(AS_OF_HEADER, FEED_HEADER, "Link", "Location", "Retry-After", "X-Request-ID"),
        )
        return await self._cors(scope, receive, send)


class BodyLimit:
    """Refuses a body that is encoded, one above the limit, by what is declared or while it arrives, and a slow one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limits = context_in(scope).limits
        limit, deadline_s = limits.max_body_bytes, asyncio.get_running_loop().time() + limits.body_timeout_s
        size, whole = 0, False

        async def limited() -> Message:
            # Raised where the route reads the body, so that it is answered like every other error.
            nonlocal size, whole
            if (encoding := Headers(scope=scope).get("content-encoding", IDENTITY)) != IDENTITY:
                raise _encoded(encoding)
            if (declared := _declared(scope)) > limit:
                raise _too_large(declared, limit)
            try:
                async with asyncio.timeout_at(None if whole else deadline_s):
                    message = await receive()
            except TimeoutError:
                raise _too_slow(size, limits.body_timeout_s) from None
            whole = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(size, limit)
            return message

        return await self._app(scope, limited, send)


def _encoded(encoding: str) -> Refused:
    return Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, FieldError("Content-Encoding", encoding, "expected none"))


def _declared(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _too_large(size: int, limit: int) -> Refused:
    wrong = FieldError("body", f"{size} bytes", f"expected at most {limit} bytes (MAX_BODY_BYTES)")
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, wrong)


def _too_slow(size: int, timeout_s: float) -> Refused:
    wrong = FieldError("body", f"{size} bytes", f"expected the whole body within {timeout_s:g} s")
    return Refused(HTTPStatus.REQUEST_TIMEOUT, wrong)
