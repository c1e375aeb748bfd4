"""Features that do not vary have no part in any choice, and a kernel of their own.

The density is that of the other features, fitted without them, times a kernel for each.
The factor is computed here from the definition.
"""

import functools
import pickle
import warnings

import dask.array as da
import numpy as np
import oracles
import pandas as pd
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skhdkde import BandwidthDisplay, HighDimKernelDensity, select_bandwidth
from skhdkde.dask import DaskHighDimKernelDensity

COMPACT = ("epanechnikov", "tophat")
MESSAGE = "constant feature"
ON_ONE_MACHINE = [
    {},
    {"bandwidth": "nearest"},
    {"bandwidth": "gaussian"},
    {"bandwidth": "silverman", "kernel": "epanechnikov"},
    {"kernel": "exponential"},
    {"kernel": "student", "degrees_of_freedom": 4.0},
    {"covariance_type": "diag"},
    {"covariance_type": "diag", "bandwidth": 3.0, "kernel": "tophat"},
    {"covariance_type": "full", "preserve_variance": True, "kernel": "student"},
    {"covariance_type": "full", "kernel": "exponential"},
    {"covariance_type": "local"},
    {"covariance_type": "auto"},
    {"adaptive": True},
    {"algorithm": "neighbors"},
    {"algorithm": "sampling"},
]
ON_DASK = [p for p in ON_ONE_MACHINE if not p.keys() & {"adaptive", "algorithm"}]
ON_DASK = [p for p in ON_DASK if p.get("covariance_type") not in ("local", "auto")]
VALUES = {2: 3.0, 5: -1e6, 6: 0.0}


def data(n=150, seed=0, dtype=np.float64):
    """Return points of 5 features that vary, queries, and the column that each has."""
    rng = np.random.default_rng(seed)
    spread = np.diag([0.5, 1.0, 1.5, 2.0, 4.0]) + 0.3 * rng.standard_normal((5, 5))
    V, Q = rng.standard_normal((n, 5)) @ spread, rng.standard_normal((12, 8))
    Q[:, 5] -= 1e6
    Q[0, list(VALUES)] = list(VALUES.values())
    return V.astype(dtype), Q.astype(dtype)


def varying():
    return np.setdiff1d(np.arange(8), list(VALUES))


def with_constant(V):
    X = np.empty((len(V), 8), dtype=V.dtype)
    X[:, varying()] = V
    for column, value in VALUES.items():
        X[:, column] = value
    return X


