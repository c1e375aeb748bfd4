"""How many neighbours, and how hard to search for them, measured at fit.

An index that misses one near neighbour is wrong by nats, and how often it does depends on
the data. So some training points, the reserve, are kept out of the index: they are
fresh queries to it (points that are in an index are found far more easily). Their exact
neighbours are known from one pass. They are never lost: every sum has them all.
"""

from dataclasses import dataclass, replace

import numpy as np

from skhdkde._approximation.index_choice import (
    LARGEST_SHARE,
    nearest_unreserved,
    suitable_search,
)
from skhdkde._approximation.near_far_sum import N_SAMPLED, NearFarSum
from skhdkde._approximation.neighbors import IndexSearch, TileSearch
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.points import distinct_rows
from skhdkde._pairwise.reductions import LogSumExp, pair_dtype

# Training points on which is measured, if they are not too large a share of all.
N_RESERVED = 512
# Numbers of neighbours to choose from.
NEIGHBORS = (8, 16, 32, 64, 128)
# Share of queries at which the error is held, and parts of the tolerance allowed there:
# to terms left out, and to neighbours missed. A miss is rare but may cost nats: what is
# allowed to it at a larger share.
HELD_AT, LEFT_OUT_PART, MISSED_PART = 0.95, 0.5, 0.25
MISSED_AT, WORST_AT, WORST_PART = 0.98, 0.99, 10.0
# Rounding of an exponent and the log of a sum, in units of eps.
ROUNDING = 16.0
# Growth of neighbours and sample where the first do not suffice.
MORE = 8
# Time of a sampled pair, in units of one of the exact sum.
SAMPLED = 3.0
# Time of a distance to a point that is met on the way through a graph or in a list, in
# units of that by products of matrices; and points that are met for each unit of width of
# the walk.
MET, MET_ON_WALK = 3.0, 30.0


@dataclass(frozen=True)
class Level:
    """How thoroughly a sum is approximated.

    Attributes
    ----------
    n_neighbors : int
        Nearest points that are summed one by one; 0 for none.
    n_sampled : int
        Size of the sample of the others.
    effort : int or None
        Of the search: width of the walk (HNSW) or lists scanned (IVF).
    missed : float
        Error by neighbours that the search misses, in nats, that 98 % of the queries on
        which it was measured are below; or what else shows where all points are summed.
    met : float
        Share of those queries for which the tolerance was met.
    """

    n_neighbors: int
    n_sampled: int
    effort: int | None = None
    missed: float = 0.0
    met: float = 0.0


@dataclass
class Prepared:
    """The points of one whitening, ready to be summed in parts.

    Attributes
    ----------
    split : NearFarSum
    search : object or None
    group : ndarray of int of shape (n_points,)
        To which of the distinct points each training point belongs.
    copies : ndarray of shape (n_points,) or None
        Weight of the other points of its group, relative to the largest of the distinct
        ones; None without copies.
    log_factor : float
        Log of the latter.
    levels : tuple of Level
        The one to begin with, and one that is more thorough.
    """

    split: NearFarSum
    search: object
    group: np.ndarray
    copies: object
    log_factor: float
    levels: tuple = (Level(0, N_SAMPLED),)

    def cost(self, level):
        """Of a query, in units of the distance to a point by a product of matrices."""
        found = level.n_neighbors + SAMPLED * level.n_sampled + len(self.split.reserve)
        if self.search is None or level.n_neighbors == 0:
            return found
        n, kind = len(self.split.population), self.search.kind
        if kind == "exact":
            return found + n
        if kind == "ivf":
            return found + MET * n * level.effort / self.search.efforts[-1]
        if kind == "hnsw":
            return found + MET * MET_ON_WALK * max(level.effort, level.n_neighbors)
        return found  # a transformer's is not known

    def own(self, leave_out):
        """Distinct point of each query, and the weight of its copies."""
        own = np.where(leave_out >= 0, self.group[leave_out], -1)
        if self.copies is None:
            return own, np.zeros(len(own))
        return own, np.where(own >= 0, self.copies[leave_out], 0.0)

    @property
    def worth_it(self):
        """Whether there is a search, of less work than comparing with all points."""
        if self.search is None:
            return False
        exact = self.search.kind == "exact"
        return exact or self.cost(self.levels[0]) < len(self.split.population)

    def by_all(self):
        """The same with an exact search, and nothing reserved."""
        split = NearFarSum(self.split.points, np.empty(0, dtype=int), self.split.seed)
        return replace(self, split=split, search=TileSearch(split.points))


