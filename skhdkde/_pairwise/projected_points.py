"""Points whose kernels are projected to the unit sphere, and tiles of their values.

Queries are on a sphere of the points' size. A tile is made of squared distances, as any
other; these are then turned into energies, of which values are those of a Gaussian
kernel: see ``Projected`` in ``_kernels``. All lengths are in scaled units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skhdkde._kernels import Projected
from skhdkde._pairwise.kernel_grid import KernelGridSums
from skhdkde._pairwise.points import TrainingPoints
from skhdkde._pairwise.tiles import Tile
from skhdkde._utils.arrays import namespace, row_batches, to_host
from skhdkde._utils.typing import AnyTile, FloatArray, Rows

# Elements of a tile that are worked on at once, to stay in the cache.
CACHED = 2**15
# How much more an error of a squared distance is felt in a projection, at most.
AMPLIFIED = 4.0


class ProjectedTile(Tile):
    """Energies ``sq``, made of the squared distances to some points by `transform`."""

    points: ProjectedPoints

    def transform(self) -> None:
        """Turn squared distances into energies, if the points have a kernel."""
        setting = self.points.setting
        if setting is None:
            return
        self.distance_sq = self.sq
        self.sq = self.energies(setting.kernel, setting.bandwidth_scaled, 1.0)
        self.nearest_sq = self._smallest(self.sq)

    def _smallest(self, values):
        return to_host(namespace(values).amin(values, 1)).astype(np.float64)

    def energies(self, kernel: Projected, h: float, shrinkage: float) -> AnyTile:
        """Return energies for points shrunk towards the points' origin."""
        xp = namespace(self.sq)
        energy = xp.empty_like(self.sq)
        typical = kernel.typical(self.points.radius, h)
        self.queries.exclude(self.sq, self.cols, self.points.radius**2)  # any number
        for rows, sq, gap, own_h, log_scale in self._parts(h, shrinkage):
            values = kernel.log_values(sq, gap, self.points.radius, own_h)
            values -= typical if log_scale is None else typical + log_scale
            values *= -2.0 * h**2
            energy[rows] = values
        self.queries.exclude(energy, self.cols, np.inf)
        return energy

    def _parts(self, h, shrinkage=1.0, sq=None):
        """Yield some rows, and for these what a kernel takes; what it takes is its own.

        That is squared distances, gaps ``radius - x.c``, bandwidths, and what is to be
        subtracted from logs for local scales, None if there are none.
        """
        points, a = self.points, shrinkage
        raw = self.sq if sq is None else sq
        lack, about = points.lacks(self.cols, a)
        lack = self._put(lack)
        moved = None if a == 1.0 else self._put((1.0 - a) * a * about)
        log_scale, own_h = None, h
        if points.local_scale is not None:
            scale = points.local_scale[self.cols]
            own_h = self._put(h * scale)
            log_scale = self._put(points.shape[1] * np.log(scale))
        outside = None
        if a != 1.0:
            outside = (1.0 - a) * points.sq_to_origin(self.queries.exact)
        for rows in self._row_parts():
            own = raw[rows] * a
            if outside is not None:
                own += self._put(outside[rows])[:, None]
                own -= moved
            gap = own + lack
            gap *= 0.5 / points.radius
            yield rows, own, gap, own_h, log_scale

    def _row_parts(self):
        """Return slices of rows that stay in the cache; one on a GPU."""
        n_rows, n_cols = self.sq.shape
        size = CACHED if isinstance(self.sq, np.ndarray) else n_rows * n_cols
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
        for rows, sq, gap, own_h, _ in self._parts(h, sq=self.distance_sq):
            own = kernel.slopes_of(sq, gap, self.points.radius, own_h)
            if self.points.local_scale is not None:
                own *= (h / own_h) ** 2
            slopes[rows] *= own
        return super().weighted_differences(slopes, allowed)


@dataclass(frozen=True)
class ProjectedSetting:
    """The kernel and bandwidth at which tiles are turned into energies."""

    kernel: Projected
    bandwidth_scaled: float


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
        self.radius, self.origin = (
            float(whitening.radius * self.scale),
            origin * self.scale,
        )
        self.local_scale, self.setting = local_scale, None
        if kernel is not None:
            self.setting = ProjectedSetting(kernel, float(bandwidth * self.scale))
        centers = self.exact.astype(np.float64)
        # exactly made: they may be small where norms are large
        norms = np.sqrt(np.einsum("ij,ij->i", centers, centers))
        self._lack = (self.radius - norms) * (self.radius + norms)
        steps = centers - self.origin
        self._about = np.einsum("ij,ij->i", steps, steps)
        self._along = steps @ self.origin

    def lacks(self, cols: slice, shrinkage: float) -> tuple[FloatArray, FloatArray]:
        """Return ``radius^2 - |c_j|^2`` of shrunk centres, and squares about the origin.

        The latter are ``|c_j - origin|^2`` of centres as they are.
        """
        lack, about = self._lack[cols], self._about[cols]
        if shrinkage != 1.0:
            rest = 1.0 - shrinkage
            lack = lack + rest * (1.0 + shrinkage) * about
            lack = lack + 2.0 * rest * self._along[cols]
        return lack, about

    def sq_to_origin(self, exact_queries: FloatArray) -> FloatArray:
        """Return squared distances of queries to the origin."""
        return np.square(exact_queries - self.origin).sum(axis=1)

    def scaled_error(self, delta: FloatArray, eps: float) -> FloatArray:
        return AMPLIFIED * delta

    def subset(self, rows: Rows, weights: FloatArray | None = None) -> Self:
        subset = super().subset(rows, weights)
        for name in ("_lack", "_about", "_along"):
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
        return tile.energies(setting.kernel, setting.bandwidth_scaled, setting.shrinkage)

    def finish(self, state):
        return super().finish(state) + self.typical
