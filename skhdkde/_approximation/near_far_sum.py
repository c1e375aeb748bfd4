"""A kernel sum split into near points, summed one by one, and a sample of the rest.

For the points of one whitening. A sum is known from three sides, all in logs:

- what is *sure*: terms of the nearest points, computed one by one, and of a few points,
  the ``reserve``, that no index holds (see ``_calibration.py``);
- the *rest*, from a random sample of the other points, with its standard deviation;
- what is *unseen*: terms beyond the last neighbour and yet so rare that a sample has
  none of them. How many there are follows from how the distances of the neighbours grow:
  near a query the number of points within ``r`` is a power of ``r``, or grows more
  slowly, so that the power law of the outer neighbours gives an upper bound.

With the variance of the sample alone an error would be stated too small where it
matters: in the extreme and the stable regime a sample rarely meets the terms that decide.
"""

from dataclasses import dataclass

import numpy as np

from skhdkde._approximation.subsample import Sampler, SampleSums, sampled_sum
from skhdkde._diagnosis.local_law import N_NEIGHBORS, local_laws
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.reductions import NEIGHBOR_TOL, KSmallest, LogSumExp, pair_dtype
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.threads import n_threads_for, run_tasks

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
# Rounding of float32 in a sum of squares of differences, in units of its eps.
ROUNDING = 4.0
# A sample resolves the sum where its squares add up to so many times the largest (see
# sampled_sum): with a tail index of 2 they add up to 7 or so.
RESOLVED = 5.0


@dataclass
class Terms:
    """Parts of the kernel sums at some queries, natural logs, each of shape (n_queries,).

    Attributes
    ----------
    sure, rest, deviation, unseen : ndarray
        Terms computed one by one; estimate of the others, its standard deviation, and a
        bound on what neither has.
    resolved : ndarray of bool
        Whether the sample resolves the rest: its deviation can be trusted.
    """

    sure: np.ndarray
    rest: np.ndarray
    deviation: np.ndarray
    unseen: np.ndarray
    resolved: np.ndarray

    def total(self):
        return np.logaddexp(self.sure, self.rest)

    def shifted(self, log_factor):
        logs = (self.sure, self.rest, self.deviation, self.unseen)
        return Terms(*(part + log_factor for part in logs), self.resolved)

    def take(self, rows):
        parts = self.sure, self.rest, self.deviation, self.unseen, self.resolved
        return Terms(*(part[rows] for part in parts))

    def plus(self, other):
        """Of both sums."""
        mine = 2.0 * self.deviation, 2.0 * other.deviation
        return Terms(
            np.logaddexp(self.sure, other.sure),
            np.logaddexp(self.rest, other.rest),
            0.5 * np.logaddexp(*mine),
            np.logaddexp(self.unseen, other.unseen),
            self.resolved & other.resolved,
        )


