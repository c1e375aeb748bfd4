"""Outliers and classes by densities."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhdkde import (
    DensityClassifier,
    DensityImputer,
    DensityOutlierDetector,
    HighDimKernelDensity,
)
from skhdkde._decisions.trimming import central_rows


@parametrize_with_checks(
    [
        DensityOutlierDetector(),
        DensityOutlierDetector(HighDimKernelDensity(random_state=0), trim=0),
        DensityClassifier(),
        DensityClassifier(HighDimKernelDensity(bandwidth=1.0)),
    ]
)
@pytest.mark.filterwarnings("ignore:.*bandwidth .*at an end:UserWarning")
@pytest.mark.filterwarnings("ignore:.*constant feature:UserWarning")
@pytest.mark.filterwarnings("ignore:.*one distinct row:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def correlated(n, d, seed):
    """Return points of one normal law, different for each seed."""
    mixing = np.random.default_rng(0).standard_normal((d, d)) / np.sqrt(d)
    return np.random.default_rng(seed).standard_normal((n, d)) @ mixing


def mean_log_density(detector, X):
    """Return the score of rows that are not known from the training."""
    return np.mean([d.score_samples(X) for d in detector.estimators_], axis=0)


def cheap(**parameters):
    return DensityOutlierDetector(HighDimKernelDensity(bandwidth=0.7), **parameters)


@pytest.fixture(scope="module")
def X():
    return correlated(200, 4, 1)


# Training rows.


def test_training_rows_are_scored_by_fits_without_them(X):
    """A lone outlier of the training is found, which its own kernel would hide."""
    odd = np.vstack([X, np.full((1, 4), 8.0)])
    detector = cheap(trim=0).fit(odd)
    expected = mean_log_density(detector, odd)
    scores = detector.score_samples(odd)
    assert scores[-1] == scores.min() < expected[-1] - 10.0
    assert_array_equal(scores, detector.held_out_log_density_)
    leave_one_out = HighDimKernelDensity(bandwidth=0.7).fit(odd).score_samples(None)
    assert_allclose(scores, leave_one_out, rtol=1e-10)
    assert_array_equal(cheap(trim=0).fit_predict(odd), detector.predict(odd))


def test_training_rows_are_known_wherever_they_are(X):
    detector = DensityOutlierDetector().fit(X)
    fresh = correlated(7, 4, 2)
    mixed = np.vstack([fresh[:3], X[[5, 150, 5]], fresh[3:]])
    scores = detector.score_samples(mixed)
    assert_array_equal(scores[3:6], detector.held_out_log_density_[[5, 150, 5]])
    assert_allclose(scores[[0, 1, 2, 6, 7, 8, 9]], mean_log_density(detector, fresh))


def test_copies_are_one_row_with_their_weight(X):
    """No row vouches for its copies, and the order of rows makes no difference."""
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    repeated = np.random.default_rng(1).permutation(np.repeat(X, weights, axis=0))
    queries = correlated(20, 4, 3)
    one = DensityOutlierDetector().fit(X, sample_weight=weights)
    other = DensityOutlierDetector().fit(repeated)
    for method in ("decision_function", "p_values"):
        of_one, of_other = getattr(one, method), getattr(other, method)
        assert_array_equal(of_one(queries), of_other(queries))
        seen = X[weights > 0]
        assert_array_equal(of_one(seen), of_other(seen))
    trimmed = {tuple(row) for row in X[one.trimmed_]}
    assert trimmed == {tuple(row) for row in repeated[other.trimmed_]}
    assert not set(one.trimmed_) & set(np.flatnonzero(weights == 0))


def test_equal_rows_are_different_where_all_is_discrete():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, size=(300, 2)).astype(float)
    detector = DensityOutlierDetector().fit(counts)
    # each row has copies in the fit that scores it: a common one is likely
    common = np.array([[2.0, 2.0]])
    apart = HighDimKernelDensity(bandwidth=0.3).fit(counts)
    merged = DensityOutlierDetector(apart).fit(counts)
    assert detector.p_values(common)[0] > 0.5
    assert detector.predict([[9.0, 9.0]])[0] == -1
    assert merged._reference.effective_number < detector._reference.effective_number


@pytest.mark.parametrize("n_odd, trim", [(12, "auto"), (30, 0.3)])
def test_groups_of_anomalies_in_training_are_trimmed(n_odd, trim):
    """Anomalies that are alike have kernels of their own, unless they are trimmed."""
    rng = np.random.default_rng(1)
    X = correlated(300, 6, 0)
    odd = 4.0 + 0.1 * rng.standard_normal((n_odd, 6))
    fresh = np.vstack([correlated(100, 6, 2), 4.0 + 0.1 * rng.standard_normal((20, 6))])
    truth, dirty = np.arange(120) < 100, np.vstack([X, odd])
    detector = DensityOutlierDetector(trim=trim).fit(dirty)
    assert set(range(300, 300 + n_odd)) <= set(detector.trimmed_)
    scores = detector.score_samples(fresh)
    assert roc_auc_score(truth, scores) > 0.99
    untrimmed = DensityOutlierDetector(trim=0).fit(dirty)
    assert not len(untrimmed.trimmed_)
    assert (untrimmed.score_samples(fresh) - scores)[~truth].min() > 1.0


@given(st.integers(0, 2**16), st.floats(0.0, 0.49))
@settings(derandomize=True, max_examples=10, deadline=None)
def test_no_more_weight_is_trimmed_than_was_asked_for(seed, trim):
    rng = np.random.default_rng(seed)
    X, weights = rng.standard_normal((30, 3)), rng.integers(0, 4, 30)
    detector = cheap(trim=trim).fit(X, sample_weight=weights)
    left_out = weights[detector.trimmed_].sum()
    assert left_out <= trim * weights.sum() + 1e-9
    assert left_out > trim * weights.sum() - weights.max()


# p-values and thresholds.


def p_value(score, scores, weights):
    """Return the p-value by its definition."""
    n = weights.sum() ** 2 / (weights**2).sum()
    return (1 + n * weights[scores <= score].sum() / weights.sum()) / (1 + n)


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_are_ranks_among_held_out_scores(X, weighted):
    weights = np.random.default_rng(0).integers(1, 5, 200) if weighted else None
    detector = cheap().fit(X, sample_weight=weights)
    weights = np.ones(200) if weights is None else weights
    queries = np.vstack([3.0 * correlated(30, 4, 2), X[:10], [[99.0] * 4]])
    scores = detector.score_samples(queries)
    held_out = detector.held_out_log_density_
    expected = [p_value(score, held_out, weights) for score in scores]
    assert_allclose(detector.p_values(queries), expected, rtol=1e-12)
    assert_array_equal(detector.predict(queries) == -1, np.array(expected) <= 0.05)


def test_p_values_of_fresh_points_are_uniform():
    """Also where the density has a covariance of as many features as rows."""
    found = []
    density = HighDimKernelDensity(
        bandwidth=0.6, covariance_type="full", preserve_variance=True
    )
    for seed in range(30):
        X = correlated(66, 30, 1000 + seed)
        detector = DensityOutlierDetector(density).fit(X[:60])
        found.append(detector.p_values(X[60:]))
    assert kstest(np.ravel(found), "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.ravel(found) <= 0.05) < 0.075


@pytest.mark.parametrize("kind", [DensityOutlierDetector, DensityClassifier])
def test_missing_values_are_for_an_imputer(X, kind):
    missing, y = X.copy(), np.arange(len(X)) % 2
    missing[3, 1] = np.nan
    fitted = kind(HighDimKernelDensity(bandwidth=0.5)).fit(X, y)
    for call in (lambda: kind().fit(missing, y), lambda: fitted.predict(missing)):
        with pytest.raises(ValueError, match=r"row 3.* column 1.*DensityImputer") as e:
            call()
        assert "HistGradient" not in str(e.value)
    make_pipeline(DensityImputer(), fitted).fit(missing, y).predict(missing)


@pytest.mark.parametrize("contamination", [0.02, 0.1, 0.5])
def test_contamination_is_the_share_that_is_flagged(X, contamination):
    labels = cheap(contamination=contamination).fit_predict(X)
    assert (labels == -1).mean() == contamination


def test_few_rows_flag_what_is_less_likely_than_all():
    X = correlated(10, 2, 0)
    detector = cheap().fit(X)
    assert detector.offset_ == detector.held_out_log_density_.min()
    assert detector.predict([[9.0, 9.0]])[0] == -1
    assert (detector.predict(X) == 1).all()


def test_false_discoveries_by_benjamini_and_hochberg(X):
    detector = cheap().fit(X)
    queries = np.vstack([correlated(30, 4, 2), 4.0 + correlated(20, 4, 3)])
    p, rate, m = detector.p_values(queries), 0.1, len(queries)
    order = np.sort(p)
    below = np.flatnonzero(order <= rate * np.arange(1, m + 1) / m)
    expected = p <= order[below[-1]]
    assert 15 < expected.sum() < 30
    assert_array_equal(detector.predict(queries, fdr=rate) == -1, expected)


def test_rate_of_false_discoveries_is_kept():
    rates = []
    for seed in range(60):
        X = correlated(300, 4, seed)
        detector = cheap(trim=0).fit(X[:200])
        flagged = detector.predict(np.vstack([X[200:], 5.0 + X[200:220]]), fdr=0.2) == -1
        rates.append(flagged[:100].sum() / max(1, flagged.sum()))
    assert 0.05 < np.mean(rates) < 0.22


@pytest.mark.parametrize("fdr", [0, -0.1, 1.5, "0.1", True])
def test_a_rate_is_between_zero_and_one(X, fdr):
    with pytest.raises(ValueError, match="fdr must be a number"):
        cheap().fit(X).predict(X, fdr=fdr)


def test_a_rate_that_flags_nothing_is_warned_of():
    detector = cheap().fit(correlated(10, 2, 0))
    with pytest.warns(UserWarning, match=r"fdr=0.05 flags nothing.*0.091"):
        assert (detector.predict([[99.0, 99.0]], fdr=0.05) == 1).all()


def test_a_density_of_zero_at_many_rows_is_warned_of():
    density = HighDimKernelDensity(bandwidth=0.5, kernel="tophat")
    with pytest.warns(UserWarning, match=r"\d% of the distinct .* flags no row"):
        detector = DensityOutlierDetector(density).fit(correlated(100, 6, 0))
    assert_array_equal(detector.decision_function([[99.0] * 6]), [0.0])


def test_a_pipeline_passes_the_rate_on(X):
    model = make_pipeline(StandardScaler(), cheap(trim=0)).fit(X)
    assert_array_equal(model.predict([[9.0] * 4, [0.0] * 4], fdr=0.1), [-1, 1])
    assert not hasattr(model[-1], "set_predict_request")


# Input.


def test_columns_are_known_by_name(X):
    frame = pd.DataFrame(np.column_stack([X, np.arange(200) % 3]), columns=[*"abcdn"])
    density = HighDimKernelDensity(discrete_features=["n"], covariance_type="diag")
    detector = DensityOutlierDetector(density).fit(frame)
    assert_array_equal(detector.estimators_[0].discrete_features_, [4])
    assert detector.feature_names_in_.tolist() == [*"abcdn"]
    scores = detector.score_samples(frame[::-1])
    assert_array_equal(scores, detector.held_out_log_density_[::-1])
    with pytest.warns(
        UserWarning,
        match=r"Fitted to 190 of 200 rows: .*1 constant feature of 6: column 5 \('e'\)",
    ):
        DensityOutlierDetector().fit(frame.assign(e=1.0))
    label = np.arange(200) % 2
    classifier = DensityClassifier(density).fit(frame, label)
    assert_array_equal(classifier.estimators_[0].discrete_features_, [4])
    assert classifier.predict_proba(frame).shape == (200, 2)


def test_a_failed_fit_changes_nothing(X):
    detector, label = cheap().fit(X), np.arange(200) % 2
    estimator = HighDimKernelDensity(covariance_type="full")
    classifier = DensityClassifier(estimator).fit(X, label)
    before = detector.p_values(X), classifier.predict_proba(X)
    with pytest.raises(ValueError, match="sample_weight must have a positive entry"):
        detector.fit(X + 1.0, sample_weight=np.zeros(200))
    with pytest.raises(ValueError, match=r"In class True: .*distinct points"):
        classifier.fit(X, np.arange(200) == 7)
    assert_array_equal(detector.p_values(X), before[0])
    assert_array_equal(classifier.predict_proba(X), before[1])


def test_pickles_and_clones_decide_alike(X):
    label = np.arange(200) % 2
    for model in (cheap().fit(X), DensityClassifier(reject=0.1).fit(X, label)):
        again = pickle.loads(pickle.dumps(model))
        queries = 2.0 * correlated(50, 4, 2)
        assert_array_equal(again.predict(queries), model.predict(queries))
        refitted = clone(model).fit(X, label)
        assert_array_equal(refitted.predict(queries), model.predict(queries))


# Classes.


def blobs(n, seed):
    """Return points of two classes in two dimensions, 3 in 4 of the first."""
    rng = np.random.default_rng(seed)
    label = (rng.uniform(size=n) > 0.75).astype(int)
    return rng.standard_normal((n, 2)) + 2.5 * label[:, None], label


@pytest.mark.parametrize("priors", [None, [0.5, 0.5], [1.0, 0.0]])
def test_bayes_rule(priors):
    X, y = blobs(100, 0)
    queries, _ = blobs(20, 1)
    density = HighDimKernelDensity(bandwidth=0.5)
    model = DensityClassifier(density, priors=priors, temperature=1).fit(X, y)
    shares = np.bincount(y) / 100 if priors is None else np.array(priors)
    joint = (
        shares * np.exp([density.fit(X[y == k]).score_samples(queries) for k in (0, 1)]).T
    )
    expected = joint / joint.sum(axis=1, keepdims=True)
    assert_allclose(model.predict_proba(queries), expected, atol=1e-12)
    assert_allclose(np.exp(model.score_samples(queries)), joint.sum(axis=1))
    assert_array_equal(model.predict(queries), expected.argmax(axis=1))
    far = model.predict_proba(queries + 1e6)
    assert_allclose(far.sum(axis=1), 1.0)


def test_where_no_class_has_a_density_priors_remain():
    X, y = blobs(100, 0)
    density = HighDimKernelDensity(bandwidth=0.5, kernel="tophat")
    model = DensityClassifier(density, temperature=1).fit(X, y)
    assert_allclose(model.predict_proba([[99.0, 0.0]])[0], np.bincount(y) / 100)
    assert model.score_samples([[99.0, 0.0]])[0] == -np.inf


@pytest.mark.filterwarnings("error")
def test_a_class_of_no_prior_has_no_say():
    """Not in the temperature, and not where it alone has a density."""
    X, y = blobs(120, 0)
    X[::6] += [9.0, -9.0]
    y[::6] = 2
    model = DensityClassifier(priors=[0.5, 0.5, 0.0]).fit(X, y)
    others = DensityClassifier(priors=[0.5, 0.5]).fit(X[y < 2], y[y < 2])
    assert model.temperature_ == others.temperature_
    assert_allclose(model.predict_proba(X)[:, :2], others.predict_proba(X))
    density = HighDimKernelDensity(bandwidth=2.0, kernel="tophat")
    model = DensityClassifier(density, priors=[0.8, 0.2, 0.0]).fit(X, y)
    assert_allclose(model.predict_proba([[9.0, -9.0]]), [[0.8, 0.2, 0.0]])


@settings(max_examples=8, deadline=None, derandomize=True)
@given(exponent=st.integers(-323, 308))
@example(exponent=308)
def test_a_factor_of_weights_has_no_effect(exponent):
    X, y = blobs(30, 0)
    weights = np.where(y == 1, 1.0, 1e-3) if exponent > -300 else np.ones(30)
    weights *= float(f"1e{exponent}")
    density = HighDimKernelDensity(bandwidth=0.5)
    for model in (DensityClassifier(density), DensityOutlierDetector(density)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = clone(model).fit(X, y, sample_weight=weights).score_samples(X[:5])
        expected = clone(model).fit(X, y, sample_weight=weights / weights.max())
        assert_allclose(found, expected.score_samples(X[:5]), rtol=1e-12)


def test_weights_are_repetitions():
    X, y = blobs(60, 0)
    weights = np.random.default_rng(0).integers(0, 4, 60)
    weights[y == 1] *= 2
    queries, _ = blobs(30, 1)
    one = DensityClassifier().fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(60), weights)
    other = DensityClassifier().fit(X[rows], y[rows])
    assert_allclose(one.predict_proba(queries), other.predict_proba(queries), rtol=1e-9)
    assert_allclose(one.temperature_, other.temperature_)


def test_a_class_of_no_weight_is_never_predicted():
    X, y = blobs(60, 0)
    model = DensityClassifier(reject=0.1).fit(X, y, sample_weight=y == 1)
    assert model.estimators_[0] is None
    assert_array_equal(model.predict_proba(X), np.tile([0.0, 1.0], (60, 1)))
    with pytest.raises(ValueError, match="class 0 has a positive prior"):
        DensityClassifier(priors=[0.5, 0.5]).fit(X, y, sample_weight=y == 1)


def test_temperature_makes_probabilities_honest():
    """Digits: as right as before, and surer of it only as far as that holds."""
    X, y = load_digits(return_X_y=True)
    X = X + np.random.default_rng(0).uniform(size=X.shape)  # no pixel is constant
    models = [DensityClassifier(temperature=t).fit(X[::2], y[::2]) for t in ("auto", 1)]
    losses = [log_loss(y[1::2], model.predict_proba(X[1::2])) for model in models]
    assert models[0].temperature_ > 1.5
    assert losses[0] < 0.8 * losses[1]
    assert models[0].score(X[1::2], y[1::2]) > 0.98


@pytest.mark.parametrize(
    "names, label", [([0, 1], -1), (["left", "right"], "neither"), ([2.0, 5.0], -1.0)]
)
def test_what_no_class_knows_is_refused(names, label):
    X, y = blobs(400, 0)
    names = np.array(names)
    model = DensityClassifier(reject=0.05, reject_label=label).fit(X, names[y])
    fresh, _ = blobs(1000, 1)
    assert 0.01 < np.mean(model.predict(fresh) == label) < 0.06
    assert model.predict([[9.0, -9.0]]).tolist() == [label]
    # as ranks among the rows of each class, by fits without them
    scores = model.estimators_[1].held_out_log_density_
    own = model.estimators_[1].score_samples(fresh)
    expected = [p_value(score, scores, np.ones(len(scores))) for score in own]
    assert_allclose(model.p_values(fresh)[:, 1], expected)


def test_a_label_beyond_the_type_of_the_classes():
    X, y = blobs(100, 0)
    model = DensityClassifier(reject=0.05).fit(X, y.astype(np.uint8))
    assert model.predict([[9.0, -9.0]]).tolist() == [-1]


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"priors": [0.3, 0.3]}, "priors must be probabilities"),
        ({"priors": [1.2, -0.2]}, "priors must be probabilities"),
        ({"priors": [1.0]}, "one number for each of the 2 classes"),
        ({"reject": 0.1, "reject_label": 1}, "reject_label=1 is one of the classes"),
        ({"reject": 0.1, "reject_label": "none"}, "not of the type of the classes"),
        ({"reject": 1.5}, "'reject' parameter"),
        ({"temperature": 0.0}, "'temperature' parameter"),
        ({"estimator": 1}, "'estimator' parameter"),
    ],
)
def test_parameters_that_make_no_sense(parameters, message):
    with pytest.raises(ValueError, match=message):
        DensityClassifier(**parameters).fit(*blobs(40, 0))


@pytest.mark.parametrize("parameters", [{"reject": 7}, {"reject_label": 1}])
def test_what_is_set_after_the_fit_is_checked(parameters):
    X, y = blobs(40, 0)
    model = DensityClassifier(reject=0.1).fit(X, y).set_params(**parameters)
    with pytest.raises(ValueError, match=next(iter(parameters))):
        model.predict(X)


def test_a_level_that_refuses_nothing_is_warned_of():
    X, y = blobs(40, 0)
    with pytest.warns(UserWarning, match=r"reject=0.01 rejects nothing: class 1 has"):
        DensityClassifier(reject=0.01).fit(X, y)


def test_classes_warn_once_of_each_kind():
    X, y = blobs(80, 0)
    X = np.column_stack([X, np.ones(80), y])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DensityClassifier().fit(X, y)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 1
    assert texts[0].startswith("In class 0: X has 2 constant features")
    assert texts[0].endswith("Warnings of this kind: 2.")
    assert caught[0].filename == __file__


# Several densities.


def test_scores_are_means_of_several_log_densities(X):
    wide, narrow = (
        HighDimKernelDensity(bandwidth=2.0),
        HighDimKernelDensity(bandwidth=0.5),
    )
    both = DensityOutlierDetector([wide, narrow], trim=0).fit(X)
    alone = [DensityOutlierDetector(d, trim=0).fit(X) for d in (wide, narrow)]
    queries = np.vstack([X[:5], correlated(5, 4, 2)])
    expected = np.mean([d.score_samples(queries) for d in alone], axis=0)
    assert_allclose(both.score_samples(queries), expected, rtol=1e-12)
    assert [d.bandwidth_ for d in both.estimators_] == [2.0, 0.5]
    assert not hasattr(wide, "bandwidth_")


def between_clusters(rng):
    X = rng.standard_normal((400, 8)) + 5.0 * rng.choice([-1.0, 1.0], size=(400, 1))
    return X, rng.standard_normal((50, 8))


def against_correlations(rng):
    X = np.repeat(rng.standard_normal((400, 10)), 2, axis=1)
    X += 0.12 * rng.standard_normal(X.shape)
    return X, X[:50] * np.array([1.0, -1.0] * 3 + [1.0] * 14)


@pytest.mark.parametrize(
    "case, blind", [(between_clusters, 0), (against_correlations, 1)]
)
def test_the_default_sees_outliers_that_one_density_does_not(case, blind):
    X, odd = case(np.random.default_rng(0))
    detector = DensityOutlierDetector().fit(X[50:])
    queries, truth = np.vstack([X[:50], odd]), [1] * 50 + [0] * 50
    assert roc_auc_score(truth, detector.score_samples(queries)) > 0.9
    alone = detector.estimators_[blind].score_samples(queries)
    assert roc_auc_score(truth, alone) < 0.75


@pytest.mark.parametrize("estimator", [[], [HighDimKernelDensity(), 3]])
def test_a_list_must_have_densities(X, estimator):
    with pytest.raises(ValueError, match=r"estimator must be a HighDim.*, a list"):
        DensityOutlierDetector(estimator).fit(X)


def test_a_class_of_one_row_has_the_bandwidth_of_the_others(X):
    y = np.repeat([0, 1, 2], [100, 99, 1])
    with pytest.warns(UserWarning, match="Class 2 has one distinct row.*bandwidth"):
        classifier = DensityClassifier().fit(X, y)
    bandwidths = [density.bandwidth_ for density in classifier.estimators_]
    assert bandwidths[2] == np.median(bandwidths[:2])
    with pytest.raises(ValueError, match="In class 2"):
        DensityClassifier(HighDimKernelDensity(covariance_type="full")).fit(X, y)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(power=st.integers(-660, 660), seed=st.integers(0, 99))
def test_what_is_trimmed_does_not_depend_on_units(power, seed):
    """The warnings of what is out of range are errors here."""
    X = np.random.default_rng(seed).standard_t(3, size=(60, 3))
    units = np.array([2.0**power, 1.0, 2.0 ** (-power // 2)])
    expected = central_rows(X, None, 0.2)
    assert 0 < (~expected).sum() <= 12
    assert_array_equal(central_rows(X * units, None, 0.2), expected)
