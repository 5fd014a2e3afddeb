"""Logs: one structured line per event, to standard output and to a file."""

import logging
import sys
import time
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TextIO

import orjson
import structlog
from asgi_correlation_id import correlation_id
from structlog.typing import EventDict, Processor, WrappedLogger

QUIET = ("uvicorn", "alembic.runtime.plugins", "matplotlib", "asyncio", "watchfiles", "httpx", "httpcore", "multipart")
"""Libraries whose details help nobody, even in development."""
TOLD_BY_US = ("sqlalchemy.pool", "psycopg")
"""Libraries that trace a lost connection, which the services and the board tell in a line."""


FILE_PAUSE_S = 60.0
"""How long a file that could not be written is left alone."""


class _Output(logging.StreamHandler[TextIO]):
    """Standard output. Whoever read it may be gone; we go on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's signature
        """Called where a record could not be written."""


class _File(WatchedFileHandler):
    """A file, also after it was moved away. One that cannot be written, as on a full disk, rests for a while.

    Each time one warning says so.
    """

    _rests_until_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless the file rests."""
        if time.monotonic() < self._rests_until_s:
            return
        try:
            super().emit(record)
        except OSError:  # the file was moved away, and its folder takes no new one
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's signature
        """Called where a record could not be written."""
        self._rests_until_s = time.monotonic() + FILE_PAUSE_S
        structlog.get_logger().warning(
            "log_file", detail=f"{self.baseFilename} cannot be written; it is tried again in {FILE_PAUSE_S:.0f} s."
        )


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
    handlers: list[logging.Handler] = [_Output(sys.stdout)]
    problem = None
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_File(file, encoding="utf-8"))
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
