"""Calibration against scipy, against distributions that are known, and through a change of them."""

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import norm

from roadcast.domain.times import DAY_MS
from roadcast.forecasting.calibration import (
    BINS,
    CONFIDENCE_CUTS,
    LEAST_ERRORS,
    STEP,
    Calibration,
    Judged,
    Strata,
    Tolerance,
    in_order,
    isotonic,
    probability_below,
    probability_within,
    stratify,
)
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES, Forecast
from roadcast.forecasting.metrics import calibration_error
from roadcast.forecasting.parts import from_parts, to_parts

SENSORS, TICKS_TO_ADAPT = 200, 864
"""Three days of five minutes."""
REFERENCE = np.full(SENSORS, 60, np.float32)
SPREADS = norm.ppf(PROBABILITIES)
EIGHTY, NINETY = (1, -2), (0, -1)
FIVE = Tolerance(5, 0)


def normal(median: float, spread: float, sensors: int = SENSORS) -> Forecast:
    """Of a forecaster that believes in normal errors: quantiles [S, 1, Q]."""
    quantiles = np.tile(median + spread * SPREADS, (sensors, 1, 1)).astype(np.float32)
    return Forecast(quantiles[..., MEDIAN], quantiles)


def strata_of(median: float, age: int = 0, sensors: int = SENSORS) -> Strata:
    return stratify(np.full((sensors, 1), median, np.float32), REFERENCE[:sensors], np.full(sensors, age))


def judged_by(calibration: Calibration, forecast: Forecast, age: int = 0) -> Judged:
    strata = stratify(forecast.median, REFERENCE[: len(forecast.median)], np.full(len(forecast.median), age))
    return calibration.judge(forecast, strata, FIVE)


def truths(random: np.random.Generator, mean: float, spread: float | np.ndarray) -> np.ndarray:
    return random.normal(mean, spread, SENSORS).astype(np.float32)[:, None]


def follow(
    calibration: Calibration, errors: np.random.Generator, *, said: float | None, true: float, ticks: int
) -> np.ndarray:
    """Issue and learn for so many ticks; the coverage [2] of the 80 % and 90 % interval in the last 100."""
    forecast, inside = Forecast(np.full((SENSORS, 1), 60, np.float32)) if said is None else normal(60, said), []
    for _ in range(ticks):
        judged = judged_by(calibration, forecast)
        truth = truths(errors, 60, true)
        ends = [(judged.quantiles[..., low], judged.quantiles[..., high]) for low, high in (EIGHTY, NINETY)]
        inside.append([((low <= truth) & (truth <= high)).mean() for low, high in ends])
        calibration.learn(judged, truth)
    return np.mean(inside[-100:], axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_regression_is_that_of_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.normal(0, 1, 40) + np.arange(40) * random.normal(0, 0.1), 1)
    weights = random.integers(1, 50, 40).astype(np.float64)
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_allclose(isotonic(values, weights), expected, atol=1e-12)


def test_probabilities_between_quantiles_are_those_of_a_line() -> None:
    random = np.random.default_rng(3)
    quantiles = np.sort(random.normal(50, 10, (500, len(PROBABILITIES))), axis=-1).astype(np.float32)
    values = random.uniform(quantiles[:, 0], quantiles[:, -1]).astype(np.float32)
    expected = [np.interp(value, of, PROBABILITIES) for value, of in zip(values, quantiles)]
    np.testing.assert_allclose(probability_below(quantiles, values), expected, atol=1e-4)


def test_tails_halve_with_every_outermost_gap() -> None:
    quantiles = np.array([10, 14, 20, 25, 30, 36, 39], np.float32)
    steps = {10 - 4: 0.025, 10 - 8: 0.0125, 39 + 3: 1 - 0.025, 39 + 9: 1 - 0.00625, -1e6: 0, 1e6: 1}
    said = probability_below(np.tile(quantiles, (len(steps), 1)), np.array(list(steps), np.float32))
    np.testing.assert_allclose(said, list(steps.values()), atol=1e-6)


def test_the_probability_within_a_tolerance_is_around_the_point_and_not_the_median() -> None:
    quantiles = np.array([[10, 14, 20, 25, 30, 36, 39]], np.float32)
    within = probability_within(quantiles, np.array([33], np.float32), np.array([3], np.float32))
    assert within[0] == pytest.approx(0.90 - 0.75, abs=1e-6)


def test_quantiles_that_agree_make_certain() -> None:
    """A sensor that never changes."""
    quantiles = np.full((1, len(PROBABILITIES)), 60, np.float32)
    assert probability_within(quantiles, quantiles[:, MEDIAN], np.array([5], np.float32))[0] == pytest.approx(1)


