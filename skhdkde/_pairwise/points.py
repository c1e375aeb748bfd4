"""Training points in the form in which pairs are visited.

A squared distance is one inner product of two vectors with two more entries,

    |x - y|^2 = (-2 x, 1, |x|^2) . (y, |y|^2, 1),

so that a tile of them is a single matrix product. What cancels in it is
``|x|^2 + |y|^2``; hence the data are centred first, and divided by a power of two
(exactly) so that squares neither overflow nor underflow, whatever the units. The
points as they were given, times that power of two, are kept in ``exact``: where
the product is not precise enough, distances come from their differences.
"""

import copy

import numpy as np

from skhdkde._pairwise.gpu_points import (
    contiguous_on_gpu,
    largest_entry_on_gpu,
    mean_square_spread_on_gpu,
    prepare_on_gpu,
    project_on_gpu,
    sums_on_gpu,
)
from skhdkde._utils.arrays import BLOCK_SIZE, DeviceArray, row_batches
from skhdkde._utils.moments import without_each

# Scaled queries beyond this count as there: their squares would not be finite.
LARGEST_QUERY = 1e145
# Elements of a block that stays in the cache between two passes over it.
SMALL_BLOCK_SIZE = 2**16
# Queries, in scaled units, beyond which squares are not finite in float32.
LARGEST_FLOAT32 = 1e15


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
        If given, the squared distance to point j stands for ``stretch_j`` times it plus
        ``offset_j``, the latter in the units of X. To be used in float64 only.

    scale : float, default=None
        If not to be found from X.

    center : ndarray of shape (n_features,), default=None
        If not to be found from X, and X is in no whitening.

    Attributes
    ----------
    exact : ndarray of shape (n_points, n_features)
        ``X * scale``, to the last bit.

    augmented : ndarray of shape (n_points, n_features + 2)
        ``(y, |y|^2, 1)`` of the centred points, in the dtype of X, without sq_factor and
        sq_offset.

    scale : float
        A power of two; ``X * scale`` has entries of at most 1.

    center : ndarray of shape (n_features,)
        What was subtracted from ``exact``; zero where that would gain nothing.

    largest_norm : float
        Largest ``|y|`` of the centred points, in scaled units.

    indistinct : float
        Squared distance, in scaled units, up to which a query may be one of the points;
        zero without a whitening, as then it is exactly one or is not.

    bias : float
        See :func:`rounding_bias`.

    smallest_weight : float
        Smallest relative weight.
    """

    def __init__(
        self,
        X,
        weights=None,
        *,
        whitening=None,
        sq_factor=None,
        sq_offset=None,
        scale=None,
        center=None,
    ):
        self.whitening, self.sq_factor = whitening, sq_factor
        self.scale = power_of_two_scale(X) if scale is None else scale
        if whitening is not None:
            center = np.zeros(X.shape[1])
        self.center = _useful_center(X, self.scale) if center is None else center
        self.sq_offset = None if sq_factor is None else sq_offset * self.scale**2
        prepare = _prepare if isinstance(X, np.ndarray) else prepare_on_gpu
        self.exact, self.augmented, largest = prepare(X, self.scale, self.center)
        self.largest_norm = float(np.sqrt(largest))
        size = 0.0 if whitening is None else self.largest_norm
        self.indistinct = indistinct_sq(size, self.dtype)
        sample = np.linspace(0, len(X) - 1, min(len(X), 32)).astype(int)
        self.bias = rounding_bias(self.augmented[sample][:, :-2])
        self.weights = weights
        self.smallest_weight = 1.0 if weights is None else float(self.weights.min())

    @property
    def on_gpu(self):
        return isinstance(self.exact, DeviceArray)

    @property
    def shape(self):
        return self.exact.shape

    @property
    def dtype(self):
        return self.exact.dtype

    def block(self, cols, dtype):
        """Augmented points ``cols`` in ``dtype``: a view if that is how they are kept."""
        if self.sq_factor is None and dtype == self.dtype:
            return self.augmented[cols]
        block = self._augmented(self.exact[cols], dtype)
        if self.sq_factor is not None:
            block *= self.sq_factor[cols, None]
            block[:, -2] += self.sq_offset[cols]
        return block

    def scaled_sq(self, sq, cols):
        """What the squared distances ``sq`` to the points ``cols`` stand for."""
        if self.sq_factor is None:
            return sq
        return sq * self.sq_factor[cols] + self.sq_offset[cols]

    def scaled_error(self, delta, unit):
        """Bound on errors of that, where ``delta`` is one for squared distances."""
        if self.sq_factor is None:
            return delta
        return delta * self.sq_factor.max() + 4.0 * unit * np.abs(self.sq_offset).max()

    def _augmented(self, exact, dtype):
        out = np.empty((len(exact), exact.shape[1] + 2), dtype=dtype)
        return _augment(exact, self.center, out)

    def query_block(self, exact_queries, dtype):
        """Queries, scaled but not centred, as ``(-2 x, 1, |x|^2)``."""
        block = self._augmented(exact_queries, dtype)
        block[:, -1] = block[:, -2]
        block[:, -2] = 1.0
        block[:, :-2] *= -2.0
        return block

    def subset(self, rows, weights=None):
        """Return some of the points, in the same units.

        ``weights``, relative to the largest of them, replace theirs.
        """
        subset = copy.copy(self)
        subset.augmented = self.augmented[rows]
        shared = np.shares_memory(self.exact[:1], self.augmented[:1])
        subset.exact = subset.augmented[:, :-2] if shared else self.exact[rows]
        if self.sq_factor is not None:
            subset.sq_factor, subset.sq_offset = self.sq_factor[rows], self.sq_offset[rows]
        if weights is None and self.weights is not None:
            weights = self.weights[rows]
        subset.weights = weights
        subset.smallest_weight = 1.0
        if weights is not None and len(weights):
            subset.smallest_weight = float(weights.min())
        return subset

    def weight_block(self, cols, dtype):
        if self.weights is None:
            return np.ones(cols.stop - cols.start, dtype=dtype)
        return self.weights[cols].astype(dtype)

    def total_weight(self):
        return float(self.shape[0] if self.weights is None else self.weights.sum())

    def total_weight_without_each(self):
        """Sum of all weights but one's own."""
        if self.weights is None:
            return np.full(self.shape[0], self.shape[0] - 1.0)
        return without_each(self.weights)

    def effective_number(self):
        """Kish's effective number of points."""
        if self.weights is None:
            return self.shape[0]
        return self.weights.sum() ** 2 / np.sum(self.weights**2)

    def mean_square_spread(self):
        """Weighted mean of ``|y - mean|^2``, in scaled units."""
        if self.on_gpu:
            return mean_square_spread_on_gpu(self.augmented, self.weights)
        points = self.augmented[:, :-2]
        if self.weights is None:
            mean = points.mean(axis=0, dtype=np.float64)
            mean_sq = self.augmented[:, -2].mean(dtype=np.float64)
            return max(mean_sq - mean @ mean, 0.0)
        blocks, total = row_batches(*self.shape), self.weights.sum()
        mean = sum(self.weights[rows] @ points[rows] for rows in blocks) / total
        squares = (np.square(points[rows] - mean).sum(axis=1) for rows in blocks)
        return (
            sum(self.weights[r] @ q for r, q in zip(blocks, squares, strict=True)) / total
        )

    def contiguous(self, dtype):
        """``exact`` in ``dtype`` and in one piece, where it is."""
        if self.on_gpu:
            return contiguous_on_gpu(self.exact, dtype)
        return np.ascontiguousarray(self.exact, dtype=dtype)

    def centered(self, rows):
        """The points ``rows``, centred."""
        return self.augmented[rows][:, :-2]

    def project(self, direction):
        """Inner product of each point with ``direction``, equal for equal points."""
        if self.on_gpu:
            return project_on_gpu(self.exact, direction)
        return np.einsum("ij,j->i", self.exact, direction, dtype=np.float64)

    def in_data_units(self, rows):
        """The points ``rows`` as they were given."""
        return self.exact[rows] / self.dtype.type(self.scale)

    def as_queries(self, X):
        """Queries in data units as :func:`~skhdkde._backends.reduce_pairs` takes them."""
        dtype = np.result_type(X.dtype, self.dtype)
        if self.whitening is None:
            return _Queries(X, slice(None), dtype, self.scale)
        if len(X) * X.shape[1] > BLOCK_SIZE:
            return _Queries(X, slice(None), dtype, self.scale, self.whitening)
        return _Queries(_whitened(self.whitening, X, dtype), slice(None), dtype, self.scale)

    def rows_as_queries(self, rows):
        """Training points ``rows`` as queries."""
        return _Queries(self.exact, np.arange(len(self.exact))[rows], self.dtype, 1.0)


