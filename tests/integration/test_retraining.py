"""The training service, on a real PostgreSQL and a registry on disk."""

import asyncio
import shutil
from datetime import UTC, datetime, time, timedelta

import numpy as np
from integration.databases import connected
from integration.test_champion import WHY, saved
from integration.test_training import store
from unit.waves import DAY, START_MS, speeds

from roadcast.blobs.file import FileBlobs
from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.model import MODEL
from roadcast.domain.times import DAY_MS, from_ms
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.scoring import MEASURES, RELIABILITY, TENTHS, Sums
from roadcast.pipeline.retraining import Retraining
from roadcast.pipeline.training import TrainingConfig
from roadcast.registry.aliases import Action
from roadcast.registry.registry import Registry
from roadcast.scoreboard import Group
from roadcast.services import Board, Status
from roadcast.storage import marks, scores

END = from_ms(START_MS + 3 * DAY_MS)


def service(database, models, now=END, feed=None, at=time(3)):
    clock = FeedClock(lambda: now)
    clock.feed = feed or Feed("http", reached_at=now)
    registry = Registry(FileBlobs(models), lambda: datetime.now(UTC))
    config = TrainingConfig(300_000, "UTC", 24, Tolerance(5, 0.1), names=("graph_autoregression",))
    return Retraining(database, registry, clock, Board(clock.wall), config, at), registry


def part(retraining):
    return {each.name: each for each in retraining._board.parts}["training"]


def test_it_trains_once_a_day_and_says_what_it_did(address, tmp_path):
    async def go():
        async with connected(address) as database:
            await store(database, 0, speeds(3 * DAY))
            retraining, registry = service(database, tmp_path)
            await retraining.look()
            first = part(retraining), dict(retraining.counts), registry.versions(MODEL)
            await retraining.look()
            again = registry.versions(MODEL)
            async with database.read() as reader:
                mark = await marks.mark(reader, marks.TRAINED)
            later, _ = service(database, tmp_path, now=END + timedelta(days=1))
            return first, again, mark, await later._due(None, time(3))

    (said, counts, versions), again, mark, tomorrow = asyncio.run(go())
    assert counts["trainings"] == 1
    assert len(versions) == 1
    assert versions[0] in said.detail
    assert again == versions
    assert mark == END
    assert tomorrow == "the day's training"


def test_a_history_that_comes_after_the_start_is_not_left_until_tomorrow(address, tmp_path):
    async def go():
        async with connected(address) as database:
            retraining, registry = service(database, tmp_path)
            await retraining.look()
            before = part(retraining).detail
            await store(database, 0, speeds(3 * DAY))
            await retraining.look()  # too soon
            soon = registry.versions(MODEL)
            retraining._put_off_until_s = 0
            await retraining.look()
            return before, soon, registry.versions(MODEL)

    before, soon, versions = asyncio.run(go())
    assert before == "No readings are stored."
    assert (soon, len(versions)) == ([], 1)


def test_whoever_is_overtaken_trains_again_beside_the_new_champion(address, tmp_path):
    """Somebody promotes another version while it trains."""

    async def go():
        async with connected(address) as database:
            await store(database, 0, speeds(3 * DAY))
            retraining, registry = service(database, tmp_path)
            other, hear = saved(registry, 1), retraining._hear

            def meanwhile(step):
                hear(step)
                if step.name == "saving":
                    registry.promote(MODEL, other, END - timedelta(hours=1), WHY)

            retraining._hear = meanwhile
            await retraining.look()
            overtaken = part(retraining).detail, registry.named(MODEL) == other
            retraining._hear = hear
            due = await retraining._due(None, time(3))
            await retraining.look()
            return overtaken, due, retraining.counts["trainings"], await retraining._due(None, time(3))

    (said, stays), due, trainings, after = asyncio.run(go())
    assert "was promoted meanwhile" in said
    assert stays
    assert due == "none was trained yet"
    assert (trainings, after) == (2, "")


def test_it_does_not_learn_from_a_replay_nor_where_it_is_told_not_to(address, tmp_path):
    async def go():
        async with connected(address) as database:
            replay, registry = service(database, tmp_path, feed=Feed("week", replayed=True, reached_at=END))
            never, _ = service(database, tmp_path, at=None)
            simulated, _ = service(database, tmp_path, feed=Feed("demo", True, True, END))
            for each in (replay, never, simulated):
                await each.look()
            return [part(each).detail for each in (replay, never, simulated)], registry.names()

    details, names = asyncio.run(go())
    assert "replay" in details[0]
    assert "TRAIN_AT=never" in details[1]
    assert "No readings are stored" in details[2]
    assert names == []


async def known(database, champion, naive, until=END):
    day = (until - timedelta(days=1)).date()
    groups = [Group(day, 12, name, None, 15, "low") for name in ("graph_mlp", "profile")]
    groups.append(Group(day, 23, "profile", None, 15, "low"))  # of an hour in which the champion was not scored
    measures = np.zeros((3, len(MEASURES)))
    measures[:, MEASURES.index("n")] = 1000
    measures[:, MEASURES.index("square")] = 1000 * np.square([champion, naive, 50])
    async with database.write() as writer:
        await writer.run("DELETE FROM scores")
        await scores.add(writer, groups, Sums(measures, np.zeros((3, len(RELIABILITY), TENTHS))))
        await marks.set_mark(writer, marks.TRAINED, until)


def promoted_twice(database, models):
    """The service, its registry, and two versions of which the second one is in force."""
    retraining, registry = service(database, models)
    first, second = saved(registry, 1), saved(registry, 2)
    registry.promote(MODEL, first, END - timedelta(days=9), WHY)
    registry.promote(MODEL, second, END - timedelta(days=2), WHY)
    return retraining, registry, first, second


def test_a_promotion_that_cannot_be_taken_back_is_told_and_training_goes_on(address, tmp_path):
    """The version before was lost."""

    async def go():
        async with connected(address) as database:
            retraining, registry, first, second = promoted_twice(database, tmp_path)
            shutil.rmtree(tmp_path / MODEL / first)
            await known(database, champion=5, naive=4)
            await retraining.look()
            return registry.named(MODEL) == second, part(retraining)

    stays, said = asyncio.run(go())
    assert stays
    assert said.status is Status.OK
    assert "errs more than the naive ones, which serve: The model traffic has no version" in said.detail


def test_a_promotion_that_turned_out_worse_is_taken_back(address, tmp_path):
    async def go():
        async with connected(address) as database:
            retraining, registry, first, second = promoted_twice(database, tmp_path)
            await known(database, champion=3, naive=4)
            await retraining.look()
            kept = registry.named(MODEL)
            await known(database, champion=5, naive=4)
            await retraining.look()
            back = registry.named(MODEL)
            await known(database, champion=5, naive=4)
            await retraining.look()
            waits = part(retraining)
            later = END + timedelta(days=2)
            await known(database, champion=5, naive=4, until=later)
            retraining._clock.wall = lambda: later
            await retraining.look()
            return (first, second), kept, back, registry.history(MODEL), waits

    (first, second), kept, back, history, said = asyncio.run(go())
    assert (kept, back) == (second, first)
    assert (history[2].action, history[2].effective_at) == (Action.ROLLED_BACK, END)
    assert np.isclose(history[2].evidence["rmse"], 5)
    assert [change.version for change in history[2:]] == [first, None]  # the first one had its day again
    assert said.detail.startswith(second)
