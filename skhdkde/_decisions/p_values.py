"""Held-out log densities as a reference: p-values and thresholds."""

from __future__ import annotations

import numpy as np

from skhdkde._utils.typing import FloatArray

# Shares of weight that differ by less are equal.
ROUNDING = 1e-12


class Reference:
    """Log densities of training points by fits that did not see them.

    Parameters
    ----------
    scores : ndarray of shape (n_points,)
    weights : ndarray of shape (n_points,) or None
        Positive; None for equal ones.
    effective_number : float
        Of points that are independent.
    """

    def __init__(self, scores, weights, effective_number):
        order = np.argsort(scores, kind="stable")
        weights = np.ones(len(scores)) if weights is None else weights[order]
        self.scores = scores[order]
        self.effective_number = effective_number
        sums = np.cumsum(weights)
        # before the first of all scores, and after each
        self._shares = np.concatenate([[0.0], sums / sums[-1]])

    def share_below(self, scores: FloatArray) -> FloatArray:
        """Return the share of weight whose score is at most each of ``scores``."""
        return self._shares[np.searchsorted(self.scores, scores, side="right")]

    def p_values(self, scores: FloatArray) -> FloatArray:
        """Return ``(1 + n s) / (1 + n)``, ``s`` being the share at or below."""
        n = self.effective_number
        return (1.0 + n * self.share_below(scores)) / (1.0 + n)

    @property
    def least_p_value(self) -> float:
        """The p-value of a point that is less likely than all of these."""
        return 1.0 / (1.0 + self.effective_number)

    def threshold(self, level: float) -> float:
        """Return the lowest score whose p-value is above a level."""
        return self._lowest_above(level, self.p_values(self.scores))

    def quantile(self, share: float) -> float:
        """Return the lowest score with more than a share of weight at or below it."""
        return self._lowest_above(share, self.share_below(self.scores))

    def _lowest_above(self, limit, values):
        place = np.searchsorted(values, limit + ROUNDING, side="right")
        return float(self.scores[min(place, len(self.scores) - 1)])