class _Queries:
    """Some rows of ``X`` times ``scale``, float64, made as they are asked for.

    ``dtype`` is that of the result, and of the tiles where nothing calls for another.
    """

    def __init__(self, X, rows, dtype, scale, whitening=None):
        self.X, self.rows, self.dtype, self.scale = X, rows, dtype, scale
        self.whitening = whitening
        self.length = len(X) if isinstance(rows, slice) else len(rows)

    def __len__(self):
        return self.length

    def __getitem__(self, part):
        rows = part if isinstance(self.rows, slice) else self.rows[part]
        X = self.X[rows]
        if self.whitening is not None:
            X = _whitened(self.whitening, X, self.dtype)
        with np.errstate(over="ignore"):
            scaled = np.multiply(X, self.scale, dtype=np.float64)
        return np.clip(scaled, -LARGEST_QUERY, LARGEST_QUERY, out=scaled)


def _whitened(whitening, X, dtype):
    """Coordinates rounded as those of the points are, where ``dtype`` can hold them.

    A query that is one of the points stays one.
    """
    Z = whitening.apply(X)
    if dtype == np.float64:
        return Z
    with np.errstate(over="ignore"):
        rounded = Z.astype(dtype)
    return np.where(np.isfinite(rounded), rounded, Z)


def rounding_bias(rows):
    """How much longer than random the walk of rounding errors in ``rows @ rows.T`` is.

    Rounding errors along an inner product are like a random walk, of a length that
    ``_backends/_precision.py`` bounds, unless the terms repeat: then all round the same
    way. It shows in the products of a few rows with each other.

    Returns
    -------
    bias : float
        1 for a random walk, and twice the largest ratio to its bound otherwise.
    """
    product = rows @ rows.T
    unit = 0.5 * np.finfo(rows.dtype).eps
    walk = np.sqrt(min(rows.shape[1], 768))
    sq_norms = np.square(rows, dtype=np.float64).sum(axis=1)
    bias = 1.0
    for i, row in enumerate(rows):
        inner = np.multiply(rows, row, dtype=np.float64).sum(axis=1)
        bound = unit * (2.25 * (sq_norms + sq_norms[i]) + 0.8 * walk * np.abs(inner))
        error = np.abs(product[i] - inner)
        bias = max(bias, 2.0 * np.max(error / np.maximum(bound, np.finfo(float).tiny)))
    return float(bias)


