"""Where inner products lose the digits that a log density needs."""

import numpy as np
import oracles
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import logsumexp

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
# Rounding of the result, and of exponents of its size, where that is more.
RTOL = {np.float64: 2e-15, np.float32: 5e-7}
DTYPES = [np.float64, np.float32]


def assert_precise(make_kde, X, Y, h, kernel="gaussian", rtol=None):
    dtype = Y.dtype.type
    kde = make_kde(bandwidth=h, kernel=kernel).fit(Y)
    expected = oracles.log_density(X, Y, h, kernel)
    result = kde.score_samples(X)
    assert_allclose(result, expected, atol=ATOL[dtype], rtol=rtol or RTOL[dtype])
    return kde


def shifted(dtype, rng):
    Y = (1e6 + rng.standard_normal((300, 20))).astype(dtype)
    return Y[:20] + dtype(0.5), Y, 0.8


def clusters(dtype, rng):
    Y = 1e-3 * rng.standard_normal((300, 20))
    Y[150:] += 1e3 / np.sqrt(20)
    Y = Y.astype(dtype)
    return np.vstack([Y[:10], Y[-10:]]) + dtype(1e-3), Y, 1e-3


def duplicates(dtype, rng):
    Y = np.repeat(rng.standard_normal((30, 50)), 10, axis=0).astype(dtype)
    return np.vstack([Y[:10], Y[:10] + dtype(1e-3)]), Y, 0.05


def one_dimension(dtype, rng):
    Y = rng.standard_normal((500, 1)).astype(dtype)
    return np.linspace(-9, 9, 40, dtype=dtype)[:, None], Y, 0.01


def ten_thousand_dimensions(dtype, rng):
    Y = rng.standard_normal((60, 10_000)).astype(dtype)
    return rng.standard_normal((6, 10_000)).astype(dtype), Y, 1.2


def images(dtype, rng):
    """Positive, sparse, not centred, at the small bandwidth that such data want."""
    Y = (rng.random((300, 784)) * (rng.random((300, 784)) < 0.2)).astype(dtype)
    X = Y[:20] + (0.02 * rng.random((20, 784))).astype(dtype)
    return X, Y, 0.02


def outlier(dtype, rng):
    """One far point must not spoil the others; queries beside it and not."""
    Y = rng.standard_normal((300, 10)).astype(dtype)
    Y[0] = 1e5
    return np.vstack([Y[:10] + dtype(0.125)]), Y, 0.5


def heavy_tails(dtype, rng):
    Y = rng.standard_t(1.0, size=(400, 8)).astype(dtype)
    return Y[:60] + dtype(0.01), Y, 0.3


def fewer_points_than_features(dtype, rng):
    return rng.random((10, 200)).astype(dtype), rng.random((7, 200)).astype(dtype), 0.2


def one_point(dtype, rng):
    return rng.random((10, 3)).astype(dtype), rng.random((1, 3)).astype(dtype), 0.3


def small_units(dtype, rng):
    """Masses in kilograms: the squares underflow in float32."""
    Y = (1e-27 * rng.standard_normal((200, 5))).astype(dtype)
    return Y[:20], Y, 3e-28


def large_units(dtype, rng):
    Y = (1e30 * rng.standard_normal((200, 5))).astype(dtype)
    return Y[:20], Y, 3e29


def close_pairs(dtype, rng):
    """Each query has one training point at a distance far below the product's error."""
    Y = rng.standard_normal((50, 20)).astype(dtype)
    return Y + dtype(1e-3) * rng.standard_normal((50, 20)).astype(dtype), Y, 1e-4


def equal_features(dtype, rng):
    """Products that all round the same way: their errors do not cancel."""
    Y = (rng.random((300, 1)) * np.ones(384)).astype(dtype)
    return (rng.random((30, 1)) * np.ones(384)).astype(dtype), Y, 0.03


def sentinel(dtype, rng):
    """One absurd value must not flush the others to zero."""
    Y = rng.standard_normal((100, 5)).astype(dtype)
    Y[0] = 1e20
    return Y[1:10] + dtype(0.125), Y, 0.5


