"""How long a pass over pairs takes by each backend, from what devices can do.

Numbers of passes are those of a Gaussian kernel. With the limits of an NVIDIA H200 the
times of torch and KeOps are within 40 % of those measured there (benchmarks/gpu.py), as
long as a query is in registers, and the order changes where it does there.
"""

import dataclasses
from typing import Any

import numpy as np

from skhdkde._pairwise.device_table import GPU_TILE, Limits

# Passes over a tile that take as long as one of ``exp``, and times that of its product.
NUMPY_PASSES, NUMPY_PRODUCTS = 4.0, 1.0
TORCH_PASSES, TORCH_PRODUCTS = 3.0, 2.0
# Seconds in which numpy prepares a coordinate.
PREPARATION = 4.7e-9
# By KeOps, in passes of ``exp``: a pair, and each of its features.
KEOPS_PAIR = {"float32": 2.5, "float64": 1.8}
KEOPS_FEATURE = {"float32": 0.15, "float64": 0.145}
# Bytes of a query from which on it is not in registers, and how much slower it is then.
REGISTERS, WITHOUT_REGISTERS = 768, 4.0
# Seconds of a call of KeOps, and how much longer it takes for a choice of the bandwidth:
# a formula for each number of bandwidths, and the nearest neighbours.
KEOPS_CALL, KEOPS_SEARCH = 1e-3, 3.5


@dataclasses.dataclass(frozen=True)
class Pass:
    """A pass over pairs; ``search`` if it is to choose a bandwidth."""

    n_queries: int
    n_points: int
    n_features: int
    dtype: Any
    search: bool = False

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return self.n_queries * self.n_points

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of queries and points."""
        return (self.n_queries + self.n_points) * self.n_features


def numpy_seconds(host: Limits, n_threads: int, of: Pass) -> float:
    """Return the seconds of a pass by numpy."""
    pair = NUMPY_PRODUCTS * host.product_seconds(of.n_features + 2, of.dtype)
    pair += NUMPY_PASSES * host.exponential[np.dtype(of.dtype).name]
    return (of.n_pairs * pair + of.n_coordinates * PREPARATION) / n_threads


def torch_seconds(gpu: Limits, of: Pass) -> float:
    """Return the seconds of a pass by torch on a GPU."""
    dtype = np.dtype(of.dtype)
    pair = TORCH_PRODUCTS * gpu.product_seconds(of.n_features + 2, dtype)
    pair += TORCH_PASSES * gpu.exponential[dtype.name]
    n_tiles = -(-of.n_queries // GPU_TILE[0]) * -(-of.n_points // GPU_TILE[1])
    return of.n_pairs * pair + n_tiles * gpu.tile + _seconds_to_bring(gpu, of)


def keops_seconds(gpu: Limits, of: Pass) -> float:
    """Return the seconds of a pass by KeOps on a GPU, once its formula is compiled."""
    dtype = np.dtype(of.dtype)
    feature = KEOPS_FEATURE[dtype.name]
    if of.n_features * dtype.itemsize > REGISTERS:
        feature *= WITHOUT_REGISTERS
    pair = KEOPS_PAIR[dtype.name] + feature * of.n_features
    seconds = of.n_pairs * pair * gpu.exponential[dtype.name] + KEOPS_CALL
    seconds *= KEOPS_SEARCH if of.search else 1.0
    return seconds + _seconds_to_bring(gpu, of)


def _seconds_to_bring(gpu, of):
    """Return the seconds in which queries and points are prepared and uploaded."""
    coordinate = PREPARATION + np.dtype(of.dtype).itemsize * gpu.upload
    return of.n_coordinates * coordinate
