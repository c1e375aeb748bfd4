"""PyKeOps lazy tensors: the pairs are never stored, on a GPU or on the CPU.

A tile has to be reduced as it comes; here a formula may pass over all pairs more than
once. So each reduction gets its *final* state: first the nearest points, then the sums
relative to them. Kernels are the same code as for tiles. Where a sum may be relative to
any value near the largest, the nearest of a sample of points is enough.

Distances come from differences of the coordinates, in float32 or float64 with sums
accumulated in float64; nothing cancels. Queries that float32 is not sharp enough for
are computed again in float64. Bandwidths are parameters of the formulas: a new one
compiles nothing.
"""

import copy
import functools

import numpy as np

from skhdkde._pairwise.backend_choice import KEOPS_AT_MOST, check_keops_uses_gpu
from skhdkde._pairwise.backends import working_dtype
from skhdkde._pairwise.keops_runtime import (
    DIRECT_SUMS,
    lazy_tensors,
    rows_at_once,
    run,
    sum_options,
    uses_gpu,
)
from skhdkde._pairwise.kernel_grid import KernelGridSums
from skhdkde._pairwise.log_sums import relative_values
from skhdkde._pairwise.reductions import (
    LARGEST_SUM,
    Gradient,
    KSmallest,
    LogSumExp,
    Nearest,
    Shares,
    SharesState,
)
from skhdkde._utils.arrays import beside, finite_or_zero, number, slices, to_host
from skhdkde._utils.threads import n_threads_for, progress_bar

# Larger than any squared distance (in scaled units) that is not computed in float64 or
# left out itself, and finite: KeOps makes NaN of infinite masks.
MASKED = {np.dtype(np.float32): 1e30, np.dtype(np.float64): 1e300}
# Index of a point in digits to this base, so that float32 holds them.
INDEX_BASE = 2**20
# KeOps numbers the nearest points in the dtype of the formula.
MOST_POINTS_IN_FLOAT32 = 1.6e7
# Bandwidths per pass: each number of them is a formula of its own.
GRID_LENGTHS = (1, 8, 32)
# Points in the sample whose nearest a sum is relative to, and points from which on a
# pass over the sample is much shorter than one over all.
SAMPLE_SIZE, SAMPLE_FROM = 2048, 2**14


def visit_pairs(reduction, queries, points, options, leave_out, out):
    """Fill ``out`` as :func:`~skhdkde._pairwise.backends.reduce_pairs` does, by KeOps."""
    if points.shape[1] > KEOPS_AT_MOST and uses_gpu():
        raise ValueError(
            f"backend='keops' keeps points in the shared memory of a GPU, which holds "
            f"at most {KEOPS_AT_MOST} features, got n_features={points.shape[1]}: use "
            "backend='torch', which is faster with so many, or 'numpy'."
        )
    check_keops_uses_gpu()  # which only KeOps itself knows for sure
    dtype = working_dtype(reduction, queries, points)
    if points.shape[0] > MOST_POINTS_IN_FLOAT32:
        dtype = np.dtype(np.float64)
    visit = _Visit(reduction, points, dtype, n_threads_for(options.n_jobs))
    n_pairs = len(queries) * points.shape[0]
    with progress_bar(n_pairs, options.verbose, options.label) as progress:
        for rows in slices(len(queries), rows_at_once(*points.shape)):
            left = None if leave_out is None else leave_out[rows]
            out[rows] = visit.results(queries[rows], left)
            progress((rows.stop - rows.start) * points.shape[0])


