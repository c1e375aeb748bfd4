"""What may be spent on privacy, and the scale of noise that it asks for."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

# Share of epsilon that the number of rows takes.
COUNT_SHARE = Fraction(1, 20)
# Scales of noise, in steps of the whole numbers that are released, are at least this;
# see noisy_sums.
LEAST_SCALE = 2**26


@dataclass(frozen=True)
class Budget:
    """Epsilon and delta of all that a fit releases.

    Attributes
    ----------
    epsilon : float
        The number of rows takes ``COUNT_SHARE`` of it, the sums the rest; by sequential
        composition both together spend ``epsilon``.
    delta : float
        All of it is for the sums. Zero: noise is Laplace's, else Gaussian.
    """

    epsilon: float
    delta: float = 0.0

    @property
    def of_count(self) -> Fraction:
        """Epsilon of the number of rows."""
        return Fraction(self.epsilon) * COUNT_SHARE

    @property
    def count_scale(self) -> int:
        """Scale of the noise of the number of rows, which is a whole number."""
        return math.ceil(1 / self.of_count)

    @property
    def count_error(self) -> float:
        """Standard error of the number of rows; at scale 1 it is 1.36 in truth."""
        return math.sqrt(2.0) * self.count_scale

    @property
    def of_sums(self) -> Fraction:
        """Epsilon of the sums."""
        return Fraction(self.epsilon) * (1 - COUNT_SHARE)

    @property
    def pure(self) -> bool:
        """Whether delta is zero."""
        return self.delta == 0.0

    def weights(self, coefficients: np.ndarray) -> np.ndarray:
        """Return by what features are multiplied before equal noise, the largest 1.

        They make the variance of a kernel sum least: powers 2/3 and 1/2 of the
        coefficients are what Lagrange multipliers give for L1 and L2 sensitivities.
        """
        return (coefficients / coefficients.max()) ** (2.0 / 3.0 if self.pure else 0.5)

    def noise_variance(self, coefficients: np.ndarray) -> float:
        """Return the variance that noise gives to a kernel sum, at any query."""
        if self.pure:
            total = float(np.sum(coefficients ** (2.0 / 3.0)))
            return 4.0 * total**3 / float(self.of_sums) ** 2
        sigma = gaussian_scale(float(self.of_sums), self.delta)
        return (sigma * float(np.sum(coefficients))) ** 2

    def scale(self, sizes: np.ndarray) -> int:
        """Return the scale of noise for pairs of features of these sizes, whole numbers.

        The pair of frequency ``j`` is ``rint(size_j cos)`` and ``rint(size_j sin)``, and
        one row changes the sums by its pairs. Rounding moves each by at most 1/2, so that
        a pair is at most ``size_j + 0.71`` in L2 and ``sqrt(2) size_j + 1`` in L1. What
        is counted, ``size_j + 1`` and ``sqrt(2) size_j + 2``, leaves room for last digits
        of cosine and sine. Laplace noise of scale ``L1 / epsilon`` is exact on whole
        numbers; for Gaussian noise see :meth:`spare_delta`.
        """
        if self.pure:
            reach = int(np.sum(np.ceil(math.sqrt(2.0) * sizes) + 2.0))
            return math.ceil(reach / self.of_sums)
        delta = self.delta - self.spare_delta(2 * len(sizes))
        sigma = gaussian_scale(float(self.of_sums), delta)
        return math.ceil(sigma * float(np.linalg.norm(sizes + 1.0)) * (1.0 + 1e-9))

    def spare_delta(self, n_sums: int) -> float:
        """Return what of delta is spent on the noise being discrete, for so many sums.

        A Gaussian that is rounded to whole numbers is as private as before it is, since
        sums are whole. With ``g(z) = exp(-z^2 / (2 s^2))`` and ``u`` uniform on
        (-1/2, 1/2) its mass at ``z`` is ``r(z) / R``::

            r(z) = g(z) E exp(-u^2 / (2 s^2)) cosh(z u / s^2) >= g(z) exp(-1 / (8 s^2))

        and ``R = sqrt(2 pi) s`` is not above the sum of ``g``, by Poisson's formula. So
        the discrete Gaussian is within ``1 - exp(-1 / (8 s^2))`` of the rounded one in
        total variation, for each sum, and delta within ``1 + exp(epsilon)`` times the
        total for all.
        """
        apart = n_sums / (8.0 * LEAST_SCALE**2)
        spare = (1.0 + math.exp(min(float(self.of_sums), 700.0))) * apart
        if spare > 0.1 * self.delta:
            least = 10.0 * spare
            raise ValueError(
                f"delta={self.delta!r} is too small with epsilon={self.epsilon!r} and "
                f"{n_sums} noisy sums: it must be "
                + (f"at least {least:.1e}, or 0." if least < 1.0 else "0.")
            )
        return spare


def gaussian_scale(epsilon: float, delta: float) -> float:
    """Return the standard deviation of noise for an L2 sensitivity of 1.

    It solves the exact condition of Balle and Wang (2018, Improving the Gaussian
    mechanism for differential privacy)::

        Phi(1 / (2 s) - epsilon s) - exp(epsilon) Phi(-1 / (2 s) - epsilon s) = delta

    An epsilon above 1e6 counts as that, where noise is more than it must be.
    """
    epsilon = min(epsilon, 1e6)

    def excess(log_scale):
        s = math.exp(log_scale)
        first = float(log_ndtr(0.5 / s - epsilon * s))
        second = epsilon + float(log_ndtr(-0.5 / s - epsilon * s))
        # the second is never the larger but for rounding
        return first + math.log(-math.expm1(min(second - first, -1e-300))) - log_delta

    log_delta = math.log(delta)
    return math.exp(brentq(excess, -60.0, 60.0, xtol=1e-13)) * (1.0 + 1e-9)
