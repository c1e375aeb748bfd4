"""A transformer that fills in missing values by a density."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    OneToOneFeatureMixin,
    TransformerMixin,
    _fit_context,
    clone,
)
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_is_fitted

from skhdkde._estimator import HighDimKernelDensity

# The density unless another is given: few settings to choose, and few rows suffice.
DEFAULT: dict[str, Any] = {
    "covariance_type": "full",
    "kernel": "student",
    "preserve_variance": True,
}


class DensityImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill in missing values by conditional means or draws from a density.

    The missing values of a row are filled in given its other values. Means have too small
    variances and too large correlations; random draws keep both. The spread of several
    draws is the uncertainty of a value: ``estimator_.impute(X, n_samples)`` makes them.

    Parameters
    ----------
    estimator : HighDimKernelDensity, default=None
        The density, with kernel "gaussian" or "student"; it is cloned. None means
        ``HighDimKernelDensity(covariance_type="full", kernel="student",
        preserve_variance=True)``.

    sample_posterior : bool, default=False
        Whether to fill in a draw from the conditional density, jointly for all missing
        values of a row, instead of its mean.

    random_state : int, RandomState instance or None, default=None
        Seed of the default estimator and of the draws. Pass an int for the same values
        each time.

    Attributes
    ----------
    estimator_ : HighDimKernelDensity
        The fitted density.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    HighDimKernelDensity.impute : The method behind it, with many draws at once.
    sklearn.impute.KNNImputer : Fills in means of the nearest rows.

    Notes
    -----
    The fit itself completes training rows by draws, as described in
    :meth:`HighDimKernelDensity.fit`, but without the warning. At least 10 rows must be
    complete. If 20 % of all values are missing at random, one row in nine is complete
    with 10 features, and one in 87 with 20. If :meth:`transform` gets a row that
    the fit completed, the draw for this row is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import DensityImputer
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 1))
    >>> X = np.hstack([x, x**2, -x]) + 0.1 * rng.normal(size=(200, 3))
    >>> imputer = DensityImputer(random_state=0).fit(X)
    >>> imputer.transform([[1.5, np.nan, np.nan]]).round(1)
    array([[ 1.5,  2.2, -1.5]])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "impute"]), None],
        "sample_posterior": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        sample_posterior: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.estimator = estimator
        self.sample_posterior = sample_posterior
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Fit the density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training points, with NaN for missing values.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        ValueError
            If fewer than 10 rows are complete, or if the conditional density has no
            closed form: with a kernel other than "gaussian" and "student", or with
            ``support="sphere"``.
        """
        if self.estimator is None:
            own = HighDimKernelDensity(**DEFAULT, random_state=self.random_state)
        else:
            own = clone(self.estimator)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X has NaN in .* rows", UserWarning)
            own.fit(X, sample_weight=sample_weight)
        own._check_parts("DensityImputer")
        self.estimator_ = own
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return points with their missing values filled in.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Points, with NaN for missing values.

        Returns
        -------
        X : ndarray of shape (n_queries, n_features)
            The points, with missing values filled in and others unchanged.
        """
        check_is_fitted(self)
        if not self.sample_posterior:
            return self.estimator_.impute(X)
        return self.estimator_.impute(X, 1, self.random_state)[0]

    @property
    def n_features_in_(self) -> int:
        """Number of features seen during :meth:`fit`."""
        check_is_fitted(self)
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of features, defined only when `X` has names that are all strings."""
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
