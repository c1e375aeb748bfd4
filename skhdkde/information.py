"""Entropy, divergence and mutual information, and a test for two samples.

All are means of log densities over points. A density is too high at points that it was
fitted to. So each point is scored by fits that did not see it: training points by
``held_out_log_density_``, other points by ``score_samples``. Results are in nats, with a
standard error.

=============================  =========================================================
:func:`entropy`                minus the mean log density
:func:`kl_divergence`          mean difference of two log densities, at points of one
:func:`mutual_information`     joint log density minus those of the groups of features
:func:`two_sample_test`        whether two samples differ, and where
=============================  =========================================================

The standard error is that of the mean over the points. It does not include the bias of
the estimated densities. At new points an estimated log density is lower than the true
one, on average by the Kullback-Leibler divergence of the estimate. So entropies are too
large by this divergence. In divergences and mutual information the biases of two or more
densities partly cancel. The biases are smaller with more points, and with estimators that
suit the data: of several estimators the one with the lowest entropy is the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.covariance import ShrunkCovariance
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import _get_feature_names

from skhdkde._base import Rule
from skhdkde._data import columns_wanted
from skhdkde._estimator import HighDimKernelDensity
from skhdkde._maps import chosen_columns, resolve_maps
from skhdkde._utils.arrays import local, row_batches
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.validation import check_points
from skhdkde._utils.warnings import warn_user

__all__ = [
    "InformationEstimate",
    "TwoSampleTest",
    "entropy",
    "kl_divergence",
    "mutual_information",
    "two_sample_test",
]

# Elements of a block of kernel values; sums, relative to the largest kernel, below which
# kernels may have left the range of float64.
BLOCK_SIZE = 2**22
LEAST_SUM = 1e-290
N_PERMUTATIONS = 199


@dataclass(frozen=True, repr=False)
class InformationEstimate:
    """A mean over points, in nats, with its standard error.

    Attributes
    ----------
    value : float
        The mean, in nats.

    standard_error : float
        Standard error of the mean over the points, in nats. It does not include the bias
        of the densities.

    pointwise : ndarray of shape (n_points,)
        Contribution of each point of positive weight, in nats. ``value`` is their mean,
        with the weights of the fit.

    See Also
    --------
    entropy : Returns one.
    kl_divergence : Returns one.
    mutual_information : Returns one.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> from skhdkde.information import entropy
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> found = entropy(HighDimKernelDensity().fit(X))  # the truth is 2.838
    >>> found
    <InformationEstimate: 2.829 +- 0.042 nats>
    >>> low, high = found.interval(0.95)
    >>> round(low, 2), round(high, 2)
    (2.75, 2.91)
    """

    value: float
    standard_error: float
    pointwise: np.ndarray = field(compare=False)

    @classmethod
    def of(cls, pointwise: FloatArray, weights: FloatArray) -> InformationEstimate:
        """Make an estimate from the contributions of the points.

        Parameters
        ----------
        pointwise : ndarray of shape (n_points,)
            Contributions, in nats.
        weights : ndarray of shape (n_points,)
            Positive weights; a common factor has no effect.

        Returns
        -------
        estimate : InformationEstimate
            The weighted mean, with its standard error.
        """
        shares = weights / weights.sum()
        with np.errstate(invalid="ignore"):
            value = float(np.sum(shares * pointwise))
            # unbiased for equal weights
            free = max(1.0 - np.sum(shares**2), np.finfo(float).tiny)
            variance = np.sum((shares * (pointwise - value)) ** 2) / free
        return cls(value, float(np.sqrt(variance)), pointwise)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return a normal confidence interval.

        Parameters
        ----------
        level : float, default=0.95
            Confidence level, between 0 and 1.

        Returns
        -------
        low, high : float
            Ends of the interval, in nats.

        Raises
        ------
        ValueError
            If `level` is not between 0 and 1.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be between 0 and 1, got {level!r}.")
        half = float(norm.isf(0.5 * (1.0 - level))) * self.standard_error
        return self.value - half, self.value + half

    def __repr__(self) -> str:
        numbers = f"{self.value:.3f} +- {self.standard_error:.3f}"
        return f"<InformationEstimate: {numbers} nats>"


@dataclass(frozen=True, repr=False)
class TwoSampleTest:
    """Whether two samples come from one distribution, and where they differ.

    Attributes
    ----------
    statistic : float
        Mean log density ratio over the first sample minus that over the second, in nats.

    p_value : float
        Share of permutations with a statistic at least as large; the data count as one of
        the permutations.

    null_statistics : ndarray of shape (n_permutations,)
        Statistics of the permutations, in nats.

    log_ratio_X, log_ratio_Y : ndarray of shape (n_samples_X,), (n_samples_Y,)
        Log density of the first sample minus that of the second, in nats, at each point
        of X and of Y. The point itself is left out.

    bandwidth : float
        Bandwidth of the kernels, in whitened units; in data units for
        ``covariance_type="spherical"``.

    See Also
    --------
    two_sample_test : Returns one.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.information import two_sample_test
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(200, 5)), rng.normal(size=(200, 5))
    >>> two_sample_test(X, Y, random_state=0)
    <TwoSampleTest: statistic ..., p = ... of 199 permutations>
    """

    statistic: float
    p_value: float
    null_statistics: np.ndarray
    log_ratio_X: np.ndarray
    log_ratio_Y: np.ndarray
    bandwidth: float

    def most_different(self, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Return the points that differ most from the other sample.

        Parameters
        ----------
        n : int, default=10
            Largest number of points of each sample.

        Returns
        -------
        rows_X, rows_Y : ndarray of int
            Rows of X with the largest ratio of the first density to the second, and rows
            of Y with the smallest ratio. The most different points are first.
        """
        first, second = np.argsort(-self.log_ratio_X), np.argsort(self.log_ratio_Y)
        return first[:n], second[:n]

    def __repr__(self) -> str:
        n_permutations = len(self.null_statistics)
        return (
            f"<TwoSampleTest: statistic {self.statistic:.3f}, p = {self.p_value:.3g} "
            f"of {n_permutations} permutations>"
        )