def prepare(points, wanted, seed, engine):
    """Reserve, sample and index of training points.

    Parameters
    ----------
    points : TrainingPoints
    wanted : str, transformer or None
        See :func:`~skhdkde._neighbors.wanted_index`; None for no search. If none suits
        the data, "auto" is None.
    seed : int
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.

    Returns
    -------
    Prepared
    """
    first, group = distinct_rows(points)
    copies, largest = None, 1.0
    if len(first) < len(group):
        weights = np.ones(len(group)) if points.weights is None else points.weights
        # what is left of a group without its heaviest must not be rounding
        merged = np.zeros(len(first), dtype=np.longdouble)
        np.add.at(merged, group, weights)
        largest = float(merged.max())
        points = points.take(first, (merged / largest).astype(np.float64))
        copies = ((merged[group] - weights) / largest).astype(np.float64)
    n, reserve = len(first), np.empty(0, dtype=int)
    if wanted is not None and n <= N_SAMPLED:
        wanted = "exact"  # a sample has all of them anyway
    if wanted is not None and not (isinstance(wanted, str) and wanted == "exact"):
        rng = np.random.default_rng(seed)
        reserve = rng.choice(n, min(N_RESERVED, int(LARGEST_SHARE * n)), replace=False)
    split = NearFarSum(points, reserve, seed)
    search = None if wanted is None else suitable_search(split, wanted, seed, engine)
    return Prepared(split, search, group, copies, float(np.log(largest)))


def differences(log_sums, others):
    """How far apart, 0 where both are -inf."""
    with np.errstate(invalid="ignore"):
        return np.where(log_sums == others, 0.0, np.abs(log_sums - others))


def excess(error, stated, level):
    """Quantile of what errors are above those stated."""
    with np.errstate(invalid="ignore"):
        over = np.where(error <= stated, 0.0, error - stated)
    return float(np.quantile(over, level, method="higher"))


def rounding_error(log_sums, n_points, dtype):
    """Of logs of sums over so many points, by exponents in ``dtype``."""
    size = 1.0 + np.log(n_points) + np.abs(log_sums)
    rounding = ROUNDING * np.finfo(dtype).eps * size
    return np.where(np.isinf(log_sums), 0.0, rounding)


def stated_error(terms, missed=0.0):
    """Error in nats that the log of a sum is below for about 95 % of queries.

    Two standard deviations of the sample's part and what neither neighbours nor sample
    have, in squares, plus what the search misses.
    """
    total = terms.total()
    with np.errstate(invalid="ignore", over="ignore"):
        sampled = 2.0 * np.exp(terms.deviation - total)
        unseen = np.exp(terms.unseen - total)
        error = np.log1p(np.hypot(sampled, unseen))
    nothing = np.isneginf(terms.unseen) & np.isneginf(terms.deviation)
    return np.where(nothing, 0.0, error) + missed


def calibrated(prepared, kernel, h, n_neighbors, tol, rounding, engine):
    """The same with the levels that the tolerance calls for.

    Parameters
    ----------
    prepared : Prepared
        With a search.
    kernel : object
    h : float
        In scaled units.
    n_neighbors : int or None
        None to choose it.
    tol : float
        Error that is accepted, in nats.
    rounding : float
        Error by rounding that is allowed.
    engine : dict

    Returns
    -------
    Prepared
    """
    return _Calibration(prepared, kernel, h, tol, rounding, engine).result(n_neighbors)


