"""What torch is set to elsewhere does not matter, and is left as it was."""

import gc
import threading
import weakref

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skhdkde import HighDimKernelDensity

torch = pytest.importorskip("torch")

from skhdkde._pairwise import torch_backend, torch_settings  # noqa: E402

RNG = np.random.default_rng(0)
Y, X = (RNG.standard_normal((n, 20)).astype(np.float32) for n in (500, 60))
BY_BACKEND = torch_settings.BY_BACKEND


def scored(dtype=np.float32, **options):
    kde = HighDimKernelDensity(bandwidth=0.8, n_jobs=1, **options).fit(Y.astype(dtype))
    return kde.score_samples(X.astype(dtype))


def precision():
    """What products on the CPU are in."""
    if BY_BACKEND:
        return torch.backends.mkldnn.matmul.fp32_precision
    return torch.get_float32_matmul_precision()


@pytest.fixture
def restored():
    """Puts precisions back after a test that sets them."""
    before, by_backend = (
        torch.get_float32_matmul_precision(),
        torch_settings.precision.get(),
    )
    yield
    torch.set_float32_matmul_precision(before)
    torch_settings.precision.set(by_backend)


@pytest.fixture
def seen(monkeypatch):
    """The precisions in which products were made."""
    seen, matmul = set(), torch.matmul

    def spy(*args):
        seen.add(precision())
        return matmul(*args)

    monkeypatch.setattr(torch, "matmul", spy)
    return seen


def set_older_kind():
    torch.set_float32_matmul_precision("medium")


def set_newer_kind():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def set_both_kinds():
    torch.set_float32_matmul_precision("highest")
    set_newer_kind()


newer = pytest.mark.skipif(not BY_BACKEND, reason="torch has one setting for all")


@pytest.mark.parametrize(
    "set_precision",
    [
        set_older_kind,
        pytest.param(set_newer_kind, marks=newer),
        pytest.param(set_both_kinds, marks=newer),
    ],
)
def test_products_are_never_shortened(set_precision, restored, seen):
    expected = scored(backend="numpy")
    set_precision()
    before = precision()
    assert_allclose(scored(backend="torch"), expected, atol=1e-5)
    assert seen == {"ieee" if BY_BACKEND else "highest"}
    assert precision() == before


def test_passes_at_once_restore_what_was_set(restored, monkeypatch):
    """The first to come in is the first to leave; both are in full precision."""
    set_older_kind()
    n_threads, before = torch.get_num_threads(), precision()
    inside, first_left = threading.Barrier(2), threading.Event()
    seen, matmul = [], torch.matmul

    def spy(*args):
        seen.append(precision())
        if threading.current_thread() is second:
            if not first_left.is_set():
                inside.wait(timeout=60.0)
                first_left.wait(timeout=60.0)
                seen.append(precision())
        elif not inside.broken and inside.n_waiting:
            inside.wait(timeout=60.0)
        return matmul(*args)

    second = threading.Thread(target=lambda: scored(backend="torch"))
    with torch_settings.settings(1):  # the first pass
        monkeypatch.setattr(torch, "matmul", spy)
        second.start()
        inside.wait(timeout=60.0)
    first_left.set()
    second.join(timeout=60.0)
    assert set(seen) == {"ieee" if BY_BACKEND else "highest"}
    assert (torch.get_num_threads(), precision()) == (n_threads, before)


@pytest.mark.parametrize("of_half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_autocast_does_not_matter(dtype, of_half):
    expected = scored(dtype, backend="numpy")
    with torch.autocast("cpu", dtype=of_half):
        found = scored(dtype, backend="torch")
    assert_allclose(found, expected, atol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory left"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
    ids=repr,
)
def test_tiles_that_failed_are_gone_before_smaller_ones_are_tried(monkeypatch, error):
    expected, matmul, products = scored(backend="numpy"), torch.matmul, []
    alive = []

    def fail_at_second(*args):
        if len(products) == 1:
            alive.append(products[0]())  # the tile that the first product made
            products.append(None)
            raise error
        product = matmul(*args)
        products.append(weakref.ref(product))
        return product

    shrink = torch_backend.TorchDevice.shrink

    def watched(device):
        assert alive.pop() is None or not gc.collect()
        assert products[0]() is None
        shrink(device)

    monkeypatch.setattr(torch_backend, "ON_CPU", (1024, 2**14, 2**20, 1))
    monkeypatch.setattr(torch, "matmul", fail_at_second)
    monkeypatch.setattr(torch_backend.TorchDevice, "shrink", watched)
    assert_allclose(scored(backend="torch"), expected, atol=1e-5)
    assert len(products) > 2


def test_other_errors_are_raised(monkeypatch):
    def fail(*args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    kde = HighDimKernelDensity(bandwidth=0.8, backend="torch", n_jobs=1).fit(Y)
    monkeypatch.setattr(torch, "matmul", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        kde.score_samples(X)
