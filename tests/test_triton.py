"""Fused kernels: in Triton's interpreter against extended precision, and compiled.

The interpreter must be chosen before Triton is imported, so it runs in a process of its
own; in this one kernels are compiled for a card, which takes none.
"""

import importlib.util
import os
import pathlib
import pickle
import re
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

from skhdkde._kernels import make_kernel  # noqa: E402
from skhdkde._pairwise import triton_kernels  # noqa: E402
from skhdkde._pairwise.triton_kernels import Profile  # noqa: E402

DTYPES = ("float32", "float64")
SERVER = """
import pickle, sys, traceback
import numpy as np
import torch
from skhdkde._pairwise import triton_kernels

requests, answers, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
np.seterr(all="ignore")
while True:
    try:
        name, arguments, options = pickle.load(requests)
    except EOFError:
        break
    try:
        arguments = [torch.as_tensor(a) if hasattr(a, "dtype") else a for a in arguments]
        answer = getattr(triton_kernels, name)(*arguments, **options)
        if isinstance(answer, tuple):
            answer = tuple(tensor.numpy() for tensor in answer)
        elif hasattr(answer, "numpy"):
            answer = answer.numpy()
    except Exception:
        answer = traceback.format_exc()
    pickle.dump(answer, answers)
    answers.flush()
"""


