"""A kernel sum split into near points, summed one by one, and a sample of the far ones.

A sum over the points of one whitening has three terms, all in logs:

- *near*: the nearest points, computed one by one, and a few points, the ``reserve``,
  that no index holds (see ``calibration.py``);
- *far*: an estimate of the others from a random sample, with its standard deviation;
- *missed*: a bound on points beyond the last neighbour that are so rare that a sample has
  none of them. Near a query the number of points within ``r`` is a power of ``r``, or
  grows more slowly, so that the power law of the outer neighbours bounds their number.

The variance of the sample alone would state too small an error where it matters: in the
extreme and the stable regime a sample rarely has the points that decide the sum.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skhdkde._approximation.subsample import (
    Sample,
    SampleMoments,
    Sampler,
    SampleSums,
    positions,
)
from skhdkde._diagnosis import N_NEIGHBORS, local_laws
from skhdkde._pairwise import (
    NEIGHBOR_TOL,
    ComputeOptions,
    KernelReduction,
    KSmallest,
    LogSumExp,
    ReductionSpec,
    TrainingPoints,
    log_sums,
    reduce_pairs,
    relative_values,
)
from skhdkde._utils.arrays import (
    beside,
    finite_or_zero,
    namespace,
    row_batches,
    widened,
)
from skhdkde._utils.moments import without_each
from skhdkde._utils.threads import n_threads_for, run_tasks
from skhdkde._utils.typing import FloatArray, IntArray, Rows

TINY = np.finfo(float).tiny
# Error in nats of sums that hardly matter.
ROUGH = 0.1
# Size of the first sample.
N_SAMPLED = 2048
# Expected number of sampled points from which on a sample sees a range of distances.
SEEN = 3.0
# Expected numbers of points within which there is none, and one, in 95 of 100 cases.
NONE, ONE = 0.05, 3.0
# Ranks beyond, as a factor, to which variances are predicted where they are not resolved.
PREDICTED = 8.0
N_NODES = 32
# Error in nats by distances in float32 at which neighbours are not to be relied on.
BLURRED = 0.1
# Elements of neighbours' coordinates that are worked on at once, to stay in the cache.
CACHED = 2**17
# Rounding of a sum of squares of differences, and of an exponent and the log of a sum, in
# units of eps.
ROUNDING_OF_SQ, ROUNDING_OF_LOG = 4.0, 16.0
# A sample resolves the sum where its squares add up to so many times the largest (see
# SampleMoments): with a tail index of 2 they add up to 7 or so.
RESOLVED = 5.0


@dataclass(frozen=True)
class SumTerms:
    """Logs of the terms of the kernel sums at some queries, of shape (n_queries,)."""

    near: FloatArray  # the sum of the near points
    far: FloatArray  # an estimate of the sum of the far ones
    deviation: FloatArray  # its standard deviation
    missed: FloatArray  # a bound on what both miss
    resolved: np.ndarray  # whether the sample resolves the far sum: trust its deviation
    all_seen: np.ndarray  # whether no point can be nearer than those that were looked at

    def total(self) -> FloatArray:
        """Return the log of the estimated sum."""
        return np.logaddexp(self.near, self.far)

    def stated_error(self, n_points: int, dtype: np.dtype) -> FloatArray:
        """Return the error, in nats, that about 95 % of the totals are within.

        It is of two standard deviations and the bound on what is missed, in squares, and
        of rounding. Where nothing that was looked at is in reach, and points were left
        out, nothing is known: it is infinite.
        """
        total = self.total()
        with np.errstate(invalid="ignore", over="ignore"):
            deviation = 2.0 * np.exp(self.deviation - total)
            error = np.log1p(np.hypot(deviation, np.exp(self.missed - total)))
        certain = np.isneginf(self.missed) & np.isneginf(self.deviation)
        error = np.where(certain, 0.0, error) + rounding_error(total, n_points, dtype)
        return np.where(np.isneginf(total) & ~self.all_seen, np.inf, error)

    def put(self, rows: Rows, others: SumTerms) -> None:
        """Replace the terms at some of the queries."""
        for name, values in vars(self).items():
            values[rows] = getattr(others, name)

    def subset(self, rows: Rows) -> SumTerms:
        """Return the terms at some of the queries."""
        return SumTerms(*(values[rows] for values in vars(self).values()))

    def plus(self, other: SumTerms) -> SumTerms:
        """Return the terms of the sums over both sets of points."""
        return SumTerms(
            np.logaddexp(self.near, other.near),
            np.logaddexp(self.far, other.far),
            0.5 * np.logaddexp(2.0 * self.deviation, 2.0 * other.deviation),
            np.logaddexp(self.missed, other.missed),
            self.resolved & other.resolved,
            self.all_seen & other.all_seen,
        )


@dataclass(frozen=True)
class GlancePoints:
    """The reserve, followed by a sample, as one set of points."""

    points: TrainingPoints
    reserve: IntArray  # which of the training points they are, ascending
    sampled: IntArray
    # (n_points, 2), weights in the sum over the reserve, and in the mean over the sample
    weights: FloatArray

    @classmethod
    def of(cls, points, reserve: IntArray, sample: Sample) -> GlancePoints:
        """Return the points of a reserve and of a sample."""
        rows, weights = np.concatenate([reserve, sample.rows]), None
        shares = sample.points.weight_block(slice(0, len(sample.rows)), np.float64)
        columns = np.zeros((len(rows), 2))
        columns[: len(reserve), 0] = 1.0
        if points.weights is not None:
            weights = np.concatenate([points.weights[reserve], shares])
            columns[: len(reserve), 0] = points.weights[reserve]
        columns[len(reserve) :, 1] = shares / max(shares.sum(), TINY)
        return cls(points.subset(rows, weights), reserve, sample.rows, columns)

    def positions(self, ids: IntArray, own: IntArray) -> IntArray:
        """Return where neighbours and queries themselves are among these; -1 if not."""
        everyone = np.column_stack([ids, own])
        sampled = positions(self.sampled, everyone)
        sampled = np.where(sampled >= 0, sampled + len(self.reserve), -1)
        return np.column_stack([positions(self.reserve, own), sampled])


class GlanceSums(KernelReduction):
    """Log sums over the reserve and log means over the sample of :class:`GlancePoints`.

    The result has the lowest energy of a point of the sample, then the two logs. The
    state is the lowest energy, the sums, and the lowest energy in the sample.
    """

    width = 3

    def __init__(self, spec: ReductionSpec, made: GlancePoints):
        rough = dataclasses.replace(spec, points=made.points, tolerance=ROUGH)
        super().__init__(rough)
        self.weights, self.n_reserved = made.weights, len(made.reserve)

    def start(self, n_rows):
        return np.full(n_rows, np.inf), np.zeros((n_rows, 2)), np.full(n_rows, np.inf)

    def update(self, state, tile):
        xp, first = namespace(tile.sq), max(self.n_reserved - tile.cols.start, 0)
        in_sample = state[2]
        if first < tile.sq.shape[1]:
            nearest = widened(xp.amin(tile.sq[:, first:], 1))
            in_sample = xp.minimum(in_sample, self.kernel.energy(nearest))
        lowest, reference = self._lowest(state[0], tile)
        shifted = self.kernel.shift(self.kernel.energy(tile.sq), reference)
        values = self.kernel.values(shifted, self.bandwidths[0], shifted, reference)
        weights = self.weights[tile.cols].astype(str(values.dtype).split(".")[-1])
        sums = widened(values @ beside(weights, values))
        return lowest, sums + state[1] * self._factors(lowest, state[0]), in_sample

    def merge(self, state, other):
        lowest, sums = super().merge(state[:2], other[:2])
        return lowest, sums, namespace(lowest).minimum(state[2], other[2])

    def finish(self, state):
        lowest, sums, in_sample = state
        return np.column_stack([in_sample, self._log_sums(lowest, sums)])


class _Made(NamedTuple):
    """What a :class:`NearFarSum` makes of its points."""

    mass: float  # weight of the population
    mass_without: FloatArray  # (n_points,), the same without each point
    reserve_points: TrainingPoints
    first_sample: Sample
    glance_points: GlancePoints


class NearFarSum:
    """Kernel sums over the points of one whitening, which are distinct.

    Points of the ``reserve``, given by index, are always summed one by one. Samples are
    drawn from the others, the ``population``; those of a ``seed`` are always the same.
    """

    def __init__(self, points: TrainingPoints, reserve: IntArray, seed: int):
        self.points, self.seed = points, seed
        self.reserve = np.sort(reserve)
        self.population = np.setdiff1d(np.arange(points.shape[0]), self.reserve)
        self.sampler = Sampler(points, self.population, seed)
        self._made = self._make()

    def _make(self):
        """Return what follows from the rest, which a pickle is without."""
        weights = self.weights_of(self.population)
        without = np.full(self.points.shape[0], weights.sum())
        without[self.population] = without_each(weights)
        sample = self.sampler.draw(0, N_SAMPLED)
        glance = GlancePoints.of(self.points, self.reserve, sample)
        reserve = self.points.subset(self.reserve)
        return _Made(float(weights.sum()), without, reserve, sample, glance)

    def __getstate__(self):
        return {**self.__dict__, "_made": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._made = self._make()

    @property
    def mass(self) -> float:
        """Weight of the population."""
        return self._made.mass

    @property
    def glance_points(self) -> GlancePoints:
        """The reserve and the first sample, as one set of points."""
        return self._made.glance_points

    @property
    def n_first(self) -> int:
        """Size of the first sample."""
        return len(self._made.first_sample.rows)

    @property
    def reserve_points(self) -> TrainingPoints:
        """The points of the reserve."""
        return self._made.reserve_points

    def weights_of(self, ids: IntArray) -> FloatArray:
        """Return the weights of the points ``ids``; 0 for -1, which is no point."""
        weights = 1.0 if self.points.weights is None else self.points.weights[ids]
        return np.where(ids >= 0, weights, 0.0)

    def mass_without(self, own: IntArray) -> FloatArray:
        """Return the weight of the population without the points ``own``."""
        return np.where(own >= 0, self._made.mass_without[own], self.mass)

    def sample(self, start: int, stop: int) -> Sample:
        """Return the points from place ``start`` to ``stop`` of a random order."""
        first = start == 0 and stop == N_SAMPLED
        return self._made.first_sample if first else self.sampler.draw(start, stop)

    def batch(
        self, spec, queries, own, duplicates, ids, options, log_factor=0.0, kind=None
    ):
        """Return the sums at a batch of queries; see :class:`SumBatch`."""
        spec = dataclasses.replace(spec, points=self.points)
        given = spec, queries, own, duplicates, ids, options, log_factor, kind
        return SumBatch(self, *given)


@dataclass(frozen=True)
class SumBatch:
    """Kernel sums at a batch of queries, for one kernel and bandwidth."""

    near_far: NearFarSum
    spec: ReductionSpec  # of the points of near_far
    queries: Any  # (n_queries, n_features), as reduce_pairs takes them
    own: IntArray  # (n_queries,), the point that each does not see; -1 for none
    duplicates: FloatArray  # (n_queries,), weight of those at its place that it does see
    ids: IntArray  # (n_queries, n_neighbors), points summed one by one; -1 for none
    options: ComputeOptions
    log_factor: float  # log of what multiplies the sums
    # of the search that found ``ids``: "exact" if they are the nearest points, None if
    # they are only some near ones
    kind: str | None

    def terms(self, moments: SampleMoments | None = None) -> SumTerms:
        """Return the terms of the sums, by a sample's moments; None for the first one."""
        if moments is None:
            moments = self.moments(N_SAMPLED)
        far, deviation, resolved = self.far(moments)
        near = np.logaddexp(self.listed(), self._of_reserve())
        missed = self.missed_bound(moments.lowest, moments.n_sampled, resolved)
        return self._terms(near, far, deviation, missed, resolved, moments.n_sampled)

    def _terms(self, near, far, deviation, missed, resolved, n_sampled):
        logs = (log + self.log_factor for log in (near, far, deviation, missed))
        near, far, deviation, missed = logs
        all_seen = self._all_seen(n_sampled)
        return SumTerms(near, far, deviation, missed, resolved, all_seen)

    def glance(self, negligible: float) -> tuple[SumTerms, np.ndarray]:
        """Return the terms with a plain estimate of the far sum, and where that will do.

        It does where far points, as the first sample has them, and those of the reserve
        each add less than ``negligible`` to the log sum: then an error of all that they
        add, which is stated, does not matter, nor rounding.
        """
        made, n_sampled = self.near_far.glance_points, self.near_far.n_first
        lowest, reserve, far = self._reduced(
            GlanceSums(self.spec, made), made.points, made.positions(self.ids, self.own)
        ).T
        near, resolved = self.listed(), np.zeros(len(far), dtype=bool)
        with np.errstate(divide="ignore"):
            far = far + np.log(self._far_mass)
        missed = self.missed_bound(lowest, n_sampled, resolved)
        enough = np.maximum(far, reserve) <= near + np.log(negligible)
        enough &= ~np.isneginf(near)
        far = np.logaddexp(far, reserve)
        return self._terms(near, far, far, missed, resolved, n_sampled), enough

    def moments(self, n_sampled: int, known: SampleMoments | None = None):
        """Return the moments over a sample; ``known`` are those over a smaller one."""
        known = known if self.near_far.sampler.nested else None
        sample = self.near_far.sample(known.n_sampled if known else 0, n_sampled)
        if known and not len(sample.rows):
            return dataclasses.replace(known, n_sampled=n_sampled, n_new=0)
        reduction = SampleSums(self.spec, sample)
        leave_out = positions(sample.rows, self._hidden)
        columns = self._reduced(reduction, sample.points, leave_out)
        if known:
            columns = reduction.combine(known.columns(), columns)
        sizes = reduction.n_variables, n_sampled, len(sample.rows)
        return SampleMoments.from_columns(columns, *sizes)

    def n_evaluations(self, moments: SampleMoments) -> int:
        """Return the kernel evaluations for each query, with those for the moments."""
        return self.ids.shape[1] + moments.n_new + len(self.near_far.reserve)

    @property
    def n_evaluations_at_a_glance(self) -> int:
        """Kernel evaluations for each query, without moments of a sample."""
        return self.ids.shape[1] + self.near_far.n_first + len(self.near_far.reserve)

    @property
    def _bandwidth(self) -> float:
        return float(self.spec.bandwidth_scaled)

    def _reduced(self, reduction, points, leave_out):
        return reduce_pairs(
            reduction, self.queries, points, self.options, leave_out=leave_out
        )

    def _log_sums(self, sq, weights):
        """Return log sums over squared distances, which are overwritten."""
        return log_sums(self.spec.kernel, self._bandwidth, sq, weights)

    @functools.cached_property
    def _hidden(self):
        """Points that a sample must not count, the query's own last; -1 for none."""
        own = self.own
        if (own >= 0).any():
            own = np.where(np.isin(own, self.near_far.reserve), -1, own)
        return np.column_stack([self.ids, own])

    @functools.cached_property
    def _neighbors(self):
        """Squared distances and weights of the points ``ids``, nearest first."""
        sq = self._neighbors_sq()
        order = np.argsort(sq, axis=1, kind="stable")
        sq, ids = (np.take_along_axis(values, order, 1) for values in (sq, self.ids))
        return sq, self.near_far.weights_of(ids)

    def _neighbors_sq(self):
        """Return the squared distances to the points ``ids``; infinite for -1."""
        points, sq = self.near_far.points, np.full(self.ids.shape, np.inf)
        reduction = LogSumExp(self.spec)

        def work(rows, check):
            check(0)
            ids = self.ids[rows]
            exact, dtype = self.queries[rows], self.queries.dtype
            found = _squared_differences(exact, points.exact[ids], dtype, reduction)
            sq[rows] = points.scaled_sq(found, ids)

        if sq.size:
            width = self.ids.shape[1] * points.shape[1]
            batches, n_threads = row_batches(len(sq), width, CACHED), 1
            if len(batches) > 1:
                n_threads = n_threads_for(self.options.n_jobs)
            run_tasks(work, batches, n_threads, lambda amount: None)
        sq[self.ids < 0] = np.inf
        return sq

    def listed(self) -> FloatArray:
        """Return log sums over neighbours and duplicates, one by one."""
        sq, weights = self._neighbors
        listed = self._log_sums(sq.copy(), weights)
        if not self.duplicates.any():
            return listed
        at_own = self._log_sums(np.zeros((len(sq), 1)), self.duplicates[:, None])
        return np.logaddexp(listed, at_own)

    def _of_reserve(self):
        """Return log sums over the reserve, one by one."""
        reserve = self.near_far.reserve_points
        if not len(self.near_far.reserve):
            return np.full(len(self.own), -np.inf)
        reduction = LogSumExp(dataclasses.replace(self.spec, points=reserve))
        leave_out = positions(self.near_far.reserve, self.own)
        return self._reduced(reduction, reserve, leave_out)[:, 0]

    @functools.cached_property
    def _far_mass(self):
        """Weight of the far points."""
        visible = self.near_far.mass_without(self._hidden[:, -1])
        mass = visible - self._neighbors[1].sum(axis=1)
        return np.where(mass > 1e-12 * visible, mass, 0.0)  # of 0 there may be rounding

    def _control_means(self):
        """Return the means of the controls over the far points.

        Over the population they are 0: neighbours and the query's own have the opposite.
        """
        near_far, (sq, weights) = self.near_far, self._neighbors
        own_weight = near_far.weights_of(self._hidden[:, -1])
        weights = np.column_stack([weights, own_weight])
        sq = np.where(weights > 0.0, np.pad(sq, ((0, 0), (0, 1))), 0.0)
        sums = []
        for rows in row_batches(len(sq), near_far.points.shape[1]):
            block = near_far.points.query_block(self.queries[rows], np.dtype(np.float64))
            controls = near_far.sampler.distances.controls(sq[rows], block)
            sums.append(np.stack([(weights[rows] * c).sum(axis=1) for c in controls], 1))
        mass = np.where(self._far_mass > 0.0, self._far_mass, np.inf)
        return -np.vstack(sums) / mass[:, None]

    def far(self, moments: SampleMoments) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """Return logs of the far sum and of its deviation, and whether it is resolved."""
        mass, h = self._far_mass, np.array([self._bandwidth])
        factor = self.near_far.sampler.finite_population_factor(moments.n_sampled)
        total, variance, square_ratio = moments.regression_estimate(
            mass, self._control_means(), factor
        )
        peak = self.spec.kernel.log_peak(finite_or_zero(moments.lowest), h)[:, 0]
        with np.errstate(divide="ignore"):
            far, deviation = np.log(total) + peak, 0.5 * np.log(variance) + peak
        everything = moments.n_sampled >= len(self.near_far.population)
        resolved = (square_ratio >= RESOLVED) | everything | (mass <= 0.0)
        return far, deviation, resolved

    def _all_seen(self, n_sampled):
        """Return whether no far point can be nearer than those that were looked at."""
        everything = n_sampled >= len(self.near_far.population)
        nearest_known = self.kind == "exact" and self.ids.shape[1] > 0
        return (self._n_far == 0) | everything | nearest_known

    @functools.cached_property
    def _n_far(self):
        """Number of the far points."""
        n_population = len(self.near_far.population)
        return n_population - np.count_nonzero(self._hidden >= 0, axis=1)

    def missed_bound(
        self, lowest: FloatArray, n_sampled: int, resolved: np.ndarray
    ) -> FloatArray:
        """Return the log of a bound on far points of which the sample has none.

        ``lowest`` are the energies of the nearest points of the sample.
        Where it has some but does not resolve them, twice the standard deviation that
        the power law predicts is added. Where the search has failed it is infinite.
        """
        kernel, h = self.spec.kernel, self._bandwidth
        sq, n_population = self._neighbors[0], len(self.near_far.population)
        missed = np.full(len(sq), -np.inf)
        each = n_population / n_sampled  # points that a sampled one stands for
        n_found = np.isfinite(sq).sum(axis=1)
        n_far = self._n_far
        bounded = (n_found > 0) & (n_far > 0) & (each > 1.0) & (self.kind is not None)
        for k in sorted(set(n_found[bounded].tolist())):
            rows = np.flatnonzero(bounded & (n_found == k))
            most = min(k + n_far[rows].max(), PREDICTED * max(SEEN * each, k))
            nodes, counts, ranks = _beyond(sq[rows, :k], float(most))
            values, peak = relative_values(kernel, h, nodes)
            none = ranks <= SEEN * each
            total = values @ (counts * none)
            square = each * (values**2 @ (counts * ~none)) * ~resolved[rows]
            weight = self._far_mass[rows] / n_far[rows]
            with np.errstate(divide="ignore"):
                bound = np.log(weight * np.hypot(total, 2.0 * np.sqrt(square)))
            missed[rows] = bound + peak
        return np.where(self._search_failed(lowest), np.inf, missed)

    def _search_failed(self, lowest):
        """Return where the search has failed for sure, or may have by rounding."""
        kernel, sq = self.spec.kernel, self._neighbors[0]
        if not len(self.near_far.reserve) or sq.shape[1] == 0:
            return np.zeros(len(sq), dtype=bool)
        nearest = sq[:, 0]
        # a point of the sample is nearer, or float32, as in indexes, does not tell apart
        failed = lowest < kernel.energy(nearest.copy()) * (1.0 - 1e-6)
        delta = ROUNDING_OF_SQ * np.finfo(np.float32).eps * nearest
        h = np.array([self._bandwidth])
        return failed | kernel.suspect_rows(nearest, delta, h, BLURRED)

    def nearer_bounds(self, n_sampled: int) -> FloatArray:
        """Return bounds on the sum of points nearer than a sample's, from its local law.

        They are logs of the most and of the least, of shape (2, n_queries).
        """
        near_far, sample = self.near_far, self.near_far.sample(0, n_sampled)
        n, rank = len(sample.rows), min(N_NEIGHBORS, len(sample.rows) // 2)
        reduction = KSmallest(rank + 1, NEIGHBOR_TOL, self.spec.pair_dtype)
        nearest = self._reduced(
            reduction, sample.points, positions(sample.rows, self.own)
        )
        each = len(near_far.population) / n  # points that a sampled one stands for
        ranks = np.geomspace(NONE, max(each, ONE), 4 * N_NODES)
        mean_weight = near_far.mass / len(near_far.population)
        weights = ranks * np.log(ranks[1] / ranks[0]) * mean_weight
        bounds = np.empty((2, len(self.own)))
        for rows, law in local_laws(nearest, n, rank):
            # the law is from few points, and the farther it is extended the less sure
            log_ratio = np.log(each * law.rank / ranks)
            unsure = 1.0 + 2.0 / np.sqrt(law.rank)
            for i, used, exponent in (
                (0, weights, -unsure),
                (1, weights * (ranks >= ONE), -1.0 / unsure),
            ):
                sq = law.squared_distance(law.rank * np.exp(exponent * log_ratio))
                bounds[i, rows] = self._log_sums(sq, np.broadcast_to(used, sq.shape))
        return bounds + self.log_factor


def rounding_error(log_sums: FloatArray, n_points: int, dtype: np.dtype) -> FloatArray:
    """Return the error of logs of sums over so many points, by exponents in ``dtype``."""
    size = 1.0 + np.log(n_points) + np.abs(log_sums)
    rounding = ROUNDING_OF_LOG * np.finfo(dtype).eps * size
    return np.where(np.isinf(log_sums), 0.0, rounding)


def _beyond(sq, largest_rank):
    """Return distances beyond the last neighbour, by the power law of the outer half.

    ``sq`` are squared distances of neighbours, ascending. The results are squared
    distances of shape (n_queries, n_nodes), how many points each of these stands for, and
    their ranks, both of shape (n_nodes,).
    """
    k = sq.shape[1]
    beyond = _ranks_beyond(k, largest_rank)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.log(sq[:, -1:] / sq[:, beyond.inner - 1])
    gaps = np.clip(np.where(np.isnan(gaps), 0.0, gaps), 0.0, 50.0)
    exponent = np.full(len(sq), np.inf)
    if len(beyond.inner):
        with np.errstate(divide="ignore"):
            exponent = beyond.log_ranks / gaps.sum(axis=1)
    with np.errstate(over="ignore"):
        growth = np.exp(beyond.middle / exponent[:, None])
    return sq[:, -1:] * growth, beyond.counts, beyond.ranks


class _Ranks(NamedTuple):
    """Ranks in the outer half of ``k`` neighbours, and nodes beyond the last of them."""

    inner: IntArray  # ranks
    log_ranks: float  # sum of log(k / rank), high by more than its standard error
    middle: FloatArray  # (n_nodes,), logs of ranks relative to k
    counts: FloatArray  # (n_nodes,), how many points each stands for
    ranks: FloatArray  # (n_nodes,)


@functools.lru_cache(maxsize=256)
def _ranks_beyond(k, largest_rank):
    """Return the ranks for ``k`` neighbours and nodes up to the largest rank."""
    inner = np.arange((k + 1) // 2, k)
    high = 1.0 + 1.5 / np.sqrt(max(len(inner), 1))
    log_ratios = np.linspace(0.0, np.log(max(largest_rank / k, 1.0)), N_NODES + 1)
    middle = 0.5 * (log_ratios[1:] + log_ratios[:-1])
    counts, ranks = np.diff(k * np.exp(log_ratios)), k * np.exp(middle)
    return _Ranks(inner, high * np.log(k / inner).sum(), middle, counts, ranks)


def _squared_differences(exact, others, dtype, reduction):
    """Return ``|x_i - y_ij|^2`` by differences, in ``dtype`` where it is sharp enough."""
    rows: Rows = slice(None)
    sq = np.empty(others.shape[:2])
    narrow = dtype == np.float32 and others.dtype == np.float32
    if narrow and np.abs(exact).max() < 1e15:
        step = others - exact[:, None].astype(np.float32)
        sq[:] = np.einsum("ijk,ijk->ij", step, step)
        delta = ROUNDING_OF_SQ * np.finfo(np.float32).eps * sq.max(axis=1)
        rows = np.flatnonzero(reduction.suspect_rows(sq.min(axis=1), delta))
    step = others[rows] - exact[rows, None]
    sq[rows] = np.einsum("ijk,ijk->ij", step, step)
    return sq
