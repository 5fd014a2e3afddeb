"""A real child process: what it answers, and what becomes of calls when it fails, hangs or is gone."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import numpy as np
import pytest

from roadcast.child import Child, ChildDown

pytestmark = pytest.mark.anyio


def tools() -> SimpleNamespace:
    return SimpleNamespace(add=sum, sleep=time.sleep, exit=os._exit, size=len)


@pytest.fixture
async def child() -> AsyncIterator[Child]:
    made = Child("worker", tools)
    made.start()
    yield made
    made.stop()


async def test_it_answers(child: Child) -> None:
    assert await child.call("add", [1, 2, 3], timeout_s=30) == 6
    assert (child.running, child.deaths) == (True, 0)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("add", ["a"]), "could not add: TypeError"),
        (("exit", 3), "died"),
        (("sleep", 60), r"did not sleep within 2 s"),
    ],
)
async def test_a_call_that_fails_ends_the_child_and_is_counted(
    child: Child, call: tuple[str, object], reason: str
) -> None:
    await child.call("add", [1], timeout_s=30)
    with pytest.raises(ChildDown, match=f"^the worker's process {reason}"):
        await child.call(*call, timeout_s=2)
    assert (child.running, child.deaths) == (False, 1)
    child.start()
    assert await child.call("add", [2], timeout_s=30) == 2


async def test_a_call_to_no_child_is_no_death() -> None:
    child = Child("worker", tools)
    with pytest.raises(ChildDown, match="is not running"):
        await child.call("add", [1], timeout_s=1)
    assert child.deaths == 0


async def test_a_child_that_does_not_read_cannot_hold_its_caller_up(child: Child) -> None:
    """What is sent is larger than a pipe: the time-out counts for sending too."""
    await child.call("add", [1], timeout_s=30)
    waiting = asyncio.create_task(child.call("sleep", 60, timeout_s=60))
    await asyncio.sleep(0.2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not child.running
    child.start()
    await child.call("add", [1], timeout_s=30)
    [process] = multiprocessing.active_children()
    os.kill(process.pid or 0, signal.SIGSTOP)
    with pytest.raises(ChildDown, match="did not size within 1 s"):
        await child.call("size", np.zeros(10_000_000), timeout_s=1)
