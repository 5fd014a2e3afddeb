"""Boosted trees that forecast the deviation to come, one model for all sensors and horizons."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.examples import Examples, sample
from roadcast.forecasting.features import View, learn_view
from roadcast.forecasting.forecaster import Forecast
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.parts import Parts, from_parts, to_parts

if TYPE_CHECKING:
    import lightgbm  # at run time only where it is used: not every system can load it

BINNED_CASES = 50_000
"""From so many the limits between the bins of each feature are taken."""
LEAST_CASES = 1_000
"""With fewer there is nothing to be learnt."""


@dataclass(frozen=True, slots=True)
class GradientBoosting:
    """The median by least absolute errors, with the horizon as a feature. The same seed gives the same trees.

    cases: so many pairs of a row and a horizon at most are learnt from; rate: of learning; least_leaf: cases of a leaf.
    """

    name: str = "gradient_boosting"
    seed: int = 0
    cases: int = 300_000
    trees: int = 60
    leaves: int = 255
    rate: float = 0.1
    least_leaf: int = 100

    def fit(self, history: History, graph: Graph, target: str, horizons: int) -> "FittedBoosting":
        """With too little history to learn from, it forecasts the decaying deviation."""
        view, scene, deviations = learn_view(history, graph, target, horizons)
        random = np.random.default_rng(self.seed)
        examples = sample(view, scene, deviations, random)
        row, horizon = np.nonzero(~np.isnan(examples.targets))
        if len(row) < LEAST_CASES:
            return FittedBoosting(view, "")
        some = random.permutation(len(row))[: self.cases]
        return FittedBoosting(view, self._trees(view, examples, row[some], horizon[some]).model_to_string())

    def restore(self, parts: Parts) -> "FittedBoosting":
        """What gave these parts."""
        return from_parts(FittedBoosting, parts)

    def _trees(
        self, view: View, examples: Examples, row: NDArray[np.int64], horizon: NDArray[np.int64]
    ) -> "lightgbm.Booster":
        import lightgbm  # noqa: PLC0415

        cases = view.cases(examples.rows, examples.decayed, row, horizon)
        data = lightgbm.Dataset(cases, examples.targets[row, horizon], weight=examples.weights[row])
        settings = {
            "objective": "regression_l1",
            "num_leaves": self.leaves,
            "learning_rate": self.rate,
            "min_data_in_leaf": self.least_leaf,
            "bin_construct_sample_cnt": BINNED_CASES,
            "seed": self.seed,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        return lightgbm.train(settings, data, self.trees)  # pyright: ignore[reportUnknownMemberType]


@dataclass(slots=True)
class FittedBoosting:
    """model: LightGBM's text, from `View.cases` to deviations around the decayed ones; empty if it learnt nothing."""

    view: View
    model: str
    _booster: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._booster = _booster(self.model) if self.model else None

    def forecast(self, state: History) -> Forecast:
        """The last value where nothing is typical yet."""
        scene, features = self.view.now(state)
        decayed = self.view.decayed(scene, np.array([STATE_TICKS - 1]))[0]
        deviations = self._deviations(features, decayed)[:, :, None]
        median = self.view.expected(state, scene, deviations, np.zeros((decayed.shape[1], 1), np.float32))
        return Forecast(median[:, :, 0])

    def _deviations(self, features: NDArray[np.float32], decayed: NDArray[np.float32]) -> NDArray[np.float32]:
        """[S, H] from the decayed ones."""
        if self._booster is None or not features.size:
            return np.zeros_like(decayed)
        sensor, horizon = (index.ravel() for index in np.indices(decayed.shape))
        cases = self.view.cases(features, decayed, sensor, horizon)
        predicted: Any = self._booster.predict(cases, num_threads=1)  # pyright: ignore[reportUnknownMemberType]
        return np.asarray(predicted, np.float32).reshape(decayed.shape)

    def parts(self) -> Parts:
        """All that it has learnt."""
        return to_parts(self)


def _booster(model: str) -> "lightgbm.Booster":
    import lightgbm  # noqa: PLC0415

    return lightgbm.Booster(model_str=model)
