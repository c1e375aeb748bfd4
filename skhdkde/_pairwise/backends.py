"""The one entry to passes over pairs, and the loop over tiles.

``reduce_pairs`` applies a reduction to all pairs of a query and a training point. The
backends "numpy" and "torch" visit pairs tile by tile, by ``visit_pairs``; they differ in
the device that holds a tile. "keops" evaluates formulas over all pairs. KeOps and torch
are imported when a pass needs them, and not before: KeOps may initialise CUDA, after
which forked children crash.
"""

import contextlib
import dataclasses
import functools
import importlib
import threading
from itertools import pairwise
from typing import Self

import numpy as np
from scipy.spatial.distance import cdist

from skhdkde._pairwise.backend_choice import Plan, resolve_backend
from skhdkde._pairwise.points import (
    LONGEST_WALK,
    SMALL_BLOCK_SIZE,
    QueryBlock,
    TrainingPoints,
    in_range,
)
from skhdkde._pairwise.reductions import Reduction
from skhdkde._pairwise.screening import Screening
from skhdkde._pairwise.tiles import BareProducts, Tile, always_sharp, mend
from skhdkde._utils.arrays import BLOCK_SIZE, row_batches, slices, to_host
from skhdkde._utils.threads import n_threads_for, progress_bar, run_tasks
from skhdkde._utils.typing import Device, FloatArray, IntArray

# Terms of inner products, of all pairs together, that take less time than threads would
# save: about a millisecond.
SMALL_WORK = 2**23
# Queries up to which each is multiplied on its own, if rows have so many entries: a
# product of matrices would copy all points for them.
FEW_QUERIES, LONG_ROW = 4, 100


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How pairs are visited."""

    backend: str = "numpy"  # or "keops", "torch", or "auto" until it is resolved
    n_jobs: int | None = None  # threads; None for as many as the BLAS would use
    verbose: int = 0  # whether to show a progress bar
    label: str | None = None  # what the progress bar calls the pass

    def resolved(
        self, n_features: int, *, on_gpu=False, tiles=False, plan: Plan | None = None
    ) -> Self:
        """Return the options with the backend that :func:`resolve_backend` names."""
        asked = self.backend, n_features, on_gpu, tiles, plan
        backend = resolve_backend(*asked, n_jobs=self.n_jobs)
        return dataclasses.replace(self, backend=backend)

    def labelled(self, label: str) -> Self:
        """Return the options for passes of this name."""
        return dataclasses.replace(self, label=label)

    def quiet(self) -> Self:
        """Return the options without a progress bar."""
        return dataclasses.replace(self, verbose=0)


def reduce_pairs(
    reduction: Reduction,
    queries,
    points: TrainingPoints,
    options: ComputeOptions,
    *,
    leave_out: IntArray | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the results of a reduction over all pairs, (n_queries, reduction.width).

    Parameters
    ----------
    queries : array-like of shape (n_queries, n_features), float32 or float64
        Queries in scaled units, which can be sliced by rows: a slice of ``points.exact``,
        or what ``points.as_queries`` returns.
    options : ComputeOptions
        With the backend resolved. Points with tiles of their own are visited by numpy,
        or by torch if that can make them.
    leave_out : ndarray of int of shape (n_queries,) or (n_queries, n), default=None
        Index of the training point to leave out for each query, or of several (not by
        "keops"); negative ones stand for none.
    out : ndarray, default=None
        Where to put the results; None for a new float64 array.
    """
    if out is None:
        out = np.empty((len(queries), reduction.width))
    visit = functools.partial(visit_pairs, _numpy_device)
    own = points.tile_class
    able = own is None or (options.backend == "torch" and own.by_torch)
    if options.backend != "numpy" and able:
        name = f"skhdkde._pairwise.{options.backend}_backend"
        visit = importlib.import_module(name).visit_pairs
    visit(reduction, queries, points, options, leave_out, out)
    return out


