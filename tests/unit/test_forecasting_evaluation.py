"""The judging of forecasters: sums against metrics on all forecasts at once, and what may be known when."""

from collections.abc import Sequence

import numpy as np
import pytest

from roadcast.forecasting import metrics
from roadcast.forecasting.calibration import Calibration, Judged, Tolerance, stratify
from roadcast.forecasting.evaluation import (
    ExampleDay,
    Issued,
    Outcome,
    Tally,
    Task,
    issues,
    judge_of,
    measures,
    reference_of,
    rehearse,
)
from roadcast.forecasting.example_days import example_days
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, Forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.forecasting.judge import Judge
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.profile import Profile
from roadcast.pipeline.backtesting import served, shown_days

SENSORS, HORIZONS, ISSUES = 5, 4, 60
DAY = 288
MIDNIGHT_MS = 1_331_251_200_000
"""2012-03-09 in UTC."""


def random_issues(seed: int = 0) -> list[Issued]:
    """Forecasts of random targets from 0 on; some targets, sensors, and intervals are missing."""
    random = np.random.default_rng(seed)
    made: list[Issued] = []
    for known in range(100, 100 + ISSUES):
        truth = np.maximum(random.normal(20, 15, (SENSORS, HORIZONS)), 0).astype(np.float32)
        truth[random.random(truth.shape) < 0.1] = np.nan
        spread = random.uniform(2, 12, (SENSORS, HORIZONS, 1))
        middle = np.nan_to_num(truth)[..., None] + random.normal(1, 6, (SENSORS, HORIZONS, 1))
        quantiles = (middle + spread * np.linspace(-1.6, 1.6, len(PROBABILITIES))).astype(np.float32)
        point = (quantiles[..., MEDIAN] + random.normal(0, 0.5, truth.shape)).astype(np.float32)
        confidence = random.random(truth.shape).astype(np.float32)
        point[known % SENSORS] = np.nan
        for untold in (quantiles, confidence):
            untold[known % SENSORS] = np.nan
            untold[(known + 1) % SENSORS] = np.nan
        strata = stratify(point, np.full(SENSORS, 60, np.float32), np.zeros(SENSORS, np.int64))
        limits = Tolerance(5, 0.1).of(point)
        made.append(Issued(known, Judged(strata, point, point, quantiles, confidence, confidence, limits), truth))
    return made


def tallied(made: Sequence[Issued], days: Sequence[ExampleDay] = ()) -> Tally:
    tally = Tally(HORIZONS, SENSORS, days)
    for issued in made:
        tally.add(issued)
    return tally


@pytest.mark.parametrize("span", [slice(0, 1), slice(2, 3), slice(0, 3), slice(0, 4)], ids=str)
def test_sums_give_what_all_forecasts_at_once_give(span: slice) -> None:
    """Steps and the pooled protocol."""
    made = random_issues()
    found = measures(tallied(made), span)
    point, truth, said, tolerance = (
        np.stack([(issued.truth if name == "truth" else getattr(issued.judged, name))[:, span] for issued in made])
        for name in ("point", "truth", "confidence", "tolerance")
    )
    quantiles = np.stack([issued.judged.quantiles[:, span] for issued in made]).astype(np.float64)
    hits = np.where(np.isnan(point + truth), np.nan, np.abs(point - truth) <= tolerance)
    assert found.count == (~np.isnan(point) & ~np.isnan(truth)).sum()
    assert found.mae == pytest.approx(metrics.mae(point, truth))
    assert found.rmse == pytest.approx(metrics.rmse(point, truth))
    assert found.bias == pytest.approx(metrics.bias(point, truth))
    assert found.mape == pytest.approx(metrics.mape(point, truth))
    for edge, outside, coverage, winkler in (
        (1, 0.2, found.coverage_80, found.winkler_80),
        (0, 0.1, found.coverage_90, found.winkler_90),
    ):
        low, high = quantiles[..., edge], quantiles[..., -1 - edge]
        assert coverage == pytest.approx(metrics.coverage(low, high, truth))
        assert winkler == pytest.approx(metrics.winkler(low, high, truth, outside))
    assert found.ece == pytest.approx(metrics.calibration_error(said, hits))


