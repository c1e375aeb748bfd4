"""Roles that have no abstract base class, and names for kinds of arrays.

A class plays a role by having its methods; nothing has to be inherited. Other roles are
base classes: ``Kernel`` (_kernels), ``Reduction`` (_pairwise), ``BaseDensity``
(_density), ``BaseHeldOut`` (_selection), ``Training`` (_fit), ``Task`` (_distributed).
"""

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

FloatArray: TypeAlias = NDArray[np.floating]
IntArray: TypeAlias = NDArray[np.integer]
# A numpy array, a torch tensor or a lazy tensor of KeOps.
AnyTile: TypeAlias = Any
# Which rows of an array.
Rows: TypeAlias = slice | IntArray


class Device(Protocol):
    """Where tiles are, and how many queries and points they have at most."""

    tile_rows: int
    block_size: int  # entries of a block of queries, or of points to convert, at most
    longest_walk: int  # terms of an inner product before a new block of them starts
    splits_points: bool  # whether tasks are for some of the points where queries are few

    def n_tasks(self, n_threads: int) -> int:
        """Return how many tasks to run at once."""

    def working(self) -> Any:
        """Return a context in which a thread works on tasks."""

    def cols_for(self, n_rows: int, n_features: int, dtype: np.dtype) -> int:
        """Return how many points a tile of so many queries has at most."""

    def visit(self, reduction: Any, queries: Any, points: Any, cols: slice, check: Any):
        """Return the state, on the host, of a reduction over queries and points.

        ``check`` is called before each tile.
        """

    def start(self, reduction: Any, n_rows: int) -> tuple:
        """Return the state of no points, on the device."""

    def put(self, array: np.ndarray) -> AnyTile:
        """Return a small array from the host on the device."""

    def keep(self, array: np.ndarray) -> AnyTile:
        """Return an array on the device, which stays there for the next call."""

    def queries(self, queries: Any, rows: slice) -> AnyTile:
        """Return some of the queries in scaled units, float64, on the device."""

    def block(self, points: Any, cols: slice, dtype: DTypeLike) -> AnyTile:
        """Return the augmented points ``cols`` in ``dtype`` on the device."""

    def weights(self, points: Any, cols: slice, dtype: DTypeLike) -> AnyTile:
        """Return the weights of the points ``cols`` in ``dtype`` on the device."""

    def exact(self, points: Any, rows: Any) -> AnyTile:
        """Return some points, as they were given, on the device, as ``rows`` are."""

    def squared_distances(self, queries: AnyTile, points: Any, cols: slice) -> AnyTile:
        """Return squared distances from differences, in float64."""

    def product(self, queries: AnyTile, block: AnyTile) -> AnyTile:
        """Return ``queries @ block.T``; the next product may overwrite it."""

    def scratch(self, like: AnyTile) -> AnyTile:
        """Return an uninitialised array, which the next call may overwrite."""


class Points(Protocol):
    """What rules and reductions ask of training points, wherever these are.

    Data units, or whitened units of a whitening, times ``scale`` are scaled units, in
    which all other lengths are.
    """

    scale: float
    largest_norm: float  # of the centred points
    indistinct_sq: float  # up to which a query may be one of the points
    weights: Any  # None if all are equal
    smallest_weight: float  # relative to the largest
    sq_factor: FloatArray | None  # of squared distances, if there are local scales

    @property
    def shape(self) -> tuple[int, int]:
        """Number of points of positive weight, and of features."""

    @property
    def dtype(self) -> np.dtype:
        """dtype of the points."""

    def mean_square_spread(self) -> float:
        """Return the weighted mean of ``|y - mean|^2``."""

    def effective_number(self) -> float:
        """Return Kish's effective number of points."""


class NeighborSearch(Protocol):
    """How training points near a query are found."""

    kind: str | None  # what the index is called; None if it finds only some near points
    efforts: tuple  # settings from fast to thorough; none for an exact search
    most: int  # the largest k

    def search(
        self, queries: Any, own: IntArray, k: int, effort: Any, options: Any
    ) -> IntArray:
        """Return indices of points, (n_queries, at least k), -1 where there are no more.

        ``own`` is the index of each query among the points, -1 for none; it is not found.
        """
