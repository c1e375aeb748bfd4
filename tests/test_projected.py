"""Structures on the unit sphere: densities of ``z / |z|``, ``z`` from one in space."""

import functools

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from simulations import structure_ratios
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sphere_oracle import (
    along_geodesics,
    log_area,
    log_integrals,
    log_projected_value,
    nodes,
    project,
    tangents,
    unit,
)
from structured_oracle import make_oracle, moments

from skhdkde import HighDimKernelDensity
from skhdkde._kernels import Projected, make_kernel

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
STUDENT = {"kernel": "student", "degrees_of_freedom": 4.0}
TYPES = ("spherical", "diag", "full", "local")
OPTIONS = [
    {},
    {"preserve_variance": True},
    STUDENT,
    {**STUDENT, "preserve_variance": True},
    {"adaptive": True},
    {"adaptive": 4, "preserve_variance": True},
    {**STUDENT, "adaptive": 3, "preserve_variance": True},
]


def points(n, d, seed=0, dtype=np.float64):
    """Unit vectors about two directions, spread differently along the axes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.geomspace(0.6, 0.15, d)
    X[:, 0] += 1.0
    X[: n // 3] = 0.3 * X[: n // 3, ::-1]
    X[: n // 3, -1] -= 0.7
    return unit(X)[rng.permutation(n)].astype(dtype)


def fitted(
    covariance_type, options, n=40, d=3, h=None, make=HighDimKernelDensity, **more
):
    """An estimator fitted to weighted points, with duplicates; and its oracle."""
    n, dtype = 40, more.pop("dtype", np.float64)
    Y = points(n, d, dtype=dtype)
    Y[0] = Y[1]
    weights = np.random.default_rng(2).uniform(0.2, 3.0, size=n)
    size = Y.std() if covariance_type == "spherical" else 1.0
    h = h or 0.45 * float(size)
    mixture = None
    if covariance_type == "local":
        mixture = GaussianMixture(2, random_state=0).fit(unit(Y.astype(float)))
    kde = make(
        bandwidth=h,
        support="sphere",
        covariance_type=covariance_type,
        mixture=mixture,
        **options,
    ).fit(Y, sample_weight=weights)
    flat = make_oracle(
        unit(Y.astype(float)), covariance_type, mixture, h, options, weights
    )
    return kde, flat


# others are restricted
CASES = [
    (kind, one)
    for kind in TYPES
    for one in OPTIONS
    if kind != "spherical" or len(one) % 2
]
by_case = pytest.mark.parametrize("covariance_type, options", CASES, ids=str)


@examples(15)
@given(
    d=st.sampled_from([2, 3, 4, 7, 40, 300, 768, 4096]),
    nu=st.sampled_from([0.5, 1.0, 2.0, 3.0, 10.0, 100.0, 1e4, np.inf]),
    log_h=st.floats(-5.0, 1.0),
    log_norm=st.floats(-4.0, 2.0),
    cosine=st.one_of(st.floats(-1.0, 1.0), st.sampled_from([-1.0, 0.0, 1.0])),
)
def test_values(d, nu, log_h, log_norm, cosine):
    """The radius is that of whitened points, root d."""
    radius, h = np.sqrt(d), np.sqrt(d) * np.exp(log_h)
    c = radius * np.exp(log_norm)
    gap = radius - c * cosine
    sq = (radius - c) ** 2 + 2.0 * radius * c * (1.0 - cosine)
    kernel = Projected(make_kernel("gaussian" if nu == np.inf else "student", d, nu), d)
    lack = np.array([(radius - c) * (radius + c)])
    found = kernel.log_values(np.array([[sq]]), lack, radius, h)[0, 0]
    expected = log_projected_value(d, nu, sq, gap, radius, h)
    assert_allclose(found, expected, atol=2e-10, rtol=1e-11)


@pytest.mark.parametrize("nu", [0.01, 0.5, 1.0, 3.0, 30.0, 1e4, 1e8, 1e50, np.inf])
@pytest.mark.parametrize("d", [2, 3, 10, 384, 4096])
def test_values_at_all_angles(d, nu):
    """In extended precision, close together near right angles and at both poles."""
    radius, h = np.sqrt(d), 0.7
    steep = np.sinh(np.linspace(-9.0, 9.0, 41))
    cosine = steep / np.sqrt(d + steep**2)
    gap = radius * (1.0 - cosine)
    sq = 2.0 * radius * gap
    kernel = Projected(make_kernel("gaussian" if nu == np.inf else "student", d, nu), d)
    found = kernel.log_values(sq[:, None], np.zeros(1), radius, h)[:, 0]

    def logf(y):
        step = np.longdouble(radius) * np.expm1(y)
        scaled = (step * (step + 2 * gap) + sq) / np.longdouble(h) ** 2
        if nu == np.inf:
            return d * y - scaled / 2
        return d * y - (np.longdouble(nu) + d) / 2 * np.log1p(scaled / np.longdouble(nu))

    expected = log_integrals(logf, len(gap)).astype(float)
    atol = 2e-10 if nu >= 0.5 else 1e-6
    assert_allclose(found, expected, atol=atol, rtol=1e-11)
    if nu < 0.5 or 1e4 < nu < np.inf:
        return  # float32 is not used for these
    single = sq[:, None].astype(np.float32)
    found = kernel.log_values(single, np.zeros(1, np.float32), radius, h)[:, 0]
    assert_allclose(found, expected, atol=1e-3, rtol=5e-6)


ROWS = np.arange(0, 40, 5)


@functools.cache
def expected(covariance_type, number, dtype):
    """Log densities at five points, and at some training points without themselves."""
    _, flat = fitted(covariance_type, OPTIONS[number], d=5, dtype=dtype)
    at = unit(points(5, 5, seed=1, dtype=dtype).astype(float))
    return project(flat, at), project(flat, flat.Y[ROWS], leave_out=ROWS)


@by_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_against_direct_projection(make_kde, covariance_type, options, dtype):
    kde, _ = fitted(covariance_type, options, d=5, make=make_kde, dtype=dtype)
    X = points(5, 5, seed=1, dtype=dtype)
    at_queries, left_out = expected(covariance_type, OPTIONS.index(options), dtype)
    found = kde.score_samples(X)
    assert found.dtype == dtype
    assert_allclose(found, at_queries, atol=ATOL[dtype])
    assert_allclose(kde.score_samples(None)[ROWS], left_out, atol=ATOL[dtype])
    diagnosis = kde.diagnose(X)
    assert_allclose(diagnosis.log_density, found, atol=2.0 * ATOL[dtype])
    assert (diagnosis.standard_error > 0.0).all()


@by_case
def test_gradients(make_kde, covariance_type, options):
    kde, flat = fitted(covariance_type, options, d=5, make=make_kde)
    X = np.vstack([points(4, 5, seed=1), flat.Y[:3], -flat.Y[:1]])
    gradient, steps = kde.log_density_gradient(X), tangents(X, 0)
    size = np.linalg.norm(gradient, axis=1)
    assert (np.abs(np.sum(gradient * X, axis=1)) < 1e-10 * size).all()
    along = along_geodesics(kde.score_samples, X, steps, 1e-3)
    assert_allclose(np.sum(gradient * steps, axis=1), along, atol=1e-6, rtol=1e-6)


def wide(covariance_type):
    """Bandwidths of which a coarse rule can see the kernels."""
    return 0.31 if covariance_type == "spherical" else 0.68


@by_case
@pytest.mark.parametrize("d, n", [(2, 5000), (3, 60)])
def test_totals(covariance_type, options, d, n):
    kde, _ = fitted(covariance_type, options, d=d, h=wide(covariance_type))
    n = 4 * n if "adaptive" in options else n
    X, weights = nodes(d, n)
    assert weights @ np.exp(kde.score_samples(X)) == pytest.approx(1.0, abs=1e-5)


@by_case
def test_moments_of_samples(covariance_type, options):
    kde, _ = fitted(covariance_type, options, d=3, h=wide(covariance_type))
    X, weights = nodes(3, 150 if "adaptive" in options else 60)
    share = weights * np.exp(kde.score_samples(X))
    n = 200_000
    sample = kde.sample(n, random_state=1)
    assert_allclose(np.linalg.norm(sample, axis=1), 1.0, atol=1e-12)
    for power in (moments_1, moments_2):
        mean, sq = share @ power(X), share @ power(X) ** 2
        error = np.sqrt((sq - mean**2) / n)
        assert (np.abs(power(sample).mean(axis=0) - mean) < 4.5 * error + 1e-9).all()


def moments_1(X):
    return X


def moments_2(X):
    i, j = np.triu_indices(X.shape[1])
    return X[:, i] * X[:, j]


@pytest.mark.parametrize("kernel", ["gaussian", "student"])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
@pytest.mark.parametrize("d", [2, 3, 10, 60])
def test_angular_central_gaussian(covariance_type, kernel, d):
    """Points and their opposites, shrunk to their mean, which is zero."""
    nu = 5.0
    Y = points(50, d)
    Y = np.vstack([Y, -Y])
    h = 1.0 if kernel == "gaussian" else np.sqrt((nu - 2.0) / nu)
    kde = HighDimKernelDensity(
        support="sphere",
        covariance_type=covariance_type,
        preserve_variance=True,
        bandwidth=h,
        kernel=kernel,
        degrees_of_freedom=nu,
    ).fit(Y)
    covariance = moments(Y, covariance_type)[1]
    X = points(20, d, seed=1)
    form = np.einsum("ij,ij->i", X @ np.linalg.inv(covariance), X)
    exact = -log_area(d) - 0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * d * np.log(form)
    assert_allclose(kde.score_samples(X), exact, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"kernel": "student", "degrees_of_freedom": 5.0}]
)
def test_total_in_many_dimensions(options):
    """By importance sampling from the angular central Gaussian that is near."""
    d, n, rng = 768, 3000, np.random.default_rng(0)
    Y = unit(rng.standard_normal((20, d)) * np.geomspace(1.0, 0.3, d))
    Y = np.vstack([Y, -Y])
    largest = np.sqrt(0.6) if options else 1.0
    kde = HighDimKernelDensity(
        support="sphere",
        covariance_type="full",
        preserve_variance=True,
        bandwidth=0.97 * largest,
        **options,
    ).fit(Y)
    covariance = moments(Y, "full")[1]
    root = np.linalg.cholesky(covariance)
    Z = rng.standard_normal((n, d))
    X = unit(Z @ root.T)
    form = np.square(np.linalg.solve(root, X.T)).sum(axis=0)
    central = -log_area(d) - np.log(np.diag(root)).sum() - 0.5 * d * np.log(form)
    ratio = np.exp(kde.score_samples(X) - central)
    assert ratio.std() > 0.1  # it is not that law
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / np.sqrt(n)


def spread_out(n, d, rng):
    """Random points over much of the sphere."""
    X = rng.standard_normal((n, d)) * np.geomspace(0.6, 0.15, d)
    X[:, 0] += 0.7
    return unit(X)


def close_together(n, d, rng):
    """Random points about one direction, as of embeddings."""
    X = rng.standard_normal((n, d)) * np.geomspace(0.2, 0.03, d)
    X[:, 0] += 1.0
    return unit(X)


@pytest.mark.parametrize("options", [{}, STUDENT | {"preserve_variance": True}])
@pytest.mark.parametrize(
    "draw, d, n_components, tol",
    [(spread_out, 20, 1, 0.4), (spread_out, 20, 2, 0.4), (close_together, 50, 1, 0.2)],
)
def test_error_bars(draw, d, n_components, tol, options):
    """Against the spread over fresh data sets, with a mixture that stays as it is."""
    many = draw(5000, d, np.random.default_rng(9))
    mixture = FrozenEstimator(GaussianMixture(n_components, random_state=0).fit(many))
    kde = HighDimKernelDensity(
        support="sphere", covariance_type="local", mixture=mixture, **options
    )
    ratios, _ = structure_ratios(draw, d, 800, kde, [0.3, 0.6], (30, 40, 2))
    medians = np.median(ratios, axis=(1, 2))
    assert (np.abs(np.log(medians)) < tol).all(), medians


@pytest.mark.slow
def test_keops():
    kde, _ = fitted("full", STUDENT)
    other, _ = fitted("full", {**STUDENT, "backend": "keops"})
    X = points(9, 3, seed=1)
    assert_allclose(other.score_samples(X), kde.score_samples(X), atol=1e-8)
    assert_allclose(other.log_density_gradient(X), kde.log_density_gradient(X), atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("h", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("nu", [30.0, np.inf])
def test_pairs_that_add_nothing(nu, h, dtype):
    """Sums leave their values as they come out; a diagnosis needs them all."""
    kernel = {} if np.isinf(nu) else {"kernel": "student", "degrees_of_freedom": nu}
    kde = HighDimKernelDensity(
        support="sphere",
        covariance_type="full",
        preserve_variance=True,
        bandwidth=h,
        **kernel,
    ).fit(points(3000, 100, dtype=dtype))
    X = points(40, 100, seed=1, dtype=dtype)
    assert np.median(kde.diagnose(X).effective_sample_size) < 300
    expected = kde.diagnose(X).log_density
    assert_allclose(kde.score_samples(X), expected, atol=ATOL[dtype])
