"""Unit vectors as training points and queries: checks, messages, constant features."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sphere_oracle import nodes, tangents, unit
from test_projected import points

from skhdkde import (
    BandwidthDisplay,
    HighDimKernelDensity,
    RegimeDisplay,
    kl_scorer,
    select_bandwidth,
)

STUDENT = {"kernel": "student", "degrees_of_freedom": 5.0}
SETTINGS = [
    {},
    {"kernel": "tophat"},
    {"covariance_type": "full"},
    {"covariance_type": "diag", "preserve_variance": True, **STUDENT},
    {"covariance_type": "local", "adaptive": True},
]
METHODS = ["score_samples", "log_density_gradient", "diagnose", "score"]


def on_sphere(**parameters):
    return HighDimKernelDensity(support="sphere", **parameters)


# Rows that are not of unit norm.


def wrong(kind, X):
    """Points of which the eighth is wrong, and what a message says of it."""
    X = X.copy()
    X[7] *= {"long": 1.01, "short": 0.99, "zero": 0.0}[kind]
    return X, {"long": "norm 1.01", "short": "norm 0.99", "zero": "leave it out"}[kind]


@pytest.mark.parametrize("kind", ["long", "short", "zero"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_rows_of_another_norm(kind, setting):
    X = points(40, 4)
    kde = on_sphere(bandwidth=0.5, **setting).fit(X)
    other, said = wrong(kind, X)
    calls = [lambda: on_sphere(bandwidth=0.5, **setting).fit(other)]
    calls += [lambda m=method: getattr(kde, m)(other) for method in METHODS]
    for call in calls:
        with pytest.raises(ValueError, match=f"row 7 has.*{said}") as caught:
            call()
        assert "sklearn.preprocessing.normalize" in str(caught.value)


def test_rows_of_nearly_unit_norm():
    X = points(60, 4)
    size = 1.0 + 9e-4 * np.random.default_rng(0).uniform(-1.0, 1.0, size=(60, 1))
    for setting in SETTINGS:
        kde = on_sphere(bandwidth=0.5, random_state=0, **setting)
        expected = clone(kde).fit(X).score_samples(X)
        assert_allclose(kde.fit(X * size).score_samples(X * size), expected, atol=1e-9)


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"bandwidth": "scott"}, "'kl', 'nearest', 'clt' or a number"),
        ({"bandwidth": "silverman"}, "'kl', 'nearest', 'clt' or a number"),
        ({"bandwidth": "gaussian"}, "'kl', 'nearest', 'clt' or a number"),
        ({"covariance_type": "full", "algorithm": "neighbors"}, "algorithm='exact'"),
        ({"covariance_type": "full", "algorithm": "sampling"}, "algorithm='exact'"),
        ({"preserve_variance": True, "algorithm": "auto"}, "algorithm='exact'"),
        ({"feature_maps": "yeo-johnson"}, "feature_maps must be None"),
        ({"discrete_features": [0]}, "discrete_features must be None"),
        ({"covariance_type": "neighborhood"}, "'local'"),
        ({"covariance_type": "full", "kernel": "tophat"}, "'gaussian' and 'student'"),
        ({"covariance_type": "diag", "kernel": "cosine"}, "'gaussian' and 'student'"),
        (
            {"covariance_type": "full", "kernel": "exponential"},
            "'gaussian' and 'student'",
        ),
        (
            {"preserve_variance": True, "kernel": "exponential"},
            "'gaussian' and 'student'",
        ),
        ({"support": "ball"}, "'sphere'"),
    ],
    ids=str,
)
def test_parameters_that_do_not_go_together(parameters, said):
    with pytest.raises(ValueError, match=said):
        HighDimKernelDensity(**{"support": "sphere", **parameters}).fit(points(30, 4))


def test_too_few_features():
    with pytest.raises(ValueError, match="at least two features of X that vary"):
        on_sphere().fit(np.array([[1.0], [-1.0], [1.0]]))
    with pytest.raises(ValueError, match="at least two features of X that vary"):
        on_sphere().fit(np.array([[0.6, 0.8], [0.6, -0.8], [0.6, 0.8]]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite(value):
    X = points(30, 4)
    X[3, 1] = value
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        on_sphere().fit(X)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_failed_fit_changes_nothing(setting):
    X = points(40, 4)
    kde = on_sphere(bandwidth=0.5, random_state=0, **setting).fit(X)
    before = kde.score_samples(X)
    with pytest.raises(ValueError, match="unit norm"):
        kde.fit(2.0 * X)
    assert_array_equal(kde.score_samples(X), before)


# Constant features.


def with_constant(value, n=60, seed=0):
    """Unit vectors in four features of which the second is constant."""
    X = np.insert(np.sqrt(1.0 - value**2) * points(n, 3, seed=seed), 1, value, axis=1)
    assert np.abs(np.linalg.norm(X, axis=1) - 1.0).max() < 1e-12
    return X


@pytest.mark.parametrize("value", [0.0, -0.6])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_constant_features(value, setting):
    X, radius = with_constant(value), np.sqrt(1.0 - value**2)
    kde = on_sphere(bandwidth=0.6, random_state=0, **setting)
    with pytest.warns(UserWarning, match=r"1 constant feature of 4: column 1\. "):
        kde.fit(X)
    assert_array_equal(kde.constant_features_, [1])
    sample = kde.sample(50, random_state=0)
    assert_array_equal(sample[:, 1], value)
    assert_allclose(np.linalg.norm(sample, axis=1), 1.0, atol=1e-12)
    at, weights = nodes(3, 150 if "kernel" in setting or "adaptive" in setting else 60)
    at = np.insert(radius * at, 1, value, axis=1)
    total = radius**2 * (weights @ np.exp(kde.score_samples(at)))
    tol = 5e-3 if setting.get("kernel") == "tophat" else 1e-5
    assert total == pytest.approx(1.0, abs=tol)
    queries = with_constant(value, 5, seed=1)
    gradient = kde.log_density_gradient(queries)
    assert_array_equal(gradient[:, 1], 0.0)
    assert_allclose(np.sum(gradient * queries, axis=1), 0.0, atol=1e-12)
    # per unit of X, not of the smaller sphere
    step = np.insert(tangents(queries[:, [0, 2, 3]] / radius, 0), 1, 0.0, axis=1)
    moved = [
        np.insert(radius * unit((queries + s * step)[:, [0, 2, 3]]), 1, value, axis=1)
        for s in (1e-5, -1e-5)
    ]
    if setting.get("kernel") != "tophat":
        ahead, behind = map(kde.score_samples, moved)
        found = np.sum(gradient * step, axis=1)
        assert_allclose(found, (ahead - behind) / 2e-5, atol=1e-5, rtol=1e-5)


def test_queries_that_differ_in_constant_features():
    X = with_constant(0.0)
    with pytest.warns(UserWarning, match="constant"):
        kde = on_sphere(bandwidth=0.5).fit(X)
    queries = unit(X[:3] + np.array([0.0, 0.5, 0.0, 0.0]))
    with pytest.warns(UserWarning, match="3 of 3 rows .*column 1"):
        found = kde.score_samples(queries)
    assert_allclose(found, kde.score_samples(X[:3]), atol=1e-12)


# Kinds of input.


@pytest.mark.parametrize("setting", SETTINGS[:4], ids=str)
def test_weights_of_zero(setting):
    X = points(50, 4)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, size=50)
    weights[::4] = 0.0
    kde = on_sphere(bandwidth=0.6, **setting).fit(X, sample_weight=weights)
    some = weights > 0.0
    fewer = on_sphere(bandwidth=0.6, **setting).fit(X[some], sample_weight=weights[some])
    assert_allclose(kde.score_samples(X), fewer.score_samples(X), atol=1e-12)
    left_out = kde.score_samples(None)
    assert_allclose(left_out[some], fewer.score_samples(None), atol=1e-12)
    assert_allclose(left_out[~some], fewer.score_samples(X[~some]), atol=1e-12)


def test_data_frames():
    X = pd.DataFrame(with_constant(0.0), columns=list("abcd"))
    with pytest.warns(UserWarning, match=r"column 1 \('b'\)"):
        kde = on_sphere(bandwidth=0.5).fit(X)
    assert_array_equal(kde.feature_names_in_, list("abcd"))
    found = kde.score_samples(X)
    assert_array_equal(found, kde.score_samples(X))
    X.iloc[2] *= 1.5
    with pytest.raises(ValueError, match=r"row 2 has norm 1\.5"):
        kde.score_samples(X)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_copies(setting):
    X, at = points(60, 4), points(9, 4, seed=1)
    kde = on_sphere(random_state=0, bandwidth=0.5, **setting).fit(X)
    for twin in (pickle.loads(pickle.dumps(kde)), copy.deepcopy(kde), clone(kde).fit(X)):
        assert_array_equal(twin.score_samples(at), kde.score_samples(at))
        assert_array_equal(twin.sample(5, random_state=1), kde.sample(5, random_state=1))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_what_is_held_out(setting):
    X, fresh = points(150, 4), points(400, 4, seed=1)
    if setting.get("adaptive"):
        setting = {**setting, "bandwidth": 0.7}
    if setting.get("kernel") == "tophat":
        setting = {**setting, "bandwidth": 1.2}
    kde = on_sphere(random_state=0, **setting).fit(X)
    held_out = kde.held_out_log_density_
    assert held_out.shape == (150,)
    assert np.mean(held_out) == pytest.approx(kde.score_samples(fresh).mean(), abs=0.25)
    assert "sphere" in repr(kde)
    assert "150" in str(kde.data_report_)


def test_held_out_of_many_features():
    """A point that is left out is not what others are compared to.

    By torch all values are made to the last digit; by numpy those that matter.
    """
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    X = unit(rng.standard_normal((120, 400)) + 0.5)
    options = {"covariance_type": "full", "preserve_variance": True, "bandwidth": 0.7}
    found, expected = (
        HighDimKernelDensity(support="sphere", backend=by, **options)
        .fit(X)
        .score_samples(None)
        for by in ("numpy", "torch")
    )
    assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("setting", SETTINGS[::2], ids=str)
def test_displays(setting):
    kde = on_sphere(random_state=0, **setting).fit(points(100, 4))
    assert BandwidthDisplay.from_estimator(kde).ax_ is not None
    assert RegimeDisplay.from_estimator(kde, points(30, 4, seed=1)).ax_ is not None


def test_in_a_pipeline_and_a_grid_search():
    rng = np.random.default_rng(0)
    X = points(90, 5) * rng.uniform(0.5, 3.0, size=(90, 1))
    pipeline = make_pipeline(Normalizer(), on_sphere(bandwidth=0.5, random_state=0))
    name = "highdimkerneldensity"
    grid = {f"{name}__covariance_type": ["spherical", "full"]}
    search = GridSearchCV(pipeline, grid, scoring=kl_scorer, cv=3).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    kind = search.best_params_[f"{name}__covariance_type"]
    alone = on_sphere(covariance_type=kind, bandwidth=0.5).fit(unit(X))
    expected = alone.score_samples(unit(X))
    assert_allclose(search.best_estimator_.score_samples(X), expected, atol=1e-9)


@pytest.mark.slow
def test_choices_by_held_out_surface_density():
    """ "auto" and "stack" are at least as good as round kernels where shape matters."""
    X, fresh = points(300, 6), points(300, 6, seed=1)
    means = {}
    for kind in ("spherical", "full", "auto", "stack"):
        kde = on_sphere(covariance_type=kind, random_state=0).fit(X)
        means[kind] = kde.score_samples(fresh).mean()
        at, seen = kde.sample(200, random_state=0), kde.score_samples(fresh)
        assert_allclose(np.linalg.norm(at, axis=1), 1.0, atol=1e-12)
        assert np.isfinite(seen).all()
    assert (
        min(means["auto"], means["stack"]) > max(means["spherical"], means["full"]) - 0.05
    )


@pytest.mark.parametrize("h", [1e-12, 1e-6, 1e6, 1e50])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_extreme_bandwidths(h, setting):
    """Finite where the kernel is, and uniform at the largest."""
    X = points(40, 4)
    if setting.get("preserve_variance") and h > 1.0:
        return
    kde = on_sphere(bandwidth=h, random_state=0, **setting).fit(X)
    found = kde.score_samples(X)
    assert np.isfinite(found).all()
    if h > 1.0 and setting.get("covariance_type", "spherical") == "spherical":
        assert_allclose(found, -np.log(2.0 * np.pi**2), atol=1e-6)
    assert_allclose(kde.diagnose(X).log_density, found, atol=1e-8)
    assert_allclose(np.linalg.norm(kde.sample(20, random_state=0), axis=1), 1.0)


# The rules as a function.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "linear"])
@pytest.mark.parametrize("rule", ["kl", "nearest"])
def test_select_bandwidth(rule, kernel, weighted):
    X = points(80, 6)
    weights = np.random.default_rng(0).integers(0, 4, 80) if weighted else None
    found = select_bandwidth(
        X, rule=rule, kernel=kernel, support="sphere", sample_weight=weights
    )
    kde = on_sphere(bandwidth=rule, kernel=kernel).fit(X, sample_weight=weights)
    assert found == pytest.approx(kde.bandwidth_, rel=1e-12)
    flat = select_bandwidth(X, rule=rule, kernel=kernel, sample_weight=weights)
    assert found != pytest.approx(flat, rel=1e-3)


def test_select_bandwidth_refuses():
    X = points(80, 6)
    for rule in ("gaussian", "scott", "silverman"):
        with pytest.raises(ValueError, match=f"{rule}.*'clt' or a number"):
            select_bandwidth(X, rule=rule, support="sphere")
    X[7] *= 2.0
    weights = np.ones(80)
    weights[[0, 7]] = 0.0
    with pytest.raises(ValueError, match="row 7 has norm 2"):
        select_bandwidth(X, support="sphere", sample_weight=weights)


def test_select_bandwidth_on_a_smaller_sphere():
    X = points(80, 6)
    dead = np.insert(0.8 * X, 2, 0.6, axis=1)
    with pytest.warns(UserWarning, match="column 2. X is on a smaller sphere"):
        found = select_bandwidth(dead, support="sphere")
    assert found == pytest.approx(select_bandwidth(X, support="sphere"), rel=1e-9)
