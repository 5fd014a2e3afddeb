"""What the learned forecasters learn from: features of past ticks, with gaps put in, and what followed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadcast.forecasting.features import Scene, View
from roadcast.forecasting.history import STATE_TICKS

MAX_ROWS = 400_000
"""More are drawn from at random."""
LEAST_TICKS = 500
"""So many ticks at least are drawn from, where there are so many, however many sensors there are."""
BLOCK_ROWS = 50_000
"""Features of about so many rows are made at once."""
GAPPED_SHARE = 0.25
"""The share of ticks that are seen with gaps put in."""
GAP_TICKS = (1, 3, 12, 96)
"""Lengths of the gaps."""
GAP_SHARE = 0.05
"""About what share of all readings gaps of each length hide."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What was seen and what followed, in units of each sensor's scale, which is in the weights.

    rows: [N, F] features; decayed: [N, H] deviations that would be left; targets: [N, H] how far deviations were from
    those, NaN where not observed; weights: [N].
    """

    rows: NDArray[np.float32]
    decayed: NDArray[np.float32]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: NDArray[np.integer]) -> "Examples":
        """Some of them."""
        return Examples(self.rows[rows], self.decayed[rows], self.targets[rows], self.weights[rows])


def sample(view: View, scene: Scene, deviations: NDArray[np.float32], random: np.random.Generator) -> Examples:
    """At most about MAX_ROWS examples from a history's scene and deviations, as `learn_view` gives them."""
    sensors = deviations.shape[1]
    ticks = np.arange(min(STATE_TICKS - 1, len(deviations)), len(deviations) - view.profile.horizons)
    most = max(LEAST_TICKS, MAX_ROWS // max(sensors, 1))
    ticks = ticks[:: max(1, -(-len(ticks) // most))]
    share = min(1.0, MAX_ROWS / max(len(ticks) * sensors, 1))
    gapped = random.random(len(ticks)) < GAPPED_SHARE
    hidden = view.scene(_with_gaps(deviations, random) * scene.scale, scene.typical, scene.when)
    parts = [
        _examples(view, seen, deviations, block, share, random)
        for seen, at in ((scene, ticks[~gapped]), (hidden, ticks[gapped]))
        for block in _blocks(at, sensors)
    ]
    return _joined(parts)


def _examples(
    view: View,
    scene: Scene,
    deviations: NDArray[np.float32],
    ticks: NDArray[np.int64],
    share: float,
    random: np.random.Generator,
) -> Examples:
    """Of a random share of all sensors at `ticks`, those of which something came true."""
    ahead = ticks[:, None] + np.arange(1, view.profile.horizons + 1)
    decayed = view.decayed(scene, ticks)
    targets = deviations[ahead].transpose(0, 2, 1) - decayed
    taken = ~np.isnan(targets).all(axis=2) & (random.random(targets.shape[:2]) < share)
    weights = np.broadcast_to(scene.scale / np.float32(view.mean_scale), taken.shape)
    return Examples(view.features(scene, ticks)[taken], decayed[taken], targets[taken], weights[taken])


def _blocks(ticks: NDArray[np.int64], sensors: int) -> Iterator[NDArray[np.int64]]:
    """Even without ticks there is one, so that there is a shape."""
    size = max(1, BLOCK_ROWS // max(sensors, 1))
    yield from (ticks[first : first + size] for first in range(0, max(len(ticks), 1), size))


def _joined(parts: list[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.decayed for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def _with_gaps(deviations: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """The same with readings hidden, as by failures that last a while."""
    gapped = deviations.copy()
    for length in GAP_TICKS:
        begun = (random.random(deviations.shape, np.float32) < GAP_SHARE / length).astype(np.int32).cumsum(axis=0)
        begun[length:] -= begun[:-length].copy()
        gapped[begun > 0] = np.nan
    return gapped
