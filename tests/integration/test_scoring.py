"""No target is scored twice, and none is left out, whatever the order in which feeds come."""

import asyncio
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import psycopg
from alembic import command
from alembic.config import Config
from integration.databases import connected, conninfo
from integration.test_pipeline import INTERVAL, LATER, START, replayed, running, tick
from sqlalchemy import create_engine

from roadcast.domain.reading import Source
from roadcast.domain.sensor import Sensor
from roadcast.domain.times import from_ms
from roadcast.flow.onsets import ONSET
from roadcast.forecasting.scoring import SERVED
from roadcast.storage import forecasts, migrations, scored_ticks, scores, sensors
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.migrate import migrate
from roadcast.storage.partitions import Partitions
from roadcast.windows import SUMS


async def replay(pipeline, name, ticks):
    for i in ticks:
        await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i, name))
    await pipeline.issued(START + ticks[-1] * INTERVAL)


async def scored(pipeline):
    """How many targets of the first horizon."""
    async with pipeline.database.read() as reader:
        found = await scores.since(reader, from_ms(START).date())
    return sum(score.measures["n"] for score in found if is_first(score) and score.state != ONSET)


def is_first(score):
    return score.model == SERVED and score.horizon_minutes == 5


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


def test_a_live_window_that_a_crash_left_open_is_scored_when_it_is_whole(address):
    async def go():
        def now(i):
            return from_ms(START + i * INTERVAL) + timedelta(seconds=10)

        async def send(pipeline, i, speeds):
            await pipeline.ingest.submit(tick(i, speeds), Source("http"))

        async with running(address, now=now(2)) as pipeline:
            await send(pipeline, 1, (60.0, 50.0, 40.0))
            await pipeline.issued(START + INTERVAL)
            await send(pipeline, 2, (60.0, None, None))
        async with running(address, now=now(2)) as pipeline:
            await pipeline.issued(START + 2 * INTERVAL)
            await send(pipeline, 2, (None, 50.0, 40.0))
            early = await settles(pipeline, 0)
        async with running(address, now=now(3)) as pipeline:
            await send(pipeline, 3, (60.0, 50.0, 40.0))
            await pipeline.issued(START + 3 * INTERVAL)
            return early, await settles(pipeline, 6)

    assert asyncio.run(go()) == (True, True)


def test_a_window_is_judged_by_the_reference_speed_of_its_time_whenever_it_is_scored(address):
    async def go():
        async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
            await describe(address, Sensor("C", reference_speed=50.0))  # the first one
            await pipeline.ingest.reload()
            await replay(pipeline, "a", range(1, 7))
            async with pipeline.database.write() as writer:
                await sensors.set_reference_speeds(writer, {2: 66.0, 3: 55.0}, from_ms(START + 4 * INTERVAL))
        async with running(address, services=("score",), now=LATER) as pipeline:
            assert await settles(pipeline, 15)
            async with pipeline.database.read() as reader:
                found = await scored_ticks.of_times(reader, [from_ms(START + i * INTERVAL) for i in range(2, 7)])
            return found.truth.reference

    references = asyncio.run(go())
    assert references[:, 0].tolist() == [50.0] * 5
    assert np.isnan(references[:2, 1:]).all()
    assert references[2:, 1:].tolist() == [[66.0, 55.0]] * 3


def test_a_store_with_the_old_sums_is_scored_anew(address):
    ticks = [from_ms(START + i * INTERVAL) for i in range(1, 4)]
    columns, zeros = ", ".join(SUMS), ", ".join("0" for _ in SUMS)
    zero_lists = f"ARRAY{[0] * 10}, ARRAY{[0.0] * 10}, ARRAY{[0] * 10}"
    with psycopg.connect(conninfo(address), autocommit=True) as old:
        for at in ticks:
            old.execute(f"INSERT INTO ticks (tick_end, {columns}) VALUES (%s, {zeros})", (at,))  # noqa: S608 - our own names
        downgrade(address, "0003")
        old.execute("INSERT INTO scored_ticks VALUES (%s)", (ticks[0],))
        old.execute(
            f"INSERT INTO scores VALUES ('2026-03-02', 'served', 5, false, 1, 1, 1, 1, 1, 1, 1, 1, 1, {zero_lists})"  # noqa: S608
        )
    migrate(address, timeout_s=10)

    async def go():
        async with connected(address) as database, database.read() as reader:
            return await scored_ticks.due(reader, from_ms(0), LATER), await scores.since(reader, date(2026, 1, 1))

    assert asyncio.run(go()) == (ticks, [])


def downgrade(address, revision):
    engine = create_engine(address.url())
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()


