"""Duplicates up to rounding: found, treated as duplicates, and never seen elsewhere."""

import warnings

import dask.array as da
import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde._selection.duplicates import N_NEIGHBORS, closeness
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")


def held_out(kde, X, queries):
    """Return the mean log density of queries, and what fit warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kde.fit(X)
    return kde.score_samples(queries).mean(), [str(w.message) for w in caught]


STACKED = [
    {},
    {"bandwidth": "nearest"},
    {"kernel": "student"},
    {"covariance_type": "diag"},
    {"covariance_type": "full", "preserve_variance": True},
    {"covariance_type": "auto"},
    {"algorithm": "neighbors", "neighbors_index": "exact"},
]


@pytest.mark.parametrize("parameters", STACKED, ids=str)
def test_rows_stacked_with_their_float32_copies(parameters):
    rng = np.random.default_rng(0)
    X, queries = rng.standard_normal((500, 5)), rng.standard_normal((500, 5))
    kde = HighDimKernelDensity(random_state=0, **parameters)
    plain, said = held_out(kde, X, queries)
    assert not said
    bandwidth = kde.bandwidth_
    stacked = np.vstack([X, X.astype(np.float32)])
    found, said = held_out(kde, stacked, queries)
    assert kde.bandwidth_ == pytest.approx(bandwidth, rel=0.02)
    assert found == pytest.approx(plain, abs=0.02)
    (message,) = said
    assert message.startswith("500 of the 1000 training points are near-duplicates")


def test_a_small_share_under_heavy_tails():
    """They would choose a kernel with heavy tails at the bandwidth of their distance."""
    rng = np.random.default_rng(1)
    X, queries = rng.standard_t(3, (400, 50)), rng.standard_t(3, (400, 50))
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0)
    exact, _ = held_out(kde, np.vstack([X, X[:40]]), queries)
    found, said = held_out(kde, np.vstack([X, X[:40].astype(np.float32)]), queries)
    assert found == pytest.approx(exact, abs=0.05)
    assert said[0].startswith("40 of the 440 training points are near-duplicates")
    assert "standard deviations" in said[0]


def test_rows_entered_again_at_six_digits():
    data = StandardScaler().fit_transform(load_breast_cancer().data)
    again = [[float(f"{value:.6g}") for value in row] for row in data[:40]]
    kde = HighDimKernelDensity(covariance_type="auto", random_state=0)
    plain, _ = held_out(kde, data[:400], data[400:])
    found, said = held_out(kde, np.vstack([data[:400], again]), data[400:])
    assert found == pytest.approx(plain, abs=0.5)
    assert said[0].startswith("40 of the 440 training points are near-duplicates")


@st.composite
def tables_with_near_duplicates(draw):
    """Rows of some law, of which some have others near, and how many are too many."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, d = draw(st.integers(60, 800)), draw(st.sampled_from([1, 2, 5, 20, 100]))
    law = draw(st.sampled_from(["normal", "student", "clusters", "curve"]))
    X = {
        "normal": lambda: rng.standard_normal((n, d)),
        "student": lambda: rng.standard_t(3, (n, d)),
        "clusters": lambda: (
            rng.standard_normal((n, d)) + 9.0 * rng.integers(0, 3, (n, 1))
        ),
        "curve": lambda: np.sin(rng.random((n, 1)) * np.arange(1, d + 1)),
    }[law]()
    size = draw(st.integers(1, 4))  # of those near a row
    chosen = rng.permutation(n)[: int(draw(st.floats(0.1, 1.0)) * n)]
    # small beside the distance to the nearest other row, however few features there are
    apart = cKDTree(X).query(X[chosen], 2)[0][:, 1:]
    distance = 10.0 ** draw(st.floats(-11.0, -6.0)) * np.median(apart) / np.sqrt(d)
    near = [
        X[chosen] + distance * rng.standard_normal((len(chosen), d)) for _ in range(size)
    ]
    order = rng.permutation(n + size * len(chosen))
    return np.vstack([X, *near])[order], np.vstack([X, *[X[chosen]] * size])[order]


@examples(8)
@given(tables=tables_with_near_duplicates())
def test_near_duplicates_count_as_exact_ones(tables):
    near, exact = tables
    with pytest.warns(UserWarning, match="exact duplicates"):
        expected = select_bandwidth(exact, random_state=0)
    with pytest.warns(UserWarning, match="near-duplicates"):
        found, search = select_bandwidth(near, random_state=0, return_search=True)
    # up to a tenth of those that are merged may be near by chance, in one dimension
    n_copies = len(exact) - len(np.unique(exact, axis=0))
    assert n_copies <= search.n_copies <= 1.1 * n_copies + 1
    assert found == pytest.approx(expected, rel=0.15)


