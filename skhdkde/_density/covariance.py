"""Whitenings fitted to the data: one for all points, or one for each component.

Covariances are estimated on standardised features, so that units do not matter, and
shrunk as Ledoit and Wolf do (2004, A well-conditioned estimator for large-dimensional
covariance matrices). scikit-learn's estimators take no weights: with weights they get
points repeated in proportion, but for the sample covariance, which is computed here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import pairwise_distances_argmin
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

from skhdkde._density.whitening import Whitening
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.moments import Moments, Scatter, expected_squared_error
from skhdkde._utils.threads import one_thread_if, openmp_after_fork

# Of the standardised features, added to the variances of a component; and less, for
# features that follow from others.
RIDGE, SMALL_RIDGE = 1e-3, 1e-5
# Least share of the identity: two points alone have a covariance of rank one.
LEAST_SHRINKAGE = 1e-8
# Variance of a standardised feature that is rounding.
LEAST_VARIANCE = 1e-20
# Deviation from a multiple of the least weight, relative, that is rounding; number of
# repeated points, relative to that of points, up to which multiples are repeated.
LARGEST_FRACTION, MOST_REPEATED = 1e-9, 4
# Values of a table for which mixtures are fitted on one thread.
SMALL = 2**19


@dataclass(frozen=True)
class MixtureSpec:
    """A mixture of the default ladder, for standardised features."""

    covariance_type: str
    n_components: int
    ridge: float = RIDGE

    def __repr__(self):
        ridge = "" if self.ridge == RIDGE else f", reg_covar={self.ridge!r}"
        return f"GaussianMixture({self.n_components}, {self.covariance_type!r}{ridge})"

    def finer(self):
        """Return the mixture with a small ridge; None if it has, or has no use of it."""
        if self.covariance_type != "full" or self.ridge == SMALL_RIDGE:
            return None
        return MixtureSpec(self.covariance_type, self.n_components, SMALL_RIDGE)

    def fit(self, Z, random_state):
        """Return a mixture fitted to standardised points."""
        return GaussianMixture(
            self.n_components,
            covariance_type=self.covariance_type,
            reg_covar=self.ridge,
            random_state=random_state,
        ).fit(Z)


@dataclass(frozen=True)
class PooledSpec:
    """Clusters whose covariances are shrunk to the one that they have in common.

    They fill the gap between one full covariance, for which few points suffice, and one
    for each component, for which many are needed.
    """

    n_components: int

    def __repr__(self):
        return f"PooledCovariances({self.n_components})"

    def finer(self):
        """Return None: the common covariance has no ridge."""
        return None

    def fit(self, Z, random_state):
        """Return components fitted to standardised points."""
        return PooledComponents(Z, self.n_components, random_state)


class PooledComponents:
    """The clusters of k-means, with covariances shrunk to that within clusters.

    With ``n`` points in a cluster and ``d`` features the common one, as Ledoit and Wolf
    estimate it, has the share ``2 d / (2 d + n)``. Attributes and `predict` are as those
    of :class:`~sklearn.mixture.GaussianMixture`.
    """

    covariance_type = "full"

    def __init__(self, Z, n_components, random_state):
        n_components = min(n_components, len(np.unique(Z, axis=0)))
        clusters = KMeans(n_components, n_init=1, random_state=random_state).fit(Z)
        found, labels = np.unique(clusters.labels_, return_inverse=True)
        self._centers, n_features = clusters.cluster_centers_[found], Z.shape[1]
        means = [Z[labels == c].mean(axis=0) for c in range(len(found))]
        self.means_ = np.array(means)
        residuals = Z - self.means_[labels]
        pooled = shrunk_covariance(residuals)
        roots = []
        for c in range(len(found)):
            own = residuals[labels == c]
            share = 2.0 * n_features / (2.0 * n_features + len(own))
            covariance = (1.0 - share) * (own.T @ own) / len(own) + share * pooled
            roots.append(np.linalg.inv(np.linalg.cholesky(covariance)).T)
        self.precisions_cholesky_ = np.array(roots)

    def predict(self, Z):
        """Return the nearest component of each point."""
        return pairwise_distances_argmin(Z, self._centers)


@dataclass(frozen=True)
class Membership:
    """Which points belong to a component of a mixture."""

    standardization: Whitening  # to the features that the mixture is of
    mixture: Any  # with `predict`
    label: int

    @openmp_after_fork()
    @config_context(array_api_dispatch=False)
    def of(self, X):
        """Return the rows of X that belong to the component."""
        labels = self.mixture.predict(self.standardization.apply(X))
        return np.flatnonzero(labels == self.label)


@openmp_after_fork()
@config_context(array_api_dispatch=False)  # which mixtures do not work with
def fit_whitenings(
    X, weights, structure, random_state, *, fallback=None, refit_mixture=False
):
    """Return the whitenings of a structure, and the rows of X that belong to each.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
    structure : Structure
    random_state : int or RandomState instance
        For mixtures, and to repeat points in proportion to weights.
    fallback : Whitening, default=None
        Standardisation of all training points where X is a subset of them: it serves
        for features that do not vary in X.
    refit_mixture : bool, default=False
        Whether a mixture that came fitted is fitted again.

    Returns
    -------
    list of (Whitening, ndarray of int, Membership or None)
        The last says which points belong to a component of a mixture.
    """
    everything = np.arange(len(X)), None
    if structure.covariance_type == "local":
        mixture = structure.mixture
        with one_thread_if(X.size <= SMALL):
            return _fit_mixture(
                X, weights, mixture, random_state, fallback, refit_mixture
            )
    moments = Moments.of(X, weights)
    if structure.covariance_type == "spherical":
        return [(centering(moments), *everything)]
    standardization = standardizing(moments, fallback)
    if structure.covariance_type == "diag":
        return [(standardization, *everything)]
    Z = standardization.apply(X)
    if structure.covariance_estimator is None:
        center, covariance = np.zeros(X.shape[1]), shrunk_covariance(Z, weights)
    else:
        estimator = structure.covariance_estimator
        center, covariance = _estimated(estimator, Z, weights, random_state)
    return [(full_whitening(standardization, center, covariance), *everything)]


def centering(moments):
    """Return the whitening of data units about the mean."""
    return Whitening(moments.mean, np.ones(len(moments.mean)))


def standardizing(moments, fallback=None):
    """Return the whitening by the standard deviation of each feature.

    Parameters
    ----------
    moments : Moments
    fallback : Whitening, default=None
        Serves for features that do not vary; without it they have the median scale of
        the others.

    Raises
    ------
    ValueError
        If there is no ``fallback`` and no feature varies.
    """
    if moments.n_points == 1:
        raise ValueError("a covariance needs at least two points in X, got n_samples=1.")
    varies = moments.varies
    if varies.all():
        return Whitening(moments.mean, 1.0 / np.sqrt(moments.variance))
    own = 1.0 / np.sqrt(moments.variance[varies])
    if fallback is not None:
        center, linear = np.where(varies, moments.mean, fallback.center), fallback.linear
        linear = linear.copy()
    elif varies.any():
        center, linear = moments.mean, np.full(len(varies), np.median(own))
    else:
        raise ValueError(
            f"a covariance needs points in X that differ; all {moments.n_points} are "
            "equal. Use covariance_type='spherical'."
        )
    linear[varies] = own
    return Whitening(center, linear)


def full_whitening(standardization, center, covariance):
    """Return the whitening by a covariance matrix of the standardised features.

    Parameters
    ----------
    standardization : Whitening
    center : ndarray of shape (n_features,)
        Of the standardised features.
    covariance : ndarray of shape (n_features, n_features)

    Raises
    ------
    ValueError
        If the matrix is not positive definite.
    """
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            "covariance_type='full' needs a covariance matrix that is positive definite; "
            "that of covariance_estimator is not, for the features of X. Shrink it, as "
            "the default does."
        ) from None
    linear = np.linalg.inv(root).T * standardization.linear[:, None]
    return Whitening(standardization.invert(center), linear)


def shrunk_covariance(Z, weights=None):
    """Return the Ledoit-Wolf estimate of the covariance matrix of centred points."""
    return shrink(*Scatter.of(Z, weights).covariance())


def shrink(covariance, squared_error):
    """Shrink a sample covariance towards a multiple of the identity, in place.

    A feature that does not vary has the variance of a standardised one.

    Parameters
    ----------
    covariance : ndarray of shape (n_features, n_features)
        Of standardised features.
    squared_error : float
        Expected squared Frobenius error of `covariance`.
    """
    n_features = len(covariance)
    mean = np.trace(covariance) / n_features
    distance = np.sum(covariance**2) - n_features * mean**2
    share = max(_shrinkage(distance, squared_error), LEAST_SHRINKAGE)
    constant = np.diagonal(covariance) <= LEAST_VARIANCE
    covariance *= 1.0 - share
    covariance.flat[:: n_features + 1] += share * mean
    covariance[constant, constant] = 1.0
    return covariance


def shrunk_eigenvalues(eigenvalues, squared_error):
    """Return the eigenvalues of the shrunken covariance from those of the sample's."""
    mean = eigenvalues.mean()
    share = _shrinkage(np.sum((eigenvalues - mean) ** 2), squared_error)
    return (1.0 - share) * eigenvalues + share * mean


