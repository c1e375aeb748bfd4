"""``data_report_``: what is found in the training points, and what is warned of."""

import math
import pickle
import warnings
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skhdkde import HighDimKernelDensity
from skhdkde._data import columns, table
from skhdkde._data.columns import Values

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal((400, 3))
DTYPES = st.sampled_from([np.float64, np.float32])
STEPS = [Fraction(1), Fraction(5), Fraction(1, 10), Fraction(1, 3), Fraction(7, 1000)]


def report_on(X, sample_weight=None, **parameters):
    """Return the report after a fit, whose warnings are no matter here."""
    parameters = {"bandwidth": 0.5, **parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kde = HighDimKernelDensity(random_state=0, **parameters)
        return kde.fit(X, sample_weight=sample_weight).data_report_


def said(X, **parameters):
    """Return what fit warned of, but for duplicates and rows that decide a bandwidth."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        HighDimKernelDensity(random_state=0, **parameters).fit(X)
    messages = [str(warning.message) for warning in caught]
    return [m for m in messages if "duplicates" not in m and "is so large" not in m]


@st.composite
def lattices(draw):
    """Values on a lattice, each several times, and the greatest common step."""
    step, dtype = draw(st.sampled_from(STEPS)), draw(DTYPES)
    places = draw(st.lists(st.integers(-300, 300), min_size=2, max_size=8, unique=True))
    start = draw(st.fractions(-20, 20, max_denominator=50))
    if draw(st.booleans()):
        start = Fraction(0)
    values = [start + place * step for place in places]
    common = math.gcd(*(place - places[0] for place in places)) * step
    values = np.array([float(value) for value in values], dtype=dtype)
    return values, float(common)


@examples(60)
@given(lattices())
def test_the_step_is_the_greatest_common_one(case):
    values, step = case
    found = Values.of(np.repeat(values, 3).astype(np.float64))
    assert found.step(np.finfo(values.dtype).eps) == pytest.approx(step, rel=1e-3)


@pytest.mark.parametrize(
    "values, step",
    [
        ([0.0, 1.0], 1.0),
        ([3.0], np.nan),  # constant
        ([0.0, 2001.0, 6005.0], 1.0),  # integers, gaps far larger than the step
        ([-0.3, 0.1 + 0.2, 0.3, 0.9], 0.6),  # 0.1 + 0.2 is 0.3, rounded otherwise
        ([0.0, 1.0, np.pi], np.nan),
        ([1e300, 2e300, 4e300], 1e300),
        ([-1e308, 0.0, 1.5e308], 5e307),
        ([1e-300, 2e-300, 4e-300], 1e-300),
        ([1e9, 1e9 + 0.25, 1e9 + 1.0], 0.25),
    ],
)
def test_steps(values, step):
    found = Values.of(np.repeat(values, 2)).step(np.finfo(float).eps)
    assert_allclose(found, step, rtol=1e-9)


def test_a_lattice_must_show_by_ties():
    """Rounded to three digits, but with hardly any ties: a continuous feature."""
    values = RNG.standard_normal(100).round(3)
    assert np.isnan(Values.of(values).step(1e-16))
    assert Values.of(np.repeat(values, 3)).step(1e-16) == pytest.approx(1e-3)


@pytest.mark.parametrize("ties", [2, 5])
def test_continuous_values_are_on_no_lattice(ties):
    """Not although each occurs several times, as in a table that was stored twice."""
    for size in (3, 10, 100):
        assert np.isnan(Values.of(np.repeat(RNG.standard_normal(size), ties)).step(1e-16))


@st.composite
def tables(draw):
    """Rows with ties, weights that may be zero, and a dtype."""
    n_rows, n_features = draw(st.integers(2, 30)), draw(st.integers(1, 4))
    values = st.sampled_from([-3.5, 0.0, 0.1, 1.0, 2.0, 1e6])
    rows = st.lists(values, min_size=n_features, max_size=n_features)
    X = draw(st.lists(rows, min_size=n_rows, max_size=n_rows))
    weights = st.sampled_from([0.0, 0.5, 1.0, 3.0])
    weights = draw(st.lists(weights, min_size=n_rows, max_size=n_rows))
    weights[0] = 1.0
    return np.array(X, dtype=draw(DTYPES)), np.array(weights)


@examples(60)
@given(tables(), st.booleans())
def test_counts_are_those_of_a_direct_count(case, sampled):
    """In a sample of four rows, too, what is known is right."""
    X, weights = case
    with pytest.MonkeyPatch.context() as patch:
        if sampled:
            patch.setattr(table, "N_SAMPLED", 4)
        report = report_on(X, sample_weight=weights)
    X, weights = X[weights > 0.0].astype(float), weights[weights > 0.0]
    assert report.n_rows == len(X)
    assert report.n_duplicates == len(X) - len({tuple(row) for row in X.tolist()})
    assert_array_equal(report.minimum, X.min(axis=0))
    assert_array_equal(report.maximum, X.max(axis=0))
    assert_array_equal(report.constant, np.ptp(X, axis=0) == 0.0)
    mean = np.average(X, axis=0, weights=weights)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    assert_allclose(report.standard_deviation, deviation, rtol=1e-6, atol=1e-9)
    counts = [Counter(column.tolist()) for column in X.T]
    most = np.array([max(of_one.values()) for of_one in counts])
    known = ~np.isnan(report.n_distinct)
    assert known.all() or (sampled and len(X) > 4)
    assert_array_equal(report.n_distinct[known], np.array([*map(len, counts)])[known])
    assert_array_equal(report.n_varying[known], len(X) - most[known])
    assert_allclose(report.commonest_share[known], most[known] / len(X))


@examples(60)
@given(lattices(), st.floats(1e-3, 1e3), st.integers(0, 3))
def test_values_are_counted_alike_with_any_guess_of_their_gap(case, guess, n_between):
    """Sorted or by their places, also where the guess is wrong, or values are between."""
    column = case[0].astype(np.float64)
    column = np.append(column, column[0] + guess * np.arange(n_between) / 3.0)
    values, counts = np.unique(column, return_counts=True)
    for gap in (None, guess, np.inf, np.diff(values).min(initial=np.inf)):
        found = Values.of(column, gap)
        assert_array_equal(found.values, values)
        assert_array_equal(found.counts, counts)


def test_ties_that_a_sample_does_not_show_are_many():
    X = RNG.standard_normal((5000, 2))
    X[:, 1] = X[:, 1].round(1)
    report = report_on(X)
    assert_array_equal(np.isnan(report.n_distinct), [True, False])
    assert report.n_distinct[1] == len(np.unique(X[:, 1]))
    assert report.step[1] == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, 1e300])
def test_deviations_at_any_size_and_place(size, dtype):
    size = min(size, 1e-3 * float(np.finfo(dtype).max))
    X = (size * np.array([1.0, 1e-3, 1.0]) * NORMAL).astype(dtype)
    X[:, 2] += dtype(size * 100.0)
    report = report_on(X, bandwidth=size)
    assert_allclose(
        report.standard_deviation / size,
        (X.astype(np.longdouble) / size).std(axis=0).astype(float),
        rtol=1e-6,
    )


CODED = {
    "-999": ([*range(50), -999, -999], [-999]),
    "9999": ([*range(1, 50), 9999, 9999, 9999], [9999]),
    "both": ([*range(50), -999, -999, 999, 999], [-999, 999]),
    "two below": ([*range(50), -999, -999, -9999, -9999], [-9999, -999]),
    "of a wide range": ([*range(5000), -999, -999], [-999]),
    "of a wide range of all signs": ([*range(-5, 5000), -999, -999], []),
    "once": ([*range(50), -999], []),
    "heavy tail": (np.exp(np.linspace(0.0, 20.0, 50)).tolist(), []),
    "two values": ([0, 0, 0, 5, 5], []),
    "counts": ([0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 7, 7], []),
}


@pytest.mark.parametrize("name", CODED)
def test_codes_for_missing_values(name):
    values, codes = CODED[name]
    assert_array_equal(Values.of(np.array(values, dtype=float)).codes(), codes)


POISSON = RNG.poisson(4.0, 400).astype(float)
FLAGS = (np.arange(400) % 3 == 0).astype(float)


@pytest.mark.parametrize("unit, shift", [(1.0, 0.0), (5.0, 2.0), (0.3779, -1.618)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mean", [3.9975, 4.1 + 1e-3, 4.0 + 1.0 / np.pi])
def test_a_mean_among_counts(unit, shift, dtype, mean):
    """Also where it leaves no step at all, and where the counts are scaled."""
    column = np.where(np.arange(400) < 9, mean + 0.4, POISSON)
    X = (unit * np.column_stack([column, POISSON]) + shift).astype(dtype)
    report = report_on(X)
    assert_allclose(report.off_lattice[0], [X[0, 0]])
    assert report.off_lattice[1] == ()
    assert "imputed by a mean? use the median (1): feature 0 (" in repr(report)


def test_a_mean_among_booleans():
    X = np.column_stack([np.where(np.arange(400) < 9, FLAGS.mean(), FLAGS), FLAGS])
    report = report_on(X)
    assert report.off_lattice == ((FLAGS.mean(),), ())
    assert "0.335 beside the steps of other values" in repr(report)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(0.0, 10.0, 0.1),
        np.sqrt(np.arange(50.0)),
        [0.0, 0.1, 5.0],
        [0.0, 0.5, 1.0, 2.0],
        [0.0, 1.7, 10.0],
        [0.0, 1.0, 2.0, 3.0, 1000.0],
        [1.0, 2.0],
        10.0 ** np.arange(-3.0, 4.0),
        np.r_[np.arange(0.99, 30.0), 5.0, 10.0, 15.0, 20.0],
    ],
    ids=str,
)
def test_values_without_a_usual_step(values):
    values = np.repeat(np.asarray(values), 20)
    assert report_on(np.column_stack([values, np.arange(len(values))])).off_lattice == (
        (),
        (),
    )


def test_codes_that_a_sample_misses():
    """Three rows of 20,000 have one; that the smallest value is far shows it."""
    X = RNG.standard_normal((20_000, 1))
    X[[5, 500, 7000]] = -999.0
    assert report_on(X).missing_codes == ((-999.0,),)


def test_redundant_features():
    X = np.column_stack([NORMAL, NORMAL @ [1.0, -2.0, 0.0] + 3.0, np.ones(400)])
    report = report_on(X)
    assert report.n_null_directions == 1
    assert report.redundant[[0, 1, 3]].any()
    assert not report.redundant[[2, 4]].any()  # independent, constant
    X[:, 3] += 0.01 * RNG.standard_normal(400)
    assert report_on(X).n_null_directions == 0
    assert report_on(X[:3]).redundant is None


@examples(20)
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 10**6))
def test_null_directions_are_those_of_copies_in_other_words(rank, n_more, seed):
    """Whatever their units and means, and in any order."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((100, rank))
    more = X @ rng.standard_normal((rank, n_more))
    X = np.hstack([X, more])[:, rng.permutation(rank + n_more)]
    X = X * 10.0 ** rng.uniform(-5, 5, X.shape[1]) + rng.standard_normal(X.shape[1])
    found = columns.redundant_features(X)
    assert found.sum() == n_more


def test_duplicates_and_near_ones():
    near = NORMAL[:40] * (1.0 + 1e-14)
    X = np.vstack([NORMAL, NORMAL[:7], near])
    report = report_on(X, bandwidth="kl")
    assert report.n_duplicates == 7
    assert report.n_near_duplicates == 40
    assert report_on(X).n_near_duplicates is None


def test_unit_norm():
    X = NORMAL / np.linalg.norm(NORMAL, axis=1, keepdims=True)
    assert report_on(X).unit_norm
    assert report_on(X.astype(np.float32)).unit_norm
    X[17] *= 1.1
    assert not report_on(X).unit_norm
    assert not report_on(np.sign(NORMAL[:, :1])).unit_norm


def fields_of(report):
    table = [list(map(str, row)) for row in report.to_frame().itertuples()]
    return [table, report.n_duplicates, repr(report)]


@pytest.mark.parametrize(
    "parameters",
    [
        {"covariance_type": "full"},
        {"covariance_type": "diag", "bandwidth": "kl"},
        {"preserve_variance": True},
        {"adaptive": True},
        {"algorithm": "sampling"},
    ],
    ids=str,
)
def test_it_is_of_the_points_whatever_the_estimate(parameters):
    X = np.column_stack([NORMAL, RNG.poisson(2.0, 400)])
    for found, expected in zip(
        fields_of(report_on(X, **parameters)), fields_of(report_on(X)), strict=True
    ):
        assert_array_equal(found, expected)


def test_names_of_features():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(NORMAL, columns=["a", "b", "<c>"])
    frame["<c>"] = frame["<c>"].round()
    report = report_on(frame)
    assert list(report.to_frame().index) == ["a", "b", "<c>"]
    assert "discrete (1): feature '<c>' (" in repr(report)
    assert "&lt;c&gt;" in report._repr_html_()
    assert "<c>" not in report._repr_html_()


def test_tensors(tensors_as_on_a_gpu):
    """Also where rows have to come from a GPU."""
    torch = pytest.importorskip("torch")
    from sklearn import config_context

    X = np.column_stack([NORMAL, RNG.poisson(2.0, 400)])
    with config_context(array_api_dispatch=True):
        report = report_on(torch.asarray(X), backend="torch")
    for found, expected in zip(fields_of(report), fields_of(report_on(X)), strict=True):
        assert_array_equal(found, expected)


def test_it_is_made_once_when_asked_for():
    kde = HighDimKernelDensity(bandwidth=0.5).fit(NORMAL)
    assert "data_report_" not in dir(kde)
    before = len(pickle.dumps(kde))
    copied = pickle.loads(pickle.dumps(kde))
    report = kde.data_report_
    assert kde.data_report_ is report
    assert "data_report_" in dir(kde)
    assert len(pickle.dumps(kde)) < before + 4000
    assert_array_equal(copied.data_report_.standard_deviation, report.standard_deviation)
    assert not hasattr(HighDimKernelDensity(), "data_report_")


def test_nothing_notable():
    assert repr(report_on(NORMAL)).splitlines()[1] == "  notable: nothing>"


def test_it_fits_a_screen():
    X = np.column_stack([np.round(NORMAL @ RNG.standard_normal((3, 200)))] * 2)
    X[:, :50] = 1.0
    X[:, 50:90] = np.arange(400)[:, None] == 3
    X[::20, 100:] = -9999.0
    X[:, 399] *= 1e6
    shown = repr(report_on(X))
    assert len(shown.splitlines()) < 12
    assert max(map(len, shown.splitlines())) < 200


SCALES = "apart in scale by a factor of"
DISCRETE = "features of X are discrete"
APART = NORMAL * [1.0, 1000.0, 1.0]
COUNTS = np.column_stack([NORMAL, RNG.poisson(0.3, 400), RNG.integers(0, 2, 400)])
ONE_HOT = np.column_stack([NORMAL, COUNTS[:, 4], 1.0 - COUNTS[:, 4]])


@pytest.mark.parametrize("bandwidth", [0.5, "kl", "scott"])
def test_scales_apart_are_warned_of(bandwidth):
    (message,) = said(APART, bandwidth=bandwidth)
    assert SCALES in message
    assert "feature 1" in message
    assert "StandardScaler" in message


@pytest.mark.parametrize(
    "X",
    [
        NORMAL * [1.0, 50.0, 1.0],
        np.column_stack([NORMAL, np.ones(400)]),  # constant, and nearly so
        np.column_stack([NORMAL, 1e-6 * (np.arange(400) < 3)]),
        np.vstack([NORMAL, [[0.0, 1e9, 0.0]]]),  # an outlier is no scale
        np.column_stack([NORMAL, 10.0 * (np.arange(400) < 12)]),  # rare, of one size
        np.column_stack([NORMAL, 0.1 + 1e-16 * NORMAL[:, 0]]),  # constant, but rounded
        np.hstack([NORMAL] * 20) * [1e-4, *np.ones(59)],  # one of many, nearly dead
        NORMAL[:9] * [1.0, 1000.0, 1.0],  # too few rows to tell
    ],
)
def test_scales_that_are_not_apart(X):
    assert not said(X, bandwidth=0.5)


@pytest.mark.parametrize("kind", ["diag", "full", "local", "auto"])
def test_scales_matter_to_the_spherical_type_only(kind):
    assert not said(APART, covariance_type=kind)
    report = report_on(APART, covariance_type=kind, bandwidth="kl")
    assert "apart" not in repr(report) + report._repr_html_()
    assert report.spread_ratio > 100.0
    assert report.covariance_type != "spherical"


def test_scales_apart_are_shown_of_the_spherical_type():
    report = report_on(APART)
    assert report.covariance_type == "spherical"
    assert "scales apart by: " in repr(report)
    assert "feature 1" in repr(report)


def test_rare_values_have_their_own_size():
    """Where few rows differ, by how much sets the scale, not how many they are."""
    X = np.column_stack([NORMAL, 1000.0 * (np.arange(400) < 12)])
    assert SCALES in said(X, bandwidth=0.5)[0]


@pytest.mark.parametrize("kind", ["full", "auto"])
def test_discrete_features_are_warned_of(kind):
    """A kernel tells apart the values of one feature of a redundant one-hot pair."""
    (message,) = said(ONE_HOT, covariance_type=kind)
    assert message.startswith(f"2 of 5 {DISCRETE}")
    assert "feature 3" in message
    assert "feature 4" in message


def test_discrete_features_that_kernels_do_not_resolve():
    """Many values to a kernel's width, or no structure: the estimate is as any other."""
    steps = np.column_stack([NORMAL, np.round(10.0 * NORMAL[:, 0] + RNG.random(400))])
    assert not said(NORMAL.round(1), covariance_type="full")
    assert not said(COUNTS, bandwidth=0.5)
    assert not said(steps, bandwidth=0.5)


def test_uniform_noise_is_a_cure():
    noise = RNG.uniform(-0.5, 0.5, (400, 2))
    cured = np.column_stack([NORMAL, ONE_HOT[:, 3:] + noise])
    assert not said(cured, covariance_type="full")


def test_a_warning_has_the_name_of_the_feature():
    pd = pytest.importorskip("pandas")
    assert (
        "feature 'income'" in said(pd.DataFrame(APART, columns=["a", "income", "b"]))[0]
    )
