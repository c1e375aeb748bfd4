"""The bandwidth rules as a function."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skhdkde._data import step_of_all
from skhdkde._density import (
    UnitSphere,
    check_unit_rows,
    find_constant_features,
    warn_of_constant_features,
)
from skhdkde._kernels import KERNELS, restricted
from skhdkde._pairwise import BACKENDS, ComputeOptions, Plan, TrainingPoints
from skhdkde._selection.rules import (
    N_BANDWIDTHS,
    N_QUERIES,
    OF_SPACE,
    REFERENCE_RULES,
    RULES,
    bandwidth_by_rule,
)
from skhdkde._utils.arrays import local
from skhdkde._utils.hints import hinted
from skhdkde._utils.validation import (
    check_bandwidth,
    check_n_jobs,
    check_points,
    check_weights,
    without_zeros,
)


@hinted
@validate_params(
    {
        "rule": [StrOptions(set(RULES))],
        "kernel": [StrOptions(set(KERNELS))],
        "support": [StrOptions({"euclidean", "sphere"})],
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
    support="euclidean",
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

    rule : {"kl", "nearest", "clt", "gaussian", "scott", "silverman"}, default="kl"
        - "kl" maximises the mean leave-one-out log density. Up to sign and a constant
          this is the Kullback-Leibler divergence of the estimate from the true density.
          For the Gaussian kernel the result solves ``h^2 = mean_i sum_j w_ij
          |x_i - x_j|^2 / n_features``, where ``w_ij`` is the share of point ``j`` in the
          density at point ``i``.
        - "nearest": ``h^2`` is the mean squared distance to the nearest other point,
          divided by ``n_features``. "kl" tends to this in high dimension [1]_.
        - "clt": the smallest bandwidth at which 95 % of the points, each one left out,
          are in the regime "clt" of :meth:`HighDimKernelDensity.diagnose`, where many
          points contribute and the usual error bars hold. Use it for ranking, gradients
          and pictures; as a density the estimate is too smooth. With a compact kernel it
          is the bandwidth at which 95 % of the points have 30 others within reach.
        - "gaussian": ``h_kl`` of :func:`~skhdkde.regimes.gaussian_thresholds`. It is best
          for normal data in high dimension, and too small in low dimension. The
          covariance is the Ledoit-Wolf estimate. The rule computes the eigenvalues of a
          matrix of size ``min(n_samples, n_features)``.
        - "scott", "silverman": the normal reference rules ``s n^(-1/(d+4))`` and
          ``s (n (d+2)/4)^(-1/(d+4))``. Here ``s^2`` is the mean variance of the features
          and ``n`` the effective number of points, ``sum(w)^2 / sum(w^2)``. Unlike those
          of scikit-learn, they use the scale of the data.

        For kernels other than the Gaussian all rules but "kl" and "clt" are divided by
        the standard deviation of the kernel per coordinate. So all kernels smooth alike.

    kernel : {"gaussian", "tophat", "epanechnikov", "exponential", "linear", \
            "cosine"}, default="gaussian"
        The kernel that the bandwidth is for.

    support : {"euclidean", "sphere"}, default="euclidean"
        The space of the points. With "sphere" rows have unit norm, kernels are normalised
        over the sphere, and the bandwidth is in units of the chord ``|x - y|``. "nearest"
        is then ``kappa^(-1/2)``, where ``kappa`` is the concentration of the von
        Mises-Fisher distribution whose mean cosine is the mean cosine to the nearest
        other point. "gaussian", "scott" and "silverman" are errors on the sphere.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; a common factor has no effect.

    n_queries : int, default=4096
        Largest number of training points that "kl", "nearest" and "clt" leave out. With
        more training points a random sample of this size is drawn. Each is compared with
        all training points.

    bandwidths : int or array-like, default=32
        For "kl", the number of bandwidths of the first grid, which lies around that of
        "nearest"; or a grid of your own, in data units. The best bandwidth of your grid
        is refined between its neighbours, except for compact kernels. It is not sought
        beyond the ends of the grid; a warning says if the best is at an end.

    random_state : int, RandomState instance or None, default=None
        Draws the sample if there are more than ``n_queries`` training points.

    backend : {"auto", "numpy", "keops", "torch"}, default="auto"
        The library that computes the sums; see :class:`HighDimKernelDensity`.

    n_jobs : int, default=None
        Number of threads. None means as many as the BLAS would use; -1 means all cores.

    verbose : int, default=0
        Whether to show a progress bar.

    return_search : bool, default=False
        Whether to return the search of "kl", too.

    Returns
    -------
    bandwidth : float
        The bandwidth, in data units.

    search : BandwidthSearch or None
        Only with ``return_search=True``. The bandwidths that were tried and their mean
        leave-one-out log densities. None for rules other than "kl".

    Raises
    ------
    ValueError
        If X has fewer than two distinct points, if no bandwidth of the grid leaves every
        point a training point within reach, or if rows are not of unit norm on the
        sphere.

    See Also
    --------
    HighDimKernelDensity : Has these rules, and shapes of kernel, as parameters.
    BandwidthDisplay : Plots the curve of "kl".
    regimes.gaussian_thresholds : The theory behind "gaussian".

    Notes
    -----
    Exact duplicates of a point make the leave-one-out likelihood unbounded as ``h -> 0``.
    "kl", "nearest" and "clt" treat duplicates as one point with their total weight, and
    warn. They do the same with near-duplicates. These are up to 4 points so near a point
    that its next neighbours are at least 100 times as far, if there are more of them than
    chance explains for a continuous distribution.

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
    >>> round(select_bandwidth(X, rule="clt"), 3)
    2.103
    """
    check_n_jobs(n_jobs)
    X = local(check_points(X))
    if support == "sphere":
        X = np.asarray(X)
        check_unit_rows(X)
    options = ComputeOptions(backend, n_jobs, verbose).resolved(
        X.shape[1],
        on_gpu=not isinstance(X, np.ndarray),
        plan=Plan(len(X), X.dtype, search=True),
    )
    weights = check_weights(sample_weight, X)
    if not isinstance(bandwidths, Integral):
        bandwidths = check_array(
            bandwidths, dtype=np.float64, ensure_2d=False, input_name="bandwidths"
        ).ravel()
        if not (bandwidths > 0).all():
            raise ValueError(f"bandwidths must be > 0, got {float(bandwidths.min())!r}.")
    X, weights, row_numbers = without_zeros(X, weights)
    if support == "sphere":
        X, scale = _on_sphere(X, rule), 1.0
        own_kernel = restricted(KERNELS[kernel], X.shape[1])
    else:
        X, scale = _varying(X), None
        own_kernel = KERNELS[kernel]
    points = TrainingPoints(X, weights, scale=scale, row_numbers=row_numbers)
    if not isinstance(bandwidths, Integral):
        for bandwidth in bandwidths:
            check_bandwidth(bandwidth, points)
    choice = bandwidth_by_rule(
        points,
        rule,
        own_kernel,
        options,
        parameter="rule",
        n_queries=n_queries,
        bandwidths=bandwidths,
        random_state=random_state,
    )
    if choice.far is not None:
        choice.far.warn(choice.bandwidth, step_of_all(X))
    return choice[:2] if return_search else choice.bandwidth


def _varying(X):
    """Return points without constant features, after a warning of these."""
    constant = find_constant_features(X)
    if constant is None:
        return X
    warn_of_constant_features(constant)
    return constant.without(X)


def _on_sphere(X, rule):
    """Return points of unit norm, without constant features, after a warning of these."""
    if rule in REFERENCE_RULES:
        raise ValueError(OF_SPACE.format(f"rule={rule!r}"))
    sphere = UnitSphere.of(X)
    sphere.check()
    sphere.warn(None)
    return sphere.points(X)
