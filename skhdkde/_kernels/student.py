"""The kernel with a heavy tail."""

import numpy as np
from scipy.special import betaln, gammaln

from skhdkde._kernels.kernel import Kernel
from skhdkde._utils.arrays import column, namespace, number


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
    affine = True

    def __init__(self, degrees_of_freedom: float, n_features: int):
        self.degrees_of_freedom = float(degrees_of_freedom)
        self.exponent = 0.5 * (self.degrees_of_freedom + n_features)

    def log_normalizer(self, n_features):
        # by the beta function, which does not cancel where nu is large
        nu, half = self.degrees_of_freedom, 0.5 * n_features
        return betaln(0.5 * nu, half) - gammaln(half) + half * np.log(nu * np.pi)

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
        out += 1.0
        return self.values_from_product(out)

    def product_terms(self, lowest, h):
        core_sq = self._core_sq(h)
        return -1.0 / (core_sq + lowest), -core_sq

    def values_from_product(self, product):
        """Return values from ``(c + E) / (c + E_lowest)``, in place."""
        xp = namespace(product)
        product = xp.log(product, out=product)
        product *= -self.exponent
        return xp.exp(product, out=product)

    def log_peak(self, lowest, bandwidths):
        with np.errstate(over="ignore"):
            ratio = np.multiply.outer(lowest, 1.0 / self._core_sq(bandwidths))
        return -self.exponent * np.log1p(ratio)

    def slopes(self, energy, values, h):
        nu = self.degrees_of_freedom
        return values * (2.0 * self.exponent) / (energy * number(1.0 / h**2, energy) + nu)

    def radii(self, n_features, size, rng):
        nu = self.degrees_of_freedom
        gaussian = np.sqrt(rng.chisquare(n_features, size=size))
        return gaussian / np.sqrt(rng.chisquare(nu, size=size) / nu)

    def reach(self, nearest_sq, margin, h):
        # rounding may have left squared distances below zero
        core_sq, nearest_sq = self._core_sq(h), np.maximum(nearest_sq, 0.0)
        with np.errstate(over="ignore"):
            return (core_sq + nearest_sq) * np.exp(margin / self.exponent) - core_sq

    def suspect_rows(self, nearest_sq, delta, bandwidths, tol):
        core_sq = self._core_sq(np.min(bandwidths))
        lowest = np.maximum(nearest_sq - delta, 0.0)
        return ~(delta * self.exponent <= tol * (core_sq + lowest))

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
        sq_factor = np.exp(-log_factors / self.exponent)
        return sq_factor, self._core_sq(h) * (sq_factor - 1.0)
