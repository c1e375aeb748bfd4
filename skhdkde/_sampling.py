"""Random draws from a kernel density estimate."""

import numpy as np

from skhdkde._points import row_blocks

__all__ = ["draw"]


def draw(points, kernel, bandwidth, n_samples, rng):
    """Draw ``n_samples`` points: a training point, then a step from the kernel.

    The step's direction is uniform, its length ``bandwidth`` times a draw from the
    kernel's radial law ``r^(d-1) k(r)``.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), in the dtype of the points
    """
    n_points, n_features = points.shape
    u = rng.uniform(size=n_samples)
    weights = np.ones(n_points) if points.weights is None else points.weights
    cumulative = np.cumsum(weights)
    rows = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    rows = np.minimum(rows, n_points - 1)
    X = np.empty((n_samples, n_features), dtype=points.dtype)
    for part in row_blocks(n_samples, n_features):
        n_rows = part.stop - part.start
        steps = rng.standard_normal(size=(n_rows, n_features))
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        steps *= bandwidth * kernel.radii(n_features, n_rows, rng)[:, None]
        steps += points.in_data_units(rows[part])
        X[part] = steps
    return X
