"""Volumes and moments of the unit ball."""

import numpy as np
from scipy.special import gammaln


def log_ball_volume(n_features):
    """Log volume of the unit ball in ``n_features`` dimensions."""
    return 0.5 * n_features * np.log(np.pi) - gammaln(0.5 * n_features + 1.0)


def log_sphere_area(n_features):
    """Log surface of the unit ball in ``n_features`` dimensions."""
    return np.log(n_features) + log_ball_volume(n_features)
