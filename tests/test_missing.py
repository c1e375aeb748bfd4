"""Missing values: in queries, filled in, and in the training points."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import ks_2samp
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhdkde import DensityImputer, HighDimKernelDensity

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)) @ RNG.normal(size=(4, 4)) + 5.0
FULL = {"covariance_type": "full", "bandwidth": 0.5}
STUDENT = {**FULL, "kernel": "student", "degrees_of_freedom": 5.0}


def with_gaps(X, share=0.3, seed=1):
    missing = np.random.default_rng(seed).uniform(size=X.shape) < share
    return np.where(missing, np.nan, X)


@parametrize_with_checks(
    [DensityImputer(HighDimKernelDensity(covariance_type="full", bandwidth=0.5))]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("parameters", [{"bandwidth": 0.5}, STUDENT])
def test_queries_have_marginal_densities(parameters, dtype):
    kde = HighDimKernelDensity(**parameters).fit(X.astype(dtype))
    queries = with_gaps(X[:40]).astype(dtype)
    queries[7], queries[8] = np.nan, X[8]
    scores, slopes = kde.score_samples(queries), kde.log_density_gradient(queries)
    diagnosis = kde.diagnose(queries)
    assert scores.dtype == slopes.dtype == dtype
    tol = 1e-7 if dtype == np.float64 else 2e-3
    for i, query in enumerate(queries):
        known = np.flatnonzero(~np.isnan(query))
        assert diagnosis.n_missing[i] == 4 - len(known)
        assert_array_equal(np.isnan(slopes[i]), np.isnan(query))
        if not len(known):
            assert scores[i] == 0.0
            assert diagnosis.standard_error[i] == 0.0
            assert diagnosis.max_weight[i] == pytest.approx(1.0 / len(X))
            continue
        part = kde.marginal(known)
        own = part.diagnose([query[known]])
        assert_allclose(scores[i], part.score_samples([query[known]])[0], atol=tol)
        assert_allclose(diagnosis.standard_error[i], own.standard_error[0], rtol=tol)
        slope = part.log_density_gradient([query[known]])[0]
        assert_allclose(slopes[i, known], slope, atol=tol, rtol=tol)
    assert f"({np.isnan(queries).any(axis=1).sum()} with missing values)" in repr(
        diagnosis
    )
    assert "n_missing" in diagnosis.to_frame()
    assert kde.diagnose(X).n_missing is None
    assert_allclose(kde.score(queries), scores.sum(), rtol=1e-5)


def test_queries_with_constant_features_only():
    Y = X.copy()
    Y[:, 2] = 3.0
    with pytest.warns(UserWarning, match="constant"):
        kde = HighDimKernelDensity().fit(Y)
    only = [np.nan, np.nan, 3.5, np.nan]
    both = [Y[0, 0], np.nan, 3.5, np.nan]
    known = kde.score_samples([[Y[0, 0], np.nan, np.nan, np.nan]])[0]
    assert_allclose(kde.score_samples([both])[0] - known, kde.score_samples([only])[0])
    slope = kde.log_density_gradient([only])[0]
    assert_array_equal(np.isnan(slope), np.isnan(only))
    assert slope[2] < 0.0
    assert kde.impute([[1.0, np.nan, np.nan, 2.0]])[0, 2] == 3.0


def test_approximations_and_weights():
    weights = RNG.uniform(size=len(X)) * (np.arange(len(X)) % 9 > 0)
    exact = HighDimKernelDensity(bandwidth=1.0).fit(X, sample_weight=weights)
    kde = HighDimKernelDensity(bandwidth=1.0, algorithm="sampling", random_state=0)
    kde.fit(X, sample_weight=weights)
    queries = with_gaps(X)
    gaps = np.isnan(queries).any(axis=1)
    assert_allclose(kde.score_samples(queries)[gaps], exact.score_samples(queries)[gaps])
    assert_array_equal(kde.approximation_.error[gaps], 0.0)
    assert set(kde.approximation_.algorithm[gaps]) == {"exact"}
    assert_array_equal(kde.diagnose(queries).n_missing, np.isnan(queries).sum(axis=1))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_an_error(value):
    kde = HighDimKernelDensity(**FULL).fit(X)
    for call in (kde.score_samples, kde.impute, kde.diagnose, HighDimKernelDensity().fit):
        with pytest.raises(ValueError, match="infinity"):
            call(np.where(X == X[3, 2], value, X))


@pytest.mark.parametrize(
    "parameters", [{"kernel": "tophat", "bandwidth": 9.0}, {"kernel": "exponential"}]
)
def test_other_kernels_take_no_missing_values(parameters):
    kde = HighDimKernelDensity(**parameters)
    assert not kde.__sklearn_tags__().input_tags.allow_nan
    for call in (kde.fit, kde.fit(X).score_samples):
        with pytest.raises(ValueError, match="X contains NaN"):
            call(with_gaps(X))


@pytest.mark.parametrize(
    "parameters",
    [
        {"bandwidth": 0.5},
        STUDENT,
        {**STUDENT, "adaptive": True, "preserve_variance": True},
        {**FULL, "covariance_type": "neighborhood"},
        {**FULL, "feature_maps": {0: "yeo-johnson", 1: ("log", -20.0)}},
    ],
)
def test_means_are_those_of_the_conditional(parameters):
    """The integral of ``x f(x)``, and as draws from the conditional are spread."""
    kde = HighDimKernelDensity(**parameters).fit(X)
    query = np.array([X[3, 0], np.nan, X[3, 2], X[3, 3] + 0.3])
    one = kde.conditional([0, 2, 3], query[[0, 2, 3]])
    grid = X[3, 1] + 60.0 * np.linspace(-1.0, 1.0, 6001) ** 3
    density = np.exp(one.score_samples(grid[:, None]))
    mean = np.trapezoid(grid * density, grid) / np.trapezoid(density, grid)
    found = kde.impute([query])[0]
    tol = 0.02 if "feature_maps" in parameters else 2e-3
    assert_allclose(found[1], mean, atol=tol)
    assert_array_equal(found[[0, 2, 3]], query[[0, 2, 3]])
    query[0] = np.nan
    drawn = kde.impute([query], 3000, random_state=0)
    assert drawn.shape == (3000, 1, 4)
    two = kde.conditional([2, 3], query[[2, 3]]).sample(3000, random_state=1)
    for way in ([1.0, 0.0], [1.0, 1.0], [1.0, -1.0]):  # together, not one by one
        assert ks_2samp(drawn[:, 0, :2] @ way, two @ way).pvalue > 1e-3
    again = kde.impute([query], 3000, random_state=0)
    assert_array_equal(drawn, again)


def test_draws_are_on_lattices():
    Y = X.copy()
    Y[:, 1] = np.round(Y[:, 1])
    kde = HighDimKernelDensity(covariance_type="full", discrete_features=[1]).fit(Y)
    drawn = kde.impute(with_gaps(Y), 4, random_state=0)
    assert_array_equal(drawn[:, :, 1] % 1.0, 0.0)
    assert not np.isnan(drawn).any()


def test_values_outside_limits():
    kde = HighDimKernelDensity(**FULL, feature_maps={0: ("log", -20.0)}).fit(X)
    with pytest.raises(ValueError, match="row 1 of X has a value outside the limits"):
        kde.impute([[1.0, np.nan, 1.0, 1.0], [-30.0, np.nan, 1.0, 1.0]])


def test_incomplete_training_points():
    """Near the fit to all values, better than the complete rows alone."""
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(5, 5)) + 2.0  # strongly correlated
    train, test = rng.normal(size=(150, 5)) @ mixing, rng.normal(size=(300, 5)) @ mixing
    gaps = with_gaps(train, share=0.25)
    complete = ~np.isnan(gaps).any(axis=1)
    make = HighDimKernelDensity(covariance_type="full", random_state=0)
    with pytest.warns(UserWarning, match=r"NaN in 1\d\d of 150 rows, 2\d\.\d% of all"):
        kde = make.fit(gaps)
    assert_array_equal(kde.incomplete_rows_, np.flatnonzero(~complete))
    assert_array_equal(kde.data_report_.n_missing, np.isnan(gaps).sum(axis=0))
    found = kde.score_samples(test).mean()
    few = HighDimKernelDensity(covariance_type="full", random_state=0)
    assert few.fit(gaps[complete]).incomplete_rows_.size == 0
    assert found > few.score_samples(test).mean() + 0.1
    assert found > few.fit(train).score_samples(test).mean() - 1.0


def test_rows_are_filled_in_without_themselves():
    Y = X.copy()
    Y[4, 2] = np.nan
    make = HighDimKernelDensity(bandwidth=0.3, random_state=0)
    weights = np.arange(len(X)) != 0  # rows of no weight move the others up
    others = HighDimKernelDensity(bandwidth=0.3).fit(np.delete(X, [0, 4], axis=0))
    with pytest.warns(UserWarning, match="NaN in 1 of 90 rows"):
        kde = make.fit(Y, sample_weight=weights)
    assert_allclose(kde.impute(Y[4:5]), others.impute(Y[4:5]), rtol=1e-9)
    other = Y[4:5] + 1e-9  # nobody's row
    assert abs(kde.impute(other) - others.impute(other))[0, 2] > 1e-3


@pytest.mark.filterwarnings("ignore:X has NaN")
def test_copies_are_filled_in_without_each_other():
    """What one of them misses was drawn: it is no evidence for the others."""
    Y = np.vstack([X, X[4], -np.abs(X[4]), X[4]])
    Y[[4, 90, 91, 92], 2] = np.nan
    Y[[91, 92], 3] = 0.0, -0.0
    Y[4, 3] = 0.0
    kde = HighDimKernelDensity(bandwidth=0.3, random_state=0).fit(Y)
    rows = [4, 90, 92]
    seen = kde._density.given(np.arange(93))
    for row in rows:
        same = (Y[:, :2] == Y[row, :2]).all(axis=1) & (Y[:, 3] == Y[row, 3])
        others = HighDimKernelDensity(bandwidth=0.3).fit(seen[~same])
        query = np.where(np.isnan(Y[row : row + 1]), -np.nan, Y[row : row + 1])
        assert_allclose(kde.impute(query), others.impute(query), rtol=1e-9)


@pytest.mark.parametrize("n_weighted", [0, 1, 9])
def test_complete_rows_of_no_weight_complete_nothing(n_weighted):
    gaps = with_gaps(X, share=0.1)
    complete = np.flatnonzero(~np.isnan(gaps).any(axis=1))
    weights = np.ones(len(X))
    weights[complete[n_weighted:]] = 0.0
    words = f"{n_weighted} rows are complete and of positive weight, and at least 10"
    with pytest.raises(ValueError, match=words):
        HighDimKernelDensity(**FULL).fit(gaps, sample_weight=weights)


def test_errors_of_the_fit_to_complete_rows():
    gaps = with_gaps(X, share=0.1)
    complete = ~np.isnan(gaps).any(axis=1)
    maps = {0: ("log", -50.0)}
    low = gaps.copy()
    low[np.flatnonzero(~np.isnan(gaps[:, 0]) & ~complete)[0], 0] = -60.0
    with pytest.raises(ValueError, match=r"for feature 0, .* 1 of 90 rows have others"):
        HighDimKernelDensity(**FULL, feature_maps=maps).fit(low)
    gaps[complete] = gaps[complete][0]
    n = complete.sum()
    with pytest.raises(
        ValueError, match=f"In a fit to the {n} complete rows of X, .* all"
    ):
        HighDimKernelDensity().fit(gaps)


def test_queries_that_are_too_far():
    kde = HighDimKernelDensity(**FULL).fit(X)
    with pytest.raises(
        ValueError, match=r"as far .* 1.0e\+200, whose squares are beyond"
    ):
        kde.impute([[1e200, np.nan, 0.0, 0.0]])


def test_names_of_features_with_missing_values():
    frame = pd.DataFrame(with_gaps(np.abs(X) + 1.0, 0.1), columns=list("abcd"))
    frame["d"] = frame["d"].round()
    kde = HighDimKernelDensity(
        **FULL, feature_maps={"a": "log"}, discrete_features=["d"], random_state=0
    )
    with pytest.warns(UserWarning, match="NaN in"):
        kde.fit(frame)
    assert_array_equal(kde.sample(5, random_state=0)[:, 3] % 1.0, 0.0)
    assert list(kde.feature_names_in_) == list("abcd")


def test_too_few_complete_rows():
    gaps = with_gaps(X, share=0.1)
    gaps[8:, 1] = np.nan
    with pytest.raises(ValueError, match=r"Leave out features .* columns 1 \(8\d\)"):
        HighDimKernelDensity(**FULL).fit(gaps)


def test_imputer():
    frame = pd.DataFrame(with_gaps(X, 0.15), columns=list("abcd"))
    estimator = HighDimKernelDensity(**STUDENT)
    imputer = DensityImputer(estimator).set_output(transform="pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that there are gaps is no news to an imputer
        found = imputer.fit_transform(frame)
    assert list(found.columns) == list(imputer.get_feature_names_out()) == list("abcd")
    known = frame.notna().to_numpy()
    assert_array_equal(found.to_numpy()[known], frame.to_numpy()[known])
    error = np.abs(found.to_numpy() - X)[~known].mean()
    assert error < 0.8 * np.abs(frame.mean().to_numpy() - X)[~known].mean()
    drawing = DensityImputer(estimator, sample_posterior=True, random_state=0)
    drawn = drawing.fit(frame).transform(frame)
    assert_array_equal(drawn, drawing.transform(frame))
    assert np.abs(drawn - X)[~known].mean() > error
    with pytest.raises(ValueError, match="DensityImputer needs kernel 'gaussian'"):
        DensityImputer(HighDimKernelDensity(bandwidth=9.0, kernel="tophat")).fit(X)
    chain = make_pipeline(
        StandardScaler(), DensityImputer(estimator), HighDimKernelDensity()
    )
    assert np.isfinite(cross_val_score(chain, frame.to_numpy(), cv=3)).all()
    assert not DensityImputer(random_state=0).fit(X).estimator_.incomplete_rows_.size
