"""The regimes of a kernel density estimate in large dimension, for Gaussian data.

With ``n`` points in ``d`` dimensions and ``alpha = log(n) / d`` held fixed, the
estimate at a point is the partition function of a random energy model: the
training points are the states, ``|x - y|^2 / 2`` their energies and ``1 / h^2`` the
inverse temperature [1]_. Its regimes, by bandwidth:

=========== =================== ======================================================
``extreme`` ``h < h_g``         a few nearest points give the whole sum
``stable``  ``h_g < h < h_clt`` heavy-tailed fluctuations, without a finite variance
``clt``     ``h > h_clt``       the central limit theorem: Gaussian fluctuations
=========== =================== ======================================================

The *tail index* says where one is: the terms of the sum have a power-law tail of that
index, which is 1 at ``h_g`` and 2 at ``h_clt``. With the Gaussian kernel it is
``(h / h_g)^2``.

All formulas are limits ``d -> infinity`` at fixed ``alpha``. At finite ``d``
thresholds lie higher, by 7 to 13 % for 20 to 100 features, and the transitions are
rounded. :meth:`skhdkde.HighDimKernelDensity.diagnose` measures the regimes from data.

References
----------
.. [1] G. Biroli and M. Mézard, "Kernel Density Estimators in Large Dimensions",
   arXiv:2408.05807.
"""

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, log_expit

__all__ = [
    "REGIMES",
    "GaussianThresholds",
    "expected_participation",
    "extreme_spread",
    "gaussian_thresholds",
]

REGIMES = ("extreme", "stable", "clt")
# Of the largest eigenvalue: rounding may leave those that are zero so far below it.
ROUNDING = 1e-12


def gaussian_thresholds(
    n_samples: float,
    covariance_eigenvalues: ArrayLike,
    *,
    preserve_variance: bool = False,
) -> "GaussianThresholds":
    """Thresholds, best bandwidth and divergence for Gaussian data and kernel.

    Parameters
    ----------
    n_samples : float
        Number of training points, above 1. It need not be an integer, and an int may be
        too large for a float.

    covariance_eigenvalues : array-like of shape (n_features,)
        Eigenvalues of the covariance matrix of the data, in squared data units;
        not negative, except by rounding, and not all zero.

    preserve_variance : bool, default=False
        Whether the training points are shrunk towards the mean, ``y -> m + a (y - m)``
        with ``a^2 = 1 - h^2 / s^2`` and ``s^2`` the mean eigenvalue, so that the estimate
        has the total variance of the data. Bandwidths are then between 0 and ``s``.

    Returns
    -------
    thresholds : GaussianThresholds
        ``h_g``, ``h_clt`` and ``h_kl`` in data units, and methods for any bandwidth.

    Raises
    ------
    TypeError
        If ``n_samples`` is no number.
    ValueError
        If a parameter is not as described.

    See Also
    --------
    skhdkde.HighDimKernelDensity.diagnose : Thresholds from data, at each query.
    skhdkde.select_bandwidth : With ``rule="gaussian"`` it returns ``h_kl``.

    Notes
    -----
    With ``<.>`` the mean over the eigenvalues ``c``, ``a`` as above or 1, and
    ``u = lam a^2 c``, the level ``lam`` at which the expected number of points is one
    solves::

        alpha = <log(1 + u)> / 2 - <u / (1 + u)> / 2 + <lam c u / (1 + u)^2> / 2

    The tail index is ``h^2 lam``. The nearest point is at a squared distance of ``d e``
    with ``e = <a^2 c / (1 + u)> + <c / (1 + u)^2>``. The divergence, per dimension, is::

        <log((h^2 + a^2 c) / c)> / 2 + <c / (h^2 + a^2 c)> / 2 - 1/2         for h >= h_g
        alpha + log(h^2) / 2 - <log c> / 2 + e / (2 h^2) - 1/2               for h <= h_g

    Without shrinkage ``h_clt = sqrt(2) h_g`` and ``h_kl^2 = e``. With it, and equal
    eigenvalues, ``h_g = s n^(-1/d)`` and the divergence vanishes from there up to ``s``;
    ``h_kl`` is then ``h_g``, the smallest of the best.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.regimes import gaussian_thresholds
    >>> theory = gaussian_thresholds(20000, 1 / np.arange(1, 101))
    >>> round(theory.h_g, 4), round(theory.h_clt, 4), round(theory.h_kl, 4)
    (0.2893, 0.4092, 0.1884)
    >>> round(theory.kl(theory.h_kl), 2)  # nats, in all 100 dimensions
    24.84
    >>> round(theory.tail_index(theory.h_kl), 3)
    0.424
    """
    if isinstance(n_samples, bool) or not isinstance(n_samples, Real):
        raise TypeError(f"n_samples must be a number, got {n_samples!r}.")
    if not 1 < n_samples < math.inf:
        raise ValueError(f"n_samples must be finite and > 1, got {n_samples!r}.")
    eigenvalues = np.asarray(covariance_eigenvalues, dtype=np.float64)
    if eigenvalues.ndim != 1 or not len(eigenvalues):
        raise ValueError(
            "covariance_eigenvalues must have shape (n_features,), got "
            f"{eigenvalues.shape}."
        )
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    if -ROUNDING * high <= low < 0.0:
        eigenvalues, low = np.maximum(eigenvalues, 0.0), 0.0
    if not (low >= 0.0 and 0.0 < high < math.inf):
        raise ValueError(
            "covariance_eigenvalues must be finite, >= 0 and not all zero, got values "
            f"from {low!r} to {high!r}."
        )
    alpha = math.log(n_samples) / len(eigenvalues)
    return _solve(alpha, eigenvalues, bool(preserve_variance))


