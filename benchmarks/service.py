"""What a service pays: one row at a time, from several threads, memory and pickles.

``python benchmarks/service.py`` prints GitHub-markdown tables. See README.md beside this
file. The rows with an index need faiss.
"""

import argparse
import gc
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from memory import resident
from reporting import announce, describe_run, write_table
from threadpoolctl import threadpool_limits

from skhdkde import HighDimKernelDensity

# (points, features) of the latencies by algorithm "exact".
SIZES = [
    (2_000, 16),
    (2_000, 128),
    (2_000, 384),
    (10_000, 384),
    (60_000, 384),
    (2_000, 768),
    (20_000, 768),
]
# (points, features) with an index, and at which threads are counted.
INDEXED = [(60_000, 128), (60_000, 384)]
THREADED = [(2_000, 384, "exact"), (60_000, 384, "exact"), (60_000, 384, "ivf")]
N_THREADS = (1, 2, 8)
# name, parameters, dtype of the data
KEPT = [
    ("exact", {}, "float64"),
    ("exact", {}, "float32"),
    ("exact", {}, "float16"),
    ("exact, mean far from 0", {}, "float32"),
    ("ivf", {"algorithm": "neighbors", "neighbors_index": "ivf"}, "float32"),
    ("hnsw", {"algorithm": "neighbors", "neighbors_index": "hnsw"}, "float32"),
    ("full", {"covariance_type": "full", "preserve_variance": True}, "float32"),
    ("diag", {"covariance_type": "diag"}, "float64"),
]
MIB = 2.0**20


