"""Training points and queries in the form in which pairs are visited.

A squared distance is one inner product of two vectors with two more entries,

    |x - y|^2 = (-2 x, 1, |x|^2) . (y, |y|^2, 1),

so that a tile of them is a single matrix product. What cancels in it is
``|x|^2 + |y|^2``; hence the data are centred first, and divided by a power of two
(exactly) so that squares neither overflow nor underflow, whatever the units. The
points as they were given, times that power of two, are kept in ``exact``: where
the product is not precise enough, distances come from their differences.

Lengths are in *data units*, those of X; in *whitened units*, if X is in the coordinates
of a whitening; or in *scaled units*, either of these times ``scale``. Here is the only
border between them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike

from skhdkde._utils.arrays import (
    BLOCK_SIZE,
    DeviceArray,
    beside,
    clipped,
    column,
    namespace,
    row_batches,
    running_max,
    sorted_rows,
    subtract_at,
    to_host,
    widened,
)
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.moments import without_each
from skhdkde._utils.threads import ForkLock
from skhdkde._utils.typing import AnyTile, Device, FloatArray, IntArray, Rows

# Scaled queries beyond this count as there: their squares would not be finite. Those of
# a fitted density are brought into range before.
LARGEST_QUERY = 1e145
# Elements of a block that stays in the cache between two passes over it.
SMALL_BLOCK_SIZE = 2**16
# Bandwidths, in scaled units, below which exponents are not finite in float32.
SMALLEST_BANDWIDTH = 1e-15
# Relative to the largest; smaller ones, times a kernel value, underflow in float32.
SMALLEST_WEIGHT = 1e-20
# Queries, in scaled units, beyond which squares are not finite in float32.
LARGEST_FLOAT32 = 1e15
# Terms of an inner product that the BLAS of a CPU adds up before it starts a new block.
LONGEST_WALK = 768
# The same where no new block is ever started.
NO_BLOCKS = 2**62
# One thread at a time makes rows in float32 that all of them use.
_narrowing = ForkLock()
# Squared distance of the mean from the origin, in units of the variance, up to which
# points are as good as centred.
NEARLY_CENTERED = {np.dtype(np.float32): 0.1, np.dtype(np.float64): 1.0}
# Columns of augmented rows on a GPU are padded to a multiple of this, by zeros.
ALIGNED = 4


class Queries:
    """Some rows of X in scaled units, float64, made as they are asked for.

    ``dtype`` is that of the result, and of the tiles where nothing calls for another.
    """

    def __init__(self, X, rows, dtype, scale, whitening=None):
        self.X, self.rows, self.dtype, self.scale = X, rows, dtype, scale
        self.whitening = whitening
        self.length = len(X) if isinstance(rows, slice) else len(rows)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, which) -> FloatArray:
        return self._scaled(self.X[self._in_X(which)])

    def on(self, device: Device, which: slice) -> AnyTile:
        """Return some of the queries where a device has its tiles."""
        return self._scaled(self._rows_on(device, which), device.keep)

    def _rows_on(self, device, which):
        """Return rows of X where a device has its tiles."""
        X, rows = getattr(self.X, "tensor", self.X), self._in_X(which)
        if isinstance(X, np.ndarray):
            return device.put(X[rows])
        return X[rows if isinstance(rows, slice) else device.put(rows)]

    def _in_X(self, which):
        return which if isinstance(self.rows, slice) else self.rows[which]

    def _scaled(self, X, keep=None):
        """Return rows of X in scaled units, in float64, where they are."""
        if self.whitening is not None:
            X = _whitened(self.whitening, X, self.dtype, keep)
        if not isinstance(X, np.ndarray):
            return (X.double() * self.scale).clip_(-LARGEST_QUERY, LARGEST_QUERY)
        with np.errstate(over="ignore"):
            scaled = np.multiply(X, self.scale, dtype=np.float64)
        return np.clip(scaled, -LARGEST_QUERY, LARGEST_QUERY, out=scaled)


class TrainingPoints:
    """Centred, scaled points with their norms and weights.

    Parameters
    ----------
    X : ndarray or DeviceArray of shape (n_points, n_features), float32 or float64
        Validated points. They are copied, and stay where they are.
    weights : ndarray of shape (n_points,), default=None
        Relative weights, in (0, 1]; None stands for equal ones.
    whitening : Whitening, default=None
        The coordinates that X is in already, and that queries are to be brought to. The
        origin is where the whitening has it: nothing is subtracted.
    sq_factor, sq_offset : ndarray of shape (n_points,), default=None
        If given, the squared distance to point j stands for ``sq_factor_j`` times it plus
        ``sq_offset_j``, the latter in squared units of X. To be used in float64 only.
    scale : float, default=None
        If not to be found from X.
    center : ndarray of shape (n_features,), default=None
        In scaled units; if not to be found from X, and X is in no whitening.
    row_numbers : ndarray of int of shape (n_points,), default=None
        Of the points in the user's X, for messages; None if they are all of its rows.

    Attributes
    ----------
    scale : float
        A power of two; ``X * scale`` has entries of at most 1. Lengths in all other
        attributes are in scaled units; see also the role ``Points``.
    exact : ndarray of shape (n_points, n_features)
        ``X * scale``, to the last bit.
    center : ndarray of shape (n_features,)
        What is subtracted from ``exact``; zero where that would gain nothing.
    augmented : ndarray of shape (n_points, n_features + 2)
        ``(y, |y|^2, 1)`` of the centred points, in the dtype of X, without sq_factor and
        sq_offset.
    at_queries : ndarray of shape (n_points, n_features) or None
        Where the points are as queries, in scaled units, if not at ``exact``.
    """

    at_queries: FloatArray | None = None
    # what makes tiles, if not the products of `Tile`
    tile_class: Any = None
    _narrow: NarrowRows | None = None

    def __init__(
        self,
        X: FloatArray | DeviceArray,
        weights: FloatArray | None = None,
        *,
        whitening: Any = None,
        sq_factor: FloatArray | None = None,
        sq_offset: FloatArray | None = None,
        scale: float | None = None,
        center: FloatArray | None = None,
        row_numbers: IntArray | None = None,
    ):
        self.whitening, self.sq_factor = whitening, sq_factor
        self._row_numbers = row_numbers
        self.scale = power_of_two_scale(X) if scale is None else scale
        self.sq_offset = None if sq_offset is None else sq_offset * self.scale**2
        self.center: FloatArray = np.zeros(X.shape[1])
        if whitening is None:
            self.center = _center_of(X, self.scale) if center is None else center
        prepare: Any = _prepare if isinstance(X, np.ndarray) else _prepare_on_gpu
        self.exact, self.augmented, largest_sq = prepare(X, self.scale, self.center)
        self.largest_norm = float(np.sqrt(largest_sq))
        size = 0.0 if whitening is None else self.largest_norm
        self.indistinct_sq = indistinct_sq(size, self.dtype)
        self._set_weights(weights)

    def __copy__(self):
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__, _narrow=None)
        return copied

    def __getstate__(self):
        # a pickle holds the data once: the rest is made of them again
        state = {**self.__dict__, "exact": self.exact, "_narrow": None}
        if not self.on_gpu:
            state["exact"] = np.ascontiguousarray(self.exact)
        del state["augmented"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        prepare = _prepare_on_gpu if self.on_gpu else _prepare
        self.exact, self.augmented, _ = prepare(self.exact, 1.0, self.center)

    def _set_weights(self, weights):
        some = weights is not None and len(weights)
        self.weights = weights
        self.smallest_weight = float(weights.min()) if some else 1.0

    @property
    def on_gpu(self) -> bool:
        """Whether the points are on a GPU."""
        return isinstance(self.exact, DeviceArray)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of points, and of features."""
        return self.exact.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of X."""
        return self.exact.dtype

    def block(self, cols: Rows, dtype: DTypeLike) -> FloatArray:
        """Return the augmented points ``cols``: a view if they are kept in ``dtype``."""
        if self.kept_in(dtype):
            return self.augmented[cols]
        return self.block_of(self.exact[cols], cols, dtype)

    def kept_in(self, dtype: DTypeLike) -> bool:
        """Return whether blocks in ``dtype`` are rows of ``augmented``."""
        return self.sq_factor is None and dtype == self.dtype

    def block_of(self, exact: AnyTile, cols: Rows, dtype: DTypeLike) -> AnyTile:
        """Return the augmented points ``cols``, given their rows of ``exact``."""
        block = _augmented(exact, self.center, dtype)
        if self.sq_factor is not None and self.sq_offset is not None:
            block *= beside(self.sq_factor[cols], block)[:, None]
            block[:, -2] += beside(self.sq_offset[cols], block)
        return block

    def scaled_sq(self, sq: AnyTile, cols: Any, keep: Any = None) -> AnyTile:
        """Return what the squared distances ``sq`` to the points ``cols`` stand for.

        ``keep`` is that of the device on which they are, if not the host.
        """
        sq_factor, sq_offset = self.sq_factor, self.sq_offset
        if sq_factor is None or sq_offset is None:
            return sq
        if keep is not None:
            sq_factor, sq_offset = keep(sq_factor), keep(sq_offset)
        return sq * sq_factor[cols] + sq_offset[cols]

    def reach(self, reduction: Any, nearest_sq: FloatArray) -> FloatArray:
        """Return squared distances beyond which no pair matters, by row."""
        return reduction.reach(nearest_sq)

    def scaled_error(self, delta: FloatArray, eps: float) -> FloatArray:
        """Return a bound on errors of :meth:`scaled_sq`, given that of its argument."""
        if self.sq_factor is None or self.sq_offset is None:
            return delta
        return delta * self.sq_factor.max() + 4.0 * eps * np.abs(self.sq_offset).max()

    def query_block(self, exact_queries: AnyTile, dtype: DTypeLike) -> AnyTile:
        """Return queries, scaled but not centred, as ``(-2 x, 1, |x|^2)``."""
        block = _augmented(exact_queries, self.center, dtype)
        block[:, -1] = block[:, -2]
        block[:, -2] = 1.0
        block[:, :-2] *= -2.0
        return block

    def subset(self, rows: Rows, weights: FloatArray | None = None) -> Self:
        """Return some of the points, in the same units.

        ``weights``, relative to the largest of them, replace theirs.
        """
        subset = copy.copy(self)
        subset.augmented = self.augmented[rows]
        shared = np.shares_memory(self.exact[:1], self.augmented[:1])
        subset.exact = subset.augmented[:, :-2] if shared else self.exact[rows]
        if self.sq_factor is not None and self.sq_offset is not None:
            subset.sq_factor = self.sq_factor[rows]
            subset.sq_offset = self.sq_offset[rows]
        if self.at_queries is not None:
            subset.at_queries = self.at_queries[rows]
        subset._row_numbers = self.row_numbers(rows)
        if weights is None and self.weights is not None:
            weights = self.weights[rows]
        subset._set_weights(weights)
        return subset

    def row_numbers(self, rows: Rows) -> IntArray:
        """Return which rows of the user's X some of the points are."""
        if self._row_numbers is None:
            return np.arange(self.shape[0])[rows]
        return self._row_numbers[rows]

    def weight_block(self, cols: slice, dtype: DTypeLike) -> FloatArray:
        """Return the weights of the points ``cols``."""
        if self.weights is None:
            return np.ones(cols.stop - cols.start, dtype=dtype)
        return self.weights[cols].astype(dtype)

    def total_weight(self) -> float:
        """Return the sum of all weights."""
        return float(self.shape[0] if self.weights is None else self.weights.sum())

    def total_weight_without_each(self) -> FloatArray:
        """Return, for each point, the sum of the weights of all others."""
        if self.weights is None:
            return np.full(self.shape[0], self.shape[0] - 1.0)
        return without_each(self.weights)

    def effective_number(self) -> float:
        """Return Kish's effective number of points."""
        if self.weights is None:
            return self.shape[0]
        return self.weights.sum() ** 2 / np.sum(self.weights**2)

    def fit_float32(self, smallest_bandwidth: float) -> bool:
        """Return whether float32 can hold what sums at such bandwidths are made of."""
        small = self.smallest_weight < SMALLEST_WEIGHT
        return not small and smallest_bandwidth >= SMALLEST_BANDWIDTH

    @property
    def narrow(self) -> NarrowRows:
        """The augmented points in float32, made at first use and kept."""
        with _narrowing:
            if self._narrow is None:
                self._narrow = _narrow_rows(self)
        return self._narrow

    def mean_square_spread(self) -> float:
        """Return the weighted mean of ``|y - mean|^2``."""
        if self.weights is None and not self.on_gpu:
            mean = self.augmented[:, :-2].mean(axis=0, dtype=np.float64)
            mean_sq = self.augmented[:, -2].mean(dtype=np.float64)
            return max(mean_sq - mean @ mean, 0.0)
        shares = self.weight_block(slice(0, self.shape[0]), np.float64)
        shares = beside(shares / shares.sum(), getattr(self.exact, "tensor", self.exact))
        mean = sum(shares[rows] @ y for y, rows in self._batches())
        squares = (((y - mean) ** 2).sum(1) @ shares[rows] for y, rows in self._batches())
        return float(sum(squares))

    def _batches(self) -> Iterator[tuple[AnyTile, slice]]:
        """Yield batches of the centred points, where they are, and their rows."""
        if self.on_gpu:
            yield from self.augmented.blocks(columns=-2)
            return
        for rows in row_batches(*self.shape):
            yield self.centered(rows), rows

    def contiguous(self, dtype: np.dtype) -> AnyTile:
        """Return ``exact`` in ``dtype`` and in one piece, where it is."""
        if not self.on_gpu:
            return np.ascontiguousarray(self.exact, dtype=dtype)
        tensor = self.exact.tensor
        return (tensor.double() if dtype == np.float64 else tensor.float()).contiguous()

    def centered(self, rows: Rows) -> FloatArray:
        """Return the points ``rows``, centred."""
        return self.augmented[rows][:, :-2]

    def in_data_units(self, rows: Rows, out: FloatArray | None = None) -> FloatArray:
        """Return the points ``rows`` as they were given, in ``out`` if there is one."""
        return np.divide(self.exact[rows], self.dtype.type(self.scale), out=out)

    def stretched(self, rows: IntArray, steps: FloatArray) -> FloatArray:
        """Return steps from some of the points in the units of the points."""
        return steps

    def as_queries(self, X: FloatArray | DeviceArray) -> Queries:
        """Return queries in data units as ``reduce_pairs`` takes them."""
        dtype, whitening = np.result_type(X.dtype, self.exact.dtype), self.whitening
        if whitening is not None and len(X) * X.shape[1] <= BLOCK_SIZE:
            X, whitening = _whitened(whitening, X, dtype), None
        return Queries(X, slice(None), dtype, self.scale, whitening)

    def rows_as_queries(self, rows: Rows) -> Queries:
        """Return the training points ``rows`` as queries."""
        exact = self.exact if self.at_queries is None else self.at_queries
        return Queries(exact, np.arange(len(exact))[rows], exact.dtype, 1.0)


