"""Errors about what other packages have, or what is misspelt, say what to do."""

import inspect

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError, StrOptions

from skhdkde import (
    BandwidthDisplay,
    HighDimKernelDensity,
    RegimeDisplay,
    select_bandwidth,
)
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = pytest.mark.usefixtures("in_this_thread")

X = np.random.default_rng(0).standard_normal((60, 3))
KINDS = HighDimKernelDensity, DaskHighDimKernelDensity


# Options.


def options(constraints):
    """Yield the string options of each parameter."""
    for name, allowed in constraints.items():
        choices = [c.options for c in allowed if isinstance(c, StrOptions)]
        if choices:
            yield name, sorted(set().union(*choices))


# What is called, and its parameters that take strings.
CALLS = {
    kind.__name__: (
        lambda kind=kind, **kwargs: kind(**kwargs).fit(X),
        dict(options(kind._parameter_constraints)),
    )
    for kind in KINDS
}
CALLS["select_bandwidth"] = (
    lambda **kwargs: select_bandwidth(X, **kwargs),
    dict(options(select_bandwidth._skl_parameter_constraints)),
)
CALLS["RegimeDisplay"] = (
    lambda **kwargs: RegimeDisplay.from_diagnosis(
        HighDimKernelDensity(bandwidth=0.5).fit(X).diagnose(), **kwargs
    ),
    {"y": ["auto", "effective_sample_size", "tail_index"]},
)
PARAMETERS = [(call, name) for call, (_, names) in CALLS.items() for name in names]


def test_parameters_are_found():
    assert len(PARAMETERS) == 25
    assert CALLS["HighDimKernelDensity"][1]["bandwidth"][0] == "clt"


def check_hint(call, name, meant, written):
    function, names = CALLS[call]
    if written in names[name]:
        return
    with pytest.raises(ValueError) as error:
        function(**{name: written})
    assert str(error.value).endswith(f" Did you mean {meant!r}?"), error.value
    assert repr(written) in str(error.value)


@pytest.mark.parametrize("call, name", PARAMETERS)
def test_wrong_case(call, name):
    for option in CALLS[call][1][name]:
        for written in (option.upper(), option.capitalize(), f" {option}"):
            check_hint(call, name, option, written)


def misspelt(source):
    call, name = source.draw(st.sampled_from(PARAMETERS), "call and parameter")
    meant = source.draw(st.sampled_from(CALLS[call][1][name]), "option")
    if len(meant) < 4:  # more than one letter in three would be another word
        return
    place = source.draw(st.integers(0, len(meant) - 1), "place")
    letter = source.draw(st.sampled_from("aeiknstwz"), "letter")
    before, after = meant[:place], meant[place:]
    written = source.draw(
        st.sampled_from(
            [before + letter + after, before + after[1:], before + letter + after[1:]]
        ),
        "written",
    )
    written = source.draw(st.sampled_from([written, written.capitalize()]), "case")
    check_hint(call, name, meant, written)


@examples(40)
@given(source=st.data())
def test_one_letter_wrong(source):
    misspelt(source)


def test_nothing_like_it():
    with pytest.raises(ValueError) as error:
        HighDimKernelDensity(kernel="xyz").fit(X)
    assert str(error.value).endswith("Got 'xyz' instead.")
    with pytest.raises(ValueError, match=r"Got -1.0 instead\.$"):
        HighDimKernelDensity(bandwidth=-1.0).fit(X)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_that_are_set_after_fit(kind):
    kde = kind(bandwidth=0.5).fit(X).set_params(backend="Numpy")
    with pytest.raises(InvalidParameterError, match="Did you mean 'numpy'"):
        kde.score_samples(X)


@pytest.mark.parametrize("algorithm", ["ball_tree", "kd_tree"])
def test_trees(algorithm):
    KernelDensity(algorithm=algorithm).fit(X)
    with pytest.raises(ValueError, match=r"There are no trees: 'exact' sums over all"):
        HighDimKernelDensity(algorithm=algorithm).fit(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "several", [[0.1, 0.5], (0.1, 0.5), np.array([0.1, 0.5]), pd.Series([0.1, 0.5])]
)
def test_several_bandwidths(kind, several):
    message = "Pass one value: GridSearchCV compares several, and 'kl' finds the best by"
    with pytest.raises(ValueError, match=message):
        kind(bandwidth=several).fit(X)


