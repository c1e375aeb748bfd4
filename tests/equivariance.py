"""How public results follow a change of units, of row order and of the origin.

A :class:`Change` is made to the data of a :class:`Case`. :func:`public_results` lists
what a fitted estimator says, each :class:`Result` with the law that it follows, and
:class:`Comparison` holds those before a change against those after it.
``test_units.py`` has the table of laws and tolerances.
"""

import dataclasses
import re
import warnings
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator

from skhdkde import kl_scorer

COMPACT = ("tophat", "epanechnikov", "linear", "cosine")


@dataclass(frozen=True)
class Case:
    """Data, the parameters of an estimator, and the blocks of a dask array.

    Attributes
    ----------
    name : str
        What the data are, for messages.
    X, queries : ndarray
    weights : ndarray or None
    parameters : dict
    tied : bool
        Whether some of the points may be equally far from others.
    chunks : tuple of int, default=None
        Sizes of the blocks of dask arrays; None for numpy arrays.
    """

    name: str
    X: np.ndarray = field(repr=False)
    queries: np.ndarray = field(repr=False)
    weights: np.ndarray | None = field(repr=False)
    parameters: dict
    tied: bool = False
    chunks: tuple | None = None

    @property
    def spherical(self):
        """Whether bandwidths are in data units for certain."""
        return self.parameters.get("covariance_type", "spherical") == "spherical"

    @property
    def plain(self):
        """Whether kernels are round and of one size, at the points themselves."""
        asked = self.parameters.get
        return self.spherical and not (asked("preserve_variance") or asked("adaptive"))

    @property
    def by_folds(self):
        """Whether the bandwidth is searched for on held-out folds."""
        asked = self.parameters.get
        if asked("bandwidth", "kl") != "kl" or asked("kernel") in COMPACT:
            return False
        return not self.plain or asked("kernel") == "student"

    @property
    def exact(self):
        """Whether results follow a power of two to the last bit.

        The others have the log determinant of a whitening in sums from which it is
        subtracted again: means over folds, local scales, and several components.
        """
        kind = self.parameters.get("covariance_type", "spherical")
        adapted = self.parameters.get("adaptive") and not self.spherical
        return not (self.by_folds or adapted or kind in ("local", "auto"))

    @property
    def has_loose_thresholds(self):
        """Whether distances may be zero but for rounding, whose logs differ much.

        Points that are tied may be equal; where variance is preserved at the largest
        bandwidth, all are at the mean.
        """
        at_mean = self.by_folds and self.parameters["preserve_variance"]
        rounded = not self.spherical or self.parameters.get("adaptive")
        return at_mean or (self.tied and rounded)

    @property
    def has_loose_standard_errors(self):
        """Whether rounding may be felt in standard errors of log densities.

        Of points equally far away and of different weight any may be called nearer. With
        weights of many orders of magnitude the variance of the far terms is lost to
        rounding.
        """
        if self.weights is None:
            return self.has_loose_thresholds
        positive = self.weights[self.weights > 0.0]
        wide = positive.max() > 1e5 * positive.min()
        return self.has_loose_thresholds or self.tied or wide

    def collection(self, values):
        """Return an array as the estimator takes it."""
        if values is None or self.chunks is None:
            return values
        import dask.array as da

        return da.from_array(values, chunks=(self.chunks, *values.shape[1:]))


