"""scipy's gaussian_kde, by the parameters that doc/gaussian_kde.rst gives."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import gaussian_kde
from sklearn.covariance import EmpiricalCovariance

from skhdkde import HighDimKernelDensity


def as_scipy(theirs):
    """Return the estimator that is to agree with a ``gaussian_kde``."""
    return HighDimKernelDensity(
        covariance_type="full",
        covariance_estimator=EmpiricalCovariance(),
        bandwidth=theirs.factor * np.sqrt(theirs.neff / (theirs.neff - 1.0)),
    )


def theirs_of(X, bw_method, weights):
    """Return a ``gaussian_kde`` of rows; its logpdf is NaN where a weight is zero."""
    if weights is None:
        return gaussian_kde(X.T, bw_method)
    return gaussian_kde(X[weights > 0].T, bw_method, weights[weights > 0])


def normal(n, d, seed):
    """Return correlated points in units that differ, away from the origin."""
    rng = np.random.default_rng(seed)
    return 7.0 + rng.normal(size=(n, d)) @ np.tri(d) * np.geomspace(1.0, 50.0, d)


WEIGHTS = {
    "none": None,
    "uneven": np.random.default_rng(2).exponential(size=300),
    "some zero": np.arange(300) % 3.0,
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("bw_method", ["scott", "silverman", 0.2])
@pytest.mark.parametrize("d", [1, 2, 5, 20])
def test_log_densities_are_scipys(d, bw_method, weights):
    X, queries = normal(300, d, 0), normal(50, d, 1)
    theirs = theirs_of(X, bw_method, weights)
    ours = as_scipy(theirs).fit(X, sample_weight=weights)
    expected = theirs.logpdf(queries.T)
    assert_allclose(ours.score_samples(queries), expected, rtol=1e-13)
    kept = [d - 1, 0] if d > 1 else [0]
    expected = theirs.marginal(np.array(kept)).logpdf(queries[:, kept].T)
    found = ours.marginal(kept).score_samples(queries[:, kept])
    assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("rule", ["scott", "silverman"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_factors_of_rules_are_scipys(rule, weights):
    X = normal(300, 3, 0)
    ours = as_scipy(gaussian_kde(X.T)).set_params(bandwidth=rule)
    ours.fit(X, sample_weight=weights)
    assert ours.bandwidth_ == pytest.approx(theirs_of(X, rule, weights).factor)
