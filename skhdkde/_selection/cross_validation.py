"""The search for the structure, the kernel's tail and the bandwidth.

What a covariance, a mixture or a neighbour distance says of its own training points is
too good: they had a part in it. So the points are split. For each of up to five folds a
structure is fitted to the other points, and the fold's mean log density is taken for all
settings of bandwidth and degrees of freedom from one pass over the pairs. It estimates
the Kullback-Leibler divergence from the true density, up to sign and a constant, as the
leave-one-out mean does for the textbook's estimate.
"""

import functools
from dataclasses import replace

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from skhdkde._density.components import whiten_components
from skhdkde._density.covariance import MixtureSpec, standardization
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.kernel_grid import KernelGridSums
from skhdkde._pairwise.reductions import KSmallest
from skhdkde._selection.rules import FLOAT64_BELOW
from skhdkde._selection.search_result import BandwidthSearch, Candidate
from skhdkde._utils.random import sampling_ranks

DEGREES_OF_FREEDOM = (3.0, 5.0, 10.0, 30.0, 100.0)
N_FOLDS = 5
N_QUERIES = 2048
N_PILOT = 64
# Bandwidths of the pilot, and of the pass over all queries around the best of them.
N_COARSE = 24
N_FINE = 7
FINE_STEP = 0.07
MAX_PASSES = 6
# Allowed error of a log sum in nats, and of coordinates, per distance to a neighbour.
TOL = 1e-2
FLOAT32_TOL = 1e-4
NEAREST_TOL = 1e-3
# Components of a diagonal mixture: their least size, and most of them.
DIAGONAL_LADDER = ((100, 25), (40, 50), (16, 100))
FULL_LADDER = (1, 2, 4)
# Points of a component with a full covariance, per feature, and cost of fitting one.
POINTS_PER_FEATURE = 2
LARGEST_FULL = 1e9