@dataclass(frozen=True, eq=False)
class Change:
    """Points ``2^k x + shift``, weights ``2^m w``, rows in another order.

    Attributes
    ----------
    k, m : int
    shift : float
    order : ndarray of int of shape (n_points,), default=None
        The new first row is the old row ``order[0]``.
    chunks : tuple of int, default=None
        Sizes of the new blocks, if they change.
    """

    k: int = 0
    m: int = 0
    shift: float = 0.0
    order: np.ndarray | None = None
    chunks: tuple | None = None

    @property
    def factor(self):
        """``2^k``."""
        return 2.0**self.k

    @property
    def only_scales(self):
        """Whether nothing but factors changes."""
        return self.order is None and self.shift == 0.0

    def points(self, X):
        """Return changed points, and make sure that nothing was rounded."""
        factor, shift = X.dtype.type(self.factor), X.dtype.type(self.shift)
        changed = X * factor + shift
        assert np.array_equal((changed - shift) / factor, X), "the change is not exact"
        return changed

    def rows(self, values):
        """Return what belongs to rows, in their new order."""
        return values if self.order is None or values is None else values[self.order]

    def case(self, case):
        """Return the changed data with parameters that say the same in new units."""
        weights = None if case.weights is None else case.weights * 2.0**self.m
        return Case(
            name=case.name,
            X=self.rows(self.points(case.X)),
            queries=self.points(case.queries),
            weights=self.rows(weights),
            parameters=self._parameters(case),
            tied=case.tied,
            chunks=self.chunks or case.chunks,
        )

    def _parameters(self, case):
        """Return parameters of which those in data units are changed."""
        changed = dict(case.parameters)
        if case.spherical and not isinstance(changed.get("bandwidth", "kl"), str):
            changed["bandwidth"] *= self.factor
        if isinstance(changed.get("mixture"), FrozenEstimator):
            fitted = changed["mixture"].estimator
            changed["mixture"] = FrozenEstimator(self._fitted_mixture(fitted))
        elif changed.get("mixture") is not None:
            ridge = changed["mixture"].reg_covar * self.factor**2
            changed["mixture"] = clone(changed["mixture"]).set_params(reg_covar=ridge)
        return changed

    def _fitted_mixture(self, fitted):
        """Return a copy of a fitted mixture in the new units."""
        changed = clone(fitted)
        changed.weights_, changed.n_features_in_ = fitted.weights_, fitted.n_features_in_
        changed.means_ = fitted.means_ * self.factor + self.shift
        changed.covariances_ = fitted.covariances_ * self.factor**2
        changed.precisions_ = fitted.precisions_ / self.factor**2
        changed.precisions_cholesky_ = fitted.precisions_cholesky_ / self.factor
        return changed


@dataclass(frozen=True)
class Result:
    """A public result.

    Attributes
    ----------
    law : str
        What the units of the data do to it; see :meth:`Comparison.expected`.
    value : object
    of_rows : bool, default=False
        Whether it has an entry for each training point.
    """

    law: str
    value: object
    of_rows: bool = False


def fit(make, case):
    """Return an estimator fitted to a case."""
    weights = case.collection(case.weights)
    return make(**case.parameters).fit(case.collection(case.X), sample_weight=weights)