def test_order_is_made_outward_from_the_median() -> None:
    random = np.random.default_rng(4)
    for row in random.normal(0, 1, (50, len(PROBABILITIES))):
        expected = [min(row[i : MEDIAN + 1]) for i in range(MEDIAN)] + [
            max(row[MEDIAN : i + 1]) for i in range(MEDIAN, len(row))
        ]
        np.testing.assert_array_equal(in_order(row), expected)


def test_nothing_learnt_believes_what_is_said() -> None:
    calibration, forecast = Calibration.empty(1), normal(60, 4)
    judged = judged_by(calibration, forecast)
    np.testing.assert_array_equal(judged.quantiles, forecast.quantiles)
    np.testing.assert_allclose(judged.confidence, judged.said, atol=0.002)


def test_what_has_no_quantiles_promises_nothing_until_there_are_errors() -> None:
    calibration, forecast = Calibration.empty(2), Forecast(np.full((SENSORS, 2), 60, np.float32))
    judged = judged_by(calibration, forecast)
    assert np.isnan(judged.quantiles).all()
    assert np.isnan(judged.confidence).all()
    np.testing.assert_array_equal(judged.point, forecast.median)
    truth = np.full((SENSORS, 2), np.nan, np.float32)
    truth[: int(LEAST_ERRORS), 0] = 62
    calibration.learn(judged, truth)
    judged = judged_by(calibration, forecast)
    assert np.isfinite(judged.confidence[:, 0]).all()
    assert np.isnan(judged.quantiles[:, 1]).all()


@pytest.mark.parametrize("spread", [2, 8])
def test_what_has_no_quantiles_is_given_those_of_its_errors(spread: float) -> None:
    """Errors are normal, and so not those of the Laplace distribution that it begins with."""
    calibration = Calibration.empty(1)
    coverage = follow(calibration, np.random.default_rng(11), said=None, true=spread, ticks=400)
    np.testing.assert_allclose(coverage, [0.8, 0.9], atol=0.01)
    judged = judged_by(calibration, Forecast(np.full((SENSORS, 1), 60, np.float32)))
    np.testing.assert_allclose(judged.quantiles[0, 0], 60 + spread * SPREADS, atol=0.15 * spread)


def test_the_first_errors_already_tell_how_wide_intervals_are() -> None:
    calibration, random = Calibration.empty(1), np.random.default_rng(12)
    follow(calibration, random, said=None, true=6, ticks=3)
    assert follow(calibration, random, said=None, true=6, ticks=1)[0] == pytest.approx(0.8, abs=0.1)


def test_a_stratum_of_few_errors_is_filled_up_from_those_around_it() -> None:
    calibration = Calibration.empty(1)
    free = judged_by(calibration, Forecast(np.full((SENSORS, 1), 60, np.float32)))
    calibration.learn(free, np.full((SENSORS, 1), 64, np.float32))
    means = calibration.mean_errors()
    assert means[0, 0, 0] == pytest.approx(4)
    jam = Judged(strata_of(10, sensors=15), *(part[:15] for part in free[1:]))
    calibration.learn(jam, np.full((15, 1), 80, np.float32))
    everywhere = (200 * 4 + 15 * 20) / 215
    of_level = (15 * 20 + 30 * everywhere) / 45
    assert calibration.mean_errors()[0, 0, 0] == pytest.approx((15 * 20 + 30 * of_level) / 45)
    assert calibration.mean_errors()[0, 2, 0] == pytest.approx(of_level)


def test_a_naive_forecaster_is_taken_at_its_word_and_others_are_corrected() -> None:
    calibration, forecast, random = Calibration.empty(1), Forecast(np.full((SENSORS, 1), 60, np.float32)), 13
    errors = np.random.default_rng(random)
    for _ in range(300):
        calibration.learn(judged_by(calibration, forecast), truths(errors, 57, 2))
    assert judged_by(calibration, forecast).point[0, 0] == pytest.approx(57, abs=0.4)
    literal = calibration.judge(forecast, strata_of(60), FIVE, literal=True)
    np.testing.assert_array_equal(literal.point, forecast.median)
    np.testing.assert_array_equal(literal.quantiles, judged_by(calibration, forecast).quantiles)


def test_the_point_of_own_quantiles_stays_within_the_middle_half_of_the_corrected_ones() -> None:
    calibration = Calibration.empty(1)
    assert judged_by(calibration, normal(60, 4)).point[0, 0] == pytest.approx(60, abs=1e-4)
    calibration.offsets[:] = 1
    judged = judged_by(calibration, normal(60, 4))
    assert judged.point[0, 0] == judged.quantiles[0, 0, MEDIAN - 1] > 60


