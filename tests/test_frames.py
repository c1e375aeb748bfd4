"""Data frames as they come: what is taken, and which column is refused."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skhdkde import HighDimKernelDensity, select_bandwidth


def frame(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.standard_normal(n),
            "count": rng.poisson(3.0, n),
            "flag": rng.integers(0, 2, n).astype(bool),
            "colour": rng.choice(["red", "green", "blue"], n),
            "when": pd.date_range("2020-01-01", periods=n),
        }
    )


NUMERIC = ["size", "count", "flag"]


@pytest.mark.parametrize("dtype", ["Float64", "float32", "Int64", "boolean", "object"])
def test_nullable_and_other_types(dtype):
    X = frame()[["size", "count"]]
    column = X["count"] > 2 if dtype == "boolean" else X["count"]
    kde = HighDimKernelDensity(bandwidth=0.8).fit(X.assign(count=column.astype(dtype)))
    plain = X.assign(count=column.astype(float)).to_numpy()
    expected = HighDimKernelDensity(bandwidth=0.8).fit(plain).score_samples(plain)
    found = kde.score_samples(X.assign(count=column.astype(dtype)))
    assert_allclose(found, expected, rtol=1e-5)
    assert kde.feature_names_in_.tolist() == ["size", "count"]


def test_booleans_and_codes_of_categories():
    X = frame()[NUMERIC].assign(code=frame()["colour"].astype("category").cat.codes)
    kde = HighDimKernelDensity(discrete_features="auto", bandwidth=0.5).fit(X)
    assert kde.discrete_features_.tolist() == [1, 2, 3]
    assert np.isfinite(kde.score_samples(X)).all()


def test_one_hot_columns_without_a_further_step():
    columns = ColumnTransformer(
        [("hot", OneHotEncoder(), ["colour"]), ("as it is", "passthrough", NUMERIC)]
    )
    kde = HighDimKernelDensity(
        covariance_type="full", discrete_features="auto", random_state=0
    )
    model = make_pipeline(columns, kde).fit(frame())
    assert np.isfinite(model.score_samples(frame())).all()
    drawn = model[-1].sample(50, random_state=0)
    assert set(np.unique(drawn[:, :3])) <= {0.0, 1.0}


@pytest.mark.parametrize("other", ["datetime64[ns]", "timedelta64[ns]", "period[D]"])
@pytest.mark.parametrize("fit", [HighDimKernelDensity().fit, select_bandwidth])
def test_dates_are_refused_by_name(fit, other):
    when = frame()["when"]
    if other == "timedelta64[ns]":
        when = when - when[0]
    if other == "period[D]":
        when = when.dt.to_period("D")
    for X in (frame()[["size"]].assign(when=when), pd.DataFrame({"when": when})):
        with pytest.raises(TypeError, match="column 'when' of X has dates or times"):
            fit(X)


@pytest.mark.parametrize("dtype", ["object", "category", "string"])
def test_text_is_refused_by_name(dtype):
    X = frame()[[*NUMERIC, "colour"]].astype({"colour": dtype})
    with pytest.raises(
        (ValueError, TypeError), match=r"Column 'colour' of X has .*: leave"
    ):
        HighDimKernelDensity().fit(X)


def test_missing_entries_are_said():
    X = frame()[["size", "count"]].astype(float)
    X.loc[[4, 9], "count"] = np.nan
    message = r"Rows with NaN: 2; the first is row 4, with NaN in column 1"
    kde = HighDimKernelDensity(bandwidth=500.0, kernel="tophat")  # without marginals
    with pytest.raises(ValueError, match=message + r" \('count'\).*kernel 'gaus"):
        kde.fit(X)
    with pytest.raises(ValueError, match=message + r"\."):
        kde.fit(X.to_numpy())
    kde.fit(X.dropna())
    with pytest.raises(ValueError, match=message):
        kde.score_samples(X)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64"])
def test_missing_entries_of_nullable_types(dtype):
    X = frame()[["size", "flag"]].astype({"flag": "Int64"})
    X.loc[7, "flag"] = pd.NA
    X["flag"] = X["flag"].astype(dtype)
    with pytest.raises(ValueError, match=r"first is row 7, .* column 1 \('flag'\)"):
        HighDimKernelDensity(bandwidth=1.0, kernel="tophat").fit(X)
    kde = HighDimKernelDensity(bandwidth=1.0).fit(X.drop(index=7))
    assert np.isfinite(kde.score_samples(X)).all()


def test_the_value_that_is_no_number_is_shown():
    X = frame()[["size"]].assign(code=["1", "2", "x"] * 20)
    with pytest.raises(ValueError, match="such as 'x'"):
        HighDimKernelDensity().fit(X)
    X["code"] = frame()["when"].dt.date
    with pytest.raises((TypeError, ValueError), match="'code' of X has dates or times"):
        HighDimKernelDensity().fit(X)
