"""Densities with bandwidth matrices by direct sums; shares no code with the package.

A density is given by its training points, each with a weight, a component and a local
scale, and by mean and covariance of each component.
"""

import functools

import mpmath
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf


def variance(kernel, nu, d):
    """Of a coordinate of the kernel at bandwidth 1."""
    if kernel == "student":
        return nu / (nu - 2.0)
    return {"gaussian": 1.0, "exponential": d + 1.0}[kernel]


@functools.cache
def log_norm(kernel, nu, d):
    """Log of the integral of the kernel at bandwidth 1, which is 1 at distance zero."""
    with mpmath.workdps(40):
        if kernel == "gaussian":
            norm = mpmath.mpf(d) / 2 * mpmath.log(2 * mpmath.pi)
        elif kernel == "exponential":
            area = mpmath.log(2) + mpmath.mpf(d) / 2 * mpmath.log(mpmath.pi)
            norm = area - mpmath.loggamma(mpmath.mpf(d) / 2) + mpmath.loggamma(d)
        else:
            half, total = mpmath.mpf(nu) / 2, (mpmath.mpf(nu) + d) / 2
            norm = mpmath.loggamma(half) - mpmath.loggamma(total)
            norm += mpmath.mpf(d) / 2 * mpmath.log(nu * mpmath.pi)
        return np.longdouble(mpmath.nstr(norm, 25))


def log_kernel(kernel, nu, sq, d):
    """Normalised log kernel at squared distances in units of the bandwidth."""
    norm = log_norm(kernel, nu, d)
    sq = np.asarray(sq, dtype=np.longdouble)
    if kernel == "gaussian":
        return -sq / 2 - norm
    if kernel == "exponential":
        return -np.sqrt(sq) - norm
    return -(np.longdouble(nu) + d) / 2 * np.log1p(sq / np.longdouble(nu)) - norm


class Oracle:
    """Log density, gradient and terms of a density with a structure.

    Parameters
    ----------
    Y : ndarray of shape (n, d)
    labels : ndarray of int of shape (n,)
    means, covariances : of each label
    h : float
    shrinkage : float
        Factor of a point's difference from the mean of its component.
    local, weights : ndarray of shape (n,) or None
    """

    def __init__(self, Y, labels, means, covariances, h, shrinkage, **options):
        self.Y, self.labels, self.h = Y, labels, np.longdouble(h)
        self.shrinkage = np.longdouble(shrinkage)
        self.means, self.covariances = means, covariances
        self.kernel, self.nu = options.get("kernel", "gaussian"), options.get("nu")
        n = len(Y)
        local, weights = options.get("local"), options.get("weights")
        self.local = np.ones(n) if local is None else local
        self.weights = np.ones(n) if weights is None else weights
        self.inverses = {c: np.linalg.inv(S) for c, S in covariances.items()}

    def terms(self, x, leave_out=None):
        """Return logs of the points' terms, up to the total weight, and gradients."""
        n, d = self.Y.shape
        sq, log_det = np.empty((2, n), dtype=np.longdouble)
        scaled = np.empty((n, d), dtype=np.longdouble)
        for c, inverse in self.inverses.items():
            own, mean = self.labels == c, self.means[c]
            z = x - mean - self.shrinkage * (self.Y[own] - mean)
            scaled[own] = z @ inverse.astype(np.longdouble)
            sq[own] = np.sum(z * scaled[own], axis=1)
            log_det[own] = np.linalg.slogdet(self.covariances[c])[1]
        scale = self.h * self.local.astype(np.longdouble)
        sq /= scale**2
        logs = log_kernel(self.kernel, self.nu, sq, d) - d * np.log(scale) - log_det / 2
        logs += np.log(self.weights.astype(np.longdouble))
        if leave_out is not None:
            logs[leave_out] = -np.inf
        slope = 1.0
        if self.kernel == "student":
            slope = (self.nu + d) / (self.nu + sq)[:, None]
        return logs, -slope * scaled / scale[:, None] ** 2

    def log_density(self, X, leave_out=False):
        result = []
        for i, x in enumerate(X):
            logs, _ = self.terms(x, i if leave_out else None)
            total = self.weights.sum() - (self.weights[i] if leave_out else 0.0)
            top = logs.max()
            result.append(top + np.log(np.exp(logs - top).sum()) - np.log(total))
        return np.array(result, dtype=float)

    def gradient(self, X):
        rows = []
        for x in X:
            logs, slopes = self.terms(x)
            shares = np.exp(logs - logs.max())
            rows.append(shares @ slopes / shares.sum())
        return np.array(rows, dtype=float)

    def shares(self, x):
        logs, _ = self.terms(x)
        shares = np.exp((logs - logs.max()).astype(float))
        return shares / shares.sum()


