"""Marginals and conditionals: against formulas, integrals, rejection, and each other."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import ks_2samp, multivariate_normal, multivariate_t
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from structured_oracle import make_oracle

from skhdkde import BandwidthDisplay, HighDimKernelDensity
from skhdkde.information import entropy

D, NU = 4, 4.5
RNG = np.random.default_rng(0)
X = np.exp(0.3 * RNG.normal(size=(60, D)) @ RNG.normal(size=(D, D)))
X = np.vstack([X, X[:30] + 3.0 + RNG.normal(size=(30, D))])
WEIGHTS = RNG.uniform(0.2, 2.0, size=len(X))
QUERIES = np.vstack([X[:3] + 0.1, [[9.0, 1.0, 3.0, 2.0], [40.0, 30.0, 20.0, 50.0]]])
MIXTURE = GaussianMixture(2, random_state=0).fit(X)
STUDENT = {"kernel": "student", "degrees_of_freedom": NU}
MAPS = {0: "log", 1: "gaussianize", 2: "yeo-johnson"}
CASES = {
    "spherical": {},
    "spherical, student": STUDENT,
    "spherical, preserved, adaptive": {"preserve_variance": True, "adaptive": 3},
    "diag, preserved": {"covariance_type": "diag", "preserve_variance": True},
    "diag, student": {"covariance_type": "diag", **STUDENT},
    "full": {"covariance_type": "full"},
    "full, student, preserved": {
        "covariance_type": "full",
        "preserve_variance": True,
        **STUDENT,
    },
    "full, adaptive, student": {"covariance_type": "full", "adaptive": True, **STUDENT},
    "local": {"covariance_type": "local", "mixture": MIXTURE},
    "local, all": {
        "covariance_type": "local",
        "mixture": MIXTURE,
        "preserve_variance": True,
        "adaptive": True,
        **STUDENT,
    },
    "neighborhood": {"covariance_type": "neighborhood"},
    "neighborhood, student, preserved": {
        "covariance_type": "neighborhood",
        "preserve_variance": True,
        **STUDENT,
    },
    "maps": {"covariance_type": "full", "feature_maps": MAPS},
    "stack": {
        "covariance_type": "stack",
        "feature_maps": "auto",
        "degrees_of_freedom": 5.0,
    },
}
OF_FORMULAS = [name for name in CASES if name.split(",")[0] not in ("maps", "stack")]
OF_FORMULAS = [name for name in OF_FORMULAS if "neighborhood" not in name]


@functools.cache
def fitted(case):
    parameters = {"bandwidth": "kl" if case == "stack" else 0.5, **CASES[case]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kde = HighDimKernelDensity(**parameters, random_state=0)
        return kde.fit(X, sample_weight=WEIGHTS)


SETS = st.permutations(range(D)).flatmap(
    lambda order: st.integers(1, D - 1).map(lambda k: order[:k])
)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(features=SETS, row=st.integers(0, len(QUERIES) - 1))
def test_marginal_and_conditional_make_the_joint(case, features, row):
    kde, x = fitted(case), QUERIES[row]
    others = [k for k in range(D) if k not in features]
    marginal = kde.marginal(features)
    conditional = kde.conditional(features, x[features])
    joint = kde.score_samples([x])[0]
    parts = marginal.score_samples([x[features]]) + conditional.score_samples([x[others]])
    assert_allclose(parts[0], joint, rtol=0, atol=1e-8)
    # what is not integrated over has the same slope
    slope = conditional.log_density_gradient([x[others]])[0]
    assert_allclose(slope, kde.log_density_gradient([x])[0, others], rtol=1e-6, atol=1e-8)
    assert_allclose(
        conditional.diagnose([x[others]]).log_density,
        conditional.score_samples([x[others]]),
        atol=1e-8,
    )


def kernels(case):
    """Log weight, centre, scale matrix of each kernel, by the formulas of the guide."""
    options = dict(CASES[case])
    kind = options.pop("covariance_type", "spherical")
    oracle = make_oracle(X, kind, MIXTURE, 0.5, options, WEIGHTS)
    for j, (y, c) in enumerate(zip(X, oracle.labels, strict=True)):
        mean, scale = oracle.means[c], (0.5 * oracle.local[j]) ** 2
        center = mean + float(oracle.shrinkage) * (y - mean)
        yield np.log(WEIGHTS[j]), center, scale * oracle.covariances[c], oracle.nu


def law(center, scale, nu):
    if nu is None:
        return multivariate_normal(center, scale)
    return multivariate_t(center, scale, df=nu)


def log_mixture(pairs):
    """Log density from log weights and log densities of points."""
    weights, logs = zip(*pairs, strict=True)
    return logsumexp(logs, b=np.exp(weights - logsumexp(weights)))


@pytest.mark.parametrize("case", OF_FORMULAS)
def test_against_laws_of_scipy(case):
    o, s = [2, 0], [1, 3]
    x = QUERIES[0]
    marginal, conditional = [], []
    for log_weight, center, scale, nu in kernels(case):
        own = law(center[o], scale[np.ix_(o, o)], nu).logpdf(x[o])
        marginal.append((log_weight, own))
        inverse = np.linalg.inv(scale[np.ix_(o, o)])
        apart = x[o] - center[o]
        slope = scale[np.ix_(s, o)] @ inverse
        moved = center[s] + slope @ apart
        left = scale[np.ix_(s, s)] - slope @ scale[np.ix_(o, s)]
        if nu is not None:
            left, nu = left * (nu + apart @ inverse @ apart) / (nu + 2), nu + 2
        conditional.append((log_weight + own, law(moved, left, nu).logpdf(x[s])))
    kde = fitted(case)
    found = kde.marginal(o).score_samples([x[o]])[0]
    assert_allclose(found, log_mixture(marginal), atol=1e-8)
    found = kde.conditional(o, x[o])
    assert_allclose(found.score_samples([x[s]])[0], log_mixture(conditional), atol=1e-8)
    if found.kernel_ == "student":
        assert found.degrees_of_freedom_ == NU + 2


@pytest.mark.parametrize("case", ["full, adaptive, student", "local, all", "maps"])
def test_conditionals_integrate_to_one(case):
    kde, x = fitted(case), QUERIES[1]
    one = kde.conditional([0, 2, 3], x[[0, 2, 3]])
    t = np.linspace(-1.0, 1.0, 8001)
    grid = x[1] + 80.0 * t**3  # dense about the value, wide for the tail
    total = np.trapezoid(np.exp(one.score_samples(grid[:, None])), grid)
    assert_allclose(total, 1.0, atol=2e-3)
    two = kde.conditional([1, 3], x[[1, 3]])
    grid = 60.0 * np.linspace(-1.0, 1.0, 401) ** 3
    axes = [x[k] + grid for k in (0, 2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.exp(two.score_samples(points)).reshape(401, 401)
    total = np.trapezoid(np.trapezoid(values, axes[1]), axes[0])
    assert_allclose(total, 1.0, atol=1e-2)


@pytest.mark.parametrize(
    "case", ["local, all", "neighborhood, student, preserved", "maps", "stack"]
)
def test_samples_agree_with_rejection(case):
    """Samples agree with joint draws that are near the value given."""
    kde = fitted(case).marginal([0, 3])
    drawn = kde.sample(400_000, random_state=1)
    value = 2.0
    near = drawn[np.abs(drawn[:, 1] - value) < 0.02]
    found = kde.conditional(1, value).sample(5000, random_state=2)
    assert len(near) > 1000
    assert ks_2samp(near[:, 0], found[:, 0]).pvalue > 1e-3


def test_values_far_from_all_points():
    """Weights are kept in logs: one point may have all of it, and others matter."""
    rng = np.random.default_rng(1)
    Y = rng.normal(size=(50, 80))
    kde = HighDimKernelDensity(bandwidth=0.05).fit(Y)
    features = np.arange(40)
    for o, s in [(Y[3, :40], Y[7, 40:]), (np.full(40, 300.0), Y[7, 40:])]:
        x = np.concatenate([o, s])
        parts = kde.marginal(features).score_samples([o])
        conditional = kde.conditional(features, o)
        parts += conditional.score_samples([s])
        assert_allclose(parts, kde.score_samples([x]), rtol=1e-12)
        assert np.isfinite(conditional.score_samples(None)).all()
        assert np.isfinite(conditional.sample(3, random_state=0)).all()


FRAME = pd.DataFrame(X, columns=list("abcd"))


@functools.cache
def fitted_to_frame():
    maps = {"b": "log", "d": "log"}
    kde = HighDimKernelDensity(bandwidth=0.5, covariance_type="full", feature_maps=maps)
    return kde.fit(FRAME)


@pytest.mark.parametrize("case", ["spherical, student", "local, all", "neighborhood"])
def test_float32(case):
    kde = HighDimKernelDensity(bandwidth=0.5, **CASES[case]).fit(X.astype(np.float32))
    x = QUERIES[:3].astype(np.float32)
    marginal = kde.marginal([1, 2]).score_samples(x[:, [1, 2]])
    for one, part in zip(x, marginal, strict=True):
        own = kde.conditional([1, 2], one[[1, 2]]).score_samples(one[None, [0, 3]])
        assert own.dtype == part.dtype == np.float32
        assert_allclose(part + own, kde.score_samples(one[None]), atol=2e-3)


def test_results_are_estimators():
    kde, frame = fitted_to_frame(), FRAME
    found = kde.marginal(["d", "a"])
    assert_array_equal(found.feature_names_in_, ["d", "a"])
    assert found.n_features_in_ == 2
    assert found.bandwidth_ == kde.bandwidth_
    assert found.bandwidth_search_ is None
    assert found.algorithm == "exact"
    assert found.feature_maps == {0: "log"}
    assert found.sample(3).shape == (3, 2)
    assert len(found.data_report_.to_frame()) == 2
    query = frame[["d", "a"]][:4]
    for way in ([3, 0], [-1, "a"]):
        same = kde.marginal(way).score_samples(query)
        assert_array_equal(same, found.score_samples(query))
    masked = kde.marginal([True, False, False, True])
    assert_array_equal(masked.feature_names_in_, ["a", "d"])
    clone(found).fit(query.to_numpy().repeat(3, axis=0) + 0.1 * RNG.random((12, 2)))


def test_one_after_the_other_is_both_at_once():
    kde, frame = fitted_to_frame(), FRAME
    given = kde.conditional("b", X[0, 1])
    assert_array_equal(given.feature_names_in_, ["a", "c", "d"])
    assert given.score_samples(None).shape == (len(X),)
    again = pickle.loads(pickle.dumps(given))
    assert_array_equal(again.score_samples(None), given.score_samples(None))
    queries = frame[["a", "c"]][:3]
    twice = given.conditional("d", X[0, 3]).score_samples(queries)
    once = kde.conditional(["d", "b"], X[0, [3, 1]]).score_samples(queries)
    assert_allclose(twice, once, atol=1e-9)
    twice = kde.marginal([0, 2]).marginal("c").score_samples(queries[["c"]])
    assert_allclose(twice, kde.marginal(2).score_samples(queries[["c"]]), atol=1e-9)


def test_constant_and_discrete_features():
    Y = X.copy()
    Y[:, 1], Y[:, 3] = 7.0, np.round(Y[:, 3])
    with pytest.warns(UserWarning, match="1 constant feature"):
        kde = HighDimKernelDensity(discrete_features=[3], covariance_type="full").fit(Y)
    found = kde.conditional([0], Y[0, 0])
    assert_array_equal(found.constant_features_, [0])
    assert_array_equal(found.discrete_features_, [2])
    assert_array_equal(found.sample(20)[:, 2] % 1.0, 0.0)
    parts = kde.marginal([0]).score_samples(Y[:5, [0]])
    for part, y in zip(parts, Y, strict=False):
        own = kde.conditional([0], y[0]).score_samples([y[1:]])
        assert_allclose(part + own, kde.score_samples([y]), atol=1e-8)
    without = kde.conditional([1, 0], [8.0, Y[0, 0]])  # what it is makes no difference
    assert_allclose(
        without.score_samples(Y[:3, 2:]), found.marginal([1, 2]).score_samples(Y[:3, 2:])
    )
    with pytest.raises(ValueError, match="all constant"):
        kde.marginal(1)
    with pytest.raises(ValueError, match="all constant"):
        kde.conditional([0, 2, 3], Y[0, [0, 2, 3]])


def test_what_is_held_out():
    kde = fitted("spherical")
    marginal = kde.marginal([0, 1])
    assert_array_equal(marginal.held_out_log_density_, marginal.score_samples(None))
    for found in (kde.conditional(0, 1.0), fitted("full").marginal([0, 1])):
        for ask in (
            lambda kde: kde.held_out_log_density_,
            lambda kde: kde.density_level(0.9),
            entropy,
        ):
            with pytest.raises(AttributeError, match="Hold out rows before the fit"):
                ask(found)
        assert "held_out_log_density_" not in dir(found)
    with pytest.raises(ValueError, match="weights that depend on its bandwidth"):
        BandwidthDisplay.from_estimator(kde.conditional(0, 1.0), X[:, 1:])


def test_approximations_become_exact():
    kde = HighDimKernelDensity(bandwidth=0.5, algorithm="sampling", random_state=0).fit(X)
    exact = HighDimKernelDensity(bandwidth=0.5).fit(X).conditional(0, 1.0)
    found = kde.conditional(0, 1.0)
    assert_allclose(found.score_samples(X[:, 1:]), exact.score_samples(X[:, 1:]))


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda kde: kde.marginal(4), "features has index 4"),
        (lambda kde: kde.marginal("a"), "features has 'a', but features of X have no"),
        (lambda kde: kde.marginal([]), "at least one feature"),
        (lambda kde: kde.marginal([1, 1]), "must differ"),
        (lambda kde: kde.marginal([True, False]), "a mask of 2 entries, but X has 4"),
        (lambda kde: kde.conditional(0, 1e200), r"as far .* 1.0e\+200, whose squares"),
        (lambda kde: kde.conditional([0, 1], [1.0]), "one for each of the 2 features"),
        (lambda kde: kde.conditional(0, np.nan), "values contains NaN"),
        (lambda kde: kde.conditional([0, 1, 2, 3], X[0]), "leave some of X out"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call(fitted("full"))


def test_features_by_masks():
    kde, expected = (
        fitted("full"),
        fitted("full").marginal([0, 2]).score_samples(X[:, [0, 2]]),
    )
    for mask in ([True, False, True, False], list(np.array([1, 0, 1, 0]) == 1)):
        assert_array_equal(kde.marginal(mask).score_samples(X[:, [0, 2]]), expected)


def test_names_of_values():
    kde = fitted_to_frame()
    row = FRAME.loc[3, ["c", "a"]]
    found = kde.conditional(["c", "a"], row).sample(2, random_state=0)
    assert_array_equal(
        found, kde.conditional([2, 0], row.to_numpy()).sample(2, random_state=0)
    )
    for values in (row, FRAME.loc[[3], ["c", "a"]]):
        with pytest.raises(ValueError, match=r"labels \['c', 'a'\], and .*\['a', 'c'\]"):
            kde.conditional(["a", "c"], values)


@pytest.mark.parametrize("scale", [1e-160, 1e160])
@pytest.mark.filterwarnings("error")
def test_squares_beyond_float64(scale):
    """The textbook's density is known there, of which the marginals are, too."""
    kde = HighDimKernelDensity(bandwidth=0.5 * scale).fit(X * scale)
    gaps = np.array([[1.0, np.nan, 2.0, 2.0]])
    own = HighDimKernelDensity(bandwidth=0.5).fit(X).score_samples(gaps)
    assert_allclose(kde.score_samples(gaps * scale) + 3 * np.log(scale), own, rtol=1e-12)
    for call in (lambda: kde.impute(gaps * scale), lambda: kde.conditional(0, scale)):
        with pytest.raises(ValueError, match=r"X has entries up to .* squares are"):
            call()


def test_limits_of_maps():
    with pytest.raises(ValueError, match="inside the limits of feature_maps"):
        fitted("maps").conditional([0], -1.0)


@pytest.mark.parametrize("kernel", ["tophat", "exponential"])
def test_other_kernels_are_refused(kernel):
    kde = HighDimKernelDensity(bandwidth=2.0, kernel=kernel).fit(X)
    for call in (kde.marginal, kde.impute):
        with pytest.raises(ValueError, match=f"'gaussian' or 'student', got '{kernel}'"):
            call([0])


def test_spheres_are_refused():
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    kde = HighDimKernelDensity(bandwidth=0.5, support="sphere").fit(rows)
    with pytest.raises(ValueError, match="needs support='euclidean', got 'sphere'"):
        kde.marginal([0, 1])
