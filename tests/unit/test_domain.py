"""Ids, times, batches, clocks, units, checks and the messages on the log."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.ids import Packed, pack, unpack
from roadcast.domain.reading import VARIABLES, ReadingBatch, merge
from roadcast.domain.times import from_ms, rfc3339, to_ms
from roadcast.domain.units import Units, absolute_tolerance
from roadcast.pipeline.checks import check
from roadcast.streaming.messages import ForecastIssued, IssueComplete, ReadingStored, decode, encode, encode_rows

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**48 - 1), st.integers(0, 4095))
def test_ids_say_what_was_packed(number, at_ms, horizon):
    made = pack(number, at_ms, horizon)
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert unpack(made) == Packed(number, at_ms, horizon)


def test_other_ids_are_told_apart():
    assert unpack(uuid4()) is None
    assert unpack(UUID("01a20bec-d480-8005-8000-000100000001")) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_times_are_rounded_down_to_the_millisecond(at):
    assert from_ms(to_ms(at)) == at.replace(microsecond=at.microsecond // 1000 * 1000)


def test_rfc3339_ends_in_z():
    assert rfc3339(NOON.astimezone()) == "2026-03-02T12:00:00Z"


def batch(*rows):
    codes = list(dict.fromkeys(code for code, *_ in rows))
    values = np.array([row[2:] for row in rows], np.float32).reshape(-1, 4)
    return ReadingBatch(
        codes, np.array([codes.index(c) for c, *_ in rows], np.int32), np.array([to_ms(r[1]) for r in rows]), values
    )


def listed(found):
    codes = [found.codes[i] for i in found.sensor.tolist()]
    return list(zip(codes, found.at_ms.tolist(), found.values[:, 0].tolist(), strict=True))


def test_merged_batches_keep_order_and_name_each_code_once():
    one = batch(("A", NOON, 1, 0, 0, 0), ("B", NOON, 2, 0, 0, 0))
    two = batch(("B", NOON, 3, 0, 0, 0), ("C", NOON, 4, 0, 0, 0))
    merged = merge([one, two])
    assert merged.codes == ("A", "B", "C")
    assert listed(merged) == listed(one) + listed(two)


def test_taken_rows_bring_only_their_codes_in_order_of_appearance():
    found = batch(("A", NOON, 1, 0, 0, 0), ("C", NOON, 2, 0, 0, 0), ("B", NOON, 3, 0, 0, 0), ("C", NOON, 4, 0, 0, 0))
    taken = found.take(np.array([False, True, True, True]))
    assert taken.codes == ("C", "B")
    assert listed(taken) == listed(found)[1:]
    assert found.take(np.zeros(4, np.bool_)).codes == ()


def test_a_live_clock_is_the_wall_clock_and_a_replayed_one_event_time():
    clock = FeedClock(lambda: NOON)
    assert clock.now() == NOON
    past = NOON - timedelta(days=5000)
    clock.feed = clock.feed.then(Feed("file", replayed=True, reached_at=past))
    assert (clock.now(), clock.mode) == (past, "replayed")
    clock.feed = clock.feed.then(Feed("file", replayed=True, reached_at=past - timedelta(hours=1)))
    assert clock.now() == past
    clock.feed = clock.feed.then(Feed("http"))
    assert (clock.now(), clock.mode) == (NOON, "live")
    clock.feed = clock.feed.then(Feed("other", replayed=True, reached_at=past - timedelta(days=1)))
    assert clock.now() == past - timedelta(days=1)


def test_a_replayed_clock_goes_with_what_is_seen_and_never_back():
    clock = FeedClock(lambda: NOON)
    clock.reach(NOON + timedelta(days=1))
    assert clock.now() == NOON
    past = NOON - timedelta(days=5000)
    clock.feed = Feed("file", replayed=True, reached_at=past)
    for at in (past + timedelta(minutes=5), past):
        clock.reach(at)
        assert clock.now() == past + timedelta(minutes=5)


def test_live_senders_are_one_feed_and_a_replay_is_one_by_its_name():
    live, other, file, again = Feed("north"), Feed("south"), Feed("file", replayed=True), Feed("north", replayed=True)
    assert other.follows(live)
    assert file.follows(replace(file, reached_at=NOON))
    assert not any(a.follows(b) for a, b in [(live, Feed()), (live, file), (file, live), (again, live), (again, file)])


def test_units():
    assert 70 / Units.METRIC.speed_per_mph == pytest.approx(43.4960, abs=1e-4)
    assert Units.METRIC.tolerance_mph * Units.METRIC.speed_per_mph == pytest.approx(8)
    assert (Units.US.tolerance_mph, Units.US.speed_unit) == (5.0, "mph")


@pytest.mark.parametrize(("interval_s", "vehicles"), [(30, 1), (60, 2), (300, 10), (3600, 120)])
def test_what_counts_as_right_of_each_variable(interval_s, vehicles):
    found = {variable: absolute_tolerance(variable, interval_s) for variable in VARIABLES}
    assert found == {"speed": 5.0, "volume": vehicles, "density": 5.0, "occupancy": 0.02}
    assert absolute_tolerance("speed", interval_s, Units.METRIC) == Units.METRIC.tolerance_mph


NAN = math.nan


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        (("A", NOON, -1, 1, 1, 0), "speed", -1.0),
        (("A", NOON, 201, 1, 1, 0), "speed", 201.0),
        (("A", NOON, 1, -1, 1, 0), "volume", -1.0),
        (("A", NOON, 1, 1, 1, 1.25), "occupancy", 1.25),
        (("A", NOON, math.inf, 1, 1, 0), "speed", math.inf),
        (("A", NOON, NAN, NAN, NAN, NAN), "speed", None),
        (("A", NOON + timedelta(seconds=301), 1, 1, 1, 0), "timestamp", "2026-03-02T12:05:01Z"),
        (("A", datetime(1989, 12, 31, tzinfo=UTC), 1, 1, 1, 0), "timestamp", "1989-12-31T00:00:00Z"),
        (("X", NOON, 1, 1, 1, 0), "sensor_id", "X"),
    ],
)
def test_what_cannot_be_right_is_refused_by_field(row, field, value):
    good = ("A", NOON, 0, 0, 0, 0)
    found = check(batch(good, row, good), newest_ms=to_ms(NOON), max_future_s=300, unknown=frozenset({"X"}))
    assert found.passed.tolist() == [True, False, True]
    [rejection] = found.rejections
    assert (rejection.index, rejection.field, rejection.value) == (1, field, value)


def test_the_edges_are_kept():
    edges = batch(
        ("A", NOON + timedelta(seconds=300), 0, 0, 0, 1), ("A", datetime(1990, 1, 1, tzinfo=UTC), NAN, NAN, NAN, 0)
    )
    assert check(edges, newest_ms=to_ms(NOON), max_future_s=300).passed.all()


def test_many_forecasts_are_written_as_one_by_one():
    shared = {"issued_ms": 1, "interval_ms": 300_000, "model": "m", "version": "v"}
    own = {"sensor_id": "A", "sensor_no": 1, "age_ticks": 0}
    arrays = {name: np.array([1.5, NAN], np.float32) for name in ("speed", "volume", "confidence", "tolerance")}
    quantiles = np.array([[1.5, 2.25], [NAN, NAN]], np.float32)
    [value] = encode_rows(shared, [{**own, **arrays, "quantiles": quantiles}])
    pair = [1.5, None]
    assert decode(value) == ForecastIssued(
        "A", 1, 1, 300_000, "m", "v", 0, pair, pair, pair, pair, [[1.5, 2.25], [None, None]]
    )


def test_messages_leave_out_what_is_missing_and_skip_what_they_do_not_know():
    stored = ReadingStored("A", 1, 5, 6, speed=0.0)
    assert b"volume" not in encode(stored)
    assert decode(encode(stored)) == stored
    assert decode(
        b'{"kind":"issue","issued_ms":1,"sensors":2,"horizons":12,"model":"m","version":"v","more":[1]}'
    ) == IssueComplete(1, 2, 12, "m", "v")
    with pytest.raises(ValueError, match="kind"):
        decode(b'{"kind":"nothing"}')
