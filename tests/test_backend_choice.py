"""Which backend "auto" takes, by what devices can do and how long passes take."""

import importlib.metadata
import json

import numpy as np
import pytest

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._pairwise import Plan, backend_choice, device_table
from skhdkde._pairwise.backend_choice import resolve_backend
from skhdkde._pairwise.device_table import WIDTHS, Limits
from skhdkde._pairwise.pass_times import Pass, keops_seconds, torch_seconds

DTYPES = ["float32", "float64"]


def device(flops, exponentials, memory, upload=25e9, tile=2e-4):
    """Return the limits of a device from rates, float32 first."""
    product, exponential = {}, {}
    for i, dtype in enumerate(DTYPES):
        size = np.dtype(dtype).itemsize
        product[dtype] = [2 * w / flops[i] + size / memory for w in WIDTHS]
        exponential[dtype] = 1.0 / exponentials[i]
    return Limits(product, exponential, 1.0 / upload, tile)


# as measured: benchmarks/results/gpu.md
H200 = device((51.2e12, 63.2e12), (487e9, 243e9), 3.9e12)
CORE = device((1e11, 5e10), (2e9, 1e9), 1e12)


@pytest.fixture
def on_h200(monkeypatch):
    """A machine with that GPU, and cores of a host; what it measures is noted."""
    measured = []

    def gpu_limits(measure):
        measured.append(measure)
        return H200

    monkeypatch.setattr(backend_choice, "_has_cuda_gpu", lambda: True)
    monkeypatch.setattr(backend_choice, "_usable_on_gpu", lambda name: True)
    monkeypatch.setattr(backend_choice, "gpu_limits", gpu_limits)
    monkeypatch.setattr(backend_choice, "host_limits", lambda: CORE)
    return measured


def choice(n, d, dtype="float32", *, on_gpu=False, tiles=False, **plan):
    return resolve_backend("auto", d, on_gpu, tiles, Plan(n, dtype, **plan))


def ratio(d, dtype, search=False):
    """Return how many times as long as torch KeOps takes for 50000 queries and points."""
    of = Pass(50_000, 50_000, d, np.dtype(dtype), search)
    return keops_seconds(H200, of) / torch_seconds(H200, of)


@pytest.mark.parametrize("dtype, equal_at", [("float32", 42), ("float64", 26)])
def test_times_on_a_known_gpu(dtype, equal_at):
    """KeOps is 2.5 times faster at 2 features, and 3 to 11 times slower at 200."""
    assert 2.0 < 1.0 / ratio(2, dtype) < 3.0
    assert 3.0 < ratio(200, dtype) < 12.0
    equal = next(d for d in range(2, 200) if ratio(d, dtype) > 1.0)
    assert 0.75 * equal_at < equal < 1.25 * equal_at


def test_a_choice_of_the_bandwidth_on_a_known_gpu():
    """There KeOps took 2.25 times as long as torch with 16 features, 4.1 with 128."""
    found = ratio(16, "float32", search=True), ratio(128, "float32", search=True)
    assert found == pytest.approx((2.25, 4.1), rel=0.25)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_auto_takes(on_h200, dtype):
    large = 100_000
    assert choice(large, 8, dtype) == "keops"
    assert choice(large, 128, dtype) == "torch"
    assert choice(large, 8, dtype, search=True) == "torch"
    assert choice(large, 8, dtype, tiles=True) == "torch"
    assert choice(20, 8, dtype) == "numpy"
    assert choice(20, 8, dtype, on_gpu=True) != "numpy"


def test_numpy_where_uploads_cost_more(on_h200, monkeypatch):
    slow = device((51.2e12, 63.2e12), (487e9, 243e9), 3.9e12, upload=5e6)
    assert choice(3000, 200) == "torch"
    monkeypatch.setattr(backend_choice, "gpu_limits", lambda measure: slow)
    assert choice(3000, 200) == "numpy"
    assert choice(100_000, 200) == "torch"


def test_a_gpu_is_left_alone_where_it_is_not_needed(on_h200, monkeypatch):
    """It is initialised to be measured, which forked children must not inherit."""
    choice(100, 4), resolve_backend("numpy", 8, plan=Plan(10**6, "float32"))
    assert on_h200 == []
    choice(10**6, 4, at_once=False), choice(10**6, 4)
    assert on_h200 == [False, True]
    monkeypatch.setattr(backend_choice, "_usable_on_gpu", lambda name: name == "keops")
    choice(10**6, 4)  # without a torch that could measure
    assert on_h200 == [False, True, False]
    monkeypatch.setattr(backend_choice, "_has_cuda_gpu", lambda: False)
    assert choice(10**6, 4) == "numpy"
    assert len(on_h200) == 3


