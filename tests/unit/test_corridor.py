"""Simulated days: reproducible, and shaped like a freeway's."""

import re
from datetime import date, timedelta
from functools import cache
from math import asin, cos, radians, sin, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from roadcast.domain.reading import DENSITY, OCCUPANCY, SPEED, VOLUME
from roadcast.errors import InvalidInput
from roadcast.flow.closures import INCIDENTS_PER_DAY
from roadcast.flow.corridor import CorridorDay, simulate_days
from roadcast.flow.detectors import FAULTY_SENSOR
from roadcast.flow.road import demo_corridor

CORRIDOR = demo_corridor()
MONDAY = date(2026, 1, 5)
LANES = np.array([sensor.lanes for sensor in CORRIDOR.sensors])
NORTH = np.array([sensor.direction == "N" for sensor in CORRIDOR.sensors])
SLOW_MPH = 40


@cache
def four_weeks() -> list[CorridorDay]:
    return simulate_days(CORRIDOR, 1, [MONDAY + timedelta(days) for days in range(28)])


@cache
def day_with_cells() -> CorridorDay:
    return simulate_days(CORRIDOR, 1, [date(2026, 1, 13)], with_cells=True)[0]


def values(weekdays: range) -> NDArray[np.float32]:
    """[day, interval, sensor, variable]."""
    return np.stack([day.values for day in four_weeks() if day.date.weekday() in weekdays])


def slow_share(speeds: NDArray[np.float32]) -> float:
    return float(np.mean(speeds < SLOW_MPH))


def miles_between(a: tuple[float, float], b: tuple[float, float]) -> float:
    (lat_a, lon_a), (lat_b, lon_b) = ((radians(x), radians(y)) for x, y in (a, b))
    half = sin((lat_b - lat_a) / 2) ** 2 + cos(lat_a) * cos(lat_b) * sin((lon_b - lon_a) / 2) ** 2
    return 2 * 3958.8 * asin(sqrt(half))


def test_the_same_seed_and_date_give_the_same_bits_in_any_company():
    alone = simulate_days(CORRIDOR, 1, [date(2026, 1, 8)])[0]
    beside = four_weeks()[3]
    assert alone.date == beside.date
    assert alone.values.tobytes() == beside.values.tobytes()
    assert alone.incidents == beside.incidents


def test_another_seed_or_date_gives_another_day():
    monday, tuesday = four_weeks()[:2]
    other = simulate_days(CORRIDOR, 2, [MONDAY])[0]
    assert not np.array_equal(monday.values, tuesday.values, equal_nan=True)
    assert not np.array_equal(monday.values, other.values, equal_nan=True)


def test_sixty_stations_with_what_a_map_needs():
    sensors = CORRIDOR.sensors
    assert [sensor.sensor_id for sensor in sensors] == [f"SENSOR_{number:03d}" for number in range(1, 61)]
    assert len({sensor.name for sensor in sensors}) == 60
    assert all(re.fullmatch(r"Demo Freeway 1 [NS] at .+", sensor.name or "") for sensor in sensors)
    assert len({(sensor.latitude, sensor.longitude) for sensor in sensors}) == 60
    assert {sensor.speed_limit for sensor in sensors} == {65.0}


def test_links_follow_traffic_and_their_distances_fit_the_map():
    places = {sensor.sensor_id: sensor for sensor in CORRIDOR.sensors}
    assert len(CORRIDOR.links) == 58
    for link in CORRIDOR.links:
        a, b = places[link.from_sensor], places[link.to_sensor]
        assert a.direction == b.direction
        assert (b.milepost > a.milepost) == (a.direction == "N")
        assert link.distance_mi == pytest.approx(abs(b.milepost - a.milepost), abs=0.011)
        air = miles_between((a.latitude, a.longitude), (b.latitude, b.longitude))
        assert air == pytest.approx(link.distance_mi, rel=0.05)


