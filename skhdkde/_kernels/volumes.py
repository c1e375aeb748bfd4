"""Volumes of the unit ball, and functions of the distance that profiles share."""

import numpy as np
from scipy.special import gammaln

from skhdkde._utils.arrays import namespace


def log_ball_volume(n_features):
    """Log volume of the unit ball in ``n_features`` dimensions."""
    return 0.5 * n_features * np.log(np.pi) - gammaln(0.5 * n_features + 1.0)


def log_sphere_area(n_features):
    """Log surface of the unit ball in ``n_features`` dimensions."""
    return np.log(n_features) + log_ball_volume(n_features)


def root(sq):
    """Square root in place; rounding may have left ``sq`` a little below zero."""
    xp = namespace(sq)
    return xp.sqrt(xp.abs(sq, out=sq), out=sq)


def divide_by_radius(values, radius, at_zero=0.0):
    """``values / radius``; ``at_zero``, where a gradient is undefined, it is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return namespace(values).where(radius == 0.0, at_zero, values / radius)


def root_resolution(nearest, delta, h, tol):
    """The error of ``r^2`` that moves ``r`` by ``tol h`` at the row's nearest point."""
    return 2.0 * tol * h * np.sqrt(np.maximum(nearest - delta, 0.0))
