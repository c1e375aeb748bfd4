"""Discrete features: values on a lattice are spread over its cells, and come back.

Log densities are held against the log probabilities of the laws that the data are from.
"""

import functools
import pickle
import warnings

import numpy as np
import oracles
import pandas as pd
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binom, norm, poisson
from sklearn.base import clone

from skhdkde import HighDimKernelDensity
from skhdkde._data import find_discrete_features


def discrete(**params):
    params = {"discrete_features": "auto", "random_state": 0} | params
    return HighDimKernelDensity(**params)


def counts(n=400, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.poisson([1.0, 3.0, 7.0, 2.0, 5.0][:d], size=(n, d)).astype(float)


def spread(kde):
    """Return the training points that the sums are over."""
    return kde._density.components[0].points.in_data_units(slice(None))


@pytest.mark.parametrize("d", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_log_probabilities_of_independent_counts(d):
    rng = np.random.default_rng(0)
    rate, n = rng.uniform(1.0, 8.0, size=d), 8_000 if d == 8 else 4_000
    X, fresh = rng.poisson(rate, size=(n, d)), rng.poisson(rate, size=(4000, d))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows in the tails
        kde = discrete(covariance_type="auto").fit(X.astype(float))
    truth = poisson(rate).logpmf(fresh).sum(axis=1).mean()
    assert_array_equal(kde.discrete_features_, np.arange(d))
    assert abs(truth - kde.score_samples(fresh).mean()) < 0.02 * d


@functools.cache
def normal_data(seed):
    """Return points, fresh ones and the best mean log density of these."""
    X, fresh = np.random.default_rng(seed).normal(170.0, 10.0, size=(2, 10_000, 1))
    of = [HighDimKernelDensity(bandwidth=h).fit(X) for h in (1.5, 2.0, 2.5)]
    return X, fresh, max(kde.score_samples(fresh).mean() for kde in of)


@pytest.mark.filterwarnings("ignore:the bandwidth:UserWarning")
@pytest.mark.parametrize("step, allowed", [(1.0, 0.0015), (5.0, 0.006)])
def test_rounded_normal_data(step, allowed):
    """Mean over draws of what is lost to the best bandwidth for unrounded data."""
    lost = []
    for seed in (1, 2):
        X, fresh, best = normal_data(seed)
        kde = discrete().fit(np.round(X / step) * step)
        lost.append(best - kde.score_samples(fresh).mean())
        assert 0.3 * step <= kde.bandwidth_ < 4.0
    assert np.mean(lost) < allowed


@pytest.mark.filterwarnings("ignore:the bandwidth:UserWarning")
def test_a_binomial_law_and_its_sum():
    rng = np.random.default_rng(0)
    X = rng.binomial(20, 0.5, size=(10_000, 1)).astype(float)
    kde, lattice = discrete().fit(X), np.arange(21.0)[:, None]
    log_p = binom(20, 0.5).logpmf(lattice[:, 0])
    found = kde.score_samples(lattice)
    assert abs(np.sum(np.exp(log_p) * (log_p - found))) < 0.005
    assert np.exp(found).sum() == pytest.approx(1.0, abs=0.02)


@pytest.mark.filterwarnings("ignore:the bandwidth:UserWarning")
def test_two_features_rounded_to_their_deviation():
    rng = np.random.default_rng(0)
    X, fresh = rng.standard_normal((2, 10_000, 2))
    kde = discrete().fit(np.round(X))
    truth = norm.logpdf(fresh).sum(axis=1).mean()
    assert truth - kde.score_samples(fresh).mean() < 0.05


def rows_named(X, **params):
    """Return what fit says of rows that decide the bandwidth, and the bandwidth."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kde = HighDimKernelDensity(random_state=0, **params).fit(X)
    messages = [str(w.message) for w in caught if "is so large" in str(w.message)]
    return messages, kde.bandwidth_


TAILS = np.random.default_rng(0).geometric(0.2, size=(5000, 1)).astype(float)


@pytest.mark.parametrize("unit", [1.0, 0.3779])
@pytest.mark.parametrize("d", [1, 2])
def test_rare_counts_are_no_outliers(unit, d):
    """Without them the best bandwidth is that of the draws in a cell, far too small."""
    X = unit * (TAILS if d == 1 else np.hstack([TAILS, np.ones_like(TAILS)]))
    assert rows_named(X, discrete_features="auto")[0] == []
    assert rows_named(X)[0] == []


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_an_outlier_among_counts_is_named(wanted):
    X = np.vstack([counts(500), [[-999.0] * 3]])
    (message,), bandwidth = rows_named(X, discrete_features=wanted)
    assert "(row 500)" in message
    assert f"the bandwidth, {bandwidth:.3g}, is so large" in message


def test_a_bandwidth_that_draws_in_a_cell_make_is_no_matter_of_outliers():
    """It is the least one; and what a message names is the bandwidth in use."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 2, 500), 1e-3 * rng.standard_normal(500)])
    X[7, 1] = 0.5
    assert rows_named(X, discrete_features="auto") == ([], 0.3)
    X[7, 1] = 1e3
    (message,), bandwidth = rows_named(X, discrete_features="auto")
    assert f"the bandwidth, {bandwidth:.3g}, is so large" in message
    assert float(message.split("about ")[1].split(". ")[0]) == 0.3


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full", "local"])
def test_samples_are_values_of_the_features(covariance_type):
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [
            rng.standard_normal(500),
            rng.integers(0, 2, 500),
            10.0 + 0.25 * rng.integers(0, 9, 500),
        ]
    )
    kde = discrete(covariance_type=covariance_type).fit(X)
    drawn = kde.sample(2000, random_state=0)
    assert set(np.unique(drawn[:, 1])) == {0.0, 1.0}
    assert set(np.unique(drawn[:, 2])) <= set(np.unique(X[:, 2]))
    assert len(np.unique(drawn[:, 0])) == 2000
    assert drawn[:, 1].mean() == pytest.approx(X[:, 1].mean(), abs=0.07)


def test_training_points_are_scored_where_they_were_given():
    """Left out of the sum, which is over points that are spread."""
    X = counts()
    kde = discrete(bandwidth=0.7).fit(X)
    Y = spread(kde)
    expected = oracles.log_density(X, Y, 0.7, leave_out=np.arange(len(X)))
    assert_allclose(kde.score_samples(None), expected.astype(float), rtol=1e-8)
    assert_allclose(kde.diagnose().log_density, kde.score_samples(None))
    assert_allclose(kde.held_out_log_density_, kde.score_samples(None))
    expected = oracles.log_density(X[:20], Y, 0.7).astype(float)
    assert_allclose(kde.score_samples(X[:20]), expected, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", ["diag", "full", "local"])
@pytest.mark.parametrize("algorithm", ["exact", "neighbors", "sampling"])
def test_training_points_of_structures(covariance_type, algorithm):
    """The own point, which is elsewhere in the cell, is left out."""
    X = counts(600)
    params = {"covariance_type": covariance_type, "algorithm": algorithm}
    kde = discrete(bandwidth=0.4, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # stated errors
        kde.fit(X)
        own, all_points = kde.score_samples(None), kde.score_samples(X)
    assert (own < all_points + 0.1).mean() > 0.95
    assert np.corrcoef(own, all_points)[0, 1] > 0.5
    assert abs(np.median(kde.held_out_log_density_ - own)) < 0.5


def test_equal_rows_are_data_where_all_is_discrete():
    X = np.random.default_rng(0).integers(0, 3, size=(500, 3)).astype(float)
    kde = discrete().fit(X)  # no warning of duplicates
    assert kde.bandwidth_search_.n_copies == 0
    with pytest.warns(UserWarning, match="exact duplicates"):
        HighDimKernelDensity().fit(X)


def test_equal_rows_are_duplicates_where_another_feature_varies():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(200), rng.integers(0, 3, 200)])
    X = np.vstack([X, X[:50]])
    with pytest.warns(UserWarning, match="50 of the 250 training points are exact"):
        kde = discrete().fit(X)
    assert kde.bandwidth_search_.n_copies == 50


def test_rows_in_another_order():
    X, Q = counts(), counts(20, seed=1)
    order = np.random.default_rng(0).permutation(len(X))
    one, other = (discrete(bandwidth=0.6).fit(rows) for rows in (X, X[order]))
    assert_allclose(one.score_samples(Q), other.score_samples(Q), rtol=1e-12)
    again = discrete(bandwidth=0.6, random_state=1).fit(X)
    assert np.abs(one.score_samples(Q) - again.score_samples(Q)).max() > 1e-3


def test_mask_indices_and_names():
    frame = pd.DataFrame(counts(), columns=["a", "b", "c"])
    expected = discrete(bandwidth=0.6, discrete_features=[0, 2]).fit(frame)
    for wanted in ([True, False, True], np.array([2, 0]), ["c", "a"], (-1, 0)):
        kde = discrete(bandwidth=0.6, discrete_features=wanted).fit(frame)
        assert_array_equal(kde.discrete_features_, [0, 2])
        assert_array_equal(kde.score_samples(frame), expected.score_samples(frame))
        assert_array_equal(clone(kde).fit(frame).discrete_features_, [0, 2])
    for nothing in (None, [], [False] * 3):
        kde = discrete(bandwidth=0.6, discrete_features=nothing).fit(frame)
        assert len(kde.discrete_features_) == 0


@pytest.mark.parametrize(
    "wanted, message",
    [
        ([True, False], r"mask of shape \(2,\), expected \(4,\)"),
        ([0, 7], "index beyond the 4 features"),
        (["a"], "names of features, which X has none of"),
        ([0.5], "must be 'auto', a mask, indices or names, got 0.5"),
        ([[0, 1]], "must be 1D"),
        ([3], "feature 3, whose values are not on a lattice"),
        ("all", "discrete_features"),
    ],
)
def test_errors(wanted, message):
    X = np.column_stack([counts(), np.random.default_rng(0).standard_normal(400)])
    with pytest.raises(ValueError, match=message):
        discrete(discrete_features=wanted).fit(X)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="'e', which X has not"):
        discrete(discrete_features=["a", "e"]).fit(frame)
    with pytest.raises(ValueError, match="feature 'd', whose values"):
        discrete(discrete_features=["d"]).fit(frame)