def fold_ends(n_points):
    """Where each fold ends, in random order; the points after the last are no queries."""
    if n_points >= N_FOLDS * N_QUERIES:
        return np.array([N_QUERIES])
    n_folds = min(N_FOLDS, n_points)
    sizes = np.full(n_folds, n_points // n_folds)
    sizes[: n_points % n_folds] += 1
    return np.cumsum(sizes)[: max(round(N_QUERIES / sizes[0]), 1)]


class Folds:
    """Splits of the training points, with a few of each fold as queries.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
        Distinct points.
    weights : ndarray of shape (n_points,) or None
    random_state : int
    index : ndarray of int of shape (n_points,)
        Of each point in the data.
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.
    """

    def __init__(self, X, weights, random_state, index, **engine):
        self.X, self.weights, self.random_state = X, weights, random_state
        self.engine, n_points = {**engine, "label": "structure"}, len(X)
        order = np.argsort(sampling_ranks(index, random_state))
        self.queries = np.split(order, fold_ends(n_points))[:-1]
        n_queries = sum(map(len, self.queries))
        everything = np.ones(n_queries) if weights is None else weights
        self.shares = np.ones(n_queries)
        if weights is not None:
            self.shares = np.concatenate([everything[q] for q in self.queries])
        self.shares = self.shares / self.shares.sum()

    def held_out(self, structure):
        """What is to be known of a structure."""
        return HeldOut(self, structure)

    def parts(self, structure):
        """Parts of the structure, fitted to the points outside each fold."""
        fitted, whole = [], ()
        ladder = isinstance(structure.mixture, MixtureSpec)
        if structure.covariance_type in ("diag", "full") or ladder:
            whole = standardization(self.X, self.weights)
        for queries in self.queries:
            others = np.setdiff1d(np.arange(len(self.X)), queries)
            weights = None if self.weights is None else self.weights[others]
            fitted.append(
                whiten_components(
                    self.X[others],
                    weights,
                    structure,
                    self.random_state,
                    whole=whole,
                    **self.engine,
                )
            )
        return fitted


class HeldOut:
    """Log density of the folds for one structure, fitted to the points outside."""

    def __init__(self, folds, structure):
        self.folds, self.structure, self.engine = folds, structure, folds.engine
        self.parts, self._prepared = folds.parts(structure), {}
        self.n_features = folds.X.shape[1]
        self.dtype = self._narrow() if self._is_sharp_in_float32() else np.float64

    def _is_sharp_in_float32(self):
        if self.n_features < FLOAT64_BELOW or self.structure.adaptive:
            return False
        near, _ = self.distances
        return bool(
            self._largest_entry() * np.finfo(np.float32).eps <= FLOAT32_TOL * near
        )

    def _largest_entry(self):
        return max(np.abs(part.Z).max() for parts in self.parts for part in parts)

    def _narrow(self):
        for parts in self.parts:
            for part in parts:
                part.Z = part.Z.astype(np.float32, copy=False)
        return np.float32

    def log_density(self, cells):
        """At all queries, (n_queries, n_cells); cells are of kernel and bandwidth."""
        folds = zip(self.folds.queries, self.parts, strict=True)
        return np.vstack([self._of_fold(rows, parts, cells) for rows, parts in folds])

    def pilot(self, cells):
        """At a few queries of the first fold."""
        rows = self.folds.queries[0][:N_PILOT]
        return self._of_fold(rows, self.parts[0], cells)

    def _of_fold(self, rows, parts, cells):
        logs = [self._of_part(self.folds.X[rows], part, cells) for part in parts]
        log_sums = functools.reduce(np.logaddexp, logs)
        counts = [len(p.Z) if p.weights is None else p.weights.sum() for p in parts]
        d = self.n_features
        volumes = [k.log_normalizer(d) + d * np.log(h) for k, h in cells]
        return log_sums - np.log(sum(counts)) - np.array(volumes)

    def _points(self, part):
        if id(part) not in self._prepared:
            self._prepared[id(part)] = part.points()
        return self._prepared[id(part)]

    def _of_part(self, X, part, cells):
        points = self._points(part)
        preserve = self.structure.preserve_variance
        pulled = [(k, h * points.scale, part.pull(k, h, preserve)) for k, h in cells]
        scales = part.log_scales()
        top = scales.max()
        reduction = KernelGridSums(pulled, TOL, scales - top)
        queries = points.as_queries(X)
        return top + reduce_pairs(
            reduction, queries, points, dtype=self.dtype, **self.engine
        )

    @functools.cached_property
    def distances(self):
        """Median distance to the nearest point, and spread, of a coordinate."""
        near = np.sqrt(np.median(np.concatenate(self._nearest())) / self.n_features)
        return near, np.sqrt(np.max(self._spreads()))

    def _nearest(self):
        """Squared distances to the nearest point, of a few queries of each fold."""
        nearest = []
        for rows, parts in zip(self.folds.queries, self.parts, strict=True):
            X, own = self.folds.X[rows[:N_PILOT]], []
            for part in parts:
                points = part.points()
                reduction, queries = KSmallest(1, NEAREST_TOL), points.as_queries(X)
                sq = reduce_pairs(reduction, queries, points, **self.engine)
                own.append(sq[:, 0] / points.scale**2)
            nearest.append(np.min(own, axis=0))
        return nearest

    def _spreads(self):
        """Mean square of a coordinate, in all parts."""
        spreads = []
        for part in (part for parts in self.parts for part in parts):
            sq = np.einsum("ij,ij->i", part.Z, part.Z, dtype=np.float64)
            spreads.append(np.average(sq, weights=part.weights) / self.n_features)
        return spreads

    def largest_bandwidth(self, kernel):
        """That all folds allow."""
        return min(self.structure.largest_bandwidth(kernel, p) for p in self.parts)

    def range(self, kernel):
        """Bandwidths between which the best is sought."""
        near, spread = self.distances
        variance = kernel.variance(self.n_features)
        if kernel.name == "student":
            variance = min(variance, 4.0)
        low, high = 0.25 * near / np.sqrt(variance), 2.0 * spread / np.sqrt(variance)
        high = min(max(high, 1e-300), self.largest_bandwidth(kernel))
        return min(max(low, 1e-9 * high), 0.5 * high), high


class _Curve:
    """Mean held-out log density of one kernel against the bandwidth."""

    def __init__(self, held_out, kernel):
        self.held_out, self.kernel = held_out, kernel
        self.largest = held_out.largest_bandwidth(kernel)
        self.tried = {}  # bandwidth: (mean, standard error)
        self.center, self.step = None, FINE_STEP

    def wanted(self):
        """Bandwidths to try next; none if the best is between others."""
        if self.tried:
            best, tried = self.best, sorted(self.tried)
            at_end = best in (tried[0], tried[-1]) and best < self.largest
            if not at_end:
                return []
            self.center = best
        steps = np.arange(N_FINE) - N_FINE // 2
        bandwidths = self.center * np.exp(self.step * steps)
        if bandwidths[-1] > self.largest:  # as many of them, up to the end
            bandwidths *= self.largest / bandwidths[-1]
            bandwidths[-1] = self.largest
        known = np.log(np.array(sorted(self.tried)))
        new = [
            float(h)
            for h in bandwidths
            if not len(known) or np.abs(known - np.log(h)).min() > 1e-3
        ]
        return new

    def add(self, bandwidth, mean, standard_error):
        self.tried[bandwidth] = float(mean), float(standard_error)

    @property
    def best(self):
        return max(self.tried, key=lambda h: self.tried[h][0])

    @property
    def best_mean(self):
        return self.tried[self.best][0]

    def peak(self):
        """Bandwidth of the largest mean, by a spline around the best that was tried."""
        tried = np.array(sorted(self.tried))
        x, y = np.log(tried), np.array([self.tried[h][0] for h in tried])
        best = int(np.argmax(y))
        if best in (0, len(x) - 1) or len(x) < 4:
            return float(tried[best])
        window = slice(max(best - 3, 0), best + 4)
        slope = make_interp_spline(x[window], y[window], k=3).derivative()
        if not slope(x[best - 1]) > 0.0 > slope(x[best + 1]):
            return float(tried[best])
        return float(np.exp(brentq(slope, x[best - 1], x[best + 1])))


def search_structures(folds, structures, kernels):
    """Compare structures, kernels and bandwidths on held-out points.

    Parameters
    ----------
    folds : Folds
    structures : list of Structure
    kernels : list
        Of which every structure takes the best.

    Returns
    -------
    structure : Structure
    kernel : object
    search : BandwidthSearch
    """
    curves, best_means = {}, {}
    for structure in structures:
        family = best_means.setdefault(_family(structure), [])
        if len(family) > 1 and family[-1] < family[-2]:
            continue  # more components would be worse still
        compared = _compare_kernels(folds, structure, kernels)
        curves.update({curve: structure for curve in compared})
        family.append(max(curve.best_mean for curve in compared))
    best = max(curves, key=lambda curve: curve.best_mean)
    candidates = [_candidate(structure, curve) for curve, structure in curves.items()]
    search = _record(best, candidates, len(folds.shares))
    return curves[best], best.kernel, search


def _family(structure):
    """What mixtures of ever more components are a family with."""
    mixture = structure.mixture
    if isinstance(mixture, MixtureSpec) and mixture.covariance_type == "full":
        return "mixture", "full"
    if isinstance(mixture, MixtureSpec):  # of one component: "diag"
        return "diag", None
    return structure.covariance_type, mixture


def _compare_kernels(folds, structure, kernels):
    """The curve of each kernel."""
    held_out = folds.held_out(structure)
    curves = [_Curve(held_out, kernel) for kernel in kernels]
    _pilot(held_out, curves)
    for _ in range(MAX_PASSES):
        cells = [(curve, h) for curve in curves for h in curve.wanted()]
        if not cells:
            break
        logs = held_out.log_density([(curve.kernel, h) for curve, h in cells])
        shares = folds.shares[:, None]
        means = np.sum(shares * logs, axis=0)
        errors = np.sqrt(np.sum((shares * (logs - means)) ** 2, axis=0))
        for (curve, h), mean, error in zip(cells, means, errors, strict=True):
            curve.add(h, mean, error)
    return curves


def _pilot(held_out, curves):
    """Where each curve is highest, roughly, from a few queries."""
    grids = [np.geomspace(*held_out.range(c.kernel), N_COARSE) for c in curves]
    pairs = zip(curves, grids, strict=True)
    cells = [(curve.kernel, h) for curve, grid in pairs for h in grid]
    means = held_out.pilot(cells).mean(axis=0).reshape(len(curves), N_COARSE)
    for curve, grid, mean in zip(curves, grids, means, strict=True):
        curve.center = float(grid[np.argmax(mean)])


def _candidate(structure, curve):
    mean, error = curve.tried[curve.best]
    kernel = curve.kernel
    return Candidate(
        covariance_type=structure.covariance_type,
        mixture=structure.mixture,
        preserve_variance=structure.preserve_variance,
        kernel=kernel.name,
        degrees_of_freedom=getattr(kernel, "degrees_of_freedom", np.inf),
        bandwidth=curve.peak(),
        mean_log_density=mean,
        standard_error=error,
    )


def _record(curve, candidates, n_queries):
    bandwidths = np.array(sorted(curve.tried))
    means, errors = np.array([curve.tried[h] for h in bandwidths]).T
    return BandwidthSearch(
        bandwidth=curve.peak(),
        bandwidths=bandwidths,
        mean_log_density=means,
        standard_error=errors,
        n_out_of_reach=np.zeros(len(bandwidths), dtype=int),
        n_queries=n_queries,
        n_copies=0,
        candidates=tuple(candidates),
    )


def mixture_ladder(n_points, n_features):
    """Mixtures of few full or of many diagonal components, as the data allow."""
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


def expand(structure, n_points, n_features):
    """The structures that ``structure`` stands for."""
    if structure.covariance_type == "auto":
        types = ["spherical", "diag", "full", "local"]
        preserved = replace(structure, preserve_variance=True)
        options = [replace(preserved, covariance_type=name) for name in types]
    else:
        options = [structure]
    found = []
    for option in options:
        if option.covariance_type == "local" and option.mixture is None:
            ladder = mixture_ladder(n_points, n_features)
            found += [replace(option, mixture=mixture) for mixture in ladder]
        else:
            found.append(option)
    return found
