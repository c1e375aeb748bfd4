"""Theory of the regimes: against its tables, mpmath and simulation."""

import math

import mpmath
import numpy as np
import pytest
import simulations as sim
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive
from scipy.stats import vonmises_fisher

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import (
    expected_participation,
    extreme_spread,
    gaussian_thresholds,
    sphere_thresholds,
)

# alpha, h_G, h_CLT, h_KL, tail index at h_KL, KL/d at h_KL; equal eigenvalues
REFERENCE = [
    (0.01, 2.789148, 3.944451, 1.292773, 0.214833, 0.266790),
    (0.05, 1.733061, 2.450918, 1.145882, 0.437172, 0.186175),
    (0.10, 1.370785, 1.938582, 1.038572, 0.574031, 0.137847),
    (0.20, 1.045652, 1.478775, 0.891689, 0.727197, 0.085362),
    (0.50, 0.652145, 0.922273, 0.622436, 0.910963, 0.025886),
    (1.00, 0.372106, 0.526238, 0.369344, 0.985208, 0.003973),
    (2.00, 0.135368, 0.191440, 0.135346, 0.999676, 0.000082),
]
SPECTRA = {
    "equal": np.ones(5),
    "1/k": 1.0 / np.arange(1, 21),
    "wide": 10.0 ** -np.arange(0.0, 20.0, 2.0),
    "two": np.array([100.0] * 3 + [0.01] * 7),
}


@pytest.mark.parametrize("d", [1, 7])
@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"alpha={row[0]}")
def test_table(row, d):
    alpha, h_g, h_clt, h_kl, mu, kl = row
    theory = gaussian_thresholds(math.exp(alpha * d), np.ones(d))
    assert theory.alpha == pytest.approx(alpha, rel=1e-14)
    found = theory.h_g, theory.h_clt, theory.h_kl, theory.tail_index(theory.h_kl)
    np.testing.assert_allclose(found, (h_g, h_clt, h_kl, mu), rtol=1e-5)
    assert theory.kl_per_dimension(theory.h_kl) == pytest.approx(kl, abs=1e-6)
    assert theory.kl(theory.h_kl) == pytest.approx(
        d * theory.kl_per_dimension(theory.h_kl), rel=1e-14
    )


def test_spectrum():
    theory = gaussian_thresholds(20_000, 1.0 / np.arange(1, 101))
    assert theory.h_g == pytest.approx(0.28932, abs=5e-6)
    assert theory.h_kl == pytest.approx(0.18837, abs=5e-6)
    assert theory.kl_per_dimension(theory.h_kl) == pytest.approx(0.2484, abs=5e-5)


def energy_of_mp(alpha, c, shrinkage_sq):
    """``lam``, and the divergence as a function of h, from the log-Laplace transform.

    Everything follows from ``zeta(lam) = lim 1/d log E exp(-lam |x - a y|^2 / 2)``:
    its derivative is taken numerically.
    """

    def zeta(lam):
        terms = (
            mpmath.log1p(lam * shrinkage_sq * v) + lam * v / (1 + lam * shrinkage_sq * v)
            for v in c
        )
        return -mpmath.fsum(terms) / (2 * len(c))

    def level(log_lam):
        lam = mpmath.exp(log_lam)
        return lam * mpmath.diff(zeta, lam) - zeta(lam) - alpha

    low, high = mpmath.mpf(-5), mpmath.mpf(5)
    while level(low) > 0:
        low *= 2
    while level(high) < 0:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if level(middle) > 0 else (middle, high)
    lam = mpmath.exp(low)

    def kl(h):
        truth = -mpmath.fsum(mpmath.log(v) for v in c) / (2 * len(c)) - mpmath.mpf(1) / 2
        if 1 / h**2 <= lam:
            log_mean = zeta(1 / h**2)
        else:
            log_mean = -alpha + mpmath.diff(zeta, lam) / h**2
        return truth + mpmath.log(h) - log_mean

    return lam, kl


