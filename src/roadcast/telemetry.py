"""Logs: one structured line per event, to standard output and to a file."""

import logging
import sys
from functools import partial
from pathlib import Path

import orjson
import structlog
from asgi_correlation_id import correlation_id
from structlog.typing import EventDict, Processor, WrappedLogger

from roadcast.outputs import Aside, LogFile, write_line

QUIET = ("uvicorn", "alembic", "matplotlib", "asyncio", "watchfiles", "httpx", "httpcore", "multipart")
"""Libraries whose details help nobody, even in development."""
TOLD_BY_US = ("sqlalchemy.pool", "psycopg")
"""Libraries that trace a lost connection, which the services and the board tell in a line."""


def set_up(level: str, form: str, file: Path | None) -> str | None:
    """Send structlog and the standard library's log to standard output and `file`, in one form (json or console).

    Returns what is wrong with `file`, where it cannot be written; the log goes to standard output all the same.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
        structlog.stdlib.ExtraAdder(),
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "json":
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    else:
        plain = structlog.dev.plain_traceback  # the richer ones print local variables, secrets among them
        final.append(structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain))
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handlers = [Aside(partial(write_line, sys.stdout.fileno()))]
    problem = None
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(Aside(LogFile(file).write))
        except OSError as error:
            problem = f"LOG_FILE={file}: {error.strerror}; the log goes to standard output only."
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in TOLD_BY_US:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return problem


def _to_json(event: object, **_options: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _add_request_id(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    request_id = correlation_id.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event
