"""Mean log density against bandwidth, and the search for its maximum.

``KL(rho || rho_hat_h)`` depends on the bandwidth ``h`` only through the mean of
``log rho_hat_h`` over fresh points, which the mean over points left out, one by one or in
folds, estimates. One pass over the pairs gives it at a whole grid of bandwidths.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from skhdkde._kernels import SHARP_CURVE
from skhdkde._selection.search_result import BandwidthSearch
from skhdkde._utils.arrays import weighted_mean
from skhdkde._utils.warnings import warn_user

# Largest spacing in log h from which a quintic spline finds the optimum to 1e-3 (the
# error falls with its sixth power); spacing at which a compact kernel's search stops.
SPLINE_SPACING = 0.1
COMPACT_SPACING = 5e-4
MAX_PASSES = 12
# Share of the queries, of lowest log density, without which a bandwidth should not be
# much smaller, and how much is.
TRIMMED, LARGEST_SHARE = 0.01, 3.0
# Share of what these lack that those named have; a lack, in nats, that is as good as any.
MOST, LARGEST_LACK = 0.9, 1e12
# Nats by which other points are the likelier without them, at least.
LEAST_GAIN = 0.1
# Rows that a message shows.
SHOWN = 5
# Pairs from which on one in so many queries finds where to look; bandwidths that all
# of them then try to each side.
MOST_PAIRS, PILOT_STEP, N_BESIDE = 2**27, 16, 4
# Difference in log h below which two bandwidths are one.
EQUAL_SPACING = 1e-9


class Spline(NamedTuple):
    """An interpolating spline around the best of the bandwidths tried."""

    degree: int
    n_beside: int  # points to each side of the best that it goes through


QUINTIC, CUBIC, PARABOLA = Spline(5, 6), Spline(3, 3), Spline(2, 1)


class BandwidthCurve:
    """Mean log density at the bandwidths tried so far.

    Attributes
    ----------
    bandwidths : ndarray of shape (n_bandwidths,)
        Ascending, in the unit of those that were added.
    mean, standard_error : ndarray of shape (n_bandwidths,)
        Mean log density over the queries and its standard error, in nats.
    n_out_of_reach : ndarray of int of shape (n_bandwidths,)
        Number of queries with a log density of -inf.
    """

    COLUMNS = ("bandwidths", "mean", "standard_error", "n_out_of_reach")

    def __init__(self):
        self.bandwidths = self.mean = self.standard_error = np.empty(0)
        self.n_out_of_reach = np.empty(0, dtype=int)

    def add(self, bandwidths, log_density, weights):
        """Add bandwidths and the log densities there.

        Parameters
        ----------
        bandwidths : ndarray of shape (n_new,)
        log_density : ndarray of shape (n_queries, n_new)
        weights : ndarray of shape (n_queries,)
        """
        mean, standard_error = weighted_mean(log_density, weights)
        n_out_of_reach = np.sum(np.isneginf(log_density), axis=0)
        new = bandwidths, mean, standard_error, n_out_of_reach
        order = np.argsort(np.concatenate([self.bandwidths, bandwidths]))
        for name, values in zip(self.COLUMNS, new, strict=True):
            setattr(self, name, np.concatenate([getattr(self, name), values])[order])

    def untried(self, bandwidths, spacing=EQUAL_SPACING):
        """Return those of the bandwidths that differ from all that were tried."""
        if not len(self.bandwidths):
            return bandwidths
        gaps = np.abs(np.log(bandwidths)[:, None] - np.log(self.bandwidths))
        return bandwidths[gaps.min(axis=1) > spacing]

    @property
    def best(self):
        """Index of the largest mean."""
        return int(np.argmax(self.mean))

    @property
    def best_is_at_end(self):
        """Whether the largest mean is at the first or the last bandwidth."""
        return self.best in (0, len(self.mean) - 1)

    def around_best(self):
        """Return the bandwidths next to the best; the best itself at an end."""
        last = len(self.bandwidths) - 1
        nearby = max(self.best - 1, 0), min(self.best + 1, last)
        return self.bandwidths[nearby[0]], self.bandwidths[nearby[1]]

    def maximum(self, spline=QUINTIC):
        """Return the bandwidth of the largest mean, by a spline in ``log h``.

        It is the best that was tried where the means there are not finite, or the spline
        has no maximum between its neighbours.
        """
        best, tried = self.best, float(self.bandwidths[self.best])
        window = slice(max(best - spline.n_beside, 0), best + spline.n_beside + 1)
        x, y = np.log(self.bandwidths[window]), self.mean[window]
        if len(x) < 3 or not np.isfinite(y).all():
            return tried
        degree = spline.degree if len(x) > spline.degree else 2
        slope = make_interp_spline(x, y, k=degree).derivative()
        left, right = np.log(self.around_best())
        if not slope(left) > 0.0 > slope(right):
            return tried
        return float(np.exp(brentq(slope, left, right)))


class FarPoints(NamedTuple):
    """Points that are far from all others, and make a bandwidth much larger."""

    n_points: int
    n_queries: int  # among which they were found
    shown: list[int]  # the first of them, as rows of X
    bandwidth_without: float  # that would do for the others, data units

    def warn(self, bandwidth: float, least: float) -> None:
        """Warn of them if a bandwidth is so large because of them.

        Parameters
        ----------
        bandwidth : float
            In use, data units.
        least : float
            Bandwidth, data units, below which kernels tell values of discrete features
            apart, so that a smaller one is no measure.
        """
        without = max(self.bandwidth_without, least)
        if not bandwidth > LARGEST_SHARE * without:
            return
        shown = ", ".join(map(str, self.shown))
        warn_user(
            f"the bandwidth, {bandwidth:.3g}, is so large because of {self.n_points} of "
            f"{self.n_queries} training points that are far from all others (row "
            f"{shown}); without them it would be at most about {without:.3g}. "
            "Remove them if they are errors; if not, covariance_type='auto' or "
            "kernel='student' suits both kinds of points."
        )


class SearchOutcome(NamedTuple):
    """What :func:`search_bandwidth` found."""

    search: BandwidthSearch
    best_is_at_end: bool  # so that the optimum may lie beyond
    far: FarPoints | None


def search_bandwidth(queries, bandwidths, n_duplicates=0):
    """Maximise the mean leave-one-out log density.

    Parameters
    ----------
    queries : LeaveOneOut
    bandwidths : int or ndarray
        Size of the grid, which is then chosen, widened and refined as needed; or the
        grid itself, in data units.
    n_duplicates : int
        For the record.

    Returns
    -------
    outcome : SearchOutcome

    Raises
    ------
    ValueError
        If no bandwidth leaves a point in reach of every query.
    """
    scale, d = queries.points.scale, queries.points.shape[1]
    refined = _RefinedCurve(queries)
    if isinstance(bandwidths, Integral):
        low, high = queries.search_range()
        ratio = queries.kernel.squaring_ratio
        grid = geometric_grid(low, high, bandwidths, ratio)
        if ratio is not None and len(queries.rows) * queries.points.shape[0] > MOST_PAIRS:
            grid = refined.located(grid, ratio)
        refined.evaluate(grid)
        refined.widen()
        refined.zoom(bandwidths)
    else:
        refined.evaluate(np.unique(bandwidths) * scale)
    curve = refined.curve
    best = refined.maximum()
    at_end = curve.best_is_at_end and np.isclose(
        best, curve.bandwidths[curve.best], rtol=1e-6
    )
    at_end &= best < queries.largest_bandwidth
    search = BandwidthSearch(
        bandwidth=float(best / scale),
        bandwidths=curve.bandwidths / scale,
        mean_log_density=curve.mean + d * np.log(scale),
        standard_error=curve.standard_error,
        n_out_of_reach=curve.n_out_of_reach,
        n_queries=len(queries.rows),
        n_copies=n_duplicates,
    )
    return SearchOutcome(search, bool(at_end), refined.far_points(best))


class _RefinedCurve:
    """A leave-one-out curve that is made finer where its maximum is; scaled units."""

    def __init__(self, queries):
        self.queries, self.curve, self.n_passes = queries, BandwidthCurve(), 0
        # without the lowest log densities: largest mean, its bandwidth, whose they are
        self.trimmed = -np.inf, np.nan, np.empty(0, dtype=int)

    def evaluate(self, bandwidths):
        """Make one pass over the pairs for all bandwidths that were not tried yet."""
        bandwidths = self.curve.untried(bandwidths)
        self.n_passes += 1
        log_density = self.queries.log_density(bandwidths)
        self.curve.add(bandwidths, log_density, self.queries.weights)
        self._trim(bandwidths, log_density)

    def located(self, bandwidths, ratio):
        """Return a fine grid around the best bandwidth for some of the queries."""
        some = self.queries.subset(np.arange(0, len(self.queries.rows), PILOT_STEP))
        pilot = _RefinedCurve(some)
        pilot.evaluate(bandwidths)
        pilot.widen()
        pilot.zoom(len(bandwidths))
        step = np.log(ratio)
        while step > SPLINE_SPACING:
            step /= 2.0
        steps = step * np.arange(-N_BESIDE, N_BESIDE + 1.0)
        return pilot.maximum() * np.exp(steps)

    def _trim(self, bandwidths, log_density):
        """Note where the mean without the lowest log densities is largest so far."""
        n_lowest = max(int(TRIMMED * len(log_density)), 1)
        if len(log_density) <= 10 * n_lowest or not len(bandwidths):
            return
        lowest = np.argpartition(log_density, n_lowest, axis=0)[:n_lowest]
        total = self.queries.weights @ log_density
        weights = self.queries.weights[lowest]
        left_out = weights * np.take_along_axis(log_density, lowest, axis=0)
        with np.errstate(invalid="ignore"):
            total = (total - left_out.sum(axis=0)) / (
                self.queries.weights.sum() - weights.sum(axis=0)
            )
        best = int(np.argmax(np.nan_to_num(total, nan=-np.inf)))
        if total[best] > self.trimmed[0]:
            own = log_density[lowest[:, best], best]
            order = np.argsort(own)
            # as few as make up most of what all of them lack
            lacking = np.cumsum(np.minimum(total[best] - own[order], LARGEST_LACK))
            n_needed = np.searchsorted(lacking, MOST * lacking[-1]) + 1
            rows = lowest[order[:n_needed], best]
            self.trimmed = total[best], bandwidths[best], rows

    def far_points(self, best):
        """Return the few points that decide the best bandwidth, None if none do."""
        largest, without, rows = self.trimmed
        if self.queries.kernel.compact or not best > LARGEST_SHARE * without:
            return None
        if largest - self.curve.mean.max() < LEAST_GAIN:
            return None  # as for points that are uniform on the sphere
        return FarPoints(
            len(rows),
            len(self.queries.rows),
            self.queries.row_numbers(rows[:SHOWN]).tolist(),
            float(without / self.queries.points.scale),
        )

    def widen(self):
        """Go on beyond an end of the grid while the best is there."""
        n = len(self.curve.bandwidths)
        while self.n_passes < MAX_PASSES and self.curve.best_is_at_end:
            tried = self.curve.bandwidths
            step = tried[1] / tried[0]
            if self.curve.best == 0:
                self.evaluate(tried[0] * step ** -np.arange(n, 0, -1.0))
            else:
                beyond = tried[-1] * step ** np.arange(1.0, n + 1)
                beyond = np.unique(np.minimum(beyond, self.queries.largest_bandwidth))
                if not len(self.curve.untried(beyond)):
                    return  # no kernel is wider
                self.evaluate(beyond)

    def zoom(self, n_bandwidths):
        """Refine around the best until the spacing is fine enough for the maximum."""
        kernel = self.queries.kernel
        target = COMPACT_SPACING if kernel.compact else SPLINE_SPACING
        while self.n_passes < MAX_PASSES:
            left, right = self.curve.around_best()
            if np.log(right / left) <= 2.001 * target:
                return
            if kernel.compact:
                inner = np.geomspace(left, right, n_bandwidths + 2)[1:-1]
            else:
                step = np.log(kernel.squaring_ratio) / 8
                half = np.log(right / left) / 2 + 4 * step
                count = int(np.ceil(half / step))
                center = self.curve.bandwidths[self.curve.best]
                inner = center * np.exp(step * np.arange(-count, count + 1))
            self.evaluate(inner)

    def maximum(self):
        """Return the bandwidth of the largest mean."""
        curve = self.curve
        if np.isneginf(curve.mean[curve.best]):
            largest = curve.bandwidths[-1] / self.queries.points.scale
            raise ValueError(
                f"bandwidths up to {largest:.6g} leave at least "
                f"{curve.n_out_of_reach.min()} of {len(self.queries.rows)} points "
                "without a neighbour in reach. Pass larger ones."
            )
        if self.queries.kernel.compact:
            # by more than the curve's distances are wrong, so that all stay in reach
            return float(curve.bandwidths[curve.best]) * (1.0 + 2.0 * SHARP_CURVE)
        return curve.maximum()


def geometric_grid(low, high, n_bandwidths, ratio):
    """Return a geometric grid from ``low`` to ``high`` in steps that divide ``ratio``.

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
