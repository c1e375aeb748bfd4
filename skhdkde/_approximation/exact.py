"""Sums over all points, reported like those that are approximate."""

import numpy as np

from skhdkde._approximation.report import EXACT, N_EVALUATIONS


class ExactSums:
    """The sums of a density over all points, for queries that nothing is prepared for."""

    def __init__(self, density):
        self.density = density

    def log_density(self, X, options):
        """Return log densities, and what was used for each query."""
        used = np.full((len(X), 3), float(EXACT))
        used[:, 1:] = 0.0
        used[:, N_EVALUATIONS] = self.density.n_points
        return self.density.log_density(X, options), used
