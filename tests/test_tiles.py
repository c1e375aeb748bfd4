"""The tile engine: same numbers however pairs are visited, and good manners."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_info, threadpool_limits

from skhdkde import HighDimKernelDensity
from skhdkde._backends import _numpy, _threads, _tiles
from skhdkde._kernels import KERNELS
from skhdkde._pairwise.points import TrainingPoints
from skhdkde._pairwise.reductions import KSmallest, LogSumExp, squaring_chains


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((700, 12)), rng.standard_normal((900, 12))


def everything(X, Y, **params):
    kde = HighDimKernelDensity(bandwidth=0.6, **params).fit(Y)
    return kde.score_samples(X), kde.score_samples(None), kde.log_density_gradient(X)


def assert_same(result, expected, rtol=1e-11):
    for a, b in zip(result, expected, strict=True):
        assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
@pytest.mark.parametrize("rows, cols", [(1, 7), (16, 1), (50, 64), (4096, 4096)])
def test_tile_size_does_not_matter(data, rows, cols, kernel, monkeypatch):
    X, Y = data[0][:60], data[1][:90]
    expected = everything(X, Y, kernel=kernel)
    monkeypatch.setattr(_numpy.NumpyDevice, "tile_rows", rows)
    monkeypatch.setattr(_numpy.NumpyDevice, "tile_cols", cols)
    assert_same(everything(X, Y, kernel=kernel), expected)


@pytest.mark.parametrize("bandwidths", [[0.1], 0.1 * 2.0 ** (np.arange(16) / 4)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nearer_points_in_later_tiles(dtype, bandwidths, monkeypatch):
    """Sums relative to the first tiles' nearest point overflow, and are made again."""
    rng = np.random.default_rng(0)
    Y = (rng.standard_normal((600, 3)) * np.linspace(2, 0.01, 600)[:, None]).astype(dtype)
    X = (0.01 * rng.standard_normal((20, 3))).astype(dtype)
    monkeypatch.setattr(_numpy.NumpyDevice, "tile_cols", 30)
    full = []
    make_tile = _tiles.Tile.__init__
    monkeypatch.setattr(
        _tiles.Tile, "__init__", lambda *args: (full.append(1), make_tile(*args))[1]
    )
    points = TrainingPoints(Y)
    tol = 1e-3 if dtype == np.float32 else 1e-8
    h = np.asarray(bandwidths)
    reduction = LogSumExp(KERNELS["gaussian"], h * points.scale, points, tol)
    queries = points.as_queries(X)
    log_sums = _numpy.reduce_pairs(reduction, queries, points, n_jobs=1)
    assert 1 < len(full) < 20  # some tiles, not all
    for g in range(len(h)):
        expected = oracles.log_density(X, Y, h[g]) + np.log(600)
        expected += oracles.log_normalizer("gaussian", 3) + 3 * np.log(h[g])
        assert_allclose(log_sums[:, g], expected, atol=tol)


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 8, -1])
def test_number_of_threads_does_not_matter(data, n_jobs):
    assert_same(everything(*data, n_jobs=n_jobs), everything(*data, n_jobs=None))


@pytest.mark.parametrize("n_queries", [1, 2, 30])
def test_few_queries_are_split_over_training_points(n_queries, monkeypatch):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n_queries, 3)), rng.standard_normal((3000, 3))
    monkeypatch.setattr(_numpy.NumpyDevice, "tile_cols", 100)
    assert_same(everything(X, Y, n_jobs=4), everything(X, Y, n_jobs=1))
    rows, cols = _tiles.split(n_queries, Y.shape, 4, _numpy._device)
    assert len(rows) * len(cols) >= 8


@pytest.mark.parametrize("layout", ["F", "strided", "reversed", "readonly", "memmap"])
def test_memory_order_does_not_matter(data, layout, tmp_path):
    def lay_out(A, name):
        if layout == "F":
            return np.asfortranarray(A)
        if layout == "strided":
            return np.repeat(A, 2, axis=1)[:, ::2]
        if layout == "reversed":
            return A[::-1].copy()[::-1]
        if layout == "memmap":
            file = np.memmap(tmp_path / name, A.dtype, "w+", shape=A.shape)
            file[:] = A
            return file
        A = A.copy()
        A.setflags(write=False)
        return A

    X, Y = data
    result = everything(lay_out(X, "x"), lay_out(Y, "y"))
    assert_same(result, everything(X, Y))


