"""The unit sphere as the space of a density: rows of norm 1.

Features that are constant in the training points put these on a smaller sphere, in the
space of the others. The density is one on that sphere: rows are taken without these
features and divided by its radius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._density.constant_features import (
    find_constant_features,
    without_columns,
)
from skhdkde._utils.arrays import row_batches, unit_rows
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.warnings import warn_user

# Error of the norm of a row that counts as one.
NORM_TOL = 1e-3
# Columns that a message shows.
SHOWN = 8


@dataclass(frozen=True)
class UnitSphere:
    """The unit sphere, or a smaller one in it.

    Parameters
    ----------
    is_constant : ndarray of bool of shape (n_features,)
        Features that do not vary in the training points.
    values : ndarray of shape (n_constant,)
        What these are.
    """

    is_constant: np.ndarray
    values: FloatArray

    @classmethod
    def of(cls, X: FloatArray) -> UnitSphere:
        """Return the sphere that points of unit norm are on."""
        return cls.without_features(find_constant_features(X), X.shape[1])

    @classmethod
    def without_features(cls, constant: Any, n_features: int) -> UnitSphere:
        """Return the sphere of points with constant features; None for none."""
        if constant is None:
            return cls(np.zeros(n_features, dtype=bool), np.empty(0))
        return cls(constant.is_constant, constant.values)

    @property
    def columns(self) -> np.ndarray:
        """The constant features."""
        return np.flatnonzero(self.is_constant)

    @property
    def n_features(self) -> int:
        """Number of features of the space around the sphere, without constant ones."""
        return int(np.count_nonzero(~self.is_constant))

    @property
    def radius(self) -> float:
        """Radius of the sphere in data units."""
        return float(np.sqrt(max(1.0 - float(self.values @ self.values), 0.0)))

    def log_density(self, X: Any) -> float:
        """Return what the size of the sphere adds to log densities, whatever X is."""
        return -(self.n_features - 1) * np.log(self.radius)

    def check(self) -> None:
        """Raise ValueError if there is nothing for a density to be on."""
        if self.n_features < 2:
            raise ValueError(
                "support='sphere' needs at least two features of X that vary, got "
                f"{self.n_features} of {len(self.is_constant)}."
            )

    def warn(self, names: Any) -> None:
        """Warn of constant features, by columns and names if there are any."""
        columns = self.columns
        if not len(columns):
            return
        shown = ", ".join(
            str(k) if names is None else f"{k} ({names[k]!r})"
            for k in columns[:SHOWN].tolist()
        )
        more = len(columns) - SHOWN
        dots = f" and {more} more" if more > 0 else ""
        noun = "feature" if len(columns) == 1 else "features"
        warn_user(
            f"X has {len(columns)} constant {noun} of {len(self.is_constant)}: column"
            f"{'s' * (len(columns) > 1)} {shown}{dots}. X is on a smaller sphere, of "
            f"radius {self.radius:.6g} in the space of the other {self.n_features}. "
            "Densities are with respect to its surface measure, and do not depend on the "
            "constant features."
        )

    def without(self, X: FloatArray, first_row: int = 0) -> FloatArray:
        """Return rows of unit norm as points of the sphere; raise if they are not.

        ``first_row`` is the number of the first one, for messages.
        """
        check_unit_rows(X, first_row)
        points = self.points(X)
        lost = np.flatnonzero(np.isnan(points[:, 0]))
        if len(lost):
            raise ValueError(
                f"row {first_row + lost[0]} of X is zero in all features that vary in "
                "the training points: it has no direction on their sphere. Leave it out."
            )
        return points

    def points(self, X: FloatArray) -> FloatArray:
        """Return rows without constant features, of norm 1, in the dtype of X.

        Rows of zeros become NaN.
        """
        out = np.empty((len(X), self.n_features), dtype=X.dtype)
        for rows in row_batches(*X.shape):
            kept = without_columns(np.asarray(X[rows]), self.is_constant)
            with np.errstate(invalid="ignore"):
                out[rows] = unit_rows(kept.astype(np.float64))
        return out

    def complete(self, X: FloatArray) -> FloatArray:
        """Return points of this sphere with all features."""
        if not len(self.values):
            return X
        out = np.empty((len(X), len(self.is_constant)), X.dtype)
        out[:, self.is_constant] = self.values
        out[:, ~self.is_constant] = X * self.radius
        return out

    def queries(
        self, X: Any, first_row: int = 0, warn: Callable[[str], None] = warn_user
    ) -> QueriesOnSphere:
        """Return queries in data units, or None, as those of the density.

        ``first_row`` is the number of the first one, for messages.

        Raises
        ------
        ValueError
            If a row is not of unit norm.
        """
        if X is None:
            return QueriesOnSphere(None, self)
        points = self.without(X, first_row)
        self._check_constant(X, first_row, warn)
        return QueriesOnSphere(points, self)

    def _check_constant(self, X, first_row, warn):
        """Warn of rows that are not where the constant features are."""
        if not len(self.values) or not len(X):
            return
        steps = np.abs(np.asarray(X)[:, self.is_constant] - self.values)
        away = np.sqrt(np.square(steps).sum(axis=1))
        row = int(np.argmax(away))
        if away[row] > NORM_TOL:
            column = int(self.columns[np.argmax(steps[row])])
            warn(
                f"{np.count_nonzero(away > NORM_TOL)} of {len(X)} rows of X differ from "
                "the training points in features that are constant there, row "
                f"{first_row + row} by {steps[row].max():.3g} in column {column}. Log "
                "densities do not see these features."
            )


@dataclass(frozen=True)
class QueriesOnSphere:
    """Queries of a density on a sphere, and results in data units.

    It has the methods of ``Queries`` in ``far_queries``: none is far.
    """

    X: FloatArray | None
    sphere: UnitSphere

    def log_density(self, values):
        """Return log densities with respect to surface measure."""
        return (values + self.sphere.log_density(None)).astype(values.dtype, copy=False)

    def errors(self, values):
        """Return errors of log densities."""
        return values

    def gradient(self, values):
        """Return gradients per data unit, of all features."""
        if not len(self.sphere.values):
            return values
        out = np.zeros((len(values), len(self.sphere.is_constant)), values.dtype)
        out[:, ~self.sphere.is_constant] = values / self.sphere.radius
        return out

    def diagnosis(self, columns):
        """Return columns of ``Diagnosing``."""
        return columns


def check_unit_rows(X: Any, first_row: int = 0) -> None:
    """Raise ValueError, which names the row, unless all rows are of norm 1.

    ``first_row`` is the number of the first one.
    """
    for rows in row_batches(*X.shape):
        block = np.asarray(X[rows], dtype=np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOL))
        if len(wrong):
            norm, row = norms[wrong[0]], first_row + rows.start + wrong[0]
            zero = " A row of zeros has no direction: leave it out." * bool(norm == 0.0)
            raise ValueError(
                f"support='sphere' needs rows of X of unit norm, row {row} has norm "
                f"{norm:.4g}: divide each row by its norm, as "
                f"sklearn.preprocessing.normalize does.{zero}"
            )
