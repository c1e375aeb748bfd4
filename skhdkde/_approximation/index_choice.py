"""Which index suits the data, found by trial.

Whether an index finds the nearest points depends on the structure of the data, which no
number of features or points tells. So small indexes over some of the points are tried,
with training points that are in none of them as queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skhdkde._approximation.near_far_sum import NearFarSum
from skhdkde._approximation.neighbors import TileSearch, first_found, make_search
from skhdkde._pairwise import ComputeOptions
from skhdkde._utils.typing import NeighborSearch

# Share of the points that may be reserved, and how many of those may be among the nearest
# beyond that share.
LARGEST_SHARE, MORE_AMONG_NEAR = 0.05, 8
# Points in a trial of an index, and share of queries that may lose their nearest there.
TRIAL_SIZE, LOST_SHARE = 32_768, 0.02
# Width of the walk in a trial. Shares of the lists: where few are enough, data are in far
# clusters, for which lists are the better index; many take as long to scan as all points.
TRIAL_WALK, FEW_LISTS, MANY_LISTS = 256, 0.02, 0.125
# Bytes of a graph with its vectors beyond which lists are used instead: a graph of a
# million points takes minutes, one of ten millions hours.
LARGEST_GRAPH = 2**30


def suitable_search(
    near_far: NearFarSum, wanted: Any, seed: int, options: ComputeOptions
) -> NeighborSearch | None:
    """Return the search that is wanted; for "auto" one that suits the data, or None."""
    points, population = near_far.points, near_far.population

    def made(kind):
        return make_search(kind, points, population, seed, options)

    if not (isinstance(wanted, str) and wanted == "auto"):
        return made(wanted)
    if not len(near_far.reserve):
        return None
    trial = _Trial(near_far, seed, options)
    n_bytes = len(population) * (2 * points.shape[1] + 160)
    if not trial.finds("ivf", FEW_LISTS) and n_bytes <= LARGEST_GRAPH:
        if trial.finds("hnsw", TRIAL_WALK):
            search = made("hnsw")
            # some clusters may be far apart only in the graph over all points
            exact = nearest_unreserved(near_far, trial.queries, trial.own, 1, options)
            if trial.loses_few(search, TRIAL_WALK, exact):
                return search
    return made("ivf") if trial.finds("ivf", MANY_LISTS) else None


class _Trial:
    """Indexes over some of the points, with the reserve as queries."""

    def __init__(self, near_far, seed, options):
        self.own = near_far.reserve
        self.queries = near_far.points.rows_as_queries(self.own)
        self.seed, self.options = seed, options.quiet()
        size = min(TRIAL_SIZE, len(near_far.population))
        rows = np.random.default_rng(seed).choice(
            near_far.population, size, replace=False
        )
        self.points, self.searches = near_far.points.subset(np.sort(rows)), {}
        self.exact = self._found(TileSearch(self.points), None)

    def finds(self, kind, effort):
        """Return whether an index over the trial's points finds the nearest often enough.

        ``effort`` is the width of the walk, or the share of the lists to scan.
        """
        if kind not in self.searches:
            rows = np.arange(self.points.shape[0])
            self.searches[kind] = make_search(
                kind, self.points, rows, self.seed, self.options
            )
        search = self.searches[kind]
        effort = effort if kind == "hnsw" else max(1.0, effort * search.efforts[-1])
        return self.loses_few(search, effort, self.exact)

    def loses_few(self, search, effort, exact):
        """Return whether a search misses few of the nearest points ``exact``."""
        return np.mean(self._found(search, effort) != exact) <= LOST_SHARE

    def _found(self, search, effort):
        nobody = np.full(len(self.own), -1)
        return search.search(self.queries, nobody, 1, effort, self.options)


def nearest_unreserved(near_far, queries, own, k, options):
    """Return the ``k`` nearest points that are not reserved; -1 where there are fewer."""
    reserve = near_far.reserve
    among = int(np.ceil(k * LARGEST_SHARE)) + MORE_AMONG_NEAR if len(reserve) else 0
    wide = min(k + among, near_far.points.shape[0])
    ids = TileSearch(near_far.points).search(queries, own, wide, None, options.quiet())
    return first_found(np.where(np.isin(ids, reserve), -1, ids), k)
