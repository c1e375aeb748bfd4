"""Volumes of the unit ball, and functions of the distance that profiles share."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from skhdkde._utils.arrays import namespace
from skhdkde._utils.typing import AnyTile, FloatArray


def log_ball_volume(n_features: int) -> float:
    """Return the log volume of the unit ball."""
    return 0.5 * n_features * np.log(np.pi) - gammaln(0.5 * n_features + 1.0)


def log_sphere_area(n_features: int) -> float:
    """Return the log surface of the unit ball."""
    return np.log(n_features) + log_ball_volume(n_features)


def root(sq: AnyTile) -> AnyTile:
    """Return the square root, in place; rounding may have left ``sq`` just below zero."""
    xp = namespace(sq)
    return xp.sqrt(xp.abs(sq, out=sq), out=sq)


def divide_by_radius(values: AnyTile, radius: AnyTile, at_zero: float = 0.0) -> AnyTile:
    """Return ``values / radius``, and ``at_zero`` where the radius is 0.

    There a gradient may be undefined: 0 then.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return namespace(values).where(radius == 0.0, at_zero, values / radius)


def root_resolution(
    nearest_sq: FloatArray, delta: FloatArray, h: float, tol: float
) -> FloatArray:
    """Return the error of ``r^2`` that moves ``r`` by ``tol h`` at the nearest point."""
    return 2.0 * tol * h * np.sqrt(np.maximum(nearest_sq - delta, 0.0))
