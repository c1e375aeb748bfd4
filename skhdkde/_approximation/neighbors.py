"""Which training points are near a query: exactly, or by an index."""

from __future__ import annotations

import copy
import importlib.util
from numbers import Integral
from typing import Any, Self

import numpy as np
from scipy.spatial import KDTree
from sklearn.base import clone
from sklearn.utils.extmath import randomized_svd

from skhdkde._approximation.faiss_index import (
    FaissIndex,
    GivenFaissIndex,
    check_faiss_index,
    is_faiss_index,
    require_faiss,
)
from skhdkde._pairwise import (
    NEIGHBOR_TOL,
    ComputeOptions,
    Nearest,
    TrainingPoints,
    reduce_pairs,
)
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.threads import n_threads_for, openmp_after_fork, progress_bar
from skhdkde._utils.typing import IntArray, NeighborSearch

# Axes of a projection, and points to find them from.
MOST_AXES, N_FOR_AXES = 20, 2048
# How much farther points may be than the nearest there, relatively, for each axis: among
# many, a search for the nearest takes as long as comparison with all points.
TOL_PER_AXIS = 0.125
# Scaled units beyond which all points are equally near.
FARTHEST = 1e15
# How much larger than those before points may be that are added to an index, which may
# keep coordinates in half precision.
LARGEST_GROWTH = 2.0**12


class TileSearch(NeighborSearch):
    """Compares the queries with all points."""

    kind = "exact"
    efforts = ()

    def __init__(self, points: TrainingPoints):
        self.points, self.most = points, points.shape[0]

    def search(self, queries, own, k, effort, options):
        reduction = Nearest(k, NEIGHBOR_TOL)
        found = reduce_pairs(reduction, queries, self.points, options, leave_out=own)
        return found[:, k:].astype(np.int64)


class IndexSearch(NeighborSearch):
    """Searches an index of the centred coordinates of the points ``population``.

    The index stays in the units in which it was made, also where those of the points
    change as they grow.
    """

    def __init__(self, points: TrainingPoints, population: IntArray, index: Any):
        self.points, self.population, self.index = points, population, index
        self.kind, self.efforts, self.most = index.kind, index.efforts, index.most
        self.center, self.scale = points.center, points.scale

    def grown(self, points: TrainingPoints, ids: IntArray, options) -> Self:
        """Return the search over these and more points, ``ids`` among ``points``."""
        found = copy.copy(self)
        found.points, found.population = points, np.append(self.population, ids)

        def coordinates(rows):
            return found._coordinates(points.exact[ids[rows]])

        n_threads = n_threads_for(options.n_jobs)
        found.index = self.index.grown(coordinates, len(ids), n_threads)
        found.most = found.index.most
        return found

    def _coordinates(self, exact):
        """Return points or queries in scaled units as the index has them, float32."""
        with np.errstate(over="ignore"):
            Z = exact * (self.scale / self.points.scale) - self.center
            # beyond its range all points are equally near: some will do
            return np.clip(Z.astype(np.float32), -FARTHEST, FARTHEST)

    def search(self, queries, own, k, effort, options):
        n_threads = n_threads_for(options.n_jobs) if len(queries) > 1 else 1
        ids = np.full((len(queries), k), -1)
        for rows in row_batches(len(queries), self.points.shape[1]):
            Z = self._coordinates(queries[rows])
            found = self.index.search(Z, min(k + 1, self.most), effort, n_threads)
            found = np.where(found >= 0, self.population[found], -1)
            found = first_found(np.where(found == own[rows, None], -1, found), k)
            ids[rows, : found.shape[1]] = found
        return ids


class ProjectedSearch(NeighborSearch):
    """Finds points that are near in a projection to the leading principal axes.

    These are not always the nearest. But a point that is much nearer than others is near
    in every projection, where a k-d tree finds it without comparison with all points.
    """

    kind = None
    efforts = ()

    def __init__(self, points: TrainingPoints, seed: int):
        self.points, (self.most, n_features) = points, points.shape
        n_axes = min(MOST_AXES, n_features)
        self.tol = TOL_PER_AXIS * n_axes
        self.axes = _principal_axes(points, n_axes, seed)
        batches = row_batches(self.most, n_features)
        there = [points.centered(rows) @ self.axes for rows in batches]
        self.tree = KDTree(np.vstack(there))

    def search(self, queries, own, k, effort, options):
        ids, k = np.full((len(queries), k), -1), min(k, self.most - 1)
        for rows in row_batches(len(queries), self.points.shape[1]):
            Z = (queries[rows] - self.points.center) @ self.axes
            found = self.tree.query(
                np.clip(Z, -FARTHEST, FARTHEST),
                np.arange(1, k + 2),
                eps=self.tol,
                workers=n_threads_for(options.n_jobs),
            )[1]
            found = np.where(found == own[rows, None], -1, found)
            ids[rows, :k] = first_found(found, k)
        return ids


