"""Exponential profiles."""

import numpy as np
from scipy.special import gammaln

from skhdkde._kernels.compact import _divide_by_radius, _root, _root_resolution
from skhdkde._kernels.volumes import log_sphere_area
from skhdkde._utils.arrays import column, namespace, number


class _ExponentialFamily:
    """Profiles ``exp(-(r/h)^p / p)``: the numerics that gaussian and exponential share.

    ``values`` at ``h / squaring_ratio`` is the square of ``values`` at ``h``, which
    makes a grid of bandwidths cheap.
    """

    compact = False
    affine = False  # whether the energy is the squared distance itself
    singular = False  # whether the slope diverges at r = 0

    def shift(self, energy, lowest):
        return namespace(energy).subtract(column(lowest, energy), energy, out=energy)

    def rate(self, h):
        """What energies are multiplied by in the exponent."""
        return 1.0 / (self.power * h**self.power)

    def values(self, shifted, h, out, lowest):
        xp = namespace(out)
        rate = np.minimum(self.rate(h), xp.finfo(out.dtype).max)
        out = xp.multiply(shifted, number(rate, out), out=out)
        return xp.exp(out, out=out)

    def log_peak(self, lowest, bandwidths):
        rate = np.minimum(self.rate(bandwidths), np.finfo(float).max)
        return -np.multiply.outer(lowest, rate)

    def thresholds(self, law, nearest):
        """Bandwidths at which the tail index is 1 and 2, per query.

        The number of points whose value is above ``v`` falls as ``v^-mu``. Where one
        point is expected, ``Lambda ~ r^m`` and ``log v = -(r / h)^p / p`` make
        ``mu = m (h / r)^p``.
        """
        radius, m = np.sqrt(law.squared_distance(1.0)), law.dimension(1.0)
        h_g = radius / m ** (1.0 / self.power)
        return h_g, 2.0 ** (1.0 / self.power) * h_g

    def tail_index(self, h, law):
        h_g, _ = self.thresholds(law, None)
        with np.errstate(divide="ignore"):  # h_g is 0 where many copies are
            return (h / h_g) ** self.power

    def reach(self, nearest, margin, h):
        lowest = self.energy(nearest.copy())
        with np.errstate(over="ignore"):
            energy = lowest + margin * self.power * h**self.power
            return np.maximum(energy, 0.0) ** (2.0 / self.power)


class Gaussian(_ExponentialFamily):
    """``k(r) = exp(-r^2 / 2)``."""

    name = "gaussian"
    power = 2
    affine = True
    squaring_ratio = np.sqrt(2.0)

    def log_normalizer(self, n_features):
        return 0.5 * n_features * np.log(2.0 * np.pi)

    def variance(self, n_features):
        return 1.0

    def energy(self, sq):
        return sq

    def product_terms(self, lowest, h):
        return self.rate(h), lowest

    def values_from_product(self, product):
        return namespace(product).exp(product, out=product)

    def slopes(self, energy, values, h):
        return values

    def radii(self, n_features, size, rng):
        return np.sqrt(rng.chisquare(n_features, size=size))

    def discount(self, logs, h):
        return np.ones_like(logs), -2.0 * h**2 * logs

    def suspect_rows(self, nearest, delta, bandwidths, tol):
        return ~(delta <= 2.0 * tol * np.min(bandwidths) ** 2)

    def suspect_pairs(self, sq, nearest, delta, bandwidths, tol, margin):
        reach = self.reach(nearest + delta, margin, np.max(bandwidths))
        return sq <= (reach + 2.0 * delta)[:, None]


class Exponential(_ExponentialFamily):
    """``k(r) = exp(-r)``."""

    name = "exponential"
    power = 1
    singular = True
    squaring_ratio = 2.0

    def log_normalizer(self, n_features):
        return log_sphere_area(n_features) + gammaln(n_features)

    def variance(self, n_features):
        return n_features + 1.0

    def energy(self, sq):
        return _root(sq)

    def slopes(self, energy, values, h):
        return _divide_by_radius(values, energy / number(h, energy))

    def radii(self, n_features, size, rng):
        return rng.gamma(n_features, size=size)

    def suspect_rows(self, nearest, delta, bandwidths, tol):
        return ~(delta <= _root_resolution(nearest, delta, np.min(bandwidths), tol))

    def suspect_pairs(self, sq, nearest, delta, bandwidths, tol, margin):
        reach = self.reach(nearest + delta, margin, np.max(bandwidths))
        with np.errstate(over="ignore"):
            blurred = (delta / (2.0 * tol * np.min(bandwidths))) ** 2
        return sq <= (np.minimum(reach, blurred) + 2.0 * delta)[:, None]