class _Calibration:
    def __init__(self, prepared, kernel, h, tol, rounding, engine):
        self.prepared, self.kernel, self.h = prepared, kernel, h
        self.tol, self.rounding, self.engine = tol, rounding, {**engine, "verbose": 0}
        split = prepared.split
        self.own = split.reserve
        if not len(self.own):
            rng = np.random.default_rng(split.seed)
            size = min(N_RESERVED, split.points.shape[0])
            self.own = np.sort(rng.choice(split.points.shape[0], size, replace=False))
        self.queries = split.points.rows_as_queries(self.own)

    def result(self, n_neighbors):
        search, split = self.prepared.search, self.prepared.split
        most = min(search.most, max(len(split.population) - 1, 1))
        wanted = NEIGHBORS if n_neighbors is None else (n_neighbors,)
        choice = sorted({min(k, most) for k in wanted})
        options = self.queries, self.own, choice[-1], self.engine
        exact = nearest_unreserved(split, *options)
        k = self._fewest(choice, exact)
        level = Level(k, N_SAMPLED)
        if isinstance(search, IndexSearch):
            level = self._least_effort(level, exact[:, :k])
        efforts = list(search.efforts)
        place = efforts.index(level.effort) + 2 if efforts else 0
        more = replace(
            level,
            n_neighbors=min(MORE * k, most),
            n_sampled=MORE * N_SAMPLED,
            effort=efforts[min(place, len(efforts) - 1)] if efforts else None,
        )
        everything = self._over_all()
        levels = tuple(self._measured(each, everything) for each in (level, more))
        return replace(self.prepared, levels=levels)

    def _over_all(self):
        """Log sums over all points."""
        points = self.prepared.split.points
        reduction = LogSumExp(self.kernel, self.h, points, self.rounding)
        options = {"leave_out": self.own, "dtype": pair_dtype(self.kernel, points)}
        options = {**options, **self.engine}
        return reduce_pairs(reduction, self.queries, points, **options)[:, 0]

    def _measured(self, level, everything):
        """The level with its errors beyond those stated, and how often it serves."""
        terms = self._terms(self._found(level), level.n_sampled)
        stated = self._stated(terms)
        # a rare group far away, say, of which the sample has nothing
        over = excess(differences(terms.total(), everything), stated, HELD_AT)
        missed = max(level.missed, over)
        met = float(np.mean(stated + missed <= self.tol))
        return replace(level, missed=missed, met=met)

    def _stated(self, terms, missed=0.0):
        n_points = self.prepared.split.points.shape[0]
        rounding = rounding_error(terms.total(), n_points, self.queries.dtype)
        return stated_error(terms, missed) + rounding

    def _found(self, level):
        search = self.queries, self.own, level.n_neighbors, level.effort, self.engine
        return self.prepared.search.search(*search)

    def _terms(self, ids, n_sampled=N_SAMPLED):
        split, sums = self.prepared.split, (self.kernel, self.h, self.queries)
        last = n_sampled, self.rounding, self.engine
        columns = split.moments(*sums, split.hidden(self.own, ids), *last)
        alone = np.zeros(len(self.own))
        return split.terms(*sums, self.own, alone, ids, columns, *last)

    def _fewest(self, choice, exact):
        """Neighbours that leave out little enough; the most if none do."""
        for k in choice[:-1]:
            error = self._stated(self._terms(exact[:, :k]))
            if np.quantile(error, HELD_AT) <= LEFT_OUT_PART * self.tol:
                return k
        return choice[-1]

    def _least_effort(self, level, exact):
        """Effort that misses little enough; the largest if none does."""
        total = self._terms(exact).total()
        for effort in self.prepared.search.efforts:
            level = replace(level, effort=effort)
            error = differences(self._terms(self._found(level)).total(), total)
            missed, worst = np.quantile(error, [MISSED_AT, WORST_AT], method="higher")
            if missed <= MISSED_PART * self.tol and worst <= WORST_PART * self.tol:
                break
        return replace(level, missed=float(missed))
