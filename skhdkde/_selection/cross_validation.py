"""The search for the structure, the kernel's tail and the bandwidth.

What a covariance, a mixture or a neighbour distance says of its own training points is
too good: they had a share in it. So the points are split. For each of up to five folds a
structure is fitted to the other points, and the fold's mean log density is taken for all
settings of bandwidth and degrees of freedom from one pass over the pairs. It estimates
the Kullback-Leibler divergence from the true density, up to sign and a constant, as the
leave-one-out mean does for the textbook's density.
"""

from __future__ import annotations

import abc
import functools
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from skhdkde._density import (
    MixtureSpec,
    NeighborhoodSpec,
    standardizing,
    whiten_components,
)
from skhdkde._pairwise import KernelGridSums, KernelSetting, KSmallest, reduce_pairs
from skhdkde._selection.curve import CUBIC, BandwidthCurve
from skhdkde._selection.rules import FLOAT64_BELOW, N_PILOT
from skhdkde._selection.search_result import BandwidthSearch, Candidate
from skhdkde._utils.arrays import weighted_mean
from skhdkde._utils.moments import Moments
from skhdkde._utils.random import sampling_ranks

DEGREES_OF_FREEDOM = (3.0, 5.0, 10.0, 30.0, 100.0)
N_FOLDS = 5
N_QUERIES = 2048
# Bandwidths of the pilot, and of the pass over all queries around the best of them.
N_COARSE = 24
N_FINE = 7
FINE_STEP = 0.07
MAX_PASSES = 60
# Allowed error of a log sum in nats, and of coordinates, per distance to a neighbour.
HELD_OUT_TOL = 1e-2
FLOAT32_TOL = 1e-4
HELD_OUT_NEAREST_TOL = 1e-3
# Components of a diagonal mixture: their least size, and most of them.
DIAGONAL_LADDER = ((100, 25), (40, 50), (16, 100))
FULL_LADDER = (1, 2, 4)
# Neighbours in a neighbourhood, at least and per feature; shares of the mean covariance.
NEIGHBOR_LADDER = ((10, 1), (20, 2), (40, 4))
NEIGHBOR_SHRINKAGES = (0.1, 0.3, 0.6)
# Points of a component with a full covariance, per feature, and cost of fitting one.
POINTS_PER_FEATURE = 2
LARGEST_FULL = 1e9
# Held-out points on which all structures are compared, if there are so many of them, and
# how many standard errors behind the best one is not looked at again; how many of those
# farthest out, and of most weight, are among the points.
N_SCREENED, FEWEST_SCREENED, SURELY, N_CERTAIN = 256, 1024, 3.0, 64
# Difference in log h below which a bandwidth counts as tried.
TRIED_SPACING = 1e-3


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
        self.options = options.labelled("structure")
        order = np.argsort(sampling_ranks(index, random_state))
        self.queries = np.split(order, fold_ends(len(X)))[:-1]
        everyone = np.concatenate(self.queries)
        self.query_weights = np.ones(len(everyone))
        if weights is not None:
            self.query_weights = weights[everyone]

    def held_out(self, structure):
        """Return log densities of the folds for a structure fitted to other points."""
        return HeldOut(self, structure)

    def points_of(self, fold):
        return self.X[self.queries[fold]]

    def components(self, structure):
        """Return, for each fold, the components fitted to the points outside of it."""
        fallback, fitted = fold_fallback(self.X, self.weights, structure), []
        for queries in self.queries:
            others = np.setdiff1d(np.arange(len(self.X)), queries)
            weights = None if self.weights is None else self.weights[others]
            fitted.append(
                whiten_components(
                    self.X[others],
                    weights,
                    structure,
                    self.random_state,
                    self.options,
                    fallback=fallback,
                    refit_mixture=True,
                )
            )
        return fitted


