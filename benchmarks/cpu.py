"""Log densities on the CPU: this package beside scikit-learn, scipy and KeOps.

``python benchmarks/cpu.py`` prints three GitHub-markdown tables from one run: time
and error of each estimator, the share of the machine's GEMM rate that this package
reaches, and the time KeOps took to compile. See README.md beside this file.
"""

import argparse
import atexit
import contextlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from reporting import announce, describe_run, time_in_turn, write_table
from scipy.linalg import solve_triangular
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity
from threadpoolctl import threadpool_info, threadpool_limits

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._pairwise.backends import NumpyDevice

PACKAGE, GEMM = "skhdkde", "GEMM alone"
WRONG = 1e-2  # nats; ten times what is promised for float32


@dataclass
class Problem:
    """Points from N(0, I), queries from the same, and the bandwidth."""

    points: np.ndarray
    queries: np.ndarray
    bandwidth: float
    n_threads: int
    n_checked: int

    def checked(self):
        return self.queries[: self.n_checked]


def direct_sum(points, queries, bandwidth):
    """Log density in longdouble, from the differences of the coordinates."""
    n, d = points.shape
    log_density = np.empty(len(queries), dtype=np.longdouble)
    h = np.longdouble(bandwidth)
    step = max(1, 2**18 // d)
    for i, x in enumerate(queries.astype(np.longdouble)):
        sq = np.empty(n, dtype=np.longdouble)
        for j in range(0, n, step):
            difference = points[j : j + step] - x
            sq[j : j + step] = np.einsum("ij,ij->i", difference, difference)
        exponent = -sq / (2 * h * h)
        peak = exponent.max()
        log_density[i] = peak + np.log(np.exp(exponent - peak).sum())
    two_pi = 2 * np.longdouble(np.pi)
    return log_density - np.log(np.longdouble(n)) - d * np.log(h * np.sqrt(two_pi))


# Each of the functions below prepares an estimator, and returns a function of the
# queries and, if the estimator computes another density, the reference for it.


def prepare_package(problem):
    kde = HighDimKernelDensity(bandwidth=problem.bandwidth).fit(problem.points)
    return kde.score_samples, None


def prepare_sklearn(problem):
    kde = KernelDensity(bandwidth=problem.bandwidth).fit(problem.points)
    return kde.score_samples, None


def prepare_sklearn_one_leaf(problem):
    n = len(problem.points)
    kde = KernelDensity(bandwidth=problem.bandwidth, leaf_size=n).fit(problem.points)
    return kde.score_samples, None


def prepare_scipy(problem):
    """A full-covariance kernel: ``bandwidth^2`` times the covariance of the points."""
    kde = gaussian_kde(problem.points.T, bw_method=problem.bandwidth)
    root = np.linalg.cholesky(np.cov(problem.points.T.astype(np.float64)))
    whiten = [
        solve_triangular(root, a.T.astype(np.float64), lower=True).T
        for a in (problem.points, problem.checked())
    ]
    reference = direct_sum(*whiten, problem.bandwidth)
    reference -= np.log(np.diag(root)).sum()
    return lambda queries: kde.logpdf(queries.T), reference


def prepare_keops(problem):
    from pykeops.numpy import LazyTensor

    n, d = problem.points.shape
    y = LazyTensor(problem.points[None, :, :])
    rate = -0.5 / problem.bandwidth**2
    log_norm = np.log(n) + d * np.log(problem.bandwidth * np.sqrt(2 * np.pi))

    def score(queries):
        x = LazyTensor(np.ascontiguousarray(queries)[:, None, :])
        exponent = ((x - y) ** 2).sum(-1) * rate
        return exponent.logsumexp(dim=1).ravel() - log_norm

    return score, None


def prepare_gemm(problem):
    """The matrix products of the package's tiles, on as many threads, and no more."""
    n, d = problem.points.shape
    dtype = problem.points.dtype
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, d + 2)).astype(dtype)
    tile_rows, tile_cols = NumpyDevice.tile_rows, NumpyDevice.tile_cols
    blocks = [slice(j, min(j + tile_cols, n)) for j in range(0, n, tile_cols)]

    def row_of_tiles(x):
        buffer = np.empty(NumpyDevice.tile_rows * NumpyDevice.tile_cols, dtype=dtype)
        for cols in blocks:
            shape = len(x), cols.stop - cols.start
            tile = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(x, y[cols].T, out=tile)

    operands = rng.normal(size=(len(problem.queries), d + 2)).astype(dtype)

    def score(queries):
        x = operands[: len(queries)]
        tasks = [x[i : i + tile_rows] for i in range(0, len(x), tile_rows)]
        with (
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(problem.n_threads) as executor,
        ):
            list(executor.map(row_of_tiles, tasks))

    return score, None


ESTIMATORS = {
    PACKAGE: prepare_package,
    GEMM: prepare_gemm,
    "KeOps": prepare_keops,
    "scikit-learn": prepare_sklearn,
    "scikit-learn, leaf_size=n": prepare_sklearn_one_leaf,
    "scipy": prepare_scipy,
}
SKIPPABLE = {"keops": "KeOps", "sklearn": "scikit-learn", "scipy": "scipy"}


def n_affordable(score, problem, budget):
    """How many queries take about ``budget`` seconds, at most all of them."""
    few = problem.checked()
    start = time.perf_counter()
    score(few)
    each = (time.perf_counter() - start) / len(few)
    return int(np.clip(budget / each, 2 * len(few), len(problem.queries)))


