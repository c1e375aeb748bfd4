"""What every other room uses, and what knows nothing of kernels or densities.

===========  ==========================================================================
typing       the roles that are no abstract base classes, and names for kinds of arrays
arrays       functions of arrays of numpy, torch and KeOps, and of X in any library
validation   checks of X, weights and parameters, with the parameter's name in errors
moments      weight, mean, variance and covariance of blocks of points, which merge
random       seeds, and a random order of rows on which blocks of X agree
hashing      hashes of rows, by which duplicates are found
threads      tasks on threads, with one BLAS thread in each; progress bars
warnings     warnings that name the user's line
===========  ==========================================================================
"""

from skhdkde._utils.arrays import (
    BLOCK_SIZE,
    DeviceArray,
    beside,
    column,
    finite_or_zero,
    like,
    local,
    namespace,
    number,
    prototype,
    relative_weights,
    row_batches,
    select,
    slices,
    smallest,
    to_host,
    weighted_mean,
)
from skhdkde._utils.hashing import find_hashes, row_hashes
from skhdkde._utils.moments import Moments, Scatter, expected_squared_error, without_each
from skhdkde._utils.random import lowest, sampling_ranks, seed_from
from skhdkde._utils.threads import ForkWatch, n_threads_for, progress_bar, run_tasks
from skhdkde._utils.validation import (
    ALL_ZERO,
    check_bandwidth,
    check_data,
    check_n_jobs,
    check_points,
    check_weights,
    finite_weights,
    interleaved,
)
from skhdkde._utils.warnings import warn_user

__all__ = [
    "ALL_ZERO",
    "BLOCK_SIZE",
    "DeviceArray",
    "ForkWatch",
    "Moments",
    "Scatter",
    "beside",
    "check_bandwidth",
    "check_data",
    "check_n_jobs",
    "check_points",
    "check_weights",
    "column",
    "expected_squared_error",
    "find_hashes",
    "finite_or_zero",
    "finite_weights",
    "interleaved",
    "like",
    "local",
    "lowest",
    "n_threads_for",
    "namespace",
    "number",
    "progress_bar",
    "prototype",
    "relative_weights",
    "row_batches",
    "row_hashes",
    "run_tasks",
    "sampling_ranks",
    "seed_from",
    "select",
    "slices",
    "smallest",
    "to_host",
    "warn_user",
    "weighted_mean",
    "without_each",
]
