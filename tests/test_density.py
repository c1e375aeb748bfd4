"""Log densities, leave-one-out and gradients against direct sums."""

import functools

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose

# Errors promised, in nats, and relative rounding of a result too large for that.
ATOL = {np.float64: 1e-8, np.float32: 1e-3}
RTOL = {np.float64: 4e-16, np.float32: 2e-7}

# A bandwidth in the middle of where each kernel is of use on N(0, I).
SCALES = {
    "gaussian": lambda d: 1.0,
    "exponential": lambda d: 1.0 / np.sqrt(d),
    "compact": lambda d: 1.3 * np.sqrt(d),
}


def typical_bandwidth(kernel, d):
    return SCALES.get(kernel, SCALES["compact"])(d)


def make_data(d, dtype, seed=0, n=300, m=40):
    rng = np.random.default_rng(seed)
    Y = rng.standard_normal((n, d)).astype(dtype)
    X = rng.standard_normal((m, d)).astype(dtype)
    return X, Y, rng.uniform(0.1, 3.0, size=n)


@functools.cache
def data_and_squared_distances(d, dtype):
    """Return queries, some of them on a point, points, weights and squared distances."""
    X, Y, weights = make_data(d, dtype)
    X = np.vstack([X, Y[:5]])
    return X, Y, weights, [oracles.squared_distances(x, Y) for x in X]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [1, 3, 50, 99, 100, 146, 147, 200, 1000])
