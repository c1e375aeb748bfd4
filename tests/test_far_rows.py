"""Rows that are far from all others: named, before they ruin an estimate in silence."""

import re
import warnings

import dask.array as da
import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")

RNG = np.random.default_rng(0)
X, QUERIES = RNG.standard_normal((500, 3)), RNG.standard_normal((50, 3))
BY_MEAN = [
    {"covariance_type": "auto"},
    {"covariance_type": "full"},
    {"covariance_type": "diag"},
    {"covariance_type": "local"},
    {"bandwidth": 0.5, "preserve_variance": True},
    {"bandwidth": 0.5, "covariance_type": "diag"},
    {"kernel": "student"},
]


def with_far_row(value, row=7, columns=slice(None), dtype=np.float64):
    far = X.astype(dtype)
    far[row, columns] = value
    return far


def fit(kde, points, weights=None):
    """Return what fit warned of, or the error it raised, as text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            kde.fit(points, sample_weight=weights)
        except ValueError as error:
            return [f"ValueError: {error}"]
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("value", [1e3, -1e6, 1e9, 1e14, -1e20, 1e100, 1e300])
@pytest.mark.parametrize("parameters", BY_MEAN, ids=str)
def test_rows_that_decide_the_variance_are_named(parameters, value):
    """There is no other warning; where digits are lost there is an error."""
    kde = HighDimKernelDensity(random_state=0, **parameters)
    said = fit(kde, with_far_row(value, row=11, columns=1))
    far = [message for message in said if "in row 11, feature 1" in message]
    assert len(far) == 1
    assert far[0].startswith("ValueError") == (abs(value) > 1e12)
    assert "1 of 500: 11" in far[0]
    assert not any("overflow" in message or "invalid" in message for message in said)


@pytest.mark.parametrize("value", [1e2, 1e3, 1e6, 1e14, 1e100, 1e300])
def test_rows_that_decide_the_bandwidth_are_named(value):
    kde = HighDimKernelDensity()
    (message,) = fit(kde, with_far_row(value))
    assert "1 of 500 training points" in message
    assert "(row 7)" in message
    without = float(re.search(r"about ([\d.e+-]+?)\. ", message)[1])
    if value < 1e6:
        best = HighDimKernelDensity().fit(np.delete(X, 7, axis=0)).bandwidth_
        assert without == pytest.approx(best, rel=0.3)


def test_the_row_is_that_of_the_data_among_duplicates():
    points = np.vstack([X[:100], X[:100], X])
    points[300] = 1e4
    said = fit(HighDimKernelDensity(), points)
    assert any("(row 300)" in message for message in said)


@st.composite
def weighted_tables(draw):
    """Points with a far row among rows without weight, and where it is."""
    row = draw(st.integers(0, 499))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weights = rng.uniform(0.5, 1.5, size=500) * (rng.uniform(size=500) < 0.7)
    weights[row] = 1.0
    value = 10.0 ** draw(st.floats(3.5, 20.0))
    return with_far_row(value, row), weights, row


@examples(4)
@given(table=weighted_tables())
@pytest.mark.parametrize("parameters", [{}, *BY_MEAN], ids=str)
def test_rows_are_numbered_as_in_x(parameters, table):
    """Rows without weight count."""
    points, weights, row = table
    said = fit(HighDimKernelDensity(random_state=0, **parameters), points, weights)
    assert any(re.search(rf"\brow {row}\b", message) for message in said)


@pytest.mark.parametrize("n_zero", [0, 50])
def test_rows_are_numbered_as_in_x_by_other_searches(n_zero):
    pytest.importorskip("faiss")
    points = np.vstack([X[:100], X, X + 0.1])  # with duplicates
    points[900] = 1e4
    weights = np.ones(len(points))
    weights[:n_zero] = 0.0
    options = {"algorithm": "neighbors", "neighbors_index": "hnsw"}
    said = fit(HighDimKernelDensity(random_state=0, **options), points, weights)
    assert any("(row 900)" in message for message in said)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        select_bandwidth(points, sample_weight=weights)
    assert any("(row 900)" in str(w.message) for w in caught)


@pytest.mark.parametrize("weight, named", [(1e-9, False), (1.0, True)])
def test_a_row_decides_by_its_weight(weight, named):
    weights = np.ones(len(X))
    weights[11] = weight
    kde = HighDimKernelDensity(bandwidth=0.5, covariance_type="diag")
    assert bool(fit(kde, with_far_row(1e3, row=11), weights)) == named


def test_the_row_named_is_far_in_the_feature_named():
    points = with_far_row(200.0, row=3, columns=2)
    points[7, 0] = 1e6
    (said,) = fit(HighDimKernelDensity(bandwidth=0.5, covariance_type="diag"), points)
    assert "1e+06 in row 7, feature 0" in said
    assert "(2 of 500: 3, 7)" in said


ON_BLOCKS = [p for p in BY_MEAN if p.get("covariance_type") not in ("auto", "local")]


@examples(5)
@given(table=weighted_tables(), weighted=st.booleans(), size=st.integers(40, 500))
@pytest.mark.parametrize("parameters", [{}, *ON_BLOCKS], ids=str)
def test_a_cluster_says_the_same(parameters, table, weighted, size):
    points, weights, _ = table
    weights = weights if weighted else None
    expected = fit(HighDimKernelDensity(random_state=0, **parameters), points, weights)
    blocks = da.from_array(points, chunks=(size, -1))
    kde = DaskHighDimKernelDensity(random_state=0, **parameters)
    found = fit(kde, blocks, weights)
    # a bound, which depends on the bandwidths tried
    found, expected = (
        [re.sub(r"at most about \S+ ", "", message) for message in said]
        for said in (found, expected)
    )
    assert found == expected


@pytest.mark.parametrize("law", ["normal", "student", "skewed", "clusters", "counts"])
def test_a_cluster_says_nothing_of_ordinary_data(law):
    blocks = da.from_array(LAWS[law](3000, 5), chunks=(1100, -1))
    for parameters in ON_BLOCKS:
        small = {"bandwidth": 0.1} if "bandwidth" in parameters else {}
        kde = DaskHighDimKernelDensity(random_state=0, **(parameters | small))
        said = fit(kde, blocks)
        assert not [m for m in said if "exact duplicates" not in m], parameters


@st.composite
def far_tables(draw):
    """Points of which one has an absurd value, and parameters that take a mean."""
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    most = 300.0 if dtype == np.float64 else 37.0
    value = 10.0 ** draw(st.floats(2.0, most)) * draw(st.sampled_from([-1.0, 1.0]))
    columns = draw(st.sampled_from([slice(None), 0, [1, 2]]))
    points = with_far_row(value, draw(st.integers(0, 499)), columns, dtype)
    return points, draw(st.sampled_from([{"bandwidth": 0.5}, {}, *BY_MEAN]))


@examples(40)
@given(table=far_tables())
def test_no_collapse_is_silent(table):
    """Either something is said, or log densities are about as good as without the row."""
    points, parameters = table
    kde = HighDimKernelDensity(random_state=0, **parameters)
    if fit(kde, points):
        return
    found = kde.score_samples(QUERIES).mean()
    without = HighDimKernelDensity(random_state=0, **parameters)
    without.fit(np.delete(points, np.abs(points).max(axis=1).argmax(), axis=0))
    assert found == pytest.approx(without.score_samples(QUERIES).mean(), abs=1.0)


@pytest.mark.parametrize("value", [1e3, 1e8, 1e12])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_others_keep_their_digits(value, dtype):
    """Where fit does not raise, the bulk is as precise as promised."""
    kde = HighDimKernelDensity(bandwidth=0.5, preserve_variance=True)
    points = with_far_row(value, dtype=dtype)
    if any("ValueError" in message for message in fit(kde, points)):
        return
    exact = points.astype(np.longdouble)
    mean = exact.mean(axis=0)
    shrinkage = np.sqrt(1 - np.longdouble(0.25) / np.mean((exact - mean) ** 2))
    centers = mean + shrinkage * (exact - mean)
    sq = [np.sum((centers - x) ** 2, axis=1) for x in QUERIES.astype(dtype)]
    terms = np.exp(-np.array(sq) / 0.5)
    expected = np.log(terms.mean(axis=1)) - 1.5 * np.log(2 * np.pi * 0.25)
    tolerance = 1e-3 if dtype == np.float32 else 1e-8
    found = kde.score_samples(QUERIES.astype(dtype))
    assert_allclose(found, expected.astype(float), atol=tolerance)


LAWS = {
    "normal": lambda n, d: RNG.standard_normal((n, d)),
    "student": lambda n, d: RNG.standard_t(3, (n, d)),
    "skewed": lambda n, d: np.exp(RNG.standard_normal((n, d))),
    "clusters": lambda n, d: (
        RNG.standard_normal((n, d)) + 1e3 * RNG.integers(0, 3, (n, 1))
    ),
    "scales": lambda n, d: RNG.standard_normal((n, d)) * 10.0 ** np.arange(d),
    "counts": lambda n, d: RNG.poisson(0.2, (n, d)).astype(float),
}


@pytest.mark.filterwarnings("ignore:.*exact duplicates:UserWarning")
@pytest.mark.filterwarnings("ignore:.*apart in scale:UserWarning")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n, d", [(60, 2), (1000, 5), (3000, 20)])
@pytest.mark.parametrize("law", LAWS)
def test_nothing_is_said_of_ordinary_data(law, n, d):
    points = LAWS[law](n, d)
    HighDimKernelDensity(random_state=0).fit(points)
    HighDimKernelDensity(bandwidth=1.0, covariance_type="diag").fit(points)
