"""Calibration against scipy, against distributions that are known, and through a change of them."""

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import norm

from roadcast.forecasting.calibration import (
    FADING,
    Calibration,
    in_order,
    isotonic,
    probability_below,
    probability_within,
)
from roadcast.forecasting.error_history import Strata, stratify
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES
from roadcast.forecasting.metrics import calibration_error

SENSORS, TICKS_TO_ADAPT = 200, 864
"""Three days of five minutes."""
REFERENCE = np.full(SENSORS, 60, np.float32)
SPREADS = norm.ppf(PROBABILITIES)
EIGHTY, NINETY = (1, -2), (0, -1)


def normal_quantiles(median: float, spread: float, sensors: int = SENSORS) -> np.ndarray:
    """What a forecaster says [S, 1, Q] that believes in normal errors."""
    return np.tile(median + spread * SPREADS, (sensors, 1, 1)).astype(np.float32)


def strata_of(median: float, age: int = 0) -> Strata:
    return stratify(np.full((SENSORS, 1), median, np.float32), REFERENCE, np.full(SENSORS, age))


def limits(quantiles: np.ndarray, tolerance: float = 5.0) -> np.ndarray:
    return np.full(quantiles.shape[:-1], tolerance, np.float32)


def follow(
    calibration: Calibration, errors: np.random.Generator, *, said: float, true: float, ticks: int
) -> np.ndarray:
    """Issue and learn for so many ticks; the coverage [2] of the 80 % and 90 % interval in the last 100."""
    raw, strata, inside = normal_quantiles(60, said), strata_of(60), []
    for _ in range(ticks):
        issued = calibration.quantiles(raw, strata)[:, 0]
        truth = errors.normal(60, true, SENSORS).astype(np.float32)
        within = [((issued[:, low] <= truth) & (truth <= issued[:, high])).mean() for low, high in (EIGHTY, NINETY)]
        inside.append(within)
        calibration.learn(issued, issued[:, MEDIAN], limits(issued), strata.at_horizon(0), truth)
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
    calibration, raw = Calibration.empty(1), normal_quantiles(60, 4)
    np.testing.assert_array_equal(calibration.quantiles(raw, strata_of(60)), raw)
    said = probability_within(raw, raw[..., MEDIAN], limits(raw))
    np.testing.assert_allclose(calibration.confidence(raw, raw[..., MEDIAN], limits(raw)), said, atol=0.002)


def test_intervals_keep_their_word_again_when_errors_have_doubled() -> None:
    errors, calibration = np.random.default_rng(5), Calibration.empty(1)
    np.testing.assert_allclose(follow(calibration, errors, said=4, true=4, ticks=150), [0.8, 0.9], atol=0.01)
    at_once = follow(calibration, errors, said=4, true=8, ticks=1)
    assert at_once[0] < 0.65
    follow(calibration, errors, said=4, true=8, ticks=TICKS_TO_ADAPT - 101)
    np.testing.assert_allclose(follow(calibration, errors, said=4, true=8, ticks=100), [0.8, 0.9], atol=0.01)


def test_a_bias_is_taken_out() -> None:
    calibration, strata, random = Calibration.empty(1), strata_of(60), np.random.default_rng(6)
    for _ in range(TICKS_TO_ADAPT):
        issued = calibration.quantiles(normal_quantiles(60, 4), strata)[:, 0]
        truth = random.normal(63, 4, SENSORS).astype(np.float32)
        calibration.learn(issued, issued[:, MEDIAN], limits(issued), strata.at_horizon(0), truth)
    corrected = calibration.quantiles(normal_quantiles(60, 4), strata)[0, 0]
    np.testing.assert_allclose(corrected, 63 + 4 * SPREADS, atol=0.6)


def test_each_stratum_and_horizon_has_its_own_correction() -> None:
    calibration = Calibration.empty(2)
    jam = stratify(np.full((SENSORS, 2), 20, np.float32), REFERENCE, np.full(SENSORS, 9)).at_horizon(1)
    issued = normal_quantiles(20, 4)[:, 0]
    calibration.learn(issued, issued[:, MEDIAN], limits(issued), jam, np.full(SENSORS, 90, np.float32))
    moved = np.argwhere(calibration.offsets.any(axis=-1))
    assert moved.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(calibration.offsets[1, 2, 0], 0.03 * np.array(PROBABILITIES))


def test_a_single_target_moves_little() -> None:
    calibration = Calibration.empty(1)
    one, issued = Strata(*(part[:1] for part in strata_of(60).at_horizon(0))), normal_quantiles(60, 4, 1)[:, 0]
    calibration.learn(issued, issued[:, MEDIAN], limits(issued), one, np.array([90], np.float32))
    assert calibration.offsets.max() == pytest.approx(0.03 / 50 * PROBABILITIES[-1])


