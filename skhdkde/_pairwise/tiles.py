"""Tiles of squared distances, how wrong they can be, and mending what matters.

``|x|^2 + |y|^2 - 2 x.y`` cancels when ``|x - y|`` is small against ``|x|``. The error
of a tile is bounded, the reduction says in which rows that error would be felt,
and of those rows only the pairs that carry weight are computed again:

1. few such pairs: from the differences of the coordinates, as given, in float64;
2. many, in a float32 tile: the whole row by a float64 product, then again from 1;
3. many, in float64: the whole row from differences.

All of it is computed where the tile is. What there is one of for each query, as a bound
on an error, is on the host.
"""

import numpy as np

from skhdkde._pairwise.points import QueryBlock, TrainingPoints
from skhdkde._pairwise.reductions import Reduction
from skhdkde._utils.arrays import (
    beside,
    column,
    finite_or_zero,
    in_dtype_of,
    namespace,
    row_batches,
    to_host,
    widened,
)
from skhdkde._utils.typing import AnyTile, Device, FloatArray

# A pair from differences costs about 80 times its share of a float64 product, and 6
# times its share of a full row of differences.
FEW_IN_FLOAT32 = 0.01
# Error in nats that is allowed where the worst bounds may suffice in float32 too.
ROUGH = 0.01
FEW_IN_FLOAT64 = 0.15


