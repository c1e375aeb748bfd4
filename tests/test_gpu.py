"""What only a CUDA GPU can show: ``pytest -m gpu``."""

import importlib.util
import pickle
import subprocess
import sys

import numpy as np
import oracles
import pytest
import sklearn
from numpy.testing import assert_allclose

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._pairwise import device_table, keops_runtime


def has_gpu():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="no CUDA GPU that torch can use"),
]

DIMENSIONS = [1, 3, 50, 99, 100, 146, 147, 200, 1000]
ATOL = {np.float64: 1e-8, np.float32: 1e-3}
RTOL = {np.float64: 2e-15, np.float32: 5e-7}


def data(d, dtype=np.float64, n=500, m=20):
    rng = np.random.default_rng(d)
    Y, X = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return X.astype(dtype), Y.astype(dtype), 0.5 * d**0.2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("backend", ["torch", "keops"])
def test_values_and_gradients(backend, d, dtype):
    X, Y, h = data(d, dtype)
    kde = HighDimKernelDensity(bandwidth=h, backend=backend).fit(Y)
    tolerance = {"atol": ATOL[dtype], "rtol": RTOL[dtype]}
    assert_allclose(kde.score_samples(X), oracles.log_density(X, Y, h), **tolerance)
    expected = h * oracles.gradient(X, Y, h)
    assert_allclose(h * kde.log_density_gradient(X), expected, **tolerance)


@pytest.mark.parametrize("kernel", oracles.KERNEL_NAMES)
@pytest.mark.parametrize("backend", ["torch", "keops"])
def test_everything_as_on_the_cpu(backend, kernel):
    X, Y, h = data(20)
    h *= {"gaussian": 1.0, "exponential": 0.4}.get(kernel, 6.0)
    kde, other = (
        HighDimKernelDensity(bandwidth=h, kernel=kernel, backend=name).fit(Y)
        for name in (backend, "numpy")
    )
    for queries in (X, None):
        found, expected = kde.diagnose(queries), other.diagnose(queries)
        for name in ("log_density", "standard_error", "h_g", "effective_sample_size"):
            assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
    if kernel in ("gaussian", "exponential"):
        found = select_bandwidth(Y, kernel=kernel, backend=backend)
        expected = select_bandwidth(Y, kernel=kernel, backend="numpy")
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [3, 20, 768])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "student", "degrees_of_freedom": 4.0},
        {"covariance_type": "full", "preserve_variance": True, "bandwidth": 0.7},
        {
            "covariance_type": "diag",
            "kernel": "student",
            "degrees_of_freedom": 4.0,
            "adaptive": True,
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["torch", "keops"])
def test_the_sphere_as_on_the_cpu(backend, options, d, dtype):
    X, Y, _ = data(d)
    X, Y = ((A + 0.5) / np.linalg.norm(A + 0.5, axis=1)[:, None] for A in (X, Y))
    X, Y = X.astype(dtype), Y.astype(dtype)
    options = {"bandwidth": 0.4, "support": "sphere", **options}
    kde, other = (
        HighDimKernelDensity(backend=name, **options).fit(Y)
        for name in (backend, "numpy")
    )
    tolerance = {"atol": 2 * ATOL[dtype], "rtol": RTOL[dtype]}
    for queries in (X, None):
        found, expected = kde.score_samples(queries), other.score_samples(queries)
        assert_allclose(found, expected, **tolerance)
    found, expected = kde.log_density_gradient(X), other.log_density_gradient(X)
    assert_allclose(0.4 * found, 0.4 * expected, atol=10 * ATOL[dtype], rtol=1e-5)


def test_keops_uses_the_gpu():
    """Without libnvrtc it would compute on the CPU, and all tests of it would pass."""
    pytest.importorskip("pykeops")
    assert keops_runtime.uses_gpu()


