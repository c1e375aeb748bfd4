"""Points with a matrix each: distances in a metric that is the point's own.

The squared distance to point ``j`` is ``|R_j (x - c_j)|^2``. It is made of the difference
of the coordinates, by one product of ``R_j`` with the differences to all queries of a
tile: its error is relative to the pair's own distance, and nothing needs mending. Blocks
of points are so small that their differences stay in the cache.
"""

from __future__ import annotations

import functools
from typing import Any, Self

import numpy as np

from skhdkde._pairwise.points import SMALL_BLOCK_SIZE, QueryBlock, TrainingPoints
from skhdkde._pairwise.tiles import Tile
from skhdkde._utils.arrays import slices
from skhdkde._utils.typing import Device, FloatArray, IntArray, Rows


class MatrixTile(Tile):
    """Squared distances ``sq`` to points with matrices, float64, made when asked for."""

    sharp, wide, by_torch = True, True, False
    points: MatrixPoints

    def __init__(self, queries: QueryBlock, points: MatrixPoints, cols, device: Device):
        self.queries, self.points, self.cols = queries, points, cols
        self.device: Any = device
        self.weights = points.weight_block(cols, np.float64)

    @property
    def sq(self) -> FloatArray:
        """Squared distances, infinite for pairs that are left out."""
        return self._distances[0]

    @property
    def nearest_sq(self) -> FloatArray:
        """The smallest of each row."""
        return self._distances[1]

    @functools.cached_property
    def _distances(self):
        """``sq``, and ``nearest_sq`` as they were before anything overwrote ``sq``."""
        sq = np.empty((len(self.queries.exact), self.cols.stop - self.cols.start))
        for block, place in self._blocks():
            sq[:, place] = _squares(self._whitened(self.points.exact, block)).T
        sq = self.scaled_sq(sq, self.points.sq_factor, self.points.sq_offset)
        self.queries.exclude(sq, self.cols, np.inf)
        return sq, sq.min(axis=1)

    def shrunk_sq(self, shrinkage: float) -> FloatArray:
        """Return squared distances to ``m_j + a (c_j - m_j)``, scaled as ``sq``.

        With ``u = R_j (x - m_j)`` and ``v = R_j (c_j - m_j)`` they are ``|u|^2 - 2 a u.v
        + a^2 |v|^2``: what depends on the pair serves all ``a``.
        """
        if shrinkage == 1.0:
            sq = self.scratch()
            sq[:] = self.sq
            return sq
        about, inner, own = self._about_means
        sq = self.scratch()
        np.multiply(inner, -2.0 * shrinkage, out=sq)
        sq += about
        sq += shrinkage**2 * own
        np.clip(sq, 0.0, None, out=sq)
        sq = self.scaled_sq(sq, self.points.sq_factor, self.points.sq_offset)
        self.queries.exclude(sq, self.cols, np.inf)
        return sq

    @functools.cached_property
    def _about_means(self):
        """``|u|^2`` and ``u.v``, (n_rows, n_points), and ``|v|^2``, (n_points,)."""
        points, shape = self.points, (len(self.queries.exact), len(self.weights))
        about, inner, own = np.empty(shape), np.empty(shape), np.empty(shape[1])
        for block, place in self._blocks():
            u = self._whitened(points.means, block)
            apart = (points.exact[block] - points.means[block])[:, :, None]
            v = np.matmul(points.roots[block], apart)
            inner[:, place] = np.matmul(v.transpose(0, 2, 1), u)[:, 0].T
            about[:, place] = _squares(u).T
            own[place] = _squares(v)[:, 0]
        return about, inner, own

    def scratch(self) -> FloatArray:
        """Return an uninitialised array in the shape of ``sq``."""
        return np.empty((len(self.queries.exact), len(self.weights)))

    def weighted_differences(self, slopes: FloatArray, allowed: FloatArray) -> FloatArray:
        """Return ``sum_j slopes_ij R_j' R_j (c_j - x_i)``, (n_rows, n_features).

        It is made of differences, whatever error is ``allowed``.
        """
        points, n_features = self.points, self.points.shape[1]
        slopes = slopes.T * points.sq_factor[self.cols, None]
        sums = np.zeros((n_features, slopes.shape[1]))
        for block, place in self._blocks():
            own = slopes[place]
            if own.any():
                steps = self._whitened(points.exact, block) * own[:, None, :]
                root = points.roots[block].reshape(-1, n_features)
                sums -= root.T @ steps.reshape(-1, sums.shape[1])
        return sums.T

    def _blocks(self):
        """Yield blocks of points, and their place in the tile."""
        size = max(self.queries.exact.size, 1)
        for block in slices(
            self.cols.stop, max(1, SMALL_BLOCK_SIZE // size), self.cols.start
        ):
            yield (
                block,
                slice(block.start - self.cols.start, block.stop - self.cols.start),
            )

    @functools.cached_property
    def _by_feature(self):
        return np.ascontiguousarray(self.queries.exact.T)

    def _whitened(self, origins, block):
        """Return ``R_j (x - o_j)`` for origins, (n_points, n_features, n_rows)."""
        differences = self._by_feature - origins[block, :, None]
        return np.matmul(self.points.roots[block], differences)


def _squares(vectors):
    """Return sums of squares over the middle axis."""
    return np.einsum("jki,jki->ji", vectors, vectors)


class MatrixPoints(TrainingPoints):
    """Training points with a matrix each, ``R_j``.

    Pairs are visited by numpy in float64, whatever the backend.

    Parameters
    ----------
    centers, means : ndarray of shape (n_points, n_features), float64
        ``c_j``, and ``m_j`` that they may be shrunk towards; in the units of `whitening`.
    roots : ndarray of shape (n_points, n_features, n_features), float64
        They are not copied.
    dtype : dtype
        Of the data, which results are in.
    weights, whitening, sq_factor, sq_offset, scale
        See :class:`TrainingPoints`. ``sq_factor`` must be given.

    Attributes
    ----------
    exact, means : ndarray of shape (n_points, n_features)
        ``c_j`` and ``m_j`` in scaled units.
    """

    tile_class = MatrixTile
    sq_factor: FloatArray
    sq_offset: FloatArray

    def __init__(self, centers, means, roots, dtype, weights=None, **options):
        self._dtype = np.dtype(dtype)
        super().__init__(centers, weights, **options)
        self.roots, self.means = roots, means * self.scale

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the data."""
        return self._dtype

    def subset(self, rows: Rows, weights: FloatArray | None = None) -> Self:
        """Return some of the points, in the same units."""
        subset = super().subset(rows, weights)
        subset.roots, subset.means = self.roots[rows], self.means[rows]
        return subset

    def stretched(self, rows: IntArray, steps: FloatArray) -> FloatArray:
        """Return ``R_j^-1 s`` for steps from some of the points, one a row.

        A step from a kernel of unit covariance becomes one of the point's.
        """
        found = np.empty_like(steps)
        size = max(1, SMALL_BLOCK_SIZE // self.shape[1] ** 2)
        for batch in slices(len(steps), size):
            roots = self.roots[rows[batch]]
            found[batch] = np.linalg.solve(roots, steps[batch, :, None])[:, :, 0]
        return found
