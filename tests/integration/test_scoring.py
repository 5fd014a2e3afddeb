"""No target is scored twice, and none is left out, whatever the order in which feeds come."""

import asyncio

import psycopg
from integration.databases import connected, conninfo
from integration.test_pipeline import INTERVAL, LATER, START, replayed, running, tick

from roadcast.domain.times import from_ms
from roadcast.storage import marks, scores
from roadcast.storage.migrate import migrate
from roadcast.storage.scores import SERVED
from roadcast.windows import SUMS


async def replay(pipeline, name, ticks):
    for i in ticks:
        await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i, name))
    await pipeline.issued(START + ticks[-1] * INTERVAL)


async def scored(pipeline):
    """How many targets of the first horizon."""
    async with pipeline.database.read() as reader:
        found = await scores.since(reader, from_ms(START).date())
    return sum(score.n for score in found if score.model == SERVED and score.horizon_minutes == 5)


async def settles(pipeline, count):
    async with asyncio.timeout(30):
        while await scored(pipeline) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.sleep(3)
    return await scored(pipeline) == count


def test_a_replay_that_comes_again_is_not_scored_again(address):
    async def go():
        async with running(address, now=LATER) as pipeline:
            await replay(pipeline, "a", range(1, 11))
            first = await settles(pipeline, 27)
            await replay(pipeline, "b", range(301, 304))
            second = await settles(pipeline, 33)
            pipeline.messages.clear()
            await replay(pipeline, "a", range(1, 11))
            third = await settles(pipeline, 33)
            await replay(pipeline, "c", range(101, 104))  # between the two: nobody scored it
            return first, second, third, await settles(pipeline, 39)

    assert asyncio.run(go()) == (True, True, True, True)


def test_what_was_issued_and_not_scored_is_scored_at_the_next_start(address):
    async def go():
        async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
            await replay(pipeline, "b", range(301, 304))
            await replay(pipeline, "a", range(1, 6))
        async with running(address, services=("score",), now=LATER) as pipeline:
            return await settles(pipeline, 18)

    assert asyncio.run(go())


def test_a_store_that_had_a_mark_goes_on_after_it(address):
    ticks = [from_ms(START + i * INTERVAL) for i in range(1, 4)]
    columns, zeros = ", ".join(SUMS), ", ".join("0" for _ in SUMS)
    with psycopg.connect(conninfo(address), autocommit=True) as old:
        old.execute("DROP TABLE scored_ticks, calibrations, asked")
        old.execute("UPDATE alembic_version SET version_num = '0002'")
        for at in ticks:
            old.execute(f"INSERT INTO ticks (tick_end, {columns}) VALUES (%s, {zeros})", (at,))  # noqa: S608 - our own names
        old.execute("INSERT INTO marks VALUES ('score', %s)", (ticks[1],))
    migrate(address, timeout_s=10)

    async def go():
        async with connected(address) as database, database.read() as reader:
            return await scores.due(reader, from_ms(0), LATER), await marks.mark(reader, "score")

    assert asyncio.run(go()) == (ticks[2:], None)
