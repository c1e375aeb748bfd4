"""Bandwidth rules, and the leave-one-out queries that three of them are made of."""

from __future__ import annotations

import copy
import functools
from typing import NamedTuple

import numpy as np

from skhdkde._density import covariance_spectrum
from skhdkde._diagnosis import N_NEIGHBORS, local_laws
from skhdkde._kernels import N_FOR_CLT
from skhdkde._pairwise import (
    KSmallest,
    LogSumExp,
    ReductionSpec,
    reduce_pairs,
)
from skhdkde._selection.curve import FarPoints, search_bandwidth
from skhdkde._selection.duplicates import merge_duplicates
from skhdkde._selection.search_result import BandwidthSearch
from skhdkde._utils.arrays import weighted_quantile
from skhdkde._utils.random import lowest, sampling_ranks, seed_from
from skhdkde._utils.warnings import warn_user
from skhdkde.regimes import gaussian_thresholds

RULES = ("kl", "nearest", "clt", "gaussian", "scott", "silverman")
REFERENCE_RULES = RULES[3:]  # from moments; the others compare points
OF_SPACE = (
    "{} is for points in space; with support='sphere' pass 'kl', 'nearest', 'clt' or a "
    "number."
)
N_BANDWIDTHS = 32
N_QUERIES = 4096
N_PILOT = 64
# Share of the points at which error bars of textbooks hold, by "clt".
IN_CLT = 0.95
# Below this many features a pass costs no more in float64, and the optimum is so
# flat that float32 would not find it to three digits.
FLOAT64_BELOW = 16
# Errors of log sums that the search allows, in nats, and of squared distances, relative.
SEARCH_TOL = {np.dtype(np.float32): 1e-2, np.dtype(np.float64): 1e-7}
NEAREST_TOL = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-9}
# Squared distances that float32 has all its digits for.
SMALLEST_FLOAT32 = 1e-30
# Least ratio of the ends of the first grid, where points nearly coincide.
SMALLEST_RATIO = 1e-12


class Choice(NamedTuple):
    """The bandwidth of a rule, and how it was found."""

    bandwidth: float  # in data units, or those of a whitening
    search: BandwidthSearch | None = None
    far: FarPoints | None = None  # that decide it


def bandwidth_by_rule(
    points,
    rule,
    kernel,
    options,
    *,
    parameter="bandwidth",
    n_queries=N_QUERIES,
    bandwidths=N_BANDWIDTHS,
    random_state=None,
):
    """Return the :class:`Choice` of a rule for prepared points.

    Parameters are those of :func:`~skhdkde.select_bandwidth`, how pairs are visited, and
    what messages call the rule.
    """
    if rule in REFERENCE_RULES:
        spectrum = functools.partial(covariance_spectrum, points)
        return Choice(reference_bandwidth(points, rule, kernel, parameter, spectrum))
    queries, distinct = leave_one_out(points, kernel, n_queries, random_state, options)
    return queried_bandwidth(queries, rule, parameter, bandwidths, distinct)


def reference_bandwidth(points, rule, kernel, parameter, spectrum):
    """Return the bandwidth, in data units, of a rule that needs no pairs.

    ``spectrum`` returns the eigenvalues of the covariance, in squared scaled units.
    """
    if not points.mean_square_spread() > 0.0:
        raise _too_few(points.shape[0], rule, parameter)
    if rule == "gaussian":
        return _gaussian_theory(points, kernel, spectrum())
    return _normal_reference(points, rule, kernel)


def queried_bandwidth(queries, rule, parameter, bandwidths, distinct):
    """Return the :class:`Choice` of a rule that compares points."""
    n_distinct, n_duplicates = distinct.n_distinct, distinct.n_duplicates
    if n_distinct < 2:
        raise _too_few(n_distinct + n_duplicates, rule, parameter)
    distinct.warn(rule, parameter)
    if rule == "nearest":
        return Choice(queries.nearest_rule() / queries.points.scale)
    if rule == "clt":
        return Choice(queries.clt_rule(parameter) / queries.points.scale)
    search, best_is_at_end, far = search_bandwidth(queries, bandwidths, n_duplicates)
    if best_is_at_end:
        warn_user(
            f"bandwidth {search.bandwidth:.6g}, at an end of the "
            f"{len(search.bandwidths)} tried, is the best of them; the optimum may lie "
            "beyond."
        )
    return Choice(search.bandwidth, search, far)


