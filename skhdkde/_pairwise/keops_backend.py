"""PyKeOps lazy tensors: the pairs are never stored, on a GPU or on the CPU.

A tile has to be reduced as it comes; here a formula may pass over all pairs more than
once. So each reduction gets its *final* state: first the nearest points, then the sums
relative to them. Kernels are the same code as for tiles.

Distances come from differences of the coordinates, in float32 or float64 with sums
accumulated in float64; nothing cancels. Queries that float32 is not sharp enough for
are computed again in float64. Bandwidths are parameters of the formulas: a new one
compiles nothing.
"""

import functools

import numpy as np
from sklearn.utils import gen_batches

from skhdkde._pairwise.backends import working_dtype
from skhdkde._pairwise.keops_runtime import lazy_tensors, rows_at_once, run
from skhdkde._pairwise.reductions import KSmallest
from skhdkde._utils.arrays import beside, number, to_host
from skhdkde._utils.threads import n_threads_for, progress_bar

# Larger than any squared distance between training points (in scaled units), and finite:
# KeOps makes NaN of infinite masks.
LEFT_OUT = 1e30
# Index of a point in digits to this base, so that float32 holds them.
INDEX_BASE = 2**20
# KeOps numbers the nearest points in the dtype of the formula.
MOST_POINTS_IN_FLOAT32 = 1.6e7
# Bandwidths per pass: each number of them is a formula of its own.
GRID_LENGTHS = (1, 8, 32)


def visit_pairs(reduction, queries, points, options, leave_out, out):
    """Fill ``out`` as :func:`~skhdkde._pairwise.backends.reduce_pairs` does, by KeOps."""
    dtype = working_dtype(reduction, queries, points)
    if points.shape[0] > MOST_POINTS_IN_FLOAT32:
        dtype = np.dtype(np.float64)
    step = rows_at_once(*points.shape)
    n_threads = n_threads_for(options.n_jobs)
    sources = {}
    n_pairs = len(queries) * points.shape[0]
    with progress_bar(n_pairs, options.verbose, options.label) as progress:
        for rows in gen_batches(len(queries), step):
            left = None if leave_out is None else leave_out[rows]
            block = queries[rows], left
            out[rows] = _sharp(reduction, block, points, sources, dtype, n_threads)
            progress((rows.stop - rows.start) * points.shape[0])


def _sharp(reduction, block, points, sources, first_dtype, n_threads):
    """Results for a block of queries, in ``first_dtype`` where that is sharp enough."""
    exact, leave_out = block
    result = np.empty((len(exact), reduction.width))
    todo = np.arange(len(exact))
    for dtype in (first_dtype, np.dtype(np.float64)):
        if dtype not in sources:
            sources[dtype] = _Source(points, dtype)
        left = None if leave_out is None else leave_out[todo]
        pairs = _Pairs(exact[todo], sources[dtype], left, n_threads)
        blurred = np.zeros(len(todo), dtype=bool)
        if dtype == np.float32:
            blurred = _blurred(reduction, pairs.nearest, points.shape[1])
        keep = np.flatnonzero(~blurred)
        if len(keep):
            state = _state(reduction, pairs.take(keep))
            result[todo[keep]] = reduction.finish(state)
        todo = todo[blurred]
        if not len(todo):
            return result
    return result


def _blurred(reduction, nearest, n_features):
    """Rows for which rounding of the squared distances may be felt.

    Each term of the sum over coordinates is rounded, and so is the sum after it. Terms
    may all round the same way, so the bound is linear in their number.
    """
    relative = 0.5 * np.finfo(np.float32).eps * (3.0 + 0.5 * n_features)
    blurred = ~np.isfinite(nearest)
    near = nearest[~blurred]
    reach = reduction.reach(near)
    reach = np.where(np.isinf(reach), near, reach)  # distances: each relatively sharp
    blurred[~blurred] = reduction.suspect_rows(near, relative * reach)
    return blurred


class _Source:
    """All training points in one dtype, as KeOps wants them: contiguous."""

    def __init__(self, points, dtype):
        self.points, self.dtype = points, dtype
        self.lazy = lazy_tensors(of_torch=points.on_gpu)
        self.exact = points.contiguous(dtype)
        self.weights = points.weight_block(slice(0, len(self.exact)), dtype)

    def over_queries(self, values):
        """A lazy tensor over queries, of an array from the host."""
        return self.lazy.Vi(self._beside(values))

    def over_points(self, values):
        """A lazy tensor over training points, of an array from the host."""
        return self.lazy.Vj(self._beside(values))

    def _beside(self, values):
        with np.errstate(over="ignore"):  # far queries: computed again in float64
            values = np.ascontiguousarray(values, dtype=self.dtype)
        return beside(values, self.exact)


