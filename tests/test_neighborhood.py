"""Kernels with the covariance of their point's neighbourhood.

The oracle is the formula, in extended precision, one point after the other.
"""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from approximations import has_cuda
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats
from sklearn.utils.estimator_checks import parametrize_with_checks
from structured_oracle import log_kernel, variance

from skhdkde import BandwidthDisplay, HighDimKernelDensity, RegimeDisplay
from skhdkde._density import (
    NeighborhoodSpec,
    Structure,
    structured_density,
    whiten_components,
)
from skhdkde._kernels import KERNELS, make_kernel
from skhdkde._pairwise import (
    ComputeOptions,
    KernelGridSums,
    KernelSetting,
    KSmallest,
    MatrixPoints,
    Nearest,
    reduce_pairs,
)
from skhdkde._pairwise.backends import NumpyDevice
from skhdkde._selection import Folds
from skhdkde._selection.structure_search import neighborhood_ladder
from skhdkde._utils.random import seed_from
from skhdkde.dask import DaskHighDimKernelDensity

OPTIONS = ComputeOptions(n_jobs=1)
LONG = np.longdouble
SETTINGS = [
    {"kernel": "gaussian"},
    {"kernel": "gaussian", "preserve_variance": True},
    {"kernel": "student", "degrees_of_freedom": 5.0},
    {"kernel": "student", "degrees_of_freedom": 4.0, "preserve_variance": True},
]


def cholesky(A):
    """Return the lower root of a matrix, in extended precision."""
    root = np.zeros_like(A)
    for i in range(len(A)):
        for j in range(i + 1):
            rest = A[i, j] - root[i, :j] @ root[j, :j]
            root[i, j] = np.sqrt(rest) if i == j else rest / root[j, j]
    return root


def solve(root, b):
    """Return the solution of ``root z = b``, of which ``b`` is the first axis."""
    z = np.zeros_like(b)
    for i in range(len(root)):
        z[i] = (b[i] - root[i, :i] @ z[:i]) / root[i, i]
    return z


class Oracle:
    """The density by its formula, for points that differ.

    ``S``, ``means`` and ``centers`` are in standardised features.
    """

    def __init__(self, Y, k, share, h, weights=None, ridge=1e-3, **setting):
        n, d = Y.shape
        self.h, self.d = LONG(h), d
        self.kernel, self.nu = setting["kernel"], setting.get("degrees_of_freedom")
        w = np.ones(n, dtype=LONG) if weights is None else weights.astype(LONG)
        self.w, Y = w, Y.astype(LONG)
        self.mean = w @ Y / w.sum()
        self.unit = np.sqrt(w @ (Y - self.mean) ** 2 / w.sum())
        Z = (Y - self.mean) / self.unit
        means, covariances = [], []
        for j in range(n):
            sq = np.sum((Z - Z[j]) ** 2, axis=1)
            sq[j] = np.inf
            near = np.argsort(sq, kind="stable")[:k]
            m = w[near] @ Z[near] / w[near].sum()
            P = Z[near] - m
            covariances.append((w[near, None] * P).T @ P / w[near].sum())
            means.append(m)
        pooled = sum(v * C for v, C in zip(w, covariances, strict=True)) / w.sum()
        pooled = pooled + LONG(ridge) * np.eye(d, dtype=LONG)
        self.S = [(1 - LONG(share)) * C + LONG(share) * pooled for C in covariances]
        self.roots = [cholesky(S) for S in self.S]
        a = LONG(1)
        if setting.get("preserve_variance"):
            a = np.sqrt(1 - self.h**2 * LONG(variance(self.kernel, self.nu, d)))
        self.means = np.array(means)
        self.centers = self.means + a * (Z - self.means)

    def terms(self, X):
        """Return logs of the terms, (n_queries, n_points), and gradients of these."""
        Q = (X.astype(LONG) - self.mean) / self.unit
        logs, gradients = [], []
        for w, root, c in zip(self.w, self.roots, self.centers, strict=True):
            z = solve(root, (Q - c).T) / self.h
            sq = np.sum(z**2, axis=0)
            log = log_kernel(self.kernel, self.nu, sq, self.d) - self.d * np.log(self.h)
            log -= np.log(np.diag(root)).sum() + np.log(self.unit).sum()
            logs.append(log + np.log(w))
            slope = -1 if self.nu is None else -(self.nu + self.d) / (self.nu + sq)
            back = solve(root[::-1, ::-1].T, z[::-1])[::-1] / self.h
            gradients.append((slope * back).T / self.unit)
        return np.array(logs).T, np.array(gradients).transpose(1, 0, 2)

    def log_density(self, X, leave_out=False):
        logs, total = self.terms(X)[0], np.full(len(X), self.w.sum())
        if leave_out:
            np.fill_diagonal(logs, -np.inf)
            total = total - self.w
        top = logs.max(axis=1)
        sums = np.exp(logs - top[:, None]).sum(axis=1)
        return (top + np.log(sums) - np.log(total)).astype(float)

    def shares(self, X):
        logs = self.terms(X)[0]
        values = np.exp(logs - logs.max(axis=1, keepdims=True))
        return values / values.sum(axis=1, keepdims=True)

    def gradient(self, X):
        return np.einsum("ij,ijk->ik", self.shares(X), self.terms(X)[1]).astype(float)

    def moments(self):
        """Return mean and covariance of the density, in data units."""
        shares = (self.w / self.w.sum()).astype(float)
        v = variance(self.kernel, self.nu, self.d)
        c, unit = self.centers.astype(float), self.unit.astype(float)
        mean = shares @ c
        between = (shares[:, None] * (c - mean)).T @ (c - mean)
        S = np.array(self.S, dtype=float)
        within = float(self.h) ** 2 * v * np.tensordot(shares, S, axes=1)
        covariance = (between + within) * np.outer(unit, unit)
        return mean * unit + self.mean.astype(float), covariance


