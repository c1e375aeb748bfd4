"""A fitted density over blocks of training points."""

import numpy as np

from skhdkde._density.sampling import random_steps
from skhdkde._diagnosis.reduction import Diagnosing, PartialDiagnosing
from skhdkde._distributed.tasks import PairsTask, SampleTask
from skhdkde._pairwise.reductions import LogSumExp, PartialGradient, pair_dtype
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.moments import without_each
from skhdkde._utils.validation import whole_number


class BlockDensity:
    """A fitted density over blocks of training points.

    It holds none of them. It makes tasks for the blocks, and results of what these say.

    Attributes
    ----------
    kernel : object
    bandwidth : float
        In the units of the whitening.
    log_scale : float
        Log of the determinant of the whitening.
    totals : ndarray of shape (n_blocks,)
        Weight of each block, relative to the heaviest point.
    """

    def __init__(self, blocks, whole, kernel, bandwidth, log_scale):
        self.whole, self.layout, self.engine = whole, whole.layout, blocks.engine
        self.kernel, self.bandwidth, self.log_scale = kernel, bandwidth, log_scale
        self.totals = blocks.totals
        self.dtype, self.n_points = blocks.dtype, blocks.n_points

    @property
    def degrees_of_freedom(self):
        """Of the kernel; infinite for all but student."""
        return getattr(self.kernel, "degrees_of_freedom", np.inf)

    def pairs(self, kind, dtype, n_hidden=0):
        """The task for log sums, gradients or diagnoses at queries of ``dtype``.

        ``n_hidden`` is the number of points that each query leaves out.
        """
        dtype = np.result_type(dtype, self.dtype)
        tol = 1e-3 if dtype == np.float32 else 1e-8  # as promised
        terms = self.kernel, self.bandwidth * self.layout.scale, self.whole, tol
        reduction = {
            "density": lambda: LogSumExp(*terms),
            "gradient": lambda: PartialGradient(*terms),
            "diagnosis": lambda: PartialDiagnosing(*terms, self.n_points - n_hidden),
        }[kind]()
        engine = {**self.engine, "dtype": pair_dtype(self.kernel, self.whole)}
        return PairsTask([self.layout], [reduction], engine)

    def density_from(self, pairs, result, dtype, *own):
        """Log densities of shape (n_queries,) from the result of ``pairs``.

        ``own`` is for training points: see :meth:`without_own`.
        """
        others = self.without_own(*own)[0] if own else None
        return self._finished(result[0][:, 0], dtype, others)

    def gradient_from(self, pairs, result, dtype):
        """Gradients of shape (n_queries, n_features)."""
        gradient = result[0][:, 1:]
        if self.layout.whitening is not None:
            gradient = self.layout.whitening.gradient(gradient)
        return gradient.astype(np.result_type(dtype, self.dtype), copy=False)

    def diagnosis_from(self, pairs, result, dtype, *own):
        """Log density, then columns of ``Diagnosing``: (n_queries, 1 + n_columns)."""
        (reduction,), others = pairs.reductions, None
        columns = np.empty((len(result[0]), Diagnosing.width))
        hidden = np.ones(len(columns), dtype=bool)
        if own:
            others, hidden = self.without_own(*own)
        state = reduction.unpack(result[0], 1.0, 0.0)
        # those without weight see every point
        for rows, n_visible in ((hidden, reduction.n_visible), (~hidden, self.n_points)):
            if rows.any():
                terms = self.kernel, reduction.bandwidths[0], self.whole, reduction.tol
                finishing = Diagnosing(*terms, n_visible)
                columns[rows] = finishing.finish(tuple(part[rows] for part in state))
        log_density = self._finished(columns[:, 0], dtype, others)
        columns[:, 3:5] /= self.layout.scale
        return np.column_stack([log_density, columns])

    def without_own(self, weights, start, stop, block):
        """Weight of all others for some rows of a block; which of them have weight."""
        if weights is None:
            others = np.full(stop - start, self.totals.sum() - 1.0)
            return others, np.ones(len(others), dtype=bool)
        outside = self.totals[:block].sum() + self.totals[block + 1 :].sum()
        weights = np.asarray(weights, dtype=np.float64) / self.layout.heaviest
        return outside + without_each(weights)[start:stop], weights[start:stop] > 0.0

    def _finished(self, log_sums, dtype, others):
        dtype, d = np.result_type(dtype, self.dtype), self.whole.shape[1]
        log_total = np.full(len(log_sums), np.log(self.totals.sum()))
        if others is not None:
            with np.errstate(divide="ignore"):
                log_total = np.log(others)
            log_total[np.isneginf(log_sums)] = 0.0  # no points at all: not 0/0
        log_volume = self.kernel.log_normalizer(d) + d * np.log(self.bandwidth)
        with np.errstate(over="ignore"):  # below the least float32 is -inf
            logs = log_sums + self.log_scale - log_total - log_volume
            return logs.astype(dtype, copy=False)

    def draw(self, n_samples, rng, run):
        """Random points, as :func:`~skhdkde._sampling.draw` draws them."""
        n_samples, ends = whole_number(n_samples, "n_samples"), np.cumsum(self.totals)
        marks = rng.uniform(size=n_samples) * ends[-1]
        block = np.minimum(np.searchsorted(ends, marks, "right"), len(ends) - 1)
        extras = [None] * len(ends)
        for b in np.unique(block):
            which = np.flatnonzero(block == b)
            extras[b] = marks[which] - (ends[b] - self.totals[b]), which
        which, centers = run(SampleTask(self.layout), extras)
        X = np.empty((n_samples, self.whole.shape[1]), dtype=self.dtype)
        X[which] = centers
        for rows in row_batches(*X.shape):
            steps = random_steps(self.kernel, self.bandwidth, X[rows].shape, rng)
            steps += X[rows]
            whitening = self.layout.whitening
            X[rows] = steps if whitening is None else whitening.invert(steps)
        return X
