"""Maps of single features: they increase, go back, and keep the integral at one.

Slopes are held against differences, maps against scikit-learn, mpmath and direct sums.
"""

import pickle
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import fixed_quad, quad
from scipy.stats import norm
from sklearn.preprocessing import PowerTransformer

from skhdkde._maps import check_limits, fit_maps, resolve_maps
from skhdkde._maps.column import Column
from skhdkde._maps.gaussianized import best_width, heights_at, width_from_few

SPECS = ["yeo-johnson", "gaussianize"]
LOG, LOGIT = ("log", -0.5), ("logit", -0.25, 1.5)


def features(n=500, seed=0):
    """Return features of many kinds, by name."""
    rng = np.random.default_rng(seed)
    one_outlier = rng.normal(size=n)
    one_outlier[7] = 1e6
    return {
        "normal": rng.normal(170.0, 10.0, size=n),
        "skewed": rng.gamma(0.7, 3.0, size=n),
        "very skewed": rng.lognormal(0.0, 3.0, size=n),
        "little skewed": rng.gamma(4.0, 2.0, size=n),
        "negative": -rng.lognormal(0.0, 1.0, size=n),
        "bimodal": np.append(rng.normal(size=n // 2), rng.normal(9.0, 0.2, size=n // 2)),
        "bounded": rng.beta(0.6, 2.0, size=n),
        "heavy tails": rng.standard_t(1.5, size=n),
        "ties": np.round(rng.gamma(2.0, 2.0, size=n)),
        "two values": rng.integers(0, 2, size=n).astype(float),
        "rare value": (np.arange(n) % 100 == 0).astype(float),
        "outlier": one_outlier,
        "float32": rng.gamma(0.7, 3.0, size=n).astype(np.float32),
    }


FEATURES = features()
UNIT = {name: x for name, x in FEATURES.items() if x.min() > -0.2 and x.max() < 1.2}
CASES = [
    *[(name, spec) for name in FEATURES for spec in (None, *SPECS)],
    *[(name, (LOG,)) for name, x in FEATURES.items() if x.min() >= 0.0],
    *[(name, (LOGIT,)) for name in UNIT],
]
each_case = pytest.mark.parametrize("name, spec", CASES)


def fitted(x, spec, weights=None, seed=0):
    """Return the map of one feature."""
    spec = (None,) if spec is None else spec
    return fit_maps(x[:, None], weights, spec, seed)


def values(maps, method, x):
    """Return what a method gives at values of one feature."""
    return np.ravel(getattr(maps, method)(np.asarray(x, dtype=float)[:, None]))


def places(maps):
    """Return values of a feature, ascending, from one tail to the other."""
    return values(maps, "invert", np.linspace(-6.03, 6.0, 301))


@each_case
def test_maps_increase_and_go_back(name, spec):
    maps = fitted(FEATURES[name], spec)
    x = np.unique(np.append(places(maps), FEATURES[name]))
    z = values(maps, "apply", x)
    assert (np.diff(z) > 0.0).all()
    assert_allclose(values(maps, "invert", z), x, rtol=1e-12, atol=1e-12 * np.ptp(x))
    assert_allclose(
        values(maps, "apply", places(maps)),
        np.linspace(-6.03, 6.0, 301),
        rtol=1e-9,
        atol=1e-9,
    )


@each_case
def test_slopes_are_derivatives(name, spec):
    """By differences, at the scale on which the map varies."""
    maps = fitted(FEATURES[name], spec)
    x = places(maps)
    slope, jacobian = values(maps, "slopes", x), values(maps, "log_jacobian", x)
    assert_allclose(np.log(slope), jacobian, rtol=1e-12, atol=1e-12)
    step = 1e-6 / slope
    ends = [values(maps, "apply", x + sign * step) for sign in (1.0, -1.0)]
    moved = (x + step) - (x - step)  # as it is after rounding
    inside = np.abs(moved - 2.0 * step) < 1e-6 * step
    assert inside.mean() > 0.6
    found = (ends[0] - ends[1])[inside] / moved[inside]
    assert_allclose(found, slope[inside], rtol=1e-4)
    assert np.median(np.abs(found / slope[inside] - 1.0)) < 1e-8


@each_case
def test_gradients_of_log_slopes(name, spec):
    maps = fitted(FEATURES[name], spec)
    x = places(maps)
    step = 1e-5 / values(maps, "slopes", x)
    ends = [values(maps, "log_jacobian", x + sign * step) for sign in (1.0, -1.0)]
    gradient = values(maps, "log_slope_gradient", x)
    error = np.abs((ends[0] - ends[1]) - 2.0 * step * gradient)
    # a knot, where the gradient jumps, lies between the ends of a few
    assert np.quantile(error, 0.95) < 1e-8


def density(maps, x):
    """Return the density if the mapped feature is standard normal."""
    return np.exp(norm.logpdf(values(maps, "apply", x)) + values(maps, "log_jacobian", x))


def smooth_pieces(maps, low, high):
    """Return places between which a gaussianized map is smooth, the ends with them."""
    *before, spline = maps.maps[0].maps
    knots = spline.knots
    for one in reversed(before):
        knots = one.inverse(knots)
    places = np.append(knots, before[0].inverse(np.zeros(1)))
    places = np.sort(places[(places > low) & (places < high)])
    return np.concatenate([[low], places, [high]])


@pytest.mark.parametrize(
    "name, spec",
    [case for case in CASES if case[0] in ("skewed", "bimodal", "bounded", "float32")]
    + [(name, spec) for name in ("heavy tails", "ties", "outlier") for spec in SPECS],
)
def test_integral_is_one(name, spec):
    maps = fitted(FEATURES[name], spec)
    ends = values(maps, "invert", np.linspace(-8.0, 8.0, 17))
    if spec == "gaussianize":
        pairs = pairwise(smooth_pieces(maps, ends[0], ends[-1]))
        total = sum(
            fixed_quad(lambda x: density(maps, x), *pair, n=8)[0] for pair in pairs
        )
    else:
        pairs = pairwise(ends)
        total = sum(quad(lambda x: density(maps, [x])[0], *pair)[0] for pair in pairs)
    assert total == pytest.approx(1.0, abs=1e-7)


@each_case
def test_maps_are_onto(name, spec):
    """Mapped values grow without end towards the ends of where the feature can be."""
    maps = fitted(FEATURES[name], spec)
    low, high = {LOG: (-0.5, np.inf), LOGIT: (-0.25, 1.5)}.get(
        spec and spec[0], (-np.inf, np.inf)
    )
    tail = 10.0 ** np.arange(3.0, 301.0, 33.0)
    below = low + 1.0 / tail[:1] if np.isfinite(low) else -tail
    above = high - 1.0 / tail[:1] if np.isfinite(high) else tail
    z = values(maps, "apply", [*below[::-1], *above])
    assert np.isfinite(z).all()
    assert (np.diff(z) >= 0.0).all()
    assert np.isfinite(values(maps, "invert", np.array([-1e6, 1e6]))).all()
    reached = values(maps, "invert", np.array([-12.0, 12.0]))
    assert_allclose(values(maps, "apply", reached), [-12.0, 12.0], rtol=1e-3)
    assert low < reached[0] < reached[1] < high


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", FEATURES)
def test_far_values(name, spec):
    maps = fitted(FEATURES[name], spec)
    far = 10.0 ** np.arange(2.0, 301.0)
    x = np.concatenate([-far[::-1], far])
    z = values(maps, "apply", x)
    assert np.isfinite(z).all()
    assert (np.diff(z) >= 0.0).all()
    for method in ("log_jacobian", "slopes", "log_slope_gradient"):
        assert np.isfinite(values(maps, method, x)).all()


def test_far_values_of_float32():
    maps = fitted(FEATURES["float32"], "gaussianize")
    most = np.finfo(np.float32).max
    x = np.array([[-most], [0.0], [most]], dtype=np.float32) / np.float32(2.0)
    z = maps.apply(x)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()
    assert np.isfinite(maps.log_jacobian(x)).all()


def test_float32_is_computed_in_float64():
    x = FEATURES["float32"][:, None]
    maps = fit_maps(x, None, "yeo-johnson", 0)
    z = maps.apply(x)
    assert z.dtype == np.float32
    assert_array_equal(z, maps.apply(x.astype(float)).astype(np.float32))
    for method in ("log_jacobian", "slopes", "log_slope_gradient"):
        result = getattr(maps, method)(x)
        assert result.dtype == np.float64
        assert_array_equal(result, getattr(maps, method)(x.astype(float)))
    assert maps.invert(z).dtype == np.float32
    assert_allclose(maps.invert(z), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["little skewed", "bimodal", "ties", "normal"])
def test_yeo_johnson_is_that_of_scikit_learn(name):
    x = FEATURES[name]
    z = (x - x.mean()) / x.std()
    theirs = PowerTransformer().fit(z[:, None])
    assert 0.0 <= theirs.lambdas_[0] <= 2.0  # else it is not of those that are onto
    assert_allclose(
        values(fitted(x, "yeo-johnson"), "apply", x),
        theirs.transform(z[:, None])[:, 0],
        atol=2e-3,
    )


def test_yeo_johnson_stays_onto():
    """Where the most likely parameter is negative, 0 is taken."""
    x = FEATURES["very skewed"]
    z = (x - x.mean()) / x.std()
    assert PowerTransformer().fit(z[:, None]).lambdas_[0] < -1.0
    far = x.mean() + x.std() * np.array([1e3, 1e6, 1e9])
    mapped = values(fitted(x, "yeo-johnson"), "apply", far)
    assert_allclose(np.diff(mapped, 2), 0.0, atol=0.01)  # as the log does
    assert (np.diff(mapped) > 1.0).all()


def test_gaussianized_normal_data():
    rng = np.random.default_rng(0)
    x, fresh = rng.normal(5.0, 2.0, size=(2, 4000))
    maps = fitted(x, "gaussianize")
    z = values(maps, "apply", fresh)
    body = np.abs(fresh - 5.0) < 4.0
    assert_allclose(z[body], (fresh[body] - 5.0) / 2.0, atol=0.15)
    found = norm.logpdf(z) + values(maps, "log_jacobian", fresh)
    assert norm(5.0, 2.0).logpdf(fresh).mean() - found.mean() < 0.01


@pytest.mark.parametrize("name, gain", [("skewed", 0.5), ("bimodal", 1.0)])
def test_gaussianized_fits_better_than_a_normal_law(name, gain):
    """In nats, on other points of the same law."""
    x, fresh = (features(seed=seed)[name] for seed in (0, 1))
    maps = fitted(x, "gaussianize")
    found = norm.logpdf(values(maps, "apply", fresh))
    found += values(maps, "log_jacobian", fresh)
    assert found.mean() > norm(x.mean(), x.std()).logpdf(fresh).mean() + gain


def test_heights_at_knots_are_right_far_out():
    column = Column(np.array([-1.0, 0.3, 0.5, 9.0]), np.array([0.4, 0.2, 0.399, 1e-3]))
    knots = np.array([-8.0, -1.0, 0.2, 0.31, 4.0, 8.8, 16.0])
    with mpmath.workdps(40):
        for knot, found in zip(
            knots, heights_at(knots, column, 0.1) - 1e-3 * knots, strict=True
        ):
            share, value = (
                [mpmath.mpf(float(v)) for v in of_all]
                for of_all in (column.shares, column.values)
            )
            above = sum(
                s
                * (
                    0.97 * mpmath.ncdf((v - knot) / 0.1)
                    + 0.03 * mpmath.ncdf((v - knot) / 1.5)
                )
                for s, v in zip(share, value, strict=True)
            )
            # its upper tail at what was found is that of the estimate
            assert mpmath.ncdf(-found) == pytest.approx(above, rel=1e-8, abs=0.0)


@pytest.mark.parametrize("name", ["normal", "skewed", "bimodal", "heavy tails"])
def test_bandwidth_is_the_best(name):
    """By a direct search for the largest leave-one-out log density of the mixture."""
    x = np.sort(FEATURES[name])[::3]
    x = (x - x.mean()) / x.std()
    column = Column.of(x)
    y, share = column.values.astype(np.longdouble), column.shares
    wide = np.exp(-0.5 * ((y[:, None] - y) / 1.5) ** 2) / 1.5
    wide = (wide - np.eye(len(y)) / 1.5) @ share
    widths = np.geomspace(0.02, 2.0, 80)
    scores = []
    for width in widths:
        kernel = np.exp(-0.5 * ((y[:, None] - y) / width) ** 2) / width
        np.fill_diagonal(kernel, 0.0)
        scores.append(float(share @ np.log(0.97 * kernel @ share + 0.03 * wide)))
    assert best_width(column) == pytest.approx(widths[np.argmax(scores)], rel=0.08)


def test_bandwidth_for_many_values():
    """It is found from few, and in the mean near what it is from all."""
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        column = Column.of(rng.normal(size=1500))
        found.append((width_from_few(column, rng.random(150)), best_width(column)))
    of_few, of_all = np.mean(found, axis=0)
    assert of_few == pytest.approx(of_all, rel=0.15)


@pytest.mark.parametrize("spec", [None, *SPECS, (LOG,)])
@pytest.mark.parametrize("n", [40, 700])
def test_weights_are_repetition(spec, n):
    rng = np.random.default_rng(3)
    x, counts = rng.gamma(1.0, 2.0, size=n), rng.integers(0, 4, size=n)
    weighted, repeated = fitted(x, spec, counts / 7.0), fitted(np.repeat(x, counts), spec)
    for method in ("apply", "log_jacobian"):
        assert_allclose(
            values(weighted, method, x), values(repeated, method, x), rtol=1e-6, atol=1e-6
        )
    unweighted = values(fitted(x, spec), "apply", x)
    assert np.abs(values(weighted, "apply", x) - unweighted).max() > 0.01


@pytest.mark.parametrize("spec", SPECS)
def test_many_rows_are_summed_up(spec):
    """Rows so many that not all are looked at have the map of their quantiles."""
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, size=40_000)
    few, many = fitted(x[:10_000], spec), fitted(x, spec)
    at = np.quantile(x, np.linspace(0.001, 0.999, 99))
    assert_allclose(values(few, "apply", at), values(many, "apply", at), atol=0.1)
    weighted = fitted(x, spec, rng.uniform(0.5, 1.5, size=len(x)))
    assert_allclose(values(weighted, "apply", at), values(many, "apply", at), atol=0.1)


@pytest.mark.parametrize("power", [-600, -400, -3, 400, 600])
@pytest.mark.parametrize("spec", [None, *SPECS, ("log",)])
@pytest.mark.parametrize("name", ["skewed", "ties", "very skewed"])
def test_units(name, spec, power):
    x = FEATURES[name] + 2.0**-20
    maps, scaled = fitted(x, spec), fitted(np.ldexp(x, power), spec)
    query = np.append(x, 3.0 * x.max())
    for method, change in [("apply", 0.0), ("log_jacobian", -power * np.log(2.0))]:
        assert_allclose(
            values(scaled, method, np.ldexp(query, power)),
            values(maps, method, query) + change,
            rtol=1e-12,
            atol=1e-10,
        )


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["skewed", "ties", "bimodal"])
def test_shifts_and_order_of_rows(name, spec):
    x = np.rint(FEATURES[name] * 2.0**20) / 2.0**20
    maps = fitted(x, spec)
    for other in (fitted(x + 1024.0, spec), fitted(x[::-1] + 1024.0, spec)):
        for method in ("apply", "log_jacobian"):
            assert_allclose(
                values(other, method, x + 1024.0), values(maps, method, x), atol=1e-6
            )


