"""A fitted density: the sum of kernels over the components of the training points.

With ``l_c`` the log density that component ``c`` gives, up to the total weight, the log
density is ``logsumexp_c l_c`` and its gradient the mean of theirs with shares
``exp(l_c)``. The states of a diagnosis merge once they are in common units: a kernel's
value times the determinant of a component's whitening is a value at another squared
distance (``Kernel.scaled_distance``), and the sum over all components is one sum over
such distances.
"""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skhdkde._diagnosis import Diagnosing, PartialDiagnosing
from skhdkde._pairwise import (
    Gradient,
    LogSumExp,
    ReductionSpec,
    reduce_pairs,
    scale_for,
)
from skhdkde._utils.arrays import row_batches, tangent, unit_rows
from skhdkde._utils.moments import without_each

# Queries whose diagnoses are merged at once.
QUERIES_AT_ONCE = 8192


@dataclass(frozen=True)
class Structure:
    """How the kernels of different training points differ in shape, place and size."""

    covariance_type: str = "spherical"  # or "diag", "full", "local", "neighborhood"
    preserve_variance: bool = False
    adaptive: bool | int = False
    covariance_estimator: Any = None
    mixture: Any = None
    neighborhood: Any = None  # a NeighborhoodSpec; None for the default
    on_sphere: bool = False  # whether the density is one on the unit sphere

    @property
    def plain(self):
        """Whether it is that of the textbook."""
        spherical = self.covariance_type == "spherical"
        return spherical and not self.preserve_variance and not self.adaptive

    def largest_bandwidth(self, kernel, component):
        """Return the bandwidth at which all centres are at the mean, or infinity.

        Parameters
        ----------
        kernel : Kernel
        component : WhitenedPoints
            Any of them: if there are several, all have the same spread.
        """
        if not self.preserve_variance:
            return np.inf
        return component.spread / np.sqrt(kernel.variance(component.n_features))


class Choice(NamedTuple):
    """What a density is a fit of, or one of the densities of a mixture.

    ``maps`` are what :func:`~skhdkde._maps.fit_maps` fits, None for none. The bandwidth
    is in whitened units of mapped features, or the name of a rule.
    """

    maps: Any
    structure: Structure
    kernel: Any
    bandwidth: Any
    weight: float = 1.0


@dataclass(frozen=True)
class Component:
    """The kernel sum over the training points of one whitening."""

    points: Any
    kernel: Any
    bandwidth: float  # in whitened units, which without a whitening are data units
    rows: np.ndarray | None = None  # which of the training points they are; None for all
    # log determinant of the whitening plus the common part of the log local scales
    log_det: float = 0.0
    local_scale: np.ndarray | None = None  # (n_points,), factors of the bandwidth
    # (n_points,), logs of weights that take the place of those of the points
    log_weights: np.ndarray | None = None

    def reduction_spec(self, query_dtype):
        """Return what a reduction needs to know, for queries of this dtype."""
        return ReductionSpec(
            self.kernel,
            self.bandwidth * self.points.scale,
            self.points,
            np.result_type(query_dtype, self.points.dtype),
        )

    def moved(self, rows, steps):
        """Return points plus steps made for a local scale of 1, in data units."""
        steps = self.points.stretched(rows, steps)
        if self.local_scale is not None:
            steps = steps * self.local_scale[rows, None]
        return self.away(self.points.in_data_units(rows), steps)

    def away(self, Z, steps):
        """Return what is steps away from points in their coordinates, in data units."""
        whitening = self.points.whitening
        return Z + steps if whitening is None else whitening.invert(Z + steps)

    def queries(self, X, leave_out):
        """Return X, or the points ``leave_out`` themselves if X is None, as queries."""
        if X is None:
            return self.points.rows_as_queries(leave_out)
        return self.points.as_queries(X)

    def log_sums(self, X, leave_out, options):
        """Return logs of the kernel sums, of shape (n_queries,), with the determinant."""
        queries = self.queries(X, leave_out)
        reduction = LogSumExp(self.reduction_spec(queries.dtype))
        log_sums = self.reduce(reduction, queries, leave_out, options)[:, 0]
        return log_sums + self.log_factors(X, queries)

    def log_factors(self, X, queries=None):
        """Return logs of what sums are multiplied by, at queries X in data units.

        ``queries`` are these as a reduction has visited them.
        """
        return self.log_det

    def to_data_units(self, gradient, X):
        """Turn gradients at X in the units of the points to data units, in place."""
        if self.points.whitening is not None:
            for rows in row_batches(*gradient.shape):
                gradient[rows] = self.points.whitening.gradient(gradient[rows])

    def reduce(self, reduction, queries, leave_out, options, out=None):
        """Return the result of a reduction over the points."""
        return reduce_pairs(
            reduction, queries, self.points, options, leave_out=leave_out, out=out
        )


