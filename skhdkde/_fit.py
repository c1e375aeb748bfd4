"""From checked data and parameters to a fitted density.

:func:`fit_density` is the one path, for training points on this machine and in blocks on
a cluster: these differ in the :class:`Training` that it is given.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skhdkde._approximation import approximate, prepare_index, wanted_index
from skhdkde._data import step_of_all
from skhdkde._density import (
    Choice,
    Member,
    MixedDensity,
    Structure,
    check_far_rows,
    check_neighborhoods,
    plain_density,
    structured_density,
    whiten_components,
)
from skhdkde._kernels import KERNELS, Projected, make_kernel, restricted
from skhdkde._maps import fit_maps
from skhdkde._pairwise import TrainingPoints
from skhdkde._selection import (
    DEGREES_OF_FREEDOM,
    OF_SPACE,
    REFERENCE_RULES,
    Folds,
    SearchPlan,
    Setting,
    bandwidth_by_rule,
    expand,
    may_be_searched,
    merge_duplicates,
    search_by_neighbors,
    search_structures,
    standardized,
)
from skhdkde._utils.moments import Moments
from skhdkde._utils.random import seed_beside, seed_from
from skhdkde._utils.validation import check_bandwidth, check_n_jobs, check_squares

FEWEST_POINTS = 3
# Types of covariance that differ from place to place.
OF_PLACES = ("local", "neighborhood")


@dataclass(frozen=True)
class Fitted:
    """What fit found."""

    density: Any
    covariance_type: str
    structure: Structure  # that of the heaviest, if several are mixed
    search: Any
    approximation: Any = None  # None for ``algorithm="exact"``

    def attributes(self):
        """Return the fitted attributes of the estimator."""
        density, approximation = self.density, self.approximation
        return {
            "bandwidth_": density.bandwidth,
            "bandwidth_search_": self.search,
            "kernel_": density.kernel.name,
            "degrees_of_freedom_": density.kernel.degrees_of_freedom,
            "covariance_type_": self.covariance_type,
            "preserve_variance_": self.structure.preserve_variance,
            "feature_maps_": _maps_of(density),
            "n_neighbors_": 0 if approximation is None else approximation.n_neighbors,
            "neighbors_index_": None if approximation is None else approximation.kind,
        }


def _maps_of(density):
    """Return the fitted maps of features of the heaviest density, or None."""
    return density.members[0].maps if isinstance(density, MixedDensity) else None


class Training(abc.ABC):
    """The role of the training points in a fit.

    Attributes
    ----------
    shape : tuple of int
        Number of points of positive weight, and of features.
    feature_numbers : ndarray of int of shape (n_features,) or None
        Of the features in the user's X; None if they are all of them.
    maps : FeatureMaps or None
        That the points have been through.
    """

    shape: tuple
    feature_numbers: Any = None
    maps: Any = None

    @abc.abstractmethod
    def folds(self):
        """Return splits of the distinct points, for :func:`search_structures`."""

    @abc.abstractmethod
    def whiten(self, structure):
        """Return the components of a structure that is fitted to all points."""

    @abc.abstractmethod
    def points(self, component=None):
        """Return the points of a component, or those in data units, or a summary."""

    @abc.abstractmethod
    def by_rule(self, points, rule, kernel):
        """Return the :class:`~skhdkde._selection.Choice` of a rule for points."""

    @abc.abstractmethod
    def density(self, structure, components, kernel, bandwidth):
        """Return the density; ``components`` are None for the textbook's."""

    def mixed(self, choices, found):
        """Return the mixture of densities of mapped features."""
        raise TypeError(f"{type(self).__name__} has no maps and no mixtures")

    def under(self, maps):
        """Return the training points under what is chosen of maps, and fitted maps."""
        raise TypeError(f"{type(self).__name__} has no maps and no mixtures")

    @abc.abstractmethod
    def typical_deviation(self):
        """Return the median of the standard deviations of the features, data units."""

    def least_bandwidth(self):
        """Return the bandwidth, data units, below which kernels see no data but draws."""
        return 0.0

    @abc.abstractmethod
    def as_given(self):
        """Return rows as they were given, a sample of them if they are in blocks."""

    def approximation(self, density):
        """Return what makes the sums of a density cheaper, or None."""
        return None


