"""PyKeOps on the CPU: the part of the numerical suite that compiles few formulas.

To compile one takes some seconds: a default run has a first few of each kind. ``pytest
--backends keops`` runs the whole suite, in more dimensions.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import types

import joblib
import numpy as np
import oracles
import pytest
import sklearn
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._pairwise import (
    TrainingPoints,
    backend_choice,
    keops_backend,
    keops_runtime,
)

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("pykeops") is None, reason="pykeops is not installed"
    ),
    pytest.mark.skipif(
        not any(map(shutil.which, ["g++", "clang++", os.environ.get("CXX", "g++")])),
        reason="no C++ compiler, which KeOps needs",
    ),
]

DIMENSIONS = [1, 100, 147, 1000]
FIRST_KERNELS = ["gaussian", "epanechnikov"]
ATOL = {np.float64: 1e-8, np.float32: 1e-3}
RTOL = {np.float64: 2e-15, np.float32: 5e-7}
STRUCTURE = {
    "kernel": "student",
    "degrees_of_freedom": 4.0,
    "adaptive": True,
    "preserve_variance": True,
}
COLUMNS = "standard_error", "h_g", "h_clt", "effective_sample_size", "max_weight"


def fitted(Y, h, kernel="gaussian", backend="keops", **fit_params):
    return HighDimKernelDensity(bandwidth=h, kernel=kernel, backend=backend).fit(
        Y, **fit_params
    )


def structured(Y, backend, **parameters):
    defaults = {"covariance_type": "full", "bandwidth": 0.6, "random_state": 0}
    return HighDimKernelDensity(**defaults | parameters, backend=backend).fit(Y)


def data(d, dtype=np.float64):
    rng = np.random.default_rng(d)
    Y, X = rng.standard_normal((120, d)), rng.standard_normal((9, d))
    return X.astype(dtype), Y.astype(dtype), 0.5 * d**0.2


def check_density_and_gradient(d, dtype):
    X, Y, h = data(d, dtype)
    kde = fitted(Y, h)
    tolerance = {"atol": ATOL[dtype], "rtol": RTOL[dtype]}
    assert_allclose(kde.score_samples(X), oracles.log_density(X, Y, h), **tolerance)
    # in units of 1 / h, as the log density is in nats
    expected = h * oracles.gradient(X, Y, h)
    assert_allclose(h * kde.log_density_gradient(X), expected, **tolerance)


@pytest.fixture(scope="module", autouse=True)
def compiled(request):
    """Most formulas, in two processes at once: KeOps compiles each on one core."""
    of_this_file = (item for item in request.session.items if item.path == request.path)
    slow = any(item.get_closest_marker("slow") for item in of_this_file)
    kernels = oracles.KERNEL_NAMES if slow else FIRST_KERNELS
    cases = [(3, np.float64, kernel) for kernel in kernels]
    cases.append((3, np.float32, "gaussian"))
    if slow:
        cases += [(d, np.float64, "gaussian") for d in DIMENSIONS]
        cases.append((1000, np.float32, "gaussian"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        others = [pool.apply_async(compile_leave_one_out, (slow,))]
        others += [pool.apply_async(compile_structure)] if slow else []
        pool.starmap(compile_case, cases, chunksize=1)
        for other in others:
            other.get()


def compile_case(d, dtype, kernel):
    X, Y, h = data(d, dtype)
    kde = fitted(Y, h, kernel)
    kde.score_samples(X), kde.log_density_gradient(X)
    if d == 3 and dtype == np.float64:
        kde.diagnose(X)


def compile_structure():
    X, Y, _ = data(3)
    kde = structured(Y, "keops", **STRUCTURE)
    kde.score_samples(X), kde.log_density_gradient(X), kde.diagnose(X)


def compile_leave_one_out(slow):
    _, Y, h = data(3)
    weights = np.linspace(1.0, 2.0, len(Y)) if slow else None
    kde = fitted(Y, h, sample_weight=weights)
    kde.score_samples(None), kde.diagnose()
    for n in (8, 32):
        select_bandwidth(Y, bandwidths=np.geomspace(0.2, 2.0, n), backend="keops")


@pytest.mark.slow
@pytest.mark.parametrize("d", DIMENSIONS)
def test_every_dimension(d):
    check_density_and_gradient(d, np.float64)


@pytest.mark.parametrize("d", [3, pytest.param(1000, marks=pytest.mark.slow)])
def test_float32(d):
    check_density_and_gradient(d, np.float32)


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(name, marks=[] if name in FIRST_KERNELS else pytest.mark.slow)
        for name in oracles.KERNEL_NAMES
    ],
)
def test_kernels(kernel):
    X, Y, _ = data(3)
    X[0] = Y[0]  # where some gradients have a kink
    h = {"gaussian": 0.7, "exponential": 0.3}.get(kernel, 1.8)
    kde, other = fitted(Y, h, kernel), fitted(Y, h, kernel, "numpy")
    expected = oracles.log_density(X, Y, h, kernel)
    assert_allclose(kde.score_samples(X), expected, atol=1e-8)
    gradient = oracles.gradient(X, Y, h, kernel)
    assert_allclose(kde.log_density_gradient(X), gradient, atol=1e-8)
    found, expected = kde.diagnose(X), other.diagnose(X)
    for name in COLUMNS:
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9)


@pytest.mark.slow
def test_structures():
    X, Y, _ = data(3)
    fits = [structured(Y, name, **STRUCTURE) for name in ("keops", "numpy")]
    for method in ("score_samples", "log_density_gradient"):
        found, expected = (getattr(kde, method)(X) for kde in fits)
        assert_allclose(found, expected, atol=1e-8)
    found, expected = (kde.diagnose(X) for kde in fits)
    for name in COLUMNS:
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-8)


@pytest.mark.slow
def test_search_over_structures():
    Y = data(3)[1]
    found, expected = (
        structured(Y, name, **{**STRUCTURE, "adaptive": False, "bandwidth": "kl"})
        for name in ("keops", "numpy")
    )
    assert found.bandwidth_ == pytest.approx(expected.bandwidth_, rel=1e-6)


@pytest.mark.slow
def test_a_cusp_with_a_whitening():
    _, Y, _ = data(3)
    fits = [structured(Y, name, kernel="exponential") for name in ("keops", "numpy")]
    found, expected = (kde.log_density_gradient(Y[:5]) for kde in fits)
    assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("weighted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_leave_one_out(weighted):
    _, Y, h = data(3)
    weights = np.random.default_rng(0).uniform(0.1, 5.0, len(Y)) if weighted else None
    kde = fitted(Y, h, sample_weight=weights)
    expected = oracles.log_density(Y, Y, h, weights=weights, leave_out=np.arange(len(Y)))
    assert_allclose(kde.score_samples(None), expected, atol=1e-8)
    found = kde.diagnose()
    expected = fitted(Y, h, backend="numpy", sample_weight=weights).diagnose()
    for name in COLUMNS:
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9)


def test_own_points_are_left_out_however_wide_the_kernel():
    """Not by a distance that is merely large."""
    Y = data(3)[1]
    expected = fitted(Y, 1e20, backend="numpy").score_samples(None)
    assert_allclose(fitted(Y, 1e20).score_samples(None), expected, rtol=1e-14)
    assert fitted(Y[:1], 1.0).score_samples(None) == [-np.inf]


def test_bandwidth_rules():
    Y = data(3)[1]
    for rule in ("kl", "nearest"):
        found, expected = (
            select_bandwidth(Y, rule=rule, backend=name) for name in ("keops", "numpy")
        )
        assert found == pytest.approx(expected, rel=1e-6)


def shifted(dtype, rng):
    Y = (1e6 + rng.standard_normal((300, 3))).astype(dtype)
    return Y[:20] + dtype(0.5), Y, 0.8


def clusters(dtype, rng):
    Y = 1e-3 * rng.standard_normal((300, 3))
    Y[150:] += 1e3
    Y = Y.astype(dtype)
    return np.vstack([Y[:10], Y[-10:]]) + dtype(1e-3), Y, 1e-3


def far_apart(dtype, rng):
    Y = rng.standard_normal((50, 3)).astype(dtype)
    return Y[:9] + dtype(3.0), Y, 0.03


def outlier(dtype, rng):
    Y = rng.standard_normal((300, 3)).astype(dtype)
    Y[0] = 1e20
    return Y[1:10] + dtype(0.125), Y, 0.5


def far_queries(dtype, rng):
    Y = rng.standard_normal((30, 3)).astype(dtype)
    return dtype(1e30) * Y[:9], Y, 1e25


def small_units(dtype, rng):
    Y = (1e-27 * rng.standard_normal((200, 3))).astype(dtype)
    return Y[:20], Y, 3e-28


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "case", [shifted, clusters, far_apart, outlier, far_queries, small_units]
)
def test_hard_cases(case, dtype):
    X, Y, h = case(dtype, np.random.default_rng(0))
    expected = oracles.log_density(X, Y, h)
    found = fitted(Y, h).score_samples(X)
    assert_allclose(found, expected, atol=ATOL[dtype], rtol=RTOL[dtype])


def test_queries_whose_squares_are_out_of_range():
    Y, h = data(3)[1], 1e25
    X, kde = 1e160 * Y[:9], fitted(Y, h)
    expected = oracles.log_density(X, Y, h)
    assert_allclose(kde.score_samples(X), expected, rtol=5e-15)
    assert_allclose(kde.log_density_gradient(X), -X / h**2, rtol=1e-12)


@pytest.mark.slow
def test_float32_is_sharpened_where_needed():
    """The sum of many squares is not sharp enough for exponents of thousands of nats."""
    X, Y, h = data(1000, np.float32)
    h = h / 4
    expected = oracles.log_density(X, Y, h)
    limit = 1e-3 + 0.5 * np.spacing(np.abs(expected).max().astype(np.float32))
    assert np.abs(fitted(Y, h).score_samples(X) - expected).max() <= limit
    steps = np.square(X[:, None] - Y)
    sq = np.cumsum(steps, axis=2)[:, :, -1].astype(float)  # one after another
    log_norm = oracles.log_normalizer("gaussian", 1000) + 1000 * np.log(h)
    found = logsumexp(-sq / (2 * h**2), axis=1) - np.log(len(Y)) - log_norm
    assert np.abs(found - expected).max() > limit


def test_a_new_bandwidth_compiles_nothing(monkeypatch):
    X, Y, _ = data(3)
    fitted(Y, 0.7).score_samples(X)
    select_bandwidth(Y, bandwidths=np.geomspace(0.2, 2.0, 8), backend="keops")
    monkeypatch.setattr(keops_runtime, "_compile", None)  # whatever compiles now, fails
    for h in (0.5, 1.0, 2):  # whole numbers too, which KeOps would compile in
        fitted(Y, h).score_samples(X)
    for n in (3, 5, 8):
        select_bandwidth(Y, bandwidths=np.geomspace(0.1, 3.0, n), backend="keops")
    with pytest.raises(TypeError):  # this shows that it would
        fitted(Y[:, :2], 0.7).score_samples(X[:, :2])


@pytest.mark.slow
def test_blocks_of_queries():
    """More pairs than are visited in one call."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((12_000, 3)), rng.standard_normal((12_000, 3))
    expected = fitted(Y, 0.3, backend="numpy").score_samples(X)
    assert_allclose(fitted(Y, 0.3).score_samples(X), expected, atol=1e-8)


