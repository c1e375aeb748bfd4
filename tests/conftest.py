"""What the whole suite shares: threads, a cache for KeOps, figures, backends, a GPU."""

import atexit
import functools
import importlib.util
import os
import shutil
import tempfile

import hypothesis
import pytest

# Before numpy is imported: workers of pytest-xdist share the cores.
N_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if N_WORKERS > 1:
    count = getattr(os, "process_cpu_count", os.cpu_count)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, count() // N_WORKERS)))
os.environ.setdefault("MPLBACKEND", "Agg")
# scikit-learn's array API support asks for scipy's, before either is imported
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# What KeOps has compiled, or failed to, in other runs does not matter. Workers find the
# folder in the environment. It goes last of all: KeOps writes to it when Python ends.
if not os.environ.get("KEOPS_CACHE_FOLDER"):
    os.environ["KEOPS_CACHE_FOLDER"] = tempfile.mkdtemp(prefix="skhdkde-keops-")
    atexit.register(shutil.rmtree, os.environ["KEOPS_CACHE_FOLDER"], ignore_errors=True)

# To optimise little makes KeOps' compiler a third faster, and changes no result: KeOps
# asks for no fast math. A compiler of one's own is left as it is.
if os.name == "posix" and "CXX" not in os.environ and shutil.which("g++"):
    folder = tempfile.mkdtemp(prefix="skhdkde-compiler-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["CXX"] = os.path.join(folder, "quick-c++")
    with open(os.environ["CXX"], "w") as script:
        script.write('#!/bin/sh\nexec g++ "$@" -O1 -fno-lto\n')
    os.chmod(os.environ["CXX"], 0o755)

# What devices can do is measured in each run.
if not os.environ.get("SKHDKDE_CACHE_FOLDER"):
    os.environ["SKHDKDE_CACHE_FOLDER"] = tempfile.mkdtemp(prefix="skhdkde-cache-")
    atexit.register(shutil.rmtree, os.environ["SKHDKDE_CACHE_FOLDER"], ignore_errors=True)

# How long an example takes says nothing on a machine that does other work.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

MODULES = {"numpy": "numpy", "torch": "torch", "keops": "pykeops"}


def pytest_addoption(parser):
    parser.addoption(
        "--backends",
        default="numpy,torch",
        help="Backends on which to run the numerical suite. keops, which compiles for "
        "every number of features and kernel, takes most of an hour the first time; "
        "tests/test_keops.py is the part of it that always runs.",
    )


def pytest_generate_tests(metafunc):
    if "each_backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("backends", "numpy,torch").split(",")
        metafunc.parametrize("each_backend", names, indirect=True, scope="module")


def pytest_collection_modifyitems(items):
    """Refuse parameters whose order, and so the names of tests, differs by worker."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        for name, value in parameters.items():
            if isinstance(value, set | frozenset) and len(value) > 1:
                raise pytest.UsageError(f"{item.nodeid}: {name} is a set: pass a list.")


@pytest.fixture(scope="module")
def each_backend(request):
    """The name of every backend in turn."""
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def make_kde(each_backend):
    """``HighDimKernelDensity`` with every backend in turn."""
    from skhdkde import HighDimKernelDensity

    return functools.partial(HighDimKernelDensity, backend=each_backend)


@pytest.fixture
def tensors_as_on_a_gpu(monkeypatch):
    """Tensors of torch are treated as if they were on a GPU."""
    torch = pytest.importorskip("torch")
    from skhdkde._utils import arrays

    monkeypatch.setattr(arrays, "_on_gpu", lambda X: isinstance(X, torch.Tensor))


@pytest.fixture
def in_this_thread():
    """Graphs of dask run in this thread."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield
