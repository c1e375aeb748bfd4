"""The training values of one feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._maps.feature_map import FeatureMap
from skhdkde._utils.moments import is_constant
from skhdkde._utils.typing import FloatArray

# Share of the weight below which a value does not count.
LEAST_SHARE = 1e-12
# Part of the values, at each end, that stay as they are where there are many.
END_PART = 8


@dataclass(frozen=True)
class Column:
    """The distinct values of a feature, ascending, and the share of the weight of each.

    A weight counts as so many equal rows.
    """

    values: FloatArray
    shares: FloatArray

    @classmethod
    def of(cls, x: FloatArray, weights: FloatArray | None = None) -> Column:
        """Return the values in all rows, with weights if there are any."""
        if weights is None:
            values, weight = np.unique(x, return_counts=True)
        else:
            values, place = np.unique(x, return_inverse=True)
            weight = np.bincount(place, weights)
        shares = weight / weight.sum()
        counts = shares >= LEAST_SHARE
        return cls(values[counts].astype(np.float64), shares[counts])

    def is_constant(self, dtype: Any) -> bool:
        """Return whether the values, of a dtype, are one but for rounding."""
        return bool(is_constant(self.values[0], self.values[-1], dtype))

    def mapped(self, feature_map: FeatureMap) -> Column:
        """Return the values that an increasing map gives."""
        return Column(feature_map.forward(self.values), self.shares)

    @property
    def median(self) -> float:
        """The value at or below which half of the weight is."""
        half = int(np.searchsorted(np.cumsum(self.shares), 0.5))
        return float(self.values[min(half, len(self.values) - 1)])

    @property
    def standard_deviation(self) -> float:
        """The standard deviation, in the unit of the values."""
        largest = np.abs(self.values).max()
        values = self.values / largest  # no square is out of range
        return float(
            np.sqrt(self.shares @ (values - self.shares @ values) ** 2) * largest
        )

    @property
    def effective_number(self) -> float:
        """Kish's effective number of values."""
        return float(1.0 / np.sum(self.shares**2))

    def drawn(self, uniform: FloatArray) -> Column:
        """Return values at places in (0, 1), or all if these are not more.

        Uniform places make a random sample. It does not depend on the order of the rows,
        and is the same where a weight stands for equal rows. If one value has nearly all
        the weight, so that no other is drawn, a summary stands for the sample.
        """
        if len(self.values) <= len(uniform):
            return self
        places = np.searchsorted(np.cumsum(self.shares), uniform)
        few = Column.of(self.values[np.minimum(places, len(self.values) - 1)])
        return few if len(few.values) > 1 else self.summary(len(uniform))

    def summary(self, most: int) -> Column:
        """Return at most so many values that stand for all.

        Those near the ends stay. The others are quantiles, in the middle of intervals of
        equal weight.
        """
        if len(self.values) <= most:
            return self
        n_ends = most // END_PART
        n_middle = most - 2 * n_ends
        low, middle, high = slice(n_ends), slice(n_ends, -n_ends), slice(-n_ends, None)
        shares = self.shares[middle]
        total = shares.sum()
        at = total * (np.arange(n_middle) + 0.5) / n_middle
        quantiles = np.interp(at, np.cumsum(shares) - 0.5 * shares, self.values[middle])
        equal = np.full(n_middle, total / n_middle)
        return Column(
            np.concatenate([self.values[low], quantiles, self.values[high]]),
            np.concatenate([self.shares[low], equal, self.shares[high]]),
        )