@pytest.mark.parametrize("backend", ["torch", "keops"])
@pytest.mark.parametrize("n_queries", [5, 20_000])
def test_few_and_many_queries(backend, n_queries):
    """Of which KeOps makes sums in another way, and both relative to a sample."""
    X, Y, h = data(6, np.float32, n=40_000, m=n_queries)
    kde = HighDimKernelDensity(bandwidth=h, backend=backend).fit(Y)
    found, expected = kde.score_samples(X)[:5], oracles.log_density(X[:5], Y, h)
    assert_allclose(found, expected, atol=1e-4, rtol=5e-7)


def test_auto_uses_the_gpu():
    """For many points; it does not need to for few."""
    few, many = data(200)[1], data(200, np.float32, n=50_000)[1]
    assert HighDimKernelDensity(bandwidth=1.0).fit(few).backend_ == "numpy"
    kde = HighDimKernelDensity(bandwidth=5.0).fit(many)
    kde.score_samples(many[:100])  # measures
    limits = device_table.gpu_limits(measure=False)
    print(limits)
    assert limits is not None
    fitted = HighDimKernelDensity(bandwidth=5.0).fit(many)
    assert fitted.backend_ == "torch"
    assert 1e12 < 2 * 1026 / limits.product["float32"][-1] < 1e15
    low = data(2, np.float32, n=200_000)[1]
    assert HighDimKernelDensity(bandwidth=0.1).fit(low).backend_ in ("torch", "keops")


def test_the_current_gpu_of_torch_stays():
    import torch

    X, Y, h = data(5)
    before, stream = torch.cuda.current_device(), torch.cuda.Stream()
    expected = HighDimKernelDensity(bandwidth=h, backend="numpy").fit(Y).score_samples(X)
    with sklearn.config_context(array_api_dispatch=True), torch.cuda.stream(stream):
        points = torch.as_tensor(Y).cuda()
        kde = HighDimKernelDensity(bandwidth=h, backend="keops").fit(points)
        found = kde.score_samples(torch.as_tensor(X).cuda())
    assert_allclose(found.cpu().numpy(), expected, atol=1e-8)
    assert torch.cuda.current_device() == before


def test_tensors_stay_on_the_gpu(tmp_path):
    """With SCIPY_ARRAY_API=1; a pickle then loads where there is no GPU."""
    import torch

    X, Y, h = data(30)
    expected = HighDimKernelDensity(bandwidth=h, backend="numpy").fit(Y).score_samples(X)
    with sklearn.config_context(array_api_dispatch=True):
        points, queries = (torch.as_tensor(array, device="cuda") for array in (Y, X))
        kde = HighDimKernelDensity(bandwidth=h).fit(points)
        result = kde.score_samples(queries)
        assert result.device == queries.device
        assert kde.log_density_gradient(queries).device == queries.device
        assert kde.sample(3, random_state=0).device == points.device
        assert_allclose(result.cpu().numpy(), expected, atol=1e-8)
        fitted = HighDimKernelDensity().fit(points)
    assert fitted.bandwidth_ == pytest.approx(select_bandwidth(Y), rel=1e-6)
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


def test_peak_memory():
    import torch

    X, Y, h = data(64, np.float32, n=200_000, m=20_000)
    kde = HighDimKernelDensity(bandwidth=h, backend="torch").fit(Y)
    torch.cuda.reset_peak_memory_stats()
    kde.score_samples(X)
    assert torch.cuda.max_memory_allocated() - Y.nbytes < 2 * 2**30


def test_smaller_tiles_when_the_gpu_is_full():
    import torch

    X, Y, h = data(20, n=20_000, m=2_000)
    kde = HighDimKernelDensity(bandwidth=h, backend="torch").fit(Y)
    expected = kde.score_samples(X)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    in_use = torch.cuda.memory_allocated()
    try:
        torch.cuda.set_per_process_memory_fraction((in_use + 100e6) / total)
        assert_allclose(kde.score_samples(X), expected, rtol=1e-12)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
