"""Speed and memory of the torch and KeOps backends on a GPU, in ten minutes.

``python benchmarks/gpu.py`` prints GitHub-markdown tables, each row as it is measured;
``--small`` takes sizes that suit a CPU. See README.md beside this file.
"""

import argparse
import collections
import contextlib
import functools
import gc
import itertools
import pathlib
import sys
import time
import traceback
import warnings

import numpy as np
import torch
from reporting import announce, describe_run, write_table
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skhdkde import HighDimKernelDensity
from skhdkde._pairwise import keops_runtime, torch_backend, triton_kernels

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
DTYPES = np.float32, np.float64
# (training points, queries, features)
SIZES = [
    (131_072, 1_000_000, 16),
    (100_000, 100_000, 64),
    (100_000, 100_000, 128),
    (20_000, 200_000, 768),
]
SMALL = [(2_000, 400, 16), (2_000, 100, 768)]
# (training points, queries, features) of one call of each method
METHOD_SIZES = [(20_000, 40_000, 16), (20_000, 20_000, 128), (20_000, 10_000, 768)]
SMALL_METHOD_SIZES = [(500, 200, 16)]
# features at which torch and KeOps are compared, and points and queries each time
CROSSINGS, SMALL_CROSSINGS = ([2, 8, 16, 32, 64, 128], 50_000), ([8], 1_000)
# (points, features) of fits that choose the bandwidth
FITS, SMALL_FITS = [(50_000, 16), (50_000, 128), (20_000, 768)], [(500, 16)]
METHODS = {
    "score_samples": lambda kde, X: kde.score_samples(X),
    "leave-one-out": lambda kde, X: kde.score_samples(None),
    "gradient": lambda kde, X: kde.log_density_gradient(X),
    "diagnose": lambda kde, X: kde.diagnose(X),
}
N_CHECKED = 20
# numpy has so many times fewer queries beside a GPU
FEWER = 50
# features above which KeOps is left out: it keeps a point's in the registers of a thread
MOST_FOR_KEOPS = 200
# entries of a tile of the plain peer
PLAIN_TILE = 2**27 if ON_GPU else 2**20
# what "fused" and "torch" are, by the pairs from which on fused kernels are used
FUSED_FROM = {"fused": 0, "torch": 2**62}


class Budget:
    """Minutes for the whole run, of which repeats are dropped first, and then rows."""

    def __init__(self, minutes, repeats):
        self.start, self.seconds = time.perf_counter(), 60.0 * minutes
        self._repeats = repeats

    def share(self):
        return (time.perf_counter() - self.start) / self.seconds

    def repeats(self):
        return self._repeats if self.share() < 0.5 else 1

    def lets(self, what):
        """Whether there is time for one more row, which is announced."""
        enough = self.share() < 1.0
        announce(f"{self.share():4.0%} {what}" if enough else f"no time left for {what}")
        return enough


def timed(call):
    """Seconds of a call, with the device idle at both ends."""
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def seconds(call, budget):
    """Median over repeats, after one call to warm up."""
    timed(call)
    return float(np.median([timed(call) for _ in range(budget.repeats())]))


def wait():
    if ON_GPU:
        torch.cuda.synchronize()


def memory_in_use():
    """Bytes that are in use on the device, once what is not is free."""
    gc.collect()
    return torch.cuda.memory_allocated() if ON_GPU else 0


