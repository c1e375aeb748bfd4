"""Stacks and maps of features in the estimator: invariance, parameters, weights.

The densities themselves are in ``test_mixed_density.py``.
"""

import functools
import pickle

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from scipy.special import logsumexp
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from structured_oracle import make_oracle
from test_mixed_density import (
    KINDS,
    LIMITS,
    SLOW,
    STACK,
    central_differences,
    curved,
    fitted,
    make,
    numeric_log_jacobian,
)

from skhdkde import BandwidthDisplay, HighDimKernelDensity, RegimeDisplay, kl_scorer
from skhdkde._selection.stacking import stack, stacking_weights
from skhdkde.dask import DaskHighDimKernelDensity

# What must make no difference.

FITS = {
    "yeo-johnson": {"feature_maps": "yeo-johnson"},
    "gaussianize": {"feature_maps": "gaussianize", "covariance_type": "full"},
    "auto": {"feature_maps": "auto"},
    "stack": STACK,
    "stack, maps": STACK | {"feature_maps": "auto"},
}
NAMES = [
    *list(FITS)[:4],
    pytest.param("stack, maps", marks=SLOW),
]


def results(kde, Q):
    """Return log densities of queries, of points left out and held out, and draws."""
    found = kde.score_samples(Q), kde.score_samples(None), kde.held_out_log_density_
    return found, kde.sample(50, random_state=0), kde.log_density_gradient(Q)


@functools.cache
def of_sixty(name):
    """Return the estimator fitted to what most tests here change."""
    return make(**FITS[name]).fit(curved(60, 2, 0))


