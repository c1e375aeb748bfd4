"""Training rows without those that may be anomalies.

Anomalies among the training rows that are alike have kernels of their own, and are likely
to a density that has seen others of them. One covariance matrix for all is too coarse
for that: the rows that are farthest from the mean, in its units, are left out, and mean
and covariance are made of the others, until these stay the same (the concentration steps
of Rousseeuw and Van Driessen, 1999, A fast algorithm for the minimum covariance
determinant estimator).
"""

from __future__ import annotations

import numpy as np

from skhdkde._density import full_whitening, shrunk_covariance, standardizing
from skhdkde._utils.moments import Moments, is_constant

MOST_STEPS = 10


def central_rows(X, weights, share):
    """Return a mask of the rows that are kept.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
    weights : ndarray of shape (n_rows,) or None
    share : float
        Of the weight that may be left out.
    """
    kept = np.ones(len(X), dtype=bool)
    varies = ~is_constant(X.min(axis=0), X.max(axis=0), X.dtype)
    if share == 0.0 or not varies.any():
        return kept
    X = X[:, varies]
    X = X / np.abs(X).max(axis=0)  # so that no square is out of range
    everything = standardizing(Moments.of(X, weights))
    weights = np.ones(len(X)) if weights is None else weights
    for _ in range(MOST_STEPS):
        before = kept
        kept = _nearest(_squared_distances(X, weights, kept, everything), weights, share)
        if (kept == before).all():
            break
    return kept


def _squared_distances(X, weights, kept, everything):
    """Return those of all rows to the mean of rows, in units of their covariance."""
    X_kept, own = X[kept], weights[kept]
    standardization = standardizing(Moments.of(X_kept, own), everything)
    covariance = shrunk_covariance(standardization.apply(X_kept), own)
    whitening = full_whitening(standardization, np.zeros(X.shape[1]), covariance)
    return np.sum(np.square(whitening.apply(X)), axis=1)


def _nearest(distances, weights, share):
    """Return a mask of rows but for the farthest, of a share of the weight at most."""
    farthest_first = np.argsort(-distances, kind="stable")
    sums = np.cumsum(weights[farthest_first])
    out = farthest_first[sums <= share * sums[-1]]
    return np.isin(np.arange(len(weights)), out, invert=True)
