"""Frames fitted to the data: one for all points, or one for each component.

Covariances are estimated on standardised features, so that units do not matter.
scikit-learn's estimators take no weights: with weights they get points drawn in
proportion.
"""

import numpy as np
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

from skhdkde._density.whitening import Whitening
from skhdkde._utils.arrays import row_batches

# Of the standardised features, added to the variances of a component.
RIDGE = 1e-3
# Least share of the identity: two points alone have a covariance of rank one.
LEAST_SHRINKAGE = 1e-8


class MixtureSpec:
    """A mixture of the default ladder, for standardised features."""

    def __init__(self, covariance_type, n_components):
        self.covariance_type, self.n_components = covariance_type, n_components

    def __repr__(self):
        return f"GaussianMixture({self.n_components}, {self.covariance_type!r})"

    def fit(self, Z, random_state):
        return GaussianMixture(
            self.n_components,
            covariance_type=self.covariance_type,
            reg_covar=RIDGE,
            random_state=random_state,
        ).fit(Z)


def fit_whitenings(X, weights, structure, random_state, *, fallback=None):
    """Frames of a structure, and the rows of X that belong to each.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
    structure : Structure
    random_state : int or RandomState instance
        For mixtures, and to draw points in proportion to weights.
    fallback : tuple of ndarray of shape (n_features,), default=None
        Of a search, in which X is a part of the training points: their mean and standard
        deviation, which serve for features that do not vary in X. A mixture that came
        fitted is then fitted again.

    Returns
    -------
    list of (Whitening, ndarray of int)
    """
    everything = np.arange(len(X))
    if structure.covariance_type == "spherical":
        return [(_spherical(X, weights), everything)]
    if structure.covariance_type == "local":
        mixture = structure.mixture
        return _local(X, weights, mixture, random_state, fallback)
    location, scale = standardization(X, weights, fallback)
    if structure.covariance_type == "diag":
        return [(Whitening(location, 1.0 / scale), everything)]
    Z = (X - location) / scale
    estimator = structure.covariance_estimator
    if estimator is None:
        shift, covariance = np.zeros(X.shape[1]), shrunk_covariance(Z, weights)
    else:
        sample = _in_proportion(Z, weights, random_state)
        shift, covariance = _estimated(estimator, sample)
    return [(make_whitening(location, scale, shift, covariance), everything)]


def shrunk_covariance(Z, weights=None):
    """Ledoit-Wolf estimate of the covariance matrix of centred points.

    ``(1 - s) C + s mu I`` with ``mu`` the mean variance and ``s = min(b, d) / d``,
    where ``d = |C - mu I|^2`` and ``b`` is the expected error of ``C`` (Ledoit and Wolf,
    2004, A well-conditioned estimator for large-dimensional covariance matrices). With
    weights, the sum of squared weights is the inverse of the number of points.
    """
    n_points = len(Z)
    shares = np.full(n_points, 1.0 / n_points) if weights is None else _shares(weights)
    covariance = (Z * shares[:, None]).T @ Z
    lengths = np.einsum("ij,ij->i", Z, Z)
    own = np.einsum("ij,ij->i", Z @ covariance, Z)
    size = np.sum(covariance**2)
    return shrunk(covariance, shares**2 @ (lengths**2 - 2.0 * own + size))


def shrunk(covariance, error):
    """The same from the sample's own, in place, and its expected squared error."""
    n_features = len(covariance)
    mu = np.trace(covariance) / n_features
    distance = np.sum(covariance**2) - n_features * mu**2
    share = min(error / distance, 1.0) if distance > 0.0 else 1.0
    share = max(share, LEAST_SHRINKAGE)
    covariance *= 1.0 - share
    covariance.flat[:: n_features + 1] += share * mu
    return covariance


def _spherical(X, weights):
    """Data units, about the mean: what variance is preserved about."""
    location, _ = _moments(X, weights)
    return Whitening(location, np.ones(X.shape[1]))


