"""The registry under kill -9, and under two processes at once."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import registry_process
from registry_process import FEATURES, NOON, model, registry_in

from roadcast.blobs.file import FileBlobs
from roadcast.registry.registry import Registry

ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1"}


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, registry_process.__file__, *map(str, arguments)], env=ENVIRONMENT)


def killed_at_every_step(folder: Path, what: str) -> list[Path]:
    """The folders after each kill; the last one is of the process that came through."""
    assert start("crash", folder, what).wait(120) == 0
    return sorted((path for path in folder.iterdir() if path.name != "start"), key=lambda path: int(path.name))


def loads(registry: Registry, version: str, seed: int) -> bool:
    found = registry.load("m", version, FEATURES)
    return found.parts["net/weights"].tolist() == [seed] * 3 and found.parts["trees"] == f"tree {seed}"


def test_a_save_that_is_killed_leaves_all_or_nothing(tmp_path: Path) -> None:
    old = registry_in(tmp_path / "start").save(model(0))
    folders = killed_at_every_step(tmp_path, "save")
    new = registry_in(folders[-1]).versions("m")[-1]
    assert new != old
    seen = []
    for folder in folders:
        registry = registry_in(folder, NOON + timedelta(minutes=2))
        versions = registry.versions("m")
        seen.append((len(versions), (folder / "m" / new).exists()))
        assert versions in ([old], [old, new])
        assert loads(registry, old, 0)
        assert len(versions) == 1 or loads(registry, new, 1)
        later = registry.save(model(2))
        assert loads(registry, later, 2)
        registry_in(folder, NOON + timedelta(days=2)).prune("m", keep=1)
        assert {name.split("/")[1] for name in FileBlobs(folder).names()} == {later}
    assert set(seen) == {(1, False), (1, True), (2, True)}, "killed before, in the middle of, and after it"


def test_a_promotion_that_is_killed_leaves_the_old_or_the_new_champion(tmp_path: Path) -> None:
    registry = registry_in(tmp_path / "start")
    old, new = sorted(registry.save(model(seed)) for seed in range(2))
    registry.promote("m", old, NOON - timedelta(hours=1), {"reason": "the first"})
    first = registry.history("m")
    seen = []
    for folder in killed_at_every_step(tmp_path, "promote"):
        registry = registry_in(folder)
        history = registry.history("m")
        seen.append(len(history))
        assert history[:1] == first
        assert [change.version for change in history] in ([old], [old, new])
        if len(history) == 1:
            registry.promote("m", new, NOON, {})
        assert registry.rollback("m", new, NOON, {}).version == old
    assert seen == sorted(seen)
    assert set(seen) == {1, 2}


def test_promotions_of_two_processes_all_become_history(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    versions = [registry.save(model(seed)) for seed in range(2)]
    processes = [start("promote", tmp_path, version, 25) for version in versions]
    assert [process.wait(120) for process in processes] == [0, 0]
    history = registry.history("m")
    for version in versions:
        assert [change.evidence["turn"] for change in history if change.version == version] == list(range(25))
    assert len(history) == 50
