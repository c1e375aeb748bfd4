"""Points whose kernels are projected to the unit sphere, and tiles of their values.

Queries are on a sphere of the points' size. A tile is made of squared distances, as any
other; these are then turned into energies, of which values are those of a Gaussian
kernel: see ``Projected`` in ``_kernels``. All lengths are in scaled units.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skhdkde._kernels import Projected
from skhdkde._pairwise.kernel_grid import KernelGridSums
from skhdkde._pairwise.points import Queries, TrainingPoints
from skhdkde._pairwise.reductions import Reduction
from skhdkde._pairwise.tiles import Tile, smallest_by_row
from skhdkde._utils.arrays import (
    BLOCK_SIZE,
    beside,
    column,
    namespace,
    row_batches,
    to_host,
)
from skhdkde._utils.typing import AnyTile, Device, FloatArray, Rows

# Elements of a tile that are worked on at once, to stay in the cache; fewer would cost
# more in calls than they gain.
CACHED = 2**17
# How much more an error of a squared distance is felt in a projection, if the kernel is
# not known.
AMPLIFIED = 2.0


class ProjectedTile(Tile):
    """Energies ``sq``, made of the squared distances to some points by `transform`."""

    points: ProjectedPoints

    def transform(self, reduction: Reduction) -> None:
        """Turn squared distances into energies, if the points have a kernel."""
        setting = self.points.setting
        if setting is None:
            return
        self.distance_sq = self.sq
        h, margin = setting.bandwidth_scaled, reduction.negligible
        self.sq = self.energies(setting.kernel, h, margin=margin)
        self.nearest_sq = smallest_by_row(self.sq)

    def energies(
        self,
        kernel: Projected,
        h: float,
        shrinkage: float = 1.0,
        margin: float | None = None,
    ) -> AnyTile:
        """Return energies for points shrunk towards the points' origin.

        Those beyond a margin above the smallest of their row may be any that are; with
        None none may.
        """
        # farther than any, so that no margin is above theirs
        self.queries.exclude(self.sq, self.cols, self.points.farthest_sq)
        energy = self._energies(self.sq, kernel, h, shrinkage, margin)
        self.queries.exclude(energy, self.cols, np.inf)
        return energy

    def _energies(self, raw, kernel, h, shrinkage=1.0, margin=None):
        """Return energies of the pairs of some rows, from squared distances."""
        xp, radius = namespace(raw), self.points.radius
        energy, typical = xp.empty_like(raw), kernel.typical(radius, h)
        lack, own_h, log_scale = self._of_columns(h, shrinkage)
        margin = margin if self.points.local_scale is None else None
        for rows, sq in self._parts(raw, shrinkage):
            values = kernel.log_values(sq, lack, radius, own_h, margin)
            values -= typical + log_scale
            xp.multiply(values, -1.0, out=energy[rows])
        return energy

    def suspect_pairs(self, reduction, sq, nearest_sq, delta):
        setting, xp = self.points.setting, namespace(sq)
        if setting is None:
            return xp.ones_like(sq, dtype=bool)
        h, margin = setting.bandwidth_scaled, reduction.margin
        there = xp.isfinite(sq)
        raw = xp.where(there, sq, self.points.farthest_sq)
        energy = self._energies(raw, setting.kernel, h, margin=margin + 1.0)
        energy = xp.where(there, energy, xp.inf)
        beyond = margin + beside(delta / h**2, energy)
        return energy <= (smallest_by_row(energy) + beyond)[:, None]

    def _of_columns(self, h, shrinkage=1.0):
        """Return what a kernel takes for each point of the tile.

        That is ``radius^2 - |c|^2`` of shrunk centres, the bandwidth, and what local
        scales subtract from logs; each a number where it is the same for all.
        """
        points = self.points
        lack = self._put(points.lacks(self.cols, shrinkage))
        if points.local_scale is None:
            return lack, h, 0.0
        scale = points.local_scale[self.cols]
        return lack, self._put(h * scale), self._put(points.shape[1] * np.log(scale))

    def _parts(self, raw, shrinkage):
        """Yield some rows, and their squared distances to shrunk centres."""
        a, points = shrinkage, self.points
        if a == 1.0:
            for rows in self._row_parts(raw):
                yield rows, raw[rows]
            return
        moved = self._put((1.0 - a) * a * points.sq_about_origin[self.cols])
        outside = column((1.0 - a) * points.sq_to_origin(self.queries.exact), raw)
        for rows in self._row_parts(raw):
            sq = raw[rows] * a
            sq += outside[rows]
            sq -= moved
            yield rows, sq

    def _row_parts(self, raw):
        """Return slices of rows that stay in the cache; one on a GPU."""
        n_rows, n_cols = raw.shape
        size = CACHED if isinstance(raw, np.ndarray) else n_rows * n_cols
        return row_batches(n_rows, n_cols, size)

    def _put(self, values):
        return self.device.put(values.astype(self.queries.dtype))

    def shrunk_sq(self, shrinkage: float) -> AnyTile:
        raise TypeError("energies depend on the kernel: see energies")

    def weighted_differences(self, slopes: AnyTile, allowed: FloatArray) -> FloatArray:
        """Return ``sum_j v_j g_j (c_j - x)`` for values ``v``, as a Gaussian has them.

        ``g_j`` are derivatives of log values by the inner product.
        """
        setting = self.points.setting
        assert setting is not None
        kernel, h = setting.kernel, setting.bandwidth_scaled
        slopes = slopes * 1.0
        lack, own_h, _ = self._of_columns(h)
        for rows in self._row_parts(slopes):
            sq, radius = self.distance_sq[rows], self.points.radius
            slopes[rows] *= kernel.slopes_of(sq, lack, radius, own_h) * (h / own_h) ** 2
        return super().weighted_differences(slopes, allowed)


@dataclass(frozen=True)
class ProjectedSetting:
    """The kernel and bandwidth at which tiles are turned into energies."""

    kernel: Projected
    bandwidth_scaled: float


class ProjectedQueries(Queries):
    """Queries brought to a sphere of whitened units as they are asked for.

    Attributes
    ----------
    norms : ndarray of shape (n_queries,)
        Of whitened queries, before they are brought there; of those asked for.
    """

    def __init__(self, X, dtype, points: ProjectedPoints):
        super().__init__(X, slice(None), dtype, points.scale)
        self.projection, self.norms = points.whitening, np.empty(len(X))
        self._made = None
        if len(X) * X.shape[1] <= BLOCK_SIZE:
            self._made = self[:]

    def on(self, device: Device, which: slice) -> AnyTile:
        if self._made is not None:
            return device.put(self._made[which])
        return self._projected(self._rows_on(device, which), which, device.keep)

    def __getitem__(self, which) -> FloatArray:
        if self._made is not None:
            return self._made[which]
        return self._projected(self.X[which], which)

    def _projected(self, X, which, keep=None):
        """Return rows of X on the sphere, in scaled units, where they are."""
        Z, norms = self.projection.with_norms(X, keep)
        self.norms[which] = to_host(norms[:, 0])
        Z *= self.projection.radius * self.scale / norms
        return Z


class ProjectedPoints(TrainingPoints):
    """Centres of kernels that are projected to the unit sphere.

    Parameters
    ----------
    Z : ndarray of shape (n_points, n_features)
        Centres ``c_j`` in the units of the whitening.
    origin : ndarray of shape (n_features,)
        What centres may be shrunk towards, in the units of Z.
    kernel, bandwidth : Projected and float, default=None
        At which tiles are turned into energies; None to leave them as distances.
    local_scale : ndarray of shape (n_points,), default=None
        Factors of the bandwidth.
    weights, whitening, scale
        See :class:`TrainingPoints`. The whitening brings queries to a sphere of its
        ``radius``.
    """

    tile_class = ProjectedTile

    def __init__(
        self,
        Z: FloatArray,
        weights: FloatArray | None,
        *,
        whitening: Any,
        origin: FloatArray,
        kernel: Projected | None = None,
        bandwidth: float = np.nan,
        local_scale: FloatArray | None = None,
        scale: float | None = None,
    ):
        super().__init__(Z, weights, whitening=whitening, scale=scale)
        self.radius = float(whitening.radius * self.scale)
        self.origin = origin * self.scale
        self.local_scale, self.setting = local_scale, None
        if kernel is not None:
            self.setting = ProjectedSetting(kernel, float(bandwidth * self.scale))
        centers = self.exact.astype(np.float64)
        # exactly made: they may be small where norms are large
        norms = np.sqrt(np.einsum("ij,ij->i", centers, centers))
        self._lack = (self.radius - norms) * (self.radius + norms)
        # twice (radius + |c|)^2 at least: also beyond where centres are shrunk
        self.farthest_sq = 4.0 * (2.0 * self.radius**2 - float(self._lack.min()))
        steps = centers - self.origin
        self.sq_about_origin = np.einsum("ij,ij->i", steps, steps)
        self._along = steps @ self.origin

    @functools.cached_property
    def variety(self):
        """Difference of the largest and the smallest squared norm of a centre."""
        return float(np.ptp(self._lack))

    def lacks(self, cols: slice, shrinkage: float) -> FloatArray:
        """Return ``radius^2 - |c|^2`` of centres shrunk towards the origin."""
        if shrinkage == 1.0:
            return self._lack[cols]
        rest = 1.0 - shrinkage
        about, along = self.sq_about_origin[cols], self._along[cols]
        return self._lack[cols] + rest * ((1.0 + shrinkage) * about + 2.0 * along)

    def as_queries(self, X: Any) -> ProjectedQueries:
        return ProjectedQueries(X, np.result_type(X.dtype, self.dtype), self)

    def sq_to_origin(self, exact_queries: AnyTile) -> AnyTile:
        """Return squared distances of queries to the origin."""
        steps = exact_queries - beside(self.origin, exact_queries)
        return namespace(steps).square(steps).sum(1)

    def reach(self, reduction: Any, nearest_sq: FloatArray) -> FloatArray:
        """Return squared distances beyond which no pair matters, by row.

        Values fall with the inner product, and from that of the nearest point to the
        opposite of it by far more than the margin; or, where that is small, from 0 on.
        """
        if self.setting is None:
            return np.full_like(nearest_sq, np.inf)
        size = self.radius**2 + self.largest_norm**2
        margin = 2.0 * self.setting.bandwidth_scaled**2 * reduction.margin + self.variety
        return size + np.maximum(size - nearest_sq, 2.0 * margin)

    def scaled_error(self, delta: FloatArray, eps: float) -> FloatArray:
        return self._amplified * delta

    @functools.cached_property
    def _amplified(self):
        """Largest radius at which an integrand may be largest, relative to the sphere."""
        if self.setting is None:
            return AMPLIFIED
        width_sq = self.shape[1] * self.setting.bandwidth_scaled**2
        largest = self.largest_norm + np.sqrt(self.largest_norm**2 + 4.0 * width_sq)
        return max(0.5 * largest / self.radius, 1.0)

    def subset(self, rows: Rows, weights: FloatArray | None = None) -> Self:
        subset = super().subset(rows, weights)
        for name in ("_lack", "sq_about_origin", "_along"):
            setattr(subset, name, getattr(self, name)[rows])
        if self.local_scale is not None:
            subset.local_scale = self.local_scale[rows]
        return subset


class ProjectedGridSums(KernelGridSums):
    """Logs of sums for settings ``(k, h, a)``, with the value of a typical pair in them.

    The points are ``ProjectedPoints`` without a kernel.
    """

    def __init__(self, settings, tol, dtype, radius_scaled):
        super().__init__(settings, tol, None, dtype)
        self.typical = np.array(
            [s.kernel.typical(radius_scaled, s.bandwidth_scaled) for s in settings]
        )

    def _distances(self, tile, setting):
        ratio = tile.points.shape[0] / tile.points.smallest_weight
        margin = np.log(ratio) - np.log(self.tol)
        h, shrinkage = setting.bandwidth_scaled, setting.shrinkage
        return tile.energies(setting.kernel, h, shrinkage, margin)

    def finish(self, state):
        return super().finish(state) + self.typical
