"""Approximate nearest neighbours by faiss: the only file that uses it.

Two kinds, both of squared Euclidean distances. (Points of equal norm need no inner
products: the order is the same, and graphs over inner products are hard to walk.)

- ``HNSW``, a graph that is walked towards the query: fast, but where the data are
  clusters far apart the walk may not find the way to the right one, however long;
- ``IVF``, the points by their nearest centroid, of which the nearest few are scanned:
  up to three times slower on data in one piece, and never lost.

Both keep coordinates in half precision, lists of many points in a byte each: who is near
is found by them, and distances are then computed from the points. Bytes have one range
for all lists, which a few large entries may stretch, and half precision does not resolve
small ones: lists have the other code where that of their size is coarse for the sample
that they are trained on.
"""

import contextlib
from typing import Any, Self

import numpy as np

from skhdkde._utils.threads import openmp_threads
from skhdkde._utils.typing import FloatArray

# Links of a point, and width of the walk that finds them.
N_LINKS, CONSTRUCTION = 16, 80
# Root mean square of the coordinates of a typical point, in scaled units, down to which
# half precision resolves them; and points to tell it from.
SMALLEST_HALF, N_TYPICAL = 1e-3, 1000
# Lists per square root of the number of points, points per list to train them on, and
# rounds of k-means.
LISTS, TRAINED_ON, ROUNDS = 4, 40, 8
# Bytes of coordinates in half precision beyond which lists have a byte for each.
LARGEST_HALF = 2**30
# Error of a code, relative to the distance from the centroid, from which on it is coarse;
# and the share of rows that may be coarse: of a sample of so many, and of all points that
# are added later, relative to those before.
COARSE, COARSE_SHARE, N_CODED, COARSE_ADDED = 0.1, 0.1, 2000, 0.01
# Points that an index of the user is trained on, at most.
N_TRAINED = 200_000
# Rows added at once, between which the user can interrupt.
ROWS_AT_ONCE = 20_000