def visit_pairs(device: Device, reduction, queries, points, options, leave_out, out):
    """Fill ``out`` as :func:`reduce_pairs` does, tile by tile on a device."""
    dtype = working_dtype(reduction, queries, points)
    work_size = len(queries) * points.shape[0] * points.shape[1]
    small = device.splits_points and work_size <= SMALL_WORK
    n_tasks = 1 if small else device.n_tasks(n_threads_for(options.n_jobs))
    row_ranges, col_ranges = split(len(queries), points.shape, n_tasks, device)

    def work(task, check):
        rows, cols = task
        left = None if leave_out is None else leave_out[rows]
        # so many bandwidths away values are 0
        with device.working(), np.errstate(over="ignore"):
            exact = device.queries(queries, rows)
            block = QueryBlock(exact, points, left, dtype, device.longest_walk)
            state = device.visit(reduction, block, points, cols, check)
        if len(col_ranges) > 1:
            return state
        out[rows] = reduction.finish(state)

    tasks = [(rows, cols) for rows in row_ranges for cols in col_ranges]
    n_pairs = len(queries) * points.shape[0]
    with progress_bar(n_pairs, options.verbose, options.label) as progress:
        states = run_tasks(work, tasks, n_tasks, progress)
    if len(col_ranges) > 1:
        for i, rows in enumerate(row_ranges):
            of_rows = states[i * len(col_ranges) : (i + 1) * len(col_ranges)]
            out[rows] = reduction.finish(functools.reduce(reduction.merge, of_rows))


def visit_tiles(reduction, queries, points, cols, device, check):
    """Return the state of a reduction for a block of queries and the points ``cols``.

    Tiles are mended as they come. ``check`` is called before each tile; see
    :func:`~skhdkde._utils.threads.run_tasks`.
    """
    if queries.dtype == np.float32 and not in_range(queries.exact).all():
        queries = queries.in_dtype(np.float64, points)
    state = device.start(reduction, len(queries.exact))
    nearest_sq = np.full(len(queries.exact), np.inf)
    make_tile = points.tile_class or Tile
    sharp = make_tile.sharp or always_sharp(queries, points, reduction)
    products = BareProducts(reduction, queries, points, device) if sharp else None
    for tile_cols in tile_ranges(cols, queries, points, device):
        check(len(queries.exact) * (tile_cols.stop - tile_cols.start))
        updated = None if products is None else products.update(state, tile_cols)
        if updated is None:
            tile = make_tile(queries, points, tile_cols, device)
            if not sharp:
                mend(tile, reduction, nearest_sq)
                np.minimum(nearest_sq, to_host(tile.nearest_sq), out=nearest_sq)
            tile.transform(reduction)
            updated = reduction.update(state, tile)
            del tile  # so that the next one can have its memory
        state = updated
    return state


