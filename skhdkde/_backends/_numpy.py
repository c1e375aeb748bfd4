"""Tiles by numpy, on threads of the CPU."""

import threading

import numpy as np

from skhdkde._backends._tiles import visit_pairs

__all__ = ["reduce_pairs"]


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


_device = NumpyDevice()


def reduce_pairs(reduction, queries, points, **options):
    """See :func:`skhdkde._backends.reduce_pairs`."""
    return visit_pairs(_device, reduction, queries, points, **options)
