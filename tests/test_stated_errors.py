"""Stated errors hold wherever the queries are: near training points, like them, far.

Of 95 % of the queries the difference to the sum over all points is to be below twice the
stated error, and an infinite log density that is none has an infinite one. Hypothesis
draws kinds of data, kernels, covariances, bandwidths, algorithms and distances. A default
run tries few combinations; as many others as you like::

    SKHDKDE_STATED_EXAMPLES=2000 pytest tests/test_stated_errors.py -k at_length
"""

import importlib.util
import os
import warnings

import numpy as np
import oracles
import pytest
from approximations import fit, quiet
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skhdkde import HighDimKernelDensity

EXAMPLES = os.environ.get("SKHDKDE_STATED_EXAMPLES")
# Points come from a seed: a smaller one makes no simpler example.
EASY = {"deadline": None, "database": None, "phases": [Phase.generate]}
LONG = settings(max_examples=int(EXAMPLES or 1), **EASY)
at_length = pytest.mark.skipif(
    EXAMPLES is None, reason="SKHDKDE_STATED_EXAMPLES is not set"
)
N_QUERIES = 300
# Five standard errors of a share of 300 queries below 95 %, and what 128 moved training
# points, on which errors are measured, leave open.
LEAST = 0.89
COMPACT = ("epanechnikov", "tophat", "linear", "cosine")
KERNELS = ("gaussian", "student", "exponential", *COMPACT)
KINDS = ("white", "correlated", "clusters", "heavy tails", "plane")


def fast(max_examples):
    """Return settings for a few examples, always the same."""
    return settings(max_examples=max_examples, derandomize=True, **EASY)


def points(rng, kind, n, d):
    """Return points of some kind, and fresh ones of the same."""
    Z = rng.standard_normal((2 * n, d))
    if kind == "clusters":
        Z += 3.0 * rng.standard_normal((6, d))[rng.integers(6, size=2 * n)]
    if kind == "heavy tails":
        Z *= np.sqrt(5.0 / rng.chisquare(5.0, size=(2 * n, 1)))
    if kind == "plane":
        Z = Z[:, :2] @ rng.standard_normal((2, d)) + 0.05 * Z
    if kind != "white":
        Z = Z @ (np.diag(rng.uniform(0.5, 2.0, d)) @ rng.standard_normal((d, d)))
    return Z[:n], Z[n:]


def beside(rng, Y, steps, n_queries=N_QUERIES):
    """Return training points moved by so many standard deviations of each feature."""
    Q = Y[rng.choice(len(Y), n_queries)]
    return Q + steps * Y.std(axis=0) * rng.standard_normal(Q.shape)


def errors(found, exact):
    with np.errstate(invalid="ignore"):
        return np.where(found == exact, 0.0, np.abs(found - exact))


def coverage(found, report, exact):
    """Return the share of errors below twice the stated ones."""
    lost = np.isneginf(found) & ~np.isneginf(exact)
    assert np.isposinf(report.error[lost]).all()
    return np.mean(errors(found, exact) <= 2.0 * report.error + 1e-9)


# Sampling, next to a training point and far from all.


@pytest.fixture(scope="module")
def white():
    rng = np.random.default_rng(0)
    Y, X = points(rng, "white", 6000, 30)
    places = {steps: beside(rng, Y, steps) for steps in (0.01, 0.1, 0.5, 3.0, 10.0)}
    return Y, places | {"fresh": X[:N_QUERIES]}