def run(code, **environment):
    """Output of a fresh process."""
    code = f"""
import numpy as np
from skhdkde import HighDimKernelDensity
rng = np.random.default_rng(0)
X = rng.standard_normal((50, 3))
kde = HighDimKernelDensity(bandwidth=0.5, backend="keops").fit(X)
{code}
"""
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_two_processes_compile_the_same_formula_in_silence(tmp_path):
    """With the compiler that KeOps chooses, as it optimises for users."""
    code, environment = "kde.score_samples(X)", {"KEOPS_CACHE_FOLDER": str(tmp_path)}
    with joblib.parallel_backend("threading", n_jobs=2):
        results = joblib.Parallel()(
            joblib.delayed(run)(code, CXX="", **environment) for _ in range(2)
        )
    assert [(r.returncode, r.stdout, r.stderr) for r in results] == [(0, "", "")] * 2
    assert list(tmp_path.glob("*/*.so"))


def test_it_leaves_no_trace():
    code = """
import os, torch
before = dict(os.environ), torch.get_num_threads()
kde.score_samples(X)
import keopscore, pykeops
assert (dict(os.environ), torch.get_num_threads()) == before
assert pykeops.verbose and keopscore.verbose
"""
    pytest.importorskip("torch")
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_without_a_compiler_there_is_a_sentence(tmp_path):
    result = run(
        "kde.score_samples(X)", PATH="", CXX="", KEOPS_CACHE_FOLDER=str(tmp_path)
    )
    assert "RuntimeError: backend='keops' compiles its formulas" in result.stderr
    assert "install g++" in result.stderr