@dataclass(frozen=True)
class SphereComponent(Component):
    """The sum over kernels that are restricted to the unit sphere."""

    def away(self, Z, steps):
        """Return what is steps along great circles away, by the chord ``|step|``."""
        y = unit_rows(Z.astype(np.float64))
        chord_sq = np.einsum("ij,ij->i", steps, steps)[:, None]
        along = unit_rows(tangent(steps, y))
        across = np.sqrt(chord_sq * np.maximum(1.0 - 0.25 * chord_sq, 0.0))
        return unit_rows((1.0 - 0.5 * chord_sq) * y + across * along)

    def to_data_units(self, gradient, X):
        for rows in row_batches(*gradient.shape):
            gradient[rows] = tangent(gradient[rows], X[rows])


class BaseDensity:
    """Shared by densities wherever their training points are.

    Parameters
    ----------
    kernel : Kernel
    bandwidth : float
        In whitened units, which without a whitening are data units.
    shape : tuple of int
        Number of training points of positive weight, and of features.
    dtype : dtype
        Of the training points.

    Attributes
    ----------
    constant : ConstantFeatures or None
        Features that do not vary, which are not among those of the density: points and
        queries are without them. :func:`~skhdkde._density.in_range` takes them from
        queries, and adds what they add to results.
    sphere : UnitSphere or None
        That the density is one on; then it does this, and constant features are no part
        of the density.
    """

    constant: Any = None
    sphere: Any = None
    varies = True  # whether any feature does

    def __init__(self, kernel, bandwidth, shape, dtype):
        self.kernel, self.bandwidth = kernel, bandwidth
        self.n_points, self.n_features = shape
        self.dtype = dtype

    @property
    def degrees_of_freedom(self):
        """Degrees of freedom of the kernel; infinite for all but "student"."""
        return getattr(self.kernel, "degrees_of_freedom", np.inf)

    def normalized(self, log_sums, log_total, dtype):
        """Return log densities from logs of kernel sums and of the total weight.

        Parameters
        ----------
        log_sums : ndarray of shape (n_queries,)
        log_total : float or ndarray of shape (n_queries,)
            Log of the weight of all points that a query sees.
        dtype : dtype
            Of the queries.
        """
        # where no point is in reach there may be none: log 0, not log 0/0
        log_total = np.where(np.isneginf(log_sums), 0.0, log_total)
        log_volume = self.kernel.log_volume(self.n_features, self.bandwidth)
        with np.errstate(over="ignore"):  # below the least float32 is -inf
            logs = log_sums - log_total - log_volume
            return logs.astype(np.result_type(dtype, self.dtype), copy=False)

    @property
    def apart(self):
        """What completes its points to those of the user; None if they are complete."""
        return self.constant if self.sphere is None else self.sphere


class LocalDensity(BaseDensity, abc.ABC):
    """Shared by densities whose training points are on this machine.

    Attributes
    ----------
    n_fitted : int or None
        How many of the points, the first ones, it was fitted to; None for all.
    """

    n_fitted: int | None = None

    @abc.abstractmethod
    def in_data_units(self, rows):
        """Return the training points ``rows`` as they were given."""

    def given(self, rows):
        """Return the training points ``rows`` with their constant features."""
        apart, X = self.apart, self.in_data_units(rows)
        return X if apart is None else apart.complete(X)

    @property
    def n_given(self):
        """Number of features, constant ones too."""
        apart = self.apart
        return self.n_features if apart is None else len(apart.is_constant)


