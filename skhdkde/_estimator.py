"""The estimator for training points on this machine."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skhdkde._approximation import ERROR, Report, cheapest
from skhdkde._approximation import grown as grown_approximation
from skhdkde._data import DataReport, Table, find_discrete_features
from skhdkde._density import (
    REFIT,
    NewPoints,
    UnitSphere,
    check_growth,
    check_unit_rows,
    draw,
    find_constant_features,
    in_range,
    kernel_widths,
)
from skhdkde._density import grown as grown_density
from skhdkde._diagnosis import Diagnosis
from skhdkde._fit import LocalTraining, check_combination, fit_density
from skhdkde._maps import check_limits, excepting, resolve_maps
from skhdkde._missing import FeatureSets
from skhdkde._pairwise import ComputeOptions, Plan
from skhdkde._selection import DriftTest, Earlier, HeldOutScores
from skhdkde._utils.arrays import has_missing, like, local, prototype
from skhdkde._utils.moments import is_constant
from skhdkde._utils.random import seed_beside
from skhdkde._utils.validation import (
    check_data,
    check_n_jobs,
    finite_weights,
    in_dtype,
    interleaved,
    relative_weights,
    scaled_weights,
    weighted_total,
    without_zeros,
)

# Fitted attributes that are made when first asked for, and what makes them.
MADE_LATER = {"held_out_log_density_": "_held_out", "data_report_": "_table"}


# Types of most parameters, whose values are compared as they are.
PLAIN = {str, int, float, bool, type(None)}
# Parameters that may be set after a fit: the fitted density does not depend on them.
AT_ANY_TIME = ("backend", "n_jobs", "max_search_seconds", "verbose", "random_state")


def can_grow(estimator):
    """Raise AttributeError if the parameters are such that no points can be added."""
    if estimator.adaptive or estimator.covariance_type == "neighborhood":
        name = "adaptive" if estimator.adaptive else "covariance_type"
        raise AttributeError(
            f"With {name}={getattr(estimator, name)!r} there is no partial_fit: the "
            "kernel of each point depends on its neighbours, and new points may be among "
            "them. Call fit with all rows."
        )
    return True


class HighDimKernelDensity(FeatureSets):
    """Kernel density estimate for data with many features.

    The estimate at ``x`` is ``sum_j w_j K((x - y_j) / h) / (h^d sum_j w_j)``. Here the
    ``y_j`` are the training points, ``w_j`` their weights, ``d`` the number of features,
    ``h`` the bandwidth, and ``K`` the kernel, whose integral is one. The sum is over all
    training points and is computed in logarithms, so that log densities are accurate in
    any dimension. The default bandwidth minimises the Kullback-Leibler divergence. In
    high dimension it is so small that a few nearest points dominate the estimate [1]_.

    With ``covariance_type="auto"`` the data choose the shape of the kernel, its centres
    and its tail: the choice is the one with the highest log density on held-out points.
    On most data with correlated features this density is better by tens or hundreds of
    nats.

    Parameters
    ----------
    bandwidth : float or {"kl", "nearest", "clt", "gaussian", "scott", "silverman"}, \
            default="kl"
        The bandwidth, or the rule that chooses it; :func:`select_bandwidth` describes the
        rules. With ``covariance_type="spherical"`` it is in data units, otherwise in
        whitened units, in which the covariance is the identity. "kl" maximises the mean
        log density of held-out training points. They are left out one at a time, or in up
        to five folds if a covariance, a mixture or local scales are estimated from them.
        From more than 4096 points (2048 with folds) a random sample of about this size is
        held out.

    kernel : str, default="gaussian"
        The kernel, a function of ``r = |x - y| / h``:

        - "gaussian": ``exp(-r^2 / 2)``
        - "student": ``(1 + r^2 / nu)^(-(nu + d) / 2)``
        - "exponential": ``exp(-r)``
        - "tophat": ``1`` for ``r < 1``
        - "epanechnikov": ``1 - r^2`` for ``r < 1``
        - "linear": ``1 - r`` for ``r < 1``
        - "cosine": ``cos(pi r / 2)`` for ``r < 1``

        The last four are compact: they are zero for ``r >= 1``. With them "kl" needs
        another point within reach of every point, so that in high dimension a single
        outlier can determine the bandwidth.

    degrees_of_freedom : float or "auto", default="auto"
        ``nu`` of the kernel "student"; above 1e60 the kernel is "gaussian". "auto" tries
        3, 5, 10, 30 and 100 and takes the best; it needs ``bandwidth="kl"``. The
        parameter is also used with ``kernel="gaussian"`` and `covariance_type` "auto" or
        "stack": "auto" then compares the Gaussian kernel with these five, a number
        replaces all six, and infinity keeps the Gaussian kernel alone.

    support : {"euclidean", "sphere"}, default="euclidean"
        The space of the points. With "sphere" rows have unit norm, as those of embeddings
        often do; a row whose norm differs from 1 by more than 1e-3 is an error. Densities
        are then with respect to surface measure: the uniform density is one over the
        surface area. Samples have unit norm, and gradients are tangent to the sphere.
        `bandwidth` is in units of the chord ``|x - y|``. The kernel "gaussian" becomes
        the von Mises-Fisher kernel of concentration ``1 / bandwidth_^2``. With another
        `covariance_type` than "spherical", with `preserve_variance` or with `adaptive`,
        the estimate is the density of ``z / |z|``, where ``z`` follows the estimate in
        space. This needs the kernel "gaussian" or "student".

    covariance_type : {"spherical", "diag", "full", "local", "neighborhood", "auto", \
            "stack"}, default="spherical"
        The covariance that gives the kernel its shape. The bandwidth scales it.

        - "spherical": the identity, in data units
        - "diag": the variances of the features
        - "full": the covariance matrix of the training points
        - "local": for each point the covariance of its component in a Gaussian mixture
        - "neighborhood": for each point the covariance of its nearest neighbours, shrunk
          towards the mean of all these covariances; for up to 40 features
        - "auto": the one of the first four that "kl" finds best, with
          ``preserve_variance=True``
        - "stack": a weighted mixture of the best densities of all five types. The weights
          maximise the log density of the points that "kl" holds out. With
          ``feature_maps="auto"`` the best densities under each map are mixed

    preserve_variance : bool, default=False
        Whether the estimate has the variances of the training points. A plain estimate
        has larger ones, since the kernel adds its own. If True, training points are
        shrunk towards the mean by the factor ``a`` with ``a^2 + h^2 v = 1``, where ``v``
        is the variance of the kernel at ``h = 1``. The mean is that of the component for
        "local", and that of the neighbours for "neighborhood". With "spherical" the
        mean variance of the features takes the place of 1, and the sum of the
        variances is kept. "full" and "local" also keep the covariance, up to the
        shrinkage of its estimate; "neighborhood" keeps variances only roughly. At the
        largest possible ``h`` the estimate is a single kernel at the mean, the mixture
        itself, or one kernel at the mean of each neighbourhood. "auto" and "stack" always
        preserve variances.

    adaptive : bool or int, default=False
        Whether the bandwidth of each training point is proportional to the distance to
        its ``k``-th nearest neighbour. An int is ``k``; True means 5. The factors have a
        mean square of 1.

    feature_maps : None, "auto", "yeo-johnson", "gaussianize" or dict, default=None
        Increasing maps of single features that are applied before the density is
        estimated. Log densities include the Jacobian, so that log densities, gradients
        and samples are in data units.

        - "yeo-johnson": the Yeo-Johnson power transformation, for skewed features
        - "gaussianize": makes each feature normal, by a kernel estimate of it
        - "auto": the best of these two and of no map, by "kl"
        - a dict from columns, by index or name, to maps. A map is None, one of the two
          above, or one of two for features with limits: "log" or ``("log", low)`` above a
          limit, 0 by default; "logit" or ``("logit", low, high)`` between two limits, 0
          and 1 by default. Outside the limits the density is zero, and training values
          there are an error

        All features are then standardised, and `bandwidth` is in units of the mapped
        features. A discrete feature of two values has no map unless a dict gives one.
        "kl" fits the maps anew for each fold.

    discrete_features : None, "auto", or array-like, default=None
        Features whose values lie on a lattice: counts, booleans, codes of categories or
        rounded numbers. Pass a mask of shape (n_features,), indices or names. "auto"
        takes the features whose values are multiples of a common step, with at most half
        as many distinct values as rows. Training values are spread evenly over one step.
        A log density is then, up to smoothing, the log probability of the value minus
        the log of the step. :meth:`sample` returns values on the lattice. If all features
        that vary are discrete, equal rows count as different points.

    covariance_estimator : estimator, default=None
        Covariance estimator of scikit-learn for "full". It is fitted to standardised
        features. None is the estimator of Ledoit and Wolf, which works with fewer points
        than features, too. :class:`~sklearn.covariance.EmpiricalCovariance` is the sample
        covariance, as in scipy's ``gaussian_kde``. These two use `sample_weight`; for
        other estimators points are repeated in proportion to their weights.

    mixture : estimator, default=None
        Mixture for "local": a :class:`~sklearn.mixture.GaussianMixture`, or an estimator
        with its attributes. It is fitted to X unless it is fitted already; the search for
        the bandwidth fits it to each fold in any case. Wrap it in a
        :class:`~sklearn.frozen.FrozenEstimator` to keep it as it is, also in the search
        and in clones, for example if it was fitted to other data. With `feature_maps` it
        must not be fitted. None compares a few mixtures: some with full covariances, some
        of many components with diagonal ones, and clusters whose covariances are shrunk
        to a common one.

    algorithm : {"exact", "neighbors", "sampling", "auto"}, default="exact"
        How :meth:`score_samples` computes the sum over the training points:

        - "exact": over all training points
        - "neighbors": over the nearest points one by one, and over a random sample of
          the others
        - "sampling": over a random sample. `tol` sets its size, up to an eighth of
          the points
        - "auto": for each query the first of these that states an error within `tol`: a
          sample, neighbours, more neighbours, all points

        :doc:`/large` says when each is faster. Gradients, and what :meth:`diagnose` adds
        to the log density, are always over all points.

    tol : float, default=0.01
        Accepted error of a log density, in nats, relative to the sum over all points. Not
        used with ``algorithm="exact"``. Stated errors hold for about 95 % of queries that
        are like the training points. A warning says if a stated error is larger.

    n_neighbors : int, default=None
        Number of nearest points that "neighbors" and "auto" sum one by one. More make the
        error smaller. None chooses from 8 to 128, by the errors at 512 training points.

    neighbors_index : {"hnsw", "ivf", "exact"}, transformer or index, default=None
        How "neighbors" and "auto" find the nearest points.

        - "hnsw": a graph of faiss
        - "ivf": inverted lists of faiss
        - "exact": comparison with all points
        - a transformer such as :class:`~sklearn.neighbors.KNeighborsTransformer`, with
          ``mode="distance"``; its `n_neighbors` is the largest number that can be used
        - an empty faiss index of Euclidean distances, as ``faiss.index_factory`` makes
          them. A copy of it is filled, and searched with its own settings
        - None: if faiss is installed, "hnsw" or "ivf", whichever suits the data. This
          holds from the number of points on where as many queries repay the time to build
          the index: about 88,000 with 16 features, 38,000 with 384. In all other cases
          None is "exact" for "neighbors", and no index for "auto"

    backend : {"auto", "numpy", "keops", "torch"}, default="auto"
        The library that computes the sums over pairs of queries and training points:

        - "numpy": matrix products of tiles, on threads of the CPU
        - "keops": PyKeOps lazy tensors, on the GPU if there is one. It compiles on first
          use, which takes seconds for each number of features
        - "torch": matrix products of tiles by torch, on the GPU if there is one
        - "auto": "numpy", unless there is a CUDA GPU and "keops" or "torch" is installed.
          Then the one that should be fastest, by speeds of GPU and host that are measured
          once. If these are not known: "keops" up to 16 features, "torch" above

    n_jobs : int, default=None
        Number of threads. None means as many as the BLAS would use: all cores, unless the
        environment, ``threadpoolctl`` or joblib says otherwise. -1 means all cores.

    max_search_seconds : float, default=None
        Time in seconds after which the comparison of structures, maps and tails starts no
        further candidate. The best one so far is fitted, and a warning names those that
        were not compared. None compares all.

    verbose : int, default=0
        Whether to show a progress bar. From 2 on the comparison of structures also prints
        a line for each candidate.

    random_state : int, RandomState instance or None, default=None
        Draws the sample of points for "kl", "nearest" and "clt", the folds, the start of
        mixtures, and the samples of `algorithm`. Pass an int for the same estimate each
        time. Positions of rows are drawn: the same rows in another order give another
        draw. :meth:`sample` has a `random_state` of its own.

    Attributes
    ----------
    bandwidth_ : float
        The bandwidth in use.

    kernel_ : str
        The kernel in use; "gaussian" or "student" if "auto" chose it. For a stack,
        ``kernel_``, ``degrees_of_freedom_``, ``bandwidth_``, ``preserve_variance_`` and
        ``feature_maps_`` are those of the density with the largest weight.

    degrees_of_freedom_ : float
        Degrees of freedom of the kernel in use; infinite unless it is "student".

    covariance_type_ : {"spherical", "diag", "full", "local", "neighborhood", "stack"}
        The type of covariance in use.

    feature_maps_ : FeatureMaps or None
        The maps in use, of the features that vary; None without maps.

    preserve_variance_ : bool
        Whether the estimate has the variances of the training points.

    constant_features_ : ndarray of int of shape (n_constant,)
        Columns that have one value in all training points. They are left out of all
        choices, and get a kernel of their own. With a numeric bandwidth,
        ``covariance_type="spherical"`` and no maps they are treated like other features.

    discrete_features_ : ndarray of int of shape (n_discrete,)
        Columns that are treated as discrete, without constant ones.

    backend_ : {"numpy", "keops", "torch"}
        The backend that the fit used.

    bandwidth_search_ : BandwidthSearch or None
        The search of ``bandwidth="kl"``: the mean log density at each bandwidth tried,
        and as ``candidates`` the maps, structures and degrees of freedom that were
        compared, with their weights in a stack. None for other bandwidths.

    held_out_log_density_ : ndarray of shape (n_samples,)
        Log density of each training point by fits that did not see it, in nats. Compare
        log densities of new points with these. Computed on first access, in a pass over
        all pairs.

    incomplete_rows_ : ndarray of int of shape (n_incomplete,)
        Rows of X that had missing values. :meth:`fit` filled them in by random draws.

    drift_ : Drift or None
        Comparison of the rows of the last :meth:`partial_fit` with those of the fit, both
        held out. ``difference`` is the mean log density of the new rows minus that of the
        rows of the fit, in nats. ``p_value`` is that of a rank test, and ``significant``
        is whether it is below 1e-4; then there is a warning. ``n_fitted`` rows chose
        bandwidth and structure, and ``n_added`` were added since. None before the first
        :meth:`partial_fit`, and if too few rows are without duplicates: fewer than 8 of
        the fit, or no new one.

    data_report_ : DataReport
        Description of the training points: constant and discrete features, codes for
        missing values, linear dependence, duplicates, scales. Computed on first access.

    n_neighbors_ : int
        Number of nearest points that are summed one by one; 0 if there are none.

    neighbors_index_ : {"hnsw", "ivf", "exact", "transformer", "faiss"} or None
        The kind of index in use; None if there is none.

    approximation_ : Report or None
        What the last :meth:`score_samples` used for each query: arrays ``algorithm``,
        ``error`` (stated, in nats) and ``n_evaluations``. None before the first call, and
        for ``algorithm="exact"``.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    select_bandwidth : The bandwidth rules as a function, with more options.
    DensityImputer : Fills in missing values with such a density.
    kl_scorer : Scorer for :class:`~sklearn.model_selection.GridSearchCV`.
    skhdkde.dask.DaskHighDimKernelDensity : The same on a Dask cluster.
    sklearn.neighbors.KernelDensity : Tree-based estimate for few dimensions.
    sklearn.mixture.GaussianMixture : The limit of "local" at its largest bandwidth.

    Notes
    -----
    float32 data are computed in float32 where that is precise enough, and give float32
    results. Half precision (float16, and bfloat16 of torch) becomes float32, everything
    else float64. With ``algorithm="exact"`` log densities are within 1e-3 nats (float32)
    or 1e-8 nats (float64) of the exact sum, or within the rounding of the result itself
    where that is larger. With a structure this is relative to the sum over whitened
    coordinates rounded to the dtype. Where inner products would lose this precision, the
    pairs that matter are computed in float64 or from differences. This holds for queries
    at any distance; results below the range of the dtype are -inf.

    With scikit-learn's ``array_api_dispatch`` X may be an array of another library, such
    as a torch tensor. Results are then arrays of that library, on the device of X.
    Training points on a CUDA GPU stay there unless a structure, a map, discrete features
    or an approximation is used.

    A fitted estimator holds one copy of the data; two if their mean is far from the
    origin, or with a structure. A pickle holds one. Methods need at most 64 MiB per
    thread in addition to their result and a few numbers per query. They copy the
    queries if one of them is more than 1e144 times as large as the data.
    :doc:`/structures` has the formulas of structures and their cost.

    References
    ----------
    .. [1] G. Biroli and M. Mézard, "Kernel Density Estimators in Large Dimensions",
       arXiv:2408.05807.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> X = np.random.default_rng(0).normal(size=(1000, 50))
    >>> kde = HighDimKernelDensity().fit(X)
    >>> round(kde.bandwidth_, 3)
    1.042
    >>> kde.score_samples(np.zeros((1, 50))).round(2)
    array([-64.23])
    >>> kde.score_samples(None)[:3].round(2)  # training points, each one left out
    array([-77.25, -80.38, -76.39])
    >>> kde.diagnose(None).standard_error[:3].round(1)  # their errors, in nats
    array([0.9, 1.2, 1.6])
    >>> kde.sample(2, random_state=0).shape
    (2, 50)
    >>> kde = HighDimKernelDensity(covariance_type="auto", random_state=0).fit(X)
    >>> kde.covariance_type_
    'spherical'
    >>> kde.score_samples(np.zeros((1, 50))).round(2)  # the truth is -45.95
    array([-46.02])
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Store the training points and choose the bandwidth.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training points. Values may be missing (NaN) with kernels "gaussian" and
            "student", except on the sphere: see the notes.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a common factor has no effect. A point of weight ``k``
            counts as ``k`` points in all sums, means and covariances. Rules and
            shrinkages that depend on the number of points use the effective number,
            ``sum(w)^2 / sum(w^2)``. A weight below 2.2e-308 of the largest counts as 0.

        Returns
        -------
        self : object
            The fitted estimator. If fitting fails, it stays as it was.

        Raises
        ------
        ValueError
            If X or the weights are not as described, if parameters do not go together, if
            a bandwidth rule is asked for and X has fewer than two distinct points, or if
            values are missing and fewer than 10 rows of positive weight are complete.
        ImportError
            If `backend` or `neighbors_index` needs a package that is not installed.

        Notes
        -----
        If training points have missing values, there are three fits, and a warning. The
        first fit is to the complete rows. Missing values are drawn from its conditional
        density, given the values that a row has. The second fit is to all rows; the
        missing values are drawn again, each row without itself and its copies. The third
        fit, to the rows with these draws, is the result. ``incomplete_rows_`` lists the
        rows that had missing values.
        """
        check_combination(self)
        fitted = copy.copy(self)  # a fit that fails leaves self alone
        X = check_data(fitted, X, reset=True, missing=self._knows_parts)
        fitted._like, X = prototype(X), local(X)
        weights, fitted._heaviest = scaled_weights(sample_weight, X)
        X = fitted._completed(X, weights)
        approximate = self.algorithm != "exact"
        X = np.asarray(X) if approximate else X  # an index is on the host
        on_gpu = not isinstance(X, np.ndarray)
        search = isinstance(self.bandwidth, str)
        fitted._plan = Plan(len(X), X.dtype, search)
        plan = replace(fitted._plan, at_once=search)
        options = self._options(X.shape[1], on_gpu, approximate, plan)
        fitted.backend_ = options.backend
        X, weights, row_numbers = fitted._weighted_points(X, weights)
        maps = fitted._maps_to_compare(X)
        X, spread, apart = fitted._kinds_apart(X, maps)
        found = fit_density(
            LocalTraining(X, weights, self, options, row_numbers, spread),
            self,
            apart,
            fitted._without_booleans(maps),
        )
        fitted._density, fitted._approximation = found.density, found.approximation
        fitted.__dict__.update(found.attributes())
        fitted._table, fitted._held_out = (
            fitted._checked_table(found),
            HeldOutScores(found.density, fitted._weightless, self.random_state),
        )
        fitted.approximation_ = fitted.drift_ = fitted._drift_test = None
        fitted._made_by, fitted._validated = None, self._parameters()
        self.__dict__ = fitted.__dict__
        return self

    @available_if(can_grow)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Add training points, and keep the fitted bandwidth and structure.

        On an estimator that is not fitted it does the same as :meth:`fit`.

        Parameters
        ----------
        X : array-like of shape (n_new, n_features)
            Points to add, without missing values. They are stored in the dtype of the
            fit.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_new,), default=None
            Non-negative weights, on the scale of those passed to `fit`. None means 1 for
            each point.

        Returns
        -------
        self : object
            The estimator with more points. If the call fails, it stays as it was.

        Raises
        ------
        ValueError
            If X or the weights are not as described; if "auto" or "stack" chose
            bandwidths or covariances that depend on neighbours, since new points may be
            neighbours; if the estimator was made by :meth:`marginal` or
            :meth:`conditional`; if parameters of the fit were changed since; if a feature
            that was constant varies in X; if a discrete feature leaves its lattice, or a
            mapped one its limits.
        AttributeError
            With `adaptive` or ``covariance_type="neighborhood"``, which have no such
            method.

        Notes
        -----
        The result has the log densities of a fit to all rows with the bandwidth, the
        covariance, the mixture, the maps and the lattices of the first fit. ``drift_``
        compares new rows with those of the fit. :ref:`growing-data` says what is kept,
        what is updated, and when to fit again. New points are added to a faiss index;
        other indexes are built again. Each call copies all points, so add many rows at
        once.

        Examples
        --------
        >>> import numpy as np
        >>> from skhdkde import HighDimKernelDensity
        >>> X = np.random.default_rng(0).normal(size=(3000, 5))
        >>> kde = HighDimKernelDensity().fit(X[:1000])
        >>> for rows in (X[1000:2000], X[2000:]):
        ...     kde = kde.partial_fit(rows)
        >>> again = HighDimKernelDensity(bandwidth=kde.bandwidth_).fit(X)
        >>> bool(np.allclose(kde.score_samples(X), again.score_samples(X), rtol=1e-12))
        True
        >>> kde.drift_.significant
        False
        """
        if not hasattr(self, "_density"):
            return self.fit(X, y, sample_weight)
        self._check_growth()
        X = self._new_rows(X)
        grown = copy.copy(self)
        new = grown._with_rows(X, sample_weight)
        if new is not None:
            grown._with_points(*new)
        grown._held_out = self._held_out.of(grown._density, grown._weightless)
        self.__dict__ = grown.__dict__
        if new is not None and self.drift_ is not None:
            self.drift_.warn()
        return self

    def _check_growth(self):
        """Raise ValueError if no points can be added."""
        self._check_fitted()
        if self._made_by is not None:
            raise ValueError(
                "partial_fit adds points to an estimator that was fitted. This one was "
                f"made by {self._made_by} from another: add the points to that one."
            )
        pairs = zip(self._parameters(), self._validated, strict=True)
        names = zip(self._parameter_constraints, pairs, strict=True)
        changed = [name for name, (now, then) in names if now != then]
        changed = [name for name in changed if name not in AT_ANY_TIME]
        if changed:
            raise ValueError(
                f"{changed[0]} was set to {getattr(self, changed[0])!r} after the fit, "
                f"which partial_fit cannot follow: it keeps what was fitted. {REFIT}"
            )
        check_growth(self._density)

    def _new_rows(self, X):
        """Return rows to be added, on the host and in the dtype of the fit."""
        X = np.asarray(local(check_data(self, X, reset=False, missing=self._knows_parts)))
        if has_missing(X):
            incomplete = int(np.isnan(X).any(axis=1).sum())
            raise ValueError(
                f"X contains NaN in {incomplete} of {len(X)} rows: partial_fit adds "
                "complete rows. impute(X, n_samples=1)[0] fills them in by draws from "
                "the density so far; fit, with all rows, completes them itself."
            )
        if self.support == "sphere":
            check_unit_rows(X)
        return X

    def _with_rows(self, X, sample_weight):
        """Record rows; return points to be added, and as rows; None if there are none.

        Weights are relative to the largest so far, of all rows.
        """
        weights = np.ones(len(X)) if sample_weight is None else sample_weight
        weights = finite_weights(weights, len(X))
        heaviest = max(self._heaviest, weights.max())
        factor, weights = self._heaviest / heaviest, relative_weights(weights, heaviest)
        if not factor * self._density.weights().min() >= np.finfo(float).tiny:
            raise ValueError(
                f"sample_weight is up to {heaviest!r}, beside which weights of earlier "
                f"rows count as 0. {REFIT}"
            )
        zero, numbers = weights == 0.0, None
        if zero.any() or self._weightless is not None:
            n_earlier = self._density.n_points
            known = self._weightless or (np.zeros(n_earlier, dtype=bool), X[:0])
            zeros = np.append(known[0], zero)
            self._weightless = zeros, np.concatenate([known[1], X[zero]])
            numbers = np.flatnonzero(~zeros)
        self._heaviest = heaviest
        if zero.all():
            return None
        X, weights = X[~zero], weights[~zero]
        own = NewPoints(X, weights, factor, row_numbers=numbers)
        return self._as_points(own), X

    def _as_points(self, new):
        """Return rows as points of the density: spread, without constant features."""
        X, given, density = new.X, None, self._density
        names, apart = getattr(self, "feature_names_in_", None), density.apart
        maps = self._maps_to_compare(X)
        if self._discrete is not None:
            self._discrete.check(X, density.dtype, names)
            seed = seed_beside(self.random_state) + density.n_points
            given, X = X, self._discrete.spread(X, seed)
            check_limits(X, maps[0], names, spread=True)
            self._discrete = self._discrete.extended(given)
        self._update_constant(new.X)
        if apart is not None:
            X = apart.without(X)
            given = None if given is None else apart.without(given)
        X = in_dtype(X, density.dtype)
        given = None if given is None else in_dtype(given, density.dtype)
        return replace(new, X=X, given=given)

    def _update_constant(self, X):
        """Look at what rows have in features that were constant.

        Those that have no part in the density must stay so; others may vary.
        """
        columns = self.constant_features_
        if not len(columns):
            return
        values = self._density.given(np.arange(1))[0, columns]
        least = np.minimum(values, X[:, columns].min(axis=0))
        most = np.maximum(values, X[:, columns].max(axis=0))
        constant = is_constant(least, most, X.dtype)
        if self._density.apart is not None and not constant.all():
            k = int(np.argmin(constant))
            raise ValueError(
                f"X has values from {least[k]:g} to {most[k]:g} in column {columns[k]}, "
                f"which was constant in the fit: it has no part in the density. {REFIT}"
            )
        self._constant_columns = tuple(columns[constant].tolist())

    def _with_points(self, new, X):
        """Add points, which are rows X, to density, approximation and what is made."""
        options, density = self._compute_options(), self._density
        earlier = Earlier(density, cheapest(self._approximation, density), options)
        if self._drift_test is None:
            self._drift_test = DriftTest(earlier, self._held_out)
        self._drift_test = copy.copy(self._drift_test)
        self.drift_ = self._drift_test.of_new(earlier, X, new.weights)
        self._density = grown_density(density, new)
        if self._approximation is not None:
            again = self.drift_ is not None and self.drift_.significant
            self._approximation = grown_approximation(
                self._approximation, self._density, self, options, again
            )
        self._plan = replace(self._plan, n_points=self._density.n_points)
        self._table = self._table.of(self._density)
        self.approximation_ = None

    @property
    def discrete_features_(self) -> np.ndarray:
        """Columns that are treated as discrete, without constant ones."""
        return (
            np.empty(0, dtype=int) if self._discrete is None else self._discrete.columns
        )

    def _weighted_points(self, X, weights):
        """Return points of positive weight, their weights and rows; keep the others."""
        if self.support == "sphere":
            X = np.asarray(X)
            check_unit_rows(X)
        self._weightless = None
        if weights is not None and not weights.all():
            zero = weights == 0.0
            self._weightless = zero, X[zero]
        return without_zeros(X, weights)

    def _maps_to_compare(self, X):
        """Return what is compared of maps of features."""
        names = getattr(self, "feature_names_in_", None)
        maps = resolve_maps(self.feature_maps, X.shape[1], names)
        check_limits(X, maps[0], names)
        return maps

    def _without_booleans(self, maps):
        """Return maps without those of discrete features of two values.

        There a map finds the edges of the cells that values are spread over, and nothing
        of the data.
        """
        if self._discrete is None:
            return maps
        columns = self._discrete.of_two_values
        return [excepting(spec, columns, self.n_features_in_) for spec in maps]

    def _kinds_apart(self, X, maps):
        """Return points, what they were before discrete features were spread, constants.

        The points are without constant features that are set apart. The others are None
        if there are none. On the sphere the last is the sphere.
        """
        spread = self._discrete = None
        names = getattr(self, "feature_names_in_", None)
        if self.support == "sphere":
            sphere = UnitSphere.of(X)
            self._checked_sphere(sphere)
            return sphere.points(X), None, sphere
        if self.discrete_features is not None:
            X = np.asarray(X)
            self._discrete = find_discrete_features(X, self.discrete_features, names)
        if self._discrete is not None:
            spread = self._discrete.before(X)
            X = self._discrete.spread(X, seed_beside(self.random_state))
            check_limits(X, maps[0], names, spread=True)
        constant = self._set_apart(find_constant_features(X))
        if constant is not None:
            X = constant.without(X)
            if spread is not None:
                spread = replace(spread, given=constant.without(spread.given))
        return X, spread, constant

    def _checked_table(self, found):
        """Return the training points as a table, after a warning if they do harm."""
        names = getattr(self, "feature_names_in_", None)
        n_merged = None if found.search is None else found.search.n_copies
        in_use = found.structure.covariance_type
        table = Table(found.density, names, n_merged, in_use, self._n_missing())
        widths = kernel_widths(found.density)
        if widths is not None:
            widths[self.discrete_features_] = np.inf  # spread over a step
        if self.support == "euclidean":  # on the sphere scales are what they are
            table.check(self.covariance_type, widths)
        return table

    @property
    def held_out_log_density_(self) -> np.ndarray:
        """Log density of each training point by fits that did not see it, in nats.

        New points of the same distribution have log densities like these. So quantiles
        of these values are thresholds, and the p-value of a new point is
        ``(1 + k) / (n_samples + 1)``, where ``k`` of these values are at most its log
        density.

        Without a structure each point is left out by itself, as in
        ``score_samples(None)``. With a structure the points are split into 20 folds, with
        duplicates in the same fold. For each fold the covariance, mixture, local scales
        and shrinkage are fitted to the other folds, with the type of covariance, the
        kernel and the bandwidth of the fit. Points of weight zero have log densities,
        too. Sums are over all points, for any `algorithm`. The values are computed on
        first access, and kept.
        """
        options = self._compute_options()
        return like(self._held_out.log_density(options), self._like)

    def density_level(self, mass: Any) -> float | np.ndarray:
        """Return the log density that a given share of the mass exceeds.

        The points with at least this log density form the *highest-density region*, the
        smallest of all regions that hold this share.

        Parameters
        ----------
        mass : float or array-like of float
            Share of the mass, or several shares, each between 0 and 1. With 0.95 the
            region leaves out the 5 % of points where the density is lowest.

        Returns
        -------
        level : float or ndarray of the shape of ``mass``
            Threshold for ``score_samples(X)``, in nats. A new point is in the region,
            with a log density of at least this level, with probability ``mass``.

        Raises
        ------
        ValueError
            If a share is not between 0 and 1, or if there are too few training points to
            hold some out.
        AttributeError
            If this is a marginal or conditional density without held-out log densities.

        Notes
        -----
        The level is a quantile of `held_out_log_density_`, with the weights of the fit:
        the largest of these values that has at least the share ``mass`` of the weight at
        or above it. Over data sets of ``n`` points the share of new points in the region
        varies by ``sqrt(mass (1 - mass) / n)``. The lowest possible level is the smallest
        of the ``n`` values; a new point is below it with probability ``1 / (n + 1)``.

        Examples
        --------
        >>> import numpy as np
        >>> from skhdkde import HighDimKernelDensity
        >>> X = np.random.default_rng(0).normal(size=(1000, 5))
        >>> kde = HighDimKernelDensity(
        ...     covariance_type="full", preserve_variance=True, random_state=0
        ... )
        >>> level = kde.fit(X).density_level(0.9)
        >>> round(level, 2)
        -9.22
        >>> fresh = np.random.default_rng(1).normal(size=(1000, 5))
        >>> round(float(np.mean(kde.score_samples(fresh) >= level)), 2)
        0.89
        """
        self._check_fitted()
        shares = np.asarray(mass, dtype=np.float64)
        if not ((shares > 0.0) & (shares < 1.0)).all():
            raise ValueError(f"mass must be above 0 and below 1, got {mass!r}.")
        level = self._held_out.level(shares, self._compute_options())
        return level if shares.ndim else float(level)

    @property
    def data_report_(self) -> DataReport:
        """Description of the training points, by feature and as a whole.

        It covers constant and discrete features, codes for missing values, linear
        dependence, duplicates and scales. It is computed on first access, and kept.
        :meth:`fit` has already warned of what harms the estimate.
        """
        self._check_fitted()
        return self._table.report()

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log density of each point.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), or None
            Points. With kernels "gaussian" and "student" missing values (NaN) are
            integrated over: the result is the marginal log density of the values that a
            row has, and 0 if it has none. None means the training points, each one left
            out, but not its duplicates: these are leave-one-out log densities. Do not
            pass training points as X: each would count itself, and score far too high.
            Even left out, a training point has a share in a covariance, a mixture and
            local scales, and scores too high; `held_out_log_density_` has no such bias.
            A Pipeline does not pass None on: call its last step.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            Natural logarithm of the density, in nats. It is -inf where no training point
            is within reach of a compact kernel, and where a feature is outside the limits
            of its map.
        """
        log_density, used = self._at(X, HighDimKernelDensity._log_density)
        if self._approximation is not None:
            # other threads may set the attribute meanwhile
            self.approximation_ = report = Report(used, self._approximation.tol)
            report.warn(self._approximation.algorithm)
        return like(log_density, self._like if X is None else X)

    def diagnose(self, X: Any = None) -> Diagnosis:
        """Return the regime, the error bar and the effective sample size of each point.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), default=None
            Points. None means the training points, each one left out, as in
            :meth:`score_samples`. For points with missing values all results are for the
            marginal density of the values they have, and ``n_missing`` counts the
            missing ones.

        Returns
        -------
        diagnosis : Diagnosis
            Arrays of shape (n_queries,): ``log_density`` and its ``standard_error`` over
            new data sets, in nats; ``tail_index``, ``h_g``, ``h_clt`` and ``regime``;
            ``effective_sample_size`` and ``max_weight``. ``approximation_error``, in
            nats, unless ``algorithm="exact"``. ``shares`` has the share of each regime.

        Notes
        -----
        One pass over all pairs gives everything except ``log_density``, which is that of
        :meth:`score_samples`. The standard error is the spread of the log density over
        data sets redrawn from a local model. The model is fitted to the 32 nearest
        points, and to the sum over the others. From a tail index of 4 on the standard
        error is that of the central limit theorem. :doc:`/regimes` derives and tests it.

        With ``sample_weight`` the new data sets have the same number of points. The
        weight of each point is drawn from those of the points around it.

        Covariances, mixture, shrinkage and local scales are kept fixed in new data sets
        and in the thresholds. With several components or local scales a distance is
        measured in the whitened units of the point that contributes most: it is the
        distance of the same kernel value there.
        """
        log_density, columns, n_missing = self._at(X, HighDimKernelDensity._diagnosis)
        report = None
        if self._approximation is not None:
            log_density, used = self._at(X, HighDimKernelDensity._log_density)
            report = Report(used, self._approximation.tol)
        n_missing = n_missing if n_missing.any() else None
        return Diagnosis.from_columns(
            log_density, columns, self.bandwidth_, self.kernel_, report, n_missing
        )

    def _held_out_rows(self):
        """Return the points of positive weight, held-out log densities, and weights."""
        scores, weights = self._held_out.of_weight(self._compute_options())
        return self._rows(), scores, weights

    def _rows(self):
        """Return the points of positive weight."""
        return self._density.given(np.arange(self._density.n_points))

    def _log_density(self, X, options):
        """Return log densities, and what was used for each query."""
        near = in_range(X, self._density)
        if self._approximation is not None:
            log_density, used = self._approximation.log_density(near.X, options)
            used[:, ERROR] = near.errors(used[:, ERROR])
        else:
            log_density = self._density.log_density(near.X, options)
            used = log_density[:, None]
        return near.log_density(log_density), used

    def _diagnosis(self, X, options):
        """Return log densities over all points, columns of a diagnosis, n_missing."""
        near = in_range(X, self._density)
        log_density, columns = self._density.diagnose(near.X, options)
        n_missing = 0 if X is None else self.n_features_in_ - X.shape[1]
        missing = np.full(len(log_density), n_missing)
        return near.log_density(log_density), near.diagnosis(columns), missing

    def _at(self, X, method):
        """Return what a method gives, at X or at training points."""
        options = self._compute_options()
        if X is not None:
            return self._by_patterns(self._queries(X), method, options)
        left_out = method(self, None, options)
        if self._weightless is None:
            return left_out
        zero, X = self._weightless
        return interleaved(zero, left_out, method(self, X, options))

    def score(self, X: Any, y: None = None, sample_weight: Any = None) -> float:
        """Return the total log density of the points.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Points.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_queries,), default=None
            Non-negative weights: a point of weight ``k`` counts as ``k`` points.

        Returns
        -------
        log_likelihood : float
            Sum of the weights times :meth:`score_samples`, in nats. It grows with the
            number of points and with their weights; :func:`kl_scorer` takes the mean.
        """
        return weighted_total(local(self.score_samples(X)), sample_weight)

    def log_density_gradient(self, X: Any) -> np.ndarray:
        """Return the gradient of the log density at each point.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Points.

        Returns
        -------
        gradient : ndarray of shape (n_queries, n_features)
            In nats per data unit. NaN where the density is zero. If a point has missing
            values, the gradient is NaN for these, and that of the marginal density for
            the others. The kernels "exponential" and "linear" have a kink at the training
            point; a query exactly there gets no contribution from this point.
        """
        options = self._compute_options()
        return like(self._gradient_by_patterns(self._queries(X), options), X)

    def _gradient(self, X, options):
        """Return gradients at queries without missing values."""
        near = in_range(X, self._density)
        return near.gradient(self._density.gradient(near.X, options))

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> np.ndarray:
        """Draw random points from the estimated density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points, at least 1.

        random_state : int, RandomState instance or None, default=None
            Pass an int for the same points each time.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Points, in data units. Values of discrete features are on their lattices.
        """
        self._check_fitted()
        rng = check_random_state(random_state)
        X = draw(self._density, n_samples, rng)
        X = X if self._discrete is None else self._discrete.rounded(X)
        return like(X, self._like)

    def __getstate__(self):
        # a pickle is for any machine: without the device of the training points
        state = super().__getstate__()
        return {**state, "_like": None} if "_like" in state else state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.allow_nan = self._knows_parts
        return tags

    def __dir__(self):
        # scikit-learn asks for all attributes that it lists, and its displays, too, for
        # their values: those that take a pass are listed once they have been made
        made = {name: vars(self).get(behind) for name, behind in MADE_LATER.items()}
        lazy = {name for name, behind in made.items() if not (behind and behind.made)}
        return [n for n in object.__dir__(self) if n not in lazy and hasattr(self, n)]

    def _compute_options(self):
        """Return how pairs are visited, for the parameters as they are now.

        The estimator may have been loaded on another machine, or its parameters set.
        """
        self._check_fitted()
        approximate = self._approximation is not None
        on_gpu = self._density.on_gpu
        return self._options(self.n_features_in_, on_gpu, approximate, self._plan)

    def _check_fitted(self):
        """Raise an error if the estimator is not fitted, or its parameters are wrong."""
        if "_validated" not in vars(self):
            check_is_fitted(self)
        if self._parameters() != self._validated:
            self._validate_params()
            check_n_jobs(self.n_jobs)

    def _parameters(self):
        """Return the parameters as they are now, at less cost than `get_params`."""
        values = [getattr(self, name) for name in self._parameter_constraints]
        listed = [v if type(v) in PLAIN else _listed(v) for v in values]
        return [(type(value), value) for value in listed]  # 1.0 and True are not 1

    def _options(self, n_features, on_gpu, approximate, plan):
        """Return how pairs are visited; approximations need a backend with tiles."""
        options = ComputeOptions(self.backend, self.n_jobs, self.verbose)
        return options.resolved(n_features, on_gpu=on_gpu, tiles=approximate, plan=plan)


def _listed(value):
    """Return an array as a list, which compares with others as a whole."""
    array = hasattr(value, "__array__") and not np.isscalar(value)
    return np.asarray(value).tolist() if array else value
