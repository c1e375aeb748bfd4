"""Moments of weighted points that merge: those of blocks give those of all."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skhdkde._utils.typing import FloatArray

# Standard deviation, relative to the size of a feature, that is rounding.
ROUNDING = 1e-14


# Difference of two values, relative to their size, in units of the last digit, that is.
ROUNDED = 4.0


def is_constant(least: FloatArray, most: FloatArray, dtype: Any) -> np.ndarray:
    """Return which features do not vary, from their least and largest values."""
    with np.errstate(over="ignore"):
        size = np.maximum(np.abs(least), np.abs(most))
        return most - least <= ROUNDED * np.finfo(dtype).eps * size


@dataclass(frozen=True)
class Moments:
    """Weight of points, and mean, sum of squares about it and largest ``|x|`` by feature.

    Attributes
    ----------
    n_points : int
        Number of points of positive weight.
    heaviest, lightest : float
        Largest and smallest weight.
    total, total_sq : float
        Sums of weights and of their squares, relative to the largest, as ``squares`` is.
    """

    n_points: int
    heaviest: float
    lightest: float
    total: float
    total_sq: float
    mean: FloatArray
    squares: FloatArray
    largest: FloatArray

    @classmethod
    def of(cls, X: FloatArray, weights: FloatArray | None = None) -> Self:
        """Return the moments of the rows of X, of which there is at least one."""
        heaviest = lightest = 1.0
        if weights is None:
            weights = np.ones(len(X))
        else:
            heaviest, lightest = float(weights.max()), float(weights.min())
            weights = weights / heaviest
        total, total_sq = float(weights.sum()), float(weights @ weights)
        # about a point of the data: data far from zero cost no digits
        origin = X[0].astype(np.float64)
        mean = origin + (weights / total) @ (X - origin)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = weights @ np.square(X - mean)
        largest = np.abs(X).max(axis=0).astype(np.float64)
        return cls(len(X), heaviest, lightest, total, total_sq, mean, squares, largest)

    def merge(self, other: Self) -> Self:
        """Return the moments of both sets of points.

        Nothing cancels (Chan, Golub and LeVeque, 1983, Algorithms for computing the
        sample variance).
        """
        heaviest = max(self.heaviest, other.heaviest)
        mine, theirs = self.heaviest / heaviest, other.heaviest / heaviest
        total = mine * self.total + theirs * other.total
        share = theirs * other.total / total
        apart = other.mean - self.mean
        with np.errstate(over="ignore", invalid="ignore"):
            squares = mine * self.squares + theirs * other.squares
            squares += mine * self.total * share * apart**2
        return type(self)(
            n_points=self.n_points + other.n_points,
            heaviest=heaviest,
            lightest=min(self.lightest, other.lightest),
            total=total,
            total_sq=mine**2 * self.total_sq + theirs**2 * other.total_sq,
            mean=self.mean + share * apart,
            squares=squares,
            largest=np.maximum(self.largest, other.largest),
        )

    @property
    def varies(self) -> np.ndarray:
        """Which features vary by more than rounding."""
        size = np.maximum(np.abs(self.mean), self.largest)
        return self.variance > (ROUNDING * size) ** 2

    @property
    def variance(self) -> FloatArray:
        """Variance of each feature."""
        return self.squares / self.total


def expected_squared_error(
    fourth: float, own: float, size: float, total_sq: float
) -> float:
    """Return the expected squared Frobenius error of a sample covariance ``C``.

    ``sum_i s_i^2 (|z_i|^4 - 2 z_i' C z_i + |C|^2)`` for centred points ``z_i`` with
    shares ``s_i`` of the weight, from the sums ``fourth`` and ``own`` of the first two
    terms, ``size = |C|^2`` and ``total_sq``, the sum of ``s_i^2`` (Ledoit and Wolf, 2004,
    A well-conditioned estimator for large-dimensional covariance matrices).
    """
    return fourth - 2.0 * own + total_sq * size


@dataclass(frozen=True)
class Scatter:
    """Sums over centred points that give their covariance and its error.

    Attributes
    ----------
    second, squared : ndarray of shape (n_features, n_features)
        ``sum_i w_i z_i z_i'``, and with ``w_i^2``, which is None if all weights are 1.
    fourth, total, total_sq : float
        ``sum_i w_i^2 |z_i|^4``, and sums of weights and of their squares.
    """

    second: FloatArray
    squared: FloatArray | None
    fourth: float
    total: float
    total_sq: float

    @classmethod
    def of(cls, Z: FloatArray, weights: FloatArray | None = None) -> Self:
        """Return the sums over the rows of Z."""
        lengths = np.einsum("ij,ij->i", Z, Z)
        if weights is None:
            n_points = float(len(Z))
            return cls(Z.T @ Z, None, float(lengths @ lengths), n_points, n_points)
        weighted = Z * weights[:, None]
        return cls(
            second=Z.T @ weighted,
            squared=weighted.T @ weighted,
            fourth=float(np.sum((weights * lengths) ** 2)),
            total=float(weights.sum()),
            total_sq=float(weights @ weights),
        )

    def merge(self, other: Self) -> Self:
        """Return the sums over both sets of points, which have the same centre."""
        squared = None
        if self.squared is not None and other.squared is not None:
            squared = self.squared + other.squared
        return type(self)(
            self.second + other.second,
            squared,
            self.fourth + other.fourth,
            self.total + other.total,
            self.total_sq + other.total_sq,
        )

    def covariance(self) -> tuple[FloatArray, float]:
        """Return the covariance matrix of the sample, and its expected squared error."""
        covariance = self.second / self.total
        squared = self.second if self.squared is None else self.squared
        own, size = np.sum(squared * covariance), np.sum(covariance**2)
        error = expected_squared_error(self.fourth, own, size, self.total_sq)
        return covariance, error / self.total**2


def without_each(weights: FloatArray) -> FloatArray:
    """Return, for each weight, the sum of all others.

    Nothing is subtracted, which would cost digits where one weight is most of the sum.
    """
    before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
    after = np.concatenate([np.cumsum(weights[::-1])[-2::-1], [0.0]])
    return before + after
