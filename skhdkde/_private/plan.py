"""Which frequencies, and how many, from what is public: numbers and units."""

import math

import numpy as np

from skhdkde._private.budget import Budget, gaussian_scale
from skhdkde._private.frequencies import (
    Frequencies,
    lattice_frequencies,
    random_frequencies,
)
from skhdkde._utils.typing import FloatArray

# Limits of "auto". With Gaussian noise many components cost time alone.
FEWEST, FEWEST_GAUSSIAN, MOST = 64, 2**11, 2**13


def relative_error_target() -> float:
    """Return the relative error of a kernel sum for which "auto" is best."""
    return 0.1


def feature_plan(
    n_rows: float,
    n_features: int,
    bandwidth: float,
    budget: Budget,
    *,
    box: tuple[FloatArray, FloatArray] | None,
    n_components: int | None,
    rng: np.random.RandomState,
) -> Frequencies:
    """Return frequencies: those of a lattice, or random ones."""
    found = lattice_or_number(n_rows, bandwidth, budget, box, n_components)
    if isinstance(found, int):
        return random_frequencies(found, n_features, bandwidth, box, rng)
    return found


def lattice_or_number(
    n_rows: float,
    bandwidth: float,
    budget: Budget,
    box: tuple[FloatArray, FloatArray] | None,
    n_components: int | None,
) -> Frequencies | int:
    """Return a lattice where its error is the smaller one, else how many random ones.

    A number of components asks for so many random ones. For "auto", None here, errors
    are compared where random ones have a relative error of 10 %.
    """
    if n_components is not None:
        return n_components
    n = best_number(n_rows, budget)
    if box is not None:
        lattice = lattice_frequencies(bandwidth, box)
        if lattice is not None:
            noise = budget.noise_variance(lattice.coefficients)
            if noise <= random_error_sq(n_rows, n, budget):
                return lattice
    return n


def best_number(n_rows: float, budget: Budget) -> int:
    """Return the number of random frequencies that is best for a relative error of 10 %.

    With Laplace noise a kernel sum ``S`` has the relative variance
    ``4 m / (epsilon S)^2 + n / (2 m S)``. It is least at ``m = epsilon sqrt(n S / 8)``,
    and there 0.01 at one ``S``. Gaussian noise does not depend on ``m``, which is then
    such that noise and frequencies have the same error, up to the limit.
    """
    n, r = max(n_rows, 1.0), relative_error_target()
    epsilon = float(budget.of_sums)
    if budget.pure:
        level = min((math.sqrt(8.0 * n) / (epsilon * r**2)) ** (2.0 / 3.0), n)
        best = max(epsilon * math.sqrt(n * level / 8.0), FEWEST)
    else:
        best = n / (math.sqrt(2.0) * r * gaussian_scale(epsilon, budget.delta))
        best = max(best, FEWEST_GAUSSIAN)
    return int(min(best, MOST))


def random_error_sq(n_rows: float, n: int, budget: Budget) -> float:
    """Return the squared error of a sum by random frequencies where it is 10 % of it.

    ``(r S)^2 = noise + n_rows S / (2 n)``, solved for the sum ``S``.
    """
    noise = budget.noise_variance(np.full(n, 1.0 / n))
    r, half = relative_error_target(), 0.25 * max(n_rows, 1.0) / n
    level = (half + math.sqrt(half**2 + r**2 * noise)) / r**2
    return (r * level) ** 2