def test_with_a_broken_compiler_there_is_a_sentence(tmp_path):
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho no such standard >&2; exit 1\n")
    broken.chmod(0o755)
    cache = str(tmp_path / "cache")
    result = run("kde.score_samples(X)", CXX=str(broken), KEOPS_CACHE_FOLDER=cache)
    assert "RuntimeError: backend='keops' could not compile" in result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_in_a_forked_child():
    """Of a process whose OpenMP threads, which are not forked, have run."""
    result = run("""
import os, sys
expected = kde.score_samples(X)
child = os.fork()
if child == 0:
    os._exit(0 if np.allclose(kde.score_samples(X), expected) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("where", ["loky", "threading"])
def test_in_joblib(where):
    X, Y, h = data(3)
    kde = fitted(Y, h)
    expected = kde.score_samples(X)
    with joblib.parallel_backend(where, n_jobs=2):
        found = joblib.Parallel()(
            joblib.delayed(kde.score_samples)(rows) for rows in (X[:4], X[4:])
        )
    assert_allclose(np.concatenate(found), expected, rtol=1e-14)


def test_pickle():
    X, Y, h = data(3)
    kde = fitted(Y, h)
    expected = kde.score_samples(X)
    assert_allclose(pickle.loads(pickle.dumps(kde)).score_samples(X), expected)


def test_tensors(tensors_as_on_a_gpu):
    """Points as on a GPU, where KeOps takes torch's tensors."""
    import torch

    X, Y, h = data(3)
    expected = fitted(Y, h)
    try:
        with sklearn.config_context(array_api_dispatch=True):
            kde = fitted(torch.as_tensor(Y), h)
            result = kde.score_samples(torch.as_tensor(X))
            left_out = kde.score_samples(None)
    except (ImportError, RuntimeError) as error:  # older scikit-learn or scipy
        pytest.skip(str(error))
    assert_allclose(result.numpy(), expected.score_samples(X), rtol=1e-12)
    assert_allclose(left_out.numpy(), expected.score_samples(None), rtol=1e-12)
    found = kde.diagnose(X).standard_error
    assert_allclose(found, expected.diagnose(X).standard_error, rtol=1e-9)
    gradient = expected.log_density_gradient(X)
    assert_allclose(kde.log_density_gradient(X), gradient, rtol=1e-9, atol=1e-12)


def test_blocks_of_dask():
    dask = pytest.importorskip("dask")
    da = pytest.importorskip("dask.array")
    pytest.importorskip("distributed")
    from skhdkde.dask import DaskHighDimKernelDensity

    X, Y, h = data(3)
    kde = DaskHighDimKernelDensity(bandwidth=h, backend="keops")
    with dask.config.set(scheduler="synchronous"):
        log_density = kde.fit(da.from_array(Y, chunks=(50, 3))).score_samples(X)
    assert kde.backend_ == "keops"
    assert_allclose(log_density, oracles.log_density(X, Y, h), atol=1e-8)


def evenly(rng):
    return rng.standard_normal((20, 3)), rng.standard_normal((2000, 3)), 0.5


def far_from_the_sample(rng):
    """By hundreds of nats nearer to points that are not in the sample."""
    Y = rng.standard_normal((2000, 3))
    return Y[1:400:20] + 1e-3, Y, 0.01


def some_out_of_range(rng):
    Y = rng.standard_normal((2000, 3))
    X = 1.2 * rng.standard_normal((20, 3))
    X[:3] *= 1e16
    return X, Y, 0.08


@pytest.fixture
def passes(monkeypatch):
    """Names of the reductions over all points, of which a sample is 1 in 125."""
    names = []

    def run(values, name, **options):
        of_all = all(len(variable) != 16 for variable in values.variables)
        names.extend([name] * of_all)
        return keops_runtime.run(values, name, **options)

    monkeypatch.setattr(keops_backend, "SAMPLE_SIZE", 16)
    monkeypatch.setattr(keops_backend, "SAMPLE_FROM", 2000)
    monkeypatch.setattr(keops_backend, "run", run)
    return names


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", [evenly, far_from_the_sample, some_out_of_range])
def test_sums_relative_to_a_sample(passes, case, dtype):
    """One pass over all points; another for rows that the sample does not serve."""
    X, Y, h = case(np.random.default_rng(0))
    X, Y = X.astype(dtype), Y.astype(dtype)
    kde = fitted(Y, h)
    tolerance = {"atol": ATOL[dtype], "rtol": RTOL[dtype]}
    assert_allclose(kde.score_samples(X), oracles.log_density(X, Y, h), **tolerance)
    assert case is not evenly or passes == ["sum"]
    assert case is evenly or "min" in passes
    expected, rtol = h * oracles.gradient(X, Y, h), max(RTOL[dtype], 1e-12)
    found = h * kde.log_density_gradient(X)
    assert_allclose(found, expected, rtol=rtol, atol=ATOL[dtype])


def test_leave_one_out_relative_to_a_sample(passes):
    """The points of the sample are left out of it themselves."""
    _, Y, _ = evenly(np.random.default_rng(0))
    assert np.isfinite(fitted(Y, 0.5).score_samples(None)).all()
    assert passes == ["sum"]
    h = 0.003  # values underflow beside that of a point at itself
    found = fitted(Y, h).score_samples(None)
    expected = oracles.log_density(Y, Y, h, leave_out=np.arange(len(Y)))
    assert_allclose(found, expected, atol=1e-8)


def test_sums_of_blocks_are_as_precise_as_is_stated():
    """Blocks of 192, in float32, then float64: at most 1.2e-5 of a sum of one sign."""
    rng = np.random.default_rng(0)
    tiny = np.full(192, 0.99 * 2.0**-24)  # each is lost beside the first of its block
    tiny[0] = 1.0
    terms = [np.exp(-rng.exponential(3.0, 192_000)), np.full(192_000, 0.1)]
    for values in *terms, np.tile(tiny, 1000):
        values = values.astype(np.float32)
        blocks = np.cumsum(values.reshape(-1, 192), axis=1)[:, -1].astype(np.float64)
        expected = values.astype(np.longdouble).sum()
        error = float(abs(np.log(np.float32(blocks.sum()) / expected)))
        assert error < 1.2e-5
    assert error > 1e-5  # the last is the worst case


def test_how_sums_are_made_on_a_gpu(monkeypatch):
    options = keops_runtime.sum_options
    in_float64 = {"dtype_acc": "float64", "sum_scheme": "direct_sum"}
    assert options(9, 10**6, 3, 1) == in_float64
    monkeypatch.setattr(keops_runtime, "uses_gpu", lambda: True)
    by_blocks = {"dtype_acc": "float64", "sum_scheme": "block_sum"}
    assert options(10**5, 10**6, 3, 1) == by_blocks
    assert options(9, 10**6, 3, 1) == {**by_blocks, "backend": "GPU_2D"}
    # nothing to share, partial sums beyond memory, a grid that is too high
    assert options(9, 100, 3, 1) == by_blocks
    assert options(2**13, 10**6, 3, 32) == by_blocks
    assert options(9, 10**6, 6000, 1) == by_blocks


@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)]
)
def test_sums_as_on_a_gpu(monkeypatch, dtype):
    """By blocks; those of gradients, which cancel, in float64 for each pair."""
    schemes = []

    def run(values, name, **options):
        schemes.append((name, options.get("sum_scheme")))
        options.pop("backend", None)  # there is none on the CPU
        return keops_runtime.run(values, name, **options)

    monkeypatch.setattr(keops_runtime, "uses_gpu", lambda: True)
    monkeypatch.setattr(keops_backend, "run", run)
    X, Y, h = data(3, dtype)
    kde = fitted(Y, h)
    error = np.abs(kde.score_samples(X) - oracles.log_density(X, Y, h))
    assert error.max() < (1e-5 if dtype == np.float32 else 1e-12)
    kde.log_density_gradient(X)
    of_gradient = "block_sum" if dtype == np.float64 else "direct_sum"
    assert [s for name, s in schemes if name == "sum"] == ["block_sum", of_gradient]


