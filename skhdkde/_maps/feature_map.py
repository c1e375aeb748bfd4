"""What maps of one feature have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from skhdkde._utils.typing import FloatArray

# Up to which size numbers are told apart.
FARTHEST = 1e300


@dataclass(frozen=True)
class Affine:
    """The map ``x -> (2^-exponent x - centre) / scale``.

    With the power of two no square of a number is out of range.
    """

    exponent: int = 0
    centre: float = 0.0
    scale: float = 1.0

    @classmethod
    def standardising(cls, values: FloatArray, shares: FloatArray) -> Affine:
        """Return the map to mean 0 and variance 1 of values with shares of the weight."""
        exponent = int(np.frexp(np.abs(values).max())[1])
        values = np.ldexp(values, -exponent)
        centre = float(shares @ values)
        centre += float(shares @ (values - centre))  # less what rounding left
        return cls(exponent, centre, float(np.sqrt(shares @ np.square(values - centre))))

    @property
    def log_slope(self) -> float:
        """Log of the derivative."""
        return -float(np.log(self.scale) + self.exponent * np.log(2.0))

    def forward(self, x: FloatArray) -> FloatArray:
        """Return mapped numbers, finite ones also where they are out of range."""
        y = (np.ldexp(x, -self.exponent) - self.centre) / self.scale
        return np.clip(y, -FARTHEST, FARTHEST)

    def inverse(self, y: FloatArray) -> FloatArray:
        """Return the numbers that are mapped to ``y``."""
        return np.ldexp(self.centre + self.scale * y, self.exponent)


class FeatureMap(ABC):
    """An increasing map of one feature, from where it can be onto all numbers.

    It is an affine map, a shape, which a subclass has, and an affine map of that. All
    methods take and return float64 arrays of shape (n_points,).
    """

    def __init__(self, before: Affine | None = None, after: Affine | None = None):
        self.before, self.after = before or Affine(), after or Affine()

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the mapped values; they are finite, also far out."""
        return self.after.forward(self._shape(self.before.forward(x)))

    def inverse(self, y: FloatArray) -> FloatArray:
        """Return the values that are mapped to ``y``."""
        return self.before.inverse(self._inverse(self.after.inverse(y)))

    def slope(self, x: FloatArray) -> FloatArray:
        """Return the derivative of the map; 0 where the feature cannot be."""
        return np.exp(self.log_slope(x))

    def log_slope(self, x: FloatArray) -> FloatArray:
        """Return its log; -inf where the feature cannot be."""
        affine = self.before.log_slope + self.after.log_slope
        return self._log_slope(self.before.forward(x)) + affine

    def log_slope_derivative(self, x: FloatArray) -> FloatArray:
        """Return the derivative of ``log_slope``; NaN where the feature cannot be."""
        derivative = self._log_slope_derivative(self.before.forward(x))
        return np.exp(self.before.log_slope) * derivative

    @abstractmethod
    def __repr__(self) -> str:
        """Return the kind of map, and its parameter."""

    @abstractmethod
    def _shape(self, z: FloatArray) -> FloatArray:
        """Return the shape at values."""

    @abstractmethod
    def _inverse(self, y: FloatArray) -> FloatArray:
        """Return where the shape is ``y``."""

    @abstractmethod
    def _log_slope(self, z: FloatArray) -> FloatArray:
        """Return the log of the derivative of the shape."""

    @abstractmethod
    def _log_slope_derivative(self, z: FloatArray) -> FloatArray:
        """Return the derivative of that log."""


class Linear(FeatureMap):
    """A feature that is only standardised, as those beside it are that have a map."""

    def __repr__(self):
        return "linear"

    def _shape(self, z):
        return z

    def _inverse(self, y):
        return y

    def _log_slope(self, z):
        return np.zeros(z.shape)

    def _log_slope_derivative(self, z):
        return np.zeros(z.shape)
