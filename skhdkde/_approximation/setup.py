"""The approximation that the parameters of an estimator call for."""

from __future__ import annotations

from skhdkde._approximation.approximation import Approximation
from skhdkde._approximation.calibration import calibrated, prepare
from skhdkde._approximation.neighbors import FEWEST_INDEXED, wanted_index
from skhdkde._utils.random import seed_from

# Share of training points that samples may not serve before an index is thought of.
FEW_IN_NEED = 0.05


def approximate(density, estimator, options, prepared=None):
    """Return the approximation of a density's sums; None for ``algorithm="exact"``.

    Parameters
    ----------
    density : Density
    estimator : HighDimKernelDensity
    options : ComputeOptions
    prepared : Prepared, default=None
        Of the one component, if the search for the bandwidth has made it.
    """
    algorithm, tol = estimator.algorithm, estimator.tol
    if algorithm == "exact":
        return None
    if algorithm != "neighbors" and prepared is None:
        approximation = _by_samples(density, estimator, options)
        # an index takes long to build: is there a need of it, and will there be one?
        need = approximation.try_samples(options) > FEW_IN_NEED
        wanted = (_wanted(c.points, estimator) for c in density.components)
        if not (need and any(index is not None for index in wanted)):
            return approximation
    found = []
    for component in density.components:
        own = prepared or prepare_index(component.points, estimator, options)
        spec = component.reduction_spec(component.points.dtype)
        levels = spec, estimator.n_neighbors, tol, options
        if own.search is not None:
            own = calibrated(own, *levels)
        if algorithm == "neighbors" and not own.worth_it:
            # comparing with all points takes no longer, and misses nothing
            if estimator.neighbors_index is None:
                own = calibrated(own.by_all(), *levels)
        found.append(own)
    approximation = Approximation(density, found, algorithm, tol)
    if algorithm == "auto":
        approximation.try_samples(options)
    return approximation


def prepare_index(points, estimator, options):
    """Return the points prepared with the index that the estimator's parameters ask for."""
    wanted, seed = _wanted(points, estimator), seed_from(estimator.random_state)
    return prepare(points, wanted, seed, options)


def _by_samples(density, estimator, options):
    """Return an approximation without any index."""
    seed = seed_from(estimator.random_state)
    found = [prepare(c.points, None, seed, options) for c in density.components]
    return Approximation(density, found, estimator.algorithm, estimator.tol)


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
