"""Entropy, divergence, mutual information, and the test for two samples."""

from itertools import combinations

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, information
from skhdkde.information import (
    InformationEstimate,
    entropy,
    kl_divergence,
    mutual_information,
    two_sample_test,
)

FULL = HighDimKernelDensity(
    covariance_type="full", preserve_variance=True, random_state=0
)


def normal_pairs(n, d, r, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, r * X + np.sqrt(1.0 - r**2) * rng.standard_normal((n, d))


def log_densities(X, Y, h, leave_out=False, weights=None):
    """Log densities at X of the textbook's estimate from Y, in extended precision."""
    weights = np.ones(len(Y)) if weights is None else weights
    rows = range(len(X))
    out = []
    for i in rows:
        own = weights.copy()
        if leave_out:
            own[i] = 0.0
        sq = np.sum((X[i].astype(np.longdouble) - Y) ** 2, axis=1)
        total = np.sum(own * oracles.profile("gaussian", sq, h))
        volume = oracles.log_normalizer("gaussian", X.shape[1])
        out.append(np.log(total / own.sum()) - volume - X.shape[1] * np.log(h))
    return np.array(out, dtype=float)


# Against direct sums.


def test_entropy_by_direct_sums():
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal((40, 3)), rng.integers(0, 3, size=40).astype(float)
    seen, own = weights > 0, weights[weights > 0]
    kde = HighDimKernelDensity(bandwidth=0.7).fit(X, sample_weight=weights)
    terms = -log_densities(X[seen], X[seen], 0.7, True, own)
    found, shares = entropy(kde), own / own.sum()
    assert_allclose(found.pointwise, terms, rtol=1e-10)
    assert_allclose(found.value, shares @ terms, rtol=1e-10)
    squares = np.sum(shares**2 * (terms - shares @ terms) ** 2)
    assert_allclose(found.standard_error**2, squares / (1.0 - np.sum(shares**2)))


def test_divergence_by_direct_sums():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 2)), rng.standard_normal((50, 2)) + 1.0
    kde = HighDimKernelDensity(bandwidth=0.5)
    terms = log_densities(X, X, 0.5, True) - log_densities(X, Y, 0.5)
    found = kl_divergence(X, Y, estimator=kde)
    assert_allclose(found.pointwise, terms, rtol=1e-9)
    assert_allclose(found.standard_error, terms.std(ddof=1) / np.sqrt(30))
    # two fits to the same points: those of q are held out too
    other = HighDimKernelDensity(bandwidth=0.9).fit(X)
    terms = log_densities(X, X, 0.5, True) - log_densities(X, X, 0.9, True)
    assert_allclose(kl_divergence(kde.fit(X), other).pointwise, terms, rtol=1e-9)


def test_mutual_information_by_direct_sums():
    X, Y = normal_pairs(40, 2, 0.5)
    kde, both = HighDimKernelDensity(bandwidth=0.6), np.hstack([X, Y])
    terms = log_densities(both, both, 0.6, True)
    terms -= log_densities(X, X, 0.6, True) + log_densities(Y, Y, 0.6, True)
    found = mutual_information(X, Y, estimator=kde)
    assert_allclose(found.pointwise, terms, rtol=1e-9)
    groups = [[2, 3], [0, 1]]
    assert_allclose(mutual_information(kde.fit(both), groups=groups).value, found.value)


# Against the truth.


def test_normal_truths():
    X, Y = normal_pairs(2000, 4, 0.6)
    both = np.hstack([X, Y])
    log_det = 4 * np.log(1.0 - 0.36)
    truth = 4 * (1.0 + np.log(2.0 * np.pi)) + 0.5 * log_det
    found = entropy(both, estimator=FULL)
    low, high = found.interval(0.999)
    assert low < truth < high
    # KL(N(0, I) || N(m, I)) = m^2 / 2
    found = kl_divergence(X, Y[::-1] + 0.4, estimator=FULL)
    low, high = found.interval(0.999)
    assert low < 4 * 0.4**2 / 2 < high


