"""Data that grow: the sums of a fit to all rows, and what stays as it was fitted."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import structured_oracle
from approximations import fit, quiet
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import KERNEL_NAMES, gradient, log_density
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity
from skhdkde._density import check_growth
from skhdkde.dask import DaskHighDimKernelDensity

RNG = np.random.default_rng(0)
X = RNG.standard_normal((240, 4)) @ np.diag([1.0, 2.0, 0.5, 1.0])
QUERIES = RNG.standard_normal((12, 4))
FITTED = 150


def grown(rows=X, n_fitted=FITTED, weights=None, **params):
    """Return an estimator of the first rows to which the others are added."""
    own = (None, None) if weights is None else np.split(weights, [n_fitted])
    kde = HighDimKernelDensity(random_state=0, **params).fit(
        rows[:n_fitted], None, own[0]
    )
    return kde.partial_fit(rows[n_fitted:], None, own[1])


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-8), (np.float32, 1e-3)])
def test_sums_are_those_over_all_rows(kernel, dtype, tol):
    rows, queries = (3.0 + X).astype(dtype), (3.0 + QUERIES).astype(dtype)
    kde = grown(rows, kernel=kernel, bandwidth=1.5)
    wide = rows.astype(float), queries.astype(float)
    expected = log_density(wide[1], wide[0], 1.5, kernel)
    found = kde.score_samples(queries)
    assert found.dtype == dtype
    assert_allclose(found, expected, atol=tol, rtol=0.0)
    left_out = log_density(wide[0], wide[0], 1.5, kernel, leave_out=np.arange(len(X)))
    assert_allclose(kde.score_samples(None), left_out, atol=tol, rtol=0.0)
    slopes = gradient(wide[1], wide[0], 1.5, kernel)
    assert_allclose(kde.log_density_gradient(queries), slopes, atol=50.0 * tol)


@pytest.mark.hypothesis
@examples(12)
@given(
    splits=st.lists(st.integers(2, 59), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 99),
    decades=st.sampled_from([0, 3, 40]),
    scale=st.sampled_from([1.0, 1e-6, 1e12]),
)
def test_any_batches_with_any_weights(splits, seed, decades, scale):
    rng = np.random.default_rng(seed)
    rows, batches = scale * rng.standard_normal((60, 3)), np.array(sorted(splits))
    weights = 10.0 ** (decades * rng.uniform(size=60)) * rng.integers(0, 3, 60)
    weights[0] = 1.0
    parts = zip(np.split(rows, batches), np.split(weights, batches), strict=True)
    kde = HighDimKernelDensity(bandwidth=0.7 * scale)
    for points, own in parts:
        kde.partial_fit(points, sample_weight=own)
    counted = weights > 0.0
    expected = log_density(
        rows[:9] * 1.1, rows[counted], 0.7 * scale, weights=weights[counted]
    )
    assert_allclose(kde.score_samples(rows[:9] * 1.1), expected, rtol=1e-12, atol=1e-8)
    again = HighDimKernelDensity(bandwidth=0.7 * scale).fit(rows, sample_weight=weights)
    assert_allclose(kde.score_samples(None), again.score_samples(None), atol=1e-8)
    assert_allclose(kde.diagnose().standard_error, again.diagnose().standard_error)


def test_without_weights_a_row_counts_as_one_of_weight_one():
    kde = HighDimKernelDensity(bandwidth=1.0).fit(X[:9], sample_weight=np.full(9, 4.0))
    kde.partial_fit(X[9:20])
    weights = np.repeat([4.0, 1.0], [9, 11])
    expected = log_density(QUERIES, X[:20], 1.0, weights=weights)
    assert_allclose(kde.score_samples(QUERIES), expected, atol=1e-10)


def test_rows_without_weight_count_for_nothing_and_are_there():
    weights = np.where(np.arange(len(X)) % 3 == 0, 0.0, 1.0)
    kde = grown(bandwidth=1.0, weights=weights).partial_fit(
        X[:5], sample_weight=np.zeros(5)
    )
    again = HighDimKernelDensity(bandwidth=1.0)
    again.fit(np.vstack([X, X[:5]]), sample_weight=np.append(weights, np.zeros(5)))
    assert_array_equal(kde.score_samples(None), again.score_samples(None))
    assert_array_equal(kde.held_out_log_density_, again.held_out_log_density_)


@pytest.mark.parametrize("kind", ["spherical", "diag", "full"])
@pytest.mark.parametrize("preserve_variance", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_structure_is_that_of_the_first_rows(kind, preserve_variance, weighted):
    weights = RNG.integers(1, 5, len(X)).astype(float) if weighted else None
    params = {"covariance_type": kind, "preserve_variance": preserve_variance}
    kde = grown(bandwidth=0.4, weights=weights, **params)
    own = None if weights is None else weights[:FITTED]
    first = structured_oracle.make_oracle(X[:FITTED], kind, None, 0.4, params, own)
    oracle = structured_oracle.Oracle(
        X,
        np.zeros(len(X), dtype=int),
        first.means,
        first.covariances,
        0.4,
        first.shrinkage,
        weights=weights,
    )
    assert_allclose(kde.score_samples(QUERIES), oracle.log_density(QUERIES), atol=1e-8)
    found = kde.score_samples(None)
    assert_allclose(found, oracle.log_density(X, leave_out=True), atol=1e-8)


def test_rows_go_to_the_components_of_the_mixture():
    rows = np.vstack([X, X[:100] + 20.0])[RNG.permutation(340)]
    mixture = GaussianMixture(2, random_state=0).fit(rows[:200])
    params = {"covariance_type": "local", "mixture": FrozenEstimator(mixture)}
    kde = grown(rows, 200, bandwidth=0.5, **params)
    oracle = structured_oracle.make_oracle(rows, "local", mixture, 0.5, {})
    assert_allclose(kde.score_samples(QUERIES), oracle.log_density(QUERIES), atol=1e-8)
    # of no component: none of the first rows was beyond 10
    with pytest.warns(UserWarning, match="less likely"):
        kde = grown(rows[np.argsort(rows[:, 0])], 200, bandwidth=0.5, **params)
    assert kde.score_samples(rows[rows[:, 0] > 10.0]).min() > -20.0


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"kernel": "exponential"},
        {"covariance_type": "full"},
        {"covariance_type": "diag", "preserve_variance": True, "bandwidth": 0.1},
    ],
)
def test_on_the_sphere(params):
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    queries = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    params = {"bandwidth": 0.3, "support": "sphere", **params}
    kde = grown(rows, **params)
    if params.get("covariance_type") is None:
        again = HighDimKernelDensity(**params).fit(rows)
        assert_array_equal(kde.score_samples(queries), again.score_samples(queries))
    # one over the surface, on average over it
    uniform = np.random.default_rng(1).standard_normal((20_000, 4))
    uniform /= np.linalg.norm(uniform, axis=1, keepdims=True)
    mean = np.exp(kde.score_samples(uniform)).mean() * 2.0 * np.pi**2
    assert mean == pytest.approx(1.0, abs=0.05)
    assert_allclose(np.linalg.norm(kde.sample(5), axis=1), 1.0)


@pytest.mark.parametrize("maps", ["yeo-johnson", "gaussianize", {0: "log"}])
def test_maps_stay(maps):
    rows = X.copy()
    rows[:, 0] = np.exp(rows[:, 0])
    kde = grown(rows, bandwidth=0.5, feature_maps=maps)
    fitted = HighDimKernelDensity(bandwidth=0.5, feature_maps=maps).fit(rows[:FITTED])
    maps, queries = fitted.feature_maps_, rows[:20] * 1.01
    plain = HighDimKernelDensity(bandwidth=0.5).fit(maps.apply(rows))
    expected = plain.score_samples(maps.apply(queries)) + maps.log_jacobian(queries)
    assert_allclose(kde.score_samples(queries), expected, atol=1e-8)


def test_a_stack_grows_by_all_its_members():
    rows = np.vstack([X, X[:60] * 1.2])
    kde = HighDimKernelDensity(covariance_type="stack", random_state=0)
    kde.set_params(degrees_of_freedom=np.inf).fit(rows[:200])
    before = kde.score_samples(None).mean()
    kde.partial_fit(rows[200:])
    assert len(kde.score_samples(None)) == len(rows)
    assert kde.score_samples(None)[:200].mean() == pytest.approx(before, abs=0.3)


def test_discrete_features_stay_on_their_lattice():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.poisson(4.0, 3000), rng.standard_normal(3000)])
    params = {"discrete_features": [0], "bandwidth": 0.4, "random_state": 0}
    kde = HighDimKernelDensity(**params).fit(rows[:1000])
    for row in np.array_split(rows[1000:], 500):  # small batches are spread no less
        kde.partial_fit(row)
    again = HighDimKernelDensity(**params).fit(rows)
    queries = np.column_stack([np.arange(9.0), np.zeros(9)])
    found, expected = kde.score_samples(queries), again.score_samples(queries)
    assert_allclose(found, expected, atol=0.15)
    assert set(kde.sample(50, random_state=0)[:, 0]) <= set(rows[:, 0])
    with pytest.raises(ValueError, match=r"discrete_features has feature 0.*4\.5"):
        kde.partial_fit([[4.5, 0.0]])
    kde.partial_fit([[40.0, 0.0]])
    assert 40.0 in kde.sample(20_000, random_state=0)[:, 0]


def test_all_methods_know_of_the_new_rows():
    far = X + 100.0
    kde = HighDimKernelDensity(covariance_type="full", random_state=0).fit(X)
    assert_array_equal(kde.density_level([0.5]), kde.density_level([0.5]))
    with pytest.warns(UserWarning, match="less likely"):
        kde.partial_fit(far)
    assert kde.score_samples(far[:5]).min() > -20.0
    assert np.mean(kde.sample(400, random_state=0)[:, 0] > 50.0) == pytest.approx(
        0.5, abs=0.1
    )
    assert_array_equal(kde.diagnose().log_density, kde.score_samples(None))
    scores = kde.score_samples(far)
    given = kde.conditional([0], far[0, :1])
    parts = kde.marginal([0]).score_samples(far[:, :1])[0] + given.score_samples(
        far[:1, 1:]
    )
    assert_allclose(parts, scores[:1])
    missing = far[:3].copy()
    missing[:, 1] = np.nan
    assert_allclose(kde.impute(missing)[:, 1], far[:3, 1], atol=5.0)
    expected = kde.marginal([0, 2, 3]).score_samples(far[:3, [0, 2, 3]])
    assert_allclose(kde.score_samples(missing), expected)
    assert kde.data_report_.n_rows == 2 * len(X)
    assert len(kde.held_out_log_density_) == 2 * len(X)
    assert kde.held_out_log_density_[len(X) :].min() > -20.0
    again = pickle.loads(pickle.dumps(kde))
    assert_array_equal(again.score_samples(far), scores)
    assert again.drift_ == kde.drift_
    assert_array_equal(
        again.partial_fit(X).score_samples(far), kde.partial_fit(X).score_samples(far)
    )


@pytest.mark.parametrize(
    "params", [{}, {"covariance_type": "full"}, {"covariance_type": "local"}]
)
def test_held_out_scores_are_those_of_fresh_points(params):
    rng = np.random.default_rng(0)
    rows, fresh = rng.standard_normal((500, 8)), rng.standard_normal((2000, 8))
    kde = HighDimKernelDensity(random_state=0, **params).fit(rows[:200])
    kde.partial_fit(rows[200:])
    level = kde.density_level([0.25, 0.5, 0.75])
    covered = np.mean(kde.score_samples(fresh)[:, None] >= level, axis=0)
    assert_allclose(covered, [0.25, 0.5, 0.75], atol=0.07)
    assert kde.held_out_log_density_.mean() < kde.score_samples(rows).mean()


def test_incomplete_rows_of_the_fit_are_known_after_it():
    rows = X[:100].copy()
    rows[3, 1] = rows[90, 2] = np.nan
    with pytest.warns(UserWarning, match="NaN"):
        kde = HighDimKernelDensity(bandwidth=0.5, random_state=0).fit(rows)
    before = kde.impute(rows)
    kde.partial_fit(X[200:], sample_weight=np.arange(40) % 2)
    assert_array_equal(kde.incomplete_rows_, [3, 90])
    # filled in by the others, not by what was drawn for the row itself
    assert_allclose(kde.impute(rows), before, atol=1.0)
    with pytest.raises(
        ValueError, match=r"NaN in 2 of 100 rows.*impute\(X, n_samples=1\)"
    ):
        kde.partial_fit(rows)
    kde.partial_fit(kde.impute(rows, n_samples=1, random_state=0)[0])


def changed(kde):
    return kde.set_params(kernel="tophat", bandwidth=1.0)


CONSTANT = np.column_stack([X, np.full(len(X), 7.0)])
REFUSED = {
    "marginal": ({}, X, lambda kde: kde.marginal([0, 1]), X[:, :2], "made by marginal"),
    "conditional": (
        {},
        X,
        lambda kde: kde.conditional([0], [0.0]),
        X[:, 1:],
        "made by conditional",
    ),
    "parameters": (
        {},
        X,
        changed,
        X,
        r"bandwidth was set to 1\.0 after the fit.*Call fit",
    ),
    "constant": (
        {"bandwidth": "gaussian"},
        CONSTANT,
        None,
        CONSTANT + X[:, :1],
        r"column 4, .*constant.*Call fit",
    ),
    "limits": (
        {"feature_maps": {0: ("log", -9.0)}},
        X,
        None,
        X - 9.0,
        "feature_maps has",
    ),
    "range": ({}, X.astype(np.float32), None, X * 1e60, "range of float32"),
    "sphere": (
        {"support": "sphere"},
        X / np.linalg.norm(X, axis=1, keepdims=True),
        None,
        X,
        "unit norm",
    ),
    "features": ({}, X, None, X[:, :3], "X has 3 features.* expecting 4"),
    "names": (
        {},
        pd.DataFrame(X, columns=list("abcd")),
        None,
        pd.DataFrame(X, columns=list("abce")),
        "names",
    ),
    "infinite": ({"kernel": "tophat"}, X, None, X * np.inf, "X contains"),
    "none": ({}, X, None, X[:0], "0 sample"),
}


@pytest.mark.parametrize(
    "params, name",
    [
        ({"adaptive": 3}, "adaptive=3"),
        ({"covariance_type": "neighborhood"}, "covariance_type='neighborhood'"),
    ],
)
def test_no_partial_fit_where_all_depends_on_neighbours(params, name):
    kde = HighDimKernelDensity(bandwidth=0.5, **params)
    assert not hasattr(kde, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        kde.partial_fit(X)
    assert f"With {name} there is no partial_fit" in str(caught.value.__cause__)
    # as "auto" may have chosen it
    with pytest.raises(ValueError, match=f"{name}.* Call fit with all rows"):
        check_growth(kde.fit(X[:100, :2])._density)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_grow_says_so_and_stays_as_it_was(case):
    params, rows, change, more, message = REFUSED[case]
    kde = HighDimKernelDensity(**{"bandwidth": 0.5, **params}).fit(rows)
    kde = kde if change is None else change(kde)
    before = copy.copy(vars(kde))
    with pytest.raises(ValueError, match=message):
        kde.partial_fit(more)
    assert vars(kde).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(kde).items())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(5), "sample_weight must not be negative"),
        (np.ones(4), "sample_weight.shape"),
        (np.full(5, 1e300), "earlier rows count as 0. Call fit"),
    ],
)
def test_weights_that_are_refused(weights, message):
    kde = HighDimKernelDensity(bandwidth=0.5).fit(X, sample_weight=np.full(len(X), 1e-20))
    expected = kde.score_samples(QUERIES)
    with pytest.raises(ValueError, match=message):
        kde.partial_fit(X[:5], sample_weight=weights)
    assert_array_equal(kde.score_samples(QUERIES), expected)


def test_constant_features_may_vary_where_they_are_like_others():
    kde = HighDimKernelDensity(bandwidth=1.0).fit(CONSTANT[:100])
    assert_array_equal(kde.constant_features_, [4])
    kde.partial_fit(CONSTANT[100:150])
    assert_array_equal(kde.constant_features_, [4])
    rows = CONSTANT + X[:, :1]
    with pytest.warns(UserWarning, match="less likely"):
        kde.partial_fit(rows)
    assert len(kde.constant_features_) == 0
    expected = log_density(rows[:5], np.vstack([CONSTANT[:150], rows]), 1.0)
    assert_allclose(kde.score_samples(rows[:5]), expected, atol=1e-8)


def test_constant_features_that_stay():
    kde = HighDimKernelDensity(bandwidth="gaussian")
    with pytest.warns(UserWarning, match="constant"):
        kde.fit(CONSTANT[:100])
    plain = HighDimKernelDensity(bandwidth=kde.bandwidth_).fit(X)
    found = kde.partial_fit(CONSTANT[100:]).score_samples(CONSTANT[:5])
    differences = found - plain.score_samples(X[:5])
    assert_allclose(differences, differences[0])


def test_the_first_call_is_a_fit():
    kde = HighDimKernelDensity(random_state=0).partial_fit(X, None, np.arange(len(X)))
    again = HighDimKernelDensity(random_state=0).fit(X, None, np.arange(len(X)))
    assert kde.bandwidth_ == again.bandwidth_
    assert kde.drift_ is again.drift_ is None
    assert_array_equal(kde.score_samples(QUERIES), again.score_samples(QUERIES))
    with pytest.raises(ValueError, match="bandwidth"):
        HighDimKernelDensity(bandwidth=-1.0).partial_fit(X)
    bandwidth = kde.partial_fit(1.1 * X).bandwidth_
    assert bandwidth == again.bandwidth_ != kde.fit(10.0 * X).bandwidth_


def test_metadata_routing_and_pipelines():
    pipe = make_pipeline(StandardScaler(), HighDimKernelDensity(bandwidth=0.5)).fit(X)
    pipe[-1].partial_fit(pipe[:-1].transform(X[:50]))
    assert len(pipe[-1].score_samples(None)) == len(X) + 50
    with sklearn.config_context(enable_metadata_routing=True):
        kde = HighDimKernelDensity().set_partial_fit_request(sample_weight=True)
        assert kde.get_metadata_routing().partial_fit.requests == {"sample_weight": True}
    assert not hasattr(DaskHighDimKernelDensity, "partial_fit")  # blocks are fitted again


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"kernel": "tophat", "bandwidth": 2.0},
        {"covariance_type": "full"},
    ],
)
def test_drift_is_found_and_not_imagined(params):
    """Hold that p-values of 30 batches from the law of the fit are those of chance."""
    p_values = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        kde = HighDimKernelDensity(**{"bandwidth": 0.5, "random_state": 0, **params})
        kde.fit(rng.standard_normal((120, 6)))
        p_values.append(kde.partial_fit(rng.standard_normal((60, 6))).drift_.p_value)
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) < 0.1) <= 0.25
    with pytest.warns(
        UserWarning, match=r"less likely.*120 rows, to which 120 .*Call fit"
    ) as seen:
        kde.partial_fit(1.5 * rng.standard_normal((60, 6)))
    assert seen[0].filename == __file__
    assert kde.drift_.significant
    assert (kde.drift_.n_fitted, kde.drift_.n_added) == (120, 120)
    assert kde.drift_.less_likely > 0.65
    assert not kde.drift_.difference >= 0.0  # NaN if both have points out of reach


def test_drift_is_measured_from_the_rows_of_the_fit():
    """What was added before does not become the measure, however much it is."""
    rng = np.random.default_rng(0)
    kde = HighDimKernelDensity(bandwidth=0.5).fit(rng.standard_normal((200, 3)))
    with pytest.warns(UserWarning, match="less likely"):
        kde.partial_fit(2.0 * rng.standard_normal((2000, 3)))
    with pytest.warns(UserWarning, match="less likely"):
        kde.partial_fit(2.0 * rng.standard_normal((200, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kde.partial_fit(rng.standard_normal((200, 3)))


def test_few_rows_are_no_measure():
    kde = HighDimKernelDensity(bandwidth=1.0).fit(X[:1])
    for row in X[1:8]:
        kde.partial_fit(row[None])
    assert kde.drift_ is None
    expected = log_density(QUERIES, X[:8], 1.0)
    assert_allclose(kde.score_samples(QUERIES), expected, atol=1e-9)


@pytest.mark.parametrize("params", [{}, {"covariance_type": "full"}])
def test_duplicates_do_not_make_others_unlikely(params):
    rng = np.random.default_rng(0)
    rows, fresh = rng.standard_normal((300, 4)), rng.standard_normal((100, 4))
    kde = HighDimKernelDensity(bandwidth=0.1, random_state=0, **params)
    kde.fit(np.vstack([rows, rows[:250]])).partial_fit(np.vstack([fresh, rows[:90]]))
    assert kde.drift_.p_value > 0.01
    assert kde.fit(np.vstack([rows, rows])).partial_fit(fresh).drift_ is None
    assert kde.fit(rows).partial_fit(rows[:9]).drift_ is None


@pytest.fixture(scope="module")
def clustered():
    """Points along few directions, a second cluster of them last."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3600, 3)) @ rng.standard_normal((3, 12))
    rows += 0.1 * rng.standard_normal((3600, 12))
    rows[3300:] += 30.0
    return rows


