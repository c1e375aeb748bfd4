"""The seven kernels, each one small class.

A kernel is a profile of the distance, ``K(z) = k(|z|) / Z_d`` with ``k(0) = 1``,
and its normaliser ``Z_d``, the integral of ``k(|z|)`` over ``R^d``. At bandwidth
``h`` the density of one point is ``k(r / h) / (Z_d h^d)``.

Two families cover six of them; the seventh, student, has a power law for a tail.

*Exponential* profiles, ``k = exp(-(r/h)^p / p)`` with ``p = 2`` (gaussian) and
``p = 1`` (exponential), span thousands of nats in high dimension, so they are
evaluated relative to the nearest point of each query: ``shift`` subtracts from the
smallest *energy* ``r^p`` of a row and ``log_peak`` is what to add back.

*Compact* profiles (tophat, epanechnikov, linear, cosine) vanish for ``r >= h``
and lie in [0, 1]: they need no shift, and ``log_peak`` is zero.

What every kernel offers, for tiles ``sq`` of squared distances and ``h`` in the same
units. Tiles are numpy arrays, torch tensors or lazy tensors of KeOps, and the last
cannot be changed in place: what is returned counts.

================== =========================================================
``log_normalizer`` ``log Z_d``
``variance``       variance per coordinate of the kernel at ``h = 1``
``energy``         in place, squared distances -> what the profile depends on
``shift``          in place, the row's smallest energy minus each
``values``         shifted energies, and what they were shifted by -> profile,
                   relative to the row's largest
``log_peak``       log of the factor that ``values`` left out
``product_terms``  for energies that are squared distances: rate and reference by
                   row, for which ``values_from_product`` takes the least steps
                   from ``rate (reference - sq)`` to what ``values`` gives
``slopes``         ``g`` in ``grad K = g (y - x) / h^2``, scaled as ``values``
``radii``          radii of random draws at ``h = 1``
``reach``          squared distance from which on a pair adds less than
                   ``exp(-margin)`` of what the nearest one adds
``suspect_rows``   rows in which an error ``delta`` of ``sq`` may matter
``suspect_pairs``  the pairs of those rows in which it does
``thresholds``     ``h_g`` and ``h_clt``, where the regimes meet
``tail_index``     of the law of the kernel's values
``discount``       stretch and offset of squared distances that make a kernel's
                   values smaller by given factors (gaussian and student only)
================== =========================================================
"""

import numpy as np
from scipy.special import gammaln

from skhdkde._arrays import column, namespace, number
from skhdkde._student import Student

__all__ = ["KERNELS", "KERNEL_NAMES", "SHARP_CURVE", "make_kernel"]

# Error of squared distances, relative to h^2, that the curve of a compact kernel over
# many bandwidths may have.
SHARP_CURVE = 1e-9
# Points in reach of a compact kernel from which on their sum is nearly normal.
N_FOR_CLT = 30


def log_ball_volume(n_features):
    """Log volume of the unit ball in ``n_features`` dimensions."""
    return 0.5 * n_features * np.log(np.pi) - gammaln(0.5 * n_features + 1.0)


def log_sphere_area(n_features):
    """Log surface of the unit ball in ``n_features`` dimensions."""
    return np.log(n_features) + log_ball_volume(n_features)


def _cosine_moment(m):
    """Integral of ``r^(m - 1) cos(pi r / 2)`` over [0, 1], for any ``m >= 1``.

    With ``s = 1 - r`` the cosine is a sine, whose power series integrates term by
    term against ``(1 - s)^(m - 1)`` to Beta functions. From one term to the next
    the size falls by at least ``(pi/2)^2 / ((m + 2) (m + 3)) <= 0.21``, so no
    digits cancel at any ``m``. (The usual integration by parts loses them all
    from about 15 dimensions on.)
    """
    term = 0.5 * np.pi / (m * (m + 1.0))
    total, k = 0.0, 0
    while abs(term) > 1e-18 * abs(total):
        total += term
        k += 1
        term *= -((0.5 * np.pi) ** 2) / ((m + 2.0 * k) * (m + 2.0 * k + 1.0))
    return total


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


class _Compact:
    """Profiles that vanish for ``r >= h``: the numerics that four kernels share."""

    compact = True
    affine = False
    squaring_ratio = None
    singular = False

    def shift(self, energy, lowest):
        return energy

    def log_peak(self, lowest, bandwidths):
        return np.zeros((len(lowest), len(bandwidths)))

    def thresholds(self, law, nearest):
        """Distances of the second and of the 30th nearest point, per query.

        Values are bounded: there is no tail, and the number of points in reach
        decides. One point is not a sum, and 30 are enough for its central limit.
        """
        far = np.full(len(nearest), np.inf)
        return tuple(
            np.sqrt(nearest[:, k - 1]) if k <= nearest.shape[1] else far
            for k in (2, N_FOR_CLT)
        )

    def tail_index(self, h, law):
        return np.full_like(law.outer, np.inf)

    def reach(self, nearest, margin, h):
        return np.full_like(nearest, h**2)

    def suspect_rows(self, nearest, delta, bandwidths, tol):
        if len(bandwidths) > 1:
            # A curve averages over queries: single pairs at a rim do not matter to it,
            # only errors as large as the distances.
            return ~(delta <= SHARP_CURVE * np.min(bandwidths) ** 2)
        return ~(nearest > np.max(bandwidths) ** 2 + delta)

    def suspect_pairs(self, sq, nearest, delta, bandwidths, tol, margin):
        """Pairs at the rim, where the profile is small or jumps (and at the centre)."""
        suspect = np.zeros(sq.shape, dtype=bool)
        for h in bandwidths:
            suspect |= np.fabs(sq - h**2) <= (delta / tol)[:, None]
        if self.singular:
            suspect |= sq <= ((delta / (2.0 * tol * np.min(bandwidths))) ** 2)[:, None]
        return suspect


