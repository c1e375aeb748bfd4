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
    """Outliers by their log density, with p-values and a rate of false discoveries.

    A row is an outlier if hardly any training row is as unlikely by densities that have
    not seen it. All of this is about held-out log densities: also rows that were in the
    training are scored by fits without them, so that ``fit_predict`` and ``predict`` of
    the same rows agree.

    Parameters
    ----------
    estimator : HighDimKernelDensity or list of these, default=None
        What estimates the density; it is cloned. Of several densities the score of a
        row is the mean of their logs. None is two, which see different outliers, both
        with ``discrete_features="auto"`` and ``random_state=0``:

        - one with ``covariance_type="full"``, for rows that break the correlations:
          ``preserve_variance=True``, ``kernel="student"``, ``degrees_of_freedom=4`` and
          twice the bandwidth of "kl", up to the largest (the bandwidth that is best in
          likelihood makes log densities too noisy to rank by);
        - one with ``covariance_type="diag"`` and ``adaptive=True``, for rows between
          clusters.

    contamination : "auto" or float, default="auto"
        What :meth:`predict` flags, unless it is told a rate of false discoveries. A
        float, up to 0.5, is the share of the training rows that is flagged. "auto" flags
        rows whose p-value is at most 0.05, or with fewer than 19 training rows those that
        are less likely than all of them: it is a rate of false alarms, and not a guess
        of how many outliers there are.

    trim : "auto" or float, default="auto"
        Share of the training rows, below 0.5, that the density is fitted without: those
        that are farthest out, in units of a covariance matrix of the others. Anomalies
        among the training rows that are alike would have kernels of their own. "auto" is
        0.05. Rows that were trimmed are in the reference of p-values all the same, with
        low log densities, so that few p-values are below the share: set 0 if the
        training rows are clean and small p-values or `fdr` matter.

    Attributes
    ----------
    estimators_ : list of HighDimKernelDensity
        The densities, fitted to the rows that were not trimmed.

    offset_ : float
        The threshold: rows of a lower log density are flagged.

    trimmed_ : ndarray of int of shape (n_trimmed,)
        Training rows that the density has not seen. They are not flagged for that.

    held_out_log_density_ : ndarray of shape (n_samples,)
        Log density of each training row by fits that did not see it, in the mean of the
        densities; of copies the mean.

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features, defined only when `X` has names that are all strings.

    See Also
    --------
    HighDimKernelDensity : The density.
    DensityClassifier : Refuses rows that no class knows.
    sklearn.ensemble.IsolationForest : Outliers by random splits of single features.

    Notes
    -----
    Rows of X that equal training rows are taken to be these, wherever they are passed.
    Copies among the training rows are one row with their total weight, unless all
    features are discrete: then a copy is what is to be expected. Training rows of weight
    zero have no part in anything.

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
        """Fit the densities, and score the training rows by fits without them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : None
            Ignored; present by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; a common factor has no effect. They count in the
            density, in shares of rows and in p-values.

        Returns
        -------
        self : object
            The fitted detector. If fitting fails, it is as it was before.

        Raises
        ------
        ValueError
            If X or the weights are not as described, X has fewer than three distinct
            rows of positive weight, or `estimator` is a list without an estimator.
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
        """Log density of each row; of a training row by fits that did not see it.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
            In nats, the mean of the densities. The lower, the less usual.
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
        """Log density above the threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_queries,)
            :meth:`score_samples` less ``offset_``, in nats.
        """
        scores = self.score_samples(X)
        decision = np.zeros(len(scores))  # at the threshold, which may be -inf
        return np.subtract(
            scores, self.offset_, out=decision, where=scores != self.offset_
        )

    def p_values(self, X: Any) -> FloatArray:
        """How likely a row as unlikely as each is, if it is like the training rows.

        ``(1 + k) / (n + 1)``, where ``k`` of the ``n`` training rows have a held-out log
        density of at most that of the row (Bates et al., 2023). If the training rows are
        like the row, in any distribution, a p-value is at most ``p`` with probability
        ``p`` or less, for any ``n``. Two things make that approximate: a training row is
        scored by a fit to up to a twentieth less rows than a fresh one, which makes its
        p-values a little too large; and it had a share in what was chosen, such as the
        bandwidth.
        Outliers among the training rows, trimmed or not, make p-values larger.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        Returns
        -------
        p_values : ndarray of shape (n_queries,)
            At least ``1 / (n + 1)``. With weights they count, and ``n`` is their
            effective number, ``sum(w)^2 / sum(w^2)``.
        """
        return self._reference.p_values(self.score_samples(X))

    def predict(self, X: Any, *, fdr: float | None = None) -> np.ndarray:
        """Whether each row is an outlier.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows.

        fdr : float, default=None
            Rate of false discoveries, above 0 and up to 1: of the rows that are flagged,
            the mean share that is not to be, at most. Rows are then flagged by the
            procedure of Benjamini and Hochberg for the p-values of all of X, and
            ``offset_`` is not used. With ``n`` training rows ``k`` of ``m`` rows cannot
            be flagged unless ``m / (k (n + 1))`` is at most `fdr`.

        Returns
        -------
        labels : ndarray of int of shape (n_queries,)
            -1 for outliers, 1 for others.
        """
        if fdr is None:
            return np.where(self.decision_function(X) < 0.0, -1, 1)
        if isinstance(fdr, bool) or not isinstance(fdr, Real) or not 0.0 < fdr <= 1.0:
            raise ValueError(f"fdr must be a rate above 0 and up to 1, got {fdr!r}.")
        if self._reference.least_p_value > fdr:
            warn_user(
                f"fdr={fdr!r} flags nothing: no p-value is below 1 / (rows + 1), here "
                f"{self._reference.least_p_value:.2g}. Have more training rows."
            )
        adjusted = false_discovery_control(self.p_values(X))
        return np.where(adjusted <= fdr, -1, 1)


def warn_of_no_density(scores):
    """Warn that so many training rows have no density that no row can be flagged."""
    warn_user(
        f"{np.isneginf(scores).mean():.0%} of the distinct training rows have a held-out "
        "density of zero, so that predict flags no row: set estimator to one with a "
        "larger bandwidth, or with a kernel without an end, such as 'student'."
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