class NarrowRows(NamedTuple):
    """Augmented points in float32."""

    augmented: FloatArray  # (n_points, n_features + 2)
    largest_shift: float  # how far rounding moved a point at most, in scaled units


class QueryBlock:
    """A block of queries, prepared once for all the tiles of its row.

    Attributes
    ----------
    exact : array of shape (n_rows, n_features), float64
        Queries in scaled units, to the last bit, where the tiles are.
    augmented : array of shape (n_rows, n_features + 2)
        ``(-2 x, 1, |x|^2)`` of the centred queries, in ``dtype``.
    sq_norms : array of shape (n_rows,), float64
        ``|x|^2`` as rounded to ``dtype``.
    leave_out : ndarray of shape (n_rows,) or (n_rows, n_left_out), or None
        Indices of the training points that each query does not see; -1 for none.
    dtype : dtype
        Of the tiles.
    longest_walk : int
        Terms of an inner product that are added up before a new block of them starts.
    """

    def __init__(self, exact, points, leave_out, dtype, longest_walk=LONGEST_WALK):
        self.exact, self.dtype = exact, np.dtype(dtype)
        self.augmented = points.query_block(exact, dtype)
        self.sq_norms = widened(self.augmented[:, -1])
        self.leave_out, self.longest_walk = leave_out, longest_walk

    @functools.cached_property
    def sq_norms_on_host(self) -> FloatArray:
        """``sq_norms`` as a numpy array."""
        return to_host(self.sq_norms)

    @functools.cached_property
    def rounding(self) -> RowRounding:
        """How rounding errors of products with each row add up, on the host."""
        return row_rounding(
            self.augmented[:, :-2], self.sq_norms, self.dtype, self.longest_walk
        )

    @property
    def worst_rounding(self) -> RowRounding:
        """What ``rounding`` is at worst, whatever the entries are."""
        return worst_rounding(
            self.exact.shape[1], self.sq_norms_on_host, self.dtype, self.longest_walk
        )

    def in_dtype(self, dtype: DTypeLike, points: TrainingPoints) -> Self:
        """Return the block for tiles in another dtype."""
        return type(self)(self.exact, points, self.leave_out, dtype, self.longest_walk)

    def subset(self, rows: IntArray) -> Self:
        """Return a block of some of the rows."""
        subset = copy.copy(self)
        for name in ("sq_norms_on_host", "_sorted_left_out"):
            vars(subset).pop(name, None)
        there = beside(rows, self.exact)
        subset.exact, subset.augmented = self.exact[there], self.augmented[there]
        subset.sq_norms = self.sq_norms[there]
        if "rounding" in vars(self):
            subset.rounding = self.rounding.subset(rows)
        subset.leave_out = None if self.leave_out is None else self.leave_out[rows]
        return subset

    def relative(self, reference: Any, rate: Any) -> AnyTile:
        """Return what has the product ``rate (reference - |x - y|^2)`` with the points.

        Both are numbers or of shape (n_rows,).
        """
        # rounded once, so that what cancels is in the same units
        xp = namespace(self.augmented)
        rate = column(xp.zeros_like(self.sq_norms) + rate, self.augmented)
        operand = like_rows(self.augmented)
        xp.multiply(self.augmented, -rate, out=operand)
        operand[:, -1] = widened(rate[:, 0]) * (reference - self.sq_norms)
        return operand

    def exclude(self, tile: AnyTile, cols: slice, value: float) -> None:
        """Set the pairs to leave out, of the tile of points ``cols``, to ``value``."""
        rows, position = self._left_out(cols)
        if len(rows):
            tile[rows, position] = value

    def weight_sums(self, weights: FloatArray, cols: slice) -> AnyTile:
        """Return sums of the ``weights`` of ``cols`` and of their squares, by query."""
        powers = np.column_stack([weights, weights**2])
        xp = namespace(self.exact)
        sums = beside(powers.sum(axis=0), self.exact) + xp.zeros_like(self.exact[:, :1])
        rows, position = self._left_out(cols)
        if len(rows):
            subtract_at(sums, rows, beside(powers, sums)[position])
        return xp.clip(sums, 0.0, None)

    def _left_out(self, cols):
        """Return the rows that leave out one of ``cols``, and which one."""
        if self.leave_out is None:
            return np.empty((2, 0), dtype=int)
        on_host, rows, left_out = self._sorted_left_out
        some = slice(*np.searchsorted(on_host, (cols.start, cols.stop)))
        return rows[some], left_out[some] - cols.start

    @functools.cached_property
    def _sorted_left_out(self):
        """The points that are left out, ascending; rows of these, and they themselves.

        The first is on the host, the others are where the tiles are.
        """
        ids = self.leave_out.reshape(len(self.exact), -1)
        rows = np.repeat(np.arange(len(ids)), ids.shape[1])
        order = np.argsort(ids, axis=None, kind="stable")
        ids, rows = ids.ravel()[order], rows[order]
        return ids, beside(rows, self.exact), beside(ids, self.exact)


