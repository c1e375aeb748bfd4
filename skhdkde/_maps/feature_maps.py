"""Maps of all features: which users ask for, how they are fitted, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skhdkde._maps.bounded import fit_bounded
from skhdkde._maps.column import Column
from skhdkde._maps.feature_map import FARTHEST, Affine, FeatureMap
from skhdkde._maps.gaussianized import N_DRAWN, fit_gaussianized
from skhdkde._maps.yeo_johnson import fit_yeo_johnson
from skhdkde._utils.typing import FloatArray

# Maps of features that can have any value, and what "auto" compares.
ANYWHERE = ("yeo-johnson", "gaussianize")
AUTO = (None, *ANYWHERE)
# Maps of features with limits: the limits if none are given, and how these are written.
LIMITS = {"log": (0.0, np.inf), "logit": (0.0, 1.0)}
WRITTEN = {"log": "('log', low)", "logit": "('logit', low, high)"}
VALID = "None, 'auto', 'yeo-johnson', 'gaussianize' or a dict"
VALID_OF_ONE = (
    "None, 'yeo-johnson', 'gaussianize', 'log', ('log', low), 'logit' or "
    "('logit', low, high)"
)
# Features that are shown; rows of a table of inverses.
SHOWN, N_TABULATED = 6, 4097


class FeatureMaps:
    """An increasing map of each feature.

    Parameters
    ----------
    maps : sequence of FeatureMap
        One for each feature.
    """

    def __init__(self, maps: Sequence[FeatureMap]):
        self.maps = tuple(maps)

    def __repr__(self):
        shown = [f"{k}: {of_one}" for k, of_one in enumerate(self.maps[:SHOWN])]
        if len(self.maps) > SHOWN:
            shown.append(f"and {len(self.maps) - SHOWN} more")
        return f"FeatureMaps({', '.join(shown)})"

    def of(self, features: Sequence[int] | np.ndarray) -> FeatureMaps:
        """Return the maps of some of the features, in this order."""
        return FeatureMaps([self.maps[k] for k in features])

    def apply(self, X: FloatArray) -> FloatArray:
        """Return mapped points, of the dtype of X.

        They are finite. Where a feature is outside its limits, so that the density is
        zero, it is mapped as its median is.
        """
        most = min(FARTHEST, float(np.finfo(X.dtype).max))
        return self._each(
            X, lambda of_one, x: np.clip(of_one.forward(x), -most, most), X.dtype
        )

    def invert(self, Z: FloatArray) -> FloatArray:
        """Return the points that are mapped to Z, of its dtype.

        They are finite, and inside the limits of features, also after rounding.
        """

        def inverse(of_one, z):
            x = np.clip(of_one.inverse(z), -FARTHEST, FARTHEST)
            return np.clip(x.astype(Z.dtype), *ends(of_one.limits, Z.dtype))

        return self._each(Z, inverse, Z.dtype)

    def tabulated_inverse(self, Z: FloatArray) -> TabulatedInverse:
        """Return the inverse as a table, for where points Z are and somewhat beyond."""
        least, most = Z.min(axis=0).astype(np.float64), Z.max(axis=0).astype(np.float64)
        width = most - least
        places = np.linspace(least - width, most + width, N_TABULATED)
        return TabulatedInverse(places, self.invert(places))

    def inside(self, X: FloatArray) -> np.ndarray:
        """Return which points have all features inside their limits, (n_points,)."""
        found = np.ones(len(X), dtype=bool)
        for k, of_one in enumerate(self.maps):
            low, high = of_one.limits
            x = X[:, k].astype(np.float64)
            found &= (x > low) & (x < high)
        return found

    def log_jacobian(self, X: FloatArray) -> FloatArray:
        """Return what is added to log densities of mapped points: sums of log slopes.

        -inf where a feature is outside its limits.
        """
        total = np.zeros(len(X))
        with np.errstate(over="ignore"):
            for k, of_one in enumerate(self.maps):
                total += of_one.log_slope(X[:, k].astype(np.float64))
        return total

    def slopes(self, X: FloatArray) -> FloatArray:
        """Return derivatives of the maps, each at its feature; 0 outside limits."""
        return self._each(X, lambda of_one, x: of_one.slope(x))

    def log_slope_gradient(self, X: FloatArray) -> FloatArray:
        """Return the derivative of each log slope by its feature; NaN outside limits."""
        return self._each(X, lambda of_one, x: of_one.log_slope_derivative(x))

    def _each(self, X, function: Callable, dtype: Any = np.float64):
        """Return what a function of maps and features gives, as columns."""
        result = np.empty(X.shape, dtype)
        with np.errstate(over="ignore"):
            for k, of_one in enumerate(self.maps):
                result[:, k] = function(of_one, X[:, k].astype(np.float64))
        return result


@dataclass(frozen=True)
class TabulatedInverse:
    """The inverse of maps between the rows of a table, and constant beyond its ends.

    Where many points are to be brought back it takes a small part of the time.

    Attributes
    ----------
    places, values : ndarray of shape (n_rows, n_features)
        Ascending.
    """

    places: FloatArray
    values: FloatArray

    def invert(self, Z: FloatArray, features: Any) -> FloatArray:
        """Return points mapped to Z, of which the last axis is of these features."""
        found = np.empty(Z.shape)
        for i, k in enumerate(features):
            found[..., i] = np.interp(Z[..., i], self.places[:, k], self.values[:, k])
        return found


def ends(limits: tuple[float, float], dtype: Any) -> list[Any]:
    """Return the first and last finite number of a dtype in an open interval."""
    found = []
    for limit, inwards in zip(limits, (1.0, -1.0), strict=True):
        end = np.asarray(limit, dtype)[()]
        if not inwards * float(end) > inwards * limit:
            end = np.nextafter(end, np.asarray(inwards * np.inf, dtype))
        found.append(end)
    return found


def fit_maps(
    X: FloatArray,
    weights: FloatArray | None,
    spec: Any,
    random_state: Any,
) -> FeatureMaps:
    """Return maps of all features, fitted to points.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
        Inside the limits of maps; see :func:`check_limits`.
    weights : ndarray of shape (n_points,) or None
        Each counts as so many equal rows.
    spec : str or tuple
        A map for all features, or one for each, as of `resolve_maps`.
    random_state : int, RandomState or None
        For the values from which bandwidths are found.

    Notes
    -----
    A feature without a map is standardised, as those are that have one. If all its values
    are equal, its map has their value as centre, and the slope of a feature of median
    standard deviation.
    """
    specs = [spec] * X.shape[1] if spec is None or isinstance(spec, str) else spec
    if weights is not None and not np.all(weights > 0.0):
        X, weights = X[weights > 0.0], weights[weights > 0.0]
    uniform = check_random_state(random_state).uniform(size=N_DRAWN)
    maps: list[Any] = [None] * X.shape[1]
    constant, deviations = {}, []
    for k, of_one in enumerate(specs):
        column = Column.of(X[:, k], weights)
        if column.is_constant(X.dtype):
            constant[k] = Column(column.values[:1], np.ones(1))
            continue
        maps[k] = map_of(column, of_one, uniform)
        deviations.append(column.standard_deviation)
    spread = float(np.median(deviations)) if deviations else 1.0
    for k, column in constant.items():
        maps[k] = map_of_constant(column, specs[k], spread)
    return FeatureMaps(maps)


def map_of(column: Column, spec: Any, uniform: FloatArray) -> FeatureMap:
    """Return the map of a feature that varies."""
    kind, limits = kind_and_limits(spec)
    if kind in LIMITS:
        return fit_bounded(kind, column, limits, 1.0)
    if kind == "yeo-johnson":
        return fit_yeo_johnson(column)
    if kind == "gaussianize":
        return fit_gaussianized(column, uniform)
    return Affine.standardising(column.values, column.shares)


def map_of_constant(column: Column, spec: Any, spread: float) -> FeatureMap:
    """Return the map of a feature of one value, with the scale ``spread``."""
    kind, limits = kind_and_limits(spec)
    if kind in LIMITS:
        return fit_bounded(kind, column, limits, spread)
    return Affine(0, float(column.values[0]), spread)


def kind_and_limits(spec: Any) -> tuple[Any, Any]:
    """Return the kind of a map, and the limits of its feature; None for none."""
    if spec is None or isinstance(spec, str):
        return spec, LIMITS.get(str(spec))
    kind, *limits = spec
    return kind, tuple(limits) + LIMITS[kind][len(limits) :]


def check_limits(X: Any, spec: Any, names: Any = None, spread: bool = False) -> None:
    """Raise an error if features have values that their maps do not allow.

    Parameters
    ----------
    X : array-like of shape (n_points, n_features)
        All of positive weight; NaN for what is missing.
    spec
        See :func:`fit_maps`.
    names : sequence of str or None
        Of the features, for messages.
    spread : bool
        Whether the values of discrete features are spread, which is said then.

    Raises
    ------
    ValueError
        With the first such feature.
    """
    if not isinstance(spec, tuple):
        return
    X = np.asarray(X)
    for k, of_one in enumerate(spec):
        kind, limits = kind_and_limits(of_one)
        if kind not in LIMITS:
            continue
        low, high = limits
        x = X[:, k].astype(np.float64)
        outside = ~(((x > low) & (x < high)) | np.isnan(x))
        if not outside.any():
            continue
        name = k if names is None else repr(str(names[k]))
        first = float(x[np.flatnonzero(outside)[0]])
        beyond = "all values"
        if spread:
            beyond += " by half a step, over which discrete features are spread"
        raise ValueError(
            f"feature_maps has {of_one!r} for feature {name}, which allows values above "
            f"{low:g} and below {high:g} only: {np.count_nonzero(outside)} of {len(x)} "
            f"rows have others, the first {first!r}. Give limits beyond {beyond}, as "
            f"{WRITTEN[kind]}, or take 'yeo-johnson' or 'gaussianize', which have none."
        )


def resolve_maps(feature_maps: Any, n_features: int, names: Any = None) -> list:
    """Return the maps to fit or to compare, from what the user asks for.

    Parameters
    ----------
    feature_maps : None, str or mapping
        The parameter: a map for all features, or from index or name of a feature to its
        map; "auto" stands for several that are compared.
    n_features : int
    names : sequence of str or None
        Of the features.

    Returns
    -------
    specs : list
        Each None, a str, or a tuple of length n_features.

    Raises
    ------
    ValueError, TypeError
        If there is no such feature or no such map.
    """
    if isinstance(feature_maps, Mapping):
        specs: list[Any] = [None] * n_features
        taken: dict[int, Any] = {}
        for key, of_one in feature_maps.items():
            column = column_of(key, n_features, names)
            if column in taken:
                raise ValueError(
                    f"feature_maps has two maps of one feature, by the keys "
                    f"{taken[column]!r} and {key!r}."
                )
            taken[column], specs[column] = key, checked_spec(key, of_one)
        return [None if all(of_one is None for of_one in specs) else tuple(specs)]
    if feature_maps is not None and not isinstance(feature_maps, str):
        raise TypeError(f"feature_maps must be {VALID}, got {feature_maps!r}.")
    if feature_maps == "auto":
        return list(AUTO)
    if feature_maps not in AUTO:
        raise ValueError(f"feature_maps must be {VALID}, got {feature_maps!r}.")
    return [feature_maps]


def excepting(spec: Any, columns: Any, n_features: int) -> Any:
    """Return what is to be fitted without maps of some columns; specs by column stay."""
    if not isinstance(spec, str) or not len(columns):
        return spec
    if len(columns) == n_features:
        return None
    return tuple(None if k in columns else spec for k in range(n_features))


def column_of(key: Any, n_features: int, names: Any, where: str = "feature_maps") -> int:
    """Return the column of a feature, which is given by index or by name.

    ``where`` is the parameter that it is given in, for messages.
    """
    if isinstance(key, str):
        if names is None:
            raise ValueError(
                f"{where} has {key!r}, but features of X have no names: pass a data "
                f"frame, or indices from 0 to {n_features - 1}."
            )
        found = [k for k, name in enumerate(names) if name == key]
        if not found:
            known = ", ".join(repr(str(name)) for name in list(names)[:SHOWN])
            raise ValueError(
                f"{where} has {key!r}, which X has not; its features are {known}"
                f"{', ...' if len(names) > SHOWN else ''}."
            )
        return found[0]
    if isinstance(key, bool | np.bool_) or not isinstance(key, Integral):
        as_keys = " as keys" if where == "feature_maps" else ""
        raise TypeError(
            f"{where} must have indices or names of features{as_keys}, got {key!r}."
        )
    if not -n_features <= int(key) < n_features:
        raise ValueError(
            f"{where} has index {key}, but X has features 0 to {n_features - 1}."
        )
    return int(key) % n_features


def chosen_columns(features: Any, n_features: int, names: Any, where: str) -> Any:
    """Return the columns of features, given by indices, names or a mask, in order.

    ``where`` is the parameter that they are given in, for messages.
    """
    asked = np.atleast_1d(np.asarray(features, dtype=object)).ravel().tolist()
    if asked and all(isinstance(k, bool | np.bool_) for k in asked):
        if len(asked) != n_features:
            raise ValueError(
                f"{where} has a mask of {len(asked)} entries, but X has {n_features} "
                "features."
            )
        asked = np.flatnonzero(asked).tolist()
    found = [column_of(k, n_features, names, where) for k in asked]
    return np.array(found, dtype=int)


def checked_spec(key: Any, spec: Any) -> Any:
    """Return the map that a user gives for a feature, limits as floats."""
    if spec is None or (isinstance(spec, str) and spec in (*ANYWHERE, *LIMITS)):
        return spec
    said = f"feature_maps[{key!r}] must be {VALID_OF_ONE}, got {spec!r}."
    if isinstance(spec, str):
        raise ValueError(said)
    if not isinstance(spec, tuple | list):
        raise TypeError(said)
    if not spec or not isinstance(spec[0], str) or spec[0] not in LIMITS:
        raise ValueError(said)
    kind, *limits = spec
    if len(limits) != WRITTEN[kind].count(","):
        raise ValueError(said)
    if not all(isinstance(limit, Real) and np.isfinite(float(limit)) for limit in limits):
        raise ValueError(f"{said} Limits must be finite numbers.")
    if len(limits) == 2 and not limits[0] < limits[1]:
        raise ValueError(f"{said} low must be less than high.")
    return (kind, *(float(limit) for limit in limits))
