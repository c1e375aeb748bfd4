"""The search for the KL-optimal bandwidth on lists of neighbours.

The optimum lies where a few nearest points are nearly all of the sum, so that neighbours
found once, and a sample of the far points, give the leave-one-out curve at every
bandwidth. That they do is checked: at some queries the curve is also computed from all
points, and if its maximum over these queries is elsewhere, the exact search is to be run.
"""

from __future__ import annotations

import numpy as np

from skhdkde._approximation import IndexSearch, calibrated
from skhdkde._pairwise import ReductionSpec
from skhdkde._selection.curve import search_bandwidth
from skhdkde._selection.rules import (
    N_BANDWIDTHS,
    N_QUERIES,
    SEARCH_TOL,
    Choice,
    LeaveOneOut,
)
from skhdkde._utils.arrays import weighted_mean

N_NEIGHBORS = 64
# Below so many points the search over all of them takes less time.
FEWEST_POINTS = 150_000
# Nats: of the mean over queries, whose standard error is larger.
TOL = 0.01
# Queries at which is checked; steps of log h to the sides, and largest shift of the best.
N_CHECKED, STEP, LARGEST_SHIFT = 1024, 0.1, 0.005


class NearLeaveOneOut(LeaveOneOut):
    """Training points as queries, each compared to neighbours and a sample."""

    def __init__(self, prepared, kernel, n_queries, random_state, options):
        points = prepared.near_far.points
        super().__init__(points, kernel, n_queries, random_state, options)
        self.near_far, self.options = prepared.near_far, self.options.quiet()
        self.queries = points.rows_as_queries(self.rows)
        self.ids = prepared.neighbors(
            self.queries, self.rows, prepared.levels[0], self.options
        )

    def log_density(self, bandwidths_scaled):
        """Return approximate log densities in nats, (n_queries, n_bandwidths)."""
        columns, no_duplicates = [], np.zeros(len(self.rows))
        for h in bandwidths_scaled:
            spec = ReductionSpec(
                self.kernel, h, self.points, self.dtype, SEARCH_TOL[self.dtype]
            )
            batch = self.near_far.batch(
                spec, self.queries, self.rows, no_duplicates, self.ids, self.options
            )
            columns.append(batch.terms().total())
        return self.normalized(np.column_stack(columns), bandwidths_scaled)

    def exact_log_density(self, bandwidths_scaled):
        """Return log densities from all points, (n_queries, n_bandwidths)."""
        return super().log_density(bandwidths_scaled)

    def subset(self, which):
        subset = super().subset(which)
        subset.ids = self.ids[which]
        subset.queries = self.points.rows_as_queries(subset.rows)
        return subset


def may_be_searched(points, kernel):
    """Return whether lists of neighbours of so many points may give the bandwidth."""
    return not kernel.compact and points.shape[0] >= FEWEST_POINTS


def search_by_neighbors(prepared, kernel, random_state, options):
    """Return the KL-optimal bandwidth as a choice, None if neighbours do not give it.

    Parameters
    ----------
    prepared : Prepared
    kernel : Kernel
    random_state : int, RandomState instance or None
    options : ComputeOptions

    Returns
    -------
    Choice or None
    """
    near_far = prepared.near_far
    points = near_far.points
    if not isinstance(prepared.search, IndexSearch):
        return None
    if not may_be_searched(points, kernel):  # of those that are distinct
        return None
    pilot = LeaveOneOut(points, kernel, 64, near_far.seed, options)
    spec = ReductionSpec(kernel, pilot.nearest_rule(), points, points.dtype)
    prepared = calibrated(prepared, spec, N_NEIGHBORS, TOL, options)
    queries = NearLeaveOneOut(prepared, kernel, N_QUERIES, random_state, options)
    n_duplicates = len(prepared.group) - points.shape[0]
    search, best_is_at_end, far = search_bandwidth(queries, N_BANDWIDTHS, n_duplicates)
    if best_is_at_end or not holds(queries, search.bandwidth * points.scale):
        return None
    return Choice(search.bandwidth, search, far)


def holds(queries, bandwidth_scaled):
    """Return whether at some queries the best bandwidth over all points is the same.

    These queries alone may have their maximum to the side of the three bandwidths: what
    counts is that of the parabola through them.
    """
    size = min(N_CHECKED, len(queries.rows))
    checked = queries.subset(np.linspace(0, len(queries.rows) - 1, size).astype(int))
    steps = STEP * np.array([-1.0, 0.0, 1.0])
    bandwidths, best = bandwidth_scaled * np.exp(steps), []
    for log_density in (checked.log_density, checked.exact_log_density):
        mean, _ = weighted_mean(log_density(bandwidths), checked.weights)
        bend, slope, _ = np.polyfit(steps, mean, 2)
        if not bend < 0.0:
            return False
        best.append(-0.5 * slope / bend)
    return abs(best[0] - best[1]) <= LARGEST_SHIFT
