"""A small multi-layer perceptron with quantile heads, in plain numpy."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.examples import Examples

BLOCK = 8_192
"""Rows that are forecast at once: what they need fits the cache."""
WARM_UP = 0.05
"""The share of the steps over which the rate rises, before it falls like a cosine."""
MOMENTUM, SQUARES = 0.9, 0.999
"""How much of Adam's running means of gradients and of their squares each step keeps."""
AVERAGE = 0.999
"""How much of the running mean of the weights, which is what is learnt, each step keeps."""
LEAST_BATCH = 32
EPSILON = np.float32(1e-8)


@dataclass(frozen=True, slots=True)
class Perceptron:
    """Layers with rectifiers between them. matrices: [in, out] each; biases: [out] each."""

    matrices: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The outputs [N, out] of rows [N, in]."""
        outputs = np.empty((len(rows), len(self.biases[-1])), np.float32)
        for first in range(0, len(rows), BLOCK):
            outputs[first : first + BLOCK] = self.layers(rows[first : first + BLOCK])[-1]
        return outputs

    def layers(
        self, rows: NDArray[np.float32], dropout: float = 0, random: np.random.Generator | None = None
    ) -> list[NDArray[np.float32]]:
        """What enters each layer, a share `dropout` of the hidden values put to 0, and what leaves the last."""
        entering = [rows]
        for matrix, bias in zip(self.matrices[:-1], self.biases[:-1], strict=True):
            hidden = entering[-1] @ matrix
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
            if random is not None and dropout:
                hidden *= (random.random(hidden.shape, np.float32) >= dropout) / np.float32(1 - dropout)
            entering.append(hidden)
        return [*entering, entering[-1] @ self.matrices[-1] + self.biases[-1]]

    def standardised(self, mean: NDArray[np.float32], spread: NDArray[np.float32]) -> "Perceptron":
        """The same for rows that have not been standardised by `mean` and `spread` [in]."""
        first = self.matrices[0] / spread[:, None]
        bias = (self.biases[0] - mean @ first).astype(np.float32)
        return Perceptron((first, *self.matrices[1:]), (bias, *self.biases[1:]))


@dataclass(frozen=True, slots=True)
class Training:
    """How a perceptron learns.

    hidden: widths of the hidden layers; epochs: how often each example is seen; batch: examples of a step, fewer where
    there would be less than `steps` steps; rate: of the steps at most; decay: of the matrices in units of the rate;
    dropout: share of the hidden values put to 0.
    """

    hidden: tuple[int, ...] = (192, 192, 192, 192)
    epochs: float = 3
    batch: int = 1_024
    steps: int = 100
    rate: float = 4e-3
    decay: float = 1.0
    dropout: float = 0.1

    def learn(
        self,
        examples: Examples,
        probabilities: tuple[float, ...],
        start: NDArray[np.float32],
        seed: int | tuple[int, ...],
    ) -> Perceptron:
        """A perceptron whose outputs [H × Q] are the targets' quantiles at `probabilities`.

        They start at about `start` [H, Q], where they stay if there are no examples.
        """
        random = np.random.default_rng(seed)
        features, outputs = examples.rows.shape[1], start.size
        net = _initial((features, *self.hidden, outputs), start, random)
        if not len(examples):
            net.matrices[-1].fill(0)
        optimiser = _Optimiser(net, self.decay)
        seen = self.epochs * len(examples)
        batch = int(np.clip(seen / self.steps, LEAST_BATCH, self.batch))
        steps = int(np.ceil(seen / batch))
        for step, rows in enumerate(_batches(len(examples), batch, steps, random), start=1):
            gradients = pinball_gradient(net, examples.at(rows), probabilities, self.dropout, random)
            optimiser.step(gradients, self._rate(step, steps), step)
        return optimiser.averaged()

    def _rate(self, step: int, steps: int) -> float:
        share = step / steps
        return self.rate * min(1.0, share / WARM_UP) * 0.5 * (1 + np.cos(np.pi * share))


def pinball_gradient(
    net: Perceptron,
    examples: Examples,
    probabilities: tuple[float, ...],
    dropout: float,
    random: np.random.Generator,
) -> list[NDArray[np.float32]]:
    """The gradient of the mean pinball loss by each matrix, then by each bias; of a thinned net where there is dropout.

    The mean is over all rows, horizons and quantiles, weighted by row; targets not observed cost nothing.
    """
    entering = net.layers(examples.rows, dropout, random)
    delta = _slopes(entering.pop(), examples, probabilities)
    by_matrix: list[NDArray[np.float32]] = []
    by_bias: list[NDArray[np.float32]] = []
    for values, matrix in zip(reversed(entering), reversed(net.matrices), strict=True):
        by_matrix.append(values.T @ delta)
        by_bias.append(delta.sum(axis=0))
        delta = (delta @ matrix.T) * (values > 0) / np.float32(1 - dropout)
    return [*reversed(by_matrix), *reversed(by_bias)]


def _slopes(outputs: NDArray[np.float32], examples: Examples, probabilities: tuple[float, ...]) -> NDArray[np.float32]:
    """The gradient of the mean pinball loss by the outputs [N, H × Q]."""
    error = examples.targets[:, :, None] - outputs.reshape(*examples.targets.shape, len(probabilities))
    wanted = np.array(probabilities, np.float32)
    slopes = np.where(error > 0, -wanted, 1 - wanted)
    slopes[np.isnan(error)] = 0
    slopes *= examples.weights[:, None, None] / error.size
    return slopes.reshape(outputs.shape)


def _initial(sizes: tuple[int, ...], start: NDArray[np.float32], random: np.random.Generator) -> Perceptron:
    """Random matrices, the last one small, so that the first outputs are about `start`."""
    matrices = [
        random.normal(0, np.sqrt(2 / entering), (entering, leaving)).astype(np.float32)
        for entering, leaving in pairwise(sizes)
    ]
    matrices[-1] *= np.float32(0.1)
    biases = [np.zeros(leaving, np.float32) for leaving in sizes[1:-1]]
    return Perceptron(tuple(matrices), (*biases, start.astype(np.float32).ravel()))


def _batches(rows: int, size: int, steps: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`steps` batches; each row once in every round."""
    size = min(size, rows)
    order, first = random.permutation(rows), 0
    for _ in range(steps):
        if first + size > rows:
            order, first = random.permutation(rows), 0
        yield order[first : first + size]
        first += size