def _shrinkage(distance, squared_error):
    """Return the share of the identity, ``min(b, d) / d`` in Ledoit and Wolf's terms.

    ``d`` is the squared distance of the sample covariance to the identity times its mean
    eigenvalue, ``b`` its expected squared error.
    """
    return min(squared_error / distance, 1.0) if distance > 0.0 else 1.0


def covariance_spectrum(points):
    """Return the Ledoit-Wolf estimate of the eigenvalues of the covariance.

    With fewer points than features those of ``X' X`` are found from ``X X'``.

    Parameters
    ----------
    points : TrainingPoints

    Returns
    -------
    eigenvalues : ndarray of shape (n_features,)
        Ascending, in squared scaled units.
    """
    n_points, n_features = points.shape
    weights = points.weight_block(slice(0, n_points), np.float64)
    weights /= weights.sum()
    batches = row_batches(n_points, n_features)
    mean = sum(weights[rows] @ points.centered(rows) for rows in batches)
    eigenvalues = np.zeros(n_features)
    if n_points < n_features:
        centered = points.centered(slice(None)) - mean
        found, error = _gram_spectrum(centered * np.sqrt(weights)[:, None], weights)
        eigenvalues[n_features - n_points :] = found
        return shrunk_eigenvalues(eigenvalues, error)
    centered = ((points.centered(rows) - mean, weights[rows]) for rows in batches)
    scatters = (Scatter.of(Z, own) for Z, own in centered)
    return scatter_spectrum(functools.reduce(Scatter.merge, scatters))