def entropy(p: Any, *, estimator: Any = None) -> InformationEstimate:
    """Estimate the differential entropy ``-E log p(x)``.

    Parameters
    ----------
    p : HighDimKernelDensity or array-like of shape (n_samples, n_features)
        A fitted estimator, or points to fit one to.

    estimator : HighDimKernelDensity, default=None
        If `p` are points, the estimator whose clone is fitted to them. None means
        ``HighDimKernelDensity(covariance_type="auto", feature_maps="auto",
        random_state=0)``.

    Returns
    -------
    estimate : InformationEstimate
        The entropy, in nats. It depends on units: multiplying the data by 2 adds
        ``n_features log 2``.

    Raises
    ------
    TypeError
        If ``p`` or ``estimator`` is an estimator of another class.
    ValueError
        If a feature is constant, so that there is no density.

    See Also
    --------
    skhdkde.kl_scorer : Scorer with minus this value, at held-out points.
    scipy.stats.differential_entropy : Entropy of a single feature, from spacings.

    Notes
    -----
    The estimate is too large, by the Kullback-Leibler divergence of the estimated density
    from the true one. So the smallest of several estimates is the best.

    On the sphere the entropy is with respect to surface measure.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> from skhdkde.information import entropy
    >>> X = np.random.default_rng(0).normal(size=(1000, 5))
    >>> kde = HighDimKernelDensity(
    ...     covariance_type="full", preserve_variance=True, random_state=0
    ... )
    >>> entropy(X, estimator=kde)
    <InformationEstimate: 7.076 +- 0.049 nats>
    >>> round(2.5 * float(1 + np.log(2 * np.pi)), 3)  # the truth
    7.095
    """
    fitted = _fitted(p, estimator, "p")
    _, scores, weights = fitted._held_out_rows()
    return InformationEstimate.of(-scores, weights)


