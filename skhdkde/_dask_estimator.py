"""The estimator for training points and queries on a Dask cluster."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skhdkde._base import BaseKernelDensity
from skhdkde._diagnosis import Diagnosis
from skhdkde._distributed import Blocks, sphere_of
from skhdkde._distributed.dask_graph import (
    DaskTraining,
    checked,
    computed,
    float_dtype,
    from_memory,
    is_dask,
    on_sphere,
    total,
    training_arrays,
)
from skhdkde._fit import check_combination, fit_density
from skhdkde._utils.validation import check_data, check_n_jobs, weighted_total

# Parameters that need all points in one place, and what they may be here.
ALLOWED: dict[str, tuple] = {
    "algorithm": ("exact",),
    "covariance_type": ("spherical", "diag", "full"),
    "covariance_estimator": (None,),
    "mixture": (None,),
    "adaptive": (False,),
    "discrete_features": (None,),
    "feature_maps": (None,),
}


class DaskHighDimKernelDensity(BaseKernelDensity):
    """:class:`~skhdkde.HighDimKernelDensity` on a Dask cluster.

    Use it if the training points do not fit on one machine, or if one machine is too
    slow. The points are a dask array or DataFrame. The cluster holds their blocks of
    rows, or reads them one after another. Results are those of
    :class:`~skhdkde.HighDimKernelDensity`, however the rows are split into blocks.
    :doc:`/cluster` lists the differences, above all with duplicates.

    The parameters are the same, with these restrictions: `algorithm` must be "exact";
    `covariance_type` "spherical", "diag" or "full"; `adaptive` False;
    `discrete_features`, `feature_maps`, `covariance_estimator` and `mixture` None.

    Parameters
    ----------
    bandwidth : float or {"kl", "nearest", "clt", "gaussian", "scott", "silverman"}, \
            default="kl"
        The bandwidth, or the rule that chooses it. "kl" compares a random sample of the
        training points with all of them, in a few passes over the blocks.

    kernel : str, default="gaussian"
        The kernel; see :class:`~skhdkde.HighDimKernelDensity`.

    degrees_of_freedom : float or "auto", default="auto"
        Degrees of freedom of the kernel "student".

    support : {"euclidean", "sphere"}, default="euclidean"
        The space of the points. With "sphere" rows have unit norm, and densities are with
        respect to surface measure.

    covariance_type : {"spherical", "diag", "full"}, default="spherical"
        The covariance that gives the kernel its shape.

    preserve_variance : bool, default=False
        Whether the estimate has the variances of the training points.

    adaptive : bool, default=False
        Must be False.

    feature_maps : None
        Must be None.

    discrete_features : None
        Must be None.

    covariance_estimator : None
        Must be None: "full" uses the estimator of Ledoit and Wolf.

    mixture : None
        Must be None.

    algorithm : {"exact"}, default="exact"
        Must be "exact": sums are over all training points.

    tol, n_neighbors, neighbors_index : object
        No effect. They exist so that parameters of
        :class:`~skhdkde.HighDimKernelDensity` can be passed on.

    backend : {"auto", "numpy", "keops", "torch"}, default="auto"
        The library that computes the sums on each worker. A worker with a GPU uses its
        own GPU.

    n_jobs : int, default=None
        Number of threads of each task. None means one, since the scheduler gives each
        worker as many tasks at once as it has threads.

    max_search_seconds : float, default=None
        No effect: there is only one structure.

    verbose : int, default=0
        Whether to show progress bars. Results that are computed later show none.

    random_state : int, RandomState instance or None, default=None
        Draws the sample of points for "kl", "nearest" and "clt", and the folds, by
        positions of rows. :meth:`sample` has a `random_state` of its own.

    Attributes
    ----------
    bandwidth_, kernel_, degrees_of_freedom_, covariance_type_, preserve_variance_, \
            bandwidth_search_, constant_features_, n_features_in_, \
            feature_names_in_ : object
        As in :class:`~skhdkde.HighDimKernelDensity`. Above 65,536 points the number of
        duplicates in ``bandwidth_search_`` is an estimate. There is no
        ``held_out_log_density_``, ``density_level``, ``data_report_``, ``partial_fit`` or
        ``drift_``, and ``approximation_`` is None.

    backend_ : str
        The backend of the workers; several names, joined by "+", if they differ.

    See Also
    --------
    skhdkde.HighDimKernelDensity : The same on one machine, with more parameters.

    Notes
    -----
    The active :class:`distributed.Client` does the work; without one, threads of dask do.
    A task takes one block of training points and up to 32,768 queries. It holds both in
    memory, and at most about 200 MiB more. :doc:`/cluster` says how to choose blocks, and
    what happens when workers fail.

    Examples
    --------
    >>> import dask.array as da
    >>> from skhdkde.dask import DaskHighDimKernelDensity
    >>> X = da.random.default_rng(0).normal(size=(20_000, 30), chunks=(5_000, 30))
    >>> kde = DaskHighDimKernelDensity(random_state=0).fit(X)
    >>> kde.score_samples(X[:8])  # not yet computed
    dask.array<...shape=(8,), dtype=float64, chunksize=(8,), chunktype=numpy.ndarray>
    >>> kde.sample(2).shape
    (2, 30)
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Choose the bandwidth; the training points stay where they are.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_samples, n_features)
            Training points. The estimator refers to their blocks, and does not hold them:
            every pass reads them again, unless they are persisted.

        y : None
            Ignored; present by convention.

        sample_weight : dask array, dask Series or array-like of shape (n_samples,), \
                default=None
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
            If X or the weights are not as described, if parameters are not supported, or
            if blocks are larger than workers can hold. With ``support="sphere"`` also if
            a row is not of unit norm; this is checked first.
        RuntimeError
            If workers die repeatedly, or if blocks are lost from the cluster. Other
            methods raise it, too.
        """
        check_combination(self)
        check_distributed(self)
        fitted = copy.copy(self)
        X, weights = training_arrays(fitted, X, sample_weight)
        blocks, known, apart = fitted._points_apart(
            DaskTraining(X, weights, self.verbose)
        )
        fitted._training = blocks
        found = fit_density(known, self, apart)
        fitted._density = found.density
        fitted.__dict__.update(found.attributes())
        fitted.backend_ = "+".join(sorted(known.backends))
        fitted.approximation_ = None
        self.__dict__ = fitted.__dict__
        return self

    def _points_apart(self, blocks):
        """Return points without constant features, what is known of them, and these.

        On the sphere the points are brought to it, and the last is the sphere.
        """
        X = blocks.X
        if self.support == "sphere":
            dtype, sizes = float_dtype(X), blocks.sizes()
            apart = sphere_of(blocks.run, X.shape[1], dtype, sizes)
            self._checked_sphere(apart)
            points = on_sphere(X, apart)
        else:
            known = self._look_at(blocks)
            apart = self._set_apart(known.constant_features())
            if apart is None:
                return blocks, known, None
            points = apart.without(X)
        blocks = blocks.moved_to(points)
        return blocks, self._look_at(blocks), apart

    def _look_at(self, blocks):
        """Return what is known of blocks of training points."""
        sizes, X = blocks.sizes(), blocks.X
        return Blocks(
            blocks.run, X.shape[1], float_dtype(X), sizes, blocks.weighted, self
        )

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each point.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features), \
                or None
            Points. None means the training points, each one left out.

        Returns
        -------
        log_density : dask array or ndarray of shape (n_queries,)
            Natural logarithm of the density, in nats. For a dask array, a dask DataFrame
            and None it is a dask array with the blocks of X, not yet computed.
        """
        return self._at(X, "density")

    def diagnose(self, X: Any = None) -> Diagnosis:
        """Return the regime, the error bar and the effective sample size of each point.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features), \
                default=None
            Points. None means the training points, each one left out.

        Returns
        -------
        diagnosis : Diagnosis
            As in :class:`~skhdkde.HighDimKernelDensity`. Its arrays are numpy arrays, and
            are computed at once, for every kind of X.
        """
        self._check_fitted()
        dtype = self._density.dtype
        if X is not None:
            X, _ = self._queries(X)
            dtype = np.result_type(dtype, float_dtype(X))
        columns = self._compute(self._results(X, "diagnosis"), "diagnosis")
        log_density = columns[:, 0].astype(dtype)
        return Diagnosis.from_columns(
            log_density, columns[:, 1:], self.bandwidth_, self.kernel_, None
        )

    def score(self, X: Any, y: None = None, sample_weight: Any = None) -> float:
        """Return the total log density of the points, computed at once.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features)
            Points.

        y : None
            Ignored; present by convention.

        sample_weight : dask array, dask Series or array-like of shape (n_queries,), \
                default=None
            Non-negative weights: a point of weight ``k`` counts as ``k`` points.

        Returns
        -------
        log_likelihood : float
            Sum of the weights times :meth:`score_samples`, in nats.
        """
        log_density = self.score_samples(X)
        if is_dask(log_density) and (sample_weight is None or is_dask(sample_weight)):
            return float(self._compute(total(log_density, sample_weight), "score"))
        log_density = self._compute(log_density, "score")
        return weighted_total(log_density, self._compute(sample_weight, "score"))

    def log_density_gradient(self, X: Any) -> Any:
        """Return the gradient of the log density at each point.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features)
            Points.

        Returns
        -------
        gradient : dask array or ndarray of shape (n_queries, n_features)
            In nats per data unit; NaN where the density is zero. For a dask array or
            DataFrame it is a dask array, not yet computed.

        Raises
        ------
        ValueError
            If X is None: training points cannot be left out here.
        """
        if X is None:
            raise ValueError("X must be points, got None.")
        return self._at(X, "gradient")

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
            Points, in data units. The same `random_state` gives the same points as in
            :class:`~skhdkde.HighDimKernelDensity`.
        """
        self._check_fitted()
        rng = check_random_state(random_state)
        return self._density.draw(n_samples, rng, self._training.run)

    def _at(self, X, kind):
        """Results at X, computed unless X is of dask."""
        self._check_fitted()
        lazy = True
        if X is not None:
            X, lazy = self._queries(X)
        result = self._results(X, kind)
        return result if lazy else self._compute(result, kind)

    def _queries(self, X):
        """Queries as a dask array, and whether they were of dask."""
        if is_dask(X):
            return checked(self, X, reset=False), True
        return from_memory(check_data(self, X, reset=False)), False

    def _results(self, X, kind):
        if X is None:
            return self._training.at_own(self._density, kind)
        return self._training.at(self._density, kind, X)

    def _compute(self, result, label):
        return computed(result, self.verbose, label) if is_dask(result) else result

    def _check_fitted(self):
        """Raise an error if the estimator is not fitted, or its parameters are wrong."""
        check_is_fitted(self)
        self._validate_params()
        check_n_jobs(self.n_jobs)


def check_distributed(estimator):
    """Raise ValueError for parameters that need all points in one place."""
    for name, values in ALLOWED.items():
        value = getattr(estimator, name)
        if not any(value is v or (isinstance(v, str) and value == v) for v in values):
            shown = " or ".join(map(repr, values))
            raise ValueError(
                f"{name} must be {shown} for training points on a cluster, got "
                f"{value!r}. HighDimKernelDensity has all parameters: fit it to a random "
                "sample of them."
            )
