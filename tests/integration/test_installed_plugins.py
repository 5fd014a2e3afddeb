"""A package that is installed competes on the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from integration.test_backtest import DAY, speeds, wide_csv

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "forecaster-plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example is installed, and a broken package beside it."""
    folder = tmp_path_factory.mktemp("plugins")
    source, site = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", site, source], check=True)
    broken = site / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (broken / "entry_points.txt").write_text("[roadcast.forecasters]\nbroken = absent_module:Forecaster\n")
    return site


def backtest(folder: Path, site: Path | None, models: str) -> subprocess.CompletedProcess[str]:
    file, paths = wide_csv(folder / "speeds.csv", speeds(9 * DAY)), [os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(site or ""), *paths]))}
    command = [sys.executable, "-m", "roadcast", "backtest", file, "--models", models, "--json", folder / "out.json"]
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_an_installed_forecaster_is_judged_beside_ours_and_a_broken_one_is_named(tmp_path: Path, site: Path) -> None:
    done = backtest(tmp_path, site, "last_value,weekly_naive")
    assert done.returncode == 0, done.stderr
    rows = orjson.loads((tmp_path / "out.json").read_bytes())["rows"]
    errors = {(row["forecaster"], row["horizon_steps"]): row["rmse"] for row in rows}
    assert set(errors) == {(name, step) for name in ("last_value", "weekly_naive") for step in (3, 6, 9, 12)}
    assert errors["weekly_naive", 12] < errors["last_value", 12]
    assert "weekly_naive" in done.stdout
    told = [line for line in done.stderr.splitlines() if line.startswith("roadcast: ")]
    why = "ModuleNotFoundError(\"No module named 'absent_module'\")"
    assert told == [f"roadcast: forecaster broken (absent_module:Forecaster) is left out: {why}"]


def test_one_that_is_not_installed_is_unknown(tmp_path: Path) -> None:
    done = backtest(tmp_path, None, "weekly_naive")
    assert done.returncode == 1
    assert "--models weekly_naive: expected last_value, profile" in done.stderr
