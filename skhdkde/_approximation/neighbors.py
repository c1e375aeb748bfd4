"""Which training points are near a query: exactly, or by an index.

A *search* has ``search(queries, own, k, effort, engine)``, which returns the indices
of points, (n_queries, at least k), -1 where there are no more, and never the query's own;
``efforts``, settings from fast to thorough, of which an exact search has none; and
``most``, the largest ``k``.
"""

import importlib.util
from numbers import Integral

import numpy as np
from sklearn.base import clone

from skhdkde._approximation.faiss_index import FaissIndex, require_faiss
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.reductions import NEIGHBOR_TOL, Nearest
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.threads import n_threads_for, progress_bar

# Below so many points comparing with all takes hardly longer than an index.
FEWEST_INDEXED = 100_000


class TileSearch:
    """All points are compared to the query."""

    kind = "exact"
    efforts = ()

    def __init__(self, points):
        self.points, self.most = points, points.shape[0]

    def search(self, queries, own, k, effort, engine):
        """See above."""
        found = reduce_pairs(
            Nearest(k, NEIGHBOR_TOL),
            queries,
            self.points,
            leave_out=own,
            **engine,
        )
        return found[:, k:].astype(np.int64)


class IndexSearch:
    """An index over some of the points.

    Parameters
    ----------
    points : TrainingPoints
    population : ndarray of int
        The points that are indexed, by their number in it.
    make : callable
        ``make(blocks, shape)`` makes the index; ``blocks(rows)`` gives coordinates.
    """

    def __init__(self, points, population, make):
        self.points, self.population = points, population
        n_features = points.shape[1]
        self.index = make(self._coordinates_of, (len(population), n_features))
        self.kind, self.efforts = self.index.kind, self.index.efforts
        self.most = getattr(self.index, "most", len(population))

    def _coordinates_of(self, rows):
        return self.points.centered(self.population[rows]).astype(np.float32)

    def search(self, queries, own, k, effort, engine):
        """See above."""
        n_threads = n_threads_for(engine["n_jobs"])
        ids = np.full((len(queries), k), -1)
        for rows in row_batches(len(queries), self.points.shape[1]):
            with np.errstate(over="ignore"):
                Z = (queries[rows] - self.points.center).astype(np.float32)
            # beyond its range all points are equally near: some will do
            Z = np.clip(np.nan_to_num(Z), -1e15, 1e15)
            found = self.index.search(Z, min(k + 1, self.most), effort, n_threads)
            ids[rows] = self._without(found, own[rows], k)
        return ids

    def _without(self, found, own, k):
        """Ids of points for numbers in the index, ``k`` of them without one's own."""
        ids = np.where(found >= 0, self.population[found], -1)
        mine = (ids == own[:, None]) & (ids >= 0)
        ids[mine] = -1
        order = np.argsort(ids < 0, axis=1, kind="stable")[:, :k]
        ids = np.take_along_axis(ids, order, 1)
        return np.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)


class TransformerIndex:
    """A neighbours transformer in scikit-learn's manner, ``mode="distance"``."""

    kind = "transformer"
    efforts = (None,)

    def __init__(self, transformer, blocks, shape):
        # some find one more than they are asked for
        self.most = min(_neighbors_of(transformer), max(shape[0] - 1, 1))
        ours = clone(transformer).set_params(n_neighbors=self.most)
        self.transformer = ours.fit(blocks(np.arange(shape[0])))

    def search(self, Z, k, effort, n_threads):
        graph = self.transformer.transform(Z)
        if not hasattr(graph, "tocsr"):
            raise TypeError(
                "neighbors_index must transform to a sparse matrix of distances, got "
                f"{type(graph).__name__} from a {type(self.transformer).__name__}."
            )
        graph = graph.tocsr()
        counts = np.diff(graph.indptr)
        found = np.full((len(Z), max(int(counts.max(initial=0)), k)), -1)
        rows = np.repeat(np.arange(len(Z)), counts)
        place = np.arange(len(rows)) - np.repeat(graph.indptr[:-1], counts)
        # nearest first: some transformers sort by column
        order = np.lexsort((graph.data, rows))
        found[rows, place] = graph.indices[order]
        return found[:, :k]


def wanted_index(estimator):
    """What `neighbors_index` and what is installed amount to.

    Returns
    -------
    kind : {"auto", "hnsw", "ivf", "exact"} or transformer
    """
    wanted = estimator.neighbors_index
    if wanted is None:
        return "auto" if importlib.util.find_spec("faiss") else "exact"
    if not isinstance(wanted, str):
        _check_transformer(wanted)
        own, asked = _neighbors_of(wanted), estimator.n_neighbors
        if asked is not None and asked > own:
            raise ValueError(
                f"n_neighbors={asked!r} must be at most that of neighbors_index, a "
                f"{type(wanted).__name__} with n_neighbors={own!r}."
            )
    elif wanted != "exact":
        require_faiss(f"neighbors_index={wanted!r}")
    return wanted


def _check_transformer(transformer):
    name, own = type(transformer).__name__, _neighbors_of(transformer)
    if isinstance(transformer, type):
        raise ValueError(
            "neighbors_index must be an estimator, not a class; got "
            f"{transformer.__name__}."
        )
    if isinstance(own, bool) or not isinstance(own, Integral) or own < 1:
        raise ValueError(
            "neighbors_index must find a number of neighbours: it needs an int "
            f"n_neighbors >= 1, got a {name} with n_neighbors={own!r}."
        )
    if getattr(transformer, "mode", "distance") != "distance":
        raise ValueError(
            f"neighbors_index needs mode='distance', got a {name} with "
            f"mode={transformer.mode!r}."
        )


def _neighbors_of(transformer):
    return getattr(transformer, "n_neighbors", None)


def make_search(wanted, points, population, seed, engine):
    """A search over the points ``population``.

    Parameters
    ----------
    wanted : {"hnsw", "ivf", "exact"} or transformer
    points : TrainingPoints
    population : ndarray of int
    seed : int
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.
    """
    if isinstance(wanted, str) and wanted == "exact":
        return TileSearch(points)
    if not isinstance(wanted, str):
        return IndexSearch(
            points, population, lambda *data: TransformerIndex(wanted, *data)
        )
    total, verbose = len(population), engine["verbose"]
    with progress_bar(total, verbose, f"{wanted} index", unit="point") as progress:
        options = seed, n_threads_for(engine["n_jobs"]), progress
        return IndexSearch(
            points, population, lambda *data: FaissIndex(wanted, *data, *options)
        )
