"""A process that changes a registry, to be killed or to meet another one. Run by test_registry_processes.py.

crash FOLDER save|promote
    copies FOLDER/start to FOLDER/0, FOLDER/1, … and does the same in each, in a child that is killed at its first,
    second, … step in the file system, until one comes through
promote FOLDER VERSION TURNS
    promotes the version again and again
"""

import os
import shutil
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from roadcast.blobs.file import FileBlobs
from roadcast.registry.manifest import Training
from roadcast.registry.registry import Model, Registry

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
FEATURES = ("speed",)
STEPS = {"open", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir"}


def model(seed: int) -> Model:
    training = Training(
        forecaster="graph_mlp", features=FEATURES, targets=("speed",), horizons=1, interval_s=300, sensors=1,
        start=NOON, end=NOON, seed=seed, judged_start=NOON, judged_end=NOON, metrics={},
    )  # fmt: skip
    return Model("m", training, {"net/weights": np.full(3, seed), "trees": f"tree {seed}"})


def registry_in(folder: Path, at: datetime = NOON) -> Registry:
    return Registry(FileBlobs(folder), lambda: at)


def save(folder: Path) -> None:
    registry_in(folder, NOON + timedelta(minutes=1)).save(model(1))


def promote(folder: Path) -> None:
    registry = registry_in(folder)
    registry.promote("m", registry.versions("m")[-1], NOON, {})


def die_at(step: int, folder: Path) -> None:
    """Be killed just before the step-th thing that is done to a file in the folder."""
    left = step

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and str(arguments[0]).startswith(str(folder)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(look)


def comes_through(what: str, folder: Path, step: int) -> bool:
    child = os.fork()
    if child == 0:
        die_at(step, folder)
        {"save": save, "promote": promote}[what](folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def crash(folder: Path, what: str) -> None:
    for step in range(1000):
        shutil.copytree(folder / "start", folder / str(step))
        if comes_through(what, folder / str(step), step):
            return


def promote_in_turns(folder: Path, version: str, turns: int) -> None:
    """Event times go back, so that every promotion changes something."""
    for turn in range(turns):
        registry_in(folder).promote("m", version, NOON - timedelta(hours=turn), {"turn": turn})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["crash", folder, what]:
            crash(Path(folder), what)
        case ["promote", folder, version, turns]:
            promote_in_turns(Path(folder), version, int(turns))
        case _:
            sys.exit(2)
