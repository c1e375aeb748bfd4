"""Selection with weights: it is selection with points repeated, routed or not."""

import inspect
import pickle
import warnings

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import sklearn
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, kl_scorer, make_kl_scorer
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
passes_weights_on = pytest.mark.skipif(
    VERSION < (1, 7), reason="searches pass weights to scorers from scikit-learn 1.7 on"
)
KINDS = HighDimKernelDensity, DaskHighDimKernelDensity
SCORERS = {
    "score": lambda: None,
    "kl_scorer": make_kl_scorer,
    "true density": lambda: make_kl_scorer(log_density=normal, per_dimension=True),
    "several": lambda: {"one": make_kl_scorer(), "other": make_kl_scorer()},
}


def normal(X):
    return -0.5 * np.sum(np.asarray(X) ** 2, axis=1)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def search(kind, grid, scoring, folds, routed=False):
    """Return a search; if ``routed`` all that takes weights asks for them."""
    estimator = kind(random_state=0)
    if routed:
        estimator.set_fit_request(sample_weight=True)
        scorers = scoring.values() if isinstance(scoring, dict) else [scoring]
        for asks in (s or estimator for s in scorers):
            asks.set_score_request(sample_weight=True)
    refit = "one" if isinstance(scoring, dict) else True
    cv = PredefinedSplit(folds)
    return GridSearchCV(
        estimator, grid, scoring=scoring, cv=cv, refit=refit, error_score="raise"
    )


def agree(found, expected):
    """Compare all scores of two searches, and what they have chosen."""
    names = [n for n in expected.cv_results_ if n.startswith(("split", "mean_test"))]
    assert len(names) >= 3
    for name in names:
        assert_allclose(found.cv_results_[name], expected.cv_results_[name], rtol=1e-9)
    assert found.best_params_ == expected.best_params_


def weights_are_repetition(source, routed):
    rng = np.random.default_rng(source.draw(st.integers(0, 2**32 - 1), "seed"))
    n, d = source.draw(st.integers(15, 40), "n"), source.draw(st.integers(1, 4), "d")
    X, folds = rng.standard_normal((n, d)), np.arange(n) % 3
    counts = rng.integers(0, 4, size=n)
    counts[:9] = 1 + np.arange(9) % 2  # points in each fold
    name = source.draw(st.sampled_from(sorted(SCORERS)), "scoring")
    kernels = ["gaussian", "student"] if name == "score" else ["gaussian", "tophat"]
    grid = {"bandwidth": [0.3, 0.8, 2.0], "kernel": kernels, "degrees_of_freedom": [5.0]}
    kind = source.draw(st.sampled_from(KINDS), "kind")
    weighted = search(kind, grid, SCORERS[name](), folds, routed)
    repeated = search(HighDimKernelDensity, grid, SCORERS[name](), folds.repeat(counts))
    agree(
        weighted.fit(X, sample_weight=counts.astype(float)),
        repeated.fit(X.repeat(counts, axis=0)),
    )


@passes_weights_on
@examples(8)
@given(source=st.data())
def test_weights_are_repetition(source):
    weights_are_repetition(source, routed=False)


@examples(8)
@given(source=st.data())
def test_routed_weights_are_repetition(source):
    with sklearn.config_context(enable_metadata_routing=True):
        weights_are_repetition(source, routed=True)


