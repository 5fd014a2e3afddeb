"""The app: routes, sockets and what every request passes through."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

import roadcast
from roadcast.api import socket
from roadcast.api.context import ApiContext
from roadcast.api.description import ABOUT, TAGS, describe
from roadcast.api.metrics import Metrics
from roadcast.api.middleware import BodyLimit, Cors, Failures, FeedStated, Heads, Measured, is_request_id
from roadcast.api.problems import answer_with_problems
from roadcast.api.routes import (
    analytics,
    docs,
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


def create_app(
    lifespan: Callable[[], AbstractAsyncContextManager[ApiContext]], registry: CollectorRegistry | None = None
) -> FastAPI:
    """The app; `lifespan` makes its context at start and takes it down at the end.

    registry: for metrics that others collect, too.
    """
    metrics = Metrics(registry or CollectorRegistry())

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncGenerator[None]:
        async with lifespan() as context:
            app.state.context, app.state.metrics = context, metrics
            with metrics.watching(context):
                yield

    app = FastAPI(
        title="Roadcast API",
        version=roadcast.__version__,
        description=ABOUT,
        openapi_tags=TAGS,
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    answer_with_problems(app)
    describe(app)
    for module in (
        traffic, readings, scoreboard, predictions,  # whose paths end in an id, which is none of the scoreboard's words
        models, analytics, sensors, incidents, network, system, docs, socket,
    ):  # fmt: skip
        app.include_router(module.router)
    docs.mount_files(app)
    for middleware in (BodyLimit, Failures, Cors, FeedStated):  # the last added is the first to see a request
        app.add_middleware(middleware)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(CorrelationIdMiddleware, validator=is_request_id)
    app.add_middleware(Heads)
    return app
