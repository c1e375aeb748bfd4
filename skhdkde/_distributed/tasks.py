"""What is computed on one block of training points, and how results merge.

A :class:`Task` is made where the estimator is, and sent to where the blocks are. Results
are small: of blocks of any size, they are a few numbers for each query or each pair of
features. Within a block, too, points are taken batch by batch, which bounds the memory
for what is made of them.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._density import FarRows, Ranges, TypicalRows, check_unit_rows
from skhdkde._pairwise import ComputeOptions, TrainingPoints, reduce_pairs
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.hashing import find_hashes, row_hashes
from skhdkde._utils.moments import Moments, Scatter, without_each
from skhdkde._utils.random import lowest, sampling_ranks
from skhdkde._utils.validation import check_points, finite_weights

# Elements of a batch.
BATCH_SIZE = 2**22


class Task(abc.ABC):
    """The role of a task; a new one is a subclass."""

    @abc.abstractmethod
    def of(self, X, weights, *more):
        """Return the result for a block; None if there are no points in it.

        ``weights`` are relative ones, or None; ``more`` is what the task needs to
        know of each block.
        """

    @abc.abstractmethod
    def merge(self, result, other):
        """Return the result for two blocks."""

    def over_batches(self, X, weights, dtype, of_batch):
        """Return merged results of ``of_batch`` for the batches of a block."""
        found = batches(X, weights, dtype)
        return merged(self.merge, (of_batch(x, own) for x, own, _ in found))


def batches(X, weights, dtype):
    """Yield points of positive weight in ``dtype``, their weights, and rows of X."""
    for rows in row_batches(len(X), X.shape[1], BATCH_SIZE):
        batch, index = np.asarray(X[rows], dtype=dtype), np.arange(rows.start, rows.stop)
        own = None
        if weights is not None:
            own = np.asarray(weights[rows], dtype=np.float64)
            if not own.all():
                positive = np.flatnonzero(own)
                batch, own, index = batch[positive], own[positive], index[positive]
        if len(batch):
            yield batch, own, index


def merged(merge, results):
    """Return the results that are not None merged one after another, or None."""
    results = [result for result in results if result is not None]
    return functools.reduce(merge, results) if results else None


def merged_each(merge, results, others):
    """Return two lists of results merged one by one."""
    return [merged(merge, pair) for pair in zip(results, others, strict=True)]


@dataclass(frozen=True)
class PointsLayout:
    """How rows of X become training points, in the same way in all blocks."""

    dtype: np.dtype  # of the points as they are given
    # from whitened units to scaled units; without a whitening from data units
    scale: float
    # (n_features,), what is subtracted, in scaled units, if there is no whitening
    center: np.ndarray | None = None
    whitening: Any = None
    shrinkage: float = 1.0  # factor of whitened coordinates
    # of whitened coordinates; None for that of the points
    whitened_dtype: np.dtype | None = None

    def points(self, X, weights):
        """Return rows of X with their relative weights as training points."""
        if self.whitening is not None:
            X = self._coordinates(X, self.whitening)
            if self.shrinkage != 1.0:
                X = (self.shrinkage * X).astype(X.dtype, copy=False)
        return TrainingPoints(
            X, weights, whitening=self.whitening, scale=self.scale, center=self.center
        )

    def _coordinates(self, X, whitening):
        """Return whitened coordinates of rows of X."""
        dtype = self.whitened_dtype or self.dtype
        return whitening.apply(X).astype(dtype, copy=False)


@dataclass(frozen=True)
class ProjectedLayout(PointsLayout):
    """How rows of X become centres of kernels that are projected to the unit sphere.

    ``whitening``, that of queries, is a ``ProjectedWhitening``: its radius is that of all
    blocks together.
    """

    coordinates: Any = None  # whitening of the points, about the mean of all
    # at which tiles are turned into energies; None to leave them as distances
    kernel: Any = None
    bandwidth: float = np.nan

    def points(self, X, weights):
        Z = self._coordinates(X, self.coordinates)
        return self.whitening.points(
            Z, weights, self.shrinkage, self.kernel, self.bandwidth, scale=self.scale
        )


@dataclass(frozen=True)
class FoldSplit:
    """Folds of the distinct points, by row hashes; without ``folds`` there are none."""

    folds: tuple = ()  # row hashes of the points in each

    def outside(self, X, weights):
        """Yield the points outside of each fold; all of them if there are no folds."""
        if not self.folds:
            yield X, weights
            return
        hashes = row_hashes(X)
        for fold in self.folds:
            outside = np.ones(len(X), dtype=bool)
            outside[find_hashes(hashes, fold)[0]] = False
            yield X[outside], None if weights is None else weights[outside]


@dataclass(frozen=True)
class PairsTask(Task):
    """A reduction over pairs of queries and training points.

    ``of`` may take queries, and, if they are rows of the block, the first of them and
    the one after the last: then each leaves out itself. The result is a list, over
    folds, with a row for each query.
    """

    # one for each fold of ``split``; the reductions are of one kind
    layouts: list
    reductions: list
    options: ComputeOptions  # with the backend as asked for: each worker has its own
    # in data units, for each fold; None if they come with each block
    queries: list | None = None
    split: FoldSplit = FoldSplit()  # folds, of which each sees the points outside of it
    # (n_queries,), row hashes: each query leaves out the points that have its own
    left_out: np.ndarray | None = None

    def of(self, X, weights, queries=None, start=None, stop=None):
        queries = self.queries if queries is None else [queries]
        own = None if start is None else np.arange(start, stop)
        task = dataclasses.replace(self, options=self.options.resolved(X.shape[1]))
        layout, found = self.layouts[0], []
        for batch, weight, index in batches(X, weights, layout.dtype):
            outside = self.split.outside(batch, weight)
            folds = zip(outside, self.layouts, self.reductions, queries, strict=True)
            found.append([task._of_batch(*fold, index, own) for fold in folds])
        return merged(self.merge, found)

    def _of_batch(self, points, layout, reduction, queries, index, own):
        """Return the result of one fold for a batch of points."""
        X, weights = points
        if not len(X) or not len(queries):
            return None if len(queries) else np.empty((0, reduction.width))
        leave_out = None
        if self.left_out is not None:
            X, weights, leave_out = merge_wanted(X, weights, self.left_out)
        elif own is not None:
            place = np.minimum(np.searchsorted(index, own), len(index) - 1)
            leave_out = np.where(index[place] == own, place, -1)
        points = layout.points(X, weights)
        queries = points.as_queries(queries)
        return reduce_pairs(reduction, queries, points, self.options, leave_out=leave_out)

    def merge(self, result, other):
        return merged_each(self.reductions[0].combine, result, other)


def merge_wanted(X, weights, wanted):
    """Merge the duplicates of wanted points.

    Parameters
    ----------
    wanted : ndarray of uint64 of shape (n_wanted,)
        Row hashes.

    Returns
    -------
    X, weights : ndarray
        Points and relative weights, with the duplicates of each wanted point made one.
    leave_out : ndarray of int of shape (n_wanted,)
        Which point each wanted one is; -1 for those that are not there.
    """
    rows, place = find_hashes(row_hashes(X), wanted)
    place, first, group = np.unique(place, return_index=True, return_inverse=True)
    if len(place) < len(rows):
        weights = np.ones(len(X)) if weights is None else weights.copy()
        weights[rows[first]] = np.bincount(group, weights=weights[rows])
        remaining = np.ones(len(X), dtype=bool)
        remaining[rows] = False
        remaining[rows[first]] = True
        X, weights = X[remaining], weights[remaining]
        rows = (np.cumsum(remaining) - 1)[rows]
    leave_out = np.full(len(wanted), -1)
    leave_out[place] = rows[first]
    return X, weights, leave_out


@dataclass(frozen=True)
class Counts:
    """Result of :class:`CountTask`."""

    # (n_blocks, 2), rows of each block and, of these, those of positive weight
    sizes: np.ndarray
    heaviest: float = 0.0  # largest weight
    lightest: float = np.inf  # smallest positive weight


class CountTask(Task):
    """Numbers of rows and the range of weights, as yet those of the user, checked."""

    def of(self, X, weights):
        n_rows = len(X)
        if weights is None:
            return Counts(np.array([[n_rows, n_rows]]))
        weights = finite_weights(weights, n_rows)
        positive = weights[weights > 0.0]
        sizes = np.array([[n_rows, len(positive)]])
        if not len(positive):
            return Counts(sizes)
        return Counts(sizes, float(positive.max()), float(positive.min()))

    def merge(self, result, other):
        return Counts(
            np.vstack([result.sizes, other.sizes]),
            max(result.heaviest, other.heaviest),
            min(result.lightest, other.lightest),
        )


def check_block(X, shape):
    """Raise ValueError if a block is not of the shape announced, or not of numbers."""
    if X.shape != shape:
        raise ValueError(
            f"X has a block of shape {X.shape} where one of shape {shape} was announced."
        )
    if len(X):
        check_points(X)


@dataclass(frozen=True)
class UnitRowsTask(Task):
    """The ranges of features of rows of unit norm; raise if a row is not.

    ``of`` also takes the number of rows in earlier blocks, and of rows that the block
    should have.
    """

    n_features: int
    dtype: np.dtype  # of the points

    def of(self, X, weights, before, n_rows):
        check_block(X, (n_rows, self.n_features))
        check_unit_rows(X, before)
        return self.over_batches(X, weights, self.dtype, lambda x, own: Ranges.of(x))

    def merge(self, result, other):
        return result.merge(other)


@dataclass(frozen=True)
class Summary:
    """Result of :class:`SummaryTask`."""

    totals: np.ndarray  # (n_blocks,), weight of each block
    backends: set  # in use
    moments: Moments | None = None
    unweighted: Moments | None = None
    # sampling ranks, indices and row hashes of the points of lowest rank
    candidates: tuple | None = None


@dataclass(frozen=True)
class SummaryTask(Task):
    """First look at a block: checks, weight, moments, and a sample of its points.

    ``of`` also takes the number of points in earlier blocks, and of rows that the block
    should have.
    """

    n_features: int
    dtype: np.dtype  # of the points
    options: ComputeOptions  # with the backend as asked for
    # for the sample
    seed: int
    n_candidates: int

    def of(self, X, weights, before, n_rows):
        check_block(X, (n_rows, self.n_features))
        backends = {self.options.resolved(self.n_features).backend}
        if not len(X):
            return Summary(np.zeros(1), backends)
        all_moments, unweighted, samples = [], [], []
        for batch, own, _ in batches(X, weights, self.dtype):
            all_moments.append(Moments.of(batch, own))
            unweighted.append(all_moments[-1] if own is None else Moments.of(batch))
            samples.append(self._candidates(batch, before))
            before += len(batch)
        moments, total = merged(Moments.merge, all_moments), 0.0
        if moments is not None:
            total = moments.total * moments.heaviest
        plain = merged(Moments.merge, unweighted)
        candidates = merged(self._lowest_ranked, samples)
        return Summary(np.array([total]), backends, moments, plain, candidates)

    def _candidates(self, X, before):
        """Return rank, index and hash of the points of lowest rank in a batch."""
        index = np.arange(before, before + len(X))
        ranks = sampling_ranks(index, self.seed)
        rows = lowest(ranks, self.n_candidates)
        return ranks[rows], index[rows], row_hashes(X[rows])

    def _lowest_ranked(self, candidates, others):
        """Return the candidates of lowest rank of two samples."""
        both = [np.concatenate(pair) for pair in zip(candidates, others, strict=True)]
        rows = lowest(both[0], self.n_candidates)
        return tuple(column[rows] for column in both)

    def merge(self, result, other):
        return Summary(
            np.concatenate([result.totals, other.totals]),
            result.backends | other.backends,
            merged(Moments.merge, [result.moments, other.moments]),
            merged(Moments.merge, [result.unweighted, other.unweighted]),
            merged(self._lowest_ranked, [result.candidates, other.candidates]),
        )


@dataclass(frozen=True)
class Gathered:
    """Result of :class:`GatherTask`."""

    index: np.ndarray  # (n_wanted,), of the first duplicate
    # (n_wanted,), relative weight of all duplicates, and of all other points
    weights: np.ndarray
    others: np.ndarray
    place: np.ndarray  # (n_rows,), to which hashes the rows belong; ascending
    rows: np.ndarray  # (n_rows, n_features)
    largest_norm: float  # in scaled units


@dataclass(frozen=True)
class GatherTask(Task):
    """What is known of some points and their duplicates, and the rows of some of them.

    ``of`` also takes the number of points in earlier blocks.
    """

    layout: PointsLayout  # of whose points the largest norm is sought
    hashes: np.ndarray  # (n_wanted,), all different
    n_rows: int  # of how many of them, from the first on, rows are wanted

    def of(self, X, weights, before):
        found, layout = [], self.layout
        for batch, own, _ in batches(X, weights, layout.dtype):
            found.append(self._of_batch(batch, own, before))
            before += len(batch)
        return merged(self.merge, found)

    def _of_batch(self, X, weights, before):
        """Return the result for a batch of points."""
        largest_norm = self.layout.points(X, weights).largest_norm
        hashes = row_hashes(X)
        rows, place = find_hashes(hashes, self.hashes)
        weights = np.ones(len(X)) if weights is None else weights
        others = np.full(len(self.hashes), weights.sum())
        others[place] = without_each(weights)[rows]
        index = np.full(len(self.hashes), np.iinfo(np.int64).max)
        own = np.bincount(place, weights=weights[rows], minlength=len(index))
        place, first, counts = np.unique(place, return_index=True, return_counts=True)
        index[place] = before + rows[first]
        for p in place[counts > 1]:
            others[p] = weights[hashes != self.hashes[p]].sum()
        wanted = place < self.n_rows
        place, found = place[wanted], X[rows[first][wanted]]
        return Gathered(index, own, others, place, found, largest_norm)

    def merge(self, result, other):
        place = np.concatenate([result.place, other.place])
        rows = np.concatenate([result.rows, other.rows])
        place, first = np.unique(place, return_index=True)
        return Gathered(
            np.minimum(result.index, other.index),
            result.weights + other.weights,
            result.others + other.others,
            place,
            rows[first],
            max(result.largest_norm, other.largest_norm),
        )


@dataclass(frozen=True)
class SampleTask(Task):
    """Points drawn in proportion to their weights, in whitened units.

    ``of`` also takes where the draws are, in the running sum of the weights of the
    block, and which draws they are. The result is which, and the points.
    """

    layout: PointsLayout

    def of(self, X, weights, marks, which):
        found, before, marks = [], 0.0, np.maximum(marks, 0.0)
        layout = self.layout
        in_batches = list(batches(X, weights, layout.dtype))
        for k, (batch, own, _) in enumerate(in_batches):
            ends = before + np.cumsum(np.ones(len(batch)) if own is None else own)
            inside = (marks >= before) & (marks < ends[-1])
            inside |= (k == len(in_batches) - 1) & (marks >= ends[-1])  # by rounding
            rows = np.searchsorted(ends, marks[inside], side="right")
            rows = np.minimum(rows, len(batch) - 1)
            if len(rows):
                points = layout.points(batch[rows], None if own is None else own[rows])
                found.append((which[inside], points.in_data_units(slice(None))))
            before = ends[-1]
        return merged(self.merge, found)

    def merge(self, result, other):
        return tuple(np.concatenate(pair) for pair in zip(result, other, strict=True))


@dataclass(frozen=True)
class ExtentTask(Task):
    """Moments in whitened units, for the points outside of each fold.

    The result is a list, over folds, of Moments and the largest ``|z|``.
    """

    split: FoldSplit
    whitenings: list  # for each fold; None for data units
    dtype: np.dtype

    def of(self, X, weights):
        return self.over_batches(X, weights, self.dtype, self._of_batch)

    def _of_batch(self, X, weights):
        """Return the result for a batch of points."""
        result: list[Any] = []
        outside = self.split.outside(X, weights)
        for (x, own), whitening in zip(outside, self.whitenings, strict=True):
            z = x
            if whitening is not None:
                z = whitening.apply(x).astype(self.dtype, copy=False)
            if not len(z):
                result.append(None)
                continue
            sq = np.einsum("ij,ij->i", z, z, dtype=np.float64)
            result.append((Moments.of(z, own), float(np.sqrt(sq.max()))))
        return result

    def merge(self, result, other):
        return merged_each(self._merge_fold, result, other)

    @staticmethod
    def _merge_fold(result, other):
        """Return the extent of both sets of points."""
        return result[0].merge(other[0]), max(result[1], other[1])


@dataclass(frozen=True)
class FarRowsTask(Task):
    """The rows that are far from the others.

    ``of`` also takes the number of rows in earlier blocks.
    """

    typical: TypicalRows
    dtype: np.dtype  # of the points

    def of(self, X, weights, before):
        found = [
            FarRows.of(batch, own, before + index, self.typical)
            for batch, own, index in batches(X, weights, self.dtype)
        ]
        return merged(self.merge, found)

    def merge(self, result, other):
        return result.merge(other)


@dataclass(frozen=True)
class RowNumbersTask(Task):
    """Which rows of X some points are.

    ``of`` also takes the numbers of points of positive weight, and of rows, in earlier
    blocks. The result has a row for each point: which it is, and its row of X.
    """

    index: np.ndarray  # (n_wanted,), of each among the points of positive weight

    def of(self, X, weights, before, rows_before):
        positive = np.arange(len(X)) if weights is None else np.flatnonzero(weights)
        inside = (self.index >= before) & (self.index < before + len(positive))
        which = np.flatnonzero(inside)
        rows = rows_before + positive[self.index[which] - before]
        return np.column_stack([which, rows])

    def merge(self, result, other):
        return np.concatenate([result, other])


@dataclass(frozen=True)
class ScatterTask(Task):
    """Second moments in whitened units about the origin, for the points outside of folds.

    The result is a list, over folds, of :class:`Scatter`. Attributes are as those of
    :class:`ExtentTask`.
    """

    split: FoldSplit
    whitenings: list
    dtype: np.dtype

    def of(self, X, weights):
        return self.over_batches(X, weights, self.dtype, self._of_batch)

    def _of_batch(self, X, weights):
        """Return the result for a batch of points."""
        outside = zip(self.split.outside(X, weights), self.whitenings, strict=True)
        return [
            Scatter.of(whitening.apply(x), own) if len(x) else None
            for (x, own), whitening in outside
        ]

    def merge(self, result, other):
        return merged_each(Scatter.merge, result, other)
