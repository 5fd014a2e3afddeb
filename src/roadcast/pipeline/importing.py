"""Import: a file's history and sensors into the store, through the same checks and the same recorder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.reading import OLDEST_MS, Account, ReadingBatch, Rejection
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import DAY_MS, from_ms, rfc3339
from roadcast.errors import Conflict
from roadcast.pipeline.checks import check, oldest_kept
from roadcast.pipeline.recorder import Recorder, learn_references
from roadcast.sources.formats import Chunk
from roadcast.storage import marks, readings, sensors
from roadcast.storage.engine import BULK_TIMEOUT_S, Database, Writer
from roadcast.storage.partitions import MOST_DAYS
from roadcast.storage.readings import Outcome


@dataclass(slots=True)
class Imported:
    """What became of a file's rows, and of how many sensors there were readings among them."""

    account: Account = field(default_factory=Account)
    missing: int = 0
    sensors: int = 0
    references: int = 0


async def refuse_mixture(database: Database) -> None:
    """Real readings do not go where simulated ones are.

    Raises:
        Conflict: the store holds the demo's readings.
    """
    async with database.read() as reader:
        feed = await marks.feed(reader)
    if feed is not None and feed.simulated:
        raise Conflict(
            "The store holds the demo's simulated readings, which real ones must not join.",
            remedy="Use another DATA_DIR (or DB_NAME), with FEED=none.",
        )


async def describe_network(database: Database, known: Sequence[Sensor], links: Sequence[Link]) -> None:
    """Store what a source knows of its network."""
    async with database.write() as writer:
        await sensors.describe(writer, known)
        await sensors.connect(writer, links)


async def import_history(
    database: Database,
    chunks: Iterable[Chunk],
    *,
    name: str,
    interval_ms: int,
    timezone: str,
    newest_ms: int,
    max_future_s: int,
    retention_days: int | None,
    progress: Callable[[int, Sequence[str]], None],
) -> Imported:
    """Store the chunks, each in transactions of its own, and learn reference speeds from them.

    Where no live feed has sent yet, the feed's clock then stands at the end of the history; what is older than is
    kept by the clock as it stood is rejected. `progress` hears of each chunk's rows, and has a line for each rejected.
    """
    done = Imported()
    recorder = Recorder(interval_ms, timezone)
    async with database.read() as reader:
        await recorder.load(reader)
        feed = await marks.feed(reader)
    now = None if feed is None else FeedClock(lambda: from_ms(newest_ms), feed).now()
    oldest_ms = OLDEST_MS if now is None else oldest_kept(now, retention_days)
    last_ms = 0
    heard: set[str] = set()
    for chunk in chunks:
        lines = [line_of(rejection) for rejection in chunk.rejections]
        done.account += Account(received=chunk.rejected, rejected=chunk.rejected)
        done.missing += chunk.missing
        for part in _parts(chunk.batch):
            checked = check(part, newest_ms=newest_ms, max_future_s=max_future_s, oldest_ms=oldest_ms)
            batch = part.take(checked.passed)
            done.account += await _record(database, recorder, batch)
            heard.update(batch.codes[i] for i in map(int, np.unique(batch.sensor)))
            done.account += Account(received=len(checked.rejections), rejected=len(checked.rejections))
            lines += _lines(part, checked.rejections)
            last_ms = max(last_ms, int(batch.at_ms.max(initial=0)))
        progress(chunk.rows, lines)
    async with database.write(BULK_TIMEOUT_S) as writer:
        if last_ms:
            until_ms = (await readings.span(writer) or (0, last_ms))[1]
            done.references = len(await learn_references(writer, recorder, until_ms, for_all_times=True))
            await _stand_at(writer, f"{name} (imported)", last_ms)
    done.sensors = len(heard)
    return done


def _parts(batch: ReadingBatch) -> Iterator[ReadingBatch]:
    """The batch, a transaction's days at a time."""
    day = batch.at_ms // DAY_MS
    days = np.unique(day)
    for first in range(0, len(days), MOST_DAYS):
        yield batch.take(np.isin(day, days[first : first + MOST_DAYS]))


async def _record(database: Database, recorder: Recorder, batch: ReadingBatch) -> Account:
    async with database.write(BULK_TIMEOUT_S) as writer:
        recorded = await recorder.record(writer, batch, batch.at_ms)
    duplicate = int((recorded.written.outcome == Outcome.DUPLICATE).sum())
    return Account(received=len(batch), accepted=len(batch) - duplicate, duplicate=duplicate)


def line_of(rejection: Rejection) -> str:
    """One line on a row of a file."""
    return f"row {rejection.index}: {rejection.field}={rejection.value!r}: {rejection.reason}"


def _lines(batch: ReadingBatch, rejections: Sequence[Rejection]) -> list[str]:
    """One line on each refused reading, by its sensor and time: it has left its row behind."""
    return [
        f"{batch.codes[batch.sensor[r.index]]} {rfc3339(from_ms(int(batch.at_ms[r.index])))}: "
        f"{r.field}={r.value!r}: {r.reason}"
        for r in rejections
    ]


async def _stand_at(writer: Writer, name: str, last_ms: int) -> None:
    """Let the feed's clock stand at the end of the history, unless a live feed runs it."""
    before = await marks.feed(writer)
    if before is None or before.replayed:
        reached = max(from_ms(last_ms), before.reached_at or from_ms(0)) if before else from_ms(last_ms)
        await marks.set_feed(writer, Feed(name, replayed=True, reached_at=reached))
