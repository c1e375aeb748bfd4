"""The scikit-learn contract, and what scikit-learn's own tests ask of a KDE."""

import copy
import pickle

import numpy as np
import oracles
import pandas as pd
import pytest
from approximations import has_cuda
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhdkde import HighDimKernelDensity
from skhdkde.dask import DaskHighDimKernelDensity


@parametrize_with_checks(
    [
        HighDimKernelDensity(),
        HighDimKernelDensity(bandwidth=1.0),
        HighDimKernelDensity(bandwidth="nearest", kernel="exponential"),
        HighDimKernelDensity(bandwidth="silverman", kernel="epanechnikov", n_jobs=1),
    ]
)
@pytest.mark.filterwarnings("ignore:.*training points are exact duplicates:UserWarning")
def test_scikit_learn_checks(estimator, check):
    if "cuda" in str(check) and not has_cuda():
        # scikit-learn skips it for builds of torch without CUDA only
        pytest.skip("no CUDA GPU that torch can use")
    check(estimator)


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((100, 3))


# What scikit-learn's tests of KernelDensity ask.


@pytest.mark.parametrize("bandwidth", [0.01, 0.1, 1, "scott", "silverman"])
@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_all_kernels_and_bandwidths(X, kernel, bandwidth):
    Y = np.random.default_rng(1).standard_normal((100, 3))
    kde = HighDimKernelDensity(kernel=kernel, bandwidth=bandwidth).fit(X)
    expected = oracles.log_density(Y, X, kde.bandwidth_, kernel)
    assert_allclose(kde.score_samples(Y), expected, atol=1e-8)
    assert kde.score(Y) == pytest.approx(expected.sum())
    if not isinstance(bandwidth, str):
        assert kde.bandwidth_ == bandwidth


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_agrees_with_scikit_learn_where_it_is_right(X, kernel):
    """Few dimensions, and a tree of a single leaf, which makes it a direct sum."""
    Y = np.random.default_rng(1).standard_normal((100, 3))
    theirs = KernelDensity(kernel=kernel, bandwidth=0.8, leaf_size=len(X)).fit(X)
    ours = HighDimKernelDensity(kernel=kernel, bandwidth=0.8).fit(X)
    # a tolerance for their linear-domain sums
    assert_allclose(ours.score_samples(Y), theirs.score_samples(Y), atol=1e-5)


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_samples_lie_near_training_points(X, kernel):
    kde = HighDimKernelDensity(bandwidth=0.2, kernel=kernel).fit(X)
    samples = kde.sample(100, random_state=0)
    assert samples.shape == (100, 3)
    distance, _ = NearestNeighbors(n_neighbors=1).fit(X).kneighbors(samples)
    reach = {"gaussian": 5, "exponential": 20}.get(kernel, 1)
    assert (distance < reach * 0.2).all()
    assert HighDimKernelDensity(bandwidth=1.0).fit(X[:, :1]).sample().shape == (1, 1)


def test_samples_follow_the_weights(X):
    weights = np.r_[np.zeros(50), 1.0, 3.0, np.zeros(48)]
    kde = HighDimKernelDensity(bandwidth=1e-9).fit(X, sample_weight=weights)
    samples = kde.sample(4000, random_state=0)
    first = np.linalg.norm(samples - X[50], axis=1) < 1e-6
    second = np.linalg.norm(samples - X[51], axis=1) < 1e-6
    assert (first | second).all()
    assert second.mean() == pytest.approx(0.75, abs=0.03)


def test_same_samples_for_same_weights(X):
    """Weights, a multiple of them, and repeated points draw the same points."""
    counts = np.random.default_rng(0).integers(1, 4, size=100)
    kde = HighDimKernelDensity(bandwidth=0.3)
    weighted = kde.fit(X, sample_weight=counts).sample(50, random_state=3)
    scaled = kde.fit(X, sample_weight=0.37 * counts).sample(50, random_state=3)
    repeated = kde.fit(np.repeat(X, counts, axis=0)).sample(50, random_state=3)
    assert_allclose(scaled, weighted)
    assert_allclose(repeated, weighted)
    uniform = kde.fit(X, sample_weight=np.full(100, 3.0)).sample(50, random_state=3)
    assert_allclose(kde.fit(X).sample(50, random_state=3), uniform)


