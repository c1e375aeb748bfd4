"""Private kernel sums: exact noise, sensitivity, an audit, errors, what is held."""

import gc
import math
import pickle
import warnings

import mpmath
import numpy as np
import private_audit
import pytest
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from skhdkde import regimes
from skhdkde._private import Budget, discrete_noise, feature_plan, lattice_or_number
from skhdkde._private.budget import gaussian_scale
from skhdkde._private.sums import CIRCLE, sizes_and_scale, whole_sums
from skhdkde.private import PrivateDensityClassifier, PrivateKernelDensity

BUDGETS = [(1.0, 0.0), (1.0, 1e-6)]
BOX = -6.0, 6.0


@pytest.fixture(autouse=True)
def repeatable_noise(monkeypatch):
    """Give tests the same noise each time: the only place where it has a seed."""
    rng = np.random.default_rng(20)
    monkeypatch.setattr(discrete_noise, "random_bytes", rng.bytes)


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(2000, 2))


def quiet(estimator, *data):
    """Fit without the warning of too much noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*too small for epsilon")
        return estimator.fit(*data)


def exact_sums(Q, X, h):
    """Return kernel sums by definition."""
    sq = ((Q[:, None, :] - X[None]) ** 2).sum(axis=-1)
    return np.exp(-0.5 * sq / h**2).sum(axis=1)


# noise


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("name", ["discrete_laplace", "discrete_gaussian"])
def test_noise_has_its_law(name, scale):
    z = np.arange(-60, 61)
    log = -np.abs(z) / scale if "laplace" in name else -0.5 * (z / scale) ** 2
    masses = np.exp(log) / np.exp(log).sum()
    drawn = getattr(discrete_noise, name)(scale, 30_000)
    counts = np.bincount(np.clip(drawn, -60, 60) + 60, minlength=121)
    common = masses > 1e-3
    found = [*counts[common], counts[~common].sum()]
    expected = np.array([*masses[common], masses[~common].sum()]) * len(drawn)
    assert chisquare(found, expected).pvalue > 1e-3


@pytest.mark.parametrize("name, ratio", [("laplace", 1.0), ("gaussian", 2 / math.pi)])
def test_noise_of_large_scale(name, ratio):
    scale = 2**26 + 12_345
    drawn = getattr(discrete_noise, f"discrete_{name}")(scale, 20_000) / scale
    assert np.mean(np.abs(drawn)) ** 2 == pytest.approx(ratio, rel=0.04)
    assert np.mean(drawn) == pytest.approx(0.0, abs=0.04)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1.0, 20.0])
@pytest.mark.parametrize("delta", [0.5, 1e-2, 1e-6, 1e-12])
@mpmath.workdps(40)
def test_gaussian_scale_is_what_delta_asks_for(epsilon, delta):
    s = mpmath.mpf(gaussian_scale(epsilon, delta))
    first = mpmath.ncdf(1 / (2 * s) - epsilon * s)
    found = first - mpmath.exp(epsilon) * mpmath.ncdf(-1 / (2 * s) - epsilon * s)
    assert delta * (1 - 1e-6) < found <= delta


def test_noise_does_not_come_from_random_state(X):
    fits = [
        quiet(PrivateKernelDensity(1.0, bandwidth=1.0, random_state=0), X) for _ in "ab"
    ]
    np.random.seed(0)
    queries = X[:5]
    assert (fits[0].kernel_sum(queries) != fits[1].kernel_sum(queries)).all()
    same = (fit._released.frequencies.multiples for fit in fits)
    np.testing.assert_array_equal(*(m[:50] for m in same))


def test_noise_comes_from_the_system(monkeypatch):
    asked = []
    monkeypatch.undo()
    monkeypatch.setattr(
        discrete_noise.os, "urandom", lambda n: asked.append(n) or b"\x07" * n
    )
    discrete_noise.random_bytes(8)
    assert asked == [8]


# sensitivity

ROWS = {
    "near": [0.3, -1.2],
    "far": [1e6, -3e5],
    "beyond": [1e300, -1e308],
    "subnormal": [5e-324, 0.0],
    "corner": [math.pi / 4, math.pi / 4],
}


@pytest.mark.parametrize("delta", [0.0, 1e-6])
@pytest.mark.parametrize("box", [None, BOX])
def test_a_row_changes_whole_numbers_by_no_more_than_is_stated(X, box, delta):
    budget = Budget(1.0, delta)
    plan = planned(budget, box)
    sizes, scale = sizes_and_scale(plan, budget)
    X = X[:100]
    sums = whole_sums(X, plan, sizes)
    rng = np.random.default_rng(1)
    rows = np.array([*ROWS.values(), *rng.uniform(-9, 9, (90, 2))])
    rows = rows if box is None else np.clip(rows, *box)
    largest = 0.0
    for i, row in enumerate(rows):
        with_row = whole_sums(np.insert(X, i, row, axis=0), plan, sizes)
        change = with_row - sums
        # it is the row's own, whatever rows there are beside
        np.testing.assert_array_equal(change, whole_sums(row[None], plan, sizes))
        if delta:
            reach = scale / gaussian_scale(0.95, delta)
            largest = max(largest, np.linalg.norm(change.astype(float)) / reach)
        else:
            largest = max(largest, np.abs(change).sum() / (0.95 * scale))
    assert 0.8 < largest <= 1.0


def planned(budget, box=None, n_components=40, d=2):
    ends = None if box is None else tuple(np.full(2, end) for end in box)
    number = n_components if box is None else None
    rng = np.random.RandomState(0)
    return feature_plan(2000.0, d, 1.0, budget, box=ends, n_components=number, rng=rng)


def test_sums_do_not_depend_on_the_order_of_rows(X):
    budget = Budget(1.0)
    plan = planned(budget)
    sizes, _ = sizes_and_scale(plan, budget)
    rng = np.random.default_rng(3)
    sums = whole_sums(X, plan, sizes)
    for _ in range(3):
        np.testing.assert_array_equal(whole_sums(rng.permutation(X), plan, sizes), sums)


def test_what_a_row_adds_does_not_depend_on_the_rows_beside():
    """Not even where last bits of a matrix product matter: far rows, many features."""
    budget, rng = Budget(1.0), np.random.default_rng(4)
    plan = planned(budget, n_components=64, d=60)
    sizes, _ = sizes_and_scale(plan, budget)
    X = rng.normal(scale=3e5, size=(300, 60))
    alone = sum(whole_sums(row[None], plan, sizes) for row in X)
    np.testing.assert_array_equal(whole_sums(X, plan, sizes), alone)


def test_both_releases_together_spend_epsilon():
    budget = Budget(0.7, 1e-7)
    assert budget.of_count + budget.of_sums == 0.7
    with pytest.raises(ValueError, match=r"delta=1e-13 is too small with epsilon=3\.0"):
        quiet(PrivateKernelDensity(3.0, delta=1e-13, bandwidth=1.0), np.ones((9, 2)))


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 2**20 + 7, 2**36])
def test_no_phase_changes_sums_by_more_than_is_counted(size):
    pairs = np.rint(CIRCLE * size)
    counted = Budget(1.0).of_sums * Budget(1.0).scale(np.array([float(size)]))
    assert np.abs(pairs).sum(axis=0).max() <= counted
    counted = Budget(1.0, 1e-2).scale(np.array([float(size)])) / gaussian_scale(
        0.95, 1e-2
    )
    assert np.hypot(*pairs).max() <= counted


@pytest.mark.parametrize("dtype", [int, object])
def test_a_row_is_in_one_class_only(dtype):
    """Whole numbers from 2^53 on may equal one float64: the row would count twice."""
    X, y = np.zeros((3, 1)), np.array([0.0, 2.0**53, 2.0**53])
    classes = np.array([0, 2**53, 2**53 + 1], dtype=dtype)
    with pytest.raises(ValueError, match=r"y has 2 labels .* equal to two of them"):
        PrivateDensityClassifier(1.0, bandwidth=1.0, classes=classes).fit(X, y)


@pytest.mark.parametrize(
    "delta, divisor, n_pairs",
    [(0.0, 1, 80), (0.01, 1, 80), (0.0, 4, 240), (0.01, 4, 240)],
)
def test_audit(monkeypatch, delta, divisor, n_pairs):
    """The bound does not exceed epsilon, and does with a quarter of the noise."""
    stated = Budget.scale
    monkeypatch.setattr(Budget, "scale", lambda self, z: stated(self, z) // divisor)
    scores = list(private_audit.releases(n_pairs, np.random.default_rng(0), delta=delta))
    bound = private_audit.epsilon_bound(scores, delta)
    assert bound <= 1.0 if divisor == 1 else bound > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.0, 0.01])
@pytest.mark.parametrize("divisor", [1, 2])
def test_large_audit(monkeypatch, delta, divisor):
    """With half of the noise the bound is 1.5 or more, give or take 0.12."""
    stated = Budget.scale
    monkeypatch.setattr(Budget, "scale", lambda self, z: stated(self, z) // divisor)
    scores = list(private_audit.releases(2500, np.random.default_rng(0), delta=delta))
    bound = private_audit.epsilon_bound(scores, delta)
    assert bound <= 1.0 if divisor == 1 else bound > 1.0


# what is held


def test_no_row_is_held():
    X = np.random.default_rng(5).normal(size=(300, 3))
    y = np.arange(300) % 2
    for fitted in (
        quiet(PrivateKernelDensity(1.0, bandwidth=1.0, random_state=0), X),
        quiet(
            PrivateDensityClassifier(1.0, bandwidth=1.0, classes=[0, 1], random_state=0),
            X,
            y,
        ),
    ):
        pickled = pickle.dumps(fitted)
        for kind in (np.float64, np.float32):
            assert not any(value.tobytes() in pickled for value in X.astype(kind).ravel())
        values = set(X.ravel().tolist())
        for found in reachable(fitted):
            if isinstance(found, np.ndarray) and found.dtype.kind == "f":
                assert not values & set(found.ravel().tolist())
                assert 300 not in found.shape
            assert not isinstance(found, float) or found not in values


def reachable(start):
    """Yield all objects that an object holds, but for classes, modules and functions."""
    todo, seen = [start], set()
    while todo:
        found = todo.pop()
        if id(found) in seen or callable(found) or isinstance(found, type(math)):
            continue
        seen.add(id(found))
        yield found
        todo += gc.get_referents(found)


def test_the_walk_finds_what_is_held():
    fitted = PrivateKernelDensity(1.0)
    fitted.hidden = {"deep": [np.ones(3)]}
    assert any(isinstance(found, np.ndarray) for found in reachable(fitted))


def test_pickle_and_clone(X):
    kde = PrivateKernelDensity(5.0, delta=1e-5, bandwidth=1.5, bounds=BOX).fit(X)
    again = pickle.loads(pickle.dumps(kde))
    np.testing.assert_array_equal(again.score_samples(X[:9]), kde.score_samples(X[:9]))
    assert not hasattr(clone(kde), "n_rows_")


# results


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("h", [0.3, 1.0])
def test_lattice_without_noise_is_the_kernel_sum(d, h):
    rng = np.random.default_rng(d)
    X, Q = rng.normal(size=(500, d)), rng.normal(size=(50, d))
    kde = quiet(PrivateKernelDensity(200.0, bandwidth=h, bounds=BOX), X)
    assert kde.features_ == "lattice"
    truth = exact_sums(Q, X, h)
    gaps = (kde.kernel_sum(Q) - truth) / kde.standard_error(Q)
    assert np.abs(gaps).max() < 4.5
    assert kde.standard_error(Q).max() < 0.6
    log_density = np.log(truth / 500) - d * math.log(h * math.sqrt(2 * math.pi))
    dense = truth > 20.0
    found = kde.score_samples(Q[dense])
    np.testing.assert_allclose(found, log_density[dense], atol=0.15)


def test_rows_outside_bounds_are_moved_there():
    inside, outside = np.full((50, 2), 6.0), np.full((50, 2), 1e9)
    kde = quiet(PrivateKernelDensity(500.0, bandwidth=1.0, bounds=BOX), outside)
    truth = exact_sums(inside[:1], inside, 1.0)
    np.testing.assert_allclose(kde.kernel_sum(inside[:1]), truth, rtol=0.02)


@pytest.mark.parametrize(
    "d, bounds, delta",
    [(2, BOX, 0.0), (2, None, 0.0), (20, None, 0.0), (20, None, 1e-6), (384, None, 1e-6)],
)
def test_stated_errors_are_the_spread_over_releases(d, bounds, delta):
    rng = np.random.default_rng(d)
    X, Q = rng.normal(size=(100, d)), rng.normal(size=(20, d))
    kde = PrivateKernelDensity(
        2.0,
        delta=delta,
        bandwidth=math.sqrt(d),
        bounds=bounds,
        n_components="auto" if bounds else 64,
    )
    found, stated = [], []
    for _ in range(100):
        quiet(kde, X)
        found.append(kde.kernel_sum(Q))
        stated.append(kde.standard_error(Q))
    errors = np.subtract(found, exact_sums(Q, X, math.sqrt(d)))
    ratio = np.sqrt(np.mean(np.square(stated)) / np.mean(errors**2))
    assert ratio == pytest.approx(1.0, abs=0.1)
    assert np.abs(errors.mean(axis=0)).max() < 5 * np.mean(stated) / 10


def test_number_of_rows():
    kde = PrivateKernelDensity(2.0, bandwidth=1.0, n_components=2)
    X = np.zeros((500, 1))
    found = [quiet(kde, X).n_rows_ for _ in range(200)]
    assert np.std(found) == pytest.approx(28.3 / 2.0, rel=0.2)
    assert np.mean(found) == pytest.approx(500, abs=4)
    found = [quiet(kde.set_params(epsilon=300.0), X).n_rows_ for _ in range(50)]
    assert 0.7 < np.std(found) < 2.2
    classifier = PrivateDensityClassifier(
        2.0, bandwidth=1.0, classes=[0, 1], n_components=2
    )
    y = np.arange(500) % 2
    found = [quiet(classifier, X, y).n_rows_ for _ in range(100)]
    assert np.std(found) == pytest.approx(28.3 / 2.0, rel=0.3)
    assert Budget(300.0).count_error >= 1.35  # that of whole numbers is not less
    assert quiet(kde.set_params(epsilon=1e-3), X[:1]).n_rows_ >= 1


def test_components_follow_from_the_noisy_number_of_rows(X):
    budget, y = Budget(0.5), np.arange(len(X)) % 2
    kde = PrivateKernelDensity(0.5, bandwidth=1.0)
    classifier = PrivateDensityClassifier(0.5, bandwidth=1.0, classes=[0, 1])
    for _ in range(3):
        found = quiet(kde, X).n_components_, quiet(classifier, X, y).n_components_
        expected = [
            lattice_or_number(n, 1.0, budget, None, None)
            for n in (kde.n_rows_, classifier.n_rows_ / 2)
        ]
        assert list(found) == expected


def test_sums_below_zero(X):
    kde = quiet(PrivateKernelDensity(1.0, bandwidth=0.02, n_components=200), X)
    Q = np.random.default_rng(2).normal(size=(50, 2)) + 4.0
    sums = kde.kernel_sum(Q)
    assert 5 < (sums <= 0.0).sum() < 45
    with pytest.warns(UserWarning, match="noisy kernel sum of zero or below"):
        found = kde.score_samples(Q)
    np.testing.assert_array_equal(np.isneginf(found), sums <= 0.0)


# what is refused


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bandwidth": "kl"}, "bandwidth must be given.*'kl'.*would not be private"),
        ({"bandwidth": None}, "bandwidth must be given"),
        ({"bandwidth": True}, "bandwidth must be given"),
        ({"bounds": "data"}, "bounds must be None or"),
        ({"bounds": (1.0, 0.0)}, "low < high"),
        ({"bounds": (0.0, np.inf)}, "finite"),
        ({"bounds": ([0, 0, 0], [1, 1, 1])}, r"shape \(2,\)"),
        ({"kernel": "tophat"}, "kernel"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": math.inf}, "epsilon"),
        ({"epsilon": 1e-9, "delta": 1e-6}, "epsilon=1e-09 is too small"),
        ({"epsilon": 1e-17}, "epsilon=1e-17 is too small"),
        ({"epsilon": 1e-10, "delta": 1e-11}, "epsilon=1e-10 is too small"),
        ({"epsilon": 1e300}, r"epsilon=1e\+300 is too large"),
        ({"epsilon": 1e300, "delta": 0.5}, r"delta=0\.5 .* it must be 0\."),
        ({"epsilon": 40.0, "delta": 0.1}, r"delta=0\.1 .* it must be 0\."),
        ({"delta": 1.0}, "delta"),
    ],
)
def test_refused(X, change, message):
    kde = PrivateKernelDensity(1.0, bandwidth=1.0).set_params(**change)
    with pytest.raises(ValueError, match=message):
        kde.fit(X)
    assert not hasattr(kde, "n_rows_")


def test_refused_calls(X):
    kde = PrivateKernelDensity(1.0, bandwidth=2.0, bounds=BOX)
    with pytest.raises(TypeError, match="sample_weight"):
        kde.fit(X, sample_weight=np.ones(len(X)))
    kde.fit(X)
    with pytest.raises(NotImplementedError, match="no samples"):
        kde.sample(3)
    with pytest.raises(ValueError, match=r"1 rows outside bounds.* such as row 1"):
        kde.score_samples([[0.0, 0.0], [7.0, 0.0]])


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0)])
def test_rows_too_far_for_random_frequencies(bounds):
    """All that is so far counts as one point: nothing would be right there."""
    far = np.random.default_rng(0).normal(1.7e12, 1e3, size=(500, 2))
    kde = PrivateKernelDensity(5.0, bandwidth=1.0, n_components=100, bounds=bounds)
    with pytest.raises(ValueError, match=r"X has 1 rows more than .* such as row 1"):
        quiet(kde, np.zeros((500, 2))).kernel_sum([[0.0, 0.0], far[0]])
    kde.bounds = None
    with pytest.warns(UserWarning, match=r"X has 500 rows more than .* such as row 0"):
        kde.fit(far)
    kde.bounds = 1.7e12 - 1e4, 1.7e12 + 1e4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.isfinite(kde.fit(far).kernel_sum(far)).all()
    assert not any("rows more than" in str(each.message) for each in caught)


# theory


@pytest.mark.parametrize("epsilon, delta", [(4.0, 0.0), (4.0, 1e-6)])
@pytest.mark.parametrize("d, widths", [(2, 12.0), (2, None), (8, None)])
def test_theory_agrees_with_fits(d, widths, epsilon, delta):
    n, rng = 2000, np.random.default_rng(d)
    setting = {"delta": delta, "widths": widths}
    h = regimes.private_bandwidth(n, np.ones(d), epsilon, **setting)
    errors = [
        regimes.private_relative_error(h * k, n, np.ones(d), epsilon, **setting)
        for k in (0.99, 1.0)
    ]
    assert errors[0] > 0.1 >= errors[1] * (1.0 - 1e-4)
    X, Q = rng.normal(size=(n, d)), rng.normal(size=(1000, d))
    sq = (Q**2).sum(axis=1)
    Q = Q[np.argsort(np.abs(sq - np.median(sq)))[:20]]
    truth = exact_sums(Q, X, h)
    kde = PrivateKernelDensity(
        epsilon, delta=delta, bandwidth=h, bounds=BOX if widths else None
    )
    found = np.mean(quiet(kde, X).standard_error(Q) / truth)
    assert found == pytest.approx(errors[1], rel=0.15)
    assert kde.relative_error_ < 0.15  # no warning at what theory gives


def test_smallest_bandwidth_follows_its_arguments():
    def of(n=20_000, epsilon=1.0, scale=1.0, **options):
        return regimes.private_bandwidth(n, np.full(6, scale**2), epsilon, **options)

    assert of(n=200_000) < of() < of(epsilon=0.5)
    assert of(delta=1e-6) < of() < of(relative_error=0.05)
    assert of(scale=1e-3) == pytest.approx(1e-3 * of(), rel=1e-4)
    assert of() > regimes.gaussian_thresholds(20_000, np.ones(6)).h_clt
    with pytest.raises(ValueError, match=r"no bandwidth has a relative error of 0\.1"):
        of(n=30)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bandwidth": 0.0}, "bandwidth must be"),
        ({"epsilon": -1.0}, "epsilon must be"),
        ({"delta": 1.0}, "delta must be"),
        ({"widths": -3.0}, "widths must be"),
        ({"widths": np.nan}, "widths must be"),
        ({"widths": [1.0, 2.0]}, r"widths must be .* shape \(1,\)"),
        ({"widths": "wide"}, "widths must be"),
        ({"n_components": 1}, "n_components must be"),
        ({"covariance_eigenvalues": [-1.0]}, "covariance_eigenvalues must be"),
        ({"n_samples": 1}, "n_samples must be"),
    ],
)
def test_arguments_of_theory(change, message):
    setting = {"bandwidth": 1.0, "n_samples": 100, "epsilon": 1.0}
    setting |= {"covariance_eigenvalues": [1.0]} | change
    with pytest.raises(ValueError, match=message):
        regimes.private_relative_error(**setting)


@pytest.mark.parametrize(
    "change", [{"delta": "x"}, {"n_components": "auto"}, {"relative_error": "x"}]
)
def test_types_of_arguments_of_theory(change):
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be"):
        regimes.private_bandwidth(1000, [1.0], 1.0, **change)


@pytest.mark.parametrize("epsilon, delta", BUDGETS)
@pytest.mark.parametrize("d", [2, 20])
def test_warning_below_what_works(d, epsilon, delta):
    n = 4000
    X = np.random.default_rng(d).normal(size=(n, d))
    kde = PrivateKernelDensity(epsilon, delta=delta, n_components=300)
    kde.bandwidth = 0.5 * regimes.gaussian_thresholds(n, np.ones(d)).h_g
    with pytest.warns(
        UserWarning, match=r"bandwidth=.* may be too small for epsilon=1\.0"
    ):
        kde.fit(X)
    assert kde.relative_error_ > 1.0
    kde.bandwidth = 30.0
    kde.fit(X)
    assert kde.relative_error_ < 0.15


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("bounds", [BOX, None])
def test_error_at_a_typical_row(X, epsilon, bounds):
    """Hold that it may be too large, and is not much too small."""
    kde = PrivateKernelDensity(epsilon, bandwidth=0.5, bounds=bounds)
    truth = exact_sums(X[:300], X, 0.5).mean()
    for _ in range(3):
        quiet(kde, X)
        right = np.mean(kde.standard_error(X[:50])) / truth
        assert kde.relative_error_ > 0.7 * right
        if right < 0.05:
            assert kde.relative_error_ < 1.5 * right


# classes


def test_digits():
    X, y = load_digits(return_X_y=True)
    train, test = slice(None, None, 2), slice(1, None, 2)
    h = 20.0
    sums = np.stack(
        [
            np.exp(-0.5 * sq_distances(X[test], X[train][y[train] == k]) / h**2).sum(1)
            for k in range(10)
        ]
    )
    plain = np.mean(sums.argmax(axis=0) == y[test])
    private = PrivateDensityClassifier(4.0, delta=1e-5, bandwidth=h, classes=range(10))
    assert quiet(private, X[train], y[train]).score(X[test], y[test]) > plain - 0.04
    assert private.kernel_sums(X[test]).shape == (898, 10)
    assert private.relative_error_ < 0.1
    useless = private.set_params(epsilon=0.01, n_components=64)
    with pytest.warns(
        UserWarning, match=r"bandwidth=20\.0 may be too small for epsilon=0\.01"
    ):
        useless.fit(X[train], y[train])
    assert useless.score(X[test], y[test]) < 0.4


def sq_distances(A, B):
    return (A**2).sum(1)[:, None] + (B**2).sum(1) - 2.0 * A @ B.T


def test_classes_must_be_given(X):
    y = np.where(X[:, 0] > 0, "b", "a")
    with pytest.raises(ValueError, match="classes"):
        PrivateDensityClassifier(1.0, bandwidth=1.0).fit(X, y)
    classifier = PrivateDensityClassifier(1.0, bandwidth=1.0, classes=["a", "c"])
    with pytest.raises(ValueError, match=r"y has \d+ labels that are not in classes"):
        classifier.fit(X, y)


def test_a_class_without_rows(X):
    y = np.where(X[:, 0] > 0, "b", "a")
    few = (y == "a") | (np.arange(len(y)) % 3 == 0)
    classifier = PrivateDensityClassifier(
        50.0, bandwidth=0.5, classes=["c", "a", "b"], bounds=BOX
    ).fit(X[few], y[few])
    assert classifier.n_rows_ == pytest.approx(few.sum(), abs=5)
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    Q = [[-1.0, 0.0], [1.5, 0.0], [0.1, 0.0]]  # the last has more rows of "a" beside
    assert classifier.predict(Q).tolist() == ["a", "b", "a"]
    np.testing.assert_allclose(classifier.kernel_sums(Q)[:, 2], 0.0, atol=5.0)


def test_conventions():
    for estimator in (
        PrivateKernelDensity(1.0, bandwidth=1.0),
        PrivateDensityClassifier(1.0, bandwidth=1.0, classes=[0, 1]),
    ):
        assert estimator.__sklearn_tags__().non_deterministic
        method = getattr(estimator, "predict", None) or estimator.score_samples
        with pytest.raises(NotFittedError):
            method([[0.0]])


def test_data_frames():
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 2)), columns=["a", "b"])
    kde = quiet(PrivateKernelDensity(1.0, bandwidth=2.0), X)
    assert kde.feature_names_in_.tolist() == ["a", "b"]
    assert kde.score_samples(X).shape == (500,)
