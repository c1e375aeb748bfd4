"""Kernel sums over private rows, which may be published: differential privacy.

A fit releases noisy sums of Fourier features, once; these answer any number of queries.
What it takes is stated by ``epsilon`` and ``delta``: whatever an observer knows and sees,
a single row that comes or goes changes the probability of it by at most a factor
``exp(epsilon)``, up to ``delta``.

==================================  ====================================================
:class:`PrivateKernelDensity`       kernel sums, log densities, and their errors
:class:`PrivateDensityClassifier`   classes by similarity to their rows
==================================  ====================================================

:doc:`/private` has the threat model, what is exact, and what is not covered.
:func:`skhdkde.regimes.private_bandwidth` says from which bandwidth on it can work.
"""

from __future__ import annotations

import copy
import math
from numbers import Integral, Real
from typing import Any, Literal, NoReturn, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skhdkde._private import (
    Budget,
    NoisySums,
    feature_plan,
    noisy_count,
    noisy_sums,
    relative_error_target,
    typical_error,
)
from skhdkde._utils.arrays import local
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.validation import check_data
from skhdkde._utils.warnings import warn_user

__all__ = ["PrivateDensityClassifier", "PrivateKernelDensity"]

# Times the error at regimes.private_bandwidth: that itself is no reason to warn.
WARNED = 1.5