@pytest.fixture(scope="module")
def interpreted():
    """Call a function of ``triton_kernels`` by name, with arrays, in the interpreter."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 2):
        pytest.skip("the interpreter of this release does not know today's numpy")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )

    def call(name, *arguments, **options):
        pickle.dump((name, arguments, options), server.stdin)
        server.stdin.flush()
        answer = pickle.load(server.stdout)
        assert not isinstance(answer, str), answer
        return answer

    yield call
    server.kill()
    server.communicate()


def profile_of(h, n_features, nu=None):
    name = "gaussian" if nu is None else "student"
    return Profile.of(make_kernel(name, n_features, nu or np.inf), h)


def problem(rng, n_rows, n_points, n_features, dtype):
    """Return queries, points and weights."""
    X, Y = (rng.normal(size=(n, n_features)) for n in (n_rows, n_points))
    weights = rng.uniform(0.01, 1.0, n_points)
    return X.astype(dtype), Y.astype(dtype), weights.astype(dtype)


def squares(X):
    return np.sum(X.astype(np.float64) ** 2, axis=1)


def check_direct(interpreted, X, Y, weights, h, nu=None, leave_out=None, **options):
    """Compare with extended precision; return what the kernel returned.

    Squared distances may be wrong by two eps of ``|x|^2 + |y|^2``, and log values by what
    follows from that. Values and sums add 8 eps, times the power of a value that is used.
    """
    h, sq, eps = np.atleast_1d(h), (squares(X), squares(Y)), np.finfo(X.dtype).eps
    operands = X, sq[0].astype(X.dtype), Y, sq[1].astype(X.dtype), weights
    profile = profile_of(h, X.shape[1], nu)
    nearest, sums = interpreted("direct_sums", *operands, profile, leave_out, **options)
    assert nearest.dtype == sums.dtype == np.float64
    expected, nearest_sq = oracles.log_kernel_sums(X, Y, weights, h, nu, leave_out)
    delta = 2.0 * eps * (sq[0] + sq[1].max(initial=0.0))
    there = np.isfinite(nearest_sq)
    assert np.all(nearest[~there] == np.inf)
    assert np.all(sums[~there] == 0.0)
    assert np.all(np.abs(nearest[there] - nearest_sq[there]) <= delta[there])
    power, energy = 2 ** (profile.length - 1), nearest[there, None] / h**2
    if nu is None:
        logs, slope = -0.5 * energy, 0.5
    else:
        power = slope = 0.5 * (nu + X.shape[1])
        logs = -power * np.log1p(energy / nu)
    error = np.abs(np.log(sums[there]) + logs - expected[there])
    allowed = 2.0 * slope * delta[there, None] / h**2 + 8.0 * power * eps
    assert np.all(error <= allowed + 2.0 * eps * np.abs(logs))
    return nearest, sums


SHAPES = [(1, 1, 1), (17, 129, 3), (65, 64, 16), (5, 130, 40), (66, 129, 64)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nu", [None, 3.0])
@pytest.mark.parametrize("n_rows, n_points, n_features", SHAPES)
def test_direct_sums(interpreted, n_rows, n_points, n_features, nu, dtype):
    rng = np.random.default_rng(n_features)
    X, Y, weights = problem(rng, n_rows, n_points, n_features, dtype)
    check_direct(interpreted, X, Y, weights, 0.4 * np.sqrt(n_features), nu)


@settings(max_examples=20, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(0, 140), st.integers(1, 64)),
    log_h=st.floats(-12.0, 12.0),
    log_distance=st.floats(-3.0, 7.0),
    nu=st.sampled_from([None, 1.0, 30.0]),
    seed=st.integers(0, 9),
)
def test_direct_sums_whatever_h(interpreted, shape, log_h, log_distance, nu, seed):
    """Also of queries far away, without the point of their own number."""
    rng = np.random.default_rng(seed)
    X, Y, weights = problem(rng, *shape, "float32")
    X *= np.float32(10.0**log_distance)
    leave_out = rng.integers(-1, shape[1], shape[0])
    check_direct(interpreted, X, Y, weights, 10.0**log_h, nu, leave_out)


def test_the_nearest_point_is_all_where_h_is_tiny(interpreted):
    X, Y, weights = problem(np.random.default_rng(0), 17, 129, 3, "float32")
    sq = np.sum((X[:, None] - Y).astype(np.float64) ** 2, axis=2)
    _, sums = check_direct(interpreted, X, Y, weights, 1e-30)
    np.testing.assert_array_equal(sums[:, 0], weights[sq.argmin(axis=1)])


@pytest.mark.parametrize("nu", [None, 2.0])
def test_all_points_count_where_h_is_huge(interpreted, nu):
    X, Y, weights = problem(np.random.default_rng(0), 17, 129, 3, "float32")
    _, sums = check_direct(interpreted, X, Y, weights, 1e30, nu)
    np.testing.assert_allclose(sums[:, 0], weights.astype(float).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    "h",
    [
        0.5 * np.sqrt(2.0) ** np.arange(32),
        np.geomspace(0.5, 8.0, 5),
        np.r_[0.5 * np.sqrt(2.0) ** np.arange(3), 0.7, 0.9],
    ],
    ids=["chains of eight", "chains of one", "chains of three and one"],
)
def test_grids_of_bandwidths(interpreted, h):
    rng = np.random.default_rng(0)
    X, Y, weights = problem(rng, 66, 130, 5, "float32")
    leave_out = np.arange(-1, 65)
    check_direct(interpreted, X, Y, weights, rng.permutation(h), None, leave_out)


@pytest.mark.parametrize("nu", [None, 3.0])
@pytest.mark.parametrize("n_parts", [1, 2, 5, 1000])
def test_parts_of_the_points_merge(interpreted, n_parts, nu):
    """The nearest point is in another part for each query; some parts add nothing."""
    rng = np.random.default_rng(0)
    X, Y, weights = problem(rng, 17, 400, 2, "float32")
    Y, X = 30.0 * Y, 30.0 * X
    h = [1.0, np.sqrt(2.0)] if nu is None else 1.0
    check_direct(interpreted, X, Y, weights, h, nu, n_parts=n_parts)


@pytest.mark.parametrize("nu", [None, 3.0])
def test_squared_distances_are_not_negative(interpreted, nu):
    """Though rounding makes those of far points to themselves so."""
    _, Y, weights = problem(np.random.default_rng(0), 1, 129, 5, "float32")
    Y += np.float32(50.0)
    nearest, _ = check_direct(interpreted, Y[:17], Y, weights, 1e-4, nu)
    assert np.all(nearest >= 0.0)


def test_rows_without_points(interpreted):
    X, Y, weights = problem(np.random.default_rng(0), 3, 1, 2, "float32")
    leave_out = np.array([0, -1, 0])
    nearest, _ = check_direct(interpreted, X, Y, weights, 1.0, None, leave_out)
    assert np.isinf(nearest).tolist() == [True, False, True]
    nearest, sums = check_direct(interpreted, X, Y[:0], weights[:0], [1.0, 2.0])
    assert sums.shape == (3, 2)
    assert np.isinf(nearest).all()


def test_small_terms_are_not_lost(interpreted):
    """Each block adds less than the last digit of a float32 sum, and all together 20."""
    weights = np.full(64 * 128, 3e-10, dtype=np.float32)
    weights[0] = 1.0
    X, Y = np.zeros((1, 1), np.float32), np.zeros((len(weights), 1), np.float32)
    zeros = np.zeros(len(Y), np.float32)
    expected = weights.sum(dtype=np.longdouble)
    operands = X, zeros[:1], Y, zeros, weights
    _, sums = interpreted("direct_sums", *operands, profile_of(1.0, 1))
    assert abs(sums[0, 0] / expected - 1.0) < 4.0 * np.finfo(np.float32).eps
    sums, _ = interpreted("tile_sums", zeros[None], weights)
    assert abs(sums[0] / expected - 1.0) < 4.0 * np.finfo(np.float32).eps


def test_operands_may_be_views(interpreted):
    """Sums are the same of rows beside other columns, or arranged for programs."""
    X, Y, weights = problem(np.random.default_rng(0), 17, 129, 5, "float32")
    expected = check_direct(interpreted, X, Y, weights, 1.0)
    wide = [np.hstack([A, A[:, :2]])[:, :5] for A in (X, Y)]
    arranged = interpreted("arranged", Y)
    columns = np.asfortranarray(X)
    for queries, points in (wide, (columns, arranged)):
        found = check_direct(interpreted, queries, points, weights, 1.0)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def tile_problem(dtype, n_rows, n_cols, student):
    """Return a tile with pairs left out, weights, the exponent, and logs of values."""
    rng = np.random.default_rng(n_rows)
    X, Y, weights = problem(rng, n_rows, n_cols, 3, dtype)
    product = 0.5 * np.sum((X[:, None] - Y) ** 2, axis=2)
    if student:
        product = 1.0 + product
    else:
        product = product.min(axis=1, keepdims=True) + np.float32(0.5) - product
    product[np.arange(1, n_rows), np.arange(1, n_rows) % n_cols] = (
        np.inf if student else -np.inf
    )
    exponent = 3.5 if student else None
    with np.errstate(divide="ignore"):
        logs = product.astype(np.longdouble)
        logs = -exponent * np.log(logs) if student else logs
    return product, weights, exponent, logs


def finite(logs):
    return np.where(np.isfinite(logs), logs, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("student", [False, True], ids=["gaussian", "student"])
@pytest.mark.parametrize("n_rows, n_cols", [(1, 1), (17, 129), (33, 64), (3, 4500)])
def test_tile_sums(interpreted, n_rows, n_cols, student, dtype):
    """A row whose only pair is left out has no sum, and others lack theirs."""
    product, weights, exponent, logs = tile_problem(dtype, n_rows, n_cols, student)
    sums, extreme = interpreted("tile_sums", product, weights, exponent)
    logs -= finite(logs.max(axis=1, keepdims=True))
    expected = np.exp(logs) @ weights.astype(np.longdouble)
    assert sums.dtype == np.float64
    assert extreme.dtype == dtype
    rtol = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(sums, expected.astype(float), rtol=rtol)
    nearest = product.min(axis=1) if student else product.max(axis=1)
    np.testing.assert_array_equal(extreme, nearest)


def test_tile_sums_on_a_grid(interpreted):
    """The product is then that for all bandwidths, and need not be in one piece."""
    product, weights, _, logs = tile_problem("float32", 17, 129, False)
    h = np.array([1.0, np.sqrt(2.0), 2.0, 0.9])
    columns = np.asfortranarray(product)
    for tile in (product, columns):
        profile = profile_of(h, 3)
        sums, extreme = interpreted("tile_sums", tile, weights, None, profile)
        apart = logs - finite(logs.max(axis=1, keepdims=True))
        for g in range(len(h)):
            expected = np.exp(apart / (2.0 * h[g] ** 2)) @ weights
            np.testing.assert_allclose(sums[:, g], expected.astype(float), rtol=2e-6)
        np.testing.assert_array_equal(extreme, product.max(axis=1))


@pytest.mark.parametrize("student", [False, True], ids=["gaussian", "student"])
def test_tile_sums_are_never_out_of_range(interpreted, student):
    """However much nearer a later point is; and no number is found, where it is."""
    product, weights, exponent, _ = tile_problem("float32", 5, 300, student)
    expected, _ = interpreted("tile_sums", product, weights, exponent)
    product[1, 200], product[2, [3, 4]] = (1e-30, 1e-30) if student else (1e4, 1e30)
    product[3, 5] = np.nan
    sums, _ = interpreted("tile_sums", product, weights, exponent)
    np.testing.assert_array_equal(sums[[0, 4]], expected[[0, 4]])
    np.testing.assert_allclose(sums[1], weights[200], rtol=1e-6)
    np.testing.assert_allclose(sums[2], weights[3] + weights[4], rtol=1e-6)
    assert np.isinf(sums[3])


@pytest.mark.parametrize("name", ["exponential", "tophat"])
def test_other_kernels_have_no_fused_sums(name):
    assert Profile.of(make_kernel(name, 3), 1.0) is None


def test_student_of_a_high_power_or_on_a_grid_has_no_fused_sums():
    assert Profile.of(make_kernel("student", 3, 1e4), 1.0) is None
    assert Profile.of(make_kernel("student", 3, 4.0), [1.0, 2.0]) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_usable_where_both_kernels_work(interpreted, dtype):
    assert interpreted("usable", "cpu", getattr(torch, dtype)) is True


def test_not_usable_without_a_gpu(monkeypatch):
    monkeypatch.setattr(triton_kernels, "INTERPRETED", False)
    assert not triton_kernels.usable("cpu")
    assert not triton_kernels.usable("meta")


@pytest.fixture
def pretended(monkeypatch):
    """The CPU counts as a device for kernels that nobody has tried yet."""
    monkeypatch.setattr(triton_kernels, "INTERPRETED", True)
    monkeypatch.setattr(triton_kernels, "_WORKS", {})
    return monkeypatch


def plain_direct_sums(x, x_sq, y, y_sq, weights, profile, leave_out):
    sq = (x[:, None] - y).square().sum(2)
    sq[torch.arange(len(x)), leave_out] = torch.inf
    nearest = sq.amin(1)
    logs = profile.log2_factors(nearest[:, None], sq)
    powers = range(1, profile.width + 1)
    sums = [torch.exp2(power * logs[0]) @ weights for power in powers]
    return nearest.double(), torch.stack(sums, 1).double()


def plain_tile_sums(product, weights, exponent=None, profile=None):
    extreme = product.amin(1) if exponent else product.amax(1)
    if exponent:
        values = (product / extreme[:, None]) ** -exponent
    else:
        values = torch.exp(product - extreme[:, None])
    return (values @ weights).double(), extreme


@pytest.fixture
def plain(pretended):
    """Plain torch in place of the kernels."""
    plain = {"direct_sums": plain_direct_sums, "tile_sums": plain_tile_sums}
    for name, function in plain.items():
        pretended.setattr(triton_kernels, name, function)
    return plain


def test_usable_where_results_are_right(plain):
    assert triton_kernels.usable("cpu")


@pytest.mark.parametrize("name", ["direct_sums", "tile_sums"])
@pytest.mark.parametrize("output", [0, 1])
def test_wrong_results_are_found(plain, pretended, name, output):
    def wrong(*arguments):
        results = list(plain[name](*arguments))
        results[output] = results[output] * 1.01
        return results

    pretended.setattr(triton_kernels, name, wrong)
    with pytest.warns(UserWarning, match="results are wrong by"):
        assert not triton_kernels.usable("cpu")
    assert not triton_kernels.usable("cpu")


def test_kernels_that_fail_are_told_once(pretended):
    """Threads ask at the same time."""

    def fail(*arguments):
        raise RuntimeError("no ptxas\nat line 3")

    pretended.setattr(triton_kernels, "direct_sums", fail)
    answers = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [
            threading.Thread(target=lambda: answers.append(triton_kernels.usable("cpu")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [False] * 4
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "do not work on cpu for torch.float32: RuntimeError: no ptxas. " in message
    assert "plain torch" in message


def test_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location("without", triton_kernels.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.usable("cuda")


PTXAS = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Calls compile their kernels for an H100, and run none; here are the kernels."""
    if not PTXAS.exists() or triton_kernels.INTERPRETED:
        pytest.skip("Triton has no compiler for this, or interprets")
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    card = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: "pretended",
        get_current_stream=lambda device: 0,
    )
    run, found = triton.JITFunction.run, []

    def only_compile(self, *arguments, grid, warmup, **options):
        found.append(run(self, *arguments, grid=grid, warmup=True, **options))

    monkeypatch.setattr(triton.JITFunction, "run", only_compile)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", card)
    return found


