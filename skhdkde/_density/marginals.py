"""Densities of some features: marginal ones, and given values of the others.

For Gaussian and Student kernels both are kernel densities of the same training points.
A marginal has the kernels' own marginals. A conditional has for each point the weight of
its marginal kernel at the values given, which is kept in logs: however far the values
are from all points, some of them are nearest.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import logsumexp

from skhdkde._density.constant_features import ConstantFeatures
from skhdkde._density.density import (
    Density,
    Structure,
    plain_density,
    structured_components,
)
from skhdkde._density.mixed import Member, MixedDensity
from skhdkde._density.splits import kernel_given, kernel_of, split_of
from skhdkde._density.whitened_points import WhitenedPoints
from skhdkde._density.whitening import Whitening
from skhdkde._diagnosis import Diagnosing
from skhdkde._pairwise import TrainingPoints
from skhdkde._utils.validation import check_squares

# Diagnosis of a query of which nothing is known that varies.
CERTAIN = {
    "log_sum": 0.0,
    "standard_error": 0.0,
    "tail_index": np.inf,
    "h_g": 0.0,
    "h_clt": 0.0,
}


class NothingVaries:
    """The density of features of which none varies: their kernels alone, or 1 of none.

    Parameters
    ----------
    density : Density or MixedDensity
        Of more features.
    constant : ConstantFeatures or None
        The features.
    """

    sphere, frames, varies = None, (), False

    def __init__(self, density, constant):
        self.kernel, self.dtype = density.kernel, density.dtype
        self.n_points, self.constant = density.n_points, constant
        self._weights = density.weights()

    def log_density(self, X, options):
        """Return zeros, of shape (n_queries,)."""
        return np.zeros(len(X), np.result_type(X.dtype, self.dtype))

    def gradient(self, X, options):
        """Return gradients of no features, (n_queries, 0)."""
        return np.empty((len(X), 0), np.result_type(X.dtype, self.dtype))

    def diagnose(self, X, options):
        """Return zeros, and the columns of ``Diagnosing``: all points count alike."""
        total = self._weights.sum()
        shares = {
            "effective_sample_size": total**2 / np.square(self._weights).sum(),
            "max_weight": self._weights.max() / total,
        }
        row = [{**CERTAIN, **shares}[name] for name in Diagnosing.COLUMNS]
        return self.log_density(X, options), np.tile(row, (len(X), 1))


class ConditionalDensity(Density):
    """The density of some features given values of others.

    Its points have, beside their weights, the logs of how likely they make the values.
    """

    def _log_weights(self):
        """Return logs of the weights of the training points, in their order."""
        logs = np.empty(self.n_points)
        for component in self.components:
            logs[component.rows] = component.log_weights
        return logs

    def weights_of(self, component):
        """Return the weights of the points of a component, in which they are drawn."""
        return np.exp(component.log_weights - self._log_weights().max())

    def log_total(self):
        """Return the log of the total weight."""
        return logsumexp(self._log_weights())

    def log_total_without_each(self):
        """Return the log of the weight of all others, for each training point."""
        logs = self._log_weights()
        heaviest = logs.argmax()
        others = logsumexp(np.delete(logs, heaviest))
        total = np.logaddexp(others, logs[heaviest])
        with np.errstate(divide="ignore"):
            found = total + np.log1p(-np.exp(logs - total))
        found[heaviest] = others
        return found

    def at_bandwidth(self, bandwidth):
        """Raise ValueError: at another bandwidth all weights are others."""
        raise ValueError(
            "a conditional density has weights that depend on its bandwidth, and no "
            "curve over bandwidths. Use the estimator that it was made from."
        )


def marginal(density, features):
    """Return the density of some features.

    Parameters
    ----------
    density : Density or MixedDensity
        With kernels "gaussian" or "student".
    features : ndarray of int
        In the order that the result has.
    """
    varying, constant = _varying(density, features), constant_among(density, features)
    if not len(varying):
        return NothingVaries(density, constant)
    found = _marginal(density, varying)
    found.constant = constant
    return found


def conditional(density, given, others, values):
    """Return the density of the other features given values of some.

    Parameters
    ----------
    density : Density or MixedDensity
        With kernels "gaussian" or "student".
    given, others : ndarray of int
        All features, in two sets.
    values : ndarray of shape (n_given,)
        In data units, inside the limits of maps of features. Those of constant
        features change nothing.

    Returns
    -------
    Density, MixedDensity or NothingVaries

    Raises
    ------
    ValueError
        If the density is zero at the values.
    """
    constant = density.constant
    if constant is not None:
        values = values[~constant.is_constant[given]]
    varying = _varying(density, given), _varying(density, others)
    constant = constant_among(density, others)
    if not len(varying[1]):
        return NothingVaries(density, constant)
    found, _ = _conditional(density, *varying, values[None])
    found.constant = constant
    return found


def _varying(density, features):
    """Return the features that vary, by their place among such."""
    constant = density.constant
    if constant is None:
        return features
    places = np.cumsum(~constant.is_constant) - 1
    return places[features[~constant.is_constant[features]]]


def constant_among(density, features):
    """Return the constant features of a density among some; None if there are none."""
    constant = density.constant
    if constant is None or not constant.is_constant[features].any():
        return None
    mask = constant.is_constant[features]
    places = np.cumsum(constant.is_constant) - 1
    values = constant.values[places[features[mask]]]
    return ConstantFeatures(mask, values, constant.density)


def _marginal(density, features):
    """Return the density of some of the features that vary."""
    if isinstance(density, MixedDensity):
        members = [
            dataclasses.replace(
                member,
                maps=None if member.maps is None else member.maps.of(features),
                density=_marginal(member.density, features),
            )
            for member in density.members
        ]
        return _mixed(density, members, density.choices, features)
    kernel = kernel_of(density.kernel, len(features))
    if density.structure is None:
        return _plain_marginal(density, kernel, features)
    others = np.setdiff1d(np.arange(density.n_features), features)
    whitened = [
        split_of(points, features, others, density.kernel, 0.0, False).marginal()
        for points in density.whitened
    ]
    structure, X = density.structure, density.training[:, features]
    components = structured_components(whitened, structure, kernel, density.bandwidth)
    found = type(density)(components, X, whitened, structure)
    found.as_given = _columns(density.as_given, features)
    return found


def _plain_marginal(density, kernel, features):
    """Return the textbook's density of some features."""
    points = density.components[0].points
    X = training_of(density)[:, features]
    found = plain_density(TrainingPoints(X, points.weights), kernel, density.bandwidth)
    found.as_given = _columns(density.as_given, features)
    if found.as_given is not None:
        own = found.components[0].points
        own.at_queries = own.as_queries(found.as_given)[:]
    return found


