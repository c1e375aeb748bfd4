"""How many neighbours, and how hard to search for them, measured at fit.

An index that misses one near neighbour is wrong by nats, and how often it does depends on
the data. So some training points, the reserve, are kept out of the index: they are fresh
queries to it (points that are in an index are found far more easily). Their exact
neighbours are known from one pass. They are never lost: every sum has them all.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._approximation.costs import cost_of_query
from skhdkde._approximation.index_choice import (
    LARGEST_SHARE,
    nearest_unreserved,
    suitable_search,
)
from skhdkde._approximation.near_far_sum import N_SAMPLED, NearFarSum
from skhdkde._approximation.neighbors import IndexSearch, TileSearch, grown_search
from skhdkde._pairwise import (
    ComputeOptions,
    LogSumExp,
    ReductionSpec,
    TrainingPoints,
    distinct_rows,
    reduce_pairs,
)
from skhdkde._utils.typing import FloatArray, IntArray, NeighborSearch

# Training points on which is measured, if they are not too large a share of all.
N_RESERVED = 512
# Numbers of neighbours to choose from.
NEIGHBORS = (8, 16, 32, 64, 128)
# Share of queries at which the error is held, and shares of the tolerance allowed there:
# to terms left out, and to neighbours missed. A miss is rare but may cost nats: what is
# allowed to it at a larger share of the queries.
HELD_AT, LEFT_OUT_SHARE, MISSED_SHARE = 0.95, 0.5, 0.25
MISSED_AT, WORST_AT, WORST_SHARE = 0.98, 0.99, 10.0
# Share of the tolerance that far points may add to a log sum, to be looked at no further,
# and share of the queries for which they must not add more.
GLANCE_SHARE, GLANCED = 0.02, 0.5
# Growth of neighbours and sample where the first do not suffice, and steps of effort.
MORE, MORE_EFFORT = 8, 2


@dataclass(frozen=True)
class Level:
    """How thoroughly a sum is approximated."""

    n_neighbors: int  # nearest points that are summed one by one
    n_sampled: int  # size of the sample of the others
    effort: Any = None  # of the search: width of the walk (HNSW), lists scanned (IVF)
    # error in nats, beyond the stated one, that 98 % of the queries measured are below:
    # neighbours that the search misses, points of which the sample has none
    missed: float = 0.0
    met: float = 0.0  # share of those queries for which the tolerance was met
    glance: bool = False  # whether far points hardly matter for most of them


@dataclass(frozen=True)
class Prepared:
    """The points of one whitening, ready for approximate sums."""

    near_far: NearFarSum  # over the distinct points
    search: NeighborSearch | None
    group: (
        IntArray  # (n_points,), the distinct point that each training point is equal to
    )
    # (n_points,), weight of the other points of its group, relative to the largest of the
    # distinct ones; None without duplicates
    duplicates: FloatArray | None
    log_factor: float  # log of that largest weight
    # the one to begin with, and one that is more thorough
    levels: tuple[Level, ...] = (Level(0, N_SAMPLED),)

    def cost(self, level: Level) -> float:
        """Return the expected cost of a query, in pairs of an exact sum."""
        n, n_features = len(self.near_far.population), self.near_far.points.shape[1]
        n_sampled = min(level.n_sampled, n) + len(self.near_far.reserve)
        k, search = level.n_neighbors, self.search
        if search is None or not k:
            return cost_of_query(n_features, 0, n_sampled, glance=level.glance)
        searched: dict[str, float] = {}  # a transformer's cost is not known
        if search.kind == "ivf":
            searched["n_listed"] = n * level.effort / search.efforts[-1]
        elif search.kind == "hnsw":
            searched["walk"] = max(level.effort, k)
        cost = cost_of_query(n_features, k, n_sampled, glance=level.glance, **searched)
        return cost + n if search.kind == "exact" else cost

    def own(self, leave_out: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the distinct point of each query, and the weight of its duplicates."""
        own = np.where(leave_out >= 0, self.group[leave_out], -1)
        if self.duplicates is None:
            return own, np.zeros(len(own))
        return own, np.where(own >= 0, self.duplicates[leave_out], 0.0)

    def neighbors(self, queries, own, level: Level, options: ComputeOptions) -> IntArray:
        """Return the neighbours that a level asks for, as ``search`` finds them."""
        if self.search is None or not level.n_neighbors:
            return np.empty((len(own), 0), dtype=int)
        return self.search.search(queries, own, level.n_neighbors, level.effort, options)

    @property
    def worth_it(self) -> bool:
        """Whether there is a search, of less work than comparing with all points."""
        if self.search is None:
            return False
        exact = self.search.kind == "exact"
        return exact or self.cost(self.levels[0]) < len(self.near_far.population)

    def by_all(self) -> Prepared:
        """Return the points with an exact search, and nothing reserved."""
        points, nothing = self.near_far.points, np.empty(0, dtype=int)
        near_far = NearFarSum(points, nothing, self.near_far.seed)
        return dataclasses.replace(self, near_far=near_far, search=TileSearch(points))


