"""Kernels of the space around a sphere, projected to it along rays from its centre.

If ``z`` follows a density ``f`` in the space, ``z / |z|`` has on the unit sphere the
density ``int_0^inf f(r x) r^(d-1) dr`` with respect to surface measure. For one kernel
about ``c`` it depends on ``c`` by ``|c|`` and ``x.c`` alone, and has no closed form. What
is used is Laplace's method in ``log r``, about the radius where the integrand is
largest, times a correction that depends on the curvature there alone. The correction is
made from exact integrals. With it values are right to 4e-10 nats from half a degree of
freedom on, and to 1e-6 below; or to 1e-11 of their size, where that is more.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from scipy.interpolate import make_interp_spline
from scipy.special import expit

from skhdkde._kernels.integrals import log_integral
from skhdkde._kernels.kernel import Gaussian, Kernel
from skhdkde._kernels.student import SERIES_FROM, Student
from skhdkde._utils.arrays import beside, in_dtype_of, namespace
from skhdkde._utils.typing import AnyTile, FloatArray

# Error of the correction in nats in float64, and in float32; degree of a polynomial that
# costs less than a table, and size of the table.
TOL, TOL_FLOAT32, LARGEST_DEGREE, TABLE_SIZE = 1e-10, 2e-5, 16, 2**16
# Places at which the correction is computed: the share there is 1 / (1 + exp(2 v)).
N_NODES, FARTHEST_NODE = 640, 12.0
# For the Gaussian kernel, in the place of d / (nu + d): values are the same.
GAUSSIAN = 1e-100
# Logs of radii beyond which only the leading power is left.
LARGEST_LOG = 150.0
# Square of the factor by which rounding errors of the best radius may grow.
LARGEST_LOSS = 1e4
# Share of the pairs that matter up to which these are picked out, and how many nats the
# width of a peak and the correction are at most.
FEW, LARGEST_FACTOR = 0.25, 20.0


class Projected(Gaussian):
    """A Gaussian or Student kernel projected to the unit sphere.

    It takes *energies* for squared distances: by how many nats a log value is below that
    of a typical pair.

    Parameters
    ----------
    kernel : Kernel
        "gaussian" or "student", in the space around the sphere.
    n_features : int
        Dimension of that space.
    """

    affine = False

    def rate(self, h):
        return np.ones_like(h, dtype=np.float64)

    def values(self, shifted, h, out, lowest):
        return namespace(out).exp(shifted, out=out)

    def scaled_distance(self, log_factors, h):
        return np.ones_like(log_factors), -log_factors

    def __init__(self, kernel: Kernel, n_features: int):
        self.kernel, self.n_features = kernel, n_features
        self.name = kernel.name
        self.degrees_of_freedom = kernel.degrees_of_freedom
        nu, d = self.degrees_of_freedom, n_features
        # what decides whether float32 is enough; and the least curvature
        self.exponent = max(float(d), getattr(kernel, "exponent", 0.0))
        self.least_curvature = _least_curvature(d, nu)

    def log_normalizer(self, n_features):
        return self.kernel.log_normalizer(n_features)

    def variance(self, n_features):
        return self.kernel.variance(n_features)

    def radii(self, n_features, size, rng):
        return self.kernel.radii(n_features, size, rng)

    def reach(self, nearest_sq, margin, h):
        return np.full_like(nearest_sq, np.inf)

    def suspect_rows(self, nearest_sq, delta, bandwidths, tol):
        return self.kernel.suspect_rows(nearest_sq, delta, bandwidths, tol)

    def suspect_pairs(self, sq, nearest_sq, delta, bandwidths, tol, margin):
        return namespace(sq).ones_like(sq, dtype=bool)

    def at_distances(self, nearest_sq, h):
        """Return distances in space at which a kernel has the values of energies.

        Numbers of points grow with a power of these, not of energies.
        """
        nu, d = self.degrees_of_freedom, self.n_features
        if np.isinf(nu):
            return 2.0 * h**2 * nearest_sq, self.kernel
        logs = 2.0 * nearest_sq / (nu + d - 1.0)
        return nu * h**2 * np.expm1(np.minimum(logs, LARGEST_LOG)), Student(nu, d - 1)

    @property
    def raised(self) -> Projected:
        """The kernel with one more power of the radius in the integrand."""
        nu = self.degrees_of_freedom
        kernel = self.kernel
        if np.isfinite(nu):
            kernel = Student(nu + 1.0, self.n_features + 1)
        return Projected(kernel, self.n_features + 1)

    def log_values(
        self,
        sq: AnyTile,
        lack: AnyTile,
        radius: float,
        h: Any,
        margin: float | None = None,
    ) -> AnyTile:
        """Return logs of ``int r^(d-1) k(|r x - c| / h) dr``, less ``d log radius``.

        Parameters
        ----------
        sq : array of shape (n_rows, n_centers)
            Squared distances ``|radius x - c|^2`` for unit vectors ``x``.
        lack : array of shape (n_centers,)
            ``radius^2 - |c|^2``; given so that pairs that are near lose no digits.
        radius : float
        h : float or array of shape (n_centers,)
        margin : float, default=None
            What is so many nats below the largest of its row may be anything that is.
        """
        logs, curvature = self._peaks(sq, lack, radius, h)
        if margin is None or not isinstance(logs, np.ndarray):
            return self._finish(logs, curvature)
        least = logs.max(axis=1, keepdims=True) - (margin + LARGEST_FACTOR)
        large = np.flatnonzero(logs >= least)
        if len(large) > FEW * logs.size:
            return self._finish(logs, curvature)
        flat = logs.reshape(-1)
        flat[large] = self._finish(flat[large], curvature.reshape(-1)[large])
        return logs

    def _peaks(self, sq, lack, radius, h):
        """Return logs of the integrands at their largest, and curvatures there."""
        xp, nu = namespace(sq), self.degrees_of_freedom
        gap = sq + lack  # of the radius to the inner product with x
        gap *= 0.5 / radius
        best = self._best_radius(gap, lack, radius, h)
        step = best - radius
        gap *= 2.0
        gap += step
        gap *= step
        gap += sq
        distance_sq = xp.clip(gap, 0.0, None, out=gap)  # rounding
        best *= 1.0 / radius
        logs = xp.log(best)
        logs *= self.n_features
        best *= best
        if np.isinf(nu):
            best *= (radius / h) ** 2
            best += self.n_features
            distance_sq *= 0.5 / h**2
            logs -= distance_sq
            return logs, best
        return logs, self._add_tail(logs, best, distance_sq, radius, h)

    def _add_tail(self, logs, best_sq, distance_sq, radius, h):
        """Add logs of a Student kernel to ``logs``; return curvatures."""
        nu, d = self.degrees_of_freedom, self.n_features
        xp, exponent = namespace(logs), 0.5 * (nu + d)
        core_sq, grown = nu * h**2, distance_sq
        grown *= 1.0 / core_sq
        long_tail = exponent < SERIES_FROM
        tail = None if long_tail else xp.log1p(grown)
        grown += 1.0
        curvature = best_sq
        curvature *= (nu + d) * radius**2 / core_sq
        curvature /= grown
        curvature += d * (nu - d) / (nu + d)
        tail = xp.log(grown, out=grown) if tail is None else tail
        tail *= exponent
        logs -= tail
        return curvature

    def _finish(self, logs, curvature):
        """Return logs with the width of the peak, and the correction."""
        xp = namespace(logs)
        share = self.least_curvature / curvature
        curvature *= 0.5 / np.pi
        width = xp.log(curvature, out=curvature)
        width *= 0.5
        logs -= width
        logs += self.correction(share)
        return logs

    def _best_radius(self, gap, lack, radius, h):
        """Return the radius at which the integrand in ``log r`` is largest.

        It is the positive solution of a quadratic, of which the other one is negative.
        Errors of it are felt in their squares. So one of two formulas serves, unless
        nearly all digits of it might cancel.
        """
        xp, nu, d = namespace(gap), self.degrees_of_freedom, self.n_features
        center_sq = radius**2 - lack
        if np.isinf(nu):
            rate, product = 0.5, d * h**2 + 0.0 * lack
        else:
            rate, product = 0.5 * (nu - d) / nu, center_sq * (d / nu) + d * h**2
        half = radius - gap
        half *= rate
        root = half * half
        root += product
        root = xp.sqrt(root, out=root)
        steep = rate**2 * center_sq > LARGEST_LOSS * product
        if bool(steep.any()):
            ahead = half > 0.0
            return xp.where(ahead, root + half, product / (root + abs(half)))
        if rate > 0.0:
            root += half
            return root
        root -= half
        return xp.divide(product, root, out=root)

    @property
    def correction(self) -> Correction:
        """What exact integrals add to Laplace's method."""
        return _correction(self.n_features, self.degrees_of_freedom)

    def typical(self, radius: float, h: float) -> float:
        """Return the log value for ``|c| = radius`` in the direction of ``c``."""
        value = self.log_values(np.zeros((1, 1)), np.zeros(1), radius, h)
        return float(value[0, 0])

    def slopes_of(self, sq: AnyTile, lack: AnyTile, radius: float, h: Any) -> AnyTile:
        """Return derivatives of log values by ``x.c``, times ``h^2 / radius``.

        They are 1 where the integrand is about ``radius``, for a Gaussian kernel.
        Parameters are those of :meth:`log_values`.
        """
        nu = self.degrees_of_freedom
        factor, same_core = 1.0, h
        if np.isfinite(nu):
            factor = (nu + self.n_features) / nu
            same_core = h * np.sqrt(nu / (nu + 1.0))
        more = self.raised.log_values(sq, lack, radius, same_core)
        more -= self.log_values(sq, lack, radius, h)
        return factor * namespace(sq).exp(more)


