"""What is computed over pairs, apart from how pairs are visited.

A reduction turns a tile of squared distances between some queries and some training
points into a *state*: a small tuple of arrays with one row per query. States of the same
queries and different training points merge, in any order: tiles, threads and machines
all use the same ``merge``. A state is where the tiles are; results are made on the host.
"""

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from skhdkde._kernels import Kernel
from skhdkde._utils.arrays import (
    beside,
    column,
    finite_or_zero,
    first_by_row,
    kth_smallest,
    namespace,
    smallest,
    sorted_rows,
    widened,
)
from skhdkde._utils.typing import AnyTile, FloatArray, Points, Rows

# Squaring doubles the relative error, so at most 2^7 times that of exp.
LONGEST_CHAIN = 8
# Far from the largest number of a dtype.
LARGEST_SUM = {"float32": 1e25, "float64": 1e200}
# Power of the Student kernel up to which rounding in float32 is below 1e-4 nats.
LARGEST_EXPONENT = 1500.0
# Relative error of the nearest squared distances from which laws are fitted.
NEIGHBOR_TOL = 1e-4
# Largest error of a log density that is promised, in nats.
PROMISED_FLOAT32, PROMISED_FLOAT64 = 1e-3, 1e-8


def promised_tolerance(dtype: np.dtype) -> float:
    """Return the largest error, in nats, of a log density of this dtype."""
    return PROMISED_FLOAT32 if dtype == np.float32 else PROMISED_FLOAT64


