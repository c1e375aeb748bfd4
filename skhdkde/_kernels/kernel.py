"""The role of a kernel, and the two kernels with exponential profiles.

A kernel is a profile of the distance, ``K(z) = k(|z|) / Z_d`` with ``k(0) = 1``, and its
normaliser ``Z_d``, the integral of ``k(|z|)`` over ``R^d``. At bandwidth ``h`` the
density of one point is ``k(r / h) / (Z_d h^d)``.
"""

import abc
from typing import Any

import numpy as np
from scipy.special import gammaln

from skhdkde._utils.arrays import beside, column, finite_or_zero, namespace, number
from skhdkde._utils.typing import AnyTile, FloatArray

TINY, LOG_TWO = np.finfo(float).tiny, np.log(2.0)
# By more than rounding to float32 takes away.
ROUNDED_UP = 1.0 + 1e-6


class Kernel(abc.ABC):
    """The role of a kernel; a new one is a subclass.

    Methods take tiles ``sq`` of squared distances, and bandwidths ``h`` in the units of
    these. Tiles are numpy arrays, torch tensors or lazy tensors of KeOps, and the last
    cannot be changed in place: what is returned counts. The *energy* of a pair is what
    the profile depends on, a power of its distance.
    """

    name: str  # as users write it
    compact = False  # the profile vanishes from r = h on
    affine = False  # values follow from an affine function of sq; see product_terms
    # float64 sums may be made of float32 tiles, and of differences where they matter
    screened = False
    singular = False  # the slope diverges at r = 0
    # far out values fall as r^-decay, if their logs are not multiples of r^growth
    decay = 0.0
    # values at h / squaring_ratio are the squares of those at h: grids are cheap
    squaring_ratio: float | None = None
    degrees_of_freedom = np.inf
    on_sphere = False  # it is normalised over the unit sphere, not over space

    @property
    def growth(self) -> int:
        """The power of r that logs of values far out are multiples of; 0 for none."""
        return 0

    def log_volume(self, n_features: int, h: Any) -> Any:
        """Return the log of the integral of ``k(r / h)`` over all space."""
        return self.log_normalizer(n_features) + n_features * np.log(h)

    def largest_bandwidth(self, n_features: int) -> float:
        """Return the bandwidth beyond which kernels are no wider; infinite in space."""
        return np.inf

    def bandwidth_at(self, mean_sq: float, n_features: int) -> float:
        """Return the bandwidth of a mean squared distance to the nearest point.

        The kernel's variance is that mean for each feature.
        """
        return float(np.sqrt(mean_sq / n_features / self.variance(n_features)))

    def log_profile(self, sq: FloatArray, h: float) -> FloatArray:
        """Return ``log k(r / h)`` at squared distances, (n,)."""
        energy = self.energy(sq[:, None].copy())
        lowest = energy[:, 0].copy()
        values = self.values(self.shift(energy, lowest), h, energy, lowest)[:, 0]
        with np.errstate(divide="ignore"):
            return np.log(values) + self.log_peak(lowest, np.array([h]))[:, 0]

    @abc.abstractmethod
    def log_normalizer(self, n_features: int) -> float:
        """Return ``log Z_d``."""

    @abc.abstractmethod
    def variance(self, n_features: int) -> float:
        """Return the variance of a coordinate of the kernel at ``h = 1``."""

    def energy(self, sq: AnyTile) -> AnyTile:
        """Return the energies, in place; by default they are the squared distances."""
        return sq

    def shift(self, energy: AnyTile, lowest: FloatArray) -> AnyTile:
        """Return ``lowest - energy``, in place; compact kernels need no shift."""
        return namespace(energy).subtract(column(lowest, energy), energy, out=energy)

    @abc.abstractmethod
    def values(self, shifted: AnyTile, h: Any, out: AnyTile, lowest: Any) -> AnyTile:
        """Return the profile, relative to its value at the energy ``lowest``.

        ``shifted`` is what :meth:`shift` returned for ``lowest``; ``out`` is overwritten.
        """

    @abc.abstractmethod
    def log_peak(self, lowest: FloatArray, bandwidths: FloatArray) -> FloatArray:
        """Return the logs of what ``values`` are relative to, (n_rows, n_bandwidths)."""

    def product_terms(self, lowest: FloatArray, h: float) -> tuple:
        """Return rate and reference, by row, of a product that is enough.

        :meth:`values_from_product` takes the least steps from ``rate (reference - sq)``
        to what :meth:`values` gives. Last comes the product of a pair that is left out.
        For affine kernels only.
        """
        raise TypeError(f"kernel {self.name!r} is not affine")

    def values_from_product(self, product: AnyTile) -> AnyTile:
        """Return values from ``rate (reference - sq)``; see :meth:`product_terms`."""
        raise TypeError(f"kernel {self.name!r} is not affine")

    def values_about(self, product: AnyTile, extreme: AnyTile, factor: Any) -> AnyTile:
        """Return values relative to that at the extreme of each row, in place.

        ``factor product`` is as :meth:`values_from_product` takes it; ``extreme`` is the
        product of the nearest pair.
        """
        raise TypeError(f"kernel {self.name!r} is not affine")

    @abc.abstractmethod
    def slopes(self, energy: AnyTile, values: AnyTile, h: float) -> AnyTile:
        """Return ``g`` in ``grad K = rate g (y - x)``, scaled as ``values``."""

    def slope_rate(self, h: float) -> float:
        """Return the rate that slopes are multiplied by."""
        return 1.0 / h**2

    @abc.abstractmethod
    def radii(self, n_features: int, size: int, rng: Any) -> FloatArray:
        """Return radii of random draws at ``h = 1``, of shape (size,)."""

    def lengths(self, n_features: int, h: float, size: int, rng: Any) -> FloatArray:
        """Return lengths of random steps from the centre of a kernel, (size,)."""
        return h * self.radii(n_features, size, rng)

    @abc.abstractmethod
    def reach(self, nearest_sq: FloatArray, margin: float, h: float) -> FloatArray:
        """Return squared distances from which on a pair adds next to nothing.

        That is less than ``exp(-margin)`` of what the nearest pair of the row adds.
        """

    @abc.abstractmethod
    def suspect_rows(self, nearest_sq, delta, bandwidths, tol) -> np.ndarray:
        """Return the rows in which an error ``delta`` of ``sq`` may matter."""

    def suspect_pairs(self, sq, nearest_sq, delta, bandwidths, tol, margin) -> AnyTile:
        """Return the pairs of those rows in which it does.

        By default these are the pairs in reach, or, where errors of logs of values are
        known to be small, those that are so near that errors matter: what all others
        add is wrong by less than ``tol`` of the sum.
        """
        errors = self.log_errors(nearest_sq, delta, np.min(bandwidths))
        if errors is not None:
            margin = margin + np.log(np.expm1(np.clip(errors, TINY, LOG_TWO)))
        reach = self.reach(nearest_sq + delta, margin, np.max(bandwidths))
        # rounded to the dtype of the tile, which compares faster
        return sq <= column(ROUNDED_UP * (reach + 2.0 * delta), sq)

    def log_errors(self, nearest_sq, delta, h) -> FloatArray | None:
        """Return bounds on errors of logs of values at squared distances, by row.

        These are wrong by ``delta`` at most, and none is below ``nearest_sq``. None for
        kernels without a bound.
        """
        return None

    def screened_errors(self, nearest_sq, delta, h, eps, margin) -> FloatArray:
        """Return bounds on errors of logs of weighted values that a tile has, by row.

        The tile has a precision of ``eps``, and errors ``delta`` of squared distances,
        none of which is below ``nearest_sq``. Values are those of :meth:`values`, down to
        ``exp(-margin)``. Only for kernels that are ``screened``.
        """
        raise TypeError(f"kernel {self.name!r} is not screened")

    def at_distances(self, nearest_sq: FloatArray, h: float) -> tuple:
        """Return squared distances that local laws are fitted to, and their kernel.

        They are those of a tile, unless its values are not of distances.
        """
        return nearest_sq, self

    @abc.abstractmethod
    def thresholds(self, law: Any, nearest_sq: FloatArray) -> tuple:
        """Return ``h_g`` and ``h_clt``, where the regimes meet, for each query."""

    @abc.abstractmethod
    def tail_index(self, h: float, law: Any) -> FloatArray:
        """Return the index of the power-law tail of the kernel's values, by query."""

    def scaled_distance(self, log_factors: FloatArray, h: float) -> tuple:
        """Return scaled distances that make values ``exp(log_factors)`` times larger.

        At ``sq_factor * sq + sq_offset`` the profile is so many times that at ``sq``, up
        to a constant, with what is returned. For "gaussian" and "student" only.
        """
        raise TypeError(f"kernel {self.name!r} has no scaled distance")