def require_faiss(parameter: str) -> Any:
    """Return faiss, or raise ImportError and say what to install for ``parameter``."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            f"{parameter} needs faiss, which is not installed: "
            "pip install 'skhdkde[neighbors]'."
        ) from error
    return faiss


class FaissIndex:
    """An index of ``kind`` "hnsw" or "ivf" over points of a ``shape``.

    ``coordinates(rows)`` returns those of some points, in float32. ``progress`` is called
    with the number of points added.
    """

    n_coarse = 0  # of the points added later, those whose codes are coarse

    def __init__(self, kind, coordinates, shape, seed, n_threads, progress):
        self.kind, (self.most, n_features) = kind, shape
        faiss = require_faiss(f"neighbors_index={kind!r}")
        with _threads(faiss, n_threads):
            if kind == "hnsw":
                self.index = self._graph(faiss, coordinates, n_features)
            else:
                self.index = self._trained(faiss, coordinates, n_features, seed)
            self._add(coordinates, self.most, progress)

    def _add(self, coordinates, n_points, progress):
        for start in range(0, n_points, ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, n_points))
            self.index.add(coordinates(rows))
            progress(len(rows))

    def grown(self, coordinates, n_points, n_threads) -> Self:
        """Return the index with more points; this one stays as it is.

        A graph gets more nodes, lists get longer: their centroids stay.
        """
        faiss = require_faiss(f"neighbors_index={self.kind!r}")
        found = object.__new__(type(self))  # a copy would go through the pickled form
        found.__dict__.update(self.__dict__)
        with _threads(faiss, n_threads):
            found.index = faiss.clone_index(self.index)
            if self.kind == "ivf":
                for start in range(0, n_points, ROWS_AT_ONCE):
                    rows = np.arange(start, min(start + ROWS_AT_ONCE, n_points))
                    found.n_coarse += int(are_coarse(self.index, coordinates(rows)).sum())
            found._add(coordinates, n_points, lambda amount: None)
        found.most = self.most + n_points
        return found

    @property
    def is_coarse(self) -> bool:
        """Whether codes of the points added later are too coarse to find them by."""
        return self.n_coarse > COARSE_ADDED * self.most

    def _graph(self, faiss, coordinates, n_features):
        """Return a graph without points, over two bytes per coordinate if they do."""
        some = coordinates(np.arange(0, self.most, max(1, self.most // N_TYPICAL)))
        if np.median(np.sqrt(np.mean(some**2, axis=1))) < SMALLEST_HALF:
            index = faiss.IndexHNSWFlat(n_features, N_LINKS)
        else:
            half = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexHNSWSQ(n_features, half, N_LINKS)
            index.train(some)
        index.hnsw.efConstruction = CONSTRUCTION
        return index

    def _trained(self, faiss, coordinates, n_features, seed):
        """Return lists, without points, about centroids that are fitted to a sample."""
        n_lists = max(1, int(LISTS * np.sqrt(self.most)))
        n_lists = min(n_lists, max(1, self.most // TRAINED_ON))
        rng = np.random.default_rng(seed)
        size = min(self.most, n_lists * TRAINED_ON)
        rows = np.sort(rng.choice(self.most, size, replace=False))
        Z, centroids = coordinates(rows), faiss.IndexFlatL2(n_features)
        codes = [faiss.ScalarQuantizer.QT_8bit, faiss.ScalarQuantizer.QT_fp16]
        if 2 * self.most * n_features <= LARGEST_HALF:
            codes.reverse()
        for code in (*codes, codes[0]):
            # a code for each coordinate of the difference to the centroid
            index = faiss.IndexIVFScalarQuantizer(centroids, n_features, n_lists, code)
            index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, TRAINED_ON
            index.cp.seed = seed % 2**31
            index.train(Z)  # centroids that are there already stay
            if are_coarse(index, Z[:: -(-size // N_CODED)]).mean() <= COARSE_SHARE:
                break
        return index

    @property
    def efforts(self) -> tuple:
        """Settings of the search, from fast to thorough."""
        if self.kind == "hnsw":
            return (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024)
        most = self.index.nlist
        ladder = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024]
        return (*(effort for effort in ladder if effort < most), most)

    def search(self, Z, k, effort, n_threads):
        """Return places of the ``k`` nearest as found, (n_queries, k); -1 for none."""
        faiss = require_faiss(f"neighbors_index={self.kind!r}")
        if self.kind == "hnsw":
            options = faiss.SearchParametersHNSW(efSearch=max(int(effort), k))
        else:
            options = faiss.SearchParametersIVF(nprobe=int(effort))
        with _threads(faiss, n_threads):
            k = min(k, self.most)
            return self.index.search(np.ascontiguousarray(Z), k, params=options)[1]

    def __getstate__(self):
        faiss = require_faiss("pickling an index")
        return {**self.__dict__, "index": faiss.serialize_index(self.index)}

    def __setstate__(self, state):
        faiss = require_faiss("loading an index")
        self.__dict__ = {**state, "index": faiss.deserialize_index(state["index"])}


class GivenFaissIndex(FaissIndex):
    """An index that a user has made and left empty: a copy of it is filled.

    Its settings of the search are those that it came with.
    """

    efforts = (None,)

    def __init__(self, given, coordinates, shape, seed, n_threads, progress):
        self.kind, (self.most, n_features) = "faiss", shape
        faiss = require_faiss("neighbors_index")
        if given.d != n_features:
            raise ValueError(
                f"neighbors_index is an index of d={given.d} coordinates; those of X "
                f"that vary are {n_features}."
            )
        rows = np.arange(self.most)
        if self.most > N_TRAINED:
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.choice(self.most, N_TRAINED, replace=False))
        with _threads(faiss, n_threads):
            self.index = faiss.clone_index(given)
            if not self.index.is_trained:
                self._train(coordinates(rows))
            self._add(coordinates, self.most, progress)

    def _train(self, Z):
        try:
            self.index.train(Z)
        except RuntimeError as error:
            raise ValueError(
                f"neighbors_index cannot be trained on {len(Z)} points: {error}"
            ) from error

    def search(self, Z, k, effort, n_threads):
        """Return places of the ``k`` nearest as found, (n_queries, k); -1 for none."""
        faiss = require_faiss("neighbors_index")
        with _threads(faiss, n_threads):
            k = min(k, self.most)
            return self.index.search(np.ascontiguousarray(Z), k)[1]


def are_coarse(index: Any, Z: FloatArray) -> np.ndarray:
    """Return of which rows the codes in lists are coarse."""
    errors = Z - index.sa_decode(index.sa_encode(Z))
    nearest = index.quantizer.search(Z, 1)[1][:, 0]
    steps = Z - index.quantizer.reconstruct_batch(nearest)
    return np.linalg.norm(errors, axis=1) > COARSE * np.linalg.norm(steps, axis=1)


def is_faiss_index(wanted: Any) -> bool:
    """Return whether an object is an index of faiss, which need not be imported."""
    return all(hasattr(wanted, name) for name in ("ntotal", "is_trained", "metric_type"))


def check_faiss_index(index: Any) -> None:
    """Raise ValueError unless an index is empty and of Euclidean distances."""
    faiss = require_faiss("neighbors_index")
    if index.ntotal:
        raise ValueError(
            f"neighbors_index must be empty, got one of {index.ntotal} vectors: fit adds "
            "the training points, centred and scaled, to a copy of it."
        )
    if index.metric_type != faiss.METRIC_L2:
        raise ValueError(
            "neighbors_index needs Euclidean distances, metric_type=faiss.METRIC_L2, got "
            f"metric_type={index.metric_type}."
        )


@contextlib.contextmanager
def _threads(faiss, n_threads):
    """Set the threads of faiss, which are those of OpenMP."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(openmp_threads(n_threads))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
