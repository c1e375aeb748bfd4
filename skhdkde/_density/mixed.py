"""A density of mapped features, and the mixture of several.

With maps ``T`` of single features the log density at ``x`` is ``log g(T(x)) + sum_k log
T_k'(x_k)``, ``g`` being that of the mapped points. A mixture is ``sum_c p_c f_c(x)``. The
share of one of them at a query, its *responsibility*, is ``r_c = p_c f_c / sum_c p_c
f_c``; the gradient of the log density is the mean of theirs by responsibilities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp, softmax

from skhdkde._density.density import Density, LocalDensity
from skhdkde._density.far_queries import in_range
from skhdkde._diagnosis import Diagnosing
from skhdkde._maps import FeatureMaps
from skhdkde._utils.arrays import row_batches

# Diagnosis of a query outside the limits of a feature, where no bandwidth has a density.
OUTSIDE = {
    "log_sum": -np.inf,
    "standard_error": np.inf,
    "tail_index": 0.0,
    "h_g": np.inf,
    "h_clt": np.inf,
    "effective_sample_size": 0.0,
    "max_weight": np.nan,
}


@dataclass(frozen=True)
class Member:
    """One density of a mixture, with the maps of features that it is of.

    Attributes
    ----------
    weight : float
        In the mixture.
    log_weight : float
        Its log, also where the weight itself is out of the range of numbers.
    maps : FeatureMaps or None
        None if features are as they are.
    density : Density
        Of the mapped training points.
    """

    weight: float
    maps: FeatureMaps | None
    density: Density
    log_weight: float = np.nan

    def __post_init__(self):
        if np.isnan(self.log_weight):
            object.__setattr__(self, "log_weight", float(np.log(self.weight)))

    @classmethod
    def of_log_weight(cls, log_weight, maps, density):
        """Return it for the log of its weight."""
        weight = max(float(np.exp(log_weight)), np.finfo(np.float64).tiny)
        return cls(weight, maps, density, float(log_weight))

    def queries(self, X):
        """Return queries in data units, or None, as those of the density, in range."""
        mapped = X if X is None or self.maps is None else self.maps.apply(X)
        return in_range(mapped, self.density)

    def log_jacobian(self, X):
        """Return the log of the Jacobian of the maps at points in data units."""
        return 0.0 if self.maps is None else self.maps.log_jacobian(X)

    def in_data_units(self, values, X):
        """Return log densities of mapped queries as those of the queries ``X``."""
        if self.maps is None:
            return values
        with np.errstate(over="ignore"):
            return (values + self.log_jacobian(X)).astype(values.dtype, copy=False)

    def gradient(self, X, options):
        """Return gradients of the log density at X, per data unit."""
        near = self.queries(X)
        gradient = near.gradient(self.density.gradient(near.X, options))
        if self.maps is not None:
            for rows in row_batches(*X.shape):
                with np.errstate(over="ignore", invalid="ignore"):
                    own = gradient[rows] * self.maps.slopes(X[rows])
                    gradient[rows] = own + self.maps.log_slope_gradient(X[rows])
            gradient[~self.maps.inside(X)] = np.nan
        return gradient

    def inside(self, X):
        """Return which points are inside the limits of the maps, (n_points,)."""
        return np.ones(len(X), dtype=bool) if self.maps is None else self.maps.inside(X)

    def inverse(self, Z):
        """Return points in data units."""
        return Z if self.maps is None else self.maps.invert(Z)


class MixedDensity(LocalDensity):
    """The mixture of densities of mapped features.

    It is on the host; queries may be on a GPU.

    Parameters
    ----------
    members : list of Member
        The heaviest first.
    choices : list
        What each is a fit of: ``maps``, ``structure``, ``kernel``, ``bandwidth``,
        ``weight``.
    training : ndarray of shape (n_points, n_features)
        Training points in data units.
    as_given : ndarray of shape (n_points, n_features), default=None
        The same with discrete features where they were given.
    """

    frames: tuple = ()  # each member brings queries into its own range

    def __init__(self, members, choices, training, as_given=None):
        first = members[0].density
        super().__init__(first.kernel, first.bandwidth, training.shape, training.dtype)
        self.members, self.choices = members, choices
        self.training, self.as_given = training, as_given
        self.structure = choices[0].structure
        self.on_gpu = False

    @property
    def largest_bandwidth(self):
        """The largest bandwidth that preserves the variance of all members."""
        ratios = [m.density.largest_bandwidth / m.density.bandwidth for m in self.members]
        return self.bandwidth * min(ratios)

    def at_bandwidth(self, bandwidth):
        """Return the mixture with all bandwidths multiplied so that this is the first."""
        factor = bandwidth / self.bandwidth
        members = [
            replace(m, density=m.density.at_bandwidth(factor * m.density.bandwidth))
            for m in self.members
        ]
        return MixedDensity(members, self.choices, self.training, self.as_given)

    def weights(self):
        """Return the relative weights of the training points, in their order."""
        return self.members[0].density.weights()

    def log_density(self, X, options, rows=slice(None)):
        """Return log densities, of shape (n_queries,); see :class:`Density`."""
        if X is not None:
            X, rows = np.asarray(X)[rows], slice(None)
        return self.total(self.member_log_densities(X, options, rows), X)

    def member_log_densities(self, X, options, rows=slice(None)):
        """Return log densities by each member and its weight, (n_queries, n_members)."""
        options, found = options.labelled("density"), []
        for member in self.members:
            near = member.queries(X)
            own = member.density.log_density(near.X, options, rows)
            found.append(near.log_density(own))
        return self.weighted(found, X, rows)

    def weighted(self, log_densities, X, rows=slice(None)):
        """Return log densities by each member and its weight, (n_queries, n_members).

        Parameters
        ----------
        log_densities : list of ndarray of shape (n_queries,)
            By each member, of mapped queries.
        X : ndarray of shape (n_queries, n_features) or None
            The queries in data units; None for the training points ``rows``.
        """
        points = self._given[rows] if X is None else X
        pairs = zip(self.members, log_densities, strict=True)
        return np.column_stack(
            [m.in_data_units(own, points) + m.log_weight for m, own in pairs]
        )

    def total(self, logs, X):
        """Return log densities of the mixture from those of its members."""
        dtype = self.dtype if X is None else np.result_type(X.dtype, self.dtype)
        with np.errstate(over="ignore"):
            return logsumexp(logs, axis=1).astype(dtype, copy=False)

    @property
    def _given(self):
        return self.training if self.as_given is None else self.as_given

    def diagnose(self, X, options):
        """Return log densities, and the columns of ``Diagnosing``, at the queries.

        The members are fitted to the same points, so that their errors add up: the
        standard error is the mean of theirs by responsibilities, as the largest share
        of a point is at most the mean of theirs. The law is that of the member with the
        largest responsibility; its thresholds are in units of the first bandwidth.
        """
        columns, found = [], []
        X = None if X is None else np.asarray(X)
        for member in self.members:
            near = member.queries(X)
            own, of_member = member.density.diagnose(near.X, options)
            columns.append(near.diagnosis(of_member))
            found.append(near.log_density(own))
        logs = self.weighted(found, X)
        shares = responsibilities(logs, self.member_weights)
        merged = self._merged(np.array(columns), shares)
        if X is not None:
            merged[~self.inside(X)] = [OUTSIDE[name] for name in Diagnosing.COLUMNS]
        return self.total(logs, X), merged

    def inside(self, X):
        """Return which points are inside the limits of features, (n_points,)."""
        return np.any([member.inside(X) for member in self.members], axis=0)

    @property
    def member_weights(self):
        """Weights of the members."""
        return np.array([member.weight for member in self.members])

    def _merged(self, columns, shares):
        """Return columns of a diagnosis from those of the members."""
        names = Diagnosing.COLUMNS
        for member, own in zip(self.members, columns, strict=True):
            for name in ("h_g", "h_clt"):
                own[:, names.index(name)] *= self.bandwidth / member.density.bandwidth
        merged = columns[shares.argmax(axis=1), np.arange(columns.shape[1])]
        sizes = columns[:, :, names.index("effective_sample_size")]
        with np.errstate(divide="ignore", invalid="ignore"):
            roots = _mean(1.0 / np.sqrt(sizes), shares)
            merged[:, names.index("effective_sample_size")] = roots**-2.0
        for name in ("standard_error", "max_weight"):
            place = names.index(name)
            merged[:, place] = _mean(columns[:, :, place], shares)
        return merged

    def gradient(self, X, options):
        """Return gradients of the log density, (n_queries, n_features), per data unit."""
        X = np.asarray(X)
        logs = self.member_log_densities(X, options)
        shares = responsibilities(logs, self.member_weights)
        gradient = np.zeros(X.shape, dtype=np.result_type(X.dtype, self.dtype))
        for member, own in zip(self.members, shares.T, strict=True):
            term = own[:, None] * member.gradient(X, options.labelled("gradient"))
            gradient += np.where(own[:, None] > 0.0, term, 0.0)
        gradient[np.isneginf(logs).all(axis=1)] = np.nan
        return gradient

    def draw(self, n_samples, rng, draw):
        """Return random points; ``draw`` makes those of a member."""
        counts = rng.multinomial(
            n_samples, self.member_weights / self.member_weights.sum()
        )
        drawn = [
            member.inverse(draw(member.density, int(count), rng))
            for member, count in zip(self.members, counts, strict=True)
            if count
        ]
        return np.vstack(drawn)[rng.permutation(n_samples)]

    def in_data_units(self, rows):
        """Return the training points ``rows`` as they were given."""
        return self._given[rows]


def responsibilities(logs, weights):
    """Return the shares of members in the density at each query.

    Parameters
    ----------
    logs : ndarray of shape (n_queries, n_members)
        Log densities with the weights in them.
    weights : ndarray of shape (n_members,)
        The shares where no member has a density.
    """
    nowhere = np.isneginf(logs).all(axis=1)
    shares = softmax(np.where(nowhere[:, None], np.log(weights), logs), axis=1)
    return shares.astype(np.float64)


def _mean(values, shares):
    """Return means over members, the first axis, by shares (n_queries, n_members)."""
    return np.sum(np.where(shares.T > 0.0, values * shares.T, 0.0), axis=0)
