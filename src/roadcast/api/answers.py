"""Answers: documents as JSON, encoded once, and the way to a list's next page."""

from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import Response

from roadcast.live.documents import encode


def answer(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as JSON."""
    return Response(encode(document), status, headers, "application/json")


def next_page(request: Request, cursor: object | None) -> dict[str, str]:
    """The header that leads to what follows `cursor`; none where nothing follows."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.url.include_query_params(cursor=str(cursor))}>; rel="next"'}
