"""What maps of one feature have in common, and how they are put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from skhdkde._utils.typing import FloatArray

# Up to which size numbers are told apart.
FARTHEST = 1e300


class FeatureMap(ABC):
    """An increasing map of one feature, from where it can be onto all numbers.

    All methods take and return float64 arrays of shape (n_points,).

    Attributes
    ----------
    limits : tuple of float
        The open interval of values that the feature can have.
    """

    limits: tuple[float, float] = (-np.inf, np.inf)

    @abstractmethod
    def forward(self, x: FloatArray) -> FloatArray:
        """Return the mapped values."""

    @abstractmethod
    def inverse(self, y: FloatArray) -> FloatArray:
        """Return the values that are mapped to ``y``."""

    @abstractmethod
    def log_slope(self, x: FloatArray) -> FloatArray:
        """Return the log of the derivative; -inf where the feature cannot be."""

    @abstractmethod
    def log_slope_derivative(self, x: FloatArray) -> FloatArray:
        """Return the derivative of ``log_slope``; NaN where the feature cannot be."""

    def slope(self, x: FloatArray) -> FloatArray:
        """Return the derivative of the map; 0 where the feature cannot be."""
        return np.exp(self.log_slope(x))


@dataclass(frozen=True, repr=False)
class Affine(FeatureMap):
    """The map ``x -> (2^-exponent x - centre) / scale``.

    With the power of two no square of a number is out of range. Where numbers far out
    are, the result is finite all the same.
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
        return cls(exponent, centre, float(np.sqrt(shares @ np.square(values - centre))))

    def __repr__(self):
        return "linear"

    def forward(self, x):
        y = (np.ldexp(x, -self.exponent) - self.centre) / self.scale
        return np.clip(y, -FARTHEST, FARTHEST)

    def inverse(self, y):
        return np.ldexp(self.centre + self.scale * y, self.exponent)

    def log_slope(self, x):
        return np.full(x.shape, -np.log(self.scale) - self.exponent * np.log(2.0))

    def log_slope_derivative(self, x):
        return np.zeros(x.shape)


@dataclass(frozen=True, repr=False)
class Chain(FeatureMap):
    """Maps one after the other.

    Parameters
    ----------
    name : str
        What it is called.
    maps : tuple of FeatureMap
    """

    name: str
    maps: tuple[FeatureMap, ...]

    def __repr__(self):
        return self.name

    @property
    def limits(self):  # type: ignore[override]
        return self.maps[0].limits

    def forward(self, x):
        for one in self.maps:
            x = one.forward(x)
        return x

    def inverse(self, y):
        for one in reversed(self.maps):
            y = one.inverse(y)
        return y

    def log_slope(self, x):
        total = np.zeros(x.shape)
        for one, at in self._places(x):
            total += one.log_slope(at)
        return total

    def log_slope_derivative(self, x):
        total, log_slope = np.zeros(x.shape), np.zeros(x.shape)
        for one, at in self._places(x):
            total += np.exp(log_slope) * one.log_slope_derivative(at)
            log_slope += one.log_slope(at)
        return total

    def _places(self, x):
        """Yield each map, and the values that it is given."""
        for k, one in enumerate(self.maps):
            if k > 0:
                x = self.maps[k - 1].forward(x)
            yield one, x
