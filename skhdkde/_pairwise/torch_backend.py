"""Tiles by torch, on a GPU if there is one."""

import contextlib
from typing import Any

import numpy as np
import torch

from skhdkde._pairwise.backends import visit_pairs as visit_tiles
from skhdkde._pairwise.points import augment_on_gpu
from skhdkde._utils.threads import n_threads_for, openmp_threads
from skhdkde._utils.typing import Device

# Rows and columns of a tile, entries of a block of queries, and most tasks at once. On a
# GPU a tile of float32 is 128 MiB, large enough to keep all of it busy, and while it
# computes the tiles of one task, other threads prepare the queries of the next ones.
ON_GPU = (4096, 8192, 2**22, 4)
# On the CPU a tile stays in the shared cache, and torch's own threads work on each.
ON_CPU = (1024, 2048, 2**20, 1)
# Smallest tiles to try when memory runs out.
SMALLEST_ROWS = 64


class TorchDevice(Device):
    """Tiles by torch, on the device ``place``."""

    def __init__(self, place: Any):
        self.place = torch.device(place)
        on_gpu = self.place.type == "cuda"
        shape = ON_GPU if on_gpu else ON_CPU
        self.tile_rows, self.tile_cols, self.block_size, self._most_tasks = shape
        self._blocks: dict[tuple, Any] = {}
        self._keep = on_gpu

    def n_tasks(self, n_threads):
        return min(n_threads, self._most_tasks)

    def put(self, array):
        return torch.as_tensor(array, device=self.place)

    def block(self, points, cols, dtype):
        """Return the augmented points, kept on a GPU for the next block of queries."""
        key = (id(points), cols.start, cols.stop, np.dtype(dtype).str)
        if key in self._blocks:
            return self._blocks[key]
        if points.on_gpu:
            return self._on_gpu(points, cols, dtype)
        block = self.put(points.block(cols, dtype))
        if self._keep:
            self._blocks[key] = block
        return block

    def _on_gpu(self, points, cols, dtype):
        if dtype == points.dtype:
            return points.augmented.tensor[cols]
        return augment_on_gpu(points.exact.tensor[cols].double(), points.center)

    def product(self, queries, block):
        """Return ``queries @ block.T``, without the shortcuts of tensor cores."""
        return torch.matmul(self.put(queries), block.T)

    def shrink(self) -> None:
        """Take smaller tiles, one at a time, and keep no points: memory ran out."""
        self.tile_rows, self.tile_cols = self.tile_rows // 2, self.tile_cols // 2
        self._most_tasks = 1
        self._blocks, self._keep = {}, False
        torch.cuda.empty_cache()

    def scratch(self, like):
        return torch.empty_like(like)


def visit_pairs(reduction, queries, points, options, leave_out, out):
    """Fill ``out`` as :func:`~skhdkde._pairwise.backends.reduce_pairs` does, by torch."""
    device = TorchDevice("cuda" if torch.cuda.is_available() else "cpu")
    if points.on_gpu:
        device = TorchDevice(points.exact.tensor.device)
    with _settings(openmp_threads(n_threads_for(options.n_jobs))):
        while True:
            try:
                visit_tiles(device, reduction, queries, points, options, leave_out, out)
                return
            except torch.OutOfMemoryError:
                if device.tile_rows < 2 * SMALLEST_ROWS:
                    raise
                device.shrink()


@contextlib.contextmanager
def _settings(n_threads):
    """Set the threads of torch, and products in full precision, while a pass runs."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(n_threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
