"""The search for the bandwidth that is best in Kullback-Leibler divergence.

``KL(rho || rho_hat_h)`` depends on ``h`` only through the mean of ``log rho_hat_h``
over fresh points, which the leave-one-out mean over the training points estimates.
One pass over the pairs gives it at a whole grid of bandwidths.
"""

import warnings
from dataclasses import dataclass, fields
from numbers import Integral

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from skhdkde._backends import reduce_pairs
from skhdkde._digests import lowest, priorities, seed_from
from skhdkde._kernels import SHARP_CURVE
from skhdkde._reductions import KSmallest, LogSumExp

__all__ = ["BandwidthSearch", "Candidate", "LeaveOneOut", "search_bandwidth"]

N_PILOT = 64
# Below this many features a pass costs no more in float64, and the optimum is so
# flat that float32 would not find it to three digits.
FLOAT64_BELOW = 16
# Largest spacing in log h from which a spline finds the optimum to 1e-3 (the error
# falls with its sixth power), and spacing at which a compact kernel's search stops.
SPLINE_SPACING = 0.1
COMPACT_SPACING = 5e-4
MAX_PASSES = 12
# Squared distances that float32 has all its digits for.
SMALLEST_FLOAT32 = 1e-30
# Least ratio of the ends of the first grid, where points nearly coincide.
SMALLEST_RATIO = 1e-12


@dataclass(frozen=True)
class Candidate:
    """A setting that was compared with others, at its best bandwidth.

    Attributes
    ----------
    covariance_type : {"spherical", "diag", "full", "local"}
    mixture : object or None
        Of the components, for "local".
    preserve_variance : bool
    kernel : str
    degrees_of_freedom : float
        Infinite for kernels other than "student".
    bandwidth : float
    mean_log_density, standard_error : float
        On held-out points, in nats per point and data units.
    """

    covariance_type: str
    mixture: object
    preserve_variance: bool
    kernel: str
    degrees_of_freedom: float
    bandwidth: float
    mean_log_density: float
    standard_error: float