@pytest.mark.parametrize("name", NAMES)
def test_units(name):
    power = -300
    X, Q = curved(60, 2, 0), curved(20, 2, 1)
    found = results(of_sixty(name), Q)
    scaled = results(make(**FITS[name]).fit(np.ldexp(X, power)), np.ldexp(Q, power))
    for before, after in zip(found[0], scaled[0], strict=True):
        assert_allclose(after + 2 * power * np.log(2.0), before, atol=1e-7)
    assert_allclose(np.ldexp(scaled[1], -power), found[1], atol=1e-7)
    assert_allclose(np.ldexp(scaled[2], power), found[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES[:2] + NAMES[4:])
def test_shifts(name):
    X, Q = curved(60, 2, 0), curved(20, 2, 1)
    shift = np.array([1000.0, -500.0])
    found = results(of_sixty(name), Q)
    shifted = results(make(**FITS[name]).fit(X + shift), Q + shift)
    for before, after in zip(found[0], shifted[0], strict=True):
        assert_allclose(after, before, atol=1e-6)
    assert_allclose(shifted[1] - shift, found[1], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    X, Q = curved(80, 2, 0).astype(np.float32), curved(20, 2, 1).astype(np.float32)
    single, double = make(**FITS[name]).fit(X), make(**FITS[name]).fit(X.astype(float))
    for method in ("score_samples", "log_density_gradient"):
        found = getattr(single, method)(Q)
        assert found.dtype == np.float32
        expected = getattr(double, method)(Q.astype(float))
        assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    assert single.held_out_log_density_.dtype == np.float32
    assert single.score_samples(None).dtype == np.float32


@pytest.mark.parametrize("name", ["yeo-johnson", "limits", "scaled"])
def test_weights_are_repetition(name):
    """Where no number of points decides a shrinkage."""
    maps = {"yeo-johnson": "yeo-johnson", "limits": LIMITS, "scaled": {0: None, 1: "log"}}
    X, Q = curved(60, 2, 0), curved(20, 2, 1)
    X[:, 1], Q[:, 1] = np.exp(X[:, 1]), np.exp(Q[:, 1])
    if name == "limits":
        X, Q = np.clip(X, -3.9, 11.9), np.clip(Q, -3.9, 11.9)
    weights = np.random.default_rng(0).integers(0, 4, 60)
    kde = make(bandwidth=0.4, feature_maps=maps[name])
    weighted = clone(kde).fit(X, sample_weight=weights)
    repeated = clone(kde).fit(np.repeat(X, weights, axis=0))
    assert_allclose(weighted.score_samples(Q), repeated.score_samples(Q), atol=1e-9)
    diagnosis, without = weighted.diagnose(), weights == 0
    assert_allclose(diagnosis.log_density, weighted.score_samples(None), atol=1e-9)
    found = weighted.score_samples(X[without])
    assert_allclose(weighted.score_samples(None)[without], found, atol=1e-12)
    assert np.isfinite(weighted.held_out_log_density_).all()


@SLOW
@pytest.mark.filterwarnings("ignore:.*exact duplicates:UserWarning")
def test_weights_of_a_stack_are_repetition():
    """Up to random draws of folds: as likely for fresh points."""
    X, Q = curved(150, 2, 0), curved(2000, 2, 1)
    weights = np.random.default_rng(0).integers(0, 4, 150)
    weighted = make(**STACK).fit(X, sample_weight=weights)
    repeated = make(**STACK).fit(np.repeat(X, weights, axis=0))
    assert weighted.bandwidth_search_.n_queries == np.count_nonzero(weights)
    found = kl_scorer(weighted, Q)
    assert found == pytest.approx(kl_scorer(repeated, Q), abs=0.15)
    assert len(weighted.held_out_log_density_) == 150


def test_rows_without_weight_may_be_outside_limits():
    X, weights = curved(60, 2, 0), np.ones(60)
    X[:3, 0], weights[:3] = -7.0, 0.0
    kde = make(feature_maps=LIMITS).fit(X, sample_weight=weights)
    assert_array_equal(np.isneginf(kde.score_samples(None)), weights == 0.0)
    assert_array_equal(np.isneginf(kde.held_out_log_density_), weights == 0.0)
    assert_array_equal(np.isinf(kde.diagnose().standard_error), weights == 0.0)


# Constant and discrete features, duplicates, few points.


@pytest.mark.filterwarnings("ignore:X has 1 constant feature:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_constant_features(name):
    """Log densities are those without them, and of a kernel for each."""
    X, Q = curved(60, 2, 0), curved(20, 2, 1)
    alone = of_sixty(name)
    kde = make(**FITS[name]).fit(np.insert(X, 1, 7.0, axis=1))
    with_it = np.insert(Q, 1, 7.0, axis=1)
    for found, other in (
        (kde.score_samples(with_it), alone.score_samples(Q)),
        (kde.score_samples(None), alone.score_samples(None)),
        (kde.held_out_log_density_, alone.held_out_log_density_),
    ):
        assert_allclose(np.ptp(found - other), 0.0, atol=1e-8)
    moved = with_it + np.array([0.0, 0.5, 0.0])
    assert (kde.score_samples(moved) < kde.score_samples(with_it)).all()
    gradient = kde.log_density_gradient(moved)
    assert_allclose(gradient[:, [0, 2]], alone.log_density_gradient(Q), rtol=1e-6)
    assert_allclose(gradient, central_differences(kde, moved), rtol=1e-3, atol=1e-4)
    assert kde.sample(5).shape == (5, 3)
    assert_array_equal(kde.constant_features_, [1])


@pytest.mark.filterwarnings("ignore:X has 1 constant feature:UserWarning")
def test_maps_of_constant_features():
    """They do nothing, but their limits hold."""
    X = np.insert(curved(40, 2, 0), 1, 7.0, axis=1)
    kde, none = make(feature_maps={1: "log"}).fit(X), make().fit(X)
    assert kde.feature_maps_ is None
    assert_array_equal(kde.score_samples(X), none.score_samples(X))
    with pytest.raises(ValueError, match=r"for feature 1, .*40 of 40 rows"):
        make(feature_maps={1: "logit"}).fit(X)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_constant_in_a_fold(name):
    X = curved(60, 2, 0)
    X[:, 1] = 3.0
    X[17, 1] = 5.0
    kde = make(**FITS[name]).fit(X)
    for found in (kde.score_samples(X), kde.held_out_log_density_):
        assert np.isfinite(found).all()
    assert np.isfinite(kde.log_density_gradient(X)).all()


@pytest.mark.parametrize(
    "parameters",
    [
        {"feature_maps": "auto"},
        {"feature_maps": {0: ("log", -1.0), 2: "log"}},
        STACK,
        pytest.param(STACK | {"feature_maps": "auto"}, marks=SLOW),
    ],
    ids=str,
)
def test_discrete_features(parameters):
    rng = np.random.default_rng(0)
    counts = rng.poisson([2.0, 6.0], size=(200, 2)).astype(float)
    X = np.column_stack([counts, rng.gamma(2.0, size=200)])
    kde = make(discrete_features=[0, 1], **parameters).fit(X)
    drawn = kde.sample(3000, random_state=0)
    for k in (0, 1):
        assert set(np.unique(drawn[:, k])) <= set(range(int(X[:, k].max()) + 1))
        assert drawn[:, k].mean() == pytest.approx(X[:, k].mean(), abs=0.3)
    left_out, held_out = kde.score_samples(None), kde.held_out_log_density_
    assert_allclose(kde.diagnose().log_density, left_out, atol=1e-9)
    assert left_out.mean() == pytest.approx(held_out.mean(), abs=0.2)
    assert held_out.mean() == pytest.approx(kde.score(X) / 200, abs=0.4)


def test_limits_of_discrete_features():
    """Values are spread over a step, so that limits must be beyond."""
    X = np.random.default_rng(0).poisson(2.0, size=(60, 2)).astype(float)
    maps = {0: ("log", -0.1)}
    make(feature_maps=maps, bandwidth=0.5).fit(X)
    with pytest.raises(ValueError, match=r"for feature 0, .* half a step"):
        make(feature_maps=maps, bandwidth=0.5, discrete_features=[0]).fit(X)


@pytest.mark.filterwarnings("ignore:.*exact duplicates:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_duplicates_are_left_out_together(name):
    X, once = curved(60, 2, 0), of_sixty(name)
    twice = make(**FITS[name]).fit(np.tile(X, (2, 1)))
    assert twice.bandwidth_search_.n_copies == 60
    assert twice.bandwidth_ > 0.5 * once.bandwidth_
    assert twice.held_out_log_density_.mean() < once.score_samples(X).mean() + 0.5


@pytest.mark.filterwarnings("ignore:X has .* in row:UserWarning")
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [3, *(pytest.param(n, marks=SLOW) for n in (4, 7)), 12])
@pytest.mark.parametrize("name", NAMES)
def test_few_points(name, n, d):
    X = curved(n, d, 0)
    kde = make(**FITS[name]).fit(X)
    assert np.isfinite(kde.score_samples(X)).all()
    assert np.isfinite(kde.held_out_log_density_).all()
    assert kde.sample(3).shape == (3, d)
    assert len(kde.diagnose(X)) == n


@pytest.mark.parametrize("name", NAMES)
def test_too_few_points(name):
    with pytest.raises(ValueError, match="at least 3 distinct points"):
        make(**FITS[name]).fit(curved(2, 2, 0))


# Parameters.


@pytest.mark.parametrize("rule", ["scott", "silverman", "gaussian", "nearest"])
@pytest.mark.parametrize("covariance_type", ["spherical", "full"])
def test_rules_are_for_mapped_points(rule, covariance_type):
    X = np.exp(curved(80, 2, 0))
    kde = make(bandwidth=rule, feature_maps={0: "log", 1: "log"})
    kde.set_params(covariance_type=covariance_type).fit(X)
    mapped = kde.feature_maps_.apply(X)
    other = make(bandwidth=rule, covariance_type=covariance_type).fit(mapped)
    assert kde.bandwidth_ == pytest.approx(other.bandwidth_, rel=1e-6)
    slopes = numeric_log_jacobian(kde.feature_maps_, X)
    assert_allclose(kde.score_samples(X), other.score_samples(mapped) + slopes, atol=1e-5)


def test_log_maps_are_logarithms():
    """A fit to logarithms, with the determinant of these."""
    X = np.exp(curved(80, 2, 0))
    kde = make(feature_maps={0: "log", 1: "log"}, covariance_type="full").fit(X)
    other = make(covariance_type="full").fit(np.log(X))
    expected = other.score_samples(np.log(X)) - np.log(X).sum(axis=1)
    assert_allclose(kde.score_samples(X), expected, atol=1e-8)
    assert_allclose(kde.bandwidth_, other.bandwidth_, rtol=1e-8)


def test_a_dict_without_maps_is_none():
    X, none = curved(40, 2, 0), make().fit(curved(40, 2, 0))
    for maps in ({}, {0: None}):
        kde = make(feature_maps=maps).fit(X)
        assert kde.feature_maps_ is None
        assert_array_equal(kde.score_samples(X), none.score_samples(X))


def test_names_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(np.exp(curved(40, 2, 0)), columns=["a", "b"])
    kde = make(feature_maps={"b": "log"}, bandwidth=0.5).fit(X)
    by_index = make(feature_maps={-1: "log"}, bandwidth=0.5).fit(X.to_numpy())
    assert_array_equal(kde.score_samples(X), by_index.score_samples(X.to_numpy()))
    with pytest.raises(ValueError, match="feature_maps has 'c', which X has not"):
        make(feature_maps={"c": "log"}).fit(X)
    with pytest.raises(ValueError, match="for feature 'b', which allows"):
        make(feature_maps={"b": "logit"}).fit(X)


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"feature_maps": "log"}, "feature_maps"),
        ({"feature_maps": ["log"]}, "feature_maps"),
        ({"feature_maps": {5: "log"}}, "index 5"),
        ({"feature_maps": {"a": "log"}}, "no names"),
        ({"feature_maps": {0: "auto"}}, r"feature_maps\[0\]"),
        ({"feature_maps": {0: "logit"}}, "for feature 0, .* of 60 rows"),
        ({"feature_maps": "auto", "bandwidth": 1.0}, "bandwidth='kl', got 1.0"),
        ({"covariance_type": "stack", "bandwidth": 1.0}, "bandwidth='kl', got 1.0"),
        ({"covariance_type": "stack", "kernel": "tophat"}, "zero beyond its bandwidth"),
        ({"feature_maps": "gaussianize", "kernel": "tophat"}, "needs a number"),
        (
            {"covariance_type": "stack", "degrees_of_freedom": 2.0},
            "covariance_type='stack' needs a kernel that has a variance",
        ),
        (
            {"covariance_type": "auto", "kernel": "student", "degrees_of_freedom": 1.5},
            "must be > 2, got 1.5",
        ),
        (
            {"covariance_type": "stack", "adaptive": True, "algorithm": "neighbors"},
            "adaptive=False",
        ),
    ],
    ids=str,
)
def test_what_does_not_go(parameters, said):
    kde = make(**parameters)
    with pytest.raises((ValueError, TypeError), match=said):
        kde.fit(curved(60, 2, 0))
    assert not hasattr(kde, "bandwidth_")
    with pytest.raises(NotFittedError):
        kde.score_samples(curved(3, 2, 0))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("covariance_type", ["local", "stack"])
