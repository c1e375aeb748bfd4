"""The law of the number of points around a query, apart from the estimators."""

import numpy as np
import pytest
from scipy.stats import gamma

from skhdkde._diagnosis.local_law import LocalLaw


@pytest.mark.parametrize("shape", [1.0, 5.0, 25.0, 200.0])
def test_local_law_of_gamma_distances(shape):
    """The model is exact there: the law is right where it is extrapolated to."""
    n, rng = 5000, np.random.default_rng(6)
    sq = np.sort(rng.gamma(shape, size=(1000, n)), axis=1)[:, :33]
    law = LocalLaw.fit(sq, n)
    one = gamma.ppf(1.0 / n, shape)
    dimension = 2.0 * n * one * gamma.pdf(one, shape)
    scale = 2.0 / dimension  # of the natural scatter of log distances
    error = np.log(np.median(law.squared_distance(1.0)) / one)
    assert abs(error) < 0.15 * scale
    assert np.median(law.dimension(1.0)) == pytest.approx(dimension, rel=0.06)
    ten = gamma.ppf(10.0 / n, shape)
    assert abs(np.log(np.median(law.squared_distance(10.0)) / ten)) < 0.06 * scale


def test_local_law_of_powers():
    """In few dimensions the count is a power of the distance."""
    n, m, rng = 100_000, 4, np.random.default_rng(7)
    sq = np.sort(rng.uniform(size=(300, n)) ** (2.0 / m), axis=1)[:, :33]
    law = LocalLaw.fit(sq, n)
    assert np.median(law.dimension(1.0)) == pytest.approx(m, rel=0.07)
    counts = np.array([0.1, 1.0, 32.0])
    found = np.median(law.squared_distance(counts), axis=0)
    np.testing.assert_allclose(found, (counts / n) ** (2.0 / m), rtol=0.25)
    assert law.squared_distance(counts.reshape(3, 1)).shape == (300, 3, 1)


@pytest.mark.parametrize("n_duplicates", [1, 2, 5])
def test_local_law_is_not_ruled_by_duplicates(n_duplicates):
    """A point at distance zero has an infinite log distance."""
    n, rng = 5000, np.random.default_rng(8)
    sq = np.sort(rng.gamma(20.0, size=(500, n)), axis=1)[:, :33]
    duplicates = np.hstack([np.zeros((500, n_duplicates)), sq])[:, :33]
    plain, other = (
        LocalLaw.fit(sq, n).dimension(1.0),
        LocalLaw.fit(duplicates, n).dimension(1.0),
    )
    assert np.median(other / plain) == pytest.approx(1.0, abs=0.3 * n_duplicates)
    assert np.median(other / plain) > 0.35


@pytest.mark.parametrize(
    "nearest",
    [np.zeros((1, 33)), np.ones((1, 33)), np.r_[np.zeros(20), np.ones(13)][None]],
)
def test_local_law_of_ties(nearest):
    law = LocalLaw.fit(nearest, 100)
    assert np.isfinite(law.dimension(1.0)).all()
    assert (law.dimension(1.0) > 0.0).all()
    assert np.isfinite(law.squared_distance(1.0)).all()


def test_the_test_of_the_law():
    """It seldom rejects a law that holds, and always one of two scales."""
    rng = np.random.default_rng(8)
    true = np.sort(rng.uniform(size=(2000, 33)) ** 0.2, axis=1)
    assert 0.97 < LocalLaw.fit(true, 10**6).fits.mean() < 1.0
    small = rng.uniform(size=(500, 10)) ** 0.2
    mixed = np.sort(np.hstack([small, 30.0 + rng.uniform(size=(500, 23))]), axis=1)
    assert not LocalLaw.fit(mixed, 10**6).fits.any()
