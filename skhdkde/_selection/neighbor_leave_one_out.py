"""The search for the KL-optimal bandwidth on lists of neighbours.

The optimum lies where a few nearest points are nearly all of the sum, so that neighbours
found once, and a sample of the rest, give the leave-one-out curve at every bandwidth.
That it does so here is checked: at some queries the curve is also computed from all
points, and if its maximum over these queries is elsewhere, the exact search is to be run.
"""

import copy
import warnings

import numpy as np

from skhdkde._approximation.calibration import calibrated
from skhdkde._approximation.near_far_sum import N_SAMPLED
from skhdkde._approximation.neighbors import IndexSearch
from skhdkde._selection.curve import search_bandwidth
from skhdkde._selection.rules import N_BANDWIDTHS, N_QUERIES, LeaveOneOut

N_NEIGHBORS = 64
# Nats: of the mean over queries, whose standard error is larger.
TOL = 0.01
# Queries on which is checked; steps of log h to the sides, and largest shift of the best.
N_CHECKED, STEP, LARGEST_SHIFT = 1024, 0.1, 0.005


class NearLeaveOneOut(LeaveOneOut):
    """Training points as queries, each compared to neighbours and a sample."""

    def __init__(self, prepared, kernel, n_queries, random_state, **engine):
        points = prepared.split.points
        super().__init__(points, kernel, n_queries, random_state, **engine)
        self.prepared, self.quiet = prepared, {**engine, "verbose": 0}
        self.queries = points.rows_as_queries(self.rows)
        level = prepared.levels[0]
        self.ids = prepared.search.search(
            self.queries, self.rows, level.n_neighbors, level.effort, self.quiet
        )

    def log_density(self, bandwidths):
        d, split = self.points.shape[1], self.prepared.split
        gone, alone = split.hidden(self.rows, self.ids), np.zeros(len(self.rows))
        last, columns = (N_SAMPLED, self.tol, self.quiet), []
        for h in bandwidths:
            sums = self.kernel, h, self.queries
            moments = split.moments(*sums, gone, *last)
            terms = split.terms(*sums, self.rows, alone, self.ids, moments, *last)
            columns.append(terms.total())
        log_norm = self.kernel.log_normalizer(d) + d * np.log(bandwidths)
        return np.column_stack(columns) - log_norm - self.log_others[:, None]

    def at(self, rows):
        """The same for some of the queries, by neighbours and exactly."""
        part = copy.copy(self)
        part.rows, part.ids = self.rows[rows], self.ids[rows]
        part.queries = self.points.rows_as_queries(part.rows)
        part.weights, part.log_others = self.weights[rows], self.log_others[rows]
        return part, super(NearLeaveOneOut, part).log_density


def search_by_neighbors(prepared, kernel, random_state, engine):
    """The KL-optimal bandwidth, or None if neighbours do not give it.

    Parameters
    ----------
    prepared : Prepared
    kernel : object
    random_state : int, RandomState instance or None
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.

    Returns
    -------
    BandwidthSearch or None
    """
    if kernel.compact or not isinstance(prepared.search, IndexSearch):
        return None
    split = prepared.split
    pilot = LeaveOneOut(split.points, kernel, 64, split.seed, **engine)
    h = pilot.nearest_rule()
    tol = 1e-3 if split.points.dtype == np.float32 else 1e-8
    prepared = calibrated(prepared, kernel, h, N_NEIGHBORS, TOL, tol, engine)
    queries = NearLeaveOneOut(prepared, kernel, N_QUERIES, random_state, **engine)
    n_copies = len(prepared.group) - split.points.shape[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # at the end of the grid
        try:
            search = search_bandwidth(queries, N_BANDWIDTHS, n_copies)
        except UserWarning:
            return None
    return search if _holds(queries, search.bandwidth * split.points.scale) else None


def _holds(queries, h):
    """Whether for some queries the best bandwidth is the same over all points."""
    size = min(N_CHECKED, len(queries.rows))
    part, exactly = queries.at(np.linspace(0, len(queries.rows) - 1, size).astype(int))
    steps = STEP * np.array([-1.0, 0.0, 1.0])
    bandwidths, weights = h * np.exp(steps), part.weights / part.weights.sum()
    places = []
    for log_density in (part.log_density, exactly):
        left, middle, right = weights @ log_density(bandwidths)
        bend = 2.0 * middle - left - right
        if not bend > 0.0:
            return False
        places.append(0.5 * STEP * (right - left) / bend)
    return abs(places[0] - places[1]) <= LARGEST_SHIFT