def measure(problem, names, options):
    """Times and errors of the estimators ``names``; seconds KeOps took to compile."""
    calls, facts, compile_time = {}, {}, np.nan
    exact = direct_sum(problem.points, problem.checked(), problem.bandwidth)
    for name in names:
        score, reference = ESTIMATORS[name](problem)
        start = time.perf_counter()
        result = score(problem.checked())
        if name == "KeOps":
            first = time.perf_counter() - start
            start = time.perf_counter()
            score(problem.checked())
            compile_time = first - (time.perf_counter() - start)
        error = np.full(1, np.nan)
        if result is not None:
            reference = exact if reference is None else reference
            error = np.abs(result.astype(np.longdouble) - reference)
        n_queries = len(problem.queries)
        if name not in (PACKAGE, GEMM):
            n_queries = n_affordable(score, problem, options.budget)
        queries = problem.queries[:n_queries]
        calls[name] = lambda score=score, queries=queries: score(queries)
        wrong = np.mean(error > WRONG)
        facts[name] = n_queries, float(np.median(error)), float(error.max()), wrong
        calls[name]()
    return time_in_turn(calls, options.repeats), facts, compile_time


def table_rows(problem, seconds, facts):
    """A row of the first table per estimator."""
    n, d = problem.points.shape
    per_query = {name: s / facts[name][0] for name, s in seconds.items()}
    rows = []
    for name, (n_queries, median_error, max_error, wrong) in facts.items():
        each = np.median(per_query[name])
        ratio = np.median(per_query[name] / per_query[PACKAGE])
        errors = [f"{median_error:.1e}", f"{max_error:.1e}", f"{100 * wrong:.0f} %"]
        rows.append(
            [name, d, problem.points.dtype.name, n_queries]
            + [f"{each * len(problem.queries):.3f}", f"{each / n * 1e9:.2f}"]
            + [f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"]
            + (errors if name != GEMM else ["", "", ""])
        )
    return rows


def gemm_row(problem, seconds):
    """A row of the second table: rates counting two operations per multiply-add."""
    n, d = problem.points.shape
    operations = 2.0 * n * len(problem.queries) * (d + 2)
    rates = {k: operations / seconds[k] / 1e9 for k in (GEMM, PACKAGE)}
    share = np.median(rates[PACKAGE] / rates[GEMM])
    best = rates[PACKAGE].max() / rates[GEMM].max()
    return [
        *(d, problem.points.dtype.name),
        *(f"{np.median(rates[k]):.0f}" for k in (GEMM, PACKAGE)),
        *(f"{100 * share:.0f} %", f"{100 * best:.0f} %"),
    ]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dims", type=int, nargs="+", default=[2, 8, 32, 128, 768])
    add("--dtypes", nargs="+", default=["float32", "float64"])
    add("--points", type=int, default=20_000)
    add("--queries", type=int, default=2_000)
    add("--checked", type=int, default=50, help="queries compared to the direct sum")
    add("--repeats", type=int, default=5)
    add("--skip", nargs="+", default=[], choices=sorted(SKIPPABLE))
    text = "seconds per repeat beyond which an estimator gets fewer queries"
    add("--budget", type=float, default=1.0, help=text)
    return parser.parse_args()


def start_keops():
    """Import KeOps quietly, with an empty cache, so that compile times are its own."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)  # before KeOps registers its own, so run after it
    os.environ["KEOPS_CACHE_FOLDER"] = folder.name
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        import pykeops

        pykeops.set_verbose(False)


def print_tables(options, rows, gemm_rows, compile_rows):
    write_table(
        f"N(0, I), {options.points:,} points, {options.queries:,} queries, KL-optimal "
        f"bandwidth, {options.repeats} repeats. Errors in nats over {options.checked} "
        f"queries; wrong: off by more than {WRONG} nats. Seconds are for all queries, "
        "scaled where fewer were timed.",
        "estimator|d|dtype|queries timed|seconds|ns/pair|time / skhdkde|median error"
        "|largest error|wrong",
        rows,
    )
    write_table(
        "Share of the GEMM rate (same operand shapes, same threads, same run).",
        "d|dtype|GEMM GFLOP/s|skhdkde GFLOP/s|share, median|share, best of each",
        gemm_rows,
    )
    if compile_rows:
        title = "Compilation by KeOps (not in the times)."
        write_table(title, "d|dtype|seconds", compile_rows)


def main():
    options = read_options()
    skipped = tuple(SKIPPABLE[name] for name in options.skip)
    names = [name for name in ESTIMATORS if not (skipped and name.startswith(skipped))]
    n_threads = max(
        lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"
    )
    remark = f"{n_threads} threads"
    print(describe_run("scipy", "scikit-learn", "pykeops", remark=remark))
    if "KeOps" in names:
        start_keops()
    rows, gemm_rows, compile_rows = [], [], []
    for d in options.dims:
        rng = np.random.default_rng(d)
        points = rng.normal(size=(options.points, d))
        queries = rng.normal(size=(options.queries, d))
        bandwidth = select_bandwidth(points, n_queries=2000, random_state=0)
        usable = [name for name in names if name != "scipy" or len(points) > d]
        for dtype in options.dtypes:
            announce(f"d = {d}, {dtype}, bandwidth {bandwidth:.4f}")
            arrays = points.astype(dtype), queries.astype(dtype)
            problem = Problem(*arrays, bandwidth, n_threads, options.checked)
            seconds, facts, compile_time = measure(problem, usable, options)
            rows += table_rows(problem, seconds, facts)
            gemm_rows.append(gemm_row(problem, seconds))
            if "KeOps" in usable:
                compile_rows.append([d, dtype, f"{compile_time:.1f}"])
    print_tables(options, rows, gemm_rows, compile_rows)


if __name__ == "__main__":
    main()