def _local(X, weights, mixture, random_state, fallback):
    """The whitenings of a mixture's components; each row goes with its likeliest one."""
    location, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    if isinstance(mixture, MixtureSpec):
        location, scale = standardization(X, weights, fallback)
    Z = (X - location) / scale
    if isinstance(mixture, MixtureSpec):
        fitted = mixture.fit(_in_proportion(Z, weights, random_state), random_state)
    elif fallback is not None or not hasattr(mixture, "means_"):
        sample = _in_proportion(Z, weights, random_state)
        fitted = _seeded(clone(mixture), random_state).fit(sample, None)
    else:
        fitted = mixture
    labels = fitted.predict(Z)
    whitenings = []
    for c in np.unique(labels):
        center = location + scale * fitted.means_[c]
        whitening = Whitening(center, _component(fitted, c, X.shape[1], scale))
        whitenings.append((whitening, np.flatnonzero(labels == c)))
    return whitenings


def _component(mixture, c, n_features, scale):
    precision = mixture.precisions_cholesky_
    if mixture.covariance_type == "tied":
        return precision / scale[:, None]
    if mixture.covariance_type == "full":
        return precision[c] / scale[:, None]
    return np.broadcast_to(precision[c], n_features) / scale


def _seeded(estimator, random_state):
    """Where it has no seed of its own."""
    if estimator.get_params().get("random_state", 0) is None:
        estimator.set_params(random_state=random_state)
    return estimator


def _estimated(estimator, Z):
    fitted = clone(estimator).fit(Z, None)
    location = getattr(fitted, "location_", np.zeros(Z.shape[1]))
    covariance = np.asarray(fitted.covariance_, dtype=np.float64)
    return np.ravel(location), covariance


def make_whitening(location, scale, shift, covariance):
    """Whitening in which points have this covariance matrix of the standardised features."""
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            "covariance_type='full' needs a covariance matrix that is positive definite; "
            "that of covariance_estimator is not, for the features of X. Shrink it, as "
            "the default does."
        ) from None
    whiten = np.linalg.inv(root).T / scale[:, None]
    return Whitening(location + scale * shift, whiten)


def standardization(X, weights, fallback=None):
    """Mean and standard deviation of each feature, or those of ``fallback`` if constant.

    Raises
    ------
    ValueError
        If a feature does not vary.
    """
    if len(X) == 1:
        raise ValueError("a covariance needs at least two points in X, got n_samples=1.")
    return scales(*_moments(X, weights), np.abs(X).max(axis=0), fallback)


def scales(location, variance, largest, fallback=None):
    """The same from mean, variance and largest absolute value of each feature."""
    size = np.maximum(np.abs(location), largest)
    constant = np.flatnonzero(~(variance > (1e-14 * size) ** 2))
    if len(constant) and fallback is not None:
        location[constant] = fallback[0][constant]
        variance[constant] = fallback[1][constant] ** 2
    elif len(constant):
        raise ValueError(
            f"a covariance needs features of X that vary; feature {constant[0]} is "
            f"constant ({len(constant)} of {len(size)} are). Leave out such features, "
            "or use covariance_type='spherical'."
        )
    return location, np.sqrt(variance)


def _moments(X, weights):
    """Mean and variance of each feature, float64."""
    shares = np.full(len(X), 1.0 / len(X)) if weights is None else _shares(weights)
    # about a point of the data: an offset does not cost digits
    origin = X[0].astype(np.float64)
    mean = origin + shares @ (X - origin)
    return mean, shares @ np.square(X - mean)


def _shares(weights):
    return weights / weights.sum()


def _in_proportion(Z, weights, random_state):
    if weights is None:
        return Z
    rng = check_random_state(random_state)
    return Z[rng.choice(len(Z), len(Z), p=_shares(weights))]


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
    blocks = row_batches(n_points, d)
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
    for rows in row_batches(*points.shape):
        block = (points.centered(rows) - mean) * np.sqrt(weights[rows])[:, None]
        product += block.T @ block
    return product
