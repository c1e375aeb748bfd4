"""Units of the data, order of rows and origin: every public result follows its law.

Hypothesis draws data and a combination of all parameters. The points are multiplied by
``2^k`` and the weights by ``2^m``; or the rows are permuted; or a constant ``c`` is
added. An estimator is fitted to both, with the bandwidth and the mixture in the new
units where they are given in units of the data, and all that a user sees is compared.

======================= ================= =========== ============== ================
result                  law for 2^k X + c 2^k, exact  2^k, otherwise order, origin
======================= ================= =========== ============== ================
bandwidths, h_g, h_clt  times 2^k, where  to the bit  1e-7           1e-6 (2e-3)
                        in data units
log densities           - k d log 2       8 roundings 1e-9, 1e-9 v   2e-8 (2e-3) nats
their sum, ``score``    - n k d log 2     8 roundings 1e-8, 1e-8 v   4e-7 (4e-2) nats
gradients               times 2^-k        to the bit  1e-7           1e-6 (2e-3)
samples                 times 2^k, + c    to the bit  1e-9           1e-6 (2e-3)
standard errors of log  none              to the bit  1e-3 in the    1e-3 (1e-2) in
densities                                             median, 0.1    the median, 0.1
stated errors           none              to the bit, 1e-9, 1e-7 v,  2e-8 (2e-3) nats
                                          or 64       64 roundings
                                          roundings
tail index, shares,     none              to the bit  1e-7           1e-6 (2e-3)
errors of means
names, counts, regimes, none              equal       equal          equal
words of warnings
======================= ================= =========== ============== ================

In brackets: float32. A rounding is eps times the size of the log density ``v``, of the
log volume, about 10 d, and of ``k d``. Gradients are relative to the largest or to the
inverse of the bandwidth, samples to the largest. Bandwidths and thresholds are in data
units if the covariance is spherical; otherwise they are in whitened units, which do not
change.

Why not all is exact:

- Log densities have ``log h`` in them, which is rounded anew.
- "otherwise" are a search over folds, adaptive bandwidths with a whitening, and several
  components. There the log determinant of a whitening enters sums from which it is
  subtracted again, and a grid of bandwidths is made from logs.
- Stated errors include rounding, which grows with a log determinant.
- A standard error is from a law that is fitted to as many neighbours as a test allows,
  and from a difference of sums.
- Sums in another order, or about another origin, are promised to 1e-8 (1e-3) nats, of
  which both may be off; 50 (5) times as much where the bandwidth is from folds, whose
  sums may be off by 1e-2 nats.

What is left out (see ``Comparison.uncertain`` and ``Scope``):

- Where rows are permuted: samples, and settings that draw at random or make folds, for
  which rows stand in order.
- Standard errors, unless exact, with weights of very different size or of tied points;
  and thresholds where points may coincide up to rounding: duplicates in whitened units,
  and all points where variance is preserved at the largest bandwidth.
- "kl" for compact kernels, unless only units change: the curve jumps where points come
  in reach, and has more maxima than the grid of bandwidths can tell apart.
- The choice among structures that are the same up to rounding.
- scikit-learn's mixtures of some kinds, and of tied or weighted points, about another
  origin.
- KeOps and faiss, which a default run of the tests does not need.

``k`` is from -440 to 440 in float64, where squares of lengths, which covariances are,
must be numbers; and from -96 to 96 in float32, where gradients per data unit must be.

A default run tries few combinations. As many others as you like, of all parameters::

    SKHDKDE_EXAMPLES=2000 pytest tests/test_units.py -k at_length
"""

import dataclasses
import warnings
from dataclasses import dataclass

import dask
import numpy as np
import pytest
from equivariance import (
    COMPACT,
    Case,
    Change,
    Result,
    assert_follows,
    deviations,
    fit,
    outcome,
    search_results,
)
from fuzzing import EXAMPLES
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.covariance import OAS, ShrunkCovariance
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skhdkde import BandwidthDisplay, HighDimKernelDensity, regimes, select_bandwidth
from skhdkde.dask import DaskHighDimKernelDensity

