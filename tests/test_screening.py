"""Float64 sums from float32 tiles: as precise as promised, and only where that pays."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import oracles
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skhdkde import HighDimKernelDensity
from skhdkde._kernels import make_kernel
from skhdkde._pairwise import (
    ComputeOptions,
    LogSumExp,
    ReductionSpec,
    TrainingPoints,
    backends,
    reduce_pairs,
    screening,
)
from skhdkde._pairwise.backends import NumpyDevice
from skhdkde._pairwise.points import QueryBlock
from skhdkde._pairwise.screening import Screening

N_QUERIES, N_POINTS, N_FEATURES = 80, 700, 260
TILE = 100
# Of queries that are nearly points, and of others.
CHECKED = np.r_[:4, 70:80]


@pytest.fixture
def visits(monkeypatch):
    """The screenings of blocks that were made, in tiles of few points."""
    monkeypatch.setattr(NumpyDevice, "tile_cols", TILE)
    # as if it paid for any number of pairs
    monkeypatch.setattr(screening, "WORTH", np.inf)
    made, of = [], Screening.of

    def of_block(*args):
        found = of(*args)
        made.append(found)
        return found

    monkeypatch.setattr(backends.Screening, "of", of_block)
    return made


@pytest.fixture
def n_exact(monkeypatch):
    """Numbers of pairs that were made of differences, tile by tile."""
    numbers, exact_values = [], Screening._exact_values

    def counted(self, rows, *args):
        numbers.append(len(rows))
        return exact_values(self, rows, *args)

    monkeypatch.setattr(Screening, "_exact_values", counted)
    return numbers


def rows(kind, n, rng):
    """Float64 rows of a kind, whose distances are like those of normal ones or less."""
    X = rng.standard_normal((n, N_FEATURES))
    if kind == "shifted":
        X += 1e4
    elif kind == "clusters":
        centers = 4.0 * rng.standard_normal((3, N_FEATURES))
        X = 0.3 * X + centers[rng.integers(3, size=n)]
    elif kind == "heavy tails":
        X /= np.sqrt(rng.chisquare(3, size=(n, 1)) / 3)
    elif kind == "positive":
        X = np.exp(0.5 * X)
    elif kind == "sparse":
        X *= 7.0 * (rng.random(X.shape) < 0.02)
    elif kind == "equal features":
        X = np.repeat(X[:, :1], N_FEATURES, axis=1) + 0.01 * X
    elif kind == "one large feature":
        X[:, 0] *= 100.0
    return X


KINDS = (
    "normal",
    "shifted",
    "clusters",
    "heavy tails",
    "positive",
    "sparse",
    "equal features",
    "one large feature",
)


def problem(kind, seed=0):
    """Queries, of which some are nearly points, points and a bandwidth near the best."""
    rng = np.random.default_rng(seed)
    Y = rows(kind, N_POINTS, rng)
    X = rows(kind, N_QUERIES, rng)
    X[:10] = Y[:10] + 1e-7 * rng.standard_normal((10, N_FEATURES))
    sq = np.sort(((X[-10:, None] - Y[None, :]) ** 2).sum(axis=2), axis=1)
    return X, Y, float(np.sqrt(0.06 * np.median(sq[:, 1]) / N_FEATURES**0.5))


KERNELS = {"gaussian": np.inf, "student": 5.0}


def reduction(kernel, h, points):
    """The log sum of a kernel, and its error that is promised."""
    profile = make_kernel(kernel, points.shape[1], KERNELS[kernel])
    spec = ReductionSpec(profile, h * points.scale, points, np.dtype(np.float64))
    return LogSumExp(spec)


def log_sums(X, points, h, kernel="gaussian", leave_out=None):
    """Log sums of the package."""
    queries, options = points.as_queries(X), ComputeOptions(n_jobs=1)
    found = reduction(kernel, h, points)
    return reduce_pairs(found, queries, points, options, leave_out=leave_out)[:, 0]


def screened(X, points, h):
    """The screening of queries over tiles of all points, or None."""
    tiles = [slice(i, i + TILE) for i in range(0, N_POINTS, TILE)]
    block = QueryBlock(points.as_queries(X)[:], points, None, np.float64)
    found = reduction("gaussian", h, points)
    return Screening.of(found, block, points, tiles, NumpyDevice())


def expected(X, Y, h, kernel="gaussian", weights=None, leave_out=None):
    """Log sums of the queries that are checked, in extended precision."""
    X = X[CHECKED]
    leave_out = None if leave_out is None else leave_out[CHECKED]
    nu = KERNELS[kernel] if kernel == "student" else None
    weights = np.ones(len(Y)) if weights is None else weights
    sums, _ = oracles.log_kernel_sums(X, Y, weights, [h], nu, leave_out)
    return sums[:, 0].astype(float)


def assert_precise(result, expected):
    assert_allclose(result[CHECKED], expected, rtol=4e-15, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_promised_precision(kind, kernel, visits):
    X, Y, h = problem(kind)
    assert_precise(log_sums(X, TrainingPoints(Y), h, kernel), expected(X, Y, h, kernel))
    weights = 10.0 ** np.random.default_rng(1).uniform(-6, 0, N_POINTS)
    result = log_sums(X, TrainingPoints(Y, weights), h, kernel)
    assert_precise(result, expected(X, Y, h, kernel, weights))
    assert len(visits) == 2
    assert all(visits)


def blurred(case):
    """Queries, points and a bandwidth at which float32 does not say what is near."""
    X, Y, h = problem("normal")
    if case == "tight clusters":
        X, Y = (np.where(Z[:, :1] > 0.0, 1.0, -1.0) / 3.0 + 1e-5 * Z for Z in (X, Y))
        h *= 1e-5
    elif case == "far queries":
        X *= 1e7
        h *= 0.1
    elif case == "duplicates":
        X[:N_QUERIES] = Y[:N_QUERIES]
        h *= 1e-4
    elif case == "one point":
        Y[:] = Y[0]
        X[:40] = Y[0]
        h *= 1e-3
    return X, Y, h


BLURRED = "tight clusters", "far queries", "duplicates", "one point"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", BLURRED)
def test_rows_in_which_float32_says_nothing(case, kernel, visits):
    """Exact values relative to float32's nearest would overflow or vanish there."""
    X, Y, h = blurred(case)
    assert_precise(log_sums(X, TrainingPoints(Y), h, kernel), expected(X, Y, h, kernel))
    assert all(visits)


