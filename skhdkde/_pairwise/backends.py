"""How pairs are visited.

::

    reduce_pairs          the one entry: a reduction over queries x training points
      _numpy.py           tiles of inner products, on threads
      _torch.py           the same on a torch device
      _keops.py           PyKeOps lazy tensors
      _precision.py       bounds the error of a tile, and mends what matters
      _threads.py         how many threads; BLAS kept to one thread in each; Ctrl-C
    resolve_backend       which of the three

A *tile* is a block of queries against a block of training points, small enough to
stay in the cache while a reduction (``skhdkde/_reductions.py``) passes over it.

PyKeOps and torch are imported when a pass needs them, and not before: KeOps may
initialise CUDA, after which forked children crash.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import threading
from itertools import pairwise

import numpy as np

from skhdkde._pairwise.points import QueryBlock
from skhdkde._pairwise.tiles import Tile, _Products, always_sharp, mend
from skhdkde._utils.arrays import BLOCK_SIZE
from skhdkde._utils.threads import n_threads_for, progress_bar, run_tasks

BACKENDS = ("auto", "numpy", "keops", "torch")
INSTALL = {"keops": ("pykeops", "pykeops"), "torch": ("torch", "skhdkde[torch]")}
# On a GPU: KeOps keeps a query in registers, which pays up to about so many features;
# beyond, matrix products are faster. benchmarks/gpu.py has the table.
KEOPS_UP_TO = 100
# Bandwidths below which exponents are not.
SMALLEST_BANDWIDTH = 1e-15
# Relative to the largest; smaller ones, times a kernel value, underflow in float32.
SMALLEST_WEIGHT = 1e-20


def resolve_backend(backend, n_features, on_gpu=False, tiles=False):
    """The backend to use for data of ``n_features``, which torch has ``on_gpu`` or not.

    With ``tiles`` it is one of those that have tiles.

    Raises
    ------
    ImportError
        If ``backend`` is asked for by name and is not installed; says what to install.
    ValueError
        If it is asked for by name and has no tiles.
    """
    if backend == "auto":
        if not (on_gpu or _has_cuda_gpu()):
            return "numpy"
        order = ("keops", "torch") if n_features <= KEOPS_UP_TO else ("torch", "keops")
        usable = {name: _usable_on_gpu(name) for name in order}
        usable["keops"] &= not tiles
        usable["torch"] |= on_gpu
        return next((name for name in order if usable[name]), "numpy")
    if tiles and backend == "keops":
        raise ValueError(
            "backend='keops' visits all pairs: it works with algorithm='exact' only; "
            "'numpy' and 'torch' work with all."
        )
    if backend != "numpy" and not _installed(backend):
        module, requirement = INSTALL[backend]
        raise ImportError(
            f"backend={backend!r} needs {module}, which is not installed: "
            f"pip install '{requirement}'. backend='numpy' needs nothing."
        )
    return backend


def reduce_pairs(reduction, queries, points, *, backend="numpy", **options):
    """Apply ``reduction`` to all pairs of a query and a training point.

    Parameters
    ----------
    reduction : object
        See :mod:`skhdkde._reductions`.
    queries : array-like of shape (n_queries, n_features), float32 or float64
        Queries in the units of ``points.exact``, which can be sliced by rows: a part
        of ``points.exact`` itself, or what ``points.as_queries`` returns.
    points : TrainingPoints
    backend : {"numpy", "keops", "torch"}
        As :func:`resolve_backend` returned it.
    leave_out : ndarray of shape (n_queries,) or (n_queries, n_left_out), default=None
        Index of the training point to leave out for each query, or of several (not by
        "keops"); negative ones stand for none.
    dtype : dtype, default=None
        In which pairs are computed; None for that of the queries and points.
    n_jobs : int, default=None
        Number of threads; None for as many as the BLAS would use.
    verbose : int, default=0
        Whether to show a progress bar.
    label : str, default=None
        What the progress bar calls the pass.
    out : ndarray of shape (n_queries, reduction.width), default=None
        Where to put the result; None for a new float64 array.

    Returns
    -------
    out : ndarray of shape (n_queries, reduction.width)
    """
    if backend == "numpy":
        return visit_pairs(_numpy_device, reduction, queries, points, **options)
    module = importlib.import_module(f"skhdkde._pairwise.{backend}_backend")
    return module.reduce_pairs(reduction, queries, points, **options)


def _installed(backend):
    return importlib.util.find_spec(INSTALL[backend][0]) is not None


def _usable_on_gpu(backend):
    """Whether it is installed, with what it needs to use a GPU; nothing is imported."""
    if not _installed(backend):
        return False
    if backend == "torch":
        return "+cpu" not in importlib.metadata.version("torch")
    compilers = os.environ.get("CXX", "g++"), "g++", "clang++"
    return any(shutil.which(name) for name in compilers)


def _has_cuda_gpu():
    """Whether a CUDA GPU is visible, without initialising it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    on_linux = pathlib.Path("/proc/driver/nvidia/version").exists()
    return on_linux or (os.name == "nt" and shutil.which("nvidia-smi") is not None)