def clusters(n_points, n_features, seed, dtype=np.float32):
    """Unit vectors in 100 clusters of 20 dimensions, with noise in all."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    means = 2.0 * fixed.standard_normal((100, 20))
    axes = np.linalg.qr(fixed.standard_normal((max(n_features, 20), 20)))[0].T
    Z = means[rng.integers(100, size=n_points)] + rng.standard_normal((n_points, 20))
    X = (Z @ axes)[:, :n_features]
    X += 0.1 * rng.standard_normal(X.shape)
    return (X / np.linalg.norm(X, axis=1)[:, None]).astype(dtype)


def normal(n_points, n_features, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_points, n_features), dtype=np.float32)


def fitted(n_points, n_features, algorithm):
    """An estimator at a bandwidth where some nearest points decide the sums; queries."""
    parameters, data = {"bandwidth": 0.8}, normal
    if algorithm != "exact":
        parameters = {"algorithm": "neighbors", "neighbors_index": algorithm}
        parameters["bandwidth"], data = 0.03, clusters
    kde = HighDimKernelDensity(random_state=0, **parameters)
    return kde.fit(data(n_points, n_features, 0)), data(500, n_features, 1)


def bare(X, x, bandwidth):
    """The product, the exponentials and the sum that one row needs, and no more."""
    sq_norms = np.einsum("ij,ij->i", X, X)

    def call():
        exponents = X @ x
        exponents -= 0.5 * sq_norms
        exponents *= 1.0 / bandwidth**2
        exponents -= exponents.max()
        return np.log(np.exp(exponents, out=exponents).sum())

    return call


def microseconds(call, repeats, clock=time.process_time):
    """Quantiles, 50 and 95 %, of the CPU time of a call that takes a number."""
    for i in range(5):
        call(i)
    taken = np.empty(repeats)
    for i in range(repeats):
        start = clock()
        call(i)
        taken[i] = clock() - start
    return 1e6 * np.quantile(taken, [0.5, 0.95])


def latency(options):
    """One row at a time, beside a bare product, and in a batch."""
    cases = [(n, d, "exact") for n, d in SIZES]
    if importlib.util.find_spec("faiss"):
        cases += [(n, d, kind) for n, d in INDEXED for kind in ("ivf", "hnsw")]
    for n_points, n_features, algorithm in cases:
        if options.quick and n_points > 10_000:
            continue
        announce(f"one row, n = {n_points}, d = {n_features}, {algorithm}")
        kde, Q = fitted(n_points, n_features, algorithm)
        X = normal(n_points, n_features, 0)
        repeats = options.repeats if n_points <= 10_000 else options.repeats // 4
        plain = bare(X, Q[0], kde.bandwidth_)

        def scored(n_rows, kde=kde, Q=Q):
            return lambda i: kde.score_samples(Q[i % 490 : i % 490 + n_rows])

        least = microseconds(lambda i, plain=plain: plain(), repeats)[0]
        one = microseconds(scored(1), repeats)
        four = microseconds(scored(4), repeats // 4)[0]
        batch = microseconds(lambda i, k=kde, Q=Q: k.score_samples(Q), 5)[0] / 500
        figures = [least, *one, one[0] / least, four / 4.0, batch]
        shown = [f"{figure:.0f}" for figure in figures]
        shown[3] = f"{figures[3]:.2g}"
        yield [algorithm, f"{n_points:,}", n_features, *shown]


def threaded(options):
    """Rows scored by several threads at once, one at a time in each."""
    for n_points, n_features, algorithm in THREADED:
        no_index = algorithm != "exact" and not importlib.util.find_spec("faiss")
        if no_index or (options.quick and n_points > 10_000):
            continue
        announce(f"threads, n = {n_points}, d = {n_features}, {algorithm}")
        kde, Q = fitted(n_points, n_features, algorithm)
        n_rows = 2000 if n_points <= 10_000 else 240
        rates = {}
        for n_threads in N_THREADS:
            with ThreadPoolExecutor(n_threads) as executor:
                own = [range(t, n_rows, n_threads) for t in range(n_threads)]
                work = [executor.submit(rows_scored, kde, Q, rows) for rows in own]
                [each.result() for each in work]
                start, cpu = time.perf_counter(), time.process_time()
                work = [executor.submit(rows_scored, kde, Q, rows) for rows in own]
                [each.result() for each in work]
                cpu, wall = time.process_time() - cpu, time.perf_counter() - start
            rates[n_threads] = f"{n_rows / wall:,.0f}", f"{1e6 * cpu / n_rows:.0f}"
        columns = [figure for pair in rates.values() for figure in pair]
        yield [algorithm, f"{n_points:,}", n_features, *columns]


def rows_scored(kde, Q, rows):
    for i in rows:
        kde.score_samples(Q[i % len(Q)][None])


def kept(name, parameters, dtype, n_points, n_features):
    """Memory and pickle of one case, in this process, beside the bytes of the data."""
    X = clusters(n_points, n_features, 0, np.float64)
    X = (X + ("far" in name)).astype(dtype)
    HighDimKernelDensity(bandwidth=0.03, random_state=0, **parameters).fit(X[:2000])
    gc.collect()
    before = resident("VmRSS")
    kde = HighDimKernelDensity(bandwidth=0.03, random_state=0, **parameters).fit(X)
    gc.collect()
    memory = (resident("VmRSS") - before) * MIB
    start = time.perf_counter()
    pickled = pickle.dumps(kde)
    saved = time.perf_counter() - start
    again = pickle.loads(pickled)
    loaded = time.perf_counter() - start - saved
    assert np.array_equal(again.score_samples(X[:3]), kde.score_samples(X[:3]))
    print(json.dumps([X.nbytes, memory, len(pickled), saved, loaded]))


def pickles(options):
    """Memory and pickles of all cases, each in a process of its own."""
    n_points, n_features = (5_000, 384) if options.quick else (60_000, 384)
    for place, (name, parameters, dtype) in enumerate(KEPT):
        if "neighbors_index" in parameters and not importlib.util.find_spec("faiss"):
            continue
        announce(f"memory, {name}, {dtype}")
        words = [str(word) for word in (place, n_points, n_features)]
        command = [sys.executable, os.path.abspath(__file__), "--one", *words]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        size, memory, pickled, saved, loaded = json.loads(output.stdout)
        figures = [f"{size / MIB:.0f}", f"{memory / size:.2f}", f"{pickled / size:.3f}"]
        yield [name, dtype, *figures, f"{saved:.2f}", f"{loaded:.2f}"]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--repeats", type=int, default=400, help="of one row")
    add("--quick", action="store_true", help="up to 10,000 points")
    add("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = read_options()
    warnings.simplefilter("ignore")  # stated errors of single rows
    if options.one:
        place, *sizes = options.one
        kept(*KEPT[place], *sizes)
        return
    print(describe_run("scipy", "scikit-learn", "faiss-cpu"))
    with threadpool_limits(1, user_api="blas"):
        write_table(
            "One row at a time, float32, one thread: CPU time in us of a call (median, "
            "95 %), beside the bare product, exponential and sum by numpy, of all "
            "points, and per row of four rows and of 500. N(0, I) for exact sums, unit "
            "vectors in 100 clusters for an index.",
            "algorithm|n|d|bare|one row|95 %|ratio|of 4|of 500",
            latency(options),
        )
    write_table(
        "Threads that score one row at a time, at once, with n_jobs=None: rows a second "
        "in all, and CPU time of a row in us.",
        "algorithm|n|d|1 thread: rows/s|us|2 threads: rows/s|us|8 threads: rows/s|us",
        threaded(options),
    )
    write_table(
        "What is kept, d = 384: bytes of the data in MiB; memory of the fitted estimator "
        "(resident, beside the data) and its pickle, relative to the data; seconds to "
        "write and to load the pickle.",
        "estimator|data|MiB|memory|pickle|dump, s|load, s",
        pickles(options),
    )


if __name__ == "__main__":
    main()
