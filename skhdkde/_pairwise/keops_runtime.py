"""Running KeOps safely: in silence, from several processes at once, after a fork.

The only file that imports pykeops.
"""

import contextlib
import functools
import hashlib
import importlib
import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from skhdkde._pairwise.keops_files import (
    compilation,
    lock,
    put_aside_broken_tables,
    write_whole_at_exit,
)
from skhdkde._utils.threads import openmp_threads

# Pairs and coordinates of queries in one call, which cannot be interrupted.
PAIRS_ON_CPU = 2**27
QUERIES_ON_GPU = 2**17
ELEMENTS = 2**26
# Threads of a block at most, bytes of the points that it keeps, and blocks in a column.
LARGEST_BLOCK, SHARED_MEMORY, LARGEST_GRID = 192, 48 * 2**10, 2**16 - 1
# Queries below which blocks of them leave most of the 100 or more processors of a GPU
# idle, and partial sums that blocks of points may have then.
FEW_QUERIES, MOST_PARTIAL_SUMS = 2**14, 2**26
# Each value of a formula added in float64.
DIRECT_SUMS = {"dtype_acc": "float64", "sum_scheme": "direct_sum"}

_compiled: set[tuple] = set()


def lazy_tensors(of_torch: bool) -> ModuleType:
    """Return the module of lazy tensors over numpy arrays, or over torch's tensors."""
    _import_pykeops()
    return importlib.import_module("pykeops.torch" if of_torch else "pykeops.numpy")


@functools.cache
def _import_pykeops():
    """Import pykeops in silence, while no other process writes what it reads."""
    quiet = {"PYKEOPS_VERBOSE": "0", "KEOPS_VERBOSE": "0"}
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        with lock("table"):
            put_aside_broken_tables(_build_folder())
            import pykeops
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    pykeops.set_verbose(before["PYKEOPS_VERBOSE"] != "0")
    from keopscore.get_keops_dll import get_keops_dll

    # their keys hold an address: no other process finds what is in these
    useless = pykeops.common.keops_io.keops_binder.values()
    write_whole_at_exit(get_keops_dll, useless)
    return pykeops


def _build_folder():
    """Return where KeOps keeps what it has compiled."""
    from keopscore.config import config

    return pathlib.Path(config.get_build_folder())


def uses_gpu() -> bool:
    """Return whether KeOps says that it uses a GPU."""
    return bool(_import_pykeops().config.gpu_available)


def rows_at_once(n_points: int, n_features: int) -> int:
    """Return how many queries a call should have."""
    rows = ELEMENTS // n_features
    if uses_gpu():
        return max(1, min(rows, QUERIES_ON_GPU))
    return max(1, min(rows, PAIRS_ON_CPU // n_points))


def sum_options(
    n_queries: int, n_points: int, n_features: int, n_sums: int
) -> dict[str, str]:
    """Return how sums of values of one sign are to be made.

    On a GPU values are added in their own dtype within a block of at most 192 points, and
    blocks in float64: the relative error is at most ``191 eps / 2``, 1.2e-5 in float32,
    however many points there are. If there are few queries, blocks of points share them.
    """
    if not uses_gpu():
        return DIRECT_SUMS
    options = {"dtype_acc": "float64", "sum_scheme": "block_sum"}
    # with room for the numbers beside the features, all of float64
    block = min(LARGEST_BLOCK, max(1, SHARED_MEMORY // (8 * (n_features + 6))))
    n_blocks = -(-n_points // block)
    small = n_queries * n_sums * n_blocks <= MOST_PARTIAL_SUMS
    if n_queries < FEW_QUERIES and small and 1 < n_blocks <= LARGEST_GRID:
        options["backend"] = "GPU_2D"  # for block sums only: its code for others fails
    return options


def run(values: Any, name: str, *, n_threads: int, **options: Any) -> Any:
    """Return a lazy tensor reduced over the training points, by its method ``name``."""
    # chunks: wrong gradients and NaN were reported for many features (keops#216, #370)
    options = {"enable_chunks": False, "use_fast_math": False, **options}
    device = _device(values)
    if device is not None:
        options["device_id"] = device.index
    formula = getattr(values, name)(axis=1, call=False, **options)
    key = str(formula), str(formula.formula), formula.dtype, str(options)
    with (
        threadpool_limits(openmp_threads(n_threads), user_api="openmp"),
        _in_turn_with_torch(device),
    ):
        if key in _compiled:
            return formula()
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        with compilation(name, formula.callfun.formula, _build_folder()):
            result = _compile(formula)
        _compiled.add(key)
        return result


def _device(values):
    """Return the GPU that a lazy tensor is to be reduced on, as torch knows it, or None.

    Of arrays on the host it is torch's current one, if torch uses any, else KeOps' own
    choice.
    """
    devices = (getattr(variable, "device", None) for variable in values.variables)
    device = next((d for d in devices if getattr(d, "type", None) == "cuda"), None)
    torch = sys.modules.get("torch")
    if device is None and torch is not None and uses_gpu():
        if torch.cuda.is_initialized():
            return torch.device("cuda", torch.cuda.current_device())
    return device


@contextlib.contextmanager
def _in_turn_with_torch(device: Any) -> Iterator[None]:
    """Let KeOps and torch wait for each other on a GPU; None where torch uses none.

    KeOps works on the default stream, for which torch's current one does not wait, nor
    the other way round. It leaves the device current that it worked on; torch's is
    restored.
    """
    if device is None:
        yield
        return
    cuda = sys.modules["torch"].cuda
    with cuda.device(device):
        cuda.current_stream(device).synchronize()
        yield
        cuda.synchronize(device)


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