@pytest.fixture
def formulas(monkeypatch):
    """Numbers of a point in each formula, none of which is compiled or run."""
    found = []

    def run(values, name, n_threads, **options):
        formula = getattr(values, name)(axis=1, call=False, **options)
        variables = set(re.findall(r"Var\((\d+),(\d+),1\)", str(formula.formula)))
        found.append(sum(int(size) for _, size in variables))
        n_rows = next(len(v) for v in values.variables if v.ndim == 2)
        shape = n_rows, options.get("K", values.ndim)
        ones = np.ones(shape, dtype=values.dtype)
        return (ones, np.zeros(shape)) if "arg" in name else ones

    monkeypatch.setattr(keops_backend, "run", run)
    monkeypatch.setattr(keops_runtime, "uses_gpu", lambda: True)
    monkeypatch.setattr(keops_backend, "uses_gpu", lambda: True)
    return found


def test_points_that_just_fit_into_the_shared_memory_of_a_gpu(formulas):
    """Beyond, KeOps divides by the number that fit, which is none."""
    Y = data(3)[1]
    for options in {}, {**STRUCTURE, "preserve_variance": False, "bandwidth": "kl"}:
        kde = HighDimKernelDensity(backend="keops", **options).fit(Y)
        for X in Y[:2], None:
            kde.score_samples(X)
            kde.diagnose(X)
        kde.log_density_gradient(Y[:2])
    numbers_beside = max(formulas) - 3
    assert numbers_beside >= 5  # a weight, two of local scales, two digits
    assert (keops_backend.KEOPS_AT_MOST + numbers_beside) * 8 <= 48 * 2**10


