"""The classifier: a density for each class, and Bayes' rule."""

from __future__ import annotations

import copy
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.utils import assert_all_finite
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skhdkde._decisions.p_values import Reference
from skhdkde._decisions.relayed_warnings import RelayedWarnings
from skhdkde._decisions.temperature import best_temperature
from skhdkde._decisions.training_rows import (
    DistinctRows,
    checked_weights,
    only_discrete,
    take,
)
from skhdkde._estimator import HighDimKernelDensity
from skhdkde._utils.arrays import local
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.validation import check_data
from skhdkde._utils.warnings import warn_user

# Distinct rows of a class that can be held out of it.
FEWEST_ROWS = 3


class DensityClassifier(ClassifierMixin, BaseEstimator):
    """Classify by Bayes' rule with a density for each class; reject unknown rows.

    The probability of a class is proportional to its prior times its density. The
    densities also show which rows are unlike all classes: such rows can be rejected.

    Parameters
    ----------
    estimator : HighDimKernelDensity, default=None
        Estimator of the density of a class; it is cloned for each class. None means
        ``HighDimKernelDensity()``, for features that have the same unit. For features of
        different units pass one with ``covariance_type="full"``; each class should then
        have several times more rows than features.

    priors : array-like of shape (n_classes,), default=None
        Probabilities of the classes, in the order of ``classes_``. None means the shares
        of the classes in the training rows, or in their weight.

    temperature : "auto" or float, default="auto"
        Number by which log densities are divided before Bayes' rule. With many features
        the probabilities of plain Bayes' rule are too close to 0 and 1. "auto" takes the
        temperature, at least 1, that maximises the mean log probability of the true class
        of training rows, by fits that did not see them. 1 is plain Bayes' rule.

    reject : float, default=None
        Largest p-value, between 0 and 1, of rows that are rejected. :meth:`predict` gives
        a row `reject_label` if its p-values for all classes are at most this. About this
        share of new rows of the classes is rejected, or less. None rejects nothing.

    reject_label : object, default=-1
        Label of rejected rows: a string if classes are strings, a number if they are
        numbers, and not one of the classes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of the classes, sorted.

    estimators_ : list of HighDimKernelDensity
        The density of each class; None for a class without weight.

    priors_ : ndarray of shape (n_classes,)
        Probabilities of the classes.

    temperature_ : float
        The temperature in use.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    HighDimKernelDensity : The density.
    DensityOutlierDetector : Finds outliers where there are no classes.
    sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis : Bayes' rule with a
        Gaussian for each class.

    Notes
    -----
    Equal rows of a class count as one row with their total weight, unless all features
    are discrete. Training rows of weight zero are ignored.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhdkde import DensityClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = DensityClassifier(reject=0.05).fit(X[::2], y[::2])
    >>> round(classifier.score(X[1::2], y[1::2]), 2)
    0.93
    >>> classifier.predict([[5.0, 3.4, 1.5, 0.2], [5.0, 3.4, 15.0, 2.0]])
    array([ 0, -1])
    """

    _parameter_constraints: dict = {
        "estimator": [HighDimKernelDensity, None],
        "priors": ["array-like", None],
        "temperature": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "reject": [Interval(Real, 0, 1, closed="neither"), None],
        "reject_label": "no_validation",
    }

    classes_: np.ndarray
    estimators_: list
    priors_: np.ndarray
    temperature_: float

    def __init__(
        self,
        estimator: HighDimKernelDensity | None = None,
        *,
        priors: Any = None,
        temperature: float | Literal["auto"] = "auto",
        reject: float | None = None,
        reject_label: Any = -1,
    ):
        self.estimator = estimator
        self.priors = priors
        self.temperature = temperature
        self.reject = reject
        self.reject_label = reject_label

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit a density to the rows of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,)
            Class of each row.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a common factor has no effect. They are used in the
            densities, the priors, the temperature and the p-values.

        Returns
        -------
        self : object
            The fitted classifier. If fitting fails, it stays as it was.

        Raises
        ------
        ValueError
            If X, y or the weights are not as described, or if a class has too few rows
            for its density. A class with a single distinct row is no error if the
            estimator needs only a bandwidth: it gets the median bandwidth of the other
            classes, with a warning.
        """
        fitted = copy.copy(self)
        checked = np.asarray(local(check_data(fitted, X, reset=True)))
        fitted.classes_, label = _checked_labels(y, len(checked))
        weights = checked_weights(sample_weight, len(checked))
        fitted.priors_ = fitted._checked_priors(np.bincount(label, weights))
        fitted._check_reject_label()
        fitted._members = fitted._rows_of_classes(checked, label, weights)
        fitted.estimators_ = fitted._densities(X, checked)
        fitted._references = {}
        fitted._warn_of_few_rows()
        fitted.temperature_ = fitted._temperature(X, checked)
        self.__dict__ = fitted.__dict__
        return self

    def _checked_priors(self, totals):
        """Return priors, from weights of classes unless they are given."""
        if self.priors is None:
            return totals / totals.sum()
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != totals.shape:
            raise ValueError(
                f"priors must have one number for each of the {len(totals)} classes, got "
                f"shape {priors.shape}."
            )
        if not (priors >= 0.0).all() or abs(priors.sum() - 1.0) > 1e-6:
            raise ValueError(f"priors must be probabilities with sum 1, got {priors}.")
        if (empty := (totals == 0.0) & (priors > 0.0)).any():
            label = self.classes_[empty].tolist()[0]
            raise ValueError(
                f"class {label!r} has a positive prior, but no row of positive weight. "
                "Set its prior to 0."
            )
        return priors

    def _check_reject_label(self):
        """Raise an error if the label of refused rows is not one for these classes."""
        if self.reject is None:
            return
        text = self.classes_.dtype.kind in "OUS"
        if text != isinstance(self.reject_label, str) or self.classes_.dtype == bool:
            raise ValueError(
                f"reject_label={self.reject_label!r} is not of the type of the classes, "
                f"such as {self.classes_.tolist()[0]!r}: pass one of that type."
            )
        if self.reject_label in self.classes_.tolist():
            raise ValueError(
                f"reject_label={self.reject_label!r} is one of the classes: pass another."
            )

    def _warn_of_few_rows(self):
        """Warn if a class has too few rows for anything to be refused."""
        if self.reject is None:
            return
        n, name = min(
            (found.effective_number, name)
            for found, name in zip(self._members, self.classes_.tolist(), strict=True)
            if found is not None
        )
        if 1.0 / (n + 1.0) > self.reject:
            warn_user(
                f"reject={self.reject!r} rejects nothing: class {name!r} has {n:.0f} "
                "rows, and no p-value is below 1 / (rows + 1). Use more rows, or set "
                f"reject to at least {1.0 / (n + 1.0):.2g}."
            )

    def _rows_of_classes(self, checked, label, weights):
        """Return rows of positive weight for each class."""
        names = getattr(self, "feature_names_in_", None)
        wanted = None if self.estimator is None else self.estimator.discrete_features
        merge = not only_discrete(checked, wanted, names)
        return [
            DistinctRows.of(checked, own, merge=merge) if own.any() else None
            for own in (weights * (label == k) for k in range(len(self.classes_)))
        ]

    def _densities(self, X, checked):
        """Return the density of each class, or None for a class without rows."""
        densities: list[Any] = [None] * len(self._members)
        collected = RelayedWarnings()
        estimator = HighDimKernelDensity() if self.estimator is None else self.estimator
        plain = estimator.covariance_type == "spherical" and not estimator.feature_maps
        by_rule = plain and isinstance(estimator.bandwidth, str)
        # one row alone has no bandwidth: it gets that of other classes
        alone = [by_rule and m is not None and len(m.hashes) == 1 for m in self._members]
        for k in np.argsort(alone, kind="stable"):
            name, found = self.classes_.tolist()[k], self._members[k]
            if found is None:
                continue
            own = clone(estimator)
            others = [d.bandwidth_ for d in densities if d is not None]
            if alone[k] and others:
                own.set_params(bandwidth=float(np.median(others)))
                warn_user(
                    f"Class {name!r} has one distinct row: its density has the median "
                    f"bandwidth of the other classes, {own.bandwidth:.3g}. Use more "
                    "rows."
                )
            with collected.of(f"In class {name!r}"):
                rows = take(X, checked, found.rows)
                densities[k] = own.fit(rows, sample_weight=found.weights)
        collected.warn()
        return densities

    def _temperature(self, X, checked):
        """Return the temperature, found on rows that were held out if it is "auto"."""
        if self.temperature != "auto":
            return float(self.temperature)
        members = self._members
        classes = [
            k
            for k in np.flatnonzero(self.priors_)  # a class of no probability has no say
            if members[k] and len(members[k].hashes) >= FEWEST_ROWS
        ]
        if len(self.classes_) == 1 or not classes:
            return 1.0
        logs, labels, weights = [], [], []
        for k in classes:
            own = take(X, checked, members[k].rows)
            log_density = self._log_densities(own)
            log_density[:, k] = self.estimators_[k].held_out_log_density_
            logs.append(log_density)
            labels.append(np.full(len(log_density), k))
            weights.append(members[k].shares() * self.priors_[k])
        return best_temperature(
            np.vstack(logs),
            self._log_priors(),
            np.concatenate(labels),
            np.concatenate(weights),
        )

    def _log_priors(self):
        with np.errstate(divide="ignore"):
            return np.log(self.priors_)

    def _log_densities(self, X):
        """Return log densities of the classes at checked rows, (n_rows, n_classes)."""
        logs = np.full((X.shape[0], len(self.classes_)), -np.inf)
        for k, estimator in enumerate(self.estimators_):
            if estimator is not None:
                logs[:, k] = estimator.score_samples(X)
        return logs

    def _queries(self, X):
        """Return rows after checks, with the names of columns if they have such."""
        check_is_fitted(self)
        checked = np.asarray(local(check_data(self, X, reset=False)))
        return take(X, checked, np.arange(len(checked)))

    def score_samples(self, X: Any) -> FloatArray:
        """Return the log density of each row, over all classes.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            Log of the sum of the densities of the classes times their priors, in nats.
        """
        return logsumexp(self._log_densities(self._queries(X)) + self._log_priors(), 1)

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the log probability of each class for each row.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        log_proba : ndarray of shape (n_queries, n_classes)
            In the order of ``classes_``. Where the densities of all classes with a
            positive prior are zero, these are the logs of the priors.
        """
        joint = self._log_densities(self._queries(X)) / self.temperature_
        possible = self.priors_ > 0.0
        joint[np.isneginf(joint[:, possible]).all(axis=1)] = 0.0
        return log_softmax(joint + self._log_priors(), axis=1)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class for each row.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_queries, n_classes)
            In the order of ``classes_``; each row sums to 1.
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, or the label of rejected rows.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_queries,)
            Labels from ``classes_``. If `reject` is set, `reject_label` for rows whose
            largest p-value is at most `reject`.
        """
        best = self.predict_log_proba(X).argmax(axis=1)
        labels = self.classes_[best]
        if self.reject is None:
            return labels
        self._validate_params()  # may be set since the fit, as that of the label
        self._check_reject_label()
        unknown = self.p_values(X).max(axis=1) <= self.reject
        # as an array, lest -1 becomes 255 among labels that are uint8
        return np.where(unknown, np.asarray(self.reject_label), labels)

    def p_values(self, X: Any) -> FloatArray:
        """Return the p-value of each row for each class.

        It is the probability that a row of this class has a log density as low as that
        of the row, or lower: ``(1 + k) / (n + 1)``, where ``k`` of the ``n`` training
        rows of the class have a held-out log density of at most that of the row. It is
        as valid as that of :meth:`DensityOutlierDetector.p_values`. Do not pass training
        rows: each counts itself here, and gets a p-value that is too large.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        p_values : ndarray of shape (n_queries, n_classes)
            In the order of ``classes_``; 0 for a class without rows. With weights ``k``
            and ``n`` are effective numbers of rows.
        """
        logs = self._log_densities(self._queries(X))
        found = np.zeros(logs.shape)
        for k, members in enumerate(self._members):
            if members is not None:
                found[:, k] = self._reference(k).p_values(logs[:, k])
        return found

    def _reference(self, k):
        """Return the held-out log densities of a class, made when first asked for."""
        if k not in self._references:
            members = self._members[k]
            scores, totals = members.by_hash(
                np.asarray(self.estimators_[k].held_out_log_density_, dtype=np.float64)
            )
            self._references[k] = Reference(scores, totals, members.effective_number)
        return self._references[k]


def _checked_labels(y, n_samples):
    """Return the classes, and the index of each row among them."""
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    if len(y) != n_samples:
        raise ValueError(f"y has {len(y)} labels for {n_samples} rows of X.")
    return np.unique(y, return_inverse=True)
