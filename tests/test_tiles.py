"""The tile engine: same numbers however pairs are visited, and good manners."""

import gc
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
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_info, threadpool_limits

from skhdkde import HighDimKernelDensity
from skhdkde._kernels import KERNELS
from skhdkde._pairwise import ComputeOptions, LogSumExp, ReductionSpec, TrainingPoints
from skhdkde._pairwise.backends import NumpyDevice, split, visit_pairs
from skhdkde._pairwise.points import LONGEST_WALK, NO_BLOCKS, QueryBlock
from skhdkde._pairwise.tiles import error_bound
from skhdkde._utils.threads import n_threads_for


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((700, 12)), rng.standard_normal((900, 12))


@pytest.fixture
def set_tiles(monkeypatch):
    """A function that sets the size of tiles of numpy."""

    def set_tiles(rows, cols):
        for name, size in (("tile_rows", rows), ("tile_cols", cols)):
            monkeypatch.setattr(NumpyDevice, name, size)

    return set_tiles


def everything(X, Y, **params):
    kde = HighDimKernelDensity(bandwidth=0.6, **params).fit(Y)
    return kde.score_samples(X), kde.score_samples(None), kde.log_density_gradient(X)


def assert_same(result, expected, rtol=1e-11):
    for a, b in zip(result, expected, strict=True):
        assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
@pytest.mark.parametrize("rows, cols", [(1, 7), (16, 1), (50, 64), (4096, 4096)])
def test_tile_size_does_not_matter(data, rows, cols, kernel, set_tiles):
    X, Y = data[0][:60], data[1][:90]
    expected = everything(X, Y, kernel=kernel)
    set_tiles(rows, cols)
    assert_same(everything(X, Y, kernel=kernel), expected)


class NarrowTiles(NumpyDevice):
    """Tiles of few points, which counts its products."""

    tile_cols = 30

    def __init__(self):
        super().__init__()
        self.n_products = 0

    def product(self, queries, block):
        self.n_products += 1
        return super().product(queries, block)


@pytest.mark.parametrize("ratios", [[1.0], 2.0 ** (np.arange(16) / 4)])
@pytest.mark.parametrize("dtype, smallest", [(np.float64, 0.035), (np.float32, 0.1)])
def test_nearer_points_in_later_tiles(dtype, smallest, ratios):
    """Sums relative to the first tiles' nearest point overflow, and are made again."""
    rng = np.random.default_rng(0)
    Y = (rng.standard_normal((600, 3)) * np.linspace(2, 0.01, 600)[:, None]).astype(dtype)
    X = (0.01 * rng.standard_normal((20, 3))).astype(dtype)
    points, device, h = TrainingPoints(Y), NarrowTiles(), smallest * np.asarray(ratios)
    tol = 1e-3 if dtype == np.float32 else 1e-8
    spec = ReductionSpec(KERNELS["gaussian"], h * points.scale, points, dtype, tol)
    queries, log_sums = points.as_queries(X), np.empty((20, len(h)))
    options = ComputeOptions(n_jobs=1)
    visit_pairs(device, LogSumExp(spec), queries, points, options, None, log_sums)
    assert 20 < device.n_products < 39  # some of the 20 tiles again, not all
    for g in range(len(h)):
        expected = oracles.log_density(X, Y, h[g]) + np.log(600)
        expected += oracles.log_normalizer("gaussian", 3) + 3 * np.log(h[g])
        assert_allclose(log_sums[:, g], expected, atol=tol)


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 8, -1])
def test_number_of_threads_does_not_matter(data, n_jobs):
    assert_same(everything(*data, n_jobs=n_jobs), everything(*data, n_jobs=None))


@pytest.mark.parametrize("n_queries", [1, 2, 30])
def test_few_queries_are_split_over_training_points(n_queries, set_tiles):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n_queries, 3)), rng.standard_normal((3000, 3))
    set_tiles(256, 100)
    assert_same(everything(X, Y, n_jobs=4), everything(X, Y, n_jobs=1))
    rows, cols = split(n_queries, Y.shape, 4, NumpyDevice())
    assert len(rows) * len(cols) >= 4  # one for each thread


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


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize(
    "n, m, d, dtype",
    [
        (1_000, 300, 10_000, np.float64),
        pytest.param(1_000, 300, 10_000, np.float32, marks=pytest.mark.slow),
        pytest.param(100_000, 2_000, 8, np.float32, marks=pytest.mark.slow),
        pytest.param(2_000, 60_000, 8, np.float64, marks=pytest.mark.slow),
        pytest.param(1_000, 30_000, 300, np.float32, marks=pytest.mark.slow),
    ],
)
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