def test_continuous_data_are_left_alone():
    X = np.random.default_rng(0).standard_normal((300, 4))
    X[:100, 3] = 0.0  # ties at one value are no lattice
    kde = discrete().fit(X)
    assert len(kde.discrete_features_) == 0
    assert kde.bandwidth_ == HighDimKernelDensity(random_state=0).fit(X).bandwidth_


def test_beside_constant_features_and_weights():
    X = np.column_stack([np.full(400, 3.0), counts(), np.full(400, 0.5)])
    weights = np.random.default_rng(0).integers(0, 3, 400).astype(float)
    with pytest.warns(UserWarning, match="2 constant features of 5: columns 0, 4"):
        kde = discrete(covariance_type="diag").fit(X, sample_weight=weights)
    assert_array_equal(kde.discrete_features_, [1, 2, 3])
    assert_array_equal(kde.constant_features_, [0, 4])
    drawn = kde.sample(100, random_state=0)
    assert_array_equal(drawn[:, 1:4], np.rint(drawn[:, 1:4]))
    assert np.isfinite(kde.score_samples(None)).all()
    assert np.isfinite(kde.held_out_log_density_).all()
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(again.score_samples(X), kde.score_samples(X))


def test_the_report_is_of_the_data_and_nothing_is_warned_of():
    X = counts(800, 5)
    kde = discrete(covariance_type="full", bandwidth=0.02)
    kde.fit(X)
    assert_array_equal(kde.data_report_.step, np.ones(5))
    with pytest.warns(UserWarning, match="features of X are discrete"):
        HighDimKernelDensity(covariance_type="full", bandwidth=0.02).fit(X)


