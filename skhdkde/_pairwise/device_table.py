"""What a GPU and this host can do, measured once and kept in a cache.

A GPU is measured by torch, in less than a second, which initialises CUDA; what is in the
cache is read without that. The cache is ``backends.json`` in the folder that
``SKHDKDE_CACHE_FOLDER`` names, else in the user's cache. If it cannot be written, each
process measures for itself.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from skhdkde._utils.typing import FloatArray

# Lengths of the inner products that are measured, and the tiles on a GPU and on the host.
WIDTHS = (4, 18, 66, 258, 1026)
GPU_TILE, HOST_TILE = (4096, 8192), (128, 1024)
DTYPES = ("float32", "float64")
UPLOADED = 2**24  # bytes
# Small operations between two tiles, the last of which waits for the result.
STEPS_OF_A_TILE = 12
DRIVER = pathlib.Path("/proc/driver/nvidia/gpus")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a device can do, in seconds."""

    product: dict[str, list[float]]  # by dtype and width: a pair of a matrix product
    exponential: dict[str, float]  # by dtype: one pass of ``exp`` over a pair
    upload: float = 0.0  # a byte, from the host
    tile: float = 0.0  # of the host, for a tile

    def product_seconds(self, width: int, dtype: Any) -> float:
        """Return the seconds for a pair of a product of any width."""
        seconds = self.product[np.dtype(dtype).name]
        most = WIDTHS[-1]
        return float(np.interp(width, WIDTHS, seconds)) * max(1.0, width / most)


def host_limits() -> Limits:
    """Return what one thread of this host can do."""
    return _kept(f"host {platform.node()} numpy {np.__version__}", _measure_host)


def gpu_limits(*, measure: bool) -> Limits | None:
    """Return what the GPU of this machine can do.

    None where that is not in the cache, and is not to be or cannot be measured.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("torch")
        name = f"{', '.join(_gpu_names())} ({visible}) torch {version}"
        return _kept(name, _measure_gpu if measure else None)
    return None


def _gpu_names():
    """Return the names of the GPUs, as the driver has them."""
    names = set()
    for path in sorted(DRIVER.glob("*/information")):
        with contextlib.suppress(OSError):
            lines = path.read_text().splitlines()
            names |= {line.split(":")[1].strip() for line in lines if "Model" in line}
    return sorted(names)


@functools.cache
def _measured(measure: Callable[[], Limits | None]) -> Limits | None:
    """Return what was measured, once in a process."""
    return measure()


def _kept(name, measure):
    """Return limits from the cache, else measure them (if a way is given), and keep."""
    name = f"{name} skhdkde {sys.modules['skhdkde'].__version__}"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return Limits(**_read()[name])
    if measure is None:
        return None
    limits = _measured(measure)
    if limits is not None:
        with contextlib.suppress(OSError):
            _write(name, limits)
    return limits


def _file():
    """Return the file of the cache."""
    if folder := os.environ.get("SKHDKDE_CACHE_FOLDER"):
        return pathlib.Path(folder) / "backends.json"
    of_user = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    folder = of_user or str(pathlib.Path.home() / ".cache")
    return pathlib.Path(folder) / "skhdkde" / "backends.json"


def _read():
    return json.loads(_file().read_text())


def _write(name, limits):
    """Add limits to the cache: written beside and renamed, as others may read it."""
    path, known = _file(), {}
    with contextlib.suppress(OSError, ValueError):
        known = dict(_read())
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(known | {name: dataclasses.asdict(limits)}, indent=1))
    beside.replace(path)


def _seconds(call, wait=lambda: None):
    """Return the least seconds of a few calls, after one to warm up."""
    taken = []
    for _ in range(4):
        wait()
        start = time.perf_counter()
        call()
        wait()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def _measure_host():
    from threadpoolctl import threadpool_limits

    rows, cols = HOST_TILE
    product: dict[str, list[float]] = {}
    exponential: dict[str, float] = {}
    with threadpool_limits(1, user_api="blas"):
        for dtype in DTYPES:
            tile = np.ones(HOST_TILE, dtype=dtype)
            product[dtype] = []
            for width in WIDTHS:
                x, y = np.ones((rows, width), dtype), np.ones((cols, width), dtype)
                taken = _seconds(functools.partial(np.matmul, x, y.T, out=tile))
                product[dtype].append(taken / tile.size)
            tile[:] = -0.5
            out = np.empty_like(tile)
            taken = _seconds(functools.partial(np.exp, tile, out=out))
            exponential[dtype] = taken / tile.size
    return Limits(product, exponential)


def _measure_gpu():
    """Return what torch's current GPU can do; None if there is none, or no room."""
    import torch

    try:
        if not torch.cuda.is_available():
            return None
        limits = measured_by_torch("cuda", GPU_TILE, torch.cuda.synchronize)
        torch.cuda.empty_cache()
    except RuntimeError:  # out of memory, or a forked child of a process that has used it
        return None
    return limits


def measured_by_torch(place: str, shape: tuple[int, int], wait: Any) -> Limits:
    """Return what a device of torch can do, on tiles of a shape."""
    import torch

    product: dict[str, list[float]] = {}
    exponential: dict[str, float] = {}
    n_pairs = shape[0] * shape[1]
    for name in DTYPES:
        options = {"dtype": getattr(torch, name), "device": place}
        tile = torch.empty(shape, **options)
        product[name] = []
        for width in WIDTHS:
            x, y = (torch.ones((n, width), **options) for n in shape)
            taken = _seconds(functools.partial(torch.matmul, x, y.T, out=tile), wait)
            product[name].append(taken / n_pairs)
        tile.fill_(-0.5)
        out = torch.empty_like(tile)
        taken = _seconds(functools.partial(torch.exp, tile, out=out), wait)
        exponential[name] = taken / n_pairs
    on_host, small = torch.zeros(UPLOADED // 4), torch.zeros(64, device=place)
    upload = _seconds(lambda: on_host.to(place, copy=True), wait) / UPLOADED
    return Limits(product, exponential, upload, _seconds(lambda: _steps(small), wait))


def _steps(values: Any) -> FloatArray:
    """Do as many small things as the host does between two tiles."""
    for _ in range(STEPS_OF_A_TILE):
        values = values + 1.0
    return values.cpu().numpy()
