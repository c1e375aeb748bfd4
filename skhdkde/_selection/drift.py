"""Whether new rows are still like those of a fit, by log densities of both.

Both are held out: new rows are scored before they are added, and a sample of the rows of
the fit without themselves. If both are from one law, so are their log densities. Rows
that equal others of the estimate are left out of both: beside a duplicate a log density
may be anything, and rows that were stored twice would make all others seem unlikely. The
test is that of Wilcoxon, Mann and Whitney on ranks, which asks for no moments and takes
-inf.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from skhdkde._density import REFIT, in_range
from skhdkde._utils.hashing import row_hashes
from skhdkde._utils.typing import FloatArray, IntArray
from skhdkde._utils.warnings import warn_user

# Rows that are scored, of each kind, and of the fit at least.
N_SCORED, FEWEST = 256, 8
# Variance of a mean over points left out, relative to that of as many independent ones,
# at most: a kernel between two points adds to the log densities of both.
DEPENDENT = 2.0
# Growth of the points after which rows of the fit are scored again.
GROWN = 1.1
# p-value below which rows are said to be unlike those of the fit.
SIGNIFICANT = 1e-4


@dataclass(frozen=True)
class Drift:
    """Comparison of new rows with those of the fit, both held out.

    Attributes
    ----------
    difference : float
        Mean log density of the new rows minus that of rows of the fit, in nats; negative
        if the new rows are less likely.
    less_likely : float
        Share of the pairs of a new row and a row of the fit in which the new one has the
        lower log density; one half if both have the same distribution.
    p_value : float
        Probability of a share at least as large by chance, by a rank test.
    n_fitted, n_added : int
        Number of rows that chose bandwidth and structure, and that were added since.
    """

    difference: float
    less_likely: float
    p_value: float
    n_fitted: int
    n_added: int

    @property
    def significant(self) -> bool:
        """Whether the p-value is below 1e-4: new rows are less likely, not by chance."""
        return self.p_value < SIGNIFICANT

    def warn(self) -> None:
        """Warn if new rows are less likely."""
        if not self.significant:
            return
        warn_user(
            f"Rows of X are less likely than those of the fit: by {-self.difference:.3g} "
            f"nats in the mean, and in {self.less_likely:.0%} of pairs (p = "
            f"{self.p_value:.1g}), both held out. Bandwidth and structure are those of "
            f"{self.n_fitted} rows, to which {self.n_added} have been added. {REFIT} "
            "drift_ has these numbers."
        )


@dataclass(frozen=True)
class Earlier:
    """An estimate before rows are added.

    Attributes
    ----------
    density : Density or MixedDensity
    log_density : callable
        What its method does, maybe approximately.
    options : ComputeOptions
    """

    density: Any
    log_density: Callable
    options: Any

    @functools.cached_property
    def hashes(self) -> IntArray:
        """Hashes of the points as they were given."""
        return row_hashes(self.density.given(slice(None)))

    def left_out(self, rows: IntArray) -> FloatArray:
        """Return log densities of some of the points, each left out."""
        found = self.log_density(None, self.options, rows)
        return in_range(None, self.density).log_density(found).astype(np.float64)

    def at(self, X: FloatArray) -> FloatArray:
        """Return log densities of rows."""
        near = in_range(X, self.density)
        found = self.log_density(near.X, self.options)
        return near.log_density(found).astype(np.float64)


class DriftTest:
    """Compares new rows with those of a fit.

    Parameters
    ----------
    fitted : Earlier
        The estimate as it was fitted.
    held_out : HeldOutScores
        Of this.
    """

    def __init__(self, fitted: Earlier, held_out):
        self.n_fitted = self.n_scored_at = fitted.density.n_points
        self.rows, single = np.empty(0, dtype=int), _single(fitted.hashes)
        if np.count_nonzero(single) < FEWEST:
            return
        rows, scores = held_out.some(N_SCORED, fitted.options)
        self.rows = rows[single[rows]]
        self.weights = fitted.density.weights()[self.rows]
        self.scores = fitted.left_out(self.rows)
        # of a structure, what the share of a point in it makes it too likely by
        with np.errstate(invalid="ignore"):
            lost = 0.0 if scores is None else scores[single[rows]] - self.scores
        self.lost = np.nan_to_num(lost, nan=0.0, posinf=0.0, neginf=-np.inf)

    def of_new(self, earlier: Earlier, X, weights) -> Drift | None:
        """Return the drift of new rows; None if there are too few rows to tell.

        Parameters
        ----------
        earlier : Earlier
        X : ndarray of shape (n_new, n_features)
            With constant features.
        weights : ndarray of shape (n_new,)
            Positive.
        """
        n_points, dtype = earlier.density.n_points, earlier.density.dtype
        known = np.isin(row_hashes(X.astype(dtype, copy=False)), earlier.hashes)
        some = np.flatnonzero(~known)
        if len(self.rows) < FEWEST or not len(some):
            return None
        if n_points >= GROWN * self.n_scored_at:
            self.scores, self.n_scored_at = earlier.left_out(self.rows), n_points
        if len(some) > N_SCORED:
            rng = np.random.default_rng(n_points)
            some = np.sort(rng.choice(some, N_SCORED, replace=False))
        return drift(
            (self.scores + self.lost, self.weights),
            (earlier.at(X[some]), weights[some]),
            (self.n_fitted, n_points + len(X) - self.n_fitted),
        )


def _single(hashes):
    """Return which of some hashes are there once."""
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return counts[group.ravel()] == 1


def drift(fitted, new, numbers) -> Drift:
    """Return the drift from log densities of rows of the fit and new ones.

    Both are pairs of arrays of log densities and of weights.
    """
    (scores, weights), (of_new, own) = fitted, new
    order = np.argsort(scores)
    ends = np.concatenate([[0.0], np.cumsum(weights[order])]) / weights.sum()
    below = ends[np.searchsorted(scores[order], of_new, side="left")]
    up_to = ends[np.searchsorted(scores[order], of_new, side="right")]
    rank = np.average(0.5 * (below + up_to), weights=own)
    # by effective numbers of rows, and the variance of a uniform rank
    of_fit, of_batch = (np.sum(w**2) / w.sum() ** 2 for w in (weights, own))
    deviation = np.sqrt((DEPENDENT * of_fit + of_batch) / 12.0)
    with np.errstate(invalid="ignore"):
        means = np.average(of_new, weights=own), np.average(scores, weights=weights)
        difference = float(means[0] - means[1])
    return Drift(
        difference,
        float(1.0 - rank),
        float(norm.cdf((rank - 0.5) / deviation)),
        *numbers,
    )
