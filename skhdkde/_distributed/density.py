"""A fitted density over blocks of training points."""

from __future__ import annotations

from typing import Any

import numpy as np

from skhdkde._density import (
    BaseDensity,
    Component,
    check_n_samples,
    random_steps,
    with_constant,
)
from skhdkde._diagnosis import Diagnosing, PartialDiagnosing
from skhdkde._distributed.tasks import PairsTask, PointsLayout, SampleTask
from skhdkde._pairwise import (
    ComputeOptions,
    LogSumExp,
    PartialGradient,
    Reduction,
    indistinct_sq,
)
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.moments import Moments, without_each


class PointsSummary:
    """All training points in blocks, as far as rules and reductions ask for them.

    See :class:`~skhdkde._pairwise.TrainingPoints` for what the two share.

    Parameters
    ----------
    layout : PointsLayout
    moments : Moments
        Of the points, in whitened units; of relative weights.
    shape : tuple of int
        Number of points, and of features.
    weighted : bool
        Whether weights differ.
    largest_norm : float
        In scaled units.
    """

    sq_factor: np.ndarray | None = None  # no local scales

    def __init__(
        self,
        layout: PointsLayout,
        moments: Moments,
        shape: tuple[int, int],
        weighted: bool,
        largest_norm: float = 0.0,
    ):
        self.layout, self.moments, self.shape = layout, moments, shape
        self.dtype, self.scale, self.whitening = (
            layout.dtype,
            layout.scale,
            layout.whitening,
        )
        self.smallest_weight = moments.lightest / moments.heaviest
        self.weights = True if weighted else None  # whether there are any
        self.largest_norm = largest_norm
        size = 0.0 if layout.whitening is None else largest_norm
        self.indistinct_sq = indistinct_sq(size, self.dtype)

    def mean_square_spread(self):
        """Return the weighted mean of ``|y - mean|^2``, in squared scaled units."""
        return float(self.moments.variance.sum() * self.scale**2)

    def effective_number(self):
        """Return Kish's effective number of points."""
        if self.weights is None:
            return self.shape[0]
        return self.moments.total**2 / self.moments.total_sq


class BlockDensity(BaseDensity):
    """A fitted density over blocks of training points.

    It holds none of them. It makes tasks for the blocks, and results of what these say.

    Parameters
    ----------
    component : Component
        Of a ``PointsSummary``: the points themselves are elsewhere.
    totals : ndarray of shape (n_blocks,)
        Relative weight of each block.
    options : ComputeOptions
        With the backend as asked for.
    """

    #: Names of the columns of a diagnosis.
    DIAGNOSIS_COLUMNS = ("log_density", *Diagnosing.COLUMNS)

    def __init__(self, component: Component, totals: np.ndarray, options: ComputeOptions):
        points = component.points
        super().__init__(
            component.kernel, component.bandwidth, points.shape, points.dtype
        )
        self.component, self.layout = component, points.layout
        self.totals, self.options = totals, options

    @property
    def frames(self):
        """The whitening that queries pass through, None for none, and the scale."""
        return [(self.layout.whitening, self.layout.scale)]

    def task(self, kind, dtype, n_left_out=0):
        """Return the task for a kind of result at queries of ``dtype``.

        Parameters
        ----------
        kind : {"density", "gradient", "diagnosis"}
        dtype : dtype
        n_left_out : int, default=0
            Number of points that each query leaves out.
        """
        spec = self.component.reduction_spec(dtype)
        reduction: Reduction
        if kind == "density":
            reduction = LogSumExp(spec)
        elif kind == "gradient":
            reduction = PartialGradient(spec)
        else:
            reduction = PartialDiagnosing(spec, self.n_points - n_left_out)
        return PairsTask([self.layout], [reduction], self.options)

    def density_from(self, task, result, dtype, queries, *own):
        """Return log densities of shape (n_queries,) from the result of a task.

        ``queries`` are those in range; ``own`` is for training points: see
        :meth:`without_own`.
        """
        others = self.without_own(*own)[0] if own else None
        log_density = self._finished(result[0][:, 0], dtype, queries, others)
        return queries.log_density(log_density)

    def gradient_from(self, task, result, dtype, queries):
        """Return gradients of shape (n_queries, n_features), per data unit."""
        gradient = result[0][:, 1:].astype(np.result_type(dtype, self.dtype))
        self.component.to_data_units(gradient, queries.X)
        return queries.gradient(gradient)

    def diagnosis_from(self, task, result, dtype, queries, *own):
        """Return ``DIAGNOSIS_COLUMNS``, of shape (n_queries, n_columns)."""
        (reduction,), others = task.reductions, None
        columns = np.empty((len(result[0]), Diagnosing.width))
        left_out = np.ones(len(columns), dtype=bool)
        if own:
            others, left_out = self.without_own(*own)
        state = reduction.unpack(result[0])
        # those without weight see every point
        visible = (left_out, reduction.n_visible), (~left_out, self.n_points)
        for rows, n_visible in visible:
            if rows.any():
                spec = self.component.reduction_spec(dtype)
                finishing = Diagnosing(spec, n_visible)
                columns[rows] = finishing.finish(state.subset(rows))
        log_density = self._finished(columns[:, 0], dtype, queries, others)
        Diagnosing.to_data_units(columns, self.layout.scale)
        log_density = queries.log_density(log_density)
        return np.column_stack([log_density, queries.diagnosis(columns)])

    def without_own(self, weights, start, stop, block):
        """Return the weight of all others for rows of a block, and which have weight."""
        if weights is None:
            others = np.full(stop - start, self.totals.sum() - 1.0)
            return others, np.ones(len(others), dtype=bool)
        outside = self.totals[:block].sum() + self.totals[block + 1 :].sum()
        weights = np.asarray(weights, dtype=np.float64)
        return outside + without_each(weights)[start:stop], weights[start:stop] > 0.0

    def _finished(self, log_sums, dtype, queries, others):
        """Return log densities from log sums, and the weight of the points seen."""
        with np.errstate(divide="ignore"):
            log_total = np.log(self.totals.sum() if others is None else others)
        log_sums = log_sums + self.component.log_factors(queries.X)
        return self.normalized(log_sums, log_total, dtype)

    def draw(self, n_samples, rng, run):
        """Return random points, those that :func:`~skhdkde._density.draw` draws."""
        n_samples, ends = check_n_samples(n_samples), np.cumsum(self.totals)
        marks = rng.uniform(size=n_samples) * ends[-1]
        block = np.minimum(np.searchsorted(ends, marks, "right"), len(ends) - 1)
        extras: list[Any] = [None] * len(ends)
        for b in np.unique(block):
            which = np.flatnonzero(block == b)
            extras[b] = marks[which] - (ends[b] - self.totals[b]), which
        which, centers = run(SampleTask(self.layout), extras)
        X = np.empty((n_samples, self.n_features), dtype=self.dtype)
        X[which] = centers
        for rows in row_batches(*X.shape):
            steps = random_steps(self.kernel, self.bandwidth, X[rows].shape, rng)
            X[rows] = self.component.away(X[rows], steps)
        return with_constant(self, X, rng)
