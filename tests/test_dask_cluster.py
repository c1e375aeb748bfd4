"""Worker processes: memory, threads, and what happens when they die."""

import contextlib
import importlib.util
import os
import shutil
import signal
import threading
import time
import warnings

import dask.array as da
import numpy as np
import oracles
import pytest
from distributed import Client, LocalCluster, wait
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skhdkde import HighDimKernelDensity
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="workers are killed by signals"),
    # distributed's own, when a cluster closes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LIMIT = 500 * 2**20


@contextlib.contextmanager
def cluster(**options):
    options = {"n_workers": 2, "threads_per_worker": 1, **options}
    with (
        LocalCluster(dashboard_address=":0", silence_logs=50, **options) as started,
        Client(started) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client():
    with cluster(memory_limit=LIMIT) as started:
        yield started


@pytest.fixture
def doomed(client):
    """The cluster, of which a worker is to die; its nanny starts another."""
    yield client
    client.wait_for_workers(2, timeout=60)


@pytest.fixture
def fragile(doomed):
    """It gives up a task when a worker has died of it."""
    scheduler = doomed.cluster.scheduler
    before, scheduler.allowed_failures = scheduler.allowed_failures, 0
    yield doomed
    scheduler.allowed_failures = before


@contextlib.contextmanager
def worker_killed(client, after):
    """Kill one of the workers some seconds from now, while the work goes on."""
    address, pid = next(iter(client.run(os.getpid).items()))
    timer = threading.Timer(after, os.kill, (pid, signal.SIGKILL))
    timer.start()
    yield
    assert not timer.is_alive()  # it did not come too late
    deadline = time.monotonic() + 30.0
    while address in client.scheduler_info(n_workers=-1)["workers"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def slow(block):
    """So that workers are busy for a while."""
    time.sleep(0.1)
    return block


@pytest.fixture(scope="module")
def points():
    """Blocks that take a while to make."""
    X = da.random.default_rng(0).normal(size=(8000, 16), chunks=(500, 16))
    return X.map_blocks(slow, dtype=X.dtype, meta=np.empty((0, 0)))


@pytest.fixture(scope="module")
def Q():
    return np.random.default_rng(1).normal(size=(500, 16))


def test_results_are_those_of_one_machine(client, Q):
    X = np.random.default_rng(0).standard_normal((3000, 16))
    one = HighDimKernelDensity(random_state=0).fit(X)
    kde = DaskHighDimKernelDensity(random_state=0)
    kde.fit(da.from_array(X, chunks=(700, 16)).persist())
    assert kde.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-10)
    assert_allclose(kde.score_samples(Q), one.score_samples(Q), atol=1e-8)
    queries = da.from_array(Q, chunks=(60, 16)).persist()
    assert_allclose(kde.score_samples(queries), one.score_samples(Q), atol=1e-8)
    assert_allclose(kde.score_samples(None), one.score_samples(None), atol=1e-8)
    assert_allclose(kde.diagnose(queries).h_g, one.diagnose(Q).h_g, rtol=1e-6)
    assert_allclose(kde.sample(9, 0), one.sample(9, 0), atol=1e-12)


def test_warnings_of_workers_reach_the_user(client):
    X = np.random.default_rng(0).standard_normal((100, 4))
    X *= 0.8 / np.linalg.norm(X, axis=1, keepdims=True)
    X = np.column_stack([X, np.full(100, 0.6)])
    kde = DaskHighDimKernelDensity(support="sphere", bandwidth=0.5)
    with pytest.warns(UserWarning, match="1 constant feature of 5: column 4"):
        kde.fit(da.from_array(X, chunks=(30, -1)))
    X[77, 4] = -0.6
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kde.score_samples(X)
        deadline = time.monotonic() + 30.0
        while not caught and time.monotonic() < deadline:
            time.sleep(0.05)
    assert any("row 77 by 1.2 in column 4" in str(w.message) for w in caught)


@pytest.mark.parametrize("persisted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_worker_is_killed_while_queries_are_scored(doomed, points, Q, persisted):
    X = points.persist() if persisted else points
    wait(X)
    kde = DaskHighDimKernelDensity(bandwidth=1.0).fit(X)
    undisturbed = kde.score_samples(Q)
    # blocks that are made again take most of a second, those at hand need queries
    n_copies, after = (100, 0.3) if persisted else (1, 0.5)
    with worker_killed(doomed, after):
        disturbed = kde.score_samples(np.tile(Q, (n_copies, 1)))
    undisturbed = np.tile(undisturbed, n_copies)
    assert_allclose(disturbed, undisturbed, rtol=0.0, atol=1e-12)


@pytest.mark.slow
def test_a_worker_is_killed_while_the_bandwidth_is_sought(doomed, points):
    kde = DaskHighDimKernelDensity(bandwidth="nearest", random_state=0)
    undisturbed = kde.fit(points)
    with worker_killed(doomed, after=0.7):
        disturbed = clone(kde).fit(points)
    assert disturbed.bandwidth_ == pytest.approx(undisturbed.bandwidth_, rel=1e-12)


def greedy(block):
    """What the kernel does to a process that asks for too much."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_out_of_memory(fragile, points, Q):
    """An error says so, the estimator is as it was, and the cluster goes on."""
    kde = DaskHighDimKernelDensity(bandwidth=1.0).fit(points)
    before = kde.score_samples(Q)
    large = points[:500].map_blocks(greedy, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(RuntimeError, match="ran out of memory: make blocks smaller"):
        kde.set_params(bandwidth=2.0).fit(large)
    assert kde.bandwidth_ == 1.0
    assert_array_equal(kde.score_samples(Q), before)


def test_blocks_that_workers_cannot_hold_are_refused(client):
    X = da.zeros((2_000_000, 64), chunks=(2_000_000, 64))
    with pytest.raises(ValueError, match=r"X has blocks .* 977 MiB: a worker with 1"):
        DaskHighDimKernelDensity(bandwidth=1.0).fit(X)


@pytest.mark.slow
def test_more_data_than_memory(client, tmp_path):
    """Blocks of more than the memory of both workers, all of them in the same file."""
    one = np.random.default_rng(0).standard_normal((2**17, 64), dtype=np.float32)
    np.save(tmp_path / "one.npy", one)
    n_blocks, path = 33, str(tmp_path / "one.npy")
    X = da.map_blocks(
        lambda: np.load(path),
        chunks=((len(one),) * n_blocks, (64,)),
        dtype=np.float32,
        meta=np.empty((0, 0), dtype=np.float32),
    )
    assert X.nbytes > 2 * LIMIT
    pids = client.run(os.getpid)
    kde = DaskHighDimKernelDensity(bandwidth=2.0).fit(X)
    Q = one[:20] + np.float32(0.1)
    log_density = kde.score_samples(Q)
    assert client.run(os.getpid) == pids  # none was restarted
    # each point is there as often as there are blocks
    assert_allclose(log_density, oracles.log_density(Q, one, 2.0), atol=1e-3)
    assert max(client.run(peak).values()) < LIMIT


def peak():
    """Largest resident memory of the process, where the system has it; else 0."""
    try:
        with open("/proc/self/status") as lines:
            found = next(line for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0
    return int(found.split()[1]) * 1024


def seconds_of_cpu():
    return time.process_time()


def test_threads_do_not_multiply(client):
    """A worker of one thread takes the time of one core."""
    X = da.random.default_rng(0).normal(size=(40_000, 64), chunks=(10_000, 64)).persist()
    wait(X)
    kde = DaskHighDimKernelDensity(bandwidth=1.0).fit(X)
    Q = np.random.default_rng(1).normal(size=(4000, 64))
    before, start = client.run(seconds_of_cpu), time.perf_counter()
    kde.score_samples(Q)
    elapsed, after = time.perf_counter() - start, client.run(seconds_of_cpu)
    assert max(after[w] - before[w] for w in after) < 1.3 * elapsed


def test_the_client_is_closed():
    X = da.random.default_rng(0).normal(size=(2000, 8), chunks=(500, 8))
    Q = np.random.default_rng(1).normal(size=(10, 8))
    options = {"n_workers": 1, "threads_per_worker": 2, "silence_logs": 50}
    with LocalCluster(dashboard_address=":0", processes=False, **options) as started:
        with Client(started):
            persisted = X.persist()
            wait(persisted)
            gone = DaskHighDimKernelDensity(bandwidth=1.0).fit(persisted)
            again = DaskHighDimKernelDensity(bandwidth=1.0).fit(X)
            expected = gone.score_samples(Q)
        with Client(started):
            with pytest.raises(RuntimeError, match="blocks are gone from the cluster"):
                gone.score_samples(Q)
            assert_array_equal(again.score_samples(Q), expected)
    # without a client dask's own threads do the work
    assert_allclose(again.score_samples(Q), expected, atol=1e-12)


@pytest.mark.slow
def test_the_client_is_closed_while_queries_are_scored(points, Q):
    with cluster(n_workers=1) as client:
        kde = DaskHighDimKernelDensity(bandwidth=1.0).fit(points)
        expected = kde.score_samples(Q)
        timer = threading.Timer(0.5, client.close)
        timer.start()
        with pytest.raises(RuntimeError, match="work was cancelled"):
            kde.score_samples(Q)
        timer.join()
        with Client(client.cluster):
            assert_array_equal(kde.score_samples(Q), expected)


def test_progress(client, capsys):
    X = da.random.default_rng(0).normal(size=(200, 4), chunks=(50, 4))
    DaskHighDimKernelDensity(bandwidth=1.0, verbose=1).fit(X)
    assert "Completed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pykeops") is None or shutil.which("g++") is None,
    reason="needs pykeops and a compiler",
)
def test_workers_share_the_cache_of_keops(tmp_path):
    """Both compile at once, into one empty folder."""
    rng = np.random.default_rng(0)
    X, Q = rng.standard_normal((400, 3)), rng.standard_normal((50, 3))
    with cluster(env={"KEOPS_CACHE_FOLDER": str(tmp_path)}):
        blocks = da.from_array(X, chunks=(50, 3))
        kde = DaskHighDimKernelDensity(bandwidth=0.5, backend="keops").fit(blocks)
        assert kde.backend_ == "keops"
        log_density = kde.score_samples(Q)
    assert_allclose(log_density, oracles.log_density(Q, X, 0.5), atol=1e-8)
