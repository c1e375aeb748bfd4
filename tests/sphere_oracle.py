"""Densities on the unit sphere by integrals; shares no code with the package.

All integrals are trapezoidal sums in ``u``, with the integrand at ``peak + width
sinh(u)``, which falls off double exponentially: right to rounding.
"""

import functools

import mpmath
import numpy as np
from oracles import PROFILES, log_mean, squared_distances
from structured_oracle import log_kernel

COMPACT = ("tophat", "epanechnikov", "linear", "cosine")
LOWEST = mpmath.mpf(-10) ** 9


# In mpmath.


def log_integral(logf, low, high, digits=30):
    """Log of the integral of ``exp(logf)``, which has one maximum, from low to high."""
    with mpmath.workdps(digits):
        low, high = mpmath.mpf(low), mpmath.mpf(high)
        a, b = low, high
        for _ in range(150):
            p, q = a + (b - a) * mpmath.mpf("0.382"), a + (b - a) * mpmath.mpf("0.618")
            a, b = (p, b) if logf(p) < logf(q) else (a, q)
        peak = (a + b) / 2
        top = logf(peak)
        pieces = [_half_nat(logf, peak, top, end) for end in (low, high)]
        parts = [
            _one_side(logf, peak, end, width, top)
            for end, width in zip((low, high), pieces, strict=True)
        ]
        return top + mpmath.log(sum(parts))


def _half_nat(logf, peak, top, end):
    """About how far from the peak it has fallen by half a nat, towards an end."""
    step = (end - peak) / 2
    while abs(step) > mpmath.mpf(10) ** -25 and logf(peak + step) < top - 0.5:
        step /= 2
    return step


def _one_side(logf, peak, end, width, top):
    """The integral from the peak to an end, by Gauss-Legendre on growing pieces."""
    if abs(end - peak) < mpmath.mpf(10) ** -25:
        return mpmath.mpf(0)
    edges, step = [peak], width
    while abs(edges[-1] - peak) < abs(end - peak):
        following = edges[-1] + step
        beyond = abs(following - peak) >= abs(end - peak)
        edges.append(end if beyond else following)
        step *= mpmath.mpf("1.5")
        if logf(edges[-1]) < top - 90:
            break
    return abs(mpmath.quad(lambda y: mpmath.exp(logf(y) - top), edges))


@functools.cache
def log_restricted_volume(kernel, d, h, nu=None):
    """Log of the integral over the sphere of a function of the chord, by the angle."""
    with mpmath.workdps(30):
        d, h = mpmath.mpf(d), mpmath.mpf(h)

        def log_profile(r):
            if kernel == "student":
                return -(nu + d - 1) / 2 * mpmath.log1p(r**2 / nu)
            if kernel in ("gaussian", "exponential"):
                return -(r**2) / 2 if kernel == "gaussian" else -r
            value = PROFILES[kernel](r)
            return mpmath.log(value) if value > 0 else LOWEST

        def logf(angle):
            sine = mpmath.sin(angle)
            if d > 2 and sine <= 0:
                return LOWEST
            along = (d - 2) * mpmath.log(sine) if d > 2 else mpmath.mpf(0)
            return along + log_profile(2 * mpmath.sin(angle / 2) / h)

        farthest = 2 * mpmath.asin(min(h / 2, 1)) if kernel in COMPACT else mpmath.pi
        half = (d - 1) / 2  # the surface of the sphere of one dimension less
        log_area = mpmath.log(2) + half * mpmath.log(mpmath.pi) - mpmath.loggamma(half)
        return float(log_area + log_integral(logf, 0, farthest))


def log_projected_value(d, nu, sq, gap, radius, h):
    """Log of ``int r^(d-1) k(|r x - c| / h) dr / radius^d``, by ``log(r / radius)``."""
    with mpmath.workdps(30):
        sq, gap, radius, h = map(mpmath.mpf, (sq, gap, radius, h))

        def logf(y):
            step = radius * mpmath.expm1(y)
            scaled = (step * (step + 2 * gap) + sq) / h**2
            if nu == np.inf:
                return d * y - scaled / 2
            return d * y - (mpmath.mpf(nu) + d) / 2 * mpmath.log1p(scaled / nu)

        return float(log_integral(logf, -250, 250))


# In extended precision, for all points at once.


def project(flat, X, leave_out=None):
    """Log density of ``z / |z|``, ``z`` from an ``Oracle`` of structured_oracle.py.

    ``leave_out`` are the points that queries are, if they are points.
    """
    d, w = flat.Y.shape[1], np.asarray(flat.weights, dtype=np.longdouble)
    result = []
    for i, x in enumerate(np.asarray(X, dtype=np.longdouble)):
        logs = _log_terms(flat, x, d) + np.log(w)
        total = w.sum()
        if leave_out is not None:
            logs[leave_out[i]] = -np.inf
            total -= w[leave_out[i]]
        top = logs.max()
        result.append(top + np.log(np.exp(logs - top).sum()) - np.log(total))
    return np.array(result, dtype=float)