class NearFarSum:
    """Kernel sums over the points of one whitening.

    Parameters
    ----------
    points : TrainingPoints
        Distinct.
    reserve : ndarray of int
        Of the points: those that are always summed one by one.
    seed : int
        For the samples.
    """

    def __init__(self, points, reserve, seed):
        self.points, self.seed = points, seed
        self.reserve = np.sort(reserve)
        self.population = np.setdiff1d(np.arange(points.shape[0]), self.reserve)
        self.weights = points.weights
        weights = self._weights_of(self.population)
        self.mass = weights.sum()
        self._mass_without = None
        if self.weights is not None:
            # without subtracting large numbers
            self._mass_without = np.full(points.shape[0], self.mass)
            after = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
            before = np.append(0.0, np.cumsum(weights[:-1]))
            self._mass_without[self.population] = before + after
        self.sampler = Sampler(points, self.population, seed)
        self._reserve_points = points.take(self.reserve)
        self._first = self.sampler.draw(0, N_SAMPLED)

    def _weights_of(self, ids):
        """Weights of the points ``ids``; 0 for -1, which is no point."""
        weights = 1.0 if self.weights is None else self.weights[ids]
        return np.where(ids >= 0, weights, 0.0)

    def sample(self, start, stop):
        """WhitenedPoints of a sample of the population, the same in every call."""
        first = start == 0 and stop == N_SAMPLED
        return self._first if first else self.sampler.draw(start, stop)

    def moments(self, kernel, h, queries, gone, until, tol, engine, known=None):
        """Sums over a sample of size ``until``.

        Parameters
        ----------
        gone : ndarray of int of shape (n_queries, n_gone)
            Points that do not count; -1 for none.
        until : int
        known : tuple or None
            Sums over a smaller sample, and its size.

        Returns
        -------
        columns : ndarray of shape (n_queries, n_columns)
            See :class:`~skhdkde._sample.SampleSums`.
        """
        start = known[1] if known and self.sampler.nested else 0
        sample = self.sample(start, until)
        if start and not len(sample):
            return known[0]
        reduction = SampleSums(kernel, h, sample, tol)
        columns = reduce_pairs(
            reduction,
            queries,
            sample.points,
            leave_out=sample.positions(gone),
            dtype=pair_dtype(kernel, self.points),
            **engine,
        )
        return reduction.both(known[0], columns) if start else columns

    def near_distances(self, queries, ids, kernel, h, tol, n_jobs):
        """Squared distances to the points ``ids``, in their shape; infinite for -1."""
        sq = np.full(ids.shape, np.inf)
        reduction = LogSumExp(kernel, h, self.points, tol)

        def work(rows, check):
            check(0)
            exact, own = queries[rows], self.points.exact[ids[rows]]
            found = _squared_differences(exact, own, queries.dtype, reduction)
            sq[rows] = self.points.scaled_sq(found, ids[rows])

        if ids.size:
            width = ids.shape[1] * self.points.shape[1]
            blocks = row_batches(len(ids), width, CACHED)
            run_tasks(work, blocks, n_threads_for(n_jobs), lambda amount: None)
        sq[ids < 0] = np.inf
        return sq

    def hidden(self, own, ids):
        """Points of the population that a sample must not count, one by one for each."""
        reserved = np.isin(own, self.reserve)
        return np.column_stack([ids, np.where(reserved, -1, own)])

    def terms(self, kernel, h, queries, own, copies, ids, columns, size, tol, engine):
        """The parts of the sum.

        Parameters
        ----------
        kernel : object
        h : float
            In scaled units.
        queries : array-like of shape (n_queries, n_features)
            As :func:`~skhdkde._backends.reduce_pairs` takes them.
        own : ndarray of int of shape (n_queries,)
            The point that each query does not see; -1 for none.
        copies : ndarray of shape (n_queries,)
            Weight of those at the place of ``own`` that it does see.
        ids : ndarray of int of shape (n_queries, n_neighbors)
            Points whose terms are to be computed one by one; -1 for none.
        columns, size
            Sums of :meth:`moments` over the others, and how many were sampled.
        tol : float

        Returns
        -------
        Terms
        """
        sq = self.near_distances(queries, ids, kernel, h, tol, engine["n_jobs"])
        order = np.argsort(sq, axis=1, kind="stable")
        sq, ids = np.take_along_axis(sq, order, 1), np.take_along_axis(ids, order, 1)
        weights = self._weights_of(ids)
        sure = self._sure(kernel, h, queries, own, copies, sq, weights, tol, engine)
        gone = self.hidden(own, ids)
        mass, offsets = self._rest_of(queries, sq, weights, gone[:, -1])
        share = self.sampler.share_of_variance(size)
        total, variance, resolved = sampled_sum(columns, mass, offsets, share)
        lowest = np.where(np.isinf(columns[:, 0]), 0.0, columns[:, 0])
        peak = kernel.log_peak(lowest, np.array([h]))[:, 0]
        with np.errstate(divide="ignore"):
            rest, deviation = np.log(total) + peak, 0.5 * np.log(variance) + peak
        left = len(self.population) - np.count_nonzero(gone >= 0, axis=1)
        seen = (resolved >= RESOLVED) | (size >= len(self.population)) | (mass <= 0.0)
        unseen = self._unseen(kernel, h, sq, mass / np.maximum(left, 1), left, size, seen)
        unseen[self._lost(kernel, h, sq, columns[:, 0])] = np.inf
        return Terms(sure, rest, deviation, unseen, seen)

    def _lost(self, kernel, h, sq, lowest):
        """Queries for which the search has failed for sure, or may have by rounding.

        A point of the sample is nearer than all that were found; or distances in
        float32, which indexes have, do not tell points apart.
        """
        if not len(self.reserve) or sq.shape[1] == 0:
            return np.zeros(len(sq), dtype=bool)
        nearest = sq[:, 0]
        lost = lowest < kernel.energy(nearest.copy()) * (1.0 - 1e-6)
        delta = ROUNDING * np.finfo(np.float32).eps * nearest
        return lost | kernel.suspect_rows(nearest, delta, np.array([h]), BLURRED)

    def _sure(self, kernel, h, queries, own, copies, sq, weights, tol, engine):
        sure = log_sums(kernel, h, sq, weights)
        at_zero = np.zeros((len(sq), 1))
        sure = np.logaddexp(sure, log_sums(kernel, h, at_zero, copies[:, None]))
        if not len(self.reserve):
            return sure
        place = np.searchsorted(self.reserve, own)
        place = np.minimum(place, len(self.reserve) - 1)
        others = reduce_pairs(
            LogSumExp(kernel, h, self._reserve_points, tol),
            queries,
            self._reserve_points,
            leave_out=np.where(self.reserve[place] == own, place, -1),
            dtype=pair_dtype(kernel, self.points),
            **engine,
        )
        return np.logaddexp(sure, others[:, 0])

    def _rest_of(self, queries, sq, weights, own):
        """Weight of the rest, and means of its standardised squared distances."""
        own_weight = self._weights_of(own)
        if self._mass_without is not None:
            visible = np.where(own >= 0, self._mass_without[own], self.mass)
        else:
            visible = self.mass - own_weight
        # rounding may leave a little of nothing
        mass = visible - weights.sum(axis=1)
        mass = np.where(mass > 1e-12 * visible, mass, 0.0)
        weights, sq = np.column_stack([weights, own_weight]), np.pad(sq, ((0, 0), (0, 1)))
        sq = np.where(weights > 0.0, sq, 0.0)
        moved = []
        for rows in row_batches(len(queries), self.points.shape[1]):
            block = self.points.query_block(queries[rows], np.dtype(np.float64))
            each = self.sampler.moments.standardized(sq[rows], block)
            moved.append(
                np.column_stack([(weights[rows] * part).sum(axis=1) for part in each])
            )
        # the means over all points are 0
        rest = np.where(mass > 0.0, mass, np.inf)
        return mass, -np.vstack(moved) / rest[:, None]

    def _unseen(self, kernel, h, sq, weight, left, n_sampled, resolved):
        """Log of a bound on terms beyond the neighbours that a sample has none of.

        Where it has some but does not resolve them, twice the standard deviation that
        the power law predicts is added.
        """
        found = np.isfinite(sq).sum(axis=1)
        unseen = np.full(len(sq), -np.inf)
        if n_sampled >= len(self.population):
            return unseen
        each = len(self.population) / n_sampled
        for k in np.unique(found[(found > 0) & (left > 0)]):
            rows = np.flatnonzero((found == k) & (left > 0))
            most = min(k + left[rows].max(), PREDICTED * max(SEEN * each, k))
            nodes, counts, ranks = _beyond(sq[rows, :k], most)
            values, peak = _relative_values(kernel, h, nodes)
            none = ranks <= SEEN * each
            total = values @ (counts * none)
            square = each * (values**2 @ (counts * ~none)) * ~resolved[rows]
            with np.errstate(divide="ignore"):
                bound = np.log(weight[rows] * np.hypot(total, 2.0 * np.sqrt(square)))
            unseen[rows] = bound + peak
        return unseen

    def unresolved(self, kernel, h, queries, own, size, engine):
        """Bounds on what the sample does not have, from the law of its nearest points.

        Returns
        -------
        bounds : ndarray of shape (2, n_queries)
            Logs of the most and the least that the points may add that are expected to
            be nearer than the nearest of the sample.
        """
        sample = self.sample(0, size)
        n, rank = len(sample), min(N_NEIGHBORS, len(sample) // 2)
        nearest = reduce_pairs(
            KSmallest(rank + 1, NEIGHBOR_TOL),
            queries,
            sample.points,
            leave_out=sample.positions(own),
            dtype=pair_dtype(kernel, self.points),
            **engine,
        )
        each = len(self.population) / n  # points that a sampled one stands for
        ranks = np.geomspace(NONE, max(each, ONE), 4 * N_NODES)
        weights = ranks * np.log(ranks[1] / ranks[0]) * self.mass / len(self.population)
        bounds = np.empty((2, len(queries)))
        for rows, law in local_laws(nearest, n, rank):
            # the law is from few points, and the farther it is extended the less sure
            folds, unsure = np.log(each * law.rank / ranks), 2.0 / np.sqrt(law.rank)
            for bound, used, side in (
                (bounds[0], weights, 1.0 + unsure),
                (bounds[1], weights * (ranks >= ONE), 1.0 / (1.0 + unsure)),
            ):
                sq = law.squared_distance(law.rank * np.exp(-folds * side))
                bound[rows] = log_sums(kernel, h, sq, np.broadcast_to(used, sq.shape))
        return bounds


def log_sums(kernel, h, sq, weights):
    """``log sum_j w_j k(r_j / h)`` over squared distances, ascending in each row."""
    if sq.shape[1] == 0:
        return np.full(len(sq), -np.inf)
    values, peak = _relative_values(kernel, h, sq)
    with np.errstate(divide="ignore"):
        return np.log(np.einsum("ij,ij->i", values, weights)) + peak


def _relative_values(kernel, h, sq):
    """Values of a kernel relative to that of the first column, and its log."""
    energy = kernel.energy(sq.copy())
    lowest = np.where(np.isinf(energy[:, 0]), 0.0, energy[:, 0])
    shifted = kernel.shift(energy, lowest)
    with np.errstate(over="ignore"):
        values = kernel.values(shifted, h, shifted, lowest)
    values[np.isinf(sq)] = 0.0
    return values, kernel.log_peak(lowest, np.array([h]))[:, 0]


def _beyond(sq, until):
    """Distances beyond the last neighbour, by the power law of the outer half.

    Parameters
    ----------
    sq : ndarray of shape (n_queries, k)
        Squared distances, ascending.
    until : float
        Largest rank.

    Returns
    -------
    nodes : ndarray of shape (n_queries, n_nodes)
        Squared distances.
    counts, ranks : ndarray of shape (n_nodes,)
        How many points each stands for, and their rank.
    """
    k = sq.shape[1]
    inner = np.arange((k + 1) // 2, k)  # ranks
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.log(sq[:, -1:] / sq[:, inner - 1])
    gaps = np.clip(np.nan_to_num(gaps, nan=0.0), 0.0, 50.0)
    exponent = np.full(len(sq), np.inf)
    if len(inner):
        # high by more than its standard error
        high = 1.0 + 1.5 / np.sqrt(len(inner))
        with np.errstate(divide="ignore"):
            exponent = high * np.log(k / inner).sum() / gaps.sum(axis=1)
    folds = np.linspace(0.0, np.log(max(until / k, 1.0)), N_NODES + 1)
    middle, counts = 0.5 * (folds[1:] + folds[:-1]), np.diff(k * np.exp(folds))
    with np.errstate(over="ignore"):
        growth = np.exp(middle / exponent[:, None])
    return sq[:, -1:] * growth, counts, k * np.exp(middle)


def _squared_differences(exact, others, dtype, reduction):
    """``|x_i - y_ij|^2`` by differences, in ``dtype`` where that is sharp enough."""
    narrow = dtype == np.float32 and others.dtype == np.float32
    if not (narrow and np.abs(exact).max() < 1e15):
        step = others - exact[:, None]
        return np.einsum("ijk,ijk->ij", step, step)
    step = others - exact[:, None].astype(np.float32)
    sq = np.einsum("ijk,ijk->ij", step, step).astype(np.float64)
    nearest = sq.min(axis=1)
    delta = ROUNDING * np.finfo(np.float32).eps * sq.max(axis=1)
    rows = np.flatnonzero(reduction.suspect_rows(nearest, delta))
    if len(rows):
        step = others[rows] - exact[rows, None]
        sq[rows] = np.einsum("ijk,ijk->ij", step, step)
    return sq