@pytest.mark.parametrize("spec", SPECS)
def test_a_map_knows_of_its_feature_only(spec):
    X = np.column_stack([FEATURES[name] for name in ("skewed", "ties", "bimodal")])
    maps = fit_maps(X, None, spec, 0)
    alone = [fitted(X[:, k], spec) for k in range(3)]
    for method in ("apply", "slopes", "log_slope_gradient", "invert"):
        found = [values(alone[k], method, X[:20, k]) for k in range(3)]
        assert_array_equal(getattr(maps, method)(X[:20]), np.column_stack(found))
    logs = [values(alone[k], "log_jacobian", X[:, k]) for k in range(3)]
    assert_allclose(maps.log_jacobian(X), np.sum(logs, axis=0), rtol=1e-12)


def test_same_seed_same_maps():
    x = features(n=2000)["normal"]  # more than are drawn
    one, same, other = (fitted(x, "gaussianize", seed=seed) for seed in (1, 1, 2))
    assert_array_equal(values(one, "apply", x), values(same, "apply", x))
    assert np.abs(values(one, "apply", x) - values(other, "apply", x)).max() > 0.0
    assert_allclose(values(one, "apply", x), values(other, "apply", x), atol=0.2)


@pytest.mark.parametrize("spec", [None, *SPECS, ("log", -10.0), ("logit", -10.0, 20.0)])
def test_a_constant_feature_has_the_scale_of_others(spec):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4)) * [1.0, 4.0, 100.0, 0.0] + [0.0, 0.0, 0.0, 3.0]
    maps = fit_maps(X, None, (None, None, None, spec), 0)
    assert_allclose(maps.apply(X)[:, 3], 0.0, atol=1e-12)
    assert_allclose(maps.slopes(X)[:, 3], 1.0 / X[:, 1].std(), rtol=1e-12)
    alone = fit_maps(X[:, 3:], None, (spec,), 0)
    assert_allclose(alone.slopes(X[:, 3:]), 1.0, rtol=1e-12)
    assert_allclose(alone.invert(alone.apply(X[:, 3:] + 1.0)), 4.0)


