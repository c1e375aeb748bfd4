"""Mean log density against bandwidth, over held-out or training points."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from skhdkde._density.density import at_bandwidth
from skhdkde._diagnosis.reduction import Diagnosing
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.reductions import LogSumExp
from skhdkde._selection.rules import N_QUERIES, leave_one_out
from skhdkde._utils.moments import _weighted_mean
from skhdkde._utils.warnings import warn_user

TOL = 1e-3  # nats
# Doublings of the range in search of the best bandwidth.
MAX_WIDENINGS = 8


def bandwidth_curve(density, X, random_state, engine):
    """The curve of an density at held-out points, or, X being None, its own."""
    if density.parts is None:
        points, kernel = density.components[0].points, density.kernel
        return PlainCurve(points, kernel, X, random_state, **engine)
    return StructuredCurve(density, X, random_state, engine)


class StructuredCurve:
    """Queries at which an density over parts is compared at many bandwidths.

    Every bandwidth is a pass of its own, as centres are pulled differently. Of the
    training points at most 4096 are queries, with what they contributed to covariances.
    """

    def __init__(self, density, X, random_state, engine):
        self.density, self.engine, self.queries = density, engine, X
        self.largest = density.largest_bandwidth
        self.X = density.training if X is None else X
        self.weights = np.ones(len(self.X)) if X is not None else density.weights()
        self.rows = np.arange(len(self.X))
        if X is None and len(self.rows) > N_QUERIES:
            rng = check_random_state(random_state)
            self.rows = np.sort(rng.choice(len(self.rows), N_QUERIES, replace=False))
        self.weights, self.X = self.weights[self.rows], self.X[self.rows]

    def log_density(self, bandwidths):
        """At each query and bandwidth, (n_queries, n_bandwidths), nats."""
        columns = [
            at_bandwidth(self.density, h).log_density(
                self.queries, self.engine, self.rows
            )
            for h in bandwidths
        ]
        return np.column_stack(columns).astype(np.float64)

    def thresholds(self, bandwidth):
        """Medians over the queries of ``h_g`` and ``h_clt``, at the density's pull."""
        _, columns = self.density.diagnose(self.queries, self.engine)
        names = Diagnosing.COLUMNS
        return tuple(
            float(np.median(columns[:, names.index(name)])) for name in ("h_g", "h_clt")
        )

    def mean(self, values):
        """Weighted mean over the queries and its standard error, (n_bandwidths,)."""
        return _weighted_mean(values, self.weights)


class PlainCurve:
    """Queries at which the textbook's density is compared at many bandwidths.

    Parameters
    ----------
    points : TrainingPoints
    kernel : object
    X : ndarray of shape (n_queries, n_features) or None
        None for the training points, each without itself and its copies.
    random_state : int, RandomState instance or None
        Draws the queries from more than 4096 training points.
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.
    """

    largest = np.inf

    def __init__(self, points, kernel, X, random_state, **engine):
        self.kernel, self.engine = kernel, engine
        if X is None:
            training, _ = leave_one_out(points, kernel, N_QUERIES, random_state, **engine)
            self.points, self.leave_out = training.points, training.rows
            if self.points.shape[0] < 2:
                raise ValueError(
                    "X=None leaves out each training point and its copies: there must be "
                    "at least two distinct ones."
                )
            self.queries = self.points.rows_as_queries(training.rows)
            self.X = self.points.in_data_units(training.rows)
            self.weights, self.log_total = training.weights, training.log_others[:, None]
        else:
            self.points, self.leave_out = points, None
            self.queries, self.X = points.as_queries(X), X
            self.weights, self.log_total = np.ones(len(X)), np.log(points.total_weight())

    def _reduce(self, reduction):
        return reduce_pairs(
            reduction,
            self.queries,
            self.points,
            leave_out=self.leave_out,
            dtype=np.float64 if self.kernel.compact else None,
            label="bandwidths",
            **self.engine,
        )

    def log_density(self, bandwidths):
        """At each query and bandwidth (data units), (n_queries, n_bandwidths), nats."""
        d, scaled = self.points.shape[1], bandwidths * self.points.scale
        log_sums = self._reduce(LogSumExp(self.kernel, scaled, self.points, TOL))
        log_volume = self.kernel.log_normalizer(d) + d * np.log(bandwidths)
        return log_sums - log_volume - self.log_total

    def thresholds(self, bandwidth):
        """Medians over the queries of ``h_g`` and ``h_clt``, in data units."""
        scale = self.points.scale
        n_visible = self.points.shape[0] - (self.leave_out is not None)
        columns = self._reduce(
            Diagnosing(self.kernel, bandwidth * scale, self.points, TOL, n_visible)
        )
        names = Diagnosing.COLUMNS
        h_g, h_clt = (columns[:, names.index(name)] for name in ("h_g", "h_clt"))
        return float(np.median(h_g) / scale), float(np.median(h_clt) / scale)

    def mean(self, values):
        """Weighted mean over the queries and its standard error, (n_bandwidths,)."""
        return _weighted_mean(values, self.weights)


def around_peak(curve, bandwidths, marks):
    """The bandwidths asked for, or so many around the best and ``marks``; the curve."""
    if not isinstance(bandwidths, Integral):
        grid = np.unique(np.asarray(bandwidths, dtype=np.float64))
        if len(grid) < 3 or not (grid[0] > 0.0 and np.isfinite(grid[-1])):
            raise ValueError(
                f"bandwidths must be at least three positive numbers, got {bandwidths!r}."
            )
        return grid, curve.log_density(grid)
    if isinstance(bandwidths, bool) or bandwidths < 3:
        raise ValueError(f"bandwidths must be an int >= 3 or a grid, got {bandwidths!r}.")
    marks = [h for h in marks if np.isfinite(h) and h > 0.0]
    low, high = 0.6 * min(marks), min(1.5 * max(marks), curve.largest)
    low = min(low, 0.5 * high)
    for _ in range(MAX_WIDENINGS):
        grid = np.geomspace(low, high, bandwidths)
        log_density = curve.log_density(grid)
        mean = curve.mean(log_density)[0]
        best = int(np.argmax(mean))
        if 0 < best < len(grid) - 1 or (best and high == curve.largest):
            return grid, log_density
        too_high = best == 0 and np.isfinite(mean[0])
        low, high = (0.5 * low, high) if too_high else (low, 2.0 * high)
        high = min(high, curve.largest)
    warn_user(
        f"No best bandwidth between {grid[0]:.4g} and {grid[-1]:.4g}: the curve may be "
        "cut off. Pass bandwidths."
    )
    return grid, log_density


def peak(bandwidths, values):
    """Bandwidth of the largest value, by a parabola through it and its neighbours."""
    best = int(np.argmax(values))
    if not 0 < best < len(values) - 1:
        return float(bandwidths[best])
    around = slice(best - 1, best + 2)
    x, y = np.log(bandwidths[around] / bandwidths[best]), values[around]
    if not np.isfinite(y).all() or np.ptp(y) == 0.0:
        return float(bandwidths[best])
    a, b, _ = np.polyfit(x, y, 2)
    shift = np.clip(-0.5 * b / a, x[0], x[2]) if a < 0.0 else 0.0
    return float(bandwidths[best] * np.exp(shift))
