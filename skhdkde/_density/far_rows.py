"""Rows so far from the others that they decide means and variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from skhdkde._utils.arrays import row_batches
from skhdkde._utils.typing import FloatArray, IntArray
from skhdkde._utils.warnings import warn_user

# Rows from which the median is; distances from it, in median ones, from which a row is
# far; share of the rows that may be; share of the variance from which few decide it.
N_TYPICAL = 4096
FAR, FEW, MOST_OF_VARIANCE = 100.0, 0.01, 0.9
# Relative to the median distance, what rounding may change in the coordinates of others.
LARGEST_ROUNDING = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-4}
# Distances of which sums of squares are finite; rows that a message shows.
LARGEST, SHOWN = 1e140, 5


@dataclass(frozen=True)
class TypicalRows:
    """Where half of the rows are, (n_features,)."""

    median: FloatArray
    unit: FloatArray  # median distance from the median; infinite if it is zero

    @classmethod
    def of(cls, sample: FloatArray) -> Self:
        """Return it for a sample of the rows."""
        sample = sample.astype(np.float64)
        median = np.median(sample, axis=0)
        unit = np.median(np.abs(sample - median), axis=0)
        unit[unit == 0.0] = np.inf  # no measure: most are equal
        return cls(median, unit)


@dataclass(frozen=True)
class FarRows:
    """Rows far from the others in some feature, of all points or of a block.

    Attributes
    ----------
    n_points, n_rows : int
        Number of points, and of those that are far.
    total : float
        Weight of the points.
    first : ndarray of int of shape (n_shown,)
        Numbers of the first far rows.
    farthest, values : ndarray of shape (n_features,)
        Number of the row that is farthest in each feature, and its value there.
    largest : ndarray of shape (n_features,)
        Its distance from the median, in units.
    near, far, shift : ndarray of shape (n_features,)
        Weighted sums over entries: of squared distances of those that are not far and
        that are, and of distances of those that are, in units.
    """

    n_points: int
    n_rows: int
    total: float
    first: IntArray
    farthest: IntArray
    values: FloatArray
    largest: FloatArray
    near: FloatArray
    far: FloatArray
    shift: FloatArray

    @classmethod
    def of(
        cls,
        X: FloatArray,
        weights: FloatArray | None,
        row_numbers: IntArray,
        typical: TypicalRows,
    ) -> Self:
        """Return it for the rows of X, of which there are few enough for copies."""
        distance = np.abs(X - typical.median) / typical.unit
        is_far = distance > FAR
        weights = np.ones(len(X)) if weights is None else weights
        # not squared beyond what has a square
        squares = np.square(np.minimum(distance, LARGEST))
        rows = np.flatnonzero(is_far.any(axis=1))
        farthest, columns = distance.argmax(axis=0), np.arange(X.shape[1])
        return cls(
            len(X),
            len(rows),
            float(weights.sum()),
            row_numbers[rows[:SHOWN]],
            row_numbers[farthest],
            X[farthest, columns],
            distance[farthest, columns],
            weights @ np.where(is_far, 0.0, squares),
            weights @ np.where(is_far, squares, 0.0),
            weights @ np.where(is_far, distance, 0.0),
        )

    def merge(self, other: Self) -> Self:
        """Return it for both sets of rows, of which these are the first."""
        mine = self.largest >= other.largest
        return type(self)(
            self.n_points + other.n_points,
            self.n_rows + other.n_rows,
            self.total + other.total,
            np.concatenate([self.first, other.first])[:SHOWN],
            np.where(mine, self.farthest, other.farthest),
            np.where(mine, self.values, other.values),
            np.maximum(self.largest, other.largest),
            self.near + other.near,
            self.far + other.far,
            self.shift + other.shift,
        )

    def warn(self, typical: TypicalRows, feature_numbers: IntArray | None = None) -> None:
        """Warn if they are few and decide the variance of a feature.

        ``feature_numbers`` are what messages call the features, if not their place.

        Raises
        ------
        ValueError
            If, about the mean that they move, the others have lost their digits.
        """
        share = self.far / np.maximum(self.near + self.far, np.finfo(np.float64).tiny)
        decided = np.flatnonzero(share >= MOST_OF_VARIANCE)
        few = self.n_rows <= max(FEW * self.n_points, 1.0)
        if not (few and len(decided)):
            return
        feature = int(decided[0])
        number = feature if feature_numbers is None else feature_numbers[feature]
        of_all = f"{len(decided)} of {len(share)} features"
        what = f"{self._said(feature, number, typical)} {of_all}"
        cure = (
            "If they are fill values or errors, remove them; if not, "
            "covariance_type='spherical' without preserve_variance takes no variances."
        )
        dtype = self.values.dtype
        rounding = np.finfo(dtype).eps * self.shift.max() / self.total
        if rounding > LARGEST_ROUNDING[dtype]:
            raise ValueError(
                f"{what}. Relative to that mean the other rows have lost their digits. "
                f"{cure}"
            )
        warn_user(f"{what}, and with it the shape of the kernel. {cure}")

    def _said(self, feature, number, typical):
        """Return what is said of the farthest of them, and which they are."""
        value, row = self.values[feature], self.farthest[feature]
        shown = ", ".join(map(str, self.first))
        dots = ", ..." if self.n_rows > len(self.first) else ""
        unit, median = typical.unit[feature], typical.median[feature]
        return (
            f"X has {value:.3g} in row {row}, feature {number}, where half of the rows "
            f"are within {unit:.3g} of {median:.3g}. Rows like this ({self.n_rows} of "
            f"{self.n_points}: {shown}{dots}) decide the variance of"
        )


def check_far_rows(
    X: FloatArray,
    weights: FloatArray | None,
    row_numbers: IntArray | None,
    feature_numbers: IntArray | None = None,
) -> None:
    """Warn of few rows that decide the variance of a feature.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
    row_numbers : ndarray of int of shape (n_points,) or None
        What messages call the rows; None for their place in X.
    feature_numbers : ndarray of int of shape (n_features,), default=None
        What they call the features.

    Raises
    ------
    ValueError
        If, about the mean that they move, the others have lost their digits.
    """
    sampled = np.linspace(0, len(X) - 1, min(len(X), N_TYPICAL)).astype(int)
    typical, found = TypicalRows.of(X[sampled]), None
    numbers = np.arange(len(X)) if row_numbers is None else row_numbers
    for rows in row_batches(*X.shape):
        own = None if weights is None else weights[rows]
        batch = FarRows.of(X[rows], own, numbers[rows], typical)
        found = batch if found is None else found.merge(batch)
    if found is not None:
        found.warn(typical, feature_numbers)
