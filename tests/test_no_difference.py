"""What must make no difference, for all parameters.

Hypothesis draws data and a combination of all parameters, as for ``test_units.py``, and
one thing that is said not to matter. All that a user sees is compared: to the last bit,
where the same is computed again; or to the promised precision, where sums are in another
order.
"""

import copy
import io
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import dask.array as da
import joblib
import numpy as np
import pandas as pd
import pytest
from equivariance import (
    COMPACT,
    Change,
    Result,
    deviations,
    fit,
    outcome,
    public_results,
)
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.covariance import OAS
from sklearn.mixture import GaussianMixture
from test_units import ANY_ORDER, ON_DASK, ON_SPHERE, QUICK, cases

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = [
    pytest.mark.usefixtures("in_this_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def is_smooth(case):
    """Return whether the curve of the bandwidth, if it is searched for, has no jumps."""
    asked = case.parameters
    return asked["bandwidth"] != "kl" or asked["kernel"] not in COMPACT


ANY_CASE = st.sampled_from([*QUICK, *ON_SPHERE]).flatmap(cases)
# Where rounding may matter; what is compared to the last bit may jump.
SMOOTH = ANY_CASE.filter(is_smooth)
SMOOTH_ON_DASK = cases(ON_DASK).filter(is_smooth)


class Reordered(Change):
    """Sums are in another order; nothing else is different."""

    only_scales = False


def assert_same_bits(before, after):
    """Fail unless all results are equal."""
    assert before.keys() == after.keys()
    for name, result in before.items():
        wanted, found = np.asarray(result.value), np.asarray(after[name].value)
        assert wanted.dtype == found.dtype, name
        np.testing.assert_array_equal(found, wanted, err_msg=name)


def assert_same(before, after, case):
    """Fail unless results agree as precisely as is promised."""
    lines = deviations(before, after, Reordered(), case)
    assert not lines, "\n".join([str(case), *lines])


def results(kde, queries):
    """Return all that a fitted estimator says."""
    return dict(public_results(kde, queries))


# To the last bit.


def through_joblib(kde):
    """Return an estimator that joblib has stored."""
    stored = io.BytesIO()
    joblib.dump(kde, stored)
    stored.seek(0)
    return joblib.load(stored)


COPIES = {
    "pickle": lambda kde: pickle.loads(pickle.dumps(kde)),
    "joblib": through_joblib,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@examples(5)
@given(source=st.data())
def test_copies_of_an_estimator(source):
    case = source.draw(ANY_CASE)
    kde = fit(HighDimKernelDensity, case)
    twin = COPIES[source.draw(st.sampled_from(sorted(COPIES)))](kde)
    before = results(kde, case.queries)
    assert_same_bits(before, results(twin, case.queries))
    # with held-out log densities, which have been made
    assert_same_bits(before, results(pickle.loads(pickle.dumps(kde)), case.queries))


@examples(4)
@given(source=st.data())
def test_copies_of_an_estimator_of_blocks(source):
    case = source.draw(cases(ON_DASK))
    kde = fit(DaskHighDimKernelDensity, case)
    twin = pickle.loads(pickle.dumps(kde))
    assert_same_bits(results(kde, case.queries), results(twin, case.queries))


@examples(5)
@given(source=st.data())
def test_a_fit_with_the_same_random_state(source):
    """Also of a clone, and of an estimator that was fitted to other data."""
    case = source.draw(ANY_CASE)
    kde = fit(HighDimKernelDensity, case)
    before = results(kde, case.queries)
    again = clone(kde).fit(case.X[::2] if case.weights is None else case.X)
    again.fit(case.X, sample_weight=case.weights)
    assert_same_bits(before, results(again, case.queries))


@examples(5)
@given(source=st.data())
def test_the_data_may_change_after_the_fit(source):
    case = source.draw(ANY_CASE)
    before = results(fit(HighDimKernelDensity, case), case.queries)
    X, weights = case.X.copy(), None if case.weights is None else case.weights.copy()
    kde = HighDimKernelDensity(**case.parameters).fit(X, sample_weight=weights)
    X[:] = 7.0
    if weights is not None:
        weights[:] = 7.0
    assert_same_bits(before, results(kde, case.queries))


@examples(5)
@given(source=st.data())
def test_calls_from_several_threads(source):
    """The report, which is that of the last call, is not compared."""
    case = source.draw(ANY_CASE)
    kde = fit(HighDimKernelDensity, case)
    calls = {
        "score_samples": lambda: kde.score_samples(case.queries),
        "left_out": lambda: kde.score_samples(None),
        "held_out": lambda: kde.held_out_log_density_,
        "gradient": lambda: kde.log_density_gradient(case.queries),
        "standard_error": lambda: kde.diagnose(case.queries).standard_error,
        "sample": lambda: kde.sample(5, random_state=0),
    }
    with ThreadPoolExecutor(4) as pool:
        asked = [(name, pool.submit(call)) for name, call in 3 * list(calls.items())]
        found = [(name, future.result()) for name, future in asked]
    for name, value in found:
        np.testing.assert_array_equal(value, calls[name](), err_msg=name)


# To the promised precision.


@examples(6)
@given(source=st.data())
def test_random_state_without_draws(source):
    """A bandwidth that is given or from a rule of few points, and fitted mixtures."""
    case = with_parameters(source.draw(cases(ANY_ORDER)), random_state=0)
    other = with_parameters(case, random_state=source.draw(st.sampled_from([1, None])))
    before = outcome(HighDimKernelDensity, case)
    after = outcome(HighDimKernelDensity, other)
    if not case.plain:  # by folds
        del before["held_out"], after["held_out"]
    assert_same_bits(before, after)


WITHOUT_EFFECT = {
    "tol": 0.4,
    "n_neighbors": 2,
    "neighbors_index": "exact",
    "verbose": 0,
}


@examples(6)
@given(source=st.data())
def test_parameters_without_effect(source):
    case = with_parameters(source.draw(SMOOTH), algorithm="exact")
    idle, asked = dict(WITHOUT_EFFECT), case.parameters
    kind = asked["covariance_type"]
    if asked["kernel"] != "student" and kind != "auto":
        idle["degrees_of_freedom"] = 2.5
    if kind not in ("local", "auto"):
        idle["mixture"] = GaussianMixture(3)
    if kind not in ("full", "auto"):
        idle["covariance_estimator"] = OAS()
    before = outcome(HighDimKernelDensity, case)
    assert_same_bits(before, outcome(HighDimKernelDensity, with_parameters(case, **idle)))


@examples(4)
@given(source=st.data())
def test_parameters_without_effect_on_a_cluster(source):
    case = source.draw(cases(ON_DASK))
    before = outcome(DaskHighDimKernelDensity, case)
    idle = with_parameters(case, **WITHOUT_EFFECT)
    assert_same_bits(before, outcome(DaskHighDimKernelDensity, idle))


LAYOUTS = {
    "columns": np.asfortranarray,
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "data frame": pd.DataFrame,
    "other bytes": lambda X: X.astype(X.dtype.newbyteorder()),
}


@examples(5)
@given(source=st.data())
def test_layout_in_memory(source):
    case = source.draw(SMOOTH)
    layout = LAYOUTS[source.draw(st.sampled_from(sorted(LAYOUTS)))]
    before = results(fit(HighDimKernelDensity, case), case.queries)
    kde = HighDimKernelDensity(**case.parameters)
    kde.fit(layout(case.X), sample_weight=case.weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names
        assert_same(before, results(kde, layout(case.queries)), case)


def with_parameters(case, **parameters):
    """Return a case with other parameters."""
    return replace(case, parameters={**case.parameters, **parameters})


@examples(5)
@given(source=st.data())
def test_number_of_threads(source):
    case = with_parameters(source.draw(SMOOTH), n_jobs=1)
    n_jobs = source.draw(st.sampled_from([2, 3, -1, None]))
    before = outcome(HighDimKernelDensity, case)
    after = outcome(HighDimKernelDensity, with_parameters(case, n_jobs=n_jobs))
    assert_same(before, after, case)


@examples(5)
@given(source=st.data())
def test_backend(source):
    pytest.importorskip("torch")
    case = with_parameters(source.draw(SMOOTH), backend="numpy")
    before = outcome(HighDimKernelDensity, case)
    after = outcome(HighDimKernelDensity, with_parameters(case, backend="torch"))
    after["backend_"] = Result("label", "numpy")
    assert_same(before, after, case)


@examples(5)
@given(source=st.data(), factor=st.sampled_from([1.0 / 3.0, 1e-300, 7e200]))
def test_a_factor_of_all_weights(source, factor):
    case = source.draw(SMOOTH)
    weights = np.ones(len(case.X)) if case.weights is None else case.weights
    case = replace(case, weights=weights)
    before = outcome(HighDimKernelDensity, case)
    scaled = replace(case, weights=weights * factor)
    assert_same(before, outcome(HighDimKernelDensity, scaled), case)


@examples(5)
@given(source=st.data())
def test_equal_weights_are_none(source):
    case = replace(source.draw(SMOOTH), weights=None)
    before = outcome(HighDimKernelDensity, case)
    equal = replace(case, weights=np.full(len(case.X), 0.3))
    assert_same(before, outcome(HighDimKernelDensity, equal), case)


@examples(5)
@given(source=st.data())
def test_queries_one_by_one(source):
    case = source.draw(SMOOTH)
    kde = fit(HighDimKernelDensity, case)
    together = results(kde, case.queries)
    alone = {
        "score_samples": [kde.score_samples(x[None]) for x in case.queries],
        "gradient": [kde.log_density_gradient(x[None]) for x in case.queries],
    }
    alone = {
        name: replace(together[name], value=np.concatenate(values))
        for name, values in alone.items()
    }
    assert_same(together, {**together, **alone}, case)


@examples(8)
@given(source=st.data())
def test_a_cluster_or_one_machine(source):
    """For any blocks, weights, dtype and kind of data without near-duplicates."""
    case = source.draw(SMOOTH_ON_DASK)
    after = outcome(DaskHighDimKernelDensity, case)
    before = outcome(HighDimKernelDensity, replace(case, chunks=None))
    for name in before.keys() - after.keys():
        assert name == "held_out"
        del before[name]
    for found in (before, after):
        del found["backend_"]
    assert_same(before, after, case)


# Units of single features, and rules by both names.

ANY_UNITS = [
    {"covariance_type": kind, **more}
    for kind in ("diag", "full")
    for more in (
        {},
        {"bandwidth": 0.5},
        {"bandwidth": "nearest"},
        {"bandwidth": "gaussian"},
        {"bandwidth": "silverman", "kernel": "epanechnikov"},
        {"preserve_variance": True, "kernel": "student"},
    )
]
ON_ONE_MACHINE = [
    {"covariance_type": "diag", "adaptive": True, "bandwidth": 0.5},
    {"covariance_type": "full", "covariance_estimator": OAS()},
    {"covariance_type": "local", "bandwidth": 0.5},
    {"covariance_type": "full", "bandwidth": 1.5, "algorithm": "sampling"},
]


@examples(3)
@given(seed=st.integers(0, 10**6), weighted=st.booleans())
@pytest.mark.parametrize("parameters", [*ANY_UNITS, *ON_ONE_MACHINE], ids=str)
def test_units_of_single_features(parameters, seed, weighted):
    """Covariances and the default mixture do not depend on them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 3)) + 1.0
    queries, units = X[:5] + 0.1, 10.0 ** rng.uniform(-3.0, 3.0, size=3)
    weights = rng.exponential(size=80) if weighted else None
    kinds = [(HighDimKernelDensity, np.asarray)]
    if parameters in ANY_UNITS:
        kinds.append((DaskHighDimKernelDensity, lambda X: da.from_array(X, (30, -1))))
    for make, collection in kinds:
        before, after = (
            make(random_state=0, **parameters).fit(
                collection(each), sample_weight=weights
            )
            for each in (X, X * units)
        )
        assert after.bandwidth_ == pytest.approx(before.bandwidth_, rel=1e-5)
        expected = before.score_samples(queries) - np.log(units).sum()
        found = after.score_samples(queries * units)
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize(
    "rule", ["kl", "nearest", "clt", "gaussian", "scott", "silverman"]
)
@examples(5)
@given(source=st.data())
def test_rules_are_those_of_the_function(rule, source):
    """Also on a cluster."""
    kernels = ["gaussian", "exponential"]
    kernels += [] if rule == "clt" else COMPACT  # these have it from 31 points on
    kernel = source.draw(st.sampled_from(kernels))
    case = source.draw(cases(ON_DASK))
    parameters = {"bandwidth": rule, "kernel": kernel, "random_state": 0}
    case = replace(case, parameters=parameters)
    kde = fit(HighDimKernelDensity, replace(case, chunks=None))
    found = select_bandwidth(
        case.X, rule=rule, kernel=kernel, sample_weight=case.weights, random_state=0
    )
    assert found == kde.bandwidth_
    rel = 1e-6 if case.X.dtype == np.float64 else 1e-3
    if rule != "kl" or kernel not in COMPACT:
        blocks = fit(DaskHighDimKernelDensity, case)
        assert blocks.bandwidth_ == pytest.approx(found, rel=rel)
