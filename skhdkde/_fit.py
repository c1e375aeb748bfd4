"""From checked data and parameters to a fitted density."""

import dataclasses

import numpy as np
from sklearn.utils import check_random_state

from skhdkde._approximation.approximation import Approximation
from skhdkde._approximation.calibration import calibrated, prepare
from skhdkde._approximation.neighbors import FEWEST_INDEXED, wanted_index
from skhdkde._density.components import whiten_components
from skhdkde._density.density import Structure, plain_density, structured_density
from skhdkde._kernels import KERNELS, make_kernel
from skhdkde._pairwise.points import TrainingPoints
from skhdkde._selection.cross_validation import (
    DEGREES_OF_FREEDOM,
    Folds,
    expand,
    search_structures,
)
from skhdkde._selection.neighbor_leave_one_out import search_by_neighbors
from skhdkde._selection.rules import (
    bandwidth_by_rule,
    distinct_points,
    warn_of_duplicates,
)
from skhdkde._utils.random import seed_from
from skhdkde._utils.validation import check_bandwidth

FEWEST_POINTS = 3
# Share of training points that samples may not serve before an index is thought of.
FEW_IN_NEED = 0.05


@dataclasses.dataclass
class Fitted:
    """What fit found.

    Attributes
    ----------
    density : Density
    structure : Structure
    search : BandwidthSearch or None
    approximation : Approximation or None
        None for ``algorithm="exact"``.
    """

    density: object
    structure: object
    search: object
    approximation: object = None

    def attributes(self):
        """Fitted attributes of the estimator."""
        density, approximation = self.density, self.approximation
        return {
            "bandwidth_": density.bandwidth,
            "bandwidth_search_": self.search,
            "kernel_": density.kernel.name,
            "degrees_of_freedom_": density.degrees_of_freedom,
            "covariance_type_": self.structure.covariance_type,
            "preserve_variance_": self.structure.preserve_variance,
            "n_neighbors_": 0 if approximation is None else approximation.n_neighbors,
            "neighbors_index_": None if approximation is None else approximation.kind,
        }


def fit_density(X, weights, estimator, **engine):
    """Fit the density that an estimator's parameters describe.

    Parameters
    ----------
    X : ndarray or DeviceArray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
        Positive.
    estimator : HighDimKernelDensity
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.

    Returns
    -------
    Fitted
    """
    structure, kernels = structure_of(estimator), kernels_of(estimator, X.shape[1])
    if textbook(structure, kernels):
        return _plain(X, weights, structure, kernels[0], estimator, engine)
    if by_folds(estimator, structure, kernels):
        structure, kernel, search = _searched(
            X, weights, structure, kernels, estimator, engine
        )
        bandwidth = search.bandwidth
    else:
        kernel, search, bandwidth = kernels[0], None, estimator.bandwidth
        structure = expand(structure, *X.shape)[-1]
    if structure.plain:
        points = TrainingPoints(X, weights)
        bandwidth = check_bandwidth(bandwidth, points)
        found = Fitted(plain_density(points, kernel, bandwidth), structure, search)
        return _with_approximation(found, estimator, engine)
    return _structured(
        X, weights, structure, kernel, bandwidth, search, estimator, engine
    )


def structure_of(estimator):
    """The structure that the parameters ask for."""
    return Structure(
        covariance_type=estimator.covariance_type,
        preserve_variance=bool(estimator.preserve_variance),
        adaptive=estimator.adaptive,
        covariance_estimator=estimator.covariance_estimator,
        mixture=estimator.mixture,
    )


def textbook(structure, kernels):
    """Whether there is nothing to choose but a bandwidth, point by point."""
    return structure.plain and len(kernels) == 1 and kernels[0].name != "student"


def by_folds(estimator, structure, kernels):
    """Whether the bandwidth is the best on folds that are held out."""
    searched = isinstance(estimator.bandwidth, str) and estimator.bandwidth == "kl"
    return searched and not kernels[0].compact and not textbook(structure, kernels)


