"""Modified Bessel functions of any order, for the von Mises-Fisher kernel.

The kernel has the density ``C_d(kappa) exp(kappa t)`` on the sphere ``S^(d-1)``, with
``t`` the cosine to its mode and ``kappa`` its concentration. The constant and the mean
cosine come from ``I_v`` with ``v = d/2 - 1``. Embeddings need orders of thousands and
arguments of that size: there ``scipy.special.ive`` is zero, and from ``2^30`` on NaN.

With ``r = hypot(v, x)`` there are two branches.

- ``r >= 32``: Debye's expansion [1]_ (10.41.3), but in powers of ``1 / r`` instead of
  ``1 / v``. It is then Hankel's (10.40.1) at ``v = 0``, so that one sum serves all.
- ``r < 32``: the power series (10.25.2), and for ``1 - I_(v+1) / I_v`` Kummer's functions
  (13.6.9), of which all terms are positive.

Against mpmath, over ``d`` from 2 to 32768 and ``kappa`` from 0 to 1e8, errors are at most
5e-15, relative to ``max(1, |value|)`` for logarithms and to the value for ratios. They
are largest near ``r = 32``.

References
----------
.. [1] NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, chapters 10
   and 13.
"""

import functools
import math
from fractions import Fraction

import numpy as np
from numpy.polynomial.polynomial import polyval2d
from scipy.special import xlogy

from skhdkde._kernels.kernel import log_sphere_area

SMALLEST_EXPANDED = 32.0  # the r from which the expansion is used
N_EXPANDED = 14  # its terms: beyond, they are below 1e-17
N_SERIES = 52  # terms of the power series, for x < 32
N_KUMMER = 160  # terms of Kummer's series, for 2 x < 64
# Where kappa is this many times d, 1 - A = (d - 1) / (2 kappa) is good for a derivative.
CONCENTRATED = 1e6
N_NEWTON = 4  # steps: 2e-15 after three
TINY = 1e-290


def log_scaled_iv(order, x):
    """Return ``log(exp(-x) I_v(x))``.

    Parameters
    ----------
    order : float
        The order ``v``, not negative.
    x : float or ndarray
        Not negative.
    """
    return _by_branch(_log_iv_expanded, _log_iv_series, order, x)


def iv_ratio(order, x):
    """Return ``I_(v+1)(x) / I_v(x)``, right also where it is small."""
    return _by_branch(_ratio_expanded, _ratio_series, order, x)


def one_minus_iv_ratio(order, x):
    """Return ``1 - I_(v+1)(x) / I_v(x)``, right also where it is small."""
    return _by_branch(_complement_expanded, _complement_series, order, x)


def log_vmf_peak(n_features, kappa):
    """Return the log density of a von Mises-Fisher kernel at its mode.

    Densities are with respect to the surface measure of the unit sphere. At another point
    the log density is less by ``kappa (1 - t)``, ``t`` the cosine to the mode.

    Parameters
    ----------
    n_features : int
        Dimension ``d`` of the space around the sphere, at least 2.
    kappa : float or ndarray
        Concentration, not negative. At zero the kernel is uniform.
    """
    return _by_branch(_log_peak_expanded, _log_peak_series, 0.5 * n_features - 1.0, kappa)


def mean_cosine(n_features, kappa):
    """Return the mean cosine to the mode of a von Mises-Fisher kernel, ``A_d(kappa)``."""
    return iv_ratio(0.5 * n_features - 1.0, kappa)


def one_minus_mean_cosine(n_features, kappa):
    """Return ``1 - A_d(kappa)``, which is also the derivative of ``log_vmf_peak``."""
    return one_minus_iv_ratio(0.5 * n_features - 1.0, kappa)


def concentration(n_features, one_minus_cosine):
    """Return the ``kappa`` at which ``1 - A_d(kappa)`` is as given.

    Newton's method, from a formula that is right at both ends. It is on ``log A`` up to a
    mean cosine of 1/2 and on ``log(1 - A)`` above, both nearly linear in ``log kappa``.

    Parameters
    ----------
    n_features : int
        Dimension ``d`` of the space around the sphere, at least 2.
    one_minus_cosine : float or ndarray
        One minus the mean cosine to the mode. From 1 on the result is 0.0, at zero and
        below it is infinite.
    """
    given = np.asarray(one_minus_cosine, dtype=np.float64)
    inside = (given > 0.0) & (given < 1.0)
    below = np.clip(given, 1e-300, 1.0 - np.finfo(float).epsneg)
    cosine = 1.0 - below
    kappa = cosine * (n_features - cosine**2) / (below * (1.0 + cosine))
    for _ in range(N_NEWTON):
        mean = mean_cosine(n_features, kappa)
        complement = one_minus_mean_cosine(n_features, kappa)
        # kappa dA / dkappa
        slope = np.where(
            kappa > CONCENTRATED * n_features,
            complement,
            kappa * complement * (1.0 + mean) - (n_features - 1.0) * mean,
        )
        step = np.where(
            below > 0.5,
            np.log(cosine / mean) * mean / slope,
            np.log(complement / below) * complement / slope,
        )
        kappa = kappa * np.exp(step)
    outside = np.where(given <= 0.0, np.inf, np.where(given >= 1.0, 0.0, np.nan))
    return np.where(inside, kappa, outside)[()]


def _by_branch(expanded, series, order, x):
    """Return the values of two functions of order, x and r, each where it is good."""
    x = np.asarray(x, dtype=np.float64)
    r = np.hypot(order, x)
    far = r >= SMALLEST_EXPANDED
    value = np.empty_like(x)
    value[far] = expanded(order, x[far], r[far])
    value[~far] = series(order, x[~far])
    return value[()]


@functools.lru_cache(maxsize=1)
def _expansion():
    """Return two tables of coefficients of ``r^-k q^j``, ``q = (v / r)^2``.

    The first is of ``sum_k u_k(q) r^-k``, with Debye's polynomials as ``U_k(p) =
    p^k u_k(p^2)`` (10.41.9), and without the term 1. The second is of its derivative
    ``sum_k (k u_k + 2 q u_k') r^-k``.
    """
    row = [Fraction(1)]
    rows: list[list[Fraction]] = [[]]
    for k in range(N_EXPANDED):
        following = [Fraction(0)] * (len(row) + 1)
        for j, c in enumerate(row):
            power = k + 2 * j
            following[j] += c * (Fraction(power, 2) + Fraction(1, 8 * (power + 1)))
            following[j + 1] -= c * (Fraction(power, 2) + Fraction(5, 8 * (power + 3)))
        row = following
        rows.append(row)
    width = len(row)
    table = np.array([[*map(float, u), *[0.0] * (width - len(u))] for u in rows])
    powers = np.arange(len(rows))[:, None] + 2.0 * np.arange(width)
    return table, powers * table


def _expanded(order, r, table):
    """Return the sum of which this is the table of coefficients."""
    return polyval2d(1.0 / r, (order / r) ** 2, table)


def _log_iv_expanded(order, x, r):
    total = _expanded(order, r, _expansion()[0])
    with np.errstate(divide="ignore"):
        log_tiny = np.log(np.minimum(x, TINY) / TINY)  # zero unless order / x overflows
    log_ratio = np.arcsinh(order / np.maximum(x, TINY)) - log_tiny
    log_main = order * (order / (r + x)) - order * log_ratio
    return log_main - 0.5 * np.log(2.0 * math.pi * r) + np.log1p(total)


def _log_peak_expanded(order, x, r):
    total = _expanded(order, r, _expansion()[0])
    log_main = xlogy(order, order + r) - order * (order / (r + x))
    constant = (order + 0.5) * math.log(2.0 * math.pi)
    return log_main + 0.5 * np.log(r) - constant - np.log1p(total)


def _sine_cosine_shift(order, x, r):
    """Return ``v / r`` and ``x / r``, and what the ratio falls short of its limit by."""
    total, derivative = (_expanded(order, r, table) for table in _expansion())
    cosine = np.divide(x, r, out=np.ones_like(x), where=np.isfinite(x))
    return order / r, cosine, cosine / r * (0.5 + derivative / (1.0 + total))


def _ratio_expanded(order, x, r):
    sine, cosine, shift = _sine_cosine_shift(order, x, r)
    return cosine / (1.0 + sine) - shift


def _complement_expanded(order, x, r):
    sine, cosine, shift = _sine_cosine_shift(order, x, r)
    return sine * (1.0 + sine / (1.0 + cosine)) / (1.0 + sine) + shift


def _series(order, x):
    """Return ``I_v(x)`` over its first term, less 1."""
    quarter = 0.25 * x * x
    total = np.zeros_like(x)
    for k in range(N_SERIES, 0, -1):
        total = (1.0 + total) * (quarter / (k * (order + k)))
    return total


def _log_iv_series(order, x):
    constant = order * math.log(2.0) + math.lgamma(order + 1.0)
    return xlogy(order, x) - constant - x + np.log1p(_series(order, x))


def _log_peak_series(order, x):
    return x - log_sphere_area(2.0 * order + 2.0) - np.log1p(_series(order, x))


def _ratio_series(order, x):
    ratio = (1.0 + _series(order + 1.0, x)) / (1.0 + _series(order, x))
    return 0.5 * x / (order + 1.0) * ratio


def _complement_series(order, x):
    """Return ``M(v+1/2, 2v+2, 2x) / M(v+1/2, 2v+1, 2x)``, Kummer's functions."""
    above, below = np.zeros_like(x), np.zeros_like(x)
    for k in range(N_KUMMER, 0, -1):
        factor = (order - 0.5 + k) * 2.0 * x / k
        above = (1.0 + above) * (factor / (2.0 * order + 1.0 + k))
        below = (1.0 + below) * (factor / (2.0 * order + k))
    return (1.0 + above) / (1.0 + below)
