"""Fresh data sets, and what a kernel density estimate does over them.

Direct sums in numpy over all squared distances; no code shared with the package.
"""

import numpy as np
from oracles import log_normalizer
from sklearn.base import clone

# units of the Gaussian threshold h_G at which error bars are checked
RATIOS = np.array([0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0])


def white(n_samples, n_features, rng):
    return rng.standard_normal((n_samples, n_features))


def mixture(n_samples, n_features, rng):
    """Five Gaussians of different place and size, the same in every call."""
    fixed = np.random.default_rng(5)
    means = fixed.standard_normal((5, n_features))
    scales = fixed.uniform(0.5, 1.5, size=5)
    label = rng.integers(5, size=n_samples)
    noise = rng.standard_normal((n_samples, n_features))
    return means[label] + scales[label, None] * noise


def sheet(n_samples, n_features, rng):
    """A curved sheet of five dimensions, with noise in all."""
    fixed = np.random.default_rng(6)
    along, across = fixed.standard_normal((2, 5, n_features))
    place = rng.uniform(-1.0, 1.0, size=(n_samples, 5))
    noise = rng.standard_normal((n_samples, n_features))
    return np.sin(place @ along) + np.cos(place @ across) + 0.1 * noise


def elongated(n_samples, n_features, rng):
    """Three Gaussians of different place and shape, the same in every call."""
    fixed = np.random.default_rng(5)
    mixing = 0.7 * fixed.standard_normal((3, n_features, n_features))
    mixing = mixing / np.sqrt(n_features) + 0.5 * np.eye(n_features)
    means = 2.0 * fixed.standard_normal((3, n_features))
    label = rng.integers(3, size=n_samples)
    noise = rng.standard_normal((n_samples, n_features))
    return means[label] + np.einsum("ni,nij->nj", noise, mixing[label])


def squared_distances(queries, points):
    sq = np.sum(queries**2, axis=1)[:, None] + np.sum(points**2, axis=1)
    sq -= 2.0 * queries @ points.T
    return np.maximum(sq, 0.0)


def log_density(sq, n_features, bandwidth, kernel="gaussian"):
    """From squared distances of shape (n_queries, n_points), shape (n_queries,)."""
    scaled = np.sqrt(sq) / bandwidth
    if kernel in ("gaussian", "exponential"):
        exponent = -0.5 * scaled**2 if kernel == "gaussian" else -scaled
        top = exponent.max(axis=1)
        total = np.log(np.mean(np.exp(exponent - top[:, None]), axis=1)) + top
    else:
        profile = {"tophat": 1.0 + 0.0 * scaled, "epanechnikov": 1.0 - scaled**2}[kernel]
        with np.errstate(divide="ignore"):
            total = np.log(np.mean(np.where(scaled < 1.0, profile, 0.0), axis=1))
    return total - log_normalizer(kernel, n_features) - n_features * np.log(bandwidth)


def fresh_log_densities(
    draw, queries, n_samples, bandwidths, n_sets, rng, kernel="gaussian"
):
    """Log densities over fresh data sets, (n_sets, n_bandwidths, n_queries)."""
    d = queries.shape[1]
    sets = []
    for _ in range(n_sets):
        sq = squared_distances(queries, draw(n_samples, d, rng))
        sets.append([log_density(sq, d, h, kernel) for h in bandwidths])
    return np.array(sets)


def spread(log_densities):
    """Standard deviation over the sets in which a point is in reach.

    NaN where that is less than half of them.
    """
    finite = np.isfinite(log_densities)
    count = finite.sum(axis=0)
    mean = np.where(finite, log_densities, 0.0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(finite, log_densities - mean, 0.0) ** 2
    enough = count >= max(2, len(log_densities) / 2)
    return np.sqrt(squares.sum(axis=0) / np.where(enough, count - 1, np.nan))


def structure_ratios(draw, n_features, n_samples, estimator, bandwidths, sizes, seed=1):
    """Error bar over measured spread of an estimator with a structure.

    Parameters
    ----------
    sizes : tuple of int
        Number of queries, of fresh data sets, and of those that have their error bars
        computed.

    Returns
    -------
    ratios, spreads : ndarray
        Of shapes (n_bandwidths, n_estimates, n_queries), (n_bandwidths, n_queries).
    """
    n_queries, n_sets, n_estimates = sizes
    rng = np.random.default_rng(seed)
    queries = draw(n_queries, n_features, rng)
    sets = [draw(n_samples, n_features, rng) for _ in range(n_sets)]
    ratios, spreads = [], []
    for h in bandwidths:
        fits = [clone(estimator).set_params(bandwidth=h).fit(points) for points in sets]
        truth = spread(np.array([fit.score_samples(queries) for fit in fits]))
        found = [fit.diagnose(queries).standard_error for fit in fits[:n_estimates]]
        ratios.append(found / truth)
        spreads.append(truth)
    return np.array(ratios), np.array(spreads)


def log_density_of_shrunken(queries, points, bandwidth, variance):
    """With the points shrunk to the origin so that the estimate keeps its variance."""
    shrinkage = np.sqrt(1.0 - bandwidth**2 / variance)
    sq = squared_distances(queries, shrinkage * points)
    return log_density(sq, queries.shape[1], bandwidth)
