"""Roles that have no abstract base class, and names for kinds of arrays.

A class plays a role by having its methods; nothing has to be inherited. The roles of a
kernel and of a reduction are the base classes ``Kernel`` and ``Reduction``.
"""

from __future__ import annotations

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
    """Where tiles are, and how large they are.

    Attributes
    ----------
    tile_rows, tile_cols : int
        Queries and training points in a tile, at most.
    """

    tile_rows: int
    tile_cols: int

    def n_tasks(self, n_threads: int) -> int:
        """Return how many tasks to run at once."""
        ...

    def put(self, array: np.ndarray) -> AnyTile:
        """Return a small array from the host on the device."""
        ...

    def block(self, points: Any, cols: slice, dtype: DTypeLike) -> AnyTile:
        """Return the augmented points ``cols`` in ``dtype`` on the device."""
        ...

    def product(self, queries: FloatArray, block: AnyTile) -> AnyTile:
        """Return ``queries @ block.T``; the next product may overwrite it."""
        ...

    def scratch(self, like: AnyTile) -> AnyTile:
        """Return an uninitialised array, which the next call may overwrite."""
        ...


class Points(Protocol):
    """What rules and reductions ask of training points, wherever these are.

    Attributes
    ----------
    shape : tuple of int
        Number of points of positive weight, and of features.
    dtype : dtype
    scale : float
        Data units, or whitened units, times this are scaled units.
    largest_norm : float
        Largest distance from the centre, in scaled units.
    indistinct_sq : float
        Squared distance, in scaled units, up to which a query may be one of the points.
    weights : ndarray, bool or None
        None if all are equal.
    smallest_weight : float
        Relative to the largest.
    sq_factor : ndarray of shape (n_points,) or None
        Factors of squared distances, if the points have local scales.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    scale: float
    largest_norm: float
    indistinct_sq: float
    weights: Any
    smallest_weight: float
    sq_factor: FloatArray | None

    def mean_square_spread(self) -> float:
        """Return the weighted mean of ``|y - mean|^2``, in squared scaled units."""
        ...

    def effective_number(self) -> float:
        """Return Kish's effective number of points."""
        ...


class Task(Protocol):
    """What is computed on each block of training points, and how results merge."""

    def of(self, X: np.ndarray, weights: FloatArray | None, *more: Any) -> Any:
        """Return the result for a block; None if there are no points in it."""
        ...

    def merge(self, result: Any, other: Any) -> Any:
        """Return the result of two blocks from that of each."""
        ...


class DensityLike(Protocol):
    """What an estimator asks of a fitted density.

    Attributes
    ----------
    kernel : Kernel
    bandwidth : float
        In whitened units, which without a whitening are data units.
    n_points, n_features : int
    dtype : dtype
        Of the training points.
    """

    kernel: Any
    bandwidth: float
    n_points: int
    n_features: int
    dtype: np.dtype

    def log_density(self, X: np.ndarray | None, options: Any) -> FloatArray:
        """Return log densities of shape (n_queries,)."""
        ...

    def gradient(self, X: np.ndarray, options: Any) -> FloatArray:
        """Return gradients of the log density, (n_queries, n_features), per data unit."""
        ...

    def diagnose(self, X: np.ndarray | None, options: Any) -> tuple:
        """Return log densities and the columns of ``Diagnosing``."""
        ...


class NeighborSearch(Protocol):
    """How training points near a query are found.

    Attributes
    ----------
    kind : str
        What the index is called.
    efforts : tuple
        Settings from fast to thorough; none for an exact search.
    most : int
        The largest ``k``.
    """

    kind: str
    efforts: tuple
    most: int

    def search(
        self, queries: Any, own: IntArray, k: int, effort: Any, options: Any
    ) -> IntArray:
        """Return indices of points, (n_queries, at least k), -1 where there are no more.

        ``own`` is the index of each query among the points, -1 for none; it is not found.
        """
        ...