def drawn(n, m, d, dtype):
    """Points and queries from N(0, I)."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((rows, d), dtype=dtype) for rows in (n, m))


def direct(queries, points, h):
    """Log densities by sums over float64 differences, good to 13 digits.

    Of so few queries that they take a tenth of a second.
    """
    d = points.shape[1]
    exponents = cdist(queries, points, "sqeuclidean") / (-2.0 * h**2)
    sums = logsumexp(exponents, axis=1) - np.log(len(points))
    return sums - 0.5 * d * np.log(2.0 * np.pi * h**2)


class PlainTorch:
    """Log densities as anyone writes them: a product, then ``torch.logsumexp``."""

    def __init__(self, points, h):
        self.points, self.h = torch.from_numpy(points).to(DEVICE), h
        self.half_sq = self.points.square().sum(1) / 2.0

    def score_samples(self, queries):
        n, d = self.points.shape
        constant = np.log(n) + 0.5 * d * np.log(2.0 * np.pi * self.h**2)
        found = []
        for x in torch.from_numpy(queries).split(max(PLAIN_TILE // n, 1)):
            x = x.to(DEVICE)
            product = torch.addmm(self.half_sq, x, self.points.T, beta=-1.0)
            product -= x.square().sum(1, keepdim=True) / 2.0
            found.append(torch.logsumexp(product / self.h**2, 1) - constant)
        return torch.cat(found).cpu().numpy()


def estimator(name, points):
    """A fitted estimator, or the peer, by a name of ``--backends``."""
    if name == "plain":
        return PlainTorch(points, 1.0)
    torch_backend.FUSED_FROM = FUSED_FROM.get(name, torch_backend.FUSED_FROM)
    backend = "torch" if name == "fused" else name
    return HighDimKernelDensity(bandwidth=1.0, backend=backend).fit(points)


def can(name, d, dtype):
    """Whether what has this name can do it here."""
    if name == "fused":
        return triton_kernels.usable(DEVICE, getattr(torch, np.dtype(dtype).name))
    return name != "keops" or d <= MOST_FOR_KEOPS


# ---- What waits for the device


def waits(sizes, budget):
    """How often a call of each method waits for the device, and where, on one thread."""
    for (n, m, d), by, method in itertools.product(sizes, ("torch", "fused"), METHODS):
        if not can(by, d, np.float32):
            continue
        if not budget.lets(f"waits of {method} by {by}, d = {d}"):
            return
        points, queries = drawn(n, m, d, np.float32)
        kde = estimator(by, points).set_params(n_jobs=1)
        METHODS[method](kde, queries)  # points are there, constants as well
        visits = collections.Counter()
        with counting(visits), sync_warnings() as lines:
            METHODS[method](kde, queries)
        total, each = sum(lines.values()), "-"
        if ON_GPU and visits["blocks"]:
            each = f"{total / visits['blocks']:.1f}"
        most = "; ".join(f"{line} x {k}" for line, k in lines.most_common(4)) or "-"
        total = total if ON_GPU else "-"
        yield d, by, method, visits["blocks"], visits["tiles"], total, each, most


@contextlib.contextmanager
def counting(visits):
    """Count visits of blocks of queries, and their tiles, in a call."""
    visit = torch_backend.TorchDevice.visit

    def counted(self, reduction, queries, points, cols, check):
        visits["blocks"] += 1

        def checked(amount):
            visits["tiles"] += amount > 0
            check(amount)

        return visit(self, reduction, queries, points, cols, checked)

    torch_backend.TorchDevice.visit = counted
    try:
        yield
    finally:
        torch_backend.TorchDevice.visit = visit


@contextlib.contextmanager
def sync_warnings():
    """Count the lines of code at which CUDA is waited for."""
    lines = collections.Counter()
    if not ON_GPU:
        yield lines
        return
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for item in found:
        if "called a synchronizing" in str(item.message):
            lines[f"{pathlib.Path(item.filename).name}:{item.lineno}"] += 1


# ---- What the device can do


@functools.cache
def matrix_rate(name):
    """Multiplications and additions a second, of square matrices of a dtype."""
    size = 8192 if ON_GPU else 512
    a = torch.rand(size, size, dtype=getattr(torch, name), device=DEVICE)
    out = torch.empty_like(a)
    return 2.0 * size**3 / least(lambda: torch.matmul(a, a, out=out))


def least(call):
    timed(call)
    return min(timed(call) for _ in range(5))


def limits(budget):
    """Yield rates by dtype: of products, exponentials, memory and copies."""
    for name in ("float32", "float64"):
        budget.lets(f"limits in {name}")
        size = 8192 if ON_GPU else 512
        a = torch.rand(size, size, dtype=getattr(torch, name), device=DEVICE)
        out, on_host = torch.empty_like(a), a.cpu()
        exp = a.numel() / least(lambda a=a, out=out: torch.exp(a, out=out))
        memory = 2 * a.nbytes / least(lambda a=a, out=out: out.copy_(a))
        up = a.nbytes / least(lambda x=on_host, out=out: out.copy_(x))
        down = a.nbytes / least(lambda a=a, x=on_host: x.copy_(a))
        rates = matrix_rate(name) / 1e12, exp / 1e9, memory / 1e9, up / 1e9, down / 1e9
        yield name, *(f"{rate:.3g}" for rate in rates)


# ---- Log densities


def densities(sizes, names, budget):
    for (n, m, d), dtype in ((size, dtype) for size in sizes for dtype in DTYPES):
        points, queries = drawn(n, m, d, dtype)
        dtype_name = np.dtype(dtype).name
        expected = direct(queries[:N_CHECKED], points, 1.0)
        for name in names:
            if not budget.lets(f"{name}: n = {n}, m = {m}, d = {d}, {dtype_name}"):
                return
            if not can(name, d, dtype):
                yield n, m, d, dtype_name, name, *"-----"
                continue
            asked = queries[: m // FEWER] if name == "numpy" and ON_GPU else queries
            kde, held = None, memory_in_use()
            kde = estimator(name, points)
            error = np.abs(kde.score_samples(asked)[:N_CHECKED] - expected).max()
            if ON_GPU:
                torch.cuda.reset_peak_memory_stats()
            taken = seconds(lambda kde=kde, x=asked: kde.score_samples(x), budget)
            per_pair = taken / (n * len(asked))
            share = 2.0 * d / per_pair / matrix_rate(dtype_name)
            numbers = f"{taken:.3g}", f"{per_pair * 1e12:.3g}", f"{share:.0%}"
            extra = "-"
            if ON_GPU and name != "numpy":
                extra = torch.cuda.max_memory_allocated() - held - points.nbytes
                extra = f"{extra / 2**20:.0f}"
            yield n, len(asked), d, dtype_name, name, *numbers, f"{error:.1e}", extra


# ---- Where the time goes


class Passes(TorchDispatchMode):
    """Counts operations over at least a part of a tile, by the elements they pass over.

    Kernels of Triton are none of torch's operations.
    """

    def __init__(self, n_smallest):
        super().__init__()
        self.n_smallest, self.n_elements = n_smallest, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, result)) if torch.is_tensor(x)]
        size = max((x.numel() for x in tensors), default=0)
        if size >= self.n_smallest and not function.is_view:
            self.n_elements += size
        return result


def where_time_goes(sizes, method_sizes, names, budget, kernels):
    """Busy share of the device, passes over tiles and launches of a call.

    Totals of the five most expensive kernels go to the list ``kernels``.
    """
    scores = itertools.product(sizes, ("score_samples",), names)
    others = itertools.product(method_sizes, ("gradient", "diagnose"), ("torch",))
    for (size, method, name), dtype in itertools.product([*scores, *others], DTYPES):
        n, m, d = size
        case = d, np.dtype(dtype).name, name, method
        if not budget.lets(f"profile of {method} by {name}, d = {d}, {case[1]}"):
            return
        if not can(name, d, dtype):
            continue
        points, queries = drawn(n, m, d, dtype)
        call = functools.partial(METHODS[method], estimator(name, points))
        taken = seconds(lambda call=call, x=queries: call(x), budget)
        some = queries[:60_000]
        passes = f"{passes_over_pairs(call, n, some):.2f}"
        numbers = ["-"] * 4
        if ON_GPU:
            totals, busy, copied = profiled(lambda call=call, x=queries: call(x))
            launches = sum(count for count, _ in totals.values())
            idle = max(0.0, 1.0 - busy / taken)
            numbers = f"{busy:.3g}", f"{idle:.0%}", f"{copied:.3g}", launches
            for kernel, (count, spent) in most_expensive(totals):
                kernels.append((*case, kernel, count, f"{spent:.3g}"))
        yield *case, f"{taken:.3g}", *numbers, passes


def passes_over_pairs(call, n_points, queries):
    """Passes of torch's operations over all pairs, on one thread.

    Those within an operation, as of ``torch.logsumexp``, are not seen.
    """
    kde, n_pairs = call.args[0], n_points * len(queries)
    if isinstance(kde, HighDimKernelDensity):
        kde.set_params(n_jobs=1)
    with Passes(min(n_pairs, 2**25 if ON_GPU else 2**17) // 4) as passes:
        call(queries)
    if isinstance(kde, HighDimKernelDensity):
        kde.set_params(n_jobs=None)
    return passes.n_elements / n_pairs


def profiled(call):
    """(count, seconds) of each kernel, seconds in which any runs, and of copies."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        wait()
    totals, copied, times = {}, 0.0, []
    for event in profile.events():
        if event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        start, end = event.time_range.start / 1e6, event.time_range.end / 1e6
        count, spent = totals.get(event.name, (0, 0.0))
        totals[event.name] = count + 1, spent + end - start
        copied += end - start if event.name.startswith("Memcpy") else 0.0
        times.append((start, end))
    return totals, covered(times), copied