def scatter_spectrum(scatter):
    """Return the Ledoit-Wolf estimate of the eigenvalues of the covariance, ascending."""
    covariance, error = scatter.covariance()
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    return shrunk_eigenvalues(eigenvalues, error)


def _gram_spectrum(roots, shares):
    """Return nonzero eigenvalues of ``R' R`` from ``R R'``, and its squared error.

    Parameters
    ----------
    roots : ndarray of shape (n_points, n_features)
        ``R``: centred points times the square roots of their shares of the weight.
    shares : ndarray of shape (n_points,)
    """
    gram = roots @ roots.T
    error = expected_squared_error(
        fourth=np.sum(np.diagonal(gram) ** 2),
        own=shares @ np.sum(gram**2, axis=1),
        size=np.sum(gram**2),
        total_sq=shares @ shares,
    )
    return np.maximum(np.linalg.eigvalsh(gram), 0.0), error


def _fit_mixture(X, weights, mixture, random_state, fallback, refit):
    """Return the whitenings of a mixture; each row goes with its likeliest component."""
    standardization = Whitening(np.zeros(X.shape[1]), np.ones(X.shape[1]))
    moments = Moments.of(X, weights)
    of_ladder = isinstance(mixture, MixtureSpec | PooledSpec)
    if of_ladder:
        standardization = standardizing(moments, fallback)
    Z = standardization.apply(X)
    if of_ladder:
        fitted = mixture.fit(_in_proportion(Z, weights, random_state), random_state)
    elif refit or not hasattr(mixture, "means_"):
        sample = _in_proportion(Z, weights, random_state)
        fitted = _seeded(clone(mixture), random_state).fit(sample, None)
    else:
        fitted = mixture
    labels, constant, found = fitted.predict(Z), ~moments.varies, []
    for c in np.unique(labels):
        linear = _precision_root(fitted, c, X.shape[1])
        scale = standardization.linear
        linear = linear * (scale if linear.ndim == 1 else scale[:, None])
        if constant.any():
            typical = standardizing(moments, fallback).linear[constant]
            at = constant if linear.ndim == 1 else (constant, constant)
            linear[at] = typical
        center = standardization.invert(fitted.means_[c])
        own = np.flatnonzero(labels == c), Membership(standardization, fitted, c)
        found.append((Whitening(center, linear), *own))
    return found