def _plain(X, weights, structure, kernel, estimator, engine):
    points, prepared, search = TrainingPoints(X, weights), None, None
    if estimator.algorithm in ("neighbors", "auto") and estimator.bandwidth == "kl":
        prepared = _prepared(points, estimator, engine)
        search = search_by_neighbors(prepared, kernel, estimator.random_state, engine)
    if search is None:
        bandwidth, search = _by_rule(points, kernel, estimator, engine)
    else:
        bandwidth = search.bandwidth
        if search.n_copies:
            warn_of_duplicates(points.shape[0], search.n_copies, "kl", "bandwidth")
    found = Fitted(plain_density(points, kernel, bandwidth), structure, search)
    return _with_approximation(found, estimator, engine, prepared)


def _with_approximation(found, estimator, engine, prepared=None):
    """The same, ready for the algorithm that is asked for."""
    if estimator.algorithm == "exact":
        return found
    density, algorithm, parts = found.density, estimator.algorithm, []
    if algorithm != "neighbors" and prepared is None:
        parts = [
            prepare(component.points, None, _seed(estimator), engine)
            for component in density.components
        ]
        approximation = Approximation(density, parts, algorithm, estimator.tol)
        # an index takes long to build: is there a need of it, and will there be one?
        need = approximation.try_samples(engine) > FEW_IN_NEED
        possible = any(_wanted(m.points, estimator) is not None for m in density.components)
        if not (need and possible):
            return dataclasses.replace(found, approximation=approximation)
    parts = []
    for component in density.components:
        part = prepared or _prepared(component.points, estimator, engine)
        kernel, h, _, rounding = component.terms(density, component.points.exact)
        options = kernel, h, estimator.n_neighbors, estimator.tol, rounding, engine
        if part.search is not None:
            part = calibrated(part, *options)
        if algorithm == "neighbors" and not part.worth_it:
            # comparing with all points takes no longer, and misses nothing
            if estimator.neighbors_index is None:
                part = calibrated(part.by_all(), *options)
        parts.append(part)
    approximation = Approximation(density, parts, algorithm, estimator.tol)
    if algorithm == "auto":
        approximation.try_samples(engine)
    return dataclasses.replace(found, approximation=approximation)


def _prepared(points, estimator, engine):
    return prepare(points, _wanted(points, estimator), _seed(estimator), engine)


def _wanted(points, estimator):
    """Which index these points are to have; None for none."""
    wanted, algorithm = wanted_index(estimator), estimator.algorithm
    few = points.shape[0] < FEWEST_INDEXED and estimator.neighbors_index is None
    if algorithm == "neighbors":
        return "exact" if few else wanted
    # comparing with all points takes no longer, or must be
    useless = few or algorithm == "sampling" or points.sq_factor is not None
    useless |= isinstance(wanted, str) and wanted == "exact"
    return None if useless else wanted


def _seed(estimator):
    return check_random_state(estimator.random_state).randint(2**31 - 1)


def _by_rule(points, kernel, estimator, engine):
    if not isinstance(estimator.bandwidth, str):
        return check_bandwidth(estimator.bandwidth, points), None
    return bandwidth_by_rule(
        points,
        estimator.bandwidth,
        kernel,
        random_state=estimator.random_state,
        **engine,
    )


def kernels_of(estimator, n_features):
    """Among which the search chooses; one if there is no choice."""
    name, degrees = estimator.kernel, estimator.degrees_of_freedom
    automatic = estimator.covariance_type == "auto" and name == "gaussian"
    if not automatic and name != "student":
        return [KERNELS[name]]
    if degrees != "auto":
        return [make_kernel("student", n_features, degrees)]
    several = [make_kernel("student", n_features, nu) for nu in DEGREES_OF_FREEDOM]
    return [KERNELS["gaussian"], *several] if automatic else several


def _searched(X, weights, structure, kernels, estimator, engine):
    """Structure, kernel and search by held-out log density."""
    X = np.asarray(X)
    points, n_copies, index = distinct_points(TrainingPoints(X, weights))
    check_foldable(points.shape[0], n_copies)
    if n_copies:
        X, weights = points.in_data_units(slice(None)), points.weights
    structures = expand(structure, *X.shape)
    if kernels[0].name == "exponential":
        structures = [s for s in structures if s.covariance_type != "local"]
    folds = Folds(X, weights, seed_from(estimator.random_state), index, **engine)
    structure, kernel, search = search_structures(folds, structures, kernels)
    return structure, kernel, dataclasses.replace(search, n_copies=n_copies)


