"""How many neighbours, and how hard to search for them, measured at fit.

An index that misses one near neighbour is wrong by nats, and how often it does depends on
the data. So some training points, the reserve, are kept out of the index: they are
fresh queries to it (points that are in an index are found far more easily). Their exact
neighbours are known from one pass. They are never lost: every sum has them all.
"""

from dataclasses import dataclass, replace

import numpy as np

from skhdkde._neighbors import IndexSearch, TileSearch, make_search
from skhdkde._points import distinct_rows
from skhdkde._split import N_SAMPLED, SplitSum

__all__ = ["Level", "Prepared", "calibrated", "prepare", "stated_error"]

# Training points on which is measured, and of them the largest share of all.
N_RESERVED, LARGEST_SHARE = 512, 0.05
# Numbers of neighbours to choose from.
NEIGHBORS = (8, 16, 32, 64, 128)
# Share of queries at which the error is held, and parts of the tolerance allowed there: to
# terms left out, and to neighbours missed.
HELD_AT, LEFT_OUT_PART, MISSED_PART = 0.95, 0.5, 0.25
MISSED_AT = 0.99
# Of points in a trial, and width of the walk there; queries that may lose their nearest.
TRIAL_SIZE, TRIAL_EFFORT, LOST_SHARE = 32_768, 256, 0.02
# Bytes of a graph with its vectors beyond which lists of codes are taken.
LARGEST_GRAPH = 4 * 2**30


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
        Error by neighbours that the search misses, in nats: 99 % of the queries on which
        it was measured are below.
    """

    n_neighbors: int
    n_sampled: int
    effort: int | None = None
    missed: float = 0.0


@dataclass
class Prepared:
    """The points of one frame, ready to be summed in parts.

    Attributes
    ----------
    split : SplitSum
    search : object or None
    group : ndarray of int of shape (n_points,)
        To which of the distinct points each training point belongs.
    weights : ndarray of shape (n_points,)
        Of the training points, relative to the largest of the distinct ones.
    log_factor : float
        Log of the latter.
    level : Level
    """

    split: SplitSum
    search: object
    group: np.ndarray
    weights: np.ndarray
    log_factor: float
    level: Level = Level(0, N_SAMPLED)

    def own(self, leave_out):
        """Distinct point of each query, and the weight of its copies."""
        own = np.where(leave_out >= 0, self.group[leave_out], -1)
        merged = self.split.weights
        total = 1.0 if merged is None else merged[own]
        copies = total - self.weights[leave_out]
        # weights that are added and taken away again leave rounding
        copies = np.where((own >= 0) & (copies > 1e-12 * total), copies, 0.0)
        return own, copies


def prepare(points, wanted, seed, engine):
    """Reserve, sample and index of training points.

    Parameters
    ----------
    points : TrainingPoints
    wanted : str, transformer or None
        See :func:`~skhdkde._neighbors.wanted_index`; None for no search.
    seed : int
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.

    Returns
    -------
    Prepared
    """
    first, group = distinct_rows(points)
    weights = np.ones(len(group)) if points.weights is None else points.weights
    largest = 1.0
    if len(first) < len(group):
        merged = np.bincount(group, weights=weights)
        largest = float(merged.max())
        points = points.take(first, merged / largest)
    n, reserve = len(first), np.empty(0, dtype=int)
    if wanted is not None and not (isinstance(wanted, str) and wanted == "exact"):
        rng = np.random.default_rng(seed)
        reserve = rng.choice(n, min(N_RESERVED, int(LARGEST_SHARE * n)), replace=False)
    split = SplitSum(points, reserve, seed)
    search = None
    if wanted is not None:
        search = _search(split, wanted, seed, engine)
    return Prepared(split, search, group, weights / largest, float(np.log(largest)))


def _search(split, wanted, seed, engine):
    points, population = split.points, split.population
    if not (isinstance(wanted, str) and wanted == "auto"):
        return make_search(wanted, points, population, seed, engine)
    n_bytes = len(population) * (4 * points.shape[1] + 160)
    if n_bytes > LARGEST_GRAPH or not len(split.reserve):
        return make_search("ivf", points, population, seed, engine)
    rng = np.random.default_rng(seed)
    size = min(TRIAL_SIZE, len(population))
    trial = np.sort(rng.choice(population, size, replace=False))
    if _loses_its_way(split, trial, seed, engine):
        return make_search("ivf", points, population, seed, engine)
    search = make_search("hnsw", points, population, seed, engine)
    return search


def _loses_its_way(split, rows, seed, engine):
    """Whether walks on a graph over the points ``rows`` miss the nearest too often."""
    engine = {**engine, "verbose": 0}
    search = make_search("hnsw", split.points, rows, seed, engine)
    queries = split.points.rows_as_queries(split.reserve)
    nobody = np.full(len(queries), -1)
    found = search.search(queries, nobody, 1, TRIAL_EFFORT, engine)[:, 0]
    exact = TileSearch(split.points.take(rows)).search(queries, nobody, 1, None, engine)
    return np.mean(found != rows[exact[:, 0]]) > LOST_SHARE


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
    """The same with a level at which the tolerance is met, where one does.

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
        exact = self._exact(choice[-1])
        k = self._fewest(choice, exact)
        level = Level(k, N_SAMPLED)
        if isinstance(search, IndexSearch):
            level = self._least_effort(level, exact[:, :k])
        return replace(self.prepared, level=level)

    def _exact(self, k):
        """Ids of the nearest points that are indexed."""
        split = self.prepared.split
        some_more = int(np.ceil(k * 1.2 * LARGEST_SHARE)) + 8 if len(split.reserve) else 0
        wide = min(k + some_more, split.points.shape[0])
        ids = TileSearch(split.points).search(
            self.queries, self.own, wide, None, self.engine
        )
        ids[np.isin(ids, split.reserve)] = -1
        order = np.argsort(ids < 0, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(ids, order, 1)

    def _terms(self, ids):
        split, alone = self.prepared.split, np.zeros(len(self.own))
        options = self.own, alone, ids, split.sample(N_SAMPLED), self.rounding
        return split.terms(self.kernel, self.h, self.queries, *options, self.engine)

    def _fewest(self, choice, exact):
        """Neighbours that leave out little enough; the most if none do."""
        for k in choice[:-1]:
            error = stated_error(self._terms(exact[:, :k]))
            if np.quantile(error, HELD_AT) <= LEFT_OUT_PART * self.tol:
                return k
        return choice[-1]

    def _least_effort(self, level, exact):
        """Effort that misses little enough; the largest if none does."""
        search, k = self.prepared.search, level.n_neighbors
        total = self._terms(exact).total()
        for effort in search.efforts:
            ids = search.search(self.queries, self.own, k, effort, self.engine)
            error = np.abs(self._terms(ids).total() - total)
            missed = float(np.quantile(error, MISSED_AT, method="higher"))
            if missed <= MISSED_PART * self.tol:
                break
        return replace(level, effort=effort, missed=missed)
