"""The weights of the blend, against closed forms, and the trees, against a process whose best forecast is known."""

import numpy as np
import pytest

from roadcast.forecasting.blend import LEAST_DAYS, Blend, least_squares_weights
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.forecaster import MEDIAN
from roadcast.forecasting.forecasters import why_no_trees
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import History
from roadcast.forecasting.perceptron import Training

pytestmark = pytest.mark.skipif(bool(why_no_trees()), reason=f"needs lightgbm: {why_no_trees()}")
DAY = 288
CHEAP = Blend(
    net=GraphMlp(training=Training(hidden=(16,), epochs=2)), trees=GradientBoosting(cases=50_000, trees=40, leaves=15)
)
CHAIN = Graph(np.arange(9), np.arange(1, 10), np.ones(9, np.float32))


def test_weights_are_inverse_to_the_variance_of_independent_errors() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(50, 10, (200, 100, 3)).astype(np.float32)
    one = truth + random.normal(0, [1, 2, 3], truth.shape)
    other = truth + random.normal(0, [1, 1, 1], truth.shape)
    truth[::5] = np.nan
    weights = least_squares_weights(one.astype(np.float32), other.astype(np.float32), truth)
    np.testing.assert_allclose(weights, [1 / 2, 4 / 5, 9 / 10], atol=0.02)


def test_weights_stay_between_none_and_all() -> None:
    """Errors of the same sign: all to the better one, even where more would be better still."""
    truth = np.zeros((4, 3, 2), np.float32)
    one, other = truth + np.array([1, 5], np.float32), truth + np.array([5, 1], np.float32)
    assert least_squares_weights(one, other, truth).tolist() == [0, 1]


def test_weights_of_forecasts_that_agree_and_of_truths_that_never_came() -> None:
    same = np.ones((4, 3, 2), np.float32)
    assert least_squares_weights(same, same, same).tolist() == [0, 0]
    assert least_squares_weights(same, 2 * same, np.full_like(same, np.nan)).tolist() == [0, 0]


def travelling_with_jams(days: int) -> History:
    """Deviations that travel down a chain, one sensor per tick; half of them are lost where they are above 3."""
    random = np.random.default_rng(2)
    entering = random.normal(0, 4, days * DAY + 10)
    deviation = np.stack([entering[10 - s : len(entering) - s] for s in range(10)], axis=1)
    of_day = np.arange(days * DAY) % DAY / DAY
    speed = (50 + 15 * np.cos(4 * np.pi * of_day))[:, None] + np.where(deviation > 3, deviation / 2, deviation)
    return History(speed[:, :, None].astype(np.float32), ("speed",), 1_331_553_600_000, 300_000, "UTC")


def test_trees_hear_what_comes_from_upstream() -> None:
    """What arrives one tick ahead is one hop upstream now; where it is not linked the spread of what enters is left.

    Where no links are known they are learnt.
    """
    history = travelling_with_jams(10)
    issues = range(9 * DAY, 10 * DAY - 2, 3)
    truth = np.stack([history.of("speed")[known].T for known in issues])[:, 1:]
    errors = []
    for graph in (CHAIN, Graph(), Graph(np.array([8]), np.array([9]), np.ones(1, np.float32))):
        fitted = CHEAP.trees.fit(history.until(9 * DAY), graph, "speed", 2)
        median = np.stack([fitted.forecast(history.until(known)).median for known in issues])[:, 1:, 0]
        errors.append(np.sqrt(np.mean(np.square(median - truth))))
    assert errors[0] < 1.5
    assert errors[1] < 1.5
    assert errors[2] > 2.5


def test_blend_lies_between_its_parts_by_its_weights_and_the_tails_are_the_net_s() -> None:
    history = travelling_with_jams(5)
    fitted = CHEAP.fit(history, CHAIN, "speed", 3)
    net, trees, blend = (part.forecast(history) for part in (fitted.net, fitted.trees, fitted))
    expected = net.median + fitted.weights * (trees.median - net.median)
    np.testing.assert_allclose(blend.median, expected, atol=1e-3)
    assert net.quantiles is not None
    assert blend.quantiles is not None
    drawn = net.quantiles + (blend.median - net.median)[..., None] * [0.1, 0.2, 0.5, 1, 0.5, 0.2, 0.1]
    for low in range(MEDIAN):
        np.testing.assert_allclose(blend.quantiles[..., low], drawn[..., low : MEDIAN + 1].min(axis=-1), atol=1e-3)
        high = 2 * MEDIAN - low
        np.testing.assert_allclose(blend.quantiles[..., high], drawn[..., MEDIAN : high + 1].max(axis=-1), atol=1e-3)
    np.testing.assert_array_equal(blend.quantiles[..., MEDIAN], blend.median)
    assert ((fitted.weights >= 0) & (fitted.weights <= 1)).all()
    assert fitted.weights.any()


@pytest.mark.parametrize(("ticks", "alone"), [(LEAST_DAYS * DAY - 1, True), (LEAST_DAYS * DAY + 60, False)])
def test_the_net_serves_alone_while_days_are_few(ticks: int, *, alone: bool) -> None:
    history = travelling_with_jams(3).until(ticks)
    fitted = CHEAP.fit(history, CHAIN, "speed", 2)
    assert (not fitted.weights.any()) == alone


def test_the_last_part_of_the_history_decides_the_weights() -> None:
    """Noise in the place of the last fifth changes the weights; the future of the history cannot."""
    history = travelling_with_jams(5)
    known = history.until(4 * DAY)
    weights = CHEAP.fit(known, CHAIN, "speed", 2).weights
    values = history.values.copy()
    values[4 * DAY :] = np.random.default_rng(3).normal(50, 30, values[4 * DAY :].shape)
    noisy = History(values, history.variables, history.end_ms, history.interval_ms, history.timezone)
    np.testing.assert_array_equal(CHEAP.fit(noisy.until(4 * DAY), CHAIN, "speed", 2).weights, weights)
    assert (CHEAP.fit(noisy, CHAIN, "speed", 2).weights != weights).any()