def kl_divergence(p: Any, q: Any, *, estimator: Any = None) -> InformationEstimate:
    """Estimate the Kullback-Leibler divergence ``E log p(x) - log q(x)``, x from p.

    Parameters
    ----------
    p, q : HighDimKernelDensity or array-like of shape (n_samples, n_features)
        Fitted estimators, or points to fit them to. Both must have the same features.

    estimator : HighDimKernelDensity, default=None
        The estimator whose clone is fitted to points; see :func:`entropy`.

    Returns
    -------
    estimate : InformationEstimate
        The divergence, in nats: a mean over the points of ``p``. It is infinite if ``q``
        is zero at one of them.

    Raises
    ------
    TypeError
        If ``p``, ``q`` or ``estimator`` is an estimator of another class.
    ValueError
        If the features of ``p`` and ``q`` differ in number or names, or if a feature is
        constant.

    See Also
    --------
    two_sample_test : Tests whether two samples differ at all.
    skhdkde.make_kl_scorer : Scores by the divergence from a known distribution.

    Notes
    -----
    The log density of ``p`` at its own points is held out. That of ``q`` is held out if
    both were fitted to the same points; the result is then the mean difference of the
    held-out log densities of the two fits. If only some rows are in both samples, there
    is a warning.

    Errors of the estimated ``p`` make the result smaller, errors of ``q`` larger. If both
    distributions are equal, the result is near zero, and may be negative. If the points
    of ``p`` are in the tails of ``q``, the divergence is many nats, and depends on the
    shape of a few kernels there.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> from skhdkde.information import kl_divergence
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(1000, 5)), rng.normal(size=(1000, 5)) + 0.5
    >>> kde = HighDimKernelDensity(
    ...     covariance_type="full", preserve_variance=True, random_state=0
    ... )
    >>> kl_divergence(X, Y, estimator=kde)  # the truth is 5 * 0.5**2 / 2 = 0.625
    <InformationEstimate: 0.677 +- 0.037 nats>
    """
    fitted_p, fitted_q = _fitted(p, estimator, "p"), _fitted(q, estimator, "q")
    X, scores, weights = fitted_p._held_out_rows()
    Y = fitted_q._rows()
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"p and q must be of the same features; p has {X.shape[1]}, q {Y.shape[1]}."
        )
    names_p, names_q = (
        getattr(one, "feature_names_in_", None) for one in (fitted_p, fitted_q)
    )
    _check_same_names(names_p, names_q, "p and q")
    if np.array_equal(X, Y):
        of_q = fitted_q._held_out_rows()[1]
    else:
        _warn_of_shared_rows(X, Y)
        of_q = fitted_q._log_density(X, fitted_q._compute_options())[0]
    return InformationEstimate.of(scores - of_q, weights)