def _precision_root(mixture, c, n_features):
    """Return the root of the precision matrix of component ``c``, or its diagonal."""
    roots = mixture.precisions_cholesky_
    if mixture.covariance_type == "tied":
        return roots
    if mixture.covariance_type == "full":
        return roots[c]
    return np.broadcast_to(roots[c], n_features)


def _seeded(estimator, random_state):
    """Return the estimator with a random state where it has none of its own."""
    if estimator.get_params().get("random_state", 0) is None:
        estimator.set_params(random_state=random_state)
    return estimator


def _estimated(estimator, Z, weights, random_state):
    """Return location and covariance of standardised points by scikit-learn's estimator.

    The sample covariance is a weighted mean, for which no points need to be repeated.
    """
    if weights is not None and type(estimator) is EmpiricalCovariance:
        location = np.zeros(Z.shape[1])
        covariance, _ = Scatter.of(Z, weights).covariance()
    else:
        sample = _in_proportion(Z, weights, random_state)
        fitted = clone(estimator).fit(sample, None)
        location = getattr(fitted, "location_", np.zeros(Z.shape[1]))
        covariance = np.array(fitted.covariance_, dtype=np.float64)
    constant = Z.var(axis=0) <= LEAST_VARIANCE
    covariance[constant], covariance[:, constant] = 0.0, 0.0
    covariance[constant, constant] = 1.0
    return np.ravel(location), covariance


def _in_proportion(Z, weights, random_state):
    """Return points repeated in proportion to their weights.

    Where all weights are multiples of the least, each point is there as often as that
    says. Else there are as many points as before, drawn systematically: the count of
    each is its share, rounded up or down.
    """
    if weights is None:
        return Z
    counts = np.rint(weights / weights.min())
    multiples = np.abs(weights / weights.min() - counts) <= LARGEST_FRACTION * counts
    if not (multiples.all() and counts.sum() <= MOST_REPEATED * len(Z)):
        start = check_random_state(random_state).uniform()
        ends = np.cumsum(weights)
        marks = (start + np.arange(len(Z))) * (ends[-1] / len(Z))
        rows = np.searchsorted(ends, marks, side="right")
        return Z[np.minimum(rows, len(Z) - 1)]
    return np.repeat(Z, counts.astype(int), axis=0)