def _visit(reduction, queries, points, cols, device, check):
    """State of ``reduction`` for a block of queries against the points ``cols``."""
    state = reduction.start(len(queries.exact))
    nearest = np.full(len(queries.exact), np.inf)
    sharp = always_sharp(queries, points, reduction)
    products = _Products(reduction, queries, points, device) if sharp else None
    for part in _tile_cols(cols, queries, points, device):
        check(len(queries.exact) * (part.stop - part.start))
        updated = products.update(state, part) if sharp else None
        if updated is None:
            tile = Tile(queries, points, part, device)
            if not sharp:
                mend(tile, reduction, nearest)
                np.minimum(nearest, tile.nearest, out=nearest)
            updated = reduction.update(state, tile)
        state = updated
    return state


def _tile_cols(cols, queries, points, device):
    step = device.tile_cols
    converted = queries.augmented.dtype != points.dtype or points.stretch is not None
    if converted:  # block by block
        step = min(step, max(16, BLOCK_SIZE // points.shape[1]))
    for start in range(cols.start, cols.stop, step):
        yield slice(start, min(start + step, cols.stop))


def visit_pairs(
    device,
    reduction,
    queries,
    points,
    *,
    leave_out=None,
    dtype=None,
    n_jobs=None,
    verbose=0,
    label=None,
    out=None,
):
    """:func:`skhdkde._backends.reduce_pairs` on a device."""
    dtype = working_dtype(reduction, queries, points, dtype)
    n_tasks = device.n_tasks(n_threads_for(n_jobs))
    row_ranges, col_ranges = split(len(queries), points.shape, n_tasks, device)
    if out is None:
        out = np.empty((len(queries), reduction.width))

    def work(task, check):
        rows, cols = task
        left = None if leave_out is None else leave_out[rows]
        block = QueryBlock(queries[rows], points, left, dtype)
        state = _visit(reduction, block, points, cols, device, check)
        if len(col_ranges) > 1:
            return state
        out[rows] = reduction.finish(state)

    tasks = [(rows, cols) for rows in row_ranges for cols in col_ranges]
    with progress_bar(len(queries) * points.shape[0], verbose, label) as progress:
        states = run_tasks(work, tasks, n_tasks, progress)
    if len(col_ranges) > 1:
        for rows in row_ranges:
            parts, states = states[: len(col_ranges)], states[len(col_ranges) :]
            out[rows] = reduction.finish(functools.reduce(reduction.merge, parts))
    return out


def working_dtype(reduction, queries, points, dtype):
    """``dtype``, or that of queries and points, unless float32 has not its range."""
    tiny = reduction.smallest_bandwidth < SMALLEST_BANDWIDTH
    if tiny or points.smallest_weight < SMALLEST_WEIGHT:
        dtype = np.float64
    return np.dtype(dtype or np.result_type(queries.dtype, points.dtype))


def split(n_queries, points_shape, n_threads, device):
    """Ranges of queries and of points, enough of them to keep every thread busy."""
    n_points, n_features = points_shape
    step = min(device.tile_rows, max(1, BLOCK_SIZE // 2 // (n_features + 2)))
    rows = [slice(i, min(i + step, n_queries)) for i in range(0, n_queries, step)]
    n_parts = 1
    if n_threads > 1 and len(rows) < 4 * n_threads:
        n_tiles = -(-n_points // device.tile_cols)
        n_parts = min(n_tiles, -(-4 * n_threads // len(rows)))
    bounds = [n_points * p // n_parts for p in range(n_parts + 1)]
    return rows, [slice(a, b) for a, b in pairwise(bounds)]


class NumpyDevice:
    """Where tiles are and how large: in the cache of a core.

    A tile of float32 is 2 MiB. Taller tiles repay the packing of the training block,
    wider ones the overhead of a numpy call; both must stay in the cache.
    """

    tile_rows = 256
    tile_cols = 2048

    def __init__(self):
        self._buffers = threading.local()

    def n_tasks(self, n_threads):
        """How many tasks to run at once."""
        return n_threads

    def put(self, array):
        """A small array from the host."""
        return array

    def block(self, points, cols, dtype):
        """Augmented points ``cols``."""
        return points.block(cols, dtype)

    def product(self, queries, block):
        """``queries @ block.T`` in a buffer that the next product overwrites."""
        sq = self._buffer("sq", (len(queries), len(block)), queries.dtype)
        return np.matmul(queries, block.T, out=sq)

    def scratch(self, like):
        """An uninitialised array, which the next call overwrites."""
        return self._buffer("scratch", like.shape, like.dtype)

    def _buffer(self, name, shape, dtype):
        """A view of this thread's buffer ``name``, kept from tile to tile."""
        size = shape[0] * shape[1]
        buffer = getattr(self._buffers, name, None)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = np.empty(size, dtype=dtype)
            setattr(self._buffers, name, buffer)
        return buffer[:size].reshape(shape)


_numpy_device = NumpyDevice()
