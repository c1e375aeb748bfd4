"""Training points that stay on a GPU."""

import numpy as np

from skhdkde._utils.arrays import DeviceArray, to_host


def largest_entry_on_gpu(X):
    return max(float(X.tensor.max()), -float(X.tensor.min()))


def sums_on_gpu(X, scale):
    """Sum of the rows of ``X * scale``, on the host, and of all squares."""
    total, total_sq = 0.0, 0.0
    for block, _ in X.blocks():
        block = block * scale  # not in place: it may be X itself
        total = total + to_host(block.sum(0))
        total_sq += float(block.square().sum())
    return total, total_sq


def prepare_on_gpu(X, scale, center):
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


def mean_square_spread_on_gpu(augmented, weights):
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


def project_on_gpu(exact, direction):
    """``exact @ direction``, equal for equal rows."""
    import torch

    direction = torch.as_tensor(direction, device=exact.tensor.device)
    parts = [to_host((block * direction).sum(1)) for block, _ in exact.blocks()]
    return np.concatenate(parts)


def contiguous_on_gpu(array, dtype):
    """The tensor in ``dtype``, a numpy one, and in one piece."""
    tensor = array.tensor
    return (tensor.double() if dtype == np.float64 else tensor.float()).contiguous()
