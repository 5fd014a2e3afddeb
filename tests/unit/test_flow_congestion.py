import math

import numpy as np
import pytest

from roadcast.flow.congestion import CONGESTED_BELOW, SCHEME, CongestionLevel, level, light_speeds, reference_speed


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1.2, "low"), (0.75, "low"), (0.7499, "medium"), (0.5, "medium"),
        (0.4999, "high"), (0.25, "high"), (0.2499, "severe"), (0.0, "severe"),
    ],
)  # fmt: skip
def test_levels_include_their_cut_off(ratio: float, expected: str):
    assert level(ratio) == expected


@pytest.mark.parametrize("ratio", [None, math.nan])
def test_an_unknown_ratio_has_no_level(ratio: float | None):
    assert level(ratio) is None


def test_the_scheme_names_every_level_in_order():
    assert list(SCHEME.cut_offs) == list(CongestionLevel)
    assert list(SCHEME.cut_offs.values()) == sorted(SCHEME.cut_offs.values(), reverse=True)
    assert CONGESTED_BELOW == 0.75


def test_reference_speed_is_the_85th_percentile_of_light_traffic():
    rng = np.random.default_rng(4)
    speed = rng.uniform(20, 70, (600, 3))
    occupancy = rng.uniform(0, 0.15, (600, 3))
    speed[rng.random(speed.shape) < 0.1] = np.nan
    occupancy[:, 2] = np.nan  # a sensor that reports speed alone
    expected = [
        np.percentile(
            [v for v, o in zip(speed[:, s], occupancy[:, s], strict=True) if not np.isnan(v) and not o >= 0.10], 85
        )
        for s in range(3)
    ]
    np.testing.assert_allclose(reference_speed(light_speeds(speed, occupancy)), expected)
    assert reference_speed(light_speeds(speed[:, 1], occupancy[:, 1])) == pytest.approx(expected[1])


def test_a_jam_does_not_lower_the_reference():
    free, jam = np.full(300, 65.0), np.full(2000, 15.0)
    occupancy = np.concatenate([np.full(300, 0.05), np.full(2000, 0.4)])
    assert reference_speed(light_speeds(np.concatenate([free, jam]), occupancy)) == 65


def test_less_than_a_day_of_light_traffic_gives_no_reference():
    occupancy = np.full((288, 2), 0.05)
    occupancy[0, 0] = 0.10
    np.testing.assert_array_equal(reference_speed(light_speeds(np.full((288, 2), 60.0), occupancy)), [np.nan, 60.0])
    assert np.isnan(reference_speed(np.array([])))