class ExponentialFamily(Kernel):
    """Profiles ``exp(-(r/h)^p / p)``, of which values span thousands of nats."""

    power: int

    @property
    def growth(self):
        """The power of r that logs of values far out are multiples of."""
        return self.power

    def rate(self, h):
        """Return what energies are multiplied by in the exponent."""
        return 1.0 / (self.power * h**self.power)

    def values(self, shifted, h, out, lowest):
        xp = namespace(out)
        rate = np.minimum(self.rate(h), xp.finfo(out.dtype).max)
        out = xp.multiply(shifted, number(rate, out), out=out)
        return xp.exp(out, out=out)

    def log_peak(self, lowest, bandwidths):
        rate = beside(np.minimum(self.rate(bandwidths), np.finfo(float).max), lowest)
        with np.errstate(over="ignore"):  # below the least float is -inf
            return -(lowest[:, None] * rate)

    def thresholds(self, law, nearest_sq):
        """Return the bandwidths at which the tail index is 1 and 2, by query.

        The number of points whose value is above ``v`` falls as ``v^-mu``. Where one
        point is expected, ``Lambda ~ r^m`` and ``log v = -(r / h)^p / p`` make
        ``mu = m (h / r)^p``.
        """
        radius, m = np.sqrt(law.squared_distance(1.0)), law.dimension(1.0)
        h_g = radius / m ** (1.0 / self.power)
        return h_g, 2.0 ** (1.0 / self.power) * h_g

    def tail_index(self, h, law):
        h_g, _ = self.thresholds(law, None)
        with np.errstate(divide="ignore"):  # h_g is 0 where there are many duplicates
            return (h / h_g) ** self.power

    def reach(self, nearest_sq, margin, h):
        lowest = self.energy(nearest_sq.copy())
        with np.errstate(over="ignore"):
            energy = lowest + margin * self.power * h**self.power
            return np.maximum(energy, 0.0) ** (2.0 / self.power)


