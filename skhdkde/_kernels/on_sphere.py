"""Kernels restricted to the unit sphere, normalised with respect to its surface measure.

The profile is that of the kernel in space, a function of the chord ``|x - y|``, whose
square is ``2 - 2 x.y``. Only its integral is another: over the sphere. The Gaussian
kernel so restricted is the von Mises-Fisher kernel of concentration ``1 / h^2``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.special import betaln, expit, log_expit

from skhdkde._kernels.bessel import concentration, log_vmf_peak
from skhdkde._kernels.compact import Cosine, Epanechnikov, Linear, Tophat
from skhdkde._kernels.integrals import log_integral, nodes_where_large
from skhdkde._kernels.kernel import Exponential, Gaussian, Kernel, log_sphere_area
from skhdkde._kernels.student import Student
from skhdkde._utils.typing import FloatArray

# Nats by which a kernel may vary over the sphere that counts as uniform.
UNIFORM = 1e-4
# Logarithms of bandwidths between which one is found at which a kernel is that.
LOG_BANDWIDTHS = -5.0, 60.0
# Beyond the peak of the law of a chord, on either side, in logits: a margin.
MARGIN = 90.0


class OnSphere(Kernel):
    """What differs between a kernel on the sphere and the same in space."""

    on_sphere = True

    def log_volume(self, n_features, h):
        """Return the log of the integral of ``k(r / h)`` over the unit sphere."""
        found = [self._log_volume(n_features, one) for one in np.atleast_1d(h)]
        return np.reshape(found, np.shape(h))[()]

    def _log_volume(self, n_features, h):
        m = n_features - 1.0
        log_law, low, high = self._law_of_logit(n_features, h)
        area = log_sphere_area(n_features) - betaln(0.5 * m, 0.5 * m)
        return area + log_integral(log_law, low, high)

    def _law_of_logit(self, n_features, h):
        """Return the log law of the chord of a pair, up to a constant, and its range.

        A quarter ``s`` of the squared chord of uniform pairs has a beta law. It is a
        function of the logit of ``s``, relative to the largest in reach.
        """
        m, farthest = n_features - 1.0, self._farthest(h)

        def log_law(logit):
            s = farthest * expit(logit)
            beyond = log_expit(-logit) if farthest == 1.0 else np.log1p(-s)
            logs = 0.5 * m * np.log(s) + (0.5 * m - 1.0) * beyond + log_expit(-logit)
            return logs + self.log_profile(4.0 * s, h)

        smallest = 0.0 if self.compact else min(2.0 * np.log(h), 0.0)
        return log_law, smallest - MARGIN, MARGIN

    def _farthest(self, h):
        """Return a quarter of the largest squared chord at which a kernel is not zero."""
        return min(0.25 * h**2, 1.0) if self.compact else 1.0

    def lengths(self, n_features, h, size, rng):
        """Return random chords from the centre of a kernel, (size,)."""
        log_law, low, high = self._law_of_logit(n_features, h)
        logit, logs = nodes_where_large(log_law, low, high)
        cumulative = np.cumsum(np.exp(logs - logs.max()))
        cumulative, first = np.unique(cumulative / cumulative[-1], return_index=True)
        step = 0.5 * (logit[1] - logit[0])  # a node stands for half a step on each side
        quantile = PchipInterpolator(cumulative, logit[first] + step)
        drawn = rng.uniform(cumulative[0], 1.0, size=size)
        return 2.0 * np.sqrt(self._farthest(h) * expit(quantile(drawn)))

    def largest_bandwidth(self, n_features):
        """Return the bandwidth at which a kernel is as good as uniform."""
        antipode = np.array([4.0])

        def lack(log_h):
            lack = float(self.log_profile(antipode, np.exp(log_h))[0]) + UNIFORM
            return max(lack, -1.0)

        return float(np.exp(brentq(lack, *LOG_BANDWIDTHS)))

    def bandwidth_at(self, mean_sq, n_features):
        """Return the bandwidth of a mean squared distance to the nearest point.

        The mean cosine of a von Mises-Fisher law is that to the nearest point; another
        kernel has the variance of that, as in space.
        """
        kappa = concentration(n_features, 0.5 * mean_sq)
        h = np.sqrt(1.0 / kappa / self.variance(n_features)) if kappa > 0.0 else np.inf
        return float(min(h, self.largest_bandwidth(n_features)))


class VonMisesFisher(OnSphere, Gaussian):
    """``exp((x.y - 1) / h^2)``, of concentration ``1 / h^2``."""

    def log_volume(self, n_features: int, h: Any) -> FloatArray:
        return -log_vmf_peak(n_features, np.square(1.0 / np.asarray(h, dtype=float)))


class SphereExponential(OnSphere, Exponential):
    """``exp(-r / h)`` of the chord ``r``."""


class SphereTophat(OnSphere, Tophat):
    """1 within the chord ``h``."""


class SphereEpanechnikov(OnSphere, Epanechnikov):
    """``1 - (r / h)^2`` of the chord ``r``."""


class SphereLinear(OnSphere, Linear):
    """``1 - r / h`` of the chord ``r``."""


class SphereCosine(OnSphere, Cosine):
    """``cos(pi r / 2 h)`` of the chord ``r``."""


class SphereStudent(OnSphere, Student):
    """``(1 + r^2 / (nu h^2))^-(nu + d - 1)/2``: the surface has one dimension less."""

    def __init__(self, degrees_of_freedom: float, n_features: int):
        super().__init__(degrees_of_freedom, n_features - 1)
