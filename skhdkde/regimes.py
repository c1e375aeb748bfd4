"""The regimes of a kernel density estimate in high dimension, and their thresholds.

Consider ``n`` points in ``d`` dimensions, with ``alpha = log(n) / d`` held fixed. The
estimate at a point is then the partition function of a random energy model [1]_: the
training points are the states, ``|x - y|^2 / 2`` are their energies, and ``1 / h^2`` is
the inverse temperature. There are three regimes, by bandwidth:

=========== =================== ======================================================
``extreme`` ``h < h_g``         a few nearest points give the whole sum
``stable``  ``h_g < h < h_clt`` heavy-tailed fluctuations, without a finite variance
``clt``     ``h > h_clt``       the central limit theorem: Gaussian fluctuations
=========== =================== ======================================================

The terms of the sum have a power-law tail. Its *tail index* is 1 at ``h_g`` and 2 at
``h_clt``. For the Gaussian kernel, without shrinkage, it is ``(h / h_g)^2``.

All formulas are limits ``d -> infinity`` at fixed ``alpha``. At finite ``d`` the
thresholds are higher, by 7 to 14 % for 20 to 100 features, and the transitions are
smooth. :func:`gaussian_thresholds` is for Gaussian data, :func:`sphere_thresholds` for
unit vectors. :meth:`skhdkde.HighDimKernelDensity.diagnose` estimates the regimes from
data.

References
----------
.. [1] G. Biroli and M. Mézard, "Kernel Density Estimators in Large Dimensions",
   arXiv:2408.05807.
"""

import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar
from scipy.special import chdtri, expit, log_expit

from skhdkde._private import Budget, lattice_or_number