def test_intervals_keep_their_word_again_when_errors_have_doubled() -> None:
    errors, calibration = np.random.default_rng(5), Calibration.empty(1)
    np.testing.assert_allclose(follow(calibration, errors, said=4, true=4, ticks=150), [0.8, 0.9], atol=0.01)
    at_once = follow(calibration, errors, said=4, true=8, ticks=1)
    assert at_once[0] < 0.65
    follow(calibration, errors, said=4, true=8, ticks=TICKS_TO_ADAPT - 101)
    np.testing.assert_allclose(follow(calibration, errors, said=4, true=8, ticks=100), [0.8, 0.9], atol=0.01)


def test_a_bias_is_taken_out_of_the_quantiles() -> None:
    calibration, random = Calibration.empty(1), np.random.default_rng(6)
    for _ in range(TICKS_TO_ADAPT):
        calibration.learn(judged_by(calibration, normal(60, 4)), truths(random, 63, 4))
    corrected = judged_by(calibration, normal(60, 4)).quantiles[0, 0]
    np.testing.assert_allclose(corrected, 63 + 4 * SPREADS, atol=0.6)


def test_each_stratum_and_horizon_has_its_own_correction() -> None:
    calibration = Calibration.empty(2)
    quantiles = np.tile(20 + 4 * SPREADS, (SENSORS, 2, 1)).astype(np.float32)
    judged = judged_by(calibration, Forecast(quantiles[..., MEDIAN], quantiles), age=9)
    truth = np.full((SENSORS, 2), np.nan, np.float32)
    truth[:, 1] = 90
    calibration.learn(judged, truth)
    assert np.argwhere(calibration.offsets.any(axis=-1)).tolist() == [[1, 2, 0]]
    expected = 200 / 500 / (2 * np.log(5) * np.minimum(PROBABILITIES, 1 - np.array(PROBABILITIES))) * PROBABILITIES
    np.testing.assert_allclose(calibration.offsets[1, 2, 0], np.minimum(expected, 1))


def test_steps_are_large_at_first_and_small_later() -> None:
    calibration, forecast, moved = Calibration.empty(1), normal(60, 4), []
    cell = tuple(part[0, 0] for part in strata_of(60))
    for _ in range(100):
        before = calibration.offsets[cell][-1]
        calibration.learn(judged_by(calibration, forecast), np.full((SENSORS, 1), 1000, np.float32))
        moved.append(calibration.offsets[cell][-1] - before)
    assert moved[0] == 1
    assert moved[30] == pytest.approx(200 / (300 + 31 * 200) / (2 * np.log(5) * 0.05) * 0.95)
    calibration.errors *= 10
    before = calibration.offsets[cell][-1]
    calibration.learn(judged_by(calibration, forecast), np.full((SENSORS, 1), 1000, np.float32))
    assert calibration.offsets[cell][-1] - before == pytest.approx(STEP * 0.95)
    assert (np.diff(moved) <= 1e-12).all()


def test_a_single_target_moves_little() -> None:
    calibration = Calibration.empty(1)
    calibration.learn(judged_by(calibration, normal(60, 4, 1)), np.full((1, 1), 90, np.float32))
    assert 0 < calibration.offsets.max() < 0.25


def test_the_square_error_is_the_point_s_and_leaves_out_the_oldest_readings() -> None:
    calibration = Calibration.empty(1)
    for age, error in ((0, 3), (2, 4), (9, 40)):
        calibration.learn(judged_by(calibration, normal(60, 4), age), np.full((SENSORS, 1), 60 + error, np.float32))
    assert calibration.rmse() == pytest.approx(np.sqrt((9 + 16) / 2), rel=1e-5)
    assert np.isnan(Calibration.empty(3).rmse())


def test_confidence_is_honest_after_learning_where_quantiles_are_not() -> None:
    """One sensor in three errs three times as far as is said of all, which no offset can mend."""
    random, calibration = np.random.default_rng(7), Calibration.empty(1)
    spread = np.where(np.arange(SENSORS) % 3 == 0, 9, 3)
    quantiles = (60 + np.linspace(1, 6, SENSORS)[:, None, None] * SPREADS).astype(np.float32)
    forecast = Forecast(quantiles[..., MEDIAN], quantiles)

    def gap(ticks: int, *, learn: bool) -> float:
        said, hits = [], []
        for _ in range(ticks):
            truth, judged = truths(random, 60, spread), judged_by(calibration, forecast)
            said.append(judged.confidence)
            hits.append(np.abs(truth - judged.point) <= 5)
            if learn:
                calibration.learn(judged, truth)
        return calibration_error(np.array(said), np.array(hits, np.float64))

    assert gap(50, learn=False) > 0.05
    gap(TICKS_TO_ADAPT, learn=True)
    assert gap(200, learn=True) < 0.01


