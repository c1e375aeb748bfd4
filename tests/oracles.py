"""Reference values that share no code with the package.

Densities are direct sums in extended precision over differences of coordinates;
normalisers are mpmath integrals.
"""

import functools

import mpmath
import numpy as np

KERNEL_NAMES = (
    "gaussian",
    "tophat",
    "epanechnikov",
    "exponential",
    "linear",
    "cosine",
)

PROFILES = {
    "gaussian": lambda r: mpmath.exp(-(r**2) / 2),
    "tophat": lambda r: mpmath.mpf(1),
    "epanechnikov": lambda r: 1 - r**2,
    "exponential": lambda r: mpmath.exp(-r),
    "linear": lambda r: 1 - r,
    "cosine": lambda r: mpmath.cos(mpmath.pi * r / 2),
}


def reach(kernel):
    """Radius beyond which the profile is zero."""
    return mpmath.inf if kernel in ("gaussian", "exponential") else 1


@functools.cache
def log_normalizer(kernel, d):
    """Log of the integral of ``k(|z|)`` over ``R^d``, from closed forms in mpmath.

    The cosine's radial integral comes from its finite sum, by parts, with as many
    digits as that sum loses.
    """
    with mpmath.workdps(60):
        d = mpmath.mpf(d)
        log_area = mpmath.log(2) + d / 2 * mpmath.log(mpmath.pi) - mpmath.loggamma(d / 2)
        if kernel == "gaussian":
            return float(d / 2 * mpmath.log(2 * mpmath.pi))
        if kernel == "exponential":
            return float(log_area + mpmath.loggamma(d))
        if kernel == "cosine":
            return float(log_area + mpmath.log(_cosine_integral(int(d))))
        radial = {
            "tophat": 1 / d,
            "epanechnikov": 1 / d - 1 / (d + 2),
            "linear": 1 / d - 1 / (d + 1),
        }[kernel]
        return float(log_area + mpmath.log(radial))


def _cosine_integral(d):
    """Integral over [0, 1] of ``r^(d-1) cos(pi r / 2)`` by a hypergeometric function."""
    with mpmath.workdps(60):
        d = mpmath.mpf(d)
        argument = -(mpmath.pi**2) / 16
        series = mpmath.hyp1f2(d / 2, mpmath.mpf(1) / 2, d / 2 + 1, argument)
        return series / d


def profile(kernel, sq, h):
    """Profile values in extended precision from squared distances."""
    r = np.sqrt(sq) / np.longdouble(h)
    if kernel == "gaussian":
        return np.exp(-(r**2) / 2)
    if kernel == "exponential":
        return np.exp(-r)
    inside = sq < np.longdouble(h) ** 2
    pi = np.longdouble("3.14159265358979323846264338327950288")
    value = {
        "tophat": np.ones_like(r),
        "epanechnikov": 1 - r**2,
        "linear": 1 - r,
        "cosine": np.cos(pi / 2 * r),
    }[kernel]
    return np.where(inside, value, 0)


def squared_distances(x, Y):
    """From one query to all points, in extended precision."""
    difference = Y.astype(np.longdouble, copy=False) - x.astype(np.longdouble)
    return np.sum(np.square(difference, out=difference), axis=1)


def log_density(X, Y, h, kernel="gaussian", weights=None, leave_out=None, sqs=None):
    """Log density by direct sums in extended precision, shape (len(X),).

    ``sqs`` are squared distances of queries and points, where they are known.
    """
    weights = np.ones(len(Y)) if weights is None else np.asarray(weights)
    Y, result = Y.astype(np.longdouble), []
    for i, x in enumerate(X):
        keep = np.ones(len(Y), dtype=bool)
        if leave_out is not None:
            keep[leave_out[i]] = False
        sq = squared_distances(x, Y) if sqs is None else sqs[i]
        w = weights[keep].astype(np.longdouble)
        result.append(log_mean(kernel, sq[keep], w, h))
    log_norm = log_normalizer(kernel, Y.shape[1]) + Y.shape[1] * np.log(np.longdouble(h))
    return (np.array(result, dtype=np.longdouble) - log_norm).astype(np.float64)


def log_mean(kernel, sq, w, h):
    """Log of the weighted mean of the profile."""
    if kernel in ("gaussian", "exponential"):
        power = 2 if kernel == "gaussian" else 1
        exponent = -((np.sqrt(sq) / np.longdouble(h)) ** power) / power
        exponent = np.where(w > 0, exponent, -np.inf)
        top = exponent.max()
        return top + np.log(np.sum(w * np.exp(exponent - top)) / np.sum(w))
    with np.errstate(divide="ignore"):
        return np.log(np.sum(w * profile(kernel, sq, h)) / np.sum(w))


def gradient(X, Y, h, kernel="gaussian", weights=None):
    """Gradient of the log density by direct sums in extended precision."""
    weights = np.ones(len(Y)) if weights is None else np.asarray(weights)
    rows = []
    pi = np.longdouble("3.14159265358979323846264338327950288")
    for x in X:
        difference = Y.astype(np.longdouble) - x.astype(np.longdouble)
        r = np.sqrt(np.sum(difference**2, axis=1)) / np.longdouble(h)
        if kernel in ("gaussian", "exponential"):
            power = 2 if kernel == "gaussian" else 1
            exponent = -(r**power) / power
            k = np.exp(exponent - exponent.max())
            minus_derivative = k * r ** (power - 1)
        else:
            k = profile(kernel, (r * h) ** 2, h)
            minus_derivative = {
                "tophat": np.zeros_like(r),
                "epanechnikov": 2 * r * (r < 1),
                "linear": 1.0 * (r < 1),
                "cosine": pi / 2 * np.sin(pi / 2 * r) * (r < 1),
            }[kernel]
        total = np.sum(weights * k)
        # d log rho / dx = sum w (-k'(r)) (y - x) / (r h^2) / sum w k
        factor = weights * minus_derivative / np.where(r > 0, r, np.inf)
        if total == 0.0:
            rows.append(np.full(Y.shape[1], np.nan))
        else:
            rows.append(factor @ difference / total / np.longdouble(h) ** 2)
    return np.array(rows, dtype=np.float64)


def log_kernel_sums(X, Y, weights, bandwidths, nu=None, leave_out=None):
    """Logs of ``sum_j w_j k(|x - y_j| / h)``, (len(X), n_bandwidths), and nearest sq.

    The kernel is Gaussian, or, with ``nu``, the multivariate t; both in extended
    precision. ``leave_out`` may have -1 for none.
    """
    sums = np.full((len(X), len(bandwidths)), -np.inf, dtype=np.longdouble)
    nearest = np.full(len(X), np.inf, dtype=np.longdouble)
    for i, x in enumerate(X):
        sq = squared_distances(x, Y)
        w = weights.astype(np.longdouble)
        if leave_out is not None and leave_out[i] >= 0:
            sq, w = np.delete(sq, leave_out[i]), np.delete(w, leave_out[i])
        if not len(sq):
            continue
        nearest[i] = sq.min()
        for g, h in enumerate(bandwidths):
            energy = sq / np.longdouble(h) ** 2
            logs = -energy / 2
            if nu is not None:
                logs = -np.log1p(energy / nu) * (nu + Y.shape[1]) / 2
            sums[i, g] = logs.max() + np.log(np.sum(w * np.exp(logs - logs.max())))
    return sums, nearest