def test_grid_search_in_a_pipeline():
    centers = [[0, 1], [1, 0], [0, 0]]
    X, _ = make_blobs(cluster_std=0.1, random_state=1, centers=centers)
    pipeline = make_pipeline(StandardScaler(with_std=False), HighDimKernelDensity())
    name = "highdimkerneldensity__bandwidth"
    search = GridSearchCV(pipeline, {name: [0.001, 0.01, 0.1, 1, 10]}).fit(X)
    assert search.best_params_[name] == 0.1


@pytest.mark.parametrize("sample_weight", [None, [0.1, 0.2, 0.3]])
def test_pickle(sample_weight):
    kde = HighDimKernelDensity().fit([[1.0], [2.0], [4.0]], sample_weight=sample_weight)
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(
        again.score_samples([[1.1], [2.1]]), kde.score_samples([[1.1], [2.1]])
    )


@pytest.mark.parametrize(
    "method", ["score_samples", "sample", "log_density_gradient", "score"]
)
def test_not_fitted(X, method):
    with pytest.raises(NotFittedError):
        getattr(HighDimKernelDensity(), method)(X)


# Data frames, cloning, refitting.


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_data_frames(X, dtype):
    table = pd.DataFrame(X.astype(dtype), columns=["a", "b", "c"])
    kde = HighDimKernelDensity(bandwidth=0.5).fit(table)
    assert kde.feature_names_in_.tolist() == ["a", "b", "c"]
    assert kde.n_features_in_ == 3
    log_density = kde.score_samples(table)
    assert log_density.dtype == dtype
    plain = HighDimKernelDensity(bandwidth=0.5).fit(X.astype(dtype))
    assert_array_equal(log_density, plain.score_samples(X.astype(dtype)))
    with pytest.raises(ValueError, match="feature names"):
        kde.score_samples(table[["b", "a", "c"]])


def test_bandwidth_of_any_number_type(X):
    expected = HighDimKernelDensity(bandwidth=0.5).fit(X).score_samples(X)
    for bandwidth in (np.float32(0.5), np.float64(0.5)):
        kde = HighDimKernelDensity(bandwidth=bandwidth).fit(X)
        assert type(kde.bandwidth_) is float
        assert_array_equal(kde.score_samples(X), expected)
    assert HighDimKernelDensity(bandwidth=1).fit(X).bandwidth_ == 1.0


def test_clone_and_repr(X):
    kde = HighDimKernelDensity(bandwidth="scott", kernel="linear", n_jobs=2).fit(X)
    again = clone(kde)
    assert again.get_params() == kde.get_params()
    assert not hasattr(again, "bandwidth_")
    expected = "HighDimKernelDensity(bandwidth='scott', kernel='linear', n_jobs=2)"
    assert repr(kde) == expected


def test_fit_returns_self_and_replaces_everything(X):
    kde = HighDimKernelDensity()
    assert kde.fit(pd.DataFrame(X, columns=["a", "b", "c"])) is kde
    kde.set_params(bandwidth=0.5).fit(X[:, :2])
    assert kde.n_features_in_ == 2
    assert not hasattr(kde, "feature_names_in_")
    assert kde.bandwidth_search_ is None


def test_subclass_keeps_its_attributes(X):
    class Named(HighDimKernelDensity):
        def fit(self, X, y=None, sample_weight=None):
            self.label_ = "mine"
            return super().fit(X, y, sample_weight)

    assert Named(bandwidth=0.5).fit(X).label_ == "mine"


# Bad input.

GOOD = np.random.default_rng(0).standard_normal((10, 3))


def bad(value, at=(2, 1)):
    X = GOOD.copy()
    X[at] = value
    return X


BAD_DATA = [
    ("nan", bad(np.nan), ValueError, "X contains NaN"),
    ("inf", bad(np.inf), ValueError, "X contains infinity"),
    ("one-dimensional", GOOD[0], ValueError, "X: Expected 2D array, got 1D array"),
    ("three-dimensional", GOOD[None], ValueError, "dim 3"),
    ("no samples", GOOD[:0], ValueError, "0 sample"),
    ("no features", GOOD[:, :0], ValueError, "0 feature"),
    ("sparse", sparse.csr_array(GOOD), TypeError, "Sparse data was passed for X"),
    ("complex", GOOD + 1j, ValueError, "Complex data not supported"),
    (
        "strings",
        GOOD.astype(str).astype(object) + "x",
        ValueError,
        "X: could not convert",
    ),
    ("scalar", 3.0, ValueError, "got scalar array"),
    ("None", None, ValueError, "X: Expected 2D array"),
]
IDS = [case[0] for case in BAD_DATA]


