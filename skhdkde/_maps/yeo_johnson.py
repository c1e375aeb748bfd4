"""Yeo and Johnson's power transform (2000, A new family of power transformations)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from skhdkde._maps.column import Column
from skhdkde._maps.feature_map import Affine, FeatureMap
from skhdkde._utils.typing import FloatArray

# Values from which a parameter is fitted, at most; error of the parameter, and how near
# to its limits it comes.
N_VALUES, TOL, NEAREST = 2**14, 1e-4, 1e-9


class YeoJohnson(FeatureMap):
    """A power of ``1 + z`` above zero, of ``1 - z`` below, for standardised values ``z``.

    The exponents are ``lam`` and ``2 - lam``. With ``lam`` in [0, 2] none is negative,
    and the map is onto all numbers. Beyond, it would be bounded on one side: a density of
    mapped points has mass past such a bound, which would be lost.

    Parameters
    ----------
    before, after : Affine
    lam : float
    """

    def __init__(self, before: Affine, after: Affine, lam: float):
        super().__init__(before, after)
        self.lam = lam

    @classmethod
    def fit(cls, column: Column) -> YeoJohnson:
        """Return the map for which mapped values are most likely normal."""
        lam = best_power(column.standardised().summary(N_VALUES))
        shape = cls(column.standardising, Affine(), lam)
        mapped = shape.forward(column.values)
        return cls(shape.before, Affine.standardising(mapped, column.shares), lam)

    def __repr__(self):
        return f"yeo-johnson {self.lam:.2f}"

    def _power(self, z):
        """Return the exponent on the side of each value."""
        return np.where(z >= 0.0, self.lam, 2.0 - self.lam)

    def _shape(self, z):
        power = self._power(z)
        return np.copysign(np.expm1(power * np.log1p(np.abs(z))) / power, z)

    def _inverse(self, y):
        power = self._power(y)
        return np.copysign(np.expm1(np.log1p(power * np.abs(y)) / power), y)

    def _log_slope(self, z):
        return (self._power(z) - 1.0) * np.log1p(np.abs(z))

    def _log_slope_derivative(self, z):
        return np.sign(z) * (self._power(z) - 1.0) / (1.0 + np.abs(z))


def best_power(column: Column) -> float:
    """Return the parameter of the largest likelihood, for standardised values."""
    n_below = int(np.searchsorted(column.values, 0.0))
    logs: FloatArray = np.log1p(np.abs(column.values))
    below, above, shares = logs[:n_below], logs[n_below:], column.shares
    log_slope = shares[n_below:] @ above - shares[:n_below] @ below  # per lam - 1
    mapped = np.empty(len(logs))

    def loss(lam):
        mapped[:n_below] = np.expm1((2.0 - lam) * below) / (lam - 2.0)
        mapped[n_below:] = np.expm1(lam * above) / lam
        variance = shares @ np.square(mapped - shares @ mapped)
        return 0.5 * np.log(variance) - (lam - 1.0) * log_slope

    limits = (NEAREST, 2.0 - NEAREST)
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": TOL})
    return float(found.x)
