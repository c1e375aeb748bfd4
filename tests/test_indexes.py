"""Indexes: what they miss, what they are chosen for, how they travel."""

import copy
import dataclasses
import multiprocessing
import os
import pickle
import sys
import warnings

import numpy as np
import pytest
from approximations import fit, quiet
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsTransformer

from skhdkde import HighDimKernelDensity
from skhdkde._approximation import faiss_index, neighbors, setup
from skhdkde._approximation.costs import index_pays
from skhdkde._selection import neighbor_leave_one_out

INDEXES = ("exact", "hnsw", "ivf")


@pytest.fixture(scope="module")
def white():
    return {20: np.random.default_rng(0).standard_normal((20_500, 20))}


@pytest.mark.parametrize("index", ["hnsw", "ivf"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_index_states_its_misses(white, index, dtype):
    pytest.importorskip("faiss")
    Y, X = white[20][500:].astype(dtype), white[20][:500].astype(dtype)
    exact = fit(Y.astype(float), bandwidth=0.6).score_samples(X.astype(float))
    params = {"bandwidth": 0.6, "algorithm": "neighbors", "neighbors_index": index}
    kde = fit(Y, **params)
    found, report = quiet(kde, X)
    error = np.abs(found - exact)
    assert found.dtype == dtype
    assert np.mean(error <= 2.0 * report.error) >= 0.95
    assert np.quantile(error, 0.95) <= 0.01
    assert kde.neighbors_index_ == index


class Forgetful(TransformerMixin, BaseEstimator):
    """A neighbours transformer that loses the nearest point of a share of the queries."""

    def __init__(self, n_neighbors=20, share=0.0):
        self.n_neighbors, self.share = n_neighbors, share

    def fit(self, X, y=None):
        self.inner_ = KNeighborsTransformer(n_neighbors=self.n_neighbors).fit(X)
        return self

    def transform(self, X):
        graph = self.inner_.transform(X)
        rng = np.random.default_rng(len(X))
        for row in np.flatnonzero(rng.uniform(size=len(X)) < self.share):
            part = slice(graph.indptr[row], graph.indptr[row + 1])
            graph.data[part.start + np.argmin(graph.data[part])] = 1e9
            order = np.argsort(graph.data[part])
            graph.indices[part] = graph.indices[part][order]
            graph.data[part] = graph.data[part][order]
            graph.indices[part.stop - 1] = graph.indices[part.start]
        return graph


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_misses_of_a_transformer_are_measured(white, share):
    """Which shows that the measurement can fail."""
    Y, X = white[20][500:8500], white[20][:500]
    exact = fit(Y, bandwidth=0.4).score_samples(X)
    kde = fit(
        Y, bandwidth=0.4, algorithm="neighbors", neighbors_index=Forgetful(20, share)
    )
    found, report = quiet(kde, X)
    error = np.abs(found - exact)
    assert np.mean(error <= 2.0 * report.error) >= 0.95
    if share:
        assert np.quantile(error, 0.9) > 0.5
        assert report.over == 1.0
    else:
        assert np.quantile(error, 0.95) < 0.01
        assert report.over < 0.1


def test_transformers_of_scikit_learn(white):
    Y, X = white[20][500:4500], white[20][:50]
    transformer = KNeighborsTransformer(n_neighbors=40)
    params = {"bandwidth": 0.6, "algorithm": "neighbors"}
    kde = fit(Y, neighbors_index=transformer, **params)
    assert not hasattr(transformer, "n_features_in_")  # ours is a clone
    assert 8 <= kde.n_neighbors_ <= 40
    assert_allclose(quiet(kde, X)[0], fit(Y, bandwidth=0.6).score_samples(X), atol=0.02)
    with pytest.raises(ValueError, match=r"n_neighbors=50 .* n_neighbors=40"):
        fit(Y, neighbors_index=transformer, n_neighbors=50, **params)


@pytest.mark.parametrize("factory", ["Flat", "IVF64,SQfp16", "PCA12,HNSW16"])
def test_any_index_of_faiss(white, factory):
    faiss = pytest.importorskip("faiss")
    Y, X = white[20][500:4500], white[20][:200]
    index = faiss.index_factory(20, factory)
    params = {"algorithm": "neighbors", "bandwidth": 0.6, "n_neighbors": 32}
    if factory.startswith("IVF"):
        index.nprobe = 48
    kde = clone(HighDimKernelDensity(neighbors_index=index, random_state=0, **params))
    kde.fit(Y[:3900]).partial_fit(Y[3900:])
    assert index.ntotal == 0  # ours is a copy
    assert kde.neighbors_index_ == "faiss"
    found, report = quiet(kde, X)
    error = np.abs(found - fit(Y, bandwidth=0.6).score_samples(X))
    assert np.mean(error <= 2.0 * report.error) >= 0.95
    if factory == "Flat":
        assert np.quantile(error, 0.95) <= 0.02
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(quiet(again, X)[0], found)
    # a graph that was pickled goes on with other random levels
    found = quiet(again.partial_fit(X), X)[0]
    assert_allclose(found, quiet(kde.partial_fit(X), X)[0], atol=1e-3)


def test_indexes_of_faiss_that_will_not_do(white):
    faiss = pytest.importorskip("faiss")
    Y, filled = white[20][:4000], faiss.IndexFlatL2(20)
    filled.add(Y[:5].astype(np.float32))
    many = faiss.index_factory(20, "IVF8192,Flat")
    for index, message in (
        (filled, "must be empty, got one of 5"),
        (faiss.IndexFlatIP(20), "metric_type=0"),
        (faiss.IndexFlatL2(19), "d=19 coordinates.* 20"),
        (many, "cannot be trained on 38"),
    ):
        with pytest.raises(ValueError, match=f"neighbors_index.*{message}"):
            fit(Y, bandwidth=0.6, algorithm="neighbors", neighbors_index=index)


def test_queries_far_outside_are_not_trusted_to_an_index():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    Y, X = rng.standard_normal((5000, 8)), 1e5 * rng.standard_normal((200, 8))
    kde = fit(Y, bandwidth=0.5, algorithm="neighbors", neighbors_index="hnsw")
    assert np.isinf(quiet(kde, X)[1].error).all()
    kde = fit(Y, bandwidth=0.5, algorithm="auto", neighbors_index="hnsw")
    assert_allclose(quiet(kde, X)[0], fit(Y, bandwidth=0.5).score_samples(X), rtol=1e-12)


@pytest.mark.parametrize("index", ["hnsw", "ivf", KNeighborsTransformer(n_neighbors=9)])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_points_need_no_index(n, index):
    pytest.importorskip("faiss")
    Y = np.random.default_rng(0).standard_normal((n, 3))
    Y = np.repeat(Y, 50, axis=0)
    params = {"bandwidth": 0.5, "kernel": "tophat"}
    kde = fit(Y, algorithm="neighbors", neighbors_index=index, **params)
    found, report = quiet(kde, Y)
    assert_allclose(found, fit(Y, **params).score_samples(Y))
    assert (report.error < 1e-12).all()


def test_lists_of_many_points_have_a_byte_for_a_coordinate(white, monkeypatch):
    pytest.importorskip("faiss")
    Y, X = white[20][1000:5000], white[20][:500]
    params = {"bandwidth": 0.6, "algorithm": "neighbors", "neighbors_index": "ivf"}
    sizes = []
    for most in (faiss_index.LARGEST_HALF, 0):
        monkeypatch.setattr(faiss_index, "LARGEST_HALF", most)
        kde = fit(Y, **params)
        found, report = quiet(kde, X)
        error = np.abs(found - fit(Y, bandwidth=0.6).score_samples(X))
        assert np.mean(error <= 2.0 * report.error) >= 0.95
        sizes.append(len(pickle.dumps(kde._approximation.prepared[0].search.index)))
    n_bytes = Y.size
    assert sizes[0] - sizes[1] == pytest.approx(n_bytes, rel=0.1)


def code_bytes(kde):
    """Bytes of a code for a coordinate in the lists of an estimator."""
    return kde._approximation.prepared[0].search.index.index.sq.code_size / 20


@pytest.mark.parametrize("case", ["heavy tails", "one huge entry"])
def test_codes_of_lists_are_not_coarse(white, case, monkeypatch):
    """Large entries stretch the range of bytes, or the units of half precision."""
    pytest.importorskip("faiss")
    Y, X = white[20][1000:5000].copy(), white[20][:500]
    if case == "heavy tails":
        rng = np.random.default_rng(0)
        Y[rng.integers(4000, size=4000), rng.integers(20, size=4000)] *= 100.0
        monkeypatch.setattr(faiss_index, "LARGEST_HALF", 0)
    else:
        Y[17, 3] = 1e9
    params = {"algorithm": "neighbors", "neighbors_index": "ivf"}
    kde = fit(Y, bandwidth=0.6, **params)
    error = np.abs(quiet(kde, X)[0] - fit(Y, bandwidth=0.6).score_samples(X))
    assert np.quantile(error, 0.95) <= 0.01
    assert code_bytes(kde) == (2.0 if case == "heavy tails" else 1.0)


@pytest.mark.filterwarnings("ignore:Rows of X are less likely:UserWarning")
def test_points_out_of_range_of_the_codes_are_found(white, monkeypatch):
    """Bytes would have them at the end of their range, all in one place."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(faiss_index, "LARGEST_HALF", 0)
    params = {"bandwidth": 0.6, "algorithm": "neighbors", "neighbors_index": "ivf"}
    Y, X = white[20][:4000], 20.0 + white[20][4000:4700]
    kde = fit(Y, **params)
    center = kde._approximation.prepared[0].search.center
    kde.partial_fit(X[:10])  # so few make no new index
    assert_array_equal(kde._approximation.prepared[0].search.center, center)
    kde.partial_fit(X[10:300])
    found, report = quiet(kde, X[300:])
    exact = fit(np.vstack([Y, X[:300]]), bandwidth=0.6).score_samples(X[300:])
    error = np.abs(found - exact)
    assert np.quantile(error, 0.95) <= 0.01
    assert np.mean(error <= 2.0 * report.error) >= 0.95


@pytest.mark.parametrize("d", [8, 32, 128, 512, 2048])
def test_an_index_pays_from_some_number_of_points_on(d):
    sizes = np.geomspace(100, 1e9, 200)
    pays = np.array([index_pays(n, d) for n in sizes])
    first = sizes[pays.argmax()]
    assert not pays[sizes < first].any()
    assert pays[sizes >= first].all()
    # the more a pair costs, the sooner; see benchmarks/results/neighbors.md
    assert 20_000 < first < 110_000
    assert index_pays(first, 2 * d)


def test_no_index_where_samples_serve_at_the_best_bandwidth(monkeypatch):
    """The search for "kl" made one before it was known whether there is a need."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(setup, "index_pays", lambda *shape: True)
    Y = np.random.default_rng(0).uniform(size=(6000, 1))
    kde = fit(Y, algorithm="auto", tol=0.3)
    assert kde.neighbors_index_ is None
    same = fit(Y, algorithm="auto", tol=0.3, bandwidth=kde.bandwidth_)
    assert same.neighbors_index_ is None


def test_levels_that_rarely_serve_are_left_out(white):
    """The ladder of levels is the cheapest of those that may be climbed."""
    pytest.importorskip("faiss")
    Y = white[20][:5000]
    params = {"bandwidth": 0.6, "algorithm": "auto", "neighbors_index": "hnsw"}
    approximation = fit(Y, **params)._approximation
    prepared = approximation.prepared[0]
    n_points = len(Y)
    for met, stages in (((0.0, 0.0), 0), ((1.0, 1.0), 1), ((0.0, 1.0), 1)):
        pairs = zip(prepared.levels, met, strict=True)
        levels = tuple(dataclasses.replace(level, met=share) for level, share in pairs)
        approximation.prepared = [dataclasses.replace(prepared, levels=levels)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(prepared), "cost", lambda self, level: 0.1 * n_points)
            assert len(approximation.stages()) == stages


def test_data_in_islands_get_lists():
    """Where a walk over a graph loses its way."""
    pytest.importorskip("faiss")
    Y, _ = make_blobs(101_000, 20, centers=200, center_box=(-50, 50), random_state=0)
    kde = fit(Y[500:], bandwidth=0.8, algorithm="neighbors")
    assert kde.neighbors_index_ == "ivf"
    found, report = quiet(kde, Y[:500])
    error = np.abs(found - fit(Y[500:], bandwidth=0.8).score_samples(Y[:500]))
    assert np.mean(error <= 2.0 * report.error) >= 0.95
    assert report.over < 0.1


@pytest.mark.parametrize(
    "kernel", ["gaussian", pytest.param("exponential", marks=pytest.mark.slow)]
)
def test_bandwidth_by_neighbours_is_that_of_all_points(kernel, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(neighbor_leave_one_out, "FEWEST_POINTS", 0)
    Y = np.random.default_rng(0).standard_normal((8000, 12)) @ np.diag(np.arange(1, 13))
    params = {"kernel": kernel, "algorithm": "neighbors", "neighbors_index": "hnsw"}
    by_lists = fit(Y, **params)
    exact = fit(Y, kernel=kernel)
    assert by_lists.bandwidth_ != exact.bandwidth_
    assert by_lists.bandwidth_ == pytest.approx(exact.bandwidth_, rel=0.006)
    assert_allclose(
        by_lists.bandwidth_search_.mean_log_density.max(),
        exact.bandwidth_search_.mean_log_density.max(),
        atol=0.05,
    )


@pytest.mark.slow
def test_bandwidth_by_all_points_where_neighbours_do_not_give_it(monkeypatch):
    """Two dimensions: hundreds of neighbours share in the optimum."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(neighbor_leave_one_out, "FEWEST_POINTS", 0)
    Y = np.random.default_rng(0).standard_normal((20_000, 2))
    params = {"algorithm": "neighbors", "neighbors_index": "ivf"}
    assert fit(Y, **params).bandwidth_ == fit(Y).bandwidth_


@pytest.mark.parametrize("index", INDEXES)
def test_pickles_and_deep_copies(white, index):
    if index != "exact":
        pytest.importorskip("faiss")
    Y, X = white[20][500:6500], white[20][:20]
    kde = fit(Y, bandwidth=0.5, algorithm="neighbors", neighbors_index=index)
    expected = quiet(kde, X)[0]
    assert_array_equal(quiet(pickle.loads(pickle.dumps(kde)), X)[0], expected)
    assert_array_equal(quiet(copy.deepcopy(kde), X)[0], expected)
    assert_array_equal(quiet(clone(kde).fit(Y), X)[0], expected)


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    Y = np.random.default_rng(0).standard_normal((500, 3))
    with pytest.raises(
        ImportError, match=r"neighbors_index='ivf' .*skhdkde\[neighbors\]"
    ):
        fit(Y, algorithm="neighbors", neighbors_index="ivf")
    with pytest.raises(ImportError, match="faiss"):  # also where it is of no use
        fit(Y, algorithm="sampling", neighbors_index="hnsw")
    kde = fit(Y, algorithm="neighbors")
    assert_allclose(quiet(kde, Y)[0], fit(Y).score_samples(Y), atol=0.01)


@pytest.mark.parametrize("algorithm", ["neighbors", "auto"])
def test_without_faiss_where_an_index_would_pay(monkeypatch, algorithm):
    monkeypatch.setattr(neighbors.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(setup, "index_pays", lambda *shape: True)
    Y = np.random.default_rng(0).standard_normal((3000, 3))
    with pytest.warns(UserWarning, match="3000 points .* need faiss"):
        fit(Y, bandwidth=0.5, algorithm=algorithm)
    fit(Y, bandwidth=0.5, algorithm=algorithm, neighbors_index="exact")


def _score(kde, X, queue):
    queue.put(quiet(kde, X)[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_in_a_forked_child(white):
    """OpenMP's threads are not forked: the child must not wait for them."""
    pytest.importorskip("faiss")
    Y, X = white[20][500:6500], white[20][:100]
    kde = fit(Y, bandwidth=0.5, algorithm="neighbors", neighbors_index="ivf")
    expected = quiet(kde, X)[0]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of fork beside threads
        child = context.Process(target=_score, args=(kde, X, queue))
        child.start()
    found = queue.get(timeout=60)
    child.join(timeout=60)
    assert_allclose(found, expected, rtol=1e-10)