@dataclass(frozen=True)
class ReductionSpec:
    """What a reduction over a kernel's values needs to know.

    Attributes
    ----------
    bandwidth_scaled : float or ndarray of shape (n_bandwidths,)
        In scaled units.
    result_dtype : dtype
        Of the result, which sets the precision that is promised.
    tolerance : float, default=None
        Error of a log sum that is allowed, in nats; None for the promised one.
    pair_dtype : dtype, default=None
        In which pairs are computed; None for float64 where the kernel needs it, else for
        that of queries and points.
    """

    kernel: Kernel
    bandwidth_scaled: float | FloatArray
    points: Points
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

        float32 does not resolve ``1 - r^2`` at the rim of a compact kernel, nor what is
        added to squared distances, nor what a high power is taken of.
        """
        wide = self.kernel.compact or self.points.sq_factor is not None
        wide |= getattr(self.kernel, "exponent", 0.0) > LARGEST_EXPONENT
        return np.dtype(np.float64) if wide else None


class Reduction(abc.ABC):
    """The role of a reduction; a new one is a subclass."""

    width: int  # number of columns of the result
    smallest_bandwidth: float = np.inf  # in scaled units; infinite if there is none
    dtype: np.dtype | None = None  # of pairs; None for that of queries and points
    # nats below the largest value of its row from which on a value does not matter, even
    # if it is wrong; None if all do
    negligible: float | None = None

    @abc.abstractmethod
    def start(self, n_rows: int) -> tuple:
        """Return the state of no points."""

    @abc.abstractmethod
    def update(self, state: Any, tile: Any) -> tuple:
        """Return the state with a tile added; it may destroy ``tile.sq``."""

    @abc.abstractmethod
    def merge(self, state: Any, other: Any) -> tuple:
        """Return the state of both sets of training points."""

    @abc.abstractmethod
    def finish(self, state: Any) -> FloatArray:
        """Return the result, (n_rows, width), of a state on the host."""

    @abc.abstractmethod
    def suspect_rows(self, nearest_sq: FloatArray, delta: FloatArray) -> np.ndarray:
        """Return which rows may feel an error ``delta`` of their squared distances.

        ``nearest_sq`` are the smallest of these. Both have shape (n_rows,).
        """

    def suspect_pairs(self, sq, nearest_sq, delta) -> AnyTile:
        """Return which pairs of suspect rows do, in the shape of ``sq``."""
        return namespace(sq).ones_like(sq, dtype=bool)

    def reach(self, nearest_sq: FloatArray) -> FloatArray:
        """Return squared distances beyond which no pair matters, of shape (n_rows,)."""
        return np.full_like(nearest_sq, np.inf)

    def combine(self, result: FloatArray, other: FloatArray) -> FloatArray:
        """Return the result of both sets of points, where results say enough for that."""
        raise TypeError(f"results of {type(self).__name__} do not merge")

    def product_terms(self, lowest: AnyTile) -> tuple | None:
        """Return rate and reference, by row, of a product that is enough, or None.

        A reduction that returns them has ``update_from_product``, which takes a tile of
        ``rate (reference - squared distance)`` straight from a matrix product. Last comes
        the product of a pair that is left out.
        """
        return None


class RelativeSums(Reduction):
    """Reductions to sums of values, which may be out of range.

    The first array of a state is the lowest energy of each row; the others are sums of
    values relative to that at the lowest energy.
    """

    @abc.abstractmethod
    def _log_peaks(self, lowest):
        """Return the log of the value at the lowest energy, by row and setting."""

    def merge(self, state, other):
        lowest = namespace(state[0]).minimum(state[0], other[0])
        mine, theirs = self._factors(lowest, state[0]), self._factors(lowest, other[0])
        sums = (a * mine + b * theirs for a, b in zip(state[1:], other[1:], strict=True))
        return lowest, *sums

    def _factors(self, lowest, other):
        """Return factors of sums that are relative to ``other`` and not to ``lowest``."""
        xp = namespace(lowest)
        if xp is np and ((lowest == other) | (other == np.inf)).all():
            return 1.0  # of no points the sums are 0
        with np.errstate(invalid="ignore"):
            logs = self._log_peaks(other) - self._log_peaks(lowest)
        return xp.exp(xp.where(xp.isnan(logs), 0.0, logs))  # NaN: neither has points

    def _log_sums(self, lowest, sums):
        """Return logs of sums that are relative to ``lowest``; -inf out of reach."""
        with np.errstate(divide="ignore"):
            return np.log(sums) + self._log_peaks(finite_or_zero(lowest))


class KernelReduction(RelativeSums):
    """Reductions over the values of one kernel."""

    def __init__(self, spec: ReductionSpec):
        self.kernel = spec.kernel
        self.bandwidths = np.atleast_1d(
            np.asarray(spec.bandwidth_scaled, dtype=np.float64)
        )
        self.smallest_bandwidth = self.bandwidths.min()
        assert spec.tolerance is not None  # by default the promised one
        self.tol, self.dtype = spec.tolerance, spec.pair_dtype
        # all terms of exp(-margin) together add less than tol to the lightest
        ratio = spec.points.shape[0] / spec.points.smallest_weight
        self.margin = np.log(ratio) - np.log(self.tol)

    def reach(self, nearest_sq):
        return self.kernel.reach(nearest_sq, self.margin, self.bandwidths.max())

    def suspect_rows(self, nearest_sq, delta):
        return self.kernel.suspect_rows(nearest_sq, delta, self.bandwidths, self.tol)

    def suspect_pairs(self, sq, nearest_sq, delta):
        return self.kernel.suspect_pairs(
            sq, nearest_sq, delta, self.bandwidths, self.tol, self.margin
        )

    def _lowest(self, before, tile):
        """Return the lowest energies with a tile added, and these with 0 for infinity."""
        own = self.kernel.energy(tile.nearest_sq * 1.0)
        lowest = namespace(own).minimum(before, own)
        return lowest, finite_or_zero(lowest)

    def _log_peaks(self, lowest):
        return self.kernel.log_peak(lowest, self.bandwidths)


class LogSumExp(KernelReduction):
    """``log sum_j w_j k(|x - y_j| / h)`` for a grid of ``h``, (n_rows, n_bandwidths).

    For exponential profiles the values at ``h / squaring_ratio`` are the squares of
    those at ``h``: bandwidths so spaced form chains that cost one exponential each.
    """

    def __init__(self, spec: ReductionSpec):
        super().__init__(spec)
        self.negligible = self.margin
        self.width = len(self.bandwidths)
        self.chains = squaring_chains(self.bandwidths, spec.kernel.squaring_ratio)

    def start(self, n_rows):
        return np.full(n_rows, np.inf), np.zeros((n_rows, len(self.bandwidths)))

    def update(self, state, tile):
        lowest, reference = self._lowest(state[0], tile)
        shifted = self.kernel.shift(self.kernel.energy(tile.sq), reference)
        buffer = shifted if len(self.bandwidths) == 1 else tile.scratch()
        sums = self._sums(shifted, buffer, tile.weights, reference)
        sums += state[1] * self._factors(lowest, state[0])
        return lowest, sums

    def _sums(self, shifted, buffer, weights, lowest):
        """Return the sums of a tile at each bandwidth; ``buffer`` is overwritten."""
        sums = {}
        for chain in self.chains:
            h = self.bandwidths[chain[0]]
            values = self.kernel.values(shifted, h, buffer, lowest)
            sums[chain[0]] = values @ weights
            for g in chain[1:]:
                values *= values
                sums[g] = values @ weights
        columns = [sums[g] for g in range(len(sums))]
        return widened(namespace(shifted).stack(columns, 1))

    def product_terms(self, lowest):
        if not self.kernel.affine:
            return None
        if len(self.bandwidths) > 1:
            return 1.0, lowest, -np.inf
        return self.kernel.product_terms(lowest, self.bandwidths[0])

    def update_from_product(self, state, product, scratch, weights):
        """Return the state with a tile of ``rate (reference - sq)`` added, and a mask.

        In rows of the mask a point is so much nearer than the lowest so far that its
        value is out of range, and nothing was added. Three passes over the tile are
        saved: no minimum is sought, and the product has shift and scale in it.
        ``scratch`` makes a buffer.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if len(self.bandwidths) == 1:
                values = self.kernel.values_from_product(product)
                sums = widened((values @ weights)[:, None])
            else:
                sums = self._sums(product, scratch(), weights, state[0])
        dtype = str(product.dtype).removeprefix("torch.")
        out_of_range = ~(sums <= LARGEST_SUM[dtype]).all(1)
        sums = namespace(sums).where(out_of_range[:, None], 0.0, sums)
        return (state[0], state[1] + sums), out_of_range

    def sums_about(self, product, extreme, nearest_sq, factor, scratch, weights):
        """Return sums of a tile relative to the value at the nearest pair of each row.

        As of :meth:`update_from_product`, but of products that are to be multiplied by
        ``factor``. ``extreme`` are those of the nearest pairs. Nothing is out of range.
        """
        if len(self.bandwidths) == 1:
            values = self.kernel.values_about(product, extreme, factor)
            return widened((values @ weights)[:, None])
        product -= column(finite_or_zero(extreme), product)
        return self._sums(product, scratch(), weights, finite_or_zero(nearest_sq))

    def merged(self, lowest, sums):
        """Return the state of many, whose arrays are stacked, as `merge` would."""
        least = namespace(lowest).amin(lowest, 0)
        peaks = self._log_peaks(lowest.ravel()).reshape(sums.shape)
        logs = peaks - self._log_peaks(least)
        xp = namespace(logs)
        factors = xp.exp(xp.where(xp.isnan(logs), 0.0, logs))  # NaN: no points
        return least, (sums * factors).sum(0)

    def combine(self, result, other):
        return np.logaddexp(result, other)

    def finish(self, state):
        return self._log_sums(*state)