class Density(LocalDensity):
    """Kernel sums over components on this machine.

    Parameters
    ----------
    components : list of Component
    training : ndarray of shape (n_points, n_features), default=None
        Training points in data units, unless the one component has them.
    whitened : list of WhitenedPoints, default=None
        What the components were made of, if the density has a structure.
    structure : Structure, default=None

    Attributes
    ----------
    as_given : ndarray of shape (n_points, n_features) or None
        Training points with discrete features where they were given: as queries they are
        there. In the sums these are spread.
    packed : list of WhitenedPoints or None
        What the components were made of, without what ``training`` gives again.
    shares_components : bool
        Whether something else holds the components, as an approximation of its sums does.

    ``options``, for each method, are :class:`~skhdkde._pairwise.backends.ComputeOptions`.
    """

    as_given: Any = None
    shares_components = False

    def __init__(self, components, training=None, whitened=None, structure=None):
        first = components[0]
        n_points = sum(component.points.shape[0] for component in components)
        shape = n_points, first.points.shape[1]
        super().__init__(first.kernel, first.bandwidth, shape, first.points.dtype)
        self.components, self.training = components, training
        self.structure, self.packed = structure, whitened
        if whitened is not None:
            self.packed = [own.packed(training) for own in whitened]

    def __getstate__(self):
        # what a structure makes of the training points is made of them again
        state = self.__dict__.copy()
        if self.structure is not None and not self.shares_components:
            del state["components"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        if "components" not in state:
            made_of = self.whitened, self.structure, self.kernel, self.bandwidth
            self.components = structured_components(*made_of)

    @property
    def whitened(self):
        """What the components were made of, as :class:`WhitenedPoints`, or None."""
        if self.packed is None:
            return None
        return [own.unpacked(self.training) for own in self.packed]

    @property
    def choices(self):
        """What it is a fit of, as a list of one; None for the textbook's density."""
        if self.structure is None:
            return None
        return [Choice(None, self.structure, self.kernel, self.bandwidth)]

    @property
    def on_gpu(self):
        """Whether the training points are on a GPU."""
        return self.components[0].points.on_gpu

    @property
    def frames(self):
        """The whitenings that queries pass through, None for none, and scales."""
        return [(c.points.whitening, c.points.scale) for c in self.components]

    @property
    def largest_bandwidth(self):
        """The largest bandwidth that preserves variance; infinite where it is not."""
        if self.structure is None:
            return np.inf
        return self.structure.largest_bandwidth(self.kernel, self.packed[0])

    def at_bandwidth(self, bandwidth):
        """Return the density of the same structure at another one, whitened units."""
        return structured_density(
            self.training, self.whitened, self.structure, self.kernel, bandwidth
        )

    def log_total(self):
        """Return the log of the total weight."""
        return np.log(sum(c.points.total_weight() for c in self.components))

    def log_total_without_each(self):
        """Return the log of the weight of all others, for each training point."""
        with np.errstate(divide="ignore"):
            if len(self.components) == 1:
                return np.log(self.components[0].points.total_weight_without_each())
            return np.log(without_each(self.weights()))

    def weights(self):
        """Return the relative weights of the training points, in their order."""
        weights = np.ones(self.n_points)
        for component in self.components:
            if component.points.weights is not None:
                weights[component.rows] = component.points.weights
        return weights

    def weights_of(self, component):
        """Return the weights of the points of a component, in which they are drawn."""
        return component.points.weight_block(
            slice(0, component.points.shape[0]), np.float64
        )

    def log_density(self, X, options, rows=slice(None)):
        """Return log densities, of shape (n_queries,).

        Parameters
        ----------
        X : ndarray of shape (n_queries, n_features) or None
            Queries in data units; None leaves out each training point in turn.
        options : ComputeOptions
        rows : slice or ndarray of int
            Some of the queries.
        """
        return self.finished(self.log_sums(X, options, rows), X, rows)

    def diagnose(self, X, options):
        """Return log densities, and the columns of ``Diagnosing``, at the queries."""
        options = options.labelled("density")
        if len(self.components) == 1:
            columns = self._one_diagnosis(X, options)
        else:
            n_queries = self.n_points if X is None else len(X)
            batches = [
                self._merged_diagnosis(X, slice(i, i + QUERIES_AT_ONCE), options)
                for i in range(0, n_queries, QUERIES_AT_ONCE)
            ]
            columns = np.vstack(batches)
        log_density = self.finished(columns[:, 0], X)
        Diagnosing.to_data_units(columns, self.components[0].points.scale)
        return log_density, columns

    def gradient(self, X, options):
        """Return gradients of the log density, (n_queries, n_features), per data unit."""
        options = options.labelled("gradient")
        out = np.empty(X.shape, dtype=np.result_type(X.dtype, self.dtype))
        if len(self.components) == 1:
            self._gradient_of(self.components[0], X, options, out)
            return out
        for rows in row_batches(*X.shape):
            out[rows] = self._merged_gradient(X[rows], options, out.dtype)
        return out

    def _merged_gradient(self, X, options, dtype):
        """Return the gradient of all components, for a batch of queries."""
        labelled = options.labelled("density")
        log_sums = [c.log_sums(X, None, labelled) for c in self.components]
        total = functools.reduce(np.logaddexp, log_sums)
        merged, own = np.zeros(X.shape, dtype), np.empty(X.shape, dtype)
        for component, logs in zip(self.components, log_sums, strict=True):
            self._gradient_of(component, X, options, own)
            merged += np.exp(logs - total)[:, None] * own
        return merged

    def _gradient_of(self, component, X, options, out):
        """Fill ``out`` with the gradient of the log of one component's sum."""
        queries = component.points.as_queries(X)
        reduction = Gradient(component.reduction_spec(queries.dtype))
        component.reduce(reduction, queries, None, options, out=out)
        component.to_data_units(out, X)

    def log_sums(self, X, options, rows=slice(None)):
        """Return logs of the kernel sums over all components, of shape (n_queries,)."""
        options = options.labelled("density")
        logs = [
            component.log_sums(*self.queries(X, component, rows), options)
            for component in self.components
        ]
        return functools.reduce(np.logaddexp, logs)

    def queries(self, X, component, rows=slice(None)):
        """Return queries in data units, and the points of a component they leave out."""
        if X is not None:
            return X[rows], None
        if self.training is None:
            return None, np.arange(self.n_points)[rows]
        own = np.full(self.n_points, -1)
        own[component.rows] = np.arange(len(component.rows))
        given = self.training if self.as_given is None else self.as_given
        return given[rows], own[rows]

    def in_data_units(self, rows):
        """Return the training points ``rows`` as they were given."""
        if self.as_given is not None:
            return self.as_given[rows]
        if self.training is not None:
            return self.training[rows]
        return self.components[0].points.in_data_units(rows)

    def finished(self, log_sums, X, rows=slice(None)):
        """Return log densities at the queries ``rows`` from logs of kernel sums."""
        if X is None:
            return self.normalized(
                log_sums, self.log_total_without_each()[rows], self.dtype
            )
        return self.normalized(log_sums, self.log_total(), X.dtype)

    def _n_visible(self, leave_out):
        """Return how many training points a query sees."""
        return self.n_points - (leave_out is not None)

    def _one_diagnosis(self, X, options):
        """Return the columns of the diagnosis of a density of one component."""
        component = self.components[0]
        X, leave_out = self.queries(X, component)
        queries = component.queries(X, leave_out)
        spec = component.reduction_spec(queries.dtype)
        reduction = Diagnosing(spec, self._n_visible(leave_out))
        columns = component.reduce(reduction, queries, leave_out, options)
        columns[:, 0] += component.log_factors(X, queries)
        return columns

    def _merged_diagnosis(self, X, rows, options):
        """Return columns for a batch of queries."""
        own: Any = self.queries(X, self.components[0], rows)[0]
        factors = [component.log_factors(own) for component in self.components]
        largest = np.max(factors, axis=0)
        relative = [np.broadcast_to(f - largest, len(own)) for f in factors]
        pairs = list(zip(self.components, relative, strict=True))
        reduction, merged, best = self._state(*pairs[0], X, rows, options)
        for component, log_factors in pairs[1:]:
            _, state, units = self._state(component, log_factors, X, rows, options)
            ahead = state.lowest < merged.lowest
            best[ahead], merged = units[ahead], reduction.merge(merged, state)
        # back to distances in the whitening of the component of the largest term
        state = reduction.unscaled(merged, best[:, 0], best[:, 1])
        columns = Diagnosing.finish(reduction, state)
        columns[:, 0] += best[:, 2] + largest
        return columns

    def _state(self, component, log_factors, X, rows, options):
        """Return the state of a component in common units, and what made them common.

        The latter are a factor and an offset of squared distances, and the log factor
        relative to the largest, for each query.
        """
        X, leave_out = self.queries(X, component, rows)
        queries = component.queries(X, leave_out)
        spec = component.reduction_spec(queries.dtype)
        reduction = PartialDiagnosing(spec, self._n_visible(leave_out))
        packed = component.reduce(reduction, queries, leave_out, options)
        scaled = self.kernel.scaled_distance(log_factors, spec.bandwidth_scaled)
        units = np.column_stack([*scaled, log_factors])
        return reduction, reduction.unpack(packed, *scaled), units


def plain_density(points, kernel, bandwidth):
    """Return the textbook's density, of one spherical kernel for all points."""
    return Density([plain_component(points, kernel, bandwidth)])


def plain_component(points, kernel, bandwidth):
    """Return the component of the textbook's density."""
    kind = SphereComponent if kernel.on_sphere else Component
    return kind(points, kernel, bandwidth)


def structured_density(X, whitened, structure, kernel, bandwidth):
    """Return the density of a structure.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
        Training points in data units.
    whitened : list of WhitenedPoints
        The training points of each component.
    structure : Structure
    kernel : Kernel
    bandwidth : float
        In whitened units.
    """
    components = structured_components(whitened, structure, kernel, bandwidth)
    return Density(components, X, whitened, structure)


def structured_components(whitened, structure, kernel, bandwidth):
    """Return the components of a structure; see :func:`structured_density`."""
    largest = max(points.log_scales().max() for points in whitened)
    scale = min(scale_for(own.largest_entry(), own.Z.dtype) for own in whitened)
    preserve = structure.preserve_variance
    return [
        own.component(kernel, bandwidth, preserve, largest, scale) for own in whitened
    ]