def test_constant_but_for_a_row_without_weight():
    x, weights = np.ones(20), np.ones(20)
    x[3] = 9.0
    for weights[3] in (0.0, 1e-30):
        assert_array_equal(values(fitted(x, "gaussianize", weights), "slopes", x), 1.0)


def test_nearly_all_rows_have_one_value():
    """None of the others is among the values that are drawn for the bandwidth."""
    x = np.zeros(60_000)
    x[:400] = np.random.default_rng(0).gamma(2.0, size=400)
    rare = np.where(x > 0.0, 1e-4, 1.0)
    for weights in (None, rare):
        maps = fitted(x, "gaussianize", weights)
        z = values(maps, "apply", np.linspace(-1.0, 9.0, 101))
        assert (np.diff(z) > 0.0).all()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("exponents", [(-300.0, 0.0), (0.0, 300.0)])
def test_weights_of_all_sizes(spec, exponents):
    x = FEATURES["skewed"]
    maps = fitted(x, spec, np.logspace(*exponents, len(x)))
    assert np.isfinite(values(maps, "apply", x)).all()
    assert np.isfinite(values(maps, "log_jacobian", x)).all()


@pytest.mark.parametrize("spec, low, high", [(LOG, -0.5, np.inf), (LOGIT, -0.25, 1.5)])
def test_queries_outside_limits(spec, low, high):
    maps = fitted(FEATURES["bounded"], (spec,))
    x = [-1e300, -1.0, low, *([high, 2.0, 1e300] if high < np.inf else [])]
    assert_array_equal(values(maps, "log_jacobian", x), -np.inf)
    assert_array_equal(values(maps, "slopes", x), 0.0)
    assert np.isfinite(values(maps, "apply", x)).all()
    assert np.isnan(values(maps, "log_slope_gradient", x)).all()
    least = np.nextafter(low, np.inf)
    assert np.isfinite(values(maps, "log_jacobian", [least])).all()
    # also what is farther than numbers tell apart from a limit comes back inside
    back = values(maps, "invert", [-1e6, 1e6])
    assert low < back[0] < back[1] < high