def mutual_information(
    X: Any, Y: Any = None, *, groups: Any = None, estimator: Any = None
) -> InformationEstimate:
    """Estimate the mutual information ``E log p(x, y) - log p(x) - log p(y)``.

    It is zero for independent features, and does not change under increasing maps of
    single features. For a normal pair of correlation ``r`` it is ``-log(1 - r^2) / 2``.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features) or HighDimKernelDensity
        Points. With ``groups`` it may also be an estimator that is fitted to the features
        of all groups.

    Y : array-like of shape (n_samples, n_other_features), default=None
        Other features of the same rows. A single feature may have the shape (n_samples,),
        here and for X.

    groups : sequence of sequences, default=None
        Instead of Y: two or more groups of features of X, each a list of indices or
        names, or a mask. For more than two groups the result is the total correlation
        ``E log p(x) - sum_g log p(x_g)``. Features in no group are ignored.

    estimator : HighDimKernelDensity, default=None
        The estimator whose clone is fitted to the features of all groups together; see
        :func:`entropy`.

    Returns
    -------
    estimate : InformationEstimate
        The mutual information, in nats. ``pointwise`` is the log ratio of the joint
        density to the product of the others, at each row.

    Raises
    ------
    TypeError
        If ``X`` or ``estimator`` is an estimator of another class.
    ValueError
        If both or neither of ``Y`` and ``groups`` are given, if groups are not as
        described, if a feature is constant, or with ``support="sphere"``.

    See Also
    --------
    sklearn.feature_selection.mutual_info_regression : Mutual information of single
        features with y, from nearest neighbours.

    Notes
    -----
    The density of each group is fitted with the type of covariance, the maps and the
    kernel that were chosen for all features. For "full" and "diag" it also has the same
    bandwidth. It is then the marginal density of the joint one, and has the same
    shrinkage of the covariance (for the Ledoit-Wolf estimate, and points without
    weights). So all densities are smoothed alike: the bias of smoothing cancels for
    independent features, and partly for others. The remaining bias is nearly always
    towards smaller values, since the joint density has more features and is harder to
    estimate. For independent features the result may be below zero.

    Rows must be independent. For time series, where neighbouring rows are similar, the
    standard error is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> from skhdkde.information import mutual_information
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2000, 3))
    >>> Y = 0.6 * X + 0.8 * rng.normal(size=(2000, 3))
    >>> kde = HighDimKernelDensity(
    ...     covariance_type="full", preserve_variance=True, random_state=0
    ... )
    >>> mutual_information(X, Y, estimator=kde)
    <InformationEstimate: 0.677 +- 0.023 nats>
    >>> round(-1.5 * float(np.log(1 - 0.6**2)), 3)  # the truth
    0.669

    Between groups of features of a table:

    >>> table = np.hstack([X, Y])
    >>> mutual_information(table, groups=[[0], [3]], estimator=kde)
    <InformationEstimate: 0.224 +- 0.013 nats>
    """
    joint, columns = _joint(X, Y, groups, estimator)
    rows, scores, weights = joint._held_out_rows()
    for of_group in columns:
        own = _marginal(joint, of_group).fit(rows[:, of_group], sample_weight=weights)
        scores = scores - own._held_out_rows()[1]
    return InformationEstimate.of(scores, weights)


@validate_params(
    {
        "n_permutations": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "diag", "spherical"})],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=False,
)
def two_sample_test(
    X: Any,
    Y: Any,
    *,
    n_permutations: int = N_PERMUTATIONS,
    covariance_type: Literal["full", "diag", "spherical"] = "full",
    bandwidth: float | Rule = "clt",
    random_state: Any = None,
) -> TwoSampleTest:
    """Test whether two samples come from one distribution; find where they differ.

    The statistic is the mean of ``log p(x) - log q(x)`` over the first sample, minus that
    over the second. Here ``p`` and ``q`` are kernel densities of the two samples, and
    each point is left out of its own density. The statistic estimates
    ``KL(p, q) + KL(q, p)`` of the two distributions, smoothed by the kernel. It is
    compared with its values after random permutations of the labels.

    Parameters
    ----------
    X, Y : array-like of shape (n_samples_X, n_features), (n_samples_Y, n_features)
        Two samples of independent points, with the same features.

    n_permutations : int, default=199
        Number of permutations. The smallest possible p-value is
        ``1 / (n_permutations + 1)``.

    covariance_type : {"full", "diag", "spherical"}, default="full"
        Shape of the kernels: the covariance of both samples together.

    bandwidth : float or {"clt", "kl", ...}, default="clt"
        Bandwidth of the kernels, in whitened units, or the rule that chooses it from both
        samples together. With "clt" many points contribute to each density, so that there
        is little noise. "kl" shows finer differences.

    random_state : int, RandomState instance or None, default=None
        Draws the permutations. Pass an int for the same p-value each time.

    Returns
    -------
    test : TwoSampleTest
        The p-value, and log density ratios at all points.

    Raises
    ------
    ValueError
        If the samples do not have the same features in the same order, or if one has
        fewer than two points.

    See Also
    --------
    kl_divergence : Estimates how far apart two distributions are.

    Notes
    -----
    The p-value is ``(1 + k) / (1 + n_permutations)``, where ``k`` permutations have a
    statistic at least as large as that of the data. Covariance and bandwidth come from
    both samples together, without their labels. So for independent draws from one
    distribution the p-value is valid for any number of points and features. The test
    computes all pairs of points once, and ``n_permutations`` sums for each point.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.information import two_sample_test
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(300, 10)), rng.normal(size=(300, 10))
    >>> Y[:30] += 1.5  # one in ten points of the second sample has moved
    >>> found = two_sample_test(X, Y, random_state=0)
    >>> found.p_value
    0.005
    >>> rows_X, rows_Y = found.most_different(20)
    >>> int(np.sum(rows_Y < 30))  # of these have moved
    20
    """
    names_X, names_Y = _get_feature_names(X), _get_feature_names(Y)
    X, Y = (_as_points(sample, name) for sample, name in ((X, "X"), (Y, "Y")))
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"X and Y must have the same features; X has {X.shape[1]}, Y {Y.shape[1]}."
        )
    _check_same_names(names_X, names_Y, "X and Y")
    if min(len(X), len(Y)) < 2:
        raise ValueError(
            f"X and Y must have at least two points each; got {len(X)} and {len(Y)}."
        )
    kde = HighDimKernelDensity(covariance_type=covariance_type, bandwidth=bandwidth)
    kde.fit(np.vstack([X, Y]))
    in_first = np.zeros((len(X) + len(Y), n_permutations + 1), dtype=bool)
    in_first[: len(X), 0] = True
    rng = check_random_state(random_state)
    for column in range(1, n_permutations + 1):
        in_first[rng.permutation(len(in_first))[: len(X)], column] = True
    statistics, ratio = _permuted(_whitened(kde) / kde.bandwidth_, in_first)
    # a permutation may be that of the data, up to rounding
    least = statistics[0] - 1e-9 * abs(statistics[0])
    n_as_large = int(np.sum(statistics[1:] >= least))
    return TwoSampleTest(
        statistic=float(statistics[0]),
        p_value=(1 + n_as_large) / (1 + n_permutations),
        null_statistics=statistics[1:],
        log_ratio_X=ratio[: len(X)],
        log_ratio_Y=ratio[len(X) :],
        bandwidth=kde.bandwidth_,
    )


