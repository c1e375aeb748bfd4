"""Whether new rows are still like those of a fit, by log densities of both.

Both are held out: new rows are scored before they are added, and a sample of the rows of
the fit without themselves. If both are from one law, so are their log densities. Rows
that equal others of the estimate are left out of both: beside a duplicate a log density
may be anything, and rows that were stored twice would make all others seem unlikely. The
test is that of Wilcoxon, Mann and Whitney on ranks, which asks for no moments and takes
-inf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from skhdkde._density import REFIT, in_range
from skhdkde._utils.hashing import row_hashes
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
    """How much less likely new rows are than those of the fit, both held out.

    Attributes
    ----------
    difference : float
        Mean log density of the new rows less that of rows of the fit, in nats.
    less_likely : float
        Share of pairs of a new row and one of the fit in which the new one is less
        likely; a half if both are from one law.
    p_value : float
        Probability of so large a share, or a larger one, by chance.
    n_fitted, n_added : int
        Rows that bandwidth and structure were chosen by, and that were added since.
    """

    difference: float
    less_likely: float
    p_value: float
    n_fitted: int
    n_added: int

    @property
    def significant(self) -> bool:
        """Whether new rows are less likely, and not by chance."""
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


class DriftTest:
    """Compares new rows with those of a fit.

    Parameters
    ----------
    density : Density or MixedDensity
        As it was fitted.
    log_density : callable
        What its method does, maybe approximately.
    held_out : HeldOutScores
        Of this density.
    options : ComputeOptions
    """

    def __init__(self, density, log_density, held_out, options):
        self.n_fitted = self.n_scored_at = density.n_points
        self.rows, single = np.empty(0, dtype=int), _single(_hashes(density))
        if np.count_nonzero(single) < FEWEST:
            return
        rows, scores = held_out.some(N_SCORED, options)
        self.rows = rows[single[rows]]
        self.weights = density.weights()[self.rows]
        self.scores = self._left_out(density, log_density, options)
        # of a structure, what the share of a point in it makes it too likely by
        with np.errstate(invalid="ignore"):
            lost = 0.0 if scores is None else scores[single[rows]] - self.scores
        self.lost = np.nan_to_num(lost, nan=0.0, posinf=0.0, neginf=-np.inf)

    def _left_out(self, density, log_density, options):
        near = in_range(None, density)
        scores = near.log_density(log_density(None, options, self.rows))
        return scores.astype(np.float64)

    def of_new(self, density, log_density, X, weights, options) -> Drift | None:
        """Return the drift of new rows; None if there are too few rows to tell.

        Parameters
        ----------
        density : Density or MixedDensity
            Before they are added.
        log_density : callable
            What its method does, maybe approximately.
        X : ndarray of shape (n_new, n_features)
            With constant features.
        weights : ndarray of shape (n_new,)
            Positive.
        options : ComputeOptions
        """
        hashes = _hashes(density)
        known = np.isin(row_hashes(X.astype(density.dtype, copy=False)), hashes)
        some = np.flatnonzero(~known)
        if len(self.rows) < FEWEST or not len(some):
            return None
        if density.n_points >= GROWN * self.n_scored_at:
            self.scores = self._left_out(density, log_density, options)
            self.n_scored_at = density.n_points
        if len(some) > N_SCORED:
            rng = np.random.default_rng(density.n_points)
            some = np.sort(rng.choice(some, N_SCORED, replace=False))
        near = in_range(X[some], density)
        new = near.log_density(log_density(near.X, options)).astype(np.float64)
        n_added = density.n_points + len(X) - self.n_fitted
        return drift(
            (self.scores + self.lost, self.weights),
            (new, weights[some]),
            (self.n_fitted, n_added),
        )


def _hashes(density):
    """Return hashes of the training points as they were given."""
    return row_hashes(density.given(np.arange(density.n_points)))


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
