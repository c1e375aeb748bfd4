"""Figures without a window, in doctests too; the numerical suite on every backend."""

import importlib.util
import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(params=["numpy", "torch"])
def backend(request, monkeypatch):
    """Every backend of tiles in turn, as what "auto" stands for.

    Modules whose tests all run on each have
    ``pytestmark = pytest.mark.usefixtures("backend")``. KeOps, which compiles for every
    number of features, has tests of its own.
    """
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    for module in ("_kde", "_bandwidth"):
        monkeypatch.setattr(
            f"skhdkde.{module}.resolve_backend", lambda *args: request.param
        )
    return request.param
