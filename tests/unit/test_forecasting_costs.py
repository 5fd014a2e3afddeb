"""Who can keep up with how large a network."""

from collections.abc import Sequence

import pytest

from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.costs import COSTS, Cost, affordable
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import QUICK, Added, candidates, every_forecaster
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.last_value import LastValue

ALL: Sequence[Forecaster] = (*QUICK, GraphMlp(), GradientBoosting(), Blend())
NET = [each.name for each in ALL[:4]]
NET_AND_TREES = [each.name for each in ALL]


def names(sensors: int, interval_s: int = 300, costs: dict[str, Cost] | None = None) -> list[str]:
    return [each.name for each in affordable(ALL, sensors, interval_s, costs or COSTS)]


@pytest.mark.parametrize(
    ("sensors", "interval_s", "expected"),
    [
        (0, 300, NET_AND_TREES),
        (5_000, 300, NET_AND_TREES),
        (200_000, 300, NET),
        (2_000, 60, NET_AND_TREES),
        (20_000, 60, NET),
        (200_000, 3600, NET_AND_TREES),
    ],
)
def test_the_net_alone_serves_where_trees_would_take_too_long(
    sensors: int, interval_s: int, expected: list[str]
) -> None:
    assert names(sensors, interval_s) == expected


def test_a_network_is_forecast_within_a_tenth_of_the_interval() -> None:
    """24 horizons of speed and volume: 2 × (17 + 24 × 3.5) µs = 202 µs of each sensor fit 148,514 times into 30 s."""
    assert "blend" in names(148_514)
    assert "blend" not in names(148_515)


def test_trees_of_one_model_for_each_horizon_would_serve_some_5000_sensors() -> None:
    """That is what the first experiments had: 1.3 s for one horizon of 10,000 sensors."""
    costs = {**COSTS, "blend": Cost(10, 130), "gradient_boosting": Cost(0, 130)}
    assert names(4_750, costs=costs) == NET_AND_TREES
    assert names(5_250, costs=costs) == NET


def test_what_is_added_is_a_candidate_where_it_can_keep_up() -> None:
    added = [Added(LastValue("quick"), Cost(0, 0.1)), Added(LastValue("slow"), Cost(0, 1_000))]
    found = {sensors: [each.name for each in candidates(sensors, 300, added=added)] for sensors in (100, 1_000)}
    assert found[100][-2:] == ["quick", "slow"]
    assert found[1_000][-1:] == ["quick"]
    assert [each.name for each in every_forecaster(added=added)][-2:] == ["quick", "slow"]


def test_somebody_always_serves() -> None:
    assert names(10**9) == ["last_value"]
    assert affordable([], 10, 300) == []


def test_the_cost_of_each_of_ours_is_known() -> None:
    assert {each.name for each in every_forecaster()} <= set(COSTS)