def leave_one_out(points, kernel, n_queries, random_state, options):
    """Return distinct training points as queries, and what is known of duplicates."""
    distinct = merge_duplicates(points, options, random_state)
    queries = LeaveOneOut(
        distinct.points, kernel, n_queries, random_state, options, distinct.index
    )
    return queries, distinct


def _normal_reference(points, rule, kernel):
    """Return Scott's or Silverman's rule times the scale of the data.

    The scale is the root mean variance of the features, the number of points is
    Kish's effective one, and a kernel other than the Gaussian gets the bandwidth at
    which it has the variance of the Gaussian.
    """
    d = points.shape[1]
    n_points = points.effective_number()
    scale = np.sqrt(points.mean_square_spread() / d) / points.scale
    base = n_points if rule == "scott" else n_points * (d + 2) / 4.0
    return float(scale * base ** (-1.0 / (d + 4)) / np.sqrt(kernel.variance(d)))


def _gaussian_theory(points, kernel, spectrum):
    """Return the KL-optimal bandwidth of Gaussian data of the points' covariance."""
    n_points = max(points.effective_number(), 1.0 + 1e-9)  # one weight may be all
    theory = gaussian_thresholds(n_points, spectrum)
    h_kl = theory.h_kl / np.sqrt(kernel.variance(points.shape[1]))
    return float(h_kl / points.scale)


def _too_few(n_points, rule, parameter):
    """Return the error for too few distinct points."""
    equal = ", all equal" if n_points > 1 else ""
    return ValueError(
        f"{parameter}={rule!r} needs at least two distinct points of positive weight "
        f"in X; got n_samples={n_points}{equal}."
    )


class LeaveOneOut:
    """Distinct training points as queries, each without itself; lengths in scaled units.

    Parameters
    ----------
    points : TrainingPoints
        Distinct.
    kernel : Kernel
    n_queries : int
        If there are more points, so many are drawn at random.
    random_state : int, RandomState instance or None
    options : ComputeOptions
    index : ndarray of int of shape (n_points,), default=None
        Of each point in the data, by which they are drawn.
    """

    def __init__(self, points, kernel, n_queries, random_state, options, index=None):
        rows = np.arange(points.shape[0])
        index = rows if index is None else index
        if len(rows) > n_queries:
            rows = lowest(sampling_ranks(index, seed_from(random_state)), n_queries)
        weights = np.ones(len(rows)) if points.weights is None else points.weights[rows]
        others = points.total_weight_without_each()[rows]
        self._set(points, kernel, rows, index[rows], weights, others, options)

    def _set(self, points, kernel, rows, index, weights, others, options):
        """Set the queries: ``rows`` of the points, and the weight of all others."""
        self.points, self.kernel = points, kernel
        self.options = options.labelled("bandwidth")
        self.rows, self.index, self.weights = rows, index, weights
        # the heaviest are the pilots; of those that weigh the same any
        order = np.lexsort((sampling_ranks(index, 0), -weights))
        self.pilots = rows[order[:N_PILOT]]
        with np.errstate(divide="ignore"):
            self.log_others = np.log(others)
        wide = kernel.compact or points.shape[1] < FLOAT64_BELOW
        self.dtype = np.dtype(np.float64) if wide else points.dtype

    def row_numbers(self, which):
        """Return which rows of X some of the queries are."""
        return self.points.row_numbers(self.rows[which])

    def subset(self, which):
        """Return some of the queries."""
        subset = copy.copy(self)
        subset.rows, subset.index = self.rows[which], self.index[which]
        subset.weights, subset.log_others = self.weights[which], self.log_others[which]
        return subset

    def _reduce(self, reduction, rows):
        """Return the result of a reduction for points ``rows``, each without itself."""
        queries = self.points.rows_as_queries(rows)
        return reduce_pairs(reduction, queries, self.points, self.options, leave_out=rows)

    def nearest_sq(self, rows):
        """Return squared distances of the points ``rows`` to the nearest other point."""
        return self._near_sq(rows, 1)[:, 0]

    def _near_sq(self, rows, k):
        """Return squared distances of the points ``rows`` to the k nearest others."""
        for dtype in dict.fromkeys((self.dtype, np.dtype(np.float64))):
            nearest = self._neighbors_sq(rows, NEAREST_TOL[dtype], dtype, k)[:, :k]
            if nearest[:, 0].min() > SMALLEST_FLOAT32:
                break
        return nearest

    def _neighbors_sq(self, rows, tol, dtype, k=1):
        """Return squared distances to others, ascending, of at least the k nearest."""
        return self._reduce(KSmallest(k, tol, dtype), rows)

    def nearest_rule(self):
        """Return the bandwidth of "nearest", in scaled units."""
        mean = np.average(self.nearest_sq(self.rows), weights=self.weights)
        return self.kernel.bandwidth_at(mean, self.points.shape[1])

    def clt_rule(self, parameter):
        """Return the bandwidth of "clt", in scaled units.

        The local laws of :mod:`skhdkde._diagnosis` say where the tail index is 2.
        """
        n_visible = self.points.shape[0] - 1
        k = min(N_NEIGHBORS + 1, n_visible)
        rank = min(N_NEIGHBORS, n_visible // 2)
        h = np.full(len(self.rows), np.inf)
        if rank > 0:
            nearest_sq = self._near_sq(self.rows, k)
            for rows, law in local_laws(nearest_sq, n_visible, rank):
                h[rows] = self.kernel.thresholds(law, nearest_sq[rows])[1]
        found = weighted_quantile(h, self.weights, IN_CLT)
        if not np.isfinite(found):
            fewest = N_FOR_CLT + 1 if self.kernel.compact else 3
            raise ValueError(
                f"{parameter}='clt' needs at least {fewest} distinct points of positive "
                f"weight in X for kernel={self.kernel.name!r}; got {n_visible + 1}."
            )
        return float(min(found, self.largest_bandwidth))

    @property
    def largest_bandwidth(self):
        """The bandwidth, scaled units, beyond which kernels are no wider."""
        return self.kernel.largest_bandwidth(self.points.shape[1])

    def log_density(self, bandwidths_scaled):
        """Return log densities in nats, of shape (n_queries, n_bandwidths)."""
        tol, dtype = SEARCH_TOL[self.dtype], self.dtype
        spec = ReductionSpec(
            self.kernel, bandwidths_scaled, self.points, dtype, tol, dtype
        )
        log_sums = self._reduce(LogSumExp(spec), self.rows)
        return self.normalized(log_sums, bandwidths_scaled)

    def normalized(self, log_sums, bandwidths_scaled):
        """Return log densities from logs of sums over the other points."""
        log_volume = self.kernel.log_volume(self.points.shape[1], bandwidths_scaled)
        return log_sums - log_volume - self.log_others[:, None]

    def search_range(self):
        """Return the bandwidths between which the optimum lies.

        For the exponential profiles stationarity reads ``h^p = <r^p> / d`` with the
        mean over the kernel's own weights: not below the mean of the nearest points'
        ``r^p``, hence not below half their median, which a pilot gives reliably whatever
        the tails; and not above the mean over all points. With weights, one point may
        be most of either mean, and the bounds are the extremes. A compact kernel must
        reach the nearest point of every query, and is past its optimum when it covers
        all points twice over.
        """
        nearest = self.nearest_sq(self.pilots)
        largest = self.points.largest_norm
        if self.kernel.compact:
            low, high = np.sqrt(nearest.max()), 4.0 * largest
            return low, max(min(high, self.largest_bandwidth), low)
        p, d = self.kernel.power, self.points.shape[1]
        low = np.median(nearest ** (p / 2.0)) / 2.0
        high = (2.0 * self.points.mean_square_spread()) ** (p / 2.0)
        if self.points.weights is not None:
            low, high = nearest.min() ** (p / 2.0), (2.0 * largest) ** p
        low, high = (low / d) ** (1.0 / p), 1.1 * (high / d) ** (1.0 / p)
        high = min(high, self.largest_bandwidth)
        return max(low, SMALLEST_RATIO * high), high
