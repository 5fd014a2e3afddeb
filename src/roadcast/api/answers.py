"""Answers: documents as JSON, encoded once, and the way to a list's next page."""

from collections.abc import Mapping
from datetime import datetime

from fastapi import Request
from fastapi.responses import Response

from roadcast.domain.times import rfc3339
from roadcast.live.documents import encode


def answer(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as JSON."""
    return Response(encode(document), status, headers, "application/json")


def next_page(request: Request, cursor: object | None, **pinned: object) -> dict[str, str]:
    """The header that leads to what follows `cursor`; none where nothing follows.

    pinned: further parameters that hold the pages together, as text or as times; those that are None are left out.
    """
    if cursor is None:
        return {}
    given = {name: _parameter(value) for name, value in pinned.items() if value is not None}
    return {"Link": f'<{request.url.include_query_params(**given, cursor=str(cursor))}>; rel="next"'}


def _parameter(value: object) -> str:
    return rfc3339(value) if isinstance(value, datetime) else str(value)
