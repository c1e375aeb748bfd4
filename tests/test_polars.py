"""Data frames of polars as they come: what is taken, and which column is refused."""

import datetime

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skhdkde import HighDimKernelDensity, kl_scorer, select_bandwidth

pl = pytest.importorskip("polars")

N = 60
RNG = np.random.default_rng(0)
FRAME = pl.DataFrame(
    {
        "size": RNG.standard_normal(N),
        "count": RNG.poisson(3.0, N),
        "flag": RNG.integers(0, 2, N).astype(bool),
        "colour": RNG.choice(["red", "green", "blue"], N),
        "when": [datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(N)],
    }
)
NUMERIC = ["size", "count", "flag"]
X = FRAME.select(NUMERIC)
PLAIN = np.column_stack([FRAME[name].to_numpy().astype(float) for name in NUMERIC])


def fitted(points, **parameters):
    parameters = {"bandwidth": 0.8, **parameters}
    return HighDimKernelDensity(random_state=0, **parameters).fit(points)


def test_results_are_those_of_the_array():
    kde, plain = fitted(X), fitted(PLAIN)
    assert kde.feature_names_in_.tolist() == NUMERIC
    assert_allclose(kde.score_samples(X), plain.score_samples(PLAIN))
    assert_allclose(kde.score_samples(None), plain.score_samples(None))
    assert_allclose(kde.diagnose(X).h_g, plain.diagnose(PLAIN).h_g)
    assert_allclose(kde.log_density_gradient(X), plain.log_density_gradient(PLAIN))
    assert_allclose(kde.sample(5, random_state=0), plain.sample(5, random_state=0))
    assert kl_scorer(kde, X) == pytest.approx(kl_scorer(plain, PLAIN))
    assert select_bandwidth(X) == pytest.approx(select_bandwidth(PLAIN))


def test_weights_are_a_series():
    count = FRAME["count"]
    kde = HighDimKernelDensity(bandwidth=0.8).fit(X, sample_weight=count)
    plain = HighDimKernelDensity(bandwidth=0.8).fit(PLAIN, sample_weight=count.to_numpy())
    expected = plain.score(PLAIN, sample_weight=count)
    assert kde.score(X, sample_weight=count) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", ["Float32", "Int64", "UInt8", "Boolean", "Decimal"])
def test_types_with_and_without_missing_entries(dtype):
    kind = pl.Decimal(10, 2) if dtype == "Decimal" else getattr(pl, dtype)
    column = FRAME["flag" if dtype == "Boolean" else "count"].cast(kind).alias("count")
    points = FRAME.select("size", column)
    plain = np.column_stack([FRAME["size"], column.cast(pl.Float64)])
    expected = fitted(plain).score_samples(plain)
    assert_allclose(fitted(points).score_samples(points), expected, rtol=1e-5)
    missing = points.with_columns(
        count=pl.when(pl.int_range(N).is_in([7, 9])).then(None).otherwise(column)
    )
    message = r"Rows with NaN: 2; the first is row 7, with NaN in column 1 \('count'\)"
    with pytest.raises(ValueError, match=message):
        HighDimKernelDensity(bandwidth=500.0, kernel="tophat").fit(missing)
    scores = fitted(points).score_samples(missing)
    assert_allclose(np.delete(scores, [7, 9]), np.delete(expected, [7, 9]), rtol=1e-5)


@pytest.mark.parametrize("kind", ["String", "Categorical", "Enum", "Object", "List"])
def test_text_and_objects_are_refused_by_name(kind):
    column = FRAME["colour"]
    if kind == "Object":
        column = pl.Series("colour", [object()] * N, dtype=pl.Object)
    elif kind == "List":
        column = pl.Series("colour", [[1.0, 2.0]] * N)
    elif kind == "Enum":
        column = column.cast(pl.Enum(["red", "green", "blue"]))
    else:
        column = column.cast(getattr(pl, kind))
    message = rf"Column 'colour' of X has {kind}.*: leave it out"
    with pytest.raises((ValueError, TypeError), match=message):
        fitted(X.with_columns(colour=column))
    with pytest.raises((ValueError, TypeError), match=message):
        select_bandwidth(pl.DataFrame({"colour": column}))


WHEN = FRAME["when"]


@pytest.mark.parametrize(
    "when",
    [
        WHEN,
        WHEN.cast(pl.Datetime),
        WHEN.cast(pl.Datetime("ms", "UTC")),
        WHEN - WHEN[0],
        pl.Series("when", [datetime.time(1, 2)] * N),
    ],
    ids=lambda when: str(when.dtype),
)
@pytest.mark.parametrize("fit", [HighDimKernelDensity().fit, select_bandwidth])
def test_dates_are_refused_by_name(fit, when):
    for points in (FRAME.select("size", when), pl.DataFrame({"when": when})):
        with pytest.raises(TypeError, match="column 'when' of X has dates or times"):
            fit(points)


def test_a_lazy_frame_is_to_be_collected():
    """There is no other warning of it."""
    message = r"^X: a LazyFrame has no values yet: call collect\(\)"
    for call in (fitted, fitted(X).score_samples, fitted(X).diagnose, select_bandwidth):
        with pytest.raises(TypeError, match=message):
            call(X.lazy())
    assert fitted(X.lazy().collect()).n_features_in_ == 3


@pytest.mark.parametrize(
    "wanted",
    [
        "auto",
        ["count", "flag"],
        pl.Series(["count", "flag"]),
        pl.Series([False, True, True]),
    ],
    ids=str,
)
def test_discrete_features_and_the_report(wanted):
    kde = fitted(X, discrete_features=wanted)
    assert kde.discrete_features_.tolist() == [1, 2]
    assert set(np.unique(kde.sample(50, random_state=0)[:, 2])) == {0.0, 1.0}
    assert kde.data_report_.feature_names == tuple(NUMERIC)
    assert "feature 'flag' (2 values, step 1)" in repr(kde.data_report_)


def test_codes_of_categories():
    code = FRAME["colour"].cast(pl.Categorical).to_physical().alias("code")
    kde = fitted(X.with_columns(code), discrete_features="auto")
    assert kde.discrete_features_.tolist() == [1, 2, 3]


def test_one_hot_columns_of_a_transformer():
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["colour"]),
        ("passthrough", NUMERIC),
        verbose_feature_names_out=False,
    ).set_output(transform="polars")
    kde = HighDimKernelDensity(covariance_type="diag", discrete_features="auto")
    model = make_pipeline(columns, kde).fit(FRAME)
    assert np.isfinite(model.score_samples(FRAME)).all()
    assert model[-1].feature_names_in_[:2].tolist() == ["colour_blue", "colour_green"]


def test_columns_in_another_order_are_an_error():
    with pytest.raises(ValueError, match="same order"):
        fitted(X).score_samples(X.select(NUMERIC[::-1]))
