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
from skhdkde._density.whitening import Whitened, Whitening
from skhdkde._kernels import Projected
from skhdkde._pairwise import ProjectedGridSums, ProjectedPoints
from skhdkde._utils.arrays import namespace, row_batches, tangent, unit_rows


class ProjectedWhitening(Whitening):
    """The map ``x -> radius x L / |x L|`` from the unit sphere to one of whitened units.

    Parameters
    ----------
    whitening : Whitening
        By ``L``, about the mean of the points.
    radius : float

    Attributes
    ----------
    origin : ndarray of shape (n_features,)
        The mean of the points in whitened units about the centre of the sphere.
    """

    def __init__(self, whitening, radius):
        super().__init__(np.zeros(len(whitening.linear)), whitening.linear)
        self.origin, self.radius = whitening.whitened_center, radius

    def points(self, Z, weights, shrinkage=1.0, kernel=None, bandwidth=np.nan, **more):
        """Return points of coordinates Z, about their mean, ready for tiles.

        These are of energies if a kernel is given. ``more`` is as `ProjectedPoints` has
        it.
        """
        centers = self.origin + shrinkage * Z.astype(np.float64)
        return ProjectedPoints(
            centers.astype(Z.dtype),
            weights,
            whitening=self,
            origin=self.origin,
            kernel=kernel,
            bandwidth=bandwidth,
            **more,
        )

    def with_norms(self, X, keep=None):
        """Return ``x L`` of each row, and their norms as a column, where X is."""
        Z = super().apply(X, keep)
        xp = namespace(Z)
        return Z, xp.sqrt(xp.einsum("ij,ij->i", Z, Z))[:, None]

    def apply(self, X, keep=None):
        Z, norms = self.with_norms(X, keep)
        Z *= self.radius / norms
        return Z

    def invert(self, Z):
        """Return unit vectors in the directions of some whitened points."""
        return unit_rows(super().invert(Z))

    def norms(self, X):
        """Return norms of ``x L``, (n_queries,)."""
        norms = np.empty(len(X))
        for rows in row_batches(*X.shape):
            norms[rows] = self.with_norms(X[rows])[1][:, 0]
        return norms

    def log_factors(self, norms):
        """Return logs of what values of kernels lack, for norms of ``x L``.

        That is the log Jacobian of the map to the unit sphere, and a power of the radius.
        """
        return self.log_det + self.n_features * np.log(self.radius / norms)

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


class ProjectedWhitened(Whitened):
    """Shared by points whose kernels are projected to the sphere, wherever they are.

    Coordinates are about the mean, as in space.
    """

    @property
    def origin(self):
        """The mean of the points in whitened units about the centre of the sphere."""
        return self.whitening.whitened_center

    def grid_sums(self, settings, tol, dtype, points):
        """Return the reduction to sums for kernel settings over prepared points.

        Of these it takes the whitening and the scale.
        """
        radius_scaled = points.whitening.radius * points.scale
        return ProjectedGridSums(settings, tol, dtype, radius_scaled)


@dataclass(frozen=True)
class ProjectedWhitenedPoints(ProjectedWhitened, WhitenedPoints):
    """The training points of one component, whose kernels are projected to the sphere."""

    @property
    def radius(self):
        """Root of the mean squared norm of the points about the centre of the sphere."""
        sq = np.square(self.Z + self.origin).sum(axis=1)
        return float(np.sqrt(np.average(sq, weights=self.weights)))

    def largest_entry(self):
        return super().largest_entry() + np.abs(self.origin).max()

    def points(self, shrinkage=1.0, scale=None, kernel=None, bandwidth=np.nan):
        """Return the points ready for tiles, of energies if a kernel is given."""
        whitening = ProjectedWhitening(self.whitening, self.radius)
        return whitening.points(
            self.Z,
            self.weights,
            shrinkage,
            kernel,
            bandwidth,
            local_scale=self.local_scale,
            scale=scale,
        )

    def component(self, kernel, bandwidth, preserve_variance, largest, scale):
        shrinkage = self.shrinkage(kernel, bandwidth, preserve_variance)
        points = self.points(shrinkage, scale, kernel, bandwidth)
        return ProjectedComponent(
            points, kernel, bandwidth, self.rows, local_scale=self.local_scale
        )

    def log_factors(self, queries, points):
        return points.whitening.log_factors(queries.norms)[:, None]


@dataclass(frozen=True)
class ProjectedComponent(Component):
    """The sum over kernels of one whitening that are projected to the unit sphere."""

    kernel: Projected

    def log_factors(self, X, queries=None):
        whitening = self.points.whitening
        norms = whitening.norms(X) if queries is None else queries.norms
        typical = self.kernel.typical(whitening.radius, self.bandwidth)
        return whitening.log_factors(norms) + typical

    def to_data_units(self, gradient, X):
        whitening = self.points.whitening
        for rows in row_batches(*gradient.shape):
            gradient[rows] = whitening.log_density_gradient(gradient[rows], X[rows])
