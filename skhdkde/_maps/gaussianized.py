"""Maps of a feature to a normal one, by an estimate of its distribution function."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.special import ndtr, ndtri

from skhdkde._maps.column import Column
from skhdkde._maps.feature_map import Chain, FeatureMap
from skhdkde._maps.yeo_johnson import fit_yeo_johnson
from skhdkde._utils.typing import FloatArray

# Standard deviations are the unit of all lengths here. Kernels are so much wider than is
# best for log densities, as an estimate of the slope asks for, and not narrower than:
WIDER, NARROWEST = 1.3, 0.05
# Kernels that make the tails, and their share of the weight.
WIDE, WIDE_SHARE = 1.5, 0.03
# Slope that is added, so that maps increase where no kernel reaches.
LEAST_SLOPE = 1e-3
# Values that have kernels and wide ones, and from which a width is found, at most.
N_KERNELS, N_WIDE_KERNELS, N_DRAWN = 256, 64, 300
# Widths that are tried, in a ratio of sqrt(2): how many above that of wide kernels, and
# how many below.
N_WIDER, N_NARROWER = 1, 12
# Knots at quantiles, and at equal distances; widths of a wide kernel between the last
# knot and the last value; knots for each width of a kernel, at most.
N_QUANTILES, N_EQUAL, BEYOND, KNOTS_PER_WIDTH = 256, 128, 4.0, 4.0
# Steps of the search for an inverse, each of which at least halves an interval.
N_STEPS, TOL = 80, 4.0 * np.finfo(float).eps


class Spline(FeatureMap):
    """Cubic polynomials that increase between knots, and lines beyond them.

    Parameters
    ----------
    knots, heights : ndarray of shape (n_knots,)
        Places and values of the map, both increasing.
    """

    def __init__(self, knots: FloatArray, heights: FloatArray):
        self.knots, self.heights = knots, heights
        spline = CubicHermiteSpline(knots, heights, slopes_at_knots(knots, heights))
        # a piece begins at its left knot; that before all knots ends at the first
        self._begin = np.concatenate([knots[:1], knots])
        ends = np.array([[0.0, 0.0], [0.0, 0.0], spline([knots[0], knots[-1]], 1)])
        ends = np.vstack([ends, heights[[0, -1]]])
        self._coefficients = np.column_stack([ends[:, 0], spline.c, ends[:, 1]])

    def _piece(self, x):
        """Return coefficients of the polynomials that values are on, and where there."""
        piece = np.searchsorted(self.knots, x, side="right")
        return self._coefficients[:, piece], x - self._begin[piece]

    def forward(self, x):
        return value_of(*self._piece(x))

    def log_slope(self, x):
        return np.log(slope_of(*self._piece(x)))

    def log_slope_derivative(self, x):
        (a, b, c, d), s = self._piece(x)
        return (6.0 * a * s + 2.0 * b) / slope_of((a, b, c, d), s)

    def inverse(self, y):
        """Return where the map is ``y``: Newton's steps, or halves where these leave."""
        piece = np.searchsorted(self.heights, y, side="right")
        polynomial, begin = self._coefficients[:, piece], self._begin[piece]
        low = np.where(piece > 0, 0.0, -np.inf)
        high = np.concatenate([[0.0], np.diff(self.knots), [np.inf]])[piece]
        s, rounding = np.zeros(y.shape), TOL * (np.abs(y) + np.abs(polynomial[3]))
        for _ in range(N_STEPS):
            excess = value_of(polynomial, s) - y
            low, high = np.where(excess < 0.0, s, low), np.where(excess > 0.0, s, high)
            newton = s - excess / slope_of(polynomial, s)
            inside = (newton >= low) & (newton <= high)
            s = np.where(inside, newton, 0.5 * (low + high))
            if (np.abs(excess) <= rounding).all():
                break
        return begin + s


def fit_gaussianized(column: Column, uniform: FloatArray) -> Chain:
    """Return the map of a feature that makes it nearly normal: ``T = Phi^-1(F)``.

    ``F`` is the distribution function of a density at knots: a kernel density estimate,
    mixed with one of wide kernels. It is one of the feature after a power transform, so
    that kernels of one width suit it better. Between knots the map is a spline: that
    function is the map, and its derivative is exact.

    Parameters
    ----------
    column : Column
    uniform : ndarray
        Numbers in (0, 1), by which values are drawn for the choice of the bandwidth.
    """
    power = fit_yeo_johnson(column)
    mapped = column.mapped(power)
    width = max(WIDER * width_from_few(mapped, uniform), NARROWEST)
    kernels = mapped.summary(N_KERNELS)
    knots = knots_for(kernels, width)
    spline = Spline(knots, heights_at(knots, kernels, width))
    return Chain("gaussianized", (*power.maps, spline))


