"""What past errors say, against distributions that are known."""

from math import erf, sqrt

import numpy as np
import pytest

from roadcast.forecasting.error_history import BINS, ErrorHistory, stratify
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES

SENSORS, HORIZONS = 2_000, 2
REFERENCE = np.full(SENSORS, 60, np.float32)
FREE = np.full((1, SENSORS, HORIZONS), 58, np.float32)
JAM = np.full((1, SENSORS, HORIZONS), 15, np.float32)
FRESH = np.zeros(SENSORS, np.int64)
NORMAL_QUANTILES = np.array([-1.6449, -1.2816, -0.6745, 0, 0.6745, 1.2816, 1.6449])


def normal_within(limit: float, spread: float) -> float:
    return erf(limit / spread / sqrt(2))


def learnt(*, rounds: int = 10, forecasters: int = 1) -> ErrorHistory:
    """Normal errors: spread 2 in free flow, 8 in a jam, twice that at the second horizon."""
    random = np.random.default_rng(7)
    errors = ErrorHistory.empty(forecasters, HORIZONS)
    for _ in range(rounds):
        for median, spread in ((FREE, 2), (JAM, 8)):
            error = random.normal(0, spread, median.shape) * np.array([1, 2])
            errors.observe(np.zeros((1, 1, 1), np.int64), error.astype(np.float32), stratify(median, REFERENCE, FRESH))
    return errors


@pytest.mark.parametrize(("median", "spread"), [(FREE, 2), (JAM, 8)])
def test_quantiles_are_those_of_the_stratum_and_horizon(median: np.ndarray, spread: float) -> None:
    strata = stratify(median, REFERENCE, FRESH).of_forecaster(0)
    quantiles = learnt().distribution(0).quantiles(strata)
    assert quantiles.shape == (SENSORS, HORIZONS, len(PROBABILITIES))
    np.testing.assert_allclose(quantiles[0, 0], NORMAL_QUANTILES * spread, atol=0.05 * spread)
    np.testing.assert_allclose(quantiles[0, 1], NORMAL_QUANTILES * spread * 2, atol=0.1 * spread)


@pytest.mark.parametrize(("median", "spread"), [(FREE, 2), (JAM, 8)])
@pytest.mark.parametrize("limit", [1.0, 5.0, 5.8])
def test_probability_is_counted_in_the_stratum_and_horizon(median: np.ndarray, spread: float, limit: float) -> None:
    strata = stratify(median, REFERENCE, FRESH).of_forecaster(0)
    limits = np.full((SENSORS, HORIZONS), limit, np.float32)
    counted = learnt().distribution(0).probability(strata, -limits, limits)[0]
    assert counted[0] == pytest.approx(normal_within(limit, spread), abs=0.01)
    assert counted[1] == pytest.approx(normal_within(limit, 2 * spread), abs=0.01)


def test_errors_of_a_known_size_are_placed_exactly() -> None:
    """All errors zero: the middle is zero, and all lies within half a bin."""
    errors = ErrorHistory.empty(1, HORIZONS)
    strata = stratify(FREE, REFERENCE, FRESH)
    errors.observe(np.zeros((1, 1, 1), np.int64), np.zeros(FREE.shape, np.float32), strata)
    distribution = errors.distribution(0)
    quantiles = distribution.quantiles(strata.of_forecaster(0))[0, 0]
    assert quantiles[MEDIAN] == pytest.approx(0, abs=1e-6)
    assert np.abs(quantiles).max() <= 0.25
    assert errors.mae().tolist() == [[0, 0]]


@pytest.mark.parametrize(("count", "most"), [(30, 30.5 / 31), (200, 200.5 / 201)])
def test_a_finite_count_makes_nothing_certain(count: int, most: float) -> None:
    """All errors zero: what lies well around them is as good as certain, what lies far from them nearly impossible."""
    errors = ErrorHistory.empty(1, HORIZONS)
    strata = stratify(FREE[:, :count], REFERENCE[:count], FRESH[:count])
    errors.observe(np.zeros((1, 1, 1), np.int64), np.zeros((1, count, HORIZONS), np.float32), strata)
    low, high = np.full((2, count, HORIZONS), [[[-5]], [[5]]], np.float32)
    counted = errors.distribution(0)
    own = strata.of_forecaster(0)
    # the stratum's own errors are joined by those of the strata around it, twice 30 at most
    joined = count + min(count + min(count, 30), 30)
    assert counted.probability(own, low, high)[0, 0] == pytest.approx((joined + 0.5) / (joined + 1), abs=1e-6)
    assert counted.probability(own, low + 20, high + 20)[0, 0] == pytest.approx(0.5 / (joined + 1), abs=1e-6)
    assert counted.probability(own, low, high)[0, 0] >= most


