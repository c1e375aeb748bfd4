"""Tiles by torch, on a GPU if there is one.

A GPU is kept busy. Queries are prepared on it, block by block; points stay on it; and
what a block gives is read once. So tiles are not mended as they come, as they are on a
CPU: a block is visited as if all its squared distances were sharp. Then the rows in which
a bound says that an error would be felt are visited again, and mended on the GPU.
"""

import contextlib
import functools
import importlib
import os
import threading
import weakref
from typing import Any

import numpy as np
import torch

from skhdkde._pairwise.backends import visit_pairs as visit_blocks
from skhdkde._pairwise.backends import visit_tiles
from skhdkde._pairwise.points import LONGEST_WALK, NO_BLOCKS, aligned_rows
from skhdkde._pairwise.torch_settings import settings
from skhdkde._pairwise.torch_visit import QuickVisit
from skhdkde._utils.arrays import (
    GPU_BLOCK_SIZE,
    DeviceArray,
    as_tensor,
    row_batches,
    to_host,
)
from skhdkde._utils.threads import n_threads_for, openmp_threads
from skhdkde._utils.typing import Device

# Rows of a tile, its entries, entries of a block of queries, and most tasks at once. On a
# GPU a tile of float32 is 128 MiB, large enough to keep all of it busy while the host
# begins the next; one of float64 has half as many. While it computes one block, other
# threads copy the queries of the next ones to it.
ON_GPU = (2**16, 2**25, 2**23, 3)
# On the CPU a tile stays in the shared cache, and torch's own threads work on each.
ON_CPU = (1024, 2**21, 2**20, 1)
# Share of the memory that is free on a GPU that a tile may take, in all tasks together.
TILE_SHARE = 1 / 8
# Pairs of a pass from which on fused kernels are used: to compile one takes a second or
# two, the first time on a machine, and plain torch does so many pairs in half of one.
FUSED_FROM = 2**36
# Smallest tiles to try when memory runs out.
SMALLEST_ROWS = 64
# Where more rows than this share of a block are visited again, the next blocks are at
# once visited in that way.
MOST_AGAIN = 0.5
# Compute capabilities of GPUs on which float64 is at least half as fast as float32.
FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}


