"""Unit vectors in blocks: any blocks give the densities of one machine on the sphere.

Graphs run in this thread here.
"""

import functools
import pickle

import dask.array as da
import numpy as np
import pytest
from dask_data import blocks, data_frame
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skhdkde import HighDimKernelDensity
from skhdkde._distributed import tasks
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
# Kernels restricted to the sphere, and structures projected to it.
AT_A_BANDWIDTH = [
    {"bandwidth": 0.4},
    {"bandwidth": 0.2, "kernel": "exponential"},
    {"bandwidth": 0.9, "kernel": "tophat"},
    {"bandwidth": 0.9, "kernel": "epanechnikov"},
    {"bandwidth": 2.5, "kernel": "linear"},
    {"bandwidth": 0.9, "kernel": "cosine"},
    {"bandwidth": 0.3, "kernel": "student", "degrees_of_freedom": 3.0},
    {"bandwidth": 0.3, "preserve_variance": True},
    {"bandwidth": 0.7, "covariance_type": "diag"},
    {"bandwidth": 0.7, "covariance_type": "diag", "preserve_variance": True},
    {"bandwidth": 0.7, "covariance_type": "full"},
    {
        "bandwidth": 0.4,
        "covariance_type": "full",
        "preserve_variance": True,
        "kernel": "student",
        "degrees_of_freedom": 5.0,
    },
]
SEARCHED = [
    {},
    {"bandwidth": "nearest"},
    {"bandwidth": "clt"},
    {"bandwidth": "nearest", "covariance_type": "diag"},
    {"kernel": "exponential"},
    {"kernel": "epanechnikov"},
    {"kernel": "student"},
    {"covariance_type": "diag"},
    {"preserve_variance": True},
    {"covariance_type": "full", "preserve_variance": True, "kernel": "student"},
]
on_one_machine = functools.partial(HighDimKernelDensity, support="sphere", random_state=0)
on_a_cluster = functools.partial(
    DaskHighDimKernelDensity, support="sphere", random_state=0
)


class Points:
    """Rows that are made when they are asked for."""

    def __init__(self, X):
        self.shape, self.dtype, self.ndim = X.shape, X.dtype, 2

    def __getitem__(self, index):
        return unit_draws(*self.shape)[0][index]


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def unit_draws(n=240, d=5, dtype=np.float64, concentration=1.0):
    """Training points, weights of which some are zero, and queries.

    The points are in order of a feature: blocks differ in mean and size.
    """
    rng = np.random.default_rng(d)
    root = np.eye(d) + 0.3 * rng.standard_normal((d, d))
    X = rng.standard_normal((n + 20, d)) @ root + concentration
    X, Q = unit(X[:n]), unit(X[n:])
    weights = rng.exponential(size=n)
    weights[::9] = 0.0
    return X[np.argsort(X[:, 0])].astype(dtype), weights, Q.astype(dtype)


def assert_same(cluster, one, Q, atol=1e-8):
    """Results are those of one machine."""
    assert_allclose(cluster.score_samples(Q), one.score_samples(Q), atol=atol)
    left_out = cluster.score_samples(None).compute()
    assert_allclose(left_out, one.score_samples(None), atol=atol)
    assert cluster.score(Q) == pytest.approx(one.score(Q), abs=len(Q) * atol)
    gradient = one.log_density_gradient(Q)
    atol_gradient = 10.0 * atol * np.nanmax(np.abs(gradient))
    assert_allclose(cluster.log_density_gradient(Q), gradient, atol=atol_gradient)
    drawn = one.sample(50, random_state=1)
    assert_allclose(cluster.sample(50, random_state=1), drawn, atol=atol)


@functools.lru_cache(maxsize=64)
def expected_at(case, weighted):
    """Results of one machine at queries, of each point without itself, and gradients."""
    X, weights, Q = unit_draws(60, 4)
    one = on_one_machine(**AT_A_BANDWIDTH[case])
    one.fit(X, sample_weight=weights if weighted else None)
    return one.score_samples(Q), one.score_samples(None), one.log_density_gradient(Q)