def test_not_where_float32_says_nothing(monkeypatch):
    monkeypatch.setattr(screening, "PAIR_COST", 1e-9)
    X, Y, h = blurred("tight clusters")
    assert screened(X, TrainingPoints(Y), h) is None


def test_weights_count_where_pairs_are_taken_out(visits, n_exact):
    """Values of all points are above a share of the sum of small weights."""
    X, Y, h = problem("normal")
    weights = np.full(N_POINTS, 1e-9)
    weights[0] = 1.0
    Y[0] += 3.0
    points = TrainingPoints(Y, weights)
    assert_precise(log_sums(X, points, h), expected(X, Y, h, weights=weights))
    weighted = sum(n_exact)
    n_exact.clear()
    log_sums(X, TrainingPoints(np.delete(Y, 0, axis=0)), h)
    assert weighted <= 1.5 * sum(n_exact)
    assert all(visits)


def test_tiles_may_have_more_pairs_that_matter_than_those_tried(n_exact, monkeypatch):
    """Then float64 is used for all, and not differences."""
    X, Y, h = problem("normal")
    Y[TILE : 4 * TILE] = Y[TILE] + 1e-3 * Y[TILE : 4 * TILE]
    X = Y[TILE] + 0.1 * X
    monkeypatch.setattr(NumpyDevice, "tile_cols", TILE)
    monkeypatch.setattr(screening, "PAIR_COST", 1.0)
    found = screened(X, TrainingPoints(Y), h)
    assert found is not None
    assert_precise(log_sums(X, TrainingPoints(Y), h), expected(X, Y, h))
    assert sum(n_exact) < 0.75 * N_QUERIES * N_POINTS


def test_points_left_out(visits):
    X, Y, h = problem("clusters")
    X = Y[:N_QUERIES]
    left = np.arange(N_QUERIES)
    left[::3] = -1
    result = log_sums(X, TrainingPoints(Y), h, leave_out=left)
    assert_precise(result, expected(X, Y, h, leave_out=left))
    assert all(visits)


