"""A promoted model in the running forecast, on a real PostgreSQL and a registry on disk."""

import asyncio
import shutil
from datetime import timedelta

import numpy as np
from integration.databases import connected
from integration.test_pipeline import INTERVAL, LATER, START, everything_forecast, replayed, running, speeds_of, tick

from roadcast.domain.model import MODEL
from roadcast.domain.times import from_ms
from roadcast.forecasting.calibration import Calibration
from roadcast.forecasting.features import feature_names
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import History
from roadcast.forecasting.trained import Trained
from roadcast.registry.manifest import Training
from roadcast.registry.registry import Model
from roadcast.services import Status
from roadcast.storage import forecasts

REACH = 24
WHY = {"reason": "for the test"}


def saved(registry, seed):
    """A net that has learnt from two days of noise, and is said to err hardly at all, so that it serves."""
    values = 60 + 5 * np.random.default_rng(seed).normal(size=(576, 3, 1))
    history = History(values.astype(np.float32), ("speed",), START, INTERVAL, "UTC")
    calibration = Calibration.empty(REACH)
    calibration.squares[:] = [1e7, 1.0]
    calibration.rehearsals = 1
    fitted = GraphMlp(nets=1, seed=seed).fit(history, Graph(), "speed", REACH)
    training = Training(
        forecaster="graph_mlp",
        features=feature_names(REACH),
        targets=("speed",),
        horizons=REACH,
        interval_s=INTERVAL // 1000,
        sensors=3,
        start=at(-576),
        end=at(0),
        seed=seed,
        judged_start=at(-288),
        judged_end=at(0),
        metrics={},
    )
    return registry.save(Model(MODEL, training, Trained("graph_mlp", {"speed": fitted}, calibration).parts()))


def at(i):
    return from_ms(START + i * INTERVAL)


async def feed(pipeline, first, last):
    for i in range(first, last + 1):
        await pipeline.ingest.submit(tick(i, speeds_of(i)), replayed(i))
    await pipeline.issued(START + last * INTERVAL)


async def served(database, *ticks):
    """The model and version of some ticks."""
    async with database.read() as reader:
        found = [await forecasts.issued(reader, at(i)) for i in ticks]
    return [(issue.model, issue.version) for issue in found]


def test_a_promotion_takes_effect_at_its_event_time_and_a_replay_repeats_it(server, address, tmp_path):
    async def go(cuts):
        for first, last in cuts:
            async with running(address, services=("ingest", "predict"), now=LATER, models=tmp_path) as pipeline:
                if not pipeline.registry.history(MODEL):
                    pipeline.registry.promote(MODEL, saved(pipeline.registry, 1), at(20), WHY)
                await feed(pipeline, first, last)
        async with connected(address) as database:
            return (
                pipeline.registry.named(MODEL), await served(database, 19, 20, 61, 90),
                await everything_forecast(database),
            )  # fmt: skip

    version, before, one = asyncio.run(go([(1, 90)]))
    assert before[0][0] != "graph_mlp"
    assert before[1:] == [("graph_mlp", version)] * 3
    _, after, other = asyncio.run(go([(1, 60), (61, 90)]))
    assert after == before
    assert [repr(row) for row in one] == [repr(row) for row in other]


def test_a_damaged_model_does_not_serve_and_the_board_says_so(address, tmp_path):
    async def go():
        async with running(address, services=("ingest", "predict"), now=LATER, models=tmp_path) as pipeline:
            version = saved(pipeline.registry, 1)
            pipeline.registry.promote(MODEL, version, at(1), WHY)
            shutil.rmtree(tmp_path / MODEL / version / "speed")
            await feed(pipeline, 1, 3)
            return await served(pipeline.database, 3), {part.name: part for part in pipeline.board.parts}["model"]

    [(name, _)], part = asyncio.run(go())
    assert name != "graph_mlp"
    assert part.status is Status.DEGRADED
    assert "no such file" in part.detail
    assert "Train anew" in part.remedy


def test_a_rollback_is_noticed_while_it_runs(address, tmp_path):
    async def go():
        async with running(address, services=("ingest", "predict"), now=LATER, models=tmp_path) as pipeline:
            first, second = saved(pipeline.registry, 1), saved(pipeline.registry, 2)
            pipeline.registry.promote(MODEL, first, at(1), WHY)
            pipeline.registry.promote(MODEL, second, at(1) + timedelta(seconds=1), WHY)
            await feed(pipeline, 1, 3)
            pipeline.registry.rollback(MODEL, second, at(4), WHY)
            await asyncio.sleep(1.1)
            await feed(pipeline, 4, 5)
            return (first, second), await served(pipeline.database, 1, 2, 3, 4, 5), pipeline.throne.counts

    (first, second), found, counts = asyncio.run(go())
    assert counts == {"promotions": 2, "rollbacks": 1}
    assert [version for _, version in found] == [first, second, second, first, first]
