"""The choice of a backend, which imports none that it does not choose.

A child forked after CUDA was initialised cannot use it. It is initialised only where
"auto" measures a GPU, and that only if a pass follows which takes numpy long.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import sys
from ctypes.util import find_library
from typing import Any

from skhdkde._pairwise.device_table import gpu_limits, host_limits
from skhdkde._pairwise.pass_times import (
    Pass,
    keops_seconds,
    numpy_seconds,
    torch_seconds,
)
from skhdkde._utils.threads import n_threads_for
from skhdkde._utils.warnings import warn_user

BACKENDS = ("auto", "numpy", "keops", "torch")
INSTALL = {"keops": ("pykeops", "pykeops"), "torch": ("torch", "skhdkde[torch]")}
# The first that says in a class of its own that memory ran out.
OLDEST_TORCH = "2.5"
# On a GPU that was not measured: KeOps keeps a query in registers, which pays up to about
# so many features; beyond, matrix products are faster. benchmarks/gpu.py has the table.
KEOPS_UP_TO = 16
# A block of threads keeps a point for each thread in shared memory: 48 KiB on all cards.
# Where one of float64 (queries of float32 may be computed again in it) does not fit, with
# its weight, three numbers for scaled distances and two digits of its number, KeOps would
# divide by zero.
KEOPS_AT_MOST = 48 * 2**10 // 8 - 6
# Seconds of a pass by numpy that are too few to look at a GPU.
SHORT = 0.02
# Queries that are expected at least.
MANY_QUERIES = 10_000
# Libraries that KeOps looks for: without them it uses the CPU.
KEOPS_LIBRARIES = ("cuda", "nvrtc")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Describe the passes to come, for the choice of a backend.

    Attributes
    ----------
    n_points : int
    dtype : dtype
        Of the points.
    search : bool, default=False
        Whether a bandwidth was or is to be chosen.
    at_once : bool, default=True
        Whether passes follow at once, so that a GPU may be initialised.
    """

    n_points: int
    dtype: Any
    search: bool = False
    at_once: bool = True

    def longest(self, n_features: int) -> Pass:
        """Return a pass with as many queries as points, or with many."""
        n_queries = max(self.n_points, MANY_QUERIES)
        return Pass(n_queries, self.n_points, n_features, self.dtype, self.search)


def resolve_backend(
    backend: str,
    n_features: int,
    on_gpu=False,
    tiles=False,
    plan: Plan | None = None,
    n_jobs: int | None = 1,
) -> str:
    """Return the backend to use, where users asked for one of ``BACKENDS``.

    ``on_gpu`` says whether the data are a tensor on a GPU, and ``tiles`` whether pairs
    must be visited tile by tile. ``n_jobs`` are the threads of numpy. A backend that is
    asked for by name must be installed.
    """
    if backend == "auto":
        return _best_backend(n_features, on_gpu, tiles, plan, n_jobs)
    if tiles and backend == "keops":
        raise ValueError(
            "backend='keops' visits all pairs: it works with algorithm='exact' only; "
            "'numpy' and 'torch' work with all."
        )
    if backend != "numpy" and not _installed(backend):
        module, requirement = INSTALL[backend]
        raise ImportError(
            f"backend={backend!r} needs {module}, which is not installed: "
            f"pip install '{requirement}'. backend='numpy' needs no package."
        )
    if backend == "torch" and not _torch_is_recent():
        raise ImportError(
            f"backend='torch' needs torch {OLDEST_TORCH} or later, and "
            f"{importlib.metadata.version('torch')} is installed: "
            f"pip install -U torch. backend='numpy' needs no package."
        )
    if backend == "keops":
        check_keops_uses_gpu()
    return backend


def _best_backend(n_features, on_gpu, tiles, plan, n_jobs):
    """Return the backend that is fastest for data of ``n_features`` on this machine."""
    if not (on_gpu or _has_cuda_gpu()):
        return "numpy"
    order = ("keops", "torch") if n_features <= KEOPS_UP_TO else ("torch", "keops")
    usable = {name: _usable_on_gpu(name) for name in order}
    usable["keops"] &= not tiles and n_features <= KEOPS_AT_MOST
    usable["torch"] |= on_gpu
    names = [name for name in order if usable[name]]
    fastest = None
    if names and plan is not None:
        fastest = _fastest(names, n_features, on_gpu, plan, n_jobs)
    return fastest or next(iter(names), "numpy")


def _fastest(names, n_features, on_gpu, plan, n_jobs):
    """Return which of these backends or numpy is fastest; None without measurements."""
    longest, seconds = plan.longest(n_features), {}
    if not on_gpu:
        n_threads = n_threads_for(n_jobs)
        seconds["numpy"] = numpy_seconds(host_limits(), n_threads, longest)
        if seconds["numpy"] < SHORT:
            return "numpy"
    gpu = gpu_limits(measure=plan.at_once and "torch" in names)
    if gpu is None:
        return None
    by_gpu = {"torch": torch_seconds, "keops": keops_seconds}
    seconds |= {name: by_gpu[name](gpu, longest) for name in names}
    return min(seconds, key=seconds.__getitem__)


def _installed(backend):
    return importlib.util.find_spec(INSTALL[backend][0]) is not None


def _torch_is_recent():
    """Return whether torch, which is installed, is no older than `OLDEST_TORCH`."""
    numbers = importlib.metadata.version("torch").split("+")[0].split(".")
    return [int(n) for n in numbers[:2]] >= [int(n) for n in OLDEST_TORCH.split(".")]


def _usable_on_gpu(backend):
    """Return whether a backend, which is not imported, can use a GPU here."""
    if not _installed(backend):
        return False
    if backend == "torch":
        on_cpu_only = "+cpu" in importlib.metadata.version("torch")
        return _torch_is_recent() and not on_cpu_only
    compilers = os.environ.get("CXX", "g++"), "g++", "clang++"
    return any(shutil.which(name) for name in compilers) and _keops_finds_gpu()


def check_keops_uses_gpu() -> None:
    """Warn, once, if there is a GPU that KeOps does not use."""
    if _has_cuda_gpu() and not _keops_finds_gpu():
        _warn_of_keops_on_cpu()


def _keops_finds_gpu():
    """Return whether KeOps uses a GPU, or will once it is imported.

    What it says, if it is; else whether it will find the libraries that it needs.
    """
    config = sys.modules.get("pykeops.config")
    if config is not None and hasattr(config, "gpu_available"):
        return bool(config.gpu_available)
    return all(map(_library_found, KEOPS_LIBRARIES))


@functools.cache
def _library_found(name):
    """Return whether a shared library is found, as KeOps looks for it."""
    return find_library(name) is not None


@functools.cache
def _warn_of_keops_on_cpu():
    """Warn, once, that KeOps does not use the GPU that is there."""
    missing = [f"lib{name}" for name in KEOPS_LIBRARIES if not _library_found(name)]
    why = "does not find " + " and ".join(missing) if missing else "could not use it"
    warn_user(
        f"backend='keops' computes on the CPU although there is a GPU: KeOps {why}. "
        "Install the CUDA toolkit, which has NVRTC, where the linker finds it "
        "(LD_LIBRARY_PATH), or use backend='torch'; pykeops.check_health() says more."
    )


def _has_cuda_gpu():
    """Return whether a CUDA GPU is visible, without initialising it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return _has_nvidia_driver()


@functools.cache
def _has_nvidia_driver():
    """Return whether the driver is installed, which is asked once."""
    on_linux = pathlib.Path("/proc/driver/nvidia/version").exists()
    return on_linux or (os.name == "nt" and shutil.which("nvidia-smi") is not None)