def moments(Y, covariance_type, weights=None):
    """Mean and covariance of the points, as the structure of one component has them."""
    w = np.full(len(Y), 1.0 / len(Y)) if weights is None else weights / weights.sum()
    mean = w @ Y
    deviation = np.sqrt(w @ (Y - mean) ** 2)
    if covariance_type == "spherical":
        return mean, np.eye(Y.shape[1])
    if covariance_type == "diag":
        return mean, np.diag(deviation**2)
    Z = (Y - mean) / deviation
    if weights is None:
        correlation = LedoitWolf(assume_centered=True).fit(Z).covariance_
    else:
        correlation = weighted_ledoit_wolf(Z, w)
    return mean, correlation * np.outer(deviation, deviation)


def weighted_ledoit_wolf(Z, w):
    """The estimate by its definition, one outer product at a time."""
    d = Z.shape[1]
    sample = sum(share * np.outer(z, z) for share, z in zip(w, Z, strict=True))
    target = np.trace(sample) / d * np.eye(d)
    error = sum(
        share**2 * np.sum((np.outer(z, z) - sample) ** 2)
        for share, z in zip(w, Z, strict=True)
    )
    s = min(error / np.sum((sample - target) ** 2), 1.0)
    return (1.0 - s) * sample + s * target


def local_scales(Y, labels, covariances, k, weights=None):
    """Distances to the k-th neighbour in the component's metric, rms 1 in each."""
    scales = np.ones(len(Y))
    weights = np.ones(len(Y)) if weights is None else weights
    for c, covariance in covariances.items():
        rows = np.flatnonzero(labels == c)
        inverse = np.linalg.inv(covariance)
        distances = np.sort(cdist(Y[rows], Y[rows], "mahalanobis", VI=inverse), axis=1)
        r = distances[:, min(k, len(rows) - 1)]
        scales[rows] = r / np.sqrt(np.average(r**2, weights=weights[rows]))
    return scales


def make_oracle(Y, covariance_type, mixture, h, options, weights=None):
    """Return the oracle for an estimator's parameters."""
    Y, d = Y.astype(float), Y.shape[1]
    labels = np.zeros(len(Y), dtype=int)
    if covariance_type == "local":
        labels = mixture.predict(Y)
        means = dict(enumerate(mixture.means_))
        covariances = dict(enumerate(mixture.covariances_))
    else:
        mean, covariance = moments(Y, covariance_type, weights)
        means, covariances = {0: mean}, {0: covariance}
    kernel, nu = options.get("kernel", "gaussian"), options.get("degrees_of_freedom")
    shrinkage = 1.0
    if options.get("preserve_variance"):
        size = 1.0
        if covariance_type == "spherical":
            size = np.average(np.mean((Y - means[0]) ** 2, axis=1), weights=weights)
        shrinkage = np.sqrt(1.0 - h**2 * variance(kernel, nu, d) / size)
    local, k = None, options.get("adaptive", False)
    if k:
        local = local_scales(Y, labels, covariances, 5 if k is True else k, weights)
    return Oracle(
        Y,
        labels,
        means,
        covariances,
        h,
        shrinkage,
        kernel=kernel,
        nu=nu,
        local=local,
        weights=weights,
    )
