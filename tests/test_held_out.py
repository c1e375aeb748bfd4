"""``held_out_log_density_``: training points scored by fits that did not see them."""

import pickle
import threading
import warnings

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import Phase, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from structured_oracle import make_oracle

import skhdkde._selection.held_out as held_out
from skhdkde import HighDimKernelDensity
from skhdkde.dask import DaskHighDimKernelDensity

DUPLICATES = "ignore:.*training points are exact duplicates:UserWarning"


def correlated(n, d, seed):
    """Fresh points of one normal law with correlated features."""
    mixing = np.random.default_rng(0).standard_normal((d, d)) / np.sqrt(d)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ mixing.T
    return X + np.sqrt(0.1) * rng.standard_normal((n, d))


def heavy(n, d, seed):
    """Fresh points of one law with heavy tails."""
    lengths = np.sqrt(np.random.default_rng(1000 + seed).chisquare(4, size=n) / 4)
    return correlated(n, d, seed) / lengths[:, None]


def clusters(n, d, seed):
    """Fresh points of one law: three clusters of different shapes."""
    law, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centers = 3.0 * law.standard_normal((3, d))
    shapes = law.standard_normal((3, d, d)) / np.sqrt(d)
    c = rng.integers(3, size=n)
    X = centers[c] + np.einsum("nij,nj->ni", shapes[c], rng.standard_normal((n, d)))
    return X + 0.2 * rng.standard_normal((n, d))


# That fresh points are as likely.


def share_below(scores, fresh, level=0.05):
    """Return the share of fresh points whose p-value is at most ``level``."""
    rank = 1 + np.searchsorted(np.sort(scores), fresh, side="right")
    return np.mean(rank <= level * (len(scores) + 1))


FULL = {"covariance_type": "full"}
# By name: parameters, law, points, features, data sets, whether they are fooled.
CASES = {
    "plain": ({}, correlated, 150, 30, 12, False),
    "diag": ({"covariance_type": "diag"}, correlated, 150, 30, 12, False),
    "full": (FULL, correlated, 150, 30, 12, True),
    "local": ({"covariance_type": "local"}, correlated, 300, 30, 5, True),
    "adaptive": ({"adaptive": True}, correlated, 200, 10, 8, False),
    "full adaptive": ({**FULL, "adaptive": True}, correlated, 200, 10, 8, False),
    "preserved": ({"preserve_variance": True}, correlated, 200, 10, 12, False),
    "full preserved": (
        {**FULL, "preserve_variance": True},
        correlated,
        150,
        30,
        12,
        True,
    ),
    "student": ({"kernel": "student"}, heavy, 200, 20, 12, False),
    "full student": ({**FULL, "kernel": "student"}, heavy, 200, 20, 8, False),
    "auto": ({"covariance_type": "auto"}, clusters, 200, 6, 5, True),
}


@pytest.mark.parametrize("case", CASES)
def test_p_values_of_fresh_points(case):
    """A p-value is below 0.05 for as many, in the mean over data sets.

    Where ``fooled``, points that are left out of the sum only are too likely for that.
    """
    parameters, draw, n, d, n_sets, fooled = CASES[case]
    shares = []
    for seed in range(n_sets):
        kde = HighDimKernelDensity(random_state=seed, **parameters)
        fresh = kde.fit(draw(n, d, seed)).score_samples(draw(1000, d, 1000 + seed))
        scores = kde.held_out_log_density_, kde.score_samples(None)
        shares.append([share_below(own, fresh) for own in scores])
    honest, left_out = np.mean(shares, axis=0)
    assert abs(honest - 0.05) < 0.015
    if fooled:
        assert left_out > 0.08


# That they are by fits to the other points.


