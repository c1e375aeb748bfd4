"""Tiles of squared distances by matrix products, reduced while in the cache.

The same loop for every device: ``_numpy.py`` and ``_torch.py`` say where tiles are, and
how large. Points and queries are prepared in numpy, where small arrays are kept.
"""

import copy
import functools
import threading
from itertools import pairwise

import numpy as np

from skhdkde._arrays import namespace, to_host
from skhdkde._backends._precision import always_sharp, mend
from skhdkde._backends._threads import n_threads_for, run_tasks
from skhdkde._points import BLOCK_SIZE, rounding_bias, row_blocks

__all__ = ["progress_bar", "split", "visit_pairs", "working_dtype"]

# Queries, in scaled units, beyond which squares are not finite in float32.
LARGEST_FLOAT32 = 1e15
# Bandwidths below which exponents are not.
SMALLEST_BANDWIDTH = 1e-15
# Relative to the largest; smaller ones, times a kernel value, underflow in float32.
SMALLEST_WEIGHT = 1e-20


class QueryBlock:
    """A block of queries, prepared once for all the tiles of its row.

    Attributes
    ----------
    exact : ndarray of shape (n_rows, n_features), float64
        Queries times the scale of the training points, to the last bit.
    augmented : ndarray of shape (n_rows, n_features + 2)
        ``(-2 x, 1, |x|^2)`` of the centred queries, in the dtype of the tile.
    sq_norms : ndarray of shape (n_rows,), float64
        ``|x|^2``.
    leave_out : ndarray of shape (n_rows,) or (n_rows, n_left_out), or None
        Indices of the training points that each query does not see; -1 for none.
    bias : float
        Of the points, or of a few of the queries, whichever is more.
    """

    def __init__(self, exact, points, leave_out, dtype):
        self.exact = exact
        if np.abs(exact).max() > LARGEST_FLOAT32:
            dtype = np.dtype(np.float64)
        self.augmented = points.query_block(exact, dtype)
        self.sq_norms = self.augmented[:, -1].astype(np.float64)
        self.leave_out = leave_out
        self.bias = max(points.bias, rounding_bias(self.augmented[:8, :-2]))

    def take(self, rows):
        """A block of some of the rows."""
        part = copy.copy(self)
        part.exact, part.augmented = self.exact[rows], self.augmented[rows]
        part.sq_norms = self.sq_norms[rows]
        part.leave_out = None if self.leave_out is None else self.leave_out[rows]
        return part

    def relative(self, reference, rate):
        """Operand whose product with the points is ``rate (reference - |x - y|^2)``.

        Both are numbers or of shape (n_rows,).
        """
        # rounded once, so that what cancels is in the same units
        rate = np.broadcast_to(rate, self.sq_norms.shape).astype(self.augmented.dtype)
        operand = self.augmented * -rate[:, None]
        operand[:, -1] = rate.astype(np.float64) * (reference - self.sq_norms)
        return operand

    def exclude(self, tile, cols, value):
        """Set the pairs to leave out, of the tile of points ``cols``, to ``value``."""
        rows, position = self._left_out(cols)
        if len(rows):
            tile[rows, position] = value

    def weight_sums(self, weights, cols):
        """Sums of the ``weights`` of ``cols`` and of their squares, for each query."""
        powers = np.column_stack([weights, weights**2])
        sums = np.tile(powers.sum(axis=0), (len(self.exact), 1))
        rows, position = self._left_out(cols)
        np.subtract.at(sums, rows, powers[position])
        return np.maximum(sums, 0.0)

    def _left_out(self, cols):
        """Rows that leave out one of ``cols``, and which."""
        if self.leave_out is None:
            return np.empty((2, 0), dtype=int)
        position = self.leave_out - cols.start
        found = np.nonzero((position >= 0) & (position < cols.stop - cols.start))
        return found[0], position[found]


