"""torch on a CUDA GPU: ``pytest -m gpu tests/test_gpu.py``, within two minutes."""

import contextlib
import pickle
import subprocess
import sys
import threading

import numpy as np
import on_gpu
import oracles
import pytest
import sklearn
from numpy.testing import assert_allclose
from on_gpu import ATOL, RTOL, data, fitted

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._kernels import make_kernel
from skhdkde._pairwise import (
    ComputeOptions,
    LogSumExp,
    ReductionSpec,
    TrainingPoints,
    device_table,
    reduce_pairs,
)

pytestmark = on_gpu.marks

DIMENSIONS = [1, 3, 50, 99, 100, 146, 147, 200, 1000]
DTYPES = [np.float64, np.float32]


@pytest.fixture
def small_tiles(monkeypatch):
    """Several blocks of queries, and several tiles of each."""
    from skhdkde._pairwise import torch_backend

    monkeypatch.setattr(torch_backend, "SMALLEST_ROWS", 16)
    monkeypatch.setattr(torch_backend, "ON_GPU", (32, 32 * 64, 2**20, 3))


# ---- Numbers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", DIMENSIONS)
def test_values_and_gradients(d, dtype):
    on_gpu.check_values_and_gradients("torch", d, dtype)


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_everything_as_on_the_cpu(small_tiles, kernel):
    on_gpu.check_kernel("torch", kernel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [3, 20, 768])
@pytest.mark.parametrize("options", on_gpu.SPHERE_OPTIONS, ids=str)
def test_the_sphere_as_on_the_cpu(options, d, dtype):
    on_gpu.check_sphere("torch", options, d, dtype)


@pytest.mark.parametrize("n_queries", [5, 20_000])
def test_few_and_many_queries(n_queries):
    on_gpu.check_few_and_many("torch", n_queries)


STRUCTURES = {
    "map": {"feature_maps": "yeo-johnson", "bandwidth": 0.4},
    "map, full": {
        "feature_maps": "gaussianize",
        "covariance_type": "full",
        "bandwidth": 0.5,
    },
    "neighborhood": {"covariance_type": "neighborhood", "bandwidth": 0.7},
    "stack": {"covariance_type": "stack", "random_state": 0},
}


@pytest.mark.parametrize(
    "name, dtype",
    [(name, dtype) for name in STRUCTURES for dtype in DTYPES if name != "stack"]
    + [("stack", np.float64)],  # a search of many passes
)
def test_structures_as_on_the_cpu(name, dtype):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((240, 4)) @ rng.standard_normal((4, 4))
    Y, X = np.split(np.exp(0.5 * Z).astype(dtype), [200])
    kde, other = (fitted(by, Y, **STRUCTURES[name]) for by in ("torch", "numpy"))
    atol = 1e-6 if dtype == np.float64 else 2e-3
    for queries in (X, None):
        found, expected = kde.score_samples(queries), other.score_samples(queries)
        assert_allclose(found, expected, atol=atol)
    found, expected = kde.log_density_gradient(X), other.log_density_gradient(X)
    assert_allclose(found, expected, atol=10 * atol, rtol=1e-3)


@pytest.mark.parametrize("capability", [(9, 0), (8, 9)])
@pytest.mark.parametrize("options", [{}, {"kernel": "student"}], ids=str)
def test_rows_that_float32_does_not_resolve(
    small_tiles, monkeypatch, options, capability
):
    """Visited again in float64, or mended where the GPU is slow at that."""
    from skhdkde._pairwise import points, torch_backend

    visited, in_float64 = [], points.QueryBlock.in_float64

    def spy(queries, *args):
        visited.append(len(queries.exact))
        return in_float64(queries, *args)

    monkeypatch.setattr(points.QueryBlock, "in_float64", spy)
    monkeypatch.setattr(torch_backend, "capability", lambda place: capability)
    X, Y, _ = data(40, np.float32, n=300, m=60)
    X[:6] = Y[:6] + np.float32(1e-4)  # blurred, where others are not
    options = {"bandwidth": 0.01, **options}
    if options.get("kernel") == "student":
        options["degrees_of_freedom"] = 4.0
    kde, other = (fitted(by, Y, **options) for by in ("torch", "numpy"))
    found, expected = kde.score_samples(X), other.score_samples(X.astype(np.float64))
    assert_allclose(found, expected, atol=1e-3, rtol=5e-7)
    assert bool(visited) == (capability == (9, 0))


