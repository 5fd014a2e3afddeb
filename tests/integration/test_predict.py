"""Forecasts on demand, and forecasts in trouble, on a real PostgreSQL."""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from integration.databases import conninfo
from integration.registry_process import registry_in
from integration.test_champion import REACH, WHY, at, saved
from integration.test_pipeline import CODES, INTERVAL, LATER, START, replayed, running, tick

from roadcast.domain.model import MODEL
from roadcast.domain.reading import ReadingBatch, Source
from roadcast.domain.times import from_ms, to_ms
from roadcast.errors import Unavailable
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import TARGETS, History
from roadcast.pipeline import explaining, forecaster, memory
from roadcast.pipeline.champion import Throne
from roadcast.pipeline.forecaster import EngineConfig, ForecasterProcess, Learner
from roadcast.pipeline.past import Span
from roadcast.services import Board, Status
from roadcast.storage import asked, forecasts
from roadcast.streaming.messages import IssueComplete

FEED = Source("file", replayed=True)


@asynccontextmanager
async def predicting(pipeline, learn_references=None):
    """Predict, begun again whenever the database is away."""

    async def endless():
        while True:
            try:
                await pipeline.predict.run()
            except* Unavailable:
                await asyncio.sleep(0.05)

    if learn_references is not None:
        pipeline.predict._learn_references = learn_references
    task = asyncio.create_task(endless())
    await asyncio.sleep(0.2)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def stored(pipeline, until=LATER):
    """The ticks that have an issue."""
    async with pipeline.database.read() as reader:
        times = await forecasts.issue_times(reader, from_ms(0), until)
    return [(to_ms(at) - START) // INTERVAL for at in times]


async def issue(pipeline, i):
    async with pipeline.database.read() as reader:
        return await forecasts.issued(reader, from_ms(START + i * INTERVAL))


async def is_complete(pipeline, i):
    """Whether an issue knows a reading of its own tick of every sensor."""
    return (await issue(pipeline, i)).age_ticks.tolist() == [0, 0, 0]


async def eventually(question):
    async with asyncio.timeout(30):
        while not await question():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@asynccontextmanager
async def unwritable_forecasts(address):
    """Forecasts cannot be stored; gives what ends the connection of whoever tries."""
    other = await psycopg.AsyncConnection.connect(conninfo(address), autocommit=True)
    async with other, other.transaction():
        await other.execute("LOCK TABLE forecasts IN SHARE MODE")

        async def cut_off():
            found = await other.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
            return await found.fetchone()

        yield cut_off


def test_a_forecast_that_could_not_be_stored_is_made_again(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline, predicting(pipeline):
            for i in range(1, 4):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            await pipeline.issued(START + 3 * INTERVAL)
            await pipeline.ingest.submit(tick(4, (61.0, 51.0, None)), FEED)
            async with unwritable_forecasts(address) as cut_off:
                wanted = await pipeline.predict.request()
                await eventually(cut_off)
                in_trouble = pipeline.predict.is_asked(wanted.issued_ms), await stored(pipeline)
            await pipeline.issued(wanted.issued_ms)
            await pipeline.ingest.submit(tick(4, (None, None, 41.0)), replayed(4))
            await eventually(lambda: is_complete(pipeline, 4))
            return wanted.issued_ms, in_trouble, await stored(pipeline), pipeline.predict.is_asked(wanted.issued_ms)

    asked_ms, in_trouble, afterwards, still_asked = asyncio.run(go())
    assert asked_ms == START + 4 * INTERVAL
    assert in_trouble == (True, [1, 2, 3])
    assert afterwards == [1, 2, 3, 4]
    assert not still_asked


def test_forecasters_are_told_of_holidays(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            pipeline.predict._config = replace(pipeline.predict._config, holidays=(15_411,))
            async with predicting(pipeline):
                await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), replayed(1))
                await pipeline.issued(START + INTERVAL)
            when = (INTERVAL, "UTC", (15_411,))
            past = await memory.recall(pipeline.database, START + INTERVAL, 3, *when)
            known = await explaining.recall(pipeline.database, START + INTERVAL, 1, *when)
            return await pipeline.predict._state(START + INTERVAL), past.history, known.state(3)

    assert [history.holidays for history in asyncio.run(go())] == [(15_411,)] * 3


def test_who_asks_is_answered_at_once_and_no_tick_is_passed_over(address, monkeypatch):
    monkeypatch.setattr("roadcast.pipeline.predict.REPLAY_CATCH_UP_TICKS", 3)  # it bounds what an outage missed alone

    async def go():
        gate = asyncio.Event()

        async def slow(until_ms):
            await gate.wait()
            return 0

        async with running(address, services=("ingest",), now=LATER) as pipeline, predicting(pipeline, slow):
            for i in range(1, 9):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            async with asyncio.timeout(2):
                asked = [await pipeline.predict.request() for _ in range(50)]
            waiting = pipeline.predict.is_asked(asked[0].issued_ms)
            gate.set()
            await pipeline.issued(START + 8 * INTERVAL)
            await eventually(lambda: settled(pipeline, asked[0].issued_ms))
            again = await pipeline.predict.request()
            issues = [m.issued_ms for m in pipeline.messages if isinstance(m, IssueComplete)]
            return asked, waiting, again, issues, await stored(pipeline)

    async def settled(pipeline, at_ms):
        return not pipeline.predict.is_asked(at_ms)

    asked, waiting, again, issues, ticks = asyncio.run(go())
    assert {a.issued_ms for a in asked} == {START + 8 * INTERVAL}
    assert all(a.wait_s > 0 for a in asked)
    assert waiting
    assert (again.issued_ms, again.wait_s) == (START + 8 * INTERVAL, 0)
    assert ticks == list(range(1, 9))
    assert len(issues) <= 9


def test_a_forecast_asked_for_before_the_window_closed_is_made_again_when_it_does(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline, predicting(pipeline):
            await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), replayed(1))
            await pipeline.ingest.submit(tick(2, (60.0, 50.0, None)), FEED)
            wanted = await pipeline.predict.request()
            await pipeline.issued(wanted.issued_ms)
            early = await issue(pipeline, 2)
            await pipeline.ingest.submit(tick(2, (None, None, 40.0)), replayed(2))
            await eventually(lambda: is_complete(pipeline, 2))
            return early.age_ticks.tolist()

    assert asyncio.run(go()) == [0, 0, 1]