class _Visit:
    """A reduction over training points, in ``dtype`` where that is sharp enough."""

    def __init__(self, reduction, points, dtype, n_threads):
        self.reduction, self.points = reduction, points
        self.dtypes, self.n_threads = (dtype, np.dtype(np.float64)), n_threads
        self._source = functools.cache(lambda dtype: _Source(points, dtype))

    def results(self, exact, leave_out):
        """Return the results for a block of queries."""
        result = np.empty((len(exact), self.reduction.width))
        todo = np.arange(len(exact))
        for dtype in self.dtypes:
            for of_sample in (True, False) if self._sample_is_enough() else (False,):
                left = None if leave_out is None else leave_out[todo]
                pairs = _Pairs(exact[todo], self._source(dtype), left, self.n_threads)
                if of_sample:
                    pairs = pairs.relative_to_sample()
                done, found = self._results(pairs)
                result[todo[done]] = found
                todo = np.delete(todo, done)
                if not len(todo):
                    return result
        return result

    def _sample_is_enough(self):
        """Return whether sums may be relative to the nearest points of a sample.

        Logs of values must be multiples of the squared distance: to change what they are
        relative to is a factor then, which costs no digits, and a bound on the nearest
        distance from above is enough to tell whether rounding may be felt.
        """
        if not isinstance(self.reduction, LogSumExp | Gradient):
            return False
        kernel = self.reduction.kernel
        squares = kernel.affine and kernel.growth == 2
        return squares and self.points.shape[0] >= SAMPLE_FROM

    def _results(self, pairs):
        """Return the rows of ``pairs`` that are sharp and in range, and their results."""
        blurred = np.zeros(len(pairs.queries), dtype=bool)
        if pairs.source.dtype == np.float32:
            blurred = _blurred(self.reduction, pairs.nearest_sq, self.points.shape[1])
        elif pairs.of_sample:
            blurred = np.isinf(pairs.nearest_sq)
        keep = np.flatnonzero(~blurred)
        if not len(keep):
            return keep, np.empty((0, self.reduction.width))
        state = _state(self.reduction, pairs.subset(keep))
        if not pairs.of_sample:
            return keep, self.reduction.finish(state)
        # a point may be so much nearer than the sample that a sum is out of range
        largest = LARGEST_SUM[pairs.source.dtype.name]
        fine = (np.abs(np.hstack(state[1:])) <= largest).all(axis=1)
        return keep[fine], self.reduction.finish(tuple(array[fine] for array in state))


def _blurred(reduction, nearest_sq, n_features):
    """Return the rows in which rounding of the squared distances may be felt.

    Each term of the sum over coordinates is rounded, and so is the sum after it. Terms
    may all round the same way, so the bound is linear in their number.
    """
    relative = 0.5 * np.finfo(np.float32).eps * (3.0 + 0.5 * n_features)
    blurred = ~np.isfinite(nearest_sq)
    nearest_sq = nearest_sq[~blurred]
    reach = reduction.reach(nearest_sq)
    # distances are sharp relative to themselves
    reach = np.where(np.isinf(reach), nearest_sq, reach)
    blurred[~blurred] = reduction.suspect_rows(nearest_sq, relative * reach)
    return blurred


