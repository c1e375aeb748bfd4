"""The engine: reductions over all pairs of a query and a training point.

A kernel sum, its gradient, the nearest points and a diagnosis are each a ``Reduction``:
what is computed, apart from how pairs are visited. ``reduce_pairs`` is the one entry::

    Reduction                              Device, or backend
      RelativeSums                           NumpyDevice     tiles in the cache of a core
        KernelGridSums    --reduce_pairs-->  TorchDevice     tiles on a GPU, or by torch
        KernelReduction      over            keops_backend   formulas over all pairs
          LogSumExp          TrainingPoints
          Gradient
          Shares
      KSmallest, Nearest

The life of a tile, some queries against some points: (1) one matrix product gives their
squared distances; (2) a bound on its rounding errors, and the reduction, say which pairs
are not sharp enough, and (3) these are computed again; (4) the reduction turns the tile
into its state, which merges with that of other tiles; (5) states are finished as results.

Log densities of float64 data are precise to 1e-8 nats, those of float32 data to 1e-3, or
to the rounding of the result where that is more: the ``tol`` of a reduction.

================  ======================================================================
backends       options of a pass, the loop over tiles; `backend_choice`, which backend,
               by `pass_times` and by what `device_table` has measured
torch_backend  tiles by torch; `torch_visit` visits blocks without waiting for what it
               finds, `torch_settings` has what torch is set to meanwhile
triton_kernels  log sums on a GPU, fused, by Triton
keops_backend  a formula for each reduction; `keops_runtime` compiles and runs them,
               `keops_files` keeps what KeOps writes whole
points         training points and queries, in scaled units
tiles          tiles, bounds on their rounding errors, and mending
screening      float64 log sums from float32 tiles, and pairs that matter from differences
matrix_points  points with a matrix each, and tiles of distances in these metrics
projected_points  points with kernels projected to the unit sphere, and their tiles
reductions     reductions; `kernel_grid`, for many settings of a kernel at once
log_sums       kernel sums over distances that are given
=============  =========================================================================

A new reduction is a subclass of ``Reduction``, with a formula in ``keops_backend``. A new
device is a class with the methods of ``Device`` in ``_utils/typing``, and a file
``<name>_backend`` with ``visit_pairs``, whose name is added to ``BACKENDS``.
"""

from skhdkde._pairwise.backend_choice import BACKENDS, Plan
from skhdkde._pairwise.backends import ComputeOptions, reduce_pairs
from skhdkde._pairwise.kernel_grid import KernelGridSums, KernelSetting
from skhdkde._pairwise.log_sums import log_sums, relative_values
from skhdkde._pairwise.matrix_points import MatrixPoints
from skhdkde._pairwise.points import (
    TrainingPoints,
    distinct_rows,
    indistinct_sq,
    largest_entry,
    scale_for,
    sorting_keys,
    useful_center,
)
from skhdkde._pairwise.projected_points import ProjectedGridSums, ProjectedPoints
from skhdkde._pairwise.reductions import (
    NEIGHBOR_TOL,
    Gradient,
    KernelReduction,
    KSmallest,
    LogSumExp,
    Nearest,
    PartialGradient,
    Reduction,
    ReductionSpec,
    Shares,
    SharesState,
)