def _principal_axes(points, n_axes, seed):
    """Return principal axes of points, (n_features, n_axes), that outliers do not set."""
    rng, n_points = np.random.default_rng(seed), points.shape[0]
    rows = np.sort(rng.choice(n_points, min(n_points, N_FOR_AXES), replace=False))
    Z = points.centered(rows).astype(np.float64)
    length = np.maximum(np.linalg.norm(Z, axis=1), np.finfo(float).tiny)
    Z *= np.minimum(1.0, np.median(length) / length)[:, None]
    return randomized_svd(Z, n_axes, random_state=seed)[2].T


def first_found(ids: IntArray, k: int) -> IntArray:
    """Return the first ``k`` of each row that are not -1, followed by -1."""
    if (ids >= 0).all():
        return ids[:, :k]
    order = np.argsort(ids < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, 1)


class TransformerIndex:
    """A neighbours transformer in scikit-learn's manner, ``mode="distance"``."""

    kind = "transformer"
    efforts = (None,)

    @openmp_after_fork()
    def __init__(self, transformer, coordinates, shape):
        # some find one more than they are asked for
        self.most = min(transformer.n_neighbors, max(shape[0] - 1, 1))
        ours = clone(transformer).set_params(n_neighbors=self.most)
        self.transformer = ours.fit(coordinates(np.arange(shape[0])))

    def search(self, Z, k, effort, n_threads):
        """Return places of the nearest in the index, as `FaissIndex.search` does."""
        with openmp_after_fork():
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
    """Return what an estimator asks for: "auto", "hnsw", "ivf", "exact" or an object.

    That is a transformer or an index of faiss. Raises ValueError if it will not do,
    ImportError if faiss is missing.
    """
    wanted = estimator.neighbors_index
    if wanted is None:
        return "auto" if importlib.util.find_spec("faiss") else "exact"
    if is_faiss_index(wanted):
        check_faiss_index(wanted)
    elif not isinstance(wanted, str):
        _check_transformer(wanted, estimator.n_neighbors)
    elif wanted != "exact":
        require_faiss(f"neighbors_index={wanted!r}")
    return wanted


def _check_transformer(transformer, n_neighbors):
    """Raise ValueError unless a transformer finds as many neighbours, with distances."""
    name, own = type(transformer).__name__, getattr(transformer, "n_neighbors", None)
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
    if n_neighbors is not None and n_neighbors > own:
        raise ValueError(
            f"n_neighbors={n_neighbors!r} must be at most that of neighbors_index, a "
            f"{name} with n_neighbors={own!r}."
        )


def grown_search(
    search: NeighborSearch | None,
    points: TrainingPoints,
    population: IntArray,
    wanted: Any,
    seed: int,
    options: ComputeOptions,
) -> NeighborSearch | None:
    """Return a search with more points: those of ``population``, the earlier ones first.

    An index of faiss gets them added, if it can hold them in its units and their codes
    are not coarse; others are made again. ``wanted`` is the transformer or index of faiss
    that the user gave, if any. There is no search for one that finds only some.
    """
    if search is None or search.kind is None:
        return None
    if isinstance(search, IndexSearch) and search.kind != "transformer":
        if search.scale <= LARGEST_GROWTH * points.scale:
            more = population[len(search.population) :]
            found = search.grown(points, more, options)
            if not found.index.is_coarse:
                return found
    of_ours = search.kind in ("exact", "hnsw", "ivf")
    wanted = search.kind if of_ours else wanted
    return make_search(wanted, points, population, seed, options)


def make_search(
    wanted, points: TrainingPoints, population, seed: int, options: ComputeOptions
) -> NeighborSearch:
    """Return the search that is wanted, over the points ``population``.

    ``wanted`` is "hnsw", "ivf", "exact", a transformer or an empty index of faiss.
    """
    if isinstance(wanted, str) and wanted == "exact":
        return TileSearch(points)

    def coordinates(rows):
        return points.centered(population[rows]).astype(np.float32)

    shape = len(population), points.shape[1]
    given = not isinstance(wanted, str)
    if given and not is_faiss_index(wanted):
        transformer = TransformerIndex(wanted, coordinates, shape)
        return IndexSearch(points, population, transformer)
    n_threads, label = n_threads_for(options.n_jobs), "index" if given else wanted
    kind = GivenFaissIndex if given else FaissIndex
    with progress_bar(shape[0], options.verbose, label, unit="point") as progress:
        index = kind(wanted, coordinates, shape, seed, n_threads, progress)
    return IndexSearch(points, population, index)
