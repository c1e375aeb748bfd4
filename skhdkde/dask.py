"""The estimator for training points and queries on a Dask cluster."""

from skhdkde._dask_estimator import DaskHighDimKernelDensity

__all__ = ["DaskHighDimKernelDensity"]
