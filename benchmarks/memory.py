"""Peak memory of the methods, beside their results.

``python benchmarks/memory.py`` runs every case in a process of its own and prints a
GitHub-markdown table. See README.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
from reporting import announce, describe_run, write_table
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from skhdkde import Diagnosis, HighDimKernelDensity
from skhdkde._kernels import KERNELS
from skhdkde._pairwise import ComputeOptions
from skhdkde._selection import bandwidth_by_rule

MIB = 2.0**20
CONTRACT = 64.0  # MiB per thread

# (method, points, queries, features)
CASES = [
    ("score_samples", 20_000, 4_000, 32),
    ("score_samples", 200_000, 4_000, 32),
    ("score_samples", 2_000, 400_000, 32),
    ("score_samples", 2_000, 2_000, 10_000),
    ("log_density_gradient", 20_000, 4_000, 32),
    ("log_density_gradient", 200_000, 4_000, 32),
    ("log_density_gradient", 2_000, 400_000, 32),
    ("log_density_gradient", 2_000, 2_000, 10_000),
    ("score_samples(None)", 20_000, 20_000, 32),
    ("score_samples(None)", 200_000, 200_000, 32),
    ("score_samples(None)", 2_000, 2_000, 10_000),
    ("diagnose", 20_000, 4_000, 32),
    ("diagnose", 2_000, 400_000, 32),
    ("diagnose", 2_000, 2_000, 10_000),
    ("kl search", 20_000, 4_096, 32),
    ("kl search", 200_000, 4_096, 32),
    ("kl search", 2_000, 2_000, 10_000),
    ("local: score_samples", 20_000, 40_000, 32),
    ("local: score_samples(None)", 20_000, 20_000, 32),
    ("local: log_density_gradient", 2_000, 400_000, 32),
    ("local: log_density_gradient", 2_000, 2_000, 5_000),
    ("local: diagnose", 2_000, 400_000, 32),
    ("full: log_density_gradient", 2_000, 400_000, 32),
]
STRUCTURES = {
    "local": {
        "covariance_type": "local",
        "mixture": GaussianMixture(4, covariance_type="diag", random_state=0),
        "preserve_variance": True,
    },
    "full": {"covariance_type": "full", "preserve_variance": True},
}


def prepare(method, n_points, n_queries, n_features, dtype, n_threads):
    """A function without arguments that does what is measured."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal(size=(n_points, n_features), dtype=dtype)
    structure, _, method = method.rpartition(": ")
    parameters = STRUCTURES.get(structure, {})
    bandwidth = 0.7 if structure else 1.0
    kde = HighDimKernelDensity(bandwidth=bandwidth, n_jobs=n_threads, **parameters)
    kde.fit(points)
    if method == "score_samples(None)":
        return lambda: kde.score_samples(None)
    if method == "kl search":
        options = ComputeOptions(n_jobs=n_threads)
        training, kernel = kde._density.components[0].points, KERNELS["gaussian"]
        return lambda: bandwidth_by_rule(
            training, "kl", kernel, options, n_queries=n_queries, random_state=0
        )
    queries = rng.standard_normal(size=(n_queries, n_features), dtype=dtype)
    return lambda: getattr(kde, method)(queries)


def resident(field):
    """``VmRSS`` or ``VmHWM``, its highest so far, in MiB."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1]) / 1024.0
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(method, n_points, n_queries, n_features, dtype, n_threads):
    """Run one case in this process; MiB beside the result, and seconds."""
    call = prepare(method, n_points, n_queries, n_features, dtype, n_threads)
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")  # VmHWM starts again from here
    before = resident("VmRSS")
    tracemalloc.start()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    traced = tracemalloc.get_traced_memory()[1] / MIB
    highest = resident("VmHWM") - before
    columns = vars(result).values() if isinstance(result, Diagnosis) else [result]
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    size = sum(array.nbytes for array in arrays) / MIB
    print(json.dumps([size, traced - size, highest - size, seconds]))


def in_a_process(case, dtype, n_threads):
    words = [str(word) for word in (*case, dtype, n_threads)]
    command = [sys.executable, os.path.abspath(__file__), "--one", *words]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(output.stdout)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dtype", default="float64")
    add("--threads", type=int, default=2)
    add("--quick", action="store_true", help="without the cases of over 1e9 pairs")
    add("--one", nargs=6, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = read_options()
    if options.one:
        method, *sizes, dtype, n_threads = options.one
        with threadpool_limits(int(n_threads), user_api="blas"):
            measure(method, *map(int, sizes), np.dtype(dtype).type, int(n_threads))
        return
    print(describe_run("scipy", "scikit-learn", remark=f"{options.threads} threads"))
    rows = []
    for case in CASES:
        method, n_points, n_queries, n_features = case
        if options.quick and n_points * n_queries > 1e9:
            continue
        announce(f"{method}, n = {n_points}, m = {n_queries}, d = {n_features}")
        size, *extra, seconds = in_a_process(case, options.dtype, options.threads)
        kept = "yes" if max(extra) <= CONTRACT * options.threads else "**no**"
        figures = [f"{figure:.1f}" for figure in (size, *extra)]
        counts = [f"{count:,}" for count in (n_points, n_queries, n_features)]
        rows.append([method, *counts, *figures, kept, f"{seconds:.1f}"])
    write_table(
        f"Peak memory beside the result, {options.dtype}, MiB. Promised: "
        f"{CONTRACT:.0f} per thread, {CONTRACT * options.threads:.0f} in all.",
        "method|n|queries|d|result|by tracemalloc|by VmHWM|kept|seconds",
        rows,
    )


if __name__ == "__main__":
    main()