INDEXES = ["hnsw", "ivf", "exact", KNeighborsTransformer(n_neighbors=40)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("index", INDEXES)
def test_an_index_gets_the_points(clustered, index):
    if index in ("hnsw", "ivf"):
        pytest.importorskip("faiss")
    rows = clustered
    params = {"bandwidth": 0.4, "algorithm": "neighbors", "neighbors_index": index}
    kde = fit(rows[:3000], **params)
    other, queries = copy.copy(kde), rows[:50]
    before = quiet(other, queries)[0]
    # like the others, some of them twice; then a tenth more, and another cluster
    kde.partial_fit(np.vstack([rows[3000:3150], rows[:20]]))
    kde.partial_fit(rows[3150:])
    everything = np.vstack([rows[:3150], rows[:20], rows[3150:]])
    exact = fit(everything, bandwidth=0.4)
    found, report = quiet(kde, None)
    error = np.abs(found - exact.score_samples(None))
    assert np.mean(error <= 2.0 * report.error) >= 0.95
    assert np.quantile(error, 0.95) <= 0.05
    assert kde.neighbors_index_ == (index if isinstance(index, str) else "transformer")
    # what shares the index with it has not changed
    assert_array_equal(quiet(other, queries)[0], before)
    again = quiet(pickle.loads(pickle.dumps(kde)), queries)[0]
    assert_array_equal(again, quiet(kde, queries)[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "sampling", "bandwidth": 2.0},
        {"algorithm": "auto", "bandwidth": 1.0, "neighbors_index": "ivf"},
        {"algorithm": "auto", "bandwidth": 0.5, "covariance_type": "full"},
        {"algorithm": "auto", "bandwidth": 0.5, "feature_maps": "yeo-johnson"},
    ],
)
def test_stated_errors_hold_after_growth(clustered, params):
    pytest.importorskip("faiss")
    kde = fit(clustered[:1500], **params)  # a sample has all of them
    for rows in np.array_split(clustered[1500:], [300, 2000]):
        kde.partial_fit(rows)
    queries = clustered[::25] + 0.05
    found, report = quiet(kde, queries)
    exact = copy.copy(kde)
    exact._approximation = None
    error = np.abs(found - exact.score_samples(queries))
    assert np.mean(error <= 2.0 * report.error + 1e-9) >= 0.95


