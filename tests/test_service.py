"""One row at a time, from several threads; what is kept in memory and in pickles."""

import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

import skhdkde
from skhdkde import DensityOutlierDetector, HighDimKernelDensity

ATOL = {np.float32: 1e-3, np.float64: 1e-8}


def normal(n, d, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def clusters(n, d, seed=0):
    """Clusters of 10 dimensions, in more with little noise."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    axes = np.linalg.qr(fixed.standard_normal((d, 10)))[0].T
    means = 2.0 * fixed.standard_normal((10, 10))
    Z = means[rng.integers(10, size=n)] + rng.standard_normal((n, 10))
    return (Z @ axes + 0.1 * rng.standard_normal((n, d))).astype(np.float32)


@pytest.mark.parametrize("n_rows", [1, 2, 4, 5])
@pytest.mark.parametrize("d", [3, 98, 99, 600])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
def test_few_rows_are_as_precise_as_many(kernel, dtype, d, n_rows):
    """Over several tiles, from near a point and from between."""
    Y, h = normal(300, d, dtype=dtype), 0.7 if kernel == "gaussian" else 0.9 * d**0.5
    h = 2.0 * d**0.5 if kernel == "epanechnikov" else h
    X = normal(5, d, seed=1, dtype=dtype)
    X[0] = Y[7] + dtype(1e-3)
    kde = HighDimKernelDensity(bandwidth=h, kernel=kernel).fit(Y)
    expected = oracles.log_density(X, Y, h, kernel=kernel)
    result = kde.score_samples(X[:n_rows])
    assert_allclose(result, expected[:n_rows].astype(float), rtol=1e-6, atol=ATOL[dtype])


def test_little_work_starts_no_thread(monkeypatch):
    kde = HighDimKernelDensity(bandwidth=0.8, n_jobs=4).fit(normal(5000, 20))
    started, start = [], threading.Thread.start

    def noted(thread):
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    for X in (normal(1, 20), normal(20, 20)):
        kde.score_samples(X)
    assert not started
    kde.score_samples(normal(3000, 20))
    assert started


def test_rows_from_many_threads_at_once():
    Y, X = normal(3000, 120), normal(24, 120, seed=1)
    kde = HighDimKernelDensity(bandwidth=0.8).fit(Y)
    expected = [kde.score_samples(x[None])[0] for x in X]
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(8) as executor:
        for _ in range(5):
            found = list(executor.map(lambda x: kde.score_samples(x[None])[0], X))
            assert_array_equal(found, expected)


# By an index.


@pytest.mark.filterwarnings("ignore:.*stated error:UserWarning")
@pytest.mark.parametrize("index", ["ivf", "hnsw", "exact"])
def test_far_points_at_a_glance(index):
    """Where they hardly matter; a row alone is as in a batch, and errors as stated."""
    if index != "exact":
        pytest.importorskip("faiss")
    Y, X = clusters(6000, 60), clusters(300, 60, seed=1)
    X[:20] = Y[:20] + np.float32(0.01)
    X[20:40] *= 3.0
    kde = HighDimKernelDensity(
        bandwidth=0.15, algorithm="neighbors", neighbors_index=index, random_state=0
    )
    assert kde.fit(Y)._approximation.prepared[0].levels[0].glance
    together = kde.score_samples(X)
    report = kde.approximation_
    exact = HighDimKernelDensity(bandwidth=0.15).fit(Y).score_samples(X)
    error = np.abs(together - exact)
    assert np.mean(error <= 2.0 * report.error + 1e-6 * np.abs(exact)) >= 0.95
    assert np.median(error) < 1e-3
    alone = [kde.score_samples(x[None])[0] for x in X[:60]]
    assert_allclose(alone, together[:60], rtol=1e-5, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*stated error:UserWarning")
def test_no_glance_where_far_points_are_most_of_the_sum():
    Y = normal(5000, 8)
    kde = HighDimKernelDensity(
        bandwidth=1.0, algorithm="neighbors", neighbors_index="exact", random_state=0
    )
    assert not kde.fit(Y)._approximation.prepared[0].levels[0].glance
    exact = HighDimKernelDensity(bandwidth=1.0).fit(Y).score_samples(Y[:100] + 0.5)
    assert_allclose(kde.score_samples(Y[:100] + 0.5), exact, atol=0.2)


# Pickles.


INDEX = {"algorithm": "neighbors", "random_state": 0}


@pytest.mark.filterwarnings("ignore:.*stated error:UserWarning")
@pytest.mark.parametrize("moved", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "parameters, most",
    [
        ({}, 1.05),
        ({"support": "sphere", "bandwidth": 0.3}, 1.05),
        ({"covariance_type": "diag"}, 1.05),
        ({"preserve_variance": True, "bandwidth": 0.5}, 1.05),
        ({"covariance_type": "full"}, 1.3),  # covariance and whitening
        ({**INDEX, "neighbors_index": "ivf"}, 2.1),
        ({**INDEX, "neighbors_index": "hnsw"}, 2.1),
        ({**INDEX, "covariance_type": "diag", "neighbors_index": "exact"}, 2.6),
    ],
    ids=str,
)
def test_a_pickle_holds_the_data_once(parameters, most, dtype, moved):
    if parameters.get("neighbors_index") in ("ivf", "hnsw"):
        pytest.importorskip("faiss")
    X = normal(3000, 200, dtype=dtype) + dtype(moved)
    if "support" in parameters:
        X /= np.linalg.norm(X, axis=1)[:, None]
    kde = HighDimKernelDensity(**{"bandwidth": 0.8, **parameters}).fit(X)
    Q = X[:20] + dtype(0.01) * ("support" not in parameters)
    expected, pickled = kde.score_samples(Q), pickle.dumps(kde)
    assert len(pickled) <= most * X.nbytes + 2**16
    again = pickle.loads(pickled)
    assert_array_equal(again.score_samples(Q), expected)
    assert_allclose(pickle.loads(pickle.dumps(again)).score_samples(Q), expected)


@pytest.mark.parametrize("mean, copies", [(0.0, 1), (0.8, 1), (5.0, 2)])
def test_float64_points_are_kept_once_unless_far_from_the_origin(mean, copies):
    X = normal(4000, 100, dtype=np.float64) + mean
    HighDimKernelDensity(bandwidth=0.8).fit(X[:100])
    tracemalloc.start()
    kde = HighDimKernelDensity(bandwidth=0.8).fit(X)
    kept = tracemalloc.get_traced_memory()[0] / X.nbytes
    tracemalloc.stop()
    assert copies - 0.1 < kept < copies + 0.1
    expected = oracles.log_density(X[:10] + 0.1, X, 0.8)
    assert_allclose(kde.score_samples(X[:10] + 0.1), expected.astype(float), atol=1e-8)


@pytest.mark.parametrize("fitted", [False, True])
def test_a_pickle_of_another_version_is_told(monkeypatch, fitted):
    X = normal(50, 3)
    kde = HighDimKernelDensity(bandwidth=0.8)
    kde = kde.fit(X) if fitted else kde
    pickled, own = pickle.dumps(kde), skhdkde.__version__
    monkeypatch.setattr(skhdkde, "__version__", "9.1.0")
    with pytest.warns(UserWarning, match=rf"pickled by skhdkde {own}, and this is 9\.1"):
        found = pickle.loads(pickled)
    assert found.get_params() == kde.get_params()
    again = pickle.loads(pickle.dumps(found))  # now of this version: no warning
    if fitted:
        assert_array_equal(again.score_samples(X), kde.score_samples(X))


def test_a_detector_tells_of_another_version(monkeypatch):
    kde = HighDimKernelDensity(bandwidth=0.8)
    pickled = pickle.dumps(DensityOutlierDetector(kde).fit(normal(50, 3)))
    monkeypatch.setattr(skhdkde, "__version__", "9.1.0")
    with pytest.warns(UserWarning, match="HighDimKernelDensity was pickled by skhdkde"):
        pickle.loads(pickled)