def _conditional(density, given, others, values):
    """Return the density given values, and the log density of these."""
    if isinstance(density, MixedDensity):
        return _conditional_mixture(density, given, others, values)
    splits = splits_of(density, given, others)
    kernel, bandwidth = kernel_given(
        density.kernel, density.bandwidth, len(given), len(others)
    )
    found = [s.given(values, density.kernel, density.bandwidth) for s in splits]
    whitened = [
        split.conditional(values, *own) for split, own in zip(splits, found, strict=True)
    ]
    # centres are where shrinkage has brought them, and scales what they are
    structure = density.structure or Structure()
    structure = dataclasses.replace(structure, preserve_variance=False, adaptive=False)
    components = structured_components(whitened, structure, kernel, bandwidth)
    X = training_of(density)[:, others]
    result = ConditionalDensity(components, X, whitened, structure)
    result.as_given = _columns(density.as_given, others)
    return result, float(log_density_given(density, found, len(given))[0])


def _conditional_mixture(density, given, others, values):
    """Return the mixture given values, heaviest first, and the log density of these."""
    found = []
    for member, choice in zip(density.members, density.choices, strict=True):
        maps, mapped, log_jacobian = member.maps, values, 0.0
        if maps is not None:
            of_given = maps.of(given)
            log_jacobian = float(of_given.log_jacobian(values)[0])
            mapped, maps = of_given.apply(values), maps.of(others)
        if np.isneginf(log_jacobian):
            continue
        own, log_density = _conditional(member.density, given, others, mapped)
        log_weight = member.log_weight + log_density + log_jacobian
        choice = choice._replace(kernel=own.kernel, bandwidth=own.bandwidth)
        found.append((log_weight, maps, own, choice._replace(structure=own.structure)))
    if not found:
        raise ValueError(
            "values must be inside the limits of feature_maps: the density is zero at "
            f"{values[0].tolist()}."
        )
    found.sort(key=lambda one: -one[0])
    total = logsumexp([one[0] for one in found])
    members, choices = [], []
    for log_weight, maps, own, choice in found:
        member = Member.of_log_weight(log_weight - total, maps, own)
        members.append(member)
        choices.append(choice._replace(weight=member.weight))
    return _mixed(density, members, choices, others), total


def _mixed(density, members, choices, features):
    """Return a mixture of densities of some features."""
    X, given = density.training[:, features], _columns(density.as_given, features)
    return MixedDensity(members, choices, X, given)


def _columns(X, features):
    return None if X is None else X[:, features]


def training_of(density):
    """Return the training points of a density as its kernels have them, data units."""
    if density.training is not None:
        return density.training
    return np.asarray(density.components[0].points.in_data_units(slice(None)))


def splits_of(density, given, others):
    """Return the kernels of each component of a density with features in two sets."""
    kernel, bandwidth, whitened = density.kernel, density.bandwidth, density.whitened
    preserve = density.structure is not None and density.structure.preserve_variance
    if whitened is None:
        whitened = [_as_whitened(density)]
    return [split_of(own, given, others, kernel, bandwidth, preserve) for own in whitened]


def _as_whitened(density):
    """Return the points of the textbook's density in coordinates about their mean."""
    X = training_of(density)
    check_squares(float(np.abs(X).max()))
    center = X.mean(axis=0, dtype=np.float64)
    whitening, rows = Whitening(center, np.ones(len(center))), np.arange(len(X))
    Z = whitening.apply(X).astype(X.dtype)
    return WhitenedPoints(whitening, rows, Z, density.components[0].points.weights, 1.0)


def log_density_given(density, found, n_given):
    """Return log densities of values from what `Split.given` found, (n_queries,)."""
    logs = logsumexp([logsumexp(own, axis=1) for own, _ in found], axis=0)
    volume = kernel_of(density.kernel, n_given).log_volume(n_given, density.bandwidth)
    return logs - density.log_total() - volume
