"""Clusters whose covariances are shrunk to the one within clusters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import wishart
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf
from structured_oracle import Oracle

from skhdkde import HighDimKernelDensity
from skhdkde._density import (
    PooledSpec,
    Structure,
    standardizing,
    structured_density,
    whiten_components,
)
from skhdkde._kernels import make_kernel
from skhdkde._pairwise import ComputeOptions
from skhdkde._utils.moments import Moments

pytestmark = pytest.mark.filterwarnings("error")
OPTIONS = ComputeOptions()
QUERIES = np.random.default_rng(9).normal(scale=4.0, size=(12, 3))


def clustered(n=60, seed=0):
    """Four clusters in other units, and one point far from all."""
    rng = np.random.default_rng(seed)
    shape = np.array([[1.0, 0.8, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 0.2]])
    centers = 5.0 * rng.normal(size=(4, 3))
    X = centers[rng.integers(4, size=n)] + rng.normal(size=(n, 3)) @ shape
    X[7] = 40.0
    return X * [1.0, 10.0, 0.1]


def components_of(X, k, weights=None, preserve=False, fallback=None):
    structure = Structure("local", preserve, mixture=PooledSpec(k))
    return structure, whiten_components(
        X, weights, structure, 0, OPTIONS, fallback=fallback
    )


def log_density(X, queries, k, weights=None, kernel="gaussian", h=0.6, preserve=False):
    structure, components = components_of(X, k, weights, preserve)
    of_points = make_kernel(kernel, X.shape[1], 5.0)
    density = structured_density(X, components, structure, of_points, h)
    return density.log_density(queries, OPTIONS)


def oracle(X, k, h=0.6, preserve=False, **options):
    """Means and covariances of the clusters, in data units."""
    d, deviation = X.shape[1], X.std(axis=0)
    Z = (X - X.mean(axis=0)) / deviation
    labels = KMeans(k, n_init=1, random_state=0).fit(Z).labels_
    means = {c: X[labels == c].mean(axis=0) for c in np.unique(labels)}
    within = np.array([x - means[c] for x, c in zip(X, labels, strict=True)]) / deviation
    pooled = LedoitWolf(assume_centered=True).fit(within).covariance_
    covariances = {}
    for c in means:
        own, size = within[labels == c], np.sum(labels == c)
        covariance = sum(np.outer(z, z) for z in own) / size
        mixed = (size * covariance + 2 * d * pooled) / (size + 2 * d)
        covariances[c] = mixed * np.outer(deviation, deviation)
    variance = 5.0 / 3.0 if options.get("kernel") == "student" else 1.0
    shrinkage = np.sqrt(1.0 - h**2 * variance) if preserve else 1.0
    return Oracle(X, labels, means, covariances, h, shrinkage, **options)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("kernel", ["gaussian", "student"])
def test_log_density(k, preserve, kernel):
    X = clustered()
    expected = oracle(X, k, preserve=preserve, kernel=kernel, nu=5.0)
    sizes = np.unique(expected.labels, return_counts=True)[1]
    assert k < 5 or min(sizes) == 1  # the far point is a cluster
    queries = np.vstack([QUERIES * [1.0, 10.0, 0.1], X[5:8]])
    found = log_density(X, queries, k, kernel=kernel, preserve=preserve)
    assert_allclose(found, expected.log_density(queries), rtol=1e-9, atol=1e-9)


def test_weights_are_repetitions():
    X, weights = clustered(), np.random.default_rng(1).integers(1, 4, size=60)
    found = log_density(X, QUERIES, 4, weights=weights / weights.max())
    repeated = log_density(np.repeat(X, weights, axis=0), QUERIES, 4)
    assert_allclose(found, repeated, rtol=1e-9)
    assert abs(found - log_density(X, QUERIES, 4)).max() > 0.1


def test_any_weights():
    """That are no multiples of each other: about in proportion."""
    X, weights = clustered(400), np.random.default_rng(1).uniform(0.2, 1.0, 400)
    X[7] = X[8]
    X[7, 0] += 0.1
    found = log_density(X, X[:50], 4, weights=weights)
    repeated = log_density(np.repeat(X, np.rint(20 * weights).astype(int), axis=0), X, 4)
    assert_allclose(found, repeated[:50], atol=0.5)


@pytest.mark.parametrize("copies", [[20, 20, 20], [58, 1, 1]])
@pytest.mark.parametrize("k", [2, 3, 8])
def test_duplicates(copies, k):
    """There are at most as many clusters as distinct points; each has a covariance."""
    distinct = clustered()[:3]
    X = np.repeat(distinct, copies, axis=0)
    _, components = components_of(X, k)
    assert len(components) == min(k, 3)
    assert_array_equal(
        np.sort(np.concatenate([c.rows for c in components])), np.arange(60)
    )
    found = log_density(X, X, k)
    assert np.isfinite(found).all()
    if copies[0] == 58:
        assert found[0] > found[-1]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fewer_points_than_clusters(n):
    """A point each, with the variances of all of them."""
    X = clustered()[:n]
    _, components = components_of(X, 8)
    assert len(components) == n
    deviation = X.std(axis=0)
    labels, means = np.arange(n), dict(enumerate(X))
    share = 6.0 / 7.0  # of the common covariance, beside one point's own: 2 d / (2 d + 1)
    covariances = dict.fromkeys(range(n), share * np.diag(deviation**2))
    expected = Oracle(X, labels, means, covariances, 0.6, 1.0).log_density(X)
    assert_allclose(log_density(X, X, 8), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 4])
def test_feature_that_is_constant_outside_of_a_fold(k):
    """It has the scale that it has in all points, and no part in the others' shape."""
    X = clustered()
    X[:, 1] = 3.0
    everything = X.copy()
    everything[:5, 1] = [1.0, 2.0, 3.0, 4.0, 5.0]
    fallback = standardizing(Moments.of(everything, None))
    _, components = components_of(X, k, fallback=fallback)
    _, without = components_of(np.delete(X, 1, axis=1), k)
    scale = 1.0 / everything[:, 1].std()
    assert len(components) == len(without)
    for component, other in zip(components, without, strict=True):
        linear = component.whitening.linear
        assert_allclose(linear[1, 1], scale)
        assert_array_equal(linear[1, [0, 2]], 0.0)
        assert_array_equal(linear[[0, 2], 1], 0.0)
        assert_array_equal(component.rows, other.rows)
        precision, expected = linear @ linear.T, other.whitening.linear
        # of other shrinkage, since that is for as many features as there are
        ratio = precision[np.ix_([0, 2], [0, 2])] / (expected @ expected.T)
        assert 0.3 < ratio.min() <= ratio.max() < 3.0