def test_k_smallest(data):
    X, Y = data
    points = TrainingPoints(Y)
    result = _numpy.reduce_pairs(KSmallest(5, 1e-8), points.as_queries(X), points)
    expected = np.sort(((X[:, None] - Y) ** 2).sum(axis=2), axis=1)[:, :5]
    assert_allclose(result / points.scale**2, expected, rtol=1e-10)


def test_squaring_chains_cover_the_grid():
    grid = 0.3 * 2.0 ** (np.arange(32) / 16)
    chains = squaring_chains(grid, np.sqrt(2.0))
    assert sorted(g for chain in chains for g in chain) == list(range(32))
    assert len(chains) == 8
    for chain in chains:
        ratios = grid[chain[:-1]] / grid[chain[1:]]
        assert_allclose(ratios, np.sqrt(2.0))
    assert len(squaring_chains(np.geomspace(1, 3, 5), np.sqrt(2.0))) == 5


@pytest.mark.parametrize(
    "n, m, d, dtype",
    [
        (100_000, 2_000, 8, np.float32),
        (2_000, 60_000, 8, np.float64),
        (1_000, 300, 10_000, np.float64),
        (1_000, 300, 10_000, np.float32),
        (1_000, 30_000, 300, np.float32),
    ],
)
@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_extra_memory_is_bounded(n, m, d, dtype, kernel):
    """At most 64 MiB per thread beside the result, whatever n, m and d."""
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((n, d), dtype=np.float32).astype(dtype)
    X = rng.standard_normal((m, d), dtype=np.float32).astype(dtype)
    bandwidth = 1.0 if kernel == "gaussian" else 1.5 * np.sqrt(d)
    kde = HighDimKernelDensity(bandwidth=bandwidth, kernel=kernel, n_jobs=2).fit(Y)
    methods = [lambda: kde.score_samples(X)]
    if n * m * d < 1e10:
        methods.append(lambda: kde.log_density_gradient(X))
    for method in methods:
        tracemalloc.start()
        result = method()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # beside the result, a few float64 numbers per query from which it is made
        assert peak - result.nbytes - 40 * m <= 2 * 64 * 2**20


def blas_threads():
    """Of numpy's BLAS; that of faiss, on OpenMP, has a setting for each thread."""
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    return [lib["num_threads"] for lib in libraries if "faiss" not in lib["filepath"]]


def test_blas_threads_are_restored(data):
    X, Y = data
    kde = HighDimKernelDensity(bandwidth=0.6, n_jobs=2).fit(Y)
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with ThreadPoolExecutor(6) as executor:
            results = list(executor.map(lambda _: kde.score_samples(X), range(30)))
        assert blas_threads() == before
    for result in results:
        assert_allclose(result, results[0], rtol=1e-12)


def test_blas_has_one_thread_inside(data, monkeypatch):
    seen = []

    class Spy(_tiles.Tile):
        def __init__(self, *args):
            seen.extend(blas_threads())
            super().__init__(*args)

    monkeypatch.setattr(_tiles, "Tile", Spy)
    with threadpool_limits(2, user_api="blas"):
        HighDimKernelDensity(bandwidth=0.6, n_jobs=2).fit(data[1]).score_samples(data[0])
    assert seen
    assert set(seen) == {1}


def test_number_of_threads_follows_the_blas():
    with threadpool_limits(1, user_api="blas"):
        assert _threads.n_threads_for(None) == 1
    with threadpool_limits(2, user_api="blas"):
        assert _threads.n_threads_for(None) == 2
    assert _threads.n_threads_for(3) == 3
    assert _threads.n_threads_for(-1) == joblib.cpu_count()


def test_error_in_a_thread_reaches_the_caller(data, monkeypatch):
    calls = []

    def fail(tile, *args):
        calls.append(1)
        raise ZeroDivisionError("in a tile")

    monkeypatch.setattr(_tiles, "always_sharp", fail)
    monkeypatch.setattr(_numpy.NumpyDevice, "tile_rows", 16)
    kde = HighDimKernelDensity(bandwidth=0.6, n_jobs=2).fit(data[1])
    before = blas_threads()
    with pytest.raises(ZeroDivisionError, match="in a tile"):
        kde.score_samples(data[0])
    assert blas_threads() == before
    assert len(calls) < 40  # the other tasks were not begun


