"""Sums over a random sample of the training points, from which all of them follow.

Each of ``N`` points is in a sample of ``n`` with a probability proportional to its
weight (one, if it is heavy enough), and counts there with its weight divided by that
probability: the expectation of a sum over the sample is the sum over all points.

Two *controls* reduce the variance: the standardised squared distance ``D``, and
``D^2 - 1``. Their means over all points are known, from moments of the points. Where
those over the sample differ, the regression of the kernel's values on the controls says
by how much the sum is off (Cochran, 1977, Sampling Techniques, chapter 7). Far above
``h_clt``, where the kernel is nearly linear in the squared distance, that removes most of
the variance.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from skhdkde._pairwise import KernelReduction, ReductionSpec, TrainingPoints
from skhdkde._utils.arrays import beside, column, namespace, row_batches, widened
from skhdkde._utils.typing import AnyTile, FloatArray, IntArray, Rows

# Largest change of a sum by the regression, relative to it: a larger one is not trusted.
LARGEST_CHANGE = 0.5
# Features up to which the variance of distances is known: a matrix of 8 MiB.
MOST_FEATURES = 1022
# Added to the diagonal of the controls' correlations, so that they can be inverted; and
# variance of a control, relative to its mean square, that may be rounding.
COLLINEAR = 1e-9
# Variance of squared distances, relative to their mean square, that may be rounding.
SMALLEST_VARIANCE = 1e-9


def positions(rows: IntArray, ids: IntArray) -> IntArray:
    """Return the places of ``ids`` in the ascending ``rows``; -1 where they are not."""
    if ids.size == 0 or len(rows) == 0:
        return np.full(ids.shape, -1)
    place = np.minimum(np.searchsorted(rows, ids), len(rows) - 1)
    return np.where(rows[place] == ids, place, -1)


@dataclass(frozen=True)
class Sample:
    """Some of the training points, drawn at random."""

    rows: IntArray  # (n_sampled,), their indices among the training points, ascending
    # with weights divided by the probabilities of being drawn, relative to the largest
    points: TrainingPoints
    # (n_sampled,), squares of those weights times the probability of not being drawn;
    # None for ones, if the training points have no weights
    variance_weights: FloatArray | None
    distances: DistanceMoments  # to all points from which the sample was drawn


class Sampler:
    """Draws samples of the points ``population``, without replacement.

    The samples of a ``seed`` are the same in every call.
    """

    def __init__(self, points: TrainingPoints, population: IntArray, seed: int):
        self.points, self.seed = points, seed
        self.size = len(population)
        self.order = np.random.default_rng(seed).permutation(population)
        self.distances = DistanceMoments(points, population)

    @property
    def nested(self) -> bool:
        """Whether larger samples contain smaller ones, and can be drawn bit by bit."""
        return self.points.weights is None

    def draw(self, start: int, stop: int) -> Sample:
        """Return the points at places ``start``, 0 unless ``nested``, to ``stop``."""
        stop = min(stop, self.size)
        if self.nested:
            rows = np.sort(self.order[start:stop])
            return Sample(rows, self.points.subset(rows), None, self.distances)
        weights = self.points.weights[self.order]
        inclusion = _inclusion(weights, stop)
        # systematic sampling of a random order
        first = np.random.default_rng([self.seed, stop]).uniform()
        ends = np.floor(np.cumsum(inclusion) + first)
        chosen = np.flatnonzero(ends > np.concatenate([[0.0], ends[:-1]]))
        chosen = chosen[np.argsort(self.order[chosen])]
        inflated = weights[chosen] / inclusion[chosen]
        inflated /= inflated.max()
        variance, rows = inflated**2 * (1.0 - inclusion[chosen]), self.order[chosen]
        return Sample(rows, self.points.subset(rows, inflated), variance, self.distances)

    def finite_population_factor(self, n_sampled: int) -> float:
        """Return the finite-population factor ``1 - n/N`` of the sampling variance.

        It is 1 for weighted points: the variance weights of their samples hold it.
        """
        return 1.0 - min(n_sampled / self.size, 1.0) if self.nested else 1.0


def _inclusion(weights, size):
    """Return probabilities in proportion to ``weights``, at most 1, of sum ``size``."""
    share = np.zeros(len(weights))
    certain = share >= 1.0
    while certain.sum() < size and not certain.all():
        others = weights[~certain]
        share[~certain] = (size - certain.sum()) * others / others.sum()
        if np.array_equal(certain, share >= 1.0):
            break
        certain = share >= 1.0
    return np.clip(share, np.finfo(float).tiny, 1.0)


class DistanceMoments:
    """Mean and variance of the squared distances from any query to some points.

    They are a linear and a quadratic form of the augmented query. If there are too many
    features, the variance is unknown, and there is one control instead of two.
    """

    def __init__(self, points: TrainingPoints, population: IntArray):
        size = points.shape[1] + 2
        total, mass, second = np.zeros(size), 0.0, None
        if points.shape[1] <= MOST_FEATURES:
            second = np.zeros((size, size))
        for batch in row_batches(len(population), size):
            rows = population[batch]
            block = weighted = points.block(rows, np.dtype(np.float64))
            weights = None if points.weights is None else points.weights[rows]
            if weights is not None:
                weighted = block * weights[:, None]
            total += weighted.sum(axis=0)
            mass += len(rows) if weights is None else weights.sum()
            if second is not None:
                second += weighted.T @ block
        mass = max(mass, np.finfo(float).tiny)
        self.mean = total / mass
        self.second = None if second is None else second / mass
        self.n_controls = 1 if second is None else 2

    def controls(self, sq: FloatArray, queries: FloatArray) -> list[np.ndarray]:
        """Return the controls at squared distances, each in the shape of ``sq``."""
        mean, scale = self.mean_and_scale(queries)
        standardized = (sq - mean[:, None]) / scale[:, None]
        return [standardized, standardized**2 - 1.0][: self.n_controls]

    def mean_and_scale(self, queries: AnyTile) -> tuple[AnyTile, AnyTile]:
        """Return mean and standard deviation of the squared distances from each query.

        The latter is infinite where it is lost to rounding; where it is unknown, the mean
        stands for it. Queries are augmented.
        """
        queries, xp = widened(queries), namespace(queries)
        mean = queries @ beside(self.mean, queries)
        if self.second is None:
            return mean, xp.clip(mean, np.finfo(float).tiny, None)
        with np.errstate(over="ignore", invalid="ignore"):  # of far queries
            second = beside(self.second, queries)
            square = xp.einsum("ij,ij->i", queries @ second, queries)
            variance = square - mean**2
            least = SMALLEST_VARIANCE * xp.maximum(square, queries[:, -1] ** 2)
        return mean, xp.sqrt(xp.where(variance > least, variance, np.inf))


class SampleSums(KernelReduction):
    """Moments of the kernel's values and the controls over a sample.

    The *variables* are the value ``K``, relative to that of the nearest point of the
    sample, and the controls. The state is the energy of the nearest point, and the sums
    that :class:`SampleMoments` names, in its order.
    """

    def __init__(self, spec: ReductionSpec, sample: Sample):
        super().__init__(dataclasses.replace(spec, points=sample.points))
        self.sample, n_controls = sample, sample.distances.n_controls
        self.n_variables = 1 + n_controls
        self.pairs = list(zip(*np.triu_indices(self.n_variables), strict=True))
        # powers of K in the sums
        singles = [0, 1] + [0] * n_controls
        self.powers = np.array(singles * 2 + [pair.count(0) for pair in self.pairs])
        self.width = 1 + len(self.powers)

    def start(self, n_rows):
        return np.full(n_rows, np.inf), np.zeros((n_rows, len(self.powers)))

    def update(self, state, tile):
        controls = self._controls(tile)
        lowest, reference = self._lowest(state[0], tile)
        shifted = self.kernel.shift(self.kernel.energy(tile.sq), reference)
        values = self.kernel.values(shifted, self.bandwidths[0], shifted, reference)
        return lowest, self._rescaled(state, lowest) + self._sums(values, controls, tile)

    def _controls(self, tile):
        """Return the controls of a tile, 0 for pairs that are left out."""
        mean, scale = self.sample.distances.mean_and_scale(tile.queries.augmented)
        xp, out = namespace(tile.sq), tile.scratch()
        out = xp.subtract(tile.sq, column(mean, tile.sq), out=out)
        tile.queries.exclude(out, tile.cols, 0.0)
        out = xp.multiply(out, column(1.0 / scale, tile.sq), out=out)
        if self.sample.distances.n_controls == 1:
            return [out]
        squares = out * out
        squares -= 1.0
        tile.queries.exclude(squares, tile.cols, 0.0)
        return [out, squares]

    def _sums(self, values, controls, tile):
        """Return the sums of a tile, of shape (n_rows, n_sums)."""
        variables = [values, *controls]
        sums = [tile.weight_sums()[:, 0]]
        sums += [variable @ tile.weights for variable in variables]
        variance_sums, b = sums, None
        if self.sample.variance_weights is not None:
            own = self.sample.variance_weights[tile.cols]
            b = tile.device.put(own.astype(tile.queries.dtype))
            variance_sums = [tile.queries.weight_sums(own, tile.cols)[:, 0]]
            variance_sums += [variable @ b for variable in variables]
        products = [_row_products(variables[i], variables[j], b) for i, j in self.pairs]
        columns = map(widened, (*sums, *variance_sums, *products))
        return namespace(values).stack(list(columns), 1)

    def merge(self, state, other):
        lowest = namespace(state[0]).minimum(state[0], other[0])
        return lowest, self._rescaled(state, lowest) + self._rescaled(other, lowest)

    def _rescaled(self, state, lowest):
        """Return the sums of a state relative to another energy."""
        return state[1] * self._factors(lowest, state[0]) ** beside(self.powers, lowest)

    def finish(self, state):
        return np.column_stack(state)

    def combine(self, result, other):
        states = ((columns[:, 0], columns[:, 1:]) for columns in (result, other))
        return self.finish(self.merge(*states))


def _row_products(x, y, weights):
    """Return ``sum_j x_ij y_ij weights_j``; ``weights`` None stands for ones."""
    if weights is not None:
        return (x * y) @ weights
    if isinstance(x, np.ndarray):
        return np.einsum("ij,ij->i", x, y)
    return (x * y).sum(1)


@dataclass(frozen=True)
class SampleMoments:
    """The result of :class:`SampleSums` for some queries, by name.

    ``a`` are the weights of the sample, ``b`` its variance weights, ``v`` the variables.
    """

    lowest: FloatArray  # (n_queries,), energy of the nearest point
    weight: FloatArray  # (n_queries,), sum a
    sums: FloatArray  # (n_queries, n_variables), sum a v
    variance_weight: FloatArray  # (n_queries,), sum b
    variance_sums: FloatArray  # (n_queries, n_variables), sum b v
    products: FloatArray  # (n_queries, n_pairs), sum b v_i v_j, as in np.triu_indices
    n_sampled: int  # size of the sample
    n_new: int  # how many of it were not in a smaller one

    @classmethod
    def from_columns(cls, columns, n_variables, n_sampled, n_new) -> SampleMoments:
        """Return the columns of the result by name."""
        ends = np.cumsum([1, 1, n_variables, 1, n_variables])
        lowest, a, a_sums, b, b_sums, products = np.split(columns, ends, axis=1)
        means, squares = (a[:, 0], a_sums), (b[:, 0], b_sums, products)
        return cls(lowest[:, 0], *means, *squares, n_sampled, n_new)

    def columns(self) -> FloatArray:
        """Return the result itself, of shape (n_queries, n_columns)."""
        means = self.lowest, self.weight, self.sums
        squares = self.variance_weight, self.variance_sums, self.products
        return np.column_stack([*means, *squares])

    def subset(self, rows: Rows) -> SampleMoments:
        """Return the moments for some of the queries."""
        n_variables, columns = self.sums.shape[1], self.columns()[rows]
        return self.from_columns(columns, n_variables, self.n_sampled, self.n_new)

    def regression_estimate(self, mass, control_means, population_factor):
        """Return total and variance of a kernel sum by regression, and a sign of trust.

        Both are relative to ``lowest``. With the mean value ``K`` and mean controls ``c``
        of the sample, the slopes of the regression of one on the others, and central
        second moments ``S`` by ``b``, they are ::

            total = mass * (K + slopes @ (control_means - c))
            variance = population_factor * (mass / sum a)^2 * (S_KK - slopes @ S_Kc)

        (Cochran, 1977, section 7.8). ``mass`` is the total weight of the points that are
        not left out, ``control_means`` are the means of the controls over them, of shape
        (n_queries, n_controls); see :meth:`Sampler.finite_population_factor`.

        The third result is the sum of squared values over the largest square. With a tail
        index above 2 it grows with the sample, and the variance can be trusted; below,
        single terms decide.
        """
        some = self.weight > 0.0
        weight, b = np.where(some, self.weight, 1.0), self.variance_weight
        mean = self.sums / weight[:, None]
        central = self._central_moments(mean)
        slopes = np.zeros(control_means.shape)
        if population_factor > 0.0:
            slopes = self._slopes(central)
        change = ((control_means - mean[:, 1:]) * slopes).sum(axis=1)
        trusted = np.abs(change) <= LARGEST_CHANGE * mean[:, 0]
        total = mass * np.where(trusted, mean[:, 0] + change, mean[:, 0])
        explained = np.where(trusted, (slopes * central[:, 0, 1:]).sum(axis=1), 0.0)
        residual = np.maximum(central[:, 0, 0] - explained, 0.0)
        inflation = np.where(some, mass / weight, 0.0) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            square_ratio = self.products[:, 0] / b * self.weight
        square_ratio = np.where(b > 0.0, square_ratio, np.inf)
        return total, population_factor * inflation * residual, square_ratio

    def _central_moments(self, mean):
        """Return ``sum b v v'`` about the means by ``a``, a matrix for each query."""
        i, j = np.triu_indices(mean.shape[1])
        central = self.products - mean[:, i] * self.variance_sums[:, j]
        central -= mean[:, j] * self.variance_sums[:, i]
        central += mean[:, i] * mean[:, j] * self.variance_weight[:, None]
        matrix = np.empty((*mean.shape, mean.shape[1]))
        matrix[:, i, j] = matrix[:, j, i] = central
        return matrix

    def _slopes(self, central):
        """Return slopes of the value on the controls, 0 where one is nearly constant."""
        i, j = np.triu_indices(central.shape[1])
        squares = self.products[:, i == j][:, 1:]
        covariances, matrix = central[:, 0, 1:], central[:, 1:, 1:]
        slopes = np.zeros(covariances.shape)
        scale = np.sqrt(np.maximum(np.einsum("ijj->ij", matrix), 0.0))
        varies = scale**2 > COLLINEAR * squares
        rows = np.flatnonzero(varies.all(axis=1) & np.isfinite(scale).all(axis=1))
        scale = scale[rows]
        correlations = matrix[rows] / scale[:, :, None] / scale[:, None, :]
        correlations += COLLINEAR * np.eye(slopes.shape[1])
        right = (covariances[rows] / scale)[:, :, None]
        slopes[rows] = np.linalg.solve(correlations, right)[:, :, 0] / scale
        return slopes
