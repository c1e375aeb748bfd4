"""Error bars against the spread over fresh data sets.

``benchmarks/regimes.py`` does the same with more data sets.
"""

import numpy as np
import pytest
import simulations as sim
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import extreme_spread, gaussian_thresholds

N_SETS, N_QUERIES = 60, 40
# "Within 10 % in the median", and what so few sets leave open.
PROMISED = np.log(1.15)
STUDENT = {"kernel": "student", "degrees_of_freedom": 5.0}


def median_ratios(draw, d, n, bandwidths, kernel="gaussian", column="standard_error"):
    """Median over queries of error bar / spread, at each bandwidth."""
    rng = np.random.default_rng(0)
    queries = draw(N_QUERIES, d, rng)
    truth = sim.spread(
        sim.fresh_log_densities(draw, queries, n, bandwidths, N_SETS, rng, kernel)
    )
    ratios = []
    for _ in range(3):
        points = draw(n, d, rng)
        fits = (HighDimKernelDensity(bandwidth=h, kernel=kernel) for h in bandwidths)
        found = [fit.fit(points).diagnose(queries) for fit in fits]
        ratios.append([f.standard_error for f in found] / truth)
    return np.nanmedian(np.moveaxis(ratios, 1, 0).reshape(len(bandwidths), -1), axis=1)


@pytest.mark.parametrize("d, n", [(20, 5000), (50, 5000), (100, 2000)])
def test_white_data(d, n):
    h_g = gaussian_thresholds(n, np.ones(d)).h_g
    ratios = median_ratios(sim.white, d, n, sim.RATIOS * h_g)
    assert (np.abs(np.log(ratios)) < PROMISED).all(), ratios


@pytest.mark.parametrize("draw, d, h_g", [(sim.mixture, 30, 1.07), (sim.sheet, 50, 0.85)])
def test_data_that_are_not_gaussian(draw, d, h_g):
    ratios = median_ratios(draw, d, 5000, sim.RATIOS * h_g)
    assert (np.abs(np.log(ratios)) < PROMISED).all(), ratios


def test_central_limit_formula_would_fail():
    """What the redraw is for: the textbook error bar is far too small below h_clt."""
    d, n, rng = 50, 5000, np.random.default_rng(0)
    h_g = gaussian_thresholds(n, np.ones(d)).h_g
    queries = sim.white(N_QUERIES, d, rng)
    bandwidths = h_g * np.array([0.4, 0.8, 3.0])
    truth = sim.spread(
        sim.fresh_log_densities(sim.white, queries, n, bandwidths, N_SETS, rng)
    )
    sq = sim.squared_distances(queries, sim.white(n, d, rng))
    textbook = []
    for h in bandwidths:
        shares = np.exp((sq.min(axis=1)[:, None] - sq) / (2.0 * h**2))
        shares /= shares.sum(axis=1)[:, None]
        textbook.append(np.sqrt(np.sum(shares**2, axis=1) - 1.0 / n))
    ratio = np.median(textbook / truth, axis=1)
    assert ratio[0] < 0.2
    assert ratio[1] < 0.6
    assert 0.9 < ratio[2] < 1.1


def test_exponential_kernel():
    d, n = 20, 3000
    kde = HighDimKernelDensity(bandwidth=1.0, kernel="exponential")
    points = sim.white(n, d, np.random.default_rng(1))
    h_g = np.median(kde.fit(points).diagnose().h_g)
    at = h_g * np.array([0.4, 1.0, 1.5, 3.0])
    ratios = median_ratios(sim.white, d, n, at, "exponential")
    assert (np.abs(np.log(ratios)) < np.log(1.3)).all(), ratios


@pytest.mark.parametrize("kernel", ["tophat", "epanechnikov"])
def test_compact_kernels(kernel):
    d, n, rng = 8, 3000, np.random.default_rng(2)
    sq = np.sort(sim.squared_distances(sim.white(50, d, rng), sim.white(n, d, rng)))
    at = [np.sqrt(np.median(sq[:, k])) for k in (5, 20, 200)]
    ratios = median_ratios(sim.white, d, n, at, kernel)
    assert (np.abs(np.log(ratios)) < np.log(1.4)).all(), ratios


@pytest.mark.parametrize(
    "n_components, bandwidths, parameters",
    [
        (1, [0.35, 0.6], {"preserve_variance": True}),
        (3, [0.35, 0.9], {}),
        (3, [0.35, 0.7], STUDENT | {"preserve_variance": True}),
        (3, [0.35, 0.6], STUDENT | {"adaptive": True}),
    ],
)
def test_structures(n_components, bandwidths, parameters):
    """With the structure fixed: a mixture fitted to many more points."""
    d, many = 20, sim.elongated(20_000, 20, np.random.default_rng(9))
    mixture = FrozenEstimator(GaussianMixture(n_components, random_state=0).fit(many))
    kde = HighDimKernelDensity(covariance_type="local", mixture=mixture, **parameters)
    sizes = N_QUERIES, 40, 2
    ratios, _ = sim.structure_ratios(sim.elongated, d, 1000, kde, bandwidths, sizes)
    medians = np.median(ratios, axis=(1, 2))
    assert (np.abs(np.log(medians)) < np.log(1.3)).all(), medians