@pytest.mark.parametrize("refused", [False, True])
def test_features_that_do_not_fit_are_refused(formulas, refused):
    Y = np.random.default_rng(0).standard_normal((5, 6138 + refused))
    kde = fitted(Y, 80.0)
    for call in kde.score_samples, kde.log_density_gradient, kde.diagnose:
        expected = contextlib.nullcontext()
        if refused:
            match = "at most 6138 features, got n_features=6139: use backend='torch'"
            expected = pytest.raises(ValueError, match=match)
        with expected:
            call(Y[:2])


def pretended_gpu(torch, events, monkeypatch):
    """Return a GPU of torch that is not there, and note what is asked of it."""
    device, stream = torch.device("cuda:1"), types.SimpleNamespace()

    @contextlib.contextmanager
    def current(device):
        events.append(device)
        yield
        events.append("as before")

    stream.synchronize = lambda: events.append("torch is done")
    monkeypatch.setattr(torch.cuda, "current_stream", {device: stream}.get)
    monkeypatch.setattr(
        torch.cuda, "synchronize", lambda device: events.append("KeOps is done")
    )
    monkeypatch.setattr(torch.cuda, "device", current)
    return device


def test_keops_and_torch_wait_for_each_other(monkeypatch, tensors_as_on_a_gpu):
    """On the GPU of the tensors, which is named and is not left current."""
    torch = pytest.importorskip("torch")
    events, X, Y, h = [], *data(3)
    device = pretended_gpu(torch, events, monkeypatch)

    def call(formula, *args, device_id=-1, **options):
        events.append(f"KeOps on {device_id}")
        return original(formula, *args, **options)

    with sklearn.config_context(array_api_dispatch=True):
        kde = fitted(torch.as_tensor(Y), h)
        expected = kde.score_samples(X)
        from pykeops.torch import Genred

        original = Genred.__call__
        monkeypatch.setattr(Genred, "__call__", call)
        monkeypatch.setattr(keops_runtime, "_device", lambda values: device)
        found = kde.score_samples(X)
    assert_allclose(found, expected, rtol=1e-12)
    pass_events = [device, "torch is done", "KeOps on 1", "KeOps is done", "as before"]
    assert len(events) >= 5
    assert events == pass_events * (len(events) // 5)


@pytest.mark.parametrize("initialized", [False, True])
def test_arrays_of_the_host_go_to_the_current_gpu_of_torch(monkeypatch, initialized):
    """If it uses one: KeOps would leave its own choice current."""
    torch = pytest.importorskip("torch")
    values = types.SimpleNamespace(variables=(np.ones((2, 3)), torch.ones(2, 3)))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert keops_runtime._device(values) is None  # KeOps uses no GPU
    monkeypatch.setattr(keops_runtime, "uses_gpu", lambda: True)
    expected = torch.device("cuda:1") if initialized else None
    assert keops_runtime._device(values) == expected


def test_a_gpu_that_keops_could_not_use_is_told_by_a_pass(monkeypatch):
    """Also where "auto" took it for what libraries are there."""
    X, Y, h = data(3)
    kde = fitted(Y, h)
    backend_choice._warn_of_keops_on_cpu.cache_clear()
    monkeypatch.setattr(backend_choice, "_has_cuda_gpu", lambda: True)
    monkeypatch.setattr(backend_choice, "_best_backend", lambda *args: "keops")
    kde.set_params(backend="auto")
    with pytest.warns(UserWarning, match="on the CPU although there is a GPU"):
        kde.score_samples(X)


def test_tensors_on_a_gpu_that_keops_does_not_use(monkeypatch):
    """They go to the host: KeOps would read addresses of the GPU there."""
    torch = pytest.importorskip("torch")
    tensor = types.SimpleNamespace(is_cuda=True, cpu=lambda: torch.as_tensor(Y))
    _, Y, _ = data(3)
    points = TrainingPoints(Y)
    monkeypatch.setattr(points, "contiguous", lambda dtype: tensor)
    source = keops_backend._Source(points, Y.dtype)
    assert source.lazy.__name__ == "pykeops.numpy"
    assert_allclose(source.exact, Y)
