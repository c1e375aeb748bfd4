"""Log densities by near points and samples, each with its error.

What is enough depends on the regime at the query. Below ``h_g`` a few nearest points are
the whole sum; above ``h_clt`` the central limit theorem holds for a small sample too.
``algorithm="auto"`` takes, for each query, the first that states an error within the
tolerance:

1. a sample, larger where its variance says so, if it resolves the sum, and a copy of
   the query among the points would not be felt;
2. neighbours and a sample of the rest;
3. more of both;
4. all points.
"""


import numpy as np

from skhdkde._approximation.calibration import (
    Level,
    differences,
    excess,
    rounding_error,
    stated_error,
)
from skhdkde._approximation.near_far_sum import N_SAMPLED
from skhdkde._utils.threads import progress_bar
from skhdkde._utils.warnings import warn_user

# What was used for a query, by number.
ALGORITHMS = ("exact", "neighbors", "sampling")
EXACT, NEIGHBORS, SAMPLING = range(3)
QUERIES_AT_ONCE = 4096
# Growth of a sample that does not resolve a sum, and least growth of one that does.
MORE, LEAST = 2.0, 1.2
# Largest share of the points in a sample: beyond, all of them take little longer. Largest
# cost of neighbours, relative to all points.
LARGEST_SAMPLE, LARGEST_COST = 0.125, 0.5
# Training points on which samples are tried, and the share of them whose errors may be
# above the one stated.
N_TRIED, ABOVE = 512, 0.05
# "auto" looks at neighbours where the tolerance is met in so large a share of the cases.
FEWEST_MET = 0.5
# Larger samples are drawn with some room.
ROOM = 1.1


class Report:
    """What was used for each query, and how wrong it may be.

    Attributes
    ----------
    algorithm : ndarray of str of shape (n_queries,), or None
        "neighbors", "sampling" or "exact".
    error : ndarray of shape (n_queries,), or None
        Stated error of the log density, in nats: over queries drawn like the training
        points, about 95 % of the differences to the sum over all points are smaller than
        theirs. For "exact" it is rounding.
    n_evaluations : ndarray of int of shape (n_queries,), or None
        Kernel evaluations, all attempts together; without those of a search.
    tol : float
        The error that is accepted.
    """

    def __init__(self, used, tol):
        self.algorithm = self.error = self.n_evaluations = None
        self.tol = tol
        if used is not None:
            self.algorithm = np.array(ALGORITHMS)[used[:, 0].astype(int)]
            self.error = used[:, 1].copy()
            self.n_evaluations = used[:, 2].astype(int)

    @property
    def over(self):
        """Share of the queries whose stated error is above ``tol``."""
        return float(np.mean(self._above))

    @property
    def _above(self):
        return ~(self.error <= self.tol)

    def warn(self, algorithm):
        """Warn if there are such queries, and say what to do about it."""
        if not self._above.any():
            return
        advice = {
            "neighbors": "A fit with a larger n_neighbors or algorithm='auto' takes more "
            "points for them.",
            "sampling": "A fit with algorithm='auto' takes more points for them.",
            "auto": "Their sums are over all points: it is rounding.",
        }
        warn_user(
            f"{np.count_nonzero(self._above)} of {len(self.error)} queries "
            f"({self.over:.2g} of all) have a stated error above tol={self.tol!r} nats, "
            f"up to {self.error.max():.2g}. {advice[algorithm]}"
        )

    def __repr__(self):
        counts = ", ".join(
            f"{name} {np.count_nonzero(self.algorithm == name)}" for name in ALGORITHMS
        )
        return (
            f"<Report: {len(self.error)} queries: {counts}; stated errors: median "
            f"{np.median(self.error):.2g}, largest {self.error.max():.2g} nats, "
            f"{np.count_nonzero(self._above)} above {self.tol:g}>"
        )


