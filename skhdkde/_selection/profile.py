"""Mean log density of a fitted density against bandwidth, as displays draw it."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from skhdkde._diagnosis import Diagnosing
from skhdkde._pairwise import LogSumExp, ReductionSpec, reduce_pairs
from skhdkde._selection.curve import BandwidthCurve
from skhdkde._selection.rules import N_QUERIES, leave_one_out
from skhdkde._utils.warnings import warn_user

TOL = 1e-3  # nats
# Doublings of the range in search of the best bandwidth.
MAX_WIDENINGS = 8


def queries_of(density, X, random_state, options):
    """Return the queries for the curve of a density.

    Parameters
    ----------
    density : Density
    X : ndarray of shape (n_queries, n_features) or None
        Held-out points; None for the training points, each without itself.
    random_state : int, RandomState instance or None
        Draws the queries from more than 4096 training points.
    options : ComputeOptions
    """
    options = options.labelled("bandwidths")
    if density.structure is not None:
        return StructuredQueries(density, X, random_state, options)
    points, kernel = density.components[0].points, density.kernel
    if X is not None:
        return PlainQueries(points, kernel, X, options)
    return PlainQueries.left_out(points, kernel, random_state, options)


class StructuredQueries:
    """Queries at which a density of a structure is compared at many bandwidths.

    Every bandwidth is a pass of its own, as centres are shrunk differently. Of the
    training points at most 4096 are queries, with what they contributed to covariances.
    """

    def __init__(self, density, X, random_state, options):
        self.density, self.options, self.queries = density, options, X
        self.largest_bandwidth = density.largest_bandwidth
        self.X = density.training if X is None else X
        self.weights = np.ones(len(self.X)) if X is not None else density.weights()
        self.rows = np.arange(len(self.X))
        if X is None and len(self.rows) > N_QUERIES:
            rng = check_random_state(random_state)
            self.rows = np.sort(rng.choice(len(self.rows), N_QUERIES, replace=False))
        self.weights, self.X = self.weights[self.rows], self.X[self.rows]

    def log_density(self, bandwidths):
        """Return log densities in nats, of shape (n_queries, n_bandwidths)."""
        columns = [
            self.density.at_bandwidth(h).log_density(
                self.queries, self.options, self.rows
            )
            for h in bandwidths
        ]
        return np.column_stack(columns).astype(np.float64)

    def thresholds(self, bandwidth):
        """Return medians over the queries of ``h_g`` and ``h_clt``."""
        return _median_thresholds(self.density.diagnose(self.queries, self.options)[1])


class PlainQueries:
    """Queries at which the textbook's density is compared at many bandwidths.

    Parameters
    ----------
    points : TrainingPoints
    kernel : Kernel
    X : ndarray of shape (n_queries, n_features)
        In data units.
    options : ComputeOptions
    leave_out : ndarray of int of shape (n_queries,), default=None
        Index of the training point that each query is.
    weights, log_others : ndarray of shape (n_queries,), default=None
        Weight of each query, and log of the weight of the points that it sees.
    """

    def __init__(
        self, points, kernel, X, options, leave_out=None, weights=None, log_others=None
    ):
        self.points, self.kernel, self.X = points, kernel, X
        self.largest_bandwidth = kernel.largest_bandwidth(points.shape[1])
        self.options, self.leave_out = options, leave_out
        self.queries = points.as_queries(X)
        self.weights = np.ones(len(X)) if weights is None else weights
        self.log_total = np.log(points.total_weight())
        if log_others is not None:
            self.log_total = log_others[:, None]

    @classmethod
    def left_out(cls, points, kernel, random_state, options):
        """Return training points as queries, each without itself and its duplicates."""
        training, _ = leave_one_out(points, kernel, N_QUERIES, random_state, options)
        if training.points.shape[0] < 2:
            raise ValueError(
                "X=None leaves out each training point and its duplicates: there must be "
                "at least two distinct ones."
            )
        return cls(
            training.points,
            kernel,
            training.points.in_data_units(training.rows),
            options,
            training.rows,
            training.weights,
            training.log_others,
        )

    def _reduce(self, reduction):
        """Return the result of a reduction at the queries."""
        return reduce_pairs(
            reduction, self.queries, self.points, self.options, leave_out=self.leave_out
        )

    def _spec(self, bandwidths):
        """Return what a reduction needs to know at these bandwidths, data units."""
        scaled, dtype = bandwidths * self.points.scale, self.queries.dtype
        return ReductionSpec(self.kernel, scaled, self.points, dtype, TOL)

    def log_density(self, bandwidths):
        """Return log densities in nats, of shape (n_queries, n_bandwidths)."""
        log_sums = self._reduce(LogSumExp(self._spec(bandwidths)))
        log_volume = self.kernel.log_volume(self.points.shape[1], bandwidths)
        return log_sums - log_volume - self.log_total

    def thresholds(self, bandwidth):
        """Return medians over the queries of ``h_g`` and ``h_clt``, in data units."""
        n_visible = self.points.shape[0] - (self.leave_out is not None)
        columns = self._reduce(Diagnosing(self._spec(bandwidth), n_visible))
        Diagnosing.to_data_units(columns, self.points.scale)
        return _median_thresholds(columns)


def _median_thresholds(columns):
    """Return medians of ``h_g`` and ``h_clt`` from columns of ``Diagnosing``."""
    names = Diagnosing.COLUMNS
    h_g, h_clt = (columns[:, names.index(name)] for name in ("h_g", "h_clt"))
    return float(np.median(h_g)), float(np.median(h_clt))


def bandwidth_grid(queries, bandwidths, marks):
    """Return the bandwidths asked for, and the log densities there.

    Parameters
    ----------
    queries : PlainQueries or StructuredQueries
    bandwidths : int or array-like
        A grid, or how many bandwidths to take around the best one and the ``marks``.
    marks : tuple of float
        Bandwidths that should be within the grid.

    Returns
    -------
    grid : ndarray of shape (n_bandwidths,)
    log_density : ndarray of shape (n_queries, n_bandwidths)
    """
    if not isinstance(bandwidths, Integral):
        grid = np.unique(np.asarray(bandwidths, dtype=np.float64))
        if len(grid) < 3 or not (grid[0] > 0.0 and np.isfinite(grid[-1])):
            raise ValueError(
                f"bandwidths must be at least three positive numbers, got {bandwidths!r}."
            )
        return grid, queries.log_density(grid)
    if isinstance(bandwidths, bool) or bandwidths < 3:
        raise ValueError(f"bandwidths must be an int >= 3 or a grid, got {bandwidths!r}.")
    marks = [h for h in marks if np.isfinite(h) and h > 0.0]
    largest = queries.largest_bandwidth
    low, high = 0.6 * min(marks), min(1.5 * max(marks), largest)
    low = min(low, 0.5 * high)
    for _ in range(MAX_WIDENINGS):
        grid = np.geomspace(low, high, bandwidths)
        log_density = queries.log_density(grid)
        curve = BandwidthCurve()
        curve.add(grid, log_density, queries.weights)
        if not curve.best_is_at_end or (curve.best and high == largest):
            return grid, log_density
        too_high = curve.best == 0 and np.isfinite(curve.mean[0])
        low, high = (0.5 * low, high) if too_high else (low, 2.0 * high)
        high = min(high, largest)
    warn_user(
        f"No best bandwidth between {grid[0]:.4g} and {grid[-1]:.4g}: the curve may be "
        "cut off. Pass bandwidths."
    )
    return grid, log_density
