"""Log densities of points by fits that did not see them, for the search over structures.

What a covariance, a mixture or a neighbour distance says of its own training points is
too good: they had a share in it. So the points are split. For each of up to five folds
maps of features and a structure are fitted to the other points, and the fold's mean log
density is taken for all settings of bandwidth and degrees of freedom from one pass over
the pairs. It estimates the Kullback-Leibler divergence from the true density, up to sign
and a constant, as the leave-one-out mean does for the textbook's density.
"""

from __future__ import annotations

import abc
import copy
import functools
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from skhdkde._density import MixtureSpec, PooledSpec, standardizing, whiten_components
from skhdkde._maps import fit_maps
from skhdkde._pairwise import KernelSetting, KSmallest, reduce_pairs
from skhdkde._selection.rules import FLOAT64_BELOW, N_PILOT
from skhdkde._utils.moments import Moments
from skhdkde._utils.random import sampling_ranks

DEGREES_OF_FREEDOM = (3.0, 5.0, 10.0, 30.0, 100.0)
N_FOLDS = 5
N_QUERIES = 2048
# Allowed error of a log sum in nats, and of coordinates, per distance to a neighbour.
HELD_OUT_TOL = 1e-2
FLOAT32_TOL = 1e-4
HELD_OUT_NEAREST_TOL = 1e-3
# Held-out points on which all structures are compared, if there are many more of them;
# how many of those farthest out, and of most weight, are among them.
N_SCREENED, N_CERTAIN = 256, 64


