"""Scorers, alone and in model selection."""

import pickle
import warnings

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, kl_scorer, make_kl_scorer


def true_log_density(X):
    return multivariate_normal(np.zeros(X.shape[1])).logpdf(X)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((500, 8)), rng.standard_normal((400, 8))


def test_mean_held_out_log_density(data):
    X, test = data
    kde = HighDimKernelDensity(bandwidth=0.6).fit(X)
    assert kl_scorer(kde, test) == pytest.approx(kde.score(test) / len(test))
    assert kl_scorer(kde, np.vstack([test] * 3)) == pytest.approx(kl_scorer(kde, test))
    assert kl_scorer(kde, test, y=np.zeros(len(test))) == kl_scorer(kde, test)


def test_minus_divergence(data):
    X, test = data
    kde = HighDimKernelDensity(bandwidth=0.6).fit(X)
    scorer = make_kl_scorer(log_density=true_log_density)
    expected = np.mean(kde.score_samples(test) - true_log_density(test))
    assert scorer(kde, test) == pytest.approx(expected)
    assert scorer(kde, test) < 0
    per_dimension = make_kl_scorer(log_density=true_log_density, per_dimension=True)
    assert per_dimension(kde, test) == pytest.approx(expected / 8)

    class Truth:
        def score_samples(self, X):
            return true_log_density(X)

    assert scorer(Truth(), test) == 0.0


def test_grid_search_finds_what_kl_finds(data):
    X, _ = data
    best = HighDimKernelDensity().fit(X).bandwidth_
    grid = {"bandwidth": best * np.exp(np.linspace(-0.5, 0.5, 21))}
    search = GridSearchCV(HighDimKernelDensity(), grid, scoring=kl_scorer, cv=10).fit(X)
    # a fold trains on nine tenths of the points, and wants a little more
    assert search.best_params_["bandwidth"] == pytest.approx(best, rel=0.1)


def test_through_a_pipeline(data):
    X, test = data
    pipeline = make_pipeline(
        StandardScaler(), PCA(4), HighDimKernelDensity(bandwidth=0.5)
    )
    score = kl_scorer(pipeline.fit(X), test)
    assert score == pytest.approx(np.mean(pipeline.score_samples(test)))
    scores = cross_val_score(pipeline, X, scoring=kl_scorer, cv=3)
    assert np.isfinite(scores).all()


def test_finite_ordering_without_warnings(data):
    """Bandwidths that leave held-out points out of reach rank by how many they leave."""
    X, _ = data
    bandwidths = [1e-3, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = GridSearchCV(
            HighDimKernelDensity(kernel="tophat"),
            {"bandwidth": bandwidths},
            scoring=kl_scorer,
        ).fit(X)
    results = search.cv_results_
    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        assert np.isfinite(results[name]).all()
    scores = results["mean_test_score"]
    assert (np.diff(scores[:5]) > 0).all()
    assert scores[0] == -1e9
    assert scores[-1] > -100.0  # all in reach


def test_scores_are_finite_for_absurd_bandwidths(data):
    X, test = data
    scores = [
        kl_scorer(HighDimKernelDensity(bandwidth=h).fit(X), test)
        for h in (1e-9, 1e-3, 1e-2, 1.0, 1e9)
    ]
    assert np.isfinite(scores).all()
    assert scores[0] == -1e9
    assert scores[0] < scores[1] < scores[2] < scores[3]


def test_any_estimator_with_score_samples(data):
    X, test = data
    mixture = GaussianMixture(2, random_state=0).fit(X)
    assert kl_scorer(mixture, test) == pytest.approx(mixture.score(test))
    with pytest.raises(TypeError, match="score_samples, got StandardScaler"):
        kl_scorer(StandardScaler().fit(X), test)


def test_bad_log_density(data):
    X, test = data
    with pytest.raises(TypeError, match="log_density must be callable or None, got 3"):
        make_kl_scorer(log_density=3)
    kde = HighDimKernelDensity(bandwidth=0.6).fit(X)
    with pytest.raises(ValueError, match=r"log_density\(X\) must have shape \(400,\)"):
        make_kl_scorer(log_density=lambda X: X)(kde, test)
    with pytest.raises(ValueError, match=r"log_density\(X\) contains NaN"):
        make_kl_scorer(log_density=lambda X: np.full(len(X), np.nan))(kde, test)


def test_pickle_and_repr(data):
    X, test = data
    kde = HighDimKernelDensity(bandwidth=0.6).fit(X)
    for scorer in (
        kl_scorer,
        make_kl_scorer(log_density=multivariate_normal(np.zeros(8)).logpdf),
    ):
        again = pickle.loads(pickle.dumps(scorer))
        assert again(kde, test) == scorer(kde, test)
    assert repr(kl_scorer) == "kl_scorer"
    assert "per_dimension=True" in repr(make_kl_scorer(per_dimension=True))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_in_parallel_grid_search(data, n_jobs):
    X, _ = data
    scorer = make_kl_scorer(log_density=multivariate_normal(np.zeros(8)).logpdf)
    search = GridSearchCV(
        HighDimKernelDensity(), {"bandwidth": [0.3, 0.6]}, scoring=scorer, n_jobs=n_jobs
    ).fit(X)
    assert search.best_params_["bandwidth"] == 0.6
    assert search.best_score_ < 0
