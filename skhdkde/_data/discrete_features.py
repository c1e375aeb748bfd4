"""Discrete features, as continuous ones: dequantisation.

A value ``y`` on a lattice of step ``s`` stands for ``y + s U``, ``U`` uniform in
[-1/2, 1/2]. Training points get one draw each; queries are scored at the lattice, and
random points are rounded to it. The density of what is spread has the log probability of
the cell, less ``log s`` for each feature, as its mean at most (Theis, van den Oord and
Bethge, 2016, A note on the evaluation of generative models).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._data.columns import Values, common_step
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.moments import is_constant
from skhdkde._utils.random import STEP, mix_bits
from skhdkde._utils.typing import FloatArray, IntArray

# Bandwidth, in steps, below which kernels resolve what was drawn within a cell.
LEAST_BANDWIDTH = 0.3
# Distance from a lattice, in steps, that is rounding of new values.
OFF_LATTICE = 0.01
# Numbers that there are in a cell, at least, once values are spread.
FEWEST_PLACES = 1000.0
# Rows among which ties are looked for first.
N_SAMPLED = 2048


@dataclass(frozen=True)
class DiscreteFeatures:
    """Discrete features of the training points.

    Parameters
    ----------
    columns : ndarray of int of shape (n_discrete,)
    step : ndarray of shape (n_discrete,)
        Of their lattices.
    seen : list of ndarray
        Values of each in the training points, ascending.
    """

    columns: IntArray
    step: FloatArray
    seen: list[FloatArray]

    @property
    def of_two_values(self) -> IntArray:
        """Columns of two values, such as booleans, which have no shape."""
        two = [len(values) <= 2 for values in self.seen]
        return self.columns[two]

    def of(self, features: IntArray) -> DiscreteFeatures | None:
        """Return these for some of the features, in this order; None if none is."""
        places = {column: k for k, column in enumerate(self.columns.tolist())}
        own = [(i, places[k]) for i, k in enumerate(features.tolist()) if k in places]
        if not own:
            return None
        columns, which = np.array(own).T
        return DiscreteFeatures(columns, self.step[which], [self.seen[k] for k in which])

    def check(self, X: FloatArray, dtype: Any, names: Any) -> None:
        """Raise ValueError if points, in ``dtype``, have values on no lattice here."""
        eps = np.finfo(dtype).eps * FEWEST_PLACES
        for column, step, seen in zip(self.columns, self.step, self.seen, strict=True):
            x = X[:, column].astype(np.float64)
            steps = (x - seen[0]) / step
            wrong = np.abs(steps - np.rint(steps)) > OFF_LATTICE
            wrong |= eps * np.abs(x) > step
            if wrong.any():
                name = column if names is None else repr(str(names[column]))
                raise ValueError(
                    f"discrete_features has feature {name}, on a lattice of step "
                    f"{step:g} in the rows of the fit; X has {x[wrong.argmax()]:g} in "
                    f"row {wrong.argmax()}, which is not on it, or too large for it."
                )

    def extended(self, X: FloatArray) -> DiscreteFeatures:
        """Return these with the values of more points as seen."""
        pairs = zip(self.columns, self.seen, strict=True)
        seen = [np.union1d(values, X[:, k].astype(np.float64)) for k, values in pairs]
        return dataclasses.replace(self, seen=seen)

    def spread(self, X: FloatArray, seed: int) -> FloatArray:
        """Return training points with values spread over the cells of the lattices.

        What is added depends on the seed and on what is in the row, but not on units.
        Equal rows are spread alike, and remain duplicates, unless no other feature
        varies: then equal rows are what is to be expected. Where float32 does not resolve
        a cell, the points are float64.
        """
        X = self._resolving(X)
        hashes, others = self._hashes(X)
        if not others:
            hashes = mix_bits(hashes + occurrences(hashes).astype(np.uint64) * STEP)
        hashes = mix_bits(hashes ^ mix_bits(np.array([seed], dtype=np.uint64)))
        X = X.copy()
        for column, step in zip(self.columns, self.step, strict=True):
            own = mix_bits(np.array([column + 1], dtype=np.uint64) * STEP)
            bits = mix_bits(hashes ^ own)
            uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5
            X[:, column] += (step * uniform).astype(X.dtype)
        return X

    def _hashes(self, X):
        """Return hashes of rows, by the order of values, and whether others vary."""
        varies = ~is_constant(X.min(axis=0), X.max(axis=0), X.dtype)
        others = np.setdiff1d(np.flatnonzero(varies), self.columns)
        columns = np.sort(np.concatenate([self.columns, others]))
        places = [np.unique(X[:, k], return_inverse=True)[1].ravel() for k in columns]
        return row_hashes(np.column_stack(places).astype(np.float64)), len(others) > 0

    def _resolving(self, X):
        """Return X in a dtype in which numbers are much denser than steps."""
        pairs = zip(self.seen, self.step, strict=True)
        fine = all(resolves(X.dtype, values, step) for values, step in pairs)
        return X if fine else X.astype(np.float64)

    def before(self, X: FloatArray) -> SpreadPoints:
        """Return what is to be known of points X that are spread."""
        return SpreadPoints(X, LEAST_BANDWIDTH * float(self.step.min()))

    def rounded(self, X: FloatArray) -> FloatArray:
        """Return points with these features on their lattices, in the range of values.

        Values that training points have are these, to the last bit.
        """
        X = X.copy()
        for k, column in enumerate(self.columns):
            step, seen = self.step[k], self.seen[k]
            n_steps = np.rint((X[:, column] - seen[0]) / step)
            values = np.clip(seen[0] + step * n_steps, seen[0], seen[-1])
            place = np.searchsorted(seen, values - 0.5 * step)
            nearest = seen[np.minimum(place, len(seen) - 1)]
            X[:, column] = np.where(
                np.abs(nearest - values) < 0.5 * step, nearest, values
            )
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
        if is_constant(values.values[0], values.values[-1], X.dtype):
            continue  # it has a kernel of its own
        step = (
            _step_by_ties(values, eps) if automatic else common_step(values.values, eps)
        )
        fine = resolves(np.float64, values.values, step)  # not if the step is NaN
        if fine:
            found.append((column, step, values.values))
        elif not automatic:
            name = column if names is None else repr(names[column])
            raise ValueError(
                f"discrete_features has feature {name}, whose values are not on a "
                f"lattice: {values.values[:3].tolist()} and others have no common step, "
                "or one that numbers of that size do not resolve. Leave it out, round "
                "it, or subtract a number."
            )
    if not found:
        return None
    which, steps, seen = zip(*found, strict=True)
    return DiscreteFeatures(np.array(which, dtype=int), np.array(steps), list(seen))


def step_of_all(X: FloatArray) -> float:
    """Return the largest step of the features, 0 if one that varies is on no lattice.

    It is found in some of the rows, evenly spaced.
    """
    X = np.asarray(_some_rows(X))
    found = find_discrete_features(X, "auto", None)
    varies = ~is_constant(X.min(axis=0), X.max(axis=0), X.dtype)
    if found is None or len(found.columns) < np.count_nonzero(varies):
        return 0.0
    return float(found.step.max())


def columns_wanted(wanted: Any, n_features: int, names: Any) -> IntArray:
    """Return the columns of a mask, of indices or of names."""
    asked = np.asarray(wanted)
    if asked.dtype.kind in "OT" and asked.ndim == 1:  # of some other kind of list
        asked = np.array(asked.tolist())
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


def resolves(dtype: Any, values: FloatArray, step: float) -> bool:
    """Return whether numbers of a dtype are much denser than a lattice."""
    return bool(np.finfo(dtype).eps * np.abs(values).max() <= step / FEWEST_PLACES)


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
    columns = np.sort(_some_rows(X), axis=0)
    return (columns[1:] == columns[:-1]).any(axis=0)


def _some_rows(X):
    """Return rows at even spacing."""
    return X[np.linspace(0, len(X) - 1, min(len(X), N_SAMPLED)).astype(int)]