# ---- Fused kernels


@pytest.fixture
def fused(monkeypatch, small_tiles):
    """The names of the fused kernels that were used."""
    from skhdkde._pairwise import torch_backend, triton_kernels

    pytest.importorskip("triton")
    for dtype in DTYPES:  # tries them, once
        assert triton_kernels.usable("cuda", on_gpu.of_torch(dtype))
    monkeypatch.setattr(torch_backend, "FUSED_FROM", 0)
    used = set()
    for name in ("direct_sums", "tile_sums"):
        kernel = getattr(triton_kernels, name)

        def watched(*args, kernel=kernel, name=name, **options):
            used.add(name)
            return kernel(*args, **options)

        monkeypatch.setattr(triton_kernels, name, watched)
    return used


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [16, 40, 64, 100])
def test_fused_kernels(fused, d, dtype):
    X, Y, h = data(d, dtype, n=333, m=70)
    weights = np.random.default_rng(1).exponential(size=len(Y)) + 0.1
    kde = fitted("torch", Y, weights, bandwidth=h)
    tolerance = {"atol": ATOL[dtype], "rtol": RTOL[dtype]}
    found = kde.score_samples(X), kde.score_samples(None)[:20]
    assert fused == {"direct_sums" if d <= 64 else "tile_sums"}
    expected = oracles.log_density(X, Y, h, weights=weights)
    assert_allclose(found[0], expected, **tolerance)
    some = np.arange(20)
    expected = oracles.log_density(Y[:20], Y, h, weights=weights, leave_out=some)
    assert_allclose(found[1], expected, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [16, 40, 64, 100])
def test_fused_kernels_of_a_grid(fused, d, dtype):
    """32 bandwidths at once, of which many are squarings of others."""
    X, Y, h = data(d, dtype, n=333, m=40)
    grid = h * np.geomspace(0.7, 7.0, 32)
    points = TrainingPoints(Y, np.ones(len(Y)))
    kernel, factor = make_kernel("gaussian", d), points.scale
    spec = ReductionSpec(kernel, grid * factor, points, np.dtype(dtype))
    options = ComputeOptions(backend="torch", n_jobs=2)
    found = reduce_pairs(LogSumExp(spec), points.as_queries(X), points, options)
    assert fused == {"direct_sums" if d <= 64 else "tile_sums"}
    options = ComputeOptions(backend="numpy", n_jobs=1)
    by_numpy = reduce_pairs(LogSumExp(spec), points.as_queries(X), points, options)
    assert_allclose(found, by_numpy, atol=ATOL[dtype], rtol=RTOL[dtype])
    for g in (0, 9, 31):  # up to a constant, that of the normaliser
        expected = oracles.log_density(X[:5], Y, grid[g])
        difference = found[:5, g] - expected
        assert_allclose(difference, difference[0], atol=2 * ATOL[dtype])


def test_fused_kernels_of_student(fused):
    X, Y, h = data(16, np.float32)
    options = {"bandwidth": h, "kernel": "student", "degrees_of_freedom": 3.0}
    found = fitted("torch", Y, **options).score_samples(X)
    assert fused == {"direct_sums"}
    expected = fitted("numpy", Y.astype(np.float64), **options).score_samples(X)
    assert_allclose(found, expected, atol=1e-3)


# ---- Nothing to wait for


