"""Random draws from a kernel density."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.utils import check_scalar

from skhdkde._density.mixed import MixedDensity
from skhdkde._utils.arrays import row_batches


def check_n_samples(n_samples):
    """Return a number of samples; raise if it is not a positive int."""
    return int(check_scalar(n_samples, "n_samples", Integral, min_val=1))


def draw(density, n_samples, rng):
    """Draw points: a member of a mixture, a training point, a step from the kernel.

    The direction of the step is uniform in whitened coordinates, its length the
    bandwidth, times the local scale, times a draw from the radial law ``r^(d-1) k(r)``.

    Parameters
    ----------
    density : Density or MixedDensity
    n_samples : int
    rng : RandomState instance

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        In data units and the dtype of the training points.

    Raises
    ------
    TypeError, ValueError
        If ``n_samples`` is no int, or not positive.
    """
    n_samples = check_n_samples(n_samples)
    if isinstance(density, MixedDensity):
        X = density.draw(n_samples, rng, _draw)
    else:
        X = _draw(density, n_samples, rng)
    return with_constant(density, X, rng)


def _draw(density, n_samples, rng):
    """Draw points as :func:`draw` does, without constant features."""
    u = rng.uniform(size=n_samples)
    sizes = np.array([c.points.shape[0] for c in density.components])
    weights = np.concatenate([density.weights_of(c) for c in density.components])
    cumulative = np.cumsum(weights)
    rows = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    rows = np.minimum(rows, len(weights) - 1)
    X = np.empty((n_samples, density.n_features), dtype=density.dtype)
    first = np.concatenate([[0], np.cumsum(sizes)])
    for batch in row_batches(*X.shape):
        steps = random_steps(density.kernel, density.bandwidth, X[batch].shape, rng)
        drawn_from = np.searchsorted(first, rows[batch], side="right") - 1
        for c in np.unique(drawn_from):
            mine = drawn_from == c
            own_rows = rows[batch][mine] - first[c]
            steps[mine] = density.components[c].moved(own_rows, steps[mine])
        X[batch] = steps
    return X


def with_constant(density, X, rng):
    """Return random points with the constant features of a density, if it has any."""
    constant = density.constant
    if constant is None:
        return X if density.sphere is None else density.sphere.complete(X)
    shape = len(X), len(constant.values)
    one = constant.density
    steps = random_steps(one.kernel, one.bandwidth, (shape[0] * shape[1], 1), rng)
    return constant.complete(X, steps.reshape(shape))


def random_steps(kernel, bandwidth, shape, rng):
    """Return steps from the centre of a kernel, one a row, in the bandwidth's units."""
    steps = rng.standard_normal(size=shape)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    steps *= kernel.lengths(shape[1], bandwidth, shape[0], rng)[:, None]
    return steps
