"""The forecasters that there are, the simplest first."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.costs import COSTS, Cost, affordable
from roadcast.forecasting.forecaster import NAIVE, Forecaster
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.profile import Profile

QUICK: tuple[Forecaster, ...] = (LastValue(), Profile(), GraphAutoregression())
"""Those that learn within seconds."""


class Added(NamedTuple):
    """A forecaster that is not ours, and what a forecast of it costs."""

    forecaster: Forecaster
    cost: Cost


def every_forecaster(seed: int = 0, added: Sequence[Added] = ()) -> tuple[Forecaster, ...]:
    """All of ours that work here, those that learn by chance with this seed; then those that are added."""
    net = GraphMlp(seed=seed)
    return (*QUICK, net, *_with_trees(net, seed), *(each.forecaster for each in added))


def candidates(sensors: int, interval_s: int, seed: int = 0, added: Sequence[Added] = ()) -> list[Forecaster]:
    """Those that may serve a network of so many sensors, but for the naive ones."""
    learned = [forecaster for forecaster in every_forecaster(seed, added) if forecaster.name not in NAIVE]
    costs = {**COSTS, **{each.forecaster.name: each.cost for each in added}}
    return affordable(learned, sensors, interval_s, costs)


def _with_trees(net: GraphMlp, seed: int) -> tuple[Forecaster, ...]:
    if why_no_trees():
        return ()
    trees = GradientBoosting(seed=seed)
    return (trees, Blend(net=net, trees=trees))


@cache
def why_no_trees() -> str:
    """Why boosted trees do not work here and what to do about it; empty where they do."""
    try:
        import lightgbm  # noqa: F401, PLC0415 # pyright: ignore[reportUnusedImport]
    except OSError as error:  # its wheel leaves out the OpenMP library, which slim systems lack
        return f"lightgbm cannot be loaded ({error}). Install libgomp1 (Debian: apt install libgomp1; macOS: libomp)."
    return ""
