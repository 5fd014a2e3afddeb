"""What a forecast is made of: parts that add up to it, in the words of someone who knows the road."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.forecaster import Fitted
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.profile import FittedProfile, Profile
from roadcast.forecasting.similar_days import SimilarDay


class Terms(NamedTuple):
    """What a forecast is put together from, in the target's unit; NaN is unknown, and adds nothing.

    typical_day: what is typical of the sensor at the target time; deviation_now: what is left by then of its present
    deviation from that; last_value: stands in for both where nothing is typical; neighbours: the forecast, less the
    one that the same forecaster makes where every other sensor is as is typical of it.
    """

    typical_day: float
    deviation_now: float
    last_value: float
    neighbours: float


@dataclass(frozen=True, slots=True)
class Explained:
    """What a forecaster's forecasts for one sensor are made of, before their calibration.

    terms: of each horizon; median: [H] its own, by which an issue can be told to be its work.
    """

    model: str
    version: str
    terms: Sequence[Terms]
    median: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one forecast is made of, and the past days that were most like its own, the nearest first.

    model, version: what explains it; doubt: why the terms are not of what was served; empty where they are.
    """

    model: str
    version: str
    terms: Terms
    doubt: str
    days: Sequence[SimilarDay]


def explain(
    fitted: Fitted, profiles: Mapping[str, FittedProfile], state: History, target: str, sensor: int
) -> tuple[Sequence[Terms], NDArray[np.float32]]:
    """The terms of a sensor's forecasts at each horizon, and their medians [H].

    profiles: what is typical of each variable; of one that has none, the other sensors tell nothing.
    """
    state = state.last(STATE_TICKS)
    made = fitted.forecast(state)
    alone = fitted.forecast(told_of_one(state, profiles, sensor))
    profile = profiles.get(target) or Profile().fit(state.until(0), Graph(), target, made.median.shape[1])
    expected, typical = profile.forecast(state).median[sensor], profile.deviations(state)[1][sensor]
    last_value = np.where(np.isnan(typical), expected, np.nan)
    columns = (typical, expected - typical, last_value, made.point[sensor] - alone.point[sensor])
    return [Terms(*row) for row in np.stack(columns, axis=1).tolist()], made.median[sensor]


def told_of_one(state: History, profiles: Mapping[str, FittedProfile], sensor: int) -> History:
    """The state in which every other sensor is as is typical of it; missing where nothing is."""
    values = np.full_like(state.values, np.nan)
    for i, variable in enumerate(state.variables):
        if variable in profiles:
            values[:, :, i] = profiles[variable].typical.at(state.calendar(), state.sensors)
    values[:, sensor] = state.values[:, sensor]
    return replace(state, values=values)


def add_up(terms: Terms, total: float, decimals: int) -> dict[str, float | None]:
    """Terms by name, rounded, and the `rest` that makes them add up to a `total` that is rounded alike.

    The rest is what the forecaster itself adds, and its calibration.
    """
    rounded = {name: None if isnan(term) else _round(term, decimals) for name, term in terms._asdict().items()}
    return {**rounded, "rest": _round(total - sum(term or 0 for term in rounded.values()), decimals)}


def _round(value: float, decimals: int) -> float:
    return round(value, decimals) + 0.0  # never −0