class Correction:
    """A function of the share of the least curvature, between 0 and 1.

    It is a polynomial where one of low degree is good enough, and else interpolated in
    the root of the share.

    Parameters
    ----------
    places, values : ndarray of shape (n_nodes,)
        Places ``v``, ascending by equal steps, where the share is ``1 / (1 + exp(2 v))``,
        and the logs there.
    """

    def __init__(self, places: FloatArray, values: FloatArray):
        shares = expit(-2.0 * places)
        self._polynomial = _polynomial(shares, values, TOL)
        self._short = _polynomial(shares, values, TOL_FLOAT32)
        self._nodes = places, values

    @functools.cached_property
    def _tables(self):
        """Values at equidistant roots of the share, and steps from each to the next."""
        roots, (places, values) = np.linspace(0.0, 1.0, TABLE_SIZE), self._nodes
        with np.errstate(divide="ignore"):
            at = -np.log(roots) + 0.5 * np.log1p(-(roots**2))
        spline = make_interp_spline(places, values, k=5)
        table = spline(np.clip(at, places[0], places[-1]))
        return table, np.diff(table)

    def __call__(self, share: AnyTile) -> AnyTile:
        """Return the corrections; ``share`` is overwritten."""
        single = "float32" in str(share.dtype)
        coefficients = self._short if single else self._polynomial
        if coefficients is None:
            return self._interpolated(share)
        share *= 2.0
        share -= 1.0
        total = share * coefficients[-1]
        for c in coefficients[-2:0:-1]:
            total += c
            total *= share
        total += coefficients[0]
        return total

    def _interpolated(self, share):
        xp, (table, steps) = namespace(share), self._tables
        place = xp.sqrt(share, out=share)
        place *= TABLE_SIZE - 1
        if xp is np:
            left = place.astype(np.intp)
            place -= left
            place *= np.take(steps, left, mode="clip")
            place += np.take(table, left, mode="clip")
            return place
        table, steps = (
            in_dtype_of(share, beside(values, share)) for values in (table, steps)
        )
        left = xp.clip(place.long(), None, TABLE_SIZE - 2)
        return table[left] + (place - left) * steps[left]


