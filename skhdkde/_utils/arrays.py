"""Small functions of arrays: numpy's, torch's, and lazy tensors of KeOps.

Kernels and reductions work in place on tiles, which are numpy arrays or torch tensors.
Kernels also take lazy tensors, which are formulas over all pairs. Small arrays, one
number or a few for each query, are numpy's, or beside the tile that they go with.

With scikit-learn's ``array_api_dispatch``, X may be an array of another library. Where it
is on the host it is used in place, as a numpy array. A torch tensor on a GPU stays there,
as a ``DeviceArray``, and its rows come to the host only as they are asked for: those that
are queries, a block at a time, and those near a query that float32 does not resolve.
"""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.utils._array_api import (
    _convert_to_numpy,
    get_namespace,
    get_namespace_and_device,
)

from skhdkde._utils.typing import AnyTile, FloatArray

# Elements of a block made on the fly (8 MiB of float64), and of one on a GPU.
BLOCK_SIZE = 2**20
GPU_BLOCK_SIZE = 2**24
# Relative, of a sum of weights.
ROUNDING = 1e-12
# Names of dtypes that float32 holds, without that of their library.
NARROW = {"float32", "float16", "bfloat16"}

# The functions of numpy that kernels use, for lazy tensors of KeOps. These cannot be
# changed in place: ``out`` is ignored, and the result is to be used.
_lazy_functions = SimpleNamespace(
    finfo=np.finfo,
    subtract=lambda x, y, out=None: x - y,
    multiply=lambda x, y, out=None: x * y,
    exp=lambda x, out=None: x.exp(),
    log=lambda x, out=None: x.log(),
    sin=lambda x, out=None: x.sin(),
    sqrt=lambda x, out=None: x.sqrt(),
    abs=lambda x, out=None: x.abs(),
    less=lambda x, y, out=None: x < y,
    sign=lambda x: x.sign(),
    clip=lambda x, low, high, out=None: (x - low).relu() + low,
    zeros_like=lambda x: number(0.0, x),
    where=lambda condition, x, y: (condition - 0.5).ifelse(x, y),
)


def namespace(tile: AnyTile) -> Any:
    """Return numpy or torch, whichever the tile belongs to, or what stands for KeOps."""
    if isinstance(tile, np.ndarray):
        return np
    return sys.modules["torch"] if hasattr(tile, "device") else _lazy_functions


def to_host(array: AnyTile) -> np.ndarray:
    """Return an array or tensor as a numpy array; numpy arrays as they are."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def number(value: Any, tile: AnyTile) -> Any:
    """Return a number for a tile; for a lazy tensor maybe several, in its last axis."""
    if namespace(tile) is _lazy_functions:
        return _lazy(np.atleast_1d(value), tile, axis=2)
    return float(value)


def column(values: FloatArray, tile: AnyTile) -> AnyTile:
    """Return values, one a row, as a column of the tile's dtype, where the tile is."""
    if isinstance(tile, np.ndarray):
        return values[:, None].astype(tile.dtype, copy=False)
    if namespace(tile) is _lazy_functions:
        return _lazy(values[:, None], tile, axis=0)
    return in_dtype_of(tile, beside(values, tile)[:, None])


def _lazy(values, tile, axis):
    """Return a lazy tensor like ``tile``: on axis 0 over queries, on 2 over neither."""
    other = next(variable for variable in tile.variables if hasattr(variable, "shape"))
    return type(tile)(beside(values.astype(tile.dtype), other), axis=axis)


def beside(values: AnyTile, other: AnyTile) -> AnyTile:
    """Return ``values`` as an array of the library of ``other``, where that is.

    Those that are on a device already stay there. A GPU need not be idle for it.
    """
    if isinstance(other, np.ndarray) or not isinstance(values, np.ndarray):
        return values
    return as_tensor(values).to(other.device, non_blocking=True)


def as_tensor(array: np.ndarray) -> AnyTile:
    """Return an array as a tensor of torch, on the host; in place if torch can do so."""
    swapped, forward = not array.dtype.isnative, all(s >= 0 for s in array.strides)
    if swapped or not forward or not array.flags.writeable:
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return sys.modules["torch"].from_numpy(array)


