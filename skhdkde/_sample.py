"""Sums over a random sample of the training points, from which all of them follow.

Each of ``N`` points is in a sample of ``m`` with a probability proportional to its
weight (one, if it is heavy enough), and counts there with its weight divided by that
probability: sums over the sample then have the sums over all points as their mean.

Squared distances help. Their mean over *all* points is known exactly, at the cost of
one inner product; where it differs from that over the sample, the regression of the
kernel's values on squared distances says by how much the sum is off. Far above ``h_clt``,
where the kernel is nearly linear, that removes most of the variance (Cochran 1977,
Sampling Techniques, chapter 7).
"""

from dataclasses import dataclass

import numpy as np

from skhdkde._arrays import column, namespace, to_host
from skhdkde._points import row_blocks
from skhdkde._reductions import KernelReduction

__all__ = ["Sample", "SampleSums", "draw_sample", "mean_point", "sampled_sum"]

# Of a sum by the regression, relative to the sum: beyond, it is not to be trusted.
LARGEST_CHANGE = 0.5


@dataclass(frozen=True)
class Sample:
    """Some of the training points, drawn at random.

    Attributes
    ----------
    rows : ndarray of int of shape (n_sampled,)
        Which, ascending.
    points : TrainingPoints
        Their weights are divided by the probability of being drawn, relative to the
        largest.
    variance_weights : float or ndarray of shape (n_sampled,)
        Square of those weights times the probability of not being drawn.
    mean : ndarray of shape (n_features + 2,)
        Weighted mean of all augmented points from which the sample was drawn.
    """

    rows: np.ndarray
    points: object
    variance_weights: object
    mean: np.ndarray

    def __len__(self):
        return len(self.rows)

    def positions(self, ids):
        """Where in the sample the training points ``ids`` are; -1 where they are not."""
        if ids.size == 0:
            return ids
        place = np.minimum(np.searchsorted(self.rows, ids), len(self.rows) - 1)
        return np.where(self.rows[place] == ids, place, -1)


def draw_sample(points, population, mean, size, seed):
    """Draw ``size`` of the ``population`` without replacement.

    Parameters
    ----------
    points : TrainingPoints
    population : ndarray of int
        From which of the points.
    mean : ndarray
        :func:`mean_point` of the population.
    size : int
    seed : int

    Returns
    -------
    Sample
    """
    rng, n = np.random.default_rng([seed, size]), len(population)
    size = min(size, n)
    if points.weights is None:
        chosen = np.sort(rng.choice(n, size, replace=False))
        return Sample(
            population[chosen], points.take(population[chosen]), 1.0 - size / n, mean
        )
    weights = points.weights[population]
    inclusion = _inclusion(weights, size)
    order = rng.permutation(n)
    ends = np.floor(np.cumsum(inclusion[order]) + rng.uniform())
    starts = np.concatenate([[0.0], ends[:-1]])
    chosen = np.sort(order[ends > starts])
    inflated = weights[chosen] / inclusion[chosen]
    inflated /= inflated.max()
    variance = inflated**2 * (1.0 - inclusion[chosen])
    rows = population[chosen]
    return Sample(rows, points.take(rows, inflated), variance, mean)


def _inclusion(weights, size):
    """Probabilities in proportion to ``weights``, at most 1, that add up to ``size``."""
    inclusion = np.zeros(len(weights))
    certain = np.zeros(len(weights), dtype=bool)
    while True:
        open_, left = ~certain, size - certain.sum()
        if left <= 0 or not open_.any():
            break
        share = left * weights[open_] / weights[open_].sum()
        inclusion[open_] = share
        if not (share >= 1.0).any():
            break
        certain[np.flatnonzero(open_)[share >= 1.0]] = True
    inclusion[certain] = 1.0
    return np.maximum(inclusion, np.finfo(float).tiny)


def mean_point(points, population):
    """Mean of augmented points: its product with a query is the mean squared distance."""
    total, mass = np.zeros(points.shape[1] + 2), 0.0
    for part in row_blocks(len(population), points.shape[1]):
        rows = population[part]
        weights = np.ones(len(rows))
        if points.weights is not None:
            weights = points.weights[rows]
        total += weights @ points.block(rows, np.dtype(np.float64))
        mass += weights.sum()
    return total / mass