def _polynomial(shares, values, tol):
    """Return coefficients of the polynomial of least degree, None if that is too high."""
    for degree in range(1, LARGEST_DEGREE + 1):
        fitted = chebyshev.chebfit(2.0 * shares - 1.0, values, degree)
        error = chebyshev.chebval(2.0 * shares - 1.0, fitted) - values
        if np.abs(error).max() <= tol:
            return chebyshev.cheb2poly(fitted).tolist()
    return None


@functools.lru_cache(maxsize=64)
def _correction(n_features: int, nu: float) -> Correction:
    """Return the correction for a number of features and of degrees of freedom."""
    p = max(n_features / (nu + n_features), GAUSSIAN)
    places, values = np.linspace(-FARTHEST_NODE, FARTHEST_NODE, N_NODES), []
    for v in places:
        curvature, log_integrand = _integrand(v, n_features, p)
        width, tail = 1.0 / np.sqrt(curvature), 60.0 * p / (n_features * (1.0 - p))
        ends = np.array([-60.0 * width - 60.0 / n_features, 60.0 * width + tail])
        exact = log_integral(
            functools.partial(_in_sinh, log_integrand, width),
            *np.arcsinh(ends / width),
        )
        values.append(exact - 0.5 * np.log(2.0 * np.pi / curvature))
    return Correction(places, np.array(values))


def _least_curvature(n_features, nu):
    """Return what the curvature tends to for centres opposite of the query."""
    return float(n_features if np.isinf(nu) else n_features * nu / (n_features + nu))


def _integrand(v, d, p):
    """Return the curvature at its peak of a log integrand, and this relative to it.

    It is by the log ``t`` of the radius, relative to the best. With ``c`` along the query
    by ``w``, in units in which the square of that across it plus ``nu h^2`` is 1, and ``p
    = d / (nu + d)``, the place ``v`` is where ``w = 2 sqrt(p (1 - p)) sinh(v)``.
    """
    across = p * (1.0 - p) * np.exp(2.0 * v)

    def log_integrand(t):
        near = np.minimum(t, LARGEST_LOG)
        step = np.expm1(near)
        grown = np.log1p(p * step * (2.0 + p * step) + across * step**2)
        return d * t - 0.5 * d / p * (grown + 2.0 * (t - near))

    return d * (1.0 - p) * (1.0 + np.exp(2.0 * v)), log_integrand


def _in_sinh(log_integrand, width, u):
    """Return the log integrand by ``u``, at ``width sinh(u)``: far tails are near."""
    return log_integrand(width * np.sinh(u)) + np.log(width * np.cosh(u))