def test_several_of_others():
    for name, several in (("kernel", ["gaussian", "tophat"]), ("algorithm", X[0])):
        message = "Pass one value: GridSearchCV compares several.$"
        with pytest.raises(ValueError, match=message):
            HighDimKernelDensity(**{name: several}).fit(X)
    with pytest.raises(ValueError, match=r"Pass bandwidth.item\(\).$"):
        HighDimKernelDensity(bandwidth=np.array(0.5)).fit(X)


# Parameters.


def parameters_of(function):
    return set(inspect.signature(function).parameters) - {"self"}


HINTS = {
    "metric": "the distance is Euclidean; for another, transform the features",
    "metric_params": "the distance is Euclidean; leave it out",
    "leaf_size": "there is no tree; leave it out",
    "breadth_first": "there is no tree; leave it out",
    "atol": "sums are exact by default; leave it out, or set algorithm='auto' and tol",
    "rtol": "sums are exact by default; leave it out, or set algorithm='auto' and tol",
    "bw_method": "it is bandwidth, which is in the units of the data if it is a number",
    "weights": "pass sample_weight to fit",
    "dataset": "pass points, as rows, to fit",
    "bandwith": "Did you mean 'bandwidth'?",
    "Kernel": "Did you mean 'kernel'?",
    "covariance": "Did you mean 'covariance_type'?",
    "random_seed": "Did you mean 'random_state'?",
}


def test_all_parameters_of_others_are_known():
    """Every parameter of scikit-learn's and of scipy's estimate is ours or has a hint."""
    theirs = parameters_of(KernelDensity) | parameters_of(scipy.stats.gaussian_kde)
    assert len(theirs) >= 11
    assert theirs <= parameters_of(HighDimKernelDensity) | HINTS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HINTS)
def test_unknown_parameter(kind, name):
    says, known = f"{kind.__name__} has no parameter {name!r}", set(kind().get_params())
    with pytest.raises(TypeError) as error:
        kind(bandwidth=0.5, **{name: 1})
    assert str(error.value).startswith(says)
    assert HINTS[name] in str(error.value)
    pipeline = make_pipeline(kind())
    with pytest.raises(ValueError, match="Invalid parameter") as error:
        pipeline[0].set_params(**{name: 1})
    assert f"{says}" in str(error.value)
    assert HINTS[name] in str(error.value)
    with pytest.raises(ValueError) as of_pipeline:
        pipeline.set_params(**{f"{kind.__name__.lower()}__{name}": 1})
    assert str(of_pipeline.value) == str(error.value)
    assert set(kind().get_params()) == known


def test_several_unknown_parameters():
    with pytest.raises(TypeError, match=r"'leaf_size': there is.* 'metric': the dist"):
        HighDimKernelDensity(leaf_size=40, metric="euclidean")


def test_nested_parameters_have_their_own_errors():
    kde = HighDimKernelDensity(covariance_estimator=PCA(2))
    kde.set_params(covariance_estimator__n_components=1)
    assert kde.covariance_estimator.n_components == 1
    with pytest.raises(ValueError) as error:
        kde.set_params(covariance_estimator__metric="l1")
    assert "HighDimKernelDensity" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_names(kind):
    name = kind.__name__
    for args, message in [
        ((0.5,), rf"Write {name}\(bandwidth=0.5\).$"),
        ((0.5, "gaussian"), rf"Write {name}\(bandwidth=0.5\).$"),
        (("scott",), rf"Write, say, {name}\(bandwidth='kl', kernel='gaussian'\).$"),
        ((X,), rf"Points are passed to fit, as rows: {name}\(\).fit\(X\).$"),
        ((pd.DataFrame(X),), r"Points are passed to fit"),
        (([1.0, 2.0],), r"Points are passed to fit"),
    ]:
        with pytest.raises(TypeError, match=f"{name} takes parameters by name only. "):
            kind(*args)
        with pytest.raises(TypeError, match=message):
            kind(*args)


def test_the_constructor_has_its_signature():
    """scikit-learn reads parameters from it, and so do editors and documentation."""
    for kind in KINDS:
        for found in (inspect.signature(kind), inspect.signature(kind.__init__)):
            parameters = [p for p in found.parameters.values() if p.name != "self"]
            assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}
            assert {p.name: p.default for p in parameters} == kind().get_params()
        assert clone(kind(bandwidth=0.5)).bandwidth == 0.5