def test_mutual_information_of_32_features():
    X, Y = normal_pairs(5000, 16, 0.5)
    found = mutual_information(X, Y, estimator=FULL)
    assert abs(found.value + 8.0 * np.log(0.75)) < 0.15
    assert 0.02 < found.standard_error < 0.04


def test_independent_features():
    """What kernels blur is blurred in both densities: of clusters with long tails."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((800, 2)) < 0.5, 0.0, 4.0) + rng.exponential(size=(800, 2))
    Y = rng.permutation(X)
    wide = HighDimKernelDensity(
        covariance_type="full", bandwidth=0.6, preserve_variance=True, random_state=0
    )
    lost = entropy(X, estimator=wide).value - entropy(X, estimator=FULL).value
    assert lost > 0.1
    assert abs(mutual_information(X, Y, estimator=wide).value) < 0.04


def test_maps_leave_mutual_information():
    X, Y = normal_pairs(300, 1, 0.7)
    kde = HighDimKernelDensity(
        covariance_type="full",
        preserve_variance=True,
        feature_maps="gaussianize",
        random_state=0,
    )
    plain = mutual_information(X, Y, estimator=kde).value
    assert plain == pytest.approx(-0.5 * np.log(0.51), abs=0.15)
    assert mutual_information(X**3, np.exp(Y), estimator=kde).value == pytest.approx(
        plain, abs=0.05
    )


def test_total_correlation_of_three():
    rng = np.random.default_rng(0)
    common = rng.standard_normal((3000, 1))
    X = (common + rng.standard_normal((3000, 3))) / np.sqrt(2.0)
    truth = -0.5 * np.log(np.linalg.det(np.full((3, 3), 0.5) + 0.5 * np.eye(3)))
    found = mutual_information(X, groups=[0, 1, 2], estimator=FULL)
    assert abs(found.value - truth) < 4.0 * found.standard_error


@pytest.mark.slow
def test_coverage_of_intervals():
    """Intervals hold the truth of a normal pair; the benchmark has other laws."""
    inside = []
    for seed in range(25):
        found = mutual_information(*normal_pairs(200, 1, 0.6, seed), estimator=FULL)
        low, high = found.interval()
        inside.append(low <= -0.5 * np.log(0.64) <= high)
    assert sum(inside) >= 20


# What goes in.


def test_default_takes_shape_from_data(monkeypatch):
    X, Y = normal_pairs(60, 1, 0.9)
    asked = []

    def fit(self, X, y=None, sample_weight=None):
        asked.append(self.get_params())
        return fit_of_class(self.set_params(covariance_type="full", feature_maps=None), X)

    fit_of_class = HighDimKernelDensity.fit
    monkeypatch.setattr(HighDimKernelDensity, "fit", fit)
    entropy(np.hstack([X, Y]))
    (params,) = asked
    assert params["covariance_type"] == params["feature_maps"] == "auto"


@pytest.mark.parametrize(
    "parameters",
    [
        {"covariance_type": "auto", "degrees_of_freedom": 10.0},
        {"covariance_type": "full", "kernel": "student", "feature_maps": "auto"},
        pytest.param(
            {"covariance_type": "stack", "feature_maps": "auto"}, marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_chosen_serves_the_groups(parameters):
    X, Y = normal_pairs(80, 1, 0.8)
    kde = HighDimKernelDensity(random_state=0, **parameters)
    found = mutual_information(np.exp(X), Y, estimator=kde)
    assert abs(found.value + 0.5 * np.log(1.0 - 0.64)) < 0.35


def test_no_map_may_be_the_best():
    X, Y = normal_pairs(50, 1, 0.8)
    kde = HighDimKernelDensity(feature_maps="auto", random_state=0)
    assert kde.fit(np.hstack([X, Y])).feature_maps_ is None
    found = mutual_information(X, Y, estimator=kde)
    assert abs(found.value + 0.5 * np.log(1.0 - 0.64)) < 0.35


def test_parameters_by_feature_follow_their_features():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X, Y = normal_pairs(300, 1, 0.8)
    counts = np.round(2.0 * rng.standard_normal((300, 1)))
    table = np.hstack([counts, np.exp(X), rng.standard_normal((300, 1)), np.exp(Y)])
    frame = pandas.DataFrame(table, columns=["counts", "a", "unused", "b"])
    kde = HighDimKernelDensity(
        covariance_type="full",
        preserve_variance=True,
        feature_maps={"a": "log", "b": "log"},
        discrete_features=["counts"],
        random_state=0,
    )
    found = mutual_information(frame, groups=[["counts", "a"], ["b"]], estimator=kde)
    assert found.value == pytest.approx(-0.5 * np.log(1.0 - 0.64), abs=0.15)
    beside = mutual_information(frame[["counts", "a"]], frame[["b"]], estimator=kde)
    assert beside.value == pytest.approx(found.value, abs=1e-9)
    fitted = kde.fit(frame[["counts", "a", "b"]])
    again = mutual_information(fitted, groups=[["counts", "a"], ["b"]])
    assert again.value == pytest.approx(found.value, abs=1e-9)


def test_a_single_feature_may_be_a_vector():
    X, Y = normal_pairs(50, 1, 0.5)
    assert entropy(X[:, 0], estimator=FULL) == entropy(X, estimator=FULL)
    found = mutual_information(X[:, 0], Y[:, 0], estimator=FULL)
    assert found == mutual_information(X, Y, estimator=FULL)


def errors():
    X, Y = normal_pairs(20, 2, 0.5)
    constant = np.hstack([X, np.ones((20, 1))])
    pipe = make_pipeline(StandardScaler(), HighDimKernelDensity()).fit(X)
    kde = HighDimKernelDensity(bandwidth=1.0)
    fitted = HighDimKernelDensity(bandwidth=1.0).fit(X)
    sphere = HighDimKernelDensity(support="sphere", bandwidth=0.5)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    yield lambda: entropy(pipe), TypeError, "p must be .*last step"
    yield lambda: entropy(X, estimator=StandardScaler()), TypeError, "estimator must be"
    yield (
        lambda: kl_divergence(fitted, X[:, :1], estimator=kde),
        ValueError,
        "p has 2, q 1",
    )
    yield lambda: entropy(kde), NotFittedError, "not fitted"
    part = fitted.conditional(0, 0.0)
    yield lambda: entropy(part), AttributeError, r"not known .* by conditional"
    yield (
        lambda: mutual_information(unit, Y, estimator=sphere),
        ValueError,
        "unit vectors",
    )
    yield lambda: two_sample_test(X, constant), ValueError, "X has 2, Y 3"
    yield lambda: two_sample_test(X, Y[:1]), ValueError, "at least two points each"
    yield lambda: two_sample_test(X, Y, n_permutations=0), ValueError, "n_permutations"
    yield lambda: two_sample_test(X, Y, bandwidth="best"), ValueError, "'bandwidth'"
    yield lambda: two_sample_test(X, Y, bandwidth=-1.0), ValueError, "'bandwidth'"
    yield lambda: entropy(fitted).interval(1.0), ValueError, "level"


def errors_of_groups():
    X, Y = normal_pairs(20, 2, 0.5)
    kde, mutual = HighDimKernelDensity(bandwidth=1.0), mutual_information
    fitted = clone(kde).fit(X)
    yield lambda: mutual(X), ValueError, "either Y, .* or groups"
    yield lambda: mutual(X, Y, groups=[[0], [1]]), ValueError, "either Y, .* or groups"
    yield lambda: mutual(X, Y[:5]), ValueError, "inconsistent"
    yield lambda: mutual(fitted, Y), ValueError, "groups of its features, not Y"
    yield lambda: mutual(X, groups=[[0]]), ValueError, "two or more"
    yield lambda: mutual(X, groups=[[0], [0]]), ValueError, "no feature in two"
    yield lambda: mutual(X, groups=[[0], ["a"]]), ValueError, "groups has 'a'"
    yield lambda: mutual(X, groups=[[0], [2]]), ValueError, "groups has index 2"
    yield lambda: mutual(X, groups=[[0], [1.0]]), TypeError, "groups must have indices"
    yield lambda: mutual(X, groups=[[True], [1]]), ValueError, "a mask of 1 entries"
    yield lambda: mutual(X, groups=2), ValueError, "two or more lists.* got 2"
    yield lambda: mutual(kde, groups=[[0], [1]]), NotFittedError, "not fitted"
    yield lambda: mutual(fitted, groups=[[0], []]), ValueError, "none of them empty"


@pytest.mark.parametrize("call, kind, words", [*errors(), *errors_of_groups()])
def test_errors_say_what_to_do(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.filterwarnings("ignore:.*constant")
def test_constant_features_have_no_entropy():
    X = np.column_stack([np.arange(20.0) ** 1.5, np.ones(20)])
    with pytest.raises(ValueError, match=r"constant features, \[1\]"):
        entropy(X, estimator=HighDimKernelDensity())


def test_columns_in_another_order_are_an_error():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(normal_pairs(20, 2, 0.5)[0], columns=["a", "b"])
    other = frame[["b", "a"]] + 1.0
    kde = HighDimKernelDensity(bandwidth=1.0)
    for call in (two_sample_test, lambda X, Y: kl_divergence(X, Y, estimator=kde)):
        with pytest.raises(ValueError, match="column 0 is 'a' in the first and 'b' in"):
            call(frame, other)
        with pytest.raises(ValueError, match="column 0 is 'a'"):
            call(frame, other.rename(columns={"b": "c"}))
        assert repr(call(frame, other.to_numpy()))


def test_groups_may_be_masks():
    X = normal_pairs(30, 3, 0.5)[0]
    masks = [[True, False, True], np.array([False, True, False])]
    found = mutual_information(X, groups=masks, estimator=FULL)
    assert found == mutual_information(X, groups=[[0, 2], [1]], estimator=FULL)


def test_a_known_density_needs_no_held_out_points():
    """The second density of a divergence has not seen the points of the first."""
    X, Y = normal_pairs(60, 2, 0.5)
    kde = HighDimKernelDensity(bandwidth=0.5).fit(X)
    q = (
        HighDimKernelDensity(bandwidth=0.5)
        .fit(np.hstack([X, Y]))
        .conditional([2, 3], Y[0])
    )
    found = kl_divergence(kde.fit(Y), q)
    expected = kde.score_samples(None) - q.score_samples(Y)
    assert_allclose(found.pointwise, expected, rtol=1e-12)


def test_shared_rows_warn():
    X, Y = normal_pairs(30, 2, 0.5)
    kde = HighDimKernelDensity(bandwidth=1.0)
    with pytest.warns(UserWarning, match="3 of the 30 rows of p"):
        kl_divergence(X, np.vstack([Y, X[:3]]), estimator=kde)


def test_estimates_show_value_and_error():
    found = InformationEstimate.of(np.array([1.0, 2.0, 3.0]), np.ones(3))
    assert repr(found) == "<InformationEstimate: 2.000 +- 0.577 nats>"
    assert_allclose(found.interval(0.95), 2.0 + np.array([-1.0, 1.0]) * 1.1316, rtol=1e-4)


# Two samples.


def test_statistic_by_direct_sums():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((12, 2)), 1.5 * rng.standard_normal((9, 2)) + 0.5
    found = two_sample_test(
        X, Y, covariance_type="spherical", bandwidth=0.8, n_permutations=9
    )
    ratio_X = log_densities(X, X, 0.8, True) - log_densities(X, Y, 0.8)
    ratio_Y = log_densities(Y, X, 0.8) - log_densities(Y, Y, 0.8, True)
    assert_allclose(found.log_ratio_X, ratio_X, rtol=1e-9)
    assert_allclose(found.log_ratio_Y, ratio_Y, rtol=1e-9)
    assert found.statistic == pytest.approx(ratio_X.mean() - ratio_Y.mean())
    n_as_large = np.sum(found.null_statistics >= found.statistic)
    assert found.p_value == (1 + n_as_large) / 10
    assert found.most_different(1)[0] == [np.argmax(ratio_X)]


def ratios(X, Y, h, first):
    """Log density ratios at the rows of both samples, and their statistic."""
    Z, out = np.vstack([X, Y]), []
    for i, z in enumerate(Z):
        logs = -np.sum((Z - z) ** 2, axis=1) / (2.0 * h**2)
        others = np.arange(len(Z)) != i
        sides = [logs[others & side] for side in (first, ~first)]
        out.append(logsumexp(sides[0]) - np.log(len(sides[0])))
        out[-1] -= logsumexp(sides[1]) - np.log(len(sides[1]))
    out = np.array(out)
    return out, out[first].mean() - out[~first].mean()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shift=st.floats(0.0, 1e3),
    h=st.floats(0.01, 10.0),
    n=st.integers(2, 3),
    seed=st.integers(0, 99),
)
def test_samples_that_are_far_apart(shift, h, n, seed):
    """Kernels of one sample may be nothing beside those of the other."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, 2)), rng.standard_normal((2, 2)) + shift
    found = two_sample_test(
        X,
        Y,
        covariance_type="spherical",
        bandwidth=h,
        n_permutations=5,
        random_state=seed,
    )
    size = 1e-11 * (shift + 5.0) ** 2 / h**2 + 1e-9  # of the rounding of a square
    expected, statistic = ratios(X, Y, h, np.arange(n + 2) < n)
    assert_allclose(found.log_ratio_X, expected[:n], atol=size)
    assert_allclose(found.log_ratio_Y, expected[n:], atol=size)
    assert found.statistic == pytest.approx(statistic, abs=size)
    possible = [
        ratios(X, Y, h, np.isin(np.arange(n + 2), rows))[1]
        for rows in combinations(range(n + 2), n)
    ]
    apart = np.abs(found.null_statistics[:, None] - possible).min(axis=1)
    assert apart.max() < size