def fold_fallback(X, weights, structure):
    """Return what serves for features that vary in X, but not outside of some fold."""
    standardized = isinstance(structure.mixture, MixtureSpec)
    if structure.covariance_type in ("diag", "full", "neighborhood") or standardized:
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
        """Return whether coordinates in float32 tell neighbours apart."""
        if self.n_features < FLOAT64_BELOW or self.structure.adaptive:
            return False
        near, _ = self.distances
        return bool(largest_entry * np.finfo(np.float32).eps <= FLOAT32_TOL * near)

    def largest_bandwidth(self, kernel):
        """Return the largest bandwidth that all folds allow, in whitened units."""
        return min(
            self.structure.largest_bandwidth(kernel, of_fold[0])
            for of_fold in self.components
        )

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

    def __init__(self, folds, structure):
        super().__init__(structure, folds.components(structure), folds.X.shape[1])
        self.folds, self.options = folds, folds.options
        self.dtype: np.dtype = np.dtype(np.float64)
        everyone = [c for of_fold in self.components for c in of_fold]
        if self._is_sharp_in_float32(max(np.abs(c.Z).max() for c in everyone)):
            self.dtype = np.dtype(np.float32)
            self.components = [[c.as_float32() for c in f] for f in self.components]
        self._points = {}

    def log_density(self, trials, places=None):
        folds = zip(self.folds.some(places), self.components, strict=True)
        return np.vstack([self._of_fold(rows, own, trials) for rows, own in folds])

    def pilot(self, trials):
        rows = self.folds.queries[0][:N_PILOT]
        return self._of_fold(rows, self.components[0], trials)

    def _of_fold(self, rows, components, trials):
        """Return log densities at the points ``rows``, by components fitted to others."""
        X = self.folds.X[rows]
        logs = [self._of_component(X, component, trials) for component in components]
        log_sums = functools.reduce(np.logaddexp, logs)
        total = sum(
            len(c.Z) if c.weights is None else c.weights.sum() for c in components
        )
        return log_sums - np.log(total) - self.log_volumes(trials)

    def _points_of(self, component):
        """Return the points of a component, prepared once."""
        if id(component) not in self._points:
            self._points[id(component)] = component.points()
        return self._points[id(component)]

    def _of_component(self, X, component, trials):
        """Return logs of kernel sums over one component, (n_queries, n_trials)."""
        points, log_scales = self._points_of(component), component.log_scales()
        largest = log_scales.max()
        settings = self.settings(trials, component, points.scale)
        reduction = KernelGridSums(
            settings, HELD_OUT_TOL, log_scales - largest, self.dtype
        )
        queries = points.as_queries(X)
        return largest + reduce_pairs(reduction, queries, points, self.options)

    def _nearest_sq(self):
        nearest = []
        for rows, components in zip(self.folds.queries, self.components, strict=True):
            X, own = self.folds.X[rows[:N_PILOT]], []
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


class KernelCurve(BandwidthCurve):
    """Mean held-out log density of one kernel against the bandwidth, whitened units.

    Parameters
    ----------
    kernel : Kernel
    center : float
        Where the maximum is, roughly.
    largest : float
        The largest bandwidth that may be tried.
    """

    def __init__(self, kernel, center, largest):
        super().__init__()
        self.kernel, self.center, self.largest = kernel, center, largest
        self.at_best = np.empty(0)  # log densities of the queries at the best bandwidth

    def add(self, bandwidths, log_density, weights):
        """Add bandwidths and the log densities there."""
        highest = self.mean.max(initial=-np.inf)
        super().add(bandwidths, log_density, weights)
        if not len(self.at_best) or self.mean.max() > highest:
            self.at_best = log_density[:, bandwidths == self.bandwidths[self.best]][:, 0]

    def again(self):
        """Return a new curve, centred at the peak of this one."""
        return KernelCurve(self.kernel, self.peak(), self.largest)

    def wanted(self):
        """Return bandwidths to try next; none if the best is between others."""
        center = self.center
        if len(self.bandwidths):
            center = float(self.bandwidths[self.best])
            if not self.best_is_at_end or center >= self.largest:
                return np.empty(0)
        steps = np.arange(N_FINE) - N_FINE // 2
        bandwidths = center * np.exp(FINE_STEP * steps)
        if bandwidths[-1] > self.largest:  # as many of them, up to the end
            bandwidths *= self.largest / bandwidths[-1]
            bandwidths[-1] = self.largest
        return self.untried(bandwidths, TRIED_SPACING)

    def peak(self):
        """Return the bandwidth of the largest mean."""
        if self.best_is_at_end:
            return float(self.bandwidths[self.best])
        return self.maximum(CUBIC)


