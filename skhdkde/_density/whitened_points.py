"""Training points in the coordinates of one whitening.

All points are one component, or each goes with a component of a mixture. In whitened
coordinates every kernel is spherical. The density is the sum over the components.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._density.covariance import Membership
from skhdkde._density.whitening import LocalWhitened, Whitening
from skhdkde._pairwise import (
    KSmallest,
    Nearest,
    TrainingPoints,
    distinct_rows,
    indistinct_sq,
    reduce_pairs,
)

# Relative error of the distances that local scales are made of.
SCALE_TOL = 1e-4


@dataclass(frozen=True)
class WhitenedPoints(LocalWhitened):
    """The training points of one component, in whitened coordinates."""

    whitening: Whitening
    rows: np.ndarray  # which of the training points they are
    Z: np.ndarray  # (n_points, n_features), their coordinates, in the dtype of X
    weights: np.ndarray | None  # (n_points,), relative to the largest of all components
    # standard deviation of a coordinate that preserving the variance refers to
    spread: float
    # (n_points,), factors of the bandwidth, of root mean square 1
    local_scale: np.ndarray | None = None
    log_weights: np.ndarray | None = None
    membership: Membership | None = None  # in a mixture; None if all points belong

    def of_its_own(self, X):
        """Return the rows of X, in data units, that belong to this component."""
        return np.arange(len(X)) if self.membership is None else self.membership.of(X)

    def adapted(self, k, options):
        """Return the points with scales by the distance to the ``k``-th neighbour."""
        return dataclasses.replace(self, local_scale=self._local_scale(k, options))

    def _local_scale(self, k, options):
        k = min(k, len(self.Z) - 1)
        if k < 1:
            return np.ones(len(self.Z))
        points = TrainingPoints(self.Z)
        sq = _kth_neighbor_sq(points, k, options)
        # rows equal in X need not be equal to the last bit in whitened coordinates
        apart = sq > indistinct_sq(points.largest_norm, points.dtype)
        if not apart.any():
            return np.ones(len(self.Z))
        sq = np.maximum(sq, sq[apart].min())
        return np.sqrt(sq / np.average(sq, weights=self.weights))

    def precisions(self):
        """Return the diagonal of the precision matrix at ``h = 1``, (n_features,)."""
        linear = self.whitening.linear
        return linear**2 if linear.ndim == 1 else np.square(linear).sum(axis=1)

    def packed(self, X):
        """Return these without what X, the training points in data units, gives again.

        That is their coordinates, if they are those of X to the last bit.
        """
        same = X is not None and X.shape[1] == self.n_features
        if same and np.array_equal(whitened(self.whitening, X[self.rows]), self.Z):
            nothing: Any = None
            return dataclasses.replace(self, Z=nothing)
        return self

    def unpacked(self, X):
        """Return these from what `packed` returned."""
        if self.Z is not None:
            return self
        return dataclasses.replace(self, Z=whitened(self.whitening, X[self.rows]))

    def log_scales(self):
        """Return logs of what each point's density is multiplied by, (n_points,).

        These are the determinant of the whitening, the local scale and weights in logs,
        without the bandwidth.
        """
        logs = np.full(len(self.Z), self.whitening.log_det)
        if self.local_scale is not None:
            logs -= self.Z.shape[1] * np.log(self.local_scale)
        if self.log_weights is not None:
            logs += self.log_weights
        return logs

    def as_float32(self):
        """Return the points with coordinates rounded to float32."""
        return dataclasses.replace(self, Z=self.Z.astype(np.float32, copy=False))

    def points(self, shrinkage=1.0, scale=None, scaled_distance=(1.0, 0.0)):
        """Return the points ready for products.

        Parameters
        ----------
        shrinkage : float, default=1.0
            Factor of the coordinates.
        scale : float, default=None
            Of the points; None to find it.
        scaled_distance : tuple, default=(1.0, 0.0)
            What ``Kernel.scaled_distance`` returned, for points with local scales.
        """
        Z = self.Z
        if shrinkage != 1.0:
            Z = (shrinkage * Z).astype(Z.dtype, copy=False)
        sq_factor = sq_offset = None
        if self.scales_differ:
            own = 1.0 if self.local_scale is None else self.local_scale
            sq_factor = np.ones(len(Z)) * own**-2.0 * scaled_distance[0]
            sq_offset = np.zeros(len(Z)) + scaled_distance[1]
        return TrainingPoints(
            Z,
            self.weights,
            whitening=self.whitening,
            sq_factor=sq_factor,
            sq_offset=sq_offset,
            scale=scale,
        )


def whitened(whitening, X):
    """Return coordinates of points in a whitening, in their dtype."""
    return whitening.apply(X).astype(X.dtype, copy=False)


def _kth_neighbor_sq(points, k, options):
    """Return squared distances of points to their ``k``-th neighbour, in scaled units.

    Duplicates are neighbours at distance 0. Each distinct point is compared once to each
    other, and its neighbours count as often as they occur.
    """
    first, group = distinct_rows(points)
    if len(first) == len(group):
        queries = points.rows_as_queries(group)
        reduction = KSmallest(k, SCALE_TOL)
        return reduce_pairs(reduction, queries, points, options, leave_out=group)[:, -1]
    counts = np.bincount(group)
    sq, rows = np.zeros(len(first)), np.flatnonzero(counts <= k)
    if not len(rows):
        return sq[group]
    distinct = points.subset(first)
    n_neighbors = min(k, len(first) - 1)
    found = reduce_pairs(
        Nearest(n_neighbors, SCALE_TOL),
        distinct.rows_as_queries(rows),
        distinct,
        options,
        leave_out=rows,
    )
    ids = found[:, n_neighbors:].astype(int)
    # the first at which so many are reached, with a point's own duplicates
    reached = np.cumsum(counts[ids], axis=1) + (counts[rows] - 1)[:, None] >= k
    column = np.argmax(reached, axis=1)
    sq[rows] = found[np.arange(len(rows)), column]
    return sq[group]