def test_p_values_of_one_law_are_uniform():
    p_values = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        X = np.exp(rng.standard_normal((40, 5)))
        found = two_sample_test(X[:15], X[15:], n_permutations=39, random_state=seed)
        p_values.append(found.p_value)
    spread = rng.uniform(-1.0, 0.0, size=100) / 40  # p-values are multiples of 1 / 40
    assert kstest(np.array(p_values) + spread, "uniform").pvalue > 0.01


def test_differences_are_found():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((200, 20)), rng.standard_normal((200, 20))
    Y[:, 1] = 0.9 * Y[:, 0] + np.sqrt(1.0 - 0.81) * Y[:, 1]
    Y[:20] += 2.0
    found = two_sample_test(X, Y, random_state=0)
    assert found.p_value == 1 / 200
    assert set(found.most_different(10)[1]) <= set(range(20))
    assert repr(found).startswith("<TwoSampleTest: statistic ")
    swapped = two_sample_test(Y, X, random_state=0)
    assert swapped.statistic == pytest.approx(found.statistic)
    assert_allclose(swapped.log_ratio_X, -found.log_ratio_Y, atol=1e-9)


def test_groups_have_the_marginal_densities_of_the_joint_one():
    """A group's covariance is shrunk as that of all features; one kernel shows it."""
    X, Y = normal_pairs(60, 3, 0.9)
    both = np.hstack([X, Y]) * np.geomspace(1.0, 100.0, 6)
    joint = clone(FULL).set_params(bandwidth=1.0).fit(both)
    own = information._marginal(joint, np.arange(3)).fit(both[:, :3])
    x = both[:5, :3] + 0.1
    # integrate the joint density over the other features, which are normal
    drawn = joint.sample(400_000, random_state=0)
    assert own.bandwidth_ == joint.bandwidth_
    covariance = np.cov(drawn[:, :3].T)
    law = multivariate_normal(both[:, :3].mean(axis=0), covariance)
    assert_allclose(own.score_samples(x), law.logpdf(x), atol=0.05)
    plain = clone(FULL).set_params(bandwidth=1.0).fit(both[:, :3])
    assert np.abs(plain.score_samples(x) - law.logpdf(x)).max() > 0.05