@examples(12)
@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), log_h=st.floats(-1, 1)
)
def test_errors_are_within_their_bound(seed, kind, log_h):
    """The errors of all values of a tile that are not next to nothing."""
    X, Y, h = problem(kind, seed)
    h *= 10.0**log_h
    weights = 10.0 ** np.random.default_rng(seed).uniform(-20, 0, N_POINTS)
    weights /= weights.max()
    for kernel in KERNELS:
        points = TrainingPoints(Y, weights)
        queries = points.as_queries(X)[:]
        found = reduction(kernel, h, points)
        block = QueryBlock(queries, points, None, np.float64)
        of_block = Screening(found, block, points, NumpyDevice())
        values, lowest = of_block._values(slice(0, N_POINTS), np.inf)
        sq = np.array([((Y * points.scale - x) ** 2).sum(axis=1) for x in queries])
        kernel, (h_scaled,) = found.kernel, found.bandwidths
        shifted = kernel.shift(sq, lowest)
        exact = weights * kernel.values(shifted, h_scaled, shifted, lowest)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.abs(np.log(values.astype(float)) - np.log(exact))
        errors = np.where(exact > np.exp(-found.margin), errors, 0.0)
        errors[of_block.lost] = 0.0
        assert not of_block.lost.all()
        assert (errors <= of_block.errors[:, None]).all()


def test_rows_that_light_pairs_would_spoil_are_made_again(visits, monkeypatch):
    """Where no pair is heavy all errors are those of float32."""
    X, Y, h = problem("normal")
    again, visit_tiles = [], backends.visit_tiles

    def visit(reduction, queries, *args):
        again.append(len(queries.exact))
        return visit_tiles(reduction, queries, *args)

    monkeypatch.setattr(backends, "visit_tiles", visit)
    monkeypatch.setattr(Screening, "try_tiles", lambda *args: (2.0, 0.0))
    assert_precise(log_sums(X, TrainingPoints(Y), h), expected(X, Y, h))
    assert again == [N_QUERIES]


@pytest.mark.parametrize("factor, pays", [(1.0, True), (6.0, False)])
def test_only_where_few_pairs_matter(factor, pays, monkeypatch):
    X, Y, h = problem("normal")
    monkeypatch.setattr(screening, "PAIR_COST", 2.0)
    assert (screened(X, TrainingPoints(Y), factor * h) is not None) == pays


@pytest.mark.parametrize("case", ["float32", "few features", "small weight", "far query"])
def test_never_where_float32_cannot_hold_it(case, visits):
    X, Y, h = problem("normal")
    weights = np.ones(N_POINTS)
    if case == "float32":
        X, Y = X.astype(np.float32), Y.astype(np.float32)
    elif case == "few features":
        X, Y = X[:, :100], Y[:, :100]
    elif case == "small weight":
        weights[5] = 1e-30
    else:
        X[3] *= 1e30
    result = log_sums(X, TrainingPoints(Y, weights), h)
    assert np.isfinite(result).all()
    assert visits == [None]


def test_rows_in_float32_are_not_copied_or_pickled():
    points = TrainingPoints(problem("normal")[1])
    size = len(pickle.dumps(points))
    assert points.narrow.augmented.dtype == np.float32
    assert len(pickle.dumps(points)) == size
    few = points.subset(np.arange(5))
    assert len(few.narrow.augmented) == 5
    assert copy.copy(points)._narrow is None


CHILD = """
import multiprocessing, threading, warnings
import numpy as np
from skhdkde._pairwise import TrainingPoints
from skhdkde._pairwise.points import _narrowing

warnings.simplefilter("ignore")  # newer Pythons warn of fork beside threads
points = TrainingPoints(np.random.default_rng(0).standard_normal((50, 300)))
with _narrowing:
    child = multiprocessing.get_context("fork").Process(target=lambda: points.narrow)
    child.start()
child.join(30)
assert child.exitcode == 0, child.exitcode
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_child_forked_while_points_are_rounded():
    subprocess.run([sys.executable, "-c", CHILD], check=True, timeout=60)


def test_same_log_densities_by_threads(visits):
    X, Y, h = problem("normal")
    X = np.tile(X, (8, 1))
    one, two = (
        HighDimKernelDensity(bandwidth=h, n_jobs=n).fit(Y).score_samples(X)
        for n in (1, 2)
    )
    assert_allclose(one, two, rtol=4e-15, atol=2e-8)
    assert any(visits)