SHAPES_OF_KERNELS = [
    {},
    {"covariance_type": "diag"},
    {"covariance_type": "full", "preserve_variance": True},
    {"covariance_type": "local", "mixture": GaussianMixture(3, random_state=0)},
    {"adaptive": True},
    {"kernel": "student", "degrees_of_freedom": 3.0},
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("parameters", SHAPES_OF_KERNELS, ids=str)
def test_memory_of_every_method_is_bounded(parameters, dtype):
    """64 MiB per thread for each method, two copies of the data kept, or three."""
    rng = np.random.default_rng(0)
    # in float32 too, a number for each pair would be more
    Y, X = (rng.standard_normal((n, 30)).astype(dtype) for n in (12_000, 3000))
    weights = rng.exponential(size=len(Y))
    kde = HighDimKernelDensity(bandwidth=0.5, random_state=0, n_jobs=2, **parameters)
    tracemalloc.start()
    kde.fit(Y, sample_weight=weights)
    for method in (
        lambda: kde.score_samples(X),
        lambda: kde.log_density_gradient(X),
        lambda: kde.diagnose(X[:850]),
        lambda: kde.sample(100, random_state=0),
    ):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = method()
        peak = tracemalloc.get_traced_memory()[1] - before
        of_result = getattr(result, "nbytes", 0) + 40 * len(X)
        assert peak - of_result <= 2 * 64 * 2**20
    del result
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    n_copies = 2 if parameters in ({}, SHAPES_OF_KERNELS[-1]) else 3
    assert kept <= n_copies * Y.nbytes * 32 / 30 + 100 * len(Y) + 2**20


ROWS = {
    "normal": lambda rng, n, d: rng.standard_normal((n, d)),
    "positive": lambda rng, n, d: rng.random((n, d)),
    "near": lambda rng, n, d: rng.standard_normal(d) + 1e-3 * rng.standard_normal((n, d)),
    "sparse": lambda rng, n, d: rng.random((n, d)) * (rng.random((n, d)) < 0.1),
    "shifted": lambda rng, n, d: 50 + rng.standard_normal((n, d)),
    "equal": lambda rng, n, d: rng.uniform(1, 2, (n, 1)) * np.ones(d),
    "equal up to sign": lambda rng, n, d: (
        rng.uniform(1, 2, (n, 1)) * rng.choice([-1.0, 1.0], (n, d))
    ),
    "equal up to digits": lambda rng, n, d: (
        rng.uniform(1, 2, (n, 1))
        * (1 + 10.0 ** rng.integers(-7, -1, (n, 1)) * rng.standard_normal((n, d)))
    ),
    "binary": lambda rng, n, d: 1.1 * rng.integers(0, 2, (n, d)),
    "few values": lambda rng, n, d: rng.uniform(1, 2, 4)[rng.integers(0, 4, (n, d))],
    "grey values": lambda rng, n, d: rng.integers(0, 256, (n, d)) / 255.0,
    "periodic": lambda rng, n, d: np.resize(rng.standard_normal((d // 8 + 1, 8)), (n, d)),
    "half equal": lambda rng, n, d: np.where(
        np.arange(d) < d // 2, 1.3, rng.standard_normal((n, d))
    ),
    "a large entry": lambda rng, n, d: np.where(
        np.arange(d) < 1,
        1.0,
        10.0 ** rng.integers(-5, -1, (n, 1)) * rng.standard_normal((n, d)),
    ),
    "a large entry, others equal": lambda rng, n, d: np.where(
        np.arange(d) < 1,
        1.0,
        10.0 ** rng.integers(-5, -1, (n, 1)) * rng.uniform(1, 2, (n, 1)),
    ),
    "a large entry, others positive": lambda rng, n, d: np.where(
        np.arange(d) < 1,
        1.0,
        10.0 ** rng.uniform(-5, -1, (n, 1)) * rng.uniform(0.5, 1, (n, d)),
    ),
    "decaying": lambda rng, n, d: np.geomspace(1, 1e-8, d) * rng.uniform(0.5, 2, (n, d)),
    "growing": lambda rng, n, d: np.geomspace(1e-8, 1, d) * rng.uniform(0.5, 2, (n, d)),
    "sorted": lambda rng, n, d: np.sort(rng.standard_normal((n, d)), axis=1),
    "heavy-tailed": lambda rng, n, d: rng.standard_t(1.0, (n, d)),
    "one-hot": lambda rng, n, d: 1.1 * np.eye(d)[rng.integers(0, d, n)],
}
QUERIES = {
    "the same": lambda rng, Y: Y,
    "shifted": lambda rng, Y: Y + 1e-3,
    "moved in one entry": lambda rng, Y: Y + 1e-3 * (np.arange(Y.shape[1]) == 0),
    "moved at random": lambda rng, Y: Y * (1 + 1e-4 * rng.standard_normal(Y.shape)),
    "of others": lambda rng, Y: 1.5 * Y[::-1],
}


def rows_of(rng, kind, moved, d, dtype, n, longest_walk=LONGEST_WALK):
    """Return points of a kind and queries near them."""
    Y = ROWS[kind](rng, n, d)
    Y = (Y / np.abs(Y).max()).astype(dtype)
    X = QUERIES[moved](rng, Y[: n // 3]).astype(dtype)
    points = TrainingPoints(Y, center=np.zeros(d))
    exact = points.as_queries(X)[:]
    return QueryBlock(exact, points, None, np.dtype(dtype), longest_walk), points


def relative_errors(sq, queries, points):
    """Return errors of squared distances, relative to the bound."""
    all_points = points.exact.astype(np.longdouble)
    exact = np.stack([oracles.squared_distances(q, all_points) for q in queries.exact])
    error = np.abs(sq - exact).astype(float)
    # the bound of a row is for its nearest point, and for those within reach
    bounds = [
        error_bound(queries.sq_norms, queries.rounding, points, queries.dtype, own, own)
        for own in exact.T.astype(float)
    ]
    return error / np.maximum(np.column_stack(bounds), 1e-300)


def largest_errors(rng, kind, moved, d, dtype, n=60):
    """Return errors of products, relative to the bound, of queries with all points."""
    queries, points = rows_of(rng, kind, moved, d, dtype, n)
    return relative_errors(queries.augmented @ points.augmented.T, queries, points)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("d", [1, 2, 8, 33, 128, 768, 2048])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_error_bound_holds(dtype, d, kind):
    """For every row by itself, whatever its entries have in common."""
    rng = np.random.default_rng(d)
    for moved in QUERIES:
        assert largest_errors(rng, kind, moved, d, dtype).max() <= 1.0


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("d", [128, 768, 5000])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_error_bound_holds_for_few_queries(dtype, d, kind):
    """Whose products are made in another way."""
    rng, device = np.random.default_rng(d), NumpyDevice()
    for moved in QUERIES:
        queries, points = rows_of(rng, kind, moved, d, dtype, 12)
        few = [queries.augmented[i : i + 3] for i in range(0, 12, 3)]
        sq = [device.product(rows, points.augmented).copy() for rows in few]
        assert relative_errors(np.vstack(sq), queries, points).max() <= 1.0


@pytest.mark.parametrize("kind", ["normal", "positive", "near", "sparse", "shifted"])
@pytest.mark.parametrize("d", [2, 33, 768])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_error_bound_is_not_idle(dtype, d, kind):
    """The largest error is not far below it."""
    rng = np.random.default_rng(d)
    assert largest_errors(rng, kind, "the same", d, dtype, 300).max() > 0.05


def one_by_one(queries, points):
    """Return products of stacks of rows, by one fused multiply-add after another.

    A GPU may do so. In float64 the last bit may be another: products have more digits
    than a long double.
    """
    wide = np.float64 if queries.dtype == np.float32 else np.longdouble
    total = np.zeros((*queries.shape[:2], points.shape[1]), queries.dtype)
    for k in range(queries.shape[2]):
        x, y = queries[:, :, None, k].astype(wide), points[:, None, :, k].astype(wide)
        total = (total + x * y).astype(total.dtype)
    return total


@pytest.mark.parametrize("d", [33, 768, pytest.param(6144, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_error_bound_holds_where_terms_are_added_one_by_one(dtype, d):
    rng = np.random.default_rng(d)
    both = [
        rows_of(rng, kind, moved, d, dtype, 24, NO_BLOCKS)
        for kind in ROWS
        for moved in QUERIES
    ]
    products = one_by_one(
        np.stack([queries.augmented for queries, _ in both]),
        np.stack([points.augmented for _, points in both]),
    )
    for sq, (queries, points) in zip(products, both, strict=True):
        assert relative_errors(sq, queries, points).max() <= 1.0


@st.composite
def batches_of_repeated_rows(draw):
    """Points some of which have repeated entries, and queries near some of these."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    d = draw(st.sampled_from([100, 400, 1000]))
    kind = draw(st.sampled_from(sorted(ROWS)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    Y = rng.standard_normal((192, d))
    rows = rng.permutation(192)[: draw(st.sampled_from([1, 40]))]
    Y[rows] = ROWS[kind](rng, len(rows), d)
    distance = 1e-3 if dtype == np.float32 else 1e-6
    steps = np.eye(d)[rng.integers(0, d, len(rows))] * distance
    X = np.vstack([rng.standard_normal((8, d)), Y[rows].astype(dtype) + steps])
    h = 10.0 ** draw(st.floats(-3.5, -0.5) if dtype == np.float32 else st.floats(-6, -2))
    return X.astype(dtype), Y.astype(dtype), h


@examples(25)
@given(batch=batches_of_repeated_rows())
def test_a_query_is_as_precise_in_a_batch_as_alone(batch):
    """Within what is promised, and a few roundings of the result."""
    X, Y, h = batch
    kde = HighDimKernelDensity(bandwidth=h).fit(Y)
    expected = oracles.log_density(X, Y, h)
    allowed = 1e-3 if X.dtype == np.float32 else 1e-8
    allowed += 4.0 * np.finfo(X.dtype).eps * np.abs(expected).astype(float)
    alone = np.concatenate([kde.score_samples(x[None]) for x in X])
    for result in (kde.score_samples(X), kde.score_samples(X[::-1])[::-1], alone):
        assert (np.abs(result - expected).astype(float) <= allowed).all()


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


@pytest.fixture
def watched_products(monkeypatch):
    """A function that has another called before every product of numpy."""
    matmul = np.matmul

    def watched_products(watch):
        def watched(*args, **kwargs):
            watch()
            return matmul(*args, **kwargs)

        monkeypatch.setattr(np, "matmul", watched)

    return watched_products


def test_blas_has_one_thread_inside(data, watched_products):
    seen = []
    watched_products(lambda: seen.extend(blas_threads()))
    with threadpool_limits(2, user_api="blas"):
        HighDimKernelDensity(bandwidth=0.6, n_jobs=2).fit(data[1]).score_samples(data[0])
    assert seen
    assert set(seen) == {1}


def test_number_of_threads_follows_the_blas():
    with threadpool_limits(1, user_api="blas"):
        assert n_threads_for(None) == 1
    with threadpool_limits(2, user_api="blas"):
        assert n_threads_for(None) == 2
    assert n_threads_for(3) == 3
    assert n_threads_for(-1) == joblib.cpu_count()


def test_error_in_a_thread_reaches_the_caller(data, watched_products):
    calls = []

    def fail():
        calls.append(1)
        raise ZeroDivisionError("in a tile")

    kde = HighDimKernelDensity(bandwidth=0.6, n_jobs=2).fit(data[1])
    before, queries = blas_threads(), np.tile(data[0], (60, 1))  # of more than 100 tasks
    watched_products(fail)
    with pytest.raises(ZeroDivisionError, match="in a tile"):
        kde.score_samples(queries)
    assert blas_threads() == before
    assert len(calls) <= 2  # one in each thread; the other tasks were not begun


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
    return n_threads_for(None)


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
import signal, time, numpy as np
from skhdkde import HighDimKernelDensity
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
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