class _PrivateSums(BaseEstimator):
    """What both estimators share: parameters, and their checks."""

    _parameter_constraints: dict = {
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "delta": [Interval(Real, 0, 1, closed="left")],
        "bandwidth": "no_validation",
        "bounds": "no_validation",
        "n_components": [
            StrOptions({"auto"}),
            Interval(Integral, 2, None, closed="left"),
        ],
        "kernel": [StrOptions({"gaussian"})],
        "random_state": ["random_state"],
    }

    _if_missing = (
        "Leave out rows that have NaN, or fill them in with numbers that are public: "
        "what an imputer learns from the rows is not private."
    )

    epsilon: float
    delta: float
    bandwidth: Any
    bounds: Any
    n_components: Any
    random_state: Any
    n_features_in_: int

    def _budget(self):
        return Budget(float(self.epsilon), float(self.delta))

    def _checked_bandwidth(self):
        """Return the bandwidth, which must be a number: rules would look at the rows."""
        h = self.bandwidth
        if (
            isinstance(h, bool)
            or not isinstance(h, Real)
            or not 0.0 < float(h) < math.inf
        ):
            raise ValueError(
                f"bandwidth must be given, a positive number, got {h!r}: a rule would "
                "look at the rows, and what it finds would not be private. "
                "skhdkde.regimes.private_bandwidth has it from what is public."
            )
        return float(h)

    def _checked_box(self):
        """Return lower and upper bounds of all features, None for none."""
        if self.bounds is None:
            return None
        what = (
            "bounds must be None or (low, high), finite numbers or arrays of shape "
            f"({self.n_features_in_},) with low < high, got {self.bounds!r}. They must "
            "not come from the rows, which would not be private."
        )
        try:
            low, high = self.bounds
            ends = [
                np.broadcast_to(np.asarray(end, np.float64), self.n_features_in_)
                for end in (low, high)
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(what) from error
        if not (np.isfinite(ends).all() and (ends[0] < ends[1]).all()):
            raise ValueError(what)
        return ends[0], ends[1]

    def _checked_rows(self, X):
        """Return training rows as float64; rows outside the bounds are moved there."""
        X = np.asarray(local(check_data(self, X, reset=True)), dtype=np.float64)
        box = self._checked_box()
        return X if box is None else np.clip(X, *box)

    def _plan(self, n_rows, budget):
        """Return frequencies, from parameters and public numbers alone."""
        return feature_plan(
            n_rows,
            self.n_features_in_,
            self._checked_bandwidth(),
            budget,
            box=self._checked_box(),
            n_components=None if self.n_components == "auto" else int(self.n_components),
            rng=check_random_state(self.random_state),
        )

    def _queries(self, X, frequencies):
        """Return queries as float64; a lattice is right within its bounds only."""
        X = np.asarray(local(check_data(self, X, reset=False)), dtype=np.float64)
        if not frequencies.random:
            low, high = frequencies.box
            outside = ((X < low) | (X > high)).any(axis=1)
            if outside.any():
                raise ValueError(
                    f"X has {outside.sum()} rows outside bounds={self.bounds!r}, where a "
                    f"Fourier series knows nothing, such as row {outside.argmax()}. Fit "
                    "with wider bounds, or with none."
                )
        if far := self._far_rows(X, frequencies):
            raise ValueError(far)
        return X

    def _warn_of_far_rows(self, X, frequencies):
        """Warn of training rows that count as one point; that is not private."""
        if far := self._far_rows(X, frequencies):
            warn_user(f"{far} This warning is from the rows: do not publish it.")

    def _far_rows(self, X, frequencies):
        """Return what is wrong with rows too far for random frequencies, or nothing."""
        if not (far := frequencies.too_far(X)).any():
            return ""
        where = "zero" if self.bounds is None else "the middle of bounds"
        return (
            f"X has {far.sum()} rows more than {frequencies.reach:.0e} bandwidths from "
            f"{where}, such as row {far.argmax()}, which all count as just so far. Give "
            "bounds around what is expected, or subtract a point that is public."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags

    def _warn_of_noise(self, relative_error):
        """Warn if the noise is not small beside a typical kernel sum."""
        if relative_error > WARNED * relative_error_target():
            percent = 100.0 * min(relative_error, 9.99)
            size = f"{percent:.0f}" if percent < 100.0 else "100 or more"
            warn_user(
                f"bandwidth={self.bandwidth!r} may be too small for epsilon="
                f"{self.epsilon!r} and delta={self.delta!r}: by what is released the "
                f"noise may be {size} % of a typical kernel sum. For 10 % take a larger "
                "bandwidth, a larger epsilon or more rows; "
                "skhdkde.regimes.private_bandwidth says which bandwidth."
            )


class PrivateKernelDensity(_PrivateSums):
    """Kernel density estimate that may be published: differentially private.

    :meth:`fit` releases a noisy number of rows and noisy sums over rows of Fourier
    features of the Gaussian kernel. The fitted object, its pickle, and all that its
    methods return come from these alone; no row is held.

    Parameters
    ----------
    epsilon : float
        What one row may change: the probability of whatever is released, by at most a
        factor ``exp(epsilon)``. Each call of :meth:`fit` spends it anew.

    delta : float, default=0.0
        Probability, for each row, with which that may fail; far below one over the number
        of rows. Zero adds Laplace noise, else it is Gaussian, and less where there are
        many components.

    bandwidth : float
        In data units. It must be given: a rule would look at the rows.
        :func:`skhdkde.regimes.private_bandwidth` has the smallest that works.

    bounds : tuple (low, high), default=None
        Limits of the features, numbers or arrays of shape (n_features,), known without a
        look at the rows. Rows outside are moved to the nearest point inside. With up to
        some three features they make the noise smaller: a Fourier series takes the place
        of random frequencies. Queries must then be within.

    n_components : int or "auto", default="auto"
        Number of random frequencies. With ``delta=0`` noise grows with its root, and the
        error of the kernel falls with its root; "auto" is best where the relative error
        is 10 %, and takes a Fourier series where this is better. With ``delta > 0`` more
        are better, and take longer; "auto" takes 2,048
        to 8,192.

    kernel : {"gaussian"}, default="gaussian"
        The kernel.

    random_state : int, RandomState instance or None, default=None
        Of the random frequencies [1]_, which are public. Noise never comes from it, but
        from the operating system, so that each fit has other noise.

    Attributes
    ----------
    n_rows_ : int
        Number of rows, with noise of standard deviation ``28 / epsilon``, or 1.4 if that
        is more; at least 1.

    features_ : {"random", "lattice"}
        Whether frequencies are random or a Fourier series.

    n_components_ : int
        Number of frequencies.

    relative_error_ : float
        Error of a kernel sum relative to its size, at a typical row, from what is
        released; too large, or infinite, where that says little. :meth:`fit` warns if it
        is above 0.15.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings. They are
        not protected.

    See Also
    --------
    PrivateDensityClassifier : A release for each class.
    skhdkde.regimes.private_bandwidth : The smallest bandwidth that works.
    skhdkde.HighDimKernelDensity : Without privacy.

    Notes
    -----
    **What is protected.** Data sets are neighbours if one has one row more. Replacing a
    row is two such steps, ``2 epsilon``. A person with several rows has as many times
    epsilon. Not protected: names and number of features, parameters, that a fit took
    place, how long it took, errors and warnings about `X`.

    **Sensitivity.** With frequencies ``omega_j``, coefficients ``c_j`` (``1 / m`` for
    ``m`` random ones) and sizes ``v_j`` a row ``x`` adds ``v_j cos(omega_j x)`` and
    ``v_j sin(omega_j x)`` to the sums. As ``|cos| + |sin| <= sqrt(2)`` and
    ``cos^2 + sin^2 = 1``, wherever ``x`` is, one row changes all sums together by at most
    ``sqrt(2) sum(v_j)`` in L1 and ``sqrt(sum(v_j^2))`` in L2; no row need be clipped.
    Laplace noise has the scale ``L1 / epsilon``; Gaussian noise that of Balle and Wang
    [4]_. With equal noise in all sums ``v_j`` in proportion to ``c_j^(2/3)`` (Laplace)
    and ``c_j^(1/2)`` (Gaussian) make the error of kernel sums least: its variance is
    ``4 (sum c_j^(2/3))^3 / epsilon^2``, which is ``4 m / epsilon^2`` for random
    frequencies, and ``s^2 (sum c_j)^2`` with ``s`` the Gaussian scale for a sensitivity
    of 1.

    **Composition.** The number of rows takes 5 % of epsilon, the sums the rest with all
    of delta. The number of components follows from the noisy number of rows. Frequencies
    do not depend on the rows: who knows them, or their seed, knows nothing of rows.

    **Exactness.** Sums are of whole numbers, features are rounded to them, and what a row
    adds depends on this row alone to the last bit. Sensitivities are those of the whole
    numbers. Noise is discrete Laplace or discrete Gaussian, drawn exactly [5]_ from
    ``os.urandom``; what the latter differs from the Gaussian is taken from delta. So
    attacks by floating-point rounding have nothing to work on.

    **Weights** are not taken: a row of weight ``w`` would need ``w`` times the noise.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Random features for large-scale kernel machines",
       2007.
    .. [2] R. Hall, A. Rinaldo and L. Wasserman, "Differential privacy for functions and
       functional data", 2013: with a lattice and ``delta > 0`` the noise of kernel sums
       is their Gaussian process.
    .. [3] T. Wagner, Y. Naamad and N. Mishra, "Fast private kernel density estimation via
       locality sensitive quantization", 2023, arXiv:2307.01877.
    .. [4] B. Balle and Y.-X. Wang, "Improving the Gaussian mechanism for differential
       privacy", 2018, arXiv:1805.06530.
    .. [5] C. Canonne, G. Kamath and T. Steinke, "The discrete Gaussian for differential
       privacy", 2020, arXiv:2004.00010.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.private import PrivateKernelDensity
    >>> from skhdkde.regimes import private_bandwidth
    >>> X = np.random.default_rng(0).normal(size=(20000, 5))
    >>> h = private_bandwidth(20000, np.ones(5), epsilon=1.0)
    >>> round(h, 2)
    1.01
    >>> kde = PrivateKernelDensity(epsilon=1.0, bandwidth=1.2 * h, random_state=0).fit(X)
    >>> found, truth = kde.score_samples(np.zeros((1, 5))), -6.9
    >>> bool(abs(found[0] - truth) < 0.5)  # noise differs from fit to fit
    True
    """

    n_rows_: int
    features_: Literal["random", "lattice"]
    n_components_: int
    relative_error_: float
    _released: NoisySums

    def __init__(
        self,
        epsilon: float,
        *,
        delta: float = 0.0,
        bandwidth: float | None = None,
        bounds: Any = None,
        n_components: int | Literal["auto"] = "auto",
        kernel: Literal["gaussian"] = "gaussian",
        random_state: int | np.random.RandomState | None = None,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.bandwidth = bandwidth
        self.bounds = bounds
        self.n_components = n_components
        self.kernel = kernel
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: None = None) -> Self:
        """Release noisy sums over the rows, which spends epsilon and delta.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. They are not kept.

        y : None
            Ignored; present by convention.

        Returns
        -------
        self : object
            The fitted estimator. If fitting fails, it is as it was before.

        Raises
        ------
        ValueError
            If X or a parameter is not as described.
        """
        fitted = copy.copy(self)
        rows = fitted._checked_rows(X)
        budget = self._budget()
        n_rows = noisy_count(len(rows), budget)
        fitted.n_rows_ = max(n_rows, 1)
        frequencies = fitted._plan(fitted.n_rows_, budget)
        fitted._warn_of_far_rows(rows, frequencies)
        fitted._released = noisy_sums(rows, frequencies, budget)
        fitted.features_ = "random" if frequencies.random else "lattice"
        fitted.n_components_ = len(frequencies.coefficients)
        fitted._fitted_bandwidth = frequencies.bandwidth
        fitted.relative_error_ = typical_error(
            [fitted._released], fitted.n_rows_, budget.count_error
        )
        fitted._warn_of_noise(fitted.relative_error_)
        self.__dict__ = fitted.__dict__
        return self

    def score_samples(self, X: Any) -> FloatArray:
        """Return log densities of queries.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries. Any number of calls spends nothing more.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            In nats, the log of :meth:`kernel_sum` over ``n_rows_`` and the volume of the
            kernel. Noise can make a sum zero or negative, where the log density is -inf,
            with a warning; :meth:`kernel_sum` has what was found there.
        """
        sums = self.kernel_sum(X)
        if (none := sums <= 0.0).any():
            warn_user(
                f"{none.sum()} of {len(sums)} queries have a noisy kernel sum of zero or "
                "below, and log density -inf: noise is larger than what is there. "
                "kernel_sum and standard_error have the numbers."
            )
        log_volume = self.n_features_in_ * math.log(
            math.sqrt(2.0 * math.pi) * self._fitted_bandwidth
        )
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(sums, 0.0)) - math.log(self.n_rows_) - log_volume

    def kernel_sum(self, X: Any) -> FloatArray:
        """Return noisy sums of kernel values over the rows of the fit.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries.

        Returns
        -------
        kernel_sum : ndarray of shape (n_queries,)
            Sums of ``exp(-|x - y|^2 / (2 bandwidth^2))`` over rows ``x``, without bias:
            they may be negative.
        """
        return self._sums_and_errors(X)[0]

    def standard_error(self, X: Any) -> FloatArray:
        """Return standard errors of :meth:`kernel_sum`.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries.

        Returns
        -------
        standard_error : ndarray of shape (n_queries,)
            Over noise and random frequencies, for the rows of the fit as they are; in the
            units of the sum. Over the sum it is that of a log density, in nats, where it
            is small.
        """
        return self._sums_and_errors(X)[1]

    def sample(self, n_samples: int = 1, random_state: Any = None) -> NoReturn:
        """Refuse to draw samples: noisy sums are not a density, as they may be negative.

        Parameters
        ----------
        n_samples : int, default=1
            Not used.

        random_state : int, RandomState instance or None, default=None
            Not used.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "A private estimate has no samples: noise makes it negative in places. Use "
            "score_samples to weigh points of your own."
        )

    def _sums_and_errors(self, X):
        check_is_fitted(self)
        return self._released.kernel_sums(self._queries(X, self._released.frequencies))


class PrivateDensityClassifier(ClassifierMixin, _PrivateSums):
    """Classes by similarity to private rows, which may be published.

    For each class the noisy kernel sum over its rows is released, and a query belongs to
    the class of the largest. That is Bayes' rule, with the shares of the rows as priors;
    with as many rows in each class it is average similarity, as in Backurs et al. [1]_.

    Parameters
    ----------
    epsilon : float
        What one row, with its class, may change, as in :class:`PrivateKernelDensity`. A
        row is in one class only, so each class may spend all of it.

    classes : array-like of shape (n_classes,)
        Labels. They must be given: that a class has a row would not be private.

    delta : float, default=0.0
        Probability, for each row, with which the factor may fail; far below one over the
        number of rows.

    bandwidth : float
        In data units; it must be given.

    bounds : tuple (low, high), default=None
        Limits of the features, known without a look at the rows.

    n_components : int or "auto", default="auto"
        Number of random frequencies, the same for all classes; "auto" as in
        :class:`PrivateKernelDensity`, for the mean number of rows of a class.

    kernel : {"gaussian"}, default="gaussian"
        The kernel.

    random_state : int, RandomState instance or None, default=None
        Of the random frequencies, which are public. Noise never comes from it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.

    n_rows_ : int
        Number of rows of all classes, with noise; at least 1.

    relative_error_ : float
        Error of the kernel sum of its own class, relative to its size, at a typical row,
        from what is released; too large, or infinite, where that says little. :meth:`fit`
        warns if it is above 0.15.

    n_components_ : int
        Number of frequencies.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    PrivateKernelDensity : The kernel sums, and what they protect.
    skhdkde.DensityClassifier : Without privacy.

    Notes
    -----
    Data sets are neighbours if one has one row more, of any class. Only the release of
    that class differs, so that all together are as private as one (parallel composition).
    A changed label is one row less and one more, ``2 epsilon``. What is said of
    sensitivity and exactness of :class:`PrivateKernelDensity` holds for each class. The
    number of all rows takes 5 % of epsilon; those of single classes are not released.

    References
    ----------
    .. [1] A. Backurs, Z. Lin, S. Mahabadi, S. Silwal and J. Tarnawski, "Efficiently
       computing similarities to private datasets", 2024, arXiv:2403.08917.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhdkde.private import PrivateDensityClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = PrivateDensityClassifier(
    ...     epsilon=2.0, delta=1e-5, classes=range(10), bandwidth=25.0, random_state=0
    ... ).fit(X[::2], y[::2])
    >>> classifier.score(X[1::2], y[1::2]) > 0.7  # noise differs from fit to fit
    True
    """

    _parameter_constraints: dict = {
        **_PrivateSums._parameter_constraints,
        "classes": ["array-like"],
    }

    classes_: np.ndarray
    n_rows_: int
    n_components_: int
    relative_error_: float
    _released: list[NoisySums]

    def __init__(
        self,
        epsilon: float,
        *,
        classes: Any = None,
        delta: float = 0.0,
        bandwidth: float | None = None,
        bounds: Any = None,
        n_components: int | Literal["auto"] = "auto",
        kernel: Literal["gaussian"] = "gaussian",
        random_state: int | np.random.RandomState | None = None,
    ):
        self.epsilon = epsilon
        self.classes = classes
        self.delta = delta
        self.bandwidth = bandwidth
        self.bounds = bounds
        self.n_components = n_components
        self.kernel = kernel
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> Self:
        """Release noisy sums over the rows of each class, which spends epsilon and delta.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. They are not kept.

        y : array-like of shape (n_samples,)
            Class of each row.

        Returns
        -------
        self : object
            The fitted classifier. If fitting fails, it is as it was before.

        Raises
        ------
        ValueError
            If X, y or a parameter is not as described.
        """
        fitted = copy.copy(self)
        rows = fitted._checked_rows(X)
        fitted.classes_, members = fitted._members(y, len(rows))
        budget = self._budget()
        fitted.n_rows_ = max(noisy_count(len(rows), budget), 1)
        frequencies = fitted._plan(fitted.n_rows_ / len(members), budget)
        fitted._warn_of_far_rows(rows, frequencies)
        fitted._released = [noisy_sums(rows[m], frequencies, budget) for m in members]
        fitted.n_components_ = len(frequencies.coefficients)
        fitted.relative_error_ = typical_error(
            fitted._released, fitted.n_rows_, budget.count_error
        )
        fitted._warn_of_noise(fitted.relative_error_)
        self.__dict__ = fitted.__dict__
        return self

    def kernel_sums(self, X: Any) -> FloatArray:
        """Return noisy sums of kernel values over the rows of each class.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries.

        Returns
        -------
        kernel_sums : ndarray of shape (n_queries, n_classes)
            In the order of ``classes_``, without bias: they may be negative.
        """
        check_is_fitted(self)
        X = self._queries(X, self._released[0].frequencies)
        return np.column_stack([each.kernel_sums(X)[0] for each in self._released])

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries.

        Returns
        -------
        label : ndarray of shape (n_queries,)
            That of the largest sum.
        """
        best = np.argmax(self.kernel_sums(X), axis=1)
        return self.classes_[best]

    def _members(self, y, n_rows):
        """Return labels, and which rows are of each: a row is of one only."""
        classes = np.unique(column_or_1d(np.asarray(list(self.classes))))
        if len(classes) < 2:
            raise ValueError(
                f"classes must have two labels or more, got {self.classes!r}."
            )
        y = column_or_1d(y, warn=True)
        if len(y) != n_rows:
            raise ValueError(f"y has {len(y)} labels for {n_rows} rows of X.")
        members = [y == label for label in classes]
        if (strange := np.sum(members, axis=0) != 1).any():
            raise ValueError(
                f"y has {strange.sum()} labels that are not in classes, or equal to two "
                "of them."
            )
        return classes, members
