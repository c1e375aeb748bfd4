"""Hashes and sampling ranks of rows, and moments that merge."""

import functools
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from structured_oracle import weighted_ledoit_wolf

from skhdkde._density import shrink
from skhdkde._pairwise import TrainingPoints, distinct_rows, sorting_keys
from skhdkde._utils import arrays, hashing
from skhdkde._utils.arrays import DeviceArray
from skhdkde._utils.hashing import find_hashes, row_hashes
from skhdkde._utils.moments import Moments, Scatter
from skhdkde._utils.random import lowest, sampling_ranks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_rows_have_equal_hashes_wherever_they_are(dtype):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 300)).astype(dtype)
    X[::7] = X[0]
    hashes = row_hashes(X)
    assert len(np.unique(hashes[::7])) == 1
    assert len(np.unique(hashes)) == len(np.unique(X, axis=0))
    some = np.asfortranarray(X[3:2000:2])
    assert_array_equal(row_hashes(some), hashes[3:2000:2])


def as_on_a_gpu(X):
    return DeviceArray(pytest.importorskip("torch").as_tensor(X))


@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 7, 16, 2**20]),
    st.integers(0, 2**32 - 1),
)
@settings(derandomize=True, max_examples=40)
def test_which_rows_are_equal(n, d, dtype, block_size, seed):
    """In blocks of any size, in any order, as numpy's arrays and as tensors."""
    rng = np.random.default_rng(seed)
    entries = np.array([0.0, -0.0, 1.0, -1.0, 0.1, 1e-30, 255.0]).astype(dtype)
    X = rng.choice(entries, size=(n, d))
    order = rng.permutation(n)
    expected = np.unique(X, axis=0, return_inverse=True)[1].ravel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "SMALL_BLOCK_SIZE", block_size)
        patch.setattr(arrays, "GPU_BLOCK_SIZE", block_size)
        found, on_gpu = row_hashes(X[order]), row_hashes(as_on_a_gpu(X))
    hashes = row_hashes(X)
    assert_array_equal(hashes[:, None] == hashes, expected[:, None] == expected)
    assert_array_equal(found, hashes[order])
    assert_array_equal(on_gpu, hashes)


def test_duplicates_are_the_same_on_a_gpu(tensors_as_on_a_gpu):
    """Where sums of floats would differ with the block that a row is in."""
    X = np.random.default_rng(0).normal(size=(300, 33))
    X[200:] = X[rows := np.arange(0, 200, 2)]
    points, on_gpu = TrainingPoints(X), TrainingPoints(as_on_a_gpu(X))
    assert on_gpu.on_gpu
    assert_array_equal(sorting_keys(on_gpu), sorting_keys(points))
    for first, group in map(distinct_rows, (points, on_gpu)):
        assert_array_equal(first, np.arange(200))
        assert_array_equal(group[200:], rows)


def test_both_zeros_are_one():
    assert len(np.unique(row_hashes(np.array([[0.0, 1.0], [-0.0, 1.0]])))) == 1


@pytest.mark.parametrize(
    "X",
    [
        np.arange(100_000.0)[:, None],
        np.indices((300, 300)).reshape(2, -1).T * 1.0,
        np.random.default_rng(0).integers(0, 2, size=(2000, 64)) * 255.0,
        np.eye(1500),
        1.0 + np.finfo(float).eps * np.arange(10_000.0)[:, None],
        np.random.default_rng(0).integers(0, 2, size=(20_000, 30)) * 1.0,
    ],
)
def test_different_rows_have_different_hashes(X):
    """Also where all but a few bits are equal, or order is all that differs."""
    hashes = row_hashes(X)
    assert len(np.unique(hashes)) == len(np.unique(X, axis=0))
    # every bit is a fair coin
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5.0 * 0.5 / np.sqrt(len(X))


def test_sampling_ranks_are_a_random_order():
    first, other = (
        sampling_ranks(np.arange(20_000), 0),
        sampling_ranks(np.arange(20_000), 1),
    )
    assert len(np.unique(first)) == 20_000
    chosen = lowest(first, 500)
    assert_array_equal(chosen, np.sort(np.argsort(first)[:500]))
    # uniform over the indices, and another seed is another order
    assert abs(chosen.mean() - 10_000) < 5.0 * 20_000 / np.sqrt(12 * 500)
    assert len(np.intersect1d(chosen, lowest(other, 500))) < 40
    blocks = [sampling_ranks(np.arange(a, a + 5000), 0) for a in range(0, 20_000, 5000)]
    assert_array_equal(np.concatenate(blocks), first)


def test_all_of_few_are_lowest():
    assert_array_equal(lowest(sampling_ranks(np.arange(3), 0), 5), [0, 1, 2])


def test_rows_are_found_by_their_hashes():
    wanted = np.array([7, 3, 9], dtype=np.uint64)
    rows, place = find_hashes(np.array([1, 9, 3, 3, 10], dtype=np.uint64), wanted)
    assert_array_equal(rows, [1, 2, 3])
    assert_array_equal(place, [2, 1, 1])
    assert find_hashes(wanted, wanted[:0])[0].size == 0


def draws(n, weighted, shift=0.0, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.arange(1.0, d + 1) + shift
    return X, rng.exponential(size=n) if weighted else None


def merged(kind, X, weights, cuts):
    """Return what blocks between the cuts say, merged."""
    bounds = [0, *sorted(cuts), len(X)]
    found = [
        kind.of(X[a:b], None if weights is None else weights[a:b])
        for a, b in pairwise(bounds)
        if b > a
    ]
    return functools.reduce(kind.merge, found)


@given(st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_moments_of_blocks_are_those_of_all(cuts, weighted):
    X, weights = draws(200, weighted, shift=1e6)
    found = merged(Moments, X, weights, cuts)
    wide = X.astype(np.longdouble)
    shares = np.ones(200) if weights is None else weights
    mean = np.average(wide, axis=0, weights=shares)
    variance = np.average((wide - mean) ** 2, axis=0, weights=shares)
    assert found.n_points == 200
    assert_allclose(found.mean, mean.astype(float), rtol=1e-15)
    assert_allclose(found.variance, variance.astype(float), rtol=1e-9)
    assert_allclose(found.total * found.heaviest, shares.sum(), rtol=1e-13)
    assert_allclose(found.total_sq * found.heaviest**2, np.sum(shares**2), rtol=1e-13)
    assert found.lightest == shares.min()
    assert_array_equal(found.largest, np.abs(X).max(axis=0))


def test_moments_with_weights_far_apart():
    """Their sum as they are would be infinite."""
    X, _ = draws(100, False)
    weights = np.full(100, 1e308)
    found = merged(Moments, X, weights, [30])
    assert_allclose(found.variance, X.var(axis=0), rtol=1e-12)


@given(st.lists(st.integers(0, 200), max_size=4), st.booleans())
def test_scatter_of_blocks_gives_the_shrunk_covariance(cuts, weighted):
    X, weights = draws(200, weighted)
    found = merged(Scatter, X, weights, cuts)
    shares = np.full(200, 1.0 / 200) if weights is None else weights / weights.sum()
    expected = weighted_ledoit_wolf(X, shares)
    assert_allclose(shrink(*found.covariance()), expected, rtol=1e-10, atol=1e-12)
