"""What the estimators share: parameters, their checks, and fitted attributes."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skhdkde._approximation import Report
from skhdkde._density import columns_of, warn_of_constant_features
from skhdkde._fit import sees_constant_features
from skhdkde._kernels import KERNEL_NAMES
from skhdkde._pairwise import BACKENDS
from skhdkde._selection import RULES
from skhdkde._utils.hints import about_unknown, explained, hinting
from skhdkde._utils.warnings import warn_user

Rule = Literal["kl", "nearest", "clt", "gaussian", "scott", "silverman"]
KernelName = Literal[
    "gaussian", "student", "exponential", "tophat", "epanechnikov", "linear", "cosine"
]
Support = Literal["euclidean", "sphere"]
CovarianceType = Literal[
    "spherical", "diag", "full", "local", "neighborhood", "auto", "stack"
]
FeatureMapName = Literal["auto", "yeo-johnson", "gaussianize"]
Algorithm = Literal["exact", "neighbors", "sampling", "auto"]
IndexName = Literal["hnsw", "ivf", "exact"]
Backend = Literal["auto", "numpy", "keops", "torch"]


class BaseKernelDensity(DensityMixin, BaseEstimator):
    """Parameters and fitted attributes, wherever the training points are."""

    bandwidth_: float
    kernel_: str
    degrees_of_freedom_: float
    covariance_type_: str
    preserve_variance_: bool
    feature_maps_: Any  # FeatureMaps, or None
    backend_: str
    bandwidth_search_: Any  # a BandwidthSearch; None where nothing was searched
    n_neighbors_: int
    neighbors_index_: str | None
    approximation_: Report | None
    _constant_columns: tuple[int, ...]
    n_features_in_: int
    feature_names_in_: np.ndarray

    _parameter_constraints: dict = {
        "bandwidth": [Interval(Real, 0, None, closed="neither"), StrOptions(set(RULES))],
        "kernel": [StrOptions(set(KERNEL_NAMES))],
        "degrees_of_freedom": [
            Interval(Real, 0, None, closed="right"),
            StrOptions({"auto"}),
        ],
        "support": [StrOptions({"euclidean", "sphere"})],
        "covariance_type": [
            StrOptions(
                {"spherical", "diag", "full", "local", "neighborhood", "auto", "stack"}
            )
        ],
        "feature_maps": [StrOptions({"auto", "yeo-johnson", "gaussianize"}), dict, None],
        "preserve_variance": ["boolean"],
        "adaptive": ["boolean", Interval(Integral, 1, None, closed="left")],
        "discrete_features": ["array-like", StrOptions({"auto"}), None],
        "covariance_estimator": [HasMethods(["fit"]), None],
        "mixture": [HasMethods(["fit", "predict"]), None],
        "algorithm": [StrOptions({"exact", "neighbors", "sampling", "auto"})],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "neighbors_index": [
            StrOptions({"hnsw", "ivf", "exact"}),
            HasMethods(["fit", "transform"]),
            HasMethods(["train", "add", "search"]),
            None,
        ],
        "backend": [StrOptions(set(BACKENDS))],
        "n_jobs": [Integral, None],
        "max_search_seconds": [Interval(Real, 0, None, closed="left"), None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    @explained
    def __init__(
        self,
        *,
        bandwidth: float | Rule = "kl",
        kernel: KernelName = "gaussian",
        degrees_of_freedom: float | Literal["auto"] = "auto",
        support: Support = "euclidean",
        covariance_type: CovarianceType = "spherical",
        preserve_variance: bool = False,
        adaptive: bool | int = False,
        feature_maps: FeatureMapName | dict | None = None,
        discrete_features: Any = None,
        covariance_estimator: Any = None,
        mixture: Any = None,
        algorithm: Algorithm = "exact",
        tol: float = 0.01,
        n_neighbors: int | None = None,
        neighbors_index: IndexName | Any = None,
        backend: Backend = "auto",
        n_jobs: int | None = None,
        max_search_seconds: float | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.bandwidth = bandwidth
        self.kernel = kernel
        self.degrees_of_freedom = degrees_of_freedom
        self.support = support
        self.covariance_type = covariance_type
        self.preserve_variance = preserve_variance
        self.adaptive = adaptive
        self.feature_maps = feature_maps
        self.discrete_features = discrete_features
        self.covariance_estimator = covariance_estimator
        self.mixture = mixture
        self.algorithm = algorithm
        self.tol = tol
        self.n_neighbors = n_neighbors
        self.neighbors_index = neighbors_index
        self.backend = backend
        self.n_jobs = n_jobs
        self.max_search_seconds = max_search_seconds
        self.verbose = verbose
        self.random_state = random_state

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Parameters by name. Write ``mixture__n_components`` for a parameter of an
            estimator that is itself a parameter, here `mixture`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If the estimator has no such parameter.
        """
        try:
            return super().set_params(**params)
        except ValueError as error:
            names = [name.partition("__")[0] for name in params]
            kind = type(self).__name__
            if unknown := about_unknown(kind, names, self._get_param_names()):
                error.args = (f"{error} {unknown}",)
            raise

    def __getstate__(self):
        return {**super().__getstate__(), "_version": _version()}

    def __setstate__(self, state):
        state = dict(state)
        if (version := state.pop("_version", "an earlier version")) != _version():
            warn_user(
                f"{type(self).__name__} was pickled by skhdkde {version}, and this is "
                f"{_version()}: its methods may fail, or give wrong numbers. Load it "
                "with the version that pickled it, or fit again."
            )
        super().__setstate__(state)

    def _validate_params(self):
        with hinting(self._parameter_constraints, vars(self)):
            super()._validate_params()

    @property
    def constant_features_(self) -> np.ndarray:
        """Columns that have one value in all training points."""
        return np.array(self._constant_columns, dtype=int)

    def _checked_sphere(self, sphere):
        """Record the sphere that points are on, with a warning of constant features."""
        self._constant_columns = tuple(sphere.columns.tolist())
        sphere.check()
        sphere.warn(getattr(self, "feature_names_in_", None))

    def _set_apart(self, found):
        """Record constant features; return them if the density is to be without them."""
        self._constant_columns = tuple(columns_of(found).tolist())
        if found is None or sees_constant_features(self):
            return None
        warn_of_constant_features(found, getattr(self, "feature_names_in_", None))
        return found


def _version():
    """Return the version of this package, of which this module is a part."""
    return sys.modules["skhdkde"].__version__
