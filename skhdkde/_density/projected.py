"""Structures on the unit sphere: densities of ``z / |z|``, with ``z`` from one in space.

Queries pass through a whitening and are brought to a sphere about the origin, of the size
of the points. The map ``x -> x L / |x L|`` is one of the sphere onto itself; its Jacobian
is ``|det L| / |x L|^d``. The points stay where they are in whitened coordinates, which
are about the centre of the sphere and not about the mean of the points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skhdkde._density.density import Component
from skhdkde._density.whitened_points import WhitenedPoints
from skhdkde._density.whitening import Whitening
from skhdkde._kernels import Projected
from skhdkde._pairwise import ProjectedGridSums, ProjectedPoints
from skhdkde._utils.arrays import row_batches, tangent, unit_rows


class ProjectedWhitening(Whitening):
    """The map ``x -> radius x L / |x L|`` from the unit sphere to one of whitened units.

    Parameters
    ----------
    linear : ndarray of shape (n_features,) or (n_features, n_features)
        ``L``, or its diagonal.
    radius : float
    """

    def __init__(self, linear, radius):
        super().__init__(np.zeros(len(linear)), linear)
        self.radius = radius

    def with_norms(self, X):
        """Return ``x L`` of each row, and their norms as a column."""
        Z = super().apply(X)
        return Z, np.sqrt(np.einsum("ij,ij->i", Z, Z))[:, None]

    def apply(self, X):
        Z, norms = self.with_norms(X)
        Z *= self.radius / norms
        return Z

    def invert(self, Z):
        """Return unit vectors in the directions of some whitened points."""
        return unit_rows(super().invert(Z))

    def norms(self, X):
        """Return norms of ``x L``, (n_queries,)."""
        batches = row_batches(*X.shape)
        return np.concatenate([self.with_norms(X[rows])[1][:, 0] for rows in batches])

    @property
    def n_features(self):
        """Number of features."""
        return len(self.center)

    def log_density_gradient(self, gradient, X):
        """Return gradients of a log density on the sphere, tangent at X.

        ``gradient`` are those with respect to ``apply(X)``, without the Jacobian.
        """
        Z, norms = self.with_norms(X)
        Z /= norms
        own = tangent(gradient.astype(np.float64) * self.radius, Z)
        own -= self.n_features * Z
        return tangent(super().gradient(own / norms), X)


@dataclass(frozen=True)
class ProjectedWhitenedPoints(WhitenedPoints):
    """The training points of one component, whose kernels are projected to the sphere.

    Coordinates are about the mean, as in space.
    """

    @property
    def origin(self):
        """The mean of the points in whitened units about the centre of the sphere."""
        center, linear = self.whitening.center, self.whitening.linear
        return center * linear if self.whitening.diagonal else center @ linear

    @property
    def radius(self):
        """Root of the mean squared norm of the points about the centre of the sphere."""
        sq = np.square(self.Z + self.origin).sum(axis=1)
        return float(np.sqrt(np.average(sq, weights=self.weights)))

    def largest_entry(self):
        return super().largest_entry() + np.abs(self.origin).max()

    def points(self, shrinkage=1.0, scale=None, kernel=None, bandwidth=np.nan):
        """Return the points ready for tiles, of energies if a kernel is given."""
        centers = self.origin + shrinkage * self.Z.astype(np.float64)
        return ProjectedPoints(
            centers.astype(self.Z.dtype),
            self.weights,
            whitening=ProjectedWhitening(self.whitening.linear, self.radius),
            origin=self.origin,
            kernel=kernel,
            bandwidth=bandwidth,
            local_scale=self.local_scale,
            scale=scale,
        )

    def component(self, kernel, bandwidth, preserve_variance, largest, scale):
        shrinkage = self.shrinkage(kernel, bandwidth, preserve_variance)
        points = self.points(shrinkage, scale, kernel, bandwidth)
        return ProjectedComponent(
            points, kernel, bandwidth, self.rows, local_scale=self.local_scale
        )

    def grid_sums(self, settings, tol, dtype, points):
        return ProjectedGridSums(settings, tol, dtype, points.radius)

    def log_factors(self, queries, points):
        return _log_factors(queries.norms, points)[:, None]


def _log_factors(norms, points):
    """Return what log sums of projected kernels lack, but for a typical value.

    That is the log Jacobian of the map to the unit sphere, and a power of the radius.
    """
    log_ratio = np.log(points.radius / points.scale / norms)
    return points.whitening.log_det + points.shape[1] * log_ratio


@dataclass(frozen=True)
class ProjectedComponent(Component):
    """The sum over kernels of one whitening that are projected to the unit sphere."""

    kernel: Projected
    points: ProjectedPoints

    def log_factors(self, X, queries=None):
        setting, points = self.points.setting, self.points
        assert setting is not None
        typical = setting.kernel.typical(points.radius, setting.bandwidth_scaled)
        norms = points.whitening.norms(X) if queries is None else queries.norms
        return _log_factors(norms, points) + typical

    def to_data_units(self, gradient, X):
        whitening = self.points.whitening
        for rows in row_batches(*gradient.shape):
            gradient[rows] = whitening.log_density_gradient(gradient[rows], X[rows])
