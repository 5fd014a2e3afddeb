import json
from datetime import UTC, datetime, timedelta
from math import nan

import numpy as np
import pytest
from api_doubles import NOW, SENSORS, TICK, issue, rows
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from roadcast.domain.clock import Feed, FeedClock
from roadcast.domain.ids import Packed, unpack
from roadcast.domain.incident import Alert, Severity
from roadcast.domain.units import Units
from roadcast.live.documents import (
    AlertDocument,
    ForecastDocument,
    Presenter,
    ReadingDocument,
    SensorDocument,
    StatusDocument,
    alert_document,
    encode,
    rounded,
    status_document,
)
from roadcast.services import Board, Status

US = Presenter(Units.US, 300, 900)
METRIC = Presenter(Units.METRIC, 300, 900)


def as_json(document: object) -> object:
    return json.loads(encode(document))


def test_a_reading_reads_as_the_missions_sample():
    [found] = US.readings(rows((1, TICK, 45.5, 120, 15.2, 0.85)), SENSORS, NOW)
    assert as_json(found) == {
        "id": "018d0cab-c440-8000-8000-000000000001",
        "sensor_id": "SENSOR_001",
        "speed": 45.5,
        "volume": 120,
        "density": 15.2,
        "occupancy": 0.85,
        "timestamp": "2024-01-15T10:30:00Z",
        "age_s": 120.0,
        "stale": False,
    }


def test_missing_is_null_and_zero_is_zero():
    [found] = US.readings(rows((1, TICK, 0.0, nan, nan, nan)), SENSORS, NOW)
    assert [found[name] for name in ("speed", "volume", "density", "occupancy")] == [0.0, None, None, None]


def test_volumes_keep_a_fraction_only_where_there_is_one():
    found = US.readings(rows((1, TICK, 1, 120, 1, 0), (2, TICK, 1, 120.5, 1, 0)), SENSORS, NOW)
    assert encode([reading["volume"] for reading in found]) == b"[120,120.5]"


@given(st.integers(0, 200_0000).map(lambda n: n / 1e4))
def test_what_float32_keeps_reads_as_it_was_sent(speed: float):
    assert rounded(np.array([speed], np.float32), 4) == [speed]


def test_metric_speaks_kilometres():
    mph, per_mile = 84.2 / 1.609344, 9.4 * 1.609344
    [found] = METRIC.readings(rows((1, TICK, mph, 120, per_mile, 0.1)), SENSORS, NOW)
    assert (found["speed"], found["density"], found["volume"]) == (84.2, 9.4, 120)


@pytest.mark.parametrize(("age_s", "stale"), [(900, False), (901, True)])
def test_stale_is_older_than_allowed(age_s: int, stale: bool):
    [found] = US.readings(rows((1, TICK, 1, 1, 1, 0)), SENSORS, TICK + timedelta(seconds=age_s))
    assert (found["age_s"], found["stale"]) == (age_s, stale)


def test_a_forecast_has_the_designs_keys():
    found = US.forecasts(issue(), SENSORS)
    assert len(found) == 24
    second = as_json(found[13])
    assert {name: second[name] for name in ("sensor_id", "issued_at", "target_time", "horizon_minutes", "unit")} == {
        "sensor_id": "SENSOR_002",
        "issued_at": "2024-01-15T10:30:00Z",
        "target_time": "2024-01-15T10:40:00Z",
        "horizon_minutes": 10,
        "unit": "mph",
    }
    assert list(second["quantiles"]) == ["p05", "p10", "p25", "p50", "p75", "p90", "p95"]
    assert second["quantiles"]["p50"] == second["predicted_speed"]
    assert unpack(found[13]["id"]) == Packed(2, 1_705_314_600_000, 10)


def test_a_sensor_without_a_forecast_is_left_out_and_what_is_unknown_is_null():
    made = issue()
    made.speed[0] = made.volume[0] = nan
    made.confidence[1, 0] = nan
    made.quantiles[1, 0, 0] = nan
    found = US.forecasts(made, SENSORS)
    assert {forecast["sensor_id"] for forecast in found} == {"SENSOR_002"}
    assert (found[0]["confidence"], found[0]["quantiles"]["p05"]) == (None, None)
    assert b"NaN" not in encode(found)


