"""Densities of mapped features, and mixtures of them: what a stack is made of.

What maps do by themselves is in ``test_feature_maps.py``. Oracles are numerical
derivatives of maps, direct sums over mapped points, integrals, and optimisers of scipy.
"""

import functools
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate
from scipy.special import logsumexp
from simulations import elongated, spread
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from structured_oracle import make_oracle

from skhdkde import HighDimKernelDensity
from skhdkde._density import Choice, Member, MixedDensity, Structure
from skhdkde._diagnosis import Diagnosing
from skhdkde._kernels import KERNELS
from skhdkde._maps import fit_maps
from skhdkde._pairwise import ComputeOptions

OPTIONS = ComputeOptions(n_jobs=1)
SLOW = pytest.mark.slow
STACK = {"covariance_type": "stack", "random_state": 0}
LIMITS = {0: ("log", -4.0), 1: ("logit", -8.0, 12.0)}
# By name, for data of at least two features.
MAPS = {
    "yeo-johnson": "yeo-johnson",
    "gaussianize": "gaussianize",
    "dict": LIMITS,
    "parts": {1: "gaussianize"},
}
TYPES = ["spherical", "diag", "full", "local", "neighborhood"]


def curved(n, d, seed):
    """Points along a parabola, and skewed features; inside of ``LIMITS``."""
    rng = np.random.default_rng(seed)
    along = rng.uniform(-2.0, 2.0, n)
    X = 0.3 * rng.standard_normal((n, d))
    X[:, 0] += along
    X[:, 1:2] += along[:, None] ** 2
    X[:, 2:3] = np.exp(X[:, 2:3] * 3.0)
    return X


def make(**parameters):
    return HighDimKernelDensity(**{"random_state": 0, **parameters})


@functools.cache
def fitted(kind, n=150, d=2):
    """Return a fit of many tests, which leave it as it is."""
    maps = {"stack": None, "stack, maps": "auto", "stack, limits": LIMITS, "auto": "auto"}
    covariance_type = "stack" if "stack" in kind else "spherical"
    kde = make(feature_maps=maps[kind], covariance_type=covariance_type)
    return kde.fit(curved(n, d, 1))


KINDS = ["stack", "stack, maps", "stack, limits", "auto"]


# Densities.


class Coordinates:
    """Coordinates on all numbers for features with limits or without, for integrals."""

    def __init__(self, maps, d):
        self.maps = [maps.get(k) if isinstance(maps, dict) else None for k in range(d)]

    def data(self, U):
        """Return points and logs of the Jacobian of data by coordinates."""
        X, log_det = np.empty_like(U), np.zeros(len(U))
        for k, (of_one, u) in enumerate(zip(self.maps, U.T, strict=True)):
            if of_one is not None and of_one[0] == "log":
                X[:, k], slope = of_one[1] + np.exp(u), np.exp(u)
            elif of_one is not None and of_one[0] == "logit":
                low, high = of_one[1:]
                part = 1.0 / (1.0 + np.exp(-u))
                X[:, k] = low + (high - low) * part
                slope = (high - low) * part * (1.0 - part)
            else:
                X[:, k], slope = np.sinh(u), np.cosh(u)
            log_det += np.log(slope)
        return X, log_det

    def of(self, X):
        """Return coordinates of points."""
        U = np.empty_like(X)
        for k, (of_one, x) in enumerate(zip(self.maps, X.T, strict=True)):
            if of_one is not None and of_one[0] == "log":
                U[:, k] = np.log(x - of_one[1])
            elif of_one is not None and of_one[0] == "logit":
                low, high = of_one[1:]
                U[:, k] = np.log((x - low) / (high - x))
            else:
                U[:, k] = np.arcsinh(x)
        return U


def integral_on_grid(kde, maps, d, n_grid):
    """Return the integral of a density, in coordinates, by Simpson's rule."""
    coordinates = Coordinates(maps if maps != {1: "gaussianize"} else None, d)
    drawn = coordinates.of(kde.sample(4000, random_state=0))
    wide = 0.5 * np.ptp(drawn, axis=0)
    low, high = drawn.min(axis=0) - wide, drawn.max(axis=0) + wide
    axes = [np.linspace(*ends, n_grid) for ends in zip(low, high, strict=True)]
    U = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    X, log_det = coordinates.data(U)
    values = np.exp(kde.score_samples(X) + log_det).reshape([n_grid] * d)
    for axis in reversed(axes):
        values = integrate.simpson(values, x=axis, axis=-1)
    return float(values)