class Approximation:
    """Sums of an density by algorithms other than "exact".

    Parameters
    ----------
    density : Density
    prepared : list of Prepared
        One for each component of the density.
    algorithm : {"neighbors", "sampling", "auto"}
    tol : float
        Error of a log density that is accepted, in nats.
    """

    def __init__(self, density, prepared, algorithm, tol):
        self.density, self.prepared = density, prepared
        self.algorithm, self.tol = algorithm, tol
        self.surplus = 0.0  # error of sums over samples beyond the one they state

    def log_density(self, X, engine):
        """At X, or at each training point without itself if X is None.

        Returns
        -------
        log_density : ndarray of shape (n_queries,)
        used : ndarray of shape (n_queries, 3)
            Number of the algorithm in ``ALGORITHMS``, error stated, kernel evaluations.
        """
        n_queries = self.density.n_points if X is None else len(X)
        log_sums, used = np.empty(n_queries), np.empty((n_queries, 3))
        verbose, engine = engine["verbose"], {**engine, "verbose": 0}
        with progress_bar(n_queries, verbose, "density", unit="query") as progress:
            for start in range(0, n_queries, QUERIES_AT_ONCE):
                rows = np.arange(start, min(start + QUERIES_AT_ONCE, n_queries))
                log_sums[rows], used[rows] = _Block(self, X, rows, engine).result()
                progress(len(rows))
        return self.density.finished(log_sums, X), used

    def try_samples(self, engine):
        """Find ``surplus``, at training points left out; share that samples do not serve.

        What no point of a sample is like, small clusters or a rare group far away, does
        not show in its variance. It shows where all points are summed.
        """
        n, self.surplus = self.density.n_points, 0.0
        rng = np.random.default_rng(self.prepared[0].split.seed)
        rows = np.sort(rng.choice(n, min(n, N_TRIED), replace=False))
        block = _Block(self, None, rows, {**engine, "verbose": 0})
        kept = np.ones(len(rows), dtype=bool)
        if self.algorithm == "auto":
            kept[block.by_samples(strict=True)] = False
        else:
            block.by_samples(strict=False)
        if kept.any():
            exact = self.density.log_sums(None, block.engine, rows[kept])
            error = differences(block.log_sums[kept], exact)
            self.surplus = excess(error, block.used[kept, 1], 1.0 - ABOVE)
        useless = np.mean(kept) < ABOVE or self.surplus > self.tol
        if self.algorithm == "auto" and useless:
            self.surplus, kept = np.inf, np.zeros(1)
        return 1.0 - np.mean(kept)

    @property
    def kind(self):
        """Of the search that is used, None if none is; the first component's."""
        return getattr(self.prepared[0].search, "kind", None)

    @property
    def n_neighbors(self):
        """Of the first look, the most of all components."""
        return max(p.levels[0].n_neighbors for p in self.prepared)

    def stages(self):
        """Levels, one for each component, that are worth it."""
        found = [[p.levels[-1 if more else 0] for p in self.prepared] for more in (0, 1)]
        return [levels for levels in found if self._worth_it(levels)]

    def _worth_it(self, levels):
        pairs = list(zip(self.prepared, levels, strict=True))
        # small components have everything in their sample
        large = [pair for pair in pairs if len(pair[0].split.population) > N_SAMPLED]
        if any(p.search is None for p, _ in large):
            return False
        if large and np.mean([level.met for _, level in large]) < FEWEST_MET:
            return False
        cost = sum(p.cost(level) for p, level in pairs)
        return cost <= LARGEST_COST * self.density.n_points


