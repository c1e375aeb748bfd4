"""Rows added by ``partial_fit``: what they cost, and what a fit to all rows gains.

``python benchmarks/growth.py`` prints GitHub-markdown tables. See README.md beside
this file. ``time`` needs faiss.
"""

import argparse
import time
import warnings

import numpy as np
from reporting import announce, describe_run, write_table

from skhdkde import HighDimKernelDensity

ALONG = "along 16 directions"
NOISE = "white noise"


def cpu_seconds(function, X):
    start = time.process_time()
    function(X)
    return time.process_time() - start


def points(kind, n_points, n_features=128):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_points, n_features))
    if kind == ALONG:
        axes = rng.standard_normal((16, n_features))
        X = rng.standard_normal((n_points, 16)) @ axes + 0.1 * X
    return X.astype(np.float32)


def times(options):
    """CPU seconds of a fit and of rows added to it, on one thread."""
    rows = []
    for index, kind in (("ivf", ALONG), ("hnsw", ALONG), ("ivf", NOISE), (None, ALONG)):
        announce(f"{index}, {kind}")
        X = points(kind, options.points + 4000)
        params = {"n_jobs": 1, "random_state": 0}
        if index is not None:
            params |= {"algorithm": "neighbors", "neighbors_index": index}
        kde = HighDimKernelDensity(**params)
        fit = cpu_seconds(kde.fit, X[: options.points])
        batches = np.split(X[options.points :], 4)
        first, *others = [cpu_seconds(kde.partial_fit, batch) for batch in batches]
        later = float(np.median(others))
        shares = f"{first / fit:.1%}, {later / fit:.1%}"
        row = [index or "exact", kind, f"{fit:.2f}", f"{first:.2f}", f"{later:.2f}"]
        rows.append([*row, shares])
    columns = "index|data|fit|first 1000 rows|the next|shares of fit"
    title = f"CPU seconds, {options.points} rows of 128 features, float32, one thread"
    write_table(title, columns, rows)


def losses(options):
    """Mean log density that a fit to all rows gains over rows added."""
    rows = []
    kinds = {
        "spherical": {},
        "full": {"covariance_type": "full", "preserve_variance": True},
    }
    for name, params in kinds.items():
        for n_features in (2, 10, 50):
            for n_points in (2000, 10_000):
                announce(f"{name}, d = {n_features}, n = {n_points}")
                found = [
                    loss(params, n_features, n_points, seed)
                    for seed in range(options.seeds)
                ]
                gain, ratio = np.mean(found, axis=0)
                rows.append([name, n_features, n_points, f"{gain:.4f}", f"{ratio:.3f}"])
    columns = "structure|features|rows|gain, nats|bandwidth, ratio"
    title = "A fit to all rows, over one to 1000 with the others added"
    write_table(title, columns, rows)


def loss(params, n_features, n_points, seed):
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(9)
    mixing = fixed.standard_normal((n_features, n_features)) / n_features**0.5
    mixing += np.eye(n_features)
    X, fresh = (rng.standard_normal((n, n_features)) @ mixing for n in (n_points, 2000))
    kde = HighDimKernelDensity(random_state=0, **params)
    kept = kde.fit(X[:1000]).partial_fit(X[1000:]).score_samples(fresh).mean()
    bandwidth = kde.bandwidth_
    kde.fit(X)
    return kde.score_samples(fresh).mean() - kept, kde.bandwidth_ / bandwidth


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=["time", "loss"])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(describe_run("faiss-cpu"), end="\n\n")
    for name in options.tables:
        {"time": times, "loss": losses}[name](options)


if __name__ == "__main__":
    main()
