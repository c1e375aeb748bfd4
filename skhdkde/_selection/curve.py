"""The search for the bandwidth that is best in Kullback-Leibler divergence.

``KL(rho || rho_hat_h)`` depends on ``h`` only through the mean of ``log rho_hat_h``
over fresh points, which the leave-one-out mean over the training points estimates.
One pass over the pairs gives it at a whole grid of bandwidths.
"""

from numbers import Integral

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from skhdkde._kernels.compact import SHARP_CURVE
from skhdkde._selection.search_result import BandwidthSearch
from skhdkde._utils.warnings import warn_user

# Largest spacing in log h from which a spline finds the optimum to 1e-3 (the error
# falls with its sixth power), and spacing at which a compact kernel's search stops.
SPLINE_SPACING = 0.1
COMPACT_SPACING = 5e-4
MAX_PASSES = 12


def search_bandwidth(queries, bandwidths, n_copies=0):
    """Maximise the mean leave-one-out log density.

    Parameters
    ----------
    queries : LeaveOneOut
    bandwidths : int or ndarray
        Size of the grid, which is then chosen, widened and refined as needed; or the
        grid itself, in data units.
    n_copies : int
        For the record.

    Returns
    -------
    search : BandwidthSearch
    """
    scale, d = queries.points.scale, queries.points.shape[1]
    if isinstance(bandwidths, Integral):
        low, high = queries.search_range()
        ratio = queries.kernel.squaring_ratio
        curve = _Curve(queries, comb(low, high, bandwidths, ratio))
        curve.widen()
        curve.zoom(bandwidths)
    else:
        curve = _Curve(queries, np.unique(bandwidths) * scale)
    best = curve.peak()
    if curve.best in (0, len(curve.mean) - 1) and np.isclose(
        best, curve.bandwidths[curve.best], rtol=1e-6
    ):
        warn_user(
            f"bandwidth {best / scale:.6g}, at an end of the {len(curve.bandwidths)} "
            "tried, is the best of them; the optimum may lie beyond."
    )
    return BandwidthSearch(
        bandwidth=float(best / scale),
        bandwidths=curve.bandwidths / scale,
        mean_log_density=curve.mean + d * np.log(scale),
        standard_error=curve.standard_error,
        n_out_of_reach=curve.n_out_of_reach,
        n_queries=len(queries.rows),
        n_copies=n_copies,
    )


class _Curve:
    """Mean leave-one-out log density at the bandwidths tried so far."""

    def __init__(self, queries, bandwidths):
        self.queries = queries
        self.bandwidths = self.mean = self.standard_error = np.empty(0)
        self.n_out_of_reach = np.empty(0, dtype=int)
        self.n_passes = 0
        self.add(bandwidths)

    def add(self, bandwidths):
        """One pass over the pairs for all ``bandwidths`` that were not tried yet."""
        if len(self.bandwidths):
            known = np.log(self.bandwidths)
            gap = np.abs(np.log(bandwidths)[:, None] - known).min(axis=1)
            bandwidths = bandwidths[gap > 1e-9]
        self.n_passes += 1
        logs = self.queries.log_density(bandwidths)
        weights = self.queries.weights[:, None] / self.queries.weights.sum()
        mean = np.sum(weights * logs, axis=0)
        with np.errstate(invalid="ignore"):
            variance = np.sum((weights * (logs - mean)) ** 2, axis=0)
        columns = {
            "bandwidths": bandwidths,
            "mean": mean,
            "standard_error": np.sqrt(variance),
            "n_out_of_reach": np.sum(np.isneginf(logs), axis=0),
        }
        order = np.argsort(np.concatenate([self.bandwidths, bandwidths]))
        for name, new in columns.items():
            setattr(self, name, np.concatenate([getattr(self, name), new])[order])

    @property
    def best(self):
        return int(np.argmax(self.mean))

    def widen(self):
        """Go on beyond an end of the grid while the best is there."""
        n = len(self.bandwidths)
        while self.n_passes < MAX_PASSES and self.best in (0, len(self.mean) - 1):
            step = self.bandwidths[1] / self.bandwidths[0]
            if self.best == 0:
                self.add(self.bandwidths[0] * step ** -np.arange(n, 0, -1.0))
            else:
                self.add(self.bandwidths[-1] * step ** np.arange(1.0, n + 1))

    def zoom(self, n_bandwidths):
        """Refine around the best until the spacing is fine enough for ``peak``."""
        kernel = self.queries.kernel
        target = COMPACT_SPACING if kernel.compact else SPLINE_SPACING
        while self.n_passes < MAX_PASSES:
            left, right = self._neighbours()
            if np.log(right / left) <= 2.001 * target:
                return
            if kernel.compact:
                inner = np.geomspace(left, right, n_bandwidths + 2)[1:-1]
            else:
                step = np.log(kernel.squaring_ratio) / 8
                half = np.log(right / left) / 2 + 4 * step
                center = self.bandwidths[self.best]
                count = int(np.ceil(half / step))
                inner = center * np.exp(step * np.arange(-count, count + 1))
            self.add(inner)

    def _neighbours(self):
        last = len(self.bandwidths) - 1
        around = max(self.best - 1, 0), min(self.best + 1, last)
        return self.bandwidths[around[0]], self.bandwidths[around[1]]

    def peak(self):
        """Bandwidth of the largest mean: by a quintic spline where it is smooth."""
        best, log_h = self.best, np.log(self.bandwidths)
        if np.isneginf(self.mean[best]):
            raise ValueError(
                f"bandwidths up to {self.bandwidths[-1] / self.queries.points.scale:.6g} "
                f"leave at least {self.n_out_of_reach.min()} of "
                f"{len(self.queries.rows)} points without a neighbour in reach."
            )
        window = slice(max(best - 6, 0), best + 7)
        x, y = log_h[window], self.mean[window]
        if self.queries.kernel.compact:
            # by more than the curve's distances are wrong, so that all stay in reach
            return float(self.bandwidths[best]) * (1.0 + 2.0 * SHARP_CURVE)
        if len(x) < 3 or not np.isfinite(y).all():
            return float(self.bandwidths[best])
        slope = make_interp_spline(x, y, k=5 if len(x) > 5 else 2).derivative()
        left, right = np.log(self._neighbours())
        if not slope(left) > 0.0 > slope(right):
            return float(self.bandwidths[best])
        return float(np.exp(brentq(slope, left, right)))


def comb(low, high, n_bandwidths, ratio):
    """Geometric grid from ``low`` to at least ``high`` in steps that divide ``ratio``.

    The step is the smallest of ``ratio^(1/4), ^(1/2), ^1, ^2, ...`` that gets there with
    ``n_bandwidths``. Without a ``ratio`` the grid ends at ``high``.
    """
    if ratio is None:
        return np.geomspace(low, high, n_bandwidths)
    needed = np.log(high / low) / max(n_bandwidths - 1, 1) / np.log(ratio)
    power = 1.0 / 4.0
    while power < needed:
        power = 2.0 * power if power < 1.0 else power + 1.0
    return low * ratio ** (power * np.arange(n_bandwidths))
