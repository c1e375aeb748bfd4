"""Queries so far away that squares of their distances leave the range of float64.

Seen from there all training points are at one place: ``|x - y|`` is ``|x|`` to all
digits, whatever the whitening, and so many bandwidths that log densities, error bars,
thresholds and gradients are multiples of powers of it (of its logarithm, for the log
density of a power law). Such a query is brought nearer by a power of two, and its
results are taken back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skhdkde._diagnosis import Diagnosing
from skhdkde._pairwise import largest_entry
from skhdkde._utils.arrays import row_batches

if TYPE_CHECKING:
    from skhdkde._density.constant_features import ConstantFeatures

# Power of two of the largest coordinate, in scaled units, that squares are in range of.
FARTHEST = 480


@dataclass(frozen=True)
class Queries:
    """Queries in range, and by how many powers of two they are farther in truth.

    ``exponents`` has the shape (n_queries,); None if none is. ``constant`` are features
    that X is without, and ``given`` the queries with them, None for training points.
    """

    X: Any
    kernel: Any
    exponents: np.ndarray | None = None
    constant: ConstantFeatures | None = None
    given: Any = None

    def log_density(self, values):
        """Return log densities at the true queries."""
        values = self._log_density(values)
        if self.constant is None:
            return values
        more = self.constant.log_density(self.given)
        with np.errstate(over="ignore"):
            return (values + more).astype(values.dtype, copy=False)

    def _log_density(self, values):
        if self.exponents is None:
            return values
        steps = self.kernel.decay * np.log(2.0) * self.exponents
        with np.errstate(over="ignore"):
            return self._times(values, self.kernel.growth) - steps.astype(values.dtype)

    def errors(self, values):
        """Return errors of log densities, in nats, at the true queries."""
        return self._times(values, self.kernel.growth)

    def gradient(self, values):
        """Return gradients at the true queries."""
        values = self._times(values, self.kernel.growth - 1)
        if self.constant is None:
            return values
        return self.constant.gradient(self.given, values)

    def diagnosis(self, columns):
        """Return columns of ``Diagnosing`` at the true queries; log sums are left out."""
        if self.exponents is None:
            return columns
        growth, columns = self.kernel.growth, columns.copy()
        powers = {"standard_error": growth, "tail_index": -growth, "h_g": 1, "h_clt": 1}
        for name, power in powers.items():
            column = Diagnosing.COLUMNS.index(name)
            columns[:, column] = self._times(columns[:, column], power)
        return columns

    def _times(self, values, power):
        """Return values at the true queries, if they are multiples of such a power."""
        if self.exponents is None:
            return values
        exponents = power * self.exponents.reshape(-1, *[1] * (values.ndim - 1))
        with np.errstate(over="ignore"):
            return np.ldexp(values, exponents)


def in_range(X: Any, density: Any, **for_messages: Any) -> Queries:
    """Return queries in data units, or None, brought into the range of a density.

    Those of a density on a sphere are brought to it. ``for_messages`` is what
    ``UnitSphere.queries`` then takes.
    """
    if density.sphere is not None:
        return density.sphere.queries(X, **for_messages)
    constant, given = density.constant, None
    if constant is not None and X is not None:
        X, given = constant.without(X), X
    found = Queries(X, density.kernel, constant=constant, given=given)
    if X is None or not len(X) or not density.frames:
        return found
    largest = largest_entry(X)
    bounds = (_bound(largest, *frame) for frame in density.frames)
    if max(bounds, default=0.0) < 2.0**FARTHEST:
        return found
    X = np.array(X, dtype=np.float64)
    exponents = np.zeros(len(X), dtype=int)
    for rows in row_batches(*X.shape):
        exponents[rows] = np.maximum(_exponents(X[rows], density.frames) - FARTHEST, 0)
        X[rows] = np.ldexp(X[rows], -exponents[rows, None])
    return dataclasses.replace(found, X=X, exponents=exponents)


def _bound(largest, whitening, scale):
    """Return a bound on scaled coordinates of queries with entries up to ``largest``."""
    return (largest if whitening is None else whitening.bound(largest)) * scale


def _exponents(X, frames: Iterable):
    """Return powers of two that bound scaled coordinates of each query, in any frame."""
    own = np.frexp(np.abs(X).max(axis=1))[1]
    units = np.ldexp(X, -own[:, None])
    found = []
    for whitening, scale in frames:
        Z = units if whitening is None else whitening.apply_scaled(units, own)
        found.append(np.frexp(np.abs(Z).max(axis=1))[1] + np.frexp(scale)[1])
    return own + np.max(found, axis=0)