def search_structures(folds, structures, kernels):
    """Compare structures, kernels and bandwidths on held-out points.

    Where there are many, all are compared on few of the points first, and those that
    come close to the best on all.

    Parameters
    ----------
    folds : Folds or BlockFolds
    structures : list of Structure
    kernels : list of Kernel
        Of which every structure takes the best.

    Returns
    -------
    structure : Structure
    kernel : Kernel
    search : BandwidthSearch
    """
    race = Race(folds)
    best_means: dict[Any, list[float]] = {}
    for structure in structures:
        family = best_means.setdefault(_family(structure), [])
        if len(family) > 1 and family[-1] < family[-2]:
            continue  # more components would be worse still
        family.append(race.enter(structure, kernels))
    ahead = race.first.structure
    finer = ahead.mixture.finer() if isinstance(ahead.mixture, MixtureSpec) else None
    if finer is not None:
        race.enter(replace(ahead, mixture=finer), kernels)
    best, candidates = race.finish()
    curve = best.curve
    search = BandwidthSearch(
        bandwidth=curve.peak(),
        bandwidths=curve.bandwidths,
        mean_log_density=curve.mean,
        standard_error=curve.standard_error,
        n_out_of_reach=np.zeros(len(curve.bandwidths), dtype=int),
        n_queries=len(folds.query_weights),
        n_copies=folds.n_duplicates,
        candidates=candidates,
    )
    return best.structure, curve.kernel, search


class Entrant:
    """A structure and a kernel in a race.

    Attributes
    ----------
    structure : Structure
    held_out : BaseHeldOut or None
        None once it is out of the race.
    curve : KernelCurve
    """

    def __init__(self, structure, held_out, curve):
        self.structure, self.held_out, self.curve = structure, held_out, curve

    @property
    def mean(self):
        """The largest mean log density, in nats."""
        return self.curve.mean[self.curve.best]

    def behind(self, other, weights):
        """Return mean and standard error of what it lacks to another, in nats."""
        lack = other.curve.at_best - self.curve.at_best
        mean, error = weighted_mean(lack[:, None], weights)
        return float(mean[0]), float(error[0])

    def candidate(self, mean_log_density, standard_error):
        """Return the record of it, at its best bandwidth."""
        return Candidate(
            covariance_type=self.structure.covariance_type,
            mixture=self.structure.mixture,
            neighborhood=self.structure.neighborhood,
            preserve_variance=self.structure.preserve_variance,
            kernel=self.curve.kernel.name,
            degrees_of_freedom=self.curve.kernel.degrees_of_freedom,
            bandwidth=self.curve.peak(),
            mean_log_density=float(mean_log_density),
            standard_error=float(standard_error),
        )


class Race:
    """Structures and kernels, of which those far behind are not looked at again.

    All run at few held-out points. What is behind the first there by more than ``SURELY``
    standard errors of the difference, query by query, is out; it has its difference on
    record. The others run at all points.
    """

    def __init__(self, folds):
        self.folds, self.entrants = folds, []
        self.places, self.weights = None, folds.query_weights  # None for all of them
        if len(self.weights) >= FEWEST_SCREENED:
            self.places, self.weights = folds.screened()

    def enter(self, structure, kernels):
        """Let the kernels of a structure run; return the largest mean, in nats."""
        held_out = self.folds.held_out(structure)
        curves = _pilot(held_out, kernels)
        _run(held_out, curves, self.weights, self.places)
        self.entrants += [Entrant(structure, held_out, curve) for curve in curves]
        mean = max(curve.mean.max() for curve in curves)
        if self.places is not None:
            self._send_out()
        return mean

    @property
    def first(self):
        """The one with the largest mean."""
        return max(self.entrants, key=lambda entrant: entrant.mean)

    def _send_out(self):
        """Let go of what is needed to go on with those that are far behind."""
        first, weights = self.first, self.weights
        for entrant in self.entrants:
            lack, error = entrant.behind(first, weights)
            if entrant is not first and not lack <= SURELY * error:  # NaN for -inf too
                entrant.held_out = None

    def finish(self):
        """Return the first of those left, at all points, and records of all."""
        if self.places is None:
            records = [(e, e.mean, e.curve.standard_error[e.curve.best]) for e in self]
            return self.first, tuple(e.candidate(*record) for e, *record in records)
        screened = self.first
        behind = {e: e.behind(screened, self.weights) for e in self}
        left = [entrant for entrant in self if entrant.held_out is not None]
        for held_out in {id(e.held_out): e.held_out for e in left}.values():
            own = [entrant for entrant in left if entrant.held_out is held_out]
            for entrant in own:
                entrant.curve = entrant.curve.again()
            _run(held_out, [e.curve for e in own], self.folds.query_weights)
        best = max(left, key=lambda entrant: entrant.mean)
        reference = screened.mean, screened.curve.standard_error[screened.curve.best]
        candidates = []
        for entrant in self:
            curve = entrant.curve
            mean, error = entrant.mean, curve.standard_error[curve.best]
            if entrant not in left:
                lack, error = behind[entrant]
                mean, error = reference[0] - lack, np.hypot(reference[1], error)
            candidates.append(entrant.candidate(mean, error))
        return best, tuple(candidates)

    def __iter__(self):
        return iter(self.entrants)


