"""Which backend visits the pairs, and what each must leave as it was."""

import itertools
import pickle
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skhdkde import BandwidthDisplay, HighDimKernelDensity, select_bandwidth
from skhdkde._pairwise import backend_choice, torch_backend
from skhdkde._pairwise.torch_backend import SMALLEST_ROWS

DATA = np.random.default_rng(0).normal(size=(2, 300, 8))


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this machine look like another one to the package."""

    def machine(
        gpu=True,
        installed=("keops", "torch"),
        compiler=True,
        torch="2.9.0",
        libraries=("cuda", "nvrtc"),
    ):
        backend_choice._library_found.cache_clear()
        backend_choice._warn_of_keops_on_cpu.cache_clear()
        config = types.SimpleNamespace(gpu_available=len(libraries) == 2)
        if "pykeops.config" in sys.modules:
            monkeypatch.setitem(sys.modules, "pykeops.config", config)
        find = {name: f"lib{name}.so" for name in libraries}.get
        monkeypatch.setattr(backend_choice, "find_library", find)
        monkeypatch.setattr(backend_choice, "_has_cuda_gpu", lambda: gpu)
        monkeypatch.setattr(backend_choice, "_installed", lambda name: name in installed)
        found = "/usr/bin/g++" if compiler else None
        monkeypatch.setattr("shutil.which", lambda name: found)
        monkeypatch.setattr("importlib.metadata.version", lambda name: torch)

    return machine


def choice(n_features, backend="auto"):
    """Return the backend that is used where no device has been measured."""
    return backend_choice.resolve_backend(backend, n_features)


def test_auto_without_a_gpu_is_numpy(machine):
    machine(gpu=False)
    assert choice(10) == "numpy"


@pytest.mark.parametrize(
    "installed, few, many",
    [
        (("keops", "torch"), "keops", "torch"),
        (("keops",), "keops", "keops"),
        (("torch",), "torch", "torch"),
        ((), "numpy", "numpy"),
    ],
)
def test_auto_with_a_gpu(machine, installed, few, many):
    machine(installed=installed)
    assert choice(16) == few
    assert choice(17) == many


def test_auto_takes_what_can_use_the_gpu(machine):
    """Not KeOps without a compiler, nor a build of torch without CUDA."""
    machine()
    assert [choice(d) for d in (10, 1000)] == ["keops", "torch"]
    machine(compiler=False)
    assert choice(10) == "torch"
    machine(compiler=False, torch="2.9.0+cpu")
    assert choice(10) == "numpy"
    for libraries in (), ("cuda",), ("nvrtc",):
        machine(libraries=libraries)
        assert choice(10) == "torch"
        machine(libraries=libraries, installed=("keops",))
        assert choice(10) == "numpy"


@pytest.mark.parametrize("imported", [False, True])
def test_keops_decides_what_it_uses(machine, monkeypatch, imported):
    """Once it is imported; before, the libraries that it looks for do."""
    machine()
    monkeypatch.delitem(sys.modules, "pykeops.config", raising=False)
    assert choice(10) == "keops"
    if imported:
        config = types.SimpleNamespace(gpu_available=False)
        monkeypatch.setitem(sys.modules, "pykeops.config", config)
        assert choice(10) == "torch"


def test_more_features_than_keops_has_room_for(machine):
    machine(installed=("keops",))
    assert [choice(d) for d in (6138, 6139)] == ["keops", "numpy"]


def test_keops_on_the_cpu_beside_a_gpu_is_told_once(machine, recwarn):
    pytest.importorskip("pykeops")
    machine(libraries=("cuda",))
    for _ in range(2):
        assert choice(10, backend="keops") == "keops"
    (warning,) = recwarn
    text = str(warning.message)
    assert "on the CPU although there is a GPU" in text
    assert "libnvrtc" in text
    assert "libcuda" not in text
    assert "backend='torch'" in text
    machine(gpu=False, libraries=())
    choice(10, backend="keops")
    machine()
    choice(10, backend="keops")
    assert len(recwarn) == 1


def test_torch_that_is_too_old(machine):
    machine(torch="2.4.1+cu121", installed=("torch",))
    with pytest.raises(ImportError, match=r"torch 2\.5 or later, and 2\.4\.1"):
        HighDimKernelDensity(bandwidth=1.0, backend="torch").fit(DATA[0])
    assert choice(1000) == "numpy"
    machine(torch="2.10.0a0+git", installed=("torch",))
    assert choice(1000) == "torch"


@pytest.mark.parametrize(
    "visible, found", [("0", "torch"), ("", "numpy"), ("-1", "numpy")]
)
def test_hidden_gpus_are_none(monkeypatch, visible, found):
    """On a machine with the driver of a GPU."""
    if sys.platform != "linux":
        pytest.skip("the driver is found in another way")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    uncached = backend_choice._has_nvidia_driver.__wrapped__
    monkeypatch.setattr(backend_choice, "_has_nvidia_driver", uncached)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.9.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pytest.importorskip("torch")
    assert choice(1000) == found


@pytest.mark.parametrize(
    "backend, module, requirement",
    [("torch", "torch", r"skhdkde\[torch\]"), ("keops", "pykeops", "pykeops")],
)
def test_missing_backend_says_what_to_install(machine, backend, module, requirement):
    machine(installed=())
    match = f"backend='{backend}' needs {module}.* pip install '{requirement}'"
    kde = HighDimKernelDensity(backend=backend)
    with pytest.raises(ImportError, match=match):
        kde.fit(DATA[0])
    assert not hasattr(kde, "bandwidth_")
    with pytest.raises(ImportError, match=match):
        select_bandwidth(DATA[0], backend=backend)


def test_unknown_backend():
    match = r"'backend' parameter .* Got 'cupy' instead"
    with pytest.raises(ValueError, match=match):
        HighDimKernelDensity(backend="cupy").fit(DATA[0])
    with pytest.raises(ValueError, match=match):
        select_bandwidth(DATA[0], backend="cupy")


def test_torch_through_the_public_functions():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    numpy, other = (
        HighDimKernelDensity(backend=name, n_jobs=1).fit(DATA[0])
        for name in ("numpy", "torch")
    )
    assert (numpy.backend_, other.backend_) == ("numpy", "torch")
    assert other.bandwidth_ == pytest.approx(numpy.bandwidth_, rel=1e-6)
    other.bandwidth_ = numpy.bandwidth_
    for method in ("score_samples", "log_density_gradient"):
        expected = getattr(numpy, method)(DATA[1])
        assert_allclose(getattr(other, method)(DATA[1]), expected, rtol=1e-9)
    for rule in ("kl", "nearest"):
        found = select_bandwidth(DATA[0], rule=rule, backend="torch")
        expected = select_bandwidth(DATA[0], rule=rule, backend="numpy")
        assert found == pytest.approx(expected, rel=1e-6)
    curves = (BandwidthDisplay.from_estimator(kde, DATA[1]) for kde in (numpy, other))
    assert_allclose(*(curve.values for curve in curves), rtol=1e-6)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


@pytest.mark.parametrize("failures", [1, 3, 100])
def test_smaller_tiles_when_memory_runs_out(monkeypatch, failures):
    torch = pytest.importorskip("torch")
    X = np.tile(DATA[1], (4, 1))[:1024]
    kde = HighDimKernelDensity(bandwidth=1.0, backend="torch").fit(DATA[0])
    expected, sizes, matmul = kde.score_samples(X), [], torch.matmul

    def fail_at_first(queries, points):
        sizes.append(len(queries))
        if len(sizes) <= failures:
            raise torch.OutOfMemoryError("no memory left")
        return matmul(queries, points)

    monkeypatch.setattr(torch, "matmul", fail_at_first)
    if failures == 100:
        with pytest.raises(torch.OutOfMemoryError):
            kde.score_samples(X)
        assert min(sizes) == SMALLEST_ROWS
    else:
        assert_allclose(kde.score_samples(X), expected, rtol=1e-12)
        assert sizes[failures] == sizes[0] // 2**failures


@pytest.mark.parametrize("failures", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_several_tasks_at_once_as_on_a_gpu(monkeypatch, dtype, failures):
    """With many blocks of queries and with one; memory runs out in some of the tasks."""
    torch = pytest.importorskip("torch")
    X, Y = np.tile(DATA[1], (4, 1)).astype(dtype), DATA[0].astype(dtype)
    calls, two_at_once, matmul = itertools.count(), threading.Barrier(2), torch.matmul

    def fail_at_first(queries, points):
        call = next(calls)
        if call < failures:
            raise torch.OutOfMemoryError("no memory left")
        if not failures and call < 2:  # a task alone would wait for ever
            two_at_once.wait(timeout=60.0)
        return matmul(queries, points)

    kde = HighDimKernelDensity(bandwidth=0.3, backend="torch", n_jobs=4).fit(Y)
    few, many = kde.score_samples(X[:20]), kde.score_samples(X)
    monkeypatch.setattr(torch_backend, "ON_CPU", (256, 2**15, 2**12, 4))
    monkeypatch.setattr(torch, "matmul", fail_at_first)
    tolerance = {"rtol": 1e-12 if dtype == np.float64 else 1e-6}
    assert_allclose(kde.score_samples(X), many, **tolerance)
    assert_allclose(kde.score_samples(X[:20]), few, **tolerance)


def test_pickles_move_between_machines(machine, monkeypatch, tmp_path):
    """An estimator fitted by torch or KeOps loads, and "auto" scores, without them."""
    machine(installed=("torch",))
    monkeypatch.setattr(backend_choice, "SHORT", 0.0)
    pytest.importorskip("torch")
    kde = HighDimKernelDensity(bandwidth=1.0).fit(DATA[0])
    assert kde.backend_ == "torch"
    expected = kde.score_samples(DATA[1])
    path = tmp_path / "kde.pickle"
    path.write_bytes(pickle.dumps(kde))
    code = f"""
import pickle, pathlib
import numpy as np
from skhdkde._pairwise import backend_choice
backend_choice._installed = lambda name: False
kde = pickle.loads(pathlib.Path({str(path)!r}).read_bytes())
print(float(kde.score_samples(np.zeros((1, 8)))[0]))
"""
    scored = float(subprocess.check_output([sys.executable, "-c", code]))
    assert scored == pytest.approx(kde.score_samples(np.zeros((1, 8)))[0], rel=1e-12)
    machine(gpu=False)
    assert_allclose(kde.score_samples(DATA[1]), expected, rtol=1e-12)


def test_torch_in_a_forked_child():
    """Of a process that has used it: on the CPU nothing stands in the way."""
    pytest.importorskip("torch")
    code = """
import os, sys
import numpy as np
from skhdkde import HighDimKernelDensity
X = np.random.default_rng(0).normal(size=(500, 5))
kde = HighDimKernelDensity(bandwidth=0.5, backend="torch", n_jobs=1).fit(X)
expected = kde.score_samples(X)
child = os.fork()
if child == 0:
    os._exit(0 if np.allclose(kde.score_samples(X), expected) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(__import__("os"), "fork"):
        pytest.skip("no fork on this system")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
