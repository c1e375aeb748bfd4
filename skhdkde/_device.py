"""Arrays of other libraries, and training points that stay on a GPU.

With scikit-learn's ``array_api_dispatch``, X may be an array of another library.
Where it is on the host it is used in place, as a numpy array. A torch tensor on a GPU is
prepared there, and its rows come to the host only as they are asked for: those that are
queries, a block at a time, and those near a query that float32 does not resolve.
"""

import numpy as np
from sklearn.utils._array_api import (
    _convert_to_numpy,
    get_namespace,
    get_namespace_and_device,
)

from skhdkde._arrays import to_host

__all__ = [
    "DeviceArray",
    "detached",
    "like",
    "local",
    "prepare",
    "prototype",
    "select",
]

# Elements of a block that is worked on at once.
BLOCK_SIZE = 2**24


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
        step = max(1, BLOCK_SIZE // self.shape[1])
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


def largest_entry(X):
    return max(float(X.tensor.max()), -float(X.tensor.min()))


def sums(X, scale):
    """Sum of the rows of ``X * scale``, on the host, and of all squares."""
    total, total_sq = 0.0, 0.0
    for block, _ in X.blocks():
        block = block * scale  # not in place: it may be X itself
        total = total + to_host(block.sum(0))
        total_sq += float(block.square().sum())
    return total, total_sq


def prepare(X, scale, center):
    """``exact``, ``augmented``, largest ``|y|^2`` of a ``TrainingPoints``."""
    tensor = X.tensor
    augmented = tensor.new_empty((X.shape[0], X.shape[1] + 2))
    exact = augmented[:, :-2] if not center.any() else tensor.new_empty(X.shape)
    for block, rows in X.blocks():
        exact[rows] = (block * scale).to(tensor.dtype)
        augmented[rows] = augment(exact[rows], center).to(tensor.dtype)
    return DeviceArray(exact), DeviceArray(augmented), float(augmented[:, -2].max())


def augment(exact, center):
    """``(y, |y|^2, 1)`` of ``y = exact - center``, rounded as ``exact`` is; float64."""
    import torch

    center = torch.as_tensor(center, device=exact.device)
    y = (exact.double() - center).to(exact.dtype).double()
    sq_norms = y.square().sum(1, keepdim=True)
    return torch.hstack([y, sq_norms, torch.ones_like(sq_norms)])


def mean_square_spread(augmented, weights):
    """Weighted mean of ``|y - mean|^2``."""
    import torch

    if weights is None:
        weights = np.ones(len(augmented))
    weights = torch.as_tensor(weights / weights.sum(), device=augmented.tensor.device)
    blocks = augmented.blocks
    mean = sum(weights[rows] @ y for y, rows in blocks(columns=-2))
    return float(
        sum(weights[rows] @ (y - mean).square().sum(1) for y, rows in blocks(columns=-2))
    )


def project(exact, direction):
    """``exact @ direction``, equal for equal rows."""
    import torch

    direction = torch.as_tensor(direction, device=exact.tensor.device)
    parts = [to_host((block * direction).sum(1)) for block, _ in exact.blocks()]
    return np.concatenate(parts)


def contiguous(array, dtype):
    """The tensor in ``dtype``, a numpy one, and in one piece."""
    tensor = array.tensor
    return (tensor.double() if dtype == np.float64 else tensor.float()).contiguous()
