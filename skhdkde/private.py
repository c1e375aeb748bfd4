"""Kernel sums over private rows that may be published: differential privacy.

A fit releases noisy sums of Fourier features, once. They answer any number of queries.
The privacy is stated by ``epsilon`` and ``delta``: adding or removing a single row
changes the probability of any published result by at most the factor ``exp(epsilon)``,
plus ``delta``.

==================================  ====================================================
:class:`PrivateKernelDensity`       kernel sums, log densities, and their errors
:class:`PrivateDensityClassifier`   classes by similarity to their rows
==================================  ====================================================

:doc:`/private` has the threat model, what is exact, and what is not covered.
:func:`skhdkde.regimes.private_bandwidth` returns the smallest bandwidth that works.
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
                "look at the rows, and its result would not be private. "
                "skhdkde.regimes.private_bandwidth computes one from public numbers."
            )
        return float(h)

    def _checked_box(self):
        """Return lower and upper bounds of all features, None for none."""
        if self.bounds is None:
            return None
        what = (
            "bounds must be None or (low, high), finite numbers or arrays of shape "
            f"({self.n_features_in_},) with low < high, got {self.bounds!r}. They must "
            "not come from the rows, since they would not be private."
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
                    f"X has {outside.sum()} rows outside bounds={self.bounds!r}, such as "
                    f"row {outside.argmax()}. The Fourier series is not valid there. Fit "
                    "with wider bounds, or with none."
                )
        if far := self._far_rows(X, frequencies):
            raise ValueError(far)
        return X

    def _warn_of_far_rows(self, X, frequencies):
        """Warn of training rows that count as one point; that is not private."""
        if far := self._far_rows(X, frequencies):
            warn_user(f"{far} This warning depends on the rows: do not publish it.")

    def _far_rows(self, X, frequencies):
        """Return what is wrong with rows too far for random frequencies, or nothing."""
        if not (far := frequencies.too_far(X)).any():
            return ""
        where = "zero" if self.bounds is None else "the middle of bounds"
        return (
            f"X has {far.sum()} rows more than {frequencies.reach:.0e} bandwidths from "
            f"{where}, such as row {far.argmax()}. They count as rows at that distance. "
            "Pass bounds around the expected values, or subtract a public point from X."
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
                f"{self.epsilon!r} and delta={self.delta!r}: the noise may be {size} % "
                "of a typical kernel sum, by an estimate from what is released. For 10 % "
                "use a larger bandwidth, a larger epsilon or more rows. "
                "skhdkde.regimes.private_bandwidth returns the bandwidth."
            )


class PrivateKernelDensity(_PrivateSums):
    """Kernel density estimate with differential privacy, which may be published.

    :meth:`fit` releases a noisy number of rows, and noisy sums over the rows of Fourier
    features of the Gaussian kernel. The fitted object, its pickle and all results of its
    methods are computed from these alone. The rows are not stored.

    Parameters
    ----------
    epsilon : float
        Privacy loss, above 0. A single row changes the probability of any release by at
        most the factor ``exp(epsilon)``. Each call of :meth:`fit` spends it again.

    delta : float, default=0.0
        Probability, for each row, with which this guarantee may fail. It should be far
        below one over the number of rows. With 0 the noise is Laplace noise. Otherwise it
        is Gaussian noise, which is smaller if there are many components.

    bandwidth : float
        Bandwidth, in data units. It must be given, since a rule would look at the rows.
        :func:`skhdkde.regimes.private_bandwidth` returns the smallest one that works.

    bounds : tuple (low, high), default=None
        Limits of the features, numbers or arrays of shape (n_features,), in data units.
        They must be known without a look at the rows. Rows outside are moved to the
        nearest point inside. With up to about three features bounds make the noise
        smaller, since a Fourier series replaces random frequencies. Queries must then be
        within the bounds.

    n_components : int or "auto", default="auto"
        Number of random frequencies ``m``. With ``delta=0`` the noise is proportional to
        ``sqrt(m)`` and the error of the kernel to ``1 / sqrt(m)``; "auto" is best at a
        relative error of 10 %. With ``delta > 0`` more are better, and slower; "auto"
        takes 2,048 to 8,192. With `bounds` "auto" takes a Fourier series instead, if its
        error is smaller.

    kernel : {"gaussian"}, default="gaussian"
        The kernel.

    random_state : int, RandomState instance or None, default=None
        Draws the random frequencies [1]_, which are public. The noise does not depend on
        it: it is drawn from the operating system, and differs from fit to fit.

    Attributes
    ----------
    n_rows_ : int
        Noisy number of rows, at least 1. The noise has the standard deviation
        ``28 / epsilon``, or 1.4 if that is more.

    features_ : {"random", "lattice"}
        Whether frequencies are random, or those of a Fourier series.

    n_components_ : int
        Number of frequencies.

    relative_error_ : float
        Error of the kernel sum at a typical row divided by the sum, estimated from what
        is released. It is too large, or infinite, where the release is mostly noise.
        :meth:`fit` warns if it is above 0.15.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings. They are
        not protected.

    See Also
    --------
    PrivateDensityClassifier : Classifies by one release for each class.
    skhdkde.regimes.private_bandwidth : The smallest bandwidth that works.
    skhdkde.HighDimKernelDensity : The estimator without privacy.

    Notes
    -----
    **What is protected.** Two data sets are neighbours if one has one row more. Replacing
    a row is two such steps, and costs ``2 epsilon``. For a person with ``k`` rows the
    loss is ``k epsilon``. Not protected are names and number of features, parameters, the
    fact that a fit took place, its duration, and errors and warnings about `X`.

    **Sensitivity.** Let ``omega_j`` be the frequencies, ``c_j`` their coefficients
    (``1 / m`` for ``m`` random ones) and ``v_j`` sizes. A row ``x`` adds
    ``v_j cos(omega_j x)`` and ``v_j sin(omega_j x)`` to the sums. For any ``x``,
    ``|cos| + |sin| <= sqrt(2)`` and ``cos^2 + sin^2 = 1``. So one row changes all sums
    together by at most ``sqrt(2) sum(v_j)`` in L1 norm and ``sqrt(sum(v_j^2))`` in L2
    norm, and no row has to be clipped. Laplace noise has the scale ``L1 / epsilon``, and
    Gaussian noise that of Balle and Wang [4]_. All sums get equal noise. The error of
    kernel sums is smallest with ``v_j`` proportional to ``c_j^(2/3)`` (Laplace) or
    ``c_j^(1/2)`` (Gaussian). The variance is then ``4 (sum c_j^(2/3))^3 / epsilon^2``
    (Laplace), which is ``4 m / epsilon^2`` for random frequencies, or
    ``s^2 (sum c_j)^2`` (Gaussian), where ``s`` is the scale for a sensitivity of 1.

    **Composition.** The number of rows spends 5 % of epsilon. The sums spend the rest,
    and all of delta. The number of components depends on the noisy number of rows alone.
    Frequencies do not depend on the rows: to know them, or their seed, says nothing about
    the rows.

    **Exactness.** Features are rounded to whole numbers, and sums are sums of whole
    numbers. What a row adds depends on this row alone, to the last bit. Sensitivities are
    computed for these whole numbers. The noise is discrete Laplace or discrete Gaussian
    noise, drawn exactly [5]_ from ``os.urandom``; the difference between the discrete and
    the continuous Gaussian is taken from delta. This rules out attacks that use
    floating-point rounding.

    **Weights** are not supported: a row of weight ``w`` would need ``w`` times the noise.

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
        """Release noisy sums over the rows; this spends epsilon and delta.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. They are not stored.

        y : None
            Ignored; present by convention.

        Returns
        -------
        self : object
            The fitted estimator. If fitting fails, it stays as it was.

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
            Queries. Calls spend no further epsilon, however many there are.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            Log of :meth:`kernel_sum` divided by ``n_rows_`` and the integral of the
            kernel, in nats. Noise can make a sum zero or negative; the log density is
            then -inf, with a warning. :meth:`kernel_sum` returns such sums.
        """
        sums = self.kernel_sum(X)
        if (none := sums <= 0.0).any():
            warn_user(
                f"{none.sum()} of {len(sums)} queries have a noisy kernel sum of zero or "
                "below, and log density -inf: the noise exceeds the sum. kernel_sum and "
                "standard_error return both."
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
            Sums of ``exp(-|x - y|^2 / (2 bandwidth^2))`` over rows ``x``, at queries
            ``y``. They are unbiased, and may be negative.
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
            Standard error from noise and random frequencies, for fixed rows, in the units
            of the sum. Divided by the sum, it is the standard error of the log density,
            in nats, if it is small.
        """
        return self._sums_and_errors(X)[1]

    def sample(self, n_samples: int = 1, random_state: Any = None) -> NoReturn:
        """Raise NotImplementedError: noisy sums may be negative, and have no samples.

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
            "A private estimate has no samples: noise makes it negative in places. "
            "score_samples can give weights to points of your own."
        )

    def _sums_and_errors(self, X):
        check_is_fitted(self)
        return self._released.kernel_sums(self._queries(X, self._released.frequencies))


