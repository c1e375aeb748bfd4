"""Features that have one value in all training points.

Such a feature says nothing about a bandwidth, a structure or a covariance, and has no
part in choosing them: each would add ``-log h`` to a log density without end. The density
is that of the other features times one kernel of its own for each of these, so that it
is one in the space of all features, and a query that differs there is less likely, not
impossible.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._density.density import plain_density
from skhdkde._density.far_queries import in_range
from skhdkde._kernels import KERNELS, make_kernel
from skhdkde._pairwise import ComputeOptions, TrainingPoints
from skhdkde._utils.arrays import DeviceArray, row_batches
from skhdkde._utils.moments import is_constant
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.warnings import warn_user

# Rows to look at first: hardly any feature that varies does not vary there. Columns that
# a message shows.
FIRST_ROWS, SHOWN = 64, 8
# They are few, and each is one kernel value for a query.
ONE_THREAD = ComputeOptions("numpy", 1)


@dataclass(frozen=True)
class ConstantFeatures:
    """Constant features, and the kernel that each has.

    Parameters
    ----------
    is_constant : ndarray of bool of shape (n_features,)
    values : ndarray of shape (n_constant,)
        Of these, in all training points.
    density : Density, default=None
        Of one feature: the kernel about 0.
    """

    is_constant: np.ndarray
    values: FloatArray
    density: Any = None

    @property
    def columns(self) -> np.ndarray:
        """Which columns they are."""
        return np.flatnonzero(self.is_constant)

    def with_kernel(self, kernel: Any, bandwidth: float) -> ConstantFeatures:
        """Return these with kernels of a kind, of a bandwidth in data units."""
        own = KERNELS.get(kernel.name)
        own = own or make_kernel(kernel.name, 1, kernel.degrees_of_freedom)
        scale = 2.0 ** -np.frexp(bandwidth)[1]  # squares of bandwidths are in range
        points = TrainingPoints(np.zeros((1, 1)), None, scale=scale)
        return dataclasses.replace(self, density=plain_density(points, own, bandwidth))

    def without(self, X: Any) -> Any:
        """Return the other features of some points."""
        return without_columns(X, self.is_constant)

    def log_density(self, X: Any) -> FloatArray | float:
        """Return what these features add to log densities.

        ``X`` are queries with all features, or None for training points.
        """
        if X is None:
            peak = self.density.log_density(np.zeros((1, 1)), ONE_THREAD)[0]
            return len(self.values) * peak
        return self._each(X, self._log_density).sum(axis=1)

    def gradient(self, X: Any, of_others: FloatArray) -> FloatArray:
        """Return gradients of all features, from those of the others."""
        gradient = np.empty((len(of_others), len(self.is_constant)), of_others.dtype)
        gradient[:, ~self.is_constant] = of_others
        gradient[:, self.is_constant] = self._each(X, self._gradient)
        gradient[np.isnan(gradient).any(axis=1)] = np.nan  # the density is zero there
        return gradient

    def _log_density(self, X):
        near = in_range(X, self.density)
        return near.log_density(self.density.log_density(near.X, ONE_THREAD))

    def _gradient(self, X):
        near = in_range(X, self.density)
        return near.gradient(self.density.gradient(near.X, ONE_THREAD))[:, 0]

    def _each(self, X, method):
        """Return results of a method for each query and feature."""
        found = np.empty((len(X), len(self.values)))
        with np.errstate(over="ignore"):
            for rows in row_batches(len(X), len(self.is_constant)):
                steps = np.asarray(X[rows])[:, self.is_constant] - self.values
                result = method(steps.reshape(-1, 1))
                found[rows] = result.reshape(steps.shape)
        return found

    def complete(self, others: FloatArray, steps: FloatArray | float = 0.0) -> FloatArray:
        """Return points with all features: the values of these plus steps, and others."""
        X = np.empty((len(others), len(self.is_constant)), others.dtype)
        X[:, ~self.is_constant] = others
        X[:, self.is_constant] = self.values + steps
        return X


def find_constant_features(X: Any) -> ConstantFeatures | None:
    """Return the constant features of training points; None if there are none.

    None, too, if nothing varies: then no feature can stand for the others.
    """
    columns, first = np.arange(X.shape[1]), np.asarray(X[:1])[0]
    least, most = first.astype(np.float64), first.astype(np.float64)
    batches = row_batches(len(X), X.shape[1])
    for rows in [slice(0, FIRST_ROWS), *batches]:
        block = np.asarray(X[rows])[:, columns]
        least = np.minimum(least, block.min(axis=0))
        most = np.maximum(most, block.max(axis=0))
        keep = is_constant(least, most, X.dtype)
        columns, least, most = columns[keep], least[keep], most[keep]
        if not len(columns):
            return None
    return constant_at(columns, first[columns], X.shape[1])


@dataclass(frozen=True)
class Ranges:
    """First, least and largest value of each feature; those of blocks merge.

    All are of shape (n_features,).
    """

    first: FloatArray
    least: FloatArray
    most: FloatArray

    @classmethod
    def of(cls, X: FloatArray) -> Ranges:
        """Return the ranges of the rows of X, of which there is at least one."""
        found = X[0], X.min(axis=0), X.max(axis=0)
        return cls(*(values.astype(np.float64) for values in found))

    def merge(self, other: Ranges) -> Ranges:
        """Return the ranges of both sets of points; these are the first."""
        least = np.minimum(self.least, other.least)
        return Ranges(self.first, least, np.maximum(self.most, other.most))

    def constant(self, dtype: Any) -> ConstantFeatures | None:
        """Return the constant features of points of a dtype, as of an array of them."""
        columns = np.flatnonzero(is_constant(self.least, self.most, dtype))
        return constant_at(columns, self.first[columns], len(self.first))


def constant_at(columns, values, n_features: int) -> ConstantFeatures | None:
    """Return the constant features; None if there are none or all are."""
    if len(columns) in (0, n_features):
        return None
    mask = np.zeros(n_features, dtype=bool)
    mask[columns] = True
    return ConstantFeatures(mask, np.asarray(values, dtype=np.float64))


def columns_of(found: ConstantFeatures | None) -> np.ndarray:
    """Return which columns are constant; none for None."""
    return np.empty(0, dtype=int) if found is None else found.columns


def without_columns(X: Any, columns: np.ndarray) -> Any:
    """Return X, an array or a ``DeviceArray``, without the columns of a mask."""
    if isinstance(X, DeviceArray):
        return DeviceArray(X.tensor[:, np.flatnonzero(~columns)])
    if isinstance(X, np.ndarray):
        return np.compress(~columns, X, axis=1)  # rows stay contiguous
    return X[:, ~columns]  # of dask


def warn_of_constant_features(found: ConstantFeatures, names: Any = None) -> None:
    """Warn of constant features, by columns and names if there are any."""
    columns = found.columns
    some = columns[:SHOWN]
    shown = ", ".join(
        str(k) if names is None else f"{k} ({names[k]!r})" for k in some.tolist()
    )
    more = len(columns) - len(some)
    dots = f" and {more} more" if more else ""
    noun = "feature" if len(columns) == 1 else "features"
    warn_user(
        f"X has {len(columns)} constant {noun} of {len(found.is_constant)}: column"
        f"{'s' * (len(columns) > 1)} {shown}{dots}. They are ignored in the choice "
        "of bandwidth and structure, and each gets a kernel of typical width. If they "
        "are constant in queries, too, leave them out of X: this adds the same constant "
        "to all log densities."
    )
