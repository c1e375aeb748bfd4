"""Moments of weighted points that merge: those of blocks are those of all."""

import numpy as np


def relative_weights(weights):
    """Return positive weights divided by the largest; None for None."""
    return None if weights is None else weights / weights.max()


class Moments:
    """Weight, mean and sum of squares about it, of each feature.

    Updates as by Chan, Golub and LeVeque (1983, Algorithms for computing the sample
    variance), so that nothing cancels.

    Attributes
    ----------
    n_points : int
        Number of points of positive weight.
    heaviest, lightest : float
        Largest and smallest weight.
    total, total_sq : float
        Sums of weights and of their squares, relative to the largest.
    mean, squares, largest : ndarray of shape (n_features,)
        Mean, sum of ``w (x - mean)^2`` and largest ``|x|``.
    """

    def __init__(self, X, weights=None):
        """Of the rows of X, of which there is at least one."""
        self.n_points = len(X)
        self.heaviest = self.lightest = 1.0
        if weights is None:
            weights = np.ones(len(X))
        else:
            self.heaviest, self.lightest = float(weights.max()), float(weights.min())
            weights = weights / self.heaviest
        self.total, self.total_sq = float(weights.sum()), float(weights @ weights)
        # about a point of the data: an offset does not cost digits
        origin = X[0].astype(np.float64)
        self.mean = origin + (weights / self.total) @ (X - origin)
        with np.errstate(over="ignore", invalid="ignore"):
            self.squares = weights @ np.square(X - self.mean)
        self.largest = np.abs(X).max(axis=0).astype(np.float64)

    def merge(self, other):
        """The moments of both sets of points."""
        both = object.__new__(Moments)
        both.n_points = self.n_points + other.n_points
        both.heaviest = max(self.heaviest, other.heaviest)
        both.lightest = min(self.lightest, other.lightest)
        mine, theirs = (m.heaviest / both.heaviest for m in (self, other))
        both.total = mine * self.total + theirs * other.total
        both.total_sq = mine**2 * self.total_sq + theirs**2 * other.total_sq
        share = theirs * other.total / both.total
        apart = other.mean - self.mean
        both.mean = self.mean + share * apart
        with np.errstate(over="ignore", invalid="ignore"):
            both.squares = mine * self.squares + theirs * other.squares
            both.squares += mine * self.total * share * apart**2
        both.largest = np.maximum(self.largest, other.largest)
        return both

    @property
    def variance(self):
        """Of each feature."""
        return self.squares / self.total


class Scatter:
    """What the covariance of points and the error of that follow from.

    Attributes
    ----------
    second : ndarray of shape (n_features, n_features)
        ``sum_i w_i z_i z_i'`` of points about their mean.
    squared : ndarray of shape (n_features, n_features) or None
        ``sum_i w_i^2 z_i z_i'``; None if all weights are 1.
    fourth, total, total_sq : float
        ``sum_i w_i^2 |z_i|^4``, and sums of weights and of their squares.
    """

    def __init__(self, Z, weights=None):
        lengths = np.einsum("ij,ij->i", Z, Z)
        if weights is None:
            self.second, self.squared = Z.T @ Z, None
            self.total = self.total_sq = float(len(Z))
            self.fourth = float(lengths @ lengths)
            return
        weighted = Z * weights[:, None]
        self.second, self.squared = Z.T @ weighted, weighted.T @ weighted
        self.total, self.total_sq = float(weights.sum()), float(weights @ weights)
        self.fourth = float(np.sum((weights * lengths) ** 2))

    def merge(self, other):
        """That of both sets of points, about the same mean."""
        both = object.__new__(Scatter)
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            setattr(both, name, None if mine is None else mine + theirs)
        return both

    def covariance(self):
        """The covariance matrix of the sample, and its expected squared error.

        ``sum_i s_i^2 (|z_i|^4 - 2 z_i' C z_i + |C|^2)`` with ``s_i`` the shares of the
        weight (Ledoit and Wolf, 2004, A well-conditioned estimator for large-dimensional
        covariance matrices).
        """
        covariance = self.second / self.total
        squared = self.second if self.squared is None else self.squared
        own = np.sum(squared * covariance)
        size = np.sum(covariance**2)
        error = self.fourth - 2.0 * own + self.total_sq * size
        return covariance, error / self.total**2


def without_each(weights):
    """Sum of all weights but one's own, for each, without subtracting large numbers."""
    before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
    after = np.concatenate([np.cumsum(weights[::-1])[-2::-1], [0.0]])
    return before + after


def _weighted_mean(values, weights):
    weights = weights[:, None] / weights.sum()
    mean = np.sum(weights * values, axis=0)
    with np.errstate(invalid="ignore"):  # of -inf
        variance = np.sum((weights * (values - mean)) ** 2, axis=0)
    return mean, np.sqrt(variance)
