"""Log densities by near points and samples, each with its error.

What is enough depends on the regime at the query. Below ``h_g`` a few nearest points are
nearly all of the sum; above ``h_clt`` the central limit theorem holds for a small sample
too. ``algorithm="auto"`` uses, for each query, the first of these that states an error
within the tolerance:

1. a sample, larger where its variance says so, if it resolves the sum, and a duplicate
   of the query among the points would not be felt;
2. neighbours and a sample of the others;
3. more of both;
4. all points.

``algorithm="sampling"`` takes a sample in any case, and, where a duplicate would be felt,
also points that are found beside the query.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from skhdkde._approximation.calibration import (
    GLANCE_SHARE,
    Level,
    Prepared,
    differences,
    excess,
)
from skhdkde._approximation.near_far_sum import N_SAMPLED, SEEN, rounding_error
from skhdkde._approximation.report import (
    ALGORITHM,
    ERROR,
    EXACT,
    N_EVALUATIONS,
    NEIGHBORS,
    SAMPLING,
)
from skhdkde._approximation.unlike import A_LITTLE, MUCH, Unlike, felt, measured
from skhdkde._density import Density
from skhdkde._pairwise import ComputeOptions
from skhdkde._utils.threads import progress_bar
from skhdkde._utils.typing import FloatArray, Rows

TINY = np.finfo(float).tiny
QUERIES_AT_ONCE = 4096
# Growth of a sample that does not resolve a sum, and least growth of one that does.
MORE, LEAST = 2.0, 1.2
# Largest share of the points in a sample: beyond, all of them take little longer. Largest
# expected cost with neighbours, relative to all points.
LARGEST_SAMPLE, LARGEST_COST = 0.125, 0.7
# Training points on which samples are tried, and the share of them whose errors may be
# above the one stated.
N_TRIED, ABOVE = 512, 0.05
# Points near a query that "sampling" sums one by one where they may matter.
N_NEAR = 32
# Factor of the size that a sample's variance calls for, as it is estimated.
MARGIN = 1.1


@dataclass(eq=False)
class Approximation:
    """Sums of a density by algorithms other than "exact".

    There is one of ``prepared`` for each component of the density. ``tol`` is the error
    of a log density that is accepted, in nats; ``surplus`` what :meth:`try_samples` finds
    of errors of samples beyond those that they state, and ``unlike``, for samples and for
    neighbours, what :func:`~skhdkde._approximation.unlike.measured` does.
    """

    density: Density
    prepared: list[Prepared]
    algorithm: Literal["neighbors", "sampling", "auto"]
    tol: float
    surplus: float = 0.0
    unlike: dict[int, Unlike] = field(default_factory=dict)
    n_measured: int = 0  # number of points when errors were measured

    def __post_init__(self):
        self.n_measured = self.n_measured or self.density.n_points
        self.density.shares_components = True

    @property
    def n_population(self) -> int:
        """Number of points from which samples are drawn, of all components."""
        return sum(len(p.near_far.population) for p in self.prepared)

    @property
    def largest_population(self) -> int:
        """Number of those of the largest component."""
        return max(len(p.near_far.population) for p in self.prepared)

    @property
    def kind(self) -> str | None:
        """Kind of the first component's search, None if there is none."""
        return getattr(self.prepared[0].search, "kind", None)

    @property
    def n_neighbors(self) -> int:
        """Neighbours at the first level, the most of all components."""
        return max(p.levels[0].n_neighbors for p in self.prepared)

    @property
    def peak(self) -> float:
        """Log of what a point of the largest weight adds to the sum at its place."""
        pairs = zip(self.prepared, self.density.components, strict=True)
        return max(p.log_factor + c.log_det for p, c in pairs)

    @property
    def log_mass(self) -> float:
        """Log of what the points would add at a place where all of them are."""
        pairs = zip(self.prepared, self.density.components, strict=True)
        logs = [np.log(p.near_far.mass) + p.log_factor + c.log_det for p, c in pairs]
        return float(np.logaddexp.reduce(logs))

    @property
    def pays(self) -> bool:
        """Whether neighbours are found at much less cost than all points are visited."""
        return self.algorithm != "sampling" and len(self.stages()) > 0

    def log_density(
        self, X, options: ComputeOptions, rows: Rows = slice(None)
    ) -> tuple[FloatArray, FloatArray]:
        """Return log densities at X, or at each training point left out if X is None.

        ``rows`` are some of these. The second result has, for each query, the number of
        the algorithm in ``ALGORITHMS``, the stated error and the number of kernel
        evaluations.
        """
        all_rows = np.arange(self.density.n_points if X is None else len(X))[rows]
        n_queries = len(all_rows)
        log_sums, used = np.empty(n_queries), np.empty((n_queries, 3))
        verbose = options.verbose
        with progress_bar(n_queries, verbose, "density", unit="query") as progress:
            for start in range(0, n_queries, QUERIES_AT_ONCE):
                some = slice(start, min(start + QUERIES_AT_ONCE, n_queries))
                batch = _Batch(self, X, all_rows[some], options)
                batch.run()
                log_sums[some], used[some] = batch.log_sums, batch.used
                progress(some.stop - some.start)
        return self.density.finished(log_sums, X, all_rows), used

    def try_samples(self, options: ComputeOptions) -> float:
        """Find ``surplus``, and return the share of points that samples do not serve.

        Points that are like none of the sample, small clusters or a rare group far away,
        do not show in its variance. They show in sums over all points. What is found for
        queries that are unlike the training points is in ``unlike``.
        """
        self.surplus, self.unlike = 0.0, {}
        rows = np.sort(self._tried_rows())
        batch, served = _Batch(self, None, rows, options), np.ones(len(rows), dtype=bool)
        if self.algorithm == "auto":
            served[batch.by_samples(strict=True)] = False
        else:
            batch.by_samples(strict=False)
        if served.any():
            exact = self.density.log_sums(None, batch.options, rows[served])
            error = differences(batch.log_sums[served], exact)
            self.surplus = excess(error, batch.used[served, ERROR], 1.0 - ABOVE)
        useless = np.mean(served) < ABOVE or self.surplus > self.tol
        if self.algorithm == "auto" and useless:
            self.surplus = np.inf
            return 1.0
        if self.n_population > N_SAMPLED:
            self._try_moved(SAMPLING, batch.log_sums, options)
        return 1.0 - float(np.mean(served))

    def try_neighbors(self, options: ComputeOptions) -> None:
        """Find ``unlike`` for neighbours, if these are to be used."""
        if self.algorithm == "neighbors" or self.stages():
            batch = _Batch(self, None, self._tried_rows(), options)
            batch.by_first_neighbors()
            self._try_moved(NEIGHBORS, batch.log_sums, options)

    def _tried_rows(self):
        """Return training points on which errors are measured, in random order."""
        rng = np.random.default_rng(self.prepared[0].near_far.seed)
        n = self.density.n_points
        return rng.choice(n, min(n, N_TRIED), replace=False)

    def _try_moved(self, algorithm, typical, options):
        """Find ``unlike``; ``typical`` are log sums at training points left out."""
        steps = A_LITTLE + MUCH if self.algorithm == "sampling" else MUCH

        def tried(X):
            batch = _Batch(self, X, np.arange(len(X)), options)
            stated = batch.stated_by(algorithm)
            exact = self.density.log_sums(X, batch.options)
            return batch.log_sums, stated, differences(batch.log_sums, exact)

        points = self.density.in_data_units(self._tried_rows())
        seed = self.prepared[0].near_far.seed
        self.unlike[algorithm] = measured(tried, points, typical, self.peak, steps, seed)

    def stages(self) -> list[list[Level]]:
        """Return the levels to try in turn, one for each component, before all points.

        They are those with the least expected cost; there are none if all points cost
        little more.
        """
        # small components have everything in their sample
        large = [p for p in self.prepared if len(p.near_far.population) > N_SAMPLED]
        if any(p.search is None for p in large):
            return []
        first, more = ([p.levels[place] for p in self.prepared] for place in (0, -1))
        ladders = [[first], [more], [first, more]]
        best = min(ladders, key=self._expected_cost)
        n_points = self.density.n_points
        return best if self._expected_cost(best) <= LARGEST_COST * n_points else []

    def _expected_cost(self, stages):
        """Return the cost of a query that goes from stage to stage until one serves."""
        cost, left = 0.0, 1.0
        for levels in stages:
            pairs = list(zip(self.prepared, levels, strict=True))
            cost += left * sum(p.cost(level) for p, level in pairs)
            met = [x.met for p, x in pairs if len(p.near_far.population) > N_SAMPLED]
            left = min(left, 1.0 - float(np.mean(met)) if met else 0.0)
        return cost + left * self.density.n_points