CONTINUOUS = {
    "normal": lambda rng, n, d: rng.standard_normal((n, d)),
    "uniform": lambda rng, n, d: rng.random((n, d)),
    "heavy-tailed": lambda rng, n, d: rng.standard_t(1.0, (n, d)),
    "skewed": lambda rng, n, d: np.exp(3.0 * rng.standard_normal((n, d))),
    "clusters of any size": lambda rng, n, d: (
        10.0 * rng.standard_normal((n // 30 + 1, d))[np.arange(n) % (n // 30 + 1)]
        + 10.0 ** rng.uniform(-6, 0, n // 30 + 1)[np.arange(n) % (n // 30 + 1), None]
        * rng.standard_normal((n, d))
    ),
    "half in a tight cluster": lambda rng, n, d: (
        np.where(np.arange(n) % 2, 1.0, 10.0 ** rng.uniform(-8, -2))[:, None]
        * rng.standard_normal((n, d))
    ),
    "curve": lambda rng, n, d: np.sin(6.0 * rng.random((n, 1)) * np.arange(1, d + 1)),
    "curve with noise": lambda rng, n, d: (
        np.sin(6.0 * rng.random((n, 1)) * np.arange(1, d + 1))
        + 1e-4 * rng.standard_normal((n, d))
    ),
    "plane": lambda rng, n, d: rng.standard_normal((n, 2)) @ rng.standard_normal((2, d)),
    "random walk": lambda rng, n, d: np.cumsum(rng.standard_normal((n, d)), axis=0),
    "lattice": lambda rng, n, d: (
        0.1 * rng.integers(0, max(3, int(5 * n ** (1 / d))), (n, d))
    ),
    "rounded": lambda rng, n, d: np.round(rng.standard_normal((n, d)), 2),
    "some integers": lambda rng, n, d: np.where(
        np.arange(d) < d // 2,
        rng.standard_normal((n, d)),
        rng.integers(0, 3, (n, d)).astype(float),
    ),
    "features of any scale": lambda rng, n, d: (
        rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-6, 6, d)
    ),
}


def neighbor_distances(X, rng):
    """Return distances of up to 512 distinct rows to their neighbours, ascending."""
    X = np.unique(X, axis=0)
    rows = rng.permutation(len(X))[:512]
    k = min(N_NEIGHBORS, len(X) - 1) + 1
    if X.shape[1] <= 10:
        return cKDTree(X).query(X[rows], k)[0][:, 1:]
    distances = [np.partition(np.linalg.norm(X - x, axis=1), k - 1)[:k] for x in X[rows]]
    return np.sort(distances, axis=1)[:, 1:]


def chances_of_excess(seeds):
    """Return the least probability, by chance, of what each data set has, and its law."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        law = list(CONTINUOUS)[seed % len(CONTINUOUS)]
        n = int(np.exp(rng.uniform(np.log(50), np.log(5000))))
        d = int(np.exp(rng.uniform(0.0, np.log(min(500, 5e5 / n)))))
        distances = neighbor_distances(CONTINUOUS[law](rng, n, d), rng)
        if distances.shape[1] == N_NEIGHBORS:
            threshold, chance = closeness(distances)
            assert threshold is None, (law, n, d, seed)
            yield chance


def test_none_are_found_where_there_are_none():
    assert min(chances_of_excess(range(42))) > 1e-4


@pytest.mark.slow
def test_none_are_found_in_400_data_sets():
    chances = np.array(list(chances_of_excess(range(400))))
    assert len(chances) > 380
    # the bound holds: small probabilities are no more frequent than they say
    assert np.mean(chances < 1e-2) <= 1e-2
    assert chances.min() > 1e-6


@pytest.mark.parametrize("n, d", [(30_000, 1), (20_000, 3), (6_000, 50)])
def test_none_are_found_in_fits(n, d):
    X = np.random.default_rng(n).standard_normal((n, d))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select_bandwidth(X, rule="nearest", n_queries=100, random_state=0)


@examples(6)
@given(seed=st.integers(0, 10**6), n_near=st.integers(9, 15))
def test_neither_random_state_nor_order_decides(seed, n_near):
    """So few are found only if some of them are among the points that are looked at.

    Of up to 4096 points nothing is drawn for "kl".
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((1000, 5))
    X = np.vstack([X, X[:n_near] * (1.0 + 1e-7)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = select_bandwidth(X, random_state=0)
        for random_state in (1, 2, None):
            assert select_bandwidth(X, random_state=random_state) == expected
        for _ in range(3):
            moved = rng.permutation(X)
            assert select_bandwidth(moved) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("parameters", [{}, {"covariance_type": "diag"}], ids=str)
def test_on_dask_there_is_a_warning(parameters):
    """Blocks are not merged: what is found out is said."""
    X = np.random.default_rng(0).standard_normal((500, 5))
    blocks = da.from_array(np.vstack([X, X.astype(np.float32)]), chunks=(300, 5))
    kde = DaskHighDimKernelDensity(random_state=0, **parameters)
    with pytest.warns(UserWarning, match="have near-duplicates, at distances"):
        kde.fit(blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kde.fit(da.from_array(X, chunks=(300, 5)))
