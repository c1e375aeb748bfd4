"""The approximation that the parameters of an estimator call for."""

from __future__ import annotations

import dataclasses

from skhdkde._approximation.approximation import Approximation
from skhdkde._approximation.calibration import (
    Prepared,
    calibrated,
    prepare,
    with_more_points,
)
from skhdkde._approximation.costs import index_pays
from skhdkde._approximation.mixed import MixedApproximation
from skhdkde._approximation.near_far_sum import N_SAMPLED
from skhdkde._approximation.neighbors import (
    ProjectedSearch,
    wanted_index,
)
from skhdkde._density import Density, MixedDensity
from skhdkde._pairwise import ComputeOptions, TrainingPoints
from skhdkde._utils.random import seed_from
from skhdkde._utils.warnings import warn_user

# Share of training points that samples may not serve before an index is thought of.
FEW_IN_NEED = 0.05
# Growth of the points after which errors are measured again.
GROWN = 1.1


def approximate(
    density: Density | MixedDensity, estimator, options: ComputeOptions, prepared=None
) -> Approximation | MixedApproximation:
    """Return the approximation of a density's sums.

    ``prepared`` is that of the one component, if the search for the bandwidth made it.
    """
    if isinstance(density, MixedDensity):
        own = [approximate(m.density, estimator, options) for m in density.members]
        return MixedApproximation(density, own)
    algorithm = estimator.algorithm
    _warn_without_faiss(density, estimator)
    if algorithm != "neighbors" and prepared is None:
        approximation = _by_samples(density, estimator, options)
        # an index takes long to build: is there a need of it, and will there be one?
        need = approximation.try_samples(options) > FEW_IN_NEED
        wanted = (_wanted(c.points, estimator) for c in density.components)
        if not (need and any(index is not None for index in wanted)):
            return approximation
    found = [_calibrated(c, estimator, options, prepared) for c in density.components]
    approximation = Approximation(density, found, algorithm, estimator.tol)
    _measure(approximation, options)
    return approximation


def grown(approximation, density, estimator, options: ComputeOptions, again: bool):
    """Return the approximation of a density that has got more points.

    Indexes get these added. How hard to search, and what errors are beyond those that
    are stated for each query, is measured anew where the points have grown by a tenth
    since it was, or if ``again``.
    """
    if isinstance(density, MixedDensity):
        members = zip(approximation.approximations, density.members, strict=True)
        own = [grown(a, m.density, estimator, options, again) for a, m in members]
        return MixedApproximation(density, own)
    components, wanted = density.components, estimator.neighbors_index
    pairs = zip(approximation.prepared, components, strict=True)
    found = [with_more_points(p, c.points, wanted, options) for p, c in pairs]
    algorithm = approximation.algorithm
    if algorithm == "sampling":
        found = [_with_near_points(prepared) for prepared in found]
    if not again and density.n_points < GROWN * approximation.n_measured:
        return dataclasses.replace(approximation, density=density, prepared=found)
    if algorithm != "sampling":
        pairs = zip(components, found, strict=True)
        found = [_calibrated(c, estimator, options, p) for c, p in pairs]
    result = Approximation(density, found, algorithm, approximation.tol)
    _measure(result, options)
    return result


def cheapest(approximation, density):
    """Return the log density of a density by its approximation, if that pays.

    The result is called as the method ``log_density`` of a density.
    """
    if approximation is None or not approximation.pays:
        return density.log_density

    def log_density(X, options, rows=slice(None)):
        return approximation.log_density(X, options.quiet(), rows)[0]

    return log_density


def _measure(approximation, options):
    """Measure what errors are beyond those that are stated."""
    if approximation.algorithm != "neighbors":
        approximation.try_samples(options)
    if approximation.algorithm != "sampling":
        approximation.try_neighbors(options)


def prepare_index(points: TrainingPoints, estimator, options) -> Prepared:
    """Return points prepared with the index that the estimator's parameters ask for."""
    wanted, seed = _wanted(points, estimator), seed_from(estimator.random_state)
    return prepare(points, wanted, seed, options)


def _by_samples(density, estimator, options):
    """Return an approximation without any index."""
    seed = seed_from(estimator.random_state)
    found = [prepare(c.points, None, seed, options) for c in density.components]
    if estimator.algorithm == "sampling":
        found = [_with_near_points(prepared) for prepared in found]
    return Approximation(density, found, estimator.algorithm, estimator.tol)


def _with_near_points(prepared):
    """Return points that have a search for those beside a query."""
    points, seed = prepared.near_far.points, prepared.near_far.seed
    if points.shape[0] <= N_SAMPLED:
        return prepared  # a sample has all of them
    return dataclasses.replace(prepared, search=ProjectedSearch(points, seed))


def _calibrated(component, estimator, options, prepared):
    """Return the points of a component with levels that the tolerance calls for."""
    prepared = prepared or prepare_index(component.points, estimator, options)
    spec = component.reduction_spec(component.points.dtype)
    wanted = spec, estimator.n_neighbors, estimator.tol, options
    if prepared.search is not None:
        prepared = calibrated(prepared, *wanted)
    needless = estimator.algorithm == "neighbors" and not prepared.worth_it
    if needless and estimator.neighbors_index is None:
        # comparing with all points takes no longer, and misses nothing
        prepared = calibrated(prepared.by_all(), *wanted)
    return prepared


def _warn_without_faiss(density, estimator):
    """Warn if an index would pay that cannot be made."""
    if estimator.algorithm == "sampling" or estimator.neighbors_index is not None:
        return
    shape = density.components[0].points.shape
    if wanted_index(estimator) == "exact" and index_pays(*shape):
        warn_user(
            f"algorithm={estimator.algorithm!r} compares all of {shape[0]} points with "
            "each query: indexes of neighbours need faiss, which is not installed. "
            "pip install 'skhdkde[neighbors]', or pass neighbors_index='exact' to "
            "silence this."
        )


def _wanted(points, estimator):
    """Return which index these points are to have; None for none."""
    wanted, algorithm = wanted_index(estimator), estimator.algorithm
    few = estimator.neighbors_index is None and not index_pays(*points.shape)
    if algorithm == "neighbors":
        return "exact" if few else wanted
    # comparing with all points takes no longer, or must be
    useless = few or algorithm == "sampling" or points.sq_factor is not None
    useless |= isinstance(wanted, str) and wanted == "exact"
    return None if useless else wanted
