"""The approximation that the parameters of an estimator call for."""

from __future__ import annotations

import dataclasses

from skhdkde._approximation.approximation import Approximation
from skhdkde._approximation.calibration import Prepared, calibrated, prepare
from skhdkde._approximation.mixed import MixedApproximation
from skhdkde._approximation.near_far_sum import N_SAMPLED
from skhdkde._approximation.neighbors import (
    FEWEST_INDEXED,
    ProjectedSearch,
    wanted_index,
)
from skhdkde._density import Density, MixedDensity
from skhdkde._pairwise import ComputeOptions, TrainingPoints
from skhdkde._utils.random import seed_from

# Share of training points that samples may not serve before an index is thought of.
FEW_IN_NEED = 0.05


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
    if algorithm != "neighbors" and prepared is None:
        approximation = _by_samples(density, estimator, options)
        # an index takes long to build: is there a need of it, and will there be one?
        need = approximation.try_samples(options) > FEW_IN_NEED
        wanted = (_wanted(c.points, estimator) for c in density.components)
        if not (need and any(index is not None for index in wanted)):
            return approximation
    found = [_calibrated(c, estimator, options, prepared) for c in density.components]
    approximation = Approximation(density, found, algorithm, estimator.tol)
    if algorithm == "auto":
        approximation.try_samples(options)
    approximation.try_neighbors(options)
    return approximation


def prepare_index(points: TrainingPoints, estimator, options) -> Prepared:
    """Return points prepared with the index that the estimator's parameters ask for."""
    wanted, seed = _wanted(points, estimator), seed_from(estimator.random_state)
    return prepare(points, wanted, seed, options)


def _by_samples(density, estimator, options):
    """Return an approximation without any index."""
    seed = seed_from(estimator.random_state)
    found = [prepare(c.points, None, seed, options) for c in density.components]
    if estimator.algorithm == "sampling":
        found = [_with_near_points(prepared, seed) for prepared in found]
    return Approximation(density, found, estimator.algorithm, estimator.tol)


def _with_near_points(prepared, seed):
    """Return points that have a search for those beside a query."""
    points = prepared.near_far.points
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


def _wanted(points, estimator):
    """Return which index these points are to have; None for none."""
    wanted, algorithm = wanted_index(estimator), estimator.algorithm
    few = points.shape[0] < FEWEST_INDEXED and estimator.neighbors_index is None
    if algorithm == "neighbors":
        return "exact" if few else wanted
    # comparing with all points takes no longer, or must be
    useless = few or algorithm == "sampling" or points.sq_factor is not None
    useless |= isinstance(wanted, str) and wanted == "exact"
    return None if useless else wanted