def _family(structure):
    """Return what mixtures of ever more components have in common."""
    mixture = structure.mixture
    if isinstance(mixture, MixtureSpec) and mixture.covariance_type == "full":
        return "mixture", "full"
    if isinstance(mixture, MixtureSpec):  # of one component: "diag"
        return "diag", None
    return structure.covariance_type, mixture or structure.neighborhood


def _run(held_out, curves, weights, places=None):
    """Complete the curve of each kernel for one structure, at queries of each fold."""
    for _ in range(MAX_PASSES):
        wanted = [(curve, curve.wanted()) for curve in curves]
        trials = [
            Trial(c.kernel, float(h)) for c, bandwidths in wanted for h in bandwidths
        ]
        if not trials:
            break
        log_density, start = held_out.log_density(trials, places), 0
        for curve, bandwidths in wanted:
            columns = slice(start, start + len(bandwidths))
            curve.add(bandwidths, log_density[:, columns], weights)
            start = columns.stop


def _pilot(held_out, kernels):
    """Return a curve for each kernel, centred where a few queries have it highest.

    Of a family of Student kernels those of least and most degrees of freedom are tried;
    the logarithm of the best bandwidth is about linear in ``1 / nu`` between.
    """
    tried = sorted({0, _heaviest_tail(kernels), len(kernels) - 1})
    ranges = [held_out.bandwidth_range(kernels[k]) for k in tried]
    grids = [np.geomspace(low, high, N_COARSE) for low, high in ranges]
    pairs = zip(tried, grids, strict=True)
    trials = [Trial(kernels[k], h) for k, grid in pairs for h in grid]
    means = held_out.pilot(trials).mean(axis=0).reshape(len(tried), N_COARSE)
    best = [g[np.argmax(m)] for g, m in zip(grids, means, strict=True)]
    heaviness = [1.0 / kernel.degrees_of_freedom for kernel in kernels]
    order = np.argsort([heaviness[k] for k in tried])
    known = np.array([heaviness[k] for k in tried])[order], np.log(best)[order]
    centers = np.exp(np.interp(heaviness, *known))
    return [
        KernelCurve(kernel, float(center), held_out.largest_bandwidth(kernel))
        for kernel, center in zip(kernels, centers, strict=True)
    ]


def _heaviest_tail(kernels):
    """Return which of some kernels has the fewest degrees of freedom."""
    return int(np.argmin([kernel.degrees_of_freedom for kernel in kernels]))


def mixture_ladder(n_points, n_features):
    """Return mixtures of few full or of many diagonal components, as the data allow."""
    n_fitted = max(int(n_points * (1.0 - 1.0 / N_FOLDS)), 1)
    ladder = [
        MixtureSpec("full", k)
        for k in FULL_LADDER
        if n_fitted >= POINTS_PER_FEATURE * k * n_features
        and n_fitted * n_features**2 <= LARGEST_FULL
    ]
    counts = {min(n_fitted // size, most) for size, most in DIAGONAL_LADDER}
    ladder += [MixtureSpec("diag", k) for k in sorted(counts) if k > 1]
    return ladder or [MixtureSpec("diag", 1)]


def neighborhood_ladder(n_points, n_features):
    """Return how covariances of neighbourhoods may be made: few neighbours to many."""
    wanted = (max(least, per * n_features) for least, per in NEIGHBOR_LADDER)
    counts = sorted({max(min(k, n_points - 1), 1) for k in wanted})
    return [NeighborhoodSpec(k, share) for k in counts for share in NEIGHBOR_SHRINKAGES]


def expand(structure, n_points, n_features):
    """Return the structures that ``structure`` stands for."""
    options = [structure]
    if structure.covariance_type == "auto":
        preserved = replace(structure, preserve_variance=True)
        types = ("spherical", "diag", "full", "local")
        options = [replace(preserved, covariance_type=name) for name in types]
    found = []
    for option in options:
        if option.covariance_type == "local" and option.mixture is None:
            ladder = mixture_ladder(n_points, n_features)
            found += [replace(option, mixture=mixture) for mixture in ladder]
        elif option.covariance_type == "neighborhood" and option.neighborhood is None:
            specs = neighborhood_ladder(n_points, n_features)
            found += [replace(option, neighborhood=spec) for spec in specs]
        else:
            found.append(option)
    return found
