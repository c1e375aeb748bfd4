"""Blocks of training points: any blocks give the results of one machine.

Graphs run in this thread here; ``test_dask_cluster.py`` has worker processes.
"""

import pickle
import subprocess
import sys
import warnings

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import oracles
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import skhdkde._blocks as blocks_module
import skhdkde._distributed as distributed_module
from skhdkde import HighDimKernelDensity, RegimeDisplay, kl_scorer
from skhdkde.dask import DaskHighDimKernelDensity

COLUMNS = (
    "log_density",
    "standard_error",
    "tail_index",
    "h_g",
    "h_clt",
    "effective_sample_size",
    "max_weight",
)


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@parametrize_with_checks(
    [DaskHighDimKernelDensity(), DaskHighDimKernelDensity(bandwidth=1.0)]
)
@pytest.mark.filterwarnings("ignore:.*training points are exact copies:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def draws(n=400, d=6, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    weights = rng.exponential(size=n)
    weights[::9] = 0.0
    return X.astype(dtype), weights, rng.standard_normal((30, d)).astype(dtype)


def blocks(X, sizes):
    return da.from_array(X, chunks=(sizes, *X.shape[1:]))


@given(
    st.lists(st.integers(0, 60), max_size=6),
    st.lists(st.integers(0, 20), max_size=3),
    st.booleans(),
    st.sampled_from(oracles.KERNEL_NAMES),
)
@settings(max_examples=20, deadline=None)
def test_any_blocks_give_the_sums_of_the_definition(cuts, query_cuts, weighted, kernel):
    """Empty blocks, blocks of one point, and queries in other blocks included."""
    X, weights, Q = draws(60, 4)
    Q, weights = Q[:20], weights if weighted else None
    h = 0.7 if kernel in ("gaussian", "exponential") else 2.5
    X_blocks = blocks(X, tuple(np.diff([0, *sorted(cuts), 60]).tolist()))
    Q_blocks = blocks(Q, tuple(np.diff([0, *sorted(query_cuts), 20]).tolist()))
    kde = DaskHighDimKernelDensity(bandwidth=h, kernel=kernel).fit(
        X_blocks, sample_weight=weights
    )
    expected = oracles.log_density(Q, X, h, kernel, weights)
    lazy = kde.score_samples(Q_blocks)
    assert isinstance(lazy, da.Array)
    assert lazy.chunks == Q_blocks.chunks[:1]
    assert_allclose(lazy.compute(), expected, atol=1e-8)
    assert_array_equal(kde.score_samples(Q), lazy.compute())
    own = kde.score_samples(None)
    assert own.chunks == X_blocks.chunks[:1]
    left_out = oracles.log_density(X, X, h, kernel, weights, leave_out=np.arange(60))
    assert_allclose(own.compute(), left_out, atol=1e-8)
    gradient = kde.log_density_gradient(Q_blocks).compute()
    assert_allclose(gradient, oracles.gradient(Q, X, h, kernel, weights), atol=1e-6)


CASES = [
    {},
    {"bandwidth": "nearest"},
    {"bandwidth": "gaussian"},
    {"bandwidth": "scott"},
    {"bandwidth": "silverman", "covariance_type": "diag"},
    {"bandwidth": "gaussian", "covariance_type": "full"},
    {"bandwidth": "nearest", "covariance_type": "full"},
    {"kernel": "exponential"},
    {"kernel": "epanechnikov"},
    {"kernel": "linear", "covariance_type": "diag"},
    {"kernel": "student"},
    {"kernel": "student", "degrees_of_freedom": 4.0, "bandwidth": 0.8},
    {"covariance_type": "diag"},
    {"covariance_type": "full"},
    {"preserve_variance": True},
    {"covariance_type": "full", "preserve_variance": True, "kernel": "student"},
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("params", CASES, ids=str)
def test_same_as_on_one_machine(params, weighted):
    X, weights, Q = draws()
    weights = weights if weighted else None
    one = HighDimKernelDensity(random_state=0, **params).fit(X, sample_weight=weights)
    cluster = DaskHighDimKernelDensity(random_state=0, **params)
    cluster.fit(blocks(X, 90), sample_weight=weights)
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-10)
    for name in ("kernel_", "degrees_of_freedom_", "covariance_type_", "backend_"):
        assert getattr(cluster, name) == getattr(one, name)
    if one.bandwidth_search_ is not None:
        found, expected = cluster.bandwidth_search_, one.bandwidth_search_
        assert_allclose(found.bandwidths, expected.bandwidths, rtol=1e-10)
        assert_allclose(found.mean_log_density, expected.mean_log_density, atol=1e-8)
        assert found.n_queries == expected.n_queries
    assert_allclose(cluster.score_samples(Q), one.score_samples(Q), atol=1e-8)
    left_out = cluster.score_samples(None).compute()
    assert_allclose(left_out, one.score_samples(None), atol=1e-8)
    gradient = cluster.log_density_gradient(Q)
    assert_allclose(gradient, one.log_density_gradient(Q), atol=1e-8)
    drawn = cluster.sample(50, random_state=1)
    assert_allclose(drawn, one.sample(50, random_state=1), atol=1e-10)
    for X_or_none in (Q, None):
        found, expected = cluster.diagnose(X_or_none), one.diagnose(X_or_none)
        for name in COLUMNS:
            assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-7
            )
        assert_array_equal(found.regime, expected.regime)


