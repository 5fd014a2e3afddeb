"""The sums of errors, against loops over every forecast."""

import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from roadcast.api.accuracy import accuracy
from roadcast.domain.times import from_ms, to_ms
from roadcast.domain.units import Units
from roadcast.flow.congestion import STATES, level, states
from roadcast.forecasting import metrics
from roadcast.forecasting.forecaster import PROBABILITIES
from roadcast.forecasting.scoring import MEASURES, RELIABILITY, SERVED, Issues, Truth
from roadcast.scoreboard import BY_SENSOR, Comparison, as_scores

TICK = 300_000
ZONE = "America/Los_Angeles"
START = to_ms(datetime(2026, 3, 8, 9, 20, tzinfo=UTC))  # at 10:00 UTC the zone's clocks are put forward
SENSORS, HORIZONS, TICKS = 4, 3, 20
REFERENCE = (60.0, 65.0, float("nan"), 55.0)


def at(tick: int) -> int:
    return START + tick * TICK


@pytest.fixture
def speed() -> np.ndarray:
    """Speeds [T, S] with a jam, a standing queue and readings that are missing."""
    random = np.random.default_rng(5)
    speed = random.uniform(5, 65, (TICKS, SENSORS)).round(1).astype(np.float32)
    speed[3:6, 1], speed[7, 2], speed[9, 0] = 0.0, 0.99, 1.0
    speed[random.random(speed.shape) < 0.1] = np.nan
    return speed