def value_of(polynomial, s: FloatArray) -> FloatArray:
    """Return the values of cubic polynomials."""
    a, b, c, d = polynomial
    return ((a * s + b) * s + c) * s + d


def slope_of(polynomial, s: FloatArray) -> FloatArray:
    """Return the derivatives of cubic polynomials."""
    a, b, c, _ = polynomial
    return (3.0 * a * s + 2.0 * b) * s + c


def width_from_few(column: Column, uniform: FloatArray) -> float:
    """Return the best width of kernels, found for values that are drawn.

    It is narrower for all, of which there are more, as asymptotically the best width is.
    """
    few = column.drawn(uniform)
    more = column.effective_number / few.effective_number
    return best_width(few) * more ** (-1.0 / 5.0)


def best_width(column: Column) -> float:
    """Return the standard deviation of kernels of largest mean leave-one-out log density.

    The density is the mixture with wide kernels, so that values far from all others,
    which have these, do not ask for wide ones everywhere. Values are standardised; equal
    ones are left out together. Of widths in a ratio of sqrt(2) the best is taken, and
    then the maximum of a parabola through it and its neighbours.
    """
    variances = WIDE**2 * 0.5 ** np.arange(-N_WIDER, N_NARROWER + 1.0)
    logs = leave_one_out(column, variances)
    wide = np.log(WIDE_SHARE) + logs[N_WIDER]
    mixed = np.logaddexp(np.log1p(-WIDE_SHARE) + logs, wide)
    scores = mixed @ column.shares
    best, shift = int(np.argmax(scores)), 0.0
    if 0 < best < len(scores) - 1:
        before, peak, after = scores[best - 1 : best + 2]
        shift = 0.5 * (after - before) / max(2.0 * peak - before - after, 1e-300)
    return float(np.sqrt(variances[best] * 0.5**shift))


def leave_one_out(column: Column, variances: FloatArray) -> FloatArray:
    """Return logs of sums over the kernels of all others, by variance and value.

    Each variance is half of the one before. What they all have in common is left out.
    """
    sq = np.square(column.values[:, None] - column.values)
    np.fill_diagonal(sq, np.inf)
    nearest_sq = sq.min(axis=1)
    # relative to the kernel of the nearest value; half the variance squares a kernel
    ratios = (nearest_sq[:, None] - sq) / (2.0 * variances[0])
    kernels = np.exp(ratios.astype(np.float32))  # a width needs no more digits
    shares = column.shares.astype(np.float32)
    logs = np.empty((len(variances), len(sq)))
    for k, variance in enumerate(variances):
        logs[k] = np.log(kernels @ shares) - nearest_sq / (2.0 * variance)
        np.square(kernels, out=kernels)
    return logs - 0.5 * np.log(variances)[:, None]


def knots_for(kernels: Column, width: float) -> FloatArray:
    """Return places where the map is computed, not closer than kernels ask for."""
    values, margin = kernels.values, BEYOND * WIDE
    equal = np.linspace(values[0] - margin, values[-1] + margin, N_EQUAL)
    middle = np.cumsum(kernels.shares) - 0.5 * kernels.shares
    quantiles = np.interp((np.arange(N_QUANTILES) + 0.5) / N_QUANTILES, middle, values)
    step = width / KNOTS_PER_WIDTH
    return step * np.unique(np.rint(np.concatenate([equal, quantiles]) / step))


def heights_at(knots: FloatArray, kernels: Column, width: float) -> FloatArray:
    """Return the map at knots: by ``F`` below the median, by ``1 - F`` above.

    Neither is rounded to 0 or 1 in this way.
    """
    sign = np.where(knots > kernels.median, -1.0, 1.0)
    narrow = tail_mass(knots, sign, kernels, width)
    wide = tail_mass(knots, sign, kernels.summary(N_WIDE_KERNELS), WIDE)
    probability = (1.0 - WIDE_SHARE) * narrow + WIDE_SHARE * wide
    return sign * ndtri(probability) + LEAST_SLOPE * knots


def tail_mass(
    knots: FloatArray, sign: FloatArray, kernels: Column, width: float
) -> FloatArray:
    """Return the mass of kernels below knots of sign 1, and above those of sign -1."""
    distance = sign[:, None] * (knots[:, None] - kernels.values)
    return ndtr(distance / width) @ kernels.shares


def slopes_at_knots(knots: FloatArray, heights: FloatArray) -> FloatArray:
    """Return slopes for polynomials between knots that all increase.

    They are those of parabolas through three knots, and at most twice the slope from knot
    to knot on either side; three times is where a polynomial may fall (Fritsch and
    Carlson, 1980, Monotone piecewise cubic interpolation).
    """
    secants = np.diff(heights) / np.diff(knots)
    least = np.minimum(np.append(secants, secants[-1]), np.append(secants[0], secants))
    return np.minimum(np.gradient(heights, knots), 2.0 * least)