RULES = ("kl", "nearest", "gaussian", "scott", "silverman")
DTYPES = (np.float32, np.float64)
LARGEST_K = {np.float32: 96, np.float64: 440}

# Points come from a seed: a smaller one makes no simpler example.
EASY = {"deadline": None, "database": None, "phases": [Phase.generate]}


def fast(max_examples):
    """Return settings for a few examples, always the same."""
    return settings(max_examples=max_examples, derandomize=True, **EASY)


# Minutes each: by the command above, not by a run of all tests.
LONG = settings(max_examples=int(EXAMPLES or 1), **EASY)
at_length = pytest.mark.skipif(EXAMPLES is None, reason="SKHDKDE_EXAMPLES is not set")


# Data.


def points(rng, kind, n, d):
    """Return points of some kind, and whether distances between them may be equal."""
    X = rng.standard_normal((n, d))
    if kind == "clusters":
        X += 30.0 * rng.integers(-1, 2, size=(n, 1))
    elif kind == "heavy tails":
        X = rng.standard_t(1.0, size=(n, d))
    elif kind == "duplicates":
        X[rng.integers(n, size=n // 3)] = X[rng.integers(n, size=n // 3)]
    elif kind == "lattice":
        X = np.round(2.0 * X)
    elif kind == "off centre":
        X += 100.0
    return X, kind in ("duplicates", "lattice")


def weights_of(rng, kind, n):
    """Return weights of some kind."""
    if kind == "none":
        return None
    if kind == "wide":
        return 10.0 ** rng.uniform(-8.0, 0.0, size=n)
    weights = rng.exponential(size=n)
    if kind == "zeros":
        weights[::5] = 0.0
    return weights


@st.composite
def data(draw, digits=20, largest=2.0**11):
    """Draw points, queries, weights, dtype and whether there are ties."""
    dtype, kind = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(KINDS))
    n, d = draw(st.integers(12, 40)), draw(st.integers(1, 5))
    seed, weighting = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(WEIGHTS))
    rng = np.random.default_rng(seed)
    X, tied = points(rng, kind, n + 6, d)
    # no entry is so small that a factor would take digits from it
    X = np.clip(np.round(X * 2.0**digits) / 2.0**digits, -largest, largest).astype(dtype)
    return {
        "name": f"{n} x {d} {dtype.__name__}, {kind}, weights {weighting}, seed {seed}",
        "X": X[:n],
        "queries": X[-8:],
        "weights": weights_of(rng, weighting, n),
        "tied": tied,
    }


KINDS = ("normal", "clusters", "heavy tails", "duplicates", "lattice", "off centre")
WEIGHTS = ("none", "exponential", "zeros", "wide")


def spread(X, weights):
    """Return the standard deviation of a feature in the mean over features."""
    centred = X - np.average(X, axis=0, weights=weights)
    return np.sqrt(np.average(np.mean(centred**2, axis=1), weights=weights))


def unit_rows(X):
    """Return rows as unit vectors of one more feature."""
    X = np.hstack([X, np.full((len(X), 1), 0.7)]).astype(np.float64)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


# Parameters that go together.


@dataclass(frozen=True)
class Scope:
    """Which cases are drawn.

    Attributes
    ----------
    types : tuple of str, default=("spherical", "diag", "full", "local", "auto")
        Of covariance.
    on_dask : bool, default=False
        Whether they are for the estimator on a cluster.
    searched : bool, default=True
        Whether the default mixtures, which take seconds, may be compared.
    any_order : bool, default=False
        Whether nothing may depend on the order of rows: no folds, no random draws.
    any_origin : bool, default=False
        Whether nothing may depend on the origin.
    on_sphere : bool, default=False
        Whether points are unit vectors.
    """

    types: tuple = ("spherical", "diag", "full", "local", "auto")
    on_dask: bool = False
    searched: bool = True
    any_order: bool = False
    any_origin: bool = False
    on_sphere: bool = False

    def mixtures(self):
        """Return names of mixtures.

        scikit-learn computes the variances of all but "full" as differences of mean
        squares, which lose digits far from the origin.
        """
        if self.any_order:
            return ["fitted"]
        if self.any_origin:
            return ["full", "fitted"] + [None] * self.searched
        searched = [None] if self.searched else []
        return ["full", "diag", "tied", "spherical", "fitted", *searched]

    def algorithms(self, shape):
        """Return names of algorithms."""
        adaptive = shape["adaptive"]
        if self.any_order or (self.on_sphere and not is_plain(shape)):
            return ["exact"]
        return ["exact", "exact", "sampling", "auto"] + ["neighbors"] * (not adaptive)

    def estimators(self, found):
        """Return covariance estimators.

        With weights, which duplicates have too, they are fitted to points drawn again;
        these may be all the same.
        """
        weighted = found["weights"] is not None or found["tied"]
        return [None] if weighted else [None, OAS(), ShrunkCovariance()]