@passes_weights_on
@pytest.mark.parametrize("scoring", ["score", "kl_scorer"])
def test_weights_decide(scoring):
    """Half of the points are narrow, half wide; weights say which half matters."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3)) * np.where(np.arange(300) % 2, 1.0, 20.0)[:, None]
    narrow = np.where(np.arange(300) % 2, 1.0, 1e-3)
    grid = {"bandwidth": [0.4, 8.0]}
    args = HighDimKernelDensity, grid, SCORERS[scoring](), np.arange(300) // 2 % 5
    found = [search(*args).fit(X, sample_weight=w) for w in (narrow, narrow[::-1])]
    assert [one.best_params_["bandwidth"] for one in found] == [0.4, 8.0]


@passes_weights_on
def test_rules_in_a_search():
    """Where the estimator chooses its bandwidth by itself."""
    rng = np.random.default_rng(0)
    X, counts, folds = rng.standard_normal((60, 2)), rng.integers(1, 4, 60), [0, 1] * 30
    grid = {"bandwidth": ["kl", "nearest"]}
    args = HighDimKernelDensity, grid, kl_scorer
    found = search(*args, folds).fit(X, sample_weight=counts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*duplicates")
        expected = search(*args, np.repeat(folds, counts))
        expected.fit(X.repeat(counts, axis=0))
    agree(found, expected)


# One score.


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((80, 3)), rng.standard_normal((40, 3)), np.arange(40) % 4


@pytest.mark.parametrize("kind", KINDS)
def test_total_and_mean(kind, data):
    X, test, counts = data
    kde = kind(bandwidth=0.5).fit(X)
    log_density = kde.score_samples(test)
    total, mean = log_density @ counts, np.average(log_density, weights=counts)
    for weights in (counts, counts.tolist(), pd.Series(counts)):
        assert kde.score(test, sample_weight=weights) == pytest.approx(total)
        assert kl_scorer(kde, test, sample_weight=weights) == pytest.approx(mean)
    assert kde.score(test, None, 7.0 * counts) == pytest.approx(7.0 * total)
    for factor in (7.0, 1e-300, 1e308):
        found = kl_scorer(kde, test, None, sample_weight=factor / 3.0 * counts)
        assert found == pytest.approx(mean)
    assert kde.score(test, sample_weight=None) == kde.score(test)
    assert kl_scorer(kde, test, sample_weight=None) == kl_scorer(kde, test)
    assert kde.score(test, sample_weight=np.zeros(40)) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_weight_is_not_there(kind, data):
    """Also where its log density is infinite."""
    X, test, counts = data
    kde = kind(bandwidth=2.0, kernel="tophat").fit(X)
    far, weights = np.vstack([test, [[1e6] * 3]]), np.r_[counts, 0]
    for score in (kde.score, lambda X, **kwargs: kl_scorer(kde, X, **kwargs)):
        found = score(far, sample_weight=weights)
        assert np.isfinite(found)
        assert found == pytest.approx(score(test, sample_weight=counts))
    assert kde.score(far, sample_weight=np.ones(41)) == -np.inf


BAD_WEIGHTS = [
    (-np.ones(40), "sample_weight must not be negative, got -1.0 at index 0"),
    (np.full(40, np.nan), "sample_weight contains NaN"),
    (np.ones(39), r"sample_weight.shape == \(39,\), expected \(40,\)"),
    (np.ones((40, 1)), "sample_weight must be 1D"),
    (["a"] * 40, "sample_weight: could not convert"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights, message", BAD_WEIGHTS)
def test_bad_weights(kind, weights, message, data):
    kde = kind(bandwidth=0.5).fit(data[0])
    with pytest.raises(ValueError, match=message):
        kde.score(data[1], sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        kl_scorer(kde, data[1], sample_weight=weights)


def test_a_mean_of_nothing(data):
    kde = HighDimKernelDensity(bandwidth=0.5).fit(data[0])
    with pytest.raises(ValueError, match="sample_weight must have a positive entry"):
        kl_scorer(kde, data[1], sample_weight=np.zeros(40))


def series(weights, npartitions):
    return dd.from_pandas(pd.Series(weights), npartitions=npartitions)


def frame(X, npartitions):
    return dd.from_pandas(pd.DataFrame(X), npartitions=npartitions)


@pytest.mark.parametrize(
    "of_X, of_weights",
    [
        (lambda X: da.from_array(X, chunks=(15, 3)), lambda w: da.from_array(w, 15)),
        (lambda X: da.from_array(X, chunks=(15, 3)), lambda w: da.from_array(w, 7)),
        (lambda X: da.from_array(X, chunks=(15, 3)), np.asarray),
        (lambda X: frame(X, 4), lambda w: series(w, 4)),
        (lambda X: frame(X, 4), np.asarray),
        (np.asarray, lambda w: da.from_array(w, 15)),
        (np.asarray, lambda w: series(w, 4)),
    ],
)
def test_collections_of_dask(of_X, of_weights, data):
    X, test, counts = data
    kde = DaskHighDimKernelDensity(bandwidth=0.5).fit(da.from_array(X, chunks=(30, 3)))
    of_X, of_weights = of_X(test), of_weights(counts)
    total = kde.score(test, sample_weight=counts)
    assert kde.score(of_X, sample_weight=of_weights) == pytest.approx(total)
    mean = kl_scorer(kde, test, sample_weight=counts)
    assert kl_scorer(kde, of_X, sample_weight=of_weights) == pytest.approx(mean)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda w: da.from_array(-w, 15), "sample_weight must not be negative"),
        (lambda w: da.from_array(w * np.nan, 15), "sample_weight contains NaN"),
        (lambda w: da.from_array(w[1:], 15), r"sample_weight.shape == \(39,\)"),
        (lambda w: da.from_array(w[:, None], 15), "sample_weight must be 1D"),
        (lambda w: series(w, 4), "go together one by one"),
    ],
)
def test_bad_weights_of_dask(make, message, data):
    X, test, counts = data
    kde = DaskHighDimKernelDensity(bandwidth=0.5).fit(X)
    with pytest.raises(ValueError, match=message):
        kde.score(da.from_array(test, chunks=(15, 3)), sample_weight=make(1.0 + counts))


# As scikit-learn's own.


def test_pipelines_pass_weights_on(data):
    X, test, counts = data
    pipeline = make_pipeline(StandardScaler(), HighDimKernelDensity(bandwidth=0.5)).fit(X)
    expected = pipeline[-1].score(pipeline[0].transform(test), sample_weight=counts)
    assert pipeline.score(test, sample_weight=counts) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_requests(kind, routing):
    for asks in (kind(), make_kl_scorer()):
        score = asks.get_metadata_routing().score
        assert score.requests == {"sample_weight": None}
        for alias in (True, False, None, "of_points"):
            assert asks.set_score_request(sample_weight=alias) is asks
            assert asks.get_metadata_routing().score.requests == {"sample_weight": alias}
        with pytest.raises(TypeError):
            asks.set_score_request(weights=True)
        with pytest.raises(ValueError, match="alias"):
            asks.set_score_request(sample_weight=3)
        assert asks.get_metadata_routing().score.requests["sample_weight"] == "of_points"
        for again in (clone(asks, safe=False), pickle.loads(pickle.dumps(asks))):
            requests = again.get_metadata_routing().score.requests
            assert requests == {"sample_weight": "of_points"}
    assert inspect.signature(kind.set_score_request).parameters.keys() == {
        "self",
        "sample_weight",
    }
    assert kl_scorer.get_metadata_routing().score.requests == {"sample_weight": None}


@pytest.mark.parametrize("asks", [HighDimKernelDensity(), kl_scorer], ids=repr)
def test_requests_without_routing(asks):
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        asks.set_score_request(sample_weight=True)


@pytest.mark.parametrize("scoring", ["score", "kl_scorer", "several"])
def test_weights_that_nothing_asks_for(scoring, data, routing):
    X, weights = data[0], np.ones(80)
    one = search(
        HighDimKernelDensity, {"bandwidth": [0.5]}, SCORERS[scoring](), [0, 1] * 40
    )
    one.estimator.set_fit_request(sample_weight=True)
    with pytest.raises(UnsetMetadataPassedError, match="set_score_request"):
        one.fit(X, sample_weight=weights)


@pytest.mark.parametrize("alias", [True, False, "of_points"])
def test_weights_by_name(alias, data, routing):
    """Routed to the scorer alone, to the fit alone, and under another name."""
    X, weights = data[0], 1.0 + np.arange(80) % 3
    scorer = make_kl_scorer().set_score_request(sample_weight=alias)
    kde = HighDimKernelDensity(bandwidth=0.5).set_fit_request(sample_weight=not alias)
    params = {"of_points" if alias == "of_points" else "sample_weight": weights}
    folds = np.arange(80) % 4
    found = cross_val_score(
        kde, X, scoring=scorer, cv=PredefinedSplit(folds), params=params
    )
    for fold, score in enumerate(found):
        own = weights[folds == fold] if alias else None
        of_fit = None if alias else weights[folds != fold]
        left_out = clone(kde).fit(X[folds != fold], sample_weight=of_fit)
        expected = kl_scorer(left_out, X[folds == fold], sample_weight=own)
        assert score == pytest.approx(expected)