def prepare(
    points: TrainingPoints, wanted: Any, seed: int, options: ComputeOptions
) -> Prepared:
    """Return reserve, sample and index of training points.

    ``wanted`` is what :func:`~skhdkde._approximation.neighbors.wanted_index` returns, or
    None for no search. If no index suits the data, there is none for "auto" either.
    """
    points, group, duplicates, log_factor = _distinct(points)
    n, reserve = points.shape[0], np.empty(0, dtype=int)
    if wanted is not None and n <= N_SAMPLED:
        wanted = "exact"  # a sample has all of them anyway
    if wanted is not None and not (isinstance(wanted, str) and wanted == "exact"):
        rng = np.random.default_rng(seed)
        reserve = rng.choice(n, min(N_RESERVED, int(LARGEST_SHARE * n)), replace=False)
    near_far, search = NearFarSum(points, reserve, seed), None
    if wanted is not None:
        search = suitable_search(near_far, wanted, seed, options)
    return Prepared(near_far, search, group, duplicates, log_factor)


def with_more_points(
    prepared: Prepared, points: TrainingPoints, wanted: Any, options: ComputeOptions
) -> Prepared:
    """Return what is prepared for some points with more points, which come after them.

    Of the new ones as large a share is reserved, as fresh queries to an index. ``wanted``
    is the neighbours transformer, if there is one. Levels stay as they are.
    """
    earlier = prepared.near_far
    points, group, duplicates, log_factor = _distinct(points)
    n_earlier, n = earlier.points.shape[0], points.shape[0]
    reserve, rng = earlier.reserve, np.random.default_rng([earlier.seed, n])
    share = len(reserve) / n_earlier
    new = n_earlier + np.flatnonzero(rng.uniform(size=n - n_earlier) < share)
    near_far = NearFarSum(points, np.append(reserve, new), earlier.seed)
    search = grown_search(
        prepared.search, points, near_far.population, wanted, earlier.seed, options
    )
    return Prepared(near_far, search, group, duplicates, log_factor, prepared.levels)


def _distinct(points):
    """Return the distinct points, and `group`, `duplicates`, `log_factor` of Prepared.

    They are in the order in which the points come first.
    """
    first, group = distinct_rows(points)
    if len(first) == len(group):
        return points, group, None, 0.0
    weights = np.ones(len(group)) if points.weights is None else points.weights
    # what is left of a group without its heaviest must not be rounding
    merged = np.zeros(len(first), dtype=np.longdouble)
    np.add.at(merged, group, weights)
    largest = float(merged.max())
    duplicates = ((merged[group] - weights) / largest).astype(np.float64)
    points = points.subset(first, (merged / largest).astype(np.float64))
    return points, group, duplicates, float(np.log(largest))


def differences(log_sums: FloatArray, others: FloatArray) -> FloatArray:
    """Return absolute differences, 0 where both are -inf."""
    with np.errstate(invalid="ignore"):
        return np.where(log_sums == others, 0.0, np.abs(log_sums - others))


def excess(error: FloatArray, stated: FloatArray, level: float) -> float:
    """Return a quantile of what errors are above those stated."""
    with np.errstate(invalid="ignore"):
        over = np.where(error <= stated, 0.0, error - stated)
    return float(np.quantile(over, level, method="higher"))


def calibrated(
    prepared: Prepared, spec: ReductionSpec, n_neighbors, tol: float, options
) -> Prepared:
    """Return points that have a search with the levels that the tolerance calls for.

    ``n_neighbors`` None is chosen. ``tol`` is the error in nats that is accepted, and the
    tolerance of ``spec`` the rounding that is allowed.
    """
    return _Calibration(prepared, spec, tol, options).result(n_neighbors)