def test_subclasses_have_parameters_of_their_own():
    class WithMetric(HighDimKernelDensity):
        def __init__(self, metric="euclidean", *, bandwidth="kl"):
            super().__init__(bandwidth=bandwidth)
            self.metric = metric

    kde = WithMetric("l1", bandwidth=0.5)
    assert clone(kde).get_params() == {"bandwidth": 0.5, "metric": "l1"}
    assert kde.set_params(metric="l2").metric == "l2"


# Data.


@pytest.mark.parametrize(
    "of",
    [np.asarray, pd.DataFrame, lambda X: da.from_array(X, chunks=(2, 30))],
    ids=["numpy", "pandas", "dask"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_transposed_queries(kind, of):
    kde = kind(bandwidth=0.5).fit(X)
    for method in (kde.score_samples, kde.score, kde.log_density_gradient):
        with pytest.raises(ValueError, match=r"60 features.*X\.T would fit: rows are po"):
            method(of(X.T))


def test_what_is_not_transposed():
    kde = HighDimKernelDensity(bandwidth=0.5).fit(X)
    bad = [X[:, :2], X[:5, :2], np.full((3, 3), np.inf), X[0], X[:3, :, None]]
    for queries in bad:
        with pytest.raises(ValueError) as error:
            kde.score_samples(queries)
        assert "X.T" not in str(error.value)
    # more features than rows are no reason to complain, nor are others than before
    kde.fit(np.random.default_rng(0).standard_normal((3, 60)))
    assert kde.n_features_in_ == 60


class LazyFrame:
    """What one of polars looks like to those who do not know it."""

    def collect(self):
        return pd.DataFrame(X)


@pytest.mark.parametrize("kind", KINDS)
def test_lazy_frames(kind):
    lazy, kde = LazyFrame(), kind(bandwidth=0.5).fit(X)
    message = r"LazyFrame has no values yet: call collect\(\)"
    for call in (kind().fit, kde.score_samples, kde.score, kde.diagnose):
        with pytest.raises(TypeError, match=f"^X: a {message}"):
            call(lazy)
    with pytest.raises(TypeError, match=f"^sample_weight: a {message}"):
        kind().fit(X, sample_weight=lazy)
    with pytest.raises(TypeError, match=message):
        select_bandwidth(lazy)


def test_lazy_frames_of_polars():
    polars = pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"LazyFrame has no values yet: call collect\(\)"):
        HighDimKernelDensity().fit(polars.LazyFrame(X))


# Displays.


@pytest.fixture
def no_figures_left():
    yield
    plt.close("all")


def steps(kde):
    return make_pipeline(StandardScaler(), PCA(2), kde)


def bandwidths(estimator):
    (name,) = (n for n in estimator.get_params() if n.endswith("bandwidth"))
    return {name: [0.5, 0.7]}


SEARCHES = {
    "search": lambda kde: GridSearchCV(kde, bandwidths(kde)),
    "random search": lambda kde: RandomizedSearchCV(kde, bandwidths(kde), n_iter=2),
    "search of a pipeline": lambda kde: GridSearchCV(steps(kde), bandwidths(steps(kde))),
    "search in a pipeline": lambda kde: steps(GridSearchCV(kde, bandwidths(kde))),
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("display", [BandwidthDisplay, RegimeDisplay])
def test_displays_of_searches(display, name, no_figures_left):
    search = SEARCHES[name](HighDimKernelDensity()).fit(X)
    best = search if name == "search in a pipeline" else search.best_estimator_
    if name == "search in a pipeline":
        best = make_pipeline(*best[:-1], best[-1].best_estimator_)
    for queries in (None, X[:40] + 0.1):
        found = vars(display.from_estimator(search, queries))
        expected = vars(display.from_estimator(best, queries))
        for attribute in ("bandwidths", "values", "h_g", "bandwidth"):
            if attribute in found:
                assert_array_equal(found[attribute], expected[attribute])
        if "diagnosis" in found:
            assert_array_equal(found["diagnosis"].h_g, expected["diagnosis"].h_g)


@pytest.mark.parametrize("display", [BandwidthDisplay, RegimeDisplay])
def test_searches_without_an_estimator(display):
    grid = {"bandwidth": [0.5]}
    search = GridSearchCV(HighDimKernelDensity(), grid, refit=False)
    with pytest.raises(NotFittedError):
        display.from_estimator(search)
    with pytest.raises(ValueError, match="refit=False has no estimator to show"):
        display.from_estimator(search.fit(X))
    with pytest.raises(TypeError, match="ends in one, got KernelDensity"):
        display.from_estimator(GridSearchCV(KernelDensity(), grid).fit(X))