def test_coverage_of_forecasts_of_congestion_is_told_apart() -> None:
    made = random_issues()
    tally = Tally(HORIZONS, SENSORS, congested_under=np.full(SENSORS, 30, np.float32))
    for issued in made:
        tally.add(issued)
    found = measures(tally, slice(0, 3))
    point, truth = (
        np.stack([value[:, :3] for value in each]) for each in zip(*((i.judged.point, i.truth) for i in made))
    )
    quantiles = np.stack([issued.judged.quantiles[:, :3] for issued in made]).astype(np.float64)
    jam = np.where(point < 30, truth, np.nan)
    for edge, coverage in ((1, found.coverage_80_congested), (0, found.coverage_90_congested)):
        assert coverage == pytest.approx(metrics.coverage(quantiles[..., edge], quantiles[..., -1 - edge], jam))
    assert 0 < np.isfinite(jam).sum() < found.count


def test_nothing_counted_is_nan() -> None:
    found = measures(Tally(HORIZONS, SENSORS), slice(0, 4))
    assert found.count == 0
    assert np.isnan([found.mae, found.rmse, found.mape, found.coverage_80, found.winkler_90, found.ece]).all()


def test_errors_are_counted_by_sensor_and_coverage_over_time() -> None:
    made = random_issues(1)
    tally = tallied(made)
    error = np.stack([np.abs(issued.judged.point - issued.truth) for issued in made]).astype(np.float64)
    np.testing.assert_array_equal(tally.by_sensor[..., 0], (~np.isnan(error)).sum(axis=0))
    np.testing.assert_allclose(tally.by_sensor[..., 1], np.nansum(error, axis=0), rtol=1e-6)
    for issued, (known, covered, count) in zip(made, tally.over_time):
        told = ~np.isnan(issued.truth + issued.judged.confidence)
        low, high = issued.judged.quantiles[..., 1], issued.judged.quantiles[..., -2]
        assert known == issued.known
        assert (covered, count) == (((low <= issued.truth) & (issued.truth <= high)).sum(), told.sum())


def test_of_forecasts_only_the_fans_of_example_days_are_kept() -> None:
    made = random_issues(2)
    days = [ExampleDay("most", 3, 110, 130), ExampleDay("least", 1, 150, 400)]
    for day, fan in zip(days, tallied(made, days).fans):
        expected = np.full((day.stop - day.first, len(PROBABILITIES)), np.nan, np.float32)
        for issued in made:
            target = issued.known + HORIZONS - 1
            if day.first <= target < day.stop:
                expected[target - day.first] = issued.judged.quantiles[day.sensor, -1]
        np.testing.assert_array_equal(fan, expected)
        assert np.isfinite(fan).any()


def task_of(values: np.ndarray, test_from: int, *, target: str = "speed", horizons: int = HORIZONS) -> Task:
    history = History(values[..., None], (target,), MIDNIGHT_MS + len(values) * 300_000, 300_000, "UTC")
    return Task(history, Graph(), target, horizons, test_from, Tolerance(5, 0.1))


