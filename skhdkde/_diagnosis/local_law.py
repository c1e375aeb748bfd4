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

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import gammaincinv

from skhdkde._utils.typing import FloatArray, IntArray, Rows

# More give less scatter; fewer are more local. From 20 to 50 the median error bar
# changes by a few percent.
N_NEIGHBORS = 32
SHAPES = np.geomspace(0.05, 1e7, 160)
# A neighbour nearer than where exp(-CAP) points are expected is taken to be there: it
# would decide the slope alone.
CAP = 3.0
# Neighbours below which there is nothing left to test.
FEWEST_TESTED = 8
# Of Stephens' statistic (1974, EDF statistics for goodness of fit) for an exponential law
# of unknown scale: one percent of true laws are above it.
REJECTED_ABOVE = 1.308
_INDEX = np.arange(len(SHAPES), dtype=np.float64)


@dataclass(frozen=True)
class LocalLaw:
    """Expected number of training points around each query; arrays are over queries."""

    rank: int  # k
    outer_sq: FloatArray  # E_k
    slope: FloatArray
    bend: FloatArray
    fits: np.ndarray  # whether the distances scatter as the law says

    @classmethod
    def fit(cls, nearest_sq: FloatArray, n_points: int) -> Self:
        """Return the law of the nearest points of each query, which sees ``n_points``.

        Their squared distances, of shape (n_queries, k + 1), are ascending.
        """
        rank, outer_sq = nearest_sq.shape[1] - 1, nearest_sq[:, -1]
        table = _gamma_table(rank, n_points)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.log(outer_sq[:, None] / nearest_sq[:, :-1])
        t = np.clip(np.nan_to_num(t, nan=0.0), 0.0, 50.0)
        median = np.median(t, axis=1)
        cap = table.at(table.median, median, table.cap)
        capped = np.where(median[:, None] > 0.0, np.minimum(t, cap[:, None]), t)
        mean = capped.mean(axis=1)
        slope = table.at(table.mean, mean, table.slope)
        bend = table.at(table.mean, mean, table.bend)
        log_ratio = t * (slope[:, None] + bend[:, None] * t)
        return cls(rank, outer_sq, slope, bend, _statistic(log_ratio) <= REJECTED_ABOVE)

    def subset(self, rows: Rows) -> Self:
        """Return the law of some of the queries."""
        return dataclasses.replace(
            self,
            outer_sq=self.outer_sq[rows],
            slope=self.slope[rows],
            bend=self.bend[rows],
            fits=self.fits[rows],
        )

    def squared_distance(self, count: float | FloatArray) -> FloatArray:
        """Return the squared distance within which ``count <= k`` points are expected.

        ``count`` is a number, or an array; the result has the shape (n_queries,
        *count.shape).
        """
        log_ratio = np.log(self.rank / np.asarray(count, dtype=np.float64))
        ones = (-1,) + (1,) * log_ratio.ndim
        slope, bend = self.slope.reshape(ones), self.bend.reshape(ones)
        return self.outer_sq.reshape(ones) * np.exp(-_solve_t(log_ratio, slope, bend))

    def dimension(self, count: float) -> FloatArray:
        """Return ``2 dlog(Lambda) / dlog(E)`` where ``count`` points are expected.

        It is the number of dimensions in which the points spread, as seen at that
        distance, of shape (n_queries,).
        """
        t = _solve_t(np.log(self.rank / count), self.slope, self.bend)
        return 2.0 * (self.slope + 2.0 * self.bend * t)


def local_laws(
    nearest_sq: FloatArray, n_points: int, rank: int
) -> Iterator[tuple[IntArray, LocalLaw]]:
    """Yield some of the queries, and a law of as many neighbours as possible that fits.

    Each query comes once; ``rank`` is the largest number of neighbours. The other
    parameters are those of :meth:`LocalLaw.fit`.
    """
    rows = np.arange(len(nearest_sq))
    while len(rows):
        law = LocalLaw.fit(nearest_sq[rows, : rank + 1], n_points)
        fits = law.fits if rank >= FEWEST_TESTED else np.ones(len(rows), dtype=bool)
        yield rows[fits], law.subset(fits)
        rows, rank = rows[~fits], rank // 2


def _statistic(log_ratio):
    """Return Kolmogorov's distance of ``log(k / Lambda)`` from its exponential law.

    It is scaled as Stephens does; ``log_ratio`` has the shape (n_queries, k).
    """
    rank = log_ratio.shape[1]
    share = -np.expm1(-log_ratio[:, ::-1])  # ascending, uniform if the law holds
    steps = np.arange(rank + 1) / rank
    above, below = steps[1:] - share, share - steps[:-1]
    distance = np.maximum(above, below).max(axis=1)
    root = np.sqrt(rank)
    return (distance - 0.2 / rank) * (root + 0.26 + 0.5 / root)


def _solve_t(log_ratio, slope, bend):
    """Return the ``t >= 0`` at which ``slope t + bend t^2 = log_ratio``."""
    root = np.sqrt(slope * slope + 4.0 * bend * log_ratio)
    return 2.0 * log_ratio / (slope + root)


class _GammaTable:
    """Coefficients of the law, and what it says of ``t``, for a range of shapes."""

    def __init__(self, rank, n_points):
        level = rank / n_points
        outer = gammaincinv(SHAPES, level)
        # the law is exact where k / e points are expected, and where 1 / e is
        log_ratio = np.array([1.0, max(np.log(rank), 1.0) + 1.0])
        inner = gammaincinv(SHAPES[:, None], level * np.exp(-log_ratio))
        t = np.log(outer[:, None] / inner)
        rate = log_ratio / t
        bend = np.maximum(0.0, (rate[:, 1] - rate[:, 0]) / (t[:, 1] - t[:, 0]))
        # with few points in all, the parabola would turn within reach
        self.slope = np.maximum(rate[:, 0] - bend * t[:, 0], 0.05 * rate[:, 0])
        self.bend = (rate[:, 0] - self.slope) / t[:, 0]
        # the log ratios of k points are exponential variables
        nodes, weights = np.polynomial.laguerre.laggauss(64)
        self.mean = self._solve_t(nodes) @ weights
        self.median = self._solve_t(np.log(2.0))[:, 0]
        self.cap = self._solve_t(np.log(rank) + CAP)[:, 0]

    def _solve_t(self, log_ratio):
        return _solve_t(np.atleast_1d(log_ratio), self.slope[:, None], self.bend[:, None])

    def at(self, column, value, wanted):
        """Return ``wanted`` at the shape where ``column``, which falls, is ``value``."""
        position = np.interp(-np.log(np.maximum(value, 1e-300)), -np.log(column), _INDEX)
        return np.interp(position, _INDEX, wanted)


@functools.lru_cache(maxsize=32)
def _gamma_table(rank, n_points):
    return _GammaTable(rank, n_points)
