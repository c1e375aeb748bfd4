"""Blocks of training points: any blocks give the results of one machine.

Graphs run in this thread here; ``test_dask_cluster.py`` has worker processes.
"""

import dask.array as da
import numpy as np
import oracles
import pytest
from dask_data import blocks, draws
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skhdkde import HighDimKernelDensity
from skhdkde._distributed import fit, tasks
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")
COLUMNS = (
    "log_density",
    "standard_error",
    "tail_index",
    "h_g",
    "h_clt",
    "effective_sample_size",
    "max_weight",
)


@pytest.fixture
def set_candidates(monkeypatch):
    """A function that sets how many points are looked at to find distinct ones."""

    def set_candidates(at_first, at_most=2**20):
        monkeypatch.setattr(fit, "N_CANDIDATES", at_first)
        monkeypatch.setattr(fit, "MOST_CANDIDATES", at_most)

    return set_candidates


@given(
    st.lists(st.integers(0, 60), max_size=6),
    st.lists(st.integers(0, 20), max_size=3),
    st.booleans(),
    st.sampled_from(oracles.KERNEL_NAMES),
)
@examples(20)
def test_any_blocks_give_the_sums_of_the_definition(cuts, query_cuts, weighted, kernel):
    """Empty blocks, blocks of one point, and queries in other blocks included."""
    X, weights, Q = draws(60, 4)
    Q, weights = Q[:20], weights if weighted else None
    h = 0.7 if kernel in ("gaussian", "exponential") else 2.5
    X_blocks = blocks(X, tuple(np.diff([0, *sorted(cuts), 60]).tolist()))
    Q_blocks = blocks(Q, tuple(np.diff([0, *sorted(query_cuts), 20]).tolist()))
    kde = DaskHighDimKernelDensity(bandwidth=h, kernel=kernel).fit(
        X_blocks, sample_weight=weights
    )
    expected = oracles.log_density(Q, X, h, kernel, weights)
    lazy = kde.score_samples(Q_blocks)
    assert isinstance(lazy, da.Array)
    assert lazy.chunks == Q_blocks.chunks[:1]
    assert_allclose(lazy.compute(), expected, atol=1e-8)
    assert_array_equal(kde.score_samples(Q), lazy.compute())
    own = kde.score_samples(None)
    assert own.chunks == X_blocks.chunks[:1]
    left_out = oracles.log_density(X, X, h, kernel, weights, leave_out=np.arange(60))
    assert_allclose(own.compute(), left_out, atol=1e-8)
    gradient = kde.log_density_gradient(Q_blocks).compute()
    assert_allclose(gradient, oracles.gradient(Q, X, h, kernel, weights), atol=1e-6)