class TorchDevice(Device):
    """Tiles by torch, on the device ``place``."""

    splits_points = False

    def __init__(self, place: Any):
        self.place = torch.device(place)
        self.on_gpu = self.place.type == "cuda"
        sizes = ON_GPU if self.on_gpu else ON_CPU
        self.tile_rows, self.tile_size, self.block_size, self._most_tasks = sizes
        self.longest_walk = NO_BLOCKS if self.on_gpu else LONGEST_WALK
        # on the CPU there is nothing to wait for, and tiles are mended as they come
        self.quick = self.on_gpu or interpreted()
        if self.on_gpu:
            most = TILE_SHARE * free_memory(self.place) / 8 / self._most_tasks
            self.tile_size = min(self.tile_size, max(int(most), SMALLEST_ROWS**2))
        self.fast_float64 = self.on_gpu and capability(self.place) in FAST_FLOAT64
        # dtypes in which most rows are not sharp enough, and in which nearest points are
        # looked for
        self._blurred: set[np.dtype] = set()
        self.tracks: dict[np.dtype, bool] = {}
        self.n_pairs = 0
        self._keeps = True
        self._constants: dict[int, tuple] = {}
        self._lock, self._streams = threading.Lock(), threading.local()
        self._callers_stream: Any = None  # if tasks have streams of their own

    def n_tasks(self, n_threads):
        n_tasks = min(n_threads, self._most_tasks)
        if self.on_gpu and n_tasks > 1:  # what the caller has begun there comes first
            self._callers_stream = torch.cuda.current_stream(self.place)
        return n_tasks

    @contextlib.contextmanager
    def working(self):
        """Let a thread work: in full precision, and on a GPU beside the others."""
        with torch.autocast(self.place.type, enabled=False), torch.no_grad():
            if self._callers_stream is None:
                yield
                return
            if not hasattr(self._streams, "own"):
                self._streams.own = torch.cuda.Stream(self.place)
                self._streams.own.wait_stream(self._callers_stream)
            with torch.cuda.stream(self._streams.own):
                yield

    def cols_for(self, n_rows, n_features, dtype):
        if not self.quick:
            n_rows = self.tile_rows
        size = self.tile_size // (2 if self.on_gpu and dtype == np.float64 else 1)
        n_cols = size // max(n_rows, SMALLEST_ROWS)
        return max(n_cols - n_cols % SMALLEST_ROWS, SMALLEST_ROWS)

    def start(self, reduction, n_rows):
        def repeated(row):
            return self.put(row).expand(n_rows, *row.shape[1:]).clone()

        return _map_state(repeated, reduction.start(1))

    def put(self, array):
        return as_tensor(array).to(self.place, non_blocking=True)

    def keep(self, array):
        return self._kept((id(array),), array, lambda: as_tensor(array).to(self.place))

    def _kept(self, key, owner, make):
        """Return what was kept under a key, or make it, for as long as a pass takes.

        It is all there when it is first returned: threads need not wait for each other.
        """
        with self._lock:
            if key not in self._constants:
                self._constants[key] = owner, make()
                if self.on_gpu:
                    torch.cuda.current_stream(self.place).synchronize()
            return self._constants[key][1]

    def queries(self, queries, rows):
        if isinstance(queries, np.ndarray | DeviceArray):
            rows = getattr(queries, "tensor", queries)[rows]
            return (self.put(rows) if isinstance(rows, np.ndarray) else rows).double()
        return queries.on(self, rows)

    def block(self, points, cols, dtype):
        if points.kept_in(dtype):
            return self._of_points(points, "augmented", cols)
        return points.block_of(self._of_points(points, "exact", cols), cols, dtype)

    def exact(self, points, rows):
        return self._of_points(points, "exact", rows)

    def weights(self, points, cols, dtype):
        dtype = getattr(torch, np.dtype(dtype).name)
        if points.weights is None:
            return torch.ones(cols.stop - cols.start, dtype=dtype, device=self.place)
        return self.keep(points.weights)[cols].to(dtype)

    def _of_points(self, points, name, rows):
        """Return rows of an array of the points, from the host if that keeps them."""
        array = getattr(points, name)
        if isinstance(array, DeviceArray):
            return array.tensor[rows]
        if self.on_gpu and self._keeps:
            make = functools.partial(_on_gpu, points, name, self.place)
            return self._kept((id(points), name), points, make)[rows]
        return self.put(array[rows if isinstance(rows, slice) else to_host(rows)])

    def product(self, queries, block):
        """Return ``queries @ block.T``, without the shortcuts of tensor cores."""
        padded = _with_padding(queries), _with_padding(block)
        if padded[0].shape[1] == padded[1].shape[1]:
            queries, block = padded
        return torch.matmul(queries, block.T)

    def squared_distances(self, queries, points, cols):
        y = self.exact(points, cols).double()
        exactly = "donot_use_mm_for_euclid_dist"
        return torch.cdist(queries, y, compute_mode=exactly).square()

    def scratch(self, like):
        return torch.empty_like(like)

    def fused(self, dtype):
        """Return the module of fused kernels, or None where there are none that work."""
        if not self.quick or self.n_pairs < FUSED_FROM:
            return None
        fused = importlib.import_module("skhdkde._pairwise.triton_kernels")
        return fused if fused.usable(self.place, dtype) else None

    def apart(self, points):
        """Return the centred points with their features apart, for fused kernels."""
        fused = importlib.import_module("skhdkde._pairwise.triton_kernels")

        augmented = self._of_points(points, "augmented", slice(None))
        arrange = functools.partial(fused.arranged, augmented)
        return self._kept((id(points), "apart"), points, arrange)

    def shrink(self) -> None:
        """Take smaller tiles, one at a time, and keep no points: memory ran out."""
        self.tile_rows, self.tile_size = self.tile_rows // 2, self.tile_size // 4
        self.block_size //= 2
        self._most_tasks, self._callers_stream = 1, None
        self._keeps = False
        self._constants.clear()
        _points_on_gpu.clear()
        torch.cuda.empty_cache()

    def visit(self, reduction, queries, points, cols, check):
        """Return the state of a reduction, on the host; see the top of this module."""
        if not self.quick or queries.dtype in self._blurred:
            return self._sharper(reduction, queries, points, cols, check)
        visit = QuickVisit(reduction, queries, points, self)
        state = _map_state(to_host, visit.state(cols, check))
        rows = visit.doubtful_rows()
        if len(rows):
            if len(rows) > MOST_AGAIN * len(queries.exact):
                self._blurred.add(queries.dtype)
            again, seen = queries.subset(rows), lambda amount: check(0)
            sharper = self._sharper(reduction, again, points, cols, seen)
            for array, new in zip(state, sharper, strict=True):
                array[rows] = new
        return state

    def _sharper(self, reduction, queries, points, cols, check):
        """Return what `visit` does, in float64 if that is fast, or with tiles mended."""
        if queries.dtype == np.float32 and self.fast_float64:
            wide = queries.in_dtype(np.float64, points)
            return self.visit(reduction, wide, points, cols, check)
        state = visit_tiles(reduction, queries, points, cols, self, check)
        return _map_state(to_host, state)