def test_a_stray_reading_of_long_ago_is_not_learnt_from(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline, predicting(pipeline):
            stray = np.array([[60.0, np.nan, np.nan, np.nan]], np.float32)
            for days in (4_000, 57):
                at = np.array([START - days * 86_400_000], np.int64)
                batch = ReadingBatch(CODES[:1], np.zeros(1, np.int32), at, stray)
                await pipeline.ingest.submit(batch, Source("file (imported)", replayed=True, history=True))
            await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), replayed(1))
            await pipeline.issued(START + INTERVAL)
            return {part.name: part.detail for part in pipeline.board.parts}["forecaster"]

    assert asyncio.run(go()) == "fitted on 1 ticks of 3 sensors"


async def far_forecast(pipeline, at_ms, sensor_no):
    async with pipeline.database.read() as reader:
        return await asked.is_waiting(reader, from_ms(at_ms), sensor_no), await asked.found(
            reader, from_ms(at_ms), sensor_no
        )


async def is_answered(pipeline, at_ms, sensor_no):
    waits, _ = await far_forecast(pipeline, at_ms, sensor_no)
    return waits is False


def test_one_sensor_is_forecast_further_than_issues_reach(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline, predicting(pipeline):
            for i in range(1, 41):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, 40.0)), replayed(i))
            at_ms = START + 40 * INTERVAL
            await pipeline.issued(at_ms)
            request = await pipeline.predict.request(far_sensor_no=2)
            await eventually(lambda: is_answered(pipeline, at_ms, 2))
            _, found = await far_forecast(pipeline, at_ms, 2)
            nobody_asked = await far_forecast(pipeline, at_ms, 1)
            return request.issued_ms == at_ms, found, await issue(pipeline, 40), nobody_asked

    is_newest, found, issued, nobody_asked = asyncio.run(go())
    assert is_newest
    assert nobody_asked == (None, None)
    assert found.sensor_no.tolist() == [2]
    assert found.speed.shape == (1, 24)
    np.testing.assert_allclose(found.speed, 50, atol=0.5)
    assert np.isfinite(found.confidence).all()
    assert issued.speed.shape == (3, 12)
    np.testing.assert_array_equal(found.quantiles[0, :12], issued.quantiles[1])
    assert (found.issued_ms, found.model, found.version) == (issued.issued_ms, issued.model, issued.version)


