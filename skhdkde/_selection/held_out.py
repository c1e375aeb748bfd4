"""Log densities of the training points by fits that did not see them.

A training point that is left out of the sum still had a share in a covariance, a mixture
or local scales, which know it too well. So the points are split into folds, and each is
scored by a fit of the same setting to the other folds. There are more folds than in the
search, which makes many more fits: the more points these have, the nearer they are to
the fit to all points, by which fresh ones are scored.
"""

from __future__ import annotations

import copy
import functools

import numpy as np

from skhdkde._density import (
    NewPoints,
    in_range,
    structured_density,
    whiten_components,
    with_new_points,
)
from skhdkde._maps import fit_maps
from skhdkde._pairwise import TrainingPoints
from skhdkde._selection.cross_validation import fold_fallback
from skhdkde._selection.duplicates import merge_duplicates, standardized
from skhdkde._utils.arrays import weighted_quantile
from skhdkde._utils.random import sampling_ranks, seed_beside
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.validation import interleaved
from skhdkde._utils.warnings import warn_user

N_FOLDS = 20
FEWEST_POINTS = 3


class HeldOutScores:
    """Log densities of the training points by fits that did not see them, made once.

    Parameters
    ----------
    density : Density
        Of the points of positive weight.
    weightless : tuple of ndarray, or None
        Which of all training points have no weight, and these points.
    random_state : int, RandomState instance or None
        For folds and mixtures; nothing is drawn from it.
    """

    def __init__(self, density, weightless, random_state):
        self.density, self.weightless = density, weightless
        if density.choices is not None:
            self.seed = seed_beside(random_state)
        self._made = None

    def of(self, density, weightless):
        """Return what scores more points: those of a density that has got some."""
        found = copy.copy(self)
        found.density, found.weightless, found._made = density, weightless, None
        return found

    @property
    def made(self):
        """Whether they have been asked for."""
        return self._made is not None

    def log_density(self, options):
        """Return log densities of all training points, (n_points,), in data units."""
        if self._made is None:
            self._made = self._scores(options)
        return self._made

    def some(self, n_scored, options):
        """Return rows of the density, drawn at random, and their log densities.

        There are ``n_scored``, all if there are fewer. Log densities are None where to
        leave out a point from the sum suffices, and has not been done yet.
        """
        density, n_points = self.density, self.density.n_points
        if self._made is None and density.choices is not None:
            X, Q = self._as_queries()
            scores, rows = fold_scores(density, X, Q, self.seed, options, n_scored)
            return rows, in_range(None, density).log_density(scores).astype(np.float64)
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(n_points, min(n_points, n_scored), replace=False))
        return rows, None if self._made is None else self.of_weight(options)[0][rows]

    def _as_queries(self):
        """Return the points of a density with a structure, and these as queries."""
        X, Q = self.density.training, self.density.as_given
        return X, X if Q is None else Q

    def of_weight(self, options):
        """Return log densities of the points of positive weight, and their weights."""
        scores = self.log_density(options)
        if self.weightless is not None:
            scores = scores[~self.weightless[0]]
        return scores.astype(np.float64), self.density.weights()

    def level(self, mass, options):
        """Return the log density above which lies a share ``mass`` of the points.

        ``mass`` is a number or an array.

        Raises
        ------
        ValueError
            If there is a single point, which nothing is held out from.
        """
        if self.density.n_points < 2:
            raise ValueError(
                "density_level needs at least two training points of positive weight, to "
                "score each by others; got 1. Fit to more, or take a quantile of "
                "score_samples at points that the fit has not seen."
            )
        scores, weights = self.of_weight(options)
        level = -weighted_quantile(-scores, weights, mass)
        if np.isneginf(level).any():
            warn_user(
                f"density_level is -inf for mass={np.max(mass):.6g}: a share of "
                f"{np.mean(np.isneginf(scores)):.3g} of the training points is out of "
                "reach of all others, so that this region is all of space. Pass a larger "
                "bandwidth, or kernel='gaussian'."
            )
        return level

    def _scores(self, options):
        """Return log densities, of points without weight too."""
        density, apart = self.density, self.density.apart
        zero, given = self.weightless or (None, None)
        more = given if apart is None or given is None else apart.without(given)
        if density.choices is None:
            own = density.log_density(None, options)
            of_more = None if more is None else density.log_density(more, options)
        else:
            X, Q = self._as_queries()
            if more is not None:
                X, Q = np.vstack([X, more]), np.vstack([Q, more])
            scores, _ = fold_scores(density, X, Q, self.seed, options)
            own, of_more = np.split(scores, [density.n_points])
        if apart is not None:
            own = (own + apart.log_density(None)).astype(own.dtype)
            if of_more is not None:
                of_more = (of_more + apart.log_density(given)).astype(own.dtype)
        return own if zero is None else interleaved(zero, (own,), (of_more,))[0]


