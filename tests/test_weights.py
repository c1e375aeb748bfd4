"""Weights: what vanishes, common factors, and what a weight of k means."""

import warnings

import dask.array as da
import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.covariance import EmpiricalCovariance
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")

RNG = np.random.default_rng(0)
X, QUERIES = RNG.standard_normal((60, 4)), RNG.standard_normal((12, 4))
TINY = np.finfo(np.float64).tiny
ON_BLOCKS = [
    {"bandwidth": "kl"},
    {"bandwidth": "nearest"},
    {"bandwidth": "gaussian"},
    {"bandwidth": "silverman"},
    {"bandwidth": 0.5},
    {"kernel": "epanechnikov"},
    {"covariance_type": "diag"},
    {"covariance_type": "full", "bandwidth": 0.5},
]
ON_ONE_MACHINE = [
    *ON_BLOCKS,
    {"adaptive": True},
    {"covariance_type": "local"},
    {"covariance_type": "auto"},
    {"covariance_type": "full", "covariance_estimator": EmpiricalCovariance()},
    {"algorithm": "sampling", "n_neighbors": 5},
    {"algorithm": "neighbors", "n_neighbors": 5},
]


@st.composite
def weights_of_any_size(draw):
    """Weights over up to 600 decades, of which most may vanish or none."""
    decades = draw(st.sampled_from([0.0, 5.0, 320.0, 600.0]))
    exponents = np.random.default_rng(draw(st.integers(0, 99))).uniform(size=60)
    if draw(st.booleans()):  # the others are as heavy as the heaviest
        exponents[draw(st.integers(1, 10)) :] = 1.0
    weights = 10.0 ** (decades * (exponents - 0.5))
    weights[1] = weights[0]  # more than one point remains
    return weights * draw(st.sampled_from([1.0, 1e-8, 1e8]))


def assert_same_numbers(found, expected, standard_errors=True):
    assert found.bandwidth_ == pytest.approx(expected.bandwidth_, rel=1e-9)
    for method in ("score_samples", "log_density_gradient"):
        numbers = (np.asarray(getattr(k, method)(QUERIES)) for k in (found, expected))
        assert_allclose(*numbers, rtol=1e-9, atol=1e-9)
    errors = [kde.diagnose(QUERIES).standard_error for kde in (found, expected)]
    if standard_errors:
        assert_allclose(*errors, rtol=1e-3)  # of a fitted law, which amplifies rounding


def fitted(kind, parameters, points, weights):
    """Return a fitted estimator, or the error that fit raised."""
    try:
        return kind(random_state=0, **parameters).fit(points, sample_weight=weights)
    except ValueError as error:
        return error


def assert_same(found, expected, standard_errors=True):
    if isinstance(expected, ValueError):
        assert str(found) == str(expected)
    else:
        assert_same_numbers(found, expected, standard_errors)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:.*stated error:UserWarning")
@pytest.mark.filterwarnings("error")
@examples(8)
@given(weights=weights_of_any_size())
@pytest.mark.parametrize("parameters", ON_ONE_MACHINE, ids=str)
def test_what_vanishes_counts_as_zero(parameters, weights):
    """As if divided by the largest, without the points whose weight is then too small."""
    relative = weights / weights.max()
    remaining = relative >= TINY
    expected = fitted(HighDimKernelDensity, parameters, X[remaining], relative[remaining])
    assert_same(fitted(HighDimKernelDensity, parameters, X, weights), expected)


@pytest.mark.filterwarnings("error")
@examples(6)
@given(weights=weights_of_any_size(), in_blocks=st.booleans())
@pytest.mark.parametrize("parameters", ON_BLOCKS, ids=str)
def test_what_vanishes_counts_as_zero_on_dask(parameters, weights, in_blocks):
    blocks = da.from_array(X, chunks=(17, 4))
    own = da.from_array(weights, chunks=17) if in_blocks else weights
    found = fitted(DaskHighDimKernelDensity, parameters, blocks, own)
    # the variance of the far terms is lost to rounding, in each block its own way
    rounded = weights.max() > 1e5 * weights.min()
    expected = fitted(HighDimKernelDensity, parameters, X, weights)
    assert_same(found, expected, standard_errors=not rounded)
    if not isinstance(found, ValueError):
        own = found.score_samples(None).compute()
        assert_allclose(own, expected.score_samples(None), rtol=1e-9, atol=1e-9)
        assert_allclose(found.sample(5, 0), expected.sample(5, 0), atol=1e-9)