def test_a_detector_that_only_counts_is_forecast_too():
    made = issue((1,))
    made.speed[0] = made.confidence[0] = made.quantiles[0] = nan
    [found, *_] = US.forecasts(made, SENSORS)
    assert (found["predicted_speed"], found["confidence"], found["quantiles"]["p50"]) == (None, None, None)
    assert found["predicted_volume"] == 120.5


def test_a_sensor_that_is_not_known_yet_is_left_out():
    assert US.readings(rows((9, TICK, 1, 1, 1, 0)), SENSORS, NOW) == []
    assert len(US.forecasts(issue((1, 9)), SENSORS)) == 12


def test_choosing_agrees_with_looking_at_each():
    made = issue((1, 2, 3))
    every = US.forecasts(made, SENSORS)
    for sensor_no, horizon, least, after in [(2, None, None, None), (None, 30, 0.7, None), (None, None, 0.8, (1, 25))]:
        chosen = US.choose(made, sensor_no=sensor_no, horizon_minutes=horizon, min_confidence=least, after=after)
        expected = [
            forecast
            for forecast in every
            if sensor_no in (None, int(forecast["sensor_id"][-1]))
            and horizon in (None, forecast["horizon_minutes"])
            and (least is None or forecast["confidence"] >= least)
            and (after is None or (int(forecast["sensor_id"][-1]), forecast["horizon_minutes"]) > after)
        ]
        assert US.forecasts(made, SENSORS, chosen) == expected
        assert expected


def test_only_whole_minutes_are_horizons():
    found = Presenter(Units.US, 90, 900).forecasts(issue((1,), horizons=4), SENSORS)
    assert [forecast["horizon_minutes"] for forecast in found] == [3, 6]


def test_metric_forecasts_convert_every_speed():
    [us], [metric] = (presenter.forecasts(issue((1,), horizons=1), SENSORS) for presenter in (US, METRIC))
    assert metric["predicted_speed"] == pytest.approx(us["predicted_speed"] * 1.609344, abs=0.01)
    assert metric["tolerance"] == pytest.approx(us["tolerance"] * 1.609344, abs=0.01)
    assert metric["quantiles"]["p95"] == pytest.approx(us["quantiles"]["p95"] * 1.609344, abs=0.01)
    assert metric["confidence"] == us["confidence"]


def test_status_is_since_the_last_recovery_or_the_first_trouble():
    times = iter(NOW + timedelta(minutes=minute) for minute in range(9))
    board = Board(lambda: next(times))
    clock = FeedClock(wall=lambda: NOW, feed=Feed("demo", replayed=True, simulated=True, reached_at=TICK))
    assert status_document(board, clock, TICK, 3)["since"] == TICK
    board.report("a", Status.OK)
    board.report("b", Status.OK)
    found = status_document(board, clock, TICK, 3)
    assert (found["status"], found["since"], found["clock"], found["uptime"], found["connections"]) == (
        "ok",
        NOW + timedelta(minutes=1),
        TICK,
        120,
        3,
    )
    assert found["feed"] == {"name": "demo", "mode": "replayed", "simulated": True}
    board.report("a", Status.DOWN, "gone", "start it")
    board.report("b", Status.DOWN)
    found = status_document(board, clock, TICK, 3)
    assert (found["status"], found["since"]) == ("down", NOW + timedelta(minutes=2))


def test_documents_are_what_they_are_declared_to_be():
    board, clock = Board(lambda: NOW), FeedClock(wall=lambda: NOW)
    alert = Alert("018d0cab-c440-8000-8000-000000000001", NOW, "incident", Severity.HIGH, "A crash")
    for kind, document in (
        (list[ReadingDocument], US.readings(rows((1, TICK, nan, 1, 1, 0)), SENSORS, NOW)),
        (list[ForecastDocument], US.forecasts(issue(), SENSORS)),
        (SensorDocument, US.sensor(SENSORS[1])),
        (AlertDocument, alert_document(alert)),
        (StatusDocument, status_document(board, clock, NOW, 0)),
    ):
        TypeAdapter(kind, config=None).validate_json(encode(document), extra="forbid")


def test_times_are_utc_with_z():
    assert encode(datetime(2024, 1, 15, 10, 30, 0, 250_000, UTC)) == b'"2024-01-15T10:30:00.250000Z"'
