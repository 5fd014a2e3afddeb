"""Golden values: Caltrans PeMS and MnDOT IRIS conventions, a 22-foot effective length."""

import numpy as np
import pytest

from roadcast.flow.fundamental import (
    TriangularDiagram,
    density,
    density_from_occupancy,
    flow,
    occupancy,
    speed,
)

LANE = TriangularDiagram(free_speed=60.0, capacity=1800.0, jam_density=180.0)


def test_ten_vehicles_in_30_seconds_are_1200_an_hour():
    assert flow(10, 30) == 1200
    assert flow(120, 300) == 1440


def test_density_of_1440_an_hour_at_45_5_mph():
    assert density(1440.0, 45.5) == pytest.approx(31.648, abs=1e-3)


@pytest.mark.parametrize(("share", "veh_per_mile"), [(0.10, 24.0), (0.06333, 15.2), (0.0, 0.0)])
def test_density_of_a_lane_from_occupancy(share: float, veh_per_mile: float):
    assert density_from_occupancy(share) == pytest.approx(veh_per_mile, abs=1e-2)
    assert occupancy(density_from_occupancy(share)) == pytest.approx(share)


def test_missing_stays_missing_and_a_quotient_by_zero_is_missing():
    np.testing.assert_array_equal(
        density(np.array([np.nan, 600.0, 0.0]), np.array([50.0, 0.0, 60.0])), [np.nan, np.nan, 0]
    )
    assert np.isnan(speed(0.0, 0.0))


def test_triangular_diagram():
    assert LANE.critical_density == 30
    assert LANE.wave_speed == pytest.approx(12.0)
    densities = np.array([0.0, 15.0, 30.0, 105.0, 180.0])
    np.testing.assert_allclose(LANE.demand(densities), [0, 900, 1800, 1800, 1800])
    np.testing.assert_allclose(LANE.supply(densities), [1800, 1800, 1800, 900, 0])
    np.testing.assert_allclose(LANE.flow(densities), [0, 900, 1800, 900, 0])


def test_lanes_scale_flow_and_density_but_no_speed():
    three = LANE.of_lanes(3)
    assert (three.capacity, three.critical_density, three.jam_density) == (5400, 90, 540)
    assert three.wave_speed == pytest.approx(LANE.wave_speed)
