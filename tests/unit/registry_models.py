"""Models to save, a registry with a clock that moves a minute a look, and saved versions that were tampered with."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from roadcast.blobs.file import FileBlobs
from roadcast.registry.manifest import Training
from roadcast.registry.registry import Model, Registry

NOON = datetime(2026, 3, 2, 12, 0, 0, 123_456, UTC)
FEATURES = ("speed, 12 ticks back", "usual speed at the target time")
TRAINING = Training(
    forecaster="graph_mlp",
    features=FEATURES,
    targets=("speed",),
    horizons=12,
    interval_s=300,
    sensors=3,
    start=datetime(2026, 1, 1, tzinfo=UTC),
    end=datetime(2026, 3, 1, tzinfo=UTC),
    seed=7,
    judged_start=datetime(2026, 2, 22, tzinfo=UTC),
    judged_end=datetime(2026, 3, 1, tzinfo=UTC),
    metrics={"mae_15": 2.63, "rmse_15": 4.69},
)


class Ticking:
    """A clock that shows a minute more at every look."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at - timedelta(minutes=1)

    def __call__(self) -> datetime:
        self.at += timedelta(minutes=1)
        return self.at


def model(seed: int = 0, name: str = "network") -> Model:
    random = np.random.default_rng(seed)
    parts = {
        "net/speed/weights": random.normal(size=(4, 3)).astype(np.float32),
        "net/speed/links": np.arange(5),
        "trees/speed/horizon_1": f"tree\nversion=v4\nseed={seed}\n",
    }
    return Model(name, TRAINING, parts)


def registry_in(folder: Path, now: Callable[[], datetime] | None = None) -> Registry:
    return Registry(FileBlobs(folder), now or Ticking())


def forge(
    folder: Path, version: str, *, files: dict[str, bytes] | None = None, change: Callable[[dict], object] | None = None
) -> str:
    """Another version beside one that was saved, changed, and with every hash as it should be."""
    old = folder / "network" / version
    manifest = json.loads((old / "manifest.json").read_bytes())
    contents = {file: (old / file).read_bytes() for file in manifest["parts"]} | (files or {})
    manifest["parts"] = {
        file: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in contents.items()
    }
    if change:
        change(manifest)
    document = json.dumps(manifest).encode()
    forged = version[:-12] + hashlib.sha256(document).hexdigest()[:12]
    for file, content in {**contents, "manifest.json": document}.items():
        path = folder / "network" / forged / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return forged