class SampleSums(KernelReduction):
    """Moments of the kernel's values and of squared distances over a sample.

    With ``a`` the weights of the sample, ``b`` its variance weights, ``K`` values
    relative to the sample's nearest point and ``D`` squared distances minus their mean
    over all points, the result has the ``COLUMNS``: energy of the nearest, and sums.
    """

    COLUMNS = ("lowest", "a", "aK", "aD", "b", "bK", "bD", "bKK", "bKD", "bDD")
    width = len(COLUMNS)
    # powers of K in the sums
    POWERS = np.array([0, 1, 0, 0, 1, 0, 2, 1, 0])

    def __init__(self, kernel, bandwidth, sample, tol):
        super().__init__(kernel, [bandwidth], sample.points, tol)
        self.sample, self.b = sample, sample.variance_weights

    def start(self, n_rows):
        return np.full(n_rows, np.inf), np.zeros((n_rows, len(self.POWERS)))

    def update(self, state, tile):
        offsets = self._offsets(tile)
        energy = self.kernel.energy(tile.sq)
        lowest = np.minimum(state[0], self.kernel.energy(tile.nearest.copy()))
        reference = np.where(np.isinf(lowest), 0.0, lowest)
        shifted = self.kernel.shift(energy, reference)
        values = self.kernel.values(shifted, self.bandwidths[0], shifted, reference)
        sums = self._sums(values, offsets, tile)
        return lowest, self._rescaled(state, lowest) + sums

    def _offsets(self, tile):
        """Squared distances minus their mean over all points; 0 where left out."""
        mean = tile.queries.augmented @ self.sample.mean
        offsets = namespace(tile.sq).subtract(
            tile.sq, column(mean, tile.sq), out=tile.scratch()
        )
        tile.queries.exclude(offsets, tile.cols, 0.0)
        return offsets

    def _sums(self, values, offsets, tile):
        sums, weights = np.empty((len(values), len(self.POWERS))), tile.weights
        sums[:, 0] = tile.weight_sums()[:, 0]
        sums[:, 1], sums[:, 2] = to_host(values @ weights), to_host(offsets @ weights)
        if np.isscalar(self.b):
            sums[:, 3:6] = sums[:, :3] * self.b
            factor = self.b
            squares = None
        else:
            b = self.b[tile.cols]
            sums[:, 3] = tile.queries.weight_sums(b, tile.cols)[:, 0]
            squares = tile.device.put(b.astype(tile.queries.augmented.dtype))
            sums[:, 4], sums[:, 5] = (to_host(x @ squares) for x in (values, offsets))
            factor = 1.0
        pairs = ((values, values), (values, offsets), (offsets, offsets))
        for place, (x, y) in enumerate(pairs, start=6):
            sums[:, place] = factor * _row_products(x, y, squares)
        return sums

    def merge(self, state, other):
        lowest = np.minimum(state[0], other[0])
        return lowest, self._rescaled(state, lowest) + self._rescaled(other, lowest)

    def _rescaled(self, state, lowest):
        factor = self._factors(lowest, state[0])
        return state[1] * factor**self.POWERS

    def finish(self, state):
        return np.column_stack(state)


def _row_products(x, y, weights):
    """``sum_j x_ij y_ij weights_j``; without weights they are 1."""
    if weights is not None:
        return to_host((x * y) @ weights)
    if isinstance(x, np.ndarray):
        return np.einsum("ij,ij->i", x, y)
    return to_host((x * y).sum(1))


def sampled_sum(columns, mass, offset):
    """Sum of a kernel's values over all points that are not left out, and its variance.

    Parameters
    ----------
    columns : ndarray of shape (n_queries, n_columns)
        Result of :class:`SampleSums`.
    mass : ndarray of shape (n_queries,)
        Total weight of those points.
    offset : ndarray of shape (n_queries,)
        Weighted mean of ``D`` over them.

    Returns
    -------
    total, variance : ndarray of shape (n_queries,)
        Relative to the value at ``lowest``.
    resolved : ndarray of shape (n_queries,)
        Sum of squared values over the largest square: with a tail index above 2 it grows
        with the sample, and the variance can be trusted; below, single terms decide.
    """
    _, a, ak, ad, b, bk, bd, bkk, bkd, bdd = columns.T
    with np.errstate(divide="ignore", invalid="ignore"):
        some = a > 0.0
        k, d = np.where(some, ak / a, 0.0), np.where(some, ad / a, 0.0)
        skk = np.maximum(bkk - 2.0 * k * bk + k**2 * b, 0.0)
        skd = bkd - k * bd - d * bk + k * d * b
        sdd = bdd - 2.0 * d * bd + d**2 * b
        slope = np.where(sdd > 1e-12 * bdd, skd / sdd, 0.0)
        resolved = np.where(b > 0.0, bkk / b * a, np.inf)
    change = slope * (offset - d)
    use = np.abs(change) <= LARGEST_CHANGE * k
    total = mass * np.where(use, k + change, k)
    residual = skk - np.where(use, slope * skd, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(some, (mass / a) ** 2, 0.0)
    return total, factor * np.maximum(residual, 0.0), resolved
