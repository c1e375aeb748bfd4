"""Bandwidth rules and the search."""

import re
import warnings

import numpy as np
import oracles
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._selection import curve
from skhdkde.regimes import gaussian_thresholds

RULES = ("kl", "nearest", "clt", "gaussian", "scott", "silverman")


def leave_one_out_mean(h, sq, d, kernel="gaussian", weights=None):
    """Mean leave-one-out log density from a full matrix of squared distances."""
    n = len(sq)
    w = np.ones(n) if weights is None else np.asarray(weights, float)
    with np.errstate(divide="ignore"):
        if kernel in ("gaussian", "exponential"):
            logs = sq * (-0.5 / h**2) if kernel == "gaussian" else -np.sqrt(sq) / h
        else:
            logs = np.log(
                oracles.profile(kernel, sq.astype(np.longdouble), h).astype(float)
            )
    logs = logs if weights is None else logs + np.log(w)
    np.fill_diagonal(logs, -np.inf)
    top = np.maximum(logs.max(axis=1), -1e300)  # where none is in reach
    with np.errstate(divide="ignore"):
        log_sums = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
    log_norm = oracles.log_normalizer(kernel, d) + d * np.log(h)
    each = log_sums - np.log(w.sum() - w) - log_norm
    return np.average(each, weights=w)


def best_bandwidth(X, kernel="gaussian", weights=None, around=1.0):
    sq = cdist(X.astype(float), X.astype(float), "sqeuclidean")
    d = X.shape[1]

    def loss(log_h):
        return -leave_one_out_mean(np.exp(log_h), sq, d, kernel, weights)

    grid = np.log(around) + np.linspace(-3.5, 3.5, 141)
    start = grid[np.argmin([loss(u) for u in grid])]
    bounds = (start - 0.1, start + 0.1)
    found = minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return np.exp(found.x)


def softmax_mean_square(X, h):
    """Right-hand side of the stationarity condition ``h^2 = ...`` for the Gaussian."""
    sq = cdist(X.astype(float), X.astype(float), "sqeuclidean")
    logs = -sq / (2 * h**2)
    np.fill_diagonal(logs, -np.inf)
    w = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return np.mean(np.sum(w * sq, axis=1)) / X.shape[1]


def clusters(rng):
    return np.vstack([c + 0.1 * rng.standard_normal((60, 4)) for c in range(5)])


