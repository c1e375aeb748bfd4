"""Kernel sums over distances that are given, as those of listed or redrawn points are."""

import numpy as np

from skhdkde._kernels import Kernel
from skhdkde._utils.arrays import finite_or_zero


def relative_values(
    kernel: Kernel, bandwidth: float, sq: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel's values relative to that at the smallest distance, and its log.

    The squared distances ``sq``, of shape (..., n), have the smallest of the last axis
    first, and infinity for no point. They are overwritten. The log has shape (...).
    """
    energy = kernel.energy(sq.reshape(-1, sq.shape[-1]))
    lowest = finite_or_zero(energy[:, 0])
    shifted = kernel.shift(energy, lowest)
    with np.errstate(over="ignore"):
        values = kernel.values(shifted, bandwidth, shifted, lowest)
    log_peak = kernel.log_peak(lowest, np.array([bandwidth]))
    return values.reshape(sq.shape), log_peak.reshape(sq.shape[:-1])


def log_sums(
    kernel: Kernel, bandwidth: float, sq: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return ``log sum_j w_j k(r_j / h)`` over the last axis; see `relative_values`."""
    if sq.shape[-1] == 0:
        return np.full(sq.shape[:-1], -np.inf)
    values, log_peak = relative_values(kernel, bandwidth, sq)
    with np.errstate(divide="ignore"):
        return np.log(np.einsum("...j,...j->...", values, weights)) + log_peak