def _permuted(Z, in_first):
    """Return the statistic for each labelling, and log ratios for the first.

    Parameters
    ----------
    Z : ndarray of shape (n_points, n_features)
        In bandwidths.
    in_first : ndarray of bool of shape (n_points, n_labellings)
        Which points are of the first sample; of each labelling as many.
    """
    n_points, n_first = len(Z), in_first[:, 0].sum()
    half_sq = 0.5 * np.einsum("ij,ij->i", Z, Z)
    statistics, first = np.zeros(in_first.shape[1]), np.empty(n_points)
    for rows in row_batches(n_points, n_points, BLOCK_SIZE):
        logs = Z[rows] @ Z.T - half_sq
        own = np.arange(n_points)[rows]
        logs[np.arange(len(own)), own] = -np.inf
        logs -= logs.max(axis=1, keepdims=True)
        others = n_first - in_first[rows]  # of the first sample, without the point itself
        of_first, of_second = _log_sums(logs, in_first, ~in_first)
        ratio = of_first - of_second - np.log(others) + np.log(n_points - 1 - others)
        signs = np.where(in_first[rows], 1.0 / n_first, -1.0 / (n_points - n_first))
        statistics += np.sum(signs * ratio, axis=0)
        first[rows] = ratio[:, 0]
    return statistics, first


def _log_sums(logs, *labellings):
    """Yield logs of sums of kernels over the points with a label, for each labelling.

    Parameters
    ----------
    logs : ndarray of shape (n_rows, n_points)
        Of the kernels, the largest of each row being 0.
    *labellings : ndarray of bool of shape (n_points, n_labellings)
        Which points have the label; at least one in each beside the row itself.
    """
    values = np.exp(logs)
    for labels in labellings:
        sums = values @ labels.astype(np.float64)
        found = np.log(np.maximum(sums, LEAST_SUM))
        low = sums < LEAST_SUM
        for column in np.flatnonzero(low.any(axis=0)):
            rows = low[:, column]
            found[rows, column] = logsumexp(logs[np.ix_(rows, labels[:, column])], axis=1)
        yield found