class _Batch:
    """A batch of queries, with the results that are known so far.

    ``todo``, for each method, are some of the queries, by their place in the batch.
    """

    def __init__(self, approximation, X, rows, options):
        self.of, self.density = approximation, approximation.density
        self.X, self.rows, self.options = X, rows, options.quiet()
        self.dtype = np.result_type(self.density.dtype, *([] if X is None else [X.dtype]))
        self.log_sums = np.empty(len(rows))
        self.used = np.zeros((len(rows), 3))
        self.sizes = np.zeros(len(rows), dtype=int)  # of the samples

    def run(self):
        """Find log sums by the algorithm of the approximation."""
        if self.of.algorithm == "neighbors":
            self.by_first_neighbors()
        elif self.of.algorithm == "sampling":
            self.by_samples(strict=False)
        else:
            todo = np.arange(len(self.rows))
            if self.of.surplus <= self.of.tol:
                todo = self.by_samples(strict=True)
            for levels in self.of.stages():
                todo = self._by_neighbors(todo, levels)
            self._by_all(todo)

    def stated_by(self, algorithm):
        """Find log sums by one of the algorithms; return stated errors.

        They are infinite for queries that it leaves to the others.
        """
        if algorithm == NEIGHBORS:
            self.by_first_neighbors()
        elif self.of.algorithm == "sampling":
            self.by_samples(strict=False)
        else:
            self.used[self.by_samples(strict=True), ERROR] = np.inf
        return self.used[:, ERROR].copy()

    def by_first_neighbors(self):
        """Find log sums by neighbours at the first level."""
        levels = [p.levels[0] for p in self.of.prepared]
        self._by_neighbors(np.arange(len(self.rows)), levels)

    def _keep(self, todo, log_sums, errors, algorithm):
        """Note results; return those of ``todo`` whose errors are too large."""
        self.log_sums[todo], self.used[todo, ERROR] = log_sums, errors
        self.used[todo, ALGORITHM] = algorithm
        return todo[~(errors <= self.of.tol)]

    def _unlike(self, algorithm, log_sums, errors, sizes):
        """Return what is to be added to errors at queries unlike the training points.

        ``sizes`` are those of the samples.
        """
        unlike, kernel = self.of.unlike.get(algorithm, Unlike()), self.density.kernel
        beyond = unlike.beyond(log_sums, errors, self.of.peak)
        if not kernel.compact:
            return beyond
        # a few far points may be out of reach when those of the sample are not
        unseen = np.where(sizes < self.of.largest_population, SEEN / sizes, TINY)
        there = np.where(np.isneginf(log_sums), np.inf, log_sums)
        few = felt(there, self.of.log_mass + np.log(unseen))
        # of a tophat the sums do not tell what is far
        told = unlike.is_far(log_sums) | (kernel.name == "tophat")
        known = np.where(np.isfinite(errors), errors, few)
        return np.maximum(beyond, np.where(told, few - known, 0.0))

    def _by_all(self, todo):
        """Find log sums over all points."""
        if len(todo):
            log_sums = self.density.log_sums(self.X, self.options, self.rows[todo])
            self.used[todo, N_EVALUATIONS] += self.density.n_points
            errors = rounding_error(log_sums, self.density.n_points, self.dtype)
            self._keep(todo, log_sums, errors, EXACT)

    def _by_neighbors(self, todo, levels):
        """Find log sums by neighbours and a sample; return which are not good enough."""
        if not len(todo):
            return todo
        terms = self._neighbor_terms(todo, levels)
        errors = self._stated(terms) + max(level.missed for level in levels)
        size = min(level.n_sampled for level in levels)
        errors += self._unlike(NEIGHBORS, terms.total(), errors, size)
        return self._keep(todo, terms.total(), errors, NEIGHBORS)

    def _neighbor_terms(self, todo, levels):
        """Return the terms of the sums, at a glance where far points hardly matter."""
        if len(levels) > 1 or not levels[0].glance:
            return self._terms(todo, levels)[0]
        sums = next(self._sums(todo, levels))
        terms, enough = sums.glance(GLANCE_SHARE * self.of.tol)
        self.used[todo, N_EVALUATIONS] += sums.n_evaluations_at_a_glance
        rest = np.flatnonzero(~enough)
        if len(rest):
            terms.put(rest, self._terms(todo[rest], levels)[0])
        return terms

    def by_samples(self, strict):
        """Find log sums by growing samples; return which are not good enough.

        With ``strict``, queries that a sample does not resolve are among these. Without,
        points beside the query are summed where the sample may lack some that matter.
        """
        largest = LARGEST_SAMPLE * self.of.n_population
        # queries by the size of the sample that they need, with their moments so far
        growing: dict = {N_SAMPLED: [(np.arange(len(self.rows)), None)]}
        rejected = []
        while growing:
            size = min(growing)
            for todo, known in growing.pop(size):
                over, moments, needed = self._sampled(todo, size, known, strict)
                grow = needed <= largest
                rejected.append(todo[over[~grow]])
                for larger in np.unique(needed[grow]):
                    again = over[needed == larger]
                    smaller = [each.subset(again) for each in moments]
                    growing.setdefault(int(larger), []).append((todo[again], smaller))
        if not strict:
            self._look_beside()
        return np.sort(np.concatenate(rejected))

    def _sampled(self, todo, size, known, strict):
        """Find log sums by a sample; return what is needed to go on.

        These are the places in ``todo`` that are not good enough, the moments of each
        component, and for each place the size of a sample that may be; infinite for none.
        """
        self.sizes[todo] = size
        levels = [Level(0, size)] * len(self.of.prepared)
        terms, moments = self._terms(todo, levels, known)
        total, errors = terms.total(), self._stated(terms)
        errors[~terms.resolved] = np.inf  # larger samples may resolve them
        stated = errors + self.of.surplus
        hopeless = np.full(len(todo), self.of.surplus >= self.of.tol)
        if strict:
            # a duplicate of the query, should there be one that the sample has not
            hopeless |= felt(total, self.of.peak) > self.of.tol
            unlike = self._unlike(SAMPLING, total, errors, self.sizes[todo])
            hopeless |= unlike >= self.of.tol
            stated += unlike
            errors[hopeless] = stated[hopeless] = np.inf
        over = self._keep(todo, total, stated, SAMPLING)
        over = np.flatnonzero(np.isin(todo, over))
        with np.errstate(over="ignore"):  # of far queries
            growth = np.maximum((errors[over] / self.of.tol) ** 2 * MARGIN, LEAST)
        # of an unresolved sum the error does not say how much is needed
        growth = np.where(terms.resolved[over], growth, MORE)
        growth = np.where(hopeless[over], np.inf, growth)
        return over, moments, _rounded_up(size * growth)

    def _look_beside(self):
        """Sum points beside the queries one by one, where they may change the sums."""
        doubtful = felt(self.log_sums, self.of.peak) > self.used[:, ERROR]
        doubtful |= np.isinf(self.used[:, ERROR])
        for size in np.unique(self.sizes[doubtful]):
            todo = np.flatnonzero(doubtful & (self.sizes == size))
            terms, _ = self._terms(todo, [Level(N_NEAR, size)] * len(self.of.prepared))
            errors = self._stated(terms)
            final = np.flatnonzero(~terms.resolved)
            if len(final):
                errors[final] = self._unresolved(todo[final], terms.subset(final), size)
            self._keep(todo, terms.total(), errors + self.of.surplus, SAMPLING)
        errors = self.used[:, ERROR]
        errors += self._unlike(SAMPLING, self.log_sums, errors, self.sizes)

    def _unresolved(self, todo, terms, size):
        """Return stated errors of sums that the sample does not resolve."""
        levels = [Level(0, size)] * len(self.of.prepared)
        bounds = [sums.nearer_bounds(size) for sums in self._sums(todo, levels)]
        most, least = np.logaddexp.reduce(bounds)
        total, share = terms.total(), min(size / self.of.n_population, 1.0)
        # points of the sample are certain to be there, if they stand for no others
        with np.errstate(invalid="ignore"):
            certain = np.maximum(1.0 - 2.0 * np.exp(terms.deviation - total), share)
            below = total - np.logaddexp(least, total + np.log(certain))
        return np.fmax(self._stated(dataclasses.replace(terms, missed=most)), below)

    def _stated(self, terms):
        return terms.stated_error(self.density.n_points, self.dtype)

    def _sums(self, todo, levels):
        """Yield the sums over each component."""
        for prepared, component, level in zip(
            self.of.prepared, self.density.components, levels, strict=True
        ):
            X, leave_out = self.density.queries(self.X, component, self.rows[todo])
            own, duplicates = np.full(len(todo), -1), np.zeros(len(todo))
            if leave_out is not None:
                own, duplicates = prepared.own(leave_out)
            points, options = prepared.near_far.points, self.options
            queries = points.rows_as_queries(own) if X is None else points.as_queries(X)
            ids = prepared.neighbors(queries, own, level, options)
            spec = component.reduction_spec(queries.dtype)
            factor = prepared.log_factor + component.log_det
            kind = prepared.search.kind if prepared.search is not None else None
            yield prepared.near_far.batch(
                spec, queries, own, duplicates, ids, options, factor, kind
            )

    def _terms(self, todo, levels, known=None):
        """Return the terms of the sums, with one level for each component.

        ``known`` are the moments over smaller samples, one for each component; those over
        these samples are returned too.
        """
        total, moments = None, []
        for i, sums in enumerate(self._sums(todo, levels)):
            smaller = None if known is None else known[i]
            moments.append(sums.moments(levels[i].n_sampled, smaller))
            terms = sums.terms(moments[i])
            total = terms if total is None else total.plus(terms)
            self.used[todo, N_EVALUATIONS] += sums.n_evaluations(moments[i])
        return total, moments


def _rounded_up(sizes):
    """Return sizes as powers of the fourth root of two, so that queries share samples."""
    steps = np.ceil(4.0 * np.log2(sizes / N_SAMPLED))
    return np.ceil(N_SAMPLED * 2.0 ** (steps / 4.0))