@pytest.fixture
def issues() -> Issues:
    """Of every tick and sensor, with gaps; two models take turns in publishing."""
    random = np.random.default_rng(6)
    n = TICKS * SENSORS
    speed = random.uniform(0, 65, (n, HORIZONS)).round(1).astype(np.float32)
    speed[random.random(speed.shape) < 0.1] = np.nan
    other = random.uniform(0, 65, speed.shape).astype(np.float32)
    other[random.random(speed.shape) < 0.3] = np.nan
    confidence = random.uniform(0, 1, speed.shape).round(4).astype(np.float32)
    confidence[random.random(speed.shape) < 0.2] = np.nan
    return Issues(
        np.repeat([at(tick) for tick in range(TICKS)], SENSORS),
        np.tile(np.arange(1, SENSORS + 1, dtype=np.int32), TICKS),
        np.where(np.arange(n) < n // 2, 7, 9).astype(np.int32),
        speed,
        confidence,
        np.full_like(speed, 5),
        speed[..., None] + np.array([-12, -8, -3, 0, 3, 8, 12], np.float32),
        {"last_value": speed + 1, "profile": other},
    )


def truth(speed: np.ndarray, ticks: list[int]) -> Truth:
    reference = np.tile(np.array(REFERENCE, np.float32), (len(ticks), 1))
    ends = np.array([at(tick) for tick in ticks], np.int64)
    return Truth(ends, np.arange(1, SENSORS + 1, dtype=np.int32), speed[ticks], reference)


def shown(value: np.floating) -> float:
    """What an export shows of it."""
    return round(float(value), 4)


def by_loops(issues: Issues, speed: np.ndarray, ticks: list[int]) -> tuple[dict, dict]:
    """Measures by day, hour, forecaster, publisher, horizon and state; and by day, sensor, forecaster and horizon."""
    found: dict = defaultdict(lambda: defaultdict(float))
    by_sensor: dict = defaultdict(lambda: np.zeros(len(BY_SENSOR)))
    for row in range(len(issues.issued_ms)):
        issued, sensor = divmod(row, SENSORS)
        for step in range(HORIZONS):
            tick = issued + step + 1
            if tick not in ticks or math.isnan(speed[tick, sensor]):
                continue
            actual = shown(speed[tick, sensor])
            local = (from_ms(at(tick)) - timedelta(milliseconds=1)).astimezone(ZoneInfo(ZONE))
            state = str(level(actual / REFERENCE[sensor]) or "unknown")
            for name, median in {SERVED: issues.speed, **issues.candidates}.items():
                publisher = int(issues.model_no[row]) if name == SERVED else None
                sums = found[local.date(), local.hour, name, publisher, 5 * (step + 1), state]
                forecast = shown(median[row, step])
                if not math.isnan(forecast):
                    error = forecast - actual
                    moving = actual >= metrics.MAPE_FLOOR_MPH
                    share = abs(error) / actual if moving else 0
                    plain = [1, abs(error), error * error, error, moving, share]
                    for measure, value in zip(MEASURES, plain, strict=False):
                        sums[measure] += value
                    by_sensor[local.date(), sensor + 1, name, step] += plain[: len(BY_SENSOR)]
                if name == SERVED:
                    count_promises(sums, issues, row, step, actual)
    return {key: sums for key, sums in found.items() if any(sums.values())}, by_sensor


def count_promises(sums: dict, issues: Issues, row: int, step: int, actual: float) -> None:
    edges = [shown(value) for value in issues.quantiles[row, step]]
    if not any(map(math.isnan, edges)):
        sums["interval_n"] += 1
        for name, low, high, outside in (("80", edges[1], edges[-2], 0.2), ("90", edges[0], edges[-1], 0.1)):
            sums[f"covered_{name}"] += low <= actual <= high
            sums[f"width_{name}"] += high - low
            miss = low - actual if actual < low else actual - high if actual > high else 0
            sums[f"winkler_{name}"] += high - low + 2 / outside * miss
    said = shown(issues.confidence[row, step])
    if not math.isnan(said):
        tenth = min(int(said * 10), 9)
        sums["confidence_n", tenth] += 1
        sums["confidence_sum", tenth] += said
        sums["within_n", tenth] += abs(shown(issues.speed[row, step]) - actual) <= 5


@pytest.mark.parametrize("ticks", [list(range(TICKS)), list(range(8, 15)), [8, 9, 12], [4]])
def test_sums_are_those_of_loops(issues: Issues, speed: np.ndarray, ticks: list[int]):
    compared = Comparison.of(issues, truth(speed, ticks), TICK, ZONE)
    expected, by_sensor = by_loops(issues, speed, ticks)
    groups, sums = compared.by_state()
    assert set(map(tuple, groups)) == set(expected)
    assert len(groups) == len(expected)
    for group, measures, tenths in zip(groups, sums.measures, sums.tenths, strict=True):
        loops = expected[tuple(group)]
        assert dict(zip(MEASURES, measures, strict=True)) == pytest.approx({name: loops[name] for name in MEASURES})
        for name, own in zip(RELIABILITY, tenths, strict=True):
            assert own == pytest.approx([loops[name, tenth] for tenth in range(10)])
    found = {
        (day, number, name, step): own[:, step]
        for day, numbers, names, sums_of in compared.by_sensor()
        for number, name, own in zip(numbers.tolist(), names, sums_of, strict=True)
        for step in range(HORIZONS)
        if own[0, step]
    }
    assert found.keys() == by_sensor.keys()
    assert all(found[key] == pytest.approx(by_sensor[key]) for key in found)


def test_a_target_belongs_to_the_local_hour_of_its_interval(issues: Issues, speed: np.ndarray):
    groups, _ = Comparison.of(issues, truth(speed, list(range(TICKS))), TICK, ZONE).by_state()
    assert {(group.day, group.hour) for group in groups} == {(date(2026, 3, 8), 1), (date(2026, 3, 8), 3)}


def test_the_onset_is_summed_up_apart_and_only_where_it_is(issues: Issues, speed: np.ndarray):
    near = np.zeros((TICKS, SENSORS), np.bool_)
    near[10:13, 1] = True
    whole = truth(speed, list(range(TICKS)))
    groups, sums = Comparison.of(issues, whole.where(near), TICK, ZONE).near_onset()
    assert {group.state for group in groups} == {"onset"}
    count = sum(m[0] for group, m in zip(groups, sums.measures, strict=True) if group.forecaster == "last_value")
    cells = [(row, step) for row in range(TICKS * SENSORS) for step in range(HORIZONS)]
    expected = [
        near[row // SENSORS + step + 1, row % SENSORS]
        and not math.isnan(speed[row // SENSORS + step + 1, row % SENSORS] + issues.speed[row, step])
        for row, step in cells
        if row // SENSORS + step + 1 < TICKS
    ]
    assert count == sum(expected) > 0


def test_what_was_measured_of_a_sensor_that_came_later_is_left_out(issues: Issues, speed: np.ndarray):
    early = truth(speed, [5])
    early = Truth(early.ends_ms, early.sensor_no[:2], early.speed[:, :2], early.reference[:, :2])
    [*found] = Comparison.of(issues, early, TICK, ZONE).by_sensor()
    assert {int(number) for sums in found for number in sums.sensor_no} <= {1, 2}


def test_percentages_and_intervals_are_those_of_the_metrics(issues: Issues, speed: np.ndarray):
    compared = Comparison.of(issues, truth(speed, list(range(TICKS))), TICK, ZONE)
    first = accuracy(as_scores(*compared.by_state()), Units.US)[0]
    rows = slice(0, -SENSORS)
    forecast, target = issues.speed[rows, 0], speed[1:].ravel()
    assert (first["model"], first["horizon_minutes"]) == (SERVED, 5)
    assert first["mape"] == pytest.approx(100 * metrics.mape(forecast, target), abs=0.01)
    assert (target < metrics.MAPE_FLOOR_MPH).sum() > 0
    low, high = (issues.quantiles[rows, 0, PROBABILITIES.index(p)] for p in (0.05, 0.95))
    assert first["interval"]["winkler_90"] == pytest.approx(metrics.winkler(low, high, target, 0.1), abs=0.01)
    assert first["interval"]["coverage_90"] == pytest.approx(metrics.coverage(low, high, target), abs=1e-4)
    said, tolerance = issues.confidence[rows, 0], issues.tolerance[rows, 0]
    hit = np.where(np.isnan(target), np.nan, np.abs(forecast - target) <= tolerance)
    assert first["ece"] == pytest.approx(metrics.calibration_error(said, hit), abs=1e-4)


def test_states_are_the_levels():
    speed = np.array([60.0, 45.0, 44.9, 30.0, 29.9, 15.0, 14.9, 0.0, 50.0, 50.0])
    reference = np.array([60.0] * 8 + [np.nan, 0.0])
    expected = [str(level(float(v) / 60)) for v in speed[:8]] + ["unknown"] * 2
    assert [STATES[i] for i in states(speed, reference)] == expected
