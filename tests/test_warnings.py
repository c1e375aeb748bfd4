"""Warnings name the user's line, and are nobody else's."""

import threading
import warnings

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import (
    BandwidthDisplay,
    HighDimKernelDensity,
    RegimeDisplay,
    kl_scorer,
    select_bandwidth,
)
from skhdkde.dask import DaskHighDimKernelDensity

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 4))
DUPLICATES = np.vstack([X, X[:50]])
ONE_HOT = np.column_stack([X, X[:, 0] > X[:, 1], X[:, 0] <= X[:, 1]])
# In every fold of a search some points are duplicates of others.
SHUFFLED = RNG.permutation(np.repeat(X[:100], 3, axis=0))


def fitted(**parameters):
    return HighDimKernelDensity(**{"bandwidth": 0.5, "random_state": 0, **parameters})


def sampling():
    """An estimator that states errors above its tolerance."""
    return fitted(algorithm="sampling", tol=1e-9)


def grid_search(estimator, **grid):
    return GridSearchCV(estimator, grid, scoring=kl_scorer, cv=3, n_jobs=1)


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


GRID = {"preserve_variance": [False]}
PIPELINE_GRID = {"highdimkerneldensity__preserve_variance": [False]}
MANY = np.random.default_rng(1).standard_normal((4500, 4))
CALLS = {
    "at an end of the 2 tried": {
        "select_bandwidth": lambda: select_bandwidth(X, bandwidths=[0.01, 0.02]),
    },
    "training points are exact duplicates": {
        "fit": lambda: fitted(bandwidth="kl").fit(DUPLICATES),
        "nearest": lambda: fitted(bandwidth="nearest").fit(DUPLICATES),
        "folds": lambda: fitted(bandwidth="kl", covariance_type="diag").fit(DUPLICATES),
        "neighbors": lambda: fitted(
            bandwidth="kl",
            algorithm="neighbors",
            neighbors_index=KNeighborsTransformer(n_neighbors=70),
        ).fit(DUPLICATES),
        "select_bandwidth": lambda: select_bandwidth(DUPLICATES),
        "pipeline": lambda: scaled(fitted(bandwidth="kl")).fit(DUPLICATES),
        "grid search": lambda: grid_search(fitted(bandwidth="kl"), **GRID).fit(SHUFFLED),
        "grid search over a pipeline": lambda: grid_search(
            scaled(fitted(bandwidth="kl")), **PIPELINE_GRID
        ).fit(SHUFFLED),
        "blocks": lambda: DaskHighDimKernelDensity(random_state=0).fit(
            da.from_array(DUPLICATES, chunks=(100, 4))
        ),
        "blocks, folds": lambda: DaskHighDimKernelDensity(
            random_state=0, covariance_type="diag"
        ).fit(da.from_array(DUPLICATES, chunks=(100, 4))),
    },
    "apart in scale": {
        "fit": lambda: fitted().fit(X * [1.0, 1.0, 1.0, 1000.0]),
        "grid search": lambda: grid_search(fitted(), **GRID).fit(X * [1.0, 1, 1, 1000]),
    },
    "features of X are discrete": {
        "fit": lambda: fitted(covariance_type="full").fit(ONE_HOT),
        "pipeline": lambda: scaled(fitted(covariance_type="full")).fit(ONE_HOT),
    },
    "stated error above tol=": {
        "score_samples": lambda: sampling().fit(MANY).score_samples(X),
        "left out": lambda: sampling().fit(MANY).score_samples(None),
        "score": lambda: sampling().fit(MANY).score(X),
        "pipeline": lambda: scaled(sampling()).fit(MANY).score_samples(X),
        "scorer": lambda: kl_scorer(scaled(sampling()).fit(MANY), X),
        "grid search": lambda: grid_search(sampling(), **GRID).fit(MANY),
        "cross validation": lambda: cross_val_score(
            scaled(sampling()), MANY, scoring=kl_scorer, cv=3
        ),
    },
    "No best bandwidth between": {
        "display": lambda: BandwidthDisplay.from_estimator(fitted().fit(X), X),
        "pipeline": lambda: BandwidthDisplay.from_estimator(scaled(fitted()).fit(X), X),
    },
    "KL divergence from true_log_density is negative": {
        "display": lambda: BandwidthDisplay.from_estimator(
            fitted().fit(X), X[:20] + 0.5, true_log_density=lambda X: np.full(20, -50.0)
        ),
    },
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    "message, call",
    [(message, call) for message, calls in CALLS.items() for call in calls],
)
@pytest.mark.usefixtures("in_this_thread")
def test_a_warning_names_the_line_of_the_user(message, call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[message][call]()
    ours = [warning for warning in caught if message in str(warning.message)]
    assert ours
    assert {warning.filename for warning in ours} == {__file__}
    assert {warning.category for warning in ours} == {UserWarning}


def test_there_is_no_other_warning():
    """Each is said once, and what is as it should be says nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(bandwidth="kl").fit(DUPLICATES).score_samples(X)
        kde = fitted(bandwidth="kl").fit(X)
        RegimeDisplay.from_estimator(kde), BandwidthDisplay.from_estimator(kde)
    assert len(caught) == 1


def test_warnings_of_other_threads_are_no_errors():
    """While one searches a bandwidth among neighbours, another fits duplicates."""
    points = np.random.default_rng(2).standard_normal((2600, 10))
    index = KNeighborsTransformer(n_neighbors=70)
    kde = fitted(bandwidth="kl", algorithm="neighbors", neighbors_index=index)
    done, errors, n_calls = threading.Event(), [], []

    def fit_duplicates():
        while not done.wait(0.01):
            n_calls.append(1)
            try:
                select_bandwidth(SHUFFLED, rule="nearest")
            except Warning as error:
                errors.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=fit_duplicates)
        thread.start()
        try:
            kde.fit(points)
        finally:
            done.set()
            thread.join()
    assert len(n_calls) > 3
    assert not errors