def tile_ranges(cols, queries, points, device):
    """Return the ranges of points of the tiles that cover ``cols``."""
    step = device.cols_for(*queries.exact.shape, queries.dtype)
    if not points.kept_in(queries.dtype):  # made within the memory of a block
        step = min(step, max(16, device.block_size // points.shape[1]))
    return slices(cols.stop, step, cols.start)


def working_dtype(reduction: Reduction, queries, points: TrainingPoints) -> np.dtype:
    """Return the dtype of the tiles: the reduction's, else that of queries and points.

    float64 where bandwidths or weights are beyond the range of float32, and for points
    whose tiles are.
    """
    wide = points.tile_class is not None and points.tile_class.wide
    if wide or not points.fit_float32(reduction.smallest_bandwidth):
        return np.dtype(np.float64)
    return np.dtype(reduction.dtype or np.result_type(queries.dtype, points.dtype))


def split(n_queries: int, points_shape: tuple, n_threads: int, device: Device) -> tuple:
    """Return ranges of queries and of points, enough to keep every thread busy."""
    n_points, n_features = points_shape
    step = min(device.tile_rows, max(1, device.block_size // 2 // (n_features + 2)))
    rows = slices(n_queries, step)
    n_ranges = 1
    if device.splits_points and n_threads > 1 and len(rows) < 4 * n_threads:
        n_tiles = -(-n_points // device.cols_for(step, n_features, np.dtype(np.float64)))
        # of few queries each range prepares all again
        n_tasks = n_threads if n_queries <= FEW_QUERIES else 4 * n_threads
        n_ranges = min(n_tiles, -(-n_tasks // len(rows)))
    bounds = [n_points * p // n_ranges for p in range(n_ranges + 1)]
    return rows, [slice(a, b) for a, b in pairwise(bounds)]


class NumpyDevice(Device):
    """Tiles by numpy, in the cache of a core.

    A tile of float32 is 2 MiB, or 4 MiB where rows are long. Taller tiles repay the
    packing of the training block, wider ones that of the queries and the overhead of a
    numpy call; they must stay in the cache.
    """

    tile_rows = 1024
    # pairs of a tile, of rows with few features and of longer ones
    tile_size, long_rows, long_tile_size = 2**19, 256, 2**20
    # points of a tile at most; and queries with fewer of which it has more points
    tile_cols, few_rows = 2048, 16
    block_size = BLOCK_SIZE
    longest_walk, splits_points = LONGEST_WALK, True

    def __init__(self):
        self._buffers = threading.local()

    def n_tasks(self, n_threads):
        return n_threads

    def working(self):
        return contextlib.nullcontext()

    def cols_for(self, n_rows, n_features, dtype):
        size = self.tile_size if n_features < self.long_rows else self.long_tile_size
        most = self.tile_cols * max(1, self.few_rows // max(n_rows, 1))
        return min(most, max(size // max(n_rows, 1), 1))

    def visit(self, reduction, queries, points, cols, check):
        tiles = tile_ranges(cols, queries, points, self)
        screening = Screening.of(reduction, queries, points, tiles, self)
        if screening is None:
            return visit_tiles(reduction, queries, points, cols, self, check)
        state, doubtful = screening.state(tiles, check)
        if len(doubtful):
            few = queries.subset(doubtful)
            exact = visit_tiles(
                reduction, few, points, cols, self, lambda n_pairs: check(0)
            )
            for array, rows in zip(state, exact, strict=True):
                array[doubtful] = rows
        return state

    def start(self, reduction, n_rows):
        return reduction.start(n_rows)

    def put(self, array):
        return array

    def keep(self, array):
        return array

    def queries(self, queries, rows):
        return queries[rows]

    def block(self, points, cols, dtype):
        return points.block(cols, dtype)

    def weights(self, points, cols, dtype):
        return points.weight_block(cols, dtype)

    def exact(self, points, rows):
        return points.exact[rows]

    def squared_distances(self, queries, points, cols):
        return cdist(queries, points.exact[cols], "sqeuclidean")

    def product(self, queries, block):
        sq = self._buffer("sq", (len(queries), len(block)), queries.dtype)
        few = len(queries) <= FEW_QUERIES and queries.shape[1] >= LONG_ROW
        if not few or not hasattr(np, "vecdot"):  # of numpy 2
            return np.matmul(queries, block.T, out=sq)
        # blocks of points stay in the cache from query to query
        size = block.size if len(queries) == 1 else SMALL_BLOCK_SIZE
        for cols in row_batches(len(block), block.shape[1], size):
            np.vecdot(queries[:, None], block[cols], out=sq[:, cols])
        return sq

    def scratch(self, like):
        return self._buffer("scratch", like.shape, like.dtype)

    def _buffer(self, name, shape, dtype):
        """Return a view of this thread's buffer ``name``, kept from tile to tile."""
        size = shape[0] * shape[1]
        buffer = getattr(self._buffers, name, None)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = np.empty(size, dtype=dtype)
            setattr(self._buffers, name, buffer)
        return buffer[:size].reshape(shape)


_numpy_device = NumpyDevice()
