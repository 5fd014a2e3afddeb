"""`roadcast backtest`: its numbers against the file's own, its report, and that nothing of the test gets into what is
fitted or chosen."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from roadcast.cli import main
from roadcast.commands import BacktestWish
from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.calibration import Tolerance
from roadcast.forecasting.evaluation import Outcome, Task, measures, rehearse
from roadcast.forecasting.forecaster import Fitted, Forecaster
from roadcast.forecasting.forecasters import QUICK, why_no_trees
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import History
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.parts import Parts
from roadcast.forecasting.perceptron import Training
from roadcast.forecasting.profile import Profile
from roadcast.pipeline.backtesting import Recording, judge, recording, served, shown_days
from roadcast.report.findings import Findings
from roadcast.report.page import page
from roadcast.sources.formats import FormatOptions, open_source

DAY, SENSORS = 288, 4
MEASURES = ["count", "mae", "rmse", "mape", "bias", "coverage_80", "coverage_90", "winkler_80", "winkler_90", "ece"]
CONGESTED = ["coverage_80_congested", "coverage_90_congested"]
KEYS = ["forecaster", "horizon_steps", "horizon_minutes", *MEASURES, *CONGESTED, "train_cpu_s", "peak_mb"]
"""Of a row."""
NET, TREES = GraphMlp(training=Training(hidden=(8,), epochs=1)), GradientBoosting(cases=5_000, trees=5, leaves=7)
WITH_TREES: tuple[Forecaster, ...] = () if why_no_trees() else (TREES, Blend(net=NET, trees=TREES))
FORECASTERS: tuple[Forecaster, ...] = (*QUICK, NET, *WITH_TREES)


def speeds(ticks: int, sensors: int = SENSORS, per_day: int = DAY) -> np.ndarray:
    """Miles per hour with a jam in the morning and noise."""
    random = np.random.default_rng(3)
    of_day = np.arange(ticks) % per_day / per_day
    daily = 60 - 30 * np.exp(-((of_day - 0.35) ** 2) / 0.004)
    return np.round(np.maximum(daily[:, None] + random.normal(0, 3, (ticks, sensors)), 1), 1)


def wide_csv(path: Path, values: np.ndarray, minutes: int = 5) -> Path:
    """A column for each sensor; NaN is an empty cell."""
    begin = datetime(2025, 3, 3, tzinfo=UTC) + timedelta(minutes=minutes)
    rows = [",".join(("timestamp", *(f"S{i}" for i in range(values.shape[1]))))]
    for i, row in enumerate(values.tolist()):
        cells = ["" if np.isnan(value) else f"{value:g}" for value in row]
        rows.append(",".join((f"{begin + i * timedelta(minutes=minutes):%FT%TZ}", *cells)))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


Command = Callable[..., int]


@pytest.fixture
def roadcast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command line, in a folder of its own; gives the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["roadcast", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


def last_value_errors(values: np.ndarray, test_from: int, step: int, longest: int) -> np.ndarray:
    """Forecast − truth of the last value at one step, [issues, S], for every issue of the test."""
    known = np.arange(test_from + 12, len(values) - longest + 1)
    return values[known - 1] - values[known + step - 1]


def test_its_numbers_are_those_of_the_file(
    roadcast: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, test_from = speeds(3 * DAY), 2 * DAY + 50
    file, out, html = wide_csv(tmp_path / "speeds.csv", values), tmp_path / "out.json", tmp_path / "out.html"
    code = roadcast(
        "backtest", file, "--models", "profile, last_value", "--horizons", "1,3", "--test-from", test_from,
        "--json", out, "--html", html,
    )  # fmt: skip
    assert code == 0
    found = orjson.loads(out.read_bytes())
    assert list(found) == ["served", "task", "rows"]
    assert found["task"] == {
        "file": "speeds.csv", "variable": "speed", "unit": "mph", "interval_s": 300, "protocol": "pooled",
        "test_from": test_from, "ticks": 3 * DAY, "sensors": values.shape[1], "mask_zeros": None, "seed": 0,
        "test_begins": "2025-03-05T04:15:00Z",
    }  # fmt: skip
    assert [row["horizon_minutes"] for row in found["rows"]] == [5, 15, 5, 15]
    assert found["served"] in {"last_value", "profile"}
    assert [list(row) for row in found["rows"]] == [KEYS] * 4
    order = [(row["forecaster"], row["horizon_steps"]) for row in found["rows"]]
    assert order == [("last_value", 1), ("last_value", 3), ("profile", 1), ("profile", 3)]
    for row, steps in zip(found["rows"], ([1], [1, 2, 3])):
        errors = np.concatenate([last_value_errors(values, test_from, step, 3) for step in steps])
        assert row["count"] == errors.size
        assert row["mae"] == pytest.approx(np.abs(errors).mean(), abs=1e-4)
        assert row["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), abs=1e-4)
        assert row["bias"] == pytest.approx(errors.mean(), abs=1e-4)
        assert row["coverage_80"] == pytest.approx(0.8, abs=0.1)
        assert row["peak_mb"] > 10
    printed = capsys.readouterr().out
    assert f"{found['rows'][0]['mae']:.3f}" in printed
    assert f"{found['served']} would serve" in printed
    assert_readable(html.read_text(encoding="utf-8"), pictures=6)


def test_a_holiday_of_the_settings_is_forecast_like_a_sunday(
    roadcast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jams on weekdays from Monday, 2025-03-03 on, and none on Tuesday, 2025-03-11, which is the test."""
    values, free = speeds(9 * DAY), np.repeat(np.isin(np.arange(9), (5, 6, 8)), DAY)
    values[free] = 60
    file, out, errors = wide_csv(tmp_path / "speeds.csv", values), tmp_path / "out.json", list[float]()
    for holidays in ("", "2025-03-11"):
        monkeypatch.setenv("HOLIDAYS", holidays)
        assert roadcast("backtest", file, "--models", "profile", "--test-from", 8 * DAY, "--json", out) == 0
        errors.append(orjson.loads(out.read_bytes())["rows"][-1]["rmse"])
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("variable", "factor", "absolute", "unit"),
    [("speed", 1, 5, "mph"), ("volume", 4, 10, "vehicles per interval"), ("occupancy", 0.002, 2, "percent")],
)
def test_confidence_is_that_of_errors_which_mean_something(
    tmp_path: Path, variable: str, factor: float, absolute: float, unit: str
) -> None:
    found = read(wide_csv(tmp_path / "file.csv", (speeds(60) * factor).round(4)), variable)
    task = BacktestWish("UTC", variable, None, 0.5, [3], [], 0, pooled=True, mask_zeros=False).task(found)
    judged = judge(LastValue(), task)
    findings = Findings("file", task, found.codes, [3], True, [judged], "last_value")
    assert task.tolerance == (absolute, 0.1)
    assert findings.tolerance == f"the larger of {absolute} {unit} and 10% of the forecast"
    assert findings.tolerance in findings.caption
    assert findings.tolerance in page(findings)


