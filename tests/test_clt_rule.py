"""The bandwidth at which error bars of textbooks hold: for ranking."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist
from scipy.special import gammaincinv, logsumexp
from scipy.stats import spearmanr

from skhdkde import HighDimKernelDensity, select_bandwidth


@pytest.mark.parametrize("d", [20, 50])
def test_ranks_of_normal_data(d):
    rng = np.random.default_rng(0)
    X, queries = rng.standard_normal((1500, d)), rng.standard_normal((1000, d))
    for Z, points in ((queries, queries), (X, None)):
        truth = -np.sum(Z**2, axis=1)
        ranks = {}
        for rule in ("kl", "clt"):
            kde = HighDimKernelDensity(bandwidth=rule).fit(X)
            ranks[rule] = spearmanr(kde.score_samples(points), truth).statistic
        assert ranks["clt"] > 0.99
        assert ranks["kl"] < 0.95


@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
def test_textbook_error_bars_hold_from_there_on(kernel):
    """Against the spread over fresh data sets, by sums of this test's own."""
    rng = np.random.default_rng(0)
    n, d, n_sets = 500, 30, 60
    X, queries = rng.standard_normal((n, d)), rng.standard_normal((100, d))
    h = select_bandwidth(X, rule="clt", kernel=kernel)
    ratios = []
    for bandwidth in (h, h / (2.0 if kernel == "gaussian" else 4.0)):  # tail index 0.5
        logs, stated = [], []
        for seed in range(n_sets):
            fresh = np.random.default_rng(1 + seed).standard_normal((n, d))
            r = cdist(queries, fresh) / bandwidth
            terms = -0.5 * r**2 if kernel == "gaussian" else -r
            logs.append(logsumexp(terms, axis=1))
            shares = np.exp(terms - logs[-1][:, None])
            stated.append(np.sqrt(np.sum(shares**2, axis=1) - 1.0 / n))
        true = np.std(logs, axis=0, ddof=1)
        ratios.append(np.median(np.mean(stated, axis=0) / true))
    assert 0.8 < ratios[0] < 1.1
    assert ratios[1] < 0.6


def test_tail_index_is_two_at_95_percent():
    """The squared distances of N(0, I) to a point at radius r are known."""
    rng = np.random.default_rng(0)
    n, d = 3000, 4
    X = rng.standard_normal((n, d))
    # around the mean: Lambda(E) = n P(chi2_d < E), where Lambda = 1 is expected
    E = 2.0 * gammaincinv(d / 2, 1.0 / n)
    inner, outer = (2.0 * gammaincinv(d / 2, c / n) for c in (0.99, 1.01))
    slope = 2.0 * np.log(1.01 / 0.99) / np.log(outer / inner)
    h_clt = np.sqrt(2.0 * E / slope)
    kde = HighDimKernelDensity(bandwidth=0.3).fit(X)
    center = kde.diagnose(np.zeros((1, d)))
    assert_allclose(center.h_clt, h_clt, rtol=0.35)
    found = HighDimKernelDensity(bandwidth="clt").fit(X)
    assert found.bandwidth_ > 2.0 * h_clt  # most points are farther out
    in_clt = found.diagnose().tail_index >= 2.0
    assert 0.949 <= np.mean(in_clt) <= 0.951


@pytest.mark.parametrize("kernel", ["tophat", "epanechnikov", "linear", "cosine"])
def test_compact_kernels_reach_30_others(kernel):
    X = np.random.default_rng(0).standard_normal((300, 10))
    distances = np.sort(cdist(X, X), axis=1)[:, 30]
    expected = np.quantile(distances, 0.95, method="inverted_cdf")
    found = select_bandwidth(X, rule="clt", kernel=kernel)
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("support", ["euclidean", "sphere"])
def test_regimes_at_the_bandwidth(support, dtype):
    X = np.random.default_rng(0).standard_normal((400, 25))
    if support == "sphere":
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    X = X.astype(dtype)
    kde = HighDimKernelDensity(bandwidth="clt", support=support).fit(X)
    assert kde.diagnose().shares["clt"] == pytest.approx(0.95, abs=0.01)
    function = select_bandwidth(X, rule="clt", support=support)
    assert kde.bandwidth_ == pytest.approx(function)
    assert kde.bandwidth_search_ is None


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_units_do_not_matter_in_whitened_units(covariance_type):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 8)) @ rng.standard_normal((8, 8))
    one, other = (
        HighDimKernelDensity(bandwidth="clt", covariance_type=covariance_type).fit(Z)
        for Z in (X, X * np.geomspace(1e-3, 1e3, 8))
    )
    assert one.bandwidth_ == pytest.approx(other.bandwidth_, rel=1e-6)
    assert one.diagnose().shares["clt"] == pytest.approx(0.95, abs=0.03)


def test_weights_decide_which_points_count():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.standard_normal((200, 5)), 10.0 * rng.standard_normal((200, 5))])
    weights = np.repeat([1.0, 1e-3], 200)
    even, uneven = (
        select_bandwidth(X, rule="clt", sample_weight=w) for w in (None, weights)
    )
    assert uneven < 0.5 * even
    dropped = select_bandwidth(X, rule="clt", sample_weight=np.repeat([1.0, 0.0], 200))
    assert dropped == pytest.approx(select_bandwidth(X[:200], rule="clt"))


@pytest.mark.parametrize(
    "n, kernel, words",
    [
        (2, "gaussian", "at least 3 distinct points.*got 2"),
        (30, "tophat", "at least 31 distinct points.*kernel='tophat'; got 30"),
    ],
)
def test_too_few_points(n, kernel, words):
    X = np.random.default_rng(0).standard_normal((n + 1, 3))
    with pytest.raises(ValueError, match=f"bandwidth='clt' needs {words}"):
        HighDimKernelDensity(bandwidth="clt", kernel=kernel).fit(X[:n])
    assert HighDimKernelDensity(bandwidth="clt", kernel=kernel).fit(X).bandwidth_ > 0.0


@pytest.mark.parametrize(
    "parameters",
    [
        {"covariance_type": "local"},
        {"covariance_type": "auto"},
        {"preserve_variance": True},
        {"adaptive": True},
        {"kernel": "student", "degrees_of_freedom": 5.0},
    ],
)
def test_where_it_is_not_defined(parameters):
    X = np.random.default_rng(0).standard_normal((50, 3))
    with pytest.raises(ValueError, match="'clt'"):
        HighDimKernelDensity(bandwidth="clt", **parameters).fit(X)