@pytest.mark.parametrize("wanted", ["auto", [0, 2], np.array([True, False, True]), []])
def test_not_on_dask(wanted):
    from skhdkde.dask import DaskHighDimKernelDensity

    kde = DaskHighDimKernelDensity(discrete_features=wanted)
    message = "^discrete_features must be None .* has all parameters: fit it to a random"
    with pytest.raises(ValueError, match=message):
        kde.fit(counts())


@given(
    st.sampled_from([1.0, 0.1, 0.25, 1e-3, 7.0, 1e6]),
    st.floats(-1e3, 1e3),
    st.integers(3, 60),
    st.sampled_from([np.float64, np.float32]),
    st.integers(0, 1000),
)
@examples(60)
def test_values_are_spread_within_their_cells(step, offset, n_values, dtype, seed):
    rng = np.random.default_rng(seed)
    size = max(abs(offset), step)
    if dtype == np.float32:  # a step of many digits
        offset = np.float32(round(offset / step) * step)
        if size / step > 1e3:
            return
    k = np.append(rng.integers(0, n_values, size=(400, 1)), [[0], [1]], axis=0)
    X = (offset + step * k).astype(dtype)
    if step < 1e6 * np.finfo(dtype).eps * size:
        return
    found = find_discrete_features(X, "auto", None)
    assert_allclose(found.step, step, rtol=1e-3)
    Y = found.spread(X, seed)
    assert Y.dtype == dtype
    assert np.abs(Y - X).max() <= 0.5001 * step
    assert np.abs(Y - X).max() > 0.4 * step
    assert np.mean(Y - X) == pytest.approx(0.0, abs=0.1 * step)
    assert_allclose(found.rounded(Y), X, rtol=1e-5, atol=1e-3 * step)