class _Pairs:
    """Lazy tensors over some queries and all training points."""

    def __init__(self, exact, source, leave_out, n_threads):
        self.queries = exact
        self.source, self.leave_out, self.n_threads = source, leave_out, n_threads
        self.x, self.y = source.over_queries(self.queries), source.lazy.Vj(source.exact)
        self.sq, self.sq_factor = self.x.sqdist(self.y), None
        if source.points.sq_factor is not None:
            self.sq_factor = source.over_points(source.points.sq_factor[:, None])
            sq_offset = source.over_points(source.points.sq_offset[:, None])
            self.sq = self.sq * self.sq_factor + sq_offset
        self.weights = source.over_points(source.weights[:, None])
        self.other = None  # negative for one's own, where that is left out
        if leave_out is not None:
            i = source.over_queries(_digits(leave_out))
            j = source.over_points(_digits(np.arange(len(source.exact))))
            self.other = i.sqdist(j) - 0.5

    @functools.cached_property
    def nearest(self):
        """Smallest squared distances, float64, infinite where there are no points."""
        return self._distances(self.run(self.of_others(self.sq, LEFT_OUT), "min")[:, 0])

    def take(self, rows):
        """Some of the queries."""
        if len(rows) == len(self.queries):
            return self
        left = None if self.leave_out is None else self.leave_out[rows]
        part = _Pairs(self.queries[rows], self.source, left, self.n_threads)
        part.nearest = self.nearest[rows]
        return part

    def of_others(self, values, instead):
        return values if self.other is None else self.other.ifelse(values, instead)

    def smallest(self, k):
        """The ``k`` smallest squared distances, ascending, and the points' indices."""
        most = min(k, len(self.source.exact))
        found = self.run(self.of_others(self.sq, LEFT_OUT), "Kmin_argKmin", K=most)
        sq, cols = (part.reshape(len(self.queries), -1) for part in found)
        padding = (0, 0), (0, k - most)
        sq = np.pad(self._distances(sq), padding, constant_values=np.inf)
        return sq, np.pad(cols.astype(int), padding)

    def sum(self, values):
        """Of each row, without the point that is left out; float64."""
        options = {"dtype_acc": "float64", "sum_scheme": "direct_sum"}
        return self.run(self.of_others(values, 0.0), "sum", **options).astype(np.float64)

    def weight_sums(self):
        """Of the weights and of their squares, without the point that is left out."""
        weights = self.source.weights.astype(np.float64)
        powers = np.column_stack([weights, weights**2])
        sums = np.tile(powers.sum(axis=0), (len(self.queries), 1))
        if self.leave_out is not None:
            own = self.leave_out >= 0
            sums[own] -= powers[self.leave_out[own]]
        return np.maximum(sums, 0.0)

    def max(self, values):
        """Of each row, and 0."""
        return self.run(self.of_others(values, 0.0), "max").astype(np.float64)

    def scaled_sq(self, pull, logs, kernel, h):
        """``|x - pull y|^2``, and what a kernel makes of it with ``logs`` in it."""
        points = self.source.points
        sq = self.x.sqdist(self.y * number(pull, self.sq))
        if points.sq_factor is not None:
            sq = sq * self.source.over_points(points.sq_factor[:, None])
            sq_factor, sq_offset = kernel.scaled_distance(logs, h)
            sq = sq * self.source.over_points(sq_factor[:, None])
            sq = sq + self.source.over_points(sq_offset[:, None])
        return sq

    def run(self, values, name, **options):
        result = run(values, name, n_threads=self.n_threads, **options)
        if isinstance(result, tuple):
            return tuple(map(to_host, result))
        return to_host(result)

    def _distances(self, sq):
        if self.other is not None:
            sq = np.where(sq >= 0.5 * LEFT_OUT, np.inf, sq)
        return sq.astype(np.float64)


def _digits(indices):
    return np.stack(np.divmod(indices, INDEX_BASE), axis=1)


@functools.singledispatch
def _state(reduction, pairs):
    """State of ``reduction`` over all pairs; see :mod:`skhdkde._reductions`."""
    raise TypeError(f"backend='keops' has no formula for {type(reduction).__name__}.")


@_state.register
def _(reduction: KSmallest, pairs):
    return (
        pairs.nearest[:, None] if reduction.k == 1 else pairs.smallest(reduction.k)[0],
    )


@_state.register
def _(reduction: KSmallest, pairs):
    return (
        pairs.nearest[:, None] if reduction.k == 1 else pairs.smallest(reduction.k)[0],
    )


@_state.register
def _(reduction: KSmallest, pairs):
    return (
        pairs.nearest[:, None] if reduction.k == 1 else pairs.smallest(reduction.k)[0],
    )


@_state.register
def _(reduction: KSmallest, pairs):
    return (
        pairs.nearest[:, None] if reduction.k == 1 else pairs.smallest(reduction.k)[0],
    )


@_state.register
def _(reduction: KSmallest, pairs):
    return (
        pairs.nearest[:, None] if reduction.k == 1 else pairs.smallest(reduction.k)[0],
    )


def _relative_energy(kernel, pairs):
    """The lowest energy of each row, and that energy minus each."""
    lowest = kernel.energy(pairs.nearest.copy())
    return lowest, kernel.shift(kernel.energy(pairs.sq), _finite(lowest))


def _finite(lowest):
    return np.where(np.isinf(lowest), 0.0, lowest)