def test_confidence_is_honest_after_learning_where_quantiles_are_not() -> None:
    """One sensor in three errs three times as far as is said of all, which no offset can mend."""
    random, calibration = np.random.default_rng(7), Calibration.empty(1)
    spread = np.where(np.arange(SENSORS) % 3 == 0, 9, 3)
    said_spread = np.linspace(1, 6, SENSORS)
    raw = (60 + said_spread[:, None, None] * SPREADS).astype(np.float32)
    point, tolerance, strata = raw[..., MEDIAN], limits(raw), strata_of(60)

    def gap(ticks: int, *, learn: bool) -> float:
        said, hits = [], []
        for _ in range(ticks):
            truth = random.normal(60, spread).astype(np.float32)
            quantiles = calibration.quantiles(raw, strata)
            said.append(calibration.confidence(quantiles, point, tolerance)[:, 0])
            hits.append(np.abs(truth - point[:, 0]) <= 5)
            if learn:
                calibration.learn(quantiles[:, 0], point[:, 0], tolerance[:, 0], strata.at_horizon(0), truth)
        return calibration_error(np.array(said), np.array(hits, np.float64))

    assert gap(50, learn=False) > 0.05
    gap(TICKS_TO_ADAPT, learn=True)
    assert gap(200, learn=True) < 0.01


def test_confidence_never_falls_where_more_was_said() -> None:
    random = np.random.default_rng(8)
    calibration = Calibration.empty(1)
    calibration.kept[:] = [random.integers(1, 2000, 20), np.zeros(20), np.zeros(20)]
    calibration.kept[1] = calibration.kept[0] * (np.arange(20) + random.random(20)) / 20
    calibration.kept[2] = calibration.kept[0] * random.random(20)
    raw = normal_quantiles(60, 4)
    tolerance = np.linspace(0, 15, SENSORS, dtype=np.float32)[:, None]
    confidence = calibration.confidence(raw, raw[..., MEDIAN], tolerance)[:, 0]
    assert (np.diff(confidence) >= 0).all()
    assert confidence[0] >= 0
    assert confidence[-1] <= 1
    assert confidence[-1] - confidence[0] > 0.1


def test_what_is_missing_teaches_nothing_and_is_told_as_missing() -> None:
    calibration, strata = Calibration.empty(1), strata_of(60)
    raw = normal_quantiles(60, 4)
    raw[1] = np.nan
    truth = np.full(SENSORS, 70, np.float32)
    truth[2:] = np.nan
    calibration.learn(raw[:, 0], raw[:, 0, MEDIAN], limits(raw)[:, 0], strata.at_horizon(0), truth)
    assert calibration.kept[0].sum() == 1
    calibration.learn(raw[1:, 0], raw[1:, 0, MEDIAN], limits(raw)[1:, 0], strata.at_horizon(0), truth[1:])
    assert calibration.kept[0].sum() == 1
    assert np.isfinite(calibration.offsets).all()
    quantiles = calibration.quantiles(raw, strata)
    confidence = calibration.confidence(quantiles, raw[..., MEDIAN], limits(raw))[:, 0]
    assert np.flatnonzero(np.isnan(confidence)).tolist() == [1]
    assert np.flatnonzero(np.isnan(quantiles).any(axis=(1, 2))).tolist() == [1]


def test_quantiles_stay_in_order_and_above_nothing_whatever_was_learnt() -> None:
    random, calibration = np.random.default_rng(9), Calibration.empty(1)
    calibration.offsets[:] = random.normal(0, 3, calibration.offsets.shape)
    for median in (0, 3, 20, 60):
        raw = np.maximum(normal_quantiles(median, 5), 0)
        quantiles = calibration.quantiles(raw, strata_of(median))
        assert quantiles.dtype == np.float32
        assert (np.diff(quantiles, axis=-1) >= 0).all()
        assert (quantiles >= 0).all()


def test_a_hit_counts_half_after_about_five_days() -> None:
    five_days = FADING ** (5 * 288)
    assert five_days == pytest.approx(0.5, abs=0.02)
    calibration, strata = Calibration.empty(1), strata_of(60).at_horizon(0)
    issued = normal_quantiles(60, 4)[:, 0]
    calibration.learn(issued, issued[:, MEDIAN], limits(issued), strata, issued[:, MEDIAN])
    calibration.fade()
    assert calibration.kept[0].sum() == pytest.approx(FADING * SENSORS)
    assert calibration.kept[2].sum() == pytest.approx(FADING * SENSORS)


def test_its_arrays_are_all_its_state() -> None:
    calibration = Calibration.empty(1)
    follow(calibration, np.random.default_rng(10), said=4, true=7, ticks=50)
    again, raw = Calibration(calibration.offsets.copy(), calibration.kept.copy()), normal_quantiles(60, 4)
    one, other = (each.quantiles(raw, strata_of(60)) for each in (calibration, again))
    assert one.tobytes() == other.tobytes()
    said = [each.confidence(one, one[..., MEDIAN], limits(one)).tobytes() for each in (calibration, again)]
    assert said[0] == said[1]