def curve(n, rng, d=3):
    """Points along a curve, in units that differ."""
    t = rng.uniform(0.0, 6.0, n)
    X = np.column_stack([np.cos(t + k) if k % 2 else np.sin(t) * k + t for k in range(d)])
    return (X + 0.05 * rng.standard_normal(X.shape)) * 3.0 ** np.arange(d) + 2.0


def make_kde(h=0.45, **setting):
    return HighDimKernelDensity(covariance_type="neighborhood", bandwidth=h, **setting)


def default_k(n, d):
    return min(max(20, 2 * d), n - 1)


@pytest.fixture
def narrow_tiles(monkeypatch):
    monkeypatch.setattr(NumpyDevice, "tile_rows", 5)
    monkeypatch.setattr(NumpyDevice, "tile_cols", 17)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("n, d", [(60, 3), (15, 2), (40, 12)])
def test_against_direct_sums(n, d, setting, weighted):
    rng = np.random.default_rng(0)
    Y, X = curve(n, rng, d), curve(9, rng, d)
    w = rng.uniform(0.1, 2.0, n) if weighted else None
    kde = make_kde(**setting).fit(Y, sample_weight=w)
    oracle = Oracle(Y, default_k(n, d), 0.3, 0.45, w, **setting)
    assert_allclose(kde.score_samples(X), oracle.log_density(X), rtol=1e-12, atol=1e-9)
    left_out = oracle.log_density(Y, leave_out=True)
    assert_allclose(kde.score_samples(None), left_out, rtol=1e-12, atol=1e-9)
    gradient = oracle.gradient(X)
    assert_allclose(
        kde.log_density_gradient(X),
        gradient,
        rtol=1e-8,
        atol=1e-9 * np.abs(gradient).max(),
    )
    found = kde.diagnose(X)
    shares = oracle.shares(X).astype(float)
    assert_allclose(found.log_density, oracle.log_density(X), rtol=1e-12, atol=1e-9)
    assert_allclose(found.effective_sample_size, 1.0 / np.sum(shares**2, axis=1))
    assert_allclose(found.max_weight, shares.max(axis=1), rtol=1e-7)


def test_tiles_and_threads_do_not_matter(narrow_tiles):
    rng = np.random.default_rng(1)
    Y, X = curve(80, rng), curve(30, rng)
    expected = Oracle(Y, 20, 0.3, 0.45, kernel="gaussian")
    kde = make_kde(n_jobs=3).fit(Y)
    assert_allclose(kde.score_samples(X), expected.log_density(X), atol=1e-9)
    left_out = expected.log_density(Y, leave_out=True)
    assert_allclose(kde.score_samples(None), left_out, atol=1e-9)
    assert_allclose(kde.log_density_gradient(X), expected.gradient(X), rtol=1e-8)


