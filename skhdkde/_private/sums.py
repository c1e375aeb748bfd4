"""Make noisy sums of rows, and of these kernel sums with their errors."""

import math
from dataclasses import dataclass

import numpy as np
from sklearn.utils import gen_batches

from skhdkde._private.budget import LEAST_SCALE, Budget
from skhdkde._private.discrete_noise import (
    LARGEST_GAUSSIAN,
    LARGEST_LAPLACE,
    discrete_gaussian,
    discrete_laplace,
)
from skhdkde._private.frequencies import N_PHASES, Frequencies
from skhdkde._utils.typing import FloatArray, IntArray

# Elements of a block of phases.
BLOCK_SIZE = 2**20
# The largest feature is between, in steps: below the first rounding would be felt, above
# the other 2^27 rows might overflow. Sizes that are tried first.
LEAST_SIZE, LARGEST_SIZE, PROBE = 2**10, 2**36, 2**20
# Cosine and sine of all phases.
CIRCLE = np.array(
    [f(2.0 * math.pi / N_PHASES * np.arange(N_PHASES)) for f in (np.cos, np.sin)]
)


def noisy_count(n: int, budget: Budget) -> int:
    """Return a number of rows with discrete Laplace noise."""
    if budget.count_scale > LARGEST_LAPLACE:
        raise ValueError(f"epsilon={budget.epsilon!r} is too small.")
    return n + int(discrete_laplace(budget.count_scale, 1)[0])


def noisy_sums(X: FloatArray, frequencies: Frequencies, budget: Budget) -> "NoisySums":
    """Return what may be released of rows: sums of their features, with noise."""
    sizes, scale = sizes_and_scale(frequencies, budget)
    totals = whole_sums(X, frequencies, sizes)
    draw = discrete_laplace if budget.pure else discrete_gaussian
    noise = draw(scale, totals.size).reshape(totals.shape)
    spread = (math.sqrt(2.0) if budget.pure else 1.0) * scale / sizes
    kurtosis = 6.0 if budget.pure else 3.0
    return NoisySums(frequencies, (totals + noise) / sizes, spread, kurtosis)


def sizes_and_scale(frequencies, budget):
    """Return the sizes of features, whole numbers, and the scale of noise for them.

    They are so large that noise is many steps wide, and rounding is nothing beside it.
    """
    weights = budget.weights(frequencies.coefficients)
    factor = 1.5 * PROBE * LEAST_SCALE / budget.scale(_whole(PROBE * weights))
    sizes = _whole(max(factor, LEAST_SIZE) * weights)
    scale = budget.scale(sizes)
    largest = LARGEST_LAPLACE if budget.pure else LARGEST_GAUSSIAN
    if scale > largest or factor > LARGEST_SIZE:
        size = "small" if scale > largest else "large"
        raise ValueError(
            f"epsilon={budget.epsilon!r} is too {size}, with {len(weights)} components."
        )
    return sizes, scale


def _whole(sizes):
    return np.maximum(np.floor(sizes), 1.0)


def whole_sums(X: FloatArray, frequencies: Frequencies, sizes: FloatArray) -> IntArray:
    """Return sums over rows of whole-numbered features: cosines, and sines."""
    totals = np.zeros((2, len(sizes)), dtype=np.int64)
    n_rows = max(1, BLOCK_SIZE // len(sizes))
    for rows in gen_batches(len(X), n_rows):
        phases = frequencies.phases(X[rows])
        for total, table in zip(totals, CIRCLE, strict=True):
            features = table[phases]
            features *= sizes
            np.rint(features, out=features)
            total += features.astype(np.int64).sum(axis=0)
    return totals


@dataclass(frozen=True)
class NoisySums:
    """Sums over rows of Fourier features, with noise: all that is known of the rows.

    Attributes
    ----------
    frequencies : Frequencies
    sums : ndarray of shape (2, n_frequencies)
        Of cosines and of sines.
    spread : ndarray of shape (n_frequencies,)
        Standard deviation of the noise in each of the two.
    kurtosis : float
        Of the noise: its fourth moment over its squared variance.
    """

    frequencies: Frequencies
    sums: FloatArray
    spread: FloatArray
    kurtosis: float

    def kernel_sums(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return sums of kernels of maximum 1 at queries, and their standard errors.

        Terms of random frequencies are independent, with their noise, and their spread is
        the error. In a lattice there is the noise alone, and it is the same everywhere.
        """
        c = self.frequencies.coefficients
        found, errors = np.empty((2, len(X)))
        errors.fill(self.noise)
        for rows in gen_batches(len(X), max(1, BLOCK_SIZE // len(c))):
            phases = self.frequencies.phases(X[rows])
            terms = CIRCLE[0][phases] * self.sums[0] + CIRCLE[1][phases] * self.sums[1]
            found[rows] = terms @ c
            if self.frequencies.random:
                errors[rows] = np.std(terms, axis=1, ddof=1) / math.sqrt(len(c))
        return found, errors

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a kernel sum."""
        return float(np.linalg.norm(self.frequencies.coefficients * self.spread))


def typical_error(released: list[NoisySums], n_rows: float, n_error: float) -> float:
    """Return the relative error of a kernel sum at a typical row; it may be infinite.

    Rows are in one or several groups, each with sums of its own; ``n_error`` is the
    standard error of the number of all. Only what is released is used, and where it is
    unsure the error is stated too large rather than too small.
    """
    if n_rows <= 3.0 * n_error:
        return math.inf  # a mean over rows takes their number
    typical = _least_sum_over_pairs(released) / n_rows - 1.0
    if typical <= 0.0:
        return math.inf
    error_sq = released[0].noise ** 2
    if released[0].frequencies.random:
        # half a square is the mean square of a term at a row, noise and all
        squares = np.mean([np.sum(each.sums**2, axis=0) for each in released])
        n_terms = len(released[0].spread)
        error_sq = max(error_sq, (0.5 * float(squares) - typical**2) / n_terms)
    return math.sqrt(error_sq) / typical


def _least_sum_over_pairs(released):
    """Return a lower bound of the sum of kernels over all pairs of rows of a group.

    It is in the squares of the sums over rows, less those of the noise. Terms of high
    frequency may be all noise: of the sums over the 32, 64, ... lowest frequencies and
    over all, less three standard errors, the largest is returned. With noise of variance
    ``v`` a sum of two squares has the variance ``2 (kurtosis - 1) v^2 + 4 v |F|^2``.
    """
    f = released[0].frequencies
    order = np.argsort(np.sum((f.multiples / f.unit) ** 2, axis=1))
    c, v = f.coefficients[order], released[0].spread[order] ** 2
    signals = [np.sum(each.sums[:, order] ** 2, axis=0) - 2.0 * v for each in released]
    signal = np.sum(signals, axis=0)
    of_noise = 2.0 * (released[0].kurtosis - 1.0) * len(released) * v
    variance = c**2 * v * (of_noise + 4.0 * np.maximum(signal, 0.0))
    least = np.cumsum(c * signal) - 3.0 * np.sqrt(np.cumsum(variance))
    ends = 2 ** np.arange(5, max(len(c).bit_length(), 5)) - 1
    return float(max(*least[ends], least[-1], -math.inf))