@st.composite
def shapes(draw, scope):
    """Draw covariance, shrinkage, local scales and kernel."""
    kind = draw(st.sampled_from(scope.types))
    preserve_variance = draw(st.booleans())
    adaptive = not scope.on_dask and draw(st.sampled_from([False, False, True, 1, 3]))
    kernels = ["gaussian", "student"]
    plain = kind == "spherical" and not preserve_variance and adaptive is False
    if kind != "local" and adaptive is False and (plain or not scope.on_sphere):
        kernels.append("exponential")
        if kind != "auto" and not preserve_variance:
            kernels += COMPACT
    return {
        "covariance_type": kind,
        "preserve_variance": preserve_variance,
        "adaptive": adaptive,
        "kernel": draw(st.sampled_from(kernels)),
    }


def is_plain(shape):
    """Return whether kernels are round, of one size, and at the points."""
    round_ones = shape["covariance_type"] == "spherical"
    return round_ones and not shape["preserve_variance"] and shape["adaptive"] is False


def rules(shape, scope):
    """Return ways to have a bandwidth for a shape of kernel."""
    kind, student = shape["covariance_type"], shape["kernel"] == "student"
    if kind == "auto":
        return ["kl"]
    folds = kind != "spherical" and shape["kernel"] not in COMPACT
    several = ["number", *RULES[1:]]
    if kind == "local" or shape["preserve_variance"] or shape["adaptive"] or student:
        folds, several = True, ["number"]
    if scope.on_sphere:
        several = [rule for rule in several if rule in ("number", "nearest")]
    jumps = shape["kernel"] in COMPACT and (scope.any_order or scope.any_origin)
    if jumps or (folds and scope.any_order):
        return several
    return ["kl", *several]


@st.composite
def bandwidths(draw, shape, scope, found):
    """Draw a bandwidth and degrees of freedom for it."""
    rule = draw(st.sampled_from(rules(shape, scope)))
    degrees = ["auto", 3.0, 7.5] if rule == "kl" else [3.0, 7.5, 1e9]
    if rule == "number":
        # at most what preserves the variance
        largest = 3.0 if shape["kernel"] != "exponential" else found["X"].shape[1] + 1.0
        size = 1.0
        if shape["covariance_type"] == "spherical":
            size = spread(found["X"].astype(float), found["weights"])
        rule = draw(st.sampled_from([0.02, 0.3, 0.9])) * float(size / np.sqrt(largest))
    return {"bandwidth": rule, "degrees_of_freedom": draw(st.sampled_from(degrees))}


@st.composite
def structures(draw, shape, scope, found):
    """Draw the estimators that a shape is from."""
    parameters, kind = {}, shape["covariance_type"]
    if kind in ("local", "auto"):
        name = draw(st.sampled_from(scope.mixtures()))
        if scope.any_origin and (found["tied"] or found["weights"] is not None):
            # of points between two centres rounding chooses; those drawn in proportion
            # to weights are tied too
            name = "fitted"
        parameters["mixture"] = mixture_of(name, found["X"])
    if kind in ("full", "auto"):
        estimator = draw(st.sampled_from(scope.estimators(found)))
        parameters["covariance_estimator"] = estimator
    return parameters


