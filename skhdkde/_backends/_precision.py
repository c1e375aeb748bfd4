"""How wrong a tile of squared distances can be, and mending what matters.

``|x|^2 + |y|^2 - 2 x.y`` cancels when ``|x - y|`` is small against ``|x|``. The error
of a tile is bounded, the reduction says in which rows that error would be felt,
and of those rows only the pairs that carry weight are computed again:

1. few such pairs: from the differences of the coordinates, as given, in float64;
2. many, in a float32 tile: the whole row by a float64 product, then again from 1;
3. many, in float64: the whole row from differences.
"""

import numpy as np
from scipy.spatial.distance import cdist

from skhdkde._points import row_blocks

__all__ = ["always_sharp", "error_bound", "mend"]

# A pair from differences costs about 80 times its share of a float64 product, and 6
# times its share of a full row of differences.
FEW_IN_FLOAT32 = 0.01
FEW_IN_FLOAT64 = 0.15


def error_bound(query_sq, nearest, reach, largest_norm, n_features, dtype, bias):
    """Bound on the error of a row's squared distances, where they matter.

    Rounding errors of an inner product accumulate like a random walk along its
    terms (Higham and Mary, 2019, A new approach to probabilistic rounding error
    analysis), which matters if the terms have one sign, as for ``y`` near ``x``, and is
    cut short where the BLAS starts a new block. The constants are 1.4 times the
    largest errors seen over random, positive, clustered and sparse vectors from 1
    to 10,000 features; the tests check them.

    Parameters
    ----------
    query_sq : ndarray of shape (n_rows,)
        ``|x|^2``.
    nearest, reach : ndarray of shape (n_rows,)
        Squared distances of the nearest point, and beyond which none matters.
    largest_norm : float
        Largest ``|y|``. A ``y`` that matters is also within reach of ``x``.
    bias : float
        Factor by which the walk is longer than a random one; see
        :func:`~skhdkde._points.rounding_bias`.

    Returns
    -------
    delta : ndarray of shape (n_rows,)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.minimum(np.sqrt(query_sq) + np.sqrt(reach), largest_norm)
        size = query_sq + norm**2
        twice_inner = np.clip(size - nearest, 0.0, size)
        walk = np.sqrt(min(n_features, 768))
        unit = 0.5 * np.finfo(dtype).eps
        return unit * (4.5 * size + 0.8 * bias * walk * twice_inner)


def always_sharp(queries, points, reduction):
    """Whether no tile of these queries can need mending, by the worst bound."""
    zero = np.zeros(len(queries.sq_norms))
    dtype = queries.augmented.dtype
    anywhere = np.full_like(zero, np.inf)
    delta = error_bound(
        queries.sq_norms,
        zero,
        anywhere,
        points.largest_norm,
        points.shape[1],
        dtype,
        queries.bias,
    )
    delta = points.stretched_error(delta, np.finfo(dtype).eps)
    return not reduction.suspect_rows(zero, delta).any()


def mend(tile, reduction, earlier):
    """Recompute, in place, the squared distances of ``tile`` that are not sharp enough.

    Parameters
    ----------
    tile : Tile
        Its ``sq`` and ``nearest`` are changed.
    reduction : object
        Says which rows and pairs matter.
    earlier : ndarray of shape (n_rows,)
        Smallest squared distance in the tiles before this one, mended as needed. That of
        this tile is never trusted before it is mended: it may be small by error alone.
    """
    dtype = tile.queries.augmented.dtype
    rows = np.arange(len(earlier))
    done = False
    while len(rows) and not done:
        nearest = np.minimum(earlier[rows], tile.nearest[rows])
        delta = _bound(tile, reduction, nearest, rows, dtype)
        flagged = reduction.suspect_rows(nearest, delta)
        rows, delta, nearest = rows[flagged], delta[flagged], nearest[flagged]
        if not len(rows):
            return
        sq = tile.rows(rows)
        pairs = reduction.suspect_pairs(sq, nearest, delta)
        few = FEW_IN_FLOAT32 if dtype == np.float32 else FEW_IN_FLOAT64
        done = True
        if np.count_nonzero(pairs) <= few * pairs.size:
            _pairs_by_differences(tile, rows, pairs, sq)
        elif dtype == np.float32:
            dtype, done = np.dtype(np.float64), False
            _rows_by_product(tile, rows, sq)
        else:
            _rows_by_differences(tile, rows, sq)
        tile.put_rows(rows, sq)


def _bound(tile, reduction, nearest, rows, dtype):
    reach = reduction.reach(nearest)
    if tile.points.stretch is not None:  # these are not distances: the worst
        nearest, reach = np.zeros_like(nearest), np.full_like(nearest, np.inf)
    delta = error_bound(
        tile.queries.sq_norms[rows],
        nearest,
        reach,
        tile.points.largest_norm,
        tile.points.shape[1],
        dtype,
        tile.queries.bias,
    )
    return tile.points.stretched_error(delta, np.finfo(dtype).eps)


def _pairs_by_differences(tile, rows, pairs, sq):
    i, j = np.nonzero(pairs)
    exact = tile.points.exact
    for part in row_blocks(len(i), exact.shape[1]):
        x = tile.queries.exact[rows[i[part]]] - exact[tile.cols.start + j[part]]
        exact_sq = np.square(x, out=x).sum(axis=1)
        cols = tile.cols.start + j[part]
        sq[i[part], j[part]] = tile.points.stretched(exact_sq, cols)


def _rows_by_product(tile, rows, sq):
    queries = tile.points.query_block(tile.queries.exact[rows], np.dtype(np.float64))
    for part in row_blocks(sq.shape[1], queries.shape[1]):
        block = tile.points.block(_shifted(part, tile.cols.start), np.dtype(np.float64))
        sq[:, part] = queries @ block.T


def _rows_by_differences(tile, rows, sq):
    queries = tile.queries.exact[rows]
    for part in row_blocks(sq.shape[1], queries.shape[1]):
        cols = _shifted(part, tile.cols.start)
        exact_sq = cdist(queries, tile.points.exact[cols], "sqeuclidean")
        sq[:, part] = tile.points.stretched(exact_sq, cols)


def _shifted(part, start):
    return slice(part.start + start, part.stop + start)