def test_old_readings_are_judged_by_their_own_errors() -> None:
    errors = learnt()
    random = np.random.default_rng(8)
    old = np.full(SENSORS, 9, np.int64)
    old_strata = stratify(FREE, REFERENCE, old)
    errors.observe(np.zeros((1, 1, 1), np.int64), random.normal(0, 6, FREE.shape).astype(np.float32), old_strata)
    limits = np.full((SENSORS, HORIZONS), 5, np.float32)
    distribution = errors.distribution(0)
    fresh = distribution.probability(stratify(FREE, REFERENCE, FRESH).of_forecaster(0), -limits, limits)[0, 0]
    aged = distribution.probability(old_strata.of_forecaster(0), -limits, limits)[0, 0]
    assert fresh == pytest.approx(normal_within(5, 2), abs=0.01)
    assert aged == pytest.approx(normal_within(5, 6), abs=0.03)


def test_a_stratum_without_errors_borrows_from_all_ages() -> None:
    limits = np.full((SENSORS, HORIZONS), 5, np.float32)
    somewhat_old = stratify(JAM, REFERENCE, np.full(SENSORS, 2)).of_forecaster(0)
    borrowed = learnt().distribution(0).probability(somewhat_old, -limits, limits)[0, 0]
    assert borrowed == pytest.approx(normal_within(5, 8), abs=0.01)


def test_promises_nothing_from_few_errors() -> None:
    errors = ErrorHistory.empty(1, HORIZONS)
    strata = stratify(FREE, REFERENCE, FRESH)
    few = np.full(FREE.shape, np.nan, np.float32)
    few[:, :29, 0] = 1
    few[:, :30, 1] = 1
    errors.observe(np.zeros((1, 1, 1), np.int64), few, strata)
    quantiles = errors.distribution(0).quantiles(strata.of_forecaster(0))[0]
    assert np.isnan(quantiles[0]).all()
    assert np.isfinite(quantiles[1]).all()
    np.testing.assert_array_equal(errors.mae(), [[np.nan, 1]])


def test_mean_absolute_error() -> None:
    expected = [sqrt(2 / np.pi) * (2 + 8) / 2, sqrt(2 / np.pi) * (4 + 16) / 2]
    np.testing.assert_allclose(learnt().mae()[0], expected, rtol=0.02)


def test_old_errors_fade_before_new_ones() -> None:
    errors = ErrorHistory.empty(1, 1)
    strata = stratify(FREE[..., :1], REFERENCE, FRESH)
    errors.observe(np.zeros((1, 1, 1), np.int64), np.full((1, SENSORS, 1), 2, np.float32), strata)
    errors.fade(0.25)
    errors.observe(np.zeros((1, 1, 1), np.int64), np.full((1, SENSORS, 1), 7, np.float32), strata)
    assert errors.mae()[0, 0] == pytest.approx((0.25 * 2 + 7) / 1.25)
    assert errors.rmse()[0, 0] == pytest.approx(((0.25 * 2**2 + 7**2) / 1.25) ** 0.5)


def test_errors_beyond_the_range_count_at_its_end() -> None:
    errors = ErrorHistory.empty(1, 1)
    strata = stratify(FREE[..., :1], REFERENCE, FRESH)
    errors.observe(np.zeros((1, 1, 1), np.int64), np.full((1, SENSORS, 1), -500, np.float32), strata)
    assert errors.mae()[0, 0] == pytest.approx(80)


def test_levels_of_congestion() -> None:
    """A sensor without a reference speed, or with 0, counts as the most congested."""
    median = np.array([[[61.0, 59, 55, 50, 40, 31, 25, 10]]] * 3, np.float32).reshape(3, 8)
    level = stratify(median, np.array([60, np.nan, 0], np.float32), np.zeros(3, np.int64)).level
    assert level.tolist() == [[7, 6, 5, 4, 3, 2, 1, 0], [0] * 8, [0] * 8]


def test_levels_of_age() -> None:
    age = stratify(np.full((5, 1), 60, np.float32), np.full(5, 60, np.float32), np.array([0, 1, 3, 4, 24])).age
    assert age.ravel().tolist() == [0, 1, 1, 2, 2]


def test_its_counts_are_all_its_state() -> None:
    errors = learnt()
    again = ErrorHistory(errors.counts.copy())
    strata = stratify(FREE, REFERENCE, FRESH).of_forecaster(0)
    assert again.counts.shape[-1] == BINS
    np.testing.assert_array_equal(again.distribution(0).quantiles(strata), errors.distribution(0).quantiles(strata))
