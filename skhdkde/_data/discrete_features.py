"""Discrete features, as continuous ones: dequantisation.

A value ``y`` on a lattice of step ``s`` stands for ``y + s U``, ``U`` uniform in
[-1/2, 1/2]. Training points get one draw each; queries are scored at the lattice, and
random points are rounded to it. The density of what is spread has the log probability of
the cell, less ``log s`` for each feature, as its mean at most (Theis, van den Oord and
Bethge, 2016, A note on the evaluation of generative models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._data.columns import Values, common_step
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.random import STEP, mix_bits
from skhdkde._utils.typing import FloatArray, IntArray

# Bandwidth, in steps, below which kernels resolve what was drawn within a cell.
LEAST_BANDWIDTH = 0.3
# Rows among which ties are looked for first.
N_SAMPLED = 2048


@dataclass(frozen=True)
class DiscreteFeatures:
    """Discrete features of the training points.

    Parameters
    ----------
    columns : ndarray of int of shape (n_discrete,)
    step, least, most : ndarray of shape (n_discrete,)
        Of their lattices, and smallest and largest value.
    """

    columns: IntArray
    step: FloatArray
    least: FloatArray
    most: FloatArray

    def spread(self, X: FloatArray, seed: int) -> FloatArray:
        """Return training points with values spread over the cells of the lattices.

        What is added depends on the row and the seed. Equal rows are spread alike, and
        remain duplicates, unless no other feature varies: then equal rows are what is to
        be expected.
        """
        hashes, varying = row_hashes(X), np.flatnonzero(np.ptp(X, axis=0) > 0.0)
        if not len(np.setdiff1d(varying, self.columns)):
            hashes = mix_bits(hashes + occurrences(hashes).astype(np.uint64) * STEP)
        hashes = mix_bits(hashes ^ mix_bits(np.array([seed], dtype=np.uint64)))
        X = X.copy()
        for column, step in zip(self.columns, self.step, strict=True):
            own = mix_bits(np.array([column + 1], dtype=np.uint64) * STEP)
            bits = mix_bits(hashes ^ own)
            uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5
            X[:, column] += (step * uniform).astype(X.dtype)
        return X

    def before(self, X: FloatArray) -> SpreadPoints:
        """Return what is to be known of points X that are spread."""
        return SpreadPoints(X, LEAST_BANDWIDTH * float(self.step.min()))

    def rounded(self, X: FloatArray) -> FloatArray:
        """Return points with these features on their lattices, in the range of values."""
        X = X.copy()
        n_steps = np.rint((X[:, self.columns] - self.least) / self.step)
        values = self.least + self.step * n_steps
        X[:, self.columns] = np.clip(values, self.least, self.most)
        return X


@dataclass(frozen=True)
class SpreadPoints:
    """Training points before discrete features were spread.

    Attributes
    ----------
    given : ndarray of shape (n_points, n_features)
        As queries they are there.
    least_bandwidth : float
        For all features, in data units.
    """

    given: FloatArray
    least_bandwidth: float


def find_discrete_features(X: FloatArray, wanted: Any, names: Any):
    """Return the discrete features of training points; None if there are none.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    wanted : None, "auto", or array-like
        Which there are: "auto" takes those with ties on a lattice; or a mask, indices,
        or names.
    names : ndarray of str or None
        Of the features.

    Raises
    ------
    ValueError
        If there is no such feature, or one is on no lattice.
    """
    if wanted is None:
        return None
    automatic = isinstance(wanted, str)
    if automatic:
        columns: IntArray = np.flatnonzero(_with_ties(X))
    else:
        columns = columns_wanted(wanted, X.shape[1], names)
    eps, found = float(np.finfo(X.dtype).eps), []
    for column in columns:
        values = Values.of(X[:, column].astype(np.float64))
        low, high = values.values[0], values.values[-1]
        if low == high:  # constant: that has a kernel of its own
            continue
        step = (
            _step_by_ties(values, eps) if automatic else common_step(values.values, eps)
        )
        if not np.isnan(step):
            found.append((column, step, low, high))
        elif not automatic:
            name = column if names is None else repr(names[column])
            raise ValueError(
                f"discrete_features has feature {name}, whose values are not on a "
                f"lattice: {values.values[:3].tolist()} and others have no common step. "
                "Leave it out, or round it."
            )
    if not found:
        return None
    which, *others = (np.array(own) for own in zip(*found, strict=True))
    return DiscreteFeatures(which.astype(int), *others)


def columns_wanted(wanted: Any, n_features: int, names: Any) -> IntArray:
    """Return the columns of a mask, of indices or of names."""
    asked = np.asarray(wanted)
    if asked.dtype == bool:
        if asked.shape != (n_features,):
            raise ValueError(
                f"discrete_features is a mask of shape {asked.shape}, expected "
                f"{(n_features,)}."
            )
        return np.flatnonzero(asked)
    if asked.ndim != 1:
        raise ValueError(f"discrete_features must be 1D, got shape {asked.shape}.")
    if asked.dtype.kind in "UO" and len(asked):
        return _named(asked.tolist(), names)
    if len(asked) and asked.dtype.kind not in "iu":
        raise ValueError(
            "discrete_features must be 'auto', a mask, indices or names, got "
            f"{asked.tolist()[0]!r} in it."
        )
    if len(asked) and not (-n_features <= asked.min() and asked.max() < n_features):
        raise ValueError(
            f"discrete_features has an index beyond the {n_features} features of X."
        )
    return np.unique(asked.astype(int) % n_features)


def _named(asked, names):
    """Return the columns of names."""
    if names is None:
        raise ValueError(
            "discrete_features has names of features, which X has none of: pass a data "
            "frame, or indices."
        )
    places = {name: column for column, name in enumerate(names)}
    missing = [name for name in asked if name not in places]
    if missing:
        raise ValueError(f"discrete_features has {missing[0]!r}, which X has not.")
    return np.unique([places[name] for name in asked])


def occurrences(hashes: IntArray) -> IntArray:
    """Return how many equal ones come before each."""
    order = np.argsort(hashes, kind="stable")
    new = np.append(True, np.diff(hashes[order]) != 0)
    starts = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    counts = np.empty(len(order), dtype=int)
    counts[order] = np.arange(len(order)) - starts
    return counts


def _step_by_ties(values, eps):
    """Return the step of a lattice that ties show, or NaN.

    Few values beside one that nearly all rows have show no lattice, unless whole numbers.
    """
    whole = (values.values == np.rint(values.values)).all()
    if values.nearly_constant() and not whole:
        return np.nan
    return values.step(eps)


def _with_ties(X):
    """Return which features have equal values among a few rows, so that all may tell."""
    rows = np.linspace(0, len(X) - 1, min(len(X), N_SAMPLED)).astype(int)
    columns = np.sort(X[rows], axis=0)
    return (columns[1:] == columns[:-1]).any(axis=0)