class _Source:
    """Training points in one dtype, as KeOps wants them: contiguous."""

    def __init__(self, points, dtype):
        self.points, self.dtype = points, dtype
        self.exact = points.contiguous(dtype)
        if getattr(self.exact, "is_cuda", False) and not uses_gpu():
            self.exact = to_host(self.exact)  # which KeOps would not know to do
        self.lazy = lazy_tensors(of_torch=not isinstance(self.exact, np.ndarray))
        self.weights = points.weight_block(slice(0, len(self.exact)), dtype)
        self.sq_factor, self.sq_offset = points.sq_factor, points.sq_offset
        self.numbers = np.arange(len(self.exact))

    @functools.cached_property
    def sample(self):
        """Every so many-th of the points."""
        sample, some = copy.copy(self), slice(None, None, len(self.exact) // SAMPLE_SIZE)
        exact = self.exact[some]
        on_host = isinstance(exact, np.ndarray)
        sample.exact = np.ascontiguousarray(exact) if on_host else exact.contiguous()
        sample.weights, sample.numbers = self.weights[some], self.numbers[some]
        if self.sq_factor is not None:
            sample.sq_factor = self.sq_factor[some]
            sample.sq_offset = self.sq_offset[some]
        return sample

    def over_queries(self, values):
        """Return a lazy tensor over queries, of an array from the host."""
        return self.lazy.Vi(self._beside(values))

    def over_points(self, values):
        """Return a lazy tensor over training points, of an array from the host."""
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
        self.masked = MASKED[source.dtype]
        self.of_sample = False  # whether nearest_sq are those of a sample of points
        self.x, self.y = source.over_queries(self.queries), source.lazy.Vj(source.exact)
        self.sq, self.sq_factor = self.x.sqdist(self.y), None
        if source.sq_factor is not None:
            self.sq_factor = source.over_points(source.sq_factor[:, None])
            sq_offset = source.over_points(source.sq_offset[:, None])
            self.sq = self.sq * self.sq_factor + sq_offset
        self.weights = source.over_points(source.weights[:, None])
        self.other = None  # negative for one's own, where that is left out
        if leave_out is not None:
            i = source.over_queries(_digits(leave_out))
            j = source.over_points(_digits(source.numbers))
            self.other = i.sqdist(j) - 0.5

    @functools.cached_property
    def nearest_sq(self):
        """Smallest squared distances, float64, infinite where there are no points."""
        sq = self.run(self.of_others(self.sq, self.masked), "min")[:, 0]
        return self._distances(sq)

    def relative_to_sample(self):
        """Return the pairs with the nearest of a sample of points for the nearest."""
        pairs = copy.copy(self)
        sample = self.source.sample
        of_sample = _Pairs(self.queries, sample, self.leave_out, self.n_threads)
        pairs.nearest_sq, pairs.of_sample = of_sample.nearest_sq, True
        return pairs

    def subset(self, rows):
        """Return the pairs of some of the queries."""
        if len(rows) == len(self.queries):
            return self
        left = None if self.leave_out is None else self.leave_out[rows]
        pairs = _Pairs(self.queries[rows], self.source, left, self.n_threads)
        pairs.of_sample = self.of_sample
        if "nearest_sq" in vars(self):
            pairs.nearest_sq = self.nearest_sq[rows]
        return pairs

    def of_others(self, values, instead):
        """Return the values, and ``instead`` for points that are left out."""
        return values if self.other is None else self.other.ifelse(values, instead)

    def smallest(self, k):
        """Return the ``k`` smallest squared distances, ascending, and whose they are."""
        most = min(k, len(self.source.exact))
        found = self.run(self.of_others(self.sq, self.masked), "Kmin_argKmin", K=most)
        sq, cols = (array.reshape(len(self.queries), -1) for array in found)
        padding = (0, 0), (0, k - most)
        sq = np.pad(self._distances(sq), padding, constant_values=np.inf)
        return sq, np.pad(cols.astype(int), padding)

    def sum(self, values, signed=False):
        """Return the sum of each row, without the point that is left out; float64.

        Terms of a sum that are ``signed`` may cancel.
        """
        n_points, n_features = self.source.exact.shape
        options = sum_options(len(self.queries), n_points, n_features, values.ndim)
        if signed and self.source.dtype == np.float32:
            options = DIRECT_SUMS
        return self.run(self.of_others(values, 0.0), "sum", **options).astype(np.float64)

    def weight_sums(self):
        """Return sums of the weights and of their squares of all not left out."""
        weights = self.source.weights.astype(np.float64)
        powers = np.column_stack([weights, weights**2])
        sums = np.tile(powers.sum(axis=0), (len(self.queries), 1))
        if self.leave_out is not None:
            own = self.leave_out >= 0
            sums[own] -= powers[self.leave_out[own]]
        return np.maximum(sums, 0.0)

    def max(self, values):
        """Return the largest of each row, or 0 if that is more."""
        return self.run(self.of_others(values, 0.0), "max").astype(np.float64)

    def shrunk_sq(self, setting, log_factors):
        """Return ``|x - a y|^2`` for the shrinkage of a kernel setting.

        With local scales it is a scaled distance that also multiplies the values.
        """
        points = self.source.points
        sq = self.x.sqdist(self.y * number(setting.shrinkage, self.sq))
        if points.sq_factor is None:
            return sq
        scaled = setting.kernel.scaled_distance(log_factors, setting.bandwidth_scaled)
        sq_factor, sq_offset = (self.source.over_points(v[:, None]) for v in scaled)
        return sq * self.sq_factor * sq_factor + sq_offset

    def run(self, values, name, **options):
        """Return a lazy tensor reduced over the training points, on the host."""
        result = run(values, name, n_threads=self.n_threads, **options)
        if isinstance(result, tuple):
            return tuple(map(to_host, result))
        return to_host(result)

    def _distances(self, sq):
        """Return squared distances in float64, infinite for what is left out."""
        if self.other is not None:
            sq = np.where(sq >= 0.5 * self.masked, np.inf, sq)
        return sq.astype(np.float64)


def _digits(indices):
    """Return indices as two numbers that float32 holds."""
    return np.stack(np.divmod(indices, INDEX_BASE), axis=1)


@functools.singledispatch
def _state(reduction, pairs):
    """Return the state of a reduction over all pairs."""
    raise TypeError(f"backend='keops' has no formula for {type(reduction).__name__}.")


@_state.register
def _(reduction: LogSumExp, pairs):
    bandwidths, sums = reduction.bandwidths, []
    lowest, shifted = _shifted(reduction.kernel, pairs, pairs.nearest_sq)
    while len(bandwidths):
        n = next((n for n in GRID_LENGTHS if n >= len(bandwidths)), GRID_LENGTHS[-1])
        batch, bandwidths = bandwidths[:n], bandwidths[n:]
        padded = np.concatenate([batch, np.full(n - len(batch), batch[-1])])
        values = reduction.kernel.values(shifted, padded, shifted, finite_or_zero(lowest))
        sums.append(pairs.sum(values * pairs.weights)[:, : len(batch)])
    return lowest, np.hstack(sums)


@_state.register
def _(reduction: KernelGridSums, pairs):
    columns = []
    for setting in reduction.settings:
        kernel, h = setting.kernel, setting.bandwidth_scaled
        sq = pairs.shrunk_sq(setting, reduction.log_factors)
        nearest_sq = pairs.run(pairs.of_others(sq, pairs.masked), "min")[:, 0]
        lowest = kernel.energy(nearest_sq.astype(np.float64))
        shifted = kernel.shift(kernel.energy(sq), lowest)
        values = kernel.values(shifted, h, shifted, lowest)
        columns.append((lowest, pairs.sum(values * pairs.weights)[:, 0]))
    lowest, sums = zip(*columns, strict=True)
    return np.column_stack(lowest), np.column_stack(sums)


@_state.register
def _(reduction: Gradient, pairs):
    kernel, h = reduction.kernel, reduction.bandwidths[0]
    lowest, shifted = _shifted(kernel, pairs, pairs.nearest_sq)
    values = kernel.values(shifted, h, shifted, finite_or_zero(lowest))
    slopes = kernel.slopes(kernel.energy(pairs.sq), values, h) * pairs.weights
    if pairs.sq_factor is not None:
        slopes = slopes * pairs.sq_factor
    if kernel.singular and reduction.indistinct_sq:  # no direction at the point itself
        apart = pairs.sq - number(reduction.indistinct_sq, pairs.sq)
        slopes = apart.ifelse(slopes, 0.0)
    steps = slopes * (pairs.y - pairs.x)
    sums = pairs.sum((values * pairs.weights).concat(steps), signed=True)
    return lowest, sums[:, :1], sums[:, 1:]


@_state.register
def _(reduction: Shares, pairs):
    kernel, h = reduction.kernel, reduction.bandwidths[0]
    nearest_sq, cols = pairs.smallest(reduction.neighbors.k)
    nearest_weights = np.where(np.isinf(nearest_sq), 0.0, pairs.source.weights[cols])
    lowest, shifted = _shifted(kernel, pairs, nearest_sq[:, 0])
    values = kernel.values(shifted, h, shifted, finite_or_zero(lowest))
    weighted = values * pairs.weights
    terms = weighted.concat(weighted * pairs.weights).concat(weighted * weighted)
    if reduction.equal_weights:  # the nearest has the most
        largest, _ = relative_values(kernel, h, nearest_sq[:, :1].copy())
    else:
        largest = pairs.max(weighted)
    sums = np.hstack([pairs.sum(terms), pairs.weight_sums(), largest])
    return SharesState._make([lowest, *sums.T, nearest_sq, nearest_weights])


@_state.register
def _(reduction: KSmallest, pairs):
    if reduction.k == 1:
        return (pairs.nearest_sq[:, None],)
    return pairs.smallest(reduction.k)[:1]


@_state.register
def _(reduction: Nearest, pairs):
    sq, cols = pairs.smallest(reduction.k)
    return sq, np.where(np.isinf(sq), -1.0, cols)


def _shifted(kernel, pairs, nearest_sq):
    """Return the lowest energy of each row, and that energy minus each."""
    lowest = kernel.energy(nearest_sq.copy())
    return lowest, kernel.shift(kernel.energy(pairs.sq), finite_or_zero(lowest))
