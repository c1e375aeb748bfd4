"""Training points made on a GPU, of a tensor that is there."""

from typing import Any

import numpy as np

from skhdkde._utils.arrays import DeviceArray, to_host
from skhdkde._utils.typing import FloatArray


def sums_on_gpu(X: DeviceArray, scale: float) -> tuple[FloatArray, float]:
    """Return the sum of the rows of ``X * scale``, on the host, and of all squares."""
    total, total_sq = np.zeros(X.shape[1]), 0.0
    for block, _ in X.blocks():
        block = block * scale  # not in place: it may be X itself
        total = total + to_host(block.sum(0))
        total_sq += float(block.square().sum())
    return total, total_sq


def prepare_on_gpu(X: DeviceArray, scale: float, center: FloatArray) -> tuple:
    """Return ``exact``, ``augmented`` and the largest ``|y|^2`` of TrainingPoints."""
    tensor = X.tensor
    augmented = tensor.new_empty((X.shape[0], X.shape[1] + 2))
    exact = augmented[:, :-2] if not center.any() else tensor.new_empty(X.shape)
    for block, rows in X.blocks():
        exact[rows] = (block * scale).to(tensor.dtype)
        augmented[rows] = augment(exact[rows], center).to(tensor.dtype)
    return DeviceArray(exact), DeviceArray(augmented), float(augmented[:, -2].max())


def augment(exact: Any, center: FloatArray) -> Any:
    """Return ``(y, |y|^2, 1)`` in float64, of ``exact - center`` in its own dtype."""
    import torch

    origin = torch.as_tensor(center, device=exact.device)
    y = (exact.double() - origin).to(exact.dtype).double()
    sq_norms = y.square().sum(1, keepdim=True)
    return torch.hstack([y, sq_norms, torch.ones_like(sq_norms)])
