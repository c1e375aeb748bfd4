"""The Displays: stored arrays, what is drawn, errors."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import BandwidthDisplay, HighDimKernelDensity, RegimeDisplay
from skhdkde.regimes import REGIMES

DISPLAYS = [BandwidthDisplay, RegimeDisplay]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(2, 600, 20))


@pytest.fixture(scope="module")
def kde(data):
    return HighDimKernelDensity().fit(data[0])


def test_held_out_curve(kde, data):
    grid = np.array([0.7, 0.9, 1.1, 2.0])
    display = BandwidthDisplay.from_estimator(kde, data[1], bandwidths=grid[::-1])
    np.testing.assert_array_equal(display.bandwidths, grid)
    for h, value, error in zip(grid, display.values, display.standard_error, strict=True):
        scores = HighDimKernelDensity(bandwidth=h).fit(data[0]).score_samples(data[1])
        assert value == pytest.approx(scores.mean(), abs=1e-3)
        assert error == pytest.approx(scores.std() / np.sqrt(600), rel=1e-3)
    np.testing.assert_array_equal(display.line_.get_xdata(), grid)
    np.testing.assert_array_equal(display.line_.get_ydata(), display.values)
    found = kde.diagnose(data[1])
    assert display.h_g == pytest.approx(np.median(found.h_g), rel=1e-6)
    assert display.h_clt == pytest.approx(np.median(found.h_clt), rel=1e-6)
    assert "held-out" in display.ax_.get_ylabel()
    assert "nats" in display.ax_.get_ylabel()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_leave_one_out_curve(data, dtype):
    X = data[0].astype(dtype)
    kde = HighDimKernelDensity().fit(X)
    display = BandwidthDisplay.from_estimator(kde)
    assert display.h_kl == pytest.approx(kde.bandwidth_, rel=2e-3)
    assert display.bandwidth == kde.bandwidth_
    assert display.h_g == pytest.approx(np.median(kde.diagnose().h_g), rel=1e-4)
    i = 30
    h = display.bandwidths[i]
    scores = HighDimKernelDensity(bandwidth=h).fit(X).score_samples(None)
    assert display.values[i] == pytest.approx(scores.mean(), abs=1e-2)
    assert "leave-one-out" in display.ax_.get_ylabel()


def test_divergence(kde, data):
    truth = multivariate_normal(np.zeros(20)).logpdf
    display = BandwidthDisplay.from_estimator(kde, data[1], true_log_density=truth)
    plain = BandwidthDisplay.from_estimator(kde, data[1], bandwidths=display.bandwidths)
    expected = truth(data[1]).mean() - plain.values
    np.testing.assert_allclose(display.values, expected, atol=1e-9)
    assert display.h_kl == pytest.approx(plain.h_kl, rel=0.02)
    assert "KL divergence" in display.ax_.get_ylabel()
    loo = BandwidthDisplay.from_estimator(kde, true_log_density=truth)
    assert (loo.values > 0.0).all()


def test_the_best_is_within_the_grid(data):
    for bandwidth in (0.05, 30.0):
        kde = HighDimKernelDensity(bandwidth=bandwidth).fit(data[0])
        display = BandwidthDisplay.from_estimator(kde, data[1])
        assert 0.7 < display.h_kl < 1.1
        assert display.bandwidths[0] < bandwidth < display.bandwidths[-1]
        legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert f"in use = {bandwidth:.3g}" in legend
        assert f"$h_{{KL}}$ = {display.h_kl:.3g}" in legend


@pytest.mark.parametrize("kernel", ["exponential", "tophat"])
def test_other_kernels(data, kernel):
    X = data[0][:, :3]
    kde = HighDimKernelDensity(kernel=kernel).fit(X)
    display = BandwidthDisplay.from_estimator(kde)
    assert display.h_kl == pytest.approx(kde.bandwidth_, rel=0.1)
    regimes = RegimeDisplay.from_estimator(kde)
    compact = kernel == "tophat"
    assert regimes.y == ("effective_sample_size" if compact else "tail_index")


def test_regimes(kde, data):
    display = RegimeDisplay.from_estimator(kde, data[1])
    found = kde.diagnose(data[1])
    assert set(display.scatter_) == {name for name in REGIMES if found.shares[name]}
    for name, points in display.scatter_.items():
        rows = found.regime == name
        expected = np.column_stack([found.log_density, found.tail_index])[rows]
        np.testing.assert_allclose(points.get_offsets(), expected)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert f"extreme ({found.shares['extreme']:.0%})" in legend
    again = RegimeDisplay.from_diagnosis(found, y="effective_sample_size", s=3)
    assert again.diagnosis is found
    assert "number of points" in again.ax_.get_ylabel()
    assert again.scatter_["extreme"].get_sizes() == [3]


def test_out_of_reach_is_said(data):
    kde = HighDimKernelDensity(bandwidth=3.0, kernel="tophat").fit(data[0])
    display = RegimeDisplay.from_estimator(kde, data[1])
    n_out = np.isneginf(display.diagnosis.log_density).sum()
    assert 0 < n_out < 600
    assert f"{n_out} out of reach" in display.ax_.get_legend().get_title().get_text()
    nothing = HighDimKernelDensity(bandwidth=1e-3, kernel="tophat").fit(data[0])
    assert RegimeDisplay.from_estimator(nothing, data[1]).scatter_ == {}


@pytest.mark.parametrize("Display", DISPLAYS)
def test_axes(Display, kde, data):
    _, ax = plt.subplots()
    display = Display.from_estimator(kde, data[1], ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert display.plot() is display
    assert display.ax_ is not ax
    display.figure_.canvas.draw()


@pytest.mark.parametrize("Display", DISPLAYS)
def test_pipeline(Display, data):
    pipeline = make_pipeline(StandardScaler(), HighDimKernelDensity()).fit(5.0 * data[0])
    display = Display.from_estimator(pipeline, 5.0 * data[1])
    alone = Display.from_estimator(pipeline[-1], pipeline[:-1].transform(5.0 * data[1]))
    if Display is BandwidthDisplay:
        np.testing.assert_array_equal(display.values, alone.values)
    else:
        np.testing.assert_array_equal(
            display.diagnosis.log_density, alone.diagnosis.log_density
        )


@pytest.mark.parametrize("Display", DISPLAYS)
def test_errors(Display, kde, data, monkeypatch):
    with pytest.raises(TypeError, match=r"estimator must be .* got LinearRegression"):
        Display.from_estimator(LinearRegression())
    with pytest.raises(Exception, match="not fitted"):
        Display.from_estimator(HighDimKernelDensity())
    with pytest.raises(ValueError, match="X has 3 features"):
        Display.from_estimator(kde, data[1][:, :3])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="requires matplotlib"):
        Display.from_estimator(kde)


@pytest.mark.parametrize("bandwidths", [2, True, [1.0, 2.0], [-1.0, 1.0, 2.0], [1.0] * 5])
def test_bad_bandwidths(kde, bandwidths):
    with pytest.raises(ValueError, match="bandwidths must be"):
        BandwidthDisplay.from_estimator(kde, bandwidths=bandwidths)


def test_bad_y(kde):
    with pytest.raises(ValueError, match=r"y must be 'auto' or one of .* got 'size'"):
        RegimeDisplay.from_estimator(kde, y="size")


def test_bandwidth_display_goes_up_where_no_query_is_in_reach():
    X = np.random.default_rng(3).normal(size=(200, 1))
    kde = HighDimKernelDensity(bandwidth=0.5, kernel="linear").fit(X)
    display = BandwidthDisplay.from_estimator(kde)
    assert np.isfinite(display.values).any()
    best = HighDimKernelDensity(kernel="linear").fit(X).bandwidth_
    assert display.h_kl == pytest.approx(best, rel=0.05)


def test_bandwidth_display_needs_two_points():
    kde = HighDimKernelDensity(bandwidth=0.5).fit(np.ones((5, 2)))
    with pytest.raises(ValueError, match="two distinct"):
        BandwidthDisplay.from_estimator(kde)


def test_true_log_density_of_another_shape():
    X = np.random.default_rng(3).normal(size=(50, 2))
    kde = HighDimKernelDensity(bandwidth=0.5).fit(X[:30])
    with pytest.raises(
        ValueError, match=r"true_log_density .*\(20,\) without NaN, got \(20, 2\)"
    ):
        BandwidthDisplay.from_estimator(kde, X[30:], true_log_density=np.square)
    with pytest.raises(ValueError, match=r"true_log_density .* 20 NaN"):
        BandwidthDisplay.from_estimator(
            kde, X[30:], true_log_density=lambda X: np.full(len(X), np.nan)
        )
    with pytest.raises(TypeError, match="true_log_density must be a function"):
        BandwidthDisplay.from_estimator(kde, X[30:], true_log_density=np.zeros(20))
    with pytest.warns(UserWarning, match="KL divergence .* is negative"):
        BandwidthDisplay.from_estimator(
            kde, X[30:], true_log_density=lambda X: np.full(len(X), -50.0)
        )


def test_what_is_not_a_diagnosis_or_an_estimator():
    with pytest.raises(TypeError, match=r"diagnosis must be what .* got list"):
        RegimeDisplay.from_diagnosis([1.0])
    with pytest.raises(TypeError, match="GridSearchCV that ends in one, got ndarray"):
        RegimeDisplay.from_estimator(np.zeros(3))


def test_nothing_to_show():
    X = np.random.default_rng(3).normal(size=(50, 2))
    kde = HighDimKernelDensity(bandwidth=0.5, kernel="tophat").fit(X)
    display = RegimeDisplay.from_estimator(kde, y="tail_index")
    assert "no query has a finite" in display.ax_.texts[0].get_text()


def test_structures(data):
    kde = HighDimKernelDensity(
        covariance_type="full", preserve_variance=True, kernel="student", bandwidth=0.6,
        degrees_of_freedom=6.0,
    ).fit(data[0])  # fmt: skip
    display = BandwidthDisplay.from_estimator(kde, data[1], bandwidths=[0.3, 0.6, 0.8])
    for h, value in zip(display.bandwidths, display.values, strict=True):
        scores = clone(kde).set_params(bandwidth=h).fit(data[0]).score_samples(data[1])
        assert value == pytest.approx(scores.mean(), abs=1e-6)
    whole = BandwidthDisplay.from_estimator(kde, data[1])
    assert whole.bandwidths.max() == pytest.approx(
        np.sqrt(4.0 / 6.0)
    )  # where all is the kernel's
    regimes = RegimeDisplay.from_estimator(kde, data[1])
    found = regimes.diagnosis.log_density
    np.testing.assert_allclose(found, kde.score_samples(data[1]), atol=1e-8)


@pytest.mark.parametrize(
    "structure, unit", [("spherical", "data units"), ("diag", "whitened units")]
)
def test_the_axis_names_the_unit_of_bandwidths(data, structure, unit):
    kde = HighDimKernelDensity(covariance_type=structure).fit(data[0][:200])
    display = BandwidthDisplay.from_estimator(kde, bandwidths=5)
    assert display.ax_.get_xlabel() == f"bandwidth ({unit})"
