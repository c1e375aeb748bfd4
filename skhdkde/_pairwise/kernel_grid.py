"""Sums over one visit of the pairs for many settings of kernel, bandwidth and pull.

The search over structures compares kernels, bandwidths ``h`` and, where variance is
preserved, training points pulled to the mean by an ``a`` that depends on ``h``. All of
them are functions of the same inner products, so one tile serves every setting.
"""

import numpy as np

from skhdkde._utils.arrays import namespace, to_host


class CellSums:
    """``log sum_j w_j v_j k(|x - a y_j| / (h c_j))`` for settings ``(k, h, a)``.

    The state is the lowest energy in each setting, and the sums relative to it, both of
    shape (n_rows, n_cells). What a reduction offers is in ``_reductions.py``.

    Parameters
    ----------
    cells : list of tuple
        Kernel, bandwidth in scaled units, and pull in [0, 1].
    tol : float
        Error of a log sum that is allowed.
    logs : ndarray of shape (n_points,)
        ``log v_j <= 0``, used if the points are stretched by ``1 / c_j^2``.
    """

    def __init__(self, cells, tol, logs=None):
        self.cells, self.tol, self.logs = cells, tol, logs
        self.width = len(cells)
        self.smallest_bandwidth = min(h for _, h, _ in cells)
        self.kernels = {id(kernel): kernel for kernel, _, _ in cells}.values()

    def reach(self, nearest):
        return np.full_like(nearest, np.inf)

    def suspect_rows(self, nearest, delta):
        h = [self.smallest_bandwidth]
        rows = [k.suspect_rows(nearest, delta, h, self.tol) for k in self.kernels]
        return np.logical_or.reduce(rows)

    def suspect_pairs(self, sq, nearest, delta):
        return np.ones(sq.shape, dtype=bool)

    def start(self, n_rows):
        shape = n_rows, len(self.cells)
        return np.full(shape, np.inf), np.zeros(shape)

    def update(self, state, tile):
        lowest, sums = np.empty_like(state[0]), np.empty_like(state[1])
        for g, (kernel, h, pull) in enumerate(self.cells):
            sq = tile.pulled(pull)
            if tile.points.stretch is not None:
                sq = tile.discounted(sq, *kernel.discount(self.logs, h))
            nearest = to_host(namespace(sq).amin(sq, 1)).astype(np.float64)
            lowest[:, g] = np.minimum(state[0][:, g], kernel.energy(nearest))
            reference = np.where(np.isinf(lowest[:, g]), 0.0, lowest[:, g])
            shifted = kernel.shift(kernel.energy(sq), reference)
            values = kernel.values(shifted, h, shifted, reference)
            sums[:, g] = to_host(values @ tile.weights)
        if state[1].any():
            sums += state[1] * self._factors(lowest, state[0])
        return lowest, sums

    def merge(self, state, other):
        lowest = np.minimum(state[0], other[0])
        sums = state[1] * self._factors(lowest, state[0])
        sums += other[1] * self._factors(lowest, other[0])
        return lowest, sums

    def _factors(self, lowest, other):
        with np.errstate(invalid="ignore"):
            logs = self._log_peaks(other) - self._log_peaks(lowest)
        return np.exp(np.where(np.isnan(logs), 0.0, logs))  # NaN: neither has points

    def _log_peaks(self, lowest):
        peaks = np.empty_like(lowest)
        for g, (kernel, h, _) in enumerate(self.cells):
            peaks[:, g] = kernel.log_peak(lowest[:, g], np.array([h]))[:, 0]
        return peaks

    combine = staticmethod(np.logaddexp)

    def finish(self, state):
        """Log sums of shape (n_rows, n_cells)."""
        lowest, sums = state
        found = np.where(np.isinf(lowest), 0.0, lowest)
        with np.errstate(divide="ignore"):
            return np.log(sums) + self._log_peaks(found)