def covered(times):
    """Seconds that intervals cover together; those of several streams overlap."""
    total, until = 0.0, -np.inf
    for start, end in sorted(times):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def most_expensive(totals):
    """The five kernels with the most seconds, by names that are not too long."""
    ordered = sorted(totals.items(), key=lambda item: -item[1][1])[:5]
    return [(name.replace("|", " ")[:60], numbers) for name, numbers in ordered]


# ---- Fits, and torch beside KeOps


def fits(sizes, names, budget):
    """Seconds of a fit that chooses the bandwidth, the second one of two."""
    for n, d in sizes:
        points, taken = drawn(n, 1, d, np.float32)[0], []
        if not budget.lets(f"fits of n = {n}, d = {d}"):
            return
        for name in names:
            fit = functools.partial(HighDimKernelDensity(backend=name).fit, points)
            fast = can(name, d, np.float32)
            taken.append(f"{(timed(fit), timed(fit))[1]:.3g}" if fast else "-")
        yield n, d, *taken


def crossings(dimensions, n, budget):
    """Seconds of torch and of KeOps by number of features."""
    for d, dtype in ((d, dtype) for d in dimensions for dtype in DTYPES):
        name, taken = np.dtype(dtype).name, []
        if not budget.lets(f"torch and KeOps, d = {d}, {name}"):
            return
        points, queries = drawn(n, n, d, dtype)
        for backend in ("torch", "keops"):
            kde = HighDimKernelDensity(bandwidth=1.0, backend=backend).fit(points)
            taken.append(seconds(functools.partial(kde.score_samples, queries), budget))
        yield d, name, *(f"{x:.3g}" for x in taken), f"{taken[1] / taken[0]:.2f}"


