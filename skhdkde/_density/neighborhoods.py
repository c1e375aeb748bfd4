"""Kernels with the covariance of the surroundings of their own training point.

The kernel of point ``y_j`` has the mean ``m_j`` and the covariance of its nearest
neighbours, of which the latter is shrunk to the mean of all,

    S_j = (1 - lam) C_j + lam C,    C = mean of all C_j + ridge I,

in standardised features. So it follows a curve or a sheet that the points lie on, and
``S_j >= lam C`` bounds how thin it may be. Its centre is ``m_j + a (y_j - m_j)``, in
which ``a`` is below 1 where variance is preserved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dtrtri

from skhdkde._density.covariance import RIDGE, standardizing
from skhdkde._density.whitening import LocalWhitened, Whitening
from skhdkde._pairwise import (
    MatrixPoints,
    Nearest,
    TrainingPoints,
    distinct_rows,
    reduce_pairs,
)
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.moments import Moments

# The default spec: so many neighbours, at least, and per feature; share of the mean.
FEWEST_NEIGHBORS, NEIGHBORS_PER_FEATURE, DEFAULT_SHRINKAGE = 20, 2, 0.3
# Beyond these there are too many matrices, of too many entries.
MOST_FEATURES, MOST_ENTRIES = 40, 2**27
# So many neighbours per feature are found at once where other specs may follow.
KEPT_PER_FEATURE = 4
# Elements of a block of points that stays in the cache.
SMALL_BLOCK_SIZE = 2**16
# Relative error of the squared distances by which neighbours are found.
NEIGHBOR_TOL = 1e-9


@dataclass(frozen=True)
class NeighborhoodSpec:
    """How covariances of neighbourhoods are made.

    Attributes
    ----------
    n_neighbors : int
        Number of distinct points that are neighbours of a point, without itself; at most
        all others.
    shrinkage : float
        Share of the mean covariance, in (0, 1].
    ridge : float
        Added to the variances of the mean covariance, of standardised features.
    """

    n_neighbors: int
    shrinkage: float
    ridge: float = RIDGE

    @classmethod
    def default(cls, n_features: int) -> NeighborhoodSpec:
        """Return what is used where nothing is chosen."""
        k = max(FEWEST_NEIGHBORS, NEIGHBORS_PER_FEATURE * n_features)
        return cls(k, DEFAULT_SHRINKAGE)


@dataclass(frozen=True)
class NeighborhoodPoints(LocalWhitened):
    """Training points with kernels of the shape of their neighbourhoods.

    The whitening is the standardisation of the features. Whitened units of the kernels,
    in which bandwidths are, are those of each point's own matrix.
    """

    whitening: Whitening
    rows: np.ndarray  # which of the training points they are: all of them
    Z: np.ndarray  # (n_points, n_features), standardised, float64
    weights: np.ndarray | None  # (n_points,), relative to the largest
    means: np.ndarray  # (n_points, n_features), of the neighbours, standardised
    roots: np.ndarray  # (n_points, n_features, n_features), R with R' R = S^-1
    log_dets: np.ndarray  # (n_points,), of the roots
    dtype: np.dtype  # of X
    spread: float = 1.0
    log_weights: np.ndarray | None = None

    @property
    def scales_differ(self):
        """Whether the points' densities are multiplied by different factors."""
        return True

    def log_scales(self):
        """Return logs of what each point's density is multiplied by, (n_points,)."""
        more = 0.0 if self.log_weights is None else self.log_weights
        return self.whitening.log_det + self.log_dets + more

    def precisions(self):
        """Return the diagonal of the precision matrix at ``h = 1``, (n_features,).

        It is the geometric mean over the points.
        """
        logs = np.zeros(self.n_features)
        for block in _blocks(len(self.Z), self.n_features**2):
            squares = np.einsum("jki,jki->ji", self.roots[block], self.roots[block])
            logs += np.log(squares).sum(axis=0)
        return np.exp(logs / len(self.Z)) * self.whitening.linear**2

    def as_float32(self):
        """Return the points as they are: distances to them are made in float64."""
        return self

    def points(self, shrinkage=1.0, scale=None, scaled_distance=(1.0, 0.0)):
        """Return the points ready for passes over pairs.

        Parameters
        ----------
        shrinkage : float, default=1.0
            Factor of a point's difference from the mean of its neighbours.
        scale : float, default=None
            Of the points; None to find it.
        scaled_distance : tuple, default=(1.0, 0.0)
            What ``Kernel.scaled_distance`` returned.
        """
        centers = self.Z
        if shrinkage != 1.0:
            centers = self.means + shrinkage * (self.Z - self.means)
        return MatrixPoints(
            centers,
            self.means,
            self.roots,
            self.dtype,
            self.weights,
            whitening=self.whitening,
            sq_factor=np.zeros(len(self.Z)) + scaled_distance[0],
            sq_offset=np.zeros(len(self.Z)) + scaled_distance[1],
            scale=scale,
        )


