"""The torch backend with fused kernels, which Triton's interpreter runs on the CPU.

The interpreter must be chosen before Triton is imported: all cases run in one process of
their own, and the tests look at what it found.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

SCRIPT = """
import json
import warnings
import numpy as np
from skhdkde import HighDimKernelDensity
from skhdkde._pairwise import (
    ComputeOptions, LogSumExp, ReductionSpec, TrainingPoints, reduce_pairs,
    torch_backend, triton_kernels,
)
from skhdkde._kernels import make_kernel

warnings.simplefilter("error")
torch_backend.ON_CPU = (32, 32 * 50, 2**20, 1)  # several tiles and blocks
torch_backend.SMALLEST_ROWS = 16
torch_backend.FUSED_FROM = 0
used = set()
for name in ("direct_sums", "tile_sums"):
    def watched(*args, kernel=getattr(triton_kernels, name), name=name, **options):
        used.add(name)
        return kernel(*args, **options)
    setattr(triton_kernels, name, watched)

found = {}
def compare(case, call):
    used.clear()
    result, expected = call("torch"), call("numpy")
    with np.errstate(invalid="ignore"):
        error = np.where(result == expected, 0.0, np.abs(result - expected))
    found[case] = [float(error.max()), sorted(used)]

rng = np.random.default_rng(0)
for d in (5, 90):
    for dtype in ("float32", "float64"):
        Y, X = (rng.standard_normal((n, d)).astype(dtype) for n in (130, 40))
        Y = Y[np.argsort(np.linalg.norm(Y, axis=1))[::-1]]  # the densest part comes last
        weights = rng.exponential(size=len(Y))
        for kernel, options in (
            ("gaussian", {}), ("student", {"degrees_of_freedom": 4.0})
        ):
            for h in (0.05, 0.7):
                for queries in (X, None):
                    def score(backend):
                        kde = HighDimKernelDensity(
                            bandwidth=h * d**0.25, kernel=kernel, backend=backend,
                            n_jobs=1, **options,
                        ).fit(Y, sample_weight=weights)
                        return kde.score_samples(queries)
                    case = "X" if queries is X else "held out"
                    compare(f"{kernel} {d} {dtype} {h} {case}", score)
        grid = np.geomspace(0.5, 8, 17)
        points = TrainingPoints(Y, weights / weights.max())
        spec = ReductionSpec(
            make_kernel("gaussian", d), grid * points.scale, points, np.dtype(dtype)
        )
        def curve(backend):
            options = ComputeOptions(backend=backend, n_jobs=1)
            return reduce_pairs(LogSumExp(spec), points.as_queries(X), points, options)
        compare(f"curve {d} {dtype}", curve)
alone = np.zeros((1, 2)), np.ones(1)
def of_one(backend):
    kde = HighDimKernelDensity(bandwidth=1.0, backend=backend).fit(alone[0])
    return kde.score_samples(None)
compare("no other point", of_one)
print(json.dumps(found))
"""
TOLERANCE = {"float32": 1e-3, "float64": 1e-8}


@pytest.fixture(scope="module")
def found():
    """For each case the largest difference to numpy, and the kernels that were used."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 2):
        pytest.skip("the interpreter of this release does not know today's numpy")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", SCRIPT]
    output = subprocess.check_output(command, text=True, env=environment, timeout=300)
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [5, 90])
@pytest.mark.parametrize("kernel", ["gaussian", "student", "curve"])
def test_sums_of_fused_kernels(found, kernel, d, dtype):
    cases = [found[name] for name in found if name.startswith(f"{kernel} {d} {dtype}")]
    assert cases
    for error, used in cases:
        assert error <= TOLERANCE[dtype]
        assert used[0] == ("direct_sums" if d <= 64 else "tile_sums")


def test_no_other_point(found):
    """Its held-out density is 0."""
    error, used = found["no other point"]
    assert (error, used) == (0.0, ["direct_sums"])
    assert len(found) == 2 * 2 * 2 * 2 * 2 + 2 * 2 + 1
    assert np.isfinite([error for error, _ in found.values()]).all()