class _Block:
    """Some queries, on their way to an answer."""

    def __init__(self, approximation, X, rows, engine):
        self.of, self.X, self.rows, self.engine = approximation, X, rows, engine
        self.log_sums = np.empty(len(rows))
        self.used = np.zeros((len(rows), 3))

    def result(self):
        algorithm = self.of.algorithm
        if algorithm == "neighbors":
            everything = np.arange(len(self.rows))
            self._by_neighbors(everything, [p.levels[0] for p in self.of.prepared])
        elif algorithm == "sampling":
            self.by_samples(strict=False)
        else:
            todo = np.arange(len(self.rows))
            if self.of.surplus <= self.of.tol:
                todo = self.by_samples(strict=True)
            for levels in self.of.stages():
                todo = self._by_neighbors(todo, levels)
            self._by_all(todo)
        return self.log_sums, self.used

    def _keep(self, todo, log_sums, errors, algorithm):
        """Note results; which of ``todo`` are not good enough."""
        self.log_sums[todo], self.used[todo, 1] = log_sums, errors
        self.used[todo, 0] = algorithm
        return todo[~(errors <= self.of.tol)]

    def _by_neighbors(self, todo, levels):
        if not len(todo):
            return todo
        terms, _ = self._terms(todo, levels)
        missed = max(level.missed for level in levels)
        return self._keep(todo, terms.total(), self._stated(terms, missed), NEIGHBORS)

    def by_samples(self, strict):
        """By growing samples. ``strict``: stop at queries that they do not resolve.

        Returns
        -------
        todo : ndarray of int
            Queries whose errors are still above the tolerance.
        """
        largest = LARGEST_SAMPLE * self._n_population()
        everything = np.arange(len(self.rows))
        growing, rejected = {N_SAMPLED: [(everything, None)]}, []
        while growing:
            size = min(growing)
            for rows, known in growing.pop(size):
                again, columns, needed = self._sampled(rows, size, known, strict)
                grow = needed <= largest
                rejected.append(rows[again[~grow]])
                for larger in np.unique(needed[grow]):
                    part = again[needed == larger]
                    smaller = [each[part] for each in columns], size
                    growing.setdefault(int(larger), []).append((rows[part], smaller))
        return np.sort(np.concatenate(rejected))

    def _sampled(self, rows, size, known, strict):
        """Results by a sample of ``size``.

        Returns
        -------
        again : ndarray of int
            Which of ``rows`` are not good enough.
        columns : list of ndarray
            Moments, for each component.
        needed : ndarray
            Size of the sample that may be, for each of ``again``; infinite if none is.
        """
        levels = [Level(0, size)] * len(self.of.prepared)
        terms, columns = self._terms(rows, levels, known)
        hopeless = np.zeros(len(rows), dtype=bool)
        if strict:
            # a copy of the query, should there be one that the sample has not, is felt
            peak = max(p.log_factor + m.log_scale for p, m in self._members())
            with np.errstate(over="ignore"):
                hopeless = np.log1p(np.exp(peak - terms.total())) > self.of.tol
        if self.of.surplus >= self.of.tol:
            hopeless[:] = True
        errors = self._sampled_errors(rows, terms, size, strict, hopeless)
        over = self._keep(rows, terms.total(), errors + self.of.surplus, SAMPLING)
        again = np.flatnonzero(np.isin(rows, over))
        growth = np.maximum((errors[again] / self.of.tol) ** 2 * ROOM, LEAST)
        # of an unresolved sum the error does not say how much is needed
        growth = np.where(terms.resolved[again], growth, MORE)
        growth = np.where(hopeless[again], np.inf, growth)
        return again, columns, _rounded_up(size * growth)

    def _sampled_errors(self, rows, terms, size, strict, hopeless):
        """Stated errors; infinite for sums that are not resolved and may be yet."""
        errors = self._stated(terms)
        last = size * MORE > LARGEST_SAMPLE * self._n_population()
        lost = np.flatnonzero(~terms.resolved)
        known = np.flatnonzero(~terms.resolved & (hopeless | last))
        errors[lost] = np.inf
        if strict:
            errors[hopeless] = np.inf
        elif len(known):
            part = terms.take(known)
            errors[known] = self._unresolved_errors(rows[known], part, size)
        return errors

    def _unresolved_errors(self, rows, terms, size):
        most, least = self._unresolved(rows, size)
        total, seen = terms.total(), min(size / self._n_population(), 1.0)
        terms.unseen[:] = most
        # points that the sample has are there, if they stand for no others
        with np.errstate(invalid="ignore"):
            sure = np.maximum(1.0 - 2.0 * np.exp(terms.deviation - total), seen)
            below = total - np.logaddexp(least, total + np.log(sure))
        return np.fmax(self._stated(terms), below)

    def _by_all(self, todo):
        if len(todo):
            log_sums = self.of.density.log_sums(self.X, self.engine, self.rows[todo])
            self.used[todo, 2] += self.of.density.n_points
            self._keep(todo, log_sums, self._rounding(log_sums), EXACT)

    def _stated(self, terms, missed=0.0):
        return stated_error(terms, missed) + self._rounding(terms.total())

    def _rounding(self, log_sums):
        dtype = self.of.density.dtype
        if self.X is not None:
            dtype = np.result_type(dtype, self.X.dtype)
        return rounding_error(log_sums, self.of.density.n_points, dtype)

    def _members(self):
        return zip(self.of.prepared, self.of.density.components, strict=True)

    def _n_population(self):
        return sum(len(p.split.population) for p in self.of.prepared)

    def _queries(self, prepared, component, todo):
        """Queries in the component's whitening; the distinct point that each does not see."""
        X, leave_out = self.of.density.queries(self.X, component, self.rows[todo])
        own, copies = np.full(len(todo), -1), np.zeros(len(todo))
        if leave_out is not None:
            own, copies = prepared.own(leave_out)
        points = prepared.split.points
        queries = points.rows_as_queries(own) if X is None else points.as_queries(X)
        return queries, own, copies

    def _options(self, component, queries):
        kernel, h, _, tol = component.terms(self.of.density, queries)
        return kernel, h, tol

    def _terms(self, todo, levels, known=None):
        """Parts of the sums at ``todo``, with one level for each component; moments of each.

        ``known``: the moments of each over smaller samples, and their size.
        """
        total, moments = None, []
        for i, (prepared, component) in enumerate(self._members()):
            level, split = levels[i], prepared.split
            queries, own, copies = self._queries(prepared, component, todo)
            kernel, h, tol = self._options(component, queries)
            ids = np.empty((len(todo), 0), dtype=int)
            if level.n_neighbors:
                search = queries, own, level.n_neighbors, level.effort, self.engine
                ids = prepared.search.search(*search)
            sums, last = (kernel, h, queries), (level.n_sampled, tol, self.engine)
            smaller = known and (known[0][i], known[1])
            columns = split.moments(*sums, split.hidden(own, ids), *last, smaller)
            terms = split.terms(*sums, own, copies, ids, columns, *last)
            terms = terms.shifted(prepared.log_factor + component.log_scale)
            total = terms if total is None else total.plus(terms)
            moments.append(columns)
            self.used[todo, 2] += self._n_evaluations(split, level, known)
        return total, moments

    def _n_evaluations(self, split, level, known):
        counted = known[1] if known and split.sampler.nested else 0
        sampled = min(level.n_sampled, split.sampler.size)
        new = sampled - min(counted, split.sampler.size)
        return level.n_neighbors + new + len(split.reserve)

    def _unresolved(self, todo, size):
        total = np.full((2, len(todo)), -np.inf)
        for prepared, component in self._members():
            queries, own, _ = self._queries(prepared, component, todo)
            kernel, h, _ = self._options(component, queries)
            options = queries, own, size, self.engine
            bounds = prepared.split.unresolved(kernel, h, *options)
            bounds = bounds + prepared.log_factor + component.log_scale
            total = np.logaddexp(total, bounds)
        return total


def _rounded_up(sizes):
    """To powers of the fourth root of two, so that queries share samples."""
    steps = np.ceil(4.0 * np.log2(sizes / N_SAMPLED))
    return np.ceil(N_SAMPLED * 2.0 ** (steps / 4.0))
