"""Kernel sums for many settings of kernel, bandwidth and shrinkage from one visit.

The search over structures compares kernels, bandwidths ``h`` and, where variance is
preserved, training points shrunk towards the mean by a factor ``a`` that depends on
``h``. All are functions of the same inner products, so one tile serves every setting.
"""

from dataclasses import dataclass

import numpy as np

from skhdkde._kernels import Kernel
from skhdkde._pairwise.reductions import RelativeSums
from skhdkde._utils.arrays import finite_or_zero, namespace, widened
from skhdkde._utils.typing import FloatArray


@dataclass(frozen=True)
class KernelSetting:
    """One setting of a grid."""

    kernel: Kernel
    bandwidth_scaled: float  # in scaled units
    shrinkage: float = 1.0  # factor of the centred training points, in [0, 1]


class KernelGridSums(RelativeSums):
    """``log sum_j w_j v_j k(|x - a y_j| / (h c_j))`` for settings ``(k, h, a)``.

    The result has the shape (n_rows, n_settings). Errors of ``tol`` nats are allowed.
    ``log_factors`` are ``log v_j <= 0``, used if the points have local scales ``c_j``.
    """

    def __init__(
        self,
        settings: list[KernelSetting],
        tol: float,
        log_factors: FloatArray | None = None,
        dtype: np.dtype | None = None,
    ):
        self.settings, self.tol, self.log_factors = settings, tol, log_factors
        self.width, self.dtype = len(settings), dtype
        self.smallest_bandwidth = min(s.bandwidth_scaled for s in settings)
        self.kernels = {id(s.kernel): s.kernel for s in settings}.values()

    def suspect_rows(self, nearest_sq, delta):
        h = [self.smallest_bandwidth]
        rows = [k.suspect_rows(nearest_sq, delta, h, self.tol) for k in self.kernels]
        return np.logical_or.reduce(rows)

    def start(self, n_rows):
        shape = n_rows, len(self.settings)
        return np.full(shape, np.inf), np.zeros(shape)

    def update(self, state, tile):
        columns, sums, xp = [], [], namespace(state[0])
        for g, setting in enumerate(self.settings):
            kernel, h = setting.kernel, setting.bandwidth_scaled
            sq = self._distances(tile, setting)
            own = kernel.energy(widened(xp.amin(sq, 1)))
            columns.append(xp.minimum(state[0][:, g], own))
            reference = finite_or_zero(columns[-1])
            shifted = kernel.shift(kernel.energy(sq), reference)
            values = kernel.values(shifted, h, shifted, reference)
            sums.append(values @ tile.weights)
        lowest, total = xp.stack(columns, 1), widened(xp.stack(sums, 1))
        if xp is not np or state[1].any():  # not the first tile
            total += state[1] * self._factors(lowest, state[0])
        return lowest, total

    def _distances(self, tile, setting):
        """Return squared distances to the shrunk points, or what stands for them."""
        kernel, h = setting.kernel, setting.bandwidth_scaled
        sq = tile.shrunk_sq(setting.shrinkage)
        if tile.points.sq_factor is not None:
            assert self.log_factors is not None
            sq = tile.scaled_sq(sq, *kernel.scaled_distance(self.log_factors, h))
        return sq

    def _log_peaks(self, lowest):
        peaks = [
            s.kernel.log_peak(lowest[:, g], np.array([s.bandwidth_scaled]))
            for g, s in enumerate(self.settings)
        ]
        return namespace(lowest).hstack(peaks)

    def combine(self, result, other):
        return np.logaddexp(result, other)

    def finish(self, state):
        return self._log_sums(*state)
