"""Speed and memory of the torch and KeOps backends, on a GPU if there is one.

``python benchmarks/gpu.py`` prints GitHub-markdown tables; ``--small`` takes sizes that
suit a CPU. See README.md beside this file.
"""

import argparse
import functools
import time

import numpy as np
import torch
from reporting import announce, describe_run, write_table
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from skhdkde import HighDimKernelDensity

# (training points, queries, features)
SIZES = [
    (131_072, 1_000_000, 16),
    (100_000, 100_000, 64),
    (100_000, 100_000, 128),
    (20_000, 200_000, 768),
]
SMALL = [(20_000, 4_000, 16), (20_000, 1_000, 128), (20_000, 250, 768)]
# features at which the backends are compared, and points and queries each time
DIMENSIONS, N_EACH = [2, 8, 32, 64, 100, 128, 200], 50_000
SMALL_DIMENSIONS, SMALL_N = [8], 2_000
# (points, features) of fits that choose the bandwidth
FITS = [(50_000, 16), (50_000, 128), (20_000, 768)]
SMALL_FITS = [(2_000, 16)]
N_CHECKED = 50
# features above which KeOps is left out: it keeps a point's in the registers of a thread
MOST_FOR_KEOPS = 200
# numpy has so many times fewer queries, beside a GPU
FEWER = 50
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds(call, repeats):
    """Median over repeats, after one to warm up, with the device idle at both ends."""
    taken = []
    for _ in range(repeats + 1):
        _wait()
        start = time.perf_counter()
        call()
        _wait()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def _wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def limits(dtype):
    """What the device can do: matrix products, exponentials, copies."""
    size = 8192 if DEVICE == "cuda" else 1536
    a = torch.rand(size, size, dtype=dtype, device=DEVICE)
    out = torch.empty_like(a)
    product = seconds(lambda: torch.matmul(a, a, out=out), 5)
    exp = seconds(lambda: torch.exp(a, out=out), 5)
    copy = seconds(lambda: out.copy_(a), 5)
    return 2.0 * size**3 / product, size**2 / exp, 2 * a.nbytes / copy


def limit_row(name):
    product, exp, memory = limits(getattr(torch, name))
    return name, f"{product / 1e12:.3g}", f"{exp / 1e9:.3g}", f"{memory / 1e9:.3g}"


def direct(queries, points, h):
    """Log densities by sums over float64 differences, good to 13 digits."""
    d = points.shape[1]
    exponents = cdist(queries, points, "sqeuclidean") / (-2.0 * h**2)
    sums = logsumexp(exponents, axis=1) - np.log(len(points))
    return sums - 0.5 * d * np.log(2.0 * np.pi * h**2)


def rows(sizes, dtypes, backends, repeats):
    for n, m, d in sizes:
        for dtype in dtypes:
            rng = np.random.default_rng(0)
            points = rng.standard_normal((n, d), dtype=dtype)
            queries = rng.standard_normal((m, d), dtype=dtype)
            rate = limits(getattr(torch, np.dtype(dtype).name))[0]
            h = 1.0
            expected = direct(queries[:N_CHECKED], points, h)
            for backend in (name for name in backends if fits_keops(name, d)):
                fewer = FEWER if backend == "numpy" and DEVICE == "cuda" else 1
                asked = queries[: m // fewer]
                announce(f"{backend}: n = {n}, m = {m}, d = {d}, {np.dtype(dtype)}")
                kde = HighDimKernelDensity(bandwidth=h, backend=backend).fit(points)
                if DEVICE == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                error = np.abs(kde.score_samples(queries[:N_CHECKED]) - expected).max()
                taken = seconds(lambda kde=kde, x=asked: kde.score_samples(x), repeats)
                peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
                per_pair = taken / (n * len(asked))
                share = 2.0 * d / per_pair / rate
                extra = f"{(peak - points.nbytes) / 2**20:.0f}" if peak else "-"
                numbers = (
                    f"{taken:.3g}",
                    f"{per_pair * 1e12:.3g}",
                    f"{share:.0%}",
                )
                name = np.dtype(dtype).name
                yield n, len(asked), d, name, backend, *numbers, f"{error:.1e}", extra


def fits_keops(backend, n_features):
    return backend != "keops" or n_features <= MOST_FOR_KEOPS


def crossings(dimensions, n, repeats):
    """Seconds of torch and of KeOps by number of features."""
    for d in dimensions:
        for dtype in (np.float32, np.float64):
            points = np.random.default_rng(0).standard_normal((2 * n, d), dtype=dtype)
            taken = []
            for backend in ("torch", "keops"):
                announce(f"{backend}: n = m = {n}, d = {d}, {np.dtype(dtype)}")
                kde = HighDimKernelDensity(bandwidth=1.0, backend=backend).fit(points[:n])
                call = functools.partial(kde.score_samples, points[n:])
                taken.append(seconds(call, repeats))
            numbers = *(f"{value:.3g}" for value in taken), f"{taken[1] / taken[0]:.2f}"
            yield d, np.dtype(dtype).name, *numbers


def fits(sizes, backends):
    """Seconds of a fit that chooses the bandwidth, the second one of two."""
    for n, d in sizes:
        points = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
        taken = []
        for backend in backends:
            announce(f"{backend}: fit of n = {n}, d = {d}")
            fit = functools.partial(HighDimKernelDensity(backend=backend).fit, points)
            fast = fits_keops(backend, d)
            taken.append(f"{seconds(fit, 1):.3g}" if fast else "-")
        yield n, d, *taken


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backends", default="numpy,torch,keops")
    parser.add_argument("--tables", default="densities,crossings,fits")
    options = parser.parse_args()
    tables, backends = options.tables.split(","), options.backends.split(",")
    name = (
        torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU: torch on the CPU"
    )
    print(describe_run("torch", "pykeops", remark=name))
    write_table(
        "Limits of the device, measured",
        "dtype|matrix products (TFLOP/s)|exp (10^9/s)|memory (GB/s)",
        [limit_row("float32"), limit_row("float64")],
    )
    sizes = SMALL if options.small else SIZES
    if "fits" in tables:
        write_table(
            "Fits that choose the bandwidth, float32",
            "|".join(["points", "features", *(f"{name} (seconds)" for name in backends)]),
            fits(SMALL_FITS if options.small else FITS, backends),
        )
    if "crossings" in tables:
        small = SMALL_DIMENSIONS, SMALL_N
        each = small if options.small else (DIMENSIONS, N_EACH)
        write_table(
            f"torch and KeOps by number of features, {each[1]} points and queries",
            "features|dtype|torch (seconds)|KeOps (seconds)|KeOps / torch",
            crossings(*each, options.repeats),
        )
    if "densities" in tables:
        write_table(
            "Log densities, Gaussian kernel, N(0, I)",
            "points|queries|features|dtype|backend|seconds|ps per pair|"
            f"share of the matrix rate|largest error of {N_CHECKED} (nats)|"
            "peak beside the points (MiB)",
            rows(sizes, [np.float32, np.float64], backends, options.repeats),
        )


if __name__ == "__main__":
    main()
