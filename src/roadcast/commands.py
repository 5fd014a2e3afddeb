"""What the commands do that are not `serve`: import, replay, simulate. They show their progress."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import httpx
import numpy as np
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from roadcast.charts import draw_corridor
from roadcast.client import client_of
from roadcast.domain.clock import wall_clock
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import from_ms, rfc3339, to_ms
from roadcast.domain.units import TOLERANCE_SHARE, absolute_tolerance
from roadcast.embedded.postgres import find as find_embedded
from roadcast.errors import SourceError
from roadcast.flow.corridor import simulate_days
from roadcast.flow.road import demo_corridor
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import Outcome, Task
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import Added, every_forecaster, why_no_trees
from roadcast.pipeline import changes
from roadcast.pipeline.backtesting import WINDOW, Recording, backtest, judged_unit, recording, served
from roadcast.pipeline.importing import (
    Imported,
    describe_network,
    line_of,
    refuse_mixture,
)
from roadcast.pipeline.importing import (
    import_history as store_history,
)
from roadcast.report.findings import AFTER, BEFORE, HEADINGS, Findings, cells
from roadcast.report.page import page
from roadcast.settings import Settings
from roadcast.sources.formats import Chunk, SourceFile, ticks
from roadcast.sources.replay import TIMEOUT_S, Answer, replay
from roadcast.storage.engine import Address
from roadcast.store import connect, database_address, embedded_address, opened, running

SETTLE_S = 60.0
"""How long a replay waits at its end for the last forecast."""
SETTLE_PAUSE_S = 0.2
TABLE_WIDTH = 132
"""A backtest's table needs so many characters, whatever the terminal says."""

console = Console(soft_wrap=True)
errors = Console(stderr=True)


def latest_ms(settings: Settings) -> int:
    """The latest time that a reading can have now."""
    return to_ms(wall_clock()) + settings.max_future_s * 1000


def import_history(settings: Settings, source: SourceFile, *, strict: bool) -> None:
    """Load a file's sensors, links and readings into the store."""
    with running(settings) as address:
        done = asyncio.run(_import(settings, address, source, strict=strict))
    _tell_conversions(source)
    account = done.account
    console.print(
        f"{source.name}: {account.received} read, {account.accepted} accepted, {account.duplicate} duplicate, "
        f"{account.rejected} rejected; {done.missing} missing; {done.sensors} sensors"
    )


async def _import(settings: Settings, address: Address, source: SourceFile, *, strict: bool) -> Imported:
    async with opened(settings, address) as database:
        await refuse_mixture(database)
        await describe_network(database, source.sensors, source.links)
        with _progress() as bar:
            task = bar.add_task(source.name, total=source.rows)

            def progress(rows: int, refused: Sequence[str]) -> None:
                bar.advance(task, rows)
                _tell(refused, strict=strict)

            done = await store_history(
                database,
                source.chunks(),
                name=source.name,
                interval_ms=settings.interval_s * 1000,
                timezone=settings.timezone,
                newest_ms=to_ms(wall_clock()),
                max_future_s=settings.max_future_s,
                retention_days=settings.retention_days,
                progress=progress,
            )
        await changes.tell_all(database)
        return done


def replay_file(settings: Settings, source: SourceFile, *, speed: float, url: str | None, strict: bool) -> None:
    """Feed a file to the system at `url` (None: the one of these settings), and wait for its last forecast."""
    counts = dict.fromkeys(("received", "accepted", "duplicate", "rejected"), 0)
    unreadable = taken_ms = 0
    address = (url or settings.local_url).rstrip("/")
    with client_of(address, TIMEOUT_S) as client:
        _expect_answer(client)
        if address == settings.local_url:
            _describe(settings, source)
        began = wall_clock()
        with _progress() as bar:
            reading = bar.add_task(f"reading {source.name}", total=source.rows)

            def on_chunk(chunk: Chunk) -> None:
                nonlocal unreadable
                unreadable += chunk.rejected
                bar.advance(reading, chunk.rows)
                _tell(map(line_of, chunk.rejections), strict=strict)

            sending = bar.add_task("sending", total=None)

            def report(reached_ms: int, answer: Answer) -> None:
                for name in counts:
                    counts[name] += getattr(answer, name)
                nonlocal taken_ms
                taken_ms = max(taken_ms, answer.taken_ms)
                _tell(answer.rejections, strict=strict)
                bar.update(sending, completed=counts["received"], description=f"sent to {rfc3339(from_ms(reached_ms))}")

            replay(
                ticks(source, on_chunk=on_chunk), client, name=source.name, speed=speed, units=settings.units,
                report=report,
            )  # fmt: skip
            settled = not taken_ms or _settle(client, taken_ms - taken_ms % (settings.interval_s * 1000))
    _tell_conversions(source)
    seconds = (wall_clock() - began).total_seconds()
    console.print(
        f"{source.name}: {counts['received']} sent = {counts['accepted']} accepted + {counts['duplicate']} duplicate "
        f"+ {counts['rejected']} rejected, in {seconds:.1f} s"
        + (f"; {unreadable} of the file were not sent" if unreadable else "")
        + ("" if settled else f"; no forecast of the last tick within {SETTLE_S:.0f} s")
    )


