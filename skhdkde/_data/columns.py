"""Single features: distinct values, the lattice they are on, codes for missing values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dpstrf

from skhdkde._utils.typing import FloatArray, IntArray

# Rounding of a value, in units of its last digit; least step of a lattice, in errors by
# rounding; gaps that are looked at; parts of the smallest one that the step may be.
ROUNDING, LEAST, N_GAPS = 4.0, 10.0, 64
PARTS = np.arange(1.0, 9.0), np.arange(9.0, 1001.0)
# How much farther from all others than these are from each other a code is, and how many
# others there are at least; codes that are known by their name.
FAR, FEWEST_OTHERS = 3.0, 3
NINES = tuple(1.0 - 10.0**k for k in range(2, 10))
# Share of the rows, and number, up to which a feature that varies there only is nearly
# constant: they tell little of its scale.
FEW, FEWEST = 0.01, 10
# How far from the median values are equal up to rounding, in units of its last digit.
CONSTANT = 32.0
# Places of values, for each row, up to which they are counted by place.
MOST_PLACES = 4.0
# How far from a lattice, in steps, a value is off it; share of the distinct values that
# may be, beside one; how much smaller than usual gaps a step is that they make.
OFF, FEW_OFF, MUCH_SMALLER = 0.001, 0.05, 10.0
# Values, other than whole numbers, whose gaps may be usual.
FEWEST_REGULAR = 4
# Share of the features whose spread may be smaller than the narrowest.
FEW_FEATURES = 0.02
# Variance, of 1, that a feature must have beside what follows from others.
SMALLEST_VARIANCE = 1e-6


class Values(NamedTuple):
    """The distinct values of a feature, ascending, and how often each occurs."""

    values: FloatArray
    counts: IntArray

    @classmethod
    def of(cls, column: FloatArray, gap: float | None = None) -> Values:
        """Return those of a feature, ``column`` being its values in all rows.

        If they are multiples of ``gap`` apart, they are counted without being sorted.
        """
        found = None if gap is None else cls._by_place(column, gap)
        return cls(*np.unique(column, return_counts=True)) if found is None else found

    @classmethod
    def _by_place(cls, column, gap):
        """Return them by the number of gaps from the least, None if these differ not."""
        low, high = column.min(), column.max()
        if not (high - low) / gap < MOST_PLACES * len(column):
            return None
        n_gaps = column - low
        n_gaps *= 1.0 / gap
        place = np.rint(n_gaps, out=n_gaps).astype(np.int64)
        counts = np.bincount(place)
        values = np.empty(len(counts))
        values[place] = column
        if not np.array_equal(values[place], column):
            return None
        seen = np.flatnonzero(counts)
        return cls(values[seen], counts[seen])

    def step(self, eps: float) -> float:
        """Return the step of the lattice that the values are on; NaN if there is none.

        Any few numbers are on some lattice, so that ties must show it: there are at most
        half as many values as rows. ``eps`` is the resolution of their dtype.
        """
        if 2 * len(self.values) > self.counts.sum():
            return np.nan
        return common_step(self.values, eps)

    def off_lattice(self, step: float) -> FloatArray:
        """Return a few values without which the step would be many times as large.

        Others are whole numbers, or a usual gap apart. A mean in place of missing counts
        is such a value. ``step`` is that of all, NaN if there is none.
        """
        n_values = len(self.values)
        if 2 * n_values > self.counts.sum() or n_values < 3:
            return np.empty(0)
        lattices = [(0.0, 1.0, 2)]
        mean_gap = (self.values[-1] - self.values[0]) / (n_values - 1)
        # at most half of the gaps are above twice their mean: so is not the usual one
        if not MUCH_SMALLER * step > 2.0 * mean_gap:
            gaps = np.diff(self.values)
            usual = np.partition(gaps, len(gaps) // 2)[len(gaps) // 2]
            start = self.values[np.argmax(gaps == usual)]
            lattices.append((start, usual, FEWEST_REGULAR))
        for start, gap, fewest in lattices:
            off = off_steps(self.values - start, gap)
            few = 0 < np.count_nonzero(off) <= 1.0 + FEW_OFF * n_values
            if few and not MUCH_SMALLER * step > gap:
                others = self.values[~off]
                usually = np.median(np.diff(others)) <= gap * (1.0 + OFF)
                if len(others) >= fewest and usually:
                    return self.values[off]
        return np.empty(0)

    def nearly_constant(self) -> bool:
        """Return whether most rows have the same value, and few another."""
        n_rows = self.counts.sum()
        return bool(n_rows - self.counts.max() <= fewest_varying(n_rows))

    def codes(self) -> FloatArray:
        """Return the values that may be codes for missing ones.

        Codes are smallest or largest values that occur more than once, either far from
        all others or of the form -99, -999, ... where no other is negative.
        """
        low, high = 0, len(self.values)
        while any(ends := self._far_ends(low, high)):
            low, high = low + ends[0], high - ends[1]
        if low == 0 and high > 1 and self.values[0] in NINES:
            low = int(self.counts[0] > 1 and self.values[1] >= 0.0)
        return np.concatenate([self.values[:low], self.values[high:]])

    def _far_ends(self, low, high):
        """Return how many values, at the low end and at the high one, are far codes."""
        for at_low, at_high in ((1, 0), (0, 1), (1, 1)):
            others = self.values[low + at_low : high - at_high]
            if len(others) < FEWEST_OTHERS:
                continue
            reach = FAR * (others[-1] - others[0])
            is_low = self.counts[low] > 1 and others[0] - self.values[low] > reach
            top = high - 1
            is_high = self.counts[top] > 1 and self.values[top] - others[-1] > reach
            if (is_low or not at_low) and (is_high or not at_high):
                return at_low, at_high
        return 0, 0


def off_steps(distances: FloatArray, step: float) -> np.ndarray:
    """Return which distances are far from multiples of a step."""
    n_steps = distances / step
    return np.abs(n_steps - np.rint(n_steps)) > OFF


def common_step(values: FloatArray, eps: float) -> float:
    """Return the greatest step of which all differences are multiples; NaN for none.

    It is the smallest gap between values over a whole number, the first for which all
    gaps are multiples, as far as rounding lets one say.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        Ascending.
    eps : float
        Relative error of each.
    """
    largest = np.abs(values).max(initial=0.0)
    if (values == np.rint(values)).all() and largest <= 2.0 / eps:
        step = float(np.gcd.reduce(np.diff(values).astype(np.int64), initial=0))
        return step if step > 0.0 else np.nan
    exponent = np.frexp(largest)[1]  # so that no difference is out of range
    step = _step_of_fractions(np.ldexp(values, -exponent), ROUNDING * eps)
    return float(np.ldexp(step, exponent))


def _step_of_fractions(values, error):
    """Return the step of values up to 1 that are off by ``error``."""
    gaps = np.diff(values)
    gaps = gaps[gaps > 2.0 * error]  # else they are one value
    if not len(gaps):
        return np.nan
    step = _step_of_gaps(gaps, error)
    found = _refined(values, step, error)
    if np.isnan(found) and step > 0.0:  # gaps of some sizes were not looked at
        found = _refined(values, _step_of_gaps(np.unique(gaps), error), error)
    return found


def _step_of_gaps(gaps, error):
    """Return the step of which some of the gaps are multiples; NaN for none."""
    smallest = gaps.min()
    some = gaps[np.linspace(0, len(gaps) - 1, min(len(gaps), N_GAPS)).astype(int)]
    ratio, error_of_ratio = some / smallest, error * (1.0 + some / smallest) / smallest
    for parts in PARTS:
        n_steps = parts[:, None] * ratio
        fits = np.abs(n_steps - np.rint(n_steps)) <= parts[:, None] * error_of_ratio
        found = np.flatnonzero(fits.all(axis=1))
        if len(found):
            step = float(smallest / parts[found[0]])
            return step if step > LEAST * error else np.nan
    return np.nan


def _refined(values, step, error):
    """Return the step without its error; NaN if not all values are on its lattice."""
    if np.isnan(step):
        return np.nan
    distance = values - values[0]
    n_doublings = np.ceil(np.log2(distance[-1] / step))
    farther = np.searchsorted(distance, step * 2.0 ** np.arange(n_doublings))
    for far in distance[[*farther, -1]]:  # each gives digits that the next one needs
        step = float(far / np.rint(far / step))
    n_steps = distance / step
    off = np.abs(n_steps - np.rint(n_steps)).max() * step
    return step if off <= 2.0 * error else np.nan


def fewest_varying(n_rows: int) -> float:
    """Return up to how many rows are too few to tell of a scale."""
    return max(FEW * n_rows, FEWEST)


def spreads(columns: FloatArray, eps: float) -> FloatArray:
    """Return the median distance from the median, of the rows that are not at it.

    Neither outliers nor a value that most rows share change it. NaN where a feature is
    constant, up to rounding or in most rows, or where there are few rows.

    Parameters
    ----------
    columns : ndarray of shape (n_features, n_rows)
        Each ascending.
    eps : float
        Resolution of their dtype.
    """
    n_rows = columns.shape[1]
    half = n_rows // 2
    median = columns[:, [half]]
    # below it and above it they ascend, which a stable sort merges
    distance = np.hstack([median - columns[:, half::-1], columns[:, half + 1 :] - median])
    distance.sort(axis=1, kind="stable")
    rounding = CONSTANT * eps * np.abs(median)
    at_median = np.count_nonzero(distance <= rounding, axis=1)
    nearly_constant = n_rows - at_median <= fewest_varying(n_rows)
    middle = np.minimum(at_median + (n_rows - at_median) // 2, n_rows - 1)
    spread = distance[np.arange(len(columns)), middle]
    return np.where(nearly_constant, np.nan, spread)


def widest_and_narrowest(spread: FloatArray) -> tuple[int, int, float] | None:
    """Return the features of largest and smallest spread, and the ratio; None for none.

    Of many features a few may be smaller still, as some outputs of a network are nearly
    dead. ``spread`` is NaN where a feature has none.
    """
    known = np.count_nonzero(~np.isnan(spread))
    if not known:
        return None
    order = np.argsort(spread)
    narrowest, widest = int(order[int(FEW_FEATURES * known)]), int(order[known - 1])
    return widest, narrowest, float(spread[widest] / spread[narrowest])


def redundant_features(X: FloatArray) -> np.ndarray:
    """Return which features follow linearly from others, but for 1e-6 of their variance.

    By a Cholesky factorisation of the correlations with pivots, which takes the feature
    that follows least, again and again. Features that are constant are not among them.
    """
    found = np.zeros(X.shape[1], dtype=bool)
    Z = X - X.mean(axis=0)
    largest = np.abs(Z).max(axis=0)
    varying = np.flatnonzero(np.ptp(X, axis=0) > 0.0)
    Z = Z[:, varying] / largest[varying]
    Z /= np.sqrt(np.mean(Z**2, axis=0))
    if len(varying) > 1:
        *_, pivots, rank, _ = dpstrf(Z.T @ Z / len(Z), tol=SMALLEST_VARIANCE)
        found[varying[pivots[rank:] - 1]] = True
    return found