@pytest.mark.parametrize("name, X, error, message", BAD_DATA, ids=IDS)
def test_bad_training_data(name, X, error, message):
    with pytest.raises(error, match=message):
        HighDimKernelDensity().fit(X)


# NaN is a missing value there, and None the training points
@pytest.mark.parametrize("name, X, error, message", BAD_DATA[1:-1], ids=IDS[1:-1])
@pytest.mark.parametrize("method", ["score_samples", "score", "log_density_gradient"])
def test_bad_queries(method, name, X, error, message):
    kde = HighDimKernelDensity(bandwidth=1.0).fit(GOOD)
    with pytest.raises(error, match=message):
        getattr(kde, method)(X)


@pytest.mark.parametrize("method", ["score_samples", "score", "log_density_gradient"])
def test_wrong_number_of_features(method):
    kde = HighDimKernelDensity(bandwidth=1.0).fit(GOOD)
    message = "X has 2 features, but HighDimKernelDensity is expecting 3"
    with pytest.raises(ValueError, match=message):
        getattr(kde, method)(GOOD[:, :2])


@pytest.mark.parametrize(
    "params, message",
    [
        ({"bandwidth": 0}, "'bandwidth' parameter.*Got 0"),
        ({"bandwidth": -1.5}, "'bandwidth' parameter.*Got -1.5"),
        ({"bandwidth": np.nan}, "'bandwidth' parameter.*Got nan"),
        ({"bandwidth": np.inf}, "'bandwidth' parameter.*Got inf"),
        ({"bandwidth": "best"}, "'bandwidth' parameter.*Got 'best'"),
        ({"bandwidth": None}, "'bandwidth' parameter.*Got None"),
        ({"bandwidth": [1.0]}, "'bandwidth' parameter"),
        ({"bandwidth": True}, "bandwidth must be a number or a rule, got True"),
        ({"bandwidth": 1e-200}, "bandwidth=1e-200 is too small for X"),
        ({"kernel": "box"}, "'kernel' parameter.*Got 'box'"),
        ({"n_jobs": 0}, "n_jobs must not be 0"),
        ({"n_jobs": 1.5}, "'n_jobs' parameter.*Got 1.5"),
        ({"verbose": "yes"}, "'verbose' parameter.*Got 'yes'"),
        ({"random_state": "x"}, "'random_state' parameter.*Got 'x'"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        HighDimKernelDensity(**params).fit(GOOD)


BAD_WEIGHTS = [
    (np.r_[-1.5, np.ones(9)], "sample_weight must not be negative, got.*-1.5"),
    (np.r_[np.nan, np.ones(9)], "sample_weight contains NaN"),
    (np.r_[np.inf, np.ones(9)], "sample_weight contains infinity"),
    (np.zeros(10), "sample_weight"),
    (np.ones(9), r"sample_weight.shape == \(9,\), expected \(10,\)"),
    (np.ones((10, 2)), "sample_weight must be 1D, got shape"),
    (["a"] * 10, "sample_weight: could not convert"),
]


@pytest.mark.parametrize("weights, message", BAD_WEIGHTS)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        HighDimKernelDensity().fit(GOOD, sample_weight=weights)


@pytest.mark.parametrize(
    "n_samples, error, message",
    [
        (0, ValueError, "n_samples == 0, must be >= 1"),
        (-1, ValueError, "n_samples == -1, must be >= 1"),
        (1.5, TypeError, "n_samples must be an instance of .*int.*, not .*float"),
        (None, TypeError, "n_samples must be an instance of .*int.*, not .*NoneType"),
        ("3", TypeError, "n_samples must be an instance of .*int.*, not .*str"),
    ],
)
def test_bad_number_of_samples(n_samples, error, message):
    kde = HighDimKernelDensity(bandwidth=1.0).fit(GOOD)
    with pytest.raises(error, match=message):
        kde.sample(n_samples)


EQUAL = np.ones((10, 3))
FAILING = [
    ({"covariance_type": "diag"}, EQUAL),
    ({"covariance_type": "full"}, EQUAL),
    ({"covariance_type": "auto"}, EQUAL),
    ({"covariance_type": "diag"}, bad(1e30)),
    ({"bandwidth": 9.0, "preserve_variance": True}, GOOD),
    ({"bandwidth": 0.5, "preserve_variance": True}, np.ones((10, 2))),
    ({"bandwidth": 0.5, "kernel": "student"}, GOOD),
    ({"kernel": "tophat", "adaptive": True}, GOOD),
    ({"covariance_type": "auto", "bandwidth": 0.5}, GOOD),
    ({"kernel": "student"}, GOOD[:2]),
    ({"bandwidth": 1e-200}, GOOD),
    ({"n_jobs": 0}, GOOD),
    ({"algorithm": "neighbors", "adaptive": True}, GOOD),
]


@pytest.mark.parametrize("make", [HighDimKernelDensity, DaskHighDimKernelDensity])
@pytest.mark.parametrize("parameters, X", FAILING, ids=lambda value: str(value)[:60])
def test_a_fit_that_fails_late_changes_nothing(parameters, X, make):
    """In whatever step it fails."""
    kde = make(bandwidth=0.7, random_state=0).fit(pd.DataFrame(GOOD, columns=list("abc")))
    kde.set_params(**parameters)
    before = dict(kde.__dict__)
    with pytest.raises(ValueError):
        kde.fit(X)
    assert kde.__dict__ == before
    kde.set_params(**{name: getattr(make(), name) for name in parameters})
    names = pd.DataFrame(GOOD, columns=list("abc"))
    fresh = make(bandwidth=0.7, random_state=0).fit(names)
    assert_array_equal(kde.score_samples(names), fresh.score_samples(names))


STRUCTURES = [
    {},
    {"covariance_type": "diag"},
    {"covariance_type": "full", "preserve_variance": True},
    {"covariance_type": "local", "mixture": GaussianMixture(2, random_state=0)},
    {"adaptive": True},
    {"kernel": "student", "degrees_of_freedom": 3.0},
    {"kernel": "epanechnikov"},
    {"algorithm": "sampling"},
    {"algorithm": "neighbors"},
]


@pytest.mark.filterwarnings("ignore:.*stated error:UserWarning")
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("parameters", STRUCTURES, ids=str)
@pytest.mark.parametrize(
    "train, by_queries",
    [
        (np.float32, {"float32": np.float32, "float64": np.float64, "int64": np.float64}),
        (np.float64, {"float32": np.float64}),
        (np.int32, {"float32": np.float64}),
        (np.float16, {"float16": np.float32, "float64": np.float64}),
    ],
    ids=["float32", "float64", "int32", "float16"],
)
def test_float32_stays_float32(X, train, by_queries, parameters, backend):
    """Half precision becomes that too; everything else is float64."""
    kde = HighDimKernelDensity(bandwidth=0.8, backend=backend, **parameters)
    kde.fit((3.0 * X).astype(train))
    own = kde._density.dtype
    assert own == (np.float32 if train in (np.float32, np.float16) else np.float64)
    for queries, result in by_queries.items():
        Q = (3.0 * X[:4]).astype(queries)
        assert kde.score_samples(Q).dtype == result
        assert kde.log_density_gradient(Q).dtype == result
        assert kde.diagnose(Q).log_density.dtype == result
    assert kde.sample(2).dtype == kde.score_samples(None).dtype == own
    assert kde.held_out_log_density_.dtype == own


def test_a_failed_fit_changes_nothing():
    kde = HighDimKernelDensity(bandwidth="kl").fit(
        pd.DataFrame(GOOD, columns=list("abc"))
    )
    before = copy.deepcopy(kde.__dict__)
    log_density = kde.score_samples(None)
    failures = [(X, None) for _, X, _, _ in BAD_DATA]
    failures += [(GOOD[:, :2].repeat(1, axis=0), w) for w, _ in BAD_WEIGHTS]
    failures += [(np.ones((10, 2)), None)]
    for X, weights in failures:
        with pytest.raises((ValueError, TypeError)):
            kde.fit(X, sample_weight=weights)
        assert kde.__dict__.keys() == before.keys()
        assert kde.n_features_in_ == 3
        assert kde.feature_names_in_.tolist() == list("abc")
        assert kde.bandwidth_ == before["bandwidth_"]
        assert_array_equal(kde.score_samples(None), log_density)
    kde.set_params(bandwidth=-1.0)
    with pytest.raises(ValueError, match="bandwidth"):
        kde.fit(GOOD[:, :2])
    kde.set_params(bandwidth="kl")
    assert_array_equal(kde.score_samples(None), log_density)
