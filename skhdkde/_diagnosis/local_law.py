"""How many training points to expect within a distance, from the nearest few.

Near a query the training points are a Poisson process. The expected number within a
squared distance ``E`` is modelled, with ``t = log(E_k / E)`` and ``E_k`` the distance
that ``k`` points are within, as::

    log Lambda(E) = log k - slope t - bend t^2

``bend = 0`` is the power law that Levina and Bickel (2005) fit to estimate the
intrinsic dimension, ``2 slope``. In high dimension a power law is not enough:
the number falls off ever faster towards the query, and what matters there, the level
``Lambda = 1``, is an extrapolation. Few neighbours do not tell the bend, so it is
taken from a model with one parameter: squared distances follow a gamma
distribution, of which these are the ``k`` smallest of ``n``. That is exact for normal
data seen from their mean, and a power law in low dimension or far out in the tail. Its
shape is chosen to give the observed mean of ``t``.

One law for all ``k`` neighbours fails where some belong to a smaller group, or where
the query is far out and sees few near points before the bulk. The law says how ``t``
scatters: where a test of that rejects it, half as many neighbours are tried.
"""

import copy
import functools

import numpy as np
from scipy.special import gammaincinv

# More give less scatter; fewer are more local. From 20 to 50 the median error bar
# changes by a few percent.
N_NEIGHBORS = 32
SHAPES = np.geomspace(0.05, 1e7, 160)
# A neighbour nearer than this many e-folds below the expected nearest one is taken to
# be there: it would decide the slope alone.
CAP = 3.0
# Neighbours below which there is nothing left to test.
FEWEST_TESTED = 8
# Of Stephens' statistic (1974, EDF statistics for goodness of fit) for an exponential law
# of unknown scale: one percent of true laws are above it.
REJECTED_ABOVE = 1.308
_INDEX = np.arange(len(SHAPES), dtype=np.float64)


def local_laws(nearest, n_points, rank):
    """Laws that fit, of as many neighbours as possible, ``rank`` at most.

    Parameters
    ----------
    nearest : ndarray of shape (n_queries, at least rank + 1)
    n_points : int
    rank : int

    Yields
    ------
    rows : ndarray of int
        Queries, each of which comes once.
    law : LocalLaw
        Of these queries.
    """
    rows = np.arange(len(nearest))
    while len(rows):
        law = LocalLaw(nearest[rows, : rank + 1], n_points)
        fits = law.fits if rank >= FEWEST_TESTED else np.ones(len(rows), dtype=bool)
        yield rows[fits], law.rows(fits)
        rows, rank = rows[~fits], rank // 2


class LocalLaw:
    """Expected number of training points around each query.

    Parameters
    ----------
    nearest : ndarray of shape (n_queries, k + 1)
        Smallest squared distances, ascending.
    n_points : int
        Number of training points that each query sees.

    Attributes
    ----------
    fits : ndarray of bool of shape (n_queries,)
        Whether the distances scatter as the law says.
    """

    def __init__(self, nearest, n_points):
        self.rank = nearest.shape[1] - 1
        self.outer = nearest[:, -1]
        table = _gamma_table(self.rank, n_points)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.log(self.outer[:, None] / nearest[:, :-1])
        t = np.clip(np.nan_to_num(t, nan=0.0), 0.0, 50.0)
        median = np.median(t, axis=1)
        cap = table.at(table.median, median, table.cap)
        capped = np.where(median[:, None] > 0.0, np.minimum(t, cap[:, None]), t)
        mean = capped.mean(axis=1)
        self.slope = table.at(table.mean, mean, table.slope)
        self.bend = table.at(table.mean, mean, table.bend)
        self.fits = self._statistic(t) <= REJECTED_ABOVE

    def _statistic(self, t):
        """Kolmogorov's distance between ``log(k / Lambda)`` and its exponential law."""
        folds = t * (self.slope[:, None] + self.bend[:, None] * t)
        share = -np.expm1(-folds[:, ::-1])  # ascending, uniform if the law holds
        steps = np.arange(self.rank + 1) / self.rank
        above, below = steps[1:] - share, share - steps[:-1]
        distance = np.maximum(above, below).max(axis=1)
        root = np.sqrt(self.rank)
        return (distance - 0.2 / self.rank) * (root + 0.26 + 0.5 / root)

    def rows(self, rows):
        """The law of some of the queries."""
        part = copy.copy(self)
        for name in ("outer", "slope", "bend", "fits"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def squared_distance(self, count):
        """Squared distance within which ``count <= k`` points are expected.

        ``count`` is a number, or an array; the result has the shape (n_queries,
        *count.shape).
        """
        folds = np.log(self.rank / np.asarray(count, dtype=np.float64))
        ones = (-1,) + (1,) * folds.ndim
        slope, bend = self.slope.reshape(ones), self.bend.reshape(ones)
        return self.outer.reshape(ones) * np.exp(-_log_ratio(folds, slope, bend))

    def dimension(self, count):
        """``2 dlog(Lambda) / dlog(E)`` where ``count`` points are expected: (n_queries,).

        The number of dimensions in which the points spread, as seen at that distance.
        """
        folds = np.log(self.rank / count)
        t = _log_ratio(folds, self.slope, self.bend)
        return 2.0 * (self.slope + 2.0 * self.bend * t)


def _log_ratio(folds, slope, bend):
    """The ``t >= 0`` at which ``slope t + bend t^2 = folds``."""
    return 2.0 * folds / (slope + np.sqrt(slope * slope + 4.0 * bend * folds))


class _GammaTable:
    """Coefficients of the law, and what it says of ``t``, for a range of shapes."""

    def __init__(self, rank, n_points):
        level = rank / n_points
        outer = gammaincinv(SHAPES, level)
        # the law is exact one e-fold within E_k, and one beyond the level of one point
        folds = np.array([1.0, max(np.log(rank), 1.0) + 1.0])
        inner = gammaincinv(SHAPES[:, None], level * np.exp(-folds))
        t = np.log(outer[:, None] / inner)
        rate = folds / t
        bend = np.maximum(0.0, (rate[:, 1] - rate[:, 0]) / (t[:, 1] - t[:, 0]))
        # with few points in all, the parabola would turn within reach
        self.slope = np.maximum(rate[:, 0] - bend * t[:, 0], 0.05 * rate[:, 0])
        self.bend = (rate[:, 0] - self.slope) / t[:, 0]
        # in units of folds, the distances of k points are exponential variables
        nodes, weights = np.polynomial.laguerre.laggauss(64)
        self.mean = self._log_ratio(nodes) @ weights
        self.median = self._log_ratio(np.log(2.0))[:, 0]
        self.cap = self._log_ratio(np.log(rank) + CAP)[:, 0]

    def _log_ratio(self, folds):
        return _log_ratio(np.atleast_1d(folds), self.slope[:, None], self.bend[:, None])

    def at(self, column, value, wanted):
        """``wanted`` for the shape at which ``column``, which falls, has ``value``."""
        position = np.interp(-np.log(np.maximum(value, 1e-300)), -np.log(column), _INDEX)
        return np.interp(position, _INDEX, wanted)


@functools.lru_cache(maxsize=32)
def _gamma_table(rank, n_points):
    return _GammaTable(rank, n_points)