def in_range(exact: AnyTile) -> AnyTile:
    """Return whether squares of queries, in scaled units, are finite in float32."""
    return abs(exact) <= LARGEST_FLOAT32


def _whitened(whitening, X, dtype, keep=None):
    """Return whitened coordinates, rounded to ``dtype`` where that can hold them.

    The points' are rounded too: a query that is one of the points stays one. ``keep``
    puts what the whitening is made of where X is.
    """
    if not isinstance(X, np.ndarray):
        Z = whitening.apply(X, keep)
        if dtype == np.float64:
            return Z
        rounded = Z.float()
        return namespace(Z).where(rounded.isfinite(), rounded.double(), Z)
    Z = whitening.apply(X)
    if dtype == np.float64:
        return Z
    with np.errstate(over="ignore"):
        rounded = Z.astype(dtype)
    return np.where(np.isfinite(rounded), rounded, Z)


class RowRounding(NamedTuple):
    """How rounding errors of inner products with each of some rows add up.

    Rounding errors along an inner product are like a random walk, of a length that
    :func:`~skhdkde._pairwise.tiles.error_bound` bounds, with three exceptions. They can
    be told from one of the two vectors, so that the queries are enough.
    """

    bias: FloatArray  # (n_rows,), how much longer than random the walk may be; >= 1
    lost_sq: FloatArray  # (n_rows,), sum of the terms so small that all may be lost
    walk: float  # how far a random one goes, in roundings of the sum

    def subset(self, rows: Rows) -> Self:
        """Return this for some of the rows."""
        return type(self)(self.bias[rows], self.lost_sq[rows], self.walk)