class Gradient(KernelReduction):
    """Gradient of ``log sum_j w_j k(|x - y_j| / h)``: a weighted mean of ``y_j - x``.

    With the slopes ``g_j`` of the kernel it is ``rate sum_j w_j g_j (y_j - x) / sum_j w_j
    k_j``. The state is the lowest energy, the sum of ``w k`` and the sum of
    ``w g (y - x)``, of shapes (n_rows,), (n_rows, 1), (n_rows, n_features).
    """

    def __init__(self, spec: ReductionSpec):
        super().__init__(spec)
        self.negligible = self.margin
        self.width = self.n_features = spec.points.shape[1]
        self.scale, self.indistinct_sq = spec.points.scale, spec.points.indistinct_sq
        self.rate = self.kernel.slope_rate(self.bandwidths[0])

    def suspect_rows(self, nearest_sq, delta):
        suspect = super().suspect_rows(nearest_sq, delta)
        if self.kernel.singular:  # slopes are in 1 / r: r is needed to a relative tol
            suspect |= ~(nearest_sq > delta / self.tol)
        return suspect

    def suspect_pairs(self, sq, nearest_sq, delta):
        suspect = super().suspect_pairs(sq, nearest_sq, delta)
        if self.kernel.singular:
            suspect |= sq <= beside(delta / self.tol, sq)[:, None]
        return suspect

    def start(self, n_rows):
        return (
            np.full(n_rows, np.inf),
            np.zeros((n_rows, 1)),
            np.zeros((n_rows, self.n_features)),
        )

    def update(self, state, tile):
        h = self.bandwidths[0]
        if self.kernel.singular and self.indistinct_sq:  # no direction at a point itself
            tile.sq *= tile.sq > self.indistinct_sq
        energy = self.kernel.energy(tile.sq)
        unshifted = energy * 1.0
        lowest, reference = self._lowest(state[0], tile)
        factor = self._factors(lowest, state[0])
        shifted = self.kernel.shift(energy, reference)
        values = self.kernel.values(shifted, h, shifted, reference)
        total = state[1] * factor + widened((values @ tile.weights)[:, None])
        slopes = self.kernel.slopes(unshifted, values, h) * tile.weights
        allowed = self.tol / (h * self.rate) * total[:, 0]
        steps = tile.weighted_differences(slopes, allowed)
        return lowest, total, state[2] * factor + steps

    def finish(self, state):
        """Return gradients, (n_rows, n_features), per data unit; NaN out of reach."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return state[2] / state[1] * self.rate * self.scale


class PartialGradient(Gradient):
    """The log sum, then the gradient, of a subset of the points; such results merge."""

    def __init__(self, spec: ReductionSpec):
        super().__init__(spec)
        self.width = self.n_features + 1

    def finish(self, state):
        return np.hstack([self._log_sums(*state[:2]), super().finish(state)])

    def combine(self, result, other):
        """Return the log of both sums, and the mean of the gradients by their shares."""
        total = np.logaddexp(result[:, :1], other[:, :1])
        merged = np.zeros((len(total), self.n_features))
        for mine, theirs in ((result, other), (other, result)):
            # from the difference, so that shares add up to 1 however large the logs are
            with np.errstate(invalid="ignore", over="ignore"):
                share = 1.0 / (1.0 + np.exp(theirs[:, :1] - mine[:, :1]))
            merged += np.where(share > 0.0, share * mine[:, 1:], 0.0)
        merged[np.isneginf(total[:, 0])] = np.nan
        return np.hstack([total, merged])


class SharesState(NamedTuple):
    """State of :class:`Shares`; sums of values ``k`` are relative to that at ``lowest``.

    All are of shape (n_rows,), but for the nearest points, (n_rows, n_neighbors).
    """

    lowest: FloatArray
    sum_wk: FloatArray
    sum_w2k: FloatArray
    sum_w2k2: FloatArray
    sum_w: FloatArray
    sum_w2: FloatArray
    max_wk: FloatArray
    nearest_sq: FloatArray
    nearest_weights: FloatArray

    def subset(self, rows: Rows) -> Self:
        """Return the state of some of the queries."""
        return type(self)(*(array[rows] for array in self))


class Shares(KernelReduction):
    """How the sum ``sum_j w_j k(|x - y_j| / h)`` is shared out among the points.

    The state is a :class:`SharesState`.
    """

    def __init__(self, spec: ReductionSpec, n_neighbors: int):
        super().__init__(spec)
        self.equal_weights = spec.points.weights is None
        self.neighbors = KSmallest(n_neighbors, NEIGHBOR_TOL)

    def suspect_rows(self, nearest_sq, delta):
        suspect = super().suspect_rows(nearest_sq, delta)
        return suspect | self.neighbors.suspect_rows(nearest_sq, delta)

    def suspect_pairs(self, sq, nearest_sq, delta):
        suspect = super().suspect_pairs(sq, nearest_sq, delta)
        return suspect | self.neighbors.suspect_pairs(sq, nearest_sq, delta)

    def start(self, n_rows):
        nearest_sq = np.full((n_rows, self.neighbors.k), np.inf)
        lowest, sums = np.full(n_rows, np.inf), np.zeros((6, n_rows))
        return SharesState._make([lowest, *sums, nearest_sq, np.zeros_like(nearest_sq)])

    def update(self, state, tile):
        nearest_sq, cols = smallest(tile.sq, self.neighbors.k, state.nearest_sq[:, -1])
        nearest_weights = tile.weights[cols]
        lowest, reference = self._lowest(state.lowest, tile)
        shifted = self.kernel.shift(self.kernel.energy(tile.sq), reference)
        values = self.kernel.values(shifted, self.bandwidths[0], shifted, reference)
        xp = namespace(values)
        sum_wk = sum_w2k = values @ tile.weights
        if not self.equal_weights:
            sum_w2k = values @ tile.weights**2
            values *= tile.weights
        max_wk = xp.amax(values, 1)
        values *= values
        sum_w2k2 = values @ xp.ones_like(tile.weights)
        sums = sum_wk, sum_w2k, sum_w2k2, *tile.weight_sums().T, max_wk
        own = map(widened, (lowest, *sums, nearest_sq, nearest_weights))
        return self.merge(state, SharesState._make(own))

    def merge(self, state, other):
        xp = namespace(state.lowest)
        lowest = xp.minimum(state.lowest, other.lowest)
        mine, theirs = self._rescaled(state, lowest), self._rescaled(other, lowest)
        return SharesState(
            lowest,
            mine.sum_wk + theirs.sum_wk,
            mine.sum_w2k + theirs.sum_w2k,
            mine.sum_w2k2 + theirs.sum_w2k2,
            mine.sum_w + theirs.sum_w,
            mine.sum_w2 + theirs.sum_w2,
            xp.maximum(mine.max_wk, theirs.max_wk),
            *_smallest(state[-2:], other[-2:]),
        )

    def _rescaled(self, state, lowest):
        """Return a state with its sums relative to ``lowest``."""
        factor = self._factors(lowest, state.lowest)
        if not isinstance(factor, float):
            factor = factor.ravel()
        return state._replace(
            sum_wk=state.sum_wk * factor,
            sum_w2k=state.sum_w2k * factor,
            sum_w2k2=state.sum_w2k2 * factor**2,
            max_wk=state.max_wk * factor,
        )


class KSmallest(Reduction):
    """The ``k`` smallest squared distances of each query, ascending.

    Their relative error may be ``tol``; pairs are computed in ``dtype``.
    """

    def __init__(self, k: int, tol: float, dtype: np.dtype | None = None):
        self.k = self.width = k
        self.tol, self.dtype = tol, dtype

    def suspect_rows(self, nearest_sq, delta):
        return ~(delta <= self.tol * nearest_sq)

    def suspect_pairs(self, sq, nearest_sq, delta):
        last = min(self.k, sq.shape[1]) - 1
        kth_sq = kth_smallest(sq, last + 1)
        return sq <= (kth_sq + 2.0 * beside(delta, sq))[:, None]

    def start(self, n_rows):
        return (np.full((n_rows, self.k), np.inf),)

    def update(self, state, tile):
        if self.k == 1:
            own = tile.nearest_sq[:, None]
            return (namespace(own).minimum(state[0], own),)
        own, _ = smallest(tile.sq, self.k, state[0][:, -1])
        return self.merge(state, (widened(own),))

    def merge(self, state, other):
        both = namespace(state[0]).hstack([state[0], other[0]])
        return (sorted_rows(both)[:, : self.k],)

    def finish(self, state):
        return np.maximum(state[0], 0.0)

    def combine(self, result, other):
        return self.merge((result,), (other,))[0]


class Nearest(KSmallest):
    """The ``k`` smallest squared distances, ascending, and which points they are to.

    The result has the distances, infinite where there are not so many points, then
    the indices of the points, -1 where there are not.
    """

    def __init__(self, k: int, tol: float, dtype: np.dtype | None = None):
        super().__init__(k, tol, dtype)
        self.width = 2 * k

    def start(self, n_rows):
        return np.full((n_rows, self.k), np.inf), np.full((n_rows, self.k), -1.0)

    def update(self, state, tile):
        sq, cols = smallest(tile.sq, self.k, state[0][:, -1])
        xp, ids = namespace(sq), widened(cols) + float(tile.cols.start)
        return self.merge(state, (widened(sq), xp.where(xp.isinf(sq), -1.0, ids)))

    def merge(self, state, other):
        return _smallest(state, other)

    def finish(self, state):
        return np.hstack([np.maximum(state[0], 0.0), state[1]])


def _smallest(mine, theirs):
    """Return as many of the smallest distances of both as mine, and their labels."""
    xp, k = namespace(mine[0]), mine[0].shape[1]
    sq, labels = (xp.hstack(both) for both in zip(mine, theirs, strict=True))
    return first_by_row(sq, k, labels)


def squaring_chains(bandwidths: FloatArray, ratio: float | None) -> list[list[int]]:
    """Return indices in chains, in which each bandwidth is the next times ``ratio``."""
    order = [int(g) for g in np.argsort(-bandwidths, kind="stable")]
    if ratio is None:
        return [[g] for g in order]
    chains: list[list[int]] = []
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
