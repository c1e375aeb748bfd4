"""What is computed over pairs, apart from how pairs are visited.

A reduction turns a tile of squared distances between some queries and some training
points into a *state*: a small tuple of arrays with one row per query. States of the same
queries and different training points merge, in any order: tiles, threads and machines
all use the same ``merge``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from skhdkde._utils.arrays import finite_or_zero, namespace, smallest, to_host

# Squaring doubles the relative error, so at most 2^7 times that of exp.
LONGEST_CHAIN = 8
# Far from the largest float32, and small enough that other terms keep their digits.
LARGEST_SUM = 1e25
# Power of the Student kernel up to which rounding in float32 is below 1e-4 nats.
LARGEST_EXPONENT = 1500.0
# Relative error of the nearest squared distances from which laws are fitted.
NEIGHBOR_TOL = 1e-4
# Largest error of a log density that is promised, in nats.
PROMISED_FLOAT32, PROMISED_FLOAT64 = 1e-3, 1e-8


def promised_tolerance(dtype):
    """Return the largest error, in nats, of a log density of this dtype."""
    return PROMISED_FLOAT32 if dtype == np.float32 else PROMISED_FLOAT64


@dataclass(frozen=True)
class ReductionSpec:
    """What a reduction over a kernel's values needs to know.

    Attributes
    ----------
    kernel : Kernel
    bandwidth_scaled : float or ndarray of shape (n_bandwidths,)
        In scaled units.
    points : TrainingPoints or PointsSummary
    result_dtype : dtype
        Of the result, which sets the precision that is promised.
    tolerance : float, default=None
        Error of a log sum that is allowed, in nats; None for the promised one.
    pair_dtype : dtype, default=None
        In which pairs are computed; None for float64 where the kernel needs it, else for
        that of queries and points.
    """

    kernel: object
    bandwidth_scaled: float | np.ndarray
    points: object
    result_dtype: np.dtype
    tolerance: float | None = None
    pair_dtype: np.dtype | None = None

    def __post_init__(self):
        if self.tolerance is None:
            tolerance = promised_tolerance(self.result_dtype)
            object.__setattr__(self, "tolerance", tolerance)
        if self.pair_dtype is None:
            object.__setattr__(self, "pair_dtype", self._needed_dtype())

    def _needed_dtype(self):
        """Return float64 where float32 is not enough, else None.

        float32 does not resolve ``1 - r^2`` at the rim of a compact kernel, nor offsets
        of squared distances, nor what a high power is taken of.
        """
        wide = self.kernel.compact or self.points.sq_factor is not None
        wide |= getattr(self.kernel, "exponent", 0.0) > LARGEST_EXPONENT
        return np.dtype(np.float64) if wide else None


class Reduction(abc.ABC):
    """The role of a reduction; a new one is a subclass.

    Attributes
    ----------
    width : int
        Number of columns of the result.
    smallest_bandwidth : float
        In scaled units; infinite if there is none.
    dtype : dtype or None
        In which pairs are computed; None for that of queries and points.
    """

    width: int
    smallest_bandwidth: float = np.inf
    dtype: np.dtype | None = None

    @abc.abstractmethod
    def start(self, n_rows):
        """Return the state of no points."""

    @abc.abstractmethod
    def update(self, state, tile):
        """Return the state with a tile added; it may destroy ``tile.sq``."""

    @abc.abstractmethod
    def merge(self, state, other):
        """Return the state of both sets of training points."""

    @abc.abstractmethod
    def finish(self, state):
        """Return the result, of shape (n_rows, width)."""

    @abc.abstractmethod
    def suspect_rows(self, nearest, delta):
        """Return which rows may feel an error ``delta`` of their squared distances.

        ``nearest`` are their smallest squared distances. Both have shape (n_rows,).
        """

    def suspect_pairs(self, sq, nearest, delta):
        """Return which pairs of suspect rows do, in the shape of ``sq``."""
        return np.ones(sq.shape, dtype=bool)

    def reach(self, nearest):
        """Return squared distances beyond which no pair matters, of shape (n_rows,)."""
        return np.full_like(nearest, np.inf)

    def combine(self, result, other):
        """Return the result of both sets of points, where results say enough for that."""
        raise TypeError(f"results of {type(self).__name__} do not merge")

    def product_terms(self, lowest):
        """Return rate and reference of a product that is enough, or None.

        A reduction that returns them has ``update_from_product``, which takes a tile of
        ``rate (reference - squared distance)`` straight from a matrix product.
        """
        return None


class KernelReduction(Reduction):
    """Shared by the reductions over the values of one kernel.

    The first array of a state is the lowest energy of each row, shape (n_rows,); sums of
    values are relative to it.
    """

    def __init__(self, spec):
        self.kernel = spec.kernel
        self.bandwidths = np.atleast_1d(
            np.asarray(spec.bandwidth_scaled, dtype=np.float64)
        )
        self.smallest_bandwidth = self.bandwidths.min()
        self.tol, self.dtype = spec.tolerance, spec.pair_dtype
        # all terms of exp(-margin) together add less than tol to the lightest
        ratio = spec.points.shape[0] / spec.points.smallest_weight
        self.margin = np.log(ratio) - np.log(self.tol)

    def reach(self, nearest):
        return self.kernel.reach(nearest, self.margin, self.bandwidths.max())

    def suspect_rows(self, nearest, delta):
        return self.kernel.suspect_rows(nearest, delta, self.bandwidths, self.tol)

    def suspect_pairs(self, sq, nearest, delta):
        return self.kernel.suspect_pairs(
            sq, nearest, delta, self.bandwidths, self.tol, self.margin
        )

    def _shifted(self, lowest_before, tile):
        """Return the lowest energy so far, a finite reference, and energies below it.

        Overwrites ``tile.sq``.
        """
        energy = self.kernel.energy(tile.sq)
        lowest = np.minimum(lowest_before, self.kernel.energy(tile.nearest.copy()))
        reference = finite_or_zero(lowest)
        return lowest, reference, self.kernel.shift(energy, reference)

    def _factors(self, lowest, other):
        """Return the factor that makes sums relative to ``other`` relative to ``lowest``."""
        if np.array_equal(lowest, other):
            return 1.0
        log_peak = self.kernel.log_peak
        with np.errstate(invalid="ignore"):
            logs = log_peak(other, self.bandwidths) - log_peak(lowest, self.bandwidths)
        return np.exp(np.where(np.isnan(logs), 0.0, logs))  # NaN: neither has points

    def _log_sums(self, lowest, sums):
        """Return logs of sums that are relative to ``lowest``."""
        with np.errstate(divide="ignore"):
            peak = self.kernel.log_peak(finite_or_zero(lowest), self.bandwidths)
            return np.log(sums) + peak


class LogSumExp(KernelReduction):
    """``log sum_j w_j k(|x - y_j| / h)`` for a whole grid of ``h`` from one visit.

    The state is the lowest energy of each row, shape (n_rows,), and the sums
    relative to it, shape (n_rows, n_bandwidths).

    For exponential profiles the values at ``h / squaring_ratio`` are the squares of
    those at ``h``: bandwidths so spaced form chains that cost one exponential each.
    """

    def __init__(self, spec):
        super().__init__(spec)
        self.width = len(self.bandwidths)
        self.chains = squaring_chains(self.bandwidths, spec.kernel.squaring_ratio)

    def start(self, n_rows):
        return np.full(n_rows, np.inf), np.zeros((n_rows, len(self.bandwidths)))

    def update(self, state, tile):
        lowest, reference, shifted = self._shifted(state[0], tile)
        sums = state[1] * self._factors(lowest, state[0])
        single = len(self.bandwidths) == 1
        buffer = shifted if single else tile.scratch()
        sums += self._sums(shifted, buffer, tile.weights, reference)
        return lowest, sums

    def _sums(self, shifted, buffer, weights, lowest):
        sums = np.empty((len(shifted), len(self.bandwidths)))
        for chain in self.chains:
            h = self.bandwidths[chain[0]]
            values = self.kernel.values(shifted, h, buffer, lowest)
            sums[:, chain[0]] = to_host(values @ weights)
            for g in chain[1:]:
                values *= values
                sums[:, g] = to_host(values @ weights)
        return sums

    def product_terms(self, lowest):
        """Rate and reference to fold into the product, for each row.

        None if the kernel needs squared distances.
        """
        if not self.kernel.affine:
            return None
        if len(self.bandwidths) > 1:
            return 1.0, lowest
        return self.kernel.product_terms(lowest, self.bandwidths[0])

    def update_from_product(self, state, product, scratch, weights):
        """The state with a tile of ``rate (reference - sq)`` added.

        Saves three passes over the tile: no minimum is sought, and the shift and scale
        are part of the product.

        Returns
        -------
        state : tuple
        rows : ndarray of int
            Rows in which a point is so much nearer than the lowest so far that its value
            is out of range. Nothing was added to them.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if len(self.bandwidths) == 1:
                values = self.kernel.values_from_product(product)
                sums = to_host(values @ weights)[:, None]
            else:
                sums = self._sums(product, scratch(), weights, state[0])
        rows = np.flatnonzero(~(sums <= LARGEST_SUM).all(axis=1))
        sums[rows] = 0.0
        return (state[0], state[1] + sums), rows

    def merge(self, state, other):
        lowest = np.minimum(state[0], other[0])
        sums = state[1] * self._factors(lowest, state[0])
        sums += other[1] * self._factors(lowest, other[0])
        return lowest, sums

    combine = staticmethod(np.logaddexp)

    def finish(self, state):
        """Log sums of shape (n_rows, n_bandwidths); -inf where no point is in reach."""
        return self._log_sums(*state)