@pytest.mark.parametrize("backend", ["torch", "keops"])
def test_other_backends_leave_it_to_numpy(backend):
    pytest.importorskip({"torch": "torch", "keops": "pykeops"}[backend])
    Y = curve(50, np.random.default_rng(0))
    kde, other = make_kde().fit(Y), make_kde().fit(Y).set_params(backend=backend)
    assert_array_equal(kde.score_samples(None), other.score_samples(None))
    assert_array_equal(kde.log_density_gradient(Y), other.log_density_gradient(Y))
    assert_array_equal(kde.diagnose().standard_error, other.diagnose().standard_error)


@given(
    n=st.integers(3, 30),
    d=st.integers(1, 4),
    k=st.integers(1, 40),
    share=st.floats(0.05, 1.0),
    setting=st.sampled_from(SETTINGS),
    seed=st.integers(0, 99),
)
@examples(15)
def test_any_spec(n, d, k, share, setting, seed):
    rng = np.random.default_rng(seed)
    Y, X = rng.standard_normal((n, d)), rng.standard_normal((4, d))
    structure = Structure(
        "neighborhood",
        setting.get("preserve_variance", False),
        neighborhood=NeighborhoodSpec(k, share),
    )
    kernel = make_kernel(setting["kernel"], d, setting.get("degrees_of_freedom"))
    whitened = whiten_components(Y, None, structure, 0, OPTIONS)
    density = structured_density(Y, whitened, structure, kernel, 0.6)
    oracle = Oracle(Y, min(k, n - 1), share, 0.6, **setting)
    assert_allclose(density.log_density(X, OPTIONS), oracle.log_density(X), atol=1e-8)


def test_specs_share_neighbours_and_covariances():
    Y = curve(70, np.random.default_rng(0))
    reuse = {}
    sizes = neighborhood_ladder(*Y.shape)
    assert len(sizes) > 1
    for spec in [replace(s, shrinkage=share) for s in sizes for share in (0.1, 0.6)]:
        structure = Structure("neighborhood", neighborhood=spec)
        (alone,) = whiten_components(Y, None, structure, 0, OPTIONS)
        (shared,) = whiten_components(Y, None, structure, 0, OPTIONS, reuse=reuse)
        assert_array_equal(shared.roots, alone.roots)
        assert_array_equal(shared.means, alone.means)
    assert reuse


def test_ladder_is_capped():
    """By the points outside of a fold, of which one is no neighbour of itself."""
    ladder = neighborhood_ladder(25, 3)
    assert [(s.n_neighbors, s.shrinkage) for s in ladder] == [(10, 0.3), (19, 0.3)]
    assert [s.n_neighbors for s in neighborhood_ladder(8, 3)] == [5]
    assert neighborhood_ladder(900, 16)[-1] == NeighborhoodSpec(64, 0.3)


# The engine, with any matrices.


def matrix_points(rng, n=40, d=3):
    centers, means = rng.standard_normal((2, n, d))
    roots = np.tril(rng.standard_normal((n, d, d))) + 2.0 * np.eye(d)
    weights = rng.uniform(0.2, 1.0, n)
    points = MatrixPoints(
        centers,
        means,
        roots,
        np.float64,
        weights,
        sq_factor=np.ones(n),
        sq_offset=np.zeros(n),
    )
    return points, centers, means, roots, weights


def direct_sq(X, centers, roots):
    steps = X.astype(LONG)[:, None] - centers.astype(LONG)
    return np.square(np.einsum("jkl,ijl->ijk", roots.astype(LONG), steps)).sum(axis=2)