DATA = {
    "normal-1": lambda rng: rng.standard_normal((400, 1)),
    "normal-2": lambda rng: rng.standard_normal((400, 2)),
    "normal-10": lambda rng: rng.standard_normal((400, 10)),
    "normal-50": lambda rng: 1e-3 * rng.standard_normal((400, 50)),
    "normal-200": lambda rng: 7 + rng.standard_normal((300, 200)),
    "clusters": clusters,
    "line": lambda rng: 1e4 * rng.random((400, 1)) * np.ones(20) + rng.random((400, 20)),
    "cauchy": lambda rng: rng.standard_t(1.5, size=(400, 3)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", DATA)
def test_kl_finds_the_optimum_to_a_thousandth(name, dtype):
    X = DATA[name](np.random.default_rng(0)).astype(dtype)
    h = select_bandwidth(X)
    assert h == pytest.approx(best_bandwidth(X, around=h), rel=1e-3)
    assert 0.5 * np.log(softmax_mean_square(X, h)) == pytest.approx(np.log(h), abs=1e-3)


@pytest.mark.parametrize("d", [1, 3, 30])
@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES[1:])
def test_kl_for_the_other_kernels(kernel, d):
    X = np.random.default_rng(0).standard_normal((120, d))
    h, search = select_bandwidth(X, kernel=kernel, return_search=True)
    sq = cdist(X, X, "sqeuclidean")
    mine = leave_one_out_mean(h, sq, d, kernel)
    grid = h * np.exp(
        np.concatenate([np.linspace(-3, 3, 61), np.linspace(-0.1, 0.1, 41)])
    )
    # the tophat's curve is ragged; its search stops at one of several equal peaks
    slack = 5e-3 if kernel == "tophat" else 2e-4
    assert mine >= max(leave_one_out_mean(g, sq, d, kernel) for g in grid) - slack
    assert search.mean_log_density.max() == pytest.approx(mine, abs=2e-2)
    if kernel == "exponential":
        assert h == pytest.approx(best_bandwidth(X, kernel, around=h), rel=1e-3)


@pytest.mark.parametrize(
    "kernel", ["gaussian", pytest.param("exponential", marks=pytest.mark.slow)]
)
def test_kl_in_few_dimensions(kernel):
    """A wide grid, zoomed: the grids of two passes share bandwidths up to rounding."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((200 + 10 * seed, 1 + seed % 3))
        h = select_bandwidth(X, kernel=kernel)
        assert h == pytest.approx(best_bandwidth(X, kernel, around=h), rel=1e-3)


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
@pytest.mark.parametrize("rule", RULES)
@examples(4)
@given(
    seed=st.integers(0, 10**6),
    size=st.floats(1e-3, 1e3),
    weighted=st.booleans(),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_data_may_be_rotated_shifted_and_scaled(
    rule, kernel, seed, size, weighted, dtype
):
    """Compact kernels to a thousandth, the tophat to hundredths of a nat.

    Its curve jumps at each distance, and has many maxima of about the same height.
    """
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 200)), int(rng.integers(2, 6))
    X = (rng.standard_normal((n, d)) * rng.uniform(0.2, 2.0, d)).astype(dtype)
    weights = rng.exponential(size=n) if weighted else None
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    moved = (size * (X @ rotation + rng.standard_normal(d))).astype(dtype)
    options = {"rule": rule, "kernel": kernel, "sample_weight": weights}
    options["return_search"] = True
    (before, first), (after, second) = (
        select_bandwidth(each, **options) for each in (X, moved)
    )
    if rule == "kl":
        best, expected = (s.mean_log_density.max() for s in (second, first))
        least = 0.03 if kernel == "tophat" else 1e-4
        assert best == pytest.approx(expected - d * np.log(size), abs=least)
    if rule != "kl" or kernel != "tophat":
        compact = rule == "kl" and kernel not in ("gaussian", "exponential")
        rel = 1e-6 if dtype == np.float64 and not compact else 1e-3
        assert after == pytest.approx(size * before, rel=rel)


def test_repr_of_the_search():
    X = np.random.default_rng(0).standard_normal((100, 10))
    search = HighDimKernelDensity().fit(X).bandwidth_search_
    assert repr(search).startswith(f"<BandwidthSearch: bandwidth={search.bandwidth:.6g}")


def test_kl_with_weights():
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal((300, 5)), rng.uniform(0.01, 5, size=300)
    h = select_bandwidth(X, sample_weight=weights)
    assert h == pytest.approx(best_bandwidth(X, weights=weights, around=h), rel=1e-3)


@pytest.mark.parametrize("rule", ["kl", "nearest"])
def test_duplicates_count_as_one_point_with_their_weight(rule):
    X = np.random.default_rng(0).standard_normal((200, 5))
    counts = np.random.default_rng(1).integers(1, 4, size=200)
    expected = select_bandwidth(X, rule=rule, sample_weight=counts)
    n_duplicates = counts.sum() - 200
    with pytest.warns(
        UserWarning, match=f"{n_duplicates} of the {counts.sum()} training"
    ):
        h = select_bandwidth(np.repeat(X, counts, axis=0), rule=rule)
    assert h == pytest.approx(expected, rel=1e-6)
    with pytest.warns(UserWarning, match="exact duplicates"):
        kde = HighDimKernelDensity(bandwidth=rule).fit(np.repeat(X, counts, axis=0))
    assert kde.bandwidth_ == pytest.approx(expected, rel=1e-6)
    if rule == "kl":
        assert kde.bandwidth_search_.n_copies == n_duplicates


def test_negative_zero_is_a_duplicate_of_zero():
    X = np.random.default_rng(0).standard_normal((50, 2))
    X[:2] = [[0.0, 1.0], [-0.0, 1.0]]
    with pytest.warns(UserWarning, match="1 of the 50"):
        select_bandwidth(X)


def test_no_warning_without_duplicates():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X = np.random.default_rng(0).integers(0, 2, size=(100, 64)).astype(float)
        select_bandwidth(X)


def passes(capsys, X, **parameters):
    """Return the search, and the number of pairs in each pass as progress bars say."""
    found = select_bandwidth(X, verbose=1, return_search=True, **parameters)
    bars = re.findall(r"bandwidth: 100%\|.*?\| ([^/]+)/\1 ", capsys.readouterr().err)
    return found, bars


def test_one_pass_in_high_dimension(capsys):
    """The pilot of 64 queries, then all 32 bandwidths at once."""
    X = np.random.default_rng(0).standard_normal((1000, 50))
    (_, search), bars = passes(capsys, X)
    assert bars == ["64.0k", "1.00M"]
    assert len(search.bandwidths) == 32


def test_queries_are_a_random_subset_of_large_data(capsys):
    X = np.random.default_rng(0).standard_normal((5000, 20))
    (h, search), bars = passes(capsys, X, random_state=0)
    assert search.n_queries == 4096
    assert bars[-1] == "20.5M"  # 4096 times 5000
    kde = HighDimKernelDensity(random_state=0).fit(X)
    assert kde.bandwidth_ == h
    fewer = select_bandwidth(X, n_queries=500, random_state=0)
    assert fewer != h
    assert fewer == pytest.approx(h, rel=0.02)
    assert select_bandwidth(X, n_queries=500, random_state=0) == fewer


def test_the_curve():
    X = np.random.default_rng(0).standard_normal((300, 10))
    kde = HighDimKernelDensity().fit(X)
    search = kde.bandwidth_search_
    assert search.bandwidth == kde.bandwidth_
    assert (np.diff(search.bandwidths) > 0).all()
    sq = cdist(X, X, "sqeuclidean")
    for g in (0, 11, 20, 31):
        h = search.bandwidths[g]
        expected = leave_one_out_mean(h, sq, 10)
        assert search.mean_log_density[g] == pytest.approx(expected, abs=1e-6)
        each = HighDimKernelDensity(bandwidth=h).fit(X).score_samples(None)
        expected = each.std() / np.sqrt(300)
        assert search.standard_error[g] == pytest.approx(expected, rel=1e-6)
    assert search.n_out_of_reach.sum() == 0
    assert search.n_queries == 300


def test_out_of_reach_of_compact_kernels():
    """An outlier makes small bandwidths -inf; the best reaches it."""
    X = np.random.default_rng(0).standard_normal((300, 2))
    X[0] = 60.0
    h, search = select_bandwidth(X, kernel="epanechnikov", return_search=True)
    nearest = np.sqrt(cdist(X, X, "sqeuclidean") + 1e9 * np.eye(300)).min(axis=1)
    assert h > nearest.max()
    assert np.isfinite(search.mean_log_density.max())
    for g, bandwidth in enumerate(search.bandwidths):
        # the first is the distance of one of the points, up to rounding
        low, high = (np.sum(nearest >= bandwidth * (1.0 + s * 1e-9)) for s in (1, -1))
        assert low <= search.n_out_of_reach[g] <= high
    none = search.n_out_of_reach == 0
    assert (np.isfinite(search.mean_log_density) == none).all()
    assert np.isfinite(search.standard_error[none]).all()


def test_a_grid_of_ones_own():
    X = np.random.default_rng(0).standard_normal((300, 10))
    grid = [0.5, 0.7, 0.6, 0.8]
    h, search = select_bandwidth(X, bandwidths=grid, return_search=True)
    assert_allclose(search.bandwidths, sorted(grid))
    assert h == pytest.approx(select_bandwidth(X), rel=0.02)
    fine = np.geomspace(0.5, 1.0, 20)
    assert select_bandwidth(X, bandwidths=fine) == pytest.approx(
        select_bandwidth(X), rel=1e-3
    )
    with pytest.warns(UserWarning, match="bandwidth 0.4, at an end of the 2 tried"):
        assert select_bandwidth(X, bandwidths=[0.3, 0.4]) == pytest.approx(0.4)
    assert select_bandwidth(X, bandwidths=7) == pytest.approx(
        select_bandwidth(X), rel=1e-3
    )
    with pytest.raises(
        ValueError, match=r"bandwidths up to 0\.03 leave at least 300 of 300"
    ):
        select_bandwidth(X, kernel="tophat", bandwidths=[0.01, 0.02, 0.03])


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_rules_scale_with_the_data(rule, kernel):
    X = np.random.default_rng(0).standard_normal((200, 6))
    h = select_bandwidth(X, rule=rule, kernel=kernel)
    moved = select_bandwidth(X * 1e3 - 5e3, rule=rule, kernel=kernel)
    assert moved == pytest.approx(h * 1e3, rel=2e-3 if rule == "kl" else 1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("unit", [1e-200, 1e-160, 1e160, 1e200])
def test_rules_in_extreme_units(rule, unit):
    X = np.random.default_rng(0).standard_normal((200, 3))
    expected = select_bandwidth(X, rule=rule)
    assert select_bandwidth(unit * X, rule=rule) == pytest.approx(
        unit * expected, rel=1e-3
    )


def test_compact_kernels_leave_no_point_out_of_reach():
    """At the bandwidth found, by exact distances, not those of the search."""
    for seed in range(40):
        X = np.random.default_rng(seed).standard_normal((20, 20))
        for kernel in ("tophat", "linear"):
            kde = HighDimKernelDensity(kernel=kernel).fit(X)
            assert np.isfinite(kde.score_samples(None)).all()


@pytest.mark.parametrize("kernel", ["tophat", "linear", "gaussian"])
def test_near_duplicates(kernel):
    """Groups nearer than the products' error: the optimum is their distance.

    They are too many in a group to be taken for duplicates.
    """
    rng = np.random.default_rng(2)
    X = np.repeat(np.arange(4.0)[:, None], 9, axis=0)
    X += 1e-9 * rng.random(X.shape)
    h = select_bandwidth(X, kernel=kernel)
    assert 1e-10 < h < 1e-8
    kde = HighDimKernelDensity(kernel=kernel, bandwidth=h).fit(X)
    assert np.isfinite(kde.score_samples(None)).all()


@pytest.mark.parametrize(
    "X, weights, expected",
    [
        (
            [-5.50872444, 23.43537684, 260.45444605, 260.45444845],
            [9.8e-6, 31, 4e5, 4e-3],
            237,
        ),
        ([0, 1, 1000, 1001.5], [1, 1e-6, 1e6, 1e-3], 999.08),
    ],
)
def test_weights_of_many_orders(X, weights, expected):
    h = select_bandwidth(np.transpose([X]), sample_weight=weights)
    assert h == pytest.approx(expected, rel=1e-3)
    h = select_bandwidth([[0.0], [1.0]], sample_weight=[1.0, 1e-20])
    assert h == pytest.approx(1.0, rel=1e-3)
    h = select_bandwidth([[0.0], [1.0]], rule="scott", sample_weight=[1.0, 1e-20])
    assert h == pytest.approx(1e-10, rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*far from all others:UserWarning")
def test_an_outlier_among_the_pilots():
    """The mean nearest distance of the pilot is far above that of all points.

    At each of 40 places: each has one chance in six to be of the pilot.
    """
    X = np.random.default_rng(0).standard_normal((400, 5))
    X[0] = 1e4
    expected = best_bandwidth(X, around=select_bandwidth(X))
    for place in range(0, 400, 10):
        h = select_bandwidth(np.roll(X, place, axis=0))
        assert h == pytest.approx(expected, rel=1e-3)


def test_normal_reference_rules():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4)) * [1.0, 2.0, 3.0, 0.5] + 100
    scale = np.sqrt(X.var(axis=0).mean())
    assert_allclose(select_bandwidth(X, rule="scott"), scale * 200 ** (-1 / 8))
    expected = scale * (200 * 6 / 4) ** (-1 / 8)
    assert_allclose(select_bandwidth(X, rule="silverman"), expected)
    weights = rng.random(200)
    mean = np.average(X, axis=0, weights=weights)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights).mean())
    n = weights.sum() ** 2 / (weights**2).sum()
    result = select_bandwidth(X, rule="scott", sample_weight=weights)
    assert_allclose(result, scale * n ** (-1 / 8))


def test_nearest_rule():
    X = np.random.default_rng(0).standard_normal((200, 30))
    sq = cdist(X, X, "sqeuclidean") + 1e9 * np.eye(200)
    expected = np.sqrt(sq.min(axis=1).mean() / 30)
    assert_allclose(select_bandwidth(X, rule="nearest"), expected, rtol=1e-5)


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_rules_give_all_kernels_the_same_variance(kernel):
    """Samples spread around their training point as those of the Gaussian do."""
    X = np.random.default_rng(0).standard_normal((50, 20))
    h = select_bandwidth(X, rule="silverman", kernel=kernel)
    kde = HighDimKernelDensity(bandwidth=h, kernel=kernel).fit(np.zeros((1, 20)))
    spread = kde.sample(5000, random_state=0).std()
    gaussian = select_bandwidth(X, rule="silverman")
    assert spread == pytest.approx(gaussian, rel=0.02)


@pytest.mark.parametrize(
    "d", [50, *(pytest.param(d, marks=pytest.mark.slow) for d in (10, 200))]
)
def test_held_out_divergence_is_within_one_percent_of_the_best(d):
    rng = np.random.default_rng(d)
    X, fresh = rng.standard_normal((2000, d)), rng.standard_normal((2000, d))
    truth = -0.5 * (fresh**2).sum(axis=1) - 0.5 * d * np.log(2 * np.pi)
    sq = cdist(fresh, X, "sqeuclidean")

    def divergence(h):
        log_norm = 0.5 * d * np.log(2 * np.pi * h**2) + np.log(2000)
        return np.mean(truth - logsumexp(-sq / (2 * h**2), axis=1) + log_norm)

    h = select_bandwidth(X)
    best = minimize_scalar(
        divergence, bounds=(0.67 * h, 1.5 * h), method="bounded", options={"xatol": 0.001}
    ).fun
    assert best > 0
    assert divergence(h) <= 1.01 * best


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "X", [np.ones((1, 3)), np.full((5, 3), 2.5)], ids=["one", "equal"]
)
def test_fewer_than_two_distinct_points(rule, X):
    for call in (
        lambda: select_bandwidth(X, rule=rule),
        lambda: HighDimKernelDensity(bandwidth=rule).fit(X),
    ):
        message = f"='{rule}' needs at least two distinct.*n_samples={len(X)}"
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "params, message",
    [
        ({"rule": "best"}, "'rule' parameter of select_bandwidth.*'best'"),
        ({"kernel": "box"}, "'kernel' parameter.*'box'"),
        ({"n_queries": 1}, "'n_queries' parameter.*1"),
        ({"bandwidths": [0.1, -1.0, 2.0]}, "bandwidths must be > 0, got.*-1.0"),
        ({"bandwidths": [0.1, np.nan]}, "bandwidths contains NaN"),
        ({"bandwidths": 2}, "'bandwidths' parameter.*2"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"sample_weight": [1.0, 2.0]}, "sample_weight.shape"),
    ],
)
def test_bad_parameters(params, message):
    X = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises((ValueError, TypeError), match=message):
        select_bandwidth(X, **params)


@pytest.mark.parametrize(
    "X, message",
    [
        ([1.0, 2.0, 3.0], "X: Expected 2D array"),
        ([["a"], ["b"]], "X: could not convert"),
        ([[np.nan], [1.0]], "X contains NaN"),
        (np.zeros((0, 2)), "X: Found array with 0 sample"),
    ],
)
def test_bad_data(X, message):
    with pytest.raises(ValueError, match=message):
        select_bandwidth(X)


def shrunk_spectrum(X, weights):
    """Ledoit and Wolf's, from the matrices themselves."""
    p = weights / weights.sum()
    X = X - p @ X
    S = (X * p[:, None]).T @ X
    mu = np.trace(S) / len(S)
    distance = np.linalg.norm(S - mu * np.eye(len(S))) ** 2
    errors = [np.linalg.norm(np.outer(x, x) - S) ** 2 for x in X]
    share = min(np.sum(p**2 * errors), distance) / distance
    return np.linalg.eigvalsh((1.0 - share) * S + share * mu * np.eye(len(S)))


@pytest.mark.parametrize("n, d", [(300, 20), (20, 120), (50, 50), (3, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_rule(n, d, weighted):
    rng = np.random.default_rng(0)
    X = 7.0 + rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1))
    weights = rng.exponential(size=n) if weighted else np.ones(n)
    spectrum = shrunk_spectrum(X, weights)
    if not weighted:
        assert_allclose(spectrum, np.linalg.eigvalsh(ledoit_wolf(X)[0]), rtol=1e-9)
    effective = weights.sum() ** 2 / np.sum(weights**2)
    expected = gaussian_thresholds(effective, spectrum).h_kl
    options = {"sample_weight": weights if weighted else None, "rule": "gaussian"}
    assert select_bandwidth(X, **options) == pytest.approx(expected, rel=1e-6)
    scaled = select_bandwidth(100.0 * X, **options)
    assert scaled == pytest.approx(100.0 * expected, rel=1e-6)
    linear = select_bandwidth(X, kernel="linear", **options)
    variance = (d + 1) / ((d + 2) * (d + 3))
    assert linear == pytest.approx(expected / np.sqrt(variance))
    kde = HighDimKernelDensity(bandwidth="gaussian").fit(X, sample_weight=weights)
    assert kde.bandwidth_ == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("n, d", [(2000, 100), (60, 200)])
def test_gaussian_rule_is_near_the_best_in_high_dimension(n, d, power):
    rng = np.random.default_rng(1)
    scale = np.arange(1, d + 1) ** (-power / 2)
    X, held_out = scale * rng.normal(size=(n, d)), scale * rng.normal(size=(500, d))
    score = {
        rule: HighDimKernelDensity(bandwidth=rule).fit(X).score_samples(held_out).mean()
        for rule in ("kl", "gaussian")
    }
    assert score["kl"] - score["gaussian"] < 0.005 * d


@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
@pytest.mark.parametrize("law", ["normal", "heavy-tailed", "two scales"])
def test_where_many_pairs_are_searched(law, kernel, monkeypatch):
    """A few queries say where to look; the optimum is that over all of them."""
    rng = np.random.default_rng(3)
    X = {
        "normal": lambda: rng.standard_normal((3000, 2)),
        "heavy-tailed": lambda: rng.standard_t(2, (3000, 3)),
        "two scales": lambda: (
            rng.standard_normal((3000, 6)) * rng.choice([0.05, 1.0], (3000, 1))
        ),
    }[law]()
    expected = select_bandwidth(X, kernel=kernel)
    monkeypatch.setattr(curve, "MOST_PAIRS", 1000)
    found, search = select_bandwidth(X, kernel=kernel, return_search=True)
    assert found == pytest.approx(expected, rel=1e-4)
    assert search.n_queries == 3000
    assert len(search.bandwidths) < 32