class _Optimiser:
    """Adam with decaying matrices, in place, and the running mean of all weights."""

    def __init__(self, net: Perceptron, decay: float) -> None:
        self._layers = len(net.matrices)
        self._decay = decay
        self._weights = [*net.matrices, *net.biases]
        self._moments, self._squares = ([np.zeros_like(weight) for weight in self._weights] for _ in range(2))
        self._averages = [weight.copy() for weight in self._weights]

    def step(self, gradients: list[NDArray[np.float32]], rate: float, count: int) -> None:
        """The step number `count`, from 1 on."""
        unbiased = np.float32(rate * np.sqrt(1 - SQUARES**count) / (1 - MOMENTUM**count))
        shrunk = np.float32(1 - rate * self._decay)
        heard = np.float32(1 - min(AVERAGE, (1 + count) / (10 + count)))
        for i, gradient in enumerate(gradients):
            weight, moment, square, average = self._weights[i], self._moments[i], self._squares[i], self._averages[i]
            moment += np.float32(1 - MOMENTUM) * (gradient - moment)
            square += np.float32(1 - SQUARES) * (gradient * gradient - square)
            weight -= unbiased * moment / (np.sqrt(square) + EPSILON)
            if i < self._layers:
                weight *= shrunk
            average += heard * (weight - average)

    def averaged(self) -> Perceptron:
        return Perceptron(tuple(self._averages[: self._layers]), tuple(self._averages[self._layers :]))
