"""Training rows, copies as one, and how rows are known again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from skhdkde._data import find_discrete_features
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.moments import is_constant
from skhdkde._utils.typing import FloatArray, IntArray
from skhdkde._utils.validation import ALL_ZERO, finite_weights, relative_weights


@dataclass(frozen=True)
class DistinctRows:
    """The rows that a density is fitted to.

    Copies of a row are one, with their total weight: what says how unlikely a row is
    must not have seen a copy of it. They are rows of their own if all features that vary
    are discrete, since then equal rows are to be expected.

    Attributes
    ----------
    rows : ndarray of int of shape (n_rows,)
        Of the training rows. Where copies are one these are in the order of their
        hashes, so that the order in which they came makes no difference.
    weights : ndarray of shape (n_rows,) or None
        Relative to the largest; None if all are equal.
    hashes : ndarray of shape (n_distinct,)
        Ascending, all different.
    group : ndarray of int of shape (n_rows,)
        Which of these each row has.
    positive : ndarray of int of shape (n_positive,)
        The training rows of positive weight.
    place : ndarray of int of shape (n_positive,)
        Where each of them is in ``rows``.
    """

    rows: IntArray
    weights: FloatArray | None
    hashes: IntArray
    group: IntArray
    positive: IntArray
    place: IntArray

    @classmethod
    def of(cls, X: FloatArray, weights: FloatArray, *, merge: bool):
        """Return those among the rows of X."""
        positive = np.flatnonzero(weights > 0.0)
        rows: Any = positive
        own: Any = weights[positive]
        hashes, first, group = np.unique(
            row_hashes(X[positive]), return_index=True, return_inverse=True
        )
        place = np.arange(len(positive))
        if merge:
            rows, own, place = positive[first], np.bincount(group, own), group
            group = np.arange(len(hashes))
        relative = None if (own == own[0]).all() else own / own.max()
        return cls(rows, relative, hashes, group, positive, place)

    @property
    def effective_number(self) -> float:
        """Kish's effective number of rows."""
        if self.weights is None:
            return float(len(self.rows))
        return float(self.weights.sum() ** 2 / (self.weights @ self.weights))

    def shares(self) -> FloatArray:
        """Return the share of each row in the weight of all."""
        if self.weights is None:
            return np.full(len(self.rows), 1.0 / len(self.rows))
        return self.weights / self.weights.sum()

    def by_hash(self, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean scores and total weights of the rows with each of the hashes."""
        weights = np.ones(len(self.rows)) if self.weights is None else self.weights
        if len(self.hashes) == len(scores):
            order = np.argsort(self.group)  # no mean: scores may be -inf
            return scores[order], weights[order]
        totals: Any = np.bincount(self.group, weights)
        sums: Any = np.bincount(self.group, weights * scores)
        return sums / totals, totals


def checked_weights(sample_weight: Any, n_samples: int) -> FloatArray:
    """Return weights relative to the largest, which is positive; they are 1 for None."""
    if sample_weight is None:
        return np.ones(n_samples)
    weights = finite_weights(sample_weight, n_samples)
    if not weights.any():
        raise ValueError(ALL_ZERO)
    return relative_weights(weights, weights.max())


def only_discrete(X: FloatArray, wanted: Any, names: Any) -> bool:
    """Return whether all features that vary are discrete, as an estimator asks for."""
    found = None if wanted is None else find_discrete_features(X, wanted, names)
    if found is None:
        return False
    varies = ~is_constant(X.min(axis=0), X.max(axis=0), X.dtype)
    return bool(np.isin(np.flatnonzero(varies), found.columns).all())


def take(X: Any, checked: FloatArray, rows: Any) -> Any:
    """Return rows of X, with the names of its columns if it has such."""
    return _safe_indexing(X if hasattr(X, "columns") else checked, rows)
