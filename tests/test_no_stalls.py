"""torch on a GPU, which is pretended: the same numbers, and nothing to wait for.

See pretended_gpu.py. All of it runs without a card.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture

from skhdkde import HighDimKernelDensity, select_bandwidth

pytest.importorskip("torch")

import pretended_gpu
from pretended_gpu import Counts

from skhdkde._pairwise import torch_backend

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
N_POINTS, N_QUERIES = 320, 64


@pytest.fixture(params=[(9, 0), (8, 9)], ids=["fast float64", "slow float64"])
def gpu(monkeypatch, request):
    """The counts of a pretended GPU, anew at each call."""
    with pretended_gpu.pretended_gpu(monkeypatch, capability=request.param):

        def fresh():
            pretended_gpu.counts = Counts()
            return pretended_gpu.counts

        yield fresh


@pytest.fixture
def set_tiles(monkeypatch):
    """A function that sets how many entries a tile has."""

    def set_tiles(size):
        rows, _, block, tasks = torch_backend.ON_GPU
        monkeypatch.setattr(torch_backend, "SMALLEST_ROWS", 16)
        monkeypatch.setattr(torch_backend, "ON_GPU", (rows, size, block, tasks))

    return set_tiles


def data(d, dtype, seed=0):
    rng = np.random.default_rng(seed)
    Y, X = (rng.standard_normal((n, d)).astype(dtype) for n in (N_POINTS, N_QUERIES))
    X[:3] = Y[:3]
    return X, Y + dtype(0.3), rng.exponential(size=N_POINTS) + 0.1


METHODS = {
    "score_samples": lambda kde, X: kde.score_samples(X),
    "leave-one-out": lambda kde, X: kde.score_samples(None),
    "gradient": lambda kde, X: kde.bandwidth_ * kde.log_density_gradient(X),
    "diagnose": lambda kde, X: kde.diagnose(X).log_density,
    "held out": lambda kde, X: kde.diagnose(None).effective_sample_size,
}

OPTIONS = {
    "gaussian": {},
    "student": {"kernel": "student", "degrees_of_freedom": 4.0},
    "exponential": {"kernel": "exponential", "bandwidth": 0.3},
    "epanechnikov": {"kernel": "epanechnikov", "bandwidth": 9.0},
    "linear": {"kernel": "linear", "bandwidth": 9.0},
    "cosine": {"kernel": "cosine", "bandwidth": 9.0},
    "tophat": {"kernel": "tophat", "bandwidth": 9.0},
    "diag": {"covariance_type": "diag"},
    "full": {"covariance_type": "full", "preserve_variance": True, "bandwidth": 0.6},
    "adaptive": {"adaptive": True},
    "local": {
        "covariance_type": "local",
        "mixture": GaussianMixture(2, random_state=0),
        "random_state": 0,
    },
    "narrow": {"bandwidth": 0.02},
}


@pytest.mark.parametrize("d, dtype", [(3, np.float64), (40, np.float32)])
@pytest.mark.parametrize("name", OPTIONS)
def test_same_numbers(gpu, name, d, dtype):
    X, Y, weights = data(d, dtype)
    options = {"bandwidth": 0.5 * d**0.2, "n_jobs": 1, **OPTIONS[name]}
    kde, other = (
        HighDimKernelDensity(backend=backend, **options).fit(Y, sample_weight=weights)
        for backend in ("torch", "numpy")
    )
    for method in METHODS.values():
        found, expected = method(kde, X), method(other, X)
        assert_allclose(found, expected, atol=3 * ATOL[dtype], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"kernel": "exponential"}], ids=str)
@pytest.mark.parametrize("rule, d", [("kl", 8), ("kl", 200), ("nearest", 8)])
def test_same_bandwidths(gpu, set_tiles, rule, d, options):
    """With 200 features float32 needs the nearest points to be sharp."""
    _, Y, _ = data(d, np.float32)
    set_tiles(N_POINTS * 50)
    found, expected = (
        select_bandwidth(Y, rule=rule, backend=backend, n_jobs=1, **options)
        for backend in ("torch", "numpy")
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("support", ["euclidean", "sphere"])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_queries_are_whitened_on_the_device(
    gpu, monkeypatch, covariance_type, support, dtype
):
    """Many queries are sent as given: here all count as too many for the host."""
    from skhdkde._pairwise import points, projected_points

    X, Y, _ = data(20, dtype)
    if support == "sphere":
        X, Y = (A / np.linalg.norm(A, axis=1)[:, None] for A in (X, Y))
    options = {"covariance_type": covariance_type, "support": support, "n_jobs": 1}
    kde, other = (
        HighDimKernelDensity(bandwidth=0.5, backend=backend, **options).fit(Y)
        for backend in ("torch", "numpy")
    )
    expected = other.score_samples(X)
    for module in (points, projected_points):
        monkeypatch.setattr(module, "BLOCK_SIZE", 0)
    counts = gpu()
    assert_allclose(kde.score_samples(X), expected, atol=3 * ATOL[dtype])
    assert X.nbytes in counts.uploads  # as they are, and not in float64


def counted(gpu, call):
    counts = gpu()
    call()
    return counts


# Whose rows are all sharp, or are once the nearest point is known.
SHARP = ["gaussian", "student", "exponential", "diag", "full", "adaptive"]


@pytest.mark.parametrize("d, dtype", [(3, np.float64), (100, np.float32)])
@pytest.mark.parametrize("name", SHARP)
def test_nothing_to_wait_for_between_tiles(gpu, set_tiles, name, d, dtype):
    """However many tiles a block of queries has, the host waits as often for it."""
    X, Y, _ = data(d, dtype)
    X[:3] += 1.0  # none so near that its value is out of range
    bandwidth = 0.6 * d**0.2 if name != "full" else 0.9
    options = {**OPTIONS[name], "bandwidth": bandwidth, "n_jobs": 1}
    kde = HighDimKernelDensity(backend="torch", **options).fit(Y)
    for method in ("score_samples", "leave-one-out", "gradient"):
        found = []
        for n_tiles in (2, 10):
            set_tiles(N_QUERIES * N_POINTS // n_tiles)
            found.append(counted(gpu, lambda method=method: METHODS[method](kde, X)))
        few, many = found
        assert many.waits == few.waits
        assert len(many.downloads) == len(few.downloads) <= 10
        # one number or two for each query, or the result itself
        assert max(many.downloads) <= 16 * N_POINTS + 8 * N_QUERIES * d


@pytest.mark.parametrize("name", ["tophat", "epanechnikov", "linear", "cosine", "narrow"])
def test_mending_stays_on_the_device(gpu, set_tiles, name):
    """What comes to the host of a tile is a few numbers for each query."""
    X, Y, _ = data(20, np.float32)
    options = {"bandwidth": 0.9, "n_jobs": 1, **OPTIONS[name]}
    kde = HighDimKernelDensity(backend="torch", **options).fit(Y)
    set_tiles(N_QUERIES * N_POINTS // 4)
    for method in ("score_samples", "gradient"):
        counts = counted(gpu, lambda method=method: METHODS[method](kde, X))
        fast_float64 = torch_backend.capability(None) == (9, 0)
        assert counts.waits > 0 or (name == "narrow" and fast_float64)
        assert max(counts.downloads) <= 64 * N_QUERIES + 8 * N_QUERIES * 20


def test_points_are_sent_once(gpu):
    X, Y, _ = data(200, np.float32)
    kde = HighDimKernelDensity(backend="torch", bandwidth=1.0, n_jobs=1).fit(Y)
    first = counted(gpu, lambda: kde.score_samples(X))
    again = counted(gpu, lambda: kde.score_samples(X))
    assert sum(first.uploads) >= X.nbytes + Y.nbytes
    assert sum(again.uploads) <= 1.1 * X.nbytes
    other = HighDimKernelDensity(backend="torch", bandwidth=1.0, n_jobs=1).fit(X)
    other.score_samples(X)  # has the place of the first
    third = counted(gpu, lambda: kde.score_samples(X))
    assert sum(third.uploads) >= X.nbytes + Y.nbytes


def test_passes_over_a_tile(gpu, set_tiles):
    """A product, and what turns it into sums."""
    X, Y, _ = data(30, np.float32)
    kde = HighDimKernelDensity(backend="torch", bandwidth=1.0, n_jobs=1).fit(Y)
    set_tiles(N_QUERIES * 80)
    counts = counted(gpu, lambda: kde.score_samples(X))
    passes = counts.passes(N_QUERIES * 80)
    assert passes[-3:] == ["aten.mm.default", "aten.exp.out", "aten.mv.default"]
    assert len(passes) == 6 + 3 * 3  # four tiles, of which the first has more


def test_passes_over_a_tile_with_fused_kernels(gpu, set_tiles, monkeypatch):
    """The product, and one pass more, whose place plain sums take here."""
    import types

    import torch

    from skhdkde._pairwise.triton_kernels import Profile

    def tile_sums(product, weights, profile):
        pretended_gpu.counts.operations.append(("fused", product.numel()))
        logs, (rate,) = product.inner.double(), profile.rates
        largest = logs.amax(1)
        sums = torch.exp2((logs - largest[:, None]) * rate) @ weights.inner.double()
        found = sums[:, None], largest.to(product.dtype)
        return tuple(map(pretended_gpu.OnGpu, found))

    fused = types.SimpleNamespace(
        tile_sums=tile_sums, Profile=Profile, LARGEST_FEATURES=9
    )
    X, Y, weights = data(30, np.float32)
    kde, other = (
        HighDimKernelDensity(backend=backend, bandwidth=1.3, n_jobs=1).fit(
            Y, None, weights
        )
        for backend in ("torch", "numpy")
    )
    set_tiles(N_QUERIES * 80)
    monkeypatch.setattr(torch_backend.TorchDevice, "fused", lambda device, dtype: fused)
    counts = gpu()
    found = kde.score_samples(X)
    assert counts.passes(N_QUERIES * 80)[6:] == ["aten.mm.default", "fused"] * 3
    assert_allclose(found, other.score_samples(X), atol=1e-4)


def test_tensors_on_both_are_refused(gpu):
    """The pretended GPU refuses what a card would refuse."""
    import torch

    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(RuntimeError, match="on the GPU and on the host"):
        there + here
    with pytest.raises(RuntimeError, match="indexed"):
        there[np.array([0, 1])]
    with pytest.raises(RuntimeError):
        there.numpy()
    assert there.device.type == "cuda"
    assert (there + there).cpu().numpy().tolist() == [2.0, 2.0, 2.0]