class Tile:
    """Squared distances between some queries and some training points.

    Attributes
    ----------
    sq : ndarray of shape (n_rows, n_cols)
        Squared distances, infinite for pairs that are left out.
    nearest : ndarray of shape (n_rows,), float64
        Smallest of each row.
    weights : ndarray of shape (n_cols,)
    queries : QueryBlock
    points : TrainingPoints
        Of which the tile covers the slice ``cols``.
    """

    def __init__(self, queries, points, cols, device):
        self.queries, self.points, self.cols = queries, points, cols
        self.device, dtype = device, queries.augmented.dtype
        self._block = device.block(points, cols, dtype)
        self.weights = device.put(points.weight_block(cols, dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            self.sq = device.product(queries.augmented, self._block)
        queries.exclude(self.sq, cols, np.inf)
        self.nearest = self._smallest()

    def _smallest(self):
        nearest = namespace(self.sq).amin(self.sq, 1)
        return to_host(nearest).astype(np.float64)

    def rows(self, rows):
        """Some rows of ``sq``: a copy, on the host."""
        return to_host(self.sq[rows])

    def put_rows(self, rows, sq):
        """Replace some rows of ``sq``, except for pairs that are left out."""
        self.sq[rows] = self.device.put(sq)
        self.queries.exclude(self.sq, self.cols, np.inf)
        self.nearest[rows] = self.rows(rows).min(axis=1)

    def weight_sums(self):
        """Sums of the weights and of their squares, (n_rows, 2), of all not left out."""
        weights = self.points.weight_block(self.cols, np.float64)
        return self.queries.weight_sums(weights, self.cols)

    def pulled(self, pull):
        """``|x - pull y|^2`` in a new array, stretched as ``sq`` is.

        ``|x - a y|^2 = a |x - y|^2 + (1 - a) (|x|^2 - a |y|^2)``: the product is shared.
        """
        if pull == 1.0:
            return self.sq * 1.0
        factors = np.empty((len(self.nearest), 2), dtype=self.queries.augmented.dtype)
        factors[:, 0] = -pull * (1.0 - pull)
        factors[:, 1] = (1.0 - pull) * self.queries.sq_norms
        sq = self.device.put(factors) @ self._block[:, -2:].T
        if pull > 0.0:
            sq += self.sq * pull
            namespace(sq).clip(sq, 0.0, None, out=sq)
        self.queries.exclude(sq, self.cols, np.inf)
        return sq

    def discounted(self, sq, stretch, offset):
        """``stretch * sq + offset``, in place, both of shape (n_points,)."""
        for factor, name in ((stretch, "multiply"), (offset, "add")):
            part = self.device.put(factor[self.cols].astype(self.queries.augmented.dtype))
            sq = getattr(namespace(sq), name)(sq, part, out=sq)
        return sq

    def scratch(self):
        """An uninitialised array like ``sq``."""
        return self.device.scratch(self.sq)

    def pull(self, slopes, allowed):
        """``sum_j slopes_ij (y_j - x_i)``, shape (n_rows, n_features), float64.

        By a product with the centred points, except for the queries for which the error
        of that would be more than ``allowed``, of shape (n_rows,).
        """
        queries = self.queries.augmented
        pull = _pull_by_product(slopes, queries, self._block)
        slopes = to_host(slopes)
        errors = np.sqrt(self.queries.sq_norms) + self.points.largest_norm
        errors *= np.sqrt(len(self._block)) * slopes.sum(axis=1, dtype=np.float64)
        if self.points.stretch is not None:
            errors *= self.points.stretch.max()
        rows = np.flatnonzero(~(np.finfo(slopes.dtype).eps * errors <= allowed))
        if len(rows) and slopes.dtype == np.float32:
            wide = self.points.query_block(self.queries.exact[rows], np.float64)
            pull[rows] = 0.0
            for part in row_blocks(*self._block.shape):
                cols = slice(part.start + self.cols.start, part.stop + self.cols.start)
                block = self.points.block(cols, np.float64)
                pull[rows] += _pull_by_product(slopes[rows, part], wide, block)
            fine = np.finfo(np.float64).eps * errors[rows] <= allowed[rows]
            rows = rows[~fine]
        for i in rows:
            pull[i] = self._pull_by_differences(slopes[i], i)
        return pull

    def _pull_by_differences(self, slopes, row):
        pull = np.zeros(self.points.shape[1])
        cols = np.flatnonzero(slopes)
        if self.points.stretch is not None:
            slopes = slopes * self.points.stretch[self.cols]
        for part in row_blocks(len(cols), len(pull)):
            y = self.points.exact[self.cols.start + cols[part]].astype(np.float64)
            pull += slopes[cols[part]] @ (y - self.queries.exact[row])
        return pull


def _pull_by_product(slopes, queries, block):
    totals = to_host(slopes @ block).astype(np.float64, copy=False)
    return totals[:, :-2] + 0.5 * totals[:, -1:] * queries[:, :-2]


def _visit(reduction, queries, points, cols, device, check):
    """State of ``reduction`` for a block of queries against the points ``cols``."""
    state = reduction.start(len(queries.exact))
    nearest = np.full(len(queries.exact), np.inf)
    sharp = always_sharp(queries, points, reduction)
    products = _Products(reduction, queries, points, device) if sharp else None
    for part in _tile_cols(cols, queries, points, device):
        check(len(queries.exact) * (part.stop - part.start))
        updated = products.update(state, part) if sharp else None
        if updated is None:
            tile = Tile(queries, points, part, device)
            if not sharp:
                mend(tile, reduction, nearest)
                np.minimum(nearest, tile.nearest, out=nearest)
            updated = reduction.update(state, tile)
        state = updated
    return state


def _tile_cols(cols, queries, points, device):
    step = device.tile_cols
    converted = queries.augmented.dtype != points.dtype or points.stretch is not None
    if converted:  # block by block
        step = min(step, max(16, BLOCK_SIZE // points.shape[1]))
    for start in range(cols.start, cols.stop, step):
        yield slice(start, min(start + step, cols.stop))


class _Products:
    """Tiles as bare products, for reductions and queries that need no more."""

    def __init__(self, reduction, queries, points, device):
        self.reduction, self.queries, self.points = reduction, queries, points
        self.device = device
        self.terms = getattr(reduction, "product_terms", lambda lowest: None)
        self.lowest = self.operand = None

    def update(self, state, cols):
        """The state with a tile added, or None if that takes a full tile."""
        if self.points.stretch is not None or not np.isfinite(state[0]).all():
            return None
        if self.lowest is not state[0]:
            terms = self.terms(state[0])
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
        """Add the tile for the ``rows`` that found a much nearer point in it."""
        if len(rows):
            tile = Tile(self.queries.take(rows), self.points, cols, self.device)
            update = self.reduction.update(tuple(part[rows] for part in state), tile)
            state = tuple(part.copy() for part in state)
            for part, new in zip(state, update, strict=True):
                part[rows] = new
        return state


def visit_pairs(
    device,
    reduction,
    queries,
    points,
    *,
    leave_out=None,
    dtype=None,
    n_jobs=None,
    verbose=0,
    label=None,
    out=None,
):
    """:func:`skhdkde._backends.reduce_pairs` on a device."""
    dtype = working_dtype(reduction, queries, points, dtype)
    n_tasks = device.n_tasks(n_threads_for(n_jobs))
    row_ranges, col_ranges = split(len(queries), points.shape, n_tasks, device)
    if out is None:
        out = np.empty((len(queries), reduction.width))

    def work(task, check):
        rows, cols = task
        left = None if leave_out is None else leave_out[rows]
        block = QueryBlock(queries[rows], points, left, dtype)
        state = _visit(reduction, block, points, cols, device, check)
        if len(col_ranges) > 1:
            return state
        out[rows] = reduction.finish(state)

    tasks = [(rows, cols) for rows in row_ranges for cols in col_ranges]
    with progress_bar(len(queries) * points.shape[0], verbose, label) as progress:
        states = run_tasks(work, tasks, n_tasks, progress)
    if len(col_ranges) > 1:
        for rows in row_ranges:
            parts, states = states[: len(col_ranges)], states[len(col_ranges) :]
            out[rows] = reduction.finish(functools.reduce(reduction.merge, parts))
    return out


def working_dtype(reduction, queries, points, dtype):
    """``dtype``, or that of queries and points, unless float32 has not its range."""
    tiny = reduction.smallest_bandwidth < SMALLEST_BANDWIDTH
    if tiny or points.smallest_weight < SMALLEST_WEIGHT:
        dtype = np.float64
    return np.dtype(dtype or np.result_type(queries.dtype, points.dtype))


def split(n_queries, points_shape, n_threads, device):
    """Ranges of queries and of points, enough of them to keep every thread busy."""
    n_points, n_features = points_shape
    step = min(device.tile_rows, max(1, BLOCK_SIZE // 2 // (n_features + 2)))
    rows = [slice(i, min(i + step, n_queries)) for i in range(0, n_queries, step)]
    n_parts = 1
    if n_threads > 1 and len(rows) < 4 * n_threads:
        n_tiles = -(-n_points // device.tile_cols)
        n_parts = min(n_tiles, -(-4 * n_threads // len(rows)))
    bounds = [n_points * p // n_parts for p in range(n_parts + 1)]
    return rows, [slice(a, b) for a, b in pairwise(bounds)]


class progress_bar:
    """Counts pairs or other units: a tqdm bar if ``verbose``, else nothing."""

    def __init__(self, total, verbose, label, unit="pair"):
        self.total, self.verbose, self.label = total, verbose, label
        self.unit = unit
        self.lock = threading.Lock()

    def __enter__(self):
        if not self.verbose:
            return lambda amount: None
        from tqdm.auto import tqdm

        options = {"total": self.total, "unit": self.unit, "unit_scale": True}
        self.bar = tqdm(desc=self.label, **options)
        return self.advance

    def advance(self, amount):
        with self.lock:
            self.bar.update(amount)

    def __exit__(self, *exc_info):
        if self.verbose:
            self.bar.close()
