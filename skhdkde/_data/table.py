"""The training points of a fit as a table: what is found in it, and what is warned of."""

from __future__ import annotations

from typing import Any

import numpy as np

from skhdkde._data.columns import (
    Values,
    redundant_features,
    spreads,
    widest_and_narrowest,
)
from skhdkde._data.report import LARGEST_RATIO, DataReport, label, listed
from skhdkde._utils.arrays import row_batches, slices
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.warnings import warn_user

# Rows that are looked at first; elements of a block that stays in the cache, and of a set
# of features that are looked at in all rows.
N_SAMPLED, SMALL_BLOCK_SIZE, COLUMNS_SIZE = 2048, 2**16, 2**22
# Features up to which linear dependence is looked for.
MOST_FEATURES = 512
# Width of a kernel, in steps of a lattice, below which a density is that of the lattice:
# its mean over a cell is then less than 0.6 of what it is at the points.
NARROW = 0.25
# Error of the norm of a row that counts as one.
NORM_TOL = 1e-3


class Table:
    """The training points of positive weight, read from a fitted density.

    Parameters
    ----------
    density : Density
        Whose training points they are; they are not copied.
    names : ndarray of str or None
        Of the features.
    n_merged : int or None
        Number of duplicates, exact or nearly, that the search for the bandwidth merged;
        None if there was none.
    covariance_type : str
        In use.
    n_missing : ndarray of int of shape (n_features,) or None
        Number of values that were missing, and drawn; None if there were none.
    """

    def __init__(
        self,
        density: Any,
        names: Any,
        n_merged: int | None,
        covariance_type: str,
        n_missing: np.ndarray | None = None,
    ):
        self._density, self._n_merged = density, n_merged
        self._covariance_type, self._n_missing = covariance_type, n_missing
        self._names = None if names is None else tuple(names)
        self._made: DataReport | None = None

    def of(self, density: Any) -> Table:
        """Return the table of a density that has got more points."""
        return Table(density, self._names, None, self._covariance_type, self._n_missing)

    @property
    def made(self) -> bool:
        """Whether a report has been asked for."""
        return self._made is not None

    def report(self) -> DataReport:
        """Return what was found, made at the first call."""
        if self._made is None:
            with np.errstate(over="ignore", invalid="ignore"):
                self._made = self._report()
        return self._made

    def check(self, covariance_type: str, widths: FloatArray | None) -> None:
        """Warn of what harms the estimate, from a sample of the rows.

        Parameters
        ----------
        covariance_type : str
            As it was asked for.
        widths : ndarray of shape (n_features,) or None
            Of a kernel in each feature, given the others, in data units; None for kernels
            that take no shape from the data.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            columns = np.sort(self._sample.T, axis=1)
            if widths is not None:  # also of maps of features, which standardise
                self._check_lattices(columns, widths, covariance_type)
            elif covariance_type == "spherical":
                self._check_spreads(columns)

    def _check_spreads(self, columns):
        """Warn of features so far apart in scale that no one bandwidth suits both."""
        spread = spreads(columns, self._eps)
        found = widest_and_narrowest(spread)
        if found is None or found[2] <= LARGEST_RATIO:
            return
        far, near = (f"{spread[j]:.3g} in {label(self._names, j)}" for j in found[:2])
        warn_user(
            f"Features of X are apart in scale by a factor of {found[2]:.3g}: typical "
            f"distances from the median are {far} and {near}. "
            "covariance_type='spherical' has one bandwidth for all. Standardise X by "
            "StandardScaler in a pipeline, or pass covariance_type='diag' or 'auto'. The "
            "fitted data_report_ has all features."
        )

    def _check_lattices(self, columns, widths, covariance_type):
        """Warn of discrete features whose values kernels tell apart."""
        steps = np.full(len(columns), np.nan)
        for j in np.flatnonzero(has_ties(columns)):
            found = Values.of(columns[j])
            if not found.nearly_constant():
                steps[j] = found.step(self._eps)
        narrow = np.flatnonzero(widths < NARROW * steps)
        if not len(narrow):
            return
        least = (widths / steps)[narrow].min()
        warn_user(
            f"{len(narrow)} of {len(columns)} features of X are discrete, and kernels "
            f"are so narrow, down to {least:.2g} of a step, that they tell values apart: "
            f"{listed(self._names, narrow)}. With "
            f"covariance_type={covariance_type!r} log densities then measure how narrow "
            "kernels are, not how likely values are. Pass discrete_features='auto', or "
            "leave such features out. The fitted data_report_ has all features."
        )

    @property
    def _eps(self):
        return float(np.finfo(self._density.dtype).eps)

    @property
    def _shape(self) -> tuple[int, int]:
        return self._density.n_points, self._density.n_given

    @property
    def _sample(self):
        """Rows drawn at random, the same each time, float64."""
        n_rows = self._shape[0]
        rows = np.arange(n_rows)
        if n_rows > N_SAMPLED:
            rng = np.random.default_rng(0)
            rows = np.sort(rng.choice(n_rows, N_SAMPLED, replace=False, shuffle=False))
        return self._read(rows)

    def _read(self, rows, features=slice(None)):
        """Return features of some rows, in data units, float64; not to be changed."""
        X = self._density.given(rows)[:, features]
        return X.astype(np.float64, copy=False)

    def _blocks(self):
        """Yield blocks of rows, and which rows they are."""
        for rows in row_batches(*self._shape, SMALL_BLOCK_SIZE):
            yield self._read(rows), rows

    def _report(self):
        n_rows, n_features = self._shape
        sample = self._sample
        columns = np.sort(sample.T, axis=1)
        low, high, of_unit_norm, keys = self._extremes()
        unsure = has_ties(columns) | far_beyond(columns, low, high)
        if n_rows <= N_SAMPLED:
            unsure[:] = True
        redundant, n_missing = None, self._n_missing
        if n_features <= min(MOST_FEATURES, n_rows - 1):
            redundant = redundant_features(sample)
        n_duplicates, n_near = self._n_duplicates(keys), None
        if self._n_merged is not None:
            n_near = max(self._n_merged - n_duplicates, 0)
        return DataReport(
            n_rows=n_rows,
            covariance_type=self._covariance_type,
            feature_names=self._names,
            minimum=low,
            maximum=high,
            standard_deviation=self._deviations(columns, low, high),
            spread=spreads(columns, self._eps),
            **self._ties(np.flatnonzero(unsure), columns),
            n_missing=np.zeros(n_features, int) if n_missing is None else n_missing,
            redundant=redundant,
            n_duplicates=n_duplicates,
            n_near_duplicates=n_near,
            unit_norm=of_unit_norm and n_features > 1,
        )

    def _extremes(self):
        """Return least and largest values, whether norms are one, and keys of rows.

        Keys are equal for equal rows.
        """
        low, high = np.full((2, self._shape[1]), np.inf) * [[1.0], [-1.0]]
        of_unit_norm, keys = True, np.empty(self._shape[0])
        direction = np.cos(np.arange(self._shape[1]) + 1.0)
        for X, rows in self._blocks():
            low = np.minimum(low, X.min(axis=0))
            high = np.maximum(high, X.max(axis=0))
            keys[rows] = np.einsum("ij,j->i", X, direction)
            if of_unit_norm:
                norms = np.sqrt(np.einsum("ij,ij->i", X, X))
                of_unit_norm = bool((np.abs(norms - 1.0) <= NORM_TOL).all())
        return low, high, of_unit_norm, np.nan_to_num(keys)

    def _n_duplicates(self, keys):
        """Return how many rows equal another one before them."""
        order = np.argsort(keys)
        tied = np.flatnonzero(np.diff(keys[order]) == 0.0)
        rows = order[np.unique(np.concatenate([tied, tied + 1]))]
        return len(rows) - len(np.unique(row_hashes(self._read(rows))))

    def _deviations(self, columns, low, high):
        """Return standard deviations, weighted, without overflow or loss of digits."""
        center = columns[:, columns.shape[1] // 2]
        unit = np.maximum(high - center, center - low)
        unit[unit == 0.0] = 1.0
        weights = self._density.weights()
        sums, squares = np.zeros((2, self._shape[1]))
        for X, rows in self._blocks():
            X = X - center
            X /= unit
            sums += weights[rows] @ X
            squares += weights[rows] @ np.square(X, out=X)
        total = weights.sum()
        mean, mean_sq = sums / total, squares / total
        return unit * np.sqrt(np.maximum(mean_sq - mean**2, 0.0))

    def _ties(self, features, columns):
        """Return what ties tell of some features, from all rows; NaN for others.

        ``columns`` are the sampled rows, ascending in each feature.
        """
        n_rows, n_features = self._shape
        n_distinct, share, n_varying, steps = np.full((4, n_features), np.nan)
        codes: list = [()] * n_features
        off: list = [()] * n_features
        for some in slices(len(features), max(1, COLUMNS_SIZE // n_rows)):
            which = features[some]
            for j, column in zip(which, self._columns(which), strict=True):
                found = Values.of(column, smallest_gap(columns[j]))
                commonest = found.counts.max()
                n_distinct[j], share[j] = len(found.values), commonest / n_rows
                n_varying[j] = n_rows - commonest
                steps[j] = found.step(self._eps)
                codes[j] = tuple(found.codes().tolist())
                off[j] = tuple(found.off_lattice(steps[j]).tolist())
        return {
            "n_distinct": n_distinct,
            "commonest_share": share,
            "n_varying": n_varying,
            "step": steps,
            "missing_codes": tuple(codes),
            "off_lattice": tuple(off),
        }

    def _columns(self, features):
        """Return some features in all rows, one after another in memory."""
        columns = np.empty((len(features), self._shape[0]))
        which = slice(None) if len(features) == self._shape[1] else features
        for X, rows in self._blocks():
            columns[:, rows] = X[:, which].T
        return columns


def smallest_gap(ascending):
    """Return the smallest gap between values that differ; infinite if none do."""
    gaps = np.diff(ascending)
    return gaps[gaps > 0.0].min(initial=np.inf)


def has_ties(columns):
    """Return which features, ascending in each row of ``columns``, have equal values."""
    return (columns[:, 1:] == columns[:, :-1]).any(axis=1)


def far_beyond(columns, low, high):
    """Return which features may have codes for missing values that are no ties yet.

    These are beyond all but the smallest and largest sampled value by as much as those
    are apart, or the only negative ones.
    """
    inner = columns[:, 1:-1] if columns.shape[1] > 2 else columns
    first, last = inner[:, 0], inner[:, -1]
    beyond = np.maximum(first - low, high - last) > last - first
    return beyond | ((low < 0.0) & (first >= 0.0))
