"""The cell transmission model against what kinematic-wave theory says by hand."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from roadcast.flow.fundamental import TriangularDiagram
from roadcast.flow.transmission import CAPACITY_DROP, STEP_H, Carriageway, Conditions, Field, Traffic, transmit

FREE_SPEED, CAPACITY, JAM_DENSITY, WAVE_SPEED = 60.0, 2000.0, 2000 / 60 + 160, 12.5
CELL_MI = 0.2
LANE = TriangularDiagram(np.full((50, 1), FREE_SPEED), CAPACITY, JAM_DENSITY)


def road(
    lanes: list[int] | None = None, exits: dict[int, float] | None = None, ramps: tuple[int, ...] = ()
) -> Carriageway:
    each = np.array(lanes or [2] * 50)
    exit_share = np.zeros((50, 1))
    for cell, share in (exits or {}).items():
        exit_share[cell] = share
    return Carriageway(
        "N", CELL_MI, each, LANE.of_lanes(each[:, np.newaxis]), exit_share,
        np.array([0, *ramps]), np.array([[np.inf], *[[1800.0]] * len(ramps)]),
    )  # fmt: skip


def steady(road: Carriageway, minutes: int, *demand: float) -> Conditions:
    shape = (minutes, 50, 1)
    return Conditions(
        np.full((minutes, len(demand), 1), np.array(demand)[:, np.newaxis], np.float32),
        np.ones(shape, np.float32),
        np.ones(shape, np.float32),
    )


def closed(conditions: Conditions, cell: int, start: int, end: int, share: float) -> Conditions:
    left = conditions.open_share.copy()
    left[start:end, cell] = share
    return replace(conditions, open_share=left)


def speed(field: Field) -> NDArray[np.float32]:
    return (field.flow / field.density)[:, :, 0]


def queue_tail(field: Field) -> NDArray[np.float64]:
    """Miles from the beginning to the tail of the queue, [minute]."""
    return np.argmax(speed(field) < 45, axis=1) * CELL_MI


def test_no_vehicle_is_lost_or_made():
    rng = np.random.default_rng(3)
    place = road([3] * 20 + [2] * 30, exits={10: 0.2, 30: 0.1}, ramps=(12, 33))
    traffic = Traffic(place, 4)
    came = gone = asked = np.zeros(4)
    for _ in range(3000):
        demand = rng.uniform(0, 1.4, (3, 4)) * [[5000], [900], [700]]
        share = np.where(rng.random((50, 4)) < 0.02, 0.3, 1.0)
        step = traffic.advance(demand, share, rng.uniform(0.8, 1.1, (50, 4)))
        left = step.outflow[-1] + (step.outflow * place.exit_share).sum(axis=0)
        came, gone, asked = (
            a + b * STEP_H for a, b in ((came, step.entering.sum(axis=0)), (gone, left), (asked, demand.sum(axis=0)))
        )
        assert traffic.density.min() > -1e-9
    np.testing.assert_allclose(traffic.density.sum(axis=0) * CELL_MI, came - gone, rtol=1e-9)
    np.testing.assert_allclose(traffic.waiting.sum(axis=0), asked - came, rtol=1e-9)
    assert gone.min() > 1000


def test_light_traffic_flows_at_free_speed_and_in_equilibrium():
    field = transmit(road(exits={20: 0.25}), steady(road(), 30, 2400.0))
    np.testing.assert_allclose(speed(field), FREE_SPEED, rtol=1e-5)
    np.testing.assert_allclose(field.flow[-1, :, 0], [2400] * 21 + [1800] * 29, rtol=1e-3)


def test_a_wave_of_demand_travels_at_free_speed():
    conditions = steady(road(), 40, 1200.0)
    conditions.demand[10:] = 2400
    arrived = np.argmax(transmit(road(), conditions).flow[:, :, 0] > 1800, axis=0)
    miles_per_minute = (40 - 5) * CELL_MI / (arrived[40] - arrived[5])
    assert miles_per_minute * 60 == pytest.approx(FREE_SPEED, rel=0.1)


def test_a_queue_grows_as_fast_as_the_shock_wave_of_theory():
    field = transmit(road(), closed(steady(road(), 60, 3000.0), 40, 5, 60, 0.4))
    discharge = 0.4 * 2 * CAPACITY * (1 - CAPACITY_DROP)
    queue_density = 2 * JAM_DENSITY - discharge / WAVE_SPEED
    shock = (discharge - 3000) / (queue_density - 3000 / FREE_SPEED)  # Rankine-Hugoniot, mph
    tail = queue_tail(field)
    assert (tail[50] - tail[20]) / 0.5 == pytest.approx(shock, rel=0.08)
    assert field.density[50, 35, 0] == pytest.approx(queue_density, rel=0.01)


def test_the_head_of_a_released_queue_recedes_at_the_wave_speed():
    conditions = closed(steady(road(), 70, 3600.0), 45, 5, 40, 0.25)
    recovering = transmit(road(), conditions).flow[40:, :, 0] > (900 + 3600) / 2
    released = np.argmax(recovering, axis=0)
    assert (44 - 30) * CELL_MI / ((released[30] - released[44]) / 60) == pytest.approx(WAVE_SPEED, rel=0.08)


def test_waves_stay_sharp_on_their_way_upstream():
    conditions = closed(steady(road(), 70, 3600.0), 45, 5, 40, 0.25)
    flow = transmit(road(), conditions).flow[40:, 25, 0]
    rising = np.flatnonzero((flow > 1100) & (flow < 3300))
    assert len(rising) <= 4  # minutes, four miles from where the closure ended


def test_a_queue_discharges_below_the_capacity_that_was_served_before():
    narrowing = road([3] * 25 + [2] * 25)
    conditions = steady(narrowing, 120, 3950.0)
    conditions.demand[30:40] = 5000
    flow = transmit(narrowing, conditions).flow[:, 24, 0]
    assert flow[25] == pytest.approx(3950, rel=0.01)
    np.testing.assert_allclose(flow[45:], 2 * CAPACITY * (1 - CAPACITY_DROP), rtol=0.01)


def test_a_ramp_and_the_road_share_a_full_merge():
    place = road(ramps=(25,))
    traffic = Traffic(place, 1)
    for _ in range(360):
        step = traffic.advance(np.array([[3600.0], [1500.0]]), np.ones((50, 1)), np.ones((50, 1)))
    assert step.outflow[25, 0] == pytest.approx(2 * CAPACITY * (1 - CAPACITY_DROP))
    assert step.outflow[24, 0] == pytest.approx(3 * step.entering[1, 0], rel=0.01)


def test_days_side_by_side_do_not_touch_each_other():
    rng = np.random.default_rng(8)
    together = Conditions(
        rng.uniform(1000, 4500, (60, 1, 3)).astype(np.float32),
        np.ones((60, 50, 3), np.float32),
        rng.uniform(0.7, 1.1, (60, 50, 3)).astype(np.float32),
    )
    alone = Conditions(*(part[:, :, 1:2] for part in (together.demand, together.open_share, together.pace)))
    np.testing.assert_array_equal(transmit(road(), together).flow[:, :, 1:2], transmit(road(), alone).flow)
