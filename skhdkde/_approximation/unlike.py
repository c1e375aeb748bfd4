"""Errors at queries that are unlike the training points.

The errors of samples and of indexes are calibrated on training points, each left out.
Two kinds of queries are unlike these:

- *near* ones, beside a training point that the sample does not have, nor what was looked
  at beside it. Of the sample alone nothing tells them from others;
- *far* ones, at which the log sum is lower than at nearly all training points.

Both miss a part of what a point at the query itself would add. So what their errors are
beyond those stated is measured per nat of *depth*, by which the log sum is below that, at
training points that are moved by a little or by much.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from skhdkde._utils.typing import FloatArray

# Training points that are moved, and by how much, in standard deviations of the features.
N_MOVED, A_LITTLE, MUCH = 128, (0.1, 0.3, 0.5), (3.0, 10.0)
# Share of the training points that are far, and fewest far ones to measure errors on.
FAR_SHARE, FEWEST_FAR = 0.02, 16
# Shares of the points moved a little, and much, whose errors are to be within twice the
# stated ones. The former are like queries of no such kind, whose errors grow too.
NEAR_HELD_AT, FAR_HELD_AT = 0.96, 0.98


@dataclass(frozen=True)
class Unlike:
    """Says how much to add to stated errors, in nats per nat of depth."""

    lowest: float = -np.inf  # log sum below which queries are far
    far: float = 0.0
    near: float = 0.0

    def is_far(self, log_sums: FloatArray) -> np.ndarray:
        """Return which queries are farther out than nearly all training points."""
        return log_sums < self.lowest

    def beyond(self, log_sums: FloatArray, stated: FloatArray, peak: float) -> FloatArray:
        """Return what is to be added to stated errors.

        ``peak`` is the log of what a point at a query adds.
        """
        depth = _depth(log_sums, peak)
        far = np.where(self.is_far(log_sums), self.far, 0.0)
        near = np.where(felt(log_sums, peak) > stated, self.near, 0.0)
        rate = np.maximum(far, near)
        with np.errstate(invalid="ignore"):
            return np.where(rate > 0.0, rate * depth, 0.0)


def felt(log_sums: FloatArray, peak: float) -> FloatArray:
    """Return by how much one more point at a query would change its log sum."""
    return np.logaddexp(0.0, np.subtract(peak, log_sums))


def measured(tried, points, typical, peak, steps, seed) -> Unlike:
    """Return what errors are beyond those stated at points that are moved.

    Parameters
    ----------
    tried : callable
        Returns log sums at some queries, their stated errors and their true ones.
    points : ndarray of shape (n_points, n_features)
        Training points, in data units and random order.
    typical : ndarray
        Log sums at training points, each left out.
    peak : float
        Log of what a point at a query adds.
    steps : tuple of float
        How far to move, in standard deviations of the features.
    seed : int
    """
    lowest = float(np.quantile(typical, FAR_SHARE, method="lower"))
    # a little lower: the training point that it is of is not far by rounding
    found = Unlike(lowest - 1e-3 - 1e-5 * abs(lowest))
    rng, near, far = np.random.default_rng(seed), [0.0], [0.0]
    for step in steps:
        log_sums, stated, error = tried(_moved(points, step, rng))
        with np.errstate(invalid="ignore"):
            over = np.where(0.5 * error <= stated, 0.0, 0.5 * error - stated)
            rates = np.where(over > 0.0, over / _depth(log_sums, peak), 0.0)
        away = found.is_far(log_sums)
        if step in A_LITTLE:
            doubtful = np.where(felt(log_sums, peak) > stated, rates, 0.0)
            near.append(_held(doubtful, NEAR_HELD_AT))
        elif np.count_nonzero(away) >= FEWEST_FAR:
            far.append(_held(rates[away], FAR_HELD_AT))
    return dataclasses.replace(found, near=max(near), far=max(far))


def _held(rates, level):
    return float(np.quantile(rates, level, method="higher"))


def _moved(points, steps, rng):
    """Return some points, moved at random."""
    some = points[:N_MOVED]
    with np.errstate(over="ignore"):
        scale = steps * points.std(axis=0, dtype=np.float64)
        there = some + scale * rng.standard_normal(some.shape)
        return there.astype(points.dtype)


def _depth(log_sums, peak):
    """Return by how many nats log sums are below that of a point at the query."""
    return np.maximum(np.subtract(peak, log_sums), np.finfo(float).tiny)
