"""Windows: sums against plain arithmetic, and when windows close."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadcast.domain.times import utc_offset_ms
from roadcast.windows import SUMS, Closer, Totals, group, local_day, row_sums, tick_end, tick_grid

MINUTE = 60_000
TICK = 5 * MINUTE
NAN = math.nan


def ints(*values):
    return np.array(values, np.int64)


def totals(values, reference):
    sums = row_sums(np.array(values, np.float32), np.array(reference, np.float32), 0.75).sum(axis=0)
    return Totals(dict(zip(SUMS, sums.tolist(), strict=True)))


def test_a_window_holds_its_end_and_not_its_start():
    assert tick_end(ints(0, 1, TICK - 1, TICK, TICK + 1), TICK).tolist() == [0, TICK, TICK, TICK, 2 * TICK]


def test_speed_is_weighted_by_volume_where_every_speed_has_one():
    both = totals([[60, 10, NAN, NAN], [30, 30, NAN, NAN]], [60, 60])
    assert (both.speed, both.weighting, both.volume) == (37.5, "volume", 20.0)
    one = totals([[60, 10, NAN, NAN], [30, NAN, NAN, NAN]], [60, 60])
    assert (one.speed, one.weighting) == (45.0, "none")
    empty_road = totals([[60, 0, NAN, NAN], [50, 0, NAN, NAN]], [60, 60])
    assert (empty_road.speed, empty_road.weighting) == (55.0, "none")


def test_a_standing_queue_weighs_as_much_as_moving_traffic():
    jam = totals([[60, 30, NAN, NAN], [0, 0, NAN, NAN]], [60, 60])
    assert (jam.speed, jam.ratio, jam.weighting) == (30.0, 0.5, "none")


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios():
    """Ten vehicles at a quarter of 20 mph, and thirty at free flow: 46 of 50 mph. The mean of ratios is 5/8."""
    found = totals([[5, 10, NAN, NAN], [60, 30, NAN, NAN]], [20, 60])
    assert found.ratio == (5 * 10 + 60 * 30) / (20 * 10 + 60 * 30)
    alone = totals([[5, NAN, NAN, NAN], [60, NAN, NAN, NAN], [70, NAN, NAN, NAN]], [20, 60, NAN])
    assert (alone.ratio, alone.speed) == (65 / 80, 45.0)


speeds = st.integers(0, 400).map(lambda n: n / 4) | st.just(NAN)
volumes = st.integers(0, 200) | st.just(NAN)


@given(st.lists(st.tuples(speeds, volumes, st.sampled_from([NAN, 20.0, 55.5, 70.0])), min_size=1, max_size=12))
def test_speed_and_ratio_have_one_weighting(readings):
    found = totals([[speed, volume, NAN, NAN] for speed, volume, _ in readings], [against for *_, against in readings])
    measured = [row for row in readings if not math.isnan(row[0])]
    by_volume = bool(measured) and all(volume > 0 for _, volume, _ in measured)

    def mean(values):
        weight = sum(w for w, _ in values)
        return sum(w * v for w, v in values) / weight if weight else None

    weighed = [(volume if by_volume else 1.0, speed, against) for speed, volume, against in measured]
    known = [(w, speed, against) for w, speed, against in weighed if not math.isnan(against)]
    speed, reference = mean([(w, v) for w, v, _ in known]), mean([(w, a) for w, _, a in known])
    assert found.weighting == ("volume" if by_volume else "none")
    assert found.speed == pytest.approx(mean([(w, v) for w, v, _ in weighed]))
    assert found.ratio == (None if reference is None else pytest.approx(speed / reference))


def test_missing_is_left_out_and_zero_counts():
    found = totals([[0, 4, 12, 0.5], [NAN, NAN, NAN, NAN], [30, 6, NAN, NAN]], [60, 60, NAN])
    assert (found.readings, found.speed, found.density, found.occupancy) == (3, 18.0, 12.0, 0.5)
    assert (found.ratio, found.congested_share) == (0.0, 1.0)
    nothing = totals([[NAN, NAN, NAN, NAN]], [60])
    assert (nothing.speed, nothing.volume, nothing.ratio, nothing.congested_share) == (None,) * 4


rows = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100, width=32) | st.just(NAN)), max_size=40)


@given(rows, st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_the_order(found, random):
    def grouped(items):
        values = np.full((len(items), 4), np.nan, np.float32)
        values[:, 0] = [v for _, v in items]
        sums = row_sums(values, np.full(len(items), 60, np.float32), 0.75)
        keys, added = group(ints(*(k for k, _ in items)), sums)
        return keys.tolist(), added.tolist()

    shuffled = random.sample(found, len(found))
    assert grouped(found) == grouped(shuffled)


def test_a_grid_adds_volumes_and_averages_the_rest():
    at = ints(1, MINUTE, TICK, TICK + 1, -TICK)
    sensor = np.array([0, 0, 1, 1, 0], np.int32)
    values = np.array(
        [[60, 10, 10, 0.1], [30, 30, 20, 0.3], [50, NAN, NAN, NAN], [0, 0, NAN, NAN], [1, 1, 1, 1]], np.float32
    )
    grid = tick_grid(sensor, at, values, end_ms=2 * TICK, ticks=2, sensors=2, interval_ms=TICK)
    expected = [[[37.5, 40, 15, 0.2], [50, NAN, NAN, NAN]], [[NAN] * 4, [0, 0, NAN, NAN]]]
    np.testing.assert_allclose(grid, np.array(expected, np.float32))


def test_local_days_follow_the_clock_change():
    change = ints(*(int(np.datetime64(t, "ms").astype(np.int64)) for t in ("2026-03-08T09:59", "2026-03-08T10:01")))
    assert (utc_offset_ms(change, "America/Los_Angeles") / 3_600_000).tolist() == [-8, -7]
    midnight = int(np.datetime64("2026-03-09T07:00", "ms").astype(np.int64))
    days = local_day(ints(midnight, midnight + 1), "America/Los_Angeles")
    assert np.diff(days).tolist() == [1]


FAR = 1_000_000 * TICK
"""A clock that has passed all windows, as that of a replay always has."""


def heard(closer, sensors, at, *, through=None, now=0.0, clock=FAR):
    sensors = np.array(sensors, np.int32)
    return closer.observe(sensors, np.full(len(sensors), at, np.int64), through, clock, now)


@pytest.fixture
def closer():
    closer = Closer(TICK, 30.0)
    closer.resume(9 * TICK)
    assert heard(closer, [1, 2, 3, 4], 10 * TICK) == [10 * TICK]
    return closer


def test_a_window_waits_for_every_active_sensor(closer):
    assert heard(closer, [1, 2, 3], 11 * TICK) == []
    assert heard(closer, [4], 11 * TICK) == [11 * TICK]


def test_one_fast_sensor_closes_nothing(closer):
    assert heard(closer, [1], 12 * TICK) == []
    assert heard(closer, [1], 13 * TICK - 1) == []


@pytest.mark.parametrize("ahead", [0, 1, 3.5, 5])
def test_one_fast_clock_does_not_make_the_others_seem_silent(ahead):
    """One detector's stamps are windows ahead; the others report a moment after each window's end."""
    closer, closed = Closer(TICK, 30.0), []
    closer.resume(3 * TICK)
    heard(closer, [1, 2], 3 * TICK + 1, clock=3 * TICK + 200)
    for tick in range(4, 9):
        at = tick * TICK
        closed += closer.wait(at, now_s=tick)
        closed += heard(closer, [3], int(at + ahead * TICK), now=tick + 0.1, clock=at + 100)
        assert tick * TICK not in closed
        closed += heard(closer, [1, 2], at, now=tick + 0.2, clock=at + 200)
        assert closed[-1] == at
    assert closed == [tick * TICK for tick in range(4, 9)]


def test_one_silent_sensor_holds_nothing_once_half_are_a_window_further(closer):
    assert heard(closer, [1, 2, 3], 11 * TICK) == []
    assert heard(closer, [1], 12 * TICK) == []
    assert heard(closer, [2], 12 * TICK) == []
    assert heard(closer, [3], 12 * TICK) == [11 * TICK]


def test_a_sensor_that_stays_silent_is_waited_for_no_longer(closer):
    closed = [heard(closer, [1, 2, 3], tick * TICK) for tick in (11, 12, 13, 14)]
    assert closed == [[], [11 * TICK], [12 * TICK, 13 * TICK], [14 * TICK]]


def test_a_source_can_say_that_it_has_sent_all(closer):
    assert heard(closer, [1], 11 * TICK, through=11 * TICK) == [11 * TICK]
    assert heard(closer, [], 0, through=12 * TICK + 1) == [12 * TICK]


def test_a_window_closes_when_nothing_more_comes(closer):
    assert closer.wait(FAR, 90.0) == []
    assert heard(closer, [1], 11 * TICK, now=100.0) == []
    assert closer.wait(FAR, 129.0) == []
    assert closer.wait(FAR, 130.0) == [11 * TICK]
    assert closer.wait(FAR, 500.0) == []


def test_a_window_that_is_due_closes_when_the_clock_has_passed_its_end(closer):
    assert heard(closer, [1, 2, 3, 4], 11 * TICK, clock=11 * TICK - 1) == []
    assert closer.wait(11 * TICK - 1, 1.0) == []
    assert closer.wait(11 * TICK, 2.0) == [11 * TICK]
    assert closer.wait(12 * TICK, 3.0) == []


def test_nor_does_a_source_that_says_that_it_has_sent_all_close_windows_to_come(closer):
    assert heard(closer, [1], 11 * TICK, through=12 * TICK, clock=11 * TICK) == [11 * TICK]
    assert closer.wait(12 * TICK, 0.0) == [12 * TICK]


def test_nor_does_silence_close_windows_to_come(closer):
    """A fast sensor has reported it; the others do when it is over, and are waited for from then on."""
    assert heard(closer, [1], 11 * TICK, now=100.0, clock=11 * TICK - 200_000) == []
    assert closer.wait(11 * TICK - 1, 299.0) == []
    assert closer.wait(11 * TICK, 300.0) == []
    assert closer.wait(11 * TICK + 2000, 302.0) == []
    assert heard(closer, [2, 3, 4], 11 * TICK, now=302.0, clock=11 * TICK + 2000) == [11 * TICK]


def test_silence_closes_windows_shorter_than_it(closer):
    assert closer.wait(10 * TICK, 0.0) == []
    assert heard(closer, [1], 12 * TICK, now=100.0, clock=10 * TICK + 1) == []
    for now in range(101, 130):
        assert closer.wait(11 * TICK + (now - 101) * TICK, float(now)) == []
    assert closer.wait(40 * TICK, 131.0) == [11 * TICK]
    assert closer.wait(40 * TICK, 132.0) == []
    assert closer.wait(50 * TICK, 162.0) == [12 * TICK]


def test_what_another_feed_had_reported_early_closes_no_window_of_this_one(closer):
    assert heard(closer, [1, 2, 3, 4], 20 * TICK, clock=10 * TICK) == []
    closer.resume(9 * TICK)
    assert closer.wait(FAR, 0.0) == []
    assert closer.wait(FAR, 1000.0) == []


def test_late_readings_close_nothing_again(closer):
    assert heard(closer, [1, 2, 3, 4], 5 * TICK) == []


def test_the_first_readings_close_every_window_that_they_fill():
    closer = Closer(TICK, 30.0)
    at = ints(3 * TICK, 4 * TICK, 5 * TICK)
    assert closer.observe(np.zeros(3, np.int32), at, None, FAR, 0.0) == [3 * TICK, 4 * TICK, 5 * TICK]


def test_what_comes_at_once_closes_every_window_that_holds_something(closer):
    after = closer.closed_ms // TICK
    at = [after + i for i in (*range(1, 40), 200, 201)]
    sensors = np.repeat(np.arange(1, 5, dtype=np.int32), len(at))
    closed = closer.observe(sensors, np.tile(ints(*(TICK * i for i in at)), 4), None, FAR, 0.0)
    silent = range(after + 201 - Closer.LONGEST_GAP, after + 200)
    assert closed == sorted(TICK * i for i in {*at, *silent})
    assert heard(closer, [1, 2, 3, 4], TICK * (after + 202)) == [TICK * (after + 202)]


def test_a_long_silence_does_not_close_windows_without_end(closer):
    closed = heard(closer, [1, 2, 3, 4], 10_000 * TICK)
    assert closed[-1] == 10_000 * TICK
    assert len(closed) == Closer.LONGEST_GAP + 1
