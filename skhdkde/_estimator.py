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
            f"With {name}={getattr(estimator, name)!r} there is no partial_fit: what "
            "each point has comes from its neighbours, which new points may be. Call "
            "fit with all rows."
        )
    return True


class HighDimKernelDensity(FeatureSets):
    """Kernel density estimate for data with many features.

    The textbook's estimate at ``x`` is ``sum_j w_j K((x - y_j) / h) / (h^d sum_j w_j)``
    over the training points ``y_j`` in ``d`` dimensions. It is computed in logs, over all
    pairs, so that log densities are right in any dimension. The default bandwidth is
    the one that is best in Kullback-Leibler divergence; in high dimension it lies where
    a few nearest points decide the estimate [1]_.

    With ``covariance_type="auto"`` kernels take shape, place and tail from the data, each
    as far as held-out points are the likelier for it: on most data with correlated
    features that is the better density by tens or hundreds of nats.

    Parameters
    ----------
    bandwidth : float or {"kl", "nearest", "clt", "gaussian", "scott", "silverman"}, \
            default="kl"
        The bandwidth, or the rule that chooses it. It is in the units of the data; or,
        for a `covariance_type` other than "spherical", in whitened units, in which
        that covariance is the identity. The rules are those of :func:`select_bandwidth`;
        "kl" maximises the mean log density of training points left out, one by one, or
        in up to five folds where they have a share in a covariance, a mixture or a local
        scale. Of more than 4096 points (2000 in folds) about that many are left out in
        turn, drawn at random.

    kernel : str, default="gaussian"
        The kernel, a function of ``r = |x - y| / h``:

        - "gaussian": ``exp(-r^2 / 2)``
        - "student": ``(1 + r^2 / nu)^(-(nu + d) / 2)``
        - "exponential": ``exp(-r)``
        - "tophat": ``1`` for ``r < 1``
        - "epanechnikov": ``1 - r^2`` for ``r < 1``
        - "linear": ``1 - r`` for ``r < 1``
        - "cosine": ``cos(pi r / 2)`` for ``r < 1``

        The last four are zero beyond. With them "kl" must reach the nearest point of
        every point, so that in high dimension one outlier decides the bandwidth.

    degrees_of_freedom : float or "auto", default="auto"
        ``nu`` of "student"; above 1e60 it is "gaussian". "auto" takes the best of 3, 5,
        10, 30 and 100 by the search for the bandwidth, which must be "kl". Used by
        ``kernel="student"`` and by ``covariance_type="auto"``, which compares the
        Gaussian kernel with these tails; infinity leaves it the Gaussian kernel alone.

    support : {"euclidean", "sphere"}, default="euclidean"
        Where points are. With "sphere" rows have unit norm, as embeddings often do, and
        densities are with respect to surface measure: that of uniform points is one over
        the surface. Samples have unit norm, and gradients are tangent. `bandwidth` is in
        chords ``|x - y|``, and kernel "gaussian" is that of von Mises and Fisher, of
        concentration ``1 / bandwidth_^2``. For a `covariance_type` other than
        "spherical", or with `preserve_variance` or `adaptive`, it is the density of
        ``z / |z|`` with ``z`` from the estimate in space, for kernels "gaussian" and
        "student". Rows whose norm differs from 1 by more than 1e-3 are an error.

    covariance_type : {"spherical", "diag", "full", "local", "neighborhood", "auto", \
            "stack"}, default="spherical"
        Shape of the kernel, in which the bandwidth is a factor:

        - "spherical": the identity, in data units
        - "diag": the variance of each feature
        - "full": the covariance matrix of the points
        - "local": for each point the covariance of its component of a Gaussian mixture
        - "neighborhood": for each point the covariance of its nearest neighbours, shrunk
          to the mean of all such; up to 40 features
        - "auto": the best of the first four, with variance preserved, by "kl"
        - "stack": a mixture of the best of all five, with the weights that are best on
          the points that "kl" holds out; with ``feature_maps="auto"`` of the best for
          each map

    preserve_variance : bool, default=False
        Whether to shrink training points towards the mean (of their component, if
        "local"; of their neighbours, if "neighborhood") by a factor ``a`` with
        ``a^2 + h^2 v = 1``, ``v`` being the kernel's variance at ``h = 1``, so that the
        estimate has the variances of the points, and their covariance as far as its
        kernels have it: "full" and "local" up to the shrinkage of that covariance,
        "neighborhood" only roughly. At the largest ``h`` it is one kernel at the mean,
        or the mixture, or a kernel at the mean of each neighbourhood. For "spherical" the
        mean variance of the features takes the place of 1, and their sum is kept. "auto"
        and "stack" always do.

    adaptive : bool or int, default=False
        Whether each point's bandwidth is proportional to the distance to its ``k``-th
        nearest neighbour, ``k`` being 5 if True; its factors have a mean square of 1.

    feature_maps : None, "auto", "yeo-johnson", "gaussianize" or dict, default=None
        Increasing maps of single features that they go through first, with their
        Jacobian, so that log densities, gradients and samples stay in data units:

        - "yeo-johnson": a power of each feature, for skewed ones
        - "gaussianize": what makes each feature normal, by a kernel estimate of it
        - "auto": the best of these two and none, by "kl"
        - a dict of maps by column, index or name: one of the two above, "log" or
          ``("log", low)`` for features above a limit, 0 by default, and "logit" or
          ``("logit", low, high)`` for features between two, 0 and 1 by default. Outside
          such limits the density is zero; values of X there are an error

        Mapped features are standardised. Discrete ones of two values have no map unless
        a dict gives it. Maps are fitted in each fold that "kl" holds out. `bandwidth` is
        in units of mapped features.

    discrete_features : None, "auto", or array-like, default=None
        Features whose values are on a lattice, such as counts, booleans, codes of
        categories or rounded numbers: a mask of shape (n_features,), indices, or names.
        "auto" takes those whose values are multiples of a common step and at most half as
        many as rows. Their training values are spread evenly over one step, so that a
        log density is, up to smoothing, the log probability of the value, less the
        log of the step. :meth:`sample` returns values on the lattice. Rows
        that are equal count as different points if all features that vary are discrete.

    covariance_estimator : estimator, default=None
        Covariance estimator of scikit-learn for "full", fitted to standardised features.
        None is that of Ledoit and Wolf, so that fewer points than features suffice.
        :class:`~sklearn.covariance.EmpiricalCovariance` is the sample covariance, as
        scipy's ``gaussian_kde`` has it. With `sample_weight` these two have the weights,
        and others points repeated in proportion.

    mixture : estimator, default=None
        :class:`~sklearn.mixture.GaussianMixture`, or one with its attributes, for
        "local". It is fitted to X unless fitted; the search fits it to each fold in any
        case. In a :class:`~sklearn.frozen.FrozenEstimator` it stays as it is, also in the
        search and in clones: for one fitted to other data. With `feature_maps` it must
        not be fitted. None compares a few mixtures of full and of many diagonal
        components, and clusters with covariances shrunk to a common one.

    algorithm : {"exact", "neighbors", "sampling", "auto"}, default="exact"
        What :meth:`score_samples` sums over:

        - "exact": all training points
        - "neighbors": the nearest one by one, and a random sample of the others
        - "sampling": a random sample, as large as `tol` asks for, up to an eighth
        - "auto": the first that states an error within `tol`, query by query: a sample,
          neighbours, more neighbours, all points

        The user guide, "Millions of points", says when each pays. Gradients, and what
        :meth:`diagnose` adds to the log density, are always over all points.

    tol : float, default=0.01
        Error of a log density against the sum over all points, in nats, that is accepted
        unless `algorithm` is "exact"; errors stated hold for about 95 % of queries like
        the training points. Where one is larger a warning says so.

    n_neighbors : int, default=None
        For "neighbors" and "auto": how many are summed one by one; more make the error
        smaller. None chooses from 8 to 128 by `tol`, at 512 training points.

    neighbors_index : {"hnsw", "ivf", "exact"}, transformer or index, default=None
        For "neighbors" and "auto": what finds neighbours.

        - "hnsw": a graph, by faiss; "ivf": lists, by faiss
        - "exact": comparison with all points
        - a neighbours transformer in scikit-learn's manner with ``mode="distance"``, such
          as :class:`~sklearn.neighbors.KNeighborsTransformer`; its `n_neighbors` is the
          most that can be used
        - an empty index of faiss, of Euclidean distances, as ``faiss.index_factory``
          makes them: a copy is filled, and searched with the settings that it has
        - None: if faiss is installed, whichever of the first two suits the data, from
          the number of points on where an index is repaid by as many queries: some
          60,000 in 16 features, 35,000 in 384. Otherwise "exact" for "neighbors", none
          for "auto"

    backend : {"auto", "numpy", "keops", "torch"}, default="auto"
        What visits the pairs of queries and training points:

        - "numpy": tiles of matrix products on threads of the CPU
        - "keops": PyKeOps lazy tensors, on the GPU if there is one; compiles on first
          use, which takes seconds for each number of features
        - "torch": tiles of matrix products by torch, on the GPU if there is one
        - "auto": numpy, unless there is a CUDA GPU and one of the others is installed:
          then whichever should be fastest, by what the GPU and the host can do, which is
          measured once. Where that is not known: keops up to 16 features, torch above

    n_jobs : int, default=None
        Number of threads. None means as many as the BLAS would use, which is all cores
        unless the environment, ``threadpoolctl`` or joblib says otherwise. -1 means all
        cores.

    max_search_seconds : float, default=None
        Time after which the comparison of structures, maps and tails begins no further
        one: the best so far is fitted, and a warning names the others. None compares
        all.

    verbose : int, default=0
        Whether to show a progress bar; from 2 on the comparison of structures has a line
        for each, too.

    random_state : int, RandomState instance or None, default=None
        Draws the queries for "kl", "nearest" and "clt" on more than 4096 points, the
        folds, the start of mixtures, and the samples that `algorithm` sums over. Pass an
        int for the same estimate each time. What is drawn are positions of rows: in
        another order the same rows are another draw. :meth:`sample` has its own.

    Attributes
    ----------
    bandwidth_ : float
        The bandwidth in use.

    kernel_ : str
        The kernel in use, "gaussian" or "student" if chosen by "auto". This attribute,
        the next, `bandwidth_` and `preserve_variance_` are of a stack's heaviest density.

    degrees_of_freedom_ : float
        Of the kernel in use; infinite unless it is "student".

    covariance_type_ : {"spherical", "diag", "full", "local", "neighborhood", "stack"}
        The covariance in use.

    feature_maps_ : FeatureMaps or None
        The maps in use, of features that vary; of a stack those of its heaviest density.

    preserve_variance_ : bool
        Whether the estimate has the variances of the training points.

    constant_features_ : ndarray of int of shape (n_constant,)
        Columns that have one value in all training points. They have no part in choosing
        anything, and a kernel of one feature each, but for a numeric bandwidth with
        `covariance_type` "spherical".

    discrete_features_ : ndarray of int of shape (n_discrete,)
        Columns that were taken as discrete; constant ones are not among them.

    backend_ : {"numpy", "keops", "torch"}
        The backend in use when it was fitted.

    bandwidth_search_ : BandwidthSearch or None
        For ``bandwidth="kl"``, the mean log density at each bandwidth tried, and as
        ``candidates`` the maps, structures and degrees of freedom compared, with their
        weights in a stack; otherwise None.

    held_out_log_density_ : ndarray of shape (n_samples,)
        Log density of each training point by fits that did not see it, in nats: what to
        hold fresh points against. Made when first asked for, in a pass over all pairs.

    incomplete_rows_ : ndarray of int of shape (n_incomplete,)
        Rows of X that had missing values, which :meth:`fit` completed by draws.

    drift_ : Drift or None
        How much less likely the rows of the last :meth:`partial_fit` were than those of
        the fit, both held out: ``difference``, in nats, of their mean log densities, and
        the ``p_value`` of a rank test. Below 1e-4 it is ``significant``, of which a
        warning says. ``n_fitted`` rows chose bandwidth and structure, ``n_added`` came
        later. None before, and if too few rows are without duplicates: 8 of the fit.

    data_report_ : DataReport
        What the training points are: constant and discrete features, codes for missing
        values, linear dependence, duplicates, scales. Made when first asked for.

    n_neighbors_ : int
        Number of neighbours that are summed one by one; 0 if none are.

    neighbors_index_ : {"hnsw", "ivf", "exact", "transformer", "faiss"} or None
        What finds neighbours; None if nothing does.

    approximation_ : Report or None
        What the last :meth:`score_samples` used for each query: arrays ``algorithm``,
        ``error`` (stated, in nats), ``n_evaluations``. None before, and for "exact".

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    select_bandwidth : The bandwidth rules as a function, with more control.
    DensityImputer : Fills in missing values by such a density.
    kl_scorer : Scorer for :class:`~sklearn.model_selection.GridSearchCV`.
    skhdkde.dask.DaskHighDimKernelDensity : The same on a Dask cluster.
    sklearn.neighbors.KernelDensity : Tree-based estimate for few dimensions.
    sklearn.mixture.GaussianMixture : What "local" becomes at its largest bandwidth.

    Notes
    -----
    float32 data are computed in float32, where that is precise enough, and give float32
    results; half precision (float16, bfloat16 of torch) becomes float32, everything else
    float64. By ``algorithm="exact"`` log densities are within 1e-3 nats (float32) or 1e-8
    nats (float64) of the exact sum, or within rounding of the result itself where that
    is more; with a structure, of the sum over whitened coordinates rounded to the dtype.
    Where inner products would lose that precision, the pairs that matter are computed in
    float64 or from differences. That holds for queries at any distance; what is below the
    range of the dtype is -inf.

    With scikit-learn's ``array_api_dispatch`` X may be an array of another library, such
    as a torch tensor, and results are arrays of that library, on the device of X.
    Training points on a CUDA GPU stay there for the textbook's estimate.

    Fitting stores one copy of the data; two if their mean is far from the origin, or with
    a structure. A pickle holds one. Methods need at most 64 MiB per thread beside their
    result and a few numbers per query, and a copy of the queries if one is more than
    1e144 times as large as the data. The user guide, "Structures", has the formulas and
    what they cost.

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
    >>> kde.score_samples(None)[:3].round(2)  # each training point, without itself
    array([-77.25, -80.38, -76.39])
    >>> kde.diagnose(None).standard_error[:3].round(1)  # of these, in nats
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
            Training points. With kernels "gaussian" and "student", not on the sphere,
            values may be missing (NaN): see the notes.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a common factor has no effect. A point of weight ``k``
            counts as ``k`` points in all sums, means and covariances. The number of
            points, where a rule or a shrinkage has it, is the effective one,
            ``sum(w)^2 / sum(w^2)``. A weight below 2.2e-308 of the largest is 0.

        Returns
        -------
        self : object
            The fitted estimator. If fitting fails, it is as it was before.

        Raises
        ------
        ValueError
            If X or the weights are not as described, if a bandwidth rule is asked for
            and X has fewer than two distinct points, or if values are missing and fewer
            than 10 rows of positive weight are complete.
        ImportError
            If `backend` or `neighbors_index` needs a package that is not installed.

        Notes
        -----
        Where training points have missing values the complete rows are fitted first.
        What the others miss is drawn from the conditional density given what they have;
        then again from a fit to all rows, each without itself and its copies; and that is
        fitted: three fits in all, with a warning. ``incomplete_rows_`` says which rows
        they are.
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
        """Add training points; bandwidth and structure stay as they were fitted.

        The first call, of an estimator that is not fitted, is :meth:`fit`.

        Parameters
        ----------
        X : array-like of shape (n_new, n_features)
            Points to add, without missing values. They are kept in the dtype of the fit.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_new,), default=None
            Non-negative weights, on the scale of those that `fit` got; None stands for
            ones.

        Returns
        -------
        self : object
            The estimator with more points. If that fails, it is as it was before.

        Raises
        ------
        ValueError
            If X or the weights are not as described; if "auto" or "stack" chose
            bandwidths or covariances that come from neighbours, which new points may be;
            if the estimator was made by :meth:`marginal` or :meth:`conditional`; if
            parameters of the fit were set since; if features that were constant vary in
            X, discrete ones leave their lattice, or mapped ones their limits.
        AttributeError
            With `adaptive`, or ``covariance_type="neighborhood"``, there is no such
            method.

        Notes
        -----
        The sums are those of a fit to all rows at ``bandwidth_`` with the covariance, the
        mixture, the maps of features and the lattices of the first. The user guide, "Data
        that grow", says when to fit again, what stays and what follows; ``drift_`` says
        how likely new rows are by the old. An index of faiss gets the points added,
        others are made again.
        All points are copied: add many rows at once.

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
                "partial_fit adds points to an estimator that was fitted; this one was "
                f"made by {self._made_by} of another: add them to that one."
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
        """Columns that were taken as discrete; constant ones are not among them."""
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

        Fresh points are as likely: quantiles are thresholds, and the p-value of a point
        is ``(1 + k) / (n_samples + 1)`` where ``k`` of these are at most its log density.

        Without a structure each point is left out by itself, as ``score_samples(None)``
        does. Otherwise the points are split into 20 folds, duplicates together, and the
        setting of the fit (type of covariance, kernel, bandwidth) is fitted again without
        each: covariance, mixture, local scales and shrinkage. Points of weight zero have
        log densities too. Sums are over all points, for any `algorithm`. It is made when
        first asked for, and kept.
        """
        options = self._compute_options()
        return like(self._held_out.log_density(options), self._like)

    def density_level(self, mass: Any) -> float | np.ndarray:
        """Log density above which lies this share of the mass.

        The points with at least this log density are the *highest-density region*: of
        all regions that hold the share, the smallest.

        Parameters
        ----------
        mass : float or array-like of float
            Share of the mass, or several, each between 0 and 1. 0.95 is the region that
            leaves out the 5 % of points in the thinnest places.

        Returns
        -------
        level : float or ndarray of the shape of ``mass``
            In nats, to compare ``score_samples(X)`` with: a fresh point is as likely to
            have at least this log density.

        Raises
        ------
        ValueError
            If a share is not between 0 and 1, or if there are too few training points to
            hold some out.
        AttributeError
            If this is a marginal or conditional density of which none are held out.

        Notes
        -----
        It is a quantile of `held_out_log_density_`, with the weights of the fit: the
        largest of these that at least so much of the weight is not below. So of ``n``
        points none has a share above ``n / (n + 1)``, and of fresh points the share in
        the region varies by ``sqrt(mass (1 - mass) / n)`` over data sets.

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
        """What the training points are, feature by feature and as a whole.

        Constant and discrete features, codes for missing values, linear dependence,
        duplicates, scales: it is made from the training points when first asked for, and
        kept. What harms the estimate has been warned of by :meth:`fit`.
        """
        self._check_fitted()
        return self._table.report()

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density at each point.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), or None
            Points. A missing value (NaN) is integrated over, with kernels "gaussian" and
            "student": the row has the marginal density of what it has, and 0 nats if
            that is nothing. None stands for the training points, each without itself but
            not without its duplicates: the leave-one-out log density. Training points
            passed as X count themselves, and score far too high. Where a point has a
            share in a covariance, a mixture or local scales it is too likely all the
            same: see `held_out_log_density_`. In a Pipeline None cannot pass the other
            steps: ask its last step.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            Natural logarithm of the density, in nats; -inf where no training point is in
            reach of a compact kernel, or a feature is outside the limits of its map.
        """
        log_density, used = self._at(X, HighDimKernelDensity._log_density)
        if self._approximation is not None:
            # other threads may set the attribute meanwhile
            self.approximation_ = report = Report(used, self._approximation.tol)
            report.warn(self._approximation.algorithm)
        return like(log_density, self._like if X is None else X)

    def diagnose(self, X: Any = None) -> Diagnosis:
        """What stands behind each log density: regime, error bar, number of points.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), default=None
            Points. None stands for the training points, each without itself, as in
            :meth:`score_samples`. Of points with missing values all is said of the
            marginal density of what they have, and ``n_missing`` how many are missing.

        Returns
        -------
        diagnosis : Diagnosis
            With arrays of shape (n_queries,): ``log_density`` and its ``standard_error``
            over fresh data sets, in nats, ``tail_index``, ``h_g`` and ``h_clt``,
            ``regime``, ``effective_sample_size``, ``max_weight``; unless `algorithm` is
            "exact" ``approximation_error``; and ``shares``, those of the regimes.

        Notes
        -----
        All comes from one pass over all pairs, but ``log_density``, which is as
        :meth:`score_samples` has it. The standard error is the spread over data sets
        redrawn from a law that is fitted to the 32 nearest points and completed by the
        sum over the others; from a tail index of 4 on it is that of the central limit
        theorem. "Regimes and error bars" in the user guide derives and tests it.

        With ``sample_weight`` the fresh data sets have as many points, and each point
        brings a weight drawn from those of its surroundings.

        Covariances, mixture, shrinkage and local scales stay as they are in fresh data
        sets and thresholds. With several components or local scales a distance is one
        of the same kernel value in the whitened units of the point that contributes
        most.
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
        """Total log density of the points.

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
            Sum of :meth:`score_samples` times the weights, in nats. It grows with the
            number of points and with their weights; :func:`kl_scorer` does not.
        """
        return weighted_total(local(self.score_samples(X)), sample_weight)

    def log_density_gradient(self, X: Any) -> np.ndarray:
        """Gradient of the log density at each point.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Points.

        Returns
        -------
        gradient : ndarray of shape (n_queries, n_features)
            In nats per data unit. NaN where the density is zero, and for values that
            are missing: the others have the gradient of the marginal density. Where a
            kernel has a kink (exponential and linear at a training point) that point adds
            nothing.
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
            Points, in data units.
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