def _prepare(X, scale, center):
    """``exact``, ``augmented`` and the largest ``|y|^2`` of :class:`TrainingPoints`."""
    augmented = np.empty((X.shape[0], X.shape[1] + 2), dtype=X.dtype)
    # Where nothing is subtracted, one copy serves as both.
    exact = augmented[:, :-2] if not center.any() else np.empty(X.shape, X.dtype)
    for rows in row_batches(*X.shape, SMALL_BLOCK_SIZE):
        np.multiply(X[rows], X.dtype.type(scale), out=exact[rows])
        _augment(exact[rows], center, out=augmented[rows])
    return exact, augmented, float(augmented[:, -2].max())


def _augment(exact, center, out):
    # the difference is made in float64 and rounded once
    np.subtract(exact, center, out=out[:, :-2], casting="same_kind")
    # summed in pairs, so that the error of a norm does not grow with its length
    out[:, -2] = np.square(out[:, :-2], dtype=np.float64).sum(axis=1)
    out[:, -1] = 1.0
    return out


def indistinct_sq(largest_norm, dtype):
    """Squared distance that rows equal in X may have in a whitening, by rounding."""
    return (8.0 * np.finfo(dtype).eps * largest_norm) ** 2


def distinct_rows(points):
    """Which points are copies of which, to the last bit.

    Returns
    -------
    first : ndarray of int of shape (n_distinct,)
        The first of each group of copies, ascending.
    group : ndarray of int of shape (n_points,)
        To which group each point belongs.
    """
    direction = np.cos(np.arange(points.shape[1]) + 1.0)
    key = points.project(direction)  # equal for copies
    order = np.argsort(key, kind="stable")
    tied = np.flatnonzero(np.diff(key[order]) == 0)
    candidates = np.sort(order[np.unique(np.concatenate([tied, tied + 1]))])
    leader = np.arange(points.shape[0])
    _, place, inverse = np.unique(
        points.exact[candidates], axis=0, return_index=True, return_inverse=True
    )
    leader[candidates] = candidates[place][inverse.ravel()]
    return np.unique(leader, return_inverse=True)


