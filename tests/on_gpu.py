"""What tests on a CUDA GPU share, by torch and by KeOps."""

import importlib.util

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose

from skhdkde import HighDimKernelDensity, select_bandwidth


def has_gpu():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


marks = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="no CUDA GPU that torch can use"),
]

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
RTOL = {np.float64: 2e-15, np.float32: 5e-7}
SPHERE_OPTIONS = [
    {},
    {"kernel": "student", "degrees_of_freedom": 4.0},
    {"covariance_type": "full", "preserve_variance": True, "bandwidth": 0.7},
    {
        "covariance_type": "diag",
        "kernel": "student",
        "degrees_of_freedom": 4.0,
        "adaptive": True,
    },
]


def of_torch(dtype):
    """The dtype as torch names it."""
    import torch

    return getattr(torch, np.dtype(dtype).name)


def data(d, dtype=np.float64, n=500, m=20):
    """Queries, points, and a bandwidth."""
    rng = np.random.default_rng(d)
    Y, X = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return X.astype(dtype), Y.astype(dtype), 0.5 * d**0.2


def fitted(backend, Y, sample_weight=None, **options):
    kde = HighDimKernelDensity(backend=backend, **options)
    return kde.fit(Y, sample_weight=sample_weight)


def check_values_and_gradients(backend, d, dtype):
    X, Y, h = data(d, dtype)
    kde = fitted(backend, Y, bandwidth=h)
    tolerance = {"atol": ATOL[dtype], "rtol": RTOL[dtype]}
    assert_allclose(kde.score_samples(X), oracles.log_density(X, Y, h), **tolerance)
    expected = h * oracles.gradient(X, Y, h)
    assert_allclose(h * kde.log_density_gradient(X), expected, **tolerance)


def check_kernel(backend, kernel):
    """Diagnoses and bandwidths as on the CPU."""
    X, Y, h = data(20)
    h *= {"gaussian": 1.0, "exponential": 0.4}.get(kernel, 6.0)
    kde, other = (
        fitted(name, Y, bandwidth=h, kernel=kernel) for name in (backend, "numpy")
    )
    for queries in (X, None):
        found, expected = kde.diagnose(queries), other.diagnose(queries)
        for name in ("log_density", "standard_error", "h_g", "effective_sample_size"):
            assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
    if kernel in ("gaussian", "exponential"):
        found = select_bandwidth(Y, kernel=kernel, backend=backend)
        expected = select_bandwidth(Y, kernel=kernel, backend="numpy")
        assert found == pytest.approx(expected, rel=1e-6)


def check_sphere(backend, options, d, dtype):
    X, Y, _ = data(d)
    X, Y = ((A + 0.5) / np.linalg.norm(A + 0.5, axis=1)[:, None] for A in (X, Y))
    X, Y = X.astype(dtype), Y.astype(dtype)
    options = {"bandwidth": 0.4, "support": "sphere", **options}
    kde, other = (fitted(name, Y, **options) for name in (backend, "numpy"))
    tolerance = {"atol": 2 * ATOL[dtype], "rtol": RTOL[dtype]}
    for queries in (X, None):
        found, expected = kde.score_samples(queries), other.score_samples(queries)
        assert_allclose(found, expected, **tolerance)
    found, expected = kde.log_density_gradient(X), other.log_density_gradient(X)
    assert_allclose(0.4 * found, 0.4 * expected, atol=10 * ATOL[dtype], rtol=1e-5)


def check_few_and_many(backend, n_queries):
    X, Y, h = data(6, np.float32, n=40_000, m=n_queries)
    kde = fitted(backend, Y, bandwidth=h)
    found, expected = kde.score_samples(X)[:5], oracles.log_density(X[:5], Y, h)
    assert_allclose(found, expected, atol=1e-4, rtol=5e-7)
