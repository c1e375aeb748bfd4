"""Checks of input: scikit-learn's, in words that always name the parameter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils._array_api import get_namespace
from sklearn.utils.validation import validate_data

from skhdkde._utils.arrays import detached, local
from skhdkde._utils.typing import FloatArray

# float32 stays float32; everything else becomes float64.
FLOATS = [np.float64, np.float32]
# Ratio of bandwidth and data beyond which squares leave the range of float64, or the
# data themselves, once scaled, that of float32.
LARGEST_RATIO = {np.dtype(np.float64): 1e140, np.dtype(np.float32): 1e30}
ALL_ZERO = "sample_weight must have a positive entry, all weights are zero."


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


def check_data(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Return X as a float32 or float64 array, checked against an estimator.

    With ``reset``, its number and names of features are recorded in the estimator. An
    array of another library stays one, with scikit-learn's ``array_api_dispatch``.

    Raises
    ------
    ValueError, TypeError
        If it is not a dense, finite, real array of two dimensions, with at least one row
        and column, or not with the features seen in fit.
    """
    with _naming("X"):
        X = detached(X)
        return validate_data(estimator, X, dtype=_floats(X), reset=reset)


def check_points(X: Any) -> Any:
    """Return X as :func:`check_data` does, without an estimator."""
    with _naming("X"):
        X = detached(X)
        return check_array(X, dtype=_floats(X), input_name="X")


def _floats(X: Any) -> list:
    """Return the dtypes of its library that X may have; others become the first."""
    xp, is_array_api = get_namespace(X)
    if is_array_api and xp.isdtype(X.dtype, "complex floating"):
        raise ValueError(f"Complex data not supported, got {X.dtype}.")
    return [xp.float64, xp.float32] if is_array_api else FLOATS


def check_weights(sample_weight: Any, X: Any) -> FloatArray | None:
    """Return ``sample_weight`` as float64 of shape (n_samples,), or None for None.

    Raises
    ------
    ValueError
        If it has the wrong length, NaN, infinite or negative entries, or no positive one.
    """
    if sample_weight is None:
        return None
    if hasattr(sample_weight, "device"):
        with _naming("sample_weight"):
            sample_weight = np.asarray(local(sample_weight))
    weights = finite_weights(sample_weight, len(X))
    if not weights.max() > 0.0:
        raise ValueError(ALL_ZERO)
    return weights


def finite_weights(sample_weight: Any, n_samples: int) -> FloatArray:
    """Return ``sample_weight`` as float64, of which none need be positive.

    Raises
    ------
    ValueError
        If it has the wrong length, NaN, infinite or negative entries.
    """
    if isinstance(sample_weight, Real):
        sample_weight = np.full(n_samples, sample_weight)
    with _naming("sample_weight"):
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


def check_bandwidth(bandwidth: float, points: Any) -> float:
    """Return a bandwidth as a float, if its ratio to the size of the points has a square.

    Parameters
    ----------
    bandwidth : float
        In the units of the points as they were given.
    points : TrainingPoints

    Raises
    ------
    ValueError
        If the ratio is too small or too large.
    """
    if isinstance(bandwidth, bool):
        raise ValueError(f"bandwidth must be a number or a rule, got {bandwidth!r}.")
    bandwidth = float(bandwidth)
    limit, ratio = LARGEST_RATIO[points.dtype], bandwidth * points.scale
    if not 1.0 / limit < ratio < limit:
        size = "small" if ratio < 1.0 else "large"
        raise ValueError(
            f"bandwidth={bandwidth!r} is too {size} for X with entries up to "
            f"{1.0 / points.scale:.1e}: their ratio must be within {limit:.0e}."
        )
    return bandwidth


def check_n_jobs(n_jobs: int | None) -> None:
    """Raise ValueError if a number of jobs is 0."""
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0: 1 is one thread, -1 is all cores.")


def interleaved(zero: np.ndarray, others: tuple, own: tuple) -> tuple:
    """Return results of all points from those with weight and those without.

    Parameters
    ----------
    zero : ndarray of bool of shape (n_points,)
        Which are without weight.
    others, own : tuple of ndarray
        Results of the points with weight, and of those without, put together one by one.
    """
    results = []
    for with_weight, without in zip(others, own, strict=True):
        result = np.empty((len(zero), *with_weight.shape[1:]), dtype=with_weight.dtype)
        result[zero], result[~zero] = without, with_weight
        results.append(result)
    return tuple(results)