@st.composite
def settings_of_all_kinds(draw):
    """Draw points, weights and parameters; bandwidths are narrow enough for all fits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(6, 14)), draw(st.integers(2, 4))
    X, weights = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)), None
    kinds = ["spherical", "diag", "full"] + ["local"] * (n > 9)
    parameters = {
        "covariance_type": draw(st.sampled_from(kinds)),
        "preserve_variance": draw(st.booleans()),
        "adaptive": draw(st.sampled_from([False, True, 2])),
        "kernel": draw(st.sampled_from(["gaussian", "student"])),
        "degrees_of_freedom": 5.0,
        "bandwidth": draw(st.sampled_from([0.1, 0.4])),
    }
    if parameters["covariance_type"] == "spherical":
        parameters["bandwidth"] *= 0.5 * float(np.sqrt(X.var(axis=0).mean()))
        parameters["adaptive"] = (
            parameters["adaptive"] or not (parameters["preserve_variance"])
        )
    if parameters["covariance_type"] == "local":
        # its components may be too small for the oracle's scales
        parameters["adaptive"] = False
        parameters["mixture"] = GaussianMixture(2, reg_covar=0.1, random_state=0)
    elif draw(st.booleans()):
        weights = rng.uniform(0.3, 1.0, size=n)
    if not parameters["adaptive"] and parameters["covariance_type"] != "local":
        again = rng.integers(n, size=draw(st.integers(0, 4)))
        X = np.vstack([X, X[again]])
        weights = None if weights is None else np.append(weights, weights[again])
    return X, weights, parameters


@pytest.mark.filterwarnings(DUPLICATES)
@examples(25, database=None, phases=[Phase.generate])
@given(settings_of_all_kinds())
def test_few_points_are_left_out_one_by_one(drawn):
    """With up to 20 points each is a fold; duplicates leave together, and weights count.

    ``make_oracle`` is given what is fitted to the other points.
    """
    X, weights, parameters = drawn
    kde = HighDimKernelDensity(**parameters, random_state=0)
    found = kde.fit(X, sample_weight=weights).held_out_log_density_
    options = dict(parameters)
    kind, h = options.pop("covariance_type"), options.pop("bandwidth")
    for i, x in enumerate(X):
        others = (X != x).any(axis=1)
        mixture = parameters.get("mixture")
        if mixture is not None:
            mixture = clone(mixture).fit(X[others])
        own = None if weights is None else weights[others]
        oracle = make_oracle(X[others], kind, mixture, h, options, own)
        assert_allclose(found[i], oracle.log_density(x[None])[0], atol=1e-7, rtol=0)


def same_fold(make, X, i):
    """Return the rows that do not notice where the point ``i`` is."""
    moved = X.copy()
    moved[i] += 0.5
    before, after = make(X).held_out_log_density_, make(moved).held_out_log_density_
    return np.flatnonzero(np.delete(before == after, i)), before


@pytest.mark.parametrize(
    "parameters",
    [
        {"covariance_type": "full", "preserve_variance": True, "bandwidth": 0.4},
        {
            "covariance_type": "local",
            "bandwidth": 0.4,
            "mixture": GaussianMixture(2, random_state=0),
        },
        {"adaptive": 3, "bandwidth": 0.4, "algorithm": "sampling"},
    ],
    ids=["full", "local", "adaptive"],
)
def test_twenty_folds(parameters):
    """A fold are the rows to which it does not matter where one of them is.

    Their scores are those of the same setting fitted to the others. Where `algorithm` is
    not "exact", these are exact all the same.
    """
    X = correlated(101, 3, seed=0)

    def make(X):
        return HighDimKernelDensity(**parameters, random_state=0).fit(X)

    for i in (0, 57):
        fold, found = same_fold(make, X, i)
        fold = np.append(fold + (fold >= i), i)
        assert len(fold) in (5, 6)
        outside = HighDimKernelDensity(**parameters).set_params(algorithm="exact")
        outside.fit(np.delete(X, fold, axis=0))
        assert_allclose(found[fold], outside.score_samples(X[fold]), atol=1e-8)


def test_agrees_with_the_search():
    """The mean is what the search saw, but for more points in each fit."""
    X = correlated(1000, 4, seed=0)
    kde = HighDimKernelDensity(covariance_type="diag", random_state=0).fit(X)
    search = kde.bandwidth_search_
    assert search.n_queries == len(X)
    mean = search.mean_log_density.max()
    assert kde.held_out_log_density_.mean() == pytest.approx(mean, abs=0.02)


def test_all_points_have_one():
    """Those too that are no queries of the search; beside a few of another population."""
    X = correlated(12_000, 2, seed=0)
    X[::1000] = 20.0 + 3.0 * np.random.default_rng(1).standard_normal((12, 2))
    kde = HighDimKernelDensity(
        covariance_type="full", kernel="student", degrees_of_freedom=3.0, random_state=0
    ).fit(X)
    assert kde.bandwidth_search_.n_queries == 2048
    scores = kde.held_out_log_density_
    assert scores.shape == (12_000,)
    assert np.isfinite(scores).all()
    assert set(range(0, 12_000, 1000)) <= set(np.argsort(scores)[:200])


@pytest.mark.parametrize("kernel", ["gaussian", "student", "tophat"])
@pytest.mark.parametrize("algorithm", ["exact", "auto"])
@pytest.mark.filterwarnings(DUPLICATES)
def test_plain_estimates_leave_out_one_by_one(kernel, algorithm):
    X = correlated(60, 3, seed=0)
    X[7] = X[3]
    weights = np.ones(60)
    weights[::5] = 0.0
    options = {"kernel": kernel, "bandwidth": 0.5, "degrees_of_freedom": 4.0}
    kde = HighDimKernelDensity(**options).fit(X, sample_weight=weights)
    other = clone(kde).set_params(algorithm=algorithm).fit(X, sample_weight=weights)
    assert_array_equal(other.held_out_log_density_, kde.score_samples(None))


# Weights, duplicates, few points, outliers.


@pytest.mark.parametrize("covariance_type", ["diag", "full", "local"])
def test_rows_without_weight(covariance_type):
    """They have scores, hidden by no duplicate, and change nothing for the others."""
    X = correlated(90, 3, seed=0)
    kde = HighDimKernelDensity(
        covariance_type=covariance_type, bandwidth=0.3, random_state=0
    )
    weights = np.random.default_rng(1).exponential(size=90)
    alone = kde.fit(X, sample_weight=weights).held_out_log_density_
    extra = np.vstack([X[40:50], correlated(5, 3, seed=2)])
    rows = np.vstack([extra[:12], X, extra[12:]])
    positive = np.concatenate([np.zeros(12), weights, np.zeros(3)])
    found = kde.fit(rows, sample_weight=positive).held_out_log_density_
    assert_allclose(found[12:102], alone, atol=1e-8)
    assert_allclose(found[:10], alone[40:50], atol=1e-8)
    assert np.isfinite(found).all()
    if covariance_type != "local":  # where mixtures of other folds are others
        fresh = kde.score_samples(extra[10:])
        assert_allclose(np.append(found[10:12], found[102:]), fresh, atol=0.5)


@pytest.mark.filterwarnings(DUPLICATES)
def test_a_duplicate_does_not_hide_an_outlier():
    X = correlated(80, 4, seed=0)
    X[11] = 9.0
    X = np.vstack([X, X[11]])
    kde = HighDimKernelDensity(covariance_type="full", bandwidth=0.3, random_state=0)
    scores = kde.fit(X).held_out_log_density_
    assert scores[11] == scores[80]
    assert sorted(np.argsort(scores)[:2]) == [11, 80]
    assert not {11, 80} & set(np.argsort(kde.score_samples(None))[:10])


@pytest.mark.parametrize("n", [3, 4, 7])
@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full", "auto"])
@pytest.mark.parametrize("kernel", ["gaussian", "student"])
def test_few_points(n, covariance_type, kernel):
    X = correlated(n, 4, seed=0)
    X[:, 2] = np.arange(n) == 1  # constant without one of the points
    kde = HighDimKernelDensity(
        covariance_type=covariance_type,
        preserve_variance=True,
        kernel=kernel,
        random_state=0,
    )
    assert np.isfinite(kde.fit(X).held_out_log_density_).all()


def test_too_few_points():
    X = np.repeat(correlated(2, 3, seed=0), 4, axis=0)
    kde = HighDimKernelDensity(covariance_type="diag", bandwidth=0.5).fit(X)
    with pytest.raises(
        ValueError, match=r"held_out_log_density_ needs at least 3 .* 2\."
    ):
        _ = kde.held_out_log_density_


@pytest.mark.filterwarnings("ignore:.*decide the variance:UserWarning")
def test_bandwidth_beyond_what_a_fold_preserves():
    """Without an outlier there is less variance: its fold takes all that there is."""
    X = correlated(50, 3, seed=0)
    X[4] = 60.0
    h = 0.95 * float(np.sqrt(X.var(axis=0).mean()))
    kde = HighDimKernelDensity(preserve_variance=True, bandwidth=h, random_state=0)
    scores = kde.fit(X).held_out_log_density_
    rest = np.delete(X, 4, axis=0)
    sd = np.sqrt(rest.var(axis=0).mean())  # about that of its fold
    sq = np.sum((X[4] - rest.mean(axis=0)) ** 2) / sd**2
    assert scores[4] == pytest.approx(-0.5 * sq, rel=0.1)
    assert np.delete(scores, 4).min() > -100.0


@pytest.mark.filterwarnings("ignore:.*decide the variance:UserWarning")
def test_one_row_odd_in_one_column():
    """With "local" it is a component of its own, and its score alone ruins the mean.

    Without it nothing is near, while "diag" has its share in the standard deviation:
    held out, it is as odd for both.
    """
    X = np.random.default_rng(0).standard_normal((500, 5))
    X[7, 2] = 1000.0
    found = {}
    for kind in ("diag", "local"):
        kde = HighDimKernelDensity(covariance_type=kind, random_state=0).fit(X)
        found[kind] = kde.score_samples(None), kde.held_out_log_density_
    sizes = [len(component.rows) for component in kde._density.whitened]
    (alone,) = (c for c in kde._density.whitened if 7 in c.rows)
    assert len(alone.rows) == 1 < np.median(sizes)
    for left_out, honest in found.values():
        assert np.argmin(left_out) == np.argmin(honest) == 7
    (diag, honest_diag), (local, honest_local) = found["diag"], found["local"]
    assert local[7] < 2.0 * diag[7]
    assert np.delete(local, 7).mean() > np.delete(diag, 7).mean() + 1.0
    assert 0.5 < honest_local[7] / honest_diag[7] < 2.0
    others = np.delete(honest_local, 7).mean(), np.delete(honest_diag, 7).mean()
    assert others[0] > others[1]


# That it is an attribute like others, made when asked for.


@pytest.fixture
def kde():
    X = correlated(60, 3, seed=0)
    return HighDimKernelDensity(covariance_type="full", random_state=0).fit(X)


def test_is_made_once(kde):
    first = kde.held_out_log_density_
    assert kde.held_out_log_density_ is first
    copied = pickle.loads(pickle.dumps(kde))
    assert copied._held_out.made
    assert_array_equal(copied.held_out_log_density_, first)
    kde.fit(correlated(50, 3, seed=1))
    assert kde.held_out_log_density_.shape == (50,)


def test_can_be_made_after_pickling(kde):
    copied = pickle.loads(pickle.dumps(kde))
    assert_array_equal(copied.held_out_log_density_, kde.held_out_log_density_)


def test_before_fit():
    kde = HighDimKernelDensity(covariance_type="full")
    assert not hasattr(kde, "held_out_log_density_")
    assert "held_out_log_density_" not in dir(kde)
    assert not hasattr(DaskHighDimKernelDensity(), "held_out_log_density_")


def test_looking_does_not_make_it(kde):
    """Not the list of attributes, nor what notebooks display."""
    assert "held_out_log_density_" not in dir(kde)
    assert {"bandwidth_", "score_samples"} < set(dir(kde))
    kde._repr_html_()
    repr(kde), clone(kde), pickle.dumps(kde)
    assert not kde._held_out.made
    assert hasattr(kde, "held_out_log_density_")
    assert "held_out_log_density_" in dir(kde)


def test_fit_in_the_meantime(kde, monkeypatch):
    """What another thread fits while scores are made is not mixed with these."""
    fold_scores, other = held_out.fold_scores, correlated(40, 3, seed=1)

    def interrupted(*arguments):
        if len(kde._density.training) == 60:
            kde.fit(other)
        return fold_scores(*arguments)

    monkeypatch.setattr(held_out, "fold_scores", interrupted)
    assert kde.held_out_log_density_.shape == (60,)
    assert kde.held_out_log_density_.shape == (40,)


def test_threads(kde):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(kde.held_out_log_density_))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for scores in found:
        assert_array_equal(scores, found[0])


def test_float32():
    X = correlated(300, 20, seed=0).astype(np.float32)
    options = {"covariance_type": "full", "bandwidth": 0.4, "random_state": 0}
    narrow = HighDimKernelDensity(**options).fit(X).held_out_log_density_
    wide = HighDimKernelDensity(**options).fit(X.astype(float)).held_out_log_density_
    assert narrow.dtype == np.float32
    assert wide.dtype == np.float64
    assert_allclose(narrow, wide, atol=2e-3)


def test_tensors():
    torch = pytest.importorskip("torch")
    X = correlated(60, 3, seed=0)
    kde = HighDimKernelDensity(covariance_type="full", bandwidth=0.4, random_state=0)
    expected = kde.fit(X).held_out_log_density_
    with config_context(array_api_dispatch=True):
        found = kde.fit(torch.asarray(X)).held_out_log_density_
    assert isinstance(found, torch.Tensor)
    assert_allclose(found.numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("make_state", [np.random.RandomState, lambda seed: None])
def test_random_state_is_left_alone(make_state):
    """Neither a fit at a given bandwidth nor the attribute draws from it."""
    np.random.seed(3)
    state = make_state(3)
    rng = np.random.mtrand._rand if state is None else state
    before = pickle.dumps(rng.get_state())
    kde = HighDimKernelDensity(covariance_type="diag", bandwidth=0.3, random_state=state)
    kde.fit(correlated(60, 3, seed=0))
    first = kde.held_out_log_density_
    assert pickle.dumps(rng.get_state()) == before
    assert_array_equal(kde.fit(correlated(60, 3, seed=0)).held_out_log_density_, first)


def test_mixture_of_the_user():
    """It is fitted again in each fold, unless it is frozen; it is not changed."""
    X = clusters(120, 3, seed=0)
    mixture = GaussianMixture(3, random_state=0).fit(X)
    means = mixture.means_.copy()
    options = {"covariance_type": "local", "bandwidth": 0.5, "random_state": 0}
    again = HighDimKernelDensity(mixture=mixture, **options).fit(X)
    new = HighDimKernelDensity(mixture=clone(mixture), **options).fit(X)
    frozen = HighDimKernelDensity(mixture=FrozenEstimator(mixture), **options).fit(X)
    assert_array_equal(again.held_out_log_density_, new.held_out_log_density_)
    kept = frozen.held_out_log_density_ - frozen.score_samples(None)
    assert_array_equal(mixture.means_, means)
    # nothing but points of the same fold are missing, and the total is less
    assert kept.max() <= np.log(119 / 114) + 1e-9
    refitted = np.abs(again.held_out_log_density_ - frozen.held_out_log_density_)
    assert refitted.max() > 0.1


# The order of rows.


def test_order_of_rows_is_another_draw():
    """Of folds, as another seed is; no more than these do results change."""
    X = correlated(60, 4, seed=0)
    kde = HighDimKernelDensity(covariance_type="full")

    def mean(X, seed):
        return kde.set_params(random_state=seed).fit(X).held_out_log_density_.mean()

    orders = [np.random.default_rng(seed).permutation(60) for seed in range(12)]
    by_order = [mean(X[order], 0) for order in orders]
    by_seed = [mean(X, seed) for seed in range(12)]
    assert np.std(by_order) > 0.0
    assert 0.4 < np.std(by_order) / np.std(by_seed) < 2.5


def test_order_of_rows_does_not_matter_without_draws():
    """Not to the textbook's estimate, nor to structures at a bandwidth."""
    X, queries = correlated(60, 4, seed=0), correlated(20, 4, seed=1)
    order = np.random.default_rng(0).permutation(60)
    cases = [
        {},
        {"kernel": "exponential"},
        {"bandwidth": "nearest"},
        {"covariance_type": "full", "bandwidth": 0.4, "preserve_variance": True},
        {"adaptive": True, "bandwidth": 0.4},
    ]
    for parameters in cases:
        kde = HighDimKernelDensity(**parameters, random_state=0)
        one, other = clone(kde).fit(X), clone(kde).fit(X[order])
        assert other.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-7)
        expected = one.score_samples(queries)
        assert_allclose(other.score_samples(queries), expected, atol=1e-7)
        left_out = one.score_samples(None)[order]
        assert_allclose(other.score_samples(None), left_out, atol=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = clone(HighDimKernelDensity()).fit(X[order]).held_out_log_density_
    expected = HighDimKernelDensity().fit(X).held_out_log_density_[order]
    assert_allclose(plain, expected, atol=1e-7)