@pytest.mark.parametrize("params", [{}, {"covariance_type": "full"}], ids=str)
def test_a_sample_of_many_points(params):
    """More than are queries, in several pieces of a block."""
    X, weights, Q = draws(11_000, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "PIECE_SIZE", 2000)
        one = HighDimKernelDensity(random_state=0, **params).fit(X, sample_weight=weights)
        cluster = DaskHighDimKernelDensity(random_state=0, **params)
        cluster.fit(blocks(X, 3000), sample_weight=weights)
        assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-10)
        assert_allclose(cluster.score_samples(Q), one.score_samples(Q), atol=1e-8)
        left_out = cluster.score_samples(None)[:200].compute()
        assert_allclose(left_out, one.score_samples(None)[:200], atol=1e-8)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_float32(offset):
    X, _, Q = draws(500, 40, np.float32)
    X, Q = X + np.float32(offset), Q + np.float32(offset)
    kde = DaskHighDimKernelDensity(bandwidth=1.5).fit(blocks(X, 130))
    log_density = kde.score_samples(blocks(Q, 7))
    assert log_density.dtype == log_density.compute().dtype == np.float32
    assert_allclose(log_density, oracles.log_density(Q, X, 1.5), atol=1e-3)
    gradient = kde.log_density_gradient(blocks(Q, 7))
    assert gradient.dtype == gradient.compute().dtype == np.float32
    assert kde.diagnose(Q).log_density.dtype == kde.sample(2).dtype == np.float32
    wide = kde.score_samples(Q.astype(np.float64))
    assert wide.dtype == np.float64


def test_one_weight_is_nearly_all():
    """The others' weight, where that one is left out, is not total minus most of it."""
    X, _, _ = draws(40)
    weights = np.full(40, 1e-3)
    weights[5] = 1e17
    kde = DaskHighDimKernelDensity(bandwidth=1.0).fit(
        blocks(X, 15), sample_weight=weights
    )
    others = np.delete(X, 5, axis=0)
    expected = oracles.log_density(X[5:6], others, 1.0)
    assert_allclose(kde.score_samples(None)[5].compute(), expected[0], atol=1e-8)


