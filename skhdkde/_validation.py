"""Checks of input that scikit-learn's own validation leaves out."""

import numpy as np
from sklearn.utils.validation import _check_sample_weight

__all__ = ["FLOATS", "check_n_jobs", "check_weights"]

# float32 stays float32; everything else becomes float64.
FLOATS = [np.float64, np.float32]


def check_weights(sample_weight, X):
    """``sample_weight`` as float64 of shape (n_samples,), or None.

    Raises
    ------
    ValueError
        If it has the wrong length, NaN, infinite or negative entries, or no positive one.
    """
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if weights.min() < 0.0:
        raise ValueError(
            f"sample_weight must not be negative, got {weights.min()!r} at index "
            f"{weights.argmin()}."
        )
    if not weights.max() > 0.0:
        raise ValueError("sample_weight must have a positive entry, all are 0.0.")
    return weights


def check_n_jobs(n_jobs):
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0: None is all cores, 1 is one thread.")