def test_refitting_while_others_score(data):
    """A fit replaces the fitted state at once, so that no call sees half of it."""
    X, Y = data
    kde = HighDimKernelDensity(bandwidth=0.6).fit(Y)
    expected = [kde.score_samples(X), HighDimKernelDensity(bandwidth=0.6).fit(-Y)]
    expected[1] = expected[1].score_samples(X)
    done = threading.Event()

    def refit():
        for sign in [-1, 1] * 20:
            kde.fit(sign * Y)
        done.set()

    thread = threading.Thread(target=refit)
    thread.start()
    while not done.is_set():
        result = kde.score_samples(X)
        assert min(np.abs(result - e).max() for e in expected) < 1e-10
    thread.join()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_inside_joblib_workers(data, backend):
    X, Y = data
    kde = HighDimKernelDensity(bandwidth=0.6).fit(Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loky's own, when a worker is slow to start
        results = joblib.Parallel(n_jobs=2, backend=backend)(
            joblib.delayed(kde.score_samples)(X) for _ in range(4)
        )
    for result in results:
        assert_allclose(result, kde.score_samples(X), rtol=1e-12)


def n_threads_in_worker():
    return _threads.n_threads_for(None)


def test_joblib_processes_share_the_cores():
    counts = joblib.Parallel(n_jobs=joblib.cpu_count(), backend="loky")(
        joblib.delayed(n_threads_in_worker)() for _ in range(2)
    )
    assert counts == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_can_score(data):
    """Also when the parent was in a pass: no lock is inherited."""
    script = """
import os, threading, numpy as np, warnings
warnings.simplefilter("ignore")
from skhdkde import HighDimKernelDensity
rng = np.random.default_rng(0)
Y = rng.standard_normal((20000, 64))
kde = HighDimKernelDensity(bandwidth=1.0, n_jobs=2).fit(Y)
thread = threading.Thread(target=kde.score_samples, args=(Y[:6000],))
thread.start()
pid = os.fork()
if pid == 0:
    kde.score_samples(Y[:500])
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
thread.join()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_the_first_pass_imports_nothing_of_ours():
    """A child forked while a thread imports would wait for that import for ever."""
    script = """
import sys, numpy as np
from skhdkde import HighDimKernelDensity
Y = np.random.default_rng(0).standard_normal((20, 3))
kde = HighDimKernelDensity(bandwidth=1.0).fit(Y)
before = set(sys.modules)
kde.score_samples(Y)
print([name for name in set(sys.modules) - before if "skhdkde" in name])
"""
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, text=True).strip() == "[]"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_stops_a_long_pass(n_jobs):
    script = f"""
import time, numpy as np
from skhdkde import HighDimKernelDensity
rng = np.random.default_rng(0)
Y = rng.standard_normal((100_000, 100))
kde = HighDimKernelDensity(bandwidth=1.0, n_jobs={n_jobs}).fit(Y)
print("ready", flush=True)
try:
    kde.score_samples(Y)
    print("finished", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.0)  # the pass takes tens of seconds
        process.send_signal(signal.SIGINT)
        start = time.perf_counter()
        assert process.stdout.readline() == "interrupted\n"
        assert time.perf_counter() - start < 5.0
        assert process.wait(timeout=20) == 0


def test_progress_bar(data, capsys):
    X, Y = data
    HighDimKernelDensity(bandwidth=0.6, verbose=1).fit(Y).score_samples(X)
    assert "density" in capsys.readouterr().err
    HighDimKernelDensity(verbose=1).fit(Y)
    assert "bandwidth" in capsys.readouterr().err
    HighDimKernelDensity(bandwidth=0.6).fit(Y).score_samples(X)
    assert capsys.readouterr().err == ""


def test_pickled_estimator_gives_the_same_bits(data):
    X, Y = data
    kde = HighDimKernelDensity().fit(Y)
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(again.score_samples(X), kde.score_samples(X))
    assert_array_equal(again.score_samples(None), kde.score_samples(None))
    assert_array_equal(again.sample(5, random_state=1), kde.sample(5, random_state=1))


def test_the_data_are_copied(data):
    X, Y = data
    Y = Y.copy()
    kde = HighDimKernelDensity(bandwidth=0.6).fit(Y)
    before = kde.score_samples(X)
    Y[:] = 0.0
    assert_array_equal(kde.score_samples(X), before)
