"""Sums over near points and over random samples, apart from the estimator."""

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skhdkde._approximation.near_far_sum import NearFarSum
from skhdkde._approximation.subsample import (
    DistanceMoments,
    SampleMoments,
    Sampler,
    SampleSums,
    _inclusion,
    positions,
)
from skhdkde._kernels import KERNELS
from skhdkde._pairwise import (
    ComputeOptions,
    LogSumExp,
    ReductionSpec,
    TrainingPoints,
    reduce_pairs,
)

BACKENDS = ["numpy", "torch"]
NUMPY = ComputeOptions()


def make(n=3000, d=6, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.pareto(1.5, size=n) + 0.1 if weighted else None
    points = TrainingPoints(rng.standard_normal((n, d)) + 3.0, weights)
    return points, rng.standard_normal((40, d)) + 3.0


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_of_all_distances(weighted):
    points, X = make(weighted=weighted)
    rows = np.arange(100, 2500)
    moments, queries = DistanceMoments(points, rows), points.as_queries(X)
    block = points.query_block(queries[:], np.dtype(float))
    mean, sd = moments.mean_and_scale(block)
    sq = np.sum((queries[:][:, None] - points.exact[rows]) ** 2, axis=2)
    w = None if points.weights is None else points.weights[rows]
    expected = np.average(sq, axis=1, weights=w)
    assert_allclose(mean, expected, rtol=1e-10)
    variance = np.average((sq - expected[:, None]) ** 2, axis=1, weights=w)
    assert_allclose(sd, np.sqrt(variance), rtol=1e-6)


def test_inclusion_is_in_proportion_and_at_most_one():
    weights = np.array([1.0, 2.0, 3.0, 50.0, 100.0])
    inclusion = _inclusion(weights, 3)
    assert_allclose(inclusion, [1 / 6, 2 / 6, 3 / 6, 1.0, 1.0])
    assert_allclose(_inclusion(weights, 5), 1.0)


def moments_of(sampler, size, queries, kernel, h, gone):
    sample = sampler.draw(0, size)
    spec = ReductionSpec(kernel, h, sampler.points, sampler.points.dtype)
    reduction, left_out = SampleSums(spec, sample), positions(sample.rows, gone)
    columns = reduce_pairs(reduction, queries, sample.points, NUMPY, leave_out=left_out)
    return SampleMoments.from_columns(columns, reduction.n_variables, size, size)


def estimate(points, size, X, kernel, h, gone, seed):
    """Total, standard deviation and truth relative to the same energy, for each query."""
    sampler = Sampler(points, np.arange(points.shape[0]), seed)
    queries = points.as_queries(X)
    moments = moments_of(sampler, size, queries, kernel, h, gone)
    sq = np.sum((queries[:][:, None] - points.exact) ** 2, axis=2)
    w = np.ones(points.shape[0]) if points.weights is None else points.weights
    w = np.tile(w, (len(sq), 1))
    np.put_along_axis(w, gone, 0.0, 1)
    mass = w.sum(axis=1)
    controls = sampler.distances.controls(
        sq, points.query_block(queries[:], np.dtype(float))
    )
    means = np.column_stack([(w * c).sum(axis=1) / mass for c in controls])
    factor = sampler.finite_population_factor(size)
    total, variance, _ = moments.regression_estimate(mass, means, factor)
    truth = (w * np.exp((moments.lowest[:, None] - sq) / (2 * h**2))).sum(axis=1)
    return total / truth, np.sqrt(variance) / truth


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("h", [1.0, 4.0])
def test_samples_are_right_on_average_and_say_how_far_off(h, weighted):
    points, X = make(weighted=weighted)
    h = h * points.scale
    near = np.argsort(np.sum((X[:, None] * points.scale - points.exact) ** 2, axis=2))
    gone = near[:, :20]
    runs = [
        estimate(points, 500, X, KERNELS["gaussian"], h, gone, seed) for seed in range(60)
    ]
    ratio, stated = (np.array(values) for values in zip(*runs, strict=True))
    spread = ratio.std(axis=0, ddof=1)
    # 60 runs: the mean is known to spread / 8, the spread to 9 %
    assert np.abs((ratio.mean(axis=0) - 1.0) / (spread / np.sqrt(60))).max() < 4.5
    assert np.median(np.sqrt((stated**2).mean(axis=0)) / spread) == pytest.approx(
        1, abs=0.2
    )


def test_regression_removes_variance_where_the_kernel_is_flat():
    points, X = make()
    h, gone = 6.0 * points.scale, np.full((40, 1), 0)
    ratio, _ = zip(
        *(estimate(points, 500, X, KERNELS["gaussian"], h, gone, s) for s in range(20)),
        strict=True,
    )
    sq = np.sum((X[:, None] - points.in_data_units(slice(None))) ** 2, axis=2)
    values = np.exp(-sq / (2 * 6.0**2))
    plain = values.std(axis=1) / values.mean(axis=1) * np.sqrt((1 - 500 / 3000) / 500)
    assert np.median(np.std(ratio, axis=0) / plain) < 0.1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
def test_a_sample_of_everything_is_everything(kernel, weighted):
    points, X = make(n=300, weighted=weighted)
    h, gone = 2.0 * points.scale, np.array([[3, 5, -1]] * 40)
    sampler = Sampler(points, np.arange(300), 0)
    kernel, queries = KERNELS[kernel], points.as_queries(X)
    moments = moments_of(sampler, 300, queries, kernel, h, gone)
    mass = points.total_weight() - (2.0 if not weighted else points.weights[[3, 5]].sum())
    factor = sampler.finite_population_factor(300)
    means = moments.sums[:, 1:] / moments.weight[:, None]
    total, variance, _ = moments.regression_estimate(np.full(40, mass), means, factor)
    assert_array_equal(variance, 0.0)
    reduction = LogSumExp(ReductionSpec(kernel, h, points, points.dtype))
    exact = reduce_pairs(reduction, queries, points, NUMPY, leave_out=gone)[:, 0]
    peak = kernel.log_peak(moments.lowest, np.array([h]))[:, 0]
    with np.errstate(divide="ignore"):
        assert_allclose(np.log(total) + peak, exact, rtol=1e-9, atol=1e-9)


def test_samples_drawn_bit_by_bit_are_those_drawn_at_once():
    points, X = make()
    near_far, nobody = NearFarSum(points, np.empty(0, dtype=int), 0), np.full(40, -1)
    spec = ReductionSpec(KERNELS["gaussian"], 0.5 * points.scale, points, points.dtype)
    no_ids, queries = np.empty((40, 0), dtype=int), points.as_queries(X)
    batch = near_far.batch(spec, queries, nobody, np.zeros(40), no_ids, NUMPY)
    at_once = batch.moments(2000)
    bit_by_bit = batch.moments(2000, batch.moments(700))
    assert (at_once.n_new, bit_by_bit.n_new) == (2000, 1300)
    assert_allclose(bit_by_bit.columns(), at_once.columns(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_over_samples_on_every_backend(dtype, backend):
    pytest.importorskip("torch" if backend == "torch" else "numpy")
    points, X = make(weighted=True)
    points = TrainingPoints(
        points.in_data_units(slice(None)).astype(dtype), points.weights
    )
    sample = Sampler(points, np.arange(3000), 0).draw(0, 1000)
    h, queries = 0.8 * points.scale, points.as_queries(X.astype(dtype))
    reduction = SampleSums(
        ReductionSpec(KERNELS["gaussian"], h, points, dtype, 1e-3), sample
    )
    columns = reduce_pairs(reduction, queries, sample.points, ComputeOptions(backend))
    found = SampleMoments.from_columns(columns, reduction.n_variables, 1000, 1000)
    own = sample.points
    sq = np.sum((queries[:][:, None] - own.exact.astype(float)) ** 2, axis=2)
    values = np.exp((sq.min(axis=1)[:, None] - sq) / (2 * h**2))
    rtol = 1e-9 if dtype == np.float64 else 1e-3
    assert_allclose(found.lowest, sq.min(axis=1), rtol=rtol)
    assert_allclose(found.weight, own.weights.sum(), rtol=rtol)
    assert_allclose(found.sums[:, 0], values @ own.weights, rtol=rtol)
    b = sample.variance_weights
    assert_allclose(found.products[:, 0], values**2 @ b, rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distances_to_listed_points(dtype):
    """By differences: also where products would lose them."""
    rng = np.random.default_rng(0)
    Y = (rng.standard_normal((500, 20)) * 1e-3 + 1e3).astype(dtype)
    points = TrainingPoints(Y)
    near_far = NearFarSum(points, np.array([], dtype=int), 0)
    X, h = Y[:10] + dtype(1e-3), 1e-3
    ids = np.array([rng.choice(500, 30, replace=False) for _ in X])
    ids[:, -1] = -1
    spec = ReductionSpec(KERNELS["gaussian"], h * points.scale, points, dtype, 1e-5)
    queries, nobody = points.as_queries(X), np.full(10, -1)
    batch = near_far.batch(spec, queries, nobody, np.zeros(10), ids, NUMPY)
    for x, own, log_sum in zip(X, ids[:, :-1], batch.listed(), strict=True):
        sq = oracles.squared_distances(x, Y[own])
        assert_allclose(log_sum, float(np.log(np.exp(-sq / (2 * h**2)).sum())), atol=1e-4)
