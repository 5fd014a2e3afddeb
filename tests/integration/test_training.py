"""`roadcast train` and `roadcast models`, on a real PostgreSQL and a registry on disk."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from integration.databases import connected
from unit.waves import DAY, INTERVAL_MS, START_MS, speeds

from roadcast.blobs.file import FileBlobs
from roadcast.child import Child
from roadcast.cli import main
from roadcast.domain.model import MODEL
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.sensor import Link
from roadcast.domain.times import DAY_MS, from_ms, rfc3339, to_ms
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.forecaster import Fitted, Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.pipeline.champion import load_version
from roadcast.pipeline.importing import describe_network, import_history
from roadcast.pipeline.training import Report, Step, TrainingConfig, train
from roadcast.plugins import GROUP, load
from roadcast.registry.manifest import ModelRefused
from roadcast.registry.registry import Registry
from roadcast.sources.formats import Chunk
from roadcast.storage.engine import Address, Database

HORIZONS = 12
CODES = ("A", "B", "C")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "forecaster-plugin"
NOW = datetime(2026, 3, 2, tzinfo=UTC)
FAST = ("graph_autoregression",)
Command = Callable[..., int]


class Again:
    """In a process with one thread, as training's is: sums come out the same."""

    def forecast(
        self, history: History, graph: Graph, target: str, loaded: Fitted, state: History
    ) -> tuple[Forecast, Forecast]:
        """Of one that learns the same again, and of one that was loaded."""
        return GraphMlp().fit(history, graph, target, HORIZONS).forecast(state), loaded.forecast(state)


async def store(database: Database, first: int, values: np.ndarray, volumes: np.ndarray | None = None) -> None:
    """Speeds [ticks, 3] of the ticks from number `first` on."""
    ticks, sensors = values.shape
    columns = np.full((values.size, 4), np.nan, np.float32)
    columns[:, 0] = values.ravel()
    if volumes is not None:
        columns[:, 1] = volumes.ravel()
    at = START_MS + INTERVAL_MS * np.repeat(np.arange(first + 1, first + ticks + 1, dtype=np.int64), sensors)
    batch = ReadingBatch(CODES, np.tile(np.arange(sensors, dtype=np.int32), ticks), at, columns)
    await import_history(
        database,
        [Chunk(batch, [], 0, 0, values.size)],
        name="waves",
        interval_ms=INTERVAL_MS,
        timezone="UTC",
        newest_ms=to_ms(NOW),
        max_future_s=0,
        retention_days=None,
        progress=lambda _rows, _lines: None,
    )


def config(*names: str, horizons: int = HORIZONS, days: int = 56, promotes: bool = True) -> TrainingConfig:
    tolerance = Tolerance(5.0, 0.1)
    return TrainingConfig(INTERVAL_MS, "UTC", horizons, tolerance, days=days, names=names or FAST, promotes=promotes)


def registry_in(folder: Path) -> Registry:
    return Registry(FileBlobs(folder), lambda: datetime.now(UTC))


async def trained(
    database: Database, registry: Registry, config: TrainingConfig, heard: Callable[[Step], None] = lambda _: None
) -> Report:
    """Trained on all that is stored."""
    return await train(database, registry, config, lambda: NOW, heard)


