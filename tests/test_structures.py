"""Densities with bandwidth matrices, shrunken means, heavy tails and local scales."""

import dask.array as da
import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.covariance import EmpiricalCovariance, LedoitWolf, MinCovDet
from sklearn.mixture import GaussianMixture
from structured_oracle import make_oracle, moments, variance, weighted_ledoit_wolf
from threadpoolctl import threadpool_info, threadpool_limits

from skhdkde import HighDimKernelDensity
from skhdkde._density import covariance
from skhdkde.dask import DaskHighDimKernelDensity

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
TYPES = ("spherical", "diag", "full", "local")


def clusters(n, d, seed=0, dtype=np.float64):
    """Two Gaussians of different shape; units differ by feature, and zero is far."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(size=n) < 0.4
    X = rng.standard_normal((n, d)) @ np.linalg.cholesky(
        np.eye(d) + 0.6 * np.ones((d, d))
    )
    X[labels] = 2.0 + 0.5 * rng.standard_normal((labels.sum(), d))
    return (X * np.geomspace(0.2, 5.0, d) + 10.0).astype(dtype)


def fit_mixture(Y):
    return GaussianMixture(2, random_state=0).fit(Y.astype(float))


OPTIONS = [
    {},
    {"preserve_variance": True},
    {"kernel": "student", "degrees_of_freedom": 4.0},
    {"kernel": "student", "degrees_of_freedom": 7.0, "preserve_variance": True},
    {"adaptive": True},
    {"adaptive": 3, "preserve_variance": True},
    {"adaptive": 4, "kernel": "student", "degrees_of_freedom": 3.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_against_direct_sums(make_kde, covariance_type, options, dtype):
    Y, X = clusters(60, 6, dtype=dtype), clusters(7, 6, seed=1, dtype=dtype)
    weights = np.random.default_rng(2).uniform(0.2, 3.0, size=len(Y))
    h = 0.35 * (Y.std() if covariance_type == "spherical" else 1.0)
    mixture = fit_mixture(Y) if covariance_type == "local" else None
    kde = make_kde(
        bandwidth=h, covariance_type=covariance_type, mixture=mixture, **options
    ).fit(Y, sample_weight=weights)
    oracle = make_oracle(Y, covariance_type, mixture, h, options, weights)
    atol = ATOL[dtype]
    result = kde.score_samples(X)
    assert result.dtype == dtype
    assert_allclose(result, oracle.log_density(X.astype(float)), atol=atol, rtol=1e-7)
    expected = oracle.log_density(Y.astype(float), leave_out=True)
    assert_allclose(kde.score_samples(None), expected, atol=atol, rtol=1e-7)
    gradient = oracle.gradient(X.astype(float))
    rtol = 1e-7 if dtype == np.float64 else 3e-3
    assert_allclose(kde.log_density_gradient(X), gradient, rtol=rtol, atol=10 * atol)
    diagnosis = kde.diagnose(X)
    assert_allclose(diagnosis.log_density, result, atol=2.0 * atol)
    shares = np.array([oracle.shares(x) for x in X.astype(float)])
    size = 1.0 / np.sum(shares**2, axis=1)
    rtol = 1e-6 if dtype == np.float64 else 3e-3
    assert_allclose(diagnosis.effective_sample_size, size, rtol=rtol)
    assert_allclose(diagnosis.max_weight, shares.max(axis=1), rtol=rtol)
    assert (diagnosis.standard_error > 0.0).all()
    left_out = kde.diagnose(None)
    assert_allclose(left_out.log_density, expected, atol=2.0 * atol, rtol=1e-7)


@pytest.mark.parametrize("kernel", ["exponential", "tophat", "cosine"])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_other_kernels_with_a_whitening(kernel, covariance_type):
    """The density is that of whitened points, times the determinant."""
    Y, X = clusters(80, 4), clusters(9, 4, seed=1)
    mean, covariance = moments(Y, covariance_type)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
    plain = HighDimKernelDensity(kernel=kernel, bandwidth=1.3).fit((Y - mean) @ whiten)
    kde = HighDimKernelDensity(
        kernel=kernel, bandwidth=1.3, covariance_type=covariance_type
    ).fit(Y)
    expected = plain.score_samples((X - mean) @ whiten)
    expected += np.linalg.slogdet(whiten)[1]
    assert_allclose(kde.score_samples(X), expected, rtol=1e-9)
    rule = HighDimKernelDensity(kernel=kernel, covariance_type=covariance_type)
    if kernel == "tophat":  # left out one by one in whitened units
        searched = HighDimKernelDensity(kernel=kernel).fit((Y - mean) @ whiten)
        assert rule.fit(Y).bandwidth_ == pytest.approx(searched.bandwidth_, rel=1e-3)
    for name in ("nearest", "silverman", "gaussian"):
        found = clone_with(rule, bandwidth=name).fit(Y).bandwidth_
        plain = HighDimKernelDensity(kernel=kernel, bandwidth=name)
        expected = plain.fit((Y - mean) @ whiten).bandwidth_
        assert found == pytest.approx(expected, rel=1e-6)


def clone_with(estimator, **parameters):
    return type(estimator)(**{**estimator.get_params(deep=False), **parameters})


def test_exponential_with_preserved_variance():
    Y, X = clusters(60, 3), clusters(5, 3, seed=1)
    options = {"kernel": "exponential", "preserve_variance": True}
    kde = HighDimKernelDensity(bandwidth=0.3, covariance_type="full", **options).fit(Y)
    oracle = make_oracle(Y, "full", None, 0.3, options)
    assert_allclose(kde.score_samples(X), oracle.log_density(X), atol=1e-8)


@pytest.mark.parametrize("n, d", [(500, 4), (40, 60), (30, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_covariance_is_that_of_ledoit_and_wolf(n, d, weighted):
    """At the largest bandwidth the density is the normal law of that covariance."""
    if weighted and n * d**2 > 1e5:
        pytest.skip("the definition is slow")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) * np.geomspace(1.0, 3.0, d)
    weights = rng.uniform(size=n) if weighted else None
    mean = np.average(X, axis=0, weights=weights)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    Z = (X - mean) / scale
    if weighted:
        correlation = weighted_ledoit_wolf(Z, weights / weights.sum())
    else:
        correlation = LedoitWolf(assume_centered=True).fit(Z).covariance_
    normal = multivariate_normal(mean, correlation * np.outer(scale, scale))
    kde = HighDimKernelDensity(
        bandwidth=1.0, covariance_type="full", preserve_variance=True
    ).fit(X, sample_weight=weights)
    # far queries, at which the matrix decides
    queries = mean + 10.0 * scale * rng.standard_normal((30, d))
    assert_allclose(kde.score_samples(queries), normal.logpdf(queries), rtol=1e-9)


def test_largest_bandwidth_is_the_gaussian():
    Y, X = clusters(300, 5), clusters(20, 5, seed=1)
    parameters = {
        "bandwidth": 1.0,
        "covariance_type": "full",
        "preserve_variance": True,
        "covariance_estimator": EmpiricalCovariance(),
    }
    kde = HighDimKernelDensity(**parameters).fit(Y)
    normal = multivariate_normal(Y.mean(axis=0), np.cov(Y.T, bias=True))
    assert_allclose(kde.score_samples(X), normal.logpdf(X), rtol=1e-9)
    assert_allclose(kde.score_samples(None), normal.logpdf(Y), rtol=1e-9)
    sphere = HighDimKernelDensity(bandwidth=Y.std(), preserve_variance=True)
    total = np.mean(np.var(Y, axis=0))
    sphere.set_params(bandwidth=np.sqrt(total)).fit(Y)
    normal = multivariate_normal(Y.mean(axis=0), total * np.eye(5))
    assert_allclose(sphere.score_samples(X), normal.logpdf(X), rtol=1e-9)


def test_largest_bandwidth_of_student_is_a_student():
    Y, X = clusters(300, 5), clusters(20, 5, seed=1)
    h = np.sqrt(3.0 / 5.0)
    kde = HighDimKernelDensity(
        bandwidth=h,
        kernel="student",
        degrees_of_freedom=5.0,
        covariance_type="full",
        preserve_variance=True,
        covariance_estimator=EmpiricalCovariance(),
    ).fit(Y)
    law = multivariate_t(Y.mean(axis=0), h**2 * np.cov(Y.T, bias=True), df=5.0)
    assert_allclose(kde.score_samples(X), law.logpdf(X), rtol=1e-9)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("fitted", [False, True])
def test_largest_bandwidth_is_the_mixture(kind, fitted):
    Y, X = clusters(300, 4), clusters(20, 4, seed=1)
    mixture = GaussianMixture(3, covariance_type=kind, random_state=0)
    reference = GaussianMixture(3, covariance_type=kind, random_state=0).fit(Y)
    if fitted:
        mixture.fit(Y)
    kde = HighDimKernelDensity(
        bandwidth=1.0, covariance_type="local", preserve_variance=True, mixture=mixture
    ).fit(Y)
    shares = np.bincount(reference.predict(Y), minlength=3) / len(Y)
    covariances = reference.covariances_
    if kind == "tied":
        covariances = [covariances] * 3
    logs = [
        np.log(share) + multivariate_normal(mean, covariance).logpdf(X)
        for share, mean, covariance in zip(
            shares, reference.means_, covariances, strict=True
        )
    ]
    assert_allclose(kde.score_samples(X), logsumexp(logs, axis=0), rtol=1e-8)
    assert hasattr(mixture, "means_") == fitted  # the parameter is not touched


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_integrates_to_one_in_the_plane(covariance_type, options):
    Y = clusters(50, 2)
    h = 0.4 if covariance_type != "spherical" else 0.4 * Y.std()
    mixture = fit_mixture(Y) if covariance_type == "local" else None
    kde = HighDimKernelDensity(
        bandwidth=h, covariance_type=covariance_type, mixture=mixture, **options
    ).fit(Y)
    # x = center + scale sinh(u): the tail of a Student kernel is far
    u = np.linspace(-9.0, 9.0, 241)
    center, scale = Y.mean(axis=0), 0.2 * Y.std(axis=0)
    grid = np.sinh(u)[:, None] * scale + center
    step = np.cosh(u)[:, None] * scale
    a, b = np.meshgrid(np.arange(len(u)), np.arange(len(u)), indexing="ij")
    X = np.column_stack([grid[a.ravel(), 0], grid[b.ravel(), 1]])
    area = step[a.ravel(), 0] * step[b.ravel(), 1] * (u[1] - u[0]) ** 2
    assert np.exp(kde.score_samples(X)) @ area == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("options", [OPTIONS[3], OPTIONS[5]], ids=str)
@pytest.mark.parametrize("covariance_type", ["full", "local"])
def test_integrates_to_one_in_eight_dimensions(covariance_type, options):
    """By importance sampling from a wider Student mixture around the points."""
    Y = clusters(200, 8)
    mixture = fit_mixture(Y) if covariance_type == "local" else None
    kde = HighDimKernelDensity(
        bandwidth=0.6, covariance_type=covariance_type, mixture=mixture, **options
    ).fit(Y)
    wide = HighDimKernelDensity(
        bandwidth=0.9,
        covariance_type=covariance_type,
        mixture=mixture,
        kernel="student",
        degrees_of_freedom=3.0,
        adaptive=options.get("adaptive", False),
    ).fit(Y)
    X = wide.sample(40_000, random_state=0)
    ratios = np.exp(kde.score_samples(X) - wide.score_samples(X))
    error = ratios.std() / np.sqrt(len(X))
    assert error < 0.02
    assert ratios.mean() == pytest.approx(1.0, abs=4.0 * error)


@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[3], OPTIONS[5]], ids=str)
def test_samples_have_the_covariance_of_the_data(options):
    Y = clusters(400, 4)
    kde = HighDimKernelDensity(
        bandwidth=0.5,
        covariance_type="full",
        covariance_estimator=EmpiricalCovariance(),
        **options,
    ).fit(Y)
    X = kde.sample(200_000, random_state=0)
    scale = Y.std(axis=0)
    assert_allclose(X.mean(axis=0) / scale, Y.mean(axis=0) / scale, atol=0.02)
    found, expected = np.cov((X / scale).T), np.cov((Y / scale).T, bias=True)
    if options.get("adaptive"):  # centres and scales are not independent
        expected = np.diag(expected)
        assert_allclose(np.diag(found), expected, rtol=0.15)
    else:
        assert_allclose(found, expected, atol=0.04)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"bandwidth": 0.7},
        {"bandwidth": 0.5, "kernel": "student", "degrees_of_freedom": 7.0},
        {"bandwidth": 0.3, "kernel": "exponential"},
    ],
    ids=str,
)
@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
def test_what_preserved_variance_preserves(covariance_type, options, weighted):
    """The kernels' part of the covariance is that of a kernel, which may be shrunken."""
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((25, 4)) @ rng.standard_normal((4, 4))
    Y /= Y.std()
    weights = rng.exponential(size=25) if weighted else None
    kde = HighDimKernelDensity(
        covariance_type=covariance_type, preserve_variance=True, **options
    ).fit(Y, sample_weight=weights)
    found = np.cov(kde.sample(400_000, random_state=0).T)
    expected = np.cov(Y.T, aweights=weights, bias=True)
    spread = np.trace(expected)
    assert np.trace(found) == pytest.approx(spread, rel=0.02)
    if covariance_type != "spherical":
        assert_allclose(np.diag(found), np.diag(expected), rtol=0.05)
    _, of_kernel = moments(Y, covariance_type, weights)
    size = 1.0 if covariance_type != "spherical" else spread / 4
    kernel, nu = options.get("kernel", "gaussian"), options.get("degrees_of_freedom")
    share = kde.bandwidth_**2 * variance(kernel, nu, 4) / size
    mixed = (1.0 - share) * expected + share * size * of_kernel
    assert_allclose(found, mixed, atol=0.02 * spread)