def check_foldable(n_distinct, n_copies):
    """Raise ValueError if there are too few distinct points; warn if there are copies."""
    n_points = n_distinct + n_copies
    if n_distinct < FEWEST_POINTS:
        raise ValueError(
            f"bandwidth='kl' needs at least {FEWEST_POINTS} distinct points of positive "
            "weight in X, to leave out some and fit a structure to others; got "
            f"n_samples={n_points}, {n_distinct} of them distinct."
        )
    if n_copies:
        warn_of_duplicates(n_points, n_copies, "kl", "bandwidth")


def _structured(X, weights, structure, kernel, bandwidth, search, estimator, engine):
    X = np.array(X)  # ours: the caller's may change
    parts = whiten_components(X, weights, structure, estimator.random_state, **engine)
    if isinstance(bandwidth, str):  # in the one whitening there is
        points = parts[0].points()
        bandwidth, search = _by_rule(points, kernel, estimator, engine)
    else:
        bandwidth = check_bandwidth(bandwidth, parts[0].points())
    largest = structure.largest_bandwidth(kernel, parts)
    bandwidth = within(bandwidth, largest, search is not None, len(X))
    density = structured_density(X, parts, structure, kernel, bandwidth)
    return _with_approximation(Fitted(density, structure, search), estimator, engine)


def within(bandwidth, largest, searched, n_points):
    """A bandwidth that is at most the largest that preserves variance.

    Raises
    ------
    ValueError
        If it is more and was not ``searched`` for, or if there is no variance.
    """
    if largest == 0.0:
        raise ValueError(
            "preserve_variance=True needs points in X that differ; got n_samples="
            f"{n_points} with no variance."
        )
    if not searched and bandwidth > largest * (1.0 + 1e-12):
        raise ValueError(
            f"bandwidth={bandwidth!r} must be at most {largest:.6g} where variance "
            "is preserved: there all of it is the kernel's."
        )
    return min(bandwidth, largest)


def check_combination(estimator):
    """Raise ValueError if parameters, each valid, do not go together."""
    kernel, kind = estimator.kernel, estimator.covariance_type
    compact = kernel in KERNELS and KERNELS[kernel].compact
    structured = kind in ("local", "auto") or estimator.adaptive is not False
    if compact and (structured or estimator.preserve_variance):
        raise ValueError(
            f"kernel={kernel!r} is zero beyond its bandwidth; it works with "
            "covariance_type 'spherical', 'diag' and 'full', preserve_variance=False and "
            "adaptive=False only."
        )
    if kernel == "exponential" and (kind == "local" or estimator.adaptive is not False):
        what = "covariance_type='local'" if kind == "local" else "adaptive"
        raise ValueError(f"{what} needs kernel 'gaussian' or 'student', got {kernel!r}.")
    degrees = estimator.degrees_of_freedom
    if kernel == "student" and degrees != "auto" and estimator.preserve_variance:
        if degrees <= 2.0:
            raise ValueError(
                "preserve_variance needs a kernel that has one: degrees_of_freedom must "
                f"be > 2, got {degrees!r}."
            )
    if estimator.adaptive is not False and estimator.algorithm == "neighbors":
        raise ValueError(
            "algorithm='neighbors' needs adaptive=False: where points have bandwidths of "
            "their own, the nearest are not those that contribute most. 'sampling', "
            "'auto' and 'exact' work."
        )
    if estimator.algorithm != "exact":
        wanted_index(estimator)  # raises if it cannot be had
    _check_rule(estimator, structured)


def _check_rule(estimator, structured):
    rule, kind = estimator.bandwidth, estimator.covariance_type
    searched = isinstance(rule, str) and rule == "kl"
    if searched:
        return
    if kind == "auto":
        raise ValueError(
            "covariance_type='auto' compares structures at the bandwidths that are best "
            f"for them: it needs bandwidth='kl', got {rule!r}."
        )
    if estimator.kernel == "student" and estimator.degrees_of_freedom == "auto":
        raise ValueError(
            "degrees_of_freedom='auto' is chosen together with the bandwidth: it needs "
            f"bandwidth='kl', got {rule!r}. Pass a number."
        )
    structured |= estimator.preserve_variance or estimator.kernel == "student"
    if isinstance(rule, str) and structured:
        raise ValueError(
            f"bandwidth={rule!r} is for kernels of one covariance, not pulled, of finite "
            "variance; pass 'kl' or a number."
        )
