"""What is computed on one block of training points, and how results merge.

Training points that are too many for one machine come in blocks. A *task* is made where
the estimator is, and sent to where the blocks are. It offers

- ``of(X, weights, *more)``: its result for a block, None if there are no points in it,
- ``merge(result, other)``: that for two blocks.

Results are small: of blocks of any size, they are a few numbers for each query or each
pair of features. Within a block, too, points are taken piece by piece, which bounds the
memory for what is made of them.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._pairwise.backends import reduce_pairs, resolve_backend
from skhdkde._pairwise.points import TrainingPoints
from skhdkde._utils.arrays import row_batches
from skhdkde._utils.hashing import find_hashes, row_hashes
from skhdkde._utils.moments import Moments, Scatter, without_each
from skhdkde._utils.random import lowest, sampling_ranks
from skhdkde._utils.validation import check_points, finite_weights

# Elements of a piece.
PIECE_SIZE = 2**22


def pieces(X, weights, dtype):
    """Points of positive weight in ``dtype``, their weights, and their rows in X."""
    for rows in row_batches(*X.shape, PIECE_SIZE):
        piece, index = np.asarray(X[rows], dtype=dtype), np.arange(rows.start, rows.stop)
        own = None if weights is None else np.asarray(weights[rows], dtype=np.float64)
        if own is not None and not own.all():
            keep = np.flatnonzero(own)
            piece, own, index = piece[keep], own[keep], index[keep]
        if len(piece):
            yield piece, own, index


def merged(merge, results):
    """The results that are not None, merged one after another; None if there are none."""
    results = [result for result in results if result is not None]
    return functools.reduce(merge, results) if results else None


def each(merge, mine, theirs):
    """Lists of results, merged one by one."""
    return [merged(merge, pair) for pair in zip(mine, theirs, strict=True)]


class Layout:
    """How rows of X become training points, in the same way in all blocks.

    Parameters
    ----------
    dtype : dtype
        Of the points as they are given.
    scale : float
        See :class:`~skhdkde._points.TrainingPoints`, as for ``center`` and ``whitening``.
    heaviest : float
        Largest weight.
    center, whitening : ndarray, Whitening
        One of the two.
    pull : float
        Factor of the coordinates in the whitening.

    ``coordinates`` is the dtype in the whitening, that of the points unless it is changed.
    """

    def __init__(self, dtype, scale, heaviest=1.0, *, center=None, whitening=None, pull=1.0):
        self.dtype, self.scale, self.heaviest = np.dtype(dtype), scale, heaviest
        self.center, self.whitening, self.pull = center, whitening, pull
        self.coordinates = self.dtype

    def points(self, X, weights):
        """The rows of X as ``TrainingPoints``."""
        if self.whitening is not None:
            X = self.whitening.apply(X).astype(self.coordinates, copy=False)
            if self.pull != 1.0:
                X = (self.pull * X).astype(self.coordinates, copy=False)
        return TrainingPoints(
            X,
            weights,
            whitening=self.whitening,
            scale=self.scale,
            center=self.center,
            largest_weight=self.heaviest,
        )


class Split:
    """Folds of the distinct points; without ``folds`` there are none.

    Parameters
    ----------
    folds : list of ndarray of uint64
        Digests of the points in each.
    """

    def __init__(self, folds=()):
        self.folds = list(folds)

    def outside(self, X, weights):
        """Rows outside of each fold, and their weights; all of them if there are none."""
        if not self.folds:
            yield X, weights
            return
        hashes = row_hashes(X)
        for fold in self.folds:
            keep = np.ones(len(X), dtype=bool)
            keep[find_hashes(hashes, fold)[0]] = False
            yield X[keep], None if weights is None else weights[keep]


class PairsTask:
    """A reduction over pairs of queries and training points.

    Parameters
    ----------
    layouts, reductions : list
        One for each fold of ``split``; the reductions are of one kind.
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`, with the backend as asked for.
    queries : list of ndarray, default=None
        In data units, for each fold; None if they come with each block.
    split : Split, default=None
        Folds, of which each sees the points outside of it.
    left_out : ndarray of uint64 of shape (n_queries,), default=None
        Digests: each query leaves out the points that have its own.

    ``of`` may take queries, and, if they are rows of the block, the first of them and
    the one after the last: then each leaves out itself. The result is a list, over
    folds, with a row for each query.
    """

    def __init__(
        self, layouts, reductions, engine, queries=None, split=None, left_out=None
    ):
        self.layouts, self.reductions, self.engine = layouts, reductions, engine
        self.queries, self.split, self.left_out = queries, split or Split(), left_out

    def of(self, X, weights, queries=None, start=None, stop=None):
        queries = self.queries if queries is None else [queries]
        own = None if start is None else np.arange(start, stop)
        engine = dict(self.engine)
        engine["backend"] = resolve_backend(engine["backend"], X.shape[1])
        found = []
        for piece, weight, index in pieces(X, weights, self.layouts[0].dtype):
            outside = self.split.outside(piece, weight)
            folds = zip(outside, self.layouts, self.reductions, queries, strict=True)
            found.append([self._of_piece(*fold, index, own, engine) for fold in folds])
        return merged(self.merge, found)

    def _of_piece(self, points, layout, reduction, queries, index, own, engine):
        X, weights = points
        if not len(X) or not len(queries):
            return None if len(queries) else np.empty((0, reduction.width))
        leave_out = None
        if self.left_out is not None:
            X, weights, leave_out = without_copies(X, weights, self.left_out)
        elif own is not None:
            place = np.minimum(np.searchsorted(index, own), len(index) - 1)
            leave_out = np.where(index[place] == own, place, -1)
        points = layout.points(X, weights)
        return reduce_pairs(
            reduction, points.as_queries(queries), points, leave_out=leave_out, **engine
        )

    def merge(self, result, other):
        return each(self.reductions[0].combine, result, other)


def without_copies(X, weights, wanted):
    """Points with copies of the wanted ones made one, and which each wanted one is.

    Returns
    -------
    X, weights : ndarray
    leave_out : ndarray of int of shape (n_wanted,)
        -1 for those that are not there.
    """
    rows, place = find_hashes(row_hashes(X), wanted)
    place, first, group = np.unique(place, return_index=True, return_inverse=True)
    if len(place) < len(rows):
        weights = np.ones(len(X)) if weights is None else weights.copy()
        weights[rows[first]] = np.bincount(group, weights=weights[rows])
        keep = np.ones(len(X), dtype=bool)
        keep[rows] = False
        keep[rows[first]] = True
        X, weights, kept = X[keep], weights[keep], np.cumsum(keep) - 1
        rows = kept[rows]
    leave_out = np.full(len(wanted), -1)
    leave_out[place] = rows[first]
    return X, weights, leave_out


class CountTask:
    """Rows of each block and, of these, those of positive weight: (n_blocks, 2)."""

    def of(self, X, weights):
        n_rows = len(X)
        if weights is None:
            return np.array([[n_rows, n_rows]])
        weights = finite_weights(weights, n_rows)
        return np.array([[n_rows, np.count_nonzero(weights)]])

    def merge(self, result, other):
        return np.vstack([result, other])


class SummaryTask:
    """First look at a block: checks, weight, moments, and a sample of its points.

    Parameters
    ----------
    n_features : int
    dtype : dtype
        Of the points.
    backend : str
        As asked for.
    seed, n_candidates : int
        For the sample.

    ``of`` also takes the number of points in earlier blocks, and of rows that the block
    should have.
    """

    def __init__(self, n_features, dtype, backend, seed, n_candidates):
        self.n_features, self.dtype, self.backend = n_features, dtype, backend
        self.seed, self.n_candidates = seed, n_candidates

    def of(self, X, weights, before, n_rows):
        if X.shape != (n_rows, self.n_features):
            raise ValueError(
                f"X has a block of shape {X.shape} where one of shape "
                f"{(n_rows, self.n_features)} was announced."
            )
        used = {resolve_backend(self.backend, self.n_features)}
        if not len(X):
            return Summary(np.zeros((1, 2)), used)
        check_points(X)
        if weights is not None:
            weights = finite_weights(weights, len(X))
        moments, unweighted, sample = [], [], []
        for piece, own, _ in pieces(X, weights, self.dtype):
            moments.append(Moments(piece, own))
            unweighted.append(moments[-1] if own is None else Moments(piece))
            sample.append(self._candidates(piece, before))
            before += len(piece)
        moments = merged(Moments.merge, moments)
        total = np.zeros((1, 2))
        if moments is not None:
            total[:] = moments.total, moments.heaviest
        unweighted = merged(Moments.merge, unweighted)
        return Summary(total, used, moments, unweighted, merged(self._lowest, sample))

    def _candidates(self, X, before):
        index = np.arange(before, before + len(X))
        rank = sampling_ranks(index, self.seed)
        rows = lowest(rank, self.n_candidates)
        return rank[rows], index[rows], row_hashes(X[rows])

    def _lowest(self, mine, theirs):
        both = tuple(np.concatenate(pair) for pair in zip(mine, theirs, strict=True))
        rows = lowest(both[0], self.n_candidates)
        return tuple(part[rows] for part in both)

    def merge(self, result, other):
        return Summary(
            np.vstack([result.totals, other.totals]),
            result.backends | other.backends,
            merged(Moments.merge, [result.moments, other.moments]),
            merged(Moments.merge, [result.unweighted, other.unweighted]),
            merged(self._lowest, [result.candidates, other.candidates]),
        )


@dataclass
class Summary:
    """Result of :class:`SummaryTask`.

    Attributes
    ----------
    totals : ndarray of shape (n_blocks, 2)
        Weight of each block relative to its heaviest point, and the weight of that.
    backends : set of str
        In use.
    moments, unweighted : Moments or None
    candidates : tuple of ndarray, or None
        Priorities, indices and hashes of the points of lowest priority.
    """

    totals: np.ndarray
    backends: set
    moments: Any = None
    unweighted: Any = None
    candidates: Any = None


class GatherTask:
    """What is known of some points and their copies, and the rows of some of them.

    Parameters
    ----------
    layout : Layout
        Of whose points the largest norm is sought.
    hashes : ndarray of uint64 of shape (n_wanted,)
        All different.
    n_rows : int
        Of how many of them, from the first on, rows are wanted.

    ``of`` also takes the number of points in earlier blocks.
    """

    def __init__(self, layout, hashes, n_rows):
        self.layout, self.hashes, self.n_rows = layout, hashes, n_rows

    def of(self, X, weights, before):
        found = []
        for piece, own, _ in pieces(X, weights, self.layout.dtype):
            found.append(self._of_piece(piece, own, before))
            before += len(piece)
        return merged(self.merge, found)

    def _of_piece(self, X, weights, before):
        largest = self.layout.points(X, weights).largest_norm
        hashes = row_hashes(X)
        rows, place = find_hashes(hashes, self.hashes)
        weights = np.ones(len(X)) if weights is None else weights / self.layout.heaviest
        others = np.full(len(self.hashes), weights.sum())
        others[place] = without_each(weights)[rows]
        index = np.full(len(self.hashes), np.iinfo(np.int64).max)
        own = np.bincount(place, weights=weights[rows], minlength=len(index))
        place, first, counts = np.unique(place, return_index=True, return_counts=True)
        index[place] = before + rows[first]
        for p in place[counts > 1]:
            others[p] = weights[hashes != self.hashes[p]].sum()
        wanted = place < self.n_rows
        place, rows = place[wanted], X[rows[first][wanted]]
        return Gathered(index, own, others, place, rows, largest)

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


@dataclass
class Gathered:
    """Result of :class:`GatherTask`.

    Attributes
    ----------
    index : ndarray of int of shape (n_wanted,)
        Of the first copy.
    weights, others : ndarray of shape (n_wanted,)
        Of all copies, and of all other points, relative to the heaviest point.
    place : ndarray of int of shape (n_rows,)
        To which hashes the rows belong; ascending.
    rows : ndarray of shape (n_rows, n_features)
    largest_norm : float
        In scaled units.
    """

    index: np.ndarray
    weights: np.ndarray
    others: np.ndarray
    place: np.ndarray
    rows: np.ndarray
    largest_norm: float


class SampleTask:
    """Points drawn in proportion to their weights.

    ``of`` also takes where the draws are, in the running sum of the weights of the block
    relative to the heaviest, and which draws they are. The result is which, and the
    points in the coordinates of the layout.
    """

    def __init__(self, layout):
        self.layout = layout

    def of(self, X, weights, marks, which):
        found, before, marks = [], 0.0, np.maximum(marks, 0.0)
        parts = list(pieces(X, weights, self.layout.dtype))
        for k, (piece, own, _) in enumerate(parts):
            share = np.ones(len(piece)) if own is None else own / self.layout.heaviest
            ends = before + np.cumsum(share)
            inside = (marks >= before) & (marks < ends[-1])
            inside |= (k == len(parts) - 1) & (marks >= ends[-1])  # by rounding
            rows = np.searchsorted(ends, marks[inside], side="right")
            rows = np.minimum(rows, len(piece) - 1)
            own = None if own is None else own[rows]
            if len(rows):
                points = self.layout.points(piece[rows], own)
                found.append((which[inside], points.in_data_units(slice(None))))
            before = ends[-1]
        return merged(self.merge, found)

    def merge(self, result, other):
        return tuple(np.concatenate(pair) for pair in zip(result, other, strict=True))


class ExtentTask:
    """Moments in whitenings, for the points outside of each fold.

    The result is a list, over folds, of Moments and the largest ``|z|``.
    """

    def __init__(self, split, whitenings, dtype):
        self.split, self.whitenings, self.dtype = split, whitenings, dtype

    def of(self, X, weights):
        found = pieces(X, weights, self.dtype)
        return merged(self.merge, (self._of_piece(x, own) for x, own, _ in found))

    def _of_piece(self, X, weights):
        result = []
        outside = self.split.outside(X, weights)
        for (x, own), whitening in zip(outside, self.whitenings, strict=True):
            z = x if whitening is None else whitening.apply(x).astype(self.dtype, copy=False)
            if not len(z):
                result.append(None)
                continue
            sq = np.einsum("ij,ij->i", z, z, dtype=np.float64)
            result.append((Moments(z, own), float(np.sqrt(sq.max()))))
        return result

    def merge(self, result, other):
        return each(self._merge_fold, result, other)

    @staticmethod
    def _merge_fold(mine, theirs):
        return mine[0].merge(theirs[0]), max(mine[1], theirs[1])


class ScatterTask:
    """Second moments in whitenings about their origins, for the points outside of each fold.

    The result is a list, over folds, of :class:`Scatter`.
    """

    def __init__(self, split, whitenings, dtype, heaviest):
        self.split, self.whitenings, self.dtype = split, whitenings, dtype
        self.heaviest = heaviest

    def of(self, X, weights):
        found = pieces(X, weights, self.dtype)
        return merged(self.merge, (self._of_piece(x, own) for x, own, _ in found))

    def _of_piece(self, X, weights):
        weights = None if weights is None else weights / self.heaviest
        outside = zip(self.split.outside(X, weights), self.whitenings, strict=True)
        return [
            Scatter(whitening.apply(x), own) if len(x) else None
            for (x, own), whitening in outside
        ]

    def merge(self, result, other):
        return each(Scatter.merge, result, other)