async def describe(address, *known):
    async with connected(address) as database, database.write() as writer:
        await sensors.describe(writer, known)


async def near_onset(pipeline):
    """How many targets of the first horizon are known to be near an onset."""
    async with pipeline.database.read() as reader:
        found = await scores.since(reader, from_ms(START).date(), state=ONSET)
    return sum(score.measures["n"] for score in found if is_first(score))


async def onsets_known(pipeline, tick_no):
    """Wait until it is known of a tick whether it was near an onset."""
    async with asyncio.timeout(30):
        while True:
            async with pipeline.database.read() as reader:
                scored = await scored_ticks.of_times(reader, [from_ms(START + tick_no * INTERVAL)])
            if scored.onset_known.all() and len(scored.onset_known):
                return
            await asyncio.sleep(0.1)


def breakdown(i):
    """Sensor A breaks down at tick 11."""
    return tick(i, (60.0 if i < 11 else 20.0, 50.0, 40.0))


def test_an_onset_is_scored_once_when_it_is_known_also_across_a_restart(address):
    async def go():
        await describe(address, Sensor("A", reference_speed=60.0), Sensor("B", reference_speed=60.0))
        async with running(address, now=LATER) as pipeline:
            for i in range(1, 21):
                if i != 16:
                    await pipeline.ingest.submit(breakdown(i), replayed(i))
            await pipeline.issued(START + 20 * INTERVAL)
            await onsets_known(pipeline, 14)  # of the next one it is not known yet: half an hour has not passed
            first = await near_onset(pipeline)
        async with running(address, now=LATER) as pipeline:
            await pipeline.ingest.submit(breakdown(16), replayed(20))  # late
            for i in range(21, 31):
                await pipeline.ingest.submit(breakdown(i), replayed(i))
            await pipeline.issued(START + 30 * INTERVAL)
            await onsets_known(pipeline, 24)
            await pipeline.scored(START + 30 * INTERVAL)
            return first, await near_onset(pipeline)

    assert asyncio.run(go()) == (10, 13)  # ticks 5 to 14, then to 17, of which one came late


def test_what_comes_late_for_a_scored_window_changes_no_score(address):
    async def go():
        async with running(address, now=LATER) as pipeline:
            for i in range(1, 11):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, None if i == 5 else 40.0)), replayed(i))
            await pipeline.issued(START + 10 * INTERVAL)
            before = await settles(pipeline, 26)
            await pipeline.ingest.submit(tick(5, (61.0, None, 40.0)), replayed(10))
            await pipeline.ingest.submit(tick(11, (60.0, 50.0, 40.0)), replayed(11))
            await pipeline.issued(START + 11 * INTERVAL)
            after = await settles(pipeline, 29)
            async with pipeline.database.read() as reader:
                scored = await scored_ticks.of_times(reader, [from_ms(START + 5 * INTERVAL)])
            return before, after, scored.truth.speed[0].tolist()

    before, after, speeds = asyncio.run(go())
    assert (before, after) == (True, True)
    assert speeds[:2] == [60.0, 50.0]
    assert np.isnan(speeds[2])


def an_issue(at_ms, speed, **candidates):
    values = np.full((1, 12), speed, np.float32)
    medians = {name: np.full((1, 12), median, np.float32) for name, median in candidates.items()}
    return IssuedRows(
        at_ms, "m", "1", np.array([1], np.int32), np.zeros(1, np.int32),
        values, values, np.full_like(values, 0.5), np.full_like(values, 5),
        np.repeat(values[..., None], 7, axis=2), medians,
    )  # fmt: skip


def test_issues_for_which_others_competed_are_scored_too(address):
    async def go():
        await describe(address, Sensor("A", reference_speed=60.0))
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            for i in range(1, 4):
                await pipeline.ingest.submit(tick(i, (60.0, None, None)), replayed(i))
            async with pipeline.database.write() as writer:
                both = an_issue(START + INTERVAL, 50, last_value=40, profile=30)
                await forecasts.store(writer, both, Partitions("forecasts"))
                alone = an_issue(START + 2 * INTERVAL, 55, last_value=45)
                await forecasts.store(writer, alone, Partitions("forecasts"))
            await pipeline.scorer._catch_up(from_ms(START), from_ms(START + 3 * INTERVAL))
            async with pipeline.database.read() as reader:
                return await scores.since(reader, from_ms(START).date(), horizon_minutes=5)

    found = {score.model: (score.measures["n"], score.measures["absolute"]) for score in asyncio.run(go())}
    assert found == {SERVED: (2, 15), "last_value": (2, 35), "profile": (1, 30)}
