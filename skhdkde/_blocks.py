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

import numpy as np

from skhdkde._backends import reduce_pairs, resolve_backend
from skhdkde._digests import matches, row_digests
from skhdkde._points import TrainingPoints, row_blocks

__all__ = ["Layout", "Pairs", "Split", "each", "merged", "pieces"]

# Elements of a piece.
PIECE_SIZE = 2**22


def pieces(X, weights, dtype):
    """Points of positive weight in ``dtype``, their weights, and their rows in X."""
    for rows in row_blocks(*X.shape, PIECE_SIZE):
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
        See :class:`~skhdkde._points.TrainingPoints`, as for ``center`` and ``frame``.
    heaviest : float
        Largest weight.
    center, frame : ndarray, Frame
        One of the two.
    pull : float
        Factor of the coordinates in the frame.

    ``coordinates`` is the dtype in the frame, that of the points unless it is changed.
    """

    def __init__(self, dtype, scale, heaviest=1.0, *, center=None, frame=None, pull=1.0):
        self.dtype, self.scale, self.heaviest = np.dtype(dtype), scale, heaviest
        self.center, self.frame, self.pull = center, frame, pull
        self.coordinates = self.dtype

    def points(self, X, weights):
        """The rows of X as ``TrainingPoints``."""
        if self.frame is not None:
            X = self.frame.apply(X).astype(self.coordinates, copy=False)
            if self.pull != 1.0:
                X = (self.pull * X).astype(self.coordinates, copy=False)
        return TrainingPoints(
            X,
            weights,
            frame=self.frame,
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
        digests = row_digests(X)
        for fold in self.folds:
            keep = np.ones(len(X), dtype=bool)
            keep[matches(digests, fold)[0]] = False
            yield X[keep], None if weights is None else weights[keep]


class Pairs:
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
    rows, place = matches(row_digests(X), wanted)
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