__all__ = [
    "REGIMES",
    "GaussianThresholds",
    "SphereThresholds",
    "expected_participation",
    "extreme_spread",
    "gaussian_thresholds",
    "private_bandwidth",
    "private_relative_error",
    "sphere_thresholds",
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
    """Return thresholds, best bandwidth and divergence for Gaussian data and kernel.

    Parameters
    ----------
    n_samples : float
        Number of training points, above 1. It need not be an integer, and may be an int
        too large for a float.

    covariance_eigenvalues : array-like of shape (n_features,)
        Eigenvalues of the covariance matrix of the data, in squared data units. They must
        not be negative, except by rounding, nor all zero.

    preserve_variance : bool, default=False
        Whether the training points are shrunk towards the mean, ``y -> m + a (y - m)``,
        so that the estimate has the total variance of the data. Here
        ``a^2 = 1 - h^2 / s^2``, and ``s^2`` is the mean eigenvalue. Bandwidths are then
        between 0 and ``s``.

    Returns
    -------
    thresholds : GaussianThresholds
        ``h_g``, ``h_clt`` and ``h_kl`` in data units, and methods for any bandwidth.

    Raises
    ------
    TypeError
        If ``n_samples`` is not a number.
    ValueError
        If a parameter is not as described.

    See Also
    --------
    skhdkde.HighDimKernelDensity.diagnose : Thresholds from data, at each query.
    skhdkde.select_bandwidth : Returns ``h_kl`` with ``rule="gaussian"``.
    sphere_thresholds : The same for unit vectors.

    Notes
    -----
    The regimes are those of [1]_; :doc:`/theory` derives the formulas. Let ``<.>`` be the
    mean over the eigenvalues ``c``, ``a`` the factor above, or 1 without shrinkage, and
    ``u = lam a^2 c``. The level ``lam``, at which the expected number of points is one,
    solves::

        alpha = <log(1 + u)> / 2 - <u / (1 + u)> / 2 + <lam c u / (1 + u)^2> / 2

    The tail index is ``h^2 lam``. The nearest point is at the squared distance ``d e``,
    where ``e = <a^2 c / (1 + u)> + <c / (1 + u)^2>``. The divergence per dimension is::

        <log((h^2 + a^2 c) / c)> / 2 + <c / (h^2 + a^2 c)> / 2 - 1/2         for h >= h_g
        alpha + log(h^2) / 2 - <log c> / 2 + e / (2 h^2) - 1/2               for h <= h_g

    Without shrinkage ``h_clt = sqrt(2) h_g`` and ``h_kl^2 = e``. With shrinkage and equal
    eigenvalues ``h_g = s n^(-1/d)``, and the divergence is zero from ``h_g`` up to ``s``.
    Then ``h_kl`` is ``h_g``, the smallest of these bandwidths.

    References
    ----------
    .. [1] G. Biroli and M. Mézard, "Kernel Density Estimators in Large Dimensions",
       arXiv:2408.05807.

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
    log_n = _log_n_samples(n_samples)
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
    return _solve(log_n / len(eigenvalues), eigenvalues, bool(preserve_variance))


def _log_n_samples(n_samples):
    """Return the log of a number of points, if it is one."""
    _check_number("n_samples", n_samples, Real)
    if not 1 < n_samples < math.inf:
        raise ValueError(f"n_samples must be finite and > 1, got {n_samples!r}.")
    return math.log(n_samples)


def _check_number(name, value, kind):
    """Raise unless a value is a number of that kind."""
    if isinstance(value, bool) or not isinstance(value, kind):
        what = "an integer" if kind is Integral else "a number"
        raise TypeError(f"{name} must be {what}, got {value!r}.")


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


class _Thresholds:
    """What thresholds share: a model, and bandwidths at which it is evaluated."""

    h_g: float
    h_clt: float
    _model: Any
    _log_unit = 0.0  # of the model's bandwidths

    def _largest(self):
        """Return the bandwidth that all must be below."""
        return math.inf

    def _regime(self, bandwidth):
        """Return the name of the regime at each bandwidth."""
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
        largest = self._largest()
        if not ((bandwidth > 0.0) & (bandwidth < largest)).all():
            raise ValueError(
                f"bandwidth must be > 0 and < {largest:.6g}, got {bandwidth!r}."
            )
        return bandwidth


@dataclass(frozen=True)
class GaussianThresholds(_Thresholds):
    """Thresholds and divergence for Gaussian data, by theory.

    :func:`gaussian_thresholds` returns it.

    Attributes
    ----------
    alpha : float
        ``log(n_samples) / n_features``.
    h_g : float
        Bandwidth, in data units, below which a few nearest points give the whole sum.
    h_clt : float
        Bandwidth, in data units, above which the central limit theorem holds.
    h_kl : float
        Bandwidth of the smallest Kullback-Leibler divergence, in data units.
    n_features : int
        Number of eigenvalues.
    preserve_variance : bool
        Whether the training points are shrunk towards the mean.
    largest_bandwidth : float
        Upper limit of bandwidths, in data units; infinite without ``preserve_variance``.

    See Also
    --------
    gaussian_thresholds : Returns it, and has the formulas.
    skhdkde.Diagnosis : Thresholds from data, at each query.

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
        """Return the tail index of the terms of the sum.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in data units.

        Returns
        -------
        tail_index : float or ndarray of the same shape
            Below 1 in the extreme regime, above 2 in that of the central limit theorem.
        """
        return self._at(self._model.log_tail_index, bandwidth, np.exp)

    def kl_per_dimension(self, bandwidth: ArrayLike) -> Any:
        """Return the divergence of the estimate from the truth, per dimension.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in data units.

        Returns
        -------
        kl : float or ndarray of the same shape
            ``KL(truth || estimate) / n_features`` in nats; infinite if an eigenvalue is
            zero.
        """
        return self._at(self._model.kl, bandwidth, lambda kl: max(kl, 0.0))

    def kl(self, bandwidth: ArrayLike) -> Any:
        """Return the Kullback-Leibler divergence of the estimate from the truth.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in data units.

        Returns
        -------
        kl : float or ndarray of the same shape
            ``KL(truth || estimate)`` in nats, in all dimensions; infinite if an
            eigenvalue is zero.
        """
        return self.kl_per_dimension(bandwidth) * self.n_features

    def regime(self, bandwidth: ArrayLike) -> Any:
        """Return the regime at each bandwidth.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in data units.

        Returns
        -------
        regime : {"extreme", "stable", "clt"} or ndarray of the same shape
            Name of the regime. A threshold belongs to the regime above it.
        """
        return self._regime(bandwidth)

    def _largest(self):
        return self.largest_bandwidth


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


def sphere_thresholds(
    n_samples: float, n_features: int, concentration: float = 0.0
) -> "SphereThresholds":
    """Return thresholds, best bandwidth and divergence for unit vectors.

    The data follow a von Mises-Fisher distribution on the unit sphere, or are uniform
    there. The kernel is of the von Mises-Fisher form, with the concentration
    ``kappa = 1 / h^2``.

    Parameters
    ----------
    n_samples : float
        Number of training points, above 1. It need not be an integer, and may be an int
        too large for a float.

    n_features : int
        Dimension of the space around the sphere, at least 2.

    concentration : float, default=0.0
        Concentration of the data, not negative. Zero means uniform data.

    Returns
    -------
    thresholds : SphereThresholds
        ``h_g``, ``h_clt`` and ``h_kl``, and methods for any bandwidth. All bandwidths are
        in units of the chord ``|x - y|`` between unit vectors.

    Raises
    ------
    TypeError
        If a parameter is not a number, or ``n_features`` not an integer.
    ValueError
        If a parameter is out of range.

    See Also
    --------
    gaussian_thresholds : The same for Gaussian data.
    skhdkde.HighDimKernelDensity.diagnose : Thresholds from data, at each query.

    Notes
    -----
    These are limits for many features ``d`` at fixed ``alpha = log(n_samples) / d`` and
    ``k_0 = concentration / d``, for the regimes of [1]_. :doc:`/embeddings` has the
    derivation. For uniform data of 20 to 100 features the true ``h_g`` is 7 to 14 %
    higher. Let ``R = 2 k_0 / (1 + sqrt(1 + 4 k_0^2))``, the mean cosine of the data to
    their mode, and ``b = k_0 R``. The cosine ``t`` to the nearest point solves::

        alpha = b (1 - t) - log(1 + b) / 2 - (s - 1) / 2 - log(Q) / 2
        s = sqrt(1 + 4 b (1 - t^2)),    Q = 2 (1 - t^2) / (1 + s),    t > R^2

    The thresholds, as values of ``k = kappa / d``, are::

        k_G = t / Q - b,    k_CLT = k_G / 2,    k_KL = t / (1 - t^2)

    and ``h = (k d)^(-1/2)``. Let ``g(k) = (s - 1) / 2 - log((1 + s) / 2) / 2``, here with
    ``s = sqrt(1 + 4 k^2)``. The divergence per dimension is::

        b + g(k) - g(sqrt(k_0^2 + k^2 + 2 k b))          for h >= h_g
        b + g(k) - g(k_0) + alpha - k t                  for h <= h_g

    For uniform data ``t^2 = 1 - exp(-2 alpha)`` and ``h_kl`` is ``h_g``; from there on
    the divergence is zero.

    References
    ----------
    .. [1] G. Biroli and M. Mézard, "Kernel Density Estimators in Large Dimensions",
       arXiv:2408.05807.

    Examples
    --------
    >>> from skhdkde.regimes import sphere_thresholds
    >>> theory = sphere_thresholds(5000, 100, concentration=100.0)
    >>> round(theory.h_g, 4), round(theory.h_clt, 4), round(theory.h_kl, 4)
    (0.1142, 0.1614, 0.0963)
    >>> round(theory.kl(theory.h_kl), 2)  # nats
    6.38
    >>> round(theory.tail_index(theory.h_kl), 3)
    0.712
    """
    log_n = _log_n_samples(n_samples)
    _check_number("n_features", n_features, Integral)
    if n_features < 2:
        raise ValueError(f"n_features must be >= 2, got {n_features!r}.")
    _check_number("concentration", concentration, Real)
    if not 0.0 <= concentration < math.inf:
        raise ValueError(f"concentration must be finite and >= 0, got {concentration!r}.")
    alpha = log_n / n_features
    model = _Sphere(alpha, concentration / n_features, math.log(n_features))
    return SphereThresholds(
        alpha=alpha,
        h_g=math.exp(model.log_h_g),
        h_clt=math.exp(model.log_h_clt),
        h_kl=math.exp(model.log_h_kl),
        n_features=int(n_features),
        concentration=float(concentration),
        _model=model,
    )


@dataclass(frozen=True)
class SphereThresholds(_Thresholds):
    """Thresholds and divergence for unit vectors, by theory.

    :func:`sphere_thresholds` returns it. All bandwidths are in chord units, those of the
    distance ``|x - y|`` between unit vectors.

    Attributes
    ----------
    alpha : float
        ``log(n_samples) / n_features``.
    h_g : float
        Bandwidth below which a few nearest points give the whole sum.
    h_clt : float
        Bandwidth above which the central limit theorem holds.
    h_kl : float
        Bandwidth of the smallest Kullback-Leibler divergence. For uniform data there are
        many, and this is the smallest of them.
    n_features : int
        Dimension of the space around the sphere.
    concentration : float
        Concentration of the data.

    See Also
    --------
    sphere_thresholds : Returns it, and has the formulas.
    skhdkde.Diagnosis : Thresholds from data, at each query.

    Examples
    --------
    >>> from skhdkde.regimes import sphere_thresholds
    >>> theory = sphere_thresholds(5000, 100)
    >>> theory
    SphereThresholds(alpha=0.085..., h_g=0.145..., h_clt=0.206..., h_kl=0.145..., ...)
    >>> theory.regime([0.1, 0.2, 0.3])
    array(['extreme', 'stable', 'clt'], dtype='<U7')
    >>> theory.kl([0.1, 0.2, 0.3]).round(2)  # nats
    array([6.68, 0.  , 0.  ])
    """

    alpha: float
    h_g: float
    h_clt: float
    h_kl: float
    n_features: int
    concentration: float
    _model: "_Sphere" = field(repr=False, compare=False)

    def tail_index(self, bandwidth: ArrayLike) -> Any:
        """Return the tail index of the terms of the sum, ``(h / h_g)^2``.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in chord units.

        Returns
        -------
        tail_index : float or ndarray of the same shape
            Below 1 in the extreme regime, above 2 in that of the central limit theorem.
        """
        return self._at(self._model.log_tail_index, bandwidth, np.exp)

    def kl(self, bandwidth: ArrayLike) -> Any:
        """Return the Kullback-Leibler divergence of the estimate from the truth.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in chord units.

        Returns
        -------
        kl : float or ndarray of the same shape
            ``KL(truth || estimate)`` in nats. For uniform data it is zero from ``h_g``
            on.
        """
        per_dimension = self._at(self._model.kl, bandwidth, lambda kl: max(kl, 0.0))
        return per_dimension * self.n_features

    def regime(self, bandwidth: ArrayLike) -> Any:
        """Return the regime at each bandwidth.

        Parameters
        ----------
        bandwidth : float or array-like
            Bandwidth, in chord units.

        Returns
        -------
        regime : {"extreme", "stable", "clt"} or ndarray of the same shape
            Name of the regime. A threshold belongs to the regime above it.
        """
        return self._regime(bandwidth)


class _Sphere:
    """The theory of von Mises-Fisher data, by the cosine ``t`` to the nearest point.

    With ``b = k_0 R`` two random points have the cosine ``t_0 = R^2 = b / (1 + b)``, and
    ``t = t_0 + (1 - t_0) expit(u)``. Differences are from ``t_0`` on, so that none loses
    digits, be ``alpha`` tiny or large.
    """

    def __init__(self, alpha, k_0, log_d):
        self.alpha, self.log_d = alpha, log_d
        self.b = k_0 * (2.0 * k_0 / (1.0 + math.hypot(1.0, 2.0 * k_0)))
        self.t_0 = self.b / (1.0 + self.b)
        u = _root(lambda u: self._level(u) - alpha)
        beyond, s_fall, log_q_fall = self._changes(u)
        t = self.t_0 + beyond
        self.log_short = float(log_expit(-u)) - math.log1p(self.b)  # log(1 - t)
        log_sine_sq = self.log_short + math.log1p(t)
        log_q = math.log(2.0) + log_sine_sq - math.log(2.0 + 2.0 * self.t_0 - s_fall)
        log_k_g = math.log(beyond - self.t_0 * math.expm1(log_q_fall)) - log_q
        log_k_kl = max(math.log(t) - log_sine_sq, log_k_g)
        self.log_h_g = -0.5 * (log_k_g + log_d)
        self.log_h_clt = self.log_h_g + 0.5 * math.log(2.0)
        self.log_h_kl = -0.5 * (log_k_kl + log_d)

    def _level(self, u):
        """Return ``alpha`` at which the nearest point is at ``u``."""
        _, s_fall, log_q_fall = self._changes(u)
        return -self.t_0 * expit(u) + 0.5 * (s_fall - log_q_fall)

    def _changes(self, u):
        """Return the changes from ``t_0`` on: of ``t``, of ``-s`` and of ``log Q``."""
        beyond = expit(u) / (1.0 + self.b)
        s_0 = 1.0 + 2.0 * self.t_0
        s = math.sqrt(1.0 + 4.0 * self.t_0 * expit(-u) * (1.0 + self.t_0 + beyond))
        s_fall = 4.0 * self.t_0 * expit(u) * (2.0 * self.t_0 + beyond) / (s + s_0)
        log_q_fall = (
            log_expit(-u)
            + math.log1p(beyond / (1.0 + self.t_0))
            - math.log1p(-s_fall / (1.0 + s_0))
        )
        return beyond, s_fall, log_q_fall

    def log_tail_index(self, log_h):
        return 2.0 * (log_h - self.log_h_g)

    def kl(self, log_h):
        """Return the divergence per dimension, from ``k = q / p`` that may overflow."""
        log_k = -2.0 * log_h - self.log_d
        p, q = np.exp(-max(log_k, 0.0)), np.exp(min(log_k, 0.0))
        s = np.hypot(p, 2.0 * q)  # times p, as all below
        if log_h < self.log_h_g:
            with np.errstate(over="ignore"):
                miss = np.exp(log_k + self.log_short)  # k (1 - t)
            log_s = max(log_k, 0.0) + np.log(0.5 * (p + s))
            rest = np.log1p(self.b) - 1.0 + p / (s + 2.0 * q) - log_s
            return self.alpha + miss + 0.5 * rest
        along = self.b * p + q
        s_k = np.hypot(p, 2.0 * np.hypot(along, np.sqrt(self.b) * p))  # of K(k)
        near = p * (1.0 + 4.0 * self.b) / (s_k + 2.0 * along) + p / (s + 2.0 * q) - 2.0
        scale = self.b * p / (s_k + s)
        return scale * near + 0.5 * np.log1p(4.0 * scale * (along + p + q) / (p + s))


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
    """Return the standard deviation of the log density in the extreme regime.

    Parameters
    ----------
    tail_index : float or array-like
        Tail index, above 0 and up to 1.

    Returns
    -------
    spread : float or ndarray of the same shape
        Standard deviation over new data sets, ``pi / sqrt(6) sqrt(1 / tail_index^2 - 1)``
        nats. NaN for other tail indices.

    See Also
    --------
    expected_participation : The effective number of points of such an estimate.
    skhdkde.HighDimKernelDensity.diagnose : Standard errors in every regime.

    Notes
    -----
    In this regime the estimate follows a one-sided stable law with this index. The
    formula is the standard deviation of the logarithm of such a variable.

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
    """Return the expected sum of the squared shares of the points.

    It is ``max(1 - tail_index, 0)``. One over this sum is the effective number of points
    in the estimate.

    Parameters
    ----------
    tail_index : float or array-like
        Tail index, not negative.

    Returns
    -------
    participation : float or ndarray of the same shape
        Expected sum, from 0 to 1; NaN for a negative tail index.

    See Also
    --------
    extreme_spread : The standard deviation of such a log density.
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


def private_bandwidth(
    n_samples: float,
    covariance_eigenvalues: ArrayLike,
    epsilon: float,
    *,
    delta: float = 0.0,
    relative_error: float = 0.1,
    n_components: int | None = None,
    widths: ArrayLike | None = None,
) -> float:
    """Return the smallest bandwidth at which a private kernel sum has a given error.

    The data are Gaussian, and the query is at a median distance from their mean. All
    arguments must be public. The covariance of the private rows is not public: pass the
    eigenvalues that you expect.

    Parameters
    ----------
    n_samples : float
        Number of training points, above 1.

    covariance_eigenvalues : array-like of shape (n_features,)
        Eigenvalues of the covariance matrix that the data are expected to have, in
        squared data units, as for :func:`gaussian_thresholds`.

    epsilon, delta : float
        Privacy parameters of :class:`skhdkde.private.PrivateKernelDensity`.

    relative_error : float, default=0.1
        Standard error of the kernel sum, from noise and random frequencies, divided by
        the sum.

    n_components : int, default=None
        Number of random frequencies. None means "auto" of the estimator.

    widths : array-like of shape (n_features,), default=None
        Widths of the `bounds` of the estimator, in data units, in the order of the
        eigenvalues; None for no bounds.

    Returns
    -------
    bandwidth : float
        The bandwidth, in data units.

    Raises
    ------
    TypeError
        If a parameter is not a number.
    ValueError
        If a parameter is out of range, or if no bandwidth has so small an error. Then
        there are too few points: no kernel sum is larger than their number.

    See Also
    --------
    private_relative_error : The error at any bandwidth, with the formulas.
    gaussian_thresholds : The thresholds of the regimes, which this bandwidth exceeds.
    skhdkde.private.PrivateKernelDensity : The estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.regimes import gaussian_thresholds, private_bandwidth
    >>> h = private_bandwidth(50000, np.ones(20), epsilon=1.0)
    >>> theory = gaussian_thresholds(50000, np.ones(20))
    >>> round(h, 2), round(h / theory.h_clt, 1)
    (2.24, 2.6)
    """
    _check_number("relative_error", relative_error, Real)
    if not 0.0 < relative_error < math.inf:
        raise ValueError(f"relative_error must be > 0, got {relative_error!r}.")

    def excess(log_h):
        found = private_relative_error(
            math.exp(log_h),
            n_samples,
            covariance_eigenvalues,
            epsilon,
            delta=delta,
            n_components=n_components,
            widths=widths,
        )
        return math.log(min(found, 1e300) / relative_error)

    largest = math.sqrt(float(np.max(covariance_eigenvalues, initial=0.0)) or 1.0)
    low, high = math.log(largest) - 2.0, math.log(largest) + 12.0
    if excess(high) > 0.0:
        raise ValueError(
            f"no bandwidth has a relative error of {relative_error!r} with n_samples="
            f"{n_samples!r}, epsilon={epsilon!r} and delta={delta!r}."
        )
    while excess(low) < 0.0:
        low -= 2.0
    root = brentq(excess, low, high, xtol=1e-6)
    # the error may jump down there, where a lattice takes over
    return math.exp(root if excess(root) <= 0.0 else root + 2e-6)


def private_relative_error(
    bandwidth: float,
    n_samples: float,
    covariance_eigenvalues: ArrayLike,
    epsilon: float,
    *,
    delta: float = 0.0,
    n_components: int | None = None,
    widths: ArrayLike | None = None,
) -> float:
    """Return the relative error of a private kernel sum, for Gaussian data.

    Parameters
    ----------
    bandwidth : float
        Bandwidth, in data units.

    n_samples : float
        Number of training points, above 1.

    covariance_eigenvalues : array-like of shape (n_features,)
        Eigenvalues of the covariance matrix that the data are expected to have, in
        squared data units.

    epsilon, delta : float
        Privacy parameters of :class:`skhdkde.private.PrivateKernelDensity`.

    n_components : int, default=None
        Number of random frequencies. None means "auto" of the estimator.

    widths : array-like of shape (n_features,), default=None
        Widths of the `bounds` of the estimator, in data units, in the order of the
        eigenvalues; None for no bounds.

    Returns
    -------
    relative_error : float
        Standard error of the kernel sum, from noise and random frequencies, divided by
        the expected sum.

    Raises
    ------
    TypeError
        If a parameter is not a number.
    ValueError
        If a parameter is out of range.

    See Also
    --------
    private_bandwidth : The smallest bandwidth with a given error.
    skhdkde.private.PrivateKernelDensity.standard_error : The error of a fit.

    Notes
    -----
    The query ``y`` is at the median of ``|y|^2``. With ``n`` points and eigenvalues ``c``
    the expected kernel sum is::

        S = n prod(h^2 / (h^2 + c))^(1/2) exp(-sum(y^2 / (h^2 + c)) / 2)

    The noise of ``m`` random frequencies has the variance ``4 m / epsilon^2``, or ``s^2``
    for the Gaussian mechanism of scale ``s``. The notes of
    :class:`skhdkde.private.PrivateKernelDensity` have the noise of a lattice. Random
    frequencies add the variance ``V / m``, where ``V`` is the variance of
    ``sum_x cos(omega (x - y))`` over ``omega``::

        V = (sum_xz K(x - z) + sum_xz K(x + z - 2 y)) / 2 - S^2

    Its means over the points are Gaussian integrals. The formulas hold for any number of
    features. But the sum must be well above the noise, which is that of tens to
    thousands of points. In high dimension so many points are within reach of a query only
    at bandwidths far above ``h_clt``.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde.regimes import private_relative_error
    >>> errors = [private_relative_error(h, 50000, np.ones(20), 1.0) for h in (1.5, 2, 3)]
    >>> np.round(errors, 2)
    array([1.85, 0.18, 0.04])
    """
    n = math.exp(_log_n_samples(n_samples))
    c = np.atleast_1d(np.asarray(covariance_eigenvalues, dtype=np.float64))
    if c.ndim != 1 or not (np.isfinite(c) & (c >= 0.0)).all() or not c.any():
        raise ValueError(
            "covariance_eigenvalues must be finite, >= 0 and not all zero, of shape "
            f"(n_features,), got {covariance_eigenvalues!r}."
        )
    for name, value in (("bandwidth", bandwidth), ("epsilon", epsilon)):
        _check_number(name, value, Real)
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be finite and > 0, got {value!r}.")
    _check_number("delta", delta, Real)
    if not 0.0 <= delta < 1.0:
        raise ValueError(f"delta must be from 0 to below 1, got {delta!r}.")
    if n_components is not None:
        _check_number("n_components", n_components, Integral)
        if n_components < 2:
            raise ValueError(f"n_components must be 2 or more, got {n_components!r}.")
        n_components = int(n_components)
    budget = Budget(float(epsilon), float(delta))
    box = None if widths is None else _box_of_widths(widths, len(c))
    plan = lattice_or_number(n, float(bandwidth), budget, box, n_components)
    log_sum, variance = _gaussian_sums(n, c, bandwidth**2)  # over frequencies
    if isinstance(plan, int):
        variance = (variance + budget.noise_variance(np.ones(plan)) / plan) / plan
    else:
        variance = budget.noise_variance(plan.coefficients)
    with np.errstate(over="ignore"):
        return float(np.exp(0.5 * math.log(variance) - log_sum))


def _box_of_widths(widths, n_features):
    """Return lower and upper bounds around zero."""
    what = (
        f"widths must be finite and > 0, a number or of shape ({n_features},), got "
        f"{widths!r}."
    )
    try:
        high = 0.5 * np.broadcast_to(np.asarray(widths, dtype=np.float64), n_features)
    except (TypeError, ValueError) as error:
        raise ValueError(what) from error
    if not (np.isfinite(high) & (high > 0.0)).all():
        raise ValueError(what)
    return -high, high


def _gaussian_sums(n, c, h_sq):
    """Return the log of the expected kernel sum, and the variance over frequencies."""
    share = c / (h_sq + c)
    freedom = share.sum() ** 2 / np.sum(share**2)
    # of |y|^2 at the median over its mean, by the chi-squared law of the same moments
    y_sq = c * float(chdtri(freedom, 0.5)) / freedom

    def log_mean(of_points, of_query):
        """Return the log of E exp(-|z|^2 / (2 h^2)) from variances and mean squares."""
        logs = np.log1p(of_points / h_sq) + of_query / (h_sq + of_points)
        return -0.5 * float(logs.sum())

    at_query = log_mean(c, y_sq)
    pairs = n * (n - 1.0)
    itself = math.exp(log_mean(4.0 * c, 4.0 * y_sq))
    squares = 0.5 * n * (1.0 + itself)
    squares += 0.5 * pairs * math.exp(log_mean(2.0 * c, 0.0 * c))
    squares += 0.5 * pairs * math.exp(log_mean(2.0 * c, 4.0 * y_sq))
    of_square = math.exp(log_mean(2.0 * c, 2.0 * y_sq))  # E K^2: half the squared width
    spread = squares - n * of_square - pairs * math.exp(2.0 * at_query)
    return math.log(n) + at_query, max(spread, 0.0)