def _solve(alpha, eigenvalues, preserve_variance):
    """Return the thresholds, by a model in units of the mean eigenvalue."""
    largest = eigenvalues.max()
    log_unit = np.log(largest) + np.log(np.mean(eigenvalues / largest))  # of the mean
    with np.errstate(divide="ignore"):
        log_c = np.log(eigenvalues) - log_unit
    model = _Shrunk(alpha, log_c) if preserve_variance else _Plain(alpha, log_c)
    root = float(np.exp(0.5 * log_unit))
    return GaussianThresholds(
        alpha=alpha,
        h_g=float(root * np.exp(model.log_h_g)),
        h_clt=float(root * np.exp(model.log_h_clt)),
        h_kl=float(root * np.exp(model.log_h_kl)),
        n_features=len(eigenvalues),
        preserve_variance=preserve_variance,
        largest_bandwidth=root if preserve_variance else math.inf,
        _model=model,
        _log_unit=float(0.5 * log_unit),
    )


@dataclass(frozen=True)
class GaussianThresholds:
    """What theory says of Gaussian data; made by :func:`gaussian_thresholds`.

    Attributes
    ----------
    alpha : float
        ``log(n_samples) / n_features``.
    h_g : float
        Bandwidth, in data units, below which a few nearest points give the whole sum.
    h_clt : float
        Bandwidth above which the central limit theorem holds.
    h_kl : float
        Bandwidth of the smallest Kullback-Leibler divergence.
    n_features : int
        Number of eigenvalues.
    preserve_variance : bool
        Whether the training points are shrunk towards the mean.
    largest_bandwidth : float
        Bandwidths must be between 0 and this; infinite unless ``preserve_variance``.

    See Also
    --------
    gaussian_thresholds : Makes it, and has the formulas.
    skhdkde.Diagnosis : The same from data, at each query.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.regimes import gaussian_thresholds
    >>> theory = gaussian_thresholds(20000, np.ones(100))
    >>> theory
    GaussianThresholds(alpha=0.099..., h_g=1.37..., h_clt=1.94..., h_kl=1.04..., ...)
    >>> theory.regime([1.0, 1.5, 2.0])
    array(['extreme', 'stable', 'clt'], dtype='<U7')
    >>> round(theory.kl(theory.h_kl), 2)  # nats, in all 100 dimensions
    13.86
    """

    alpha: float
    h_g: float
    h_clt: float
    h_kl: float
    n_features: int
    preserve_variance: bool
    largest_bandwidth: float
    _model: "_Plain | _Shrunk" = field(repr=False, compare=False)
    _log_unit: float = field(repr=False, compare=False)

    def tail_index(self, bandwidth: ArrayLike) -> Any:
        """Tail index of the terms of the sum.

        Parameters
        ----------
        bandwidth : float or array-like
            In data units.

        Returns
        -------
        tail_index : float or ndarray of the same shape
            Below 1 in the extreme regime, above 2 in that of the central limit theorem.
        """
        return self._at(self._model.log_tail_index, bandwidth, np.exp)

    def kl_per_dimension(self, bandwidth: ArrayLike) -> Any:
        """Kullback-Leibler divergence of the estimate from the truth, per dimension.

        Parameters
        ----------
        bandwidth : float or array-like
            In data units.

        Returns
        -------
        kl : float or ndarray of the same shape
            ``KL(truth || estimate) / n_features`` in nats; infinite if an eigenvalue is
            zero.
        """
        return self._at(self._model.kl, bandwidth, lambda kl: max(kl, 0.0))

    def kl(self, bandwidth: ArrayLike) -> Any:
        """Kullback-Leibler divergence of the estimate from the truth.

        Parameters
        ----------
        bandwidth : float or array-like
            In data units.

        Returns
        -------
        kl : float or ndarray of the same shape
            ``KL(truth || estimate)`` in nats, in all dimensions; infinite if an
            eigenvalue is zero.
        """
        return self.kl_per_dimension(bandwidth) * self.n_features

    def regime(self, bandwidth: ArrayLike) -> Any:
        """The regime at each bandwidth.

        Parameters
        ----------
        bandwidth : float or array-like
            In data units.

        Returns
        -------
        regime : {"extreme", "stable", "clt"} or ndarray of the same shape
            A threshold itself belongs to the regime above it.
        """
        h = self._check(bandwidth)
        index = (h >= self.h_g).astype(int) + (h >= self.h_clt)
        return np.array(REGIMES)[index] if h.ndim else REGIMES[int(index)]

    def _at(self, function, bandwidth, last):
        """Return ``last(function(log h))`` for each bandwidth, in the model's units."""
        bandwidth = self._check(bandwidth)
        values = [last(function(np.log(h) - self._log_unit)) for h in bandwidth.flat]
        array = np.array(values, dtype=np.float64).reshape(bandwidth.shape)
        return array if array.ndim else float(array)

    def _check(self, bandwidth):
        """Return bandwidths as an array, if they are in range."""
        bandwidth = np.asarray(bandwidth, dtype=np.float64)
        below = bandwidth < self.largest_bandwidth
        if not ((bandwidth > 0.0) & below).all():
            raise ValueError(
                f"bandwidth must be > 0 and < {self.largest_bandwidth:.6g}, got "
                f"{bandwidth!r}."
            )
        return bandwidth


