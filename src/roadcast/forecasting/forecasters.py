"""The forecasters that there are, the simplest first."""

from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.last_value import LastValue
from roadcast.forecasting.profile import Profile

QUICK: tuple[Forecaster, ...] = (LastValue(), Profile(), GraphAutoregression())
"""Those that learn within seconds."""


def every_forecaster(seed: int = 0) -> tuple[Forecaster, ...]:
    """All of ours; those that learn by chance with this seed."""
    net, trees = GraphMlp(seed=seed), GradientBoosting(seed=seed)
    return (*QUICK, net, trees, Blend(net=net, trees=trees))