def test_float32_that_does_not_resolve_a_cell():
    """The points become float64, in which values can be spread."""
    P = np.random.default_rng(0).poisson([2.0, 5.0], (400, 2))
    Z = (P + np.array([1e7, 0.0])).astype(np.float32)
    kde = discrete(covariance_type="diag").fit(Z)
    plain = discrete(covariance_type="diag").fit(P.astype(float))
    assert kde.bandwidth_ == pytest.approx(plain.bandwidth_, rel=1e-6)
    assert kde.sample(3, random_state=0).dtype == np.float64


def test_whole_numbers_beyond_float32():
    Z = (1.6e9 + 3600.0 * np.random.default_rng(0).integers(0, 20, (300, 1))).astype("f4")
    found = find_discrete_features(Z, "auto", None)
    assert found is None or found.step[0] == pytest.approx(3600.0, rel=0.05)


def test_a_lattice_that_no_number_resolves():
    rng = np.random.default_rng(0)
    Z = np.column_stack([1e15 + rng.integers(0, 10, 300), rng.standard_normal(300)])
    assert len(discrete(bandwidth=1.0).fit(Z).discrete_features_) == 0
    with pytest.raises(ValueError, match="do not resolve"):
        discrete(discrete_features=[0], bandwidth=1.0).fit(Z)


@pytest.mark.parametrize("scale", [2.0, 0.1, 3.0, 1000.0])
def test_units_of_another_feature(scale):
    rng = np.random.default_rng(0)
    Z = np.column_stack([rng.poisson([2.0, 5.0], (100, 2)), rng.standard_normal(100)])
    one = discrete(covariance_type="diag").fit(Z)
    other = discrete(covariance_type="diag").fit(Z * [1.0, 1.0, scale])
    assert other.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-6)


def test_a_feature_constant_up_to_rounding():
    rng = np.random.default_rng(0)
    P, third = (
        rng.poisson([2.0, 3.0], (300, 2)),
        np.where(rng.random(300) < 0.5, 0.3, 0.1),
    )
    third = np.where(third == 0.1, 0.1 + 0.2, third)
    for last in (third, np.full(300, 0.3)):
        kde = discrete(discrete_features=[0, 1], covariance_type="diag")
        with pytest.warns(UserWarning, match="constant feature"):
            kde.fit(np.column_stack([P, last]))
        assert kde.bandwidth_search_.n_copies == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_samples_equal_training_values(dtype):
    Z = (np.random.default_rng(0).integers(0, 40, (500, 2)) / 10).astype(dtype)
    drawn = discrete().fit(Z).sample(1000, random_state=0)
    assert np.isin(drawn, Z).all()


@pytest.mark.parametrize("kind", [pd.Index, pd.Series, list, tuple, np.array])
def test_columns_in_any_kind_of_list(kind):
    frame = pd.DataFrame(counts(), columns=["a", "b", "c"])
    kde = discrete(discrete_features=kind(["b"]), bandwidth=0.5).fit(frame)
    assert_array_equal(kde.discrete_features_, [1])
    kde.set_params(discrete_features=kind(["b"]))
    assert np.isfinite(kde.score_samples(frame)).all()
    mask = np.array([False, True, False], dtype=object)
    kde = discrete(discrete_features=kind(mask.tolist()), bandwidth=0.5).fit(frame)
    assert_array_equal(kde.discrete_features_, [1])
