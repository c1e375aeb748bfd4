"""The four kernels whose profiles vanish from the bandwidth on."""

import numpy as np

from skhdkde._kernels.kernel import (
    Kernel,
    divide_by_radius,
    log_ball_volume,
    log_sphere_area,
    root,
)
from skhdkde._utils.arrays import beside, namespace, number

# Error of squared distances, relative to h^2, that the curve of a compact kernel over
# many bandwidths may have.
SHARP_CURVE = 1e-9
# Points in reach of a compact kernel from which on their sum is nearly normal.
N_FOR_CLT = 30


def _cosine_moment(m):
    """Return the integral of ``r^(m - 1) cos(pi r / 2)`` over [0, 1], for any ``m >= 1``.

    With ``s = 1 - r`` the cosine is a sine, whose power series integrates term by
    term against ``(1 - s)^(m - 1)`` to Beta functions. From one term to the next
    the size falls by at least ``(pi/2)^2 / ((m + 2) (m + 3)) <= 0.21``, so no
    digits cancel, as they would in an integration by parts.
    """
    term = 0.5 * np.pi / (m * (m + 1.0))
    total, k = 0.0, 0
    while abs(term) > 1e-18 * abs(total):
        total += term
        k += 1
        term *= -((0.5 * np.pi) ** 2) / ((m + 2.0 * k) * (m + 2.0 * k + 1.0))
    return total


class CompactKernel(Kernel):
    """Profiles that vanish for ``r >= h``; they lie in [0, 1] and need no shift."""

    compact = True

    def shift(self, energy, lowest):
        return energy

    def log_peak(self, lowest, bandwidths):
        return (
            0.0 * beside(bandwidths, lowest)
            + namespace(lowest).zeros_like(lowest)[:, None]
        )

    def thresholds(self, law, nearest_sq):
        """Return the distances of the second and of the 30th nearest point, by query.

        Values are bounded: there is no tail, and the number of points in reach
        decides. One point is not a sum, and 30 are enough for its central limit.
        """
        far = np.full(len(nearest_sq), np.inf)
        return tuple(
            np.sqrt(nearest_sq[:, k - 1]) if k <= nearest_sq.shape[1] else far
            for k in (2, N_FOR_CLT)
        )

    def tail_index(self, h, law):
        return np.full_like(law.outer_sq, np.inf)

    def reach(self, nearest_sq, margin, h):
        return np.full_like(nearest_sq, h**2)

    def suspect_rows(self, nearest_sq, delta, bandwidths, tol):
        if len(bandwidths) > 1:
            # A curve averages over queries: single pairs at a rim do not matter to it,
            # only errors as large as the distances.
            return ~(delta <= SHARP_CURVE * np.min(bandwidths) ** 2)
        return ~(nearest_sq > np.max(bandwidths) ** 2 + delta)

    def suspect_pairs(self, sq, nearest_sq, delta, bandwidths, tol, margin):
        """Return the pairs at the rim, where the profile is small or jumps.

        Where it is singular, those at the centre too.
        """
        width = beside(delta / tol, sq)[:, None]
        suspect = abs(sq - bandwidths[0] ** 2) <= width
        for h in bandwidths[1:]:
            suspect |= abs(sq - h**2) <= width
        if self.singular:
            blurred = (delta / (2.0 * tol * np.min(bandwidths))) ** 2
            suspect |= sq <= beside(blurred, sq)[:, None]
        return suspect


class Tophat(CompactKernel):
    """``k(r) = 1`` for ``r < 1``."""

    name = "tophat"

    def log_normalizer(self, n_features):
        return log_ball_volume(n_features)

    def variance(self, n_features):
        return 1.0 / (n_features + 2.0)

    def values(self, shifted, h, out, lowest):
        return namespace(out).less(shifted, number(h**2, shifted), out=out)

    def slopes(self, energy, values, h):
        return namespace(values).zeros_like(values)

    def radii(self, n_features, size, rng):
        return rng.uniform(size=size) ** (1.0 / n_features)


class Epanechnikov(CompactKernel):
    """``k(r) = 1 - r^2`` for ``r < 1``."""

    name = "epanechnikov"

    def log_normalizer(self, n_features):
        return log_ball_volume(n_features) + np.log(2.0 / (n_features + 2.0))

    def variance(self, n_features):
        return 1.0 / (n_features + 4.0)

    def values(self, shifted, h, out, lowest):
        return _ramp(shifted, h**2, out)

    def slopes(self, energy, values, h):
        return 2.0 * namespace(values).sign(values)

    def radii(self, n_features, size, rng):
        return np.sqrt(rng.beta(0.5 * n_features, 2.0, size=size))


class Linear(CompactKernel):
    """``k(r) = 1 - r`` for ``r < 1``."""

    name = "linear"
    singular = True

    def log_normalizer(self, n_features):
        return log_ball_volume(n_features) - np.log(n_features + 1.0)

    def variance(self, n_features):
        return (n_features + 1.0) / ((n_features + 2.0) * (n_features + 3.0))

    def energy(self, sq):
        return root(sq)

    def values(self, shifted, h, out, lowest):
        return _ramp(shifted, h, out)

    def slopes(self, energy, values, h):
        inside = namespace(values).sign(values)
        return divide_by_radius(inside, energy / number(h, energy))

    def radii(self, n_features, size, rng):
        return rng.beta(n_features, 2.0, size=size)


class Cosine(CompactKernel):
    """``k(r) = cos(pi r / 2)`` for ``r < 1``."""

    name = "cosine"

    def log_normalizer(self, n_features):
        return log_sphere_area(n_features) + np.log(_cosine_moment(n_features))

    def variance(self, n_features):
        moments = _cosine_moment(n_features + 2), _cosine_moment(n_features)
        return moments[0] / moments[1] / n_features

    def energy(self, sq):
        return root(sq)

    def values(self, shifted, h, out, lowest):
        # cos(pi r / 2) as sin(pi (1 - r) / 2): full relative precision at the rim
        out = _ramp(shifted, h, out, height=0.5 * np.pi)
        return namespace(out).sin(out, out=out)

    def slopes(self, energy, values, h):
        xp, radius = namespace(values), energy / number(h, energy)
        slopes = 0.5 * np.pi * xp.sin(0.5 * np.pi * radius)
        return divide_by_radius(slopes, radius, (0.5 * np.pi) ** 2) * xp.sign(values)

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


def _ramp(energy, rim, out, height=1.0):
    """Return ``height (1 - energy / rim)``, 0 beyond the rim, in ``out``."""
    xp = namespace(out)
    out = xp.multiply(energy, number(-height / rim, out), out=out)
    out += height
    return xp.clip(out, 0.0, None, out=out)
