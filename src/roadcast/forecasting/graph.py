"""Which sensors lie up- and downstream of which, and what their neighbours average."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from roadcast.domain.sensor import Link

KINDS = 4
"""Kinds of neighbours: one hop upstream, one hop downstream, two hops upstream, two hops downstream."""
LINKS = 6
LEAST_CORRELATION = 0.3
"""Of learnt links: how many lead to a sensor at most, and how close they are at least."""
CORRELATED_TICKS = 2_000
CORRELATED_PAIRS = 20_000_000
"""So many ticks are correlated, and so many pairs of sensors at once."""
LEAST_LENGTH = 1e-3


def _no_sensors() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def _no_weights() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Graph:
    """Links [L]: traffic passes sensor `upstream[i]`, then `downstream[i]`; `weight` > 0 says how closely they go.

    A link of unknown direction is given both ways.
    """

    upstream: NDArray[np.int64] = field(default_factory=_no_sensors)
    downstream: NDArray[np.int64] = field(default_factory=_no_sensors)
    weight: NDArray[np.float32] = field(default_factory=_no_weights)

    @classmethod
    def of(cls, links: Iterable[Link], index: Mapping[str, int]) -> Self:
        """From links between sensors by their codes; those of sensors that are not in `index` are left out."""
        known = [link for link in links if link.from_sensor in index and link.to_sensor in index]
        return cls(
            np.array([index[link.from_sensor] for link in known], np.int64),
            np.array([index[link.to_sensor] for link in known], np.int64),
            np.array([link.weight or 1.0 for link in known], np.float32),
        )

    def neighbourhood(self, sensors: int) -> "Neighbourhood":
        """The neighbours of the first `sensors` sensors among each other."""
        inside = (self.upstream < sensors) & (self.downstream < sensors) & (self.upstream != self.downstream)
        links = (self.weight[inside], (self.downstream[inside], self.upstream[inside]))
        upstream = sparse.csr_array(links, shape=(sensors, sensors))
        downstream = sparse.csr_array(upstream.T)
        near = sparse.csr_array(upstream + downstream + sparse.eye_array(sensors)).astype(np.bool_)
        two_hops = [_without(near, sparse.csr_array(hop @ hop)) for hop in (upstream, downstream)]
        return Neighbourhood(sensors, tuple(_averaging(kind) for kind in (upstream, downstream, *two_hops)))


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """For each kind of neighbour a matrix [sensors, sensors] that averages over them."""

    sensors: int
    averaging: tuple[sparse.csr_array, ...]

    def means(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weighted mean of each sensor's neighbours [T, S, KINDS]; 0 where it has none of a kind.

        values: [T, S], none missing; sensors appended since the fit count as having no neighbours.
        """
        means = np.zeros((*values.shape, KINDS), np.float32)
        for kind, matrix in enumerate(self.averaging):
            means[:, : self.sensors, kind] = (matrix @ values[:, : self.sensors].T).T
        return means


def learn_links(deviations: NDArray[np.float32]) -> Graph:
    """Links where none are known: to each sensor from those whose deviations [T, S] best tell its own one tick later.

    Sparse: at most LINKS to each sensor, weighted by their correlation.
    """
    ticks = np.arange(0, len(deviations) - 1, max(1, len(deviations) // CORRELATED_TICKS))
    early, late = (_standardised(deviations[at]) for at in (ticks, ticks + 1))
    sensors = deviations.shape[1]
    size = max(1, CORRELATED_PAIRS // max(sensors, 1))
    blocks = [_leading(early, late, np.arange(first, min(first + size, sensors))) for first in range(0, sensors, size)]
    return Graph(*(np.concatenate(part) for part in zip(*blocks, strict=True))) if blocks else Graph()


def _leading(
    early: NDArray[np.float32], late: NDArray[np.float32], followers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Leaders, followers and correlations of the links to some sensors."""
    correlation = early.T @ late[:, followers]
    correlation[followers, np.arange(len(followers))] = 0
    best = np.argpartition(correlation, -min(LINKS, len(correlation)), axis=0)[-LINKS:]
    weight = np.take_along_axis(correlation, best, axis=0)
    close = weight >= LEAST_CORRELATION
    return best[close], np.broadcast_to(followers, best.shape)[close], weight[close]


def _standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each column less its mean, of length 1, missing values 0; all 0 where a column hardly changes."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - mean, 0)
    length = np.sqrt(np.square(centred).sum(axis=0))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > LEAST_LENGTH).astype(np.float32)


def _without(near: sparse.csr_array, reach: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array(reach - reach.multiply(near))


def _averaging(weights: sparse.csr_array) -> sparse.csr_array:
    total = weights.sum(axis=1)
    scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ weights).astype(np.float32)
