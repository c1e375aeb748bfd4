"""Eigenvalues of the covariance of the training points, shrunk for small samples."""

import numpy as np

from skhdkde._points import row_blocks

__all__ = ["covariance_spectrum", "shrunk_eigenvalues"]


def covariance_spectrum(points):
    """Ledoit-Wolf estimate of the eigenvalues of the covariance matrix, scaled units.

    With fewer points than features the sample's own are mostly zero, and spread too
    widely otherwise; Ledoit and Wolf (2004, A well-conditioned estimator for
    large-dimensional covariance matrices) pull them to their mean ``mu`` by the share
    ``min(b, d) / d``, where ``d = |S - mu I|^2`` and ``b`` is the expected error of the
    sample covariance ``S``. Here points may have weights. Of ``X' X`` and ``X X'`` the
    smaller is diagonalised.

    Parameters
    ----------
    points : TrainingPoints

    Returns
    -------
    eigenvalues : ndarray of shape (n_features,)
        Ascending.
    """
    n_points, d = points.shape
    weights = points.weight_block(slice(0, n_points), np.float64)
    weights /= weights.sum()
    blocks = row_blocks(n_points, d)
    mean = sum(weights[rows] @ points.centered(rows) for rows in blocks)
    small = _gram if n_points < d else _covariance
    product = small(points, mean, weights)
    size = np.sum(product**2)  # |S|^2, of either product
    own = np.zeros(n_points)  # y' S y, and |y|^2, of each point
    sq_norms = np.zeros(n_points)
    for rows in blocks:
        block = points.centered(rows) - mean
        sq_norms[rows] = np.sum(block**2, axis=1)
        if n_points >= d:
            own[rows] = np.einsum("ij,ij->i", block @ product, block)
    if n_points < d:
        own = np.sum(product**2, axis=1) / weights
    eigenvalues = np.zeros(d)
    eigenvalues[d - len(product) :] = np.maximum(np.linalg.eigvalsh(product), 0.0)
    error = np.sum(weights**2 * (sq_norms**2 - 2.0 * own + size))
    return shrunk_eigenvalues(eigenvalues, error)


def shrunk_eigenvalues(eigenvalues, error):
    """Eigenvalues pulled to their mean, by the expected error of the covariance."""
    mu = eigenvalues.mean()
    distance = np.sum((eigenvalues - mu) ** 2)
    share = min(error, distance) / distance if distance > 0.0 else 0.0
    return (1.0 - share) * eigenvalues + share * mu


def _gram(points, mean, weights):
    rows = (points.centered(slice(None)) - mean) * np.sqrt(weights)[:, None]
    return rows @ rows.T


def _covariance(points, mean, weights):
    product = np.zeros((points.shape[1], points.shape[1]))
    for rows in row_blocks(*points.shape):
        block = (points.centered(rows) - mean) * np.sqrt(weights[rows])[:, None]
        product += block.T @ block
    return product