def row_rounding(
    rows: AnyTile, sq_norms: AnyTile, dtype: np.dtype, longest_walk: int
) -> RowRounding:
    """Return how rounding errors of inner products with each row add up, on the host.

    Terms that are equal, to the last digit of their sum, are all rounded the same way:
    ``n`` of them walk ``n`` steps, and not ``sqrt(n)``. So the walk is longer by the root
    of the mean number of terms equal to a term, of which a sample of features gives a
    bound. Terms smaller than that digit are lost, all of them. Where a few terms are
    nearly all of the sum it is as large from the start, and steps with it.

    Parameters
    ----------
    rows : array of shape (n_rows, n_features)
        Up to a factor, in ``dtype``.
    sq_norms : array of shape (n_rows,)
    longest_walk : int
        Terms that are added up before a new block of them starts.
    """
    xp, n_features = namespace(rows), rows.shape[1]
    n_steps = min(n_features, longest_walk)
    shares = xp.square(rows)
    shares /= clipped(shares.sum(1), np.finfo(dtype).tiny)[:, None]
    digit = np.finfo(dtype).eps * _largest_part(shares, n_steps)[:, None]
    squares = xp.einsum("ij,ij->i", shares, shares)
    few = clipped(8.0 * (squares - 4.0 / n_features), 0.0, 1.0)
    lost = xp.where(shares < 4.0 * digit, xp.minimum(shares, 0.5 * digit), 0.0).sum(1)
    n_terms = clipped(widened((shares >= digit).sum(1)), 1.0)
    sampled = sorted_rows(shares[:, beside(_sampled_features(n_features), shares)])
    equal = (sampled[:, 1:] - sampled[:, :-1] <= digit) & (sampled[:, :-1] >= digit)
    share = sampled.shape[1] / n_features
    pairs = _pairs_in_runs(equal)
    if share < 1.0:  # those of all features are hardly ever more
        pairs += 2.0 * xp.sqrt(pairs) + 3.0
    # a few pairs, as any row has, are within what the bound allows for
    n_equal = clipped(0.5 + 2.0 * pairs / share**2 / n_terms, 1.0)
    n_equal = xp.minimum(n_equal, n_terms)
    # beside a few large terms all others may be lost, however large in the row itself
    most = 0.5 * digit[:, 0] * n_steps
    most *= clipped(2.0 * (squares - 0.1), 0.0, 1.0)
    lost_sq = xp.maximum(lost, most) * sq_norms
    bias = xp.sqrt(n_equal) * (1.0 + few)
    walk = random_walk(n_features, longest_walk, dtype)
    return RowRounding(to_host(bias), to_host(lost_sq), walk)


