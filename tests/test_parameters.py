"""Parameters that are set after fit, and methods that every estimator has."""

import inspect
import re
import typing

import dask.array as da
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone

from skhdkde import BandwidthDisplay, HighDimKernelDensity, RegimeDisplay
from skhdkde.dask import DaskHighDimKernelDensity

X = np.random.default_rng(0).standard_normal((60, 3))
BLOCKS = da.from_array(X, chunks=(25, 3))
pytestmark = pytest.mark.usefixtures("in_this_thread")

ESTIMATORS = {HighDimKernelDensity: X, DaskHighDimKernelDensity: BLOCKS}
METHODS = {
    "score_samples": lambda kde: kde.score_samples(X),
    "score_samples of training points": lambda kde: kde.score_samples(None),
    "score": lambda kde: kde.score(X),
    "diagnose": lambda kde: kde.diagnose(X),
    "diagnose training points": lambda kde: kde.diagnose(),
    "log_density_gradient": lambda kde: kde.log_density_gradient(X),
    "sample": lambda kde: kde.sample(2, random_state=0),
}
BAD = [
    {"backend": "nonsense"},
    {"n_jobs": 0},
    {"n_jobs": 1.5},
    {"tol": -1},
    {"verbose": "x"},
    {"bandwidth": -1.0},
]


@pytest.mark.parametrize("parameters", BAD, ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_parameter_set_after_fit_is_checked(kind, method, parameters):
    """Methods raise the error that fit raises."""
    kde = kind(bandwidth=0.5).fit(ESTIMATORS[kind])
    expected = METHODS[method](kde)
    kde.set_params(**parameters)
    with pytest.raises(ValueError) as of_fit:
        clone(kde).fit(ESTIMATORS[kind])
    with pytest.raises(type(of_fit.value)) as of_method:
        METHODS[method](kde)
    assert str(of_method.value) == str(of_fit.value)
    kde.set_params(**{name: getattr(kind(), name) for name in parameters})
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(METHODS[method](kde), expected)


# Values that are equal to valid ones, and of another type.
EQUAL = [
    ({"n_jobs": 1}, 1.0),
    ({"adaptive": 3}, 3.0),
    ({"preserve_variance": False}, 0),
    ({"n_neighbors": 4}, 4.0),
    ({"bandwidth": 0.5}, np.array([0.5, 0.5])),
]


@pytest.mark.parametrize("valid, equal", EQUAL, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_an_equal_value_of_another_type_is_checked(method, valid, equal):
    kde = HighDimKernelDensity(**{"bandwidth": 0.5, **valid}).fit(X)
    kde.set_params(**dict.fromkeys(valid, equal))
    with pytest.raises(ValueError) as of_fit:
        clone(kde).fit(X)
    with pytest.raises(type(of_fit.value)) as of_method:
        METHODS[method](kde)
    assert str(of_method.value) == str(of_fit.value)


@pytest.mark.parametrize("display", [BandwidthDisplay, RegimeDisplay])
def test_displays_check_parameters_too(display):
    kde = HighDimKernelDensity(bandwidth=0.5).fit(X).set_params(n_jobs=0)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        display.from_estimator(kde)


def test_parameters_set_after_fit_are_used():
    kde = HighDimKernelDensity(bandwidth=0.5, backend="numpy").fit(X)
    expected = kde.score_samples(X)
    kde.set_params(n_jobs=2, verbose=0)
    np.testing.assert_allclose(kde.score_samples(X), expected, rtol=1e-12)


# How each method is called that is not one of all estimators of scikit-learn.
CALLS = {
    "fit": lambda kde: kde.fit(kde.score_samples(BLOCKS)[:, None]),
    "score_samples": lambda kde: kde.score_samples(BLOCKS).compute(),
    "score": lambda kde: kde.score(BLOCKS),
    "diagnose": lambda kde: kde.diagnose(BLOCKS),
    "log_density_gradient": lambda kde: kde.log_density_gradient(BLOCKS).compute(),
    "sample": lambda kde: kde.sample(2),
    "set_fit_request": lambda kde: kde.set_fit_request,
    "set_score_request": lambda kde: kde.set_score_request,
}


def test_every_method_works_on_blocks():
    """None needs what only the estimator of one machine has."""
    kde = DaskHighDimKernelDensity(bandwidth=0.5).fit(BLOCKS)
    of_all = {name for name, _ in inspect.getmembers(BaseEstimator)}
    names = {name for name in dir(kde) if not name.startswith("_")} - of_all
    methods = {
        name for name in names if inspect.isroutine(getattr(type(kde), name, None))
    }
    assert methods == CALLS.keys()
    for call in CALLS.values():
        call(DaskHighDimKernelDensity(bandwidth=0.5).fit(BLOCKS))
    assert not isinstance(kde, HighDimKernelDensity)
    for name in ("_options", "_log_density", "_compute_options"):
        assert not hasattr(kde, name)


def test_displays_of_blocks_work_or_say_why_not():
    kde = DaskHighDimKernelDensity(bandwidth=0.5).fit(BLOCKS)
    RegimeDisplay.from_estimator(kde, X)
    with pytest.raises(TypeError, match="BandwidthDisplay needs the training points"):
        BandwidthDisplay.from_estimator(kde)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_hints_can_be_read_at_run_time(kind):
    for name in CALLS:
        method = getattr(kind, name, None)
        if method is not None:
            assert "return" in typing.get_type_hints(method) or name.startswith("set_")
    typing.get_type_hints(kind)


@pytest.mark.parametrize(
    "parameters", [{}, {"covariance_type": "local"}, {"algorithm": "sampling"}], ids=str
)
def test_every_pass_says_what_it_is_for(parameters, capsys):
    kde = HighDimKernelDensity(random_state=0, verbose=1, **parameters).fit(X)
    said = capsys.readouterr().err
    for method in ("score_samples", "diagnose", "log_density_gradient"):
        METHODS[method](kde)
        said += capsys.readouterr().err
    lines = [line for line in re.split(r"[\r\n]+", said) if line.strip()]
    labels = {line.split(":")[0] for line in lines}
    assert {"density", "gradient"} <= labels
    assert labels <= {
        "bandwidth",
        "structure search",
        "density",
        "gradient",
        "calibration",
    }