def fit_density(training, estimator, apart=None, maps=(None,)):
    """Fit the density that an estimator's parameters describe.

    Parameters
    ----------
    training : Training
    estimator : HighDimKernelDensity or DaskHighDimKernelDensity
    apart : ConstantFeatures or UnitSphere, default=None
        Constant features of the data, which the training points are without; or the
        sphere that these are on.
    maps : sequence, default=(None,)
        What is compared of maps of features; see :func:`~skhdkde._maps.fit_maps`.

    Returns
    -------
    Fitted
    """
    if apart is not None:
        training.feature_numbers = np.flatnonzero(~apart.is_constant)
        maps = [of_columns(m, ~apart.is_constant) for m in maps]
    choices, search = _choices(training, estimator, list(dict.fromkeys(maps)))
    found = [_density_of(training, choice, search is not None) for choice in choices]
    density, first = found[0].density, choices[0]
    if len(choices) > 1 or first.maps is not None:
        density = training.mixed(choices, found)
    if estimator.support == "sphere":
        density.sphere = apart
    elif apart is not None:
        density.constant = _in_units(apart, density, first, training)
    kind = estimator.covariance_type
    kind = kind if kind == "stack" else first.structure.covariance_type
    search = search or found[0].search
    approximation = training.approximation(density)
    return Fitted(density, kind, first.structure, search, approximation)


def _choices(training, estimator, maps):
    """Return what is to be fitted, the heaviest first, and the search that chose it."""
    kernels = kernels_of(estimator, training.shape[1])
    asked = checked_structure(estimator, training.shape)
    if not by_folds(estimator, asked, kernels, maps):
        structure = asked
        if asked.covariance_type != "neighborhood":  # which has a default
            structure = structures_of(estimator, asked, kernels[0], training.shape)[-1]
        return [Choice(maps[-1], structure, kernels[0], estimator.bandwidth)], None
    folds = training.folds()
    structures = structures_of(estimator, asked, kernels[0], folds.shape)
    settings = [Setting(m, structure) for m in maps for structure in structures]
    stacked = asked.covariance_type == "stack"
    seconds = estimator.max_search_seconds
    with SearchPlan(len(settings), folds.verbose, seconds) as plan:
        return search_structures(folds, settings, kernels, plan, stacked)


def _density_of(training, choice, searched):
    """Return the density of a choice."""
    structure, kernel, search = choice.structure, choice.kernel, None
    components, bandwidth = None, choice.bandwidth
    if choice.maps is not None:
        training = training.under(choice.maps)
    if choice.maps is not None or not structure.plain:
        components = training.whiten(structure)
    points = training.points(components and components[0])
    if isinstance(bandwidth, str):
        bandwidth, search = _by_rule(training, points, bandwidth, kernel)
    else:
        bandwidth = check_bandwidth(bandwidth, points)
    if components is not None:
        largest = structure.largest_bandwidth(kernel, components[0])
        sure = searched or search is not None
        bandwidth = within(bandwidth, largest, sure, training.shape[0])
    density = training.density(structure, components, kernel, bandwidth)
    return Found(density, training.maps, search)


class Found(NamedTuple):
    """The density of a choice, its fitted maps, and the search for its bandwidth."""

    density: Any
    maps: Any
    search: Any


def _in_units(constant, density, choice, training):
    """Return constant features with kernels as wide as those of a typical feature."""
    in_data_units = choice.structure.covariance_type == "spherical" and not choice.maps
    unit = 1.0 if in_data_units else training.typical_deviation()
    return constant.with_kernel(density.kernel, density.bandwidth * unit)