def widened(array: AnyTile) -> AnyTile:
    """Return an array in float64, where it is."""
    if isinstance(array, np.ndarray):
        return array.astype(np.float64, copy=False)
    return array.double()


def in_dtype_of(tile: AnyTile, array: AnyTile) -> AnyTile:
    """Return an array in the dtype of a tile."""
    if isinstance(array, np.ndarray):
        return array.astype(tile.dtype, copy=False)
    return array.to(tile.dtype)


def finite_or_zero(values: AnyTile) -> AnyTile:
    """Return the values with 0 in place of infinities."""
    xp = namespace(values)
    return xp.where(xp.isinf(values), 0.0, values)


def clipped(array: AnyTile, low: float, high: float = np.inf) -> AnyTile:
    """Return an array with entries between two numbers; of few, faster than ``clip``."""
    if isinstance(array, np.ndarray):
        return np.minimum(np.maximum(array, low), high)
    return array.clip(low, high)


def sorted_rows(array: AnyTile) -> AnyTile:
    """Return an array with each row ascending."""
    return np.sort(array, axis=1) if namespace(array) is np else array.sort(1).values


def running_max(array: AnyTile) -> AnyTile:
    """Return the largest entry of each row so far."""
    if namespace(array) is np:
        return np.maximum.accumulate(array, axis=1)
    return array.cummax(1).values


def kth_smallest(array: AnyTile, k: int) -> AnyTile:
    """Return the ``k``-th smallest entry of each row, from ``k = 1`` on."""
    if namespace(array) is np:
        return np.partition(array, k - 1, axis=1)[:, k - 1]
    return array.kthvalue(k, 1).values


def first_by_row(keys: AnyTile, k: int, *others: AnyTile) -> tuple:
    """Return the ``k`` smallest keys of each row, ascending, and what goes with them.

    Of equal ones the first comes first.
    """
    xp = namespace(keys)
    if xp is np:
        order = np.argsort(keys, axis=1, kind="stable")[:, :k]
        return tuple(np.take_along_axis(array, order, 1) for array in (keys, *others))
    order = xp.argsort(keys, dim=1, stable=True)[:, :k]
    return tuple(xp.take_along_dim(array, order, 1) for array in (keys, *others))


def subtract_at(array: AnyTile, rows: AnyTile, values: AnyTile) -> None:
    """Subtract ``values`` from ``rows`` of an array, which may be named repeatedly."""
    if namespace(array) is np:
        np.subtract.at(array, rows, values)
    else:
        array.index_put_((rows,), -values, accumulate=True)


def smallest(sq: AnyTile, k: int, limit: AnyTile) -> tuple[AnyTile, AnyTile]:
    """Return the smallest entries of each row of a tile, and their columns.

    ``k`` are wanted: there may be more, and fewer where there are not so many up to
    ``limit``, of shape (n_rows,). Rows are padded with infinities in column 0.
    """
    if not isinstance(sq, np.ndarray):
        found = sq.topk(min(k, sq.shape[1]), dim=1, largest=False, sorted=False)
        return found.values, found.indices
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


def slices(stop: int, step: int, start: int = 0) -> list[slice]:
    """Return slices of length ``step``, the last maybe shorter, from start to stop."""
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]