@contextlib.contextmanager
def errors_between_tiles(monkeypatch):
    """Let CUDA raise where it is waited for between tiles; give the tiles."""
    import torch

    from skhdkde._pairwise import torch_visit

    tiles, tile_ranges = [], torch_visit.tile_ranges

    def watched(*args):
        try:
            for i, cols in enumerate(tile_ranges(*args)):
                if i == 2:  # constants are there
                    torch.cuda.set_sync_debug_mode("error")
                    tiles.append(cols)
                yield cols
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(torch_visit, "tile_ranges", watched)
    try:
        yield tiles
    finally:
        torch.cuda.set_sync_debug_mode("default")


SHARP = {
    "gaussian": {},
    "student": {"kernel": "student", "degrees_of_freedom": 4.0},
    "exponential": {"kernel": "exponential"},
    "full": {"covariance_type": "full"},
    "adaptive": {"adaptive": True},
}


@pytest.mark.parametrize("d, dtype", [(3, np.float64), (100, np.float32)])
@pytest.mark.parametrize("name", SHARP)
def test_nothing_to_wait_for_between_tiles(small_tiles, monkeypatch, name, d, dtype):
    X, Y, h = data(d, dtype, n=700, m=60)
    options = {"bandwidth": 1.2 * h, "n_jobs": 1, **SHARP[name]}
    kde = fitted("torch", Y, **options)
    for method in (kde.score_samples, kde.log_density_gradient):
        with errors_between_tiles(monkeypatch) as tiles:
            found = method(X)
        assert tiles
        assert np.isfinite(found).all()
    with errors_between_tiles(monkeypatch) as tiles:
        kde.score_samples(None)
    assert tiles


def test_waiting_between_tiles_is_seen(small_tiles, monkeypatch):
    """The test above can fail."""
    from skhdkde._pairwise import torch_visit

    product = torch_visit.QuickVisit._from_product

    def waiting(visit, state, cols):
        state = product(visit, state, cols)
        float(visit.nearest_sq.amin())
        return state

    monkeypatch.setattr(torch_visit.QuickVisit, "_from_product", waiting)
    X, Y, h = data(3, n=700)
    kde = fitted("torch", Y, bandwidth=1.2 * h, n_jobs=1)
    with errors_between_tiles(monkeypatch), pytest.raises(RuntimeError):
        kde.score_samples(X)


# ---- What torch is set to, and who else uses the GPU