def _by_rule(training, points, rule, kernel):
    """Return the bandwidth of a rule for points, and the search if it made one."""
    bandwidth, search, far = training.by_rule(points, rule, kernel)
    least = training.least_bandwidth() if points.whitening is None else 0.0
    bandwidth = max(bandwidth, least)
    if far is not None:
        far.warn(bandwidth, max(least, step_of_all(training.as_given())))
    return bandwidth, in_data_units(search, points.whitening)


class LocalTraining(Training):
    """Training points on this machine.

    Parameters
    ----------
    X : ndarray or DeviceArray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
        Relative weights, positive.
    estimator : HighDimKernelDensity
    options : ComputeOptions
    row_numbers : ndarray of int of shape (n_points,), default=None
        Of the points in the user's X; None if they are all of its rows.
    discrete : SpreadPoints, default=None
        What is known of discrete features, which are spread in X.
    """

    def __init__(self, X, weights, estimator, options, row_numbers=None, discrete=None):
        self.X, self.weights, self.shape = X, weights, X.shape
        self.discrete = discrete
        self.estimator, self.options = estimator, options
        self.row_numbers = row_numbers
        self._prepared = None

    @functools.cached_property
    def _plain_points(self):
        # kernels on the sphere are not those of another size
        scale = 1.0 if self.estimator.support == "sphere" else None
        return TrainingPoints(
            self.X, self.weights, scale=scale, row_numbers=self.row_numbers
        )

    @functools.cached_property
    def _own(self):
        """The points on the host, for a structure: the caller's may change."""
        return np.array(self._checked) if self.maps is None else self._checked

    @functools.cached_property
    def _checked(self):
        """The points on the host, for what takes means and variances of them."""
        X = np.asarray(self.X)
        if self.maps is not None:
            return X  # far rows are nearer there
        check_far_rows(X, self.weights, self.row_numbers, self.feature_numbers)
        check_squares(float(np.abs(X).max()))
        return X

    def folds(self):
        seed, points = seed_from(self.estimator.random_state), self._plain_points
        distinct = merge_duplicates(points, self.options, seed, standardized)
        check_foldable(distinct)
        X, weights = self._checked, self.weights
        if distinct.n_duplicates:
            X, weights = X[distinct.index], distinct.points.weights
        n_duplicates = distinct.n_duplicates
        return Folds(X, weights, seed, distinct.index, n_duplicates, self.options)

    def under(self, maps):
        seed = seed_beside(self.estimator.random_state)
        fitted = fit_maps(self._checked, self.weights, maps, seed)
        discrete = self.discrete
        if discrete is not None:
            given = fitted.apply(np.asarray(discrete.given))
            discrete = dataclasses.replace(discrete, given=given, least_bandwidth=0.0)
        X = fitted.apply(self._checked)
        mapped = LocalTraining(
            X, self.weights, self.estimator, self.options, self.row_numbers, discrete
        )
        mapped.maps, mapped.feature_numbers = fitted, self.feature_numbers
        return mapped

    def mixed(self, choices, found):
        members = [
            Member(choice.weight, one.maps, one.density)
            for choice, one in zip(choices, found, strict=True)
        ]
        choices = [
            choice._replace(bandwidth=one.density.bandwidth)
            for choice, one in zip(choices, found, strict=True)
        ]
        given = None if self.discrete is None else self.discrete.given
        return MixedDensity(members, choices, self._own, given)

    def whiten(self, structure):
        seed = self.estimator.random_state
        return whiten_components(self._own, self.weights, structure, seed, self.options)

    def points(self, component=None):
        return self._plain_points if component is None else component.points()

    def by_rule(self, points, rule, kernel):
        plain, estimator = points.whitening is None, self.estimator
        indexed = plain and estimator.algorithm in ("neighbors", "auto")
        # with fewer points it is not known yet whether there is a need of an index
        if indexed and rule == "kl" and may_be_searched(points, kernel):
            self._prepared = prepare_index(points, estimator, self.options)
            seed = estimator.random_state
            distinct, choice = merge_duplicates(points, self.options, seed), None
            if not distinct.n_near:
                choice = search_by_neighbors(self._prepared, kernel, seed, self.options)
            if choice is not None:
                distinct.warn("kl", "bandwidth")
                return choice
        return bandwidth_by_rule(
            points, rule, kernel, self.options, random_state=estimator.random_state
        )

    def density(self, structure, components, kernel, bandwidth):
        if components is None:
            points = self._plain_points
            if self.discrete is not None:
                points.at_queries = points.as_queries(self.discrete.given)[:]
            density = plain_density(points, kernel, bandwidth)
        else:
            density = structured_density(
                self._own, components, structure, kernel, bandwidth
            )
        density.as_given = None if self.discrete is None else self.discrete.given
        return density

    def least_bandwidth(self):
        return 0.0 if self.discrete is None else self.discrete.least_bandwidth

    def as_given(self):
        return self.X if self.discrete is None else self.discrete.given

    def typical_deviation(self):
        variance = Moments.of(self._checked, self.weights).variance
        return float(np.median(np.sqrt(variance)))

    def approximation(self, density):
        if self.estimator.algorithm == "exact":
            return None
        return approximate(density, self.estimator, self.options, self._prepared)