def test_a_version_comes_back_from_the_registry_and_forecasts_the_same_bytes(address: Address, tmp_path: Path) -> None:
    values, registry, steps = speeds(3 * DAY), registry_in(tmp_path), list[Step]()
    volumes = np.round(values * 2)
    links = [Link("A", "B"), Link("B", "C")]

    async def go() -> Report:
        async with connected(address) as database:
            await store(database, 0, values, volumes)
            await describe_network(database, [], links)
            return await trained(database, registry, config("graph_mlp"), steps.append)

    report = asyncio.run(go())
    end = from_ms(START_MS + 3 * DAY_MS)
    assert report.serves_from == end, report.reason
    assert (report.training.forecaster, report.training.sensors, report.training.end) == ("graph_mlp", 3, end)
    assert list(dict.fromkeys(step.name for step in steps)) == [
        "reading", "fitting last_value", "judging last_value", "fitting profile", "judging profile",
        "fitting graph_mlp", "judging graph_mlp", "fitting the best one for speed", "fitting the best one for volume",
        "saving", "saved",
    ]  # fmt: skip
    assert report.cost.cpu_s > 0.1
    assert report.cost.peak_mb > 50
    [change] = registry.history(MODEL)
    assert (change.version, change.effective_at) == (report.version, end)
    assert change.evidence["reason"] == report.reason
    assert change.evidence["rmse"] == report.verdict.winner.rmse

    assert registry.named(MODEL, at=end) == report.version
    assert registry.named(MODEL, at=end - timedelta(seconds=1)) is None
    champion = load_version(registry, report.version, HORIZONS, 300)
    stacked = np.stack([values, volumes], axis=-1).astype(np.float32)
    history = History(stacked, ("speed", "volume"), to_ms(end), INTERVAL_MS, "UTC")
    graph = Graph(np.array([0, 1]), np.array([1, 2]), np.ones(2, np.float32))
    state = history.last(STATE_TICKS)
    alone = Child("again", Again)

    async def both(target: str) -> object:
        found = champion.trained.fitted[target]
        return await alone.call("forecast", history, graph, target, found, state, timeout_s=120)

    alone.start()
    for target in ("speed", "volume"):
        expected, loaded = cast("tuple[Forecast, Forecast]", asyncio.run(both(target)))
        assert loaded.quantiles is not None
        assert expected.quantiles is not None
        assert loaded.quantiles.tobytes() == expected.quantiles.tobytes()
    alone.stop()


def test_a_place_is_taken_with_evidence_alone(address: Address, tmp_path: Path) -> None:
    """After three days more a candidate has learnt more than the champion; after one day more it has not."""
    values, registry = speeds(7 * DAY), registry_in(tmp_path)

    async def go() -> list[Report]:
        async with connected(address) as database:
            await store(database, 0, values[: 3 * DAY])
            first = await trained(database, registry, config())
            same = await trained(database, registry, config())
            await store(database, 3 * DAY, values[3 * DAY : 6 * DAY])
            better = await trained(database, registry, config())
            await store(database, 6 * DAY, values[6 * DAY :])
            return [first, same, better, await trained(database, registry, config())]

    first, same, better, equal = asyncio.run(go())
    assert [report.serves_from is not None for report in (first, same, better, equal)] == [True, False, True, False]
    assert same.reason.startswith("the champion has learnt until 2012-03-15 00:00 UTC, and less than the day after")
    assert "below the champion's" in better.reason
    rmse = equal.verdict.winner.rmse
    assert equal.reason.endswith(f"and 0.0% below the champion's {rmse:.3f}; at least 1% below is asked.")
    assert [change.version for change in registry.history(MODEL)] == [first.version, better.version]
    assert registry.history(MODEL)[1].evidence["champion"] == first.version
    assert registry.versions(MODEL) == [first.version, same.version, better.version, equal.version]


def test_a_promotion_takes_effect_where_the_feed_has_come_to_by_then(address: Address, tmp_path: Path) -> None:
    values, registry, tasks = speeds(4 * DAY), registry_in(tmp_path), list[asyncio.Task[None]]()

    async def go() -> Report:
        async with connected(address) as database:

            def heard(step: Step) -> None:
                if step.name == "fitting graph_autoregression":
                    tasks.append(asyncio.create_task(store(database, 3 * DAY, values[3 * DAY : 3 * DAY + 12])))

            await store(database, 0, values[: 3 * DAY])
            report = await trained(database, registry, config("graph_autoregression", "graph_mlp"), heard)
            await tasks[0]
            return report

    report = asyncio.run(go())
    assert report.training.end == from_ms(START_MS + 3 * DAY_MS)
    assert report.serves_from == report.training.end + timedelta(hours=1)
    assert registry.history(MODEL)[0].effective_at == report.serves_from