def worst_rounding(
    n_features: int, sq_norms: FloatArray, dtype: Any, longest_walk: int
) -> RowRounding:
    """Return how rounding errors of rows add up at worst, whatever their entries are."""
    most = 0.5 * np.finfo(dtype).eps * n_features * sq_norms
    walk = random_walk(n_features, longest_walk, dtype)
    return RowRounding(np.full_like(sq_norms, 2.0 * n_features**0.5), most, walk)


def random_walk(n_features: int, longest_walk: int, dtype: Any) -> float:
    """Return how far rounding errors of an inner product go at random.

    The constants are the least that the tests let pass: of the BLAS of a CPU, which adds
    up several sums side by side, and of one term after another, as a GPU may have it.
    """
    one_by_one = longest_walk == NO_BLOCKS and dtype != np.float32
    return (2.0 if one_by_one else 0.8) * min(n_features, longest_walk) ** 0.5


def _largest_part(shares, n_steps):
    """Return the largest sum of a block of so many terms, by row."""
    xp, starts = namespace(shares), range(0, shares.shape[1], n_steps)
    if len(starts) == 1:
        return xp.ones_like(shares[:, 0])
    parts = [shares[:, i : i + n_steps].sum(1) for i in starts]
    return xp.amax(xp.stack(parts, 1), 1)


