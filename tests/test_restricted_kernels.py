"""Kernels restricted to the unit sphere, against integrals and direct sums."""

import functools
import importlib.util
import itertools
import shutil
import warnings

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import kstest
from sphere_oracle import (
    COMPACT,
    along_geodesics,
    log_area,
    log_restricted_volume,
    nodes,
    restricted,
    tangents,
    unit,
    von_mises_fisher,
)

from skhdkde import HighDimKernelDensity
from skhdkde._kernels import (
    make_kernel,
    mean_cosine,
    one_minus_mean_cosine,
)
from skhdkde._kernels import restricted as restricted_kernel

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
KERNELS = ("gaussian", "student", "exponential", *COMPACT)
NU = 4.0


def points(n, d, seed=0, dtype=np.float64, spread=1.0):
    """Unit vectors about the first axis; angles are about ``spread``."""
    rng = np.random.default_rng(seed)
    X = spread * rng.standard_normal((n, d)) / np.sqrt(d)
    X[:, 0] += 1.0
    return unit(X).astype(dtype)


def on_sphere(make=HighDimKernelDensity, **parameters):
    if parameters.get("kernel") == "student":
        parameters = {"degrees_of_freedom": NU, **parameters}
    return make(support="sphere", **parameters)


# Normalisers.


@examples(20)
@given(
    kernel=st.sampled_from(KERNELS),
    d=st.sampled_from([2, 3, 4, 50, 768, 4096]),
    h=st.one_of(st.floats(0.05, 20.0), st.sampled_from([1.0, 1.9999, 2.0, 2.0001])),
    nu=st.sampled_from([0.5, 1.0, 3.0, 100.0]),
)
def test_volumes(kernel, d, h, nu):
    found = restricted_kernel(make_kernel(kernel, d, nu), d).log_volume(d, h)
    expected = log_restricted_volume(kernel, d, h, nu)
    assert_allclose(found, expected, rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("h", [0.05, 0.4, 1.7, 20.0])
def test_totals_over_the_circle(kernel, h):
    """Integrate over the circle for weighted points, of which some are equal."""
    Y = points(12, 2)
    Y[:3] = Y[3]
    weights = np.random.default_rng(1).uniform(0.2, 3.0, size=12)
    kde = on_sphere(kernel=kernel, bandwidth=h).fit(Y, sample_weight=weights)
    X, w = nodes(2, {"tophat": 400_000}.get(kernel, 20_000))
    total = w @ np.exp(kde.score_samples(X))
    # a tophat has edges
    tol = {"tophat": 5e-5}.get(kernel, 1e-5)
    assert total == pytest.approx(1.0, abs=tol)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("h", [0.05, 0.4, 1.7, 20.0])
@pytest.mark.parametrize("d", [2, 3, 4, 30])
def test_total_of_one_kernel(kernel, h, d):
    """By the angle, up to the edge of a compact kernel."""
    y = points(1, d)
    kde = on_sphere(kernel=kernel, bandwidth=h).fit(np.vstack([y, y, y]))
    edge = 2.0 * np.arcsin(min(h / 2.0, 1.0)) if kernel in COMPACT else np.pi
    t, w = np.polynomial.legendre.leggauss(40)
    edges, total = np.r_[0.0, np.geomspace(1e-3, 1.0, 30)] * edge, 0.0
    for low, high in itertools.pairwise(edges):
        angle = low + (high - low) * (t + 1.0) / 2.0
        X = np.cos(angle)[:, None] * y + np.sin(angle)[:, None] * tangents(y, 0)
        logs = kde.score_samples(X) + (d - 2) * np.log(np.sin(angle)) + log_area(d - 1)
        total += 0.5 * (high - low) * (w @ np.exp(logs))
    beyond = unit(-y + 1e-3) if kernel in COMPACT and h < 1.0 else None
    assert total == pytest.approx(1.0, abs=2e-6)
    assert beyond is None or np.isneginf(kde.score_samples(beyond)).all()


# Log densities.


@functools.cache
def direct(kernel, d, h, dtype, weighted):
    Y, X = data(d, dtype)
    weights = weights_of(len(Y)) if weighted else None
    X, Y = unit(X.astype(np.longdouble)), unit(Y.astype(np.longdouble))
    rows = np.arange(0, len(Y), 7)
    left_out = restricted(Y[rows], Y, h, kernel, weights, rows, NU)
    return restricted(X, Y, h, kernel, weights, nu=NU), rows, left_out


def data(d, dtype):
    Y, fresh = points(60, d, dtype=dtype), points(6, d, seed=1, dtype=dtype)
    Y[0] = Y[1]
    return Y, np.vstack([fresh, Y[:2], -Y[:1]])


def weights_of(n):
    return np.random.default_rng(2).uniform(0.2, 3.0, size=n)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d, h", [(2, 0.07), (3, 0.3), (50, 1.1), (768, 0.5)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_against_direct_sums(make_kde, kernel, d, h, dtype):
    if kernel == "exponential":
        h /= np.sqrt(d)
    Y, X = data(d, dtype)
    weighted = d != 3
    weights = weights_of(len(Y)) if weighted else None
    kde = on_sphere(make_kde, kernel=kernel, bandwidth=h).fit(Y, sample_weight=weights)
    expected, rows, left_out = direct(kernel, d, h, dtype, weighted)
    found = kde.score_samples(X)
    assert found.dtype == dtype
    tol = {"atol": ATOL[dtype], "rtol": 2e-15 if dtype == np.float64 else 1e-6}
    assert_allclose(found, expected, **tol)
    assert_allclose(kde.score_samples(None)[rows], left_out, **tol)
    diagnosis = kde.diagnose(X)
    assert_allclose(diagnosis.log_density, expected, **tol)


def test_half_precision():
    """Norms that are off by 8e-5 do not matter: rows are normalised in float64."""
    Y, X = points(200, 300, spread=0.3), points(10, 300, seed=1, spread=0.3)
    Y, X = Y.astype(np.float16), X.astype(np.float16)
    assert np.abs(np.linalg.norm(Y.astype(float), axis=1) - 1.0).max() > 2e-5
    kde = on_sphere(bandwidth=0.03).fit(Y)
    expected = restricted(unit(X.astype(float)), unit(Y.astype(float)), 0.03, "gaussian")
    assert_allclose(kde.score_samples(X), expected, atol=1e-3, rtol=1e-6)


# Bandwidths.


@pytest.mark.parametrize(
    "d, n, kappa", [(3, 500, 20.0), (50, 1500, 60.0), (400, 500, 400.0)]
)
def test_the_best_concentration_is_stationary(d, n, kappa):
    """The mean cosine of the kernel is the mean weighted cosine to the others."""
    Y = von_mises_fisher(n, d, kappa, np.random.default_rng(0))
    kde = on_sphere(bandwidth="kl").fit(Y)
    found = kde.bandwidth_**-2
    cosines = Y @ Y.T
    logs = found * (cosines - 1.0)
    np.fill_diagonal(logs, -np.inf)
    shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    mean = np.mean(np.sum(shares * np.where(np.isfinite(cosines), cosines, 0.0), axis=1))
    assert mean_cosine(d, found) == pytest.approx(mean, abs=1e-3)
    at = [
        on_sphere(bandwidth=h).fit(Y).score_samples(None).mean()
        for h in kde.bandwidth_ * np.array([0.97, 1.0, 1.03])
    ]
    assert at[1] == max(at)


@pytest.mark.parametrize("d, kappa", [(3, 20.0), (50, 60.0), (768, 500.0)])
def test_nearest(d, kappa):
    Y = von_mises_fisher(400, d, kappa, np.random.default_rng(0))
    kde = on_sphere(bandwidth="nearest").fit(Y)
    cosines = Y @ Y.T
    np.fill_diagonal(cosines, -1.0)
    nearest = cosines.max(axis=1).mean()
    assert mean_cosine(d, kde.bandwidth_**-2) == pytest.approx(nearest, abs=1e-6)


SEARCHED = ["gaussian", "student", "exponential"]
SEARCHED += [pytest.param(kernel, marks=pytest.mark.slow) for kernel in COMPACT]


@pytest.mark.parametrize("kernel", SEARCHED)
@pytest.mark.parametrize("d, n", [(2, 2000), (4, 500), (50, 2000), (4096, 200)])
def test_uniform_points(kernel, d, n):
    """No error and no warning."""
    rng = np.random.default_rng(3)
    Y, X = unit(rng.standard_normal((n, d))), unit(rng.standard_normal((500, d)))
    kde = on_sphere(kernel=kernel).fit(Y)
    assert np.isfinite(kde.bandwidth_)
    assert kde.score_samples(X).mean() == pytest.approx(-log_area(d), abs=0.05)


# Samples.


@pytest.mark.parametrize(
    "d, kappa", [(4096, 4000.0), (4096, 1e12), (3, 1e6), (2, 1e-3), (384, 400.0)]
)
def test_samples_of_von_mises_and_fisher(d, kappa):
    n = 2000 if d > 1000 else 20_000
    y = points(1, d)
    kde = on_sphere(bandwidth=kappa**-0.5).fit(np.vstack([y, y, y]))
    sample = kde.sample(n, random_state=5)
    assert_allclose(np.linalg.norm(sample, axis=1), 1.0, rtol=0.0, atol=1e-12)
    energy = 0.5 * np.square(sample - y).sum(axis=1)
    error = energy.std() / np.sqrt(n)
    mean = one_minus_mean_cosine(d, kappa)
    assert abs(energy.mean() - mean) < 4.0 * error + 1e-30
    # rounding of entries of y is felt where the angle is small
    assert kstest(energy, law_of_energies(d, lambda sq: -0.5 * kappa * sq)).pvalue > 1e-3
    across = sample - (1.0 - energy)[:, None] * y
    assert np.abs(across.mean(axis=0)).max() < 5.0 * np.abs(across).max() / np.sqrt(n)


def law_of_energies(d, log_profile):
    """Cumulative law of half the squared chord, by a fine grid of the angle."""
    log_angle = np.linspace(-40.0, np.log(np.pi), 1_000_001)
    middle = 0.5 * (log_angle[1:] + log_angle[:-1])
    angle = np.exp(middle)
    sine = np.sin(np.minimum(angle, np.pi - angle))
    logs = (d - 2) * np.log(sine) + middle + log_profile(4.0 * np.sin(0.5 * angle) ** 2)
    law = np.cumsum(np.exp(logs - logs.max()))
    energy = 2.0 * np.sin(0.5 * np.exp(log_angle)) ** 2
    return lambda e: np.interp(e, energy, np.r_[0.0, law] / law[-1])


LOG_PROFILES = {
    "tophat": lambda r: np.where(r < 1.0, 0.0, -np.inf),
    "epanechnikov": lambda r: np.log(np.maximum(1.0 - r**2, 0.0)),
    "linear": lambda r: np.log(np.maximum(1.0 - r, 0.0)),
    "cosine": lambda r: np.log(np.cos(0.5 * np.pi * r) * (r < 1.0)),
    "exponential": lambda r: -r,
}


@pytest.mark.parametrize("d, h", [(2, 0.3), (3, 1.5), (50, 0.4), (384, 1.8), (3, 50.0)])
@pytest.mark.parametrize("kernel", ["student", "exponential", *COMPACT])
def test_samples_of_other_kernels(kernel, d, h):
    n, y = 20_000 if d < 100 else 4000, points(1, d)
    h = h / np.sqrt(d) if kernel == "exponential" else h
    kde = on_sphere(kernel=kernel, bandwidth=h).fit(np.vstack([y, y, y]))
    sample = kde.sample(n, random_state=7)
    assert_allclose(np.linalg.norm(sample, axis=1), 1.0, rtol=0.0, atol=1e-12)

    def log_profile(sq):
        if kernel == "student":
            return -0.5 * (NU + d - 1.0) * np.log1p(sq / (NU * h**2))
        with np.errstate(divide="ignore"):
            return LOG_PROFILES[kernel](np.sqrt(sq) / h)

    energy = 0.5 * np.square(sample - y).sum(axis=1)
    assert kstest(energy, law_of_energies(d, log_profile)).pvalue > 1e-3


# Gradients.


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d, h", [(2, 0.3), (3, 1.5), (50, 1.6)])
def test_gradients(make_kde, kernel, d, h):
    Y, X = points(40, d), points(6, d, seed=1)
    kde = on_sphere(make_kde, kernel=kernel, bandwidth=h).fit(Y)
    kinks = kernel in ("exponential", "linear")
    X = X if kinks else np.vstack([X, Y[:2]])
    X = X if kernel in COMPACT else np.vstack([X, -Y[:1]])
    gradient, steps = kde.log_density_gradient(X), tangents(X, 0)
    size = np.linalg.norm(gradient, axis=1)
    assert (np.abs(np.sum(gradient * X, axis=1)) <= 1e-10 * size).all()
    along = along_geodesics(kde.score_samples, X, steps, 1e-4)
    rim = kernel in COMPACT  # where differences step over the edge of a kernel
    found = np.sum(gradient * steps, axis=1)
    close = np.abs(found - along) <= 1e-6 * (1.0 + np.abs(along))
    assert close.sum() >= len(X) - 2 * rim


# What must make no difference.


@pytest.mark.parametrize("reflected", [False, True])
def test_rotations(reflected):
    d = 60
    Y, X = points(200, d), points(9, d, seed=1)
    rotation = np.linalg.qr(np.random.default_rng(4).standard_normal((d, d)))[0]
    rotation[:, 0] *= np.sign(np.linalg.det(rotation)) * (-1.0 if reflected else 1.0)
    kde = on_sphere(random_state=0).fit(Y)
    turned = on_sphere(random_state=0).fit(Y @ rotation)
    assert turned.bandwidth_ == pytest.approx(kde.bandwidth_, rel=1e-6)
    turned = on_sphere(bandwidth=kde.bandwidth_).fit(Y @ rotation)
    assert_allclose(turned.score_samples(X @ rotation), kde.score_samples(X), atol=1e-8)
    found = turned.log_density_gradient(X @ rotation)
    assert_allclose(found, kde.log_density_gradient(X) @ rotation, atol=1e-8)


# Approximations.


@functools.cache
def many(kernel):
    """Return points, queries, a bandwidth, and the exact log densities."""
    d, h = 30, 0.15 if kernel != "exponential" else 0.03
    Y = von_mises_fisher(5000, d, 60.0, np.random.default_rng(0))
    X = von_mises_fisher(300, d, 60.0, np.random.default_rng(1))
    return Y, X, h, on_sphere(kernel=kernel, bandwidth=h).fit(Y).score_samples(X)


@pytest.mark.parametrize("kernel", ["gaussian", "student", "exponential"])
@pytest.mark.parametrize("algorithm", ["neighbors", "sampling", "auto"])
def test_approximations(kernel, algorithm):
    Y, X, h, exact = many(kernel)
    kde = on_sphere(kernel=kernel, bandwidth=h, algorithm=algorithm, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = kde.fit(Y).score_samples(X)
    stated = kde.approximation_.error
    assert np.mean(np.abs(found - exact) <= stated + 1e-8) > 0.9


def test_the_nearest_are_those_of_the_largest_inner_product():
    faiss = pytest.importorskip("faiss")
    Y = von_mises_fisher(5000, 40, 80.0, np.random.default_rng(0)).astype(np.float32)
    X, found = Y[:50], []
    for index in (faiss.IndexFlatL2(40), faiss.IndexFlatIP(40)):
        index.add(Y)
        found.append(np.sort(index.search(X, 10)[1], axis=1))
    assert (found[0] == found[1]).mean() > 0.99


# Error bars.


@pytest.mark.parametrize("d, n, kappa", [(50, 5000, 50.0), (100, 2000, 100.0)])
def test_error_bars(d, n, kappa):
    """Against the spread over fresh data sets, in all regimes."""
    rng = np.random.default_rng(0)
    X = von_mises_fisher(12, d, kappa, rng)
    limit = {50: 63.3, 100: 71.2}[d]  # of kappa_g, as theory has it
    concentrations = limit * np.array([4.0, 2.0, 1.0, 0.5])
    fresh = []
    for _ in range(60):
        cosines = X @ von_mises_fisher(n, d, kappa, rng).T
        fresh.append([logsumexp(k * cosines, axis=1) for k in concentrations])
    truth = np.std(fresh, axis=0, ddof=1)
    # the same at about the tail index that finite samples have
    index = {50: [0.224, 0.447, 0.895, 1.79], 100: [0.23, 0.455, 0.91, 1.82]}[d]
    for k, spread, tail in zip(concentrations, truth, index, strict=True):
        found = [
            on_sphere(bandwidth=k**-0.5)
            .fit(von_mises_fisher(n, d, kappa, rng))
            .diagnose(X)
            for _ in range(3)
        ]
        ratio = np.median([f.standard_error / spread for f in found])
        assert 0.75 < ratio < 1.25
        assert np.median([f.tail_index for f in found]) == pytest.approx(tail, rel=0.1)


@pytest.mark.parametrize("kernel", ["gaussian", "student", "exponential"])
def test_total_in_many_dimensions(kernel):
    """By importance sampling: random points come from kernels that are a little wider."""
    d, n, h = 768, 4000, {"gaussian": 0.04, "student": 0.04, "exponential": 2e-3}[kernel]
    Y = points(20, d, spread=0.5)
    kde, wider = (on_sphere(kernel=kernel, bandwidth=c * h).fit(Y) for c in (1.0, 1.02))
    X = wider.sample(n, random_state=0)
    ratio = np.exp(kde.score_samples(X) - wider.score_samples(X))
    assert ratio.std() > 0.1  # it is not that density
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / np.sqrt(n)


# KeOps.


@pytest.mark.skipif(
    importlib.util.find_spec("pykeops") is None or not shutil.which("g++"),
    reason="pykeops or a compiler is not installed",
)
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["gaussian", "student"])
def test_keops(kernel):
    Y, X = data(3, np.float64)
    kde = on_sphere(kernel=kernel, bandwidth=0.3, backend="keops").fit(Y)
    other = on_sphere(kernel=kernel, bandwidth=0.3, backend="numpy").fit(Y)
    assert_allclose(kde.score_samples(X), other.score_samples(X), atol=1e-8)
    found, expected = kde.log_density_gradient(X), other.log_density_gradient(X)
    assert_allclose(found, expected, atol=1e-7)