def test_one_error_in_eighty_is_told_from_one_in_three_thousand() -> None:
    """On a quiet road nearly all forecasts come true, and still not all of them equally."""
    random, calibration = np.random.default_rng(11), Calibration.empty(1)
    spread = np.where(np.arange(SENSORS) % 2 == 0, 2.0, 1.4)
    quantiles = (60 + 1.2 * spread[:, None, None] * SPREADS).astype(np.float32)
    forecast = Forecast(quantiles[..., MEDIAN], quantiles)
    for _ in range(TICKS_TO_ADAPT):
        truth = truths(random, 60, spread)
        calibration.learn(judged_by(calibration, forecast), truth)
    confidence = judged_by(calibration, forecast).confidence[:, 0]
    assert confidence[::2] == pytest.approx(0.9876, abs=0.003)
    assert confidence[1::2] == pytest.approx(0.9996, abs=0.0005)


def test_confidence_never_falls_where_more_was_said() -> None:
    random = np.random.default_rng(8)
    calibration = Calibration.empty(1)
    edges = np.array((0, *CONFIDENCE_CUTS, 1))
    calibration.kept[0] = random.integers(1, 2000, BINS)
    calibration.kept[1] = calibration.kept[0] * (edges[:-1] + random.random(BINS) * np.diff(edges))
    calibration.kept[2] = calibration.kept[0] * random.random(BINS)
    quantiles = (60 + np.linspace(20, 0.1, SENSORS)[:, None, None] * SPREADS).astype(np.float32)
    confidence = judged_by(calibration, Forecast(quantiles[..., MEDIAN], quantiles)).confidence[:, 0]
    assert (np.diff(confidence) >= 0).all()
    assert confidence[0] >= 0
    assert confidence[-1] <= 1
    assert confidence[-1] - confidence[0] > 0.1


def test_what_is_missing_teaches_nothing_and_is_told_as_missing() -> None:
    calibration, forecast = Calibration.empty(1), normal(60, 4)
    assert forecast.quantiles is not None
    forecast.quantiles[1] = np.nan
    forecast.median[1] = np.nan
    truth = np.full((SENSORS, 1), 70, np.float32)
    truth[2:] = np.nan
    judged = judged_by(calibration, forecast)
    calibration.learn(judged, truth)
    assert calibration.kept[0].sum() == calibration.squares[0, 0] == calibration.errors[..., 0].sum() == 1
    truth[0] = np.nan
    calibration.learn(judged, truth)
    assert calibration.kept[0].sum() == 1
    assert np.isfinite(calibration.offsets).all()
    judged = judged_by(calibration, forecast)
    assert np.flatnonzero(np.isnan(judged.confidence[:, 0])).tolist() == [1]
    assert np.flatnonzero(np.isnan(judged.quantiles).any(axis=(1, 2))).tolist() == [1]


def test_quantiles_stay_in_order_and_above_nothing_whatever_was_learnt() -> None:
    random, calibration = np.random.default_rng(9), Calibration.empty(1)
    calibration.offsets[:] = random.normal(0, 3, calibration.offsets.shape)
    for median in (0, 3, 20, 60):
        quantiles = np.maximum(median + 5 * SPREADS, 0).astype(np.float32)[None, None]
        judged = judged_by(calibration, Forecast(quantiles[..., MEDIAN], quantiles))
        assert judged.quantiles.dtype == np.float32
        assert (np.diff(judged.quantiles, axis=-1) >= 0).all()
        assert (judged.quantiles >= 0).all()


def test_what_was_learnt_counts_half_after_five_days() -> None:
    calibration = Calibration.empty(1)
    judged = judged_by(calibration, normal(60, 4))
    calibration.learn(judged, judged.point)
    calibration.fade(5 * DAY_MS)
    assert calibration.kept[0].sum() == pytest.approx(SENSORS / 2)
    assert calibration.errors[..., 0].sum() == pytest.approx(SENSORS / 2)
    assert calibration.squares[0, 0] == pytest.approx(SENSORS / 2)


def test_its_arrays_are_all_its_state() -> None:
    calibration = Calibration.empty(1)
    follow(calibration, np.random.default_rng(10), said=None, true=7, ticks=50)
    again = from_parts(Calibration, to_parts(calibration))
    forecast = Forecast(np.full((SENSORS, 1), 60, np.float32))
    one, other = (judged_by(each, forecast) for each in (calibration, again))
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        assert mine.tobytes() == theirs.tobytes()
