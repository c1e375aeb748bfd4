"""From checked data and parameters to a fitted density.

:func:`fit_density` is the one path, for training points on this machine and in blocks on
a cluster: these differ in the :class:`Training` that it is given.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._approximation import approximate, prepare_index, wanted_index
from skhdkde._data import step_of_all
from skhdkde._density import (
    Structure,
    check_far_rows,
    plain_density,
    structured_density,
    whiten_components,
)
from skhdkde._kernels import KERNELS, make_kernel
from skhdkde._pairwise import TrainingPoints
from skhdkde._selection import (
    DEGREES_OF_FREEDOM,
    Folds,
    bandwidth_by_rule,
    expand,
    merge_duplicates,
    search_by_neighbors,
    search_structures,
    standardized,
)
from skhdkde._utils.moments import Moments
from skhdkde._utils.random import seed_from
from skhdkde._utils.validation import check_bandwidth, check_squares

FEWEST_POINTS = 3


@dataclass(frozen=True)
class Fitted:
    """What fit found."""

    density: Any
    structure: Structure
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
            "covariance_type_": self.structure.covariance_type,
            "preserve_variance_": self.structure.preserve_variance,
            "n_neighbors_": 0 if approximation is None else approximation.n_neighbors,
            "neighbors_index_": None if approximation is None else approximation.kind,
        }


class Training(abc.ABC):
    """The role of the training points in a fit.

    Attributes
    ----------
    shape : tuple of int
        Number of points of positive weight, and of features.
    feature_numbers : ndarray of int of shape (n_features,) or None
        Of the features in the user's X; None if they are all of them.
    """

    shape: tuple
    feature_numbers: Any = None

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


def fit_density(training, estimator, constant=None):
    """Fit the density that an estimator's parameters describe.

    Parameters
    ----------
    training : Training
    estimator : HighDimKernelDensity or DaskHighDimKernelDensity
    constant : ConstantFeatures, default=None
        Of the data; the training points are without them.

    Returns
    -------
    Fitted
    """
    if constant is not None:
        training.feature_numbers = np.flatnonzero(~constant.is_constant)
    structure, kernels = structure_of(estimator), kernels_of(estimator, training.shape[1])
    kernel, search, bandwidth = kernels[0], None, estimator.bandwidth
    if by_folds(estimator, structure, kernels):
        folds = training.folds()
        structures = structures_of(structure, kernel, folds.shape)
        structure, kernel, search = search_structures(folds, structures, kernels)
        bandwidth = search.bandwidth
    else:
        structure = structures_of(structure, kernel, training.shape)[-1]
    components = None if structure.plain else training.whiten(structure)
    points = training.points(components and components[0])
    if isinstance(bandwidth, str):
        bandwidth, search = _by_rule(training, points, bandwidth, kernel)
    else:
        bandwidth = check_bandwidth(bandwidth, points)
    if components is not None:
        largest = structure.largest_bandwidth(kernel, components[0])
        bandwidth = within(bandwidth, largest, search is not None, training.shape[0])
    density = training.density(structure, components, kernel, bandwidth)
    if constant is not None:
        density.constant = _in_units(constant, density, structure, training)
    return Fitted(density, structure, search, training.approximation(density))


def _in_units(constant, density, structure, training):
    """Return constant features with kernels as wide as those of a typical feature."""
    spherical = structure.covariance_type == "spherical"
    unit = 1.0 if spherical else training.typical_deviation()
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
        return TrainingPoints(self.X, self.weights, row_numbers=self.row_numbers)

    @functools.cached_property
    def _own(self):
        """The points on the host, for a structure: the caller's may change."""
        return np.array(self._checked)

    @functools.cached_property
    def _checked(self):
        """The points on the host, for what takes means and variances of them."""
        X = np.asarray(self.X)
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

    def whiten(self, structure):
        seed = self.estimator.random_state
        return whiten_components(self._own, self.weights, structure, seed, self.options)

    def points(self, component=None):
        return self._plain_points if component is None else component.points()

    def by_rule(self, points, rule, kernel):
        plain, estimator = points.whitening is None, self.estimator
        if plain and rule == "kl" and estimator.algorithm in ("neighbors", "auto"):
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
    )


def structures_of(structure, kernel, shape):
    """Return the structures that the one asked for stands for, with this kernel."""
    if structure.covariance_type not in ("local", "auto"):
        return [structure]
    found = expand(structure, *shape)
    if kernel.name == "exponential":
        found = [s for s in found if s.covariance_type != "local"]
    return found


def kernels_of(estimator, n_features):
    """Return the kernels among which the search chooses; one if there is no choice."""
    name, degrees = estimator.kernel, estimator.degrees_of_freedom
    automatic = estimator.covariance_type == "auto" and name == "gaussian"
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
    return spherical and not isinstance(estimator.bandwidth, str)


def by_folds(estimator, structure, kernels):
    """Return whether the bandwidth is the best on folds that are held out.

    It is the best on points left out one by one where there is nothing to choose but a
    bandwidth, and no point has a share in the shape of a kernel.
    """
    if estimator.bandwidth != "kl" or kernels[0].compact:
        return False
    one_by_one = structure.plain and len(kernels) == 1 and kernels[0].name != "student"
    return not one_by_one


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
    """Raise ValueError if a bandwidth or rule does not go with other parameters."""
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
            f"bandwidth={rule!r} is for kernels of one covariance, not shrunk, of finite "
            "variance; pass 'kl' or a number."
        )
