"""The choice of structure, tail and bandwidth on held-out points."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks
from structured_oracle import make_oracle

from skhdkde import HighDimKernelDensity, kl_scorer
from skhdkde._selection import cross_validation, structure_search

DUPLICATES = "ignore:.*training points are exact duplicates:UserWarning"


@parametrize_with_checks(
    [
        HighDimKernelDensity(covariance_type="full", preserve_variance=True),
        HighDimKernelDensity(
            covariance_type="diag",
            kernel="student",
            degrees_of_freedom=5.0,
            bandwidth=0.5,
            adaptive=True,
        ),
    ]
)
@pytest.mark.filterwarnings(DUPLICATES)
@pytest.mark.filterwarnings("ignore:.*features of X are discrete:UserWarning")
def test_scikit_learn_checks(estimator, check):
    if "array_api" in str(check):
        pytest.skip("in test_estimator, once is enough")
    check(estimator)


def correlated(n, d, seed, df=None):
    """Fresh points of one law: correlated features, Gaussian or Student."""
    mixing = np.random.default_rng(0).standard_normal((d, d)) / np.sqrt(d)
    covariance = mixing @ mixing.T + 0.1 * np.eye(d)
    if df is not None:
        return multivariate_t(np.zeros(d), covariance, df=df).rvs(n, random_state=seed)
    return multivariate_normal(np.zeros(d), covariance).rvs(n, random_state=seed)


@pytest.mark.parametrize(
    "n, d", [(150, 64), (200, 384), pytest.param(2000, 30, marks=pytest.mark.slow)]
)
def test_choice_is_best_on_fresh_points(n, d):
    """Not fooled by the points' own share in what is fitted to them."""
    X, fresh = correlated(n, d, seed=1), correlated(1000, d, seed=2)
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    found = kde.score_samples(fresh).mean()
    best = -np.inf
    for candidate in kde.bandwidth_search_.candidates:
        if candidate.mixture is not None:
            continue
        other = HighDimKernelDensity(
            bandwidth=candidate.bandwidth,
            kernel="student",
            degrees_of_freedom=candidate.degrees_of_freedom,
            covariance_type=candidate.covariance_type,
            preserve_variance=True,
        ).fit(X)
        best = max(best, other.score_samples(fresh).mean())
    assert found >= best - max(0.5, 0.01 * abs(best))
    # what the search saw is what fresh points give, while the training points, left out
    # by index only, had a share in the covariance
    means = [c.mean_log_density for c in kde.bandwidth_search_.candidates]
    full = HighDimKernelDensity(covariance_type="full", preserve_variance=True).fit(X)
    fooled = full.score_samples(None).mean()
    honest = full.bandwidth_search_.mean_log_density.max()
    truth = full.score_samples(fresh).mean()
    assert abs(honest - truth) < 0.06 * abs(truth)
    if n < 1000:
        assert fooled - truth > 2.0 * abs(honest - truth)
    assert kde.bandwidth_search_.mean_log_density.max() == pytest.approx(max(means))


@pytest.mark.slow
def test_normal_data_get_the_normal_law():
    """Nothing is paid for the dimension where the data are normal."""
    X, fresh = correlated(1500, 30, seed=1), correlated(1000, 30, seed=2)
    mixing = np.random.default_rng(0).standard_normal((30, 30)) / np.sqrt(30)
    truth = multivariate_normal(np.zeros(30), mixing @ mixing.T + 0.1 * np.eye(30))
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    assert kde.covariance_type_ in ("full", "local")
    assert kde.bandwidth_ > 0.9
    kl = np.mean(truth.logpdf(fresh) - kde.score_samples(fresh))
    assert -0.1 < kl < 0.5
    spherical = HighDimKernelDensity().fit(X).score_samples(fresh)
    assert np.mean(truth.logpdf(fresh) - spherical) > 4.0


def test_tails_are_found():
    X, fresh = correlated(1500, 15, 1, df=4.0), correlated(1000, 15, 2, df=4.0)
    student = HighDimKernelDensity(
        covariance_type="full", preserve_variance=True, kernel="student", random_state=0
    ).fit(X)
    assert 3.0 <= student.degrees_of_freedom_ <= 10.0
    gaussian = HighDimKernelDensity(covariance_type="full", preserve_variance=True).fit(X)
    gain = student.score_samples(fresh).mean() - gaussian.score_samples(fresh).mean()
    assert gain > 0.5
    normal = correlated(1500, 15, seed=3)
    assert student.fit(normal).degrees_of_freedom_ == 100.0