class Gradient(KernelReduction):
    """Gradient of ``log sum_j w_j k(|x - y_j| / h)``: a weighted mean of ``y_j - x``.

    With ``g = -2 dk/d(r^2 / h^2)`` it is ``sum_j w_j g_j (y_j - x) / (h^2 sum_j w_j
    k_j)``. The state is the lowest energy, the sum of ``w k`` and the sum of
    ``w g (y - x)``, of shapes (n_rows,), (n_rows, 1), (n_rows, n_features).
    """

    def __init__(self, spec):
        super().__init__(spec)
        self.width = self.n_features = spec.points.shape[1]
        self.scale, self.indistinct = spec.points.scale, spec.points.indistinct

    def suspect_rows(self, nearest, delta):
        suspect = super().suspect_rows(nearest, delta)
        if self.kernel.singular:  # slopes are in 1 / r: r is needed to a relative tol
            suspect |= ~(nearest > delta / self.tol)
        return suspect

    def suspect_pairs(self, sq, nearest, delta):
        suspect = super().suspect_pairs(sq, nearest, delta)
        if self.kernel.singular:
            suspect |= sq <= (delta / self.tol)[:, None]
        return suspect

    def start(self, n_rows):
        return (
            np.full(n_rows, np.inf),
            np.zeros((n_rows, 1)),
            np.zeros((n_rows, self.n_features)),
        )

    def update(self, state, tile):
        h = self.bandwidths[0]
        if self.kernel.singular and self.indistinct:  # no direction at the point itself
            tile.sq[tile.sq <= self.indistinct] = 0.0
        unshifted = self.kernel.energy(tile.sq * 1.0)
        lowest, reference, shifted = self._shifted(state[0], tile)
        factor = self._factors(lowest, state[0])
        values = self.kernel.values(shifted, h, shifted, reference)
        total = state[1] * factor + to_host(values @ tile.weights)[:, None]
        slopes = self.kernel.slopes(unshifted, values, h) * tile.weights
        steps = tile.weighted_differences(slopes, self.tol * h * total[:, 0])
        return lowest, total, state[2] * factor + steps

    def merge(self, state, other):
        lowest = np.minimum(state[0], other[0])
        mine, theirs = self._factors(lowest, state[0]), self._factors(lowest, other[0])
        return (
            lowest,
            state[1] * mine + other[1] * theirs,
            state[2] * mine + other[2] * theirs,
        )

    def finish(self, state):
        """Gradient of shape (n_rows, n_features), per data unit; NaN out of reach."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return state[2] / state[1] / self.bandwidths[0] ** 2 * self.scale


class PartialGradient(Gradient):
    """The log sum, and the gradient: what one part of the points has to say."""

    def __init__(self, spec):
        super().__init__(spec)
        self.width = self.n_features + 1

    def finish(self, state):
        return np.hstack([self._log_sums(*state[:2]), super().finish(state)])

    def combine(self, result, other):
        """The mean of both gradients, by their shares of the sum."""
        total = np.logaddexp(result[:, :1], other[:, :1])
        merged = np.zeros((len(total), self.n_features))
        for mine, theirs in ((result, other), (other, result)):
            # from the difference, so that shares add up to 1 however large the logs are
            with np.errstate(invalid="ignore", over="ignore"):
                share = 1.0 / (1.0 + np.exp(theirs[:, :1] - mine[:, :1]))
            merged += np.where(share > 0.0, share * mine[:, 1:], 0.0)
        merged[np.isneginf(total[:, 0])] = np.nan
        return np.hstack([total, merged])


class Shares(KernelReduction):
    """How the sum ``sum_j w_j k(|x - y_j| / h)`` is shared out among the points.

    The state is the lowest energy of each row, shape (n_rows,); relative to it the sums
    of ``w k``, ``w^2 k`` and ``(w k)^2``, then those of ``w`` and ``w^2``, and the
    largest ``w k``, shape (n_rows, 6); and the ``n_neighbors`` smallest squared distances
    with their weights.
    """

    def __init__(self, spec, n_neighbors):
        super().__init__(spec)
        self.equal_weights = spec.points.weights is None
        self.neighbors = KSmallest(n_neighbors, NEIGHBOR_TOL)

    def suspect_rows(self, nearest, delta):
        suspect = super().suspect_rows(nearest, delta)
        return suspect | self.neighbors.suspect_rows(nearest, delta)

    def suspect_pairs(self, sq, nearest, delta):
        suspect = super().suspect_pairs(sq, nearest, delta)
        return suspect | self.neighbors.suspect_pairs(sq, nearest, delta)

    def start(self, n_rows):
        nearest = np.full((2, n_rows, self.neighbors.k), np.inf)
        nearest[1] = 0.0
        return np.full(n_rows, np.inf), np.zeros((n_rows, 6)), *nearest

    def update(self, state, tile):
        near = _with_smaller(state[2:], tile)
        lowest, reference, shifted = self._shifted(state[0], tile)
        values = self.kernel.values(shifted, self.bandwidths[0], shifted, reference)
        sums, xp = np.empty((len(values), 6)), namespace(values)
        sums[:, :2] = to_host(values @ tile.weights)[:, None]
        if not self.equal_weights:
            sums[:, 1] = to_host(values @ tile.weights**2)
            values *= tile.weights
        sums[:, 3:5] = tile.weight_sums()
        sums[:, 5] = to_host(xp.amax(values, 1))
        values *= values
        sums[:, 2] = to_host(values @ xp.ones_like(tile.weights))
        return lowest, _added(self._rescaled(state, lowest), sums), *near

    def merge(self, state, other):
        lowest = np.minimum(state[0], other[0])
        sums = _added(self._rescaled(state, lowest), self._rescaled(other, lowest))
        return lowest, sums, *_smallest(state[2:], other[2:])

    def _rescaled(self, state, lowest):
        factor = self._factors(lowest, state[0])
        one = np.ones_like(factor)
        return state[1] * np.hstack([factor, factor, factor**2, one, one, factor])


class KSmallest(Reduction):
    """The ``k`` smallest squared distances of each query, ascending.

    ``tol`` is their relative error that is allowed.
    """

    def __init__(self, k, tol, dtype=None):
        self.k = self.width = k
        self.tol, self.dtype = tol, dtype

    def suspect_rows(self, nearest, delta):
        return ~(delta <= self.tol * nearest)

    def suspect_pairs(self, sq, nearest, delta):
        kth = np.partition(sq, min(self.k, sq.shape[1]) - 1, axis=1)
        return sq <= (kth[:, min(self.k, sq.shape[1]) - 1] + 2.0 * delta)[:, None]

    def start(self, n_rows):
        return (np.full((n_rows, self.k), np.inf),)

    def update(self, state, tile):
        if self.k == 1:
            return (np.minimum(state[0], tile.nearest[:, None]),)
        return self.merge(state, smallest(tile.sq, self.k, state[0][:, -1])[:1])

    def merge(self, state, other):
        return (np.sort(np.hstack([state[0], other[0]]), axis=1)[:, : self.k],)

    def finish(self, state):
        return np.maximum(state[0], 0.0)

    def combine(self, result, other):
        return self.merge((result,), (other,))[0]


class Nearest(KSmallest):
    """The ``k`` smallest squared distances, ascending, and which points they are to.

    The result has the distances, infinite where there are not so many points, then
    the indices of the points, -1 where there are not.
    """

    def __init__(self, k, tol):
        super().__init__(k, tol)
        self.width = 2 * k

    def start(self, n_rows):
        return np.full((n_rows, self.k), np.inf), np.full((n_rows, self.k), -1.0)

    def update(self, state, tile):
        sq, cols = smallest(tile.sq, self.k, state[0][:, -1])
        ids = np.where(np.isinf(sq), -1.0, cols + tile.cols.start)
        return self.merge(state, (sq.astype(np.float64), ids))

    def merge(self, state, other):
        return _smallest(state, other)

    def finish(self, state):
        return np.hstack([np.maximum(state[0], 0.0), state[1]])


def _added(mine, theirs):
    """Sums of both, and the larger of what is last."""
    total = mine + theirs
    total[:, -1] = np.maximum(mine[:, -1], theirs[:, -1])
    return total


def _smallest(mine, theirs):
    """The smallest distances of both, ascending, as many as mine, and their weights."""
    k = mine[0].shape[1]
    sq, weights = (np.hstack(pair) for pair in zip(mine, theirs, strict=True))
    order = np.argsort(sq, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(sq, order, 1), np.take_along_axis(weights, order, 1)


def _with_smaller(near, tile):
    """``near``, ascending distances and their weights, with a tile's smaller ones."""
    sq, cols = smallest(tile.sq, near[0].shape[1], near[0][:, -1])
    return _smallest(near, (sq, to_host(tile.weights)[cols]))


def squaring_chains(bandwidths, ratio):
    """Group indices of ``bandwidths`` so that each is the next one times ``ratio``.

    Returns
    -------
    chains : list of list of int
        Every index once; descending bandwidths within a chain.
    """
    order = [int(g) for g in np.argsort(-bandwidths, kind="stable")]
    if ratio is None:
        return [[g] for g in order]
    chains = []
    for g in order:
        for chain in chains:
            square = np.isclose(
                bandwidths[chain[-1]], ratio * bandwidths[g], rtol=1e-12, atol=0.0
            )
            if square and len(chain) < LONGEST_CHAIN:
                chain.append(g)
                break
        else:
            chains.append([g])
    return chains
