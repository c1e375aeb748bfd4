"""The detector of outliers: densities, what is trimmed before them, and a threshold."""

from __future__ import annotations

import copy
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from scipy.stats import false_discovery_control
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context, clone
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from skhdkde._decisions.p_values import Reference
from skhdkde._decisions.relayed_warnings import RelayedWarnings
from skhdkde._decisions.training_rows import (
    DistinctRows,
    checked_weights,
    only_discrete,
    take,
)
from skhdkde._decisions.trimming import central_rows
from skhdkde._estimator import HighDimKernelDensity
from skhdkde._utils.arrays import local
from skhdkde._utils.hashing import find_hashes, row_hashes
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.validation import check_data
from skhdkde._utils.warnings import warn_user

# Share of false alarms of contamination="auto", and share of rows of trim="auto".
LEVEL, TRIM = 0.05, 0.05
# Tails of the first density by default; its bandwidth, relative to the best in
# likelihood, which is too small for ranks; and the largest with preserved variance.
DEGREES_OF_FREEDOM, SMOOTHING = 4, 2.0
LARGEST_BANDWIDTH = 0.999 * (1.0 - 2.0 / DEGREES_OF_FREEDOM) ** 0.5


class DensityOutlierDetector(OutlierMixin, BaseEstimator):
    """Detect outliers by their log density, with p-values and false discovery rates.

    A row is an outlier if its log density is lower than that of nearly all training rows.
    Its p-value is a conformal one, for data of any distribution [1]_. All log densities
    are held out: training rows are scored by fits that did not see them, also if they are
    passed to :meth:`predict`. So ``fit_predict(X)`` and ``fit(X).predict(X)`` agree.

    Parameters
    ----------
    estimator : HighDimKernelDensity or list of these, default=None
        Estimator of the density; it is cloned. With a list the score of a row is the mean
        of its log densities. None means two estimators, which find different outliers.
        Both have ``discrete_features="auto"`` and ``random_state=0``:

        - one with ``covariance_type="full"``, for rows that break the correlations. It
          has ``preserve_variance=True``, ``kernel="student"``, ``degrees_of_freedom=4``
          and twice the bandwidth of "kl", up to the largest possible: at the
          bandwidth of "kl" log densities are too noisy to rank rows by;
        - one with ``covariance_type="diag"`` and ``adaptive=True``, for rows between
          clusters.

    contamination : "auto" or float, default="auto"
        Which rows :meth:`predict` flags, unless it gets `fdr`. A float, up to 0.5, is the
        share of the training rows that is flagged. "auto" flags rows whose p-value is at
        most 0.05; with fewer than 19 training rows, rows whose log density is below that
        of all of them. 0.05 is the rate of false alarms, not a guess of how many
        outliers there are.

    trim : "auto" or float, default="auto"
        Share of the training rows, below 0.5, that is left out of the fit: the rows with
        the largest Mahalanobis distance, by the covariance matrix of the others. Without
        trimming, a group of similar anomalies would make itself likely. "auto" is 0.05.
        Trimmed rows still count in p-values. They have low log densities, so that few
        p-values are below the trimmed share. Set 0 if the training rows are clean and you
        need small p-values or `fdr`.

    Attributes
    ----------
    estimators_ : list of HighDimKernelDensity
        The densities, fitted to the rows that were not trimmed.

    offset_ : float
        The threshold, in nats: rows with a lower log density are flagged.

    trimmed_ : ndarray of int of shape (n_trimmed,)
        Training rows that were left out of the fit. This alone does not flag them.

    held_out_log_density_ : ndarray of shape (n_samples,)
        Log density of each training row by fits that did not see it, in nats; the mean
        over the densities, and over equal rows.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    HighDimKernelDensity : The density.
    DensityClassifier : Rejects rows that are unlike all classes.
    sklearn.ensemble.IsolationForest : Finds outliers by random splits of single features.

    Notes
    -----
    A row that equals a training row is treated as this training row by all methods. Equal
    training rows count as one row with their total weight, unless all features are
    discrete, where equal rows are to be expected. Training rows of weight zero are
    ignored.

    References
    ----------
    .. [1] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers
       with conformal p-values", Annals of Statistics 51 (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import DensityOutlierDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 10)) @ rng.normal(size=(10, 10))
    >>> detector = DensityOutlierDetector().fit(X)
    >>> new = np.vstack([X.mean(axis=0), X.mean(axis=0) + 15.0])
    >>> detector.predict(new)
    array([ 1, -1])
    >>> detector.p_values(new).round(3)
    array([1.   , 0.002])
    """

    _parameter_constraints: dict = {
        "estimator": [HighDimKernelDensity, list, None],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "trim": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="left")],
    }
    # `fdr` is no metadata
    __metadata_request__predict = {"fdr": UNUSED}

    estimators_: list[HighDimKernelDensity]
    offset_: float
    trimmed_: np.ndarray
    held_out_log_density_: np.ndarray

    def __init__(
        self,
        estimator: HighDimKernelDensity | list[HighDimKernelDensity] | None = None,
        *,
        contamination: float | Literal["auto"] = "auto",
        trim: float | Literal["auto"] = "auto",
    ):
        self.estimator = estimator
        self.contamination = contamination
        self.trim = trim

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Fit the densities, and score each training row by fits without it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a common factor has no effect. They are used in the
            densities, in shares of rows and in p-values.

        Returns
        -------
        self : object
            The fitted detector. If fitting fails, it stays as it was.

        Raises
        ------
        ValueError
            If X or the weights are not as described, if X has fewer than three distinct
            rows of positive weight, or if `estimator` is an empty list or a list of other
            objects.
        """
        fitted, wanted = copy.copy(self), wanted_densities(self.estimator)
        checked = np.asarray(local(check_data(fitted, X, reset=True)))
        weights = checked_weights(sample_weight, len(checked))
        names = getattr(fitted, "feature_names_in_", None)
        separate = any(only_discrete(checked, d.discrete_features, names) for d in wanted)
        found = DistinctRows.of(checked, weights, merge=not separate)
        share = TRIM if self.trim == "auto" else self.trim
        kept = central_rows(checked[found.rows], found.weights, share)
        fitted._learn(X, checked, found, kept)
        fitted.trimmed_ = found.positive[~kept[found.place]]
        fitted.held_out_log_density_ = fitted.score_samples(X)
        self.__dict__ = fitted.__dict__
        return self

    def _learn(self, X, checked, found, kept):
        """Fit densities to the rows that are kept; find what scores usual rows have."""
        own = None if found.weights is None else found.weights[kept]
        central = take(X, checked, found.rows[kept])
        relayed = RelayedWarnings()
        with relayed.of(f"Fitted to {kept.sum()} of {len(kept)} rows"):
            self.estimators_ = fitted_densities(self.estimator, central, own)
        relayed.warn()
        held_out = held_out_scores(self.estimators_, X, checked, found, kept)
        scores, totals = found.by_hash(held_out)
        self._hashes, self._known_scores = found.hashes, scores
        self._reference = Reference(scores, totals, found.effective_number)
        self.offset_ = self._threshold()
        if np.isneginf(self.offset_):
            warn_of_no_density(scores)

    def _threshold(self):
        """Return the log density below which rows are flagged."""
        if self.contamination == "auto":
            level = max(LEVEL, self._reference.least_p_value)
            return self._reference.threshold(level)
        return self._reference.quantile(self.contamination)

    def score_samples(self, X: Any) -> FloatArray:
        """Return the log density of each row; for training rows it is held out.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            In nats; the mean of the log densities of ``estimators_``. Outliers have low
            values.
        """
        check_is_fitted(self)
        checked = np.asarray(local(check_data(self, X, reset=False)))
        known, place = find_hashes(row_hashes(checked), self._hashes)
        scores = np.empty(len(checked))
        scores[known] = self._known_scores[place]
        fresh = np.setdiff1d(np.arange(len(checked)), known)
        if len(fresh):
            scores[fresh] = mean_log_density(self.estimators_, take(X, checked, fresh))
        return scores

    def decision_function(self, X: Any) -> FloatArray:
        """Return the log density minus the threshold; it is negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_queries,)
            :meth:`score_samples` minus ``offset_``, in nats.
        """
        scores = self.score_samples(X)
        decision = np.zeros(len(scores))  # at the threshold, which may be -inf
        return np.subtract(
            scores, self.offset_, out=decision, where=scores != self.offset_
        )

    def p_values(self, X: Any) -> FloatArray:
        """Return the p-value of each row.

        It is the probability that a row of the training distribution has a log density
        as low as that of the row, or lower: ``(1 + k) / (n + 1)``, where ``k`` of the
        ``n`` training rows have a held-out log density of at most that of the row (Bates
        et al., 2023). For a new row of the training distribution, whatever this is, the
        p-value is at most ``p`` with probability ``p`` or less, for any ``n``. Two things
        make this approximate. Training rows are scored by fits to up to 5 % fewer rows
        than new ones, which makes p-values a little too large. And they were used to
        choose settings such as the bandwidth. Outliers among the training rows, trimmed
        or not, make p-values larger.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        p_values : ndarray of shape (n_queries,)
            At least ``1 / (n + 1)``. With weights ``n`` is the effective number of rows,
            ``sum(w)^2 / sum(w^2)``, and ``k / n`` a share of the weight.
        """
        return self._reference.p_values(self.score_samples(X))

    def predict(self, X: Any, *, fdr: float | None = None) -> np.ndarray:
        """Return -1 for outliers and 1 for other rows.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        fdr : float, default=None
            False discovery rate, above 0 and up to 1: an upper limit for the expected
            share of false alarms among the rows that are flagged. Rows are then flagged
            by the procedure of Benjamini and Hochberg on the p-values of all of X, and
            ``offset_`` is not used. With ``n`` training rows, ``k`` of the ``m`` rows of
            X can be flagged only if ``m / (k (n + 1))`` is at most `fdr`.

        Returns
        -------
        labels : ndarray of int of shape (n_queries,)
            -1 for outliers, 1 for others.

        Raises
        ------
        ValueError
            If `fdr` is not above 0 and up to 1.
        """
        if fdr is None:
            return np.where(self.decision_function(X) < 0.0, -1, 1)
        if isinstance(fdr, bool) or not isinstance(fdr, Real) or not 0.0 < fdr <= 1.0:
            raise ValueError(f"fdr must be a number above 0 and up to 1, got {fdr!r}.")
        if self._reference.least_p_value > fdr:
            warn_user(
                f"fdr={fdr!r} flags nothing: no p-value is below 1 / (rows + 1), here "
                f"{self._reference.least_p_value:.2g}. Use more training rows."
            )
        adjusted = false_discovery_control(self.p_values(X))
        return np.where(adjusted <= fdr, -1, 1)


def warn_of_no_density(scores):
    """Warn that so many training rows have no density that no row can be flagged."""
    warn_user(
        f"{np.isneginf(scores).mean():.0%} of the distinct training rows have a held-out "
        "density of zero, so that predict flags no row: pass an estimator with a larger "
        "bandwidth, or with a kernel that is positive everywhere, such as 'student'."
    )


def wanted_densities(estimator):
    """Return the densities that are asked for; for None the first two by default."""
    if estimator is None:
        usual = HighDimKernelDensity(discrete_features="auto", random_state=0)
        correlated = clone(usual).set_params(
            covariance_type="full",
            preserve_variance=True,
            kernel="student",
            degrees_of_freedom=DEGREES_OF_FREEDOM,
        )
        return [correlated, usual.set_params(covariance_type="diag", adaptive=True)]
    wanted = estimator if isinstance(estimator, list) else [estimator]
    if not wanted or not all(isinstance(d, HighDimKernelDensity) for d in wanted):
        raise ValueError(
            "estimator must be a HighDimKernelDensity, a list of one or more of these, "
            f"or None, got {estimator!r}."
        )
    return wanted


def fitted_densities(estimator, X, sample_weight):
    """Return densities fitted to X."""
    fitted = [
        clone(density).fit(X, sample_weight=sample_weight)
        for density in wanted_densities(estimator)
    ]
    if estimator is None:
        bandwidth = min(SMOOTHING * fitted[0].bandwidth_, LARGEST_BANDWIDTH)
        fitted[0].set_params(bandwidth=bandwidth).fit(X, sample_weight=sample_weight)
    return fitted


def mean_log_density(densities, X):
    """Return the mean of the logs of the densities of rows."""
    return np.mean([density.score_samples(X) for density in densities], axis=0)


def held_out_scores(densities, X, checked, found, kept):
    """Return log densities of all rows by fits to those kept, themselves held out."""
    scores = np.empty(len(kept))
    scores[kept] = np.mean([d.held_out_log_density_ for d in densities], axis=0)
    if not kept.all():
        scores[~kept] = mean_log_density(densities, take(X, checked, found.rows[~kept]))
    return scores
