"""Rows so far from the others that they decide means and variances."""

from dataclasses import dataclass

import numpy as np

from skhdkde._utils.arrays import row_batches
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.warnings import warn_user

# Rows from which the median is; distances from it, in median ones, from which a row is
# far; share of the rows that may be; share of the variance from which few decide it.
N_SAMPLED = 4096
FAR, FEW, MOST_OF_VARIANCE = 100.0, 0.01, 0.9
# Relative to the median distance, what rounding may change in the coordinates of others.
LARGEST_ROUNDING = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-4}
# Distances of which sums of squares are finite; rows that a message shows.
LARGEST, SHOWN = 1e140, 5


@dataclass(frozen=True)
class FarRows:
    """Rows far from the others in some feature.

    Attributes
    ----------
    n_rows : int
    first : list of int
        The first of them.
    median, unit : ndarray of shape (n_features,)
        Of the rows, and of their distances from it.
    share : ndarray of shape (n_features,)
        Of the sum of squared distances, that of far entries.
    shift : ndarray of shape (n_features,)
        By how much they move the mean, in units.
    """

    n_rows: int
    first: list[int]
    median: FloatArray
    unit: FloatArray
    share: FloatArray
    shift: FloatArray


def find_far_rows(X: FloatArray) -> FarRows:
    """Find rows farther than ``FAR`` times the median distance in some feature."""
    sample = X[np.linspace(0, len(X) - 1, min(len(X), N_SAMPLED)).astype(int)]
    sample = sample.astype(np.float64)
    median = np.median(sample, axis=0)
    unit = np.median(np.abs(sample - median), axis=0)
    unit[unit == 0.0] = np.inf  # no measure: most are equal
    first: list[int] = []
    n_rows, (near, far, shift) = 0, np.zeros((3, X.shape[1]))
    for rows in row_batches(*X.shape):
        distance = np.abs(X[rows] - median) / unit
        is_far = distance > FAR
        # not squared beyond what has a square
        squares = np.square(np.minimum(distance, LARGEST))
        near += squares.sum(axis=0, where=~is_far)
        far += squares.sum(axis=0, where=is_far)
        shift += distance.sum(axis=0, where=is_far) / len(X)
        found = np.flatnonzero(is_far.any(axis=1))
        n_rows += len(found)
        first += (rows.start + found).tolist()[: SHOWN - len(first)]
    share = far / np.maximum(near + far, np.finfo(np.float64).tiny)
    return FarRows(n_rows, first, median, unit, share, shift)


def check_far_rows(X: FloatArray) -> None:
    """Warn of few rows that decide the variance of a feature.

    Raises
    ------
    ValueError
        If, about the mean that they move, the others have lost their digits.
    """
    found = find_far_rows(X)
    decided = np.flatnonzero(found.share >= MOST_OF_VARIANCE)
    few = found.n_rows <= max(FEW * len(X), 1.0)
    if not (few and len(decided)):
        return
    row, feature = found.first[0], int(decided[0])
    shown = ", ".join(map(str, found.first))
    dots = ", ..." if found.n_rows > len(found.first) else ""
    what = (
        f"X has {X[row, feature]:.3g} in row {row}, feature {feature}, where half of the "
        f"rows are within {found.unit[feature]:.3g} of {found.median[feature]:.3g}. Rows "
        f"like this ({found.n_rows} of {len(X)}: {shown}{dots}) decide the variance of "
        f"{len(decided)} of {X.shape[1]} features"
    )
    cure = (
        "If they are fill values or errors, remove them; if not, "
        "covariance_type='spherical' without preserve_variance takes no variances."
    )
    if np.finfo(X.dtype).eps * found.shift.max() > LARGEST_ROUNDING[X.dtype]:
        raise ValueError(
            f"{what}, and about the mean the other rows have lost their digits. {cure}"
        )
    warn_user(f"{what}, and with it the shape of the kernel. {cure}")