@pytest.mark.parametrize("params", [{}, {"covariance_type": "diag"}], ids=str)
@pytest.mark.parametrize("n", [300, 11_000])
@pytest.mark.parametrize("all_known", [True, False])
def test_copies_in_different_blocks(params, n, all_known, monkeypatch):
    if not all_known:  # from these the number of copies is estimated
        monkeypatch.setattr(distributed_module, "N_CANDIDATES", 6000)
    X, _, _ = draws(n, 5)
    X[n // 2 : n // 2 + n // 10] = X[: n // 10]
    X[-3:] = X[0]
    one = HighDimKernelDensity(random_state=0, **params)
    cluster = DaskHighDimKernelDensity(random_state=0, **params)
    n_copies = n // 10 + 3
    with pytest.warns(UserWarning, match=f"{n_copies} of the {n} training points"):
        one.fit(X)
    with pytest.warns(UserWarning, match="training points are exact copies"):
        cluster.fit(blocks(X, n // 4))
    exact = all_known or n == 300
    rel = 1e-6 if exact or not params else 0.01  # other folds, by a few points
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=rel)
    estimated = pytest.approx(n_copies, rel=0.05)
    assert cluster.bandwidth_search_.n_copies == (n_copies if exact else estimated)


def test_few_distinct_points_among_many(monkeypatch):
    """They are all found, although most candidates are copies of others."""
    monkeypatch.setattr(distributed_module, "N_CANDIDATES", 1500)
    X = np.random.default_rng(0).integers(0, 6, size=(12_000, 4)).astype(float)
    one, cluster = (
        kind(random_state=0) for kind in (HighDimKernelDensity, DaskHighDimKernelDensity)
    )
    with pytest.warns(UserWarning, match="exact copies"):
        one.fit(X)
    with pytest.warns(UserWarning, match="exact copies"):
        cluster.fit(blocks(X, 5000))
    assert cluster.bandwidth_search_.n_queries == 6**4 == one.bandwidth_search_.n_queries
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-6)


# Kinds of collections.


def frame(X):
    columns = [f"feature {k}" for k in range(X.shape[1])]
    return dd.from_pandas(pd.DataFrame(X, columns=columns), npartitions=4)


def test_data_frames_have_blocks_of_unknown_size():
    X, weights, Q = draws()
    series = dd.from_pandas(pd.Series(weights), npartitions=4)
    one = HighDimKernelDensity(bandwidth=0.8).fit(X, sample_weight=weights)
    for sample_weight in (series, weights, series.to_dask_array()):
        kde = DaskHighDimKernelDensity(bandwidth=0.8)
        kde.fit(frame(X), sample_weight=sample_weight)
        assert list(kde.feature_names_in_) == list(frame(X).columns)
        log_density = kde.score_samples(frame(Q))
        assert_allclose(log_density.compute(), one.score_samples(Q), atol=1e-8)
        own = kde.score_samples(None)
        assert_allclose(own.compute(), one.score_samples(None), atol=1e-8)
    assert kde.score(frame(Q)) == pytest.approx(one.score(Q))
    assert_allclose(kde.diagnose(frame(Q)).h_g, one.diagnose(Q).h_g, rtol=1e-6)
    pandas = pd.DataFrame(Q, columns=frame(Q).columns)
    assert_allclose(kde.score_samples(pandas), one.score_samples(Q), atol=1e-8)
    with pytest.raises(ValueError, match="feature names"):
        kde.score_samples(frame(Q)[frame(Q).columns[::-1]])
    with pytest.warns(UserWarning, match="feature names"):
        kde.score_samples(Q)


@pytest.mark.filterwarnings("ignore:.*inplace keyword")  # of pandas, to dask
def test_blocks_from_files(tmp_path):
    X, _, Q = draws()
    expected = HighDimKernelDensity(bandwidth=0.8).fit(X).score_samples(Q)
    blocks(X, 90).to_zarr(str(tmp_path / "zarr"))
    da.to_npy_stack(str(tmp_path / "npy"), blocks(X, 90))
    frame(X).to_parquet(str(tmp_path / "parquet"))
    for collection in (
        da.from_zarr(str(tmp_path / "zarr")),
        da.from_npy_stack(str(tmp_path / "npy")),
        dd.read_parquet(str(tmp_path / "parquet")),
        da.from_zarr(str(tmp_path / "zarr")).rechunk((70, 4)) * 1.0,
    ):
        kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(collection)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*feature names.*")
            assert_allclose(kde.score_samples(Q), expected, atol=1e-8)


def test_array_in_memory():
    X, weights, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(X, sample_weight=weights.tolist())
    expected = oracles.log_density(Q, X, 0.8, weights=weights)
    assert_allclose(kde.score_samples(Q.tolist()), expected, atol=1e-8)
    assert isinstance(kde.score_samples(Q), np.ndarray)
    assert isinstance(kde.log_density_gradient(Q), np.ndarray)


def counted(X, size):
    """Blocks that count how often they are read."""
    reads = []

    def read(block_info=None):
        (start, stop), _ = block_info[None]["array-location"]
        reads.append(start)
        return X[start:stop]

    chunks = blocks(X, size).chunks
    array = da.map_blocks(read, chunks=chunks, dtype=X.dtype, meta=np.empty((0, 0)))
    return array, reads


def test_nothing_is_read_before_it_is_needed():
    X, _, Q = draws()
    array, reads = counted(X, 100)
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(array)
    assert sorted(reads) == [0, 100, 200, 300]  # one pass
    reads.clear()
    lazy = kde.score_samples(blocks(Q, 10)), kde.score_samples(None)
    lazy += (kde.log_density_gradient(blocks(Q, 10)),)
    assert not reads
    lazy[0].compute()
    assert set(reads) == {0, 100, 200, 300}


def test_the_bandwidth_takes_few_passes():
    X, _, _ = draws()
    array, reads = counted(X, 100)
    DaskHighDimKernelDensity(random_state=0).fit(array)
    assert len(reads) <= 6 * 4


def test_what_blocks_share_is_made_once():
    """A mean of all blocks is not made again for every block."""
    X, _, Q = draws()
    array, reads = counted(X, 100)
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(array - array.mean(axis=0))
    assert len(reads) <= 2 * 4
    expected = oracles.log_density(Q, X - X.mean(axis=0), 0.8)
    assert_allclose(kde.score_samples(Q), expected, atol=1e-8)


def test_graphs_hold_no_data(tmp_path):
    X, _, _ = draws(20_000, 20)
    da.to_npy_stack(str(tmp_path), blocks(X, 5000))
    array = da.from_npy_stack(str(tmp_path))
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(array)
    graph = dict(kde.score_samples(array).__dask_graph__())
    assert len(cloudpickle.dumps(graph)) < 100_000 < X.nbytes
    assert len(pickle.dumps(kde)) < 20_000


# What is refused, and what remains after.


@pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "neighbors"},
        {"covariance_type": "auto"},
        {"covariance_type": "local"},
        {"mixture": GaussianMixture(2)},
        {"adaptive": True},
        {"adaptive": 3},
    ],
    ids=str,
)
def test_parameters_that_need_all_points_are_refused(params):
    (name,) = params
    with pytest.raises(ValueError, match=rf"^{name} must be .* on a cluster"):
        DaskHighDimKernelDensity(**params).fit(blocks(draws()[0], 90))