def test_mixture_is_found():
    rng = np.random.default_rng(0)
    centers = 6.0 * rng.standard_normal((2, 10))
    shapes = rng.standard_normal((2, 10, 10)) / 3.0

    def draw(n):
        c = rng.integers(2, size=n)
        noise = np.einsum("nij,nj->ni", shapes[c], rng.standard_normal((n, 10)))
        return centers[c] + noise + 0.1 * rng.standard_normal((n, 10))

    X, fresh = draw(800), draw(1000)
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    assert kde.covariance_type_ == "local"
    two = GaussianMixture(2, random_state=0).fit(X).score(fresh)
    assert kde.score_samples(fresh).mean() > two - 0.1
    table = kde.bandwidth_search_.to_frame()
    assert table.mean_log_density.is_monotonic_decreasing
    assert set(table.covariance_type) >= {"spherical", "diag", "full", "local"}
    one, other = clone_fit(kde, X), pickle.loads(pickle.dumps(kde))
    assert_allclose(one.score_samples(fresh), kde.score_samples(fresh))
    assert_allclose(other.score_samples(fresh), kde.score_samples(fresh))


def clone_fit(estimator, X):
    return type(estimator)(**estimator.get_params(deep=False)).fit(X)


@pytest.mark.slow
def test_breast_cancer_beats_scikit_learn():
    """Means over two halves, each estimate fitted to the other."""
    X = load_breast_cancer().data
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    order = np.random.default_rng(0).permutation(len(X))
    halves = X[order[::2]], X[order[1::2]]

    def held_out(fit_score):
        return np.mean([fit_score(a, b) for a, b in (halves, halves[::-1])])

    auto = HighDimKernelDensity(covariance_type="auto", random_state=0)
    own = held_out(lambda a, b: auto.fit(a).score_samples(b).mean())
    exact = {"leaf_size": len(X)}
    others = {
        "KernelDensity": lambda a, b: max(
            KernelDensity(bandwidth=h, **exact).fit(a).score_samples(b).mean()
            for h in (0.3, 0.5, 0.8)
        ),
        "Gaussian": lambda a, b: LedoitWolf().fit(a).score(b),
        "GaussianMixture": lambda a, b: max(
            GaussianMixture(k, covariance_type=kind, reg_covar=reg, random_state=0)
            .fit(a)
            .score(b)
            for k in (1, 2, 4)
            for kind in ("full", "diag", "tied")
            for reg in (1e-3, 1e-1)
        ),
    }
    for name, fit_score in others.items():
        assert own > held_out(fit_score) + 1.0, name


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
def test_search_agrees_with_a_grid(covariance_type):
    """The bandwidth is the best of a fine grid on points that were held out."""
    X, fresh = correlated(1200, 8, seed=1), correlated(4000, 8, seed=2)
    options = {"covariance_type": covariance_type, "preserve_variance": True}
    kde = HighDimKernelDensity(**options, random_state=0).fit(X)
    search = kde.bandwidth_search_
    assert search.bandwidths[0] <= kde.bandwidth_ <= search.bandwidths[-1] * (1 + 1e-9)
    scores = [
        HighDimKernelDensity(bandwidth=h, **options).fit(X).score_samples(fresh).mean()
        for h in kde.bandwidth_ * np.array([0.7, 0.8, 0.9, 1.0])
    ]
    assert np.argmax(scores) >= 2
    assert max(scores) - scores[-1] < 0.02


