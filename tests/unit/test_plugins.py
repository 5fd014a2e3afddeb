"""Which forecasters of installed packages are taken, and what is said of the others."""

import sys
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from unit.test_trainer import given, judged
from unit.waves import DAY, history_of, speeds

from roadcast import plugins
from roadcast.blobs.file import FileBlobs
from roadcast.forecasting.contract import PROMISES, Promise
from roadcast.forecasting.forecasters import Added
from roadcast.forecasting.graph import Graph
from roadcast.pipeline.champion import load_version
from roadcast.plugins import GROUP, load
from roadcast.registry.manifest import ModelRefused
from roadcast.registry.registry import Registry

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "forecaster-plugin"
BROKEN = """
import os
import time

from roadcast.forecasting.last_value import LastValue

instance = LastValue("of_last_value")
also = LastValue("of_last_value")
ours = LastValue("blend")
place = LastValue("champion")
nothing = None

def leaves():
    raise SystemExit(3)

def hangs():
    time.sleep(60)

def ends():
    print("not to be read")
    os._exit(7)

def raises():
    raise RuntimeError("two\\nlines")

class Fits:
    name = "fits"

    def fit(self, history, graph, target, horizons):
        return LastValue().fit(history, graph, target, horizons - 1)
"""


@pytest.fixture(autouse=True)
def _packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugins.py").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "unreadable_plugin.py").write_text("def :\n", encoding="utf-8")
    for folder in (tmp_path, EXAMPLE):
        monkeypatch.syspath_prepend(folder)
    for name in ("broken_plugins", "unreadable_plugin", "weekly_naive"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def loaded(*values: str) -> tuple[list[Added], list[str]]:
    """Of entry points a, b, …"""
    refused = list[str]()
    points = [EntryPoint(chr(ord("a") + i), value, GROUP) for i, value in enumerate(values)]
    return load(refused.append, reversed(points)), refused


def test_whoever_is_not_ready_in_time_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "PATIENCE_S", 5.0)
    added, refused = loaded("broken_plugins:hangs")
    assert added == []
    assert refused == ["forecaster a (broken_plugins:hangs) is left out: it was not ready within 5 s"]


def test_factories_and_instances_are_taken_with_what_they_cost() -> None:
    added, refused = loaded("weekly_naive:WeeklyNaive", "broken_plugins:instance")
    assert refused == []
    assert [each.forecaster.name for each in added] == ["weekly_naive", "of_last_value"]
    assert all(each.cost.sensor_us == 0 < each.cost.horizon_us < 1_000 for each in added)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("absent_module:Forecaster", "ModuleNotFoundError"),
        ("broken_plugins:Absent", "AttributeError"),
        ("unreadable_plugin:any", "SyntaxError"),
        ("broken_plugins:nothing", "TypeError"),
        ("broken_plugins:leaves", "SystemExit(3)"),
        ("broken_plugins:ends", "it ended its process (exit code 7)"),
        ("broken_plugins:raises", r"RuntimeError('two\nlines')"),
        ("builtins:dict", "has a name: raised AttributeError"),
        (
            "broken_plugins:Fits",
            "keeps its promises on a small network: median is float32 (5, 5), expected float32 (5, 6)",
        ),
        ("broken_plugins:ours", "the name blend is taken"),
        ("broken_plugins:place", "the name champion is taken"),
    ],
)
def test_a_broken_one_is_left_out_with_a_line_that_says_why(value: str, said: str) -> None:
    added, [line] = loaded("weekly_naive:WeeklyNaive", value)
    assert [each.forecaster.name for each in added] == ["weekly_naive"]
    assert line.startswith(f"forecaster b ({value}) is left out: {said}")
    assert "\n" not in line


def test_of_two_of_one_name_the_second_is_left_out() -> None:
    added, refused = loaded("broken_plugins:instance", "broken_plugins:also")
    assert len(added) == 1
    assert refused == ["forecaster b (broken_plugins:also) is left out: the name of_last_value is taken"]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_example_keeps_every_promise(promise: Promise) -> None:
    [example], _ = loaded("weekly_naive:WeeklyNaive")
    promise(example.forecaster)


def test_the_example_forecasts_the_same_time_last_week() -> None:
    [example], _ = loaded("weekly_naive:WeeklyNaive")
    history = history_of(speeds(8 * DAY))
    fitted = example.forecaster.fit(history.until(7 * DAY + 10), Graph(), "speed", 6)
    known = 7 * DAY + 100
    expected = history.of("speed")[known - 7 * DAY : known - 7 * DAY + 6].T
    assert (fitted.forecast(history.until(known)).median == expected).all()


def test_it_is_trained_saved_and_loaded_like_ours(tmp_path: Path) -> None:
    added, _ = loaded("weekly_naive:WeeklyNaive")
    trainer = given(history_of(speeds(3 * DAY)), "weekly_naive", added=added)
    judged(trainer)
    model = trainer.model()
    assert model.training.forecaster == "weekly_naive"
    registry = Registry(FileBlobs(tmp_path / "models"), lambda: datetime.now(UTC))
    version = registry.save(model)
    champion, state = load_version(registry, version, 6, 300, added), history_of(speeds(DAY, seed=1))
    learnt = added[0].forecaster.fit(history_of(speeds(3 * DAY)), Graph(), "speed", 6)
    assert champion.trained.fitted["speed"].forecast(state).median.tobytes() == learnt.forecast(state).median.tobytes()
    with pytest.raises(ModelRefused, match="found the forecaster weekly_naive, expected one of last_value, profile"):
        load_version(registry, version, 6, 300)