def test_readings_are_consistent_and_within_physical_limits():
    speed, volume, density, occupancy = np.moveaxis(values(range(7)), -1, 0)
    known = np.isfinite(speed)
    np.testing.assert_allclose((density * speed)[known], volume[known] * 12, rtol=1e-4)
    assert speed[known].min() > 0
    assert np.nanmax(speed) < 80
    assert np.nanmax(volume * 12 / LANES) < 2300
    assert 0.6 < np.nanmax(occupancy) < 1
    np.testing.assert_array_equal(volume[known], np.rint(volume[known]))
    length_ft = occupancy * 5280 / (density / LANES)
    assert np.nanpercentile(length_ft, [1, 99]) == pytest.approx([22, 22], rel=0.12)


def test_light_traffic_moves_near_the_limit_and_differently_at_each_station():
    night = np.nanmean(values(range(7))[:, 24:48, :, SPEED], axis=(0, 1))
    assert np.all((night > 62) & (night < 71))
    assert night.std() > 0.8
    assert abs(night.mean() - 65) > 0.5


def test_workdays_jam_northbound_in_the_morning_and_southbound_in_the_evening():
    speed = values(range(5))[..., SPEED]
    morning, evening = speed[:, 7 * 12 : 9 * 12], speed[:, 16 * 12 : 18 * 12]
    assert slow_share(morning[..., NORTH]) > 0.10
    assert slow_share(evening[..., ~NORTH]) > 0.10
    assert slow_share(morning[..., ~NORTH]) < 0.02
    assert slow_share(evening[..., NORTH]) < 0.02
    assert slow_share(speed[:, : 5 * 12]) < 0.002


def test_every_workday_morning_has_a_queue_at_the_lane_drop():
    upstream_of_drop = [n for n, s in enumerate(CORRIDOR.sensors) if s.direction == "N" and 10 < s.milepost < 11]
    downstream = [n for n, s in enumerate(CORRIDOR.sensors) if s.direction == "N" and 12.5 < s.milepost < 15]
    mornings = values(range(5))[:, 7 * 12 : 10 * 12, :, SPEED]
    assert np.all(np.nanmin(mornings[..., upstream_of_drop], axis=(1, 2)) < SLOW_MPH)
    assert slow_share(mornings[..., downstream]) < 0.02


def test_weekends_differ():
    workdays, weekend = values(range(5)), values(range(5, 7))
    assert slow_share(weekend[..., SPEED]) < 0.3 * slow_share(workdays[..., SPEED])
    at_8 = slice(7 * 12, 9 * 12)
    north = (slice(None), at_8, NORTH, VOLUME)
    assert np.nanmean(weekend[north]) < 0.6 * np.nanmean(workdays[north])


def test_workdays_are_alike_and_not_equal():
    daily = np.nansum(values(range(5))[..., VOLUME], axis=(1, 2))
    assert 0.005 < daily.std() / daily.mean() < 0.06


def test_waves_in_a_jam_travel_upstream_at_10_to_15_mph():
    flow = day_with_cells().cells[0].flow[7 * 60 + 40 : 8 * 60 + 40].astype(float)
    pairs = [(cell, cell - 5) for cell in range(17, 23)]  # a mile apart, in the queue upstream of mile 4.6
    lags = range(12)

    def alike(lag: int) -> float:
        return float(np.mean([np.corrcoef(flow[: 60 - lag, down], flow[lag:, up])[0, 1] for down, up in pairs]))

    minutes = max(lags, key=alike)
    assert alike(minutes) > 0.5
    assert 10 <= 60 / minutes <= 15


