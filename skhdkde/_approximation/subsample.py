"""Sums over a random sample of the training points, from which all of them follow.

Each of ``N`` points is in a sample of ``m`` with a probability proportional to its
weight (one, if it is heavy enough), and counts there with its weight divided by that
probability: sums over the sample then have the sums over all points as their mean.

Squared distances help. Their mean and variance over *all* points are known exactly, from
moments of the points; where they differ over the sample, the regression of the kernel's
values on squared distances and their squares says by how much the sum is off. Far above
``h_clt``, where the kernel is nearly linear, that removes most of the variance (Cochran
1977, Sampling Techniques, chapter 7).
"""

import itertools
from dataclasses import dataclass

import numpy as np

from skhdkde._pairwise.reductions import KernelReduction
from skhdkde._utils.arrays import column, namespace, row_batches, to_host

# Of a sum by the regression, relative to the sum: beyond, it is not to be trusted.
LARGEST_CHANGE = 0.5
# Features up to which the variance of distances is known: a matrix of 8 MiB.
MOST_FEATURES = 1022
# Added to correlations of the regression's variables, so that none is lost; and variance
# relative to the mean square that is rounding.
COLLINEAR = 1e-9
# Variance of squared distances, relative to their mean square, that rounding allows.
SMALLEST_VARIANCE = 1e-9


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
    variance_weights : ndarray of shape (n_sampled,) or None
        Square of those weights times the probability of not being drawn; None if points
        have no weights, for 1.
    moments : Moments
        Of all points from which the sample was drawn.
    """

    rows: np.ndarray
    points: object
    variance_weights: object
    moments: object

    def __len__(self):
        return len(self.rows)

    def positions(self, ids):
        """Where in the sample the training points ``ids`` are; -1 where they are not."""
        if ids.size == 0 or len(self) == 0:
            return np.full(ids.shape, -1)
        place = np.minimum(np.searchsorted(self.rows, ids), len(self) - 1)
        return np.where(self.rows[place] == ids, place, -1)


class Sampler:
    """Draws samples of some of the points without replacement.

    Parameters
    ----------
    points : TrainingPoints
    population : ndarray of int
        From which of the points.
    seed : int
        The samples are the same in every call.
    """

    def __init__(self, points, population, seed):
        self.points, self.seed = points, seed
        self.size = len(population)
        self.order = np.random.default_rng(seed).permutation(population)
        self.moments = Moments(points, population)

    @property
    def nested(self):
        """Whether larger samples contain smaller ones, and can be drawn bit by bit."""
        return self.points.weights is None

    def draw(self, start, stop):
        """Number ``start`` to ``stop`` of the points drawn.

        Unless ``nested``, ``start`` must be 0.
        """
        stop = min(stop, self.size)
        if self.nested:
            rows = np.sort(self.order[start:stop])
            return Sample(rows, self.points.take(rows), None, self.moments)
        weights = self.points.weights[self.order]
        inclusion = _inclusion(weights, stop)
        # systematic sampling of a random order
        offset = np.random.default_rng([self.seed, stop]).uniform()
        ends = np.floor(np.cumsum(inclusion) + offset)
        chosen = np.flatnonzero(ends > np.concatenate([[0.0], ends[:-1]]))
        chosen = chosen[np.argsort(self.order[chosen])]
        inflated = weights[chosen] / inclusion[chosen]
        inflated /= inflated.max()
        variance, rows = inflated**2 * (1.0 - inclusion[chosen]), self.order[chosen]
        return Sample(rows, self.points.take(rows, inflated), variance, self.moments)

    def share_of_variance(self, n_sampled):
        """Left by a sample that is a part of the whole, unless its weights have it."""
        return 1.0 - min(n_sampled / self.size, 1.0) if self.nested else 1.0


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


class Moments:
    """Mean and variance of squared distances to some points, from any query.

    They are linear and quadratic forms of the augmented query.

    Attributes
    ----------
    mean : ndarray of shape (n_features + 2,)
    second : ndarray of shape (n_features + 2, n_features + 2) or None
        None if there are too many features.
    """

    def __init__(self, points, population):
        size = points.shape[1] + 2
        total, mass, second = np.zeros(size), 0.0, None
        if points.shape[1] <= MOST_FEATURES:
            second = np.zeros((size, size))
        for part in row_batches(len(population), size):
            rows = population[part]
            block, weights = points.block(rows, np.dtype(np.float64)), np.ones(len(rows))
            if points.weights is not None:
                weights = points.weights[rows]
            total += weights @ block
            mass += weights.sum()
            if second is not None:
                second += (block * weights[:, None]).T @ block
        mass = max(mass, np.finfo(float).tiny)
        self.mean = total / mass
        self.second = None if second is None else second / mass

    def standardized(self, sq, queries):
        """Squared distances, standardised, and their squares minus 1, in a list.

        Parameters
        ----------
        sq : ndarray of shape (n_queries, n)
        queries : ndarray of shape (n_queries, n_features + 2)
        """
        mean, scale = self.of(queries)
        offsets = (sq - mean[:, None]) / scale[:, None]
        return [offsets] if self.second is None else [offsets, offsets**2 - 1.0]

    def of(self, queries):
        """Mean of the squared distances from each, and standard deviation.

        The latter is infinite where it is lost to rounding; if it is unknown, the mean
        stands for it.
        """
        queries = np.asarray(queries, dtype=np.float64)
        mean = queries @ self.mean
        if self.second is None:
            return mean, np.maximum(mean, np.finfo(float).tiny)
        square = np.einsum("ij,ij->i", queries @ self.second, queries)
        variance = square - mean**2
        least = SMALLEST_VARIANCE * np.maximum(square, queries[:, -1] ** 2)
        return mean, np.sqrt(np.where(variance > least, variance, np.inf))


class SampleSums(KernelReduction):
    """Moments of the kernel's values and of squared distances over a sample.

    With ``a`` the weights of the sample, ``b`` its variance weights, ``K`` values
    relative to the sample's nearest point, and ``D`` and ``D^2 - 1`` as
    :meth:`Moments.standardized` has them, the result has the energy of the nearest; the
    sums of ``a`` and of ``a`` times each of the three, the same of ``b``, and those of
    ``b`` times the products of any two.
    """

    def __init__(self, kernel, bandwidth, sample, tol):
        super().__init__(kernel, [bandwidth], sample.points, tol)
        self.sample, self.b = sample, sample.variance_weights
        n_terms = 2 if sample.moments.second is None else 3
        self.pairs = _pairs(n_terms)
        singles = [0, 1] + [0] * (n_terms - 1)
        # powers of K in the sums
        self.powers = np.array(singles * 2 + [pair.count(0) for pair in self.pairs])
        self.width = 1 + len(self.powers)

    def start(self, n_rows):
        return np.full(n_rows, np.inf), np.zeros((n_rows, len(self.powers)))

    def update(self, state, tile):
        offsets = self._offsets(tile)
        energy = self.kernel.energy(tile.sq)
        lowest = np.minimum(state[0], self.kernel.energy(tile.nearest.copy()))
        reference = np.where(np.isinf(lowest), 0.0, lowest)
        shifted = self.kernel.shift(energy, reference)
        values = self.kernel.values(shifted, self.bandwidths[0], shifted, reference)
        sums = self._sums([values, *offsets], tile)
        return lowest, self._rescaled(state, lowest) + sums

    def _offsets(self, tile):
        """``D`` and ``D^2 - 1``, 0 where left out."""
        mean, scale = self.sample.moments.of(tile.queries.augmented)
        xp, out = namespace(tile.sq), tile.scratch()
        out = xp.subtract(tile.sq, column(mean, tile.sq), out=out)
        tile.queries.exclude(out, tile.cols, 0.0)
        out = xp.multiply(out, column(1.0 / scale, tile.sq), out=out)
        if self.sample.moments.second is None:
            return [out]
        squares = out * out
        squares -= 1.0
        tile.queries.exclude(squares, tile.cols, 0.0)
        return [out, squares]

    def _sums(self, terms, tile):
        sums, n = np.empty((len(tile.nearest), len(self.powers))), len(terms) + 1
        sums[:, 0] = tile.weight_sums()[:, 0]
        for place, term in enumerate(terms, start=1):
            sums[:, place] = to_host(term @ tile.weights)
        sums[:, n : 2 * n], b = sums[:, :n], None
        if self.b is not None:
            own = self.b[tile.cols]
            sums[:, n] = tile.queries.weight_sums(own, tile.cols)[:, 0]
            b = tile.device.put(own.astype(tile.queries.augmented.dtype))
            for place, term in enumerate(terms, start=n + 1):
                sums[:, place] = to_host(term @ b)
        for place, (i, j) in enumerate(self.pairs, start=2 * n):
            sums[:, place] = _row_products(terms[i], terms[j], b)
        return sums

    def merge(self, state, other):
        lowest = np.minimum(state[0], other[0])
        return lowest, self._rescaled(state, lowest) + self._rescaled(other, lowest)

    def _rescaled(self, state, lowest):
        factor = self._factors(lowest, state[0])
        return state[1] * factor**self.powers

    def finish(self, state):
        return np.column_stack(state)

    def both(self, columns, others):
        """The result for two samples together."""
        states = ((part[:, 0], part[:, 1:]) for part in (columns, others))
        return self.finish(self.merge(*states))


def _pairs(n_terms):
    return list(itertools.combinations_with_replacement(range(n_terms), 2))


def _row_products(x, y, weights):
    """``sum_j x_ij y_ij weights_j``; without weights they are 1."""
    if weights is not None:
        return to_host((x * y) @ weights)
    if isinstance(x, np.ndarray):
        return np.einsum("ij,ij->i", x, y)
    return to_host((x * y).sum(1))


def sampled_sum(columns, mass, offsets, share):
    """Sum of a kernel's values over all points that are not left out, and its variance.

    Parameters
    ----------
    columns : ndarray of shape (n_queries, n_columns)
        Result of :class:`SampleSums`.
    mass : ndarray of shape (n_queries,)
        Total weight of those points.
    offsets : ndarray of shape (n_queries, 1 or 2)
        Weighted means of ``D`` and ``D^2 - 1`` over them.
    share : float
        See :meth:`Sampler.share_of_variance`.

    Returns
    -------
    total, variance : ndarray of shape (n_queries,)
        Relative to the value at ``lowest``.
    resolved : ndarray of shape (n_queries,)
        Sum of squared values over the largest square: with a tail index above 2 it grows
        with the sample, and the variance can be trusted; below, single terms decide.
    """
    n = offsets.shape[1] + 1
    a, b = columns[:, 1], columns[:, n + 2]
    some = a > 0.0
    mean = columns[:, 2 : n + 2] / np.where(some, a, 1.0)[:, None]
    first = columns[:, n + 3 : 2 * n + 3]
    moments = np.empty((len(columns), n, n))
    for place, (i, j) in enumerate(_pairs(n), start=2 * n + 3):
        # about the means by a
        central = columns[:, place] - mean[:, i] * first[:, j] - mean[:, j] * first[:, i]
        moments[:, i, j] = moments[:, j, i] = central + mean[:, i] * mean[:, j] * b
    squares = [2 * n + 3 + _pairs(n).index((i, i)) for i in range(1, n)]
    slopes = _slopes(moments, columns[:, squares]) if share > 0.0 else 0.0 * offsets
    change = ((offsets - mean[:, 1:]) * slopes).sum(axis=1)
    use = np.abs(change) <= LARGEST_CHANGE * mean[:, 0]
    total = mass * np.where(use, mean[:, 0] + change, mean[:, 0])
    explained = np.where(use, (slopes * moments[:, 0, 1:]).sum(axis=1), 0.0)
    residual = np.maximum(moments[:, 0, 0] - explained, 0.0)
    factor = np.where(some, mass / np.where(some, a, 1.0), 0.0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        resolved = np.where(b > 0.0, columns[:, 2 * n + 3] / b * a, np.inf)
    return total, share * factor * residual, resolved


def _slopes(moments, squares):
    """Of the regression of the first variable on the others, from central moments.

    0 where a variable, of which ``squares`` are the sums of squares, does not vary beyond
    rounding.
    """
    slopes = np.zeros(moments[:, 0, 1:].shape)
    covariances, matrix = moments[:, 0, 1:], moments[:, 1:, 1:]
    scale = np.sqrt(np.maximum(np.einsum("ijj->ij", matrix), 0.0))
    varies = scale**2 > COLLINEAR * squares
    rows = np.flatnonzero(varies.all(axis=1) & np.isfinite(scale).all(axis=1))
    scale = scale[rows]
    correlations = matrix[rows] / scale[:, :, None] / scale[:, None, :]
    correlations += COLLINEAR * np.eye(slopes.shape[1])
    right = (covariances[rows] / scale)[:, :, None]
    slopes[rows] = np.linalg.solve(correlations, right)[:, :, 0] / scale
    return slopes
