"""Services side by side: which end ends the process, and which waits."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from roadcast import services
from roadcast.errors import Unavailable
from roadcast.services import Service, run


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_a_service_that_ends_ends_the_others_and_is_named() -> None:
    async def ends() -> None: ...

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run([Service("other", "api", for_ever), Service("brief", "api", ends)]))
    assert [str(error) for error in raised.value.exceptions] == ["service brief ended"]


def test_a_service_that_fails_raises_what_it_raised() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run([Service("other", "api", for_ever), Service("broken", "api", fails)]))
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
    monkeypatch.setattr(services, "PAUSE_S", 0)
    attempts: list[str] = []

    async def patient() -> None:
        attempts.append("began")
        if len(attempts) < 3:
            await works()

    with pytest.raises(ExceptionGroup):
        asyncio.run(run([Service("patient", "api", patient)]))
    assert len(attempts) == 3