@pytest.mark.parametrize(
    "params",
    [
        {"bandwidth": 1.4},
        {"bandwidth": 1.4, "covariance_type": "diag"},
        {"bandwidth": 1.4, "covariance_type": "full"},
        {"kernel": "student", "bandwidth": 1.4, "degrees_of_freedom": 5.0},
        {"kernel": "exponential", "bandwidth": 0.7},
        {"kernel": "epanechnikov", "bandwidth": 4.5},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_a_sample_at_any_distance(white, params):
    """A point beside the query, of which the sample has nothing, may be all of it."""
    Y, places = white
    exact, kde = fit(Y, **params), fit(Y, algorithm="sampling", **params)
    for place, X in places.items():
        found, report = quiet(kde, X)
        expected = exact.score_samples(X)
        assert coverage(found, report, expected) >= 0.93, place
        if place == "fresh":
            seen = np.isfinite(found)
            largest = np.quantile(errors(found, expected)[seen], 0.9)
            assert np.median(report.error[seen]) < max(6.0 * largest, 1e-9)


def test_a_sample_finds_the_point_beside_the_query(white):
    """Which is most of the sum, and is summed by itself."""
    Y, places = white
    expected = oracles.log_density(places[0.1][:20], Y, 0.8)
    found, report = quiet(fit(Y, bandwidth=0.8, algorithm="sampling"), places[0.1][:20])
    error = np.abs(found - np.asarray(expected, dtype=float))
    assert np.quantile(error, 0.9) < 1e-3
    assert np.quantile(report.error, 0.8) < 0.5


# Kernels of compact support.


@pytest.mark.parametrize("algorithm", ["sampling", "auto"])
@pytest.mark.parametrize("kernel", ["epanechnikov", "tophat"])
def test_a_few_points_out_of_reach(white, algorithm, kernel):
    """All of the sample are in reach, and of all points a few are not."""
    Y = white[0]
    X = beside(np.random.default_rng(1), Y, 1.0)
    params = {"kernel": kernel, "bandwidth": 13.0}
    found, report = quiet(fit(Y, algorithm=algorithm, **params), X)
    assert coverage(found, report, fit(Y, **params).score_samples(X)) >= 0.93


def nothing_in_reach(source):
    """Infinite log densities are right, or their errors are infinite."""
    rng = np.random.default_rng(source.draw(st.integers(0, 2**32 - 1), "seed"))
    n, d = source.draw(st.sampled_from([500, 4000]), "n"), source.draw(st.integers(2, 12))
    Y, X = points(rng, source.draw(st.sampled_from(KINDS), "kind"), n, d)
    X = np.vstack([X[:200], beside(rng, Y, 1.0, 100), beside(rng, Y, 10.0, 100)])
    params = {"kernel": source.draw(st.sampled_from(COMPACT), "kernel")}
    # some queries are out of reach of all points
    some = np.linalg.norm(X[:50, None] - Y[None, :500], axis=2).min(axis=1)
    level = source.draw(st.floats(0.1, 0.9), "level")
    params["bandwidth"] = float(np.quantile(some, level))
    exact = fit(Y, **params).score_samples(X)
    for algorithm, index in (
        ("sampling", None),
        ("neighbors", "exact"),
        ("neighbors", "ivf"),
        ("auto", None),
    ):
        if index == "ivf" and importlib.util.find_spec("faiss") is None:
            continue
        kde = fit(Y, algorithm=algorithm, neighbors_index=index, **params)
        found, report = quiet(kde, X)
        lost = np.isneginf(found)
        wrong = lost & ~np.isneginf(exact)
        assert np.isposinf(report.error[wrong]).all(), algorithm
        if n == 500 or index == "exact" or algorithm == "auto":
            assert_array_equal(lost, np.isneginf(exact))
            assert (report.error[lost] < 1e-9).all()
        else:
            assert np.isposinf(report.error[lost]).all()


@fast(4)
@given(source=st.data())
def test_nothing_in_reach(source):
    nothing_in_reach(source)


@at_length
@LONG
@given(source=st.data())
def test_nothing_in_reach_at_length(source):
    nothing_in_reach(source)


# Everything.


def errors_hold(source, sizes, features, kernels, algorithms, log_steps):
    """Twice the stated errors are above 95 % of the errors."""
    rng = np.random.default_rng(source.draw(st.integers(0, 2**32 - 1), "seed"))
    n, d = source.draw(st.sampled_from(sizes)), source.draw(st.integers(*features))
    Y, fresh = points(rng, source.draw(st.sampled_from(KINDS), "kind"), n, d)
    params = {
        "kernel": source.draw(st.sampled_from(kernels), "kernel"),
        "covariance_type": source.draw(st.sampled_from(["spherical", "diag", "full"])),
    }
    if params["kernel"] == "student":
        params["degrees_of_freedom"] = source.draw(st.floats(2.0, 20.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = fit(Y[:1000], **params).bandwidth_
    params["bandwidth"] = best * source.draw(st.floats(0.5, 6.0), "times the best")
    steps = 10.0 ** source.draw(st.floats(*log_steps), "log10 of steps")
    algorithm = source.draw(st.sampled_from(algorithms), "algorithm")
    index = None
    if importlib.util.find_spec("faiss") and algorithm != "sampling":
        index = source.draw(st.sampled_from([None, "hnsw", "ivf"]), "index")
    exact = fit(Y, **params)
    kde = fit(Y, algorithm=algorithm, neighbors_index=index, **params)
    for X in (fresh[:N_QUERIES], beside(rng, Y, steps)):
        found, report = quiet(kde, X)
        assert coverage(found, report, exact.score_samples(X)) >= LEAST


@fast(6)
@given(source=st.data())
def test_errors_hold(source):
    errors_hold(source, (6000,), (20, 40), KERNELS[:3], ("sampling",), (-2.0, -0.5))


@at_length
@LONG
@given(source=st.data())
def test_errors_hold_at_length(source):
    algorithms = "sampling", "neighbors", "auto"
    errors_hold(source, (3000, 12_000), (2, 40), KERNELS, algorithms, (-2.0, 1.3))


# An index.


def test_an_index_far_outside():
    """It is not as good there as it is at the training points."""
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    Y, _ = points(rng, "heavy tails", 5000, 20)
    h = 0.5 * np.median(Y.std(axis=0))
    exact = fit(Y, bandwidth=h)
    kde = fit(Y, bandwidth=h, algorithm="neighbors", neighbors_index="hnsw")
    for steps in (3.0, 10.0):
        X = beside(rng, Y, steps)
        found, report = quiet(kde, X)
        assert coverage(found, report, exact.score_samples(X)) >= 0.93, steps


# What is said.


def test_the_warning_says_what_is_unknown():
    rng = np.random.default_rng(0)
    Y, X = rng.standard_normal((6000, 10)), rng.standard_normal((300, 10))
    params = {"kernel": "tophat", "bandwidth": 1.2, "random_state": 0}
    kde = HighDimKernelDensity(algorithm="sampling", **params).fit(Y)
    with pytest.warns(UserWarning, match="stated error above tol=0.01") as caught:
        kde.score_samples(X)
    message, error = str(caught[0].message), kde.approximation_.error
    n_inf = np.count_nonzero(np.isinf(error))
    assert n_inf > 0
    assert f"of {n_inf} it is infinite: nothing of their sample is in reach" in message
    assert "algorithm='auto'" in message
    assert "up to inf" not in message
    assert f"{np.count_nonzero(~(error <= 0.01))} of 300 queries" in message


def test_the_warning_of_a_failed_search():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    Y, X = rng.standard_normal((5000, 8)), 1e5 * rng.standard_normal((20, 8))
    params = {"bandwidth": 0.5, "neighbors_index": "hnsw", "random_state": 0}
    kde = HighDimKernelDensity(algorithm="neighbors", **params).fit(Y)
    with pytest.warns(UserWarning, match="of 20 it is infinite: their search failed"):
        kde.score_samples(X)