def test_queues_discharge_less_than_the_lane_drop_carried_before():
    drops: list[float] = []
    for day in simulate_days(CORRIDOR, 1, [MONDAY + timedelta(days) for days in range(5)], with_cells=True):
        field = day.cells[0]
        drop = int(np.flatnonzero(np.diff(CORRIDOR.carriageways[0].lanes) < 0)[-1])
        queued = np.flatnonzero((field.flow / field.density)[: 11 * 60, drop - 1] < SLOW_MPH)
        of_ten_minutes = np.convolve(field.flow[:, drop], np.ones(10) / 10, mode="same")
        before = of_ten_minutes[queued[0] - 40 : queued[0] - 5].max()
        drops.append(1 - of_ten_minutes[queued[15:-5]].mean() / before)
    assert min(drops) > 0.03
    assert 0.05 < np.median(drops) < 0.15


def test_flow_and_density_make_a_triangle_with_scatter():
    day = values(range(5))
    density, flow = day[..., DENSITY] / LANES, day[..., VOLUME] * 12 / LANES
    free, jam = density < 20, density > 60
    assert np.corrcoef(density[free], flow[free])[0, 1] > 0.99
    slope, _ = np.polyfit(density[jam], flow[jam], 1)
    assert -15 < slope < -10
    residual = flow[jam] - np.polyval(np.polyfit(density[jam], flow[jam], 1), density[jam])
    assert residual.std() > 20


def test_few_intervals_are_missing_and_they_are_missing_whole():
    missing = np.isnan(values(range(7)))
    assert 0.003 < missing[..., VOLUME].mean() < 0.03
    np.testing.assert_array_equal(missing[..., VOLUME], missing[..., OCCUPANCY])
    hours_silent = missing[..., VOLUME].sum(axis=1).max() / 12
    assert 1 < hours_silent < 7


def test_one_station_repeats_itself_on_some_days():
    faulty = [sensor.sensor_id for sensor in CORRIDOR.sensors].index(FAULTY_SENSOR)
    repeats = (np.diff(values(range(7)), axis=1) == 0).all(axis=-1).sum(axis=1)
    stuck = repeats > 10
    assert 3 <= stuck[:, faulty].sum() <= 18
    assert stuck.sum() == stuck[:, faulty].sum()


def test_incidents_are_known_and_slow_traffic_behind_them():
    days = four_weeks()
    incidents = [(day, incident) for day in days for incident in day.incidents]
    assert len(incidents) == pytest.approx(28 * 2 * INCIDENTS_PER_DAY, rel=0.5)
    ids = [sensor.sensor_id for sensor in CORRIDOR.sensors]
    drops: list[float] = []
    for day, incident in incidents:
        sensor = CORRIDOR.sensors[ids.index(incident.sensor_id)]
        assert sensor.direction == incident.direction
        assert abs(sensor.milepost - incident.milepost) < 0.5
        assert miles_between((sensor.latitude, sensor.longitude), (incident.latitude, incident.longitude)) < 0.5
        assert 0 <= incident.start_s < incident.end_s <= 86_400
        assert 1 <= incident.lanes_closed <= 2
        if incident.lanes_closed == 2 and 7 * 3600 < incident.start_s < 18 * 3600:
            behind = day.values[:, ids.index(incident.sensor_id) - 2, SPEED]
            drops.append(np.nanmin(behind[incident.start_s // 300 : incident.end_s // 300 + 2]))
    assert len(drops) >= 3
    assert np.median(drops) < 20


@pytest.mark.parametrize("interval_s", [0, 45, 7200, 420])
def test_an_interval_that_does_not_fit_is_refused_by_name(interval_s: int):
    with pytest.raises(InvalidInput, match=f"interval_s={interval_s}: expected whole minutes"):
        simulate_days(CORRIDOR, 1, [MONDAY], interval_s)


def test_other_intervals_count_the_same_vehicles():
    fifteen = simulate_days(CORRIDOR, 1, [MONDAY], 900)[0].values
    assert fifteen.shape == (96, 60, 4)
    per_hour = np.nanmean(fifteen[..., VOLUME]) * 4
    assert per_hour == pytest.approx(np.nanmean(four_weeks()[0].values[..., VOLUME]) * 12, rel=0.02)


def test_no_dates_no_days():
    assert simulate_days(CORRIDOR, 1, []) == []
