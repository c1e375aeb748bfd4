"""Figures without a window, in doctests too; the numerical suite on every backend."""

import importlib.util
import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
# scikit-learn's array API support asks for scipy's, before either is imported
os.environ.setdefault("SCIPY_ARRAY_API", "1")

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
        metafunc.parametrize("each_backend", names, indirect=True)


@pytest.fixture
def each_backend(request, monkeypatch):
    """Every backend in turn, as what "auto" stands for.

    Modules whose tests all run on each have
    ``pytestmark = pytest.mark.usefixtures("each_backend")``.
    """
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    for module in ("_kde", "_bandwidth"):
        monkeypatch.setattr(
            f"skhdkde.{module}.resolve_backend", lambda *args, **options: request.param
        )
    return request.param


@pytest.fixture
def in_this_thread():
    """Graphs of dask run in this thread."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield
