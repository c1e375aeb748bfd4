"""The kernel with a heavy tail."""

import numpy as np
from scipy.special import gammaln

from skhdkde._kernels.kernel import Kernel
from skhdkde._utils.arrays import beside, column, finite_or_zero, namespace, number

# Exponent from which 1 + x would cost digits that its power needs. There the logarithm is
# a series: its third term is the last that is felt before values vanish.
SERIES_FROM = 1e6
# Argument from which Stirling's series is exact to rounding.
STIRLING_FROM = 16.0


class Student(Kernel):
    """``k(r) = (1 + r^2 / nu)^(-(nu + d) / 2)``, the multivariate t distribution.

    Parameters
    ----------
    degrees_of_freedom : float
        ``nu``.
    n_features : int
        ``d``, on which the profile depends.
    """

    name = "student"
    affine = screened = True

    def __init__(self, degrees_of_freedom: float, n_features: int):
        self.degrees_of_freedom = float(degrees_of_freedom)
        self.exponent = 0.5 * (self.degrees_of_freedom + n_features)
        self.decay = 2.0 * self.exponent

    def log_normalizer(self, n_features):
        half_nu, half = 0.5 * self.degrees_of_freedom, 0.5 * n_features
        return half * np.log(2.0 * np.pi) - _log_gamma_ratio(half_nu, half)

    def variance(self, n_features):
        nu = self.degrees_of_freedom
        return nu / (nu - 2.0) if nu > 2.0 else np.inf

    def _core_sq(self, h):
        """Return ``nu h^2``, the squared distance at which the tail begins."""
        return self.degrees_of_freedom * h**2

    def values(self, shifted, h, out, lowest):
        """Return ``((c + E) / (c + E_lowest))^-exponent`` with ``c = nu h^2``."""
        factor = column(-1.0 / (self._core_sq(h) + lowest), out)
        out = namespace(out).multiply(shifted, factor, out=out)
        if self.exponent < SERIES_FROM:
            out += 1.0
        return self.values_from_product(out)

    def product_terms(self, lowest, h):
        core_sq = self._core_sq(h)
        reference = -core_sq if self.exponent < SERIES_FROM else lowest
        return -1.0 / (core_sq + lowest), reference, np.inf

    def values_from_product(self, product):
        """Return values from ``(c + E) / (c + E_lowest)``, in place.

        From ``SERIES_FROM`` on it is that minus 1.
        """
        xp = namespace(product)
        if self.exponent < SERIES_FROM:
            product = xp.log(product, out=product)
        else:
            product = product * (1.0 - product * (0.5 - product * (1.0 / 3.0)))
        product *= -self.exponent
        return xp.exp(product, out=product)

    def values_about(self, product, extreme, factor):
        if self.exponent < SERIES_FROM:
            xp = namespace(extreme)
            product *= column(1.0 / xp.where(xp.isinf(extreme), 1.0, extreme), product)
            return self.values_from_product(product)
        extreme = finite_or_zero(extreme)
        product -= column(extreme, product)
        product *= column(factor / (1.0 + factor * extreme), product)
        return self.values_from_product(product)

    def log_peak(self, lowest, bandwidths):
        xp, core_sq = namespace(lowest), beside(self._core_sq(bandwidths), lowest)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            ratio = lowest[:, None] * (1.0 / core_sq)
            logs = xp.log1p(ratio)
            if xp is not np or not np.isfinite(logs).all():
                # some may be so far out that the ratio is not finite
                far_out = xp.log(lowest)[:, None] - xp.log(core_sq)
                logs = xp.where(xp.isinf(ratio), far_out, logs)
        return -self.exponent * logs

    def slopes(self, energy, values, h):
        return values / (energy + number(self._core_sq(h), energy))

    def slope_rate(self, h):
        return 2.0 * self.exponent

    def radii(self, n_features, size, rng):
        nu = self.degrees_of_freedom
        gaussian = np.sqrt(rng.chisquare(n_features, size=size))
        return gaussian / np.sqrt(rng.chisquare(nu, size=size) / nu)

    def reach(self, nearest_sq, margin, h):
        # rounding may have left squared distances below zero
        core_sq, nearest_sq = self._core_sq(h), np.maximum(nearest_sq, 0.0)
        with np.errstate(over="ignore"):
            further = (core_sq + nearest_sq) * np.expm1(margin / self.exponent)
            return nearest_sq + further

    def suspect_rows(self, nearest_sq, delta, bandwidths, tol):
        core_sq = self._core_sq(np.min(bandwidths))
        lowest = np.maximum(nearest_sq - delta, 0.0)
        return ~(delta * self.exponent <= tol * (core_sq + lowest))

    def screened_errors(self, nearest_sq, delta, h, eps, margin):
        # four roundings of what the logarithm is taken of, or three of the argument of a
        # series, which has three more; the logarithm, which takes four, and its product
        own = 5.0 * margin + 4.0
        if self.exponent < SERIES_FROM:
            own += 2.0 * self.exponent
        return self.log_errors(nearest_sq, delta, h) + eps * own

    def log_errors(self, nearest_sq, delta, h):
        lowest = self._core_sq(h) + np.maximum(nearest_sq - delta, 0.0)
        return self.exponent * delta / lowest

    def thresholds(self, law, nearest_sq):
        """Return the bandwidths at which the tail index is 1 and 2, by query.

        As for the exponential family, here with ``mu = m (c + r^2) / ((nu + d) r^2)``.
        """
        level = np.arange(1.0, 3.0)[:, None] * 2.0 * self.exponent / law.dimension(1.0)
        sq = law.squared_distance(1.0) * (level - 1.0) / self.degrees_of_freedom
        return tuple(np.sqrt(np.maximum(sq, 0.0)))

    def tail_index(self, h, law):
        with np.errstate(divide="ignore"):
            ratio = 1.0 + self._core_sq(h) / law.squared_distance(1.0)
        return law.dimension(1.0) * ratio / (2.0 * self.exponent)

    def scaled_distance(self, log_factors, h):
        growth = np.expm1(-log_factors / self.exponent)
        return 1.0 + growth, self._core_sq(h) * growth


def _log_gamma_ratio(x, step):
    """Return ``log(Gamma(x + step) / (Gamma(x) x^step))``, which is small for large x.

    By Stirling's series: the difference of two values of ``gammaln`` would cancel.
    """
    if x < STIRLING_FROM:
        return gammaln(x + step) - gammaln(x) - step * np.log(x)
    main = (x + step - 0.5) * np.log1p(step / x) - step
    return main + _stirling_remainder(x + step) - _stirling_remainder(x)


def _stirling_remainder(x):
    """Return ``gammaln(x)`` minus ``(x - 1/2) log(x) - x + log(2 pi) / 2``."""
    inverse_sq = 1.0 / (x * x)
    coefficients = 1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360
    return np.polynomial.polynomial.polyval(inverse_sq, coefficients) / x
