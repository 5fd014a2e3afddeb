"""The sums of errors, against loops over every forecast."""

from datetime import date

import numpy as np
import pytest

from roadcast.api.accuracy import accuracy_document
from roadcast.domain.sensor import Sensor
from roadcast.domain.units import Units
from roadcast.forecasting import metrics
from roadcast.pipeline.score import Observed, compare
from roadcast.storage.forecasts import Issues
from roadcast.storage.readings import Rows
from roadcast.storage.scores import SERVED

TICK = 300_000
START = 1_772_409_600_000  # 2026-03-02
SENSORS, HORIZONS, TICKS = 4, 3, 20
KNOWN = {number: Sensor(f"S{number}", reference_speed=60.0) for number in range(1, SENSORS + 1)}


def at(tick: int) -> int:
    return START + tick * TICK


@pytest.fixture
def truth() -> np.ndarray:
    """Speeds [T, S] with a jam, a standing queue and readings that are missing."""
    random = np.random.default_rng(5)
    speed = random.uniform(5, 65, (TICKS, SENSORS)).astype(np.float32)
    speed[3:6, 1], speed[7, 2], speed[9, 0] = 0.0, 0.99, 1.0
    speed[random.random(speed.shape) < 0.1] = np.nan
    return speed


def issues() -> Issues:
    random = np.random.default_rng(6)
    n = TICKS * SENSORS
    speed = random.uniform(0, 65, (n, HORIZONS)).astype(np.float32)
    speed[random.random(speed.shape) < 0.1] = np.nan
    return Issues(
        np.repeat([at(tick) for tick in range(TICKS)], SENSORS),
        np.tile(np.arange(1, SENSORS + 1, dtype=np.int32), TICKS),
        speed,
        random.uniform(0, 1, speed.shape).astype(np.float32),
        np.full_like(speed, 5),
        speed - 8,
        speed + 8,
        {"last_value": speed + 1},
    )


def observed(truth: np.ndarray, ticks: list[int]) -> Observed:
    tick, sensor = np.nonzero(~np.isnan(truth))
    values = np.full((len(tick), 4), np.nan, np.float32)
    values[:, 0] = truth[tick, sensor]
    times = np.array([at(int(t)) for t in tick], np.int64)
    rows = Rows(times, (sensor + 1).astype(np.int32), values, times)
    return Observed.of(rows, KNOWN, [at(t) for t in ticks], TICK, "UTC")


@pytest.mark.parametrize("ticks", [list(range(8, 15)), [8, 9, 12], [4]])
def test_every_target_of_the_ticks_counts_once_and_no_other(truth: np.ndarray, ticks: list[int]):
    made = issues()
    pairs: dict[int, list[tuple[float, float]]] = {step: [] for step in range(HORIZONS)}
    for row in range(len(made.issued_ms)):
        issued, sensor = divmod(row, SENSORS)
        for step in range(HORIZONS):
            target = issued + step + 1
            if target in ticks and not np.isnan(truth[target, sensor] + made.speed[row, step]):
                pairs[step].append((float(made.speed[row, step]), float(truth[target, sensor])))
    found = list(compare(made, observed(truth, ticks)))
    for step, expected in pairs.items():
        served = [s for s in found if s.model == SERVED and s.horizon_minutes == 5 * (step + 1)]
        assert sum(s.n for s in served) == len(expected)
        assert sum(s.absolute for s in served) == pytest.approx(sum(abs(f - t) for f, t in expected), rel=1e-5)
        assert sum(s.n for s in served if s.jam) == sum(t < 30 for _, t in expected)
        share = [abs(f - t) / t for f, t in expected if t >= 1]
        assert sum(s.relative_n for s in served) == len(share)
        assert sum(s.relative for s in served) == pytest.approx(sum(share), rel=1e-5)


def test_percentages_are_those_of_the_metrics(truth: np.ndarray):
    made = issues()
    found = compare(made, observed(truth, list(range(TICKS))))
    [first] = [m for m in accuracy_document(found, 1, Units.US)["models"] if m["horizon_minutes"] == 5][:1]
    forecast, target = made.speed[:-SENSORS, 0], truth[1:].ravel()
    assert first["model"] == SERVED
    assert first["mape"] == pytest.approx(100 * metrics.mape(forecast, target), abs=0.01)
    assert (target < metrics.MAPE_FLOOR_MPH).sum() > 0


def test_targets_belong_to_their_own_local_day(truth: np.ndarray):
    assert {s.day for s in compare(issues(), observed(truth, [1, 2]))} == {date(2026, 3, 2)}