@pytest.mark.parametrize(
    "spec, x, parts",
    [
        ("log", [1.0, 0.0, 2.0, -3.0], ["'log'", "2 of 4 rows", "the first 0.0"]),
        (("log", 1.5), [1.0, 2.0], ["('log', 1.5)", "1 of 2 rows", "the first 1.0"]),
        ("logit", [0.5, 7.0], ["1 of 2 rows", "the first 7.0", "('logit', low, high)"]),
        (("logit", 0.0, 7.0), [0.5, 7.0], ["below 7", "the first 7.0", "'gaussianize'"]),
    ],
)
def test_training_values_outside_limits(spec, x, parts):
    X = np.column_stack([np.arange(len(x)), x]).astype(float)
    with pytest.raises(ValueError) as caught:
        check_limits(X, (None, spec))
    for part in ["feature_maps", "feature 1,", *parts]:
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"for feature 'b', .* all values by"):
        check_limits(X, (None, spec), ["a", "b"], spread=True)
    check_limits(X, (None, "gaussianize"))


def test_resolved_maps():
    assert resolve_maps(None, 3) == [None]
    assert resolve_maps("yeo-johnson", 3) == ["yeo-johnson"]
    assert resolve_maps("gaussianize", 3) == ["gaussianize"]
    assert resolve_maps("auto", 3) == [None, "yeo-johnson", "gaussianize"]
    assert resolve_maps({}, 3) == [None]
    assert resolve_maps({1: None}, 3) == [None]
    assert resolve_maps({1: "log", -1: ["logit", 0, 2]}, 3) == [
        (None, "log", ("logit", 0.0, 2.0))
    ]
    names = np.array(["a", "b", "c"], dtype=object)
    assert resolve_maps({"c": ("log", 2), np.int64(0): "gaussianize"}, 3, names) == [
        ("gaussianize", None, ("log", 2.0))
    ]