FACTORS = [5e-324, 1e-310, 1e-300, 1e-3, 1.0 / 3.0, 1e8, 1e300, 1.7e308]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("parameters", ON_BLOCKS, ids=str)
def test_a_common_factor_has_no_effect(parameters, factor):
    expected = fitted(HighDimKernelDensity, parameters, X, np.ones(len(X)))
    own = np.full(len(X), factor)
    assert_same(fitted(HighDimKernelDensity, parameters, X, own), expected)
    blocks, own = da.from_array(X, chunks=(17, 4)), da.from_array(own, chunks=17)
    assert_same(fitted(DaskHighDimKernelDensity, parameters, blocks, own), expected)


@pytest.mark.parametrize("rule", ["kl", "nearest", "gaussian", "scott", "silverman"])
def test_select_bandwidth_with_weights_that_vanish(rule):
    weights = np.geomspace(1e-300, 1e300, 60)
    remaining = weights / weights.max() >= TINY
    expected = select_bandwidth(X[remaining], rule=rule, sample_weight=weights[remaining])
    found = select_bandwidth(X, rule=rule, sample_weight=weights)
    assert found == pytest.approx(expected, rel=1e-12)


# Estimators that take no weights get repeated points.


class Seen(Exception):
    """What a mixture or an estimator was fitted to."""


class RecordingMixture(GaussianMixture):
    """A mixture that says what it is fitted to."""

    def fit(self, X, y=None):
        raise Seen(X)


class RecordingCovariance(EmpiricalCovariance):
    """A covariance estimator that says what it is fitted to."""

    def fit(self, X, y=None):
        raise Seen(X)


RECORDING = [
    {"covariance_type": "local", "mixture": RecordingMixture()},
    {"covariance_type": "full", "covariance_estimator": RecordingCovariance()},
]


def counts_seen(parameters, weights):
    """Return how often each row of X is in what an estimator was fitted to."""
    kde = HighDimKernelDensity(bandwidth=1.0, random_state=0, **parameters)
    with pytest.raises(Seen) as seen:
        kde.fit(X, sample_weight=weights)
    (points,) = seen.value.args
    if parameters["covariance_type"] == "full":  # it gets standardised features
        mean = np.average(X, axis=0, weights=weights)
        variance = np.average((X - mean) ** 2, axis=0, weights=weights)
        points = points * np.sqrt(variance) + mean
    apart = np.abs(points[:, None] - X).max(axis=2)
    assert apart.min(axis=1).max() < 1e-9
    return np.bincount(apart.argmin(axis=1), minlength=len(X))


@pytest.mark.parametrize("parameters", RECORDING, ids=["mixture", "covariance"])
@examples(20)
@given(
    counts=st.lists(st.integers(1, 4), min_size=60, max_size=60),
    factor=st.sampled_from([1.0, 1e-200, 1.0 / 3.0, 7e5]),
)
def test_multiples_are_repeated_as_often(parameters, counts, factor):
    counts = np.array(counts)
    counts[0] = 1
    assert_array_equal(counts_seen(parameters, counts * factor), counts)


@pytest.mark.parametrize("parameters", RECORDING, ids=["mixture", "covariance"])
@examples(20)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 5.0))
def test_other_weights_are_rounded_up_or_down(parameters, seed, spread):
    weights = np.exp(spread * np.random.default_rng(seed).standard_normal(60))
    counts, shares = counts_seen(parameters, weights), 60 * weights / weights.sum()
    assert counts.sum() == 60
    assert (np.floor(shares - 1e-9) <= counts).all()
    assert (counts <= np.ceil(shares + 1e-9)).all()