def test_a_mixture_is_one_of_mapped_features(covariance_type, frozen):
    X = curved(60, 2, 1)
    mixture = GaussianMixture(2, random_state=0)
    kde = make(covariance_type=covariance_type, feature_maps="yeo-johnson")
    kde.set_params(mixture=mixture)
    if covariance_type == "local":
        kde.set_params(bandwidth=0.5).fit(X)
        mapped = kde.feature_maps_.apply(X)
        oracle = make_oracle(mapped, "local", clone(mixture).fit(mapped), 0.5, {})
        expected = oracle.log_density(mapped) + numeric_log_jacobian(kde.feature_maps_, X)
        assert_allclose(kde.score_samples(X), expected, atol=1e-6)
    mixture.fit(X)
    kde.set_params(mixture=FrozenEstimator(mixture) if frozen else mixture)
    with pytest.raises(ValueError, match="mixture is fitted, but with feature_maps"):
        kde.fit(X)
    kde.set_params(feature_maps=None).fit(X)


@pytest.mark.parametrize(
    "parameters", [{"feature_maps": "auto"}, {"covariance_type": "stack"}], ids=str
)
def test_not_on_a_cluster(parameters):
    name, value = next(iter(parameters.items()))
    with pytest.raises(ValueError, match=f"{name} must be .*{value!r}"):
        DaskHighDimKernelDensity(**parameters).fit(curved(60, 2, 0))


