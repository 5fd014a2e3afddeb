"""Explanations over HTTP, of forecasts that the running pipeline made on a real PostgreSQL."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from integration.api_history import client, make_context
from integration.test_pipeline import CODES, INTERVAL, LATER, START, Pipeline, replayed, running, tick

from roadcast.domain.ids import pack
from roadcast.domain.reading import ReadingBatch, Source
from roadcast.domain.times import DAY_MS, from_ms
from roadcast.domain.units import KM_PER_MILE, Units
from roadcast.errors import Unavailable
from roadcast.live.state import LiveState
from roadcast.storage import asked, sensors
from roadcast.wiring import _OnDemand

DAY_TICKS = DAY_MS // INTERVAL
DAYS = 5


def speeds(i):
    """Of each sensor: a wave over the day, and noise of its own; C follows A by a tick."""
    noise = [np.random.default_rng((tick_no + 10_000, 7)).normal(0, 4) for tick_no in (i, i - 1)]
    wave = 55 + 10 * np.cos(2 * np.pi * i / DAY_TICKS)
    return wave + noise[0], wave - 5.0, wave + noise[1]


def days_before():
    ticks = np.arange(1 - (DAYS + 1) * DAY_TICKS, 1)
    values = np.full((3 * len(ticks), 4), np.nan, np.float32)
    values[:, 0] = np.ravel([speeds(int(i)) for i in ticks])
    sensor = np.tile(np.arange(3, dtype=np.int32), len(ticks))
    return ReadingBatch(CODES, sensor, np.repeat(START + ticks * INTERVAL, 3), values)


@asynccontextmanager
async def explaining(address, ticks=3, **changes):
    """A pipeline with some days of history and an issue for each of the ticks that follow, and its API."""
    async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
        await pipeline.ingest.submit(days_before(), Source("file (imported)", replayed=True, history=True))
        await go_on(pipeline, 1, ticks)
        state = LiveState()
        async with pipeline.database.read() as reader:
            state.know(await sensors.every(reader))
        predictor = _OnDemand(pipeline.predict, pipeline.clock)
        context = replace(
            make_context(pipeline.database, state),
            clock=pipeline.clock, board=pipeline.board, timezone="UTC", predictor=predictor, **changes,
        )  # fmt: skip
        async with client(context) as http:
            yield pipeline, http


async def go_on(pipeline: Pipeline, first, last):
    for i in range(first, last + 1):
        await pipeline.ingest.submit(tick(i, speeds(i)), replayed(i))
    await pipeline.issued(START + last * INTERVAL)


def path(sensor_no, i, minutes):
    return f"/api/predictions/{pack(sensor_no, START + i * INTERVAL, minutes)}/explanation"


async def explained(http, sensor_no, i, minutes):
    answer = await http.get(path(sensor_no, i, minutes))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    parts = [Decimal(str(part or 0)) for part in found["parts"].values()]
    assert sum(parts) == Decimal(str(found["prediction"]["predicted_speed"]))
    return found


@pytest.mark.parametrize("units", list(Units))
def test_parts_add_up_to_the_forecast_and_similar_days_are_those_of_the_past(address, units):
    async def go():
        async with explaining(address, units=units) as (_, http):
            return [await explained(http, 3, 3, minutes) for minutes in (5, 30)]

    for found, minutes in zip(asyncio.run(go()), (5, 30)):
        factor = KM_PER_MILE if units is Units.METRIC else 1
        assert (found["exact"], found["doubt"]) == (True, None)
        assert found["prediction"]["horizon_minutes"] == minutes
        assert found["model_name"] == found["prediction"]["model_name"]
        assert found["parts"]["last_value"] is None
        usual = np.mean([speeds(3 + minutes // 5 - day * DAY_TICKS)[1] + 5 for day in range(1, DAYS + 1)])
        assert found["parts"]["typical_day"] == pytest.approx(usual * factor, abs=2 * factor)
        now = [speeds(i)[2] for i in range(-20, 4)]
        distance = {
            day: np.abs([speeds(i - day * DAY_TICKS)[2] - now[i + 20] for i in range(-20, 4)])
            for day in range(1, DAYS + 1)
        }
        nearest = sorted((each[-len(each) :].mean(), day) for day, each in distance.items())
        assert [each["date"] for each in found["similar_days"]] == [
            str(from_ms(START - day * DAY_MS).date()) for _, day in nearest
        ]
        assert [each["distance"] for each in found["similar_days"]] == pytest.approx(
            [mean * factor for mean, _ in nearest], abs=0.006
        )
        assert [each["speed_then"] for each in found["similar_days"]] == pytest.approx(
            [speeds(3 + minutes // 5 - day * DAY_TICKS)[2] * factor for _, day in nearest], abs=0.006
        )


def test_a_forecast_is_explained_as_it_was_known_then(address):
    """Also when readings were corrected, and when the model that made it was fitted anew."""

    async def go():
        async with explaining(address) as (pipeline, http):
            before = await explained(http, 1, 2, 15)
            await go_on(pipeline, 4, 6)
            for i in (-2 * DAY_TICKS, 1, 2):
                await pipeline.ingest.submit(tick(i, (20.0, 21.0, 22.0)), replayed(6))
            await go_on(pipeline, 7, 7)
            corrected = await explained(http, 1, 2, 15)
            pipeline.predict._fitted_day = None
            await go_on(pipeline, 8, 8)
            return before, corrected, await explained(http, 1, 2, 15)

    before, corrected, refitted = asyncio.run(go())
    assert corrected == before
    assert not refitted["exact"]
    assert before["model_version"] in refitted["doubt"]
    assert refitted["model_version"] != refitted["prediction"]["model_version"] == before["model_version"]
    assert refitted["similar_days"] == before["similar_days"]


def test_readings_that_came_too_late_for_what_was_known_are_doubted(address):
    async def go():
        async with explaining(address) as (pipeline, http):
            async with pipeline.database.write() as writer:  # as if they had come an hour later, yet were seen
                await writer.run(
                    "UPDATE readings SET received_at = received_at + interval '1 hour' WHERE ts > :at",
                    at=from_ms(START),
                )
            return await explained(http, 1, 3, 15)

    found = asyncio.run(go())
    assert not found["exact"]
    assert "readings" in found["doubt"]


def test_readings_of_a_live_feed_that_come_a_little_after_their_time_are_those_that_were_seen(address):
    async def go():
        async with explaining(address) as (pipeline, http):
            wall_ms = START + 3 * INTERVAL
            pipeline.clock.wall = lambda: from_ms(wall_ms)
            for i in range(4, 7):
                wall_ms = START + i * INTERVAL + 20_000
                await pipeline.ingest.submit(tick(i, speeds(i)), Source("http"))
            await pipeline.issued(START + 6 * INTERVAL)
            return await explained(http, 3, 6, 30)

    assert asyncio.run(go())["exact"]


def test_without_a_past_the_last_value_stands_in(address):
    async def go():
        async with running(address, services=("ingest", "predict"), now=LATER) as pipeline:
            await go_on(pipeline, 1, 2)
            return await pipeline.predict.explain(START + 2 * INTERVAL, 1, 3)

    found = asyncio.run(go())
    assert np.isnan([found.terms.typical_day, found.terms.deviation_now]).all()
    assert found.terms.last_value == pytest.approx(speeds(2)[0], abs=1e-4)
    assert (found.doubt, list(found.days)) == ("", [])


def test_a_forecast_that_was_asked_for_is_explained_too(address):
    async def go():
        async with explaining(address) as (pipeline, http):
            waiting = await http.get(path(2, 4, 90))
            wanted = await http.post("/api/predictions/generate", json={"sensor_id": "B", "horizon_minutes": 90})
            assert wanted.status_code == 202
            async with asyncio.timeout(30):
                while True:
                    async with pipeline.database.read() as reader:
                        if await asked.is_waiting(reader, from_ms(START + 3 * INTERVAL), 2) is False:
                            return waiting.status_code, await explained(http, 2, 3, 90)
                    await asyncio.sleep(0.05)

    unknown, found = asyncio.run(go())
    assert unknown == 404
    assert found["exact"]
    assert found["prediction"]["horizon_minutes"] == 90
    assert len(found["similar_days"]) == DAYS


def named(answer):
    problem = answer.json()
    return answer.status_code, [error["field"] for error in problem["errors"]], problem["detail"]


def test_what_cannot_be_explained_is_a_problem(address):
    async def go():
        async with explaining(address) as (pipeline, http):
            no_id = await http.get("/api/predictions/018d0cab-c440-8000-8000-000000000001/explanation")
            async with pipeline.database.write() as writer:
                await asked.ask(writer, from_ms(START + 3 * INTERVAL), 1, anew=False)
                await writer.run(
                    """UPDATE forecasts SET speed = array_fill('NaN'::real, ARRAY[12]),
                      volume = array_fill(9::real, ARRAY[12]) WHERE sensor_no = 2"""
                )
                await writer.run("DELETE FROM forecasts WHERE sensor_no = 3")
            answers = [no_id, *[await http.get(path(*which)) for which in ((1, 3, 90), (2, 3, 15), (3, 3, 15))]]
            return [named(answer) for answer in answers]

    unknown, pending, speechless, unavailable = asyncio.run(go())
    assert unknown[:2] == (404, ["prediction_id"])
    assert pending[:2] == speechless[:2] == unavailable[:2] == (409, ["prediction_id"])
    assert "pending" in pending[2]
    assert "speed" in speechless[2]
    assert "unavailable" in unavailable[2]


def test_while_the_forecaster_is_down_or_busy_nothing_is_explained(address, monkeypatch):
    monkeypatch.setattr("roadcast.pipeline.explaining.WAIT_S", 0.1)

    async def go():
        async with explaining(address) as (pipeline, http):
            async with pipeline.predict._turn:
                busy = await http.get(path(1, 3, 15))
            process = pipeline.predict._forecaster._child._process
            process.kill()
            process.join()
            died = await http.get(path(1, 3, 15))
            down = await http.get(path(1, 3, 15))
            with pytest.raises(Unavailable):
                await pipeline.predict.explain(START + 3 * INTERVAL, 1, 3)
            await asyncio.sleep(1.1)
            await go_on(pipeline, 4, 4)
            return busy, died, down, await explained(http, 1, 4, 15)

    *answers, found = asyncio.run(go())
    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert [answer.headers["retry-after"] for answer in answers] == ["30", "1", "1"]
    assert found["exact"]
