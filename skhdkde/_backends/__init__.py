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

import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil

import skhdkde._backends._numpy as _numpy

__all__ = ["BACKENDS", "reduce_pairs", "resolve_backend"]

BACKENDS = ("auto", "numpy", "keops", "torch")
INSTALL = {"keops": ("pykeops", "pykeops"), "torch": ("torch", "skhdkde[torch]")}
# On a GPU: KeOps keeps a query in registers, which pays up to about so many features;
# beyond, matrix products are faster. benchmarks/gpu.py has the table.
KEOPS_UP_TO = 100


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
    module = _numpy  # loaded early: a child forked during an import would wait for it
    if backend != "numpy":
        module = importlib.import_module(f"skhdkde._backends._{backend}")
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