@pytest.mark.parametrize("kernel", ["tophat", "epanechnikov", "linear", "cosine"])
def test_compact_kernels(kernel):
    """With a number as bandwidth; out of reach the density is zero."""
    X = curved(60, 2, 0)
    kde = make(bandwidth=0.7, feature_maps="gaussianize", kernel=kernel).fit(X)
    Q = np.vstack([X[:2], [[50.0, 50.0]]])
    assert np.isfinite(kde.score_samples(Q)[:2]).all()
    assert kde.score_samples(Q)[2] == -np.inf
    assert np.isnan(kde.log_density_gradient(Q)[2]).all()
    assert kde.diagnose(Q).effective_sample_size[2] == 0.0
    assert np.isfinite(kde.score_samples(kde.sample(200, random_state=0))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_and_clones(kind):
    kde, Q = fitted(kind), curved(20, 2, 2)
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(again.score_samples(Q), kde.score_samples(Q))
    assert_array_equal(again.sample(3, random_state=0), kde.sample(3, random_state=0))
    assert again.get_params() == kde.get_params()
    if kind == "stack":
        same = clone(kde).fit(curved(150, 2, 1))
        assert_array_equal(same.score_samples(Q), kde.score_samples(Q))
    again.set_params(verbose=0, n_jobs=1)
    assert_array_equal(again.score_samples(Q), kde.score_samples(Q))
    with pytest.raises(ValueError, match="feature_maps"):
        again.set_params(feature_maps="no").score_samples(Q)
    assert "150 rows, 2 features" in repr(kde.data_report_)


@pytest.mark.parametrize("kind", ["stack, limits", "auto"])
def test_displays(kind):
    kde, Q = fitted(kind), curved(10, 2, 2)
    bandwidths = np.array([0.8, 0.9, 1.0]) * kde.bandwidth_
    display = BandwidthDisplay.from_estimator(kde, Q, bandwidths=bandwidths)
    assert display.bandwidth == kde.bandwidth_
    assert display.values[2] == pytest.approx(kde.score_samples(Q).mean(), abs=1e-9)
    assert len(RegimeDisplay.from_estimator(kde, Q).diagnosis) == 10


def test_grid_search_over_maps_in_a_pipeline():
    X = np.exp(1.5 * curved(90, 2, 0))
    steps = make_pipeline(StandardScaler(), make(bandwidth=0.4))
    maps = [None, "yeo-johnson", "gaussianize"]
    grid = {"highdimkerneldensity__feature_maps": maps}
    search = GridSearchCV(steps, grid, scoring=kl_scorer, cv=3).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[1:]).all()
    assert max(scores[1:]) > scores[0]
    assert search.best_estimator_[-1].feature_maps_ is not None


