"""More points for a fitted density, whose bandwidth and structure stay as they are.

The sum over the points grows by terms. What the points had a share in when it was fitted
stays: covariances, a mixture, the mean that centres shrink towards, maps of features.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._density.density import plain_density, structured_density
from skhdkde._density.mixed import MixedDensity
from skhdkde._density.whitened_points import whitened as whitened_rows
from skhdkde._pairwise import TrainingPoints
from skhdkde._utils.typing import FloatArray, IntArray

REFIT = "Call fit with all rows."


@dataclass(frozen=True)
class NewPoints:
    """Points to be added, in the features and units of a density.

    Attributes
    ----------
    X : ndarray of shape (n_new, n_features)
        In the dtype of the density.
    weights : ndarray of shape (n_new,) or None
        Relative to the largest of all points; None if all weights are equal.
    factor : float
        What the weights of the earlier points are multiplied by.
    given : ndarray of shape (n_new, n_features) or None
        With discrete features where they were given; None if there are none.
    row_numbers : ndarray of int of shape (n_points,) or None
        Of all points, earlier and new, in the rows of the user.
    """

    X: FloatArray
    weights: FloatArray | None = None
    factor: float = 1.0
    given: FloatArray | None = None
    row_numbers: IntArray | None = None

    def mapped(self, maps: Any) -> NewPoints:
        """Return the points under maps of features, or as they are for None."""
        if maps is None:
            return self
        given = None if self.given is None else maps.apply(self.given)
        return dataclasses.replace(self, X=maps.apply(self.X), given=given)

    def with_earlier(self, weights: FloatArray | None, n_earlier: int, rows=slice(None)):
        """Return weights of earlier points and of the new ``rows``; None if all equal."""
        own = np.ones(len(self.X)) if self.weights is None else self.weights
        earlier = np.ones(n_earlier) if weights is None else weights
        merged = np.concatenate([earlier * self.factor, own[rows]])
        return None if (merged == 1.0).all() else merged


def check_growth(density: Any) -> None:
    """Raise ValueError if a density cannot have more points, and say why."""
    if isinstance(density, MixedDensity):
        for member in density.members:
            check_growth(member.density)
        return
    if density.on_gpu:
        raise ValueError(
            f"partial_fit needs the X of the fit on the host, it is on a GPU. {REFIT}"
        )
    structure = density.structure
    if structure is None:
        return
    if structure.covariance_type == "neighborhood":
        raise ValueError(
            "covariance_type='neighborhood', asked for or chosen by 'auto' or 'stack', "
            "cannot have more points: the covariance of each comes from its nearest "
            f"neighbours, and new points may be among them. {REFIT}"
        )
    if structure.adaptive:
        raise ValueError(
            f"adaptive={structure.adaptive!r} cannot have more points: bandwidths come "
            f"from distances to neighbours, and new points may be among them. {REFIT}"
        )


def grown(density: Any, new: NewPoints) -> Any:
    """Return a density with more points, of the same bandwidth and structure."""
    if isinstance(density, MixedDensity):
        found: Any = _mixed(density, new)
    elif density.structure is None:
        found = _plain(density, new)
    else:
        found = _structured(density, new)
    found.constant, found.sphere = density.constant, density.sphere
    found.n_fitted = density.n_fitted or density.n_points
    return found


def _mixed(density, new):
    members = [
        dataclasses.replace(m, density=grown(m.density, new.mapped(m.maps)))
        for m in density.members
    ]
    training = np.concatenate([density.training, new.X])
    as_given = _as_given(density, new)
    return MixedDensity(members, density.choices, training, as_given)


def _plain(density, new):
    earlier = density.components[0].points
    n_earlier, n_features = earlier.shape
    X = np.empty((n_earlier + len(new.X), n_features), earlier.dtype)
    earlier.in_data_units(slice(None), out=X[:n_earlier])
    X[n_earlier:] = new.X
    points = TrainingPoints(
        X,
        new.with_earlier(earlier.weights, n_earlier),
        # kernels on the sphere are not those of another size
        scale=earlier.scale if density.kernel.on_sphere else None,
        row_numbers=new.row_numbers,
    )
    as_given = _as_given(density, new)
    if as_given is not None:
        points.at_queries = points.as_queries(as_given)[:]
    found = plain_density(points, density.kernel, density.bandwidth)
    found.as_given = as_given
    return found


def _structured(density, new):
    whitened = with_new_points(density.whitened, new, density.n_points)
    training = np.concatenate([density.training, new.X])
    found = structured_density(
        training, whitened, density.structure, density.kernel, density.bandwidth
    )
    found.as_given = _as_given(density, new)
    return found


def with_new_points(whitened: list, new: NewPoints, n_earlier: int) -> list:
    """Return the points of each component of a structure with the new ones of its own.

    What belongs to a component of a mixture that had no points goes with the likeliest of
    the others.

    Parameters
    ----------
    whitened : list of WhitenedPoints
    new : NewPoints
    n_earlier : int
        Number of earlier points, of all components.
    """
    found, all_rows = [], _rows_of_each(whitened, new.X)
    for own, rows in zip(whitened, all_rows, strict=True):
        Z = whitened_rows(own.whitening, new.X[rows])
        more = dataclasses.replace(
            own,
            rows=np.concatenate([own.rows, n_earlier + rows]),
            Z=np.concatenate([own.Z, Z]),
            weights=new.with_earlier(own.weights, len(own.rows), rows),
        )
        found.append(more)
    return found


def _rows_of_each(whitened, X):
    """Return the rows of X that belong to each component of a structure."""
    found = [own.of_its_own(X) for own in whitened]
    others = np.setdiff1d(np.arange(len(X)), np.concatenate(found))
    if not len(others):
        return found
    logs = [
        own.whitening.log_det - 0.5 * np.square(own.whitening.apply(X[others])).sum(1)
        for own in whitened
    ]
    likeliest = np.argmax(logs, axis=0)
    return [np.append(rows, others[likeliest == c]) for c, rows in enumerate(found)]


def _as_given(density, new):
    """Return all points with discrete features where they were given, or None."""
    if new.given is None:
        return None
    return np.concatenate([density.as_given, new.given])
