"""Training points in whitened coordinates, one set for each component of a structure."""

from __future__ import annotations

import numpy as np

from skhdkde._density.covariance import fit_whitenings
from skhdkde._density.neighborhoods import fit_neighborhoods
from skhdkde._density.projected import ProjectedWhitenedPoints
from skhdkde._density.whitened_points import WhitenedPoints, whitened

DEFAULT_NEIGHBOR = 5


def whiten_components(
    X,
    weights,
    structure,
    random_state,
    options,
    *,
    fallback=None,
    refit_mixture=False,
    reuse=None,
):
    """Return the training points of each component of a structure fitted to X.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
        Relative weights.
    structure : Structure
    random_state : int or RandomState instance
    options : ComputeOptions
    fallback, refit_mixture
        See :func:`~skhdkde._density.covariance.fit_whitenings`.
    reuse : dict, default=None
        Kept by the caller for one set of points: holds what other structures can use.

    Returns
    -------
    list of WhitenedPoints, or of one NeighborhoodPoints
    """
    options = options.labelled("neighbors")
    if structure.covariance_type == "neighborhood":
        points = fit_neighborhoods(
            X, weights, structure, options, fallback=fallback, reuse=reuse
        )
        return [points]
    whitenings = fit_whitenings(
        X,
        weights,
        structure,
        random_state,
        fallback=fallback,
        refit_mixture=refit_mixture,
    )
    projected = structure.on_sphere and not structure.plain
    kind, found = ProjectedWhitenedPoints if projected else WhitenedPoints, []
    for whitening, rows, membership in whitenings:
        Z = whitened(whitening, X[rows])
        own = None if weights is None else weights[rows]
        spread = 1.0
        if structure.covariance_type == "spherical":
            sq = np.einsum("ij,ij->i", Z, Z, dtype=np.float64)
            mean_sq = np.average(sq, weights=own)
            spread = float(np.sqrt(mean_sq / Z.shape[1]))
        points = kind(whitening, rows, Z, own, spread, membership=membership)
        if structure.adaptive:
            k = DEFAULT_NEIGHBOR if structure.adaptive is True else structure.adaptive
            points = points.adapted(k, options)
        found.append(points)
    return found