def test_auto_compares_maps_in_each_fold():
    """The best of them, and what each reaches."""
    X = np.exp(1.5 * curved(150, 2, 0))
    kde = make(feature_maps="auto").fit(X)
    candidates = kde.bandwidth_search_.candidates
    assert {c.feature_maps for c in candidates} == {None, "yeo-johnson", "gaussianize"}
    best = max(candidates, key=lambda c: c.mean_log_density)
    assert best.weight == 1.0
    alone = make(feature_maps=best.feature_maps).fit(X)
    assert_allclose(kde.score_samples(X), alone.score_samples(X), atol=1e-2)
    assert kde.held_out_log_density_.mean() == pytest.approx(
        best.mean_log_density, abs=0.2
    )


# Weights of a stack.


class Scored:
    def __init__(self, log_density):
        self.log_density = log_density


def test_a_stack_is_as_good_as_its_best():
    for kind in KINDS[:3]:
        search = fitted(kind).bandwidth_search_
        best = max(c.mean_log_density for c in search.candidates)
        assert search.stacked_log_density >= best - 1e-9


@examples(15)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(5, 200), st.booleans())
def test_stacking_weights_against_an_optimiser(seed, n_candidates, n, weighted):
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.1, 1.0, 5.0])
    logs = scale * rng.standard_normal((n, n_candidates)) - 1000.0 * rng.integers(0, 2)
    weights = rng.uniform(0.1, 1.0, n) if weighted else np.ones(n)
    weights /= weights.sum()
    shares, mean = stacking_weights(logs, weights)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares > 0.0).all()

    def loss(p):
        return -weights @ logsumexp(logs, b=np.maximum(p, 0.0), axis=1)

    assert mean == pytest.approx(-loss(shares), abs=1e-9)
    found = optimize.minimize(
        loss,
        np.full(n_candidates, 1.0 / n_candidates),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * n_candidates,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1.0},
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert mean >= -found.fun - 1e-3
    # of those that matter
    candidates = [Scored(column) for column in logs.T]
    kept, reached = stack(candidates, weights)
    assert sum(kept.values()) == pytest.approx(1.0)
    assert reached >= mean - 2e-3
    alone = [weights @ c.log_density for c in candidates]
    assert reached >= max(alone) - 1e-12