class PrivateDensityClassifier(ClassifierMixin, _PrivateSums):
    """Classify by similarity to private rows, with differential privacy.

    :meth:`fit` releases a noisy kernel sum over the rows of each class. A query gets the
    class with the largest sum. This is Bayes' rule, with the shares of the rows as
    priors. If all classes have the same number of rows, the class has the largest average
    similarity, as in Backurs et al. [1]_.

    Parameters
    ----------
    epsilon : float
        Privacy loss by one row and its class, as in :class:`PrivateKernelDensity`. Each
        row is in one class only, so each class may spend all of epsilon.

    classes : array-like of shape (n_classes,)
        Labels of the classes. They must be given, since it is not public which classes
        have rows.

    delta : float, default=0.0
        Probability, for each row, with which the guarantee may fail, as in
        :class:`PrivateKernelDensity`. It should be far below one over the number of rows.

    bandwidth : float
        Bandwidth, in data units. It must be given.

    bounds : tuple (low, high), default=None
        Limits of the features, in data units, as in :class:`PrivateKernelDensity`.

    n_components : int or "auto", default="auto"
        Number of random frequencies, the same for all classes. "auto" is that of
        :class:`PrivateKernelDensity` for the mean number of rows of a class.

    kernel : {"gaussian"}, default="gaussian"
        The kernel.

    random_state : int, RandomState instance or None, default=None
        Draws the random frequencies, which are public. The noise does not depend on it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of the classes, sorted.

    n_rows_ : int
        Noisy number of rows of all classes, at least 1.

    relative_error_ : float
        Error of the kernel sum of the own class of a typical row divided by the sum,
        estimated from what is released. It is too large, or infinite, where the release
        is mostly noise. :meth:`fit` warns if it is above 0.15.

    n_components_ : int
        Number of frequencies.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    PrivateKernelDensity : The kernel sums, and what they protect.
    skhdkde.DensityClassifier : The classifier without privacy.

    Notes
    -----
    Two data sets are neighbours if one has one row more, of any class. Only the release
    of this class differs, so that all releases together are as private as one (parallel
    composition). Changing a label removes one row and adds another, and costs
    ``2 epsilon``. The notes on sensitivity and exactness in :class:`PrivateKernelDensity`
    hold for each class. The number of all rows spends 5 % of epsilon; the numbers of rows
    of single classes are not released.

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
        """Release noisy sums over the rows of each class; spend epsilon and delta.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. They are not stored.

        y : array-like of shape (n_samples,)
            Class of each row.

        Returns
        -------
        self : object
            The fitted classifier. If fitting fails, it stays as it was.

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
            Sums in the order of ``classes_``. They are unbiased, and may be negative.
        """
        check_is_fitted(self)
        X = self._queries(X, self._released[0].frequencies)
        return np.column_stack([each.kernel_sums(X)[0] for each in self._released])

    def predict(self, X: Any) -> np.ndarray:
        """Return the class with the largest kernel sum, for each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries.

        Returns
        -------
        label : ndarray of shape (n_queries,)
            Labels from ``classes_``.
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