def test_estimators_measure_before_passes_only(on_h200, monkeypatch):
    monkeypatch.setattr(backend_choice, "SHORT", 0.0)
    monkeypatch.setattr(backend_choice, "numpy_seconds", lambda *args: 1e-9)
    X = np.random.default_rng(0).standard_normal((50, 3))
    kde = HighDimKernelDensity(bandwidth=1.0).fit(X)
    assert (on_h200.copy(), kde.backend_) == ([False], "numpy")
    kde.score_samples(X)
    assert on_h200 == [False, True]
    HighDimKernelDensity().fit(X)
    select_bandwidth(X)
    assert on_h200 == [False, True, True, True]


def test_a_rule_where_nothing_was_measured(on_h200, monkeypatch):
    monkeypatch.setattr(backend_choice, "gpu_limits", lambda measure: None)
    found = [choice(10**6, d) for d in (16, 17)]
    assert found == ["keops", "torch"] == [resolve_backend("auto", d) for d in (16, 17)]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache beside a GPU; the second value counts how often it is measured."""
    count = []
    monkeypatch.setenv("SKHDKDE_CACHE_FOLDER", str(tmp_path / "cache"))
    version = importlib.metadata.version
    monkeypatch.setattr(
        "importlib.metadata.version", lambda n: "2.9" if n == "torch" else version(n)
    )
    monkeypatch.setattr(device_table, "_measure_gpu", lambda: count.append(1) or H200)
    device_table._measured.cache_clear()
    yield tmp_path / "cache" / "backends.json", count
    device_table._measured.cache_clear()


def test_measured_once(cache):
    path, count = cache
    assert device_table.gpu_limits(measure=False) is None
    for measure in (True, False):
        assert device_table.gpu_limits(measure=measure) == H200
        device_table._measured.cache_clear()  # another process
    assert len(count) == 1
    assert path.exists()


def test_measured_again_for_another_gpu_or_version(cache, monkeypatch, tmp_path):
    count = cache[1]
    (tmp_path / "gpus" / "0").mkdir(parents=True)
    for name in ("NVIDIA H100", "NVIDIA H200"):
        text = f"Model: \t\t {name}\nIRQ: 3\n"
        (tmp_path / "gpus" / "0" / "information").write_text(text)
        monkeypatch.setattr(device_table, "DRIVER", tmp_path / "gpus")
        device_table._measured.cache_clear()
        device_table.gpu_limits(measure=True)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.0")
    device_table._measured.cache_clear()
    device_table.gpu_limits(measure=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    device_table._measured.cache_clear()
    device_table.gpu_limits(measure=True)
    assert len(count) == 4
    assert len(json.loads(cache[0].read_text())) == 4


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
def test_a_broken_cache_is_replaced(cache, content):
    path, count = cache
    path.parent.mkdir()
    path.write_text(content)
    assert device_table.gpu_limits(measure=True) == H200
    device_table._measured.cache_clear()
    assert device_table.gpu_limits(measure=True) == H200
    assert len(count) == 1


def test_a_folder_that_cannot_be_written(cache, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKHDKDE_CACHE_FOLDER", str(tmp_path / "file" / "folder"))
    for _ in range(3):
        assert device_table.gpu_limits(measure=True) == H200
    assert len(cache[1]) == 1


def test_what_is_measured_here():
    """By numpy, and by torch on its device for the host."""
    torch = pytest.importorskip("torch")
    host = device_table.host_limits()
    by_torch = device_table.measured_by_torch("cpu", (64, 128), lambda: None)
    for limits in (host, by_torch):
        for dtype in DTYPES:
            seconds = [*limits.product[dtype], limits.exponential[dtype]]
            assert all(1e-15 < s < 1e-4 for s in seconds)
            assert len(limits.product[dtype]) == len(device_table.WIDTHS)
    assert by_torch.upload > 0.0
    assert by_torch.tile > 0.0
    assert device_table._measure_gpu() is None or torch.cuda.is_available()