def test_grid_search_over_structures():
    X = correlated(300, 6, seed=1)
    grid = {"covariance_type": ["spherical", "full"], "preserve_variance": [False, True]}
    search = GridSearchCV(HighDimKernelDensity(), grid, scoring=kl_scorer, cv=3).fit(X)
    assert search.best_params_ == {"covariance_type": "full", "preserve_variance": True}


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"kernel": "tophat", "preserve_variance": True}, "kernel='tophat'"),
        ({"kernel": "linear", "covariance_type": "auto"}, "kernel='linear'"),
        ({"kernel": "cosine", "adaptive": True}, "kernel='cosine'"),
        ({"kernel": "exponential", "adaptive": 3}, "adaptive needs kernel"),
        ({"kernel": "exponential", "covariance_type": "local"}, "'local' needs kernel"),
        ({"covariance_type": "auto", "bandwidth": 0.3}, "needs bandwidth='kl', got 0.3"),
        ({"kernel": "student", "bandwidth": 0.3}, "degrees_of_freedom='auto'"),
        ({"adaptive": True, "bandwidth": "scott"}, "bandwidth='scott'"),
        ({"adaptive": 0}, "The 'adaptive' parameter"),
        ({"covariance_type": "round"}, "The 'covariance_type' parameter"),
        ({"covariance_estimator": "lw"}, "The 'covariance_estimator' parameter"),
        ({"mixture": 3}, "The 'mixture' parameter"),
        ({"degrees_of_freedom": -1.0}, "The 'degrees_of_freedom' parameter"),
        (
            {
                "kernel": "student",
                "degrees_of_freedom": 2.0,
                "preserve_variance": True,
            },
            "degrees_of_freedom must be > 2, got 2.0",
        ),
        (
            {"covariance_type": "full", "preserve_variance": True, "bandwidth": 1.2},
            "bandwidth=1.2 must be at most 1 ",
        ),
    ],
)
def test_errors(parameters, message):
    kde = HighDimKernelDensity(**parameters)
    with pytest.raises(ValueError, match=message):
        kde.fit(correlated(30, 3, seed=0))
    with pytest.raises(NotFittedError):
        kde.score_samples(np.zeros((1, 3)))


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full", "auto"])
def test_few_points(n, covariance_type):
    X = correlated(n, 4, seed=0)
    kde = HighDimKernelDensity(
        covariance_type=covariance_type, preserve_variance=True, random_state=0
    )
    if n == 2:  # a fold leaves one point, which has no variance
        with pytest.raises(ValueError, match="n_samples=2"):
            kde.fit(X)
        return
    kde.fit(X)
    assert np.isfinite(kde.score_samples(X)).all()
    assert np.isfinite(kde.score_samples(None)).all()


@pytest.mark.filterwarnings("error")
def test_duplicates_are_one_point():
    X = correlated(200, 5, seed=0)
    doubled = np.vstack([X, X[:50]])
    kde = HighDimKernelDensity(covariance_type="full", random_state=0)
    with pytest.warns(UserWarning, match="50 of the 250 training points") as record:
        kde.fit(doubled)
    assert record[0].filename == __file__
    weights = np.concatenate([np.full(50, 2.0), np.ones(150)])
    other = HighDimKernelDensity(covariance_type="full", random_state=0)
    other.fit(X, sample_weight=weights)
    assert kde.bandwidth_ == pytest.approx(other.bandwidth_, rel=1e-6)
    assert kde.bandwidth_search_.n_copies == 50


def test_frozen_mixture_stays_as_it_is():
    X, other = correlated(200, 4, seed=1), correlated(300, 4, seed=2)
    mixture = GaussianMixture(3, random_state=0).fit(other)
    kde = HighDimKernelDensity(
        covariance_type="local", mixture=FrozenEstimator(mixture), random_state=0
    )
    search = GridSearchCV(kde, {"preserve_variance": [True]}, scoring=kl_scorer, cv=2)
    found = search.fit(X).best_estimator_
    options = {"preserve_variance": True}
    oracle = make_oracle(X, "local", mixture, found.bandwidth_, options)
    queries = correlated(20, 4, seed=3)
    expected = oracle.log_density(queries)
    assert_allclose(found.score_samples(queries), expected, atol=1e-8)


# All are looked at on the first fold, few run on all folds, fewer at all points.


def clusters(n, seed):
    rng = np.random.default_rng(seed)
    return correlated(n, 6, seed) + 4.0 * np.eye(6)[rng.integers(6, size=n)]


def with_far_rows(X, seed):
    """Four rows moved, of which the first fold may have none."""
    rng = np.random.default_rng(seed)
    X[:4] += 60.0 * rng.normal(size=(4, X.shape[1]))
    return rng.permutation(X)


LAWS = {
    "correlated": lambda n, seed: correlated(n, 6, seed),
    "heavy tails": lambda n, seed: correlated(n, 6, seed, df=4.0),
    "clusters": clusters,
    "clusters, far rows": lambda n, seed: with_far_rows(clusters(n, seed), seed),
    "skewed": lambda n, seed: np.exp(0.5 * correlated(n, 6, seed)),
}


def compare_all(monkeypatch):
    """Let all settings run on all folds, at all points."""
    monkeypatch.setattr(structure_search, "FEWEST_SCREENED", 10**9)
    monkeypatch.setattr(structure_search, "SURELY", np.inf)