class Gaussian(ExponentialFamily):
    """``k(r) = exp(-r^2 / 2)``."""

    name = "gaussian"
    power = 2
    affine = screened = True
    squaring_ratio = np.sqrt(2.0)

    def log_normalizer(self, n_features):
        return 0.5 * n_features * np.log(2.0 * np.pi)

    def variance(self, n_features):
        return 1.0

    def product_terms(self, lowest, h):
        return self.rate(h), lowest, -np.inf

    def values_from_product(self, product):
        return namespace(product).exp(product, out=product)

    def values_about(self, product, extreme, factor):
        product -= column(finite_or_zero(extreme), product)
        product *= factor
        return self.values_from_product(product)

    def screened_errors(self, nearest_sq, delta, h, eps, margin):
        # three roundings of the exponent; one of exp, which takes two and a half, one of
        # the weight and one of the product with it
        return self.log_errors(nearest_sq, delta, h) + eps * (2.0 * margin + 4.0)

    def log_errors(self, nearest_sq, delta, h):
        return self.rate(h) * delta

    def slopes(self, energy, values, h):
        return values

    def radii(self, n_features, size, rng):
        return np.sqrt(rng.chisquare(n_features, size=size))

    def scaled_distance(self, log_factors, h):
        return np.ones_like(log_factors), -2.0 * h**2 * log_factors

    def suspect_rows(self, nearest_sq, delta, bandwidths, tol):
        return ~(delta <= 2.0 * tol * np.min(bandwidths) ** 2)


class Exponential(ExponentialFamily):
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
        return root(sq)

    def slopes(self, energy, values, h):
        return divide_by_radius(values, energy / number(h, energy))

    def radii(self, n_features, size, rng):
        return rng.gamma(n_features, size=size)

    def suspect_rows(self, nearest_sq, delta, bandwidths, tol):
        return ~(delta <= root_resolution(nearest_sq, delta, np.min(bandwidths), tol))

    def suspect_pairs(self, sq, nearest_sq, delta, bandwidths, tol, margin):
        reach = self.reach(nearest_sq + delta, margin, np.max(bandwidths))
        with np.errstate(over="ignore"):
            blurred = (delta / (2.0 * tol * np.min(bandwidths))) ** 2
        return sq <= beside(np.minimum(reach, blurred) + 2.0 * delta, sq)[:, None]


def log_ball_volume(n_features: int) -> float:
    """Return the log volume of the unit ball."""
    return 0.5 * n_features * np.log(np.pi) - gammaln(0.5 * n_features + 1.0)


def log_sphere_area(n_features: int) -> float:
    """Return the log surface of the unit ball."""
    return np.log(n_features) + log_ball_volume(n_features)


def root(sq: AnyTile) -> AnyTile:
    """Return the square root, in place; rounding may have left ``sq`` just below zero."""
    xp = namespace(sq)
    return xp.sqrt(xp.abs(sq, out=sq), out=sq)


def divide_by_radius(values: AnyTile, radius: AnyTile, at_zero: float = 0.0) -> AnyTile:
    """Return ``values / radius``, and ``at_zero`` at 0, where no gradient may exist."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return namespace(values).where(radius == 0.0, at_zero, values / radius)


def root_resolution(nearest_sq: Any, delta: Any, h: float, tol: float) -> FloatArray:
    """Return the error of ``r^2`` that moves ``r`` by ``tol h`` at the nearest point."""
    return 2.0 * tol * h * np.sqrt(np.maximum(nearest_sq - delta, 0.0))