class Tophat(_Compact):
    """``k(r) = 1`` for ``r < 1``."""

    name = "tophat"

    def log_normalizer(self, n_features):
        return log_ball_volume(n_features)

    def variance(self, n_features):
        return 1.0 / (n_features + 2.0)

    def energy(self, sq):
        return sq

    def values(self, energy, h, out, lowest):
        return namespace(out).less(energy, number(h**2, energy), out=out)

    def slopes(self, energy, values, h):
        return namespace(values).zeros_like(values)

    def radii(self, n_features, size, rng):
        return rng.uniform(size=size) ** (1.0 / n_features)


class Epanechnikov(_Compact):
    """``k(r) = 1 - r^2`` for ``r < 1``."""

    name = "epanechnikov"

    def log_normalizer(self, n_features):
        return log_ball_volume(n_features) + np.log(2.0 / (n_features + 2.0))

    def variance(self, n_features):
        return 1.0 / (n_features + 4.0)

    def energy(self, sq):
        return sq

    def values(self, energy, h, out, lowest):
        xp = namespace(out)
        out = xp.multiply(energy, number(-1.0 / h**2, out), out=out)
        out += 1.0
        return xp.clip(out, 0.0, None, out=out)

    def slopes(self, energy, values, h):
        return 2.0 * namespace(values).sign(values)

    def radii(self, n_features, size, rng):
        return np.sqrt(rng.beta(0.5 * n_features, 2.0, size=size))


class Linear(_Compact):
    """``k(r) = 1 - r`` for ``r < 1``."""

    name = "linear"
    singular = True

    def log_normalizer(self, n_features):
        return log_ball_volume(n_features) - np.log(n_features + 1.0)

    def variance(self, n_features):
        return (n_features + 1.0) / ((n_features + 2.0) * (n_features + 3.0))

    def energy(self, sq):
        return _root(sq)

    def values(self, energy, h, out, lowest):
        xp = namespace(out)
        out = xp.multiply(energy, number(-1.0 / h, out), out=out)
        out += 1.0
        return xp.clip(out, 0.0, None, out=out)

    def slopes(self, energy, values, h):
        return _divide_by_radius(
            namespace(values).sign(values), energy / number(h, energy)
        )

    def radii(self, n_features, size, rng):
        return rng.beta(n_features, 2.0, size=size)


class Cosine(_Compact):
    """``k(r) = cos(pi r / 2)`` for ``r < 1``."""

    name = "cosine"

    def log_normalizer(self, n_features):
        return log_sphere_area(n_features) + np.log(_cosine_moment(n_features))

    def variance(self, n_features):
        moments = _cosine_moment(n_features + 2), _cosine_moment(n_features)
        return moments[0] / moments[1] / n_features

    def energy(self, sq):
        return _root(sq)

    def values(self, energy, h, out, lowest):
        # cos(pi r / 2) as sin(pi (1 - r) / 2): full relative precision at the rim
        xp = namespace(out)
        out = xp.multiply(energy, number(-0.5 * np.pi / h, out), out=out)
        out += 0.5 * np.pi
        out = xp.clip(out, 0.0, None, out=out)
        return xp.sin(out, out=out)

    def slopes(self, energy, values, h):
        xp, radius = namespace(values), energy / number(h, energy)
        slopes = 0.5 * np.pi * xp.sin(0.5 * np.pi * radius)
        return _divide_by_radius(slopes, radius, (0.5 * np.pi) ** 2) * xp.sign(values)

    def radii(self, n_features, size, rng):
        """Draw from ``r^(d-1) (1 - r)`` and accept with the ratio to the cosine."""
        radii = np.empty(size)
        todo = np.arange(size)
        while len(todo):
            draw = rng.beta(n_features, 2.0, size=len(todo))
            gap = np.maximum(1.0 - draw, np.finfo(float).tiny)
            ratio = np.sin(0.5 * np.pi * gap) / (0.5 * np.pi * gap)
            accept = rng.uniform(size=len(todo)) < ratio
            radii[todo[accept]] = draw[accept]
            todo = todo[~accept]
        return radii


def _root(sq):
    """Square root in place; rounding may have left ``sq`` a little below zero."""
    xp = namespace(sq)
    return xp.sqrt(xp.abs(sq, out=sq), out=sq)


def _divide_by_radius(values, radius, at_zero=0.0):
    """``values / radius``; ``at_zero``, where a gradient is undefined, it is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return namespace(values).where(radius == 0.0, at_zero, values / radius)


def _root_resolution(nearest, delta, h, tol):
    """The error of ``r^2`` that moves ``r`` by ``tol h`` at the row's nearest point."""
    return 2.0 * tol * h * np.sqrt(np.maximum(nearest - delta, 0.0))


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Gaussian(),
        Tophat(),
        Epanechnikov(),
        Exponential(),
        Linear(),
        Cosine(),
    )
}

KERNEL_NAMES = (*KERNELS, "student")
# Degrees of freedom from which the t distribution is Gaussian to (d + r^2)^2 / 4e8 nats.
GAUSSIAN_DEGREES = 1e8


def make_kernel(name, n_features, degrees_of_freedom=np.inf):
    """The kernel of that name; student of very many degrees is gaussian."""
    if name != "student":
        return KERNELS[name]
    if degrees_of_freedom > GAUSSIAN_DEGREES:
        return KERNELS["gaussian"]
    return Student(degrees_of_freedom, n_features)
