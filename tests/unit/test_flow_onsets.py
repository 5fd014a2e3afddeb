"""Onsets of jams, in series made by hand and against a loop."""

import numpy as np
import pytest

from roadcast.flow.onsets import near_onsets, onsets, reach_ms

TICK = 300_000
GAP = float("nan")


def found(*speeds: float, reference: float = 60.0, interval_ms: int = TICK) -> list[int]:
    column = np.array(speeds, np.float32)[:, None]
    return np.flatnonzero(onsets(column, np.array([reference], np.float32), interval_ms)).tolist()


def test_an_onset_is_the_first_tick_under_half_the_reference_after_half_an_hour_above():
    assert found(*[60] * 6, 29.9, 20, 20) == [6]
    assert found(*[60] * 6, 30, 29) == [7]


def test_a_jam_that_was_there_before_has_no_onset():
    assert found(*[60] * 5, 20, 20) == []  # nobody knows what was before
    assert found(20, *[60] * 5, 20) == []
    assert found(20, *[60] * 6, 20) == [7]


def test_flickering_around_the_limit_is_one_onset():
    assert found(*[60] * 6, 20, 40, 20, 40, 40, 40, 40, 40, 40, 20) == [6, 15]


def test_gaps_are_taken_for_free_traffic_as_long_as_half_is_known():
    assert found(60, GAP, 60, GAP, 60, GAP, 20) == [6]
    assert found(60, GAP, GAP, GAP, 60, GAP, 20) == []
    assert found(*[60] * 6, GAP, 20) == [7]


def test_without_a_reference_speed_nobody_knows():
    assert found(*[60] * 6, 5, reference=GAP) == []


def test_longer_intervals_look_as_far_as_they_can():
    assert found(60, 60, 20, interval_ms=900_000) == [2]
    assert found(60, 20, interval_ms=3_600_000) == [1]
    assert reach_ms(900_000) == (3_600_000, 1_800_000)
    assert reach_ms(3_600_000) == (7_200_000, 3_600_000)


def test_near_are_the_ticks_within_half_an_hour():
    flags = np.zeros((20, 2), np.bool_)
    flags[9, 0] = True
    near = near_onsets(flags, TICK)
    assert np.flatnonzero(near[:, 0]).tolist() == list(range(3, 16))
    assert not near[:, 1].any()
    flags[:] = False
    flags[0, 0] = flags[19, 1] = True
    assert np.flatnonzero(near_onsets(flags, TICK)[:, 0]).tolist() == list(range(7))
    assert np.flatnonzero(near_onsets(flags, TICK)[:, 1]).tolist() == list(range(13, 20))


@pytest.mark.parametrize("seed", range(3))
def test_many_series_against_a_loop(seed: int):
    random = np.random.default_rng(seed)
    speed = random.choice([20.0, 60.0, GAP], (300, 5), p=[0.08, 0.72, 0.2]).astype(np.float32)
    reference = np.array([60, 55, 45, GAP, 38], np.float32)
    expected = np.zeros(speed.shape, np.bool_)
    for tick in range(6, 300):
        for sensor in range(5):
            before = speed[tick - 6 : tick, sensor]
            known = before[~np.isnan(before)]
            is_free = len(known) >= 3 and all(known >= reference[sensor] / 2)
            expected[tick, sensor] = speed[tick, sensor] < reference[sensor] / 2 and is_free
    assert np.array_equal(onsets(speed, reference, TICK), expected)
    assert expected.any()
    near = near_onsets(expected, TICK)
    for tick in range(300):
        assert np.array_equal(near[tick], expected[max(0, tick - 6) : tick + 7].any(axis=0))