def _checked(estimator, parameter):
    """Return an estimator; raise if it is of another kind."""
    if isinstance(estimator, HighDimKernelDensity):
        return estimator
    hint = ""
    if hasattr(estimator, "steps"):
        hint = " Pass the last step of a pipeline, fitted to the output of the others."
    elif hasattr(estimator, "score_samples"):
        hint = " Other estimators have no held-out log densities."
    raise TypeError(
        f"{parameter} must be a HighDimKernelDensity, got "
        f"{type(estimator).__name__}.{hint}"
    )


def _estimator(estimator):
    """Return a copy of an estimator to fit; by default its shape is from the data."""
    if estimator is not None:
        return clone(_checked(estimator, "estimator"))
    return HighDimKernelDensity(
        covariance_type="auto", feature_maps="auto", random_state=0
    )


def _fitted(p, estimator, parameter):
    """Return a fitted estimate, of points or as it came."""
    if hasattr(p, "get_params"):
        fitted = _checked(p, parameter)
        fitted._check_fitted()
    else:
        fitted = _estimator(estimator).fit(_column(p))
    if len(fitted.constant_features_):
        raise ValueError(
            f"{parameter} has constant features, {fitted.constant_features_.tolist()}, "
            "which have no density and no entropy. Leave them out."
        )
    return fitted


def _check_same_names(names, others, which):
    """Raise ValueError if features have other names, or in another order."""
    if names is None or others is None or list(names) == list(others):
        return
    k = [a == b for a, b in zip(names, others, strict=True)].index(False)
    raise ValueError(
        f"{which} must have the same features in the same order; column {k} is "
        f"{str(names[k])!r} in the first and {str(others[k])!r} in the second."
    )


def _column(X):
    """Return points; those of shape (n_points,) have one feature."""
    return np.reshape(X, (-1, 1)) if np.ndim(X) == 1 else X


def _as_points(X, parameter):
    """Return points as a float64 array on the host."""
    try:
        X = local(check_points(_column(X)))
    except ValueError as error:
        raise ValueError(f"{parameter}: {error}") from error
    return np.asarray(X, dtype=np.float64)


def _joint(X, Y, groups, estimator):
    """Return the estimate of all features, and the columns of each group in it."""
    if (Y is None) == (groups is None):
        raise ValueError(
            "pass either Y, other features of the same rows, or groups of features of X."
        )
    if hasattr(X, "get_params"):
        return _of_fitted(X, groups)
    names, X = _get_feature_names(X), _as_points(X, "X")
    if groups is None:
        names, Y = _together(names, _get_feature_names(Y)), _as_points(Y, "Y")
        check_consistent_length(X, Y)
        ends = np.arange(X.shape[1] + Y.shape[1])
        columns, X = np.split(ends, [X.shape[1]]), np.hstack([X, Y])
    else:
        columns = _columns(groups, X.shape[1], names)
    used = np.sort(np.concatenate(columns))
    own = _for_columns(_estimator(estimator), used, X.shape[1], names)
    fitted = _fitted(X[:, used], own, "X")
    return fitted, [np.searchsorted(used, of_group) for of_group in columns]


def _together(names, others):
    """Return the names of features of two tables, None if they do not all differ."""
    if names is None or others is None or set(names) & set(others):
        return None
    return [*names, *others]


def _of_fitted(joint, groups):
    """Return a fitted estimate of all features, and the columns of each group."""
    joint = _fitted(joint, None, "X")
    if groups is None:
        raise ValueError("X is a fitted estimate: pass groups of its features, not Y.")
    n_features = joint.n_features_in_
    columns = _columns(groups, n_features, getattr(joint, "feature_names_in_", None))
    n_used = sum(len(of_group) for of_group in columns)
    if n_used < n_features:
        raise ValueError(
            f"groups must have all {n_features} features of a fitted estimate, got "
            f"{n_used}. Pass the points to leave some out."
        )
    return joint, columns


def _columns(groups, n_features, names):
    """Return the columns of each group of features, by indices or names."""
    if not isinstance(groups, Iterable):
        raise ValueError(f"groups must be two or more lists of features, got {groups!r}.")
    columns = [chosen_columns(g, n_features, names, "groups") for g in groups]
    together = np.concatenate([*columns, np.empty(0, dtype=int)])
    several = len(columns) > 1 and all(len(g) for g in columns)
    if not several or len(np.unique(together)) < len(together):
        raise ValueError(
            "groups must be two or more lists of features, none of them empty, and no "
            f"feature in two; got {groups!r}."
        )
    return columns