def mixture_of(name, X):
    """Return a mixture in data units, fitted or not."""
    if name is None:
        return None
    options = {"reg_covar": 1e-2, "random_state": 0}
    if name != "fitted":
        return GaussianMixture(2, covariance_type=name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FrozenEstimator(GaussianMixture(2, **options).fit(X.astype(float)))


@st.composite
def algorithms(draw, shape, scope):
    """Draw what sums are over."""
    return {
        "algorithm": draw(st.sampled_from(scope.algorithms(shape))),
        "neighbors_index": "exact",
        "tol": draw(st.sampled_from([0.01, 0.3])),
        "n_neighbors": draw(st.sampled_from([None, 3])),
    }


@st.composite
def environments(draw):
    """Draw the other parameters."""
    return {
        "backend": draw(st.sampled_from(["numpy", "torch", "auto"])),
        "n_jobs": draw(st.sampled_from([None, 1, 2])),
        "random_state": draw(st.integers(0, 100)),
    }


@st.composite
def chunks(draw, n):
    """Draw sizes of blocks."""
    ends = sorted(draw(st.lists(st.integers(1, n - 1), max_size=3, unique=True)))
    return tuple(int(size) for size in np.diff([0, *ends, n]))


@st.composite
def cases(draw, scope=Scope(), **of_data):
    """Draw a :class:`Case`: data and a combination of all parameters."""
    found, shape = draw(data(**of_data)), draw(shapes(scope))
    if scope.on_sphere:
        found = {**found, "X": unit_rows(found["X"])}
        found["queries"] = unit_rows(found["queries"])
        shape["support"] = "sphere"
    parameters = {
        **shape,
        **draw(bandwidths(shape, scope, found)),
        **draw(environments()),
    }
    if scope.on_dask:
        return Case(parameters=parameters, chunks=draw(chunks(len(found["X"]))), **found)
    parameters.update(draw(structures(shape, scope, found)))
    parameters.update(draw(algorithms(shape, scope)))
    return Case(parameters=parameters, **found)


# Changes.


@st.composite
def scalings(draw, case):
    """Draw powers of two for points and weights."""
    largest = LARGEST_K[case.X.dtype.type]
    k = draw(st.integers(-largest, largest))
    return Change(k=k, m=draw(st.integers(-500, 500)))


@st.composite
def shifts(draw, case):
    """Draw a constant that can be added to the points without rounding."""
    power = draw(st.integers(0, 5 if case.X.dtype == np.float32 else 10))
    return Change(shift=draw(st.sampled_from([-1.0, 1.0])) * 2.0**power)


@st.composite
def permutations(draw, case):
    """Draw an order of the rows, and blocks."""
    n = len(case.X)
    order = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).permutation(n)
    return Change(order=order, chunks=draw(chunks(n)) if case.chunks else None)


# Points to which such a constant can be added.
COARSE = {"digits": 10, "largest": 2.0**7}
# In a default run covariance types have examples of their own.
QUICK = [Scope((name,), searched=False) for name in Scope.types]
ON_SPHERE = [Scope((name,), searched=False, on_sphere=True) for name in Scope.types]
DASK_TYPES = ("spherical", "diag", "full")
ON_DASK = Scope(DASK_TYPES, on_dask=True)
ANY_ORIGIN_ON_DASK = Scope(DASK_TYPES, on_dask=True, any_origin=True)
ANY_ORDER = Scope(("spherical", "diag", "full", "local"), any_order=True)
ANY_ORDER_ON_DASK = Scope(DASK_TYPES, on_dask=True, any_order=True)


def check(source, make, scope, changes, **of_data):
    """Draw a case and a change, and compare."""
    case = source.draw(cases(scope, **of_data))
    assert_follows(make, case, source.draw(changes(case)))