def speeds(days: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    ticks = int(days * DAY)
    daily = 55 - 20 * np.exp(-((np.arange(ticks) % DAY / DAY - 0.35) ** 2) / 0.005)
    values = daily[:, None] + random.normal(0, 3, (ticks, SENSORS))
    values[random.random(values.shape) < 0.05] = np.nan
    return values.astype(np.float32)


def noise_from(values: np.ndarray, tick: int) -> np.ndarray:
    """The same until `tick`; from then on anything, and much of it missing."""
    random, changed = np.random.default_rng(99), values.copy()
    changed[tick:] = random.uniform(0, 150, changed[tick:].shape)
    changed[tick:][random.random(changed[tick:].shape) < 0.3] = np.nan
    return changed


@pytest.mark.parametrize("forecaster", [LastValue(), Profile()], ids=lambda forecaster: forecaster.name)
def test_what_was_issued_depends_on_nothing_that_came_later(forecaster: Forecaster) -> None:
    values, test_from, now = speeds(2.2), 400, 500
    issued: list[list[Issued]] = []
    for each in (values, noise_from(values, now)):
        task = task_of(each, test_from)
        fitted = forecaster.fit(task.history.until(test_from), task.graph, task.target, HORIZONS)
        judge = judge_of(forecaster, task, rehearse(forecaster, task))
        issued.append(list(issues(fitted, judge, task, range(test_from, now + 20))))
    same = [
        all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(one.judged[1:], other.judged[1:]))
        for one, other in zip(*issued)
    ]
    assert all(same[: now - test_from + 1])
    assert not any(same[now - test_from + 1 :])


def test_an_error_is_learnt_from_in_the_tick_in_which_it_becomes_known() -> None:
    task = task_of(speeds(1), 200)
    judge = Judge("last_value", "speed", task.tolerance, reference_of(task, 200), Calibration.empty(HORIZONS))
    fitted = LastValue().fit(task.history.until(200), task.graph, task.target, HORIZONS)
    learnt: list[list[float]] = []
    for known in range(200, 210):
        judge.step(fitted, task.history.until(known))
        judge.step(fitted, task.history.until(known))
        learnt.append(judge.calibration.errors[..., 0].sum(axis=(1, 2)).tolist())
    truth, state = task.history.of("speed"), [fitted.forecast(task.history.until(known)) for known in range(200, 210)]
    for i, known in enumerate(range(200, 210)):
        expected = [
            sum(
                int((~np.isnan(truth[made + ahead] - state[made - 200].median[:, ahead])).sum())
                for made in range(200, known - ahead)
            )
            for ahead in range(HORIZONS)
        ]
        assert learnt[i] == pytest.approx(expected, rel=0.01)


def test_the_rehearsal_is_on_the_last_fifth_of_what_may_be_learnt_from_with_gaps_put_in() -> None:
    """The last value of what was seen: everything, or for every third sensor all but the last two or eight ticks."""
    values, errors = speeds(2), list[np.ndarray]()
    for turn, known in enumerate(range(400, 500)):
        truth = np.full((HORIZONS, SENSORS), np.nan)
        truth[: 500 - known] = values[known : min(known + HORIZONS, 500)]
        for sensor in range(SENSORS):
            for gap in (0, (2, 8)[turn % 2]) if (sensor + turn) % 3 == 0 else (0,):
                seen = values[: known - gap, sensor]
                errors.append(np.abs(truth[:, sensor] - seen[~np.isnan(seen)][-1]))
    counted = rehearse(LastValue(), task_of(values, 500)).errors.sum(axis=(0, 1, 2))
    assert counted[1] / counted[0] == pytest.approx(np.nanmean(errors), rel=0.01)


def test_gaps_put_in_give_old_readings_errors_to_be_judged_by() -> None:
    task = task_of(speeds(4), 4 * DAY)
    counted = rehearse(LastValue(), task).errors[..., 0].sum(axis=2)
    assert (counted > 100).all()


def test_a_silence_before_the_test_leaves_something_to_choose_by() -> None:
    values = speeds(4)
    values[2 * DAY :] = np.nan
    calibration = rehearse(LastValue(), task_of(values, 4 * DAY))
    same = rehearse(LastValue(), task_of(values[: 2 * DAY], 2 * DAY))
    assert calibration.rmse() == pytest.approx(same.rmse(), rel=0.02)
    assert np.isnan(rehearse(LastValue(), task_of(np.full_like(values, np.nan), 4 * DAY)).rmse())


