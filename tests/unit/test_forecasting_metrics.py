"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from roadcast.forecasting import metrics

NAN = np.nan
TARGET = np.array([10.0, 20.0, 40.0, NAN, 0.5])
FORECAST = np.array([12.0, 19.0, 44.0, 7.0, NAN])
"""Errors −2, 1, −4; the fourth target and the fifth forecast are missing."""
LOW = np.array([8.0, 21.0, 30.0, 0.0, NAN])
HIGH = np.array([12.0, 25.0, 38.0, 9.0, 1.0])


def test_point_errors() -> None:
    assert metrics.mae(FORECAST, TARGET) == pytest.approx(7 / 3)
    assert metrics.rmse(FORECAST, TARGET) == pytest.approx(math.sqrt(7))
    assert metrics.bias(FORECAST, TARGET) == pytest.approx(5 / 3)


def test_percentages_leave_out_targets_under_the_floor() -> None:
    assert metrics.mape(FORECAST, TARGET) == pytest.approx((0.2 + 0.05 + 0.1) / 3)
    assert metrics.mape(FORECAST, TARGET, floor=20) == pytest.approx((0.05 + 0.1) / 2)
    assert metrics.mape(np.array([5.0, 11.0]), np.array([0.0, 10.0])) == pytest.approx(0.1)


def test_skill_is_against_the_best_naive_forecast() -> None:
    assert metrics.skill(3, 4, 6) == pytest.approx(0.25)
    assert metrics.skill(5, 4, 6) == pytest.approx(-0.25)


def test_intervals() -> None:
    """One of three within; misses by 1 below and 2 above; widths 4, 4, 8."""
    assert metrics.coverage(LOW, HIGH, TARGET) == pytest.approx(1 / 3)
    assert metrics.width(LOW[:3], HIGH[:3]) == pytest.approx(16 / 3)
    assert metrics.winkler(LOW, HIGH, TARGET, 0.2) == pytest.approx((4 + (4 + 10 * 1) + (8 + 10 * 2)) / 3)


def test_edges_of_an_interval_are_within() -> None:
    assert metrics.coverage(np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([1.0, 2.0])) == 1


def test_pinball() -> None:
    """Errors −2, 1, −4 at 0.9: 0.1 × 2, 0.9 × 1, 0.1 × 4."""
    assert metrics.pinball(FORECAST, TARGET, 0.9) == pytest.approx((0.2 + 0.9 + 0.4) / 3)
    assert metrics.pinball(FORECAST, TARGET, 0.5) == pytest.approx(metrics.mae(FORECAST, TARGET) / 2)


def test_calibration_error_weighs_the_gap_of_each_bin() -> None:
    """Two promised 0.95 of which one came, two promised 0.15 of which none came, one unknown."""
    promised = np.array([0.95, 0.95, 0.15, 0.15, NAN])
    happened = np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    assert metrics.calibration_error(promised, happened) == pytest.approx((2 * 0.45 + 2 * 0.15) / 4)
    assert metrics.calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0


def test_nothing_to_measure_is_nan() -> None:
    nothing = np.full(3, NAN)
    assert math.isnan(metrics.mae(nothing, nothing))
    assert math.isnan(metrics.rmse(nothing, nothing))
    assert math.isnan(metrics.coverage(nothing, nothing, nothing))
    assert math.isnan(metrics.calibration_error(nothing, nothing))
