"""What `train` and `models` do. Tables are for people; documents are what `--json` prints."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import nan

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from roadcast.domain.clock import wall_clock
from roadcast.domain.model import MODEL
from roadcast.domain.times import from_ms
from roadcast.errors import Conflict, NotFound
from roadcast.forecasting.forecaster import NAIVE
from roadcast.forecasting.forecasters import Added
from roadcast.forecasting.training import Verdict, gain
from roadcast.pipeline.champion import load_version
from roadcast.pipeline.past import FIT_DAYS, newest_window
from roadcast.pipeline.training import READING, Report, Step, TrainingConfig, train
from roadcast.registry.aliases import Change
from roadcast.registry.manifest import Manifest, ModelRefused, Training
from roadcast.registry.registry import Registry
from roadcast.settings import Settings
from roadcast.storage.engine import Address
from roadcast.store import opened, registry, running, training_config

TABLE_WIDTH = 150
"""A table of versions needs so many characters, whatever the terminal says."""
REMEDY = "roadcast models list says which there are."

console = Console(soft_wrap=True)
errors = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class TrainWish:
    """What is to be trained, and how it is told."""

    days: int | None
    names: Sequence[str]
    seed: int
    promotes: bool
    as_json: bool
    added: Sequence[Added] = ()

    def config(self, settings: Settings) -> TrainingConfig:
        """What training is told."""
        return replace(
            training_config(settings, self.added),
            days=self.days or FIT_DAYS,
            names=self.names,
            seed=self.seed,
            promotes=self.promotes,
        )


def train_model(settings: Settings, wish: TrainWish) -> None:
    """Train on what is stored, beside the running system or without it; print what came of it."""
    with running(settings) as address, _Progress() as progress:
        report = asyncio.run(_train(settings, address, wish.config(settings), progress))
    if wish.as_json:
        _print_json(_told(report))
        return
    Console(width=max(console.width, TABLE_WIDTH)).print(_scores(report.verdict))
    kept = "not promoted" if wish.promotes else "not promoted, as you wished"
    done = f"promoted, from {_stamp(report.serves_from)} on" if report.serves_from else f"saved, {kept}"
    _print(f"{report.version} {done}: {report.reason}")
    _print(f"{report.seconds:.1f} s, of which {report.cost.cpu_s:.1f} CPU-s of training; {report.cost.peak_mb:.0f} MB")


async def _train(settings: Settings, address: Address, config: TrainingConfig, progress: "_Progress") -> Report:
    async with opened(settings, address) as database:
        return await train(database, registry(settings), config, heard=progress.hear)


class _Progress(Progress):
    """A bar for the reading and one for all that follows."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=errors)
        self._bars = dict[str, TaskID]()

    def hear(self, step: Step) -> None:
        """Show what is being done."""
        kind = step.name if step.name == READING else "training"
        if kind not in self._bars:
            self._bars[kind] = self.add_task(step.name)
        self.update(self._bars[kind], description=step.name, completed=step.done, total=step.total)


def list_models(settings: Settings, *, as_json: bool) -> None:
    """Every version, the newest first."""
    found = registry(settings)
    champion = found.named(MODEL)
    known = [(version, _manifest(found, version, champion)) for version in reversed(found.versions(MODEL))]
    if as_json:
        _print_json([_summary(version, what, champion) for version, what in known])
    elif known:
        Console(width=max(console.width, TABLE_WIDTH)).print(_versions(known, champion))
    else:
        _print(f"No version in {settings.models_dir} yet: roadcast train makes one.")


def show_model(settings: Settings, version: str, *, as_json: bool) -> None:
    """All that is known about a version, and how it came to serve."""
    found = registry(settings)
    manifest = _existing(found, version)
    changes = [change for change in found.history(MODEL) if change.version == version]
    if as_json:
        told = {"version": version, "champion": found.named(MODEL) == version, "changes": changes, "manifest": manifest}
        _print_json(told)
        return
    table = Table("", "", title=f"{version} of {MODEL}", show_header=False)
    for name, value in _described(manifest):
        table.add_row(name, value)
    for change in changes:
        table.add_row(f"{change.action.replace('_', ' ')} {_stamp(change.recorded_at)}", Text(_why(change)))
    Console(width=max(console.width, TABLE_WIDTH)).print(table)


def promote_model(settings: Settings, version: str, reason: str, added: Sequence[Added], *, as_json: bool) -> None:
    """Let a version serve from the feed's newest window on."""
    found = registry(settings)
    _existing(found, version)
    metrics = load_version(found, version, settings.reach, settings.interval_s, added).training.metrics
    at = _now(settings)
    _tell(_changed(lambda: found.promote(MODEL, version, at, metrics | {"reason": reason})), as_json=as_json)


def rollback_model(settings: Settings, reason: str, *, as_json: bool) -> None:
    """Take the last promotion back, from the feed's newest window on."""
    found = registry(settings)
    champion = found.named(MODEL)
    if champion is None:
        raise Conflict("No version serves yet.", remedy="roadcast models promote VERSION lets one.")
    at = _now(settings)
    _tell(_changed(lambda: found.rollback(MODEL, champion, at, {"reason": reason})), as_json=as_json)


def _changed(change: Callable[[], Change]) -> Change:
    try:
        return change()
    except Conflict as error:
        raise Conflict(error.message, remedy=REMEDY) from error


def _tell(change: Change, *, as_json: bool) -> None:
    if as_json:
        _print_json(change)
    else:
        who = change.version or "No version"
        _print(f"{who} serves from {_stamp(change.effective_at)} on ({change.action.replace('_', ' ')}).")