def quiet(method, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        return method(*args, **kwargs)


def scale(V, kde):
    """Return the bandwidth of a constant feature, data units."""
    spherical = kde.covariance_type_ == "spherical"
    return kde.bandwidth_ * (1.0 if spherical else np.median(V.std(axis=0)))


def log_factor(Q, V, kde):
    """Return the log of the product of kernels of one feature each."""
    h, total = scale(V.astype(float), kde), np.zeros(len(Q))
    for column, value in VALUES.items():
        r_sq = (Q[:, column].astype(float) - value) ** 2 / h**2
        if kde.kernel_ == "student":
            from scipy.stats import t

            nu = kde.degrees_of_freedom_
            one = t(nu).logpdf(np.sqrt(r_sq))
        else:
            with np.errstate(divide="ignore"):
                one = np.log(oracles.profile(kde.kernel_, r_sq, 1.0).astype(float))
            one = one - float(oracles.log_normalizer(kde.kernel_, 1))
        total += one - np.log(h)
    return total


@functools.cache
def fits(number, dtype):
    """Return estimators of all features and of those that vary, and what is said."""
    V, _ = data(dtype=dtype)
    params = ON_ONE_MACHINE[number]
    kde, other = (HighDimKernelDensity(random_state=0, **params) for _ in range(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kde.fit(with_constant(V))
    return kde, quiet(other.fit, V), [str(warning.message) for warning in caught]


on_one_machine = pytest.mark.parametrize(
    "number", range(len(ON_ONE_MACHINE)), ids=map(str, ON_ONE_MACHINE)
)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@on_one_machine
def test_density_of_the_others_times_a_kernel_each(number, dtype):
    V, Q = data(dtype=dtype)
    kde, other, said = fits(number, dtype)
    assert any(f"3 {MESSAGE}s of 8: columns 2, 5, 6" in message for message in said)
    assert kde.bandwidth_ == other.bandwidth_
    assert kde.covariance_type_ == other.covariance_type_
    assert_array_equal(kde.constant_features_, list(VALUES))
    tolerance = {"rtol": 1e-9} if dtype == np.float64 else {"rtol": 1e-5, "atol": 1e-3}
    factor = log_factor(Q, V, kde)
    expected = quiet(other.score_samples, Q[:, varying()]) + factor
    assert_allclose(quiet(kde.score_samples, Q), expected, **tolerance)
    at_values = log_factor(Q[:1], V, kde)
    for found, expected in (
        (quiet(kde.score_samples, None), quiet(other.score_samples, None)),
        (kde.held_out_log_density_, other.held_out_log_density_),
    ):
        assert_allclose(found, expected + at_values, **tolerance)
    assert quiet(kde.score_samples, Q).dtype == dtype
    found, expected = quiet(kde.diagnose, Q), quiet(other.diagnose, Q[:, varying()])
    assert_array_equal(found.h_g, expected.h_g)
    assert_array_equal(found.standard_error, expected.standard_error)
    assert_allclose(found.log_density, expected.log_density + factor, **tolerance)


@on_one_machine
def test_gradient_is_that_of_the_log_density(number):
    _, Q = data()
    kde, _, _ = fits(number, np.float64)
    gradient, step = kde.log_density_gradient(Q), 1e-5 * np.eye(8)
    inside = np.isfinite(kde.diagnose(Q).log_density)
    assert np.isnan(gradient[~inside]).all()
    assert np.isfinite(gradient[inside]).all()
    for k in range(8):
        up, down = (kde.diagnose(Q[inside] + s).log_density for s in (step[k], -step[k]))
        with np.errstate(invalid="ignore"):
            slope = (up - down) / 2e-5
        smooth = np.isfinite(slope) & (Q[inside][:, k] != VALUES.get(k, np.nan))
        assert_allclose(gradient[inside][smooth, k], slope[smooth], rtol=1e-3, atol=1e-3)


@on_one_machine
def test_samples(number):
    V, _ = data()
    kde, other, _ = fits(number, np.float64)
    X = kde.sample(4000, random_state=0)
    assert_array_equal(X[:, varying()], other.sample(4000, random_state=0))
    for column, value in VALUES.items():
        z = (X[:, column] - value) / scale(V, kde)
        assert np.abs(np.median(z)) < 0.1
        if kde.kernel_ == "gaussian":
            assert z.std() == pytest.approx(1.0, abs=0.05)
        if kde.kernel_ in COMPACT:
            assert 0.8 < np.abs(z).max() <= 1.0


@pytest.mark.usefixtures("in_this_thread")
@pytest.mark.parametrize("params", ON_DASK, ids=str)
def test_on_dask_as_on_one_machine(params):
    V, Q = data()
    X = with_constant(V)
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    kde = DaskHighDimKernelDensity(random_state=0, **params)
    with pytest.warns(UserWarning, match=f"3 {MESSAGE}s of 8: columns 2, 5, 6"):
        kde.fit(da.from_array(X, chunks=(40, 8)), sample_weight=weights)
    assert_array_equal(kde.constant_features_, list(VALUES))
    one = HighDimKernelDensity(
        **{**params, "bandwidth": kde.bandwidth_, "random_state": 0}
    )
    if kde.kernel_ == "student":
        one.set_params(degrees_of_freedom=kde.degrees_of_freedom_)
    own = kde.score_samples(None).compute()
    if kde.covariance_type_ == "spherical":  # the textbook's, in the other features
        quiet(one.fit, V, sample_weight=weights)
        expected = one.score_samples(Q[:, varying()]) + log_factor(Q, V, kde)
        expected_own = one.score_samples(None) + log_factor(Q[:1], V, kde)
    else:
        quiet(one.fit, X, sample_weight=weights)
        expected, expected_own = one.score_samples(Q), one.score_samples(None)
        gradient = one.log_density_gradient(Q)
        assert_allclose(kde.log_density_gradient(Q), gradient, rtol=1e-5, atol=1e-6)
    assert_allclose(kde.score_samples(Q), expected, rtol=1e-6)
    assert_allclose(own, expected_own, rtol=1e-6)
    assert_allclose(kde.diagnose(Q).log_density, kde.score_samples(Q), rtol=1e-9)
    assert np.abs(np.median(kde.sample(500, random_state=1)[:, 5]) + 1e6) < 1.0


@pytest.mark.parametrize("preserve_variance", [False, True])
def test_nothing_changes_at_a_numeric_bandwidth(preserve_variance):
    V, Q = data()
    X = with_constant(V)
    kde = HighDimKernelDensity(bandwidth=0.8, preserve_variance=preserve_variance).fit(X)
    assert_array_equal(kde.constant_features_, list(VALUES))
    if not preserve_variance:
        expected = oracles.log_density(Q, X, 0.8)
        assert_allclose(kde.score_samples(Q), expected.astype(float), rtol=1e-8)


def test_names():
    X = pd.DataFrame(with_constant(data()[0]), columns=list("abcdefgh"))
    with pytest.warns(UserWarning, match=r"columns 2 \('c'\), 5 \('f'\), 6 \('g'\)"):
        HighDimKernelDensity().fit(X)
    one = X.drop(columns=["c", "f"])
    with pytest.warns(UserWarning, match=r"1 constant feature of 6: column 4 \('g'\)"):
        HighDimKernelDensity().fit(one)


def test_rules_as_a_function():
    V, _ = data()
    with pytest.warns(UserWarning, match=MESSAGE):
        found = select_bandwidth(with_constant(V))
    assert found == select_bandwidth(V)


def test_constant_where_weights_are_positive():
    V, Q = data()
    X, weights = with_constant(V), np.ones(len(V))
    X[7, 5], weights[7] = -1e6 + 0.3, 0.0
    with pytest.warns(UserWarning, match="columns 2, 5, 6"):
        kde = HighDimKernelDensity().fit(X, sample_weight=weights)
    other = HighDimKernelDensity().fit(V, sample_weight=weights)
    own, others = kde.score_samples(None), other.score_samples(None)
    assert_allclose(np.delete(own - others, 7), log_factor(Q[:1], V, kde)[0])
    assert_allclose(own[7] - others[7], log_factor(X[7:8], V, kde), rtol=1e-9)
    assert_allclose(kde.held_out_log_density_, own)


@pytest.mark.parametrize("covariance_type", ["diag", "full", "local", "auto"])
def test_constant_in_a_fold(covariance_type):
    """Which varies in a few rows only; whatever folds these are in."""
    V, _ = data(60)
    for n_different in (1, 2, 5):
        X = np.column_stack([V, np.arange(60) < n_different, np.arange(60) % 2])
        kde = HighDimKernelDensity(covariance_type=covariance_type, random_state=0)
        quiet(kde.fit, X)
        assert not len(kde.constant_features_)
        assert np.isfinite(kde.score_samples(X)).all()
        assert np.isfinite(kde.held_out_log_density_).all()


def test_all_features_are_constant():
    X = np.ones((20, 3))
    kde = HighDimKernelDensity(bandwidth=0.5).fit(X)
    assert_array_equal(kde.constant_features_, [])
    with pytest.raises(ValueError, match="distinct points"):
        HighDimKernelDensity().fit(X)
    for params in ({"bandwidth": 0.5}, {}):
        kde = HighDimKernelDensity(covariance_type="diag", **params)
        with pytest.raises(ValueError, match=r"distinct|differ"):
            kde.fit(X)


def test_pickles_and_displays():
    pytest.importorskip("matplotlib")
    V, Q = data()
    kde = quiet(HighDimKernelDensity().fit, with_constant(V))
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(again.score_samples(Q), kde.score_samples(Q))
    display = BandwidthDisplay.from_estimator(kde, with_constant(V[::2] + 0.1))
    assert np.isfinite(display.values).all()


@pytest.mark.usefixtures("tensors_as_on_a_gpu")
def test_tensors_on_a_gpu():
    import sklearn
    import torch

    V, Q = data()
    expected = quiet(HighDimKernelDensity().fit, with_constant(V)).score_samples(Q)
    with sklearn.config_context(array_api_dispatch=True):
        kde = HighDimKernelDensity(backend="torch")
        quiet(kde.fit, torch.as_tensor(with_constant(V)))
        found = kde.score_samples(torch.as_tensor(Q))
        assert kde.log_density_gradient(torch.as_tensor(Q)).shape == Q.shape
    assert_allclose(np.asarray(found), expected, rtol=1e-8)


@given(
    st.lists(st.sampled_from(["constant", "rounding", "varies", "one"]), min_size=2),
    st.integers(2, 300),
    st.sampled_from([np.float64, np.float32]),
    st.integers(0, 1000),
)
@examples(50)
def test_which_are_constant(kinds, n, dtype, seed):
    """However many rows come before one that differs."""
    rng = np.random.default_rng(seed)
    X = np.empty((n, len(kinds)), dtype=dtype)
    for k, kind in enumerate(kinds):
        X[:, k] = rng.choice([0.1, -7e5, 3e-9])
        if kind == "rounding":
            X[rng.integers(n), k] *= 1.0 + 3e-16
        elif kind == "varies":
            X[:, k] = rng.standard_normal(n)
        elif kind == "one":
            X[rng.integers(n), k] += 1.0
    constant = [k for k, kind in enumerate(kinds) if kind in ("constant", "rounding")]
    kde = quiet(HighDimKernelDensity(bandwidth=1.0).fit, X)
    expected = constant if len(constant) < len(kinds) else []
    assert_array_equal(kde.constant_features_, expected)


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "student"])
@pytest.mark.parametrize("far", [1e100, 1e150, 1e200, 1e300])
def test_far_queries_in_a_constant_feature(kernel, far):
    """By the tail of the kernel of one feature."""
    X = np.column_stack([data()[0][:, :1], np.ones(150)])
    params = {"kernel": kernel, "bandwidth": 1.0, "covariance_type": "diag"}
    kde = HighDimKernelDensity(degrees_of_freedom=3.0, **params)
    quiet(kde.fit, X)
    r = far / np.std(X[:, 0])
    with np.errstate(over="ignore"):
        expected = {
            "gaussian": -0.5 * r * r,
            "exponential": -r,
            "student": -4.0 * np.log(r / np.sqrt(3.0)),
        }[kernel]
    at_value = kde.score_samples([[0.0, 1.0]])[0]
    found = kde.score_samples([[0.0, far]])[0] - at_value
    assert_allclose(found, expected, rtol=1e-6)
    slope = {"gaussian": -r, "exponential": -1.0, "student": -4.0 / r}[kernel]
    gradient = kde.log_density_gradient([[0.0, far]])[0, 1] * np.std(X[:, 0])
    assert_allclose(gradient, slope, rtol=1e-6)


def test_tiny_units_beside_a_constant_feature():
    V, _ = data()
    X = with_constant(V)
    X[:, varying()] *= 1e-150
    kde = quiet(HighDimKernelDensity().fit, X)
    gradient = kde.log_density_gradient(X[:3])
    assert np.isfinite(gradient).all()


def test_large_offsets_are_no_constants():
    rng = np.random.default_rng(0)
    X = np.column_stack([1e15 + rng.integers(0, 10, 200), rng.standard_normal(200)])
    assert len(HighDimKernelDensity(bandwidth=1.0).fit(X).constant_features_) == 0


@pytest.mark.usefixtures("in_this_thread")
def test_points_without_weight_are_not_constant_on_dask():
    rng = np.random.default_rng(0)
    A = np.column_stack([rng.normal(size=300), np.full(300, 0.1), rng.normal(size=300)])
    A[0], weights = [0.0, 5.0, 0.0], np.ones(300)
    weights[0] = 0.0
    params = {"bandwidth": 0.5, "covariance_type": "diag"}
    one = quiet(HighDimKernelDensity(**params).fit, A, sample_weight=weights)
    many = DaskHighDimKernelDensity(**params)
    quiet(many.fit, da.from_array(A, chunks=(100, 3)), sample_weight=weights)
    found = many.score_samples(None).compute()
    assert_allclose(found, one.score_samples(None), rtol=1e-6)
    diagnosis = many.diagnose().log_density
    assert_allclose(diagnosis, one.diagnose().log_density, rtol=1e-6)
