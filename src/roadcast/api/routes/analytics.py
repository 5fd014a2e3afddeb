"""Congestion, patterns and trends."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter
from fastapi.responses import Response

from roadcast.api.answers import answer
from roadcast.api.context import ApiContext
from roadcast.api.deps import Context, Days, Hours, OneSensor, analyst
from roadcast.api.problems import NOT_FOUND, RESPONSES
from roadcast.live.analytics import Analyst, CongestionDocument, PatternDocument, Subject, TrendDocument

router = APIRouter(prefix="/api/analytics", tags=["analytics"], responses={**RESPONSES, **NOT_FOUND})


@asynccontextmanager
async def _analyst(context: ApiContext, subject: Subject | None) -> AsyncGenerator[Analyst]:
    async with context.database.read() as reader:
        yield analyst(context, reader, subject)


@router.get(
    "/congestion",
    operation_id="get_congestion",
    response_model=CongestionDocument,
)
async def congestion(context: Context, hours: Hours, sensor: OneSensor) -> Response:
    """Congestion hour by hour over the last hours.

    As it is known now, corrections included: there is no `as_of`.
    """
    async with _analyst(context, sensor) as look:
        return answer(await look.congestion(hours))


@router.get("/patterns", operation_id="get_patterns", response_model=PatternDocument)
async def patterns(context: Context, sensor: OneSensor, days: Days = 7) -> Response:
    """The usual day, by local hour, and the usual week, by weekday.

    As it is known now, corrections included: there is no `as_of`.
    """
    async with _analyst(context, sensor) as look:
        return answer(await look.patterns(days))


@router.get("/trends", operation_id="get_trends", response_model=TrendDocument)
async def trends(context: Context, sensor: OneSensor, days: Days = 30) -> Response:
    """Day by day over the last days, with the slope of the average speed.

    As it is known now, corrections included: there is no `as_of`.
    """
    async with _analyst(context, sensor) as look:
        return answer(await look.trends(days))
