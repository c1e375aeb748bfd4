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

    For training points that do not fit one machine, or for which one is too slow. They
    are a dask array or DataFrame of which the cluster holds, or can read, one block of
    rows after another. Results are those of the other class, for any blocks; what
    differs, above all with duplicates, is in the user guide.

    Parameters are those of the other class, with these restrictions: `algorithm` is
    "exact", `covariance_type` "spherical", "diag" or "full", `discrete_features`,
    `feature_maps`, `covariance_estimator` and `mixture` None and `adaptive` False.

    Parameters
    ----------
    bandwidth : float or {"kl", "nearest", "clt", "gaussian", "scott", "silverman"}, \
            default="kl"
        The bandwidth, or the rule that chooses it. "kl" compares a random sample of the
        training points to all of them, in a few passes over the blocks.

    kernel : str, default="gaussian"
        The kernel.

    degrees_of_freedom : float or "auto", default="auto"
        Of the kernel "student".

    support : {"euclidean", "sphere"}, default="euclidean"
        Where points are: with "sphere" rows have unit norm, and densities are with
        respect to surface measure.

    covariance_type : {"spherical", "diag", "full"}, default="spherical"
        Shape of the kernel.

    preserve_variance : bool, default=False
        Whether the estimate has the variances of the training points.

    adaptive : bool, default=False
        False.

    feature_maps : None
        None.

    discrete_features : None
        None.

    covariance_estimator : None
        "full" takes the estimate of Ledoit and Wolf.

    mixture : None
        None.

    algorithm : {"exact"}, default="exact"
        All training points.

    tol, n_neighbors, neighbors_index : object
        Without effect; there so that parameters of the other class can be passed on.

    backend : {"auto", "numpy", "keops", "torch"}, default="auto"
        What visits the pairs on each worker; a worker with a GPU uses its own.

    n_jobs : int, default=None
        Threads of each task. None means one, since the scheduler gives each worker as
        many tasks at once as it has threads.

    max_search_seconds : float, default=None
        Without effect: there is one structure, so that none is left out.

    verbose : int, default=0
        Whether to show progress, except of what is computed later.

    random_state : int, RandomState instance or None, default=None
        Draws the queries for "kl", "nearest" and "clt", and the folds, by positions of
        rows. :meth:`sample` has its own.

    Attributes
    ----------
    bandwidth_, kernel_, degrees_of_freedom_, covariance_type_, preserve_variance_, \
            bandwidth_search_, constant_features_, n_features_in_, \
            feature_names_in_ : object
        As of :class:`~skhdkde.HighDimKernelDensity`. The number of duplicates
        that ``bandwidth_search_`` states is an estimate above 65,536 points. There are
        no ``held_out_log_density_`` and no ``data_report_``, hence no ``density_level``;
        no ``partial_fit``, hence no ``drift_``; and ``approximation_`` is None.

    backend_ : str
        What the workers use; several names, joined by "+", if they differ.

    See Also
    --------
    skhdkde.HighDimKernelDensity : The same on one machine, with more parameters.

    Notes
    -----
    Work is done by the active :class:`distributed.Client`, or without one by threads of
    dask. A task takes one block of training points and up to 32,768 queries. It holds
    both and at most about 200 MiB besides. The user guide, "Beyond one machine", says how
    to choose blocks, and what happens when workers fail.

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
        """Look at the training points, which stay where they are; choose the bandwidth.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_samples, n_features)
            Training points. Their blocks are read again in every pass, unless they were
            persisted; the estimator refers to them, and does not hold them.

        y : None
            Ignored; present by convention.

        sample_weight : dask array, dask Series or array-like of shape (n_samples,), \
                default=None
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
            If X or the weights are not as described, if parameters are not supported, or
            if blocks are larger than workers can hold. With ``support="sphere"`` if a row
            is not of unit norm, before anything else is computed.
        RuntimeError
            If a worker died again and again, or blocks are gone from the cluster. Other
            methods raise it too.
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
        """Log density at each point.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features), \
                or None
            Points. None stands for the training points, each without itself.

        Returns
        -------
        log_density : dask array or ndarray of shape (n_queries,)
            Natural logarithm of the density, in nats. A dask array, not yet computed, in
            blocks like those of X, for a dask array, a DataFrame and None.
        """
        return self._at(X, "density")

    def diagnose(self, X: Any = None) -> Diagnosis:
        """What stands behind each log density: regime, error bar, number of points.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features), \
                default=None
            Points. None stands for the training points, each without itself.

        Returns
        -------
        diagnosis : Diagnosis
            As of :class:`~skhdkde.HighDimKernelDensity`: of numpy arrays, for all kinds
            of X. It is computed at once.
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
        """Total log density of the points, computed at once.

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
            Sum of :meth:`score_samples` times the weights, in nats.
        """
        log_density = self.score_samples(X)
        if is_dask(log_density) and (sample_weight is None or is_dask(sample_weight)):
            return float(self._compute(total(log_density, sample_weight), "score"))
        log_density = self._compute(log_density, "score")
        return weighted_total(log_density, self._compute(sample_weight, "score"))

    def log_density_gradient(self, X: Any) -> Any:
        """Gradient of the log density at each point.

        Parameters
        ----------
        X : dask array, dask DataFrame or array-like of shape (n_queries, n_features)
            Points.

        Returns
        -------
        gradient : dask array or ndarray of shape (n_queries, n_features)
            In nats per data unit, NaN where the density is zero; not yet computed if X is
            of dask.

        Raises
        ------
        ValueError
            If X is None: a training point is not left out here.
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
            Points, in data units; for the same `random_state` those of the other class.
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
                f"{value!r}. HighDimKernelDensity, on a random sample of them, has all "
                "parameters."
            )