@pytest.fixture(scope="module", autouse=True)
def in_this_thread():
    """Run the graphs of dask in this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("scope", QUICK, ids=lambda scope: scope.types[0])
@fast(4)
@given(source=st.data())
def test_powers_of_two(scope, source):
    check(source, HighDimKernelDensity, scope, scalings)


@at_length
@LONG
@given(source=st.data())
def test_powers_of_two_at_length(source):
    check(source, HighDimKernelDensity, Scope(), scalings)


@fast(4)
@given(source=st.data())
def test_powers_of_two_on_dask(source):
    check(source, DaskHighDimKernelDensity, ON_DASK, scalings)


@at_length
@LONG
@given(source=st.data())
def test_powers_of_two_on_dask_at_length(source):
    check(source, DaskHighDimKernelDensity, ON_DASK, scalings)


@fast(8)
@given(source=st.data())
def test_order_of_rows(source):
    check(source, HighDimKernelDensity, ANY_ORDER, permutations)


@at_length
@LONG
@given(source=st.data())
def test_order_of_rows_at_length(source):
    check(source, HighDimKernelDensity, ANY_ORDER, permutations)


@fast(2)
@given(source=st.data())
def test_order_of_rows_and_blocks_on_dask(source):
    check(source, DaskHighDimKernelDensity, ANY_ORDER_ON_DASK, permutations)


@at_length
@LONG
@given(source=st.data())
def test_order_of_rows_and_blocks_on_dask_at_length(source):
    check(source, DaskHighDimKernelDensity, ANY_ORDER_ON_DASK, permutations)


@fast(8)
@given(source=st.data())
def test_origin(source):
    check(
        source,
        HighDimKernelDensity,
        Scope(searched=False, any_origin=True),
        shifts,
        **COARSE,
    )


@at_length
@LONG
@given(source=st.data())
def test_origin_at_length(source):
    check(source, HighDimKernelDensity, Scope(any_origin=True), shifts, **COARSE)


@fast(2)
@given(source=st.data())
def test_origin_on_dask(source):
    check(source, DaskHighDimKernelDensity, ANY_ORIGIN_ON_DASK, shifts, **COARSE)


@at_length
@LONG
@given(source=st.data())
def test_origin_on_dask_at_length(source):
    check(source, DaskHighDimKernelDensity, ANY_ORIGIN_ON_DASK, shifts, **COARSE)


# Other public functions.


def chosen(case, **options):
    """Return what :func:`select_bandwidth` says of a case."""
    bandwidth, search = select_bandwidth(
        case.X,
        rule=case.parameters["bandwidth"],
        kernel=case.parameters["kernel"],
        sample_weight=case.weights,
        return_search=True,
        **options,
    )
    found = {"bandwidth_": Result("length", bandwidth)}
    return {**found, **dict(search_results(search, "length"))}


@st.composite
def rule_cases(draw):
    """Draw a :class:`Case` of a rule and a kernel."""
    return Case(
        parameters={
            "bandwidth": draw(st.sampled_from(["kl", *RULES])),
            "kernel": draw(st.sampled_from(["gaussian", "exponential", *COMPACT])),
            "covariance_type": "spherical",
            "preserve_variance": False,
        },
        **draw(data(**COARSE)),
    )


@fast(20)
@given(source=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_select_bandwidth(source):
    case = source.draw(rule_cases())
    changes = [scalings(case)]
    if case.parameters["bandwidth"] != "kl" or case.parameters["kernel"] not in COMPACT:
        changes += [shifts(case), permutations(case)]
    change = source.draw(st.one_of(changes))
    numbers = [10, np.geomspace(1e-2, 1e2, 12) * spread(case.X.astype(float), None)]
    bandwidths = source.draw(st.sampled_from(numbers))
    changed = bandwidths if isinstance(bandwidths, int) else bandwidths * change.factor
    before = chosen(case, bandwidths=bandwidths, random_state=0)
    after = chosen(change.case(case), bandwidths=changed, random_state=0)
    assert not deviations(before, after, change, case)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "dtype, k", [(np.float32, -60), (np.float32, 60), (np.float64, 60)]
)
@pytest.mark.parametrize(
    "parameters",
    [
        {"bandwidth": "kl"},
        {"bandwidth": 0.3, "covariance_type": "full"},
        {"bandwidth": 0.3, "adaptive": True},
    ],
    ids=str,
)
def test_bandwidth_display(parameters, dtype, k):
    """The curve is made from logs of bandwidths: these are rounded.

    In float32 so are its values anew, and with them where a parabola has its peak.
    """
    pyplot = pytest.importorskip("matplotlib.pyplot")
    rng = np.random.default_rng(0)
    X, change = rng.standard_normal((40, 3)).astype(dtype), Change(k=k)
    case = Case("normal", X, X[:4], None, {"covariance_type": "spherical", **parameters})
    displays = []
    for each in (case, change.case(case)):
        kde = fit(HighDimKernelDensity, each)
        displays.append(BandwidthDisplay.from_estimator(kde, bandwidths=9))
        pyplot.close("all")
    before, after = displays
    factor = change.factor if case.spherical else 1.0
    for name in ("bandwidths", "bandwidth", "h_g", "h_clt"):
        wanted = getattr(before, name) * factor
        assert_allclose(getattr(after, name), wanted, rtol=1e-9, err_msg=name)
    rounding = 1e-9 if dtype == np.float64 else 1e-4
    assert after.h_kl == pytest.approx(before.h_kl * factor, rel=rounding)
    wanted = before.values - 3.0 * k * np.log(2.0)
    assert_allclose(after.values, wanted, rtol=0.0, atol=rounding)
    assert_allclose(after.standard_error, before.standard_error, rtol=0.0, atol=rounding)


@pytest.mark.parametrize("k", [-440, -60, 1, 60, 440])
@pytest.mark.parametrize("preserve_variance", [False, True])
def test_theory(preserve_variance, k):
    eigenvalues, factor = 1.0 / np.arange(1.0, 21.0), 2.0**k
    before, after = (
        regimes.gaussian_thresholds(500, each, preserve_variance=preserve_variance)
        for each in (eigenvalues, eigenvalues * factor**2)
    )
    for name in ("h_g", "h_clt", "largest_bandwidth"):
        wanted = getattr(before, name) * factor
        assert getattr(after, name) == pytest.approx(wanted, rel=1e-12), name
    # a minimum is as flat as the square root of rounding
    assert after.h_kl == pytest.approx(before.h_kl * factor, rel=1e-7)
    h = np.array([0.5, 0.9, 1.1]) * before.h_g
    h = h[h < before.largest_bandwidth]
    assert_allclose(after.tail_index(h * factor), before.tail_index(h), rtol=1e-11)
    assert_allclose(after.kl(h * factor), before.kl(h), rtol=1e-9, atol=1e-11)
    assert after.regime(h * factor).tolist() == before.regime(h).tolist()


# Faults that there were.


def normal_case(n, d, dtype, **parameters):
    """Return normal points with their parameters."""
    X = np.random.default_rng(0).standard_normal((n, d)).astype(dtype)
    defaults = {"kernel": "gaussian", "covariance_type": "spherical", "random_state": 0}
    preserved = {"preserve_variance": False, **defaults, **parameters}
    return Case(f"normal {n} x {d}", X, X[:5] + dtype(0.25), None, preserved)


LARGE = [(np.float32, 13), (np.float32, 17), (np.float64, 43), (np.float64, -60)]


@pytest.mark.parametrize("dtype, k", LARGE)
@pytest.mark.parametrize(
    "n",
    [200, pytest.param(2000, marks=pytest.mark.slow)],
)
def test_adaptive_bandwidths_of_large_and_small_values(n, dtype, k):
    """Distances to neighbours were compared with a rounding error in other units."""
    case = normal_case(n, 2, dtype, adaptive=True, bandwidth=0.3)
    assert_follows(HighDimKernelDensity, case, Change(k=k))
    if n == 200:
        case = normal_case(n, 2, dtype, adaptive=True)
        assert_follows(HighDimKernelDensity, case, Change(k=k))


@pytest.mark.parametrize("k", [-465, -150, 130, 465])
def test_coordinates_beyond_float32(k):
    """The search on held-out points rounded them to float32 from 16 features on."""
    case = normal_case(200, 16, np.float64, kernel="student", degrees_of_freedom=5.0)
    assert_follows(HighDimKernelDensity, case, Change(k=k))


@pytest.mark.parametrize("beside", [None, 1.0])
@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-160, 1e160, 1e200])
@pytest.mark.parametrize(
    "parameters",
    [
        {"covariance_type": "auto"},
        {"covariance_type": "full"},
        {"covariance_type": "local", "bandwidth": 0.5},
        {"kernel": "student"},
        {"preserve_variance": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:X has 1 constant:UserWarning")
def test_sizes_that_have_no_squares(parameters, size, beside):
    """Variances would be zero or infinite: an error says what to do."""
    X = size * np.random.default_rng(0).standard_normal((50, 2))
    if beside is not None:
        X = np.column_stack([X, np.full(50, beside)])
    kde = HighDimKernelDensity(random_state=0, **parameters)
    with pytest.raises(ValueError, match="beyond float64; multiply it by a factor"):
        kde.fit(X)


@pytest.mark.parametrize("make", [HighDimKernelDensity, DaskHighDimKernelDensity])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_curve_of_a_compact_kernel_is_in_data_units(covariance_type, make):
    """It was that of whitened points."""
    case = normal_case(
        60, 2, np.float64, kernel="tophat", covariance_type=covariance_type
    )
    before, after = (
        fit(make, each).bandwidth_search_ for each in (case, Change(k=10).case(case))
    )
    wanted = before.mean_log_density - 2 * 10 * np.log(2.0)
    assert_allclose(after.mean_log_density, wanted)


@pytest.mark.parametrize("k", [-76, 70])
@pytest.mark.parametrize(
    "parameters",
    [
        {"bandwidth": 0.3},
        pytest.param({"covariance_type": "auto"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_variance_is_preserved_in_any_units(parameters, k):
    """The mean square of float32 values overflowed, or lost its digits."""
    case = normal_case(100, 2, np.float32, preserve_variance=True, **parameters)
    case.parameters["mixture"] = mixture_of("diag", case.X)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_follows(HighDimKernelDensity, case, Change(k=k))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["neighbors", "sampling", "auto"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "bandwidth, weighting", [(0.1, "exponential"), (3.0, "none"), ("kl", "none")]
)
def test_approximate_sums_over_thousands(bandwidth, weighting, dtype, algorithm):
    """2048 points are all in the smallest sample, 4096 all queries of a search."""
    options = {"algorithm": algorithm, "neighbors_index": "exact"}
    n = 4200 if bandwidth == "kl" else 2300
    case = normal_case(n, 3, dtype, bandwidth=bandwidth, **options)
    weights = weights_of(np.random.default_rng(1), weighting, len(case.X))
    case = dataclasses.replace(case, weights=weights)
    k = LARGEST_K[dtype]
    changes = Change(k=k, m=-77), Change(k=-k)
    assert_follows(HighDimKernelDensity, case, *changes)


# These tests can fail.


def test_results_that_do_not_follow_are_found():
    """Results of the same data are wrong for other data, each that should differ."""
    case = normal_case(30, 2, np.float64)
    same = outcome(HighDimKernelDensity, case)
    lengths = ("length", "point", "gradient", "density", "mean", "total")
    differ = {
        Change(k=1): [n for n, r in same.items() if r.law in lengths],
        Change(shift=1.0): ["sample"],
        Change(order=np.arange(30)[::-1]): [
            n for n, r in same.items() if r.of_rows and len(np.unique(r.value)) > 1
        ],
    }
    for change, names in differ.items():
        lines = deviations(same, same, change, case)
        assert [line.split(" ")[0] for line in lines] == names


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_deviations_are_found(dtype):
    """A factor of two units in the last place is, where results are exact."""
    case, change = normal_case(30, 2, dtype), Change(k=7, m=2)
    before = outcome(HighDimKernelDensity, case)
    after = outcome(HighDimKernelDensity, change.case(case))
    assert not deviations(before, after, change, case)
    for name, result in after.items():
        if result.law == "label" or np.all(result.value == 0.0):
            continue
        value = np.asarray(result.value)
        size = 1e3 if result.law in ("density", "mean", "total") else 2.0
        eps = np.finfo(value.dtype if result.law != "total" else dtype).eps
        off = dataclasses.replace(result, value=value * (1.0 + size * eps))
        found = deviations(before, {**after, name: off}, change, case)
        assert [line.split(" ")[0] for line in found] == [name]
