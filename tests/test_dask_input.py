"""What may be an estimator's input on a cluster, what may not, and when it is read."""

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
from dask_data import blocks, data_frame, draws, with_entry
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhdkde import BandwidthDisplay, HighDimKernelDensity, RegimeDisplay, kl_scorer
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")


@parametrize_with_checks(
    [DaskHighDimKernelDensity(), DaskHighDimKernelDensity(bandwidth=1.0)]
)
@pytest.mark.filterwarnings("ignore:.*training points are exact duplicates:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# Kinds of collections.


def test_data_frames_have_blocks_of_unknown_size():
    X, weights, Q = draws()
    series = dd.from_pandas(pd.Series(weights), npartitions=4)
    one = HighDimKernelDensity(bandwidth=0.8).fit(X, sample_weight=weights)
    for sample_weight in (series, weights, series.to_dask_array()):
        kde = DaskHighDimKernelDensity(bandwidth=0.8)
        kde.fit(data_frame(X), sample_weight=sample_weight)
        assert list(kde.feature_names_in_) == list(data_frame(X).columns)
        log_density = kde.score_samples(data_frame(Q))
        assert_allclose(log_density.compute(), one.score_samples(Q), atol=1e-8)
        own = kde.score_samples(None)
        assert_allclose(own.compute(), one.score_samples(None), atol=1e-8)
    assert kde.score(data_frame(Q)) == pytest.approx(one.score(Q))
    assert_allclose(kde.diagnose(data_frame(Q)).h_g, one.diagnose(Q).h_g, rtol=1e-6)
    pandas = pd.DataFrame(Q, columns=data_frame(Q).columns)
    assert_allclose(kde.score_samples(pandas), one.score_samples(Q), atol=1e-8)
    with pytest.raises(ValueError, match="feature names"):
        kde.score_samples(data_frame(Q)[data_frame(Q).columns[::-1]])
    with pytest.warns(UserWarning, match="feature names"):
        kde.score_samples(Q)


@pytest.mark.filterwarnings("ignore:.*inplace keyword")  # of pandas, to dask
def test_blocks_from_files(tmp_path):
    X, _, Q = draws()
    expected = HighDimKernelDensity(bandwidth=0.8).fit(X).score_samples(Q)
    blocks(X, 90).to_zarr(str(tmp_path / "zarr"))
    da.to_npy_stack(str(tmp_path / "npy"), blocks(X, 90))
    data_frame(X).to_parquet(str(tmp_path / "parquet"))
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
            lambda X: data_frame(X)[data_frame(X)["feature 0"] > 99.0],
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
    with pytest.raises(ValueError, match=r"NaN[^$]*\(in block 3 of X\)$"):
        DaskHighDimKernelDensity(bandwidth=0.8).fit(X)


def announced(X, shape):
    delayed = [dask.delayed(rows) for rows in np.split(X, 4)]
    arrays = [da.from_delayed(rows, shape, dtype=float) for rows in delayed]
    return da.concatenate(arrays)


def test_blocks_of_another_shape_than_announced():
    X, _, _ = draws()
    for shape in ((101, 6), (100, 7)):
        with pytest.raises(ValueError, match=r"block of shape \(100, 6\) where one of"):
            DaskHighDimKernelDensity(bandwidth=0.8).fit(announced(X, shape))
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(np.hstack([X, X]), 90))
    with pytest.raises(ValueError, match=r"X has \(6,\) features, expected 12"):
        kde.score_samples(announced(X, (100, 12))).compute()


class OpenFile:
    """As of h5py: it can be read here, and not be sent elsewhere."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.ndim = X, X.shape, X.dtype, X.ndim

    def __getitem__(self, key):
        return self.X[key]

    def __reduce__(self):
        raise TypeError("an open file cannot be pickled")


def test_what_cannot_be_sent_is_read_here():
    X, _, Q = draws()
    array = da.from_array(OpenFile(X), chunks=(90, 6), name="open-file")
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(array)
    assert_allclose(kde.score_samples(Q), oracles.log_density(Q, X, 0.8), atol=1e-8)


def test_other_collections():
    with pytest.raises(TypeError, match="dask arrays or DataFrames, got Delayed"):
        DaskHighDimKernelDensity().fit(dask.delayed(draws()[0]))


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
    short = (
        data_frame(X).partitions[:3],
        dd.from_pandas(pd.Series(weights), npartitions=3),
    )
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
    with pytest.raises(ValueError, match="n_samples == 0, must be >= 1"):
        kde.sample(0)
    with pytest.raises(ValueError, match="two distinct points"):
        DaskHighDimKernelDensity().fit(blocks(np.ones((5, 2)), 2))


def test_empty_blocks_of_queries():
    X, _, Q = draws()
    kde = DaskHighDimKernelDensity(bandwidth=0.8).fit(blocks(X, 90))
    table = data_frame(Q)
    some = table[table["feature 0"] > 1.0]
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
    with pytest.raises(TypeError, match="BandwidthDisplay needs the training points"):
        BandwidthDisplay.from_estimator(kde)


def test_progress(capsys):
    X, _, _ = draws()
    DaskHighDimKernelDensity(bandwidth=0.8, verbose=1).fit(blocks(X, 90))
    assert "summary: 100%" in capsys.readouterr().err


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
