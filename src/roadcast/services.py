"""Services and the board on which each says how it is.

A service is a named coroutine that runs until it is cancelled. One that finds a part away, such as the database,
begins again until it is back. One that ends otherwise ends its process, and whoever supervises that restarts it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import structlog

from roadcast.errors import Unavailable

PAUSE_S = 1.0
"""How long a service waits before it begins again."""

log = structlog.get_logger()


class Status(StrEnum):
    """How a part is. `starting` and `degraded` still serve."""

    OK = "ok"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


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
        """Say how part `name` is. `since` moves only when the status changes."""
        old = self._parts.get(name)
        same = old is not None and old.status is status
        new = Part(name, status, old.since if old is not None and same else self.now(), detail, remedy)
        self._parts[name] = new
        if not same:
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


async def run(services: Iterable[Service]) -> None:
    """Run the services side by side until one ends, which it should not.

    Raises:
        ExceptionGroup: with the error that ended a service; a RuntimeError names one that ended without.
    """
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(_endless(service), name=service.name)


async def _endless(service: Service) -> None:
    while True:
        try:
            await service.run()
        except* Unavailable as errors:  # of the service, or of a task of its own
            log.warning("service_waits", service=service.name, reason=_reason(errors))
            await asyncio.sleep(PAUSE_S)
        else:
            raise RuntimeError(f"service {service.name} ended")


def _reason(errors: ExceptionGroup[Unavailable]) -> str:
    first = errors.exceptions[0]
    return _reason(first) if isinstance(first, ExceptionGroup) else first.message