@pytest.fixture
def tf32():
    """Users allow TF32 in products."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("d", [40, 100])
def test_tf32_does_not_matter(tf32, d):
    check_in_full_precision(d)


@pytest.mark.parametrize("of_half", ["float16", "bfloat16"])
def test_autocast_does_not_matter(of_half):
    import torch

    with torch.autocast("cuda", dtype=getattr(torch, of_half)):
        check_in_full_precision(100)


@pytest.mark.parametrize("d", [40, 100])
def test_tf32_does_not_matter_to_fused_kernels(tf32, fused, d):
    check_in_full_precision(d)
    assert fused


def check_in_full_precision(d):
    """Shortened products are wrong by 1e-3 and more here."""
    X, Y, h = data(d, np.float32)
    found = fitted("torch", Y, bandwidth=h).score_samples(X)
    assert_allclose(found, oracles.log_density(X, Y, h), atol=1e-4)


def test_several_threads_at_once(small_tiles):
    """Each with data and settings of its own, and a stream of its own."""
    import torch

    cases, found = [(3, np.float64), (40, np.float32), (100, np.float32)] * 2, {}

    def work(i, d, dtype):
        X, Y, h = data(d, dtype)
        with torch.cuda.stream(torch.cuda.Stream()):
            kde = fitted("torch", Y, bandwidth=h, n_jobs=2)
            found[i] = [kde.score_samples(X) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i, *c)) for i, c in enumerate(cases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (d, dtype) in enumerate(cases):
        X, Y, h = data(d, dtype)
        expected = oracles.log_density(X, Y, h)
        for values in found[i]:
            assert_allclose(values, expected, atol=ATOL[dtype], rtol=RTOL[dtype])


def test_tensors_of_a_stream_are_waited_for():
    """Tensors that another stream is still making."""
    import torch

    X, Y, h = data(20)
    expected = fitted("numpy", Y, bandwidth=h).score_samples(X)
    stream = torch.cuda.Stream()
    with sklearn.config_context(array_api_dispatch=True), torch.cuda.stream(stream):
        points, queries = (torch.as_tensor(array, device="cuda") for array in (Y, X))
        torch.cuda._sleep(10**8)  # cycles
        kde = HighDimKernelDensity(bandwidth=h, backend="torch").fit(points + 1.0)
        found = kde.score_samples(queries + 1.0)
    assert_allclose(found.cpu().numpy(), expected, atol=1e-8)


def test_auto_uses_the_gpu():
    """For many points; it does not need to for few."""
    few, many = data(200)[1], data(200, np.float32, n=50_000)[1]
    assert HighDimKernelDensity(bandwidth=1.0).fit(few).backend_ == "numpy"
    kde = HighDimKernelDensity(bandwidth=5.0).fit(many)
    kde.score_samples(many[:100])  # measures
    limits = device_table.gpu_limits(measure=False)
    print(limits)
    assert limits is not None
    assert HighDimKernelDensity(bandwidth=5.0).fit(many).backend_ == "torch"
    assert 1e12 < 2 * 1026 / limits.product["float32"][-1] < 1e15
    low = data(2, np.float32, n=200_000)[1]
    assert HighDimKernelDensity(bandwidth=0.1).fit(low).backend_ in ("torch", "keops")


def test_tensors_stay_on_the_gpu(tmp_path):
    """With SCIPY_ARRAY_API=1; a pickle then loads where there is no GPU."""
    import torch

    X, Y, h = data(30)
    expected = fitted("numpy", Y, bandwidth=h).score_samples(X)
    with sklearn.config_context(array_api_dispatch=True):
        points, queries = (torch.as_tensor(array, device="cuda") for array in (Y, X))
        kde = HighDimKernelDensity(bandwidth=h).fit(points)
        result = kde.score_samples(queries)
        assert result.device == queries.device
        assert kde.log_density_gradient(queries).device == queries.device
        assert kde.sample(3, random_state=0).device == points.device
        assert_allclose(result.cpu().numpy(), expected, atol=1e-8)
        chosen = HighDimKernelDensity().fit(points).bandwidth_
    assert chosen == pytest.approx(select_bandwidth(Y), rel=1e-6)
    (tmp_path / "kde").write_bytes(pickle.dumps(kde))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, sys, numpy as np; folder = sys.argv[1];"
        "kde = pickle.load(open(folder + '/kde', 'rb'));"
        "np.save(folder + '/out.npy', kde.score_samples(np.load(folder + '/X.npy')))"
    )
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, timeout=120)
    assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-8)


# ---- Memory


@pytest.mark.parametrize("method", ["score_samples", "log_density_gradient", "diagnose"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_peak_memory(method, dtype):
    import torch

    X, Y, h = data(64, dtype, n=100_000, m=200_000)  # as many blocks as are at once
    kde = fitted("torch", Y, bandwidth=h)
    torch.cuda.reset_peak_memory_stats()
    getattr(kde, method)(X)
    most = 2 if method == "score_samples" else 4
    assert torch.cuda.max_memory_allocated() - Y.nbytes < most * 2**30


def test_smaller_tiles_when_the_gpu_is_full():
    import torch

    X, Y, h = data(20, n=20_000, m=2_000)
    kde = fitted("torch", Y, bandwidth=h)
    expected = kde.score_samples(X)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    in_use = torch.cuda.memory_allocated()
    try:
        torch.cuda.set_per_process_memory_fraction((in_use + 100e6) / total)
        assert_allclose(kde.score_samples(X), expected, rtol=1e-12)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