def in_data_units(search, whitening):
    """Return a search over whitened points with log densities of points in data units."""
    if search is None or whitening is None:
        return search
    mean_log_density = search.mean_log_density + whitening.log_det
    return dataclasses.replace(search, mean_log_density=mean_log_density)


def structure_of(estimator):
    """Return the structure that the parameters ask for."""
    return Structure(
        covariance_type=estimator.covariance_type,
        preserve_variance=bool(estimator.preserve_variance),
        adaptive=estimator.adaptive,
        covariance_estimator=estimator.covariance_estimator,
        mixture=estimator.mixture,
        on_sphere=estimator.support == "sphere",
    )


def checked_structure(estimator, shape):
    """Return the structure that is asked for; raise if it is too large for the points."""
    structure = structure_of(estimator)
    if structure.covariance_type == "neighborhood":
        check_neighborhoods(*shape)
    return structure


def structures_of(estimator, structure, kernel, shape):
    """Return the structures that the one asked for stands for, with this kernel."""
    if structure.covariance_type not in (*OF_PLACES, "auto", "stack"):
        return [structure]
    others = estimator.algorithm == "exact" and estimator.adaptive is False
    others &= not structure.on_sphere
    n_points, n_features = shape
    found = expand(structure, n_points, n_features, others)
    if kernel.name == "exponential":
        shaped_alike = "spherical", "diag", "full"
        found = [s for s in found if s.covariance_type in shaped_alike]
    return found


def kernels_of(estimator, n_features):
    """Return the kernels among which the search chooses; one if there is no choice."""
    kernels = kernels_in_space(estimator, n_features)
    if estimator.support == "euclidean":
        return kernels
    if structure_of(estimator).plain:
        return [restricted(kernel, n_features) for kernel in kernels]
    return [Projected(kernel, n_features) for kernel in kernels]


def kernels_in_space(estimator, n_features):
    """Return the kernels as they are in the space around a sphere."""
    name, degrees = estimator.kernel, estimator.degrees_of_freedom
    chosen = estimator.covariance_type in ("auto", "stack")
    automatic = chosen and name == "gaussian"
    if not automatic and name != "student":
        return [KERNELS[name]]
    if degrees != "auto":
        return [make_kernel("student", n_features, degrees)]
    several = [make_kernel("student", n_features, nu) for nu in DEGREES_OF_FREEDOM]
    return [KERNELS["gaussian"], *several] if automatic else several


def sees_constant_features(estimator):
    """Return whether constant features are features like others.

    They are where nothing is chosen and no shape is taken from the data: the density is
    the textbook's in the space of all features.
    """
    spherical = estimator.covariance_type == "spherical"
    plain = spherical and estimator.feature_maps is None
    return plain and not isinstance(estimator.bandwidth, str)


