"""Which sensors lie up- and downstream of which, and what their neighbours average."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

KINDS = 4
"""Kinds of neighbours: one hop upstream, one hop downstream, two hops upstream, two hops downstream."""


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


def _without(near: sparse.csr_array, reach: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array(reach - reach.multiply(near))


def _averaging(weights: sparse.csr_array) -> sparse.csr_array:
    total = weights.sum(axis=1)
    scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ weights).astype(np.float32)