def test_a_duplicated_row_does_not_change_what_the_search_sees():
    """The mixture of a fold is fitted to its rows, and not to a sample of them."""
    data = StandardScaler().fit_transform(load_breast_cancer().data)[::2]
    mixture = GaussianMixture(2, reg_covar=1e-3, random_state=0)
    kde = HighDimKernelDensity(covariance_type="local", mixture=mixture, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain = kde.fit(data).bandwidth_search_.mean_log_density.max()
        with pytest.warns(UserWarning, match="1 of the 286 training points"):
            kde.fit(np.vstack([data, data[:1]]))
    doubled = kde.bandwidth_search_.mean_log_density.max()
    assert doubled == pytest.approx(plain, abs=0.5)


# What a weight of k means.


COMPACT = ("tophat", "epanechnikov", "linear", "cosine")


@st.composite
def sums(draw):
    """Parameters of which nothing but sums is made, and where the points are."""
    kernel = draw(st.sampled_from(["gaussian", "student", "exponential", *COMPACT]))
    parameters = {"kernel": kernel, "random_state": 0}
    kinds = ["plain", "diag"] + ["preserved"] * (kernel not in COMPACT)
    kind = draw(st.sampled_from(kinds))
    if kind == "diag":
        parameters["covariance_type"] = "diag"
    if kind == "preserved":
        parameters["preserve_variance"] = True
    rules = ["kl", "nearest"] if kind == "plain" and kernel != "student" else []
    size = {"exponential": 0.2, "gaussian": 0.5, "student": 0.5}.get(kernel, 3.0)
    parameters["bandwidth"] = draw(st.sampled_from([size, *rules]))
    if kernel == "student":
        parameters["degrees_of_freedom"] = draw(st.sampled_from([3.0, 20.0]))
    parameters["backend"] = draw(st.sampled_from(["numpy", "torch"]))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    return parameters, dtype, draw(st.booleans())


@pytest.mark.filterwarnings("ignore:.*exact duplicates:UserWarning")
@examples(40)
@given(setting=sums(), counts=st.lists(st.integers(0, 4), min_size=60, max_size=60))
def test_a_weight_counts_as_so_many_points(setting, counts):
    """For "kl", compact kernels to a thousandth: the grids differ.

    The tophat's curve jumps at each distance, and has many maxima of about the same
    height.
    """
    parameters, dtype, in_blocks = setting
    counts = np.array(counts)
    counts[:3] = 1, 2, 3
    points, queries = X.astype(dtype), QUERIES.astype(dtype)
    repeated = np.repeat(points, counts, axis=0)
    make = HighDimKernelDensity
    if in_blocks:
        make = DaskHighDimKernelDensity
        points, repeated = (da.from_array(Y, chunks=(25, 4)) for Y in (points, repeated))
    weighted = make(**parameters).fit(points, sample_weight=counts)
    repeated = make(**parameters).fit(repeated)
    jumps = parameters["kernel"] in COMPACT and parameters["bandwidth"] == "kl"
    rounding = 1e-9 if dtype == np.float64 else 1e-5
    rel = 1e-3 if jumps else rounding
    if jumps and parameters["kernel"] == "tophat":
        rel = 0.2
    assert weighted.bandwidth_ == pytest.approx(repeated.bandwidth_, rel=rel)
    if jumps:
        return
    promised = 2e-8 if dtype == np.float64 else 2e-3
    assert_allclose(
        weighted.score_samples(queries), repeated.score_samples(queries), atol=promised
    )
    assert_allclose(
        weighted.log_density_gradient(queries),
        repeated.log_density_gradient(queries),
        rtol=50.0 * promised,
        atol=50.0 * promised,
    )


def test_the_number_of_points_is_the_effective_one():
    """For rules made of it, and for the shrinkage of a covariance."""
    weights = np.ones(60)
    weights[:20] = 3.0
    effective = weights.sum() ** 2 / np.sum(weights**2)
    mean = np.average(X, axis=0, weights=weights)
    spread = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights).mean())
    assert select_bandwidth(X, rule="scott", sample_weight=weights) == pytest.approx(
        spread * effective ** (-1.0 / 8.0)
    )
    assert select_bandwidth(X, rule="silverman", sample_weight=weights) == pytest.approx(
        spread * (effective * 6.0 / 4.0) ** (-1.0 / 8.0)
    )