def too_many_matrices(n_points: int, n_features: int) -> bool:
    """Return whether there are too many matrices, or too large ones."""
    return n_features > MOST_FEATURES or n_points * n_features**2 > MOST_ENTRIES


def check_neighborhoods(n_points: int, n_features: int) -> None:
    """Raise ValueError if there are too many matrices, or too large ones."""
    entries = n_points * n_features**2
    if not too_many_matrices(n_points, n_features):
        return
    raise ValueError(
        "covariance_type='neighborhood' keeps a matrix for each point: with "
        f"{n_points} points and {n_features} features that vary these take "
        f"{entries / 2**27:.2g} GiB. It is for at most {MOST_FEATURES} features and "
        f"{MOST_ENTRIES / 2**27:.0f} GiB. covariance_type='local' has one matrix for "
        "each component of a mixture; 'auto' chooses their number."
    )


def fit_neighborhoods(X, weights, structure, options, *, fallback=None, reuse=None):
    """Return the training points with the covariances of their neighbourhoods.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
        Relative weights.
    structure : Structure
        Its ``neighborhood`` is a NeighborhoodSpec, or None for the default.
    options : ComputeOptions
    fallback : Whitening, default=None
        See :func:`~skhdkde._density.covariance.fit_whitenings`.
    reuse : dict, default=None
        Kept by the caller for these very points, weights and fallback: holds neighbours
        and covariances, for other specs.

    Returns
    -------
    NeighborhoodPoints
    """
    check_neighborhoods(*X.shape)
    spec = structure.neighborhood or NeighborhoodSpec.default(X.shape[1])
    if reuse is not None and "neighborhoods" in reuse:
        found = reuse["neighborhoods"]
    else:
        moments = Moments.of(X, weights)
        found = Neighborhoods(
            X, weights, standardizing(moments, fallback), moments.varies, options
        )
    if reuse is not None:
        reuse["neighborhoods"] = found
    means, roots, log_dets = found.shaped(spec, keep=reuse is not None)
    if len(found.group) != len(means):  # duplicates have one neighbourhood
        means, roots, log_dets = (a[found.group] for a in (means, roots, log_dets))
    everything = np.arange(len(X))
    return NeighborhoodPoints(
        found.standardization,
        everything,
        found.Z,
        weights,
        means,
        roots,
        log_dets,
        X.dtype,
    )


