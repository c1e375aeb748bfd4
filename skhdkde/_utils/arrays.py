"""What passes over pairs need beyond what numpy and torch call alike.

Kernels and reductions work in place on tiles, which are numpy arrays or torch
tensors. Kernels also take lazy tensors of KeOps, which are formulas over all pairs.
Small arrays, one number or a few per query, are always numpy's.
"""

import sys

import numpy as np
from sklearn.utils._array_api import (
    _convert_to_numpy,
    get_namespace,
    get_namespace_and_device,
)

# Elements of a block made on the fly (8 MiB of float64).
BLOCK_SIZE = 2**20
# Elements of a block that is worked on at once.
GPU_BLOCK_SIZE = 2**24


def namespace(tile):
    """numpy or torch, whichever the tile belongs to, or what stands in for KeOps."""
    if isinstance(tile, np.ndarray):
        return np
    return sys.modules["torch"] if hasattr(tile, "device") else _Lazy


class _Lazy:
    """The functions of numpy that kernels use, for lazy tensors of KeOps.

    They cannot be changed in place: ``out`` is ignored, and the result is to be used.
    """

    finfo = np.finfo

    def subtract(x, y, out=None):
        return x - y

    def multiply(x, y, out=None):
        return x * y

    def exp(x, out=None):
        return x.exp()

    def log(x, out=None):
        return x.log()

    def sin(x, out=None):
        return x.sin()

    def sqrt(x, out=None):
        return x.sqrt()

    def abs(x, out=None):
        return x.abs()

    def less(x, y, out=None):
        return x < y

    def sign(x):
        return x.sign()

    def clip(x, low, high, out=None):
        return (x - low).relu() + low

    def zeros_like(x):
        return number(0.0, x)

    def where(condition, x, y):
        return (condition - 0.5).ifelse(x, y)


def to_host(array):
    """As a numpy array; numpy arrays as they are."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def number(value, tile):
    """A number for all of a tile; for a lazy tensor, also several, in its last axis."""
    if namespace(tile) is _Lazy:
        return _lazy(np.atleast_1d(value), tile, axis=2)
    return float(value)


def _lazy(values, tile, axis):
    """A lazy tensor that goes with ``tile``: on axis 0 over queries, 2 over neither."""
    other = next(variable for variable in tile.variables if hasattr(variable, "shape"))
    return type(tile)(beside(values.astype(tile.dtype), other), axis=axis)


def beside(values, other):
    """Host ``values`` as an array of the library of ``other``, where that is."""
    if isinstance(other, np.ndarray):
        return values
    return sys.modules["torch"].as_tensor(values, device=other.device)


def column(values, tile):
    """Host ``values`` as a column of the tile's dtype, where the tile is."""
    if isinstance(tile, np.ndarray):
        return values[:, None].astype(tile.dtype, copy=False)
    torch = namespace(tile)
    if torch is _Lazy:
        return _lazy(values[:, None], tile, axis=0)
    return torch.as_tensor(values[:, None], dtype=tile.dtype, device=tile.device)


def finite_or_zero(values):
    """Return the values with 0 in place of infinities."""
    return np.where(np.isinf(values), 0.0, values)


def smallest(sq, k, limit):
    """Small entries of each row of a tile, on the host, padded with infinities.

    Parameters
    ----------
    sq : ndarray or tensor of shape (n_rows, n_cols)
    k : int
        How many are wanted; there may be more, and fewer where there are not so many
        below ``limit``.
    limit : ndarray of shape (n_rows,)
        Larger ones are not needed.

    Returns
    -------
    values : ndarray of shape (n_rows, n_found)
    cols : ndarray of int of shape (n_rows, n_found)
        Of the values; 0 for the padding.
    """
    if not isinstance(sq, np.ndarray):
        found = sq.topk(min(k, sq.shape[1]), dim=1, largest=False, sorted=False)
        return to_host(found.values), to_host(found.indices)
    limit = limit[:, None]
    if np.isinf(limit).any() and k < sq.shape[1]:
        limit = np.minimum(limit, np.partition(sq, k - 1, axis=1)[:, k - 1 : k])
    # few are left after the first tiles: picked out, not sorted out
    rows, cols = np.nonzero(sq <= limit)
    counts = np.bincount(rows, minlength=len(sq))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = np.full((len(sq), counts.max()), np.inf)
    found = np.zeros(values.shape, dtype=int)
    values[rows, place], found[rows, place] = sq[rows, cols], cols
    return values, found


def row_batches(n_rows, n_features, size=BLOCK_SIZE):
    """Slices of rows that hold about ``size`` elements each."""
    step = max(1, size // max(n_features, 1))
    return [slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step)]


class DeviceArray:
    """A tensor on a GPU. Indexing copies rows to the host; pickles hold all of them."""

    def __init__(self, tensor):
        self.tensor = tensor
        self.shape = tuple(tensor.shape)
        self.dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
        return to_host(self.tensor[rows])

    def __array__(self, dtype=None, copy=None):
        return to_host(self.tensor).astype(dtype or self.dtype, copy=False)

    def __reduce__(self):  # a machine without a GPU loads it too
        return np.array, (to_host(self.tensor),)

    def __deepcopy__(self, memo):
        return self  # nothing writes to it

    def blocks(self, *, columns=None):
        """Blocks of rows in float64, on the GPU, and which."""
        step = max(1, GPU_BLOCK_SIZE // self.shape[1])
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            yield self.tensor[rows, :columns].double(), rows


def local(X):
    """X as a numpy array, without a copy if it is on the host, or a ``DeviceArray``."""
    if isinstance(X, np.ndarray):
        return X
    X = detached(X)
    if _on_gpu(X):
        return DeviceArray(X)
    xp, _ = get_namespace(X)
    return _convert_to_numpy(X, xp)


def detached(X):
    """X itself, or the tensor without a record of how it came about.

    Raises
    ------
    TypeError
        If it is a sparse tensor.
    """
    if getattr(X, "is_sparse", False) is True:
        raise TypeError("Sparse tensors are not supported: pass X.to_dense().")
    return X.detach() if hasattr(X, "detach") else X


def _on_gpu(X):
    return getattr(getattr(X, "device", None), "type", None) == "cuda"


def like(result, X):
    """A numpy array as one of the library of X, where X is."""
    if X is None or isinstance(X, np.ndarray):
        return result
    xp, _, device = get_namespace_and_device(X)
    return result if xp.__name__.endswith("numpy") else xp.asarray(result, device=device)


def prototype(X):
    """An empty array of the library of X, where X is; None for numpy."""
    if isinstance(X, np.ndarray):
        return None
    xp, _, device = get_namespace_and_device(X)
    return xp.empty((0,), dtype=X.dtype, device=device)


def select(X, mask):
    """Rows of X, an array or a ``DeviceArray``."""
    if isinstance(X, np.ndarray):
        return X[mask]
    return DeviceArray(X.tensor[np.flatnonzero(mask)])