@dataclass(frozen=True)
class BandwidthSearch:
    """What the search for the KL-optimal bandwidth saw.

    Attributes
    ----------
    bandwidth : float
        The bandwidth chosen, in data units or those of the frame of a covariance.
    bandwidths : ndarray of shape (n_bandwidths,)
        Bandwidths tried, ascending.
    mean_log_density : ndarray of shape (n_bandwidths,)
        Mean leave-one-out log density at each, in nats; -inf if a query had no
        training point in reach.
    standard_error : ndarray of shape (n_bandwidths,)
        Standard error of ``mean_log_density`` over the queries, in nats; NaN where
        the mean is -inf.
    n_out_of_reach : ndarray of shape (n_bandwidths,)
        Number of queries without a training point in reach (compact kernels).
    n_queries : int
        Number of training points used as queries.
    n_copies : int
        Number of training points that are exact copies of an earlier one; copies
        count as one point with their total weight.
    candidates : tuple of Candidate
        Structures and degrees of freedom that were compared on held-out points; empty if
        there was nothing to compare, and the mean is over points left out one by one.

    See Also
    --------
    HighDimKernelDensity : Has one as ``bandwidth_search_``.
    select_bandwidth : Returns one if asked to.
    BandwidthDisplay : Draws such a curve, finer, with the regimes.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> X = np.random.default_rng(0).normal(size=(500, 20))
    >>> kde = HighDimKernelDensity(kernel="student", random_state=0).fit(X)
    >>> search = kde.bandwidth_search_
    >>> search
    <BandwidthSearch: bandwidth=0.908..., best of 7 from 0.738... to 1.12...,
    -30.59... nats over 500 queries>
    >>> [found.degrees_of_freedom for found in search.candidates]
    [3.0, 5.0, 10.0, 30.0, 100.0]
    >>> float(search.to_frame().loc[0, "degrees_of_freedom"])  # the best; by pandas
    100.0
    """

    bandwidth: float
    bandwidths: np.ndarray
    mean_log_density: np.ndarray
    standard_error: np.ndarray
    n_out_of_reach: np.ndarray
    n_queries: int
    n_copies: int
    candidates: tuple = ()

    def to_frame(self):
        """Make a table of the candidates, best first.

        Returns
        -------
        frame : pandas.DataFrame
            A row for each candidate, with its attributes as columns.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "BandwidthSearch.to_frame needs pandas: pip install pandas."
            ) from error
        columns = [field.name for field in fields(Candidate)]
        rows = [[getattr(c, name) for name in columns] for c in self.candidates]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.sort_values("mean_log_density", ascending=False, ignore_index=True)

    def __repr__(self):
        low, high = self.bandwidths[0], self.bandwidths[-1]
        return (
            f"<BandwidthSearch: bandwidth={self.bandwidth:.6g}, best of "
            f"{len(self.bandwidths)} from {low:.4g} to {high:.4g}, "
            f"{self.mean_log_density.max():.6g} nats over {self.n_queries} queries>"
        )


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
        warnings.warn(
            f"bandwidth {best / scale:.6g}, at an end of the {len(curve.bandwidths)} "
            "tried, is the best of them; the optimum may lie beyond.",
            UserWarning,
            stacklevel=2,
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


class LeaveOneOut:
    """Distinct training points as queries, each without itself. All in scaled units.

    If there are more than ``n_queries`` points they are drawn at random, by the ``index``
    of each in the data.
    """

    def __init__(self, points, kernel, n_queries, random_state, index=None, **engine):
        rows = np.arange(points.shape[0])
        index = rows if index is None else index
        if len(rows) > n_queries:
            rows = lowest(priorities(index, seed_from(random_state)), n_queries)
        weights = np.ones(len(rows)) if points.weights is None else points.weights[rows]
        others = points.total_weight_without_each()[rows]
        self._set(points, kernel, rows, index[rows], weights, others, engine)

    def _set(self, points, kernel, rows, index, weights, others, engine):
        self.points, self.kernel, self.engine = points, kernel, engine
        self.rows, self.weights = rows, weights
        # the heaviest are the pilots; of those that weigh the same any
        order = np.lexsort((priorities(index, 0), -weights))
        self.pilots = rows[order[:N_PILOT]]
        with np.errstate(divide="ignore"):
            self.log_others = np.log(others)
        wide = kernel.compact or points.shape[1] < FLOAT64_BELOW
        self.dtype = np.dtype(np.float64) if wide else points.dtype
        self.tol = 1e-2 if self.dtype == np.float32 else 1e-7

    def _reduce(self, reduction, rows, dtype):
        return reduce_pairs(
            reduction,
            self.points.rows_as_queries(rows),
            self.points,
            leave_out=rows,
            dtype=dtype,
            **self.engine,
            label="bandwidth",
        )

    def nearest_sq(self, rows):
        """Squared distance of the points ``rows`` to the nearest other point."""
        if self.dtype == np.float32:
            nearest = self._reduce(KSmallest(1, 1e-5), rows, self.dtype)[:, 0]
            if nearest.min() > SMALLEST_FLOAT32:
                return nearest
        return self._reduce(KSmallest(1, 1e-9), rows, np.float64)[:, 0]

    def nearest_rule(self):
        """``h^2`` = mean squared distance to the nearest point / ``d``."""
        mean = np.average(self.nearest_sq(self.rows), weights=self.weights)
        d = self.points.shape[1]
        return float(np.sqrt(mean / d / self.kernel.variance(d)))

    def log_density(self, bandwidths):
        """Leave-one-out log density of each query, (n_queries, n_bandwidths), nats."""
        d = self.points.shape[1]
        reduction = LogSumExp(self.kernel, bandwidths, self.points, self.tol)
        log_sums = self._reduce(reduction, self.rows, self.dtype)
        log_norm = self.kernel.log_normalizer(d) + d * np.log(bandwidths)
        return log_sums - log_norm - self.log_others[:, None]

    def search_range(self):
        """Bandwidths between which the optimum lies.

        For the exponential profiles stationarity reads ``h^p = <r^p> / d`` with the
        mean over the kernel's own weights: not below the mean of the nearest points'
        ``r^p``, hence not below half their median, which a pilot gives reliably whatever
        the tails; and not above the mean over all points. With weights, one point may
        be most of either mean, and the bounds are the extremes. A compact kernel must
        reach the nearest point of every query, and is past its optimum when it covers
        all points twice over.
        """
        nearest = self.nearest_sq(self.pilots)
        largest = self.points.largest_norm
        if self.kernel.compact:
            return np.sqrt(nearest.max()), 4.0 * largest
        p, d = self.kernel.power, self.points.shape[1]
        low = np.median(nearest ** (p / 2.0)) / 2.0
        high = (2.0 * self.points.mean_square_spread()) ** (p / 2.0)
        if self.points.weights is not None:
            low, high = nearest.min() ** (p / 2.0), (2.0 * largest) ** p
        low, high = (low / d) ** (1.0 / p), 1.1 * (high / d) ** (1.0 / p)
        return max(low, SMALLEST_RATIO * high), high


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