class Neighborhoods:
    """Neighbours of some points, and means and covariances of these.

    Rows that are equal are one point with their total weight.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
    standardization : Whitening
    varies : ndarray of bool of shape (n_features,)
        Which features do. The others have the variance of a standardised feature.
    options : ComputeOptions

    Attributes
    ----------
    Z : ndarray of shape (n_points, n_features)
        The points, standardised.
    group : ndarray of int of shape (n_points,)
        Which of the distinct points each is.
    """

    def __init__(self, X, weights, standardization, varies, options):
        self.standardization, self.options = standardization, options
        self.Z, self.constant = standardization.apply(X), np.flatnonzero(~varies)
        first, self.group = distinct_rows(TrainingPoints(self.Z))
        self.distinct = self.Z[first] if len(first) < len(X) else self.Z
        counted = np.ones(len(X)) if weights is None else weights
        self.weights = np.bincount(self.group, counted)
        self._neighbors = np.empty((len(first), 0), dtype=int)
        self._moments: dict = {}  # by number of neighbours

    def shaped(self, spec, keep):
        """Return means, roots of precision matrices and their log determinants.

        All are of distinct points. ``keep`` says whether covariances are kept.
        """
        k = max(min(spec.n_neighbors, len(self.distinct) - 1), 1)
        means, covariances = self._moments.get(k) or self._moments_of(k, keep)
        if keep:
            self._moments[k] = means, covariances
        shares = self.weights / self.weights.sum()
        pooled = np.tensordot(shares, covariances, axes=1)
        pooled[np.diag_indices(len(pooled))] += spec.ridge
        pooled[self.constant, self.constant] = 1.0
        roots = np.empty_like(covariances) if keep else covariances
        log_dets = np.empty(len(roots))
        for block in _blocks(len(roots), len(pooled) ** 2):
            own = (1.0 - spec.shrinkage) * covariances[block] + spec.shrinkage * pooled
            lower = np.linalg.cholesky(own)
            diagonal = np.diagonal(lower, axis1=1, axis2=2)
            log_dets[block] = -np.log(diagonal).sum(axis=1)
            roots[block] = [_inverse(root) for root in lower]
        return means, roots, log_dets

    def _moments_of(self, k, keep):
        """Return means and covariances of the ``k`` nearest neighbours."""
        n_points, n_features = self.distinct.shape
        neighbors = self._nearest(k, keep)
        means = np.empty((n_points, n_features))
        covariances = np.empty((n_points, n_features, n_features))
        for block in _blocks(n_points, max(k, n_features) * n_features):
            ids = neighbors[block]
            # about the point itself: clusters far from the mean cost no digits
            steps = self.distinct[ids] - self.distinct[block, None]
            shares = self.weights[ids]
            shares /= shares.sum(axis=1, keepdims=True)
            mean = np.matmul(shares[:, None], steps)
            means[block] = self.distinct[block] + mean[:, 0]
            steps -= mean
            steps *= np.sqrt(shares)[:, :, None]
            covariances[block] = np.matmul(steps.transpose(0, 2, 1), steps)
        covariances[:, self.constant] = 0.0
        covariances[:, :, self.constant] = 0.0
        covariances[:, self.constant, self.constant] = 1.0
        return means, covariances

    def _nearest(self, k, keep):
        """Return the ``k`` nearest distinct points of each, without itself."""
        wanted = k
        if self._neighbors.shape[1] >= k:
            return self._neighbors[:, :k]
        points = TrainingPoints(self.distinct)
        rows = np.arange(len(self.distinct))
        if keep:  # at once, for specs that follow
            k = max(k, min(KEPT_PER_FEATURE * points.shape[1], len(rows) - 1))
        found = reduce_pairs(
            Nearest(k, NEIGHBOR_TOL),
            points.rows_as_queries(rows),
            points,
            self.options,
            leave_out=rows,
        )
        neighbors = found[:, k:].astype(int)
        if keep:
            self._neighbors = neighbors
        return neighbors[:, :wanted]


def _inverse(lower):
    """Return the inverse of a lower triangular matrix."""
    return dtrtri(lower.T, lower=0)[0].T  # LAPACK has matrices by columns


def _blocks(n_points, size):
    """Return slices of points whose arrays, of this size each, stay in the cache."""
    return row_batches(n_points, size, SMALL_BLOCK_SIZE)