@pytest.mark.parametrize(
    "law, n, weighted",
    [
        ("correlated", 300, False),
        ("heavy tails", 300, True),
        ("clusters", 300, False),
        ("clusters, far rows", 300, False),
        ("skewed", 300, False),
        ("clusters", 1050, True),
        pytest.param("heavy tails", 1050, False, marks=pytest.mark.slow),
        ("skewed", 1050, False),
    ],
)
def test_few_are_compared_on_all(monkeypatch, law, n, weighted):
    """The choice is that of comparing all on all folds, or as good."""
    X, fresh = LAWS[law](n, 1), LAWS[law](1000, 2)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, len(X)) if weighted else None
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0)
    kde.fit(X, sample_weight=weights)
    compare_all(monkeypatch)
    every = HighDimKernelDensity(covariance_type="auto", random_state=0)
    every.fit(X, sample_weight=weights)
    held_out = every.bandwidth_search_.mean_log_density.max()
    assert kde.bandwidth_search_.mean_log_density.max() > held_out - 0.02
    assert kl_scorer(kde, fresh) == pytest.approx(kl_scorer(every, fresh), abs=0.02)
    # what is on record of those that were not looked at again
    known = {_key(c): c for c in every.bandwidth_search_.candidates}
    found = kde.bandwidth_search_.candidates
    best = max(found, key=lambda candidate: candidate.mean_log_density)
    assert best.weight == 1.0
    chosen = max(known.values(), key=lambda candidate: candidate.mean_log_density)
    assert best.mean_log_density == pytest.approx(
        kde.bandwidth_search_.mean_log_density.max()
    )
    assert len(found) < len(known)
    for candidate in found if "far rows" not in law else ():  # the look has few of them
        other = known[_key(candidate)]
        lack = best.mean_log_density - candidate.mean_log_density
        expected = chosen.mean_log_density - other.mean_log_density
        most = 0.1 + 0.5 * expected + candidate.standard_error
        assert lack == pytest.approx(expected, abs=most)


def _key(candidate):
    return (
        candidate.covariance_type,
        repr(candidate.mixture),
        candidate.degrees_of_freedom,
    )


def test_what_is_far_behind_is_not_looked_at_again(monkeypatch):
    """Few settings are fitted outside of each fold; most passes are over few points."""
    sizes, log_density = [], cross_validation.HeldOut.log_density
    fits, components = [], cross_validation.Folds.components

    def spy(self, trials, places=None):
        found = log_density(self, trials, places)
        sizes.append(found.size)
        return found

    def spy_on_fits(self, structure, fold):
        fits.append((structure, fold))
        return components(self, structure, fold)

    monkeypatch.setattr(cross_validation.HeldOut, "log_density", spy)
    monkeypatch.setattr(cross_validation.Folds, "components", spy_on_fits)
    X = correlated(1100, 10, 1)
    HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    size, n_fits = sum(sizes), len(fits)
    assert len(set(fits)) == n_fits  # none twice
    sizes.clear()
    fits.clear()
    compare_all(monkeypatch)
    HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    assert size < 0.4 * sum(sizes)
    assert n_fits < 0.6 * len(fits)


@pytest.mark.filterwarnings("ignore:X has .* decide the variance:UserWarning")
@pytest.mark.parametrize("seed", range(3))
def test_rare_rows_decide_the_tail(monkeypatch, seed):
    """Which a few of the held-out points taken at random would miss."""
    rng = np.random.default_rng([0, 8, 9][seed])
    X = rng.normal(size=(1100, 8)) * np.where(rng.random((1100, 1)) < 0.002, 1e6, 1.0)
    kde = HighDimKernelDensity(kernel="student", random_state=seed).fit(X)
    compare_all(monkeypatch)
    every = HighDimKernelDensity(kernel="student", random_state=seed).fit(X)
    found, best = (k.bandwidth_search_.mean_log_density.max() for k in (kde, every))
    assert found == pytest.approx(best, abs=0.01)


@pytest.mark.filterwarnings("ignore:X has .* decide the variance:UserWarning")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_search_goes_on_to_a_maximum(seed, weighted):
    """However far it is from where a few queries have it."""
    rng, weights = np.random.default_rng(seed), None
    X = rng.normal(size=(1000, 3))
    X[:2] *= 300.0
    if weighted:
        X[:2] /= 300.0
        X[:10] *= 30.0
        weights = np.where(np.arange(1000) < 10, 100.0, 1.0)
    kde = HighDimKernelDensity(covariance_type="diag", random_state=0)
    search = kde.fit(X, sample_weight=weights).bandwidth_search_
    assert 0 < search.mean_log_density.argmax() < len(search.bandwidths) - 1
    assert search.mean_log_density.max() > -25.0