class _Plain:
    """The theory without shrinkage, in units in which the mean eigenvalue is one.

    With ``x = log(lam c)`` its fractions are logistic functions, and no exponential
    overflows: ``1 / (1 + u) = expit(-x)``. ``log_c`` may hold -inf.
    """

    def __init__(self, alpha, log_c):
        self.alpha, self.log_c = alpha, log_c
        log_lam = _root(lambda log_lam: self._level(log_lam) - alpha)
        self.log_h_g = -0.5 * log_lam
        self.log_h_clt = self.log_h_g + 0.5 * math.log(2.0)
        share = expit(-log_lam - log_c)  # 1 / (1 + u)
        # lam times the squared distance of the nearest point, per dimension
        self.log_nearest_sq = math.log1p(-np.mean(share**2))
        self.log_h_kl = 0.5 * self.log_nearest_sq + self.log_h_g
        # <log(1 + 1/u)> - <u / (1 + u)^2>: twice the divergence where one point decides
        self.frozen = np.mean(-log_expit(log_lam + log_c) - share * (1.0 - share))

    def _level(self, log_lam):
        """Return ``alpha`` at which the expected number of points is one at ``lam``."""
        x = log_lam + self.log_c
        return 0.5 * np.mean(-log_expit(-x) - expit(x) * expit(-x))

    def log_tail_index(self, log_h):
        return 2.0 * (log_h - self.log_h_g)

    def kl(self, log_h):
        if log_h >= self.log_h_g:
            x = 2.0 * log_h - self.log_c
            return 0.5 * np.mean(-log_expit(-x) - expit(x))
        log_t = 2.0 * (log_h - self.log_h_g)
        with np.errstate(over="ignore"):
            return 0.5 * (self.frozen + log_t + np.exp(self.log_nearest_sq - log_t) - 1.0)