@pytest.mark.parametrize("reach", [1.0, 1e8])
def test_grid_of_bandwidths_and_shrinkages(reach, narrow_tiles):
    rng = np.random.default_rng(0)
    points, centers, means, roots, weights = matrix_points(rng)
    X, log_factors = reach * rng.standard_normal((12, 3)), -rng.uniform(0, 5, 40)
    student = make_kernel("student", 3, 4.0)
    trials = [(k, a) for k in (KERNELS["gaussian"], student) for a in (1.0, 0.6, 0.0)]
    settings = [KernelSetting(k, 0.7 * points.scale, a) for k, a in trials]
    reduction = KernelGridSums(settings, 1e-2, log_factors)
    found = reduce_pairs(reduction, points.as_queries(X), points, OPTIONS)
    for column, (kernel, a) in enumerate(trials):
        sq = direct_sq(X, means + LONG(a) * (centers - means), roots) / LONG(0.7) ** 2
        logs = -sq / 2
        if kernel is student:
            logs = -LONG(3.5) * np.log1p(sq / 4)
        logs = logs + log_factors + np.log(weights)
        top = logs.max(axis=1)
        expected = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        assert_allclose(found[:, column], expected.astype(float), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("k", [1, 5])
def test_nearest_in_their_own_metrics(k, narrow_tiles):
    rng = np.random.default_rng(1)
    points, centers, _, roots, _ = matrix_points(rng)
    left = np.arange(40)
    sq = direct_sq(centers, centers, roots).astype(float)
    np.fill_diagonal(sq, np.inf)
    queries = points.as_queries(centers)
    found = reduce_pairs(Nearest(k, 1e-4), queries, points, OPTIONS, leave_out=left)
    order = np.argsort(sq, axis=1)[:, :k]
    assert_array_equal(found[:, k:], order)
    smallest = reduce_pairs(KSmallest(k, 1e-4), queries, points, OPTIONS, leave_out=left)
    expected = np.take_along_axis(sq, order, 1) * points.scale**2
    assert_allclose(found[:, :k], expected, rtol=1e-12)
    assert_allclose(smallest, expected, rtol=1e-12)


# A density.


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_integral_is_one(setting):
    rng = np.random.default_rng(0)
    kde = make_kde(0.6, **setting).fit(curve(30, rng, 1))
    u = np.linspace(-0.5, 0.5, 4001)[1:-1]
    x, slope = 2.0 + 3.0 * np.tan(np.pi * u), 3.0 * np.pi / np.cos(np.pi * u) ** 2
    density = np.exp(kde.score_samples(x[:, None])) * slope
    assert_allclose(integrate.simpson(density, x=u), 1.0, rtol=1e-4)
    Y = curve(40, rng, 2)
    kde = make_kde(0.6, **setting).fit(Y)
    u = np.linspace(-0.5, 0.5, 401)[1:-1]
    t, slope = np.tan(np.pi * u), np.pi / np.cos(np.pi * u) ** 2
    unit = Y.std(axis=0)
    grid = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2) * unit
    density = np.exp(kde.score_samples(grid + Y.mean(axis=0)))
    density = density.reshape(399, 399) * np.outer(slope, slope) * unit.prod()
    total = integrate.simpson(integrate.simpson(density, x=u), x=u)
    assert_allclose(total, 1.0, rtol=2e-3)


@pytest.mark.parametrize("setting", SETTINGS[1:3], ids=str)
def test_integral_is_one_in_five_dimensions(setting):
    rng = np.random.default_rng(0)
    Y = curve(60, rng, 5)
    kde = make_kde(0.8, **setting).fit(Y)
    mean, covariance = Y.mean(axis=0), np.cov(Y.T)
    proposal = stats.multivariate_t(mean, 1.5 * covariance, df=3, seed=rng)
    X = proposal.rvs(40_000)
    ratio = np.exp(kde.score_samples(X) - proposal.logpdf(X))
    error = ratio.std() / np.sqrt(len(X))
    assert error < 0.03
    assert abs(ratio.mean() - 1.0) < 4.0 * error


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_samples_have_the_moments_of_the_density(setting, weighted):
    setting = setting | (
        {"degrees_of_freedom": 9.0} if "degrees_of_freedom" in setting else {}
    )
    rng = np.random.default_rng(0)
    Y = curve(60, rng)
    w = rng.uniform(0.1, 2.0, 60) if weighted else None
    kde = make_kde(0.7, **setting).fit(Y, sample_weight=w)
    oracle = Oracle(Y, 20, 0.3, 0.7, w, **setting)
    mean, covariance = oracle.moments()
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    Z = (kde.sample(40_000, random_state=0) - mean) @ root.T
    assert_allclose(Z.mean(axis=0), 0.0, atol=0.03)
    assert_allclose(np.cov(Z.T), np.eye(3), atol=0.05)
    # and its shape: the mean log density is that of an equal number of fresh samples
    X = kde.sample(4000, random_state=1)
    logs = oracle.log_density(X[:300]) - kde.score_samples(X[:300])
    assert_allclose(logs, 0.0, atol=1e-8)


# Weights and duplicates.