def row_batches(n_rows: int, n_features: int, size: int = BLOCK_SIZE) -> list[slice]:
    """Return slices of rows that hold about ``size`` elements each."""
    return slices(n_rows, max(1, size // max(n_features, 1)))


def unit_rows(X: FloatArray) -> FloatArray:
    """Return rows divided by their norms."""
    return X / np.sqrt(np.einsum("ij,ij->i", X, X))[:, None]


def tangent(vectors: FloatArray, X: FloatArray) -> FloatArray:
    """Return vectors without their components along unit vectors, row by row."""
    for _ in range(2):  # what rounding leaves may be more than the rest
        vectors = vectors - np.einsum("ij,ij->i", vectors, X)[:, None] * X
    return vectors


def weighted_mean(values: FloatArray, weights: FloatArray) -> tuple:
    """Return the weighted mean of the rows of ``values`` and its standard error.

    Where a value is -inf the mean is too, and the standard error NaN.
    """
    shares = weights[:, None] / weights.sum()
    mean = np.sum(shares * values, axis=0)
    with np.errstate(invalid="ignore"):
        variance = np.sum((shares * (values - mean)) ** 2, axis=0)
    return mean, np.sqrt(variance)


def weighted_quantile(values: FloatArray, weights: FloatArray, levels: Any) -> FloatArray:
    """Return the least values that shares ``levels`` of the weight are not above."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    # a share that is the level up to rounding is enough
    wanted = np.asarray(levels) * cumulative[-1] * (1.0 - ROUNDING)
    place = np.searchsorted(cumulative, wanted, side="left")
    return values[order][np.minimum(place, len(values) - 1)]


class DeviceArray:
    """A tensor on a GPU. Indexing copies rows to the host; pickles hold all of them."""

    def __init__(self, tensor: Any):
        self.tensor = tensor
        self.shape: tuple[int, int] = tuple(tensor.shape)
        self.dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
        return to_host(self.tensor[rows])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return to_host(self.tensor).astype(dtype or self.dtype, copy=copy is True)

    def __reduce__(self):  # a machine without a GPU loads it too
        return np.array, (to_host(self.tensor),)

    def __deepcopy__(self, memo):
        return self  # nothing writes to it

    def blocks(self, *, columns: int | None = None) -> Iterator[tuple[Any, slice]]:
        """Yield blocks of rows in float64, on the GPU, and which rows they are."""
        for rows in row_batches(*self.shape, GPU_BLOCK_SIZE):
            yield self.tensor[rows, :columns].double(), rows


def local(X: Any) -> Any:
    """Return X as a numpy array, not copied if on the host, or as a ``DeviceArray``."""
    if isinstance(X, np.ndarray):
        return X
    X = detached(X)
    if _on_gpu(X):
        return DeviceArray(X)
    xp, _ = get_namespace(X)
    return _convert_to_numpy(X, xp)


def detached(X: Any) -> Any:
    """Return X, without a record of how it came about if it is a tensor.

    Tensors of half precision are widened: numpy has no bfloat16. Sparse tensors are
    refused, and what has no values yet.
    """
    if type(X).__name__ == "LazyFrame":  # of polars
        raise TypeError("a LazyFrame has no values yet: call collect() on it.")
    if getattr(X, "is_sparse", False) is True:
        raise TypeError("Sparse tensors are not supported: pass X.to_dense().")
    if not hasattr(X, "detach"):
        return X
    X = X.detach()
    return X.float() if is_narrow(X) else X


def is_narrow(X: Any) -> bool:
    """Return whether X, an array or a data frame, has float32 or half precision only."""
    dtypes = getattr(X, "dtypes", None)  # of a data frame
    dtypes = [getattr(X, "dtype", None)] if dtypes is None else list(dtypes)
    return {str(dtype).rpartition(".")[2].lower() for dtype in dtypes} <= NARROW


def _on_gpu(X):
    """Return whether X is a tensor on a GPU."""
    return getattr(getattr(X, "device", None), "type", None) == "cuda"


def like(result: np.ndarray, X: Any) -> Any:
    """Return a numpy array as one of the library of X, where X is."""
    if X is None or isinstance(X, np.ndarray):
        return result
    xp, _, device = get_namespace_and_device(X)
    return result if xp.__name__.endswith("numpy") else xp.asarray(result, device=device)


def prototype(X: Any) -> Any:
    """Return an empty array of the library of X, where X is; None for numpy."""
    if isinstance(X, np.ndarray):
        return None
    xp, _, device = get_namespace_and_device(X)
    return xp.empty((0,), dtype=X.dtype, device=device)


def has_missing(X: Any) -> bool:
    """Return whether there is NaN in X, an array or a ``DeviceArray``."""
    if not isinstance(X, np.ndarray):
        return bool(X.tensor.isnan().any())
    if has_finite_sum(X):
        return False
    return any(np.isnan(X[rows]).any() for rows in row_batches(*X.shape))


def has_finite_sum(X: np.ndarray) -> bool:
    """Return whether the sum of all entries is finite: then all of them are."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(X.sum()))


def select(X: Any, mask: np.ndarray) -> Any:
    """Return the rows of X where ``mask`` is true, as an array or a ``DeviceArray``."""
    if isinstance(X, np.ndarray):
        return X[mask]
    return DeviceArray(X.tensor[np.flatnonzero(mask)])