def with_entry(X, row, value):
    X = X.copy()
    X[row, 1] = value
    return X


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda X: blocks(with_entry(X, 333, np.nan), 90), "Input X contains NaN"),
        (lambda X: blocks(with_entry(X, 5, np.inf), 90), "X contains infinity"),
        (lambda X: blocks(X[:, 0], 90), "Expected 2D array for X"),
        (lambda X: blocks(X + 1j, 90), "Complex data not supported"),
        (lambda X: blocks(X, 90)[:0], "X has shape"),
        (lambda X: blocks(X, 90)[:, :0], "X has shape"),
        (
            lambda X: frame(X)[frame(X)["feature 0"] > 99.0],
            "X must have at least one row",
        ),
    ],
)
def test_bad_points(make, message):
    kde = DaskHighDimKernelDensity(bandwidth=0.8)
    with pytest.raises(ValueError, match=message):
        kde.fit(make(draws()[0]))
    assert not hasattr(kde, "bandwidth_")


def test_the_block_with_a_fault_is_named():
    X = blocks(with_entry(draws()[0], 333, np.nan), 90)
    with pytest.raises(ValueError, match="NaN") as caught:
        DaskHighDimKernelDensity(bandwidth=0.8).fit(X)
    assert "block 3 of X" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda w: blocks(w[:-1], 90), "sample_weight.shape"),
        (lambda w: w[:-1], "sample_weight"),
        (lambda w: blocks(-w, 90), "sample_weight must not be negative"),
        (lambda w: blocks(w * np.nan, 90), "sample_weight contains NaN"),
        (lambda w: blocks(w * 0.0, 90), "sample_weight must have a positive entry"),
        (lambda w: blocks(w[:, None], 90), "sample_weight must be 1D"),
        (lambda w: dd.from_pandas(pd.Series(w), npartitions=3), "go together one by one"),
    ],
)
def test_bad_weights(make, message):
    X, weights, _ = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8)
    with pytest.raises(ValueError, match=message):
        kde.fit(blocks(X, 90), sample_weight=make(weights))
    assert not hasattr(kde, "bandwidth_")