@pytest.mark.parametrize("setting", SETTINGS[1:3], ids=str)
def test_weights_are_repetitions(setting):
    rng = np.random.default_rng(0)
    Y, X = curve(50, rng), curve(8, rng)
    w = rng.integers(1, 4, 50)
    kde = make_kde(**setting).fit(Y, sample_weight=w)
    repeated = make_kde(**setting).fit(np.repeat(Y, w, axis=0))
    assert_allclose(repeated.score_samples(X), kde.score_samples(X), atol=1e-9)
    assert_allclose(
        repeated.log_density_gradient(X),
        kde.log_density_gradient(X),
        rtol=1e-7,
        atol=1e-9,
    )
    without = make_kde(**setting).fit(np.vstack([Y, X]), sample_weight=[*w, *[0.0] * 8])
    assert_allclose(without.score_samples(X), kde.score_samples(X), atol=1e-12)


def test_many_duplicates_do_no_harm():
    rng = np.random.default_rng(0)
    Y = rng.integers(0, 3, (200, 3)).astype(float)
    kde = make_kde().fit(Y)
    assert np.isfinite(kde.score_samples(None)).all()
    two = make_kde().fit([[0.0, 1.0], [0.0, 1.0], [2.0, 0.5]])
    assert np.isfinite(two.score_samples([[1.0, 1.0]])).all()


# Units, dtypes, far queries.


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_units_do_not_matter(setting):
    rng = np.random.default_rng(0)
    Y, X = curve(50, rng), curve(20, rng)
    kde = make_kde(**setting).fit(Y)
    logs, gradient = kde.score_samples(X), kde.log_density_gradient(X)
    for powers in ([40, 40, 40], [-60, -60, -60], [30, -20, 0]):
        unit = 2.0 ** np.array(powers)
        other = make_kde(**setting).fit(Y * unit)
        log_unit = np.sum(powers) * np.log(2.0)
        assert_allclose(other.score_samples(X * unit), logs - log_unit, rtol=1e-12)
        assert_allclose(other.log_density_gradient(X * unit) * unit, gradient, rtol=1e-9)


def test_order_origin_and_total_weight_do_not_matter():
    rng = np.random.default_rng(0)
    Y, X, w = curve(50, rng), curve(20, rng), rng.uniform(0.1, 2.0, 50)
    logs = make_kde().fit(Y, sample_weight=w).score_samples(X)
    order = rng.permutation(50)
    other = make_kde().fit(Y[order] + 1024.0, sample_weight=8.0 * w[order])
    assert_allclose(other.score_samples(X + 1024.0), logs, atol=1e-9)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("reach", [1e3, 1e8, 1e100])
def test_far_queries(setting, reach):
    rng = np.random.default_rng(0)
    Y = curve(40, rng)
    X = reach * rng.standard_normal((6, 3))
    kde, oracle = make_kde(**setting).fit(Y), Oracle(Y, 20, 0.3, 0.45, **setting)
    assert_allclose(kde.score_samples(X), oracle.log_density(X), rtol=1e-11)
    expected = oracle.gradient(X)
    tiny = 1e-10 * np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(kde.log_density_gradient(X) - expected) <= tiny).all()
    found = kde.diagnose(X)
    assert_array_equal(found.log_density, kde.score_samples(X))


def test_queries_beyond_the_range_of_squares():
    Y = curve(40, np.random.default_rng(0))
    X = np.array([[1.0, -2.0, 0.5]])
    kde = make_kde(kernel="student", degrees_of_freedom=4.0).fit(Y)
    far, farther = kde.score_samples(np.vstack([1e120 * X, 1e250 * X]))
    assert_allclose(far - farther, 7.0 * 130.0 * np.log(10.0), rtol=1e-9)
    kde = make_kde().fit(Y)
    assert_array_equal(kde.score_samples(1e200 * X), -np.inf)
    assert np.isfinite(kde.log_density_gradient(1e200 * X)).all()


def test_float32():
    rng = np.random.default_rng(0)
    Y, X = curve(60, rng).astype(np.float32), curve(9, rng).astype(np.float32)
    kde = make_kde().fit(Y)
    oracle = Oracle(Y, 20, 0.3, 0.45, kernel="gaussian")
    for result, expected in (
        (kde.score_samples(X), oracle.log_density(X)),
        (kde.score_samples(None), oracle.log_density(Y, leave_out=True)),
        (kde.diagnose(X).log_density, oracle.log_density(X)),
        (kde.log_density_gradient(X), oracle.gradient(X)),
    ):
        assert result.dtype == np.float32
        assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
    assert kde.sample(3).dtype == np.float32


