"""Which index suits the data, found by trial.

An index finds its way by the structure of the data; which it has, no number of features
or points says. So small indexes over some of the points are tried, with training points
that are in none of them as queries.
"""

import numpy as np

from skhdkde._approximation.neighbors import TileSearch, make_search

# Share of the points that may be reserved, and how many of those may be among the nearest
# beyond that share.
LARGEST_SHARE, MORE_AMONG_NEAR = 0.05, 8
# Points in a trial of an index, and share of queries that may lose their nearest there.
TRIAL_SIZE, LOST_SHARE = 32_768, 0.02
# Width of the walk in a trial. Share of the lists: where few are enough, data are in far
# clusters, for which lists are the better index; many take as long to scan as all points.
TRIAL_WALK, FEW_LISTS, MANY_LISTS = 256, 0.02, 0.125
# Bytes of a graph with its vectors beyond which lists of codes are taken.
LARGEST_GRAPH = 4 * 2**30


def suitable_search(split, wanted, seed, engine):
    """The search that is wanted; for "auto" an index that suits the data, or None."""
    points, population = split.points, split.population
    if not (isinstance(wanted, str) and wanted == "auto"):
        return make_search(wanted, points, population, seed, engine)
    if not len(split.reserve):
        return None
    n_bytes = len(population) * (4 * points.shape[1] + 160)
    trial = _Trial(split, seed, engine)
    if not trial.finds("ivf", FEW_LISTS) and n_bytes <= LARGEST_GRAPH:
        if trial.finds("hnsw", TRIAL_WALK):
            search = make_search("hnsw", points, population, seed, engine)
            # far clusters may have come apart only in the whole
            if _lost(search, TRIAL_WALK, split, points, engine) <= LOST_SHARE:
                return search
    if trial.finds("ivf", MANY_LISTS):
        return make_search("ivf", points, population, seed, engine)
    return None


class _Trial:
    """Indexes over some of the points."""

    def __init__(self, split, seed, engine):
        self.split, self.seed, self.engine = split, seed, {**engine, "verbose": 0}
        size, rng = min(TRIAL_SIZE, len(split.population)), np.random.default_rng(seed)
        self.rows = np.sort(rng.choice(split.population, size, replace=False))
        self.points, self.searches = split.points.take(self.rows), {}

    def finds(self, kind, effort):
        """Whether the nearest point is found often enough.

        ``effort`` is the width of the walk, or the share of the lists to scan.
        """
        if kind not in self.searches:
            everything = np.arange(len(self.rows))
            self.searches[kind] = make_search(
                kind, self.points, everything, self.seed, self.engine
            )
        search = self.searches[kind]
        effort = effort if kind == "hnsw" else max(1.0, effort * search.efforts[-1])
        return _lost(search, effort, self.split, self.points, self.engine) <= LOST_SHARE


def _lost(search, effort, split, points, engine):
    """Share of the reserve for which a search over ``points`` misses the nearest."""
    engine = {**engine, "verbose": 0}
    queries = split.points.rows_as_queries(split.reserve)
    nobody = np.full(len(queries), -1)
    found = search.search(queries, nobody, 1, effort, engine)
    if points is split.points:
        exact = nearest_unreserved(split, queries, split.reserve, 1, engine)
    else:
        exact = TileSearch(points).search(queries, nobody, 1, None, engine)
    return np.mean(found[:, 0] != exact[:, 0])


def nearest_unreserved(split, queries, own, k, engine):
    """The ``k`` nearest points that are not reserved; -1 where there are fewer."""
    reserve = split.reserve
    among = int(np.ceil(k * LARGEST_SHARE)) + MORE_AMONG_NEAR if len(reserve) else 0
    wide = min(k + among, split.points.shape[0])
    ids = TileSearch(split.points).search(queries, own, wide, None, engine)
    ids = np.where(np.isin(ids, reserve), -1, ids)
    order = np.argsort(ids < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, 1)
