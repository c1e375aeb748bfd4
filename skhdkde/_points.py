"""Training points in the form in which pairs are visited.

A squared distance is one inner product of two vectors with two more entries,

    |x - y|^2 = (-2 x, 1, |x|^2) . (y, |y|^2, 1),

so that a tile of them is a single matrix product. What cancels in it is
``|x|^2 + |y|^2``; hence the data are centred first, and divided by a power of two
(exactly) so that squares neither overflow nor underflow, whatever the units. The
points as they were given, times that power of two, are kept in ``exact``: where
the product is not precise enough, distances come from their differences.
"""

import numpy as np

__all__ = ["TrainingPoints"]

# Elements of a block made on the fly (8 MiB of float64).
BLOCK_SIZE = 2**20


class TrainingPoints:
    """Centred, scaled points with their norms and weights.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features), float32 or float64
        Validated points. They are copied.

    weights : ndarray of shape (n_points,), default=None
        Positive weights; None stands for equal ones.

    Attributes
    ----------
    exact : ndarray of shape (n_points, n_features)
        ``X * scale``, to the last bit.

    augmented : ndarray of shape (n_points, n_features + 2)
        ``(y, |y|^2, 1)`` of the centred points, in the dtype of X.

    scale : float
        A power of two; ``X * scale`` has entries of at most 1.

    center : ndarray of shape (n_features,)
        What was subtracted from ``exact``; zero where that would gain nothing.

    largest_norm : float
        Largest ``|y|`` of the centred points, in scaled units.

    weights : ndarray of shape (n_points,) or None
        Weights divided by the largest.
    """

    def __init__(self, X, weights=None):
        self.scale = _power_of_two_scale(X)
        exact = np.multiply(X, X.dtype.type(self.scale), order="C")
        self.center = _useful_center(exact)
        self.augmented = np.empty((X.shape[0], X.shape[1] + 2), dtype=X.dtype)
        for rows in row_blocks(*exact.shape):
            self.augmented[rows] = _augment(exact[rows], self.center, X.dtype)
        # Where nothing was subtracted, one copy serves as both.
        self.exact = exact if self.center.any() else self.augmented[:, :-2]
        self.largest_norm = float(np.sqrt(self.augmented[:, -2].max()))
        self.weights = None if weights is None else weights / weights.max()

    @property
    def shape(self):
        return self.exact.shape

    @property
    def dtype(self):
        return self.exact.dtype

    def block(self, cols, dtype):
        """Augmented points ``cols`` in ``dtype``: a view if that is how they are kept."""
        if dtype == self.dtype:
            return self.augmented[cols]
        return _augment(self.exact[cols], self.center, dtype)

    def query_block(self, exact_queries, dtype):
        """Queries, scaled but not centred, as ``(-2 x, 1, |x|^2)``."""
        block = _augment(exact_queries, self.center, dtype)
        block[:, -1] = block[:, -2]
        block[:, -2] = 1.0
        block[:, :-2] *= -2.0
        return block

    def weight_block(self, cols, dtype):
        if self.weights is None:
            return np.ones(cols.stop - cols.start, dtype=dtype)
        return self.weights[cols].astype(dtype)

    def total_weight(self):
        return float(self.shape[0] if self.weights is None else self.weights.sum())

    def total_weight_without_each(self):
        """Sum of all weights but one's own, without subtracting large numbers."""
        if self.weights is None:
            return np.full(self.shape[0], self.shape[0] - 1.0)
        before = np.concatenate([[0.0], np.cumsum(self.weights)[:-1]])
        after = np.concatenate([np.cumsum(self.weights[::-1])[-2::-1], [0.0]])
        return before + after

    def mean_square_spread(self):
        """Weighted mean of ``|y - mean|^2``, in squared data units."""
        total, first, second = 0.0, 0.0, 0.0
        for rows in row_blocks(*self.shape):
            y = self.exact[rows] - self.center
            w = np.ones(len(y)) if self.weights is None else self.weights[rows]
            total += w.sum()
            first = first + w @ y
            second += w @ np.einsum("ij,ij->i", y, y)
        spread = second / total - np.sum((first / total) ** 2)
        return max(spread, 0.0) / self.scale**2

    def in_data_units(self, rows):
        """The points ``rows`` as they were given."""
        return self.exact[rows] / self.dtype.type(self.scale)

    def as_queries(self, X):
        """Queries in data units as :func:`~skhdkde._backends.reduce_pairs` takes them."""
        return _Queries(X, slice(None), np.result_type(X, self.dtype), self.scale)

    def rows_as_queries(self, rows):
        """Training points ``rows`` as queries."""
        return _Queries(self.exact, np.arange(len(self.exact))[rows], self.dtype, 1.0)


class _Queries:
    """Some rows of ``X`` times ``scale``, made block by block as they are asked for."""

    def __init__(self, X, rows, dtype, scale):
        self.X, self.rows, self.dtype, self.scale = X, rows, dtype, dtype.type(scale)
        self.length = len(X) if isinstance(rows, slice) else len(rows)

    def __len__(self):
        return self.length

    def __getitem__(self, part):
        rows = part if isinstance(self.rows, slice) else self.rows[part]
        with np.errstate(over="ignore"):
            return self.X[rows].astype(self.dtype, copy=False) * self.scale


def row_blocks(n_rows, n_features):
    """Slices of rows that hold about ``BLOCK_SIZE`` elements each."""
    step = max(1, BLOCK_SIZE // max(n_features, 1))
    return [slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step)]


def _augment(exact, center, dtype):
    centred = (exact - center).astype(dtype, copy=False)  # float64 until here
    block = np.empty((len(exact), exact.shape[1] + 2), dtype=dtype)
    block[:, :-2] = centred
    # summed in pairs, so that the error of a norm does not grow with its length
    block[:, -2] = np.square(centred, dtype=np.float64).sum(axis=1)
    block[:, -1] = 1.0
    return block


def _power_of_two_scale(X):
    largest = max(float(X.max()), -float(X.min()))
    if largest == 0.0:
        return 1.0
    # frexp: largest = m 2^e with m in [1/2, 1); the limit keeps 2^-e finite
    limit = 126 if X.dtype == np.float32 else 1022
    return float(2.0 ** -np.clip(np.frexp(largest)[1], -limit, limit))


def _useful_center(exact):
    mean = exact.mean(axis=0, dtype=np.float64)
    offset = mean @ mean
    spread = 0.0
    for rows in row_blocks(*exact.shape):
        deviation = exact[rows] - mean
        spread += np.einsum("ij,ij->", deviation, deviation)
    return mean if offset > 0.1 * spread / len(exact) else np.zeros_like(mean)
