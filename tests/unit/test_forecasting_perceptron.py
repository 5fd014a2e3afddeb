"""The net, against finite differences, linear programming and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linprog

from roadcast.forecasting.examples import Examples
from roadcast.forecasting.metrics import pinball
from roadcast.forecasting.perceptron import Perceptron, Training, pinball_gradient

PROBABILITIES = (0.1, 0.5, 0.9)


def examples_of(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> Examples:
    weights = np.ones(len(rows), rows.dtype) if weights is None else weights
    return Examples(rows, np.zeros_like(targets), targets, weights)


def net_of(sizes: tuple[int, ...], random: np.random.Generator) -> Perceptron:
    """In float64, so that differences are exact enough."""
    layers = list(pairwise(sizes))
    return Perceptron(
        tuple(random.normal(0, 1, layer) for layer in layers), tuple(random.normal(0, 1, out) for _, out in layers)
    )


def loss(net: Perceptron, examples: Examples) -> float:
    """The weighted mean pinball loss, by the measure that scores forecasts."""
    outputs = net.layers(examples.rows)[-1].reshape(*examples.targets.shape, len(PROBABILITIES))
    total = 0.0
    for row, weight in enumerate(examples.weights):
        for horizon, target in enumerate(examples.targets[row]):
            for quantile, probability in zip(outputs[row, horizon], PROBABILITIES, strict=True):
                cost = pinball(np.array([quantile]), np.array([target]), probability)
                total += weight * (0 if np.isnan(cost) else cost)
    return total / outputs.size


def test_gradient_is_that_of_finite_differences() -> None:
    random = np.random.default_rng(1)
    net = net_of((4, 5, 3, 2 * len(PROBABILITIES)), random)
    targets = random.normal(0, 2, (6, 2))
    targets[1, 0] = np.nan
    examples = examples_of(random.normal(0, 1, (6, 4)), targets, random.uniform(0.5, 2, 6))
    gradients = pinball_gradient(net, examples, PROBABILITIES, 0, random)
    step = 1e-6
    for weight, gradient in zip([*net.matrices, *net.biases], gradients, strict=True):
        for place in np.ndindex(weight.shape):
            kept = weight[place]
            weight[place] = kept + step
            above = loss(net, examples)
            weight[place] = kept - step
            below = loss(net, examples)
            weight[place] = kept
            assert gradient[place] == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_dropout_leaves_the_gradient_as_it_is_on_average() -> None:
    """Of the last layer of a net with one hidden layer: there the loss is that of a line, far from its kinks."""
    random = np.random.default_rng(2)
    net = net_of((3, 6, len(PROBABILITIES)), random)
    examples = examples_of(random.normal(0, 1, (4, 3)), np.full((4, 1), 1e3))
    full = pinball_gradient(net, examples, PROBABILITIES, 0, random)[1]
    thinned = [pinball_gradient(net, examples, PROBABILITIES, 0.3, random)[1] for _ in range(4_000)]
    np.testing.assert_allclose(np.mean(thinned, axis=0), full, atol=0.05 * np.abs(full).max())
    assert np.std(thinned, axis=0).max() > 0


def test_a_single_layer_learns_what_linear_programming_finds() -> None:
    """Quantile regression of skewed noise whose spread grows: the least loss is known exactly."""
    random = np.random.default_rng(3)
    rows = random.normal(0, 1, (400, 2)).astype(np.float32)
    noise = random.exponential(1, 400) * (1.5 + np.tanh(rows[:, 0]))
    targets = (rows @ [1.0, -2.0] + noise).astype(np.float32)[:, None]
    examples = examples_of(rows, targets)
    training = Training(hidden=(), epochs=400, batch=100, rate=0.05, decay=0, dropout=0)
    net = training.learn(examples, PROBABILITIES, np.zeros((1, len(PROBABILITIES)), np.float32), 0)
    outputs = net(rows)
    for i, probability in enumerate(PROBABILITIES):
        learnt = pinball(outputs[:, i], targets[:, 0], probability)
        assert learnt == pytest.approx(least_pinball(rows, targets[:, 0], probability), rel=0.01)


def least_pinball(rows: np.ndarray, targets: np.ndarray, probability: float) -> float:
    """min Σ p⋅over + (1 − p)⋅under over lines, with over and under ≥ 0: a linear programme."""
    count, width = rows.shape
    cost = np.concatenate([np.zeros(width + 1), np.full(count, probability), np.full(count, 1 - probability)])
    equal = np.hstack([rows, np.ones((count, 1)), np.eye(count), -np.eye(count)])
    free = [(None, None)] * (width + 1) + [(0, None)] * (2 * count)
    return linprog(cost, A_eq=equal, b_eq=targets, bounds=free).fun / count


def test_what_rows_do_not_tell_comes_out_as_quantiles() -> None:
    random = np.random.default_rng(4)
    targets = random.normal(3, 2, (20_000, 1)).astype(np.float32)
    examples = examples_of(np.zeros((20_000, 2), np.float32), targets)
    net = Training(hidden=(8,), epochs=20, rate=0.1, dropout=0).learn(
        examples, PROBABILITIES, np.zeros((1, len(PROBABILITIES)), np.float32), 0
    )
    np.testing.assert_allclose(net(np.zeros((1, 2), np.float32))[0], np.quantile(targets, PROBABILITIES), atol=0.1)


def test_without_examples_it_stays_where_it_starts() -> None:
    start = np.array([[1, 2, 3]], np.float32)
    net = Training().learn(
        examples_of(np.empty((0, 4), np.float32), np.empty((0, 1), np.float32)), PROBABILITIES, start, 0
    )
    np.testing.assert_allclose(net(np.full((2, 4), 50, np.float32)), np.repeat(start, 2, axis=0), atol=1e-6)


def test_standardising_can_be_folded_in() -> None:
    random = np.random.default_rng(5)
    net = net_of((3, 4, 2), random)
    mean, spread = random.normal(0, 5, 3), random.uniform(0.1, 9, 3)
    rows = random.normal(0, 5, (7, 3))
    np.testing.assert_allclose(net.standardised(mean, spread)(rows), net((rows - mean) / spread), rtol=1e-4, atol=1e-5)


def test_many_rows_are_forecast_as_few_are() -> None:
    random = np.random.default_rng(6)
    net = net_of((3, 4, 2), random)
    rows = random.normal(0, 1, (20_000, 3))
    np.testing.assert_allclose(net(rows)[[0, 9_000, 19_999]], net(rows[[0, 9_000, 19_999]]), rtol=1e-5)


def test_the_seed_decides() -> None:
    random = np.random.default_rng(7)
    examples = examples_of(random.normal(0, 1, (3_000, 3)).astype(np.float32), np.ones((3_000, 1), np.float32))
    start = np.zeros((1, len(PROBABILITIES)), np.float32)
    one, again, other = (Training().learn(examples, PROBABILITIES, start, seed) for seed in (0, 0, 1))
    assert [part.tobytes() for part in one.matrices] == [part.tobytes() for part in again.matrices]
    assert one.matrices[0].tobytes() != other.matrices[0].tobytes()