def pairs_of_clusters(rng):
    return np.repeat([[0.0], [5.0]], 30, axis=0) + 1e-4 * rng.standard_normal((60, 3))


def with_outlier(rng):
    Y = curve(60, rng)
    Y[0] *= 1e4
    return Y


def collinear(rng):
    Y = rng.standard_normal((60, 6)) @ rng.standard_normal((6, 6))
    Y[:, 0] = Y[:, 1:].sum(axis=1)
    return Y


HARD = [
    pairs_of_clusters,
    with_outlier,
    collinear,
    lambda rng: 1e6 + curve(60, rng),
    lambda rng: rng.standard_t(1.2, size=(60, 3)),
]


@pytest.mark.parametrize("make", HARD)
@pytest.mark.parametrize("h", [0.02, 1.0])
@pytest.mark.filterwarnings("ignore:X has .* in row 0:UserWarning")
def test_precision_on_hard_data(make, h):
    Y = make(np.random.default_rng(0))
    X = Y + 0.01 * Y.std(axis=0)
    for setting in (SETTINGS[0], SETTINGS[2]):
        kde, k = make_kde(h, **setting).fit(Y), default_k(*Y.shape)
        expected = Oracle(Y, k, 0.3, h, **setting).log_density(X)
        assert_allclose(kde.score_samples(X), expected, rtol=1e-11, atol=1e-9)


# The search.


@pytest.mark.parametrize("preserve", [False, True])
def test_search_on_a_curve(preserve):
    rng = np.random.default_rng(0)
    Y, X = curve(150, rng), curve(400, rng)
    options = {"preserve_variance": preserve, "random_state": 0}
    kde = HighDimKernelDensity(covariance_type="neighborhood", **options).fit(Y)
    full = HighDimKernelDensity(covariance_type="full", **options).fit(Y)
    assert kde.covariance_type_ == "neighborhood"
    assert kde.score_samples(X).mean() > full.score_samples(X).mean() + 0.3
    candidates = kde.bandwidth_search_.candidates
    best = kde.bandwidth_search_.to_frame().loc[0]
    spec, seen = best.neighborhood, {c.neighborhood for c in candidates}
    # all numbers of neighbours, and all shares for the one that leads
    assert seen > set(neighborhood_ladder(150, 3))
    assert {s.shrinkage for s in seen if s.n_neighbors == spec.n_neighbors} == {
        0.1,
        0.3,
        0.6,
    }
    setting = {"kernel": "gaussian", "preserve_variance": preserve}
    oracle = Oracle(Y, spec.n_neighbors, spec.shrinkage, kde.bandwidth_, **setting)
    assert_allclose(kde.score_samples(X[:20]), oracle.log_density(X[:20]), atol=1e-8)
    # what the search promises is near what fresh points get, and held-out ones
    fresh = kde.score_samples(X)
    assert_allclose(best.mean_log_density, fresh.mean(), atol=0.35)
    held_out = kde.held_out_log_density_
    assert_allclose(held_out.mean(), fresh.mean(), atol=0.35)
    assert held_out.mean() < kde.score_samples(None).mean()


def test_search_means_are_those_of_fits_to_the_other_points():
    """By the oracle, fold by fold, at the bandwidth that was chosen."""
    Y = curve(60, np.random.default_rng(0))
    kde = HighDimKernelDensity(
        covariance_type="neighborhood",
        kernel="student",
        degrees_of_freedom=5.0,
        preserve_variance=True,
        random_state=0,
    ).fit(Y)
    best = kde.bandwidth_search_.to_frame().loc[0]
    setting = SETTINGS[3] | {"degrees_of_freedom": 5.0}
    folds = Folds(Y, None, seed_from(0), np.arange(60), 0, OPTIONS)
    total = []
    for queries in folds.queries:
        others = np.setdiff1d(np.arange(60), queries)
        spec = best.neighborhood
        k = min(spec.n_neighbors, len(others) - 1)
        oracle = Oracle(Y[others], k, spec.shrinkage, best.bandwidth, **setting)
        total.append(oracle.log_density(Y[queries]))
    assert_allclose(np.concatenate(total).mean(), best.mean_log_density, atol=5e-3)


# Features that do not vary, or on a lattice; what else works.