@given(
    st.lists(st.integers(0, 60), max_size=6),
    st.lists(st.integers(0, 20), max_size=3),
    st.booleans(),
    st.integers(0, len(AT_A_BANDWIDTH) - 1),
)
@examples(20)
def test_any_blocks(cuts, query_cuts, weighted, case):
    """Empty blocks, blocks of one point, and queries in other blocks included."""
    X, weights, Q = unit_draws(60, 4)
    X_blocks = blocks(X, tuple(np.diff([0, *sorted(cuts), 60]).tolist()))
    Q_blocks = blocks(Q, tuple(np.diff([0, *sorted(query_cuts), 20]).tolist()))
    kde = on_a_cluster(**AT_A_BANDWIDTH[case])
    kde.fit(X_blocks, sample_weight=weights if weighted else None)
    at_queries, left_out, gradient = expected_at(case, weighted)
    lazy = kde.score_samples(Q_blocks)
    assert isinstance(lazy, da.Array)
    assert lazy.chunks == Q_blocks.chunks[:1]
    assert_allclose(lazy.compute(), at_queries, atol=1e-8)
    own = kde.score_samples(None)
    assert own.chunks == X_blocks.chunks[:1]
    assert_allclose(own.compute(), left_out, atol=1e-8)
    found = kde.log_density_gradient(Q_blocks).compute()
    assert_allclose(found, gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "weighted"),
    [(p, True) for p in AT_A_BANDWIDTH]
    + [(p, weighted) for p in SEARCHED for weighted in (False, True)],
    ids=str,
)
def test_same_as_on_one_machine(params, weighted, monkeypatch):
    monkeypatch.setattr(tasks, "BATCH_SIZE", 500)
    X, weights, Q = unit_draws()
    weights = weights if weighted else None
    one = on_one_machine(**params).fit(X, sample_weight=weights)
    cluster = on_a_cluster(**params)
    cluster.fit(blocks(X, (90, 0, 1, 149)), sample_weight=weights)
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-10)
    for name in ("kernel_", "degrees_of_freedom_", "covariance_type_", "backend_"):
        assert getattr(cluster, name) == getattr(one, name)
    if one.bandwidth_search_ is not None:
        # by rounding one may look at a bandwidth more than the other
        found, expected = cluster.bandwidth_search_, one.bandwidth_search_
        assert found.n_queries == expected.n_queries
        assert max(found.mean_log_density) == pytest.approx(
            max(expected.mean_log_density), abs=1e-8
        )
    assert_same(cluster, one, Q)
    for X_or_none in (Q, None):
        found, expected = cluster.diagnose(X_or_none), one.diagnose(X_or_none)
        for name in COLUMNS:
            a, b = getattr(found, name), getattr(expected, name)
            # laws are of distances to the nearest points, right to 1e-4 of their squares
            assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=name)
        assert_array_equal(found.regime, expected.regime)


def test_rows_of_unit_norm_up_to_rounding():
    """They are brought to the sphere; its size stays, however small the entries are."""
    X, _, Q = unit_draws(d=200, concentration=0.0)
    assert np.abs(X).max() < 0.5
    X, Q = X * (1.0 + 5e-4), Q * (1.0 - 5e-4)
    one = on_one_machine().fit(X)
    cluster = on_a_cluster().fit(blocks(X, 100))
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-8)
    exact = on_a_cluster(bandwidth=one.bandwidth_).fit(blocks(unit(X), 70))
    assert_allclose(exact.score_samples(unit(Q)), one.score_samples(Q), atol=1e-8)


def test_the_search_ends_at_the_uniform_density():
    X = unit(np.random.default_rng(0).standard_normal((400, 20)))
    one, cluster = on_one_machine().fit(X), on_a_cluster().fit(blocks(X, 150))
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-6)
    assert_allclose(cluster.score_samples(X[:5]), one.score_samples(X[:5]), atol=1e-8)


@pytest.mark.parametrize("d", [6, 100])
@pytest.mark.parametrize(
    "params", [AT_A_BANDWIDTH[0], AT_A_BANDWIDTH[-1], SEARCHED[-1]], ids=str
)
def test_float32(params, d):
    X, weights, Q = unit_draws(d=d, dtype=np.float32)
    one = on_one_machine(**params).fit(X, sample_weight=weights)
    cluster = on_a_cluster(**params).fit(blocks(X, 110), sample_weight=weights)
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-5)
    assert_same(cluster, one, Q, atol=1e-3)
    lazy = cluster.score_samples(blocks(Q, 7))
    assert lazy.dtype == lazy.compute().dtype == np.float32
    gradient = cluster.log_density_gradient(blocks(Q, 7))
    assert gradient.dtype == gradient.compute().dtype == np.float32
    assert cluster.diagnose(Q).log_density.dtype == cluster.sample(2).dtype == np.float32
    assert cluster.score_samples(Q.astype(np.float64)).dtype == np.float64