def integral_by_bridge(kde, maps, d, n=3000):
    """Return the integral of a density, and its standard error.

    With ``g`` a mixture fitted to draws, ``E_g[f / (f + g)] / E_f[g / (f + g)]`` is the
    integral of ``f`` if its draws are right (Meng and Wong, 1996).
    """
    coordinates = Coordinates(maps if maps != {1: "gaussianize"} else None, d)
    drawn = coordinates.of(kde.sample(3 * n, random_state=0))
    other = GaussianMixture(5, random_state=0, reg_covar=1e-3).fit(drawn[n:])
    shares = []
    for U, sign in ((other.sample(n)[0], 1.0), (drawn[:n], -1.0)):
        X, log_det = coordinates.data(U)
        ratio = kde.score_samples(X) + log_det - other.score_samples(U)
        shares.append(1.0 / (1.0 + np.exp(-sign * ratio)))
    means = [share.mean() for share in shares]
    errors = [s.std() / m / np.sqrt(n) for s, m in zip(shares, means, strict=True)]
    return means[0] / means[1], means[0] / means[1] * np.hypot(*errors)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("name", MAPS)
def test_integral_is_one(name, covariance_type):
    maps = MAPS[name]
    kde = make(bandwidth=0.5, feature_maps=maps, covariance_type=covariance_type)
    kde.fit(curved(60, 2, 1))
    assert integral_on_grid(kde, maps, 2, 161) == pytest.approx(1.0, abs=3e-4)


@pytest.mark.parametrize("kernel", ["student", "exponential", "epanechnikov"])
def test_integral_of_other_kernels_is_one(kernel):
    kde = make(bandwidth=0.7, feature_maps=LIMITS, kernel=kernel, degrees_of_freedom=9.0)
    kde.fit(curved(60, 2, 1))
    assert integral_on_grid(kde, LIMITS, 2, 301) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(
    "kind", [pytest.param("stack", marks=SLOW), "stack, maps", "stack, limits"]
)
def test_integral_of_a_stack_is_one(kind):
    maps = LIMITS if "limits" in kind else None
    assert integral_on_grid(fitted(kind), maps, 2, 91) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("maps", ["yeo-johnson", "gaussianize", {0: ("log", -4.0)}])
@pytest.mark.parametrize("covariance_type", ["spherical", "stack"])
def test_integral_in_one_dimension_is_one(maps, covariance_type):
    kde = make(feature_maps=maps, covariance_type=covariance_type)
    kde.fit(curved(40, 1, 1))
    assert integral_on_grid(kde, maps, 1, 4001) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_integral_in_three_dimensions_is_one(name):
    kde = make(bandwidth=0.6, feature_maps=MAPS[name], covariance_type="full")
    kde.fit(curved(100, 3, 1))
    found, error = integral_by_bridge(kde, MAPS[name], 3)
    assert error < 0.04
    assert found == pytest.approx(1.0, abs=4.0 * error)


TWENTY = {
    "spherical": {"bandwidth": 0.8, "feature_maps": "yeo-johnson"},
    "diag": {"bandwidth": 0.8, "feature_maps": "gaussianize", "covariance_type": "diag"},
    "full": {"bandwidth": 0.9, "feature_maps": LIMITS, "covariance_type": "full"},
    "stack": {"covariance_type": "stack"},
    "stack, limits": {"covariance_type": "stack", "feature_maps": LIMITS},
    "stack, maps": {"covariance_type": "stack", "feature_maps": "auto"},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(k, marks=[SLOW] * ("stack" in k)) for k in TWENTY],
)
def test_integral_in_twenty_dimensions_is_one(name):
    kde = make(**TWENTY[name]).fit(curved(300, 20, 1))
    found, error = integral_by_bridge(kde, kde.feature_maps or {}, 20)
    assert error < 0.06
    assert found == pytest.approx(1.0, abs=4.0 * error)


def numeric_log_jacobian(maps, X, step=1e-6):
    """Return the sum of logs of central differences of each map."""
    apart = step * X.std(axis=0)
    slopes = (maps.apply(X + apart) - maps.apply(X - apart)) / (2.0 * apart)
    return np.log(slopes).sum(axis=1)