def fold_ends(n_points):
    """Return where each fold ends in random order; later points are no queries."""
    if n_points >= N_FOLDS * N_QUERIES:
        return np.array([N_QUERIES])
    n_folds = min(N_FOLDS, n_points)
    sizes = np.full(n_folds, n_points // n_folds)
    sizes[: n_points % n_folds] += 1
    return np.cumsum(sizes)[: max(round(N_QUERIES / sizes[0]), 1)]


class Trial(NamedTuple):
    """A kernel at a bandwidth, in whitened units."""

    kernel: object
    bandwidth: float


class BaseFolds:
    """The queries of splits of the training points, wherever these are.

    Attributes
    ----------
    queries : list of ndarray
        Of each fold.
    query_weights : ndarray of shape (n_queries,)
    """

    queries: list[np.ndarray]
    query_weights: np.ndarray
    verbose: int = 0  # of what shows progress of the search

    def under(self, spec):
        """Return the folds with points under maps that are fitted outside of each."""
        if spec is not None:
            raise TypeError(f"{type(self).__name__} has no maps")
        return self

    def first(self):
        """Return the first fold alone; None if a look at it is no cheaper than all."""
        return None

    def points_of(self, fold: int) -> np.ndarray:
        """Return the queries of a fold, in data units."""
        return self.queries[fold]

    def some(self, places: list[np.ndarray] | None) -> list[np.ndarray]:
        """Return queries of each fold, by their places in it; all for None."""
        if places is None:
            return self.queries
        return [own[place] for own, place in zip(self.queries, places, strict=True)]

    def screened(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the places of some queries in each fold, and weights that stand for all.

        Those farthest out and those of most weight are among them, since few such rows
        may decide what is best. Of the others there are some at regular distances.
        """
        sizes = [len(own) for own in self.queries]
        points = np.vstack([self.points_of(fold) for fold in range(len(sizes))])
        certain = np.zeros(len(points), dtype=bool)
        certain[np.argsort(-_outlyingness(points))[:N_CERTAIN]] = True
        if np.ptp(self.query_weights) > 0.0:
            certain[np.argsort(-self.query_weights)[:N_CERTAIN]] = True
        rest = np.flatnonzero(~certain)
        sampled = rest[:: max(len(rest) // N_SCREENED, 1)]
        weights = self.query_weights.copy()
        weights[sampled] *= len(rest) / len(sampled)
        chosen = np.sort(np.concatenate([np.flatnonzero(certain), sampled]))
        starts = np.cumsum([0, *sizes])
        bounds = pairwise(starts)
        places = [chosen[(a <= chosen) & (chosen < b)] - a for a, b in bounds]
        return places, weights[chosen]


def _outlyingness(X):
    """Return how far points are from the median, in median distances of each feature."""
    X = X.astype(np.float64)
    distance = np.abs(X - np.median(X, axis=0))
    unit = np.median(distance, axis=0)
    unit[unit == 0.0] = np.inf  # no measure: most are equal
    with np.errstate(over="ignore"):
        return np.max(distance / unit, axis=1)


class Folds(BaseFolds):
    """Splits of the training points, with a few of each fold as queries.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
        Distinct points.
    weights : ndarray of shape (n_points,) or None
    random_state : int
    index : ndarray of int of shape (n_points,)
        Of each point in the data.
    n_duplicates : int
        Number of points of the data that were merged into others.
    options : ComputeOptions
    """

    def __init__(self, X, weights, random_state, index, n_duplicates, options):
        self.X, self.weights, self.random_state = X, weights, random_state
        self.shape, self.n_duplicates = X.shape, n_duplicates
        self.options, self.verbose, self.spec = options.quiet(), options.verbose, None
        self._in_fold: dict[int, InFold] = {}
        self._under: dict[Any, Folds] = {None: self}
        order = np.argsort(sampling_ranks(index, random_state))
        self.queries = np.split(order, fold_ends(len(X)))[:-1]
        everyone = np.concatenate(self.queries)
        self.are_several = len(self.queries) > 1  # of the first, too, where it is alone
        self.query_weights = np.ones(len(everyone))
        if weights is not None:
            self.query_weights = weights[everyone]

    def under(self, spec):
        if spec not in self._under:
            folds = copy.copy(self)
            folds.spec, folds._in_fold = spec, {}
            self._under[spec] = folds
        return self._under[spec]

    def first(self):
        folds = copy.copy(self)
        folds.queries = self.queries[:1]
        folds.query_weights = self.query_weights[: len(self.queries[0])]
        return folds

    def held_out(self, structure, first=None):
        """Return log densities of the folds for a structure fitted to other points.

        ``first`` is what the first fold alone has given, to go on from.
        """
        return HeldOut(self, structure, first)

    def points_of(self, fold):
        return self.X[self.queries[fold]]

    def others(self, fold):
        """Return the points outside of a fold."""
        return np.setdiff1d(np.arange(len(self.X)), self.queries[fold])

    def in_fold(self, fold):
        """Return what all fits to the points outside of a fold have in common."""
        if fold not in self._in_fold:
            self._in_fold[fold] = self._mapped(fold)
        return self._in_fold[fold]

    def _mapped(self, fold):
        if self.spec is None:
            return InFold(self.X, np.zeros(len(self.queries[fold])), {})
        others, weights = self.others(fold), self.weights
        weights = None if weights is None else weights[others]
        maps = fit_maps(self.X[others], weights, self.spec, self.random_state)
        own = self.X[self.queries[fold]]
        return InFold(maps.apply(self.X), maps.log_jacobian(own), {})

    def components(self, structure, fold):
        """Return the components fitted to the points outside of a fold."""
        in_fold, others = self.in_fold(fold), self.others(fold)
        weights = None if self.weights is None else self.weights[others]
        return whiten_components(
            in_fold.X[others],
            weights,
            structure,
            self.random_state,
            self.options,
            fallback=fold_fallback(in_fold.X, self.weights, structure),
            refit_mixture=True,
            reuse=in_fold.reuse,
        )


class InFold(NamedTuple):
    """What all fits to the points outside of one fold have in common.

    Attributes
    ----------
    X : ndarray of shape (n_points, n_features)
        All points, under maps fitted to those outside.
    log_jacobian : ndarray of shape (n_queries,)
        Of the maps, at the queries of the fold.
    reuse : dict
        What fits of one structure may take from those of another.
    """

    X: np.ndarray
    log_jacobian: np.ndarray
    reuse: dict


def fold_fallback(X, weights, structure):
    """Return what serves for features that vary in X, but not outside of some fold."""
    of_ladder = isinstance(structure.mixture, MixtureSpec | PooledSpec)
    if structure.covariance_type in ("diag", "full", "neighborhood") or of_ladder:
        return standardizing(Moments.of(X, weights))
    return None


class BaseHeldOut(abc.ABC):
    """Log density of the folds for one structure, fitted to the points outside.

    Attributes
    ----------
    structure : Structure
    components : list of list of Whitened
        For each fold.
    """

    def __init__(self, structure, components, n_features):
        self.structure, self.n_features = structure, n_features
        self.components = components

    @abc.abstractmethod
    def log_density(
        self, trials: list[Trial], places: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Return log densities, (n_queries, n_trials), nats, at queries of each fold."""

    @abc.abstractmethod
    def pilot(self, trials: list[Trial]) -> np.ndarray:
        """Return log densities at a few queries of the first fold."""

    @abc.abstractmethod
    def _nearest_sq(self) -> list[np.ndarray]:
        """Return squared distances to the nearest point of a few queries of each fold."""

    @abc.abstractmethod
    def _mean_squares(self) -> list[float]:
        """Return the mean square of a coordinate, in all components."""

    @functools.cached_property
    def distances(self):
        """Median distance to the nearest point, and spread, of a coordinate."""
        nearest_sq = np.median(np.concatenate(self._nearest_sq()))
        near = np.sqrt(nearest_sq / self.n_features)
        return near, np.sqrt(np.max(self._mean_squares()))

    def _is_sharp_in_float32(self, largest_entry):
        """Return whether float32 can hold coordinates, and tells neighbours apart."""
        if self.n_features < FLOAT64_BELOW or self.structure.adaptive:
            return False
        near, _ = self.distances
        limits = np.finfo(np.float32)
        # what is lost of the least coordinates is no more than of the largest
        if not limits.tiny / limits.eps <= largest_entry <= limits.max:
            return False
        return bool(largest_entry * limits.eps <= FLOAT32_TOL * near)

    def largest_bandwidth(self, kernel):
        """Return the largest bandwidth that all folds allow, in whitened units."""
        largest = [
            self.structure.largest_bandwidth(kernel, f[0]) for f in self.components
        ]
        return min(*largest, kernel.largest_bandwidth(self.n_features))

    def bandwidth_range(self, kernel):
        """Return bandwidths between which the best is sought, in whitened units."""
        near, spread = self.distances
        variance = kernel.variance(self.n_features)
        if kernel.name == "student":
            variance = min(variance, 4.0)
        low, high = 0.25 * near / np.sqrt(variance), 2.0 * spread / np.sqrt(variance)
        high = min(max(high, 1e-300), self.largest_bandwidth(kernel))
        return min(max(low, 1e-9 * high), 0.5 * high), high

    def settings(self, trials, component, scale):
        """Return trials as kernel settings for points of this scale."""
        preserve = self.structure.preserve_variance
        return [
            KernelSetting(k, h * scale, component.shrinkage(k, h, preserve))
            for k, h in trials
        ]

    def log_volumes(self, trials):
        """Return the log volume of each trial's kernel."""
        return np.array([k.log_volume(self.n_features, h) for k, h in trials])


class HeldOut(BaseHeldOut):
    """Held-out log density of the folds on this machine."""

    def __init__(self, folds, structure, first=None):
        known = [] if first is None else first.fitted
        which = range(len(known), len(folds.queries))
        components = known + [folds.components(structure, k) for k in which]
        super().__init__(structure, components, folds.X.shape[1])
        self.fitted = components if folds.are_several else []
        self.folds, self.options = folds, folds.options
        self.dtype: np.dtype = np.dtype(np.float64)
        everyone = [c for of_fold in self.components for c in of_fold]
        if self._is_sharp_in_float32(max(c.largest_entry() for c in everyone)):
            self.dtype = np.dtype(np.float32)
            self.components = [[c.as_float32() for c in f] for f in self.components]
        self._points = {}

    def log_density(self, trials, places=None):
        found = []
        for fold, rows in enumerate(self.folds.queries):
            place = slice(None) if places is None else places[fold]
            found.append(self._of_fold(fold, rows, place, trials))
        return np.vstack(found)

    def pilot(self, trials):
        return self._of_fold(0, self.folds.queries[0], slice(N_PILOT), trials)

    def _of_fold(self, fold, rows, place, trials):
        """Return log densities at some queries, by components fitted to others."""
        components, in_fold = self.components[fold], self.folds.in_fold(fold)
        X, log_jacobian = in_fold.X[rows[place]], in_fold.log_jacobian[place]
        logs = [self._of_component(X, component, trials) for component in components]
        log_sums = functools.reduce(np.logaddexp, logs)
        total = sum(
            len(c.Z) if c.weights is None else c.weights.sum() for c in components
        )
        log_density = log_sums - np.log(total) - self.log_volumes(trials)
        return log_density + log_jacobian[:, None]

    def _points_of(self, component):
        """Return the points of a component, prepared once."""
        if id(component) not in self._points:
            self._points[id(component)] = component.points()
        return self._points[id(component)]

    def _of_component(self, X, component, trials):
        """Return logs of kernel sums over one component, (n_queries, n_trials)."""
        points = self._points_of(component)
        settings = self.settings(trials, component, points.scale)
        reduction = component.grid_sums(settings, HELD_OUT_TOL, self.dtype, points)
        queries = points.as_queries(X)
        log_sums = reduce_pairs(reduction, queries, points, self.options)
        return log_sums + component.log_factors(queries, points)

    def _nearest_sq(self):
        nearest = []
        for fold, components in enumerate(self.components):
            rows = self.folds.queries[fold][:N_PILOT]
            X, own = self.folds.in_fold(fold).X[rows], []
            for component in components:
                points = component.points()
                reduction, queries = (
                    KSmallest(1, HELD_OUT_NEAREST_TOL),
                    points.as_queries(X),
                )
                sq = reduce_pairs(reduction, queries, points, self.options)
                own.append(sq[:, 0] / points.scale**2)
            nearest.append(np.min(own, axis=0))
        return nearest

    def _mean_squares(self):
        found = []
        for c in (c for of_fold in self.components for c in of_fold):
            sq = np.einsum("ij,ij->i", c.Z, c.Z, dtype=np.float64)
            found.append(np.average(sq, weights=c.weights) / self.n_features)
        return found