@pytest.mark.parametrize(
    "asked, error, parts",
    [
        ("box-cox", ValueError, ["'box-cox'", "'auto'", "'gaussianize'"]),
        ("log", ValueError, ["'log'", "a dict"]),
        (3, TypeError, ["3", "'yeo-johnson'"]),
        (["log"], TypeError, ["['log']", "a dict"]),
        ({3: "log"}, ValueError, ["index 3", "0 to 2"]),
        ({-4: "log"}, ValueError, ["index -4", "0 to 2"]),
        ({True: "log"}, TypeError, ["True", "indices or names"]),
        ({1.0: "log"}, TypeError, ["1.0", "indices or names"]),
        ({"x": "log"}, ValueError, ["'x'", "'a', 'b', 'c'"]),
        ({"b": "log", 1: "logit"}, ValueError, ["'b'", "1", "one feature"]),
        ({1: "auto"}, ValueError, ["[1]", "'auto'", "('log', low)"]),
        ({1: 5}, TypeError, ["[1]", "got 5"]),
        ({1: ("yeo-johnson", 1)}, ValueError, ["[1]", "('yeo-johnson', 1)"]),
        ({1: ()}, ValueError, ["[1]", "()"]),
        ({1: ("log",)}, ValueError, ["[1]", "('log',)"]),
        ({1: ("logit", 1)}, ValueError, ["('logit', low, high)", "('logit', 1)"]),
        ({1: ("log", np.nan)}, ValueError, ["nan", "finite"]),
        ({1: ("log", "0")}, ValueError, ["'0'", "finite"]),
        ({"a": ("logit", 2, 1)}, ValueError, ["['a']", "low must be less"]),
    ],
)
def test_what_is_no_map(asked, error, parts):
    with pytest.raises(error) as caught:
        resolve_maps(asked, 3, ["a", "b", "c"])
    for part in ["feature_maps", *parts]:
        assert part in str(caught.value)