def _expect_answer(client: httpx.Client) -> None:
    try:
        client.get("/health").raise_for_status()
    except httpx.HTTPError as error:
        raise SourceError(
            f"{client.base_url} does not answer.", remedy="Start it: FEED=none python3 src/api/deploy.py"
        ) from error


def _describe(settings: Settings, source: SourceFile) -> None:
    """Let the system of these settings know the file's network before its readings; another one only gets readings."""
    address = database_address(settings) if settings.db_host is not None else None
    if address is None and (found := find_embedded(settings.data_dir)):
        address = embedded_address(found, settings.data_dir)
    if address is not None:
        asyncio.run(_describe_there(settings, address, source))


async def _describe_there(settings: Settings, address: Address, source: SourceFile) -> None:
    database = connect(settings, address)
    try:
        await refuse_mixture(database)
        await describe_network(database, source.sensors, source.links)
        await changes.tell_all(database)
    finally:
        await database.close()


def _settle(client: httpx.Client, last_ms: int) -> bool:
    """Wait until the forecast of the last whole window is issued."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):  # a worker that is just being started again
            answer = client.get("/api/predictions/latest", params={"limit": 1})
            if answer.is_success and any(row["issued_at"] >= rfc3339(from_ms(last_ms)) for row in answer.json()):
                return True
        time.sleep(SETTLE_PAUSE_S)
    return False


@dataclass(frozen=True, slots=True)
class BacktestWish:
    """What of a file is forecast by whom, and how it is judged. steps: horizons in ticks; names: none means all."""

    timezone: str
    variable: str
    test_from: int | None
    split: float
    steps: Sequence[int]
    names: Sequence[str]
    seed: int
    pooled: bool
    mask_zeros: bool | None
    holidays: tuple[int, ...] = ()
    added: Sequence[Added] = ()

    @property
    def forecasters(self) -> list[Forecaster]:
        """Those that are named, naive ones first."""
        known = {forecaster.name: forecaster for forecaster in every_forecaster(self.seed, self.added)}
        if unknown := [name for name in self.names if name not in known]:
            raise SourceError(f"--models {unknown[0]}: expected {', '.join(known)}")
        return [forecaster for name, forecaster in known.items() if not self.names or name in self.names]

    def task(self, found: Recording) -> Task:
        """What is forecast; which ticks may be learnt from."""
        ticks, horizons, rows = len(found.history), max(self.steps), found.rows
        row = int(len(rows) * self.split) if self.test_from is None else self.test_from
        latest = ticks - WINDOW - horizons
        if latest < 1:
            raise SourceError(
                f"{ticks} ticks: expected at least {ticks + 1 - latest}, of which 1 is learnt from, and {WINDOW} of "
                f"input and {horizons} ahead are the test"
            )
        last = int(np.searchsorted(rows, latest, "right")) - 1
        if not 0 < row <= last:
            raise SourceError(f"the test begins at row {row} of {len(rows)}: expected one from 1 to {last}")
        test_from = int(rows[row])
        absolute = absolute_tolerance(self.variable, found.history.interval_ms // 1000) * judged_unit(self.variable)
        tolerance = Tolerance(absolute, TOLERANCE_SHARE)
        return Task(found.history, found.graph, self.variable, horizons, test_from, tolerance)


def backtest_file(source: SourceFile, wish: BacktestWish, *, json: Path | None, html: Path | None) -> None:
    """Judge forecasters on the last part of a file; print the table, and write it where that is asked."""
    forecasters = wish.forecasters
    if not wish.names and (why := why_no_trees()):
        errors.print(why, markup=False, highlight=False, soft_wrap=True)
    _expect_folders(json, html)
    with _progress() as bar:
        reading = bar.add_task(f"reading {source.name}", total=source.rows)
        batches: list[ReadingBatch] = []
        for chunk in source.chunks():
            batches.append(chunk.batch)
            bar.advance(reading, chunk.rows)
            _tell(map(line_of, chunk.rejections), strict=False)
        found = recording(
            batches, source.links, interval_s=source.interval_s, timezone=wish.timezone, variable=wish.variable,
            holidays=wish.holidays,
        )  # fmt: skip
        task = wish.task(found)
        judging = bar.add_task("judging", total=len(forecasters))

        def done(outcome: Outcome) -> None:
            bar.update(judging, advance=1, description=f"judged {outcome.forecaster}")

        outcomes = backtest(forecasters, task, done)
    findings = Findings(source.name, task, found.codes, wish.steps, wish.pooled, outcomes, served(outcomes))
    Console(width=max(console.width, TABLE_WIDTH)).print(_backtest_table(findings))
    if json is not None:
        json.write_bytes(orjson.dumps(_backtest_document(findings, wish), option=orjson.OPT_INDENT_2))
        console.print(str(json))
    if html is not None:
        html.write_text(page(findings), encoding="utf-8")
        console.print(str(html))


def _expect_folders(json: Path | None, html: Path | None) -> None:
    """Say before a long backtest that its results could not be written."""
    for option, path in (("--json", json), ("--html", html)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise SourceError(f"{option} {path}: expected a file in a folder that exists")


def _backtest_document(findings: Findings, wish: BacktestWish) -> dict[str, object]:
    history = findings.task.history
    return {
        "served": findings.served,
        "task": {
            "file": findings.name,
            "variable": findings.task.target,
            "unit": findings.unit,
            "interval_s": history.interval_ms // 1000,
            "protocol": "pooled" if findings.pooled else "step",
            "test_from": findings.task.test_from,
            "test_begins": rfc3339(findings.test_begins),
            "ticks": len(history),
            "sensors": history.sensors,
            "mask_zeros": wish.mask_zeros,
            "seed": wish.seed,
        },
        "rows": [_backtest_row(findings, outcome, step) for outcome in findings.outcomes for step in findings.steps],
    }


def _backtest_row(findings: Findings, outcome: Outcome, step: int) -> dict[str, object]:
    return {
        "forecaster": outcome.forecaster,
        "horizon_steps": step,
        "horizon_minutes": findings.minutes(step),
        **asdict(findings.measures(outcome, step)),
        "train_cpu_s": round(outcome.train_cpu_s, 3),
        "peak_mb": round(outcome.peak_mb, 1),
    }


def _backtest_table(findings: Findings) -> Table:
    table = Table(title=findings.title, caption=findings.caption)
    for name in (*BEFORE, *HEADINGS, *AFTER):
        table.add_column(name, justify="left" if name == BEFORE[0] else "right", no_wrap=name == BEFORE[0])
    for outcome in findings.outcomes:
        for step in findings.steps:
            first = step == findings.steps[0]
            cost = (f"{outcome.train_cpu_s:.1f}", f"{outcome.peak_mb:.0f}") if first else ("", "")
            table.add_row(
                outcome.forecaster if first else "",
                findings.ahead(step),
                *cells(findings.measures(outcome, step)),
                *cost,
                end_section=step == findings.steps[-1],
            )
    return table


def draw_day(folder: Path, day: str | None, seed: int) -> None:
    """Simulate one day of the demo's corridor and draw it."""
    today = wall_clock().date()
    try:
        which = date.fromisoformat(day) if day else today - timedelta(days=today.weekday())
    except ValueError as error:
        raise SourceError(f"--day {day}: expected a date such as 2026-03-02") from error
    corridor = demo_corridor()
    [simulated] = simulate_days(corridor, seed, [which], with_cells=True)
    for path in draw_corridor(folder, simulated, corridor):
        console.print(str(path))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=errors)


def _tell(refused: Iterable[str], *, strict: bool) -> None:
    """One line for each bad row; with --strict the first one ends the command."""
    for line in refused:
        if strict:
            raise SourceError(line)
        errors.print(line, markup=False, highlight=False, soft_wrap=True)


def _tell_conversions(source: SourceFile) -> None:
    for line in source.conversions:
        console.print(f"  {line}", markup=False, highlight=False)
