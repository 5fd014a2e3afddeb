"""What forecasters cost to run, so that none is chosen that could not keep up with the readings."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from roadcast.domain.forecast import LONGEST_MINUTES
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.history import TARGETS

BUDGET_SHARE = 0.1
"""A network's forecasts may take this share of an interval: the rest is for slower processors and for catching up."""


class Cost(NamedTuple):
    """Of one forecast, in CPU-microseconds: for each sensor, and for each horizon of each sensor."""

    sensor_us: float
    horizon_us: float

    def seconds(self, sensors: int, horizons: int) -> float:
        """Of a whole network."""
        return sensors * (self.sensor_us + horizons * self.horizon_us) / 1_000_000


COSTS: Mapping[str, Cost] = {
    "last_value": Cost(0.1, 0.01),
    "profile": Cost(0.5, 0.02),
    "graph_autoregression": Cost(1.0, 0.03),
    "graph_mlp": Cost(10.0, 0.1),
    "gradient_boosting": Cost(7.0, 3.0),
    "blend": Cost(17.0, 3.5),
}
"""As `benchmarks/forecast_cost.py` measures them, features included, with 12 and with 24 horizons."""


def affordable(
    forecasters: Sequence[Forecaster], sensors: int, interval_s: int, costs: Mapping[str, Cost] = COSTS
) -> list[Forecaster]:
    """Those that forecast a network in their share of an interval: every target, as far ahead as can be asked for.

    costs: of each, by its name. The cheapest is always among them.
    """
    horizons = LONGEST_MINUTES * 60 // interval_s
    took = [costs[each.name].seconds(sensors, horizons) * len(TARGETS) for each in forecasters]
    most = max(BUDGET_SHARE * interval_s, min(took, default=0))
    return [each for each, seconds in zip(forecasters, took, strict=True) if seconds <= most]