def _now(settings: Settings) -> datetime:
    """The feed's newest window; the present where nothing is stored."""
    with running(settings) as address:
        end_ms = asyncio.run(_newest_window(settings, address))
    return wall_clock() if end_ms is None else from_ms(end_ms)


async def _newest_window(settings: Settings, address: Address) -> int | None:
    async with opened(settings, address) as database:
        return await newest_window(database, wall_clock(), settings.interval_s * 1000)


def _existing(found: Registry, version: str) -> Manifest:
    """What is known about a version that is whole."""
    try:
        return found.verify(MODEL, version)
    except NotFound as error:
        raise NotFound(error.message, remedy=REMEDY) from error


def _manifest(found: Registry, version: str, champion: str | None) -> Manifest | ModelRefused:
    """Of the champion every byte is looked at."""
    try:
        return found.verify(MODEL, version) if version == champion else found.manifest(MODEL, version)
    except ModelRefused as error:
        return error


def _scores(verdict: Verdict) -> Table:
    window = f"{_stamp(from_ms(verdict.start_ms))} to {_stamp(from_ms(verdict.end_ms))} UTC"
    table = Table(title=f"Errors on {verdict.winner.targets:,} speeds that nobody had seen", caption=window)
    for name in ("forecaster", "as", "RMSE, mph", "MAE, mph", "skill"):
        table.add_column(name, justify="left" if name in {"forecaster", "as"} else "right")
    for score in verdict.scores:
        best = score is verdict.winner
        cells = (f"{score.rmse:.3f}", f"{score.mae:.3f}", f"{gain(score, verdict.naive):.3f}")
        table.add_row(score.forecaster, "the best candidate" if best else score.standing, *cells)
    return table


def _versions(known: Sequence[tuple[str, Manifest | ModelRefused]], champion: str | None) -> Table:
    table = Table(title=f"Versions of {MODEL}; * is the champion. Times are UTC, errors in mph.")
    for name in ("", "version", "forecaster", "trained until", "days", "sensors", "RMSE", "skill", "evidence"):
        number = name in {"days", "sensors", "RMSE", "skill"}
        table.add_column(name, justify="right" if number else "left", no_wrap=name == "version")
    for version, what in known:
        mark = "*" if version == champion else ""
        if isinstance(what, ModelRefused):
            table.add_row(mark, version, *[""] * 6, Text(what.message))
            continue
        training, metrics = what.training, what.training.metrics
        table.add_row(
            mark, version, training.forecaster, _stamp(training.end), f"{_days(training):.1f}", str(training.sensors),
            _number(metrics, "rmse"), _number(metrics, "skill"), _evidence(training),
        )  # fmt: skip
    return table


def _summary(version: str, what: Manifest | ModelRefused, champion: str | None) -> dict[str, object]:
    told: dict[str, object] = {"version": version, "champion": version == champion}
    if isinstance(what, ModelRefused):
        return told | {"refused": what.message}
    of_version = {"created_at": what.created_at, "days": round(_days(what.training), 3)}
    return told | of_version | _without_features(what.training)


def _described(manifest: Manifest) -> Iterator[tuple[str, str]]:
    training = manifest.training
    yield "forecaster", training.forecaster
    yield "made", f"{_stamp(manifest.created_at)} UTC by Roadcast {manifest.code_version}, seed {training.seed}"
    yield "learnt from", f"{_stamp(training.start)} to {_stamp(training.end)} UTC, {_days(training):.1f} days"
    yield "for", f"{', '.join(training.targets)} of {training.sensors} sensors, {training.horizons} windows ahead"
    yield "features", str(len(training.features))
    yield "judged on", f"{_stamp(training.judged_start)} to {_stamp(training.judged_end)} UTC"
    for name, value in training.metrics.items():
        yield name, f"{value:,.3f}".removesuffix(".000")
    yield "size", f"{sum(part.size for part in manifest.parts.values()):,} bytes in {len(manifest.parts)} files"


def _evidence(training: Training) -> str:
    """The RMSE of the best naive one and of the champion, beside which it was measured, and on how much."""
    metrics = training.metrics
    naive = min((metrics[name] for name in (f"{naive}_rmse" for naive in NAIVE) if name in metrics), default=nan)
    champion = f", champion {metrics['champion_rmse']:.3f}" if "champion_rmse" in metrics else ""
    return f"naive {naive:.3f}{champion}; {metrics.get('targets', 0):,.0f} speeds"


def _why(change: Change) -> str:
    return f"from {_stamp(change.effective_at)} UTC on: {change.evidence.get('reason', '')}"


def _told(report: Report) -> dict[str, object]:
    return {
        "version": report.version,
        "promoted": report.serves_from is not None,
        "serves_from": report.serves_from,
        "reason": report.reason,
        "training": _without_features(report.training),
        "scores": [score._asdict() for score in report.verdict.scores],
        "seconds": round(report.seconds, 3),
        "cpu_s": round(report.cost.cpu_s, 3),
        "peak_mb": round(report.cost.peak_mb, 1),
    }


def _without_features(training: Training) -> dict[str, object]:
    """There are too many to be read; `models show --json` has them."""
    document = msgspec.structs.asdict(training)
    del document["features"]
    return document


def _days(training: Training) -> float:
    return (training.end - training.start + timedelta(seconds=training.interval_s)) / timedelta(days=1)


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else ""


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _print(text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _print_json(document: object) -> None:
    """NaN becomes null."""
    _print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
