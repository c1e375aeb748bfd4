"""KeOps on a CUDA GPU: ``pytest -m gpu``. Most of its time is that of a compiler."""

import numpy as np
import on_gpu
import oracles
import pytest
import sklearn
from numpy.testing import assert_allclose
from on_gpu import data, fitted

from skhdkde import HighDimKernelDensity
from skhdkde._pairwise import keops_runtime

pytestmark = on_gpu.marks


@pytest.fixture(autouse=True, scope="module")
def _gpu_of_keops():
    """Without libnvrtc it would compute on the CPU, and all tests would pass."""
    pytest.importorskip("pykeops")
    assert keops_runtime.uses_gpu()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [1, 3, 100, 1000])
def test_values_and_gradients(d, dtype):
    on_gpu.check_values_and_gradients("keops", d, dtype)


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
def test_everything_as_on_the_cpu(kernel):
    on_gpu.check_kernel("keops", kernel)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", on_gpu.SPHERE_OPTIONS, ids=str)
def test_the_sphere_as_on_the_cpu(options, dtype):
    on_gpu.check_sphere("keops", options, 20, dtype)


@pytest.mark.parametrize("n_queries", [5, 20_000])
def test_few_and_many_queries(n_queries):
    """KeOps sums few and many queries in two ways; both agree with the CPU."""
    on_gpu.check_few_and_many("keops", n_queries)


def test_the_current_gpu_of_torch_stays():
    import torch

    X, Y, h = data(5)
    before, stream = torch.cuda.current_device(), torch.cuda.Stream()
    expected = fitted("numpy", Y, bandwidth=h).score_samples(X)
    with sklearn.config_context(array_api_dispatch=True), torch.cuda.stream(stream):
        points = torch.as_tensor(Y, device="cuda")
        kde = HighDimKernelDensity(bandwidth=h, backend="keops").fit(points)
        found = kde.score_samples(torch.as_tensor(X, device="cuda"))
    assert_allclose(found.cpu().numpy(), expected, atol=1e-8)
    assert torch.cuda.current_device() == before
