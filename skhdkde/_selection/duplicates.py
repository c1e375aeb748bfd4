"""Duplicates among training points, exact or up to rounding, which count as one.

A point that is left out with its duplicate still there has an unbounded density as ``h ->
0``, and the leave-one-out mean its maximum at ``h = 0``. Points that differ in the last
digits only, as when a table was stored twice, do the same down to their distance.

Near-duplicates are told by what no continuous law gives. Of a law of dimension ``D`` near
a point the ratio of its first to its fifth neighbour distance is below ``t`` with
probability ``1 - (1 - t^D)^4 < 5 t``, and that of its j-th to its (j + 4)-th with less. A
significant excess of ratios below some ``t``, and few just above, is a gap of scales.
Only ratios at one point count: a tight cluster of many points has none.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom

from skhdkde._pairwise import (
    Nearest,
    TrainingPoints,
    distinct_rows,
    reduce_pairs,
    sorting_keys,
)
from skhdkde._utils.random import lowest, sampling_ranks, seed_beside
from skhdkde._utils.warnings import warn_user

# Ratios of neighbour distances at which an excess is sought; near-duplicates of a point
# at most, and how much farther the neighbour is to which these are compared.
RATIOS = np.geomspace(1e-12, 1e-2, 21)
MOST_NEAR, FARTHER = 4, 4
N_NEIGHBORS = MOST_NEAR + FARTHER
# Points that are looked at, more if those before call for it; those whose
# near-duplicates are sought once there are any: all that a search may have as queries.
N_SAMPLED, N_SEARCHED = (128, 1024, 8192), 16384
# Probability of such an excess by chance that calls for more points, or is significant;
# share of those found that may be near by chance.
DOUBTFUL, SIGNIFICANT, BY_CHANCE = 1e-2, 1e-8, 0.1
# Relative error of squared distances.
DISTANCE_TOL = 1e-3


@dataclass(frozen=True)
class Distinct:
    """Training points with duplicates merged into the first of them.

    Attributes
    ----------
    points : TrainingPoints or None
        Each with the total weight of its duplicates; None for points in blocks.
    index : ndarray of int of shape (n_distinct,) or None
        Which of the points as given each is.
    group : ndarray of int of shape (n_points,) or None
        Which of the distinct points each of those given is merged into.
    n_distinct : int
    n_exact, n_near : int
        Number of points merged: equal to another to the last bit, and nearly.
    distance : str
        Largest distance of near-duplicates that were found, with its unit.
    """

    points: TrainingPoints | None
    index: np.ndarray | None
    group: np.ndarray | None
    n_distinct: int
    n_exact: int = 0
    n_near: int = 0
    distance: str = ""

    @property
    def n_duplicates(self):
        """Number of points that were merged into others."""
        return self.n_exact + self.n_near

    def warn(self, rule, parameter):
        """Warn that duplicates are left out as one."""
        n_points = self.n_distinct + self.n_duplicates
        if self.n_exact:
            warn_of_duplicates(n_points, self.n_exact, rule, parameter)
        if self.n_near:
            warn_user(
                f"{self.n_near} of the {n_points} training points are near-duplicates of "
                f"others, at distances up to {self.distance} where the next "
                f"neighbours are much farther. {parameter}={rule!r} treats them as "
                "duplicates, and leaves out a point together with them; otherwise the "
                "bandwidth would be their distance. If they are the same observations, "
                "rounded, leave them out of X."
            )


def warn_of_duplicates(n_points, n_duplicates, rule, parameter):
    """Warn that exact duplicates are left out as one."""
    warn_user(
        f"{n_duplicates} of the {n_points} training points are exact duplicates of "
        f"others. {parameter}={rule!r} leaves out a point together with its duplicates; "
        "otherwise the leave-one-out likelihood would grow without bound as the "
        "bandwidth goes to 0."
    )


def merge_duplicates(points, options, random_state, coordinates=None):
    """Merge duplicates, exact and near ones, into one point with their total weight.

    Parameters
    ----------
    points : TrainingPoints
    options : ComputeOptions
    random_state : int, RandomState instance or None
    coordinates : callable, default=None
        Returns the coordinates, of unit variance, in which near-duplicates are near, for
        distinct points; their own by default.

    Returns
    -------
    Distinct
    """
    first, group = distinct_rows(points)
    n_exact = points.shape[0] - len(first)
    distinct = _merged(points, first, group) if n_exact else points
    near, unit = distinct, ""
    if coordinates is not None:
        near, unit = TrainingPoints(coordinates(distinct)), " standard deviations"
    leader, distance_scaled = _near_duplicates(near, first, options, random_state)
    if leader is None:
        return Distinct(distinct, first, group, len(first), n_exact)
    remaining, of_distinct = np.unique(leader, return_inverse=True)
    return Distinct(
        _merged(distinct, remaining, of_distinct),
        first[remaining],
        of_distinct[group],
        len(remaining),
        n_exact,
        len(leader) - len(remaining),
        f"{distance_scaled / near.scale:.2g}{unit}",
    )


def standardized(points):
    """Return the points with each feature divided by its standard deviation."""
    X = points.in_data_units(slice(None))
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = X.std(axis=0, dtype=np.float64)
    usable = (deviation > 0.0) & np.isfinite(deviation)
    return X / np.where(usable, deviation, 1.0).astype(X.dtype)


def _merged(points, first, group):
    """Return the points ``first`` with the weight of their groups."""
    weights = np.bincount(group, weights=points.weights).astype(np.float64)
    return points.subset(first, weights / weights.max())


def _near_duplicates(points, index, options, random_state):
    """Return the first near-duplicate of each point, and the largest distance.

    (None, 0) if there are none. ``index`` is that of each point in the data, by which
    those whose near-duplicates are sought are drawn, if not all are.
    """
    # whether there are any is a property of the data: the same are looked at for every
    # random state, and for every order of rows
    place = np.empty(len(index), dtype=int)
    place[np.argsort(sorting_keys(points))] = np.arange(len(index))
    ranks = sampling_ranks(place, 0)
    # the sample is small; KeOps would compile a formula for it
    backend = "numpy" if options.backend == "keops" else options.backend
    options = dataclasses.replace(options, backend=backend).labelled("duplicates")
    for n_sampled in N_SAMPLED:
        if points.shape[0] < N_NEIGHBORS:
            return None, 0.0
        rows = lowest(ranks, n_sampled)
        distances, _ = _neighbors(points, rows, options.quiet())
        threshold, by_chance = closeness(distances)
        if by_chance > DOUBTFUL:
            return None, 0.0
        if threshold is not None:
            break
    else:
        return None, 0.0
    ranks = sampling_ranks(index, seed_beside(random_state))  # as queries are drawn
    rows = lowest(ranks, N_SEARCHED)
    distances, ids = _neighbors(points, rows, options)
    near = neighbor_ratios(distances) <= threshold
    # all up to the last that is near
    near = np.logical_or.accumulate(near[:, ::-1], axis=1)[:, ::-1]
    row, column = np.nonzero(near)
    shape = (points.shape[0],) * 2
    links = csr_array(
        (np.ones(len(row), dtype=bool), (rows[row], ids[row, column])), shape
    )
    _, group = connected_components(links, directed=False)
    _, first = np.unique(group, return_index=True)
    return first[group], float(distances[:, : near.shape[1]][near].max())


def _neighbors(points, rows, options):
    """Return distances of points to their neighbours, in scaled units, and indices."""
    k = min(N_NEIGHBORS, points.shape[0] - 1)
    found = reduce_pairs(
        Nearest(k, DISTANCE_TOL),
        points.rows_as_queries(rows),
        points,
        options,
        leave_out=rows,
    )
    return np.sqrt(found[:, :k]), found[:, k:].astype(int)


def neighbor_ratios(distances):
    """Return the ratio of the j-th neighbour distance to that of some later one.

    Parameters
    ----------
    distances : ndarray of shape (n_points, n_neighbors)
        Ascending.

    Returns
    -------
    ratios : ndarray of shape (n_points, n_neighbors - FARTHER)
        1 where both are zero, or there are not so many neighbours.
    """
    near, far = distances[:, :-FARTHER], distances[:, FARTHER:]
    usable = (far > 0.0) & np.isfinite(far)
    return np.divide(near, far, out=np.ones_like(near), where=usable)


def closeness(distances):
    """Return the ratio up to which neighbours are near-duplicates, and a probability.

    Parameters
    ----------
    distances : ndarray of shape (n_points, n_neighbors)
        Of a sample of points to their neighbours, ascending.

    Returns
    -------
    threshold : float or None
        None if there are no near-duplicates.
    by_chance : float
        Probability of as many small ratios in a sample of a continuous law, at most.
    """
    ratios = neighbor_ratios(distances)
    near = ratios[:, :, None] <= RATIOS
    # each group of near-duplicates is one event, whichever of its points are looked at
    sizes = np.arange(2, ratios.shape[1] + 2)
    size = (near * sizes[:, None]).max(axis=1)
    n_near = np.count_nonzero(size, axis=0)
    n_groups = np.sum(1.0 / np.maximum(size, 1), axis=0, where=size > 0)
    n_points, by_law = len(ratios), 5.0 * RATIOS
    by_chance = binom.sf(np.ceil(n_groups - 1e-9) - 1.0, n_points, by_law)
    by_chance[n_near == 0] = 1.0
    smallest = ratios.min(axis=1)
    just_above = (smallest[:, None] <= 10.0 * RATIOS).sum(axis=0) - n_near
    gap = just_above <= 0.1 * n_near + 20.0 * by_law * n_points + 1.0
    pure = n_points * by_law <= BY_CHANCE * n_near
    found = RATIOS[(by_chance <= SIGNIFICANT) & gap & pure]
    return (float(found.max()) if len(found) else None), float(by_chance.min())


def warn_of_near_duplicates(distances, scale, rule):
    """Warn of near-duplicates among points in blocks, which are not merged.

    ``distances``, in scaled units, are of a sample of points to their neighbours.
    """
    threshold, _ = closeness(distances)
    if threshold is None:
        return
    near = neighbor_ratios(distances) <= threshold
    n_near = np.count_nonzero(near.any(axis=1))
    distance = distances[:, : near.shape[1]][near].max() / scale
    warn_user(
        f"{n_near} of {len(near)} training points looked at have near-duplicates, at "
        f"distances up to {distance:.2g} where the next neighbours are much farther. On "
        f"a cluster only exact duplicates are left out together: bandwidth={rule!r} may "
        "be their distance. Leave them out of X, or round X so that they are equal."
    )
