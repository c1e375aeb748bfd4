"""Spread of a log density over fresh data sets of the same size.

The sum at a query is split at its ``k``-th neighbour. What lies within is redrawn: the
arrivals of a Poisson process, mapped to distances by the local law. What lies beyond is
many small terms; it is drawn from a normal law with the observed mean and variance. The
standard deviation of the log of the total serves every regime: near ones vary as
order statistics do where they decide the sum, and as the central limit theorem says where
they do not. No regime has to be decided first.

The draws are the same for all queries, so that results do not depend on a
seed, on the other queries or on threads.
"""

import functools
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import ndtri

from skhdkde._diagnosis.local_law import LocalLaw
from skhdkde._kernels import Kernel
from skhdkde._pairwise import SharesState, log_sums
from skhdkde._utils.typing import FloatArray

N_DRAWS = 128
# Queries redrawn at once: a few MiB of distances.
QUERIES_AT_ONCE = 32


def clt_spread(state: SharesState) -> FloatArray:
    """Return the standard deviation of ``log(sum w k / sum w)`` by the delta method.

    For equal weights it is ``sqrt(Y - 1/n)``, ``Y`` being the sum of squared shares.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = state.sum_w2k2 / state.sum_wk**2
        cross = state.sum_w2k / (state.sum_wk * state.sum_w)
        variance = shares - 2.0 * cross + state.sum_w2 / state.sum_w**2
    # rounding of the three leaves more than 0 where all terms are equal
    return np.sqrt(np.where(variance > 1e-14 * shares, variance, 0.0))


@dataclass(frozen=True)
class FarTerms:
    """Mean and standard deviation of the terms beyond the near ones, and mean weight.

    The former are in units of ``exp(log_peak)``; arrays have the shape (n_queries,).
    """

    n_terms: int
    log_peak: FloatArray
    mean: FloatArray
    sd: FloatArray
    mean_weight: FloatArray

    @classmethod
    def of(cls, log_peak: FloatArray, sums: SharesState, n_terms: int) -> Self:
        """Return the terms that have these sums, some of them below 0 by rounding."""
        sum_wk, sum_w2k, sum_w2k2, sum_w, sum_w2 = (np.maximum(s, 0.0) for s in sums[1:6])
        # terms that only differ by weight do not vary: the weights are divided out
        ratio = sum_wk / np.where(sum_w > 0.0, sum_w, 1.0)
        variance = sum_w2k2 - 2.0 * ratio * sum_w2k + ratio**2 * sum_w2
        sd = np.sqrt(np.maximum(variance, 0.0) / n_terms)
        return cls(n_terms, log_peak, sum_wk / n_terms, sd, sum_w / n_terms)

    def log_draws(self, rows: slice, n_far: FloatArray, normal: FloatArray) -> FloatArray:
        """Return logs of drawn sums of ``n_far`` terms, (n_queries, n_draws)."""
        steps = np.multiply.outer(self.sd[rows], np.sqrt(n_far) * normal)
        sums = np.multiply.outer(self.mean[rows], n_far) + steps
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(sums, 0.0)) + self.log_peak[rows, None]


def redrawn_spread(
    law: LocalLaw, kernel: Kernel, bandwidth: float, near_weights, far: FarTerms
) -> FloatArray:
    """Return the standard deviation of the log density over redrawn data sets.

    That is over the draws in which a point is in reach, and infinite if there are not
    two. ``bandwidth`` is in the units of the law; ``near_weights`` are of the k nearest
    points, (n_queries, k), and None if all are 1.
    """
    counts, inside, normal, marks = _draws(law.rank)
    n_near = inside.sum(axis=1)
    n_far = np.maximum(law.rank + far.n_terms - n_near, 0.0)
    spread = np.empty(len(law.outer_sq))
    for start in range(0, len(spread), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        sq = law.subset(rows).squared_distance(counts)
        if near_weights is None:
            weights = np.broadcast_to(inside, sq.shape)
        else:
            weights = near_weights[rows][:, marks] * inside
        log_near = log_sums(kernel, bandwidth, sq, weights)
        log_total = np.logaddexp(log_near, far.log_draws(rows, n_far, normal))
        mass = n_near if near_weights is None else weights.sum(axis=2)
        log_total -= np.log(mass + np.multiply.outer(far.mean_weight[rows], n_far))
        spread[rows] = _finite_std(log_total)
    return spread


def _finite_std(values):
    """Return the standard deviation of each row over what is finite there."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    some = np.maximum(count, 1)
    mean = np.where(finite, values, 0.0).sum(axis=1) / some
    with np.errstate(invalid="ignore"):
        steps = np.where(finite, values - mean[:, None], 0.0)
    scale = np.maximum(
        np.abs(steps).max(axis=1), np.finfo(float).tiny
    )  # against overflow
    squares = (steps / scale[:, None]) ** 2
    std = scale * np.sqrt(squares.sum(axis=1) / np.maximum(count - 1, 1))
    return np.where(count > 1, std, np.inf)


@functools.lru_cache(maxsize=32)
def _draws(rank):
    """Draw arrivals of Poisson processes up to ``rank``, a normal variable, and marks.

    Every interval, and the normal variable, is stratified over the draws, and they are
    uncorrelated. Arrivals are cut off at ``rank``, and it is said where they are not (1.0
    or 0.0); marks say which of the k near weights an arrival takes.
    """
    rng = np.random.default_rng(0)
    n_arrivals = int(rank + 6.0 * np.sqrt(rank) + 6.0)
    levels = _balanced_levels(N_DRAWS, n_arrivals + 1, rng)
    arrivals = np.cumsum(-np.log(levels[:, :-1]), axis=1)
    inside = arrivals < rank
    used = inside.any(axis=0)
    counts, inside = np.minimum(arrivals, rank)[:, used], inside[:, used].astype(float)
    marks = rng.integers(rank, size=counts.shape)
    return counts, inside, ndtri(levels[:, -1]), marks


def _balanced_levels(n_draws, n_columns, rng):
    """Draw stratified uniform variables whose normal scores are nearly uncorrelated.

    The variance of sums over the columns is then right to a few percent with so few
    draws. The idea is that of Iman and Conover (1982): correlations of ranks can be
    chosen.
    """
    levels = (np.arange(n_draws) + 0.5) / n_draws
    scores = rng.standard_normal((n_draws, n_columns))
    for _ in range(10):
        scores = ndtri(levels)[np.argsort(np.argsort(scores, axis=0), axis=0)]
        values, vectors = np.linalg.eigh(scores.T @ scores / n_draws)
        scores = scores @ (vectors / np.sqrt(values)) @ vectors.T
    return levels[np.argsort(np.argsort(scores, axis=0), axis=0)]
