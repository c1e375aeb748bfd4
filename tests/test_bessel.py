"""Bessel functions of any order: against mpmath, by an integral and by its own."""

import functools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skhdkde._kernels.bessel import (
    concentration,
    iv_ratio,
    log_scaled_iv,
    log_vmf_peak,
    mean_cosine,
    one_minus_iv_ratio,
    one_minus_mean_cosine,
)

BOUND = 5e-15  # as the module says

# d, kappa, L(d, kappa), A_d(kappa)
REFERENCE = [
    (3, 1, -1.6924636085404867, None),
    (3, 100, 2.767293119578746, None),
    (384, 0, 595.2484510402654, 0.0),
    (384, 200, 748.480177772652, 0.4264540496387066),
    (384, 1000, 989.0761644705806, 0.8265946098720275),
    (768, 500, 1819.118136773696, 0.49303503113242997),
    (4096, 50, 11268.921246925058, None),
    (4096, 2000, 12776.107229943718, 0.4073049792528306),
    (32768, 1e4, 132385.07526670798, 0.281068331475725),
]


@functools.cache
def von_mises_fisher_mp(d, kappa):
    """``L``, ``1 - A`` and ``A``, by the integral over the cosine, in 40 digits.

    With ``s = (1 - t) / 2`` the weight of ``y = logit(s)`` is ``exp(-2 kappa s) (s (1 -
    s))^(m/2)``, ``m = d - 1``. The trapezoid rule about its mode converges exponentially.
    ``A`` is ``kappa / m`` times the mean of ``1 - t^2``, by parts.
    """
    with mpmath.workdps(40):
        m, kappa = mpmath.mpf(d) - 1, mpmath.mpf(kappa)
        root = mpmath.sqrt(m**2 + 4 * kappa**2)
        s = m / (m + 2 * kappa + root)
        mode = mpmath.log(s / (1 - s))
        width = 1 / mpmath.sqrt(s * (1 - s) * (m + 2 * kappa * (1 - 2 * s)))
        step = min(width / 3, mpmath.mpf("0.15"))

        def parts(y):
            s, other = 1 / (1 + mpmath.exp(-y)), 1 / (1 + mpmath.exp(y))
            return s, other, m / 2 * mpmath.log(s * other) - 2 * kappa * s

        top = parts(mode)[2]
        total = energy = sine_sq = mpmath.mpf(0)
        for sign in (1, -1):
            weight, k = mpmath.mpf(1), (1 - sign) // 2
            while weight > 1e-34:
                s, other, log_weight = parts(mode + sign * k * step)
                weight, k = mpmath.exp(log_weight - top), k + 1
                total += weight
                energy += 2 * s * weight
                sine_sq += 4 * s * other * weight
        log_area = mpmath.log(2) + m / 2 * mpmath.log(mpmath.pi) - mpmath.loggamma(m / 2)
        log_total = log_area + (m - 1) * mpmath.log(2) + top + mpmath.log(total * step)
        return -log_total, energy / total, kappa / m * sine_sq / total


def log_scaled_iv_mp(d, kappa):
    """Return ``log(exp(-kappa) I_v(kappa))`` of order ``v = d/2 - 1``, to 40 digits."""
    with mpmath.workdps(40):
        half = mpmath.mpf(d) / 2
        log_iv = (half - 1) * mpmath.log(kappa) - half * mpmath.log(2 * mpmath.pi)
        return log_iv - von_mises_fisher_mp(d, kappa)[0]


def error(found, exact):
    """Relative to ``max(1, |exact|)``."""
    return abs(float(found - exact)) / max(1.0, abs(float(exact)))


def relative_error(found, exact):
    return float(abs(found / exact - 1))


def check_all(d, kappa):
    peak, complement, mean = von_mises_fisher_mp(d, kappa)
    with mpmath.workdps(40):
        assert error(log_vmf_peak(d, kappa), peak) <= BOUND
        assert relative_error(one_minus_mean_cosine(d, kappa), complement) <= BOUND
        if kappa > 0.0:
            assert relative_error(mean_cosine(d, kappa), mean) <= BOUND
            exact = log_scaled_iv_mp(d, kappa)
            assert error(log_scaled_iv(0.5 * d - 1.0, kappa), exact) <= BOUND
        else:
            assert mean_cosine(d, kappa) == 0.0


@pytest.mark.parametrize("d, kappa, peak, mean", REFERENCE)
def test_reference_values(d, kappa, peak, mean):
    assert log_vmf_peak(d, kappa) == pytest.approx(peak, rel=1e-12)
    if mean is not None:
        assert mean_cosine(d, kappa) == pytest.approx(mean, rel=1e-12)
        assert one_minus_mean_cosine(d, kappa) == pytest.approx(1.0 - mean, rel=1e-12)


@pytest.mark.parametrize(
    "d, kappa", [(2, 0.3), (3, 100), (12, 40), (384, 200), (1536, 9)]
)
def test_the_integral_agrees_with_bessel_functions_of_mpmath(d, kappa):
    with mpmath.workdps(40):
        v = mpmath.mpf(d) / 2 - 1
        values = [mpmath.besseli(order, kappa) for order in (v, v + 1)]
        exact = v * mpmath.log(kappa) - (v + 1) * mpmath.log(2 * mpmath.pi) + kappa
        peak, complement, mean = von_mises_fisher_mp(d, kappa)
        assert relative_error(peak, exact - mpmath.log(values[0])) < 1e-20
        assert relative_error(mean, values[1] / values[0]) < 1e-20
        assert relative_error(complement, 1 - values[1] / values[0]) < 1e-20


@pytest.mark.parametrize("kappa", [0.0, 1e-300, 1e-3, 1.0, 24.9, 31.99, 32.0, 1e4, 1e8])
@pytest.mark.parametrize("d", [2, 3, 10, 65, 66, 67, 768, 4096, 32768])
def test_grid(d, kappa):
    check_all(d, kappa)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    log2_d=st.floats(1.0, 15.0),
    kappa=st.one_of(
        st.floats(0.0, 40.0),
        st.floats(-2.0, 8.0).map(lambda power: 10.0**power),
        st.floats(-300.0, -2.0).map(lambda power: 10.0**power),
    ),
)
def test_any_dimension_and_concentration(log2_d, kappa):
    check_all(round(2.0**log2_d), kappa)


@pytest.mark.parametrize("x", [1e-5, 3.0, 33.3, 200.0])
@pytest.mark.parametrize("order", [0.0, 0.3, 1.0, 31.9, 191.25])
def test_any_order(order, x):
    """Also those of no dimension."""
    with mpmath.workdps(40):
        low, high = (mpmath.besseli(mpmath.mpf(order) + i, x) for i in (0, 1))
        assert error(log_scaled_iv(order, x), mpmath.log(low) - x) <= BOUND
        assert relative_error(iv_ratio(order, x), high / low) <= BOUND
        assert relative_error(one_minus_iv_ratio(order, x), 1 - high / low) <= BOUND


@pytest.mark.parametrize("kappa", [1e-2, 5.0, 300.0, 1e6])
@pytest.mark.parametrize("d", [2, 30, 384, 4096])
def test_derivative_of_the_log_peak(d, kappa):
    with mpmath.workdps(40):
        step = mpmath.mpf(kappa) * mpmath.mpf(10) ** -10
        above, below = (
            von_mises_fisher_mp(d, kappa + sign * step)[0] for sign in (1, -1)
        )
        slope = (above - below) / (2 * step)
        assert relative_error(one_minus_mean_cosine(d, kappa), slope) < 1e-13


def test_arrays():
    kappa = np.array([[0.0, 1e-3, 40.0], [7.0, 1e5, 31.0]])
    for function in (log_vmf_peak, mean_cosine, one_minus_mean_cosine):
        values = function(20, kappa)
        single = [function(20, float(k)) for k in kappa.flat]
        np.testing.assert_array_equal(values, np.reshape(single, kappa.shape))


@pytest.mark.parametrize("d", [2, 3, 384])
def test_ends_of_the_range(d):
    """No warning, which would be an error here, and no NaN."""
    kappa = np.array([0.0, 1e-320, 1e-300, 1e300, np.inf])
    uniform = float(von_mises_fisher_mp(d, 0.0)[0])
    np.testing.assert_allclose(log_vmf_peak(d, kappa[:3]), uniform, rtol=BOUND)
    at_end = 0.5 * (d - 1) * np.log(1e300 / (2.0 * np.pi))
    assert log_vmf_peak(d, 1e300) == pytest.approx(at_end, rel=1e-14)
    assert log_vmf_peak(d, np.inf) == np.inf
    ratios = np.array([0.0, 1e-320 / d, 1e-300 / d, 1.0, 1.0])
    np.testing.assert_allclose(mean_cosine(d, kappa), ratios, rtol=BOUND, atol=1e-323)
    complements = np.array([1.0, 1.0, 1.0, 0.5e-300 * (d - 1), 0.0])
    np.testing.assert_allclose(one_minus_mean_cosine(d, kappa), complements, rtol=BOUND)
    log_iv = log_scaled_iv(0.5 * d - 1.0, kappa)
    expected = -np.inf if d > 2 else 0.0
    np.testing.assert_allclose(log_iv[[0, 4]], [expected, -np.inf])
    power = np.log(1e-300 / 1e-320) * (0.5 * d - 1.0)
    assert log_iv[2] - log_iv[1] == pytest.approx(power, rel=1e-5, abs=1e-300)


@pytest.mark.parametrize("d", [2, 3, 66, 384, 32768])
def test_concentration(d):
    """Both ``A`` and ``1 - A`` are as asked, as mpmath has them at that ``kappa``."""
    for complement in (1e-12, 1e-5, 0.03, 0.4, 0.5, 0.6, 0.999, 1.0 - 1e-12):
        _, found, mean = von_mises_fisher_mp(d, float(concentration(d, complement)))
        assert relative_error(found, complement) < 1e-14
        assert relative_error(mean, 1.0 - complement) < 1e-14


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    log2_d=st.floats(1.0, 15.0), power=st.floats(-300.0, -0.31), reflected=st.booleans()
)
def test_concentration_inverts_the_mean_cosine(log2_d, power, reflected):
    d, share = round(2.0**log2_d), 10.0**power
    complement = 1.0 - max(share, 1e-15) if reflected else share
    kappa = concentration(d, complement)
    assert one_minus_mean_cosine(d, kappa) == pytest.approx(complement, rel=1e-14)
    assert mean_cosine(d, kappa) == pytest.approx(1.0 - complement, rel=1e-14)


def test_concentration_outside_its_range():
    found = concentration(5, np.array([[0.0, -1e-3, np.nan], [1.0, 1.5, 2.0]]))
    np.testing.assert_array_equal(found, [[np.inf, np.inf, np.nan], [0.0, 0.0, 0.0]])