@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_log_density(make_kde, kernel, d, dtype):
    X, Y, weights, sqs = data_and_squared_distances(d, dtype)
    h = typical_bandwidth(kernel, d)
    kde = make_kde(kernel=kernel, bandwidth=h)
    result = kde.fit(Y, sample_weight=weights).score_samples(X)
    expected = oracles.log_density(X, Y, h, kernel, weights, sqs=sqs)
    assert result.dtype == dtype
    assert np.isfinite(expected).any()
    assert_allclose(result, expected, atol=ATOL[dtype], rtol=RTOL[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_leave_one_out(make_kde, kernel, weighted, dtype):
    _, Y, weights = make_data(6, dtype)
    Y[7] = Y[3]  # a duplicate stays: only the point itself is left out
    weights = weights if weighted else None
    h = typical_bandwidth(kernel, 6)
    kde = make_kde(kernel=kernel, bandwidth=h).fit(Y, sample_weight=weights)
    expected = oracles.log_density(Y, Y, h, kernel, weights, np.arange(len(Y)))
    result = kde.score_samples(None)
    assert result.dtype == dtype
    assert_allclose(result, expected, atol=ATOL[dtype], rtol=RTOL[dtype])


def test_leave_one_out_where_one_weight_is_nearly_all(make_kde):
    _, Y, _ = make_data(3, np.float64, n=30)
    weights = np.full(30, 1e-14)
    weights[4] = 1e14
    kde = make_kde(bandwidth=0.5).fit(Y, sample_weight=weights)
    expected = oracles.log_density(Y, Y, 0.5, "gaussian", weights, np.arange(30))
    assert_allclose(kde.score_samples(None), expected, atol=1e-8)


def test_leave_one_out_of_points_without_weight(make_kde):
    """They weigh nothing, so that leaving them out changes nothing."""
    X, Y, weights = make_data(4, np.float64)
    weights[[0, 5, 299]] = 0.0
    kde = make_kde(bandwidth=0.7).fit(Y, sample_weight=weights)
    expected = oracles.log_density(Y, Y, 0.7, "gaussian", weights, np.arange(len(Y)))
    assert_allclose(kde.score_samples(None), expected, atol=1e-8)
    kept = make_kde(bandwidth=0.7)
    kept.fit(Y[weights > 0], sample_weight=weights[weights > 0])
    assert_allclose(kde.score_samples(X), kept.score_samples(X), rtol=1e-14)


def test_leave_one_out_of_a_single_point(make_kde):
    kde = make_kde(bandwidth=1.0).fit(np.zeros((1, 3)))
    assert kde.score_samples(None).tolist() == [-np.inf]
    assert kde.score_samples(np.zeros((1, 3)))[0] == pytest.approx(
        -1.5 * np.log(2 * np.pi)
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [1, 3, 100, 147])
@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_gradient(make_kde, kernel, d, dtype):
    X, Y, weights = make_data(d, dtype)
    X = np.vstack([X, Y[:3]])
    h = typical_bandwidth(kernel, d)
    kde = make_kde(kernel=kernel, bandwidth=h).fit(Y, sample_weight=weights)
    result = kde.log_density_gradient(X)
    expected = oracles.gradient(X, Y, h, kernel, weights)
    assert result.dtype == dtype
    assert_allclose(result, expected, atol=ATOL[dtype] * np.sqrt(d) / h, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov", "exponential", "cosine"])
def test_gradient_is_the_derivative_of_the_log_density(make_kde, kernel):
    X, Y, _ = make_data(3, np.float64)
    X = 0.5 * X
    kde = make_kde(kernel=kernel, bandwidth=2 * typical_bandwidth(kernel, 3))
    kde.fit(Y)
    step = 1e-6
    for k in range(3):
        shift = np.zeros(3)
        shift[k] = step
        numeric = (kde.score_samples(X + shift) - kde.score_samples(X - shift)) / (
            2 * step
        )
        assert_allclose(kde.log_density_gradient(X)[:, k], numeric, atol=2e-4)


def test_out_of_reach_of_a_compact_kernel(make_kde):
    kde = make_kde(kernel="epanechnikov", bandwidth=1.0).fit(np.zeros((5, 2)))
    far = np.array([[3.0, 0.0], [0.5, 0.0]])
    log_density = kde.score_samples(far)
    assert log_density[0] == -np.inf
    assert np.isfinite(log_density[1])
    assert np.isnan(kde.log_density_gradient(far)[0]).all()
    assert kde.score(far) == -np.inf


def test_tophat_excludes_points_at_exactly_the_bandwidth(make_kde):
    """Whole-number data lie on the rim, where the profile is zero, as for all r >= h."""
    rng = np.random.default_rng(0)
    Y = rng.integers(0, 17, size=(400, 64)).astype(np.float32)
    h = float(np.sqrt(np.sort(((Y[0] - Y) ** 2).sum(axis=1))[200]))
    for kernel in ("tophat", "linear"):
        kde = make_kde(kernel=kernel, bandwidth=h).fit(Y)
        expected = oracles.log_density(Y[:50], Y, h, kernel)
        assert_allclose(kde.score_samples(Y[:50]), expected, atol=1e-3)


@pytest.mark.parametrize(
    "train, query, result",
    [
        (np.float32, np.float32, np.float32),
        (np.float32, np.float64, np.float64),
        (np.float64, np.float32, np.float64),
        (np.int64, np.int32, np.float64),
        (np.float16, np.float16, np.float32),
    ],
)
def test_dtypes(make_kde, train, query, result):
    rng = np.random.default_rng(0)
    Y = (10 * rng.standard_normal((50, 4))).astype(train)
    X = (10 * rng.standard_normal((20, 4))).astype(query)
    kde = make_kde(bandwidth=5.0).fit(Y)
    log_density = kde.score_samples(X)
    assert log_density.dtype == result
    assert kde.log_density_gradient(X).dtype == result
    assert kde.sample(2, random_state=0).dtype == np.result_type(kde.score_samples(None))
    expected = oracles.log_density(X.astype(float), Y.astype(float), 5.0)
    assert_allclose(log_density, expected, atol=ATOL[result])


def test_weights_are_repetitions(make_kde):
    X, Y, _ = make_data(5, np.float64)
    counts = np.random.default_rng(1).integers(1, 5, size=len(Y))
    weighted = make_kde(bandwidth=0.8).fit(Y, sample_weight=counts)
    repeated = make_kde(bandwidth=0.8).fit(np.repeat(Y, counts, axis=0))
    scaled = make_kde(bandwidth=0.8).fit(Y, sample_weight=1e-3 * counts)
    expected = repeated.score_samples(X)
    assert_allclose(weighted.score_samples(X), expected, rtol=1e-12)
    assert_allclose(scaled.score_samples(X), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("smallest", [1e-30, 1e-60, 1e-200])
def test_weights_of_very_different_size(make_kde, smallest, dtype):
    """A point of tiny weight still decides where it is alone."""
    Y = np.array([[0.0], [100.0]], dtype=dtype)
    weights = [1.0, smallest]
    kde = make_kde(bandwidth=1.0).fit(Y, sample_weight=weights)
    X = np.array([[99.0], [60.0], [50.0], [30.0]], dtype=dtype)
    expected = oracles.log_density(X, Y, 1.0, "gaussian", weights)
    assert_allclose(kde.score_samples(X), expected, atol=ATOL[dtype], rtol=RTOL[dtype])
