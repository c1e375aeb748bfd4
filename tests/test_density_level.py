"""Log densities above which lies a share of the mass."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2
from sklearn.exceptions import NotFittedError

from skhdkde import HighDimKernelDensity

SHARES = np.array([0.1, 0.5, 0.9, 0.95])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"covariance_type": "full", "preserve_variance": True},
        {"covariance_type": "full", "feature_maps": "yeo-johnson"},
    ],
)
def test_fresh_points_are_inside(parameters):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((5, 5))
    X, fresh = (rng.standard_normal((n, 5)) @ mixing for n in (600, 4000))
    kde = HighDimKernelDensity(random_state=0, **parameters).fit(X)
    levels = kde.density_level(SHARES)
    inside = np.mean(kde.score_samples(fresh)[:, None] >= levels, axis=0)
    error = np.sqrt(SHARES * (1.0 - SHARES) * (1 / 600 + 1 / 4000))
    assert (np.abs(inside - SHARES) < 3.5 * error).all()
    assert kde.density_level(0.5) == levels[1]
    assert isinstance(kde.density_level(0.5), float)


def test_levels_of_a_normal_law():
    X = np.random.default_rng(0).standard_normal((4000, 3))
    kde = HighDimKernelDensity(
        covariance_type="full", preserve_variance=True, random_state=0
    ).fit(X)
    truth = -0.5 * chi2(3).ppf(SHARES) - 1.5 * np.log(2.0 * np.pi)
    assert_allclose(kde.density_level(SHARES), truth, atol=0.2)


def test_ties_and_weights():
    """Points in pairs, alone, have two log densities: the heavier pair's is higher."""
    X = np.array([[0.0], [0.1], [100.0], [100.2], [7.0]])
    weights = np.array([1.0, 1.0, 3.0, 3.0, 0.0])
    kde = HighDimKernelDensity(bandwidth=0.1).fit(X, sample_weight=weights)
    held_out = kde.held_out_log_density_
    light, heavy = held_out[0], held_out[2]
    assert_allclose(held_out[[1, 3]], [light, heavy], rtol=1e-9)
    low, high = sorted([light, heavy])
    share = 0.25 if high == light else 0.75
    found = kde.density_level([0.5 * share, share - 1e-9, share, share + 1e-9, 0.99])
    assert_allclose(found, [high, high, high, low, low], rtol=1e-9)


@pytest.mark.parametrize("mass", [0.0, 1.0, -0.1, 95, np.nan, [0.5, 1.0]])
def test_shares_that_are_none(mass):
    kde = HighDimKernelDensity(bandwidth=1.0).fit(np.arange(5.0)[:, None])
    with pytest.raises(ValueError, match="mass must be above 0 and below 1"):
        kde.density_level(mass)


@pytest.mark.filterwarnings("ignore")
def test_where_nothing_is_held_out():
    kde = HighDimKernelDensity(bandwidth=1.0).fit([[0.0, 1.0]])
    with pytest.raises(ValueError, match=r"at least two training points.*score_samples"):
        kde.density_level(0.9)
    full = HighDimKernelDensity(bandwidth=1.0, covariance_type="full")
    with pytest.raises(ValueError, match="at least 3 distinct points"):
        full.fit([[0.0, 1.0], [1.0, 0.0]]).density_level(0.9)


def test_before_the_fit():
    with pytest.raises(NotFittedError):
        HighDimKernelDensity(bandwidth=1.0).density_level(0.9)


def test_points_out_of_reach_warn():
    X = np.r_[np.linspace(0.0, 1.0, 9), 50.0][:, None]
    kde = HighDimKernelDensity(bandwidth=0.5, kernel="tophat").fit(X)
    assert np.isfinite(kde.density_level(0.9))
    with pytest.warns(UserWarning, match=r"-inf for mass=0.95: a share of 0\.1 of the"):
        assert kde.density_level(0.95) == -np.inf
