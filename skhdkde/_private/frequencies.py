"""Frequencies of the Gaussian kernel, and the phases of rows, as whole numbers.

A row is divided by a unit and rounded to whole numbers of ``2^-bits``; multiples of it by
whole numbers add up without rounding, whatever the order. So the phase of a row depends
on this row alone, to the last bit: products of matrices of other floats do not have that
property, as their rounding depends on the rows beside.
"""

import math
from dataclasses import dataclass

import numpy as np

from skhdkde._utils.typing import FloatArray, IntArray

# Of random frequencies, and of rows in bandwidths: steps of 1/1024.
BITS = 10
# Of rows in a lattice, in periods.
LATTICE_BITS = 20
# Sums of whole numbers below are exact in float64.
EXACT_BITS = 53
# Random frequencies are below this, in inverse bandwidths.
LARGEST = 16
# Directions that a turn is divided into.
N_PHASES = 2**16
# Kernels are below this, relative to their maximum, in the next period of a lattice, and
# so are coefficients, relative to the largest, of frequencies that it leaves out.
NEGLIGIBLE = 1e-8
# A lattice of more frequencies is not considered, nor a grid of more to look through.
MOST_IN_LATTICE, MOST_IN_GRID = 2**14, 2**20


@dataclass(frozen=True)
class Frequencies:
    """Frequencies with coefficients, ``K(x) = sum_j c_j cos(omega_j x)``.

    Attributes
    ----------
    multiples : ndarray of shape (n_frequencies, n_features)
        Whole numbers.
    coefficients : ndarray of shape (n_frequencies,)
        Positive.
    unit, origin : ndarray of shape (n_features,)
        In data units: rows are ``(x - origin) / unit``.
    turns : float
        Turns for a row of one unit and a multiple of one.
    bits : int
        Rows are rounded to steps of ``2^-bits`` units.
    random : bool
        Whether the frequencies are independent draws.
    bandwidth : float
        Of the kernel, in data units.
    box : tuple of two ndarrays of shape (n_features,), or None
        Limits within which rows and queries of a lattice must be.
    """

    multiples: FloatArray
    coefficients: FloatArray
    unit: FloatArray
    origin: FloatArray
    turns: float
    bits: int
    random: bool
    bandwidth: float
    box: tuple[FloatArray, FloatArray] | None

    def phases(self, X: FloatArray) -> IntArray:
        """Return the phases of rows, as whole numbers from 0 to below ``N_PHASES``.

        The steps after the product are single operations, which round correctly: they
        too give one result for one row. Rows that are too far away for exact sums count
        as just so far.
        """
        largest = self.reach * 2.0**self.bits
        whole = np.clip(np.rint(self._in_steps(X)), -largest, largest)
        turns = whole @ self.multiples.T  # exact
        turns *= self.turns * 2.0**-self.bits * N_PHASES
        return np.rint(turns, out=turns).astype(np.int64) & (N_PHASES - 1)

    def too_far(self, X: FloatArray) -> np.ndarray:
        """Return which rows are beyond the reach, so that their phases are of others."""
        largest = self.reach * 2.0**self.bits
        return (np.abs(self._in_steps(X)) > largest).any(axis=1)

    @property
    def reach(self) -> float:
        """Distance from the origin along a feature, in units, to which sums are exact."""
        total = float(np.abs(self.multiples).sum(axis=1).max())
        bits = math.ceil(math.log2(max(total, 1.0)))  # of sums over features of multiples
        return 2.0 ** (EXACT_BITS - 1 - bits - self.bits)

    def _in_steps(self, X):
        with np.errstate(over="ignore"):
            return (X - self.origin) / self.unit * 2.0**self.bits


def random_frequencies(
    n: int,
    n_features: int,
    bandwidth: float,
    box: tuple[FloatArray, FloatArray] | None,
    rng: np.random.RandomState,
) -> Frequencies:
    """Return random Fourier frequencies (Rahimi and Recht, 2007), in steps of 1/1024.

    Their law does not depend on any data. The steps make the kernel repeat itself after
    some 6,000 bandwidths along a feature. Rows more than 2^20 bandwidths from the origin,
    and fewer with very many features, count as that far.
    """
    drawn = rng.standard_normal((n, n_features))
    origin = np.zeros(n_features) if box is None else 0.5 * (box[0] + box[1])
    return Frequencies(
        multiples=np.rint(np.clip(drawn, -LARGEST, LARGEST) * 2.0**BITS),
        coefficients=np.full(n, 1.0 / n),
        unit=np.full(n_features, bandwidth),
        origin=origin,
        turns=2.0**-BITS / (2.0 * math.pi),
        bits=BITS,
        random=True,
        bandwidth=bandwidth,
        box=box,
    )


def lattice_frequencies(
    bandwidth: float, box: tuple[FloatArray, FloatArray]
) -> Frequencies | None:
    """Return the Fourier series of the kernel in a box, None if it is too long.

    The period is the width of the box and a margin, beyond which the kernel is
    negligible. Of the frequencies ``k`` and ``-k`` one is there, with both coefficients.
    """
    low, high = box
    reach = math.sqrt(-2.0 * math.log(NEGLIGIBLE))
    period = high - low + reach * bandwidth
    widths = 2.0 * math.pi * bandwidth / period  # of a step, in inverse bandwidths
    most = np.floor(reach / widths)
    if np.sum(np.log(2.0 * most + 1.0)) > math.log(MOST_IN_GRID):
        return None
    axes = [np.arange(-m, m + 1.0) for m in most]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(most))
    grid = grid[len(grid) // 2 :]  # from zero on: the other half mirrors it
    sq = np.sum((grid * widths) ** 2, axis=1)
    inside = sq <= reach**2
    if np.sum(inside) > MOST_IN_LATTICE:
        return None
    coefficients = 2.0 * np.prod(widths / math.sqrt(2.0 * math.pi)) * np.exp(-0.5 * sq)
    coefficients[0] *= 0.5
    return Frequencies(
        multiples=grid[inside],
        coefficients=coefficients[inside],
        unit=period,
        origin=0.5 * (low + high),
        turns=1.0,
        bits=LATTICE_BITS,
        random=False,
        bandwidth=bandwidth,
        box=box,
    )