def fold_scores(density, X, Q, seed, options, n_scored=None):
    """Return log densities of points by the settings of a density, fitted without them.

    Also return which rows they are: all, or the first ``n_scored`` of random folds.

    Parameters
    ----------
    density : Density
        With a structure.
    X : ndarray of shape (n_points, n_features)
        The points that it was fitted to, then others that no fit is to see.
    Q : ndarray of shape (n_points, n_features)
        These as queries: where discrete features were given.
    seed : int
    options : ComputeOptions
    n_scored : int, default=None
        None scores all.
    """
    n_seen, weights = density.n_points, density.weights()
    weights = None if (weights == 1.0).all() else weights
    n_scored = len(X) if n_scored is None else n_scored
    n_fitted = density.n_fitted or n_seen
    scored, found, n_done, rng = [], [], 0, np.random.default_rng(seed)
    for fold in folds_of(X, n_seen, seed, options):
        others, rows = np.setdiff1d(np.arange(n_seen), fold), fold
        if len(fold) > n_scored - n_done:
            rows = np.sort(rng.choice(fold, n_scored - n_done, replace=False))
        n_done += len(rows)
        logs = [
            np.log(choice.weight)
            + _score_by(
                choice, X[:n_seen], Q[rows], others, weights, n_fitted, seed, options
            )
            for choice in density.choices
        ]
        scored.append(rows)
        found.append(functools.reduce(np.logaddexp, logs))
        if n_done >= n_scored:
            break
    rows, scores = np.concatenate(scored), np.concatenate(found)
    order = np.argsort(rows)
    return scores[order].astype(density.dtype, copy=False), rows[order]


def _score_by(choice, X, Q, others, weights, n_fitted, seed, options):
    """Return log densities at Q by one setting, fitted to points ``others`` of X.

    The setting is fitted to those below ``n_fitted``, and gets the others added.
    """
    structure, kernel = choice.structure, choice.kernel
    log_jacobian: FloatArray = np.zeros(len(Q))
    first, later = np.split(others, [np.searchsorted(others, n_fitted)])
    own = None if weights is None else weights[first]
    if choice.maps is not None:
        maps = fit_maps(X[first], own, choice.maps, seed)
        log_jacobian = maps.log_jacobian(Q)
        X, Q = maps.apply(X), maps.apply(Q)
    components = whiten_components(
        X[first],
        own,
        structure,
        seed,
        options,
        fallback=fold_fallback(X, weights, structure),
        refit_mixture=True,
    )
    if len(later):
        new = NewPoints(X[later], None if weights is None else weights[later])
        components = with_new_points(components, new, len(first))
    largest = structure.largest_bandwidth(kernel, components[0])
    bandwidth = min(choice.bandwidth, largest)
    fitted = structured_density(X[others], components, structure, kernel, bandwidth)
    near = in_range(Q, fitted)
    return near.log_density(fitted.log_density(near.X, options)) + log_jacobian


def folds_of(X, n_seen, seed, options):
    """Return the rows of each fold; duplicates, also near ones, are in the same.

    Folds are of one size, up to duplicates. Rows from ``n_seen`` on do not change the
    folds of those before.

    Raises
    ------
    ValueError
        If there are too few distinct points.
    """
    distinct = merge_duplicates(TrainingPoints(X), options, seed, standardized)
    first, group = distinct.index, distinct.group
    n_distinct = int(np.count_nonzero(first < n_seen))
    if n_distinct < FEWEST_POINTS:
        raise ValueError(
            f"held_out_log_density_ needs at least {FEWEST_POINTS} distinct points of "
            "positive weight in X, to leave out some and fit a structure to others; got "
            f"{n_distinct}."
        )
    n_folds = min(N_FOLDS, n_distinct)
    fold = np.empty(len(first), dtype=int)
    order = np.lexsort((sampling_ranks(first, seed), first >= n_seen))
    fold[order] = np.arange(len(first)) % n_folds
    return [np.flatnonzero(fold[group] == k) for k in range(n_folds)]