def test_steps_apart_share_of_the_file_and_zeros_as_missing(roadcast: Command, tmp_path: Path) -> None:
    values = speeds(2 * DAY)
    values[::10] = 0
    file, counts = wide_csv(tmp_path / "speeds.csv", values), []
    for zeros in ([], ["--mask-zeros"]):
        out = tmp_path / "out.json"
        code = roadcast(
            "backtest", file, "--models", "last_value", "--horizons", "3,2", "--split", 0.75, "--protocol", "step",
            "--json", out, *zeros,
        )  # fmt: skip
        assert code == 0
        counts.append({row["horizon_steps"]: row["count"] for row in orjson.loads(out.read_bytes())["rows"]})
    truth = {step: values[np.arange(432 + 12, 2 * DAY - 3 + 1) + step - 1] for step in (3, 2)}
    assert counts == [
        {step: truth[step].size for step in (3, 2)},
        {step: np.count_nonzero(truth[step]) for step in (3, 2)},
    ]


BAD: list[tuple[list[str], str]] = [
    (["--horizons", "0"], "--horizons 0: expected whole numbers from 1 on"),
    (["--horizons", "3,x"], "--horizons 3,x: expected whole numbers from 1 on"),
    (["--models", "oracle"], "--models oracle: expected last_value, profile, "),
    (["--test-from", "0"], "the test begins at row 0 of 60: expected one from 1 to 36"),
    (["--test-from", "37"], "the test begins at row 37 of 60: expected one from 1 to 36"),
    (["--split", "1"], "--split 1: expected a share between 0 and 1"),
    (["--split", "nan"], "--split nan: expected a share between 0 and 1"),
    (["--split", "0.9"], "the test begins at row 54 of 60: expected one from 1 to 36"),
    (["--horizons", "60"], "60 ticks: expected at least 73"),
    (["--protocol", "mean"], "'mean' is not one of 'pooled', 'step'"),
    (["--variable", "colour"], "colour"),
    (["--json", "absent/out.json"], "--json absent/out.json: expected a file in a folder that exists"),
    (["--html", "."], "--html .: expected a file in a folder that exists"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_bad_values_are_told_in_one_line(
    roadcast: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    file = wide_csv(tmp_path / "speeds.csv", speeds(60, 2))
    assert roadcast("backtest", file, "--models", "last_value", *arguments) in {1, 2}
    assert said in told(capsys)


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("sensor_id,timestamp,speed\nA,2025-03-03T00:05:00Z,60\n", ["--variable", "volume"], "no volume in it"),
        ("timestamp,A\n", [], "no speed in it"),
        ("sensor_id,timestamp,speed\n", [], "no speed in it"),
        ("timestamp,A\n2025-03-03T00:05:00Z,60\n", [], "1 ticks: expected at least 25"),
    ],
)
def test_a_file_that_does_not_do_says_what_it_lacks(
    roadcast: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    arguments: Sequence[str],
    said: str,
) -> None:
    file = tmp_path / "file.csv"
    file.write_text(content, encoding="utf-8")
    assert roadcast("backtest", file, *arguments) == 1
    assert said in told(capsys)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error; bars of progress stand before it."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("roadcast: ")]
    assert len(lines) == 1
    return lines[0]


def read(file: Path, variable: str = "speed") -> Recording:
    source = open_source(file, FormatOptions(timezone="UTC", variable=variable))
    batches = [chunk.batch for chunk in source.chunks()]
    return recording(batches, source.links, interval_s=source.interval_s, timezone="UTC", variable=variable)


def task_of(found: Recording, test_from: int, horizons: int = 3, target: str = "speed") -> Task:
    return Task(found.history, found.graph, target, horizons, test_from, Tolerance(5, 0.1))


@dataclass(frozen=True)
class Watched:
    """A forecaster of which everything that it learns is kept."""

    forecaster: Forecaster
    learnt: list[Parts] = field(default_factory=list[Parts])

    @property
    def name(self) -> str:
        return self.forecaster.name

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> Fitted:
        fitted = self.forecaster.fit(history, graph, target, horizons)
        self.learnt.append(fitted.parts())
        return fitted

    def restore(self, parts: Parts) -> Fitted:
        return self.forecaster.restore(parts)

    def as_bytes(self) -> list[list[tuple[str, bytes]]]:
        return [[(name, np.asarray(part).tobytes()) for name, part in parts.items()] for parts in self.learnt]


def noise_from(values: np.ndarray, tick: int) -> np.ndarray:
    """The same before `tick`; from then on anything, much of it missing, but as long."""
    random, noise = np.random.default_rng(9), values.copy()
    noise[tick:] = random.uniform(0, 150, noise[tick:].shape).round(1)
    noise[tick:-1][random.random(noise[tick:-1].shape) < 0.4] = np.nan
    return noise


def test_no_row_of_the_test_has_part_in_what_is_fitted_or_chosen(tmp_path: Path) -> None:
    values, test_from = speeds(3 * DAY), int(2.4 * DAY)
    fitted: list[list[Any]] = []
    chosen: list[str] = []
    errors: list[list[float]] = []
    for name, each in (("true", values), ("noise", noise_from(values, test_from))):
        task = task_of(read(wide_csv(tmp_path / f"{name}.csv", each)), test_from)
        watched = [Watched(forecaster) for forecaster in FORECASTERS]
        outcomes = [judge(forecaster, task) for forecaster in watched]
        fitted.append([(each.name, each.as_bytes()) for each in watched])
        chosen.append(served(outcomes))
        errors.append([outcome.rehearsed for outcome in outcomes])
        assert [len(each.learnt) for each in watched] == [2] * len(FORECASTERS)
        assert min(measures(outcome.tally, slice(0, 3)).mae for outcome in outcomes) > (20 if name == "noise" else 0)
    assert fitted[0] == fitted[1]
    assert errors[0] == errors[1]
    assert np.isfinite(errors[0]).all()
    assert chosen[0] == chosen[1]


def test_nor_has_a_sensor_that_is_first_heard_in_it(tmp_path: Path) -> None:
    """Though its column is the first of the file: draws by chance would all be others."""
    values, test_from = speeds(3 * DAY), int(2.4 * DAY)
    late = np.full((len(values), 1), np.nan)
    late[-10:] = 40
    found = []
    for name, each in (("without", values), ("with", np.concatenate([late, values], axis=1))):
        task = task_of(read(wide_csv(tmp_path / f"{name}.csv", each)), test_from)
        watched = [Watched(forecaster) for forecaster in FORECASTERS]
        outcomes = [judge(forecaster, task) for forecaster in watched]
        found.append(([each.as_bytes() for each in watched], [outcome.rehearsed for outcome in outcomes]))
        assert task.history.sensors == each.shape[1]
    assert found[0] == found[1]


def test_the_first_row_of_the_test_is_one_of_the_file_where_that_has_gaps(
    roadcast: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, out = speeds(3 * DAY), tmp_path / "out.json"
    values[DAY // 2 : DAY] = np.nan
    file, row = wide_csv(tmp_path / "gap.csv", values), DAY + 50
    begins = []
    for option in (["--test-from", row], ["--split", row / (2.5 * DAY) + 1e-9]):
        assert roadcast("backtest", file, "--models", "profile", "--horizons", "1", *option, "--json", out) == 0
        begins.append(orjson.loads(out.read_bytes())["task"]["test_begins"])
    assert begins == ["2025-03-04T16:15:00Z"] * 2
    assert "ticks of test from 2025-03-04 16:15 UTC on" in capsys.readouterr().out


def test_what_is_learnt_of_errors_before_the_test_is_the_same_whatever_the_test_is(tmp_path: Path) -> None:
    values, test_from = speeds(2 * DAY), 400
    learnt = []
    for name, each in (("true", values), ("noise", noise_from(values, test_from))):
        found = rehearse(Profile(), task_of(read(wide_csv(tmp_path / f"{name}.csv", each)), test_from))
        learnt.append([part.tobytes() for part in (found.offsets, found.errors, found.squares, found.kept)])
    assert learnt[0] == learnt[1]


def test_one_row_of_what_may_be_learnt_from_does_matter(tmp_path: Path) -> None:
    """So that the two tests above could fail."""
    values, test_from = speeds(2 * DAY), 400
    rmse = [
        rehearse(LastValue(), task_of(read(wide_csv(tmp_path / "file.csv", each)), test_from)).rmse()
        for each in (values, noise_from(values, test_from - 1))
    ]
    assert rmse[0] != rmse[1]


def gappy(values: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(5)
    values[random.random(values.shape) < 0.3] = np.nan
    values[200:260] = np.nan
    values[:, -1] = np.nan
    values[-1, 0] = 60
    return values


@pytest.mark.parametrize(
    ("values", "minutes", "variable"),
    [
        (speeds(2 * DAY, 1), 5, "speed"),
        (gappy(speeds(2 * DAY)), 5, "speed"),
        (speeds(12 * 24, per_day=24), 60, "speed"),
        (np.random.default_rng(1).poisson(90, (2 * DAY, 3)).astype(float), 5, "volume"),
        (speeds(2 * 96, per_day=96), 15, "speed"),
        (np.full((2 * DAY, 2), 60.0), 5, "speed"),
    ],
    ids=["single sensor", "gaps and a dead sensor", "hourly", "volume", "quarters of an hour", "never changing"],
)
def test_files_of_every_kind_are_judged_and_reported(
    tmp_path: Path, values: np.ndarray, minutes: int, variable: str
) -> None:
    found = read(wide_csv(tmp_path / "file.csv", values, minutes), variable)
    heard = ~np.isnan(values).all(axis=0)
    assert found.history.interval_ms == minutes * 60_000
    np.testing.assert_allclose(found.history.of(variable), values[:, heard].astype(np.float32))
    task = task_of(found, int(len(values) * 0.7), target=variable)
    outcomes = [judge(forecaster, task, shown_days(task)) for forecaster in (*FORECASTERS[:3], NET)]
    for outcome in outcomes:
        counted = measures(outcome.tally, slice(0, 3))
        assert counted.count > 0
        assert np.isfinite([counted.mae, counted.rmse, counted.coverage_80, counted.winkler_90, counted.ece]).all()
    text = page(Findings("file.csv", task, found.codes, [1, 3], False, outcomes, served(outcomes)))
    assert_readable(text, pictures=5 + len(shown_days(task)))
    assert f"{3 * minutes} min" in text


def test_a_test_of_one_issue_tells_what_it_cannot_tell(tmp_path: Path) -> None:
    """The history is too short for any error to be known before the test, so that nobody promises anything."""
    found = read(wide_csv(tmp_path / "file.csv", speeds(30, 1)))
    task = task_of(found, 15)
    outcomes = [judge(forecaster, task, shown_days(task)) for forecaster in (LastValue(), Profile())]
    counted = measures(outcomes[0].tally, slice(0, 3))
    assert counted.count == 3
    assert np.isnan(counted.coverage_80)
    text = page(Findings("file.csv", task, found.codes, [3], True, outcomes, "last_value"))
    assert_readable(text, pictures=5 + len(shown_days(task)))
    assert "<td>–</td>" in text
    assert "too few forecasts to say" in text


def test_names_from_outside_are_text_and_nothing_else(tmp_path: Path) -> None:
    values = speeds(2 * DAY, 2)
    file = tmp_path / "file.csv"
    text = wide_csv(file, values).read_text(encoding="utf-8").replace("S0", "<b>$x^2$</b>").replace("S1", "a&b")
    file.write_text(text, encoding="utf-8")
    found = read(file)
    task = task_of(found, 400)
    outcome: Outcome = judge(LastValue(), task, shown_days(task))
    shown = page(Findings("<i>.csv", task, found.codes, [3], True, [outcome], "last_value"))
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "&lt;b&gt;$x^2$&lt;/b&gt;" in shown
    assert_readable(shown, pictures=6)


class _Page(HTMLParser):
    """Every element's name and attributes, and which were left open."""

    VOID = frozenset({"meta", "path", "use", "rect", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def assert_readable(text: str, *, pictures: int) -> None:
    """Well formed, asks for nothing, heads its cells, and tells its pictures in words."""
    parsed = _Page()
    parsed.feed(text)
    assert parsed.open == []
    asked = [
        value
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "data", "action"} and not value.startswith("#")
    ]
    assert asked == []
    assert re.findall(r"url\((?!#)|@import", text) == []
    assert not {"script", "link", "iframe", "object", "image"} & {tag for tag, _ in parsed.elements}
    scopes = [attributes.get("scope") for tag, attributes in parsed.elements if tag == "th"]
    assert {"col", "row", "rowgroup"} == set(scopes)
    drawn = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert len(drawn) == sum(tag == "figcaption" for tag, _ in parsed.elements) == pictures
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    names = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert "nan" not in re.sub(r"<[^>]*>", " ", text)
