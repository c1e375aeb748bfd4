"""What is computed over pairs, apart from the estimators."""

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from structured_oracle import log_kernel

from skhdkde._kernels import KERNELS, make_kernel
from skhdkde._pairwise import (
    ComputeOptions,
    KernelGridSums,
    KernelSetting,
    KSmallest,
    LogSumExp,
    Nearest,
    ReductionSpec,
    TrainingPoints,
    distinct_rows,
    log_sums,
    reduce_pairs,
)
from skhdkde._pairwise.reductions import squaring_chains

BACKENDS = ["numpy", "torch"]


def make(n=3000, d=6, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.pareto(1.5, size=n) + 0.1 if weighted else None
    points = TrainingPoints(rng.standard_normal((n, d)) + 3.0, weights)
    return points, rng.standard_normal((40, d)) + 3.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 7, 5000])
def test_nearest_are_those_of_a_sort(k, backend):
    pytest.importorskip("torch" if backend == "torch" else "numpy")
    points, _ = make()
    own = np.arange(40)
    queries = points.rows_as_queries(own)
    options = ComputeOptions(backend)
    found = reduce_pairs(Nearest(k, 1e-8), queries, points, options, leave_out=own)
    Y = points.exact
    sq = np.sum((Y[:40, None] - Y) ** 2, axis=2)
    sq[own, own] = np.inf
    order = np.argsort(sq, axis=1)[:, : min(k, 2999)]
    assert_array_equal(found[:, k : k + order.shape[1]], order)
    assert_allclose(
        found[:, : order.shape[1]], np.take_along_axis(sq, order, 1), rtol=1e-9
    )
    assert (found[:, k + order.shape[1] :] == -1.0).all()
    assert np.isinf(found[:, order.shape[1] : k]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_points_are_left_out(backend):
    pytest.importorskip("torch" if backend == "torch" else "numpy")
    points, X = make(weighted=True)
    rng = np.random.default_rng(1)
    gone = np.array([rng.choice(3000, 50, replace=False) for _ in X])
    gone[:, 40:] = -1
    spec = ReductionSpec(KERNELS["gaussian"], 0.7 * points.scale, points, points.dtype)
    queries, options = points.as_queries(X), ComputeOptions(backend)
    found = reduce_pairs(LogSumExp(spec), queries, points, options, leave_out=gone)[:, 0]
    for x, left_out, log_sum in zip(X, gone, found, strict=True):
        sq = oracles.squared_distances(x, points.in_data_units(slice(None)))
        terms = points.weights * np.exp(-sq / (2 * 0.7**2))
        terms[left_out[:40]] = 0.0
        assert_allclose(log_sum, float(np.log(terms.sum())), rtol=1e-8, atol=1e-8)


def test_duplicates_are_found_with_their_first():
    points, _ = make(n=50)
    Y = points.in_data_units(slice(None))
    first, group = distinct_rows(TrainingPoints(Y[[0, 1, 0, 2, 1, 0]]))
    assert_array_equal(first, [0, 1, 3])
    assert_array_equal(group, [0, 1, 0, 2, 1, 0])


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_log_sums_over_lists(kernel):
    rng = np.random.default_rng(0)
    sq, weights = np.sort(rng.uniform(size=(5, 9)), axis=1), rng.uniform(size=(5, 9))
    sq[2, 6:] = np.inf
    sq[3, :] = np.inf
    expected = [
        np.log(np.sum(w[f] * oracles.profile(kernel, s[f].astype(np.longdouble), 0.8)))
        if (f := np.isfinite(s)).any()
        else -np.inf
        for s, w in zip(sq, weights, strict=True)
    ]
    found = log_sums(KERNELS[kernel], 0.8, sq, weights)
    assert_allclose(found, np.array(expected, dtype=float), rtol=1e-12)


def test_k_smallest():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((700, 12)), rng.standard_normal((900, 12))
    points, options = TrainingPoints(Y), ComputeOptions()
    result = reduce_pairs(KSmallest(5, 1e-8), points.as_queries(X), points, options)
    expected = np.sort(((X[:, None] - Y) ** 2).sum(axis=2), axis=1)[:, :5]
    assert_allclose(result / points.scale**2, expected, rtol=1e-10)


def test_squaring_chains_cover_the_grid():
    grid = 0.3 * 2.0 ** (np.arange(32) / 16)
    chains = squaring_chains(grid, np.sqrt(2.0))
    assert sorted(g for chain in chains for g in chain) == list(range(32))
    assert len(chains) == 8
    for chain in chains:
        ratios = grid[chain[:-1]] / grid[chain[1:]]
        assert_allclose(ratios, np.sqrt(2.0))
    assert len(squaring_chains(np.geomspace(1, 3, 5), np.sqrt(2.0))) == 5


@pytest.mark.parametrize("scaled", [False, True])
def test_kernel_settings(each_backend, scaled):
    """Every setting of one pass against direct sums, with local scales and without."""
    rng, d = np.random.default_rng(0), 5
    Y, X = rng.standard_normal((70, d)), rng.standard_normal((6, d))
    weights = rng.uniform(0.1, 1.0, size=len(Y))
    weights[0] = 1.0
    local = rng.uniform(0.5, 2.0, size=len(Y)) if scaled else np.ones(len(Y))
    parameters = [("gaussian", None, 0.3, 0.9), ("gaussian", None, 1.0, 0.0)]
    parameters += [("student", 4.0, 0.5, 0.6), ("student", 4.0, 0.7, 1.0)]
    scales = {"sq_factor": local**-2.0, "sq_offset": np.zeros(len(Y))} if scaled else {}
    points = TrainingPoints(Y, weights, center=np.zeros(d), **scales)
    kernels = {nu: make_kernel(name, d, nu) for name, nu, _, _ in parameters}
    settings = [
        KernelSetting(kernels[nu], h * points.scale, a) for _, nu, h, a in parameters
    ]
    logs = -d * np.log(local)
    reduction = KernelGridSums(settings, 1e-8, logs - logs.max())
    options = ComputeOptions(each_backend)
    found = reduce_pairs(reduction, points.as_queries(X), points, options)
    for g, (name, nu, h, a) in enumerate(parameters):
        sq = ((X[:, None] - a * Y) ** 2).sum(axis=2) / (h * local) ** 2
        terms = log_kernel(name, nu, sq, d) - log_kernel(name, nu, 0.0, d)
        expected = np.log(np.exp(terms + logs - logs.max()) @ weights)
        assert_allclose(found[:, g], expected.astype(float), atol=1e-7)
