"""Tiles of squared distances by matrix products, reduced while in the cache."""

import copy
import functools
import threading
from itertools import pairwise

import numpy as np

from skhdkde._backends._precision import always_sharp, mend
from skhdkde._backends._threads import n_threads_for, run_tasks
from skhdkde._points import BLOCK_SIZE, rounding_bias, row_blocks

__all__ = ["reduce_pairs"]

# A tile of float32 is 2 MiB. Taller tiles repay the packing of the training block,
# wider ones the overhead of a numpy call; both must stay in the cache.
TILE_ROWS = 256
TILE_COLS = 2048
# Queries, in scaled units, beyond which squares are not finite in float32.
LARGEST_FLOAT32 = 1e15
# Bandwidths below which exponents are not.
SMALLEST_BANDWIDTH = 1e-15
# Relative to the largest; smaller ones, times a kernel value, underflow in float32.
SMALLEST_WEIGHT = 1e-20

_buffers = threading.local()


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
    leave_out : ndarray of shape (n_rows,) or None
        Index of the training point that each query does not see.
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
        """Operand whose product with the points is ``rate (reference - |x - y|^2)``."""
        rate = self.augmented.dtype.type(rate)
        operand = self.augmented * -rate
        operand[:, -1] = rate * (reference - self.sq_norms)
        return operand

    def excluded(self, cols):
        """Rows and columns, within the points ``cols``, of the pairs to leave out."""
        if self.leave_out is None:
            return [], []
        position = self.leave_out - cols.start
        rows = np.flatnonzero((position >= 0) & (position < cols.stop - cols.start))
        return rows, position[rows]


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

    def __init__(self, queries, points, cols):
        self.queries, self.points, self.cols = queries, points, cols
        dtype = queries.augmented.dtype
        shape = (len(queries.augmented), cols.stop - cols.start)
        self.sq = _buffer("sq", shape, dtype)
        self._block = points.block(cols, dtype)
        self.weights = points.weight_block(cols, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(queries.augmented, self._block.T, out=self.sq)
        self.exclude()
        self.nearest = self.sq.min(axis=1).astype(np.float64)

    def exclude(self):
        """Put the pairs to leave out at an infinite distance."""
        self.sq[self.queries.excluded(self.cols)] = np.inf

    def scratch(self):
        """An uninitialised array like ``sq``."""
        return _scratch(self.sq)

    def pull(self, slopes, allowed):
        """``sum_j slopes_ij (y_j - x_i)``, shape (n_rows, n_features), float64.

        By a product with the centred points, except for the queries for which the error
        of that would be more than ``allowed``, of shape (n_rows,).
        """
        pull = _pull_by_product(slopes, self.queries.augmented, self._block)
        errors = np.sqrt(self.queries.sq_norms) + self.points.largest_norm
        errors *= np.sqrt(len(self._block)) * slopes.sum(axis=1, dtype=np.float64)
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
        for part in row_blocks(len(cols), len(pull)):
            y = self.points.exact[self.cols.start + cols[part]].astype(np.float64)
            pull += slopes[cols[part]] @ (y - self.queries.exact[row])
        return pull


def _pull_by_product(slopes, queries, block):
    totals = (slopes @ block).astype(np.float64, copy=False)
    return totals[:, :-2] + 0.5 * totals[:, -1:] * queries[:, :-2]


def _visit(reduction, queries, points, cols, check):
    """State of ``reduction`` for a block of queries against the points ``cols``."""
    state = reduction.start(len(queries.exact))
    nearest = np.full(len(queries.exact), np.inf)
    sharp = always_sharp(queries, points, reduction)
    products = _Products(reduction, queries, points) if sharp else None
    for part in _tile_cols(cols, queries, points):
        check(len(queries.exact) * (part.stop - part.start))
        updated = products.update(state, part) if sharp else None
        if updated is None:
            tile = Tile(queries, points, part)
            if not sharp:
                mend(tile, reduction, nearest)
                np.minimum(nearest, tile.nearest, out=nearest)
            updated = reduction.update(state, tile)
        state = updated
    return state


def _tile_cols(cols, queries, points):
    step = TILE_COLS
    if queries.augmented.dtype != points.dtype:  # blocks are converted on the fly
        step = min(step, max(16, BLOCK_SIZE // points.shape[1]))
    for start in range(cols.start, cols.stop, step):
        yield slice(start, min(start + step, cols.stop))


class _Products:
    """Tiles as bare products, for reductions and queries that need no more."""

    def __init__(self, reduction, queries, points):
        self.reduction, self.queries, self.points = reduction, queries, points
        self.rate = getattr(reduction, "product_rate", None)
        self.lowest = self.operand = None

    def update(self, state, cols):
        """The state with a tile added, or None if that takes a full tile."""
        if self.rate is None or not np.isfinite(state[0]).all():
            return None
        if self.lowest is not state[0]:
            self.lowest = state[0]
            self.operand = self.queries.relative(state[0], self.rate)
        dtype = self.operand.dtype
        product = _buffer("sq", (len(self.operand), cols.stop - cols.start), dtype)
        np.matmul(self.operand, self.points.block(cols, dtype).T, out=product)
        product[self.queries.excluded(cols)] = -np.inf
        weights = self.points.weight_block(cols, dtype)
        state, out_of_range = self.reduction.update_from_product(
            state, product, lambda: _scratch(product), weights
        )
        return self._with_full_rows(state, out_of_range, cols)

    def _with_full_rows(self, state, rows, cols):
        """Add the tile for the ``rows`` that found a much nearer point in it."""
        if len(rows):
            tile = Tile(self.queries.take(rows), self.points, cols)
            update = self.reduction.update(tuple(part[rows] for part in state), tile)
            state = tuple(part.copy() for part in state)
            for part, new in zip(state, update, strict=True):
                part[rows] = new
        return state


def reduce_pairs(
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
    """See :func:`skhdkde._backends.reduce_pairs`."""
    if dtype is None:
        dtype = np.result_type(queries.dtype, points.dtype)
    tiny = reduction.smallest_bandwidth < SMALLEST_BANDWIDTH
    if tiny or points.smallest_weight < SMALLEST_WEIGHT:
        dtype = np.float64
    n_threads = n_threads_for(n_jobs)
    row_ranges, col_ranges = _split(len(queries), points.shape, n_threads)
    if out is None:
        out = np.empty((len(queries), reduction.width))

    def work(task, check):
        rows, cols = task
        left = None if leave_out is None else leave_out[rows]
        block = QueryBlock(queries[rows], points, left, np.dtype(dtype))
        state = _visit(reduction, block, points, cols, check)
        if len(col_ranges) > 1:
            return state
        out[rows] = reduction.finish(state)

    tasks = [(rows, cols) for rows in row_ranges for cols in col_ranges]
    with _progress_bar(len(queries) * points.shape[0], verbose, label) as progress:
        states = run_tasks(work, tasks, n_threads, progress)
    if len(col_ranges) > 1:
        for rows in row_ranges:
            parts, states = states[: len(col_ranges)], states[len(col_ranges) :]
            out[rows] = reduction.finish(functools.reduce(reduction.merge, parts))
    return out


def _split(n_queries, points_shape, n_threads):
    """Ranges of queries and of points, enough of them to keep every thread busy."""
    n_points, n_features = points_shape
    step = min(TILE_ROWS, max(1, BLOCK_SIZE // 2 // (n_features + 2)))
    rows = [slice(i, min(i + step, n_queries)) for i in range(0, n_queries, step)]
    n_parts = 1
    if n_threads > 1 and len(rows) < 4 * n_threads:
        n_tiles = -(-n_points // TILE_COLS)
        n_parts = min(n_tiles, -(-4 * n_threads // len(rows)))
    bounds = [n_points * p // n_parts for p in range(n_parts + 1)]
    return rows, [slice(a, b) for a, b in pairwise(bounds)]


def _buffer(name, shape, dtype):
    """A view of this thread's buffer ``name``, kept from tile to tile."""
    size = shape[0] * shape[1]
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.dtype != dtype or buffer.size < size:
        buffer = np.empty(size, dtype=dtype)
        setattr(_buffers, name, buffer)
    return buffer[:size].reshape(shape)


def _scratch(like):
    return _buffer("scratch", like.shape, like.dtype)


class _progress_bar:
    """Counts pairs: a tqdm bar if ``verbose``, else nothing."""

    def __init__(self, total, verbose, label):
        self.total, self.verbose, self.label = total, verbose, label
        self.lock = threading.Lock()

    def __enter__(self):
        if not self.verbose:
            return lambda amount: None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, desc=self.label, unit="pair", unit_scale=True)
        return self.advance

    def advance(self, amount):
        with self.lock:
            self.bar.update(amount)

    def __exit__(self, *exc_info):
        if self.verbose:
            self.bar.close()
