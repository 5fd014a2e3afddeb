"""Services and the board on which each says how it is.

A service is a named coroutine that runs until it is cancelled. One that finds a part away, such as the database,
begins again until it is back. One that ends otherwise ends its process, and whoever supervises that restarts it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import structlog

from roadcast.errors import Unavailable

PAUSES_S = (1.0, 1.0, 2.0, 5.0, 10.0)
"""How long a service waits before it begins again, at the first failure in a row, the second, and so on."""
STEADY_S = 60.0
"""Failures further apart than this are not in a row."""

log = structlog.get_logger()


class Status(StrEnum):
    """How a part is. `starting` and `degraded` still serve."""

    OK = "ok"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


TROUBLE = frozenset({Status.DEGRADED, Status.DOWN})


def worst(*found: Status) -> Status:
    """The worst of some statuses; STARTING where there is none."""
    return max(found, key=list(Status).index, default=Status.STARTING)


@dataclass(frozen=True, slots=True)
class Part:
    """What one part says of itself, since when, and what to do about it."""

    name: str
    status: Status
    since: datetime
    detail: str = ""
    remedy: str = ""


@dataclass(slots=True)
class Board:
    """The present state of every part. `on_change` hears of each change of status, old part first."""

    now: Callable[[], datetime]
    _parts: dict[str, Part] = field(default_factory=dict[str, Part])
    _listeners: list[Callable[[Part | None, Part], None]] = field(
        default_factory=list[Callable[[Part | None, Part], None]]
    )

    def report(self, name: str, status: Status, detail: str = "", remedy: str = "") -> None:
        """Say how part `name` is. `since` moves only when the status changes.

        A part in trouble that starts again is in trouble until it is OK.
        """
        old = self._parts.get(name)
        if status is Status.STARTING and old is not None and old.status in TROUBLE:
            return
        same = old is not None and old.status is status
        new = Part(name, status, old.since if old is not None and same else self.now(), detail, remedy)
        self._parts[name] = new
        if not same:
            if status in TROUBLE:
                log.warning("part_changed", part=name, status=status.value, detail=detail)
            else:
                log.info("part_changed", part=name, status=status.value, detail=detail)
            for listener in self._listeners:
                listener(old, new)

    def on_change(self, listener: Callable[[Part | None, Part], None]) -> None:
        """Call `listener` at every change of a part's status."""
        self._listeners.append(listener)

    @property
    def parts(self) -> list[Part]:
        """Every part, in the order in which it first reported."""
        return list(self._parts.values())

    def is_down(self, name: str) -> bool:
        """Whether part `name` last said that it is down."""
        part = self._parts.get(name)
        return part is not None and part.status is Status.DOWN

    @property
    def status(self) -> Status:
        """The worst status of all parts."""
        return worst(*(part.status for part in self._parts.values()))


@dataclass(frozen=True, slots=True)
class Service:
    """A loop with the role that runs it."""

    name: str
    role: str
    run: Callable[[], Awaitable[None]]


async def run(services: Iterable[Service], board: Board) -> None:
    """Run the services side by side until one ends, which it should not.

    Raises:
        ExceptionGroup: with the error that ended a service; a RuntimeError names one that ended without.
    """
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(_endless(service, board), name=service.name)


async def _endless(service: Service, board: Board) -> None:
    """Begin it again as often as a part is away.

    What fails twice in a row shows on the board; the service itself says when it is well.
    """
    failures = 0
    while True:
        began_s = time.monotonic()
        try:
            await service.run()
        except* Unavailable as errors:  # of the service, or of a task of its own
            error = _first(errors)
            failures = failures + 1 if time.monotonic() - began_s < STEADY_S else 1
            if failures == 1:
                log.warning("service_waits", service=service.name, reason=error.message)
            else:
                board.report(service.name, Status.DEGRADED, error.message, error.remedy)
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S)) - 1])
        else:
            raise RuntimeError(f"service {service.name} ended")


def _first(errors: ExceptionGroup[Unavailable]) -> Unavailable:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