def test_embeddings_in_float16_become_float32():
    X, _, Q = unit_draws(dtype=np.float16)
    for params in (AT_A_BANDWIDTH[0], AT_A_BANDWIDTH[-1]):
        one = on_one_machine(**params).fit(X)
        cluster = on_a_cluster(**params).fit(blocks(X, 110))
        lazy = cluster.score_samples(blocks(Q, 7))
        assert lazy.dtype == lazy.compute().dtype == np.float32
        assert_same(cluster, one, Q, atol=1e-3)


def test_samples_and_gradients_are_of_the_sphere():
    X, _, Q = unit_draws()
    for params in (AT_A_BANDWIDTH[0], AT_A_BANDWIDTH[-1]):
        kde = on_a_cluster(**params).fit(blocks(X, 110))
        norms = np.linalg.norm(kde.sample(100, random_state=0), axis=1)
        assert_allclose(norms, 1.0, atol=1e-12)
        gradient = kde.log_density_gradient(Q)
        assert_allclose(np.sum(gradient * Q, axis=1), 0.0, atol=1e-10)


# Constant features.


def with_constant(X, dtype=np.float64):
    """Rows with a feature that is 0.6, up to rounding in their dtype, and a dead one."""
    X = np.column_stack([np.full(len(X), 0.6), 0.8 * X, np.zeros(len(X))]).astype(dtype)
    return unit(X).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("params", [SEARCHED[0], SEARCHED[-1]], ids=str)
def test_constant_features_are_dropped(params, dtype):
    X, weights, Q = unit_draws()
    X, Q = with_constant(X, dtype), with_constant(Q, dtype)
    X[0, 0], X[0, -1], weights[0] = X[0, -1], X[0, 0], 0.0  # no weight: it does not count
    one, cluster = on_one_machine(**params), on_a_cluster(**params)
    for kde, points in ((one, X), (cluster, blocks(X, (90, 0, 1, 149)))):
        with pytest.warns(UserWarning, match=r"2 constant features of 7: columns 0, 6\."):
            kde.fit(points, sample_weight=weights)
        assert_array_equal(kde.constant_features_, [0, 6])
    assert cluster.bandwidth_ == pytest.approx(one.bandwidth_, rel=1e-6)
    with pytest.warns(UserWarning, match=r"row 0 by .* in column [06]\."):
        assert_same(cluster, one, Q, 1e-8 if dtype == np.float64 else 1e-3)
    assert_array_equal(cluster.log_density_gradient(Q)[:, [0, 6]], 0.0)
    norms = np.linalg.norm(cluster.sample(20, random_state=0), axis=1)
    assert_allclose(norms, 1.0, atol=1e-6)


def test_constant_features_are_named():
    frame = data_frame(with_constant(unit_draws()[0]))
    with pytest.warns(UserWarning, match=r"columns 0 \('feature 0'\), 6 \('feature 6'\)"):
        on_a_cluster(bandwidth=0.5).fit(frame)


def test_queries_off_the_smaller_sphere():
    X, _, Q = unit_draws()
    X, Q = with_constant(X), with_constant(Q)
    with pytest.warns(UserWarning, match="constant features"):
        kde = on_a_cluster(bandwidth=0.5).fit(blocks(X, 100))
    expected = kde.score_samples(Q)
    Q[17, 0] *= -1.0
    frame = data_frame(Q).to_dask_array()
    for queries in (Q, blocks(Q, 8), frame):
        row = 2 if queries is frame else 17  # of unknown size: counted in the block
        with pytest.warns(UserWarning, match=rf"row {row} by 1\.2 in column 0\."):
            assert_allclose(np.asarray(kde.score_samples(queries)), expected)
    pole = np.eye(7)[:1]
    with pytest.raises(ValueError, match="row 20 of X is zero in all features that vary"):
        kde.score_samples(blocks(np.vstack([Q, pole]), 8)).compute()