class _Shrunk:
    """The theory with ``a^2 = 1 - h^2``, as a function of ``y``: ``h^2 = expit(y)``."""

    def __init__(self, alpha, log_c):
        self.alpha, self.log_c = alpha, log_c
        y_g, y_clt = (
            _root(lambda y, mu=mu: alpha - self._level(math.log(mu) - log_expit(y), y))
            for mu in (1.0, 2.0)
        )
        self.log_h_g, self.log_h_clt = (0.5 * log_expit(y) for y in (y_g, y_clt))
        if np.ptp(log_c) < 1e-12:
            self.log_h_kl = self.log_h_g
        else:
            # without shrinkage the best bandwidth is smaller still
            low = _logit_of_log(2.0 * min(_Plain(alpha, log_c).log_h_kl, self.log_h_g))
            best = minimize_scalar(
                self._frozen,  # beyond h_g the divergence only grows
                bounds=(low - 2.0, y_g),
                method="bounded",
                options={"xatol": 1e-10},
            )
            self.log_h_kl = 0.5 * log_expit(best.x)

    def _level(self, log_lam, y):
        """``alpha`` at which the expected number of points is one at ``lam``."""
        log_u = log_lam + log_expit(-y) + self.log_c
        log_inner = log_lam + self.log_c + log_expit(log_u) + log_expit(-log_u)
        inner = np.exp(np.minimum(log_inner, 700.0)) - expit(log_u)
        return 0.5 * np.mean(-log_expit(-log_u) + inner)

    def _log_lam(self, y):
        """Return ``log lam`` at which the level is ``alpha``."""
        return _root(lambda log_lam: self._level(log_lam, y) - self.alpha)

    def log_tail_index(self, log_h):
        return 2.0 * log_h + self._log_lam(_logit_of_log(2.0 * log_h))

    def kl(self, log_h):
        if np.isneginf(self.log_c).any():
            return np.inf
        if log_h >= self.log_h_g:
            # (h^2 + a^2 c) / c = 1 + ratio, and ratio = h^2 (1/c - 1)
            fall = np.maximum(-self.log_c, 0.0)
            with np.errstate(divide="ignore"):
                log_ratio = 2.0 * log_h + fall + np.log(-np.expm1(-fall))
            above = np.logaddexp(0.0, log_ratio) - expit(log_ratio)
            ratio = np.exp(2.0 * log_h) * np.expm1(np.minimum(-self.log_c, 0.0))
            below = np.log1p(ratio) - ratio / (1.0 + ratio)
            return 0.5 * np.mean(np.where(self.log_c < 0.0, above, below))
        frozen = self._frozen(_logit_of_log(2.0 * log_h))
        return self.alpha + frozen - 0.5 * np.mean(self.log_c) - 0.5

    def _frozen(self, y):
        """Return ``log h + e / (2 h^2)``, the nearest point's share of the divergence."""
        log_h_sq, log_a_sq = log_expit(y), log_expit(-y)
        log_share = log_expit(-self._log_lam(y) - log_a_sq - self.log_c)  # 1 / (1 + u)
        log_terms = self.log_c + log_share - log_h_sq
        nearest_sq = np.exp(log_terms + log_a_sq) + np.exp(log_terms + log_share)
        return 0.5 * log_h_sq + 0.5 * np.mean(nearest_sq)


def _logit_of_log(log_p):
    """Return ``log(p / (1 - p))`` from ``log(p)``."""
    return log_p - np.log(-np.expm1(log_p))


def _root(increasing):
    """Return the root of an increasing function of a logarithm, wherever it is."""
    low, high, step = -1.0, 1.0, 2.0
    while increasing(low) > 0.0:
        low, step = low - step, 2.0 * step
    step = 2.0
    while increasing(high) < 0.0:
        high, step = high + step, 2.0 * step
    return brentq(increasing, low, high, xtol=1e-13, rtol=1e-14)


def extreme_spread(tail_index: ArrayLike) -> Any:
    """Standard deviation of the log density over fresh data sets, extreme regime.

    Parameters
    ----------
    tail_index : float or array-like
        Between 0 and 1.

    Returns
    -------
    spread : float or ndarray of the same shape
        ``pi / sqrt(6) sqrt(1 / tail_index^2 - 1)`` nats: the logarithm of a one-sided
        stable law of that index. NaN outside 0 to 1.

    See Also
    --------
    expected_participation : How few points such an estimate rests on.
    skhdkde.HighDimKernelDensity.diagnose : Standard errors in every regime.

    Examples
    --------
    >>> from skhdkde.regimes import extreme_spread
    >>> round(extreme_spread(0.16), 2)
    7.91
    """
    mu = np.asarray(tail_index, dtype=np.float64)
    mu = np.where((mu > 0.0) & (mu <= 1.0), mu, np.nan)
    spread = np.pi / np.sqrt(6.0) * np.sqrt((1.0 - mu) * (1.0 + mu)) / mu
    return spread if spread.ndim else float(spread)


def expected_participation(tail_index: ArrayLike) -> Any:
    """Expected sum of squared shares of the points, ``max(1 - tail_index, 0)``.

    Its inverse is the effective number of points behind the estimate.

    Parameters
    ----------
    tail_index : float or array-like
        Not negative.

    Returns
    -------
    participation : float or ndarray of the same shape
        NaN for a negative tail index.

    See Also
    --------
    extreme_spread : How uncertain such an estimate is.
    skhdkde.HighDimKernelDensity.diagnose : ``effective_sample_size``, from data.

    Examples
    --------
    >>> from skhdkde.regimes import expected_participation
    >>> expected_participation([0.2, 0.8, 1.5]).round(2)
    array([0.8, 0.2, 0. ])
    """
    mu = np.asarray(tail_index, dtype=np.float64)
    participation = np.where(mu >= 0.0, np.maximum(1.0 - mu, 0.0), np.nan)
    return participation if participation.ndim else float(participation)