# ---- All of it

TABLES = ["waits", "limits", "densities", "profile", "fits", "keops", "crossings"]
DENSITY_COLUMNS = (
    "points|queries|features|dtype|by|seconds|ps per pair|share of the matrix rate|"
    f"largest error of {N_CHECKED} (nats)|peak beside the points (MiB)"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backends", default="fused,torch,plain,numpy,keops")
    parser.add_argument("--only", default=",".join(TABLES), help="tables, by commas")
    options = parser.parse_args()
    names, only = options.backends.split(","), options.only.split(",")
    if unknown := set(only) - set(TABLES):
        parser.error(f"no tables {sorted(unknown)}: there are {', '.join(TABLES)}")
    check_gpu(options.small, names)
    remark = torch.cuda.get_device_name() if ON_GPU else "no GPU: torch on the CPU"
    print(describe_run("torch", "triton", "pykeops", remark=remark), flush=True)
    budget = Budget(options.minutes, options.repeats)
    by_default, failed = torch_backend.FUSED_FROM, []
    for table in (name for name in TABLES if name in only):
        torch_backend.FUSED_FROM = by_default
        try:
            write(table, names, options.small, budget)
        except Exception as error:  # time with a card is short: the others go on
            traceback.print_exc()
            print(f"\nThe table {table!r} ended with {error!r}", flush=True)
            failed.append(table)
    print(f"\nAll of it took {budget.share() * options.minutes:.1f} minutes.", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def check_gpu(small, names):
    """End here if there is no GPU, of torch and of KeOps where it is asked for."""
    if small:
        return
    if not ON_GPU:
        sys.exit("torch finds no CUDA GPU; --small is for a CPU")
    if "keops" in names and not keops_runtime.uses_gpu():
        sys.exit("KeOps does not use the GPU; leave it out by --backends")


def write(table, names, small, budget):
    """Measure one table, and print it row by row."""
    sizes, method_sizes = (SMALL, SMALL_METHOD_SIZES) if small else (SIZES, METHOD_SIZES)
    apart = [name for name in names if name != "keops"]
    if table == "waits":
        write_table(
            "Waits for the device, float32, one thread (where: file, line, times)",
            "features|by|method|visits of a block|tiles|waits|waits of a visit|where",
            waits(method_sizes, budget),
        )
    elif table == "limits":
        write_table(
            "Limits of the device, measured",
            "dtype|matrix products (TFLOP/s)|exp (10^9/s)|memory (GB/s)|"
            "from the host, pageable (GB/s)|to the host (GB/s)",
            limits(budget),
        )
    elif table == "densities":
        title = "Log densities, Gaussian kernel, N(0, I)"
        write_table(title, DENSITY_COLUMNS, densities(sizes, apart, budget))
    elif table == "profile":
        kernels, on_device = [], [name for name in apart if name != "numpy"]
        write_table(
            "Where the time goes",
            "features|dtype|by|method|seconds|device busy (seconds)|device idle|"
            "copies (seconds)|launches|passes by torch over all pairs",
            where_time_goes(sizes, method_sizes, on_device, budget, kernels),
        )
        columns = "features|dtype|by|method|kernel|times|seconds"
        write_table("The five most expensive kernels of each", columns, kernels)
    elif table == "fits":
        by = [name for name in apart if name in ("numpy", "torch")]
        columns = ["points", "features", *(f"{name} (seconds)" for name in by)]
        rows = fits(SMALL_FITS if small else FITS, by, budget)
        title = "Fits that choose the bandwidth, float32"
        write_table(title, "|".join(columns), rows)
    elif "keops" in names:
        write_keops(table, sizes, SMALL_CROSSINGS if small else CROSSINGS, budget)


def write_keops(table, sizes, comparison, budget):
    """Measure a table that needs KeOps: last, since it takes the time of a compiler."""
    if table == "keops":
        title = "Log densities by KeOps"
        write_table(title, DENSITY_COLUMNS, densities(sizes, ["keops"], budget))
    else:
        dimensions, n = comparison
        write_table(
            f"torch and KeOps by number of features, {n} points and queries",
            "features|dtype|torch (seconds)|KeOps (seconds)|KeOps / torch",
            crossings(dimensions, n, budget),
        )


if __name__ == "__main__":
    main()