# What is refused.


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1.01, r"row 217 has norm 1\.01: .*sklearn\.preprocessing\.normalize"),
        (0.0, "row 217 has norm 0: .*A row of zeros has no direction"),
        (np.nan, "contains NaN"),
        (np.inf, "contains infinity"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_off_the_sphere_in_fit(factor, message, weighted):
    X, weights, _ = unit_draws()
    weights[217] = 0.0  # it is looked at all the same
    X[217] *= 1.0 if np.isnan(factor) else factor
    X[217, 2] = factor if not np.isfinite(factor) else X[217, 2]
    X[217] = np.nan_to_num(X[217], nan=np.nan, posinf=np.inf)
    sample_weight = weights if weighted else None
    for points in (blocks(X, (100, 0, 50, 90)), data_frame(X), X):
        with pytest.raises(ValueError, match=message):
            on_a_cluster().fit(points, sample_weight=sample_weight)


def test_rows_are_looked_at_before_other_work():
    X, _, _ = unit_draws()
    X[-1] *= 2.0
    reads = []

    def read(block_info=None):
        (start, stop), _ = block_info[None]["array-location"]
        reads.append(start)
        return X[start:stop]

    chunks = blocks(X, 100).chunks
    array = da.map_blocks(read, chunks=chunks, dtype=X.dtype, meta=np.empty((0, 0)))
    kde = on_a_cluster(bandwidth=0.5).fit(blocks(X[:-1], 100))
    expected = kde.sample(3, random_state=0)
    with pytest.raises(ValueError, match="row 239 has norm 2: "):
        kde.fit(array)
    assert len(set(reads)) == len(reads)  # in one pass
    assert_array_equal(kde.sample(3, random_state=0), expected)  # it is as it was


def test_queries_off_the_sphere():
    X, _, Q = unit_draws()
    kde = on_a_cluster(bandwidth=0.5).fit(blocks(X, 100))
    Q[17] *= 1.01
    message = r"row 17 has norm 1\.01: .*sklearn\.preprocessing\.normalize"
    for method in ("score_samples", "log_density_gradient", "diagnose", "score"):
        with pytest.raises(ValueError, match=message):
            getattr(kde, method)(Q)
        with pytest.raises(ValueError, match=message):
            np.asarray(getattr(kde, method)(blocks(Q, 6)))
    # of unknown size, as of a DataFrame: rows are counted in their block
    with pytest.raises(
        ValueError, match=r"row 2 has .* block 3 .* where rows are counted"
    ):
        kde.score_samples(data_frame(Q).to_dask_array()).compute()


@pytest.mark.parametrize(
    ("X", "weights", "message"),
    [
        (np.ones((20, 1)), None, "at least two features of X that vary"),
        (
            np.tile([0.6, 0.8], (20, 1)),
            None,
            "needs at least two distinct points",
        ),
        (unit_draws()[0][:20], np.zeros(20), "all weights are zero"),
        (np.empty((0, 3)), None, "at least one row"),
    ],
)
def test_points_without_a_density(X, weights, message):
    with pytest.raises(ValueError, match=message):
        on_a_cluster().fit(blocks(X, 7), sample_weight=weights)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"covariance_type": "local"}, "covariance_type must be 'spherical'"),
        ({"covariance_type": "auto"}, "covariance_type must be 'spherical'"),
        ({"covariance_type": "stack"}, "covariance_type must be 'spherical'"),
        ({"adaptive": True}, "adaptive must be False"),
        ({"algorithm": "neighbors"}, "algorithm must be 'exact'"),
        ({"bandwidth": "scott"}, "bandwidth='scott' is for points in space"),
        ({"kernel": "tophat", "covariance_type": "diag"}, "kernel='tophat' works with"),
        ({"feature_maps": "auto"}, "feature_maps must be None with support='sphere'"),
    ],
)
def test_what_is_not_there_is_refused_by_name(params, message):
    with pytest.raises(ValueError, match=message):
        on_a_cluster(**params).fit(blocks(unit_draws()[0], 100))


def test_an_estimator_holds_no_points_and_no_tables():
    X, _, Q = unit_draws(3000)
    array = da.from_array(Points(X), chunks=(1000, -1), meta=np.empty((0, 0)))
    kde = on_a_cluster(**AT_A_BANDWIDTH[-1]).fit(array)
    expected = kde.score_samples(Q)
    held = pickle.dumps(kde)
    assert len(held) < 20_000
    assert_array_equal(pickle.loads(held).score_samples(Q), expected)
