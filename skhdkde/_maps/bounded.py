"""Maps of features that have one limit, or two."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
from scipy.special import expit

from skhdkde._maps.column import Column
from skhdkde._maps.feature_map import FARTHEST, Affine, FeatureMap
from skhdkde._utils.typing import FloatArray


class Bounded(FeatureMap):
    """A map from an open interval onto all numbers, then standardised.

    Outside the interval the log slope is -inf, and the map is that of ``middle``.

    Parameters
    ----------
    low, high : float
        The interval.
    middle : float
        The median of the feature.
    after : Affine, default=None
        None for none.
    """

    name: str

    def __init__(
        self, low: float, high: float, middle: float, after: Affine | None = None
    ):
        super().__init__(after=after)
        self.low, self.high, self.middle = low, high, middle

    @classmethod
    def fit(cls, column: Column, limits: tuple[float, float], spread: float) -> Self:
        """Return the map of a feature; if that is constant, ``spread`` is its scale."""
        middle = column.median
        plain = cls(*limits, middle)
        after = Affine.standardising(plain.forward(column.values), column.shares)
        if len(column.values) == 1 or after.scale == 0.0:
            at = np.array([middle])
            scale = float(spread * plain.slope(at)[0])
            after = Affine(0, float(plain.forward(at)[0]), scale)
        return cls(*limits, middle, after)

    def __repr__(self):
        return self.name

    def inside(self, x: FloatArray) -> np.ndarray:
        """Return which values the feature can have."""
        return (x > self.low) & (x < self.high)

    def _shape(self, z):
        return self._value(np.where(self.inside(z), z, self.middle))

    def _log_slope(self, z):
        inside = self.inside(z)
        return np.where(inside, self._log_at(np.where(inside, z, self.middle)), -np.inf)

    def _log_slope_derivative(self, z):
        inside = self.inside(z)
        derivative = self._derivative_at(np.where(inside, z, self.middle))
        return np.where(inside, derivative, np.nan)

    def _inverse(self, y):
        """Return values inside, also where rounding leads to a limit."""
        least, most = np.nextafter(self.low, np.inf), np.nextafter(self.high, -np.inf)
        return np.clip(self._value_inverse(y), least, min(most, FARTHEST))

    @abstractmethod
    def _value(self, x):
        """Return the shape at values inside."""

    @abstractmethod
    def _value_inverse(self, y):
        """Return where it is ``y``."""

    @abstractmethod
    def _log_at(self, x):
        """Return the log of its derivative."""

    @abstractmethod
    def _derivative_at(self, x):
        """Return the derivative of that log."""


class Log(Bounded):
    """``log(x - low)``."""

    name = "log"

    def _value(self, x):
        return np.log(x - self.low)

    def _value_inverse(self, y):
        return self.low + np.exp(y)

    def _log_at(self, x):
        return -np.log(x - self.low)

    def _derivative_at(self, x):
        return -1.0 / (x - self.low)


class Logit(Bounded):
    """``log((x - low) / (high - x))``."""

    name = "logit"

    def _value(self, x):
        return np.log(x - self.low) - np.log(self.high - x)

    def _value_inverse(self, y):
        part = (self.high - self.low) * expit(-np.abs(y))  # of the nearer limit
        return np.where(y < 0.0, self.low + part, self.high - part)

    def _log_at(self, x):
        both = np.log(x - self.low) + np.log(self.high - x)
        return np.log(self.high - self.low) - both

    def _derivative_at(self, x):
        return 1.0 / (self.high - x) - 1.0 / (x - self.low)
