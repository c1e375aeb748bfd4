"""``algorithm``: what is left out, and what is said about it."""

import re

import numpy as np
import oracles
import pytest
from approximations import fit, has_cuda, quiet
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

ALGORITHMS = ("neighbors", "sampling", "auto")


@parametrize_with_checks(
    [
        HighDimKernelDensity(algorithm=algorithm, random_state=0)
        for algorithm in ALGORITHMS
    ]
)
@pytest.mark.filterwarnings("ignore:.*training points are exact duplicates:UserWarning")
@pytest.mark.filterwarnings("ignore:.*stated error:UserWarning")
@pytest.mark.filterwarnings("ignore:bandwidth .*at an end:UserWarning")
def test_scikit_learn_checks(estimator, check):
    if "cuda" in str(check) and not has_cuda():
        # scikit-learn skips it for builds of torch without CUDA only
        pytest.skip("no CUDA GPU that torch can use")
    check(estimator)


@pytest.fixture(scope="module")
def white():
    rng = np.random.default_rng(0)
    return {d: rng.standard_normal((20_500, d)) for d in (20, 100)}


@pytest.mark.parametrize("ratio", [0.3, 0.75, 1.25, 2.0, 4.0])
@pytest.mark.parametrize("d", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_stated_errors_hold(white, d, ratio):
    """Twice the stated error in 95 % of cases, and the tolerance by "auto"."""
    Y, X = white[d][500:], white[d][:500]
    h = ratio * gaussian_thresholds(len(Y), np.ones(d)).h_g
    exact = fit(Y, bandwidth=h).score_samples(X)
    for algorithm in ALGORITHMS:
        found, report = quiet(fit(Y, bandwidth=h, algorithm=algorithm), X)
        error = np.abs(found - exact)
        # of 500 queries: two standard errors below 95 %
        assert np.mean(error <= 2.0 * report.error) >= 0.93, algorithm
        largest = np.quantile(error, 0.9)  # "sampling" may find the nearest of half
        assert np.median(report.error) < max(10.0 * largest, 1e-9), algorithm
        if algorithm == "auto":
            assert np.mean(error <= 0.01) >= 0.93
            assert (report.error <= 0.01).all()


SETTINGS = [
    {"kernel": "exponential", "bandwidth": 0.2},
    {"kernel": "epanechnikov", "bandwidth": 3.0},
    {"kernel": "tophat", "bandwidth": 2.9},
    {"kernel": "student", "bandwidth": 0.7, "degrees_of_freedom": 5.0},
    {"bandwidth": 0.6, "covariance_type": "full", "preserve_variance": True},
    {"bandwidth": 0.7, "covariance_type": "diag"},
    {
        "bandwidth": 0.7,
        "covariance_type": "local",
        "mixture": GaussianMixture(3, covariance_type="diag", random_state=0),
    },
]


@pytest.mark.parametrize("params", SETTINGS, ids=lambda p: "-".join(map(str, p.values())))
@pytest.mark.parametrize("weighted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_kernels_structures_and_weights(params, weighted):
    """At queries and at training points, each without itself."""
    rng = np.random.default_rng(0)
    Y, _ = make_blobs(3100, 8, centers=3, random_state=0)
    Y = Y * rng.uniform(0.5, 2.0, size=8)
    X, Y = Y[:300], Y[300:]
    weights = rng.pareto(2.0, size=len(Y)) + 0.05 if weighted else None
    weights_and = {"sample_weight": weights}
    exact = HighDimKernelDensity(random_state=0, **params).fit(Y, **weights_and)
    for algorithm in ALGORITHMS:
        kde = HighDimKernelDensity(
            random_state=0, algorithm=algorithm, tol=0.05, **params
        )
        kde.fit(Y, **weights_and)
        for queries, expected in (
            (X, exact.score_samples(X)),
            (None, exact.score_samples(None)),
        ):
            found, report = quiet(kde, queries)
            with np.errstate(invalid="ignore"):
                error = np.where(found == expected, 0.0, np.abs(found - expected))
            assert np.mean(error <= 2.0 * report.error + 1e-9) >= 0.93, algorithm
            if algorithm == "auto":
                assert np.mean(error <= 0.05) >= 0.95


@pytest.mark.parametrize("algorithm", ["sampling", "auto"])
def test_adaptive_bandwidths(algorithm):
    Y = np.random.default_rng(0).standard_normal((6000, 8))
    exact = fit(Y, bandwidth=1.5, adaptive=True)
    kde = fit(Y, bandwidth=1.5, adaptive=True, algorithm=algorithm)
    found, report = quiet(kde, Y[:200] * 0.9)
    error = np.abs(found - exact.score_samples(Y[:200] * 0.9))
    assert np.mean(error <= 2.0 * report.error + 1e-9) >= 0.95


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_duplicates(algorithm):
    """Left out one by one, as by the exact sum; also with weights, and of a query."""
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((4000, 10))
    Y[1000:1500] = Y[:500]
    Y[1500:1600] = Y[0]
    weights = rng.uniform(0.1, 3.0, size=4000)
    X = np.vstack([Y[:50], rng.standard_normal((50, 10))])
    for w in (None, weights):
        params = {"bandwidth": 0.5, "random_state": 0}
        exact = HighDimKernelDensity(**params).fit(Y, sample_weight=w)
        kde = HighDimKernelDensity(algorithm=algorithm, **params).fit(Y, sample_weight=w)
        for queries in (X, None):
            found, report = quiet(kde, queries)
            error = np.abs(found - exact.score_samples(queries))
            assert np.mean(error <= 2.0 * report.error + 1e-9) >= 0.95
            if algorithm != "sampling":
                assert np.quantile(error, 0.9) < 0.02


@pytest.mark.parametrize("scale", [1e-3, pytest.param(0.3, marks=pytest.mark.slow)])
def test_small_clusters_that_a_sample_does_not_meet(scale):
    """Their points add up to more than the error that the sample states."""
    rng = np.random.default_rng(0)
    C = rng.standard_normal((1000, 200))
    Y = np.repeat(C, 24, axis=0) + scale * rng.standard_normal((24_000, 200))
    X = C[:300] + scale * rng.standard_normal((300, 200))
    exact = fit(Y, bandwidth=6.5).score_samples(X)
    for algorithm in ALGORITHMS:
        found, report = quiet(fit(Y, bandwidth=6.5, algorithm=algorithm), X)
        error = np.abs(found - exact)
        assert np.mean(error <= 2.0 * report.error) >= 0.95, algorithm
        if algorithm == "auto":
            assert np.mean(error <= 0.01) >= 0.95


def test_a_rare_group_far_away():
    """It changes every density by its share, and a sample has nothing of it."""
    rng = np.random.default_rng(0)
    Y, X = rng.standard_normal((20_000, 8)), rng.standard_normal((300, 8))
    Y[:20] += 100.0
    exact = fit(Y, bandwidth=20.0).score_samples(X)
    for algorithm in ALGORITHMS:
        kde = fit(Y, bandwidth=20.0, algorithm=algorithm, tol=5e-4)
        found, report = quiet(kde, X)
        assert np.mean(np.abs(found - exact) <= 2.0 * report.error) >= 0.95, algorithm


def test_a_sample_with_no_point_in_reach_knows_nothing():
    rng = np.random.default_rng(0)
    Y, X = rng.standard_normal((20_000, 40)), rng.standard_normal((300, 40))
    params = {"kernel": "tophat", "bandwidth": 5.5}
    exact = fit(Y, **params).score_samples(X)
    found, report = quiet(fit(Y, algorithm="sampling", **params), X)
    lost = np.isinf(found) & np.isfinite(exact)
    assert lost.any()
    assert np.isposinf(report.error[lost]).all()


def test_weights_that_rounding_would_lose():
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((3000, 20))
    Y[1500:] = Y[:1500]
    weights = np.append(np.ones(1500), np.full(1500, 1e-13))
    kde = HighDimKernelDensity(bandwidth=0.3, algorithm="neighbors", random_state=0)
    exact = HighDimKernelDensity(bandwidth=0.3).fit(Y, sample_weight=weights)
    found, _ = quiet(kde.fit(Y, sample_weight=weights), None)
    assert_allclose(found, exact.score_samples(None), atol=1e-5)


def test_few_points():
    """As exact as "exact", as samples are of all."""
    for n in (1, 2, 3, 5, 40):
        Y = np.random.default_rng(n).standard_normal((n, 4))
        expected = fit(Y, bandwidth=0.5)
        for algorithm in ALGORITHMS:
            kde = fit(Y, bandwidth=0.5, algorithm=algorithm)
            for X in (Y + 0.3, None):
                found, report = quiet(kde, X)
                assert_allclose(found, expected.score_samples(X), rtol=1e-9)
                assert report.over == 0.0


def test_of_many_neighbours_all_are_summed(white):
    Y, X = white[20][500:3500], white[20][:50]
    exact = fit(Y, bandwidth=0.5).score_samples(X)
    errors = [
        np.abs(
            quiet(fit(Y, bandwidth=0.5, algorithm="neighbors", n_neighbors=k), X)[0]
            - exact
        )
        for k in (1, 10, 200, 3000)
    ]
    assert np.median(errors[0]) > np.median(errors[1]) > np.median(errors[2])
    assert errors[3].max() < 1e-9


def test_the_regime_decides(white):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    # five dimensions in a hundred, so that an index pays
    along = rng.standard_normal((5, 100))
    Z = rng.standard_normal((31_000, 5)) @ along + 0.01 * rng.standard_normal(
        (31_000, 100)
    )
    Y, X = Z[1000:], Z[:1000]
    used = {}
    for h, tol in ((0.3, 0.01), (60.0, 0.01)):
        kde = fit(Y, bandwidth=h, algorithm="auto", tol=tol, neighbors_index="ivf")
        found, report = quiet(kde, X)
        used[h] = report.algorithm
        assert (
            np.mean(np.abs(found - fit(Y, bandwidth=h).score_samples(X)) <= tol) >= 0.95
        )
    assert np.mean(used[0.3] == "neighbors") > 0.9
    assert np.mean(used[60.0] == "sampling") > 0.9


def test_reports(white):
    Y, X = white[20][500:6500], white[20][:100]
    kde = fit(Y, bandwidth=1.0, algorithm="sampling", tol=0.001)
    assert kde.approximation_ is None
    with pytest.warns(UserWarning, match=r"100 of 100 queries .*tol=0.001") as caught:
        found = kde.score_samples(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    report = kde.approximation_
    assert report.over == 1.0
    assert set(report.algorithm) == {"sampling"}
    assert report.error.shape == report.n_evaluations.shape == (100,)
    assert re.search(r"100 queries: exact 0, .* 100 above 0.001", repr(report))
    diagnosis = kde.diagnose(X)
    assert_array_equal(diagnosis.log_density, found)
    assert_array_equal(diagnosis.approximation_error, report.error)
    assert_array_equal(diagnosis.algorithm, report.algorithm)
    assert {"algorithm", "approximation_error"} <= set(diagnosis.to_frame())
    exact = fit(Y, bandwidth=1.0)
    exact.score_samples(X)
    assert exact.approximation_ is None
    assert exact.diagnose(X).approximation_error is None
    assert "approximation_error" not in exact.diagnose(X).to_frame()


def test_weights_of_zero_are_reported_in_order():
    Y = np.random.default_rng(0).standard_normal((3000, 5))
    weights = np.ones(3000)
    weights[::3] = 0.0
    params = {"bandwidth": 0.5, "random_state": 0}
    kde = HighDimKernelDensity(algorithm="neighbors", **params).fit(
        Y, sample_weight=weights
    )
    exact = HighDimKernelDensity(**params).fit(Y, sample_weight=weights)
    found, report = quiet(kde, None)
    assert len(report.error) == 3000
    assert_allclose(found, exact.score_samples(None), atol=0.05)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_results_depend_on_nothing_but_the_query(white, algorithm):
    Y, X = white[20][500:8500], white[20][:60]
    kde = fit(Y, bandwidth=0.8, algorithm=algorithm)
    expected = quiet(kde, X)[0]
    one_by_one = np.concatenate([quiet(kde, x[None])[0] for x in X])
    assert_allclose(one_by_one, expected, rtol=1e-10)
    many = np.tile(X, (70, 1))  # more than are visited at once
    assert_allclose(quiet(kde, many)[0], np.tile(expected, 70), rtol=1e-10)
    assert_allclose(quiet(kde.set_params(n_jobs=1), X)[0], expected, rtol=1e-10)
    again = fit(Y, bandwidth=0.8, algorithm=algorithm)
    assert_allclose(quiet(again, X)[0], expected, rtol=1e-12)


def test_torch_is_as_good(white):
    pytest.importorskip("torch")
    Y, X = white[20][500:8500], white[20][:60]
    for algorithm in ALGORITHMS:
        params = {"bandwidth": 0.8, "algorithm": algorithm}
        found = quiet(fit(Y, backend="torch", **params), X)[0]
        assert_allclose(found, quiet(fit(Y, **params), X)[0], rtol=1e-8)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"adaptive": True, "algorithm": "neighbors"}, "needs adaptive=False"),
        ({"backend": "keops", "algorithm": "auto"}, "backend='keops' visits all pairs"),
        ({"algorithm": "kd_tree"}, "'algorithm' parameter"),
        ({"tol": 0.0}, "'tol' parameter"),
        ({"n_neighbors": 0}, "'n_neighbors' parameter"),
        ({"neighbors_index": "annoy"}, "'neighbors_index' parameter"),
        ({"neighbors_index": object()}, "'neighbors_index' parameter"),
        (
            {"neighbors_index": RadiusNeighborsTransformer(), "algorithm": "auto"},
            "int n_neighbors >= 1, got a RadiusNeighborsTransformer with n_neighbors=N",
        ),
        (
            {"neighbors_index": KNeighborsTransformer, "algorithm": "neighbors"},
            "neighbors_index must be an estimator, not a class",
        ),
        (
            {
                "neighbors_index": KNeighborsTransformer(mode="connectivity"),
                "algorithm": "neighbors",
            },
            "mode='distance', got a KNeighborsTransformer with mode='connectivity'",
        ),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        HighDimKernelDensity(**params).fit(np.ones((5, 2)))


def test_log_densities_are_those_of_the_oracle():
    """Not only of our own exact sum."""
    rng = np.random.default_rng(0)
    Y, X = rng.standard_normal((3000, 30)), rng.standard_normal((10, 30))
    expected = oracles.log_density(X, Y, 0.8)
    for algorithm in ("neighbors", "auto"):
        found, _ = quiet(fit(Y, bandwidth=0.8, algorithm=algorithm), X)
        assert_allclose(found, expected, atol=0.01)