@st.composite
def random_settings(draw):
    """Points, weights and the parameters of a structure."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    covariance_type = draw(st.sampled_from(TYPES))
    n, d = draw(st.integers(20, 80)), draw(st.integers(2, 8))
    Y = clusters(n, d, seed=draw(st.integers(0, 10**6)), dtype=dtype)
    weights = draw(st.sampled_from([None, 1.0, 5.0]))
    if weights is not None:
        weights = np.exp(weights * rng.standard_normal(n))
        weights /= weights.max()
    options = dict(draw(st.sampled_from(OPTIONS)))
    if covariance_type != "local" and not options.get("adaptive"):
        options["kernel"] = draw(st.sampled_from([options.get("kernel"), "exponential"]))
        options["kernel"] = options["kernel"] or "gaussian"
    size = np.sqrt(variance(options.get("kernel", "gaussian"), 3.0, d))
    h = draw(st.sampled_from([0.03, 0.2, 0.7])) / size
    if covariance_type == "spherical":
        mean = np.average(Y.astype(float), axis=0, weights=weights)
        h *= np.sqrt(np.average(np.mean((Y - mean) ** 2, axis=1), weights=weights))
    backend = draw(st.sampled_from(["numpy", "torch", "dask"]))
    if covariance_type == "local" or options.get("adaptive"):
        backend = draw(st.sampled_from(["numpy", "torch"]))
    return Y, weights, covariance_type, options, float(h), backend


@pytest.mark.usefixtures("in_this_thread")
@examples(12)
@given(setting=random_settings())
def test_random_settings_against_direct_sums(setting):
    """Whitened coordinates are rounded: what that may change depends on the bandwidth."""
    Y, weights, covariance_type, options, h, backend = setting
    X = clusters(5, Y.shape[1], seed=1, dtype=Y.dtype)
    mixture = fit_mixture(Y) if covariance_type == "local" else None
    parameters = {"bandwidth": h, "covariance_type": covariance_type, **options}
    if backend == "dask":
        points = da.from_array(Y, chunks=(17, -1))
        kde = DaskHighDimKernelDensity(**parameters).fit(points, sample_weight=weights)
    else:
        kde = HighDimKernelDensity(mixture=mixture, backend=backend, **parameters)
        kde.fit(Y, sample_weight=weights)
    oracle = make_oracle(Y, covariance_type, mixture, h, options, weights)
    atol = ATOL[Y.dtype.type]
    expected = oracle.log_density(X.astype(float))
    if covariance_type == "spherical" and not options.get("preserve_variance"):
        rtol = 2e-15 if Y.dtype == np.float64 else 5e-7
    else:  # squared distances in units of the bandwidth, to a few roundings
        rtol = 1e-11 if Y.dtype == np.float64 else 2e-5
    assert_allclose(kde.score_samples(X), expected, atol=atol, rtol=rtol)
    left_out = oracle.log_density(Y.astype(float), leave_out=True)
    assert_allclose(kde.score_samples(None), left_out, atol=atol, rtol=rtol)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("covariance_type", ["full", "local"])
def test_samples_follow_the_density(covariance_type, options):
    """Masses of four quadrants, by quadrature and by counting."""
    Y = clusters(40, 1)
    mixture = fit_mixture(Y) if covariance_type == "local" else None
    kde = HighDimKernelDensity(
        bandwidth=0.4, covariance_type=covariance_type, mixture=mixture, **options
    ).fit(Y)
    u = np.linspace(-9.0, 9.0, 4001)
    x = Y.mean() + 0.2 * Y.std() * np.sinh(u)
    density = np.exp(kde.score_samples(x[:, None])) * 0.2 * Y.std() * np.cosh(u)
    cumulative = np.cumsum(density) * (u[1] - u[0])
    draws = np.sort(kde.sample(20_000, random_state=0)[:, 0])
    empirical = np.searchsorted(draws, x) / len(draws)
    assert np.abs(empirical - cumulative).max() < 0.015


@pytest.mark.parametrize(
    "covariance_type",
    [
        "diag",
        "full",
        pytest.param("local", marks=pytest.mark.slow),
        pytest.param("auto", marks=pytest.mark.slow),
    ],
)
def test_units_do_not_matter(covariance_type):
    Y, X = clusters(150, 5), clusters(10, 5, seed=1)
    units = np.geomspace(1e-3, 1e4, 5)
    kde = HighDimKernelDensity(covariance_type=covariance_type, random_state=0)
    log_density = kde.fit(Y).score_samples(X)
    other = clone_with(kde).fit(Y * units)
    if covariance_type != "auto":
        assert other.bandwidth_ == pytest.approx(kde.bandwidth_, rel=1e-3)
    shifted = other.score_samples(X * units) + np.log(units).sum()
    assert_allclose(shifted, log_density, atol=1e-3)


def test_rank_deficient_data():
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((60, 90))
    Y /= np.linalg.norm(Y, axis=1, keepdims=True)
    kde = HighDimKernelDensity(covariance_type="full", preserve_variance=True).fit(Y)
    assert np.isfinite(kde.score_samples(Y)).all()
    assert 0.0 < kde.bandwidth_ <= 1.0


def test_covariance_estimator_is_used():
    Y = clusters(200, 3)
    robust = MinCovDet(random_state=0)
    kde = HighDimKernelDensity(
        bandwidth=1.0,
        covariance_type="full",
        preserve_variance=True,
        covariance_estimator=robust,
    ).fit(Y)
    scale = Y.std(axis=0)
    reference = MinCovDet(random_state=0).fit((Y - Y.mean(axis=0)) / scale)
    normal = multivariate_normal(
        Y.mean(axis=0) + scale * reference.location_,
        reference.covariance_ * np.outer(scale, scale),
    )
    assert_allclose(kde.score_samples(Y[:9]), normal.logpdf(Y[:9]), rtol=1e-8)
    assert not hasattr(robust, "covariance_")


@pytest.mark.parametrize("covariance_type", TYPES)
def test_weights_count_points(covariance_type):
    """Zero weights are as absent, and a common factor has no effect."""
    Y, X = clusters(120, 4), clusters(8, 4, seed=1)
    weights = np.random.default_rng(0).integers(0, 3, size=len(Y)).astype(float)
    mixture = fit_mixture(Y) if covariance_type == "local" else None
    kde = HighDimKernelDensity(
        bandwidth=0.4, covariance_type=covariance_type, mixture=mixture, adaptive=2
    )
    expected = kde.fit(Y[weights > 0], sample_weight=weights[weights > 0])
    expected = expected.score_samples(X)
    found = clone_with(kde).fit(Y, sample_weight=7.0 * weights)
    assert_allclose(found.score_samples(X), expected, rtol=1e-9)
    left_out = found.score_samples(None)
    assert left_out.shape == (len(Y),)
    outside = found.score_samples(Y[weights == 0])
    assert_allclose(left_out[weights == 0], outside, rtol=1e-12)


def test_duplicates_share_the_smallest_scale():
    Y = np.repeat(clusters(20, 3), 3, axis=0)
    kde = HighDimKernelDensity(bandwidth=0.5, adaptive=2).fit(Y)
    assert np.isfinite(kde.score_samples(Y)).all()
    same = HighDimKernelDensity(bandwidth=0.5, adaptive=2).fit(np.ones((5, 3)))
    assert np.isfinite(same.score_samples(np.ones((1, 3)))).all()


@pytest.mark.parametrize("dtype, width", [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_student_on_tight_clusters_is_not_nan(dtype, width):
    rng = np.random.default_rng(0)
    Y = np.where(np.arange(60) % 2, 1, -1)[:, None] * np.linspace(1, 2, 5)
    Y = (Y + width * rng.standard_normal((60, 5))).astype(dtype)
    kde = HighDimKernelDensity(kernel="student", degrees_of_freedom=4.0, bandwidth=width)
    exact = Y.astype(np.longdouble)
    sq = ((exact[:8, None] - exact) ** 2).sum(axis=2) / np.longdouble(width) ** 2
    log_sums = np.log(np.sum((1 + sq / 4) ** -4.5, axis=1))
    spread = kde.fit(Y).score_samples(Y[:8]) - log_sums
    assert np.ptp(spread) < (1e-2 if dtype == np.float32 else 1e-6)


@pytest.mark.parametrize("degrees", [1e5, 1e8, 1e17])
@pytest.mark.parametrize("dtype, tol", [(np.float64, 1e-4), (np.float32, 2e-3)])
def test_student_with_many_degrees_of_freedom_is_gaussian(degrees, dtype, tol):
    X = np.random.default_rng(0).standard_normal((300, 10)).astype(dtype)
    both = [
        HighDimKernelDensity(bandwidth=1.0, **parameters).fit(X).score_samples(X)
        for parameters in ({}, {"kernel": "student", "degrees_of_freedom": degrees})
    ]
    np.testing.assert_allclose(*both, atol=max(tol, 500.0 / degrees), rtol=1e-6)


def test_duplicates_have_no_local_scale_of_rounding():
    """No density is above that of one kernel whose local scale is 0.1."""
    X = np.random.default_rng(0).standard_normal((101, 13))
    X[1:8] = X[0]
    kde = HighDimKernelDensity(covariance_type="full", adaptive=True, bandwidth=0.5)
    _, covariance = moments(X, "full")
    peak = -0.5 * np.linalg.slogdet(2.0 * np.pi * (0.1 * 0.5) ** 2 * covariance)[1]
    assert kde.fit(X).score_samples(X).max() < peak + np.log(7.0 / 101.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_gradient_at_a_cusp_is_not_of_rounding(covariance_type, dtype):
    X = 3.0 * np.random.default_rng(0).standard_normal((61, 7)) + 1.0
    X = X.astype(dtype)
    kde = HighDimKernelDensity(
        kernel="exponential", bandwidth=0.3, covariance_type=covariance_type
    ).fit(X)
    at, beside = kde.log_density_gradient(X[:3]), np.empty((2, 3, 7))
    for step, side in zip((1e-3, -1e-3), beside, strict=True):
        side[:] = kde.log_density_gradient(X[:3] + step)
    # the own term changes sign across the point and the others hardly change
    np.testing.assert_allclose(at, beside.mean(axis=0), atol=2e-2)


def test_training_points_are_kept_as_they_were():
    X = np.random.default_rng(0).standard_normal((50, 3))
    kde = HighDimKernelDensity(covariance_type="full", bandwidth=0.5).fit(X)
    before = kde.score_samples(None)
    X *= 2.0
    np.testing.assert_array_equal(kde.score_samples(None), before)


@pytest.mark.parametrize("n_queries", [3, 20_000])  # at once, and as they are asked for
def test_training_points_in_float32_are_at_no_distance(n_queries):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((60, 70)) / rng.standard_normal((60, 1))).astype(np.float32)
    kde = HighDimKernelDensity(covariance_type="diag", bandwidth=1e-7).fit(X)
    queries = np.resize(X, (n_queries, 70))
    alone = HighDimKernelDensity(covariance_type="diag", bandwidth=1e-7)
    peak = alone.fit(X.astype(np.float64)).score_samples(X.astype(np.float64)).max()
    np.testing.assert_allclose(kde.score_samples(queries), peak, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [True, 1, 3])
@pytest.mark.parametrize("kind", ["lattice", "few distinct", "some twice", "all equal"])
def test_local_scales_among_duplicates(kind, adaptive):
    """A duplicate is a neighbour at distance 0; the definition looks at every pair."""
    rng = np.random.default_rng(5)
    X = {
        "lattice": lambda: rng.integers(0, 4, (200, 3)),
        "few distinct": lambda: rng.integers(0, 2, (300, 2)),
        "some twice": lambda: np.repeat(rng.standard_normal((90, 3)), [1, 2, 3] * 30, 0),
        "all equal": lambda: np.ones((20, 2)),
    }[kind]()
    X = X[rng.permutation(len(X))].astype(float)
    queries = rng.standard_normal((10, X.shape[1]))
    kde = HighDimKernelDensity(bandwidth=0.7, adaptive=adaptive).fit(X)
    k = 5 if adaptive is True else adaptive
    apart = np.linalg.norm(X[:, None] - X, axis=2)
    scale = np.sort(apart, axis=1)[:, k]  # itself is the first
    if scale.any():
        scale = np.maximum(scale, scale[scale > 0.0].min())
        scale /= np.sqrt(np.mean(scale**2))
    else:
        scale = np.ones(len(X))
    h, d = 0.7 * scale, X.shape[1]
    sq = np.sum((queries[:, None] - X) ** 2, axis=2)
    log_terms = -0.5 * sq / h**2 - d * np.log(h) - 0.5 * d * np.log(2.0 * np.pi)
    expected = np.log(np.exp(log_terms).mean(axis=1))
    assert_allclose(kde.score_samples(queries), expected, atol=1e-8)


def goes_with(kernel, structure):
    """Return whether a kernel works in a structure."""
    if kernel == "epanechnikov":
        return not structure.keys() & {"preserve_variance", "adaptive"} and (
            structure.get("covariance_type") not in ("local", "auto")
        )
    local = structure.get("covariance_type") == "local" or "adaptive" in structure
    return kernel != "exponential" or not local


@pytest.mark.parametrize("kernel", ["gaussian", "student", "exponential", "epanechnikov"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "structure",
    [
        {},
        {"covariance_type": "diag"},
        {"covariance_type": "full"},
        {"covariance_type": "full", "preserve_variance": True},
        {"covariance_type": "local"},
        {"covariance_type": "local", "preserve_variance": True, "adaptive": True},
        {"adaptive": True},
        {"preserve_variance": True},
        {"covariance_type": "auto"},
    ],
    ids=str,
)
def test_the_integral_is_one(structure, kernel, weighted):
    """In data units, whatever shape the kernels have."""
    rng = np.random.default_rng(8)
    X = rng.standard_normal((60, 2)) @ np.array([[2.0, 0.7], [0.0, 0.4]]) + 1.0
    X[:25] += [4.0, -2.0]
    weights = rng.exponential(size=60) if weighted else None
    bandwidth = "kl" if structure.get("covariance_type") == "auto" else 0.5
    parameters = {"kernel": kernel, "bandwidth": bandwidth, **structure}
    if kernel == "student":
        parameters["degrees_of_freedom"] = 6.0
    kde = HighDimKernelDensity(random_state=0, **parameters)
    if not goes_with(kernel, structure):
        with pytest.raises(ValueError, match="kernel"):
            kde.fit(X, sample_weight=weights)
        return
    kde.fit(X, sample_weight=weights)
    # a map of the square to the plane, of which the ends carry nothing
    t = np.linspace(-1.0, 1.0, 152)[1:-1]
    line, slope = 3.0 * np.tan(np.pi * t / 2), 1.5 * np.pi / np.cos(np.pi * t / 2) ** 2
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2) + X.mean(axis=0)
    density = np.exp(kde.score_samples(grid)).reshape(150, 150)
    step = t[1] - t[0]
    integral = slope @ density @ slope * step**2
    assert integral == pytest.approx(1.0, abs=1e-3)


class Counting(GaussianMixture):
    """A mixture that notes how many threads its libraries may use."""

    def fit(self, X, y=None):
        type(self).seen = threads_of_libraries()
        return super().fit(X, y)


def threads_of_libraries():
    return [library["num_threads"] for library in threadpool_info()]


@pytest.mark.parametrize("small, expected", [(2**19, {1}), (0, {2})])
def test_mixtures_of_small_tables_are_fitted_on_one_thread(monkeypatch, small, expected):
    monkeypatch.setattr(covariance, "SMALL", small)
    with threadpool_limits(2):
        before = threads_of_libraries()
        kde = HighDimKernelDensity(covariance_type="local")
        kde.set_params(mixture=Counting(2, random_state=0)).fit(clusters(200, 3))
        assert threads_of_libraries() == before
    assert set(Counting.seen) == expected
