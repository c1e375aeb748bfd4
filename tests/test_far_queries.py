"""Queries at any distance: results follow the kernel's own tail, on every path."""

import numpy as np
import oracles
import pytest
import structured_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skhdkde import HighDimKernelDensity

DIRECTION = np.array([0.3, -1.0, 0.5])
# Around the square root of the largest float, and up to it; the largest is 1.8e308.
DISTANCES = [1e20, 1e100, 3e144, 1e146, 1.3e154, 1e155, 1e200, 1e300, 1.7e308]
KERNELS = [(name, None) for name in oracles.KERNEL_NAMES]
KERNELS += [("student", nu) for nu in (1.0, 30.0, 1e9)]
RTOL = {np.float64: 5e-15, np.float32: 5e-7}


def points(n=60, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def at(distances):
    return np.multiply.outer(distances, DIRECTION)


def named(kernel, nu, **parameters):
    degrees = {} if nu is None else {"degrees_of_freedom": nu}
    return HighDimKernelDensity(kernel=kernel, **degrees, **parameters)


def quietly(function, *args):
    with np.errstate(over="ignore"):  # longdouble to float64
        return function(*args)


def true_log_density(X, Y, h, kernel, nu):
    if nu is None:
        return quietly(oracles.log_density, X, Y, h, kernel)
    one = {0: np.zeros(Y.shape[1])}, {0: np.eye(Y.shape[1])}
    labels = np.zeros(len(Y), dtype=int)
    oracle = structured_oracle.Oracle(Y, labels, *one, h, 1.0, kernel=kernel, nu=nu)
    return quietly(oracle.log_density, X)


def true_gradient(X, h, kernel, nu):
    """Of points at the origin, which all are, seen from there."""
    X, sq = X.astype(np.longdouble), np.square(X.astype(np.longdouble)).sum(1)[:, None]
    if kernel == "gaussian":
        gradient = -X / np.longdouble(h) ** 2
    elif kernel == "exponential":
        gradient = -X / np.sqrt(sq) / np.longdouble(h)
    elif kernel == "student":
        gradient = -(nu + X.shape[1]) * X / (nu * np.longdouble(h) ** 2 + sq)
    else:
        gradient = np.full(X.shape, np.nan)
    return quietly(gradient.astype, np.float64)


@pytest.mark.parametrize("kernel, nu", KERNELS)
def test_log_densities_and_gradients(make_kde, kernel, nu):
    Y, X = points(), at(DISTANCES)
    degrees = {} if nu is None else {"degrees_of_freedom": nu}
    kde = make_kde(kernel=kernel, bandwidth=0.7, **degrees).fit(Y)
    expected = true_log_density(X, Y, 0.7, kernel, nu)
    assert_allclose(kde.score_samples(X), expected, rtol=5e-15)
    expected = true_gradient(X, 0.7, kernel, nu)
    assert_allclose(kde.log_density_gradient(X), expected, rtol=1e-12)


@pytest.mark.parametrize("kernel, nu", KERNELS)
def test_diagnoses(kernel, nu):
    """Far out all is a multiple of a power of the distance."""
    kde = named(kernel, nu, bandwidth=0.7).fit(points())
    found, near = kde.diagnose(at(DISTANCES)), kde.diagnose(at([1e50]))
    ratio = np.array(DISTANCES) / 1e50
    power = {"gaussian": 2, "exponential": 1}.get(kernel, 0)
    with np.errstate(over="ignore"):
        for name in ("h_g", "h_clt"):
            expected = getattr(near, name) * ratio
            assert_allclose(getattr(found, name), expected, rtol=1e-9)
        expected = near.standard_error * ratio**power
        assert_allclose(found.standard_error, expected, rtol=1e-6)
        expected = near.tail_index * ratio**-power
        assert_allclose(found.tail_index, expected, rtol=1e-9, atol=1e-290)
    assert_allclose(found.log_density, kde.score_samples(at(DISTANCES)))
    for name in ("regime", "effective_sample_size", "max_weight"):
        expected = np.repeat(getattr(near, name), len(DISTANCES))
        np.testing.assert_array_equal(getattr(found, name), expected)


@pytest.mark.parametrize("preserve_variance", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("kernel, nu", [("gaussian", None), ("student", 3.0)])
@pytest.mark.parametrize("covariance_type", ["diag", "full", "local"])
def test_structures(covariance_type, kernel, nu, adaptive, preserve_variance):
    """Features in units that differ by many powers of ten."""
    Y = points(80) * [1e-3, 10.0, 1e4] + [5.0, 0.0, 1e5]
    Y[40:] += [0.01, 0.0, 3e4]
    mixture = None
    if covariance_type == "local":
        mixture = GaussianMixture(2, random_state=0).fit(Y)
    options = {"adaptive": adaptive, "preserve_variance": preserve_variance}
    kde = named(
        kernel,
        nu,
        bandwidth=0.3,
        covariance_type=covariance_type,
        mixture=mixture,
        **options,
    ).fit(Y)
    options |= {"kernel": kernel, "degrees_of_freedom": nu}
    oracle = structured_oracle.make_oracle(Y, covariance_type, mixture, 0.3, options)
    X = at(DISTANCES)
    expected = quietly(oracle.log_density, X)
    assert_allclose(kde.score_samples(X), expected, rtol=5e-15)
    assert_allclose(kde.diagnose(X).log_density, expected, rtol=5e-15)
    expected = quietly(oracle.gradient, X.astype(np.longdouble))
    assert_allclose(kde.log_density_gradient(X), expected, rtol=1e-9)


@settings(max_examples=80, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 8)),
    log_scale=st.floats(-120, 120),
    log_h=st.floats(-60, 60),
    log_distance=st.floats(-3, 308),
    kernel=st.sampled_from(KERNELS),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_any_distance(seed, shape, log_scale, log_h, log_distance, kernel, dtype):
    rng = np.random.default_rng(seed)
    narrow = dtype == np.float32
    scale = 10.0 ** (log_scale / 6 if narrow else log_scale)
    h = scale * 10.0 ** (log_h / 6 if narrow else log_h)
    Y = (scale * rng.standard_normal(shape)).astype(dtype)
    X = 10.0**log_distance * rng.uniform(-1, 1, (3, shape[1]))
    kde = named(*kernel, bandwidth=h).fit(Y)
    expected = true_log_density(X, Y, h, *kernel)
    found = kde.score_samples(X)
    atol = 1e-3 if narrow else 1e-8
    assert_allclose(
        found, quietly(expected.astype, found.dtype), rtol=RTOL[dtype], atol=atol
    )
    assert_allclose(kde.diagnose(X).log_density, found)


@pytest.mark.parametrize("kernel, nu", KERNELS)
@pytest.mark.parametrize("algorithm", ["neighbors", "sampling", "auto"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_approximations(algorithm, kernel, nu):
    Y, X = points(3000), at(DISTANCES)
    both = [
        named(kernel, nu, bandwidth=0.7, algorithm=name, random_state=0).fit(Y)
        for name in ("exact", algorithm)
    ]
    expected, found = (kde.score_samples(X) for kde in both)
    assert_allclose(found, expected, rtol=1e-12)
    assert not np.isnan(both[1].approximation_.error).any()
    assert_allclose(both[1].diagnose(X).log_density, expected, rtol=1e-12)


def test_results_of_near_queries_do_not_depend_on_far_ones():
    Y, X = points(), points(5, seed=1)
    kde = named("student", 3.0, bandwidth=0.3).fit(Y)
    together = np.vstack([X, at([1e200])])
    for method in (kde.score_samples, kde.log_density_gradient):
        assert_allclose(method(together)[:5], method(X), rtol=1e-12)


def test_training_points_without_weight_may_be_far():
    Y, weights = points(), np.ones(60)
    Y[7], weights[7] = 1e250 * DIRECTION, 0.0
    kde = named("student", 1.0, bandwidth=0.7).fit(Y, sample_weight=weights)
    expected = true_log_density(Y[7:8], np.delete(Y, 7, axis=0), 0.7, "student", 1.0)
    assert_allclose(kde.score_samples(None)[7], expected[0], rtol=5e-15)
    assert_allclose(kde.diagnose(None).log_density[7], expected[0], rtol=5e-15)


@pytest.mark.parametrize("covariance_type", ["spherical", "full"])
@pytest.mark.parametrize("kernel, nu", [("gaussian", None), ("student", 1.0)])
def test_on_dask(in_this_thread, covariance_type, kernel, nu):
    da = pytest.importorskip("dask.array")
    pytest.importorskip("distributed")
    from skhdkde.dask import DaskHighDimKernelDensity

    Y, X, weights = points(), at(DISTANCES), np.ones(60)
    Y[7], weights[7] = 1e250 * DIRECTION, 0.0
    parameters = {"kernel": kernel, "bandwidth": 0.7, "covariance_type": covariance_type}
    parameters |= {} if nu is None else {"degrees_of_freedom": nu}
    one = HighDimKernelDensity(**parameters).fit(Y, sample_weight=weights)
    many = DaskHighDimKernelDensity(**parameters).fit(
        da.from_array(Y, chunks=(25, 3)), sample_weight=da.from_array(weights, chunks=25)
    )
    for name in ("score_samples", "log_density_gradient"):
        found, expected = (getattr(kde, name)(X) for kde in (many, one))
        assert_allclose(found, expected, rtol=1e-12)
    assert_allclose(many.score_samples(None), one.score_samples(None), rtol=1e-12)
    for queries in (X, None):
        found, expected = (kde.diagnose(queries) for kde in (many, one))
        for name in ("log_density", "standard_error", "tail_index", "h_g", "h_clt"):
            both = getattr(found, name), getattr(expected, name)
            assert_allclose(*both, rtol=1e-6, atol=1e-9)