@functools.lru_cache
def _sampled_features(n_features):
    """Return so many features, at random, that few equal pairs stand for few in all."""
    size = min(n_features, int(np.ceil(np.sqrt(80.0 * n_features))))
    return np.random.default_rng(0).permutation(n_features)[:size]


def _pairs_in_runs(equal):
    """Return how many pairs are in the runs of a row where each equals the next."""
    if isinstance(equal, np.ndarray) and not equal.any():
        return np.zeros(len(equal))
    xp, place = namespace(equal), beside(np.arange(1, equal.shape[1] + 1), equal)
    start = running_max(xp.where(equal, 0, place))
    return widened(xp.where(equal, place - start, 0).sum(1))


def _prepare(X, scale, center):
    """Return ``exact``, ``augmented`` and the largest ``|y|^2`` of TrainingPoints."""
    augmented = np.empty((X.shape[0], X.shape[1] + 2), dtype=X.dtype)
    # Where nothing is subtracted, one array serves as both.
    exact = augmented[:, :-2] if not center.any() else np.empty(X.shape, X.dtype)
    for rows in row_batches(len(X), X.shape[1], SMALL_BLOCK_SIZE):
        np.multiply(X[rows], X.dtype.type(scale), out=exact[rows])
        _augment(exact[rows], center, out=augmented[rows])
    return exact, augmented, float(augmented[:, -2].max())


