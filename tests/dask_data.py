"""Data for the tests of Dask, in blocks."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd


def draws(n=400, d=6, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    weights = rng.exponential(size=n)
    weights[::9] = 0.0
    return X.astype(dtype), weights, rng.standard_normal((30, d)).astype(dtype)


def blocks(X, sizes):
    return da.from_array(X, chunks=(sizes, *X.shape[1:]))


def data_frame(X):
    columns = [f"feature {k}" for k in range(X.shape[1])]
    return dd.from_pandas(pd.DataFrame(X, columns=columns), npartitions=4)


def with_entry(X, row, value):
    X = X.copy()
    X[row, 1] = value
    return X
