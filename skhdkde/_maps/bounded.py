"""Maps of features that have one limit, or two."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from scipy.special import expit

from skhdkde._maps.column import Column
from skhdkde._maps.feature_map import FARTHEST, Affine, Chain, FeatureMap
from skhdkde._utils.typing import FloatArray


class Bounded(FeatureMap):
    """A map from an open interval onto all numbers.

    Outside the interval the log slope is -inf, and the map is that of ``middle``.

    Parameters
    ----------
    low, high : float
        The interval.
    middle : float
        The median of the feature.
    """

    def __init__(self, low: float, high: float, middle: float):
        self.low, self.high, self.middle = low, high, middle
        self.limits = low, high

    def inside(self, x: FloatArray) -> np.ndarray:
        """Return which values the feature can have."""
        return (x > self.low) & (x < self.high)

    def forward(self, x):
        return self._value(np.where(self.inside(x), x, self.middle))

    def log_slope(self, x):
        inside = self.inside(x)
        return np.where(inside, self._log_at(np.where(inside, x, self.middle)), -np.inf)

    def log_slope_derivative(self, x):
        inside = self.inside(x)
        derivative = self._derivative_at(np.where(inside, x, self.middle))
        return np.where(inside, derivative, np.nan)

    def inverse(self, y):
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


SHAPES: dict[str, type[Bounded]] = {"log": Log, "logit": Logit}


def fit_bounded(
    kind: str, column: Column, limits: tuple[float, float], spread: float
) -> Chain:
    """Return a map with mean 0 and variance 1; of a constant feature, one of a scale.

    Parameters
    ----------
    kind : "log" or "logit"
    column : Column
    limits : tuple of float
    spread : float
        The scale for a constant feature, in data units.
    """
    first = SHAPES[kind](*limits, column.median)
    mapped = column.mapped(first)
    last = Affine.standardising(mapped.values, mapped.shares)
    if len(column.values) == 1 or last.scale == 0.0:
        last = Affine(0, mapped.median, float(spread * first.slope(column.values[:1])[0]))
    return Chain(kind, (first, last))