def _augmented(exact, center, dtype):
    """Return ``(y, |y|^2, 1)`` of ``y = exact - center`` in ``dtype``, where that is."""
    n, n_columns = len(exact), exact.shape[1] + 2
    if isinstance(exact, np.ndarray):
        return _augment(exact, center, np.empty((n, n_columns), dtype=dtype))
    return _augment(exact, center, aligned_rows(exact, n, n_columns, dtype))


def _narrow_rows(points):
    """Return all points as the tiles of float32 take them."""
    shape = points.shape[0], points.shape[1] + 2
    narrow, largest_sq = np.empty(shape, dtype=np.float32), 0.0
    for rows in row_batches(shape[0], shape[1], SMALL_BLOCK_SIZE):
        _augment(points.exact[rows], points.center, out=narrow[rows])
        shift = points.exact[rows] - points.center
        shift -= narrow[rows, :-2]
        largest_sq = max(largest_sq, np.einsum("ij,ij->i", shift, shift).max())
    return NarrowRows(narrow, float(np.sqrt(largest_sq)))


def aligned_rows(like: AnyTile, n_rows: int, n_columns: int, dtype: DTypeLike) -> AnyTile:
    """Return an uninitialised tensor beside another, on a GPU of rows padded by zeros.

    Matrix products by tensors whose rows are aligned are faster there.
    """
    unit = 1 if like.device.type == "cpu" else ALIGNED
    xp, width = namespace(like), -(-n_columns // unit) * unit
    rows = like.new_empty((n_rows, width), dtype=getattr(xp, np.dtype(dtype).name))
    rows[:, n_columns:] = 0.0
    return rows[:, :n_columns]


def like_rows(rows: AnyTile) -> AnyTile:
    """Return an uninitialised array like some augmented rows."""
    if isinstance(rows, np.ndarray):
        return np.empty_like(rows)
    n_rows, n_columns = rows.shape
    return aligned_rows(rows, n_rows, n_columns, str(rows.dtype).removeprefix("torch."))


def _augment(exact, center, out):
    """Return ``(y, |y|^2, 1)`` of ``y = exact - center``, in ``out``."""
    if not isinstance(exact, np.ndarray):
        out[:, :-2] = exact.double() - beside(center, exact)
        out[:, -2] = out[:, :-2].double().square().sum(1)
        out[:, -1] = 1.0
        return out
    # the difference is made in float64 and rounded once
    np.subtract(exact, center, out=out[:, :-2], casting="same_kind")
    # summed in pairs, so that the error of a norm does not grow with its length
    out[:, -2] = np.square(out[:, :-2], dtype=np.float64).sum(axis=1)
    out[:, -1] = 1.0
    return out


def _prepare_on_gpu(X, scale, center):
    """Return what :func:`_prepare` does for a tensor that stays on a GPU."""
    tensor = X.tensor
    augmented = aligned_rows(tensor, X.shape[0], X.shape[1] + 2, X.dtype)
    exact = augmented[:, :-2] if not center.any() else tensor.new_empty(X.shape)
    for block, rows in X.blocks():
        exact[rows] = (block * scale).to(tensor.dtype)
        _augment(exact[rows], center, out=augmented[rows])
    return DeviceArray(exact), DeviceArray(augmented), float(augmented[:, -2].max())


def indistinct_sq(largest_norm: float, dtype: np.dtype) -> float:
    """Return the squared distance to which rounding may bring equal rows, whitened."""
    return (8.0 * np.finfo(dtype).eps * largest_norm) ** 2


def sorting_keys(points: TrainingPoints) -> IntArray:
    """Return a number for each point, equal for duplicates, whatever their order."""
    return row_hashes(points.exact)


def distinct_rows(points: TrainingPoints) -> tuple[IntArray, IntArray]:
    """Return the first point of each group of duplicates, and the group of each point.

    Duplicates are equal to the last bit; the first are ascending.
    """
    key = sorting_keys(points)
    order = np.argsort(key, kind="stable")
    tied = np.flatnonzero(np.diff(key[order]) == 0)
    candidates = np.sort(order[np.unique(np.concatenate([tied, tied + 1]))])
    leader = np.arange(points.shape[0])
    _, place, inverse = np.unique(
        points.exact[candidates], axis=0, return_index=True, return_inverse=True
    )
    leader[candidates] = candidates[place][inverse.ravel()]
    first, group = np.unique(leader, return_inverse=True)
    return first, group


def power_of_two_scale(X: FloatArray | DeviceArray) -> float:
    """Return the power of two that brings the entries of X to at most 1."""
    return scale_for(largest_entry(X), X.dtype)


def largest_entry(X: FloatArray | DeviceArray) -> float:
    """Return the largest absolute value in X."""
    array: Any = getattr(X, "tensor", X)
    return max(float(array.max()), -float(array.min()))


def scale_for(largest: float, dtype: np.dtype) -> float:
    """Return the power of two that brings entries of up to ``largest`` to at most 1."""
    if largest == 0.0:
        return 1.0
    # frexp: largest = m 2^e with m in [1/2, 1); the limit keeps 2^-e finite
    limit = 126 if dtype == np.float32 else 1022
    return float(2.0 ** -np.clip(np.frexp(largest)[1], -limit, limit))


def _center_of(X, scale):
    """Return the useful centre of the points ``X * scale``."""
    total, total_sq = (_sums if isinstance(X, np.ndarray) else _sums_on_gpu)(X, scale)
    return useful_center(total / len(X), total_sq / len(X), X.dtype)


def useful_center(mean: FloatArray, mean_sq: float, dtype: np.dtype) -> FloatArray:
    """Return the mean of points, or zero where they are nearly centred as they are.

    ``mean_sq`` is the mean of their squared norms. Points that are centred are kept
    twice, which in float64 is not worth a factor of two in errors.
    """
    distance_sq = mean @ mean
    near = distance_sq <= NEARLY_CENTERED[dtype] * (mean_sq - distance_sq)
    return np.zeros_like(mean) if near else mean


def _sums(X, scale):
    """Return the sum of the rows of ``X * scale``, and of all squares."""
    total, total_sq = np.zeros(X.shape[1]), 0.0
    for rows in row_batches(len(X), X.shape[1], SMALL_BLOCK_SIZE):
        block = X[rows] * X.dtype.type(scale)
        total += block.sum(axis=0, dtype=np.float64)
        total_sq += np.einsum("ij,ij->i", block, block).sum(dtype=np.float64)
    return total, total_sq


def _sums_on_gpu(X, scale):
    """Return what :func:`_sums` does for a tensor on a GPU, on the host."""
    total, total_sq = np.zeros(X.shape[1]), 0.0
    for block, _ in X.blocks():
        block = block * scale  # not in place: it may be X itself
        total += to_host(block.sum(0))
        total_sq += float(block.square().sum())
    return total, total_sq
