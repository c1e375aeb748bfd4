"""Checks of input: scikit-learn's, in words that always name the parameter."""

import contextlib
from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils._array_api import get_namespace
from sklearn.utils.validation import validate_data

from skhdkde._utils.arrays import detached, has_finite_sum, is_narrow, local, select
from skhdkde._utils.frames import naming_columns
from skhdkde._utils.typing import FloatArray

# float32 stays float32, and half precision becomes that; everything else is float64.
FLOATS = [np.float64, np.float32]
# Ratios of bandwidth and data between which squares are in the range of float64, those of
# far queries too, and the data themselves, once scaled, in that of float32.
RATIOS = {np.dtype(np.float64): (1e-140, 1e100), np.dtype(np.float32): (1e-30, 1e30)}
# Its square, times the number of points, is a float64; so is its inverse's.
LARGEST_ENTRY = 1e145
ALL_ZERO = "sample_weight must have a positive entry, all weights are zero."
# What to do about missing values, unless an estimator has advice of its own.
IF_MISSING = (
    "Leave out rows that have NaN, or fill them in first: skhdkde.DensityImputer does "
    "that as the first step of a Pipeline."
)


@contextlib.contextmanager
def _naming(parameter: str) -> Iterator[None]:
    """Put a parameter's name before the errors that do not have it.

    scikit-learn names ``input_name`` where values are bad, but not where shapes are.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        if type(error) not in (ValueError, TypeError) or parameter in str(error):
            raise
        raise type(error)(f"{parameter}: {error}") from error


def check_data(estimator: Any, X: Any, *, reset: bool, missing: bool = False) -> Any:
    """Return X, points of at least one feature, as a finite array of float32 or float64.

    Its number and names of features must be those that the estimator has seen in fit;
    with ``reset`` they are recorded there. An array of another library stays one, with
    scikit-learn's ``array_api_dispatch``. With ``missing`` entries may be NaN; without,
    an error about NaN ends in the estimator's ``_if_missing``, or in ``IF_MISSING``.
    """
    if not reset and _is_checked(estimator, X):
        return X
    finite = "allow-nan" if missing else True
    with _naming("X"), rows_are_points(estimator, X), _advising(estimator):
        given, X = X, detached(X)
        floats = _floats(X, is_narrow(given))
        with naming_columns(X):
            return validate_data(
                estimator, X, dtype=floats, reset=reset, ensure_all_finite=finite
            )


def _is_checked(estimator, X):
    """Return whether X is a plain array in which nothing is to be found or changed.

    For one row that takes a twentieth of the time of scikit-learn's checks.
    """
    if type(X) is not np.ndarray or X.dtype not in FLOATS or X.ndim != 2 or not len(X):
        return False
    same = X.shape[1] == getattr(estimator, "n_features_in_", None)
    named = hasattr(estimator, "feature_names_in_")  # and X has none, which it warns of
    return same and not named and has_finite_sum(X)


@contextlib.contextmanager
def _advising(estimator: Any) -> Iterator[None]:
    """Add to errors about missing values what to do."""
    try:
        yield
    except ValueError as error:
        if "contains NaN" in str(error):
            error.args = (f"{error} {getattr(estimator, '_if_missing', IF_MISSING)}",)
        raise


@contextlib.contextmanager
def rows_are_points(estimator: Any, X: Any) -> Iterator[None]:
    """Add to errors that X must be transposed, if it then has the features of the fit."""
    try:
        yield
    except ValueError as error:
        expected = getattr(estimator, "n_features_in_", None)
        shape: tuple = getattr(X, "shape", ())
        if len(shape) == 2 and shape[0] == expected != shape[1]:
            error.args = (f"{error} X.T would fit: rows are points, columns features.",)
        raise


def check_points(X: Any) -> Any:
    """Return X as :func:`check_data` does, without an estimator."""
    with _naming("X"):
        given, X = X, detached(X)
        floats = _floats(X, is_narrow(given))
        with naming_columns(X):
            return check_array(X, dtype=floats, input_name="X")


def _floats(X: Any, narrow: bool) -> list:
    """Return the dtypes of its library that X may have; others become the first.

    ``narrow`` says whether float32 holds all that X has.
    """
    xp, is_array_api = get_namespace(X)
    if is_array_api and xp.isdtype(X.dtype, "complex floating"):
        raise ValueError(f"Complex data not supported, got {X.dtype}.")
    floats = [xp.float64, xp.float32] if is_array_api else FLOATS
    return floats[::-1] if narrow else floats


def check_weights(sample_weight: Any, X: Any) -> FloatArray | None:
    """Return weights relative to the largest, as float64; None for None.

    Inside, all weights are relative. One of them must be positive.
    """
    return scaled_weights(sample_weight, X)[0]


def scaled_weights(sample_weight: Any, X: Any) -> tuple[FloatArray | None, float]:
    """Return weights as :func:`check_weights` does, and the largest; 1 for None."""
    if sample_weight is None:
        return None, 1.0
    weights = finite_weights(sample_weight, len(X))
    heaviest = float(weights.max())
    if not heaviest > 0.0:
        raise ValueError(ALL_ZERO)
    return relative_weights(weights, heaviest), heaviest


def in_dtype(X: FloatArray, dtype: Any) -> FloatArray:
    """Return points in the dtype of others; raise ValueError beyond its range."""
    with np.errstate(over="ignore"):
        found = X.astype(dtype, copy=False)
    if not np.isfinite(found).all():
        raise ValueError(
            f"X has entries up to {np.abs(X).max():.1e}, beyond the range of {dtype}, in "
            "which the rows of the fit are kept."
        )
    return found


def without_zeros(X: Any, weights: FloatArray | None) -> tuple:
    """Return the points of positive weight, their weights and their rows in X.

    Weights that are all equal are None, as are rows that are all of X.
    """
    rows = None
    if weights is not None and not weights.all():
        positive = weights > 0.0
        rows = np.flatnonzero(positive)
        X, weights = select(X, positive), weights[positive]
    if weights is not None and (weights == 1.0).all():
        weights = None
    return X, weights, rows


def relative_weights(weights: Any, heaviest: float) -> FloatArray:
    """Return weights relative to the largest, as float64.

    A ratio below the normal numbers, which has lost digits, is 0.
    """
    relative = np.asarray(weights, dtype=np.float64) / heaviest
    relative[relative < np.finfo(np.float64).tiny] = 0.0
    return relative


def finite_weights(sample_weight: Any, n_samples: int) -> FloatArray:
    """Return weights, which may be all zero, as float64 of shape (n_samples,)."""
    if isinstance(sample_weight, Real):
        sample_weight = np.full(n_samples, sample_weight)
    with _naming("sample_weight"):
        sample_weight = detached(sample_weight)
        if hasattr(sample_weight, "device"):
            sample_weight = np.asarray(local(sample_weight))
        weights = check_array(
            sample_weight,
            dtype=np.float64,
            ensure_2d=False,
            ensure_min_samples=0,
            input_name="sample_weight",
        )
    if weights.ndim != 1:
        raise ValueError(f"sample_weight must be 1D, got shape {weights.shape}.")
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight.shape == {weights.shape}, expected {(n_samples,)}!"
        )
    if n_samples and weights.min() < 0.0:
        raise ValueError(
            f"sample_weight must not be negative, got {float(weights.min())!r} at index "
            f"{weights.argmin()}."
        )
    return weights


def weighted_total(values: Any, sample_weight: Any) -> float:
    """Return the sum of values times weights; None stands for weights of 1.

    A weight of 0 leaves its value out, also an infinite one.
    """
    values = np.asarray(values, dtype=np.float64)
    if sample_weight is None:
        return float(values.sum())
    weights = finite_weights(sample_weight, len(values))
    counted = weights > 0.0
    return float(np.sum(weights[counted] * values[counted]))


def check_bandwidth(bandwidth: float, points: Any) -> float:
    """Return a bandwidth, in the units of X, as a float.

    Its ratio to the size of the points must have a square.
    """
    if isinstance(bandwidth, bool):
        raise ValueError(f"bandwidth must be a number or a rule, got {bandwidth!r}.")
    bandwidth = float(bandwidth)
    (least, most), ratio = RATIOS[points.dtype], bandwidth * points.scale
    if not least < ratio < most:
        size = "small" if ratio < 1.0 else "large"
        raise ValueError(
            f"bandwidth={bandwidth!r} is too {size} for X with entries up to "
            f"{1.0 / points.scale:.1e}: their ratio must be between {least:.0e} and "
            f"{most:.0e}."
        )
    return bandwidth


def check_squares(largest: float) -> None:
    """Raise ValueError if squares of entries up to ``largest`` are beyond float64."""
    if largest > LARGEST_ENTRY or 0.0 < largest < 1.0 / LARGEST_ENTRY:
        raise ValueError(
            f"X has entries up to {largest:.1e}, whose squares are beyond float64; "
            "multiply it by a factor."
        )


def check_n_jobs(n_jobs: int | None) -> None:
    """Raise ValueError if a number of jobs is 0."""
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0: 1 is one thread, -1 is all cores.")


def interleaved(zero: np.ndarray, others: tuple, own: tuple) -> tuple:
    """Return results for all points from those for points with weight and without.

    ``zero`` says which are without; ``others`` and ``own`` have several arrays each.
    """
    results = []
    for with_weight, without in zip(others, own, strict=True):
        result = np.empty((len(zero), *with_weight.shape[1:]), dtype=with_weight.dtype)
        result[zero], result[~zero] = without, with_weight
        results.append(result)
    return tuple(results)