def outcome(make, case):
    """Return all that a user sees of a fit to a case: results, and what warnings say."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = dict(public_results(fit(make, case), case.queries))
    # the numbers in a message follow no law
    said = {
        re.sub(r"[-+]?\d[\d.e+-]*", "#", str(warning.message))
        for warning in caught
        if not issubclass(warning.category, ConvergenceWarning)
    }
    found["warnings"] = Result("label", sorted(said))
    return found


def public_results(kde, queries):
    """Yield name and :class:`Result` of all that a fitted estimator says."""
    length = length_law(kde.covariance_type_)
    yield "bandwidth_", Result(length, kde.bandwidth_)
    yield from labels(
        kde,
        "",
        "kernel_ degrees_of_freedom_ covariance_type_ preserve_variance_ backend_ "
        "n_neighbors_ neighbors_index_ n_features_in_",
    )
    yield from search_results(kde.bandwidth_search_, length)
    yield "score_samples", Result("density", np.asarray(kde.score_samples(queries)))
    yield from report_results(kde, "score_samples")
    own = np.asarray(kde.score_samples(None))
    yield "left_out", Result("density", own, of_rows=True)
    yield from report_results(kde, "left_out", of_rows=True)
    if hasattr(kde, "held_out_log_density_"):  # not on a cluster
        own = np.asarray(kde.held_out_log_density_)
        yield "held_out", Result("density", own, of_rows=True)
    yield "score", Result("total", kde.score(queries))
    score = kl_scorer(kde, queries)
    if score > -1e7:  # below, some are counted as -1e9
        yield "kl_scorer", Result("density", np.array(score, dtype=own.dtype))
    yield "gradient", Result("gradient", np.asarray(kde.log_density_gradient(queries)))
    yield from diagnosis_results(kde.diagnose(queries), "diagnosis", length)
    yield from diagnosis_results(kde.diagnose(None), "own", length, of_rows=True)
    yield "sample", Result("point", np.asarray(kde.sample(6, random_state=1)))


def length_law(covariance_type):
    """Return the law of bandwidths, which are in data units or in whitened units."""
    return "length" if covariance_type == "spherical" else "number"


def labels(source, prefix, names, of_rows=False):
    """Yield attributes that do not change."""
    for name in names.split():
        yield prefix + name, Result("label", getattr(source, name), of_rows)


def search_results(search, length):
    """Yield what a search for the bandwidth saw."""
    if search is None:
        return
    yield "search.bandwidth", Result(length, search.bandwidth)
    yield "search.bandwidths", Result(length, search.bandwidths)
    yield "search.mean_log_density", Result("mean", search.mean_log_density)
    yield "search.standard_error", Result("number", search.standard_error)
    yield from labels(search, "search.", "n_out_of_reach n_queries n_copies")
    for i, found in enumerate(search.candidates):
        name, own = f"candidates[{i}].", length_law(found.covariance_type)
        columns = "covariance_type preserve_variance kernel degrees_of_freedom"
        yield from labels(found, name, columns)
        yield f"{name}bandwidth", Result(own, found.bandwidth)
        yield f"{name}mean_log_density", Result("mean", found.mean_log_density)
        yield f"{name}standard_error", Result("number", found.standard_error)


def report_results(kde, name, of_rows=False):
    """Yield what the last call says of its approximation."""
    report = kde.approximation_
    if report is None:
        return
    yield f"{name}.error", Result("error", report.error, of_rows)
    yield from labels(report, f"{name}.", "algorithm n_evaluations", of_rows)


def diagnosis_results(diagnosis, name, length, of_rows=False):
    """Yield the arrays of a diagnosis."""
    yield f"{name}.bandwidth", Result(length, diagnosis.bandwidth)
    yield f"{name}.log_density", Result("density", diagnosis.log_density, of_rows)
    yield f"{name}.standard_error", Result("spread", diagnosis.standard_error, of_rows)
    for column in ("tail_index", "effective_sample_size", "max_weight"):
        yield f"{name}.{column}", Result("number", getattr(diagnosis, column), of_rows)
    for column in ("h_g", "h_clt"):
        yield f"{name}.{column}", Result(length, getattr(diagnosis, column), of_rows)
    yield from labels(diagnosis, f"{name}.", "regime", of_rows)
    yield f"{name}.shares", Result("label", list(diagnosis.shares.values()))
    if diagnosis.algorithm is not None:
        stated = diagnosis.approximation_error
        yield f"{name}.approximation_error", Result("error", stated, of_rows)
        yield from labels(diagnosis, f"{name}.", "algorithm", of_rows)


@dataclass(frozen=True)
class Tolerance:
    """What a result may deviate: ``relative`` of its size, and the rest.

    ``units`` are those of :meth:`Comparison.rounding`.
    """

    relative: float = 0.0
    absolute: float = 0.0
    units: float = 0.0


ROUNDED = Tolerance(units=8.0)
# Powers of two, of cases that are `exact`; laws that are not named here allow nothing.
TO_THE_LAST_BIT = {
    "density": ROUNDED,
    "mean": ROUNDED,
    "total": ROUNDED,
    "error": Tolerance(units=64.0),
}
# Powers of two, of the other cases.
UP_TO_LOG_DETERMINANTS = {
    "length": Tolerance(relative=1e-7),
    "number": Tolerance(relative=1e-7),
    "spread": Tolerance(relative=0.1, absolute=1e-6),
    "gradient": Tolerance(relative=1e-7),
    "point": Tolerance(relative=1e-9),
    "density": Tolerance(relative=1e-9, absolute=1e-9, units=8.0),
    "mean": Tolerance(relative=1e-9, absolute=1e-9, units=8.0),
    "total": Tolerance(relative=1e-8, absolute=1e-8, units=8.0),
    "error": Tolerance(relative=1e-7, absolute=1e-9, units=64.0),
}


def up_to_precision(case):
    """Return tolerances for sums in another order or about another origin.

    Log densities are promised to 1e-8 or 1e-3 nats, of which both results may be off.
    """
    wide = case.X.dtype == np.float64
    promised = 2e-8 if wide else 2e-3
    if case.by_folds:  # the sums over folds, which it is from, may be off by 1e-2
        promised *= 50.0 if wide else 5.0
    size = Tolerance(relative=50.0 * promised if wide else promised)
    nats = Tolerance(relative=1e-14 if wide else 1e-6, absolute=promised)
    return {
        "length": size,
        "number": dataclasses.replace(size, absolute=promised),
        "spread": Tolerance(relative=0.1, absolute=1e3 * promised if wide else promised),
        "gradient": size,
        "point": size,
        "density": nats,
        "mean": nats,
        "total": Tolerance(relative=nats.relative, absolute=20.0 * promised),
        "error": Tolerance(relative=size.relative, absolute=promised),
    }


class Comparison:
    """Results before a change, and what they are to be after it.

    Parameters
    ----------
    before : dict of str to Result
    change : Change
    case : Case
        Before the change.
    """

    def __init__(self, before, change, case):
        self.before, self.change, self.case = before, change, case
        self.exact = change.only_scales and case.exact
        if not change.only_scales:
            self.tolerances = up_to_precision(case)
        else:
            self.tolerances = TO_THE_LAST_BIT if case.exact else UP_TO_LOG_DETERMINANTS

    def deviations(self, after):
        """Yield a line for each result that does not follow the change."""
        if self.before.keys() != after.keys():
            yield f"other results: {sorted(self.before.keys() ^ after.keys())}"
            return
        uncertain = self.uncertain()
        for name, result in self.before.items():
            if name in uncertain:
                continue
            wanted, found = self.expected(result), np.asarray(after[name].value)
            if wanted.shape != found.shape:
                yield f"{name}: shape {wanted.shape} became {found.shape}"
                continue
            off = np.flatnonzero(~self.agree(result, wanted, found))[:3]
            if len(off):
                values = np.ravel(wanted)[off], np.ravel(found)[off]
                yield f"{name} ({result.law}): expected {values[0]}, got {values[1]}"

    def expected(self, result):
        """Return what a result is after the change, by its law."""
        change, value = self.change, np.asarray(result.value)
        if result.of_rows:
            value = change.rows(value)
        if result.law == "label":
            return value
        value = value.astype(np.float64)
        log_factor = self.case.X.shape[1] * change.k * np.log(2.0)
        return {
            "length": lambda: value * change.factor,
            "point": lambda: value * change.factor + change.shift,
            "gradient": lambda: value / change.factor,
            "density": lambda: value - log_factor,
            "mean": lambda: value - log_factor,
            "total": lambda: value - len(self.case.queries) * log_factor,
        }.get(result.law, lambda: value)()

    def agree(self, result, wanted, found):
        """Return which entries are as they should be, up to the tolerance of the law."""
        if result.law == "label":
            return wanted == found
        tolerance = self.tolerances.get(result.law, Tolerance())
        if result.law == "error" and self.exact and self.case.spherical:
            tolerance = Tolerance()  # there is no log determinant to round
        with np.errstate(invalid="ignore"):  # equal infinities are equal
            allowed = tolerance.absolute + tolerance.relative * self.size(result, wanted)
            if tolerance.units:
                allowed = allowed + tolerance.units * self.rounding(result, wanted)
            close = np.abs(found - wanted) <= allowed
            if result.law == "spread" and not self.exact:
                close &= self.agree_typically(wanted, found)
            return close | (found == wanted) | (np.isnan(found) & np.isnan(wanted))

    def agree_typically(self, wanted, found):
        """Return whether standard errors agree in the median.

        A single one may be off by more: the law that it is from is fitted to as many
        neighbours as a test allows, and what is near rounding is left out.
        """
        off = np.abs(found - wanted) - self.tolerances["spread"].absolute
        off = (off / np.abs(wanted))[np.isfinite(off) & (wanted != 0.0)]
        wide = self.change.only_scales or self.case.X.dtype == np.float64
        return not len(off) or np.median(off) <= (1e-3 if wide else 1e-2)

    def size(self, result, wanted):
        """Return what is called the size of a result.

        That of all points is the largest entry; that of all gradients too, or, as they
        may cancel, the inverse of the bandwidth.
        """
        size = np.abs(wanted)
        if result.law not in ("gradient", "point"):
            return size
        largest = np.max(size, initial=0.0, where=np.isfinite(size))
        if result.law == "gradient":
            h = float(self.before["bandwidth_"].value) * self.change.factor
            h *= 1.0 if self.case.spherical else float(np.std(self.case.X.astype(float)))
            largest = max(largest, 1.0 / h)
        return np.full(size.shape, largest)

    def rounding(self, result, wanted):
        """Return a unit of rounding of log densities, or of the errors stated with them.

        They are sums of the log of a sum, and of a log volume in the units before and
        after.
        """
        dtype = np.float64 if result.law == "mean" else self.case.X.dtype
        size = self.case.X.shape[1] * (10.0 + abs(self.change.k))
        if result.law == "total":
            size *= len(self.case.queries)
        if result.law != "error":
            value = np.asarray(result.value, dtype=np.float64)
            size = size + np.abs(wanted)
            size += np.abs(self.change.rows(value) if result.of_rows else value)
        return np.finfo(dtype).eps * size

    def uncertain(self):
        """Return names of results for which no law holds."""
        names, case = set(), self.case
        if self.change.order is not None:
            names.add("sample")  # the numbers drawn stand for rows
            if not case.plain:
                names.add("held_out")  # by folds
        if not self.exact and case.has_loose_standard_errors:
            names |= of_diagnoses("standard_error")
        if not self.exact and case.has_loose_thresholds:
            names |= of_diagnoses("tail_index", "h_g", "h_clt", "regime", "shares")
        if case.parameters["covariance_type"] == "auto" and self._has_equals():
            names |= {n for n in self.before if not n.startswith("candidates")}
        return names

    def _has_equals(self):
        """Return whether the best two of all candidates are as good, up to rounding.

        With one feature a scale and a covariance are the same, for example; then rounding
        chooses.
        """
        columns = [n for n in self.before if n.endswith("].mean_log_density")]
        best = np.sort([self.before[name].value for name in columns])[-2:]
        return np.ptp(best) <= (1e-9 if self.change.only_scales else 1e-4)


def of_diagnoses(*columns):
    """Return names of columns of the diagnoses."""
    return {f"{name}.{column}" for name in ("diagnosis", "own") for column in columns}


def deviations(before, after, change, case):
    """Return a line for each result that does not follow a change."""
    return list(Comparison(before, change, case).deviations(after))


def assert_follows(make, case, *changes):
    """Fail unless all results of an estimator follow each change of its data."""
    before = outcome(make, case)
    for change in changes:
        lines = deviations(before, outcome(make, change.case(case)), change, case)
        assert not lines, "\n".join([f"{change} of {case}:", *lines])
