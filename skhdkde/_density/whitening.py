"""Coordinates in which a bandwidth matrix is a multiple of the identity.

A kernel of bandwidth matrix ``h^2 S`` is the spherical kernel at bandwidth ``h`` of
``z = (x - m) L``, with ``L L' = S^-1``, and a density in ``z`` times ``|det L|`` is one
in ``x``. Everything spherical then serves; only queries pass through a whitening first.
"""

import abc
import functools
from typing import Any

import numpy as np

from skhdkde._density.density import Component
from skhdkde._pairwise import KernelGridSums


class Whitening:
    """The linear map ``z = (x - center) L`` from data units to whitened units.

    Parameters
    ----------
    center : ndarray of shape (n_features,)
    linear : ndarray of shape (n_features,) or (n_features, n_features)
        ``L``, or its diagonal.
    """

    def __init__(self, center, linear):
        self.center, self.linear = center, linear
        self.diagonal = linear.ndim == 1
        if self.diagonal:
            self.log_det = float(np.log(linear).sum())
        else:
            self.log_det = float(np.linalg.slogdet(linear)[1])

    def apply(self, X, keep=None):
        """Return ``z`` of each row, float64.

        X may be a tensor, if ``keep`` puts arrays where that is.
        """
        if keep is not None:
            Z, linear = X.double() - keep(self.center), keep(self.linear)
            return Z * linear if self.diagonal else Z @ linear
        Z = np.subtract(X, self.center, dtype=np.float64)
        return np.multiply(Z, self.linear, out=Z) if self.diagonal else Z @ self.linear

    def apply_scaled(self, X, exponents):
        """Return ``2^-e z`` of each row ``2^e x``, with an exponent ``e`` for each."""
        with np.errstate(over="ignore", invalid="ignore"):  # of a center larger than x
            Z = X - np.ldexp(self.center, -exponents[:, None])
            return Z * self.linear if self.diagonal else Z @ self.linear

    def bound(self, largest):
        """Return a bound on coordinates of rows with entries up to ``largest``."""
        return (largest + self._largest_center) * self._gain

    @functools.cached_property
    def _largest_center(self):
        return float(np.abs(self.center).max())

    @functools.cached_property
    def _gain(self):
        sizes = np.abs(self.linear)
        return float((sizes if self.diagonal else sizes.sum(axis=0)).max())

    @property
    def whitened_center(self):
        """The center times ``L``: where it is about the origin of the data."""
        return self.center * self.linear if self.diagonal else self.center @ self.linear

    def invert(self, Z):
        """Return ``x`` of each row."""
        if self.diagonal:
            return Z / self.linear + self.center
        return Z @ self._inverse + self.center

    def gradient(self, gradient):
        """Return gradients with respect to ``x`` from those with respect to ``z``."""
        return gradient * self.linear if self.diagonal else gradient @ self.linear.T

    @functools.cached_property
    def _inverse(self):
        return np.linalg.inv(self.linear)


class Whitened:
    """Shared by points in one whitening, wherever they are.

    Attributes
    ----------
    whitening : Whitening
    spread : float
        Standard deviation of a coordinate that preserving the variance refers to.
    local_scale : ndarray of shape (n_points,) or None
        Factors of the bandwidth.
    log_weights : ndarray of shape (n_points,) or None
        Logs of weights, for those that may be out of the range of numbers.
    """

    whitening: Whitening
    spread: float
    local_scale: Any = None
    log_weights: Any = None

    @property
    def scales_differ(self):
        """Whether the points' densities are multiplied by different factors."""
        return self.local_scale is not None or self.log_weights is not None

    @property
    def n_features(self):
        """Number of features."""
        return len(self.whitening.center)

    def shrinkage(self, kernel, bandwidth, preserve_variance):
        """Return the factor ``a`` of coordinates with which the variance is preserved.

        It solves ``a^2 spread^2 + bandwidth^2 variance = spread^2``, in whitened units;
        1 if the variance is not to be preserved.
        """
        if not preserve_variance:
            return 1.0
        share = bandwidth**2 * kernel.variance(self.n_features) / self.spread**2
        return float(np.sqrt(max(1.0 - share, 0.0)))


class LocalWhitened(Whitened, abc.ABC):
    """Shared by points in one whitening on this machine.

    Attributes
    ----------
    rows : ndarray of int of shape (n_points,)
        Which of the training points they are.
    Z : ndarray of shape (n_points, n_features)
        Their coordinates.
    """

    rows: np.ndarray
    Z: np.ndarray

    @abc.abstractmethod
    def log_scales(self):
        """Return logs of what each point's density is multiplied by, (n_points,)."""

    @abc.abstractmethod
    def points(self, shrinkage=1.0, scale=None, scaled_distance=(1.0, 0.0)):
        """Return the points ready for tiles."""

    def packed(self, X):
        """Return these without what X, the training points in data units, gives again."""
        return self

    def unpacked(self, X):
        """Return these from what `packed` returned."""
        return self

    def largest_entry(self):
        """Return the largest coordinate of a point or of a query that is one."""
        return np.abs(self.Z).max()

    def component(self, kernel, bandwidth, preserve_variance, largest, scale):
        """Return the sum over these points for a kernel and bandwidth, whitened units.

        ``largest`` is the largest of the log scales of all components, and ``scale`` what
        their coordinates are multiplied by.
        """
        shrinkage = self.shrinkage(kernel, bandwidth, preserve_variance)
        log_det, scaled = self.whitening.log_det, (1.0, 0.0)
        if self.scales_differ:
            log_det = largest
            scaled = kernel.scaled_distance(self.log_scales() - largest, bandwidth)
        points = self.points(shrinkage, scale, scaled)
        return Component(
            points,
            kernel,
            bandwidth,
            self.rows,
            log_det,
            self.local_scale,
            self.log_weights,
        )

    def grid_sums(self, settings, tol, dtype, points):
        """Return the reduction to sums for kernel settings over prepared points."""
        log_scales = self.log_scales()
        return KernelGridSums(settings, tol, log_scales - log_scales.max(), dtype)

    def log_factors(self, queries, points):
        """Return logs of what the sums of `grid_sums` are multiplied by.

        ``queries`` are those that a reduction has visited.
        """
        return self.log_scales().max()