class Failing(KNeighborsTransformer):
    """A transformer that takes 3000 points, and no more."""

    def fit(self, X, y=None):
        if len(X) > 3000:
            raise MemoryError("too many")
        return super().fit(X)


@pytest.mark.filterwarnings("ignore")
def test_if_an_index_fails_the_estimator_is_as_it_was(clustered):
    params = {"algorithm": "neighbors", "neighbors_index": Failing(n_neighbors=20)}
    kde = fit(clustered[:3000], bandwidth=0.5, **params)
    before = copy.copy(vars(kde))
    with pytest.raises(MemoryError, match="too many"):
        kde.partial_fit(clustered[3000:])
    assert all(value is before[name] for name, value in vars(kde).items())
    assert len(kde.score_samples(None)) == 3000


def test_points_on_a_gpu_cannot_grow(tensors_as_on_a_gpu):
    torch = pytest.importorskip("torch")
    with sklearn.config_context(array_api_dispatch=True):
        kde = HighDimKernelDensity(bandwidth=1.0, backend="torch").fit(torch.asarray(X))
        with pytest.raises(ValueError, match=r"the X of the fit on the host.*Call fit"):
            kde.partial_fit(torch.asarray(X))


@pytest.mark.parametrize("larger", [1e3, 1e6])
def test_an_index_stays_right_where_units_change(clustered, larger):
    """Later rows are much larger: scaled units are others."""
    pytest.importorskip("faiss")
    params = {"bandwidth": 0.4, "algorithm": "neighbors", "neighbors_index": "ivf"}
    kde = fit(clustered[:3000], **params)
    with pytest.warns(UserWarning, match="less likely"):
        kde.partial_fit(larger * clustered[3000:3100])
    everything = np.vstack([clustered[:3000], larger * clustered[3000:3100]])
    queries = np.vstack([clustered[:300], larger * clustered[3000:3005]]) + 0.02
    exact = fit(everything, bandwidth=0.4).score_samples(queries)
    error = np.abs(quiet(kde, queries)[0] - exact)
    assert np.quantile(error, 0.95) <= 0.05
    assert error[300:].max() < 0.02