def test_a_champion_that_cannot_be_loaded_need_not_be_beaten(address: Address, tmp_path: Path) -> None:
    registry = registry_in(tmp_path)

    async def go() -> list[Report]:
        async with connected(address) as database:
            await store(database, 0, speeds(3 * DAY))
            shorter = await trained(database, registry, config(horizons=6))
            return [
                shorter,
                await trained(database, registry, config(promotes=False)),
                await trained(database, registry, config()),
            ]

    shorter, kept, taken = asyncio.run(go())
    with pytest.raises(ModelRefused, match="found 66 features, expected 72"):
        load_version(registry, shorter.version, HORIZONS, 300)
    with pytest.raises(ModelRefused, match="found intervals of 300 s, expected 60 s"):
        load_version(registry, taken.version, HORIZONS, 60)
    assert [report.serves_from is not None for report in (shorter, kept, taken)] == [True, False, True]
    assert "found 66 features, expected 72" in taken.reason
    assert registry.named(MODEL) == taken.version
    assert registry.history(MODEL)[-1].evidence["champion"] == shorter.version


def test_a_forecaster_of_an_installed_package_is_trained_and_then_beaten(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a champion it is loaded, and sent to the process that judges it."""
    monkeypatch.syspath_prepend(EXAMPLE)
    added, registry = (
        load(pytest.fail, [EntryPoint("weekly", "weekly_naive:WeeklyNaive", GROUP)]),
        registry_in(tmp_path),
    )

    async def go() -> list[Report]:
        async with connected(address) as database:
            await store(database, 0, speeds(3 * DAY))
            own = await trained(database, registry, replace(config("weekly_naive", promotes=False), added=added))
            registry.promote(MODEL, own.version, from_ms(START_MS), {})
            await store(database, 3 * DAY, speeds(5 * DAY)[3 * DAY :])
            return [own, await trained(database, registry, replace(config(), added=added))]

    own, ours = asyncio.run(go())
    assert own.training.forecaster == "weekly_naive"
    assert ours.verdict.champion is not None
    assert ours.verdict.champion.forecaster == "weekly_naive"
    assert ours.serves_from, ours.reason


def test_somebody_who_promotes_meanwhile_keeps_the_place(address: Address, tmp_path: Path) -> None:
    registry = registry_in(tmp_path)

    async def go() -> tuple[Report, Report]:
        async with connected(address) as database:
            await store(database, 0, speeds(3 * DAY))
            other = await trained(database, registry, config(promotes=False))

            def heard(step: Step) -> None:
                if step.name == "saving":
                    registry.promote(MODEL, other.version, NOW, {})

            return other, await trained(database, registry, config(), heard)

    other, report = asyncio.run(go())
    assert (report.serves_from, report.reason) == (None, f"{other.version} was promoted meanwhile.")
    assert registry.named(MODEL) == other.version


@pytest.fixture
def roadcast(address: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command line, on a database of its own; gives the exit code."""
    monkeypatch.chdir(tmp_path)
    named = {"HOST": address.host, "PORT": address.port, "USER": address.user, "NAME": address.database}
    for name, value in {**named, "PASSWORD": address.password}.items():
        monkeypatch.setenv(f"DB_{name}", str(value))
    monkeypatch.setenv("MODEL_STORE", str(tmp_path / "models"))

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["roadcast", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


def fill(address: Address, ticks: int) -> None:
    async def go() -> None:
        async with connected(address) as database:
            await store(database, 0, speeds(ticks))

    asyncio.run(go())


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return orjson.loads(capsys.readouterr().out)


def refused(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refused."""
    assert code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("roadcast: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("roadcast: ")


def test_the_life_of_versions_on_the_command_line(
    roadcast: Command, address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(address, 3 * DAY)
    assert roadcast("models", "list") == 0
    assert "roadcast train makes one" in capsys.readouterr().out
    assert roadcast("train", "--forecasters", "graph_autoregression", "--no-promote") == 0
    printed = capsys.readouterr().out
    assert "the best candidate" in printed
    assert "saved, not promoted" in printed
    assert roadcast("train", "--forecasters", "graph_autoregression", "--days", 3, "--seed", 7, "--json") == 0
    told = document(capsys)
    assert (told["promoted"], told["training"]["seed"]) == (True, 7)
    assert [score["forecaster"] for score in told["scores"]] == ["last_value", "profile", "graph_autoregression"]
    assert {"seconds", "cpu_s", "peak_mb"} <= told.keys()

    assert roadcast("models", "list", "--json") == 0
    newest, oldest = document(capsys)
    assert (newest["version"], newest["champion"], oldest["champion"]) == (told["version"], True, False)
    assert newest["metrics"] == told["training"]["metrics"]
    assert newest["days"] == 3
    assert roadcast("models", "list") == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "graph_autoregression" in line]
    assert [newest["version"] in rows[0], "*" in rows[0], "*" in rows[1]] == [True, True, False]
    assert f"{newest['metrics']['rmse']:.3f}" in rows[0]
    assert "2012-03-15 00:00" in rows[0]

    assert roadcast("models", "promote", oldest["version"], "--reason", "it is [/older]", "--json") == 0
    change = document(capsys)
    assert (change["version"], change["action"]) == (oldest["version"], "promoted")
    assert change["effective_at"] == rfc3339(from_ms(START_MS + 3 * DAY_MS))
    assert change["evidence"]["reason"] == "it is [/older]"
    assert roadcast("models", "show", oldest["version"]) == 0
    assert "it is [/older]" in capsys.readouterr().out
    assert roadcast("models", "rollback", "--reason", "it is worse") == 0
    assert f"{newest['version']} serves from 2012-03-15 00:00 on" in capsys.readouterr().out
    assert roadcast("models", "show", newest["version"], "--json") == 0
    shown = document(capsys)
    assert shown["champion"] is True
    assert [change["action"] for change in shown["changes"]] == ["promoted", "rolled_back"]
    assert len(shown["manifest"]["training"]["features"]) == 84


def test_refusals_are_one_line_with_the_remedy(
    roadcast: Command,
    address: Address,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert refused(roadcast("train"), capsys).startswith("No readings are stored. Import some history, or")
    assert refused(roadcast("models", "rollback"), capsys).startswith("No version serves yet. roadcast models promote")
    remedy = "roadcast models list says which there are."
    for command in ("show", "promote"):
        assert refused(roadcast("models", command, "v1"), capsys) == f"The model traffic has no version v1. {remedy}"
    fill(address, DAY)
    assert refused(roadcast("train"), capsys).startswith("1.0 days of speeds are stored: at least 2 are needed")
    assert refused(roadcast("train", "--forecasters", "oracle"), capsys).startswith(
        "forecaster oracle: for 3 sensors expected some of graph_autoregression, graph_mlp"
    )
    assert not (tmp_path / "models").exists()
    fill(address, 3 * DAY)
    (tmp_path / "models").touch()
    assert " lies in a file" in refused(roadcast("train"), capsys)
    (tmp_path / "models").unlink()
    assert roadcast("train", "--forecasters", "graph_autoregression", "--json") == 0
    version = document(capsys)["version"]
    assert refused(roadcast("models", "promote", version), capsys).endswith(f"since 2012-03-15T00:00:00Z. {remedy}")
    assert roadcast("models", "rollback") == 0
    assert "No version serves from 2012-03-15 00:00 on (rolled back)." in capsys.readouterr().out
    assert refused(roadcast("models", "rollback"), capsys).startswith("No version serves yet.")
    monkeypatch.setenv("INTERVAL_S", "600")
    assert refused(roadcast("models", "promote", version), capsys).startswith(
        f"Model file traffic/{version}/manifest.json: found 84 features, expected 72."
    )


def test_a_damaged_version_is_listed_with_what_is_wrong(
    roadcast: Command, address: Address, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fill(address, 2 * DAY)
    assert roadcast("train", "--forecasters", "graph_autoregression", "--json") == 0
    version = document(capsys)["version"]
    manifest = tmp_path / "models" / MODEL / version / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert roadcast("models", "list", "--json") == 0
    [row] = document(capsys)
    assert row["version"] == version
    assert "found SHA-256" in row["refused"]
    assert roadcast("models", "list") == 0
    assert version in capsys.readouterr().out
    assert "Train anew" in refused(roadcast("models", "show", version), capsys)
