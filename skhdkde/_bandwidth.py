"""Bandwidth rules."""

import functools
import sys
import warnings
from numbers import Integral

import numpy as np
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skhdkde._backends import BACKENDS, resolve_backend
from skhdkde._device import local, select
from skhdkde._kernels import KERNELS
from skhdkde._points import TrainingPoints, distinct_rows
from skhdkde._search import LeaveOneOut, search_bandwidth
from skhdkde._spectrum import covariance_spectrum
from skhdkde._validation import check_bandwidth, check_n_jobs, check_points, check_weights
from skhdkde.regimes import gaussian_thresholds

__all__ = [
    "N_BANDWIDTHS",
    "N_QUERIES",
    "REFERENCE_RULES",
    "RULES",
    "bandwidth_by_rule",
    "distinct_points",
    "leave_one_out",
    "levels_to_caller",
    "queried_bandwidth",
    "reference_bandwidth",
    "select_bandwidth",
    "warn_of_copies",
]

RULES = ("kl", "nearest", "gaussian", "scott", "silverman")
REFERENCE_RULES = RULES[2:]  # from moments; the others compare points
N_BANDWIDTHS = 32
N_QUERIES = 4096


@validate_params(
    {
        "rule": [StrOptions(set(RULES))],
        "kernel": [StrOptions(set(KERNELS))],
        "n_queries": [Interval(Integral, 2, None, closed="left")],
        "bandwidths": [Interval(Integral, 3, None, closed="left"), "array-like"],
        "random_state": ["random_state"],
        "backend": [StrOptions(set(BACKENDS))],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "return_search": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def select_bandwidth(
    X,
    *,
    rule="kl",
    kernel="gaussian",
    sample_weight=None,
    n_queries=N_QUERIES,
    bandwidths=N_BANDWIDTHS,
    random_state=None,
    backend="auto",
    n_jobs=None,
    verbose=0,
    return_search=False,
):
    """Choose a bandwidth from the data.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Training points.

    rule : {"kl", "nearest", "gaussian", "scott", "silverman"}, default="kl"
        - "kl" maximises the mean leave-one-out log density, which is the estimate's
          Kullback-Leibler divergence from the true density up to sign and a constant.
          For the Gaussian kernel the result solves ``h^2 = mean_i sum_j w_ij
          |x_i - x_j|^2 / n_features``, ``w_ij`` being the share of point ``j`` in the
          density at point ``i``.
        - "nearest": ``h^2`` is the mean squared distance to the nearest other point
          divided by ``n_features``, what "kl" tends to in high dimension [1]_.
        - "gaussian": the ``h_kl`` of :func:`~skhdkde.regimes.gaussian_thresholds`: best
          for normal data of the same covariance (Ledoit-Wolf estimate) in high dimension;
          too small in few. It takes the eigenvalues of a matrix of size min(n_samples,
          n_features).
        - "scott", "silverman": the normal reference rules ``s n^(-1/(d+4))`` and
          ``s (n (d+2)/4)^(-1/(d+4))`` with ``s^2`` the mean variance of the features and
          ``n`` the effective number of points, ``sum(w)^2 / sum(w^2)``. Unlike
          scikit-learn's, they use the scale of the data.

        For a kernel other than the Gaussian all but "kl" are divided by the standard
        deviation per coordinate of the kernel, so that all kernels smooth alike.

    kernel : {"gaussian", "tophat", "epanechnikov", "exponential", "linear", \
            "cosine"}, default="gaussian"
        The kernel for which the bandwidth is.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights.

    n_queries : int, default=4096
        "kl" and "nearest" average over at most this many of the training points, drawn
        at random. Each is compared to all training points.

    bandwidths : int or array-like, default=32
        For "kl": the number of bandwidths of the first grid, chosen around "nearest", or
        a grid of one's own in data units. Of a grid of one's own the best is refined
        between its neighbours, for kernels without compact support; beyond the ends it
        is not sought, and a warning says so.

    random_state : int, RandomState instance or None, default=None
        Draws the queries when there are more than ``n_queries`` training points.

    backend : {"auto", "numpy", "keops", "torch"}, default="auto"
        What visits the pairs; see :class:`HighDimKernelDensity`.

    n_jobs : int, default=None
        Number of threads; None for as many as the BLAS would use.

    verbose : int, default=0
        Whether to show a progress bar.

    return_search : bool, default=False
        Whether to return the curve of "kl" too.

    Returns
    -------
    bandwidth : float
        In data units.

    search : BandwidthSearch or None
        Only if ``return_search``. The bandwidths tried and their mean leave-one-out log
        densities; None for rules that do not search.

    Raises
    ------
    ValueError
        If X has fewer than two distinct points, or no bandwidth of the grid leaves a
        point in reach of every query.

    See Also
    --------
    HighDimKernelDensity : Has these rules, and shapes of kernel, as parameters.
    BandwidthDisplay : Draws the curve of "kl".
    regimes.gaussian_thresholds : The theory behind "gaussian".

    Notes
    -----
    Exact copies of a point make the leave-one-out likelihood unbounded as ``h -> 0``.
    "kl" and "nearest" treat copies as one point with their total weight, which is left
    out as a whole, and warn.

    References
    ----------
    .. [1] G. Biroli and M. Mézard, "Kernel Density Estimators in Large Dimensions",
       arXiv:2408.05807.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import select_bandwidth
    >>> X = np.random.default_rng(0).normal(size=(1000, 50))
    >>> round(select_bandwidth(X), 3)
    1.042
    >>> round(select_bandwidth(X, rule="nearest"), 3)
    1.025
    >>> round(select_bandwidth(X, rule="silverman"), 3)
    0.84
    """
    check_n_jobs(n_jobs)
    X = local(check_points(X))
    backend = resolve_backend(backend, X.shape[1], not isinstance(X, np.ndarray))
    weights = check_weights(sample_weight, X)
    if not isinstance(bandwidths, Integral):
        bandwidths = check_array(
            bandwidths, dtype=np.float64, ensure_2d=False, input_name="bandwidths"
        ).ravel()
        if not (bandwidths > 0).all():
            raise ValueError(f"bandwidths must be > 0, got {float(bandwidths.min())!r}.")
    if weights is not None:
        X, weights = select(X, weights > 0), weights[weights > 0]
    points = TrainingPoints(X, weights)
    if not isinstance(bandwidths, Integral):
        for bandwidth in bandwidths:
            check_bandwidth(bandwidth, points)
    bandwidth, search = bandwidth_by_rule(
        points,
        rule,
        KERNELS[kernel],
        parameter="rule",
        n_queries=n_queries,
        bandwidths=bandwidths,
        random_state=random_state,
        backend=backend,
        n_jobs=n_jobs,
        verbose=verbose,
    )
    return (bandwidth, search) if return_search else bandwidth


def bandwidth_by_rule(
    points,
    rule,
    kernel,
    *,
    parameter="bandwidth",
    n_queries=N_QUERIES,
    bandwidths=N_BANDWIDTHS,
    random_state=None,
    **engine,
):
    """Bandwidth of ``rule`` for prepared points, and the search if it made one.

    The parameters are those of :func:`select_bandwidth`, and what messages call the rule;
    ``engine`` goes to :func:`~skhdkde._backends.reduce_pairs`.
    """
    if rule in REFERENCE_RULES:
        spectrum = functools.partial(covariance_spectrum, points)
        return reference_bandwidth(points, rule, kernel, parameter, spectrum), None
    queries, n_copies = leave_one_out(points, kernel, n_queries, random_state, **engine)
    return queried_bandwidth(queries, rule, parameter, bandwidths, n_copies)


def reference_bandwidth(points, rule, kernel, parameter, spectrum):
    """Bandwidth of a rule that needs no pairs.

    ``spectrum`` returns the eigenvalues of the covariance, in scaled units.
    """
    if not points.mean_square_spread() > 0.0:
        raise _too_few(points.shape[0], rule, parameter)
    if rule == "gaussian":
        return _gaussian_theory(points, kernel, spectrum())
    return _normal_reference(points, rule, kernel)


def queried_bandwidth(queries, rule, parameter, bandwidths, n_copies):
    """Bandwidth of a rule that compares points, and the search if it made one."""
    n_distinct = queries.points.shape[0]
    if n_distinct < 2:
        raise _too_few(n_distinct + n_copies, rule, parameter)
    if n_copies:
        warn_of_copies(n_distinct + n_copies, n_copies, rule, parameter)
    if rule == "nearest":
        return queries.nearest_rule() / queries.points.scale, None
    search = search_bandwidth(queries, bandwidths, n_copies)
    return search.bandwidth, search


def leave_one_out(points, kernel, n_queries, random_state, **engine):
    """Distinct training points as queries, at most ``n_queries``; number of copies."""
    distinct, n_copies, index = distinct_points(points)
    queries = LeaveOneOut(distinct, kernel, n_queries, random_state, index, **engine)
    return queries, n_copies


def _normal_reference(points, rule, kernel):
    """Scott's and Silverman's rules times the scale of the data.

    The scale is the root mean variance of the features, the number of points is
    Kish's effective one, and a kernel other than the Gaussian gets the bandwidth at
    which it has the variance of the Gaussian.
    """
    d = points.shape[1]
    n_points = points.effective_number()
    scale = np.sqrt(points.mean_square_spread() / d) / points.scale
    base = n_points if rule == "scott" else n_points * (d + 2) / 4.0
    return float(scale * base ** (-1.0 / (d + 4)) / np.sqrt(kernel.variance(d)))


def _gaussian_theory(points, kernel, spectrum):
    """The KL-optimal bandwidth of Gaussian data with the covariance of the points."""
    n_points = max(points.effective_number(), 1.0 + 1e-9)  # one weight may be all
    theory = gaussian_thresholds(n_points, spectrum)
    h_kl = theory.h_kl / np.sqrt(kernel.variance(points.shape[1]))
    return float(h_kl / points.scale)


def _too_few(n_points, rule, parameter):
    equal = ", all equal" if n_points > 1 else ""
    return ValueError(
        f"{parameter}={rule!r} needs at least two distinct points of positive weight "
        f"in X; got n_samples={n_points}{equal}."
    )


def warn_of_copies(n_points, n_copies, rule, parameter):
    """Warn, in the name of the line that called the package."""
    warnings.warn(
        f"{n_copies} of the {n_points} training points are exact copies of "
        f"others. {parameter}={rule!r} leaves out a point together with its copies; "
        "otherwise the leave-one-out likelihood would grow without bound as the "
        "bandwidth goes to 0.",
        UserWarning,
        stacklevel=levels_to_caller(),
    )


def levels_to_caller():
    """``stacklevel`` at which a warning names the line that called the package."""
    frame, level = sys._getframe(1), 0
    inside = ("skhdkde.", "sklearn.")
    while frame and frame.f_globals.get("__name__", "").startswith(inside):
        frame, level = frame.f_back, level + 1
    return level + 1


def distinct_points(points):
    """Points with exact copies made one, their weights added; how many copies; which.

    A copy of the query would make the leave-one-out density unbounded as h -> 0. The last
    says which point each is, the first of its copies.
    """
    first, group = distinct_rows(points)
    n_copies = points.shape[0] - len(first)
    if n_copies:
        weights = np.bincount(group, weights=points.weights)
        points = TrainingPoints(points.in_data_units(first), weights)
    return points, n_copies, first