def power_of_two_scale(X):
    if isinstance(X, np.ndarray):
        largest = max(float(X.max()), -float(X.min()))
    else:
        largest = largest_entry_on_gpu(X)
    return scale_for(largest, X.dtype)


def scale_for(largest, dtype):
    """The power of two that brings entries of up to ``largest`` to at most 1."""
    if largest == 0.0:
        return 1.0
    # frexp: largest = m 2^e with m in [1/2, 1); the limit keeps 2^-e finite
    limit = 126 if dtype == np.float32 else 1022
    return float(2.0 ** -np.clip(np.frexp(largest)[1], -limit, limit))


def _useful_center(X, scale):
    """Mean of ``X * scale``, or zero if the data are nearly centred as they are."""
    total, total_sq = (_sums if isinstance(X, np.ndarray) else sums_on_gpu)(X, scale)
    return useful_center(total / len(X), total_sq / len(X))


def useful_center(mean, mean_sq):
    """The mean, or zero where it is near the origin for points of mean square norm."""
    sq_offset = mean @ mean
    return np.zeros_like(mean) if sq_offset <= 0.1 * (mean_sq - sq_offset) else mean


def _sums(X, scale):
    """Sum of the rows of ``X * scale``, and of all squares."""
    total, total_sq = np.zeros(X.shape[1]), 0.0
    for rows in row_batches(*X.shape, SMALL_BLOCK_SIZE):
        block = X[rows] * X.dtype.type(scale)
        total += block.sum(axis=0, dtype=np.float64)
        total_sq += np.einsum("ij,ij->i", block, block).sum(dtype=np.float64)
    return total, total_sq


class QueryBlock:
    """A block of queries, prepared once for all the tiles of its row.

    Attributes
    ----------
    exact : ndarray of shape (n_rows, n_features), float64
        Queries times the scale of the training points, to the last bit.
    augmented : ndarray of shape (n_rows, n_features + 2)
        ``(-2 x, 1, |x|^2)`` of the centred queries, in the dtype of the tile.
    sq_norms : ndarray of shape (n_rows,), float64
        ``|x|^2``.
    leave_out : ndarray of shape (n_rows,) or (n_rows, n_left_out), or None
        Indices of the training points that each query does not see; -1 for none.
    bias : float
        Of the points, or of a few of the queries, whichever is more.
    """

    def __init__(self, exact, points, leave_out, dtype):
        self.exact = exact
        if np.abs(exact).max() > LARGEST_FLOAT32:
            dtype = np.dtype(np.float64)
        self.augmented = points.query_block(exact, dtype)
        self.sq_norms = self.augmented[:, -1].astype(np.float64)
        self.leave_out = leave_out
        self.bias = max(points.bias, rounding_bias(self.augmented[:8, :-2]))

    def subset(self, rows):
        """Return a block of some of the rows."""
        subset = copy.copy(self)
        subset.exact, subset.augmented = self.exact[rows], self.augmented[rows]
        subset.sq_norms = self.sq_norms[rows]
        subset.leave_out = None if self.leave_out is None else self.leave_out[rows]
        return subset

    def relative(self, reference, rate):
        """Operand whose product with the points is ``rate (reference - |x - y|^2)``.

        Both are numbers or of shape (n_rows,).
        """
        # rounded once, so that what cancels is in the same units
        rate = np.broadcast_to(rate, self.sq_norms.shape).astype(self.augmented.dtype)
        operand = self.augmented * -rate[:, None]
        operand[:, -1] = rate.astype(np.float64) * (reference - self.sq_norms)
        return operand

    def exclude(self, tile, cols, value):
        """Set the pairs to leave out, of the tile of points ``cols``, to ``value``."""
        rows, position = self._left_out(cols)
        if len(rows):
            tile[rows, position] = value

    def weight_sums(self, weights, cols):
        """Sums of the ``weights`` of ``cols`` and of their squares, for each query."""
        powers = np.column_stack([weights, weights**2])
        sums = np.tile(powers.sum(axis=0), (len(self.exact), 1))
        rows, position = self._left_out(cols)
        np.subtract.at(sums, rows, powers[position])
        return np.maximum(sums, 0.0)

    def _left_out(self, cols):
        """Rows that leave out one of ``cols``, and which."""
        if self.leave_out is None:
            return np.empty((2, 0), dtype=int)
        position = self.leave_out - cols.start
        found = np.nonzero((position >= 0) & (position < cols.stop - cols.start))
        return found[0], position[found]