def test_large_bandwidth_limit():
    """All terms nearly equal: the delta method, not 1/sqrt(n)."""
    d, n, rng = 5, 2000, np.random.default_rng(3)
    ratios = median_ratios(sim.white, d, n, [4.0, 12.0, 40.0])
    assert (np.abs(np.log(ratios)) < 0.12).all(), ratios
    kde = HighDimKernelDensity(bandwidth=40.0).fit(sim.white(n, d, rng))
    assert (kde.diagnose(sim.white(20, d, rng)).standard_error < 0.1 / np.sqrt(n)).all()


def test_extreme_regime_has_the_spread_of_a_stable_law():
    """At each query, for its own tail index, where one point is everything."""
    d, n, rng = 30, 5000, np.random.default_rng(4)
    h_g = gaussian_thresholds(n, np.ones(d)).h_g
    kde = HighDimKernelDensity(bandwidth=0.15 * h_g).fit(sim.white(n, d, rng))
    found = kde.diagnose(sim.white(200, d, rng))
    ratio = found.standard_error / extreme_spread(found.tail_index)
    assert np.abs(np.log(ratio)).max() < 0.3  # the limit law has no bend


def test_weights():
    """Points come with weights of their own: the spread over data sets so drawn."""
    d, n, rng = 20, 2000, np.random.default_rng(5)
    queries = sim.white(N_QUERIES, d, rng)
    bandwidths = gaussian_thresholds(n, np.ones(d)).h_g * np.array([0.6, 1.2, 2.5])

    def draw_weights():
        return rng.exponential(size=n) ** 2

    log_densities = []
    for _ in range(N_SETS):
        sq, weights = sim.squared_distances(queries, sim.white(n, d, rng)), draw_weights()
        low = sq.min(axis=1)[:, None]
        log_densities.append([
            np.log(np.exp((low - sq) / (2.0 * h**2)) @ weights / weights.sum())
            - low[:, 0] / (2.0 * h**2)
            for h in bandwidths
        ])  # fmt: skip
    truth = sim.spread(np.array(log_densities))
    ratios = []
    for _ in range(4):
        points, weights = sim.white(n, d, rng), draw_weights()
        fits = (HighDimKernelDensity(bandwidth=h) for h in bandwidths)
        found = [fit.fit(points, sample_weight=weights).diagnose(queries) for fit in fits]
        ratios.append([f.standard_error for f in found] / truth)
    ratio = np.median(np.moveaxis(ratios, 1, 0).reshape(len(bandwidths), -1), axis=1)
    assert (np.abs(np.log(ratio)) < np.log(1.3)).all(), ratio


def clusters(n_samples, n_features, rng):
    """Two hundred tight groups: far fewer points in each than the law is fitted to."""
    centres = np.random.default_rng(7).standard_normal((200, n_features))
    noise = rng.standard_normal((n_samples, n_features))
    return centres[rng.integers(200, size=n_samples)] + 0.1 * noise


def test_groups_smaller_than_the_neighbourhood():
    ratios = median_ratios(clusters, 20, 2000, [0.1, 0.15, 0.25])
    assert (np.abs(np.log(ratios)) < np.log(2.0)).all(), ratios


def test_a_duplicate_of_the_query():
    """It does not decide the error bar where the others are many."""
    d, n, rng = 200, 1000, np.random.default_rng(9)
    points = sim.white(n, d, rng)
    for h in (4.0, 6.0):
        kde = HighDimKernelDensity(bandwidth=h).fit(points)
        ratio = (
            kde.diagnose(points[:5]).standard_error / kde.diagnose().standard_error[:5]
        )
        assert (np.abs(np.log(ratio)) < np.log(1.3)).all(), ratio


@pytest.mark.parametrize(
    "kernel, h", [("gaussian", 2.0), ("gaussian", 5.0), ("linear", 8)]
)
def test_leave_one_out_is_a_fit_to_the_others(kernel, h):
    """Error bars too, and with weights of which one is nearly all."""
    rng = np.random.default_rng(10)
    points, weights = sim.white(200, 10, rng), rng.lognormal(sigma=2.0, size=200)
    weights[0] = 1e4
    kde = HighDimKernelDensity(bandwidth=h, kernel=kernel)
    found = kde.fit(points, sample_weight=weights).diagnose()
    for i in (0, 1, 199):
        others = np.arange(200) != i
        kde.fit(points[others], sample_weight=weights[others])
        expected = kde.diagnose(points[i : i + 1])
        for name in ("log_density", "standard_error", "effective_sample_size"):
            left_out, refitted = getattr(found, name)[i], getattr(expected, name)[0]
            assert left_out == pytest.approx(refitted, rel=1e-6), name