class _Calibration:
    """Measures levels on the reserve; on some training points if nothing is reserved."""

    def __init__(self, prepared, spec, tol, options):
        self.prepared, self.near_far, self.tol = prepared, prepared.near_far, tol
        self.options, points = options.quiet(), self.near_far.points
        self.spec = dataclasses.replace(spec, points=points)
        self.own, n = self.near_far.reserve, points.shape[0]
        if not len(self.own):
            rng = np.random.default_rng(self.near_far.seed)
            self.own = np.sort(rng.choice(n, min(N_RESERVED, n), replace=False))
        self.queries = points.rows_as_queries(self.own)

    def result(self, n_neighbors):
        """Return the points with their two levels."""
        search, size = self.prepared.search, len(self.near_far.population)
        most = min(search.most, max(size - 1, 1))
        wanted = NEIGHBORS if n_neighbors is None else (n_neighbors,)
        choice = sorted({min(k, most) for k in wanted})
        exact = nearest_unreserved(
            self.near_far, self.queries, self.own, choice[-1], self.options
        )
        k = self._fewest(choice, exact)
        level, larger = Level(k, N_SAMPLED), None
        if isinstance(search, IndexSearch):
            level = self._least_effort(level, exact[:, :k])
            place = search.efforts.index(level.effort) + MORE_EFFORT
            larger = search.efforts[min(place, len(search.efforts) - 1)]
        more = Level(min(MORE * k, most), MORE * N_SAMPLED, larger, level.missed)
        reduction, points = LogSumExp(self.spec), self.near_far.points
        exact_sums = reduce_pairs(
            reduction, self.queries, points, self.options, leave_out=self.own
        )
        levels = tuple(self._measured(each, exact_sums[:, 0]) for each in (level, more))
        return dataclasses.replace(self.prepared, levels=levels)

    def _measured(self, level, exact_sums):
        """Return the level with what it misses, and how often it serves."""
        ids, kind = self._neighbors(level), self.prepared.search.kind
        terms = self._terms(ids, level.n_sampled, kind)
        far = level.n_sampled == N_SAMPLED < len(self.near_far.population)
        glance = far and self._by_glance(ids, kind, terms)
        stated = self._stated(terms)
        # a rare group far away, say, of which the sample has nothing
        over = excess(differences(terms.total(), exact_sums), stated, HELD_AT)
        missed = max(level.missed, over)
        met = float(np.mean(stated + missed <= self.tol))
        return dataclasses.replace(level, missed=missed, met=met, glance=glance)

    def _neighbors(self, level):
        return self.prepared.neighbors(self.queries, self.own, level, self.options)

    def _by_glance(self, ids, kind, terms):
        """Replace terms by those at a glance, if these will do for most queries."""
        at_a_glance, enough = self._sums(ids, kind).glance(GLANCE_SHARE * self.tol)
        if np.mean(enough) < GLANCED:
            return False
        rows = np.flatnonzero(enough)
        terms.put(rows, at_a_glance.subset(rows))
        return True

    def _sums(self, ids, kind):
        """Return the sums with neighbours of a search of this kind."""
        given = self.own, np.zeros(len(self.own)), ids, self.options
        return self.near_far.batch(self.spec, self.queries, *given, kind=kind)

    def _terms(self, ids, n_sampled=N_SAMPLED, kind="exact"):
        """Return the terms of the sums, with neighbours of a search of this kind."""
        sums = self._sums(ids, kind)
        return sums.terms(sums.moments(n_sampled))

    def _stated(self, terms):
        return terms.stated_error(self.near_far.points.shape[0], self.queries.dtype)

    def _fewest(self, choice, exact):
        """Return how few neighbours leave out little enough; the most if none do."""
        for k in choice[:-1]:
            error = self._stated(self._terms(exact[:, :k]))
            if np.quantile(error, HELD_AT, method="higher") <= LEFT_OUT_SHARE * self.tol:
                return k
        return choice[-1]

    def _least_effort(self, level, exact):
        """Return the level with the least effort that misses little; else the largest."""
        total = self._terms(exact).total()
        for effort in self.prepared.search.efforts:
            level = dataclasses.replace(level, effort=effort)
            error = differences(self._terms(self._neighbors(level)).total(), total)
            missed, worst = np.quantile(error, [MISSED_AT, WORST_AT], method="higher")
            if missed <= MISSED_SHARE * self.tol and worst <= WORST_SHARE * self.tol:
                break
        return dataclasses.replace(level, missed=float(missed))