def _for_columns(estimator, columns, n_features, names):
    """Return a copy of an estimator whose parameters by feature are for some of them."""
    own = clone(estimator)
    if own.support == "sphere":
        raise ValueError(
            "mutual_information needs support='euclidean': features of unit vectors are "
            "never independent."
        )
    if isinstance(own.feature_maps, Mapping):
        maps = resolve_maps(own.feature_maps, n_features, names)[0] or {}
        chosen = {k: maps[column] for k, column in enumerate(columns) if maps}
        own.feature_maps = {k: m for k, m in chosen.items() if m is not None} or None
    discrete = own.discrete_features
    if discrete is not None and not isinstance(discrete, str):
        wanted = columns_wanted(discrete, n_features, names)
        found = np.flatnonzero(np.isin(columns, wanted))
        own.discrete_features = found if len(found) else None
    return own


def _marginal(joint, columns):
    """Return what is to be fitted to some features, as was chosen for all of them."""
    names = getattr(joint, "feature_names_in_", None)
    own = _for_columns(joint, columns, joint.n_features_in_, names)
    if own.covariance_type == "stack":
        return own
    (choice,) = joint._density.choices or [None]
    if own.feature_maps == "auto":
        own.feature_maps = choice and _one_map(choice.maps)
    if own.covariance_type == "auto":
        own.set_params(covariance_type=joint.covariance_type_, preserve_variance=True)
        own.kernel = joint.kernel_
    if own.kernel == "student":
        own.degrees_of_freedom = joint.degrees_of_freedom_
    if own.covariance_type in ("diag", "full") and own.adaptive is False:
        own.bandwidth = joint.bandwidth_
        if own.covariance_type == "full" and own.covariance_estimator is None:
            own.covariance_estimator = _shrunk_alike(joint._density)
    return own


def _shrunk_alike(density):
    """Return a covariance estimator that shrinks as that of a density did.

    Without it the groups of features would be shrunk as suits each of them. None where
    points have weights, with which scikit-learn's estimators do not work as well.
    """
    of_one = density.members[0].density if density.choices[0].maps else density
    (whitened,) = of_one.whitened
    if whitened.weights is not None:
        return None
    root = np.linalg.inv(whitened.whitening.linear)
    shrunk, sample = root.T @ root, root.T @ np.cov(whitened.Z.T, bias=True) @ root
    apart = ~np.eye(len(root), dtype=bool)
    shrunk, sample = (_correlations(C)[apart] for C in (shrunk, sample))
    squares = np.sum(sample**2)
    share = 1.0 - np.sum(shrunk * sample) / squares if squares > 0.0 else 0.0
    return ShrunkCovariance(shrinkage=float(np.clip(share, 0.0, 1.0)))


def _correlations(covariance):
    """Return the correlation matrix."""
    scale = np.sqrt(np.diag(covariance))
    return covariance / np.outer(scale, scale)


def _one_map(maps):
    """Return the map that was chosen for all features but some discrete ones, or None."""
    if isinstance(maps, tuple):
        return next((of_one for of_one in maps if of_one is not None), None)
    return maps


def _warn_of_shared_rows(X, Y):
    """Warn of points of p that q has seen, unless points of p are equal by themselves."""
    of_X = row_hashes(X)
    n_shared = np.count_nonzero(np.isin(of_X, row_hashes(Y)))
    if n_shared and len(np.unique(of_X)) == len(of_X):
        warn_user(
            f"{n_shared} of the {len(X)} rows of p are also rows of q, so that the log "
            "density of q is too high there. Leave them out of one of the two."
        )


def _whitened(kde):
    """Return the training points in the coordinates in which kernels are spherical."""
    density = kde._density
    if density.whitened is not None:
        return density.whitened[0].Z.astype(np.float64)
    X = density.in_data_units(np.arange(density.n_points)).astype(np.float64)
    return X - X.mean(axis=0)