def test_weights_in_blocks_of_other_sizes():
    X, weights, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8)
    kde.fit(blocks(X, 90), sample_weight=blocks(weights, 77))
    expected = oracles.log_density(Q, X, 0.8, weights=weights)
    assert_allclose(kde.score_samples(Q), expected, atol=1e-8)
    short = frame(X).partitions[:3], dd.from_pandas(pd.Series(weights), npartitions=3)
    with pytest.raises(ValueError, match="sample_weight"):
        kde.fit(short[0], sample_weight=short[1])


def test_a_failed_fit_changes_nothing():
    X, _, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(X, 90))
    before = kde.score_samples(Q)
    with pytest.raises(ValueError, match="NaN"):
        kde.set_params(bandwidth=2.0).fit(blocks(with_entry(X, 300, np.nan), 90))
    assert kde.bandwidth_ == 0.8
    assert_array_equal(kde.score_samples(Q), before)


def test_bad_queries():
    X, _, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(X, 90))
    with pytest.raises(ValueError, match="6 features"):
        kde.score_samples(blocks(Q[:, :5], 10))
    with pytest.raises(ValueError, match="NaN"):
        kde.score_samples(blocks(with_entry(Q, 3, np.nan), 10)).compute()
    with pytest.raises(ValueError, match="X must be points"):
        kde.log_density_gradient(None)
    with pytest.raises(ValueError, match="n_samples must be an int >= 1"):
        kde.sample(0)
    with pytest.raises(ValueError, match="two distinct points"):
        DaskHighDimKernelDensity().fit(blocks(np.ones((5, 2)), 2))


def test_empty_blocks_of_queries():
    X, _, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(X, 90))
    Q_frame = frame(Q)
    some = Q_frame[Q_frame["feature 0"] > 1.0]
    with pytest.warns(UserWarning, match="feature names"):
        log_density = kde.score_samples(some)
    expected = oracles.log_density(Q[Q[:, 0] > 1.0], X, 0.8)
    assert_allclose(log_density.compute(), expected, atol=1e-8)
    with pytest.warns(UserWarning, match="feature names"):
        assert len(kde.diagnose(some)) == len(expected)


# As one of scikit-learn's.


def test_pickle_and_clone():
    X, _, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(X, 90))
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(again.score_samples(Q), kde.score_samples(Q))
    assert_array_equal(
        clone(kde).fit(blocks(X, 90)).score_samples(Q), kde.score_samples(Q)
    )


def test_grid_search_and_scorer():
    X, _, Q = draws(100, 3)
    grid = {"bandwidth": [0.3, 0.6, 1.2]}
    searches = [
        GridSearchCV(kind(), grid, scoring=kl_scorer, cv=3).fit(X)
        for kind in (HighDimKernelDensity, DaskHighDimKernelDensity)
    ]
    one, cluster = (search.cv_results_["mean_test_score"] for search in searches)
    assert_allclose(cluster, one, atol=1e-8)
    best = searches[1].best_estimator_
    assert kl_scorer(best, blocks(Q[:, :3], 10)) == pytest.approx(
        kl_scorer(best, Q[:, :3])
    )


def test_regimes_are_drawn():
    X, _, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(X, 90))
    display = RegimeDisplay.from_estimator(kde, Q)
    assert display.figure_ is not None


def test_progress(capsys):
    X, _, _ = draws()
    DaskHighDimKernelDensity(bandwidth=0.8, verbose=1).fit(blocks(X, 90))
    assert "survey: 100%" in capsys.readouterr().err


def test_without_dask_the_error_says_what_to_install():
    code = """
import sys
sys.modules["distributed"] = None
try:
    import skhdkde.dask
except ImportError as error:
    print(error)
"""
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "skhdkde.dask needs distributed: pip install 'skhdkde[dask]'.\n"