def test_the_least_error_before_the_test_serves_and_the_first_in_doubt() -> None:
    def outcomes(*errors: float) -> list[Outcome]:
        return [Outcome(name, error, Tally(1, 1), 0, 0) for name, error in zip("abc", errors)]

    assert served(outcomes(3, 1, 2)) == "b"
    assert served(outcomes(np.nan, 4, 5)) == "b"
    assert served(outcomes(1, 1, 1)) == "a"
    assert served(outcomes(np.nan, np.nan, np.nan)) == "a"


def test_tolerance_is_the_larger_of_both() -> None:
    np.testing.assert_allclose(Tolerance(5, 0.1).of(np.array([0, 20, 50, 70], np.float32)), [5, 5, 5, 7])


def test_a_sensor_without_history_has_no_reference() -> None:
    values = speeds(1)
    values[:, 1] = np.nan
    reference = reference_of(task_of(values, 200), 200)
    assert np.flatnonzero(np.isnan(reference)).tolist() == [1]
    assert reference[0] == pytest.approx(np.nanpercentile(values[:200, 0], 85))


def jams(*minutes: tuple[int, int]) -> np.ndarray:
    """A first day free everywhere, and one day for each (sensor, ticks of a jam there)."""
    values = np.full(((1 + len(minutes)) * DAY, SENSORS), 60, np.float32)
    for day, (sensor, ticks) in enumerate(minutes, start=1):
        values[day * DAY + 100 : day * DAY + 100 + ticks, sensor] = 10
    return values


def test_example_days_have_the_most_jam_the_median_and_the_least() -> None:
    days = example_days(task_of(jams((0, 30), (1, 80), (2, 10), (3, 50), (4, 20)), DAY), DAY)
    assert [(day.name, day.sensor, day.first // DAY, day.stop // DAY) for day in days] == [
        ("most", 1, 2, 3),
        ("median", 0, 1, 2),
        ("least", 2, 3, 4),
    ]
    assert all(day.first % DAY == 0 for day in days)


def test_a_day_is_shown_once() -> None:
    assert [day.name for day in example_days(task_of(jams((0, 30)), DAY), DAY)] == ["most"]
    assert [day.name for day in example_days(task_of(jams((0, 30), (1, 9)), DAY), DAY)] == ["most", "least"]


def test_a_day_begins_with_its_first_forecast_and_is_no_example_where_most_of_it_has_none() -> None:
    values = jams((0, 30), (1, 80), (2, 10))
    half_an_hour_in = shown_days(task_of(values, DAY - 12 - HORIZONS + 1 + 6))
    assert [(day.first, day.stop) for day in half_an_hour_in if day.sensor == 0] == [(DAY + 6, 2 * DAY)]
    hardly = shown_days(task_of(values, DAY + 10, horizons=150))
    assert [(day.name, day.first // DAY) for day in hardly] == [("most", 2), ("least", 3)]


def test_days_and_sensors_that_are_hardly_known_are_no_examples() -> None:
    values = jams((0, 30), (1, 20), (2, 10))
    values[2 * DAY : 2 * DAY + 200, :] = np.nan
    values[3 * DAY : 3 * DAY + 200, 2] = np.nan
    values[3 * DAY + 150, 4] = 50
    days = example_days(task_of(values, DAY), DAY)
    assert [(day.name, day.first // DAY, day.sensor) for day in days] == [("most", 1, 0), ("least", 3, 4)]
    values[DAY:] = np.nan
    assert example_days(task_of(values, DAY), DAY) == []


def test_of_volume_days_have_more_or_less_traffic() -> None:
    values = jams((0, 0), (1, 0), (2, 0))
    values[2 * DAY :, 3] = 90
    values[3 * DAY :, :] *= 0.5
    [most, median, least] = example_days(task_of(values, DAY, target="volume"), DAY)
    assert [day.first // DAY for day in (most, median, least)] == [2, 1, 3]
    assert (most.sensor, least.sensor) == (3, 3)
