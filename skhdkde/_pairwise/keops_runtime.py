"""Running KeOps safely: in silence, from several processes at once, after a fork.

The only file that imports pykeops.
"""

import atexit
import contextlib
import functools
import hashlib
import importlib
import os
import pathlib
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from skhdkde._utils.threads import ForkWatch

# Pairs and coordinates of queries in one call, which cannot be interrupted.
PAIRS_ON_CPU = 2**27
QUERIES_ON_GPU = 2**17
ELEMENTS = 2**26

_compiled: set[tuple] = set()
_watch = ForkWatch()


def lazy_tensors(of_torch: bool) -> ModuleType:
    """Return the module of lazy tensors over numpy arrays, or over torch's tensors."""
    _import_pykeops()
    return importlib.import_module("pykeops.torch" if of_torch else "pykeops.numpy")


@functools.cache
def _import_pykeops():
    """Import pykeops in silence, while no other process writes what it reads.

    KeOps keeps a table of compiled formulas in a file that it reads on import and
    writes on exit, without a lock.
    """
    quiet = {"PYKEOPS_VERBOSE": "0", "KEOPS_VERBOSE": "0"}
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        with _lock("table"):
            import pykeops
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    pykeops.set_verbose(before["PYKEOPS_VERBOSE"] != "0")
    # handlers run last in, first out: this lock is held while KeOps writes, until the end
    atexit.register(_lock("table").__enter__)
    return pykeops


def rows_at_once(n_points: int, n_features: int) -> int:
    """Return how many queries a call should have."""
    rows = ELEMENTS // n_features
    if _import_pykeops().config.gpu_available:
        return max(1, min(rows, QUERIES_ON_GPU))
    return max(1, min(rows, PAIRS_ON_CPU // n_points))


def run(values: Any, name: str, *, n_threads: int, **options: Any) -> Any:
    """Return a lazy tensor reduced over the training points, by its method ``name``.

    In a child of a process that has used OpenMP there is one thread: more would wait for
    ever for threads that were not forked.
    """
    # chunks: wrong gradients and NaN were reported for many features (keops#216, #370)
    options = {"enable_chunks": False, "use_fast_math": False, **options}
    formula = getattr(values, name)(axis=1, call=False, **options)
    key = str(formula), str(formula.formula), formula.dtype, str(options)
    with threadpool_limits(1 if _watch.forked else n_threads, user_api="openmp"):
        if key in _compiled:
            return formula()
        with _lock(hashlib.sha256(repr(key).encode()).hexdigest()):
            result = _compile(formula)
        _compiled.add(key)
        return result


def _compile(formula):
    """Return the result of a formula that is called for the first time."""
    compiler = _import_pykeops().config.pykeops_base.get_cxx_compiler()
    if compiler is None:
        raise RuntimeError(
            "backend='keops' compiles its formulas, and found no C++ compiler: install "
            "g++ (or set CXX), or use backend='numpy', which needs none."
        )
    try:
        with _silence():
            return formula()
    except ImportError as error:
        raise RuntimeError(
            f"backend='keops' could not compile a formula with {compiler}: "
            "pykeops.check_health() says more; backend='numpy' needs no compiler."
        ) from error


@contextlib.contextmanager
def _silence():
    """Tell KeOps not to report a compilation on the terminal, as it does else."""
    import keopscore
    import pykeops

    before = pykeops.verbose, keopscore.verbose
    pykeops.verbose = keopscore.verbose = False
    try:
        yield
    finally:
        pykeops.verbose, keopscore.verbose = before


@contextlib.contextmanager
def _lock(name):
    """Hold a lock that one thread of one process of the user has at a time."""
    import fcntl  # KeOps does not run on Windows either

    folder = os.environ.get("KEOPS_CACHE_FOLDER") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(folder) / "skhdkde_locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