CASES = [
    close_pairs,
    equal_features,
    sentinel,
    shifted,
    clusters,
    duplicates,
    one_dimension,
    ten_thousand_dimensions,
    images,
    outlier,
    heavy_tails,
    fewer_points_than_features,
    one_point,
    small_units,
    large_units,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_gaussian(make_kde, case, dtype):
    assert_precise(make_kde, *case(dtype, np.random.default_rng(0)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES[1:])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_other_kernels(make_kde, case, kernel, dtype):
    X, Y, h = case(dtype, np.random.default_rng(1))
    d = Y.shape[1]
    # bandwidths that smooth alike, so that there are points in reach
    h *= 1 / np.sqrt(d + 1) if kernel == "exponential" else 1.5 * np.sqrt(d + 4)
    assert_precise(make_kde, X, Y, h, kernel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
@pytest.mark.parametrize("h", [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e6])
def test_bandwidths(make_kde, h, kernel, dtype):
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((400, 30)).astype(dtype)
    assert_precise(make_kde, np.vstack([Y[:20], -Y[:20]]), Y, h, kernel)


@pytest.mark.parametrize("case", [shifted, clusters, images, heavy_tails, close_pairs])
def test_the_cases_are_hard(case):
    """Of products in float32 the log densities are wrong: the tests above can fail."""
    X, Y, h = case(np.float32, np.random.default_rng(0))
    sq = np.square(X).sum(axis=1)[:, None] + np.square(Y).sum(axis=1) - 2 * X @ Y.T
    sq = np.maximum(sq, 0).astype(np.float64)
    log_norm = oracles.log_normalizer("gaussian", Y.shape[1]) + Y.shape[1] * np.log(h)
    found = logsumexp(-sq / (2 * h**2), axis=1) - np.log(len(Y)) - log_norm
    expected = oracles.log_density(X, Y, h)
    assert not np.allclose(found, expected, atol=ATOL[np.float32], rtol=RTOL[np.float32])


@pytest.mark.parametrize("dtype", DTYPES)
def test_leave_one_out_of_tight_clusters(make_kde, dtype):
    _, Y, h = clusters(dtype, np.random.default_rng(0))
    kde = make_kde(bandwidth=h).fit(Y)
    expected = oracles.log_density(Y, Y, h, leave_out=np.arange(len(Y)))
    assert_allclose(kde.score_samples(None), expected, atol=ATOL[dtype], rtol=RTOL[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
def test_leave_one_out_of_close_pairs(make_kde, kernel, ratio, dtype):
    """The nearest distance that the product gives is off by more than the distance."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((25, 20))
    Y = np.vstack([A, A + 1e-6 * rng.standard_normal((25, 20))]).astype(dtype)
    h = ratio * 1e-6 / (5 if kernel == "exponential" else 1)
    kde = make_kde(bandwidth=h, kernel=kernel).fit(Y)
    expected = oracles.log_density(Y, Y, h, kernel, leave_out=np.arange(50))
    assert_allclose(kde.score_samples(None), expected, atol=ATOL[dtype], rtol=RTOL[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_alone_scores_as_in_company(make_kde, dtype):
    X, Y, h = close_pairs(dtype, np.random.default_rng(0))
    kde = make_kde(bandwidth=h).fit(Y)
    alone = np.concatenate([kde.score_samples(x[None]) for x in X])
    assert_allclose(kde.score_samples(X), alone, atol=ATOL[dtype], rtol=RTOL[dtype])


@pytest.mark.parametrize("kernel, h", [("gaussian", 5e-4), ("exponential", 1e-4)])
@pytest.mark.parametrize("weight", [1e-10, 1e-20])
def test_a_light_nearest_point_does_not_hide_heavier_ones(make_kde, weight, kernel, h):
    rng = np.random.default_rng(1)
    c = 1e4 * rng.standard_normal((2, 20))
    Y = np.repeat(c, 200, axis=0) + 1e-3 * rng.standard_normal((400, 20))
    X = c[:1] + 1e-3 * rng.standard_normal((1, 20))
    Y[0] = X[0] + 2e-5
    weights = np.r_[weight, np.ones(399)]
    kde = make_kde(bandwidth=h, kernel=kernel).fit(Y, sample_weight=weights)
    expected = oracles.log_density(X, Y, h, kernel, weights)
    assert_allclose(kde.score_samples(X), expected, atol=1e-8)


@pytest.mark.parametrize("kernel", ["exponential", "linear"])
@pytest.mark.parametrize("dtype, step", [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_gradient_beside_a_cusp(make_kde, kernel, dtype, step):
    Y = np.random.default_rng(0).standard_normal((500, 2)).astype(dtype)
    X = Y[:50] + dtype(step)
    kde = make_kde(bandwidth=0.1, kernel=kernel).fit(Y)
    expected = oracles.gradient(X, Y, 0.1, kernel)
    atol = ATOL[dtype] * np.sqrt(2) / 0.1
    assert_allclose(kde.log_density_gradient(X), expected, atol=2 * atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "tophat"])
def test_far_queries(make_kde, kernel, dtype):
    """-inf where the result is out of range, without warnings, and never NaN."""
    Y = np.random.default_rng(0).standard_normal((100, 5)).astype(dtype)
    kde = make_kde(bandwidth=0.5, kernel=kernel).fit(Y)
    X = np.full((2, 5), 1e25, dtype=dtype)
    expected = oracles.log_density(X, Y, 0.5, kernel)
    if dtype == np.float32 and kernel == "gaussian":
        expected[:] = -np.inf  # -5e50
    assert_allclose(kde.score_samples(X), expected, rtol=RTOL[dtype])
    tiny = make_kde(bandwidth=1e-20, kernel=kernel).fit(Y * dtype(1e-20))
    assert not np.isnan(tiny.score_samples(np.full((2, 5), 1e19, dtype=dtype))).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case", [shifted, clusters, images, outlier, heavy_tails, close_pairs, sentinel]
)
def test_gradients(make_kde, case, dtype):
    X, Y, h = case(dtype, np.random.default_rng(0))
    kde = make_kde(bandwidth=h).fit(Y)
    expected = oracles.gradient(X, Y, h)
    # units of the gradient: displacement / h^2
    atol = ATOL[dtype] * np.sqrt(Y.shape[1]) / h
    assert_allclose(kde.log_density_gradient(X), expected, atol=2 * atol, rtol=1e-6)


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 80), st.integers(1, 40)),
    log_spread=st.floats(-6, 6),
    log_shift=st.floats(-6, 6),
    log_h=st.floats(-3, 3),
    kernel=st.sampled_from(oracles.KERNEL_NAMES),
    dtype=st.sampled_from(DTYPES),
)
def test_any_scale(make_kde, seed, shape, log_spread, log_shift, log_h, kernel, dtype):
    rng = np.random.default_rng(seed)
    spread = 10.0**log_spread
    Y = (spread * rng.standard_normal(shape) + 10.0**log_shift).astype(dtype)
    X = np.vstack([Y[:3], (Y[:3] + spread * rng.standard_normal(shape[1])).astype(dtype)])
    assert_precise(make_kde, X, Y, spread * 10.0**log_h * np.sqrt(shape[1]), kernel)