def by_folds(estimator, structure, kernels, maps):
    """Return whether the bandwidth is the best on folds that are held out.

    It is the best on points left out one by one where there is nothing to choose but a
    bandwidth, and no point has a share in the shape of a kernel or in maps.
    """
    if estimator.bandwidth != "kl" or kernels[0].compact:
        return False
    one_by_one = structure.plain and len(kernels) == 1 and kernels[0].name != "student"
    return not (one_by_one and maps == [None])


def of_columns(maps, columns):
    """Return what is chosen of maps for some of the columns."""
    if not isinstance(maps, tuple):
        return maps
    found = tuple(m for m, kept in zip(maps, columns, strict=True) if kept)
    return None if all(m is None for m in found) else found


def check_foldable(distinct):
    """Raise ValueError if there are too few distinct points; warn of duplicates."""
    n_distinct, n_duplicates = distinct.n_distinct, distinct.n_duplicates
    if n_distinct < FEWEST_POINTS:
        raise ValueError(
            f"bandwidth='kl' needs at least {FEWEST_POINTS} distinct points of positive "
            "weight in X, to leave out some and fit a structure to others; got "
            f"n_samples={n_distinct + n_duplicates}, {n_distinct} of them distinct."
        )
    distinct.warn("kl", "bandwidth")


