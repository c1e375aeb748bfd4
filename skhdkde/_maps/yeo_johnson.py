"""Yeo and Johnson's power transform (2000, A new family of power transformations)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from skhdkde._maps.column import Column
from skhdkde._maps.feature_map import Affine, Chain, FeatureMap
from skhdkde._utils.typing import FloatArray

# Values from which a parameter is fitted, at most; error of the parameter, and how near
# to its limits it comes.
N_VALUES, TOL, NEAREST = 2**14, 1e-4, 1e-9


@dataclass(frozen=True)
class Power(FeatureMap):
    """A power of ``1 + x`` above zero, of ``1 - x`` below.

    The exponents are ``lam`` and ``2 - lam``. With ``lam`` in [0, 2] none is negative,
    and the map is onto all numbers. Beyond, it would be bounded on one side: a density of
    mapped points has mass past such a bound, which would be lost.
    """

    lam: float

    def _power(self, x):
        """Return the exponent on the side of each value."""
        return np.where(x >= 0.0, self.lam, 2.0 - self.lam)

    def forward(self, x):
        power = self._power(x)
        return np.copysign(np.expm1(power * np.log1p(np.abs(x))) / power, x)

    def inverse(self, y):
        power = self._power(y)
        return np.copysign(np.expm1(np.log1p(power * np.abs(y)) / power), y)

    def log_slope(self, x):
        return (self._power(x) - 1.0) * np.log1p(np.abs(x))

    def log_slope_derivative(self, x):
        return np.sign(x) * (self._power(x) - 1.0) / (1.0 + np.abs(x))


def fit_yeo_johnson(column: Column) -> Chain:
    """Return the map, with mean 0 and variance 1, that makes a feature nearly normal.

    The power is that of the largest likelihood, for the standardised feature.
    """
    first = Affine.standardising(column.values, column.shares)
    power = Power(best_power(column.mapped(first).summary(N_VALUES)))
    mapped = power.forward(first.forward(column.values))
    last = Affine.standardising(mapped, column.shares)
    return Chain(f"yeo-johnson {power.lam:.2f}", (first, power, last))


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