@pytest.mark.parametrize("preserve_variance", [False, True])
@pytest.mark.parametrize("alpha", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("name", SPECTRA)
def test_against_mpmath(name, alpha, preserve_variance):
    spectrum = SPECTRA[name]
    theory = gaussian_thresholds(
        2 ** int(alpha * len(spectrum) / math.log(2.0) + 1),
        spectrum,
        preserve_variance=preserve_variance,
    )
    top = min(theory.largest_bandwidth, 3.0 * theory.h_clt)
    with mpmath.workdps(30):
        c = [mpmath.mpf(float(v)) for v in spectrum]
        mean = mpmath.fsum(c) / len(c)
        for h in (0.3 * theory.h_g, 0.9 * theory.h_g, 0.5 * (theory.h_g + top)):
            shrinkage_sq = (
                1 - mpmath.mpf(h) ** 2 / mean if preserve_variance else mpmath.mpf(1)
            )
            lam, kl = energy_of_mp(mpmath.mpf(theory.alpha), c, shrinkage_sq)
            assert theory.tail_index(h) == pytest.approx(float(lam * h**2), rel=1e-9)
            expected = float(kl(mpmath.mpf(h)))
            assert theory.kl_per_dimension(h) == pytest.approx(
                expected, rel=1e-9, abs=1e-13
            )


@pytest.mark.parametrize("preserve_variance", [False, True])
@pytest.mark.parametrize("alpha", [1e-4, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("name", [*SPECTRA, "zeros", "tiny", "one"])
def test_consistent_from_small_to_large_alpha(name, alpha, preserve_variance):
    extra = {
        "zeros": np.array([2.0] + [0.0] * 9),
        "tiny": 1e-280 * np.arange(1.0, 4.0),
        "one": np.ones(1),
    }
    spectrum = extra[name] if name in extra else SPECTRA[name]
    log_n = alpha * len(spectrum)
    n = math.exp(log_n) if log_n < 600.0 else 2 ** int(log_n / math.log(2.0))
    with np.errstate(all="raise", under="ignore"):
        theory = gaussian_thresholds(n, spectrum, preserve_variance=preserve_variance)
        assert 0.0 < theory.h_kl <= theory.h_g < theory.h_clt < theory.largest_bandwidth
        mu = theory.tail_index([theory.h_g, theory.h_clt])
        np.testing.assert_allclose(mu, [1.0, 2.0], rtol=1e-9)
        above = min(1.01 * theory.h_kl, 0.5 * (theory.h_kl + theory.largest_bandwidth))
        around = theory.kl_per_dimension([0.98 * theory.h_kl, theory.h_kl, above])
        if name == "zeros":
            assert np.isposinf(around).all()
        else:
            assert np.isfinite(around).all()
            assert (around >= 0.0).all()
            assert (around[1] <= around[[0, 2]] + 1e-10 * (1 + around[1])).all()


def test_preserved_variance_of_equal_eigenvalues_in_closed_form():
    theory = gaussian_thresholds(1000, np.full(20, 4.0), preserve_variance=True)
    assert theory.h_g == pytest.approx(2.0 * 1000 ** (-1 / 20), rel=1e-12)
    assert theory.h_kl == theory.h_g
    assert theory.kl(0.5 * (theory.h_g + 2.0)) == pytest.approx(0.0, abs=1e-12)


def test_units_and_shapes():
    one = gaussian_thresholds(1000, SPECTRA["1/k"])
    other = gaussian_thresholds(1000, 9.0 * SPECTRA["1/k"])
    assert other.h_kl == pytest.approx(3.0 * one.h_kl, rel=1e-12)
    h = np.array([[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_allclose(other.kl(3.0 * h), one.kl(h), rtol=1e-10)
    assert isinstance(one.kl(0.1), float)
    assert isinstance(one.tail_index(0.1), float)
    assert one.tail_index(h).shape == (2, 2)
    at = [0.5 * one.h_g, 1.2 * one.h_g, 2.0 * one.h_g]
    assert [one.regime(h) for h in at] == ["extreme", "stable", "clt"]


@pytest.mark.parametrize(
    "args, error, match",
    [
        ((1, [1.0]), ValueError, "n_samples must be finite and > 1, got 1"),
        ((np.nan, [1.0]), ValueError, "n_samples"),
        ((np.inf, [1.0]), ValueError, "n_samples"),
        (("ten", [1.0]), TypeError, "n_samples must be a number, got 'ten'"),
        ((True, [1.0]), TypeError, "n_samples"),
        ((10, [1.0, -1.0]), ValueError, "covariance_eigenvalues must be finite, >= 0"),
        ((10, [0.0, 0.0]), ValueError, "covariance_eigenvalues .* not all zero"),
        ((10, [1.0, np.nan]), ValueError, "covariance_eigenvalues must be finite"),
        ((10, []), ValueError, "covariance_eigenvalues"),
        ((10, np.eye(3)), ValueError, r"covariance_eigenvalues must have shape"),
        ((10, 1.0), ValueError, "covariance_eigenvalues"),
    ],
)
def test_bad_input(args, error, match):
    with pytest.raises(error, match=match):
        gaussian_thresholds(*args)


@pytest.mark.parametrize("method", ["kl", "kl_per_dimension", "tail_index", "regime"])
@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.nan, 1.0])
def test_bad_bandwidth(method, bandwidth):
    theory = gaussian_thresholds(10, np.ones(3), preserve_variance=True)
    with pytest.raises(ValueError, match="bandwidth must be > 0 and < 1"):
        getattr(theory, method)(bandwidth)


def test_laws_of_the_extreme_regime():
    assert extreme_spread(1.0) == 0.0
    np.testing.assert_allclose(
        extreme_spread([0.16, 0.36]), [7.91267, 3.32377], atol=1e-5
    )
    assert np.isnan(extreme_spread([0.0, 1.5, -1.0])).all()
    np.testing.assert_array_equal(expected_participation([0.25, 1.0, 3.0]), [0.75, 0, 0])


def test_participation_against_simulation():
    """E[Y] = 1 - tail index, within what finite size leaves."""
    d, n, rng = 100, 2000, np.random.default_rng(0)
    theory = gaussian_thresholds(n, np.ones(d))
    h = 0.4 * theory.h_g
    kde = HighDimKernelDensity(bandwidth=h).fit(sim.white(n, d, rng))
    found = kde.diagnose(sim.white(1000, d, rng)).effective_sample_size
    expected = expected_participation(theory.tail_index(h))
    assert np.mean(1.0 / found) == pytest.approx(expected, abs=0.04)


def gaussian_sample(spectrum, n, rng):
    """Points, queries and the log density there."""
    points, queries = (
        np.sqrt(spectrum) * sim.white(m, len(spectrum), rng) for m in (n, 300)
    )
    log_det = np.sum(np.log(2.0 * np.pi * spectrum))
    return points, queries, -0.5 * (np.sum(queries**2 / spectrum, axis=1) + log_det)


def excess(measured, theory):
    """Of the measured mean over theory, and its standard error."""
    return measured.mean() - theory, measured.std() / np.sqrt(len(measured))


@pytest.mark.parametrize("name", ["equal", "1/k"])
def test_divergence_against_simulation(name):
    """Above h_G finite size does not show; below, it does, ever less as d grows."""
    n, rng = 5000, np.random.default_rng(1)
    below = {}
    for d in (30, 200):
        spectrum = np.ones(d) if name == "equal" else 1.0 / np.arange(1, d + 1)
        points, queries, truth = gaussian_sample(spectrum, n, rng)
        sq = sim.squared_distances(queries, points)
        theory = gaussian_thresholds(n, spectrum)
        for h in theory.h_g * np.array([1.6, 2.5, 5.0]):
            divergence = truth - sim.log_density(sq, d, h)
            difference, error = excess(divergence / d, theory.kl_per_dimension(h))
            assert abs(difference) < 4.0 * error
            assert error < 0.01
        h = 0.7 * theory.h_g
        divergence = truth - sim.log_density(sq, d, h)
        below[d] = excess(divergence / d, theory.kl_per_dimension(h))[0]
    assert 0.0 < below[200] < 0.6 * below[30] < 0.1


@pytest.mark.parametrize("name", ["equal", "1/k"])
def test_preserved_variance_against_simulation(name):
    n, rng = 5000, np.random.default_rng(2)
    below = {}
    for d in (30, 200):
        spectrum = np.ones(d) if name == "equal" else 1.0 / np.arange(1, d + 1)
        points, queries, truth = gaussian_sample(spectrum, n, rng)
        theory = gaussian_thresholds(n, spectrum, preserve_variance=True)
        plain = gaussian_thresholds(n, spectrum)
        h = np.sqrt(theory.h_clt * theory.largest_bandwidth)
        shrunken = truth - sim.log_density_of_shrunken(
            queries, points, h, spectrum.mean()
        )
        difference, error = excess(shrunken / d, theory.kl_per_dimension(h))
        assert abs(difference) < max(4.0 * error, 1e-3)
        # which tells it from the estimate without shrinkage
        assert abs(plain.kl_per_dimension(h) - theory.kl_per_dimension(h)) > 0.01
        h = 0.9 * theory.h_g
        shrunken = truth - sim.log_density_of_shrunken(
            queries, points, h, spectrum.mean()
        )
        below[d] = excess(shrunken / d, theory.kl_per_dimension(h))[0]
    assert 0.0 < below[200] < 0.6 * below[30] < 0.1


def test_tail_index_with_preserved_variance_against_simulation():
    """E[Y] = 1 - tail index holds for shrunken points too."""
    d, n, rng = 200, 5000, np.random.default_rng(3)
    theory = gaussian_thresholds(n, np.ones(d), preserve_variance=True)
    queries = sim.white(300, d, rng)
    for h in (0.7, 0.8):
        shrinkage = np.sqrt(1.0 - h**2)
        sq = sim.squared_distances(queries, shrinkage * sim.white(n, d, rng))
        shares = np.exp((sq.min(axis=1)[:, None] - sq) / (2.0 * h**2))
        shares /= shares.sum(axis=1)[:, None]
        expected = expected_participation(theory.tail_index(h))
        assert 0.3 < expected < 0.8
        assert np.mean(np.sum(shares**2, axis=1)) == pytest.approx(expected, abs=0.06)


def test_extremes_of_size():
    """Means and ratios of eigenvalues beyond what a float holds."""
    one = gaussian_thresholds(100, [1.0, 1.0])
    large = gaussian_thresholds(100, [1e308, 1e308])
    assert large.h_g == pytest.approx(one.h_g * 1e154, rel=1e-9)
    assert gaussian_thresholds(100, [5e-324, 0.0, 0.0]).h_g > 0.0
    assert one.kl(1e-200) == np.inf
    far = gaussian_thresholds(100, [1e300, 1e-300, 1.0], preserve_variance=True)
    assert far.kl(1.01 * far.h_g) < far.kl(0.5 * far.largest_bandwidth) < np.inf
    # by mpmath, 60 digits
    steep = gaussian_thresholds(
        int(np.exp(500.0)), [1.0] + [0.0] * 9, preserve_variance=True
    )
    assert steep.h_g == pytest.approx(7.12e-218, rel=1e-3)


def test_eigenvalues_that_rounding_left_below_zero():
    expected = gaussian_thresholds(50, [1.0, 0.0])
    assert gaussian_thresholds(50, [1.0, -3e-17]).h_g == expected.h_g
    with pytest.raises(ValueError, match="covariance_eigenvalues"):
        gaussian_thresholds(50, [1.0, -1e-3])


def test_regime_of_several_bandwidths():
    theory = gaussian_thresholds(100, np.ones(5))
    names = theory.regime(np.array([0.9 * theory.h_g, 1.1 * theory.h_g, theory.h_clt]))
    assert names.tolist() == ["extreme", "stable", "clt"]
    assert theory.regime(theory.h_g) == "stable"


def test_arguments_without_meaning():
    assert np.isnan(expected_participation(-1.0))
    assert extreme_spread(1e-200) == pytest.approx(np.pi / np.sqrt(6.0) * 1e200)
    with pytest.raises(TypeError, match="n_samples"):
        gaussian_thresholds(1j, [1.0])


# k_0, alpha, k_G, k_KL, tail index at h_KL, KL/d at h_KL; k is kappa / d
SPHERE = [
    (0.0, 0.05, 0.340928, 0.340928, 1.0, 0.0),
    (0.0, 0.2, 0.856572, 0.856572, 1.0, 0.0),
    (0.0, 1.0, 6.870887, 6.870887, 1.0, 0.0),
    (0.5, 0.05, 0.409658, 0.538025, 0.761410, 0.038786),
    (0.5, 0.2, 1.056309, 1.141147, 0.925656, 0.015484),
    (1.0, 0.01, 0.218071, 0.618059, 0.352832, 0.121357),
    (1.0, 0.05, 0.546092, 0.888370, 0.614712, 0.081444),
    (1.0, 0.1, 0.855650, 1.155397, 0.740568, 0.058249),
    (1.0, 0.5, 3.649277, 3.786559, 0.963745, 0.009044),
    (2.0, 0.05, 0.859800, 1.638821, 0.524646, 0.123042),
    (2.0, 0.2, 2.310061, 2.890236, 0.799264, 0.053565),
]
sphere_inputs = given(
    log_alpha=st.floats(-9.0, 1.2),
    log_k_0=st.one_of(st.just(-np.inf), st.floats(-6.0, 4.0)),
    d=st.integers(2, 50),
)


def on_sphere(alpha, k_0, d=50):
    return sphere_thresholds(math.exp(alpha * d), d, k_0 * d)


@pytest.mark.parametrize("d", [2, 50])
@pytest.mark.parametrize("row", SPHERE, ids=lambda row: f"k_0={row[0]}, alpha={row[1]}")
def test_table_of_the_sphere(row, d):
    k_0, alpha, k_g, k_kl, mu, kl = row
    theory = on_sphere(alpha, k_0, d)
    assert theory.alpha == pytest.approx(alpha, rel=1e-14)
    kappa = np.array([theory.h_g, theory.h_clt, theory.h_kl]) ** -2.0
    np.testing.assert_allclose(kappa / d, [k_g, k_g / 2.0, k_kl], rtol=1e-5)
    assert theory.tail_index(theory.h_kl) == pytest.approx(mu, rel=1e-5)
    assert theory.kl(theory.h_kl) == pytest.approx(d * kl, abs=1e-6 * d)


def sphere_mp(alpha, k_0):
    """``k_G`` and the divergence as a function of k, from the Legendre transform.

    ``phi(k)`` is the limit of ``log E exp(d k x.y) / d`` over the points ``y``, by the
    normaliser ``g``; its derivative is taken numerically.
    """

    def g(k):
        s = mpmath.sqrt(1 + 4 * k**2)
        return (s - 1) / 2 - mpmath.log((1 + s) / 2) / 2

    mean = mpmath.diff(g, k_0)

    def phi(k):
        return g(mpmath.sqrt(k_0**2 + k**2 + 2 * k * k_0 * mean)) - g(k_0)

    def level(log_k):
        k = mpmath.exp(log_k)
        return k * mpmath.diff(phi, k) - phi(k) - alpha

    low, high = mpmath.mpf(-40), mpmath.mpf(40)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if level(middle) > 0 else (middle, high)
    k_g = mpmath.exp(low)

    def kl(k):
        truth = k_0 * mean - g(k_0)
        if k <= k_g:
            return truth + g(k) - phi(k)
        return truth + g(k) + alpha - k * mpmath.diff(phi, k_g)

    return k_g, kl


@pytest.mark.parametrize("alpha", [1e-4, 0.1, 3.0])
@pytest.mark.parametrize("k_0", [0.0, 1e-3, 0.7, 40.0])
def test_sphere_against_mpmath(k_0, alpha):
    d = 10
    theory = on_sphere(alpha, k_0, d)
    with mpmath.workdps(40):
        k_g, kl = sphere_mp(
            mpmath.mpf(theory.alpha), mpmath.mpf(theory.concentration) / d
        )
        assert theory.h_g == pytest.approx(float(1 / mpmath.sqrt(k_g * d)), rel=1e-11)
        for ratio in (0.1, 0.9, 1.1, 3.0, 100.0):
            h = ratio * theory.h_g
            expected = float(kl(1 / (mpmath.mpf(h) ** 2 * d)) * d)
            assert theory.kl(h) == pytest.approx(expected, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("alpha", [1e-8, 0.03, 2.0, 300.0])
def test_uniform_data_on_the_sphere_in_closed_form(alpha):
    theory = on_sphere(alpha, 0.0, 2)
    double = 2.0 * theory.alpha
    log_kappa = math.log(2.0) + 0.5 * double + 0.5 * math.log(math.expm1(double))
    assert -2.0 * math.log(theory.h_g) == pytest.approx(log_kappa, rel=1e-12)
    assert theory.h_kl == theory.h_g
    above = theory.kl([theory.h_g, 1.5 * theory.h_g, 1e3 * theory.h_g, 1e100])
    np.testing.assert_array_equal(above, 0.0)
    assert theory.kl(0.9 * theory.h_g) > 0.0


def test_few_points_on_the_sphere():
    """Compare with few points, of which the nearest has the cosine of any two."""
    for k_0 in (0.3, 5.0):
        mean = 2.0 * k_0 / (1.0 + math.sqrt(1.0 + 4.0 * k_0**2))
        theory = on_sphere(1e-10, k_0)
        k_kl = mean**2 / (1.0 - mean**4)
        assert theory.h_kl == pytest.approx((50 * k_kl) ** -0.5, rel=1e-4)
        assert theory.h_g > 50.0 * theory.h_kl


@settings(max_examples=150, deadline=None, derandomize=True)
@sphere_inputs
def test_sphere_is_consistent(log_alpha, log_k_0, d):
    with np.errstate(all="raise", under="ignore"):
        theory = on_sphere(10.0**log_alpha, 10.0**log_k_0, d)
        assert 0.0 < theory.h_kl <= theory.h_g < theory.h_clt < np.inf
        mu = theory.tail_index([theory.h_g, theory.h_clt, 3.0 * theory.h_g])
        np.testing.assert_allclose(mu, [1.0, 2.0, 9.0], rtol=1e-12)
        at = theory.h_kl * np.geomspace(1e-3, 1e3, 61)
        divergence = theory.kl(at)
        least = theory.kl(theory.h_kl)
        assert (divergence >= 0.0).all()
        assert (least <= divergence + 1e-12 * d).all()
        np.testing.assert_allclose(
            theory.kl(theory.h_g * np.array([1.0 - 1e-13, 1.0])),
            theory.kl(theory.h_g),
            rtol=1e-9,
            atol=1e-12 * d,
        )


def log_peak(d, kappa):
    """Log density of a von Mises-Fisher kernel at its mode."""
    order = 0.5 * d - 1.0
    log_power = order * np.log(kappa) - 0.5 * d * np.log(2.0 * np.pi)
    return log_power - np.log(ive(order, kappa))


def test_divergence_on_the_sphere_against_simulation():
    """Above h_G it is the limit; at h_KL finite size shows, ever less as d grows."""
    n, rng = 4000, np.random.default_rng(4)
    below = {}
    for d in (30, 120):
        theory = sphere_thresholds(n, d, concentration=d)
        law = vonmises_fisher(np.eye(d)[0], d)
        points, queries = law.rvs(n, random_state=rng), law.rvs(1500, random_state=rng)
        truth = log_peak(d, d) - d * (1.0 - queries[:, 0])
        cosine = queries @ points.T

        def divergence(h, d=d, cosine=cosine, truth=truth):
            log_sum = np.logaddexp.reduce((cosine - 1.0) / h**2, axis=1)
            return (truth - log_peak(d, h**-2) - log_sum + np.log(len(cosine.T))) / d

        for h in theory.h_g * np.array([1.6, 2.5, 5.0]):
            difference, error = excess(divergence(h), theory.kl(h) / d)
            assert abs(difference) < 4.0 * error
            assert error < 0.0025
        below[d] = excess(divergence(theory.h_kl), theory.kl(theory.h_kl) / d)[0]
    assert 0.0 < below[120] < 0.6 * below[30] < 0.03


def test_units_and_shapes_on_the_sphere():
    theory = sphere_thresholds(1000, np.int64(20), concentration=np.float64(30.0))
    h = theory.h_g * np.array([[0.3, 0.9], [1.2, 2.0]])
    assert theory.kl(h).shape == theory.tail_index(h).shape == (2, 2)
    assert [theory.kl(one) for one in h.flat] == theory.kl(h).ravel().tolist()
    assert isinstance(theory.kl(0.1), float)
    assert isinstance(theory.tail_index(0.1), float)
    expected = [["extreme", "extreme"], ["stable", "clt"]]
    assert theory.regime(h).tolist() == expected
    large = sphere_thresholds(10**400, 100)  # beyond a float
    assert large.alpha == pytest.approx(4.0 * math.log(10.0), rel=1e-14)
    assert theory.regime(theory.h_g) == "stable"


@pytest.mark.parametrize(
    "args, error, match",
    [
        ((1, 10), ValueError, "n_samples must be finite and > 1, got 1"),
        (("ten", 10), TypeError, "n_samples must be a number, got 'ten'"),
        ((10, 1), ValueError, "n_features must be >= 2, got 1"),
        ((10, 2.5), TypeError, "n_features must be an integer, got 2.5"),
        ((10, True), TypeError, "n_features must be an integer"),
        ((10, 5, -1.0), ValueError, "concentration must be finite and >= 0, got -1.0"),
        ((10, 5, np.nan), ValueError, "concentration must be finite"),
        ((10, 5, np.inf), ValueError, "concentration must be finite"),
        ((10, 5, "high"), TypeError, "concentration must be a number, got 'high'"),
    ],
)
def test_bad_input_on_the_sphere(args, error, match):
    with pytest.raises(error, match=match):
        sphere_thresholds(*args)


@pytest.mark.parametrize("method", ["kl", "tail_index", "regime"])
@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.nan, np.inf])
def test_bad_bandwidth_on_the_sphere(method, bandwidth):
    theory = sphere_thresholds(10, 3, 1.0)
    with pytest.raises(ValueError, match="bandwidth must be > 0 and < inf"):
        getattr(theory, method)(bandwidth)