CASES = [
    {},
    {"bandwidth": "nearest"},
    {"bandwidth": "clt"},
    {"bandwidth": "gaussian"},
    {"bandwidth": "scott"},
    {"bandwidth": "silverman", "covariance_type": "diag"},
    {"bandwidth": "gaussian", "covariance_type": "full"},
    {"bandwidth": "nearest", "covariance_type": "full"},
    {"kernel": "exponential"},
    {"kernel": "epanechnikov"},
    {"kernel": "linear", "covariance_type": "diag"},
    {"kernel": "student"},
    {"kernel": "student", "degrees_of_freedom": 4.0, "bandwidth": 0.8},
    {"covariance_type": "diag"},
    {"covariance_type": "full"},
    {"preserve_variance": True},
    {"covariance_type": "full", "preserve_variance": True, "kernel": "student"},
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("params", CASES, ids=str)
def test_same_as_on_one_machine(params, weighted):
    X, weights, Q = draws()
    weights = weights if weighted else None
    one = HighDimKernelDensity(random_state=0, **params).fit(X, sample_weight=weights)
    cluster = DaskHighDimKernelDensity(random_state=0, **params)
    cluster.fit(blocks(X, 90), sample_weight=weights)
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-10)
    for name in ("kernel_", "degrees_of_freedom_", "covariance_type_", "backend_"):
        assert getattr(cluster, name) == getattr(one, name)
    if one.bandwidth_search_ is not None:
        found, expected = cluster.bandwidth_search_, one.bandwidth_search_
        assert_allclose(found.bandwidths, expected.bandwidths, rtol=1e-10)
        assert_allclose(found.mean_log_density, expected.mean_log_density, atol=1e-8)
        assert found.n_queries == expected.n_queries
    assert_allclose(cluster.score_samples(Q), one.score_samples(Q), atol=1e-8)
    left_out = cluster.score_samples(None).compute()
    assert_allclose(left_out, one.score_samples(None), atol=1e-8)
    gradient = cluster.log_density_gradient(Q)
    assert_allclose(gradient, one.log_density_gradient(Q), atol=1e-8)
    drawn = cluster.sample(50, random_state=1)
    assert_allclose(drawn, one.sample(50, random_state=1), atol=1e-10)
    for X_or_none in (Q, None):
        found, expected = cluster.diagnose(X_or_none), one.diagnose(X_or_none)
        for name in COLUMNS:
            assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-7
            )
        assert_array_equal(found.regime, expected.regime)


@pytest.mark.parametrize("params", [{}, {"covariance_type": "full"}], ids=str)
def test_a_sample_of_many_points(params, monkeypatch):
    """More than are queries, in several batches of a block."""
    X, weights, Q = draws(11_000, 3)
    monkeypatch.setattr(tasks, "BATCH_SIZE", 2000)
    one = HighDimKernelDensity(random_state=0, **params).fit(X, sample_weight=weights)
    cluster = DaskHighDimKernelDensity(random_state=0, **params)
    cluster.fit(blocks(X, 3000), sample_weight=weights)
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-10)
    assert_allclose(cluster.score_samples(Q), one.score_samples(Q), atol=1e-8)
    left_out = cluster.score_samples(None)[:200].compute()
    assert_allclose(left_out, one.score_samples(None)[:200], atol=1e-8)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_float32(shift):
    X, _, Q = draws(500, 40, np.float32)
    X, Q = X + np.float32(shift), Q + np.float32(shift)
    kde = DaskHighDimKernelDensity(bandwidth=1.5).fit(blocks(X, 130))
    log_density = kde.score_samples(blocks(Q, 7))
    assert log_density.dtype == log_density.compute().dtype == np.float32
    assert_allclose(log_density, oracles.log_density(Q, X, 1.5), atol=1e-3)
    gradient = kde.log_density_gradient(blocks(Q, 7))
    assert gradient.dtype == gradient.compute().dtype == np.float32
    assert kde.diagnose(Q).log_density.dtype == kde.sample(2).dtype == np.float32
    wide = kde.score_samples(Q.astype(np.float64))
    assert wide.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.int8, np.float16, bool, np.int64])
def test_narrow_queries_become_float64_or_32(dtype):
    wide = np.float32 if dtype is np.float16 else np.float64
    X, _, Q = draws(60, 4, np.float32)
    Q = (10.0 * Q).astype(dtype)
    kde = DaskHighDimKernelDensity(bandwidth=5.0).fit(blocks(X, 20))
    lazy = kde.score_samples(blocks(Q, 7))
    assert lazy.dtype == lazy.compute().dtype == wide
    expected = oracles.log_density(Q.astype(float), X, 5.0)
    assert_allclose(lazy.compute(), expected, atol=1e-8 if wide is np.float64 else 1e-3)
    assert kde.diagnose(Q).log_density.dtype == wide
    assert kde.diagnose(Q.tolist()).log_density.dtype == np.float64


