"""Services side by side: which end ends the process, and which waits."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from roadcast import services
from roadcast.errors import Unavailable
from roadcast.services import Board, Service, Status, run


def board() -> Board:
    return Board(lambda: datetime(2026, 3, 2, tzinfo=UTC))


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_a_service_that_ends_ends_the_others_and_is_named() -> None:
    async def ends() -> None: ...

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run([Service("other", "api", for_ever), Service("brief", "api", ends)], board()))
    assert [str(error) for error in raised.value.exceptions] == ["service brief ended"]


def test_a_service_that_fails_raises_what_it_raised() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run([Service("other", "api", for_ever), Service("broken", "api", fails)], board()))
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]


async def finds_it_away() -> None:
    raise Unavailable("away")


async def finds_it_away_in_a_task() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(finds_it_away())
        group.create_task(for_ever())


@pytest.mark.parametrize("works", [finds_it_away, finds_it_away_in_a_task])
def test_a_service_that_finds_the_database_away_begins_again(
    monkeypatch: pytest.MonkeyPatch, works: Callable[[], Awaitable[None]]
) -> None:
    monkeypatch.setattr(services, "PAUSES_S", (0, 0))
    said = board()
    seen: list[list[str]] = []

    async def patient() -> None:
        seen.append([f"{part.status} {part.detail}" for part in said.parts])
        if len(seen) < 4:
            await works()

    with pytest.raises(ExceptionGroup):
        asyncio.run(run([Service("patient", "api", patient)], said))
    assert seen == [[], [], ["degraded away"], ["degraded away"]]


def test_a_part_in_trouble_that_starts_again_is_in_trouble_until_it_is_ok() -> None:
    said = board()
    changes: list[tuple[str, str]] = []
    said.on_change(lambda old, new: changes.append((old.status if old else "", new.status)))
    for status in (Status.STARTING, Status.DEGRADED, Status.STARTING, Status.DEGRADED, Status.OK, Status.STARTING):
        said.report("predict", status)
    assert changes == [("", "starting"), ("starting", "degraded"), ("degraded", "ok"), ("ok", "starting")]
