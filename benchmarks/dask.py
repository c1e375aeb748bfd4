"""Training points on a Dask cluster: rate against one process, and memory of workers.

``python benchmarks/dask.py`` starts a cluster of two worker processes of one thread each
and prints GitHub-markdown tables. See README.md beside this file.
"""

import sys

# the folder of a script comes first: there `dask` would be this file
sys.path.append(sys.path.pop(0))

import argparse
import pathlib
import shutil
import tempfile
import time

import dask.array as da
import numpy as np
from distributed import Client, wait
from reporting import announce, describe_run, time_in_turn, write_table
from scipy.special import logsumexp

from skhdkde import HighDimKernelDensity
from skhdkde.dask import DaskHighDimKernelDensity

MIB = 2.0**20
N_FEATURES = 128
BANDWIDTH = 1.0
ROWS = 2**16  # of a block on disk: 32 MiB


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="*", default=[200_000, 800_000])
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gib", type=float, default=8.0, help="on disk; 0 for none")
    parser.add_argument("--limit", default="1GiB", help="memory of a worker")
    parser.add_argument("--folder", help="for the data; a temporary one by default")
    parser.add_argument("--kl", action="store_true", help="choose the bandwidth too")
    return parser.parse_args()


def rates(arguments):
    """Seconds of one process with two threads and of two workers with one each."""
    rng, rows = np.random.default_rng(0), []
    Q = rng.standard_normal((arguments.queries, N_FEATURES), dtype=np.float32)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        for n_points in arguments.points:
            announce(f"rate at {n_points:,} points")
            X = rng.standard_normal((n_points, N_FEATURES), dtype=np.float32)
            single = HighDimKernelDensity(bandwidth=BANDWIDTH, n_jobs=2).fit(X)
            blocks = da.from_array(X, chunks=(n_points // 8, -1)).persist()
            wait(blocks)
            cluster = DaskHighDimKernelDensity(bandwidth=BANDWIDTH).fit(blocks)
            queries = da.from_array(Q, chunks=(arguments.queries // 4, -1)).persist()
            calls = {
                "one": lambda single=single: single.score_samples(Q),
                "numpy": lambda cluster=cluster: cluster.score_samples(Q),
                "dask": lambda c=cluster, q=queries: c.score_samples(q).compute(),
            }
            error = np.abs(calls["numpy"]() - calls["one"]()).max()
            calls["dask"]()
            seconds = time_in_turn(calls, arguments.repeats)
            pairs = n_points * arguments.queries
            for name, words in (("numpy", "numpy"), ("dask", "dask array")):
                ratio = np.median(seconds["one"] / seconds[name])
                rows.append(
                    (
                        f"{n_points:,}",
                        words,
                        f"{np.median(seconds['one']):.2f}",
                        f"{np.median(seconds[name]):.2f}",
                        f"{1e9 * np.median(seconds[name]) / pairs:.2f}",
                        f"{ratio:.2f}",
                        f"{error:.0e}",
                    )
                )
    title = f"Log densities of {arguments.queries:,} queries, d = {N_FEATURES}, float32 "
    title += f"(medians of {arguments.repeats})"
    columns = (
        "points|queries|one process (s)|two workers (s)|ns per pair|rate / one process"
        "|largest difference (nats)"
    )
    write_table(title, columns, rows)


def write_blocks(folder, n_blocks):
    """Blocks of float32 as dask's ``from_npy_stack`` reads them."""
    announce(f"writing {n_blocks * ROWS * N_FEATURES * 4 / 2**30:.1f} GiB to {folder}")
    X = da.random.default_rng(0).standard_normal(
        (n_blocks * ROWS, N_FEATURES), chunks=(ROWS, -1), dtype=np.float32
    )
    with Client(n_workers=1, threads_per_worker=2, dashboard_address=None):
        da.to_npy_stack(folder, X)


def direct(folder, n_blocks, Q):
    """Log densities by sums of the definition, block by block."""
    Q, logs = Q.astype(np.float64), np.full(len(Q), -np.inf)
    for j in range(n_blocks):
        X = np.load(pathlib.Path(folder) / f"{j}.npy")
        for i, x in enumerate(Q):
            sq = np.square(X - x).sum(axis=1)
            logs[i] = np.logaddexp(logs[i], logsumexp(-0.5 * sq / BANDWIDTH**2))
    log_volume = N_FEATURES * (0.5 * np.log(2.0 * np.pi) + np.log(BANDWIDTH))
    return logs - np.log(n_blocks * ROWS) - log_volume


def peak():
    """MiB of resident memory at most so far; Linux has it."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith("VmHWM"))
    return int(found.split()[1]) / 1024.0


def memory(arguments, folder):
    """Peak memory of workers that read more than they can hold."""
    n_blocks = round(arguments.gib * 2**30 / (ROWS * N_FEATURES * 4))
    write_blocks(folder, n_blocks)
    X, rows = da.from_npy_stack(folder), []
    Q = np.random.default_rng(1).standard_normal((4096, N_FEATURES), dtype=np.float32)
    with Client(
        n_workers=2,
        threads_per_worker=1,
        memory_limit=arguments.limit,
        dashboard_address=None,
    ) as client:
        limit = min(
            w["memory_limit"] for w in client.scheduler_info()["workers"].values()
        )

        def record(step, call):
            announce(step)
            pids, start = set(client.run(peak)), time.perf_counter()
            result = call()
            seconds, peaks = time.perf_counter() - start, client.run(peak)
            kept = "yes" if set(peaks) == pids else "no"
            row = step, f"{seconds:.0f}", f"{max(peaks.values()):.0f}", kept
            rows.append(row)
            return result

        kde = DaskHighDimKernelDensity(bandwidth=BANDWIDTH)
        record("fit at a bandwidth", lambda: kde.fit(X))
        logs = record("4096 queries", lambda: kde.score_samples(Q))
        some = np.arange(10)
        error = np.abs(logs[some] - direct(folder, n_blocks, Q[some])).max()
        if arguments.kl:
            best = DaskHighDimKernelDensity(random_state=0)
            record('fit with "kl"', lambda: best.fit(X))
            announce(f"bandwidth {best.bandwidth_:.4f}")
    write_table(
        f"{n_blocks * ROWS:,} points on disk, {arguments.gib:g} GiB; workers of "
        f"{limit / MIB:.0f} MiB; largest error {error:.0e} nats",
        "step|seconds|peak of a worker (MiB)|no worker restarted",
        rows,
    )


def main():
    arguments = parse_arguments()
    print(describe_run("dask", "distributed"))
    if arguments.points:
        rates(arguments)
    if arguments.gib:
        folder = arguments.folder or tempfile.mkdtemp()
        try:
            memory(arguments, folder)
        finally:
            if not arguments.folder:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