class Tile:
    """Squared distances ``sq`` between some queries and the training points ``cols``.

    They are in scaled units, and infinite for pairs that are left out. ``nearest_sq`` are
    the smallest of each row, in float64, and ``weights`` those of the points. All are
    where the device has them.

    A tile that does not mend has ``doubtful`` instead: a mask of rows in which an error
    that is not in `error_bound` may be felt, or None.
    """

    sharp = False  # whether no tile needs mending
    # whether tiles are always float64, and whether torch can make them
    wide, by_torch = False, True

    mends, doubtful = True, None

    def __init__(self, queries: QueryBlock, points: TrainingPoints, cols, device: Device):
        self.queries, self.points, self.cols = queries, points, cols
        self.device, dtype = device, queries.dtype
        self._block = device.block(points, cols, dtype)
        self.weights = device.weights(points, cols, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            self.sq = device.product(queries.augmented, self._block)
        queries.exclude(self.sq, cols, np.inf)
        self.nearest_sq = smallest_by_row(self.sq)

    def transform(self, reduction: Reduction) -> None:
        """Turn squared distances, once mended, into what kernels take: here the same."""

    def suspect_pairs(self, reduction, sq, nearest_sq, delta) -> AnyTile:
        """Return which pairs of some rows may feel errors of their squared distances."""
        return reduction.suspect_pairs(sq, nearest_sq, delta)

    def put_rows(self, rows: AnyTile, sq: AnyTile) -> None:
        """Replace some rows of ``sq``, except for pairs that are left out."""
        if sq is not self.sq:
            self.sq[rows] = sq
        self.queries.exclude(self.sq, self.cols, np.inf)
        self.nearest_sq[rows] = smallest_by_row(self.sq[rows])

    def weight_sums(self) -> AnyTile:
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
        xp, rest = namespace(sq), 1.0 - shrinkage
        if shrinkage > 0.0:
            xp.multiply(self.sq, shrinkage, out=sq)
        else:  # without what is infinite
            sq[:] = 0.0
        outside = column(rest * self.queries.sq_norms, sq)
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

    def weighted_differences(self, slopes: AnyTile, allowed: AnyTile) -> AnyTile:
        """Return ``sum_j slopes_ij (y_j - x_i)``, shape (n_rows, n_features), float64.

        By a product with the centred points, except for the queries for which the error
        of that would be more than ``allowed``, of shape (n_rows,): these are ``doubtful``
        where a tile does not mend.
        """
        xp, queries = namespace(slopes), self.queries
        sums = _differences_by_product(slopes, queries.augmented, self._block)
        errors = xp.sqrt(queries.sq_norms) + self.points.largest_norm
        errors *= len(self._block) ** 0.5 * widened(slopes.sum(1))
        if self.points.sq_factor is not None:
            errors *= self.points.sq_factor.max()
        doubtful = ~(np.finfo(queries.dtype).eps * errors <= allowed)
        if self.mends:
            self._mend_differences(sums, slopes, errors, allowed, doubtful)
        else:
            self.doubtful = doubtful
        return sums

    def _mend_differences(self, sums, slopes, errors, allowed, doubtful):
        """Replace the doubtful rows of weighted sums of differences."""
        rows = beside(np.flatnonzero(to_host(doubtful)), sums)
        wide = np.dtype(np.float64)
        if len(rows) and self.queries.dtype != wide:
            exact = self.queries.exact[rows]
            queries, total = self.points.query_block(exact, wide), 0.0
            n_points, n_columns = self._block.shape
            for cols in row_batches(n_points, n_columns, self.device.block_size):
                block = self.device.block(self.points, self._moved(cols), wide)
                own = widened(slopes[:, cols][rows])
                total = total + _differences_by_product(own, queries, block)
            sums[rows] = total
            blurred = ~(np.finfo(wide).eps * errors[rows] <= allowed[rows])
            rows = rows[beside(np.flatnonzero(to_host(blurred)), rows)]
        for i in rows:
            sums[i] = self._weighted_differences_of(widened(slopes[i]), i)

    def _weighted_differences_of(self, slopes, row):
        """Return the sum of one query from the differences themselves."""
        if self.points.sq_factor is not None:
            slopes = slopes * self.device.put(self.points.sq_factor[self.cols])
        some, x = _nonzero(slopes)[0], self.queries.exact[row]
        total = 0.0 * x
        for batch in row_batches(len(some), len(x), self.device.block_size):
            y = self.device.exact(self.points, self.cols.start + some[batch])
            total += slopes[some[batch]] @ (y - x)
        return total

    def _moved(self, batch):
        """Return the slice of all points for a slice of those of the tile."""
        return slice(batch.start + self.cols.start, batch.stop + self.cols.start)


def smallest_by_row(sq: AnyTile) -> AnyTile:
    """Return the smallest entry of each row, in float64."""
    if isinstance(sq, np.ndarray):
        return sq.min(axis=1).astype(np.float64, copy=False)
    return widened(sq.amin(1))


def _differences_by_product(slopes, queries, block):
    """Return ``sum_j slopes_ij (y_j - x_i)`` from products with augmented points."""
    totals = widened(slopes @ block)
    return totals[:, :-2] + 0.5 * totals[:, -1:] * queries[:, :-2]


class BareProducts:
    """Tiles as bare products, for reductions and queries that need no more."""

    def __init__(self, reduction, queries, points, device):
        self.reduction, self.queries, self.points = reduction, queries, points
        self.device = device
        self.lowest, self.operand, self.left_out = None, np.empty(0), np.inf
        self.exactly = False

    def update(self, state: tuple, cols: slice) -> tuple | None:
        """Return the state with a tile added, or None if that takes a full tile."""
        if not namespace(state[0]).isfinite(state[0]).all() or not self.prepare(state):
            return None
        state, out_of_range = self.reduction.update_from_product(
            state, *self.product(cols)
        )
        return self._with_full_rows(state, to_host(out_of_range).nonzero()[0], cols)

    def prepare(self, state: tuple, exactly: bool = False) -> bool:
        """Return whether products are enough; get ready for those by a state.

        With ``exactly`` the rate in a product is a power of two, which rounds nothing,
        and the first state will do for later ones. What is left of the rate is
        ``factor``, by which products are to be multiplied.
        """
        if self.points.sq_factor is not None:
            return False
        if self.lowest is not state[0] and not self.exactly:
            terms = self.reduction.product_terms(state[0])
            if terms is None:
                return False
            self.rate, self.reference, self.left_out = terms
            if exactly:
                if not np.isscalar(self.reference):
                    self.reference = finite_or_zero(self.reference)
                xp = np if np.isscalar(self.rate) else namespace(self.rate)
                self.factor = 2.0 * abs(xp.frexp(self.rate)[0])
                self.rate = self.rate / self.factor
            self.lowest, self.exactly = state[0], exactly
            self.operand = self.queries.relative(self.reference, self.rate)
        return True

    def product(self, cols: slice) -> tuple:
        """Return a product, what makes a buffer like it, and weights of its points."""
        device, dtype = self.device, self.queries.dtype
        product = device.product(self.operand, device.block(self.points, cols, dtype))
        self.queries.exclude(product, cols, self.left_out)
        weights = device.weights(self.points, cols, dtype)
        return product, lambda: device.scratch(product), weights

    def _with_full_rows(self, state, rows, cols):
        """Return the state with a tile added for rows that found a much nearer point."""
        if len(rows):
            tile = Tile(self.queries.subset(rows), self.points, cols, self.device)
            rows = beside(rows, state[0])
            update = self.reduction.update(tuple(array[rows] for array in state), tile)
            state = tuple(array * 1.0 for array in state)
            for array, new in zip(state, update, strict=True):
                array[rows] = new
        return state


def error_bound(
    query_sq, rounding, points, dtype, nearest_sq=0.0, reach_sq=np.inf, more_sq=0.0
):
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
    more_sq : float or ndarray of shape (n_rows,)
        Of which a rounding is to be added to those of a product of augmented rows.
    """
    if points.sq_factor is not None:  # those are no distances: the worst
        nearest_sq, reach_sq = 0.0, np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.minimum(np.sqrt(query_sq) + np.sqrt(reach_sq), points.largest_norm)
        size = query_sq + norm**2
        twice_inner = np.minimum(np.maximum(size - nearest_sq, reach_sq - size), size)
        eps, bias = np.finfo(dtype).eps, rounding.bias
        # of norms and last sums; norms in float64 are themselves sums in float64
        ends = 0.5 * bias + 4.0 if dtype == np.float32 else 3.5 * bias + 3.5
        walk = bias * rounding.walk
        delta = ends * size + walk * np.maximum(twice_inner, 0.0) + more_sq
        delta *= 0.5 * eps
        delta += np.maximum(2.0 * rounding.lost_sq - 0.3 * delta, 0.0)
    return points.scaled_error(delta, eps)


def always_sharp(queries: QueryBlock, points: TrainingPoints, reduction) -> bool:
    """Return whether no tile of these queries can need mending, by the worst bound."""
    sq_norms = queries.sq_norms_on_host
    nothing = np.zeros_like(sq_norms)
    # whatever rows have in common is mostly enough there
    if queries.dtype == np.float64 or getattr(reduction, "tol", 0.0) >= ROUGH:
        delta = error_bound(sq_norms, queries.worst_rounding, points, queries.dtype)
        if not reduction.suspect_rows(nothing, delta).any():
            return True
    delta = error_bound(sq_norms, queries.rounding, points, queries.dtype)
    return not reduction.suspect_rows(nothing, delta).any()


def mend(tile: Tile, reduction: Reduction, earlier_sq: FloatArray) -> None:
    """Recompute, in place, the squared distances of ``tile`` that are not sharp enough.

    ``earlier_sq`` are the smallest of each row in the tiles before this one. Those of
    this tile are not trusted before it is mended: they may be small by error alone.
    """
    queries, points, dtype = tile.queries, tile.points, tile.queries.dtype
    rows = np.arange(len(earlier_sq))
    done = False
    while len(rows) and not done:
        nearest_sq = np.minimum(earlier_sq[rows], to_host(tile.nearest_sq)[rows])
        delta = error_at(reduction, queries, points, rows, nearest_sq, dtype=dtype)
        flagged = reduction.suspect_rows(nearest_sq, delta)
        rows, delta, nearest_sq = rows[flagged], delta[flagged], nearest_sq[flagged]
        if not len(rows):
            return
        there = beside(rows, tile.sq)
        sq = tile.sq if len(rows) == len(tile.sq) else tile.sq[there]
        pairs = tile.suspect_pairs(reduction, sq, nearest_sq, delta)
        few = FEW_IN_FLOAT32 if dtype == np.float32 else FEW_IN_FLOAT64
        done = True
        if int(namespace(pairs).count_nonzero(pairs)) <= few * len(rows) * sq.shape[1]:
            _pairs_by_differences(tile, there, pairs, sq)
        elif dtype == np.float32:
            dtype, done = np.dtype(np.float64), False
            _rows_by_product(tile, there, sq)
        else:
            _rows_by_differences(tile, there, sq)
        tile.put_rows(there, sq)


def error_at(
    reduction,
    queries,
    points,
    rows,
    nearest_sq,
    *,
    rounding=None,
    dtype=None,
    more_sq=0.0,
):
    """Return what `error_bound` does for some of the queries, given their nearest points.

    ``rounding`` is that of all of them, and ``dtype`` the dtype in which distances are
    computed; by default what the queries have.
    """
    rounding = queries.rounding if rounding is None else rounding
    return error_bound(
        queries.sq_norms_on_host[rows],
        rounding.subset(rows),
        points,
        dtype or queries.dtype,
        nearest_sq,
        points.reach(reduction, nearest_sq),
        more_sq,
    )


def _pairs_by_differences(tile, rows, pairs, sq):
    """Replace ``pairs`` of ``sq``, which has the ``rows`` of a tile."""
    i, j = _nonzero(pairs)
    device, points = tile.device, tile.points
    for batch in row_batches(len(i), points.shape[1], device.block_size // 4):
        cols = tile.cols.start + j[batch]
        x = tile.queries.exact[rows[i[batch]]] - device.exact(points, cols)
        exact_sq = namespace(x).square(x, out=x).sum(1)
        exact_sq = points.scaled_sq(exact_sq, cols, device.keep)
        sq[i[batch], j[batch]] = in_dtype_of(sq, exact_sq)


def _nonzero(array):
    """Return the indices of what is not zero, an array for each axis."""
    if not isinstance(array, np.ndarray):
        return tuple(array.nonzero().T)
    found = np.flatnonzero(array)  # faster than for several axes
    return np.unravel_index(found, array.shape)


def _rows_by_product(tile, rows, sq):
    """Replace ``sq``, the ``rows`` of a tile, by products in float64."""
    wide, device = np.dtype(np.float64), tile.device
    queries = tile.points.query_block(tile.queries.exact[rows], wide)
    for batch in row_batches(sq.shape[1], queries.shape[1], device.block_size):
        block = device.block(tile.points, tile._moved(batch), wide)
        sq[:, batch] = queries @ block.T


def _rows_by_differences(tile, rows, sq):
    """Replace ``sq``, the ``rows`` of a tile, by sums of squared differences."""
    queries, points = tile.queries.exact[rows], tile.points
    for batch in row_batches(sq.shape[1], queries.shape[1], tile.device.block_size):
        cols = tile._moved(batch)
        exact_sq = tile.device.squared_distances(queries, points, cols)
        sq[:, batch] = points.scaled_sq(exact_sq, cols, tile.device.keep)