def test_what_was_asked_for_is_answered_after_a_restart_and_nothing_is_said_of_the_unknown(address):
    async def go():
        async with running(address, services=("ingest",), now=LATER) as pipeline:
            for i in range(1, 4):
                await pipeline.ingest.submit(tick(i, (60.0, 50.0, None)), replayed(i))
            at_ms = (await pipeline.predict.request(far_sensor_no=1)).issued_ms
            await pipeline.predict.request(far_sensor_no=3)
            feed, before = pipeline.clock.feed, await far_forecast(pipeline, at_ms, 1)
        async with running(address, services=(), now=LATER) as pipeline:
            pipeline.clock.feed = feed
            async with predicting(pipeline):
                await eventually(lambda: is_answered(pipeline, at_ms, 1))
                known, unknown = [await far_forecast(pipeline, at_ms, number) for number in (1, 3)]
        return before, known, unknown

    before, known, unknown = asyncio.run(go())
    assert before == (True, None)
    assert known[1].speed[0, -1] == 60
    assert unknown == (False, None)


def test_a_year_without_readings_is_not_walked_through(address):
    year = 105_120

    async def go():
        async with running(address, services=("ingest",), now=from_ms(START + 2 * year * INTERVAL)) as pipeline:
            await pipeline.ingest.submit(tick(1, (60.0, 50.0, 40.0)), replayed(1))
            async with predicting(pipeline):
                await pipeline.issued(START + INTERVAL)
                for i in (year, year + 1, year + 2):
                    await pipeline.ingest.submit(tick(i, (70.0, 50.0, 40.0)), replayed(i))
                pipeline.predict.reload()
                async with asyncio.timeout(20):
                    await pipeline.issued(START + (year + 2) * INTERVAL)
                return await stored(pipeline, from_ms(START + 2 * year * INTERVAL))

    ticks = asyncio.run(go())
    assert ticks[-1] == year + 2
    assert len(ticks) < 10


class Stuck(Learner):
    """It learns, and can neither forecast nor explain."""

    def step(self, state):
        raise ArithmeticError

    def explain(self, state, model, sensor):
        self._engine = None
        return super().explain(state, model, sensor)


class StuckConfig(EngineConfig):
    def learner(self):
        return Stuck(self.engine())


async def no_pieces():
    for piece in ():
        yield piece


def test_a_forecaster_that_learns_and_cannot_forecast_is_tried_less_and_less(tmp_path):
    async def go():
        board = Board(lambda: from_ms(START))
        throne = Throne(registry_in(tmp_path), 3, 300, board)
        process = ForecasterProcess(StuckConfig(3, Tolerance(5, 0.1)), throne, board)
        state, pauses, statuses = History(np.empty((0, 0, 2), np.float32), TARGETS, START, INTERVAL, "UTC"), [], []
        for _ in range(3):
            span = Span(0, START, 0, INTERVAL, "UTC")
            await process.fit(span, no_pieces(), Graph(), np.empty(0, np.float32), None, START)
            statuses.append(board.parts[-1].status)
            if not pauses:
                with pytest.raises(Unavailable, match="The forecaster cannot explain it"):
                    await process.explain(state, "profile", 0)
            assert (await process.step(state)).model == "last_value"
            pauses.append(board.parts[-1].remedy)
        return pauses, statuses

    pauses, statuses = asyncio.run(go())
    assert [re.search(r"in (\d+) s", said)[1] for said in pauses] == ["1", "2", "5"]
    assert statuses == [Status.OK, Status.DEGRADED, Status.DEGRADED]


class Asleep(Learner):
    def step(self, state):
        time.sleep(60)


class AsleepConfig(EngineConfig):
    def learner(self):
        return Asleep(self.engine())


@pytest.mark.parametrize(("config", "tries"), [(StuckConfig, 2), (AsleepConfig, 1)])
def test_a_champion_with_which_nothing_is_forecast_is_left_out(tmp_path, monkeypatch, config, tries):
    """At once where it makes everyone wait."""
    monkeypatch.setattr(forecaster, "STEP_TIMEOUT_S", 3.0)

    async def go():
        board, registry = Board(lambda: from_ms(START)), registry_in(tmp_path)
        registry.promote(MODEL, saved(registry, 1), at(-1), WHY)
        process = ForecasterProcess(config(REACH, Tolerance(5, 0.1)), Throne(registry, REACH, 300, board), board)
        state, found = History(np.full((1, 3, 2), 50, np.float32), TARGETS, START, INTERVAL, "UTC"), []
        for _ in range(tries):
            found.append(board.parts[0].status if board.parts else Status.OK)
            span = Span(0, START, 3, INTERVAL, "UTC")
            await process.fit(span, no_pieces(), Graph(), np.full(3, 60, np.float32), None, START)
            assert (await process.step(state)).model == "last_value"
        process.stop()
        return found, board.parts[0]

    before, model = asyncio.run(go())
    assert before == [Status.OK] * tries
    assert (model.name, model.status) == ("model", Status.DEGRADED)
    assert model.detail.endswith("fail. The quick forecasters serve.")