def spilled_bytes(ptx, folder):
    """Return the bytes of registers that go to memory, as the assembler counts them."""
    file = folder / "kernel.ptx"
    file.write_text(ptx)
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE).group(1)
    command = [PTXAS, "-v", f"-arch={target}", file, "-o", folder / "kernel.cubin"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", result.stderr)
    assert len(spills) == 2
    return sum(map(int, spills))


def check_compiled(kernel, dtype, folder):
    assert kernel.metadata.shared <= 48 * 1024
    assert spilled_bytes(kernel.asm["ptx"], folder) <= 64
    assert "tf32" not in kernel.asm["ptx"]
    # matrix units are for float64 alone: they multiply float32 in TF32
    assert dtype == "float64" or "mma" not in kernel.asm["ptx"]


def compile_direct(n_rows, n_features, profile, dtype, leave_out=False):
    X = torch.zeros((n_rows, n_features), dtype=getattr(torch, dtype))
    rows = torch.zeros(n_rows, dtype=torch.int64) if leave_out else None
    triton_kernels.direct_sums(X, X[:, 0], X, X[:, 0], X[:, 0], profile, rows)


EIGHT = np.sqrt(2.0) ** np.arange(8)


@pytest.mark.parametrize(
    "n_rows, n_features, h, nu, dtype",
    [(1, 1, 1.0, None, "float32"), (64, 64, EIGHT, None, "float32")],
)
def test_direct_sums_compile(compiled, tmp_path, n_rows, n_features, h, nu, dtype):
    """With a single row and feature, arguments that are 1 are constants."""
    compile_direct(n_rows, n_features, profile_of(h, n_features, nu), dtype)
    check_compiled(compiled[0], dtype, tmp_path)


def test_tile_sums_compile(compiled, tmp_path):
    triton_kernels.tile_sums(torch.zeros((32, 256)), torch.zeros(256))
    check_compiled(compiled[0], "float32", tmp_path)


LAWS = [(EIGHT[:1], None), (EIGHT, None), (1.0, 3.0)]


@pytest.mark.slow
@pytest.mark.parametrize("law", range(len(LAWS)))
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_tile_sums_compile(compiled, tmp_path, dtype, law):
    h, nu = LAWS[law]
    tile = torch.zeros((32, 256), dtype=getattr(torch, dtype))
    profile = profile_of(h, 16, nu)
    triton_kernels.tile_sums(tile, tile[0], 2.0 if nu else None, profile)
    check_compiled(compiled[0], dtype, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("n_features", [16, 64])
@pytest.mark.parametrize("law", range(len(LAWS)))
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_direct_sums_compile(compiled, tmp_path, dtype, law, n_features):
    """Half of them leave pairs out: any two of four settings meet."""
    h, nu = LAWS[law]
    leave_out = (DTYPES.index(dtype) + law + n_features // 64) % 2 == 1
    compile_direct(64, n_features, profile_of(h, n_features, nu), dtype, leave_out)
    check_compiled(compiled[0], dtype, tmp_path)