def _log_terms(flat, x, d):
    """Logs of what each point adds at x."""
    quadratics, log_scales = [], []
    for j, (y, c) in enumerate(zip(flat.Y, flat.labels, strict=True)):
        mean, inverse = flat.means[c], flat.inverses[c].astype(np.longdouble)
        center = mean + flat.shrinkage * (y - mean)
        scale = flat.h * np.longdouble(flat.local[j])
        quadratics.append([x @ inverse @ x, x @ inverse @ center])
        quadratics[-1].append(center @ inverse @ center)
        quadratics[-1] = [q / scale**2 for q in quadratics[-1]]
        half_log_det = np.linalg.slogdet(flat.covariances[c])[1] / 2
        log_scales.append(-d * np.log(scale) - half_log_det)
    a, b, c = np.array(quadratics, dtype=np.longdouble).T

    def logf(y):
        r = np.exp(y)
        sq = np.maximum((r - b / a) ** 2 * a + (c - b**2 / a), 0)
        return d * y + log_kernel(flat.kernel, flat.nu, sq, d)

    return np.array(log_scales) + log_integrals(logf, len(a))


def log_integrals(logf, n):
    """Logs of n integrals of functions of one maximum, in extended precision."""
    low, high = np.full((2, n), np.longdouble(60))
    low = -low
    for _ in range(70):
        p, q = low + (high - low) * 0.382, low + (high - low) * 0.618
        left = logf(p) >= logf(q)
        low, high = np.where(left, low, p), np.where(left, q, high)
    peak = (low + high) / 2
    top, width = logf(peak), np.full(n, np.longdouble(10))
    for _ in range(60):
        wide = np.minimum(logf(peak + width), logf(peak - width)) < top - 0.5
        width = np.where(wide, width * 0.5, width)
    step = np.longdouble(0.1)
    total = 0
    for u in np.arange(-14, 14, step):
        y = peak + width * np.sinh(u)
        logs = np.where(abs(y) < 2500, logf(np.clip(y, -2500, 2500)) - top, -np.inf)
        total = total + np.exp(logs) * np.cosh(u)
    return top + np.log(total * step * width)


def restricted(X, Y, h, kernel, weights=None, leave_out=None, nu=None):
    """Log density of kernels restricted to the sphere, by direct sums."""
    weights = np.ones(len(Y)) if weights is None else np.asarray(weights)
    log_volume = log_restricted_volume(kernel, Y.shape[1], h, nu)
    result = []
    for i, x in enumerate(X):
        keep = np.ones(len(Y), dtype=bool)
        if leave_out is not None:
            keep[leave_out[i]] = False
        sq, w = squared_distances(x, Y[keep]), weights[keep].astype(np.longdouble)
        if kernel == "student":
            exponent = (nu + Y.shape[1] - 1) / 2
            logs = -exponent * np.log1p(sq / (nu * np.longdouble(h) ** 2))
            top = logs.max()
            result.append(top + np.log(np.sum(w * np.exp(logs - top)) / np.sum(w)))
        else:
            result.append(log_mean(kernel, sq, w, h))
    return (np.array(result) - log_volume).astype(float)


# Points.


def circle(n):
    """Equidistant points on the circle, the first at a random place, and the weight."""
    angle = 0.123 + 2.0 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angle), np.sin(angle)]), np.full(n, 2.0 * np.pi / n)


def sphere(n):
    """Nodes of a product rule on the sphere in three dimensions, and weights."""
    t, w = np.polynomial.legendre.leggauss(n)
    angle = 0.123 + np.pi * np.arange(2 * n) / n
    across = np.sqrt(1.0 - t**2)[:, None]
    X = [
        across * np.cos(angle),
        across * np.sin(angle),
        np.broadcast_to(t[:, None], (n, 2 * n)),
    ]
    return np.stack(X, axis=-1).reshape(-1, 3), np.repeat(w, 2 * n) * np.pi / n


def nodes(d, n):
    """Nodes of a rule on the sphere, and weights."""
    return circle(n) if d == 2 else sphere(n)


def unit(X):
    """Rows divided by their norms."""
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def tangents(X, seed):
    """A random unit vector orthogonal to each row."""
    steps = np.random.default_rng(seed).standard_normal(X.shape)
    return unit(steps - np.sum(steps * X, axis=1, keepdims=True) * X)


def along_geodesics(log_density, X, steps, h=1e-4):
    """Derivatives of a log density along great circles, by central differences."""

    def at(s):
        return log_density(unit(np.cos(s) * X + np.sin(s) * steps))

    return (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)


def von_mises_fisher(n, d, kappa, rng):
    """Random points about the first axis, by rejection of normal ones on cosines.

    The cosine is drawn by inverting its cumulative law on a fine grid.
    """
    angle = np.linspace(0.0, np.pi, 200_001)[1:-1]
    logs = (d - 2) * np.log(np.sin(angle)) + kappa * np.cos(angle)
    law = np.cumsum(np.exp(logs - logs.max()))
    drawn = np.interp(rng.uniform(size=n), law / law[-1], angle)
    across = unit(rng.standard_normal((n, d - 1)))
    return np.column_stack([np.cos(drawn), np.sin(drawn)[:, None] * across])


def log_area(d):
    """Log of the surface of the unit sphere."""
    half = mpmath.mpf(d) / 2
    return float(mpmath.log(2) + half * mpmath.log(mpmath.pi) - mpmath.loggamma(half))