def within(bandwidth, largest, searched, n_points):
    """Return a bandwidth that is at most the largest that preserves variance.

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
            f"bandwidth={bandwidth!r} must be at most {largest:.6g} if the variance is "
            "preserved: at that bandwidth the kernel has all of it."
        )
    return min(bandwidth, largest)


def check_combination(estimator):
    """Raise ValueError if parameters, each valid, do not go together."""
    check_n_jobs(estimator.n_jobs)
    kernel, kind = estimator.kernel, estimator.covariance_type
    compact = kernel in KERNELS and KERNELS[kernel].compact
    several = (*OF_PLACES, "auto", "stack")
    structured = kind in several or estimator.adaptive is not False
    if compact and (structured or estimator.preserve_variance):
        raise ValueError(
            f"kernel={kernel!r} is zero beyond its bandwidth; it works with "
            "covariance_type 'spherical', 'diag' and 'full', preserve_variance=False and "
            "adaptive=False only."
        )
    if kernel == "exponential" and (kind in OF_PLACES or estimator.adaptive is not False):
        what = f"covariance_type={kind!r}" if kind in OF_PLACES else "adaptive"
        raise ValueError(f"{what} needs kernel 'gaussian' or 'student', got {kernel!r}.")
    if estimator.support == "sphere":
        _check_sphere(estimator)
    if kind == "neighborhood":
        _check_neighborhood(estimator)
    _check_degrees_of_freedom(estimator)
    _check_mixture(estimator)
    if estimator.adaptive is not False and estimator.algorithm == "neighbors":
        raise ValueError(
            "algorithm='neighbors' needs adaptive=False: where points have bandwidths of "
            "their own, the nearest are not those that contribute most. 'sampling', "
            "'auto' and 'exact' work."
        )
    if estimator.algorithm != "exact":
        wanted_index(estimator)  # raises if it cannot be had
    _check_rule(estimator, structured)


def _check_sphere(estimator):
    """Raise ValueError if parameters do not go with unit vectors."""
    kernel, rule = estimator.kernel, estimator.bandwidth
    for name in ("feature_maps", "discrete_features"):
        if getattr(estimator, name) is not None:
            raise ValueError(
                f"{name} must be None with support='sphere': unit vectors would leave "
                f"the sphere; got {getattr(estimator, name)!r}."
            )
    if estimator.covariance_type == "neighborhood":
        raise ValueError(
            "covariance_type='neighborhood' does not work with support='sphere'; "
            "'local' has covariances that differ from place to place."
        )
    if rule in REFERENCE_RULES:
        raise ValueError(OF_SPACE.format(f"bandwidth={rule!r}"))
    if not structure_of(estimator).plain:
        _check_projected(kernel, estimator.algorithm)


def _check_projected(kernel, algorithm):
    """Raise ValueError if parameters do not go with kernels projected to the sphere."""
    where = (
        "works with support='sphere' only for covariance_type='spherical', "
        "preserve_variance=False and adaptive=False"
    )
    if kernel not in ("gaussian", "student"):
        raise ValueError(
            f"kernel={kernel!r} {where}: otherwise kernels are projected to the sphere, "
            "which 'gaussian' and 'student' can be."
        )
    if algorithm != "exact":
        raise ValueError(
            f"algorithm={algorithm!r} {where}: otherwise kernels are projected to the "
            "sphere, and the nearest points are not those that contribute most. "
            "algorithm='exact' works."
        )


def _check_degrees_of_freedom(estimator):
    """Raise ValueError if variance is to be preserved by a kernel that has none."""
    kernel, kind = estimator.kernel, estimator.covariance_type
    chosen, degrees = kind in ("auto", "stack"), estimator.degrees_of_freedom
    used = kernel == "student" or (chosen and kernel == "gaussian")
    preserved = estimator.preserve_variance or chosen
    if not (used and preserved) or degrees == "auto" or degrees > 2.0:
        return
    what = f"covariance_type={kind!r}" if chosen else "preserve_variance"
    raise ValueError(
        f"{what} needs a kernel that has a variance, to preserve it: degrees_of_freedom "
        f"must be > 2, got {degrees!r}."
    )


def _check_mixture(estimator):
    """Raise ValueError if a mixture is fitted to features that are mapped here."""
    used = estimator.covariance_type in ("local", "auto", "stack")
    if used and estimator.feature_maps and hasattr(estimator.mixture, "means_"):
        raise ValueError(
            f"mixture is fitted, but with feature_maps={estimator.feature_maps!r} it "
            "must be fitted to mapped features. Pass one that is not fitted, such as "
            "sklearn.base.clone(mixture)."
        )


def _check_neighborhood(estimator):
    """Raise ValueError if parameters do not go with a covariance for each point."""
    if estimator.adaptive is not False:
        raise ValueError(
            "covariance_type='neighborhood' needs adaptive=False: the covariance of a "
            f"point's neighbours says how dense they are, got {estimator.adaptive!r}."
        )
    if estimator.algorithm != "exact":
        raise ValueError(
            "covariance_type='neighborhood' needs algorithm='exact', got "
            f"{estimator.algorithm!r}: each point has a metric of its own, in which "
            "neither the nearest points nor the means of samples are known beforehand."
        )


def _check_rule(estimator, structured):
    """Raise ValueError if a bandwidth or rule does not go with other parameters."""
    rule, kind = estimator.bandwidth, estimator.covariance_type
    if isinstance(rule, str) and rule == "kl":
        if kernels_of(estimator, 2)[0].compact and estimator.feature_maps:
            raise ValueError(
                f"kernel={estimator.kernel!r} is zero beyond its bandwidth: with "
                "feature_maps it needs a number as bandwidth, as folds that are held out "
                "may be out of reach."
            )
        return
    if kind in ("auto", "stack"):
        raise ValueError(
            f"covariance_type={kind!r} compares structures at the bandwidths that are "
            f"best for them: it needs bandwidth='kl', got {rule!r}."
        )
    if estimator.feature_maps == "auto":
        raise ValueError(
            "feature_maps='auto' compares maps at the bandwidths that are best for them: "
            f"it needs bandwidth='kl', got {rule!r}. Pass one of the maps."
        )
    if estimator.kernel == "student" and estimator.degrees_of_freedom == "auto":
        raise ValueError(
            "degrees_of_freedom='auto' is chosen together with the bandwidth: it needs "
            f"bandwidth='kl', got {rule!r}. Pass a number."
        )
    structured |= estimator.preserve_variance or estimator.kernel == "student"
    if isinstance(rule, str) and structured:
        raise ValueError(
            f"bandwidth={rule!r} is for kernels of one covariance and finite variance, "
            "without shrinkage of points. Pass 'kl' or a number."
        )
