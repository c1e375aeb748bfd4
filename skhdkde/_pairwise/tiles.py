"""Tiles of squared distances, how wrong they can be, and mending what matters.

``|x|^2 + |y|^2 - 2 x.y`` cancels when ``|x - y|`` is small against ``|x|``. The error
of a tile is bounded, the reduction says in which rows that error would be felt,
and of those rows only the pairs that carry weight are computed again:

1. few such pairs: from the differences of the coordinates, as given, in float64;
2. many, in a float32 tile: the whole row by a float64 product, then again from 1;
3. many, in float64: the whole row from differences.
"""

import numpy as np
from scipy.spatial.distance import cdist

from skhdkde._pairwise.points import (
    LONGEST_WALK,
    QueryBlock,
    TrainingPoints,
    worst_rounding,
)
from skhdkde._pairwise.reductions import Reduction
from skhdkde._utils.arrays import namespace, row_batches, to_host
from skhdkde._utils.typing import AnyTile, Device, FloatArray, IntArray

# A pair from differences costs about 80 times its share of a float64 product, and 6
# times its share of a full row of differences.
FEW_IN_FLOAT32 = 0.01
FEW_IN_FLOAT64 = 0.15


class Tile:
    """Squared distances ``sq`` between some queries and the training points ``cols``.

    They are in scaled units, and infinite for pairs that are left out. ``nearest_sq``, on
    the host, are the smallest of each row, and ``weights``, where the tile is, those of
    the points.
    """

    sharp = False  # whether no tile needs mending
    # whether tiles are always float64, and whether torch can make them
    wide, by_torch = False, True

    def __init__(self, queries: QueryBlock, points: TrainingPoints, cols, device: Device):
        self.queries, self.points, self.cols = queries, points, cols
        self.device, dtype = device, queries.dtype
        self._block = device.block(points, cols, dtype)
        self.weights = device.put(points.weight_block(cols, dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            self.sq = device.product(queries.augmented, self._block)
        queries.exclude(self.sq, cols, np.inf)
        nearest_sq = namespace(self.sq).amin(self.sq, 1)
        self.nearest_sq = to_host(nearest_sq).astype(np.float64)

    def transform(self, reduction: Reduction) -> None:
        """Turn squared distances, once mended, into what kernels take: here the same."""

    def rows(self, rows: IntArray) -> FloatArray:
        """Return some rows of ``sq``, copied to the host."""
        return to_host(self.sq[rows])

    def reach(self, reduction, rows, nearest_sq) -> FloatArray:
        """Return squared distances beyond which no pair of some rows matters."""
        return reduction.reach(nearest_sq)

    def suspect_pairs(self, reduction, rows, sq, nearest_sq, delta) -> np.ndarray:
        """Return which pairs of some rows may feel errors of their squared distances."""
        return reduction.suspect_pairs(sq, nearest_sq, delta)

    def put_rows(self, rows: IntArray, sq: FloatArray) -> None:
        """Replace some rows of ``sq``, except for pairs that are left out."""
        self.sq[rows] = self.device.put(sq)
        self.queries.exclude(self.sq, self.cols, np.inf)
        self.nearest_sq[rows] = self.rows(rows).min(axis=1)

    def weight_sums(self) -> FloatArray:
        """Return sums of weights and of their squares, by row, of all not left out."""
        weights = self.points.weight_block(self.cols, np.float64)
        return self.queries.weight_sums(weights, self.cols)

    def shrunk_sq(self, shrinkage: float) -> AnyTile:
        """Return ``|x - a y|^2`` for a shrinkage ``a``, scaled as ``sq``, in a buffer.

        ``|x - a y|^2 = a |x - y|^2 + (1 - a) (|x|^2 - a |y|^2)``: the product is shared.
        The buffer is that of :meth:`scratch`.
        """
        sq = self.scratch()
        if shrinkage == 1.0:
            sq[:] = self.sq
            return sq
        dtype, rest = self.queries.dtype, 1.0 - shrinkage
        xp = namespace(sq)
        if shrinkage > 0.0:
            xp.multiply(self.sq, shrinkage, out=sq)
        else:  # without what is infinite
            sq[:] = 0.0
        outside = self.device.put((rest * self.queries.sq_norms).astype(dtype)[:, None])
        sq += outside if self.points.sq_factor is None else outside * self._block[:, -1]
        sq -= self._block[:, -2] * (shrinkage * rest)
        xp.clip(sq, 0.0, None, out=sq)
        self.queries.exclude(sq, self.cols, np.inf)
        return sq

    def scaled_sq(self, sq: AnyTile, sq_factor, sq_offset) -> AnyTile:
        """Return ``sq_factor * sq + sq_offset``, in place, both of shape (n_points,)."""
        xp, dtype = namespace(sq), self.queries.dtype
        sq = xp.multiply(sq, self.device.put(sq_factor[self.cols].astype(dtype)), out=sq)
        return xp.add(sq, self.device.put(sq_offset[self.cols].astype(dtype)), out=sq)

    def scratch(self) -> AnyTile:
        """Return an uninitialised array like ``sq``."""
        return self.device.scratch(self.sq)

    def weighted_differences(self, slopes: AnyTile, allowed: FloatArray) -> FloatArray:
        """Return ``sum_j slopes_ij (y_j - x_i)``, shape (n_rows, n_features), float64.

        By a product with the centred points, except for the queries for which the error
        of that would be more than ``allowed``, of shape (n_rows,).
        """
        queries = self.queries.augmented
        sums = _differences_by_product(slopes, queries, self._block)
        slopes = to_host(slopes)
        errors = np.sqrt(self.queries.sq_norms) + self.points.largest_norm
        errors *= np.sqrt(len(self._block)) * slopes.sum(axis=1, dtype=np.float64)
        if self.points.sq_factor is not None:
            errors *= self.points.sq_factor.max()
        rows = np.flatnonzero(~(np.finfo(slopes.dtype).eps * errors <= allowed))
        if len(rows) and slopes.dtype == np.float32:
            wide = self.points.query_block(self.queries.exact[rows], np.float64)
            sums[rows] = 0.0
            for cols in row_batches(*self._block.shape):
                block = self.points.block(_moved(cols, self.cols.start), np.float64)
                sums[rows] += _differences_by_product(slopes[rows, cols], wide, block)
            fine = np.finfo(np.float64).eps * errors[rows] <= allowed[rows]
            rows = rows[~fine]
        for i in rows:
            sums[i] = self._weighted_differences_of(slopes[i], i)
        return sums

    def _weighted_differences_of(self, slopes, row):
        """Return the sum of one query from the differences themselves."""
        total = np.zeros(self.points.shape[1])
        cols = np.flatnonzero(slopes)
        if self.points.sq_factor is not None:
            slopes = slopes * self.points.sq_factor[self.cols]
        for batch in row_batches(len(cols), len(total)):
            y = self.points.exact[self.cols.start + cols[batch]].astype(np.float64)
            total += slopes[cols[batch]] @ (y - self.queries.exact[row])
        return total


def _differences_by_product(slopes, queries, block):
    """Return ``sum_j slopes_ij (y_j - x_i)`` from products with augmented points."""
    totals = to_host(slopes @ block).astype(np.float64, copy=False)
    return totals[:, :-2] + 0.5 * totals[:, -1:] * queries[:, :-2]


class BareProducts:
    """Tiles as bare products, for reductions and queries that need no more."""

    def __init__(self, reduction, queries, points, device):
        self.reduction, self.queries, self.points = reduction, queries, points
        self.device = device
        self.lowest, self.operand, self.left_out = None, np.empty(0), np.inf

    def update(self, state: tuple, cols: slice) -> tuple | None:
        """Return the state with a tile added, or None if that takes a full tile."""
        if self.points.sq_factor is not None or not np.isfinite(state[0]).all():
            return None
        if self.lowest is not state[0]:
            terms = self.reduction.product_terms(state[0])
            if terms is None:
                return None
            rate, reference = terms
            self.lowest, self.left_out = state[0], np.copysign(np.inf, -np.max(rate))
            self.operand = self.queries.relative(reference, rate)
        device, dtype = self.device, self.operand.dtype
        product = device.product(self.operand, device.block(self.points, cols, dtype))
        self.queries.exclude(product, cols, self.left_out)
        weights = device.put(self.points.weight_block(cols, dtype))
        state, out_of_range = self.reduction.update_from_product(
            state, product, lambda: device.scratch(product), weights
        )
        return self._with_full_rows(state, out_of_range, cols)

    def _with_full_rows(self, state, rows, cols):
        """Return the state with a tile added for rows that found a much nearer point."""
        if len(rows):
            tile = Tile(self.queries.subset(rows), self.points, cols, self.device)
            update = self.reduction.update(tuple(array[rows] for array in state), tile)
            state = tuple(array.copy() for array in state)
            for array, new in zip(state, update, strict=True):
                array[rows] = new
        return state


def error_bound(query_sq, rounding, points, dtype, nearest_sq=0.0, reach_sq=np.inf):
    """Return a bound on the error of a row's squared distances, where they matter.

    Rounding errors of an inner product accumulate like a random walk along its
    terms (Higham and Mary, 2019, A new approach to probabilistic rounding error
    analysis), which matters if the terms have one sign, as for ``y`` near ``x``, and is
    cut short where the BLAS starts a new block. The constants are those that bound the
    errors of random, positive, clustered, sparse, repeated, heavy-tailed and tiny entries
    from 1 to 10,000 features; the tests check them.

    Parameters
    ----------
    query_sq : ndarray of shape (n_rows,)
        ``|x|^2``.
    rounding : RowRounding
        Of the queries.
    points : TrainingPoints
    dtype : dtype
        In which the distances are computed.
    nearest_sq, reach_sq : ndarray of shape (n_rows,)
        Squared distances of the nearest point, and beyond which none matters; by
        default the worst. A ``y`` that matters is within reach of ``x``.
    """
    if points.sq_factor is not None:  # those are no distances: the worst
        nearest_sq, reach_sq = 0.0, np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.minimum(np.sqrt(query_sq) + np.sqrt(reach_sq), points.largest_norm)
        size = query_sq + norm**2
        twice_inner = np.minimum(np.maximum(size - nearest_sq, reach_sq - size), size)
        walk = np.sqrt(min(points.shape[1], LONGEST_WALK))
        eps, bias = np.finfo(dtype).eps, rounding.bias
        # of norms and last sums; norms in float64 are themselves sums in float64
        ends = 0.5 * bias + 4.0 if dtype == np.float32 else 3.5 * bias + 3.5
        delta = (
            0.5 * eps * (ends * size + 0.8 * bias * walk * np.maximum(twice_inner, 0.0))
        )
        delta += np.maximum(2.0 * rounding.lost_sq - 0.3 * delta, 0.0)
    return points.scaled_error(delta, eps)


def always_sharp(queries: QueryBlock, points: TrainingPoints, reduction) -> bool:
    """Return whether no tile of these queries can need mending, by the worst bound."""
    nothing = np.zeros_like(queries.sq_norms)
    # whatever rows have in common: in float64 that is mostly enough
    worst = worst_rounding(points.shape[1], queries.sq_norms, queries.dtype)
    delta = error_bound(queries.sq_norms, worst, points, queries.dtype)
    if not reduction.suspect_rows(nothing, delta).any():
        return True
    delta = error_bound(queries.sq_norms, queries.rounding, points, queries.dtype)
    return not reduction.suspect_rows(nothing, delta).any()


def mend(tile: Tile, reduction: Reduction, earlier_sq: FloatArray) -> None:
    """Recompute, in place, the squared distances of ``tile`` that are not sharp enough.

    ``earlier_sq`` are the smallest of each row in the tiles before this one. Those of
    this tile are not trusted before it is mended: they may be small by error alone.
    """
    queries, dtype = tile.queries, tile.queries.dtype
    rows = np.arange(len(earlier_sq))
    done = False
    while len(rows) and not done:
        nearest_sq = np.minimum(earlier_sq[rows], tile.nearest_sq[rows])
        reach_sq = tile.reach(reduction, rows, nearest_sq)
        query_sq, rounding = queries.sq_norms[rows], queries.rounding.subset(rows)
        delta = error_bound(query_sq, rounding, tile.points, dtype, nearest_sq, reach_sq)
        flagged = reduction.suspect_rows(nearest_sq, delta)
        rows, delta, nearest_sq = rows[flagged], delta[flagged], nearest_sq[flagged]
        if not len(rows):
            return
        sq = tile.rows(rows)
        pairs = tile.suspect_pairs(reduction, rows, sq, nearest_sq, delta)
        few = FEW_IN_FLOAT32 if dtype == np.float32 else FEW_IN_FLOAT64
        done = True
        if np.count_nonzero(pairs) <= few * pairs.size:
            _pairs_by_differences(tile, rows, pairs, sq)
        elif dtype == np.float32:
            dtype, done = np.dtype(np.float64), False
            _rows_by_product(tile, rows, sq)
        else:
            _rows_by_differences(tile, rows, sq)
        tile.put_rows(rows, sq)


def _pairs_by_differences(tile, rows, pairs, sq):
    """Replace ``pairs`` of ``sq``, which has the ``rows`` of a tile."""
    i, j = np.nonzero(pairs)
    exact = tile.points.exact
    for batch in row_batches(len(i), exact.shape[1]):
        x = tile.queries.exact[rows[i[batch]]] - exact[tile.cols.start + j[batch]]
        exact_sq = np.square(x, out=x).sum(axis=1)
        cols = tile.cols.start + j[batch]
        sq[i[batch], j[batch]] = tile.points.scaled_sq(exact_sq, cols)


def _rows_by_product(tile, rows, sq):
    """Replace ``sq``, the ``rows`` of a tile, by products in float64."""
    queries = tile.points.query_block(tile.queries.exact[rows], np.dtype(np.float64))
    for batch in row_batches(sq.shape[1], queries.shape[1]):
        block = tile.points.block(_moved(batch, tile.cols.start), np.dtype(np.float64))
        sq[:, batch] = queries @ block.T


def _rows_by_differences(tile, rows, sq):
    """Replace ``sq``, the ``rows`` of a tile, by sums of squared differences."""
    queries = tile.queries.exact[rows]
    for batch in row_batches(sq.shape[1], queries.shape[1]):
        cols = _moved(batch, tile.cols.start)
        exact_sq = cdist(queries, tile.points.exact[cols], "sqeuclidean")
        sq[:, batch] = tile.points.scaled_sq(exact_sq, cols)


def _moved(batch, start):
    """Return the slice of all points for a slice of a tile that begins at ``start``."""
    return slice(batch.start + start, batch.stop + start)
