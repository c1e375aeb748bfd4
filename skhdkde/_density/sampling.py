"""Random draws from a kernel density density."""

import numpy as np

from skhdkde._utils.arrays import row_batches
from skhdkde._utils.validation import whole_number


def draw(density, n_samples, rng):
    """Draw ``n_samples`` points: a training point, then a step from the kernel.

    The step's direction is uniform in the whitening of the point, its length the bandwidth,
    times the local scale, times a draw from the kernel's radial law ``r^(d-1) k(r)``.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), in the dtype of the points

    Raises
    ------
    ValueError
        If ``n_samples`` is no positive int.
    """
    n_samples = whole_number(n_samples, "n_samples")
    u = rng.uniform(size=n_samples)
    components = density.components
    n_points = np.array([component.points.shape[0] for component in components])
    weights = np.concatenate(
        [m.points.weight_block(slice(0, m.points.shape[0]), float) for m in components]
    )
    cumulative = np.cumsum(weights)
    rows = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    rows = np.minimum(rows, len(weights) - 1)
    n_features = components[0].points.shape[1]
    X = np.empty((n_samples, n_features), dtype=density.dtype)
    first = np.concatenate([[0], np.cumsum(n_points)])
    for part in row_batches(n_samples, n_features):
        shape = part.stop - part.start, n_features
        steps = random_steps(density.kernel, density.bandwidth, shape, rng)
        of_component = np.searchsorted(first, rows[part], side="right") - 1
        for c in np.unique(of_component):
            mine = of_component == c
            steps[mine] = components[c].displaced(rows[part][mine] - first[c], steps[mine])
        X[part] = steps
    return X


def random_steps(kernel, bandwidth, shape, rng):
    """Steps from the centre of a kernel, one in each row."""
    steps = rng.standard_normal(size=shape)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    radii = kernel.radii(shape[1], shape[0], rng)
    steps *= bandwidth * radii[:, None]
    return steps
