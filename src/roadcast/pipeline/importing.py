"""Import: a file's history and sensors into the store, through the same checks and the same recorder."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from roadcast.domain.clock import Feed
from roadcast.domain.reading import Account, ReadingBatch, Rejection
from roadcast.domain.sensor import Link, Sensor
from roadcast.domain.times import from_ms, rfc3339
from roadcast.errors import Conflict
from roadcast.pipeline.checks import check
from roadcast.pipeline.recorder import Recorder, learn_references
from roadcast.sources.formats import Chunk
from roadcast.storage import marks, readings, sensors
from roadcast.storage.engine import BULK_TIMEOUT_S, Database, Writer
from roadcast.storage.readings import Outcome


@dataclass(slots=True)
class Imported:
    """What became of a file's rows."""

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
    progress: Callable[[int, Sequence[str]], None],
) -> Imported:
    """Store the chunks, each in its own transaction, and learn reference speeds from them.

    Where no live feed has sent yet, the feed's clock then stands at the end of the history. `progress` hears of
    each chunk's rows, and has a line for each that was rejected.
    """
    done = Imported()
    recorder = Recorder(interval_ms, timezone)
    last_ms = 0
    async with database.read() as reader:
        await recorder.load(reader)
    for chunk in chunks:
        checked = check(chunk.batch, newest_ms=newest_ms, max_future_s=max_future_s)
        batch = chunk.batch.take(checked.passed)
        async with database.write(BULK_TIMEOUT_S) as writer:
            recorded = await recorder.record(writer, batch, batch.at_ms)
        duplicate = int((recorded.written.outcome == Outcome.DUPLICATE).sum())
        rejected = chunk.rejected + len(checked.rejections)
        done.account += Account(len(chunk.batch) + chunk.rejected, len(batch) - duplicate, duplicate, rejected)
        done.missing += chunk.missing
        last_ms = max(last_ms, int(batch.at_ms.max(initial=0)))
        progress(chunk.rows, [*map(line_of, chunk.rejections), *_lines(chunk.batch, checked.rejections)])
    async with database.write(BULK_TIMEOUT_S) as writer:
        if last_ms:
            done.references = await learn_references(writer, recorder, (await readings.span(writer) or (0, last_ms))[1])
            await _stand_at(writer, f"{name} (imported)", last_ms)
    done.sensors = len(recorder.numbers)
    return done


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
