"""When a model is trained anew, and when it is taken back."""

from datetime import UTC, datetime, time, timedelta
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from unit.api_doubles import unreachable_database

from roadcast.blobs.file import FileBlobs
from roadcast.domain.clock import FeedClock
from roadcast.forecasting.calibration import Tolerance
from roadcast.pipeline.retraining import PROBATION, Retraining, standing
from roadcast.pipeline.training import TrainingConfig
from roadcast.registry.manifest import Training
from roadcast.registry.registry import Registry
from roadcast.services import Board

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)


def training(skill: float | None) -> Training:
    return Training(
        forecaster="blend", features=(), targets=("speed",), horizons=24, interval_s=300, sensors=3, start=NOW, end=NOW,
        seed=0, judged_start=NOW, judged_end=NOW, metrics={} if skill is None else {"skill": skill},
    )  # fmt: skip


def test_skill_is_against_the_best_naive_forecaster() -> None:
    errors = {"blend": 3.0, "last_value": 6.0, "profile": 4.0, "graph_autoregression": 1.0}
    found = standing("v", NOW - timedelta(hours=30), training(0.3), errors)
    assert found.skill == pytest.approx(0.25)
    assert (found.rmse, found.naive_rmse) == (pytest.approx(3), pytest.approx(4))


@pytest.mark.parametrize(
    ("hours", "champion", "judged", "worse", "drifted"),
    [
        (30, 5, 0.3, True, True),
        (20, 5, 0.3, False, False),
        (30, 3.5, 0.3, False, True),
        (30, 3, 0.3, False, False),
        (30, 3.5, None, False, False),
        (30, np.nan, 0.3, False, False),
    ],
)
def test_a_champion_has_a_day_and_must_then_be_better_than_the_naive_ones(
    hours: float, champion: float, judged: float | None, worse: bool, drifted: bool
) -> None:
    errors = {"last_value": 6.0, "profile": 4.0} | ({} if isnan(champion) else {"blend": champion})
    found = standing("v", NOW - timedelta(hours=hours), training(judged), errors)
    assert (found.is_worse(NOW), found.has_drifted(NOW)) == (worse, drifted)
    assert timedelta(days=1) == PROBATION


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-03-09T07:59:00Z", "2026-03-08T08:00:00Z"),
        ("2026-03-09T08:00:00Z", "2026-03-09T08:00:00Z"),
        ("2026-03-08T09:30:00Z", "2026-03-08T08:00:00Z"),
        ("2026-03-07T10:00:00Z", "2026-03-07T09:00:00Z"),
    ],
)
def test_it_is_due_once_a_local_day_also_when_the_clocks_change(now: str, due: str, tmp_path: Path) -> None:
    """03:00 in Chicago, whose clocks are put forward at 02:00 on 8 March: 09:00 UTC before, 08:00 from then on."""
    config = TrainingConfig(300_000, "America/Chicago", 24, Tolerance(5, 0.1))
    retraining = Retraining(
        unreachable_database(),
        Registry(FileBlobs(tmp_path), lambda: NOW),
        FeedClock(),
        Board(lambda: NOW),
        config,
        time(3),
    )
    assert retraining._scheduled(datetime.fromisoformat(now), time(3)) == datetime.fromisoformat(due)
