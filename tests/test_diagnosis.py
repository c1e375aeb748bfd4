"""What ``diagnose`` reports, against direct sums and in hard cases."""

import importlib.util
import sys

import numpy as np
import oracles
import pytest
import simulations as sim
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st

from skhdkde import Diagnosis
from skhdkde._pairwise.backends import NumpyDevice
from skhdkde.regimes import gaussian_thresholds

KERNELS = oracles.KERNEL_NAMES
COLUMNS = (
    "log_density",
    "standard_error",
    "tail_index",
    "h_g",
    "h_clt",
    "effective_sample_size",
    "max_weight",
)
TOLERANCE = {np.float64: 1e-7, np.float32: 5e-3}


def direct_shares(x, Y, h, kernel, weights):
    """Each point's share of the sum at x, in extended precision."""
    sq = oracles.squared_distances(x, Y)
    if kernel in ("gaussian", "exponential"):
        power = 2 if kernel == "gaussian" else 1
        exponent = -((np.sqrt(sq) / np.longdouble(h)) ** power) / power
        terms = np.exp(exponent - exponent.max()) * weights
    else:
        terms = oracles.profile(kernel, sq, h) * weights
    total = terms.sum()
    return terms / total if total > 0 else np.full(len(terms), np.nan)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of a few hundred points."""
    monkeypatch.setattr(NumpyDevice, "tile_rows", 128)
    monkeypatch.setattr(NumpyDevice, "tile_cols", 256)
    if importlib.util.find_spec("torch"):
        from skhdkde._pairwise import torch_backend

        monkeypatch.setattr(torch_backend, "ON_CPU", (128, 256, 2**20, 1))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_shares(make_kde, kernel, dtype, weighted, leave_one_out):
    rng = np.random.default_rng(0)
    n, d = 600, 6  # more than one tile
    X = (rng.normal(size=(n, d)) + 3.0).astype(dtype)
    weights = rng.exponential(size=n) if weighted else None
    w = np.ones(n) if weights is None else weights
    h = {"gaussian": 0.4, "exponential": 0.15}.get(kernel, 1.6)
    kde = make_kde(bandwidth=h, kernel=kernel).fit(X, sample_weight=weights)
    queries = None if leave_one_out else (rng.normal(size=(30, d)) + 3.0).astype(dtype)
    found = kde.diagnose(queries)
    rows = range(0, n, 23) if leave_one_out else range(30)
    for i in rows:
        keep = np.arange(n) != i if leave_one_out else slice(None)
        x = X[i] if leave_one_out else queries[i]
        shares = direct_shares(x, X[keep], h, kernel, w[keep])
        if np.isnan(shares).any():
            assert found.effective_sample_size[i] == 0.0
            assert np.isnan(found.max_weight[i])
            assert np.isposinf(found.standard_error[i])
            continue
        tol = TOLERANCE[dtype]
        assert found.max_weight[i] == pytest.approx(float(shares.max()), rel=tol)
        size = float(1.0 / np.sum(shares**2))
        assert found.effective_sample_size[i] == pytest.approx(size, rel=tol)
    expected = kde.score_samples(queries)
    assert found.log_density.dtype == expected.dtype
    np.testing.assert_allclose(
        found.log_density, expected, atol=2e-3 if dtype == np.float32 else 2e-8
    )


@pytest.mark.parametrize("kernel", ["tophat", "linear"])
def test_compact_kernels_go_by_the_number_in_reach(make_kde, kernel):
    rng = np.random.default_rng(1)
    X, queries = rng.normal(size=(3000, 5)), 1.5 * rng.normal(size=(300, 5))
    found = make_kde(bandwidth=0.9, kernel=kernel).fit(X).diagnose(queries)
    count = np.sum(sim.squared_distances(queries, X) < 0.9**2, axis=1)
    expected = np.where(count < 2, "extreme", np.where(count < 30, "stable", "clt"))
    np.testing.assert_array_equal(found.regime, expected)
    assert {"extreme", "stable", "clt"} == set(expected)
    assert np.isposinf(found.tail_index).all()
    assert ((count == 0) == np.isneginf(found.log_density)).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_independent_of_tiles_threads_and_company(make_kde, kernel):
    rng = np.random.default_rng(2)
    X, queries = rng.normal(size=(5000, 12)), rng.normal(size=(600, 12))
    h = {"gaussian": 0.8, "exponential": 0.25}.get(kernel, 3.0)
    one = make_kde(bandwidth=h, kernel=kernel, n_jobs=1).fit(X)
    two = make_kde(bandwidth=h, kernel=kernel, n_jobs=2).fit(X[::-1])
    together = one.diagnose(queries)
    for other, rows in [
        (two.diagnose(queries), slice(None)),
        (one.diagnose(queries[5:6]), slice(5, 6)),
    ]:
        for name in COLUMNS:
            expected = getattr(together, name)[rows]
            np.testing.assert_allclose(getattr(other, name), expected, rtol=1e-7)


@pytest.mark.parametrize("factor", [1e-100, 1e-3, 1e100])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
def test_units(make_kde, kernel, factor):
    rng = np.random.default_rng(3)
    X, queries = rng.normal(size=(500, 8)), rng.normal(size=(40, 8))

    def diagnose(f):
        kde = make_kde(bandwidth=2.0 * f, kernel=kernel).fit(f * X)
        return kde.diagnose(f * queries)

    found, scaled = diagnose(1.0), diagnose(factor)
    for name in ("standard_error", "tail_index", "effective_sample_size", "max_weight"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(found, name), rtol=1e-6)
    for name in ("h_g", "h_clt"):
        expected = factor * getattr(found, name)
        np.testing.assert_allclose(getattr(scaled, name), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_far_from_zero(make_kde, dtype, shift):
    """Neighbours are found from sharp distances, or log ratios would be noise."""
    rng = np.random.default_rng(4)
    X = (rng.normal(size=(1000, 20)) + shift).astype(dtype)
    X[::2] += 100.0  # centring does not help with two clusters
    queries = X[:40] + rng.normal(size=(40, 20)).astype(dtype)
    found = make_kde(bandwidth=0.8).fit(X).diagnose(queries)
    exact = make_kde(bandwidth=0.8).fit(X.astype(np.float64) - shift)
    expected = exact.diagnose(queries.astype(np.float64) - shift)
    for name in ("standard_error", "h_g", "effective_sample_size"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=2e-3
        )


@pytest.mark.parametrize("d, n", [(50, 20_000), (100, 20_000), (20, 5000)])
def test_threshold_from_data(make_kde, d, n):
    rng = np.random.default_rng(5)
    kde = make_kde(bandwidth=1.0).fit(sim.white(n, d, rng))
    found = kde.diagnose(sim.white(200, d, rng))
    theory = gaussian_thresholds(n, np.ones(d))
    assert np.median(found.h_g) == pytest.approx(theory.h_g, rel=0.15)
    np.testing.assert_allclose(found.h_clt, np.sqrt(2.0) * found.h_g)
    np.testing.assert_allclose(found.tail_index, (1.0 / found.h_g) ** 2)


@pytest.mark.parametrize("d, n", [(20, 5000), (50, 5000), (100, 2000)])
def test_regimes_switch_where_theory_says(make_kde, d, n):
    rng = np.random.default_rng(6)
    h_g = gaussian_thresholds(n, np.ones(d)).h_g
    points, queries = sim.white(n, d, rng), sim.white(200, d, rng)
    shares = {
        r: make_kde(bandwidth=r * h_g).fit(points).diagnose(queries).shares
        for r in (0.6, 1.6, 2.0)
    }
    assert shares[0.6]["extreme"] > 0.9
    assert shares[1.6]["extreme"] < 0.1
    assert shares[2.0]["clt"] > 0.9
    assert sum(shares[1.6].values()) == pytest.approx(1.0)
    assert list(shares[1.6]) == ["extreme", "stable", "clt"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
def test_few_points(make_kde, n, kernel):
    rng = np.random.default_rng(7)
    X = rng.normal(size=(n, 3))
    kde = make_kde(bandwidth=2.0, kernel=kernel).fit(X)
    found = kde.diagnose(0.1 * rng.normal(size=(4, 3)))
    some = np.isfinite(found.log_density)
    if n == 1:
        assert np.isnan(found.standard_error[some]).all()
        assert (found.regime == "extreme").all()
        np.testing.assert_allclose(found.max_weight[some], 1.0)
    else:
        assert (found.standard_error >= 0.0).all()
        assert (found.h_g > 0.0).all()
    alone = kde.diagnose()
    assert len(alone) == n
    if n == 1:
        assert np.isneginf(alone.log_density).all()
        assert (alone.effective_sample_size == 0.0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", ["on points", "all equal", "duplicates", "lattice"])
def test_degenerate_data(make_kde, case, kernel):
    rng = np.random.default_rng(8)
    X = rng.normal(size=(200, 4))
    queries = rng.normal(size=(10, 4))
    if case == "on points":
        queries = X[:10]
    elif case == "all equal":
        X = np.ones((200, 4))
        queries = np.vstack([X[:5], queries[:5]])
    elif case == "duplicates":
        X = np.repeat(X[:5], 40, axis=0)
        queries = np.vstack([X[:5], queries[:5]])
    else:
        X, queries = (X > 0.0).astype(float), (queries > 0.0).astype(float)
    kde = make_kde(bandwidth=0.7, kernel=kernel).fit(X)
    for found in (kde.diagnose(queries), kde.diagnose()):
        reached = np.isfinite(found.log_density)
        for name in COLUMNS[1:]:
            assert not np.isnan(getattr(found, name)[reached]).any()
        if kernel in ("gaussian", "exponential"):  # else none in reach of a fresh set
            assert np.isfinite(found.standard_error[reached]).all()
        assert (found.effective_sample_size[reached] >= 1.0 - 1e-9).all()
        assert np.isposinf(found.standard_error[~reached]).all()


def test_weights_are_points(make_kde):
    """Equal weights are none; a weightless point is as good as absent."""
    rng = np.random.default_rng(9)
    X, queries = rng.normal(size=(300, 6)), rng.normal(size=(20, 6))
    kde = make_kde(bandwidth=0.6)
    plain = kde.fit(X).diagnose(queries)
    equal = kde.fit(X, sample_weight=np.full(300, 7.0)).diagnose(queries)
    weights = np.ones(300)
    weights[::3] = 0.0
    some = kde.fit(X, sample_weight=weights)
    without, left_out = some.diagnose(queries), some.diagnose()
    fewer = kde.fit(X[weights > 0.0])
    expected, others = fewer.diagnose(queries), fewer.diagnose()
    lone = fewer.diagnose(X[weights == 0.0])
    for name in COLUMNS:
        rtol = 0.05 if name == "standard_error" else 1e-9  # other paths, same law
        np.testing.assert_allclose(getattr(equal, name), getattr(plain, name), rtol=rtol)
        np.testing.assert_allclose(
            getattr(without, name), getattr(expected, name), rtol=rtol
        )
        found = getattr(left_out, name)
        np.testing.assert_allclose(found[weights > 0.0], getattr(others, name), rtol=rtol)
        np.testing.assert_allclose(found[weights == 0.0], getattr(lone, name), rtol=rtol)


@examples(30)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 120),
    d=st.sampled_from([1, 2, 5, 40]),
    log_h=st.floats(-3.0, 3.0),
    kernel=st.sampled_from(KERNELS),
    weighted=st.booleans(),
)
def test_sane_whatever_the_data(make_kde, seed, n, d, log_h, kernel, weighted):
    rng = np.random.default_rng(seed)
    X = rng.standard_t(2, size=(n, d))
    weights = rng.exponential(size=n) if weighted else None
    kde = make_kde(bandwidth=10.0**log_h, kernel=kernel)
    found = kde.fit(X, sample_weight=weights).diagnose(rng.standard_t(2, size=(5, d)))
    reached = np.isfinite(found.log_density)
    assert (found.standard_error >= 0.0).all()
    assert (found.h_g <= found.h_clt).all()
    assert (found.effective_sample_size[reached] >= 1.0 - 1e-9).all()
    assert (found.effective_sample_size <= n * (1.0 + 1e-9)).all()
    assert (found.max_weight[reached] <= 1.0).all()
    largest = 1.0 / found.effective_sample_size[reached]
    assert (found.max_weight[reached] >= largest - 1e-9).all()


@pytest.fixture(scope="module")
def diagnosis(make_kde):
    X = np.random.default_rng(10).normal(size=(300, 10))
    return make_kde(bandwidth=0.9).fit(X).diagnose()


def test_frame(diagnosis):
    table = diagnosis.to_frame()
    assert list(table) == [*COLUMNS, "regime"]
    assert table.shape == (300, 8)
    np.testing.assert_array_equal(table["h_g"], diagnosis.h_g)
    shares = table["regime"].value_counts(normalize=True)
    for name, share in shares.items():
        assert diagnosis.shares[name] == pytest.approx(share)


def test_frame_without_pandas(diagnosis, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas: pip install pandas"):
        diagnosis.to_frame()


def test_reprs(diagnosis):
    text, html = repr(diagnosis), diagnosis._repr_html_()
    for words in (text, html):
        assert "300 queries" in words
        assert "gaussian" in words
        assert "bandwidth 0.9" in words
        for name in (*COLUMNS, "extreme", "stable", "clt"):
            assert name in words
        assert f"{np.quantile(diagnosis.h_g, 0.5, method='nearest'):.4g}" in words
    assert html.count("<tr>") == html.count("</tr>") == 8
    assert max(len(line) for line in text.splitlines()) < 80
    assert len(diagnosis) == 300


def test_repr_of_what_is_not_finite(make_kde):
    X = np.random.default_rng(11).normal(size=(1, 3))
    kde = make_kde(bandwidth=1.0, kernel="tophat").fit(X)
    text = repr(kde.diagnose(X + 10.0))
    assert "1 query" in text
    assert "-inf" in text
    assert "max_weight" not in text  # NaN throughout


def test_no_partial_state_and_clear_errors(make_kde):
    X = np.random.default_rng(12).normal(size=(30, 3))
    kde = make_kde(bandwidth=1.0)
    with pytest.raises(Exception, match="not fitted"):
        kde.diagnose()
    kde.fit(X)
    with pytest.raises(ValueError, match="X has 2 features"):
        kde.diagnose(X[:, :2])
    with pytest.raises(ValueError, match="X contains infinity"):
        kde.diagnose([[np.inf, 0.0, 0.0]])
    assert isinstance(kde.diagnose(X), Diagnosis)