def test_a_candidate_far_behind_has_no_weight():
    rng = np.random.default_rng(0)
    first, second = Scored(rng.standard_normal(100)), Scored(rng.standard_normal(100))
    behind, nowhere = Scored(first.log_density - 5.0), Scored(np.full(100, -np.inf))
    kept, mean = stack([behind, first, nowhere, second], np.ones(100))
    assert set(kept) == {first, second}
    both = np.logaddexp(first.log_density, second.log_density) - np.log(2.0)
    assert mean >= both.mean()


def test_points_that_no_candidate_reaches():
    """They say nothing about weights, and the mean is -inf."""
    rng = np.random.default_rng(0)
    logs = rng.standard_normal((50, 2))
    logs[7] = -np.inf
    others = stack([Scored(c) for c in np.delete(logs, 7, axis=0).T], np.ones(49))[0]
    kept, mean = stack([Scored(column) for column in logs.T], np.ones(50))
    assert_allclose(list(kept.values()), list(others.values()))
    assert mean == -np.inf
    assert len(kept) == 2


TENSORS = [
    {"feature_maps": LIMITS, "bandwidth": 0.4},
    {"feature_maps": LIMITS, "bandwidth": 0.4, "algorithm": "sampling"},
    {"feature_maps": LIMITS, "bandwidth": 0.4, "discrete_features": [2]},
    # "auto" would compile what KeOps needs for every structure
    pytest.param(
        STACK | {"feature_maps": LIMITS, "discrete_features": [2], "backend": "torch"},
        marks=SLOW,
    ),
]


@pytest.mark.parametrize("parameters", TENSORS, ids=str)
@pytest.mark.usefixtures("tensors_as_on_a_gpu")
def test_tensors_on_a_gpu(parameters):
    """They are brought to the host, and results are tensors."""
    import torch

    X = np.insert(curved(60, 2, 1), 2, np.arange(60) % 3, axis=1)
    Q = X[:5] + 0.25
    with config_context(array_api_dispatch=True):
        kde = make(**parameters).fit(torch.tensor(X))
        kde.set_params(backend="numpy")
        found = kde.score_samples(torch.tensor(Q))
        gradient = kde.log_density_gradient(torch.tensor(Q))
        diagnosis = kde.diagnose(torch.tensor(Q))
        assert isinstance(kde.sample(3), torch.Tensor)
        assert isinstance(kde.score_samples(None), torch.Tensor)
        assert isinstance(kde.held_out_log_density_, torch.Tensor)
    other = make(**parameters).fit(X)
    assert_allclose(found.numpy(), other.score_samples(Q), rtol=1e-6)
    expected = other.log_density_gradient(Q)
    assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-8)
    assert_allclose(np.asarray(diagnosis.log_density), found.numpy(), rtol=1e-6)


def test_booleans_have_no_maps():
    """A map would find the edges of the cells that booleans are spread over."""
    rng = np.random.default_rng(0)
    booleans = rng.integers(0, 2, size=(200, 2))
    X = np.column_stack([booleans[:, 0], rng.lognormal(size=200), booleans[:, 1]])
    setting = {"discrete_features": "auto", "random_state": 0}
    kde = HighDimKernelDensity(feature_maps="gaussianize", **setting).fit(X)
    assert str(kde.feature_maps_).count("linear") == 2
    kde = HighDimKernelDensity(feature_maps="auto", **setting).fit(booleans)
    assert kde.feature_maps_ is None
    assert {c.feature_maps for c in kde.bandwidth_search_.candidates} <= {None}
    by_column = {0: "yeo-johnson"}
    kde = HighDimKernelDensity(feature_maps=by_column, **setting).fit(X)
    assert str(kde.feature_maps_).count("yeo-johnson") == 1


@pytest.mark.filterwarnings("error:Features of X are apart in scale:UserWarning")
def test_mapped_features_are_not_apart_in_scale():
    X = np.random.default_rng(0).lognormal(size=(100, 2)) * [1.0, 1e4]
    HighDimKernelDensity(feature_maps={0: "log"}, random_state=0).fit(X)


def test_a_search_shows_its_stack():
    kde = fitted("stack")
    shown = repr(kde.bandwidth_search_)
    n_mixed = sum(c.weight > 0.0 for c in kde.bandwidth_search_.candidates)
    assert f"stack of {n_mixed}, " in shown