ORACLES = [
    {"covariance_type": "spherical"},
    {"covariance_type": "diag", "kernel": "student", "degrees_of_freedom": 5.0},
    {"covariance_type": "full", "preserve_variance": True},
    {"covariance_type": "full", "adaptive": True},
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", ORACLES, ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_against_sums_over_mapped_points(name, options, weighted):
    X, Q = curved(40, 3, 0), curved(8, 3, 1)
    weights = np.random.default_rng(2).uniform(0.3, 1.0, 40) if weighted else None
    kde = make(bandwidth=0.4, feature_maps=MAPS[name], **options)
    kde.fit(X, sample_weight=weights)
    maps, rest = kde.feature_maps_, dict(options)
    kind, Y = rest.pop("covariance_type"), maps.apply(X)
    oracle = make_oracle(Y, kind, None, 0.4, rest, weights)
    expected = oracle.log_density(maps.apply(Q)) + numeric_log_jacobian(maps, Q)
    assert_allclose(kde.score_samples(Q), expected, atol=1e-6)


def test_mapped_features_are_standardised():
    for maps in MAPS.values():
        X = curved(80, 3, 0)
        Z = make(bandwidth=0.4, feature_maps=maps).fit(X).feature_maps_.apply(X)
        assert_allclose(Z.mean(axis=0), 0.0, atol=0.1)
        assert_allclose(Z.std(axis=0), 1.0, atol=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_is_the_mixture_of_its_members(kind):
    """A stack mixes densities of mapped points by the weights that the search shows."""
    kde, Q = fitted(kind), curved(50, 2, 2)
    shown = [c for c in kde.bandwidth_search_.candidates if c.weight > 0.0]
    assert sum(c.weight for c in shown) == pytest.approx(1.0, abs=1e-12)
    members = sorted(kde._density.members, key=lambda member: member.weight)
    shown.sort(key=lambda candidate: candidate.weight)
    logs = []
    for candidate, member in zip(shown, members, strict=True):
        assert (candidate.feature_maps is None) == (member.maps is None)
        assert candidate.kernel == member.density.kernel.name
        mapped, log_jacobian = Q, 0.0
        if member.maps is not None:
            mapped = member.maps.apply(Q)
            log_jacobian = numeric_log_jacobian(member.maps, Q)
        own = member.density.log_density(mapped, OPTIONS) + log_jacobian
        logs.append(np.log(candidate.weight) + own)
    assert_allclose(kde.score_samples(Q), logsumexp(logs, axis=0), atol=1e-6)


def test_attributes_are_those_of_the_heaviest():
    kde = fitted("stack, maps")
    heaviest = max(kde.bandwidth_search_.candidates, key=lambda c: c.weight)
    assert kde.covariance_type_ == "stack"
    assert 0.0 < heaviest.weight < 1.0  # there are others
    assert kde.bandwidth_ == pytest.approx(heaviest.bandwidth, rel=1e-9)
    assert kde.kernel_ == heaviest.kernel
    assert kde.degrees_of_freedom_ == heaviest.degrees_of_freedom
    assert kde.preserve_variance_
    assert (kde.feature_maps_ is None) == (heaviest.feature_maps is None)
    weights = kde.bandwidth_search_.to_frame()["weight"]
    assert weights.sum() == pytest.approx(1.0)


def central_differences(kde, X, step=1e-5):
    """Return the gradient of the log density by central differences."""
    columns = []
    for own in np.eye(X.shape[1]) * step:
        ends = kde.score_samples(X + own), kde.score_samples(X - own)
        columns.append((ends[0] - ends[1]) / (2.0 * step))
    return np.column_stack(columns)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_stacks(kind):
    kde, Q = fitted(kind), curved(40, 2, 2)
    expected = central_differences(kde, Q)
    scale = np.abs(expected).max()
    assert_allclose(kde.log_density_gradient(Q), expected, atol=1e-5 * scale)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("name", MAPS)
def test_gradients_under_maps(name, covariance_type):
    kde = make(bandwidth=0.5, feature_maps=MAPS[name], covariance_type=covariance_type)
    kde.fit(curved(60, 3, 0))
    Q = curved(30, 3, 1)
    expected = central_differences(kde, Q)
    scale = np.abs(expected).max()
    assert_allclose(kde.log_density_gradient(Q), expected, atol=1e-5 * scale)


@pytest.mark.parametrize(
    "covariance_type, algorithm",
    [("full", "exact"), ("full", "sampling"), ("stack", "exact")],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_outside_limits_the_density_is_zero(covariance_type, dtype, algorithm):
    X = curved(80, 2, 0).astype(dtype)
    kde = make(feature_maps=LIMITS, covariance_type=covariance_type, algorithm=algorithm)
    kde.fit(X)
    outside = np.array(
        [[-4.0, 0.0], [-5.0, 0.0], [1.0, -8.0], [1.0, 12.0], [1e30, 13.0]], dtype=dtype
    )
    Q = np.vstack([outside, X[:3]])
    none, some = slice(0, 5), slice(5, None)
    log_density = kde.score_samples(Q)
    assert log_density.dtype == dtype
    assert (log_density[none] == -np.inf).all()
    assert_allclose(log_density[some], kde.score_samples(X[:3]), rtol=1e-6)
    gradient = kde.log_density_gradient(Q)
    assert np.isnan(gradient[none]).all()
    assert np.isfinite(gradient[some]).all()
    diagnosis = kde.diagnose(Q)
    assert_allclose(diagnosis.log_density, log_density, rtol=1e-6)
    assert (diagnosis.standard_error[none] == np.inf).all()
    assert (diagnosis.effective_sample_size[none] == 0.0).all()
    assert np.isnan(diagnosis.max_weight[none]).all()
    assert (diagnosis.regime[none] == "extreme").all()
    assert np.isfinite(diagnosis.standard_error[some]).all()
    if algorithm != "exact":
        assert (diagnosis.approximation_error[none] == 0.0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [1e3, 1e100, 1e300])
def test_far_queries(kind, far):
    """They are unlikely, with gradients towards the data, and there is no warning."""
    kde = fitted(kind)
    Q = np.array([[far, 1.0], [far, 1.0]])
    near, found = kde.score_samples([[far / 10.0, 1.0]]), kde.score_samples(Q)
    assert found[0] <= near[0] or far == 1e300  # where powers of it leave the range
    assert not np.isnan(found).any()
    gradient = kde.log_density_gradient(Q)
    assert not (gradient[np.isfinite(found), 0] > 0.0).any()
    assert (kde.diagnose(Q).standard_error >= 0.0).all()


# What is left out, held out, drawn and diagnosed.


@pytest.mark.parametrize("kind", KINDS)
def test_log_densities_of_a_diagnosis(kind):
    kde, Q = fitted(kind), curved(40, 2, 2)
    for queries in (Q, None):
        found = kde.diagnose(queries)
        assert_allclose(found.log_density, kde.score_samples(queries), atol=1e-9)
        assert (found.effective_sample_size >= 1.0 - 1e-9).all()
        assert (found.effective_sample_size <= 150.0 + 1e-9).all()
        assert (found.max_weight <= 1.0).all()
        assert (found.standard_error >= 0.0).all()
        assert (found.h_g <= found.h_clt).all()


@pytest.mark.parametrize("name", MAPS)
def test_training_points_are_left_out_of_sums(name):
    X = curved(30, 2, 0)
    kde = make(bandwidth=0.5, feature_maps=MAPS[name]).fit(X)
    maps, found = kde.feature_maps_, kde.score_samples(None)
    Y, jacobian = maps.apply(X), numeric_log_jacobian(maps, X)
    for i in (0, 7, 29):
        oracle = make_oracle(np.delete(Y, i, axis=0), "spherical", None, 0.5, {})
        expected = oracle.log_density(Y[i : i + 1])[0] + jacobian[i]
        assert found[i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["stack", "stack, maps"])
def test_training_points_are_left_out_of_each_member(kind):
    kde = fitted(kind)
    logs = [
        np.log(m.weight)
        + m.density.log_density(None, OPTIONS)
        + (0.0 if m.maps is None else numeric_log_jacobian(m.maps, curved(150, 2, 1)))
        for m in kde._density.members
    ]
    assert_allclose(kde.score_samples(None), logsumexp(logs, axis=0), atol=1e-6)


@pytest.mark.parametrize("covariance_type", ["spherical", "full"])
@pytest.mark.parametrize("name", MAPS)
def test_held_out_points_are_scored_by_fits_to_the_others(name, covariance_type):
    """With so few points each is a fold."""
    X = curved(14, 2, 0)
    parameters = {"feature_maps": MAPS[name], "covariance_type": covariance_type}
    kde = make(bandwidth=0.5, **parameters).fit(X)
    for i in range(0, 14, 4):
        others = make(bandwidth=0.5, **parameters).fit(np.delete(X, i, axis=0))
        expected = others.score_samples(X[i : i + 1])[0]
        assert kde.held_out_log_density_[i] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    "kind", ["stack", "auto", *(pytest.param(k, marks=SLOW) for k in KINDS[1:3])]
)
def test_fresh_points_are_as_likely_as_held_out_ones(kind):
    kde = fitted(kind)
    held_out, fresh = kde.held_out_log_density_, kde.score_samples(curved(1000, 2, 9))
    error = np.hypot(held_out.std() / np.sqrt(150), fresh.std() / np.sqrt(1000))
    assert abs(held_out.mean() - fresh.mean()) < 3.0 * error
    if kind == "stack":  # where points that are left out of sums only are too likely
        assert kde.score_samples(None).mean() > held_out.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_samples(kind):
    kde = fitted(kind)
    drawn = kde.sample(20_000, random_state=3)
    assert_array_equal(drawn, kde.sample(20_000, random_state=3))
    assert (drawn[:5] != kde.sample(5, random_state=4)).any()
    assert kde.sample(1).shape == (1, 2)
    assert np.isfinite(kde.score_samples(drawn)).all()
    middle, expected = shares_of_quarters(kde, LIMITS if "limits" in kind else None)
    above = drawn > middle
    found = [np.mean((above == [a, b]).all(axis=1)) for a in (0, 1) for b in (0, 1)]
    assert_allclose(found, expected, atol=0.015)


def shares_of_quarters(kde, maps):
    """Return a point, and the probabilities of the quarters about it, by a grid."""
    coordinates = Coordinates(maps, 2)
    drawn = coordinates.of(kde.sample(4000, random_state=0))
    axes = []
    for u in drawn.T:
        step = 1.4 * np.ptp(u) / 80.0  # the point is between those of the grid
        axes.append(np.median(u) + step * (np.arange(-80, 80) + 0.5))
    U = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    X, log_det = coordinates.data(U)
    mass = np.exp(kde.score_samples(X) + log_det)
    middle = np.median(drawn, axis=0)
    quarters = [
        mass[((middle < U) == [a, b]).all(axis=1)].sum() for a in (0, 1) for b in (0, 1)
    ]
    return coordinates.data(middle[None])[0][0], np.array(quarters) / mass.sum()


@pytest.mark.parametrize("kernel", ["gaussian", "student"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_are_inside_limits(dtype, kernel):
    """Also where most points are so near to a limit that rounding leads to it."""
    rng = np.random.default_rng(0)
    X = rng.beta(0.3, 0.2, size=(300, 2))
    X = np.clip(X, 1e-7, 1.0 - 1e-7).astype(dtype)
    maps = {0: "logit", 1: ("logit", -3.0, 1.0)}
    kde = make(bandwidth=0.5, feature_maps=maps, kernel=kernel, degrees_of_freedom=3.0)
    drawn = kde.fit(X).sample(20_000, random_state=0)
    assert drawn.dtype == dtype
    assert (drawn > [0.0, -3.0]).all()
    assert (drawn < 1.0).all()
    assert np.isfinite(kde.score_samples(drawn)).all()


def test_samples_of_float32_are_finite():
    """Where the kernel has values for which there is no such number."""
    rng = np.random.default_rng(0)
    X = np.exp(25.0 * rng.standard_normal((50, 1))).clip(1e-30, 1e38).astype(np.float32)
    X = np.unique(X)[:, None]
    kde = make(bandwidth=0.5, feature_maps={0: "log"}, kernel="student")
    drawn = kde.set_params(degrees_of_freedom=3.0).fit(X).sample(20_000, random_state=0)
    assert drawn.dtype == np.float32
    assert np.isfinite(drawn).all()
    assert (drawn > 0.0).all()


# Error bars, with the structure fixed: maps, mixture and bandwidths.


def mixed_fit(X, maps, mixture, weights):
    """Return a mixture of densities whose structure is fixed; X are fresh points."""
    shapes = [
        {"covariance_type": "local", "mixture": mixture, "bandwidth": 0.6},
        {"bandwidth": 2.0},
        {"bandwidth": 0.5, "kernel": "student", "degrees_of_freedom": 5.0},
    ]
    members = []
    for weight, shape, own in zip(weights, shapes, (None, None, maps), strict=True):
        mapped = X if own is None else own.apply(X)
        members.append(Member(weight, own, make(**shape).fit(mapped)._density))
    choice = Choice(None, Structure(), KERNELS["gaussian"], 1.0)
    return MixedDensity(members, [choice] * 3, X)


@pytest.mark.parametrize(
    "weights", [(0.5, 0.3, 0.2), (0.02, 0.18, 0.8), (0.1, 0.9, 1e-9)], ids=str
)
def test_error_bars_of_mixtures(weights):
    """Against the spread over fresh data sets."""
    d, n, n_sets, rng = 8, 400, 40, np.random.default_rng(1)
    many = elongated(5000, d, np.random.default_rng(9))
    mixture = FrozenEstimator(GaussianMixture(3, random_state=0).fit(many))
    maps, Q = fit_maps(many, None, "gaussianize", 0), elongated(40, d, rng)
    fits = [
        mixed_fit(elongated(n, d, rng), maps, mixture, weights) for _ in range(n_sets)
    ]
    found = [fit.diagnose(Q, OPTIONS) for fit in fits[:3]]
    truth = spread(np.array([fit.log_density(Q, OPTIONS) for fit in fits]))
    place = Diagnosing.COLUMNS.index("standard_error")
    ratios = np.array([columns[:, place] for _, columns in found]) / truth
    assert abs(np.log(np.median(ratios))) < np.log(1.35)


# Algorithms.


@pytest.mark.parametrize("algorithm", ["neighbors", "sampling", "auto"])
@pytest.mark.parametrize(
    "n, parameters",
    [
        (1500, {"feature_maps": "gaussianize", "covariance_type": "full"}),
        (1500, {"feature_maps": LIMITS}),
        pytest.param(600, {"covariance_type": "stack"}, marks=SLOW),
        pytest.param(1500, STACK | {"feature_maps": "auto"}, marks=SLOW),
    ],
    ids=str,
)
def test_stated_errors(n, parameters, algorithm):
    """They hold for most queries, against the same density summed over all points."""
    X, Q = curved(n, 3, 1), curved(200, 3, 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*stated error.*")
        kde = make(algorithm=algorithm, tol=0.05, **parameters).fit(X)
        found = kde.score_samples(Q)
        report, diagnosis = kde.approximation_, kde.diagnose(Q)
    error = np.abs(found - kde._density.log_density(Q, OPTIONS))
    assert np.mean(error <= report.error + 1e-9) >= 0.9
    assert np.median(error) < 0.05
    assert_allclose(diagnosis.log_density, found, atol=1e-9)
    assert_array_equal(diagnosis.approximation_error, report.error)
    assert set(np.unique(report.algorithm)) <= {"neighbors", "sampling", "exact"}
    assert (report.error[report.algorithm == "exact"] <= 1e-3).all()
    if parameters.get("covariance_type") == "stack":
        assert len(kde._density.members) > 1


def test_stack_by_an_algorithm_is_without_neighborhoods():
    kde = make(covariance_type="stack", algorithm="neighbors", tol=0.1)
    kde.fit(curved(150, 2, 0))
    types = {c.covariance_type for c in kde.bandwidth_search_.candidates}
    assert "neighborhood" not in types
    assert kde.n_neighbors_ > 0
    assert kde.neighbors_index_ == "exact"


@pytest.mark.parametrize("feature_maps", [None, pytest.param("auto", marks=SLOW)])
def test_stack_of_local_scales(feature_maps):
    X = curved(120, 2, 0)
    kde = make(covariance_type="stack", adaptive=True, feature_maps=feature_maps).fit(X)
    assert integral_on_grid(kde, None, 2, 111) == pytest.approx(1.0, abs=5e-3)
    assert np.isfinite(kde.held_out_log_density_).all()