@pytest.mark.filterwarnings("ignore:.*features? of X (is|are) discrete:UserWarning")
def test_rare_value_in_a_search():
    """Two rows decide a feature, and some fold has neither or both of them."""
    X = np.random.default_rng(0).normal(size=(120, 3))
    X[:, 2] = 0.0
    X[:2, 2] = [1.0, 2.5]
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    pooled = [c for c in kde.bandwidth_search_.candidates if is_pooled(c)]
    assert pooled
    assert all(np.isfinite(c.mean_log_density) for c in pooled)


def is_pooled(candidate):
    return isinstance(candidate.mixture, PooledSpec)


def test_float32():
    X = clustered().astype(np.float32)
    _, components = components_of(X, 4)
    assert {c.Z.dtype for c in components} == {np.dtype(np.float32)}
    queries = QUERIES.astype(np.float32)
    expected = oracle(X.astype(float), 4).log_density(queries)
    assert_allclose(log_density(X, queries, 4), expected, rtol=2e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e9])
def test_units_and_origin(unit):
    """Change the log density by the log of their product."""
    X, units = clustered(), np.array([unit, 1.0, 1000.0])
    queries = X[:20] + 0.01
    found = log_density(X * units + units, queries * units + units, 5)
    expected = log_density(X, queries, 5) - np.log(units).sum()
    assert_allclose(found, expected, rtol=1e-7)


def test_gain_on_many_clusters_of_one_shape():
    """Too few points for a covariance of each, and the wrong shape without any."""
    d, k, n = 10, 8, 150
    assert n < 2 * k * d
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(wishart(d + 1, np.eye(d) / d).rvs(random_state=0))
    centers = 4.0 * rng.normal(size=(k, d))

    def draw(n):
        return centers[rng.integers(k, size=n)] + rng.normal(size=(n, d)) @ root.T

    X, fresh = draw(n), draw(1000)
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    best = kde.bandwidth_search_.to_frame().loc[0]
    assert best.mixture == PooledSpec(k)
    assert repr(best.mixture) == "PooledCovariances(8)"
    others = [c for c in kde.bandwidth_search_.candidates if not is_pooled(c)]
    assert best.mean_log_density > max(c.mean_log_density for c in others) + 1.0
    score = kde.score_samples(fresh).mean()
    assert score == pytest.approx(best.mean_log_density, abs=1.0)
    for covariance_type in ("spherical", "diag", "full"):
        other = HighDimKernelDensity(
            covariance_type=covariance_type, preserve_variance=True, random_state=0
        )
        assert score > other.fit(X).score_samples(fresh).mean() + 2.0
    sample = kde.sample(2000, random_state=0)
    assert_allclose(np.cov(sample.T), np.cov(X.T), atol=0.15 * np.cov(X.T).max())