# What there is on a GPU of the points of the last pass, for the next one.
_points_on_gpu: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _on_gpu(points, name, place):
    """Return an array of points on a GPU, where it stays until others come."""
    with _lock:
        if points not in _points_on_gpu:
            _points_on_gpu.clear()
        kept = _points_on_gpu.setdefault(points, {})
        if (name, place) not in kept:
            kept[name, place] = _uploaded(points, name, place, kept)
        return kept[name, place]


def _uploaded(points, name, place, kept):
    """Return an array of points on a GPU, in aligned rows."""
    array = getattr(points, name)
    if name == "exact" and np.shares_memory(array[:1], points.augmented[:1]):
        if ("augmented", place) not in kept:
            kept["augmented", place] = _uploaded(points, "augmented", place, kept)
        return kept["augmented", place][:, :-2]
    there = torch.empty(0, device=place)
    n_rows, n_columns = array.shape
    tensor = aligned_rows(there, n_rows, n_columns, array.dtype)
    for rows in row_batches(n_rows, n_columns, GPU_BLOCK_SIZE):
        tensor[rows] = as_tensor(array[rows]).to(place)
    return tensor


def interpreted() -> bool:
    """Return whether Triton runs fused kernels on the CPU, as tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def capability(place: Any) -> tuple[int, int]:
    """Return the compute capability of a GPU."""
    return torch.cuda.get_device_capability(place)


def free_memory(place: Any) -> int:
    """Return the bytes that are free on a GPU."""
    return torch.cuda.mem_get_info(place)[0]


def _map_state(function, state):
    """Return a state with a function of each of its arrays."""
    arrays = map(function, state)
    return state._make(arrays) if hasattr(state, "_make") else tuple(arrays)


def _with_padding(rows):
    """Return rows of a product with the zeros that they are padded by."""
    width = rows.stride(0)
    if rows.shape[1] < width <= rows.shape[1] + 3:
        return torch.as_strided(rows, (len(rows), width), (width, 1))
    return rows


def visit_pairs(reduction, queries, points, options, leave_out, out):
    """Fill ``out`` as :func:`~skhdkde._pairwise.backends.reduce_pairs` does, by torch."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    device = TorchDevice(points.exact.tensor.device if points.on_gpu else place)
    device.n_pairs = len(queries) * points.shape[0]
    args = device, reduction, queries, points, options, leave_out, out
    with settings(openmp_threads(n_threads_for(options.n_jobs))):
        while not _visited(*args):
            # here, where nothing holds the tiles of the pass that failed
            device.shrink()


def _visited(device, *args):
    """Return whether a pass came to its end, and did not run out of memory."""
    try:
        visit_blocks(device, *args)
    except RuntimeError as error:
        if not _no_memory(error) or device.tile_rows < 2 * SMALLEST_ROWS:
            raise
        return False
    return True


def _no_memory(error):
    """Return whether an error says that a GPU has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)
