"""What every log promises. Each implementation passes the same suite."""

import asyncio

import pytest

from roadcast.errors import Unavailable
from roadcast.streaming.log import Record
from roadcast.streaming.memory import MemoryLog

pytestmark = pytest.mark.parametrize("make_log", [MemoryLog], ids=["memory"])


def records(*values, key="s"):
    return [Record(key, str(value).encode()) for value in values]


async def take(subscription, count, limit=100):
    """The next `count` values."""
    found = []
    async with asyncio.timeout(5):
        async for batch in subscription.batches(limit):
            assert len(batch) <= limit
            found += batch
            if len(found) >= count:
                return [record.value.decode() for record in found], found[-1].position
    raise AssertionError


def test_a_group_sees_every_record_in_order(make_log):
    async def go():
        log = make_log()
        async with log.consume("t", "g") as group:
            await log.publish("t", records(1, 2))
            await log.publish("t", records(3))
            return await take(group, 3)

    assert asyncio.run(go())[0] == ["1", "2", "3"]


def test_a_group_goes_on_after_what_it_committed(make_log):
    async def go():
        log = make_log()
        async with log.consume("t", "g") as group:
            await log.publish("t", records(1, 2, 3))
            _, position = await take(group, 1, limit=1)
            await group.commit(position)
            await take(group, 1, limit=1)
        async with log.consume("t", "g") as group:
            return await take(group, 2)

    assert asyncio.run(go())[0] == ["2", "3"]


def test_groups_do_not_share(make_log):
    async def go():
        log = make_log()
        async with log.consume("t", "a") as a, log.consume("t", "b") as b:
            await log.publish("t", records(1))
            return (await take(a, 1))[0], (await take(b, 1))[0]

    assert asyncio.run(go()) == (["1"], ["1"])


def test_a_tail_sees_what_comes_after_it_began(make_log):
    async def go():
        log = make_log()
        await log.publish("t", records(1))
        async with log.tail("t") as tail:
            await log.publish("t", records(2))
            return await take(tail, 1)

    assert asyncio.run(go())[0] == ["2"]


def test_topics_are_apart(make_log):
    async def go():
        log = make_log()
        async with log.tail("a") as tail:
            await log.publish("b", records(1))
            await log.publish("a", records(2))
            return await take(tail, 1)

    assert asyncio.run(go())[0] == ["2"]


def test_publish_tells_the_position_of_the_last_record(make_log):
    async def go():
        log = make_log()
        async with log.tail("t") as tail:
            published = await log.publish("t", records(1, 2, 3))
            return published, await take(tail, 3)

    published, (values, position) = asyncio.run(go())
    assert values == ["1", "2", "3"]
    assert position == published


def test_a_slow_group_makes_the_publisher_wait_and_loses_nothing(make_log):
    async def go():
        log = make_log(capacity=10)
        async with log.consume("t", "g") as group:
            publisher = asyncio.create_task(publish_all(log))
            await asyncio.sleep(0.1)
            assert not publisher.done()
            seen = []
            async with asyncio.timeout(5):
                async for batch in group.batches(7):
                    seen += [record.value.decode() for record in batch]
                    await group.commit(batch[-1].position)
                    if len(seen) == 100:
                        break
            await publisher
            return seen

    async def publish_all(log):
        for first in range(0, 100, 4):
            await log.publish("t", records(*range(first, first + 4)))

    assert asyncio.run(go()) == [str(n) for n in range(100)]


def test_a_publisher_that_waits_too_long_is_told(make_log):
    async def go():
        log = make_log(capacity=1, timeout_s=0.1)
        async with log.consume("t", "g"):
            await log.publish("t", records(1))
            with pytest.raises(Unavailable):
                await log.publish("t", records(2))

    asyncio.run(go())


def test_a_subscription_says_where_it_goes_on(make_log):
    async def go():
        log = make_log()
        published = await log.publish("t", records(1, 2))
        async with log.tail("t") as tail:
            began = tail.next
            await log.publish("t", records(3))
            _, position = await take(tail, 1)
            return published, began, position, tail.next

    published, began, position, then = asyncio.run(go())
    assert (began, then) == (published + 1, position + 1)


def test_a_tail_that_is_gone_holds_nobody_up(make_log):
    async def go():
        log = make_log(capacity=2, timeout_s=1.0)
        async with log.tail("t"):
            await log.publish("t", records(1, 2))
        await log.publish("t", records(3, 4))
        await log.publish("t", records(5, 6))

    asyncio.run(go())


def test_a_publisher_that_waits_goes_on_when_the_tail_leaves(make_log):
    async def go():
        log = make_log(capacity=2, timeout_s=5.0)
        async with log.tail("t"):
            await log.publish("t", records(1, 2))
            waits = asyncio.create_task(log.publish("t", records(3)))
            await asyncio.sleep(0.05)
            assert not waits.done()
        async with asyncio.timeout(1):
            await waits

    asyncio.run(go())