def test_names_where_there_are_none():
    with pytest.raises(ValueError, match=r"feature_maps has 'a', but .* have no names"):
        resolve_maps({"a": "log"}, 3)


def test_maps_are_shown_and_pickled():
    X = np.column_stack([FEATURES["skewed"]] * 8)
    maps = fit_maps(X, None, (None, "log", "gaussianize", *[None] * 5), 0)
    assert repr(maps) == (
        "FeatureMaps(0: linear, 1: log, 2: gaussianized, 3: linear, 4: linear, "
        "5: linear, and 2 more)"
    )
    assert "0: yeo-johnson 0." in repr(fit_maps(X, None, "yeo-johnson", 0))
    again = pickle.loads(pickle.dumps(maps))
    assert_array_equal(again.apply(X), maps.apply(X))


@examples(30)
@given(
    x=st.lists(
        st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float), min_size=2, max_size=30
    ),
    spec=st.sampled_from(SPECS),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_values(x, spec, dtype):
    x = np.array(x, dtype)
    maps = fit_maps(x[:, None], None, spec, 0)
    at = np.unique(
        np.linspace(*(x.astype(float) @ [[1.5, -0.5], [-0.5, 1.5]]), 200)
        if len(x) == 2
        else np.append(x, np.linspace(x.min(), x.max(), 200))
    )
    at = at[np.append(True, np.diff(at) > 1e-9 * np.ptp(x))]
    z = values(maps, "apply", at)
    assert np.isfinite(z).all()
    assert (np.diff(z) > 0.0).all()
    assert_allclose(values(maps, "invert", z), at, rtol=1e-9, atol=1e-9 * np.ptp(x))
    log_slope = values(maps, "log_jacobian", at)
    assert np.isfinite(log_slope).all()
    # between two values the slope is somewhere that of the line through them
    assert (np.abs(z[-1] - z[0]) <= np.exp(log_slope.max()) * np.ptp(at) * 3.0).all()