@pytest.mark.parametrize("far", [1e3, 1e7, 1e14, 1e300])
def test_gradients_far_away(far):
    """Log sums of blocks are equal to their last digit there."""
    X, _, _ = draws(60, 4)
    kde = DaskHighDimKernelDensity(bandwidth=0.5, kernel="exponential")
    kde.fit(blocks(X, (20, 0, 1, 39)))
    gradient = kde.log_density_gradient(np.full((1, 4), far))
    assert_allclose(gradient, np.full((1, 4), -1.0), rtol=10.0 / far + 1e-12)


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_entries_whose_squares_are_no_numbers(scale):
    with pytest.raises(ValueError, match="multiply it by a factor"):
        DaskHighDimKernelDensity(bandwidth=scale).fit(blocks(scale * draws()[0], 90))


def test_one_weight_is_nearly_all():
    """The others' weight, where that one is left out, is not total minus most of it."""
    X, _, _ = draws(40)
    weights = np.full(40, 1e-3)
    weights[5] = 1e17
    kde = DaskHighDimKernelDensity(bandwidth=1.0).fit(
        blocks(X, 15), sample_weight=weights
    )
    others = np.delete(X, 5, axis=0)
    expected = oracles.log_density(X[5:6], others, 1.0)
    assert_allclose(kde.score_samples(None)[5].compute(), expected[0], atol=1e-8)


@pytest.mark.parametrize("params", [{}, {"covariance_type": "diag"}], ids=str)
@pytest.mark.parametrize("n", [300, 11_000])
@pytest.mark.parametrize("all_known", [True, False])
def test_duplicates_in_different_blocks(params, n, all_known, set_candidates):
    if not all_known:  # from these the number of duplicates is estimated
        set_candidates(6000)
    X, _, _ = draws(n, 5)
    X[n // 2 : n // 2 + n // 10] = X[: n // 10]
    X[-3:] = X[0]
    one = HighDimKernelDensity(random_state=0, **params)
    cluster = DaskHighDimKernelDensity(random_state=0, **params)
    n_duplicates = n // 10 + 3
    with pytest.warns(UserWarning, match=f"{n_duplicates} of the {n} training points"):
        one.fit(X)
    with pytest.warns(UserWarning, match="training points are exact duplicates"):
        cluster.fit(blocks(X, n // 4))
    exact = all_known or n == 300
    rel = 1e-6 if exact or not params else 0.01  # other folds, by a few points
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=rel)
    estimated = pytest.approx(n_duplicates, rel=0.05)
    assert cluster.bandwidth_search_.n_copies == (n_duplicates if exact else estimated)


def test_two_distinct_points_among_very_many(set_candidates):
    """The first ones are not among the candidates."""
    set_candidates(50, at_most=50)
    X = np.random.default_rng(0).integers(0, 2, size=(20_000, 2)).astype(float)
    for bandwidth in ("kl", "nearest"):
        one, cluster = (
            kind(bandwidth=bandwidth, random_state=0)
            for kind in (HighDimKernelDensity, DaskHighDimKernelDensity)
        )
        for kde, points in ((one, X), (cluster, blocks(X, 7000))):
            with pytest.warns(UserWarning, match="19996 of the 20000"):
                kde.fit(points)
        assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-6)
    with pytest.raises(ValueError, match="two distinct points"):
        DaskHighDimKernelDensity().fit(blocks(np.ones((5000, 2)), 2000))


def test_few_distinct_points_among_many(set_candidates):
    """They are all found, although most candidates are duplicates of others."""
    set_candidates(1500)
    X = np.random.default_rng(0).integers(0, 6, size=(12_000, 4)).astype(float)
    one, cluster = (
        kind(random_state=0) for kind in (HighDimKernelDensity, DaskHighDimKernelDensity)
    )
    with pytest.warns(UserWarning, match="exact duplicates"):
        one.fit(X)
    with pytest.warns(UserWarning, match="exact duplicates"):
        cluster.fit(blocks(X, 5000))
    assert cluster.bandwidth_search_.n_queries == 6**4 == one.bandwidth_search_.n_queries
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-6)