def test_constant_features():
    Y = curve(60, np.random.default_rng(0))
    Y = np.insert(Y, 1, 7.0, axis=1)
    kde = HighDimKernelDensity(covariance_type="neighborhood", random_state=0)
    with pytest.warns(UserWarning, match="constant feature"):
        kde.fit(Y)
    other = make_kde(kde.bandwidth_)
    with pytest.warns(UserWarning, match="constant feature"):
        other.fit(Y)
    assert_array_equal(kde.constant_features_, [1])
    assert np.isfinite(other.score_samples(None)).all()
    moved = Y[:5] + np.array([0.0, 1.0, 0.0, 0.0])
    assert (other.score_samples(moved) < other.score_samples(Y[:5])).all()
    assert other.log_density_gradient(moved).shape == (5, 4)
    assert np.isfinite(other.held_out_log_density_).all()


def test_feature_that_is_constant_outside_of_a_fold():
    """It has the variance of a standardised feature there, as with "diag"."""
    rng = np.random.default_rng(0)
    Y = np.column_stack([rng.standard_normal((60, 2)), np.zeros(60)])
    Y[7, 2] = 1.0
    logs = {
        kind: HighDimKernelDensity(covariance_type=kind, bandwidth=0.7, random_state=0)
        .fit(Y)
        .held_out_log_density_[7]
        for kind in ("diag", "neighborhood")
    }
    assert abs(logs["diag"] - logs["neighborhood"]) < 20.0


def test_discrete_features():
    rng = np.random.default_rng(0)
    Y = np.column_stack([rng.standard_normal((90, 2)), rng.integers(0, 6, 90)])
    kde = make_kde(0.6, discrete_features=[2], random_state=0).fit(Y)
    assert np.isfinite(kde.score_samples(None)).all()
    assert np.isin(kde.sample(200, random_state=0)[:, 2], np.arange(-5, 12)).all()
    with pytest.warns(UserWarning, match="are discrete"):
        make_kde(0.2).fit(Y)


def test_pickle_and_displays():
    Y = curve(40, np.random.default_rng(0))
    kde = make_kde().fit(Y)
    loaded = pickle.loads(pickle.dumps(kde))
    assert_array_equal(loaded.score_samples(None), kde.score_samples(None))
    size = len(pickle.dumps(kde))
    assert size < 8 * (40 * 9 + 10 * 40 * 3) + 20_000  # one copy of the matrices
    display = BandwidthDisplay.from_estimator(kde)
    at = np.argmin(np.abs(display.bandwidths - 0.45))
    assert abs(display.values[at] - kde.score_samples(None).mean()) < 1.0
    RegimeDisplay.from_estimator(kde)


@parametrize_with_checks([make_kde(0.7)])
@pytest.mark.filterwarnings("ignore:.*are discrete:UserWarning")
@pytest.mark.filterwarnings("ignore:.*constant feature:UserWarning")
def test_scikit_learn_checks(estimator, check):
    if "cuda" in str(check) and not has_cuda():
        pytest.skip("no CUDA GPU that torch can use")
    check(estimator)


# What is refused.


@pytest.mark.parametrize("shape", [(50, 41), (83_900, 40)])
def test_too_many_matrices(shape):
    Y = np.random.default_rng(0).random(shape)
    with pytest.raises(ValueError, match=r"GiB.*'local'.*'auto'"):
        make_kde().fit(Y)


@pytest.mark.parametrize(
    "options, said",
    [
        (
            {"kernel": "exponential"},
            "'neighborhood' needs kernel 'gaussian' or 'student'",
        ),
        ({"kernel": "tophat"}, "zero beyond"),
        ({"adaptive": True}, "needs adaptive=False"),
        ({"algorithm": "neighbors"}, "needs algorithm='exact'"),
        ({"algorithm": "sampling"}, "needs algorithm='exact'"),
        ({"bandwidth": "scott"}, "is for kernels of one covariance"),
        (
            {
                "bandwidth": 0.9,
                "preserve_variance": True,
                "kernel": "student",
                "degrees_of_freedom": 4.0,
            },
            "must be at most",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_with_it(options, said):
    kde = HighDimKernelDensity(covariance_type="neighborhood").set_params(**options)
    with pytest.raises(ValueError, match=said):
        kde.fit(curve(30, np.random.default_rng(0)))


def test_not_on_a_cluster():
    array = pytest.importorskip("dask.array")
    kde = DaskHighDimKernelDensity(covariance_type="neighborhood")
    with pytest.raises(ValueError, match=r"^covariance_type must be .* on a cluster"):
        kde.fit(
            array.from_array(np.random.default_rng(0).random((30, 2)), chunks=(10, 2))
        )
